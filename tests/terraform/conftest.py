"""A terraform that reaches nobody, and what it plans of this repository."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.terraform.check import GIVEN
from tests.terraform.wanted import Wanted
from tests.terraform.workspace import REQUIRED, ROOT, TerraformMissing, Workspace, copy_of, find


@pytest.fixture(scope="session")
def terraform() -> str:
    """Skips where there is none, unless it has to be there."""
    try:
        return find()
    except TerraformMissing as missing:
        if REQUIRED:
            raise
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def planned(terraform: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Wanted]:
    """The plan of this repository with names and addresses as if everything were made, and what is wanted of it."""
    workspace = copied(tmp_path_factory.mktemp("repository"))
    with workspace.connected(made=True):
        workspace.init()
        return workspace.plan(GIVEN), Wanted(workspace.root)


@pytest.fixture
def repository(terraform: str, tmp_path: Path) -> Callable[[], Workspace]:
    """A copy of this repository, in which a mistake may be planted."""
    return lambda: copied(tmp_path)


def copied(folder: Path) -> Workspace:
    (folder / "data").mkdir()
    return Workspace(copy_of(ROOT, folder / "copy"), folder / "data")
