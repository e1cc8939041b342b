"""A scheme's metadata as users of Qeasy (轻易云) know it: what is called, how, and what its rows become.

It is read as it is. Keys that are not known here are left alone, since the platform's own exports carry many; one that
is a near miss of a known key is a mistake. What the platform would evaluate and this does not (`_function`, a `parser`)
is a mistake too: left alone, it would send something else than meant. Names and meanings: vendor documentation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from types import NoneType
from typing import Annotated, Any, Final, Literal, get_args, get_origin
from zoneinfo import ZoneInfo

import msgspec

from shared.declared.cron import judge_cron
from shared.declared.descriptors import DEEPEST, Descriptor, built_of, has_value, key_of, texts_of, value_of
from shared.declared.faults import Fault, Faults, Wrong, nearest, shown
from shared.declared.paths import parse_path
from shared.declared.reshape import conversion, flattened, formatted
from shared.declared.templates import Moments, template

LARGEST: Final = 1_000_000
"""Bytes."""


class SchemeMistakes(Faults):
    """All mistakes of one scheme, each with its place in the JSON."""


class Format(msgspec.Struct, frozen=True):
    """One conversion of a row: the field at the path `old` becomes the field `new`."""

    old: str
    format: str
    new: str = ""


class Pagination(msgspec.Struct, frozen=True, rename="camel"):
    """For ends that page by themselves."""

    page_size: Annotated[int, msgspec.Meta(ge=1)] | None = None


class OmissionRemedy(msgspec.Struct, frozen=True, rename="camel"):
    """The catch-up: when it runs, and what replaces the fields of the request then."""

    crontab: str
    take_over_request: list[Descriptor]

    @property
    def days(self) -> int:
        """How many days its DAYS_AGO_n reach back; 0 if it names none."""
        texts = (each for top in self.take_over_request for each in texts_of(top))
        return max((template(each).days for each in texts), default=0)


class Scheme(msgspec.Struct, frozen=True, rename="camel"):
    """The metadata of one end. Without `idCheck` a stored id is skipped, as with true (vendor documentation)."""

    api: Annotated[str, msgspec.Meta(min_length=1)]
    method: str = ""
    number: str = ""
    id: str = ""
    id_check: bool = True
    type: str = ""
    request: list[Descriptor] = []
    other_request: list[Descriptor] = []
    response: list[Descriptor] = []
    other_response: list[Descriptor] = []
    pagination: Pagination = Pagination()
    format_response: list[Format] = []
    beat_flat: list[str] = []
    omission_remedy: OmissionRemedy | None = None

    def parameters(self, sync: Moments, *, remedy: bool = False) -> dict[str, Any]:
        """The call's parameters: request, then otherRequest, in their order; what has no value is left out.

        A later field replaces an earlier one of the same name and parent, and those of the remedy replace both. An
        array with children is a list of one object. Raises ConfigError where a value does not become its type.
        """
        fields = {key_of(each): each for each in (*self.request, *self.other_request)}
        if remedy and self.omission_remedy is not None:
            fields |= {key_of(each): each for each in self.omission_remedy.take_over_request}
        return built_of(list(fields.values()), "", sync)

    def rows(self, row: dict[str, Any], zone: ZoneInfo, *, first: int = 1) -> list[dict[str, Any]]:
        """What `formatResponse`, then `beatFlat` make of a row of the source. Raises RecordError.

        `zone` is that of dates without an offset. `first` is the row number of an array's first element: the vendor's
        pages show both 0 and 1.
        """
        formats = [(each.old, each.new, each.format) for each in self.format_response]
        return flattened(formatted(row, formats, zone), self.beat_flat, self.id, first)


def read_scheme(data: bytes) -> Scheme:
    """The scheme in a JSON text. Raises SchemeMistakes with all that is wrong with it."""
    if len(data) > LARGEST:
        raise SchemeMistakes([Fault("", f"{len(data)} bytes", f"at most {LARGEST}", "keep only the metadata")])
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        cure = "correct the JSON" if isinstance(error, RecursionError) else f"correct the JSON: {error}"
        raise SchemeMistakes([Fault("", "no JSON that can be read", "the metadata as a JSON object", cure)]) from None
    faults: list[Fault] = []
    scheme = _read(Scheme, value, "", faults)
    if scheme is not None:
        faults += _judged(scheme)
    if faults:
        raise SchemeMistakes(faults)
    assert isinstance(scheme, Scheme)
    return scheme


# --- reading ----------------------------------------------------------------------------------------------------------

_WORDS: Final[Mapping[Any, str]] = {str: "a text", int: "a whole number", bool: "true or false", dict: "an object"}


def _read(kind: Any, value: Any, place: str, faults: list[Fault]) -> Any:
    """The value as its kind, None after a fault."""
    kinds = [each for each in get_args(kind) if each is not NoneType] if NoneType in get_args(kind) else [kind]
    if value is None and kinds != [kind]:
        return None
    inner = kinds[0]
    if get_origin(inner) is list and isinstance(value, list):
        element = get_args(inner)[0]
        return [_read(element, each, f"{place}[{number}]", faults) for number, each in enumerate(value)]
    if isinstance(inner, type) and issubclass(inner, msgspec.Struct) and isinstance(value, dict):
        return _read_struct(inner, value, place, faults)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        expected = _expected(inner)
        faults.append(Fault(place, shown(value), expected, f"write {expected}"))
        return None


def _read_struct(kind: type[msgspec.Struct], value: dict[str, Any], place: str, faults: list[Fault]) -> Any:
    before = len(faults)
    if place.count("children") > DEEPEST:
        faults.append(Fault(place, "children of children", f"at most {DEEPEST} levels", "remove a level"))
        return None
    infos = {info.encode_name: info for info in msgspec.structs.fields(kind)}
    at = f"{place}." if place else ""
    for key in value:
        near = None if key in infos else _near_miss(key, infos)
        if near is not None:
            faults.append(Fault(f"{at}{key[:60]}", shown(key), near, f"write {near}"))
    read = {}
    for key, info in infos.items():
        if key in value:
            read[info.name] = _read(info.type, value[key], at + key, faults)
        elif info.required:
            faults.append(Fault(at + key, "nothing", _expected(info.type), f"add `{key}`"))
    return kind(**read) if len(faults) == before else None


def _near_miss(key: str, known: Mapping[str, Any]) -> str | None:
    plain = re.sub(r"[^a-z]", "", key.lower())
    for name in known:
        if plain == re.sub(r"[^a-z]", "", name.lower()):
            return name
    return nearest(key, known, cutoff=0.8) if len(key) > 3 else None


def _expected(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        base, meta = get_args(kind)
        return f"a text of at least {meta.min_length} character" if base is str else f"a whole number from {meta.ge}"
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) is list:
        return "a list of texts" if get_args(kind)[0] is str else "a list of objects"
    return _WORDS.get(kind) or ("an object" if get_origin(kind) is dict or _is_struct(kind) else "true or false")


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


# --- judging ----------------------------------------------------------------------------------------------------------


def _judged(scheme: Scheme) -> Iterator[Fault]:
    """Everything that the types do not say."""
    remedy = scheme.omission_remedy
    asked = {"request": scheme.request, "otherRequest": scheme.other_request}
    if remedy is not None:
        asked["omissionRemedy.takeOverRequest"] = remedy.take_over_request
        yield from _fault("omissionRemedy.crontab", lambda: judge_cron(remedy.crontab))
        if not remedy.take_over_request:
            cure = "add what replaces the request's fields, or remove omissionRemedy"
            yield Fault("omissionRemedy.takeOverRequest", "an empty list", "at least one field", cure)
    parents = {each.field: each.parent or "" for each in _all(asked) if each.type in ("object", "array")}
    for name, descriptors in asked.items():
        yield from _judged_list(name, descriptors, parents)
    for name, descriptors in {"response": scheme.response, "otherResponse": scheme.other_response}.items():
        for number, each in enumerate(descriptors):
            if not each.field:
                yield Fault(f"{name}[{number}].field", "an empty text", "a field's name", "write the field's name")
    for name, value in {"id": scheme.id, "number": scheme.number}.items():
        if value:
            yield from _fault(name, partial(_judge_name, value))
    if scheme.beat_flat and not scheme.id:
        yield Fault("id", "nothing", "the field that tells rows apart", "add `id`: beatFlat numbers it")
    for number, array in enumerate(scheme.beat_flat):
        if not array or array in scheme.beat_flat[:number]:
            yield Fault(f"beatFlat[{number}]", shown(array), "an array's name, each once", "remove it")
    written: set[str] = set()
    for number, form in enumerate(scheme.format_response):
        place = f"formatResponse[{number}]"
        yield from _fault(f"{place}.format", partial(conversion, form.format))
        yield from _fault(f"{place}.old", partial(parse_path, form.old))
        if form.new:
            yield from _fault(f"{place}.new", partial(parse_path, form.new))
        if (form.new or form.old) in written:
            yield Fault(f"{place}.new", shown(form.new or form.old), "each field once", "write another name")
        written.add(form.new or form.old)


def _judged_list(place: str, descriptors: Sequence[Descriptor], parents: Mapping[str, str]) -> Iterator[Fault]:
    """`parents` are the fields that may hold others, each with what it is in itself."""
    seen: set[tuple[str, str]] = set()
    holders = {each.parent for each in descriptors}
    for number, each in enumerate(descriptors):
        at = f"{place}[{number}]"
        if not each.field:
            yield Fault(f"{at}.field", "an empty text", "a field's name", "write the field's name")
        if key_of(each) in seen:
            yield Fault(f"{at}.field", shown(each.field), "each field once", "remove one of them")
        seen.add(key_of(each))
        if each.parser:
            yield Fault(f"{at}.parser", "a parser", "none", "remove it, and write the value as it is to be sent")
        if each.parent and not _ends(each.parent, parents):
            expected = f"a field of type object or array: {', '.join(parents)}" if parents else "no parent"
            yield Fault(f"{at}.parent", shown(each.parent), expected, "name the field that this one is in")
        if each.children and each.type not in ("object", "array"):
            yield Fault(f"{at}.type", shown(each.type), "object or array, since it has children", "write object")
        if has_value(each) and (each.children or each.field in holders):
            yield Fault(f"{at}.value", "a value", "none, since other fields are in it", "remove the value")
        if each.children:
            yield from _judged_list(f"{at}.children", each.children, {each.field: ""})
        elif has_value(each):
            yield from _fault(f"{at}.value", partial(value_of, each, _probe()))


def _ends(name: str, parents: Mapping[str, str]) -> bool:
    """Whether the way outwards is known and ends."""
    for _ in range(len(parents) + 1):
        if not name:
            return True
        if name not in parents:
            return False
        name = parents[name]
    return False


def _fault(place: str, judge: Callable[[], Any]) -> Iterator[Fault]:
    try:
        judge()
    except Wrong as wrong:
        yield wrong.at(place)


def _judge_name(name: str) -> None:
    if "{" in name or "}" in name:
        raise Wrong(shown(name), "the name of one field", "write the field's name without braces")
    parse_path(name)


def _all(asked: Mapping[str, Sequence[Descriptor]]) -> Iterator[Descriptor]:
    return (each for descriptors in asked.values() for each in descriptors)


@cache
def _probe() -> Moments:
    """A time whose every part begins with a zero: a template that becomes its type then, does so at any time."""
    then = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)
    return Moments(then, then, ZoneInfo("UTC"))
