"""Rules on a plan that no schema knows: what the platform would refuse at an apply, or accept and be wrong.

Each takes a plan and what is wanted, and yields what is wrong with it. Limits are those of the vendor's documentation.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from typing import Final

import yaml

from infra.environment import OWN, SYSTEM_VARIABLES
from infra.gcp import indexes
from infra.gcp.provision import ACK_SECONDS, LONGEST_BACKOFF, MOST_DELIVERIES, RETENTION
from shared.monitoring import COLUMNS
from shared.ports import dead_topic
from tests.terraform.plan import Plan, Resource
from tests.terraform.wanted import CONFIRMING, INVOKER, PROJECT_WIDE, Grant, Wanted
from tests.terraform.workspace import PROJECT, address_of

Rule = Callable[[Plan, Wanted], Iterator[str]]
MOST_INSTANCES: Final = 100
LONGEST_CALL: Final = 1800
"""Seconds that Cloud Scheduler waits for an answer, at most."""
EVERYBODY: Final = frozenset({"allUsers", "allAuthenticatedUsers"})
TOO_BROAD: Final = re.compile(r"roles/(owner|editor|viewer|browser)|.*admin.*", re.I)
APIS: Final = {
    "artifact": "artifactregistry", "bigquery": "bigquery", "cloud": "run", "cloudfunctions2": "cloudfunctions",
    "firestore": "firestore", "logging": "logging", "monitoring": "monitoring", "pubsub": "pubsub", "project": "iam",
    "secret": "secretmanager", "service": "iam", "storage": "storage",
}  # fmt: skip
"""The API behind the first word of a resource's type."""


def functions_are_those_of_the_folders(plan: Plan, wanted: Wanted) -> Iterator[str]:
    planned = plan.by_name("cloudfunctions2_function")
    yield from _differences("functions", planned, wanted.functions)
    for name in planned.keys() & wanted.functions.keys():
        folder, entry_point = wanted.functions[name]
        build = planned[name].block("build_config")
        if build.get("entry_point") != entry_point:
            yield f"{name}: the entry point is {build.get('entry_point')}, and {entry_point} is in main.py"
        archive = build["source"][0]["storage_source"][0]["object"]
        if not re.fullmatch(rf"{folder}-[0-9a-f]{{16}}\.zip", archive):
            yield f"{name}: {archive} is no archive of {folder} with a hash of what is in it"
    archives = plan.by_name("storage_bucket_object")
    for name, each in planned.items():
        archive = each.block("build_config")["source"][0]["storage_source"][0]["object"]
        if archive not in archives:
            yield f"{name}: nobody uploads {archive}"


def functions_are_bounded(plan: Plan, wanted: Wanted) -> Iterator[str]:
    pushed = {wanted.pushed_to(name) for name in wanted.subscriptions}
    for name, function in plan.by_name("cloudfunctions2_function").items():
        config = function.block("service_config")
        instances, concurrency = config.get("max_instance_count"), config.get("max_instance_request_concurrency")
        variables = config.get("environment_variables") or {}
        longest = ACK_SECONDS if name in pushed else 3600
        if not instances or instances > MOST_INSTANCES:
            yield f"{name}: {instances} instances at most"
        if not concurrency or concurrency > 1 and float(config.get("available_cpu") or 0) < 1:
            yield f"{name}: {concurrency} calls at a time on {config.get('available_cpu')} CPU"
        if variables.get("THREADS") != str(concurrency):
            yield f"{name}: {variables.get('THREADS')} threads for {concurrency} calls at a time"
        if not config.get("timeout_seconds") or config["timeout_seconds"] > longest:
            yield f"{name}: {config.get('timeout_seconds')} seconds, and whoever calls it waits {longest}"
        if variables.get("WAYBILL_BACKEND") != "gcp" or variables.get("GOOGLE_CLOUD_PROJECT") != PROJECT:
            yield f"{name}: does not know that it is on Google Cloud, or where"


