"""Reading Ploomes: nothing that stays in the window is lost, nothing is given twice, whatever moves meanwhile."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.quantities import Rate
from infra.systems import Connection
from infra.systems.ploomes import Ploomes, open_source
from shared.books import Window
from shared.ends import Page, Source
from shared.errors import BAD_VERSION, NO_SOURCE_ID, AuthError, ConfigError, GuardTripped, ProtocolError, TransientError
from shared.record import version_at
from shared.retry import RetryPolicy
from tests.loopback import FakeClock, Loopback, Reply, Request, reply
from tests.sandbox import Sandbox

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
WINDOW = Window(NOON - timedelta(days=1), NOON)
BEFORE = "2026-01-01T08:00:00.5-03:00"
Rows = list[dict[str, Any]]


def rows_of(*ids: int) -> Rows:
    return [{"Id": each, "LastUpdateDate": BEFORE} for each in ids]


class Contacts:
    """A Ploomes of one set, which does to every answer what a test wants of it."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.counts = True
        self.asked: list[dict[str, str]] = []
        self.shorten: Callable[[int, Rows], Rows] = lambda number, page: page
        self.afterwards: Callable[[int], None] = lambda number: None
        self.show: Callable[[Rows], Any] = lambda page: page
        self._lock = Lock()

    def __call__(self, request: Request) -> Reply:
        query = {name: values[0] for name, values in parse_qs(urlsplit(request.target).query).items()}
        with self._lock:
            self.asked.append(query)
            number = len(self.asked)
            found = [row for row in self.rows if self.matches(row, query)]
            found.sort(key=lambda row: int(row["Id"]))
            skip, top = int(query.get("$skip", 0)), int(query["$top"])
            page = self.shorten(number, found[skip : skip + top])
            body: dict[str, Any] = {"value": self.show(page)}
            if query.get("$count") == "true" and self.counts:
                body["@odata.count"] = len(found)
            self.afterwards(number)
        return reply(200, msgspec.json.encode(body), {"Date": "Thu, 01 Jan 2026 12:00:00 GMT"})

    @staticmethod
    def matches(row: dict[str, Any], query: dict[str, str]) -> bool:
        text = query.get("$filter", "")
        since, until = re.findall(r"LastUpdateDate \w\w (\S+)", text) or (
            "1970-01-01T00:00:00Z",
            "2999-01-01T00:00:00Z",
        )
        above = int((re.findall(r"Id gt (\d+)", text) or ["0"])[0])
        changed = datetime.fromisoformat(row["LastUpdateDate"])
        return datetime.fromisoformat(since) <= changed < datetime.fromisoformat(until) and int(row["Id"]) > above


@contextmanager
def source_of(
    handler: Callable[[Request], Reply],
    page_size: int = 5,
    retry: RetryPolicy | None = None,
    rate: Rate | None = None,
    clock: FakeClock | None = None,
    stopping: Callable[[], bool] = lambda: False,
    read: str = "Contacts",
) -> Iterator[Ploomes]:
    with Loopback(handler) as server:
        connection = Connection(
            server.url,
            {"PLOOMES_USER_KEY": "F00D"},
            rate,
            page_size,
            retry or RetryPolicy(3, 0.01),
            clock or FakeClock(),
            None,
            stopping,
        )
        source = open_source(connection, read)
        try:
            yield source
        finally:
            source.close()


def ids(pages: list[Page]) -> list[int]:
    return [row.data["Id"] for page in pages for row in page.rows]


def test_a_page_is_asked_for_by_window_and_id() -> None:
    contacts = Contacts(rows_of(*range(1, 4)))
    with source_of(contacts) as source:
        (page,) = source.pages(WINDOW, "")
        assert source.location.endswith("/Contacts")
    assert contacts.asked[0] == {
        "$filter": "LastUpdateDate ge 2025-12-31T12:00:00Z and LastUpdateDate lt 2026-01-01T12:00:00Z and Id gt 0",
        "$orderby": "Id asc",
        "$top": "5",
        "$expand": "Phones,Tags,City($expand=State)",
        "$count": "true",
    }
    assert (page.after, page.total) == ("3", 3)
    row = page.rows[0]
    assert (row.origin, row.position, row.problem) == ("1", "Contacts(1)", None)
    assert row.version == version_at(datetime(2026, 1, 1, 11, 0, 0, 500_000, tzinfo=UTC), 1)


