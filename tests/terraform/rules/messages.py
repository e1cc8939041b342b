"""What calls functions: schedules and messages."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Final

from infra.gcp.provision import ACK_SECONDS, LONGEST_BACKOFF, MOST_DELIVERIES, RETENTION
from shared.ports import dead_topic
from tests.terraform.plan import Plan
from tests.terraform.rules.parts import differences
from tests.terraform.wanted import Wanted
from tests.terraform.workspace import PROJECT, address_of

LONGEST_CALL: Final = 1800
"""Seconds that Cloud Scheduler waits for an answer, at most."""


def schedules_are_those_of_the_yaml(plan: Plan, wanted: Wanted) -> Iterator[str]:
    planned = plan.by_name("cloud_scheduler_job")
    yield from differences("schedules", planned, wanted.jobs)
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
    yield from differences("subscriptions", planned, expected)
    yield from differences("topics", plan.by_name("pubsub_topic"), expected)
    for name, subscription in planned.items():
        if subscription["topic"] != name:
            yield f"{name}: is a subscription of {subscription['topic']}"
        known = wanted.subscriptions.get(name)
        function = wanted.pushed_to(name) if known else ""
        endpoint = subscription.block("push_config").get("push_endpoint") or ""
        if endpoint != (address_of(function) if function else ""):
            yield f"{name}: pushes to {endpoint or 'nobody'}, not to {function or 'nobody'}"
        if (
            known
            and _seconds(subscription.block("retry_policy").get("minimum_backoff")) != known.backoff.total_seconds()
        ):
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


def _not_authenticated(
    name: str, tokens: list[dict[str, str]] | None, address: str | None, account: str
) -> Iterator[str]:
    token = (tokens or [{}])[0]
    if token.get("service_account_email") != f"{account}@{PROJECT}.iam.gserviceaccount.com":
        yield f"{name}: calls without a token of {account}"
    elif token.get("audience") != address:
        yield f"{name}: its token is for {token.get('audience')}"


def _seconds(text: str | None) -> float:
    return float(str(text or "0s").removesuffix("s"))
