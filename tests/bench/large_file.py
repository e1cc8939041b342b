"""`make bench-file`: a CSV of 2 GB streams in under 300 MB of memory.

Measured twice, in a process of its own each: narrow rows are read page by page, and wide ones travel a whole run to a
target over HTTP. Rows are known by their content and how often it came before, the most that there can be to remember.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from infra.clock import SystemClock
from infra.systems import Connection
from infra.systems.files import open_source
from shared.books import Window
from shared.retry import RetryPolicy
from tests.bench.measure import ROOT, Ends, Job, Used, watched

MOST_MB: Final = 300.0
LONGEST_RUN: Final = 7_200.0
DISK: Final = 5
"""So many times the size of the file has to be free: archive, ledger and messages are written beside it."""
PAGE: Final = 1_000
REPEAT_EVERY: Final = 1_000
"""Every so many narrow rows, one is there a second time."""
BLOCK: Final = 1_000
PYTHON: Final = (sys.executable, "-P", "-m")
NARROW: Final = "client_id,event,transaction_id,value,occurred_at\n"
WIDE: Final = "external_id,name,document,document_type,email,phone,city,updated_at\n"
TEXT: Final = "Cliente prefere contato por telefone, no período da manhã; ver observações. " * 24


class Done(NamedTuple):
    """One measurement: what it was, how many records there were and arrived, and what it took."""

    what: str
    size: int
    rows: int
    right: bool
    used: Used

    @property
    def met(self) -> bool:
        return self.right and self.used.peak_mb < MOST_MB


def narrow(number: int) -> str:
    """About 100 bytes."""
    number -= number % REPEAT_EVERY == REPEAT_EVERY - 1
    return (
        f"{1_000_000_000 + number}.17{number:08d},form_submitted_on_website,ORD-{number:012d},"
        f"{number % 100_000 / 100:.2f},2026-01-{number % 28 + 1:02d}T12:00:00-03:00\n"
    )


def wide(number: int) -> str:
    """About 2 kB, as the bench's target takes it."""
    return (
        f'{number},"{TEXT}{number}",{number:011d},CPF,cliente{number}@example.com,+5511{number:09d},"São Paulo, SP",'
        "2026-01-05T12:00:00-03:00\n"
    )


def write(path: Path, size: int, header: str, row_of: Callable[[int], str]) -> int:
    """Writes a file of at least so many bytes, and says how many rows it has."""
    rows = 0
    with path.open("wb") as file:
        file.write(header.encode())
        while file.tell() < size:
            file.write("".join(map(row_of, range(rows, rows + BLOCK))).encode())
            rows += BLOCK
    return rows


def read(path: str) -> int:
    """The measured process: counts the rows of a file, and those whose content came before."""
    clock = SystemClock()
    connection = Connection("", {}, None, PAGE, RetryPolicy(), clock, None, lambda: False, {"path": path})
    window = Window(datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))
    rows = repeats = 0
    with closing(open_source(connection, "rows")) as source:
        for page in source.pages(window, ""):
            rows += len(page.rows)
            repeats += sum(not row.origin.endswith("#0") for row in page.rows)
    print(json.dumps({"rows": rows, "repeats": repeats}))
    return 0


def measured_reading(folder: Path, size: int) -> Done:
    path = folder / "narrow.csv"
    rows = write(path, size, NARROW, narrow)
    begun = time.monotonic()
    process = subprocess.Popen(
        [*PYTHON, "tests.bench.large_file", "--read", str(path)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        used = watched(process, begun, LONGEST_RUN)
        assert process.stdout is not None
        said = process.stdout.read()
    counted = json.loads(said or b"{}") == {"rows": rows, "repeats": rows // REPEAT_EVERY}
    done = Done("read page by page", path.stat().st_size, rows, counted and not used.status, used)
    path.unlink()
    return done


def measured_run(folder: Path, size: int) -> Done:
    path = folder / "wide.csv"
    rows = write(path, size, WIDE, wide)
    overlay = folder / "overlay.yaml"
    overlay.write_text(json.dumps({"rows": {"streams": {"batch": {"path": str(path)}}}}))
    ends = Ends(1)
    try:
        job = Job(rows, "batch", 0)
        ends.prepare(job)
        settings = {"INTEGRATION": "rows", "WAYBILL_OVERLAY": str(overlay)}
        begun = time.monotonic()
        with subprocess.Popen(
            [*PYTHON, "tests.bench.contend"],
            cwd=ROOT,
            env=environment() | ends.environment(job, str(folder / "home")) | settings,
            stdout=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            used = watched(process, begun, LONGEST_RUN)
        target = ends.counts()[1]
    finally:
        ends.stop()
    right = target["received"] == target["distinct"] == rows and not target["malformed"] and not used.status
    return Done("a whole run, with its audit", path.stat().st_size, rows, right, used)


def environment() -> dict[str, str]:
    """As `./waybill` sets it."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "MALLOC_ARENA_MAX": "2"}


def table(found: list[Done]) -> Iterator[str]:
    yield f"{'what':28}{'GB':>6}{'rows':>12}{'seconds':>9}{'rows/s':>9}{'peak MB':>9}  under {MOST_MB:g} MB"
    for done in found:
        used = done.used
        verdict = "met" if done.met else "MISSED" if done.right else f"FAILED (exit {used.status})"
        yield (
            f"{done.what:28}{done.size / 1e9:6.2f}{done.rows:12,}{used.seconds:9.0f}{done.rows / used.seconds:9,.0f}"
            f"{used.peak_mb:9.0f}  {verdict}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.large_file", description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--read", metavar="FILE", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.read:
        return read(asked.read)
    size = int(asked.gigabytes * 1e9)
    with tempfile.TemporaryDirectory(prefix="waybill-bench-") as name:
        folder = Path(name)
        if shutil.disk_usage(folder).free < DISK * size:
            parser.error(f"{folder.parent} has less than {DISK * asked.gigabytes:g} GB free; set TMPDIR")
        found = [measured_reading(folder, size), measured_run(folder, size)]
    print("\n".join(table(found)))
    return 0 if all(done.met for done in found) else 1


if __name__ == "__main__":
    sys.exit(main())
