"""What is below functions/ decides what is planned: nothing else is edited for a folder or a setting more."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests import archives
from tests.terraform import rules
from tests.terraform.check import GIVEN
from tests.terraform.plan import Plan
from tests.terraform.wanted import INVOKER, Wanted
from tests.terraform.workspace import Refused, Workspace

Planned = tuple[dict[str, Any], Wanted]
Repository = Callable[[], Workspace]

INTEGRATION: Final = """\
name: crm_to_desk
source: {system: ploomes, rate_limit: 80/min, page_size: 300}
sink: {system: milvus, rate_limit: 60/min, batch_size: 100, lanes: 6, redeliver_after: 1m}
streams:
  companies: {schedule: "0 * * * *", since: 2024-01-01T00:00:00-03:00}
"""
MAPPING: Final = """\
from shared.rules import Rules

STREAMS = {"companies": Rules("Contacts", "clients", lambda contact: contact["CNPJ"], lambda contact: {})}
"""
PLATFORM: Final = """\
from pathlib import Path

from infra.entrypoints import operation_function

snapshots = operation_function(Path(__file__).resolve().parent.parent, "sweep")
"""
OVERLAY: Final = """\
ploomes_to_milvus:
  sink: {rate_limit: none, lanes: 40, redeliver_after: 2m}
  monitoring: {enabled: true}
  streams:
    customers: {schedule: "*/20 * * * *", catch_up: {schedule: "30 3 * * *", window: 2d}}
    tasks: {enabled: true, schedule: null, tags: {40012345: INSTALAÇÃO}}
    interactions: null
milvus_to_ploomes:
  sink: {redeliver_after: 250ms}
  monitoring: {enabled: true, dataset: other}
  streams:
    customers: {enabled: false}
okki_to_qeasy:
  monitoring: null
  streams: {users: {scheme: 3f0c}}
