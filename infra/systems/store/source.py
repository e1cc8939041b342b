"""Reading the hub's own store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime
from typing import Final

import msgspec

from infra.systems import Connection
from shared.books import Window
from shared.ends import Page, Row
from shared.errors import ConfigError, GuardTripped, StoreUnavailable, TransientError
from shared.objects import MOST, Object, Objects
from shared.record import version_at
from shared.tabular import IDENTITY

SYSTEM: Final = "store"


class Stored:
    """The source of the objects of a kind."""

    system = SYSTEM

    def __init__(self, connection: Connection, kind: str) -> None:
        if connection.page_size < 1:
            raise ConfigError("a page without rows", cure="set source.page_size to 1 or more")
        self.location = f"{SYSTEM}:{kind}"
        self._connection = connection
        self._kind = kind
        self._all = bool(connection.options.get("all"))
        self._size = min(connection.page_size, MOST)

    def now(self) -> datetime:
        return self._connection.clock.now()

    def total(self, window: Window) -> int | None:
        """Nobody counts them."""
        return None

    def pages(self, window: Window, after: str) -> Iterator[Page]:
        """`after` is the id of the last object where everything is read, else when it changed, and its id."""
        objects = self._connection.own_home().objects
        while found := self._read(objects, window, after):
            last = found[-1]
            after = last.id if self._all else _token(last)
            yield Page([_row(each) for each in found], after)

    def _read(self, objects: Objects, window: Window, after: str) -> list[Object]:
        try:
            if self._all:
                return objects.page(self._kind, after, self._size)
            return objects.changed(self._kind, window.since, window.until, _place(after), self._size)
        except StoreUnavailable as error:
            raise TransientError(f"the store cannot be read: {error}") from error

    def close(self) -> None:
        pass


def _token(last: Object) -> str:
    return msgspec.json.encode((last.changed_at, last.id)).decode()


def _place(after: str) -> tuple[datetime, str] | None:
    if not after:
        return None
    try:
        return msgspec.json.decode(after, type=tuple[datetime, str])
    except msgspec.DecodeError as error:
        raise GuardTripped(f"{after!r} is no place in the store") from error


def _row(found: Object) -> Row:
    return Row(found.id, version_of(found), found.id, {"id": found.id, **found.fields, IDENTITY: found.id})


def version_of(found: Object) -> str:
    """The id orders objects that changed together, by its digest: it may be somebody's, and versions are kept when
    whose they were is forgotten."""
    return version_at(found.changed_at, hashlib.blake2b(found.id.encode(), digest_size=6).hexdigest())
