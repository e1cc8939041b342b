"""Tasks and interactions become tickets: each that should exactly one, the others none, and every one accounted for."""

from __future__ import annotations

import random
import signal
from collections import Counter
from time import monotonic, sleep, time
from typing import Any

import pytest

from tests.acceptance.conftest import MakeHub
from tests.acceptance.hub import NAME, Document, Hub

TASK_TAGS = {"40012345": "INSTALAÇÃO", "40012346": "ENTREGA"}
INTERACTION_TAGS = {"40036345": "INSTALAÇÃO", "40036346": "ENTREGA"}
STREAMS = {"tasks": ("T", TASK_TAGS), "interactions": ("I", INTERACTION_TAGS)}
HOUR = 3600.0
KILLS = 10


def tickets(**options: Any) -> Document:
    """Both streams enabled, with these options."""
    quick = {"enabled": True, "schedule": None, "hold_back": "0s"} | options
    streams = {name: quick | {"tags": tags} for name, (_, tags) in STREAMS.items()}
    streams["customers"] = {"schedule": None}
    return {"sink": {"max_attempts": 3, "batch_size": 20}, "streams": streams}


class SlowClock:
    """The sandbox's clock, some hours behind until it is set right."""

    def __init__(self, behind: float) -> None:
        self._start, self._begun = time(), monotonic()
        self.behind = behind

    def __call__(self) -> float:
        return self._start + monotonic() - self._begun - self.behind


def category_of(row: Document, tags: dict[str, str]) -> str | None:
    carried = {str(tag["TagId"]) for tag in row["Tags"]}
    return next((category for number, category in tags.items() if number in carried), None)


def wanted(hub: Hub) -> dict[str, str]:
    """Marker and category of every ticket that there has to be."""
    found = {}
    for kind, (letter, tags) in STREAMS.items():
        for row in hub.rows("ploomes", kind):
            category = category_of(row, tags)
            if category and row["ContactId"]:
                found[f"[Ploomes {letter}{row['Id']}]"] = category
    return found


def made(hub: Hub) -> Counter[tuple[str, str]]:
    """Marker and category of every ticket there is; one that is there twice counts twice."""
    rows = hub.rows("milvus", "tickets")
    return Counter((row["assunto"].partition("]")[0] + "]", row["categoria_primaria"]) for row in rows)


def filtered(hub: Hub, kind: str) -> dict[str, int]:
    rows, (_, tags) = hub.rows("ploomes", kind), STREAMS[kind]
    tagged = [row for row in rows if category_of(row, tags)]
    return {"untagged": len(rows) - len(tagged), "without_client": sum(not row["ContactId"] for row in tagged)}


def test_four_thousand_records_read_three_hours_late_and_killed_ten_times(make_hub: MakeHub) -> None:
    """Mixed tags, records without a client, clients that Milvus does not know yet, and equal times; every tenth answer
    to a write is lost."""
    chance = random.Random(4)
    clock = SlowClock(behind=3 * HOUR)
    hub = make_hub(300, clock=clock, overlay=tickets())
    assert hub.run().code == 0
    for step in range(20):
        for kind in STREAMS:
            hub.control("ploomes", "add", kind=kind, count=100)
        if step == 9:
            unknown = set(hub.control("ploomes", "add", count=60)["documents"])
        clock.behind -= 3 * HOUR / 20
    assert len({row["LastUpdateDate"] for row in hub.rows("ploomes", "tasks")}) < 2_000 / 3

    hub.faults("milvus", "drop=10%,429=1%,retry_after=0,503=1%")
    hub.faults("ploomes", "short_pages=5%,drop_before=1%")
    kills = 0
    for _ in range(3 * KILLS):
        for stream in STREAMS:
            run = hub.start("run", NAME, "--stream", stream)
            enough = hub.asked("milvus") + chance.randrange(1, 250)
            while run.poll() is None and kills < KILLS and hub.asked("milvus") < enough:
                sleep(0.001)
            if kills < KILLS:
                run.kill()
            done = hub.finish(run)
            kills += done.code == -signal.SIGKILL
        if kills == KILLS:
            break
    assert kills == KILLS
    late = [hub.run("--stream", stream) for stream in STREAMS]

    assert [done.code for done in late] == [3, 3], late
    failures = hub.failures()
    assert {(f["outcome"], f["number"]) for f in failures} == {("exhausted", 27)}
    named = {document for document in unknown for f in failures if document in f["reason"]}
    assert named <= unknown
    assert len(failures) == sum(any(document in f["reason"] for document in unknown) for f in failures)
    assert not hub.stats("milvus")["repeated_subjects"]
    assert len(made(hub)) + len(failures) == len(wanted(hub))

    assert hub.run("--stream", "customers").code == 0
    replayed = hub.replay()

    assert (replayed.code, replayed.document["delivered"]) == (0, len(failures)), replayed
    assert made(hub) == Counter(wanted(hub).items())
    done = hub("audit", NAME)
    assert (done.code, done.document["unaccounted"]) == (0, []), done
    for kind, report in done.document["streams"].items():
        if kind in STREAMS:
            rules = filtered(hub, kind)
            assert (report["fetched"], report["filtered"]) == (2_000, sum(rules.values()))
            assert report["delivered"] == 2_000 - report["filtered"]
    again = hub.run()
    assert again.code == 0
    assert all(again.document["streams"][kind]["delivered"] == 0 for kind in STREAMS)
    assert made(hub) == Counter(wanted(hub).items())


