"""What a Ploomes contact is as a Milvus client, and what a task or an interaction is as a ticket of that client.

The identity of a client is the CPF or CNPJ: `Register` where it is filled in, otherwise `CNPJ`, otherwise `CPF`. Its
length says whether the client is a company or a natural person, whatever the contact's type says. A ticket's identity
is the Id of its task or interaction.

Empty fields are left out. `sexo` and `inscricao_estadual` are never sent, since Ploomes has no field for them (captured
answers and public clients show none); neither is a state without its two letters, which only Brazilian states have.
Names of the fields on either side: vendor documentation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any, Final, Literal, NamedTuple
from zoneinfo import ZoneInfo

from shared.documents import PERSON, document_in, unmasked
from shared.errors import BAD_VERSION, NO_SOURCE_ID, ConfigError, RecordError
from shared.mapping import digits, filled, line, text
from shared.outcome import Outcome
from shared.rules import Filter, Rules

ZIP_LENGTH: Final = 8


def document_of(contact: dict[str, Any]) -> str:
    """The checked CPF or CNPJ without its mask, in capitals. Raises RecordError, which never quotes it."""
    return document_in(contact, ("Register", "CNPJ", "CPF"))


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
        code = unmasked(value)
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


# --- tasks and interactions become tickets ---------------------------------------------------------------------------


class Kind(NamedTuple):
    """One of the two kinds of record that become tickets: how Ploomes calls it, and how the help desk reads it."""

    read: str
    letter: str
    noun: str
    title: str
    body: str
    day: str
    entity: int
    """Ploomes' number of the entity, by which its tags are listed (vendor documentation)."""


TASK: Final = Kind("Tasks", "T", "Tarefa", "Title", "Description", "DateTime", 12)
INTERACTION: Final = Kind("InteractionRecords", "I", "Interação", "", "Content", "Date", 36)
SUBJECT_LENGTH: Final = 200
_UNASKED: Final = ("chamado_tecnico", "chamado_mesa", "chamado_setor", "chamado_categoria_secundaria")
"""Sent empty, as a public client does that is known to work: no source names them as optional."""

TICKET_OPTIONS: Final[Mapping[str, Any]] = {
    "tags": dict[int, str],
    "max_age": timedelta | None,
    "on_edit": Literal["filter", "follow_up"],
    "source_zone": ZoneInfo,
    "target_zone": ZoneInfo,
}
OPTIONS: Final = {"tasks": TICKET_OPTIONS, "interactions": TICKET_OPTIONS}
SAO_PAULO: Final = "America/Sao_Paulo"


def tickets(kind: Kind, options: Mapping[str, Any]) -> Rules:
    """The rules of a stream of tickets. Raises ConfigError as long as no tags are configured.

    `tags` maps the number of a tag to the ticket's category; of several on one record the first in the map decides.
    `max_age` counts from where the stream had come to. `source_zone` is for dates that Ploomes gives without an offset,
    `target_zone` the help desk's local time. `on_edit` says what becomes of a record edited after its ticket exists.
    """
    tags: Mapping[int, str] = options.get("tags") or {}
    if not tags:
        raise ConfigError(
            "`tags` is missing: it says which tags make a ticket, and of which category",
            cure=(
                f'list the tags with: curl -H "User-Key: $PLOOMES_USER_KEY" '
                f'"$PLOOMES_URL/Tags?\\$filter=EntityId%20eq%20{kind.entity}" '
                f"and write for example `tags: {{40012345: INSTALAÇÃO}}` in an overlay"
            ),
        )
    max_age: timedelta | None = options.get("max_age", timedelta(minutes=10))
    zones = (options.get("source_zone") or ZoneInfo(SAO_PAULO), options.get("target_zone") or ZoneInfo(SAO_PAULO))
    follow_up = options.get("on_edit") == "follow_up"

    def too_old(come_to: datetime) -> Sequence[Filter]:
        return [] if max_age is None else [("max_age", lambda data: _created(data) < come_to - max_age)]

    return Rules(
        read=kind.read,
        write="tickets",
        identify=lambda data: str(_number(data)),
        to_target=lambda data: ticket(kind, data, tags, zones, follow_up=follow_up),
        filters=(
            ("untagged", lambda data: _category(data, tags) is None),
            ("without_client", lambda data: not data.get("ContactId") or not _child(data, "Contact")),
        ),
        dated_filters=too_old,
        once=None if follow_up else Outcome.FILTERED,
        appends=follow_up,
        awaits="customers",
    )


