"""What a data sync is made of: which kind of object, in which direction, and by which columns of its CSV file.

Every stream is a data sync whose id is the stream's name, and takes the same keys: `title`, `type`, `kind`, `mapping`,
`match`, `authentication`, `escape_formulas`, `delimiter` and `max_upload` (integration.yaml says what they mean). All
that is wrong with them is told at once.

An import or a deletion reads one file that was sent and writes the hub's own store; an export reads all of a kind there
into a file of its own. Others write to the store too, so that what an import sent before is sent again where the store
does not hold it any more.

Facts: the kinds and their directions, that an unsubscription may name a campaign, a category, a group and one of four
channels, and that a file of priorities has exactly the columns of its model: vendor documentation. What the columns are
called without a mapping is ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec

from functions.data_syncs.rows import Fields, cells_maker, column_of, content_maker, key_maker
from shared.declared.faults import Fault, Faults, shown
from shared.declared.fields import FieldRule, compile_fields
from shared.errors import ConfigError
from shared.kinds import CUSTOMERS, KINDS
from shared.objects import FINDABLE
from shared.rules import Rules
from shared.tabular import identify

MAX_UPLOAD: Final = 1_000_000_000
"""Bytes that a file may have, where nothing else is said."""
PRIORITIES: Final = "priorities"
NEEDED: Final[Mapping[str, tuple[str, ...]]] = {"campaign_data": ("campaign",), PRIORITIES: ("campaign",)}
"""By kind what an object cannot be known without, besides whom it is about."""
KINDS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "import": (CUSTOMERS, "campaign_data", PRIORITIES, "unsubscriptions"),
    "export": tuple(KINDS),
    # A file of priorities has all columns of its model, which says nothing of what to delete.
    "delete": (CUSTOMERS, "campaign_data", "unsubscriptions"),
}
_COMMON: Final = ("title", "type", "kind", "authentication", "mapping", "delimiter")
KEYS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "import": (*_COMMON, "match", "max_upload"),
    "export": (*_COMMON, "escape_formulas"),
    "delete": (*_COMMON, "match", "max_upload"),
}
_NAMED_DELIMITERS: Final = {"tab": "\t", "\\t": "\t"}


class Match(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By which of its fields a customer is found, and what becomes of a row that finds none."""

    field: str
    unmatched: Literal["reject", "create"] = "reject"


OPTIONS: Final[Mapping[str, Any]] = {
    "*": {
        "title": str,
        "type": Literal["import", "export", "delete"],
        "kind": Literal["customers", "campaign_data", "priorities", "unsubscriptions", "campaign_results"],
        "mapping": dict[str, str | FieldRule],
        "match": str | Match,
        "authentication": bool,
        "escape_formulas": bool,
        "delimiter": str,
        "max_upload": Annotated[int, msgspec.Meta(ge=1)],
    }
}


def rules(options: Mapping[str, Any]) -> Rules:
    """The rules of a data sync by its own keys. Raises Faults."""
    if faults := [
        *_faults_of_type(options),
        *_faults_of_mapping(options),
        *_faults_of_match(options),
        *_faults_of_delimiter(options),
    ]:
        raise Faults(faults)
    return _export(options) if options["type"] == "export" else _sent(options)


def _export(options: Mapping[str, Any]) -> Rules:
    kind: str = options["kind"]
    mapping: Fields = options.get("mapping") or {}
    return Rules(
        read=kind,
        write=kind,
        source="store",
        target="exports",
        identify=identify,
        to_target=cells_maker(mapping),
        launched="whole",
        polled=True,
        hold_back=0.0,
        settings={
            "all": True,
            "columns": list(mapping),
            "delimiter": _delimiter(options) or ",",
            "escape_formulas": options.get("escape_formulas", True),
        },
    )


def _sent(options: Mapping[str, Any]) -> Rules:
    """The rules of an import or a deletion. Of what is deleted, nothing is sent but who it is."""
    kind: str = options["kind"]
    mapping: Fields = options.get("mapping") or {}
    match, deletes = _match(options), options["type"] == "delete"
    who = (match.field if match else "id", *KINDS[kind])
    needed = (who[0], *NEEDED.get(kind, ()))
    sent = {name: rule for name, rule in mapping.items() if name in who} if deletes else mapping
    return Rules(
        read=kind,
        write=kind,
        source="uploads",
        target="store",
        identify=key_maker(kind, who, needed, mapping),
        to_target=content_maker(kind, mapping, who if deletes else ()),
        launched="sent",
        verifies=True,
        hold_back=0.0,
        deletes=deletes,
        settings={
            "needs": _columns(sent, who[0]) if mapping else list(needed),
            "exactly": _model_columns(mapping, needed) if kind == PRIORITIES else [],
            "delimiter": _delimiter(options),
            "max_upload": options.get("max_upload", MAX_UPLOAD),
            "match": match.field if match else "",
            "unmatched": match.unmatched if match else "reject",
        },
    )


