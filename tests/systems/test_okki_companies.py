"""Reading OKKI by pages that are anchored nowhere: whatever leaves the window meanwhile, nobody else is missed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from shared.ends import Page
from shared.errors import BAD_VERSION, NO_SOURCE_ID, GuardTripped
from shared.record import version_at
from tests.systems.okki_script import AGES, WINDOW, Script, okki, scripted, source_of

Row = dict[str, Any]


def test_companies_are_read_by_pages_that_are_counted_from_1() -> None:
    with okki(customers=131) as sandbox, source_of(sandbox, "companies", page_size=10) as source:
        pages = list(source.pages(AGES, ""))
        total = source.total(AGES)
        again = list(source.pages(AGES, pages[4].after))
        stats = sandbox.okki.stats()
    found = [row.data["company_id"] for page in pages for row in page.rows]
    assert len(pages) == 13 and len(set(found)) == len(found) == total == 128
    assert [page.total for page in pages] == [128, *[None] * 12]
    assert [row for page in again for row in page.rows] == [row for page in pages[5:] for row in page.rows]
    assert stats["requests"]["GET /v1/company/list"] == 13 + 1 + 8
    row = pages[0].rows[0]
    at = datetime.fromisoformat(row.data["update_time"].replace(" ", "T") + "+08:00")
    assert row.version == version_at(at, row.data["company_id"])


def test_a_window_is_asked_for_in_the_time_of_china() -> None:
    script = Script(list={"list": [], "totalItem": "0", "count": 0})
    with scripted(script, "companies") as source:
        assert list(source.pages(WINDOW, "")) == []
    assert script.asked[-1][1] | {"start_index": "1"} == {
        "start_index": "1",
        "count": "100",
        "start_time": "2025-12-31 20:00:00",
        "end_time": "2026-01-01 20:00:00",
        "time_type": "1",
        "removed": "0",
    }


class Shelf:
    """A list of companies that others work on between two pages. `most` is the largest page it gives."""

    def __init__(self, count: int, most: int = 100) -> None:
        self.ids = list(range(1, count + 1))
        self.most = most
        self.afterwards: Callable[[int], None] = lambda number: None

    def __call__(self, query: Row) -> Row:
        number, size = int(query["start_index"]), min(self.most, int(query["count"]))
        part = self.ids[(number - 1) * size : number * size]
        answer = {"list": [company(each) for each in part], "totalItem": str(len(self.ids)), "count": len(part)}
        self.afterwards(number)
        return answer


def company(number: int) -> Row:
    return {"company_id": number, "update_time": "2026-01-01 10:00:00"}


def numbers(pages: list[Page]) -> list[int]:
    return [row.data["company_id"] for page in pages for row in page.rows]


@pytest.mark.parametrize("gone", [[1], [1, 2, 3, 4, 5, 6], list(range(1, 14)), [21], [25], list(range(14, 31))])
@pytest.mark.parametrize("page", [1, 2, 3, 4])
@pytest.mark.parametrize("resumed", [False, True])
def test_companies_that_leave_the_window_while_it_is_read_hide_nobody(
    gone: list[int], page: int, resumed: bool
) -> None:
    shelf = Shelf(47)

    def leave(number: int) -> None:
        if number == page:
            shelf.ids = [each for each in shelf.ids if each not in gone]

    shelf.afterwards = leave
    with scripted(Script(list=shelf), "companies", page_size=10) as source:
        pages = []
        for each in source.pages(WINDOW, ""):
            pages.append(each)
            if resumed and len(pages) == page:
                break
        if resumed:
            pages += source.pages(WINDOW, pages[-1].after)
    assert set(range(1, 48)) - set(gone) <= set(numbers(pages))
    tokens = [each.after for each in pages]
    assert len(set(tokens)) == len(tokens)


def test_pages_smaller_than_asked_for_are_no_end() -> None:
    with scripted(Script(list=Shelf(47, most=7)), "companies", page_size=10) as source:
        assert numbers(list(source.pages(WINDOW, ""))) == list(range(1, 48))


def test_without_a_total_an_empty_page_is_the_end() -> None:
    shelf = Shelf(20)
    with scripted(Script(list=lambda query: {"list": shelf(query)["list"]}), "companies", page_size=10) as source:
        assert numbers(list(source.pages(WINDOW, ""))) == list(range(1, 21))


def test_a_total_that_is_not_reached_is_left_for_the_engine_to_see() -> None:
    shelf = Shelf(15)
    script = Script(list=lambda query: shelf(query) | {"totalItem": 99})
    with scripted(script, "companies", page_size=10) as source:
        pages = list(source.pages(WINDOW, ""))
        assert (len(numbers(pages)), pages[0].total, source.total(WINDOW)) == (15, 99, 99)
    empty = Script(list={"list": [], "totalItem": 9})
    with scripted(empty, "companies") as source:
        assert [(page.rows, page.total) for page in source.pages(WINDOW, "")] == [((), 9)]


def test_a_page_that_comes_again_trips_a_guard() -> None:
    first = {"list": [company(each) for each in range(10)], "totalItem": 30}
    with scripted(Script(list=first), "companies", page_size=10) as source, pytest.raises(GuardTripped, match="again"):
        list(source.pages(WINDOW, ""))


def test_a_company_without_an_id_or_a_time_says_so() -> None:
    odd = [{"update_time": "2026-01-01 10:00:00"}, {"company_id": "5", "update_time": "yesterday"}, company(6)]
    with scripted(Script(list={"list": odd, "totalItem": 3}), "companies") as source:
        (page,) = source.pages(WINDOW, "")
    assert [row.problem and row.problem[0] for row in page.rows] == [NO_SOURCE_ID, BAD_VERSION, None]


@pytest.mark.parametrize(("read", "place"), [("users", "x"), ("companies", "x"), ("companies", "1:x:2")])
def test_a_place_that_is_none_trips_a_guard(read: str, place: str) -> None:
    with scripted(Script(), read) as source, pytest.raises(GuardTripped):
        list(source.pages(WINDOW, place))
