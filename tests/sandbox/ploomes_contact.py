"""The contact of Ploomes: its fields, what can be expanded, and what a write may set.

Field names and types: captured responses and type packages of public clients.
"""

import random
import re

from tests.sandbox.odata import QueryError, Schema
from tests.sandbox.people import (
    BLANK,
    COMPANY,
    FLAGS,
    INSTANTS,
    NUMBERS,
    PLACES,
    TAGS,
    TEXTS,
    People,
    Row,
    phone,
)
from tests.sandbox.ploomes_set import EntitySet, chosen_tags, objects, plain, tagged, typed
from tests.sandbox.system import Setup, System

ENTITY = 1
FIRST_ID = 401_000_000

READ_ONLY = [
    "Id", "CreateDate", "LastUpdateDate", "CreatorId", "UpdaterId", "FirstTaskId", "FirstTaskDate",
    "LastInteractionRecordId", "LastDealId", "LastOrderId", "LastDocumentId", "LastCompanyId",
    "HasScheduledTasks", "Editable", "Deletable",
]  # fmt: skip
OPTIONS = ("Type", "Status", "Owner", "Country", "Origin", "LineOfBusiness", "NumberOfEmployees")


STATE = typed("State", "Id CountryId", "Name Short")
CITY = typed("City", "Id CountryId StateId IBGECode", "Name", State=STATE)
TAG = typed("Tag", "Id EntityId", "Name Color")
OPTION = typed("Option", "Id", "Name")
PHONE = typed("Phone", "Id ContactId SearchPhoneNumber TypeId CountryId", "PhoneNumber", Type=OPTION)
FIELD = typed("OtherProperty", "FieldId IntegerValue DecimalValue", "FieldKey StringValue BigStringValue")
LINKS: dict[str, Schema] = {
    "City": CITY,
    "State": STATE,
    "Phones": PHONE,
    "Tags": typed("ContactTag", "Id TagId ContactId", "", Tag=TAG),
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
    frozenset({"Company", "Contacts"}),
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


class Contacts(EntitySet):
    """Companies and people."""

    def __init__(self, account: System, setup: Setup) -> None:
        super().__init__(account, "Contacts", CONTACT, FIRST_ID)
        self.one = {"Company": (self, "CompanyId")}
        self.many = {"Contacts": (self, "CompanyId")}
        self._people = People(setup.seed, setup.now, setup.documents)
        flaws = {"undocumented": setup.undocumented, "invalid": setup.invalid, "duplicates": setup.duplicates}
        self.fill(self._people.take(setup.customers, **flaws))

    def drawn(self, count: int) -> list[Row]:
        return self._people.take(count)

    def redrawn(self, row: Row, chance: random.Random) -> Row:
        """Other name, e-mail and telephone; the document stays."""
        name, legal_name = self._people.names(chance, row["TypeId"] == COMPANY)
        number = f"(11) 9{chance.randrange(1000, 9999)}-{chance.randrange(1000, 9999)}"
        return {
            "Name": name if name != row["Name"] else f"{name} Filho",
            "LegalName": legal_name,
            "Email": self._people.email(name, chance.randrange(100_000)),
            "Phones": [phone(row["Id"], row["Id"] * 2, number, 2)],
        }

    def require(self, body: Row) -> None:
        if not {"Name", "TypeId"} <= body.keys():
            raise QueryError("The fields Name and TypeId are required.")

    def blank(self) -> Row:
        row = BLANK | {"Phones": [], "Tags": [], "OtherProperties": [], "OwnerId": 10001, "CreatorId": 10001}
        return row | {"UpdaterId": 10001, "HasScheduledTasks": False, "Editable": True, "Deletable": True}

    def linked(self, row: Row) -> Row:
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

    def writable(self, row_id: int, body: Row) -> Row:
        fields: Row = {}
        for name, value in body.items():
            if name == "Phones":
                fields[name] = _phones(row_id, objects(name, value))
            elif name == "Tags":
                fields[name] = tagged("Contact", row_id, chosen_tags(ENTITY, objects(name, value)))
            elif name == "OtherProperties":
                fields[name] = objects(name, value)
            elif name in READ_ONLY or name not in CONTACT.fields:
                raise QueryError(f"The property '{name}' does not exist on type 'Contact' or cannot be written.")
            elif name == "ZipCode" and isinstance(value, str) and value.isdecimal():
                fields[name] = int(value)
            else:
                fields[name] = plain(CONTACT, name, value)
        if ("Name" in fields and not fields["Name"]) or fields.get("TypeId", 1) not in TYPES:
            raise QueryError("Name must not be empty and TypeId must be 1 or 2.")
        if fields.get("CityId") is not None and fields["CityId"] not in PLACES:
            raise QueryError(f"There is no city {fields['CityId']}.")
        return fields | _document(fields)


def _document(fields: Row) -> Row:
    document = next((fields[name] for name in ("Register", "CNPJ", "CPF") if fields.get(name)), None)
    if not document:
        return {}
    bare = re.sub(r"[./\s-]", "", document).upper()
    return {
        "Register": bare,
        "CNPJ": bare if len(bare) == 14 else None,
        "CPF": bare if len(bare) == 11 else None,
    }


def _phones(contact_id: int, values: list[Row]) -> list[Row]:
    if not all(isinstance(value.get("PhoneNumber"), str) for value in values):
        raise QueryError("Each of Phones needs a PhoneNumber.")
    return [
        phone(contact_id, contact_id * 2 + place, value["PhoneNumber"], value.get("TypeId", 1))
        for place, value in enumerate(values)
    ]
