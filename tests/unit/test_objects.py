"""The hub's own store of objects against a dict, whatever is done to both and in whatever order."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.local.home import EmbeddedHome
from shared.objects import Object, Objects, text_of
from tests.contract.world import START

KINDS = st.sampled_from(["people", "orders"])
IDS = st.sampled_from(["a", "A", "a\x00b", "10", "9"])
NAMES = st.sampled_from(["email", "Email", "a.b"])
TEXTS = ["a", "a\x00b", "1", "-5", "01", "1.0", "true", "null", '"']
VALUES = st.sampled_from([*TEXTS, 1, True, 1.0, -5, None, [1], [True], {"a": 0.5}])
PUT = st.tuples(
    st.just("put"), KINDS, st.dictionaries(IDS, st.dictionaries(NAMES, VALUES, max_size=3), min_size=1, max_size=6)
)
REMOVE = st.tuples(st.just("remove"), KINDS, st.lists(IDS, max_size=3))
Step = tuple[str, str, Any]


class Model:
    """What the store has to be."""

    def __init__(self) -> None:
        self.kinds: dict[str, dict[str, Object]] = {"people": {}, "orders": {}}
        self.names: dict[str, list[str]] = {"people": [], "orders": []}

    def put(self, kind: str, objects: dict[str, dict[str, Any]], at: datetime) -> None:
        held = self.kinds[kind]
        for id, fields in objects.items():
            before = held.get(id)
            after = {**(before.fields if before is not None else {}), **fields}
            if before is None:
                held[id] = Object(id, after, at)
            elif json.dumps(before.fields) != json.dumps(after):
                held[id] = Object(id, after, max(at, before.changed_at + timedelta(microseconds=1)))
        names = [*self.names[kind], *(name for fields in objects.values() for name in fields)]
        self.names[kind] = list(dict.fromkeys(names))

    def remove(self, kind: str, ids: list[str]) -> None:
        for id in ids:
            self.kinds[kind].pop(id, None)

    def found(self, kind: str, field: str, value: str) -> set[str]:
        held = self.kinds[kind].values()
        return {each.id for each in held if field in each.fields and text_of(field, each.fields[field]) == value}


def all_pages(page: Callable[[Any], list[Object]], behind: Callable[[Object], Any], first: Any) -> list[Object]:
    found: list[Object] = []
    while part := page(behind(found[-1]) if found else first):
        found += part
        assert len(found) < 100, "it does not come to an end"
    return found


def compare(objects: Objects, model: Model, kind: str, since: datetime, until: datetime) -> None:
    held = model.kinds[kind]
    assert objects.get(kind, [*held, "nobody's"]) == held
    assert objects.fields(kind) == model.names[kind]
    for field in ("email", "Email"):
        found = objects.find(kind, field, TEXTS)
        assert all(found.values())
        for value in TEXTS:
            right = model.found(kind, field, value)
            ids = found.get(value, [])
            assert (len(ids), set(ids) <= right) == (min(2, len(right)), True)
    order = [each.id for each in all_pages(lambda after: objects.page(kind, after, 2), lambda each: each.id, "")]
    assert (len(order), set(order)) == (len(held), set(held))
    changed = all_pages(
        lambda after: objects.changed(kind, since, until, after, 2), lambda each: (each.changed_at, each.id), None
    )
    right_now = [each for each in held.values() if since <= each.changed_at < until]
    assert changed == sorted(right_now, key=lambda each: (each.changed_at, order.index(each.id)))


@settings(max_examples=200)
@given(st.lists(st.one_of(PUT, PUT, PUT, REMOVE), min_size=4, max_size=16), st.data())
def test_the_store_holds_what_a_dict_would(steps: list[Step], data: st.DataObject) -> None:
    model = Model()
    with tempfile.TemporaryDirectory() as folder:
        homes = [EmbeddedHome(Path(folder)) for _ in range(2)]
        for number, (what, kind, given) in enumerate(steps):
            home = homes[number % 2]
            at = START + timedelta(seconds=data.draw(st.integers(0, 5), label="at"))
            if what == "put":
                home.ports.objects.put(kind, given, at)
                model.put(kind, given, at)
            else:
                home.ports.objects.remove(kind, given)
                model.remove(kind, given)
        since = START + timedelta(seconds=data.draw(st.integers(0, 3), label="since"))
        for kind in model.kinds:
            compare(homes[0].ports.objects, model, kind, since, since + timedelta(seconds=2))
        for home in homes:
            home.close()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        ("", ""),
        (12, "12"),
        (-5, "-5"),
        (2**80, str(2**80)),
        (True, None),
        (1.0, None),
        (None, None),
        ([], None),
    ],
)
def test_texts_and_whole_numbers_can_be_asked_for(value: Any, text: str | None) -> None:
    assert text_of("email", value) == text
    assert text_of("a.b", value) is None
