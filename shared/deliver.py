"""Story 2, deliver: from a message to recorded outcomes.

Order of effects, and what a crash between two of them does:

1. Begin: the batch is marked `sending` with this attempt's name. A crash before leaves nothing behind.
2. Read the ledger cells of the batch, judge each record (collapse, version, map, content). Nothing is written.
3. Send what is left; beside an opposite stream, the target is looked at before it is overwritten
   (`shared/opposite.py`). A crash here leaves the batch in `sending`: the next attempt knows that every record without
   an outcome is in doubt, repeats what is harmless to repeat and probes the target for the rest before it sends
   anything.
4. Settle: outcomes, cells, failures, closures, and the requests that the target accepted and confirms later, in one
   write, fenced by the attempt. A crash before is case 3; a crash after, but before the message is acknowledged, brings
   the message again, and step 1 finds the batch settled. Where the integration is monitored its rows are part of this
   write (embedded), or are published and awaited before it (Google Cloud): a crash in between, or a later attempt that
   took over, brings them twice. Where Pub/Sub does not take them, they are given up, and the log says so: no report is
   worth leaving in doubt what was sent.
5. The caller acknowledges the message, or refuses it so that it comes again.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec

from shared.books import Batch, Closure, Failure, FailureQuery, Settlement
from shared.confirm import Awaited, accepted, together
from shared.ends import Change, Sink, by_batch, confirming
from shared.errors import (
    BAD_IDENTITY,
    KILLED_ITS_SINK,
    AuthError,
    Leased,
    MalformedEnvelope,
    RecordError,
    TransientError,
)
from shared.group import CONTESTED, invalid, unforeseen
from shared.ledger import (
    NOBODY_WINS,
    Cell,
    applied,
    collapse,
    contested,
    failed,
    judge_appended,
    judge_content,
    judge_once,
    judge_version,
    undone_since,
)
from shared.monitoring import MonitoringRow, failure_rows, monitored, sent_rows
from shared.opposite import Beside
from shared.outcome import DOUBTFUL, FAILED, LETTERS, Absent, CannotAsk, Found, Outcome, Verdict
from shared.ports import Home, Notice
from shared.record import Envelope, Record, content_hash
from shared.retry import redelivery_wait
from shared.sending import Item, Sending
from shared.stream import Stream

PENDING: Final = LETTERS[Outcome.PENDING]


class Health(msgspec.Struct):
    """When a target last answered anybody: what tells one hopeless record from a target that is down.

    `opposite_ran`: whether the opposite stream ever did; `opposite_missed_in` is the run in which it had not.
    """

    answered_at: datetime | None = None
    opposite_ran: bool = False
    opposite_missed_in: str = ""


class Settled(msgspec.Struct, frozen=True):
    """The batch is settled: acknowledge the message."""

    sent: int = 0


class Again(msgspec.Struct, frozen=True):
    """Records are left over: refuse the message; it is wanted again after `wait` seconds.

    `outage` says that the target answered nobody.
    """

    wait: float
    outage: bool = False
    reason: str = ""


class Delivery:
    """One attempt at one batch. Use `deliver`."""

    def __init__(
        self,
        envelope: Envelope,
        stream: Stream,
        sink: Sink,
        home: Home,
        health: Health,
        notice: Notice,
        must_stop: Callable[[], bool],
    ) -> None:
        self.envelope = envelope
        self.stream = stream
        self.sink = sink
        self.confirms_later = confirming(sink) is not None
        self.home = home
        self.health = health
        self.notice = notice
        self.must_stop = must_stop
        self.attempt = uuid.uuid4().hex
        self.answered = False
        self.now = home.clock.now()
        self.sent = 0
        self.cells: dict[str, Cell] = {}
        self.beside = Beside(stream, home, health)
        self.forget_what_is_recorded()

    def forget_what_is_recorded(self) -> None:
        self.changed: dict[str, Cell] = {}
        self.failures: list[Failure] = []
        self.delivered: list[int] = []
        self.cured: list[tuple[Record, Outcome]] = []
        self.gave_way: set[str] = set()
        self.awaited: dict[str, Awaited] = {}
        self.recorded_at = self.held_at = self.home.clock.monotonic()

    def carry_out(self) -> Settled | Again:
        batch, earlier = self.home.batches.begin(self.envelope.batch, self.attempt)
        if batch is None:
            return Settled()
        try:
            self.take_up(batch, in_doubt=bool(earlier))
            if (entering := by_batch(self.sink)) is not None:
                entering.enter(batch.run, batch.id)
            items = self.judge()
            return self.conclude(Sending(self).send(items))
        except (AuthError, TransientError) as error:
            self.record(keep=False, settled=False)
            if isinstance(error, AuthError):
                raise
            return Again(error.after or self.stream.redeliver_after, outage=not self.answered, reason=str(error))
        finally:
            self.home.batches.let_go(self.envelope.batch, self.attempt)

    def take_up(self, batch: Batch, *, in_doubt: bool) -> None:
        """The records of the batch that have no outcome yet."""
        self.batch = batch
        self.letters = list(batch.outcomes)
        if in_doubt:
            self.letters = [DOUBTFUL if letter == PENDING else letter for letter in self.letters]
            self.notice("attempt_in_doubt", batch=batch.id, records=self.letters.count(DOUBTFUL))
        self.waiting = self.letters.count(PENDING) + self.letters.count(DOUBTFUL)
        carried = [(record.key, record.version) for record in self.envelope.records]
        if carried != list(zip(batch.keys, batch.versions, strict=True)):
            self.record(keep=False, settled=False)
            raise MalformedEnvelope(f"the message of batch {batch.id} carries other records than the batch")

    def judge(self) -> list[Item]:
        """Gives every record its outcome that needs no sending, and the rest as items to send."""
        batch, records, run = self.batch, self.envelope.records, self.envelope.run
        replaying = batch.kind == "replay"
        began = self.replay_began() if replaying else None
        self.cells = self.home.ledger.cells(self.stream.integration, self.stream.name, list(dict.fromkeys(batch.keys)))
        self.beside.look(batch, records)
        open_failures = self.open_failures()
        keys = list(dict.fromkeys(batch.keys))
        theirs = [self.home.ledger.cells(self.stream.integration, other, keys) for other in self.stream.others]
        disputed = contested(records, self.cells) if self.stream.on_conflict == NOBODY_WINS else set()
        gives_way = collapse(records, self.stream.on_conflict, self.cells)
        rules, on_conflict = self.stream.rules, self.stream.on_conflict
        to_target, once, appends = rules.to_target, rules.once, rules.appends
        anew = rules.launched == "whole"
        items: list[Item] = []
        to_verify: list[Item] = []
        for place, record in enumerate(records):
            letter = self.letters[place]
            if letter != PENDING and letter != DOUBTFUL:
                continue
            cell = self.cells.get(record.key)
            if record.key in disputed:
                waits = not replaying and any(self.is_known(f, record) for f in open_failures.get(record.key, ()))
                refused = invalid(RecordError(CONTESTED, number=BAD_IDENTITY))
                self.decide(place, record, Verdict(Outcome.DUPLICATE) if waits else refused)
                continue
            outcome = gives_way.get(place)
            if outcome is None and not anew:
                outcome = judge_version(record, cell, on_conflict, replaying=replaying)
            if outcome is Outcome.DUPLICATE and place not in gives_way and self.is_mended(record):
                outcome = None
            failures = open_failures.get(record.key, []) if outcome is None else []
            if not replaying and any(self.is_known(failure, record) for failure in failures):
                outcome = Outcome.DUPLICATE
            if began is not None and any(f.version == record.version and f.last_at > began for f in failures):
                # Another one's hand sent it meanwhile: what it came to then is not what was to be replayed.
                outcome = Outcome.DUPLICATE
            if outcome is None and once is not None and cell is not None:
                outcome = judge_once(record, cell, run, once)
            if outcome is None and appends and cell is not None:
                outcome = judge_appended(record, cell, run)
            if outcome is not None:
                self.decide(place, record, Verdict(outcome))
                continue
            fingerprint, content = "", {}
            if record.operation != "delete" or self.stream.rules.deletes:
                try:
                    content = to_target(record.data)
                    fingerprint = content_hash(content)
                except RecordError as error:
                    self.decide(place, record, invalid(error))
                    continue
                except Exception as error:
                    self.decide(place, record, invalid(unforeseen(error)))
                    continue
            unsure = any(may_have_arrived(f) and f.version <= record.version for f in failures)
            undone = any(undone_since(record, cell, others.get(record.key)) for others in theirs)
            outcome = None if unsure or undone or anew else judge_content(record, fingerprint, cell, run)
            if self.beside.concerns(record):
                failed_in = next((failure for failure in failures if failure.version == record.version), None)
                read_at = self.beside.read_at(batch, failed_in)
                outcome = self.beside.judge(record, fingerprint, cell, outcome, read_at)
            verify = outcome is Outcome.UNCHANGED and rules.verifies
            if outcome is not None and not verify:
                self.decide(place, record, Verdict(outcome), fingerprint)
                continue
            known = cell.target_id if cell is not None and not cell.deleted else ""
            change = Change(record.key, record.operation, content, known)
            by_hand = replaying and letter == PENDING
            doubtful = letter == DOUBTFUL or by_hand or (unsure and not known)
            item = Item(place, record, change, fingerprint, doubtful, by_hand)
            (to_verify if verify else items).append(item)
        return items + self.verified(to_verify)

    def verified(self, items: list[Item]) -> list[Item]:
        """Settles what the target still holds as the ledger says; gives the rest, which is sent."""
        changed: list[Item] = []
        for start in range(0, len(items), self.sink.bulk):
            portion = items[start : start + self.sink.bulk]
            probes = self.sink.find([item.change for item in portion])
            for item, found in zip(portion, probes, strict=True):
                gone = isinstance(found, Absent) and item.record.operation == "delete"
                same = isinstance(found, Found) and found.same and item.record.operation != "delete"
                if gone or same:
                    self.decide(item.place, item.record, Verdict(Outcome.UNCHANGED), item.fingerprint)
                else:
                    changed.append(item)
        return changed

    def is_mended(self, record: Record) -> bool:
        """Whether the record was invalid under this version and holds something else by now: what is expanded with it
        may be corrected without a new version of its own."""
        query = FailureQuery(self.stream.integration, self.stream.name, outcome=Outcome.INVALID, key=record.key)
        found = [failure for failure in self.home.failures.find(query) if failure.version == record.version]
        return bool(found) and all(failure.data != record.data for failure in found)

    def is_known(self, failure: Failure, record: Record) -> bool:
        """Whether it is this version that failed; a polled source gives what did not change under a new one."""
        if failure.outcome is Outcome.INVALID and failure.version == record.version:
            return failure.data == record.data
        if failure.version == record.version:
            return True
        waits = self.stream.rules.polled and not self.stream.rules.tries_again
        return waits and (failure.operation, failure.data) == (record.operation, record.data)

    def replay_began(self) -> datetime:
        run = self.home.runs.get(self.batch.run)
        return self.batch.committed_at if run is None else run.started_at

    def open_failures(self) -> dict[str, list[Failure]]:
        """Those of each key that the ledger marks. What may have arrived of them, the ledger does not know."""
        found: dict[str, list[Failure]] = {}
        if marked := tuple(key for key, cell in self.cells.items() if cell.failed):
            for failure in self.home.failures.find(
                FailureQuery(self.stream.integration, self.stream.name, keys=marked)
            ):
                found.setdefault(failure.key, []).append(failure)
        return found

    def give_way(self, item: Item) -> None:
        """The target holds a change of its own that is not in the books yet: the opposite stream carries it."""
        key = item.record.key
        cell = self.cells.get(key) or Cell(key)
        self.decide(item.place, item.record, Verdict(Outcome.SUPERSEDED))
        changed = msgspec.structs.replace(
            cell, gave_way=item.fingerprint, run=self.envelope.run, at=cell.at or self.now
        )
        self.changed[key] = self.cells[key] = changed
        self.gave_way.add(key)
        self.notice("gave_way", batch=self.batch.id)

    def await_end(self, verdict: Verdict) -> None:
        """What the target accepted, and will confirm later, is asked about by the sweeper. The run does not wait."""
        if self.confirms_later and verdict.outcome is Outcome.DELIVERED and verdict.target_id:
            stream, request = self.stream, verdict.target_id
            one = accepted(request, stream.integration, stream.name, self.batch.id, self.now)
            known = self.awaited.get(request)
            self.awaited[request] = one if known is None else together(known, one)

    def settle_item(self, item: Item, verdict: Verdict) -> None:
        self.decide(item.place, item.record, verdict, item.fingerprint, item)

    def decide(
        self, place: int, record: Record, verdict: Verdict, fingerprint: str = "", item: Item | None = None
    ) -> None:
        """Gives a record its outcome, with what it does to the ledger and to failures."""
        outcome, run, now = verdict.outcome, self.envelope.run, self.now
        self.letters[place] = LETTERS[outcome]
        cell = self.changed.get(record.key) or self.cells.get(record.key)
        if outcome is Outcome.DELIVERED:
            self.delivered.append(place)
            if self.stream.rules.launched == "whole" and cell is not None and cell.version > record.version:
                # A later launch has given the object already; its version stands for both.
                changed = None
            elif item is None:
                changed = applied(record, fingerprint, cell, verdict.target_id, run, now)
            else:
                target_id = verdict.target_id or item.change.target_id
                changed = applied(record, fingerprint, cell, target_id, run, now, item.shown, item.shown_version)
            if changed is not None and self.confirms_later:
                # An earlier request says nothing of this version, even where nobody knows which one carried it.
                changed = msgspec.structs.replace(changed, target_id=verdict.target_id)
        elif outcome is Outcome.UNCHANGED and cell is not None and self.is_news(record, cell):
            changed = msgspec.structs.replace(
                applied(record, fingerprint or cell.hash, cell, cell.target_id, run, cell.at or now),
                shown=cell.shown,
                gave_way=cell.gave_way,
                shown_version=cell.shown_version,
            )
        elif outcome in FAILED:
            changed = failed(record, cell, run, now)
            failure = Failure.of(record, verdict, self.batch, place, now, self.envelope.location)
            tries = max(1, self.batch.attempts) if outcome is Outcome.EXHAUSTED else 1
            self.failures.append(msgspec.structs.replace(failure, attempts=tries))
        else:
            changed = None
        if changed is not None:
            self.changed[record.key] = self.cells[record.key] = changed
        # A replayed record failed before, even if a version that was delivered meanwhile has unmarked its cell.
        had_failures = self.batch.kind == "replay" or (cell is not None and cell.failed)
        if had_failures and outcome in (Outcome.DELIVERED, Outcome.UNCHANGED, Outcome.SUPERSEDED, Outcome.FILTERED):
            self.cured.append((record, outcome))

    def is_news(self, record: Record, cell: Cell) -> bool:
        """Whether an unchanged record changes its cell. A polled source would have every cell written at every run."""
        return bool(cell.failed) or (record.version > cell.version and not self.stream.rules.polled)

    def conclude(self, left: list[Item]) -> Settled | Again:
        """Settles the batch, or hands it back with what is left over, or ends what was tried often enough."""
        if not left:
            self.record(keep=False, settled=True)
            return Settled(self.sent)
        for item in left:
            self.letters[item.place] = DOUBTFUL if item.doubtful and not item.by_hand else PENDING
        tried = [item for item in left if item.passing is not None]
        reason = tried[0].passing.reason if tried and tried[0].passing is not None else "stopped in the middle"
        if not tried or self.must_stop():
            self.record(keep=False, settled=False)
            return Again(0.0, reason=reason)
        others_pass = self.others_pass(tried)
        waiting = self.on_their_way(tried)
        counted = [item for item in tried if item.awaits not in waiting] if others_pass else []
        if counted:
            self.batch.attempts = 1 if len(left) < self.waiting else self.batch.attempts + 1
        if self.batch.attempts >= self.stream.max_attempts:
            for item in counted:
                self.settle_item(item, self.used_up(item))
            self.batch.attempts = 0
            settled = len(counted) == len(left)
            self.record(keep=False, settled=settled)
            return Settled(self.sent) if settled else Again(0.0, reason=reason)
        self.record(keep=False, settled=False)
        after = max((item.passing.after or 0.0 for item in tried if item.passing is not None), default=0.0)
        # Who waits for a customer looks again at an even pace: the target is well.
        grown = 0 if all(item.awaits for item in tried) else self.batch.attempts
        wait = redelivery_wait(self.stream.redeliver_after, grown, self.home.clock.random)
        return Again(max(after, wait), outage=not others_pass, reason=reason)

    def others_pass(self, tried: list[Item]) -> bool:
        """Whether the target answers at all: in this attempt, for others since the last one, or when asked for a key.

        Where it answers nobody, no try counts: an outage uses up no record's attempts. A target that cannot be asked,
        and answers 500 for the last record of a batch whose others have passed, falls over this record.
        """
        last, touched = self.health.answered_at, self.batch.touched_at
        if self.answered or (last is not None and touched is not None and last > touched):
            return True
        try:
            found = next(iter(self.sink.find([tried[0].change])), None)
            if isinstance(found, CannotAsk):
                passing = tried[0].passing
                falls_over = passing is not None and passing.http_status == 500
                return falls_over and len(tried) == 1 and self.batch.attempts > 0
            return isinstance(found, Found | Absent)
        except AuthError:
            raise
        except Exception:
            return False

    def on_their_way(self, items: list[Item]) -> set[str]:
        """What these records wait for and is still to be delivered: that uses up no try."""
        stream, wanted = self.stream.rules.awaits, {item.awaits for item in items} - {""}
        if not stream or not wanted:
            return set()
        waiting = self.home.batches.unsettled(self.stream.integration, stream)
        return wanted.intersection(key for batch in waiting for key in batch.keys)

    def used_up(self, item: Item) -> Verdict:
        """The verdict on a record that never passed: exhausted, or unknown if it may have arrived."""
        passing = item.passing
        assert passing is not None
        outcome = Outcome.UNKNOWN if item.doubtful else Outcome.EXHAUSTED
        return Verdict(outcome, passing.number, passing.reason, http_status=passing.http_status)

    def record(self, *, keep: bool, settled: bool) -> None:
        """Writes all that was decided since the last time, as one."""
        at, closures = self.home.clock.now(), self.closures()
        self.home.batches.settle(
            Settlement(
                batch=self.batch.id,
                attempt=self.attempt,
                outcomes="".join(self.letters),
                settled=settled,
                attempts=self.batch.attempts,
                keep=keep,
                cells=list(self.changed.values()),
                failures=self.failures,
                closures=closures,
                run=self.envelope.run,
                at=at,
                awaited=list(self.awaited.values()),
                monitored=monitored(self.stream.monitored, lambda: self.monitoring_rows(at)),
            )
        )
        self.forget_what_is_recorded()

    def monitoring_rows(self, at: datetime) -> list[MonitoringRow]:
        """What the monitoring table is told of all that was decided since the last time."""
        sent = [self.envelope.records[place] for place in sorted(self.delivered)]
        return [*sent_rows(self.batch, self.envelope.location, sent, at), *failure_rows(self.failures, at)]

    def closures(self) -> list[Closure]:
        """The open failures that are over: the same version's with its outcome, older ones as superseded."""
        if not self.cured:
            return []
        newest: dict[str, tuple[Record, Outcome]] = {}
        for record, outcome in self.cured:
            if record.key not in newest or newest[record.key][0].version <= record.version:
                newest[record.key] = (record, outcome)
        query = FailureQuery(self.stream.integration, self.stream.name, keys=tuple(newest))
        found = []
        for failure in self.home.failures.find(query):
            record, outcome = newest[failure.key]
            if failure.version == record.version:
                found.append(Closure(failure.id, failure.batch, failure.place, outcome))
            elif failure.version < record.version and (
                outcome is not Outcome.SUPERSEDED or failure.key in self.gave_way
            ):
                if self.covers(record, failure):
                    found.append(Closure(failure.id, failure.batch, failure.place, Outcome.SUPERSEDED))
                else:
                    self.keep_marked(failure)
        return found

    def keep_marked(self, failure: Failure) -> None:
        """The cell goes on saying that a failure of its key is open, so that whoever covers it closes it."""
        cell = self.changed.get(failure.key)
        if cell is not None:
            changed = msgspec.structs.replace(cell, failed=max(cell.failed, failure.version))
            self.changed[failure.key] = self.cells[failure.key] = changed

    def covers(self, record: Record, failure: Failure) -> bool:
        """Whether nothing of a failed record is missing once a newer one has arrived. Where several streams write to
        one target, each adds to what is there, and a row may have other columns than the one before."""
        return not self.stream.rules.verifies or failure.data.keys() <= record.data.keys()


def may_have_arrived(failure: Failure) -> bool:
    """Whether the record of a failure may be at the target: then the ledger does not say what the target holds."""
    return failure.outcome is Outcome.UNKNOWN or failure.number == KILLED_ITS_SINK


def deliver(
    envelope: Envelope,
    stream: Stream,
    sink: Sink,
    home: Home,
    health: Health,
    notice: Notice,
    must_stop: Callable[[], bool] = lambda: False,
) -> Settled | Again:
    """Carries out one delivery of one batch.

    Raises AuthError when the credentials are refused (nothing is consumed), StoreUnavailable when the store does not
    answer, Fenced when another attempt took over: after each of them the message is to be refused. `must_stop` ends the
    attempt between two portions: what is not sent stays pending.
    """
    try:
        return Delivery(envelope, stream, sink, home, health, notice, must_stop).carry_out()
    except Leased as error:
        return Again(stream.redeliver_after, reason=str(error))
