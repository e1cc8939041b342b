"""Data syncs of a made-up integration, their API without a network, and the engine behind it, one step at a time."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import msgspec
from werkzeug.serving import make_server
from werkzeug.test import Client, TestResponse
from werkzeug.wrappers import Request

from infra.data_sync.api import DataSyncs
from infra.data_sync.body import Patience
from infra.entrypoints import Handlers
from infra.listener import Handler
from infra.serve import serve
from infra.tokens import create
from infra.wiring import Hub
from shared.launches import Launch, launch_id
from shared.launching import ask
from shared.ports import continuation_topic, topic_of
from shared.sweep import conclude_runs
from shared.tokens import ID_BYTES, SALT_BYTES, SECRET_BYTES, made_of

ROOT: Final = "/api/data-sync"
NAME: Final = "loyalty"
"""Of the integration."""
SYNCS: Final = """\
  customers: {does: import, title: Customers}
  open_import: {does: import, authentication: false, max_upload: 2000}
  leavers: {does: delete, authentication: false}
  report: {does: export, title: 'Report "A"', authentication: false, columns: [id, name]}
  asleep: {does: import, authentication: false, enabled: false}
"""
INTEGRATION: Final = f"""\
name: {NAME}
source: {{system: uploads, page_size: 50}}
sink: {{system: tests.systems.data_sync_target, batch_size: 5, lanes: 3, redeliver_after: 10ms}}
streams:
"""
MAPPING: Final = """\
from shared.errors import NO_IDENTITY, RecordError
from shared.rules import Rules

def identify(row):
    if not row.get("id"):
        raise RecordError("it has no id", field="id", number=NO_IDENTITY)
    return row["id"]

def to_target(row):
    if row.get("name") == "bad":
        raise RecordError("it is bad", field="name")
    return dict(row)

def rules(keys):
    does = keys["does"]
    if does == "export":
        delimiter = {"tab": "\\t"}.get(keys.get("delimiter"), ",")
        settings = {"columns": keys["columns"], "path": keys.get("path", ""), "delimiter": delimiter}
        return Rules("", "", identify, to_target, source="files", target="exports", launched="whole", polled=True,
                     settings=settings, hold_back=0.0)
    filters = [("skipped", lambda row: row.get("name") == "skipped")]
    return Rules("", "", identify, to_target, filters, launched="sent", verifies=False, deletes=does == "delete")

OPTIONS = {"*": {
    "does": str, "title": str, "authentication": bool, "max_upload": int, "escape_formulas": bool, "delimiter": str,
    "columns": list[str], "path": str,
}}
STREAMS = {"*": rules}
"""


def make_hub(folder: Path, syncs: str = SYNCS, clock: Any = None, **environ: str) -> Hub:
    integration = folder / "functions" / NAME
    integration.mkdir(parents=True, exist_ok=True)
    (integration / "integration.yaml").write_text(INTEGRATION + syncs)
    (integration / "mapping.py").write_text(MAPPING)
    return Hub({"WAYBILL_HOME": str(folder / "home"), **environ}, folder / "functions", clock)


class Desk:
    """The API, as callers meet it, and the home behind it."""

    def __init__(self, hub: Hub, patience: Patience | None = None) -> None:
        self.hub = hub
        self.home = hub.home
        self.notices: list[tuple[str, dict[str, Any]]] = []
        self.api = DataSyncs(hub, self.notice, patience)
        self.client = Client(self)
        self.handlers = Handlers(hub, NAME, self.notice)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        return self.api.answer(Request(environ))(environ, start_response)

    def notice(self, action: str, **fields: Any) -> None:
        self.notices.append((action, fields))

    def get(self, path: str, **headers: str) -> TestResponse:
        return self.call("GET", path, **headers)

    def call(self, method: str, path: str, **headers: str) -> TestResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.open(f"{ROOT}/{path}", method=method, headers=named)

    def send(self, path: str, text: bytes | str = "id,name\r\n1,Ana\r\n", **headers: str) -> TestResponse:
        data = text.encode() if isinstance(text, str) else text
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(f"{ROOT}/{path}", data={"file": (BytesIO(data), "c.csv")}, headers=named)

    def token(self, sync: str) -> str:
        text: str = create(self.hub, sync)["token"]
        return text

    def foreign_token(self) -> str:
        return made_of(secrets.token_bytes(ID_BYTES + SECRET_BYTES + SALT_BYTES), "", "", self.home.clock.now())[0]

    def launches(self, sync: str) -> list[Launch]:
        return self.home.launches.recent(NAME, sync, 1000)

    def add(self, sync: str, **fields: Any) -> Launch:
        """A launch as it stands in the store, without a run."""
        at = self.home.clock.now()
        return ask(self.home, msgspec.structs.replace(Launch(NAME, sync, launch_id(at), at), **fields))

    def work(self, *syncs: str) -> None:
        """Brings every message to its function until none is left."""
        topics = [continuation_topic(NAME), topic_of(NAME)]
        bus = self.hub.embedded.bus
        while (claimed := bus.claim(topics)) is not None:
            take = self.handlers.go_on if claimed.topic == topics[0] else self.handlers.deliver
            reply = take(claimed.message.data)
            assert reply.status == 204 or reply.body, reply
            bus.acknowledge(claimed)
        for stream in self.hub.every_stream(self.hub.integration(NAME)):
            conclude_runs(stream, self.home)

    def produce(self, sync: str) -> None:
        """What a schedule or `waybill run` does to an export."""
        reply = self.handlers.source(msgspec.json.encode({"stream": sync}), {})
        assert reply.status in (200, 500), reply
        self.work()

    def uploads(self) -> list[str]:
        """The names of all files that are kept."""
        return [name for name, _ in self.home.blobs.names("uploads/")]


@contextmanager
def listening(desk: Desk) -> Iterator[tuple[str, int]]:
    """The API of a desk on connections as `waybill serve` has them: gives host and port."""
    server = make_server("127.0.0.1", 0, desk, threaded=True, request_handler=Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield "127.0.0.1", server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def served(hub: Hub) -> Iterator[str]:
    """`waybill serve` in a thread: gives its address."""
    notes: list[str] = []
    listening = threading.Event()

    def note(text: str) -> None:
        notes.append(text)
        if text.startswith("listening on "):
            listening.set()

    thread = threading.Thread(target=serve, args=(hub, "127.0.0.1", 0, note))
    thread.start()
    try:
        while not listening.wait(0.05):
            assert thread.is_alive(), notes
        yield next(each for each in notes if each.startswith("listening")).removeprefix("listening on ")
    finally:
        hub.clock.stop()
        thread.join()


def header(user: str, password: str) -> Mapping[str, str]:
    import base64

    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
