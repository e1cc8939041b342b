"""Waybill on Google Cloud's parts, as these tests drive it: its own project, its functions, and the way to them."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import requests
from google.pubsub_v1 import PublisherClient, PubsubMessage, PullRequest, SubscriberClient

from infra.gcp.clients import connect_publisher, connect_subscriber
from infra.gcp.names import subscription_path, topic_path
from infra.gcp.provision import provision
from infra.wiring import Hub as Wiring
from shared.ports import Home, topic_of
from tests.acceptance.hub import NAME, ROOT, Hub, merged, wait_until
from tests.acceptance.proxy import Proxy
from tests.acceptance.servers import Function, Server
from tests.emulators import Emulators
from tests.sandbox import Sandbox

SOURCE = f"/functions/{NAME}/source"
SINK = f"/functions/{NAME}/sink"
DEAD_LETTER = "/functions/operations/dead_letter"
OPERATIONS = ROOT / "functions" / "operations" / "main.py"
MISSED = Path(__file__).parent / "functions" / "missed" / "main.py"
UNSCHEDULED = {"streams": {"customers": {"schedule": None}}}
REDELIVERY_SECONDS = 0.1
AT_ONCE = 5
"""Messages a pull: the emulator's channel takes 4 MB."""


class GoogleHub(Hub):
    """A project of its own in the emulators, beside one sandbox. Nothing runs by a schedule."""

    def __init__(self, folder: Path, sandbox: Sandbox, overlay: Mapping[str, Any], emulators: Emulators) -> None:
        super().__init__(folder, sandbox, merged(UNSCHEDULED, overlay))
        self.project = emulators.project()
        self.environment |= {**emulators.environ, "WAYBILL_BACKEND": "gcp", "GOOGLE_CLOUD_PROJECT": self.project}
        # Blobs are in the folder: the server that stands for Cloud Storage has a contract suite of its own.
        del self.environment["STORAGE_EMULATOR_HOST"]

    def close(self) -> None:
        super().close()
        for path in self.subscriptions():
            self.subscriber.delete_subscription(subscription=path)
        self.subscriber.transport.close()
        self.publisher.transport.close()
        self._wiring.close()

    # --- what is stored, read without the seconds that a command takes to start ---

    @cached_property
    def _wiring(self) -> Wiring:
        return Wiring(self.environment)

    @property
    def stored(self) -> Home:
        return self._wiring.home

    def wait_until_settled(self, records: int) -> None:
        """Returns once so many records have been fetched and none of them is pending."""
        books, batches = self.stored.books, self.stored.batches

        def settled() -> bool:
            return books.fetched(NAME, "customers") >= records and next(batches.unsettled(NAME), None) is None

        wait_until(settled, f"{records} settled records")

    # --- Pub/Sub ---

    @cached_property
    def publisher(self) -> PublisherClient:
        return connect_publisher()

    @cached_property
    def subscriber(self) -> SubscriberClient:
        return connect_subscriber()

    def topics(self) -> list[str]:
        return sorted(each.name for each in self.publisher.list_topics(project=f"projects/{self.project}"))

    def subscriptions(self) -> list[str]:
        found = self.subscriber.list_subscriptions(project=f"projects/{self.project}")
        return sorted(each.name for each in found)

    def publish(self, topic: str, message: PubsubMessage) -> None:
        self.publisher.publish(topic=topic_path(self.project, topic), messages=[message])

    def make_topic(self) -> None:
        """The topic of the records, and nobody who is pushed to."""
        self.publisher.create_topic(name=topic_path(self.project, topic_of(NAME)))

    def provision(self, address: str, integration: str = NAME) -> None:
        """Topics and subscriptions, pushing to the functions below this address."""
        provision(self.project, {integration: REDELIVERY_SECONDS}, address)


