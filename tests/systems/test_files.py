"""Reading files: every row of every file of the window once, from one version of each file, and on from any place."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import tracemalloc
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.systems import Connection
from infra.systems.files import folder, open_source, reading
from infra.systems.files.options import matcher
from shared.books import Window
from shared.ends import Page, Row
from shared.errors import AuthError, ConfigError, GuardTripped, ProtocolError, TransientError
from shared.record import version_at
from shared.retry import RetryPolicy
from shared.tabular import identify
from tests.loopback import FakeClock

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
WINDOW = Window(NOON - timedelta(days=1), NOON + timedelta(days=1))


@pytest.fixture(autouse=True)
def as_old_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a file came here is nothing that a test can choose."""
    monkeypatch.setattr(folder, "arrival", lambda status: status.st_mtime_ns)


def source_of(
    path: Path | str | None, page_size: int = 100, clock: FakeClock | None = None, **options: Any
) -> reading.Tables:
    options = {"path": str(path) if isinstance(path, Path) else path, **options}
    clock = clock or FakeClock()
    return open_source(Connection("", {}, None, page_size, RetryPolicy(), clock, None, lambda: False, options), "rows")


def pages(path: Path, after: str = "", window: Window = WINDOW, **options: Any) -> list[Page]:
    with closing(source_of(path, **options)) as source:
        return list(source.pages(window, after))


def rows(path: Path, **options: Any) -> list[Row]:
    return [row for page in pages(path, **options) for row in page.rows]


def write(path: Path, data: bytes | str, at: datetime = NOON) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return dated(path, at)


def dated(path: Path, at: datetime) -> Path:
    nanoseconds = int(at.timestamp()) * 1_000_000_000
    os.utime(path, ns=(nanoseconds, nanoseconds))
    return path


def refused_at_the_end(path: Path, **options: Any) -> tuple[list[Row], str]:
    """What is read all the same, and what the guard says when all is read."""
    found: list[Row] = []
    with closing(source_of(path, **options)) as source, pytest.raises(GuardTripped) as caught:
        for page in source.pages(WINDOW, ""):
            found += page.rows
    assert "run again" in caught.value.cure
    return found, str(caught.value)


def ids(found: list[Row]) -> list[Any]:
    return [row.data.get("id") for row in found]


def table(count: int, first: int = 0) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([["id", "note"], *([n, f'say "{n}",\nok'] for n in range(first, first + count))])
    return text.getvalue()


# Rows


def test_the_rows_of_a_file_come_with_their_line_identity_and_time(tmp_path: Path) -> None:
    first, second = rows(write(tmp_path / "a.csv", table(2)), key=["id"])
    assert (first.origin, first.position, identify(first.data)) == ("0", "2", "0")
    assert (second.origin, second.position, second.data["note"]) == ("1", "4", 'say "1",\nok')
    assert first.version < second.version < version_at(NOON, "9")
    assert first.version > version_at(NOON)


def test_json_lines_are_read_with_their_types(tmp_path: Path) -> None:
    body = [{"id": 1, "params": {"value": 1.5}}, {"id": 2, "params": {"value": None}}]
    found = rows(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, body))), key=["id"])
    assert [{name: value for name, value in row.data.items() if name != "_identity"} for row in found] == body
    assert [row.origin for row in found] == ["1", "2"]


@pytest.mark.parametrize("key", [["id"], []])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.ndjson.gz"])
def test_reading_goes_on_exactly_behind_every_page(tmp_path: Path, name: str, key: list[str]) -> None:
    def content(first: int) -> bytes:
        objects = [{"id": n % 4, "note": "a\nb"} for n in range(first, first + 9)]
        text = table(9, first) if "csv" in name else "".join(json.dumps(each) + "\n" for each in objects)
        if "csv" in name:
            text += "ragged\n" + table(9, first).partition("\r\n")[2]
        return gzip.compress(text.encode()) if name.endswith("gz") else text.encode()

    for number in range(3):
        write(tmp_path / f"{number}{name}", content(10 * number), NOON + timedelta(minutes=number % 2))
    for size in (1, 2, 7):
        whole = pages(tmp_path, key=key, page_size=size)
        assert all(len(page.rows) <= size for page in whole)
        assert len({page.after for page in whole}) == len(whole)
        for number, page in enumerate(whole, 1):
            rest = pages(tmp_path, page.after, key=key, page_size=size)
            assert rest == whole[number:]
    found = [row for page in whole for row in page.rows]
    assert len(found) == (57 if "csv" in name else 27)
    assert len({(row.origin, row.version) for row in found}) == len(found)


