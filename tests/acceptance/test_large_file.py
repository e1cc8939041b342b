"""`make bench-file` on files of a few megabytes: it measures what it says, and says so if a limit is broken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.large_file import MOST_MB, NARROW, WIDE, Done, narrow, table, wide, write
from tests.bench.measure import ROOT, Used


def test_a_small_file_is_read_and_travels() -> None:
    command = [sys.executable, "-m", "tests.bench.large_file", "--gigabytes", "0.004"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    _, reading, run = done.stdout.splitlines()
    assert reading.split()[-1] == run.split()[-1] == "met"


def test_rows_are_as_large_as_they_are_said_to_be_and_different_but_for_the_repeats(tmp_path: Path) -> None:
    for header, row_of, low, high, repeats in ((NARROW, narrow, 95, 110, 2), (WIDE, wide, 1_950, 2_100, 0)):
        path = tmp_path / "a.csv"
        count = write(path, low * 2_000 - 1_000, header, row_of)
        rows = path.read_text(encoding="utf8").splitlines()[1:]
        assert len(rows) == count == 2_000
        assert low < path.stat().st_size / count < high
        assert len(set(rows)) == count - repeats


@pytest.mark.parametrize(
    ("peak", "right", "verdict"),
    [(MOST_MB - 1, True, "met"), (MOST_MB, True, "MISSED"), (10.0, False, "FAILED (exit 1)")],
)
def test_a_broken_limit_is_said(peak: float, right: bool, verdict: str) -> None:
    done = Done("a run", 10**9, 1_000, right, Used(2.0, 1.0, peak, 1))
    assert done.met is (verdict == "met")
    assert list(table([done]))[1].endswith(f"  {verdict}")
