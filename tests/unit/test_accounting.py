"""The books: counts that add up, and an audit that finds what does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import accounting
from shared.accounting import NAMES, Counts, Entries, StreamAudit, audit_stream
from shared.outcome import LETTERS, OUTCOMES, Outcome
from tests.unit.fakes import STEADY

LETTER = st.sampled_from(sorted(OUTCOMES))
IDENTITY = st.tuples(st.sampled_from(["a", "b", "c", "d"]), st.sampled_from(["1", "2", "3"]))
BATCHES = st.lists(st.lists(st.tuples(IDENTITY, LETTER), max_size=5), max_size=5)
APPLIED = st.dictionaries(st.sampled_from(["a", "b", "c", "d", "e"]), st.sampled_from(["", "1", "2", "3", "4"]))
REPEATS = {LETTERS[Outcome.DUPLICATE], LETTERS[Outcome.UNCHANGED], LETTERS[Outcome.SUPERSEDED]}

Batch = Sequence[tuple[tuple[str, str], str]]


def entries_of(number: int, batch: Batch) -> Entries:
    keys, versions = [key for (key, _), _ in batch], [version for (_, version), _ in batch]
    return Entries(f"b{number}", "r", keys, versions, "".join(letter for _, letter in batch))


def audit(batches: Sequence[Batch], applied: dict[str, str], total: int = 0) -> StreamAudit:
    found = [entries_of(number, batch) for number, batch in enumerate(batches)]
    return audit_stream(lambda: iter(found), lambda: applied.items(), total)


@STEADY
@given(st.text(sorted(OUTCOMES), max_size=30))
def test_letters_are_counted_by_their_outcome(letters: str) -> None:
    counts = Counts(fetched=len(letters))
    counts.add_letters(letters)
    expected = Counter(OUTCOMES[letter].value for letter in letters)
    assert {name: count for name, count in counts.as_dict().items() if count and name != "fetched"} == expected
    assert counts.balanced
    assert counts.settled == len(letters) - counts.pending


def test_a_letter_that_nobody_knows_unbalances_the_books() -> None:
    counts = Counts(fetched=2)
    counts.add_letters("d!")
    assert not counts.balanced


@STEADY
@given(st.lists(st.integers(0, 9), min_size=11, max_size=11), st.lists(st.integers(0, 9), min_size=11, max_size=11))
def test_counts_add_up_field_by_field(one: list[int], other: list[int]) -> None:
    names = ("fetched", *NAMES)
    total = Counts(**dict(zip(names, one, strict=True)))
    total.add(Counts(**dict(zip(names, other, strict=True))))
    assert list(total.as_dict().values()) == [a + b for a, b in zip(one, other, strict=True)]


def test_failures_are_what_needs_a_human() -> None:
    assert Counts(invalid=1, rejected=2, exhausted=4, unknown=8, delivered=16, pending=32).failures == 15


@STEADY
@given(BATCHES, APPLIED)
def test_the_audit_agrees_with_a_simple_model(batches: list[Batch], applied: dict[str, str]) -> None:
    present: dict[tuple[str, str], str] = {}
    for batch in batches:
        for identity, letter in batch:
            if letter not in REPEATS or identity not in present:
                present[identity] = letter
    found = audit(batches, applied)
    counted = Counter(OUTCOMES[letter].value for letter in present.values())
    assert {n: c for n, c in found.counts.as_dict().items() if c and n != "fetched"} == counted
    assert found.counts.fetched == len(present)
    delivered: dict[str, str] = {}
    for (key, version), letter in present.items():
        if letter == LETTERS[Outcome.DELIVERED]:
            delivered[key] = max(version, delivered.get(key, ""))
    missing = {(key, version) for key, version in delivered.items() if applied.get(key, "") < version}
    assert {(each["key"], each["version"]) for each in found.unaccounted} == missing
    assert found.balanced == (not missing)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_many_passes_come_to_what_one_does(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    @STEADY
    @given(BATCHES, APPLIED)
    def check(batches: list[Batch], applied: dict[str, str]) -> None:
        once = audit(batches, applied)
        with monkeypatch.context() as patch:
            patch.setattr(accounting, "_PASS_SIZE", size)
            many = audit(batches, applied, total=sum(map(len, batches)))
        assert many.counts == once.counts
        assert sorted(map(str, many.unaccounted)) == sorted(map(str, once.unaccounted))

    check()


def test_a_wrong_number_of_records_is_no_reason_to_miscount(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[Batch] = [[((f"K{n}", "1"), "d") for n in range(50)]]
    applied = {f"K{n}": "1" for n in range(50)}
    monkeypatch.setattr(accounting, "_PASS_SIZE", 10)
    for total in (0, 1, 10, 11, 500, 10_000):
        assert audit(batches, applied, total).counts.delivered == 50


def test_a_delivered_record_that_the_ledger_does_not_hold_is_named() -> None:
    found = audit([[(("a", "1"), "d"), (("b", "1"), "d")]], {"a": "1"})
    assert not found.balanced
    assert found.unaccounted == [
        {"key": "b", "version": "1", "reason": "delivered by the books, not in the ledger"}
    ]  # fmt: skip


def test_an_outcome_that_nobody_knows_is_named() -> None:
    found = audit([[(("a", "1"), "!")]], {})
    assert found.unaccounted == [{"key": "a", "version": "1", "reason": "no outcome is called '!'"}]
    assert not found.balanced


@pytest.mark.parametrize("passes", [1, 3])
def test_a_batch_that_does_not_name_its_records_is_named_once(passes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounting, "_PASS_SIZE", 1)
    broken = Entries("b7", "r", ["a"], ["1", "2"], "dd")
    found = audit_stream(lambda: iter([broken]), lambda: [], passes)
    assert found.unaccounted == [{"batch": "b7", "reason": "the batch does not name all of its records"}]


def test_no_more_than_asked_are_named() -> None:
    batches: list[Batch] = [[((f"K{n}", "1"), "d") for n in range(20)]]
    entries = [entries_of(0, batches[0])]
    found = audit_stream(lambda: iter(entries), lambda: [], 0, most_named=5)
    assert len(found.unaccounted) == 5
    assert not found.balanced


def test_a_version_read_again_is_the_version_it_was() -> None:
    batches: list[Batch] = [[(("a", "1"), "d")], [(("a", "1"), "u")], [(("a", "1"), "p")]]
    counts = audit(batches, {"a": "1"}).counts
    assert (counts.fetched, counts.delivered, counts.unchanged, counts.duplicate) == (1, 1, 0, 0)


def test_a_version_that_failed_and_was_sent_later_is_what_it_came_to_at_last() -> None:
    counts = audit([[(("a", "1"), "r")], [(("a", "1"), "d")]], {"a": "1"}).counts
    assert (counts.fetched, counts.delivered, counts.rejected) == (1, 1, 0)
