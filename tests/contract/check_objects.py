"""Objects: fields that several writers set side by side, found by what they hold, and read page by page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from threading import Barrier
from typing import Any

from shared.objects import MOST, Object
from tests.contract.suite import PATIENCE_SECONDS, Around, answering, at_once, breaks, contract, errors_of, without
from tests.contract.world import START, World

PEOPLE = "people"
WRITERS = 4
END = START + timedelta(days=1)
NAMES = [
    "a.b", "..", ".", "", " ", "`", "a`b", "\\", "__x__", "__name__", "$.a", "['a']", '"', "'", "ção", "☃", "a\nb",
    "%", "/", "*", "~", "0", "-1", "Email", "email", "EMAIL", "x" * 900,
]  # fmt: skip
"""What columns of files may be called."""
VALUES: dict[str, Any] = {
    "text": "Zoë ☃ \x00 '\"", "none": None, "true": True, "one": 1, "real": 1.5, "large": 2**80, "list": [1, [2, [3]]],
    "map": {"__x__": {"": [None]}}, "empty": "",
}  # fmt: skip


NOBODY = Object("b", {}, START)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def pages(world: World, most: int, kind: str = PEOPLE) -> list[Object]:
    """All there are, page by page."""
    found: list[Object] = []
    while page := world.there.objects.page(kind, found[-1].id if found else "", most):
        assert len(page) <= most
        found += page
    return found


def changed(world: World, since: datetime, until: datetime, most: int = 100) -> list[Object]:
    """All that changed, page by page."""
    found: list[Object] = []
    after = None
    while page := world.there.objects.changed(PEOPLE, since, until, after, most):
        assert len(page) <= most
        found += page
        after = found[-1].changed_at, found[-1].id
    return found


class Replaces(Around):
    """Takes the fields that it is given for all that there are."""

    def put(self, kind: str, objects: Mapping[str, Mapping[str, Any]], at: datetime) -> None:
        self.inner.remove(kind, list(objects))
        self.inner.put(kind, objects, at)


class ReadsThenWrites(Around):
    """Writes all fields of an object, as they were when it looked. The writers of the check look at the same time."""

    def put(self, kind: str, objects: Mapping[str, Mapping[str, Any]], at: datetime) -> None:
        held = self.inner.get(kind, list(objects))
        self.shared.setdefault("looking", Barrier(WRITERS)).wait(PATIENCE_SECONDS)
        self.inner.put(kind, {id: {**(held[id].fields if id in held else {}), **objects[id]} for id in objects}, at)


class TouchesAll(Around):
    """Takes whatever is written for a change."""

    def put(self, kind: str, objects: Mapping[str, Mapping[str, Any]], at: datetime) -> None:
        for id, fields in objects.items():
            first = next(iter(fields), "x")
            self.inner.put(kind, {id: {first: object_of(fields.get(first))}}, at)
        self.inner.put(kind, objects, at)


class ChangesNothingAlike(Around):
    """Takes values for the same that Python takes for equal."""

    def put(self, kind: str, objects: Mapping[str, Mapping[str, Any]], at: datetime) -> None:
        held = self.inner.get(kind, list(objects))
        unlike = {id: o for id, o in objects.items() if id not in held or {**held[id].fields, **o} != held[id].fields}
        self.inner.put(kind, unlike, at)


class KeepsTheTime(Around):
    """Says of an object when it was made, not when it changed."""

    def put(self, kind: str, objects: Mapping[str, Mapping[str, Any]], at: datetime) -> None:
        made = self.shared.setdefault("made", {})
        for id, fields in objects.items():
            self.inner.put(kind, {id: fields}, made.setdefault(id, at))


class GoesBackInTime(Around):
    """Believes the clock of whoever writes."""

    def put(self, kind: str, objects: Mapping[str, Mapping[str, Any]], at: datetime) -> None:
        held = self.inner.get(kind, list(objects))
        self.inner.remove(kind, list(objects))
        whole = {id: {**(held[id].fields if id in held else {}), **fields} for id, fields in objects.items()}
        self.inner.put(kind, whole, at)


class LosesOddNames(Around):
    def put(self, kind: str, objects: Mapping[str, Mapping[str, Any]], at: datetime) -> None:
        plain = {
            id: {name: value for name, value in fields.items() if not name.startswith("__")}
            for id, fields in objects.items()
        }
        self.inner.put(kind, plain, at)


class HalfOfMany(Around):
    def put(self, kind: str, objects: Mapping[str, Mapping[str, Any]], at: datetime) -> None:
        self.inner.put(kind, dict(list(objects.items())[:500]), at)


class OfAllKinds(Around):
    """Minds no kind."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        return lambda kind, *given: method(PEOPLE, *given)


