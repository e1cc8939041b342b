"""What the two stories need of the world: small ports, in the project's words.

Both homes (`infra/local`, `infra/gcp`) implement them and pass one contract suite (`tests/contract`). Every call may
raise StoreUnavailable, after which nothing may be assumed of what is stored. A write that takes a lease or an attempt
is refused with Fenced, and leaves nothing behind, once another holder took over. Instants are aware and in UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import msgspec

from shared.accounting import Counts, Entries
from shared.books import Batch, Closure, Failure, FailureQuery, Run, Settlement, StreamState
from shared.confirm import Awaited
from shared.ledger import Cell
from shared.monitoring import Monitored

if TYPE_CHECKING:
    from shared.launches import Launches
    from shared.objects import Objects
    from shared.snapshot.history import History
    from shared.tokens import Tokens


class Lease(msgspec.Struct, frozen=True):
    """The right to write for one stream. `token` grows with each taker: a later token fences off an earlier one."""

    name: str
    token: int
    holder: str


class Message(msgspec.Struct, frozen=True):
    """What a bus carries: bytes, an ordering key (empty for none) and attributes."""

    data: bytes
    ordering_key: str = ""
    attributes: dict[str, str] = {}


class Clock(Protocol):
    """Time, passed in."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float) -> None:
        """Returns early when the process was asked to stop."""

    def random(self) -> float:
        """A number in [0, 1)."""


class Leases(Protocol):
    """One holder per name. A lease ends when it is released, when it expires, or (embedded) when its holder dies."""

    def take(self, name: str) -> Lease:
        """Raises Leased while another holder is alive."""

    def renew(self, lease: Lease) -> None:
        """Raises Fenced if another took over."""

    def release(self, lease: Lease) -> None:
        """Does nothing if another took over."""

    def holder(self, name: str) -> str | None:
        """Who holds it, for people."""


class Runs(Protocol):
    """Runs, their checkpoints, and what a stream remembers."""

    def commit(
        self,
        lease: Lease,
        run: Run,
        batches: Sequence[Batch] = (),
        failures: Sequence[Failure] = (),
        cells: Sequence[Cell] = (),
        closures: Sequence[Closure] = (),
        monitored: Monitored | None = None,
    ) -> None:
        """Writes all of it or none, if the lease still holds. Creates the run the first time.

        Monitoring rows come with it exactly once, or (Google Cloud) at least once: they are published before.

        A delivery may end meanwhile: of a cell that is there already only the failed version is raised.
        """

    def finish(self, lease: Lease, run: Run, state: StreamState) -> None:
        """Writes the run and what its stream remembers together, if the lease still holds."""

    def conclude(self, run: Run) -> None:
        """Writes how a run ended, once it is read or given up and nothing of it is pending. Nothing is written where it
        is not there any more, or as it was read: the books may have been replaced meanwhile."""

    def get(self, run: str) -> Run | None: ...

    def recent(self, integration: str | None, stream: str | None, most: int) -> list[Run]:
        """Newest first."""

    def unfinished(self, integration: str, stream: str) -> list[Run]:
        """Runs that are not over, oldest first."""

    def state(self, integration: str, stream: str) -> StreamState: ...


class Batches(Protocol):
    """The committed batches: the truth about what travels and what became of it."""

    def published(self, batches: Sequence[str], at: datetime) -> None: ...

    def begin(self, batch: str, attempt: str) -> tuple[Batch | None, str]:
        """Marks a batch as being sent by this attempt, and gives it with the earlier attempt that left it so ("" if
        none).

        Gives None for a batch that is settled or not there. Raises Leased while another live attempt has it.
        """

    def settle(self, settlement: Settlement) -> None:
        """Writes all of it or none. Raises Fenced if the attempt no longer has the batch. Monitoring rows as in
        `Runs.commit`."""

    def renew(self, batch: str, attempt: str) -> None:
        """Keeps a batch in this attempt's hands. Raises Fenced if another took over."""

    def let_go(self, batch: str, attempt: str) -> None:
        """This attempt is over. What it left in `sending` is in doubt for the next one, which need not wait for it."""

    def of_run(self, run: str) -> Iterator[Batch]:
        """Oldest first."""

    def unsettled(self, integration: str, stream: str | None = None) -> Iterator[Batch]:
        """Oldest first, so that what is published again keeps the order of its lane."""

    def naming(self, integration: str, stream: str, *keys: str) -> Iterator[Batch]:
        """The batches that carry a record of one of these keys, oldest first."""

    def get(self, batch: str) -> Batch | None: ...

    def refuse_later(self, request: str, failures: Sequence[Failure], table: str = "") -> int:
        """Turns delivered records into these failures, one per key of one stream: each failure, its cell (as
        `shared.ledger.refused_later` has it) and the present outcome of its place are written as one, all of them or
        none. Those whose cell is not under the request are left out. Says how many were not. `table` is the stream's
        monitoring table, whose rows come with them as in `Runs.commit`."""


