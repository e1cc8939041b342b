"""The sweeper: what was committed and got lost on its way is published again, what came too early for its target goes
again, what is over is called over, and targets that confirm later are asked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import islice
from typing import Final

import msgspec

from shared.books import Batch, FailureQuery, Run
from shared.confirm import LAST_LOOK
from shared.confirming import ask_targets
from shared.ends import Sink
from shared.errors import TOO_EARLY, Leased
from shared.fetch import publish_again
from shared.launching import summon_the_idle
from shared.outcome import Outcome
from shared.ports import Home, Notice, topic_of
from shared.replay import replay
from shared.stream import Stream

REPUBLISH_AFTER: Final = timedelta(hours=1)
"""Where the bus cannot say what it carries, a batch is published again when nothing was heard of it for so long."""
LOOKED_AT: Final = 100
"""Batches that are in memory at once while lost ones are looked for: a backlog may be of any length."""
EARLY_AGAIN: Final = timedelta(hours=1)
"""What a target takes only some hours later is tried again so often. It ends by itself: it passes, or is too old."""


class Swept(msgspec.Struct):
    republished: int = 0
    concluded: int = 0
    alerts: int = 0
    summoned: int = 0
    """Streams whose launches waited while nobody worked on them."""
    early: int = 0
    """Records that came too early for their target, and go once more."""
    confirmed: int = 0
    """Requests that ended well at a target that confirms later."""
    refused: int = 0
    """Records that such a target refused after all."""


class AlertChange(msgspec.Struct, frozen=True):
    """An alert that went up or came down."""

    name: str
    raised: bool
    text: str


def sweep(
    streams: list[Stream],
    home: Home,
    notice: Notice,
    alert_after: int = 3,
    tell: Callable[[AlertChange], None] = lambda change: None,
    may_send: Callable[[Stream], bool] = lambda stream: False,
    open_sink: Callable[[Stream], Sink] | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Swept:
    """One round over the streams of one integration. `tell` hears of each alert that changes; `may_send` says
    which streams may send by themselves; `open_sink` is for the targets that are to be asked what became of their
    requests, nobody is without it."""
    swept = Swept()
    for stream in streams:
        lost = find_lost(stream, home)
        for start in range(0, len(lost), 100):
            publish_again(home, lost[start : start + 100])
        swept.republished += len(lost)
        swept.concluded += len(conclude_runs(stream, home))
        swept.summoned += summon_the_idle(stream, home)
        swept.early += send_the_early_again(stream, home, notice, may_send)
        if open_sink is not None:
            asked = ask_targets(stream, home, open_sink, notice, stopping)
            swept.confirmed += asked.confirmed
            swept.refused += asked.refused
        swept.alerts += raise_alerts(stream, home, alert_after, tell)
    if swept.republished:
        notice("republished", batches=swept.republished)
    return swept


def find_lost(stream: Stream, home: Home, name: str = "") -> list[Batch]:
    """Committed batches of a stream, or of another one of its integration, that are not settled and that no message
    carries."""
    unsettled = home.batches.unsettled(stream.integration, name or stream.name)
    before = home.clock.now() - REPUBLISH_AFTER
    lost: list[Batch] = []
    while waiting := list(islice(unsettled, LOOKED_AT)):
        carried = home.bus.carries(topic_of(stream.integration), [batch.id for batch in waiting])
        for batch in waiting:
            heard_of = max(filter(None, (batch.published_at, batch.touched_at)), default=batch.committed_at)
            if heard_of < before if carried is None else batch.id not in carried:
                lost.append(batch)
    return lost


def conclude_runs(stream: Stream, home: Home) -> list[Run]:
    """Closes the runs that are read, or given up, and of which nothing is pending any more."""
    concluded = []
    waiting: set[str] | None = None
    for run in home.runs.unfinished(stream.integration, stream.name):
        if run.resumable:
            continue
        if waiting is None:
            waiting = {batch.run for batch in home.batches.unsettled(stream.integration, stream.name)}
        if run.id not in waiting:
            run.state = "settled" if run.fetch_done else "failed"
            run.finished_at = home.clock.now()
            home.runs.conclude(run)
            concluded.append(run)
    return concluded


def send_the_early_again(
    stream: Stream, home: Home, notice: Notice, may_send: Callable[[Stream], bool] = lambda stream: True
) -> int:
    """Replays the records that their target was to know some hours later, and gives how many they are."""
    before = home.clock.now() - EARLY_AGAIN
    query = FailureQuery(stream.integration, stream.name, outcome=Outcome.EXHAUSTED, number=TOO_EARLY, before=before)
    if not home.failures.count(query) or not may_send(stream):
        return 0
    if any(batch.kind == "replay" for batch in home.batches.unsettled(stream.integration, stream.name)):
        # They may be on their way already.
        return 0
    try:
        return replay(stream, home, query, "the target may take it by this time", notice).fetched
    except Leased:
        # A run holds the stream; the next round comes.
        return 0


def raise_alerts(stream: Stream, home: Home, alert_after: int, tell: Callable[[AlertChange], None]) -> int:
    """Once per change: a stream that keeps failing, records whose fate is unknown, and records that a target refused
    within the last day after it had accepted them."""
    name = f"{stream.integration}.{stream.name}"
    failures = home.runs.state(stream.integration, stream.name).consecutive_failures
    unknown = home.failures.count(FailureQuery(stream.integration, stream.name, outcome="unknown"))
    since = home.clock.now() - timedelta(seconds=LAST_LOOK)
    refused = home.confirmations.refused(stream.integration, stream.name, since)
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(refused.items()))
    changed = 0
    for alert, raised, text in (
        (f"{name}.failing", failures >= alert_after, f"{failures} runs failed in a row" if failures else "it runs"),
        (f"{name}.unknown", unknown > 0, f"{unknown} records of unknown fate" if unknown else "none is left"),
        (f"{name}.refused_later", bool(refused), f"accepted, and then: {reasons}" if refused else "none for a day"),
    ):
        if home.alerts.change(alert, raised, text):
            tell(AlertChange(alert, raised, text))
            changed += 1
    return changed
