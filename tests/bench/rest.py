"""What the hub costs on Google Cloud in a month in which nothing happens, and what it takes to read a thousand records
again that have not changed; counted at the ports beside the emulators.

Every job of the schedule is called once everything has been read, with nothing new at any source, and counted as often
as it comes around in a month of 30 days. A call is taken to start an instance, and to keep it for `CALL_SECONDS`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml
from croniter import croniter

from infra.entrypoints import Handlers, push_body
from infra.environment import SYSTEM_VARIABLES
from infra.log import silent
from infra.operations import Operations
from infra.wiring import ROOT, Hub
from shared.accounting import Counts
from shared.ports import Message
from shared.stream import Stream
from tests import emulators
from tests.bench.counts import MESSAGE_FRAME, RECORDS, Unhurried, published
from tests.bench.prices import AS_OF, FUNCTION_SECOND, MONTHLY, PRICES, REGION, SECRET_READ
from tests.sandbox import Sandbox

CALL_SECONDS: Final = 1.0
BEGIN: Final = datetime(2026, 11, 1, tzinfo=UTC)
MONTH: Final = timedelta(days=30)
READ_AGAIN: Final = {"milvus_to_ploomes": "customers", "okki_to_qeasy": "users"}
"""Streams whose systems date nothing: each run reads all there is."""


class Job(msgspec.Struct, frozen=True):
    """A job of Cloud Scheduler, how often it calls in a month, and what one call takes when nothing is new."""

    name: str
    calls: int
    amounts: dict[str, int]


class Month(msgspec.Struct, frozen=True):
    """What is called, what is kept ready, and what both cost."""

    jobs: list[Job]
    secrets: int

    @property
    def amounts(self) -> dict[str, int]:
        total: Counter[str] = Counter()
        for job in self.jobs:
            total.update({name: amount * job.calls for name, amount in job.amounts.items()})
        return dict(total)

    def usd(self) -> dict[str, float]:
        """By unit."""
        amounts = self.amounts
        kept = {"jobs": len(self.jobs), "secrets": self.secrets}
        used = {price.unit: price.of(amounts.get(name, 0)) for name, price in PRICES.items()}
        used[SECRET_READ.unit] = SECRET_READ.of(amounts["secret_reads"])
        used[FUNCTION_SECOND.unit] = FUNCTION_SECOND.of(amounts["invocations"] * CALL_SECONDS)
        return {**used, **{price.unit: price.of(kept[name]) for name, price in MONTHLY.items()}}

    def lines(self) -> Iterator[str]:
        """For people."""
        yield "Google Cloud, a month in which nothing happens"
        for job in self.jobs:
            took = ", ".join(f"{amount} {name.replace('_', ' ')}" for name, amount in job.amounts.items() if amount)
            yield f"  {job.name:40}{job.calls:7,} calls, each {took}"
        yield f"USD a month, {REGION}, prices as of {AS_OF}, before free tiers"
        for unit, usd in self.usd().items():
            yield f"  {unit:32}{usd:8.4f}"
        yield f"  {'together':32}{sum(self.usd().values()):8.4f}"


def times(cron: str) -> int:
    """How often a month a schedule comes around."""
    found, end = croniter(cron, BEGIN - timedelta(seconds=1)), BEGIN + MONTH
    return sum(1 for _ in iter(lambda: found.get_next(datetime) < end, False))


def platform_jobs() -> dict[str, str]:
    """The schedules of functions that are no integration's, by entry point, as Terraform reads them."""
    return {
        entry: says["schedule"]
        for file in (ROOT / "functions").glob("*/deploy.yaml")
        for entry, says in yaml.safe_load(file.read_text(encoding="utf8")).items()
        if "schedule" in says
    }


def month(environ: Mapping[str, str]) -> Month:
    """`environ` is what leads to the emulators, as in the process's environment."""
    with Sandbox(customers=0) as sandbox, _hub({**environ, **sandbox.environment}, _unlimited()) as hub:
        meter, operations = hub.google.meter, Operations(hub, silent)
        jobs: dict[str, Job] = {}
        systems: set[str] = set()
        # The second time nothing is read for the first time, and what ran before is closed.
        for _ in range(2):
            for name, integration in hub.integrations.items():
                for stream in hub.sound_streams(integration)[0]:
                    cron = integration.streams[stream.name].schedule
                    if cron is None:
                        continue
                    ends = hub.ends(stream)
                    systems.update(ends)
                    before = meter.counts()
                    answer = Handlers(hub, name, silent).source(json.dumps({"stream": stream.name}).encode(), {})
                    _check(answer.status, 200, stream.name)
                    amounts = _amounts(meter.since(before), secret_reads=len(_secrets({ends[0]})))
                    jobs[f"{name} {stream.name}"] = Job(f"{name} {stream.name}", times(cron), amounts)
            for entry, cron in platform_jobs().items():
                before = meter.counts()
                _check(operations.carry_out(entry, b"").status, 200, entry)
                jobs[entry] = Job(entry, times(cron), _amounts(meter.since(before), secret_reads=0))
        return Month(list(jobs.values()), len(_secrets(systems)))


