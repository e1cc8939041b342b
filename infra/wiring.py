"""The one place that puts a process together: configuration, home, rules and systems, each made at its first need."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from infra import config, environment
from infra.accepted import MetadataFiles, RefusedFile
from infra.clock import SystemClock
from infra.quantities import Rate
from infra.systems import Connection
from shared.deliver import Health
from shared.ends import Sink, Source
from shared.errors import ConfigError
from shared.ledger import NEWEST_WINS
from shared.ports import Blobs, Home
from shared.rules import Rules
from shared.stream import Stream

if TYPE_CHECKING:
    from infra.gcp.home import GoogleHome
    from infra.local.home import EmbeddedHome

ROOT = Path(__file__).resolve().parent.parent
ANY: Final = "*"
"""In a `mapping.py`, stands for every stream that has no entry of its own."""
_loading = threading.RLock()
"""Two requests may be the first ones of an instance: neither may meet a module that is half loaded."""


class Hub:
    """What one process runs. `functions` is the folder of the integrations."""

    def __init__(
        self,
        environ: Mapping[str, str] | None = None,
        functions: Path | None = None,
        clock: SystemClock | None = None,
    ) -> None:
        self.environ = os.environ if environ is None else environ
        self.functions = functions or ROOT / "functions"
        self.clock = clock or SystemClock()
        self._sinks = threading.local()
        self._opened: list[Sink] = []
        self._health: dict[tuple[str, str], Health] = {}

    @cached_property
    def integrations(self) -> dict[str, config.Integration]:
        """By name. Raises ConfigError with all mistakes of all files."""
        return {integration.name: integration for integration in self.load()}

    def load(self, *, thorough: bool = False) -> list[config.Integration]:
        return config.load(self.functions, self.overlay, self.options_of, thorough=thorough)

    @property
    def overlay(self) -> Path | None:
        """The file that is merged over the integrations, where there is one."""
        named = self.environ.get("WAYBILL_OVERLAY", "").strip()
        return environment.path_of(named) if named else None

    def integration(self, name: str) -> config.Integration:
        """Raises ConfigError that lists the known ones."""
        found = self.integrations.get(name)
        if found is None:
            raise ConfigError(
                f"no integration is called {name!r}: there are {', '.join(self.integrations) or 'none'}",
                cure="name one of them",
            )
        return found

    @property
    def on_google_cloud(self) -> bool:
        return environment.backend(self.environ) == "gcp"

    @cached_property
    def embedded(self) -> EmbeddedHome:
        """The home in a folder. Only for what is about that folder; everything else asks for `home`."""
        from infra.local.home import EmbeddedHome

        return EmbeddedHome(self.state_folder, self.clock)

    @cached_property
    def google(self) -> GoogleHome:
        """The home in a project."""
        from infra.gcp.home import GoogleHome

        project = environment.project(self.environ)
        return GoogleHome(
            project,
            self.clock,
            self._blobs_beside_an_emulator(),
            location=self.environ.get("WAYBILL_LOCATION", "").strip() or "us-central1",
            bucket=self.environ.get("WAYBILL_BUCKET", "").strip(),
            bigquery=self._bigquery(),
        )

    def _blobs_beside_an_emulator(self) -> Blobs | None:
        """A folder, beside Firestore's emulator and without a storage one."""
        if not self.environ.get("FIRESTORE_EMULATOR_HOST") or self.environ.get("STORAGE_EMULATOR_HOST"):
            return None
        from infra.local.blobs import LocalBlobs  # a function has no use for it

        return LocalBlobs(self.state_folder / "blobs")

    def _bigquery(self) -> Callable[[], environment.SystemSettings] | None:
        """Where BigQuery is: nowhere beside Pub/Sub's emulator, unless an address is given."""
        if self.environ.get("PUBSUB_EMULATOR_HOST") and not self.environ.get("BIGQUERY_URL"):
            return None
        return lambda: environment.system_settings("bigquery", self.environ)

    @property
    def home(self) -> Home:
        return self.google.ports if self.on_google_cloud else self.embedded.ports

    @property
    def state_folder(self) -> Path:
        return environment.state_home(self.environ, ROOT)

    def options_of(self, integration: str, stream: str) -> Mapping[str, Any]:
        """The keys of its own that a stream takes, as its mapping module says."""
        path = self.functions / integration / "mapping.py"
        if not path.is_file() or "\nOPTIONS" not in path.read_text(encoding="utf8"):
            return {}
        options: Mapping[str, Mapping[str, Any]] = self._mapping(integration).OPTIONS
        return options.get(stream) or options.get(ANY, {})

    def _mapping(self, name: str) -> ModuleType:
        """The integration's `mapping.py`, from wherever its folder is."""
        module_name = f"functions.{name}.mapping"
        path = self.functions / name / "mapping.py"
        with _loading:
            loaded = sys.modules.get(module_name)
            if loaded is not None and loaded.__file__ == str(path):
                return loaded
            spec = importlib.util.spec_from_file_location(module_name, path)
            if spec is None or spec.loader is None or not path.is_file():
                raise ConfigError(f"{name} has no mapping.py", cure=f"write {path}")
            module = importlib.util.module_from_spec(spec)
            sys.modules[module_name] = module
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[module_name]
                raise
            return module

    def is_any(self, integration: str, stream: str) -> bool:
        """Whether `mapping.py` knows the stream by its keys alone."""
        streams = self._mapping(integration).STREAMS
        return stream not in streams and ANY in streams

    def rules(self, integration: str, each: config.StreamConfig) -> Rules:
        """As `mapping.py` has them, or makes them of the stream's own keys. Raises ConfigError where one is missing."""
        found = self.mapped(integration, each.name)
        rules = found if isinstance(found, Rules) else self._made(found, integration, each)
        if rules.launched and each.on_conflict != NEWEST_WINS:
            raise ConfigError(
                f"{integration}, stream {each.name}: on_conflict: {each.on_conflict} would take the rows of each later "
                "launch for those of other objects",
                cure="remove on_conflict: of two rows about one object the later one wins",
            )
        return rules

    def _made(self, make: Callable[[Mapping[str, Any]], Rules], integration: str, each: config.StreamConfig) -> Rules:
        try:
            return make({key: _read(value) for key, value in each.options.items()})
        except RefusedFile as error:
            raise ConfigError(str(error), cure=f"./waybill check {integration}") from error
        except ConfigError as error:
            raise ConfigError(f"{integration}, stream {each.name}: {error}", cure=error.cure) from error

    def mapped(self, integration: str, stream: str) -> Rules | Callable[[Mapping[str, Any]], Rules]:
        """What `mapping.py` has of a stream: its rules, or what makes them of the stream's own keys."""
        streams: Mapping[str, Rules | Callable[[Mapping[str, Any]], Rules]] = self._mapping(integration).STREAMS
        if stream not in streams and ANY in streams:
            return streams[ANY]
        if stream not in streams:
            raise ConfigError(
                f"mapping.py of {integration} has no rules for the stream {stream!r}: it has {', '.join(streams)}",
                cure="add it to STREAMS, or take the stream out of integration.yaml",
            )
        return streams[stream]

    def streams(self, integration: config.Integration, name: str | None = None) -> list[Stream]:
        """The stream of this name, else all that are enabled, in the order of the file. Raises ConfigError where one of
        them lacks a setting."""
        if name is not None:
            self.check_name(integration, name)
        return [
            self.stream(integration, each)
            for each in integration.streams.values()
            if (each.enabled if name is None else each.name == name)
        ]

    def check_name(self, integration: config.Integration, stream: str) -> None:
        """Raises ConfigError that lists the known ones."""
        if stream not in integration.streams:
            raise ConfigError(
                f"{integration.name} has no stream {stream!r}: it has {', '.join(integration.streams)}",
                cure="name one of them",
            )

    def every_stream(self, integration: config.Integration) -> list[Stream]:
        """Enabled or not, but for those that are not and lack a setting."""
        sound, broken = self.sound_streams(integration, disabled=True)
        for error in broken.values():
            raise error
        return sound

    def sound_streams(
        self, integration: config.Integration, *, disabled: bool = False
    ) -> tuple[list[Stream], dict[str, ConfigError]]:
        """The streams that are enabled, or all of them, and what those lack that are enabled and cannot run."""
        sound, broken = [], {}
        for each in integration.streams.values():
            if each.enabled or disabled:
                try:
                    sound.append(self.stream(integration, each))
                except ConfigError as error:
                    if each.enabled:
                        broken[each.name] = error
        return sound, broken

    def stream(self, integration: config.Integration, each: config.StreamConfig) -> Stream:
        """Raises ConfigError where a key of the stream's own is missing."""
        stream = self._one_way(integration, each)
        if stream.rules.place:
            stream = msgspec.structs.replace(stream, others=tuple(self._others(integration, stream)))
        if not stream.rules.two_way:
            return stream
        ends = integration.sink.system, integration.source.system
        for back in self.integrations.values():
            other = back.streams.get(each.name)
            if (back.source.system, back.sink.system) == ends and other is not None and other.enabled:
                opposite = self._one_way(back, other)
                return msgspec.structs.replace(stream, opposite=opposite) if opposite.rules.two_way else stream
        return stream

    def _others(self, integration: config.Integration, stream: Stream) -> Iterator[str]:
        """The streams that write to the same place, enabled or not: what they did is done."""
        for other in integration.streams.values():
            if other.name != stream.name:
                try:
                    place = self.rules(integration.name, other).place
                except ConfigError:
                    continue
                if place == stream.rules.place:
                    yield other.name

    def _one_way(self, integration: config.Integration, each: config.StreamConfig) -> Stream:
        rules = self.rules(integration.name, each)
        hold_back = config.HOLD_BACK if rules.hold_back is None else rules.hold_back
        return Stream(
            integration=integration.name,
            name=each.name,
            rules=rules,
            source_system=_short(rules.source or integration.source.system),
            lanes=integration.sink.lanes,
            batch_size=min(integration.sink.batch_size, rules.batch_size or integration.sink.batch_size),
            since=each.since or datetime(1970, 1, 1, tzinfo=UTC),
            overlap=timedelta(seconds=each.overlap),
            hold_back=timedelta(seconds=hold_back if each.hold_back is None else each.hold_back),
            on_conflict=each.on_conflict,
            retry=integration.sink.retry,
            max_attempts=integration.sink.max_attempts,
            redeliver_after=integration.sink.redeliver_after,
            monitored=monitoring_table(integration),
        )

    def catch_up(self, stream: Stream) -> config.CatchUp | None:
        """As integration.yaml has it, else as the stream's rules."""
        declared = self.integration(stream.integration).streams[stream.name].catch_up
        if declared is None and stream.rules.catch_up is not None:
            return config.CatchUp(*stream.rules.catch_up)
        return declared

    def open_source(self, stream: Stream, *, catches_up: bool = False) -> Source:
        """Raises ConfigError where a secret is missing."""
        request = stream.rules.request
        more: Mapping[str, Any] = {}
        if request is not None:
            cursor = self.home.runs.state(stream.integration, stream.name).cursor
            more = {"request": request(cursor, self.clock.now(), catches_up)}
        integration = self.integration(stream.integration)
        end, system = integration.source, self.ends(stream)[0]
        module = _system(system)
        rate = self.rate(stream, end)
        connection = self._connection(stream, "source", system, rate, end.page_size, end.retry, more)
        source: Source = module.open_source(connection, stream.rules.read)
        return source

    def sink(self, stream: Stream) -> Sink:
        """This thread's own sink of the stream."""
        sinks: dict[tuple[str, str], Sink] = self._sinks.__dict__.setdefault("open", {})
        key = (stream.integration, stream.name)
        if key not in sinks:
            sinks[key] = self.open_sink(stream)
            self._opened.append(sinks[key])
        return sinks[key]

    def open_sink(self, stream: Stream) -> Sink:
        """Raises ConfigError where a secret is missing."""
        end, system = self.integration(stream.integration).sink, self.ends(stream)[1]
        module = _system(system)
        connection = self._connection(stream, "sink", system, self.rate(stream, end), end.batch_size, end.retry)
        sink: Sink = module.open_sink(connection, stream.rules.write)
        return sink

    def ends(self, stream: Stream) -> tuple[str, str]:
        """The systems that a stream is read from and written to."""
        integration = self.integration(stream.integration)
        return stream.rules.source or integration.source.system, stream.rules.target or integration.sink.system

    def rate(self, stream: Stream, end: config.SourceConfig | config.SinkConfig) -> Rate | None:
        """This end's own part of what the stream's system allows, whatever other ends take of it. An end that states
        none, and means another system for each stream, has all that each of them allows."""
        system = self.ends(stream)[0 if isinstance(end, config.SourceConfig) else 1]
        if system == end.system or end.rate_limit is not config.UNSTATED:
            return end.limit
        variables = environment.SYSTEM_VARIABLES.get(system)
        return Rate(variables.calls_per_minute, 60.0) if variables and variables.calls_per_minute else None

    def _connection(
        self, stream: Stream, end: str, system: str, rate: Any, size: int, retry: Any, more: Mapping[str, Any] = {}
    ) -> Connection:
        if "." in system:
            settings = _system(system).settings(self.environ)
        else:
            settings = environment.system_settings(system, self.environ)
        return Connection(
            url=settings.url,
            secrets=settings.secrets,
            rate=rate,
            page_size=size,
            retry=retry,
            clock=self.clock,
            pace_file=self._pace_folder() / f"{stream.integration}-{_short(system)}-{end}" if rate else None,
            stopping=lambda: self.clock.stopping,
            home=lambda: self.home,
            stream=(stream.integration, stream.name),
            options={
                **self.integration(stream.integration).streams[stream.name].options,
                **stream.rules.settings,
                **more,
            },
        )

    def _pace_folder(self) -> Path:
        """Where the threads and processes of a machine keep their common pace. An instance of a function has no state
        folder, and a pace of its own."""
        return Path(tempfile.gettempdir()) / "waybill-pace" if self.on_google_cloud else self.state_folder / "pace"

    def health(self, stream: Stream) -> Health:
        """One per target and process."""
        return self._health.setdefault((stream.integration, stream.name), Health())

    def missing(self, streams: list[Stream], *, to_read: bool = False) -> list[str]:
        """The variables that these streams lack, or those of them that it takes to read their sources."""
        ends = [self.ends(stream)[: 1 if to_read else 2] for stream in streams]
        return environment.missing_secrets([end for both in ends for end in both], self.environ)

    def check_environment(self, streams: list[Stream], *, to_read: bool = False) -> None:
        """Raises one ConfigError that names all secrets that these streams lack, as `missing` has them."""
        missing = self.missing(streams, to_read=to_read)
        if missing:
            raise ConfigError(
                f"missing in the environment: {', '.join(missing)}",
                cure="; ".join(f"export {name}=..." for name in missing),
            )

    def check_sinks(self, streams: list[Stream]) -> None:
        """Raises ConfigError for what a sink is missing besides its secrets."""
        for stream in streams:
            self.open_sink(stream).close()

    def close(self) -> None:
        for sink in self._opened:
            sink.close()
        self._opened.clear()
        for place in ("embedded", "google"):
            if place in self.__dict__:
                getattr(self, place).close()


def _read(value: Any) -> Any:
    """What an option stands for: files are read when their stream is needed."""
    return value.read() if isinstance(value, MetadataFiles) else value


def _system(name: str) -> ModuleType:
    """The module of a system: one of `infra/systems`, or any other by its dotted path."""
    path = name if "." in name else f"infra.systems.{name}"
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not path.startswith(error.name):
            raise
        known = sorted(p.stem for p in (ROOT / "infra" / "systems").glob("[a-z]*"))
        raise ConfigError(
            f"no system is called {name!r}: there are {', '.join(known)}", cure="name one of them"
        ) from error


def monitoring_table(integration: config.Integration) -> str:
    """Empty where monitoring is off."""
    return integration.monitoring.table if integration.monitoring.enabled else ""


def _short(system: str) -> str:
    return system.rpartition(".")[2]