def lanes_have_a_thread_and_rates_an_instance(plan: Plan, wanted: Wanted) -> Iterator[str]:
    """A rate is kept per instance, and a message of each lane may come at a time."""
    for name, function in plan.by_name("cloudfunctions2_function").items():
        folder, entry_point = wanted.functions.get(name, ("", ""))
        if folder not in wanted.integrations or entry_point not in ("source", "sink"):
            continue
        integration, config = wanted.integrations[folder], function.block("service_config")
        end = integration.source if entry_point == "source" else integration.sink
        instances, concurrency = config["max_instance_count"], config["max_instance_request_concurrency"]
        if end.rate_limit is not None and instances != 1:
            yield f"{name}: {instances} instances would go over the rate together"
        if entry_point == "sink" and instances * concurrency < integration.sink.lanes:
            yield f"{name}: {instances * concurrency} messages at a time, and there are {integration.sink.lanes} lanes"


def every_function_has_an_account_of_its_own(plan: Plan, wanted: Wanted) -> Iterator[str]:
    accounts = {str(each["email"]) for each in plan.of("service_account")}
    seen: dict[str, str] = {}
    for name, function in plan.by_name("cloudfunctions2_function").items():
        email = function.block("service_config").get("service_account_email") or "the default account"
        if email not in accounts:
            yield f"{name}: runs as {email}, which is not made here"
        if email in seen:
            yield f"{name}: runs as {email}, and so does {seen[email]}"
        seen[email] = name
        if not str(function.block("build_config").get("service_account", "")).endswith(
            f"/waybill-build@{PROJECT}.iam.gserviceaccount.com"
        ):
            yield f"{name}: is built by another account than the one that may do nothing else"


def rights_are_those_of_the_table(plan: Plan, wanted: Wanted) -> Iterator[str]:
    """Not one more than a function needs, and not one less."""
    planned = {grant for each in plan.grants() for grant in _granted(plan, each)}
    expected = wanted.grants
    people = {grant for grant in planned if grant.role == INVOKER and grant.who not in ("waybill-schedule", "waybill-push")}
    for who, role, where in sorted(planned - expected - people):
        yield f"{who}: {role} on {where} is more than it needs"
    for who, role, where in sorted(expected - planned):
        yield f"{who}: lacks {role} on {where}"


def people_call_what_is_theirs(plan: Plan, wanted: Wanted) -> Iterator[str]:
    for grant in (grant for each in plan.grants() for grant in _granted(plan, each)):
        settings = wanted.settings.get(grant.where, {})
        if grant.role != INVOKER or grant.who in ("waybill-schedule", "waybill-push"):
            continue
        if grant.who in EVERYBODY and not settings.get("public"):
            yield f"{grant.where}: everybody may call it"
        if grant.who not in EVERYBODY and not settings.get("people"):
            yield f"{grant.where}: {grant.who} may call it, and only the platform has to"


def nobody_may_do_everything(plan: Plan, wanted: Wanted) -> Iterator[str]:
    for each in plan.grants():
        if TOO_BROAD.fullmatch(each.role):
            yield f"{each.address}: {each.role} is too broad"
        if not each.type.endswith("_iam_member"):
            yield f"{each.address}: takes away what others were granted"
        if each.role == "roles/datastore.user" and PROJECT not in str(each.block("condition").get("expression")):
            yield f"{each.address}: every database of the project, not the hub's alone"


def nothing_is_public_unless_asked(plan: Plan, wanted: Wanted) -> Iterator[str]:
    """For a plan without `public_api`."""
    for each in plan.grants():
        if EVERYBODY & {str(each["member"]), *(each["members"] or ())}:
            yield f"{each.address}: {each['member']}"


