"""Cold starts: from the start of a process to the first answer of each function, against a bare function.

The bare one imports the same Google clients, reads a document and says nothing. Of both, what a like request takes once
everything is there is taken off, so that what is compared is what the first request costs more than a later one; and
processor time is compared, of which a start consists, whatever else the machine does. A function starts from its
archive, compiled and dated as the buildpack leaves it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from google.cloud import storage

from infra.entrypoints import push_body
from infra.gcp.names import bucket_name
from infra.wiring import Hub
from shared.ports import Message
from shared.record import Envelope
from tests import archives, emulators
from tests.bench.counts import EVENTS, published
from tests.bench.measure import ROOT
from tests.sandbox import Sandbox

ROUNDS: Final = 7
BUDGET: Final = 1.3
DATED: Final = 315_532_801
"""1 January 1980, as Cloud Native Buildpacks date files (buildpacks/lifecycle, issue 1358)."""
RECORDS: Final = 20
BATCHES: Final = 4
AGAIN: Final = 4
"""Requests of a function; all but the first find everything there."""
CLIENTS: Final = (
    "google.cloud.firestore", "google.pubsub_v1", "google.cloud.storage", "google.cloud.scheduler_v1",
    "google.cloud.bigquery", "google.auth",
)  # fmt: skip
STREAMS: Final = {
    "ploomes_to_milvus": "customers",
    "milvus_to_ploomes": "customers",
    "okki_to_qeasy": "users",
    EVENTS.integration: EVENTS.stream,
    "data_syncs": "customers_export",
}
ENDS: Final = {
    "source": {"rate_limit": "none"},
    "sink": {"rate_limit": "none", "batch_size": RECORDS // BATCHES, "lanes": 1},
}
UNKNOWN: Final = Envelope("ploomes_to_milvus", "customers", "a-run", "a-batch", 0, [])
BODIES: Final = {
    "dead_letter": push_body(Message(UNKNOWN.to_bytes()), "", 1),
    "replay": b'{"integration": "ploomes_to_milvus", "reason": "cold"}',
}
"""What an operation is sent; the others take nothing."""
CALLS: Final = {
    "api": ("GET", "/api/data-sync/customers_export"),
    "snapshots": ("GET", "/aif/rest/V1/jobs/1"),
}
"""How a function is called that is not called as all the others."""
BARE: Final = """\
{imports}
from google.cloud import firestore

documents = None

def bare(request):
    global documents
    documents = documents or firestore.Client()
    documents.document("bare/bare").get()
    return ""
"""
CHILD: Final = f"""\
import sys, time
target, method, path = sys.argv[1:]
import functions_framework

app = functions_framework.create_app(target, "main.py")
imported = time.process_time()

import json
client = app.test_client()
answers = []
for body in json.load(sys.stdin):
    asked = time.process_time()
    answer = client.open(path, method=method, data=body, content_type="application/json")
    answers.append((answer.status_code, time.process_time() - asked))
first, *later = answers
with open("/proc/self/status") as status:
    (peak,) = [line.split()[1] for line in status if line.startswith("VmHWM:")]
