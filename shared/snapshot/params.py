"""`SnapshotParams.json`: what a snapshot is, what it holds, and what an import must know of it.

The same file stands in the archive and in the data folder, where it says of every POV that is kept from which process
it is: a POV whose file can not be relied on has no fingerprint.
"""

from __future__ import annotations

from typing import Final

import msgspec

from shared.errors import ConfigError
from shared.snapshot import SnapshotType
from shared.snapshot.periods import Instant, Span

FORMAT: Final = 1

PovName = tuple[str, str, str]
"""Location, category and period."""


class CarriedFile(msgspec.Struct, frozen=True):
    """One file of the archive. `rows` are those below its header."""

    path: str
    sha256: str
    rows: int


class Pov(msgspec.Struct, frozen=True, rename="camel"):
    """One POV, whether or not this archive has its file."""

    location: str
    category: str
    period: str
    process_id: int
    """Of the newest process that left something in it: greater than that of the snapshot before if it has changed."""
    fingerprint: str
    """Of everything in it but its cells, which do not change without the rest."""
    sha256: str = ""
    rows: int = 0
    counts: dict[str, int] = {}

    @property
    def name(self) -> PovName:
        return self.location, self.category, self.period


class StreamMark(msgspec.Struct, frozen=True):
    """What is remembered of a stream, such that whatever was on its way is read again."""

    integration: str
    stream: str
    cursor: Instant | None
    aged_from: Instant | None
    last_run: str
    consecutive_failures: int


class SnapshotParams(msgspec.Struct, frozen=True, rename="camel"):
    """`last_process_id` is the newest process that the snapshot knows of; one of type INCREMENTAL adds to the snapshot
    whose `last_process_id` is its `base_process_id`."""

    format: int
    type: SnapshotType
    last_process_id: int | None
    base_process_id: int | None
    created_at: Instant
    with_data: bool
    counts: dict[str, int]
    files: list[CarriedFile]
    streams: list[StreamMark]
    povs: list[Pov]
    periods: tuple[Span, ...] | None = None
    """The spans that were named then, which what is written of the set-up may have lost since."""

    def to_bytes(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1)

    @property
    def by_name(self) -> dict[PovName, Pov]:
        return {pov.name: pov for pov in self.povs}


class _Version(msgspec.Struct):
    format: int


def read_params(data: bytes) -> SnapshotParams:
    """Raises ConfigError for what is none, or is of another version."""
    try:
        version = msgspec.json.decode(data, type=_Version).format
        if version == FORMAT:
            return msgspec.json.decode(data, type=SnapshotParams)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"SnapshotParams.json is not what it should be: {error}", cure="export it again") from error
    raise ConfigError(
        f"the snapshot has format {version}, and this version of Waybill reads format {FORMAT}",
        cure="import it with the version that exported it",
    )
