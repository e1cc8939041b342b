"""Exports and imports that are killed with SIGKILL at random moments: the next call finishes what they began."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra import snapshots
from infra.local.home import EmbeddedHome
from infra.wiring import Hub
from shared.errors import ConfigError
from shared.ports import lease_name
from tests.bench.measure import ROOT
from tests.bench.snapshot_rows import BEGIN, STREAM, fill, fill_run, hub
from tests.unit.installations import books_of

ROWS = 6_000
KILLS = 10


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a snapshot `base`, and a run that came after it."""
    folder = tmp_path_factory.mktemp("template") / "home"
    home = EmbeddedHome(folder)
    fill(home, ROWS)
    one = hub(folder)
    snapshots.export(one, "base")
    one.close()
    lease = home.ports.leases.take(lease_name(*STREAM))
    fill_run(home, lease, "late", BEGIN.replace(year=2027), range(ROWS, ROWS + 3_000))
    home.ports.leases.release(lease)
    home.close()
    return folder


@pytest.fixture(scope="module")
def books(template: Path) -> Any:
    return of(template)


def of(folder: Path) -> Any:
    one = hub(folder)
    found = books_of(one.home)
    one.close()
    return found


def begin(deed: str, home: Path, what: object) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.acceptance.snapshot_child", deed, str(home), str(what)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"begun\n"
    return child


def seconds_of(deed: str, home: Path, what: object) -> float:
    begun = time.monotonic()
    with begin(deed, home, what) as child:
        assert child.wait() == 0
    return time.monotonic() - begun


def killed(deed: str, template: Path, folder: Path, what: object) -> Iterator[Hub]:
    """The next process, after each of so many that were killed at some moment of their work."""
    shutil.copytree(template, folder / "whole")
    longest = seconds_of(deed, folder / "whole", what)
    moments = random.Random(f"{deed} {what}")
    for number in range(KILLS):
        home = folder / str(number)
        shutil.copytree(template, home)
        with begin(deed, home, what) as child:
            time.sleep(moments.random() * longest)
            child.kill()
        one = hub(home)
        yield one
        one.close()
        shutil.rmtree(home)


def check_archives(home: Path) -> None:
    """Every archive is whole, and nothing else is called one."""
    for path in (home / "snapshots" / "outbox").glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None


@pytest.mark.parametrize("deed", ["export", "incremental"])
def test_an_export_that_was_killed_is_finished_by_the_next(
    template: Path, books: Any, tmp_path: Path, deed: str
) -> None:
    type: Any = "INCREMENTAL" if deed == "incremental" else "ALL"
    for number, one in enumerate(killed(deed, template, tmp_path, "next")):
        outbox = one.state_folder / "snapshots" / "outbox"
        check_archives(one.state_folder)
        try:
            snapshots.export(one, "next", type)
        except ConfigError:
            # It had come to its end before it was killed.
            assert not (one.state_folder / "snapshots" / "data" / "snapshots" / "next.json").exists()
        check_archives(one.state_folder)
        assert sorted(path.name for path in outbox.iterdir()) == ["base.zip", "next.zip"]
        there = hub(tmp_path / f"there-{number}")
        if deed == "incremental":
            snapshots.restore(there, outbox / "base.zip")
        snapshots.restore(there, outbox / "next.zip")
        assert books_of(there.home) == books
        there.close()
        shutil.rmtree(there.state_folder)


def test_an_import_that_was_killed_left_the_old_or_the_new_and_is_finished(
    template: Path, books: Any, tmp_path: Path
) -> None:
    source = hub(template)
    snapshots.export(source, "new", overwrite=True)
    archive = template / "snapshots" / "outbox" / "new.zip"
    source.close()
    there = hub(tmp_path / "template")
    snapshots.restore(there, template / "snapshots" / "outbox" / "base.zip")
    old = books_of(there.home)
    there.close()
    for one in killed("import", tmp_path / "template", tmp_path, archive):
        assert books_of(one.home) in (old, books)
        snapshots.restore(one, archive)
        assert books_of(one.home) == books
        assert snapshots.export(one, "own", "INCREMENTAL")["povs"]["exported"] == 0
        folder = one.state_folder / "snapshots"
        assert [path.name for path in folder.rglob(".*")] == []
        assert not list((folder / "data" / "snapshots").glob("imports/*"))
