"""Clean-up of the files of launches, in both homes: what is over goes by age, and nobody misses it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from infra.local.home import EmbeddedHome
from shared.books import Run
from shared.cleanup import UNNAMED, Cleaned, clean_up
from shared.errors import StoreUnavailable
from shared.launches import Launch, LaunchState
from shared.ports import Home
from tests.contract import make
from tests.contract.make import SHOP
from tests.contract.world import START, ManualClock
from tests.unit.gcp_homes import Hub

MONTH, LONG = timedelta(days=30), timedelta(days=400)
IN, OUT = "files_in", "files_out"


class Place:
    """One of the two homes, two months after the files were written."""

    def __init__(self, ports: Home, folder: Path) -> None:
        self.ports = ports
        self._folder = folder
        self.now = START + 2 * MONTH

    def launch(self, number: int, stream: str = IN, state: LaunchState = "begun", file: str = "") -> Launch:
        launch = Launch(SHOP, stream, number, START, state, file, size=9)
        assert self.ports.launches.add(launch)
        return launch

    def upload(self, number: int, state: LaunchState = "begun") -> Launch:
        launch = self.launch(number, IN, state, f"uploads/{SHOP}/{IN}/file-{number}")
        self.write(launch.file)
        return launch

    def export(self, number: int, parts: int = 2, error: str = "", over: bool = True) -> Launch:
        launch = self.launch(number, OUT)
        for part in range(parts):
            self.write(f"exports/{SHOP}/{OUT}/{number}/{launch.run}.{part}.0")
        self.run(launch, over=over, error=error)
        return launch

    def write(self, name: str, age: timedelta = 2 * MONTH) -> None:
        self.ports.blobs.write(name, b"x" * 9)
        at = (self.now - age).timestamp()
        os.utime(self._folder / name, (at, at))

    def run(self, launch: Launch, over: bool = True, error: str = "") -> None:
        run = Run(launch.run, SHOP, launch.stream, "fetch", "running", START, launch.window)
        make.commit(self.ports, run)
        if over:
            run.fetch_done, run.finished_at, run.error = True, START, error
            self.ports.runs.conclude(run)

    def clean(self) -> Cleaned:
        return clean_up(self.ports, SHOP, MONTH, LONG)

    def names(self, prefix: str = "") -> list[str]:
        return sorted(name for name, _ in self.ports.blobs.names(prefix))


@pytest.fixture(params=["embedded", "google"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    clock = ManualClock(START + 2 * MONTH)
    if request.param == "embedded":
        home = EmbeddedHome(tmp_path, clock)
        yield Place(home.ports, tmp_path / "blobs")
        home.close()
    else:
        hub = Hub(request.getfixturevalue("emulators"), tmp_path)
        yield Place(hub.home(clock).ports, tmp_path / "blobs")
        hub.close()


def test_the_file_of_a_launch_that_is_over_goes_and_the_launch_says_so(place: Place) -> None:
    settled, cancelled = place.upload(1), place.upload(2, "cancelled")
    place.run(settled)
    cleaned = place.clean()
    assert (cleaned.uploads, cleaned.exports, cleaned.archives) == (2, 0, 0)
    assert place.names() == []
    known = place.ports.launches.recent(SHOP, IN, 9)
    assert known == [msgspec.structs.replace(each, file="") for each in (cancelled, settled)]
    assert place.clean() == Cleaned()


def test_a_file_that_a_run_may_read_stays_however_old_it_is(place: Place) -> None:
    """One waits, one is read, one is said to wait although its run is over, and one has lost its run."""
    launches = [place.upload(1, "waiting"), place.upload(2), place.upload(3, "waiting"), place.upload(4)]
    place.run(launches[1], over=False)
    place.run(launches[2])
    assert place.clean() == Cleaned()
    assert place.names() == [launch.file for launch in launches]
    assert place.ports.launches.recent(SHOP, IN, 9) == launches[::-1]


def test_a_young_file_stays(place: Place) -> None:
    launch = place.upload(1)
    place.run(launch)
    place.write(launch.file, MONTH - timedelta(minutes=1))
    assert place.clean() == Cleaned()
    place.write(launch.file, MONTH)
    assert place.clean().uploads == 1


@pytest.mark.parametrize("age", [timedelta(), MONTH])
def test_a_file_that_no_launch_names_goes_once_nobody_can_be_about_to_name_it(place: Place, age: timedelta) -> None:
    for number in range(60):
        place.launch(number)
    for name, written in (("lost", UNNAMED + age), ("sent", UNNAMED / 2)):
        place.write(f"uploads/{SHOP}/{IN}/{name}", written)
    assert clean_up(place.ports, SHOP, age, LONG).uploads == 1
    assert place.names() == [f"uploads/{SHOP}/{IN}/sent"]


def test_a_clean_up_that_died_on_the_way_is_done_by_the_next_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = place.upload(1)
    place.run(launch)

    def die(name: str) -> None:
        raise StoreUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(place.ports.blobs, "delete", die)
        with pytest.raises(StoreUnavailable):
            place.clean()
    (known,) = place.ports.launches.recent(SHOP, IN, 9)
    assert (known.file, place.names()) == ("", [launch.file])
    assert place.clean().uploads == 1
    assert place.names() == []


def test_of_exports_the_newest_that_is_whole_stays(place: Place) -> None:
    for number in (1, 2, 3):
        place.export(number)
    place.export(4, error="the source is away")
    running = place.export(5, over=False)
    cleaned = place.clean()
    assert (cleaned.exports, cleaned.uploads) == (3, 0)
    assert {name.split("/")[3] for name in place.names("exports/")} == {"3", str(running.id)}
    assert len(place.names()) == 4


def test_an_export_without_a_row_is_the_newest_as_well(place: Place) -> None:
    place.export(1)
    place.export(2, parts=0)
    assert place.clean().exports == 1
    assert place.names() == []


def test_an_export_is_as_old_as_its_youngest_part(place: Place) -> None:
    place.export(1, parts=3)
    place.export(2)
    place.write(place.names("exports/")[1], MONTH / 2)
    assert place.clean() == Cleaned()
    assert len(place.names()) == 5


@pytest.mark.parametrize("what", ["uploads", "exports"])
def test_others_keep_what_is_theirs(place: Place, what: str) -> None:
    for name in (f"{what}/shopping/x/1/1", f"{what}/market/{OUT}/1/1", f"{what}-of/{SHOP}/x/1/1"):
        place.write(name)
    assert place.clean() == Cleaned()
    assert len(place.names()) == 3


def test_launches_are_looked_through_no_further_than_for_what_is_old(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []
    recent: Callable[..., list[Launch]] = place.ports.launches.recent

    def telling(*given: object) -> list[Launch]:
        asked.append(given[-1] if isinstance(given[-1], int) else None)
        return recent(*given)

    monkeypatch.setattr(place.ports.launches, "recent", telling)
    for number in range(1, 130):
        place.launch(number)
    assert (place.clean(), asked) == (Cleaned(), [])
    launch = place.upload(200)
    place.run(launch)
    assert place.clean().uploads == 1
    assert len(asked) == 1
