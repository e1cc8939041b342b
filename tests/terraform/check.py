"""All that is known to be wrong with terraform/: what terraform itself says, and what the rules say of its plan."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tests import archives
from tests.terraform.plan import Plan
from tests.terraform.rules import RULES
from tests.terraform.wanted import Wanted
from tests.terraform.workspace import Refused, Workspace

GIVEN: Final[Mapping[str, Any]] = {"notification_emails": ["ana@example.com"], "operators": ["group:crm@example.com"]}
"""What a person would give besides the project."""


def faults(workspace: Workspace) -> Iterator[str]:
    """Each with where it is. What cannot be planned ends it."""
    try:
        yield from _of_the_text(workspace)
        with workspace.connected():
            workspace.init()
            workspace.terraform("validate", "-no-color")
        yield from of_the_plan(workspace)
        with workspace.connected():
            # Of an empty project nothing is known: whatever decides what there is must not depend on it.
            workspace.plan()
            workspace.terraform("test", "-no-color")
    except Refused as refused:
        yield str(refused)


def of_the_plan(workspace: Workspace) -> Iterator[str]:
    """What the rules say of the plan, and what is wrong with the archives that come with it."""
    with workspace.connected(made=True):
        plan = Plan(workspace.plan(GIVEN))
    wanted = Wanted(workspace.root)
    for rule in RULES:
        yield from (f"{rule.__name__}: {fault}" for fault in rule(plan, wanted))
    yield from _of_the_archives(workspace)


def _of_the_text(workspace: Workspace) -> Iterator[str]:
    try:
        workspace.terraform("fmt", "-check", "-recursive", "-diff", "-no-color")
    except Refused as refused:
        yield str(refused)
    for file in sorted(workspace.configuration.rglob("*.tf")):
        for skipped in re.findall(r"checkov:skip=\w+:?(.*)", file.read_text(encoding="utf8")):
            if len(skipped.split()) < 4:
                yield f"{file.name}: a policy is skipped without a reason"


def _of_the_archives(workspace: Workspace) -> Iterator[str]:
    """They hold what the test that starts functions from their archives put there."""
    for folder in archives.folders(workspace.root):
        with zipfile.ZipFile(workspace.configuration / ".archives" / f"{folder}.zip") as packed:
            held = {name: packed.read(name) for name in packed.namelist()}
        expected = archives.members(workspace.root, folder)
        for path in sorted(held.keys() ^ expected.keys()):
            yield f"{folder}.zip: {path} {'should not be there' if path in held else 'is missing'}"
        yield from (
            f"{folder}.zip: {path} differs" for path in held.keys() & expected.keys() if held[path] != expected[path]
        )
