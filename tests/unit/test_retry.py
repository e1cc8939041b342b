"""When to try again: waits stay within their range, and end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.retry import LONGEST_WAIT, RetryPolicy, redelivery_wait
from tests.unit.fakes import STEADY

POLICIES = st.builds(RetryPolicy, attempts=st.integers(1, 12), wait=st.floats(0, 1000))
DICE = st.floats(0, 1, exclude_max=True)


@STEADY
@given(POLICIES, st.integers(1, 20), DICE)
def test_waits_are_jittered_within_a_range_that_doubles(policy: RetryPolicy, attempt: int, dice: float) -> None:
    wait = policy.next_wait(attempt, None, lambda: dice)
    if attempt >= policy.attempts:
        assert wait is None
    else:
        assert wait is not None
        assert 0 <= wait <= min(LONGEST_WAIT, policy.wait * 2**attempt)


@STEADY
@given(POLICIES, st.integers(1, 20), st.floats(0, 10_000), DICE)
def test_a_wish_of_the_other_side_is_never_undercut(
    policy: RetryPolicy, attempt: int, after: float, dice: float
) -> None:
    wait = policy.next_wait(attempt, after, lambda: dice)
    if attempt >= policy.attempts or after > LONGEST_WAIT:
        assert wait is None
    else:
        assert wait is not None
        assert after <= wait <= after + min(1.0, policy.wait)


@STEADY
@given(POLICIES)
def test_a_policy_allows_just_its_number_of_tries(policy: RetryPolicy) -> None:
    tries = 1
    while policy.next_wait(tries, None, lambda: 0.5) is not None:
        tries += 1
    assert tries == policy.attempts


def test_the_first_wait_is_the_policys_own_on_average() -> None:
    policy = RetryPolicy(attempts=5, wait=5.0)
    assert [policy.next_wait(attempt, None, lambda: 0.5) for attempt in (1, 2, 3, 4)] == [5.0, 10.0, 20.0, 40.0]
    assert policy.next_wait(5, None, lambda: 0.5) is None


def test_the_seeds_policy_is_the_default() -> None:
    assert RetryPolicy() == RetryPolicy(attempts=3, wait=5.0)


@STEADY
@given(st.floats(0, 600), st.integers(0, 1000), DICE)
def test_a_redelivery_waits_longer_each_time_up_to_a_limit(base: float, attempts: int, dice: float) -> None:
    wait = redelivery_wait(base, attempts, lambda: dice)
    longest = min(600.0, base * 2 ** min(max(0, attempts - 1), 6))
    assert 0.75 * longest <= wait <= longest
    assert wait <= min(600.0, 64 * base)
    assert redelivery_wait(base, attempts + 1, lambda: dice) >= wait
