"""Forgetting a customer of the hub's own store: what is theirs in the streams that read it or write to it.

A customer's object is called as the customer is, and what they have of other kinds is called so with more behind it,
or has them in its field `id`. A stream may know its records otherwise, as by an e-mail address. So each has keys of its
own for one customer: what the objects are called, what a row is known by that is matched with the customer, and all
whose cell says that such an object is what its record came from or went to. They are looked up before anything is
erased.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from shared.books import Failure, FailureQuery, Run
from shared.errors import RecordError
from shared.forget import Telling, Told, Tombstones, who_is_meant
from shared.kinds import CUSTOMERS, is_of
from shared.objects import text_of
from shared.ports import Home
from shared.record import Record
from shared.tabular import Parsed
from shared.tabular.identity import beginning, first_of
from shared.tabular.lines import EXCERPT

EVERY: Final = 1_000_000
UPLOADS: Final = "uploads"
EXPORTS: Final = "exports"
NAMELESS: Final = f"{UPLOADS}:"
"""How the key of a row begins that has no identity. Behind it is the row's line, which other files have as well."""

Where = tuple[str, str]
"""Integration and stream."""
Owned = Mapping[str, Sequence[str]]
"""The ids of a customer's objects, by kind."""


class Keeping(msgspec.Struct, frozen=True):
    """A stream that reads or writes the hub's own store. Of one that is not configured any more its name is known, and
    that it took or gave files."""

    integration: str
    stream: str
    source: str = ""
    """The system that it is read from."""
    kind: str = ""
    reads: bool = False
    writes: bool = True
    by_id: bool = False
    """Its records are called as their objects are."""
    match: str = ""
    """The field of customers by which its rows find theirs."""
    identify: Callable[[dict[str, Any]], str] | None = None
    """Gives the key of a row of its files. Raises RecordError."""
    delimiter: str = ""


class Theirs:
    """What is a customer's in one stream."""

    def __init__(self, keeping: Keeping, customer: str, value: str, ids: Iterable[str]) -> None:
        self.keeping = keeping
        self.customer = customer
        self.keys = {customer}
        self._ids = frozenset(ids)
        self._names: set[str] = set()
        self._beginnings: tuple[str, ...] = ()
        for name in filter(None, (customer, value)):
            self._call(name)

    def add(self, key: str) -> None:
        """Takes in a key under which something of theirs is known."""
        self.keys.add(key)
        self._call(key if self.keeping.kind == CUSTOMERS else first_of(key))

    def _call(self, name: str) -> None:
        self._names.add(name)
        if self.keeping.kind != CUSTOMERS:
            self._beginnings = tuple(map(beginning, self._names))

    def is_key(self, key: str) -> bool:
        """Whether a record with this key is theirs."""
        return key in self.keys or key in self._ids or key in self._names or key.startswith(self._beginnings)

    def is_object(self, id: str) -> bool:
        return id in self._ids or is_of(self.keeping.kind, id, self.customer)

    def is_record(self, record: Record | Failure) -> bool:
        return record.key in self.keys or (record.key.startswith(NAMELESS) and self._is_named_in(record.data))

    def is_row(self, row: Parsed) -> bool:
        """Of a row that cannot be read it is enough that their name stands in it, or that not all of it is seen."""
        if row.problem is not None:
            return len(row.data.get("row", "")) >= EXCERPT or self._is_named_in(row.data)
        if self.keeping.identify is not None:
            with suppress(RecordError):
                return self.is_key(self.keeping.identify(row.data))
        return self._is_named_in(row.data)

    def _is_named_in(self, data: Mapping[str, Any]) -> bool:
        if data.keys() == {"row"} and isinstance(data["row"], str):
            names = "|".join(map(re.escape, self._names))
            return re.search(rf"(?<!\w)(?:{names})(?!\w)", data["row"]) is not None
        return any(isinstance(cell, str) and cell.strip() in self._names for cell in data.values())


