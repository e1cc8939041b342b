"""The ledger in Firestore: a document per key, below its stream's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from infra.gcp.names import document_id, key_id
from infra.gcp.store import Path, Query, Store, Write
from shared.ledger import Cell

CELL: Final = "cell"
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Cell).decode


class GoogleLedger:
    def __init__(self, store: Store) -> None:
        self._store = store

    def cells(self, integration: str, stream: str, keys: Sequence[str]) -> dict[str, Cell]:
        found = self._store.get_all(cell_path(integration, stream, key) for key in keys)
        cells = [_decode(document.fields[CELL]) for document in found.values()]
        return {cell.key: cell for cell in cells}

    def scan(self, integration: str, stream: str) -> Iterator[Cell]:
        for document in self._store.each(Query((*stream_path(integration, stream), "cells"))):
            yield _decode(document.fields[CELL])

    def versions(self, integration: str, stream: str) -> Iterator[tuple[str, str]]:
        for document in self._store.each(Query((*stream_path(integration, stream), "cells"))):
            cell = _decode_version(document.fields[CELL])
            yield cell.key, cell.version


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


def write_cells(integration: str, stream: str, cells: Sequence[Cell]) -> list[Write]:
    """A cell is one field of text: nothing in it is asked for, and one field is cheap to read and to store."""
    return [Write(cell_path(integration, stream, cell.key), {CELL: _encode(cell).decode()}) for cell in cells]
