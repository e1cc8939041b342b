"""What is given back: files as they were sent, files that were produced, and what became of each row."""

from __future__ import annotations

import csv
import io
import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import shared.group
from infra.data_sync.download import LOOK_BACK, PIECE, pieces_of
from infra.systems.exports import part_of
from shared.books import FailureQuery
from shared.errors import REFUSED, UNMAPPABLE, StoreUnavailable
from shared.launches import Launch
from shared.replay import replay
from tests.systems.data_sync_desk import NAME, SYNCS, Desk, make_hub


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(shared.group, "GROUP_FILL", 1)
    syncs = SYNCS.replace("columns: [id, name]", f"columns: [id, name], path: {tmp_path / 'source.csv'}")
    hub = make_hub(tmp_path, syncs + "  wide: {does: import, authentication: false, escape_formulas: false}\n")
    yield Desk(hub)
    hub.close()


Hold = Callable[[str | bytes], None]


@pytest.fixture
def hold(tmp_path: Path) -> Hold:
    """Lets the export `report` read this."""

    def hold(content: str | bytes) -> None:
        path = tmp_path / "source.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        # A file that was written just now is waited for.
        minute_ago = path.stat().st_mtime - 60
        os.utime(path, (minute_ago, minute_ago))

    return hold


def sent(desk: Desk, text: str | bytes, sync: str = "wide") -> Launch:
    """The launch of a file, carried out."""
    answer = desk.send(f"import/{sync}", text)
    assert answer.status_code == 200, answer.text
    desk.work()
    return desk.launches(sync)[0]


def rows(desk: Desk, launch: Launch) -> list[dict[str, Any]]:
    answer = desk.get(f"{launch.stream}/{launch.id}/result")
    assert (answer.status_code, answer.content_type, answer.json["launch"]) == (200, "application/json", launch.id)
    found: list[dict[str, Any]] = answer.json["rows"]
    return found


