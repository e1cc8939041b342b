"""Exports of Prisma: one launch from its first row to its last, whatever breaks off, and nothing of another one."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from infra.systems.prisma import open_source
from infra.systems.prisma.source import PAGE_BYTES
from shared.ends import Page
from shared.errors import BAD_IDENTITY, NO_IDENTITY, UNMAPPABLE, AuthError, GuardTripped, ProtocolError, TransientError
from shared.tabular import IDENTITY
from tests.loopback import LOST, FakeClock, Reply, Request, reply
from tests.systems.prisma_script import (
    FIRST,
    SYNC,
    WINDOW,
    Prisma,
    Row,
    connection_to,
    listed,
    pages_of,
    rows_of,
    source_of,
)

HEADER = b"id,name\r\n"


def table(count: int, first: int = 1) -> bytes:
    return HEADER + b"".join(b'%d,"name ""%d"""\r\n' % (each, each) for each in range(first, first + count))


def exporting(*files: bytes) -> Prisma:
    """A data sync with a launch for each file."""
    prisma = Prisma()
    for file in files:
        prisma.launch(file=file)
    return prisma


def ids(rows: list[Row]) -> list[str]:
    return [row["id"] for row in rows]


def cut(file: bytes, at: int) -> Reply:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Length: %d\r\n\r\n" % len(file)
    return Reply(head + file[:at], close=True)


def test_rows_are_known_by_their_columns_and_stand_in_their_lines() -> None:
    file = b'\xef\xbb\xbfid;name\r\n7;"Ana; e\r\nfilhos"\r\n8;S\xc3\xa3o\r\n'
    (page,) = pages_of(exporting(file), key=["id"])
    assert [(row.origin, row.position, row.operation, row.problem) for row in page.rows] == [
        ("7", "2", "upsert", None),
        ("8", "4", "upsert", None),
    ]
    assert [row.data for row in page.rows] == [
        {"id": "7", "name": "Ana; e\r\nfilhos", IDENTITY: "7"},
        {"id": "8", "name": "São", IDENTITY: "8"},
    ]
    assert page.rows[0].version < page.rows[1].version


def test_without_a_key_a_row_is_known_by_its_content_and_two_equal_ones_are_two() -> None:
    rows = rows_of(exporting(b"a\r\nx\r\ny\r\nx\r\n"))
    assert [row["a"] for row in rows] == ["x", "y", "x"]
    assert len({row[IDENTITY] for row in rows}) == 3
    again = rows_of(exporting(b"a\r\nnew\r\nx\r\nx\r\ny\r\n"))
    assert {row[IDENTITY] for row in rows} < {row[IDENTITY] for row in again}


def test_the_latest_launch_that_went_well_is_read() -> None:
    prisma = exporting(table(1), table(2), table(3))
    prisma.launch(message="no campaign", file=table(4))
    prisma.launch("running", file=table(5))
    prisma.launch("cancelled", file=table(6))
    prisma.launches.sort(key=lambda each: each["id"] % 7)
    assert len(rows_of(prisma)) == 3
    assert prisma.asked == ["latest-launches", "download"]


@pytest.mark.parametrize(("message", "rows"), [("3 of 9 rows were refused", 2), ("9 of 9 rows were refused", 1)])
def test_one_that_lacks_some_rows_went_well_and_one_that_lacks_all_did_not(message: str, rows: int) -> None:
    prisma = exporting(table(1))
    prisma.launch(message=message, file=table(2))
    assert len(rows_of(prisma)) == rows


def test_a_past_launch_is_read_by_its_number_and_nobody_is_asked_for_the_latest() -> None:
    prisma = exporting(table(1), table(2), table(3))
    assert len(rows_of(prisma, launch=FIRST + 1000)) == 2
    assert prisma.asked == ["download"]


@pytest.mark.parametrize("told", [listed([]), reply(200, b"[{:id 1642190400000}]"), reply(200, b"<html>")])
def test_where_no_launch_is_told_the_latest_file_is_read(told: Reply) -> None:
    prisma = exporting(table(2))
    prisma.instead["latest-launches"] = [told]
    with source_of(prisma) as (server, source):
        (page,) = source.pages(WINDOW, "")
    assert ids([row.data for row in page.rows]) == ["1", "2"]
    assert server.requests[-1].target == f"/api/data-sync/export/{SYNC}"


