"""Snapshots: an installation's set-up and history, exported to an archive and imported from one.

What a snapshot carries is said in `shared/snapshot`; where its folders are, in `folders.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.wiring import Hub
from shared.snapshot import SnapshotType

Progress = Callable[[str, int, int | None], None]
"""Told of each step as it goes on: what is being done, how much of it is done, and of how much, where that is known."""


def export(
    hub: Hub,
    name: str,
    type: SnapshotType = "ALL",
    overwrite: bool = False,
    with_data: bool = False,
    progress: Progress = lambda step, done, total: None,
) -> dict[str, Any]:
    """Writes `outbox/<name>.zip` and says what it holds: `name`, `file`, `size`, `type`, `createdAt`, `lastProcessId`,
    `baseProcessId`, `withData`, `files` (how many), `counts` (by kind of row), `povs` (how many of them were `exported`
    by this call, are `carried` by the archive, were `removed`), and `notes` for people. `.zip` at the end of a name may
    be left out.

    Raises Leased while another export or an import is under way, and ConfigError for a name that is none, a file that
    is there already without `overwrite`, and configuration that cannot be read. Whatever it is interrupted by, the next
    call does it anew, or brings it to its end if the archive was written by then; no archive is ever partial.
    """
    from infra.snapshots.exporting import carry_out

    return carry_out(hub, name, type, overwrite, with_data, progress)


def restore(hub: Hub, source: str | Path, progress: Progress = lambda step, done, total: None) -> dict[str, Any]:
    """Imports an archive: a name in the snapshot folders (`inbox/NAME.zip`, `outbox/NAME.zip`, `NAME.zip`) or a file of
    this machine (a Path). Says what it did: what `examine` says, `processId` (0, or a number of its own for SETUP), and
    `overlay`, the file that reproduces the imported configuration.

    All or nothing: whatever it is interrupted by, this installation is as it was or as the archive has it, and the next
    import or export finishes what was begun. Raises what `examine` raises.
    """
    from infra.snapshots.importing import carry_out

    return carry_out(hub, source, progress)


def examine(hub: Hub, source: str | Path, progress: Progress = lambda step, done, total: None) -> dict[str, Any]:
    """What importing an archive would do, after the whole of it was validated; writes nothing. `source`, `type`,
    `createdAt`, `lastProcessId`, `baseProcessId`, `withData`, `counts` (what it brings), `replaced` (what this
    installation holds and loses, by the same names), `differences` (to this installation's own configuration, a text
    each) and `notes`.

    Raises ConfigError for an archive that is not there, is not sound or lacks its base, and Leased while a run, an
    export or another import is under way.
    """
    from infra.snapshots.importing import look_ahead

    return look_ahead(hub, source, progress)


def listing(hub: Hub) -> list[dict[str, Any]]:
    """The archives in outbox and inbox, newest first: `file`, `name`, `size`, `writtenAt`, and of those that can be
    read `type`, `createdAt`, `lastProcessId`, `baseProcessId`, `withData`; of the others `error`."""
    from infra.snapshots.showing import listed

    return listed(hub)


def show(hub: Hub, name: str) -> dict[str, Any]:
    """One archive, named as for `restore` or by its bare name in outbox: what `listing` says, `counts`, and `files`
    (`path`, `rows`, `sha256`), `povs` (`location`, `category`, `period`, `processId`), `removed` and `streams`. Raises
    ConfigError for one that is not there, or is no archive."""
    from infra.snapshots.showing import shown

    return shown(hub, name)
