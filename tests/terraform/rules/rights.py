"""Who may do what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from tests.terraform.plan import Plan, Resource
from tests.terraform.wanted import INVOKER, OWN_ROLES, PROJECT_WIDE, Grant, Wanted
from tests.terraform.workspace import PROJECT

EVERYBODY: Final = frozenset({"allUsers", "allAuthenticatedUsers"})
PLATFORM: Final = frozenset({"waybill-schedule", "waybill-push"})
"""Who calls functions by itself."""
TOO_BROAD: Final = re.compile(r"roles/(owner|editor|viewer|browser)|.*admin.*", re.I)


def rights_are_those_of_the_table(plan: Plan, wanted: Wanted) -> Iterator[str]:
    """Not one more than a function needs, and not one less."""
    planned = {grant for each in plan.grants() for grant in _granted(plan, each)}
    expected = wanted.grants
    people = {grant for grant in planned if grant.role == INVOKER and grant.who not in PLATFORM}
    for who, role, where in sorted(planned - expected - people):
        yield f"{who}: {role} on {where} is more than it needs"
    for who, role, where in sorted(expected - planned):
        yield f"{who}: lacks {role} on {where}"


def people_call_what_is_theirs(plan: Plan, wanted: Wanted) -> Iterator[str]:
    for grant in (grant for each in plan.grants() for grant in _granted(plan, each)):
        settings = wanted.settings.get(grant.where, {})
        if grant.role != INVOKER or grant.who in PLATFORM:
            continue
        if grant.who in EVERYBODY and not settings.get("public"):
            yield f"{grant.where}: everybody may call it"
        if grant.who not in EVERYBODY and not settings.get("people"):
            yield f"{grant.where}: {grant.who} may call it, and only the platform has to"


def nobody_may_do_everything(plan: Plan, wanted: Wanted) -> Iterator[str]:
    own = {str(each["role_id"]): {*each["permissions"]} for each in plan.of("project_iam_custom_role")}
    for name, permissions in own.items():
        if permissions != OWN_ROLES.get(name):
            yield f"{name}: lets do {', '.join(sorted(permissions))}"
    for each in plan.grants():
        if TOO_BROAD.fullmatch(each.role):
            yield f"{each.address}: {each.role} is too broad"
        if not each.type.endswith("_iam_member"):
            yield f"{each.address}: takes away what others were granted"
        if each.role.startswith("projects/") and each.role.rpartition("/")[2] not in own:
            yield f"{each.address}: nobody knows what {each.role} lets do"
        if each.role == "roles/datastore.user" and PROJECT not in str(each.block("condition").get("expression")):
            yield f"{each.address}: every database of the project, not the hub's alone"


def nothing_is_public_unless_asked(plan: Plan, wanted: Wanted) -> Iterator[str]:
    """For a plan without `public_api`."""
    for each in plan.grants():
        if EVERYBODY & {str(each["member"]), *(each["members"] or ())}:
            yield f"{each.address}: {each['member']}"


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
