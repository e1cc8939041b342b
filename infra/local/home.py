"""Puts the embedded home together in one folder."""

from __future__ import annotations

import os
from pathlib import Path

from infra.clock import SystemClock
from infra.local.alerts import LocalAlerts
from infra.local.batches import LocalBatches, LocalBooks
from infra.local.blobs import LocalBlobs
from infra.local.bus import LocalBus
from infra.local.confirmations import LocalConfirmations
from infra.local.database import Database
from infra.local.failures import LocalFailures
from infra.local.history import LocalHistory
from infra.local.launches import LocalLaunches
from infra.local.leases import LocalLeases
from infra.local.ledger import LocalLedger
from infra.local.monitoring import LocalMonitoring
from infra.local.objects import LocalObjects
from infra.local.owners import Owners
from infra.local.runs import LocalRuns
from infra.local.schedule import LocalSchedule
from infra.local.schema import ADDED, BUS, STATE
from infra.local.tokens import LocalTokens
from shared.errors import StoreUnavailable
from shared.ports import Clock, Home


class EmbeddedHome:
    """The ports on one folder, readable by its owner alone."""

    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.chmod(folder, 0o700)
        except OSError as error:
            raise StoreUnavailable(
                f"{folder} cannot hold the state: {error.strerror}", cure="export WAYBILL_HOME=<a folder of your own>"
            ) from error
        self.clock = clock or SystemClock()
        self.owners = Owners(folder / "owners")
        self.state = Database(folder / "state.db", STATE, durable=True, added=ADDED)
        self.transport = Database(folder / "bus.db", BUS, durable=False)
        self.blobs = LocalBlobs(folder / "blobs")
        self.objects = LocalObjects(self.state)
        ledger = LocalLedger(self.state)
        batches = LocalBatches(self.state, ledger, self.owners)
        self.snapshots = LocalBlobs(folder / "snapshots")
        self.bus = LocalBus(self.transport, self.owners, self.clock)
        self.ports = Home(
            leases=LocalLeases(self.state, self.owners),
            runs=LocalRuns(self.state, ledger),
            batches=batches,
            books=LocalBooks(self.state),
            ledger=ledger,
            failures=LocalFailures(self.state),
            confirmations=LocalConfirmations(self.state),
            bus=self.bus,
            blobs=self.blobs,
            snapshots=self.snapshots,
            history=LocalHistory(self.state, ledger, batches, self.clock),
            schedule=LocalSchedule(self.state, self.clock),
            launches=LocalLaunches(self.state),
            tokens=LocalTokens(self.state),
            objects=self.objects,
            alerts=LocalAlerts(self.state, self.clock),
            monitoring=LocalMonitoring(self.state),
            clock=self.clock,
        )

    def close(self) -> None:
        self.state.close()
        self.transport.close()
        self.owners.close()
