"""The set-up of an archive beside the one that is here."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra import snapshots
from tests.unit.fakes import spare_the_disk
from tests.unit.installations import Installation, unpacked


def test_another_declaration_of_a_mapping_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spare_the_disk(monkeypatch)
    source, here = Installation(tmp_path / "source"), Installation(tmp_path / "here")
    for installation, text in ((source, "{}"), (here, "[]")):
        schemes = installation.folder / "functions" / "shop" / "schemes"
        schemes.mkdir(parents=True)
        (schemes / "source.json").write_text(text)
        (schemes / "target.json").write_text("{}")
    (here.folder / "functions" / "shop" / "store.json").write_text("{}")
    source.export("full")
    rows = unpacked(source.archive("full"))["setup/mappings.csv"].decode().split("\r\n")
    assert [row.split(",")[1] for row in rows[1:-1]] == ["mapping.py", "schemes/source.json", "schemes/target.json"]
    assert snapshots.examine(here.hub(), source.archive("full"))["differences"] == [
        "shop: schemes/source.json is another one here",
        "shop: store.json is another one here",
    ]
    for installation in (source, here):
        installation.close()
