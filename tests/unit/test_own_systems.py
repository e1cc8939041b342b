"""Streams of one integration that name their own systems: their settings, quotas and troubles are their own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from infra.entrypoints import Handlers
from infra.log import silent
from infra.quantities import Rate
from infra.queries import audit, check, listing
from infra.runner import run_streams
from infra.serve import ready_integrations
from infra.wiring import Hub
from shared.errors import AuthError, ConfigError
from shared.fetch import Order
from tests.sandbox import Sandbox

INTEGRATION = """\
name: tables
source: {system: files}
sink: {system: each_its_own, batch_size: 5, redeliver_after: 10ms, retry: {attempts: 1, wait: 1ms}}
streams:
"""
MAPPING = """\
import time

from shared.errors import ConfigError
from shared.rules import Rules
from shared.tabular import identify

def rules(keys):
    if "path" not in keys:
        raise ConfigError("no path", cure="add path")
    write = {"ga4": "events", "data_manager": "events", "cm360": "conversions"}[keys["to"]]
    content = {"client_id": "1.2", "name": "seen", "params": {}}
    own = {}
    make = lambda row: content
    if keys["to"] == "cm360":
        own = {"floodlight_configuration_id": "1", "floodlight_activity_id": "2"}
        micros = int((time.time() - 60) * 1e6)
        make = lambda row: {"gclid": row["id"], "timestamp_micros": micros, "value": 1}
    if keys["to"] == "data_manager":
        content = {"event_timestamp": "2026-01-01T00:00:00Z", "transaction_id": "1"}
        account = {"account_type": "GOOGLE_ADS", "account_id": keys.get("account", "1")}
        own = {"destinations": [{"operating_account": account, "product_destination_id": "2"}]}
    settings = {"path": keys["path"], "settings": own}
    return Rules("", write, identify, make, source="files", target=keys["to"], settings=settings,
                 hold_back=0.0)

