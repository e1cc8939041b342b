"""What runs, how fast and with which credentials: integration.yaml, its overlay, and the environment.

`load` gives every integration or all mistakes at once. Nothing is read, and no variable looked at, before it is called.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, NamedTuple, Union, get_args, get_origin
from urllib.parse import SplitResult, urlsplit

import msgspec
import yaml

from infra.quantities import DURATION_FORMS, RATE_FORMS, Rate, parse_duration, parse_rate
from shared.errors import ConfigError
from shared.retry import RetryPolicy

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:
    from yaml import SafeLoader  # type: ignore[assignment]

DAY: Final = 86_400.0
Backend = Literal["embedded", "gcp"]
OnConflict = Literal["newest", "first", "invalid"]
OptionsOf = Callable[[str, str], Mapping[str, Any]]
"""(integration, stream) -> the keys of the stream's own and the type of each, as msgspec converts it.

A `timedelta` is written as a duration (`10m`), a `datetime` needs an offset, and where None is allowed `none` means it.
"""


_SOURCE_RETRY: Final = RetryPolicy(attempts=5, wait=2.0)
_SINK_RETRY: Final = RetryPolicy(attempts=3, wait=5.0)


class SourceConfig(msgspec.Struct, frozen=True):
    """Where records come from. `system` is a plain name (`ploomes`) or a dotted module path."""

    system: str
    rate_limit: Rate | None = None
    page_size: int = 300
    retry: RetryPolicy = _SOURCE_RETRY


class SinkConfig(msgspec.Struct, frozen=True):
    """Where records go. `redeliver_after` is in seconds."""

    system: str
    rate_limit: Rate | None = None
    batch_size: int = 100
    lanes: int = 4
    retry: RetryPolicy = _SINK_RETRY
    redeliver_after: float = 10.0
    max_attempts: int = 10


class StreamConfig(msgspec.Struct, frozen=True):
    """One kind of record. `overlap` and `hold_back` are in seconds; `options` are the keys of the stream's own."""

    name: str
    schedule: str | None = None
    enabled: bool = True
    since: datetime | None = None
    overlap: float = 600.0
    hold_back: float = 60.0
    on_conflict: OnConflict = "newest"
    options: dict[str, Any] = {}


class MonitoringConfig(msgspec.Struct, frozen=True):
    """The BigQuery table that takes a row per outcome."""

    enabled: bool = False
    dataset: str = "tcrm_monitoring_dataset"
    table: str = "tcrm_monitoring_table"


class Retention(msgspec.Struct, frozen=True):
    """Ages in seconds at which clean-up may delete."""

    archive: float = 30 * DAY
    closed_failures: float = 90 * DAY
    monitoring: float = 50 * DAY


class Alerts(msgspec.Struct, frozen=True):
    """When to raise one, and the address that is told besides the log."""

    consecutive_failures: int = 3
    webhook: str | None = None


class Integration(msgspec.Struct, frozen=True):
    """One folder under `functions/`, as its file and the overlay have it. Streams keep the file's order."""

    name: str
    source: SourceConfig
    sink: SinkConfig
    streams: dict[str, StreamConfig]
    monitoring: MonitoringConfig
    retention: Retention
    alerts: Alerts
    folder: Path
    file: Path


class Mistake(msgspec.Struct, frozen=True):
    """One thing to mend. `path` is the place in the file, such as `streams.customers.overlap`; empty is the whole file.

    `line` counts from 1. Where a key is missing it is the line of the section that lacks it.
    """

    file: str
    path: str
    line: int | None
    found: str
    expected: str
    cure: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        key = f"{self.path}: " if self.path else ""
        return f"{place}: {key}found {self.found}, expected {self.expected}; {self.cure}"


