"""More clients than one answer of Milvus ever holds: all of them arrive, or the run says that it cannot tell."""

from __future__ import annotations

import pytest

from tests.acceptance.conftest import MakeHub
from tests.acceptance.hub import Hub
from tests.acceptance.test_two_way import BACK, back, clients, contacts

CLIENTS = 2_600


def capped(make_hub: MakeHub, faults: str) -> Hub:
    hub = make_hub(0, clients=CLIENTS, faults=faults)
    hub.overlay({}, **{BACK: {"sink": {"lanes": 4}}})
    return hub


@pytest.mark.parametrize("faults", ["", "milvus.prefix_search=1"], ids=["any place", "beginning"])
def test_all_clients_arrive_whatever_part_of_a_name_is_searched(make_hub: MakeHub, faults: str) -> None:
    hub = capped(make_hub, faults)
    done = back(hub)
    assert done.code == 0, done
    assert (done.customers["fetched"], done.customers["delivered"]) == (CLIENTS, len(clients(hub)))
    assert contacts(hub).keys() == clients(hub).keys()
    again = back(hub)
    assert (again.code, again.customers["unchanged"], again.customers["delivered"]) == (0, len(clients(hub)), 0)


def test_a_search_that_cannot_be_split_trips_the_guard_and_leaves_the_cursor_alone(make_hub: MakeHub) -> None:
    hub = capped(make_hub, "milvus.no_name_search=1")
    done = back(hub)
    assert (done.code, done.customers["state"], done.customers["error"]["class"]) == (9, "failed", "GuardTripped")
    assert done.customers["error"]["cure"]
    status = hub("status", BACK).document["integrations"][0]["streams"][0]
    assert status["cursor"] is None
    hub.faults("milvus", "")
    assert back(hub).code == 0
    assert contacts(hub).keys() == clients(hub).keys()
