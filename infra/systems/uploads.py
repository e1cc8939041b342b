"""Files that were sent for a launch, as a source: a run of a launch reads exactly the one that was sent for it.

Options of a stream: `delimiter`, if the header does not tell; `needs`, the columns that have to be there; `exactly`,
the only ones that may. Rows are known by their line, so that reading can go on anywhere and nothing is held per row.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Final

from infra.systems import Connection
from infra.systems.files.reading import GZIP, Changed, File, Tables
from shared.books import Window
from shared.errors import ConfigError, StoreUnavailable, TransientError
from shared.launches import Launch, launch_id
from shared.pieces import Pieces
from shared.ports import Home
from shared.tabular import Format, Refused

THE_FILE: Final = "the file"
"""What people call the only file there is. Its launch has its number."""
_CURE: Final = "mend the file and send it again: its launch is over"


def open_source(connection: Connection, read: str) -> Tables:
    """What is read is said by the launch, and `read` says nothing. Raises ConfigError."""
    options = connection.options
    format = Format(
        "csv",
        str(options.get("delimiter") or ""),
        by_line=True,
        needs=tuple(options.get("needs") or ()),
        exactly=tuple(options.get("exactly") or ()),
    )
    if connection.page_size < 1:
        raise ConfigError("a page without rows", cure="set source.page_size to 1 or more")
    store = Uploads(connection.own_home(), *connection.stream)
    return Tables("uploads", store, lambda name: format, connection.page_size, connection.clock, cure=_CURE)


class Uploads:
    """The files of the launches of one stream."""

    location = "uploads"
    is_one_file = True

    def __init__(self, home: Home, integration: str, stream: str) -> None:
        self._home = home
        self._stream = integration, stream

    def find(self, window: Window) -> Iterator[File]:
        """That of the launch whose window it is; else of those that wait."""
        launch = self._home.launches.get(*self._stream, launch_id(window.since))
        waiting = self._home.launches.waiting(*self._stream)
        launches = [launch] if launch is not None and launch.window == window else waiting
        for each in launches:
            if window.since <= each.window.since < window.until:
                yield _file(each)

    def open(self, file: File, offset: int) -> io.RawIOBase:
        if not file.generation:
            raise Changed
        return _Pieces(self._home.blobs, file.generation, offset)

    def is_unchanged(self, file: File) -> bool:
        """A file is written once, under a name of its own."""
        return True

    def close(self) -> None:
        pass


def _file(launch: Launch) -> File:
    return File(THE_FILE, launch.window.since, launch.file, launch.size)


class _Pieces(Pieces):
    """The bytes of a file, with the troubles that a source has."""

    def piece(self) -> bytes:
        try:
            found = super().piece()
        except FileNotFoundError as error:
            raise Changed from error
        except StoreUnavailable as error:
            raise TransientError(f"the file cannot be read: {error}") from error
        if not self.offset and found.startswith(GZIP):
            # Its bytes were counted when it came, and nobody knows how many more it would turn into.
            raise Refused("it is compressed: files are sent as they are")
        return found