class ConfigMistakes(ConfigError):
    """All mistakes of all files, in the order of files and lines."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = sorted(mistakes, key=lambda mistake: (mistake.file, mistake.line or 0))
        count = len(self.mistakes)
        lines = "".join(f"\n  {mistake}" for mistake in self.mistakes)
        super().__init__(f"{count} mistake{'s' if count > 1 else ''} in the configuration:{lines}")


def load(
    functions: Path,
    overlay: Path | None = None,
    options_of: OptionsOf = lambda integration, stream: {},
    *,
    thorough: bool = False,
) -> list[Integration]:
    """Every `functions/*/integration.yaml`, by name, with the overlay `{integration: {same keys}}` merged over them.

    `thorough` also works out when each schedule comes around; for people who check, too slow for every start. Raises
    one ConfigMistakes that carries the mistakes of all files.
    """
    mistakes: list[Mistake] = []
    if not functions.is_dir():
        cure = "name the folder that holds the integrations"
        raise ConfigMistakes([Mistake(str(functions), "", None, "no such folder", "a folder", cure)])
    files = sorted(functions.glob("*/integration.yaml"))
    over = None if overlay is None else _read(overlay, mistakes)
    if over is not None:
        _check_overlay(over, [file.parent.name for file in files], mistakes)
    integrations = []
    for file in files:
        document = _read(file, mistakes)
        if document is not None:
            reading = _Reading(document, over, file.parent.name, mistakes)
            integrations.append(reading.integration(options_of, thorough))
    if mistakes:
        raise ConfigMistakes(mistakes)
    return [integration for integration in integrations if integration is not None]


def merge_overlay(base: Mapping[Any, Any], overlay: Mapping[Any, Any]) -> dict[Any, Any]:
    """`base` with `overlay` over it: mappings merge, None removes a key, everything else replaces. Changes neither."""
    merged = dict(base)
    for key, value in overlay.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            below = merged.get(key)
            merged[key] = merge_overlay(below if isinstance(below, dict) else {}, value)
        else:
            merged[key] = value
    return merged


# --- a file and its lines -------------------------------------------------------------------------------------------

_Path = tuple[Any, ...]


class _Loader(SafeLoader):
    """Notes keys that stand twice in a mapping, and leaves a day that no calendar has to whoever wants a date."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.repeated: list[yaml.Node] = []
        # Children before parents: a mapping that contains itself is refused instead of built.
        self.deep_construct = True

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # Before `<<` is resolved: a key may stand beside the merged one that it overrides.
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    self.repeated.append(key)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)

    def construct_timestamp(self, node: yaml.ScalarNode) -> Any:
        try:
            return super().construct_yaml_timestamp(node)
        except ValueError:
            return node.value


_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_timestamp)


class _Document(NamedTuple):
    """A YAML file that is a mapping, and the nodes that know its lines."""

    file: Path
    data: dict[Any, Any]
    root: yaml.Node

    def line(self, path: _Path) -> int:
        """Of the key that `path` leads to, or of the nearest one above it."""
        node, line = self.root, self.root.start_mark.line
        for step in path:
            found = [pair for pair in node.value if pair[0].value == str(step)] if _is_mapping(node) else []
            if not found:
                break
            line = found[-1][0].start_mark.line
            node = found[-1][1]
        return int(line) + 1

    def at(self, path: _Path) -> Mapping[Any, Any]:
        """The mapping at `path`, empty if there is none."""
        here: Any = self.data
        for step in path:
            here = here.get(step) if isinstance(here, dict) else None
        return here if isinstance(here, dict) else {}

    def has(self, path: _Path) -> bool:
        return path[-1] in self.at(path[:-1])


def _is_mapping(node: yaml.Node) -> bool:
    return isinstance(node, yaml.MappingNode)


class _Unreadable(Exception):
    """A file that is no YAML mapping."""

    def __init__(self, found: str, cure: str, line: int | None = None) -> None:
        super().__init__(found)
        self.found, self.cure, self.line = found, cure, line


def _read(file: Path, mistakes: list[Mistake]) -> _Document | None:
    """None, and the mistake noted, if the file is no YAML mapping."""
    try:
        document, repeated = _parse(file)
    except _Unreadable as error:
        mistakes.append(Mistake(str(file), "", error.line, error.found, "a YAML mapping", error.cure))
        return None
    for key in repeated:
        path = ".".join(_path_to(key, document.root))
        line = key.start_mark.line + 1
        mistakes.append(Mistake(str(file), path, line, f"`{key.value}` again", "each key once", "keep one of them"))
    return document


