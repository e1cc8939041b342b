"""Personal fields as Google's advertising products want them: normalised, and hashed where they say so.

Hashed are e-mail, phone, first name, last name and street; city, state, country and postal code are normalised only. A
hash is SHA-256 of the UTF-8 text in lower-case hex. What is a hash already (64 hex digits) is kept, since nobody can
tell what was hashed. Malformed input is a RecordError with the number `MALFORMED_PERSONAL`, which names the field and
never quotes it. Every function is pure.

Facts, each from the page of the product:

- e-mail (Data Manager `devguides/concepts/formatting`; Google Ads Customer Match says the same, and its maintainers
  confirmed it against older samples): no white space, lower case; of gmail.com and googlemail.com the dots of the user
  part and what follows a plus go, of other domains neither. The pages of Campaign Manager 360 and of GA4 name the dots
  only and refer to Google Ads, so the one rule holds for all.
- phone: E.164 (all).
- names: Google Ads and Campaign Manager 360 `OfflineUserAddressInfo`: lower case, no extra spaces; Data Manager
  `AddressInfo`: no punctuation either, nor a title or suffix (formatting page); GA4 `user_data`: no digits and symbols.
- street: Google Ads and Campaign Manager 360: lower case; Data Manager `address_line` and GA4: no symbols either.
- country: two letters, upper case, not hashed. Postal code: not hashed; of the United States five digits, or nine.
"""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from shared.errors import MALFORMED_PERSONAL, RecordError

MOST_CHARACTERS: Final = 320
"""The longest e-mail address there is; no other field is longer."""

_GMAIL: Final = frozenset(("gmail.com", "googlemail.com"))
_HASH: Final = re.compile(r"[0-9a-fA-F]{64}")
_COUNTRY: Final = re.compile(r"[A-Z]{2}")
_UNITED_STATES: Final = re.compile(r"[0-9]{5}(-?[0-9]{4})?")
_POSTAL_CODE: Final = re.compile(r"[0-9A-Za-z](?:[0-9A-Za-z -]{0,14}[0-9A-Za-z])?")
_TITLE: Final = re.compile(r"^(?:mr|mrs|ms|dr)\.?\s+")
_SUFFIX: Final = re.compile(r"(?:,\s*|\s+)(?:jr|sr|ii|iii|iv)\.?$")

Maker = Callable[[Any, str, str], str]
"""Makes what is sent of a value, the name of its field, and the region whose phone numbers need no country code."""


def is_hash(value: object) -> bool:
    """Whether a value is a SHA-256 in hex already, in whatever case."""
    return isinstance(value, str) and _HASH.fullmatch(value.strip()) is not None


