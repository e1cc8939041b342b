"""Launching: how a stream whose runs are launches comes to its runs, and how a launch stands.

Order of effects when a file is sent, and what a crash between two of them does:

1. The file is stored. A crash leaves a file that no launch names; clean-up removes it.
2. The launch is written, and looked at again: where the books were being replaced it is not accepted. From here on it
   will be carried out: a crash leaves the summons to the sweeper, and whoever sent the file, and got no answer, may
   send it again.
3. It is summoned: a message brings its stream back to the source function. Then the sender is answered.
4. The launch is taken: from here on nobody cancels it. A crash leaves it to whoever is summoned next.
5. A run begins under the launch's own id, so that it begins once however often it is summoned, then the launch is
   marked as begun. A crash in between leaves it taken, with a run that says more.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from shared.accounting import Counts
from shared.books import Run
from shared.errors import ConfigError, Leased, MalformedEnvelope, StoreUnavailable
from shared.launches import Launch, launch_id
from shared.ports import Home, Message, continuation_topic, lease_name
from shared.snapshot.history import TO_FINISH, UNFINISHED
from shared.stream import Stream

SUMMON_AGAIN: Final = timedelta(minutes=1)
"""A launch that nobody works on is summoned again after so long."""

NOT_ACCEPTED: Final = "it was not accepted, since the books were being replaced"

Status = Literal["scheduled", "running", "finished", "cancelled"]


class Summons(msgspec.Struct, frozen=True):
    """The message that lets a stream begin the launches that wait."""

    integration: str
    stream: str
    launch: int


class Look(msgspec.Struct, frozen=True):
    """How a launch stands. `message` says what went wrong; `failed` that its run did, as a whole."""

    launch: Launch
    status: Status
    started_at: datetime | None = None
    message: str = ""
    failed: bool = False
    counts: Counts | None = None


def ask(home: Home, launch: Launch) -> Launch:
    """Writes a launch under its number, or under the next one that is not given, behind all that are: a clock that was
    set back would make the rows of a later file older than those of an earlier one.

    Raises StoreUnavailable while the books are being replaced: a launch that was written before goes with the old ones,
    and its file with it."""
    name = launch.integration, launch.stream
    if home.history.unfinished() is not None:
        raise StoreUnavailable(UNFINISHED, cure=TO_FINISH)
    for newest in home.launches.recent(*name, 1):
        launch = msgspec.structs.replace(launch, id=max(launch.id, newest.id + 1))
    while not home.launches.add(launch):
        launch = msgspec.structs.replace(launch, id=launch.id + 1)
    if home.launches.get(*name, launch.id) is None:
        raise StoreUnavailable(UNFINISHED, cure=TO_FINISH)
    if home.history.unfinished() is not None or not has_its_file(home, launch):
        cancelled = msgspec.structs.replace(launch, state="cancelled", cancelled_by=NOT_ACCEPTED)
        # One that was taken is carried out.
        if home.launches.note(cancelled, "waiting") or home.launches.get(*name, launch.id) is None:
            raise StoreUnavailable(UNFINISHED, cure=TO_FINISH)
    return launch


def has_its_file(home: Home, launch: Launch) -> bool:
    """Whether the file is there that a launch is to read, if it reads one."""
    try:
        return not launch.file or home.blobs.size(launch.file) >= 0
    except FileNotFoundError:
        return False


def summon(home: Home, launch: Launch) -> None:
    """Lets whoever serves the stream begin what waits. Returns when the message is safe."""
    message = Summons(launch.integration, launch.stream, launch.id)
    home.bus.publish(
        continuation_topic(launch.integration), [Message(msgspec.json.encode(message), ordering_key=launch.stream)]
    )


def decode_summons(data: bytes) -> Summons:
    """Raises MalformedEnvelope."""
    try:
        return msgspec.json.decode(data, type=Summons)
    except msgspec.DecodeError as error:
        raise MalformedEnvelope(f"the message is no summons: {error}") from error


def ask_for_the_whole(stream: Stream, home: Home, at: datetime | None) -> None:
    """Writes the launch of a stream that reads everything: of a schedule's time only one, however often it comes."""
    columns = tuple(stream.rules.settings.get("columns") or ())
    if not columns:
        named = home.objects.fields(stream.rules.read)
        columns = ("id", *(name for name in named if name != "id"))
    when = at or home.clock.now()
    launch = Launch(stream.integration, stream.name, launch_id(when), when, columns=columns)
    if at is None:
        ask(home, launch)
    else:
        home.launches.add(launch)


