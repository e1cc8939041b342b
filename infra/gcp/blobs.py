"""Blobs in a bucket of Cloud Storage, where an object appears under its name only when all of it is there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from infra.gcp.calls import Lazy, Patience
from infra.gcp.errors import is_missing, translated
from shared.errors import ConfigError
from shared.ports import Blobs

if TYPE_CHECKING:
    from google.cloud.storage import Bucket, Client

PIECE: Final = 4 * 1024 * 1024
"""How much of a blob is in memory, and in one request, while it is written piece by piece."""
_NAME: Final = re.compile(r"(?:[^/.\x00-\x1f\x7f][^/\x00-\x1f\x7f]*/)*[^/.\x00-\x1f\x7f][^/\x00-\x1f\x7f]*")


class GoogleBlobs:
    def __init__(self, client: Lazy[Client], bucket: str, patience: Patience) -> None:
        self._client = client
        self._bucket_name = bucket
        self._patience = patience

    def write(self, name: str, data: bytes) -> None:
        _check(name)
        with translated(f"writing {name}"):
            # Only these calls say that repeating them is harmless: the same name, the same bytes.
            self._bucket().blob(name).upload_from_string(data, "application/octet-stream", **self._options())

    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> int:
        _check(name)
        rest = Pieces(pieces)
        try:
            with translated(f"writing {name}"):
                blob = self._bucket().blob(name, chunk_size=PIECE)
                blob.upload_from_file(rest, content_type="application/octet-stream", **self._options())
        except BaseException:
            # What the pieces raise is theirs. An upload that is not brought to its end never becomes an object.
            if rest.error is not None:
                raise rest.error from None
            raise
        return rest.tell()

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        from google.api_core.exceptions import RequestRangeNotSatisfiable

        _check(name)
        end = None if length is None else offset + length - 1
        try:
            with translated(f"reading {name}"):
                blob = self._bucket().blob(name)
                if end is not None and end < offset:
                    blob.reload(**self._options())
                    return b""
                data: bytes = blob.download_as_bytes(
                    start=offset or None, end=end, raw_download=True, **self._options()
                )
                return data
        except ConfigError as error:
            if is_missing(error):
                raise FileNotFoundError(name) from error
            if isinstance(error.__cause__, RequestRangeNotSatisfiable):
                return b""
            raise

    def size(self, name: str) -> int:
        _check(name)
        try:
            with translated(f"looking at {name}"):
                blob = self._bucket().blob(name)
                blob.reload(**self._options())
                return int(blob.size)
        except ConfigError as error:
            if is_missing(error):
                raise FileNotFoundError(name) from error
            raise

    def delete(self, name: str) -> None:
        _check(name)
        try:
            with translated(f"deleting {name}"):
                self._bucket().blob(name).delete(**self._options())
        except ConfigError as error:
            if not is_missing(error):
                raise

    def names(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        with translated(f"listing {prefix}"):
            for blob in self._bucket().list_blobs(prefix=prefix or None, **self._options()):
                yield blob.name, blob.updated

    def _bucket(self) -> Bucket:
        return self._client().bucket(self._bucket_name)

    def _options(self) -> dict[str, Any]:
        from google.cloud.storage.retry import DEFAULT_RETRY

        return {"retry": DEFAULT_RETRY.with_timeout(self._patience.seconds), "timeout": self._patience.seconds}


class Below:
    """The blobs whose names begin with a prefix, which is left out of them."""

    def __init__(self, blobs: Blobs, prefix: str) -> None:
        self._blobs = blobs
        self._prefix = prefix

    def write(self, name: str, data: bytes) -> None:
        self._blobs.write(self._full(name), data)

    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> int:
        return self._blobs.write_pieces(self._full(name), pieces)

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self._blobs.read(self._full(name), offset, length)

    def size(self, name: str) -> int:
        return self._blobs.size(self._full(name))

    def delete(self, name: str) -> None:
        self._blobs.delete(self._full(name))

    def names(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        for name, written_at in self._blobs.names(f"{self._prefix}{prefix}"):
            yield name.removeprefix(self._prefix), written_at

    def _full(self, name: str) -> str:
        _check(name)
        return f"{self._prefix}{name}"


class Pieces:
    """What comes piece by piece, as the file that the library reads from its beginning to its end."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._left = bytearray()
        self._given = 0
        self.error: BaseException | None = None
        """With which the pieces ended."""

    def tell(self) -> int:
        return self._given

    def read(self, size: int) -> bytes:
        """Less only at the end."""
        try:
            while len(self._left) < size and (piece := next(self._pieces, None)) is not None:
                self._left += piece
        except BaseException as error:
            self.error = error
            raise
        data = bytes(memoryview(self._left)[:size])
        del self._left[:size]
        self._given += len(data)
        return data


def _check(name: str) -> None:
    """The names that a folder takes as well."""
    if _NAME.fullmatch(name) is None or len(name.encode()) > 1024:
        raise ConfigError(f"{name!r} is no name for a blob")