def _parse(file: Path) -> tuple[_Document, list[yaml.Node]]:
    """The document, and the keys that stand twice in a mapping. Raises _Unreadable."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise _Unreadable(f"nothing to read ({error.strerror})", "name a file that can be read") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise _Unreadable("bytes that are not UTF-8", "save the file as UTF-8", line) from None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        data = None if root is None else loader.construct_document(root)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _Unreadable(f"no YAML ({error.reason})", "remove the character", line) from None
    except yaml.MarkedYAMLError as error:
        starred = "alias" in (error.context or "")
        cure = "put quotes around a value that starts with `*`" if starred else "correct the line"
        mark = error.problem_mark
        raise _Unreadable(f"no YAML ({error.problem})", cure, mark.line + 1 if mark else None) from None
    except ValueError as error:
        raise _Unreadable(f"no YAML ({error})", "put quotes around the value that cannot be read") from None
    if root is None or data is None:
        raise _Unreadable("nothing", "write the file, or remove it")
    if not isinstance(data, dict):
        raise _Unreadable(_shown(data), "write `key: value` lines", root.start_mark.line + 1)
    return _Document(file, data, root), loader.repeated


def _path_to(wanted: yaml.Node, node: yaml.Node) -> list[str]:
    """The keys from `node` down to the key `wanted`; empty if it is not below."""
    for key, value in node.value if _is_mapping(node) else ():
        if key is wanted:
            return [key.value]
        below = _path_to(wanted, value)
        if below:
            return [str(key.value), *below]
    return []


# --- what may stand where -------------------------------------------------------------------------------------------


class _Refused(Exception):
    """A value that cannot be used. `found` is given where the value itself is not for showing."""

    def __init__(self, expected: str, cure: str, found: str = "") -> None:
        super().__init__(expected)
        self.expected, self.cure, self.found = expected, cure, found


_Reader = Callable[[Any], Any]


class _Section(NamedTuple):
    """A mapping: what makes a value of its keys, how each key is read, and which must be there."""

    build: Callable[..., Any]
    keys: Mapping[str, _Reader | _Section]
    required: tuple[str, ...] = ()


def _shown(value: Any) -> str:
    """A value as people wrote it, shortened; containers by their kind only."""
    match value:
        case dict():
            return "a mapping" if value else "an empty mapping"
        case list():
            return "a list"
        case None:
            return "null"
        case bool():
            return f"`{str(value).lower()}`"
        case date():
            return f"`{value.isoformat()}`"
    text = " ".join(str(value).split())
    return f"`{text[:60]}…`" if len(text) > 60 else f"`{text}`" if text else "an empty text"


def _nearest(name: str, known: Iterable[Any]) -> str | None:
    import difflib  # only mistakes need it, and every start would pay for it

    return next(iter(difflib.get_close_matches(name, list(map(str, known)), n=1)), None)


def _as_is(value: Any) -> Any:
    return value


def _integer(lowest: int, highest: int | None = None) -> _Reader:
    bounds = f"of at least {lowest}" if highest is None else f"from {lowest} to {highest}"

    def read(value: Any) -> int:
        if type(value) is int and value >= lowest and (highest is None or value <= highest):
            return value
        raise _Refused(f"a whole number {bounds}", f"write a whole number {bounds}, without quotes")

    return read


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise _Refused("true or false", "write true or false, without quotes")


def _named(pattern: str, expected: str, cure: str) -> _Reader:
    form = re.compile(pattern)

    def read(value: Any) -> str:
        if isinstance(value, str) and form.fullmatch(value):
            return value
        raise _Refused(expected, cure)

    return read


def _one_of(*words: str) -> _Reader:
    def read(value: Any) -> str:
        if value in words:
            return str(value)
        near = _nearest(str(value), words)
        raise _Refused(f"one of {', '.join(words)}", f"write {near}" if near else f"write one of {', '.join(words)}")

    return read


def _duration(value: Any) -> float:
    try:
        return parse_duration(value if isinstance(value, str) else "")
    except ValueError:
        bare = str(value)
        cure = f"write {bare}s if seconds are meant" if re.fullmatch(r"\d+(\.\d+)?", bare) else "write for example 30s"
        raise _Refused(DURATION_FORMS, cure) from None


def _rate(value: Any) -> Rate | None:
    try:
        return parse_rate(value if isinstance(value, str) else "")
    except ValueError:
        per_minute = type(value) is int and value > 0
        cure = f"write {value}/min if minutes are meant" if per_minute else "write for example 60/min"
        raise _Refused(RATE_FORMS, cure) from None


def _instant(value: Any) -> datetime | None:
    if value is None:
        return None
    expected = "an instant with an offset, such as 2024-02-24T00:00:00-03:00"
    try:
        instant = datetime.fromisoformat(value.isoformat() if isinstance(value, date) else value)
    except (TypeError, ValueError):
        raise _Refused(expected, "write 2024-02-24T00:00:00-03:00, with your own date and offset") from None
    if instant.tzinfo is None:
        raise _Refused(expected, f"add an offset such as -03:00: write {instant.isoformat()}-03:00")
    return instant


_CRON_VALUE: Final = r"(\*|(\d{1,2}|[a-z]{3})(-(\d{1,2}|[a-z]{3}))?)(/\d{1,2})?"
_CRON: Final = re.compile(rf"(?i){_CRON_VALUE}(,{_CRON_VALUE})*")
_CRON_FORMS: Final = 'a cron expression of five fields (minute, hour, day, month, weekday) such as "*/10 * * * *"'


def _schedule(value: Any) -> str | None:
    if value is None:
        return None
    fields = value.split() if isinstance(value, str) else []
    if len(fields) == 5 and all(_CRON.fullmatch(field) for field in fields):
        return str(value)
    raise _Refused(_CRON_FORMS, 'write for example "*/10 * * * *", in quotes')


def _schedule_that_comes_around(value: Any) -> str | None:
    schedule = _schedule(value)
    if schedule is not None:
        from croniter import croniter  # slow to import, and only a check needs it

        try:
            croniter(schedule, datetime(2024, 1, 1)).get_next()
        except ValueError as error:
            raise _Refused("a schedule that comes around", f"correct the field: {error}") from None
    return schedule


def _webhook(value: Any) -> str | None:
    if value is None:
        return None
    fault = _address_fault(value) if isinstance(value, str) else "is no text"
    if fault:
        # Whoever knows a webhook's address can post to it: it is not shown.
        raise _Refused("an https address", "write the address as its owner shows it", f"an address that {fault}")
    return str(value)


def _option(kind: Any, value: Any) -> Any:
    """A key of a stream's own. Raises _Refused if `value` is no `kind`."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if NoneType in kinds and (value is None or value == "none"):
        return None
    if timedelta in kinds:
        return timedelta(seconds=_duration(value))
    if datetime in kinds and value is not None:
        return _instant(value)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        name = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("typing.", "")
        raise _Refused(name, f"correct the value: {error}".replace("`$", "`value")) from None


