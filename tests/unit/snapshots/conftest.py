"""Two embedded installations: one to take snapshots of, and one that they are brought into."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.fakes import spare_the_disk
from tests.unit.installations import Installation


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    spare_the_disk(monkeypatch)
    installation = Installation(tmp_path / "source")
    yield installation
    installation.close()


@pytest.fixture
def here(source: Installation, tmp_path: Path) -> Iterator[Installation]:
    installation = Installation(tmp_path / "here", source.clock)
    yield installation
    installation.close()