class RemovesNeighbours(Around):
    def remove(self, kind: str, ids: Sequence[str]) -> None:
        known = [each.id for each in self.inner.page(kind, "", MOST)]
        self.inner.remove(kind, [each for each in known if each.startswith(tuple(ids))])


class FieldsOfToday(Around):
    """Takes the fields of what is there for all that there ever were."""

    def fields(self, kind: str) -> list[str]:
        return list(dict.fromkeys(name for each in self.inner.page(kind, "", MOST) for name in each.fields))


def object_of(value: Any) -> Any:
    """Something else."""
    return [value]


@contract(
    breaks("does nothing", objects=without("put")),
    breaks("loses odd names", objects=LosesOddNames),
    breaks("minds no kind", objects=OfAllKinds),
    breaks("makes up what is not there", objects=answering("get", lambda found: {**found, "b": NOBODY})),
)
def check_an_object_is_kept_whole(world: World) -> None:
    ids = ["a", "A", "0", "a|b", "a\x00b", "a/b", "..", "__a__", "ção", "☃" * 400, "' \"", "-"]
    fields = {**dict.fromkeys(NAMES, "x"), **VALUES, **{f"column {number}": number for number in range(200)}}
    world.here.objects.put(PEOPLE, {id: {**fields, "id": id} for id in ids}, at(0.000001))
    wanted = {id: Object(id, {**fields, "id": id}, at(0.000001)) for id in ids}
    assert world.there.objects.get(PEOPLE, [*ids, "b"]) == wanted
    assert world.there.objects.get("other", ids) == {}
    assert world.there.objects.get(PEOPLE, []) == {}
    world.there.objects.put("bare", {"x": {}}, START)
    assert world.here.objects.get("bare", ["x"]) == {"x": Object("x", {}, START)}


@contract(breaks("takes what it is given for all", objects=Replaces))
def check_other_fields_stay_as_they_are(world: World) -> None:
    world.here.objects.put(PEOPLE, {"a": {"x": "1", "y": "1"}, "b": {"x": "1"}, "a\x00b": {"x": "2"}}, at(0))
    world.there.objects.put(PEOPLE, {"a": {"y": None}, "c": {}, "a\x00b": {"y": "2"}}, at(1))
    found = {id: each.fields for id, each in world.here.objects.get(PEOPLE, ["a", "b", "c", "a\x00b"]).items()}
    assert found == {"a": {"x": "1", "y": None}, "b": {"x": "1"}, "c": {}, "a\x00b": {"x": "2", "y": "2"}}


@contract(breaks("writes what it read", objects=ReadsThenWrites))
def check_writers_of_other_fields_do_not_undo_each_other(world: World) -> None:
    ids = [f"o{number}" for number in range(5)]

    def write(number: int) -> None:
        home = (world.here, world.there)[number % 2]
        for turn in range(8):
            home.objects.put(PEOPLE, {id: {f"field {number}": turn} for id in ids}, at(turn))

    assert errors_of(at_once(*(lambda number=number: write(number) for number in range(WRITERS)))) == []
    wanted = {f"field {number}": 7 for number in range(WRITERS)}
    assert [each.fields for each in world.here.objects.get(PEOPLE, ids).values()] == [wanted] * 5
    assert sorted(world.here.objects.fields(PEOPLE)) == sorted(wanted)