def test_to_go_on_in_a_file_with_a_key_reads_its_head_and_the_rest_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "id,note\n" + "".join(f"{n},{'x' * 500}\n" for n in range(5_000))
    path = write(tmp_path / "a.csv", body)
    after = pages(path, key=["id"], page_size=4_900)[0].after
    opened: list[Counted] = []

    class Counted(io.FileIO):
        amount = 0

        def readinto(self, buffer: Any) -> int:
            read = super().readinto(buffer) or 0
            self.amount += read
            return read

    def count(place: Any) -> Counted:
        opened.append(Counted(place))
        return opened[-1]

    monkeypatch.setattr(folder.io, "FileIO", count)
    assert len(pages(path, after, key=["id"], page_size=4_900)[0].rows) == 100
    assert sum(each.amount for each in opened) < 3 * reading.BUFFER < len(body) // 3


def test_of_two_rows_with_one_key_the_later_one_is_newer_whenever_they_are_read(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "id,v\n7,old\n7,new\n")
    first, second = rows(tmp_path, key=["id"])
    assert first.origin == second.origin and first.version < second.version
    assert rows(tmp_path, key=["id"]) == [first, second]
    write(tmp_path / "b.csv", "id,v\n7,newest\n", NOON + timedelta(seconds=1))
    assert rows(tmp_path, key=["id"])[2].version > second.version
    write(tmp_path / "b.csv", "id,v\n7,newest\n")
    assert len({row.version for row in rows(tmp_path, key=["id"])}) == 3


def test_without_a_key_equal_rows_are_as_many_records_wherever_they_stand(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "id,v\n1,x\n2,y\n1,x\n")
    before = {row.position: row.origin for row in rows(tmp_path / "a.csv")}
    assert len(set(before.values())) == 3
    write(tmp_path / "a.csv", "v,id\nz,0\nx,1\ny,2\nx,1\n")
    after = {row.position: row.origin for row in rows(tmp_path / "a.csv")}
    assert [after["3"], after["4"], after["5"]] == [before["2"], before["3"], before["4"]]


def test_rows_that_cannot_be_used_say_why_and_stop_nobody(tmp_path: Path) -> None:
    data = b'id,v\n1,ok\n2\n3,S\xe3o\n,nobody\n5,"open\n' + b"x" * 1_100_000 + b"\n7,ok\n2\n"
    found = rows(write(tmp_path / "a.csv", data), key=["id"])
    assert [(row.position, row.problem and row.problem[0]) for row in found] == [
        ("2", None), ("3", 113), ("4", 113), ("5", 110), ("6", 113), ("7", 115), ("8", None), ("9", 113),
    ]  # fmt: skip
    assert len({row.origin for row in found}) == len(found) and all(row.version for row in found)
    assert "_identity" not in found[3].data and found[3].data["v"] == "nobody"
    again = rows(tmp_path / "a.csv", key=["id"])
    assert again == found


# Which files


def test_a_window_holds_the_files_written_in_it_oldest_first(tmp_path: Path) -> None:
    hour = timedelta(hours=1)
    for name, at in (("d", NOON - hour), ("c", NOON), ("b", NOON), ("a", NOON + hour), ("e", NOON + 2 * hour)):
        write(tmp_path / f"{name}.csv", f"id\n{name}\n", at)
    assert ids([row for page in pages(tmp_path, window=Window(NOON, NOON + 2 * hour)) for row in page.rows]) == [
        "b", "c", "a",
    ]  # fmt: skip
    assert [row.position for row in rows(tmp_path)] == ["d.csv:2", "b.csv:2", "c.csv:2", "a.csv:2", "e.csv:2"]


