"""What a data sync makes of the rows of a file and of objects, and what is said of one that cannot be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from functions.data_syncs.mapping import KINDS_OF, MAX_UPLOAD, Match, rules
from functions.data_syncs.rows import CHANNELS
from shared.declared.fields import FieldRule, LookUp
from shared.errors import MALFORMED, NO_IDENTITY, RecordError
from shared.kinds import KINDS, object_id
from shared.rules import Rules

Row = dict[str, Any]
IMPORTS = KINDS_OF["import"]
WHO = {kind: ("id", *KINDS[kind]) for kind in KINDS}
NEEDED = {"campaign_data": ("campaign",), "priorities": ("campaign",)}


def made(type: str, kind: str, **options: Any) -> Rules:
    return rules({"type": type, "kind": kind, **options})


def refusal(found: Rules, row: Row) -> tuple[int, str]:
    """The number and the column by which a row is refused."""
    with pytest.raises(RecordError) as refused:
        found.identify(row)
    return refused.value.number, refused.value.field


# --- the three directions ---


def test_an_import_reads_what_was_sent_and_writes_the_store() -> None:
    found = made("import", "customers")
    assert (found.source, found.target, found.read, found.write) == ("uploads", "store", "customers", "customers")
    assert (found.launched, found.verifies, found.deletes, found.hold_back, found.polled) == (
        "sent", True, False, 0.0, False,
    )  # fmt: skip
    assert found.settings == {
        "needs": ["id"],
        "exactly": [],
        "delimiter": "",
        "max_upload": MAX_UPLOAD,
        "match": "",
        "unmatched": "reject",
    }


def test_a_deletion_is_an_import_that_deletes_and_sends_only_who_it_is() -> None:
    found = made("delete", "campaign_data", mapping={"id": "Nr.", "campaign": "C", "score": "S"}, max_upload=10)
    assert (found.source, found.target, found.launched, found.verifies, found.deletes) == (
        "uploads", "store", "sent", True, True,
    )  # fmt: skip
    assert found.to_target({"Nr.": "7", "C": "spring", "S": "1"}) == {"id": "7", "campaign": "spring"}
    assert (found.settings["needs"], found.settings["max_upload"]) == (["Nr.", "C"], 10)
    assert made("delete", "customers").to_target({"id": "7", "name": "Ana"}) == {"id": "7"}
    by_mail = made("delete", "customers", match="email")
    assert by_mail.to_target({"id": "7", "email": "a@b"}) == {"email": "a@b"}
    assert (by_mail.settings["match"], by_mail.settings["needs"]) == ("email", ["email"])


def test_an_export_reads_everything_into_a_file_of_its_own() -> None:
    found = made("export", "campaign_results", mapping={"Nr.": "id", "when": "at"}, escape_formulas=False)
    assert (found.source, found.target, found.read, found.launched, found.polled, found.hold_back) == (
        "store", "exports", "campaign_results", "whole", True, 0.0,
    )  # fmt: skip
    columns = {"columns": ["Nr.", "when"]}
    assert found.settings == {"all": True, **columns, "delimiter": ",", "escape_formulas": False}
    plain = made("export", "customers", delimiter="tab").settings
    assert plain == {"all": True, "columns": [], "delimiter": "\t", "escape_formulas": True}
    assert found.identify({"id": "7", "_identity": "r1"}) == "r1"


def test_the_header_must_have_what_the_mapping_reads_and_nothing_makes_up_for() -> None:
    mapping = {
        "id": FieldRule(from_="Nr.", default="x"),
        "name": "Full name",
        "short": FieldRule(from_="Full name"),
        "city": FieldRule(from_="City", default=""),
        "kind": FieldRule(from_="Kind", look_up=LookUp({"a": 1}, default=0)),
        "origin": FieldRule(constant="crm"),
    }
    assert made("import", "customers", mapping=mapping).settings["needs"] == ["Nr.", "Full name", "Kind"]
    assert made("import", "unsubscriptions").settings["needs"] == ["id"]
    assert made("import", "campaign_data", match="email").settings["needs"] == ["email", "campaign"]


def test_a_file_of_priorities_has_exactly_the_columns_of_its_model() -> None:
    def exactly(**options: Any) -> list[str]:
        found: list[str] = made("import", "priorities", **options).settings["exactly"]
        return found

    assert exactly() == ["id", "campaign", "priority"]
    assert exactly(match="email") == ["email", "campaign", "priority"]
    mapping = {"id": "Nr.", "campaign": FieldRule(constant="spring"), "p": FieldRule(from_="P", default=0)}
    assert exactly(mapping=mapping) == ["Nr.", "P"]


# --- who a row is about ---

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
PARTS = st.text("a|\\ :", max_size=4)
ROWS = st.dictionaries(TEXTS.filter(bool), TEXTS, max_size=4)


def a_row(draw: st.DrawFn, kind: str, first: str = "id") -> Row:
    """A row of a file whose identity is there."""
    parts = {name: draw(PARTS) for name in KINDS[kind] if name != "channel"}
    for name in (first, *NEEDED.get(kind, ())):
        parts[name] = draw(PARTS.filter(str.strip))
    if kind == "unsubscriptions":
        parts["channel"] = draw(st.sampled_from(["", " ", *CHANNELS, *(each[1:] for each in CHANNELS)]))
    return {**draw(ROWS), **parts}


@given(st.data(), st.sampled_from(IMPORTS))
def test_a_key_is_the_id_of_the_object(data: st.DataObject, kind: str) -> None:
    row = data.draw(st.composite(a_row)(kind))
    for type in ("import", "delete"):
        if kind in KINDS_OF[type]:
            found = made(type, kind)
            content = found.to_target(row)
            assert found.identify(row) == object_id(kind, content["id"], content)


@given(st.data(), st.sampled_from(IMPORTS))
def test_two_rows_have_one_key_exactly_if_they_are_about_the_same(data: st.DataObject, kind: str) -> None:
    one, other = (data.draw(st.composite(a_row)(kind)) for _ in range(2))
    found = made("import", kind)
    same = [[found.to_target(row)[name] for name in WHO[kind]] for row in (one, other)]
    assert (found.identify(one) == found.identify(other)) is (same[0] == same[1])


@given(st.data(), st.sampled_from(IMPORTS), st.sampled_from(["id", "email"]))
def test_columns_may_be_called_anything(data: st.DataObject, kind: str, first: str) -> None:
    """Dots, blanks and odd signs are part of a name."""
    plain = {name: value for name, value in data.draw(st.composite(a_row)(kind, first)).items() if name.isidentifier()}
    columns = {name: f"{name}. {data.draw(TEXTS)}.0 ." for name in plain}
    options = {} if first == "id" else {"match": first}
    mapped, unmapped = made("import", kind, mapping=columns, **options), made("import", kind, **options)
    row = {columns[name]: value for name, value in plain.items()} | {"other. one": "left out"}
    assert mapped.identify(row) == unmapped.identify(plain)
    assert mapped.to_target(row) == unmapped.to_target(plain)


def test_a_column_is_never_a_path() -> None:
    found = made("import", "customers", mapping={"id": "a.b", "city": FieldRule(from_="x.y", default="none")})
    assert found.to_target({"a.b": "7", "x": "text"}) == {"id": "7", "city": "none"}
    assert made("import", "customers", mapping={"id": "n", "at.city": "c"}).to_target({"n": "7", "c": "Salto"}) == {
        "id": "7",
        "at": {"city": "Salto"},
    }


@given(st.data(), st.sampled_from(IMPORTS), st.sampled_from(["", " ", None]))
def test_a_row_about_nobody_is_refused_by_its_column(data: st.DataObject, kind: str, nothing: str | None) -> None:
    row = data.draw(st.composite(a_row)(kind))
    for name in ("id", *NEEDED.get(kind, ())):
        mapping = {each: f"column {each}" for each in WHO[kind]}
        assert refusal(made("import", kind), {**row, name: nothing}) == (NO_IDENTITY, name)
        renamed = {mapping.get(each, each): value for each, value in {**row, name: nothing}.items()}
        assert refusal(made("import", kind, mapping=mapping), renamed) == (NO_IDENTITY, f"column {name}")
    without = {name: value for name, value in row.items() if name != "id"}
    assert refusal(made("import", kind), without) == (NO_IDENTITY, "id")
    listed = made("import", kind, mapping={"id": FieldRule(from_="id", as_="list"), "campaign": "campaign"})
    assert refusal(listed, row) == (NO_IDENTITY, "id")


@given(st.data(), st.sampled_from(IMPORTS))
def test_a_row_that_is_matched_is_known_by_the_value(data: st.DataObject, kind: str) -> None:
    row = data.draw(st.composite(a_row)(kind, "email"))
    row["id"] = "ignored"
    found = made("import", kind, match=Match("email"))
    content = found.to_target(row)
    assert found.identify(row) == object_id(kind, row["email"], content)
    assert refusal(found, {**row, "email": ""}) == (NO_IDENTITY, "email")


def test_a_conversion_is_part_of_the_identity() -> None:
    found = made("import", "customers", mapping={"id": FieldRule(from_="Nr.", as_="integer")})
    assert (found.identify({"Nr.": "007"}), found.to_target({"Nr.": "007"})) == ("7", {"id": 7})
    with pytest.raises(RecordError, match="no whole number"):
        found.identify({"Nr.": "seven"})


@given(st.text(max_size=8))
def test_a_channel_is_one_of_four_with_or_without_its_colon(word: str) -> None:
    found = made("import", "unsubscriptions", mapping={"id": "id", "channel": "Canal"})
    row = {"id": "7", "Canal": word}
    bare = word.strip().removeprefix(":")
    if f":{bare}" in CHANNELS:
        assert found.to_target(row)["channel"] == f":{bare}"
    elif bare:
        assert refusal(found, row) == (MALFORMED, "Canal")
        with pytest.raises(RecordError) as refused:
            found.to_target(row)
        assert "Canal" in refused.value.reason and repr(word) not in refused.value.reason
    else:
        assert found.to_target(row)["channel"] == "" and found.identify(row) == "7||||"


@pytest.mark.parametrize("channel", CHANNELS)
def test_each_channel_is_known(channel: str) -> None:
    found = made("import", "unsubscriptions")
    assert found.to_target({"id": "7", "channel": channel[1:]}) == {"id": "7", "channel": channel}
    assert found.identify({"id": "7", "channel": channel}) == f"7||||{channel}"
    assert made("delete", "unsubscriptions").to_target({"id": "7", "x": "y"}) == {"id": "7"}


# --- objects as rows ---

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
OBJECTS = st.dictionaries(TEXTS.filter(lambda name: bool(name.strip())), VALUES, min_size=1, max_size=5)


def check_cell(cell: Any, value: Any) -> None:
    """A cell says what the value is."""
    assert type(cell) is str
    if value is None:
        assert cell == ""
    elif isinstance(value, str):
        assert cell == value
    elif isinstance(value, float):
        assert float(cell) == value
    else:
        assert json.loads(cell) == value


@given(OBJECTS)
def test_each_field_becomes_a_text(fields: Row) -> None:
    cells = made("export", "customers").to_target({"id": "7", **fields, "_identity": "7"})
    expected = {"id": "7", **fields}
    assert cells.keys() == expected.keys()
    for name, value in expected.items():
        check_cell(cells[name], value)


@given(OBJECTS)
def test_a_name_that_an_object_has_is_no_path(fields: Row) -> None:
    columns = {f"column. {number}": name for number, name in enumerate(fields)}
    found = made("export", "customers", mapping=columns)
    cells = found.to_target({**fields, "_identity": "7"})
    for column, name in columns.items():
        check_cell(cells[column], fields[name])
    assert list(cells) == list(columns) == found.settings["columns"]


@given(OBJECTS)
def test_what_was_exported_and_imported_again_is_the_same_text(fields: Row) -> None:
    assume("id" not in fields)
    columns = {f"{name} ({number})": name for number, name in enumerate(fields)}
    cells = made("export", "customers", mapping={"Nr.": "id", **columns}).to_target({"id": "7", **fields})
    plain = {name: column for column, name in columns.items() if "." not in name and name == name.strip()}
    back = made("import", "customers", mapping={"id": "Nr.", **plain})
    assert back.identify(cells) == "7"
    assert back.to_target(cells) == {"id": "7", **{name: cells[column] for name, column in plain.items()}}


def test_columns_may_be_parts_of_a_field_or_converted_or_empty() -> None:
    mapping = {
        "City": "address.city",
        "a.b": "x.y",
        "Day": FieldRule(from_="born", as_="date"),
        "Sex": FieldRule(from_="sex", look_up=LookUp({"1": "m"}, default="?")),
        "From": FieldRule(constant=7),
        "Gone": "nothing.here",
        "No. of items": "No. of items",
    }
    found = made("export", "customers", mapping=mapping).to_target(
        {"address": {"city": "Salto"}, "x.y": [1], "x": {"y": 2}, "born": "20000131", "sex": 2, "No. of items": 3}
    )
    assert found == {
        "City": "Salto", "a.b": "[1]", "Day": "2000-01-31", "Sex": "?", "From": "7", "Gone": "", "No. of items": "3",
    }  # fmt: skip


def test_a_value_that_no_cell_can_hold_is_told_by_its_column() -> None:
    with pytest.raises(RecordError) as refused:
        made("export", "customers").to_target({"id": "7", "n": 10**50})
    assert refused.value.field == "n"


ANYTHING = st.dictionaries(st.sampled_from(["id", "email", "channel", "campaign", "x.y", "_identity"]), VALUES)


@given(st.sampled_from([(type, kind) for type, kinds in KINDS_OF.items() for kind in kinds]), ANYTHING, st.booleans())
def test_any_row_is_mapped_or_refused_with_a_reason(direction: tuple[str, str], row: Row, mapped: bool) -> None:
    names = ("id", "campaign", "channel")
    mapping = {name: FieldRule(from_=name, as_="text") for name in names}
    found = made(*direction, **({"mapping": mapping} if mapped else {}))
    try:
        key = found.identify(row)
        content = found.to_target(row)
    except RecordError as refused:
        assert refused.reason
    else:
        assert key and isinstance(content, dict)
