"""What the hub's own store holds: the kinds of objects, and what an object of each is known by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from shared.declared import convert
from shared.tabular.identity import beginning, joined

CUSTOMERS: Final = "customers"
KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    CUSTOMERS: (),
    "campaign_data": ("campaign",),
    "priorities": ("campaign",),
    "unsubscriptions": ("campaign", "category", "group", "channel"),
    "campaign_results": (),
}
"""By kind the fields that tell apart what a customer has of it."""


def object_id(kind: str, customer: str, content: Mapping[str, Any]) -> str:
    """The id of what a customer has of a kind; what is missing counts as empty. Raises ValueError for a field that is
    no text."""
    return joined([customer, *(identity_text(content.get(name)) for name in KINDS[kind])])


def is_of(kind: str, id: str, customer: str) -> bool:
    """Whether an object of this id is a customer, or what the customer has. `kind` is empty where it is not known."""
    return id == customer or (kind != CUSTOMERS and id.startswith(beginning(customer)))


def identity_text(value: Any) -> str:
    """A part of an identity; nothing is empty. Raises ValueError for what is no text."""
    return "" if value is None else convert.text(value)