@pytest.mark.parametrize("read", ["Tasks", "InteractionRecords"])
def test_what_belongs_to_a_contact_is_read_with_it(read: str) -> None:
    contacts = Contacts(rows_of(*range(1, 9)))
    with source_of(contacts, read=read) as source:
        rows = [row for page in source.pages(WINDOW, "") for row in page.rows]
        assert source.location.endswith(f"/{read}")
    assert contacts.asked[0]["$expand"] == (
        "Tags,Contact($select=Id,Name,LegalName,TypeId,Register,CNPJ,CPF,Email;$expand=Phones)"
    )
    assert [row.position for row in rows] == [f"{read}({each})" for each in range(1, 9)]


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_every_row_is_given_once_and_in_order(size: int, counts: bool) -> None:
    contacts = Contacts(rows_of(*range(1, 48)))
    contacts.counts = counts
    with source_of(contacts, size) as source:
        pages = list(source.pages(WINDOW, ""))
    assert ids(pages) == list(range(1, 48))
    assert [page.after for page in pages] == [str(page.rows[-1].data["Id"]) for page in pages]
    assert [page.total for page in pages] == [47 if counts else None] + [None] * (len(pages) - 1)


def test_reading_ahead_takes_hardly_more_answers_than_reading_one_after_the_other() -> None:
    contacts = Contacts(rows_of(*range(1, 501)))
    with source_of(contacts, 50) as source:
        assert ids(list(source.pages(WINDOW, ""))) == list(range(1, 501))
    assert len(contacts.asked) <= 500 // 49 + 3
    assert any("$skip" in query for query in contacts.asked)


def test_reading_goes_on_after_a_token() -> None:
    contacts = Contacts(rows_of(*range(1, 48)))
    with source_of(contacts, 10) as source:
        first = next(iter(source.pages(WINDOW, "")))
        pages = list(source.pages(WINDOW, first.after))
    assert ids(pages) == list(range(11, 48))
    assert all(page.total is None for page in pages)


def test_an_empty_window_is_one_answer() -> None:
    contacts = Contacts([])
    with source_of(contacts) as source:
        assert list(source.pages(WINDOW, "")) == []
    assert len(contacts.asked) == 1


def test_a_source_that_counts_rows_and_gives_none_is_reported() -> None:
    contacts = Contacts(rows_of(1, 2))
    contacts.shorten = lambda number, page: []
    with source_of(contacts) as source:
        (page,) = source.pages(WINDOW, "")
    assert (list(page.rows), page.after, page.total) == ([], "", 2)


@st.composite
def troubles(draw: st.DrawFn) -> dict[str, Any]:
    """What happens after which answer: rows touched, gone or late, and which answers are short."""
    number = draw(st.integers(0, 60))
    places = st.integers(1, 60)
    return {
        "number": number,
        "size": draw(st.integers(1, 12)),
        "counts": draw(st.booleans()),
        "touched": draw(st.dictionaries(places, st.integers(1, 12), max_size=8)),
        "gone": draw(st.dictionaries(places, st.integers(1, 12), max_size=8)),
        "late": draw(st.dictionaries(st.integers(61, 90), st.integers(1, 12), max_size=4)),
        "short": draw(st.dictionaries(st.integers(1, 30), st.integers(1, 11), max_size=8)),
    }


@settings(max_examples=150, deadline=None)
@given(troubles())
def test_whatever_moves_nothing_is_lost_and_nothing_given_twice(trouble: dict[str, Any]) -> None:
    contacts = Contacts(rows_of(*range(2, 2 * trouble["number"] + 2, 2)))
    contacts.counts = trouble["counts"]

    def move(number: int) -> None:
        moved = {2 * each for name in ("touched", "gone") for each, at in trouble[name].items() if at == number}
        gone = {2 * each for each, at in trouble["gone"].items() if at == number}
        contacts.rows = [
            row | {"LastUpdateDate": "2026-01-01T12:00:05Z"} if row["Id"] in moved else row
            for row in contacts.rows
            if row["Id"] not in gone
        ]
        contacts.rows += rows_of(*(2 * each - 101 for each, at in trouble["late"].items() if at == number))

    contacts.afterwards = move
    contacts.shorten = lambda number, page: page[: trouble["short"].get(number, len(page))]
    with source_of(contacts, trouble["size"]) as source:
        given_ids = ids(list(source.pages(WINDOW, "")))
    assert given_ids == sorted(set(given_ids))
    moved = {2 * each for name in ("touched", "gone") for each in trouble[name]}
    stayed = set(range(2, 2 * trouble["number"] + 2, 2)) - moved
    assert stayed <= set(given_ids)


def test_a_shift_under_the_pages_read_ahead_is_noticed() -> None:
    contacts = Contacts(rows_of(*range(1, 101)))

    def lose_one_and_gain_one(number: int) -> None:
        if number == 2:
            contacts.rows = [row for row in contacts.rows if row["Id"] != 15] + rows_of(1000)

    contacts.afterwards = lose_one_and_gain_one
    with source_of(contacts, 10) as source:
        found = ids(list(source.pages(WINDOW, "")))
    assert found == sorted(set(found))
    assert set(range(1, 101)) - {15} <= set(found)


