"""The embedded home at work: consumers that bring each message to its handler, and a run that waits until all is
settled."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import msgspec

from infra.alerting import look_after
from infra.entrypoints import Handlers, Reply
from infra.local.bus import Claimed
from infra.log import notice_to
from infra.operations import Operations
from infra.report import error_of, stream_report
from infra.wiring import Hub
from shared.accounting import Counts
from shared.books import Run
from shared.errors import AuthError, ConfigError, Leased, StoreUnavailable, TransientError, WaybillError
from shared.fetch import Order, fetch, note_result, publish_again
from shared.ports import Notice, continuation_topic, dead_topic, topic_of
from shared.stream import Stream
from shared.sweep import conclude_runs, find_lost, send_the_early_again

MOST_CONSUMERS: Final = 32
READERS: Final = 2
"""Streams of an integration that are read at once because a message said so, as launches are."""
OUTAGE_TRIES: Final = 3
"""Deliveries in a row to which the target answered nothing at all: then the run ends and leaves the rest pending."""
LOST_SECONDS: Final = 2.0
"""So often it is looked for batches that no message carries any more."""
IDLE_SECONDS: Final = 300.0
"""On Google Cloud: when no batch made progress for so long, the rest is left to the functions and to the sweeper."""
MOST_DEATHS: Final = 100
"""A message whose consumer died so often in a row goes to the dead letters. An outage, which is answered, never does.
"""


class Consumers:
    """Threads that take messages of one integration off the bus and hand them to its functions.

    Trouble that a human has to mend ends them, unless they are to `endure`: then messages wait and are tried again.
    """

    def __init__(self, hub: Hub, name: str, lanes: int, notice: Notice, *, endure: bool = False) -> None:
        self.hub = hub
        self.endure = endure
        self.bus = hub.embedded.bus
        self.handlers = Handlers(hub, name, notice)
        self.notice = notice
        operations = Operations(hub, notice)
        self._handlers: dict[str, Callable[[bytes], Reply]] = {
            topic_of(name): self.handlers.deliver,
            dead_topic(topic_of(name)): operations.bury,
            continuation_topic(name): self.handlers.go_on,
        }
        self.topics = [topic_of(name), dead_topic(topic_of(name))]
        self.done = threading.Event()
        self.trouble: dict[tuple[str, str], WaybillError] = {}
        """What a human has to mend, by target and stream. The integration's target is "", and means all of its streams;
        a stream's own target may answer nobody (stream ""), or refuse what that one stream says."""
        self.crash: Exception | None = None
        self.silence: Counter[str] = Counter()
        self._lock = threading.Lock()
        # Who reads for minutes keeps no batch waiting. A run begins and goes on by itself.
        kinds = [self.topics] * min(lanes, MOST_CONSUMERS)
        kinds += [[continuation_topic(name)]] * (READERS if endure else 0)
        self._threads = [
            threading.Thread(target=self._consume, args=(topics,), name=f"{name}-{number}", daemon=True)
            for number, topics in enumerate(kinds)
        ]

    def start(self) -> None:
        self.bus.hurry(list(self._handlers))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Returns when every batch in hand is done."""
        self.done.set()
        self.bus.wake()
        for thread in self._threads:
            thread.join()

    def _consume(self, topics: list[str]) -> None:
        while not self.done.is_set() and not self.hub.clock.stopping and self.in_order:
            try:
                claimed = self.bus.claim(topics)
                if claimed is None:
                    self.bus.wait(1.0)
                else:
                    self._bring(claimed)
            except StoreUnavailable as error:
                # Whatever was in hand comes again: an answer that the bus did not take is no answer.
                self._note(error)
                self.bus.wait(1.0)
            except Exception as error:
                self.notice("consumer_fell_over", error=type(error).__name__)
                self.crash = self.crash or error
                self.bus.wait(1.0)

    def _bring(self, claimed: Claimed) -> None:
        reply = Reply(503, wait=1.0)
        try:
            reply = self._handlers[claimed.topic](claimed.message.data)
        except Exception as error:
            self.notice("handler_fell_over", error=type(error).__name__)
            self.crash = self.crash or error
        finally:
            self._answer(claimed, reply)

    def _answer(self, claimed: Claimed, reply: Reply) -> None:
        if reply.status < 300:
            self.silence.pop(reply.target, None)
            self.bus.acknowledge(claimed)
            return
        if reply.status == 400 or claimed.unanswered >= MOST_DEATHS:
            self.notice("dead_letter", message=claimed.id, attempts=claimed.attempts)
            self.bus.publish(dead_topic(claimed.topic), [claimed.message])
            self.bus.acknowledge(claimed)
            return
        if isinstance(reply.error, AuthError | ConfigError):
            self._note(reply.error, (reply.target, reply.stream if reply.target else ""))
        elif reply.outage:
            with self._lock:
                self.silence[reply.target] += 1
                silent_enough = self.silence[reply.target] >= OUTAGE_TRIES
            if silent_enough:
                detail = (reply.body or {}).get("detail", "no answer")
                self._note(TransientError(f"the target answers nobody: {detail}"), (reply.target, ""))
        elif reply.error is None:
            self.silence.pop(reply.target, None)
        self.bus.refuse(claimed, reply.wait)

    @property
    def in_order(self) -> bool:
        """Whether it is any use to go on at all."""
        return self.endure or (("", "") not in self.trouble and self.crash is None)

    def serves(self, stream: Stream) -> bool:
        """Whether it is any use to go on with this stream."""
        return self.in_order and self.trouble_of(stream) is None

    def trouble_of(self, stream: Stream) -> WaybillError | None:
        target = stream.rules.target
        return self.trouble.get(("", "")) or self.trouble.get((target, "")) or self.trouble.get((target, stream.name))

    def _note(self, error: WaybillError, of: tuple[str, str] = ("", "")) -> None:
        if self.endure:
            return
        with self._lock:
            self.trouble.setdefault(of, error)
        self.bus.wake()


class Elsewhere:
    """On Google Cloud the sink functions take the messages: here one only waits for what becomes of them."""

    crash: Exception | None = None
    in_order = True

    def serves(self, stream: Stream) -> bool:
        return True

    def trouble_of(self, stream: Stream) -> WaybillError | None:
        return None

    def start(self) -> None:
        """Pub/Sub pushes by itself."""

    def stop(self) -> None:
        """Nothing is in hand here."""


Deliverers = Consumers | Elsewhere


def deliverers(hub: Hub, name: str, streams: list[Stream], notice: Notice) -> Deliverers:
    """Who delivers what is published: threads of this process, or the functions that Pub/Sub pushes to."""
    if hub.on_google_cloud:
        return Elsewhere()
    return Consumers(hub, name, max(stream.lanes for stream in streams), notice)


class StreamRun(msgspec.Struct):
    """How one stream fared in a run: its runs (resumed ones first), or why there is none."""

    stream: Stream
    runs: list[Run] = []
    state: str = "settled"
    error: WaybillError | None = None
    unreadable: Run | None = None
    """A launch whose file could not be read, where others came behind it."""
    seconds: float = 0.0

    def report(self, hub: Hub) -> dict[str, Any]:
        if not self.runs:
            report: dict[str, Any] = {
                "run": None,
                "state": self.state,
                **Counts().as_dict(),
                "balanced": True,
                "seconds": round(self.seconds, 3),
                "rules": {},
                "resumed": [],
            }
        else:
            report = stream_report(hub.home, self.runs[-1], self.runs[:-1], self.seconds)
            if self.state != "settled":
                report["state"] = self.state
            elif self.unreadable is not None:
                report |= {"state": "failed", "error": error_of(self.unreadable)}
        if self.error is not None and "error" not in report:
            report["error"] = {
                "class": type(self.error).__name__,
                "message": str(self.error),
                "cure": self.error.cure,
            }
        if report["state"] == "stopped" and "error" not in report:
            cure = "run again: it goes on where it stopped"
            report["error"] = {"class": "Stopped", "message": "it was asked to stop", "cure": cure}
        return report


def unready(error: ConfigError) -> dict[str, Any]:
    """The report of a stream that lacks a setting, and did not hinder the others."""
    zero: dict[str, Any] = {
        "run": None,
        "state": "failed",
        **Counts().as_dict(),
        "balanced": True,
        "seconds": 0.0,
        "rules": {},
    }
    return {**zero, "resumed": [], "error": {"class": "ConfigError", "message": str(error), "cure": error.cure}}


def run_streams(
    hub: Hub, name: str, streams: list[Stream], order: Order, notice: Notice, watch: Callable[[], None] = lambda: None
) -> list[StreamRun]:
    """Fetches and delivers each stream in turn until it is settled, stopped, or cannot go on.

    `watch` is called a few times a second, for progress. Every stream has its say, whatever became of the one before.
    """
    # On Google Cloud the sinks are functions elsewhere, with secrets of their own.
    hub.check_environment(streams, to_read=hub.on_google_cloud)
    if not hub.on_google_cloud:
        hub.check_sinks(streams)
    spare_the_collector()
    consumers = deliverers(hub, name, streams, notice)
    consumers.start()
    results: list[StreamRun] = []
    try:
        for stream in streams:
            result = StreamRun(stream, [])
            results.append(result)
            begun = hub.clock.monotonic()
            if hub.clock.stopping:
                result.state = "stopped"
                continue
            try:
                send_the_early_again(stream, hub.home, notice)
                read_stream(hub, stream, order, notice, result, consumers, watch)
                settle_stream(hub, stream, consumers, result, watch)
            except Leased as error:
                result.state, result.error = "leased", error
            except (WaybillError, OSError) as error:
                result.state = "failed"
                result.error = error if isinstance(error, WaybillError) else StoreUnavailable(str(error))
            result.seconds = hub.clock.monotonic() - begun
            say_how_it_went(hub, result)
            if not consumers.in_order:
                break
    finally:
        consumers.stop()
    if consumers.crash is not None:
        raise consumers.crash
    return results


def say_how_it_went(hub: Hub, result: StreamRun) -> None:
    """Counts failed runs, and tells people after some in a row. Reading that failed was counted as it ended."""
    last = result.runs[-1] if result.runs else None
    try:
        if last is not None and last.fetch_done and result.state in ("settled", "failed"):
            note_result(result.stream, hub.home, last, well=result.state == "settled")
        # A line of the log, whoever watches: Cloud Monitoring counts these.
        look_after(hub, result.stream, notice_to())
    except Leased:
        # The next run began already; its own result will be said.
        return
    except StoreUnavailable as error:
        result.error = result.error or error


def spare_the_collector() -> None:
    """Lets Python look for cycles less often: records make none, and a search walks all that are in hand."""
    gc.set_threshold(50_000, 20, 20)


def read_stream(
    hub: Hub,
    stream: Stream,
    order: Order,
    notice: Notice,
    result: StreamRun,
    consumers: Deliverers,
    watch: Callable[[], None],
) -> None:
    """Story 1, in a thread of its own so that progress and interrupts are seen meanwhile."""
    failure: list[BaseException] = []
    before = hub.home.runs.unfinished(stream.integration, stream.name)

    def work() -> None:
        try:
            result.runs = fetch(
                stream,
                lambda: hub.open_source(stream),
                hub.home,
                msgspec.structs.replace(order, delivers=True),
                notice,
                stopping=lambda: hub.clock.stopping or not consumers.serves(stream),
            )
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=work, name=f"{stream.integration}-{stream.name}-fetch")
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
        watch()
    if failure:
        raise failure[0]
    result.unreadable = next((run for run in result.runs[:-1] if run.abandoned), None)
    worked_on = {run.id for run in result.runs}
    result.runs = [*(run for run in before if run.id not in worked_on), *result.runs]
    # A launch may have nothing that waits.
    if result.runs and result.runs[-1].state in ("failed", "stopped"):
        result.state = result.runs[-1].state


def settle_stream(
    hub: Hub, stream: Stream, consumers: Deliverers, result: StreamRun, watch: Callable[[], None]
) -> None:
    """Waits until nothing of the stream is pending; brings back what the bus lost on the way."""
    home = hub.home
    if isinstance(consumers, Consumers):
        wait_for_consumers(hub, stream, consumers, watch)
    else:
        wait_for_functions(hub, stream, watch)
    for run in conclude_runs(stream, home):
        for place, known in enumerate(result.runs):
            if known.id == run.id:
                result.runs[place] = run
    pending = next(home.batches.unsettled(stream.integration, stream.name), None) is not None
    trouble = consumers.trouble_of(stream)
    if trouble is not None and (pending or result.state == "stopped"):
        result.state, result.error = "failed", trouble
    elif pending:
        result.state = "stopped"


def wait_for_consumers(hub: Hub, stream: Stream, consumers: Consumers, watch: Callable[[], None]) -> None:
    home, bus = hub.home, hub.embedded.bus
    looked = hub.clock.monotonic()
    while not hub.clock.stopping and consumers.serves(stream):
        watch()
        if next(home.batches.unsettled(stream.integration, stream.name), None) is None:
            return
        now = hub.clock.monotonic()
        if bus.depth(consumers.topics) == 0 or now - looked >= LOST_SECONDS:
            looked = now
            publish_again(home, find_lost(stream, home))
            if stream.rules.awaits:
                # Its records wait for that stream's, whose messages may be lost as well.
                publish_again(home, find_lost(stream, home, stream.rules.awaits))
        bus.wait(0.2)


def wait_for_functions(hub: Hub, stream: Stream, watch: Callable[[], None]) -> None:
    """Until the functions have settled everything, or nothing happened for so long that one need not watch."""
    home, clock = hub.home, hub.clock
    seen: dict[str, object] = {}
    changed = clock.monotonic()
    while not clock.stopping and clock.monotonic() - changed < IDLE_SECONDS:
        watch()
        unsettled = home.batches.unsettled(stream.integration, stream.name)
        waiting = {batch.id: (batch.state, batch.outcomes, batch.attempts) for batch in unsettled}
        if not waiting:
            return
        if waiting != seen:
            seen, changed = dict(waiting), clock.monotonic()
        # Every look reads every waiting batch, and is paid for.
        clock.sleep(min(10.0, 1.0 + len(waiting) / 20))
