"""What the folders below functions/ ask of a deployment, worked out by the hub's own code and not by Terraform's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import FunctionType
from typing import Any, Final, NamedTuple

import yaml

from infra.config import Integration
from infra.environment import SYSTEM_VARIABLES
from infra.gcp.names import bucket_name
from infra.gcp.provision import Subscription, subscriptions
from infra.wiring import Hub
from shared.ports import continuation_topic, dead_topic, monitoring_topic, topic_of
from shared.stream import Stream
from tests.terraform.workspace import NUMBER, PROJECT, ROOT

AGENT: Final = f"serviceAccount:service-{NUMBER}@gcp-sa-pubsub.iam.gserviceaccount.com"
INVOKER: Final = "roles/run.invoker"
PUBLISHER: Final = "roles/pubsub.publisher"
PROJECT_WIDE: Final = "the project"


class Grant(NamedTuple):
    """Who may do what, and where. A function's own account is named by the function."""

    who: str
    role: str
    where: str


BOOKS: Final = ("roles/datastore.user", PROJECT_WIDE)
ARCHIVE: Final = ("roles/storage.objectUser", bucket_name(PROJECT))
RECORDS: Final = (PUBLISHER, "{records}")
CONTINUE: Final = (PUBLISHER, "{continue}")
MONITORING: Final = (PUBLISHER, "{monitoring}")
SCHEDULE: Final = ("roles/cloudscheduler.viewer", PROJECT_WIDE)
PAUSES: Final = (f"projects/{PROJECT}/roles/waybillPauses", PROJECT_WIDE)
QUERIES: Final = ("roles/bigquery.jobUser", "{where queries run}")
ROWS: Final = ("roles/bigquery.dataEditor", "{table}")

NEEDED: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    # Reads pages, writes archives and what is invalid, publishes batches, and goes on in its next slice.
    "source": (BOOKS, ARCHIVE, RECORDS, CONTINUE, MONITORING),
    # Settles batches; a failure that is too large for a document is a file.
    "sink": (BOOKS, ARCHIVE, MONITORING),
    # Takes files and begins a run.
    "api": (BOOKS, ARCHIVE, CONTINUE),
    # Makes failures of what ended its sink.
    "dead_letter": (BOOKS, ARCHIVE, MONITORING),
    # Publishes again what got lost, in streams that are not paused.
    "sweep": (BOOKS, ARCHIVE, RECORDS, CONTINUE, MONITORING, SCHEDULE),
    # Makes batches of failures.
    "replay": (BOOKS, ARCHIVE, RECORDS, MONITORING),
    # Removes what is old, everywhere.
    "cleanup": (BOOKS, ARCHIVE, QUERIES, ROWS),
    "tcrm_monitoring_cleanup": (BOOKS, ARCHIVE, QUERIES, ROWS),
    # Writes and reads files of all books, and an import pauses what was paused.
    "snapshots": (BOOKS, ARCHIVE, PAUSES),
}
"""The rights of each entry point, and not one more. `{...}`: of its integration; of all, where its folder is none."""

OWN_ROLES: Final[Mapping[str, frozenset[str]]] = {
    "waybillPauses": frozenset(f"cloudscheduler.jobs.{verb}" for verb in ("enable", "get", "list", "pause")),
}
"""What may be done by whoever has a role that is made here."""

OTHERS: Final = (
    Grant("waybill-build", "roles/logging.logWriter", PROJECT_WIDE),
    Grant("waybill-build", "roles/storage.objectViewer", PROJECT_WIDE),
    Grant("waybill-build", "roles/artifactregistry.writer", "waybill"),
    Grant(AGENT, "roles/iam.serviceAccountTokenCreator", "waybill-push"),
)
"""Whoever is no function."""
CONFIRMING: Final = frozenset(
    name
    for name in SYSTEM_VARIABLES
    for file in (ROOT / "infra" / "systems").rglob("*.py")
    if name in (file.stem, file.parent.name) and "def confirm(" in file.read_text(encoding="utf8")
)
"""Systems that say later what became of a request: the sweeper asks them."""


class Job(NamedTuple):
    function: str
    schedule: str
    body: Mapping[str, Any]


