"""Rules on a plan that no schema knows: what the platform would refuse at an apply, or accept and be wrong.

Each takes a plan and what is wanted, and yields what is wrong with it. Limits are those of the vendor's documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from tests.terraform.plan import Plan
from tests.terraform.rules.functions import (
    every_function_has_an_account_of_its_own,
    functions_are_bounded,
    functions_are_those_of_the_folders,
    functions_have_the_secrets_that_they_need,
    lanes_have_a_thread_and_rates_an_instance,
    machines_call_from_within,
    secrets_have_no_value_here,
    systems_are_those_of_the_hub,
)
from tests.terraform.rules.kept import (
    books_are_safe,
    buckets_are_closed,
    indexes_are_those_of_the_hub,
    monitoring_rows_have_a_table,
)
from tests.terraform.rules.messages import (
    messages_are_neither_lost_nor_given_up,
    schedules_are_those_of_the_yaml,
    subscriptions_are_those_of_the_hub,
)
from tests.terraform.rules.rights import (
    nobody_may_do_everything,
    nothing_is_public_unless_asked,
    people_call_what_is_theirs,
    rights_are_those_of_the_table,
)
from tests.terraform.rules.watched import (
    every_api_is_enabled,
    everything_has_its_label,
    somebody_is_told,
)
from tests.terraform.wanted import Wanted

Rule = Callable[[Plan, Wanted], Iterator[str]]

RULES: Final[tuple[Rule, ...]] = (
    functions_are_those_of_the_folders,
    functions_are_bounded,
    lanes_have_a_thread_and_rates_an_instance,
    every_function_has_an_account_of_its_own,
    machines_call_from_within,
    functions_have_the_secrets_that_they_need,
    secrets_have_no_value_here,
    systems_are_those_of_the_hub,
    rights_are_those_of_the_table,
    people_call_what_is_theirs,
    nobody_may_do_everything,
    nothing_is_public_unless_asked,
    schedules_are_those_of_the_yaml,
    subscriptions_are_those_of_the_hub,
    messages_are_neither_lost_nor_given_up,
    buckets_are_closed,
    books_are_safe,
    indexes_are_those_of_the_hub,
    monitoring_rows_have_a_table,
    somebody_is_told,
    every_api_is_enabled,
    everything_has_its_label,
)
