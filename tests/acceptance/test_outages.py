"""Systems that are down, slow or locked: a run stops without using anything up, and the next one goes on."""

import signal

import pytest
import requests

from tests.acceptance.conftest import MakeHub
from tests.acceptance.hub import Hub, counts, wait_until
from tests.acceptance.proxy import Proxy

IMPATIENT = {"sink": {"max_attempts": 2, "batch_size": 10}}


def goes_on(hub: Hub, customers: int) -> None:
    """The next run delivers all that is left, everything once."""
    done = hub.run()
    assert done.code == 0, done
    assert hub.at_target() == hub.at_source()
    assert hub.stats("milvus")["creates"] == customers
    assert not hub.failures()
    assert hub.audited()["delivered"] == customers


@pytest.mark.parametrize("after", [0, 1, 37])
def test_a_revoked_key_of_the_target_consumes_nothing(make_hub: MakeHub, after: int) -> None:
    hub = make_hub(60, overlay=IMPATIENT, faults=f"milvus.unauthorized={after}")

    done = hub.run()

    assert done.code == 4, done
    assert (done.customers["state"], done.customers["error"]["class"]) == ("failed", "AuthError")
    assert done.customers["error"]["cure"]
    assert not hub.failures()
    assert hub.audited() == {
        name: count
        for name, count in {"fetched": 60, "delivered": hub.arrived(), "pending": 60 - hub.arrived()}.items()
        if count
    }
    hub.faults("milvus", "")
    goes_on(hub, 60)


@pytest.mark.parametrize("after", [0, 3])
def test_a_revoked_key_of_the_source_stops_the_run_and_not_the_next_one(make_hub: MakeHub, after: int) -> None:
    hub = make_hub(60, overlay={"source": {"page_size": 10}}, faults=f"ploomes.unauthorized={after}")

    done = hub.run()

    assert done.code == 4, done
    assert done.customers["error"]["class"] == "AuthError"
    assert hub.status()["cursor"] is None
    hub.faults("ploomes", "")
    goes_on(hub, 60)


@pytest.mark.parametrize("system", ["milvus", "ploomes"])
def test_a_system_that_is_down_exhausts_nothing(make_hub: MakeHub, system: str) -> None:
    hub = make_hub(60, overlay=IMPATIENT, faults=f"{system}.down")
    for _ in range(3):
        done = hub.run()
        assert done.code == 4, done
        assert done.customers["error"]["message"]
    assert hub.audited() == ({"fetched": 60, "pending": 60} if system == "milvus" else {})
    assert not hub.failures()
    hub.faults(system, "")
    goes_on(hub, 60)


def test_a_target_that_nobody_serves_exhausts_nothing(make_hub: MakeHub) -> None:
    hub = make_hub(60, overlay=IMPATIENT)
    right = hub.environment["MILVUS_URL"]
    hub.environment["MILVUS_URL"] = "http://127.0.0.1:1/api"

    done = hub.run()

    assert done.code == 4, done
    assert hub.audited() == {"fetched": 60, "pending": 60}
    hub.environment["MILVUS_URL"] = right
    goes_on(hub, 60)


