"""Rate limits, judged by the sandbox's own clock and counts and never by how long something took."""

import time
from collections.abc import Callable

from tests.acceptance.conftest import MakeHub
from tests.acceptance.hub import NAME

FASTER = 12.0
"""The sandbox's clock runs so much faster than ours: its minute is five of our seconds."""
PER_MINUTE = 50


def hurried() -> Callable[[], float]:
    start, begun = time.time(), time.monotonic()
    return lambda: start + FASTER * (time.monotonic() - begun)


def test_neither_end_ever_sees_more_requests_in_a_sliding_minute_than_its_limit(make_hub: MakeHub) -> None:
    """Ten a second by our clock is 50 a minute by the sandbox's. A plan reads at the same time, from the same purse."""
    hub = make_hub(
        40,
        clock=hurried(),
        ploomes_per_minute=PER_MINUTE,
        milvus_per_minute=PER_MINUTE,
        overlay={"source": {"rate_limit": "10/s", "page_size": 1}, "sink": {"rate_limit": "10/s"}},
    )
    run, plan = hub.start("run", NAME), hub.start("plan", NAME)

    assert hub.finish(plan).code == 0
    assert hub.finish(run).code == 0

    for system in ("ploomes", "milvus"):
        stats = hub.stats(system)
        assert sum(stats["requests"].values()) > PER_MINUTE
        assert stats["largest_minute"]["refused"] == 0
        assert stats["largest_minute"]["all"] <= PER_MINUTE
    assert hub.at_target() == hub.at_source()


def test_a_target_that_refuses_more_than_its_limit_gets_everything_in_the_end(make_hub: MakeHub) -> None:
    """The limit is set too high: 429 with Retry-After is obeyed, and nothing fails for it."""
    hub = make_hub(30, clock=hurried(), milvus_per_minute=40, faults="milvus.retry_after=1")

    done = hub.run()

    assert done.code == 0, done
    assert hub.stats("milvus")["largest_minute"]["refused"] > 0
    assert hub.at_target() == hub.at_source()
    assert hub.audited() == {"fetched": 30, "delivered": 30}