def test_a_file_is_asked_for_as_any_client_would() -> None:
    with source_of(exporting(table(1))) as (server, source):
        list(source.pages(WINDOW, ""))
        assert source.location == f"{server.url}/api/data-sync/{SYNC}"
        assert (source.system, source.total(WINDOW)) == ("prisma", None)
    asked, downloaded = server.requests
    assert asked.headers["accept"] == asked.headers["content-type"] == "application/json"
    assert downloaded.target == f"/api/data-sync/{SYNC}/{FIRST}/download"
    assert downloaded.headers["accept"] == "*/*"
    assert downloaded.headers["authorization"] == asked.headers["authorization"]


def test_a_row_that_cannot_be_read_keeps_no_other_from_being_read() -> None:
    file = b'id,name\r\n1,a\r\n2\r\n3,\xff\r\n,nobody\r\n4,"b" c\r\n5,e\r\n'
    (page,) = pages_of(exporting(file), key=["id"])
    problems = {row.position: row.problem[0] for row in page.rows if row.problem is not None}
    assert problems == {"3": UNMAPPABLE, "4": UNMAPPABLE, "5": NO_IDENTITY, "6": UNMAPPABLE}
    assert BAD_IDENTITY not in problems.values()
    assert ids([row.data for row in page.rows if row.problem is None]) == ["1", "5"]


def test_an_export_without_rows_has_no_page() -> None:
    assert pages_of(exporting(HEADER)) == []


# Pages.


@pytest.mark.parametrize("key", [["id"], []])
@pytest.mark.parametrize("size", [1, 3, 10, 100])
def test_reading_goes_on_behind_any_page(key: list[str], size: int) -> None:
    prisma = exporting(table(10))
    whole = pages_of(prisma, page_size=100, key=key)[0].rows
    pages = pages_of(prisma, page_size=size, key=key)
    assert [len(page.rows) for page in pages] == [len(whole[start : start + size]) for start in range(0, 10, size)]
    for place, page in enumerate(pages, 1):
        rest = pages_of(prisma, page.after, page_size=size, key=key)
        assert [row for each in rest for row in each.rows] == list(whole[place * size :])


