"""A scheme's metadata: what is read as it is, what is refused and where, and what its templates and rows become."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.declared.cron import judge_cron
from shared.declared.faults import Fault, Wrong
from shared.declared.scheme import Moments, Scheme, SchemeMistakes, read_scheme
from shared.declared.templates import days_ago, template
from shared.errors import ConfigError, RecordError

SOURCE = """\
{
  "api": "/v1/user/list",
  "method": "GET",
  "number": "nickname",
  "id": "nickname",
  "idCheck": true,
  "request": [
    {
      "label": "编码",
      "field": "code",
      "type": "string"
    },
    {
      "label": "开始截止到现在时间",
      "field": "now",
      "type": "string",
      "value": "{{LAST_SYNC_TIME|datetime}}"
    }
  ]
}
"""
TARGET = """\
{
  "api": "写入空操作",
  "method": "POST",
  "idCheck": true
}
"""
SHANGHAI = ZoneInfo("Asia/Shanghai")
NEW_YORK = ZoneInfo("America/New_York")
NOW = datetime(2024, 3, 15, 18, 30, 5, 678_000, tzinfo=UTC)
SYNC = Moments(last_sync=NOW - timedelta(hours=1), now=NOW, zone=SHANGHAI)


def scheme(**keys: Any) -> Scheme:
    return read_scheme(json.dumps({"api": "/x", **keys}).encode())


def requested(*fields: dict[str, Any], sync: Moments = SYNC, **keys: Any) -> dict[str, Any]:
    return scheme(request=list(fields), **keys).parameters(sync)


def mistakes(data: bytes | str | dict[str, Any]) -> tuple[Fault, ...]:
    text = json.dumps(data) if isinstance(data, dict) else data
    with pytest.raises(SchemeMistakes) as refused:
        read_scheme(text if isinstance(text, bytes) else text.encode())
    assert isinstance(refused.value, ConfigError)
    for mistake in refused.value.mistakes:
        assert mistake.found and mistake.expected and mistake.cure
        assert str(mistake) in str(refused.value)
    return refused.value.mistakes


def only(**keys: Any) -> Fault:
    found = mistakes({"api": "/x", **keys})
    assert len(found) == 1, found
    return found[0]


def refused_value(value: Any, kind: str = "string") -> Fault:
    found = only(request=[{"field": "a"}, {"field": "b", "type": kind, "value": value}])
    assert found.path == "request[1].value"
    return found


# --- reading ----------------------------------------------------------------------------------------------------------


def test_the_two_blocks_of_the_article_are_read_unmodified() -> None:
    source, target = read_scheme(SOURCE.encode()), read_scheme(TARGET.encode())
    assert (source.api, source.method, source.number, source.id) == ("/v1/user/list", "GET", "nickname", "nickname")
    assert source.id_check is True
    assert [each.label for each in source.request] == ["编码", "开始截止到现在时间"]
    assert source.parameters(SYNC) == {"now": "2024-03-16 01:30:05"}
    assert (target.api, target.method, target.id_check, target.parameters(SYNC)) == ("写入空操作", "POST", True, {})


def test_a_stored_id_is_skipped_unless_the_scheme_says_otherwise() -> None:
    assert scheme().id_check is True
    assert scheme(idCheck=False).id_check is False


def test_what_an_export_carries_besides_is_left_alone() -> None:
    read = scheme(
        primaryWriteback={"a": 1},
        name="用户",
        operation={"method": "none"},
        response=[{"field": "rows", "value": "_autoFillResponse", "x": 1}],
        otherResponse=[{"field": "list", "value": "{{anything}}"}],
        pagination={"pageSize": 100, "pageField": "page"},
        request=[{"field": "a", "is_required": 1, "parent": "", "parser": {}, "children": [], "describe": None}],
    )
    assert read.pagination.page_size == 100
    assert read.other_response[0].value == "{{anything}}"


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("idcheck", "idCheck"),
        ("id_check", "idCheck"),
        ("idChek", "idCheck"),
        ("ID", "id"),
        ("API", "api"),
        ("requests", "request"),
        ("format_response", "formatResponse"),
        ("paginaton", "pagination"),
    ],
)
def test_a_near_miss_of_a_key_is_a_mistake(key: str, known: str) -> None:
    found = only(**{key: 1})
    assert (found.path, found.cure) == (key, f"write {known}")


def test_what_is_too_large_is_a_mistake() -> None:
    assert scheme(x="x" * 900_000).api == "/x"
    assert only(x="x" * 1_000_000).cure == "keep only the metadata"


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"api": 1}, "api"),
        ({"api": ""}, "api"),
        ({"idCheck": "true"}, "idCheck"),
        ({"idCheck": 1}, "idCheck"),
        ({"idCheck": None}, "idCheck"),
        ({"method": None}, "method"),
        ({"id": "{{response.a}}-{{response.b}}"}, "id"),
        ({"request": {}}, "request"),
        ({"request": [1]}, "request[0]"),
        ({"request": [{}]}, "request[0].field"),
        ({"request": [{"field": ""}]}, "request[0].field"),
        ({"request": [{"field": "a"}, {"field": "a"}]}, "request[1].field"),
        ({"request": [{"field": "a", "type": "integer"}]}, "request[0].type"),
        ({"request": [{"field": "a", "label": 1}]}, "request[0].label"),
        ({"request": [{"field": "a", "vaule": 1}]}, "request[0].vaule"),
        ({"request": [{"field": "a", "parser": {"name": "StringToArray"}}]}, "request[0].parser"),
        ({"request": [{"field": "a", "parent": "b"}]}, "request[0].parent"),
        ({"request": [{"field": "a", "type": "object", "parent": "a"}]}, "request[0].parent"),
        ({"request": [{"field": "a", "children": [{"field": "b"}]}]}, "request[0].type"),
        ({"request": [{"field": "a", "type": "object", "children": [{"field": 1}]}]}, "request[0].children[0].field"),
        (
            {"request": [{"field": "a", "type": "object", "value": {}, "children": [{"field": "b"}]}]},
            "request[0].value",
        ),
        (
            {"request": [{"field": "a", "type": "object", "value": {}}, {"field": "b", "parent": "a"}]},
            "request[0].value",
        ),
        ({"otherRequest": [{"field": "a", "value": "{{NOW}}"}]}, "otherRequest[0].value"),
        ({"response": [{"field": ""}]}, "response[0].field"),
        ({"pagination": {"pageSize": 0}}, "pagination.pageSize"),
        ({"pagination": {"pageSize": "100"}}, "pagination.pageSize"),
        ({"pagination": {"pagesize": 100}}, "pagination.pagesize"),
        ({"beatFlat": "details", "id": "a"}, "beatFlat"),
        ({"beatFlat": [1], "id": "a"}, "beatFlat[0]"),
        ({"beatFlat": ["a", "a"], "id": "a"}, "beatFlat[1]"),
        ({"beatFlat": ["a"]}, "id"),
        ({"formatResponse": [{"old": "a", "new": "b", "format": "dat"}]}, "formatResponse[0].format"),
        ({"formatResponse": [{"old": "a", "new": "b", "format": "dateDescription"}]}, "formatResponse[0].format"),
        ({"formatResponse": [{"old": "a", "new": "b", "format": "round(x)"}]}, "formatResponse[0].format"),
        ({"formatResponse": [{"old": "a", "new": "b", "format": "date(1)"}]}, "formatResponse[0].format"),
        ({"formatResponse": [{"old": "a..b", "format": "date"}]}, "formatResponse[0].old"),
        ({"formatResponse": [{"old": "a", "format": "date"}, {"old": "a", "format": "time"}]}, "formatResponse[1].new"),
        ({"omissionRemedy": {"crontab": "0 3 * *", "takeOverRequest": [{"field": "a"}]}}, "omissionRemedy.crontab"),
        ({"omissionRemedy": {"crontab": "0 3 * * *", "takeOverRequest": []}}, "omissionRemedy.takeOverRequest"),
        ({"omissionRemedy": {"crontab": "0 3 * * *"}}, "omissionRemedy.takeOverRequest"),
        (
            {"omissionRemedy": {"crontab": "0 3 * * *", "takeOverRequest": [{"field": "a", "value": "{{X}}"}]}},
            "omissionRemedy.takeOverRequest[0].value",
        ),
    ],
)
def test_a_mistake_has_its_place(keys: dict[str, Any], path: str) -> None:
    assert only(**keys).path == path


def test_all_mistakes_are_told_at_once() -> None:
    found = mistakes({"idCheck": "x", "request": [{"field": "a", "type": "x"}, {}], "requst": []})
    assert {each.path for each in found} == {"api", "idCheck", "request[0].type", "request[1].field", "requst"}
    judged = mistakes(
        {"api": "/x", "request": [{"field": "a", "value": "{{X}}"}, {"field": ""}], "beatFlat": ["", "b"]}
    )
    assert {each.path for each in judged} == {"request[0].value", "request[1].field", "id", "beatFlat[0]"}


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"api": "\\ud800"}', b"[" * 100_000, b'{"a":' * 5_000, b" " * 2_000_000],
)
def test_what_is_no_json_object_is_a_mistake(data: bytes) -> None:
    assert len(mistakes(data)) == 1


def test_what_is_nested_too_deep_is_a_mistake() -> None:
    value: Any = "x"
    descriptor: dict[str, Any] = {"field": "a"}
    for _ in range(30):
        value = [value]
        descriptor = {"field": "a", "type": "object", "children": [descriptor]}
    assert only(request=[{"field": "a", "type": "array", "value": value}]).path == "request[0].value"
    assert "children" in only(request=[descriptor]).path


# --- templates --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("{{LAST_SYNC_TIME|datetime}}", "2024-03-16 01:30:05"),
        ("{{ CURRENT_TIME | datetime }}", "2024-03-16 02:30:05"),
        ("{{CURRENT_TIME|date}}", "2024-03-16"),
        ("{{CURRENT_TIME|timestamp}}", "1710527405"),
        ("{{CURRENT_TIME|timestamp_ms}}", "1710527405678"),
        ("{{CURRENT_TIME}}", "1710527405"),
        ("{{DAYS_AGO_0|datetime}}", "2024-03-16 02:30:05"),
        ("{{DAYS_AGO_2|date}}", "2024-03-14"),
        ("{{DAYS_AGO_400|date}}", "2023-02-10"),
        ("{{CURRENT_TIME|datetime('Y/m/d H:i')}}", "2024/03/16 02:30"),
        ('{{CURRENT_TIME|date("Ymd")}}', "20240316"),
        ("{{CURRENT_TIME|date('Y年m月d日')}}", "2024年03月16日"),
        ("{{LAST_SYNC_TIME|date}}~{{CURRENT_TIME|timestamp}}\n", "2024-03-16~1710527405\n"),
        ('{"a":{"b":"{{CURRENT_TIME|date}}"}}', '{"a":{"b":"2024-03-16"}}'),
        ("{single} }} {", "{single} }} {"),
    ],
)
def test_a_template_is_rendered(text: str, rendered: str) -> None:
    assert requested({"field": "a", "value": text}) == {"a": rendered}


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__ }}",
        "{{ LAST_SYNC_TIME.__class__ }}",
        "{{ LAST_SYNC_TIME['x'] }}",
        "{{ LAST_SYNC_TIME() }}",
        "{{ range(10) }}",
        "{{ LAST_SYNC_TIME - 600 }}",
        "{{ LAST_SYNC_TIME ~ 'x' }}",
        "{{ LAST_SYNC_TIME if CURRENT_TIME else 1 }}",
        "{{ [LAST_SYNC_TIME] }}",
        "{{ 'x' }}",
        "{{ 1 }}",
        "{{ 'x'|datetime }}",
        "{{ self }}",
        "{{ LAST_SYNC_TIME|datetime|date }}",
        "{{ LAST_SYNC_TIME|datetime(CURRENT_TIME) }}",
        "{{ LAST_SYNC_TIME|datetime('Y', 'm') }}",
        "{{ LAST_SYNC_TIME|datetime(form='Y') }}",
        "{{ LAST_SYNC_TIME|datetime(*'Y') }}",
        "{{ LAST_SYNC_TIME|timestamp('Y') }}",
        "{{ LAST_SYNC_TIME|datetime('') }}",
        "{{ LAST_SYNC_TIME|datetime('Y-m-d\\\\TH:i') }}",
        "{{ LAST_SYNC_TIME|datetime('l') }}",
        "{{ LAST_SYNC_TIME|datetime('%Y') }}",
        "{{ LAST_SYNC_TIME is defined }}",
        "{{ LAST_SYNC_TIME|datetime }",
        "{{ LAST_SYNC_TIME|datetime ",
        "{{ }}",
        "{{LAST_SYNC_TIME|}}",
        "{% for x in y %}{% endfor %}",
        "{% include 'x' %}{{LAST_SYNC_TIME}}",
        "{# note #}{{LAST_SYNC_TIME}}",
        "{{" + "(" * 900 + "LAST_SYNC_TIME" + ")" * 900 + "}}",
        "x" * 100_000,
        "{{DAYS_AGO_99999}}",
        "{{DAYS_AGO_-1}}",
        "{{DAYS_AGO_n}}",
        "{{DAYS_AGO_1" + "0" * 500 + "}}",
        "{{details_list.sku}}",
        "{{$lastExecuteTime|format:'yyyy'}}",
        "${system.now}",
        "_function case when 1 then 2 end",
        "_findCollection find F from x where a={{b}}",
    ],
)
def test_anything_else_in_a_template_is_refused_when_it_is_read(text: str) -> None:
    refused_value(text)
    with pytest.raises(Wrong):
        template(text)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    variable = refused_value("{{LAST_SYNC_TIM|datetime}}")
    assert variable.cure == "write LAST_SYNC_TIME"
    assert all(name in variable.expected for name in ("LAST_SYNC_TIME", "CURRENT_TIME", "DAYS_AGO_n"))
    filtered = refused_value("{{LAST_SYNC_TIME|datetim}}")
    assert filtered.cure == "write datetime"
    assert all(name in filtered.expected for name in ("datetime", "date", "timestamp", "timestamp_ms"))


@given(st.text(alphabet="{}%#|()'\"._-+*[]~$\\ \nLAST_SYNC_TIMEdatetime01", max_size=60) | st.text(max_size=60))
def test_whatever_stands_in_a_template_it_is_rendered_or_refused(text: str) -> None:
    for tried in (text, f"{{{{{text}}}}}", f"{{{{LAST_SYNC_TIME|{text}}}}}", f"{{{{CURRENT_TIME|date({text})}}}}"):
        try:
            accepted = template(tried)
        except Wrong:
            continue
        assert isinstance(accepted.render(SYNC), str)
        if accepted.compiled is None:
            assert accepted.render(SYNC) == tried


def test_the_first_sync_begins_with_the_streams_since_or_in_1970() -> None:
    field = {"field": "a", "value": "{{LAST_SYNC_TIME|datetime}}"}
    since = datetime(2024, 2, 24, 3, tzinfo=UTC)
    assert requested(field, sync=Moments(None, NOW, SHANGHAI)) == {"a": "1970-01-01 08:00:00"}
    assert requested(field, sync=Moments(None, NOW, NEW_YORK)) == {"a": "1969-12-31 19:00:00"}
    assert requested(field, sync=Moments(None, NOW, SHANGHAI, since)) == {"a": "2024-02-24 11:00:00"}
    assert requested(field, sync=Moments(NOW, NOW, SHANGHAI, since)) == {"a": "2024-03-16 02:30:05"}


def test_a_time_without_an_offset_is_nobodys() -> None:
    with pytest.raises(ValueError, match="offset"):
        Moments(None, datetime(2024, 1, 1), SHANGHAI)


@pytest.mark.parametrize(
    ("now", "zone", "days", "then"),
    [
        ("2024-03-15T15:59:59Z", "Asia/Shanghai", 1, "2024-03-14 23:59:59"),
        ("2024-03-15T16:00:00Z", "Asia/Shanghai", 1, "2024-03-15 00:00:00"),
        ("2024-03-01T00:00:00Z", "UTC", 1, "2024-02-29 00:00:00"),
        ("2024-03-11T04:30:00Z", "America/New_York", 1, "2024-03-10 00:30:00"),  # 23 hours
        ("2024-11-04T05:30:00Z", "America/New_York", 1, "2024-11-03 00:30:00"),  # 25 hours
        ("2024-03-11T06:30:00Z", "America/New_York", 1, "2024-03-10 01:30:00"),  # 02:30 was never
        ("2024-11-04T06:30:00Z", "America/New_York", 1, "2024-11-03 01:30:00"),  # 01:30 was twice
        ("2024-10-28T00:30:00Z", "Europe/Berlin", 2, "2024-10-26 01:30:00"),
    ],
)
def test_days_ago_keeps_the_time_of_the_day(now: str, zone: str, days: int, then: str) -> None:
    sync = Moments(None, datetime.fromisoformat(now), ZoneInfo(zone))
    assert requested({"field": "a", "value": f"{{{{DAYS_AGO_{days}|datetime}}}}"}, sync=sync) == {"a": then}


def test_of_a_time_that_was_twice_or_never_the_earlier_is_meant() -> None:
    twice = days_ago(datetime(2024, 11, 4, 6, 30, tzinfo=UTC), 1, NEW_YORK)
    never = days_ago(datetime(2024, 3, 11, 6, 30, tzinfo=UTC), 1, NEW_YORK)
    assert (twice, never) == (datetime(2024, 11, 3, 5, 30, tzinfo=UTC), datetime(2024, 3, 10, 6, 30, tzinfo=UTC))


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1)), st.sampled_from([SHANGHAI, NEW_YORK]), st.integers(0, 9)
)
def test_a_daily_window_leaves_no_gap(when: datetime, zone: ZoneInfo, days: int) -> None:
    now = when.replace(tzinfo=UTC)
    ago = days_ago(now, days, zone)
    assert ago <= now
    assert abs((now - ago) - timedelta(days=days)) <= timedelta(hours=2)
    tomorrow = (now.astimezone(zone) + timedelta(days=1)).astimezone(UTC)
    assert days_ago(tomorrow, 1, zone) <= now


# --- parameters -------------------------------------------------------------------------------------------------------


def test_request_and_other_request_become_one_call_in_order() -> None:
    read = scheme(
        request=[
            {"field": "b", "value": "1"},
            {"field": "a", "value": "2"},
            {"field": "none"},
            {"field": "e", "value": ""},
        ],
        otherRequest=[{"field": "c", "type": "int", "value": 0}, {"field": "b", "value": "3"}],
    )
    assert list(read.parameters(SYNC).items()) == [("b", "3"), ("a", "2"), ("c", 0)]


@pytest.mark.parametrize(
    ("kind", "value", "sent"),
    [
        ("string", 10, "10"),
        ("string", 1.5, "1.5"),
        ("string", False, "false"),
        ("int", "10", 10),
        ("int", 0, 0),
        ("int", "{{CURRENT_TIME|timestamp}}", 1710527405),
        ("int", "{{CURRENT_TIME|date('Ymd')}}", 20240316),
        ("float", "1.5", 1.5),
        ("float", 2, 2.0),
        ("boolean", "true", True),
        ("boolean", 0, False),
        ("object", {"a": ["{{CURRENT_TIME|date}}"]}, {"a": ["2024-03-16"]}),
        ("object", '{"a": "{{CURRENT_TIME|date}}"}', {"a": "2024-03-16"}),
        ("array", [1, "b"], [1, "b"]),
        ("array", "[]", []),
    ],
)
def test_a_value_is_sent_as_its_type(kind: str, value: Any, sent: Any) -> None:
    found = requested({"field": "a", "type": kind, "value": value})["a"]
    assert (found, type(found)) == (sent, type(sent))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("string", []),
        ("string", {}),
        ("int", "x"),
        ("int", 1.5),
        ("int", True),
        ("int", "{{CURRENT_TIME|datetime}}"),
        ("float", "1e9"),
        ("float", False),
        ("boolean", "maybe"),
        ("boolean", 2),
        ("boolean", "{{CURRENT_TIME|date('d')}}"),
        ("object", "[]"),
        ("object", "{"),
        ("object", '{"a": {{CURRENT_TIME|date("H")}}}'),
        ("array", "a,b"),
        ("array", {}),
    ],
)
def test_a_value_that_is_not_of_its_type_is_refused_when_it_is_read(kind: str, value: Any) -> None:
    assert kind in refused_value(value, kind).expected


def test_a_value_that_becomes_no_number_at_last_says_so() -> None:
    read = scheme(request=[{"field": "a", "type": "int", "value": "-{{LAST_SYNC_TIME|timestamp}}"}])
    assert read.parameters(SYNC) == {"a": -1710523805}
    with pytest.raises(ConfigError, match="a: found"):
        read.parameters(Moments(datetime(1960, 1, 1, tzinfo=UTC), NOW, SHANGHAI))


def test_fields_in_fields_are_built_up() -> None:
    assert requested(
        {"field": "page", "type": "object", "children": [{"field": "no", "type": "int", "value": "1"}, {"field": "x"}]},
        {"field": "from", "parent": "window", "value": "{{LAST_SYNC_TIME|date}}"},
        {"field": "window", "type": "object"},
        {
            "field": "rows",
            "type": "array",
            "parent": "window",
            "children": [{"field": "id", "parent": "rows", "value": 1}],
        },
        {"field": "left_out", "type": "object", "children": [{"field": "x"}]},
    ) == {"page": {"no": 1}, "window": {"from": "2024-03-16", "rows": [{"id": "1"}]}}


def test_the_remedy_replaces_what_it_names() -> None:
    read = scheme(
        request=[{"field": "from", "value": "{{LAST_SYNC_TIME|date}}"}, {"field": "status", "value": "A"}],
        omissionRemedy={
            "crontab": "30 2 * * mon-fri",
            "takeOverRequest": [
                {"field": "from", "value": "{{DAYS_AGO_3|date}}"},
                {"field": "to", "type": "array", "value": ["{{DAYS_AGO_1|date}}"]},
                {"field": "in", "type": "object", "children": [{"field": "x", "value": "{{DAYS_AGO_12}}"}]},
            ],
        },
    )
    assert read.parameters(SYNC) == {"from": "2024-03-16", "status": "A"}
    assert list(read.parameters(SYNC, remedy=True).items())[:3] == [
        ("from", "2024-03-13"),
        ("status", "A"),
        ("to", ["2024-03-15"]),
    ]
    assert read.omission_remedy is not None
    assert read.omission_remedy.days == 12
    assert scheme().parameters(SYNC, remedy=True) == {}


@pytest.mark.parametrize("text", ["* * * * *", "*/10 0-23/2 1,15 jan-mar 7", "0 0 31 12 sun"])
def test_a_cron_of_five_fields_is_one(text: str) -> None:
    judge_cron(text)


@pytest.mark.parametrize(
    "text",
    (
        *("", "* * * *", "0 0 2 * * ?", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8"),
        *("*/0 * * * *", "5-1 * * * *", "x * * * *", "* * * mon *", "1,,2 * * * *", "-1 * * * *", "１ * * * *"),
    ),
)
def test_what_is_no_cron_is_refused(text: str) -> None:
    with pytest.raises(Wrong):
        judge_cron(text)


# --- rows -------------------------------------------------------------------------------------------------------------


def converted(value: Any, form: str) -> Any:
    read = scheme(formatResponse=[{"old": "in.a", "new": "b", "format": form}])
    return read.rows({"in": {"a": value}}, SHANGHAI)[0].get("b", "nothing")


@pytest.mark.parametrize(
    ("form", "value", "result"),
    [
        ("date", "2024-03-15 14:30:25", "2024-03-15"),
        ("time", "2024-03-15 14:30:25", "14:30:25"),
        ("dateTime", "2024-03-15 14:30:25", "2024-03-15 14:30"),
        ("shortDate", "2024-03-15", "03-15"),
        ("shortTime", "20240315143025", "14:30"),
        ("shortDateTime", "2024-03-15T14:30:25.000Z", "03-15 22:30"),
        ("date", 1710527405, "2024-03-16"),
        ("date", "1710527405678", "2024-03-16"),
        ("date", 20240315, "2024-03-15"),
        ("longText(3)", "很长的文本", "很长的..."),
        ("longText(5)", "很长的文本", "很长的文本"),
        ("longText", "x" * 16, "x" * 15 + "..."),
        ("intval", "10.8", 10),
        ("intval", "-10.8", -10),
        ("intval", True, 1),
        ("intval", 0, 0),
        ("round(2)", "19.9956", 20.0),
        ("round", 2.675, 2.68),
        ("round(0)", -2.5, -3),
        ("amount", "158000.5", "￥158,000.50"),
        ("amount", 1000000, "￥1,000,000.00"),
        ("implode", ["a", 1, True], "a,1,true"),
        ("implode('|')", ["a", "b"], "a|b"),
        ('implode(" ")', ["a", "b"], "a b"),
        ("implode(;)", [], ""),
        ("date", None, "nothing"),
        ("date", "", "nothing"),
    ],
)
def test_a_format_converts_a_field(form: str, value: Any, result: Any) -> None:
    found = converted(value, form)
    assert (found, type(found)) == (result, type(result))


@pytest.mark.parametrize(
    ("form", "value"),
    [
        ("date", "soon"),
        ("date", "0000-00-00 00:00:00"),
        ("date", True),
        ("date", 10**18),
        ("longText(3)", ["x"]),
        ("intval", "12abc"),
        ("intval", float("nan")),
        ("round(2)", "1e5"),
        ("round(2)", True),
        ("amount", {}),
        ("implode", "a,b"),
        ("implode", [["a"]]),
    ],
)
def test_what_cannot_be_converted_names_its_field_and_no_value(form: str, value: Any) -> None:
    with pytest.raises(RecordError) as refused:
        converted(value, form)
    assert refused.value.field == "in.a"
    assert str(value) not in refused.value.reason


def test_formats_read_the_row_as_it_came_and_leave_it_alone() -> None:
    read = scheme(
        formatResponse=[
            {"old": "in.at", "format": "date"},
            {"old": "in.at", "new": "clock", "format": "shortTime"},
            {"old": "gone.at", "new": "x", "format": "date"},
        ]
    )
    row = {"in": {"at": "2024-03-15 14:30:25", "b": 1}}
    assert read.rows(row, SHANGHAI) == [{"in": {"at": "2024-03-15", "b": 1}, "clock": "14:30"}]
    assert row == {"in": {"at": "2024-03-15 14:30:25", "b": 1}}


ORDER = {"no": "OUT1", "customer": "CK1", "goods": [{"sku": "F1", "num": 12}, {"sku": "F2"}], "tags": ["a", "b"]}


def test_an_array_becomes_a_row_for_each_element() -> None:
    read = scheme(id="no", beatFlat=["goods"])
    rest = {"customer": "CK1", "tags": ["a", "b"]}
    assert read.rows(ORDER, SHANGHAI) == [
        {"no": "OUT1-1", **rest, "goods_sku": "F1", "goods_num": 12},
        {"no": "OUT1-2", **rest, "goods_sku": "F2"},
    ]
    assert [row["no"] for row in read.rows(ORDER, SHANGHAI, first=0)] == ["OUT1-0", "OUT1-1"]
    assert "goods" in ORDER


def test_two_arrays_multiply_and_every_id_is_its_own() -> None:
    rows = scheme(id="no", beatFlat=["goods", "tags"]).rows(ORDER, SHANGHAI)
    assert [(row["no"], row["goods_sku"], row["tags"]) for row in rows] == [
        ("OUT1-1-1", "F1", "a"),
        ("OUT1-1-2", "F1", "b"),
        ("OUT1-2-1", "F2", "a"),
        ("OUT1-2-2", "F2", "b"),
    ]


@pytest.mark.parametrize("empty", [{}, {"goods": []}, {"goods": None}])
def test_a_row_without_elements_stays_one_row(empty: dict[str, Any]) -> None:
    assert scheme(id="no", beatFlat=["goods"]).rows({"no": 7, **empty}, SHANGHAI) == [{"no": 7}]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"no": "1", "goods": "x"}, "goods"),
        ({"goods": [1]}, "no"),
        ({"no": True, "goods": [1]}, "no"),
        ({"no": "1", "goods": [{"sku": 1}], "goods_sku": 2}, "goods"),
        ({"no": "1", "goods": [1] * 10_001}, "goods"),
    ],
)
def test_a_row_that_cannot_be_flattened_names_its_field(row: dict[str, Any], field: str) -> None:
    with pytest.raises(RecordError) as refused:
        scheme(id="no", beatFlat=["goods"]).rows(row, SHANGHAI)
    assert refused.value.field == field


# --- whatever comes ---------------------------------------------------------------------------------------------------

_plain = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
_json = st.recursive(
    _plain
    | st.sampled_from(["{{LAST_SYNC_TIME|datetime}}", "{{X}}", "date", "round(2)", "object", "a.b", "* * * * *"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_descriptor = st.fixed_dictionaries(
    {"field": st.sampled_from("abc") | _json},
    optional={
        "type": st.sampled_from(["string", "int", "float", "boolean", "object", "array"]) | _json,
        "value": _json,
        "parent": st.sampled_from("abc") | st.none(),
        "children": st.lists(st.fixed_dictionaries({"field": st.sampled_from("ab")}), max_size=2) | _json,
    },
)
_descriptors = st.lists(_descriptor, max_size=4) | _json
_schemes = st.fixed_dictionaries(
    {"api": st.just("/x") | _json},
    optional={
        "id": st.sampled_from("ab") | _json,
        "request": _descriptors,
        "otherRequest": _descriptors,
        "response": _descriptors,
        "pagination": st.fixed_dictionaries({"pageSize": _json}) | _json,
        "formatResponse": st.lists(st.fixed_dictionaries({"old": _json, "format": _json}), max_size=2) | _json,
        "beatFlat": st.lists(st.sampled_from("ab"), max_size=2) | _json,
        "omissionRemedy": st.fixed_dictionaries({"crontab": _json, "takeOverRequest": _descriptors}) | _json,
    },
)


@given(st.binary(max_size=80) | st.builds(lambda value: json.dumps(value).encode(), _schemes | _json))
def test_whatever_is_read_is_a_scheme_or_a_list_of_mistakes(data: bytes) -> None:
    try:
        read = read_scheme(data)
    except SchemeMistakes as refused:
        assert refused.mistakes
    else:
        assert isinstance(read.parameters(SYNC), dict)
        assert isinstance(read.parameters(SYNC, remedy=True), dict)


_FORMS = ["date", "time", "dateTime", "shortDate", "longText(3)", "intval", "round(3)", "amount", "implode"]


@given(st.dictionaries(st.sampled_from("abc"), _json | st.floats(), max_size=3), st.sampled_from(_FORMS))
def test_whatever_a_row_holds_it_becomes_rows_or_a_record_error(row: dict[str, Any], form: str) -> None:
    read = scheme(id="c", beatFlat=["b"], formatResponse=[{"old": "a", "format": form}, {"old": "b.0", "format": form}])
    before = repr(row)
    try:
        assert read.rows(row, SHANGHAI)
    except RecordError as refused:
        assert refused.field
    assert repr(row) == before
