"""Snapshots from outside: what each archive holds, and that a restored hub sends nothing a second time."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.acceptance.conftest import MakeHub, hubs_in
from tests.acceptance.hub import NAME, ROOT, Hub
from tests.acceptance.snapshots import ADS, BACK, PARAMS, REMOVED, USERS, Archive, Installation, povs_of, write_archive

TABLES = {
    "integrations", "streams", "rules", "mappings", "syncs", "schedules", "alert_rules", "periods",
}  # fmt: skip
EARLY = {NAME: {"customers": ["early"], "tasks": ["early"]}, BACK: {"customers": ["early"]}} | {
    USERS: {"users": ["early"]},
    ADS: {"ga4": ["early"]},
}
CHANGED = {(NAME, "customers", "early"), (NAME, "customers", "late"), (USERS, "users", "late")}
DELETED = (NAME, "tasks", "early")


Audited = dict[tuple[str, str], dict[str, int]]


class Exported(NamedTuple):
    """An installation after the changes, and the archives that were exported on the way."""

    installation: Installation
    full: Archive
    increment: Archive
    whole: Archive
    setup: Archive
    nothing: Archive
    then: Audited
    """What became of everything when `full` was exported."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    """The tests of this file leave it and its outside systems as they are."""
    folder = tmp_path_factory.mktemp("exported")
    with hubs_in(folder) as make:
        made = Installation(make, folder, faults="milvus.reject=4")
        made.run_all()
        made.name_periods()
        then = made.audited()
        made.export("with", "ALL", "--with-data")
        full = made.export("full", "ALL")
        change_three_povs_and_delete_a_stream(made)
        increment = made.export("increment", "INCREMENTAL")
        whole = made.export("whole", "ALL_INCREMENTAL")
        # A SETUP export leaves the mark alone, and so does an increment of nothing.
        setup, nothing = made.export("setup", "SETUP"), made.export("nothing", "INCREMENTAL")
        yield Exported(made, full, increment, whole, setup, nothing, then)


def change_three_povs_and_delete_a_stream(made: Installation) -> None:
    """A replay amends the period in which its records were read, and settles in another one."""
    made.hub.faults("milvus", "")
    assert made.hub.replay("--stream", "customers").code == 0
    made.hub.control("okki", "add", count=4)
    assert made.hub("run", USERS).code == 0
    made.configure(tasks=None)


def test_an_archive_of_type_all_carries_the_setup_and_every_pov(exported: Exported) -> None:
    full = exported.full
    assert set(full.output) == set(full.povs) == povs_of(EARLY)
    assert full.params["baseProcessId"] is None
    assert full.removed == set()


def test_an_increment_carries_what_changed_and_names_what_is_gone(exported: Exported) -> None:
    full, increment = exported.full.params, exported.increment.params
    assert set(exported.increment.output) == CHANGED
    assert exported.increment.removed == {DELETED}
    assert increment["baseProcessId"] == full["lastProcessId"] < increment["lastProcessId"]
    nothing = exported.nothing.params
    assert exported.nothing.output == {}
    assert nothing["lastProcessId"] == nothing["baseProcessId"] == exported.whole.params["lastProcessId"]


def test_all_incremental_carries_old_povs_as_they_were_and_new_ones_as_the_increment_has_them(
    exported: Exported,
) -> None:
    full, increment, whole = exported.full, exported.increment, exported.whole
    assert set(whole.output) == set(whole.povs) == (povs_of(EARLY) | CHANGED) - {DELETED}
    assert whole.params["baseProcessId"] is None
    assert whole.params["lastProcessId"] == increment.params["lastProcessId"]
    for pov, data in whole.output.items():
        assert data == (increment if pov in CHANGED else full).output[pov], pov
    assert full.output[NAME, "customers", "early"] != whole.output[NAME, "customers", "early"]


def test_the_setup_is_always_there_in_full_and_alone_where_it_is_asked_for(exported: Exported) -> None:
    setup, whole = exported.setup, exported.whole
    assert set(setup.files) - {PARAMS} == set(setup.setup)
    assert setup.params["povs"] == []
    for archive in exported[1:6]:
        assert {Path(name).stem for name in archive.setup} == TABLES
        assert archive.params["format"] == 1
    assert whole.setup == exported.increment.setup == setup.setup != exported.full.setup
    streams = {(row["integration"], row["stream"]) for row in whole.rows("setup/streams.csv")}
    assert (NAME, "customers") in streams
    assert (NAME, "tasks") not in streams


def test_the_rows_are_what_the_hub_knew(exported: Exported) -> None:
    archive = exported.full
    customers = (NAME, "customers", "early")
    failed = {failure["key"] for _, failure in archive.things(customers, "failure")}
    arrived = {document for document, _ in exported.installation.hub.at_target()}
    assert failed
    cells = dict(archive.things(customers, "cell"))
    assert failed <= set(cells)
    assert {key for key, cell in cells.items() if cell["version"]} == arrived & set(cells) - failed
    for pov in archive.output:
        kinds = {kind: archive.things(pov, kind) for kind in ("run", "batch")}
        fetched = sum(run["fetched"] for _, run in kinds["run"] if run["kind"] == "fetch")
        assert fetched == exported.then[pov[:2]]["fetched"], pov
        letters = Counter("".join(batch["outcomes"] for _, batch in kinds["batch"]))
        assert letters["d"] == exported.then[pov[:2]].get("delivered", 0), pov


def test_the_default_period_is_the_month_of_settling(make_hub: MakeHub, tmp_path: Path) -> None:
    made = Installation(make_hub, tmp_path)
    before = datetime.now(UTC)
    assert made.hub.run().code == 0
    archive = made.export("full.zip", "ALL")
    months = {f"{at:%Y-%m}" for at in (before, datetime.now(UTC))}
    assert {period for _, _, period in archive.output} <= months


@pytest.mark.parametrize("chain", [("whole",), ("full", "increment")], ids="+".join)
def test_a_restored_hub_sends_nothing_twice(exported: Exported, chain: tuple[str, ...]) -> None:
    made = exported.installation
    audited, written = made.audited(), made.written()
    assert written["events"] > 0
    assert all(sum(written[system].values()) for system in ("milvus", "ploomes", "qeasy"))

    other = made.elsewhere("-".join(chain))
    for name in chain:
        done = other.take_in(made.archive(name))
    assert done["differences"] == []

    assert other.audited() == audited
    for name, again in other.run_all().items():
        assert again.code in (0, 3), again
        for report in again.document["streams"].values():
            assert (report["delivered"], report["balanced"]) == (0, True), (name, report)
    assert other.written() == written
    other.audited()
    deep = other.hub("audit", USERS, "--deep")
    assert (deep.code, deep.document["unaccounted"]) == (0, [])


def test_an_increment_without_its_base_is_refused_and_changes_nothing(exported: Exported) -> None:
    other = exported.installation.elsewhere("baseless")

    done = other.hub("snapshot", "import", str(exported.installation.archive("increment")), "--yes")

    assert done.code == 2
    error = done.document["error"]
    assert str(exported.full.params["lastProcessId"]) in error["message"]
    assert error["cure"]
    assert not any(other.audited().values())


def test_no_secret_and_no_person_is_in_an_archive(exported: Exported) -> None:
    """Keys are what the ledger is about: they are there. Payloads are not, unless they are asked for."""
    made = exported.installation
    people = {row[field] for row in made.hub.rows("ploomes") for field in ("Name", "Email") if row[field]}
    people |= {row["nickname"] for row in made.hub.rows("okki")}
    secrets = {value for name, value in made.hub.sandbox.environment.items() if not name.endswith(("_URL", "_ID"))}
    assert made.hub.sandbox.ploomes.key in secrets
    for archive, with_data in ((exported.full, False), (exported.whole, False), (Archive(made.archive("with")), True)):
        content = b"\n".join(archive.files.values()).decode()
        assert not [secret for secret in secrets if secret in content]
        assert archive.params["withData"] is with_data
        found = {person for person in people if person in content or json.dumps(person)[1:-1] in content}
        assert bool(found) is with_data, found


def test_a_webhook_is_a_secret(make_hub: MakeHub, tmp_path: Path) -> None:
    made = Installation(make_hub, tmp_path)
    made.hub.overlay({"alerts": {"webhook": "https://hooks.example/T0/B0/secret-path"}})
    made.hub.environment["WAYBILL_ALERT_WEBHOOK"] = "https://hooks.example/T0/B0/secret-path"
    archive = made.export("setup", "SETUP")
    assert b"secret-path" not in b"".join(archive.files.values())
    assert any(row["webhook"] == "true" for row in archive.rows("setup/alert_rules.csv"))


def test_a_restored_hub_goes_on_as_the_old_one_would(make_hub: MakeHub, tmp_path: Path) -> None:
    made = Installation(make_hub, tmp_path)
    assert made.hub("run", USERS).code == 0
    mark = made.export("full", "ALL").params["lastProcessId"]
    other = made.elsewhere("restored")
    other.take_in(made.archive("full"))
    made.hub.control("okki", "add", count=2)

    again = other.hub("run", USERS)

    assert (again.code, again.document["streams"]["users"]["delivered"]) == (0, 2)
    increment = other.export("next", "INCREMENTAL").params
    assert increment["baseProcessId"] == mark < increment["lastProcessId"]


def test_failures_can_be_replayed_elsewhere_if_their_data_came_along(make_hub: MakeHub, tmp_path: Path) -> None:
    installation = Installation(make_hub, tmp_path, clients=0, faults="milvus.reject=4")
    assert installation.hub.run("--stream", "customers").code == 3
    installation.export("without", "ALL")
    installation.export("with", "ALL", "--with-data")
    keys = {failure["key"] for failure in installation.hub.failures("--stream", "customers")}
    installation.hub.faults("milvus", "")

    bare = installation.elsewhere("bare")
    told = bare.take_in(installation.archive("without"))
    assert any("replay" in note for note in told["notes"])
    assert {failure["key"] for failure in bare.hub.failures("--stream", "customers")} == keys

    full = installation.elsewhere("full")
    full.take_in(installation.archive("with"))
    assert full.hub.replay("--stream", "customers").code == 0
    assert not full.hub.failures("--stream", "customers")
    assert full.hub.at_target() == full.hub.at_source()


def test_what_was_on_its_way_arrives_once_from_the_restored_hub(make_hub: MakeHub, tmp_path: Path) -> None:
    made = Installation(make_hub, tmp_path, tasks=0, clients=0)
    made.hub.faults("milvus", "down")
    assert made.hub.run().code == 4
    assert made.audited()[NAME, "customers"]["pending"] > 0
    made.export("full", "ALL")
    other = made.elsewhere("restored")
    other.take_in(made.archive("full"))
    assert "pending" not in other.audited()[NAME, "customers"]

    other.hub.faults("milvus", "")
    assert other.hub.run().code == 0

    assert other.hub.at_target() == other.hub.at_source()
    assert other.hub.stats("milvus")["creates"] == 30


def test_an_archive_can_be_written_by_what_the_documents_say_of_it(exported: Exported, tmp_path: Path) -> None:
    """One that is whole, with the periods under other names, the rows in another order, packed in another way."""
    installation, archive = exported.installation, exported.whole
    files = {name: data for name, data in archive.files.items() if name.startswith("setup/") or name == REMOVED}
    povs = []
    for location, category, period in archive.output:
        rows = archive.rows(f"data/output/{location}/{category}/{period}.csv")
        text = io.StringIO()
        writer = csv.DictWriter(text, ["row", "id", "process_id", "at", "document"], quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows[::-1])
        named, data = f"FY-26.{period}", text.getvalue().encode()
        files[f"data/output/{location}/{category}/{named}.csv"] = data
        pov = archive.povs[location, category, period]
        povs.append(
            {
                **{key: pov[key] for key in ("location", "category", "processId", "counts", "rows")},
                **{"period": named, "fingerprint": "", "sha256": hashlib.sha256(data).hexdigest()},
            }
        )
    write_archive(tmp_path / "written.zip", {**archive.params, "povs": povs}, files)
    audited, written = installation.audited(), installation.written()

    other = installation.elsewhere("written")
    other.take_in(tmp_path / "written.zip")

    assert other.audited() == audited
    other.run_all()
    assert other.written() == written


def test_the_documents_say_it_as_it_is(exported: Exported, tmp_path: Path) -> None:
    """The columns of the set-up, and the rows that are shown: they make an archive."""
    text = (ROOT / "docs" / "snapshots.md").read_text(encoding="utf8")
    setup = exported.setup
    for name, data in setup.setup.items():
        assert f"| `{name}` | `{data.decode().splitlines()[0]}` |" in text
    shown = text.partition("```\nrow,id,")[2].partition("```")[0].encode()
    files = {
        **setup.setup,
        REMOVED: b"location,category,period\n",
        "data/output/ploomes_to_milvus/customers/2026-11.csv": b"row,id," + shown,
    }
    written = files["data/output/ploomes_to_milvus/customers/2026-11.csv"]
    nothing = dict.fromkeys(("runs", "batches", "cells", "failures", "requests", "launches", "objects"), 0)
    counts = nothing | {"runs": 1, "batches": 1, "cells": 1}
    pov = {
        **{"location": NAME, "category": "customers", "period": "2026-11", "processId": 1795327648163954},
        **{"fingerprint": "", "sha256": hashlib.sha256(written).hexdigest(), "rows": 3, "counts": counts},
    }
    params = {
        **{"format": 1, "type": "ALL", "lastProcessId": 1795327648163954, "baseProcessId": None},
        **{"createdAt": "2026-11-22T06:07:29Z", "withData": False, "counts": counts, "streams": [], "povs": [pov]},
    }
    write_archive(tmp_path / "shown.zip", params, files)
    other = exported.installation.elsewhere("shown")
    other.take_in(tmp_path / "shown.zip")
    assert other.audited()[NAME, "customers"] == {"fetched": 1, "delivered": 1}
    traced = other.hub("trace", NAME, "--stream", "customers", "--key", "98929360602").document
    assert traced["cell"]["target_id"] == "200008"


def test_a_setup_archive_names_what_is_configured_otherwise(exported: Exported) -> None:
    file = exported.installation.archive("setup")
    other = exported.installation.elsewhere("otherwise")
    other.hub.overlay({"sink": {"batch_size": 7}})
    done = other.take_in(file)
    assert any("batch_size" in text for text in done["differences"])
    assert done["processId"] != 0
    assert not any(other.audited().values())

    other.hub.environment["WAYBILL_OVERLAY"] = done["overlay"]
    assert other.hub("check").code == 0
    assert other.take_in(file)["differences"] == []


def is_paused(hub: Hub) -> bool:
    (found,) = [each for each in hub("list").document["integrations"] if each["name"] == NAME]
    return bool(found["paused"])


def test_what_is_paused_is_paused_elsewhere(make_hub: MakeHub, tmp_path: Path) -> None:
    made = Installation(make_hub, tmp_path)
    assert made.hub("pause", NAME).code == 0
    made.export("setup", "SETUP")
    other = made.elsewhere("restored")
    assert not is_paused(other.hub)
    other.take_in(made.archive("setup"))
    assert is_paused(other.hub)
