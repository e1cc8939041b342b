"""How answers are written: as the caller asks for it by `Accept`, then by `Content-Type`, else the first that there is.

The caller's wish never ends in a 406: the API that this one stands in for answers in its default format. EDN as
https://github.com/edn-format/edn has it: keys become keywords, and of whitespace only a space is needed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

JSON: Final = "application/json"
EDN: Final = "application/edn"
CSV: Final = "text/csv"

_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_UNSAFE: Final = re.compile('[\\\\"\\x00-\\x1f\\x7f\\u2028\\u2029\\ud800-\\udfff]')


def negotiated(accept: str, content_type: str, offers: Sequence[str]) -> str:
    """One of the offers: the one that the caller likes best, by quality, then by how exactly it is named."""
    wishes = {offer: _wish(offer, accept) for offer in offers}
    best = max(wishes.values())
    liked = [offer for offer in offers if wishes[offer] == best]
    sent = content_type.partition(";")[0].strip().lower()
    return sent if sent in liked else liked[0]


def _wish(offer: str, accept: str) -> tuple[float, int]:
    """The quality of the range that names an offer most exactly, and how exactly it does."""
    from werkzeug.http import parse_accept_header

    ranges = {offer: 2, f"{offer.partition('/')[0]}/*": 1, "*/*": 0, "*": 0}
    found = [
        (ranges[name], quality)
        for value, quality in parse_accept_header(accept)
        if (name := value.partition(";")[0].strip().lower()) in ranges
    ]
    exactness, quality = max(found, default=(-1, 0.0))
    return (quality, exactness) if quality > 0 else (0.0, -1)


def encoded(value: Any, format: str) -> bytes:
    """What JSON can hold, in one of the two formats."""
    return edn(value).encode() if format == EDN else msgspec.json.encode(value)


def edn(value: Any) -> str:
    """A value as EDN, the keys of its maps as keywords."""
    match value:
        case dict():
            return "{" + " ".join(f":{key} {edn(each)}" for key, each in value.items()) + "}"
        case list():
            return "[" + " ".join(map(edn, value)) + "]"
        case str():
            return f'"{_UNSAFE.sub(_escaped, value)}"'
        case int() if not isinstance(value, bool):
            return str(value)
    raise TypeError(f"{type(value).__name__} is in no answer")


def _escaped(found: re.Match[str]) -> str:
    return _ESCAPES.get(found[0]) or f"\\u{ord(found[0]):04x}"


def stamp(instant: datetime) -> str:
    """UTC without a zone, in whole seconds."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
