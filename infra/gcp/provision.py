"""Makes topics and subscriptions in the Pub/Sub emulator, as Terraform makes them on Google Cloud.

Each topic has an ordered push subscription of the same name, which never expires, waits 600 seconds for an answer, and
after 100 deliveries hands the message to a dead-letter topic, which has a subscription too: nothing is dropped. The
monitoring rows wait in a subscription that is pulled: no emulator has a BigQuery to write them to.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping
from datetime import timedelta
from typing import Any, Final

import msgspec

from infra.gcp.calls import Lazy, Patience
from infra.gcp.clients import connect_publisher, connect_subscriber
from infra.gcp.errors import Conflict, translated
from infra.gcp.names import subscription_path, topic_path
from shared.errors import ConfigError
from shared.ports import continuation_topic, dead_topic, monitoring_topic, topic_of

ACK_SECONDS: Final = 600
MOST_DELIVERIES: Final = 100
"""The most that Pub/Sub allows: attempts are counted by the engine, and an outage ends in no dead letter."""
LONGEST_BACKOFF: Final = timedelta(seconds=600)
RETENTION: Final = timedelta(days=7)


class Subscription(msgspec.Struct, frozen=True):
    """A topic and where its messages are pushed; nowhere if the path is empty. A dead letter's subscription has no
    dead letters of its own."""

    topic: str
    path: str
    backoff: timedelta
    dead: str = ""


def subscriptions(integration: str, redeliver_after: float, *, monitored: bool = False) -> list[Subscription]:
    """What an integration needs. `redeliver_after`: seconds until a refused message may come again."""
    records, continuation = topic_of(integration), continuation_topic(integration)
    backoff = min(LONGEST_BACKOFF, timedelta(seconds=redeliver_after))
    return [
        *([Subscription(monitoring_topic(integration), "", backoff)] if monitored else ()),
        Subscription(dead_topic(records), "/functions/operations/dead_letter", backoff),
        Subscription(dead_topic(continuation), "", backoff),
        Subscription(records, f"/functions/{integration}/sink", backoff, dead_topic(records)),
        Subscription(continuation, f"/functions/{integration}/source", backoff, dead_topic(continuation)),
    ]


def provision(
    project: str, integrations: Mapping[str, float], push_base_url: str, monitored: Container[str] = ()
) -> None:
    """Makes what is not there yet for these integrations (name -> `redeliver_after`), some of them `monitored`, and
    points every push to the functions below this address. Raises ConfigError where there is no emulator."""
    if not os.environ.get("PUBSUB_EMULATOR_HOST"):
        raise ConfigError(
            "topics and subscriptions are made in an emulator only, and PUBSUB_EMULATOR_HOST is not set",
            cure="start the emulator, or apply the Terraform configuration",
        )
    wanted = [
        each for name, wait in integrations.items() for each in subscriptions(name, wait, monitored=name in monitored)
    ]
    _Maker(project, push_base_url.rstrip("/")).make(wanted)


class _Maker:
    def __init__(self, project: str, base: str) -> None:
        self._project = project
        self._base = base
        self._options = Patience().options()
        self._publisher = Lazy(connect_publisher)
        self._subscriber = Lazy(connect_subscriber)

    def make(self, wanted: Iterable[Subscription]) -> None:
        try:
            for each in wanted:
                self._topic(each.topic)
                self._subscription(each)
        finally:
            self._publisher.close()
            self._subscriber.close()

    def _topic(self, topic: str) -> None:
        try:
            with translated(f"making the topic {topic}"):
                self._publisher().create_topic(name=topic_path(self._project, topic), **self._options)
        except Conflict:
            return

    def _subscription(self, wanted: Subscription) -> None:
        """One that is there keeps its messages; only its address may have changed, with the port of whoever serves."""
        path, push = subscription_path(self._project, wanted.topic), self._push(wanted)
        try:
            with translated(f"making the subscription {wanted.topic}"):
                self._subscriber().create_subscription(request=self._request(wanted), **self._options)
        except Conflict:
            with translated(f"pointing the subscription {wanted.topic}"):
                asked = {"subscription": path, "push_config": push}
                self._subscriber().modify_push_config(request=asked, **self._options)

    def _push(self, wanted: Subscription) -> dict[str, str]:
        return {"push_endpoint": f"{self._base}{wanted.path}"} if wanted.path else {}

    def _request(self, wanted: Subscription) -> dict[str, Any]:
        request: dict[str, Any] = {
            "name": subscription_path(self._project, wanted.topic),
            "topic": topic_path(self._project, wanted.topic),
            "push_config": self._push(wanted),
            "ack_deadline_seconds": ACK_SECONDS,
            "enable_message_ordering": True,
            "message_retention_duration": RETENTION,
            # A policy that says nothing: it never expires.
            "expiration_policy": {},
            "retry_policy": {"minimum_backoff": wanted.backoff, "maximum_backoff": LONGEST_BACKOFF},
        }
        if wanted.dead:
            request["dead_letter_policy"] = {
                "dead_letter_topic": topic_path(self._project, wanted.dead),
                "max_delivery_attempts": MOST_DELIVERIES,
            }
        return request
