"""What a Milvus client is as a Ploomes contact.

The identity is the CPF or CNPJ, and its length says whether the contact is a company or a natural person: Ploomes has
type 1 and type 2 for them.

Empty fields are left out. `busca` documents neither addresses nor contacts; where an account's answer holds addresses,
in the form in which they are written, the default one, else the first one, becomes the contact's.
Names of the fields on either side: vendor documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from shared.documents import COMPANY, document_in, unmasked
from shared.errors import RecordError
from shared.mapping import digits, filled, line, text
from shared.rules import Rules

TYPE_COMPANY: Final = 1
TYPE_PERSON: Final = 2
ZIP_LENGTH: Final = 8

OPTIONS: Final = {
    "customers": {"inactive": bool, "existing": Literal["keep", "update"], "result_cap": Annotated[int, Meta(ge=1)]},
}


def document_of(client: dict[str, Any]) -> str:
    """The checked CPF or CNPJ without its mask, in capitals. Raises RecordError, which never quotes it."""
    return document_in(client, ("cnpj_cpf",))


def contact(client: dict[str, Any]) -> dict[str, Any]:
    """The fields of a contact, its city by name. Raises RecordError for a client without identity or name, or an odd
    field."""
    document = document_of(client)
    is_company = len(document) == COMPANY
    legal_name = line(client, "razao_social")
    name = line(client, "nome_fantasia") or legal_name
    if not name:
        raise RecordError("there is no name", field="nome_fantasia")
    return filled(
        Name=name,
        LegalName=legal_name if is_company else "",
        Register=document,
        TypeId=TYPE_COMPANY if is_company else TYPE_PERSON,
        Website=line(client, "site"),
        Note=text(client, "observacao"),
        Birthday=_birthday(client),
        **_address(client),
    )


def _birthday(client: dict[str, Any]) -> str:
    """The day, also of a date with a time."""
    day = text(client, "data_nascimento")[:10]
    if day:
        try:
            return date.fromisoformat(day).isoformat()
        except ValueError:
            raise RecordError("data_nascimento is no date", field="data_nascimento") from None
    return ""


def _address(client: dict[str, Any]) -> dict[str, Any]:
    addresses = client.get("cliente_enderecos") or []
    if type(addresses) is not list or not all(type(each) is dict for each in addresses):
        raise RecordError("cliente_enderecos is no list of objects", field="cliente_enderecos")
    if not addresses:
        return {}
    address = next((each for each in addresses if each.get("endereco_padrao") is True), addresses[0])
    state = line(address, "endereco_estado").upper()
    name = line(address, "endereco_cidade")
    return {
        "StreetAddress": line(address, "endereco_logradouro"),
        "StreetAddressNumber": line(address, "endereco_numero"),
        "StreetAddressLine2": line(address, "endereco_complemento"),
        "Neighborhood": line(address, "endereco_bairro"),
        "ZipCode": _zip(address),
        "City": filled(Name=name, State=state if len(state) == 2 and state.isascii() and state.isalpha() else "")
        if name
        else {},
    }


def _zip(address: dict[str, Any]) -> str:
    """Eight digits, empty if there are none."""
    code = unmasked(text(address, "endereco_cep"))
    if not code:
        return ""
    if len(code) != ZIP_LENGTH or digits(code) != code:
        raise RecordError("endereco_cep is no Brazilian postal code", field="endereco_cep")
    return code


def _is_inactive(client: dict[str, Any]) -> bool:
    return client.get("is_ativo") is False


def customers(options: Mapping[str, Any]) -> Rules:
    """All clients with `inactive`, else the active ones."""
    return Rules(
        read="clients",
        write="contacts",
        identify=document_of,
        to_target=contact,
        filters=() if options.get("inactive") else [("inactive", _is_inactive)],
        polled=True,
        two_way=True,
    )


STREAMS: Final = {"customers": customers}
