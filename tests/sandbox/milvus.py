"""A fake of the Milvus help desk API: its clients, as the vendor documentation describes them.

Not known of the real one and chosen here: the JSON form of an error (`message`, seen typed in one public
client), which fields are required, that a document must suit the kind of person, that `alterar` refuses
addresses and contacts (its documentation lists neither) instead of ignoring them, and that a double document
makes a second client, so that a client sent twice is visible.
"""

import random
import re
import string
from collections import Counter
from functools import cached_property
from typing import Any
from zlib import crc32

import msgspec
from stdnum.br import cnpj, cpf

from tests.sandbox.people import COMPANY, People, Row
from tests.sandbox.system import Answer, Request, Setup, System, answer

MOUNT = "/api"
MOST_FOUND = 1000
FIRST_ID = 200_001
ONLY_ON_CREATE = ("cliente_enderecos", "cliente_contatos")


class Refused(ValueError):
    """The client cannot be written; the message is the one Milvus answers."""


class Milvus(System):
    """A help desk. `clients` maps id to the row that is read; `bodies` to what was last written of it."""

    name = "milvus"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        chance = random.Random(f"{setup.seed} milvus token")
        self.token = "".join(chance.choices(string.ascii_letters + string.digits, k=64))
        self.clients: dict[int, Row] = {}
        self.bodies: dict[int, Row] = {}
        self.by_document: dict[str, list[int]] = {}
        self.counts: Counter[str] = Counter(finds=0, creates=0, updates=0, deletes=0, refusals=0)
        self._chance = chance
        self._tokens: set[str] = set()
        self._setup = setup
        self._last_id = FIRST_ID - 1

    @cached_property
    def people(self) -> People:
        """People of its own, for clients that did not come through the API."""
        return People(self._setup.seed + 1, self._setup.now)

    def environment(self, url: str) -> dict[str, str]:
        return {"MILVUS_URL": url + MOUNT, "MILVUS_TOKEN": self.token}

    def authorised(self, request: Request) -> bool:
        return request.headers.get("authorization") == self.token

    def error(self, status: int, message: str) -> Answer:
        return answer(status, {"message": message})

    def rows(self) -> list[Row]:
        return [row | {"written": self.bodies[client_id]} for client_id, row in self.clients.items()]

    def identity(self, row: Row) -> tuple[int, str | None]:
        return row["id"], row["cnpj_cpf"]

    def stats(self) -> dict[str, Any]:
        """As for every system, with the operations that succeeded and the clients per document."""
        with self.lock:
            documents = {document: len(ids) for document, ids in self.by_document.items()}
            return super().stats() | self.counts | {
                "clients": len(self.clients),
                "clients_per_document": documents,
                "repeated_documents": {document: count for document, count in documents.items() if count > 1},
            }  # fmt: skip

    def respond(self, request: Request) -> Answer:
        path, _, last = request.path.removeprefix(MOUNT).rpartition("/")
        try:
            match request.method, path, last:
                case "GET", "/cliente", "busca":
                    self.counts["finds"] += 1
                    return answer(200, {"lista": self.find(request.query)})
                case "POST", "/cliente", "criar":
                    return answer(200, self.create(_body(request)))
                case "PUT", "/cliente/alterar", _ if last.isdecimal():
                    if int(last) not in self.clients:
                        return self.error(404, "Cliente não encontrado")
                    self.update(int(last), _body(request))
                    return Answer(204)
                case "DELETE", "/cliente/excluir", _ if last.isdecimal():
                    if int(last) not in self.clients:
                        return self.error(404, "Cliente não encontrado")
                    self.counts["deletes"] += 1
                    self._remove(int(last))
                    return Answer(204)
            return self.error(404, "Recurso não encontrado")
        except Refused as refusal:
            self.counts["refusals"] += 1
            return self.error(400, str(refusal))

    def find(self, query: Any) -> list[Row]:
        """At most 1000 clients, without a sign that more were cut off. Status 1 (active) is the default, 2 is
        blocked, 3 both."""
        status = query.get("status") or "1"
        if status not in ("1", "2", "3"):
            raise Refused("Campo inválido: status")
        document, name = query.get("documento"), (query.get("nome_fantasia") or "").lower()
        ids = self.by_document.get(document, []) if document else self.clients
        found = []
        for client_id in ids:
            row = self.clients[client_id]
            if status in ("3", "1" if row["is_ativo"] else "2") and name in row["nome_fantasia"].lower():
                found.append(row)
                if len(found) == MOST_FOUND:
                    break
        return found

    def create(self, body: Row) -> int:
        """The id of a new client, even if another one has the same document."""
        fields = self._checked(body)
        self.counts["creates"] += 1
        return self._insert(fields, body)

    def update(self, client_id: int, body: Row) -> None:
        """Replaces what `alterar` may change: everything but addresses and contacts."""
        for name in ONLY_ON_CREATE:
            if name in body:
                raise Refused(f"Campo inválido: {name} não pode ser alterado")
        fields = self._checked(body)
        self.counts["updates"] += 1
        self._replace(client_id, fields, self.bodies[client_id] | body)

    def edit(self, count: int, seed: int) -> list[Row]:
        """Another name for so many clients."""
        chance = random.Random(seed)
        ids = chance.sample(sorted(self.clients), count)
        for client_id in ids:
            row = self.clients[client_id]
            name, _ = self.people.names(chance, not row["is_fisica"])
            changed = name if name != row["nome_fantasia"] else f"{name} Filho"
            self._replace(client_id, {"nome_fantasia": changed}, self.bodies[client_id])
        return [self.clients[client_id] for client_id in ids]

    def delete(self, count: int, seed: int) -> list[Row]:
        return [self._remove(each) for each in random.Random(seed).sample(sorted(self.clients), count)]

    def add(self, count: int) -> list[Row]:
        bodies = [_as_written(row) for row in self.people.take(count)]
        return [self.clients[self._insert(_read_fields(body), body)] for body in bodies]

    def _checked(self, body: Row) -> Row:
        """What is read back of a body, if it may be written."""
        _check(body)
        every = int(self.faults["reject"])
        if every and crc32(body["cliente_documento"].encode()) % every == 0:
            self.struck["reject"] += 1
            raise Refused("Não foi possível gravar o cliente: documento recusado pela Receita Federal")
        return _read_fields(body)

    def _insert(self, fields: Row, body: Row) -> int:
        self._last_id += 1
        client_id = self._last_id
        while (token := "".join(self._chance.choices(string.ascii_uppercase, k=6))) in self._tokens:
            pass
        self._tokens.add(token)
        self.clients[client_id] = {
            "id": client_id,
            "token": token,
            **fields,
            "is_sla": False,
            "is_esporadico": False,
            "timezone": "America/Sao_Paulo",
            "idioma": 1,
            "bc_cliente_id": None,
            "tipo_tempo_sla_id": 1,
            "pais_id": 1,
            "cliente_matriz_id": None,
            "motivo_bloqueio": None,
            "tipo_moeda": "R$",
            "is_visivel": True,
            "equipes": [],
            "grupo_categorias": [],
        }
        self.bodies[client_id] = body
        self.by_document.setdefault(fields["cnpj_cpf"], []).append(client_id)
        return client_id

    def _replace(self, client_id: int, fields: Row, body: Row) -> None:
        before = self.clients[client_id]["cnpj_cpf"]
        self.clients[client_id] = self.clients[client_id] | fields
        self.bodies[client_id] = body
        after = self.clients[client_id]["cnpj_cpf"]
        if before != after:
            self._forget(before, client_id)
            self.by_document.setdefault(after, []).append(client_id)

    def _remove(self, client_id: int) -> Row:
        del self.bodies[client_id]
        row = self.clients.pop(client_id)
        self._forget(row["cnpj_cpf"], client_id)
        return row

    def _forget(self, document: str, client_id: int) -> None:
        self.by_document[document].remove(client_id)
        if not self.by_document[document]:
            del self.by_document[document]


