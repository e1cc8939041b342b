"""The home as a whole: nothing happens before it is used, and what a thousand records cost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from infra.gcp.clients import connect_publisher
from infra.gcp.home import GoogleHome
from shared.books import FailureQuery, Window
from shared.deliver import Health, Settled, deliver
from shared.ends import Change, Page, Row
from shared.errors import MALFORMED
from shared.fetch import Order, fetch
from shared.outcome import Absent, Answer, Probe, delivered
from shared.ports import topic_of
from shared.record import Envelope, version_at
from shared.rules import Rules
from shared.stream import Stream
from tests.contract.world import START
from tests.emulators import Emulators
from tests.unit.gcp_homes import Hub

RECORDS: Final = 4000
BUDGET: Final = {"reads": 1020, "writes": 1050, "messages": 3, "blob_operations": 4}
"""Per 1,000 records in full batches (design, section 11)."""


def test_importing_and_making_a_home_touches_nothing_of_googles() -> None:
    code = (
        "import sys; from infra.gcp.home import GoogleHome; GoogleHome('nobody-s').close(); "
        "print([name for name in sys.modules if name.startswith(('google.api', 'google.cloud.', 'grpc', 'requests'))])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_sink_imports_neither_pubsub_nor_storage(emulators: Emulators) -> None:
    code = (
        "import sys; from infra.gcp.home import GoogleHome; home = GoogleHome('nobody-s'); "
        "assert home.ports.batches.begin('b', 'a') == (None, ''); home.close(); "
        "print([name for name in sys.modules if name in ('google.pubsub_v1', 'google.cloud.storage', "
        "'google.cloud.scheduler_v1')])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


class Shelf:
    """A source of so many objects, in pages of 500."""

    system = "shelf"
    location = "https://shelf.example"

    def now(self) -> Any:
        return START + timedelta(days=1)

    def pages(self, window: Window, after: str) -> Iterator[Page]:
        for start in range(int(after or 0), RECORDS, 500):
            rows = [
                Row(str(n), version_at(START + timedelta(seconds=n), n), f"row {n}", {"id": n, "name": f"Nome {n}"})
                for n in range(start, start + 500)
            ]
            yield Page(rows, str(start + 500), RECORDS)

    def total(self, window: Window) -> int | None:
        return RECORDS

    def close(self) -> None:
        return


class Scribbled(Shelf):
    """As many rows, of which none can be read."""

    def pages(self, window: Window, after: str) -> Iterator[Page]:
        for page in super().pages(window, after):
            rows = [msgspec.structs.replace(row, problem=(MALFORMED, "it has one cell too few")) for row in page.rows]
            yield Page(rows, page.after, page.total)


class Target:
    """A sink that takes everything."""

    system = "target"
    bulk = 100

    def __init__(self) -> None:
        self.taken: list[str] = []

    def repeatable(self, change: Change) -> bool:
        return False

    def find(self, changes: Sequence[Change]) -> Sequence[Probe]:
        return [Absent() for _ in changes]

    def write(self, changes: Sequence[Change]) -> Sequence[Answer | None]:
        self.taken += [change.key for change in changes]
        return [delivered(f"id {change.key}") for change in changes]

    def close(self) -> None:
        return


RULES = Rules("shelf", "target", lambda data: f"K{data['id']}", lambda data: {"name": data["name"]})
STREAM = Stream("shop", "customers", RULES, "shelf", lanes=2, batch_size=500, since=START)


@pytest.fixture
def hub(emulators: Emulators, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(emulators, tmp_path)
    publisher = connect_publisher()
    publisher.create_topic(name=f"projects/{hub.project}/topics/{topic_of('shop')}")
    publisher.transport.close()
    yield hub
    hub.close()


def silent(action: str, **fields: Any) -> None:
    return


def deliver_all(home: GoogleHome, run: str, target: Target) -> int:
    """Brings each batch of a run as a push would; gives how many there were."""
    batches = [batch for batch in home.ports.batches.of_run(run) if batch.state != "settled"]
    for batch in batches:
        envelope = Envelope.from_bytes(home.ports.blobs.read(batch.blob, batch.offset, batch.length))
        assert isinstance(deliver(envelope, STREAM, target, home.ports, Health(), silent), Settled)
    return len(batches)


def test_a_thousand_records_cost_no_more_than_the_budget(hub: Hub) -> None:
    source, sink, target = hub.home(), hub.home(), Target()
    (run,) = fetch(STREAM, Shelf, source.ports, Order(), silent)
    assert run.fetched == RECORDS
    spent = source.meter.counts()
    delivered = deliver_all(sink, run.id, target)
    of_sink = sink.meter.counts()
    # What stands in for the pushes is not the sink's.
    of_sink["reads"] -= delivered
    of_sink["blob_operations"] -= delivered
    counts = sink.ports.books.counts(run.id)
    assert (counts.delivered, len(set(target.taken)), counts.balanced) == (RECORDS, RECORDS, True)
    total = {name: spent.get(name, 0) + of_sink.get(name, 0) for name in BUDGET}
    per_thousand = {name: count * 1000 / RECORDS for name, count in total.items()}
    assert {name: most for name, most in BUDGET.items() if per_thousand[name] > most} == {}, per_thousand
    assert spent["deletes"] == of_sink["deletes"] == 0
    assert delivered <= 3 * RECORDS / 1000


def test_what_was_read_twice_is_sent_once(hub: Hub) -> None:
    home, target = hub.home(), Target()
    for _ in range(2):
        (run,) = fetch(STREAM, Shelf, home.ports, Order(full=True), silent)
        deliver_all(home, run.id, target)
    assert len(target.taken) == RECORDS
    assert home.ports.books.counts(run.id).unchanged == RECORDS
    assert home.ports.books.fetched("shop", "customers") == 2 * RECORDS


def test_a_source_of_which_no_row_can_be_read_is_read_to_its_end(hub: Hub) -> None:
    home = hub.home()
    (run,) = fetch(STREAM, Scribbled, home.ports, Order(), silent)
    assert (run.state, run.fetched, run.fetch_done) == ("running", RECORDS, True)
    counts = home.ports.books.counts(run.id)
    assert (counts.invalid, counts.balanced) == (RECORDS, True)
    assert home.ports.failures.count(FailureQuery("shop")) == RECORDS
    assert list(hub.blobs.names("failures/")) == []
