"""Which periods are named: by `functions/snapshots/periods.yaml`, or the file that `WAYBILL_PERIODS` names.

periods:
  - {name: 2026-Q1, from: 2026-01-01T00:00:00Z, until: 2026-04-01T00:00:00Z}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from infra import accepted, yamlfile
from infra.accepted import Refused
from infra.environment import path_of
from infra.mistakes import ConfigMistakes, Mistake, shown
from infra.wiring import Hub
from shared.snapshot.periods import Periods, Span, faults

VARIABLE: Final = "WAYBILL_PERIODS"
_KEYS: Final = ("name", "from", "until")


def periods_of(hub: Hub) -> Periods:
    """UTC months where there is no file. Raises ConfigError with all mistakes of it."""
    named = hub.environ.get(VARIABLE, "").strip()
    file = path_of(named) if named else hub.functions / "snapshots" / "periods.yaml"
    if not named and not file.is_file():
        return Periods()
    mistakes: list[Mistake] = []
    document = yamlfile.read(file, mistakes)
    spans = () if document is None else tuple(_spans(document, mistakes))
    mistakes += [_mistake(file, "periods", None, fault, "other spans", "correct it") for fault in faults(spans)]
    if mistakes:
        raise ConfigMistakes(mistakes)
    return Periods(spans)


def _spans(document: yamlfile.Document, mistakes: list[Mistake]) -> list[Span]:
    found = []
    for key in document.data:
        if key != "periods":
            line = document.line((key,))
            mistakes.append(_mistake(document.file, str(key), line, f"`{key}`", "`periods`", "remove it"))
    listed = document.data.get("periods") or []
    if not isinstance(listed, list):
        line = document.line(("periods",))
        mistakes.append(_mistake(document.file, "periods", line, shown(listed), "a list", "write one span per line"))
        return []
    for place, each in enumerate(listed):
        try:
            found.append(_span(each))
        except Refused as refused:
            where = f"periods[{place}]"
            line = document.line(("periods",))
            mistakes.append(
                _mistake(document.file, where, line, refused.found or shown(each), refused.expected, refused.cure)
            )
    return found


def _span(value: Any) -> Span:
    if not isinstance(value, dict) or sorted(map(str, value)) != sorted(_KEYS):
        raise Refused("name, from and until", "write {name: ..., from: ..., until: ...}")
    since, until = accepted.instant(value["from"]), accepted.instant(value["until"])
    if since is None or until is None or not isinstance(value["name"], str):
        raise Refused("a name and two instants", "write for example 2026-01-01T00:00:00Z")
    return Span(value["name"], since, until)


def _mistake(file: Path, path: str, line: int | None, found: str, expected: str, cure: str) -> Mistake:
    return Mistake(str(file), path, line, found, expected, cure)
