"""The other process: opens a home, does one deed, says what it came to, and waits to be killed or to be let go."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

from shared.errors import SENT
from shared.monitoring import Monitored, MonitoringRow
from shared.ports import Message
from tests.contract import make
from tests.contract.homes import HOMES, MONITORED, Process
from tests.contract.world import START, TOPIC, ManualClock


def say(what: Any) -> None:
    print(json.dumps(what), flush=True)


def take_lease(process: Process, name: str) -> None:
    lease = process.ports.leases.take(name)
    say({"token": lease.token, "holder": lease.holder})


def begin_batch(process: Process, batch: str, attempt: str, progress: str = "") -> None:
    """Begins, and records progress where there is some."""
    found, earlier = process.ports.batches.begin(batch, attempt)
    assert found is not None
    if progress:
        process.ports.batches.settle(make.settlement(found, attempt, progress, settled=False, keep=True))
    say({"earlier": earlier})


def receive(process: Process) -> None:
    received = process.consumer([TOPIC]).receive()
    say(None if received is None else {"data": received.message.data.decode()})


def commit_groups(process: Process, stream: str, count: int) -> None:
    make.commit_groups(process.ports, stream, count, after_first=lambda: say({"begun": True}))


def settle_batches(process: Process, run: str, count: int) -> None:
    """One after the other, each with a monitoring row that names it."""
    for number in range(count):
        batch, _ = process.ports.batches.begin(f"{run}.{number}", "one")
        assert batch is not None
        row = MonitoringRow("shop.customers", START, SENT, "", "", batch.id)
        rows = Monitored(MONITORED, [row])
        process.ports.batches.settle(make.settlement(batch, "one", "d" * len(batch.keys), monitored=rows))
        if number == 0:
            say({"begun": True})


def publish(process: Process, lane: str, count: int) -> None:
    for number in range(count):
        process.ports.bus.publish(TOPIC, [Message(f"{lane} {number}".encode(), lane)])
    say({"published": count})


def write_blobs(process: Process, count: int, size: int) -> None:
    """Writes new blobs and overwrites one, each a single letter many times."""
    for number in range(count):
        letter = bytes([ord("a") + number % 26])
        process.ports.blobs.write(f"archive/{number % 40}", letter * size)
        process.ports.blobs.write("archive/same", letter * size)
        if number == 3:
            say({"begun": True})


def replace_books(process: Process, count: int) -> None:
    """Replaces the books by very many entries."""
    process.ports.history.replace(b"intent", lambda: make.many_cells(count, lambda: say({"begun": True})))


DEEDS: dict[str, Callable[..., None]] = {
    deed.__name__: deed
    for deed in (take_lease, begin_batch, receive, commit_groups, settle_batches, publish, write_blobs, replace_books)
}


def main(home: str, address: str, now: str, deed: str, arguments: str) -> None:
    site = next(each for each in HOMES if each.name == home).find(address)
    process = site.process(ManualClock(datetime.fromisoformat(now)))
    DEEDS[deed](process, **json.loads(arguments))
    sys.stdin.read()
    process.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
