"""What several rules need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def differences(what: str, found: Iterable[str], expected: Iterable[str]) -> Iterator[str]:
    """What is there and should not be, and the other way round."""
    here, there = set(found), set(expected)
    if here - there:
        yield f"{what}: {', '.join(sorted(here - there))} should not be there"
    if there - here:
        yield f"{what}: {', '.join(sorted(there - here))} missing"
