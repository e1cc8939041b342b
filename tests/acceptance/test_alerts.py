"""Who is told that something is wrong: once when it is, and once when it is over."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.acceptance.conftest import MakeHub
from tests.acceptance.hub import Document, Hub, wait_until
from tests.acceptance.servers import Serve

Told = list[Document]


@pytest.fixture
def webhook() -> Iterator[tuple[str, Told]]:
    """An address that takes notices, and what it was told."""
    told: Told = []

    class Taker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Taker)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/hook?key=k3y", told
    server.shutdown()
    thread.join()
    server.server_close()


def failing(hub: Hub, times: int) -> None:
    for _ in range(times):
        assert hub.run().code == 4


@pytest.mark.parametrize("end", ["ploomes", "milvus"])
def test_after_three_failed_runs_one_notice_and_one_more_when_it_runs_again(
    make_hub: MakeHub, webhook: tuple[str, Told], end: str
) -> None:
    address, told = webhook
    hub = make_hub(5, overlay={"source": {"retry": {"attempts": 1}}, "sink": {"retry": {"attempts": 1}}})
    hub.environment["WAYBILL_ALERT_WEBHOOK"] = address
    assert hub.run().code == 0
    hub.control("ploomes", "edit", count=2, seed=1)
    hub.faults(end, "down")
    failing(hub, 2)
    assert told == []
    failing(hub, 3)
    (notice,) = told
    assert (notice["alert"], notice["state"]) == ("ploomes_to_milvus.customers.failing", "raised")
    assert "3 runs failed in a row" in notice["text"]
    assert hub("status").document["alerts"]
    hub.faults(end, "")
    assert hub.run().code == 0
    assert hub.run().code == 0
    assert [each["state"] for each in told] == ["raised", "cleared"]
    assert hub("status").document["alerts"] == {}


def test_serve_tells_that_credentials_are_refused_and_that_they_are_mended(
    make_hub: MakeHub, webhook: tuple[str, Told]
) -> None:
    """What a scheduled run read is delivered after it: no failed run says it."""
    address, told = webhook
    hub = make_hub(5, overlay={"streams": {"customers": {"schedule": None}}, "sink": {"redeliver_after": "50ms"}})
    hub.environment["WAYBILL_ALERT_WEBHOOK"] = address
    hub.faults("milvus", "unauthorized=0")
    with Serve(hub) as serve:
        assert serve.post("/functions/ploomes_to_milvus/source").status_code == 200
        wait_until(lambda: told, "a notice")
        hub.faults("milvus", "")
        wait_until(lambda: len(told) == 2, "another notice")
        wait_until(lambda: hub.arrived() == 5, "all customers")
        assert serve.end() == 0, serve.said
    alert = "ploomes_to_milvus.customers.credentials"
    assert [(each["alert"], each["state"]) for each in told] == [(alert, "raised"), (alert, "cleared")]
    assert hub.arrived() == 5


def test_the_integrations_own_address_and_number_of_runs_go_first(make_hub: MakeHub, webhook: tuple[str, Told]) -> None:
    address, told = webhook
    hub = make_hub(5, overlay={"alerts": {"consecutive_failures": 1, "webhook": address}})
    hub.environment["WAYBILL_ALERT_WEBHOOK"] = "http://127.0.0.1:9/nobody"
    hub.faults("ploomes", "unauthorized=0")
    done = hub.run()
    assert done.code == 4
    assert [each["state"] for each in told] == ["raised"]
    assert "k3y" not in json.dumps(done.document) + done.notes


def test_a_notice_that_nobody_takes_fails_no_run(make_hub: MakeHub) -> None:
    hub = make_hub(5, overlay={"alerts": {"consecutive_failures": 1}})
    hub.environment["WAYBILL_ALERT_WEBHOOK"] = "http://127.0.0.1:9/nobody"
    hub.faults("milvus", "down")
    assert hub.run().code == 4
    hub.faults("milvus", "")
    assert hub.run().code == 0