def _match(options: Mapping[str, Any]) -> Match | None:
    """None where rows are known by the id."""
    given = options.get("match") or "id"
    match = given if isinstance(given, Match) else Match(given)
    return None if match.field == "id" else match


def _delimiter(options: Mapping[str, Any]) -> str:
    given = str(options.get("delimiter") or "")
    return _NAMED_DELIMITERS.get(given, given)


def _columns(mapping: Fields, first: str) -> list[str]:
    """The columns that a header must have: those without a default, and the one that says whom a row is about."""
    needed = [
        column_of(rule)
        for name, rule in mapping.items()
        if name == first or isinstance(rule, str) or rule.default is msgspec.UNSET
    ]
    return [column for column in dict.fromkeys(needed) if column]


def _model_columns(mapping: Fields, needed: tuple[str, ...]) -> list[str]:
    """The only columns that a file of priorities may have."""
    columns = map(column_of, mapping.values()) if mapping else (*needed, "priority")
    return [column for column in dict.fromkeys(columns) if column]


def _faults_of_type(options: Mapping[str, Any]) -> Iterator[Fault]:
    what, kind = options.get("type"), options.get("kind")
    if what is None:
        yield Fault("type", "nothing", f"one of {', '.join(KINDS_OF)}", "add a type, such as type: import")
    if kind is None:
        yield Fault("kind", "nothing", f"one of {', '.join(KINDS)}", "add a kind, such as kind: customers")
    if what is None:
        return
    if kind is not None and kind not in KINDS_OF[what]:
        expected = f"one of {', '.join(KINDS_OF[what])}, which are those of type: {what}"
        yield Fault("kind", shown(kind), expected, "write one of them, or another type")
    for name in options:
        if name not in KEYS_OF[what]:
            expected = f"one of {', '.join(KEYS_OF[what])}, which are those of type: {what}"
            yield Fault(name, f"key `{name}`", expected, "remove it")


def _faults_of_mapping(options: Mapping[str, Any]) -> Iterator[Fault]:
    mapping, what = options.get("mapping"), options.get("type")
    if mapping is None:
        return
    try:
        compile_fields(mapping, of_row=what != "export", as_row=what == "export")
    except Faults as faults:
        for each in faults.mistakes:
            yield msgspec.structs.replace(each, path=f"mapping{each.path.removeprefix('fields')}")
    if what == "export":
        return
    match = _match(options)
    for name in (match.field if match else "id", *NEEDED.get(options.get("kind", ""), ())):
        if name not in mapping:
            yield Fault(f"mapping.{name}", "nothing", "where a row says what it is about", f"add {name}: COLUMN")


def _faults_of_match(options: Mapping[str, Any]) -> Iterator[Fault]:
    match = _match(options)
    if match is None:
        return
    if not FINDABLE.fullmatch(match.field):
        expected = "a customer's field, named by letters, digits and underscores"
        yield Fault("match", shown(match.field), expected, "write for example match: email")
    if match.unmatched == "create" and (options.get("type"), options.get("kind")) != ("import", CUSTOMERS):
        cure = "remove unmatched, and import the customers before"
        yield Fault("match.unmatched", "`create`", "reject: only an import of customers makes any", cure)


def _faults_of_delimiter(options: Mapping[str, Any]) -> Iterator[Fault]:
    delimiter = _delimiter(options)
    if delimiter and (len(delimiter) > 1 or delimiter in '"\r\n'):
        yield Fault("delimiter", shown(options["delimiter"]), "one character, or tab", 'write for example ";"')


def _refused(options: Mapping[str, Any]) -> Rules:
    """In addresses these words stand where the id of a data sync may stand too."""
    raise ConfigError(f"a data sync is called none of {', '.join(KINDS_OF)}", cure="rename the stream")


STREAMS: Final = {"*": rules, **dict.fromkeys(KINDS_OF, _refused)}
