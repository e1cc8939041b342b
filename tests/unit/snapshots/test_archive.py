"""Archives that are not what they say: each is refused before anything is written, and says why."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import infra.snapshots.archive
from infra import snapshots
from shared.errors import ConfigError
from tests.unit.fakes import spare_the_disk
from tests.unit.installations import Installation, books_of, unpacked

PARAMS = "data/SnapshotParams.json"
POV = "data/output/shop/things/2026-03.csv"
Files = dict[str, bytes]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    spare_the_disk(monkeypatch)
    installation = Installation(tmp_path / "source")
    world = installation.world()
    world.shelf.fill(12)
    world.shelf.put(90, 3, key="K90", bad=True)
    world.process().run()
    installation.export("full", with_data=True)
    installation.export("setup", "SETUP")
    yield installation
    installation.close()


def listed(files: Files, **changes: Any) -> Files:
    """The files, with what SnapshotParams.json says of them made true, and some of it changed."""
    params = json.loads(files[PARAMS]) | changes
    for each in params["files"]:
        data = files.get(each["path"])
        if data is not None:
            each["sha256"] = hashlib.sha256(data).hexdigest()
    for pov in params["povs"]:
        path = f"data/output/{pov['location']}/{pov['category']}/{pov['period']}.csv"
        pov |= {each["path"]: {"sha256": each["sha256"], "rows": each["rows"]} for each in params["files"]}.get(
            path, {}
        )
    return files | {PARAMS: json.dumps(params).encode()}


def zipped(files: Files) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def replaced(path: str, old: str, new: str, count: int = 1) -> Callable[[Files], Files]:
    def change(files: Files) -> Files:
        assert old.encode() in files[path], (path, old)
        return listed(files | {path: files[path].replace(old.encode(), new.encode(), count)})

    return change


def params_with(change: Callable[[dict[str, Any]], None]) -> Callable[[Files], Files]:
    def changed(files: Files) -> Files:
        params = json.loads(files[PARAMS])
        change(params)
        return files | {PARAMS: json.dumps(params).encode()}

    return changed


def without(path: str) -> Callable[[Files], Files]:
    return lambda files: {name: data for name, data in files.items() if name != path}


def list_it(path: str, data: bytes = b"x\n", rows: int = 0) -> Callable[[Files], Files]:
    """Adds a file, and lists it."""

    def change(files: Files) -> Files:
        params = json.loads(files[PARAMS])
        params["files"].append({"path": path, "sha256": hashlib.sha256(data).hexdigest(), "rows": rows})
        return files | {PARAMS: json.dumps(params).encode(), path: data}

    return change


TRICKS: dict[str, tuple[Callable[[Files], Files], str]] = {
    "no parameters": (without(PARAMS), "it is no snapshot"),
    "a file is missing": (without(POV), "does not hold it"),
    "a table is missing": (without("setup/streams.csv"), "does not hold it"),
    "a file that nobody lists": (lambda files: files | {"setup/more.csv": b"x\n"}, "does not list"),
    "a name with dots": (lambda files: files | {"../../etc/passwd": b"x"}, "no name of a file"),
    "an absolute name": (lambda files: files | {"/etc/passwd": b"x"}, "no name of a file"),
    "a name with a backslash": (lambda files: files | {"setup\\..\\..\\x": b"x"}, "no name of a file"),
    "a name of a drive": (lambda files: files | {"C:/x": b"x"}, "no name of a file"),
    "a folder": (lambda files: files | {"setup/": b""}, "no name of a file"),
    "listed, and leads elsewhere": (list_it("data/output/../../x.csv"), "no name of a file"),
    "listed, and no file of a snapshot": (list_it("data/more.csv"), "no file of a snapshot"),
    "a POV of no stream": (list_it("data/output/shop/Nobody/2026-03.csv"), "no file of a snapshot"),
    "objects without data": (
        lambda files: listed(list_it("data/objects/x.csv")(files), with_data=False, withData=False),
        "no file of a snapshot",
    ),
    "a sum is wrong": (lambda files: files | {POV: files[POV].replace(b"K1", b"K7", 1)}, "the sum of"),
    "a row is missing": (lambda files: listed(files | {POV: files[POV].rsplit(b"\n", 2)[0] + b"\n"}), "are listed"),
    "another version": (lambda files: listed(files, format=2), "format 2"),
    "no version": (params_with(lambda params: params.pop("format")), "not what it should be"),
    "parameters that are none": (lambda files: files | {PARAMS: b"[]"}, "not what it should be"),
    "parameters that are no JSON": (lambda files: files | {PARAMS: b"\xff{"}, "not what it should be"),
    "a type that there is not": (lambda files: listed(files, type="FULL"), "not what it should be"),
    "counts that are wrong": (
        params_with(lambda params: params["counts"].update(cells=1)), "not what it counts"
    ),
    "a POV that counts nothing": (params_with(lambda params: params["povs"][0].pop("counts")), "what its POV counts"),
    "a POV that counts wrongly": (
        params_with(lambda params: params["povs"][0]["counts"].update(cells=1)), "what its POV counts",
    ),
    "no last process": (lambda files: listed(files, lastProcessId=None), "which process was the last"),
    "a POV twice": (params_with(lambda params: params["povs"].append(params["povs"][0])), "a POV twice"),
    "a file twice": (params_with(lambda params: params["files"].append(params["files"][0])), "lists a file twice"),
    "a POV without its file": (
        params_with(lambda params: params["povs"].append({**params["povs"][0], "period": "2026-04"})),
        "whose files it does not hold",
    ),
    "a POV that leads elsewhere": (
        params_with(lambda params: params["povs"].append({**params["povs"][0], "period": "../x"})), "no name of one",
    ),
    "a stream that leads elsewhere": (
        params_with(lambda params: params["streams"][0].update(stream="../x")), "no name of one",
    ),
    "an instant without a zone": (
        lambda files: listed(files, createdAt="2026-03-01T12:00:00"), "not what it should be",
    ),
    "a time without a zone": (replaced(POV, '01T13:00:00Z""', '01T13:00:00""'), "without a time zone"),
    "another header": (replaced(POV, "row,id,", "row,ids,"), "its header"),
    "a row that nobody knows": (replaced(POV, "\ncell,", "\ncells,"), "no row is called"),
    "a row with fields too many": (replaced(POV, "\ncell,", "\ncell,x,"), "fields"),
    "a process that is no number": (replaced(POV, ",17", ",-17"), "a process is no number"),
    "a document that is no JSON": (replaced(POV, '"{""id""', '"{""id'), "not what it should be"),
    "a document that lacks a key": (replaced(POV, '""integration"":""shop"",', ""), "not what it should be"),
    "a thing of another stream": (replaced(POV, '""stream"":""things""', '""stream"":""others""'), "another id"),
    "a cell with another key": (replaced(POV, '""key"":""K2""', '""key"":""K5""'), "another id"),
    "a batch that waits": (replaced(POV, '""state"":""settled"",""blob""', '""state"":""open"",""blob""'), "each of"),
    "an outcome too few": (replaced(POV, '""outcomes"":""dd', '""outcomes"":""d'), "each of its records"),
    "an outcome that nobody knows": (replaced(POV, '""outcomes"":""d', '""outcomes"":""Z'), "that nobody knows"),
    "a pending outcome": (replaced(POV, '""outcomes"":""d', '""outcomes"":"".'), "that nobody knows"),
    "an amendment of nothing": (replaced(POV, '""amended"":{}', '""amended"":{""99"":""d""}'), "does not have"),
    "a run that goes on": (replaced(POV, '""finished_at"":""20', '""finished_at"":null,""x"":""20'), "to its end"),
    "bytes that are no text": (
        lambda files: listed(files | {POV: files[POV].replace(b"\ncell", b"\n\xff\xfe", 1)}), "UTF-8",
    ),
    "an archive of another stream": (
        replaced(POV, '""blob"":""archive/shop/things/', '""blob"":""archive/shop/others/'), "not its stream's",
    ),
    "an archive that leads elsewhere": (
        replaced(POV, '""blob"":""archive/shop/things/', '""blob"":""archive/shop/things/../'), "not its stream's",
    ),
    "a place before its archive": (replaced(POV, '""offset"":0', '""offset"":-1'), "outside of its archive"),
    "a number of any size": (replaced(POV, '""attempts"":0', '""attempts"":' + "9" * 30), "nobody can keep"),
    "an instant that no zone has": (replaced(POV, '""started_at"":""2026', '""started_at"":""9999'), "nobody can keep"),
    "a run of any size": (replaced(POV, '""error"":""', '""error"":""' + "x" * 1_000_000), "more than a home"),
    "a quote that is not closed": (replaced(POV, '}"\r\n', "}\r\n"), "not what it should be|no CSV"),
    "a table without rows that are needed": (
        lambda files: listed(files | {"setup/integrations.csv": b"integration,source,sink,document\n"}), "are listed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("trick", TRICKS)
def test_it_is_refused_before_anything_is_written(made: Installation, tmp_path: Path, trick: str) -> None:
    change, reason = TRICKS[trick]
    archive = tmp_path / "trick.zip"
    archive.write_bytes(zipped(change(unpacked(made.archive("full")))))
    check_refused(made, archive, reason)


def check_refused(made: Installation, archive: Path, reason: str) -> None:
    here = Installation(archive.parent / "here", made.clock)
    world = here.world()
    world.shelf.fill(3)
    world.process().run()
    here.export("own")
    before, files = books_of(here.hub().home), here.folder_files()
    for call in (here.restore, lambda source: snapshots.examine(here.hub(), source)):
        with pytest.raises(ConfigError, match=reason):
            call(archive)
    assert books_of(here.hub().home) == before
    assert here.folder_files() == files
    inbox = here.snapshots / "inbox" / "trick.zip"
    inbox.parent.mkdir()
    inbox.write_bytes(archive.read_bytes())
    with pytest.raises(ConfigError, match=reason):
        here.restore("inbox/trick.zip")
    assert books_of(here.hub().home) == before
    assert {path.name for path in (archive.parent).iterdir()} == {archive.name, "here", "source"}
    here.close()


def test_what_is_made_true_again_is_taken(made: Installation, tmp_path: Path) -> None:
    """The tricks above fail for what they are about."""
    archive = tmp_path / "fine.zip"
    archive.write_bytes(zipped(listed(unpacked(made.archive("full")))))
    here = Installation(tmp_path / "here", made.clock)
    here.restore(archive)
    assert books_of(here.hub().home, with_data=True) == books_of(made.hub().home, with_data=True)
    here.close()


def test_a_name_that_comes_twice_is_refused(made: Installation, tmp_path: Path) -> None:
    archive = tmp_path / "trick.zip"
    archive.write_bytes(made.archive("full").read_bytes())
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(POV, b"x\n")
    check_refused(made, archive, "twice")


def test_a_link_is_refused(made: Installation, tmp_path: Path) -> None:
    files = unpacked(made.archive("full"))
    archive = tmp_path / "trick.zip"
    archive.write_bytes(zipped({name: data for name, data in files.items() if name != POV}))
    link = zipfile.ZipInfo(POV)
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(link, b"/etc/passwd")
    check_refused(made, archive, "no plain file")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_file_that_is_packed_in_another_way_is_refused(made: Installation, tmp_path: Path, method: int) -> None:
    archive = tmp_path / "trick.zip"
    with zipfile.ZipFile(archive, "w", method) as opened:
        for name, data in unpacked(made.archive("full")).items():
            opened.writestr(name, data)
    check_refused(made, archive, "packed in a way of its own")


def test_a_bomb_is_refused_by_its_size(made: Installation, tmp_path: Path) -> None:
    bomb = b"row,id,process_id,at,document\n" + b"x" * 60_000_000
    archive = tmp_path / "trick.zip"
    archive.write_bytes(zipped(listed(unpacked(made.archive("full")) | {POV: bomb})))
    assert archive.stat().st_size < 100_000
    check_refused(made, archive, "looks like a bomb")


def test_a_bomb_that_lies_about_its_size_is_not_unpacked(
    made: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only as much is ever unpacked as the directory says, which then is not what the sum says."""
    data = zipped(
        listed(unpacked(made.archive("full")) | {POV: b"row,id,process_id,at,document\n" + b"x" * 60_000_000})
    )
    place = data.rindex(POV.encode()) - 46
    assert data[place : place + 4] == b"PK\x01\x02"
    data = data[: place + 24] + struct.pack("<L", 1000) + data[place + 28 :]
    archive = tmp_path / "trick.zip"
    archive.write_bytes(data)
    check_refused(made, archive, "is broken|the sum of|fields|no CSV")