def test_a_folder_is_read_to_its_depth_without_the_marks_of_writers(tmp_path: Path) -> None:
    for name in ("a.csv", "in/b.CSV", "in/deep/c.csv.gz", ".hidden.csv", "_SUCCESS", "_temporary/d.csv", "in/.e.csv"):
        body = f"id\n{name}\n".encode()
        write(tmp_path / name, gzip.compress(body, mtime=0) if name.endswith(".gz") else body)
    assert ids(rows(tmp_path)) == ["a.csv", "in/b.CSV", "in/deep/c.csv.gz"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.csv", ["a1.csv", "b2.csv"]), ("[ab]?.csv", ["a1.csv", "b2.csv"]), ("[!a]*.csv", ["b2.csv"]),
        ("*/*.csv", ["in/a1.csv"]), ("**/a*.csv", ["a1.csv", "in/a1.csv", "in/deep/a1.csv"]),
        ("in/**", ["in/a1.csv", "in/deep/a1.csv"]), ("i?/d*/*", ["in/deep/a1.csv"]),
    ],
)  # fmt: skip
def test_a_pattern_chooses_files(tmp_path: Path, pattern: str, names: list[str]) -> None:
    for name in ("a1.csv", "b2.csv", "in/a1.csv", "in/deep/a1.csv"):
        write(tmp_path / name, f"id\n{name}\n")
    assert sorted(ids(rows(tmp_path / pattern))) == names
    chosen = matcher(pattern)
    assert [name for name in ("a1.csv", "b2.csv", "in/a1.csv", "in/deep/a1.csv") if chosen(name)] == names


def test_a_file_may_be_named_like_a_pattern(tmp_path: Path) -> None:
    write(tmp_path / "a[1].csv", "id\nyes\n")
    write(tmp_path / "a1.csv", "id\nno\n")
    assert [(row.data["id"], row.position) for row in rows(tmp_path / "a[1].csv")] == [("yes", "2")]


def test_the_format_may_be_said_where_the_name_does_not_tell(tmp_path: Path) -> None:
    assert ids(rows(write(tmp_path / "a.txt", "id|v\n1|2\n"), format="csv", delimiter="|")) == ["1"]
    assert ids(rows(write(tmp_path / "b.json", '{"id":1}\n'), format="jsonl")) == [1]
    assert ids(rows(write(tmp_path / "c.tsv", "id;x\ty\n1\t2\n"))) == [None]
    found, reason = refused_at_the_end(tmp_path)
    assert len(found) == 1 and "a.txt" in reason and "1 more" in reason


