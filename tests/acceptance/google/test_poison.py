"""A record that ends its sink each time: a dead letter, failures that are known, and a replay once it is mended."""

from base64 import b64decode
from datetime import UTC, datetime
from json import loads
from pathlib import Path

from google.pubsub_v1 import PubsubMessage

from shared.ports import dead_topic, topic_of
from shared.record import Envelope
from tests.acceptance.google.cloud import DEAD_LETTER, OPERATIONS, SINK, SOURCE, Deployed, routed
from tests.acceptance.google.conftest import MakeGoogleHub
from tests.acceptance.google.functions.poison import POISON
from tests.acceptance.hub import NAME

POISONED = Path(__file__).parent / "functions" / "poisoned" / "main.py"
DEATHS = 2


def test_a_batch_that_ends_its_sink_becomes_failures_and_a_replay_cures_them(make_google: MakeGoogleHub) -> None:
    hub = make_google(40, overlay={"sink": {"batch_size": 10, "lanes": 2}})
    hub.change(hub.rows("ploomes")[7]["Id"], Name=POISON)
    deadly: dict[str, PubsubMessage] = {}

    def judge(path: str, body: bytes) -> int | None:
        """After some deaths the message goes to the dead letters. Pub/Sub does that after a hundred; the emulator,
        where messages are ordered, never."""
        message = loads(body)["message"]
        data = b64decode(message["data"])
        if router.routes.get(path) is not poisoned or POISON.encode() not in data:
            return None
        if router.answered(SINK).count(502) < DEATHS:
            return None
        attributes = {
            **message["attributes"],
            "CloudPubSubDeadLetterSourceDeliveryCount": "100",
            "CloudPubSubDeadLetterSourceSubscription": topic_of(NAME),
            "CloudPubSubDeadLetterSourceSubscriptionProject": hub.project,
            "CloudPubSubDeadLetterSourceTopicPublishTime": datetime.now(UTC).isoformat(),
        }
        deadly[message["messageId"]] = PubsubMessage(data=data, attributes=attributes)
        hub.publish(dead_topic(topic_of(NAME)), deadly[message["messageId"]])
        return 204

    with (
        Deployed(hub, "source") as source,
        Deployed(hub, "sink", POISONED, 1) as poisoned,
        Deployed(hub, "sink", number=2) as mended,
        Deployed(hub, "dead_letter", OPERATIONS) as dead_letter,
        routed(hub, {SOURCE: source, SINK: poisoned, DEAD_LETTER: dead_letter}, judge) as router,
    ):
        assert source.post().status_code == 200
        hub.wait_until_settled(40)

        (message,) = deadly.values()
        records = [record.key for record in Envelope.from_bytes(message.data).records]
        failures = hub.failures()
        assert sorted(failure["key"] for failure in failures) == sorted(records)
        assert {failure["outcome"] for failure in failures} == {"exhausted"}
        assert hub.audited() == {"fetched": 40, "delivered": 40 - len(records), "exhausted": len(records)}
        assert router.answered(DEAD_LETTER)[-1] == 204

        router.routes[SINK] = mended
        replayed = hub.replay()

        assert replayed.code == 0, replayed
        assert replayed.document["planned"] == len(records)
    assert hub.at_target() == hub.at_source()
    assert hub.stats("milvus")["creates"] == 40
    assert hub.audited() == {"fetched": 40, "delivered": 40}
    assert not hub.failures()
