"""A person is forgotten in the tasks and interactions that tell of them, and no ticket is made a second time."""

from __future__ import annotations

import random
from collections import Counter
from time import sleep
from typing import Any

import pytest

from infra.local.home import EmbeddedHome
from shared.ports import Message, topic_of
from tests.acceptance.conftest import MakeHub
from tests.acceptance.hub import NAME, Document, Hub, counts, merged
from tests.acceptance.test_forget import DOCUMENT, MAIL, NAMES, forgotten, traces
from tests.acceptance.test_tickets import STREAMS, category_of, made, tickets, wanted

PHONE = "11987650123"
WORDS = (DOCUMENT, *NAMES, MAIL, PHONE)
NOTHING_ERASED = dict.fromkeys(
    (
        "cells", "failures", "batches", "archived records", "monitoring rows", "objects", "uploaded rows",
        "unreadable uploads", "exported rows", "snapshot files", "snapshot archives",
    ),
    0,
)  # fmt: skip


def told(**options: Any) -> Document:
    return merged(tickets(max_age="none", **options), {"sink": {"lanes": 1}})


@pytest.fixture
def hub(make_hub: MakeHub) -> Hub:
    """Twelve customers, with tasks and interactions about each; one is called by a name that nobody else has."""
    hub = make_hub(12, tasks=40, interactions=30, overlay=told())
    introduce(hub, Register=DOCUMENT)
    return hub


def introduce(hub: Hub, **fields: Any) -> None:
    hub.change(person(hub), Name=NAMES[0], Email=MAIL, Phones=[{"PhoneNumber": PHONE}], **fields)


def about(hub: Hub, kind: str) -> list[int]:
    """The Ids of the person's tasks or interactions that become tickets."""
    tags = STREAMS[kind][1]
    return [r["Id"] for r in hub.rows("ploomes", kind) if r["ContactId"] == person(hub) and category_of(r, tags)]


def person(hub: Hub) -> int:
    """The contact with most tasks and interactions."""
    rows = [row for kind in STREAMS for row in hub.rows("ploomes", kind) if category_of(row, STREAMS[kind][1])]
    return Counter(row["ContactId"] for row in rows if row["ContactId"]).most_common(1)[0][0]


def edited(hub: Hub, kind: str = "tasks") -> None:
    fields = {"tasks": {"Title": "Outro título"}, "interactions": {"Content": "Outra conversa"}}[kind]
    hub.control("ploomes", "edit", kind=kind, ids=about(hub, kind), fields=fields)


def audited(hub: Hub) -> dict[str, dict[str, int]]:
    """The present outcomes of every stream, of books that balance."""
    done = hub("audit", NAME)
    assert (done.code, done.document["balanced"], done.document["unaccounted"]) == (0, True, []), done
    return {name: counts(each) for name, each in done.document["streams"].items()}


def tell(hub: Hub) -> int:
    """How many records tell of the person."""
    return sum(len(about(hub, kind)) for kind in STREAMS)


def test_nothing_is_left_of_a_person_in_records_that_became_tickets(hub: Hub) -> None:
    assert hub.run().code == 0
    for kind in STREAMS:
        edited(hub, kind)
    assert hub.run().code == 0
    before, there = audited(hub), made(hub)
    assert all(about(hub, kind) for kind in STREAMS)
    assert there == Counter(wanted(hub).items())

    done = forgotten(hub)

    assert not list(traces(hub, *WORDS))
    assert DOCUMENT not in str(done.document)
    assert done.document["erased"]["archived records"] > 2 * tell(hub)
    assert audited(hub) == before
    assert forgotten(hub).document["erased"] == NOTHING_ERASED
    assert audited(hub) == before

    assert hub.run("--full").code == 0
    assert made(hub) == there
    edited(hub)
    assert hub.run("--full").code == 0
    assert made(hub) == there
    assert not hub.stats("milvus")["repeated_subjects"]
    audited(hub)


def test_nothing_is_left_of_a_person_of_whom_only_failed_records_tell(hub: Hub) -> None:
    """No customer was ever delivered, so each failure's reason names its document."""
    for kind in STREAMS:
        assert hub.run("--stream", kind).code == 3
    failed = hub.failures()
    named = [failure for failure in failed if DOCUMENT in failure["reason"]]
    assert len(named) == tell(hub) and {failure["number"] for failure in named} == {27}
    before = audited(hub)

    done = forgotten(hub)

    assert not list(traces(hub, *WORDS))
    erased = done.document["erased"]
    assert (erased["cells"], erased["failures"], erased["archived records"]) == (0, tell(hub), tell(hub))
    assert len(STREAMS) <= erased["batches"] <= tell(hub)
    assert audited(hub) == before
    assert len(hub.failures()) == len(failed) - len(named)
    assert hub.run("--stream", "customers").code == 0
    forgotten(hub)
    assert hub.replay().code == 0
    after = audited(hub)
    assert [after[kind].get("exhausted", 0) for kind in STREAMS] == [len(about(hub, kind)) for kind in STREAMS]
    mine = {f"[Ploomes {STREAMS[kind][0]}{each}]" for kind in STREAMS for each in about(hub, kind)}
    assert {marker for marker, _ in made(hub)} == wanted(hub).keys() - mine
    assert not list(traces(hub, *WORDS))


