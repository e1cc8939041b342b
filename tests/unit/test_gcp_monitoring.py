"""Monitoring rows on Google Cloud: published before the write that they tell of, and removed from BigQuery."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from google.pubsub_v1 import PullRequest, SubscriberClient

from infra.environment import SystemSettings
from infra.gcp.calls import Lazy, Patience
from infra.gcp.clients import connect_subscriber
from infra.gcp.home import GoogleHome
from infra.gcp.monitoring import GoogleMonitoring
from infra.gcp.provision import provision
from infra.gcp.statements import Statements
from infra.google_auth import VARIABLE
from shared.books import FailureQuery
from shared.errors import ConfigError, Fenced, StoreUnavailable
from shared.monitoring import Monitored, MonitoringRow
from shared.ports import monitoring_topic
from tests.contract import make
from tests.contract.google import SCHEMA
from tests.contract.world import START, ManualClock
from tests.emulators import Emulators
from tests.loopback import Loopback
from tests.sandbox import bigquery
from tests.sandbox.bigquery import Table
from tests.systems.google_script import Script, served
from tests.unit.gcp_homes import Hub, lose_contact

TABLE = "tcrm_monitoring_table"
WHOLE = f"crm-1.data.{TABLE}"
ROW = MonitoringRow("shop.customers", START, 113, "gs://b/a.csv", "7", '{"name":"Zoë"}', "52998224725")
TOLD = Monitored(TABLE, [ROW])


@pytest.fixture
def hub(emulators: Emulators, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(emulators, tmp_path)
    provision(hub.project, {"shop": 1.0, "market": 1.0}, "http://127.0.0.1:9", ["shop"])
    yield hub
    hub.close()
    for name in ("shop", "market"):
        # Whoever pushes to nobody goes on for ever.
        client = connect_subscriber()
        for topic in (f"{name}-records", f"{name}-continue", f"{name}-records-dead"):
            client.delete_subscription(subscription=f"projects/{hub.project}/subscriptions/{topic}")
        client.transport.close()


@pytest.fixture
def home(hub: Hub) -> GoogleHome:
    return hub.home()


@pytest.fixture
def subscriber(hub: Hub) -> Iterator[SubscriberClient]:
    client = connect_subscriber()
    yield client
    client.transport.close()


@pytest.fixture
def published(hub: Hub, subscriber: SubscriberClient) -> Callable[[], list[bytes]]:
    """What came to the topic since the last time. What was published is there when `publish` has returned."""

    def pulled() -> list[bytes]:
        path = f"projects/{hub.project}/subscriptions/{monitoring_topic('shop')}"
        asked = PullRequest(subscription=path, max_messages=100, return_immediately=True)
        found = subscriber.transport.pull(asked, timeout=10).received_messages
        if found:
            subscriber.acknowledge(subscription=path, ack_ids=[each.ack_id for each in found])
        return [each.message.data for each in found]

    return pulled


def test_a_message_is_what_a_subscription_writes_into_the_table(
    home: GoogleHome, published: Callable[[], list[bytes]]
) -> None:
    make.commit(home.ports, make.run(), monitored=TOLD)
    (data,) = published()
    assert msgspec.json.decode(data) == {
        "dag_name": "shop.customers",
        "timestamp": "2026-03-01T12:00:00.000000Z",
        "type_id": 113,
        "location": "gs://b/a.csv",
        "position": "7",
        "info": '{"name":"Zoë"}',
    }
    table = Table(SCHEMA)
    table.write(data)
    assert b"52998224725" not in data


@pytest.mark.parametrize("changed", [{"key": "k"}, {"type_id": "1"}, {"timestamp": "today"}, {"position": 7}])
def test_a_message_of_another_form_is_not_written(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Table(SCHEMA).write(msgspec.json.encode({**ROW.columns(), **changed}))


def test_where_nothing_is_monitored_nothing_is_published(home: GoogleHome) -> None:
    batch = make.commit_batch(home.ports)
    home.ports.batches.begin(batch.id, "one")
    home.ports.batches.settle(make.settlement(batch, "one", "ddd"))
    assert "messages" not in home.meter.counts()


def test_a_crash_before_the_settlement_brings_its_rows_twice(
    home: GoogleHome, published: Callable[[], list[bytes]]
) -> None:
    batch = make.commit_batch(home.ports)
    home.ports.batches.begin(batch.id, "one")
    commit = home.store.commit
    home.store.commit = dead  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        home.ports.batches.settle(make.settlement(batch, "one", "ddi", monitored=TOLD))
    assert len(published()) == 1
    home.store.commit = commit  # type: ignore[method-assign]
    home.ports.batches.let_go(batch.id, "one")
    assert home.ports.batches.begin(batch.id, "two")[0] is not None
    home.ports.batches.settle(make.settlement(batch, "two", "ddi", monitored=TOLD))
    assert len(published()) == 1


def dead(writes: Any) -> Any:
    raise StoreUnavailable("gone")


def test_a_commit_whose_answer_was_lost_has_told_of_it(home: GoogleHome, published: Callable[[], list[bytes]]) -> None:
    lease = home.ports.leases.take(make.LEASE)
    lose_contact(home.store)
    with pytest.raises(StoreUnavailable):
        home.ports.runs.commit(lease, make.run(), monitored=TOLD)
    assert len(published()) == 1
    assert home.ports.runs.get(make.run().id) is not None


def test_what_cannot_be_published_is_not_committed(hub: Hub, home: GoogleHome, emulators: Emulators) -> None:
    lease = home.ports.leases.take(make.LEASE)
    home.patience.seconds = 0.3
    with emulators.pubsub.frozen(), pytest.raises(StoreUnavailable):
        home.ports.runs.commit(lease, make.run(5), monitored=TOLD)
    home.patience.seconds = 10
    assert home.ports.runs.get(make.run(5).id) is None


def test_what_was_sent_is_never_left_in_doubt_for_want_of_a_report(
    home: GoogleHome, emulators: Emulators, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = make.commit_batch(home.ports)
    home.ports.batches.begin(batch.id, "one")
    home.patience.seconds = 3
    with emulators.pubsub.frozen():
        home.ports.batches.settle(make.settlement(batch, "one", "ddi", monitored=TOLD))
    stored = home.ports.batches.get(batch.id)
    assert stored is not None and stored.outcomes == "ddi"
    assert '"monitoring_lost"' in capsys.readouterr().err


def test_where_the_topic_is_missing_a_human_has_to_make_it(home: GoogleHome) -> None:
    lease = home.ports.leases.take("market.customers")
    with pytest.raises(ConfigError, match="market-monitoring") as raised:
        home.ports.runs.commit(lease, make.run(integration="market"), monitored=TOLD)
    assert "Terraform" in raised.value.cure
    assert home.ports.runs.get(make.run().id) is None


def test_a_settlement_in_several_parts_tells_once(home: GoogleHome, published: Callable[[], list[bytes]]) -> None:
    batch = make.commit_batch(home.ports, "." * 9)
    home.ports.batches.begin(batch.id, "one")
    failures = [make.failure(batch, place, data={"x": "x" * 600_000}) for place in range(9)]
    home.ports.batches.settle(make.settlement(batch, "one", "i" * 9, failures=failures, monitored=TOLD))
    assert len(published()) == 1
    assert home.ports.failures.count(FailureQuery("shop")) == 9


def test_who_is_known_to_be_overtaken_tells_nothing(hub: Hub, published: Callable[[], list[bytes]]) -> None:
    here, there = hub.home(), hub.home()
    batch = make.commit_batch(here.ports)
    here.ports.batches.begin(batch.id, "one")
    hub.clock.advance(61)
    there.ports.batches.begin(batch.id, "two")
    with pytest.raises(Fenced):
        hub.home().ports.batches.settle(make.settlement(batch, "one", "ddi", monitored=TOLD))
    assert published() == []


# Clean-up.


@contextmanager
def account(
    count: int = 0, faults: str = "", token: str = ""
) -> Iterator[tuple[bigquery.BigQuery, Callable[[], GoogleMonitoring]]]:
    """So many rows of two streams, a minute apart."""
    with served(bigquery.BigQuery, faults) as (system, url, _):
        table = system.tables[WHOLE] = Table(SCHEMA)
        for number in range(count):
            at = START + timedelta(minutes=number)
            table.write(msgspec.json.encode(msgspec.structs.replace(ROW, timestamp=at).columns()))
        opened: list[Statements] = []

        def monitoring() -> GoogleMonitoring:
            settings = SystemSettings(url, {VARIABLE: token or system.token})
            opened.append(Statements("crm-1", settings, Patience(5.0), ManualClock()))
            return GoogleMonitoring("crm-1", Lazy(lambda: opened[-1]))

        try:
            yield system, monitoring
        finally:
            for each in opened:
                each.close()


def removed(monitoring: GoogleMonitoring, minutes: int, integration: str = "shop") -> int:
    return monitoring.remove(integration, "data", TABLE, START + timedelta(minutes=minutes))


def test_old_rows_of_the_integration_go() -> None:
    with account(5) as (system, monitoring):
        assert removed(monitoring(), 3, "other") == 0
        assert removed(monitoring(), 3) == 3
        assert len(system.tables[WHOLE].rows) == 2


def test_a_statement_that_takes_long_is_waited_for() -> None:
    with account(5) as (system, monitoring):
        system.busy = 3
        assert removed(monitoring(), 5) == 5


def test_a_statement_that_does_not_end_goes_on_by_itself() -> None:
    with account(5) as (system, monitoring):
        system.busy = 1000
        with pytest.raises(StoreUnavailable, match="does not end"):
            removed(monitoring(), 5)


@pytest.mark.parametrize("faults", ["drop=50%", "503=50%", "429=50%,retry_after=0"])
def test_what_does_not_answer_is_asked_again_and_counts_once(faults: str) -> None:
    with account(5, faults) as (system, monitoring):
        assert sum(removed(monitoring(), minutes) for minutes in range(6)) == 5
        assert system.tables[WHOLE].rows == []


def test_without_the_table_a_human_has_to_make_it() -> None:
    with account() as (system, monitoring):
        del system.tables[WHOLE]
        with pytest.raises(ConfigError) as raised:
            removed(monitoring(), 5)
        assert "Terraform" in raised.value.cure


def test_refused_credentials_are_a_human_s_too() -> None:
    with account(token="wrong") as (_, monitoring), pytest.raises(ConfigError) as raised:
        removed(monitoring(), 5)
    assert "credentials" in raised.value.cure and "wrong" not in str(raised.value)


def test_rows_that_were_just_streamed_stay_and_the_cure_is_said() -> None:
    with account(5) as (system, monitoring):
        system.streamed_since = START + timedelta(minutes=3)
        with pytest.raises(StoreUnavailable) as raised:
            removed(monitoring(), 5)
        assert "90 minutes" in raised.value.cure
        assert removed(monitoring(), 3) == 3


@pytest.mark.parametrize("table", ["t` WHERE true; --", "t x", "t\n"])
def test_no_name_becomes_part_of_a_statement_unchecked(table: str) -> None:
    with account(5) as (system, monitoring):
        with pytest.raises(ConfigError):
            monitoring().remove("shop", "data", table, START + timedelta(days=1))
        assert not sum(system.requests.values())


def test_an_answer_that_is_none_is_no_success() -> None:
    script = Script([1, 2])
    with scripted(script) as monitoring, pytest.raises(StoreUnavailable):
        removed(monitoring, 5)


@contextmanager
def scripted(script: Script) -> Iterator[GoogleMonitoring]:
    with Loopback(script) as server:
        statements = Statements("crm-1", SystemSettings(server.url, {VARIABLE: "t"}), Patience(0.1), ManualClock())
        yield GoogleMonitoring("crm-1", Lazy(lambda: statements))
        statements.close()


def test_beside_an_emulator_there_is_no_table() -> None:
    assert removed(GoogleMonitoring("crm-1", None), 5) == 0
