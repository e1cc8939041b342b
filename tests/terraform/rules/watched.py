"""Who is told, and what everything needs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

from tests.terraform.plan import Plan
from tests.terraform.wanted import Wanted

APIS: Final = {
    "artifact": "artifactregistry", "bigquery": "bigquery", "cloud": "run", "cloudfunctions2": "cloudfunctions",
    "firestore": "firestore", "logging": "logging", "monitoring": "monitoring", "pubsub": "pubsub", "project": "iam",
    "secret": "secretmanager", "service": "iam", "storage": "storage",
}  # fmt: skip
"""The API behind the first word of a resource's type."""
WATCHED: Final = (
    "num_undelivered_messages",
    "oldest_unacked_message_age",
    "cloud_scheduler_job",
    "alert_raised",
    "operations-sweep",
)


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
    for what in (
        "num_undelivered_messages",
        "oldest_unacked_message_age",
        "cloud_scheduler_job",
        "alert_raised",
        "sweep",
    ):
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
    for api in ("cloudbuild", "cloudresourcemanager"):
        if f"{api}.googleapis.com" not in enabled:
            yield f"functions: nothing is built, and no right given, without {api}"
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
