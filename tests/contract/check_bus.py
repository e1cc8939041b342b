"""Bus: at least once, in order per ordering key, whatever happens to its consumers and to the clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from shared.ports import Message
from tests.contract.homes import Consumer, Received, Trait
from tests.contract.suite import Around, answering, at_once, breaks, contract, errors_of
from tests.contract.world import TOPIC, World


class BareMessages(Around):
    def publish(self, topic: str, messages: Sequence[Message]) -> None:
        self.inner.publish(topic, [Message(message.data, message.ordering_key) for message in messages])


class Backwards(Around):
    def publish(self, topic: str, messages: Sequence[Message]) -> None:
        self.inner.publish(topic, messages[::-1])


class OneTopic(Around):
    def publish(self, topic: str, messages: Sequence[Message]) -> None:
        self.inner.publish(TOPIC, messages)


class LosesSome(Around):
    def publish(self, topic: str, messages: Sequence[Message]) -> None:
        self.inner.publish(topic, [m for m in messages if not m.data.endswith(b"7")])


class NoLanes(Around):
    """Every message has a lane of its own."""

    def publish(self, topic: str, messages: Sequence[Message]) -> None:
        for number, message in enumerate(messages):
            self.inner.publish(topic, [msgspec.structs.replace(message, ordering_key=f"{number}")])


class OneLane(Around):
    def publish(self, topic: str, messages: Sequence[Message]) -> None:
        self.inner.publish(topic, [msgspec.structs.replace(message, ordering_key="all") for message in messages])


class LosesTheRefused(Around):
    def refuse(self, received: Received, wait: float) -> None:
        self.inner.acknowledge(received)


class AcknowledgesNothing(Around):
    def acknowledge(self, received: Received) -> None:
        self.inner.refuse(received, 0.0)


class PutsItAtTheEnd(Around):
    def refuse(self, received: Received, wait: float) -> None:
        self.inner.acknowledge(received)
        self.home.bus.publish(TOPIC, [received.message])


class NeverWaits(Around):
    def refuse(self, received: Received, wait: float) -> None:
        self.inner.refuse(received, 0.0)


class BlindForTheOld(Around):
    """Drops what it may have had before."""

    def receive(self) -> Received | None:
        received: Received | None = self.inner.receive()
        if received is not None and received.attempts > 1:
            self.inner.acknowledge(received)
            return None
        return received


class CountsNothing(Around):
    def receive(self) -> Received | None:
        received: Received | None = self.inner.receive()
        return received and Received(received.message, 1, received.handle)


class TrustsTheClock(Around):
    """Gives a refused message when the clock says that it is time, and does not see that the clock was set back."""

    def refuse(self, received: Received, wait: float) -> None:
        self.due = self.home.clock.now().timestamp() + wait
        self.inner.refuse(received, wait)

    def receive(self) -> Received | None:
        if self.home.clock.now().timestamp() < self.__dict__.get("due", 0.0):
            return None
        received: Received | None = self.inner.receive()
        return received


def messages(lane: str, *names: str) -> list[Message]:
    return [Message(f"{lane}{name}".encode(), lane) for name in names]


def take(consumer: Consumer) -> Received:
    received = consumer.receive()
    assert received is not None, "nothing came"
    return received


def take_all(consumer: Consumer) -> list[str]:
    """Receives and acknowledges until nothing comes."""
    found = []
    while (received := consumer.receive()) is not None:
        consumer.acknowledge(received)
        found.append(received.message.data.decode())
        assert found.count(found[-1]) < 5, "it never ends"
    return found


@contract(breaks("drops the attributes", bus=BareMessages), breaks("loses some", bus=LosesSome))
def check_a_message_arrives_as_it_was_published(world: World) -> None:
    sent = [
        Message(bytes(range(256)) * 20, "customers-1", {"run": "r", "batch": 'Zoë/"x" 7'}),
        Message(b"7", "customers-2", {}),
        Message(b"no key 7"),
    ]
    world.here.bus.publish(TOPIC, sent)
    consumer = world.consumer_there()
    received = []
    for _ in sent:
        received.append(take(consumer))
        consumer.acknowledge(received[-1])
    assert (
        sorted((each.message for each in received), key=lambda m: m.ordering_key, reverse=True)
        == sent[1::-1] + sent[2:]
    )


@contract(breaks("carries all in one topic", bus=OneTopic))
def check_a_topic_carries_its_own_messages_only(world: World) -> None:
    world.here.bus.publish("shop-continue", messages("a", "1"))
    world.here.bus.publish(TOPIC, messages("a", "2"))
    assert take_all(world.consumer(TOPIC)) == ["a2"]
    world.here.bus.publish(TOPIC, messages("a", "3"))
    assert sorted(take_all(world.consumer("shop-continue", TOPIC))) == ["a1", "a3"]


@contract(breaks("delivers backwards", bus=Backwards))
def check_messages_of_a_lane_come_in_the_order_of_their_publishing(world: World) -> None:
    world.here.bus.publish(TOPIC, [m for n in range(6) for lane in "ab" for m in messages(lane, f"{n}")])
    world.there.bus.publish(TOPIC, messages("a", "6", "7"))
    found = take_all(world.consumer())
    assert [name for name in found if name[0] == "a"] == [f"a{n}" for n in range(8)]
    assert [name for name in found if name[0] == "b"] == [f"b{n}" for n in range(6)]


@contract(breaks("acknowledges nothing", consumer=AcknowledgesNothing))
def check_an_acknowledged_message_is_gone(world: World) -> None:
    world.here.bus.publish(TOPIC, messages("a", "1", "2"))
    consumer = world.consumer()
    consumer.acknowledge(take(consumer))
    assert take_all(world.consumer_there()) == ["a2"]
    assert world.consumer_there().receive() is None


@contract(breaks("loses what is refused", consumer=LosesTheRefused))
def check_a_refused_message_comes_again_until_it_is_taken(world: World) -> None:
    world.here.bus.publish(TOPIC, messages("a", "1"))
    for consumer in (world.consumer(), world.consumer_there(), world.consumer()):
        received = take(consumer)
        assert received.message == messages("a", "1")[0]
        consumer.refuse(received, 10.0)
        world.clock.advance(10.0)
    assert take_all(world.consumer()) == ["a1"]


@contract(breaks("puts it at the end", consumer=PutsItAtTheEnd))
def check_a_refused_message_comes_before_later_ones_of_its_lane(world: World) -> None:
    world.here.bus.publish(TOPIC, messages("a", "1", "2", "3"))
    consumer = world.consumer()
    consumer.refuse(take(consumer), 10.0)
    world.there.bus.publish(TOPIC, messages("a", "4"))
    world.clock.advance(10.0)
    assert take_all(world.consumer()) == ["a1", "a2", "a3", "a4"]


@contract(breaks("has one lane", bus=OneLane))
def check_other_lanes_are_not_held_up(world: World) -> None:
    world.here.bus.publish(TOPIC, [m for lane in "abc" for m in messages(lane, "1", "2")])
    consumer = world.consumer()
    in_hand, refused_one = take(consumer), take(consumer)
    consumer.refuse(refused_one, 600.0)
    free = ({"a", "b", "c"} - {in_hand.message.ordering_key, refused_one.message.ordering_key}).pop()
    assert [name for name in take_all(consumer) if name[0] == free] == [f"{free}1", f"{free}2"]


@contract(breaks("knows no lanes", bus=NoLanes))
def check_a_lane_has_one_message_in_hand_at_a_time(world: World) -> None:
    world.here.bus.publish(TOPIC, messages("a", "1", "2"))
    consumer = world.consumer()
    first = take(consumer)
    assert world.consumer().receive() is None
    assert world.consumer_there().receive() is None
    consumer.acknowledge(first)
    assert take_all(world.consumer_there()) == ["a2"]


@contract(
    breaks("knows no lanes", bus=NoLanes),
    breaks("has one lane", bus=OneLane),
    needs=(Trait.HANDS_OUT_EVERY_LANE,),
)
def check_consumers_at_once_share_lanes_and_never_a_message(world: World) -> None:
    world.here.bus.publish(TOPIC, [m for lane in "abc" for m in messages(lane, "1", "2", "3")])
    consumers = [world.consumer() for _ in range(4)] + [world.consumer_there() for _ in range(4)]
    results = at_once(*(consumer.receive for consumer in consumers))
    assert errors_of(results) == []
    assert sorted(r.message.data for r in results if r is not None) == [b"a1", b"b1", b"c1"]


@contract(breaks("drops what came before", consumer=BlindForTheOld))
def check_the_message_of_a_dead_consumer_comes_back(world: World) -> None:
    world.here.bus.publish(TOPIC, messages("a", "1", "2"))
    child = world.child("receive")
    assert child.said == {"data": "a1"}
    assert world.consumer().receive() is None
    world.kill(child)
    assert take_all(world.consumer()) == ["a1", "a2"]


@contract(breaks("counts nothing", consumer=CountsNothing), needs=(Trait.COUNTS_ATTEMPTS,))
def check_attempts_count_up(world: World) -> None:
    world.here.bus.publish(TOPIC, messages("a", "1", "2"))
    attempts = []
    for consumer in (world.consumer(), world.consumer_there(), world.consumer()):
        received = take(consumer)
        attempts.append(received.attempts)
        consumer.refuse(received, 0.0)
    child = world.child("receive")
    assert child.said == {"data": "a1"}
    world.kill(child)
    consumer = world.consumer()
    received = take(consumer)
    assert [*attempts, received.attempts] == [1, 2, 3, 5]
    consumer.acknowledge(received)
    assert take(consumer).attempts == 1


@contract(breaks("never waits", consumer=NeverWaits), needs=(Trait.HONOURS_WAIT,))
def check_a_refused_message_waits_as_long_as_was_asked(world: World) -> None:
    for wait in (10.0, 3600.0, 100_000.0):
        world.here.bus.publish(TOPIC, messages(f"lane {wait}", "1"))
        consumer = world.consumer()
        consumer.refuse(take(consumer), wait)
        assert world.consumer().receive() is None
        world.clock.advance(wait - 1.0)
        assert world.consumer().receive() is None
        world.clock.advance(1.0)
        assert take_all(world.consumer_there()) == [f"lane {wait}1"]


@contract(breaks("trusts the clock", consumer=TrustsTheClock))
def check_a_clock_that_is_set_back_hides_nothing(world: World) -> None:
    consumer = world.consumer()
    for back in (30.0, 300.0, 7200.0, 1_000_000.0):
        world.here.bus.publish(TOPIC, messages("a", "1", "2"))
        consumer.refuse(take(consumer), 10.0)
        world.clock.set_back(back)
        world.clock.advance(10.0)
        assert take_all(consumer) == ["a1", "a2"]


@contract(
    breaks("says all", bus=answering("carries", lambda _: {"one", "two", "three", "elsewhere", "nobody's"})),
    breaks("says none", bus=answering("carries", lambda _: set())),
    needs=(Trait.SAYS_WHAT_IT_CARRIES,),
)
def check_the_bus_says_what_it_carries(world: World) -> None:
    def carried() -> set[str] | None:
        found: set[str] | None = world.there.bus.carries(TOPIC, ["one", "two", "three", "elsewhere", "nobody's"])
        return found

    for topic, lane, batch in (
        (TOPIC, "a", "one"),
        (TOPIC, "a", "two"),
        (TOPIC, "b", "three"),
        ("other", "a", "elsewhere"),
    ):
        world.here.bus.publish(topic, [Message(b"x", lane, {"batch": batch})])
    assert carried() == {"one", "two", "three"}
    consumer = world.consumer()
    first, third = take(consumer), take(consumer)
    consumer.refuse(first, 10.0)
    assert carried() == {"one", "two", "three"}
    consumer.acknowledge(third)
    assert carried() == {"one", "two"}
    assert world.here.bus.carries(TOPIC, []) == set()


class SaysNothingIsCarried(Around):
    def carries(self, topic: str, batches: Sequence[str]) -> Any:
        return set()


@contract(breaks("says that nothing is carried", bus=SaysNothingIsCarried))
def check_the_bus_never_denies_a_batch_that_it_carries(world: World) -> None:
    world.here.bus.publish(TOPIC, [Message(b"x", "a", {"batch": "one"})])
    assert world.there.bus.carries(TOPIC, ["one"]) in (None, {"one"})


@contract(breaks("loses some", bus=LosesSome), breaks("delivers backwards", bus=Backwards))
def check_publishers_at_once_lose_nothing_and_keep_their_order(world: World) -> None:
    child = world.child("publish", lane="far", count=30)

    def publish(number: int) -> None:
        home = (world.here, world.there)[number % 2]
        for turn in range(15):
            home.bus.publish(TOPIC, messages(f"lane {number}", f" {2 * turn}", f" {2 * turn + 1}"))

    assert errors_of(at_once(*(lambda n=n: publish(n) for n in range(6)))) == []
    assert child.said == {"published": 30}
    child.end()
    found = take_all(world.consumer())
    assert len(found) == 7 * 30
    for lane in ("far", *(f"lane {number}" for number in range(6))):
        assert [name for name in found if name.startswith(f"{lane} ")] == [f"{lane} {n}" for n in range(30)]
