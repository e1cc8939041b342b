"""How answers are written: which format a caller gets, and that what is EDN can be read as EDN."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.data_sync.formats import CSV, EDN, JSON, edn, encoded, negotiated, stamp


@pytest.mark.parametrize(
    ("accept", "content_type", "expected"),
    [
        ("", "", JSON),
        ("*/*", "", JSON),
        ("application/json", "", JSON),
        ("application/edn", "", EDN),
        ("Application/EDN; charset=utf-8", "", EDN),
        ("", "application/edn", EDN),
        ("", "application/edn; charset=utf-8", EDN),
        ("", "application/json", JSON),
        ("", "text/plain", JSON),
        ("*/*", "application/edn", EDN),
        ("application/*", "application/edn", EDN),
        ("application/*", "", JSON),
        ("application/json", "application/edn", JSON),
        ("application/edn", "application/json", EDN),
        ("application/edn;q=0.5, application/json;q=0.9", "application/edn", JSON),
        ("application/edn;q=0.9, application/json;q=0.5", "", EDN),
        ("application/edn, application/json", "", JSON),
        ("application/edn, application/json", "application/edn", EDN),
        ("application/edn, */*", "application/json", EDN),
        ("application/json;q=0, */*", "", EDN),
        ("application/edn;q=0, */*;q=0.1", "application/edn", JSON),
        ("application/edn;q=0.1, */*", "", JSON),
        ("text/html, application/xhtml+xml, */*;q=0.8", "", JSON),
        ("text/html", "application/edn", EDN),
        ("application/edn;q=nonsense, ,;;", "", JSON),
        ("application/edn;q=1.5", "", JSON),
        ("*", "application/edn", EDN),
    ],
)
def test_accept_is_asked_first_then_content_type(accept: str, content_type: str, expected: str) -> None:
    assert negotiated(accept, content_type, (JSON, EDN)) == expected


@pytest.mark.parametrize(
    ("accept", "expected"), [("text/csv", CSV), ("text/*", CSV), ("*/*", JSON), ("application/edn", JSON), ("", JSON)]
)
def test_what_is_on_offer_decides(accept: str, expected: str) -> None:
    assert negotiated(accept, "application/edn", (JSON, CSV)) == expected


@given(st.text(), st.text())
def test_no_header_ends_in_anything_but_an_offer(accept: str, content_type: str) -> None:
    assert negotiated(accept, content_type, (JSON, EDN)) in (JSON, EDN)


def test_a_status_looks_as_the_documentation_has_it() -> None:
    launch = {"id": 1790000000000, "status": "cancelled", "scheduled-time": "2022-01-14T20:00:00"}
    status = {"name": 'A "B"', "status": "enabled", "latest-launch": launch}
    assert encoded(status, EDN) == (
        b'{:name "A \\"B\\"" :status "enabled" :latest-launch '
        b'{:id 1790000000000 :status "cancelled" :scheduled-time "2022-01-14T20:00:00"}}'
    )
    assert encoded([launch], JSON) == (
        b'[{"id":1790000000000,"status":"cancelled","scheduled-time":"2022-01-14T20:00:00"}]'
    )


@pytest.mark.parametrize("value", [None, True, 1.5, b"x"], ids=repr)
def test_what_is_in_no_answer_is_not_written(value: Any) -> None:
    with pytest.raises(TypeError):
        edn(value)


TOKEN = re.compile(r'\s*(?:([{}\[\]])|:([a-z-]+)|(-?\d+)|"((?:[^"\\]|\\.)*)")', re.DOTALL)
ESCAPED = {"\\n": "\n", "\\r": "\r", "\\t": "\t", '\\"': '"', "\\\\": "\\"}


def read_edn(text: str) -> Any:
    """As a reader of EDN would take it: https://github.com/edn-format/edn."""
    values: list[list[Any]] = [[]]
    at = 0
    while at < len(text):
        found = TOKEN.match(text, at)
        assert found is not None, text[at:]
        at = found.end()
        mark, keyword, number, string = found.groups()
        if mark and mark in "{[":
            values.append([])
        elif mark:
            inside = values.pop()
            values[-1].append(dict(zip(inside[::2], inside[1::2], strict=True)) if mark == "}" else inside)
        elif keyword is not None:
            values[-1].append(keyword)
        elif number is not None:
            values[-1].append(int(number))
        else:
            values[-1].append(re.sub(r"\\(?:u....|.)", unescaped, string, flags=re.DOTALL))
    (value,) = values[0]
    return value


def unescaped(found: re.Match[str]) -> str:
    return chr(int(found[0][2:], 16)) if found[0].startswith("\\u") else ESCAPED[found[0]]


KEYS = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1)
# Half characters included: a title may hold one.
TEXTS = st.text(st.characters(codec=None))
VALUES = st.recursive(
    TEXTS | st.integers(), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4)
)


@given(VALUES)
def test_what_is_written_as_edn_is_read_as_the_same(value: Any) -> None:
    written = encoded(value, EDN).decode()
    assert read_edn(written) == value
    assert not re.search("[\x00-\x1f]", written)


def test_times_are_in_utc_without_a_zone_and_without_fractions() -> None:
    west = timezone(timedelta(hours=-3))
    assert stamp(datetime(2022, 1, 14, 17, 0, 0, 999_999, west)) == "2022-01-14T20:00:00"
    assert stamp(datetime(2022, 1, 1, 0, 0, 0, tzinfo=UTC)) == "2022-01-01T00:00:00"