def test_a_page_ends_where_it_is_too_heavy() -> None:
    file = b"id,name\r\n" + b"".join(b"%d,%s\r\n" % (each, b"x" * 900_000) for each in range(12))
    pages = pages_of(exporting(file), page_size=1000)
    assert [len(page.rows) for page in pages] == [-(-PAGE_BYTES // 900_004)] * 2 + [2]


def test_whoever_goes_on_reads_the_launch_that_was_begun() -> None:
    prisma = exporting(table(6))
    first, *_ = pages_of(prisma, page_size=2)
    prisma.launch(file=table(6, first=100))
    assert ids(rows_of(prisma, first.after)) == ["3", "4", "5", "6"]
    assert ids(rows_of(prisma)) == [str(each) for each in range(100, 106)]


def resumed(prisma: Prisma, change: Callable[[Prisma], object], **named: Any) -> list[Row]:
    first, *_ = pages_of(prisma, page_size=2, **named)
    change(prisma)
    return rows_of(prisma, first.after, **named)


@pytest.mark.parametrize(
    "other", [table(5, first=2), table(1), HEADER, b"id,other\r\n" + table(6)[9:], table(6).replace(b"2", b"9", 1)]
)
def test_a_file_that_is_another_one_by_now_trips_the_guard(other: bytes) -> None:
    prisma = exporting(table(6))
    with pytest.raises(GuardTripped, match="changed while it was read"):
        resumed(prisma, lambda it: it.files.update({FIRST: other}))


def test_so_does_the_latest_file_where_no_launch_was_told() -> None:
    prisma = exporting(table(6))
    prisma.instead["latest-launches"] = [listed([]), listed([])]
    assert ids(resumed(prisma, lambda it: None)) == ["3", "4", "5", "6"]
    prisma.instead["latest-launches"] = [listed([])]
    with pytest.raises(GuardTripped, match="changed while it was read"):
        resumed(prisma, lambda it: it.launch(file=table(6, first=100)))


def test_a_launch_that_vanished_trips_the_guard() -> None:
    prisma = exporting(table(6))
    with pytest.raises(GuardTripped, match=f"does not hold launch {FIRST}"):
        resumed(prisma, lambda it: it.files.clear())
    with pytest.raises(GuardTripped, match="does not hold launch 7"):
        rows_of(prisma, launch="7")


def test_a_token_of_something_else_trips_the_guard() -> None:
    with pytest.raises(GuardTripped, match="no place in an export"):
        rows_of(exporting(table(1)), "17")


# Faults.


@pytest.mark.parametrize("at", [0, 5, len(HEADER), 40, 45, 100])
def test_a_file_that_breaks_off_is_gone_on_with_and_each_row_is_read_once(at: int) -> None:
    prisma = exporting(table(30))
    prisma.instead["download"] = [cut(table(30), at), cut(table(30), at + 60)]
    clock = FakeClock()
    assert ids(rows_of(prisma, page_size=2, clock=clock)) == [str(each) for each in range(1, 31)]
    assert prisma.asked == ["latest-launches", *["download"] * 3]
    assert len(clock.slept) == 2


def test_one_that_breaks_off_each_time_at_the_same_place_is_a_passing_failure() -> None:
    prisma = exporting(table(30))
    prisma.instead["download"] = [cut(table(30), 100)] * 9
    pages: list[Page] = []
    with source_of(prisma, page_size=2) as (_, source), pytest.raises(TransientError):
        pages += source.pages(WINDOW, "")
    assert prisma.asked.count("download") == 3


def test_one_that_comes_further_each_time_is_read_to_its_end() -> None:
    prisma = exporting(table(30))
    size = len(table(30))
    prisma.instead["download"] = [cut(table(30), at) for at in range(40, size, size // 12)]
    assert len(rows_of(prisma, page_size=1)) == 30
    assert prisma.asked.count("download") > 10


@pytest.mark.parametrize("call", ["latest-launches", "download"])
@pytest.mark.parametrize("given", [reply(500, b"No se pudo descargar"), reply(503), reply(429), LOST])
def test_what_may_pass_is_asked_for_again(call: str, given: Reply) -> None:
    prisma = exporting(table(2))
    prisma.instead[call] = [given, given]
    assert len(rows_of(prisma)) == 2
    prisma.instead[call] = [given] * 3
    with pytest.raises(TransientError):
        rows_of(prisma)


@pytest.mark.parametrize(
    ("call", "given", "error"),
    [
        ("latest-launches", reply(403), AuthError),
        ("latest-launches", reply(404), AuthError),
        ("download", reply(403), AuthError),
        ("download", reply(302), ProtocolError),
        ("download", reply(400), ProtocolError),
        ("download", reply(200, b"<p>sign in</p>", {"Content-Type": "text/html; charset=utf-8"}), ProtocolError),
        ("download", reply(200, b'{"error": 1}', {"Content-Type": "application/json"}), ProtocolError),
        ("download", reply(200, b""), GuardTripped),
        ("download", reply(200, b"\r\n1,2\r\n"), GuardTripped),
        ("download", reply(200, b"id,id\r\n1,2\r\n"), GuardTripped),
        ("download", reply(200, "id,name\r\n".encode("utf-16")), GuardTripped),
        ("download", reply(200, b"name\r\nx\r\n"), GuardTripped),
    ],
)
def test_an_answer_that_is_no_export_is_none(call: str, given: Reply, error: type[Exception]) -> None:
    prisma = exporting(table(2))
    prisma.instead[call] = [given]
    with pytest.raises(error):
        rows_of(prisma, key=["id"])


def test_an_unknown_data_sync_is_said_to_be_one_where_no_launch_is_told_either() -> None:
    prisma = Prisma()
    with pytest.raises(AuthError, match=f"no data sync {SYNC}"):
        rows_of(prisma)


def test_a_large_export_is_never_whole_in_memory() -> None:
    prisma = exporting(b"id,name\r\n" + b"".join(b"%d,%s\r\n" % (each, b"n" * 190) for each in range(40_000)))
    body = prisma(Request("GET", f"/api/data-sync/{SYNC}/{FIRST}/download", {}, b""))
    prisma.instead["download"] = [body]
    assert len(body.raw) > 7_000_000
    with source_of(prisma, page_size=200, key=["id"]) as (_, source):
        pages = source.pages(WINDOW, "")
        next(pages)
        tracemalloc.start()
        try:
            rows = 200 + sum(len(page.rows) for page in pages)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert rows == 40_000
    assert peak < 2_000_000


def test_the_clock_is_our_own() -> None:
    clock = FakeClock()
    source = open_source(connection_to("http://localhost:1", clock=clock), "export")
    assert source.now() == clock.now()
    source.close()