OPTIONS = {"*": {"to": str, "path": str, "account": str}}
STREAMS = {"*": rules}
"""


class Collector(BaseHTTPRequestHandler):
    """GA4, or somebody who answers 503."""

    protocol_version = "HTTP/1.1"
    status: ClassVar[int]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class Well(Collector):
    status = 204


class Ill(Collector):
    status = 503


class Picky(Collector):
    """Data Manager, which grants one account and no other."""

    def do_POST(self) -> None:
        granted = b'"accountId":"1"' in self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{"requestId": "r1"}' if granted else b'{"error": {"code": 403, "status": "PERMISSION_DENIED"}}'
        self.send_response(200 if granted else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def addresses() -> Iterator[dict[str, str]]:
    kinds = {"well": Well, "ill": Ill, "picky": Picky}
    servers = {name: ThreadingHTTPServer(("127.0.0.1", 0), kind) for name, kind in kinds.items()}
    for server in servers.values():
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield {name: f"http://127.0.0.1:{server.server_port}" for name, server in servers.items()}
    for server in servers.values():
        server.shutdown()
        server.server_close()


def made(folder: Path, streams: str, **environ: str) -> Hub:
    functions = folder / "functions" / "tables"
    functions.mkdir(parents=True, exist_ok=True)
    (functions / "mapping.py").write_text(MAPPING)
    (functions / "integration.yaml").write_text(INTEGRATION + streams)
    return Hub({"WAYBILL_HOME": str(folder / "home"), **environ}, folder / "functions")


def rate_of(hub: Hub, name: str) -> Rate | None:
    stream = hub.streams(hub.integration("tables"), name)[0]
    return hub.rate(stream, hub.integration("tables").sink)


def test_the_ends_of_a_stream_are_its_own(tmp_path: Path) -> None:
    hub = made(tmp_path, "  web: {to: ga4, path: /x}\n  ads: {to: cm360, path: /x}\n")
    streams = hub.streams(hub.integration("tables"))
    assert [hub.ends(stream) for stream in streams] == [("files", "ga4"), ("files", "cm360")]
    assert [hub.missing([stream]) for stream in streams] == [["GA4_API_SECRET"], ["CM360_PROFILE_ID"]]
    assert [stream.hold_back.total_seconds() for stream in streams] == [0.0, 0.0]
    (tables,) = listing(hub)["integrations"]
    assert [(each["source"], each["sink"]) for each in tables["streams"]] == [("files", "ga4"), ("files", "cm360")]


def test_a_destination_has_the_quota_that_it_documents_unless_another_is_stated(tmp_path: Path) -> None:
    streams = "  web: {to: ga4, path: /x}\n  ads: {to: cm360, path: /x}\n  data: {to: data_manager, path: /x}\n"
    hub = made(tmp_path, streams)
    assert [rate_of(hub, name) for name in ("web", "ads", "data")] == [None, Rate(60, 60.0), Rate(300, 60.0)]
    for stated, meant in (("none", None), ("5/s", Rate(5, 1.0))):
        overlay = tmp_path / "overlay.yaml"
        overlay.write_text(f"tables: {{sink: {{rate_limit: {stated}}}}}")
        hub = made(tmp_path, streams, WAYBILL_OVERLAY=str(overlay))
        assert [rate_of(hub, name) for name in ("web", "ads", "data")] == [meant] * 3


def test_a_check_asks_for_what_enabled_streams_need(tmp_path: Path) -> None:
    off = made(tmp_path, "  web: {to: ga4, path: /x, enabled: false}\n  bare: {to: ga4, enabled: false}\n")
    assert check(off, None)["mistakes"] == []
    on = made(tmp_path, "  web: {to: ga4, path: /x}\n  bare: {to: ga4, enabled: false}\n")
    assert [mistake["found"] for mistake in check(on, None)["mistakes"]] == ["missing: GA4_API_SECRET"]


def test_a_stream_without_its_secrets_is_no_hindrance_to_the_others(tmp_path: Path) -> None:
    secrets = {"GA4_API_SECRET": "s", "GA4_MEASUREMENT_ID": "G-1"}
    hub = made(tmp_path, "  web: {to: ga4, path: /x}\n  ads: {to: cm360, path: /x}\n", **secrets)
    said: list[str] = []
    assert ready_integrations(hub, said.append) == ["tables"]
    assert said == ["tables ads is not served: missing in the environment: CM360_PROFILE_ID"]


def test_a_trigger_of_all_streams_leaves_out_what_lacks_a_setting(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id\n1\n")
    secrets = {"GA4_API_SECRET": "s", "GA4_MEASUREMENT_ID": "G-1"}
    hub = made(tmp_path, f"  web: {{to: ga4, path: {tmp_path}/rows.csv}}\n  bare: {{to: ga4}}\n", **secrets)
    said: list[str] = []
    reply = Handlers(hub, "tables", lambda event, **facts: said.append(event)).source(b"", {})
    assert (reply.status, list(reply.body["streams"])) == (200, ["web"])
    assert "stream_unready" in said
    assert Handlers(hub, "tables", silent).source(b'{"stream": "bare"}', {}).status == 400
    hub.close()


def test_the_trouble_of_one_destination_is_none_of_another(tmp_path: Path, addresses: dict[str, str]) -> None:
    (tmp_path / "rows.csv").write_text("id\n" + "".join(f"{number}\n" for number in range(20)))
    streams = "".join(f"  {name}: {{to: {to}, path: {tmp_path}/rows.csv}}\n" for name, to in
                      (("ads", "data_manager"), ("web", "ga4")))  # fmt: skip
    environ = {
        "GA4_URL": addresses["well"], "GA4_API_SECRET": "s", "GA4_MEASUREMENT_ID": "G-1",
        "DATA_MANAGER_URL": addresses["ill"], "GOOGLE_OAUTH_ACCESS_TOKEN": "t",
    }  # fmt: skip
    hub = made(tmp_path, streams, **environ)
    try:
        ads, web = run_streams(hub, "tables", hub.streams(hub.integration("tables")), Order(), silent)
        assert (ads.state, web.state) == ("failed", "settled")
        assert "answers nobody" in str(ads.error)
        assert web.report(hub)["delivered"] == 20
    finally:
        hub.close()


def test_what_a_stream_lacks_is_said_with_its_cure(tmp_path: Path) -> None:
    hub = made(tmp_path, "  bare: {to: ga4}\n")
    with pytest.raises(ConfigError) as caught:
        hub.streams(hub.integration("tables"), "bare")
    assert (str(caught.value), caught.value.cure) == ("tables, stream bare: no path", "add path")


def test_what_a_destination_refuses_one_stream_is_none_of_another(tmp_path: Path, addresses: dict[str, str]) -> None:
    (tmp_path / "rows.csv").write_text("id\n" + "".join(f"{number}\n" for number in range(20)))
    streams = "".join(
        f'  {name}: {{to: data_manager, account: "{account}", path: {tmp_path}/rows.csv}}\n'
        for name, account in (("theirs", "2"), ("ours", "1"))
    )
    hub = made(tmp_path, streams, DATA_MANAGER_URL=addresses["picky"], GOOGLE_OAUTH_ACCESS_TOKEN="t")
    try:
        theirs, ours = run_streams(hub, "tables", hub.streams(hub.integration("tables")), Order(), silent)
        assert (theirs.state, type(theirs.error), theirs.report(hub)["pending"]) == ("failed", AuthError, 20)
        assert (ours.state, ours.error, ours.report(hub)["delivered"]) == ("settled", None, 20)
    finally:
        hub.close()


def test_a_mistake_stands_where_the_overlay_makes_it(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("tables:\n  streams:\n    web: {to: ga4}\n")
    hub = made(tmp_path, "  web: {path: null}\n", WAYBILL_OVERLAY=str(overlay))
    (tmp_path / "functions" / "tables" / "integration.yaml").write_text(INTEGRATION + "  web: {}\n")
    (mistake,) = check(hub, None)["mistakes"]
    assert (mistake["file"], mistake["line"], mistake["path"]) == (str(overlay), 3, "tables.streams.web")
    assert (mistake["found"], mistake["cure"]) == ("tables, stream web: no path", "add path")


def test_a_run_sends_once_more_what_came_too_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has no sweeper has the next run."""
    monkeypatch.setattr("shared.sweep.EARLY_AGAIN", timedelta())
    (tmp_path / "rows.csv").write_text("id\nclick1\nclick2\n")
    with Sandbox(seed=3, customers=0, cm360_per_minute=None) as sandbox:
        sandbox.cm360.unknown_clicks = {"click2"}
        streams = f"  ads: {{to: cm360, path: {tmp_path}/rows.csv}}\n"
        hub = made(tmp_path, streams, **sandbox.environment)
        try:
            chosen = hub.streams(hub.integration("tables"))
            (first,) = run_streams(hub, "tables", chosen, Order(), silent)
            assert (first.report(hub)["delivered"], first.report(hub)["exhausted"]) == (1, 1)
            sandbox.cm360.unknown_clicks.clear()
            (second,) = run_streams(hub, "tables", chosen, Order(), silent)
            (resumed,) = second.report(hub)["resumed"]
            assert (second.state, resumed["fetched"], resumed["delivered"]) == ("settled", 1, 1)
            assert audit(hub, "tables", False)["streams"]["ads"]["delivered"] == 2
        finally:
            hub.close()
