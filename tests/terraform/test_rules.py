"""The plan of this repository passes every rule, and each rule finds what it is there for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.terraform import rules
from tests.terraform.plan import Plan
from tests.terraform.rules import RULES, Rule
from tests.terraform.wanted import Wanted

Planned = tuple[dict[str, Any], Wanted]
Values = dict[str, Any]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_plan_of_this_repository_passes(rule: Rule, planned: Planned) -> None:
    document, wanted = planned
    assert list(rule(Plan(document), wanted)) == []


def set_to(*path: Any) -> Callable[[Values], None]:
    """Sets what the path leads to, but for its last step, to that."""
    *steps, last, value = path

    def change(values: Values) -> None:
        inner: Any = values
        for step in steps:
            inner = inner[step]
        inner[last] = value

    return change


def function(**settings: Any) -> Callable[[Values], None]:
    return lambda values: values["service_config"][0].update(settings)


SINK = 'module.function["ploomes-to-milvus-sink"].google_cloudfunctions2_function.this'
RECORDS = 'module.channel["ploomes_to_milvus-records"].google_pubsub_subscription.this'
JOB = 'google_cloud_scheduler_job.each["ploomes_to_milvus-customers"]'
MEMBER = 'google_storage_bucket_iam_member.archive["ploomes-to-milvus-sink"]'
AGENT = 'module.channel["ploomes_to_milvus-records"].google_pubsub_subscription_iam_member.agent'
CALLS = 'module.function["ploomes-to-milvus-sink"].google_cloud_run_v2_service_iam_member.calls["push"]'
BUCKET = "google_storage_bucket.archive"
BOOKS = "google_firestore_database.books"
REMOVED = None

PLANTED: list[tuple[Rule, str, Callable[[Values], None] | None, str]] = [
    (rules.functions_are_those_of_the_folders, SINK, REMOVED, "ploomes-to-milvus-sink missing"),
    (rules.functions_are_those_of_the_folders, SINK, set_to("build_config", 0, "entry_point", "drain"), "drain"),
    (
        rules.functions_are_those_of_the_folders, 'google_storage_bucket_object.archive["operations"]', REMOVED,
        "nobody uploads",
    ),
    (rules.functions_are_bounded, SINK, function(max_instance_count=None), "None instances at most"),
    (rules.functions_are_bounded, SINK, function(max_instance_count=1000), "1000 instances at most"),
    (rules.functions_are_bounded, SINK, function(available_cpu="0.5"), "4 calls at a time on 0.5 CPU"),
    (rules.functions_are_bounded, SINK, function(timeout_seconds=900), "900 seconds, and whoever calls it waits 600"),
    (rules.functions_are_bounded, SINK, function(environment_variables={}), "None threads"),
    (rules.lanes_have_a_thread_and_rates_an_instance, SINK, function(max_instance_count=2), "over the rate"),
    (rules.lanes_have_a_thread_and_rates_an_instance, SINK, function(max_instance_request_concurrency=1), "4 lanes"),
    (rules.every_function_has_an_account_of_its_own, SINK, function(service_account_email=None), "the default account"),
    (
        rules.every_function_has_an_account_of_its_own, SINK,
        function(service_account_email="operations-sweep@waybill-demo.iam.gserviceaccount.com"), "and so does",
    ),
    (
        rules.every_function_has_an_account_of_its_own, SINK,
        set_to("build_config", 0, "service_account", ""), "built by another account",
    ),
    (rules.rights_are_those_of_the_table, MEMBER, set_to("role", "roles/storage.objectAdmin"), "more than it needs"),
    (rules.rights_are_those_of_the_table, MEMBER, REMOVED, "lacks roles/storage.objectUser"),
    (rules.rights_are_those_of_the_table, MEMBER, set_to("bucket", "another"), "on another is more than it needs"),
    (rules.rights_are_those_of_the_table, AGENT, REMOVED, "lacks roles/pubsub.subscriber on ploomes_to_milvus-records"),
    (rules.rights_are_those_of_the_table, CALLS, REMOVED, "lacks roles/run.invoker on ploomes-to-milvus-sink"),
    (rules.people_call_what_is_theirs, CALLS, set_to("member", "user:ana@example.com"), "only the platform has to"),
    (rules.people_call_what_is_theirs, CALLS, set_to("member", "allUsers"), "everybody may call it"),
    (rules.nothing_is_public_unless_asked, CALLS, set_to("member", "allUsers"), "allUsers"),
    (rules.nothing_is_public_unless_asked, MEMBER, set_to("member", "allAuthenticatedUsers"), "allAuthenticatedUsers"),
    (rules.nobody_may_do_everything, MEMBER, set_to("role", "roles/editor"), "roles/editor is too broad"),
    (rules.nobody_may_do_everything, MEMBER, set_to("role", "roles/storage.admin"), "roles/storage.admin is too broad"),
    (
        rules.nobody_may_do_everything, 'google_project_iam_member.books["operations-sweep"]',
        set_to("condition", []), "every database",
    ),
    (rules.machines_call_from_within, SINK, function(ingress_settings="ALLOW_ALL"), "ALLOW_ALL"),
    (rules.schedules_are_those_of_the_yaml, JOB, REMOVED, "ploomes_to_milvus-customers missing"),
    (rules.schedules_are_those_of_the_yaml, JOB, set_to("schedule", "0 0 * * *"), "0 0 * * * in Etc/UTC"),
    (rules.schedules_are_those_of_the_yaml, JOB, set_to("time_zone", "America/Sao_Paulo"), "in America/Sao_Paulo"),
    (rules.schedules_are_those_of_the_yaml, JOB, set_to("attempt_deadline", "1900s"), "at most 30 minutes"),
    (rules.schedules_are_those_of_the_yaml, JOB, set_to("attempt_deadline", "180s"), "waits 180s for a function"),
    (rules.schedules_are_those_of_the_yaml, JOB, set_to("retry_config", []), "not tried again"),
    (rules.schedules_are_those_of_the_yaml, JOB, set_to("http_target", 0, "oidc_token", []), "without a token"),
    (rules.schedules_are_those_of_the_yaml, JOB, set_to("http_target", 0, "body", "e30="), "does not ask for"),
    (rules.schedules_are_those_of_the_yaml, JOB, set_to("http_target", 0, "uri", "https://elsewhere"), "elsewhere"),
    (rules.subscriptions_are_those_of_the_hub, RECORDS, REMOVED, "ploomes_to_milvus-records missing"),
    (rules.subscriptions_are_those_of_the_hub, RECORDS, set_to("topic", "another"), "is a subscription of another"),
    (rules.subscriptions_are_those_of_the_hub, RECORDS, set_to("push_config", []), "pushes to nobody"),
    (rules.subscriptions_are_those_of_the_hub, RECORDS, set_to("retry_policy", 0, "minimum_backoff", "1s"), "0:00:10"),
    (rules.messages_are_neither_lost_nor_given_up, RECORDS, set_to("ack_deadline_seconds", 601), "10 to 600"),
    (rules.messages_are_neither_lost_nor_given_up, RECORDS, set_to("ack_deadline_seconds", 10), "a function has 10"),
    (rules.messages_are_neither_lost_nor_given_up, RECORDS, set_to("enable_message_ordering", False), "overtake"),
    (rules.messages_are_neither_lost_nor_given_up, RECORDS, set_to("expiration_policy", []), "expires"),
    (rules.messages_are_neither_lost_nor_given_up, RECORDS, set_to("retry_policy", []), "again and again"),
    (rules.messages_are_neither_lost_nor_given_up, RECORDS, set_to("message_retention_duration", "600s"), "forgets"),
    (rules.messages_are_neither_lost_nor_given_up, RECORDS, set_to("dead_letter_policy", []), "lost in no topic"),
    (
        rules.messages_are_neither_lost_nor_given_up, RECORDS,
        set_to("dead_letter_policy", 0, "max_delivery_attempts", 5), "given up after 5 deliveries",
    ),
    (
        rules.messages_are_neither_lost_nor_given_up, RECORDS,
        set_to("push_config", 0, "oidc_token", []), "without a token",
    ),
    (
        rules.messages_are_neither_lost_nor_given_up, RECORDS,
        set_to("push_config", 0, "oidc_token", 0, "audience", "another"), "its token is for another",
    ),
    (
        rules.messages_are_neither_lost_nor_given_up,
        'module.channel["ploomes_to_milvus-records"].google_pubsub_subscription.dead', REMOVED, "dead letters are lost",
    ),
    (rules.secrets_have_no_value_here, SINK, function(environment_variables={"MILVUS_TOKEN": "x"}), "plain variable"),
    (rules.secrets_have_no_value_here, SINK, function(environment_variables={"PRISMA_TOKEN_A": "x"}), "plain variable"),
    (
        rules.functions_have_the_secrets_that_they_need, SINK,
        function(secret_environment_variables=[]), "MILVUS_TOKEN missing",
    ),
    (
        rules.functions_have_the_secrets_that_they_need, 'google_secret_manager_secret.each["MILVUS_TOKEN"]', REMOVED,
        "nobody makes the secret MILVUS_TOKEN",
    ),
    (rules.buckets_are_closed, BUCKET, set_to("uniform_bucket_level_access", False), "rights of their own"),
    (rules.buckets_are_closed, BUCKET, set_to("public_access_prevention", "inherited"), "may be made public"),
    (rules.buckets_are_closed, BUCKET, set_to("lifecycle_rule", []), "nothing in it ever goes"),
    (rules.buckets_are_closed, BUCKET, set_to("soft_delete_policy", []), "removed of a person"),
    (rules.books_are_safe, BOOKS, set_to("delete_protection_state", None), "delete_protection_state"),
    (rules.books_are_safe, BOOKS, set_to("deletion_policy", "DELETE"), "deletion_policy"),
    (rules.books_are_safe, BOOKS, set_to("name", "books"), "(default)"),
    (rules.books_are_safe, "google_firestore_backup_schedule.daily", REMOVED, "back-up"),
    (
        rules.indexes_are_those_of_the_hub, 'google_firestore_field.exempt["failures/expires_at"]',
        set_to("ttl_config", []), "failures.expires_at missing",
    ),
    (
        rules.indexes_are_those_of_the_hub, 'google_firestore_field.exempt["runs/started_at"]',
        set_to("index_config", [{"indexes": [{"order": "ASCENDING"}]}]), "runs.started_at missing",
    ),
    (rules.indexes_are_those_of_the_hub, 'google_firestore_index.each["runs/names,started_at"]', REMOVED, "missing"),
    (rules.somebody_is_told, "google_monitoring_alert_policy.raised", REMOVED, "looks at alert_raised"),
    (
        rules.somebody_is_told, "google_monitoring_alert_policy.silent",
        set_to("notification_channels", []), "nobody is told",
    ),
    (rules.somebody_is_told, "google_logging_metric.actions", set_to("filter", "severity>=ERROR"), "whatever"),
    (rules.every_api_is_enabled, 'google_project_service.enabled["pubsub"]', REMOVED, "pubsub is not enabled"),
    (
        rules.every_api_is_enabled, 'google_project_service.enabled["run"]',
        set_to("disable_on_destroy", True), "lose it with this",
    ),
    (rules.everything_has_its_label, SINK, set_to("labels", {}), "neither its folder"),
    (rules.everything_has_its_label, RECORDS, set_to("labels", None), "does not say its integration"),
]  # fmt: skip


def ids() -> Iterator[str]:
    for place, (rule, _, _, _) in enumerate(PLANTED):
        yield f"{rule.__name__}-{place}"


@pytest.mark.parametrize(("rule", "address", "change", "said"), PLANTED, ids=list(ids()))
def test_a_rule_finds_what_was_planted(
    rule: Rule, address: str, change: Callable[[Values], None] | None, said: str, planned: Planned
) -> None:
    document, wanted = planned
    assert any(said in fault for fault in rule(Plan(with_change(document, address, change)), wanted))


def test_a_secrets_value_and_a_binding_that_takes_from_others_are_found(planned: Planned) -> None:
    document, wanted = planned
    changed = copy.deepcopy(document)
    changed["planned_values"]["root_module"]["resources"] += [
        {"mode": "managed", "address": "v", "type": "google_secret_manager_secret_version", "values": {}},
        {"mode": "managed", "address": "b", "type": "google_project_iam_binding", "values": {"role": "roles/x.user"}},
    ]
    assert list(rules.secrets_have_no_value_here(Plan(changed), wanted)) != []
    assert list(rules.nobody_may_do_everything(Plan(changed), wanted)) != []


def test_every_rule_was_seen_to_find_something() -> None:
    elsewhere = {rules.systems_are_those_of_the_hub, rules.monitoring_rows_have_a_table}  # test_folders.py
    assert {rule for rule, *_ in PLANTED} | elsewhere == set(RULES)


def with_change(document: dict[str, Any], address: str, change: Callable[[Values], None] | None) -> dict[str, Any]:
    """The plan with one of its resources changed, or without it."""
    changed = copy.deepcopy(document)
    found = 0
    for module in modules(changed["planned_values"]["root_module"]):
        resources = module.get("resources", [])
        for each in [each for each in resources if each["address"] == address]:
            found += 1
            if change is None:
                resources.remove(each)
            else:
                change(each["values"])
    assert found == 1, f"there is no {address}"
    return changed


def modules(module: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield module
    for inner in module.get("child_modules", ()):
        yield from modules(inner)