_NAME: Final = r"[a-z][a-z0-9_]*"
_NAME_FORM: Final = "lower-case letters, digits and underscores"
_system: Final = _named(
    r"[a-z][a-z0-9_]*|[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+",
    "a system's name such as ploomes, or a dotted module path",
    "write the name of a system",
)
_table: Final = _named(
    r"[A-Za-z_][A-Za-z0-9_]{0,1023}", "letters, digits and underscores", "write for example tcrm_monitoring_table"
)


def _retry(default: RetryPolicy) -> _Section:
    return _Section(partial(msgspec.structs.replace, default), {"attempts": _integer(1), "wait": _duration})


_STREAM_KEYS: Final[Mapping[str, _Reader]] = {
    "schedule": _schedule,
    "enabled": _boolean,
    "since": _instant,
    "overlap": _duration,
    "hold_back": _duration,
    "on_conflict": _one_of(*get_args(OnConflict)),
}
_INTEGRATION: Final = _Section(
    dict,
    {
        "name": _as_is,
        "source": _Section(
            SourceConfig,
            {
                "system": _system,
                "rate_limit": _rate,
                "page_size": _integer(1),
                "retry": _retry(_SOURCE_RETRY),
            },
            required=("system",),
        ),
        "sink": _Section(
            SinkConfig,
            {
                "system": _system,
                "rate_limit": _rate,
                "batch_size": _integer(1, 1000),
                "lanes": _integer(1, 1024),
                "retry": _retry(_SINK_RETRY),
                "redeliver_after": _duration,
                "max_attempts": _integer(1),
            },
            required=("system",),
        ),
        "streams": _as_is,
        "monitoring": _Section(MonitoringConfig, {"enabled": _boolean, "dataset": _table, "table": _table}),
        "retention": _Section(Retention, dict.fromkeys(Retention.__struct_fields__, _duration)),
        "alerts": _Section(Alerts, {"consecutive_failures": _integer(1), "webhook": _webhook}),
    },
    required=("name", "source", "sink", "streams"),
)


