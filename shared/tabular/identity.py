"""What a row is known by: its key columns, else its content and how often the same content came before in the file.

A row's place is no identity: a line inserted above would make another record of each one below. Two equal rows are two
records; so the first one of two files is the same record in both, and so is the second.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Final

from shared.errors import NO_IDENTITY, ConfigError, RecordError
from shared.record import content_hash

IDENTITY: Final = "_identity"
"""The column that a source adds to each row. `identify` reads it."""

_FIRST: Final = re.compile(r"(?:\\.|[^\\|])*", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_SHARDS: Final = 256
_FULLEST: Final = 0.85
_MOST: Final = 255
"""How often a row can be counted beside its fingerprint; the few that come more often are counted apart."""


def identify(row: Mapping[str, Any]) -> str:
    """The identity that the source gave to a row: the `identify` of a stream. Raises RecordError."""
    found = row.get(IDENTITY)
    if not isinstance(found, str) or not found:
        raise RecordError("it has no identity", field=IDENTITY, number=NO_IDENTITY)
    return found


def key_of(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that a row is known by, of a stream's `key`; none if it is known by its content. Raises
    ConfigError."""
    key = options.get("key") or ()
    names = (key,) if isinstance(key, str) else tuple(key)
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise ConfigError("`key` is no list of different columns", cure="write key: [column, ...]")
    return names


class Identities:
    """Gives each row of one file its identity. Without key columns the rows have to come from the first one on."""

    def __init__(self, key: Sequence[str]) -> None:
        self._key = tuple(key)
        self._seen = Occurrences()

    def of(self, row: Mapping[str, Any]) -> str:
        """Raises RecordError for a row that lacks a key column."""
        if self._key:
            return joined([key_text(row, name) for name in self._key])
        fingerprint = content_hash(row)
        return f"{fingerprint}#{self._seen.count(fingerprint.encode())}"


def joined(values: Sequence[str]) -> str:
    """One text for several, different for different ones. A single one stays as it is, so that people can name it."""
    if len(values) == 1:
        return values[0]
    return "|".join(value.replace("\\", "\\\\").replace("|", "\\|") for value in values)


def beginning(value: str) -> str:
    """How the text of several begins of which this is the first."""
    return joined([value, ""])


def first_of(text: str) -> str:
    """The first of the values that were joined in a text; a text of one value is taken for several if there is a bar in
    it."""
    found = _FIRST.match(text)
    return _ESCAPED.sub(r"\1", found[0]) if found else text


def key_text(row: Mapping[str, Any], name: str) -> str:
    """The value of a key column as text; a name with dots also leads into objects. Raises RecordError."""
    value = row.get(name)
    if value is None and "." in name:
        found: Any = row
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        value = found
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    what = "is empty" if value in (None, "") or isinstance(value, str) else "is neither text nor a whole number"
    raise RecordError(f"the key column {name} {what}", field=name, number=NO_IDENTITY)


class Occurrences:
    """Counts how often each fingerprint was seen, in 9.5 to 11.5 bytes for each that is different.

    An open-addressed table in shards, each of which grows by itself: an entry is 56 bits of the fingerprint and 8 bits
    of the count, and the shard stands for the other 8 bits. Two rows that share 64 bits would count as one; their
    identities are different all the same, since the whole fingerprint is part of them.
    """

    def __init__(self) -> None:
        self._tables = [_empty(16) for _ in range(_SHARDS)]
        self._sizes = [0] * _SHARDS
        self._often: dict[tuple[int, int], int] = {}

    def count(self, fingerprint: bytes) -> int:
        """How often it was seen before."""
        number = int.from_bytes(hashlib.blake2b(fingerprint, digest_size=8).digest(), "big")
        shard, rest = number % _SHARDS, number // _SHARDS
        table = self._tables[shard]
        slot = _slot(table, rest)
        entry = table[slot]
        before = entry & _MOST
        if before == _MOST:
            before += self._often.get((shard, rest), 0)
            self._often[shard, rest] = before + 1 - _MOST
        else:
            table[slot] = rest << 8 | before + 1
        if not before:
            self._sizes[shard] += 1
            if self._sizes[shard] > len(table) * _FULLEST:
                self._tables[shard] = _grown(table)
        return before


def _empty(size: int) -> array[int]:
    return array("Q", bytes(8 * size))


def _slot(table: array[int], rest: int) -> int:
    """Where an entry is, or would go."""
    size = len(table)
    slot = rest % size
    while (entry := table[slot]) and entry >> 8 != rest:
        slot = slot + 1 if slot + 1 < size else 0
    return slot


def _grown(table: array[int]) -> array[int]:
    larger = _empty(len(table) * 6 // 5)
    for entry in table:
        if entry:
            larger[_slot(larger, entry >> 8)] = entry
    return larger