print(json.dumps({{
    "statuses": [status for status, _ in answers],
    "imported": imported,
    "answered": imported + first[1] - min(seconds for _, seconds in later),
    "peak_mb": int(peak) / 1024,
    "clients": [name for name in {CLIENTS} if name in sys.modules],
}}))
"""


class Cold(NamedTuple):
    """One start. Times are of the processor, in seconds, and begin with the process."""

    statuses: list[int]
    imported: float
    answered: float
    peak_mb: float
    clients: list[str]


class Compared(NamedTuple):
    """The starts of a function, and as many of the bare one."""

    name: str
    own: list[Cold]
    bare: list[Cold]

    @property
    def ratio(self) -> float:
        return _median(self.own, "answered") / _median(self.bare, "answered")

    def line(self) -> str:
        times = [f"{_median(self.own, what) * 1000:9.0f}" for what in ("imported", "answered")]
        bare = f"{_median(self.bare, 'answered') * 1000:9.0f}"
        memory = [f"{_median(each, 'peak_mb'):9.0f}" for each in (self.own, self.bare)]
        verdict = "met" if self.ratio <= BUDGET else "MISSED"
        clients = ", ".join(name.rpartition(".")[2] for name in self.own[0].clients)
        refused = sorted({status for start in self.own for status in start.statuses if status >= 300})
        what = f"{self.name} {refused or ''}"
        shown = [f"{what:40}", *times, bare, f"{self.ratio:9.2f}", f"{verdict:>9}", *memory]
        return f"{''.join(shown)}  {clients}"


HEAD: Final = (
    f"{'cold start':40}   imports  answered      bare     ratio  <= {BUDGET}        MB   bare MB  Google clients"
)


def _median(starts: Sequence[Cold], what: str) -> float:
    return statistics.median(getattr(start, what) for start in starts)


class Functions:
    """What is deployed from these folders, beside emulators and the sandbox of this environment."""

    def __init__(self, folders: Sequence[str], workspace: Path, environment: Mapping[str, str]) -> None:
        streams = {name: {"streams": {stream: {}}} for name, stream in STREAMS.items()}
        streams[EVENTS.integration] = {"streams": {EVENTS.stream: EVENTS.settings}}
        overlay = {name: {**ENDS, **streams[name]} for name in STREAMS}
        self.environment = environment
        self.places = [
            built(archives.unpack(archives.members(ROOT, name, overlay), workspace / name)) for name in folders
        ]

    def starts(self) -> Iterator[tuple[str, Mapping[str, str], Cold]]:
        """Each function once, with the environment that it had, in a project where nothing has happened yet."""
        project = f"waybill-cold-{uuid.uuid4().hex[:12]}"
        told = {**self.environment, "WAYBILL_BACKEND": "gcp", "GOOGLE_CLOUD_PROJECT": project}
        told["WAYBILL_OVERLAY"] = archives.rules(ROOT)["overlay"]
        client = storage.Client(project=project)
        client.create_bucket(bucket_name(project))
        client.close()
        hub = Hub({**self.environment, "WAYBILL_BACKEND": "gcp", "GOOGLE_CLOUD_PROJECT": project})
        hub.home.objects.put("customers", {str(n): {"name": "Ana"} for n in range(RECORDS)}, hub.clock.now())
        hub.close()
        for place in self.places:
            targets = archives.entry_points(ROOT, place.name)
            if place.name in STREAMS:
                body = json.dumps({"stream": STREAMS[place.name], "full": True}).encode()
                with published(project, place.name) as messages:
                    yield f"{place.name} source", told, cold_start(place, "source", [body] * AGAIN, told)
                    pushes = [push_body(message, "", 1) for message in islice(messages, BATCHES)]
                yield f"{place.name} sink", told, cold_start(place, "sink", pushes, told)
                targets = [target for target in targets if target not in ("source", "sink")]
            for target in targets:
                bodies = [BODIES.get(target, b"")] * AGAIN
                yield f"{place.name} {target}", told, cold_start(place, target, bodies, told)


def compared(functions: Functions, workspace: Path) -> list[Compared]:
    """Each function and, right after it, its bare one, so many times."""
    bare = workspace / "bare"
    bare.mkdir()
    found: dict[str, Compared] = {}
    for _ in range(ROUNDS):
        for name, told, start in functions.starts():
            (bare / "main.py").write_text(BARE.format(imports="\n".join(f"import {each}" for each in start.clients)))
            both = found.setdefault(name, Compared(name, [], []))
            both.own.append(start)
            both.bare.append(cold_start(bare, "bare", [b""] * AGAIN, told))
    return list(found.values())


def built(place: Path) -> Path:
    """As an image holds it: compiled by the buildpack for functions, dated by whoever packs it."""
    told = {**os.environ, **archives.rules(ROOT)["build_environment"]}
    subprocess.run([sys.executable, "-m", "compileall", "-f", "-q", "."], cwd=place, env=told, check=True)
    for path in place.rglob("*"):
        os.utime(path, (DATED, DATED))
    return place


def cold_start(folder: Path, target: str, bodies: Sequence[bytes], environment: Mapping[str, str]) -> Cold:
    command = [sys.executable, "-P", "-B", "-c", CHILD, target, *CALLS.get(target, ("POST", "/"))]
    asked = json.dumps([body.decode() for body in bodies])
    done = subprocess.run(
        command, cwd=folder, env=environment, input=asked, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        raise SystemExit(f"{folder.name} {target} did not start: {done.stderr.strip()[-800:]}")
    start = Cold(**json.loads(done.stdout.splitlines()[-1]))
    if max(start.statuses) >= 500:
        raise SystemExit(f"{folder.name} {target} answered {start.statuses}: {done.stderr.strip()[-800:]}")
    return start


def main() -> int:
    """Starts emulators and a sandbox of its own."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="waybill-cold-")))
        try:
            running = emulators.start(folder)
        except emulators.EmulatorsMissing as missing:
            print(f"left out: cold starts, since {missing}")
            return 0
        for emulator in (running.pubsub, running.firestore, running.storage):
            stack.callback(emulator.stop)
        os.environ.update(running.environ)
        many: dict[str, Any] = dict.fromkeys(("customers", "clients", "users", "conversions"), RECORDS)
        sandbox = stack.enter_context(Sandbox(**many, ploomes_per_minute=None, qeasy_per_minute=None))
        own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        found = compared(Functions(archives.folders(ROOT), folder, {**own, **sandbox.environment}), folder)
    print(
        f"milliseconds of the processor, and MB, medians of {ROUNDS}", HEAD, *(each.line() for each in found), sep="\n"
    )
    return 1 if any(each.ratio > BUDGET for each in found) else 0


if __name__ == "__main__":
    sys.exit(main())
