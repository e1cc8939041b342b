"""The platform functions: sweeper, dead letters, replay and clean-up, over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from infra.alerting import teller
from infra.config import Integration
from infra.entrypoints import Reply, _decode_push, problem
from infra.quantities import parse_duration
from infra.queries import cleanup
from infra.wiring import Hub, monitoring_table
from shared.books import FailureQuery
from shared.bury import bury
from shared.errors import ConfigError, Leased, MalformedEnvelope, WaybillError
from shared.ports import Notice
from shared.record import Envelope
from shared.replay import replay
from shared.stream import Stream
from shared.sweep import Swept, sweep


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    """The optional JSON body of an operation."""

    integration: str | None = None
    stream: str | None = None
    outcome: str | None = None
    number: int | None = None
    status: int | None = None
    key: str | None = None
    reason: str = ""
    older_than: str | None = None


class Operations:
    """Each takes POST with an optional JSON body and answers 200 with what it did."""

    def __init__(self, hub: Hub, notice: Notice) -> None:
        self.hub = hub
        self.notice = notice
        self._known: dict[str, Callable[[bytes], Reply]] = {
            "sweep": self.sweep,
            "dead_letter": self.dead_letter,
            "replay": self.replay,
            "cleanup": self.cleanup,
            "tcrm_monitoring_cleanup": self.cleanup,
        }

    def names(self) -> list[str]:
        return list(self._known)

    def carry_out(self, name: str, body: bytes) -> Reply:
        try:
            return self._known[name](body)
        except (msgspec.DecodeError, ConfigError) as error:
            return problem(400, "bad request", str(error))
        except Leased as error:
            return problem(409, "leased", str(error))
        except WaybillError as error:
            self.notice("operation_failed", operation=name, error=type(error).__name__)
            return problem(503, type(error).__name__, str(error))

    def sweep(self, body: bytes) -> Reply:
        """Publishes again what got lost, closes runs that are over, asks targets that confirm later, raises and clears
        alerts. A stream that lacks a setting is named and keeps no other from being looked after."""
        asked = _asked(body)
        done: dict[str, Any] = {}
        status = 200
        for name, integration in self.hub.integrations.items():
            if asked.integration in (None, name):
                try:
                    done[name] = msgspec.to_builtins(self._swept(integration))
                except Exception as error:
                    self.notice("integration_not_swept", integration=name, error=type(error).__name__)
                    # The text of an exception that is none of ours may quote a record.
                    text = str(error) if isinstance(error, WaybillError) else "the log has its kind, and when it was"
                    done[name] = {"error": {"class": type(error).__name__, "message": text}}
                    status = 503
        return Reply(status, {"schema_version": 1, "integrations": done})

    def _swept(self, integration: Integration) -> Swept:
        hub, name = self.hub, integration.name
        streams, broken = hub.sound_streams(integration, disabled=True)
        for stream, error in broken.items():
            self.notice("stream_not_swept", integration=name, stream=stream, error=str(error))
        return sweep(
            streams,
            hub.home,
            self.notice,
            integration.alerts.consecutive_failures,
            teller(hub, name, self.notice),
            may_send=self._may_send,
            open_sink=hub.open_sink,
            stopping=lambda: hub.clock.stopping,
        )

    def _may_send(self, stream: Stream) -> bool:
        """Whether a stream may send by itself: its schedule runs."""
        if not self.hub.integration(stream.integration).streams[stream.name].enabled:
            return False
        try:
            return not self.hub.home.schedule.paused(stream.integration)
        except WaybillError as error:
            self.notice("schedule_unknown", integration=stream.integration, error=type(error).__name__)
            return False

    def dead_letter(self, body: bytes) -> Reply:
        """A message that killed its sink again and again: what is pending of its batch becomes exhausted failures."""
        try:
            data = _decode_push(body).message.data
        except msgspec.DecodeError as error:
            self.notice("dead_letter_unreadable", error=type(error).__name__)
            return Reply(204)
        return self.bury(data)

    def bury(self, data: bytes) -> Reply:
        """The message itself, as the embedded bus hands it over."""
        try:
            envelope = Envelope.from_bytes(data)
        except MalformedEnvelope as error:
            self.notice("dead_letter_unreadable", error=type(error).__name__)
            return Reply(204)
        integration = self.hub.integrations.get(envelope.integration)
        buried = bury(envelope, self.hub.home, "" if integration is None else monitoring_table(integration))
        self.notice("dead_letter_buried", batch=envelope.batch, records=buried)
        return Reply(204)

    def replay(self, body: bytes) -> Reply:
        """Commits and publishes failures again; the sink function delivers them."""
        asked = _asked(body)
        if not asked.integration:
            raise ConfigError("integration: which one?")
        if not asked.reason.strip():
            raise ConfigError("reason: a replay needs one")
        integration = self.hub.integration(asked.integration)
        before = None
        if asked.older_than:
            from datetime import timedelta

            before = self.hub.clock.now() - timedelta(seconds=_seconds(asked.older_than))
        runs: list[dict[str, Any]] = []
        named = self.hub.streams(integration, asked.stream) if asked.stream else self.hub.every_stream(integration)
        for stream in named:
            query = FailureQuery(
                integration.name, stream.name, asked.outcome, asked.number, asked.status, asked.key, before
            )
            if self.hub.home.failures.count(query):
                run = replay(stream, self.hub.home, query, asked.reason, self.notice)
                runs.append({"run": run.id, "stream": stream.name, "planned": run.fetched})
        return Reply(200, {"schema_version": 1, "integration": integration.name, "runs": runs})

    def cleanup(self, body: bytes) -> Reply:
        """Removes what is old, of one integration or of all. TaglessCRM calls it tcrm_monitoring_cleanup."""
        from datetime import timedelta

        asked = _asked(body)
        age = timedelta(seconds=_seconds(asked.older_than)) if asked.older_than else None
        document = cleanup(self.hub, asked.integration, age)
        status = 503 if any("error" in done for done in document["integrations"].values()) else 200
        return Reply(status, {"schema_version": 1, **document})


def _asked(body: bytes) -> _Asked:
    return msgspec.json.decode(body or b"{}", type=_Asked)


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigError(f"older_than: {error}") from error
