"""Mapping, conversion and look-up as integration.yaml declares them, made into the function of `Rules.to_target`.

    fields:
      id: user_id                                    # a path, as it is
      department: {from: departments.0.department_name, default: ""}
      active: {from: enable_flag, as: integer}
      created_at: {from: create_time, as: timestamp, zone: Asia/Shanghai}
      gender: {from: gender, look_up: {table: {"1": m, "2": f}, default: ""}}
      origin: {constant: okki}

What is absent or null becomes the default; without one the field is left out, so that nothing overwrites what the
target has. 0 and false are values, and so is an empty text, but for a conversion to anything else than text, list or
JSON: there it counts as absent, since sources write it where they have no number and no date.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from datetime import tzinfo
from functools import partial
from itertools import pairwise
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from shared.declared import convert
from shared.declared.faults import Fault, Faults, Wrong, shown, unknown
from shared.declared.paths import MISSING, Path, look, parse_path, path_at, put
from shared.errors import RecordError


class LookUp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A literal table: a value, compared as text, and what it becomes. Without `default` an unknown one is refused."""

    table: dict[str | int | float | bool, Any]
    default: Any = msgspec.UNSET


class FieldRule(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from", "as_": "as"}.get, kw_only=True
):
    """How one field of the target comes about: from a path, looked up, then converted; or a constant."""

    from_: str | None = None
    as_: str | None = None
    zone: str | None = None
    default: Any = msgspec.UNSET
    look_up: LookUp | None = None
    constant: Any = msgspec.UNSET


