"""What happens to the hub's own store and settings between two runs."""

import subprocess

import pytest

from tests.acceptance.conftest import MakeHub
from tests.acceptance.hub import NAME, ROOT, Hub


def test_a_bus_that_lost_everything_is_filled_again_from_the_archive(make_hub: MakeHub) -> None:
    hub = make_hub(60, overlay={"sink": {"batch_size": 5}}, faults="milvus.down")
    assert hub.run().code == 4
    for file in hub.home.glob("bus.db*"):
        file.unlink()
    hub.faults("milvus", "")

    assert hub.run().code == 0

    assert hub.at_target() == hub.at_source()
    assert hub.stats("milvus")["creates"] == 60
    assert hub.audited() == {"fetched": 60, "delivered": 60}


@pytest.mark.parametrize("lanes", [1, 2, 7])
def test_another_number_of_lanes_does_not_let_versions_overtake_each_other(make_hub: MakeHub, lanes: int) -> None:
    """Older versions wait in the lanes of before when newer ones are put into the lanes of now."""
    hub = make_hub(80, overlay={"sink": {"lanes": 5, "batch_size": 5}}, faults="milvus.down")
    assert hub.run().code == 4
    hub.control("ploomes", "edit", count=80, seed=1)
    hub.overlay({"sink": {"lanes": lanes, "batch_size": 5}})
    hub.faults("milvus", "slow=0.005")

    assert hub.run().code == 0

    assert hub.stats("milvus")["repeated_documents"] == {}
    assert hub.at_target() == hub.at_source()
    assert hub.audited()["fetched"] == 160


def test_smaller_pages_and_batches_between_two_halves_of_a_run_change_nothing(make_hub: MakeHub) -> None:
    hub = make_hub(100, overlay={"source": {"page_size": 20}}, faults="ploomes.unauthorized=4")
    assert hub.run().code == 4
    hub.overlay({"source": {"page_size": 7}, "sink": {"batch_size": 3}})
    hub.faults("ploomes", "")

    assert hub.run().code == 0

    assert hub.at_target() == hub.at_source()
    assert hub.stats("milvus")["creates"] == 100
    assert hub.audited() == {"fetched": 100, "delivered": 100}


def test_a_home_that_cannot_be_one_is_refused_in_words(hub: Hub) -> None:
    hub.home.write_text("no folder")

    done = hub.run()

    assert done.code in (2, 4), done
    assert str(hub.home) in done.document["error"]["message"]
    assert done.document["error"]["cure"]


def test_a_store_that_is_no_store_is_refused_in_words_and_left_alone(hub: Hub) -> None:
    hub.home.mkdir()
    store = hub.home / "state.db"
    store.write_bytes(b"this is no database " * 500)

    done = hub.run()

    assert done.code == 4, done
    assert done.document["error"]["class"] == "StoreUnavailable"
    assert store.read_bytes() == b"this is no database " * 500
    assert hub.arrived() == 0


def test_an_overlay_that_is_not_there_is_refused_in_words(hub: Hub) -> None:
    hub.environment["WAYBILL_OVERLAY"] += ".missing"

    done = hub.run()

    assert done.code == 2, done
    assert "overlay.yaml.missing" in done.document["error"]["message"]


def test_a_reader_that_goes_away_is_no_error(hub: Hub) -> None:
    hub.faults("milvus", "reject=1")
    assert hub.run().code == 3

    done = subprocess.run(
        f"'{ROOT / 'waybill'}' failures {NAME} --json | head -n 1",
        shell=True,
        env=hub.environment,
        capture_output=True,
        text=True,
        check=True,
    )

    assert (done.stdout, done.stderr) == ("{\n", "")
