"""Rows of files to ad platforms, driven from outside: each once, the refused ones by replay, whatever crashes."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.hub import Document, Done, Hub, counts, merged, wait_until

NAME = "tagless_crm"
ACCOUNT = {"account_type": "GOOGLE_ADS", "account_id": "1234567890"}
DATA_MANAGER = {"destinations": [{"operating_account": ACCOUNT, "product_destination_id": "77"}]}

MakeHub = Callable[..., Hub]


def ago(**span: float) -> str:
    return (datetime.now(UTC) - timedelta(**span)).isoformat(timespec="seconds")


def write(path: Path, columns: str, lines: Iterable[str]) -> Path:
    path.write_text(columns + "\n" + "".join(f"{line}\n" for line in lines))
    return path


def conversions(path: Path, count: int) -> Path:
    at = ago(hours=1)
    columns = "transaction_id,event_timestamp,ad_identifiers.gclid,email_address,conversion_value,currency"
    return write(path, columns, (f"T-{n},{at},g{n},person{n}@example.com,{n % 90}.5,BRL" for n in range(count)))


class Tables:
    """Tagless CRM on one home beside one sandbox: `streams` as an overlay has them."""

    def __init__(self, hub: Hub, streams: Document, **integration: Any) -> None:
        self.hub = hub
        quick = {"rate_limit": "none", "redeliver_after": "100ms", "retry": {"attempts": 3, "wait": "50ms"}}
        overlay = {
            NAME: merged(
                # Whatever the machine is busy with, the next run reads the file again.
                {
                    "sink": quick,
                    "streams": {name: {"enabled": True, "schedule": None, "overlap": "1h"} for name in streams},
                },
                {"streams": streams, **integration},
            )
        }
        Path(hub.environment["WAYBILL_OVERLAY"]).write_text(json.dumps(overlay))

    def run(self, *options: str, code: int = 0) -> Done:
        done = self.hub("run", NAME, *options)
        assert done.code == code, done
        return done

    def stream(self, name: str, *options: str, code: int = 0) -> dict[str, int]:
        """What became of the records that a run of one stream fetched."""
        document = self.run("--stream", name, *options, code=code).document
        return counts(document["streams"][name])

    def audited(self, name: str) -> dict[str, int]:
        done = self.hub("audit", NAME)
        assert (done.code, done.document["balanced"], done.document["unaccounted"]) == (0, True, []), done
        return counts(done.document["streams"][name])

    def failures(self, *options: str) -> list[Document]:
        found: list[Document] = self.hub("failures", NAME, *options).document["failures"]
        return found

    def replay(self, *options: str) -> Document:
        done = self.hub("replay", NAME, "--reason", "mended at the target", "--yes", *options)
        assert done.code == 0, done
        return done.document

    def rows(self, query: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(f"file:{self.hub.home / 'state.db'}?mode=ro", uri=True)) as database:
            return database.execute(query, values).fetchall()

    def monitored(self, type_id: int) -> list[Any]:
        return self.rows(
            "SELECT dag_name, location, position, info FROM tcrm_monitoring_table WHERE type_id = ?", type_id
        )


@pytest.fixture
def make(make_hub: MakeHub) -> Callable[..., Tables]:
    def made(streams: Document, *, customers: int = 0, sandbox: Document | None = None, **integration: Any) -> Tables:
        return Tables(make_hub(customers, **(sandbox or {})), streams, **integration)

    return made


def test_120_500_rows_are_sent_once_and_the_300_that_were_refused_by_replay(
    make: Callable[..., Tables], tmp_path: Path
) -> None:
    """More pages than TaglessCRM could count, twice; then mended, replayed, cleaned up, and read again."""
    count, refused = 120_500, [f"T-{n}" for n in range(7, 120_500, 401)][:300]
    path = conversions(tmp_path / "conversions.csv", count)
    stream = {
        "destination": "data_manager_events", "from": {"system": "files", "path": str(path)},
        "key": ["transaction_id"], "settings": DATA_MANAGER,
    }  # fmt: skip
    tables = make({"sales": stream}, sandbox={"data_manager_per_minute": None}, monitoring={"enabled": True})
    target = tables.hub.sandbox.data_manager
    tables.hub.control("data_manager", "refuse", values=refused, code="INVALID_CONVERSION_VALUE")

    assert tables.stream("sales", code=3) == {"fetched": count, "delivered": count - 300, "rejected": 300}
    assert len(target.events) == count - 300
    received = target.received
    assert tables.stream("sales") == {"fetched": count, "unchanged": count - 300, "duplicate": 300}
    assert (len(target.events), target.received) == (count - 300, received)
    assert {failure["key"] for failure in tables.failures()} == set(refused)

    tables.hub.control("data_manager", "mend")
    replayed = tables.replay("--outcome", "rejected")
    assert (replayed["planned"], replayed["delivered"]) == (300, 300)
    assert target.received == received + 300
    assert {event["transactionId"] for event in target.events} == {f"T-{n}" for n in range(count)}
    assert tables.hub.stats("data_manager")["repeated"] == {}
    assert tables.audited("sales") == {"fetched": count, "delivered": count}

    sent, failed, retried = tables.monitored(-2), tables.monitored(50), tables.monitored(-4)
    assert sum(int(info) for *_, info in sent) == count
    assert {json.loads(info)["transaction_id"] for *_, info in failed} == set(refused)
    assert {position for _, _, position, _ in failed} == {str(int(key[2:]) + 2) for key in refused}
    assert retried == [(f"{NAME}.sales", str(path), "", "")]

    cleaned = tables.hub("cleanup", NAME, "--older-than", "0s")
    assert cleaned.code == 0
    assert tables.rows("SELECT count(*) FROM tcrm_monitoring_table") == [(0,)]
    assert tables.stream("sales") == {"fetched": count, "unchanged": count}
    assert target.received == received + 300


def test_killed_again_and_again_every_row_has_one_outcome_and_counts_once(
    make: Callable[..., Tables], tmp_path: Path
) -> None:
    """Floodlight and Ads know a repeat by its transaction id: what was in doubt goes again and counts once."""
    count = 12_000
    path = conversions(tmp_path / "conversions.csv", count)
    stream = {
        "destination": "data_manager_events", "from": {"system": "files", "path": str(path)},
        "key": ["transaction_id"], "settings": DATA_MANAGER,
    }  # fmt: skip
    tables = make(
        {"sales": stream},
        sandbox={"data_manager_per_minute": None, "faults": "data_manager.drop=5%,data_manager.503=5%"},
        sink={"batch_size": 200},
        monitoring={"enabled": True},
    )
    for _ in range(6):
        process = tables.hub.start("run", NAME, "--stream", "sales")
        enough = tables.hub.asked("data_manager") + 8
        wait_until(lambda: tables.hub.asked("data_manager") >= enough or process.poll() is not None, "some requests")  # noqa: B023
        process.send_signal(signal.SIGKILL)
        process.communicate()
    tables.stream("sales")
    assert tables.audited("sales")["delivered"] == count
    events = tables.hub.sandbox.data_manager.events
    assert {event["transactionId"] for event in events} == {f"T-{n}" for n in range(count)}
    assert sum(int(info) for *_, info in tables.monitored(-2)) == count
    received = tables.hub.sandbox.data_manager.received
    assert tables.stream("sales").get("delivered", 0) == 0
    assert tables.hub.sandbox.data_manager.received == received


def test_every_destination_takes_its_rows_from_one_run(make: Callable[..., Tables], tmp_path: Path) -> None:
    at, micros = ago(hours=30), ago(hours=3)
    files = {
        "ga4": write(
            tmp_path / "ga4.csv",
            "name,client_id,timestamp_micros,params.transaction_id,params.value,params.currency",
            (f"purchase,{n % 5}.1700000000,{micros},T{n},{n}.25,BRL" for n in range(60)),
        ),
        "data_manager_events": conversions(tmp_path / "events.csv", 60),
        "data_manager_audience": write(
            tmp_path / "members.csv", "customer,email_address,phone_number",
            (f"C{n},Some.One{n}@Example.com,+55 11 98765-{n:04}" for n in range(60)),
        ),
        "google_ads_conversions": write(
            tmp_path / "clicks.csv", "order_id,gclid,conversion_date_time,conversion_value,currency_code",
            (f"O{n},click{n},{at},{n}.5,BRL" for n in range(60)),
        ),
        "customer_match": write(
            tmp_path / "match.csv", "customer,hashed_email", (f"C{n},someone{n}@example.com" for n in range(60))
        ),
        "cm360": write(
            tmp_path / "floodlight.csv", "order,gclid,timestamp_micros,value",
            (f"O{n},click{n},{at},{n}.5" for n in range(60)),
        ),
    }  # fmt: skip
    settings: dict[str, Document] = {
        "data_manager_events": DATA_MANAGER,
        "data_manager_audience": DATA_MANAGER,
        "google_ads_conversions": {"conversion_action": "55"},
        "customer_match": {"user_list": "66"},
        "cm360": {"floodlight_configuration_id": "88", "floodlight_activity_id": "99"},
    }
    keys = {"ga4": "params.transaction_id", "data_manager_events": "transaction_id",
            "google_ads_conversions": "order_id", "cm360": "order"}  # fmt: skip
    streams = {
        name: {"from": {"system": "files", "path": str(path)}, "key": [keys.get(name, "customer")],
               "settings": settings.get(name, {})}
        for name, path in files.items()
    }  # fmt: skip
    tables = make(streams, sandbox={"cm360_per_minute": None})
    for _, expected in ((1, {"fetched": 60, "delivered": 60}), (2, {"fetched": 60, "unchanged": 60})):
        done = tables.run()
        assert {name: counts(each) for name, each in done.document["streams"].items()} == dict.fromkeys(files, expected)
    for system in ("ga4", "data_manager", "google_ads", "cm360"):
        assert tables.hub.stats(system)["repeated"] == {}
    held = json.dumps([tables.hub.sandbox.data_manager.events, tables.hub.rows("data_manager"), tables.hub.rows("ga4")])
    assert "person7@" not in held and "someone7@" not in held.lower()


def test_who_leaves_an_audience_and_comes_back_is_added_again_and_can_leave_again(
    make: Callable[..., Tables], tmp_path: Path
) -> None:
    """Two streams to one audience, each with what its own file says; neither repeats what nothing has undone."""
    both = {"destination": "data_manager_audience", "key": ["customer"], "settings": DATA_MANAGER}
    streams = {
        "members": both | {"from": {"system": "files", "path": str(tmp_path / "members.csv")}},
        "leavers": both | {"from": {"system": "files", "path": str(tmp_path / "leavers.csv")}, "operation": "remove"},
    }
    tables = make(streams)

    def say(name: str) -> dict[str, int]:
        write(tmp_path / f"{name}.csv", "customer,email_address", ["C1,ana@example.com", "C2,bia@example.com"])
        return tables.stream(name)

    sent, kept = {"fetched": 2, "delivered": 2}, {"fetched": 2, "unchanged": 2}
    assert (say("members"), say("members")) == (sent, kept)
    assert (say("leavers"), say("leavers")) == (sent, kept)
    assert tables.stream("members") == kept, "said before they left"
    assert (say("members"), say("members")) == (sent, kept)
    assert tables.stream("leavers") == kept, "said before they came back"
    assert (say("leavers"), say("leavers")) == (sent, kept)


def test_one_record_that_keeps_failing_is_given_up_and_holds_nobody_up(
    make: Callable[..., Tables], tmp_path: Path
) -> None:
    """A target that cannot be asked for a record answers all the same, for this one."""
    at = ago(hours=30)
    lines = (f"O{n},click{n},{at},1.5" for n in range(40))
    path = write(tmp_path / "floodlight.csv", "order,gclid,timestamp_micros,value", lines)
    stream = {
        "destination": "cm360", "from": {"system": "files", "path": str(path)}, "key": ["order"],
        "settings": {"floodlight_configuration_id": "88", "floodlight_activity_id": "99"},
    }  # fmt: skip
    tables = make({"clicks": stream}, sandbox={"cm360_per_minute": None}, sink={"max_attempts": 4})
    tables.hub.control("cm360", "refuse", values=["click7"], code="INTERNAL")
    assert tables.stream("clicks", code=3) == {"fetched": 40, "delivered": 39, "exhausted": 1}
    (failure,) = tables.failures()
    assert (failure["key"], failure["attempts"]) == ("O7", 4)
    tables.hub.control("cm360", "mend")
    assert tables.replay()["delivered"] == 1
    assert tables.audited("clicks") == {"fetched": 40, "delivered": 40}
