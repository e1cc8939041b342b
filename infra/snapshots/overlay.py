"""The set-up of an archive beside this installation's own: what differs, and the overlay that makes it the same.

Set-up is files of the deployment, which no import changes. The overlay holds what has to be laid over the files that
are deployed here; whoever wants it names it in `WAYBILL_OVERLAY`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import yaml

from infra.snapshots.archive import Archive, Unsound
from infra.snapshots.folders import SETUP
from infra.snapshots.setup import COLUMNS, base_documents, modules, plain, raw_documents
from infra.wiring import Hub
from shared.errors import ConfigError

_HEAD = (
    "# What an import found configured, as far as it differs from the files that are deployed here. To have it so:\n"
    "# export WAYBILL_OVERLAY=<this file>\n"
)
LEVELS: Final = 50
"""Of a document. One that is deeper may be more than can be written as YAML."""
DIGITS: Final = 18
_document = msgspec.json.Decoder(dict[str, Any]).decode


class SetUp(msgspec.Struct):
    """What an archive says of the set-up."""

    documents: dict[str, dict[str, Any]]
    """Of each integration, as it was written."""
    mappings: dict[tuple[str, str], str]
    """The sums of its modules."""
    paused: set[str]


def read_set_up(archive: Archive) -> SetUp:
    """Raises Unsound."""
    found = SetUp({}, {}, set())
    try:
        for row in _rows(archive, "integrations"):
            found.documents[row["integration"]] = {**_document(row["document"]), "streams": {}}
        for row in _rows(archive, "streams"):
            found.documents[row["integration"]]["streams"][row["stream"]] = msgspec.json.decode(row["document"])
    except (KeyError, msgspec.DecodeError, RecursionError) as error:
        raise Unsound(f"{archive.name}: its set-up is not what it should be") from error
    for document in found.documents.values():
        if not _is_shallow(document, LEVELS):
            raise Unsound(f"{archive.name}: its set-up is nested more than {LEVELS} levels deep")
    for row in _rows(archive, "mappings"):
        found.mappings[row["integration"], row["file"]] = row["sha256"]
    found.paused = {row["integration"] for row in _rows(archive, "schedules") if row["paused"] == "true"}
    return found


def _is_shallow(value: Any, levels: int) -> bool:
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_is_shallow(each, levels - 1) for each in below)


def _rows(archive: Archive, table: str) -> Iterator[dict[str, str]]:
    path = f"{SETUP}{table}.csv"
    if path not in archive.files:
        raise Unsound(f"{archive.name} has no {path}")
    for row in archive.rows(path, COLUMNS[table]):
        yield dict(zip(COLUMNS[table], row, strict=True))


def differences(hub: Hub, wanted: SetUp) -> list[str]:
    """What the archive has configured otherwise than it is here, in words."""
    try:
        here = {name: plain(document) for name, document in raw_documents(hub).items()}
    except ConfigError as error:
        return [f"what is configured here cannot be read: {error}"]
    found = [f"{name} is in the snapshot and is not deployed here" for name in wanted.documents if name not in here]
    found += [f"{name} is deployed here and is not in the snapshot" for name in here if name not in wanted.documents]
    for name in here.keys() & wanted.documents.keys():
        found += _differing(name, here[name], wanted.documents[name])
        if name not in wanted.paused and hub.home.schedule.paused(name):
            found.append(f"{name} is paused here and not in the snapshot, and stays so: ./waybill resume {name}")
    own = {(name, file): digest for name, file, digest in modules(hub)}
    for name, file in sorted(wanted.mappings.keys() | own.keys()):
        if name in here and name in wanted.documents and wanted.mappings.get((name, file)) != own.get((name, file)):
            found.append(f"{name}: {file} is another one here")
    return sorted(found)


def _differing(place: str, here: Any, wanted: Any) -> Iterator[str]:
    if isinstance(here, dict) and isinstance(wanted, dict):
        for key in [*wanted, *(key for key in here if key not in wanted)]:
            if key not in here or key not in wanted:
                where = "only in the snapshot" if key in wanted else "only here"
                yield f"{place}: `{key}` is set {where}"
            else:
                yield from _differing(f"{place}.{key}", here[key], wanted[key])
    elif here != wanted:
        yield f"{place} is {_shown(wanted)} in the snapshot, and {_shown(here)} here"


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else f"{text[:60]}…"


def overlay_of(hub: Hub, wanted: SetUp) -> bytes:
    """A YAML file. Integrations that the archive does not have are switched off by it; those that are not deployed here
    cannot stand in it."""
    overlay: dict[str, Any] = {}
    for name, base in base_documents(hub).items():
        if name in wanted.documents:
            over = _over(base, wanted.documents[name])
        else:
            over = {"streams": {stream: {"enabled": False} for stream in base.get("streams", {})}}
        if over:
            overlay[name] = over
    text = yaml.safe_dump(overlay, allow_unicode=True, sort_keys=False, default_flow_style=False, width=120)
    return (_HEAD + text).encode()


def _over(base: Mapping[Any, Any], wanted: Mapping[str, Any]) -> dict[Any, Any]:
    """What makes `wanted` of `base` (`infra.config.merge_overlay`). Keys are as the file has them."""
    keys = {_as_text(key): key for key in base}
    over: dict[Any, Any] = {}
    for text, value in wanted.items():
        is_number = text.isascii() and text.isdecimal() and len(text) <= DIGITS
        key = keys.get(text, int(text) if is_number else text)
        before = base.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            below = _over(before, value)
            if below:
                over[key] = below
        elif key not in base or plain({"": before})[""] != value:
            over[key] = value
    over.update({key: None for text, key in keys.items() if text not in wanted})
    return over


def _as_text(key: Any) -> str:
    return next(iter(plain({key: None})))
