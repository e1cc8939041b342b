"""What runs and how fast: integration.yaml and its overlay.

`load` gives every integration or all mistakes at once. Nothing is read before it is called.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, get_args

import msgspec

from infra import accepted, yamlfile
from infra.accepted import Reader, Refused, Section
from infra.mistakes import ConfigMistakes, Mistake, nearest, shown
from infra.quantities import Rate
from infra.yamlfile import Document, KeyPath
from shared.declared.metadata import Metadata
from shared.retry import RetryPolicy

DAY: Final = 86_400.0
HOLD_BACK: Final = 60.0
"""Seconds, where neither the stream nor its rules say anything."""
UNSTATED: Final = msgspec.UNSET
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
    rate_limit: Rate | msgspec.UnsetType | None = UNSTATED
    page_size: int = 300
    retry: RetryPolicy = _SOURCE_RETRY

    @property
    def limit(self) -> Rate | None:
        """What is stated; where nothing is, there is none."""
        return None if isinstance(self.rate_limit, msgspec.UnsetType) else self.rate_limit


class SinkConfig(msgspec.Struct, frozen=True):
    """Where records go. `redeliver_after` is in seconds."""

    system: str
    rate_limit: Rate | msgspec.UnsetType | None = UNSTATED
    batch_size: int = 100
    lanes: int = 4
    retry: RetryPolicy = _SINK_RETRY
    redeliver_after: float = 10.0
    max_attempts: int = 10

    @property
    def limit(self) -> Rate | None:
        """What is stated; where nothing is, there is none."""
        return None if isinstance(self.rate_limit, msgspec.UnsetType) else self.rate_limit


class CatchUp(msgspec.Struct, frozen=True):
    """A second schedule, which reads the last `window` seconds again: what became visible late is met there."""

    schedule: str
    window: float


class StreamConfig(msgspec.Struct, frozen=True):
    """One kind of record. `overlap` and `hold_back` are in seconds; None leaves it to the rules. `options` are the keys
    of the stream's own."""

    name: str
    schedule: str | None = None
    enabled: bool = True
    since: datetime | None = None
    overlap: float = 600.0
    hold_back: float | None = None
    on_conflict: OnConflict = "newest"
    catch_up: CatchUp | None = None
    options: dict[str, Any] = {}


class MonitoringConfig(msgspec.Struct, frozen=True):
    """The table that takes the monitoring rows (`shared/monitoring.py`): in BigQuery, or embedded in SQLite, which has
    no datasets."""

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
    overlaid: dict[str, tuple[Path, int]] = {}
    """Streams of which the overlay says something: its file, and the line where it does."""


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
    over = None if overlay is None else yamlfile.read(overlay, mistakes)
    if over is not None:
        _check_overlay(over, [file.parent.name for file in files], mistakes)
    integrations = []
    for file in files:
        document = yamlfile.read(file, mistakes)
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


# --- what an integration holds --------------------------------------------------------------------------------------


def _catch_up(schedule: Reader) -> Section:
    return Section(CatchUp, {"schedule": schedule, "window": accepted.duration}, required=("schedule", "window"))


_CATCH_UP_THAT_COMES_AROUND: Final = _catch_up(accepted.cron_that_comes_around)
_STREAM_KEYS: Final[Mapping[str, Reader | Section]] = {
    "schedule": accepted.schedule,
    "enabled": accepted.boolean,
    "since": accepted.instant,
    "overlap": accepted.duration,
    "hold_back": accepted.duration,
    "on_conflict": accepted.one_of(*get_args(OnConflict)),
    "catch_up": _catch_up(accepted.cron),
}
_INTEGRATION: Final = Section(
    dict,
    {
        "name": accepted.as_is,
        "source": Section(
            SourceConfig,
            {
                "system": accepted.system,
                "rate_limit": accepted.rate,
                "page_size": accepted.integer(1),
                "retry": accepted.retry(_SOURCE_RETRY),
            },
            required=("system",),
        ),
        "sink": Section(
            SinkConfig,
            {
                "system": accepted.system,
                "rate_limit": accepted.rate,
                "batch_size": accepted.integer(1, 1000),
                "lanes": accepted.integer(1, 1024),
                "retry": accepted.retry(_SINK_RETRY),
                "redeliver_after": accepted.duration,
                "max_attempts": accepted.integer(1),
            },
            required=("system",),
        ),
        "streams": accepted.as_is,
        "monitoring": Section(
            MonitoringConfig,
            {"enabled": accepted.boolean, "dataset": accepted.table, "table": accepted.monitoring_table},
        ),
        "retention": Section(Retention, dict.fromkeys(Retention.__struct_fields__, accepted.duration)),
        "alerts": Section(Alerts, {"consecutive_failures": accepted.integer(1), "webhook": accepted.webhook}),
    },
    required=("name", "source", "sink", "streams"),
)


# --- one integration ------------------------------------------------------------------------------------------------


