"""Mistakes in the files of terraform/ that make `make check` fail."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.terraform.check import faults, of_the_plan
from tests.terraform.workspace import ROOT, SECONDS, Workspace

Repository = Callable[[], Workspace]


@pytest.mark.parametrize(
    ("file", "found", "planted", "said"),
    [
        (
            "modules/function/main.tf",
            "max_instance_request_concurrency",
            "max_instance_request_concurency ",
            'An argument named "max_instance_request_concurency" is not expected here',
        ),
        ("modules/channel/main.tf", "oidc_token {", "oidc_tokn {", 'Blocks of type "oidc_tokn" are not expected here'),
        ("firestore.tf", "  type                              =", "  kind =", 'The argument "type" is required'),
        ("modules/function/outputs.tf", "service_config[0].uri", "service_config[0].url", "Unsupported attribute"),
        ("storage.tf", "age = 1\n", 'age = "soon"\n', "a number is required"),
        ("schedule.tf", "google_service_account.schedule", "google_service_account.scheduler", "undeclared resource"),
        ("secrets.tf", "  project   = var.project", "  project = var.project", "fmt"),
        ("storage.tf", ":It holds the code that is in the repository, and nothing else", ":no", "without a reason"),
    ],
    ids=lambda value: value.strip()[:24] if isinstance(value, str) else "",
)
def test_a_planted_mistake_that_terraform_sees_is_found(
    file: str, found: str, planted: str, said: str, repository: Repository
) -> None:
    workspace = repository()
    path = workspace.configuration / file
    text = path.read_text(encoding="utf8")
    assert found in text
    path.write_text(text.replace(found, planted), encoding="utf8")
    assert any(said in " ".join(fault.split()) for fault in faults(workspace))


PLANTED = {
    "a widened role": (
        "iam.tf",
        "roles/storage.objectUser",
        "roles/storage.admin",
        "operations-sweep: roles/storage.admin on waybill-demo-waybill is more than it needs",
    ),
    "a right too many": (
        "functions.tf",
        'may         = ["books", "archive", "report"]',
        'may         = ["books", "archive", "report", "publish"]',
        "ploomes-to-milvus-sink: roles/pubsub.publisher on ploomes_to_milvus-records is more than it needs",
    ),
    "a missing secret": (
        "systems.yaml",
        "milvus: {secrets: [MILVUS_TOKEN]}",
        "milvus: {}",
        "secrets of ploomes-to-milvus-sink: MILVUS_TOKEN missing",
    ),
    "half of a secret": ("systems.yaml", "[QEASY_APP_KEY, ", "[", "secrets of qeasy: QEASY_APP_KEY missing"),
    "a removed subscription": (
        "modules/channel/main.tf",
        r'resource "google_pubsub_subscription" "dead" \{.*?\n\}\n\n',
        "",
        "okki_to_qeasy-records: dead letters are lost in okki_to_qeasy-records-dead",
    ),
    "a field with an index": (
        "firestore.yaml",
        r"  cells: \[cell\]\n",
        "",
        "fields without an index: cells.cell missing",
    ),
    "an archive without its packages": (
        "archives.tf",
        r"local\._always, local\._own",
        "local._own",
        "okki_to_qeasy.zip: shared/ports.py is missing",
    ),
    "an archive with others' entry points": (
        "archives.tf",
        r"local\.archive\.never_besides",
        "[]",
        "operations.zip: functions/okki_to_qeasy/main.py should not be there",
    ),
}
"""What only a plan shows: the file, an expression of what is in it, what is put there, and what is said of it."""


def test_planted_mistakes_that_only_a_plan_shows_are_found(repository: Repository) -> None:
    workspace = repository()
    for file, found, planted, _ in PLANTED.values():
        path = workspace.configuration / file
        pattern = found if "\\" in found else re.escape(found)
        text, times = re.subn(pattern, planted, path.read_text(encoding="utf8"), flags=re.S)
        assert times, f"there is nothing in {file} to plant a mistake in"
        path.write_text(text, encoding="utf8")
    with workspace.connected():
        workspace.init()
    said = list(of_the_plan(workspace))
    assert [mistake for mistake, (*_, wanted) in PLANTED.items() if not any(wanted in fault for fault in said)] == []


def test_the_command_fails_with_what_is_wrong(repository: Repository) -> None:
    workspace = repository()
    with (workspace.configuration / "outputs.tf").open("a") as file:
        file.write('output "nothing" {\n  value = local.nowhere\n}\n')
    asked = [sys.executable, "-m", "tests.terraform", str(workspace.root)]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert (done.returncode, "undeclared local value" in done.stderr) == (1, True), done.stderr