# --- one integration ------------------------------------------------------------------------------------------------


class _Reading:
    """Reads one integration and notes each mistake with the file it stems from."""

    def __init__(self, base: _Document, overlay: _Document | None, folder: str, mistakes: list[Mistake]) -> None:
        self.base = base
        self.overlay = overlay if overlay is not None and overlay.at((folder,)) else None
        self.folder = folder
        self.mistakes = mistakes

    def integration(self, options_of: OptionsOf, thorough: bool) -> Integration | None:
        """None if there was a mistake."""
        before = len(self.mistakes)
        data = self.base.data
        if self.overlay is not None:
            data = merge_overlay(data, self.overlay.at((self.folder,)))
        top = self.section((), data, _INTEGRATION)
        streams = self.streams(data["streams"], options_of, thorough) if "streams" in data else {}
        name = data.get("name", self.folder)
        if name != self.folder:
            cure = f"write `name: {self.folder}`, or rename the folder"
            self.refuse(("name",), _shown(name), f"the folder's name, {self.folder}", cure)
        elif not re.fullmatch(_NAME, name):
            self.refuse(("name",), _shown(name), _NAME_FORM, "rename the folder and the integration")
        if len(self.mistakes) > before:
            return None
        return Integration(
            name=self.folder,
            source=top["source"],
            sink=top["sink"],
            streams=streams,
            monitoring=top.get("monitoring", MonitoringConfig()),
            retention=top.get("retention", Retention()),
            alerts=top.get("alerts", Alerts()),
            folder=self.base.file.parent,
            file=self.base.file,
        )

    def streams(self, value: Any, options_of: OptionsOf, thorough: bool) -> dict[str, StreamConfig]:
        if not isinstance(value, dict) or not value:
            self.refuse(("streams",), _shown(value), "a mapping of streams", "name at least one stream")
            return {}
        for name in self.removed_in_vain(("streams",), ()):
            self.refuse_unknown(("streams", name), self.base.at(("streams",)))
        read = {}
        for name, stream in value.items():
            path = ("streams", name)
            if not isinstance(name, str) or not re.fullmatch(_NAME, name):
                self.refuse(path, _shown(name), _NAME_FORM, "rename the stream")
                continue
            options = options_of(self.folder, name)
            keys: dict[str, _Reader | _Section] = {key: partial(_option, kind) for key, kind in options.items()}
            keys |= _STREAM_KEYS
            if thorough:
                keys["schedule"] = _schedule_that_comes_around
            read[name] = self.section(path, stream, _Section(partial(_stream, name), keys))
        return read

    def section(self, path: _Path, value: Any, section: _Section) -> Any:
        """What the section builds of its keys, or None if there was a mistake."""
        before = len(self.mistakes)
        if not isinstance(value, dict):
            self.refuse(path, _shown(value), "a mapping", f"write its keys below it, or `{path[-1]}: {{}}`")
            return None
        for key in [key for key in value if key not in section.keys] + self.removed_in_vain(path, section.keys):
            self.refuse_unknown((*path, key), section.keys)
        for key in section.required:
            if key not in value:
                self.refuse((*path, key), "nothing", "a value", f"add `{key}`")
        read = {}
        for key, reader in section.keys.items():
            if key not in value:
                continue
            if isinstance(reader, _Section):
                read[key] = self.section((*path, key), value[key], reader)
                continue
            try:
                read[key] = reader(value[key])
            except _Refused as refused:
                self.refuse((*path, key), refused.found or _shown(value[key]), refused.expected, refused.cure)
        return section.build(**read) if len(self.mistakes) == before else None

    def removed_in_vain(self, path: _Path, known: Iterable[str]) -> list[Any]:
        """Keys that the overlay removes although they neither stand in the file nor mean anything."""
        if self.overlay is None:
            return []
        here = self.base.at(path)
        removed = [key for key, value in self.overlay.at((self.folder, *path)).items() if value is None]
        return [key for key in removed if key not in here and key not in known]

    def refuse_unknown(self, path: _Path, known: Iterable[Any]) -> None:
        near = _nearest(str(path[-1]), known)
        cure = f"write `{near}`, or remove it" if near else "remove it"
        self.refuse(path, f"`{path[-1]}`", f"one of {', '.join(map(str, known))}", cure)

    def refuse(self, path: _Path, found: str, expected: str, cure: str) -> None:
        document = self.base
        if self.overlay is not None and self.overlay.has((self.folder, *path)):
            document, path = self.overlay, (self.folder, *path)
        place = ".".join(map(str, path))
        self.mistakes.append(Mistake(str(document.file), place, document.line(path), found, expected, cure))