def machines_call_from_within(plan: Plan, wanted: Wanted) -> Iterator[str]:
    for name, function in plan.by_name("cloudfunctions2_function").items():
        settings = wanted.settings.get(name, {})
        outside = bool(settings.get("people") or settings.get("public"))
        found = function.block("service_config").get("ingress_settings")
        if found != ("ALLOW_ALL" if outside else "ALLOW_INTERNAL_ONLY"):
            yield f"{name}: {found}"


def schedules_are_those_of_the_yaml(plan: Plan, wanted: Wanted) -> Iterator[str]:
    planned = plan.by_name("cloud_scheduler_job")
    yield from _differences("schedules", planned, wanted.jobs)
    functions = plan.by_name("cloudfunctions2_function")
    for name in planned.keys() & wanted.jobs.keys():
        job, expected = planned[name], wanted.jobs[name]
        target = job.block("http_target")
        if job["schedule"] != expected.schedule or job["time_zone"] != "Etc/UTC":
            yield f"{name}: {job['schedule']} in {job['time_zone']}, and {expected.schedule} in UTC is wanted"
        if target.get("uri") != address_of(expected.function) or target.get("http_method") != "POST":
            yield f"{name}: calls {target.get('uri')}, not {expected.function}"
        if json.loads(base64.b64decode(target.get("body") or "e30=")) != expected.body:
            yield f"{name}: does not ask for {expected.body}"
        function = functions.get(expected.function)
        seconds = _seconds(job["attempt_deadline"])
        needed = function.block("service_config")["timeout_seconds"] if function else 0
        if not 15 <= seconds <= LONGEST_CALL or seconds < needed:
            yield f"{name}: waits {job['attempt_deadline']} for a function that may take {needed} s; at most 30 minutes"
        if not 1 <= (job.block("retry_config").get("retry_count") or 0) <= 5:
            yield f"{name}: a call that failed is not tried again"
        yield from _not_authenticated(name, target.get("oidc_token"), target.get("uri"), "waybill-schedule")


def subscriptions_are_those_of_the_hub(plan: Plan, wanted: Wanted) -> Iterator[str]:
    """As infra/gcp/provision.py makes them in an emulator, but for what waits for BigQuery."""
    planned = plan.by_name("pubsub_subscription")
    expected = {*wanted.subscriptions} | {
        dead_topic(name) for name in wanted.subscriptions if name.endswith("-monitoring")
    }
    yield from _differences("subscriptions", planned, expected)
    yield from _differences("topics", plan.by_name("pubsub_topic"), expected)
    for name, subscription in planned.items():
        if subscription["topic"] != name:
            yield f"{name}: is a subscription of {subscription['topic']}"
        known = wanted.subscriptions.get(name)
        function = wanted.pushed_to(name) if known else ""
        endpoint = subscription.block("push_config").get("push_endpoint") or ""
        if endpoint != (address_of(function) if function else ""):
            yield f"{name}: pushes to {endpoint or 'nobody'}, not to {function or 'nobody'}"
        if known and _seconds(subscription.block("retry_policy").get("minimum_backoff")) != known.backoff.total_seconds():
            yield f"{name}: does not come again after {known.backoff}"


