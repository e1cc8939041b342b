"""Makes the clients of Google's libraries. Each leads to an emulator where its variable says so.

The libraries are imported here, by whoever needs a client: a sink that publishes nothing does not wait for Pub/Sub's.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from infra.gcp.errors import translated

if TYPE_CHECKING:
    from google.cloud.firestore import Client as FirestoreClient
    from google.cloud.scheduler_v1 import CloudSchedulerClient
    from google.cloud.storage import Client as StorageClient
    from google.pubsub_v1 import PublisherClient, SubscriberClient


NO_BUCKET_METADATA: Final = "DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA"
"""The library's own switch. Without it, each new client asks for its bucket behind our back, in a thread that tries
again for minutes: a call that nobody counted, and a right that nobody else needs."""


def connect_firestore(project: str, database: str) -> FirestoreClient:
    from google.cloud.firestore import Client

    with translated("connecting to Firestore"):
        return Client(project=project, database=database)


def connect_publisher() -> PublisherClient:
    """The plain client: see `bus.py`. Only the library's own publisher looks for an emulator by itself."""
    import grpc
    from google.pubsub_v1 import PublisherClient
    from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

    with translated("connecting to Pub/Sub"):
        host = os.environ.get("PUBSUB_EMULATOR_HOST")
        if not host:
            return PublisherClient()
        return PublisherClient(transport=PublisherGrpcTransport(channel=grpc.insecure_channel(host)))


def connect_subscriber() -> SubscriberClient:
    import grpc
    from google.pubsub_v1 import SubscriberClient
    from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

    with translated("connecting to Pub/Sub"):
        host = os.environ.get("PUBSUB_EMULATOR_HOST")
        if not host:
            return SubscriberClient()
        return SubscriberClient(transport=SubscriberGrpcTransport(channel=grpc.insecure_channel(host)))


def connect_storage(project: str) -> StorageClient:
    from google.cloud.storage import Client

    os.environ.setdefault(NO_BUCKET_METADATA, "true")
    with translated("connecting to Cloud Storage"):
        client: StorageClient = Client(project=project)
        return client


def connect_scheduler() -> CloudSchedulerClient:
    from google.cloud.scheduler_v1 import CloudSchedulerClient

    with translated("connecting to Cloud Scheduler"):
        return CloudSchedulerClient()
