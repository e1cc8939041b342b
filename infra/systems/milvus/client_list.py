"""All clients of Milvus, read anew each time: `busca` has neither pages nor dates, and is cut without a sign.

A client carries no date, so the end of the window stands for its version, and its content tells whether it changed.
How a list longer than the cut is read whole, and what stops the reading where it cannot be, is in `splitting.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from infra.http import redact
from infra.systems import Connection
from infra.systems.milvus.desk import BOTH, Desk, bare
from infra.systems.milvus.splitting import FIRST_WITHOUT_ID, Place, Splitting, id_of
from shared.books import Window
from shared.ends import Page, Row
from shared.errors import NO_SOURCE_ID, ConfigError, ProtocolError
from shared.record import content_hash, version_at

_NO_ID: Final = (NO_SOURCE_ID, "the row has no id")


class ClientList:
    """The source of clients. Pages are given by one thread."""

    system = "milvus"

    def __init__(self, connection: Connection) -> None:
        if connection.page_size < 1:
            raise ConfigError("a page without rows", cure="set source.page_size to 1 or more")
        self._desk = Desk(connection)
        self._clock = connection.clock
        self._retry = connection.retry
        self._size = connection.page_size
        self.location = f"{redact(self._desk.http.base_url, (connection.secret('MILVUS_TOKEN'),))}/cliente/busca"

    def now(self) -> datetime:
        if self._desk.http.server_now() is None:
            # The date is what is wanted; nobody has this document, so that no list has to be made.
            params: dict[str, str | int] = {"documento": "0", "status": BOTH}
            self._desk.http.request("GET", "/cliente/busca", params=params, repeatable=True)
        return self._desk.http.server_now() or self._clock.now()

    def total(self, window: Window) -> int | None:
        return None

    def close(self) -> None:
        self._desk.close()

    def pages(self, window: Window, after: str) -> Iterator[Page]:
        """`after` names the last question that was answered, and the last id that was given of the answer."""
        for rows, place in Splitting(self, self._desk.cap, self._size, Place.of(after)).read():
            where = f"status:{place.kind} part:{content_hash(place.question)[:8]}"
            yield Page([_row(window, number, row, where) for number, row in rows], place.token())

    # What the splitting asks.

    def by_name(self, kind: int, question: str) -> list[Any]:
        params: dict[str, str | int] = {"status": kind}
        if question:
            params["nome_fantasia"] = question
        return self._asked(params)

    def by_document(self, document: str) -> list[Any]:
        return self._asked({"documento": bare(document), "status": BOTH})

    def _asked(self, params: dict[str, str | int]) -> list[Any]:
        """Asks again, by the same policy, for an answer that is no list: a web page of some gateway may pass."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._desk.search(params)
            except ProtocolError:
                wait = self._retry.next_wait(attempt, None, self._clock.random)
                if wait is None:
                    raise
                self._desk.http.pace.pause(wait)


def _row(window: Window, number: int, data: Any, where: str) -> Row:
    if id_of(data) is None:
        position = f"{where} row:{number - FIRST_WITHOUT_ID}"
        return Row("", "", position, data if isinstance(data, dict) else {"row": data}, problem=_NO_ID)
    return Row(str(number), version_at(window.until, str(number)), f"cliente({number})", data)