tagless_crm:
  sink: {lanes: null}
  streams:
    ga4: {enabled: true, from: {system: bigquery, table: crm.purchases}, key: [params.transaction_id]}
    cm360:
      enabled: true
      from: {system: gcs, path: "gs://exports/clicks/*.csv"}
      settings: {floodlight_configuration_id: "1", floodlight_activity_id: "2"}
    members:
      destination: customer_match
      schedule: "1 1 * * *"
      from: {system: gcs, path: gs://exports/members/}
      settings: {user_list: "1"}
    audience:
      destination: data_manager_audience
      from: {system: bigquery, query: SELECT 1, project: another-project}
      settings: {destinations: [{}]}
"""


def initialised(workspace: Workspace) -> Workspace:
    with workspace.connected():
        workspace.init()
    return workspace


def made(workspace: Workspace, given: dict[str, Any] | None = None) -> Plan:
    with workspace.connected(made=True):
        return Plan(workspace.plan(given or {}))


def test_folders_more_are_planned_without_any_hcl(planned: Planned, repository: Repository) -> None:
    before = Plan(planned[0])
    workspace = initialised(repository())
    folder = workspace.root / "functions" / "crm_to_desk"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "integration.yaml").write_text(INTEGRATION)
    (folder / "mapping.py").write_text(MAPPING)
    (folder / "main.py").write_text((folder.parent / "ploomes_to_milvus" / "main.py").read_text())
    platform = folder.parent / "of_the_platform"
    platform.mkdir()
    (platform / "main.py").write_text(PLATFORM)
    (platform / "deploy.yaml").write_text(
        "snapshots: {may: [books, archive, pause], people: true, schedule: 0 5 * * *}\n"
    )
    after = made(workspace, GIVEN)

    wanted = Wanted(workspace.root)
    assert [fault for rule in rules.RULES for fault in rule(after, wanted)] == []
    gained = {each.address for each in after.resources} - {each.address for each in before.resources}
    for address in (
        'module.function["crm-to-desk-source"].google_cloudfunctions2_function.this',
        'module.function["crm-to-desk-sink"].google_secret_manager_secret_iam_member.reads["MILVUS_TOKEN"]',
        'module.channel["crm_to_desk-records"].google_pubsub_subscription.this',
        'google_cloud_scheduler_job.each["crm_to_desk-companies"]',
        'google_storage_bucket_object.archive["crm_to_desk"]',
        'module.function["of-the-platform-snapshots"].google_cloudfunctions2_function.this',
        'google_cloud_scheduler_job.each["of_the_platform-snapshots"]',
    ):
        assert address in gained
    assert not {each.address for each in before.resources} - {each.address for each in after.resources}
    (role,) = after.of("project_iam_custom_role")
    role.values["permissions"].append("cloudscheduler.jobs.create")
    assert any("waybillPauses: lets do" in fault for fault in rules.nobody_may_do_everything(after, wanted))


def test_only_the_functions_whose_archive_changed_are_deployed_again(repository: Repository) -> None:
    workspace = initialised(repository())
    functions = workspace.root / "functions"
    before = made(workspace)

    def redeployed() -> set[str]:
        nonlocal before
        after = made(workspace)
        changed = {name for name, _ in archives_of(before).items() ^ archives_of(after).items()}
        before = after
        return changed

    changed(functions / "okki_to_qeasy" / "main.py")
    assert redeployed() == {"okki-to-qeasy-source", "okki-to-qeasy-sink"}
    # The two directions compare notes, and the platform's functions know all.
    changed(functions / "milvus_to_ploomes" / "mapping.py")
    both = {f"{name}-{end}" for name in ("milvus-to-ploomes", "ploomes-to-milvus") for end in ("source", "sink")}
    everybody_s = ("operations-", "snapshots-")
    assert redeployed() == both | {name for name in archives_of(before) if name.startswith(everybody_s)}
    changed(functions / "operations" / "deploy.yaml")
    changed(workspace.configuration / "systems.yaml")
    assert redeployed() == set()


def changed(file: Path) -> None:
    with file.open("a", encoding="utf8") as opened:
        opened.write("\n# A remark.\n")


def archives_of(plan: Plan) -> dict[str, str]:
    """The object that each function is deployed from."""
    return {
        name: each.block("build_config")["source"][0]["storage_source"][0]["object"]
        for name, each in plan.by_name("cloudfunctions2_function").items()
    }


def test_an_overlay_is_planned_as_the_hub_reads_it(repository: Repository, tmp_path: Path) -> None:
    workspace = initialised(repository())
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(OVERLAY, encoding="utf8")
    given = {**GIVEN, "overlay": str(overlay)}
    wanted, document = Wanted(workspace.root, overlay), made(workspace, given)
    assert [fault for rule in rules.RULES for fault in rule(document, wanted)] == []

    job = document.by_name("cloud_scheduler_job")["ploomes_to_milvus-customers-catch-up"]
    assert job["schedule"] == "30 3 * * *"
    assert "ploomes_to_milvus-tasks" not in document.by_name("cloud_scheduler_job")
    assert wanted.secrets("operations-sweep") == {"GOOGLE_ADS_DEVELOPER_TOKEN", "GOOGLE_ADS_CUSTOMER_ID"}
    functions = document.by_name("cloudfunctions2_function")
    assert functions["ploomes-to-milvus-sink"].block("service_config")["max_instance_count"] == 3
    variables = {name: each.block("service_config")["environment_variables"] for name, each in functions.items()}
    told = {name for name, each in variables.items() if "WAYBILL_OVERLAY" in each}
    assert {wanted.functions[name][0] for name in set(functions) - told} == {"data_syncs"}
    says = yaml.safe_load(OVERLAY)
    for folder in archives.folders(workspace.root):
        expected = archives.members(workspace.root, folder, says).get("overlay.yaml", b"{}")
        with zipfile.ZipFile(workspace.configuration / ".archives" / f"{folder}.zip") as packed:
            held = packed.read("overlay.yaml") if "overlay.yaml" in packed.namelist() else b"{}"
        assert json.loads(held) == json.loads(expected)
    # A rule of a plan with monitoring, which finds what is missing too.
    broken = [each for each in document.resources if each.type != "google_bigquery_table"]
    document.resources = broken
    assert any("there is no table other." in fault for fault in rules.monitoring_rows_have_a_table(document, wanted))


def test_what_the_hub_would_refuse_is_not_planned(repository: Repository, tmp_path: Path) -> None:
    workspace = initialised(repository())
    file = tmp_path / "overlay.yaml"
    file.write_text(
        "plumes_to_milvus: {}\nploomes_to_milvus: {source: {system: plumes}}\nokki_to_qeasy: {sink: {system: prisma}}\n"
    )
    with pytest.raises(Refused) as refused:
        made(workspace, {"overlay": str(file)})
    said = " ".join(re.sub(r"[│╷╵]", " ", str(refused.value)).split())
    assert "The overlay speaks of plumes_to_milvus" in said
    assert "a system that systems.yaml does not have" in said
    assert "give its variable" in said


def test_the_sweeper_has_what_the_sinks_have_whose_targets_confirm_later(
    repository: Repository, tmp_path: Path
) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("okki_to_qeasy: {sink: {system: prisma}}\n")
    own = {
        "okki_to_qeasy": {"PRISMA_URL": "https://bank.example.com"},
        "ploomes_to_milvus": {"MILVUS_URL": "https://x"},
    }
    given = {"overlay": str(overlay), "environment": own, "secrets": {"okki_to_qeasy": ["PRISMA_TOKEN_STAFF"]}}
    functions = made(initialised(repository()), given).by_name("cloudfunctions2_function")
    told = {}
    for name, each in functions.items():
        config = each.block("service_config")
        named = {secret["key"] for secret in config.get("secret_environment_variables") or ()}
        told[name] = {
            each for each in {*config["environment_variables"], *named} if each.startswith(("PRISMA", "MILVUS_U"))
        }
    both = {"PRISMA_URL", "PRISMA_TOKEN_STAFF"}
    assert {name: found for name, found in told.items() if found} == {
        "okki-to-qeasy-source": both,
        "okki-to-qeasy-sink": both,
        "operations-sweep": both,
        "ploomes-to-milvus-source": {"MILVUS_URL"},
        "ploomes-to-milvus-sink": {"MILVUS_URL"},
    }


def test_everybody_may_call_what_is_public_when_that_is_asked_for(planned: Planned, repository: Repository) -> None:
    document, wanted = planned
    asked = made(initialised(repository()), {"public_api": True})
    public = {str(each["name"]) for each in asked.grants() if each["member"] == "allUsers"}
    assert public == {name for name, settings in wanted.settings.items() if settings.get("public")} != set()
    assert {each.role for each in asked.grants() if each["member"] == "allUsers"} == {INVOKER}
    assert list(rules.people_call_what_is_theirs(asked, wanted)) == []
    assert list(rules.nothing_is_public_unless_asked(asked, wanted)) != []
    assert list(rules.nothing_is_public_unless_asked(Plan(document), wanted)) == []
