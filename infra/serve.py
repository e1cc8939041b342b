"""`waybill serve`: every HTTP function, the bus, the schedule and the sweeper in one process, until interrupted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from werkzeug.exceptions import HTTPException, NotFound, RequestEntityTooLarge
from werkzeug.routing import Map, Rule
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from infra import environment
from infra.data_sync.api import ROOT, DataSyncs
from infra.data_sync.syncs import ids
from infra.entrypoints import PUSH_BYTES, Handlers, Reply, problem
from infra.listener import Handler
from infra.local.schedule import next_after
from infra.log import notice_to
from infra.operations import Operations
from infra.runner import Consumers
from infra.snapshots.rest import SnapshotApi, caller
from infra.wiring import Hub, monitoring_table
from shared.errors import ConfigError, WaybillError
from shared.ports import Notice

SWEEP_SECONDS: Final = 30.0
EMULATORS: Final = ("PUBSUB_EMULATOR_HOST", "FIRESTORE_EMULATOR_HOST")
TICK_SECONDS: Final = 0.5
AWAKE_SECONDS: Final = 1.0


class Server:
    """The HTTP functions under their paths, and the data syncs below theirs."""

    def __init__(
        self,
        hub: Hub,
        handlers: dict[str, Handlers],
        operations: Operations,
        snapshots: SnapshotApi,
        syncs: DataSyncs | None = None,
    ) -> None:
        self.hub = hub
        self.handlers = handlers
        self.operations = operations
        self.snapshots = snapshots
        self.syncs = syncs
        self._in_hand = 0
        self._changed = threading.Condition()
        self.paths = Map(
            [
                Rule("/", endpoint="front"),
                Rule("/functions/operations/<name>", endpoint="operation"),
                Rule("/functions/<integration>/<end>", endpoint="function"),
                Rule("/aif/<path:rest>", endpoint="snapshot"),
            ]
        )

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with self._changed:
            self._in_hand += 1
        try:
            return self.answer(environ, start_response)
        finally:
            with self._changed:
                self._in_hand -= 1
                self._changed.notify_all()

    def wait(self) -> None:
        """Returns when no request is in hand."""
        with self._changed:
            self._changed.wait_for(lambda: not self._in_hand)

    def answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if self.hub.clock.stopping:
            return _response(problem(503, "stopping", "nothing new is begun"))(environ, start_response)
        request = Request(environ)
        if self.syncs is not None and request.path.startswith(ROOT):
            return self.syncs.answer(request)(environ, start_response)
        request.max_content_length = PUSH_BYTES
        try:
            endpoint, values = self.paths.bind_to_environ(environ).match()
            response: Response = getattr(self, endpoint)(request, **values)
        except RequestEntityTooLarge:
            response = _response(problem(413, "too large", f"at most {PUSH_BYTES} bytes"))
        except HTTPException as error:
            response = _response(problem(error.code or 500, error.name, error.description or ""))
        except WaybillError as error:
            response = _response(problem(503, type(error).__name__, str(error)))
        return response(environ, start_response)

    def front(self, request: Request) -> Response:
        """For people who open the address in a browser."""
        lines = ["Waybill serves these functions, each by POST:"]
        lines += [f"  /functions/{name}/source\n  /functions/{name}/sink" for name in self.handlers]
        lines += [f"  /functions/operations/{name}" for name in self.operations.names()]
        lines.append("  /aif/rest/V1/snapshots")
        if self.syncs is not None:
            lines += ["", "and these data syncs, as", f"  {ROOT}openapi.json", "describes them:"]
            lines += [f"  {ROOT}{id}" for id in ids(self.hub)]
        return Response("\n".join([*lines, "", "Look around with ./waybill status", ""]), content_type="text/plain")

    def function(self, request: Request, integration: str, end: str) -> Response:
        handlers = self.handlers.get(integration)
        if handlers is None or end not in ("source", "sink"):
            raise NotFound(f"there is no function {integration}/{end}")
        if request.method != "POST":
            return _response(problem(405, "method not allowed", "this function takes POST"))
        body = request.get_data()
        return _response(handlers.sink(body) if end == "sink" else handlers.source(body, dict(request.headers)))

    def operation(self, request: Request, name: str) -> Response:
        if name not in self.operations.names():
            raise NotFound(f"there is no operation {name}")
        if request.method != "POST":
            return _response(problem(405, "method not allowed", "this function takes POST"))
        return _response(self.operations.carry_out(name, request.get_data()))

    def snapshot(self, request: Request, rest: str) -> Response:
        """What it is called by its path: `SnapshotApi` knows the whole of it."""
        return self.snapshots.respond(request, caller(request.headers.get("Authorization", ""), is_checked=False))


def _response(reply: Reply) -> Response:
    kind = "application/problem+json" if reply.status >= 400 else "application/json"
    body = b"" if reply.body is None else msgspec.json.encode(reply.body)
    return Response(body, status=reply.status, content_type=kind)


class Due(msgspec.Struct, frozen=True):
    """What a schedule starts."""

    integration: str
    stream: str
    catch_up: bool = False


class Timetable:
    """Which stream is due when, by its cron expression."""

    def __init__(self, hub: Hub, names: list[str]) -> None:
        self.hub = hub
        self.crons: dict[Due, str] = {}
        for name in names:
            integration = hub.integration(name)
            for stream in hub.sound_streams(integration)[0]:
                schedule, catch_up = integration.streams[stream.name].schedule, hub.catch_up(stream)
                if schedule:
                    self.crons[Due(name, stream.name)] = schedule
                if catch_up is not None:
                    self.crons[Due(name, stream.name, catch_up=True)] = catch_up.schedule
        self.due = {due: next_after(cron, hub.clock.now()) for due, cron in self.crons.items()}
        self.late: list[tuple[Due, datetime]] = []

    def put_back(self, due: Due, at: datetime) -> None:
        """It comes again, unless its next time has come by then: the run of that reads all of it."""
        if self.due.get(due, at) > self.hub.clock.now():
            self.late.append((due, at))

    def take_due(self) -> list[tuple[Due, datetime]]:
        """What has come due since the last time, each with the time for which it was scheduled. What a paused
        integration missed is not made up for: its next window reads it."""
        now = self.hub.clock.now()
        found, self.late = self.late, []
        for due, at in list(self.due.items()):
            if at > now + timedelta(days=1):
                self.due[due] = next_after(self.crons[due], now)
            elif at <= now:
                self.due[due] = next_after(self.crons[due], now)
                if not self.hub.home.schedule.paused(due.integration):
                    found.append((due, at))
        return found


def serve(hub: Hub, host: str, port: int, note: Callable[[str], None]) -> None:
    """Runs until the hub's clock is stopped; then ends when every batch in hand is done.

    An integration whose environment is not complete is left out, and said to be. Raises ConfigError if the port is
    taken, or if it would have to make topics on Google Cloud itself: there Terraform deploys the functions.
    """
    if hub.on_google_cloud:
        require_emulators(hub)
    notice = notice_to()
    names = ready_integrations(hub, note)
    handlers, consumers = handlers_of(hub, names, notice)
    operations = Operations(hub, notice)
    snapshots = SnapshotApi(hub, notice, in_background=True)
    functions = Server(hub, handlers, operations, snapshots, DataSyncs(hub, notice) if ids(hub) else None)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    try:
        server = make_server(host, port, functions, threaded=True, request_handler=Handler)
    except (OSError, SystemExit) as error:
        raise ConfigError(f"port {port} of {host} is not free", cure="choose another one with --port") from error
    base = f"http://{host}:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="http", daemon=True).start()
    if hub.on_google_cloud:
        from infra.gcp.provision import provision

        waits = {name: hub.integration(name).sink.redeliver_after for name in names}
        monitored = [name for name in names if monitoring_table(hub.integration(name))]
        provision(environment.project(hub.environ), waits, base, monitored)
    threads = [
        threading.Thread(target=_keep_time, args=(hub, names, handlers, notice), name="schedule"),
        threading.Thread(target=_keep_sweeping, args=(hub, operations), name="sweeper"),
    ]
    for consumer in consumers:
        consumer.start()
    for thread in threads:
        thread.start()
    note(f"listening on {base}")
    while not hub.clock.stopping:
        # A signal that comes between the last look at signals and the wait itself is only seen when that ends.
        hub.clock.sleep(AWAKE_SECONDS)
    server.shutdown()
    functions.wait()
    snapshots.wait()
    server.server_close()
    for consumer in consumers:
        consumer.stop()
    for thread in threads:
        thread.join()
    note("stopped; nothing in hand")


def require_emulators(hub: Hub) -> None:
    """Raises ConfigError unless Pub/Sub and Firestore are emulators: nobody serves a real project from one machine."""
    missing = [name for name in EMULATORS if not hub.environ.get(name)]
    if missing:
        raise ConfigError(
            f"serve works with emulators only, and {', '.join(missing)} is not set",
            cure="; ".join(f"export {name}=127.0.0.1:..." for name in missing),
        )
    environment.project(hub.environ)


def handlers_of(hub: Hub, names: list[str], notice: Notice) -> tuple[dict[str, Handlers], list[Consumers]]:
    """The functions of each integration and, embedded, who brings them their messages; else Pub/Sub pushes."""
    if hub.on_google_cloud:
        return {name: Handlers(hub, name, notice) for name in names}, []
    consumers = {name: Consumers(hub, name, hub.integration(name).sink.lanes, notice, endure=True) for name in names}
    return {name: each.handlers for name, each in consumers.items()}, list(consumers.values())


def ready_integrations(hub: Hub, note: Callable[[str], None]) -> list[str]:
    """The integrations whose rules and environment are complete."""
    ready = []
    for name, integration in hub.integrations.items():
        try:
            streams, broken = hub.sound_streams(integration)
            for stream, error in broken.items():
                note(f"{name} {stream} is not served: {error}")
            lacking = [stream for stream in streams if hub.missing([stream])]
            if len(lacking) == len(streams):
                hub.check_environment(streams)
            for each in lacking:
                note(f"{name} {each.name} is not served: missing in the environment: {', '.join(hub.missing([each]))}")
        except ConfigError as error:
            note(f"{name} is not served: {error}")
            if error.cure:
                note(f"  what to do: {error.cure}")
        else:
            ready.append(name)
    return ready


def trigger(handlers: Handlers, timetable: Timetable, due: Due, at: datetime, body: bytes, headers: Any) -> None:
    """A scheduled run; one that another run of its stream kept out is tried again, under the time it was meant for."""
    if handlers.source(body, headers).status == 409:
        timetable.put_back(due, at)


def _keep_time(hub: Hub, names: list[str], handlers: dict[str, Handlers], notice: Any) -> None:
    timetable = Timetable(hub, names)
    running: list[threading.Thread] = []
    while not hub.clock.stopping:
        for due, at in timetable.take_due():
            name, stream = due.integration, due.stream
            body = msgspec.json.encode({"stream": stream, "catch_up": due.catch_up})
            headers = {"X-CloudScheduler-ScheduleTime": at.isoformat()}
            notice("scheduled", integration=name, stream=stream, catch_up=due.catch_up)
            thread = threading.Thread(
                target=trigger, args=(handlers[name], timetable, due, at, body, headers), name=f"{name}-{stream}"
            )
            thread.start()
            running.append(thread)
        running = [thread for thread in running if thread.is_alive()]
        hub.clock.sleep(TICK_SECONDS)
    for thread in running:
        thread.join()


def _keep_sweeping(hub: Hub, operations: Operations) -> None:
    while not hub.clock.stopping:
        operations.carry_out("sweep", b"")
        hub.clock.sleep(SWEEP_SECONDS)
