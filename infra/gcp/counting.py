"""What a home asks of Google Cloud, in the units that are paid for."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime

from shared.ports import Blobs


class Meter:
    """Counts since it was made: `reads`, `writes` and `deletes` of documents, `messages` and `message_bytes`,
    `blob_operations` and `blob_bytes`, and the `calls` that all of it took."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, **amounts: int) -> None:
        with self._lock:
            self._counts.update(amounts)

    def counts(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)

    def since(self, earlier: dict[str, int]) -> dict[str, int]:
        """What was added since `earlier`."""
        return {name: count - earlier.get(name, 0) for name, count in self.counts().items()}


class CountedBlobs:
    """Blobs whose operations are counted, wherever they are kept."""

    def __init__(self, inner: Blobs, meter: Meter) -> None:
        self._inner = inner
        self._meter = meter

    def write(self, name: str, data: bytes) -> None:
        self._meter.add(blob_operations=1, blob_bytes=len(data))
        self._inner.write(name, data)

    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> int:
        self._meter.add(blob_operations=1)
        size = self._inner.write_pieces(name, pieces)
        self._meter.add(blob_bytes=size)
        return size

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        data = self._inner.read(name, offset, length)
        self._meter.add(blob_operations=1, blob_bytes=len(data))
        return data

    def size(self, name: str) -> int:
        self._meter.add(blob_operations=1)
        return self._inner.size(name)

    def delete(self, name: str) -> None:
        self._meter.add(blob_operations=1)
        self._inner.delete(name)

    def names(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        self._meter.add(blob_operations=1)
        return self._inner.names(prefix)
