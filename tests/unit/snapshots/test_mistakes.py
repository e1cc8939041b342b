"""What people get wrong, and files that are broken: each is told in words, and nobody stands still for it."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra import snapshots
from infra.cli_groups import source_of
from infra.erasing import forget
from infra.snapshots import packing
from shared.errors import ConfigError, WaybillError
from shared.ports import lease_name
from tests.unit.fakes import spare_the_disk
from tests.unit.installations import Installation, books_of, unpacked
from tests.unit.snapshots.test_archive import PARAMS, POV, Files, listed, zipped

STREAMS = "setup/streams.csv"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    spare_the_disk(monkeypatch)
    installation = Installation(tmp_path / "source")
    world = installation.world()
    world.shelf.fill(3)
    world.shelf.put(90, 3, key="K90", bad=True)
    world.process().run()
    installation.export("full", with_data=True)
    yield installation
    installation.close()


@pytest.fixture
def here(made: Installation, tmp_path: Path) -> Iterator[Installation]:
    installation = Installation(tmp_path / "here", made.clock)
    yield installation
    installation.close()


@pytest.mark.parametrize("name", ["~nobody-at-all/full.zip", "a" * 300 + ".zip", "inbox/" + "a" * 300 + "/full.zip"])
def test_a_name_that_leads_nowhere_is_said_to_be_so(made: Installation, name: str) -> None:
    for call in (snapshots.examine, snapshots.restore):
        with pytest.raises(WaybillError):
            call(made.hub(), source_of(name))


def test_a_file_of_this_machine_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full.zip").write_bytes(b"")
    assert source_of("~/full.zip") == tmp_path / "full.zip"
    assert source_of("full.zip") == Path("full.zip")
    assert source_of("other.zip") == "other.zip"


def test_periods_in_the_home_of_nobody_are_a_mistake_of_the_configuration(made: Installation) -> None:
    made.environ["WAYBILL_PERIODS"] = "~nobody-at-all/periods.yaml"
    with pytest.raises(ConfigError, match="nobody-at-all"):
        made.export("more")


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


def in_a_failure(value: str) -> Callable[[Files], Files]:
    def change(files: Files) -> Files:
        written = value.replace('"', '""').encode()
        assert files[POV].count(b'""data"":{') == 1
        return files | {POV: files[POV].replace(b'""data"":{', b'""data"":{""deep"":' + written + b",")}

    return change


def in_the_set_up(member: str) -> Callable[[Files], Files]:
    def change(files: Files) -> Files:
        header, row = csv.reader(io.StringIO(files[STREAMS].decode()))
        row[-1] = f"{row[-1][:-1]},{member}}}"
        out = io.StringIO()
        csv.writer(out).writerows([header, row])
        return files | {STREAMS: out.getvalue().encode()}

    return change


@pytest.mark.parametrize(
    "change",
    [in_a_failure(nested(3000)), in_the_set_up(f'"tags":{nested(3000)}'), in_the_set_up(f'"tags":{nested(400)}')],
    ids=["a failure", "a set-up that cannot be read", "a set-up that no overlay can hold"],
)
def test_what_is_nested_without_end_is_refused(
    made: Installation, here: Installation, tmp_path: Path, change: Callable[[Files], Files]
) -> None:
    archive = tmp_path / "deep.zip"
    archive.write_bytes(zipped(listed(change(unpacked(made.archive("full"))))))
    for call in (snapshots.examine, snapshots.restore):
        with pytest.raises(ConfigError, match=r"recursion|set-up"):
            call(here.hub(), archive)
    assert books_of(here.hub().home) == {}
    here.restore(made.archive("full"))


def test_what_is_nested_without_end_keeps_nobody_from_being_forgotten(made: Installation) -> None:
    deep = listed(in_a_failure(nested(3000))(unpacked(made.archive("full"))))
    inbox = made.snapshots / "inbox"
    inbox.mkdir()
    (inbox / "deep.zip").write_bytes(zipped(deep))
    kept = made.snapshots / "data" / "snapshots" / POV
    kept.write_bytes(deep[POV])
    (note,) = forget(made.hub(), "K77")["notes"]
    assert note.startswith("inbox/deep.zip in the snapshot folders cannot be read")
    assert not kept.exists()


def test_an_option_whose_name_is_a_long_number_is_kept_as_it_is(
    made: Installation, here: Installation, tmp_path: Path
) -> None:
    archive = tmp_path / "long.zip"
    number = "9" * 5000
    archive.write_bytes(zipped(listed(in_the_set_up(f'"{number}":1')(unpacked(made.archive("full"))))))
    report = here.restore(archive)
    assert number in Path(report["overlay"]).read_text()
    here.hub().home.leases.take(lease_name("shop", "things"))


def test_an_archive_that_broke_after_a_crash_does_not_count(
    made: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = made.world()
    world.shelf.put(4, 3500)
    world.process().run()
    with monkeypatch.context() as patched:
        patched.setattr(packing, "settle", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            made.export("next", "INCREMENTAL")
    made.close()
    path = made.archive("next")
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(PARAMS)
    data = bytearray(path.read_bytes())
    begin = info.header_offset + 30 + len(info.filename) + len(info.extra) + 24
    data[begin : begin + 60] = b"\xff" * 60
    path.write_bytes(data)
    found = made.export("again", "INCREMENTAL")
    assert (found["povs"]["exported"], found["counts"]["cells"]) == (1, 4)


def test_a_file_whose_name_nobody_can_use_is_listed_with_what_is_wrong(made: Installation) -> None:
    for name in (".Trash", "a\x01b"):
        file = made.snapshots / "inbox" / name / "old.zip"
        file.parent.mkdir(parents=True)
        file.write_bytes(made.archive("full").read_bytes())
    found = {each["file"]: each for each in snapshots.listing(made.hub())}
    assert set(found) == {"outbox/full.zip", "inbox/.Trash/old.zip", "inbox/a\x01b/old.zip"}
    assert "no name" in found["inbox/.Trash/old.zip"]["error"]
    assert found["outbox/full.zip"]["type"] == "ALL"