def _body(request: Request) -> Row:
    try:
        return msgspec.json.decode(request.body, type=Row)
    except msgspec.DecodeError:
        raise Refused("O corpo da requisição não é um JSON válido") from None


def _check(body: Row) -> None:
    kinds = [kind for kind in ("cliente_pessoa_fisica", "cliente_pessoa_juridica") if body.get(kind)]
    if len(kinds) != 1 or not isinstance(body[kinds[0]], dict):
        raise Refused("Informe cliente_pessoa_fisica ou cliente_pessoa_juridica, e somente um dos dois")
    person = kinds[0] == "cliente_pessoa_fisica"
    name = "nome" if person else "nome_fantasia"
    if not _text(body[kinds[0]].get(name)):
        raise Refused(f"Campo obrigatório: {kinds[0]}.{name}")
    _check_document(body.get("cliente_documento"), person)
    born = body[kinds[0]].get("data_nascimento")
    if born and not re.fullmatch(r"\d{4}-\d\d-\d\d", str(born)):
        raise Refused("Campo inválido: data_nascimento deve ter o formato AAAA-MM-DD")
    if not isinstance(body.get("cliente_ativo", True), bool):
        raise Refused("Campo inválido: cliente_ativo")
    if type(body.get("cliente_id_integracao", 0)) is not int:
        raise Refused("Campo inválido: cliente_id_integracao")
    for address in _objects(body, "cliente_enderecos"):
        if address.get("endereco_cep") and not re.fullmatch(r"\d{8}", str(address["endereco_cep"]), re.ASCII):
            raise Refused("Campo inválido: endereco_cep deve ter 8 dígitos")
        if address.get("endereco_estado") and not re.fullmatch(r"[A-Z]{2}", str(address["endereco_estado"])):
            raise Refused("Campo inválido: endereco_estado deve ter duas letras")
    for contact in _objects(body, "cliente_contatos"):
        if contact.get("contato_email") and "@" not in str(contact["contato_email"]):
            raise Refused("Campo inválido: contato_email")


