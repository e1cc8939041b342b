"""Writing the hub's own store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple

from infra.systems import Connection
from infra.systems.store.source import SYSTEM, version_of
from shared.ends import Change
from shared.errors import BAD_IDENTITY, NO_SUCH_CUSTOMER, ConfigError, StoreUnavailable, TransientError
from shared.kinds import CUSTOMERS, identity_text, object_id
from shared.objects import Object, Objects, check_findable, text_of
from shared.outcome import Absent, Answer, Found, InDoubt, Probe, Verdict, delivered, rejected
from shared.record import content_hash

BULK: Final = 500
RESULTS: Final = "campaign_results"


class Place(NamedTuple):
    """Where a change goes: the object, and what is put there. `refused` says why it goes nowhere."""

    id: str
    fields: dict[str, Any]
    refused: Verdict | None = None
    is_ambiguous: bool = False


class Store:
    """The sink of the objects of a kind."""

    system = SYSTEM
    bulk = BULK

    def __init__(self, connection: Connection, kind: str) -> None:
        self._connection = connection
        self._kind = kind
        self._match = str(connection.options.get("match") or "")
        self._creates = connection.options.get("unmatched") == "create"
        if self._match:
            check_findable(self._match)
        if self._creates and kind != CUSTOMERS:
            raise ConfigError("only customers are made of what matches nobody", cure="remove unmatched: create")

    @cached_property
    def _objects(self) -> Objects:
        """When there is something to write: whoever only checks the configuration makes no home."""
        return self._connection.own_home().objects

    def repeatable(self, change: Change) -> bool:
        return change.operation != "delete" or not self._is_matched(change)

    def find(self, changes: Sequence[Change]) -> Sequence[Probe]:
        try:
            places = self._places(changes)
            held = self._objects.get(self._kind, list({place.id for place in places if place.id}))
        except StoreUnavailable as error:
            raise _unavailable(error) from error
        return [_probe(change, place, held) for change, place in zip(changes, places, strict=True)]

    def write(self, changes: Sequence[Change]) -> Sequence[Answer | None]:
        try:
            places = self._places(changes)
        except StoreUnavailable as error:
            raise _unavailable(error) from error
        removed: list[str] = []
        put: dict[str, dict[str, Any]] = {}
        for change, place in zip(changes, places, strict=True):
            if place.refused is None and change.operation == "delete":
                removed.append(place.id)
            elif place.refused is None:
                put[place.id] = {**put.get(place.id, {}), **place.fields}
        # An object that goes under one key and comes under another is there in the end.
        removal = _carried_out(removed, lambda: self._objects.remove(self._kind, removed))
        putting = _carried_out(put, lambda: self._objects.put(self._kind, put, self._connection.clock.now()))
        return [
            place.refused or (removal if change.operation == "delete" else putting) or delivered(place.id)
            for change, place in zip(changes, places, strict=True)
        ]

    def close(self) -> None:
        pass

    def _is_matched(self, change: Change) -> bool:
        """Whoever asks about a key alone, as an audit does, has no content."""
        return bool(self._match and change.content)

    def _places(self, changes: Sequence[Change]) -> list[Place]:
        """Raises StoreUnavailable."""
        values = {self._value(change) for change in changes if self._is_matched(change)} - {""}
        found = self._objects.find(CUSTOMERS, self._match, sorted(values)) if values else {}
        named = [text_of("id", change.content.get("id")) for change in changes if self._creates]
        taken = self._objects.get(CUSTOMERS, [id for id in named if id])
        return [
            self._matched(change, found.get(self._value(change), []), taken)
            if self._is_matched(change)
            else self._named(change)
            for change in changes
        ]

    def _value(self, change: Change) -> str:
        """By which the customer is found, empty for what nobody is found by."""
        return text_of(self._match, change.content.get(self._match)) or ""

    def _named(self, change: Change) -> Place:
        """By the customer's id in the content."""
        content = change.content
        if not content:
            return Place(change.target_id or change.key, {})
        try:
            customer = identity_text(content.get("id"))
            return Place(self._id(change, customer), content)
        except ValueError as error:
            return _malformed(error)

    def _matched(self, change: Change, customers: Sequence[str], taken: Collection[str]) -> Place:
        """By the customer who has the value. One who is made takes nobody's id."""
        fields = {name: each for name, each in change.content.items() if name != "id"}
        try:
            if len(customers) == 1 and self._kind == CUSTOMERS:
                return Place(customers[0], fields)
            if len(customers) == 1:
                # What it was found by is the customer's, and may change there.
                del fields[self._match]
                return Place(self._id(change, customers[0]), {"id": customers[0], **fields})
            if not customers and self._value(change) and self._creates and change.operation != "delete":
                made = identity_text(change.content.get("id")) or self._value(change)
                if made in taken:
                    reason = f"no customer has this {self._match}, and the id is another one's"
                    return Place("", {}, rejected(NO_SUCH_CUSTOMER, reason))
                return Place(made, {"id": made, **fields})
        except ValueError as error:
            return _malformed(error)
        who = "more than one customer has" if customers else "no customer has"
        reason = f"{who} this {self._match}" if self._value(change) else f"there is no {self._match}"
        return Place("", {}, rejected(NO_SUCH_CUSTOMER, reason), is_ambiguous=len(customers) > 1)

    def _id(self, change: Change, customer: str) -> str:
        if self._kind == RESULTS or not customer:
            return change.key
        return object_id(self._kind, customer, change.content)


def _probe(change: Change, place: Place, held: dict[str, Object]) -> Probe:
    if place.is_ambiguous:
        # They are there, and whoever is sent the change says that it cannot be carried out.
        return Found("", same=False)
    found = held.get(place.id)
    if found is None:
        return Absent()
    same: bool | None = None
    if change.operation == "delete":
        same = False
    elif place.fields:
        there = {name: found.fields[name] for name in place.fields if name in found.fields}
        same = content_hash(there) == content_hash(place.fields)
    return Found(found.id, same, found.fields, version=version_of(found))


def _malformed(error: ValueError) -> Place:
    return Place("", {}, rejected(BAD_IDENTITY, f"a part of its identity is {error}"))


def _carried_out(what: Any, work: Callable[[], None]) -> InDoubt | None:
    """None where it was, or nothing is to be done."""
    try:
        if what:
            work()
    except StoreUnavailable as error:
        return InDoubt(f"the store did not say that it is written: {error}")
    return None


def _unavailable(error: StoreUnavailable) -> TransientError:
    return TransientError(f"the store does not answer: {error}")
