"""The monitoring table after a crash at any call: each delivery in one sum, a row for each failure and each replay."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest

import shared.group
import shared.monitoring
from infra.local.batches import LocalBatches
from shared.deliver import Delivery
from shared.errors import RETRIED
from tests.unit.fakes import IN_MEMORY, Fuse, spare_the_disk
from tests.unit.test_crash_points import (
    REPLAYED,
    a_world,
    assert_found,
    begin_again,
    check_exactly_once,
    count_calls,
    crash_everywhere,
    misbehave,
    replay_all,
    until_the_crash,
)
from tests.unit.test_monitoring import TABLE, assert_balanced, of_type

ON: dict[str, Any] = {"monitored": TABLE}


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    spare_the_disk(monkeypatch)
    monkeypatch.setattr(shared.group, "GROUP_FILL", 1)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with TemporaryDirectory(dir=IN_MEMORY) as folder:
        yield Path(folder)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_call_leaves_the_sums_in_balance(tmp_path: Path, after: bool) -> None:
    for process in crash_everywhere(tmp_path, count_calls(tmp_path, **ON), after=(after,), **ON):
        assert_balanced(process)
        check_exactly_once(process)


def test_so_it_does_while_the_target_misbehaves(tmp_path: Path) -> None:
    settings = {"prepare": misbehave, "eager": True, **ON}
    for process in crash_everywhere(tmp_path, count_calls(tmp_path, **settings), step=4, **settings):
        assert_balanced(process)


def test_a_crash_at_any_call_of_a_replay_tells_of_each_replay_that_began_and_no_other(tmp_path: Path) -> None:
    template = a_world(tmp_path / "template", **ON)
    template.target.refused = {f"K{number}" for number in REPLAYED}
    process = template.process()
    process.run()
    process.close()
    template.target.refused = set()
    crashed = True
    at = 0
    while crashed:
        at += 1
        world = a_world(tmp_path / str(at), **ON)
        shutil.copytree(template.folder, world.folder, dirs_exist_ok=True)
        world.target = copy.deepcopy(template.target)
        world.clock.advance(60)
        crashed = until_the_crash(world.process(Fuse(at)), replay_all)
        process = begin_again(world, change=False)
        replay_all(process)
        assert_balanced(process)
        replays = [run for run in process.runs if run.kind == "replay"]
        assert len(of_type(process, RETRIED)) == len(replays) >= 1
        world.close()
        shutil.rmtree(world.folder)
    assert at > 60


def test_rows_in_a_write_of_their_own_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that dies in between has settled the batch, and told nobody."""
    record, settle = Delivery.record, LocalBatches.settle

    def tell_apart(self: Delivery, *, keep: bool, settled: bool) -> None:
        rows = self.monitoring_rows(self.home.clock.now())
        record(self, keep=keep, settled=settled)
        run = self.home.runs.get(self.envelope.run)
        assert run is not None
        lease = self.home.leases.take("telling")
        self.home.runs.commit(lease, run, monitored=shared.monitoring.monitored(TABLE, lambda: rows))
        self.home.leases.release(lease)

    def silent(self: LocalBatches, settlement: Any) -> None:
        settle(self, msgspec.structs.replace(settlement, monitored=None))

    monkeypatch.setattr(LocalBatches, "settle", silent)
    monkeypatch.setattr(Delivery, "record", tell_apart)
    world = a_world(tmp_path / "alive", **ON)
    process = world.process()
    process.run()
    assert_balanced(process)
    world.close()
    assert_found(tmp_path, assert_balanced, **ON)
