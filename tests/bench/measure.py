"""Runs a command against the bench's servers and measures it: wall time, processor time, memory, what arrived."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
SAMPLE_SECONDS: Final = 0.05
LONGEST_RUN: Final = 900.0


class Job(NamedTuple):
    """What a contender is to do."""

    rows: int
    mode: str
    latency_ms: int


class Ran(NamedTuple):
    """How it did it. `peak_mb` is the largest sum over the command's processes."""

    job: Job
    seconds: float
    cpu: float
    peak_mb: float
    status: int
    delivered: int
    expected: int
    twice: int
    right: bool
    largest: Mapping[str, int]
    error: str

    @property
    def rate(self) -> float:
        return self.job.rows / self.seconds


class Used(NamedTuple):
    """What a process took until its end. `peak_mb` is the largest sum over it and all below it."""

    seconds: float
    cpu: float
    peak_mb: float
    status: int


class Ends:
    """Source and target, in a process each."""

    def __init__(self, most_rows: int) -> None:
        self._processes: list[subprocess.Popen[str]] = []
        try:
            self.source = self._start("source", str(most_rows))
            self.target = self._start("target")
        except BaseException:
            self.stop()
            raise

    def _start(self, *arguments: str) -> str:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.bench.servers", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port:
            raise SystemExit(f"the {arguments[0]} did not start")
        return f"http://127.0.0.1:{port}"

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(10)

    def prepare(self, job: Job, *, rated: bool = False) -> None:
        _call(f"{self.source}/_control", {"rows": job.rows, "latency_ms": job.latency_ms})
        _call(f"{self.target}/_control", {"latency_ms": job.latency_ms, "rated": rated})

    def environment(self, job: Job, folder: str) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("WAYBILL_")},
            "PYTHONPATH": str(ROOT),
            "SOURCE_URL": self.source,
            "TARGET_URL": self.target,
            "N": str(job.rows),
            "MODE": job.mode,
            "WORKDIR": folder,
            "USER_KEY": "bench",
            "LATENCY_MS": str(job.latency_ms),
        }

    def silence(self, after: int) -> None:
        """Lets the target take records without an answer once it has so many; 0 lets it speak again."""
        _call(f"{self.target}/_control", {"silent_from": after, "keep": True})

    def received(self) -> int:
        return int(_call(f"{self.target}/_stats")["received"])

    def counts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return _call(f"{self.source}/_stats"), _call(f"{self.target}/_stats")


def run(ends: Ends, command: Sequence[str], job: Job, *, rated: bool = False, **environment: str) -> Ran:
    """One run in an empty folder."""
    folder = tempfile.mkdtemp(prefix="waybill-bench-")
    try:
        ends.prepare(job, rated=rated)
        return measured(ends, command, job, folder, **environment)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measured(ends: Ends, command: Sequence[str], job: Job, folder: str, **environment: str) -> Ran:
    with tempfile.TemporaryFile() as errors:
        begun = time.monotonic()
        used = watched(start(ends, command, job, folder, errors, **environment), begun)
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip()[-400:]
    source, target = ends.counts()
    twice = target["received"] - target["distinct"]
    right = target["distinct"] == source["distinct"] and target["sum"] == source["sum"] and not target["malformed"]
    return Ran(
        job, *used, target["distinct"], source["distinct"], twice, right and not twice and used.status == 0,
        target["largest"], said,
    )  # fmt: skip


def watched(process: subprocess.Popen[Any], begun: float, longest: float = LONGEST_RUN) -> Used:
    """Waits for the end of a process that leads a group of its own, which is killed after so many seconds."""
    peak = _Peak(process.pid)
    peak.start()
    timer = threading.Timer(longest, lambda: os.killpg(process.pid, signal.SIGKILL))
    timer.start()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begun
    timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    largest_mb = max(peak.finish(), usage.ru_maxrss / 1024)
    return Used(seconds, usage.ru_utime + usage.ru_stime, largest_mb, process.returncode)


def start(
    ends: Ends, command: Sequence[str], job: Job, folder: str, errors: Any, **environment: str
) -> subprocess.Popen[bytes]:
    """The command in a process group of its own."""
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**ends.environment(job, folder), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        start_new_session=True,
    )


class _Peak(threading.Thread):
    """Samples the memory of a process and all below it."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._peak = 0
        self._done = threading.Event()
        self._page = os.sysconf("SC_PAGE_SIZE")

    def run(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            self._peak = max(self._peak, sum(map(self._resident, _family(self._pid))))

    def _resident(self, pid: int) -> int:
        try:
            return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * self._page
        except (OSError, IndexError):
            return 0

    def finish(self) -> float:
        self._done.set()
        self.join()
        return self._peak / 2**20


def _family(pid: int) -> list[int]:
    found, todo = [], [pid]
    while todo:
        each = todo.pop()
        found.append(each)
        try:
            for children in Path(f"/proc/{each}/task").glob("*/children"):
                todo.extend(map(int, children.read_text().split()))
        except OSError:
            continue
    return found


def _call(url: str, body: Any = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=60) as answer:
        found: dict[str, Any] = json.loads(answer.read())
        return found


def ceiling(url: str, request: bytes, times: int) -> float:
    """Requests per second that a server answers to one connection that never waits for an answer."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(request)
        size = len(connection.recv(1 << 20))
        while (more := _length(connection)) > 0:
            size += more
        begun = time.monotonic()
        writer = threading.Thread(target=connection.sendall, args=(request * times,))
        writer.start()
        left = size * times
        while left > 0:
            left -= len(connection.recv(1 << 20))
        seconds = time.monotonic() - begun
        writer.join()
    return times / seconds


def _length(connection: socket.socket) -> int:
    """Bytes that arrive before it is quiet for a moment."""
    connection.settimeout(0.2)
    try:
        return len(connection.recv(1 << 20))
    except TimeoutError:
        return 0
    finally:
        connection.settimeout(30)
