"""Leases: one holder per name, and whoever was overtaken stays so."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from shared.errors import Fenced, Leased
from shared.ports import Home, Lease
from tests.contract.suite import Around, answering, at_once, breaks, contract, errors_of, refused, swallowing, without
from tests.contract.world import World

NAME = "shop.customers"


class ForEverybody(Around):
    def take(self, name: str) -> Lease:
        try:
            lease: Lease = self.inner.take(name)
        except Leased:
            return Lease(name, 1_000_000, "anybody")
        return lease


class ForOnePerProcess(Around):
    """Knows what its own process holds, and not what others do."""

    def take(self, name: str) -> Lease:
        held = self.__dict__.setdefault("held", set())
        if name in held:
            raise Leased("mine")
        held.add(name)
        try:
            lease: Lease = self.inner.take(name)
        except Leased:
            return Lease(name, 1_000_000, "anybody")
        return lease


class TokenStays(Around):
    def take(self, name: str) -> Lease:
        lease: Lease = self.inner.take(name)
        self.shared[name] = lease
        return msgspec.structs.replace(lease, token=1)

    def release(self, lease: Lease) -> None:
        self.inner.release(self.shared[lease.name])


class HeldForEver(Around):
    def take(self, name: str) -> Lease:
        if name in self.shared:
            raise Leased("it was taken once", holder="a ghost")
        try:
            lease: Lease = self.inner.take(name)
        except Leased:
            self.shared[name] = True
            raise
        return lease


class ReleasesWhomever(Around):
    def take(self, name: str) -> Lease:
        lease: Lease = self.inner.take(name)
        self.shared[name] = lease
        return lease

    def release(self, lease: Lease) -> None:
        self.inner.release(self.shared[lease.name])


class RenewsByLettingGo(Around):
    def renew(self, lease: Lease) -> None:
        self.inner.release(lease)


def overtaken(world: World) -> tuple[Lease, Lease]:
    """A lease of `here`, which was taken for dead, and the later one of `there`."""
    stale = world.here.leases.take(NAME)
    world.take_here_for_dead()
    return stale, world.there.leases.take(NAME)


@contract(
    breaks("lets everybody in", leases=ForEverybody),
    breaks("looks at its own process only", leases=ForOnePerProcess),
)
def check_a_held_lease_is_refused_within_the_process_and_to_others(world: World) -> None:
    world.here.leases.take(NAME)
    for home in (world.here, world.there):
        with refused(Leased):
            home.leases.take(NAME)
    world.there.leases.take("shop.tasks")


@contract(
    breaks("lets everybody in", leases=ForEverybody),
    breaks("looks at its own process only", leases=ForOnePerProcess),
)
def check_of_many_takers_at_once_one_wins(world: World) -> None:
    results = at_once(*(partial(home.leases.take, NAME) for home in (world.here, world.there) * 4))
    assert len(results) - len(errors_of(results)) == 1
    assert {type(error) for error in errors_of(results)} == {Leased}


@contract(breaks("gives everybody the same token", leases=TokenStays))
def check_the_token_grows_with_each_taker(world: World) -> None:
    tokens = []
    for home in (world.here, world.here, world.there, world.here):
        lease = home.leases.take(NAME)
        tokens.append(lease.token)
        home.leases.release(lease)
    assert tokens == sorted(set(tokens))


@contract(breaks("forgets the release", leases=without("release"), error=Leased))
def check_a_released_lease_is_free(world: World) -> None:
    for home in (world.here, world.there, world.here):
        home.leases.release(home.leases.take(NAME))


@contract(breaks("never lets go of the dead", leases=HeldForEver, error=Leased))
def check_death_frees_a_lease(world: World) -> None:
    child = world.child("take_lease", name=NAME)
    token = child.said["token"]
    with refused(Leased):
        world.here.leases.take(NAME)
    world.kill(child)
    assert world.here.leases.take(NAME).token > token


@contract(breaks("renews whatever it is shown", leases=swallowing("renew", Fenced)))
def check_a_stale_lease_is_not_renewed(world: World) -> None:
    stale, newer = overtaken(world)
    with refused(Fenced):
        world.here.leases.renew(stale)
    world.there.leases.renew(newer)


@contract(breaks("releases whoever holds it", leases=ReleasesWhomever))
def check_a_stale_release_leaves_the_later_holder_alone(world: World) -> None:
    stale, newer = overtaken(world)
    world.here.leases.release(stale)
    with refused(Leased):
        world.here.leases.take(NAME)
    world.there.leases.renew(newer)


@contract(breaks("lets go when it is asked to renew", leases=RenewsByLettingGo))
def check_a_renewed_lease_stays_held(world: World) -> None:
    lease = world.here.leases.take(NAME)
    for _ in range(10):
        world.clock.advance(20)
        world.here.leases.renew(lease)
    with refused(Leased):
        world.there.leases.take(NAME)


@contract(
    breaks("tells nobody", leases=answering("holder", lambda _: None)),
    breaks("names somebody always", leases=answering("holder", lambda _: "somebody")),
)
def check_people_are_told_who_holds_it(world: World) -> None:
    def told(home: Home) -> Any:
        return home.leases.holder(NAME)

    assert told(world.here) is None
    lease = world.here.leases.take(NAME)
    assert told(world.here)
    assert told(world.there) == told(world.here)
    world.here.leases.release(lease)
    assert told(world.there) is None


@contract(breaks("does not say who", leases=answering("take", lambda lease: msgspec.structs.replace(lease, holder=""))))
def check_a_refusal_names_the_holder(world: World) -> None:
    lease = world.here.leases.take(NAME)
    assert lease.holder
    try:
        world.there.leases.take(NAME)
    except Leased as error:
        assert error.holder == lease.holder == world.there.leases.holder(NAME)
    else:
        raise AssertionError("it was not refused")
