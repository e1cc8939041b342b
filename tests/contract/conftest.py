"""One world per test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.homes import HomeUnderTest
from tests.contract.suite import Wrong
from tests.contract.world import World

pytest.register_assert_rewrite(
    *(f"tests.contract.{path.stem}" for path in Path(__file__).parent.glob("check_*.py")),
)


@pytest.fixture
def make_world(
    tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[[HomeUnderTest, Wrong | None], World]]:
    """Founds a home, and closes everything that was opened on it."""
    worlds: list[World] = []

    def found(home: HomeUnderTest, wrong: Wrong | None) -> World:
        for fixture in home.fixtures:
            request.getfixturevalue(fixture)
        worlds.append(World(home, tmp_path / "home", wrong))
        return worlds[-1]

    yield found
    for world in worlds:
        world.close()