def records(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


AWKWARD = (
    "id,name\r\n1,Ana\r\n",
    "id,name\n1,Ana",
    "id;name\r\n1;Ana\r\n",
    "\N{ZERO WIDTH NO-BREAK SPACE}id,name\r\n1,Ana\r\n",
    'id,name\r\n1,"two\r\nlines, and ""quotes"""\r\n2,Eva\r\n',
    ",".join(["id", *(f"c{n}" for n in range(199))])
    + "\r\n"
    + ",".join(["1", *("x" * 50 for _ in range(199))])
    + "\r\n",
    "id,name\r\n1,=cmd()\r\n",
    "id,名前\r\n1,陳大文\r\n",
)


@pytest.mark.parametrize("text", AWKWARD, ids=range(len(AWKWARD)))
def test_a_file_is_given_back_byte_by_byte(desk: Desk, text: str) -> None:
    launch = sent(desk, text)
    answer = desk.get(f"wide/{launch.id}/download")
    assert (answer.status_code, answer.data) == (200, text.encode())
    assert answer.content_type == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="wide-{launch.id}.csv"'
    assert int(answer.headers["Content-Length"]) == len(text.encode())
    assert [row["outcome"] for row in rows(desk, launch)] == ["delivered"] * len(rows(desk, launch))
    assert rows(desk, launch)[0] == {"line": 2, "key": "1", "outcome": "delivered"}


def test_a_file_of_bytes_that_are_no_text_is_given_back_as_well(desk: Desk) -> None:
    content = bytes(range(256)) * 10
    launch = sent(desk, content)
    assert desk.get(f"wide/{launch.id}/download").data == content


def test_a_file_can_be_had_before_its_launch_has_begun(desk: Desk) -> None:
    assert desk.send("import/wide", "id\r\n1\r\n").status_code == 200
    (launch,) = desk.launches("wide")
    assert desk.get(f"wide/{launch.id}/download").data == b"id\r\n1\r\n"
    assert rows(desk, launch) == []


def test_launches_of_other_syncs_are_none_of_its_own(desk: Desk) -> None:
    launch = sent(desk, "id\r\n1\r\n")
    for path in ("download", "result"):
        assert desk.get(f"open_import/{launch.id}/{path}").status_code == 404
        assert desk.get(f"wide/{launch.id + 1}/{path}").status_code == 404


def test_a_file_that_is_not_kept_any_more_is_not_found(desk: Desk) -> None:
    launch = sent(desk, "id\r\n1\r\n")
    desk.home.blobs.delete(launch.file)
    gone = desk.get(f"wide/{launch.id}/download")
    desk.home.launches.note(msgspec.structs.replace(launch, file=""))
    told = desk.get(f"wide/{launch.id}/download")
    for answer in (gone, told):
        assert (answer.status_code, answer.json["detail"]) == (404, "the file of this launch is not kept any more")


def test_a_file_is_read_piece_by_piece(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"0123456789abcdef" * (2 * PIECE)
    desk.home.blobs.write("uploads/large", content)
    launch = desk.add("wide", file="uploads/large", size=len(content))
    read, asked = desk.home.blobs.read, []

    def noted(name: str, offset: int = 0, length: int | None = None) -> bytes:
        asked.append(length)
        return read(name, offset, length)

    monkeypatch.setattr(desk.home.blobs, "read", noted)
    tracemalloc.start()
    try:
        answer = desk.client.get(f"/api/data-sync/wide/{launch.id}/download", buffered=False)
        size = sum(len(piece) for piece in answer.iter_encoded())
        peak = tracemalloc.get_traced_memory()[1]
        answer.close()
    finally:
        tracemalloc.stop()
    assert (size, asked) == (len(content), [PIECE] * 32)
    assert peak < 5 * PIECE
    assert b"".join(pieces_of(desk.home.blobs, "uploads/large", 10)) == content[:10]


def test_an_answer_whose_source_fails_half_way_breaks_off(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"x" * (3 * PIECE)
    desk.home.blobs.write("uploads/large", content)
    launch = desk.add("wide", file="uploads/large", size=len(content))
    read = desk.home.blobs.read

    def failing(name: str, offset: int = 0, length: int | None = None) -> bytes:
        if offset:
            raise StoreUnavailable("/srv/waybill is gone")
        return read(name, offset, length)

    monkeypatch.setattr(desk.home.blobs, "read", failing)
    with pytest.raises(ConnectionAbortedError):
        _ = desk.get(f"wide/{launch.id}/download").data
    assert desk.notices[-1] == ("answer_broke_off", {"error": "StoreUnavailable"})


def test_an_export_is_the_file_of_the_last_launch_that_succeeded(desk: Desk, hold: Hold) -> None:
    assert desk.get("export/report").status_code == 404
    hold('id,name\n1,"Ana, ""Bo"""\n2,=1+1\n3,"two\nlines"\n')
    desk.produce("report")
    answer = desk.get("export/report")
    first = answer.data
    assert (answer.status_code, first[:9]) == (200, b"id,name\r\n")
    assert sorted(records(first)[1:]) == [["1", 'Ana, "Bo"'], ["2", "'=1+1"], ["3", "two\nlines"]]
    assert b"2,'=1+1\r\n" in first
    (done,) = desk.launches("report")
    assert answer.headers["Content-Disposition"] == f'attachment; filename="report-{done.id}.csv"'

    hold("id,name\n" + "".join(f"{n},n{n}\n" for n in range(40)))
    desk.produce("report")
    second = desk.get("export/report").data
    assert sorted(records(second)[1:]) == sorted([str(n), f"n{n}"] for n in range(40))
    hold(b"\xff\xfei\x00d\x00\n\x00")
    desk.produce("report")
    failed = desk.launches("report")[0]
    assert desk.get("report").json["latest-launch"]["status-message"]
    assert desk.get("export/report").data == second
    # Past ones, by their numbers.
    assert desk.get(f"report/{done.id}/download").data == first
    answer = desk.get(f"report/{failed.id}/download")
    assert (answer.status_code, answer.json["detail"]) == (404, "this launch failed and has no file")


def test_the_header_of_an_export_is_written_like_its_rows(tmp_path: Path, hold: Hold) -> None:
    source = tmp_path / "source.csv"
    columns = '[id, "a,b", "c\td"]'
    tabbed = f"{{does: export, authentication: false, delimiter: tab, columns: {columns}, path: {source}}}"
    hub = make_hub(tmp_path, f"  tabbed: {tabbed}\n")
    hold('id\ta,b\t"c\td"\n1\tx,y\t"two\ttabs"\n')
    desk = Desk(hub)
    desk.produce("tabbed")
    assert desk.get("export/tabbed").data == b'id\ta,b\t"c\td"\r\n1\tx,y\t"two\ttabs"\r\n'
    hub.close()


def test_a_launch_that_has_produced_no_file_says_why(desk: Desk, hold: Hold) -> None:
    waiting = desk.add("report")
    cancelled = desk.add("report", state="cancelled", cancelled_by="api")
    for launch, word in ((waiting, "scheduled"), (cancelled, "cancelled")):
        answer = desk.get(f"report/{launch.id}/download")
        assert (answer.status_code, word in answer.json["detail"]) == (404, True)
    hold("id,name\n1,Ana\n")
    desk.produce("report")
    (done,) = [launch for launch in desk.launches("report") if launch.id == waiting.id]
    (batch,) = desk.home.batches.of_run(done.run)
    desk.home.blobs.delete(part_of(done, batch.id))
    answer = desk.get(f"report/{done.id}/download")
    assert (answer.status_code, answer.json["detail"]) == (404, "the file of this launch is not kept any more")


def test_an_export_of_nothing_is_its_header(desk: Desk, hold: Hold) -> None:
    hold("id,name\n")
    desk.produce("report")
    assert desk.get("export/report").data == b"id,name\r\n"


def test_the_last_success_is_found_behind_many_others_but_not_looked_for_for_ever(
    desk: Desk, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold("id,name\n1,Ana\n")
    desk.produce("report")
    (done,) = desk.launches("report")
    for number in range(25):
        desk.add("report", id=done.id + 1 + number, state="cancelled")
    assert desk.get("export/report").data == b"id,name\r\n1,Ana\r\n"
    asked: list[int] = []
    never = msgspec.structs.replace(done, state="cancelled")
    monkeypatch.setattr(desk.home.launches, "recent", lambda i, s, most, before: asked.append(most) or [never] * most)
    assert desk.get("export/report").status_code == 404
    assert sum(asked) == LOOK_BACK


MIXED = 'id,name\r\n1,Ana\r\n2,bad\r\n3,"two\r\nlines"\r\n4,refused\r\n,nobody\r\n5,skipped\r\n6\r\n7,Eva\r\n'
EXPECTED: list[dict[str, Any]] = [
    {"line": 2, "key": "1", "outcome": "delivered"},
    {"line": 3, "key": "2", "outcome": "invalid", "number": UNMAPPABLE, "reason": "it is bad", "field": "name"},
    {"line": 4, "key": "3", "outcome": "delivered"},
    {"line": 6, "key": "4", "outcome": "rejected", "number": REFUSED, "reason": "it is refused"},
    {"line": 7, "key": "uploads:LAUNCH:7", "outcome": "invalid", "number": 110, "reason": "it has no id",
     "field": "id"},
    {"line": 8, "key": "uploads:LAUNCH:8", "outcome": "filtered"},
    {"line": 9, "key": "uploads:LAUNCH:9", "outcome": "invalid", "number": UNMAPPABLE,
     "reason": "it has 1 fields, and the header has 2"},
    {"line": 10, "key": "7", "outcome": "delivered"},
]  # fmt: skip


def expected(launch: Launch) -> list[dict[str, Any]]:
    return [{**row, "key": row["key"].replace("LAUNCH", str(launch.id))} for row in EXPECTED]


def test_each_row_has_its_line_its_outcome_and_its_reason(desk: Desk) -> None:
    launch = sent(desk, MIXED)
    assert rows(desk, launch) == expected(launch)
    assert [list(row)[:3] for row in rows(desk, launch)] == [["line", "key", "outcome"]] * len(EXPECTED)


def test_results_are_csv_for_whoever_asks_for_it(desk: Desk) -> None:
    launch = sent(desk, MIXED.replace("1,Ana", "=1,Ana"), "open_import")
    answer = desk.get(f"open_import/{launch.id}/result", Accept="text/csv")
    assert (answer.status_code, answer.content_type) == (200, "text/csv; charset=utf-8")
    lines = answer.text.split("\r\n")
    assert lines[:3] == ["line,key,outcome,number,reason,field", "2,'=1,delivered,,,", "3,2,invalid,113,it is bad,name"]
    (header, *records) = csv.reader(io.StringIO(answer.text))
    found = [dict(zip(header, record, strict=True)) for record in records]
    assert [int(record["line"]) for record in found] == [row["line"] for row in EXPECTED]
    assert [record["outcome"] for record in found] == [row["outcome"] for row in EXPECTED]


def test_rows_of_many_groups_come_in_the_order_of_the_file(desk: Desk) -> None:
    count = 1000
    names = [
        "bad" if n % 7 == 0 else "refused" if n % 11 == 0 else "skipped" if n % 13 == 0 else "x" for n in range(count)
    ]
    launch = sent(desk, "id,name\r\n" + "".join(f"k{n},{name}\r\n" for n, name in enumerate(names)))
    assert desk.home.runs.get(launch.run).groups > 5  # type: ignore[union-attr]
    found = rows(desk, launch)
    assert [row["line"] for row in found] == list(range(2, count + 2))
    outcomes = {"bad": "invalid", "refused": "rejected", "skipped": "filtered", "x": "delivered"}
    assert [row["outcome"] for row in found] == [outcomes[name] for name in names]


def test_a_key_that_comes_twice_is_told_twice(desk: Desk) -> None:
    launch = sent(desk, "id,name\r\n1,old\r\n1,new\r\n")
    assert [(row["line"], row["key"]) for row in rows(desk, launch)] == [(2, "1"), (3, "1")]
    assert [row["outcome"] for row in rows(desk, launch)] == ["superseded", "delivered"]


def test_a_row_that_was_cured_since_is_told_with_its_present_outcome(desk: Desk) -> None:
    launch = sent(desk, "id,name\r\n1,Ana\r\n2,refused\r\n")
    assert rows(desk, launch)[1]["outcome"] == "rejected"
    (stream,) = desk.hub.streams(desk.hub.integration(NAME), "wide")
    (failure,) = desk.home.failures.find(FailureQuery(NAME, "wide"))
    mended = msgspec.structs.replace(stream, rules=msgspec.structs.replace(stream.rules, to_target=lambda row: {}))
    desk.handlers._streams["wide"] = mended
    replay(mended, desk.home, FailureQuery(NAME, "wide"), "mended", desk.notice)
    desk.work()
    assert rows(desk, launch) == [
        {"line": 2, "key": "1", "outcome": "delivered"},
        {"line": 3, "key": failure.key, "outcome": "delivered"},
    ]


def test_rows_are_told_without_lines_once_the_archive_is_gone(desk: Desk) -> None:
    launch = sent(desk, MIXED)
    for batch in desk.home.batches.of_run(launch.run):
        if batch.blob:
            desk.home.blobs.delete(batch.blob)
    found = rows(desk, launch)
    keyed = {row["key"]: row for row in found}
    assert keyed == {
        row["key"]: row if row["outcome"] != "delivered" else {"key": row["key"], "outcome": "delivered"}
        for row in expected(launch)
    }
    assert [row.get("line") for row in found[-3:]] == [None] * 3


def test_what_is_pending_is_told_as_pending(desk: Desk) -> None:
    assert desk.send("import/wide", "id,name\r\n1,Ana\r\n").status_code == 200
    (launch,) = desk.launches("wide")
    assert desk.handlers.go_on(b'{"integration":"%s","stream":"wide","launch":1}' % NAME.encode()).status == 204
    assert rows(desk, launch) == [{"line": 2, "key": "1", "outcome": "pending"}]


def test_rows_of_an_export_have_no_lines(desk: Desk, hold: Hold) -> None:
    hold("id,name\n1,Ana\n")
    desk.produce("report")
    (launch,) = desk.launches("report")
    (row,) = rows(desk, launch)
    assert (row["key"], row["outcome"]) == ("1", "delivered")
