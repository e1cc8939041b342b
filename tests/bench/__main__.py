"""`make bench`: the embedded engine against other ways of doing the same work, all in one run on one machine.

Ratios count, records per second are the machine's: each cell is measured for a loop over a requests.Session, for a
bounded-concurrency asyncio client (both keep no state) and for the engine, which commits and audits every record.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.bench.measure import ROOT, Ends, Job, Ran, ceiling, measured, run, start
from tests.bench.rows import FIRST_ID

HERE: Final = Path(__file__).resolve().parent
PYTHON: Final = (sys.executable, "-P", "-m")
CONTENDERS: Final = {
    "session loop": (*PYTHON, "tests.bench.session_loop"),
    "asyncio client": (*PYTHON, "tests.bench.asyncio_client"),
    "waybill": (str(HERE / "contender"),),
}
RECORDS: Final = 100_000
MANY: Final = 1_000_000
MEMORY_MB: Final = 120.0
RATE_PER_MINUTE: Final = 600
RATED: Final = 300


class Cell(NamedTuple):
    """A kind of target, its budget as a multiple of the session loop, and how many records the loop is given."""

    name: str
    mode: str
    latency_ms: int
    budget: float
    loop_records: int
    rounds: int = 1


CELLS: Final = (
    Cell("batch-0", "batch", 0, 0.6, RECORDS, 3),
    Cell("batch-50", "batch", 50, 8.0, 5_000),
    Cell("single-0", "single", 0, 6.0, 5_000),
    Cell("single-50", "single", 50, 170.0, 200),
)
PARTS: Final = (*(cell.name for cell in CELLS), "start", "rate", "kill", "growth")


class Line(NamedTuple):
    """A line of the table; empty fields are not measured there."""

    what: str
    who: str = ""
    value: str = ""
    ratio: str = ""
    budget: str = ""
    verdict: str = ""
    cpu: str = ""
    memory: str = ""
    delivered: str = ""
    twice: str = ""


HEADS: Final = Line(
    "what", "contender", "records/s", "x loop", "budget", "", "CPU s/1,000", "peak MB", "delivered/expected", "twice"
)


def verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def of_run(what: str, who: str, ran: Ran, value: str = "", **more: str) -> Line:
    wrong = "" if ran.right else f" FAILED (exit {ran.status}) {ran.error.splitlines()[-1] if ran.error else ''}"
    return Line(
        what,
        who,
        value or f"{ran.rate:,.0f}",
        cpu=f"{ran.cpu / max(1, ran.job.rows) * 1000:.3f}",
        memory=f"{ran.peak_mb:.0f}",
        delivered=f"{ran.delivered:,}/{ran.expected:,}{wrong}",
        twice=str(ran.twice),
        **more,
    )


def median(runs: Sequence[Ran]) -> Ran:
    """The run of median speed; one that went wrong comes first."""
    wrong = [ran for ran in runs if not ran.right]
    return wrong[0] if wrong else sorted(runs, key=lambda ran: ran.seconds)[len(runs) // 2]


class Bench:
    """One whole run. Lines are collected, and shown as one table at the end."""

    def __init__(self, ends: Ends, contenders: dict[str, tuple[str, ...]], progress: Callable[[str], None]) -> None:
        self.ends = ends
        self.contenders = contenders
        self.progress = progress
        self.lines: list[Line] = []
        self.at_100k: dict[str, Ran] = {}

    def ceilings(self) -> None:
        self.ends.prepare(Job(RECORDS, "batch", 0))
        record = b'{"external_id":"1","name":"n","document":"00000000000","document_type":"CPF","email":"e",'
        record += b'"phone":"p","city":"c","updated_at":"u"}'
        hundred = b"[" + b",".join([record] * 100) + b"]"
        page = f"/Contacts?$filter=Id%20gt%20{FIRST_ID}&$top=300".encode()
        for what, url, sent, records, times in (
            ("pages of 300", self.ends.source, request(b"GET", page), 300, 1_000),
            ("POSTs of 100", self.ends.target, request(b"POST", b"/Contacts/batch", hundred), 100, 500),
            ("POSTs of one", self.ends.target, request(b"POST", b"/Contacts", record), 1, 20_000),
        ):
            rate = ceiling(url, sent, times)
            self.lines.append(Line("ceiling", f"the server, {what}", f"{rate * records:,.0f}"))

    def cell(self, cell: Cell) -> None:
        runs: dict[str, list[Ran]] = {name: [] for name in self.contenders}
        for _ in range(cell.rounds):
            for name, command in self.contenders.items():
                rows = cell.loop_records if name == "session loop" else RECORDS
                self.progress(f"{cell.name}: {name}, {rows:,} records")
                runs[name].append(run(self.ends, command, Job(rows, cell.mode, cell.latency_ms)))
        found = {name: median(each) for name, each in runs.items()}
        per_post = "one" if cell.mode == "single" else "100"
        for name, ran in found.items():
            ratio = ran.rate / found["session loop"].rate if "session loop" in found else 0.0
            line = of_run(f"{per_post} per POST, {cell.latency_ms} ms", name, ran)
            line = line._replace(ratio=f"{ratio:.2f}" if ratio else "")
            if name == "waybill":
                met = ran.right and ratio >= cell.budget
                line = line._replace(budget=f">= {cell.budget:g}", verdict=verdict(met) if ratio else "")
                self.at_100k[cell.name] = ran
            self.lines.append(line)

    def memory(self) -> None:
        if self.at_100k:
            peak = max(ran.peak_mb for ran in self.at_100k.values())
            met = verdict(peak < MEMORY_MB)
            self.lines.append(
                Line(f"memory, {RECORDS:,}", "waybill", "", "", f"< {MEMORY_MB:g} MB", met, memory=f"{peak:.0f}")
            )

    def start(self) -> None:
        self.progress("start")
        folder = tempfile.mkdtemp(prefix="waybill-bench-")
        try:
            self.ends.prepare(Job(0, "batch", 0))
            overlay = Path(folder, "overlay.yaml")
            overlay.write_text("ploomes_to_milvus: {source: {rate_limit: none}}\n")
            environment = {
                "WAYBILL_HOME": folder,
                "WAYBILL_OVERLAY": str(overlay),
                "PLOOMES_URL": self.ends.source,
                "PLOOMES_USER_KEY": "bench",
                "MILVUS_URL": f"{self.ends.target}/api",
                "MILVUS_TOKEN": "bench",
            }
            for what, arguments, budget in (
                ("start: a run with nothing to do", ("run", "ploomes_to_milvus"), 0.5),
                ("start: ./waybill list", ("list",), 0.3),
            ):
                seconds = statistics.median(_timed([str(ROOT / "waybill"), *arguments], environment) for _ in range(7))
                self.lines.append(
                    Line(what, "waybill", f"{seconds:.2f} s", "", f"< {budget:g} s", verdict(seconds < budget))
                )
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def rate(self) -> None:
        self.progress(f"rate: {RATED} records at {RATE_PER_MINUTE} a minute")
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as overlay:
            overlay.write(f"contacts: {{sink: {{rate_limit: {RATE_PER_MINUTE}/min}}}}\n")
            overlay.flush()
            job = Job(RATED, "single", 0)
            ran = run(self.ends, CONTENDERS["waybill"], job, rated=True, WAYBILL_OVERLAY=overlay.name)
        ideal = ran.expected * 60 / RATE_PER_MINUTE
        over = ran.seconds / ideal
        self.lines.append(
            of_run(
                f"rate of {RATE_PER_MINUTE}/min", "waybill", ran, f"{over:.3f} x N/R", budget="<= 1.05",
                verdict=verdict(ran.right and over <= 1.05),
            )
        )  # fmt: skip
        for window, largest in ran.largest.items():
            allowed = RATE_PER_MINUTE * float(window) / 60
            self.lines.append(
                Line(
                    f"rate, most in any {float(window):g} s", "waybill", f"{largest} POSTs", "", f"<= {allowed:g}",
                    verdict(largest <= allowed),
                )
            )  # fmt: skip

    def kill(self) -> None:
        """Killed without warning while it waits for answers, then run again in the same folder.

        What was under way did arrive, and it cannot know: it must neither send it again nor call it delivered.
        """
        self.progress("kill")
        job = Job(20_000, "batch", 0)
        folder = tempfile.mkdtemp(prefix="waybill-bench-")
        try:
            self.ends.prepare(job)
            self.ends.silence(job.rows // 2)
            first = start(self.ends, CONTENDERS["waybill"], job, folder, subprocess.DEVNULL)
            latest = time.monotonic() + 60
            while self.ends.received() < job.rows / 2 and first.poll() is None and time.monotonic() < latest:
                time.sleep(0.005)
            first.kill()
            cut_short = first.wait() < 0
            self.ends.silence(0)
            ran = measured(self.ends, CONTENDERS["waybill"], job, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        met = cut_short and ran.status == 0 and not ran.twice
        self.lines.append(
            Line(
                "kill -9 at half, then again", "waybill", f"exit {ran.status}", "", "none twice", verdict(met),
                delivered=f"{ran.delivered:,}/{ran.expected:,} and the rest unknown", twice=str(ran.twice),
            )
        )  # fmt: skip

    def growth(self) -> None:
        self.progress(f"growth: {MANY:,} records")
        small = self.at_100k.get("batch-0") or run(self.ends, CONTENDERS["waybill"], Job(RECORDS, "batch", 0))
        large = run(self.ends, CONTENDERS["waybill"], Job(MANY, "batch", 0))
        ratio = large.rate / small.rate
        self.lines.append(
            of_run(
                f"growth, {MANY:,}", "waybill", large, budget=">= 0.8 x 100,000",
                verdict=verdict(large.right and ratio >= 0.8), ratio=f"({ratio:.2f})",
            )
        )  # fmt: skip
        met = verdict(large.peak_mb <= 1.2 * small.peak_mb)
        budget = f"<= 1.2 x {small.peak_mb:.0f}"
        self.lines.append(Line(f"memory, {MANY:,}", "waybill", "", "", budget, met, memory=f"{large.peak_mb:.0f}"))


def request(method: bytes, path: bytes, body: bytes = b"") -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n%b" % (method, path, len(body), body)


def _timed(command: Sequence[str], environment: dict[str, str]) -> float:
    begun = time.monotonic()
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)
    seconds = time.monotonic() - begun
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    return seconds


def table(lines: Sequence[Line]) -> str:
    widths = [max(len(line[place]) for line in lines) for place in range(len(HEADS))]
    shown = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([shown[0], "-" * (sum(widths) + 2 * len(widths) - 2), *shown[1:]])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="also a million records")
    parser.add_argument("--only", default="", metavar="PART,...", help=f"some of {', '.join(PARTS)}")
    asked = parser.parse_args()
    parts = asked.only.split(",") if asked.only else [part for part in PARTS if part != "growth" or asked.full]
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}: there are {', '.join(PARTS)}")
    contenders = dict(CONTENDERS)
    missing = [name for name in ("aiohttp", "orjson", "uvloop") if importlib.util.find_spec(name) is None]
    if missing:
        del contenders["asyncio client"]
        print(f"left out: the asyncio client, since {', '.join(missing)} is not installed (make bench installs it)")

    def progress(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    progress("serialising the source's rows")
    ends = Ends(MANY if "growth" in parts else RECORDS)
    bench = Bench(ends, contenders, progress)
    try:
        bench.ceilings()
        for cell in CELLS:
            if cell.name in parts:
                bench.cell(cell)
        bench.memory()
        for part in ("start", "rate", "kill", "growth"):
            if part in parts:
                getattr(bench, part)()
    finally:
        ends.stop()
    print(table([HEADS, *bench.lines]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
