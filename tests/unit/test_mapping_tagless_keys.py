"""What a stream to an ad platform says of itself: which systems its rules name, and each mistake with its cure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from functions.tagless_crm.mapping import DESTINATIONS, OPTIONS, STREAMS, rules
from infra.google_api import camel
from infra.systems import data_manager
from infra.systems.bigquery.statement import reading_of
from infra.systems.cm360 import KNOWN as CM360_SETTINGS
from infra.systems.data_manager.ingest import Audience, Events
from infra.systems.files.options import formats_of, path_of
from infra.systems.google_ads import clicks, customer_match
from infra.wiring import Hub
from shared.declared.faults import Fault, Faults
from shared.outcome import Outcome
from shared.rules import Rules
from shared.tabular import IDENTITY, identify, key_of
from tests.systems import ga4_script, google_script

ROOT: Final = Path(__file__).resolve().parents[2]
FILES: Final = {"system": "files", "path": "exports", "format": "csv"}
AUDIENCE: Final = {"destination": "data_manager_audience", "settings": {"destinations": [{}]}}


def stream(**keys: Any) -> Rules:
    return rules({"destination": "ga4", "from": FILES, **keys})


def faults(**keys: Any) -> list[Fault]:
    given = {"destination": "ga4", "from": FILES, **keys}
    with pytest.raises(Faults) as caught:
        rules({name: value for name, value in given.items() if value is not None})
    return list(caught.value.mistakes)


def only(**keys: Any) -> Fault:
    (fault,) = faults(**keys)
    return fault


@pytest.mark.parametrize(
    ("destination", "settings", "target", "write", "once"),
    [
        ("ga4", {}, "ga4", "events", Outcome.UNCHANGED),
        ("data_manager_events", {"destinations": [{}]}, "data_manager", "events", Outcome.UNCHANGED),
        ("data_manager_audience", {"destinations": [{}]}, "data_manager", "audience", None),
        ("google_ads_conversions", {}, "google_ads", "conversions", Outcome.UNCHANGED),
        ("customer_match", {"user_list": 7}, "google_ads", "customer_match", None),
        ("cm360", {}, "cm360", "conversions", Outcome.UNCHANGED),
    ],
)
def test_a_destination_is_a_system_and_what_is_written_there(
    destination: str, settings: Any, target: str, write: str, once: Outcome | None
) -> None:
    made = stream(destination=destination, settings=settings, key=["id"])
    assert (made.target, made.write, made.once) == (target, write, once)
    assert (made.source, made.read, made.deletes, made.appends) == ("files", "", False, False)
    assert made.identify({IDENTITY: "T1"}) == "T1" and made.identify is identify
    assert made.settings == {"path": "exports", "format": "csv", "key": ["id"], "settings": settings}


def test_every_destination_has_its_rules_under_any_name() -> None:
    assert set(STREAMS) == set(OPTIONS) == {"*"}
    assert STREAMS["*"] is rules
    assert OPTIONS["*"]["destination"].__args__ == tuple(DESTINATIONS)


@pytest.mark.parametrize(
    ("source", "polled", "hold_back"),
    [
        (FILES, False, 0.0),
        ({"system": "gcs", "path": "gs://bucket/x"}, False, 0.0),
        ({"system": "bigquery", "table": "crm.sales"}, True, None),
        ({"system": "bigquery", "query": "SELECT 1", "cursor": "updated_at"}, False, None),
    ],
)
def test_a_source_without_times_is_compared_by_content_and_files_are_read_at_once(
    source: Mapping[str, str], polled: bool, hold_back: float | None
) -> None:
    made = stream(**{"from": source})
    assert (made.source, made.polled, made.hold_back) == (source["system"], polled, hold_back)


def test_the_connectors_find_what_they_look_for() -> None:
    files = stream(**{"from": {**FILES, "delimiter": ";"}, "key": ["a", "b"]}).settings
    assert (path_of(files), key_of(files)) == ("exports", ("a", "b"))
    assert formats_of(files)("x").delimiter == ";"
    source = {"system": "bigquery", "table": "crm.sales", "cursor": "at", "project": "my-project", "location": "EU"}
    reading = reading_of(stream(**{"from": source, "key": ["id"]}).settings, "")
    assert (reading.project, reading.location, reading.key, reading.cursor) == ("my-project", "EU", ("id",), "at")
    settings = {"firebase_app_id": "app", "validate": True, "analytics_360": True}
    connection = ga4_script.connection_to("http://localhost:1", **stream(settings=settings).settings)
    with ga4_script.opened(connection) as sink:
        assert (sink._limits.app, sink._limits.value, sink._validates) == (True, 500, True)
    account = {"account_type": "GOOGLE_ADS", "account_id": 1234567890}
    settings = {"destinations": [{"operating_account": account, "product_destination_id": 7}]}
    made = stream(destination="data_manager_events", settings=settings)
    connection = google_script.connection_to("http://localhost:1", {}, **made.settings)
    data_manager.open_sink(connection, made.write).close()


def test_the_settings_are_those_that_the_connectors_know() -> None:
    known = {
        "data_manager_events": Events.known,
        "data_manager_audience": Audience.known,
        "google_ads_conversions": clicks.KNOWN,
        "customer_match": customer_match.KNOWN,
        "cm360": CM360_SETTINGS,
    }
    for name, of_connector in known.items():
        given = {next(iter(camel({key: 0}))): kind for key, kind in DESTINATIONS[name].settings.items()}
        assert given == dict(of_connector), name


def test_rows_may_ask_their_members_to_leave() -> None:
    assert stream(**AUDIENCE, operation="remove").deletes
    assert not stream(**AUDIENCE, operation="add").deletes


def test_the_key_and_the_cursor_may_have_any_name() -> None:
    source = {"system": "bigquery", "table": "a.b", "cursor": "event_time"}
    made = stream(
        destination="data_manager_events", settings={"destinations": [{}]}, key=["client.ids"], **{"from": source}
    )
    assert made.to_target({"event_time": "x", "client": {"ids": "1"}}) == {}


@pytest.mark.parametrize(
    ("keys", "path", "found", "cure"),
    [
        ({"destination": None}, "destination", "nothing", "add a destination"),
        ({"from": None}, "from.system", "nothing", "add from: {system: files"),
        ({"from": {"path": "x"}}, "from.system", "nothing", "add from"),
        ({"from": {"system": "file", "path": "x"}}, "from.system", "`file`", "write files"),
        ({"from": {"system": ["gcs"]}}, "from.system", "gcs", "write gcs"),
        ({"from": {"system": "files"}}, "from.path", "nothing", "add path"),
        ({"from": {"system": "files", "pth": "x"}}, "from.pth", "`pth`", "write path"),
        ({"from": {**FILES, "table": "a.b"}}, "from.table", "`table`", "system: bigquery"),
        ({"from": {**FILES, "path": 7}}, "from.path", "`7`", "write a text"),
        ({"from": {**FILES, "path": "gs://b/x"}}, "from.path", "gs://b/x", "system: gcs"),
        ({"from": {"system": "gcs", "path": "b/x"}}, "from.path", "b/x", "write gs://bucket"),
        ({"from": {**FILES, "format": "cvs"}}, "from.format", "`cvs`", "write csv"),
        ({"from": {"system": "bigquery"}}, "from", "neither table nor query", "write one"),
        ({"from": {"system": "bigquery", "table": "a.b", "query": "x"}}, "from", "table and query", "write one"),
        ({"from": {"system": "bigquery", "table": "a.b", "path": "x"}}, "from.path", "`path`", "system: files"),
        ({"settings": {"validat": True}}, "settings.validat", "`validat`", "write validate"),
        ({"settings": {"validate": "true"}}, "settings.validate", "`true`", "write true or false"),
        ({"settings": {"measurement_id": True}}, "settings.measurement_id", "`true`", "write a text"),
        ({"destination": "data_manager_events"}, "settings.destinations", "nothing", "add destinations"),
        ({"destination": "customer_match"}, "settings.user_list", "nothing", "add user_list"),
        ({"operation": "remove"}, "operation", "`remove`", "only members"),
        ({"region": "BRA"}, "region", "`BRA`", "BR"),
        ({"numbers": ["value"]}, "numbers", "`value`", "params.margin"),
        ({**AUDIENCE, "numbers": ["params.x"]}, "numbers", "`params.x`", "remove it"),
        ({"key": ["id", "id"]}, "key", "a list", "once"),
        ({"key": [" "]}, "key", "a list", "once"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_its_cure(keys: dict[str, Any], path: str, found: str, cure: str) -> None:
    fault = only(**keys)
    assert fault.path == path
    assert found in fault.found and cure in fault.cure
    assert fault.expected


def test_all_mistakes_are_told_at_once() -> None:
    found = faults(**{"from": {"system": "files", "pth": "x"}, "settings": {"x": 1}, "region": "QQ", "key": ["a", "a"]})
    assert [each.path for each in found] == ["from.pth", "settings.x", "region", "key"]


def test_the_file_has_a_stream_for_each_destination_and_none_runs_by_itself() -> None:
    shipped = Hub({}, ROOT / "functions").integration("tagless_crm")
    assert list(shipped.streams) == list(DESTINATIONS)
    for name, each in shipped.streams.items():
        assert (each.enabled, each.options, each.schedule is not None) == (False, {"destination": name}, True)
    assert not shipped.monitoring.enabled
    assert shipped.sink.limit is None and shipped.source.limit is None


def test_the_loader_finds_the_mapping_and_the_modules_beside_it() -> None:
    module = Hub({}, ROOT / "functions")._mapping("tagless_crm")
    assert module.STREAMS["*"]({"destination": "ga4", "from": FILES}).target == "ga4"
