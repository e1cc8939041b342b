"""What may stand where in an integration.yaml: a reader per kind of value, and the section, a mapping of them.

A reader is pure: it gives the value ready for use, or raises Refused with what was expected and the cure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, NamedTuple, Union, get_args, get_origin
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from infra.environment import address_fault
from infra.local.schema import is_taken
from infra.mistakes import nearest, shown
from infra.quantities import DURATION_FORMS, RATE_FORMS, Rate, parse_duration, parse_rate
from shared.declared.faults import Fault
from shared.declared.metadata import Metadata
from shared.retry import RetryPolicy


class Refused(Exception):
    """A value that cannot be used. `found` is given where the value itself is not for showing."""

    def __init__(self, expected: str, cure: str, found: str = "") -> None:
        super().__init__(expected)
        self.expected, self.cure, self.found = expected, cure, found


class RefusedFile(Exception):
    """A file that a value names, with everything that is wrong in it."""

    def __init__(self, file: Path, faults: Sequence[Fault]) -> None:
        super().__init__(f"{file}: {faults[0].path}: found {faults[0].found}, expected {faults[0].expected}")
        self.file, self.faults = file, faults


class RefusedFiles(Exception):
    """Several of them."""

    def __init__(self, files: Sequence[RefusedFile]) -> None:
        super().__init__(", ".join(map(str, files)))
        self.files = files


Reader = Callable[[Any], Any]


class Section(NamedTuple):
    """A mapping: what makes a value of its keys, how each key is read, and which must be there."""

    build: Callable[..., Any]
    keys: Mapping[str, Reader | Section]
    required: tuple[str, ...] = ()


def as_is(value: Any) -> Any:
    return value


def integer(lowest: int, highest: int | None = None) -> Reader:
    bounds = f"of at least {lowest}" if highest is None else f"from {lowest} to {highest}"

    def read(value: Any) -> int:
        if type(value) is int and value >= lowest and (highest is None or value <= highest):
            return value
        raise Refused(f"a whole number {bounds}", f"write a whole number {bounds}, without quotes")

    return read


def boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise Refused("true or false", "write true or false, without quotes")


def _named(pattern: str, expected: str, cure: str) -> Reader:
    form = re.compile(pattern)

    def read(value: Any) -> str:
        if isinstance(value, str) and form.fullmatch(value):
            return value
        raise Refused(expected, cure)

    return read


def one_of(*words: str) -> Reader:
    def read(value: Any) -> str:
        if value in words:
            return str(value)
        near = nearest(str(value), words)
        raise Refused(f"one of {', '.join(words)}", f"write {near}" if near else f"write one of {', '.join(words)}")

    return read


def duration(value: Any) -> float:
    try:
        return parse_duration(value if isinstance(value, str) else "")
    except ValueError:
        bare = str(value)
        cure = f"write {bare}s if seconds are meant" if re.fullmatch(r"\d+(\.\d+)?", bare) else "write for example 30s"
        raise Refused(DURATION_FORMS, cure) from None


def rate(value: Any) -> Rate | None:
    try:
        return parse_rate(value if isinstance(value, str) else "")
    except ValueError:
        per_minute = type(value) is int and value > 0
        cure = f"write {value}/min if minutes are meant" if per_minute else "write for example 60/min"
        raise Refused(RATE_FORMS, cure) from None


def instant(value: Any) -> datetime | None:
    if value is None:
        return None
    expected = "an instant with an offset, such as 2024-02-24T00:00:00-03:00"
    try:
        when = datetime.fromisoformat(value.isoformat() if isinstance(value, date) else value)
    except (TypeError, ValueError):
        raise Refused(expected, "write 2024-02-24T00:00:00-03:00, with your own date and offset") from None
    if when.tzinfo is None:
        raise Refused(expected, f"add an offset such as -03:00: write {when.isoformat()}-03:00")
    return when


_CRON_VALUE: Final = r"(\*|(\d{1,2}|[a-z]{3})(-(\d{1,2}|[a-z]{3}))?)(/\d{1,2})?"
_CRON: Final = re.compile(rf"(?i){_CRON_VALUE}(,{_CRON_VALUE})*")
_CRON_FORMS: Final = 'a cron expression of five fields (minute, hour, day, month, weekday) such as "*/10 * * * *"'


def schedule(value: Any) -> str | None:
    return None if value is None else cron(value)


def cron(value: Any) -> str:
    fields = value.split() if isinstance(value, str) else []
    if len(fields) == 5 and all(_CRON.fullmatch(field) for field in fields):
        return str(value)
    raise Refused(_CRON_FORMS, 'write for example "*/10 * * * *", in quotes')


def schedule_that_comes_around(value: Any) -> str | None:
    return None if value is None else cron_that_comes_around(value)


def cron_that_comes_around(value: Any) -> str:
    from croniter import croniter  # slow to import, and only a check needs it

    found = cron(value)
    try:
        croniter(found, datetime(2024, 1, 1)).get_next()
    except ValueError as error:
        raise Refused("a schedule that comes around", f"correct the field: {error}") from None
    return found


def webhook(value: Any) -> str | None:
    if value is None:
        return None
    fault = address_fault(value) if isinstance(value, str) else "is no text"
    if fault:
        # Whoever knows a webhook's address can post to it: it is not shown.
        raise Refused("an https address", "write the address as its owner shows it", f"an address that {fault}")
    return str(value)


def zone(value: Any) -> ZoneInfo:
    try:
        return ZoneInfo(value)
    except (TypeError, ValueError, OSError, ZoneInfoNotFoundError):
        raise Refused("a time zone of the IANA database", "write for example America/Sao_Paulo") from None


class MetadataFiles(msgspec.Struct, frozen=True):
    """The files of the schemes of the two ends, which are read when they are needed."""

    source: Path | None = None
    target: Path | None = None

    def read(self) -> Metadata:
        """Raises RefusedFile."""
        from shared.declared.scheme import LARGEST, SchemeMistakes, read_scheme  # its templates are slow to load

        schemes = {}
        for end, file in (("source", self.source), ("target", self.target)):
            if file is None:
                continue
            try:
                with file.open("rb") as opened:
                    schemes[end] = read_scheme(opened.read(LARGEST + 1))
            except OSError as error:
                found = error.strerror or "nothing that can be read"
                raise RefusedFile(file, [Fault("", found, "a scheme's metadata as JSON", "correct the name")]) from None
            except SchemeMistakes as error:
                raise RefusedFile(file, error.mistakes) from None
        return Metadata(**schemes)


def metadata(folder: Path, value: Any) -> MetadataFiles:
    """The files that are named, relative to the integration's folder."""
    ends = MetadataFiles.__struct_fields__
    if not isinstance(value, dict) or not value or not value.keys() <= set(ends):
        raise Refused(f"a mapping of {' and '.join(ends)} to files", "write for example {source: source.json}")
    for end, name in value.items():
        if not isinstance(name, str) or not name or not name.isprintable():
            raise Refused(f"the name of a file for {end}", f"write for example {end}: {end}.json", shown(name))
    try:
        return MetadataFiles(**{end: folder / Path(name).expanduser() for end, name in value.items()})
    except RuntimeError:
        raise Refused("a home directory that there is", "write the whole path") from None


