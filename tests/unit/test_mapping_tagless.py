"""What is sent to an ad platform of a row: its columns as fields, and of a person nothing that is not hashed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from functions.tagless_crm import values
from functions.tagless_crm.mapping import DESTINATIONS, rules
from functions.tagless_crm.people import Reading
from infra.google_api import camel, unhashed
from infra.systems.ga4 import limits
from shared.declared.convert import EPOCH
from shared.errors import (
    MAIL_IN_CLEAR,
    MALFORMED,
    MALFORMED_PERSONAL,
    UNKNOWN_FIELD,
    UNMAPPABLE,
    WRONG_TYPE,
    RecordError,
)
from shared.personal import in_base64, sha256
from shared.record import content_hash

Row = dict[str, Any]
ANA: Final = sha256("anasilva@gmail.com")
PHONE: Final = sha256("+5511987654321")
SETTINGS: Final[Mapping[str, Row]] = {
    "data_manager_events": {"destinations": [{}]},
    "data_manager_audience": {"destinations": [{}]},
    "customer_match": {"user_list": "7"},
}
PEOPLE: Final = {
    "data_manager_events": ("email_address", "phone_number", "address.given_name"),
    "data_manager_audience": ("email_address", "phone_number", "address.given_name"),
    "google_ads_conversions": ("hashed_email", "hashed_phone_number", "address_info.hashed_first_name"),
    "customer_match": ("hashed_email", "hashed_phone_number", "address_info.hashed_first_name"),
    "cm360": ("hashed_email", "hashed_phone_number", "address_info.hashed_first_name"),
}


def mapping(destination: str, settings: Row | None = None, **keys: Any) -> Callable[[Row], Row]:
    return rules(
        {
            "destination": destination,
            "from": {"system": "files", "path": "x"},
            "settings": {**SETTINGS.get(destination, {}), **(settings or {})},
            **keys,
        }
    ).to_target


def refused(make: Callable[[Row], Row], row: Row) -> tuple[str, int, str]:
    with pytest.raises(RecordError) as caught:
        make(row)
    return caught.value.field, caught.value.number, caught.value.reason


def identifiers(content: Row) -> list[Row]:
    found = content.get("user_data", content).get("user_identifiers", [])
    assert isinstance(found, list)
    return found


# --- one destination after another ---


def test_an_event_of_ga4_is_nested_and_typed() -> None:
    row = {
        "_identity": "T1",
        "client_id": "1.2",
        "user_id": 77,
        "name": "purchase",
        "timestamp_micros": "2026-06-01T10:00:00-03:00",
        "params.value": "129.90",
        "params.engagement_time_msec": "100",
        "params.currency": "BRL",
        "params.coupon": " ",
        "params.margin": "12",
        "params.items": '[{"item_id": "A", "price": "9.5", "margin": "3"}]',
        "user_properties.tier.value": "7",
        "user_properties.age.value": "41",
        "user_properties.age.timestamp_micros": "1790000000000000",
        "user_data.sha256_email_address": "Ana.Silva@gmail.com",
        "user_data.address": '[{"sha256_first_name": "Ana", "country": "br"}]',
        "non_personalized_ads": "FALSE",
        "store": "Rua A",
    }
    numbers = ["params.margin", "params.items.margin", "user_properties.age.value"]
    content = mapping("ga4", numbers=numbers)(row)
    assert content == {
        "client_id": "1.2",
        "user_id": "77",
        "name": "purchase",
        "timestamp_micros": 1_780_318_800_000_000,
        "params": {
            "value": 129.9,
            "engagement_time_msec": 100,
            "currency": "BRL",
            "margin": 12,
            "items": [{"item_id": "A", "price": 9.5, "margin": 3}],
        },
        "user_properties": {
            "tier": {"value": "7"},
            "age": {"value": 41, "timestamp_micros": 1_790_000_000_000_000},
        },
        "user_data": {
            "sha256_email_address": ANA,
            "address": [{"sha256_first_name": sha256("ana"), "country": "BR"}],
        },
        "non_personalized_ads": False,
    }
    limits.check(content)


def test_a_conversion_of_data_manager_has_an_identifier_for_each_that_a_person_is_known_by() -> None:
    row = {
        "event_timestamp": "2026-06-01 13:00:00 UTC",
        "transaction_id": 1001,
        "ad_identifiers.gclid": "g",
        "phone_number": "(11) 98765-4321",
        "email_address": "ana.silva+shop@GMAIL.com",
        "user_data.user_identifiers.1.email_address": "ana@example.com",
        "conversion_value": "9.90",
        "custom_variables.1.variable": "b",
        "custom_variables.0.variable": "a",
    }
    assert mapping("data_manager_events", region="BR")(row) == {
        "event_timestamp": "2026-06-01T13:00:00Z",
        "transaction_id": "1001",
        "ad_identifiers": {"gclid": "g"},
        "user_data": {
            "user_identifiers": [
                {"email_address": ANA},
                {"phone_number": PHONE},
                {"email_address": sha256("ana@example.com")},
            ]
        },
        "conversion_value": 9.9,
        "custom_variables": [{"variable": "a"}, {"variable": "b"}],
    }


def test_a_conversion_of_google_ads_has_its_time_with_an_offset() -> None:
    row = {
        "gclid": "g",
        "conversion_date_time": "2026-06-01T10:00:00.750-03:00",
        "conversion_value": 5,
        "user_identifiers": '[{"hashed_email": "Ana.Silva@gmail.com", "hashed_phone_number": "+5511987654321",'
        ' "user_identifier_source": "FIRST_PARTY"}]',
        "cart_data.items.0.quantity": "2",
    }
    assert mapping("google_ads_conversions")(row) == {
        "gclid": "g",
        "conversion_date_time": "2026-06-01 10:00:00-03:00",
        "conversion_value": 5,
        "user_identifiers": [
            {"hashed_email": ANA, "user_identifier_source": "FIRST_PARTY"},
            {"hashed_phone_number": PHONE, "user_identifier_source": "FIRST_PARTY"},
        ],
        "cart_data": {"items": [{"quantity": 2}]},
    }


def test_a_conversion_of_campaign_manager_has_whole_numbers() -> None:
    row = {
        "match_id": "m",
        "timestamp_micros": "2026-06-01T13:00:00Z",
        "value": "1.5",
        "quantity": "2",
        "ordinal": 9_007_199_254_740_993,
        "limit_ad_tracking": "true",
        "custom_variables": [{"type": "U1", "value": 3}],
    }
    assert mapping("cm360")(row) == {
        "match_id": "m",
        "timestamp_micros": 1_780_318_800_000_000,
        "value": 1.5,
        "quantity": 2,
        "ordinal": 9_007_199_254_740_993,
        "limit_ad_tracking": True,
        "custom_variables": [{"type": "U1", "value": "3"}],
    }


def test_a_member_may_be_known_by_something_else_than_a_person() -> None:
    audience = mapping("data_manager_audience")
    assert audience({"mobile_data.mobile_ids.0": "a", "mobile_data.mobile_ids.1": "b"}) == {
        "mobile_data": {"mobile_ids": ["a", "b"]}
    }
    found = audience({"composite_data.user_data.user_identifiers.email_address": "Ana.Silva@gmail.com"})
    assert found == {"composite_data": {"user_data": {"user_identifiers": [{"email_address": ANA}]}}}
    assert mapping("customer_match")({"mobile_id": "a-1"}) == {"user_identifiers": [{"mobile_id": "a-1"}]}


@pytest.mark.parametrize("destination", list(DESTINATIONS))
def test_a_row_without_any_of_the_columns_is_an_empty_content(destination: str) -> None:
    assert mapping(destination)({"_identity": "x", "notes": "y", "gender": None}) == {}


# --- any row and back ---

TEXTS: Final = st.text(
    st.characters(codec="utf-8", exclude_characters="@", exclude_categories=("Cs", "Cc")), min_size=1
)
NUMBERS: Final = st.integers(-(10**9), 10**9) | st.decimals(-1000, 1000, places=3).map(float)
INSTANTS: Final = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.timezones()).filter(
    lambda at: (at.utcoffset() or timedelta()) % timedelta(minutes=1) == timedelta(0)
)
OF_KIND: Final[Mapping[Any, st.SearchStrategy[Any]]] = {
    values.text: TEXTS.filter(lambda text: bool(text.strip())),
    values.number: NUMBERS,
    values.whole: st.integers(0, 2**63 - 1),
    values.boolean: st.booleans(),
    values.micros: st.integers(1, 10**18),
    values.rfc_3339: st.just("2026-06-01T10:00:00.250000-03:00") | st.just("2026-06-01T13:00:00Z"),
    values.seconds_with_offset: st.just("2026-06-01 10:00:00-03:00"),
}
LISTS: Final = {
    "cart_data": {"items": st.lists(st.fixed_dictionaries({"quantity": st.integers(1, 9), "unit_price": NUMBERS}))},
    "params": {
        "value": NUMBERS,
        "currency": OF_KIND[values.text],
        "items": st.lists(st.fixed_dictionaries({"item_id": OF_KIND[values.text], "price": NUMBERS})),
    },
    "user_properties": {"tier": {"value": OF_KIND[values.text]}},
    "encrypted_user_id_candidates": st.lists(OF_KIND[values.text]),
    "destination_references": st.lists(OF_KIND[values.text]),
}


def some_of(fields: Mapping[str, Any], lists: Any = LISTS) -> st.SearchStrategy[Row]:
    """Contents that hold some of the fields; what is empty is none."""
    made = {}
    for name, kind in fields.items():
        inner = lists.get(name) if isinstance(lists, Mapping) else None
        if isinstance(inner, Mapping) and not isinstance(kind, Mapping):
            made[name] = some_of(inner, {})
        elif isinstance(inner, st.SearchStrategy):
            made[name] = inner
        elif isinstance(kind, Mapping):
            made[name] = some_of(kind, inner or {})
        elif isinstance(kind, st.SearchStrategy):
            made[name] = kind
        elif kind in OF_KIND:
            made[name] = OF_KIND[kind]
    return st.fixed_dictionaries({}, optional=made).map(
        lambda content: {name: each for name, each in content.items() if each not in ({}, [])}
    )


CONTENTS: Final = {name: some_of(each.table(Reading()).fields) for name, each in DESTINATIONS.items()}


def cells(content: Any, column: str, in_json: bool) -> Iterator[tuple[str, str]]:
    """A content as the columns of a CSV."""
    if isinstance(content, dict):
        for name, each in content.items():
            yield from cells(each, f"{column}.{name}" if column else name, in_json)
    elif isinstance(content, list) and in_json:
        yield column, msgspec.json.encode(content).decode()
    elif isinstance(content, list):
        for place, each in enumerate(content):
            yield from cells(each, f"{column}.{place}", in_json)
    elif isinstance(content, bool):
        yield column, str(content).lower()
    else:
        yield column, str(content)


def same(one: Any, other: Any) -> bool:
    return content_hash(one) == content_hash(other)


@pytest.mark.parametrize("destination", list(DESTINATIONS))
@given(data=st.data())
def test_a_row_made_of_a_content_is_that_content_again(destination: str, data: st.DataObject) -> None:
    content = data.draw(CONTENTS[destination])
    make = mapping(destination, ignore=["_none"])
    flat = list(cells(content, "", data.draw(st.booleans())))
    permuted = dict(data.draw(st.permutations(flat)))
    assert same(make({"_identity": "x", **permuted, "notes": "y"}), content)
    assert same(make(content), content), "as JSON lines, or BigQuery's records"


@given(at=INSTANTS)
@example(at=datetime(2012, 3, 11, 1, fold=1, tzinfo=ZoneInfo("America/Montevideo")))
def test_an_instant_stays_the_same_in_each_form(at: datetime) -> None:
    # In an hour that a zone has twice, Python calls a time of the zone unequal to any of another one.
    moment = at.astimezone(UTC)
    assert EPOCH + timedelta(microseconds=values.micros(at.isoformat(), "at")) == moment
    assert datetime.fromisoformat(values.rfc_3339(at.isoformat(), "at")) == moment
    written = values.seconds_with_offset(at.isoformat(), "at")
    assert datetime.fromisoformat(written) == moment - timedelta(microseconds=at.microsecond)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d", written)


@pytest.mark.parametrize("destination", list(PEOPLE))
def test_the_order_of_columns_is_of_no_account_to_identifiers(destination: str) -> None:
    email, phone, name = PEOPLE[destination]
    home = name.partition(".")[0]
    rest = {"region_code": "BR", "family_name": "Silva", "postal_code": "1"}
    if home == "address_info":
        rest = {"country_code": "BR", "hashed_last_name": "Silva", "postal_code": "1"}
    row = {email: "ana@example.com", phone: "+5511987654321", name: "Ana"} | {
        f"{home}.{part}": value for part, value in rest.items()
    }
    make = mapping(destination)
    found = identifiers(make(row))
    assert [next(iter(each)) for each in found] == [email, phone, home]
    assert make(dict(reversed(row.items()))) == make(row)


# --- nothing unhashed leaves ---


def leaves(value: Any) -> Iterator[Any]:
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from leaves(each)
    if not isinstance(value, dict | list):
        yield value


PERSONAL: Final = st.emails() | TEXTS | st.sampled_from(["Ana.Silva@gmail.com", ANA, in_base64(ANA), "+5511987654321"])


@pytest.mark.parametrize("destination", list(PEOPLE))
@given(data=st.data())
def test_whatever_stands_in_the_columns_of_a_person_leaves_hashed_or_not_at_all(
    destination: str, data: st.DataObject
) -> None:
    settings = {"encoding": "BASE64"} if destination.startswith("data_manager") and data.draw(st.booleans()) else {}
    make = mapping(destination, settings)
    short = data.draw(st.dictionaries(st.sampled_from(PEOPLE[destination]), PERSONAL, min_size=1))
    home = "user_data.user_identifiers" if destination.startswith("data_manager") else "user_identifiers"
    row = short | {f"{home}.{place}.{name}": value for place, (name, value) in enumerate(short.items())}
    try:
        content = make(row)
    except RecordError as error:
        assert error.number in (MALFORMED_PERSONAL, WRONG_TYPE)
        assert not any(len(value) > 4 and value in error.reason for value in row.values())
        return
    assert not any("@" in str(leaf) for leaf in leaves(content))
    assert unhashed(camel(identifiers(content)), settings.get("encoding", "HEX")) == ""


@given(address=st.emails())
def test_ga4_is_told_hashes_only(address: str) -> None:
    row = {"user_data.sha256_email_address.0": address, "user_data.sha256_email_address.1": ANA}
    assume("@" in address)
    try:
        content = mapping("ga4")(row)
    except RecordError as error:
        assert address not in error.reason
        return
    first, second = content["user_data"]["sha256_email_address"]
    assert (second, "@" in first) == (ANA, False)


@pytest.mark.parametrize(("given_", "sent"), [(ANA.upper(), ANA), ("Ana.Silva@gmail.com", ANA)])
def test_a_hash_is_recognised(given_: str, sent: str) -> None:
    assert identifiers(mapping("customer_match")({"hashed_email": given_})) == [{"hashed_email": sent}]
    for each in (given_, in_base64(sent)):
        made = mapping("data_manager_audience", {"encoding": "BASE64"})({"email_address": each})
        assert identifiers(made) == [{"email_address": in_base64(sent)}]


def test_only_what_is_hashed_is_in_base64() -> None:
    row = {"given_name": "Ana", "family_name": "Silva", "region_code": "BR", "postal_code": "01310-100"}
    made = mapping("data_manager_audience", {"encoding": "BASE64"})({f"address.{k}": v for k, v in row.items()})
    (one,) = identifiers(made)
    assert one["address"] == {
        "given_name": in_base64(sha256("ana")),
        "family_name": in_base64(sha256("silva")),
        "region_code": "BR",
        "postal_code": "01310-100",
    }


def test_the_same_identifier_twice_is_one() -> None:
    row = {"user_identifiers.0.hashed_email": "a@example.com", "user_identifiers.1.hashed_email": "A@example.com "}
    assert len(identifiers(mapping("customer_match")(row))) == 1


def test_an_incomplete_address_is_invalid() -> None:
    field, number, reason = refused(mapping("customer_match"), {"address_info.hashed_first_name": "Ana"})
    assert (field, number) == ("user_identifiers.address_info", MALFORMED_PERSONAL)
    assert "postal_code" in reason


@pytest.mark.parametrize(
    ("destination", "column"),
    [("ga4", "user_id"), ("data_manager_events", "transaction_id"), ("cm360", "match_id")],
)
def test_an_address_in_the_column_of_an_id_does_not_leave(destination: str, column: str) -> None:
    field, number, reason = refused(mapping(destination), {column: "ana@example.com"})
    assert (field, number, "ana" in reason) == (column, MAIL_IN_CLEAR, False)


# --- cells that are not what they should be ---


@pytest.mark.parametrize(
    ("destination", "column", "cell", "number"),
    [
        ("ga4", "params.value", "9,90", WRONG_TYPE),
        ("ga4", "params.value", True, WRONG_TYPE),
        ("ga4", "timestamp_micros", "2026-06-01T10:00:00", MALFORMED),
        ("ga4", "timestamp_micros", "yesterday", MALFORMED),
        ("ga4", "non_personalized_ads", "maybe", WRONG_TYPE),
        ("ga4", "params", "everything", WRONG_TYPE),
        ("ga4", "params.items", '[{"item_id": ', WRONG_TYPE),
        ("ga4", "user_properties.tier", "gold", WRONG_TYPE),
        ("ga4", "user_id", 1.5, WRONG_TYPE),
        ("data_manager_events", "event_timestamp", "2026-06-01", MALFORMED),
        ("data_manager_events", "event_timestamp", 1_790_000_000, MALFORMED),
        ("data_manager_events", "destination_references", "shop", WRONG_TYPE),
        ("data_manager_events", "custom_variables.first.value", "x", WRONG_TYPE),
        ("google_ads_conversions", "conversion_date_time", "2026-06-01 10:00:00", MALFORMED),
        ("google_ads_conversions", "conversion_value", "NaN", WRONG_TYPE),
        ("google_ads_conversions", "cart_data.merchant_id", "1.5", WRONG_TYPE),
        ("cm360", "timestamp_micros", 1.5, MALFORMED),
        ("cm360", "quantity", "two", WRONG_TYPE),
    ],
)
def test_a_cell_of_another_kind_is_invalid_and_not_quoted(
    destination: str, column: str, cell: Any, number: int
) -> None:
    field, found, reason = refused(mapping(destination), {column: cell})
    assert found == number
    assert column.startswith(field)
    assert field in reason and f" {cell}" not in reason.replace(field, "")


def test_what_is_given_as_a_whole_and_in_parts_is_invalid() -> None:
    for row in (
        {"params": '{"a": 1}', "params.b": "2"},
        {"params.b": "2", "params": '{"a": 1}'},
        {"params": {"a": 1}, "params.a": 2},
    ):
        assert refused(mapping("ga4"), row)[1] == UNMAPPABLE
    twice = {"email_address": "a@example.com", "user_data.user_identifiers.email_address": "b@example.com"}
    assert refused(mapping("data_manager_audience"), twice)[1] == UNMAPPABLE


# --- other columns ---


@pytest.mark.parametrize(
    ("destination", "column", "meant"),
    [
        ("google_ads_conversions", "conversion_vlaue", "conversion_value"),
        ("google_ads_conversions", "Conversion Value", "conversion_value"),
        ("google_ads_conversions", "conversionDateTime", "conversion_date_time"),
        ("google_ads_conversions", "gcild", "gclid"),
        ("data_manager_events", "ad_identifier.gclid", "ad_identifiers"),
        ("data_manager_events", "ad_identifiers_gclid", "ad_identifiers.gclid"),
        ("data_manager_audience", "email_adress", "email_address"),
        ("ga4", "timestamp_micro", "timestamp_micros"),
        ("cm360", "GCLID", "gclid"),
    ],
)
def test_a_misspelt_column_makes_the_row_invalid(destination: str, column: str, meant: str) -> None:
    field, number, reason = refused(mapping(destination), {column: "x"})
    assert (field, number) == (column, UNKNOWN_FIELD)
    assert column in reason and meant in reason
    assert mapping(destination)({column: " "}) == {}, "an empty cell loses nothing"
    assert mapping(destination, key=[column])({column: "x"}) == {}
    assert mapping(destination, ignore=[column])({column: "x"}) == {}


def test_a_column_beside_the_one_that_it_is_like_is_another_one() -> None:
    make = mapping("google_ads_conversions")
    assert make({"conversion_value": "1", "conversion_values": "2"}) == {"conversion_value": 1}
    assert make({"conversion_value": "", "conversion_values": "2"}) == {}
    nested = {"ad_identifiers": {"gclid": "g"}}
    assert mapping("data_manager_events")({**nested, "ad_identifiers_gclid": "x"}) == nested


def test_columns_of_a_crm_stay_at_home() -> None:
    export = ("id", "first_name", "email", "phone", "owner", "created_at", "customer_id", "order_total", "status")
    for destination in DESTINATIONS:
        assert mapping(destination)(dict.fromkeys(export, "x")) == {}, destination


def test_below_a_field_every_name_has_to_be_one() -> None:
    field, number, reason = refused(mapping("data_manager_events"), {"ad_identifiers.gclick": "x"})
    assert (field, number) == ("ad_identifiers.gclick", UNKNOWN_FIELD)
    assert "gclid" in reason
    field, number, _ = refused(mapping("customer_match"), {"user_identifiers": [{"email": "a@example.com"}]})
    assert (field, number) == ("user_identifiers.0.email", UNKNOWN_FIELD)


def test_a_known_column_may_be_ignored_too() -> None:
    assert mapping("ga4", ignore=["name"])({"name": "Ana Silva", "client_id": "1.2"}) == {"client_id": "1.2"}
