"""A whole fetch and delivery, ended at every call that leaves the process, and begun again: what it all comes to.

Between two calls nothing is kept, so that these are all the crashes that there are. Then wrong twins of the stories,
to show that such a defect is found.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import shared.group
from shared.books import FailureQuery, Run
from shared.deliver import Delivery
from shared.errors import RATE_LIMITED
from shared.fetch import Fetcher
from shared.group import Group, as_message
from shared.outcome import FAILED, LETTERS, Outcome, Passing
from shared.ports import topic_of
from shared.replay import replay
from shared.sending import Sending
from tests.unit.fakes import IN_MEMORY, Crash, Fuse, Process, Shelf, Step, World, make_stream, spare_the_disk

THINGS = 40
CHANGED = 2
SKIPPED, NAMELESS, BAD, REFUSED = 5, 9, 13, 17
TWINS = {22: "K21", 30: "K3"}
"""Objects that share the identity of an earlier one: of one page, and of two."""
FAILURES = {"shelf:9": Outcome.INVALID, "K13": Outcome.INVALID, "K17": Outcome.REJECTED}


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group per page."""
    spare_the_disk(monkeypatch)
    monkeypatch.setattr(shared.group, "GROUP_FILL", 1)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Some thousand homes are made in here."""
    with TemporaryDirectory(dir=IN_MEMORY) as folder:
        yield Path(folder)


def a_shelf() -> Shelf:
    """Objects of each kind, several of which share each time stamp, also across pages."""
    shelf = Shelf()
    for number in range(1, THINGS + 1):
        more: dict[str, Any] = {}
        if number == SKIPPED:
            more["skip"] = True
        if number == BAD:
            more["bad"] = True
        key = None if number == NAMELESS else TWINS.get(number, f"K{number}")
        shelf.put(number, number // 3, key=key, **more)
    return shelf


def a_world(folder: Path, overlap: float = 0, monitored: str = "", **settings: Any) -> World:
    """Without overlap nothing that was passed over is read again by chance."""
    stream = make_stream(overlap=timedelta(hours=overlap), monitored=monitored)
    world = World(folder, stream, a_shelf(), page_size=14, **settings)
    world.target.refused = {f"K{REFUSED}"}
    return world


Work = Callable[[Process], object]


def until_the_crash(process: Process, work: Work) -> bool:
    """Whether it came to the crash. The process is dead afterwards in either case."""
    try:
        work(process)
    except Crash:
        return True
    finally:
        process.die()
    return False


def calls_of(world: World, work: Work) -> list[str]:
    """The calls of a process that nothing happens to."""
    process = world.process()
    assert not until_the_crash(process, work)
    return process.fuse.calls


def check_books(process: Process, failures: dict[str, Outcome], unknown: bool = False) -> None:
    """Everything is settled, balanced and accounted for, and the failures are those that there have to be."""
    world = process.world
    assert world.dead_letters == [], "messages of nobody"
    assert process.embedded.bus.depth(process.topics) == 0
    assert not list(process.embedded.ports.batches.unsettled("shop", "things"))
    for run in process.runs:
        counts = process.embedded.ports.books.counts(run.id)
        assert counts.balanced, (run.id, counts)
        assert counts.pending == 0
        assert run.kind == "replay" or run.over
    audit = process.audit()
    assert audit.balanced, audit.unaccounted
    present = process.present()
    found = process.failures()
    assert {(f.key, f.version): f.outcome for f in found} == {i: o for i, o in present.items() if o in FAILED}
    in_doubt = {f.key for f in found if f.outcome is Outcome.UNKNOWN} if unknown else set()
    assert {f.key: f.outcome for f in found if f.key not in in_doubt} == {
        key: outcome for key, outcome in failures.items() if key not in in_doubt
    }


def check_cursor(process: Process) -> None:
    """The cursor is where the last reading run saw the end of the source."""
    last = next(run for run in process.runs if run.kind == "fetch")
    assert last.fetch_done
    assert process.state.cursor == last.cursor_after == last.started_at.replace(microsecond=0)


def check_all_read(process: Process) -> None:
    present = process.present()
    for thing in process.world.shelf.things.values():
        key = f"shelf:{thing.id}" if thing.id in (SKIPPED, NAMELESS) else str(thing.data["key"])
        assert (key, thing.version) in present, thing


def newest(world: World) -> dict[str, str]:
    """The name that the target has to hold for each key."""
    found: dict[str, tuple[str, str]] = {}
    for thing in world.shelf.things.values():
        if thing.id not in (SKIPPED, NAMELESS, BAD, REFUSED):
            key = str(thing.data["key"])
            found[key] = max(found.get(key, ("", "")), (thing.version, str(thing.data["name"])))
    return {key: name for key, (_, name) in found.items()}


def check_exactly_once(process: Process) -> None:
    """For a target that can be asked."""
    target = process.world.target
    wanted = newest(process.world)
    assert [key for key in wanted if target.creations_of(key) > 1] == [], "sent twice"
    held = {key: target.contents_of(key) for key in wanted}
    assert held == {key: [{"name": name}] for key, name in wanted.items()}, "lost"
    assert {key for key, _ in target.objects.values()} == set(wanted)
    check_books(process, FAILURES)


def check_at_most_once(process: Process) -> None:
    """For a target that cannot be asked: nothing twice, and what may have been sent is known to be unknown."""
    arrivals = process.world.target.arrivals()
    assert [identity for identity, count in arrivals.items() if count > 1] == [], "sent twice"
    check_books(process, FAILURES, unknown=True)
    present = process.present()
    versions = {thing.version: thing for thing in process.world.shelf.things.values()}
    for (_, version), outcome in present.items():
        thing = versions[version]
        if thing.id in (SKIPPED, NAMELESS, BAD, REFUSED):
            continue
        arrived = (str(thing.data["key"]), str(thing.data["name"])) in arrivals
        assert outcome in (Outcome.DELIVERED, Outcome.UNKNOWN, Outcome.SUPERSEDED), thing
        assert arrived or outcome is not Outcome.DELIVERED, thing


def begin_again(world: World, *, change: bool) -> Process:
    """The next process, some minutes later, and what it is triggered to do: to end what crashed, and to read the new
    window. Meanwhile an object that stood at the beginning was changed."""
    world.clock.advance(300)
    if change:
        seconds = (world.clock.now() - world.shelf.things[1].at).total_seconds()
        world.shelf.put(CHANGED, seconds - 100, key=f"K{CHANGED}", name="changed")
    process = world.process()
    process.run()
    if world.hands_over:
        process.run()
    return process


def crash_everywhere(
    folder: Path, calls: int, after: tuple[bool, ...] = (False,), step: int = 1, change: bool = True, **settings: Any
) -> Iterator[Process]:
    """The process that came after each crash."""
    for at in range(1, calls + 1, step):
        for late in after:
            world = a_world(folder / f"{at}-{late}", **settings)
            assert until_the_crash(world.process(Fuse(at, after=late)), Process.run)
            yield begin_again(world, change=change)
            world.close()
            shutil.rmtree(world.folder)


def count_calls(folder: Path, **settings: Any) -> int:
    world = a_world(folder / "whole", **settings)
    return len(calls_of(world, Process.run))


def test_a_run_that_nothing_happens_to_delivers_everything_once(tmp_path: Path) -> None:
    world = a_world(tmp_path)
    process = world.process()
    run = process.run()[-1]
    check_exactly_once(process)
    check_all_read(process)
    check_cursor(process)
    assert process.counts(run.id) == {
        "fetched": 40, "filtered": 1, "invalid": 2, "rejected": 1, "superseded": 1, "delivered": 35,
    }  # fmt: skip
    world.close()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_call_loses_nothing_and_sends_nothing_twice(tmp_path: Path, after: bool) -> None:
    for process in crash_everywhere(tmp_path, count_calls(tmp_path), after=(after,)):
        check_exactly_once(process)
        check_all_read(process)
        check_cursor(process)


def test_a_crash_at_any_call_is_harmless_while_delivery_runs_beside_the_reading(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"eager": True, "overlap": 3}
    for process in crash_everywhere(tmp_path, count_calls(tmp_path, **settings), **settings):
        check_exactly_once(process)
        check_all_read(process)
        check_cursor(process)


def test_a_crash_at_any_call_is_harmless_where_records_are_sent_one_by_one(tmp_path: Path) -> None:
    for process in crash_everywhere(tmp_path, count_calls(tmp_path, bulk=1), bulk=1, step=2):
        check_exactly_once(process)
        check_all_read(process)


def misbehave(process: Process) -> None:
    """Each process meets a target that fails some records for a while, and loses the answers of others."""
    busy = Passing("it is busy", RATE_LIMITED, http_status=429)
    process.sink.script = {
        "K4": [busy], "K8": [Step.DOUBT_AFTER], "K12": [busy] * 5, "K16": [Step.DOUBT_BEFORE],
        "K20": [Step.DOUBT_BEFORE] * 4, "K24": [RuntimeError("it fell over")], "K28": [busy, Step.DOUBT_AFTER, busy],
    }  # fmt: skip


def test_a_crash_at_any_call_is_harmless_while_the_target_misbehaves(tmp_path: Path) -> None:
    for process in crash_everywhere(tmp_path, count_calls(tmp_path, prepare=misbehave), prepare=misbehave, step=2):
        check_exactly_once(process)
        check_all_read(process)


def test_a_crash_sends_nothing_twice_to_a_target_that_cannot_be_asked(tmp_path: Path) -> None:
    unknown = 0
    for process in crash_everywhere(tmp_path, count_calls(tmp_path, askable=False), change=False, askable=False):
        check_at_most_once(process)
        check_all_read(process)
        check_cursor(process)
        unknown += bool(process.failures(outcome=Outcome.UNKNOWN))
    assert unknown


def test_two_crashes_in_a_row_are_as_harmless_as_one(tmp_path: Path) -> None:
    calls = count_calls(tmp_path)
    for at in range(3, calls, 9):
        for again in range(2, calls, 23):
            world = a_world(tmp_path / f"{at}-{again}")
            assert until_the_crash(world.process(Fuse(at)), Process.run)
            world.clock.advance(60)
            until_the_crash(world.process(Fuse(again, after=True)), Process.run)
            process = begin_again(world, change=True)
            check_exactly_once(process)
            check_all_read(process)
            check_cursor(process)
            world.close()
            shutil.rmtree(world.folder)


def test_a_crash_at_any_call_is_harmless_to_a_run_that_is_handed_over(tmp_path: Path) -> None:
    world = a_world(tmp_path / "whole", hands_over=True)
    calls = calls_of(world, Process.run)
    assert len(world.actions("run_handed_over")) == 3
    for process in crash_everywhere(tmp_path, len(calls), hands_over=True):
        check_exactly_once(process)
        check_all_read(process)
        check_cursor(process)


REPLAYED = range(1, 25)


def a_world_to_replay(folder: Path) -> World:
    """Many records that were refused or could not be mapped, and would pass today."""
    world = a_world(folder)
    world.target.refused = {f"K{number}" for number in REPLAYED}
    process = world.process()
    process.run()
    process.close()
    world.target.refused = {f"K{REFUSED}"}
    world.clock.advance(60)
    return world


def replay_all(process: Process) -> Run | None:
    """Replays what is open and would pass, as long as there is any."""
    query = FailureQuery("shop", "things")
    if not process.home.failures.count(query):
        return None
    run = replay(process.stream, process.home, query, "the target was mended", process.notice)
    process.settle()
    return run


def replay_crashed_everywhere(tmp_path: Path) -> Iterator[Process]:
    """The process that took up the replay after each crash of it."""
    template = a_world_to_replay(tmp_path / "template")
    for at in range(1, NEVER):
        world = a_world(tmp_path / str(at))
        shutil.copytree(template.folder, world.folder, dirs_exist_ok=True)
        world.target = copy.deepcopy(template.target)
        world.clock.advance(60)
        crashed = until_the_crash(world.process(Fuse(at)), replay_all)
        process = begin_again(world, change=False)
        replay_all(process)
        yield process
        world.close()
        shutil.rmtree(world.folder)
        if not crashed:
            return
    raise AssertionError("the replay has no end")


NEVER = 10_000


def test_a_crash_at_any_call_of_a_replay_loses_nothing_and_sends_nothing_twice(tmp_path: Path) -> None:
    points = 0
    for process in replay_crashed_everywhere(tmp_path):
        check_exactly_once(process)
        check_cursor(process)
        points += 1
    assert points > 60


def test_a_replay_that_crashed_is_over_once_what_it_committed_is_settled(tmp_path: Path) -> None:
    for process in replay_crashed_everywhere(tmp_path):
        assert [(run.id, run.kind, run.state) for run in process.runs if not run.over] == []


# Wrong twins.


def test_a_store_that_forgets_who_was_sending_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_up = Delivery.take_up
    monkeypatch.setattr(Delivery, "take_up", lambda self, batch, *, in_doubt: take_up(self, batch, in_doubt=False))
    assert_found(tmp_path, check_exactly_once, "sent twice", step=3)


def test_doubt_that_leads_to_no_probe_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def send_without_asking(self: Sending, items: list[Any]) -> list[Any]:
        for item in items:
            item.doubtful = False
        return items

    monkeypatch.setattr(Sending, "probe", send_without_asking)
    assert_found(tmp_path, check_exactly_once, "sent twice", step=3)
    assert_found(tmp_path, check_at_most_once, "sent twice", step=3, change=False, askable=False)


def test_a_batch_that_is_settled_before_it_is_sent_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    send_portion = Sending.send_portion

    def claim_first(self: Sending, portion: list[Any]) -> list[Any]:
        for item in portion:
            self.letters[item.place] = LETTERS[Outcome.DELIVERED]
        self.delivery.record(keep=True, settled=False)
        return send_portion(self, portion)

    monkeypatch.setattr(Sending, "send_portion", claim_first)
    assert_found(tmp_path, check_exactly_once, step=3)


def test_a_message_that_goes_out_before_its_batch_is_committed_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_batches = Group.batches

    def publish_first(self: Group, blob: str) -> Any:
        batches, parts = make_batches(self, blob)
        messages = [as_message(b, p) for b, p in zip(batches, parts, strict=True)]
        self.home.bus.publish(topic_of(self.run.integration), messages)
        return batches, parts

    monkeypatch.setattr(Group, "batches", publish_first)
    assert_found(tmp_path, check_exactly_once, "messages of nobody")


def test_a_cursor_that_moves_before_the_last_commit_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish, commit = Fetcher.finish, Group.commit
    monkeypatch.setattr(Group, "is_full", lambda self: False)

    def finish_first(self: Group) -> None:
        if self.begun is not None:
            finish(self.fetcher, self.run)
        commit(self)

    monkeypatch.setattr(Group, "commit", finish_first)
    assert_found(tmp_path, check_exactly_once, "lost")


def test_a_checkpoint_that_runs_ahead_of_its_batches_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = Group.commit

    def checkpoint_first(self: Group) -> None:
        before = self.run.after
        self.run.after = self.after
        self.home.runs.commit(self.fetcher.lease, self.run)
        self.run.after = before
        commit(self)

    monkeypatch.setattr(Group, "commit", checkpoint_first)
    assert_found(tmp_path, check_exactly_once, "lost")


def assert_found(
    folder: Path, check: Callable[[Process], None], says: str = "", change: bool = True, **settings: Any
) -> None:
    """Some crash point shows the defect."""
    folder = folder / check.__name__
    step = settings.pop("step", 1)
    settings["eager"] = True
    for process in crash_everywhere(folder, count_calls(folder, **settings), step=step, change=change, **settings):
        try:
            check(process)
        except AssertionError as error:
            process.world.close()
            assert says in str(error)
            return
    raise AssertionError("nothing was found")
