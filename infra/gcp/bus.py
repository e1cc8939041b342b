"""The bus on Pub/Sub: one request after the other, each with messages of one ordering key.

The library's own publisher is not used: with ordering keys it goes on trying for 136 years, in threads of its own, and
a key on which it fails stays closed. A request that is awaited has a deadline, keeps the order of its key by itself,
and leaves nothing behind when it fails: the next one goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from infra.gcp.calls import Lazy, Patience
from infra.gcp.counting import Meter
from infra.gcp.errors import translated
from infra.gcp.names import topic_path
from shared.ports import Message

if TYPE_CHECKING:
    from google.pubsub_v1 import PublisherClient

REQUEST_BYTES: Final = 9_000_000
"""Pub/Sub takes 10 MB."""
REQUEST_MESSAGES: Final = 1_000
MESSAGE_FRAME: Final = 64


class GoogleBus:
    def __init__(self, project: str, client: Lazy[PublisherClient], patience: Patience, meter: Meter) -> None:
        self._project = project
        self._client = client
        self._patience = patience
        self._meter = meter

    def publish(self, topic: str, messages: Sequence[Message]) -> None:
        path = topic_path(self._project, topic)
        with translated(f"publishing to {topic}"):
            client = self._client()
            for request in requests(messages):
                size = sum(len(message.data) for message in request)
                self._meter.add(calls=1, messages=len(request), message_bytes=size)
                wanted = [{"data": m.data, "ordering_key": m.ordering_key, "attributes": m.attributes} for m in request]
                client.publish(request={"topic": path, "messages": wanted}, **self._patience.options())

    def carries(self, topic: str, batches: Sequence[str]) -> set[str] | None:
        """Pub/Sub does not say."""
        return None


def requests(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """The messages of each ordering key, in their order, in requests that Pub/Sub takes."""
    keys: dict[str, list[Message]] = {}
    for message in messages:
        keys.setdefault(message.ordering_key, []).append(message)
    for of_key in keys.values():
        part: list[Message] = []
        size = 0
        for message in of_key:
            needed = MESSAGE_FRAME + len(message.data) + sum(len(k) + len(v) for k, v in message.attributes.items())
            if part and (size + needed > REQUEST_BYTES or len(part) == REQUEST_MESSAGES):
                yield part
                part, size = [], 0
            part.append(message)
            size += needed
        yield part
