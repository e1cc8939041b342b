"""What the target refuses waits for a replay or for a newer version, and for nothing else."""

import pytest

from tests.acceptance.conftest import MakeHub
from tests.acceptance.hub import NAME, Hub, counts, wait_until

REJECT = "reject=4"


@pytest.fixture
def refused(hub: Hub) -> list[str]:
    """The documents, of forty, that the target refuses in a run that has just ended."""
    hub.faults("milvus", REJECT)
    done = hub.run()
    assert done.code == 3, done
    keys = sorted(failure["key"] for failure in hub.failures())
    assert counts(done.customers) == {"fetched": 40, "delivered": 40 - len(keys), "rejected": len(keys)}
    assert 4 <= len(keys) <= 20
    return keys


def contact_of(hub: Hub, document: str) -> int:
    return next(int(row["Id"]) for row in hub.rows("ploomes") if row["Register"] == document)


def writes(hub: Hub) -> int:
    stats = hub.stats("milvus")
    return int(stats["creates"]) + int(stats["updates"]) + int(stats["refusals"])


def test_a_replay_sends_only_the_failures_and_closes_them(hub: Hub, refused: list[str]) -> None:
    hub.faults("milvus", "")
    before = writes(hub)

    planned = hub("replay", NAME, "--plan")
    assert (planned.code, planned.document["run"], planned.document["planned"]) == (0, None, len(refused))
    assert writes(hub) == before

    done = hub.replay()

    assert done.code == 0, done
    assert (done.document["planned"], done.document["delivered"]) == (len(refused), len(refused))
    assert writes(hub) - before == len(refused)
    assert hub.at_target() == hub.at_source()
    assert not hub.failures()
    assert hub.audited() == {"fetched": 40, "delivered": 40}


def test_a_second_replay_finds_nothing_to_send(hub: Hub, refused: list[str]) -> None:
    hub.faults("milvus", "")
    hub.replay()
    before = writes(hub)

    done = hub.replay()

    assert (done.code, done.document["planned"], done.document["run"]) == (0, 0, None)
    assert writes(hub) == before


def test_a_replay_that_is_refused_again_keeps_each_failure_once(hub: Hub, refused: list[str]) -> None:
    done = hub.replay()

    assert (done.code, done.document["rejected"]) == (3, len(refused))
    again = hub.failures()
    assert sorted(failure["key"] for failure in again) == refused
    assert {failure["attempts"] for failure in again} == {2}
    assert hub.audited() == {"fetched": 40, "delivered": 40 - len(refused), "rejected": len(refused)}


def test_a_replay_takes_only_what_the_filter_names(hub: Hub, refused: list[str]) -> None:
    hub.faults("milvus", "")

    done = hub.replay("--key", refused[0])

    assert (done.code, done.document["planned"], done.document["delivered"]) == (0, 1, 1)
    assert sorted(failure["key"] for failure in hub.failures()) == refused[1:]


def test_a_failure_read_again_is_a_duplicate_and_is_not_sent(hub: Hub, refused: list[str]) -> None:
    before = writes(hub)

    done = hub.run("--full")

    assert counts(done.customers) == {"fetched": 40, "unchanged": 40 - len(refused), "duplicate": len(refused)}
    assert writes(hub) == before
    assert hub.audited() == {"fetched": 40, "delivered": 40 - len(refused), "rejected": len(refused)}


def test_a_newer_version_that_is_delivered_closes_the_older_failure_of_its_key(hub: Hub, refused: list[str]) -> None:
    hub.faults("milvus", "")
    hub.change(contact_of(hub, refused[0]), Name="Nome Corrigido")

    done = hub.run()

    assert (done.code, counts(done.customers)) == (0, {"fetched": 1, "delivered": 1})
    assert sorted(failure["key"] for failure in hub.failures()) == refused[1:]
    assert hub.audited() == {
        "fetched": 41,
        "delivered": 41 - len(refused),
        "superseded": 1,
        "rejected": len(refused) - 1,
    }


def test_an_older_failure_never_overwrites_a_newer_version(hub: Hub, refused: list[str]) -> None:
    """The newer version fails as well and is replayed first; then nothing is left for the older one to do."""
    hub.change(contact_of(hub, refused[0]), Name="Nome Mais Novo")
    assert counts(hub.run().customers) == {"fetched": 1, "rejected": 1}
    hub.faults("milvus", "")

    done = hub.replay("--key", refused[0])

    assert done.code == 0, done
    assert counts(done.document) == {"fetched": 2, "delivered": 1, "superseded": 1}
    assert dict(hub.at_target())[refused[0]] == "Nome Mais Novo"
    assert sorted(failure["key"] for failure in hub.failures()) == refused[1:]
    assert hub.audited()["superseded"] == 1


def test_a_replay_killed_in_the_middle_is_finished_by_the_next_run(make_hub: MakeHub) -> None:
    hub = make_hub(120, overlay={"sink": {"batch_size": 5, "lanes": 3}})
    hub.faults("milvus", "reject=2")
    assert hub.run().code == 3
    failed = len(hub.failures())
    hub.faults("milvus", "drop=10%,slow=0.03")
    there = hub.arrived()
    replay = hub.start("replay", NAME, "--reason", "mended", "--yes")
    wait_until(lambda: hub.arrived() >= there + failed // 3, "a third of the failures at the target", replay)
    replay.kill()
    hub.finish(replay)
    hub.faults("milvus", "")

    done = hub.run()

    assert done.code == 0, done
    assert hub.at_target() == hub.at_source()
    assert not hub.failures()
    assert hub.audited() == {"fetched": 120, "delivered": 120}


def test_a_replay_needs_a_reason_and_a_yes(hub: Hub, refused: list[str]) -> None:
    before = writes(hub)

    assert hub("replay", NAME, "--yes").code == 2
    assert hub("replay", NAME, "--reason", "mended").code == 2

    assert writes(hub) == before
    assert len(hub.failures()) == len(refused)
