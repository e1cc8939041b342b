"""Sources that answer nonsense, hide rows, or change while they are read."""

import time

import pytest

from tests.acceptance.conftest import MakeHub
from tests.acceptance.hub import counts, wait_until

SMALL_PAGES = {"source": {"page_size": 10, "retry": {"attempts": 8, "wait": "20ms"}}}


@pytest.mark.parametrize("fault", ["not_json", "no_value"])
def test_a_page_that_is_no_page_is_asked_for_again(make_hub: MakeHub, fault: str) -> None:
    hub = make_hub(80, overlay=SMALL_PAGES, faults=f"ploomes.{fault}=20%")

    done = hub.run()

    assert done.code == 0, done
    assert hub.stats("ploomes")["struck"][fault] > 0
    assert hub.at_target() == hub.at_source()
    assert hub.audited() == {"fetched": 80, "delivered": 80}


@pytest.mark.parametrize("fault", ["not_json", "no_value"])
def test_a_source_that_only_answers_nonsense_fails_the_run_and_loses_nothing(make_hub: MakeHub, fault: str) -> None:
    hub = make_hub(30, faults=f"ploomes.{fault}=100%")

    done = hub.run()

    assert done.code == 4, done
    assert done.customers["error"]["class"] == "ProtocolError"
    assert hub.status()["cursor"] is None
    hub.faults("ploomes", "")
    assert hub.run().code == 0
    assert hub.at_target() == hub.at_source()


@pytest.mark.parametrize("fault", ["not_json", "no_value"])
def test_a_search_of_the_target_that_answers_nonsense_decides_nothing(make_hub: MakeHub, fault: str) -> None:
    hub = make_hub(60, faults=f"milvus.{fault}=20%,milvus.drop=10%")

    done = hub.run()

    assert done.code == 0, done
    assert hub.stats("milvus")["struck"][fault] > 0
    assert hub.at_target() == hub.at_source()
    assert hub.audited() == {"fetched": 60, "delivered": 60}


@pytest.mark.parametrize("page_size", [7, 300])
def test_rows_without_id_or_date_are_invalid_and_their_page_goes_on(make_hub: MakeHub, page_size: int) -> None:
    hub = make_hub(40, overlay={"source": {"page_size": page_size}}, faults="ploomes.bad_rows=4")

    done = hub.run()

    assert done.code == 3, done
    assert counts(done.customers) == {"fetched": 40, "delivered": 36, "invalid": 4}
    failures = hub.failures()
    assert sorted(failure["number"] for failure in failures) == [112, 112, 114, 114]
    assert all(failure["key"].startswith("ploomes:") and failure["position"] for failure in failures)
    assert set(hub.at_target()) < set(hub.at_source())
    assert hub.audited() == {"fetched": 40, "delivered": 36, "invalid": 4}

    again = hub.run("--full")

    assert counts(again.customers) == {"fetched": 40, "unchanged": 36, "duplicate": 4}
    assert len(hub.failures()) == 4


def test_a_row_that_gets_its_date_back_is_delivered_and_closes_its_failure(make_hub: MakeHub) -> None:
    hub = make_hub(40, faults="ploomes.bad_rows=4")
    assert hub.run().code == 3
    hub.faults("ploomes", "")

    done = hub.run("--full")

    assert counts(done.customers) == {"fetched": 40, "unchanged": 36, "delivered": 4}
    assert hub.at_target() == hub.at_source()
    assert {failure["number"] for failure in hub.failures()} <= {114}


def test_a_total_that_keeps_disagreeing_trips_the_guard_and_leaves_the_cursor_alone(make_hub: MakeHub) -> None:
    hub = make_hub(40, faults="ploomes.wrong_total=5")

    done = hub.run()

    assert done.code == 9, done
    assert (done.customers["state"], done.customers["error"]["class"]) == ("failed", "GuardTripped")
    assert hub.status()["cursor"] is None
    hub.faults("ploomes", "")
    assert hub.run().code == 0
    assert hub.status()["cursor"] is not None
    assert hub.at_target() == hub.at_source()
    assert hub.stats("milvus")["creates"] == 40
    assert hub.audited()["delivered"] == 40


