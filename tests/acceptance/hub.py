"""The outside of Waybill, as the acceptance tests drive it: the command, the sandbox over HTTP, and nothing within."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import requests
import yaml

from tests.sandbox import Sandbox

ROOT = Path(__file__).resolve().parents[2]
NAME = "ploomes_to_milvus"
PATIENCE = 240.0
"""Seconds after which something that a test waits for is said never to happen."""

Document = dict[str, Any]
ENDS: Document = {
    "source": {"rate_limit": "none", "retry": {"attempts": 5, "wait": "50ms"}},
    "sink": {"rate_limit": "none", "redeliver_after": "100ms", "retry": {"attempts": 3, "wait": "50ms"}},
}
QUICK: Document = ENDS | {"streams": {"customers": {"hold_back": "0s"}}}
COUNTS = (
    "fetched", "filtered", "duplicate", "invalid", "unchanged", "superseded", "delivered", "rejected", "exhausted",
    "unknown", "pending",
)  # fmt: skip


class Done(NamedTuple):
    """How a command ended: its exit code, its one JSON document, and its notes on stderr."""

    code: int
    document: Document
    notes: str

    @property
    def customers(self) -> Document:
        found: Document = self.document["streams"]["customers"]
        return found


def wait_until(
    holds: Callable[[], object], what: str, during: subprocess.Popen[str] | None = None, every: float = 0.002
) -> None:
    """Returns as soon as it holds; an AssertionError names what never came, or came no more since the command ended."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"it never came: {what}"
        assert during is None or during.poll() is None, f"the command ended before: {what}"
        time.sleep(every)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Document:
    both = dict(base)
    for name, value in over.items():
        both[name] = merged(both.get(name, {}), value) if isinstance(value, dict) else value
    return both


@cache
def unscheduled() -> Document:
    """No schedule but the one that most tests are about: a test that lasts over the full hour would see the others."""
    found = {}
    for file in sorted((ROOT / "functions").glob("*/integration.yaml")):
        streams = yaml.safe_load(file.read_text(encoding="utf8"))["streams"]
        if file.parent.name != NAME:
            found[file.parent.name] = {"streams": {name: {"schedule": None} for name in streams}}
    return found


def counts(report: Mapping[str, Any]) -> dict[str, int]:
    """The counts of a report that are not zero."""
    return {name: report[name] for name in COUNTS if report[name]}


class Hub:
    """One home beside one sandbox. `environment` is all that a command sees; a test may change it."""

    def __init__(self, folder: Path, sandbox: Sandbox, overlay: Mapping[str, Any]) -> None:
        folder.mkdir()
        self.sandbox = sandbox
        self.home = folder / "home"
        self.environment = {
            **os.environ,
            **sandbox.environment,
            "WAYBILL_HOME": str(self.home),
            "WAYBILL_OVERLAY": str(folder / "overlay.yaml"),
        }
        self._started: list[subprocess.Popen[str]] = []
        self.overlay(overlay)

    def overlay(self, changes: Mapping[str, Any], **others: Mapping[str, Any]) -> None:
        """From now on these settings over the quick ones, and `others` for the other integrations. JSON is YAML too."""
        quick = {NAME: merged(QUICK, changes), **{name: merged(ENDS, each) for name, each in others.items()}}
        Path(self.environment["WAYBILL_OVERLAY"]).write_text(json.dumps(merged(unscheduled(), quick)))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A command under way; whatever is left of it ends with the test."""
        return self.keep(
            subprocess.Popen(
                [ROOT / "waybill", *arguments, "--json"],
                env=self.environment,
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )

    def keep(self, process: subprocess.Popen[str]) -> subprocess.Popen[str]:
        self._started.append(process)
        return process

    def finish(self, process: subprocess.Popen[str]) -> Done:
        """Waits for a command. What it says is one document and never holds a secret."""
        output, notes = process.communicate(timeout=PATIENCE)
        self._started.remove(process)
        for secret in (self.sandbox.ploomes.key, self.sandbox.milvus.token):
            assert secret not in output + notes
        document = json.loads(output) if output else {}
        assert not output or document["schema_version"] == 1
        return Done(process.returncode, document, notes)

    def __call__(self, *arguments: str) -> Done:
        return self.finish(self.start(*arguments))

    def run(self, *options: str) -> Done:
        return self("run", NAME, *options)

    def failures(self, *options: str) -> list[Document]:
        done = self("failures", NAME, *options)
        assert done.code == 0, done
        found: list[Document] = done.document["failures"]
        return found

    def replay(self, *options: str) -> Done:
        return self("replay", NAME, "--reason", "the cause was mended", "--yes", *options)

    def status(self) -> Document:
        done = self("status", NAME)
        assert done.code == 0, done
        found: Document = done.document["integrations"][0]["streams"][0]
        return found

    def audited(self) -> dict[str, int]:
        """The present outcomes, other than zero, of books that balance and leave nothing out."""
        done = self("audit", NAME)
        assert (done.code, done.document["balanced"], done.document["unaccounted"]) == (0, True, []), done
        assert sum(done.customers[name] for name in COUNTS[1:]) == done.customers["fetched"]
        return counts(done.customers)

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()

    # --- the sandbox ---

    def faults(self, system: str, text: str) -> None:
        """Replaces the switches of one system."""
        self.control(system, "faults", faults=text)

    def control(self, system: str, action: str, **body: Any) -> Document:
        answer = requests.post(f"{self.sandbox.urls[system]}/_sandbox/{action}", json=body, timeout=PATIENCE)
        answer.raise_for_status()
        found: Document = answer.json()
        return found

    def stats(self, system: str) -> Document:
        answer = requests.get(f"{self.sandbox.urls[system]}/_sandbox/stats", timeout=PATIENCE)
        found: Document = answer.json()
        return found

    def rows(self, system: str, kind: str | None = None) -> list[Document]:
        """What a system holds: of the kind that it is about unless another is named."""
        url = f"{self.sandbox.urls[system]}/_sandbox/state"
        answer = requests.get(url, params={"kind": kind} if kind else None, timeout=PATIENCE)
        found: list[Document] = answer.json()["rows"]
        return found

    def change(self, contact: int, **fields: Any) -> None:
        """One contact is corrected at the source, as its user would."""
        url = f"{self.sandbox.urls['ploomes']}/Contacts({contact})"
        headers = {"User-Key": self.sandbox.ploomes.key}
        requests.patch(url, json=fields, headers=headers, timeout=PATIENCE).raise_for_status()

    def asked(self, system: str) -> int:
        """Requests so far, read without adding to the load."""
        with self.sandbox.systems[system].lock:
            return sum(self.sandbox.systems[system].requests.values())

    def wait_for_requests(self, system: str, more: int) -> None:
        """Returns once so many more requests than now have come."""
        enough = self.asked(system) + more
        wait_until(lambda: self.asked(system) >= enough, f"{more} requests to {system}")

    def arrived(self) -> int:
        """Clients at the target so far."""
        with self.sandbox.milvus.lock:
            return len(self.sandbox.milvus.clients)

    def at_source(self) -> list[tuple[str, str]]:
        """Document and name of each contact that has a document."""
        return sorted((row["Register"], row["Name"]) for row in self.rows("ploomes") if row["Register"])

    def at_target(self) -> list[tuple[str, str]]:
        """Document and name of each client: a client that is there twice stands here twice."""
        return sorted((row["cnpj_cpf"], row["nome_fantasia"]) for row in self.rows("milvus"))
