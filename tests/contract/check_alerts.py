"""Alerts: people hear of a change once."""

from __future__ import annotations

from collections.abc import Callable

from shared.ports import Home
from tests.contract.suite import Around, answering, at_once, breaks, contract, without
from tests.contract.world import World

NAME = "shop.customers.failing"


class OneForAll(Around):
    """Knows one alert only."""

    def change(self, name: str, raised: bool, text: str) -> bool:
        changed: bool = self.inner.change("the alert", raised, text)
        return changed


class PerProcess(Around):
    """Remembers in its own process what is up."""

    def change(self, name: str, raised: bool, text: str) -> bool:
        known = self.__dict__.setdefault("known", {})
        changed = known.get(name, False) != raised
        known[name] = raised
        self.inner.change(name, raised, text)
        return bool(changed)


@contract(
    breaks("tells always", alerts=answering("change", lambda _: True)),
    breaks("tells never", alerts=answering("change", lambda _: False)),
    breaks("knows its own process only", alerts=PerProcess),
    breaks("knows one alert", alerts=OneForAll),
)
def check_an_alert_changes_once(world: World) -> None:
    here, there = world.here.alerts, world.there.alerts
    for _ in range(2):
        assert not here.change(NAME, False, "well")
        assert here.change(NAME, True, "3 runs failed in a row")
        assert not here.change(NAME, True, "4 runs failed in a row")
        assert not there.change(NAME, True, "5 runs failed in a row")
        assert there.change("shop.tasks.failing", True, "others too")
        assert there.change(NAME, False, "well again")
        assert not here.change(NAME, False, "well again")
        assert here.change("shop.tasks.failing", False, "well")


@contract(
    breaks("does nothing", alerts=without("change")),
    breaks("shows nothing", alerts=answering("raised", lambda _: {})),
    breaks("shows no texts", alerts=answering("raised", lambda found: dict.fromkeys(found, ""))),
    breaks("shows what was cleared", alerts=answering("raised", lambda found: found | {NAME: "it fails"})),
)
def check_what_is_up_is_shown_with_its_text(world: World) -> None:
    here, there = world.here.alerts, world.there.alerts
    assert there.raised() == {}
    here.change(NAME, True, "it fails")
    here.change("Zoë/☃", True, 'odd "text"')
    assert there.raised() == {NAME: "it fails", "Zoë/☃": 'odd "text"'}
    there.change(NAME, False, "well")
    assert here.raised() == {"Zoë/☃": 'odd "text"'}


@contract(
    breaks("tells always", alerts=answering("change", lambda _: True)),
    breaks("knows its own process only", alerts=PerProcess),
)
def check_of_many_that_raise_it_at_once_one_tells(world: World) -> None:
    def raises(home: Home) -> Callable[[], bool]:
        return lambda: home.alerts.change(NAME, True, "it fails")

    results = at_once(*(raises(home) for home in (world.here, world.there) * 4))
    assert sorted(results) == [False] * 7 + [True]
