"""The ten outcomes, their letters, and the verdicts."""

from __future__ import annotations

import msgspec
import pytest

from shared.accounting import NAMES, Counts
from shared.outcome import (
    DOUBTFUL,
    FAILED,
    LETTERS,
    OUTCOMES,
    Outcome,
    Verdict,
    delivered,
    rejected,
    unknown,
)


def test_there_are_ten_outcomes_by_the_names_of_the_outside_interface() -> None:
    assert [outcome.value for outcome in Outcome] == [
        "filtered", "duplicate", "invalid", "unchanged", "superseded",
        "delivered", "rejected", "exhausted", "unknown", "pending",
    ]  # fmt: skip


def test_each_outcome_has_a_letter_of_its_own_that_leads_back_to_it() -> None:
    assert set(LETTERS) == set(Outcome)
    assert all(len(letter) == 1 for letter in LETTERS.values())
    assert {OUTCOMES[letter] for letter in LETTERS.values()} == set(Outcome)
    assert len(set(LETTERS.values())) == len(Outcome)


def test_a_record_in_doubt_is_pending_under_another_letter() -> None:
    assert OUTCOMES[DOUBTFUL] is Outcome.PENDING
    assert DOUBTFUL not in LETTERS.values()


def test_four_outcomes_need_a_human_or_a_replay() -> None:
    assert {"invalid", "rejected", "exhausted", "unknown"} == FAILED


def test_the_counts_have_one_field_per_outcome() -> None:
    assert msgspec.structs.asdict(Counts()).keys() == {"fetched", *NAMES}
    assert {outcome.value for outcome in Outcome} == set(NAMES)


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        (delivered("T1"), Outcome.DELIVERED),
        (rejected(50, "no", 422), Outcome.REJECTED),
        (unknown(119, "?", 200), Outcome.UNKNOWN),
    ],
)
def test_verdicts_carry_what_they_were_given(verdict: Verdict, outcome: Outcome) -> None:
    assert verdict.outcome is outcome
    if outcome is Outcome.DELIVERED:
        assert verdict.target_id == "T1"
    else:
        assert verdict.number
        assert verdict.reason
        assert verdict.http_status


def test_an_outcome_is_its_name() -> None:
    assert f"{Outcome.DELIVERED}" == "delivered"
    assert msgspec.json.encode(Outcome.UNKNOWN) == b'"unknown"'
