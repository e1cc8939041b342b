"""Integrations that share an account at a system share what it allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import config
from infra.rates import overdrawn, unlimited


def installed(folder: Path, **ends: dict[str, Any]) -> list[config.Integration]:
    """An integration per name: its two ends, and whether it is enabled."""
    for name, settings in ends.items():
        (folder / name).mkdir()
        document = {
            "name": name,
            "source": {"system": settings.get("source", "milvus"), "rate_limit": settings.get("from", "20/min")},
            "sink": {"system": settings.get("sink", "milvus"), "rate_limit": settings.get("to", "20/min")},
            "streams": {"customers": {"enabled": settings.get("enabled", True)}},
        }
        (folder / name / "integration.yaml").write_text(yaml.safe_dump(document))
    return config.load(folder)


@pytest.mark.parametrize(
    ("source", "sink", "taken"),
    [
        ("80/min", "40/min", None),
        ("80/min", "41/min", 121),
        ("1/s", "1/s", None),
        ("2/s", "1/h", 120 + 1 / 60),
        ("120/min", "1/min", 121),
    ],
)
def test_a_split_above_what_the_account_allows_is_a_mistake(
    tmp_path: Path, source: str, sink: str, taken: float | None
) -> None:
    there = {"source": "ploomes", "from": source}
    back = {"sink": "ploomes", "to": sink}
    found = list(overdrawn(installed(tmp_path, there=there, back=back)))
    if taken is None:
        assert found == []
        return
    (mistake,) = found
    assert mistake.found.startswith(f"{taken:g} calls a minute to ploomes in all: ")
    assert f"back.sink {sink}" in mistake.found
    assert f"there.source {source}" in mistake.found
    assert mistake.expected.startswith("at most 120 a minute")
    assert mistake.file.endswith("there/integration.yaml")


def test_what_is_not_enabled_takes_nothing(tmp_path: Path) -> None:
    there = {"source": "ploomes", "from": "120/min"}
    back = {"sink": "ploomes", "to": "120/min", "enabled": False}
    assert list(overdrawn(installed(tmp_path, there=there, back=back))) == []


def test_both_ends_of_one_integration_count(tmp_path: Path) -> None:
    both = {"source": "ploomes", "from": "100/min", "sink": "ploomes", "to": "21/min"}
    assert len(list(overdrawn(installed(tmp_path, both=both)))) == 1


def test_an_end_without_a_limit_is_noted(tmp_path: Path) -> None:
    integrations = installed(tmp_path, there={"source": "ploomes", "from": "none"})
    assert list(overdrawn(integrations)) == []
    assert list(unlimited(integrations)) == [
        "there.source has no rate_limit, and ploomes allows an account 120 calls a minute"
    ]
