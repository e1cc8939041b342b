"""The receiving end of push subscriptions: holds each push until somebody says what becomes of it.

Pub/Sub is answered only then, so that order, redelivery and what holds up what are its own. The pushes of the emulator
lack their ordering keys; a second subscription of each topic, which is pulled, tells them, and also what is still to
come: so nobody waits for what never will.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from google.api_core.exceptions import NotFound
from google.cloud import pubsub_v1
from google.pubsub_v1 import PullRequest

PATIENCE_SECONDS = 20.0
POLL_SECONDS = 0.01
HELD_SECONDS = 300.0
KEY = b"waybill tests"


@dataclass
class Push:
    """A message that Pub/Sub waits to be answered for."""

    topic: str
    id: str
    data: bytes
    attributes: dict[str, str]
    ordering_key: str = ""
    attempt: int = 0
    status: int = 0
    answered: threading.Event = field(default_factory=threading.Event)

    def answer(self, status: int) -> None:
        self.status = self.status or status
        self.answered.set()


@dataclass
class Published:
    """A message that the pulled subscription told of."""

    topic: str
    ordering_key: str
    pushed: int = 0
    done: bool = False
    in_hand: bool = False


class Post:
    """Everything that was published in one project, and what became of it."""

    def __init__(self, project: str, topics: Sequence[str], endpoint: str) -> None:
        self.project = project
        self.condition = threading.Condition()
        self.waiting: list[Push] = []
        self.published: dict[str, Published] = {}
        self.closed = False
        self._pulling = threading.Lock()
        self._topics = [f"projects/{project}/topics/{topic}" for topic in topics]
        self._publisher = pubsub_v1.PublisherClient()
        self._subscriber = pubsub_v1.SubscriberClient()
        for topic in self._topics:
            self._publisher.create_topic(name=topic)
            name = topic.rpartition("/")[2]
            push = {"push_endpoint": f"{endpoint}/{project}/{name}"}
            for kind, config in (("push", push), ("pull", {})):
                self._subscriber.create_subscription(
                    request={
                        "name": self._subscription(name, kind),
                        "topic": topic,
                        "push_config": config,
                        "enable_message_ordering": kind == "push",
                        "ack_deadline_seconds": 600,
                    }
                )

    def arrive(self, topic: str, body: dict[str, Any]) -> int:
        """Holds a push until it is answered, and gives the answer."""
        message = body["message"]
        push = Push(topic, message["messageId"], base64.b64decode(message.get("data", "")), message["attributes"])
        with self.condition:
            if self.closed:
                return 503
            self.waiting.append(push)
            self.condition.notify_all()
        push.answered.wait(HELD_SECONDS)
        return push.status or 503

    def take(self, topics: Sequence[str]) -> Push | None:
        """The next push of these topics, or None as soon as it is certain that none can come."""
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            self._look(topics)
            with self.condition:
                for push in self.waiting:
                    known = self.published.get(push.id)
                    if push.topic in topics and known is not None:
                        self.waiting.remove(push)
                        known.pushed, known.in_hand = known.pushed + 1, True
                        push.ordering_key, push.attempt = known.ordering_key, known.pushed
                        return push
                if not self._more_will_come(topics):
                    return None
                self.condition.wait(POLL_SECONDS)
        return None

    def settle(self, push: Push, status: int) -> None:
        with self.condition:
            known = self.published[push.id]
            known.in_hand = False
            known.done = status < 300
        push.answer(status)

    def close(self) -> None:
        with self.condition:
            self.closed = True
            for push in self.waiting:
                push.answer(503)
        for topic in self._topics:
            for kind in ("push", "pull"):
                try:
                    self._subscriber.delete_subscription(
                        subscription=self._subscription(topic.rpartition("/")[2], kind), timeout=5
                    )
                except NotFound:
                    continue
        self._subscriber.close()
        self._publisher.transport.close()

    def _more_will_come(self, topics: Sequence[str]) -> bool:
        known = [each for each in self.published.values() if each.topic in topics]
        taken = {(each.topic, each.ordering_key) for each in known if each.in_hand and each.ordering_key}
        return any(
            not each.done and not each.in_hand and (each.topic, each.ordering_key) not in taken for each in known
        )

    def _look(self, topics: Sequence[str]) -> None:
        with self._pulling:
            for topic in topics:
                name = self._subscription(topic, "pull")
                while True:
                    found = self._subscriber.transport.pull(
                        PullRequest(subscription=name, max_messages=100, return_immediately=True), timeout=10
                    ).received_messages
                    if not found:
                        break
                    with self.condition:
                        for each in found:
                            new = Published(topic, each.message.ordering_key)
                            self.published.setdefault(each.message.message_id, new)
                    self._subscriber.acknowledge(subscription=name, ack_ids=[each.ack_id for each in found])

    def _subscription(self, topic: str, kind: str) -> str:
        return f"projects/{self.project}/subscriptions/{topic}-{kind}"


class PostOffice:
    """One for all projects of a test session: a web server that is pushed to, and a door for other processes."""

    def __init__(self) -> None:
        self.posts: dict[str, Post] = {}
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.office = self
        self._door = Listener(("127.0.0.1", 0), authkey=KEY)
        self.address = self._door.address
        for work in (self._http.serve_forever, self._admit):
            threading.Thread(target=work, daemon=True).start()

    def open(self, project: str, topics: Sequence[str]) -> Post:
        self.posts[project] = Post(project, topics, f"http://127.0.0.1:{self._http.server_port}")
        return self.posts[project]

    def close(self, project: str) -> None:
        post = self.posts.pop(project, None)
        if post is not None:
            post.close()

    def _admit(self) -> None:
        while True:
            try:
                connection = self._door.accept()
            except OSError:
                continue
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        """One message in a foreign process's hands. It dies: the message is refused."""
        push: Push | None = None
        try:
            project, topics = connection.recv()
            post = self.posts[project]
            push = post.take(topics)
            connection.send(push and (push.data, push.ordering_key, push.attributes, push.attempt))
            status = connection.recv()
        except (EOFError, OSError):
            status = 503
        if push is not None:
            post.settle(push, status)
        connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    office: PostOffice


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        assert isinstance(self.server, _Server)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        _, project, topic = self.path.split("/")
        post = self.server.office.posts.get(project)
        self.send_response(503 if post is None else post.arrive(topic, body))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        return


def take_from_afar(address: Any, project: str, topics: Sequence[str]) -> tuple[Connection, Any]:
    """Takes a message out of another process's post office: the connection that answers for it, and the message."""
    connection = Client(address, authkey=KEY)
    connection.send((project, list(topics)))
    return connection, connection.recv()