def _check_document(document: object, person: bool) -> None:
    if not isinstance(document, str) or not re.fullmatch(r"[0-9A-Z]+", document):
        raise Refused("Campo inválido: cliente_documento deve ser um texto sem máscara")
    # The library accepts a CPF of eleven equal digits, which the register never issues.
    valid = cpf.is_valid(document) and len(set(document)) > 1 if person else cnpj.is_valid(document)
    if not valid:
        raise Refused(f"Documento inválido: {'CPF' if person else 'CNPJ'} não confere")


def _objects(body: Row, name: str) -> list[Row]:
    values = body.get(name) or []
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise Refused(f"Campo inválido: {name}")
    return values


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _read_fields(body: Row) -> Row:
    """How a client reads back, without addresses, contacts and integration id (vendor documentation)."""
    person, company = body.get("cliente_pessoa_fisica") or {}, body.get("cliente_pessoa_juridica") or {}
    return {
        "razao_social": company.get("razao_social"),
        "nome_fantasia": company.get("nome_fantasia") or person.get("nome"),
        "cnpj_cpf": body["cliente_documento"],
        "inscricao_estadual": company.get("inscricao_estadual"),
        "site": body.get("cliente_site"),
        "sexo": person.get("sexo"),
        "is_fisica": bool(person),
        "is_ativo": body.get("cliente_ativo", True),
        "data_nascimento": person.get("data_nascimento"),
        "observacao": body.get("cliente_observacao"),
    }


def _as_written(row: Row) -> Row:
    """What somebody would have written for this contact."""
    kind, names = "cliente_pessoa_fisica", {"nome": row["Name"]}
    if row["TypeId"] == COMPANY:
        kind = "cliente_pessoa_juridica"
        names = {"nome_fantasia": row["Name"], "razao_social": row["LegalName"]}
    return {
        "cliente_documento": row["Register"],
        "cliente_ativo": True,
        kind: names,
        "cliente_contatos": [{"contato_padrao": True, "contato_email": row["Email"]}],
    }
