"""Files of launches, given piece by piece: what was sent as it was sent, what was produced from its parts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Final

from infra.data_sync.answers import Refused
from infra.data_sync.syncs import Sync
from infra.systems.exports import file_of
from shared.launches import Launch
from shared.launching import look
from shared.ports import Blobs, Home

PIECE: Final = 1 << 20
"""Bytes that are read at a time."""
WRITTEN: Final = 1 << 16
"""Bytes that are written at a time: a client that reads slowly has the server's patience for each of them."""
LOOK_BACK: Final = 500
"""Launches among which the last successful one is looked for, and how many are asked for at a time."""
AT_ONCE: Final = 10


def last_produced(home: Home, sync: Sync) -> Launch:
    """The newest launch of an export that succeeded. Raises Refused."""
    looked_at, before = 0, None
    while looked_at < LOOK_BACK and (launches := home.launches.recent(sync.integration, sync.id, AT_ONCE, before)):
        for launch in launches:
            seen = look(home, launch)
            if seen.status == "finished" and not seen.failed:
                return launch
        looked_at, before = looked_at + AT_ONCE, launches[-1].id
    raise Refused(404, "no launch of this data sync has produced a file yet")


def content_of(home: Home, sync: Sync, launch: Launch) -> Iterator[bytes]:
    """The file of a launch, its beginning read already. Raises Refused where there is none."""
    if sync.type == "export":
        require_produced(home, launch)
        pieces = file_of(home, launch, sync.style)
    elif launch.file:
        pieces = pieces_of(home.blobs, launch.file, launch.size)
    else:
        raise Refused(404, "the file of this launch is not kept any more")
    try:
        first = next(pieces, b"")
    except FileNotFoundError:
        raise Refused(404, "the file of this launch is not kept any more") from None
    return in_small(chain([first], pieces))


def require_produced(home: Home, launch: Launch) -> None:
    """Raises Refused for a launch that has produced no file, or not all of it."""
    seen = look(home, launch)
    if seen.status == "cancelled":
        raise Refused(404, "this launch was cancelled and has no file")
    if seen.status != "finished":
        raise Refused(404, f"this launch is {seen.status}: it has no file yet")
    if seen.failed:
        raise Refused(404, "this launch failed and has no file")


def pieces_of(blobs: Blobs, name: str, size: int) -> Iterator[bytes]:
    """A blob of so many bytes. Raises FileNotFoundError."""
    done = 0
    while done < size:
        piece = blobs.read(name, done, min(PIECE, size - done))
        if not piece:
            raise FileNotFoundError(name)
        yield piece
        done += len(piece)


def in_small(pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        for start in range(0, len(piece), WRITTEN):
            yield piece[start : start + WRITTEN]