def test_files_that_lie_over_each_other_are_refused(made: Installation, tmp_path: Path) -> None:
    """Many entries of the directory may lead to the same packed bytes."""
    kernel = zlib_of(b"x" * 1_000_000)
    names = [f"setup/t{chr(97 + n // 26)}{chr(97 + n % 26)}.csv" for n in range(400)]
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 8, 0, 0, 0, len(kernel), 1_000_000, len(names[0]), 0)
    body = local + names[0].encode() + kernel
    directory = b"".join(
        struct.pack(
            "<4s6H3L5H2L",
            *(b"PK\x01\x02", 20, 20, 0, 8, 0, 0, 0, len(kernel), 1_000_000, len(name), 0, 0, 0, 0, 0, 0),
        )
        + name.encode()
        for name in names
    )
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, len(names), len(names), len(directory), len(body), 0)
    archive = tmp_path / "trick.zip"
    archive.write_bytes(body + directory + end)
    check_refused(made, archive, "looks like a bomb")


def zlib_of(data: bytes) -> bytes:
    import zlib

    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def test_more_files_than_a_snapshot_has_are_not_even_listed(
    made: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infra.snapshots.archive, "MOST_FILES", 5)
    archive = tmp_path / "trick.zip"
    archive.write_bytes(made.archive("full").read_bytes())
    here = Installation(tmp_path / "here", made.clock)
    with pytest.raises(ConfigError, match="more than a snapshot"):
        here.restore(archive)
    here.close()


@pytest.mark.parametrize("cut", [0, 1, 21, 22, 100, -1, -22, -50])
def test_a_file_that_was_cut_off_is_refused(made: Installation, tmp_path: Path, cut: int) -> None:
    archive = tmp_path / "trick.zip"
    archive.write_bytes(made.archive("full").read_bytes()[:cut])
    check_refused(made, archive, "archive|broken|no file")


def test_a_flipped_bit_anywhere_is_noticed(made: Installation, tmp_path: Path) -> None:
    data = made.archive("full").read_bytes()
    expected = books_of(made.hub().home, with_data=True)
    here = Installation(tmp_path / "here", made.clock)
    archive = tmp_path / "trick.zip"
    refused = 0
    for place in range(0, len(data), 97):
        archive.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        try:
            here.restore(archive)
        except ConfigError:
            refused += 1
        else:
            # A time of the archive's own, or a field that nobody reads.
            assert books_of(here.hub().home, with_data=True) == expected, place
    assert refused > 20
    here.close()


def test_the_standard_tool_reads_what_was_exported(made: Installation, tmp_path: Path) -> None:
    with zipfile.ZipFile(made.archive("full")) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "out")
    assert (tmp_path / "out" / POV).read_bytes() == made.folder_files()[POV]
