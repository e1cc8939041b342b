"""The one mapping that every contender uses, so that the comparison is about moving records and not about mapping them.

Standard library only: a contender without state imports nothing else for it.
"""

from __future__ import annotations

from typing import Any, Final

PAGE: Final = 300
"""Rows a page of the source."""
POST: Final = 100
"""The most records that the target takes in one POST."""

_NOT_DIGITS: Final = {code: None for code in range(128) if not chr(code).isdigit()}


def digits(text: str) -> str:
    return text.translate(_NOT_DIGITS)


def document_of(contact: dict[str, Any]) -> str:
    """The identity: the CNPJ or CPF without its mask."""
    return digits(contact["CNPJ"] or contact["CPF"] or "")


def to_target(contact: dict[str, Any]) -> dict[str, Any]:
    """The 8 fields of the target out of the source's 25."""
    phones = contact["Phones"]
    phone = digits(phones[0]["PhoneNumber"]) if phones else ""
    return {
        "external_id": str(contact["Id"]),
        "name": " ".join(contact["Name"].split()),
        "document": document_of(contact),
        "document_type": "CNPJ" if contact["CNPJ"] else "CPF",
        "email": (contact["Email"] or "").strip().lower(),
        "phone": "+55" + phone if phone else "",
        "city": f"{contact['City']['Name']}/{contact['State']}",
        "updated_at": contact["LastUpdateDate"],
    }
