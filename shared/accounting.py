"""The books: counts that must add up, per run and over everything ever fetched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from shared.outcome import LETTERS, OUTCOMES, Outcome

NAMES: Final = tuple(outcome.value for outcome in Outcome)
_LETTER: Final = tuple((outcome.value, letter) for letter, outcome in OUTCOMES.items())
_REPEATS: Final = frozenset({LETTERS[Outcome.DUPLICATE], LETTERS[Outcome.UNCHANGED], LETTERS[Outcome.SUPERSEDED]})
_APPLIED: Final = LETTERS[Outcome.DELIVERED]
_PASS_SIZE: Final = 150_000


class Counts(msgspec.Struct):
    """How many records were fetched, and how many of them came to each outcome."""

    fetched: int = 0
    filtered: int = 0
    duplicate: int = 0
    invalid: int = 0
    unchanged: int = 0
    superseded: int = 0
    delivered: int = 0
    rejected: int = 0
    exhausted: int = 0
    unknown: int = 0
    pending: int = 0

    def add_letters(self, outcomes: str) -> None:
        """Counts the outcomes of one batch. What was fetched is counted apart, by the reader of the pages."""
        for name, letter in _LETTER:
            found = outcomes.count(letter)
            if found:
                setattr(self, name, getattr(self, name) + found)

    def add(self, other: Counts) -> None:
        for name in ("fetched", *NAMES):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def settled(self) -> int:
        return sum(int(getattr(self, name)) for name in NAMES) - self.pending

    @property
    def balanced(self) -> bool:
        """fetched = the sum of all outcomes, pending included."""
        return self.fetched == self.settled + self.pending

    @property
    def failures(self) -> int:
        return self.invalid + self.rejected + self.exhausted + self.unknown

    def as_dict(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("fetched", *NAMES)}


class Entries(msgspec.Struct):
    """What one batch says of its records: identity and present outcome, place by place."""

    batch: str
    run: str
    keys: list[str]
    versions: list[str]
    outcomes: str


class StreamAudit(msgspec.Struct):
    """The present outcome of every record version ever fetched, and what cannot be accounted for."""

    counts: Counts
    unaccounted: list[dict[str, str]]

    @property
    def balanced(self) -> bool:
        return self.counts.balanced and not self.unaccounted


def audit_stream(
    entries: Callable[[], Iterator[Entries]],
    applied: Callable[[], Iterable[tuple[str, str]]],
    total: int,
    most_named: int = 1000,
) -> StreamAudit:
    """Proves the books of one stream by identity.

    `entries` gives the batches of all fetching runs, oldest first; `applied` the (key, version) of every ledger cell;
    `total` about how many records there are: identities are compared in as many passes as keep memory bounded. A
    version read again (as duplicate, unchanged or superseded) is the version it was. A delivered version whose key the
    ledger does not hold, or holds at an older version, is unaccounted for; so is an outcome nobody knows.
    """
    counts = Counts()
    missing: list[dict[str, str]] = []
    passes = max(1, -(-total // _PASS_SIZE))
    for part in range(passes):
        present: dict[tuple[str, str], str] = {}
        for batch in entries():
            if not len(batch.keys) == len(batch.versions) == len(batch.outcomes):
                if part == 0:
                    missing.append({"batch": batch.batch, "reason": "the batch does not name all of its records"})
                continue
            identities = zip(batch.keys, batch.versions, strict=True)
            if passes == 1 and _REPEATS.isdisjoint(batch.outcomes):
                present.update(zip(identities, batch.outcomes, strict=True))
                continue
            for identity, letter in zip(identities, batch.outcomes, strict=True):
                if passes > 1 and hash(identity[0]) % passes != part:
                    continue
                if letter not in _REPEATS or identity not in present:
                    present[identity] = letter
        counts.fetched += len(present)
        counts.add_letters("".join(present.values()))
        missing.extend(_unaccounted(present, applied))
    return StreamAudit(counts, missing[:most_named])


def _unaccounted(
    present: dict[tuple[str, str], str], applied: Callable[[], Iterable[tuple[str, str]]]
) -> Iterator[dict[str, str]]:
    """The identities whose outcome nobody knows, and those that were delivered and that the ledger does not hold."""
    tally = Counter(present.values())
    if tally.keys() - OUTCOMES.keys():
        for (key, version), letter in present.items():
            if letter not in OUTCOMES:
                yield {"key": key, "version": version, "reason": f"no outcome is called {letter!r}"}
    # Nearly always every delivered version is the one that its cell holds, and no second table of keys is needed.
    if sum(present.get(identity) == _APPLIED for identity in applied()) == tally[_APPLIED]:
        return
    newest: dict[str, str] = {}
    for (key, version), letter in present.items():
        if letter == _APPLIED and version > newest.get(key, ""):
            newest[key] = version
    for key, version in applied():
        wanted = newest.get(key)
        if wanted is not None and version >= wanted:
            del newest[key]
    for key, version in sorted(newest.items()):
        yield {"key": key, "version": version, "reason": "delivered by the books, not in the ledger"}
