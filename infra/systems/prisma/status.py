"""What became of a file, by what Prisma says of its launch: a state, and a message where something went wrong.

Nothing says which rows it was. A message that counts some rows of all, and nothing else, is about these; any other one
is taken for all of them: to send once more what arrived is harmless, to keep silent about what did not is not.
"""

from __future__ import annotations

import re
from typing import Final

from infra.one_by_one import without_persons
from infra.systems.prisma.api import Launch
from shared.confirm import Confirmation

ROWS_REFUSED: Final = "ROWS_REFUSED"
CANCELLED: Final = "CANCELLED"

_SOME: Final = re.compile(r"([0-9]{1,12}) (?:of|de) ([0-9]{1,12}) (?:rows|filas|registros)\b[^0-9]*", re.I)


def has_ended(launch: Launch) -> bool:
    return launch.status in ("finished", "cancelled")


def has_file(launch: Launch) -> bool:
    """Whether an export produced a file, be it without some rows."""
    message = launch.status_message or ""
    return launch.status == "finished" and (not message or _some_of(message) is not None)


def confirmation(request: str, launch: Launch | None) -> Confirmation:
    """Of a launch that Prisma lists no more, nobody will ever say. Whoever was cancelled may go again."""
    if launch is None:
        return Confirmation(request, "gone")
    message = launch.status_message or ""
    if launch.status == "cancelled":
        reason = without_persons(message) or CANCELLED
        return Confirmation(request, "failed", refused={reason: 0}, passing=frozenset((reason,)))
    if launch.status != "finished":
        return Confirmation(request, "pending")
    if not message:
        return Confirmation(request, "confirmed")
    some = _some_of(message)
    if some is not None:
        return Confirmation(request, "partial", some[1], {ROWS_REFUSED: some[0]})
    return Confirmation(request, "failed", refused={without_persons(message): 0})


def _some_of(message: str) -> tuple[int, int] | None:
    """How many rows of how many a message counts, None where it is about something else, or about all of them."""
    found = _SOME.fullmatch(message.strip())
    return (int(found[1]), int(found[2])) if found is not None and int(found[1]) < int(found[2]) else None
