"""integration.yaml and its overlay: what is accepted, and each mistake with its place and cure."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.ploomes_to_milvus import mapping
from infra.config import (
    DAY,
    UNSTATED,
    Alerts,
    MonitoringConfig,
    Retention,
    SinkConfig,
    SourceConfig,
    StreamConfig,
    load,
    merge_overlay,
)
from infra.mistakes import ConfigMistakes, Mistake
from infra.quantities import Rate
from shared.errors import ConfigError
from shared.retry import RetryPolicy

ROOT = Path(__file__).parents[2]

MINIMAL = """\
name: {name}
source: {{system: ploomes}}
sink: {{system: milvus}}
streams:
  customers: {{}}
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes one integration.yaml and gives the folder of all; without a text, the least that is valid."""

    def write(text: str | bytes | None = None, name: str = "a_to_b") -> Path:
        folder = tmp_path / "functions" / name
        folder.mkdir(parents=True, exist_ok=True)
        content = MINIMAL.format(name=name) if text is None else text
        (folder / "integration.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder.parent

    return write


@pytest.fixture
def write_overlay(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        file = tmp_path / "overlay.yaml"
        file.write_text(text, encoding="utf-8")
        return file

    return write


def mistakes(functions: Path, overlay: Path | None = None, **options: Any) -> list[Mistake]:
    with pytest.raises(ConfigMistakes) as refused:
        load(functions, overlay, **options)
    for mistake in refused.value.mistakes:
        assert mistake.found and mistake.expected and mistake.cure
        assert str(mistake) in str(refused.value)
    return refused.value.mistakes


def only(found: list[Mistake]) -> Mistake:
    assert len(found) == 1, found
    return found[0]


def stream(**keys: str) -> str:
    lines = "".join(f"    {key}: {value}\n" for key, value in keys.items())
    return MINIMAL.format(name="a_to_b").replace("customers: {}\n", f"customers:\n{lines}")


# --- what is accepted -----------------------------------------------------------------------------------------------


def test_the_shipped_integration_is_what_the_interface_documents(write: Write) -> None:
    shipped = (ROOT / "functions" / "ploomes_to_milvus" / "integration.yaml").read_bytes()
    functions = write(shipped, "ploomes_to_milvus")
    loaded = load(functions, None, lambda _, stream: mapping.OPTIONS.get(stream, {}), thorough=True)[0]
    assert loaded.source == SourceConfig("ploomes", Rate(80, 60.0), 300, RetryPolicy(5, 2.0))
    assert loaded.sink == SinkConfig("milvus", Rate(60, 60.0), 100, 4, RetryPolicy(3, 5.0), 10.0, 10)
    assert loaded.streams["customers"] == StreamConfig(
        name="customers",
        schedule="*/10 * * * *",
        since=datetime(2024, 2, 24, tzinfo=timezone(timedelta(hours=-3))),
        overlap=600.0,
        hold_back=60.0,
    )
    for name in ("tasks", "interactions"):
        stream = loaded.streams[name]
        assert (stream.enabled, stream.options) == (False, {"max_age": timedelta(minutes=10)})
    assert loaded.monitoring == MonitoringConfig(False, "tcrm_monitoring_dataset", "tcrm_monitoring_table")
    assert loaded.retention == Retention(30 * DAY, 90 * DAY, 50 * DAY)
    assert loaded.alerts == Alerts(3, None)
    assert loaded.folder == functions / "ploomes_to_milvus"
    assert loaded.file == loaded.folder / "integration.yaml"


def test_what_is_left_out_has_its_default(write: Write) -> None:
    loaded = load(write())[0]
    assert loaded.source == SourceConfig("ploomes", UNSTATED, 300, RetryPolicy(5, 2.0))
    assert loaded.sink == SinkConfig("milvus", UNSTATED, 100, 4, RetryPolicy(3, 5.0), 10.0, 10)
    assert (loaded.source.limit, loaded.sink.limit) == (None, None)
    assert loaded.streams == {"customers": StreamConfig("customers", None, True, None, 600.0, None, "newest", None, {})}
    assert (loaded.monitoring, loaded.retention, loaded.alerts) == (MonitoringConfig(), Retention(), Alerts())


def test_everything_can_be_set(write: Write) -> None:
    functions = write(
        """\
