"""A person is forgotten: no file holds a trace, and the books still balance."""

import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from infra.local.home import EmbeddedHome
from shared.ports import Message, topic_of
from tests.acceptance.conftest import MakeHub
from tests.acceptance.hub import NAME, Done, Hub, counts, wait_until
from tests.acceptance.servers import Serve

DOCUMENT = "52998224725"
NAMES = ("Zulmira Esquecida", "Zulmira Rebatizada")
MAIL = "zulmira.esquecida@example.org"
ONE_BATCH = {"sink": {"lanes": 1}}
MONITORED = {"monitoring": {"enabled": True}}


@pytest.fixture
def hub(make_hub: MakeHub) -> Hub:
    """Forty customers, of whom one is called by a name that nobody else has."""
    hub = make_hub(40, overlay=ONE_BATCH)
    hub.change(person(hub), TypeId=2, Register=DOCUMENT, Name=NAMES[0], Email=MAIL)
    return hub


def person(hub: Hub) -> int:
    number: int = hub.rows("ploomes")[3]["Id"]
    return number


def traces(hub: Hub, *words: str) -> Iterator[str]:
    """The files that still say something of the person."""
    for file in hub.home.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            for word in words or (DOCUMENT, *NAMES, MAIL):
                if word.encode() in content:
                    yield f"{word} in {file.relative_to(hub.home)}"


def forgotten(hub: Hub, key: str = DOCUMENT) -> Done:
    done = hub("forget", "--key", key, "--yes")
    assert done.code == 0, done
    return done


def test_nothing_is_left_of_a_person_who_was_delivered(hub: Hub) -> None:
    assert hub.run().code == 0
    hub.change(person(hub), Name=NAMES[1])
    assert hub.run().code == 0
    before = hub.audited()
    assert len(set(traces(hub))) >= 4

    done = forgotten(hub)

    assert not list(traces(hub))
    assert DOCUMENT not in str(done.document)
    assert done.document["receipt"]
    assert hub.audited() == before


def test_a_deep_audit_asks_neither_end_for_who_was_forgotten(hub: Hub) -> None:
    assert hub.run().code == 0
    receipt = forgotten(hub).document["receipt"]
    missing = hub("audit", NAME, "--deep").document["unaccounted"]
    assert receipt not in {each["key"] for each in missing}


def test_nothing_is_left_of_a_person_whose_record_failed(hub: Hub) -> None:
    hub.faults("milvus", "reject=1")
    assert hub.run().code == 3
    hub.change(person(hub), Name=NAMES[1])
    assert hub.run().code == 3
    before = hub.audited()

    forgotten(hub)

    assert not list(traces(hub))
    assert hub.audited()["fetched"] == before["fetched"]
    hub.faults("milvus", "")
    assert hub.replay().code == 0
    assert hub.audited()["delivered"] == 39


def test_nothing_is_left_of_a_person_whose_failure_was_replayed_and_closed(hub: Hub) -> None:
    hub.faults("milvus", "reject=1")
    assert hub.run().code == 3
    hub.faults("milvus", "")
    assert hub.replay().code == 0

    forgotten(hub)

    assert not list(traces(hub))
    assert hub.audited() == {"fetched": 40, "delivered": 40}


def test_nothing_is_left_of_a_person_in_the_monitoring_table(hub: Hub) -> None:
    hub.overlay(ONE_BATCH | MONITORED)
    hub.faults("milvus", "reject=1")
    assert hub.run().code == 3
    hub.change(person(hub), Name=NAMES[1])
    assert hub.run().code == 3
    hub.faults("milvus", "")
    assert hub.replay().code == 0
    before = told(hub)

    done = forgotten(hub)

    assert not list(traces(hub))
    assert done.document["erased"]["monitoring rows"] >= 2
    after = told(hub)
    assert sum(int(info) for type_id, info in after if type_id == -2) == hub.audited()["delivered"] == 40
    assert 0 < len(after) < len(before)


def told(hub: Hub) -> list[tuple[int, str]]:
    with closing(sqlite3.connect(hub.home / "state.db")) as connection:
        return connection.execute("SELECT type_id, info FROM tcrm_monitoring_table").fetchall()


def test_nothing_is_left_of_what_failed_before_the_person_had_a_document(make_hub: MakeHub) -> None:
    hub = make_hub(40, overlay=ONE_BATCH, undocumented=1)
    nameless = next(row["Id"] for row in hub.rows("ploomes") if not row["Register"])
    hub.change(nameless, Name=NAMES[0], Email=MAIL)
    assert hub.run().code == 3
    hub.change(nameless, TypeId=2, Register=DOCUMENT, Name=NAMES[1])
    assert hub.run().code == 0

    forgotten(hub)

    assert not list(traces(hub))
    assert hub.audited()["fetched"] == 41


