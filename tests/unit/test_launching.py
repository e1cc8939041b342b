"""Launches: a file that was sent is read by exactly one run, and an export has each object once, whatever crashes."""

from __future__ import annotations

import csv
import gzip
import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest

import shared.group
import shared.launching
from infra.local.blobs import LocalBlobs
from infra.systems import Connection
from infra.systems.exports import Exports, Style, file_of, part_of
from infra.systems.uploads import open_source
from shared.books import FailureQuery
from shared.deliver import Delivery
from shared.errors import ConfigError, MalformedEnvelope
from shared.fetch import Fetcher, Order, decode_continuation, fetch
from shared.launches import Launch, launch_id
from shared.launching import ask, begin, cancel, decode_summons, look, summon, summon_the_idle
from shared.ports import lease_name
from shared.replay import replay
from shared.retry import RetryPolicy
from shared.rules import Rules
from shared.sweep import conclude_runs
from tests.unit.fakes import (
    IN_MEMORY,
    Crash,
    Fuse,
    Guarded,
    Process,
    World,
    identify,
    make_stream,
    spare_the_disk,
    to_target,
)

ROWS = 23
SENT = Rules("", "objects", identify, to_target, launched="sent", verifies=True)
WHOLE = Rules("things", "", identify, to_target, launched="whole", polled=True, settings={"columns": ["name"]})


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    spare_the_disk(monkeypatch)
    monkeypatch.setattr(shared.group, "GROUP_FILL", 1)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with TemporaryDirectory(dir=IN_MEMORY) as folder:
        yield Path(folder)


class Launcher(Process):
    """A process whose stream is launched: it takes summonses, reads what was sent, and writes files of its own."""

    def __init__(self, world: World, fuse: Fuse | None = None) -> None:
        super().__init__(world, fuse or Fuse())
        world.processes.append(self)
        launches = Guarded("launches", self.embedded.ports.launches, self.fuse)
        self.home = msgspec.structs.replace(self.home, launches=launches)
        if self.stream.rules.launched == "whole":
            exports = Exports(lambda: self.home, (self.stream.integration, self.stream.name), Style())
            self.guarded_sink = Guarded("sink", exports, self.fuse)

    def open_source(self) -> Any:
        if self.stream.rules.launched == "whole":
            return super().open_source()
        name = self.stream.integration, self.stream.name
        return open_source(
            Connection(
                *("", {}, None, 5, RetryPolicy(), self.world.clock, None, lambda: False),
                home=lambda: self.home,
                stream=name,
            ),
            "",
        )

    def go_on(self, claimed: Any) -> Any:
        try:
            decode_continuation(claimed.message.data)
        except MalformedEnvelope:
            decode_summons(claimed.message.data)
            return self.fetch(Order(summoned=True))
        return super().go_on(claimed)

    def send(self, text: str | bytes, name: str = "one") -> Launch:
        """What the API does with a file before it answers."""
        file = f"uploads/{name}"
        size = self.home.blobs.write_pieces(file, [text.encode() if isinstance(text, str) else text])
        at = self.home.clock.now()
        launch = Launch(self.stream.integration, self.stream.name, launch_id(at), scheduled_at=at, file=file, size=size)
        launch = ask(self.home, launch)
        summon(self.home, launch)
        return launch

    def work(self) -> None:
        """Serves until nothing waits, a sweep included."""
        self.settle()
        self.world.clock.advance(61)
        summon_the_idle(self.stream, self.home)
        self.settle()

    def launches(self) -> list[Launch]:
        return self.embedded.ports.launches.recent(self.stream.integration, self.stream.name, 100)

    def file(self, launch: Launch) -> list[list[str]]:
        text = b"".join(file_of(self.embedded.ports, launch, Style())).decode()
        return list(csv.reader(io.StringIO(text)))


def rows(first: int = 1, count: int = ROWS, name: str = "name") -> str:
    return "key,name\r\n" + "".join(f"K{n},{name} {n}\r\n" for n in range(first, first + count))


def names_at(world: World) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, content in world.target.objects.values():
        found.setdefault(key, []).append(content["name"])
    return found