@pytest.mark.parametrize(
    "page",
    [rows_of(3, 2), rows_of(2, 2), rows_of(1, 2, 3, 4, 5, 5)],
    ids=["descending", "repeated", "repeated at the end"],
)
def test_ids_that_do_not_ascend_trip_the_guard(page: Rows) -> None:
    contacts = Contacts(rows_of(1, 2, 3))
    contacts.show = lambda _: page
    with source_of(contacts) as source, pytest.raises(GuardTripped):
        list(source.pages(WINDOW, ""))


def test_a_page_that_comes_again_trips_the_guard() -> None:
    contacts = Contacts(rows_of(*range(1, 30)))
    contacts.show = lambda _: rows_of(1, 2, 3, 4, 5)
    with source_of(contacts) as source, pytest.raises(GuardTripped):
        list(source.pages(WINDOW, ""))


@pytest.mark.parametrize("after", ["x", "-5", "1.5", "\u0665"])
def test_a_token_that_is_not_ours_trips_the_guard(after: str) -> None:
    with source_of(Contacts([])) as source, pytest.raises(GuardTripped):
        list(source.pages(WINDOW, after))


@pytest.mark.parametrize("size", [2, 3, 4, 30])
def test_rows_without_id_or_date_are_given_as_such_and_once(size: int) -> None:
    odd = {4: {"LastUpdateDate": BEFORE}, 7: "no object", 8: {"Id": None, "x": 1}, 12: {"Id": "12"}}
    dates = {5: "soon", 6: None, 9: "2026-01-01T08:00:00", 10: "0001-01-01T00:00:00+03:00", 11: 5}
    contacts = Contacts(rows_of(*range(1, 13)))

    def show(page: Rows) -> list[Any]:
        return [odd.get(r["Id"], r | {"LastUpdateDate": dates[r["Id"]]} if r["Id"] in dates else r) for r in page]

    contacts.show = show
    if size == 2:
        # Rows 7 and 8 fill a page: its token could not move.
        with source_of(contacts, size) as source, pytest.raises(ProtocolError):
            list(source.pages(WINDOW, ""))
        return
    with source_of(contacts, size) as source:
        pages = list(source.pages(WINDOW, ""))
    rows = [row for page in pages for row in page.rows]
    nameless = [row for row in rows if row.problem is not None and row.problem[0] == NO_SOURCE_ID]
    undated = [row for row in rows if row.problem is not None and row.problem[0] == BAD_VERSION]
    assert len(rows) == 12
    assert [row.data for row in nameless] == [
        {"LastUpdateDate": BEFORE},
        {"row": "no object"},
        {"Id": None, "x": 1},
        {"Id": "12"},
    ]
    assert len({row.position for row in nameless}) == 4
    assert all(re.fullmatch(r"page-after:\d* row:\d+", row.position) and not row.origin for row in nameless)
    assert [row.origin for row in undated] == ["5", "6", "9", "10", "11"]
    assert [row.origin for row in rows if row.problem is None] == ["1", "2", "3"]


@pytest.mark.parametrize("fraction", ["", ".1", ".12", ".123", ".1234567"])
@pytest.mark.parametrize("offset", ["Z", "-03:00", "+09:00"])
def test_dates_are_read_in_every_precision_and_zone(fraction: str, offset: str) -> None:
    contacts = Contacts([{"Id": 1, "LastUpdateDate": f"2026-01-01T08:00:00{fraction}{offset}"}])
    with source_of(contacts) as source:
        (page,) = source.pages(WINDOW, "")
    hours = {"Z": 0, "-03:00": -3, "+09:00": 9}[offset]
    micro = int(fraction[1:].ljust(6, "0")[:6]) if fraction else 0
    instant = datetime(2026, 1, 1, 8, 0, 0, micro, tzinfo=timezone(timedelta(hours=hours)))
    assert page.rows[0].version == version_at(instant, 1)


@pytest.mark.parametrize("odd", [b"<html>", b"{}", b'{"value": 3}', b"[]", b""])
def test_an_answer_that_is_no_page_is_asked_for_again_and_then_refused(odd: bytes) -> None:
    contacts = Contacts(rows_of(*range(1, 9)))
    times = [2]

    def sometimes(request: Request) -> Reply:
        times[0] -= 1
        return reply(200, odd) if times[0] >= 0 else contacts(request)

    with source_of(sometimes) as source:
        assert ids(list(source.pages(WINDOW, ""))) == list(range(1, 9))
        times[0] = 1000
        with pytest.raises(ProtocolError):
            list(source.pages(WINDOW, ""))


@pytest.mark.parametrize("status", [302, 400, 404])
def test_an_undocumented_status_is_refused(status: int) -> None:
    with source_of(lambda request: reply(status)) as source, pytest.raises(ProtocolError):
        list(source.pages(WINDOW, ""))


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_told(status: int) -> None:
    with source_of(lambda request: reply(status)) as source, pytest.raises(AuthError):
        source.total(WINDOW)


