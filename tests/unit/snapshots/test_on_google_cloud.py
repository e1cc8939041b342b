"""Snapshots of a home on Google Cloud: to it, from it, through crashes in the middle of an import."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import shared.group
from infra import snapshots
from infra.clock import SystemClock
from infra.erasing import find_traces, forget
from infra.snapshots import replacing
from infra.wiring import Hub
from shared.errors import ConfigError, Fenced, StoreUnavailable
from shared.ports import Home, lease_name
from tests.contract import make
from tests.emulators import Emulators
from tests.unit.fakes import START, Crash, Fuse, Guarded, Shelf, Target, World, spare_the_disk
from tests.unit.installations import GUARDED, THINGS, Installation, books_of, unpacked

MONTH = 31 * 86_400
LEASE = lease_name("shop", "things")


class LaterClock(SystemClock):
    """Whoever comes after a crash comes when its leases have expired."""

    def __init__(self, later: float) -> None:
        super().__init__()
        self._later = timedelta(seconds=later)

    def now(self) -> datetime:
        return super().now() + self._later


class Cloud:
    """A project of its own."""

    def __init__(self, emulators: Emulators, folder: Path, functions: Path) -> None:
        self.environ = {
            **emulators.environ,
            "WAYBILL_BACKEND": "gcp",
            "GOOGLE_CLOUD_PROJECT": emulators.project(),
            "WAYBILL_HOME": str(folder),
        }
        # Blobs are in the folder: the server that stands for Cloud Storage has a contract suite of its own.
        self.environ.pop("STORAGE_EMULATOR_HOST", None)
        self.folder = folder
        self.functions = functions
        self._hubs: list[Hub] = []
        self._later = 0.0

    def hub(self, fuse: Fuse | None = None) -> Hub:
        """Another process, which comes later."""
        self._later += 61
        kind = Hub if fuse is None else type("Fragile", (FragileHub,), {"fuse": fuse})
        self._hubs.append(kind(self.environ, self.functions, LaterClock(self._later)))
        return self._hubs[-1]

    def folder_files(self) -> dict[str, bytes]:
        root = self.folder / "blobs" / "snapshots" / "data" / "snapshots"
        return {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and path.name != "overlay.yaml"
        }

    def archive(self, name: str) -> Path:
        return self.folder / "blobs" / "snapshots" / "outbox" / f"{name}.zip"

    def close(self) -> None:
        for hub in self._hubs:
            hub.close()


class FragileHub(Hub):
    fuse: Fuse

    @property
    def home(self) -> Home:
        ports = self.google.ports
        guarded = {name: Guarded(name, getattr(ports, name), self.fuse) for name in GUARDED}
        return msgspec.structs.replace(ports, **guarded)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    """An embedded one with two snapshots, `full` and `some`."""
    spare_the_disk(monkeypatch)
    monkeypatch.setattr(shared.group, "GROUP_FILL", 1)
    streams = {"things": dict(THINGS), "others": dict(THINGS)}
    made = Installation(tmp_path / "source", streams=streams)
    shelf, target = Shelf(), Target()
    work(made, shelf, target, range(1, 20))
    made.hub().home.objects.put("people", {"1": {"email": "a@example.org"}}, made.clock.now())
    made.export("full", with_data=True)
    made.clock.advance(MONTH)
    work(made, shelf, target, range(15, 30), "changed")
    made.export("some", "INCREMENTAL", with_data=True)
    yield made
    made.close()


def work(made: Installation, shelf: Shelf, target: Target, numbers: range, name: str = "name") -> World:
    world = made.world(shelf=shelf, target=target)
    target.refused = {"K3"}
    seconds = (made.clock.now() - START).total_seconds() - 0.5
    for number in numbers:
        shelf.put(number, seconds, key=f"K{number}", name=f"{name} {number}")
    shelf.put(90, seconds, key="K90", bad=True)
    process = world.process()
    process.run()
    process.close()
    made.clock.advance(60)
    return world


@pytest.fixture
def cloud(emulators: Emulators, source: Installation, tmp_path: Path) -> Iterator[Cloud]:
    made = Cloud(emulators, tmp_path / "cloud", source.folder / "functions")
    yield made
    made.close()


def books(hub: Hub) -> Any:
    found = books_of(hub.home, with_data=True)
    for each in found.values():
        # Firestore has no order for what was committed at the same time.
        each["batches"].sort(key=lambda batch: batch.id)
    return found


def test_books_travel_to_google_cloud_and_back(source: Installation, cloud: Cloud, tmp_path: Path) -> None:
    hub = cloud.hub()
    for name in ("full", "some"):
        report = snapshots.restore(hub, source.archive(name))
        assert report["processId"] == 0
    assert books(hub) == books(source.hub())
    assert cloud.folder_files() == source.folder_files()
    assert hub.home.objects.get("people", ["1"])["1"].fields == {"email": "a@example.org"}
    assert snapshots.export(hub, "own", "INCREMENTAL", with_data=True)["povs"]["exported"] == 0
    snapshots.export(hub, "back", "ALL", with_data=True)
    back = Installation(tmp_path / "back", source.clock, dict(source.streams))
    back.restore(cloud.archive("back"))
    assert books(back.hub()) == books(source.hub())
    names = {name for name in unpacked(cloud.archive("back")) if name.startswith("data/output")}
    assert names == {"data/output/shop/things/2026-03.csv", "data/output/shop/things/2026-04.csv"}
    back.close()


def test_what_a_home_held_is_replaced(source: Installation, cloud: Cloud, tmp_path: Path) -> None:
    other = Installation(tmp_path / "other", source.clock, dict(source.streams))
    work(other, Shelf(), Target(), range(100, 140))
    other.export("full", with_data=True)
    hub = cloud.hub()
    snapshots.restore(hub, other.archive("full"))
    report = snapshots.restore(hub, source.archive("full"))
    assert report["replaced"]["cells"] == 41
    assert books(hub) == of(source, "full", tmp_path)
    other.close()


def of(source: Installation, name: str, folder: Path) -> Any:
    """What a snapshot makes of an embedded home."""
    made = Installation(folder / f"of-{name}", source.clock, dict(source.streams))
    made.restore(source.archive(name))
    found = books(made.hub())
    made.close()
    return found


def test_work_goes_on_with_what_was_imported(source: Installation, cloud: Cloud) -> None:
    hub = cloud.hub()
    snapshots.restore(hub, source.archive("full"))
    before = books(hub)
    lease = hub.home.leases.take(LEASE)
    run = make.run(77, integration="shop", stream="things")
    hub.home.runs.commit(lease, run, [make.batch(1, run)], cells=[make.cell("K1", failed="v9")])
    hub.home.leases.release(lease)
    assert hub.home.ledger.cells("shop", "things", ["K1"])["K1"].failed == "v9"
    assert books(hub) != before
    assert len(hub.home.runs.recent("shop", "things", 9)) == 2


class FuseWithin(Fuse):
    """Blows so many calls after one has begun."""

    def __init__(self, name: str, more: int) -> None:
        super().__init__()
        self._name = name
        self._more = more

    def call(self, name: str, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        if name == self._name and not self.at:
            self.at = len(self.calls) + 1 + self._more
        return super().call(name, work, *arguments, **named)


def calls_of(cloud: Cloud, work_on: Callable[[Hub], object]) -> list[str]:
    fuse = Fuse()
    work_on(cloud.hub(fuse))
    return fuse.calls


@pytest.mark.parametrize("next_call", ["import", "export"])
def test_an_import_that_was_cut_off_is_finished_before_anybody_works(
    source: Installation,
    cloud: Cloud,
    emulators: Emulators,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    next_call: str,
) -> None:
    # So that the archive is read while the books are replaced.
    monkeypatch.setattr("infra.snapshots.zipping.READ_AHEAD", 2_000)
    hub = cloud.hub()
    snapshots.restore(hub, source.archive("full"))
    old = books(hub)
    archive = source.archive("some")
    trial = Cloud(emulators, tmp_path / "trial", cloud.functions)
    snapshots.restore(trial.hub(), source.archive("full"))
    calls = calls_of(trial, lambda one: snapshots.restore(one, archive))
    new = books(trial.hub())
    trial.close()
    assert old != new
    in_the_middle = 0
    somewhere = [Fuse(at) for at in range(1 if next_call == "import" else 4, len(calls), 7)]
    for at, fuse in enumerate([*somewhere, *(FuseWithin("history.replace", more) for more in (0, 1, 2))]):
        crashing = cloud.hub(fuse)
        with pytest.raises(Crash):
            snapshots.restore(crashing, archive)
        after = cloud.hub()
        left = after.home.history.unfinished()
        if left is None:
            assert books(after) in (old, new)
        else:
            in_the_middle += not left.replaced
            with pytest.raises(StoreUnavailable, match="was interrupted"):
                after.home.leases.take(LEASE)
            assert left.replaced is False or books(after) == new
        done = left is not None or books(after) == new
        if next_call == "export":
            snapshots.export(after, f"own-{at}", with_data=True)
        else:
            snapshots.restore(after, archive)
            done = True
        assert after.home.history.unfinished() is None
        assert books(after) == (new if done else old), at
        after.home.leases.release(after.home.leases.take(LEASE))
        if done:
            snapshots.restore(after, source.archive("full"))
            assert books(after) == old
    assert in_the_middle


def interrupted(hub: Hub, archive: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Imports, and crashes instead of a step."""

    def crash(*_: object, **__: object) -> None:
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(f"infra.snapshots.replacing.{what}", crash)
        with pytest.raises(Crash):
            snapshots.restore(hub, archive)


