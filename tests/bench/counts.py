"""What a thousand records cost on Google Cloud, counted at the ports while they travel through the emulators.

Records, batches and targets are those of the sandbox; the sink is called with what Pub/Sub would push. The functions'
time is not counted: it is the time of the system at the other end.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec
from google.pubsub_v1 import SubscriberClient

from infra.clock import SystemClock
from infra.entrypoints import Handlers, push_body
from infra.gcp.clients import connect_publisher, connect_subscriber
from infra.gcp.names import subscription_path, topic_path
from infra.log import silent
from infra.queries import audit_one
from infra.wiring import Hub
from shared.ports import Message, topic_of
from tests import emulators
from tests.bench.prices import AS_OF, FUNCTION_SECOND, PRICES, REGION
from tests.sandbox import Sandbox
from tests.sandbox.conversions import CONVERSIONS

RECORDS: Final = 1_000


class Way(msgspec.Struct, frozen=True):
    """A stream, how it is set up for this, and the batches that its records fill."""

    integration: str
    stream: str
    batch_size: int
    settings: dict[str, Any]

    @property
    def overlay(self) -> dict[str, Any]:
        sink = {"rate_limit": "none", "batch_size": self.batch_size, "lanes": 1}
        streams = {self.stream: self.settings}
        return {self.integration: {"source": {"rate_limit": "none"}, "sink": sink, "streams": streams}}


CUSTOMERS: Final = Way("ploomes_to_milvus", "customers", 500, {"hold_back": "0s"})
EVENTS: Final = Way(
    "tagless_crm",
    "data_manager_events",
    1_000,
    {
        "from": {"system": "bigquery", "table": CONVERSIONS},
        "key": ["transaction_id"],
        "settings": {
            "destinations": [
                {
                    "operating_account": {"account_type": "GOOGLE_ADS", "account_id": "1234567890"},
                    "product_destination_id": "77",
                }
            ]
        },
    },
)
WAYS: Final = (CUSTOMERS, EVENTS)
BUDGET: Final = {"reads": 1_020, "writes": 1_050, "messages": 3, "sink_invocations": 3, "blob_operations": 4}
"""Per 1,000 records in full batches."""
MESSAGE_FRAME: Final = 40
"""What Pub/Sub counts of a message besides data and attributes: 20 bytes and the id."""
PULL_SECONDS: Final = 60.0


class Counted(msgspec.Struct, frozen=True):
    """What these records took, and what it costs."""

    way: Way
    records: int
    amounts: dict[str, int]

    @property
    def per_thousand(self) -> dict[str, float]:
        return {name: amount * 1_000 / self.records for name, amount in self.amounts.items()}

    def over_budget(self) -> dict[str, float]:
        """What is more than it may be."""
        found = self.per_thousand
        return {name: found[name] for name, most in BUDGET.items() if found[name] > most}

    def usd_per_million(self) -> dict[str, float]:
        """By unit, each with its share of the price of a million records."""
        times = 1_000_000 / self.records
        return {price.unit: price.of(self.amounts[name] * times) for name, price in PRICES.items()}

    def lines(self) -> Iterator[str]:
        """For people."""
        way = self.way
        yield f"Google Cloud, per 1,000 records of {way.integration} {way.stream} in batches of {way.batch_size:,}"
        for name, amount in self.per_thousand.items():
            most = BUDGET.get(name)
            verdict = "" if most is None else f"  at most {most:,}: {'met' if amount <= most else 'MISSED'}"
            yield f"  {name.replace('_', ' '):18}{amount:12,.1f}{verdict}"
        yield f"USD per million records, {REGION}, prices as of {AS_OF}, before free tiers"
        for unit, usd in self.usd_per_million().items():
            yield f"  {unit:32}{usd:8.4f}"
        yield f"  {'together':32}{sum(self.usd_per_million().values()):8.4f}"
        yield f"  and {FUNCTION_SECOND.of(3600):.3f} for each hour that a function waits for its system"


class Unhurried(SystemClock):
    """Batches are to be full however slow the machine is: for whoever measures the time, none passes."""

    def monotonic(self) -> float:
        return 0.0


def count(environ: Mapping[str, str], way: Way) -> Counted:
    """Sends the records the whole way; `environ` is what leads to the emulators, as in the process's environment."""
    with tempfile.TemporaryDirectory(prefix="waybill-counts-") as folder:
        overlay = Path(folder, "overlay.yaml")
        overlay.write_text(json.dumps(way.overlay))
        project = f"waybill-counts-{uuid.uuid4().hex[:12]}"
        records = {"customers": RECORDS} if way is CUSTOMERS else {"conversions": RECORDS}
        with (
            Sandbox(**records, ploomes_per_minute=None) as sandbox,
            published(project, way.integration) as messages,
        ):
            hub = Hub(
                {
                    **sandbox.environment,
                    "FIRESTORE_EMULATOR_HOST": environ["FIRESTORE_EMULATOR_HOST"],
                    "GOOGLE_CLOUD_PROJECT": project,
                    "WAYBILL_BACKEND": "gcp",
                    "WAYBILL_HOME": folder,
                    "WAYBILL_OVERLAY": str(overlay),
                },
                clock=Unhurried(),
            )
            try:
                return _counted(hub, way, messages)
            finally:
                hub.close()


