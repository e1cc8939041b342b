"""The embedded monitoring table, as people read it: in balance whenever a run was killed, replayed, cleaned."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from time import sleep
from typing import Any

import pytest

from tests.acceptance.conftest import MakeHub
from tests.acceptance.hub import NAME, ROOT, Hub, merged
from tests.acceptance.servers import Serve

TABLE = "tcrm_monitoring_table"
ON = {"monitoring": {"enabled": True}}
SMALL = {"source": {"page_size": 50}, "sink": {"batch_size": 10, "lanes": 4}}
KILLS = 10
FAILED = ("invalid", "rejected", "exhausted", "unknown")
COLUMNS = ["dag_name", "timestamp", "type_id", "location", "position", "info"]


def rows(hub: Hub, table: str = TABLE) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(hub.home / "state.db")) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]


def tables(hub: Hub) -> set[str]:
    with closing(sqlite3.connect(hub.home / "state.db")) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def assert_balanced(hub: Hub) -> None:
    """The sums are what all runs together delivered, and each record that one of them failed has its row."""
    runs = hub("runs", NAME, "--most", "1000").document["runs"]
    found = rows(hub)
    sent = sum(int(row["info"]) for row in found if row["type_id"] == -2)
    assert sent == sum(run["delivered"] for run in runs)
    assert sum(row["type_id"] > 0 for row in found) == sum(run[name] for run in runs for name in FAILED)
    assert sum(row["type_id"] == -4 for row in found) == sum(run["kind"] == "replay" for run in runs)


def moment(hub: Hub, chance: random.Random) -> Callable[[], bool]:
    """A moment in a run that begins now: after some calls of the target, or as soon as one more batch is settled."""
    if chance.random() < 0.3:
        calls = hub.asked("milvus") + chance.randrange(1, 200)
        return lambda: hub.asked("milvus") >= calls
    batches = settled(hub) + chance.randrange(1, 12)
    return lambda: settled(hub) >= batches


def settled(hub: Hub) -> int:
    """Without asking the hub, which would take too long."""
    if not (hub.home / "state.db").exists():
        return 0
    with closing(sqlite3.connect(hub.home / "state.db")) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'batches'").fetchone():
            return 0
        found: int = connection.execute("SELECT count(*) FROM batches WHERE state = 'settled'").fetchone()[0]
        return found


def test_without_being_asked_for_there_is_no_table(make_hub: MakeHub) -> None:
    hub = make_hub(20, invalid=2)
    assert hub.run().code == 3
    assert TABLE not in tables(hub)
    assert rows(hub, "monitored") == []


def test_runs_killed_at_any_moment_leave_the_table_in_balance(make_hub: MakeHub) -> None:
    chance = random.Random(31)
    hub = make_hub(600, overlay=merged(SMALL, ON), invalid=9, faults="reject=7,drop=2%,429=1%,retry_after=0")
    kills = 0
    for _ in range(40):
        if kills == KILLS:
            break
        now = moment(hub, chance)
        run = hub.start("run", NAME)
        while run.poll() is None and not now():
            sleep(0.0002)
        run.kill()
        done = hub.finish(run)
        kills += done.code == -signal.SIGKILL
        if done.code != -signal.SIGKILL:
            hub.control("ploomes", "edit", count=100, seed=kills)
    assert kills == KILLS

    assert hub.run().code == 3

    assert_balanced(hub)
    failures = hub.failures("--reveal")
    told = Counter((row["type_id"], row["position"]) for row in rows(hub) if row["type_id"] > 0)
    assert all(told[failure["number"], failure["position"]] for failure in failures)
    assert {row["location"] for row in rows(hub)} == {failure["location"] for failure in failures}
    hub.faults("milvus", "")
    assert hub.replay("--outcome", "rejected").code == 0
    assert_balanced(hub)


def test_the_table_is_called_as_it_is_configured(make_hub: MakeHub) -> None:
    hub = make_hub(5, overlay={"monitoring": {"enabled": True, "table": "Sent_rows"}})
    assert hub.run().code == 0
    assert "Sent_rows" in tables(hub) and TABLE not in tables(hub)
    (row,) = {tuple(row) for row in rows(hub, "Sent_rows")}
    assert list(row) == COLUMNS
    assert sum(int(row["info"]) for row in rows(hub, "Sent_rows")) == 5


@pytest.mark.parametrize("table", ["cells", "Leases", "SQLITE_sequence"])
def test_a_table_of_the_hub_s_own_is_refused(make_hub: MakeHub, table: str) -> None:
    hub = make_hub(5, overlay={"monitoring": {"enabled": True, "table": table}})
    done = hub("check", NAME)
    assert done.code == 2
    (mistake,) = done.document["mistakes"]
    assert (mistake["path"], mistake["cure"]) == (f"{NAME}.monitoring.table", "write for example tcrm_monitoring_table")
    assert hub.run().code == 2


def test_clean_up_by_either_name_removes_old_rows_and_nothing_goes_again(make_hub: MakeHub) -> None:
    hub = make_hub(30, overlay=ON, faults="milvus.reject=3")
    assert hub.run().code == 3
    failures = hub.failures()
    before = rows(hub)

    young = hub("tcrm_monitoring_cleanup", NAME, "--older-than", "1h")
    assert (young.code, young.document["integrations"][NAME]["monitoring"], rows(hub)) == (0, 0, before)
    text = subprocess.run(
        [ROOT / "waybill", "tcrm_monitoring_cleanup", "--all", "--older-than", "0s"],
        env=hub.environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert f"{len(before)} monitoring rows" in text
    assert (rows(hub), hub.failures()) == ([], failures)
    created = hub.stats("milvus")["creates"]
    assert hub.run("--full").code == 0
    assert (hub.stats("milvus")["creates"], rows(hub)) == (created, [])
    hub.faults("milvus", "")
    assert hub.replay().code == 0
    retried, *sent = rows(hub)
    assert (retried["type_id"], {row["type_id"] for row in sent}) == (-4, {-2})
    assert sum(int(row["info"]) for row in sent) == len(failures)
    assert hub("tcrm_monitoring_cleanup").code == 2


def test_the_operation_has_the_name_that_taglesscrm_gives_it(make_hub: MakeHub) -> None:
    hub = make_hub(20, overlay=ON)
    assert hub.run().code == 0
    assert rows(hub)
    with Serve(hub) as serve:
        done = serve.post("/functions/operations/tcrm_monitoring_cleanup", {"integration": NAME, "older_than": "0s"})
        assert serve.end() == 0
    assert done.status_code == 200
    assert done.json()["integrations"][NAME]["monitoring"] > 0
    assert rows(hub) == []
