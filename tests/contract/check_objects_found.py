"""Objects as they are found: by what a field holds, page by page, and in the order of their changes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from shared.errors import ConfigError
from shared.objects import MOST, Object
from tests.contract.check_objects import END, NAMES, PEOPLE, OfAllKinds, at, changed, pages
from tests.contract.suite import Around, answering, breaks, contract, refused
from tests.contract.world import START, World


class FindsEverywhere(Around):
    """Finds a value in whatever field it is."""

    def find(self, kind: str, field: str, values: Sequence[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for each in self.inner.page(kind, "", MOST):
            for value in set(values).intersection(map(str, each.fields.values())):
                found.setdefault(value, []).append(each.id)
        return {value: ids[:2] for value, ids in found.items()}


class FindsWhatWas(Around):
    """Remembers what it found."""

    def find(self, kind: str, field: str, values: Sequence[str]) -> dict[str, list[str]]:
        known = self.shared.setdefault((kind, field), {})
        for value, ids in self.inner.find(kind, field, values).items():
            known.setdefault(value, ids)
        return {value: known[value] for value in values if value in known}


class FindsByAnything(Around):
    def find(self, kind: str, field: str, values: Sequence[str]) -> dict[str, list[str]]:
        try:
            found: dict[str, list[str]] = self.inner.find(kind, field, values)
        except ConfigError:
            return {}
        return found


class FindsAsPythonWrites(Around):
    """Finds anything by what Python writes for it."""

    def find(self, kind: str, field: str, values: Sequence[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for each in self.inner.page(kind, "", MOST):
            if str(each.fields.get(field)) in values:
                found.setdefault(str(each.fields[field]), []).append(each.id)
        return found


class PagesByNumber(Around):
    """Counts how far a reader is, instead of looking behind what he has."""

    def page(self, kind: str, after: str, most: int) -> list[Object]:
        self.shared["place"] = self.shared.get("place", 0) if after else 0
        found: list[Object] = self.inner.page(kind, "", MOST)[self.shared["place"] :][:most]
        self.shared["place"] += len(found)
        return found


class PagesFromTheSame(Around):
    """Begins with the one that was the last."""

    def page(self, kind: str, after: str, most: int) -> list[Object]:
        found: list[Object] = self.inner.page(kind, after, most)
        return [*self.inner.get(kind, [after]).values(), *found][:most] if found else []


class ChangedByInstantAlone(Around):
    """Takes all that changed at one moment for read once one of them is."""

    def changed(
        self, kind: str, since: datetime, until: datetime, after: tuple[datetime, str] | None, most: int
    ) -> list[Object]:
        found: list[Object] = self.inner.changed(kind, since, until, None, MOST)
        return [each for each in found if after is None or each.changed_at > after[0]][:most]


class ChangedInclusive(Around):
    def changed(
        self, kind: str, since: datetime, until: datetime, after: tuple[datetime, str] | None, most: int
    ) -> list[Object]:
        found: list[Object] = self.inner.changed(kind, since, until + timedelta(microseconds=1), after, most)
        return found


class ChangedSinceEver(Around):
    def changed(
        self, kind: str, since: datetime, until: datetime, after: tuple[datetime, str] | None, most: int
    ) -> list[Object]:
        found: list[Object] = self.inner.changed(kind, since - timedelta(days=9), until, after, most)
        return found


@contract(
    breaks("finds none", objects=answering("find", lambda _: {})),
    breaks("finds all of each", objects=FindsAsPythonWrites),
    breaks("finds one of each", objects=answering("find", lambda found: {v: ids[:1] for v, ids in found.items()})),
    breaks("finds a value in any field", objects=FindsEverywhere),
    breaks("minds no kind", objects=OfAllKinds),
)
def check_objects_are_found_by_a_field(world: World) -> None:
    odd = ["a@example.com", "A@example.com", "", " ", "'", '"', "\\", "%", "☃", "a\x00b", "x" * 3000]
    world.here.objects.put(PEOPLE, {f"o{n}": {"email": value, "__x__": value} for n, value in enumerate(odd)}, START)
    many = {f"m{number}": {"email": "shared", "phone": "a@example.com"} for number in range(90)}
    world.here.objects.put(PEOPLE, many, START)
    world.here.objects.put("other", {"x": {"email": "a@example.com"}}, START)
    for field in ("email", "__x__"):
        found = world.there.objects.find(PEOPLE, field, [*odd, "nobody's"])
        assert found == {value: [f"o{number}"] for number, value in enumerate(odd)}
    shared = world.there.objects.find(PEOPLE, "email", ["shared", "%"])
    assert (len(set(shared["shared"])), set(shared["shared"]) <= set(many), shared["%"]) == (2, True, ["o7"])
    assert world.there.objects.find(PEOPLE, "nothing", odd) == {}
    assert world.there.objects.find(PEOPLE, "email", []) == {}


@contract(breaks("finds anything", objects=FindsAsPythonWrites))
def check_texts_and_whole_numbers_are_found_and_nothing_else(world: World) -> None:
    values = {"a": 12, "b": "12", "c": 12.0, "d": True, "e": None, "f": ["12"], "g": {"x": 12}, "h": -5, "i": "1"}
    world.here.objects.put(PEOPLE, {id: {"x": value} for id, value in values.items()}, START)
    found = world.there.objects.find(PEOPLE, "x", ["12", "12.0", "1", "True", "true", "null", "None", "", "-5"])
    assert {value: sorted(ids) for value, ids in found.items()} == {"12": ["a", "b"], "1": ["i"], "-5": ["h"]}


@contract(breaks("finds what was", objects=FindsWhatWas))
def check_an_object_is_found_by_what_it_holds_by_now(world: World) -> None:
    def found() -> dict[str, list[str]]:
        return world.there.objects.find(PEOPLE, "email", ["old", "new"])

    assert found() == {}
    world.here.objects.put(PEOPLE, {"a": {"email": "old", "x": 1}}, at(0))
    assert found() == {"old": ["a"]}
    world.here.objects.put(PEOPLE, {"a": {"x": 2}}, at(1))
    assert found() == {"old": ["a"]}
    world.here.objects.put(PEOPLE, {"a": {"email": "new"}}, at(2))
    assert found() == {"new": ["a"]}
    world.here.objects.remove(PEOPLE, ["a"])
    assert found() == {}


@contract(breaks("finds by anything", objects=FindsByAnything))
def check_a_field_that_nobody_finds_by_is_refused(world: World) -> None:
    world.here.objects.put(PEOPLE, {"a": dict.fromkeys(NAMES, "x")}, START)
    for field in ("a.b", "", "1a", "a b", "ção", "x" * 101, "a') OR 1=1 --", "`", "a\n", '$."a"'):
        with refused(ConfigError):
            world.there.objects.find(PEOPLE, field, ["x"])


@contract(
    breaks("counts instead of looking", objects=PagesByNumber),
    breaks("begins with the last one", objects=PagesFromTheSame),
    breaks("minds no kind", objects=OfAllKinds),
    breaks("gives one of each page", objects=answering("page", lambda found: found[-1:])),
)
def check_what_is_there_all_the_time_comes_once(world: World) -> None:
    stays = {f"stays {number}": {"n": number} for number in range(40)}
    goes = [f"goes {number}" for number in range(40)]
    world.here.objects.put(PEOPLE, {**stays, **{id: {"n": 0} for id in goes}}, START)
    world.here.objects.put("other", {"elsewhere": {}}, START)
    found: list[Object] = []
    while page := world.there.objects.page(PEOPLE, found[-1].id if found else "", 7):
        found += page
        world.here.objects.remove(PEOPLE, [goes.pop(), *(each.id for each in page if each.id.startswith("goes"))])
        world.here.objects.put(PEOPLE, {f"comes {len(found)}": {}, page[0].id: {"more": 1}}, at(1))
        if page[0].id.startswith("goes"):
            world.here.objects.remove(PEOPLE, [page[0].id])
    ids = [each.id for each in found]
    assert len(ids) == len(set(ids))
    assert {each.id: each.fields for each in found if each.id in stays} == stays
    assert "elsewhere" not in ids
    assert {each.id for each in pages(world, 1000)} >= set(stays)


@contract(
    breaks("takes a moment for read", objects=ChangedByInstantAlone),
    breaks("gives what changed at the end", objects=ChangedInclusive),
    breaks("gives what changed before", objects=ChangedSinceEver),
    breaks("gives the newest first", objects=answering("changed", lambda found: list(reversed(found)))),
)
def check_what_changed_comes_in_the_order_of_its_changes(world: World) -> None:
    for second in (3, 1, 2):
        world.here.objects.put(PEOPLE, {f"{second}-{number}": {"n": second} for number in range(30)}, at(second))
    found = changed(world, START, END, 7)
    assert [each.fields["n"] for each in found] == [1] * 30 + [2] * 30 + [3] * 30
    assert len({each.id for each in found}) == 90
    assert found == changed(world, START, END, 1000)
    assert changed(world, at(2), at(3), 11) == found[30:60]
    assert changed(world, at(3.000001), END) == []
    since_two = world.there.objects.changed(PEOPLE, at(2), END, (at(1), "zzz"), 100)
    assert since_two == found[30:]
    world.here.objects.put(PEOPLE, {"2-5": {"n": 4}, "1-7": {"n": 1}}, at(4))
    again = changed(world, START, END, 7)
    assert [each.id for each in again] == [*(each.id for each in found if each.id != "2-5"), "2-5"]
    assert world.there.objects.changed("other", START, END, None, 5) == []
