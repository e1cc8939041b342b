"""Snapshots for people: what an archive holds, and what importing it does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from infra.render import _print, _row, _table

_SIZES = ((1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB"))


def exported(document: dict[str, Any]) -> None:
    _print(_headline(document))
    _print(_counts({"rows": document["counts"]}))
    povs = document["povs"]
    did = f"{povs['exported']:,} exported, {povs['carried']:,} in the archive, {povs['removed']:,} removed"
    _print(f"points of view: {did}")
    _notes(document)
    _print(f"next: ./waybill snapshot show {document['name']}")


def planned(document: dict[str, Any]) -> None:
    _print(_headline(document))
    _print(_counts({"it brings": document["counts"], "it replaces": document["replaced"]}))
    for text in document["differences"]:
        _print(f"differs here: {text}")
    _notes(document)


def imported(document: dict[str, Any]) -> None:
    """Behind `planned`, which has said what it is about."""
    _print(Text(f"imported {document['source']}", style="green"))
    if document["differences"]:
        _print(f"what makes this installation's configuration that of the archive: {document['overlay']}")
    _print("next: ./waybill check, then ./waybill status")


def listing(document: dict[str, Any]) -> None:
    if not document["snapshots"]:
        _print("no archive; next: ./waybill snapshot export NAME")
        return
    table = _table("file", "type", "created", "size", "last process", "base", "data")
    for each in document["snapshots"]:
        if "error" in each:
            _row(table, each["file"], "not readable", each["writtenAt"], _size(each["size"]), None, None, None)
            continue
        # As text: these numbers are names.
        base = each["baseProcessId"]
        processes = str(each["lastProcessId"]), None if base is None else str(base)
        data = "yes" if each["withData"] else "no"
        _row(table, each["file"], each["type"], each["createdAt"], _size(each["size"]), *processes, data)
    _print(table)


def show(document: dict[str, Any]) -> None:
    _print(_headline(document))
    _print(_counts({"rows": document["counts"]}))
    rows = {file["path"]: file["rows"] for file in document["files"]}
    if document["povs"]:
        table = _table("location", "category", "period", "records", "process")
        for pov in document["povs"]:
            path = f"data/output/{pov['location']}/{pov['category']}/{pov['period']}.csv"
            where = pov["location"], pov["category"], pov["period"]
            _row(table, *where, rows.get(path), str(pov["processId"]))
        _print(table)
    for each in document["removed"]:
        _print(f"  removed: {each['location']} {each['category']} {each['period']}")


def _headline(document: dict[str, Any]) -> str:
    name = document.get("file") or document["source"]
    size = f", {_size(document['size'])}" if "size" in document else ""
    base = document["baseProcessId"]
    behind = f", on top of process {base}" if base is not None else ""
    data = ", with personal data" if document["withData"] else ""
    return f"{name}: {document['type']} of {document['createdAt']}{size}{behind}{data}"


def _counts(columns: Mapping[str, Mapping[str, int]]) -> Any:
    if not any(count for counts in columns.values() for count in counts.values()):
        return "no rows"
    table = _table("", *columns)
    for column in table.columns[1:]:
        column.justify = "right"
    for kind in dict.fromkeys(kind for counts in columns.values() for kind in counts):
        values = [counts.get(kind, 0) for counts in columns.values()]
        if any(values):
            _row(table, kind, *values)
    return table


def _notes(document: dict[str, Any]) -> None:
    for text in document["notes"]:
        _print(f"note: {text}")


def _size(size: int) -> str:
    for factor, unit in _SIZES:
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"
