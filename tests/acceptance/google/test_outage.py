"""Firestore that answers nobody for a while: messages are refused, and nothing is lost, doubled or forgotten."""

from time import monotonic

from tests.acceptance.google.cloud import MISSED, SINK, SOURCE, Deployed, routed
from tests.acceptance.google.conftest import MakeGoogleHub
from tests.acceptance.hub import wait_until
from tests.emulators import Emulators

REFUSALS = 3
SECONDS = 20.0


def test_a_store_that_is_away_costs_nothing(make_google: MakeGoogleHub, emulators: Emulators) -> None:
    hub = make_google(60, overlay={"sink": {"batch_size": 5, "lanes": 3}}, faults="milvus.slow=0.03,milvus.drop=2%")
    with (
        Deployed(hub, "source", MISSED) as source,
        Deployed(hub, "sink", MISSED) as sink,
        routed(hub, {SOURCE: source, SINK: sink}) as router,
    ):
        assert source.post().status_code == 200
        hub.wait_for_requests("milvus", 10)
        with emulators.firestore.frozen():
            back = monotonic() + SECONDS
            refused = router.answered(SINK).count(503) + REFUSALS
            wait_until(lambda: router.answered(SINK).count(503) >= refused, f"{REFUSALS} refusals")
            assert source.post().status_code == 503
            wait_until(lambda: monotonic() >= back, f"{SECONDS} seconds without a store")
        hub.wait_until_settled(60)
        assert not (source.ended or sink.ended)
    # On a busy machine the framework's server hangs up on whoever it does not hear in time: that is the 502.
    assert set(router.answered(SINK)) <= {204, 502, 503}
    assert hub.at_target() == hub.at_source()
    assert hub.stats("milvus")["creates"] == 60
    assert hub.audited() == {"fetched": 60, "delivered": 60}
    assert not hub.failures()
