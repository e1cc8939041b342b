"""`tests/bench/snapshot_rows.py` on fewer rows: snapshots take no more memory where there is more to carry."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.measure import Used
from tests.bench.snapshot_rows import MOST_MB, Done, measure, table

FEW, MANY = 8_000, 48_000
DAYS = 20
"""All of them are in one month: its file is one."""
GROWTH_MB = 20.0
"""Of all that is kept in the memory of a database or a program until there is no more room for it."""


def test_six_times_the_rows_take_no_more_memory(tmp_path: Path) -> None:
    few = {done.what: done for done in measure(tmp_path / "few", FEW, DAYS)}
    many = {done.what: done for done in measure(tmp_path / "many", MANY, DAYS)}
    assert set(many) == {"export", "examine", "import", "incremental"}
    for what, done in many.items():
        assert done.met, list(table([done]))
        assert 10 < done.used.peak_mb < few[what].used.peak_mb + GROWTH_MB, what
    assert many["import"].rows == many["export"].rows > MANY
    assert many["incremental"].rows == 0


@pytest.mark.parametrize(
    ("peak", "status", "verdict"), [(MOST_MB - 1, 0, "met"), (MOST_MB, 0, "MISSED"), (10.0, 1, "MISSED")]
)
def test_a_broken_limit_is_said(peak: float, status: int, verdict: str) -> None:
    done = Done("export", 1_000, 10**6, Used(2.0, 1.0, peak, status))
    assert done.met is (verdict == "met")
    assert verdict in list(table([done]))[1]
