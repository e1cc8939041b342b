"""OKKI's users as customers of the hub's own store."""

from __future__ import annotations

from typing import Any, Final

from shared.rules import Rules


def customer(user: dict[str, Any]) -> dict[str, Any]:
    return {"id": user["user_id"], "name": user["nickname"], "email": user["email"], "position": user["position"]}


STREAMS: Final = {
    "users": Rules(
        read="users", write="customers", identify=lambda user: str(user["user_id"]), to_target=customer, polled=True
    )
}