def test_only_what_was_made_within_the_age_travels_and_the_rest_is_named(make_hub: MakeHub) -> None:
    """Without a cursor the age counts from the run's start; later from the cursor, however late the run is."""
    hub = make_hub(30, tasks=80, interactions=60, overlay=tickets())

    first = hub.run()

    assert first.code == 0, first
    for kind in STREAMS:
        report, rules = first.document["streams"][kind], filtered(hub, kind)
        assert report["rules"] == rules | {"max_age": report["fetched"] - sum(rules.values())}
        assert report["delivered"] == 0
    before = len(hub.rows("milvus", "tickets"))
    hub.control("ploomes", "add", kind="tasks", count=20)
    second = hub.run()
    assert second.document["streams"]["tasks"]["delivered"] == len(hub.rows("milvus", "tickets")) - before > 0
    hub.overlay(tickets(max_age="none"))
    everything = hub.run("--full")
    assert everything.code == 0
    assert made(hub) == Counter(wanted(hub).items())


def tagged_task(hub: Hub) -> int:
    rows = hub.rows("ploomes", "tasks")
    return next(int(row["Id"]) for row in rows if row["ContactId"] and category_of(row, TASK_TAGS))


@pytest.mark.parametrize("late", [False, True])
def test_an_edited_task_gets_no_second_ticket(make_hub: MakeHub, late: bool) -> None:
    """However long ago its ticket was made: a rule about age has no say in what travelled."""
    clock = SlowClock(behind=5 * HOUR if late else 0.0)
    hub = make_hub(10, clock=clock, overlay=tickets())
    assert hub.run().code == 0
    hub.control("ploomes", "add", kind="tasks", count=30)
    assert hub.run().code == 0
    before = made(hub)
    assert before == Counter(wanted(hub).items())
    clock.behind = 0.0
    hub.control("ploomes", "edit", kind="tasks", ids=[tagged_task(hub)], fields={"Title": "Outro título"})

    done = hub.run("--stream", "tasks")

    report = done.document["streams"]["tasks"]
    assert (done.code, report["rules"].get("already_at_target"), report["delivered"]) == (0, 1, 0), done
    assert made(hub) == before
    assert hub.stats("milvus")["follow_ups"] == 0


def test_by_configuration_an_edited_task_is_followed_up_on_its_ticket_once(make_hub: MakeHub) -> None:
    hub = make_hub(10, overlay=tickets(on_edit="follow_up"))
    hub.run()
    hub.control("ploomes", "add", kind="tasks", count=30)
    hub.run()
    before = made(hub)
    hub.faults("milvus", "drop=100%")
    task = tagged_task(hub)
    for number in (1, 2):
        title = f"Título {number}"
        hub.control("ploomes", "edit", kind="tasks", ids=[task], fields={"Title": title})
        done = hub.run("--stream", "tasks")
        assert (done.code, done.document["streams"]["tasks"]["delivered"]) == (0, 1), done
        assert hub.stats("milvus")["follow_ups"] == number
    assert made(hub) == before
    assert hub.run("--stream", "tasks").code == 0
    assert hub.stats("milvus")["follow_ups"] == 2


def test_a_ticket_waits_for_its_customer_as_long_as_that_is_on_its_way(make_hub: MakeHub) -> None:
    """The customers are slow to arrive: their tickets use up no try meanwhile."""
    hub = make_hub(12, overlay=tickets(max_age="none"))
    hub.control("ploomes", "add", kind="tasks", count=40)
    hub.faults("milvus", "slow=0.15")
    customers = hub.start("run", NAME, "--stream", "customers")
    hub.wait_for_requests("milvus", 2)

    tasks = hub.run("--stream", "tasks")

    assert hub.finish(customers).code == 0
    assert tasks.code == 0, tasks
    assert made(hub) == Counter(wanted(hub).items())


