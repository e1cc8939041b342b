"""The ledger in Firestore: a document per key, below its stream's.

A delivery and a fetch may write the same cell, each on the strength of what it read. So a cell is written on condition
that it is still as it was read, which costs nothing as long as that is so; else it is read again, and what the other
one wrote is respected.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from infra.gcp.names import document_id, key_id
from infra.gcp.store import Document, Path, Query, Store, Write
from shared.ledger import Cell, refused_later, written_over

CELL: Final = "cell"
REMEMBERED: Final = 5_000
"""Cells that were read and not written yet: the batches in the hands of all threads."""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Cell).decode


class Known(msgspec.Struct, frozen=True):
    """A cell as it was read, and the version of its document; neither if there was none."""

    cell: Cell | None = None
    version: Any = None


class GoogleLedger:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: OrderedDict[Path, Known] = OrderedDict()
        self._lock = threading.Lock()

    def cells(self, integration: str, stream: str, keys: Sequence[str]) -> dict[str, Cell]:
        known = self._read(cell_path(integration, stream, key) for key in keys)
        with self._lock:
            self._known.update(known)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return {each.cell.key: each.cell for each in known.values() if each.cell is not None}

    def scan(self, integration: str, stream: str) -> Iterator[Cell]:
        for document in self._store.each(Query((*stream_path(integration, stream), "cells"))):
            yield read_cell(document)

    def versions(self, integration: str, stream: str) -> Iterator[tuple[str, str]]:
        for document in self._store.each(Query((*stream_path(integration, stream), "cells"))):
            cell = _decode_version(document.fields[CELL])
            yield cell.key, cell.version

    def applying(self, integration: str, stream: str, cells: Sequence[Cell]) -> Callable[[], list[Write]]:
        """Gives the writes of these cells, each time as of now. A version that failed after the one that is applied
        stays marked."""
        return self._writing(integration, stream, cells, written_over)

    def marking(self, integration: str, stream: str, cells: Sequence[Cell]) -> Callable[[], list[Write]]:
        """Gives the writes that mark the failed versions of these cells, each time as of now. A cell that is there
        already stays as it is but for this mark."""
        return self._writing(integration, stream, cells, _mark)

    def refusing(self, integration: str, stream: str, request: str, versions: Mapping[str, str]) -> dict[str, Write]:
        """By key, the writes of the cells whose version is refused after it was accepted by a request, as of now."""
        known = self._read(cell_path(integration, stream, key) for key in versions)
        writes = {}
        for path, each in known.items():
            version = versions.get(each.cell.key, "") if each.cell is not None else ""
            cell = refused_later(each.cell, request, version)
            if cell is not None:
                writes[cell.key] = Write(path, _fields(cell), "update", each.version)
        return writes

    def _writing(
        self, integration: str, stream: str, cells: Sequence[Cell], merge: Callable[[Cell, Cell], Cell]
    ) -> Callable[[], list[Write]]:
        wanted = {cell_path(integration, stream, cell.key): cell for cell in cells}
        known = self._recall(wanted)

        def writes() -> list[Write]:
            known.update(self._read(path for path in wanted if path not in known))
            made = [write for path, cell in wanted.items() if (write := _write(path, cell, known[path], merge))]
            # Whoever asks again was refused with these.
            known.clear()
            return made

        return writes

    def _read(self, paths: Iterable[Path]) -> dict[Path, Known]:
        wanted = list(paths)
        found = self._store.get_all(wanted)
        return {path: _known(found.get(path)) for path in wanted}

    def _recall(self, paths: Mapping[Path, Cell]) -> dict[Path, Known]:
        """What was read of these, once: whoever writes them knows more afterwards."""
        with self._lock:
            return {path: known for path in paths if (known := self._known.pop(path, None)) is not None}


class _Version(msgspec.Struct, gc=False):
    """As much of a cell as an audit reads."""

    key: str
    version: str = ""


_decode_version = msgspec.json.Decoder(_Version).decode


def stream_path(integration: str, stream: str) -> Path:
    """Where a stream's own state is, and its cells below it."""
    return "streams", document_id(integration, stream)


def cell_path(integration: str, stream: str, key: str) -> Path:
    return (*stream_path(integration, stream), "cells", key_id(key))


def read_cell(document: Document) -> Cell:
    return _decode(document.fields[CELL])


def put_cells(integration: str, stream: str, cells: Sequence[Cell]) -> list[Write]:
    """Writes cells whatever is there."""
    return [Write(cell_path(integration, stream, cell.key), _fields(cell)) for cell in cells]


def _fields(cell: Cell) -> dict[str, Any]:
    """One field of text: nothing in it is asked for, and one field is cheap to read and to store."""
    return {CELL: _encode(cell).decode()}


def _known(document: Document | None) -> Known:
    return Known() if document is None else Known(read_cell(document), document.version)


def _write(path: Path, cell: Cell, known: Known, merge: Callable[[Cell, Cell], Cell]) -> Write | None:
    if known.cell is None:
        return Write(path, _fields(cell), "create")
    merged = merge(known.cell, cell)
    return None if merged == known.cell else Write(path, _fields(merged), "update", known.version)


def _mark(stored: Cell, cell: Cell) -> Cell:
    return msgspec.structs.replace(stored, failed=max(stored.failed, cell.failed))
