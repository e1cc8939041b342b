"""Where the emulators are not installed, tests say so: by being skipped, or by failing where they are required."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests import emulators as module
from tests.emulators import Emulators, EmulatorsMissing, find_jars

ROOT = Path(__file__).resolve().parents[2]
ONE_TEST = "tests/unit/test_gcp_emulators.py::test_every_server_answers"


def outcome_without_jars(folder: Path, **environ: str) -> str:
    """What pytest says of a test that needs the emulators, on a machine without them."""
    command = [sys.executable, "-m", "pytest", "-q", "-rsE", "-p", "no:cacheprovider", ONE_TEST]
    known = {name: value for name, value in os.environ.items() if name not in module.VARIABLES}
    known |= {"WAYBILL_EMULATOR_JARS": str(folder)} | environ
    return subprocess.run(command, cwd=ROOT, env=known, capture_output=True, text=True, timeout=120).stdout


def test_every_server_answers(emulators: Emulators) -> None:
    for server, path in ((emulators.pubsub, "/"), (emulators.firestore, "/"), (emulators.storage, "/storage/v1/b")):
        with urllib.request.urlopen(f"http://{server.host}{path}", timeout=10) as answer:
            assert answer.status == 200
    for name, value in emulators.environ.items():
        assert os.environ[name] == value
    assert emulators.project() != emulators.project()


def test_without_them_a_test_is_skipped_with_the_reason(tmp_path: Path) -> None:
    said = outcome_without_jars(tmp_path)
    assert "1 skipped" in said
    assert "emulators: no cloud-pubsub-emulator" in said


def test_where_they_are_required_it_is_an_error(tmp_path: Path) -> None:
    said = outcome_without_jars(tmp_path, WAYBILL_REQUIRE_EMULATORS="1")
    assert "1 error" in said
    assert "gcloud components install pubsub-emulator" in said


def test_java_is_named_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    with pytest.raises(EmulatorsMissing, match="java"):
        find_jars()


def test_the_newest_jar_below_the_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/cloud-pubsub-emulator-0.8.19-all.jar", "a/cloud-pubsub-emulator-0.8.20-all.jar",
                 "b/cloud-firestore-emulator.jar"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(module.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(module, "JARS", str(tmp_path))
    jars = find_jars()
    assert (jars.pubsub.name, jars.firestore.name) == (
        "cloud-pubsub-emulator-0.8.20-all.jar",
        "cloud-firestore-emulator.jar",
    )


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    server = module.Emulator("broken", tmp_path / "log", [sys.executable, "-c", "print('no port')"], 1)
    with pytest.raises(RuntimeError, match="no port"):
        server.wait_until_ready()
    server.stop()
