"""Records, envelopes, and the values that are derived from them."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import MalformedEnvelope
from shared.record import (
    Envelope,
    Record,
    content_hash,
    failure_id,
    join_envelope,
    lane_of,
    version_at,
    version_number,
)
from tests.unit.fakes import STEADY

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        TEXT,
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
RECORDS = st.builds(
    Record,
    key=TEXT,
    version=TEXT,
    operation=st.sampled_from(["upsert", "delete"]),
    origin=TEXT,
    position=TEXT,
    data=st.dictionaries(TEXT, JSON, max_size=4),
)
INSTANTS = st.datetimes(
    datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.sampled_from([UTC, timezone(timedelta(hours=-3))])
)


def an_envelope(*records: Record) -> Envelope:
    return Envelope("shop", "things", "things-1", "things-1.0.0", 2, list(records))


@STEADY
@given(st.lists(RECORDS, max_size=5))
def test_an_envelope_comes_out_as_it_went_in(records: list[Record]) -> None:
    envelope = an_envelope(*records)
    data = envelope.to_bytes()
    assert Envelope.from_bytes(data) == envelope
    assert Envelope.from_bytes(memoryview(data)).to_bytes() == data


@STEADY
@given(st.lists(RECORDS, max_size=5), TEXT, TEXT, st.one_of(st.just(""), st.just('],"location":""}'), TEXT))
def test_an_envelope_joined_from_encoded_records_has_the_same_bytes(
    records: list[Record], run: str, batch: str, location: str
) -> None:
    joined = join_envelope("shop", "things", run, batch, 2, [record.to_bytes() for record in records], location)
    assert joined == Envelope("shop", "things", run, batch, 2, records, location).to_bytes()


def test_a_message_of_an_earlier_version_does_not_say_where_it_came_from() -> None:
    envelope = an_envelope(Record("k", "v", "upsert", "", "", {}))
    earlier = envelope.to_bytes().replace(b',"location":""', b"")
    assert b"location" not in earlier
    assert Envelope.from_bytes(earlier) == envelope


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"integration":"shop"}',
        an_envelope().to_bytes()[:-1],
        an_envelope().to_bytes().replace(b'"lane":2', b'"lane":"2"'),
        an_envelope(Record("k", "v", "upsert", "", "", {})).to_bytes().replace(b"upsert", b"insert"),
        an_envelope(Record("k", "v", "upsert", "", "", {})).to_bytes().replace(b'"k",', b""),
        an_envelope(Record("k", "v", "upsert", "", "", {})).to_bytes().replace(b"{}", b"[]"),
    ],
    ids=repr,
)
def test_bytes_that_no_envelope_made_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedEnvelope):
        Envelope.from_bytes(data)


@STEADY
@given(TEXT, st.integers(1, 64))
def test_a_key_has_one_lane(key: str, lanes: int) -> None:
    assert 0 <= lane_of(key, lanes) < lanes
    assert lane_of(key, lanes) == lane_of(str(key), lanes)


def test_the_lane_of_a_key_stays_what_it_was() -> None:
    """Batches of an older release wait in their lanes while a newer one is deployed."""
    assert [lane_of(key, 8) for key in ("a", "52998224725", "JOÃO", "")] == [3, 4, 6, 0]


@pytest.mark.parametrize("lanes", [2, 4, 7, 32])
def test_keys_spread_over_the_lanes(lanes: int) -> None:
    keys = [f"{number:014d}" for number in range(0, 200_000, 17)]
    found = Counter(lane_of(key, lanes) for key in keys)
    fair = len(keys) / lanes
    assert set(found) == set(range(lanes))
    assert all(0.8 * fair < count < 1.2 * fair for count in found.values())


@STEADY
@given(st.dictionaries(TEXT, JSON, max_size=6), st.randoms(use_true_random=False))
def test_equal_content_has_equal_fingerprints_in_whatever_order_it_was_built(
    content: dict[str, Any], dice: Any
) -> None:
    names = list(content)
    dice.shuffle(names)
    assert content_hash({name: content[name] for name in names}) == content_hash(content)


@STEADY
@given(st.dictionaries(TEXT, JSON, min_size=1, max_size=4), JSON)
def test_other_content_has_another_fingerprint(content: dict[str, Any], other: Any) -> None:
    name = next(iter(content))
    changed = content | {name: other}
    same = msgspec.json.encode(changed, order="sorted") == msgspec.json.encode(content, order="sorted")
    assert (content_hash(changed) == content_hash(content)) == same


@STEADY
@given(INSTANTS, INSTANTS, st.integers(0, 10**12 - 1), st.integers(0, 10**12 - 1))
def test_versions_sort_as_time_and_then_id_do(one: datetime, other: datetime, first: int, second: int) -> None:
    assert (version_at(one, first) < version_at(other, second)) == ((one, first) < (other, second))


@STEADY
@given(INSTANTS, st.integers(0, 10**12 - 1))
def test_a_version_is_the_same_in_every_zone(instant: datetime, origin: int) -> None:
    elsewhere = instant.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert version_at(instant, origin) == version_at(elsewhere, origin) == version_at(instant, str(origin))


@STEADY
@given(st.integers(0, 10**20 - 1), st.integers(0, 10**20 - 1))
def test_numbered_versions_sort_as_their_numbers_do(one: int, other: int) -> None:
    assert (version_number(one) < version_number(other)) == (one < other)


@STEADY
@given(TEXT, TEXT, TEXT, TEXT)
def test_a_record_fails_under_the_same_id_however_often(integration: str, stream: str, key: str, version: str) -> None:
    assert failure_id(integration, stream, key, version) == failure_id(integration, stream, key, version)


def test_the_id_of_a_failure_stays_what_it_was() -> None:
    """A failure of an older release is found again when its record fails once more."""
    assert failure_id("shop", "things", "K1", "v1") == "07edb489aba83ad3"


def test_no_two_records_fail_under_one_id() -> None:
    identities_of = [("a", "b", "c", "d"), ("ab", "", "c", "d"), ("a", "bc", "", "d"), ("a", "b", "cd", "")]
    assert len({failure_id(*identity) for identity in identities_of}) == len(identities_of)
    many = {failure_id("shop", "things", f"K{key}", str(version)) for key in range(500) for version in range(20)}
    assert len(many) == 10_000
