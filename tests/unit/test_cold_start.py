"""What a function loads when it starts, and one of tagless_crm before its first record: its own connector, and none of
the heavy libraries that only others need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.wiring import ROOT
from tests import archives
from tests.sandbox import Sandbox

HEAVY = (
    "click", "croniter", "google.api_core", "google.auth", "google.cloud.firestore", "google.cloud.storage",
    "google.pubsub_v1", "grpc", "infra.cli", "infra.local.home", "jinja2", "pandas", "phonenumbers", "rich", "tests",
)  # fmt: skip
ACCOUNT = {"account_type": "GOOGLE_ADS", "account_id": "1234567890"}
DATA_MANAGER = {"destinations": [{"operating_account": ACCOUNT, "product_destination_id": "77"}]}
SETTINGS: dict[str, dict[str, Any]] = {
    "ga4": {},
    "data_manager_events": DATA_MANAGER,
    "data_manager_audience": DATA_MANAGER,
    "google_ads_conversions": {"conversion_action": "2"},
    "customer_match": {"user_list": "789"},
    "cm360": {"floodlight_configuration_id": "11", "floodlight_activity_id": "22"},
}
TARGETS = {
    "ga4": "ga4",
    "data_manager_events": "data_manager",
    "data_manager_audience": "data_manager",
    "google_ads_conversions": "google_ads",
    "customer_match": "google_ads",
    "cm360": "cm360",
}
SOURCES = {
    "files": ({"system": "files", "path": "/exports"}, {"infra.systems.files"}),
    "gcs": ({"system": "gcs", "path": "gs://exports/"}, {"infra.systems.gcs", "infra.systems.files"}),
    "bigquery": ({"system": "bigquery", "table": "crm.sales"}, {"infra.systems.bigquery"}),
}
OPEN = """
import json, sys
from infra.entrypoints import Handlers
from infra.log import silent
from infra.wiring import Hub

handlers = Handlers(Hub(), "tagless_crm", silent)
stream = handlers.stream({stream!r})
{opened}
print(json.dumps(sorted(sys.modules)))
"""
START = """
import json, sys
import functions_framework

framework = set(sys.modules)
for target in {targets}:
    client = functions_framework.create_app(target, {main!r}).test_client()
    for body in (b"{{", b'{{"message": {{"data": "bm9uc2Vuc2U="}}}}'):
        status = client.post("/", data=body).status_code
        assert status < 500, (target, status)
print(json.dumps(sorted(set(sys.modules) - framework)))
"""


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    sandbox = Sandbox(customers=1)
    variables: dict[str, str] = {}
    for system in sandbox.systems.values():
        variables |= system.environment("http://127.0.0.1:9")
    return {**os.environ, **variables, "GOOGLE_CLOUD_PROJECT": "nobody-s"}


def modules_after(
    opened: str, stream: str, source: dict[str, str], environment: dict[str, str], folder: Path
) -> set[str]:
    overlay = folder / "overlay.yaml"
    settings = {"from": source, "key": ["id"], "settings": SETTINGS[stream]}
    overlay.write_text(json.dumps({"tagless_crm": {"streams": {stream: settings}}}))
    done = subprocess.run(
        [sys.executable, "-c", OPEN.format(stream=stream, opened=opened)],
        env={**environment, "WAYBILL_OVERLAY": str(overlay), "WAYBILL_HOME": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout))


def heavy(modules: set[str]) -> set[str]:
    return modules.intersection(HEAVY)


def systems(modules: set[str]) -> set[str]:
    """The connectors. The names of GA4's parameters are part of the columns."""
    found = {".".join(name.split(".")[:3]) for name in modules if name.startswith("infra.systems.")}
    return found if "infra.systems.ga4.events" in modules else found - {"infra.systems.ga4"}


@pytest.mark.parametrize("stream", SETTINGS)
def test_a_sink_loads_its_own_connector_and_nothing_heavy(
    environment: dict[str, str], tmp_path: Path, stream: str
) -> None:
    source = {"system": "gcs", "path": "gs://exports/"}
    modules = modules_after("handlers.hub.sink(stream)", stream, source, environment, tmp_path)
    assert heavy(modules) == set()
    assert systems(modules) == {f"infra.systems.{TARGETS[stream]}"}


@pytest.mark.parametrize("system", SOURCES)
def test_a_source_loads_its_own_connector_and_nothing_heavy(
    environment: dict[str, str], tmp_path: Path, system: str
) -> None:
    source, wanted = SOURCES[system]
    modules = modules_after("handlers.hub.open_source(stream)", "ga4", source, environment, tmp_path)
    assert heavy(modules) == set()
    assert systems(modules) == wanted


@pytest.mark.parametrize("folder", archives.folders(ROOT))
def test_no_function_loads_a_google_client_to_start_and_to_refuse_what_it_is_sent(
    environment: dict[str, str], tmp_path: Path, folder: str
) -> None:
    targets = archives.entry_points(ROOT, folder)
    main = ROOT / "functions" / folder / "main.py"
    done = subprocess.run(
        [sys.executable, "-c", START.format(targets=targets, main=str(main))],
        env={**environment, "WAYBILL_BACKEND": "gcp", "WAYBILL_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    modules = set(json.loads(done.stdout))
    assert "infra.entrypoints" in modules
    assert heavy(modules) == set()
    assert not any(name.startswith(("google.", "grpc")) for name in modules)
