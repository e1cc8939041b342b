"""Story 2, deliver: from a message to recorded outcomes.

Order of effects, and what a crash between two of them does:

1. Begin: the batch is marked `sending` with this attempt's name. A crash before leaves nothing behind.
2. Read the ledger cells of the batch, judge each record (collapse, version, map, content). Nothing is written.
3. Send what is left. A crash here leaves the batch in `sending`: the next attempt knows that every record without an
   outcome is in doubt, repeats what is harmless to repeat and probes the target for the rest before it sends anything.
4. Settle: outcomes, cells, failures and closures in one write, fenced by the attempt. A crash before is case 3; a crash
   after, but before the message is acknowledged, brings the message again, and step 1 finds the batch settled.
5. The caller acknowledges the message, or refuses it so that it comes again.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import msgspec

from shared.errors import (
    BAD_IDENTITY,
    IN_DOUBT,
    KILLED_ITS_SINK,
    NO_VERDICT,
    NOT_ASKED,
    AuthError,
    Leased,
    MalformedEnvelope,
    RecordError,
    TransientError,
    WaybillError,
)
from shared.group import CONTESTED, invalid, unforeseen
from shared.ledger import (
    NOBODY_WINS,
    Cell,
    applied,
    collapse,
    contested,
    failed,
    judge_content,
    judge_version,
)
from shared.outcome import (
    DOUBTFUL,
    FAILED,
    LETTERS,
    Absent,
    Answer,
    CannotAsk,
    Found,
    InDoubt,
    Outcome,
    Passing,
    Probe,
    Verdict,
    unknown,
)
from shared.ports import (
    Batch,
    Change,
    Closure,
    Failure,
    FailureQuery,
    Home,
    Notice,
    Settlement,
    Sink,
)
from shared.record import Envelope, Record, content_hash
from shared.retry import redelivery_wait
from shared.stream import Stream

HOLD_SECONDS: Final = 15.0
"""A hold on a batch is renewed this often; it lasts for 60 where it expires at all."""
RECORD_SECONDS: Final = 10.0
"""A slow batch records its progress this often, so that a crash leaves little in doubt."""
SILENT_PORTIONS: Final = 2
"""After so many portions without an answer for anybody the rest of the batch waits for the next delivery."""
PENDING: Final = LETTERS[Outcome.PENDING]


class Health(msgspec.Struct):
    """When a target last answered anybody: what tells one hopeless record from a target that is down."""

    answered_at: datetime | None = None


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


class Item(msgspec.Struct):
    """One record on its way to the target."""

    place: int
    record: Record
    change: Change
    fingerprint: str
    doubtful: bool = False
    by_hand: bool = False
    """A human wants it sent: the target is asked first, but one that cannot be asked is no reason to hold it back."""
    passing: Passing | None = None


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
        self.home = home
        self.health = health
        self.notice = notice
        self.must_stop = must_stop
        self.attempt = uuid.uuid4().hex
        self.answered = False
        self.answered_portion = False
        self.now = home.clock.now()
        self.sent = 0
        self.cells: dict[str, Cell] = {}
        self.forget_what_is_recorded()

    def forget_what_is_recorded(self) -> None:
        self.changed: dict[str, Cell] = {}
        self.failures: list[Failure] = []
        self.cured: list[tuple[Record, Outcome]] = []
        self.recorded_at = self.held_at = self.home.clock.monotonic()

    def carry_out(self) -> Settled | Again:
        batch, earlier = self.home.batches.begin(self.envelope.batch, self.attempt)
        if batch is None:
            return Settled()
        try:
            self.take_up(batch, in_doubt=bool(earlier))
            left = self.send(self.judge())
            return self.conclude(left)
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
        carried = [(record.key, record.version) for record in self.envelope.records]
        if carried != list(zip(batch.keys, batch.versions, strict=True)):
            self.record(keep=False, settled=False)
            raise MalformedEnvelope(f"the message of batch {batch.id} carries other records than the batch")

    def judge(self) -> list[Item]:
        """Gives every record its outcome that needs no sending, and the rest as items to send."""
        batch, records, run = self.batch, self.envelope.records, self.envelope.run
        replaying = batch.kind == "replay"
        self.cells = self.home.ledger.cells(self.stream.integration, self.stream.name, list(dict.fromkeys(batch.keys)))
        disputed = contested(records, self.cells) if self.stream.on_conflict == NOBODY_WINS else set()
        gives_way = collapse(records, self.stream.on_conflict, self.cells)
        to_target, on_conflict = self.stream.rules.to_target, self.stream.on_conflict
        items: list[Item] = []
        for place, record in enumerate(records):
            letter = self.letters[place]
            if letter != PENDING and letter != DOUBTFUL:
                continue
            if record.key in disputed:
                self.decide(place, record, invalid(RecordError(CONTESTED, number=BAD_IDENTITY)))
                continue
            cell = self.cells.get(record.key)
            outcome = gives_way.get(place) or judge_version(record, cell, on_conflict, replaying=replaying)
            failures = self.open_failures(record.key, cell) if outcome is None else []
            if not replaying and any(failure.version == record.version for failure in failures):
                outcome = Outcome.DUPLICATE
            if outcome is not None:
                self.decide(place, record, Verdict(outcome))
                continue
            fingerprint, content = "", {}
            if record.operation != "delete":
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
            outcome = None if unsure else judge_content(record, fingerprint, cell, run)
            if outcome is not None:
                self.decide(place, record, Verdict(outcome), fingerprint)
                continue
            known = cell.target_id if cell is not None and not cell.deleted else ""
            change = Change(record.key, record.operation, content, known)
            by_hand = replaying and letter == PENDING
            doubtful = letter == DOUBTFUL or by_hand or (unsure and not known)
            items.append(Item(place, record, change, fingerprint, doubtful, by_hand))
        return items

    def open_failures(self, key: str, cell: Cell | None) -> list[Failure]:
        """Those of a key that the ledger marks. What may have arrived of them, the ledger does not know."""
        if cell is None or not cell.failed:
            return []
        return list(self.home.failures.find(FailureQuery(self.stream.integration, self.stream.name, key=key)))

    def send(self, items: list[Item]) -> list[Item]:
        """Sends in portions that the sink takes at once, recording progress on the way; gives what is left over."""
        left: list[Item] = []
        silent = 0
        for start in range(0, len(items), self.sink.bulk):
            if self.must_stop() or silent == SILENT_PORTIONS:
                return [*left, *items[start:]]
            self.answered_portion = False
            self.keep_hold()
            left_over = self.send_portion(items[start : start + self.sink.bulk])
            left += left_over
            silent = silent + 1 if left_over and not self.answered_portion else 0
            if self.home.clock.monotonic() - self.recorded_at >= RECORD_SECONDS:
                self.record(keep=True, settled=False)
        return left

    def keep_hold(self) -> None:
        """Keeps the batch in this attempt's hands where such a hold expires. Raises Fenced once another attempt has it,
        so that two of them do not send at once."""
        now = self.home.clock.monotonic()
        if now - self.held_at >= HOLD_SECONDS:
            self.home.batches.renew(self.batch.id, self.attempt)
            self.held_at = now

    def send_portion(self, portion: list[Item]) -> list[Item]:
        """Writes, waits and writes again what did not pass, until all have an outcome or the tries are used up."""
        todo = self.ask_about_doubtful(portion)
        tries = 1
        while True:
            todo, unsure = self.write(todo)
            todo = self.probe(unsure) + todo
            if not todo:
                return []
            after = max((item.passing.after or 0.0 for item in todo if item.passing is not None), default=0.0)
            wait = self.stream.retry.next_wait(tries, after or None, self.home.clock.random)
            if wait is None or self.must_stop():
                return todo
            self.notice("waiting", batch=self.batch.id, seconds=round(wait, 2), records=len(todo))
            self.home.clock.sleep(wait)
            if self.must_stop():
                return todo
            self.keep_hold()
            tries += 1
            todo = self.ask_about_doubtful(todo)

    def write(self, items: list[Item]) -> tuple[list[Item], list[Item]]:
        """One call of the sink. Gives what did not pass, and what is in doubt."""
        ready = [item for item in items if not item.doubtful]
        again: list[Item] = [item for item in items if item.doubtful]
        unsure: list[Item] = []
        if not ready:
            return again, unsure
        self.sent += len(ready)
        for item in ready:
            if not self.sink.repeatable(item.change):
                self.letters[item.place] = DOUBTFUL
        answers: Sequence[Answer | None] = self.carried_out(ready)
        self.now = self.home.clock.now()
        for item, answer in zip(ready, [*answers, *[None] * (len(ready) - len(answers))], strict=False):
            if isinstance(answer, Passing):
                item.passing = answer
                self.letters[item.place] = PENDING
                again.append(item)
            elif isinstance(answer, InDoubt):
                item.passing = Passing(answer.reason, NOT_ASKED)
                if self.sink.repeatable(item.change):
                    again.append(item)
                else:
                    item.doubtful = True
                    unsure.append(item)
            else:
                self.heard()
                self.settle_item(item, answer or unknown(NO_VERDICT, "the connector gave no verdict"))
        return again, unsure

    def carried_out(self, items: list[Item]) -> Sequence[Answer | None]:
        """The sink's answers. A connector that falls over in the middle leaves everything of the call in doubt."""
        try:
            return list(self.sink.write([item.change for item in items]))
        except TransientError as error:
            return [Passing(str(error), error.number, error.after, error.http_status)] * len(items)
        except AuthError:
            for item in items:
                self.letters[item.place] = PENDING
            raise
        except WaybillError as error:
            return [InDoubt(str(error))] * len(items)
        except Exception as error:
            self.notice("connector_fell_over", batch=self.batch.id, error=type(error).__name__)
            return [InDoubt(f"the connector failed with {type(error).__name__}")] * len(items)

    def ask_about_doubtful(self, items: list[Item]) -> list[Item]:
        """The items to send, each once: those never in doubt, and those of which the target said what to do."""
        sure = [item for item in items if not item.doubtful]
        return sure + self.probe([item for item in items if item.doubtful])

    def probe(self, items: list[Item]) -> list[Item]:
        """Asks the target for records in doubt; gives those that are to be sent, or asked for again later."""
        ask = [item for item in items if not self.sink.repeatable(item.change)]
        send = [item for item in items if self.sink.repeatable(item.change)]
        for item in send:
            item.doubtful = False
        if not ask:
            return send
        self.notice("probing", batch=self.batch.id, records=len(ask))
        try:
            probes: Sequence[Probe] = list(self.sink.find([item.change for item in ask]))
        except TransientError as error:
            probes = [Passing(str(error), NOT_ASKED, error.after, error.http_status)] * len(ask)
        except AuthError:
            raise
        except WaybillError as error:
            probes = [Passing(str(error), NOT_ASKED)] * len(ask)
        except Exception as error:
            self.notice("connector_fell_over", batch=self.batch.id, error=type(error).__name__)
            probes = [Passing(f"the connector failed with {type(error).__name__}", NOT_ASKED)] * len(ask)
        self.now = self.home.clock.now()
        for item, found in zip(ask, [*probes, *[CannotAsk()] * (len(ask) - len(probes))], strict=False):
            if isinstance(found, Passing):
                item.passing, item.doubtful = found, True
                send.append(item)
                continue
            if not isinstance(found, CannotAsk):
                self.heard()
            if isinstance(found, CannotAsk) and item.by_hand:
                item.doubtful = item.by_hand = False
                send.append(item)
            elif isinstance(found, CannotAsk):
                self.settle_item(item, unknown(IN_DOUBT, "it may have arrived, and the target cannot be asked"))
            elif isinstance(found, Absent):
                if item.record.operation == "delete":
                    self.settle_item(item, Verdict(Outcome.DELIVERED))
                    continue
                item.change = msgspec.structs.replace(item.change, target_id="", absent=True)
                item.doubtful = False
                send.append(item)
            else:
                self.take_found(item, found, send)
        return send

    def take_found(self, item: Item, found: Found, send: list[Item]) -> None:
        """The target holds the key: it is delivered if the content is this one, else it is an update by id."""
        if found.same and item.record.operation != "delete":
            self.settle_item(item, Verdict(Outcome.DELIVERED, target_id=found.target_id))
            return
        item.change = msgspec.structs.replace(item.change, target_id=found.target_id)
        if self.sink.repeatable(item.change):
            item.doubtful = False
            send.append(item)
        else:
            self.settle_item(item, unknown(IN_DOUBT, "the target holds the key, and cannot say with which content"))

    def heard(self) -> None:
        """The target answered for a record."""
        if not self.answered_portion:
            self.answered = self.answered_portion = True
            self.health.answered_at = self.now

    def settle_item(self, item: Item, verdict: Verdict) -> None:
        self.decide(item.place, item.record, verdict, item.fingerprint, known=item.change.target_id)

    def decide(self, place: int, record: Record, verdict: Verdict, fingerprint: str = "", known: str = "") -> None:
        """Gives a record its outcome, with what it does to the ledger and to failures."""
        outcome, run, now = verdict.outcome, self.envelope.run, self.now
        self.letters[place] = LETTERS[outcome]
        cell = self.changed.get(record.key) or self.cells.get(record.key)
        if outcome is Outcome.DELIVERED:
            changed = applied(record, fingerprint, cell, verdict.target_id or known, run, now)
        elif outcome is Outcome.UNCHANGED and cell is not None and (record.version > cell.version or cell.failed):
            changed = applied(record, fingerprint, cell, cell.target_id, run, now)
        elif outcome in FAILED:
            changed = failed(record, cell, run, now)
            self.failures.append(Failure.of(record, verdict, self.batch, place, now))
        else:
            changed = None
        if changed is not None:
            self.changed[record.key] = self.cells[record.key] = changed
        had_failures = cell is not None and cell.failed
        if had_failures and outcome in (Outcome.DELIVERED, Outcome.UNCHANGED, Outcome.SUPERSEDED):
            self.cured.append((record, outcome))

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
        others_pass = self.others_pass(tried[0])
        if others_pass:
            self.batch.attempts += 1
        if self.batch.attempts >= self.stream.max_attempts:
            for item in tried:
                self.settle_item(item, self.used_up(item))
            self.batch.attempts = 0
            settled = len(tried) == len(left)
            self.record(keep=False, settled=settled)
            return Settled(self.sent) if settled else Again(0.0, reason=reason)
        self.record(keep=False, settled=False)
        after = max((item.passing.after or 0.0 for item in tried if item.passing is not None), default=0.0)
        wait = redelivery_wait(self.stream.redeliver_after, self.batch.attempts, self.home.clock.random)
        return Again(max(after, wait), outage=not others_pass, reason=reason)

    def others_pass(self, item: Item) -> bool:
        """Whether the target answers at all: in this attempt, for others since the last one, or when asked for a key.

        Where it answers nobody, no try counts: an outage uses up no record's attempts.
        """
        last, touched = self.health.answered_at, self.batch.touched_at
        if self.answered or (last is not None and touched is not None and last > touched):
            return True
        try:
            return isinstance(next(iter(self.sink.find([item.change])), None), Found | Absent)
        except AuthError:
            raise
        except Exception:
            return False

    def used_up(self, item: Item) -> Verdict:
        """The verdict on a record that never passed: exhausted, or unknown if it may have arrived."""
        passing = item.passing
        assert passing is not None
        outcome = Outcome.UNKNOWN if item.doubtful else Outcome.EXHAUSTED
        return Verdict(outcome, passing.number, passing.reason, http_status=passing.http_status)

    def record(self, *, keep: bool, settled: bool) -> None:
        """Writes all that was decided since the last time, as one."""
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
                closures=self.closures(),
                run=self.envelope.run,
                at=self.home.clock.now(),
            )
        )
        self.forget_what_is_recorded()

    def closures(self) -> list[Closure]:
        """The open failures that are over: the same version's with its outcome, older ones as superseded."""
        if not self.cured:
            return []
        newest: dict[str, tuple[str, Outcome]] = {}
        for record, outcome in self.cured:
            if record.key not in newest or newest[record.key][0] <= record.version:
                newest[record.key] = (record.version, outcome)
        query = FailureQuery(self.stream.integration, self.stream.name, keys=tuple(newest))
        found = []
        for failure in self.home.failures.find(query):
            version, outcome = newest[failure.key]
            if failure.version == version:
                found.append(Closure(failure.id, failure.batch, failure.place, outcome))
            elif failure.version < version and outcome is not Outcome.SUPERSEDED:
                found.append(Closure(failure.id, failure.batch, failure.place, Outcome.SUPERSEDED))
        return found


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
