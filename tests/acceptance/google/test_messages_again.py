"""Messages that come twice, at once, out of order, late, or all from the beginning: nothing is doubled."""

import random
from concurrent.futures import ThreadPoolExecutor

from tests.acceptance.google.cloud import SINK, SOURCE, Deployed, Tap, poor_push, rich_push
from tests.acceptance.google.conftest import MakeGoogleHub
from tests.acceptance.servers import Serve

SMALL = {"sink": {"batch_size": 5, "lanes": 2}}


def test_messages_out_of_order_late_and_twice_double_nothing(make_google: MakeGoogleHub) -> None:
    chance = random.Random(50)
    hub = make_google(40, overlay=SMALL)
    hub.make_topic()
    tap = Tap(hub)
    with Deployed(hub, "source") as source, Deployed(hub, "sink") as sink:
        assert source.post().status_code == 200
        changed = len(hub.control("ploomes", "edit", count=10, seed=3)["documents"])
        assert source.post().status_code == 200
        batches = list(hub.stored.batches.unsettled("ploomes_to_milvus"))
        messages = {message.attributes["batch"]: message for message in tap.take(len(batches))}
        newest_first = [messages[batch.id] for batch in reversed(batches)]

        for attempt, message in enumerate(newest_first, start=1):
            push = rich_push(message, attempt) if attempt % 2 else poor_push(message)
            with ThreadPoolExecutor(2) as pool:
                answers = {answer.status_code for answer in pool.map(lambda push: sink.post(body=push), [push] * 2)}
            # Whoever comes second finds the batch in another's hands, or settled.
            assert answers <= {204, 503}
            assert 204 in answers
        asked = hub.asked("milvus")
        late = [rich_push(message, 7) for message in newest_first * 2]
        chance.shuffle(late)
        assert {sink.post(body=push).status_code for push in late} == {204}

    assert hub.asked("milvus") == asked
    assert hub.at_target() == hub.at_source()
    assert hub.stats("milvus")["creates"] == 40
    assert hub.audited() == {"fetched": 40 + changed, "delivered": 40, "superseded": changed}


def test_a_seek_to_the_beginning_of_the_topic_doubles_nothing(make_google: MakeGoogleHub) -> None:
    hub = make_google(40, overlay=SMALL)
    hub.make_topic()
    tap = Tap(hub)
    with Serve(hub) as serve:
        assert serve.post(SOURCE).status_code == 200
        hub.wait_until_settled(40)
        changed = len(hub.control("ploomes", "edit", count=10, seed=3)["documents"])
        assert serve.post(SOURCE).status_code == 200
        hub.wait_until_settled(40 + changed)
        batches = len({message.message_id for message in tap.take(9)})
        asked = hub.asked("milvus")

        tap.seek_to_the_beginning()

        again = tap.take(batches)
        assert {serve.post(SINK, rich_push(message, 1)).status_code for message in again} == {204}
        assert serve.end() == 0
    assert hub.asked("milvus") == asked
    assert hub.at_target() == hub.at_source()
    assert hub.audited() == {"fetched": 40 + changed, "delivered": 40 + changed}
