"""The middle of story 2: records go to the target, in portions, tried again, and asked for where they are in doubt.

It writes nothing of its own but the progress of a slow batch; what a record came to is decided by the delivery.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from shared.ends import Change
from shared.errors import IN_DOUBT, NO_VERDICT, NOT_ASKED, TOO_EARLY, AuthError, TransientError, WaybillError
from shared.outcome import (
    DOUBTFUL,
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
from shared.record import Record

if TYPE_CHECKING:
    from shared.deliver import Delivery

HOLD_SECONDS: Final = 15.0
"""A hold on a batch is renewed this often; it lasts for 60 where it expires at all."""
RECORD_SECONDS: Final = 10.0
"""A slow batch records its progress this often, so that a crash leaves little in doubt."""
SILENT_PORTIONS: Final = 2
"""After so many portions without an answer for anybody the rest of the batch waits for the next delivery."""
PENDING: Final = LETTERS[Outcome.PENDING]


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
    shown: str = ""
    """The fingerprint of the target's object, in the opposite stream's terms, where it was looked at."""
    shown_version: str = ""

    @property
    def awaits(self) -> str:
        """The key of the record that has to be at the target before; trying again at once is no use."""
        return self.passing.awaits if self.passing is not None else ""


class Sending:
    """One attempt's way to the target. `send` gives what is left over."""

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.stream = delivery.stream
        self.sink = delivery.sink
        self.home = delivery.home
        self.notice = delivery.notice
        self.must_stop = delivery.must_stop
        self.batch = delivery.batch
        self.letters = delivery.letters
        self.cells = delivery.cells
        self.beside = delivery.beside
        self.answered_portion = False

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
            if self.home.clock.monotonic() - self.delivery.recorded_at >= RECORD_SECONDS:
                self.delivery.record(keep=True, settled=False)
        return left

    def keep_hold(self) -> None:
        """Keeps the batch in this attempt's hands where such a hold expires. Raises Fenced once another attempt has it,
        so that two of them do not send at once."""
        now = self.home.clock.monotonic()
        if now - self.delivery.held_at >= HOLD_SECONDS:
            self.home.batches.renew(self.batch.id, self.delivery.attempt)
            self.delivery.held_at = now

    def send_portion(self, portion: list[Item]) -> list[Item]:
        """Writes, waits and writes again what did not pass, until all have an outcome or the tries are used up."""
        todo = self.ask_about_doubtful(portion)
        awaiting: list[Item] = []
        tries = 1
        while True:
            todo, unsure = self.write(todo)
            todo = self.probe(unsure) + todo
            awaiting += [item for item in todo if item.awaits]
            todo = [item for item in todo if not item.awaits]
            if not todo:
                return awaiting
            after = max((item.passing.after or 0.0 for item in todo if item.passing is not None), default=0.0)
            wait = self.stream.retry.next_wait(tries, after or None, self.home.clock.random)
            if wait is None or self.must_stop():
                return awaiting + todo
            self.notice("waiting", batch=self.batch.id, seconds=round(wait, 2), records=len(todo))
            self.home.clock.sleep(wait)
            if self.must_stop():
                return awaiting + todo
            self.keep_hold()
            tries += 1
            todo = self.ask_about_doubtful(todo)

    def write(self, items: list[Item]) -> tuple[list[Item], list[Item]]:
        """One call of the sink. Gives what did not pass, and what is in doubt."""
        ready = [item for item in items if not item.doubtful]
        again: list[Item] = [item for item in items if item.doubtful]
        if self.beside.opposite is not None:
            ready, unanswered = self.leave_alone(ready)
            again = unanswered + again
        unsure: list[Item] = []
        if not ready:
            return again, unsure
        self.delivery.sent += len(ready)
        for item in ready:
            if not self.sink.repeatable(item.change):
                self.letters[item.place] = DOUBTFUL
        answers: Sequence[Answer | None] = self.carried_out(ready)
        self.delivery.now = self.home.clock.now()
        written: list[tuple[Item, Verdict]] = []
        for item, answer in zip(ready, [*answers, *[None] * (len(ready) - len(answers))], strict=False):
            if isinstance(answer, Passing) and answer.number == TOO_EARLY:
                # Hours: nothing else of its lane waits for that.
                self.heard()
                early = Verdict(Outcome.EXHAUSTED, answer.number, answer.reason, http_status=answer.http_status)
                self.delivery.settle_item(item, early)
            elif isinstance(answer, Passing):
                item.passing = answer
                if answer.awaits or answer.is_verdict:
                    self.heard()
                self.letters[item.place] = PENDING
                again.append(item)
            elif isinstance(answer, InDoubt):
                item.passing = Passing(answer.reason, NOT_ASKED)
                item.shown = item.shown_version = ""
                if self.sink.repeatable(item.change):
                    again.append(item)
                else:
                    item.doubtful = True
                    unsure.append(item)
            else:
                verdict = answer or unknown(NO_VERDICT, "the connector gave no verdict")
                if verdict.outcome is not Outcome.INVALID:
                    # Invalid it was before anybody was asked.
                    self.heard()
                self.delivery.await_end(verdict)
                if verdict.outcome is Outcome.DELIVERED and self.beside.concerns(item.record):
                    item.change = msgspec.structs.replace(
                        item.change, target_id=verdict.target_id or item.change.target_id
                    )
                    written.append((item, verdict))
                else:
                    self.delivery.settle_item(item, verdict)
        self.settle_written(written)
        return again, unsure

    def leave_alone(self, items: list[Item]) -> tuple[list[Item], list[Item]]:
        """Settles what needs no writing beside an opposite stream: the target shows it already, or holds a change of
        its own. Gives what is to be written, and what could not be asked for."""
        asked = [item for item in items if self.beside.concerns(item.record)]
        if not asked:
            return items, []
        again: list[Item] = []
        settled: set[int] = set()
        for item, found in zip(asked, self.found(asked), strict=True):
            if isinstance(found, Passing):
                item.passing = found
                again.append(item)
            elif isinstance(found, Absent):
                item.change = msgspec.structs.replace(item.change, target_id="", absent=True)
                continue
            elif isinstance(found, Found):
                self.heard()
                item.change = msgspec.structs.replace(item.change, target_id=found.target_id)
                self.note_shown(item, found)
                cell = self.cells.get(item.record.key)
                if found.same:
                    self.delivery.settle_item(item, Verdict(Outcome.DELIVERED, target_id=found.target_id))
                elif self.beside.may_overwrite(found, item.shown, cell, item.record.key):
                    continue
                else:
                    self.delivery.give_way(item)
            else:
                continue
            settled.add(item.place)
        return [item for item in items if item.place not in settled], again

    def settle_written(self, written: list[tuple[Item, Verdict]]) -> None:
        """Delivers what was written beside an opposite stream, with what the target shows of it."""
        if not written:
            return
        for (item, verdict), found in zip(written, self.found([item for item, _ in written]), strict=True):
            if isinstance(found, Found):
                self.note_shown(item, found)
            else:
                item.shown = item.shown_version = ""
            self.delivery.settle_item(item, verdict)

    def note_shown(self, item: Item, found: Found) -> None:
        item.shown, item.shown_version = self.beside.shown_by(found), found.version

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
        for item, found in zip(ask, self.found(ask), strict=True):
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
                why = "it may have arrived, and the target cannot be asked"
                self.delivery.settle_item(item, unknown(IN_DOUBT, why))
            elif isinstance(found, Absent):
                if item.record.operation == "delete":
                    self.delivery.settle_item(item, Verdict(Outcome.DELIVERED))
                    continue
                item.change = msgspec.structs.replace(item.change, target_id="", absent=True)
                item.doubtful = False
                send.append(item)
            else:
                self.take_found(item, found, send)
        return send

    def found(self, items: list[Item]) -> list[Probe]:
        """What the target says of each key. A connector that falls over has asked nobody."""
        try:
            probes: list[Probe] = list(self.sink.find([item.change for item in items]))
        except TransientError as error:
            probes = [Passing(str(error), NOT_ASKED, error.after, error.http_status)] * len(items)
        except AuthError:
            raise
        except WaybillError as error:
            probes = [Passing(str(error), NOT_ASKED)] * len(items)
        except Exception as error:
            self.notice("connector_fell_over", batch=self.batch.id, error=type(error).__name__)
            probes = [Passing(f"the connector failed with {type(error).__name__}", NOT_ASKED)] * len(items)
        self.delivery.now = self.home.clock.now()
        return [*probes, *[CannotAsk()] * (len(items) - len(probes))][: len(items)]

    def take_found(self, item: Item, found: Found, send: list[Item]) -> None:
        """The target holds the key: it is delivered if the content is this one, else it is an update by id, which may
        go if it can be repeated or if it certainly did not arrive."""
        beside = self.beside.concerns(item.record)
        stays = self.stream.rules.once is not None or (found.stays and not beside)
        if (found.same or stays) and item.record.operation != "delete":
            if beside:
                self.note_shown(item, found)
            self.delivery.settle_item(item, Verdict(Outcome.DELIVERED, target_id=found.target_id))
            return
        item.change = msgspec.structs.replace(item.change, target_id=found.target_id)
        if self.sink.repeatable(item.change) or found.same is False:
            item.doubtful = False
            send.append(item)
        else:
            why = "the target holds the key, and cannot say with which content"
            self.delivery.settle_item(item, unknown(IN_DOUBT, why))

    def heard(self) -> None:
        """The target answered for a record."""
        if not self.answered_portion:
            self.delivery.answered = self.answered_portion = True
            self.delivery.health.answered_at = self.delivery.now
