"""What a Ploomes contact is as a Milvus client.

The identity is the CPF or CNPJ: `Register` where it is filled in, otherwise `CNPJ`, otherwise `CPF`. Its length says
whether the client is a company or a natural person, whatever the contact's type says.

Empty fields are left out. `sexo` and `inscricao_estadual` are never sent, since Ploomes has no field for them (captured
answers and public clients show none); neither is a state without its two letters, which only Brazilian states have.
Names of the fields on either side: vendor documentation.
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from typing import Any, Final

from stdnum.br import cnpj, cpf

from shared.errors import BAD_IDENTITY, NO_IDENTITY, RecordError
from shared.mapping import digits, filled, line, text
from shared.ports import Rules

PERSON: Final = 11
COMPANY: Final = 14
ZIP_LENGTH: Final = 8

_SEPARATORS: Final = str.maketrans("", "", "./- ")
_LONGEST_MASKED: Final = 40


def document_of(contact: dict[str, Any]) -> str:
    """The checked CPF or CNPJ without its mask, in capitals. Raises RecordError, which never quotes it."""
    for field in ("Register", "CNPJ", "CPF"):
        value = contact.get(field)
        if value is None:
            continue
        if type(value) is not str or len(value) > _LONGEST_MASKED:
            raise RecordError(f"{field} is no CPF or CNPJ", field=field, number=BAD_IDENTITY)
        document = value.translate(_SEPARATORS)
        if document:
            document = document.upper()
            if not _is_valid(document):
                raise RecordError(f"{field} is no valid CPF or CNPJ", field=field, number=BAD_IDENTITY)
            return document
    raise RecordError("there is neither CPF nor CNPJ", field="Register", number=NO_IDENTITY)


@lru_cache(maxsize=8192)
def _is_valid(document: str) -> bool:
    """A CNPJ may hold letters. A CPF of equal digits passes the check sum and is none."""
    if not document.isascii() or not document.isalnum():
        return False
    if len(document) == PERSON:
        return document.isdigit() and document != document[0] * PERSON and bool(cpf.is_valid(document))
    return len(document) == COMPANY and bool(cnpj.is_valid(document))


def client(contact: dict[str, Any]) -> dict[str, Any]:
    """The body of `cliente/criar`. Raises RecordError for a contact without identity, Id or name, or an odd field."""
    document = document_of(contact)
    number = contact.get("Id")
    if type(number) is not int:
        raise RecordError("Id is no whole number", field="Id")
    name, legal_name = line(contact, "Name"), line(contact, "LegalName")
    name = name or legal_name
    if not name:
        raise RecordError("there is no name", field="Name")
    body: dict[str, Any] = {
        "cliente_documento": document,
        "cliente_ativo": True,
        "cliente_id_integracao": number,
    }
    if len(document) == PERSON:
        body["cliente_pessoa_fisica"] = filled(nome=name, data_nascimento=_birthday(contact))
    else:
        body["cliente_pessoa_juridica"] = {"nome_fantasia": name, "razao_social": legal_name or name}
    return body | filled(
        cliente_site=line(contact, "Website"),
        cliente_observacao=text(contact, "Note"),
        cliente_enderecos=_addresses(contact),
        cliente_contatos=_contacts(contact, name),
    )


def _birthday(contact: dict[str, Any]) -> str:
    """The day as Ploomes writes it: the first part of a date-time in the account's own zone."""
    day = text(contact, "Birthday")[:10]
    if day:
        try:
            return date.fromisoformat(day).isoformat()
        except ValueError:
            raise RecordError("Birthday is no date", field="Birthday") from None
    return ""


def _addresses(contact: dict[str, Any]) -> list[dict[str, Any]]:
    city = _child(contact, "City")
    state = line(_child(city, "State"), "Short").upper()
    address = filled(
        endereco_cep=_zip(contact),
        endereco_logradouro=line(contact, "StreetAddress"),
        endereco_numero=line(contact, "StreetAddressNumber"),
        endereco_complemento=line(contact, "StreetAddressLine2"),
        endereco_bairro=line(contact, "Neighborhood"),
        endereco_cidade=line(city, "Name"),
        endereco_estado=state if len(state) == 2 and state.isascii() and state.isalpha() else "",
    )
    return [{"endereco_padrao": True, "endereco_descricao": "Principal", **address}] if address else []


def _child(parent: dict[str, Any], field: str) -> dict[str, Any]:
    child = parent.get(field)
    if child is None:
        return {}
    if type(child) is not dict:
        raise RecordError(f"{field} is no object", field=field)
    return child


def _zip(contact: dict[str, Any]) -> str:
    """Eight digits. Ploomes keeps a number, so zeros in front are lost."""
    value = contact.get("ZipCode")
    if not value:
        return ""
    code = ""
    if type(value) is int and 0 < value < 10**ZIP_LENGTH:
        code = str(value)
    elif type(value) is str:
        code = value.translate(_SEPARATORS)
    if not 0 < len(code) <= ZIP_LENGTH or digits(code) != code:
        raise RecordError("ZipCode is no Brazilian postal code", field="ZipCode")
    return code.zfill(ZIP_LENGTH)


def _contacts(contact: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The first landline, the first mobile and the address share one entry; each further number has its own."""
    landlines, mobiles = _phones(contact)
    email = line(contact, "Email")
    if email and "@" not in email:
        raise RecordError("Email is no mail address", field="Email")
    first = filled(
        contato_email=email,
        contato_telefone=landlines[0] if landlines else "",
        contato_celular=mobiles[0] if mobiles else "",
    )
    if not first:
        return []
    return [
        {"contato_padrao": True, "contato_descricao": name, **first},
        *({"contato_padrao": False, "contato_descricao": name, "contato_telefone": each} for each in landlines[1:]),
        *({"contato_padrao": False, "contato_descricao": name, "contato_celular": each} for each in mobiles[1:]),
    ]


def _phones(contact: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Landlines and mobiles as digits with area code: a Brazilian mobile number has eleven, the third a 9."""
    phones = contact.get("Phones") or []
    if type(phones) is not list:
        raise RecordError("Phones is no list", field="Phones")
    landlines: list[str] = []
    mobiles: list[str] = []
    for phone in phones:
        if type(phone) is not dict:
            raise RecordError("Phones holds something that is no object", field="Phones")
        number = digits(text(phone, "PhoneNumber"))
        if len(number) in (12, 13) and number.startswith("55"):
            number = number[2:]
        found = mobiles if len(number) == 11 and number[0] != "0" and number[2] == "9" else landlines
        if number and number not in found:
            found.append(number)
    return landlines, mobiles


STREAMS: Final = {
    "customers": Rules(read="Contacts", write="clients", identify=document_of, to_target=client, filters=()),
}
