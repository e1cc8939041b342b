"""Clean-up takes nothing that a later run, replay or audit could need."""

import os

from tests.acceptance.conftest import MakeHub
from tests.acceptance.hub import NAME, Hub, counts


def archives(hub: Hub) -> int:
    return sum(len(files) for _, _, files in os.walk(hub.home / "blobs"))


def test_archives_of_settled_runs_go_and_nothing_is_sent_twice_afterwards(hub: Hub) -> None:
    assert hub.run().code == 0
    assert archives(hub) > 0

    done = hub("cleanup", NAME, "--older-than", "0s")

    assert (done.code, archives(hub)) == (0, 0)
    assert counts(hub.run("--full").customers) == {"fetched": 40, "unchanged": 40}
    assert hub.stats("milvus")["creates"] == 40
    assert hub.audited() == {"fetched": 40, "delivered": 40}


def test_archives_of_what_is_pending_stay_and_are_delivered(make_hub: MakeHub) -> None:
    hub = make_hub(60, overlay={"source": {"page_size": 20}, "sink": {"batch_size": 5}})
    assert hub.run().code == 0
    hub.control("ploomes", "edit", count=30, seed=8)
    hub.faults("milvus", "down")
    assert hub.run().code == 4
    before = archives(hub)

    assert hub("cleanup", "--all", "--older-than", "0s").code == 0

    assert 0 < archives(hub) < before
    hub.faults("milvus", "")
    assert hub.run().code == 0
    assert hub.at_target() == hub.at_source()
    assert hub.stats("milvus")["updates"] == 30
    assert hub.audited() == {"fetched": 90, "delivered": 90}


def test_what_a_killed_process_was_writing_goes(hub: Hub) -> None:
    assert hub.run().code == 0
    left = hub.home / "blobs" / ".0123456789abcdef0123456789abcdef"
    left.write_bytes(b"half of it")

    assert hub("cleanup", NAME).code == 0

    assert not left.exists()
    assert archives(hub) > 0


def test_what_is_young_stays(hub: Hub) -> None:
    assert hub.run().code == 0
    before = archives(hub)

    for command in (("cleanup", NAME), ("cleanup", "--all"), ("cleanup", NAME, "--older-than", "1h")):
        assert hub(*command).code == 0

    assert archives(hub) == before


def test_open_failures_stay_and_can_be_replayed(hub: Hub) -> None:
    hub.faults("milvus", "reject=4")
    assert hub.run().code == 3
    failures = hub.failures()
    assert hub("cleanup", "--all", "--older-than", "0s").code == 0
    assert hub.failures() == failures
    hub.faults("milvus", "")

    assert hub.replay().code == 0

    assert hub.at_target() == hub.at_source()
    assert hub("cleanup", "--all", "--older-than", "0s").code == 0
    assert not hub.failures()
    assert hub.audited() == {"fetched": 40, "delivered": 40}


def test_cleanup_wants_to_know_of_what(hub: Hub) -> None:
    assert hub("cleanup").code == 2
    assert hub("cleanup", NAME, "--all").code == 2