def test_a_target_that_goes_down_in_the_middle_exhausts_nothing(make_hub: MakeHub) -> None:
    hub = make_hub(60, overlay=IMPATIENT)

    def down_after_thirty(method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        return (503, b"") if hub.arrived() >= 30 else None

    right = hub.environment["MILVUS_URL"]
    with Proxy(hub.sandbox.urls["milvus"], down_after_thirty) as proxy:
        hub.environment["MILVUS_URL"] = f"{proxy.url}/api"
        for _ in range(3):
            done = hub.run()
            assert done.code == 4, done
    assert not hub.failures()
    hub.environment["MILVUS_URL"] = right
    goes_on(hub, 60)


def test_a_record_that_keeps_failing_while_others_pass_is_exhausted(make_hub: MakeHub) -> None:
    hub = make_hub(30, overlay={"sink": {"max_attempts": 3}})
    victim = sorted(hub.at_source())[7][0]

    def refuse(method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        return (503, b"") if method != "GET" and victim.encode() in body else None

    right = hub.environment["MILVUS_URL"]
    with Proxy(hub.sandbox.urls["milvus"], refuse) as proxy:
        hub.environment["MILVUS_URL"] = f"{proxy.url}/api"
        done = hub.run()

    assert done.code == 3, done
    assert counts(done.customers) == {"fetched": 30, "delivered": 29, "exhausted": 1}
    (failure,) = hub.failures()
    assert (failure["key"], failure["outcome"], failure["http_status"]) == (victim, "exhausted", 503)
    hub.environment["MILVUS_URL"] = right
    assert hub.replay().code == 0
    assert hub.at_target() == hub.at_source()
    assert hub.audited() == {"fetched": 30, "delivered": 30}


def test_an_answer_that_the_target_does_not_document_is_unknown_and_is_not_sent_again(make_hub: MakeHub) -> None:
    hub = make_hub(30)
    victim = sorted(hub.at_source())[7][0]
    sent = []

    def puzzle(method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        if method == "POST" and victim.encode() in body:
            sent.append(path)
            return 200, b'{"ok": true}'
        return None

    with Proxy(hub.sandbox.urls["milvus"], puzzle) as proxy:
        hub.environment["MILVUS_URL"] = f"{proxy.url}/api"
        done = hub.run()
        again = hub.run("--full")

    assert done.code == 5, done
    assert counts(done.customers) == {"fetched": 30, "delivered": 29, "unknown": 1}
    assert counts(again.customers) == {"fetched": 30, "unchanged": 29, "duplicate": 1}
    assert len(sent) == 1
    (failure,) = hub.failures("--outcome", "unknown")
    assert failure["key"] == victim


def test_a_replay_of_what_is_unknown_looks_before_it_sends(make_hub: MakeHub) -> None:
    """The target did what it was told and answered in riddles. Unknown outranks rejected in the exit code."""
    hub = make_hub(30, faults="milvus.reject=7")

    def riddle(method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        if method != "POST":
            return None
        headers = {"Authorization": hub.sandbox.milvus.token}
        answer = requests.post(hub.sandbox.urls["milvus"] + path, data=body, headers=headers, timeout=30)
        return (200, b'"done"') if answer.ok else None

    right = hub.environment["MILVUS_URL"]
    with Proxy(hub.sandbox.urls["milvus"], riddle) as proxy:
        hub.environment["MILVUS_URL"] = f"{proxy.url}/api"
        done = hub.run()
    assert done.code == 5, done
    assert done.customers["unknown"] + done.customers["rejected"] == 30
    assert done.customers["rejected"] > 0
    hub.environment["MILVUS_URL"] = right
    hub.faults("milvus", "")

    assert hub.replay().code == 0

    assert hub.stats("milvus")["creates"] == 30
    assert hub.at_target() == hub.at_source()
    assert hub.audited() == {"fetched": 30, "delivered": 30}


@pytest.mark.parametrize(
    "fault", ["milvus.429=100%,milvus.retry_after=290", "ploomes.429=100%,ploomes.retry_after=290"]
)
def test_a_run_that_waits_as_it_was_asked_to_ends_when_it_is_told_to(make_hub: MakeHub, fault: str) -> None:
    """It waits longer than this test has patience."""
    hub = make_hub(30, faults=fault)
    system = fault.partition(".")[0]
    run = hub.start("run", "ploomes_to_milvus")
    wait_until(lambda: hub.asked(system) > 0, "a request that is refused", run)

    run.send_signal(signal.SIGTERM)

    assert hub.finish(run).code == 143
    hub.faults(system, "")
    goes_on(hub, 30)


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_create_whose_fate_is_open_is_looked_for_before_it_is_sent_again(make_hub: MakeHub, status: int) -> None:
    """The write was done, and a gateway answered for the target."""
    hub = make_hub(30)
    answered = 0

    def gateway(method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        nonlocal answered
        if method == "POST" and answered < 5:
            answered += 1
            headers = {"Authorization": hub.sandbox.milvus.token}
            requests.post(hub.sandbox.urls["milvus"] + path, data=body, headers=headers, timeout=30).raise_for_status()
            return status, b"<html></html>"
        return None

    with Proxy(hub.sandbox.urls["milvus"], gateway) as proxy:
        hub.environment["MILVUS_URL"] = f"{proxy.url}/api"
        done = hub.run()

    assert done.code == 0, done
    assert counts(done.customers) == {"fetched": 30, "delivered": 30}
    assert answered == 5
    assert hub.at_target() == hub.at_source()