def test_an_outage_in_the_middle_keeps_what_was_given() -> None:
    contacts = Contacts(rows_of(*range(1, 31)))

    def until_then(request: Request) -> Reply:
        return contacts(request) if len(contacts.asked) < 2 else reply(503)

    with source_of(until_then) as source:
        pages = source.pages(WINDOW, "")
        assert ids([next(pages)]) == [1, 2, 3, 4, 5]
        with pytest.raises(TransientError):
            list(pages)


def test_the_total_and_the_clock_are_the_sources_own() -> None:
    contacts = Contacts(rows_of(1, 2, 3))
    clock = FakeClock()
    with source_of(contacts, clock=clock) as source:
        assert source.now() == NOON
        clock.at += 7
        assert source.now() == NOON + timedelta(seconds=7)
        assert len(contacts.asked) == 1
        assert source.total(WINDOW) == 3
        contacts.counts = False
        assert source.total(WINDOW) is None


def test_without_a_date_the_clock_is_ours() -> None:
    clock = FakeClock()
    with source_of(lambda request: reply(200, b'{"value":[]}'), clock=clock) as source:
        assert source.now() == clock.now()


def test_the_pace_is_kept_while_reading_ahead() -> None:
    clock = FakeClock()
    contacts = Contacts(rows_of(*range(1, 200)))
    with source_of(contacts, 10, rate=Rate(60, 60.0), clock=clock) as source:
        assert ids(list(source.pages(WINDOW, ""))) == list(range(1, 200))
    assert clock.at - 1000 >= len(contacts.asked) - 1


def test_a_reader_who_stops_early_leaves_nothing_under_way() -> None:
    contacts = Contacts(rows_of(*range(1, 200)))
    with source_of(contacts, 10) as source:
        pages = source.pages(WINDOW, "")
        next(pages)
        next(pages)
        pages.close()  # type: ignore[attr-defined]
    assert len(contacts.asked) <= 6


@pytest.mark.parametrize(
    ("read", "size", "secrets"),
    [
        ("Deals", 5, {"PLOOMES_USER_KEY": "F"}),
        ("Contacts", 301, {"PLOOMES_USER_KEY": "F"}),
        ("Contacts", 0, {}),
        ("Contacts", 5, {}),
    ],
)
def test_what_cannot_be_opened_is_a_mistake_of_the_configuration(read: str, size: int, secrets: dict[str, str]) -> None:
    connection = Connection("http://localhost", secrets, None, size, RetryPolicy(), FakeClock(), None, lambda: False)
    with pytest.raises(ConfigError):
        open_source(connection, read)


def sandbox_source(sandbox: Sandbox, page_size: int = 300) -> Source:
    connection = Connection(
        sandbox.environment["PLOOMES_URL"],
        {"PLOOMES_USER_KEY": sandbox.environment["PLOOMES_USER_KEY"]},
        None,
        page_size,
        RetryPolicy(12, 0.01),
        FakeClock(),
        None,
        lambda: False,
    )
    return open_source(connection, "Contacts")


@pytest.mark.parametrize(
    "faults",
    [
        "",
        "short_pages=40%",
        "churn=30%",
        "churn=30%,short_pages=30%,ties=50",
        "429=20%,retry_after=1,503=10%,502=10%,500=10%",
        "drop_before=20%",
        "not_json=15%,no_value=15%",
        "bad_rows=9",
        "cap=70",
        "cap=5000,wrong_total=3",
    ],
)
@pytest.mark.parametrize("page_size", [300, 37])
def test_against_the_sandbox(faults: str, page_size: int) -> None:
    with Sandbox(customers=500, ploomes_per_minute=None, seed=3) as sandbox:
        before = set(sandbox.ploomes.contacts)
        source = sandbox_source(sandbox, page_size)
        try:
            window = Window(datetime(2020, 1, 1, tzinfo=UTC), source.now())
            sandbox.ploomes.set_faults(faults_of(faults))
            rows = [row for page in source.pages(window, "") for row in page.rows]
        finally:
            source.close()
        moved = {each for ids in sandbox.ploomes.churned.values() for each in ids}
    found = [int(row.origin) for row in rows if row.origin]
    assert found == sorted(set(found))
    assert len({(row.origin, row.position) for row in rows}) == len(rows)
    nameless = sum(row.problem is not None and not row.origin for row in rows)
    assert len((before - moved) - set(found)) == nameless
    if faults == "bad_rows=9":
        assert len(rows) == 500
        assert sum(row.problem is not None for row in rows) == 9


def faults_of(text: str) -> Any:
    from tests.sandbox.faults import parse

    return parse(text, ["ploomes"])["ploomes"]
