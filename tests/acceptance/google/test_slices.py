"""A source that takes longer than a function lives is read slice by slice."""

import json
from base64 import b64decode, b64encode
from pathlib import Path
from threading import Event

from tests.acceptance.google.cloud import SINK, SOURCE, Deployed, routed
from tests.acceptance.google.conftest import MakeGoogleHub
from tests.acceptance.hub import NAME, PATIENCE, wait_until

SLICED = Path(__file__).parent / "functions" / "sliced" / "main.py"
FIVE_GROUPS = {"source": {"page_size": 20}, "sink": {"batch_size": 10, "lanes": 1}}
SCHEDULED = {
    "X_CloudScheduler_ScheduleTime": "2026-02-24T12:00:00Z",
    "X_CloudScheduler_JobName": f"{NAME}-customers",
}


def test_a_source_of_five_slices_is_read_by_five_continuations_whoever_else_calls(make_google: MakeGoogleHub) -> None:
    hub = make_google(200, overlay=FIVE_GROUPS)
    continuations: dict[int, dict[str, object]] = {}
    third, go_on = Event(), Event()

    def judge(path: str, body: bytes) -> int | None:
        if path == SOURCE:
            message = json.loads(b64decode(json.loads(body)["message"]["data"]))
            continuations[message["slice"]] = message
            if message["slice"] == 3:
                third.set()
                go_on.wait(PATIENCE)
        return None

    with (
        Deployed(hub, "source", SLICED) as source,
        Deployed(hub, "sink") as sink,
        routed(hub, {SOURCE: source, SINK: sink}, judge) as router,
    ):
        first = source.post(**SCHEDULED)
        assert first.status_code == 202, first.text
        run = first.json()["streams"]["customers"]["run"]
        wait_until(third.is_set, "the third continuation")

        again = source.post(**SCHEDULED)

        assert (again.status_code, again.json()["streams"]["customers"]["run"]) == (202, run)
        go_on.set()
        hub.wait_until_settled(200)
        wait_until(lambda: "run_read" in source.said, "the end of the run")
        asked = hub.asked("ploomes")
        for foreign in ({}, {"slice": 99}, {"epoch": 0}, {"run": "customers-20260101T000000Z"}):
            message = json.dumps({**continuations[5], **foreign}).encode()
            push = {"message": {"data": b64encode(message).decode()}}
            assert source.post(body=json.dumps(push).encode()).status_code == 204
        assert hub.asked("ploomes") == asked
    assert sorted(continuations) == [1, 2, 3, 4, 5]
    # The duplicate read what the continuation that was held back was meant to read. One that comes before the slice
    # before it has let go of the stream is brought again.
    assert 204 in router.answered(SOURCE)
    assert set(router.answered(SOURCE)) <= {200, 204, 503}
    assert [each["run"] for each in hub("runs", NAME).document["runs"]] == [run]
    assert hub.at_target() == hub.at_source()
    assert hub.stats("milvus")["creates"] == 200
    assert hub.audited() == {"fetched": 200, "delivered": 200}
