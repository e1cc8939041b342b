"""Rows of CSV files as objects of the hub's own store, and objects as rows. Pure.

A column is called what it is called, with dots and blanks, and is never a path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from shared.declared import convert
from shared.declared.fields import FieldRule, compile_fields
from shared.errors import MALFORMED, NO_IDENTITY, RecordError
from shared.kinds import identity_text, object_id
from shared.tabular import IDENTITY

CHANNELS: Final = (":mail", ":pushn", ":sms", ":all")
UNSUBSCRIPTIONS: Final = "unsubscriptions"

Fields = Mapping[str, str | FieldRule]
Row = dict[str, Any]
MakeRow = Callable[[Row], Row]


def key_maker(kind: str, who: Sequence[str], needed: Sequence[str], mapping: Fields) -> Callable[[Row], str]:
    """Gives the key of a row: the id that its object has in the store, or, where its customer is matched, what that
    would be if the value were the customer's id. `who` are the fields that tell it, the customer's first, and `needed`
    those that must not be empty. Raises RecordError, which names the column."""
    content_of = content_maker(kind, mapping, who)
    columns = {name: column_of(mapping.get(name, name)) or name for name in who}

    def key_of(row: Row) -> str:
        content = content_of(row)
        for name, column in columns.items():
            try:
                told = identity_text(content.get(name))
            except ValueError as error:
                raise RecordError(f"{column} is {error}", field=column, number=NO_IDENTITY) from None
            if name in needed and not told.strip():
                raise RecordError(f"there is no {column}", field=column, number=NO_IDENTITY)
        return object_id(kind, identity_text(content[who[0]]), content)

    return key_of


def content_maker(kind: str, mapping: Fields, only: Sequence[str] = ()) -> MakeRow:
    """Gives what the store is sent of a row: these fields alone if any are named. Raises RecordError."""
    made: MakeRow = dict
    if mapping:
        kept = {name: rule for name, rule in mapping.items() if not only or name in only}
        made = compile_fields(kept, of_row=True)
    elif only:
        made = partial(_chosen, only)
    if kind != UNSUBSCRIPTIONS:
        return made
    return partial(_with_channel, made, column_of(mapping.get("channel", "channel")) or "channel")


def _chosen(names: Sequence[str], row: Row) -> Row:
    return {name: row[name] for name in names if name in row}


def _with_channel(made: MakeRow, column: str, row: Row) -> Row:
    """With the channel as the vendor writes it, with a colon."""
    content = made(row)
    if content.get("channel") is None:
        return content
    word = str(content["channel"]).strip().removeprefix(":")
    channel = f":{word}" if word else ""
    if channel and channel not in CHANNELS:
        raise RecordError(f"{column} is none of {', '.join(CHANNELS)}", field=column, number=MALFORMED)
    return {**content, "channel": channel}


def cells_maker(mapping: Fields) -> MakeRow:
    """Gives the cells of an object's row, by column. Raises RecordError."""
    if not mapping:
        return lambda found: {name: _cell(value, name) for name, value in found.items() if name != IDENTITY}
    made = compile_fields(mapping, as_row=True)

    def cells(found: Row) -> Row:
        row = made(found)
        return {column: _cell(row.get(column), column) for column in mapping}

    return cells


def _cell(value: Any, column: str) -> str:
    """A value as text: null is empty, and what has parts is JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    try:
        return convert.as_json(value) if isinstance(value, dict | list) else convert.text(value)
    except ValueError as error:
        raise RecordError(f"{column} is {error}", field=column) from None


def column_of(rule: str | FieldRule) -> str:
    """Where a field is read, empty for a constant."""
    return rule if isinstance(rule, str) else rule.from_ or ""
