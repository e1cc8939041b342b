"""What a caller asks for over HTTP: the parameters of Oracle's two requests, and what is wrong with others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

import msgspec

from infra import snapshots
from infra.mistakes import nearest, shown
from infra.snapshots.folders import Folders, archive_name
from infra.snapshots.sources import stored_name
from infra.wiring import Hub
from shared.errors import ConfigError
from shared.snapshot import SnapshotType
from shared.snapshot.history import LEASES

Action = Literal["EXPORT", "IMPORT"]

SPELLINGS: Final = {"snapshottype": "snapshotType", "filename": "fileName"}
"""The tables of the vendor's documentation have the left ones, its samples the right ones."""
PARAMETERS: Final[Mapping[str, tuple[str, ...]]] = {
    "EXPORT": ("action", "snapshotType", "fileName", "overwriteFile"),
    "IMPORT": ("action", "fileName"),
}
BOOLEANS: Final = {"true": True, "false": False}


class Asked(msgspec.Struct, frozen=True):
    """An export or an import of a file in the snapshot folders. `type` is the one to export, or the one that the
    archive to import is of."""

    action: Action
    file: str
    type: SnapshotType
    overwrite: bool = False

    @property
    def lease(self) -> str:
        return f"{LEASES}job.{self.action.lower()}"


def asked_of(hub: Hub, body: bytes) -> Asked:
    """What a request's body asks for. Raises ConfigError for a parameter that is none, is missing or has a wrong value,
    and for an archive to import that is not there."""
    given = _parameters(body)
    action = _one_of(given, "action", tuple(PARAMETERS))
    for name in given:
        if name not in PARAMETERS[action]:
            near = nearest(name, PARAMETERS[action])
            expected = ", ".join(PARAMETERS[action])
            cure = f"write {near}" if near else "leave it out"
            raise ConfigError(f"{action} takes no {name}: it takes {expected}", cure=cure)
    file = _text(given, "fileName")
    if action == "IMPORT":
        name = _stored(hub, file)
        return Asked("IMPORT", name, snapshots.show(hub, name)["type"])
    kind = _one_of(given, "snapshotType", get_args(SnapshotType))
    return Asked("EXPORT", f"outbox/{archive_name(file)}", kind, _boolean(given, "overwriteFile"))


def _parameters(body: bytes) -> dict[str, Any]:
    """By the names of the samples. What is null was not given."""
    try:
        read = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"the body is no JSON object: {error}", cure='such as {"action": "EXPORT", ...}') from error
    given: dict[str, Any] = {}
    for spelled, value in read.items():
        name = SPELLINGS.get(spelled, spelled)
        if name in given:
            raise ConfigError(f"{name} is given twice", cure="leave one of them out")
        if value is not None:
            given[name] = value
    return given


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str) or not value.strip():
        found = "is missing" if value is None else f"is {shown(value)}"
        raise ConfigError(f"{name} {found}: expected a text", cure=f"give {name}")
    return value.strip()


def _one_of(given: Mapping[str, Any], name: str, known: tuple[Any, ...]) -> Any:
    value = _text(given, name)
    if value not in known:
        near = nearest(value.upper(), known)
        expected = ", ".join(known)
        cure = f"write {near}" if near else "give one of them"
        raise ConfigError(f"{name} is {shown(value)}: expected one of {expected}", cure=cure)
    return value


def _boolean(given: Mapping[str, Any], name: str) -> bool:
    """False where it is not given. Clients send it as a text, too."""
    value = given.get(name, False)
    found = BOOLEANS.get(value.strip().lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise ConfigError(
            f"{name} is {shown(value)}: expected true or false", cure=f"write {name}: true, or leave it out"
        )
    return found


def _stored(hub: Hub, file: str) -> str:
    """The name of an archive that is in the snapshot folders: nothing else on this machine is looked at."""
    name = stored_name(file)
    if not Folders(hub.home.snapshots).has(name):
        raise ConfigError(f"fileName: there is no {name}", cure="put it into inbox, and name it inbox/NAME.zip")
    return name
