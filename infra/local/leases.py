"""Leases on SQLite, held by an operating-system lock: free the moment their holder dies."""

from __future__ import annotations

import os
import sqlite3
import threading

from infra.local.database import Database
from infra.local.owners import Owners
from shared.errors import Fenced, Leased, StoreUnavailable
from shared.ports import Lease
from shared.snapshot.history import LEASES, TO_FINISH, UNFINISHED


class LocalLeases:
    def __init__(self, database: Database, owners: Owners) -> None:
        self._database = database
        self._owners = owners
        self._held: dict[str, int] = {}
        self._lock = threading.Lock()

    def take(self, name: str) -> Lease:
        owner = self._owners.mine()
        holder = f"process {os.getpid()}"
        taken: list[int] = []

        def work(connection: sqlite3.Connection) -> Lease:
            if not name.startswith(LEASES) and connection.execute("SELECT 1 FROM replacement").fetchone():
                raise StoreUnavailable(UNFINISHED, cure=TO_FINISH)
            row = connection.execute("SELECT token, owner, holder FROM leases WHERE name = ?", (name,)).fetchone()
            if row is not None and self._is_held(name, row[0], row[1]):
                raise Leased(f"{name} is being run by {row[2]}", holder=row[2])
            token = 1 if row is None else row[0] + 1
            connection.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)", (name, token, owner, holder))
            with self._lock:
                self._held[name] = token
            taken.append(token)
            return Lease(name, token, holder)

        try:
            return self._database.write(work)
        except StoreUnavailable:
            # Whoever did not get the lease never releases it, so it must not count as held.
            with self._lock:
                if self._held.get(name) in taken:
                    del self._held[name]
            raise

    def renew(self, lease: Lease) -> None:
        with self._database.reading() as connection:
            check_lease(connection, lease)

    def release(self, lease: Lease) -> None:
        with self._lock:
            if self._held.get(lease.name) == lease.token:
                del self._held[lease.name]
        self._database.write(
            lambda connection: connection.execute(
                "UPDATE leases SET owner = '' WHERE name = ? AND token = ?", (lease.name, lease.token)
            )
        )

    def holder(self, name: str) -> str | None:
        with self._database.reading() as connection:
            row = connection.execute("SELECT token, owner, holder FROM leases WHERE name = ?", (name,)).fetchone()
        return row[2] if row is not None and self._is_held(name, row[0], row[1]) else None

    def _is_held(self, name: str, token: int, owner: str) -> bool:
        if not self._owners.alive(owner):
            return False
        if owner != self._owners.mine():
            return True
        with self._lock:
            return self._held.get(name) == token


def check_lease(connection: sqlite3.Connection, lease: Lease) -> None:
    """Raises Fenced inside the transaction that the lease protects."""
    row = connection.execute("SELECT token FROM leases WHERE name = ?", (lease.name,)).fetchone()
    if row is None or row[0] != lease.token:
        raise Fenced(f"{lease.name} was taken over by a later run")
