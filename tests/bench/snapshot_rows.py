"""`python -m tests.bench.snapshot_rows`: a snapshot of a million ledger rows, exported, looked through and imported.

Each step in a process of its own, whose memory is measured. The books are as a year of runs leaves them: batches of a
hundred records, some of which failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from infra import snapshots
from infra.local.home import EmbeddedHome
from infra.wiring import Hub
from shared.books import Batch, Failure, Run, StreamState, Window
from shared.ledger import Cell
from shared.outcome import Outcome, Verdict
from shared.ports import Lease, lease_name
from shared.record import Record, content_hash, version_at
from tests.bench.measure import ROOT, Used, watched

BATCH: Final = 100
BATCHES_PER_RUN: Final = 80
FAILED_ONE_IN: Final = 500
BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)
LONGEST: Final = 3_600.0
MOST_MB: Final = 120.0
"""Of any of these processes, whatever the number of rows."""
STREAM: Final = ("rows", "batch")
PYTHON: Final = (sys.executable, "-P", "-m", "tests.bench.snapshot_rows")


class Done(NamedTuple):
    """One step: what it was, and what it took."""

    what: str
    rows: int
    size: int
    used: Used

    @property
    def met(self) -> bool:
        return not self.used.status and self.used.peak_mb < MOST_MB


def fill(home: EmbeddedHome, rows: int, days: int = 365) -> None:
    """Writes the books of so many records of so many days."""
    ports = home.ports
    lease = ports.leases.take(lease_name(*STREAM))
    runs = -(-rows // (BATCH * BATCHES_PER_RUN))
    for number in range(runs):
        at = BEGIN + timedelta(days=days * number / runs)
        first = number * BATCH * BATCHES_PER_RUN
        fill_run(home, lease, f"batch-{number}", at, range(first, min(rows, first + BATCH * BATCHES_PER_RUN)))
    ports.leases.release(lease)


def fill_run(home: EmbeddedHome, lease: Lease, id: str, at: datetime, records: range) -> None:
    window = Window(at - timedelta(hours=1), at)
    run = Run(id, *STREAM, "fetch", "settled", at, window, at, fetched=len(records), fetch_done=True, finished_at=at)
    batches, failures, cells = [], [], []
    for start in range(records.start, records.stop, BATCH):
        some = [record(number, at) for number in range(start, min(records.stop, start + BATCH))]
        failed = [place for place in range(len(some)) if (start + place) % FAILED_ONE_IN == 7]
        batch = Batch(
            id=f"{id}.0.{start // BATCH}",
            run=id,
            integration=STREAM[0],
            stream=STREAM[1],
            kind="fetch",
            lane=0,
            keys=[each.key for each in some],
            versions=[each.version for each in some],
            outcomes="".join("r" if place in failed else "d" for place in range(len(some))),
            committed_at=at,
            state="settled",
            touched_at=at,
        )
        batches.append(batch)
        for place, each in enumerate(some):
            if place in failed:
                verdict = Verdict(Outcome.REJECTED, 50, "the target says no")
                failures.append(Failure.of(each, verdict, batch, place, at))
                cells.append(Cell(each.key, origin=each.origin, failed=each.version, run=id, at=at))
            else:
                target = f"T{each.origin}"
                cells.append(Cell(each.key, each.version, content_hash(each.data), target, each.origin, run=id, at=at))
    home.ports.runs.commit(lease, run, batches, failures, cells)
    home.ports.runs.finish(lease, run, StreamState(*STREAM, cursor=at, last_run=id))


def record(number: int, at: datetime) -> Record:
    key = f"{number * 7_919 % 100_000_000_000:011d}"
    return Record(key, version_at(at, number), "upsert", str(number), "", {"name": f"Name {number}", "n": number})


def hub(folder: Path) -> Hub:
    """With the bench's own integration of rows."""
    return Hub({"WAYBILL_HOME": str(folder)}, ROOT / "tests" / "bench" / "functions")


def step(what: str, folder: Path, source: Path) -> int:
    """The measured process."""
    one = hub(folder)
    steps: dict[str, Callable[[], Any]] = {
        "export": lambda: snapshots.export(one, "full"),
        "incremental": lambda: snapshots.export(one, "some", "INCREMENTAL"),
        "examine": lambda: snapshots.examine(one, source),
        "import": lambda: snapshots.restore(one, source),
    }
    found = steps[what]()
    print(json.dumps({"rows": sum(found["counts"].values()), "peak_mb": peak_mb()}))
    one.close()
    return 0


def peak_mb() -> float:
    """Of this process, without what it was forked from: unlike that of `getrusage`, it begins anew with a program."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def measured(what: str, folder: Path, source: Path) -> Done:
    begun = time.monotonic()
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "MALLOC_ARENA_MAX": "2"}
    command = [*PYTHON, "--step", what, "--home", str(folder), "--source", str(source)]
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, start_new_session=True) as process:
        used = watched(process, begun, LONGEST)
        assert process.stdout is not None
        said = json.loads(process.stdout.read() or b'{"rows": 0, "peak_mb": 0.0}')
    return Done(what, said["rows"], source.stat().st_size, used._replace(peak_mb=said["peak_mb"]))


def measure(folder: Path, rows: int, days: int = 365) -> Iterator[Done]:
    """Exports, looks through, imports into an empty home, and exports what changed: nothing."""
    home = EmbeddedHome(folder / "here")
    fill(home, rows, days)
    home.close()
    archive = folder / "here" / "snapshots" / "outbox" / "full.zip"
    for what, where in (("export", "here"), ("examine", "there"), ("import", "there"), ("incremental", "there")):
        yield measured(what, folder / where, archive)


def table(found: list[Done]) -> Iterator[str]:
    yield f"{'step':14}{'rows':>12}{'archive MB':>12}{'seconds':>9}{'rows/s':>9}{'peak MB':>9}  under {MOST_MB:g} MB"
    for done in found:
        verdict = "met" if done.met else f"MISSED (exit {done.used.status})"
        yield (
            f"{done.what:14}{done.rows:12,}{done.size / 1e6:12.1f}{done.used.seconds:9.1f}"
            f"{done.rows / done.used.seconds:9,.0f}{done.used.peak_mb:9.0f}  {verdict}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.snapshot_rows", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    for hidden in ("--step", "--home", "--source"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        return step(asked.step, Path(asked.home), Path(asked.source))
    with tempfile.TemporaryDirectory(prefix="waybill-bench-") as name:
        found = list(measure(Path(name), asked.rows))
    print("\n".join(table(found)))
    return 0 if all(done.met for done in found) else 1


if __name__ == "__main__":
    sys.exit(main())
