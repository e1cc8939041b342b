"""What docs/tagless.md says of each destination: its columns are taken, and its example arrives at the sandbox."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest

from functions.tagless_crm.mapping import DESTINATIONS, OPTIONS, rules
from functions.tagless_crm.people import Reading
from infra import config
from infra.systems import Connection
from infra.wiring import Hub
from shared.ends import Change
from shared.outcome import Outcome
from shared.retry import RetryPolicy
from shared.tabular import Format, open_table, read
from tests.sandbox.cm360 import Cm360
from tests.sandbox.data_manager import DataManager
from tests.sandbox.ga4 import Ga4
from tests.sandbox.google_ads import GoogleAds
from tests.sandbox.server import Server
from tests.sandbox.system import Setup, System
from tests.systems.google_script import Joined, Time, outcomes

ROOT: Final = Path(__file__).resolve().parents[2]
DOCUMENT: Final = (ROOT / "docs" / "tagless.md").read_text(encoding="utf8")
SECTIONS: Final = dict(zip(*[iter(re.split(r"^## (\w+)\n", DOCUMENT, flags=re.MULTILINE)[1:])] * 2, strict=True))
ROW: Final = re.compile(r"^\| (`[^|]+) \|[^|]*\| ([^|]+) \|$", re.MULTILINE)
FAKES: Final[Mapping[str, Callable[[Setup], System]]] = {
    "ga4": Ga4,
    "data_manager": DataManager,
    "google_ads": GoogleAds,
    "cm360": Cm360,
}
CELLS: Final = {
    "e-mail": "ana@example.com",
    "phone": "+5511987654321",
    "country": "BR",
    "postal code": "01310-100",
    "number": "1.5",
    "whole number": "2",
    "instant": "2026-05-31T10:00:00-03:00",
    "microseconds since 1970": "1790000000000000",
    "as `timestamp_micros`": "1790000000000000",
    "true or false": "true",
    "list of texts": '["x"]',
}


def columns_of(destination: str) -> Iterator[tuple[str, str]]:
    """The columns that the document names, each with a cell of the kind that it says."""
    for names, kind in ROW.findall(SECTIONS[destination]):
        fields = re.match(r"list of \{(.+?)\}", kind)
        cell = CELLS.get(re.split(r"[,;:]", kind)[0], "x")
        if fields:
            cell = "[{" + ", ".join(f'"{name}": "1"' for name in fields[1].split(", ")) + "}]"
        for name in re.findall(r"`([^`]+)`", names):
            yield name, cell


def overlaid(destination: str, tmp_path: Path) -> dict[str, config.StreamConfig]:
    """The streams of the example's overlay, with what the shipped file says of them."""
    (example,) = re.findall(r"```yaml\n(.+?)```", SECTIONS[destination], re.DOTALL)
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(example, encoding="utf8")
    found = Hub({"WAYBILL_OVERLAY": str(overlay)}, ROOT / "functions").integration("tagless_crm")
    return {name: each for name, each in found.streams.items() if f"    {name}:" in example}


def test_there_is_a_section_for_each_destination() -> None:
    assert list(SECTIONS) == list(DESTINATIONS)
    for key in OPTIONS["*"]:
        assert f"| `{key}` |" in DOCUMENT


@pytest.mark.parametrize("destination", list(DESTINATIONS))
def test_every_column_that_is_named_is_taken(destination: str, tmp_path: Path) -> None:
    make = rules(overlaid(destination, tmp_path)[destination].options).to_target
    row = dict(columns_of(destination))
    assert len(row) > 8
    content = make(row)
    for name in row:
        path = DESTINATIONS[destination].table(Reading()).path_of(name)
        assert holds(content, path), name


def holds(content: Any, path: tuple[str, ...]) -> bool:
    """Whether something is at a path, in a list in one of its elements."""
    if isinstance(content, list):
        return any(holds(each, path) for each in content)
    return not path or (path[0] in content and holds(content[path[0]], path[1:]))


@pytest.mark.parametrize("destination", list(DESTINATIONS))
def test_every_field_that_is_known_is_named(destination: str) -> None:
    table = DESTINATIONS[destination].table(Reading())
    assert [name for name in (*table.fields, *table.short) if name not in SECTIONS[destination]] == []
    for name, kind in table.fields.items():
        if isinstance(kind, Mapping):
            assert re.search(rf"`{name}\.", SECTIONS[destination])


@pytest.mark.parametrize("destination", list(DESTINATIONS))
def test_every_setting_that_is_known_is_named(destination: str) -> None:
    settings = SECTIONS[destination].partition("| setting |")[2]
    assert [name for name in DESTINATIONS[destination].settings if f"`{name}`" not in settings] == []


@pytest.mark.parametrize("destination", list(DESTINATIONS))
def test_the_example_arrives(destination: str, tmp_path: Path) -> None:
    streams = overlaid(destination, tmp_path)
    made = {name: rules(each.options) for name, each in streams.items()}
    stream = made[destination]
    assert streams[destination].enabled
    assert [name for name, each in made.items() if each.deletes] == [name for name in made if name.endswith("leavers")]
    (example,) = re.findall(r"```csv\n(.+?)```", SECTIONS[destination], re.DOTALL)
    table = open_table(io.BytesIO(example.encode()), Format("csv"))
    file = io.BytesIO(example.encode())
    file.seek(table.start.offset)
    contents = [stream.to_target(parsed.data) for parsed in read(file, table, table.start)]
    assert len(contents) == 2
    time = Time()
    system = FAKES[stream.target](Setup(clock=time, sleep=lambda seconds: None))
    with Server(system) as server:
        environment = system.environment(server.url)
        connection = Connection(
            server.url,
            environment,
            None,
            1000,
            RetryPolicy(3, 0.01),
            Joined(time),
            None,
            lambda: False,
            stream.settings,
        )
        sink = import_module(f"infra.systems.{stream.target}").open_sink(connection, stream.write)
        try:
            changes = [Change(str(place), "upsert", content) for place, content in enumerate(contents)]
            answers = sink.write(changes)
        finally:
            sink.close()
    assert outcomes(answers) == [Outcome.DELIVERED] * 2, answers
