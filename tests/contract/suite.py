"""How checks are registered: a function of a world, and the wrong twins on which it has to fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from shared.ports import Home
from tests.contract.homes import Consumer, Trait

if TYPE_CHECKING:
    from tests.contract.world import World

PATIENCE_SECONDS = 60.0
"""After so long a condition that has to come true is given up."""


class Around:
    """A port that keeps its promises, to be broken by a subclass. `shared` is common to all processes of one world."""

    def __init__(self, inner: Any, home: Home, shared: dict[Any, Any]) -> None:
        self.inner = inner
        self.home = home
        self.shared = shared

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@dataclass(frozen=True)
class Wrong:
    """A home that breaks one promise. `error` is what a check ends with on it."""

    what: str
    parts: dict[str, type[Around]]
    error: type[Exception] = AssertionError


class Twin:
    """One wrong home in one world: every process of it breaks the same promise."""

    def __init__(self, wrong: Wrong | None) -> None:
        self._parts = dict(wrong.parts) if wrong is not None else {}
        self._consumer = self._parts.pop("consumer", None)
        self._shared: dict[Any, Any] = {}

    def home(self, right: Home) -> Home:
        broken = {name: part(getattr(right, name), right, self._shared) for name, part in self._parts.items()}
        return msgspec.structs.replace(right, **broken)

    def consumer(self, right: Consumer, home: Home) -> Consumer:
        return right if self._consumer is None else self._consumer(right, home, self._shared)


@dataclass(frozen=True)
class Check:
    """One promise of the ports."""

    run: Callable[[World], None]
    wrong: tuple[Wrong, ...]
    needs: frozenset[Trait]

    @property
    def name(self) -> str:
        port = self.run.__module__.rpartition(".check_")[2]
        return f"{port}: {self.run.__name__.removeprefix('check_').replace('_', ' ')}"


CHECKS: list[Check] = []


def contract(
    *wrong: Wrong, needs: tuple[Trait, ...] = ()
) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    """Registers a check with the twins that must fail it."""

    def register(run: Callable[[World], None]) -> Callable[[World], None]:
        CHECKS.append(Check(run, wrong, frozenset(needs)))
        return run

    return register


def breaks(what: str, *, error: type[Exception] = AssertionError, **parts: type[Around]) -> Wrong:
    """A twin that is wrong in some ports (or in its `consumer`) and right in the others."""
    return Wrong(what, parts, error)


def without(method: str) -> type[Around]:
    """A port with one method that does nothing."""
    return type("Without", (Around,), {method: lambda self, *_, **__: None})


def altered(method: str, **arguments: Any) -> type[Around]:
    """A port with one method that takes these arguments for what it was given."""

    def call(self: Around, *given: Any, **named: Any) -> Any:
        return getattr(self.inner, method)(*given, **(named | {n: v for n, v in arguments.items() if n in named}))

    return type("Altered", (Around,), {method: call})


def answering(method: str, change: Callable[[Any], Any]) -> type[Around]:
    """A port with one method whose answer is changed."""
    return type("Answering", (Around,), {method: lambda self, *a, **n: change(getattr(self.inner, method)(*a, **n))})


def swallowing(method: str, error: type[Exception]) -> type[Around]:
    """A port with one method that says nothing of an error."""

    def call(self: Around, *given: Any, **named: Any) -> Any:
        try:
            return getattr(self.inner, method)(*given, **named)
        except error:
            return None

    return type("Swallowing", (Around,), {method: call})


@contextmanager
def refused(error: type[Exception]) -> Iterator[None]:
    """What happens inside has to end with this error."""
    try:
        yield
    except error:
        return
    raise AssertionError(f"it was not refused with {error.__name__}")


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Runs all of them side by side in threads; gives what each returned or raised."""
    barrier = threading.Barrier(len(works))
    results: list[Any] = [None] * len(works)

    def run(place: int, work: Callable[[], Any]) -> None:
        barrier.wait()
        try:
            results[place] = work()
        except Exception as error:
            results[place] = error

    threads = [threading.Thread(target=run, args=each, daemon=True) for each in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive(), "a thread does not come to an end"
    return results


def errors_of(results: list[Any]) -> list[Exception]:
    return [result for result in results if isinstance(result, Exception)]


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Waits until the condition holds, and gives what it gave."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.002)
    raise AssertionError(f"in vain waited for: {what}")
