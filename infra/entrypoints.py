"""The functions: plain HTTP in, plain HTTP out. The embedded home calls the same handlers with the same bytes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from infra.alerting import TargetWatch
from infra.log import notice_to
from infra.report import stream_report
from infra.wiring import Hub
from shared.books import Run
from shared.deliver import Again, Settled, deliver
from shared.errors import AuthError, ConfigError, Fenced, Leased, MalformedEnvelope, StoreUnavailable, WaybillError
from shared.fetch import Order, decode_continuation, fetch, go_on
from shared.launching import decode_summons, refuse_a_part
from shared.ports import Message, Notice
from shared.record import Envelope
from shared.stream import Stream

if TYPE_CHECKING:
    from flask import Request

    from infra.data_sync.api import DataSyncs

SLICE_SECONDS = 480.0
"""A source function hands over after 8 minutes, well within the 10 that a push waits for its answer."""
DELIVERY_SECONDS = 480.0
SCHEDULE_TIME = "x-cloudscheduler-scheduletime"
UNREADY_SECONDS = 60.0
"""A message whose stream lacks a setting comes again so much later."""
PUSH_BYTES = 10_000_000
"""The largest push that Pub/Sub makes."""


class Reply(msgspec.Struct, frozen=True):
    """An answer over HTTP. `wait`: seconds until the bus should bring a refused message again, where it can choose."""

    status: int
    body: Any = None
    wait: float = 0.0
    outage: bool = False
    error: WaybillError | None = None
    target: str = ""
    """The system that answered so, where the stream has one of its own."""
    stream: str = ""


class _PushMessage(msgspec.Struct, rename="camel"):
    data: bytes = b""
    attributes: dict[str, str] | None = None
    message_id: str = ""
    ordering_key: str = ""


class _Push(msgspec.Struct, rename="camel"):
    message: _PushMessage
    subscription: str = ""
    delivery_attempt: int | None = None


class _Trigger(msgspec.Struct, forbid_unknown_fields=True):
    stream: str | None = None
    full: bool = False
    since: datetime | None = None
    limit: int | None = None
    catch_up: bool = False
    """Reads the stream's `catch_up.window` again."""


_decode_push = msgspec.json.Decoder(_Push).decode
_decode_trigger = msgspec.json.Decoder(_Trigger).decode


def push_body(message: Message, subscription: str, attempt: int) -> bytes:
    """The body of a push as Pub/Sub makes it (vendor documentation, "Receive messages by push")."""
    carried = _PushMessage(message.data, message.attributes, ordering_key=message.ordering_key)
    return msgspec.json.encode(_Push(carried, subscription, attempt))