@contract(
    breaks("takes every write for a change", objects=TouchesAll),
    breaks("keeps the time", objects=KeepsTheTime),
    breaks("takes one for true", objects=ChangesNothingAlike),
)
def check_an_object_says_when_it_changed_and_not_when_it_was_written(world: World) -> None:
    put = world.here.objects.put

    def changed_at() -> float:
        return (world.there.objects.get(PEOPLE, ["a"])["a"].changed_at - START).total_seconds()

    put(PEOPLE, {"a": dict(VALUES)}, at(0))
    for same in (dict(VALUES), {"one": 1}, {}):
        put(PEOPLE, {"a": same}, at(1))
        assert changed_at() == 0
    for second, fields in enumerate(({"one": True}, {"new": None}, {"list": [1, [2]]}, {"text": ""}), start=2):
        put(PEOPLE, {"a": fields, "b": {}}, at(second))
        assert changed_at() == second


@contract(breaks("believes every clock", objects=GoesBackInTime))
def check_of_two_changes_of_an_object_the_second_is_the_later_one_whatever_the_clocks_say(world: World) -> None:
    world.here.objects.put(PEOPLE, {"a": {"x": 1}}, at(5))
    for turn, second in enumerate((5, 3, 5), start=1):
        world.there.objects.put(PEOPLE, {"a": {"x": str(turn)}}, at(second))
        (found,) = world.here.objects.get(PEOPLE, ["a"]).values()
        assert (found.fields["x"], found.changed_at) == (str(turn), at(5 + turn / 1_000_000))
        assert changed(world, at(5), END) == [found]


@contract(breaks("writes half of many", objects=HalfOfMany))
def check_as_many_as_a_call_takes_are_written_whatever_their_size(world: World) -> None:
    objects = {f"o{number}": {"number": number, "text": "☃" * 2000} for number in range(MOST)}
    world.here.objects.put(PEOPLE, objects, START)
    found = world.there.objects.get(PEOPLE, list(objects))
    assert {id: each.fields for id, each in found.items()} == objects
    by_number = world.there.objects.find(PEOPLE, "number", [str(number) for number in range(MOST)])
    assert by_number == {str(number): [f"o{number}"] for number in range(MOST)}
    assert len(world.there.objects.page(PEOPLE, "", MOST)) == MOST
    world.here.objects.remove(PEOPLE, list(objects))
    assert world.there.objects.page(PEOPLE, "", MOST) == []


@contract(
    breaks("removes nothing", objects=without("remove")),
    breaks("removes neighbours", objects=RemovesNeighbours),
)
def check_a_removed_object_is_nowhere_and_its_neighbours_stay(world: World) -> None:
    ids = ["a", "aa", "a|b", "b"]
    world.here.objects.put(PEOPLE, {id: {"email": id} for id in ids}, START)
    world.here.objects.put("other", {"a": {}}, START)
    world.there.objects.remove(PEOPLE, ["a", "nobody's", "a"])
    world.there.objects.remove(PEOPLE, [])
    assert sorted(world.here.objects.get(PEOPLE, ids)) == ids[1:]
    assert sorted(each.id for each in pages(world, 3)) == ids[1:]
    assert sorted(each.id for each in changed(world, START, END)) == ids[1:]
    assert sorted(world.here.objects.find(PEOPLE, "email", ids)) == ids[1:]
    assert list(world.here.objects.get("other", ["a"])) == ["a"]
    world.here.objects.put(PEOPLE, {"a": {"new": 1}}, at(1))
    assert world.there.objects.get(PEOPLE, ["a"]) == {"a": Object("a", {"new": 1}, at(1))}


@contract(
    breaks("tells of today", objects=FieldsOfToday),
    breaks("orders them", objects=answering("fields", sorted)),
    breaks("minds no kind", objects=OfAllKinds),
    breaks("loses odd names", objects=LosesOddNames),
)
def check_all_fields_that_came_up_are_known_in_their_order(world: World) -> None:
    assert world.here.objects.fields(PEOPLE) == []
    world.here.objects.put(PEOPLE, {"a": {"z": 1, "b": 1}, "b": {"z": 1, "a": 1}}, START)
    world.there.objects.put(PEOPLE, {"c": {"z": 1, **dict.fromkeys(NAMES, 1)}}, START)
    world.here.objects.put("other", {"c": {"q": 1}}, START)
    world.here.objects.put(PEOPLE, {"b": {"last": 1}}, START)
    world.there.objects.remove(PEOPLE, ["b", "c"])
    for home in (world.here, world.there):
        assert home.objects.fields(PEOPLE) == ["z", "b", "a", *NAMES, "last"]
