"""The contact of Ploomes: its fields, what can be expanded, and what a write may set.

Field names and types: captured responses and type packages of public clients.
"""

import re

from tests.sandbox.odata import QueryError, Schema
from tests.sandbox.people import FLAGS, INSTANTS, NUMBERS, PLACES, TAGS, TEXTS, Row, phone

READ_ONLY = [
    "Id", "CreateDate", "LastUpdateDate", "CreatorId", "UpdaterId", "FirstTaskId", "FirstTaskDate",
    "LastInteractionRecordId", "LastDealId", "LastOrderId", "LastDocumentId", "LastCompanyId",
    "HasScheduledTasks", "Editable", "Deletable",
]  # fmt: skip
OPTIONS = ("Type", "Status", "Owner", "Country", "Origin", "LineOfBusiness", "NumberOfEmployees")
COLLECTIONS = ("Phones", "Tags", "OtherProperties")


def _schema(name: str, numbers: str, texts: str, **children: Schema) -> Schema:
    kinds = dict.fromkeys(numbers.split(), "number") | dict.fromkeys(texts.split(), "text")
    return Schema(name, kinds, children)


STATE = _schema("State", "Id CountryId", "Name Short")
CITY = _schema("City", "Id CountryId StateId IBGECode", "Name", State=STATE)
TAG = _schema("Tag", "Id EntityId", "Name Color")
OPTION = _schema("Option", "Id", "Name")
PHONE = _schema("Phone", "Id ContactId SearchPhoneNumber TypeId CountryId", "PhoneNumber", Type=OPTION)
FIELD = _schema("OtherProperty", "FieldId IntegerValue DecimalValue", "FieldKey StringValue BigStringValue")
LINKS: dict[str, Schema] = {
    "City": CITY,
    "State": STATE,
    "Phones": PHONE,
    "Tags": _schema("ContactTag", "Id TagId ContactId", "", Tag=TAG),
    "OtherProperties": FIELD,
    **dict.fromkeys(OPTIONS, OPTION),
}
CONTACT = Schema(
    "Contact",
    dict.fromkeys(NUMBERS, "number")
    | dict.fromkeys(TEXTS, "text")
    | dict.fromkeys(INSTANTS, "instant")
    | dict.fromkeys(FLAGS, "flag"),
    LINKS,
)
LINKS.update(Company=CONTACT, Contacts=CONTACT)

TYPES = {1: {"Id": 1, "Name": "Empresa"}, 2: {"Id": 2, "Name": "Pessoa"}}
STATUSES = {1: {"Id": 1, "Name": "Cliente"}, 2: {"Id": 2, "Name": "Potencial"}}
OWNERS = {10001: {"Id": 10001, "Name": "Integração"}}
COUNTRIES = {76: {"Id": 76, "Name": "Brasil"}}
PHONE_TYPES = {1: {"Id": 1, "Name": "Trabalho"}, 2: {"Id": 2, "Name": "Celular"}}
STATES_BY_ID = {place["State"]["Id"]: place["State"] for place in PLACES.values()}
LOOKUPS: dict[str, tuple[list[Row], Schema]] = {
    "Contacts@Types": (list(TYPES.values()), OPTION),
    "Contacts@Status": (list(STATUSES.values()), OPTION),
    "PhoneTypes": (list(PHONE_TYPES.values()), OPTION),
    "Tags": (list(TAGS), TAG),
    "Cities": (list(PLACES.values()), CITY),
    "Cities@Countries": (list(COUNTRIES.values()), OPTION),
    "Cities@Countries@States": (sorted(STATES_BY_ID.values(), key=lambda state: state["Id"]), STATE),
}


def linked(row: Row) -> Row:
    """The row with the objects behind its ids, so that they can be expanded and filtered."""
    city = PLACES.get(row["CityId"])
    state = city["State"] if city else STATES_BY_ID.get(row["StateId"])
    return row | {
        "City": city,
        "State": state,
        "StateId": state and state["Id"],
        "Type": TYPES.get(row["TypeId"]),
        "Status": STATUSES.get(row["StatusId"]),
        "Owner": OWNERS.get(row["OwnerId"]),
        "Country": COUNTRIES.get(row["CountryId"]),
    }


def writable(contact_id: int, body: Row) -> Row:
    """The writable fields of a body, checked and in the form they are kept in."""
    fields: Row = {}
    for name, value in body.items():
        if name in COLLECTIONS and not (isinstance(value, list) and all(isinstance(each, dict) for each in value)):
            raise QueryError(f"The property '{name}' must be a list of objects.")
        if name == "Phones":
            fields[name] = _phones(contact_id, value)
        elif name == "Tags":
            fields[name] = _tags(contact_id, value)
        elif name == "OtherProperties":
            fields[name] = value
        elif name in READ_ONLY or name not in CONTACT.fields:
            raise QueryError(f"The property '{name}' does not exist on type 'Contact' or cannot be written.")
        elif name == "ZipCode" and isinstance(value, str) and value.isdecimal():
            fields[name] = int(value)
        elif not _suits(CONTACT.fields[name], value):
            raise QueryError(f"Cannot convert the value of '{name}' to a {CONTACT.fields[name]}.")
        else:
            fields[name] = value
    if ("Name" in fields and not fields["Name"]) or fields.get("TypeId", 1) not in TYPES:
        raise QueryError("Name must not be empty and TypeId must be 1 or 2.")
    if fields.get("CityId") is not None and fields["CityId"] not in PLACES:
        raise QueryError(f"There is no city {fields['CityId']}.")
    document = next((fields[name] for name in ("Register", "CNPJ", "CPF") if fields.get(name)), None)
    if document:
        bare = re.sub(r"[./\s-]", "", document).upper()
        fields |= {
            "Register": bare,
            "CNPJ": bare if len(bare) == 14 else None,
            "CPF": bare if len(bare) == 11 else None,
        }
    return fields


def _suits(kind: str, value: object) -> bool:
    if value is None:
        return True
    if kind == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, bool if kind == "flag" else str)


def _phones(contact_id: int, values: list[Row]) -> list[Row]:
    if not all(isinstance(value.get("PhoneNumber"), str) for value in values):
        raise QueryError("Each of Phones needs a PhoneNumber.")
    return [
        phone(contact_id, contact_id * 2 + place, value["PhoneNumber"], value.get("TypeId", 1))
        for place, value in enumerate(values)
    ]


def _tags(contact_id: int, values: list[Row]) -> list[Row]:
    known = {tag["Id"]: tag for tag in TAGS}
    if not all(value.get("TagId") in known for value in values):
        raise QueryError("Each of Tags needs the TagId of an existing tag.")
    return [
        {"Id": contact_id + place, "TagId": tag["Id"], "ContactId": contact_id, "Tag": tag}
        for place, tag in enumerate(known[value["TagId"]] for value in values)
    ]