class Handlers:
    """The source and the sink function of one integration."""

    def __init__(self, hub: Hub, name: str, notice: Notice) -> None:
        self.hub = hub
        self.name = name
        self.notice = notice
        self.watch = TargetWatch(hub, name, notice)
        self._streams: dict[str, Stream] = {}

    def stream(self, name: str) -> Stream:
        if name not in self._streams:
            integration = self.hub.integration(self.name)
            self._streams[name] = self.hub.streams(integration, name)[0]
        return self._streams[name]

    def sink(self, body: bytes) -> Reply:
        """The push of a message. 204: settled. 503: bring it again. 400: not an envelope of this integration, which
        ends as a dead letter.
        """
        try:
            data = _decode_push(body).message.data
        except msgspec.DecodeError as error:
            self.notice("push_refused", integration=self.name, error=type(error).__name__)
            return problem(400, "not a push", str(error))
        return self.deliver(data)

    def deliver(self, data: bytes) -> Reply:
        """The message itself, as the embedded bus hands it over."""
        try:
            envelope = Envelope.from_bytes(data)
            if envelope.integration != self.name:
                raise MalformedEnvelope(f"the message belongs to {envelope.integration}")
            if envelope.stream not in self.hub.integration(self.name).streams:
                raise MalformedEnvelope(f"{self.name} has no stream {envelope.stream!r}")
        except MalformedEnvelope as error:
            self.notice("push_refused", integration=self.name, error=type(error).__name__)
            return problem(400, "not an envelope", str(error))
        try:
            stream = self.stream(envelope.stream)
        except ConfigError as error:
            # Its records wait until the configuration is mended; the other streams go on.
            self.notice("delivery_failed", batch=envelope.batch, error=type(error).__name__)
            return Reply(503, {"detail": str(error)}, wait=UNREADY_SECONDS)
        until = self.hub.clock.monotonic() + DELIVERY_SECONDS
        try:
            done = deliver(
                envelope,
                stream,
                self.hub.sink(stream),
                self.hub.home,
                self.hub.health(stream),
                self.notice,
                lambda: self.hub.clock.stopping or self.hub.clock.monotonic() > until,
            )
        except (AuthError, ConfigError, StoreUnavailable, Fenced, MalformedEnvelope) as error:
            self.notice("delivery_failed", batch=envelope.batch, error=type(error).__name__)
            if isinstance(error, AuthError):
                self.watch.refused(stream)
            status = 400 if isinstance(error, MalformedEnvelope) else 503
            wait, target = stream.redeliver_after, stream.rules.target
            return Reply(status, wait=wait, error=error, target=target, stream=stream.name)
        if isinstance(done, Settled):
            if done.sent:
                self.watch.answered(stream)
            self.notice("batch_settled", batch=envelope.batch, sent=done.sent)
            return Reply(204, target=stream.rules.target)
        again: Again = done
        if again.outage:
            self.watch.silent(stream)
        self.notice("batch_refused", batch=envelope.batch, wait=round(again.wait, 2), outage=again.outage)
        return Reply(503, {"detail": again.reason}, again.wait, again.outage, target=stream.rules.target)

    def source(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        """A trigger with an optional JSON body, or the push of a continuation."""
        try:
            push = _decode_push(body)
        except msgspec.DecodeError:
            return self.trigger(body, headers, self.time_budget())
        return self.go_on(push.message.data)

    def time_budget(self) -> Callable[[], bool]:
        """Whether the slice that begins with this call is used up."""
        until = self.hub.clock.monotonic() + SLICE_SECONDS
        return lambda: self.hub.clock.monotonic() > until

    def go_on(self, data: bytes) -> Reply:
        """A continuation: 204 for one that is not expected any more, 503 while another run holds the stream."""
        try:
            message = decode_continuation(data)
        except MalformedEnvelope as error:
            return self.begin(data, f"not a continuation: {error}")
        try:
            stream = self.stream(message.stream)
        except ConfigError as error:
            return problem(400, "not a continuation", str(error))
        time_is_up = self.time_budget()
        try:
            run = go_on(
                message,
                stream,
                lambda: self.hub.open_source(stream),
                self.hub.home,
                self.notice,
                time_is_up,
                lambda: self.hub.clock.stopping,
            )
        except Leased as error:
            return Reply(503, {"detail": str(error)}, wait=stream.redeliver_after)
        except (Fenced, StoreUnavailable, ConfigError) as error:
            return Reply(503, wait=stream.redeliver_after, error=error)
        if run is None or run.state == "yielded":
            # Not the 202 of a trigger: Pub/Sub's emulator takes that for a refusal.
            return Reply(204)
        if stream.rules.launched and not run.resumable:
            # Those that wait behind it may have been summoned, in vain, between two of its slices.
            return self.begin_waiting(stream, time_is_up)
        return self.reply([run], stream)

    def begin(self, data: bytes, otherwise: str) -> Reply:
        """A summons: begins the launches that wait, and goes on with what was left. 204 once nothing waits or the rest
        is handed over, 503 while another run holds the stream, or where one stopped or could not be read at the
        moment."""
        try:
            stream = self.stream(decode_summons(data).stream)
        except (MalformedEnvelope, ConfigError):
            return problem(400, "neither a continuation nor a summons", otherwise)
        return self.begin_waiting(stream, self.time_budget())

    def begin_waiting(self, stream: Stream, time_is_up: Callable[[], bool]) -> Reply:
        try:
            runs = fetch(
                stream,
                partial(self.hub.open_source, stream),
                self.hub.home,
                Order(summoned=True),
                self.notice,
                time_is_up,
                lambda: self.hub.clock.stopping,
            )
        except Leased as error:
            return Reply(503, {"detail": str(error)}, wait=stream.redeliver_after)
        except (Fenced, StoreUnavailable, ConfigError) as error:
            return Reply(503, wait=stream.redeliver_after, error=error)
        if not runs or not runs[-1].resumable or runs[-1].state == "yielded":
            return Reply(204)
        return msgspec.structs.replace(self.reply(runs, stream), status=503, wait=stream.redeliver_after)

    def trigger(self, body: bytes, headers: Mapping[str, str], time_is_up: Callable[[], bool]) -> Reply:
        try:
            asked = _decode_trigger(body or b"{}")
            if asked.since is not None and asked.since.tzinfo is None:
                raise ConfigError("since: an instant needs an offset, such as 2024-02-24T00:00:00-03:00")
            if asked.limit is not None and asked.limit < 1:
                raise ConfigError("limit: expected a positive number")
            streams = self.asked_for(asked.stream)
            sinces = {stream.name: self.since(stream, asked) for stream in streams}
            # On Google Cloud the sink is a function of its own, and only that one is given its secrets.
            self.hub.check_environment(streams, to_read=self.hub.on_google_cloud)
            for stream in streams:
                refuse_a_part(stream, asked.since, asked.limit)
        except (msgspec.DecodeError, ConfigError) as error:
            return problem(400, "bad request", str(error))
        # Servers write the names of headers as they like.
        scheduled = next((value for name, value in headers.items() if name.lower() == SCHEDULE_TIME), "")
        replies: dict[str, Any] = {}
        status = 200
        for stream in streams:
            what = f"{stream.name}-catch-up" if asked.catch_up else stream.name
            run_id = f"{self.name}-{what}-{_compact(scheduled)}" if scheduled else ""
            order = Order(asked.full, sinces[stream.name], asked.limit, run_id, at=_instant(scheduled))
            try:
                runs = fetch(
                    stream,
                    partial(self.hub.open_source, stream, catches_up=asked.catch_up),
                    self.hub.home,
                    order,
                    self.notice,
                    time_is_up,
                    lambda: self.hub.clock.stopping,
                )
            except Leased as error:
                replies[stream.name] = {"state": "leased", "error": {"class": "Leased", "message": str(error)}}
                status = max(status, 409)
                continue
            except (Fenced, StoreUnavailable, ConfigError) as error:
                return problem(503, type(error).__name__, str(error))
            if not runs:
                known = self.hub.home.runs.get(run_id)
                runs = [known] if known is not None else []
            if runs:
                reply = self.reply(runs, stream)
                replies[stream.name] = reply.body["streams"][stream.name]
                status = max(status, reply.status)
        return Reply(status, {"schema_version": 1, "integration": self.name, "streams": replies})

    def asked_for(self, name: str | None) -> list[Stream]:
        """The stream of this name, else all that are enabled: one that lacks a setting is no hindrance to the others.
        Raises ConfigError where nothing is left."""
        integration = self.hub.integration(self.name)
        if name is not None:
            return self.hub.streams(integration, name)
        streams, broken = self.hub.sound_streams(integration)
        for stream, error in broken.items():
            self.notice("stream_unready", stream=stream, error=str(error))
        if broken and not streams:
            raise next(iter(broken.values()))
        return streams

    def since(self, stream: Stream, asked: _Trigger) -> datetime | None:
        """From when on to read, where the trigger says so."""
        if not asked.catch_up:
            return asked.since
        catch_up = self.hub.catch_up(stream)
        if catch_up is None or asked.since is not None:
            raise ConfigError(f"catch_up: {stream.name} has none, or since is given too")
        return max(stream.since, self.hub.clock.now() - timedelta(seconds=catch_up.window))

    def reply(self, runs: list[Run], stream: Stream) -> Reply:
        run = runs[-1]
        status = {"yielded": 202, "failed": 500 if run.error_class == "AuthError" else 503}.get(run.state, 200)
        if run.error_class == "GuardTripped":
            status = 500
        report = stream_report(self.hub.home, run, runs[:-1])
        return Reply(status, {"schema_version": 1, "integration": self.name, "streams": {stream.name: report}})


def problem(status: int, title: str, detail: str) -> Reply:
    """An error as problem+json (RFC 9457)."""
    return Reply(status, {"type": "about:blank", "title": title, "status": status, "detail": detail})


def _instant(text: str) -> datetime | None:
    """For when Cloud Scheduler meant the call. None for what is no instant with an offset."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _compact(instant: str) -> str:
    return "".join(character for character in instant if character.isalnum())[:32]


_making = threading.Lock()
_hubs: dict[Path, Hub] = {}
_handlers: dict[Path, Handlers] = {}
_apis: dict[Path, DataSyncs] = {}


def hub_of(functions: Path) -> Hub:
    """The hub of an instance, made at its first request, once however many are the first."""
    with _making:
        return _hubs.setdefault(functions, _hubs.get(functions) or Hub(functions=functions))


def handlers(folder: Path) -> Handlers:
    """The handlers of the integration in this folder."""
    hub = hub_of(folder.parent)
    with _making:
        if folder not in _handlers:
            _handlers[folder] = Handlers(hub, folder.name, notice_to(integration=folder.name))
        return _handlers[folder]


def source_function(folder: Path) -> Callable[[Request], Any]:
    """What Cloud Scheduler and the continuation topic call."""

    def source(request: Request) -> Any:
        refused = _unfit(request)
        return _http(refused or handlers(folder).source(request.get_data(), dict(request.headers)))

    return source


def sink_function(folder: Path) -> Callable[[Request], Any]:
    """What the push subscription of the integration's topic calls."""

    def sink(request: Request) -> Any:
        refused = _unfit(request)
        return _http(refused or handlers(folder).sink(request.get_data()))

    return sink


def operation_function(functions: Path, name: str) -> Callable[[Request], Any]:
    """What Cloud Scheduler, a dead-letter subscription or a person calls."""

    def operation(request: Request) -> Any:
        from infra.operations import Operations

        refused = _unfit(request)
        return _http(refused or Operations(hub_of(functions), notice_to()).carry_out(name, request.get_data()))

    return operation


def data_sync_function(folder: Path) -> Callable[[Request], Any]:
    """The data-sync API. Anybody may reach it: each data sync lets in whom it knows."""

    def api(request: Request) -> Any:
        return api_of(folder.parent).answer(request)

    return api


def api_of(functions: Path) -> DataSyncs:
    """The data-sync API of an instance."""
    from infra.data_sync.api import DataSyncs

    hub = hub_of(functions)
    with _making:
        return _apis.setdefault(functions, _apis.get(functions) or DataSyncs(hub, notice_to()))


def _unfit(request: Request) -> Reply | None:
    if request.method != "POST":
        return problem(405, "method not allowed", "this function takes POST")
    if (request.content_length or 0) > PUSH_BYTES:
        return problem(413, "too large", f"at most {PUSH_BYTES} bytes")
    return refused_caller(os.environ, request.headers.get("Authorization", ""))


def refused_caller(environ: Mapping[str, str], authorization: str) -> Reply | None:
    """403 for a caller that is not one of the configured service accounts; None where callers are not configured."""
    if not environ.get("WAYBILL_CALLERS") and not environ.get("WAYBILL_AUDIENCE"):
        return None
    from infra.gcp.callers import Callers

    callers = Callers.configured(environ)
    refusal = callers.refusal(authorization) if callers is not None else ""
    if not refusal:
        return None
    notice_to()("caller_refused", reason=refusal)
    return problem(403, "forbidden", "this caller may not call")


def _http(reply: Reply) -> Any:
    from flask import Response

    kind = "application/problem+json" if reply.status >= 400 else "application/json"
    body = b"" if reply.body is None else msgspec.json.encode(reply.body)
    return Response(body, status=reply.status, content_type=kind)
