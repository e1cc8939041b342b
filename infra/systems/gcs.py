"""Objects of Cloud Storage as a source: one object, all with a prefix, or a pattern; otherwise like `files`.

`path` is `gs://bucket/...`: an object of exactly this name is meant alone, anything else is a prefix. The version of an
object is its generation, and its time that of the generation's creation: later changes of its metadata are none of its
content. Every read is pinned to the generation, so that no file is put together from two; where the bucket keeps no old
generations, an object that is replaced while it is read is gone for its reader, and the guard trips.

Content is read as it is stored (`raw_download`): the server would unpack what is marked as gzip, and ignore ranges.

Facts: vendor documentation of generations, preconditions, ranges and transcoding; the behaviour of the library's client
with `STORAGE_EMULATOR_HOST` as seen there.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from infra.gcp.clients import NO_BUCKET_METADATA
from infra.gcp.errors import translate
from infra.systems import Connection
from infra.systems.files.options import WILD, formats_of, is_hidden, kind_by_name, matcher, path_of
from infra.systems.files.reading import Changed, File, Tables
from shared.books import Window
from shared.errors import AuthError, ConfigError, ProtocolError, StoreUnavailable, TransientError

if TYPE_CHECKING:
    from google.cloud.storage import Blob, Client

SCHEME: Final = "gs://"
PIECE: Final = 8 << 20
"""Bytes that are asked for at a time, and held in memory."""
PATIENCE: Final = 60.0
"""Seconds that one read of a piece may take, with all its tries."""
TOKEN: Final = "GOOGLE_OAUTH_ACCESS_TOKEN"  # noqa: S105
PROJECT: Final = "GOOGLE_CLOUD_PROJECT"


def open_source(connection: Connection, read: str) -> Tables:
    """Options as for `files`. Raises ConfigError for those that cannot be."""
    if connection.page_size < 1:
        raise ConfigError("a page without rows", cure="set source.page_size to 1 or more")
    path = path_of(connection.options)
    if not path.startswith(SCHEME) or not path.removeprefix(SCHEME).partition("/")[0]:
        raise ConfigError(f"path is {path!r}", cure="write gs://bucket/object, or a prefix or pattern of objects")
    formats = formats_of(connection.options)
    return Tables("gcs", Bucket(path, connection.secrets), formats, connection.page_size, connection.clock)


class Bucket:
    """The objects of a path. The client is made at the first need."""

    def __init__(self, path: str, secrets: dict[str, str]) -> None:
        self.location = path
        self._bucket, _, self._path = path.removeprefix(SCHEME).partition("/")
        self._token, self._project = secrets.get(TOKEN, ""), secrets.get(PROJECT) or None
        self._made: Client | None = None
        wild = WILD.search(self._path)
        self._prefix = self._path[: wild.start()] if wild else self._path
        self._matches = matcher(self._path) if wild else None
        self.is_one_file = not wild and kind_by_name(self._path) is not None

    def find(self, window: Window) -> Iterator[File]:
        """Raises ProtocolError where one object is meant and there is none, as far as the name can tell."""
        with _translated(f"listing {self.location}"):
            blobs = self._client().list_blobs(self._bucket, prefix=self._prefix or None, **_options())
            found = [file for blob in blobs if (file := _file(blob)) is not None]
        exact = [file for file in found if file.name == self._path]
        if exact or self.is_one_file:
            self.is_one_file = True
            if not exact:
                raise ProtocolError(f"there is no object {self.location}", cure="check `path`, then run again")
            found = exact
        elif self._matches is not None:
            found = [file for file in found if self._matches(file.name) and not is_hidden(self._rest(file))]
        else:
            found = [file for file in found if not is_hidden(self._rest(file))]
        yield from (file for file in found if window.since <= file.instant < window.until)

    def open(self, file: File, offset: int) -> io.RawIOBase:
        return _Ranges(lambda: self._blob(file), file, offset)

    def is_unchanged(self, file: File) -> bool:
        """Whether the object of this name is still this generation of it."""
        with _translated(f"looking at {file.name}"):
            blob = self._client().bucket(self._bucket).get_blob(file.name, **_options())
        return blob is not None and str(blob.generation) == file.generation

    def close(self) -> None:
        if self._made is not None:
            self._made.close()
            self._made = None

    def _rest(self, file: File) -> str:
        """The part of a name behind the folder that was asked for."""
        return file.name[self._prefix.rfind("/") + 1 :]

    def _blob(self, file: File) -> Blob:
        return self._client().bucket(self._bucket).blob(file.name, generation=int(file.generation))

    def _client(self) -> Client:
        if self._made is None:
            from google.cloud.storage import Client  # slow to load, and only a run needs it

            os.environ.setdefault(NO_BUCKET_METADATA, "true")
            with _translated("connecting to Cloud Storage"):
                self._made = Client(project=self._project, credentials=_credentials(self._token))
        return self._made


class _Ranges(io.RawIOBase):
    """The stored bytes of one generation from an offset on, piece by piece."""

    def __init__(self, blob: Callable[[], Blob], file: File, offset: int) -> None:
        # A new one for each piece: it forgets its generation with an answer that does not say it.
        self._blob = blob
        self._file = file
        self._offset = offset
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._piece and self._offset < self._file.size:
            self._piece = memoryview(self._fetched())
            self._offset += len(self._piece)
        size = min(len(buffer), len(self._piece))
        buffer[:size] = self._piece[:size]
        self._piece = self._piece[size:]
        return size

    def _fetched(self) -> bytes:
        end = min(self._offset + PIECE, self._file.size) - 1
        with _translated(f"reading {self._file.name}"):
            data: bytes = self._blob().download_as_bytes(
                start=self._offset,
                end=end,
                raw_download=True,
                if_generation_match=int(self._file.generation),
                checksum=None,  # the server knows one of the whole object only
                **_options(),
            )
        if not data:
            raise Changed
        return data


def _file(blob: Blob) -> File | None:
    """None for the mark that stands for a folder."""
    if blob.name.endswith("/"):
        return None
    return File(blob.name, blob.time_created.astimezone(UTC), str(blob.generation), blob.size)


def _credentials(token: str) -> Any:
    if not token:
        return None
    from google.oauth2.credentials import Credentials

    return Credentials(token)  # type: ignore[no-untyped-call]


def _options() -> dict[str, Any]:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return {"retry": DEFAULT_RETRY.with_timeout(PATIENCE), "timeout": PATIENCE}


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Whatever the library raises leaves as what it means for a source."""
    from google.api_core import exceptions as core
    from google.auth import exceptions as auth

    try:
        yield
    except (core.Unauthorized, core.Forbidden) as error:
        raise AuthError(f"{what}: {type(error).__name__}", cure="check credentials and their right to read") from error
    except (core.PreconditionFailed, core.RequestRangeNotSatisfiable) as error:
        raise Changed from error
    except core.NotFound as error:
        if what.startswith("reading "):
            raise Changed from error
        raise ProtocolError(f"{what}: there is nothing", cure="check the bucket in `path`, then run again") from error
    except auth.RefreshError as error:
        if error.retryable:
            raise TransientError(f"{what}: no token") from error
        raise AuthError(f"{what}: no token for these credentials") from error
    except auth.DefaultCredentialsError as error:
        raise AuthError(f"{what}: there are no credentials", cure=f"set {TOKEN}, or log in with gcloud") from error
    except Exception as error:
        own = translate(error, what)
        if isinstance(own, StoreUnavailable):
            raise TransientError(str(own)) from error
        if own is None or own is error:
            raise
        raise ProtocolError(str(own)) from error
