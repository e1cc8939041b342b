"""From files to targets that confirm later, and what is known of it: in status, after a sweep, after a replay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra import queries, render, replaying
from infra.clock import SystemClock
from infra.log import silent
from infra.operations import Operations
from infra.runner import run_streams
from infra.wiring import Hub
from shared.books import FailureQuery
from shared.errors import FAILED_LATER, REFUSED_LATER
from shared.fetch import Order
from tests.sandbox.data_manager import DataManager
from tests.sandbox.google_ads import GoogleAds
from tests.sandbox.google_system import GoogleSystem
from tests.sandbox.server import Server
from tests.sandbox.system import Setup
from tests.systems.google_script import Row, break_it, hashed

ROWS = 25
DESTINATION = {
    "operating_account": {"account_type": "GOOGLE_ADS", "account_id": "1234567890"},
    "product_destination_id": "77",
}
MAPPING = """\
from typing import Any

from shared.rules import Rules
from shared.tabular import identify

OPTIONS = {{"rows": {{"path": str, "key": list[str], "settings": dict[str, Any]}}}}


def to_target(row: dict[str, Any]) -> dict[str, Any]:
    return {content}


STREAMS = {{"rows": Rules("rows", "{write}", identify, to_target, polled=True)}}
"""
INTEGRATION = """\
name: ads
source: {{system: files, rate_limit: none}}
sink: {{system: {system}, rate_limit: none, batch_size: 10, lanes: 1, redeliver_after: 10ms}}
streams: {{rows: {{hold_back: 0s, path: {path}, key: [id], settings: {settings}}}}}
monitoring: {{enabled: true}}
"""
EVENT = """{
        "transaction_id": f"order-{row['id']}",
        "event_timestamp": row["at"],
        "ad_identifiers": {"gclid": f"gclid{row['id']}"},
    }"""
MEMBER = '{"user_data": {"user_identifiers": [{"email_address": row["mail"]}]}}'
USER = '{"user_identifiers": [{"hashed_email": row["mail"]}]}'


class Ahead(SystemClock):
    """The real clock, set forward."""

    def __init__(self) -> None:
        super().__init__()
        self.by = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.by


class Story:
    """One integration that writes to one fake, whose clock goes along."""

    def __init__(self, folder: Path, system: GoogleSystem, url: str, clock: Ahead, stream: tuple[str, ...]) -> None:
        name, write, content, settings = stream
        self.system, self.clock = system, clock
        functions = folder / "functions" / "ads"
        functions.mkdir(parents=True)
        source = folder / "rows.csv"
        at = clock.now().isoformat(timespec="seconds")
        lines = [f"{number},{at},{hashed(str(number))}" for number in range(ROWS)]
        source.write_text("id,at,mail\n" + "\n".join(lines) + "\n")
        (functions / "mapping.py").write_text(MAPPING.format(content=content, write=write))
        (functions / "integration.yaml").write_text(INTEGRATION.format(system=name, path=source, settings=settings))
        self.hub = Hub({**system.environment(url), "WAYBILL_HOME": str(folder / "home")}, folder / "functions", clock)
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.operations = Operations(self.hub, lambda action, **fields: self.said.append((action, fields)))

    def run(self) -> dict[str, Any]:
        streams = self.hub.streams(self.hub.integration("ads"))
        (result,) = run_streams(self.hub, "ads", streams, Order(full=True), silent)
        return result.report(self.hub)

    def sweep(self, later: float = 0.0) -> dict[str, Any]:
        self.clock.by += timedelta(seconds=later)
        reply = self.operations.carry_out("sweep", b"")
        assert reply.status == 200, reply
        swept: dict[str, Any] = reply.body["integrations"]["ads"]
        return swept

    def status(self) -> dict[str, Any]:
        return queries.status(self.hub, "ads")

    @property
    def confirmation(self) -> dict[str, Any]:
        found: dict[str, Any] = self.status()["integrations"][0]["streams"][0]["confirmation"]
        return found

    def audited(self) -> dict[str, int]:
        found = queries.audit(self.hub, "ads", deep=False)
        assert found["balanced"] and not found["unaccounted"], found
        (stream,) = found["streams"].values()
        names = ("delivered", "rejected", "exhausted", "unchanged", "duplicate")
        return {name: stream[name] for name in names if stream[name]}

    @property
    def told(self) -> dict[int, int]:
        """The monitoring table: how many were sent, and the rows of each other kind."""
        with self.hub.embedded.state.reading() as connection:
            rows = connection.execute(
                "SELECT type_id, sum(CASE type_id WHEN -2 THEN CAST(info AS INT) ELSE 1 END), min(location <> '') "
                "FROM tcrm_monitoring_table GROUP BY 1"
            ).fetchall()
        assert all(somewhere for _, _, somewhere in rows)
        return {type_id: count for type_id, count, _ in rows}

    def replay(self) -> dict[str, Any]:
        query = FailureQuery("ads")
        return replaying.carry_out(self.hub, query, "mended", replaying.plan(self.hub, query))


Tell = Callable[..., Story]
EVENTS = ("data_manager", "events", EVENT, f"{{destinations: [{DESTINATION}]}}")
AUDIENCE = ("data_manager", "audience", MEMBER, f"{{destinations: [{DESTINATION}]}}")
MATCH = ("google_ads", "customer_match", USER, "{user_list: 7}")


@pytest.fixture
def tell(tmp_path: Path) -> Iterator[Tell]:
    servers: list[Server] = []
    stories: list[Story] = []

    def one(stream: tuple[str, ...]) -> Story:
        clock = Ahead()
        kind = DataManager if stream[0] == "data_manager" else GoogleAds
        system = kind(Setup(clock=lambda: clock.now().timestamp(), sleep=lambda seconds: None))
        server = Server(system)
        server.__enter__()
        servers.append(server)
        stories.append(Story(tmp_path, system, server.url, clock, stream))
        return stories[-1]

    yield one
    for story in stories:
        story.hub.close()
    for server in servers:
        server.__exit__(None, None, None)


@pytest.mark.parametrize(("stream", "later"), [(EVENTS, 1_800), (AUDIENCE, 1_800), (MATCH, 8 * 3_600)])
def test_a_run_does_not_wait_and_the_sweeper_hears_of_the_end(
    tell: Tell, stream: tuple[str, ...], later: float, capsys: pytest.CaptureFixture[str]
) -> None:
    story = tell(stream)
    run = story.run()
    assert (run["state"], run["delivered"]) == ("settled", ROWS)
    assert story.confirmation == {"pending_requests": 3, "pending_records": ROWS, "refused": {}}
    render.status(story.status())
    assert "rows: 25 pending confirmation" in capsys.readouterr().out
    assert story.sweep()["confirmed"] == 0
    assert story.sweep(later)["confirmed"] == 3
    assert story.confirmation == {"pending_requests": 0, "pending_records": 0, "refused": {}}
    render.status(story.status())
    assert "confirmation" not in capsys.readouterr().out
    assert story.said == []


def test_a_job_that_takes_its_time_is_asked_for_again(tell: Tell) -> None:
    story = tell(MATCH)
    story.run()
    confirmed = [story.sweep(1_800)["confirmed"] for _ in range(20)]
    assert sum(confirmed) == 3
    assert story.system.requests["POST /v26/customers/1234567890/googleAds:search"] == 5 * 3


def test_what_was_refused_later_is_told_by_reason_and_who_it_was_nobody_knows(
    tell: Tell, capsys: pytest.CaptureFixture[str]
) -> None:
    story = tell(EVENTS)
    assert isinstance(story.system, DataManager)
    reasons = {"order-3": "DENIED_CONSENT", "order-14": "INVALID_GCLID", "order-15": "DENIED_CONSENT"}
    story.system.later = lambda record: reasons.get(record["transactionId"], "")
    story.run()
    swept = story.sweep(1_800)
    assert (swept["confirmed"], swept["refused"], swept["alerts"]) == (1, 3, 1)
    assert story.confirmation["refused"] == {"DENIED_CONSENT": 2, "INVALID_GCLID": 1}
    alerts = {"ads.rows.refused_later": "accepted, and then: DENIED_CONSENT 2, INVALID_GCLID 1"}
    assert story.status()["alerts"] == alerts
    render.status(story.status())
    assert "rows: accepted, and then: DENIED_CONSENT 2, INVALID_GCLID 1" in capsys.readouterr().out
    assert story.audited() == {"delivered": ROWS}
    assert queries.cleanup(story.hub, "ads", timedelta())["integrations"]["ads"]["confirmations"] == 3
    assert story.confirmation["refused"] == {}


def fail_events(system: GoogleSystem, reason: str) -> None:
    assert isinstance(system, DataManager)
    system.later = lambda record: reason


def fail_jobs(system: GoogleSystem, reason: str) -> None:
    assert isinstance(system, GoogleAds)
    system.failure_of_jobs = reason


@pytest.mark.parametrize(
    ("stream", "fail", "reason", "outcome", "number"),
    [
        (EVENTS, fail_events, "DENIED_CONSENT", "rejected", REFUSED_LATER),
        (EVENTS, fail_events, "INTERNAL_ERROR", "exhausted", FAILED_LATER),
        (AUDIENCE, fail_events, "NO_CONSENT", "rejected", REFUSED_LATER),
        (MATCH, fail_jobs, "NEWLY_OBSERVED_CURRENCY_CODE", "rejected", REFUSED_LATER),
        (MATCH, fail_jobs, "UNKNOWN", "exhausted", FAILED_LATER),
    ],
)
def test_requests_that_failed_become_failures_and_a_replay_brings_them_there(
    tell: Tell,
    stream: tuple[str, ...],
    fail: Callable[[GoogleSystem, str], None],
    reason: str,
    outcome: str,
    number: int,
) -> None:
    story = tell(stream)
    fail(story.system, reason)
    story.run()
    assert story.sweep(8 * 3_600)["refused"] == ROWS
    assert story.confirmation == {
        "pending_requests": 0, "pending_records": 0, "refused": {reason: ROWS},
    }  # fmt: skip
    failures = queries.failures(story.hub, FailureQuery("ads"), reveal=False)["failures"]
    assert {(each["outcome"], each["number"]) for each in failures} == {(outcome, number)}
    assert len({each["key"] for each in failures}) == len(failures) == ROWS
    assert story.audited() == {outcome: ROWS}
    assert story.run()["duplicate"] == ROWS
    assert story.told == {-2: ROWS, number: ROWS}

    fail(story.system, "")
    replayed = story.replay()

    assert story.told == {-2: 2 * ROWS, number: ROWS, -4: 1}
    assert (replayed["state"], replayed["delivered"]) == ("settled", ROWS)
    assert story.confirmation["pending_records"] == ROWS
    assert story.sweep(8 * 3_600)["confirmed"] == 3
    assert queries.failures(story.hub, FailureQuery("ads"), reveal=False)["failures"] == []
    assert there(story.system) == ROWS
    assert story.run()["delivered"] == 0


def there(system: GoogleSystem) -> int:
    """How many records the target holds."""
    stats: Row = system.stats()
    return int(stats.get("events") or 0) + sum(stats["members"].values())


def test_a_target_that_is_down_keeps_it_pending_and_the_sweep_goes_on(tell: Tell) -> None:
    story = tell(EVENTS)
    story.run()
    break_it(story.system, "down")
    assert story.sweep(1_800)["confirmed"] == 0
    assert story.said == [
        ("confirmation_failed", {"integration": "ads", "stream": "rows", "error": "TransientError"}),
    ]
    assert story.confirmation["pending_records"] == ROWS
    break_it(story.system, "")
    assert story.sweep()["confirmed"] == 2
    assert story.sweep(1_800)["confirmed"] == 1


def test_credentials_that_are_missing_keep_no_other_from_being_swept(tell: Tell) -> None:
    story = tell(MATCH)
    story.run()
    environ = {name: value for name, value in story.hub.environ.items() if name != "GOOGLE_ADS_DEVELOPER_TOKEN"}
    poor = Hub(environ, story.hub.functions, story.clock)
    said: list[str] = []
    story.clock.by += timedelta(hours=8)
    try:
        swept = Operations(poor, lambda action, **fields: said.append(action)).carry_out("sweep", b"")
    finally:
        poor.close()
    assert (swept.status, said) == (200, ["confirmation_failed"])
    assert story.sweep()["confirmed"] == 3
