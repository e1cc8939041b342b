"""Finding contacts in Ploomes: only the very document counts, and only an empty page says that there is none."""

from __future__ import annotations

from typing import Any

import pytest

from shared.ends import Change
from shared.errors import NOT_ASKED
from shared.outcome import Absent, Found, Passing
from tests.loopback import Reply, reply
from tests.systems.ploomes_account import (
    CNPJ,
    CONTENT,
    CPF,
    CREATE,
    ROW,
    UPDATE,
    account,
    found,
    methods,
    once,
    query_of,
)


def probe_of(change: Change, *rows: Any) -> Any:
    with account(GET=once(found(*rows), found())) as (_, sink):
        (probe,) = sink.find([change])
    return probe


def test_a_persons_document_is_asked_for_as_people_write_it_too() -> None:
    with account() as (server, sink):
        sink.find([Change(CPF, "upsert", {})])
    assert "Register eq '529.982.247-25'" in query_of(server.requests[0])["$filter"]


OTHERS = [{"Id": each, "Register": "1"} for each in range(1, 301)]


@pytest.mark.parametrize(
    "odd",
    [
        reply(200, b"[]"),
        reply(200, b"{}"),
        reply(200, b"<html>"),
        reply(200, b'{"value": null}'),
        reply(400, b'{"error": {"message": "The query is not valid."}}'),
        reply(404),
        reply(400, b'{"value": []}'),
        found({"Register": CNPJ, "Id": "5"}),
        found({"Register": CNPJ}),
        found({"Register": "1", "Id": 5}),
        found("odd"),
        found(*OTHERS),
    ],
)
def test_nothing_is_written_on_the_word_of_a_search_that_says_nothing(odd: Reply) -> None:
    with account(GET=odd) as (server, sink):
        (answer,) = sink.write([CREATE])
        (probe,) = sink.find([CREATE])
    assert isinstance(answer, Passing)
    assert isinstance(probe, Passing)
    assert (answer.number, probe.number) == (NOT_ASKED, NOT_ASKED)
    assert set(methods(server)) == {"GET"}
    assert len(server.requests) <= 4


def test_a_page_full_of_others_is_not_read_on_for_ever() -> None:
    with account(GET=once(found(*OTHERS), found())) as (server, sink):
        (probe,) = sink.find([CREATE])
    assert isinstance(probe, Passing)
    assert len(server.requests) == 1


def test_a_short_page_does_not_hide_the_contact() -> None:
    pages = [found(ROW), found({"Id": 3, "Register": "1"})]
    with account(GET=lambda request: pages.pop()) as (server, sink):
        (probe,) = sink.find([CREATE])
    assert isinstance(probe, Found)
    assert probe.target_id == "5"
    assert query_of(server.requests[1])["$filter"].endswith(" and Id gt 3")


@pytest.mark.parametrize(
    "near",
    [
        {"Register": CNPJ + "0"},
        {"Register": CPF, "CNPJ": CNPJ},
        {"Register": "16727230000198"},
        {"Register": None, "CNPJ": None, "CPF": None},
        {"Register": 16727230000197},
    ],
)
def test_only_the_very_document_counts(near: dict[str, Any]) -> None:
    assert probe_of(CREATE, {"Id": 5, **near}) == Absent()


@pytest.mark.parametrize(
    "held",
    [
        {"Register": CNPJ},
        {"Register": "16.727.230/0001-97"},
        {"Register": "", "CNPJ": CNPJ},
        {"Register": None, "CNPJ": "", "CPF": CNPJ},
    ],
)
def test_the_document_counts_in_each_field_that_may_hold_it(held: dict[str, Any]) -> None:
    row = {name: value for name, value in ROW.items() if name != "Register"} | held
    version = "2026-01-01T11:00:00.500000~000000000005"
    assert probe_of(CREATE, row) == Found("5", True, row, stays=True, version=version)


@pytest.mark.parametrize(
    ("dates", "meant"),
    [
        ({1: "2026-01-01T08:00:00-03:00", 2: "2026-01-01T09:00:00Z", 3: "2025-12-31T08:00:00-03:00"}, "1"),
        ({1: "2026-01-01T08:00:00-03:00", 2: "2026-01-01T11:00:00.000Z"}, "2"),
        ({1: None, 2: "soon", 3: "2020-01-01T00:00:00Z", 4: None}, "3"),
        ({1: None, 2: "0001-01-01T00:00:00+03:00"}, "2"),
    ],
)
def test_of_several_contacts_the_one_changed_last_is_meant(dates: dict[int, Any], meant: str) -> None:
    rows = [ROW | {"Id": each, "LastUpdateDate": at} for each, at in dates.items()]
    assert probe_of(CREATE, *rows).target_id == meant
    assert probe_of(CREATE, *reversed(rows)).target_id == meant


