"""`waybill serve` with the gcp backend: only beside emulators, and as often as one likes."""

import pytest

from infra.gcp.names import subscription_path, topic_path
from tests.acceptance.google.cloud import SOURCE, GoogleHub
from tests.acceptance.google.conftest import MakeGoogleHub
from tests.acceptance.hub import NAME
from tests.acceptance.servers import Serve

TOPICS = [f"{NAME}-continue", f"{NAME}-continue-dead", f"{NAME}-records", f"{NAME}-records-dead"]


@pytest.mark.parametrize("missing", ["PUBSUB_EMULATOR_HOST", "FIRESTORE_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT"])
def test_serve_makes_nothing_outside_an_emulator(google: GoogleHub, missing: str) -> None:
    del google.environment[missing]

    done = google("serve", "--port", "0")

    assert done.code == 2, done
    error = done.document["error"]
    assert missing in error["message"] + error["cure"]
    assert not google.topics()


def test_a_second_start_finds_everything_in_place_and_delivers_what_was_left(make_google: MakeGoogleHub) -> None:
    hub = make_google(40, faults="milvus.down")
    with Serve(hub) as serve:
        assert {topic_path(hub.project, topic) for topic in TOPICS} <= set(hub.topics())
        assert {subscription_path(hub.project, topic) for topic in TOPICS} <= set(hub.subscriptions())
        assert serve.post(SOURCE).status_code == 200
        hub.wait_for_requests("milvus", 4)
        assert serve.end() == 0, serve.said
    assert {batch.state for batch in hub.stored.batches.unsettled(NAME)} == {"open"}, "a batch was left in hand"
    hub.faults("milvus", "")

    with Serve(hub) as serve:
        assert {topic_path(hub.project, topic) for topic in TOPICS} <= set(hub.topics())
        assert {subscription_path(hub.project, topic) for topic in TOPICS} <= set(hub.subscriptions())
        hub.wait_until_settled(40)
        assert serve.end() == 0, serve.said

    assert hub.at_target() == hub.at_source()
    assert hub.audited() == {"fetched": 40, "delivered": 40}