class _Reading:
    """Reads one integration and notes each mistake with the file it stems from."""

    def __init__(self, base: Document, overlay: Document | None, folder: str, mistakes: list[Mistake]) -> None:
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
            self.refuse(("name",), shown(name), f"the folder's name, {self.folder}", cure)
        elif not re.fullmatch(accepted.NAME, name):
            self.refuse(("name",), shown(name), accepted.NAME_FORM, "rename the folder and the integration")
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
            overlaid={name: place for name in streams if (place := self.overlaid(name)) is not None},
        )

    def overlaid(self, stream: str) -> tuple[Path, int] | None:
        path = (self.folder, "streams", stream)
        if self.overlay is None or not self.overlay.has(path):
            return None
        return self.overlay.file, self.overlay.line(path)

    def streams(self, value: Any, options_of: OptionsOf, thorough: bool) -> dict[str, StreamConfig]:
        if not isinstance(value, dict) or not value:
            self.refuse(("streams",), shown(value), "a mapping of streams", "name at least one stream")
            return {}
        for name in self.removed_in_vain(("streams",), ()):
            self.refuse_unknown(("streams", name), self.base.at(("streams",)))
        read = {}
        for name, stream in value.items():
            path = ("streams", name)
            if not isinstance(name, str) or not re.fullmatch(accepted.STREAM_NAME, name):
                cure = "rename the stream" if isinstance(name, str) else "write it in quotes, as a text"
                self.refuse(path, shown(name), accepted.NAME_FORM, cure)
                continue
            options = options_of(self.folder, name)
            folder = self.base.file.parent
            keys: dict[str, Reader | Section] = {
                key: partial(accepted.option, kind, folder=folder) for key, kind in options.items()
            }
            if thorough:
                files = partial(accepted.metadata_that_can_be_read, folder)
                keys |= {key: files for key, kind in options.items() if kind is Metadata}
            keys |= _STREAM_KEYS
            if thorough:
                keys["schedule"] = accepted.schedule_that_comes_around
                keys["catch_up"] = _CATCH_UP_THAT_COMES_AROUND
            read[name] = self.section(path, stream, Section(partial(_stream, name), keys))
        return read

    def section(self, path: KeyPath, value: Any, section: Section) -> Any:
        """What the section builds of its keys, or None if there was a mistake."""
        before = len(self.mistakes)
        if not isinstance(value, dict):
            self.refuse(path, shown(value), "a mapping", f"write its keys below it, or `{path[-1]}: {{}}`")
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
            if isinstance(reader, Section):
                read[key] = self.section((*path, key), value[key], reader)
                continue
            try:
                read[key] = reader(value[key])
            except Refused as refused:
                self.refuse((*path, key), refused.found or shown(value[key]), refused.expected, refused.cure)
            except accepted.RefusedFiles as refused:
                self.mistakes += [
                    Mistake(str(each.file), fault.path, None, fault.found, fault.expected, fault.cure)
                    for each in refused.files
                    for fault in each.faults
                ]
        return section.build(**read) if len(self.mistakes) == before else None

    def removed_in_vain(self, path: KeyPath, known: Iterable[str]) -> list[Any]:
        """Keys that the overlay removes although they neither stand in the file nor mean anything."""
        if self.overlay is None:
            return []
        here = self.base.at(path)
        removed = [key for key, value in self.overlay.at((self.folder, *path)).items() if value is None]
        return [key for key in removed if key not in here and key not in known]

    def refuse_unknown(self, path: KeyPath, known: Iterable[Any]) -> None:
        near = nearest(str(path[-1]), known)
        cure = f"write `{near}`, or remove it" if near else "remove it"
        self.refuse(path, f"`{path[-1]}`", f"one of {', '.join(map(str, known))}", cure)

    def refuse(self, path: KeyPath, found: str, expected: str, cure: str) -> None:
        document = self.base
        if self.overlay is not None and self.overlay.has((self.folder, *path)):
            document, path = self.overlay, (self.folder, *path)
        place = ".".join(map(str, path))
        self.mistakes.append(Mistake(str(document.file), place, document.line(path), found, expected, cure))


def _stream(name: str, **read: Any) -> StreamConfig:
    own = {key: value for key, value in read.items() if key in _STREAM_KEYS}
    return StreamConfig(name, **own, options={key: value for key, value in read.items() if key not in own})


def _check_overlay(overlay: Document, known: list[str], mistakes: list[Mistake]) -> None:
    """Notes what the overlay says of no integration at all."""
    for name, value in overlay.data.items():
        if name not in known:
            near = nearest(str(name), known)
            expected = f"an integration: {', '.join(known)}" if known else "an integration"
            found, cure = f"`{name}`", f"write `{near}`, or remove it" if near else "remove it"
        elif not isinstance(value, dict):
            found, expected = shown(value), "a mapping"
            cure = "remove it; to switch an integration off, set `enabled: false` on its streams"
        else:
            continue
        mistakes.append(Mistake(str(overlay.file), str(name), overlay.line((name,)), found, expected, cure))
