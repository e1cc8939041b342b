"""What functions are, and what they are given."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import yaml

from infra.environment import OWN, SYSTEM_VARIABLES
from infra.gcp.provision import ACK_SECONDS
from tests.terraform.plan import Plan
from tests.terraform.rules.parts import differences
from tests.terraform.wanted import CONFIRMING, Wanted
from tests.terraform.workspace import PROJECT

MOST_INSTANCES: Final = 100
SECRET: Final = re.compile("TOKEN|SECRET|KEY|PASSWORD|WEBHOOK")
BUILDER: Final = f"/waybill-build@{PROJECT}.iam.gserviceaccount.com"


def functions_are_those_of_the_folders(plan: Plan, wanted: Wanted) -> Iterator[str]:
    planned = plan.by_name("cloudfunctions2_function")
    yield from differences("functions", planned, wanted.functions)
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
        if not concurrency or (concurrency > 1 and float(config.get("available_cpu") or 0) < 1):
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
        if not str(function.block("build_config").get("service_account", "")).endswith(BUILDER):
            yield f"{name}: is built by another account than the one that may do nothing else"


def machines_call_from_within(plan: Plan, wanted: Wanted) -> Iterator[str]:
    for name, function in plan.by_name("cloudfunctions2_function").items():
        settings = wanted.settings.get(name, {})
        outside = bool(settings.get("people") or settings.get("public"))
        found = function.block("service_config").get("ingress_settings")
        if found != ("ALLOW_ALL" if outside else "ALLOW_INTERNAL_ONLY"):
            yield f"{name}: {found}"


def functions_have_the_secrets_that_they_need(plan: Plan, wanted: Wanted) -> Iterator[str]:
    made = plan.by_name("secret_manager_secret", "secret_id")
    for name, function in plan.by_name("cloudfunctions2_function").items():
        if name not in wanted.functions:
            continue
        given = {
            each["key"]: each["secret"]
            for each in function.block("service_config").get("secret_environment_variables") or ()
        }
        yield from differences(f"secrets of {name}", given, wanted.secrets(name))
        yield from (f"{name}: nobody makes the secret {secret}" for secret in given.values() if secret not in made)


def secrets_have_no_value_here(plan: Plan, wanted: Wanted) -> Iterator[str]:
    for each in plan.of("secret_manager_secret_version"):
        yield f"{each.address}: the value of a secret would be in the state"
    known = {name for variables in SYSTEM_VARIABLES.values() for name in variables.secrets}
    for name, function in plan.by_name("cloudfunctions2_function").items():
        for variable in function.block("service_config").get("environment_variables") or {}:
            if variable in known or SECRET.search(variable):
                yield f"{name}: {variable} is a plain variable"


def systems_are_those_of_the_hub(plan: Plan, wanted: Wanted) -> Iterator[str]:
    systems = yaml.safe_load((wanted.root / "terraform" / "systems.yaml").read_text(encoding="utf8"))
    yield from differences("systems", systems, {*SYSTEM_VARIABLES, *OWN})
    for name, variables in SYSTEM_VARIABLES.items():
        said = systems.get(name) or {}
        yield from differences(f"secrets of {name}", said.get("secrets", ()), variables.secrets)
        needs = () if variables.default_url else (variables.url_variable,)
        yield from differences(f"addresses of {name}", said.get("needs", ()), needs)
        if said.get("confirms", False) != (name in CONFIRMING):
            yield f"{name}: whether it confirms later is said wrongly"
