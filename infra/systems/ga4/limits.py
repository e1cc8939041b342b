"""What GA4 documents of an event, checked before it is sent: the service takes everything and says nothing.

An event is a change's content, in the API's own names:

    {"client_id": "1234567890.1690000000",          of a web stream; `app_instance_id` of an app stream
     "user_id": ...,                                or none, as everything up to `params`
     "timestamp_micros": 1790000000000000,          when it happened
     "user_properties": {"tier": {"value": "gold"}},
     "user_data": {"sha256_email_address": ...},    hashed, see `shared.personal.ga4_user_data`
     "consent": {"ad_user_data": "GRANTED", "ad_personalization": "DENIED"},
     "user_location": {...}, "ip_override": ..., "device": {...}, "user_agent": ..., "non_personalized_ads": false,
     "name": "purchase",
     "params": {"currency": "BRL", "value": 9.9, "transaction_id": "T1", "items": [{"item_id": "1", "quantity": 2}]}}

so a flat column is called `params.value` or `user_properties.tier.value`. Texts are no numbers here: who reads from a
file without types makes numbers of `NUMBERS` (`names.py`) first.

Facts: the Measurement Protocol's pages `sending-events` (limits, timestamps), `reference` (fields, consent) and
`reference/events` (types), its page on user data, the page on e-commerce (200 items); Analytics help for the longer
texts of pages, the 256 characters of a user's id and the empty transaction id. Characters are code points. Not checked:
the form of a `client_id` unless it is asked for, since the page says that it is two numbers and the service takes any
text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from infra.systems.ga4.names import (
    ADDRESS,
    FIELDS,
    ITEM_PARAMETERS,
    NUMBERS,
    OF_APPS,
    PREFIXES,
    RESERVED_EVENTS,
    RESERVED_PARAMETER,
    RESERVED_PROPERTIES,
    is_name,
)
from shared.errors import (
    LARGE_EVENT,
    LONG_PROPERTY_VALUE,
    LONG_USER_ID,
    LONG_VALUE,
    MAIL_IN_CLEAR,
    MANY_PARAMETERS,
    MANY_PROPERTIES,
    NO_TRANSACTION,
    OUTSIDE_WINDOW,
    RESERVED_NAME,
    UNKNOWN_FIELD,
    WRONG_CLIENT,
    WRONG_CONSENT,
    WRONG_ENGAGEMENT,
    WRONG_EVENT_NAME,
    WRONG_ITEMS,
    WRONG_PARAMETER_NAME,
    WRONG_PROPERTY_NAME,
    WRONG_TYPE,
    WRONG_USER_DATA,
    RecordError,
)
from shared.personal import is_hash

MOST_EVENTS: Final = 25
BODY_BYTES: Final = 130_000
"""A body has to be smaller. The page says 130 kB, which is the smaller of its two readings."""
MOST_PARAMETERS: Final = 25
MOST_PROPERTIES: Final = 25
NAME_LENGTH: Final = 40
PROPERTY_NAME_LENGTH: Final = 24
PROPERTY_VALUE_LENGTH: Final = 36
USER_ID_LENGTH: Final = 256
MOST_ITEMS: Final = 200
MOST_OWN_ITEM_PARAMETERS: Final = 10
OLDEST: Final = timedelta(hours=72)
AHEAD: Final = timedelta(minutes=1)
"""Clocks differ; what is further ahead is no past event."""
MOST_CONTACTS: Final = 3
MOST_ADDRESSES: Final = 2
LONGER: Final[Mapping[str, int]] = {"page_title": 300, "page_referrer": 420, "page_location": 1000}
UNLIMITED: Final = frozenset(("session_id", "session_number"))
_WEB_CLIENT: Final = re.compile(r"[1-9][0-9]*\.[1-9][0-9]*")
_MAIL: Final = re.compile(r"[^\s@/?&=]+@[^\s@/?&=.]+(\.[^\s@/?&=.]+)+")
_OBJECTS: Final = ("user_properties", "user_data", "consent", "user_location", "device", "params")
_OF_EVENT: Final = ("name", "params", "timestamp_micros")
_encode = msgspec.json.Encoder().encode


class Limits(msgspec.Struct, frozen=True):
    """What differs between properties. `app` is an app stream, `value` the characters of a text (500 for Analytics
    360), `numeric_client` asks for a `client_id` of two numbers."""

    app: bool = False
    value: int = 100
    numeric_client: bool = False


WEB: Final = Limits()


def limits_of(options: Mapping[str, Any]) -> Limits:
    """By the options `firebase_app_id`, `analytics_360` and `numeric_client` of a stream."""
    return Limits(
        app=bool(options.get("firebase_app_id")),
        value=500 if options.get("analytics_360") is True else 100,
        numeric_client=options.get("numeric_client") is True,
    )


def check(content: Mapping[str, Any], limits: Limits = WEB, now: datetime | None = None) -> None:
    """Raises RecordError, with a number of its own for each limit, for an event that GA4 would not take as it is.

    Without `now` it is not looked at how long ago the event happened.
    """
    for field in content:
        if field not in FIELDS:
            raise RecordError("GA4 has no field of this name", field=field, number=UNKNOWN_FIELD)
    for field in _OBJECTS:
        if not isinstance(content.get(field, {}), Mapping):
            raise RecordError(f"{field} is no object", field=field, number=WRONG_TYPE)
    _check_client(content, limits)
    _check_event(content, limits)
    _check_properties(content.get("user_properties", {}), now)
    _check_time(content, "timestamp_micros", now)
    _check_consent(content)
    _check_user_data(content)
    size = len(body_of(*divided(content)))
    if size >= BODY_BYTES:
        raise RecordError(f"the event has {size} bytes, and GA4 takes less than {BODY_BYTES}", number=LARGE_EVENT)


def divided(content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What an event shares with the others of its request, and the event itself.

    The event carries its own time, so that events of different times may travel together; the time of the request is
    that of the user properties, and there with them only.
    """
    event = {field: content[field] for field in _OF_EVENT if field in content}
    common = {field: value for field, value in content.items() if field not in event}
    if "timestamp_micros" in event and common.get("user_properties"):
        common["timestamp_micros"] = event["timestamp_micros"]
    return common, event


