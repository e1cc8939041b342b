"""The command line that people and scripts depend on: help, JSON, exit codes, masks and filters."""

import re
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import hubs_in
from tests.acceptance.hub import COUNTS, NAME, PATIENCE, ROOT, Document, Done, Hub, counts, wait_until

COMMANDS = (
    "list", "check", "plan", "run", "status", "runs", "show", "failures", "trace", "replay", "audit", "cleanup",
    "tcrm_monitoring_cleanup",
    "forget", "pause", "resume", "serve", "sandbox",
)  # fmt: skip
OF_A_STREAM = {"name", "enabled", "schedule"}
OF_A_RUN = {"run", "stream", "kind", "state", "started_at", "finished_at", *COUNTS}
OF_A_FAILURE = {
    "id", "stream", "key", "outcome", "number", "reason", "http_status", "attempts", "first_at", "last_at",
    "location", "position", "data",
}  # fmt: skip
REFUSED, FLAWED = "reject=5", 2


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub after a run with rejected and invalid records, and after one in which three edited ones travelled.

    The tests of this file leave it as it is.
    """
    with hubs_in(tmp_path_factory.mktemp("used")) as make:
        hub = make(40, invalid=FLAWED, faults=f"milvus.{REFUSED}")
        assert hub.run().code == 3
        arrived = {document for document, _ in hub.at_target()}
        for row in [row for row in hub.rows("ploomes") if row["Register"] in arrived][:3]:
            hub.change(row["Id"], Name=f"{row['Name']} Filho")
        assert hub.run().code == 0
        yield hub


def stdout_of(*arguments: str) -> str:
    done = subprocess.run([ROOT / "waybill", *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done
    return done.stdout


def test_the_help_names_every_command() -> None:
    listed = re.findall(r"^  (\w+)  ", stdout_of("--help").partition("Commands:")[2], re.MULTILINE)

    assert set(listed) >= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    assert f"Example: ./waybill {name}" in stdout_of(name, "--help")


def one_failure(hub: Hub) -> Document:
    return hub.failures("--outcome", "rejected")[0]


def test_list_says_what_there_is(used: Hub) -> None:
    done = used("list")

    (found,) = [each for each in done.document["integrations"] if each["name"] == NAME]
    assert (done.code, found["source"], found["sink"]) == (0, "ploomes", "milvus")
    assert found["streams"][0].keys() >= OF_A_STREAM


def test_check_finds_nothing_wrong(used: Hub) -> None:
    done = used("check", NAME)

    assert (done.code, done.document["mistakes"]) == (0, [])


def test_run_has_the_documented_keys(used: Hub) -> None:
    done = used.run()

    assert done.document["integration"] == NAME
    assert done.customers.keys() >= {"run", "state", "balanced", "seconds", "resumed", *COUNTS}
    assert done.customers["fetched"] == sum(done.customers[name] for name in COUNTS[1:])


def test_status_has_the_documented_keys(used: Hub) -> None:
    found = used.status()

    assert found.keys() >= {
        *OF_A_STREAM,
        *("state", "last_run", "cursor", "lease", "open_failures", "next_run", "confirmation"),
        *COUNTS,
    }
    assert found["open_failures"] == len(used.failures())
    assert (found["state"], found["lease"], found["pending"]) == ("settled", None, 0)
    assert found["confirmation"] == {"pending_requests": 0, "pending_records": 0, "refused": {}}


def test_runs_are_listed_newest_first_and_one_is_shown_whole(used: Hub) -> None:
    listed = used("runs", NAME).document["runs"]

    assert all(run.keys() >= OF_A_RUN for run in listed)
    assert [run["started_at"] for run in listed] == sorted((run["started_at"] for run in listed), reverse=True)
    first = listed[-1]
    shown = used("show", first["run"])
    assert shown.code == 0
    assert shown.document.keys() >= OF_A_RUN | {"batches", "errors"}
    assert sum(batch["records"] for batch in shown.document["batches"]) == first["fetched"] == 40
    assert sum(error["count"] for error in shown.document["errors"]) == first["rejected"] + first["invalid"]
    assert shown.document["errors"][0].keys() >= {"number", "reason", "count"}


def test_failures_have_the_documented_keys_and_masked_data(used: Hub) -> None:
    done = used("failures", NAME)

    assert done.code == 0
    names = {row["Name"] for row in used.rows("ploomes")} | {row["Email"] for row in used.rows("ploomes")}
    text = str(done.document)
    for failure in done.document["failures"]:
        assert failure.keys() >= OF_A_FAILURE
        assert "Name" in failure["data"]
    assert not [name for name in names if name and name in text]
    written = subprocess.run(
        [ROOT / "waybill", "failures", NAME], env=used.environment, capture_output=True, text=True, check=True
    )
    assert not [name for name in names if name and name in written.stdout + written.stderr]


def test_reveal_shows_the_data_as_it_was_read(used: Hub) -> None:
    rows = {row["Id"]: row for row in used.rows("ploomes")}

    for failure in used.failures("--reveal", "--outcome", "invalid"):
        assert failure["data"]["Name"] == rows[failure["data"]["Id"]]["Name"]


def test_failures_are_filtered(used: Hub) -> None:
    every = used.failures()
    rejected = [failure for failure in every if failure["outcome"] == "rejected"]
    invalid = [failure for failure in every if failure["outcome"] == "invalid"]
    assert rejected and len(invalid) == FLAWED

    assert used.failures("--outcome", "rejected") == used.failures("--number", "50") == rejected
    assert used.failures("--status", "400", "--stream", "customers") == rejected
    assert used.failures("--outcome", "invalid") == used.failures("--number", "111") == invalid
    assert used.failures("--key", rejected[0]["key"]) == rejected[:1]
    assert used.failures("--outcome", "invalid", "--status", "400") == []
    assert used.failures("--older-than", "1h") == []
    assert used.failures("--older-than", "0s") == every


def test_trace_tells_the_life_of_a_record(used: Hub) -> None:
    key = one_failure(used)["key"]

    done = used("trace", NAME, "--stream", "customers", "--key", key)

    assert done.code == 0
    assert done.document.keys() >= {"integration", "stream", "key", "cell", "events"}
    actions = [event["action"] for event in done.document["events"]]
    assert actions[:2] == ["fetched", "published"]
    assert set(actions[2:]) == {"rejected", "failed"}
    assert all(event["at"] for event in done.document["events"])


def test_trace_of_a_delivered_record_names_its_client(used: Hub) -> None:
    client = used.rows("milvus")[0]

    done = used("trace", NAME, "--stream", "customers", "--key", client["cnpj_cpf"])

    assert done.document["cell"]["target_id"] == str(client["id"])
    assert "delivered" in [event["action"] for event in done.document["events"]]


def test_plan_says_what_a_run_would_do_and_writes_nothing(used: Hub) -> None:
    before, history = used.stats("milvus"), used("runs", NAME).document["runs"]

    done = used("plan", NAME)

    assert done.code == 0, done
    assert done.customers.keys() >= {"calls", "minutes", "cost_usd", "samples", *COUNTS}
    assert done.customers["fetched"] == 3
    after = used.stats("milvus")
    assert [after[name] for name in ("creates", "updates", "refusals")] == [
        before[name] for name in ("creates", "updates", "refusals")
    ]
    assert used("runs", NAME).document["runs"] == history


def test_audit_has_the_documented_keys(used: Hub) -> None:
    done = used("audit", NAME)

    assert done.document.keys() >= {"integration", "balanced", "unaccounted", "streams"}
    assert done.customers.keys() >= {"balanced", "unaccounted", *COUNTS}
    assert counts(done.customers)["rejected"] == len(used.failures("--outcome", "rejected"))


def test_replay_plan_has_the_documented_keys(used: Hub) -> None:
    planned = used("replay", NAME, "--plan").document

    assert planned.keys() >= {"run", "planned", "superseded"}
    assert (planned["run"], planned["planned"]) == (None, len(used.failures()))


def test_pause_takes_the_schedule_away_and_resume_brings_it_back(used: Hub) -> None:
    assert used.status()["next_run"]

    assert used("pause", NAME).code == 0
    assert used.status()["next_run"] is None
    assert [each["paused"] for each in used("list").document["integrations"] if each["name"] == NAME] == [True]
    assert used.run().document["streams"]["customers"]["state"] == "settled"

    assert used("resume", NAME).code == 0
    assert used.status()["next_run"]


def refused(done: Done, *words: str) -> None:
    """The command ended with 2 before it did anything, and its one document says what was wrong and what to do."""
    assert done.code == 2, done
    error = done.document["error"]
    for word in words:
        assert word in error["message"] + error["cure"], error


@pytest.mark.parametrize("command", [("run", NAME), ("plan", NAME), ("audit", NAME, "--deep")])
def test_missing_secrets_are_named_all_at_once(used: Hub, command: tuple[str, ...]) -> None:
    secrets = {name: used.environment.pop(name) for name in ("PLOOMES_USER_KEY", "MILVUS_TOKEN")}
    try:
        refused(used(*command), *secrets)
    finally:
        used.environment.update(secrets)


def test_check_names_missing_secrets_too(used: Hub) -> None:
    secrets = {name: used.environment.pop(name) for name in ("PLOOMES_USER_KEY", "MILVUS_TOKEN")}
    try:
        done = used("check", NAME)
    finally:
        used.environment.update(secrets)
    assert done.code == 2
    assert all(name in str(done.document["mistakes"]) for name in secrets)


def test_what_nobody_knows_is_refused_with_what_there_is(used: Hub) -> None:
    refused(used("run", "ploomes_to_milvu"), NAME)
    refused(used("run", NAME, "--stream", "customer"), "customers")
    refused(used("show", "customers-20200101T000000-abcdef"), "./waybill runs")
    refused(used("trace", NAME, "--stream", "customers", "--key", "nobody"), "nobody")
    refused(used("run", NAME, "--since", "yesterday"), "--since")
    refused(used("run", NAME, "--since", "2024-02-24T00:00:00"), "offset")
    refused(used("failures", NAME, "--older-than", "3 days"), "--older-than")
    refused(used("cleanup"), "--all")
    assert used("runn", NAME).code == 2
    assert "run" in used("runn", NAME).notes


def test_a_mistake_in_the_overlay_stops_everything_before_it_begins(used: Hub) -> None:
    asked = used.asked("ploomes"), used.asked("milvus")
    used.overlay({"sink": {"lains": 3}, "streams": {"customers": {"overlap": "soon"}}})
    try:
        done = used.run()
    finally:
        used.overlay({})
    assert done.code == 2, done
    mistakes = done.document["error"]["mistakes"]
    assert {mistake["path"] for mistake in mistakes} == {
        f"{NAME}.{path}" for path in ("sink.lains", "streams.customers.overlap")
    }
    assert "lanes" in str(mistakes)
    assert (used.asked("ploomes"), used.asked("milvus")) == asked


def test_people_read_text_and_no_json(used: Hub) -> None:
    for command in (("list",), ("status",), ("audit", NAME), ("runs", NAME), ("failures", NAME)):
        done = subprocess.run(
            [ROOT / "waybill", *command], env=used.environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() and not done.stdout.startswith("{")
        assert "\x1b" not in done.stdout


def test_the_sandbox_prints_what_to_export_and_ends_when_told_to(used: Hub) -> None:
    sandbox = used.keep(
        subprocess.Popen(
            [ROOT / "waybill", "sandbox", "--customers", "5"],
            env=used.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    )
    assert sandbox.stdout is not None
    names = [sandbox.stdout.readline().split("=")[0] for _ in range(4)]
    assert sorted(names) == [
        f"export {name}" for name in ("MILVUS_TOKEN", "MILVUS_URL", "PLOOMES_URL", "PLOOMES_USER_KEY")
    ]
    sandbox.send_signal(signal.SIGTERM)
    wait_until(lambda: sandbox.poll() is not None, "the end of the sandbox")
    assert sandbox.returncode == 0
