"""Runs that meet, and runs that are asked to stop."""

import signal

import pytest

from tests.acceptance.conftest import MakeHub
from tests.acceptance.hub import NAME, Hub, wait_until
from tests.acceptance.proxy import Gate, Proxy

SLOW_SOURCE = {"source": {"page_size": 5}}
SMALL_BATCHES = {"sink": {"batch_size": 5, "lanes": 3}}


def test_a_run_that_meets_another_one_says_who_holds_the_stream(make_hub: MakeHub) -> None:
    hub = make_hub(40, overlay=SLOW_SOURCE)
    gate = Gate(passes=3)
    with Proxy(hub.sandbox.urls["ploomes"], gate) as proxy:
        hub.environment["PLOOMES_URL"] = proxy.url
        first = hub.start("run", NAME)
        wait_until(lambda: gate.holds, "a run in the middle of its pages", first)
        holder = hub.status()["lease"]

        second = hub.run()

        assert second.code == 6, second
        assert second.customers["state"] == "leased"
        assert second.customers["error"]["class"] == "Leased"
        assert holder in second.customers["error"]["message"]
        assert str(first.pid) in holder
        gate.open()
        assert hub.finish(first).code == 0
    assert hub.status()["lease"] is None
    assert hub.at_target() == hub.at_source()
    assert hub.stats("milvus")["creates"] == 40


def test_a_replay_that_meets_a_run_waits_for_another_time(make_hub: MakeHub) -> None:
    hub = make_hub(40, overlay=SLOW_SOURCE, faults="milvus.reject=3")
    assert hub.run().code == 3
    failed = len(hub.failures())
    hub.faults("milvus", "")
    gate = Gate(passes=3)
    with Proxy(hub.sandbox.urls["ploomes"], gate) as proxy:
        hub.environment["PLOOMES_URL"] = proxy.url
        run = hub.start("run", NAME, "--full")
        wait_until(lambda: gate.holds, "a run in the middle of its pages", run)

        assert hub.replay().code == 6

        gate.open()
        assert hub.finish(run).code == 0
    assert len(hub.failures()) == failed
    assert hub.replay().code == 0
    assert hub.at_target() == hub.at_source()


def test_two_runs_that_deliver_side_by_side_send_nothing_twice(make_hub: MakeHub) -> None:
    """The first one has read everything and still delivers when the second one begins."""
    hub = make_hub(120, overlay=SMALL_BATCHES, faults="milvus.drop=2%")
    gate = Gate(passes=30)
    with Proxy(hub.sandbox.urls["milvus"], gate) as proxy:
        hub.environment["MILVUS_URL"] = f"{proxy.url}/api"
        first = hub.start("run", NAME)
        wait_until(lambda: gate.holds and hub.status()["lease"] is None, "a run that has read everything", first)
        asked = hub.asked("ploomes")
        second = hub.start("run", NAME, "--full")
        wait_until(lambda: hub.asked("ploomes") > asked, "a second run that reads", second)
        gate.open()

        assert hub.finish(second).code == 0
        assert hub.finish(first).code == 0
    assert hub.at_target() == hub.at_source()
    assert hub.stats("milvus")["creates"] == 120
    assert hub.audited() == {"fetched": 120, "delivered": 120}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("where", ["reading", "sending"])
def test_a_signal_ends_a_run_after_the_batch_in_hand_and_the_next_run_goes_on(
    make_hub: MakeHub, number: signal.Signals, where: str
) -> None:
    fault = "ploomes.slow=0.3" if where == "reading" else "milvus.slow=0.02"
    hub = make_hub(150, overlay={"source": {"page_size": 10}, **SMALL_BATCHES}, faults=fault)
    run = hub.start("run", NAME)
    if where == "reading":
        wait_until(lambda: hub.asked("ploomes") >= 4, "pages that are read", run)
    else:
        wait_until(lambda: hub.arrived() >= 20, "customers at the target", run)

    run.send_signal(number)
    done = hub.finish(run)

    assert done.code == 128 + number, done
    assert done.customers["state"] == "stopped"
    assert hub.arrived() < 150
    assert hub.audited().get("delivered", 0) == hub.arrived()
    hub.faults("ploomes", "")
    hub.faults("milvus", "")
    following = hub.run()
    assert following.code == 0, following
    assert hub.at_target() == hub.at_source()
    assert hub.stats("milvus")["creates"] == 150
    assert hub.audited() == {"fetched": 150, "delivered": 150}


def test_a_stopped_run_goes_on_under_its_own_name(make_hub: MakeHub) -> None:
    hub = make_hub(100, overlay=SLOW_SOURCE, faults="ploomes.slow=0.3")
    run = hub.start("run", NAME)
    wait_until(lambda: hub.asked("ploomes") >= 4, "pages that are read", run)
    run.send_signal(signal.SIGTERM)
    stopped = hub.finish(run).customers
    hub.faults("ploomes", "")

    done = hub.run()

    assert [(each["run"], each["state"]) for each in done.customers["resumed"]] == [(stopped["run"], "settled")]
    assert done.customers["run"] != stopped["run"]
    assert done.customers["resumed"][0]["fetched"] == 100


def test_a_second_signal_ends_a_run_at_once(make_hub: MakeHub) -> None:
    hub = make_hub(30, faults="milvus.slow=20")
    run = hub.start("run", NAME)
    wait_until(lambda: sent_to(hub), "a request that the target sits on", run)
    run.send_signal(signal.SIGTERM)
    assert run.stderr is not None
    assert "stopping" in run.stderr.readline()

    run.send_signal(signal.SIGTERM)
    done = hub.finish(run)

    assert (done.code, done.document) == (143, {})
    hub.faults("milvus", "")
    assert hub.run().code == 0
    assert hub.at_target() == hub.at_source()


def sent_to(hub: Hub) -> bool:
    """Whether the records are committed; their first request is then under way."""
    return bool(hub.status()["pending"])
