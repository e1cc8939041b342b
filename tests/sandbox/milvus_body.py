"""What may be written to Milvus: the bodies of clients and tickets, checked, and how a client reads back.

Which of these rules are known and which were chosen is said in the files on clients and tickets.
"""

import re

from stdnum.br import cnpj, cpf

from tests.sandbox.people import COMPANY, Row

DESKS = ("Suporte", "Campo")
SECTORS = ("Técnico", "Logística")
TICKET_TEXTS = {
    "chamado_assunto": "assunto", "chamado_descricao": "descricao", "chamado_email": "email_conferencia",
    "chamado_telefone": "telefone", "chamado_contato": "contato", "chamado_tecnico": "email_tecnico",
    "chamado_mesa": "mesa_trabalho", "chamado_setor": "setor",
    "chamado_categoria_primaria": "categoria_primaria", "chamado_categoria_secundaria": "categoria_secundaria",
}  # fmt: skip
CONTACT_TEXTS = (
    "contato_descricao", "contato_email", "contato_telefone", "contato_celular", "contato_observacao",
)  # fmt: skip


class Refused(ValueError):
    """Nothing is written; the message is the one Milvus answers."""


class Missing(Refused):
    """What the request is about does not exist."""


def text(value: object) -> bool:
    """Whether it is a text that says something."""
    return isinstance(value, str) and bool(value.strip())


def objects(body: Row, name: str) -> list[Row]:
    """The objects of a list in a body, none if it is not there."""
    values = body.get(name) or []
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise Refused(f"Campo inválido: {name}")
    return values


def check_client(body: Row) -> None:
    """Refuses a client that cannot be written."""
    kinds = [kind for kind in ("cliente_pessoa_fisica", "cliente_pessoa_juridica") if body.get(kind)]
    if len(kinds) != 1 or not isinstance(body[kinds[0]], dict):
        raise Refused("Informe cliente_pessoa_fisica ou cliente_pessoa_juridica, e somente um dos dois")
    person = kinds[0] == "cliente_pessoa_fisica"
    name = "nome" if person else "nome_fantasia"
    if not text(body[kinds[0]].get(name)):
        raise Refused(f"Campo obrigatório: {kinds[0]}.{name}")
    _check_document(body.get("cliente_documento"), person)
    born = body[kinds[0]].get("data_nascimento")
    if born and not re.fullmatch(r"\d{4}-\d\d-\d\d", str(born)):
        raise Refused("Campo inválido: data_nascimento deve ter o formato AAAA-MM-DD")
    if not isinstance(body.get("cliente_ativo", True), bool):
        raise Refused("Campo inválido: cliente_ativo")
    if type(body.get("cliente_id_integracao", 0)) is not int:
        raise Refused("Campo inválido: cliente_id_integracao")
    for address in objects(body, "cliente_enderecos"):
        if address.get("endereco_cep") and not re.fullmatch(r"\d{8}", str(address["endereco_cep"]), re.ASCII):
            raise Refused("Campo inválido: endereco_cep deve ter 8 dígitos")
        if address.get("endereco_estado") and not re.fullmatch(r"[A-Z]{2}", str(address["endereco_estado"])):
            raise Refused("Campo inválido: endereco_estado deve ter duas letras")
    for contact in objects(body, "cliente_contatos"):
        if contact.get("contato_email") and "@" not in str(contact["contato_email"]):
            raise Refused("Campo inválido: contato_email")


def _check_document(document: object, person: bool) -> None:
    if not isinstance(document, str) or not re.fullmatch(r"[0-9A-Z]+", document):
        raise Refused("Campo inválido: cliente_documento deve ser um texto sem máscara")
    # The library accepts a CPF of eleven equal digits, which the register never issues.
    valid = cpf.is_valid(document) and len(set(document)) > 1 if person else cnpj.is_valid(document)
    if not valid:
        raise Refused(f"Documento inválido: {'CPF' if person else 'CNPJ'} não confere")


def read_fields(body: Row) -> Row:
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


def as_written(row: Row) -> Row:
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


def check_ticket(body: Row) -> None:
    """Refuses a ticket that cannot be opened for any client."""
    if unknown := body.keys() - TICKET_TEXTS.keys() - {"cliente_id", "categoria_id"}:
        raise Refused(f"Campo inválido: {min(unknown)}")
    if not isinstance(body.get("cliente_id"), str):
        raise Refused("Campo obrigatório: cliente_id, o token do cliente")
    for name in TICKET_TEXTS:
        if not isinstance(body.get(name, ""), str):
            raise Refused(f"Campo inválido: {name} deve ser um texto")
    for name in ("chamado_assunto", "chamado_descricao"):
        if not text(body.get(name)):
            raise Refused(f"Campo obrigatório: {name}")
    for name, names in (("chamado_mesa", DESKS), ("chamado_setor", SECTORS)):
        if body.get(name) and body[name] not in names:
            raise Refused(f"Campo inválido: {name} não encontrado")
    for name in ("chamado_email", "chamado_tecnico"):
        if body.get(name) and "@" not in body[name]:
            raise Refused(f"Campo inválido: {name} deve ser um e-mail")
    if type(body.get("categoria_id", 0)) is not int:
        raise Refused("Campo inválido: categoria_id")
