"""The calls of one data sync.

Facts: vendor documentation. Basic authentication as `api` with the data sync's own token; 403 where it is wrong, 404
for an unknown data sync, 500 where a file could not be taken or given. A Content-Type is asked for even of calls that
only read. What a launch does not have is left out. Our own server answers besides with 409 (disabled), 413 (too large),
400 and 415 (no file that can be read), and 429 or 503 with Retry-After.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Final
from urllib.parse import quote

import msgspec
from urllib3.filepost import encode_multipart_formdata

from infra.http import Answer, Content, Download, Http
from infra.pace import Pace
from infra.systems import Connection
from shared.errors import AuthError, ConfigError, ProtocolError
from shared.retry import RetryPolicy

TOKEN: Final = "PRISMA_TOKEN"  # noqa: S105
TIMEOUT: Final = (5.0, 120.0)
"""Seconds. A file is written while the server is silent."""
JSON: Final = "application/json"


class Launch(msgspec.Struct, frozen=True, rename="kebab"):
    """One execution of a data sync. There is no state for one that failed: its message tells."""

    id: int
    status: str
    status_message: str | None = None


_decode: Final = msgspec.json.Decoder(list[Launch], strict=False).decode
_decode_one: Final = msgspec.json.Decoder(Launch, strict=False).decode


class Api:
    """A client of one data sync. For one thread."""

    def __init__(self, connection: Connection, retry: RetryPolicy) -> None:
        self.data_sync = str(connection.options.get("data_sync") or "").strip()
        if not self.data_sync:
            raise ConfigError("no data sync is named", cure="set `data_sync:` on the stream: its id in the console")
        token = _token(connection)
        headers = {"Authorization": f"Basic {b64encode(f'api:{token}'.encode()).decode()}"} if token else {}
        self._id = quote(self.data_sync, safe="")
        self._pace = Pace(connection.rate, connection.clock, connection.pace_file, connection.stopping)
        secrets = (token,) if token else ()
        self._files, self._states = (
            Http(connection.url, {**headers, **more}, self._pace, retry, connection.clock, TIMEOUT, secrets)
            for more in ({}, {"Accept": JSON, "Content-Type": JSON})
        )
        self.location = f"{self._files.base_url}/api/data-sync/{self._id}"

    def launches(self) -> list[Launch]:
        """The latest ones, newest first. Raises as `Http.request`, also ProtocolError for an answer that tells none."""
        answer = self._states.request("GET", f"/api/data-sync/{self._id}/latest-launches", repeatable=True)
        self.check_there(answer)
        try:
            if answer.status == 200:
                return sorted(_decode(answer.body), key=lambda launch: launch.id, reverse=True)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        raise ProtocolError(f"the launches of a data sync were answered {answer.status} without one, in JSON")

    def launch(self, number: int) -> Launch | None:
        """One that is not among the latest, None where the server does not tell: ours does, the vendor's documentation
        says nothing of it. Raises as `Http.request`."""
        answer = self._states.request("GET", f"/api/data-sync/{self._id}/{number}", repeatable=True)
        try:
            found = _decode_one(answer.body) if answer.status == 200 else None
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return found if found is not None and found.id == number else None

    def upload(self, csv: bytes, endpoint: str) -> Answer:
        """Queues a file. Raises as `Http.request`; a repeat does no more than the first one."""
        body, kind = encode_multipart_formdata({"file": ("rows.csv", csv, "text/csv")})
        content = Content(kind, body)
        return self._files.request("POST", f"/api/data-sync/{endpoint}/{self._id}", content=content, repeatable=True)

    def download(self, launch: int) -> Download:
        """The file of a launch, or with 0 that of the latest one that went well. To be closed. Raises as
        `Http.request`."""
        path = f"{self._id}/{launch}/download" if launch else f"export/{self._id}"
        return self._files.download(f"/api/data-sync/{path}")

    def check_there(self, answer: Answer) -> None:
        """Raises AuthError, which stops the stream, for a data sync that there is not."""
        if answer.status == 404:
            raise AuthError(
                f"Prisma has no data sync {self.data_sync}", cure="check `data_sync` and PRISMA_URL, then run again"
            )

    def pause(self, seconds: float) -> None:
        self._pace.pause(seconds)

    def close(self) -> None:
        self._files.close()
        self._states.close()
        self._pace.close()


def _token(connection: Connection) -> str:
    """Empty for none. Raises ConfigError for a variable that is named and not set."""
    name = str(connection.options.get("token") or "")
    if not name:
        return connection.secrets.get(TOKEN, "")
    if not name.startswith(TOKEN):
        raise ConfigError(f"`token` names {name}", cure=f"name a variable that begins with {TOKEN}_")
    return connection.secret(name)
