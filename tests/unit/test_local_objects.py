"""What the embedded store of objects does to find one."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.local.home import EmbeddedHome
from tests.unit.fakes import FakeClock, spare_the_disk


def steps(home: EmbeddedHome, value: str) -> int:
    """How many hundreds of steps SQLite takes to find a value, which two have."""
    taken: list[int] = []
    with home.state.reading() as connection:
        connection.set_progress_handler(lambda: taken.append(1), 100)
    assert home.ports.objects.find("customers", "email", [value, "nobody's"]) == {value: ["1", "3"]}
    with home.state.reading() as connection:
        connection.set_progress_handler(None, 0)
    return len(taken)


def test_finding_by_a_value_takes_no_longer_among_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spare_the_disk(monkeypatch)
    clock = FakeClock()
    home = EmbeddedHome(tmp_path, clock)
    put = home.ports.objects.put
    put("customers", {id: {"email": "a@example.com"} for id in ("3", "1")}, clock.now())
    few = steps(home, "a@example.com")
    for start in range(1000, 4000, 1000):
        put("customers", {str(n): {"email": f"{n}@example.com"} for n in range(start, start + 1000)}, clock.now())
    assert steps(home, "a@example.com") <= few + 5
    home.close()