def body_of(common: Mapping[str, Any], *events: Mapping[str, Any]) -> bytes:
    """A request's body. Raises RecordError for what JSON cannot carry."""
    try:
        return _encode({**common, "events": events})
    except (TypeError, ValueError, OverflowError):
        raise RecordError("the event holds what JSON cannot carry", number=WRONG_TYPE) from None


def _check_client(content: Mapping[str, Any], limits: Limits) -> None:
    wanted, other = ("app_instance_id", "client_id") if limits.app else ("client_id", "app_instance_id")
    if other in content:
        raise RecordError(f"{other} is not of this kind of stream", field=other, number=WRONG_CLIENT)
    given = content.get(wanted)
    if not isinstance(given, str) or not given.strip() or not given.isprintable():
        raise RecordError(f"there is no {wanted}", field=wanted, number=WRONG_CLIENT)
    if limits.numeric_client and not limits.app and not _WEB_CLIENT.fullmatch(given):
        raise RecordError(f"{wanted} is not two numbers with a dot between", field=wanted, number=WRONG_CLIENT)
    _check_mail(given, wanted)
    user = content.get("user_id", "-")
    if not isinstance(user, str) or not user:
        raise RecordError("user_id is no text", field="user_id", number=WRONG_TYPE)
    if len(user) > USER_ID_LENGTH:
        raise RecordError(f"user_id has more than {USER_ID_LENGTH} characters", field="user_id", number=LONG_USER_ID)
    _check_mail(user, "user_id")


def _check_event(content: Mapping[str, Any], limits: Limits) -> None:
    name, params = content.get("name"), content.get("params", {})
    if not is_name(name, NAME_LENGTH):
        raise RecordError("name is no name of an event", field="name", number=WRONG_EVENT_NAME)
    if name in RESERVED_EVENTS or name.startswith(PREFIXES) or (name in OF_APPS and not limits.app):
        raise RecordError("this name of an event is reserved", field="name", number=RESERVED_NAME)
    if len(params) > MOST_PARAMETERS:
        raise RecordError(f"there are more than {MOST_PARAMETERS} params", field="params", number=MANY_PARAMETERS)
    _check_values(params, "params", limits)
    if "items" in params:
        _check_items(params["items"], limits)
    if name == "purchase" and params.get("transaction_id", "-") == "":
        field = "params.transaction_id"
        raise RecordError("GA4 takes all purchases without one for the same", field=field, number=NO_TRANSACTION)
    time, session = params.get("engagement_time_msec", 0), params.get("session_id", 1)
    if time < 0:
        field = "params.engagement_time_msec"
        raise RecordError(f"{field} is below zero", field=field, number=WRONG_ENGAGEMENT)
    if isinstance(session, bool) or session == "" or (not isinstance(session, str) and session <= 0):
        field = "params.session_id"
        raise RecordError(f"{field} is neither a text nor above zero", field=field, number=WRONG_ENGAGEMENT)


def _check_values(params: Mapping[str, Any], place: str, limits: Limits) -> None:
    """Names and values of an event's or an item's parameters."""
    for name, value in params.items():
        field = f"{place}.{name}"
        # Before the form of the name, since some of these have none.
        if isinstance(name, str) and (name.startswith(PREFIXES) or name == RESERVED_PARAMETER):
            raise RecordError(f"{field} is reserved", field=field, number=RESERVED_NAME)
        if not is_name(name, NAME_LENGTH):
            raise RecordError(f"{field} is no name of a parameter", field=field, number=WRONG_PARAMETER_NAME)
        if name == "items" and place == "params":
            continue
        if not _is_scalar(value) or (name in NUMBERS and (isinstance(value, str | bool))):
            wanted = "number" if name in NUMBERS else "text or number"
            raise RecordError(f"{field} is no {wanted}", field=field, number=WRONG_TYPE)
        most = max(limits.value, LONGER.get(name, 0))
        if isinstance(value, str):
            if len(value) > most and name not in UNLIMITED:
                raise RecordError(f"{field} has more than {most} characters", field=field, number=LONG_VALUE)
            _check_mail(value, field)


