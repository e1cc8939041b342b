"""The clients of Milvus and the contacts of each: who is found, what may be written, how it reads back.

Field names: vendor documentation. Not known and chosen here: which fields are required, that a document must suit
the kind of person, that `alterar` refuses addresses and contacts (its documentation lists neither) instead of
ignoring them, that a double document makes a second client, so that a client sent twice is visible, and the form
of a contact that is found (as it was written, with its id and the client's token).
"""

import random
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from zlib import crc32

from tests.sandbox.milvus_body import CONTACT_TEXTS, Refused, as_written, check_client, objects, read_fields, text
from tests.sandbox.people import People, Row
from tests.sandbox.system import Part, Setup, System

MOST_FOUND = 1000
FIRST_ID = 200_001
FIRST_CONTACT = 900_001
INACTIVE = 0.1
ONLY_ON_CREATE = ("cliente_enderecos", "cliente_contatos")


class Index(dict[str, list[int]]):
    """The ids by value, and in `repeated` how often the values occur that occur more than once."""

    def __init__(self) -> None:
        super().__init__()
        self.repeated: dict[str, int] = {}

    def put(self, value: str, each: int) -> None:
        self.setdefault(value, []).append(each)
        self._note(value)

    def drop(self, value: str, each: int) -> None:
        self[value].remove(each)
        self._note(value)

    def _note(self, value: str) -> None:
        if len(self[value]) > 1:
            self.repeated[value] = len(self[value])
        else:
            self.repeated.pop(value, None)
        if not self[value]:
            del self[value]


