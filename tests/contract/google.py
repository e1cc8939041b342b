"""The home on Google Cloud under test: emulators, a web server that is pushed to, and a fake Cloud Scheduler."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any
from unittest import mock

from google.cloud import storage

from infra.environment import SystemSettings
from infra.gcp.home import GoogleHome
from infra.gcp.names import bucket_name
from infra.google_auth import VARIABLE
from shared.monitoring import instant_text
from shared.ports import Clock, Message, monitoring_topic
from tests.contract.homes import DATASET, MONITORED, Consumer, Process, Received
from tests.pushes import Post, PostOffice, take_from_afar
from tests.sandbox.bigquery import BigQuery, Table
from tests.sandbox.server import Server
from tests.sandbox.system import Setup
from tests.scheduler import LOCATION, FakeScheduler

ROWS = monitoring_topic("shop")
TOPICS = ("shop-records", "shop-continue", "other", ROWS)
SCHEMA = [
    {"name": "dag_name", "type": "STRING", "mode": "REQUIRED"},
    {"name": "timestamp", "type": "TIMESTAMP", "mode": "REQUIRED"},
    {"name": "type_id", "type": "INTEGER", "mode": "REQUIRED"},
    {"name": "location", "type": "STRING"},
    {"name": "position", "type": "STRING"},
    {"name": "info", "type": "STRING"},
]
NOBODY = "127.0.0.1:1"
DEAD = {
    "PUBSUB_EMULATOR_HOST": NOBODY,
    "FIRESTORE_EMULATOR_HOST": NOBODY,
    "STORAGE_EMULATOR_HOST": f"http://{NOBODY}",
}
DEAD_SECONDS = 0.02


@cache
def post_office() -> PostOffice:
    return PostOffice()


@cache
def scheduler() -> FakeScheduler:
    return FakeScheduler()


@cache
def bigquery() -> tuple[BigQuery, str]:
    """The fake, for all projects of a test session, and its address."""
    system = BigQuery(Setup())
    return system, Server(system).__enter__().url


class PostConsumer:
    """A consumer in the process that is pushed to."""

    def __init__(self, post: Post, topics: Sequence[str]) -> None:
        self._post = post
        self._topics = topics

    def receive(self) -> Received | None:
        push = self._post.take(self._topics)
        if push is None:
            return None
        return Received(Message(push.data, push.ordering_key, push.attributes), push.attempt, push)

    def acknowledge(self, received: Received) -> None:
        self._post.settle(received.handle, 204)

    def refuse(self, received: Received, wait: float) -> None:
        """Pub/Sub is not told how long to wait."""
        self._post.settle(received.handle, 503)


IN_HAND: list[Any] = []
"""Connections stay open for as long as the process lives: what is dropped counts as refused."""


class RemoteConsumer:
    """A consumer in another process; its messages are refused when it dies."""

    def __init__(self, address: Any, project: str, topics: Sequence[str]) -> None:
        self._where = (address, project, topics)

    def receive(self) -> Received | None:
        connection, found = take_from_afar(*self._where)
        if found is None:
            connection.close()
            return None
        IN_HAND.append(connection)
        data, ordering_key, attributes, attempt = found
        return Received(Message(data, ordering_key, attributes), attempt, connection)

    def acknowledge(self, received: Received) -> None:
        received.handle.send(204)

    def refuse(self, received: Received, wait: float) -> None:
        received.handle.send(503)


class GoogleProcess:
    """A home object with clients of its own counts as a process of its own."""

    def __init__(self, site: GoogleSite, clock: Clock) -> None:
        self._site = site
        self._scheduler_host: str | None = None
        self._bigquery_url = ""
        self.home = GoogleHome(
            site.project,
            clock,
            scheduler=lambda: scheduler().client(self._scheduler_host),
            bigquery=lambda: SystemSettings(self._bigquery_url or bigquery()[1], {VARIABLE: bigquery()[0].token}),
            location=LOCATION,
        )
        self.ports = self.home.ports

    def consumer(self, topics: Sequence[str]) -> Consumer:
        return self._site.consumer(topics)

    def lapse(self) -> None:
        """Only time makes others take a process for dead."""

    def unplug(self) -> None:
        """Makes its clients anew, of addresses where nobody is."""
        self.home.close()
        self.home.patience.seconds = DEAD_SECONDS
        self._scheduler_host = NOBODY
        self._bigquery_url = f"http://{NOBODY}"
        with mock.patch.dict(os.environ, DEAD):
            for client in self.home.clients:
                client()

    def close(self) -> None:
        self.home.close()
        self._site.leave(self)


class GoogleSite:
    """A project of its own, with topics and a bucket, as Terraform would leave it."""

    def __init__(self, project: str, office: Any = None) -> None:
        self.project = project
        self._office = office
        self._post: Post | None = None
        self._processes: list[GoogleProcess] = []

    @property
    def address(self) -> str:
        return json.dumps({"project": self.project, "office": post_office().address})

    def make(self) -> None:
        self._post = post_office().open(self.project, TOPICS)
        client = storage.Client(project=self.project)
        client.create_bucket(bucket_name(self.project))
        client.close()
        bigquery()[0].tables[self._table] = Table(SCHEMA)

    @property
    def _table(self) -> str:
        return f"{self.project}.{DATASET}.{MONITORED}"

    def monitoring_rows(self) -> list[dict[str, Any]]:
        """Does first what the topic's subscription would have done."""
        consumer, table = self.consumer([ROWS]), bigquery()[0].tables[self._table]
        while received := consumer.receive():
            table.write(received.message.data)
            consumer.acknowledge(received)
        return [{**row, "timestamp": _text(row["timestamp"])} for row in table.rows]

    def process(self, clock: Clock) -> Process:
        for name in ("shop-customers", "market-customers"):
            scheduler().add(self.project, name, "*/10 * * * *", clock.now)
        self._processes.append(GoogleProcess(self, clock))
        return self._processes[-1]

    def consumer(self, topics: Sequence[str]) -> Consumer:
        if self._post is None:
            return RemoteConsumer(self._office, self.project, topics)
        return PostConsumer(self._post, topics)

    def unplug(self) -> None:
        for process in self._processes:
            process.unplug()

    def leave(self, process: GoogleProcess) -> None:
        """Whoever is the last puts out the light."""
        self._processes.remove(process)
        if self._post is not None and not self._processes:
            post_office().close(self.project)


def _text(microseconds: int) -> str:
    return instant_text(datetime.fromtimestamp(microseconds / 1_000_000, UTC))


def found() -> GoogleSite:
    """One without a past."""
    site = GoogleSite(f"waybill-{uuid.uuid4().hex[:12]}")
    site.make()
    return site


def find(address: str) -> GoogleSite:
    known = json.loads(address)
    return GoogleSite(known["project"], tuple(known["office"]))