def sha256(text: str) -> str:
    """In lower-case hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def in_base64(digest: str) -> str:
    """A hash in hex, for an API that wants its bytes in Base64."""
    return base64.b64encode(bytes.fromhex(digest)).decode()


def email(value: Any, field: str, region: str = "") -> str:
    """An e-mail address, normalised. Raises RecordError."""
    user, at, domain = "".join(_text(value, field).split()).lower().partition("@")
    if domain in _GMAIL:
        user = user.partition("+")[0].replace(".", "")
    labels = domain.split(".")
    if not user or not at or "@" in domain or len(labels) < 2 or not all(labels):
        raise _malformed(field, "an e-mail address")
    return f"{user}@{domain}"


def phone(value: Any, field: str, region: str = "") -> str:
    """A phone number in E.164. Without `region` it has to begin with its country code. Raises RecordError."""
    import phonenumbers  # slow to load, and many a stream has no phone numbers

    given = str(value) if type(value) is int else _text(value, field)
    try:
        number = phonenumbers.parse(given, region.upper() or None)
    except phonenumbers.NumberParseException:
        raise _malformed(field, "a phone number") from None
    if not phonenumbers.is_possible_number(number):
        raise _malformed(field, "a phone number")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def name(value: Any, field: str, region: str = "") -> str:
    """A name in lower case with single spaces. Raises RecordError."""
    return _filled(_line(value, field), field, "a name")


def given_name(value: Any, field: str, region: str = "") -> str:
    """A first name without title and punctuation. Raises RecordError."""
    return _filled(_without("P", _TITLE.sub("", _line(value, field))), field, "a name")


def family_name(value: Any, field: str, region: str = "") -> str:
    """A last name without suffix and punctuation. Raises RecordError."""
    return _filled(_without("P", _SUFFIX.sub("", _line(value, field))), field, "a name")


def letters(value: Any, field: str, region: str = "") -> str:
    """A name or place in lower case, without digits and symbols. Raises RecordError."""
    return _filled(_without("PSN", _line(value, field)), field, "a name")


def words(value: Any, field: str, region: str = "") -> str:
    """A street or place in lower case, without symbols. Raises RecordError."""
    return _filled(_without("PS", _line(value, field)), field, "an address")


def plain(value: Any, field: str, region: str = "") -> str:
    """A text that is sent as it is, on one line, and is no e-mail address. Raises RecordError."""
    text = " ".join(_text(value, field).split())
    return _filled("" if "@" in text else text, field, "a text without an e-mail address")


def country(value: Any, field: str, region: str = "") -> str:
    """The two letters of ISO 3166-1, in upper case. Raises RecordError."""
    code = _text(value, field).strip().upper()
    if not _COUNTRY.fullmatch(code):
        raise _malformed(field, "the two letters of a country")
    return code


def postal_code(value: Any, field: str, of: str = "") -> str:
    """A postal code; `of` is its country, whose form is looked at where it is the United States. Raises RecordError."""
    code = str(value) if type(value) is int else _text(value, field).strip()
    form = _UNITED_STATES if of.strip().upper() == "US" else _POSTAL_CODE
    if not form.fullmatch(code):
        raise _malformed(field, "a postal code")
    return code


def hashed(normal: Maker, value: Any, field: str, region: str = "") -> str:
    """The hash of a value as `normal` makes it, or the hash that it is already. Raises RecordError."""
    return value.strip().lower() if is_hash(value) else sha256(normal(value, field, region))


hashed_email: Final = partial(hashed, email)
hashed_phone: Final = partial(hashed, phone)
hashed_name: Final = partial(hashed, name)

_DATA_MANAGER: Final[Mapping[str, Maker]] = {"email_address": hashed_email, "phone_number": hashed_phone}
_DATA_MANAGER_ADDRESS: Final[Mapping[str, Maker]] = {
    "given_name": partial(hashed, given_name),
    "family_name": partial(hashed, family_name),
    "region_code": country,
    "postal_code": postal_code,
    "address_line": partial(hashed, words),
    "city": words,
    "administrative_area": words,
}
_GOOGLE_ADS: Final[Mapping[str, Maker]] = {
    "hashed_email": hashed_email,
    "hashed_phone_number": hashed_phone,
    "mobile_id": plain,
    "third_party_user_id": plain,
    "user_identifier_source": plain,
}
_GOOGLE_ADS_ADDRESS: Final[Mapping[str, Maker]] = {
    "hashed_first_name": hashed_name,
    "hashed_last_name": hashed_name,
    "hashed_street_address": hashed_name,
    "city": plain,
    "state": plain,
    "country_code": country,
    "postal_code": postal_code,
}
_CM360: Final[Mapping[str, Maker]] = {"hashed_email": hashed_email, "hashed_phone_number": hashed_phone}
_GA4: Final[Mapping[str, Maker]] = {"sha256_email_address": hashed_email, "sha256_phone_number": hashed_phone}
_GA4_ADDRESS: Final[Mapping[str, Maker]] = {
    "sha256_first_name": partial(hashed, letters),
    "sha256_last_name": partial(hashed, letters),
    "sha256_street": partial(hashed, words),
    "city": letters,
    "region": letters,
    "postal_code": postal_code,
    "country": country,
}


def data_manager_identifier(given: Mapping[str, Any], region: str = "", field: str = "user_data") -> dict[str, Any]:
    """One `UserIdentifier` of the Data Manager API: `email_address`, `phone_number`, or an `address` with
    `given_name`, `family_name`, `region_code`, `postal_code` (all four), `address_line`, `city` and
    `administrative_area`. Raises RecordError."""
    needed = ("given_name", "family_name", "region_code", "postal_code")
    return _made(given, _DATA_MANAGER, "address", _DATA_MANAGER_ADDRESS, needed, region, field)


def google_ads_identifier(
    given: Mapping[str, Any], region: str = "", field: str = "user_identifiers"
) -> dict[str, Any]:
    """One `UserIdentifier` of the Google Ads API: `hashed_email`, `hashed_phone_number`, `mobile_id`,
    `third_party_user_id`, or an `address_info` with `hashed_first_name`, `hashed_last_name`, `country_code`,
    `postal_code` (all four), `hashed_street_address`, `city` and `state`. Raises RecordError."""
    needed = ("hashed_first_name", "hashed_last_name", "country_code", "postal_code")
    return _made(given, _GOOGLE_ADS, "address_info", _GOOGLE_ADS_ADDRESS, needed, region, field)


def cm360_identifier(given: Mapping[str, Any], region: str = "", field: str = "user_identifiers") -> dict[str, Any]:
    """One `UserIdentifier` of Campaign Manager 360: as Google Ads', without ids of devices and third parties. Raises
    RecordError."""
    return _made(given, _CM360, "address_info", _GOOGLE_ADS_ADDRESS, (), region, field)


def ga4_user_data(given: Mapping[str, Any], region: str = "", field: str = "user_data") -> dict[str, Any]:
    """The `user_data` of a GA4 event: `sha256_email_address`, `sha256_phone_number` and `address` (with
    `sha256_first_name`, `sha256_last_name`, `sha256_street`, `city`, `region`, `postal_code`, `country`), each one or a
    list of them. Raises RecordError."""
    made: dict[str, Any] = {}
    for key, values in given.items():
        each = [
            _made({key: value}, _GA4, "address", _GA4_ADDRESS, (), region, field)[key]
            for value in (values if isinstance(values, list) else [values])
        ]
        made[key] = each if isinstance(values, list) else each[0]
    return made


def _made(
    given: Mapping[str, Any],
    makers: Mapping[str, Maker],
    address: str,
    parts: Mapping[str, Maker],
    needed: tuple[str, ...],
    region: str,
    field: str,
) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in given.items():
        place = f"{field}.{key}"
        if key == address and isinstance(value, Mapping):
            made[key] = _address(value, parts, needed, region, place)
        elif key in makers:
            made[key] = makers[key](value, place, region)
        else:
            # The name of a column may be anything, but it is no value.
            raise RecordError(f"{place} is no field of a person here", field=place, number=MALFORMED_PERSONAL)
    return made


def _address(
    given: Mapping[str, Any], parts: Mapping[str, Maker], needed: tuple[str, ...], region: str, field: str
) -> dict[str, Any]:
    if missing := [key for key in needed if given.get(key) in (None, "")]:
        raise RecordError(f"{field} lacks {', '.join(missing)}", field=field, number=MALFORMED_PERSONAL)
    where = next((given[key] for key in ("region_code", "country_code", "country") if key in given), "")
    of = where if isinstance(where, str) else ""
    made: dict[str, Any] = {}
    for key, value in given.items():
        place = f"{field}.{key}"
        if key not in parts:
            raise RecordError(f"{place} is no field of an address here", field=place, number=MALFORMED_PERSONAL)
        made[key] = parts[key](value, place, of if parts[key] is postal_code else region)
    return made


def _text(value: Any, field: str) -> str:
    """A text that can be written and read by people. Raises RecordError."""
    if not isinstance(value, str) or not value.strip() or len(value) > MOST_CHARACTERS:
        raise _malformed(field, "a text of this kind")
    if any(
        unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn") and not character.isspace() for character in value
    ):
        raise _malformed(field, "a text of this kind")
    return value


def _line(value: Any, field: str) -> str:
    return " ".join(_text(value, field).lower().split())


def _without(kinds: str, text: str) -> str:
    """A text without the characters of these kinds: P punctuation, S symbols, N digits."""
    return " ".join("".join(each for each in text if unicodedata.category(each)[0] not in kinds).split())


def _filled(text: str, field: str, what: str) -> str:
    if not text:
        raise _malformed(field, what)
    return text


def _malformed(field: str, what: str) -> RecordError:
    return RecordError(f"{field} is not {what}", field=field, number=MALFORMED_PERSONAL)