class Tap:
    """A second subscription of the records, from now on: pulled, unordered, and keeping what was acknowledged, so that
    it can be sought back."""

    def __init__(self, hub: GoogleHub) -> None:
        self._subscriber = hub.subscriber
        self._path = subscription_path(hub.project, "tap")
        topic = topic_path(hub.project, topic_of(NAME))
        self._subscriber.create_subscription(
            request={"name": self._path, "topic": topic, "retain_acked_messages": True}
        )

    def take(self, count: int) -> list[PubsubMessage]:
        """So many messages, which are acknowledged here and nowhere else."""
        taken: dict[str, PubsubMessage] = {}

        def enough() -> bool:
            asked = PullRequest(subscription=self._path, max_messages=AT_ONCE, return_immediately=True)
            # By the transport: the client warns of a pull that does not wait.
            found = self._subscriber.transport.pull(asked, timeout=10).received_messages
            if found:
                ids = [each.ack_id for each in found]
                self._subscriber.acknowledge(subscription=self._path, ack_ids=ids)
            taken.update({each.message.message_id: each.message for each in found})
            return len(taken) >= count

        wait_until(enough, f"{count} messages")
        return list(taken.values())

    def seek_to_the_beginning(self) -> None:
        self._subscriber.seek(request={"subscription": self._path, "time": datetime(2020, 1, 1, tzinfo=UTC)})


def poor_push(message: PubsubMessage) -> bytes:
    """The push of a message as the emulator makes it."""
    return json.dumps({"subscription": "projects/p/subscriptions/s", "message": _carried(message)}).encode()


def rich_push(message: PubsubMessage, attempt: int) -> bytes:
    """The push of a message as Pub/Sub makes it of an ordered subscription with dead letters."""
    carried = {**_carried(message), "orderingKey": message.ordering_key}
    body = {"deliveryAttempt": attempt, "subscription": "projects/p/subscriptions/s", "message": carried}
    return json.dumps(body).encode()


def _carried(message: PubsubMessage) -> dict[str, Any]:
    published = message.publish_time.isoformat()
    return {
        "data": b64encode(message.data).decode(),
        "attributes": dict(message.attributes),
        "messageId": message.message_id,
        "message_id": message.message_id,
        "publishTime": published,
        "publish_time": published,
    }


class Deployed(Function):
    """A function under the functions-framework, from whichever `main.py`."""

    def __init__(self, hub: GoogleHub, target: str, main: Path | None = None, number: int = 0) -> None:
        super().__init__(hub, target, number)
        if main is not None:
            self.command = [str(main) if part.endswith("main.py") else part for part in self.command]


class Router:
    """What stands before Cloud Run here: brings each call to whoever has its path now, and remembers the answers."""

    def __init__(self, routes: Mapping[str, Server], judge: Callable[[str, bytes], int | None] | None = None) -> None:
        self.routes = dict(routes)
        self.judge = judge
        self.answers: list[tuple[str, int]] = []
        self._lock = Lock()
        self._proxy = Proxy("", self._pass)

    @property
    def url(self) -> str:
        return self._proxy.url

    def answered(self, path: str) -> list[int]:
        with self._lock:
            return [status for each, status in self.answers if each == path]

    def _pass(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        status = self.judge(path, body) if self.judge is not None else None
        answer = b""
        if status is None:
            try:
                reply = requests.post(self.routes[path].url, data=body, timeout=600)
                status, answer = reply.status_code, reply.content
            except requests.RequestException:
                # As Cloud Run answers for an instance that died.
                status = 502
        with self._lock:
            self.answers.append((path, status))
        return status, answer


@contextmanager
def routed(
    hub: GoogleHub,
    routes: Mapping[str, Server],
    judge: Callable[[str, bytes], int | None] | None = None,
    integration: str = NAME,
) -> Iterator[Router]:
    """Subscriptions that push to these functions, each under its path."""
    router = Router(routes, judge)
    with router._proxy:
        hub.provision(router.url, integration)
        yield router
