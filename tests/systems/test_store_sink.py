"""The hub's own store as a sink: what an object is known by, who is matched, and a store that is not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from infra.systems import Connection
from infra.systems.store import Store, open_sink, open_source
from shared.ends import Change
from shared.errors import BAD_IDENTITY, NO_SUCH_CUSTOMER, ConfigError, StoreUnavailable, TransientError
from shared.kinds import KINDS
from shared.outcome import Absent, Found, InDoubt, Outcome, Verdict, delivered
from tests.systems.store_world import ANA, HOMES, Content, World, delete, opened, rows_of, upsert
from tests.unit.fakes import spare_the_disk


@pytest.fixture(params=HOMES)
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    spare_the_disk(monkeypatch)
    with opened(request, tmp_path) as made:
        yield made


# --- what an object is known by ---


@pytest.mark.parametrize(
    ("kind", "content", "id"),
    [
        ("customers", {"id": "7"}, "7"),
        ("customers", {"id": 7}, "7"),
        ("customers", {"name": "Ana"}, "k"),
        ("customers", {"id": None, "name": "Ana"}, "k"),
        ("campaign_data", {"id": "7", "campaign": "a|b"}, "7|a\\|b"),
        ("priorities", {"id": "7", "campaign": "spring", "priority": "1"}, "7|spring"),
        ("unsubscriptions", {"id": "7"}, "7||||"),
        ("unsubscriptions", {"id": "7", "channel": ":mail", "campaign": None}, "7||||:mail"),
        ("campaign_results", {"id": "7", "campaign": "spring"}, "k"),
    ],
)
def test_an_object_is_known_by_its_customer_and_its_kind(world: World, kind: str, content: Content, id: str) -> None:
    sink = world.sink(kind)
    assert sink.repeatable(upsert(content)) and sink.repeatable(delete(content))
    assert sink.find([upsert(content)]) == [Absent()]
    assert sink.write([upsert(content)]) == [delivered(id)]
    assert world.held(kind) == {id: content}
    assert sink.write([delete(content)]) == [delivered(id)]
    assert world.held(kind) == {}
    assert sink.write([delete(content)]) == [delivered(id)]


def test_an_identity_that_is_no_text_is_refused_alone(world: World) -> None:
    changes = [upsert({"id": ["7"]}), upsert(ANA), upsert({"id": "8", "campaign": {}})]
    assert [each.number for each in world.sink().write(changes) if isinstance(each, Verdict)] == [BAD_IDENTITY, 0, 0]
    answers = world.sink("campaign_data").write(changes[2:])
    assert [(each.outcome, each.number) for each in answers if isinstance(each, Verdict)] == [
        (Outcome.REJECTED, BAD_IDENTITY)
    ]
    assert world.held("campaign_data") == {}


def test_writers_put_their_fields_beside_those_of_others(world: World) -> None:
    one, other = world.sink(), world.sink()
    one.write([upsert({"id": "7", "name": "Ana", "city": "Montevideo"})])
    world.clock.advance(60)
    other.write([upsert({"id": "7", "city": "Salto", "score": 3})])
    assert world.held() == {"7": {"id": "7", "name": "Ana", "city": "Salto", "score": 3}}
    assert [row.version[:19] for row in rows_of(world.source())] == ["2026-03-01T13:01:00"]
    world.clock.advance(60)
    one.write([upsert({"id": "7", "name": "Ana"})])
    assert [row.version[:19] for row in rows_of(world.source())] == ["2026-03-01T13:01:00"], "nothing changed"


def test_an_object_that_goes_under_one_key_and_comes_under_another_is_there(world: World) -> None:
    world.sink().write([upsert(ANA, "old")])
    changes = [upsert({**ANA, "name": "Ana M."}, "new"), delete({}, "old", target_id="7")]
    assert world.sink().write(changes) == [delivered("7"), delivered("7")]
    assert world.held() == {"7": {**ANA, "name": "Ana M."}}


def test_what_two_keys_say_of_one_object_is_put_together(world: World) -> None:
    changes = [upsert({"id": "7", "name": "Ana"}, "one"), upsert({"id": "7", "city": "Salto"}, "other")]
    assert world.sink().write(changes) == [delivered("7"), delivered("7")]
    assert world.held() == {"7": {"id": "7", "name": "Ana", "city": "Salto"}}


def test_a_bulk_is_written_and_found_as_a_whole(world: World) -> None:
    changes = [upsert({"id": str(number), "n": number}, str(number)) for number in range(Store.bulk)]
    assert world.sink().write(changes) == [delivered(str(number)) for number in range(Store.bulk)]
    assert {found.same for found in world.sink().find(changes) if isinstance(found, Found)} == {True}


# --- asking ---


def test_it_says_whether_the_store_holds_just_what_would_be_written(world: World) -> None:
    world.put("7", id="7", name="Ana", flag=1, parts={"b": 1, "a": 2}, more="of others")
    sink = world.sink()

    def same(content: Content) -> bool | None:
        (found,) = sink.find([upsert({"id": "7"} | content)])
        assert isinstance(found, Found) and found.target_id == "7"
        assert found.current["more"] == "of others"
        return found.same

    assert same({"name": "Ana"}) and same({"parts": {"a": 2, "b": 1}})
    assert not same({"name": "Ana M."}) and not same({"flag": True}) and not same({"absent": None})
    (found,) = sink.find([delete({"id": "7"})])
    assert isinstance(found, Found) and found.same is False
    assert found.version == rows_of(world.source())[0].version


def test_whoever_has_only_a_key_is_told_whether_it_is_there(world: World) -> None:
    world.put("7", id="7", email="ana@example.com")
    asked = [Change("7", "upsert", {}), Change("ana@example.com", "upsert", {}, "7"), Change("8", "upsert", {})]
    for sink in (world.sink(), world.sink(match="email")):
        found = sink.find(asked)
        assert [each.same if isinstance(each, Found) else "absent" for each in found] == [None, None, "absent"]
    assert world.sink(match="email").repeatable(delete({}, "7"))


# --- customers that are matched ---


def test_a_matched_customer_keeps_its_id(world: World) -> None:
    world.put("7", **ANA)
    content = {"id": "99", "email": "ana@example.com", "city": "Salto"}
    assert world.sink(match="email").write([upsert(content)]) == [delivered("7")]
    assert world.held() == {"7": {**ANA, "city": "Salto"}}
    (found,) = world.sink(match="email").find([upsert(content)])
    assert isinstance(found, Found) and (found.target_id, found.same) == ("7", True)


@pytest.mark.parametrize("options", [{}, {"unmatched": "reject"}, {"unmatched": "create"}])
def test_a_value_that_two_have_tells_nobody(world: World, options: Content) -> None:
    for id in "789":
        world.put(id, email="family@example.com")
    sink = world.sink(match="email", **options)
    for change in (upsert({"email": "family@example.com"}), delete({"email": "family@example.com"})):
        assert sink.find([change]) == [Found("", same=False)], "it must not be taken for gone"
        (answer,) = sink.write([change])
        assert isinstance(answer, Verdict)
        assert (answer.outcome, answer.number) == (Outcome.REJECTED, NO_SUCH_CUSTOMER)
        assert answer.reason == "more than one customer has this email"
    assert len(world.held()) == 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"email": "nobody@example.com"}, "no customer has this email"),
        ({"email": ""}, "there is no email"),
        ({"email": None}, "there is no email"),
        ({"email": ["x"]}, "there is no email"),
        ({"name": "Ana"}, "there is no email"),
    ],
)
def test_who_matches_nobody_is_refused_without_being_named(world: World, content: Content, reason: str) -> None:
    world.put("7", **ANA)
    world.put("8", email="")
    for kind in KINDS:
        sink = world.sink(kind, match="email")
        before = world.held(kind)
        for change in (upsert(content), delete(content)):
            assert sink.find([change]) == [Absent()]
            assert sink.write([change]) == [Verdict(Outcome.REJECTED, NO_SUCH_CUSTOMER, reason)]
        assert world.held(kind) == before


def test_who_matches_nobody_can_be_made(world: World) -> None:
    world.put("7", **ANA)
    sink = world.sink(match="email", unmatched="create")
    changes = [
        upsert({"email": "bea@example.com", "name": "Bea"}, "bea"),
        upsert({"email": "carl@example.com", "id": 9, "name": "Carl"}, "carl"),
        upsert({"email": "ana@example.com", "id": "10"}, "ana"),
        upsert({"email": ""}, "x"),
        delete({"email": "dora@example.com"}, "dora"),
    ]
    for _ in range(2):
        answers = [each for each in sink.write(changes) if isinstance(each, Verdict)]
        assert [each.target_id for each in answers] == ["bea@example.com", "9", "7", "", ""]
        assert [each.number for each in answers] == [0, 0, 0, NO_SUCH_CUSTOMER, NO_SUCH_CUSTOMER]
    assert world.held() == {
        "7": ANA,
        "9": {"id": "9", "email": "carl@example.com", "name": "Carl"},
        "bea@example.com": {"id": "bea@example.com", "email": "bea@example.com", "name": "Bea"},
    }


def test_who_is_made_takes_nobody_s_id(world: World) -> None:
    world.put("7", **ANA)
    sink = world.sink(match="email", unmatched="create")
    (answer,) = sink.write([upsert({"email": "new@example.com", "id": 7, "name": "New"}, "new")])
    assert isinstance(answer, Verdict)
    assert (answer.outcome, answer.number) == (Outcome.REJECTED, NO_SUCH_CUSTOMER)
    assert world.held() == {"7": ANA}


def test_only_customers_are_made_and_only_by_a_field_that_can_be_found(world: World) -> None:
    for options in ({"match": "e-mail"}, {"match": "email", "unmatched": "create"}):
        with pytest.raises(ConfigError):
            world.sink("priorities", **options)


def test_what_belongs_to_a_matched_customer_is_kept_under_its_id(world: World) -> None:
    world.put("7", **ANA)
    sink = world.sink("unsubscriptions", match="email")
    content = {"email": "ana@example.com", "channel": ":sms"}
    assert sink.write([upsert(content)]) == [delivered("7||||:sms")]
    assert world.held("unsubscriptions") == {"7||||:sms": {"id": "7", "channel": ":sms"}}
    world.put("7", email="ana@example.org")
    content["email"] = "ana@example.org"
    (found,) = sink.find([upsert(content)])
    assert isinstance(found, Found) and (found.target_id, found.same) == ("7||||:sms", True)
    assert not sink.repeatable(delete(content)) and sink.repeatable(upsert(content))
    assert sink.write([delete(content)]) == [delivered("7||||:sms")]
    assert world.held("unsubscriptions") == {}
    results = world.sink("campaign_results", match="email")
    assert results.write([upsert(content, "r1")]) == [delivered("r1")]


def test_a_number_is_matched_by_its_digits(world: World) -> None:
    world.put("7", document=52998224725)
    world.put("8", document="000")
    sink = world.sink(match="document")
    changes = [upsert({"document": "52998224725"}), upsert({"document": 52998224725}), upsert({"document": 0})]
    answers = [each for each in sink.write(changes) if isinstance(each, Verdict)]
    assert [each.target_id for each in answers] == ["7", "7", ""]


# --- a store that is not there ---


class Unavailable:
    """Objects of which some calls fail, before or after they were carried out."""

    def __init__(self, inner: Any, *names: str, after: bool = False) -> None:
        self._inner, self._names, self._after = inner, names, after

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            if name not in self._names:
                return getattr(self._inner, name)(*given)
            if self._after:
                getattr(self._inner, name)(*given)
            raise StoreUnavailable("the disk is full")

        return call


def broken(world: World, *names: str, after: bool = False) -> Connection:
    objects: Any = Unavailable(world.objects, *names, after=after)
    ports = msgspec.structs.replace(world.home.ports, objects=objects)
    return msgspec.structs.replace(world.connection(match="email"), home=lambda: ports)


@pytest.mark.parametrize("name", ["changed", "page"])
def test_a_store_that_cannot_be_read_is_a_passing_trouble(world: World, name: str) -> None:
    connection = broken(world, name)
    connection = msgspec.structs.replace(connection, options={"all": name == "page"})
    with pytest.raises(TransientError):
        rows_of(open_source(connection, "customers"))


def test_nothing_took_effect_where_the_store_could_not_be_asked(world: World) -> None:
    world.put("7", **ANA)
    sink = open_sink(broken(world, "find"), "customers")
    for call in (sink.find, sink.write):
        with pytest.raises(TransientError):
            call([delete({"email": "ana@example.com"})])
    assert world.held() == {"7": ANA}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ["put", "remove"])
def test_what_the_store_did_not_confirm_is_in_doubt_and_nothing_else(world: World, name: str, after: bool) -> None:
    world.put("7", **ANA)
    world.put("8", email="bea@example.com")
    sink = open_sink(broken(world, name, after=after), "customers")
    changes = [
        delete({"email": "ana@example.com"}),
        upsert({"email": "bea@example.com", "name": "Bea"}),
        upsert({"email": "nobody@example.com"}),
    ]
    removed, put, refused = sink.write(changes)
    assert isinstance(removed, InDoubt) is (name == "remove")
    assert isinstance(put, InDoubt) is (name == "put")
    assert isinstance(refused, Verdict) and refused.number == NO_SUCH_CUSTOMER
    assert ("7" in world.held()) is (name == "remove" and not after)


def test_opening_either_end_makes_no_home(world: World) -> None:
    def nobody() -> Any:
        raise AssertionError("a home is made")

    connection = msgspec.structs.replace(world.connection(match="email"), home=nobody)
    open_sink(connection, "customers").close()
    open_source(connection, "customers").close()