class Clients(Part):
    """`rows_by_id` maps id to the row that is read; `bodies` to what was last written of it."""

    def __init__(self, desk: System, setup: Setup, chance: random.Random) -> None:
        self.rows_by_id: dict[int, Row] = {}
        self.bodies: dict[int, Row] = {}
        self.by_document = Index()
        self.by_token: dict[str, int] = {}
        self.contacts: dict[int, Row] = {}
        self._contacts_of: dict[str, list[int]] = {}
        self._desk = desk
        self._setup = setup
        self._chance = chance
        self._last_id = FIRST_ID - 1
        self._last_contact = FIRST_CONTACT - 1
        blocked = random.Random(f"{setup.seed} milvus blocked clients")
        for row in self._people.take(setup.clients) if setup.clients else ():
            body = as_written(row) | {"cliente_ativo": blocked.random() >= INACTIVE}
            self.insert(read_fields(body), body)

    @cached_property
    def _people(self) -> People:
        """People of its own, for clients that did not come through the API."""
        return People(self._setup.seed + 1, self._setup.now, self._setup.documents)

    def rows(self) -> list[Row]:
        return [row | {"written": self.bodies[client_id]} for client_id, row in self.rows_by_id.items()]

    def identity(self, row: Row) -> tuple[int, str | None]:
        return row["id"], row["cnpj_cpf"]

    def edit(self, count: int, seed: int) -> list[Row]:
        """Another name for so many clients."""
        chance = random.Random(seed)
        ids = chance.sample(sorted(self.rows_by_id), count)
        for client_id in ids:
            row = self.rows_by_id[client_id]
            name, _ = self._people.names(chance, not row["is_fisica"])
            changed = name if name != row["nome_fantasia"] else f"{name} Filho"
            self._replace(client_id, {"nome_fantasia": changed}, self.bodies[client_id])
        return [self.rows_by_id[client_id] for client_id in ids]

    def delete(self, count: int, seed: int) -> list[Row]:
        return self.remove(random.Random(seed).sample(sorted(self.rows_by_id), count))

    def add(self, count: int) -> list[Row]:
        bodies = [as_written(row) for row in self._people.take(count)]
        return [self.rows_by_id[self.insert(read_fields(body), body)] for body in bodies]

    def change(self, ids: Sequence[int], fields: Row) -> list[Row]:
        """Takes the fields of a client as it is read, but for id and token; nothing is checked."""
        known(self.rows_by_id, ids)
        for client_id in ids:
            if unknown := fields.keys() - (self.rows_by_id[client_id].keys() - {"id", "token"}):
                raise ValueError(f"a client has no field {min(unknown)} to be set")
        for client_id in ids:
            self._replace(client_id, fields, self.bodies[client_id])
        return [self.rows_by_id[client_id] for client_id in ids]

    def remove(self, ids: Sequence[int]) -> list[Row]:
        known(self.rows_by_id, ids)
        return [self._remove(client_id) for client_id in ids]

    def find(self, query: Mapping[str, str]) -> list[Row]:
        """At most 1000 clients, without a sign that more were cut off. Status 1 (active) is the default, 2 is
        blocked, 3 both."""
        status = query.get("status") or "1"
        if status not in ("1", "2", "3"):
            raise Refused("Campo inválido: status")
        most = int(self._desk.faults["client_cap"]) or MOST_FOUND
        document, suits = query.get("documento"), self._names((query.get("nome_fantasia") or "").lower())
        ids: Iterable[int] = self.by_document.get(document, []) if document else self.rows_by_id
        found = []
        for client_id in ids:
            row = self.rows_by_id[client_id]
            if status in ("3", "1" if row["is_ativo"] else "2") and suits((row["nome_fantasia"] or "").lower()):
                found.append(row)
                if len(found) == most:
                    break
        return found

    def create(self, body: Row) -> int:
        """The id of a new client, even if another one has the same document."""
        return self.insert(self._checked(body), body)

    def update(self, client_id: int, body: Row) -> None:
        """Replaces what `alterar` may change: everything but addresses and contacts."""
        for name in ONLY_ON_CREATE:
            if name in body:
                raise Refused(f"Campo inválido: {name} não pode ser alterado")
        self._replace(client_id, self._checked(body), self.bodies[client_id] | body)

    def create_contact(self, body: Row) -> int:
        """The id of a new contact of the client whose token is named."""
        if unknown := body.keys() - {"cliente_id", "is_padrao", *CONTACT_TEXTS}:
            raise Refused(f"Campo inválido: {min(unknown)}")
        if body.get("cliente_id") not in self.by_token:
            raise Refused("Cliente não encontrado: cliente_id deve ser o token do cliente")
        if not all(isinstance(body.get(name, ""), str) for name in CONTACT_TEXTS):
            raise Refused("Campo inválido: os dados do contato são textos")
        if body.get("is_padrao", "false") not in ("true", "false"):
            raise Refused("Campo inválido: is_padrao")
        if not text(body.get("contato_descricao")):
            raise Refused("Campo obrigatório: contato_descricao")
        return self._add_contact(body["cliente_id"], body)

    def find_contacts(self, query: Mapping[str, str]) -> list[Row]:
        """The contacts with exactly that telephone (of either kind, digits alone count) or e-mail address."""
        wanted = {name: value for name, value in query.items() if value}
        if len(wanted) != 1 or not wanted.keys() <= {"telefone", "email"}:
            raise Refused("Informe telefone ou email")
        if "email" in wanted:
            address = wanted["email"].lower()
            return [row for row in self.contacts.values() if row["contato_email"].lower() == address]
        number = _digits(wanted["telefone"])
        if not number:
            raise Refused("Campo inválido: telefone")
        return [
            row
            for row in self.contacts.values()
            if number in (_digits(row["contato_telefone"]), _digits(row["contato_celular"]))
        ]

    def insert(self, fields: Row, body: Row) -> int:
        self._last_id += 1
        client_id = self._last_id
        while (token := "".join(self._chance.choices(string.ascii_uppercase, k=6))) in self.by_token:
            pass
        self.by_token[token] = client_id
        self.rows_by_id[client_id] = {
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
        self.by_document.put(fields["cnpj_cpf"], client_id)
        for contact in objects(body, "cliente_contatos"):
            self._add_contact(token, contact)
        return client_id

    def _names(self, wanted: str) -> Callable[[str], bool]:
        if self._desk.faults["no_name_search"]:
            return lambda name: True
        if self._desk.faults["prefix_search"]:
            return lambda name: name.startswith(wanted)
        return lambda name: wanted in name

    def _checked(self, body: Row) -> Row:
        """What is read back of a body, if it may be written."""
        check_client(body)
        every = int(self._desk.faults["reject"])
        if every and crc32(body["cliente_documento"].encode()) % every == 0:
            self._desk.struck["reject"] += 1
            raise Refused("Não foi possível gravar o cliente: documento recusado pela Receita Federal")
        return read_fields(body)

    def _add_contact(self, token: str, body: Row) -> int:
        self._last_contact += 1
        texts = {name: str(body.get(name) or "") for name in CONTACT_TEXTS}
        standard = body.get("is_padrao") == "true" or body.get("contato_padrao") is True
        row = {"id": self._last_contact, "cliente_id": token, **texts, "is_padrao": standard}
        self.contacts[self._last_contact] = row
        self._contacts_of.setdefault(token, []).append(self._last_contact)
        return self._last_contact

    def _replace(self, client_id: int, fields: Row, body: Row) -> None:
        before = self.rows_by_id[client_id]["cnpj_cpf"]
        self.rows_by_id[client_id] = self.rows_by_id[client_id] | fields
        self.bodies[client_id] = body
        after = self.rows_by_id[client_id]["cnpj_cpf"]
        if before != after:
            self.by_document.drop(before, client_id)
            self.by_document.put(after, client_id)

    def _remove(self, client_id: int) -> Row:
        del self.bodies[client_id]
        row = self.rows_by_id.pop(client_id)
        del self.by_token[row["token"]]
        self.by_document.drop(row["cnpj_cpf"], client_id)
        for contact_id in self._contacts_of.pop(row["token"], ()):
            del self.contacts[contact_id]
        return row


def known(rows: Mapping[int, Row], ids: Sequence[int]) -> None:
    """KeyError for the first id that there is no row of."""
    if missing := [each for each in ids if each not in rows]:
        raise KeyError(f"there is no {missing[0]}")


def _digits(value: str) -> str:
    return re.sub(r"\D", "", value)
