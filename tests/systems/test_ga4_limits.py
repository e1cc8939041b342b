"""Every limit that GA4 documents, with an event just within it and one just beyond, and a number of its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from infra.systems.ga4 import limits
from infra.systems.ga4.limits import BODY_BYTES, WEB, Limits, body_of, check, divided, limits_of
from shared.errors import RecordError

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
HASH = "0" * 64
APP = Limits(app=True)
BIG = Limits(value=500)
NUMERIC = Limits(numeric_client=True)
Event = dict[str, Any]


def event(**fields: Any) -> Event:
    return {"client_id": "1.2", "name": "lead", **fields}


def params(**fields: Any) -> Event:
    return event(params=fields)


def many(count: int) -> Event:
    return {f"p{place}": place for place in range(count)}


def properties(**fields: Any) -> Event:
    return event(user_properties={name: {"value": value} for name, value in fields.items()})


def user_data(**fields: Any) -> Event:
    return event(user_id="u", user_data=fields)


def items(*each: Any) -> Event:
    return event(name="purchase", params={"items": list(each)})


def without(name: str) -> Event:
    return {field: value for field, value in event().items() if field != name}


def micros(**ago: float) -> int:
    return int((NOW - timedelta(**ago)).timestamp() * 1e6)


def of_size(size: int) -> Event:
    """An event whose body has so many bytes."""
    made = event(device={"model": ""})
    made["device"]["model"] = "x" * (size - len(body_of(*divided(made))))
    return made


def app(**fields: Any) -> Event:
    return {"app_instance_id": "a1", "name": "lead", **fields}


# What is just within, just beyond, the number and the field of what is beyond, and the limits they are checked by.
EDGES: list[tuple[Event, Event, int, str, Limits]] = [
    (event(), without("client_id"), limits.WRONG_CLIENT, "client_id", WEB),
    (event(), event(client_id=" "), limits.WRONG_CLIENT, "client_id", WEB),
    (event(), event(client_id=12), limits.WRONG_CLIENT, "client_id", WEB),
    (event(), event(app_instance_id="a"), limits.WRONG_CLIENT, "app_instance_id", WEB),
    (app(), app(client_id="1.2"), limits.WRONG_CLIENT, "client_id", APP),
    (app(), event(), limits.WRONG_CLIENT, "client_id", APP),
    (event(client_id="10.2"), event(client_id="10.2.3"), limits.WRONG_CLIENT, "client_id", NUMERIC),
    (event(client_id="1.2"), event(client_id="0.2"), limits.WRONG_CLIENT, "client_id", NUMERIC),
    (event(user_id="é" * 256), event(user_id="é" * 257), limits.LONG_USER_ID, "user_id", WEB),
    (event(user_id="u"), event(user_id=7), limits.WRONG_TYPE, "user_id", WEB),
    (event(user_id="ana@"), event(user_id="ana@x.com"), limits.MAIL_IN_CLEAR, "user_id", WEB),
    (event(name="n" * 40), event(name="n" * 41), limits.WRONG_EVENT_NAME, "name", WEB),
    (event(name="pedido_é_1"), event(name="pedido-1"), limits.WRONG_EVENT_NAME, "name", WEB),
    (event(name="a1"), event(name="1a"), limits.WRONG_EVENT_NAME, "name", WEB),
    (event(), without("name"), limits.WRONG_EVENT_NAME, "name", WEB),
    (event(name="first_opens"), event(name="first_open"), limits.RESERVED_NAME, "name", WEB),
    (event(name="gas_x"), event(name="ga_x"), limits.RESERVED_NAME, "name", WEB),
    (event(name="screen_views"), event(name="screen_view"), limits.RESERVED_NAME, "name", WEB),
    (app(name="screen_view"), app(name="session_start"), limits.RESERVED_NAME, "name", APP),
    (event(params=many(25)), event(params=many(26)), limits.MANY_PARAMETERS, "params", WEB),
    (params(**{"n" * 40: 1}), params(**{"n" * 41: 1}), limits.WRONG_PARAMETER_NAME, f"params.{'n' * 41}", WEB),
    (params(a_b=1), params(**{"a b": 1}), limits.WRONG_PARAMETER_NAME, "params.a b", WEB),
    (params(a1=1), params(**{"1a": 1}), limits.WRONG_PARAMETER_NAME, "params.1a", WEB),
    (params(a=1), params(_a=1), limits.RESERVED_NAME, "params._a", WEB),
    (params(googles_a=1), params(google_a=1), limits.RESERVED_NAME, "params.google_a", WEB),
    (params(gtag=1), params(**{"gtag.a": 1}), limits.RESERVED_NAME, "params.gtag.a", WEB),
    (params(conversion=1), params(firebase_conversion=1), limits.RESERVED_NAME, "params.firebase_conversion", WEB),
    (params(a="é" * 100), params(a="é" * 101), limits.LONG_VALUE, "params.a", WEB),
    (params(a="é" * 500), params(a="é" * 501), limits.LONG_VALUE, "params.a", BIG),
    (params(page_title="x" * 300), params(page_title="x" * 301), limits.LONG_VALUE, "params.page_title", WEB),
    (params(page_referrer="x" * 420), params(page_referrer="x" * 421), limits.LONG_VALUE, "params.page_referrer", WEB),
    (
        params(page_location="x" * 1000),
        params(page_location="x" * 1001),
        limits.LONG_VALUE,
        "params.page_location",
        WEB,
    ),
    (params(session_id="x" * 999), params(session="x" * 101), limits.LONG_VALUE, "params.session", WEB),
    (params(a=True, b=1.5, c=-1), params(a=None), limits.WRONG_TYPE, "params.a", WEB),
    (params(a=2**63 - 1), params(a=2**63), limits.WRONG_TYPE, "params.a", WEB),
    (params(a=1e18), params(a=float("nan")), limits.WRONG_TYPE, "params.a", WEB),
    (params(a="x"), params(a=["x"]), limits.WRONG_TYPE, "params.a", WEB),
    (params(value=9.9), params(value="9.9"), limits.WRONG_TYPE, "params.value", WEB),
    (params(value=1), params(value=True), limits.WRONG_TYPE, "params.value", WEB),
    (event(params={}), event(params=[]), limits.WRONG_TYPE, "params", WEB),
    (params(a="x"), params(a="\ud800"), limits.WRONG_TYPE, "", WEB),
    (params(url="https://x.com/@ana"), params(a=" ana@x.com.br "), limits.MAIL_IN_CLEAR, "params.a", WEB),
    (params(engagement_time_msec=0), params(engagement_time_msec=-1), limits.WRONG_ENGAGEMENT,
     "params.engagement_time_msec", WEB),
    (params(session_id=1), params(session_id=0), limits.WRONG_ENGAGEMENT, "params.session_id", WEB),
    (params(session_id="GS1.1"), params(session_id=""), limits.WRONG_ENGAGEMENT, "params.session_id", WEB),
    (items(*[{"item_id": "1"}] * 200), items(*[{"item_id": "1"}] * 201), limits.WRONG_ITEMS, "params.items", WEB),
    (items({"price": 1} | many(10)), items({"item_id": "1"}, {"price": 1} | many(11)), limits.WRONG_ITEMS,
     "params.items.1", WEB),
    (items({"a": "x" * 100}), items({"a": "x" * 101}), limits.LONG_VALUE, "params.items.0.a", WEB),
    (items({"n" * 40: 1}), items({"n" * 41: 1}), limits.WRONG_PARAMETER_NAME, f"params.items.0.{'n' * 41}", WEB),
    (items({"quantity": 2}), items({"quantity": "2"}), limits.WRONG_TYPE, "params.items.0.quantity", WEB),
    (items({}), items("x"), limits.WRONG_TYPE, "params.items", WEB),
    (items({"a": 1}), items({"items": []}), limits.WRONG_TYPE, "params.items.0.items", WEB),
    (event(name="purchase", params={"transaction_id": "T"}), event(name="purchase", params={"transaction_id": ""}),
     limits.NO_TRANSACTION, "params.transaction_id", WEB),
    (properties(**many(25)), properties(**many(26)), limits.MANY_PROPERTIES, "user_properties", WEB),
    (properties(**{"n" * 24: 1}), properties(**{"n" * 25: 1}), limits.WRONG_PROPERTY_NAME,
     f"user_properties.{'n' * 25}", WEB),
    (properties(a_b=1), properties(**{"a-b": 1}), limits.WRONG_PROPERTY_NAME, "user_properties.a-b", WEB),
    (properties(a="é" * 36), properties(a="é" * 37), limits.LONG_PROPERTY_VALUE, "user_properties.a", WEB),
    (properties(a="x"), properties(a="ana@x.com"), limits.MAIL_IN_CLEAR, "user_properties.a", WEB),
    (properties(a=1), properties(a=None), limits.WRONG_TYPE, "user_properties.a", WEB),
    (properties(users_id=1), properties(user_id=1), limits.RESERVED_NAME, "user_properties.user_id", WEB),
    (properties(firebases=1), properties(firebase_a=1), limits.RESERVED_NAME, "user_properties.firebase_a", WEB),
    (properties(a=1), event(user_properties={"a": 1}), limits.WRONG_TYPE, "user_properties.a", WEB),
    (properties(a=1), event(user_properties={"a": {"value": 1, "x": 1}}), limits.WRONG_TYPE, "user_properties.a", WEB),
    (event(timestamp_micros=micros(hours=72)), event(timestamp_micros=micros(hours=72) - 1), limits.OUTSIDE_WINDOW,
     "timestamp_micros", WEB),
    (event(timestamp_micros=micros(minutes=-1)), event(timestamp_micros=micros(minutes=-1) + 1),
     limits.OUTSIDE_WINDOW, "timestamp_micros", WEB),
    (event(timestamp_micros=micros(hours=1)), event(timestamp_micros=str(micros(hours=1))), limits.WRONG_TYPE,
     "timestamp_micros", WEB),
    (event(user_properties={"a": {"value": 1, "timestamp_micros": micros(hours=72)}}),
     event(user_properties={"a": {"value": 1, "timestamp_micros": micros(hours=73)}}), limits.OUTSIDE_WINDOW,
     "user_properties.a.timestamp_micros", WEB),
    (of_size(BODY_BYTES - 1), of_size(BODY_BYTES), limits.LARGE_EVENT, "", WEB),
    (event(consent={"ad_user_data": "GRANTED", "ad_personalization": "DENIED"}),
     event(consent={"ad_user_data": "granted"}), limits.WRONG_CONSENT, "consent.ad_user_data", WEB),
    (event(consent={}), event(consent={"ad_storage": "GRANTED"}), limits.WRONG_CONSENT, "consent.ad_storage", WEB),
    (user_data(sha256_email_address=HASH), event(user_data={"sha256_email_address": HASH}), limits.WRONG_USER_DATA,
     "user_data", WEB),
    (user_data(sha256_phone_number=HASH), user_data(sha256_phone_number="+5511"), limits.WRONG_USER_DATA,
     "user_data.sha256_phone_number", WEB),
    (user_data(sha256_email_address=[HASH] * 3), user_data(sha256_email_address=[HASH] * 4), limits.WRONG_USER_DATA,
     "user_data.sha256_email_address", WEB),
    (user_data(address=[{"city": "x"}] * 2), user_data(address=[{"city": "x"}] * 3), limits.WRONG_USER_DATA,
     "user_data.address", WEB),
    (user_data(address={"sha256_street": HASH}), user_data(address={"sha256_street": "x"}), limits.WRONG_USER_DATA,
     "user_data.address", WEB),
    (user_data(address={"city": "x"}), user_data(address={"street": "x"}), limits.WRONG_USER_DATA,
     "user_data.address", WEB),
    (user_data(), user_data(email=HASH), limits.WRONG_USER_DATA, "user_data.email", WEB),
    (event(user_agent="x"), event(userAgent="x"), limits.UNKNOWN_FIELD, "userAgent", WEB),
]  # fmt: skip


@pytest.mark.parametrize(("within", "beyond", "number", "field", "by"), EDGES)
def test_an_event_within_a_limit_passes_and_one_beyond_it_does_not(
    within: Event, beyond: Event, number: int, field: str, by: Limits
) -> None:
    check(within, by, NOW)
    with pytest.raises(RecordError) as caught:
        check(beyond, by, NOW)
    assert (caught.value.number, caught.value.field) == (number, field)


@pytest.mark.parametrize("name", sorted(limits.RESERVED_EVENTS | limits.OF_APPS))
def test_every_reserved_event_name_is_refused(name: str) -> None:
    with pytest.raises(RecordError) as caught:
        check(event(name=name))
    assert caught.value.number == limits.RESERVED_NAME


def test_every_number_belongs_to_one_limit_and_is_reached_by_a_test() -> None:
    numbers = [value for value in vars(limits).values() if type(value) is int and 150 <= value < 180]
    assert sorted(numbers) == sorted({number for _, _, number, _, _ in EDGES})


def test_a_client_is_any_text_unless_the_form_is_asked_for() -> None:
    check(event(client_id="any"))
    with pytest.raises(RecordError):
        check(event(client_id="any"), NUMERIC)


def test_no_value_of_an_event_stands_in_an_error() -> None:
    for _, beyond, _, _, by in EDGES:
        with pytest.raises(RecordError) as caught:
            check(beyond, by, NOW)
        assert "ana@" not in str(caught.value) and "xx" not in str(caught.value)


def test_how_long_ago_it_was_is_the_senders_business() -> None:
    check(event(timestamp_micros=1))
    with pytest.raises(RecordError):
        check(event(timestamp_micros=1), WEB, NOW)


def test_the_time_of_user_properties_is_that_of_the_request() -> None:
    common, own = divided(properties(a=1) | {"timestamp_micros": 5})
    assert common == {"client_id": "1.2", "user_properties": {"a": {"value": 1}}, "timestamp_micros": 5}
    assert own == {"name": "lead", "timestamp_micros": 5}
    common, own = divided(event(timestamp_micros=5))
    assert msgspec.json.decode(body_of(common, own)) == {
        "client_id": "1.2",
        "events": [{"name": "lead", "timestamp_micros": 5}],
    }


def test_limits_follow_the_options_of_the_stream() -> None:
    assert limits_of({}) == WEB
    assert limits_of({"firebase_app_id": "1:2", "analytics_360": True}) == Limits(app=True, value=500)
    assert limits_of({"numeric_client": True}) == NUMERIC