def test_a_guard_that_trips_later_leaves_the_cursor_where_it_was(make_hub: MakeHub) -> None:
    hub = make_hub(40)
    assert hub.run().code == 0
    cursor = hub.status()["cursor"]
    hub.control("ploomes", "edit", count=5, seed=1)
    hub.faults("ploomes", "wrong_total=2")

    assert hub.run().code == 9

    assert hub.status()["cursor"] == cursor
    hub.faults("ploomes", "")
    assert hub.run().code == 0
    assert hub.at_target() == hub.at_source()
    assert hub.stats("milvus")["updates"] == 5


def test_a_cap_on_results_hides_nothing(make_hub: MakeHub) -> None:
    hub = make_hub(90, overlay={"source": {"page_size": 20}}, faults="ploomes.cap=30")

    done = hub.run()

    assert done.code == 0, done
    assert hub.at_target() == hub.at_source()


@pytest.mark.parametrize("page_size", [1, 7, 20])
def test_equal_timestamps_across_pages_lose_nothing(make_hub: MakeHub, page_size: int) -> None:
    hub = make_hub(60, overlay={"source": {"page_size": page_size}}, faults="ploomes.ties=25,short_pages=20%")

    done = hub.run()

    assert done.code == 0, done
    assert counts(done.customers) == {"fetched": 60, "delivered": 60}
    assert hub.at_target() == hub.at_source()


def test_rows_that_change_or_vanish_while_they_are_paged_are_not_lost(make_hub: MakeHub) -> None:
    hub = make_hub(150, overlay={"source": {"page_size": 10}}, faults="ploomes.churn=60%,short_pages=20%")
    for _ in range(3):
        assert hub.run().code == 0
    hub.faults("ploomes", "")

    last = hub.run()

    assert last.code == 0, last
    churned = hub.stats("ploomes")["churned"]
    assert churned["touched"] and churned["vanished"]
    assert set(hub.at_target()) >= set(hub.at_source())
    assert not hub.stats("milvus")["repeated_documents"]
    assert hub.audited().keys() <= {"fetched", "delivered", "unchanged", "duplicate", "superseded"}


def test_versions_that_become_visible_late_are_met_by_the_overlap(make_hub: MakeHub) -> None:
    hub = make_hub(40)
    assert hub.run().code == 0
    hub.faults("ploomes", "late=1")
    hub.control("ploomes", "edit", count=6, seed=2)
    delivered = 0

    def all_six() -> bool:
        nonlocal delivered
        done = hub.run()
        assert done.code == 0, done
        delivered += int(done.customers["delivered"])
        return delivered >= 6

    wait_until(all_six, "the six edited contacts")

    assert delivered == 6
    assert hub.at_target() == hub.at_source()
    assert hub.stats("milvus")["updates"] == 6


@pytest.mark.parametrize("seconds", [-3_600, 240])
def test_a_source_whose_clock_is_wrong_loses_nothing(make_hub: MakeHub, seconds: int) -> None:
    hub = make_hub(30, clock=lambda: time.time() + seconds)
    for seed in range(3):
        assert hub.run().code == 0
        assert hub.at_target() == hub.at_source()
        hub.control("ploomes", "edit", count=4, seed=seed)
    assert hub.run().code == 0

    assert hub.at_target() == hub.at_source()
    assert hub.stats("milvus")["updates"] == 12


def test_a_record_that_fits_no_message_is_invalid_and_large_ones_travel(make_hub: MakeHub) -> None:
    """A message takes less than 1 MB. Forty notes of 200 kB each are eight of the messages that one lane would fill."""
    hub = make_hub(40, overlay={"sink": {"lanes": 1}})
    rows = hub.rows("ploomes")
    for row in rows:
        hub.change(row["Id"], Note="n" * 200_000)
    hub.change(rows[7]["Id"], Note="n" * 1_000_000)

    done = hub.run()

    assert done.code == 3, done
    assert counts(done.customers) == {"fetched": 40, "delivered": 39, "invalid": 1}
    (failure,) = hub.failures("--number", "115")
    assert failure["key"] == rows[7]["Register"]
    assert len(hub.rows("milvus")) == 39
    hub.change(rows[7]["Id"], Note="")
    assert hub.run().code == 0
    assert not hub.failures()
    assert hub.at_target() == hub.at_source()