def _stream(name: str, **read: Any) -> StreamConfig:
    own = {key: value for key, value in read.items() if key in _STREAM_KEYS}
    return StreamConfig(name, **own, options={key: value for key, value in read.items() if key not in own})


def _check_overlay(overlay: _Document, known: list[str], mistakes: list[Mistake]) -> None:
    """Notes what the overlay says of no integration at all."""
    for name, value in overlay.data.items():
        if name not in known:
            near = _nearest(str(name), known)
            expected = f"an integration: {', '.join(known)}" if known else "an integration"
            found, cure = f"`{name}`", f"write `{near}`, or remove it" if near else "remove it"
        elif not isinstance(value, dict):
            found, expected = _shown(value), "a mapping"
            cure = "remove it; to switch an integration off, set `enabled: false` on its streams"
        else:
            continue
        mistakes.append(Mistake(str(overlay.file), str(name), overlay.line((name,)), found, expected, cure))


# --- the environment ------------------------------------------------------------------------------------------------


class SystemVariables(msgspec.Struct, frozen=True):
    """The variables of one system. Without a `default_url` (each customer has an own host) the URL must be set."""

    url_variable: str
    default_url: str | None
    secrets: tuple[str, ...] = ()


SYSTEM_VARIABLES: Final[Mapping[str, SystemVariables]] = {
    "ploomes": SystemVariables("PLOOMES_URL", "https://api2.ploomes.com", ("PLOOMES_USER_KEY",)),
    "milvus": SystemVariables("MILVUS_URL", "https://apiintegracao.milvus.com.br/api", ("MILVUS_TOKEN",)),
    # In spite of its name the vendor's only published host, and its production.
    "okki": SystemVariables("OKKI_URL", "https://api-sandbox.xiaoman.cn", ("OKKI_CLIENT_ID", "OKKI_CLIENT_SECRET")),
    "qeasy": SystemVariables("QEASY_URL", "https://api.qeasy.cloud", ("QEASY_APP_KEY", "QEASY_APP_SECRET")),
    "prisma": SystemVariables("PRISMA_URL", None, ("PRISMA_TOKEN",)),
    "ga4": SystemVariables("GA4_URL", "https://www.google-analytics.com", ("GA4_MEASUREMENT_ID", "GA4_API_SECRET")),
    "data_manager": SystemVariables("DATA_MANAGER_URL", "https://datamanager.googleapis.com"),
    "google_ads": SystemVariables(
        "GOOGLE_ADS_URL",
        "https://googleads.googleapis.com",
        ("GOOGLE_ADS_DEVELOPER_TOKEN", "GOOGLE_ADS_CUSTOMER_ID"),
    ),
    "cm360": SystemVariables("CM360_URL", "https://dfareporting.googleapis.com", ("CM360_PROFILE_ID",)),
}


class SystemSettings(msgspec.Struct, frozen=True):
    """Where a system is, without a slash at the end, and its secrets by the name of their variable."""

    url: str
    secrets: dict[str, str]

    # Both kinds of repr end up in logs and tracebacks, so they name the secrets only.
    def __repr__(self) -> str:
        return f"SystemSettings(url={self.url!r}, secrets={list(self.secrets)!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("url", self.url), ("secrets", list(self.secrets))]