def metadata_that_can_be_read(folder: Path, value: Any) -> MetadataFiles:
    """Raises RefusedFile too."""
    files = metadata(folder, value)
    refused = []
    for end in files.__struct_fields__:
        try:
            MetadataFiles(**{end: getattr(files, end)}).read()
        except RefusedFile as error:
            refused.append(error)
    if refused:
        raise RefusedFiles(refused)
    return files


def option(kind: Any, value: Any, folder: Path = Path()) -> Any:
    """A key of a stream's own; files are relative to the folder. Raises Refused if `value` is no `kind`."""
    if kind is Metadata:
        return metadata(folder, value)
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if NoneType in kinds and (value is None or value == "none"):
        return None
    if timedelta in kinds:
        return timedelta(seconds=duration(value))
    if datetime in kinds and value is not None:
        return instant(value)
    if ZoneInfo in kinds:
        return zone(value)
    try:
        return msgspec.convert(value, kind, str_keys=True)
    except msgspec.ValidationError as error:
        raise Refused(_in_words(kind), f"correct the value: {error}".replace("`$", "`value")) from None


_WORDS: Final[Mapping[Any, str]] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
}


_PLURALS: Final[Mapping[Any, str]] = {str: "texts", int: "whole numbers", float: "numbers"}


def _in_words(kind: Any) -> str:
    """What a kind is called by people."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in (Union, UnionType):
        return " or ".join("none" if each is NoneType else _in_words(each) for each in inner)
    if origin is dict:
        return f"a mapping of {_PLURALS.get(inner[0], 'names')} to {_PLURALS.get(inner[1], 'values')}"
    if origin is list:
        return f"a list of {_PLURALS.get(inner[0]) or f'{inner[0].__name__.lower()}s'}"
    if hasattr(kind, "__metadata__"):
        return _in_words(inner[0])
    return _WORDS.get(kind) or f"a {str(getattr(kind, '__name__', kind)).lower()}"


NAME: Final = r"[a-z][a-z0-9_]*"
NAME_FORM: Final = "lower-case letters, digits and underscores"
STREAM_NAME: Final = r"[a-z0-9][a-z0-9_]*"
"""A data sync may have the number by which existing clients know it."""
system: Final = _named(
    r"[a-z][a-z0-9_]*|[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+",
    "a system's name such as ploomes, or a dotted module path",
    "write the name of a system",
)
table: Final = _named(
    r"[A-Za-z_][A-Za-z0-9_]{0,1023}", "letters, digits and underscores", "write for example tcrm_monitoring_table"
)


def monitoring_table(value: Any) -> str:
    """A table of the embedded home's own database: it must not be one that is there already."""
    name = table(value)
    if is_taken(name):
        raise Refused("a name that none of the hub's own tables has", "write for example tcrm_monitoring_table")
    return str(name)


def retry(default: RetryPolicy) -> Section:
    return Section(partial(msgspec.structs.replace, default), {"attempts": integer(1), "wait": duration})