class Wanted:
    """`root`: a repository. `overlay`: a file."""

    def __init__(self, root: Path, overlay: Path | None = None) -> None:
        self.root = root
        self.hub = Hub({"WAYBILL_OVERLAY": str(overlay)} if overlay else {}, root / "functions")

    @property
    def integrations(self) -> Mapping[str, Integration]:
        return self.hub.integrations

    @cached_property
    def functions(self) -> dict[str, tuple[str, str]]:
        """The folder and the entry point of each, by the function's name: whatever main.py has when it is loaded."""
        found = {}
        for main in sorted((self.root / "functions").glob("*/main.py")):
            module: dict[str, Any] = {"__file__": str(main), "__name__": f"functions.{main.parent.name}.main"}
            exec(compile(main.read_text(encoding="utf8"), str(main), "exec"), module)
            for name, value in module.items():
                if isinstance(value, FunctionType) and "<locals>" in value.__qualname__:
                    found[function_name(main.parent.name, name)] = (main.parent.name, name)
        return found

    @cached_property
    def settings(self) -> dict[str, dict[str, Any]]:
        """What the deploy.yaml of each folder says of its entry points, by the function's name."""
        said = {}
        for name, (folder, entry_point) in self.functions.items():
            file = self.root / "functions" / folder / "deploy.yaml"
            document = yaml.safe_load(file.read_text(encoding="utf8")) if file.is_file() else {}
            said[name] = document.get(entry_point, {})
        return said

    def streams(self, integration: str) -> list[Stream]:
        """Those that run by themselves."""
        return self.hub.sound_streams(self.integrations[integration])[0]

    @cached_property
    def jobs(self) -> dict[str, Job]:
        """What Cloud Scheduler calls, by the job's name."""
        found = {}
        for name, integration in self.integrations.items():
            source = function_name(name, "source")
            for stream in self.streams(name):
                job, cron = f"{name}-{stream.name}", integration.streams[stream.name].schedule
                if cron is not None:
                    found[job] = Job(source, cron, {"stream": stream.name})
                catch_up = self.hub.catch_up(stream)
                if catch_up is not None:
                    body = {"stream": stream.name, "catch_up": True}
                    found[f"{job}-catch-up"] = Job(source, catch_up.schedule, body)
        for name, (folder, entry_point) in self.functions.items():
            if cron := self.settings[name].get("schedule"):
                found[f"{folder}-{entry_point}"] = Job(name, cron, {})
        return found

    @cached_property
    def subscriptions(self) -> dict[str, Subscription]:
        """As the hub makes them itself in an emulator, by name."""
        found = {}
        for name, integration in self.integrations.items():
            for each in subscriptions(name, integration.sink.redeliver_after, monitored=integration.monitoring.enabled):
                found[each.topic] = each
        return found

    def pushed_to(self, name: str) -> str:
        """The function that takes the messages of a subscription; empty where they wait, or go to a table."""
        path = self.subscriptions[name].path.removeprefix("/functions/")
        return function_name(*path.split("/")) if path else ""

    def secrets(self, function: str) -> set[str]:
        """The variables that come from Secret Manager: those of the systems that this function calls."""
        folder, entry_point = self.functions[function]
        if entry_point == "sweep":
            ends = [self.hub.ends(stream)[1] for name in self.integrations for stream in self.streams(name)]
            systems = [system for system in ends if system in CONFIRMING]
        elif entry_point in ("source", "sink"):
            place = ("source", "sink").index(entry_point)
            systems = [self.hub.ends(stream)[place] for stream in self.streams(folder)]
        else:
            systems = []
        return {name for each in systems if each in SYSTEM_VARIABLES for name in SYSTEM_VARIABLES[each].secrets}

    @cached_property
    def grants(self) -> set[Grant]:
        found = {*OTHERS}
        for function, (folder, entry_point) in self.functions.items():
            of = [self.integrations[folder]] if folder in self.integrations else list(self.integrations.values())
            for role, where in NEEDED.get(entry_point, ()):
                found |= {Grant(function, role, place) for place in _places(where, of)}
            found |= {Grant(function, "roles/secretmanager.secretAccessor", name) for name in self.secrets(function)}
            if entry_point == "source" and folder in self.integrations:
                found |= {Grant(function, *each) for each in self._read(folder)}
        found |= {Grant("waybill-schedule", INVOKER, job.function) for job in self.jobs.values()}
        for name in self.subscriptions:
            if function := self.pushed_to(name):
                found.add(Grant("waybill-push", INVOKER, function))
            if not name.endswith("-dead"):
                found.add(Grant(AGENT, PUBLISHER, dead_topic(name)))
                found.add(Grant(AGENT, "roles/pubsub.subscriber", name))
        for integration in self.integrations.values():
            for table in _places("{table}", [integration]):
                found.add(Grant(AGENT, "roles/bigquery.dataEditor", table))
        return found

    def _read(self, integration: str) -> Iterator[tuple[str, str]]:
        """What streams read in Google Cloud."""
        for stream in self.streams(integration):
            settings = stream.rules.settings
            match self.hub.ends(stream)[0]:
                case "gcs":
                    yield "roles/storage.objectViewer", settings["path"].removeprefix("gs://").partition("/")[0]
                case "bigquery":
                    yield "roles/bigquery.jobUser", PROJECT_WIDE
                    if "table" in settings:
                        yield "roles/bigquery.dataViewer", ".".join(settings["table"].split(".")[-2:])


def function_name(folder: str, entry_point: str) -> str:
    return f"{folder}-{entry_point}".replace("_", "-")


def _places(where: str, integrations: list[Integration]) -> Iterator[str]:
    for each in integrations:
        table = f"{each.monitoring.dataset}.{each.monitoring.table}"
        known = {
            "{records}": topic_of(each.name),
            "{continue}": continuation_topic(each.name),
            "{monitoring}": monitoring_topic(each.name) if each.monitoring.enabled else "",
            "{table}": table if each.monitoring.enabled else "",
            "{where queries run}": PROJECT_WIDE if each.monitoring.enabled else "",
        }
        if place := known.get(where, where):
            yield place
