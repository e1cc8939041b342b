"""User identifiers: what a row knows of a person, normalised and hashed, so that nothing else leaves.

Each e-mail address, phone number and address is an identifier of its own, in the order in which the API names them;
those of columns with places (`user_identifiers.1.hashed_email`) come after those without. The same one twice is one.
"""

from __future__ import annotations

import base64
import re
from typing import Any, Final, NamedTuple, Protocol

from functions.tagless_crm.rows import Fields, Value, items_of, listed, object_of, one_or_more
from functions.tagless_crm.values import as_is
from shared import personal

_IN_BASE64: Final = re.compile(r"[A-Za-z0-9+/]{43}=")
_SOURCE: Final = "user_identifier_source"


class Reading(NamedTuple):
    """What a stream says of its cells: the country of phone numbers without its code, whether hashes are in Base64, and
    which columns are numbers besides those that GA4 documents."""

    region: str = ""
    in_base64: bool = False
    numbers: frozenset[str] = frozenset()


class _Maker(Protocol):
    def __call__(self, given: dict[str, Any], region: str, field: str) -> dict[str, Any]: ...


def data_manager_identifiers(reading: Reading) -> Value:
    names = ("given_name", "family_name", "region_code", "postal_code", "address_line", "city", "administrative_area")
    fields = _fields(("email_address", "phone_number"), "address", names, reading)
    return _identifiers(fields, personal.data_manager_identifier, reading)


def google_ads_identifiers(reading: Reading) -> Value:
    fields = _fields(
        ("hashed_email", "hashed_phone_number", "mobile_id", "third_party_user_id", _SOURCE),
        "address_info",
        _ADDRESS_INFO,
        reading,
    )
    return _identifiers(fields, personal.google_ads_identifier, reading)


def cm360_identifiers(reading: Reading) -> Value:
    fields = _fields(("hashed_email", "hashed_phone_number"), "address_info", _ADDRESS_INFO, reading)
    return _identifiers(fields, personal.cm360_identifier, reading)


def ga4_user_data(reading: Reading) -> Value:
    """The user data of a GA4 event, whose fields are each one or a list of them."""
    fields: Fields = {
        "sha256_email_address": one_or_more(as_is),
        "sha256_phone_number": one_or_more(as_is),
        "address": one_or_more(dict.fromkeys(_GA4_ADDRESS, as_is)),
    }

    def read_user_data(given: Any, column: str) -> dict[str, Any]:
        return personal.ga4_user_data(object_of(fields, given, column), reading.region, column)

    return read_user_data


_ADDRESS_INFO: Final = (
    "hashed_first_name", "hashed_last_name", "country_code", "postal_code", "hashed_street_address", "city", "state",
)  # fmt: skip
_GA4_ADDRESS: Final = (
    "sha256_first_name", "sha256_last_name", "sha256_street", "city", "region", "postal_code", "country",
)  # fmt: skip


def _fields(names: tuple[str, ...], address: str, parts: tuple[str, ...], reading: Reading) -> Fields:
    cell = _hash_in_hex if reading.in_base64 else as_is
    return {**dict.fromkeys(names, cell), address: dict.fromkeys(parts, cell)}


def _identifiers(fields: Fields, make: _Maker, reading: Reading) -> Value:
    def read_identifiers(given: Any, column: str) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []
        for place, each in _groups(given, column):
            found = object_of(fields, each, place)
            source = {_SOURCE: found.pop(_SOURCE)} if _SOURCE in found else {}
            for name in fields:
                if name in found:
                    one = make({name: found[name], **source}, reading.region, place)
                    one = _in_base64(one) if reading.in_base64 else one
                    if one not in made:
                        made.append(one)
        return made

    return read_identifiers


def _groups(given: Any, column: str) -> list[tuple[str, Any]]:
    """The objects that hold identifiers, each with its column."""
    if (found := listed(given)) is not None:
        return [(f"{column}.{place}", each) for place, each in found]
    fields = dict(items_of(given, column))
    places = listed({name: each for name, each in fields.items() if name.isascii() and name.isdigit()}) or []
    single = {name: each for name, each in fields.items() if not (name.isascii() and name.isdigit())}
    return [(column, single), *((f"{column}.{place}", each) for place, each in places)]


def _hash_in_hex(cell: Any, column: str) -> Any:
    """A hash that is in Base64 already, in hex for the while; anything else as it is."""
    if isinstance(cell, str) and _IN_BASE64.fullmatch(cell.strip()):
        return base64.b64decode(cell.strip()).hex()
    return cell


def _in_base64(identifier: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _in_base64(each)
        if isinstance(each, dict)
        else personal.in_base64(each)
        if personal.is_hash(each)
        else each
        for name, each in identifier.items()
    }