def test_tickets_do_not_wait_for_ever_for_customers_whose_messages_are_lost(make_hub: MakeHub) -> None:
    """The transport is not synced: a power cut takes its messages, and the run brings the customers' back too."""
    hub = make_hub(6, overlay=tickets(max_age="none"), faults="milvus.down")
    assert hub.run("--stream", "customers").code == 4
    for file in hub.home.glob("bus.db*"):
        file.unlink()
    hub.faults("milvus", "")
    hub.control("ploomes", "add", kind="tasks", count=20)

    done = hub.run("--stream", "tasks")

    assert done.code == 0, done
    assert made(hub) == Counter(wanted(hub).items())


def test_a_setting_that_goes_missing_holds_its_own_records_back_and_no_others(make_hub: MakeHub) -> None:
    hub = make_hub(6, overlay=tickets(max_age="none"))
    assert hub.run("--stream", "customers").code == 0
    hub.control("ploomes", "add", kind="tasks", count=20)
    hub.faults("milvus", "down")
    assert hub.run("--stream", "tasks").code == 4
    hub.faults("milvus", "")
    hub.control("ploomes", "edit", count=3, seed=3)
    whole = hub.environment["WAYBILL_OVERLAY"]
    hub.overlay({})

    customers = hub.run()

    assert (customers.code, customers.customers["delivered"]) == (0, 3), customers
    assert not hub.failures()
    hub.overlay(tickets(max_age="none"))
    assert whole == hub.environment["WAYBILL_OVERLAY"]
    assert hub.run("--stream", "tasks").code == 0
    assert made(hub) == Counter(wanted(hub).items())
    assert not hub.failures()


def test_a_follow_up_is_about_an_edit_and_not_about_the_client_or_the_settings(make_hub: MakeHub) -> None:
    hub = make_hub(6, overlay=tickets(on_edit="follow_up"))
    hub.run()
    hub.control("ploomes", "add", kind="tasks", count=20)
    assert hub.run().code == 0
    for row in hub.rows("ploomes"):
        hub.change(row["Id"], Email=f"new.{row['Id']}@example.com")
    assert hub.run("--stream", "tasks").code == 0
    hub.overlay(tickets(on_edit="follow_up", target_zone="Asia/Tokyo"))
    assert hub.run("--stream", "tasks", "--full").code == 0
    assert hub.stats("milvus")["follow_ups"] == 0


def test_a_task_that_was_invalid_for_its_client_travels_once_the_client_is_corrected(make_hub: MakeHub) -> None:
    hub = make_hub(3, undocumented=1, overlay=tickets(max_age="none"))
    assert hub.run().code == 3
    contact = next(row for row in hub.rows("ploomes") if not row["Register"])
    tags = [{"TagId": 40012345}]
    hub.control("ploomes", "add", kind="tasks", count=1, fields={"ContactId": contact["Id"], "Tags": tags})
    assert hub.run("--stream", "tasks").code == 3
    assert hub.failures()[-1]["outcome"] == "invalid"
    hub.change(contact["Id"], Register="52998224725")
    assert hub.run("--stream", "customers").code == 0

    done = hub.run("--stream", "tasks")

    assert (done.code, done.document["streams"]["tasks"]["delivered"]) == (0, 1), done
    assert made(hub) == Counter(wanted(hub).items())
    assert [failure for failure in hub.failures() if failure["stream"] == "tasks"] == []


def test_a_stream_without_its_setting_hinders_no_other_one(make_hub: MakeHub) -> None:
    hub = make_hub(4, overlay={"streams": {"tasks": {"enabled": True}}})
    done = hub.run()
    assert done.code == 2
    assert done.customers["delivered"] == 4
    tasks = done.document["streams"]["tasks"]
    assert (tasks["state"], tasks["error"]["class"], tasks["fetched"]) == ("failed", "ConfigError", 0)


def test_without_tags_the_streams_are_off_and_naming_one_says_how_to_list_them(make_hub: MakeHub) -> None:
    hub = make_hub(5)
    done = hub.run()
    assert (done.code, list(done.document["streams"])) == (0, ["customers"])
    assert hub("check", NAME).code == 0
    named = hub.run("--stream", "tasks")
    assert named.code == 2
    assert "stream tasks" in named.document["error"]["message"]
    assert "/Tags?" in named.document["error"]["cure"]
    assert hub("status", NAME).code == hub("audit", NAME).code == 0
    hub.overlay({"streams": {"tasks": {"enabled": True}}})
    checked = hub("check", NAME)
    assert checked.code == 2
    assert [m["path"] for m in checked.document["mistakes"]] == [f"{NAME}.streams.tasks"]
