"""What a run reads: the window since the last one, or what somebody asked for."""

from datetime import datetime

from tests.acceptance.conftest import MakeHub
from tests.acceptance.hub import Hub, counts


def test_a_second_run_reads_no_more_than_what_is_new(hub: Hub) -> None:
    assert hub.run().code == 0
    asked = hub.asked("milvus")

    done = hub.run()

    assert (done.code, counts(done.customers)) == (0, {})
    assert hub.asked("milvus") == asked


def test_new_and_edited_contacts_travel_and_the_overlap_is_unchanged(hub: Hub) -> None:
    assert hub.run().code == 0
    hub.control("ploomes", "add", count=7)
    hub.control("ploomes", "edit", count=5, seed=3)
    first = hub.run()
    assert first.code == 0, first
    assert first.customers["delivered"] == first.customers["fetched"] >= 7
    assert hub.at_target() == hub.at_source()

    second = hub.run()

    assert counts(second.customers) == {"fetched": first.customers["fetched"], "unchanged": first.customers["fetched"]}


def test_full_reads_everything_and_sends_nothing_that_is_there(hub: Hub) -> None:
    assert hub.run().code == 0
    before = hub.stats("milvus")

    done = hub.run("--full")

    assert (done.code, counts(done.customers)) == (0, {"fetched": 40, "unchanged": 40})
    after = hub.stats("milvus")
    assert (after["creates"], after["updates"]) == (before["creates"], before["updates"])
    assert hub.audited() == {"fetched": 40, "delivered": 40}


def test_since_reads_from_there_on_and_leaves_the_cursor_alone(hub: Hub) -> None:
    moments = sorted(datetime.fromisoformat(row["LastUpdateDate"]) for row in hub.rows("ploomes"))
    middle = moments[20]
    expected = sum(moment >= middle for moment in moments)

    done = hub.run("--since", middle.isoformat())

    assert (done.code, counts(done.customers)) == (0, {"fetched": expected, "delivered": expected})
    assert hub.status()["cursor"] is None
    assert hub.run().code == 0
    assert hub.at_target() == hub.at_source()
    assert hub.stats("milvus")["creates"] == 40


def test_since_before_the_cursor_reads_again_and_sends_nothing(hub: Hub) -> None:
    assert hub.run().code == 0

    done = hub.run("--since", "2024-02-24T00:00:00-03:00")

    assert (done.code, counts(done.customers)) == (0, {"fetched": 40, "unchanged": 40})


def test_a_limit_reads_so_many_rows_and_leaves_the_cursor_alone(make_hub: MakeHub) -> None:
    hub = make_hub(60, overlay={"source": {"page_size": 25}})
    for limit in (1, 10, 30):
        done = hub.run("--limit", str(limit))
        assert (done.code, done.customers["fetched"]) == (0, limit), done
        assert hub.arrived() == limit
        assert hub.status()["cursor"] is None

    assert hub.run().code == 0

    assert hub.at_target() == hub.at_source()
    assert hub.stats("milvus")["creates"] == 60
    assert hub.audited() == {"fetched": 60, "delivered": 60}


def test_a_limit_beyond_the_source_reads_what_there_is(hub: Hub) -> None:
    done = hub.run("--limit", "1000")

    assert (done.code, counts(done.customers)) == (0, {"fetched": 40, "delivered": 40})


def test_an_empty_source_settles_with_nothing(make_hub: MakeHub) -> None:
    hub = make_hub(0)

    done = hub.run()

    assert (done.code, counts(done.customers), done.customers["balanced"]) == (0, {}, True)
    assert hub.status()["cursor"] is not None
    assert hub.audited() == {}


def test_a_run_of_a_stream_that_is_switched_off_has_to_name_it(make_hub: MakeHub) -> None:
    hub = make_hub(5, overlay={"streams": {"customers": {"enabled": False}}})

    assert hub.run().code == 2
    assert hub.arrived() == 0

    assert hub.run("--stream", "customers").code == 0
    assert hub.arrived() == 5