def messages_are_neither_lost_nor_given_up(plan: Plan, wanted: Wanted) -> Iterator[str]:
    topics = plan.by_name("pubsub_topic")
    subscriptions = plan.by_name("pubsub_subscription")
    for name, subscription in subscriptions.items():
        seconds = subscription["ack_deadline_seconds"] or 10
        if not 10 <= seconds <= ACK_SECONDS:
            yield f"{name}: {seconds} seconds for an answer, and 10 to 600 are possible"
        if endpoint := subscription.block("push_config").get("push_endpoint"):
            if seconds != ACK_SECONDS:
                yield f"{name}: a function has {seconds} seconds, not {ACK_SECONDS}"
            if not subscription["enable_message_ordering"]:
                yield f"{name}: messages overtake each other"
            yield from _not_authenticated(
                name, subscription.block("push_config").get("oidc_token"), endpoint, "waybill-push"
            )
        if (subscription["expiration_policy"] or [{"ttl": "31 days"}])[0]["ttl"] != "":
            yield f"{name}: expires when nobody uses it"
        if _seconds(subscription.block("retry_policy").get("maximum_backoff")) != LONGEST_BACKOFF.total_seconds():
            yield f"{name}: comes back at once, again and again"
        if _seconds(subscription["message_retention_duration"]) < RETENTION.total_seconds():
            yield f"{name}: forgets messages after {subscription['message_retention_duration']}"
        if name.endswith("-dead"):
            continue
        policy = subscription.block("dead_letter_policy")
        dead = str(policy.get("dead_letter_topic", "")).rpartition("/")[2]
        if dead not in topics or dead not in subscriptions:
            yield f"{name}: dead letters are lost in {dead or 'no topic'}"
        elif policy.get("max_delivery_attempts") != MOST_DELIVERIES:
            yield f"{name}: given up after {policy.get('max_delivery_attempts')} deliveries, not {MOST_DELIVERIES}"


def secrets_have_no_value_here(plan: Plan, wanted: Wanted) -> Iterator[str]:
    for each in plan.of("secret_manager_secret_version"):
        yield f"{each.address}: the value of a secret would be in the state"
    known = {name for variables in SYSTEM_VARIABLES.values() for name in variables.secrets}
    for name, function in plan.by_name("cloudfunctions2_function").items():
        for variable in known & set(function.block("service_config").get("environment_variables") or {}):
            yield f"{name}: {variable} is a plain variable"


def functions_have_the_secrets_that_they_need(plan: Plan, wanted: Wanted) -> Iterator[str]:
    made = plan.by_name("secret_manager_secret", "secret_id")
    for name, function in plan.by_name("cloudfunctions2_function").items():
        if name not in wanted.functions:
            continue
        given = {
            each["key"]: each["secret"]
            for each in function.block("service_config").get("secret_environment_variables") or ()
        }
        yield from _differences(f"secrets of {name}", given, wanted.secrets(name))
        yield from (f"{name}: nobody makes the secret {secret}" for secret in given.values() if secret not in made)


def systems_are_those_of_the_hub(plan: Plan, wanted: Wanted) -> Iterator[str]:
    systems = yaml.safe_load((wanted.root / "terraform" / "systems.yaml").read_text(encoding="utf8"))
    yield from _differences("systems", systems, {*SYSTEM_VARIABLES, *OWN})
    for name, variables in SYSTEM_VARIABLES.items():
        said = systems.get(name) or {}
        yield from _differences(f"secrets of {name}", said.get("secrets", ()), variables.secrets)
        needs = () if variables.default_url else (variables.url_variable,)
        yield from _differences(f"addresses of {name}", said.get("needs", ()), needs)
        if said.get("confirms", False) != (name in CONFIRMING):
            yield f"{name}: whether it confirms later is said wrongly"


def buckets_are_closed(plan: Plan, wanted: Wanted) -> Iterator[str]:
    for name, bucket in plan.by_name("storage_bucket").items():
        if not bucket["uniform_bucket_level_access"]:
            yield f"{name}: objects have rights of their own"
        if bucket["public_access_prevention"] != "enforced":
            yield f"{name}: may be made public"
        if not bucket["lifecycle_rule"]:
            yield f"{name}: nothing in it ever goes"
        forgets = bucket.block("soft_delete_policy").get("retention_duration_seconds") == 0
        if name == f"{PROJECT}-waybill" and (not forgets or bucket.block("versioning").get("enabled")):
            yield f"{name}: keeps what was removed of a person"


