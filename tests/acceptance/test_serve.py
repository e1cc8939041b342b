"""`waybill serve`: every function on one machine, killed and started again."""

import random
import signal

import pytest
import requests

from tests.acceptance.conftest import MakeHub
from tests.acceptance.hub import NAME, Hub, wait_until
from tests.acceptance.servers import Serve

SOURCE = f"/functions/{NAME}/source"
UNSCHEDULED = {"streams": {"customers": {"schedule": None}}}
KILLS = 5


def settled(hub: Hub, delivered: int) -> bool:
    counts = hub.audited()
    return counts.get("delivered", 0) >= delivered and not counts.get("pending")


def test_a_serve_killed_while_it_sends_delivers_everything_once(make_hub: MakeHub) -> None:
    chance = random.Random(40)
    small = {"source": {"page_size": 25}, "sink": {"batch_size": 10, "lanes": 6}}
    hub = make_hub(600, overlay=UNSCHEDULED | small, faults="milvus.slow=0.03,milvus.drop=2%,503=1%,short_pages=5%")
    with Serve(hub) as serve:
        for _ in range(KILLS):
            answer = serve.post(SOURCE)
            assert answer.status_code == 200, answer.text
            hub.wait_for_requests("milvus", chance.randrange(20, 100))
            assert hub.arrived() < 600, "the kill came too late"
            serve.kill()
            serve.start()
        hub.faults("milvus", "drop=2%")
        wait_until(lambda: settled(hub, 600), "six hundred customers")
        assert hub.at_target() == hub.at_source()
        assert hub.stats("milvus")["creates"] == 600

        hub.faults("milvus", "")
        hub.control("ploomes", "edit", count=30, seed=3)
        assert serve.post(SOURCE).json()["streams"]["customers"]["fetched"] == 30
        wait_until(lambda: settled(hub, 630), "thirty changed customers")
        assert serve.end() == 0
    assert hub.at_target() == hub.at_source()
    assert hub.stats("milvus")["updates"] == 30
    assert hub.audited() == {"fetched": 630, "delivered": 630}
    assert hub.status()["state"] == "settled"


def test_failures_are_replayed_over_http(make_hub: MakeHub) -> None:
    hub = make_hub(40, overlay=UNSCHEDULED, faults="milvus.reject=4")
    with Serve(hub) as serve:
        assert serve.post(SOURCE).status_code == 200
        wait_until(lambda: not hub.audited().get("pending"), "the outcome of every record")
        failed = len(hub.failures())
        hub.faults("milvus", "")
        assert serve.post("/functions/operations/replay", {"integration": NAME}).status_code == 400

        answer = serve.post("/functions/operations/replay", {"integration": NAME, "reason": "validation mended"})

        assert answer.status_code == 200
        assert sum(run["planned"] for run in answer.json()["runs"]) == failed > 0
        wait_until(lambda: settled(hub, 40), "every customer")
        assert serve.post("/functions/operations/sweep").status_code == 200
        assert serve.post("/functions/operations/cleanup", {"older_than": "0s"}).status_code == 200
    assert not hub.failures()
    assert hub.at_target() == hub.at_source()


def test_a_target_that_is_down_for_a_while_costs_nothing(make_hub: MakeHub) -> None:
    hub = make_hub(40, overlay=UNSCHEDULED | {"sink": {"max_attempts": 2}}, faults="milvus.down")
    with Serve(hub) as serve:
        assert serve.post(SOURCE).status_code == 200
        wait_until(lambda: hub.stats("milvus")["statuses"].get("503", 0) >= 40, "forty refusals")
        assert hub.audited() == {"fetched": 40, "pending": 40}
        hub.faults("milvus", "")
        wait_until(lambda: settled(hub, 40), "every customer")
    assert hub.at_target() == hub.at_source()
    assert not hub.failures()


def test_a_run_beside_serve_sends_nothing_twice(make_hub: MakeHub) -> None:
    hub = make_hub(150, overlay=UNSCHEDULED | {"sink": {"batch_size": 10}}, faults="milvus.slow=0.005,milvus.drop=2%")
    with Serve(hub) as serve:
        assert serve.post(SOURCE).status_code == 200
        assert hub.run("--full").code == 0
        wait_until(lambda: not hub.audited().get("pending"), "the outcome of every record")
    assert hub.at_target() == hub.at_source()
    assert hub.stats("milvus")["creates"] == 150


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_ends_well_when_it_is_told_to_and_the_rest_waits(make_hub: MakeHub, number: signal.Signals) -> None:
    hub = make_hub(150, overlay=UNSCHEDULED | {"sink": {"batch_size": 5}}, faults="milvus.slow=0.02")
    with Serve(hub) as serve:
        assert serve.post(SOURCE).status_code == 200
        wait_until(lambda: hub.arrived() >= 10, "customers at the target")

        assert serve.end(number) == 0, serve.said

    arrived = hub.arrived()
    assert arrived < 150
    assert hub.audited() == {"fetched": 150, "delivered": arrived, "pending": 150 - arrived}
    hub.faults("milvus", "")
    assert hub.run().code == 0
    assert hub.at_target() == hub.at_source()
    assert hub.stats("milvus")["creates"] == 150


def test_paths_and_methods_that_nobody_serves_are_said_to_be_so(make_hub: MakeHub) -> None:
    hub = make_hub(5, overlay=UNSCHEDULED)
    with Serve(hub) as serve:
        assert serve.post("/functions/nobody/source").status_code == 404
        assert serve.post("/functions/operations/nothing").status_code == 404
        assert serve.post(f"/functions/{NAME}/sink", b"nonsense").status_code == 400
        assert serve.post("/functions/operations/sweep", {"integraton": NAME}).status_code == 400
        assert requests.get(serve.url + SOURCE, timeout=30).status_code == 405
        front = requests.get(serve.url, timeout=30)
        assert (front.status_code, SOURCE in front.text) == (200, True)
        assert serve.url.startswith("http://127.0.0.1:")


def test_what_is_not_configured_is_left_out_and_said(make_hub: MakeHub) -> None:
    hub = make_hub(5, overlay=UNSCHEDULED)
    del hub.environment["MILVUS_TOKEN"]
    with Serve(hub) as serve:
        assert f"{NAME} is not served" in serve.said
        assert "MILVUS_TOKEN" in serve.said
        assert serve.post(SOURCE).status_code == 404
        assert serve.end() == 0


def test_a_port_that_is_taken_is_refused_before_anything_begins(make_hub: MakeHub) -> None:
    hub = make_hub(5, overlay=UNSCHEDULED)
    port = hub.sandbox.urls["ploomes"].rpartition(":")[2]

    done = hub("serve", "--port", port)

    assert done.code == 2, done
    assert port in str(done.document)


def test_the_log_names_no_person_and_no_secret(make_hub: MakeHub) -> None:
    hub = make_hub(40, overlay=UNSCHEDULED, faults="milvus.reject=4", invalid=2)
    with Serve(hub) as serve:
        assert serve.post(SOURCE).status_code == 200
        wait_until(lambda: not hub.audited().get("pending"), "the outcome of every record")
        assert serve.end() == 0
        for row in hub.rows("ploomes"):
            for word in (row["Register"], row["Name"], row["Email"]):
                assert word not in serve.said
        for secret in (hub.sandbox.ploomes.key, hub.sandbox.milvus.token):
            assert secret not in serve.said