name: a_to_b
source: {system: ploomes, rate_limit: none, page_size: 1, retry: {attempts: 1}}
sink: {system: tests.bench.sink, rate_limit: 1/s, batch_size: 1000, lanes: 1024, retry: {wait: 0s}, redeliver_after: 0s,
       max_attempts: 1}
streams:
  tasks: {enabled: false, on_conflict: invalid, overlap: 0s, hold_back: 250ms, schedule: null, since: null}
  customers: {since: "2024-02-24T03:00:00Z", schedule: "0,30 8-18/2 * JAN-MAR mon"}
monitoring: {enabled: yes, dataset: d, table: t}
retention: {archive: 1d, closed_failures: 2d, monitoring: 3d}
alerts: {consecutive_failures: 1, webhook: "https://chat.example.com/hook?key=1"}
"""
    )
    loaded = load(functions, thorough=True)[0]
    assert loaded.source == SourceConfig("ploomes", None, 1, RetryPolicy(1, 2.0))
    assert loaded.sink == SinkConfig("tests.bench.sink", Rate(1, 1.0), 1000, 1024, RetryPolicy(3, 0.0), 0.0, 1)
    assert list(loaded.streams) == ["tasks", "customers"]
    assert loaded.streams["tasks"] == StreamConfig("tasks", None, False, None, 0.0, 0.25, "invalid")
    assert loaded.streams["customers"].since == datetime(2024, 2, 24, 3, tzinfo=UTC)
    assert loaded.monitoring == MonitoringConfig(True, "d", "t")
    assert loaded.retention == Retention(DAY, 2 * DAY, 3 * DAY)
    assert loaded.alerts == Alerts(1, "https://chat.example.com/hook?key=1")


def test_integrations_come_by_name_and_other_folders_are_passed_over(write: Write) -> None:
    write(name="b_to_c")
    functions = write(name="a_to_b")
    (functions / "operations").mkdir()
    assert [each.name for each in load(functions)] == ["a_to_b", "b_to_c"]


def test_anchors_and_merge_keys_may_be_used_and_overridden(write: Write) -> None:
    functions = write(
        MINIMAL.format(name="a_to_b").replace("customers: {}", "customers: &all {overlap: 1m, enabled: false}")
        + "  tasks: {<<: *all, overlap: 2m}\n"
    )
    streams = load(functions)[0].streams
    assert (streams["tasks"].overlap, streams["tasks"].enabled) == (120.0, False)


def test_a_stream_may_be_called_by_a_number(write: Write) -> None:
    functions = write(MINIMAL.format(name="a_to_b").replace("customers:", '"17592213056255":'))
    assert list(load(functions)[0].streams) == ["17592213056255"]


def test_a_byte_order_mark_is_no_mistake(write: Write) -> None:
    assert load(write(b"\xef\xbb\xbf" + MINIMAL.format(name="a_to_b").encode()))[0].name == "a_to_b"


# --- keys of a stream's own -----------------------------------------------------------------------------------------

OPTIONS: Mapping[str, Any] = {
    "tags": dict[int, str],
    "max_age": timedelta | None,
    "until": datetime,
    "mode": Literal["fast", "slow"],
    "groups": list[int],
    "label": str | None,
    "limit": int,
}


def options_of(integration: str, stream: str) -> Mapping[str, Any]:
    assert integration == "a_to_b"
    return OPTIONS if stream == "customers" else {}


def test_a_stream_has_the_keys_of_its_own(write: Write) -> None:
    functions = write(
        stream(
            tags="{40012345: INSTALAÇÃO, 40012346: ENTREGA}",
            max_age="2d",
            until="2024-02-24T00:00:00Z",
            mode="fast",
            groups="[1, 2]",
            label="x",
            overlap="1m",
        )
    )
    customers = load(functions, options_of=options_of)[0].streams["customers"]
    assert customers.overlap == 60.0
    assert customers.options == {
        "tags": {40012345: "INSTALAÇÃO", 40012346: "ENTREGA"},
        "max_age": timedelta(days=2),
        "until": datetime(2024, 2, 24, tzinfo=UTC),
        "mode": "fast",
        "groups": [1, 2],
        "label": "x",
    }


@pytest.mark.parametrize("word", ["none", "null"])
def test_none_switches_an_option_off_where_it_may(write: Write, word: str) -> None:
    functions = write(stream(max_age=word, label=word))
    assert load(functions, options_of=options_of)[0].streams["customers"].options == {"max_age": None, "label": None}


@pytest.mark.parametrize(
    ("key", "value", "found", "expected"),
    [
        ("tags", "{a: b}", "a mapping", "a mapping of whole numbers to texts"),
        ("max_age", "10", "`10`", "a duration"),
        ("max_age", "[10m]", "a list", "a duration"),
        ("until", "2024-02-24T00:00:00", "`2024-02-24T00:00:00`", "with an offset"),
        ("until", "null", "null", "datetime"),
        ("mode", "none", "`none`", "one of fast, slow"),
        ("groups", "[1, x]", "a list", "a list of whole numbers"),
        ("limit", "none", "`none`", "a whole number"),
    ],
)
def test_an_option_of_the_wrong_type_is_a_mistake(
    write: Write, key: str, value: str, found: str, expected: str
) -> None:
    mistake = only(mistakes(write(stream(**{key: value})), options_of=options_of))
    assert (mistake.path, mistake.line, mistake.found) == (f"streams.customers.{key}", 6, found)
    assert expected in mistake.expected


def test_another_streams_option_is_unknown(write: Write) -> None:
    functions = write(MINIMAL.format(name="a_to_b") + "  tasks: {tags: {1: a}}\n")
    assert only(mistakes(functions, options_of=options_of)).path == "streams.tasks.tags"


# --- one mistake at a time ------------------------------------------------------------------------------------------

EXAMPLE = """\
name: a_to_b
source: {system: ploomes}
sink: {system: milvus}
streams:
  customers:
    overlap: 10m