def _counted(hub: Hub, way: Way, messages: Iterator[Message]) -> Counted:
    handlers, meter = Handlers(hub, way.integration, silent), hub.google.meter
    statuses = [handlers.source(json.dumps({"stream": way.stream}).encode(), {}).status]
    for message in islice(messages, meter.counts()["messages"]):
        statuses.append(handlers.sink(push_body(message, "", 1)).status)
    counts = Counter(meter.counts())
    audit = audit_one(hub, way.integration, way.stream)
    if statuses != [200, *[204] * counts["messages"]] or not audit.balanced or audit.counts.delivered != RECORDS:
        raise RuntimeError(f"the functions answered {statuses}; the books say {audit.counts.as_dict()}")
    carried = counts["message_bytes"] + MESSAGE_FRAME * counts["messages"]
    return Counted(
        way,
        RECORDS,
        {
            "reads": counts["reads"],
            "writes": counts["writes"],
            "deletes": counts["deletes"],
            "messages": counts["messages"],
            "carried_bytes": 2 * carried,
            "blob_operations": counts["blob_operations"],
            "invocations": len(statuses),
            "sink_invocations": counts["messages"],
        },
    )


@contextmanager
def published(project: str, integration: str) -> Iterator[Iterator[Message]]:
    """The topic of the records, for as long as it is needed, and what is published there."""
    topic = topic_path(project, topic_of(integration))
    subscription = subscription_path(project, topic_of(integration))
    publisher, subscriber = connect_publisher(), connect_subscriber()
    try:
        publisher.create_topic(name=topic)
        subscriber.create_subscription(request={"name": subscription, "topic": topic})
        yield _pulled(subscriber, subscription)
        subscriber.delete_subscription(subscription=subscription)
    finally:
        publisher.transport.close()
        subscriber.transport.close()


def _pulled(subscriber: SubscriberClient, subscription: str) -> Iterator[Message]:
    while True:
        # One at a time: the channel takes 4 MB.
        found = subscriber.pull(subscription=subscription, max_messages=1, timeout=PULL_SECONDS).received_messages
        for each in found:
            yield Message(each.message.data, each.message.ordering_key, dict(each.message.attributes))
            subscriber.acknowledge(subscription=subscription, ack_ids=[each.ack_id])


def main() -> int:
    """Starts emulators of its own."""
    with tempfile.TemporaryDirectory(prefix="waybill-emulators-") as folder:
        try:
            running = emulators.start(Path(folder))
        except emulators.EmulatorsMissing as missing:
            print(f"left out: what Google Cloud costs, since {missing}")
            return 0
        try:
            os.environ.update(running.environ)
            counted = [count(running.environ, way) for way in WAYS]
        finally:
            for emulator in (running.pubsub, running.firestore, running.storage):
                emulator.stop()
    print("\n\n".join("\n".join(each.lines()) for each in counted))
    return 1 if any(each.over_budget() for each in counted) else 0


if __name__ == "__main__":
    sys.exit(main())
