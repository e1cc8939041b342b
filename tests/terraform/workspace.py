"""Runs the real terraform on the configuration of a repository, with providers that reach nobody."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.terraform.stub import providers

ROOT: Final = Path(__file__).resolve().parents[2]
# Read while the module is imported: the session scrubs WAYBILL_ variables before any fixture runs.
REQUIRED: Final = os.environ.get("WAYBILL_REQUIRE_TERRAFORM") == "1"
PROJECT: Final = "waybill-demo"
NUMBER: Final = 123456789012
SECONDS: Final = 300.0
"""More than any of these commands takes on a slow machine."""
PARTS: Final = ("terraform", "functions", "shared", "infra", "requirements.txt")
"""What a plan is made of."""


class TerraformMissing(Exception):
    """There is no terraform on this machine."""


class Refused(Exception):
    """What terraform said against it."""


def find() -> str:
    """Raises TerraformMissing."""
    found = shutil.which("terraform")
    if found is None:
        raise TerraformMissing("terraform is not installed")
    return found


def copy_of(root: Path, to: Path) -> Path:
    """The parts of a repository that a plan is made of, where they may be changed."""
    for name in PARTS:
        source = root / name
        if source.is_dir():
            hidden = shutil.ignore_patterns("__pycache__", ".terraform*", ".archives", "*.tfstate*")
            shutil.copytree(source, to / name, ignore=hidden)
        else:
            shutil.copy(source, to / name)
    return to


@cache
def schemas() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(__file__).with_name("provider.json").read_text(encoding="utf8"))
    return found


class Workspace:
    """The configuration of one repository. `data` takes what terraform keeps for itself."""

    def __init__(self, root: Path, data: Path) -> None:
        self.root = root
        self.configuration = root / "terraform"
        self._binary = find()
        self._data = data
        self._environ = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
        self._environ |= {"TF_DATA_DIR": str(data), "TF_CLI_CONFIG_FILE": os.devnull}

    @contextmanager
    def connected(self, *, made: bool = False) -> Iterator[None]:
        """With providers to talk to. `made`: names and addresses are known as if everything were made already."""
        before = self._environ
        with providers(schemas(), {"external": self._external}, MADE if made else {}) as environ:
            self._environ = {**before, **environ}
            try:
                yield
            finally:
                self._environ = before

    def terraform(self, *arguments: str) -> str:
        """What it wrote to its output. Raises Refused."""
        done = subprocess.run(
            [self._binary, *arguments],
            cwd=self.configuration, env=self._environ, capture_output=True, text=True, timeout=SECONDS,
        )  # fmt: skip
        if done.returncode:
            raise Refused(f"terraform {arguments[0]}: {done.stdout}{done.stderr}")
        return done.stdout

    def init(self) -> None:
        self.terraform("init", "-backend=false", "-input=false", "-no-color")

    def plan(self, variables: Mapping[str, Any] = {}) -> dict[str, Any]:
        """The plan for an empty project, as terraform describes it in JSON."""
        given = self._data / "given.tfvars.json"
        given.write_text(json.dumps({"project": PROJECT, **variables}), encoding="utf8")
        planned = str(self._data / "plan")
        self.terraform("plan", "-input=false", "-no-color", "-lock=false", f"-var-file={given}", f"-out={planned}")
        found: dict[str, Any] = json.loads(self.terraform("show", "-json", planned))
        return found

    def _external(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """As the provider of this name does it: runs the program."""
        done = subprocess.run(
            config["program"],
            input=json.dumps(config["query"]), cwd=self.configuration, capture_output=True, text=True, timeout=SECONDS,
        )  # fmt: skip
        if done.returncode:
            raise Refused(done.stderr)
        return {"id": "-", "result": json.loads(done.stdout)}


def _account(config: Mapping[str, Any]) -> Mapping[str, Any]:
    email = f"{config['account_id']}@{PROJECT}.iam.gserviceaccount.com"
    name = f"projects/{PROJECT}/serviceAccounts/{email}"
    return {"email": email, "member": f"serviceAccount:{email}", "name": name, "id": name}


def _function(config: Mapping[str, Any]) -> Mapping[str, Any]:
    service = [{**each, "uri": address_of(config["name"])} for each in config["service_config"]]
    return {"service_config": service}


def address_of(function: str) -> str:
    return f"https://{function}.example.run.app"


MADE: Final = {
    "google_service_account": _account,
    "google_cloudfunctions2_function": _function,
    "google_storage_bucket": lambda config: {"project_number": NUMBER},
    "google_monitoring_notification_channel": lambda config: {"id": f"channels/{config['display_name']}"},
}