def _check_items(items: Any, limits: Limits) -> None:
    field = "params.items"
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise RecordError(f"{field} is no list of objects", field=field, number=WRONG_TYPE)
    if len(items) > MOST_ITEMS:
        raise RecordError(f"there are more than {MOST_ITEMS} items", field=field, number=WRONG_ITEMS)
    for place, item in enumerate(items):
        _check_values(item, f"{field}.{place}", limits)
        if len(item.keys() - ITEM_PARAMETERS) > MOST_OWN_ITEM_PARAMETERS:
            reason = f"an item has more than {MOST_OWN_ITEM_PARAMETERS} parameters of its own"
            raise RecordError(reason, field=f"{field}.{place}", number=WRONG_ITEMS)


def _check_properties(properties: Mapping[str, Any], now: datetime | None) -> None:
    if len(properties) > MOST_PROPERTIES:
        reason = f"there are more than {MOST_PROPERTIES} user properties"
        raise RecordError(reason, field="user_properties", number=MANY_PROPERTIES)
    for name, given in properties.items():
        field = f"user_properties.{name}"
        if isinstance(name, str) and (name.startswith(PREFIXES) or name in RESERVED_PROPERTIES):
            raise RecordError(f"{field} is reserved", field=field, number=RESERVED_NAME)
        if not is_name(name, PROPERTY_NAME_LENGTH):
            raise RecordError(f"{field} is no name of a user property", field=field, number=WRONG_PROPERTY_NAME)
        if not isinstance(given, Mapping) or not {"value"} <= given.keys() <= {"value", "timestamp_micros"}:
            raise RecordError(f"{field} is no object with a value", field=field, number=WRONG_TYPE)
        value = given["value"]
        if not _is_scalar(value):
            raise RecordError(f"{field} is neither text nor number", field=field, number=WRONG_TYPE)
        if isinstance(value, str):
            if len(value) > PROPERTY_VALUE_LENGTH:
                reason = f"{field} has more than {PROPERTY_VALUE_LENGTH} characters"
                raise RecordError(reason, field=field, number=LONG_PROPERTY_VALUE)
            _check_mail(value, field)
        _check_time(given, "timestamp_micros", now, f"{field}.")


def _check_time(given: Mapping[str, Any], name: str, now: datetime | None, above: str = "") -> None:
    if name not in given:
        return
    field, micros = above + name, given[name]
    if type(micros) is not int or micros <= 0:
        raise RecordError(f"{field} is no number of microseconds", field=field, number=WRONG_TYPE)
    if now is None:
        return
    present = now.timestamp()
    if not (present - OLDEST.total_seconds()) * 1e6 <= micros <= (present + AHEAD.total_seconds()) * 1e6:
        raise RecordError(f"{field} is not within the last 72 hours", field=field, number=OUTSIDE_WINDOW)


def _check_consent(content: Mapping[str, Any]) -> None:
    for name, state in content.get("consent", {}).items():
        if name not in ("ad_user_data", "ad_personalization") or state not in ("GRANTED", "DENIED"):
            field = f"consent.{name}"
            raise RecordError(f"{field} is neither GRANTED nor DENIED", field=field, number=WRONG_CONSENT)


def _check_user_data(content: Mapping[str, Any]) -> None:
    """User data goes with a user's id, hashed where it has to be."""
    data = content.get("user_data", {})
    if data and not content.get("user_id"):
        raise RecordError("user_data goes with a user_id only", field="user_data", number=WRONG_USER_DATA)
    for name, given in data.items():
        field, values = f"user_data.{name}", given if isinstance(given, list) else [given]
        addresses = name == "address" and all(isinstance(each, Mapping) for each in values)
        if not addresses and name not in ("sha256_email_address", "sha256_phone_number"):
            raise RecordError(f"{field} is nothing that GA4 takes", field=field, number=WRONG_USER_DATA)
        if len(values) > (MOST_ADDRESSES if addresses else MOST_CONTACTS):
            raise RecordError(f"{field} has too many values", field=field, number=WRONG_USER_DATA)
        parts = [part for each in values for part in (each.items() if addresses else ((name, each),))]
        if addresses and not {key for key, _ in parts} <= ADDRESS:
            raise RecordError(f"{field} holds what GA4 does not take", field=field, number=WRONG_USER_DATA)
        if not all(is_hash(value) for key, value in parts if key.startswith("sha256_")):
            raise RecordError(f"{field} is not hashed", field=field, number=WRONG_USER_DATA)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | bool) or (
        isinstance(value, int | float) and abs(value) < 2**63 and math.isfinite(value)
    )


def _check_mail(value: str, field: str) -> None:
    if _MAIL.fullmatch(value.strip()):
        raise RecordError(f"{field} is an e-mail address, which GA4 forbids", field=field, number=MAIL_IN_CLEAR)