def expected(first: int = 1, count: int = ROWS, name: str = "name") -> dict[str, list[str]]:
    return {f"K{n}": [f"{name} {n}"] for n in range(first, first + count)}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "home", make_stream(rules=SENT))
    yield made
    made.close()


def test_a_file_that_was_sent_is_read_by_one_run_of_its_own(world: World) -> None:
    process = Launcher(world)
    launch = process.send(rows())
    assert look(process.home, launch).status == "scheduled"
    process.work()
    assert [run.id for run in process.runs] == [launch.run]
    assert names_at(world) == expected()
    seen = look(process.home, launch)
    assert (seen.status, seen.message, seen.failed) == ("finished", "", False)
    assert seen.counts is not None and seen.counts.delivered == ROWS
    assert process.audit().balanced


def test_files_are_read_in_the_order_in_which_they_were_sent(world: World) -> None:
    process = Launcher(world)
    sent = [process.send(rows(name=f"v{number}"), f"file {number}") for number in range(4)]
    assert len({launch.id for launch in sent}) == 4
    process.work()
    assert [run.id for run in reversed(process.runs)] == [launch.run for launch in sent]
    assert names_at(world) == expected(name="v3")
    assert process.audit().balanced


def test_a_later_file_is_the_newer_one_though_the_clock_was_set_back(world: World) -> None:
    process = Launcher(world)
    first = process.send(rows(name="before"))
    process.work()
    world.clock.jump(-3600)
    second = process.send(rows(name="after"), "two")
    process.work()
    assert second.id == first.id + 1 and second.scheduled_at < first.scheduled_at
    assert process.counts(second.run) == {"fetched": ROWS, "delivered": ROWS}
    assert names_at(world) == expected(name="after")


def test_what_the_target_still_holds_is_unchanged_and_what_others_changed_is_sent_again(world: World) -> None:
    process = Launcher(world)
    process.send(rows(count=6))
    process.work()
    for target_id in process.world.target.ids_of("K2"):
        world.target.objects[target_id] = ("K2", {"name": "somebody else's"})
    for target_id in process.world.target.ids_of("K3"):
        del world.target.objects[target_id]
    again = process.send(rows(count=6), "two")
    process.work()
    assert names_at(world) == expected(count=6)
    counts = process.counts(again.run)
    assert counts == {"fetched": 6, "unchanged": 4, "delivered": 2}


def test_what_was_refused_is_tried_again_when_it_is_sent_again(world: World) -> None:
    process = Launcher(world)
    world.target.refused = {"K2"}
    first = process.send(rows(count=3))
    process.work()
    assert look(process.home, first).message == "1 of 3 rows were refused"
    world.target.refused = set()
    second = process.send(rows(count=3), "two")
    process.work()
    assert process.counts(second.run) == {"fetched": 3, "unchanged": 2, "delivered": 1}
    assert process.failures() == []


def test_a_row_without_an_identity_is_no_other_ones_failure_than_its_files(world: World) -> None:
    process = Launcher(world)
    first = process.send("key,name\r\n,lost\r\n")
    process.work()
    process.send("key,name\r\nK1,name 1\r\n", "two")
    process.work()
    third = process.send("key,name\r\n,lost too\r\n", "three")
    process.work()
    keys = [failure.key for failure in process.failures()]
    assert keys == [f"shelf:{launch.id}:2" for launch in (first, third)]
    assert process.audit().counts.invalid == 2


def test_what_could_not_be_named_is_not_held_in_memory(world: World) -> None:
    """Nobody comes back to a line of a file."""
    process = Launcher(world)
    process.send("key,name\r\n" + ",lost\r\n" * 30)
    process.work()
    lease = process.home.leases.take(lease_name("shop", "things"))
    fetcher = Fetcher(process.stream, process.open_source, process.home, lease, print, bool, bool)
    assert len(process.failures()) == 30 and fetcher.nameless == {}