def test_a_known_contact_is_found_by_its_id_else_by_its_document() -> None:
    with account(GET=found(ROW | {"Name": "Beta"})) as (server, sink):
        (probe,) = sink.find([UPDATE])
    assert isinstance(probe, Found)
    assert (probe.target_id, probe.same) == ("5", False)
    assert query_of(server.requests[0])["$filter"] == "Id eq 5"
    assert query_of(server.requests[0])["$expand"] == "Phones,Tags,City($expand=State)"
    with account(GET=once(found(), found(ROW | {"Id": 6}))) as (server, sink):
        (probe,) = sink.find([UPDATE])
    assert isinstance(probe, Found)
    assert probe.target_id == "6"
    with account(GET=once(found({"Id": 7, "Register": CPF}), found())) as (_, sink):
        assert list(sink.find([UPDATE])) == [Absent()]


@pytest.mark.parametrize(
    "key",
    [
        "",
        "x' or Id gt 0 or Name eq 'y",
        "16727230000198",
        "ploomes:5",
        "11111111111",
        "12abc34501de35",
        "529.982.247-25",
        "\u0665\u0662\u0669\u0669\u0668\u0662\u0662\u0664\u0667\u0662\u0665",
    ],
)
def test_nothing_but_a_document_is_put_into_a_question(key: str) -> None:
    with account() as (server, sink):
        (probe,) = sink.find([Change(key, "upsert", CONTENT)])
        (answer,) = sink.write([Change(key, "upsert", CONTENT)])
    assert isinstance(probe, Passing)
    assert isinstance(answer, Passing)
    assert server.requests == []


@pytest.mark.parametrize("target", ["5)/Delete", "x", "-5", "5 or 1 eq 1", "\u0665", "9" * 30])
@pytest.mark.parametrize("operation", ["upsert", "delete"])
def test_nothing_but_a_number_is_taken_for_an_id(target: str, operation: Any) -> None:
    change = Change(CNPJ, operation, CONTENT, target_id=target)
    with account() as (server, sink):
        (probe,) = sink.find([change])
        (answer,) = sink.write([change])
    assert isinstance(probe, Passing)
    assert isinstance(answer, Passing)
    assert server.requests == []


PERSON = {"Name": "Maria Souza", "Register": CPF, "TypeId": 2, "Birthday": "1990-02-28", "Note": "a\nb"}
PERSON_ROW = {"Id": 9, "Name": "Maria Souza", "CPF": CPF, "Birthday": "1990-02-28T00:00:00-03:00", "Note": "a\nb"}


@pytest.mark.parametrize(
    ("content", "row", "same"),
    [
        (CONTENT, ROW, True),
        (CONTENT, ROW | {"Note": "somebody's own note", "TypeId": 2}, True),
        (CONTENT, ROW | {"Name": " Alfa\n"}, True),
        (CONTENT, ROW | {"ZipCode": "01310100"}, True),
        (CONTENT, ROW | {"ZipCode": 1310101}, False),
        (CONTENT, ROW | {"ZipCode": None}, False),
        (CONTENT, ROW | {"Website": None}, False),
        (CONTENT, ROW | {"Name": "Beta"}, False),
        (CONTENT, ROW | {"Name": None}, False),
        (CONTENT, ROW | {"LegalName": "Beta"}, False),
        (CONTENT, ROW | {"LegalName": ""}, False),
        (CONTENT | {"LegalName": "Alfa"}, ROW | {"LegalName": " "}, True),
        (CONTENT | {"Name": "Alfa Ltda"}, ROW | {"Name": ""}, True),
        (CONTENT | {"Note": "x"}, ROW, False),
        (PERSON, PERSON_ROW, True),
        (PERSON, PERSON_ROW | {"Note": " a\nb\n"}, True),
        (PERSON, PERSON_ROW | {"Note": "a b"}, False),
        (PERSON, PERSON_ROW | {"Birthday": "1990-02-27T00:00:00-03:00"}, False),
        (PERSON, PERSON_ROW | {"Birthday": None}, False),
        (PERSON, PERSON_ROW | {"Name": 5}, False),
    ],
)
def test_content_is_compared_as_far_as_it_reads_back(content: dict[str, Any], row: dict[str, Any], same: bool) -> None:
    assert probe_of(Change(content["Register"], "upsert", content), row).same is same
