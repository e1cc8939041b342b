"""An installation of several integrations whose history is carried elsewhere, and archives read by docs/snapshots.md
alone."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import zipfile
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.acceptance.conftest import MakeHub
from tests.acceptance.hub import NAME, Document, Done, counts

BACK, USERS, ADS = "milvus_to_ploomes", "okki_to_qeasy", "tagless_crm"
INTEGRATIONS = (NAME, BACK, USERS, ADS)
TAGS = {"40012345": "INSTALAÇÃO", "40012346": "ENTREGA"}
QUICK: Document = {"schedule": None, "hold_back": "0s"}
PARAMS, REMOVED = "data/SnapshotParams.json", "data/removed.csv"
OUTPUT = "data/output/"

Pov = tuple[str, str, str]


class Archive:
    """What a ZIP holds, and whether it is as its own list says."""

    def __init__(self, path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            names = archive.namelist()
            assert len(names) == len(set(names))
            self.files = {name: archive.read(name) for name in names}
        self.params: Document = json.loads(self.files[PARAMS])
        self.listed = {each["path"]: each for each in self.params["files"]}
        assert set(self.files) == {PARAMS, *self.listed}
        for name, each in self.listed.items():
            assert hashlib.sha256(self.files[name]).hexdigest() == each["sha256"], name
            if name.endswith(".csv"):
                assert len(self.rows(name)) == each["rows"], name

    def rows(self, name: str) -> list[dict[str, str]]:
        return read_rows(self.files[name])

    @property
    def setup(self) -> dict[str, bytes]:
        return {name: data for name, data in self.files.items() if name.startswith("setup/")}

    @property
    def output(self) -> dict[Pov, bytes]:
        """The file of each POV."""
        found = {}
        for name, data in self.files.items():
            if name.startswith(OUTPUT):
                location, category, file = name.removeprefix(OUTPUT).split("/")
                found[location, category, file.removesuffix(".csv")] = data
        return found

    @property
    def povs(self) -> dict[Pov, Document]:
        """What the parameters say of each POV."""
        return {(each["location"], each["category"], each["period"]): each for each in self.params["povs"]}

    @property
    def removed(self) -> set[Pov]:
        rows = self.rows(REMOVED) if REMOVED in self.files else []
        return {(row["location"], row["category"], row["period"]) for row in rows}

    def things(self, pov: Pov, kind: str) -> list[tuple[str, Document]]:
        """The rows of one kind in a POV, each with its id and its document."""
        rows = self.rows(f"{OUTPUT}{'/'.join(pov)}.csv")
        return [(row["id"], json.loads(row["document"])) for row in rows if row["row"] == kind]


def write_archive(path: Path, params: Document, files: dict[str, bytes]) -> None:
    """By docs/snapshots.md alone: sums and rows are made here."""
    listed = [
        {"path": name, "sha256": hashlib.sha256(data).hexdigest(), "rows": len(read_rows(data))}
        for name, data in files.items()
    ]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(PARAMS, json.dumps({**params, "files": listed}))
        for name, data in files.items():
            archive.writestr(name, data)


def read_rows(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True))


class Installation:
    """Four integrations on one home beside one sandbox."""

    def __init__(self, make_hub: MakeHub, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.events = folder / "events.csv"
        self.events.write_text("name,client_id\n" + "".join(f"sign_up,{n}.17\n" for n in range(12)))
        sizes = {"clients": 8, "tasks": 40, "interactions": 0, "users": 15, "departments": 3} | settings
        self.hub = make_hub(30, qeasy_per_minute=None, **sizes)
        self.configure()

    def configure(self, *, tasks: Document | None = {}) -> None:  # noqa: B006
        """`tasks=None` deletes that stream."""
        streams: Document = {"customers": QUICK, "tasks": tasks}
        if tasks is not None:
            streams["tasks"] = QUICK | {"enabled": True, "tags": TAGS} | tasks
        source = {"system": "files", "path": str(self.events)}
        events = {"enabled": True, "schedule": None, "overlap": "1h", "from": source}
        self.hub.overlay(
            {"streams": streams},
            **{BACK: {}, USERS: {}, ADS: {"streams": {"ga4": events}}},
        )

    def name_periods(self) -> None:
        """What was settled until now belongs to one period, the rest to another: no test meets the end of a month."""
        now = datetime.now(UTC).isoformat()
        spans = [
            {"name": "early", "from": "2000-01-01T00:00:00Z", "until": now},
            {"name": "late", "from": now, "until": "2100-01-01T00:00:00Z"},
        ]
        file = self.folder / "periods.yaml"
        file.write_text(json.dumps({"periods": spans}))
        self.hub.environment["WAYBILL_PERIODS"] = str(file)

    def elsewhere(self, name: str) -> Installation:
        """The same configuration and the same outside systems, with a home that is empty."""
        other = copy(self)
        other.hub = copy(self.hub)
        other.hub.home = self.folder / name
        overlay = shutil.copy(self.hub.environment["WAYBILL_OVERLAY"], self.folder / f"{name}.yaml")
        more = {"WAYBILL_HOME": str(other.hub.home), "WAYBILL_OVERLAY": str(overlay)}
        other.hub.environment = self.hub.environment | more
        return other

    def run_all(self) -> dict[str, Done]:
        """Each integration once, twice the two that bring each other news."""
        for name in (NAME, BACK):
            self.hub("run", name)
        return {name: self.hub("run", name) for name in INTEGRATIONS}

    def export(self, name: str, kind: str, *options: str) -> Archive:
        done = self.hub("snapshot", "export", name, "--type", kind, *options)
        assert done.code == 0, done
        return Archive(self.archive(name))

    def archive(self, name: str) -> Path:
        return self.hub.home / "snapshots" / "outbox" / f"{name.removesuffix('.zip')}.zip"

    def take_in(self, source: Path | str) -> Document:
        done = self.hub("snapshot", "import", str(source), "--yes")
        assert done.code == 0, done
        return done.document

    def audited(self) -> dict[tuple[str, str], dict[str, int]]:
        """What became of everything, by stream; the books balance and leave nothing out."""
        found = {}
        for name in INTEGRATIONS:
            done = self.hub("audit", name)
            assert (done.code, done.document["balanced"], done.document["unaccounted"]) == (0, True, []), done
            found |= {(name, stream): counts(report) for stream, report in done.document["streams"].items()}
        return found

    def written(self) -> Document:
        """What the outside systems were told to change, as they counted it."""
        found: Document = {}
        for system in ("ploomes", "milvus", "qeasy"):
            requests = self.hub.stats(system)["requests"]
            found[system] = {name: count for name, count in requests.items() if is_write(name)}
        qeasy, ga4 = self.hub.stats("qeasy"), self.hub.stats("ga4")
        assert not any(qeasy["repeated_ids"].values())
        assert ga4["repeated"] == {}
        return found | {"rows": qeasy["rows"], "events": ga4["events"]}


def is_write(request: str) -> bool:
    return not request.startswith("GET ") and not request.endswith(("/query", "/oauth"))


def povs_of(periods: Document) -> set[Pov]:
    """Spelled `{integration: {stream: [periods]}}`."""
    return {(name, stream, each) for name, streams in periods.items() for stream in streams for each in streams[stream]}
