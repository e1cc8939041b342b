"""The hub's own store in the middle: users of OKKI come into it, and go on to Milvus, by two ordinary integrations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra import queries
from infra.log import silent
from infra.runner import run_streams
from infra.wiring import Hub
from shared.fetch import Order
from shared.objects import MOST, Object
from tests.sandbox import Sandbox

FUNCTIONS = Path(__file__).parent / "functions"
IN, OUT = "okki_to_store", "store_to_milvus"
USERS = 30


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(seed=7, customers=0, users=USERS, departments=2) as running:
        yield running


@pytest.fixture
def hub(tmp_path: Path, sandbox: Sandbox) -> Iterator[Hub]:
    made = Hub({**sandbox.environment, "WAYBILL_HOME": str(tmp_path)}, FUNCTIONS)
    yield made
    made.close()


def run(hub: Hub, name: str) -> dict[str, int]:
    """The counts of a run that are not 0."""
    (result,) = run_streams(hub, name, hub.streams(hub.integration(name)), Order(), silent)
    assert result.state == "settled", result.error
    report = result.report(hub)
    assert report["balanced"]
    names = ("fetched", "delivered", "unchanged", "duplicate", "superseded", "invalid", "rejected", "pending")
    return {name: report[name] for name in names if report[name]}


def held(hub: Hub) -> dict[str, Object]:
    return {each.id: each for each in hub.home.objects.page("customers", "", MOST)}


def clients(sandbox: Sandbox) -> dict[str, int]:
    """How many clients Milvus has of each name."""
    with sandbox.milvus.lock:
        names = [row["nome_fantasia"] for row in sandbox.milvus.rows()]
    return {name: names.count(name) for name in names}


def audited(hub: Hub, name: str) -> list[Any]:
    found = queries.audit(hub, name, deep=True)
    assert found["balanced"]
    unaccounted: list[Any] = found["unaccounted"]
    return unaccounted


def test_rows_arrive_once_and_changes_travel_through(hub: Hub, sandbox: Sandbox) -> None:
    users = {user["user_id"]: user for user in sandbox.okki.users.rows()}
    assert run(hub, IN) == {"fetched": USERS, "delivered": USERS}
    before = held(hub)
    assert {id: each.fields["email"] for id, each in before.items()} == {id: u["email"] for id, u in users.items()}
    assert run(hub, OUT) == {"fetched": USERS, "delivered": USERS}
    assert clients(sandbox) == {user["nickname"]: 1 for user in users.values()}

    assert run(hub, IN) == {"fetched": USERS, "unchanged": USERS}
    assert held(hub) == before
    assert run(hub, OUT) == {"fetched": USERS, "unchanged": USERS}

    changed = sorted(users)[3]
    with sandbox.okki.lock:
        sandbox.okki.users.change([int(changed)], {"nickname": "李磊二"})
    hub.home.objects.put("customers", {sorted(users)[4]: {"score": 5}}, hub.clock.now())
    assert run(hub, IN) == {"fetched": USERS, "delivered": 1, "unchanged": USERS - 1}
    later = held(hub)
    assert {id for id in later if later[id] != before[id]} == {changed, sorted(users)[4]}
    assert later[sorted(users)[4]].fields == {**before[sorted(users)[4]].fields, "score": 5}
    assert run(hub, OUT) == {"fetched": USERS, "delivered": 1, "unchanged": USERS - 1}
    assert clients(sandbox) == {user["nickname"]: 1 for id, user in users.items() if id != changed} | {"李磊二": 1}
    assert audited(hub, IN) == audited(hub, OUT) == []


def test_what_somebody_took_out_of_the_store_is_named_by_an_audit(hub: Hub) -> None:
    run(hub, IN)
    run(hub, OUT)
    gone = sorted(held(hub))[0]
    hub.home.objects.remove("customers", [gone])
    (into,) = audited(hub, IN)
    assert (into["key"], into["where"]) == (gone, "target")
    (out,) = audited(hub, OUT)
    assert out["key"].startswith(f"{int(gone):09d}") and out["where"] == "source"
