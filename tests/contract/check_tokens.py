"""Tokens: kept as they were made, and once revoked good for nothing."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import Any

import msgspec

from shared.tokens import ID_BYTES, SALT_BYTES, SECRET_BYTES, Token, is_one_of, made_of
from tests.contract.make import CUSTOMERS, SHOP
from tests.contract.suite import Around, answering, at_once, breaks, contract, without
from tests.contract.world import START, World

LATER = START + timedelta(days=1, microseconds=3)


def made(number: int, stream: str = CUSTOMERS, integration: str = SHOP) -> tuple[str, Token]:
    """The text of a token and what is stored of it: the smaller its id, the later it is made."""
    random = bytes([255 - number]) * (ID_BYTES + SECRET_BYTES) + bytes(range(SALT_BYTES))
    return made_of(random, integration, stream, START + timedelta(seconds=number))


class OnlyMarks(Around):
    """Says of a token that it is revoked, and keeps what it is known by."""

    def of(self, integration: str, stream: str) -> list[Token]:
        found: list[Token] = self.inner.of(integration, stream)
        known = self.shared.setdefault("known", {})
        for token in found:
            known.setdefault(token.id, token)
        return [msgspec.structs.replace(t, salt=known[t.id].salt, digest=known[t.id].digest) for t in found]


class RevokesAll(Around):
    def revoke(self, integration: str, stream: str, id: str, at: datetime) -> bool:
        known = self.inner.of(integration, stream)
        return max([self.inner.revoke(integration, stream, token.id, at) for token in known], default=False)


class LooksFirst(Around):
    """Looks whether a token is valid, and revokes it then."""

    def revoke(self, integration: str, stream: str, id: str, at: datetime) -> bool:
        valid = [t for t in self.inner.of(integration, stream) if t.id == id and t.revoked_at is None]
        self.inner.revoke(integration, stream, id, at)
        return bool(valid)


class RevokesAnybodys(Around):
    """Minds the id alone."""

    def revoke(self, integration: str, stream: str, id: str, at: datetime) -> bool:
        return max([self.inner.revoke(SHOP, each, id, at) for each in (CUSTOMERS, "others")])


class OfAll(Around):
    """Takes the tokens of all streams for those of one."""

    def of(self, integration: str, stream: str) -> list[Token]:
        return [*self.inner.of(SHOP, CUSTOMERS), *self.inner.of(SHOP, "others")]


def unsalted(found: Any) -> list[Token]:
    return [msgspec.structs.replace(token, salt=b"") for token in found]


def valid_alone(found: Any) -> list[Token]:
    return [token for token in found if token.revoked_at is None]


@contract(
    breaks("adds nothing", tokens=without("add")),
    breaks("gives the newest first", tokens=answering("of", lambda found: list(reversed(found)))),
    breaks("orders by id", tokens=answering("of", lambda found: sorted(found, key=lambda token: token.id))),
    breaks("loses the salt", tokens=answering("of", unsalted)),
    breaks("gives the tokens of all streams", tokens=OfAll),
)
def check_tokens_are_kept_as_they_were_made(world: World) -> None:
    tokens = [made(number) for number in range(4)]
    for text, token in tokens:
        world.here.tokens.add(token)
        assert is_one_of(text, world.there.tokens.of(SHOP, CUSTOMERS))
    world.here.tokens.add(made(9, "others")[1])
    assert world.there.tokens.of(SHOP, CUSTOMERS) == [token for _, token in tokens]
    assert world.there.tokens.of("market", CUSTOMERS) == []


@contract(
    breaks("revokes nothing", tokens=without("revoke")),
    breaks("keeps what a token is known by", tokens=OnlyMarks),
    breaks("revokes all", tokens=RevokesAll),
    breaks("forgets the revoked", tokens=answering("of", valid_alone)),
    breaks("says nothing of it", tokens=answering("revoke", lambda _: None)),
)
def check_nothing_matches_a_revoked_token(world: World) -> None:
    (first, one), (second, two) = made(1), made(2)
    for token in (one, two):
        world.here.tokens.add(token)
    assert world.there.tokens.of(SHOP, CUSTOMERS) == [one, two]
    assert world.here.tokens.revoke(SHOP, CUSTOMERS, one.id, LATER) is True
    wiped = Token(SHOP, CUSTOMERS, one.id, b"", b"", one.made_at, LATER)
    assert world.there.tokens.of(SHOP, CUSTOMERS) == [wiped, two]
    assert not is_one_of(first, world.there.tokens.of(SHOP, CUSTOMERS))
    assert is_one_of(second, world.there.tokens.of(SHOP, CUSTOMERS))


@contract(
    breaks("says yes to all", tokens=answering("revoke", lambda _: True)),
    breaks("minds no stream", tokens=RevokesAnybodys),
)
def check_only_a_valid_token_of_that_stream_is_revoked(world: World) -> None:
    _, token = made(1)
    world.here.tokens.add(token)
    revoke = world.there.tokens.revoke
    assert revoke(SHOP, CUSTOMERS, made(2)[1].id, LATER) is False
    assert revoke(SHOP, "others", token.id, LATER) is False
    assert world.here.tokens.of(SHOP, CUSTOMERS) == [token]
    assert revoke(SHOP, CUSTOMERS, token.id, LATER) is True
    assert revoke(SHOP, CUSTOMERS, token.id, LATER + timedelta(days=1)) is False
    assert [each.revoked_at for each in world.here.tokens.of(SHOP, CUSTOMERS)] == [LATER]


@contract(breaks("looks first and revokes then", tokens=LooksFirst))
def check_of_those_who_revoke_a_token_at_once_one_did(world: World) -> None:
    for number in range(12):
        _, token = made(number)
        world.here.tokens.add(token)
        homes = (world.here, world.there) * 3
        works = [partial(home.tokens.revoke, SHOP, CUSTOMERS, token.id, LATER) for home in homes]
        assert sorted(at_once(*works)) == [False] * 5 + [True]
