"""The functions as they are deployed: processes of the functions-framework, several of them on one home."""

import random
import threading

import pytest
import requests

from tests.acceptance.conftest import MakeHub
from tests.acceptance.hub import Hub, counts, wait_until
from tests.acceptance.proxy import Gate, Proxy
from tests.acceptance.servers import Function, Subscription, subscription

SMALL = {"source": {"page_size": 25}, "sink": {"batch_size": 10, "lanes": 6}}


def test_sinks_killed_while_they_send_deliver_everything_once(make_hub: MakeHub) -> None:
    chance = random.Random(30)
    faults = "milvus.slow=0.03,milvus.drop=2%,milvus.429=1%,milvus.retry_after=0,short_pages=5%"
    hub = make_hub(600, overlay=SMALL, faults=faults)
    with Function(hub, "source") as source, Function(hub, "sink", 1) as one, Function(hub, "sink", 2) as two:
        answer = source.post()
        assert answer.status_code == 200, answer.text
        report = answer.json()["streams"]["customers"]
        assert counts(report) == {"fetched": 600, "pending": 600}
        with subscription(hub, [one, two]) as bus:
            for victims in ([one], [two], *[[one, two]] * 4):
                hub.wait_for_requests("milvus", chance.randrange(20, 80))
                assert bus.waiting, "the kill came too late"
                for victim in victims:
                    victim.kill()
                for victim in victims:
                    victim.start()
            hub.faults("milvus", "drop=2%")
            wait_until(lambda: not bus.waiting, "an empty subscription")
            assert set(bus.answers) <= {0, 204, 503}
            assert 0 in bus.answers

        assert hub.at_target() == hub.at_source()
        assert hub.stats("milvus")["creates"] == 600
        assert hub.audited() == {"fetched": 600, "delivered": 600}

        changed = hub.control("ploomes", "edit", count=30, seed=3)["documents"]
        assert source.post().json()["streams"]["customers"]["fetched"] == len(changed)
        hub.faults("milvus", "")
        with subscription(hub, [one, two]) as bus:
            wait_until(lambda: not bus.waiting, "an empty subscription")

    assert hub.at_target() == hub.at_source()
    assert hub.stats("milvus")["updates"] == 30
    assert hub.audited() == {"fetched": 630, "delivered": 630}
    assert hub.run().code == 0


def test_a_source_killed_while_it_reads_is_resumed_by_the_next_trigger(make_hub: MakeHub) -> None:
    hub = make_hub(200, overlay={"source": {"page_size": 10}, "sink": {"batch_size": 5, "lanes": 2}})
    hub.faults("ploomes", "slow=0.05")
    with Function(hub, "source") as source, Function(hub, "sink") as sink:

        def trigger() -> None:
            try:
                source.post()
            except requests.ConnectionError:
                """Killed, as it should be."""

        for pages in (3, 12):
            under_way = threading.Thread(target=trigger)
            under_way.start()
            hub.wait_for_requests("ploomes", pages)
            source.kill()
            under_way.join()
            source.start()
        hub.faults("ploomes", "")
        answer = source.post().json()["streams"]["customers"]
        with subscription(hub, [sink]) as bus:
            wait_until(lambda: not bus.waiting, "an empty subscription")

    assert answer["fetched"] + sum(each["fetched"] for each in answer["resumed"]) == 200
    assert hub.at_target() == hub.at_source()
    assert hub.stats("milvus")["creates"] == 200
    assert hub.audited() == {"fetched": 200, "delivered": 200}


def test_a_trigger_that_comes_twice_starts_one_run(hub: Hub) -> None:
    with Function(hub, "source") as source:
        first = source.post(X_CloudScheduler_ScheduleTime="2026-02-24T12:00:00Z").json()["streams"]["customers"]
        again = source.post(X_CloudScheduler_ScheduleTime="2026-02-24T12:00:00Z")

    assert again.status_code == 200
    assert again.json()["streams"]["customers"]["run"] == first["run"]
    assert [run["run"] for run in hub("runs", "ploomes_to_milvus").document["runs"]] == [first["run"]]
    assert hub.run().code == 0
    assert hub.audited() == {"fetched": 40, "delivered": 40}


def test_a_trigger_during_a_run_is_told_that_the_stream_is_leased(make_hub: MakeHub) -> None:
    hub = make_hub(40, overlay={"source": {"page_size": 5}})
    gate = Gate(passes=3)
    answers: list[int] = []
    with Proxy(hub.sandbox.urls["ploomes"], gate) as proxy:
        hub.environment["PLOOMES_URL"] = proxy.url
        with Function(hub, "source") as source:
            under_way = threading.Thread(target=lambda: answers.append(source.post().status_code))
            under_way.start()
            wait_until(lambda: gate.holds, "a run in the middle of its pages")
            assert source.post().status_code == 409
            gate.open()
            under_way.join()
    assert answers == [200]


def test_what_is_no_trigger_and_no_envelope_is_refused(hub: Hub) -> None:
    with Function(hub, "source") as source, Function(hub, "sink") as sink:
        for body in (b"nonsense", b'{"streem": "customers"}', b'{"stream": "customer"}', b'{"limit": 0}', b"[]"):
            answer = source.post(body=body)
            assert answer.status_code == 400, body
            assert answer.headers["Content-Type"].startswith("application/problem+json")
        for body in (b"nonsense", b"{}", b'{"message": {"data": "bm9uc2Vuc2U="}}'):
            assert sink.post(body=body).status_code == 400, body
        for function in (source, sink):
            assert requests.get(function.url, timeout=30).status_code == 405
    assert hub.arrived() == 0


@pytest.mark.parametrize("fault", ["down", "unauthorized=0"])
def test_a_sink_refuses_a_message_while_its_target_is_closed_and_consumes_nothing(
    make_hub: MakeHub, fault: str
) -> None:
    hub = make_hub(40, overlay={"sink": {"max_attempts": 2, "lanes": 2}}, faults=f"milvus.{fault}")
    with Function(hub, "source") as source, Function(hub, "sink") as sink:
        assert source.post().status_code == 200
        with subscription(hub, [sink]) as bus:
            wait_until(lambda: len(bus.answers) >= 10, "ten deliveries")
            assert set(bus.answers) == {503}
            assert hub.audited() == {"fetched": 40, "pending": 40}
            hub.faults("milvus", "")
            wait_until(lambda: not bus.waiting, "an empty subscription")
    assert hub.at_target() == hub.at_source()
    assert not hub.failures()
    assert hub.audited() == {"fetched": 40, "delivered": 40}


def test_a_message_that_comes_again_after_it_was_settled_is_taken_and_not_sent(hub: Hub) -> None:
    with Function(hub, "source") as source, Function(hub, "sink") as sink:
        assert source.post().status_code == 200
        bus = Subscription(hub, [sink])
        try:
            taken = []
            while (claimed := bus.home.bus.claim([bus.topic])) is not None:
                taken.append(claimed)
                bus.push(claimed, sink)
            asked = hub.asked("milvus")
            for claimed in taken * 2:
                bus.push(claimed, sink)
            assert set(bus.answers) == {204}
        finally:
            bus.home.close()
    assert hub.asked("milvus") == asked
    assert hub.audited() == {"fetched": 40, "delivered": 40}