class Books(Protocol):
    """Reading over all batches, for audit and accounts."""

    def counts(self, run: str) -> Counts:
        """The outcomes that the batches of a run settled on, and what the run fetched."""

    def rules(self, run: str) -> dict[str, int]:
        """How many records each rule filtered."""

    def entries(self, integration: str, stream: str) -> Iterator[Entries]:
        """The present outcomes of all fetching runs, oldest batch first."""

    def fetched(self, integration: str, stream: str) -> int:
        """What all fetching runs say that they fetched."""


class Ledger(Protocol):
    """One cell per key."""

    def cells(self, integration: str, stream: str, keys: Sequence[str]) -> dict[str, Cell]:
        """The cells of these keys, in one round trip; keys without one are left out."""

    def scan(self, integration: str, stream: str) -> Iterator[Cell]:
        """All cells, in no particular order."""

    def versions(self, integration: str, stream: str) -> Iterator[tuple[str, str]]:
        """Key and applied version of all cells: what an audit compares with."""


class Failures(Protocol):
    """Records that need a human or a replay."""

    def find(self, query: FailureQuery) -> Iterator[Failure]:
        """Oldest first, open ones unless asked otherwise."""

    def count(self, query: FailureQuery) -> int: ...

    def remove_closed(self, integration: str, before: datetime) -> int:
        """Removes failures that were closed before then, and says how many. Open ones stay."""


class Confirmations(Protocol):
    """Requests whose end their targets tell later. Settlements write them."""

    def due(self, integration: str, stream: str, now: datetime) -> Iterator[Awaited]:
        """Those that are pending and whose next look is due, the longest due first."""

    def note(self, awaited: Awaited) -> None:
        """Writes what the target said, and when it is asked again. What the request carried stays as it is stored. Does
        nothing for one that is not there."""

    def pending(self, integration: str, stream: str) -> tuple[int, int]:
        """How many requests have not ended, and how many records they carried."""

    def refused(self, integration: str, stream: str, since: datetime | None = None) -> dict[str, int]:
        """The records that were refused by reason, over the requests that have ended, or have since then."""

    def remove_ended(self, integration: str, before: datetime) -> int:
        """Removes requests that ended before then, and says how many. Pending ones stay."""


class Bus(Protocol):
    """Carries messages at least once, in order per ordering key."""

    def publish(self, topic: str, messages: Sequence[Message]) -> None:
        """Returns when all of them are safe with the bus."""

    def carries(self, topic: str, batches: Sequence[str]) -> set[str] | None:
        """Which of these batches it still has a message of; None where a bus cannot say."""


class Blobs(Protocol):
    """Files by name. A name that was written holds either nothing or all of what was written."""

    def write(self, name: str, data: bytes) -> None: ...

    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> int:
        """Writes what comes piece by piece, never all of it in memory, and says how many bytes it was. Where the pieces
        end with an exception, the name holds what it held before."""

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Raises FileNotFoundError."""

    def size(self, name: str) -> int:
        """In bytes. Raises FileNotFoundError."""

    def delete(self, name: str) -> None: ...

    def names(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        """Names with this prefix, each with the time of its writing."""


class Schedule(Protocol):
    """When a stream runs by itself."""

    def next_run(self, integration: str, stream: str, cron: str | None) -> datetime | None:
        """None while paused or without a schedule."""

    def pause(self, integration: str) -> None: ...

    def resume(self, integration: str) -> None: ...

    def paused(self, integration: str) -> bool: ...


class Alerts(Protocol):
    """What is wrong at the moment, so that people hear of a change once."""

    def change(self, name: str, raised: bool, text: str) -> bool:
        """Raises or clears an alert; True if that changed anything."""

    def raised(self) -> dict[str, str]:
        """The alerts that are up, with their texts."""


class Monitoring(Protocol):
    """The monitoring tables, as far as they are not written with what they tell of (`Runs.commit`)."""

    def remove(self, integration: str, dataset: str, table: str, before: datetime) -> int:
        """Removes an integration's rows that were written before then, and says how many."""


class Home(msgspec.Struct, frozen=True):
    """Everything a story needs, from one of the two homes."""

    leases: Leases
    runs: Runs
    batches: Batches
    books: Books
    ledger: Ledger
    failures: Failures
    confirmations: Confirmations
    bus: Bus
    blobs: Blobs
    snapshots: Blobs
    """The folders of the snapshots, and nothing else."""
    history: History
    schedule: Schedule
    launches: Launches
    tokens: Tokens
    objects: Objects
    alerts: Alerts
    monitoring: Monitoring
    clock: Clock


Notice = Callable[..., None]
"""Told what happens: `notice(action, **fields)`; fields carry ids and counts, never a person or a token."""


def topic_of(integration: str) -> str:
    """The topic of an integration's batches."""
    return f"{integration}-records"


def continuation_topic(integration: str) -> str:
    """The topic that brings a run back to its source function."""
    return f"{integration}-continue"


def monitoring_topic(integration: str) -> str:
    """The topic of an integration's monitoring rows."""
    return f"{integration}-monitoring"


def dead_topic(topic: str) -> str:
    """Where messages go that ended whoever took them, or that nobody understands."""
    return f"{topic}-dead"


def lease_name(integration: str, stream: str) -> str:
    """The name of a stream's lease."""
    return f"{integration}.{stream}"