def ticket(
    kind: Kind, data: dict[str, Any], tags: Mapping[int, str], zones: tuple[ZoneInfo, ZoneInfo], *, follow_up: bool
) -> dict[str, Any]:
    """The ticket of a task or an interaction, and whose it is. Raises RecordError.

    Milvus has no idempotency key: the marker at the beginning of the subject is what the ticket is found by.
    """
    number, contact = _number(data), _child(data, "Contact")
    marker = f"[Ploomes {kind.letter}{number}]"
    body = text(data, kind.body)
    title = line(data, kind.title) if kind.title else ""
    title = title or " ".join(body[:SUBJECT_LENGTH].split()) or kind.noun
    landlines, mobiles = _phones(contact)
    described = [body, f"{kind.noun} {number} do Ploomes"]
    day = _local(data, kind.day, zones)
    if day:
        described.append(f"Data: {day}")
    content: dict[str, Any] = {
        "marker": marker,
        "customer": document_of(contact),
        "contact": contact.get("Id"),
        "ticket": {
            "chamado_assunto": f"{marker} {title}"[:SUBJECT_LENGTH],
            "chamado_descricao": "\n".join(filter(None, described)),
            "chamado_email": line(contact, "Email"),
            "chamado_telefone": next(iter(mobiles + landlines), ""),
            "chamado_contato": line(contact, "Name"),
            "chamado_categoria_primaria": _category(data, tags) or "",
            **dict.fromkeys(_UNASKED, ""),
        },
    }
    if follow_up:
        changed = line(data, "LastUpdateDate")
        edited = [f"Alterado no Ploomes em {_local(data, 'LastUpdateDate', zones)}", title, *described]
        content["follow_up"] = {
            "marker": f"[Ploomes {kind.letter}{number} {changed}]",
            "text": "\n".join(filter(None, edited)),
        }
    return content


def customer_of(data: dict[str, Any]) -> str:
    """The key of the contact that a task or an interaction is about, as the stream of customers has it: the document,
    or without a usable one the makeshift name."""
    contact = data.get("Contact")
    if type(contact) is not dict:
        contact = {}
    try:
        return document_of(contact)
    except RecordError:
        number = contact.get("Id") or data.get("ContactId")
        return f"ploomes:{number}" if number else ""


def _number(data: dict[str, Any]) -> int:
    number = data.get("Id")
    if type(number) is not int:
        raise RecordError("Id is no whole number", field="Id", number=NO_SOURCE_ID)
    return number


def _category(data: dict[str, Any], tags: Mapping[int, str]) -> str | None:
    found = data.get("Tags") or []
    if type(found) is not list or not all(type(tag) is dict for tag in found):
        raise RecordError("Tags is no list of objects", field="Tags")
    carried = {tag.get("TagId") for tag in found if type(tag.get("TagId")) is int}
    return next((category for number, category in tags.items() if number in carried), None)


def _created(data: dict[str, Any]) -> datetime:
    created = _instant(data, "CreateDate")
    if created is None or created.tzinfo is None:
        raise RecordError("CreateDate is no date with an offset", field="CreateDate", number=BAD_VERSION)
    return created


def _instant(data: dict[str, Any], field: str) -> datetime | None:
    value = text(data, field)
    if not value:
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        raise RecordError(f"{field} is no date", field=field) from None


def _local(data: dict[str, Any], field: str, zones: tuple[ZoneInfo, ZoneInfo]) -> str:
    """The help desk's local time, without a zone as it wants it; a day alone stays that day."""
    instant = _instant(data, field)
    if instant is None:
        return ""
    if len(text(data, field)) == len("2024-03-01") or (data.get("NoTime") is True and field == TASK.day):
        return f"{instant:%Y-%m-%d}"
    source_zone, target_zone = zones
    known = instant if instant.tzinfo is not None else instant.replace(tzinfo=source_zone)
    try:
        return f"{known.astimezone(target_zone):%Y-%m-%d %H:%M:%S}"
    except OverflowError:
        raise RecordError(f"{field} is no date that a calendar has", field=field) from None


STREAMS: Final = {
    "customers": Rules(
        read="Contacts",
        write="clients",
        identify=document_of,
        to_target=client,
        two_way=True,
        mentioned_in={"tasks": customer_of, "interactions": customer_of},
    ),
    "tasks": partial(tickets, TASK),
    "interactions": partial(tickets, INTERACTION),
}