monitoring: {enabled: false}
retention: {archive: 30d}
alerts: {consecutive_failures: 3}
"""


@pytest.mark.parametrize(
    ("old", "new", "path", "line", "found", "expected", "cure"),
    [
        ("name: a_to_b", "name: b_to_a", "name", 1, "`b_to_a`", "a_to_b", "rename the folder"),
        ("name: a_to_b", "name: no", "name", 1, "`false`", "a_to_b", "rename the folder"),
        ("name: a_to_b\n", "", "name", 1, "nothing", "a value", "add `name`"),
        ("sink: {system: milvus}\n", "", "sink", 1, "nothing", "a value", "add `sink`"),
        ("{system: ploomes}", "{page_size: 1}", "source.system", 2, "nothing", "a value", "add `system`"),
        ("{system: ploomes}", "ploomes", "source", 2, "`ploomes`", "a mapping", "`source: {}`"),
        ("ploomes}", "Ploomes}", "source.system", 2, "`Ploomes`", "a system's name", "name of a system"),
        ("ploomes}", "a..b}", "source.system", 2, "`a..b`", "dotted module path", "name of a system"),
        ("ploomes}", "7}", "source.system", 2, "`7`", "a system's name", "name of a system"),
        ("ploomes}", "ploomes, page_size: 0}", "source.page_size", 2, "`0`", "at least 1", "without quotes"),
        ("ploomes}", "ploomes, page_size: yes}", "source.page_size", 2, "`true`", "whole number", "without quotes"),
        ("ploomes}", "ploomes, rate_limit: 60}", "source.rate_limit", 2, "`60`", "120/min", "write 60/min"),
        ("ploomes}", "ploomes, rate_limit: 1/day}", "source.rate_limit", 2, "`1/day`", "none", "60/min"),
        ("ploomes}", "ploomes, rate_limit: null}", "source.rate_limit", 2, "null", "none", "60/min"),
        ("ploomes}", "ploomes, retry: 3}", "source.retry", 2, "`3`", "a mapping", "`retry: {}`"),
        ("ploomes}", "ploomes, retry: {attempts: 0}}", "source.retry.attempts", 2, "`0`", "at least 1", "whole number"),
        ("ploomes}", "ploomes, retry: {atempts: 1}}", "source.retry.atempts", 2, "`atempts`", "attempts", "`attempts`"),
        ("milvus}", "milvus, batch_size: 1001}", "sink.batch_size", 3, "`1001`", "from 1 to 1000", "whole number"),
        ("milvus}", 'milvus, lanes: "4"}', "sink.lanes", 3, "`4`", "from 1 to 1024", "without quotes"),
        ("milvus}", "milvus, lanes: 4.0}", "sink.lanes", 3, "`4.0`", "from 1 to 1024", "whole number"),
        ("milvus}", "milvus, max_attempts: 0}", "sink.max_attempts", 3, "`0`", "at least 1", "whole number"),
        ("milvus}", "milvus, lane: 4}", "sink.lane", 3, "`lane`", "lanes", "write `lanes`"),
        ("milvus}", "milvus, 7: 4}", "sink.7", 3, "`7`", "lanes", "remove it"),
        ("overlap: 10m", "overlap: 10", "streams.customers.overlap", 6, "`10`", "0.5s", "write 10s"),
        ("overlap: 10m", "overlap: soon", "streams.customers.overlap", 6, "`soon`", "0.5s", "write for example 30s"),
        ("overlap: 10m", 'overlap: ""', "streams.customers.overlap", 6, "an empty text", "0.5s", "for example"),
        ("overlap: 10m", "overlap: -1s", "streams.customers.overlap", 6, "`-1s`", "0.5s", "for example"),
        ("overlap: 10m", "overlp: 10m", "streams.customers.overlp", 6, "`overlp`", "overlap", "write `overlap`"),
        ("overlap: 10m", "enabled: 1", "streams.customers.enabled", 6, "`1`", "true or false", "true or false"),
        ("overlap: 10m", "since: 2024-02-24", "streams.customers.since", 6, "`2024-02-24`", "offset", "00:00-03:00"),
        (
            "overlap: 10m",
            "since: 2024-02-24 01:02:03",
            "streams.customers.since",
            6,
            "`2024-02-24T01:02:03`",
            "offset",
            "add an offset such as -03:00: write 2024-02-24T01:02:03-03:00",
        ),
        ("overlap: 10m", "since: 2024-02-30", "streams.customers.since", 6, "`2024-02-30`", "an instant", "your own"),
        ("overlap: 10m", "since: 5", "streams.customers.since", 6, "`5`", "an instant", "your own date"),
        ("overlap: 10m", "on_conflict: new", "streams.customers.on_conflict", 6, "`new`", "newest, first", "newest"),
        ("overlap: 10m", "on_conflict: [x]", "streams.customers.on_conflict", 6, "a list", "newest, first", "one of"),
        ("overlap: 10m", "schedule: hourly", "streams.customers.schedule", 6, "`hourly`", "five fields", "quotes"),
        ("overlap: 10m", "schedule: 0 0 * *", "streams.customers.schedule", 6, "`0 0 * *`", "five fields", "quotes"),
        ("overlap: 10m", "schedule: 0 0 L * *", "streams.customers.schedule", 6, "`0 0 L * *`", "five", "quotes"),
        ("overlap: 10m", "schedule: 10", "streams.customers.schedule", 6, "`10`", "five fields", "quotes"),
        ("  customers:\n    overlap: 10m\n", "  customers:\n", "streams.customers", 5, "null", "mapping", "{}"),
        ("  customers:\n    overlap: 10m\n", "  Custs: {}\n", "streams.Custs", 5, "`Custs`", "lower-case", "rename"),
        ("  customers:\n    overlap: 10m\n", "  2024: {}\n", "streams.2024", 5, "`2024`", "lower-case", "in quotes"),
        ("streams:\n  customers:\n    overlap: 10m\n", "streams: {}\n", "streams", 4, "an empty mapping", "", "least"),
        ("streams:\n  customers:\n    overlap: 10m\n", "streams: [a]\n", "streams", 4, "a list", "mapping", "least"),
        ("streams:\n  customers:\n    overlap: 10m\n", "", "streams", 1, "nothing", "a value", "add `streams`"),
        ("{enabled: false}", "{dataset: a-b}", "monitoring.dataset", 7, "`a-b`", "letters, digits", "tcrm_"),
        ("{enabled: false}", "{table: Cells}", "monitoring.table", 7, "`Cells`", "the hub's own", "tcrm_"),
        ("{enabled: false}", "{table: runs_of}", "monitoring.table", 7, "`runs_of`", "the hub's own", "tcrm_"),
        ("{enabled: false}", "{table: SQLite_x}", "monitoring.table", 7, "`SQLite_x`", "the hub's own", "tcrm_"),
        ("{enabled: false}", "{table: a b}", "monitoring.table", 7, "`a b`", "letters, digits", "tcrm_"),
        ("{archive: 30d}", "{archived: 30d}", "retention.archived", 8, "`archived`", "archive", "write `archive`"),
        ("{archive: 30d}", "{archive: 30}", "retention.archive", 8, "`30`", "50d", "write 30s"),
        ("consecutive_failures: 3", "consecutive_failures: 0", "alerts.consecutive_failures", 9, "`0`", "1", "whole"),
        ("alerts:", "alert:", "alert", 9, "`alert`", "alerts", "write `alerts`"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place_and_cure(
    write: Write, old: str, new: str, path: str, line: int, found: str, expected: str, cure: str
) -> None:
    assert old in EXAMPLE
    functions = write(EXAMPLE.replace(old, new))
    mistake = only(mistakes(functions))
    assert mistake.file == str(functions / "a_to_b" / "integration.yaml")
    assert (mistake.path, mistake.line, mistake.found) == (path, line, found)
    assert expected in mistake.expected
    assert cure in mistake.cure


@pytest.mark.parametrize(
    ("webhook", "fault"),
    [
        ("http://chat.example.com/hook", "is http to a host that is not this machine"),
        ("https://me:secret@chat.example.com", "carries credentials"),
        ("ftp://chat.example.com", "starts with neither https:// nor http://"),
        ("5", "is no text"),
    ],
)
def test_a_bad_webhook_is_refused_without_showing_it(write: Write, webhook: str, fault: str) -> None:
    mistake = only(mistakes(write(EXAMPLE.replace("consecutive_failures: 3", f"webhook: {webhook}"))))
    assert (mistake.path, mistake.found) == ("alerts.webhook", f"an address that {fault}")
    assert "secret" not in str(mistake) and "hook" not in str(mistake).replace("webhook", "")


def test_a_long_value_is_shortened_to_one_line(write: Write) -> None:
    mistake = only(mistakes(write(stream(overlap='"' + "a\\n" * 100 + '"'))))
    assert "\n" not in mistake.found
    assert len(mistake.found) < 70


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [("61 * * * *", "out of range"), ("0 0 31 2 *", "next date"), ("*/0 * * * *", "step"), ("0 0 * FOO *", "FOO")],
)
def test_a_thorough_load_finds_schedules_that_never_come_around(write: Write, schedule: str, reason: str) -> None:
    functions = write(stream(schedule=f'"{schedule}"'))
    assert load(functions)[0].streams["customers"].schedule == schedule
    mistake = only(mistakes(functions, thorough=True))
    assert (mistake.path, mistake.line, mistake.found) == ("streams.customers.schedule", 6, f"`{schedule}`")
    assert reason.lower() in mistake.cure.lower()


def test_a_folder_that_python_cannot_import_is_a_mistake(write: Write) -> None:
    mistake = only(mistakes(write(name="a-to-b")))
    assert (mistake.path, mistake.found) == ("name", "`a-to-b`")
    assert mistake.expected == "lower-case letters, digits and underscores"


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "found", "cure"),
    [
        ("", None, "nothing", "write the file"),
        ("# nothing yet\n", None, "nothing", "write the file"),
        ("- a\n- b\n", 1, "a list", "key: value"),
        ("\njust text\n", 2, "`just text`", "key: value"),
        ("name: a\nsource: [\n", 3, "no YAML", "correct the line"),
        ("name: a\n\tsink: b\n", 2, "no YAML", "correct the line"),
        ("name: a\nschedule: */10 * * * *\n", 2, "no YAML", "quotes around a value that starts with `*`"),
        ("name: a\nsink: \x01\n", 2, "no YAML", "remove the character"),
        ("name: a\nsink: !!python/object:os.system x\n", 2, "no YAML", "correct the line"),
        ("name: a\n? [b]\n: c\n", 2, "no YAML", "correct the line"),
        ("name: a\n---\nname: b\n", 2, "no YAML", "correct the line"),
        ("name: a\nsink: &x {y: *x}\n", 2, "no YAML", "correct the line"),
        ("name: a\nsink: 0x_\n", None, "no YAML", "quotes around the value"),
        (b"name: a\nsink: \xff\n", 2, "bytes that are not UTF-8", "save the file as UTF-8"),
    ],
)
def test_a_file_that_is_no_yaml_mapping_is_a_mistake(
    write: Write, text: str | bytes, line: int | None, found: str, cure: str
) -> None:
    mistake = only(mistakes(write(text)))
    assert (mistake.path, mistake.line, mistake.expected) == ("", line, "a YAML mapping")
    assert found in mistake.found
    assert cure in mistake.cure


def test_keys_that_stand_twice_are_mistakes_with_the_line_of_the_second(write: Write) -> None:
    functions = write(EXAMPLE.replace("    overlap: 10m\n", "    overlap: 10m\n    overlap: 5m\n") + "name: a_to_b\n")
    assert [(each.path, each.line, each.found) for each in mistakes(functions)] == [
        ("streams.customers.overlap", 7, "`overlap` again"),
        ("name", 11, "`name` again"),
    ]


def test_a_file_that_cannot_be_read_is_a_mistake(write: Write) -> None:
    functions = write()
    (functions / "b_to_c" / "integration.yaml").mkdir(parents=True)
    assert "nothing to read" in only(mistakes(functions)).found


def test_a_missing_folder_of_integrations_is_a_mistake(tmp_path: Path) -> None:
    assert only(mistakes(tmp_path / "nowhere")).found == "no such folder"


def test_all_mistakes_of_all_files_come_at_once(write: Write, write_overlay: Callable[[str], Path]) -> None:
    write(EXAMPLE.replace("milvus}", "milvus, lane: 4, batch_size: 0}").replace("10m", "10").replace("alerts", "alrts"))
    write("not: [yaml", name="b_to_c")
    write(MINIMAL.format(name="c_to_d").replace("customers: {}", "customers: {since: 2024-02-24}"), name="c_to_d")
    functions = write(name="d_to_e")
    overlay = write_overlay("nobody: {}\nd_to_e:\n  sink: {lanes: 0}\n")
    found = mistakes(functions, overlay)
    assert [(Path(each.file).parent.name, each.line, each.path) for each in found] == [
        ("a_to_b", 3, "sink.lane"),
        ("a_to_b", 3, "sink.batch_size"),
        ("a_to_b", 6, "streams.customers.overlap"),
        ("a_to_b", 9, "alrts"),
        ("b_to_c", 2, ""),
        ("c_to_d", 5, "streams.customers.since"),
        (overlay.parent.name, 1, "nobody"),
        (overlay.parent.name, 3, "d_to_e.sink.lanes"),
    ]


def test_the_error_is_readable_as_a_whole(write: Write) -> None:
    functions = write(EXAMPLE.replace("10m", "10"))
    with pytest.raises(ConfigError) as refused:
        load(functions)
    file = functions / "a_to_b" / "integration.yaml"
    assert str(refused.value) == (
        "1 mistake in the configuration:\n"
        f"  {file}:6: streams.customers.overlap: found `10`, expected a duration of 0s to 36500d such as 250ms, 0.5s, "
        "30s, 10m, 2h or 50d; write 10s if seconds are meant"
    )


# --- overlay --------------------------------------------------------------------------------------------------------


def test_an_overlay_merges_removes_and_replaces(write: Write, write_overlay: Callable[[str], Path]) -> None:
    functions = write(EXAMPLE.replace("overlap: 10m", "overlap: 5m\n    groups: [1, 2]\n    tags: {1: a, 2: b}"))
    write(name="b_to_c")
    overlay = write_overlay(
        """\