def test_a_person_without_a_document_is_forgotten_by_the_key_of_the_failure(make_hub: MakeHub) -> None:
    hub = make_hub(40, overlay=ONE_BATCH, undocumented=1)
    nameless = next(row["Id"] for row in hub.rows("ploomes") if not row["Register"])
    hub.change(nameless, Name=NAMES[0], Email=MAIL)
    assert hub.run().code == 3

    forgotten(hub, f"ploomes:{nameless}")

    assert not list(traces(hub, *NAMES, MAIL, f"ploomes:{nameless}"))
    assert not hub.failures()
    assert hub.audited()["fetched"] == 40


def test_nothing_is_left_of_a_message_that_came_twice(hub: Hub) -> None:
    """At least once means that a settled batch may still wait on the bus."""
    assert hub.run().code == 0
    (archive,) = [file for file in (hub.home / "blobs").rglob("*") if file.is_file()]
    batch = hub("show", hub.status()["last_run"]).document["batches"][0]["id"]
    home = EmbeddedHome(hub.home)
    try:
        home.bus.publish(topic_of(NAME), [Message(archive.read_bytes(), "customers-0", {"batch": batch})])
    finally:
        home.close()
    assert [trace for trace in traces(hub) if "bus.db" in trace]

    forgotten(hub)

    assert not list(traces(hub))
    assert hub.audited() == {"fetched": 40, "delivered": 40}
    assert hub.run().code == 0
    assert not hub.stats("milvus")["repeated_documents"]


def test_who_is_still_on_the_way_cannot_be_forgotten_yet(hub: Hub) -> None:
    hub.faults("milvus", "down")
    assert hub.run().code == 4

    done = hub("forget", "--key", DOCUMENT, "--yes")

    assert done.code == 6, done
    hub.faults("milvus", "")
    assert hub.run().code == 0
    forgotten(hub)
    assert not list(traces(hub))


def test_the_others_of_an_archive_stay_deliverable(make_hub: MakeHub) -> None:
    """The person's batch is settled, others of the same archive are not: they are delivered from what is left of it."""
    hub = make_hub(20, overlay={"sink": {"lanes": 1, "batch_size": 5}}, faults="milvus.unauthorized=25")
    row = hub.rows("ploomes")[3]
    assert hub.run().code == 4
    assert hub.audited()["pending"] >= 5

    forgotten(hub, row["Register"])

    assert not list(traces(hub, row["Register"], row["Email"]))
    hub.faults("milvus", "")
    assert hub.run().code == 0
    assert hub.at_target() == hub.at_source()
    assert hub.stats("milvus")["creates"] == 20
    assert hub.audited() == {"fetched": 20, "delivered": 20}


def test_a_forgetting_that_was_killed_is_done_by_the_next_one(hub: Hub) -> None:
    chance = random.Random(50)
    hub.faults("milvus", "reject=3")
    assert hub.run().code == 3
    hub.change(person(hub), Name=NAMES[1])
    assert hub.run().code in (0, 3)
    fetched = hub.audited()["fetched"]
    for _ in range(6):
        forget = hub.start("forget", "--key", DOCUMENT, "--yes")
        while forget.poll() is None and not (hub.home / "state.db-wal").exists():
            time.sleep(0.001)
        time.sleep(chance.random() * 0.05)
        forget.kill()
        hub.finish(forget)

    forgotten(hub)

    assert not list(traces(hub))
    assert hub.audited()["fetched"] == fetched


def test_a_person_is_forgotten_beside_a_serve_that_goes_on(hub: Hub) -> None:
    hub.overlay({**ONE_BATCH, "streams": {"customers": {"schedule": None}}})
    with Serve(hub) as serve:
        assert serve.post(f"/functions/{NAME}/source").status_code == 200
        wait_until(lambda: hub.audited().get("delivered") == 40, "every customer")

        forgotten(hub)

        assert not list(traces(hub))
        assert serve.end() == 0
    assert hub.audited() == {"fetched": 40, "delivered": 40}


def test_a_person_who_changes_afterwards_is_met_again(hub: Hub) -> None:
    """Forgetting is no ban: the source still holds the person, and the target is asked before anything is created."""
    assert hub.run().code == 0
    forgotten(hub)
    hub.change(person(hub), Name=NAMES[1])

    done = hub.run()

    assert (done.code, counts(done.customers)) == (0, {"fetched": 1, "delivered": 1})
    assert not hub.stats("milvus")["repeated_documents"]
    assert hub.audited()["delivered"] == 41


def test_forgetting_has_to_be_confirmed_and_leaves_strangers_alone(hub: Hub) -> None:
    assert hub.run().code == 0
    before = hub.audited()

    assert hub("forget", "--key", DOCUMENT).code == 2
    assert list(traces(hub))
    assert hub("forget", "--key", "00000000191", "--yes").code in (0, 2)

    assert hub.audited() == before
    assert list(traces(hub))
