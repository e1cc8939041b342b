"""The city of a contact: known by its name, written by its number."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from infra.systems.ploomes import Contacts
from shared.ends import Change
from shared.outcome import Found, Passing, delivered
from tests.loopback import Loopback, Reply, Request, reply
from tests.systems.ploomes_account import CNPJ, CONTENT, found, query_of, sink_at

STATES = {"SP": {"Id": 35, "Name": "São Paulo", "Short": "SP"}, "PR": {"Id": 41, "Name": "Paraná", "Short": "PR"}}


def city(number: int, name: str, state: str) -> dict[str, Any]:
    return {"Id": number, "Name": name, "StateId": STATES[state]["Id"], "State": STATES[state]}


class Places:
    """A Ploomes that holds these cities, minds case and accents, and has no contact but `row`."""

    def __init__(self, *cities: dict[str, Any], page: int = 300) -> None:
        self.cities = sorted(cities, key=lambda each: int(each["Id"]))
        self.page = page
        self.row: dict[str, Any] | None = None
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.failure: Reply | None = None

    def __call__(self, request: Request) -> Reply:
        if request.method != "GET":
            self.bodies.append(msgspec.json.decode(request.body))
            return found({"Id": 77})
        query = query_of(request)
        if request.target.startswith("/Contacts"):
            return found(self.row) if self.row else found()
        self.asked.append(query["$filter"])
        assert query["$expand"] == "State"
        return self.failure or found(*[each for each in self.cities if matches(each, query["$filter"])][: self.page])


def matches(each: dict[str, Any], condition: str) -> bool:
    name = re.search(r"Name eq '((?:[^']|'')*)'", condition)
    state = re.search(r"State/Short eq '(..)'", condition)
    after = re.search(r"Id gt (\d+)", condition)
    return (
        (name is None or each["Name"] == name[1].replace("''", "'"))
        and (state is None or each["State"]["Short"] == state[1])
        and (after is None or each["Id"] > int(after[1]))
    )


@contextmanager
def account(places: Places) -> Iterator[Contacts]:
    with Loopback(places) as server, sink_at(server.url, existing="update") as sink:
        yield sink


def living_in(name: str, state: str = "SP", target_id: str = "") -> Change:
    where = {"Name": name, "State": state} if state else {"Name": name}
    return Change(CNPJ, "upsert", CONTENT | {"City": where}, target_id, absent=not target_id)


def number_written(places: Places, name: str, state: str = "SP") -> int | None:
    with account(places) as sink:
        assert list(sink.write([living_in(name, state)])) == [delivered("77")]
    (body,) = places.bodies
    assert "City" not in body
    number: int | None = body.pop("CityId", None)
    assert body == CONTENT
    return number


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("Santa Bárbara d'Oeste", "SP"),
        ("Santa Barbara D'Oeste", "SP"),
        ("SANTA BÁRBARA D'OESTE", "sp"),
        ("Santa  Bárbara d'Oeste", "SP"),
        ("Santa Bárbara d'Oeste", ""),
    ],
)
def test_a_city_is_found_by_its_name_whatever_its_case_and_accents(name: str, state: str) -> None:
    places = Places(city(1, "Santa Bárbara", "SP"), city(2, "Santa Bárbara d'Oeste", "SP"), city(3, "Santos", "SP"))
    assert number_written(places, name, state) == 2
    assert places.asked[0].startswith("Name eq 'Santa Bárbara d''Oeste'") == (name == "Santa Bárbara d'Oeste")


def test_the_state_tells_cities_of_one_name_apart() -> None:
    both = city(1, "Bom Jesus", "SP"), city(2, "Bom Jesus", "PR")
    assert number_written(Places(*both), "Bom Jesus", "PR") == 2
    assert number_written(Places(*both), "bom jesus", "SP") == 1
    assert number_written(Places(*both), "Bom Jesus", "") is None


def test_a_city_that_is_there_twice_or_not_at_all_is_left_out() -> None:
    assert number_written(Places(city(1, "Santos", "SP"), city(2, "Santos", "SP")), "Santos") is None
    assert number_written(Places(city(1, "Santos", "SP"), city(2, "Sántos", "SP")), "SANTOS") is None
    assert number_written(Places(city(1, "Santos", "PR")), "Santos") is None
    assert number_written(Places(), "Santos") is None


def test_a_city_without_a_usable_number_or_state_is_none() -> None:
    odd = [
        {"Id": "4", "Name": "Santos", "State": STATES["SP"]},
        {"Name": "Santos"},
        "Santos",
        {"Id": 5, "Name": "Santos", "State": "SP"},
    ]
    places = Places()
    places.failure = found(*odd)
    with account(places) as sink:
        (answer,) = sink.write([living_in("Santos")])
    # Nor does the list of the state go on: it gives the same cities again.
    assert isinstance(answer, Passing)
    assert places.bodies == []


def test_a_city_is_asked_for_once_be_it_there_or_not() -> None:
    places = Places(city(1, "Santos", "SP"), city(2, "Campinas", "SP"))
    with account(places) as sink:
        for name in ("Santos", "santos", "Santos", "Nowhere", "nowhere", "CAMPINAS", "Elsewhere"):
            sink.write([living_in(name)])
    assert [body.get("CityId") for body in places.bodies] == [1, 1, 1, None, None, 2, None]
    assert [asked for asked in places.asked if "Id gt" not in asked] == [
        f"Name eq '{name}' and State/Short eq 'SP'" for name in ("Santos", "Nowhere", "CAMPINAS", "Elsewhere")
    ]
    assert len([asked for asked in places.asked if "Id gt" in asked]) == 2


@pytest.mark.parametrize("page", [1, 2, 300])
def test_the_cities_of_a_state_are_read_to_the_last_page(page: int) -> None:
    places = Places(*(city(each, f"Número {each}", "SP") for each in range(1, 8)), page=page)
    assert number_written(places, "NUMERO 3") == 3


def test_an_update_carries_the_city_too() -> None:
    places = Places(city(4, "Santos", "SP"))
    with account(places) as sink:
        assert list(sink.write([living_in("Santos", target_id="5")])) == [delivered("5")]
    assert places.bodies[0]["CityId"] == 4


@pytest.mark.parametrize("failure", [reply(400), reply(200, b"{}"), reply(503)])
def test_nothing_is_written_while_the_city_cannot_be_asked_for(failure: Reply) -> None:
    places = Places()
    places.failure = failure
    with account(places) as sink:
        (answer,) = sink.write([living_in("Santos")])
        assert isinstance(answer, Passing)
        places.failure = None
        assert list(sink.write([living_in("Santos")])) == [delivered("77")]
    assert len(places.bodies) == 1


@pytest.mark.parametrize(
    ("held", "asked", "same"),
    [
        ({"City": city(4, "Santos", "SP"), "CityId": 4}, "SANTOS", True),
        ({"City": city(4, "Santos", "SP"), "CityId": 4}, "Campinas", False),
        ({"City": city(9, "Santos", "PR"), "CityId": 9}, "Santos", False),
        ({"CityId": 4}, "Santos", True),
        ({"City": None, "CityId": None}, "Santos", False),
        ({"City": None, "CityId": None}, "Nowhere", True),
        ({"City": city(4, "Santos", "SP"), "CityId": 4}, "Nowhere", True),
    ],
)
def test_the_city_is_compared_by_name_or_number_unless_ploomes_has_it_not(
    held: dict[str, Any], asked: str, same: bool
) -> None:
    places = Places(city(4, "Santos", "SP"), city(5, "Campinas", "SP"))
    places.row = {"Id": 5, **CONTENT, **held}
    with account(places) as sink:
        (probe,) = sink.find([living_in(asked)])
    assert isinstance(probe, Found)
    assert probe.same is same


def test_a_city_that_is_plainly_the_same_is_not_asked_for() -> None:
    places = Places(city(4, "Santos", "SP"))
    places.row = {"Id": 5, **CONTENT, "City": city(4, "Santos", "SP"), "CityId": 4}
    with account(places) as sink:
        (probe,) = sink.find([living_in("SANTOS", "sp")])
    assert isinstance(probe, Found)
    assert probe.same
    assert places.asked == []