def read_again(environ: Mapping[str, str], integration: str) -> dict[str, int]:
    """What a run takes that reads a thousand records again, none of which has changed, in batches as they come. Where
    there is an opposite stream, it brought them there."""
    records = {"customers": RECORDS, "users": RECORDS}
    with ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox(**records, ploomes_per_minute=None, qeasy_per_minute=None))
        hub = stack.enter_context(_hub({**environ, **sandbox.environment}, _unlimited()))
        stream = hub.streams(hub.integration(integration), READ_AGAIN[integration])[0]
        if stream.opposite is not None:
            _travel(hub, stream.opposite)
        messages = stack.enter_context(published(hub.google.project, integration))
        for _ in range(2):
            counts, since = _travel(hub, stream, messages)
        if counts.fetched != RECORDS or counts.delivered or counts.pending:
            raise RuntimeError(f"nothing has changed, and the books say {counts.as_dict()}")
        return _amounts(since, invocations=1 + since["messages"])


def _travel(hub: Hub, stream: Stream, messages: Iterator[Message] | None = None) -> tuple[Counts, dict[str, int]]:
    """A run of a stream and the delivery of its batches: the counts of the one, what both took."""
    with ExitStack() as stack:
        if messages is None:
            messages = stack.enter_context(published(hub.google.project, stream.integration))
        handlers, meter = Handlers(hub, stream.integration, silent), hub.google.meter
        before = meter.counts()
        answer = handlers.source(json.dumps({"stream": stream.name}).encode(), {})
        _check(answer.status, 200, stream.name)
        for message in islice(messages, meter.since(before).get("messages", 0)):
            _check(handlers.sink(push_body(message, "", 1)).status, 204, stream.name)
        return hub.home.books.counts(answer.body["streams"][stream.name]["run"]), meter.since(before)


def usd_again(amounts: Mapping[str, int]) -> float:
    """What it costs to read a million records again."""
    return sum(price.of(amounts[name]) for name, price in PRICES.items()) * 1_000_000 / RECORDS


def _amounts(since: Mapping[str, int], *, invocations: int = 1, **more: int) -> dict[str, int]:
    counts = Counter(since)
    names = ("reads", "writes", "deletes", "messages", "blob_operations")
    carried = 2 * (counts["message_bytes"] + MESSAGE_FRAME * counts["messages"])
    return {**{name: counts[name] for name in names}, "carried_bytes": carried, "invocations": invocations, **more}


def _unlimited() -> dict[str, Any]:
    """No time passes for whoever measures it, so nobody may wait for a rate."""
    ends = {"source": {"rate_limit": "none"}, "sink": {"rate_limit": "none"}}
    return {file.parent.name: ends for file in (ROOT / "functions").glob("*/integration.yaml")}


def _secrets(systems: set[str]) -> set[str]:
    return {name for system in systems if system in SYSTEM_VARIABLES for name in SYSTEM_VARIABLES[system].secrets}


def _check(found: int, expected: int, what: str) -> None:
    if found != expected:
        raise RuntimeError(f"{what}: {found}, not {expected}")


@contextmanager
def _hub(environ: Mapping[str, str], overlay: Mapping[str, Any]) -> Iterator[Hub]:
    """In a project of its own, with blobs in a folder."""
    with tempfile.TemporaryDirectory(prefix="waybill-rest-") as folder:
        file = Path(folder, "overlay.yaml")
        file.write_text(json.dumps(overlay))
        told = {name: value for name, value in environ.items() if name != "STORAGE_EMULATOR_HOST"}
        own = {"GOOGLE_CLOUD_PROJECT": f"waybill-rest-{uuid.uuid4().hex[:12]}", "WAYBILL_BACKEND": "gcp"}
        hub = Hub({**told, **own, "WAYBILL_HOME": folder, "WAYBILL_OVERLAY": str(file)}, clock=Unhurried())
        try:
            yield hub
        finally:
            hub.close()


def main() -> int:
    """Starts emulators of its own."""
    with tempfile.TemporaryDirectory(prefix="waybill-emulators-") as folder:
        try:
            running = emulators.start(Path(folder))
        except emulators.EmulatorsMissing as missing:
            print(f"left out: what a month costs, since {missing}")
            return 0
        try:
            os.environ.update(running.environ)
            print("\n".join(month(running.environ).lines()))
            for integration in READ_AGAIN:
                amounts = read_again(running.environ, integration)
                print(f"\n1,000 records of {integration} read again, none of them changed")
                print("\n".join(f"  {name.replace('_', ' '):18}{amount:10,}" for name, amount in amounts.items()))
                print(f"USD per million records read again: {usd_again(amounts):.4f}")
        finally:
            for emulator in (running.pubsub, running.firestore, running.storage):
                emulator.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
