"""Durations and rates: what is accepted, what is refused, and that printing and parsing agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.quantities import (
    DURATION_FORMS,
    LONGEST,
    RATE_FORMS,
    Rate,
    format_duration,
    format_rate,
    parse_duration,
    parse_rate,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0.0),
        ("0d", 0.0),
        ("30s", 30.0),
        ("250ms", 0.25),
        ("9ms", 0.009),
        ("0.5ms", 0.0005),
        ("0.5s", 0.5),
        ("10m", 600.0),
        ("1.5m", 90.0),
        ("2h", 7200.0),
        ("50d", 4_320_000.0),
        ("36500d", LONGEST),
    ],
)
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "10", "s", "-1s", "+1s", "1 s", " 1s", "1s ", "1s\n", ".5s", "1.s", "1e3s", "1S", "1w", "36501d", "٣s"]
)
def test_a_bad_duration_is_refused_with_the_accepted_forms(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse_duration(text)
    assert repr(text) in str(refused.value)
    assert DURATION_FORMS in str(refused.value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (-0.0, "0s"),
        (90.0, "90s"),
        (600.0, "10m"),
        (7200.0, "2h"),
        (4_320_000.0, "50d"),
        (0.25, "250ms"),
        (0.0005, "0.0005s"),
        (1.5, "1.5s"),
        (1e-7, "0.0000001s"),
        (60, "1m"),
    ],
)
def test_a_duration_is_printed_in_its_usual_form(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan"), LONGEST * 2])
def test_what_is_no_duration_is_not_printed(seconds: float) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        format_duration(seconds)


@given(st.floats(min_value=0, max_value=LONGEST))
def test_a_printed_duration_parses_to_the_same_seconds(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(min_value=0, max_value=36_500), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_a_parsed_duration_prints_to_the_same_length(number: int, unit: str) -> None:
    seconds = parse_duration(f"{number}{unit}")
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "rate"),
    [("120/min", Rate(120, 60.0)), ("1/s", Rate(1, 1.0)), ("10/h", Rate(10, 3600.0)), ("none", None)],
)
def test_a_rate_is_read_as_a_count_and_a_period(text: str, rate: Rate | None) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "0/s", "-1/s", "1.5/s", "120", "120/minute", "120 / min", "None", "/s", "1/s\n"])
def test_a_bad_rate_is_refused_with_the_accepted_forms(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse_rate(text)
    assert repr(text) in str(refused.value)
    assert RATE_FORMS in str(refused.value)


@given(st.none() | st.builds(Rate, st.integers(1, 999_999_999), st.sampled_from([1.0, 60.0, 3600.0])))
def test_a_printed_rate_parses_to_the_same_rate(rate: Rate | None) -> None:
    assert parse_rate(format_rate(rate)) == rate


@pytest.mark.parametrize("rate", [Rate(1, 2.0), Rate(0, 1.0)])
def test_what_has_no_written_form_is_not_printed_as_a_rate(rate: Rate) -> None:
    with pytest.raises(ValueError, match="expected a rate"):
        format_rate(rate)