def test_a_later_row_with_other_columns_leaves_the_failure_of_the_earlier_one_open(world: World) -> None:
    process = Launcher(world)
    world.target.refused = {"K1"}
    process.send("key,name,email\r\nK1,Ana,ana@example.com\r\n")
    process.work()
    world.target.refused = set()
    process.send("key,name\r\nK1,Ana\r\n", "two")
    process.work()
    assert [failure.data["email"] for failure in process.failures()] == ["ana@example.com"]
    process.send("key,name,email\r\nK1,Anna,ana@example.com\r\n", "three")
    process.work()
    assert process.failures() == []
    assert process.audit().balanced


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "empty"), ("a,a\n1,2\n", "twice"), ("\n\nkey,name\n", "no header")],
    ids=["empty", "a column twice", "no header"],
)
def test_a_file_that_cannot_be_read_finishes_its_launch_and_keeps_no_other_one_waiting(
    world: World, text: str, reason: str
) -> None:
    process = Launcher(world)
    bad = process.send(text)
    good = process.send(rows(), "good")
    process.work()
    seen = look(process.home, bad)
    assert (seen.status, seen.failed) == ("finished", True)
    assert reason in seen.message and "uploads/" not in seen.message
    assert look(process.home, good).status == "finished"
    assert names_at(world) == expected()


def test_a_packed_file_is_not_unpacked_and_says_what_to_do(world: World) -> None:
    process = Launcher(world)
    launch = process.send(gzip.compress(rows(count=1_000).encode()))
    process.work()
    run = process.home.runs.get(launch.run)
    assert run is not None and (run.fetched, run.cure) == (0, "mend the file and send it again: its launch is over")
    assert look(process.home, launch).message == "the file: it is compressed: files are sent as they are"