def compile_fields(
    fields: Mapping[str, str | FieldRule], *, of_row: bool = False, as_row: bool = False
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What the target is sent of a record. A dotted name on the left makes an object.

    Columns are called what people like, with dots and blanks. `of_row`: the record is the row of a table, and the names
    on the right are its columns, never paths. `as_row`: a row is made, whose columns are the names on the left; on the
    right a name that the record has goes before the path that it could be.

    The function raises RecordError, which names the field and never quotes a value. Raises Faults.
    """
    faults: list[Fault] = []
    made = (_step(name, rule, faults, of_row=of_row, as_row=as_row) for name, rule in fields.items())
    steps = [_Step(*step) for step in made if step is not None]
    places = sorted(step.place for step in steps)
    for outer, inner in pairwise(places):
        if inner[: len(outer)] == outer:
            cure = "name only the fields in it, or only itself"
            faults.append(Fault(f"fields.{'.'.join(outer)}", "a field and one in it", "one of them", cure))
    if not fields:
        faults.append(Fault("fields", "nothing", "at least one field", "name the fields of the target"))
    if faults:
        raise Faults(faults)

    def to_target(record: dict[str, Any]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for place, value_of in steps:
            value = value_of(record)
            if value is not MISSING:
                content = put(content, place, value)
        return content

    return to_target


class _Step(NamedTuple):
    place: Path
    value_of: Callable[[dict[str, Any]], Any]


_PLAIN: Final[Mapping[str, Callable[[Any], Any]]] = {
    "text": convert.text,
    "integer": convert.integer,
    "number": convert.number,
    "boolean": convert.boolean,
    "list": convert.as_list,
    "json": convert.as_json,
}
_DATED: Final[Mapping[str, Callable[[Any, tzinfo | None], Any]]] = {
    "timestamp": convert.timestamp,
    "timestamp_ms": convert.timestamp_ms,
    "date": convert.date,
    "datetime": convert.date_time,
}
_EMPTY_IS_A_VALUE: Final = frozenset({"text", "list", "json"})


Look = Callable[[dict[str, Any]], Any]
"""Finds a value in a record, MISSING where there is none."""


def _step(
    name: str, rule: str | FieldRule, faults: list[Fault], *, of_row: bool, as_row: bool
) -> tuple[Path, Look] | None:
    before = len(faults)
    at = f"fields.{name}"
    place = _column(name, at, faults) if as_row else path_at(name, at, faults)
    rule = FieldRule(from_=rule) if isinstance(rule, str) else rule
    if rule.constant is not msgspec.UNSET:
        beside = [each for each in _given(rule) if each != "constant"]
        if beside:
            cure = f"remove constant, or {' and '.join(beside)}"
            faults.append(Fault(at, f"constant and {', '.join(beside)}", "either from or constant", cure))
        return None if len(faults) > before else (place, lambda record: copy.deepcopy(rule.constant))
    if rule.from_ is None:
        faults.append(Fault(at, "neither from nor constant", "one of them", f"write {name}: PATH"))
        return None
    if of_row:
        look_at: Look = partial(_cell, column=_column(rule.from_, f"{at}.from", faults)[0])
    elif as_row:
        look_at = _by_name_or_path(rule.from_, f"{at}.from", faults)
    else:
        look_at = partial(look, path=path_at(rule.from_, f"{at}.from", faults))
    zone = _zone(rule.zone, f"{at}.zone", faults)
    if rule.as_ is not None and rule.as_ not in (*_PLAIN, *_DATED):
        faults.append(unknown("conversion", rule.as_, (*_PLAIN, *_DATED)).at(f"{at}.as"))
    elif rule.zone is not None and rule.as_ not in _DATED:
        cure = "remove zone, or add as"
        faults.append(Fault(f"{at}.zone", "a zone", f"one only with as: {', '.join(_DATED)}", cure))
    table = _table(rule.look_up, f"{at}.look_up.table", faults)
    return None if len(faults) > before else (place, partial(_value, rule, look_at, table, _conversion(rule.as_, zone)))


def _column(name: str, at: str, faults: list[Fault]) -> Path:
    if not name.strip():
        faults.append(Fault(at, shown(name), "the name of a column", "write the name of a column"))
    return (name,)


def _cell(record: dict[str, Any], column: str) -> Any:
    return record.get(column, MISSING)


def _by_name_or_path(name: str, at: str, faults: list[Fault]) -> Look:
    """A name that cannot be a path is one all the same."""
    _column(name, at, faults)
    try:
        path = parse_path(name)
    except Wrong:
        path = (name,)
    return lambda record: record[name] if name in record else look(record, path)


def _given(rule: FieldRule) -> list[str]:
    return [
        info.encode_name
        for info in msgspec.structs.fields(rule)
        if getattr(rule, info.name) not in (None, msgspec.UNSET) or (info.name == "constant" and rule.constant is None)
    ]


def _zone(name: str | None, at: str, faults: list[Fault]) -> ZoneInfo | None:
    if name is not None:
        try:
            return ZoneInfo(name)
        except (ValueError, OSError, ZoneInfoNotFoundError):
            expected = "a time zone of the IANA database"
            faults.append(Fault(at, shown(name), expected, "write for example Asia/Shanghai"))
    return None


def _table(look_up: LookUp | None, at: str, faults: list[Fault]) -> dict[str, Any]:
    """The table by text. Two keys that are the same text would make the later one vanish."""
    table: dict[str, Any] = {}
    for key, value in (look_up.table if look_up else {}).items():
        written = convert.compared(key)
        if written in table:
            faults.append(Fault(at, f"{shown(written)} twice", "each value once", "remove one of them"))
        table[written] = value
    return table


def _conversion(name: str | None, zone: tzinfo | None) -> Callable[[Any], Any] | None:
    dated = _DATED.get(name or "")
    return _PLAIN.get(name or "") if dated is None else lambda value: dated(value, zone)


def _value(
    rule: FieldRule,
    look_at: Look,
    table: Mapping[str, Any],
    convert_it: Callable[[Any], Any] | None,
    record: dict[str, Any],
) -> Any:
    value = look_at(record)
    if (
        value is MISSING
        or value is None
        or (value == "" and rule.as_ is not None and rule.as_ not in _EMPTY_IS_A_VALUE)
    ):
        return MISSING if rule.default is msgspec.UNSET else copy.deepcopy(rule.default)
    try:
        if rule.look_up is not None:
            value = copy.deepcopy(table.get(convert.compared(value), rule.look_up.default))
            if value is msgspec.UNSET:
                raise ValueError("not in the table")
            if value is None:
                return None
        return value if convert_it is None else convert_it(value)
    except ValueError as error:
        raise RecordError(f"{rule.from_} is {error}", field=rule.from_ or "") from None
