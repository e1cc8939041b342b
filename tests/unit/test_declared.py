"""Mapping, conversion, look-up and filter as integration.yaml declares them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.accepted import Refused, option
from shared.declared.conditions import Condition, compile_conditions
from shared.declared.faults import Fault, Faults
from shared.declared.fields import FieldRule, compile_fields
from shared.errors import ConfigError, RecordError

FIELDS = dict[str, str | FieldRule]
ONLY = list[Condition]
USER = {
    "user_id": "11",
    "full_name": "张三",
    "nickname": "",
    "enable_flag": "1",
    "locked": False,
    "department_id": 0,
    "departments": [
        {"department_id": 0, "department_name": "我的企业"},
        {"department_id": "7", "department_name": "Sales"},
    ],
    "manager": {"name": "李四", "boss": None},
    "create_time": "2024-03-15 14:30:25",
}


def fields(declared: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """As the configuration reads it."""
    return compile_fields(option(FIELDS, declared))


def field(value: Any, **rule: Any) -> Any:
    return fields({"x": {"from": "a", **rule}})({"a": value}).get("x", "left out")


def stays_home(record: dict[str, Any], **condition: Any) -> bool:
    [(_, stays)] = compile_conditions(option(ONLY, [{"field": "a", **condition}]))
    return stays(record)


def travels(value: Any, **condition: Any) -> bool:
    return not stays_home({"a": value}, **condition)


def faults(declared: dict[str, Any] | list[dict[str, Any]]) -> tuple[Fault, ...]:
    with pytest.raises(ConfigError) as refused:
        if isinstance(declared, dict):
            fields(declared)
        else:
            compile_conditions(option(ONLY, declared))
    assert isinstance(refused.value, Faults)
    for fault in refused.value.mistakes:
        assert fault.found and fault.expected and fault.cure
        assert str(fault) in str(refused.value)
    return refused.value.mistakes


# --- fields -----------------------------------------------------------------------------------------------------------


def test_a_user_becomes_what_the_target_is_sent() -> None:
    to_target = fields(
        {
            "id": "user_id",
            "name": {"from": "full_name", "default": ""},
            "dept_id": {"from": "department_id", "as": "text"},
            "department": {"from": "departments.1.department_name"},
            "active": {"from": "enable_flag", "as": "integer"},
            "locked": {"from": "locked", "as": "integer"},
            "created_at": {"from": "create_time", "as": "timestamp", "zone": "Asia/Shanghai"},
            "state": {"from": "enable_flag", "look_up": {"table": {"1": "normal", 0: "frozen"}, "default": "?"}},
            "origin": {"constant": "okki"},
            "boss.name": "manager.name",
            "boss.of": {"from": "user_id", "as": "list"},
            "gone": "manager.boss.name",
        }
    )
    before = copy.deepcopy(USER)
    assert to_target(USER) == {
        "id": "11",
        "name": "张三",
        "dept_id": "0",
        "department": "Sales",
        "active": 1,
        "locked": 0,
        "created_at": 1710484225,
        "state": "normal",
        "origin": "okki",
        "boss": {"name": "李四", "of": ["11"]},
    }
    assert before == USER


def test_zero_false_and_an_empty_text_are_values() -> None:
    assert [field(each, default="d") for each in (0, False, "", [], {})] == [0, False, "", [], {}]
    assert field(0, **{"as": "text"}, default="d") == "0"
    assert field("", **{"as": "text"}, default="d") == ""


def test_absent_and_null_become_the_default_or_are_left_out() -> None:
    for record in ({}, {"a": None}, {"a": {}}, {"a": {"b": None}}):
        assert fields({"x": "a.b"})(record) == {}
        assert fields({"x": {"from": "a.b", "default": 7}})(record) == {"x": 7}
        assert fields({"x": {"from": "a.b", "default": None}})(record) == {"x": None}
        assert fields({"x": {"from": "a.b", "as": "integer", "default": "as it is"}})(record) == {"x": "as it is"}
    assert fields({"x": "a.3"})({"a": [1]}) == {}


def test_an_empty_text_is_no_number_and_no_date_and_so_absent() -> None:
    for kind in ("integer", "number", "boolean", "timestamp", "timestamp_ms", "date", "datetime"):
        assert field("", **{"as": kind}) == "left out"
        assert field("", **{"as": kind}, default=None) is None


def test_a_default_or_constant_is_a_new_one_for_each_record() -> None:
    to_target = fields({"x": {"from": "a", "default": []}, "y": {"constant": {"b": []}}, "z": {"constant": None}})
    first = to_target({})
    first["x"].append(1)
    first["y"]["b"].append(1)
    assert to_target({}) == {"x": [], "y": {"b": []}, "z": None}


@pytest.mark.parametrize(
    ("kind", "value", "result"),
    [
        ("text", 1.0, "1"),
        ("text", 1.5, "1.5"),
        ("text", True, "true"),
        ("text", " a ", " a "),
        ("integer", "007", 7),
        ("integer", "-3.0", -3),
        ("integer", 2.0, 2),
        ("integer", True, 1),
        ("number", "1.50", 1.5),
        ("number", "12", 12),
        ("number", 2.5, 2.5),
        ("number", False, 0),
        ("boolean", "1", True),
        ("boolean", 0, False),
        ("boolean", "No", False),
        ("boolean", "TRUE", True),
        ("timestamp", "2024-03-15T14:30:25+08:00", 1710484225),
        ("timestamp", "2024-03-15T14:30:25.999Z", 1710513025),
        ("timestamp", 1710484225, 1710484225),
        ("timestamp", "1710484225678", 1710484225),
        ("timestamp_ms", 1710484225678, 1710484225678),
        ("timestamp_ms", "2024-03-15T14:30:25.678Z", 1710513025678),
        ("date", "2024-03-15 23:30:00", "2024-03-15"),
        ("date", "20240315", "2024-03-15"),
        ("datetime", "2024-03-15T23:30:00-03:00", "2024-03-15 23:30:00"),
        ("list", 1, [1]),
        ("list", [1], [1]),
        ("json", {"b": "部", "a": [1, None]}, '{"a":[1,null],"b":"部"}'),
    ],
)
def test_a_value_is_converted(kind: str, value: Any, result: Any) -> None:
    found = field(value, **{"as": kind})
    assert (found, type(found)) == (result, type(result))


@pytest.mark.parametrize(
    ("kind", "value", "result"),
    [
        ("timestamp", "2024-03-15 14:30:25", 1710484225),
        ("date", "2024-03-15T16:00:00Z", "2024-03-16"),
        ("date", 1710518399, "2024-03-15"),
        ("date", 1710518400, "2024-03-16"),
        ("datetime", "1710484225678", "2024-03-15 14:30:25"),
    ],
)
def test_a_zone_says_what_a_time_without_an_offset_is(kind: str, value: Any, result: Any) -> None:
    assert field(value, **{"as": kind}, zone="Asia/Shanghai") == result


def test_a_daylight_change_counts() -> None:
    rule = {"as": "timestamp", "zone": "America/New_York"}
    assert field("2024-03-10 03:00:00", **rule) - field("2024-03-10 01:00:00", **rule) == 3600
    assert field("2024-11-03 03:00:00", **rule) - field("2024-11-03 00:00:00", **rule) == 4 * 3600


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("text", {"secret": 1}),
        ("text", float("nan")),
        ("integer", "secret"),
        ("integer", "1.5"),
        ("integer", 1.5),
        ("integer", "1e3"),
        ("integer", " "),
        ("integer", "９９"),
        ("integer", 10**50),
        ("number", "secret"),
        ("number", float("inf")),
        ("boolean", "secret"),
        ("boolean", 2),
        ("timestamp", "2024-03-15 14:30:25"),
        ("timestamp", "secret"),
        ("timestamp", "2024-02-30T00:00:00Z"),
        ("timestamp", True),
        ("timestamp_ms", "123456789012345678"),
        ("date", 1710484225),
        ("date", "1710484225"),
        ("datetime", []),
        ("json", {"secret": float("nan")}),
    ],
)
def test_what_cannot_be_converted_names_its_field_and_no_value(kind: str, value: Any) -> None:
    with pytest.raises(RecordError) as refused:
        field(value, **{"as": kind})
    assert refused.value.field == "a"
    assert "secret" not in str(refused.value)


def test_a_path_through_what_holds_nothing_is_the_records_fault() -> None:
    for path, record in (
        ("a.b", {"a": "secret"}),
        ("a.b", {"a": [1]}),
        ("a.0", {"a": 1}),
        ("a.b.0", {"a": {"b": "s"}}),
    ):
        with pytest.raises(RecordError) as refused:
            fields({"x": path})(record)
        assert refused.value.field == path
        assert "secret" not in str(refused.value)


def test_a_number_in_a_path_is_a_place_in_a_list_or_a_name() -> None:
    assert fields({"x": "a.0"})({"a": [5]}) == {"x": 5}
    assert fields({"x": "a.0"})({"a": {"0": 6}}) == {"x": 6}


def test_a_look_up_compares_as_text_and_converts_what_it_finds() -> None:
    table = {"table": {1: "10", "0": "20", "x": None}}
    assert [field(each, look_up=table) for each in ("1", 1, 1.0, True, "0", 0, False)] == ["10"] * 4 + ["20"] * 3
    assert field(1, look_up=table, **{"as": "integer"}) == 10
    assert field("x", look_up=table, **{"as": "integer"}) is None
    assert field("y", look_up={**table, "default": "?"}) == "?"
    assert field(None, look_up={**table, "default": "?"}) == "left out"
    with pytest.raises(RecordError, match="a is not in the table"):
        field("y", look_up=table)
    with pytest.raises(RecordError):
        field([1], look_up=table)


@pytest.mark.parametrize(
    ("declared", "path", "cure"),
    [
        ({"": "a"}, "fields.", "outside in"),
        ({"x": ""}, "fields.x.from", "outside in"),
        ({"x": "a..b"}, "fields.x.from", "outside in"),
        ({"x": {"from": "a. b"}}, "fields.x.from", "outside in"),
        ({"x": {"from": "a", "as": "integr"}}, "fields.x.as", "write integer"),
        ({"x": {"from": "a", "as": "date", "zone": "Asia/Beijing"}}, "fields.x.zone", "Asia/Shanghai"),
        ({"x": {"from": "a", "as": "date", "zone": "../etc"}}, "fields.x.zone", "Asia/Shanghai"),
        ({"x": {"from": "a", "as": "text", "zone": "UTC"}}, "fields.x.zone", "remove zone"),
        ({"x": {"from": "a", "zone": "UTC"}}, "fields.x.zone", "remove zone"),
        ({"x": {"from": "a", "constant": 1}}, "fields.x", "remove constant, or from"),
        ({"x": {"constant": None, "default": 1}}, "fields.x", "remove constant, or default"),
        ({"x": {"as": "text"}}, "fields.x", "write x: PATH"),
        ({"x": {"from": "a", "look_up": {"table": {"1": 1, 1: 2}}}}, "fields.x.look_up.table", "remove one"),
        ({"x": "a", "x.y": "b"}, "fields.x", "only itself"),
        ({}, "fields", "name the fields"),
    ],
)
def test_a_mistake_in_a_field_says_its_place_and_the_cure(declared: dict[str, Any], path: str, cure: str) -> None:
    found = faults(declared)
    assert [fault.path for fault in found] == [path]
    assert cure in found[0].cure


def test_all_mistakes_are_told_at_once() -> None:
    assert len(faults({"x": {"from": "", "as": "y"}, "y": {"constant": 1, "from": "a"}})) == 3
    assert len(faults([{"field": ""}, {"field": "a", "matches": "("}])) == 3


@pytest.mark.parametrize(
    "declared", [{"x": 1}, {"x": {"form": "a"}}, {"x": {"from": ["a"]}}, {"x": {"from": "a", "look_up": {}}}]
)
def test_what_has_the_wrong_form_is_refused_as_any_option_is(declared: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        fields(declared)


# --- conditions -------------------------------------------------------------------------------------------------------


def test_a_filter_is_true_for_what_stays_home_and_has_a_name() -> None:
    only = [
        {"field": "enable_flag", "is": 1, "name": "active"},
        {"field": "departments.1.department_name", "in": ["x"]},
    ]
    filters = compile_conditions(option(ONLY, only))
    assert [name for name, _ in filters] == ["active", "only_departments.1.department_name"]
    assert [stays(USER) for _, stays in filters] == [False, True]
    assert compile_conditions([]) == []


@pytest.mark.parametrize(
    ("condition", "met", "unmet"),
    [
        ({"is": "1"}, ["1", 1, 1.0, True], ["01", "", 0, None, [], ["1"], {}, "true", 11]),
        ({"is": 0}, [0, "0", 0.0, False], ["", None, "00", [], 1]),
        ({"is": True}, [True, 1, "1", "true"], [False, 0, None, "", 2, "yes"]),
        ({"is": ""}, [""], [None, 0, " "]),
        ({"is": None}, [None], ["", 0, False, [], "null"]),
        ({"not": "1"}, ["2", 0, "", None, []], ["1", 1, True]),
        ({"not": None}, ["", 0, False, []], [None]),
        ({"in": ["Sales", 7, None]}, ["Sales", 7, "7", None], ["sales", 8, "", []]),
        ({"above": 10}, [11, "11", "10.5", 10.01], [10, "9", 9.99, -11, None]),
        ({"below": "10"}, [9, "-11", 0], [10, "11", None]),
        ({"above": 1, "below": 3}, [2], [1, 3, 0, 4]),
        ({"above": "2024-01-01"}, ["2024-01-02", "2024-01-01 00:00:00"], ["2023-12-31", "2024-01-01", None]),
        ({"below": "b"}, ["a"], ["b", "c"]),
        ({"matches": "[0-9]+"}, ["12", 12], ["12a", "", None]),
        ({"matches": "a|b", "not": "b"}, ["a"], ["b", "c"]),
    ],
)
def test_a_condition_is_met_or_not(condition: dict[str, Any], met: list[Any], unmet: list[Any]) -> None:
    assert [travels(value, **condition) for value in met] == [True] * len(met)
    assert [travels(value, **condition) for value in unmet] == [False] * len(unmet)


def test_what_is_absent_is_null() -> None:
    assert stays_home({}, **{"is": "1"})
    assert not stays_home({}, **{"not": "1"})
    assert not stays_home({}, **{"is": None})
    assert stays_home({}, above=0)


@pytest.mark.parametrize(
    ("condition", "value"),
    [({"above": 1}, "secret"), ({"below": 1}, [1]), ({"matches": "x"}, {}), ({"above": "b"}, [])],
)
def test_what_cannot_be_compared_names_its_field_and_no_value(condition: dict[str, Any], value: Any) -> None:
    with pytest.raises(RecordError) as refused:
        travels(value, **condition)
    assert refused.value.field == "a"
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("condition", "path"),
    [
        ({"field": "a"}, "only[0]"),
        ({"field": "a", "in": []}, "only[0]"),
        ({"field": "a..b", "is": 1}, "only[0].field"),
        ({"field": "a", "is": 1, "name": ""}, "only[0].name"),
        ({"field": "a", "matches": "["}, "only[0].matches"),
        ({"field": "a", "above": float("nan")}, "only[0]"),
        ({"field": "a", "in": [float("inf")]}, "only[0]"),
    ],
)
def test_a_mistake_in_a_condition_says_its_place(condition: dict[str, Any], path: str) -> None:
    assert [fault.path for fault in faults([condition])] == [path]


@pytest.mark.parametrize("condition", [{"is": 1}, {"field": "a", "equals": 1}, {"field": "a", "is": [1]}, {"field": 1}])
def test_a_condition_of_the_wrong_form_is_refused_as_any_option_is(condition: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        compile_conditions(option(ONLY, [condition]))


# --- whatever comes ---------------------------------------------------------------------------------------------------

_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.from_regex(r"[0-9:. T-]{1,20}"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab01"), inner, max_size=3),
    max_leaves=6,
)
_records = st.dictionaries(st.sampled_from("ab"), _values, max_size=2)
KINDS = ("text", "integer", "number", "boolean", "timestamp", "timestamp_ms", "date", "datetime", "list", "json")


@given(_records, st.sampled_from(KINDS), st.sampled_from(["a", "a.b", "a.0.b"]), st.booleans())
def test_whatever_a_record_holds_it_is_mapped_or_a_record_error(
    record: dict[str, Any], kind: str, path: str, zoned: bool
) -> None:
    zone = {"zone": "America/New_York"} if zoned and KINDS.index(kind) in range(4, 8) else {}
    before = repr(record)
    try:
        content = fields({"x.y": {"from": path, "as": kind, **zone}})(record)
    except RecordError as refused:
        assert refused.field == path
    else:
        assert content == {} or set(content["x"]) == {"y"}
    assert repr(record) == before


@given(
    _records,
    st.fixed_dictionaries(
        {"is": st.none() | st.text(max_size=2) | st.integers() | st.booleans()},
        optional={
            "in": st.lists(st.text(max_size=2) | st.integers(), min_size=1, max_size=2),
            "above": st.integers() | st.text(max_size=3),
            "matches": st.just(".*"),
        },
    ),
)
def test_whatever_a_record_holds_it_travels_or_not_or_is_a_record_error(
    record: dict[str, Any], condition: dict[str, Any]
) -> None:
    try:
        assert stays_home(record, **condition) in (True, False)
    except RecordError as refused:
        assert refused.field == "a"


@given(st.integers(-(10**12), 10**12))
def test_a_number_equals_its_text_and_no_other(number: int) -> None:
    assert travels(number, **{"is": str(number)})
    assert travels(str(number), **{"is": number})
    assert not travels(number, **{"is": str(number + 1)})
    assert travels(number, above=number - 1, below=str(number + 1))