class Person(msgspec.Struct, frozen=True):
    """What there is of a key: streams that tell of its object, streams of the hub's own store, and what is in that."""

    key: str
    told: Told
    theirs: dict[Where, Theirs]
    owned: Owned

    def keys_in(self, where: Where) -> set[str]:
        return self.theirs[where].keys if where in self.theirs else {self.key}

    def tombs_in(self, where: Where, tombstones: Tombstones) -> dict[str, str]:
        """What takes the place of each of their keys."""
        return {key: tombstones.of(key) for key in self.keys_in(where)}


Counting = Callable[[Person], dict[str, int]]
"""What is looked at, or done, besides, and how much of it there is where."""


def look_up(
    home: Home,
    key: str,
    tellings: Iterable[Telling],
    keepings: Iterable[Keeping],
    streams: Iterable[Where],
    owned: Owned,
) -> Person:
    """`streams` are all that the books know, of which some were launched and are configured no more; `owned` is what
    stands in the hub's own store."""
    told = who_is_meant(home, tellings, key)
    found = home.objects.get(CUSTOMERS, [key]).get(key)
    fields = {} if found is None else found.fields
    kept = {(each.integration, each.stream): each for each in keepings}
    launched = [where for where in streams if where not in kept and home.launches.recent(*where, 1)]
    for where in (*launched, *_with_files(home)):
        kept.setdefault(where, Keeping(*where))
    theirs = {where: _theirs(home, each, key, fields, owned) for where, each in kept.items() if where not in told}
    return Person(key, told, theirs, owned)


def _theirs(home: Home, keeping: Keeping, customer: str, fields: Mapping[str, Any], owned: Owned) -> Theirs:
    value = text_of(keeping.match, fields.get(keeping.match)) or ""
    ids = [id for kind, ids in owned.items() if keeping.kind in ("", kind) for id in ids]
    theirs = Theirs(keeping, customer, value, ids)
    if keeping.reads:
        # What a record is called whose object lacks what would identify it.
        theirs.keys.update(f"{keeping.source}:{id}" for id in (customer, *ids))
    if keeping.by_id and keeping.kind == CUSTOMERS:
        return theirs
    where = keeping.integration, keeping.stream
    for cell in home.ledger.scan(*where):
        went_to = keeping.writes and theirs.is_object(cell.target_id)
        came_from = keeping.reads and theirs.is_object(cell.origin)
        if went_to or came_from or theirs.is_key(cell.key):
            theirs.add(cell.key)
            if cell.origin and keeping.source not in ("", UPLOADS):
                theirs.keys.add(f"{keeping.source}:{cell.origin}")
    for entries in home.books.entries(*where):
        for key in filter(theirs.is_key, entries.keys):
            theirs.add(key)
    return theirs


def _with_files(home: Home) -> Iterator[Where]:
    for what in (UPLOADS, EXPORTS):
        for name, _ in home.blobs.names(f"{what}/"):
            _, integration, stream, *_ = name.split("/")
            yield integration, stream


def runs_at(home: Home, person: Person) -> Iterator[Run]:
    """The runs whose place in what they read, or the last one they had, is called as an object of theirs is."""
    for where, theirs in person.theirs.items():
        yield from (run for run in home.runs.recent(*where, EVERY) if is_at(run, theirs))


def is_at(run: Run, theirs: Theirs) -> bool:
    """Whether the run's place in what it reads is called as an object of theirs is."""
    return any(map(theirs.is_object, _ids_in(run.after)))


def _ids_in(after: str) -> Iterator[str]:
    """What may be an object's id in the token of a page."""
    yield after
    with suppress(msgspec.DecodeError):
        yield msgspec.json.decode(after, type=tuple[str, str])[1]


def erase_places(home: Home, person: Person) -> None:
    """Of runs from whose place nobody goes on."""
    for run in list(runs_at(home, person)):
        if not run.resumable:
            home.runs.conclude(msgspec.structs.replace(run, after=""))


def failures_in(home: Home, theirs: Theirs) -> list[str]:
    """The ids of their failures, open or not."""
    where = theirs.keeping.integration, theirs.keeping.stream
    failures = home.failures.find(FailureQuery(*where, include_closed=True))
    return [failure.id for failure in failures if theirs.is_record(failure)]