def books_are_safe(plan: Plan, wanted: Wanted) -> Iterator[str]:
    databases = plan.of("firestore_database")
    if [each["name"] for each in databases] != ["(default)"]:
        yield "firestore: the hub's database is called (default)"
    for each in databases:
        wants = {
            "type": "FIRESTORE_NATIVE",
            "delete_protection_state": "DELETE_PROTECTION_ENABLED",
            "deletion_policy": "ABANDON",
            "point_in_time_recovery_enablement": "POINT_IN_TIME_RECOVERY_ENABLED",
        }
        yield from (f"{each.address}: {key} is {each[key]}" for key, value in wants.items() if each[key] != value)
    if not plan.of("firestore_backup_schedule"):
        yield "firestore: nobody makes a back-up"


def indexes_are_those_of_the_hub(plan: Plan, wanted: Wanted) -> Iterator[str]:
    fields = plan.of("firestore_field")
    exempt = {f"{each['collection']}.{each['field']}" for each in fields if _has_no_index(each)}
    expected = {f"{collection}.{field}" for collection, names in indexes.EXEMPT.items() for field in names}
    yield from _differences("fields without an index", exempt, expected)
    expiring = {f"{each['collection']}.{each['field']}" for each in fields if each["ttl_config"]}
    yield from _differences(
        "fields with a time to live", expiring, {".".join(each) for each in indexes.TIME_TO_LIVE.items()}
    )
    planned = {
        (each["collection"], tuple((f["field_path"], f["order"] or f["array_config"]) for f in each["fields"]))
        for each in plan.of("firestore_index")
    }
    yield from _differences("indexes", map(str, planned), {str((i.collection, i.fields)) for i in indexes.COMPOSITE})


def monitoring_rows_have_a_table(plan: Plan, wanted: Wanted) -> Iterator[str]:
    tables = {f"{each['dataset_id']}.{each['table_id']}": each for each in plan.of("bigquery_table")}
    for name, integration in wanted.integrations.items():
        if not integration.monitoring.enabled:
            continue
        table = f"{integration.monitoring.dataset}.{integration.monitoring.table}"
        subscription = plan.by_name("pubsub_subscription").get(f"{name}-monitoring")
        config = subscription.block("bigquery_config") if subscription else {}
        if config.get("table") != f"{PROJECT}.{table}" or not config.get("use_table_schema"):
            yield f"{name}: its monitoring rows are not written to {table}"
        if table not in tables:
            yield f"{name}: there is no table {table}"
    for name, each in tables.items():
        columns = {column["name"]: column["type"] for column in json.loads(each["schema"])}
        yield from _differences(f"columns of {name}", columns, COLUMNS)
        if (columns.get("timestamp"), columns.get("type_id")) != ("TIMESTAMP", "INTEGER"):
            yield f"{name}: timestamp and type_id are no text"
        if not each["deletion_protection"]:
            yield f"{name}: may be removed with everything in it"


def somebody_is_told(plan: Plan, wanted: Wanted) -> Iterator[str]:
    """For a plan with `notification_emails`."""
    channels = {str(each["id"]) for each in plan.of("monitoring_notification_channel")}
    policies = plan.of("monitoring_alert_policy")
    if not channels or not policies:
        yield "monitoring: nobody is told of anything"
    for policy in policies:
        if not channels <= {*(policy["notification_channels"] or ())}:
            yield f"{policy.address}: nobody is told"
    watched = json.dumps([policy["conditions"] for policy in policies])
    for what in ("num_undelivered_messages", "oldest_unacked_message_age", "schedule_failures", "alert_raised", "sweep"):
        if what not in watched:
            yield f"monitoring: no alert looks at {what}"
    for metric in plan.of("logging_metric"):
        if not re.search(r"resource\.type=", str(metric["filter"])):
            yield f"{metric.address}: counts lines of whatever is in the project"
    for dashboard in plan.of("monitoring_dashboard"):
        if not json.loads(dashboard["dashboard_json"])["mosaicLayout"]["tiles"]:
            yield f"{dashboard.address}: is empty"


