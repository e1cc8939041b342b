"""Whoever is forgotten is forgotten in the folders and archives of snapshots too."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from infra.erasing import find_traces, forget
from shared.errors import ConfigError, Leased
from shared.snapshot.history import EXPORT
from tests.unit.fakes import START, Order, World, make_stream, spare_the_disk
from tests.unit.installations import THINGS, Installation, books_of

MONTH = 31 * 86_400
PERSON = "52998224725"
MAPPING = """
import msgspec
from tests.unit.fakes import RULES

MENTIONED = {"others": lambda data: "".join(filter(str.isdigit, data.get("of", "")))}
STREAMS = {"things": msgspec.structs.replace(RULES, mentioned_in=MENTIONED), "others": RULES, "more": RULES}
"""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    spare_the_disk(monkeypatch)
    streams = {name: dict(THINGS) for name in ("things", "others", "more")}
    installation = Installation(tmp_path, streams=streams, mapping=MAPPING)
    yield installation
    installation.close()


def work(made: Installation, stream: str, numbers: range, person: int = 0, refused: bool = False) -> World:
    """Runs over things that changed a moment ago; one of them is the person, or tells of them."""
    world = made.world(stream)
    seconds = (made.clock.now() - START).total_seconds() - 0.5
    for number in numbers:
        world.shelf.put(number, seconds, key=f"K{number}")
    if person and stream == "things":
        world.shelf.put(person, seconds, key=PERSON, name="Zoë Person")
    elif person:
        world.shelf.put(person, seconds, key=f"T{person}", name="call Zoë", of="529.982.247-25")
    world.target.refused = {PERSON, f"T{person}"} if refused else set()
    process = world.process()
    process.run()
    process.close()
    made.clock.advance(60)
    return world


def texts(made: Installation) -> dict[str, bytes]:
    """Everything below the snapshot folders, unpacked."""
    found: dict[str, bytes] = {}
    for path in made.snapshots.rglob("*"):
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                found |= {f"{path.name}/{name}": archive.read(name) for name in archive.namelist()}
        elif path.is_file():
            found[path.name] = path.read_bytes()
    return found


def holding(made: Installation, *texts_of: str) -> list[str]:
    wanted = [text.encode() for text in texts_of]
    return sorted(name for name, data in texts(made).items() if any(text in data for text in wanted))


def archives(made: Installation) -> set[str]:
    return {path.name for path in made.snapshots.rglob("*.zip")}


def test_files_and_archives_that_hold_a_person_go_and_the_others_stay(made: Installation) -> None:
    work(made, "more", range(1, 5))
    made.export("without")
    made.clock.advance(MONTH)
    work(made, "things", range(1, 5), person=9)
    made.export("with")
    made.clock.advance(MONTH)
    work(made, "more", range(6, 9))
    made.export("later", "INCREMENTAL")
    inbox = made.snapshots / "inbox"
    inbox.mkdir()
    (inbox / "copy.zip").write_bytes(made.archive("with").read_bytes())
    assert archives(made) == {"without.zip", "with.zip", "later.zip", "copy.zip"}
    hub = made.hub()
    found = find_traces(hub, PERSON)
    assert (found["snapshot files"], found["snapshot archives"]) == (1, 2)
    receipt = forget(hub, PERSON)
    assert (receipt["erased"]["snapshot files"], receipt["erased"]["snapshot archives"]) == (1, 2)
    assert receipt["notes"] == []
    assert holding(made, PERSON, "Zoë") == []
    assert archives(made) == {"without.zip", "later.zip"}
    assert find_traces(hub, PERSON)["snapshot files"] == 0


def test_what_went_is_written_anew_without_the_person(made: Installation, tmp_path: Path) -> None:
    world = work(made, "things", range(1, 5), person=9)
    made.export("full")
    mark = made.export("nothing", "INCREMENTAL")["lastProcessId"]
    receipt = forget(made.hub(), PERSON)
    made.clock.advance(60)
    report = made.export("after", "INCREMENTAL")
    assert report["povs"]["exported"] == 1
    assert report["lastProcessId"] > mark == report["baseProcessId"]
    made.export("whole", "ALL_INCREMENTAL")
    assert holding(made, PERSON) == []
    assert "after.zip/data/output/shop/things/2026-03.csv" in holding(made, receipt["receipt"])
    there = Installation(tmp_path / "there", made.clock, dict(made.streams), mapping=MAPPING)
    there.restore(made.archive("whole"))
    assert books_of(there.hub().home) == books_of(made.hub().home)
    assert there.folder_files() == made.folder_files()
    after = there.world("things", world.shelf, world.target).process()
    assert after.audit().balanced
    there.close()


def test_what_tells_of_a_person_goes_too(made: Installation) -> None:
    work(made, "things", range(1, 3), person=9)
    work(made, "others", range(1, 3), person=7, refused=True)
    made.export("bare")
    made.export("full", with_data=True)
    made.hub().home.objects.put("customers", {PERSON: {"name": "Zoë"}, "2": {"document": PERSON}}, made.clock.now())
    made.export("objects", with_data=True)
    assert [name for name in holding(made, "529.982.247-25") if "others" in name] == [
        "full.zip/data/output/shop/others/2026-03.csv",
        "objects.zip/data/output/shop/others/2026-03.csv",
    ]
    forget(made.hub(), PERSON)
    assert holding(made, PERSON, "529.982.247-25", "Zoë") == []
    assert archives(made) == set()


def test_a_person_who_failed_before_they_had_a_name_is_found(made: Installation) -> None:
    world = made.world("things")
    world.shelf.put(9, 1, name="Zoë")
    world.process().run()
    made.export("nameless", with_data=True)
    made.clock.advance(60)
    world.shelf.put(9, 3650, key=PERSON, name="Zoë")
    world.process().run()
    assert holding(made, "Zoë") != []
    forget(made.hub(), PERSON)
    assert holding(made, "Zoë") == []


def test_a_run_that_came_to_rest_at_a_customer_goes_too(made: Installation) -> None:
    made.mapping += 'STREAMS["more"] = msgspec.structs.replace(RULES, source="store", read="customers")\n'
    work(made, "more", range(1, 3))
    home = made.hub().home
    home.objects.put("customers", {"zoe@example.org": {"name": "Zoë"}}, made.clock.now())
    (run,) = home.runs.recent("shop", "more", 9)
    home.runs.conclude(msgspec.structs.replace(run, after='["2026-03-01T12:00:00Z","zoe@example.org"]'))
    made.export("full")
    assert holding(made, "zoe@example.org") == ["2026-03.csv", "full.zip/data/output/shop/more/2026-03.csv"]
    assert find_traces(made.hub(), "zoe@example.org")["snapshot files"] == 1
    forget(made.hub(), "zoe@example.org")
    made.export("after", "ALL_INCREMENTAL")
    assert holding(made, "zoe@example.org") == []
    assert archives(made) == {"after.zip"}


def test_nothing_is_erased_while_the_person_is_on_their_way(made: Installation) -> None:
    work(made, "things", range(1, 3), person=9)
    made.export("full")
    world = made.world("things")
    world.shelf.put(9, 3630, key=PERSON, name="changed")
    world.process().fetch()
    with pytest.raises(Leased, match="on its way"):
        forget(made.hub(), PERSON)
    assert archives(made) == {"full.zip"}


def test_nobody_exports_a_person_while_they_are_forgotten(made: Installation) -> None:
    work(made, "things", range(1, 3), person=9)
    made.export("full")
    home = made.hub().home
    taken = home.leases.take(EXPORT)
    with pytest.raises(Leased):
        forget(made.hub(), PERSON)
    home.leases.release(taken)
    forget(made.hub(), PERSON)


def test_an_archive_that_nobody_can_read_is_noted(made: Installation) -> None:
    work(made, "things", range(1, 3), person=9)
    made.export("full")
    inbox = made.snapshots / "inbox"
    inbox.mkdir()
    (inbox / "broken.zip").write_bytes(made.archive("full").read_bytes()[:-30])
    receipt = forget(made.hub(), PERSON)
    assert receipt["notes"] == [
        "inbox/broken.zip in the snapshot folders cannot be read: delete it if it may hold this person"
    ]


def test_an_incremental_snapshot_finds_no_base_where_a_person_was_forgotten(made: Installation, tmp_path: Path) -> None:
    world = work(made, "things", range(1, 5), person=9)
    made.export("full")
    there = Installation(tmp_path / "there", made.clock, dict(made.streams), mapping=MAPPING)
    there.restore(made.archive("full"))
    work(made, "more", range(1, 5))
    made.export("more", "INCREMENTAL")
    forget(there.hub(), PERSON)
    with pytest.raises(ConfigError, match="adds to") as raised:
        there.restore(made.archive("more"))
    assert "ALL_INCREMENTAL" in raised.value.cure
    process = there.world("things", world.shelf, world.target).process()
    process.run(Order(limit=1))
    assert make_stream().name == "things"
    there.close()
