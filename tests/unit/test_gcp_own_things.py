"""Launches, tokens and objects in Firestore: what a lost answer does, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.gcp.home import GoogleHome
from infra.gcp.objects import VALUES_AT_ONCE
from shared.errors import StoreUnavailable
from shared.launches import Launch
from shared.tokens import made_of
from tests.contract.make import CUSTOMERS, SHOP
from tests.contract.world import START
from tests.emulators import Emulators
from tests.unit.gcp_homes import Hub, lose_answers

LAUNCH = Launch(SHOP, CUSTOMERS, 1_700_000_000_000, START)
_, TOKEN = made_of(bytes(range(52)), SHOP, CUSTOMERS, START)


@pytest.fixture
def hub(emulators: Emulators, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(emulators, tmp_path)
    yield hub
    hub.close()


def cost(home: GoogleHome, work: Callable[[], Any]) -> tuple[int, ...]:
    """Calls, and reads, writes and deletes of documents."""
    before = home.meter.counts()
    work()
    spent = home.meter.since(before)
    return tuple(spent.get(name, 0) for name in ("calls", "reads", "writes", "deletes"))


def test_whoever_got_a_number_knows_it_although_the_answer_was_lost(hub: Hub) -> None:
    one, two = hub.home(), hub.home()
    lose_answers(one.store)
    assert one.ports.launches.add(LAUNCH) is True
    assert two.ports.launches.add(LAUNCH) is False


def test_a_token_is_added_and_revoked_although_the_answers_were_lost(hub: Hub) -> None:
    home = hub.home()
    lose_answers(home.store)
    home.ports.tokens.add(TOKEN)
    assert home.ports.tokens.of(SHOP, CUSTOMERS) == [TOKEN]
    lose_answers(home.store)
    assert home.ports.tokens.revoke(SHOP, CUSTOMERS, TOKEN.id, START) is True
    assert home.ports.tokens.revoke(SHOP, CUSTOMERS, TOKEN.id, START) is False


def test_no_second_token_takes_the_place_of_one_with_its_id(hub: Hub) -> None:
    home = hub.home()
    home.ports.tokens.add(TOKEN)
    _, other = made_of(bytes(range(4)) + bytes(48), SHOP, CUSTOMERS, START)
    assert other.id == TOKEN.id
    with pytest.raises(StoreUnavailable):
        home.ports.tokens.add(other)
    assert home.ports.tokens.of(SHOP, CUSTOMERS) == [TOKEN]


def test_objects_change_once_although_the_answer_was_lost(hub: Hub) -> None:
    home = hub.home()
    objects = home.ports.objects
    objects.put("people", {"a": {"x": 1}}, START)
    lose_answers(home.store)
    objects.put("people", {"a": {"x": 2}, "b": {"x": 1}}, START + timedelta(1))
    found = objects.get("people", ["a", "b"])
    assert {id: (each.fields["x"], each.changed_at) for id, each in found.items()} == {
        "a": (2, START + timedelta(1)), "b": (1, START + timedelta(1)),
    }  # fmt: skip


def test_what_objects_cost(hub: Hub) -> None:
    home = hub.home()
    objects, ids = home.ports.objects, [f"o{number}" for number in range(100)]
    people = {id: {"email": id, "text": "x"} for id in ids}
    # The kind with its fields is read and written once.
    assert cost(home, lambda: objects.put("people", people, START)) == (4, 101, 101, 0)
    assert cost(home, lambda: objects.put("people", people, START)) == (1, 100, 0, 0)
    assert cost(home, lambda: objects.get("people", ids)) == (1, 100, 0, 0)
    assert cost(home, lambda: objects.find("people", "email", ids)) == (-(-100 // VALUES_AT_ONCE), 100, 0, 0)
    # One more than two of each is read, and then two of each value that was asked for with it.
    assert cost(home, lambda: objects.find("people", "text", ["x", "y"])) == (3, 8, 0, 0)
    assert cost(home, lambda: objects.page("people", "", 10)) == (1, 10, 0, 0)
    assert cost(home, lambda: objects.changed("people", START, START + timedelta(1), None, 1000)) == (16, 100, 0, 0)
    assert cost(home, lambda: objects.remove("people", ids)) == (1, 0, 0, 100)


def test_a_commit_of_objects_is_cut_by_its_bytes_entries_of_the_index_included(hub: Hub) -> None:
    home = hub.home()
    wide = {f"o{number}": {f"column_{each}": "x" for each in range(200)} for number in range(150)}
    calls, reads, writes, _ = cost(home, lambda: home.ports.objects.put("people", wide, START))
    assert (calls, reads, writes) == (5, 151, 151)
    assert len(home.ports.objects.page("people", "", 1000)) == 150
