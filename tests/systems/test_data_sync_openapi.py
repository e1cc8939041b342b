"""The OpenAPI document is true: schemathesis (https://schemathesis.io) calls `waybill serve` by it in vain."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

import infra.data_sync.api
from infra.data_sync.openapi import document
from infra.tokens import create
from tests.systems.data_sync_desk import ROOT, SYNCS, header, make_hub, served

SEED = "20260921"
KNOWN = """\
[parameters]
"path.id" = "customers"
"path.launch_id" = {launch}
[[operations]]
include-operation-id = "delete"
parameters = {{ "path.id" = "leavers" }}
[[operations]]
include-operation-id = "export"
parameters = {{ "path.id" = "report" }}
"""
"""Ids that are there, a launch of each kind behind them."""


def checked(folder: Path, examples: int, config: str, *options: str) -> tuple[int, str]:
    """The exit code of schemathesis, and what it says, of a hub that serves data syncs of each kind."""
    source = folder / "source.csv"
    source.write_text("id,name\n1,Ana\n")
    os.utime(source, (source.stat().st_mtime - 60,) * 2)
    hub = make_hub(folder, SYNCS.replace("columns: [id, name]", f"columns: [id, name], path: {source}"))
    token = create(hub, "customers")["token"]
    headers = dict(header("api", token))
    with served(hub) as url:
        file = {"file": b"id,name\r\n1,Ana\r\n2,bad\r\n3,refused\r\n"}
        sent = requests.post(f"{url}{ROOT}/import/customers", files=file, headers=headers, timeout=60)
        assert sent.status_code == 200
        run = requests.post(f"{url}/functions/loyalty/source", json={"stream": "report"}, timeout=60)
        assert run.status_code == 200, run.text
        launch = requests.get(f"{url}{ROOT}/customers", headers=headers, timeout=60).json()["latest-launch"]["id"]
        (folder / "schemathesis.toml").write_text(config.format(launch=launch))
        command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", "schemathesis.toml", "run"]
        done = subprocess.run(
            [*command, f"{url}{ROOT}/openapi.json", "--auth", f"api:{token}", "--checks", "all", "--seed", SEED,
             "--max-examples", str(examples), *options],
            cwd=folder,
            env={**os.environ, "NO_COLOR": "1", "HYPOTHESIS_STORAGE_DIRECTORY": str(folder)},
            capture_output=True,
            text=True,
            timeout=240,
        )  # fmt: skip
    hub.close()
    return done.returncode, done.stdout + done.stderr


def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    code, said = checked(tmp_path, 20, KNOWN)
    assert code == 0, said
    assert "Missing test data" not in said, said
    assert "Tested: 9" in said, said


def test_schemathesis_finds_nothing_in_the_other_format(tmp_path: Path) -> None:
    code, said = checked(tmp_path, 5, KNOWN, "--header", "Accept:application/edn", "--phases", "examples,fuzzing")
    assert code == 0, said


def test_schemathesis_finds_nothing_behind_ids_that_it_makes_up(tmp_path: Path) -> None:
    code, said = checked(tmp_path, 5, "", "--phases", "coverage,fuzzing")
    assert code == 0, said


LIES: dict[str, Callable[[Any], Any]] = {
    "a key that is not told of": lambda told: told["components"]["schemas"]["Launch"]["properties"].pop("started-at"),
    "a code that is not told of": lambda told: told["paths"][f"{ROOT}/import/{{id}}"]["post"]["responses"].pop("400"),
}


@pytest.mark.parametrize("lie", LIES)
def test_schemathesis_finds_a_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: str) -> None:
    told = document()
    LIES[lie](told)
    monkeypatch.setattr(infra.data_sync.api, "document", lambda: told)
    code, said = checked(tmp_path, 1, KNOWN, "--phases", "coverage")
    assert code == 1, said