def test_whoever_imported_before_finishes_what_another_one_began(
    source: Installation, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = cloud.hub()
    snapshots.restore(one, source.archive("full"))
    interrupted(cloud.hub(), source.archive("full"), monkeypatch, "Import.place")
    first, *_ = snapshots.export(one, "own")["notes"]
    assert "was brought to its end" in first
    assert one.home.history.unfinished() is None


def test_an_import_that_cannot_be_finished_gives_way_to_another_whole_one(
    source: Installation, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub = cloud.hub()
    snapshots.restore(hub, source.archive("full"))
    interrupted(hub, source.archive("full"), monkeypatch, "Import.entries")
    left = hub.home.history.unfinished()
    assert left is not None and not left.replaced
    (copy,) = (cloud.folder / "blobs" / "snapshots" / "data" / "snapshots" / "imports").glob("*.zip")
    copy.unlink()
    after = cloud.hub()
    for attempt in (
        lambda: snapshots.export(after, "own"),
        lambda: snapshots.restore(after, source.archive("some")),
    ):
        with pytest.raises(ConfigError, match="its copy is gone") as raised:
            attempt()
        assert "ALL_INCREMENTAL" in raised.value.cure
    first, *_ = snapshots.restore(after, source.archive("full"))["notes"]
    assert "this one takes its place" in first
    assert books(after) == of(source, "full", tmp_path)
    after.home.leases.release(after.home.leases.take(LEASE))


def test_objects_that_an_interrupted_import_deletes_come_back_before_one_without_any_comes_in(
    source: Installation, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.export("bare")
    hub = cloud.hub()
    hub.home.objects.put("people", {"own": {"email": "o@example.org"}}, source.clock.now())
    interrupted(hub, source.archive("full"), monkeypatch, "Import.entries")
    after = cloud.hub()
    assert after.home.objects.page("people", "", 9) == []
    first, *_ = snapshots.restore(after, source.archive("bare"))["notes"]
    assert "was brought to its end first" in first
    assert [each.id for each in after.home.objects.page("people", "", 9)] == ["1"]
    assert after.home.history.unfinished() is None


def test_nothing_is_replaced_where_a_stream_was_taken_over_before_the_intent_was_noted(
    source: Installation, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = cloud.hub()
    snapshots.restore(hub, source.archive("full"))
    before = books(hub)
    other = cloud.hub().home
    overlay_of, taken = replacing.overlay_of, []

    def stalling(*given: Any) -> bytes:
        # So long that the leases expire.
        taken.extend([other.leases.take(LEASE)] if not taken else [])
        return overlay_of(*given)

    monkeypatch.setattr(replacing, "overlay_of", stalling)
    with pytest.raises(Fenced):
        snapshots.restore(hub, source.archive("full"))
    assert other.history.unfinished() is None
    other.leases.renew(taken[0])
    assert books(hub) == before


def test_an_export_that_was_cut_off_is_made_anew_or_counts(source: Installation, cloud: Cloud, tmp_path: Path) -> None:
    hub = cloud.hub()
    snapshots.restore(hub, source.archive("full"))
    expected = books(hub)
    calls = calls_of(cloud, lambda one: snapshots.export(one, "trial", with_data=True))
    for at in range(2, len(calls), 5):
        with pytest.raises(Crash):
            snapshots.export(cloud.hub(Fuse(at)), f"x{at}", with_data=True)
        after = cloud.hub()
        for path in cloud.archive("x").parent.glob("*.zip"):
            snapshots.show(after, f"outbox/{path.name}")
        snapshots.export(after, f"x{at}", overwrite=True, with_data=True)
        there = Installation(tmp_path / f"there-{at}", source.clock, dict(source.streams))
        there.restore(cloud.archive(f"x{at}"))
        assert books(there.hub()) == expected, at
        there.close()


def test_a_person_is_forgotten_there_too(source: Installation, cloud: Cloud) -> None:
    hub = cloud.hub()
    snapshots.restore(hub, source.archive("full"))
    snapshots.export(hub, "own")
    snapshots.export(hub, "setup", "SETUP")
    found = find_traces(hub, "K7")
    assert (found["snapshot files"], found["snapshot archives"]) == (1, 1)
    receipt = forget(hub, "K7")
    assert (receipt["erased"]["snapshot files"], receipt["erased"]["snapshot archives"]) == (1, 1)
    assert not any(b'"K7"' in data for data in cloud.folder_files().values())
    assert not cloud.archive("own").exists() and cloud.archive("setup").exists()
    snapshots.export(cloud.hub(), "after", "ALL_INCREMENTAL")
    assert not any(b'"K7"' in data for data in unpacked(cloud.archive("after")).values())


def test_leases_are_kept_while_work_goes_on(
    source: Installation, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.snapshots.kept.RENEW_SECONDS", 0.0)
    hub = cloud.hub()
    renewed: list[str] = []
    renew = type(hub.home.leases).renew

    def noted(self: Any, lease: Any) -> None:
        renewed.append(lease.name)
        renew(self, lease)

    monkeypatch.setattr(type(hub.home.leases), "renew", noted)
    snapshots.restore(hub, source.archive("full"))
    snapshots.export(hub, "own")
    assert {"snapshots.import", "snapshots.export"} <= set(renewed)