def every_api_is_enabled(plan: Plan, wanted: Wanted) -> Iterator[str]:
    enabled = {str(each["service"]) for each in plan.of("project_service")}
    for each in plan.resources:
        word = each.type.split("_")[1]
        api = "cloudscheduler" if "scheduler" in each.type else APIS.get(word)
        if each.type.startswith("google_") and f"{api}.googleapis.com" not in enabled:
            yield f"{each.address}: {api} is not enabled"
    if "cloudbuild.googleapis.com" not in enabled:
        yield "functions: nobody builds them without cloudbuild"
    for each in plan.of("project_service"):
        if each["disable_on_destroy"] is not False:
            yield f"{each.address}: others in the project lose it with this"


def everything_has_its_label(plan: Plan, wanted: Wanted) -> Iterator[str]:
    for each in plan.of("cloudfunctions2_function"):
        if not {"folder", "entry_point"} <= set(each["labels"] or {}):
            yield f"{each.address}: says neither its folder nor its entry point"
    for each in plan.of("pubsub_topic", "pubsub_subscription"):
        if "integration" not in (each["labels"] or {}):
            yield f"{each.address}: does not say its integration"


RULES: Final[tuple[Rule, ...]] = (
    functions_are_those_of_the_folders,
    functions_are_bounded,
    lanes_have_a_thread_and_rates_an_instance,
    every_function_has_an_account_of_its_own,
    rights_are_those_of_the_table,
    people_call_what_is_theirs,
    nobody_may_do_everything,
    nothing_is_public_unless_asked,
    machines_call_from_within,
    schedules_are_those_of_the_yaml,
    subscriptions_are_those_of_the_hub,
    messages_are_neither_lost_nor_given_up,
    secrets_have_no_value_here,
    functions_have_the_secrets_that_they_need,
    systems_are_those_of_the_hub,
    buckets_are_closed,
    books_are_safe,
    indexes_are_those_of_the_hub,
    monitoring_rows_have_a_table,
    somebody_is_told,
    every_api_is_enabled,
    everything_has_its_label,
)


def _granted(plan: Plan, each: Resource) -> Iterator[Grant]:
    functions = {
        f"serviceAccount:{function.block('service_config').get('service_account_email')}": name
        for name, function in plan.by_name("cloudfunctions2_function").items()
    }
    where = _where(each)
    for member in each["members"] or [each["member"]]:
        own = re.fullmatch(rf"serviceAccount:(waybill-\w+)@{PROJECT}\.iam\.gserviceaccount\.com", str(member))
        yield Grant(functions.get(member, own[1] if own else str(member)), each.role, where)


def _where(each: Resource) -> str:
    """What a right is about."""
    if each["table_id"]:
        return f"{each['dataset_id']}.{each['table_id']}"
    for name in ("bucket", "topic", "subscription", "secret_id", "repository", "dataset_id", "name"):
        if each[name]:
            return str(each[name])
    if each["service_account_id"]:
        return str(each["service_account_id"]).rpartition("/")[2].partition("@")[0]
    return PROJECT_WIDE


def _not_authenticated(name: str, tokens: list[dict[str, str]] | None, address: str | None, account: str) -> Iterator[str]:
    token = (tokens or [{}])[0]
    if token.get("service_account_email") != f"{account}@{PROJECT}.iam.gserviceaccount.com":
        yield f"{name}: calls without a token of {account}"
    elif token.get("audience") != address:
        yield f"{name}: its token is for {token.get('audience')}"


def _has_no_index(field: Resource) -> bool:
    config = field["index_config"]
    return bool(config) and not (config[0] or {}).get("indexes")


def _seconds(text: str | None) -> float:
    return float(str(text or "0s").removesuffix("s"))


def _differences(what: str, found: object, expected: object) -> Iterator[str]:
    """What is there and should not be, and the other way round."""
    here, there = set(found), set(expected)  # type: ignore[call-overload]
    if here - there:
        yield f"{what}: {', '.join(sorted(here - there))} should not be there"
    if there - here:
        yield f"{what}: {', '.join(sorted(there - here))} missing"
