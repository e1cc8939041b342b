"""What an OKKI user is as a row: who travels, under which key, and what the metadata of the two ends changes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.okki_to_qeasy.mapping import OPTIONS, STREAMS, users
from shared.declared.conditions import Condition
from shared.declared.fields import FieldRule
from shared.declared.metadata import Metadata
from shared.declared.scheme import Scheme, read_scheme
from shared.errors import NO_IDENTITY, ConfigError, RecordError
from shared.outcome import Outcome

USER: dict[str, Any] = {
    "user_id": "11858714",
    "nickname": "李磊",
    "full_name": "",
    "email": "li@example.com",
    "enable_flag": "1",
    "department_id": 0,
    "department": {"id": "0", "name": "我的公司", "layer": 0, "path": ["我的公司"]},
}


def scheme(**keys: Any) -> Scheme:
    return read_scheme(msgspec.json.encode({"api": "/v1/user/list", "method": "GET"} | keys))


def target(**keys: Any) -> Metadata:
    return Metadata(target=scheme(**{"api": "store", "method": "POST"} | keys))


def test_a_row_without_declared_fields_keeps_the_root_department() -> None:
    assert users({}).to_target(USER) == {
        "id": "11858714",
        "name": "李磊",
        "nickname": "李磊",
        "email": "li@example.com",
        "dept_id": "0",
        "department_name": "我的公司",
    }
    assert "dept_id" not in users({}).to_target(USER | {"department_id": None, "department": None})


def test_declared_fields_replace_it_and_the_key_stays_the_id() -> None:
    fields = {"who": "nickname", "id": FieldRule(constant="x"), "dept": FieldRule(from_="department.path.0")}
    assert users({"fields": fields}).to_target(USER) == {"who": "李磊", "dept": "我的公司", "id": "11858714"}
    by_nickname = users({"fields": fields, "key": "nickname"})
    assert (by_nickname.identify(USER), by_nickname.to_target(USER)["id"]) == ("李磊", "李磊")


@pytest.mark.parametrize(("flag", "inactive"), [("1", False), (1, False), ("0", True), (0, True), ("2", True)])
def test_frozen_and_deleted_users_are_inactive(flag: object, inactive: bool) -> None:
    ((name, holds),) = users({}).filters
    assert (name, holds(USER | {"enable_flag": flag})) == ("inactive", inactive)
    assert list(users({"inactive": True}).filters) == []


def test_conditions_are_further_rules() -> None:
    made = users({"only": [Condition(field="department.name", is_="销售部")]})
    assert [(name, holds(USER)) for name, holds in made.filters] == [
        ("inactive", False),
        ("only_department.name", True),
    ]


def test_the_target_says_where_rows_go_and_whether_they_are_overwritten() -> None:
    assert (users({}).write, users({}).once, users({}).settings) == (
        "store",
        None,
        {"id_field": "id", "id_check": False},
    )
    skips = users({"metadata": target(idCheck=True, id="code")})
    assert (skips.write, skips.once) == ("store", Outcome.UNCHANGED)
    assert skips.settings == {"id_field": "code", "id_check": True}
    assert skips.to_target(USER)["code"] == "11858714"
    assert users({"metadata": target(api="写入空操作", idCheck=False)}).write == "nothing"


def test_the_source_says_what_is_asked_with() -> None:
    fields = [{"field": "code"}, {"field": "now", "value": "{{LAST_SYNC_TIME|datetime}}"}]
    made = users({"metadata": Metadata(source=scheme(request=fields))})
    assert made.request is not None
    assert made.request(datetime(2026, 3, 1, 16, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC), False) == {
        "now": "2026-03-02 00:00:00"
    }
    assert users({}).request is None


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (Metadata(source=scheme(api="/v1/orders")), "/v1/orders"),
        (Metadata(source=scheme(method="POST")), "method is POST"),
        (target(api="somewhere"), "somewhere"),
        (target(method="GET"), "method is GET"),
        (Metadata(source=scheme(beatFlat=["departments"], id="user_id")), "beatFlat"),
    ],
)
def test_metadata_that_means_something_else_is_refused(metadata: Metadata, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        users({"metadata": metadata})
    assert refused.value.cure


@pytest.mark.parametrize("key", ["user_id", "nickname"])
def test_who_has_no_key_is_told(key: str) -> None:
    with pytest.raises(RecordError) as refused:
        users({"key": key}).identify(USER | {key: " "})
    assert (refused.value.number, refused.value.field) == (NO_IDENTITY, key)


ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(USER)), ANYTHING, st.booleans())
def test_any_value_in_any_field_is_mapped_or_refused_with_a_reason(field: str, value: Any, declared: bool) -> None:
    options = {
        "fields": {"dept": FieldRule(from_="department.name"), "on": FieldRule(from_="enable_flag", as_="integer")}
    }
    made = users(options if declared else {})
    try:
        made.identify(USER | {field: value})
        content = made.to_target(USER | {field: value})
    except RecordError as refused:
        assert refused.reason
    else:
        assert content["id"]


def test_the_stream_and_its_options_are_what_integration_yaml_uses() -> None:
    assert {"users": users} == STREAMS
    assert OPTIONS.keys() == STREAMS.keys()