a_to_b:
  sink: {lanes: 8}
  streams:
    customers: {overlap: null, hold_back: 5m, groups: [3], tags: {2: c, 1: null}}
    tasks: {schedule: "0 3 * * *"}
  retention: null
"""
    )
    known = {"groups": list[int], "tags": dict[int, str]}
    first, second = load(functions, overlay, lambda integration, stream: known)
    assert (first.sink.system, first.sink.lanes) == ("milvus", 8)
    assert (first.streams["customers"].overlap, first.streams["customers"].hold_back) == (600.0, 300.0)
    assert first.streams["customers"].options == {"groups": [3], "tags": {2: "c"}}
    assert list(first.streams) == ["customers", "tasks"]
    assert first.retention == Retention()
    assert second.sink == SinkConfig("milvus")


def test_an_overlay_may_remove_a_stream_and_what_has_its_default_anyway(
    write: Write, write_overlay: Callable[[str], Path]
) -> None:
    functions = write(MINIMAL.format(name="a_to_b") + "  tasks: {}\n")
    overlay = write_overlay("a_to_b: {streams: {tasks: null}, sink: {lanes: null}, alerts: null}\n")
    loaded = load(functions, overlay)[0]
    assert (list(loaded.streams), loaded.sink.lanes) == (["customers"], 4)


@pytest.mark.parametrize(
    ("text", "path", "line", "found", "cure"),
    [
        ("a_to_c: {}\n", "a_to_c", 1, "`a_to_c`", "write `a_to_b`"),
        ("zzz: {}\n", "zzz", 1, "`zzz`", "remove it"),
        ("7: {}\n", "7", 1, "`7`", "remove it"),
        ("a_to_b:\n", "a_to_b", 1, "null", "enabled: false"),
        ("a_to_b: 7\n", "a_to_b", 1, "`7`", "enabled: false"),
        ("a_to_b:\n  name: b_to_a\n", "a_to_b.name", 2, "`b_to_a`", "rename the folder"),
        ("a_to_b:\n  sink: 7\n", "a_to_b.sink", 2, "`7`", "{}"),
        ("a_to_b:\n  sink:\n    lanes: 0\n", "a_to_b.sink.lanes", 3, "`0`", "whole number"),
        ("a_to_b:\n  sink:\n    lane: 1\n", "a_to_b.sink.lane", 3, "`lane`", "write `lanes`"),
        ("a_to_b:\n  sink:\n    lane: null\n", "a_to_b.sink.lane", 3, "`lane`", "write `lanes`"),
        ("a_to_b:\n  sink:\n    system: null\n", "a_to_b.sink.system", 3, "nothing", "add `system`"),
        ("a_to_b:\n  sink: null\n", "a_to_b.sink", 2, "nothing", "add `sink`"),
        ("a_to_b:\n  streams:\n    custmers: null\n", "a_to_b.streams.custmers", 3, "`custmers`", "write `customers`"),
        ("a_to_b:\n  streams:\n    customers: null\n", "a_to_b.streams", 2, "an empty mapping", "at least one"),
        ("a_to_b: {}\na_to_b: {}\n", "a_to_b", 2, "`a_to_b` again", "keep one"),
        ("", "", None, "nothing", "write the file"),
        ("- a\n", "", 1, "a list", "key: value"),
        ("a: [\n", "", 2, "no YAML", "correct the line"),
    ],
)
def test_a_mistake_of_the_overlay_is_placed_there(
    write: Write, write_overlay: Callable[[str], Path], text: str, path: str, line: int, found: str, cure: str
) -> None:
    overlay = write_overlay(text)
    mistake = only(mistakes(write(), overlay))
    assert (mistake.file, mistake.path, mistake.line) == (str(overlay), path, line)
    assert found in mistake.found
    assert cure in mistake.cure


def test_a_mistake_of_the_file_stays_there_beside_an_overlay(
    write: Write, write_overlay: Callable[[str], Path]
) -> None:
    functions = write(EXAMPLE.replace("10m", "10"))
    mistake = only(mistakes(functions, write_overlay("a_to_b: {streams: {customers: {hold_back: 1m}}}")))
    assert (mistake.file, mistake.line) == (str(functions / "a_to_b" / "integration.yaml"), 6)


def test_an_overlay_that_cannot_be_read_is_a_mistake(write: Write, tmp_path: Path) -> None:
    assert "nothing to read" in only(mistakes(write(), tmp_path / "nowhere.yaml")).found


def test_an_overlay_without_any_integration_names_none(tmp_path: Path, write_overlay: Callable[[str], Path]) -> None:
    (tmp_path / "functions").mkdir()
    assert only(mistakes(tmp_path / "functions", write_overlay("a: {}"))).expected == "an integration"


_keys = st.sampled_from("abcd")
_leaves = st.integers(0, 9) | st.sampled_from([True, "text", [], [None, 1]])


def _mappings(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    values = st.recursive(leaves, lambda inner: st.dictionaries(_keys, inner, max_size=3), max_leaves=8)
    return st.dictionaries(_keys, values, max_size=4)


_bases = _mappings(_leaves)
_overlays = _mappings(_leaves | st.none())


def _at(mapping: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        mapping = mapping.get(key) if isinstance(mapping, dict) else None
    return mapping


def _ends(mapping: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    ends: list[tuple[tuple[str, ...], Any]] = []
    for key, value in mapping.items():
        ends += _ends(value, (*path, key)) if isinstance(value, dict) and value else [((*path, key), value)]
    return ends


@given(_bases, _overlays)
def test_what_the_overlay_says_holds_and_null_removes(base: dict[str, Any], overlay: dict[str, Any]) -> None:
    merged = merge_overlay(base, overlay)
    for path, value in _ends(overlay):
        if value == {}:
            assert isinstance(_at(merged, path), dict)
        else:
            assert _at(merged, path) == value
        if value is None:
            assert path[-1] not in _at(merged, path[:-1])


@given(_bases, _overlays)
def test_what_the_overlay_does_not_name_stays(base: dict[str, Any], overlay: dict[str, Any]) -> None:
    merged = merge_overlay(base, overlay)
    for key in base.keys() - overlay.keys():
        assert merged[key] == base[key]
    assert merged.keys() <= base.keys() | overlay.keys()


@given(_bases, _overlays)
def test_merging_again_changes_nothing_and_neither_side_is_touched(
    base: dict[str, Any], overlay: dict[str, Any]
) -> None:
    before = copy.deepcopy((base, overlay))
    merged = merge_overlay(base, overlay)
    assert merge_overlay(merged, overlay) == merged
    assert merge_overlay(base, {}) == base
    assert (base, overlay) == before


# --- promises about cost --------------------------------------------------------------------------------------------


def test_importing_and_loading_need_nothing_slow(write: Write) -> None:
    functions = write(stream(schedule='"*/10 * * * *"'))
    program = (
        "import sys; from pathlib import Path; from infra.config import load\n"
        "load(Path(sys.argv[1]))\n"
        "print([name for name in ('croniter', 'difflib', 'requests', 'rich') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(functions)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"
