"""Puts the home on Google Cloud together. Nothing is called, and no client made, before a port is used."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from infra.clock import SystemClock
from infra.gcp.alerts import GoogleAlerts
from infra.gcp.batches import GoogleBatches
from infra.gcp.blobs import Below, GoogleBlobs
from infra.gcp.books import GoogleBooks
from infra.gcp.bus import GoogleBus
from infra.gcp.calls import Lazy, Patience
from infra.gcp.clients import connect_firestore, connect_publisher, connect_scheduler, connect_storage
from infra.gcp.confirmations import GoogleConfirmations
from infra.gcp.counting import CountedBlobs, Meter
from infra.gcp.failures import GoogleFailures
from infra.gcp.history import GoogleHistory
from infra.gcp.launches import GoogleLaunches
from infra.gcp.leases import GoogleLeases
from infra.gcp.ledger import GoogleLedger
from infra.gcp.monitoring import GoogleMonitoring
from infra.gcp.names import bucket_name
from infra.gcp.objects import GoogleObjects
from infra.gcp.runs import GoogleRuns
from infra.gcp.schedule import GoogleSchedule, StoredSchedule
from infra.gcp.store import Store
from infra.gcp.tokens import GoogleTokens
from shared.ports import Blobs, Clock, Home

if TYPE_CHECKING:
    from google.cloud.scheduler_v1 import CloudSchedulerClient

    from infra.environment import SystemSettings
    from infra.gcp.statements import Statements

DATABASE: Final = "(default)"
LOCATION: Final = "us-central1"


class GoogleHome:
    """The ports on one project.

    `blobs` takes the place of a bucket. Cloud Scheduler has no emulator: where Firestore is one, the schedule is stored
    in it, unless a `scheduler` is given. `bigquery` says where BigQuery is, None where there is none. `meter` counts
    what all of it costs.
    """

    def __init__(
        self,
        project: str,
        clock: Clock | None = None,
        blobs: Blobs | None = None,
        *,
        scheduler: Callable[[], CloudSchedulerClient] | None = None,
        bigquery: Callable[[], SystemSettings] | None = None,
        database: str = DATABASE,
        location: str = LOCATION,
        bucket: str = "",
        patience: Patience | None = None,
    ) -> None:
        self.project = project
        self.clock = clock or SystemClock()
        self.patience = patience or Patience()
        self.meter = Meter()
        documents = Lazy(lambda: connect_firestore(project, database))
        publisher = Lazy(connect_publisher)
        bucket_client = Lazy(lambda: connect_storage(project))
        jobs = Lazy(scheduler or connect_scheduler)
        statements = None if bigquery is None else Lazy(self._statements(bigquery))
        self.clients: Sequence[Lazy[Any]] = (
            *(documents, publisher, bucket_client, jobs),
            *((statements,) if statements is not None else ()),
        )
        self.store = Store(documents, self.patience, self.meter)
        kept = CountedBlobs(
            blobs or GoogleBlobs(bucket_client, bucket or bucket_name(project), self.patience), self.meter
        )
        self.failures = GoogleFailures(self.store, kept)
        self.objects = GoogleObjects(self.store)
        ledger = GoogleLedger(self.store)
        confirmations = GoogleConfirmations(self.store)
        leases = GoogleLeases(self.store, self.clock)
        bus = GoogleBus(project, publisher, self.patience, self.meter)
        stored = scheduler is None and bool(os.environ.get("FIRESTORE_EMULATOR_HOST"))
        self.ports = Home(
            leases=leases,
            runs=GoogleRuns(self.store, leases, ledger, self.failures, bus),
            batches=GoogleBatches(self.store, ledger, self.failures, confirmations, self.clock, bus),
            books=GoogleBooks(self.store),
            ledger=ledger,
            failures=self.failures,
            confirmations=confirmations,
            bus=bus,
            blobs=kept,
            snapshots=Below(kept, "snapshots/"),
            history=GoogleHistory(self.store, self.failures, kept, self.clock),
            schedule=StoredSchedule(self.store, self.clock)
            if stored
            else GoogleSchedule(project, location, jobs, self.patience, self.meter),
            launches=GoogleLaunches(self.store),
            tokens=GoogleTokens(self.store),
            objects=self.objects,
            alerts=GoogleAlerts(self.store, self.clock),
            monitoring=GoogleMonitoring(project, statements),
            clock=self.clock,
        )

    def _statements(self, where: Callable[[], SystemSettings]) -> Callable[[], Statements]:
        def connect() -> Statements:
            from infra.gcp.statements import Statements

            return Statements(self.project, where(), self.patience, self.clock)

        return connect

    def close(self) -> None:
        """Gives up every connection."""
        for client in self.clients:
            client.close()
