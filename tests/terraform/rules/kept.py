"""Where things are kept."""

from __future__ import annotations

import json
from collections.abc import Iterator

from infra.gcp import indexes
from infra.gcp.names import bucket_name
from shared.monitoring import COLUMNS
from tests.terraform.plan import Plan, Resource
from tests.terraform.rules.parts import differences
from tests.terraform.wanted import Wanted
from tests.terraform.workspace import PROJECT


def buckets_are_closed(plan: Plan, wanted: Wanted) -> Iterator[str]:
    for name, bucket in plan.by_name("storage_bucket").items():
        if not bucket["uniform_bucket_level_access"]:
            yield f"{name}: objects have rights of their own"
        if bucket["public_access_prevention"] != "enforced":
            yield f"{name}: may be made public"
        if not bucket["lifecycle_rule"]:
            yield f"{name}: nothing in it ever goes"
        forgets = bucket.block("soft_delete_policy").get("retention_duration_seconds") == 0
        if name == bucket_name(PROJECT) and (not forgets or bucket.block("versioning").get("enabled")):
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
    yield from differences("fields without an index", exempt, expected)
    expiring = {f"{each['collection']}.{each['field']}" for each in fields if each["ttl_config"]}
    yield from differences(
        "fields with a time to live", expiring, {".".join(each) for each in indexes.TIME_TO_LIVE.items()}
    )
    planned = {
        (each["collection"], tuple((f["field_path"], f["order"] or f["array_config"]) for f in each["fields"]))
        for each in plan.of("firestore_index")
    }
    yield from differences("indexes", map(str, planned), {str((i.collection, i.fields)) for i in indexes.COMPOSITE})


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
        yield from differences(f"columns of {name}", columns, COLUMNS)
        if (columns.get("timestamp"), columns.get("type_id")) != ("TIMESTAMP", "INTEGER"):
            yield f"{name}: timestamp and type_id are no text"
        if not each["deletion_protection"]:
            yield f"{name}: may be removed with everything in it"


def _has_no_index(field: Resource) -> bool:
    config = field["index_config"]
    return bool(config) and not (config[0] or {}).get("indexes")