def begin(stream: Stream, home: Home) -> Iterator[Launch]:
    """The launches that wait, oldest first, each to be read before the next one is asked for."""
    for launch in home.launches.waiting(stream.integration, stream.name):
        if home.runs.get(launch.run) is None:
            taken = msgspec.structs.replace(launch, state="taken")
            if launch.state == "waiting" and not home.launches.note(taken, "waiting"):
                # Somebody cancelled it.
                continue
            yield launch
        home.launches.note(msgspec.structs.replace(launch, state="begun"))


def look(home: Home, launch: Launch) -> Look:
    """How a launch stands by its run."""
    if launch.state == "cancelled":
        return Look(launch, "cancelled", message=f"Cancelled by user: {launch.cancelled_by}")
    run = home.runs.get(launch.run)
    if run is None:
        return Look(launch, "scheduled")
    counts = home.books.counts(run.id)
    finished = not run.resumable and counts.pending == 0
    return Look(
        launch,
        "finished" if finished else "running",
        run.started_at,
        message_of(run, counts),
        failed=bool(run.error),
        counts=counts,
    )


def is_over(home: Home, launch: Launch) -> bool:
    """Whether nothing happens in a launch any more."""
    run = _run_of(home, launch)
    return launch.state == "cancelled" or (run is not None and run.over)


def is_read(home: Home, launch: Launch) -> bool:
    """Whether nobody reads the file of a launch any more, though some of its rows may be on their way."""
    run = _run_of(home, launch)
    return launch.state == "cancelled" or (run is not None and not run.resumable)


def _run_of(home: Home, launch: Launch) -> Run | None:
    """Once the launch says that it has one."""
    return home.runs.get(launch.run) if launch.state == "begun" else None


def message_of(run: Run, counts: Counts) -> str:
    """What people are told went wrong, empty where nothing did."""
    if run.error:
        return run.error
    parts = []
    if refused := counts.invalid + counts.rejected + counts.exhausted:
        parts.append(f"{refused} of {counts.fetched} rows were refused")
    if counts.unknown:
        parts.append(f"of {counts.unknown} rows it is not known whether they arrived")
    return "; ".join(parts)


def cancel(home: Home, launch: Launch, by: str) -> Launch:
    """Cancels a launch that waits, whoever reads another one of its stream, or that was taken and could not be begun.
    Raises ConfigError for one that has begun, or begins at this moment, or was cancelled before."""
    cancelled = msgspec.structs.replace(launch, state="cancelled", cancelled_by=by)
    if home.launches.note(cancelled, "waiting") or _cancel_what_was_taken(home, cancelled):
        return cancelled
    raise ConfigError(f"launch {launch.id} does not wait any more", cure="only what has not begun is cancelled")


def _cancel_what_was_taken(home: Home, cancelled: Launch) -> bool:
    known = home.launches.get(cancelled.integration, cancelled.stream, cancelled.id)
    if known is None or known.state != "taken":
        return False
    try:
        lease = home.leases.take(lease_name(cancelled.integration, cancelled.stream))
    except Leased:
        return False
    try:
        return home.runs.get(cancelled.run) is None and home.launches.note(cancelled, "taken")
    finally:
        home.leases.release(lease)


def summon_the_idle(stream: Stream, home: Home) -> int:
    """Summons a stream again whose launches wait, or whose runs were left in the middle, while nobody works on it. Says
    how often: once or not at all."""
    if not stream.rules.launched or home.leases.holder(lease_name(stream.integration, stream.name)) is not None:
        return 0
    before = home.clock.now() - SUMMON_AGAIN
    waiting = home.launches.waiting(stream.integration, stream.name)
    left = [
        run
        for run in home.runs.unfinished(stream.integration, stream.name)
        if run.kind == "fetch" and run.resumable and (run.touched_at or run.started_at) < before
    ]
    if not left and not any(launch.scheduled_at < before for launch in waiting):
        return 0
    oldest = waiting[0].id if waiting else 0
    summon(home, Launch(stream.integration, stream.name, oldest, before))
    return 1


def refuse_a_part(stream: Stream, *parts: object) -> None:
    """Raises ConfigError where somebody asked for a part of a launch."""
    if stream.rules.launched and any(part is not None for part in parts):
        raise ConfigError(
            f"{stream.integration}, stream {stream.name}: a launch is read as a whole",
            cure="leave out --since and --limit",
        )
