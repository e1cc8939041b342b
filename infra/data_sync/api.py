"""The data-sync API: what is at which path, who may call it, and what is answered.

An existing client of Prisma Campaigns' API works against this one: paths, status codes 200, 403, 404 and 500, keys and
their order are theirs. Ours are the paths `delete/ID`, `ID/LAUNCH_ID`, `ID/LAUNCH_ID/result` and `openapi.json`, and
the codes 400, 405, 408, 409, 413, 415 and 503.

A sync that nobody knows is told to be unknown before anybody is asked for a token.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

from infra.data_sync.access import USER, may_call
from infra.data_sync.answers import Refused, whole
from infra.data_sync.body import Body, Patience
from infra.data_sync.download import content_of, last_produced
from infra.data_sync.formats import CSV, EDN, JSON, encoded, negotiated
from infra.data_sync.openapi import document
from infra.data_sync.results import as_csv, as_json, results_of
from infra.data_sync.status import Statuses, is_enabled
from infra.data_sync.syncs import Sync, find_sync
from infra.data_sync.uploading import receive
from infra.wiring import Hub
from shared.errors import ConfigError, WaybillError
from shared.launches import Launch, launch_id
from shared.launching import ask, cancel, summon
from shared.ports import Notice

if TYPE_CHECKING:
    from werkzeug.wrappers import Request, Response

ROOT: Final = "/api/data-sync/"
FORMATS: Final = (JSON, EDN)
RESULT_FORMATS: Final = (JSON, CSV)
CSV_UTF8: Final = "text/csv; charset=utf-8"
_LAUNCH: Final = re.compile(r"[1-9][0-9]{0,14}")
_FAILED: Final = {"import": "the file could not be imported", "export": "the file could not be produced"}


class Call(NamedTuple):
    """One request, with what its path names."""

    request: Request
    body: Body
    sync: Sync
    launch: int


class Path(NamedTuple):
    """What a path means: by which method it is called, what that does, and the id and launch in it."""

    method: str
    work: Callable[[Call], Response] | None = None
    """None where no data sync is asked."""
    id: str = ""
    launch: int = 0
    types: tuple[str, ...] = ("import", "export", "delete")
    """Of data syncs that are found there."""
    what: str = ""
    removal: Callable[[Call], Response] | None = None
    """What DELETE does there, if anything."""

    @property
    def allowed(self) -> str:
        methods = "GET, HEAD" if self.method == "GET" else self.method
        return methods if self.removal is None else f"{methods}, DELETE"


class DataSyncs:
    """The API of all data syncs of a hub, below `ROOT`."""

    def __init__(self, hub: Hub, notice: Notice, patience: Patience | None = None) -> None:
        self.hub = hub
        self.notice = notice
        self.patience = patience or Patience()
        self.statuses = Statuses()
        self._known: dict[str, Sync] = {}

    def answer(self, request: Request) -> Response:
        """Never raises. The answer streams, and what the client still sends meanwhile is read behind it."""
        body = Body(request.environ, self.hub.clock, self.patience)
        path: Path | None = None
        try:
            path = self.path(request.path)
            response = self.answer_at(path, request, body)
        except Refused as refused:
            response = refused.answer()
        except Exception as error:
            # The text of an error may name a file of this machine, or quote a record.
            self.notice("data_sync_failed", path=path.what if path else "", error=type(error).__name__)
            response = Refused(500, _FAILED.get(path.what if path else "", "something failed inside")).answer()
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        if self.hub.clock.stopping:
            # The process may end as soon as this has returned.
            body.read_the_rest()
        # A list would make functions-framework read all of the body into memory before it is answered.
        response.response = body.outlasting(response.iter_encoded())
        return response

    def answer_at(self, path: Path, request: Request, body: Body) -> Response:
        if request.method not in path.allowed.split(", "):
            raise Refused(405, f"here is only {path.allowed}", allow=path.allowed)
        work = path.removal if request.method == "DELETE" else path.work
        if work is None:
            return whole(encoded(document(), JSON), JSON)
        sync = self.sync(path)
        self.let_in(sync, request)
        return work(Call(request, body, sync, path.launch))

    def path(self, text: str) -> Path:
        """Raises Refused for a path that means nothing."""
        match text.removeprefix(ROOT).split("/"):
            case ["openapi.json"]:
                return Path("GET")
            case ["import", id] if id:
                return Path("POST", self.bring, id, types=("import", "delete"), what="import")
            case ["delete", id] if id:
                return Path("POST", self.bring, id, types=("delete",), what="import")
            case ["export", id] if id:
                return Path("GET", self.export, id, types=("export",), what="export")
            case [id] if id:
                return Path("GET", self.status, id)
            case [id, "latest-launches"] if id:
                return Path("GET", self.latest, id)
            case [id, launch] if id and _LAUNCH.fullmatch(launch):
                return Path("GET", self.one, id, int(launch), removal=self.cancel)
            case [id, launch, "download"] if id and _LAUNCH.fullmatch(launch):
                return Path("GET", self.download, id, int(launch), what="export")
            case [id, launch, "result"] if id and _LAUNCH.fullmatch(launch):
                return Path("GET", self.result, id, int(launch))
        raise Refused(404, "there is nothing here")

    def sync(self, path: Path) -> Sync:
        """Raises Refused for an id that nobody has, or a sync that does something else."""
        sync = self._known.get(path.id) or find_sync(self.hub, path.id)
        if sync is None or sync.type not in path.types:
            raise Refused(404, "there is no such data sync")
        self._known[path.id] = sync
        return sync

    def let_in(self, sync: Sync, request: Request) -> None:
        """Raises Refused for whoever may not call the sync."""
        if not sync.asks_for_a_token:
            return
        tokens = self.hub.home.tokens.of(sync.integration, sync.id)
        if tokens and not may_call(request.headers.get("Authorization", ""), tokens):
            raise Refused(403, f"this data sync asks for HTTP Basic, user {USER}, with one of its own tokens")

    def launch(self, call: Call) -> Launch:
        """Raises Refused for a launch that the sync does not have."""
        launch = self.hub.home.launches.get(call.sync.integration, call.sync.id, call.launch)
        if launch is None:
            raise Refused(404, "this data sync has no such launch")
        return launch

    def bring(self, call: Call) -> Response:
        """Takes a file: see `shared/launching.py` for the order of effects."""
        home, sync = self.hub.home, call.sync
        if not is_enabled(home, sync):
            raise Refused(409, "this data sync is disabled")
        # Launches get their numbers later, and two of one moment would write to one blob.
        file = f"uploads/{sync.integration}/{sync.id}/{uuid.uuid4().hex}"
        size = receive(call.request, call.body, home.blobs, file, sync.most)
        at = home.clock.now()
        launch = ask(home, Launch(sync.integration, sync.id, launch_id(at), at, file=file, size=size))
        try:
            summon(home, launch)
        except WaybillError as error:
            # The launch is on record, and the sweeper summons what waits.
            self.notice("summons_lost", stream=sync.id, launch=launch.id, error=type(error).__name__)
        self.notice("file_queued", integration=sync.integration, stream=sync.id, launch=launch.id, bytes=size)
        return whole(b"File queued", "text/plain; charset=utf-8")

    def export(self, call: Call) -> Response:
        return self.file(call, last_produced(self.hub.home, call.sync))

    def download(self, call: Call) -> Response:
        return self.file(call, self.launch(call))

    def file(self, call: Call, launch: Launch) -> Response:
        from werkzeug.wrappers import Response

        pieces = content_of(self.hub.home, call.sync, launch)
        response = Response(self.complete(pieces), content_type=CSV_UTF8)
        response.headers["Content-Disposition"] = f'attachment; filename="{call.sync.id}-{launch.id}.csv"'
        if launch.file:
            response.headers["Content-Length"] = str(launch.size)
        return response

    def result(self, call: Call) -> Response:
        from werkzeug.wrappers import Response

        launch = self.launch(call)
        format = _format(call.request, RESULT_FORMATS)
        groups = results_of(self.hub.home, call.sync, launch)
        pieces = as_csv(groups) if format == CSV else as_json(launch, groups)
        first = [next(pieces), next(pieces, b"")]
        content_type = CSV_UTF8 if format == CSV else format
        return _varying(Response(self.complete(chain(first, pieces)), content_type=content_type))

    def complete(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The pieces, or an answer that breaks off: what fails when it has begun can be said in no other way."""
        try:
            yield from pieces
        except Exception as error:
            self.notice("answer_broke_off", error=type(error).__name__)
            raise ConnectionAbortedError("the rest of the answer cannot be read") from error

    def status(self, call: Call) -> Response:
        return _answer(call, self.statuses.of(self.hub.home, call.sync))

    def latest(self, call: Call) -> Response:
        return _answer(call, self.statuses.latest(self.hub.home, call.sync))

    def one(self, call: Call) -> Response:
        return _answer(call, self.statuses.launch(self.hub.home, self.launch(call)))

    def cancel(self, call: Call) -> Response:
        try:
            launch = cancel(self.hub.home, self.launch(call), USER)
        except ConfigError as error:
            raise Refused(409, str(error)) from None
        return _answer(call, self.statuses.launch(self.hub.home, launch))


def _format(request: Request, offers: tuple[str, ...]) -> str:
    return negotiated(request.headers.get("Accept", ""), request.headers.get("Content-Type", ""), offers)


def _answer(call: Call, content: object) -> Response:
    format = _format(call.request, FORMATS)
    return _varying(whole(encoded(content, format), format))


def _varying(response: Response) -> Response:
    response.headers["Vary"] = "Accept, Content-Type"
    return response