@pytest.mark.parametrize(
    "options",
    [
        {"path": ""}, {"path": None}, {"format": "xlsx"}, {"format": 5}, {"delimiter": ";;"}, {"delimiter": '"'},
        {"key": ["a", "a"]}, {"key": [""]}, {"page_size": 0},
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_mistakes_of_the_configuration(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        source_of(**{"path": tmp_path, **options})


def test_a_path_where_nothing_is_ends_the_run_and_an_empty_folder_is_an_empty_window(tmp_path: Path) -> None:
    for path in (tmp_path / "nobody", tmp_path / "nobody" / "*.csv", tmp_path / "a.csv"):
        with pytest.raises(ProtocolError, match="neither"):
            pages(path)
    assert pages(tmp_path) == [] == pages(tmp_path / "*.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_that_may_not_be_read_is_a_matter_of_rights(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "id\n1\n").chmod(0)
    with pytest.raises(AuthError):
        pages(tmp_path)


# What cannot be read as a whole


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("b.csv", b"", "not even a header"),
        ("b.csv", b"name\n1\n", "no column id"),
        ("b.csv", "id\n1\n".encode("utf-16"), "UTF-16"),
        ("b.jsonl", b'{"id":"\xe9"}\n' * 9, "not UTF-8"),
        ("b.csv.gz", gzip.compress(table(5_000).encode(), mtime=0)[:-40], "cut off"),
        ("b.csv.gz", gzip.compress(table(5_000).encode(), mtime=0)[:-8] + b"12345678", "damaged"),
        ("b.csv.gz", gzip.compress(b"id\n1\n", mtime=0) + b"garbage", "damaged"),
        ("b.jsonl.gz", b"", "compressed"),
        ("b.csv.gz", b"id\n1\n", "compressed"),
        ("b.txt", b"id\n1\n", "its name"),
    ],
)
def test_a_file_that_is_none_trips_the_guard_when_all_others_are_read(
    tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    write(tmp_path / "a.csv", "id\nfirst\n", NOON - timedelta(hours=1))
    write(tmp_path / name, data)
    write(tmp_path / "c.csv", "id\nlast\n", NOON + timedelta(hours=1))
    found, said = refused_at_the_end(tmp_path, key=["id"], page_size=1000)
    assert (ids(found)[0], ids(found)[-1]) == ("first", "last")
    assert reason in said and name in said


def test_a_refused_file_is_remembered_by_whoever_goes_on_behind_it(tmp_path: Path) -> None:
    for number, data in enumerate((b"id\n1\n", b"", b"id\n2\n3\n", b"\x00")):
        write(tmp_path / f"{number}.csv", data, NOON + timedelta(minutes=number))
    given: list[Page] = []
    with closing(source_of(tmp_path, page_size=1)) as source, pytest.raises(GuardTripped):
        for page in source.pages(WINDOW, ""):
            given.append(page)
    for number, page in enumerate(given, 1):
        rest: list[Page] = []
        with closing(source_of(tmp_path, page_size=1)) as source, pytest.raises(GuardTripped) as caught:
            for each in source.pages(WINDOW, page.after):
                rest.append(each)
        assert rest == given[number:]
        assert "1.csv" in str(caught.value) and "1 more" in str(caught.value)
    (tmp_path / "1.csv").unlink()
    (tmp_path / "3.csv").unlink()
    assert ids(rows(tmp_path)) == ["1", "2", "3"]


def append(path: Path) -> None:
    with path.open("a") as opened:
        opened.write("9\n")


def touch(path: Path) -> None:
    dated(path, WINDOW.until)


def replace(path: Path) -> None:
    os.replace(write(path.with_name("new"), "id\n8\n8\n8\n8\n"), path)


@pytest.mark.parametrize("change", [append, touch, Path.unlink, replace])
@pytest.mark.parametrize("resumes", [False, True])
def test_a_file_that_changes_while_it_is_read_trips_the_guard(
    tmp_path: Path, change: Callable[[Path], None], resumes: bool
) -> None:
    path = write(tmp_path / "a.csv", "id\n1\n2\n3\n")
    write(tmp_path / "b.csv", "id\nb\n")
    source = source_of(tmp_path, page_size=2)
    reader = source.pages(WINDOW, "")
    first = next(reader)
    change(path)
    if resumes:
        reader.close()
        reader = source_of(tmp_path, page_size=2).pages(WINDOW, first.after)
    found: list[Row] = []
    with pytest.raises(GuardTripped, match=r"a\.csv: it was changed"):
        for page in reader:
            found += page.rows
    assert "b" in ids(found) and "3" not in ids(found)


def test_a_file_that_was_read_whole_may_go(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id\n1\n2\n3\n")
    write(tmp_path / "b.csv", "id\nb\n", NOON + timedelta(seconds=1))
    whole = pages(tmp_path, page_size=2)
    path.unlink()
    assert pages(tmp_path, whole[1].after, page_size=2) == whole[2:]
    write(path, "id\n4\n5\n6\n", NOON + timedelta(minutes=1))
    later = pages(tmp_path, whole[1].after, page_size=9)
    assert ids([row for page in later for row in page.rows]) == ["b", "4", "5", "6"]


def test_a_file_that_changed_before_its_turn_gives_nothing_of_its_new_version(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "id\n1\n2\n3\n")
    write(tmp_path / "b.csv", "id\nb\n")
    reader = source_of(tmp_path, page_size=2).pages(WINDOW, "")
    next(reader)
    replace(tmp_path / "b.csv")
    with pytest.raises(GuardTripped, match=r"b\.csv: it was changed"):
        for page in reader:
            assert ids(list(page.rows)) == ["3"]


def test_a_disk_that_fails_is_a_passing_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.csv", table(9))

    class Failing(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(folder.io, "FileIO", Failing)
    with pytest.raises(TransientError):
        pages(tmp_path)


@pytest.mark.parametrize("after", ["x", "7", "[]", '["2026-01-01T00:00:00Z"]', '{"name":"a"}'])
def test_a_token_of_somebody_else_is_no_place(tmp_path: Path, after: str) -> None:
    with pytest.raises(GuardTripped, match="no place"):
        pages(tmp_path, after)


def test_a_name_that_is_no_text_is_said(tmp_path: Path) -> None:
    place = os.fsencode(tmp_path) + b"/\xff.csv"
    with open(place, "wb") as opened:
        opened.write(b"id\n1\n")
    with pytest.raises(GuardTripped, match="name"):
        pages(tmp_path)


# How much


@pytest.mark.parametrize("key", [["id"], []])
def test_a_large_file_takes_the_memory_of_a_page(tmp_path: Path, key: list[str]) -> None:
    path = tmp_path / "a.csv"
    with path.open("w") as opened:
        opened.write("id,note\n")
        for number in range(30_000):
            opened.write(f'{number},"{"x" * 500}"\n')
    dated(path, NOON)
    tracemalloc.start()
    with closing(source_of(path, page_size=200, key=key)) as source:
        count = sum(len(page.rows) for page in source.pages(WINDOW, ""))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 30_000
    assert peak < 3_000_000 < path.stat().st_size // 4


def test_a_page_of_large_rows_ends_early(tmp_path: Path) -> None:
    body = "id,note\n" + "".join(f"{n},{'x' * 500_000}\n" for n in range(20))
    found = pages(write(tmp_path / "a.csv", body), page_size=1000)
    assert [len(page.rows) for page in found] == [8, 8, 4]


def test_what_a_source_says_of_itself(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    assert (source.system, source.location, source.total(WINDOW)) == ("files", str(tmp_path), None)
    assert source.now() == FakeClock().now()


def ago(clock: FakeClock, seconds: float) -> datetime:
    return clock.now() - timedelta(seconds=seconds)


@pytest.mark.parametrize(("age", "rest"), [(0, [1.0]), (0.75, [0.25]), (1, []), (3600, []), (-60, [])])
def test_a_file_that_was_written_a_moment_ago_has_to_rest_first(tmp_path: Path, age: float, rest: list[float]) -> None:
    clock = FakeClock()
    path = tmp_path / "a.csv"
    path.write_text(table(3))
    nanoseconds = round(ago(clock, age).timestamp() * 1000) * 1_000_000
    os.utime(path, ns=(nanoseconds, nanoseconds))
    with closing(source_of(path, clock=clock)) as source:
        assert sum(len(page.rows) for page in source.pages(WINDOW, "")) == 3
    assert [round(seconds, 3) for seconds in clock.slept] == rest


def test_a_file_that_is_written_on_while_it_rests_is_read_as_it_is_then(tmp_path: Path) -> None:
    class Writing(FakeClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            write(path, table(5), self.now())

    clock = Writing()
    path = write(tmp_path / "a.csv", table(3)[:-4], clock.now())
    with closing(source_of(path, clock=clock)) as source:
        assert [row.data["id"] for page in source.pages(WINDOW, "") for row in page.rows] == list("01234")


def test_a_file_that_came_in_the_window_is_read_however_old_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    old = write(tmp_path / "elsewhere" / "a.csv", table(3), NOON - timedelta(days=400))
    (tmp_path / "in").mkdir()
    before = datetime.now(UTC)
    os.rename(old, tmp_path / "in" / "a.csv")
    window = Window(before - timedelta(seconds=1), before + timedelta(hours=1))
    (page,) = pages(tmp_path / "in", window=window)
    assert len(page.rows) == 3
    assert {row.version.partition("T")[0] for row in page.rows} == {f"{NOON - timedelta(days=400):%Y-%m-%d}"}
    assert pages(tmp_path / "in", window=Window(before + timedelta(hours=1), before + timedelta(hours=2))) == []


@pytest.mark.parametrize(
    ("data", "rest"), [(b"id\n1\n", 1.0), (b"id\r1\r", 1.0), (b"id\n12", 5.0), (b"", 1.0),
                       (gzip.compress(b"id\n12", mtime=0), 1.0)],
)  # fmt: skip
def test_half_a_line_has_to_rest_for_longer(tmp_path: Path, data: bytes, rest: float) -> None:
    clock = FakeClock()
    write(tmp_path / "a.csv", data, clock.now())
    with closing(source_of(tmp_path, clock=clock)) as source, suppress(GuardTripped):
        list(source.pages(WINDOW, ""))
    assert [round(seconds, 3) for seconds in clock.slept] == [rest]
