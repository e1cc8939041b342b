"""Every promise of the ports, on every home, and each check shown to fail on homes that break the promise."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints
from unittest import mock

import pytest

from shared.launches import Launches
from shared.objects import Objects
from shared.ports import Home
from shared.snapshot.history import History
from shared.tokens import Tokens
from tests.contract.check_store import NEED_NO_STORE, calls
from tests.contract.homes import HOMES, HomeUnderTest
from tests.contract.suite import CHECKS, Check, Wrong
from tests.contract.world import World

MODULES = [
    importlib.import_module(f"tests.contract.{p.stem}") for p in sorted(Path(__file__).parent.glob("check_*.py"))
]
MakeWorld = Callable[[HomeUnderTest, Wrong | None], World]


def on_each_home(check: Check, *more: Any, name: str) -> Iterator[Any]:
    """The parameters of one test per home; skipped with its reason where the home lacks a trait."""
    for home in HOMES:
        lacking = sorted(check.needs - home.traits)
        marks = [pytest.mark.skip(reason=f"not so on this home: {lacking[0]}")] if lacking else []
        yield pytest.param(home, check, *more, id=f"{home.name}-{name}", marks=marks)


@pytest.mark.parametrize(("home", "check"), [each for check in CHECKS for each in on_each_home(check, name=check.name)])
def test_the_home_keeps(home: HomeUnderTest, check: Check, make_world: MakeWorld) -> None:
    check.run(make_world(home, None))


@pytest.mark.parametrize(
    ("home", "check", "wrong"),
    [
        each
        for check in CHECKS
        for wrong in check.wrong
        for each in on_each_home(check, wrong, name=f"{check.name}, on one that {wrong.what}")
    ],
)
def test_it_is_noticed(home: HomeUnderTest, check: Check, wrong: Wrong, make_world: MakeWorld) -> None:
    world = make_world(home, wrong)
    with pytest.raises(wrong.error):
        check.run(world)


def test_no_check_lacks_a_wrong_twin() -> None:
    assert [check.name for check in CHECKS if not check.wrong] == []


def test_no_check_is_left_out() -> None:
    written = {f"{m.__name__}.{name}" for m in MODULES for name in vars(m) if name.startswith("check_")}
    assert written == {f"{check.run.__module__}.{check.run.__name__}" for check in CHECKS}


def test_every_call_of_every_port_is_tried_without_a_store() -> None:
    ports = get_type_hints(
        Home, localns={"Launches": Launches, "Tokens": Tokens, "Objects": Objects, "History": History}
    )
    promised = {
        f"{name}.{method}"
        for name in ports
        if name != "clock"
        for method in vars(ports[name])
        if not method.startswith("_")
    }
    assert promised == set(calls(mock.Mock(), mock.Mock())) | NEED_NO_STORE


def test_the_names_of_checks_and_twins_are_unlike_each_other() -> None:
    names = [(check.name, wrong.what) for check in CHECKS for wrong in check.wrong]
    assert len(names) == len(set(names))