def test_a_ticket_that_failed_and_was_forgotten_is_made_once_when_its_task_is_edited(hub: Hub) -> None:
    assert hub.run("--stream", "tasks").code == 3
    forgotten(hub)
    assert hub.run("--stream", "customers").code == 0
    edited(hub)

    assert hub.run("--stream", "tasks").code in (0, 3)

    there = Counter(marker for marker, _ in made(hub).elements())
    assert [there[f"[Ploomes T{each}]"] for each in about(hub, "tasks")] == [1] * len(about(hub, "tasks"))
    audited(hub)


def test_records_of_a_time_when_the_streams_were_configured_are_found(hub: Hub) -> None:
    for kind in STREAMS:
        hub.run("--stream", kind)
    hub.overlay({})
    assert hub.run("--stream", "tasks").code == 2

    forgotten(hub)

    assert not list(traces(hub, *WORDS))


def test_records_from_before_the_person_had_a_document_are_found(make_hub: MakeHub) -> None:
    hub = make_hub(12, tasks=40, interactions=30, overlay=told())
    introduce(hub, Register="", CNPJ="", CPF="")
    assert hub.run().code == 3
    assert {failure["outcome"] for failure in hub.failures()} == {"invalid"}
    introduce(hub, Register=DOCUMENT)
    assert hub.run().code in (0, 3)

    forgotten(hub)

    assert not list(traces(hub, *WORDS))
    audited(hub)


def test_a_person_without_a_document_is_forgotten_by_the_makeshift_key(make_hub: MakeHub) -> None:
    hub = make_hub(12, tasks=40, interactions=30, overlay=told())
    introduce(hub, Register="", CNPJ="", CPF="")
    assert hub.run().code == 3

    forgotten(hub, f"ploomes:{person(hub)}")

    assert not list(traces(hub, *NAMES, MAIL, PHONE))
    assert not hub.failures()


def test_who_is_in_a_record_on_its_way_cannot_be_forgotten_yet(hub: Hub) -> None:
    hub.faults("milvus", "down")
    assert hub.run("--stream", "interactions").code == 4

    assert hub("forget", "--key", DOCUMENT, "--yes").code == 6

    assert list(traces(hub, *WORDS))
    hub.faults("milvus", "")
    assert hub.run().code == 0
    forgotten(hub)
    assert not list(traces(hub, *WORDS))
    assert made(hub) == Counter(wanted(hub).items())
    audited(hub)


def test_a_message_that_came_twice_is_dropped_even_without_its_archive(hub: Hub) -> None:
    assert hub.run().code == 0
    archives = [file for file in (hub.home / "blobs/archive" / NAME / "tasks").rglob("*") if file.is_file()]
    batch = hub("runs", NAME, "--stream", "tasks").document["runs"][0]["run"] + ".0.0"
    home = EmbeddedHome(hub.home)
    try:
        stored = home.ports.batches.get(batch)
        assert stored is not None
        data = archives[0].read_bytes()[: stored.length]
        home.bus.publish(topic_of(NAME), [Message(data, "tasks-0", {"batch": batch})])
    finally:
        home.close()
    for archive in archives:
        archive.unlink()
    assert [trace for trace in traces(hub, *WORDS) if "bus.db" in trace]

    forgotten(hub)

    assert not list(traces(hub, *WORDS))


def test_a_forgetting_that_was_killed_is_done_by_the_next_one(hub: Hub) -> None:
    chance = random.Random(7)
    assert hub.run("--stream", "tasks").code == 3
    assert hub.run("--stream", "customers").code == 0
    assert hub.run("--stream", "interactions").code == 0
    fetched = {name: each["fetched"] for name, each in audited(hub).items()}
    for _ in range(8):
        forget = hub.start("forget", "--key", DOCUMENT, "--yes")
        while forget.poll() is None and not (hub.home / "state.db-wal").exists():
            sleep(0.001)
        sleep(chance.random() * 0.1)
        forget.kill()
        hub.finish(forget)
        audited(hub)

    forgotten(hub)

    assert not list(traces(hub, *WORDS))
    assert {name: each["fetched"] for name, each in audited(hub).items()} == fetched


def test_what_is_read_again_after_forgetting_is_not_followed_up(make_hub: MakeHub) -> None:
    hub = make_hub(12, tasks=40, overlay=told(on_edit="follow_up"))
    introduce(hub, Register=DOCUMENT)
    assert hub.run().code == 0
    edited(hub)
    assert hub.run().code == 0
    there, followed = made(hub), hub.stats("milvus")["follow_ups"]
    assert followed == len(about(hub, "tasks"))

    forgotten(hub)

    assert not list(traces(hub, *WORDS))
    assert hub.run("--full").code == 0
    assert (made(hub), hub.stats("milvus")["follow_ups"]) == (there, followed)


def test_others_keep_their_records(hub: Hub) -> None:
    for kind in STREAMS:
        hub.run("--stream", kind)
    others = [row for row in hub.rows("ploomes") if row["Id"] != person(hub)]
    kept = set(traces(hub, *(row["Name"] for row in others)))
    failed = [failure for failure in hub.failures() if DOCUMENT not in failure["reason"]]

    forgotten(hub)

    assert set(traces(hub, *(row["Name"] for row in others))) == kept
    assert hub.failures() == failed
