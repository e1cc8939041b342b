"""Where monitoring is switched on, and what is said of it where a person is forgotten."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from infra import erasing, render
from infra.gcp import erase as google
from infra.local.home import EmbeddedHome
from infra.local.schema import is_taken
from infra.wiring import ROOT, Hub

INTEGRATION = """\
name: {name}
source: {{system: ploomes}}
sink: {{system: milvus}}
streams: {{customers: {{}}}}
{more}
"""
ON = "monitoring: {enabled: true}"
CLOUD = {"WAYBILL_BACKEND": "gcp", "GOOGLE_CLOUD_PROJECT": "crm-1"}

Make = Callable[..., Hub]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """`make(environment, name="what integration.yaml says besides")`"""
    hubs: list[Hub] = []

    def made(environment: dict[str, str] | None = None, **integrations: str) -> Hub:
        for name, more in integrations.items():
            folder = tmp_path / "functions" / name
            folder.mkdir(parents=True)
            shutil.copy(ROOT / "functions" / "ploomes_to_milvus" / "mapping.py", folder)
            (folder / "integration.yaml").write_text(INTEGRATION.format(name=name, more=more))
        home = {"WAYBILL_HOME": str(tmp_path / "home")}
        hubs.append(Hub(home | (environment or {}), tmp_path / "functions"))
        return hubs[-1]

    yield made
    for hub in hubs:
        hub.close()


def test_a_stream_is_monitored_where_its_integration_is(make: Make) -> None:
    other = "monitoring: {enabled: true, table: other}"
    hub = make(one=ON, two="", three="monitoring: {table: x}", four=other)
    tables = {name: hub.streams(each)[0].monitored for name, each in hub.integrations.items()}
    assert tables == {"one": "tcrm_monitoring_table", "two": "", "three": "", "four": "other"}


def test_the_receipt_names_the_tables_in_which_nobody_can_be_found(
    make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def forget(*_: Any) -> dict[str, Any]:
        return {"receipt": "forgotten:1", "at": "now", "erased": {"cells": 1}}

    monkeypatch.setattr(google, "forget", forget)
    monkeypatch.setattr(erasing, "undisturbed", nullcontext)
    hub = make(CLOUD, one=ON + "\nretention: {monitoring: 20d}", two=ON, three="", four="")
    receipt = erasing.forget(hub, "52998224725")
    (note,) = receipt["notes"]
    assert "tcrm_monitoring_dataset.tcrm_monitoring_table" in note and "50d" in note
    assert "52998224725" not in note
    render.receipt(receipt)
    assert note in capsys.readouterr().out


def test_where_rows_can_be_found_or_there_are_none_nothing_is_said(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(google, "forget", lambda *_: {})
    monkeypatch.setattr(erasing, "undisturbed", nullcontext)
    assert erasing.forget(make(one=ON), "k")["notes"] == []
    assert erasing.forget(make(CLOUD, two=""), "k")["notes"] != []
    hub = make(CLOUD)
    shutil.rmtree(hub.functions / "one")
    assert erasing.forget(make(CLOUD), "k")["notes"] == []


@pytest.mark.parametrize(
    ("environment", "somewhere"),
    [
        ({}, True),
        ({"PUBSUB_EMULATOR_HOST": "127.0.0.1:1"}, False),
        ({"PUBSUB_EMULATOR_HOST": "127.0.0.1:1", "BIGQUERY_URL": "http://127.0.0.1:2"}, True),
    ],
)
def test_beside_an_emulator_there_is_a_bigquery_only_where_one_is_named(
    make: Make, environment: dict[str, str], somewhere: bool
) -> None:
    assert (make(CLOUD | environment)._bigquery() is not None) == somewhere


def test_every_name_in_the_database_is_taken(tmp_path: Path) -> None:
    home = EmbeddedHome(tmp_path / "home")
    with home.state.reading() as connection:
        found = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
    home.close()
    assert len(found) > 10
    assert [name for name in found if not is_taken(name) or not is_taken(name.upper())] == []
    assert not is_taken("tcrm_monitoring_table")
