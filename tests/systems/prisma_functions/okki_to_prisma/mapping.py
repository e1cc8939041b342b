"""What an OKKI user is as a customer of Prisma."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from shared.rules import Rules

DELETED: Final = "2"
_KEYS: Final = {"data_sync": str, "token": str, "columns": list[str]}

OPTIONS: Final[Mapping[str, Any]] = {"users": _KEYS, "leavers": _KEYS}


def identify(user: dict[str, Any]) -> str:
    return str(user["user_id"])


def customer(user: dict[str, Any]) -> dict[str, Any]:
    return {"id": user["user_id"], "name": user["full_name"], "email": user["email"]}


def leaver(user: dict[str, Any]) -> dict[str, Any]:
    return {"id": user["user_id"]}


def is_deleted(user: dict[str, Any]) -> bool:
    return str(user["enable_flag"]) == DELETED


STREAMS: Final = {
    "users": Rules(
        read="users",
        write="import",
        identify=identify,
        to_target=customer,
        filters=[("deleted", is_deleted)],
        polled=True,
        place="customers",
    ),
    "leavers": Rules(
        read="users",
        write="delete",
        identify=identify,
        to_target=leaver,
        filters=[("still_there", lambda user: not is_deleted(user))],
        polled=True,
        deletes=True,
        place="customers",
    ),
}