def test_a_file_that_must_not_be_read_at_the_moment_is_read_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a bucket refuses this process for want of a role."""
    process = Launcher(world)
    launch = process.send(rows())

    def refused(self: LocalBlobs, name: str, offset: int = 0, length: int | None = None) -> bytes:
        raise ConfigError("reading: 403")

    with monkeypatch.context() as patch:
        patch.setattr(LocalBlobs, "read", refused)
        with pytest.raises(ConfigError, match="403"):
            process.fetch(Order(summoned=True))
    assert look(process.home, launch).status == "running"
    process.work()
    assert names_at(world) == expected()
    assert (look(process.home, launch).status, look(process.home, launch).message) == ("finished", "")


def test_a_launch_that_was_cancelled_never_begins(world: World) -> None:
    process = Launcher(world)
    launch = process.send(rows())
    cancel(process.home, launch, "ana")
    process.work()
    assert process.runs == [] and names_at(world) == {}
    seen = look(process.home, process.launches()[0])
    assert (seen.status, seen.message) == ("cancelled", "Cancelled by user: ana")


def test_what_waits_behind_another_launch_is_cancelled_while_that_is_read(world: World) -> None:
    process = Launcher(world)
    process.send(rows())
    second = process.send("id,name\nlate,x\n")
    waiting = begin(process.stream, process.home)
    first = next(waiting)
    lease = process.home.leases.take(lease_name("shop", "things"))
    with pytest.raises(ConfigError):
        # Its run begins at this moment.
        cancel(process.home, first, "ana")
    assert cancel(process.home, second, "ana").state == "cancelled"
    process.home.leases.release(lease)
    assert list(waiting) == []
    process.work()
    assert look(process.home, process.launches()[0]).status == "cancelled"
    assert process.home.runs.get(second.run) is None
    with pytest.raises(ConfigError):
        cancel(process.home, second, "ana")


def test_a_launch_that_was_taken_and_cannot_be_begun_can_be_cancelled(world: World) -> None:
    process = Launcher(world)
    launch = process.send(rows())
    next(begin(process.stream, process.home))
    assert cancel(process.home, launch, "ana").state == "cancelled"
    process.work()
    assert process.runs == [] and names_at(world) == {}


def test_a_launch_that_was_taken_and_not_begun_is_begun_by_the_next_one(world: World) -> None:
    process = Launcher(world)
    launch = process.send(rows())
    assert next(begin(process.stream, process.home)) == launch
    assert look(process.home, launch).status == "scheduled"
    process.work()
    assert names_at(world) == expected()


def test_a_summons_that_got_lost_is_made_up_for(world: World) -> None:
    process = Launcher(world)
    at = process.home.clock.now()
    process.home.blobs.write("uploads/x", rows().encode())
    ask(process.home, Launch("shop", "things", launch_id(at), at, file="uploads/x"))
    assert summon_the_idle(process.stream, process.home) == 0, "it may be on its way"
    process.work()
    assert names_at(world) == expected()
    assert summon_the_idle(process.stream, process.home) == 0


def test_a_launch_is_not_read_in_part(world: World) -> None:
    process = Launcher(world)
    with pytest.raises(ConfigError, match="as a whole"):
        process.fetch(Order(limit=3))
    with pytest.raises(ConfigError, match="as a whole"):
        process.fetch(Order(since=process.home.clock.now()))


def test_an_order_without_anything_that_waits_reads_nothing(world: World) -> None:
    process = Launcher(world)
    assert process.fetch(Order()) == []
    assert process.launches() == []


# Exports.


@pytest.fixture
def export(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "home", make_stream(rules=WHOLE))
    made.shelf.fill(ROWS)
    yield made
    made.close()


def whole(count: int = ROWS, name: str = "name") -> list[list[str]]:
    return [["name"], *sorted([f"{name} {n}"] for n in range(1, count + 1))]


def in_order(file: Sequence[list[str]]) -> list[list[str]]:
    return [file[0], *sorted(file[1:])]


def test_each_launch_gives_everything_whatever_was_delivered_before(export: World) -> None:
    process = Launcher(export)
    for _ in range(3):
        process.run()
        export.clock.advance(5)
    launches = process.launches()
    assert len(launches) == 3
    for launch in launches:
        assert in_order(process.file(launch)) == whole()
        assert process.counts(launch.run) == {"fetched": ROWS, "delivered": ROWS}
    assert process.audit().balanced


def test_a_scheduled_launch_comes_once_however_often_it_is_triggered(export: World) -> None:
    process = Launcher(export)
    at = export.clock.now() + timedelta(minutes=3)
    for _ in range(3):
        process.run(Order(run_id="by the scheduler", at=at))
    (launch,) = process.launches()
    assert (launch.id, launch.scheduled_at) == (launch_id(at), at)
    assert len(process.runs) == 1


def test_a_batch_that_comes_again_is_in_the_file_once(export: World) -> None:
    process = Launcher(export)
    process.fetch()
    (launch,) = process.launches()
    envelopes = process.envelopes()
    for _ in range(2):
        for envelope in envelopes:
            process.guarded_sink.enter(launch.run, envelope.batch)
            Delivery.carry_out(
                Delivery(
                    envelope, process.stream, process.guarded_sink, process.home, process.health, print, lambda: False
                )
            )
    assert in_order(process.file(launch)) == whole()


def test_an_export_has_no_replay_but_another_launch(export: World) -> None:
    process = Launcher(export)
    with pytest.raises(ConfigError, match="each launch gives everything anew"):
        replay(process.stream, process.home, FailureQuery("shop", "things"), "why", process.notice)


def test_what_failed_in_an_earlier_launch_is_tried_again(export: World) -> None:
    export.shelf.put(7, 3, key="K7", bad=True)
    process = Launcher(export)
    process.run()
    (first,) = process.launches()
    assert process.counts(first.run) == {"fetched": ROWS, "delivered": ROWS - 1, "invalid": 1}
    export.clock.advance(5)
    process.run()
    assert process.counts(process.launches()[0].run) == {"fetched": ROWS, "delivered": ROWS - 1, "invalid": 1}
    export.shelf.put(7, 3, key="K7")
    export.clock.advance(5)
    process.run()
    assert in_order(process.file(process.launches()[0])) == whole()
    assert process.failures() == []


def test_a_run_that_is_no_launch_has_no_file(export: World) -> None:
    process = Launcher(export)
    with pytest.raises(ConfigError, match="no launch"):
        process.guarded_sink.enter("things-20260301T120000-abc123", "x")


# Crashes: each call that leaves a process is the last one once.


def crash_points(world: World, work: Callable[[Launcher], None]) -> int:
    """How many calls the work makes."""
    process = Launcher(world, Fuse())
    work(process)
    return len(process.fuse.calls)


def crashed(world: World, work: Callable[[Launcher], None], at: int, *, after: bool) -> None:
    """The work, ended just before or after one of its calls."""
    process = Launcher(world, Fuse(at, after=after))
    with suppress(Crash):
        work(process)
    process.die()


def sent_and_read(process: Launcher) -> None:
    process.world.sent = False  # type: ignore[attr-defined]
    process.send(rows())
    process.world.sent = True  # type: ignore[attr-defined]
    process.settle()


def read_anew(process: Launcher) -> None:
    process.run()


def test_a_crash_anywhere_loses_no_row_of_a_file_and_sends_none_twice(tmp_path: Path) -> None:
    calls = crash_points(World(tmp_path / "whole", make_stream(rules=SENT)), sent_and_read)
    assert calls > 60
    for at in range(1, calls + 1):
        for after in (False, True):
            world = World(tmp_path / "home", make_stream(rules=SENT))
            crashed(world, sent_and_read, at, after=after)
            process = Launcher(world)
            known = process.launches()
            process.work()
            if not known:
                assert not world.sent, "it was answered, and nobody knows of it"  # type: ignore[attr-defined]
                process.send(rows())
                process.work()
            (launch,) = process.launches()
            assert names_at(world) == expected(), (at, after)
            assert look(process.home, launch).status == "finished", (at, after)
            assert [run.id for run in process.runs] == [launch.run]
            assert process.audit().balanced and process.audit().counts.delivered == ROWS
            process.close()
            shutil.rmtree(tmp_path / "home")


def test_a_crash_anywhere_leaves_each_object_once_in_the_file(tmp_path: Path) -> None:
    def a_world(name: str) -> World:
        made = World(tmp_path / name, make_stream(rules=WHOLE))
        made.shelf.fill(ROWS)
        return made

    calls = crash_points(a_world("whole"), read_anew)
    assert calls > 40
    for at in range(1, calls + 1):
        for after in (False, True):
            world = a_world("home")
            crashed(world, read_anew, at, after=after)
            process = Launcher(world)
            process.work()
            if not process.launches():
                process.run()
            for launch in process.launches():
                assert look(process.home, launch).status == "finished", (at, after)
                assert in_order(process.file(launch)) == whole(), (at, after)
            assert process.audit().balanced
            process.close()
            shutil.rmtree(tmp_path / "home")


def test_a_file_that_forgets_what_its_part_held_is_found_by_the_crashes(
    export: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong twin: the rows of a second write take the place of those of the first one."""
    monkeypatch.setattr(Exports, "_held", lambda self, name: [])
    monkeypatch.setattr("infra.systems.exports.BULK", 2)
    process = Launcher(export)
    process.guarded_sink._inner.bulk = 2
    process.run()
    (launch,) = process.launches()
    assert in_order(process.file(launch)) != whole()


def test_begun_twice_is_begun_once(world: World) -> None:
    """Between the run and the mark there may be a crash: then the run says more than the mark."""
    process = Launcher(world)
    launch = process.send(rows())
    begun = begin(process.stream, process.home)
    first = next(begun)
    fetch(
        process.stream,
        process.open_source,
        process.home,
        Order(run_id=first.run, window=first.window, summoned=True),
        process.notice,
    )
    process.work()
    assert [run.id for run in process.runs] == [launch.run]
    assert [each.state for each in process.launches()] == ["begun"]
    assert list(begin(process.stream, process.home)) == []


def test_parts_are_named_by_launch_and_batch() -> None:
    at = make_stream().since
    assert part_of(Launch("shop", "things", 17, at), "b.1.0") == "exports/shop/things/17/b.1.0"


def test_runs_of_launches_end(world: World) -> None:
    process = Launcher(world)
    process.send(rows())
    process.work()
    assert conclude_runs(process.stream, process.home) == []
    assert all(run.over for run in process.runs)