def system_settings(system: str, environ: Mapping[str, str]) -> SystemSettings:
    """URL and secrets of a system. Raises ConfigError that names everything missing, and a wrong URL, at once.

    An empty variable counts as missing; blanks around a value are not part of it (mounted secrets often end in a
    newline).
    """
    if system not in SYSTEM_VARIABLES:
        near = _nearest(system, SYSTEM_VARIABLES)
        raise ConfigError(
            f"{system} is no system with settings: {', '.join(SYSTEM_VARIABLES)}",
            cure=f"write {near}" if near else "write one of them",
        )
    variables = SYSTEM_VARIABLES[system]
    missing = list(_missing(variables, environ))
    url = _value(variables.url_variable, environ) or variables.default_url or ""
    fault = _url_fault(url, variables.default_url) if url else ""
    if missing or fault:
        messages = [f"missing: {', '.join(missing)}"] if missing else []
        cures = [f"export {name}=..." for name in missing]
        if fault:
            messages.append(f"{variables.url_variable} {fault}")
            cures.append(f"export {variables.url_variable}={variables.default_url or 'https://<host>'}")
        raise ConfigError(f"{system}: {'; '.join(messages)}", cure="; ".join(cures))
    return SystemSettings(url.rstrip("/"), {name: _value(name, environ) for name in variables.secrets})


def missing_secrets(integrations: Iterable[Integration], environ: Mapping[str, str]) -> list[str]:
    """The variables that must be set and are not, over all integrations, each once. Systems without any need none."""
    systems = [system for each in integrations for system in (each.source.system, each.sink.system)]
    known = [SYSTEM_VARIABLES[system] for system in systems if system in SYSTEM_VARIABLES]
    return list(dict.fromkeys(name for variables in known for name in _missing(variables, environ)))


def state_home(environ: Mapping[str, str], root: Path) -> Path:
    """Where the embedded home keeps its state: `WAYBILL_HOME`, else `.waybill` in `root`."""
    home = _value("WAYBILL_HOME", environ)
    return Path(home).expanduser() if home else root / ".waybill"


def backend(environ: Mapping[str, str]) -> Backend:
    """`WAYBILL_BACKEND`. Raises ConfigError for a word that is neither."""
    match _value("WAYBILL_BACKEND", environ):
        case "" | "embedded":
            return "embedded"
        case "gcp":
            return "gcp"
        case other:
            raise ConfigError(
                f"WAYBILL_BACKEND: found {_shown(other)}, expected embedded or gcp",
                cure="export WAYBILL_BACKEND=embedded",
            )


def _value(name: str, environ: Mapping[str, str]) -> str:
    return environ.get(name, "").strip()


def _missing(variables: SystemVariables, environ: Mapping[str, str]) -> Iterator[str]:
    needed = variables.secrets if variables.default_url else (variables.url_variable, *variables.secrets)
    return (name for name in needed if not _value(name, environ))


def _url_fault(url: str, default_url: str | None) -> str:
    """What is wrong with a system's URL, without repeating it, or nothing."""
    fault = _address_fault(url)
    if fault:
        return fault
    if "?" in url:
        return "has a query"
    path, ending = urlsplit(url).path.rstrip("/"), urlsplit(default_url or "").path
    if ending:
        return "" if path.endswith(ending) else f"does not end in {ending}"
    return "has a path, and holds scheme and host only" if path else ""


def _address_fault(url: str) -> str:
    """What makes an address unfit to be called, or nothing. A query and a path are the caller's business."""
    if re.search(r"[^!-~]|\\", url):
        return "holds a character that no URL has"
    try:
        parts = urlsplit(url)
        port_is_zero = parts.port == 0
    except ValueError:
        return "is no URL"
    if parts.scheme not in ("http", "https"):
        return "starts with neither https:// nor http://"
    if not parts.hostname or port_is_zero:
        return "names no host"
    if "@" in parts.netloc:
        return "carries credentials"
    if "#" in url:
        return "has a fragment"
    return "is http to a host that is not this machine" if parts.scheme == "http" and not _is_loopback(parts) else ""


def _is_loopback(parts: SplitResult) -> bool:
    import ipaddress  # only http needs it, and https is the rule

    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return parts.hostname == "localhost"
