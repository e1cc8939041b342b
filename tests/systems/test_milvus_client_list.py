"""Reading the clients of Milvus: all of them behind a cut without a sign, or the guard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from infra.systems import Connection
from infra.systems.milvus import ClientList, open_source
from shared.books import Window
from shared.ends import Page, Row
from shared.errors import NO_SOURCE_ID, AuthError, ConfigError, GuardTripped, ProtocolError, TransientError
from shared.record import version_at
from shared.retry import RetryPolicy
from tests.loopback import FakeClock, Loopback, Reply, Request, reply
from tests.sandbox import Sandbox
from tests.sandbox.faults import parse

TOKEN = "t0k3n"
WINDOW = Window(datetime(2024, 2, 24, 3, tzinfo=UTC), datetime(2026, 5, 1, 12, 30, tzinfo=UTC))
ROW: dict[str, Any] = {"id": 5, "cnpj_cpf": "16727230000197", "is_ativo": True, "nome_fantasia": "Alfa"}


def connection_to(url: str, token: str = TOKEN, page_size: int = 300, **options: Any) -> Connection:
    policy = RetryPolicy(3, 0.01)
    clock = FakeClock()
    return Connection(url, {"MILVUS_TOKEN": token}, None, page_size, policy, clock, None, lambda: False, options)


@contextmanager
def source_at(url: str, token: str = TOKEN, page_size: int = 300, **options: Any) -> Iterator[ClientList]:
    source = open_source(connection_to(url, token, page_size, **options), "clients")
    try:
        yield source
    finally:
        source.close()


def found(*rows: Any) -> Reply:
    return reply(200, msgspec.json.encode({"lista": rows}), headers={"Date": "Sat, 02 May 2026 10:00:00 GMT"})


@contextmanager
def served(given: Reply | Callable[[Request], Reply], **more: Any) -> Iterator[tuple[Loopback, ClientList]]:
    handler = given if callable(given) else lambda _: given
    with Loopback(handler) as server, source_at(server.url + "/api", **more) as source:
        yield server, source


@contextmanager
def sandboxed(clients: int, faults: str = "", page_size: int = 300) -> Iterator[tuple[Sandbox, ClientList]]:
    switches = parse(",".join(f"milvus.{each}" for each in faults.split(",") if each), ["milvus"]).get("milvus")
    with Sandbox(customers=0, clients=clients) as sandbox:
        if switches is not None:
            sandbox.milvus.set_faults(switches)
        cap = int(sandbox.milvus.faults["client_cap"]) or 1000
        url, token = (sandbox.environment[name] for name in ("MILVUS_URL", "MILVUS_TOKEN"))
        with source_at(url, token, page_size, result_cap=cap) as source:
            yield sandbox, source


def rows_of(pages: list[Page]) -> list[Row]:
    return [row for page in pages for row in page.rows]


def origins(pages: list[Page]) -> list[str]:
    return [row.origin for row in rows_of(pages)]


def read(source: ClientList, after: str = "") -> list[Page]:
    return list(source.pages(WINDOW, after))


def ids(sandbox: Sandbox) -> list[str]:
    return sorted(map(str, sandbox.milvus.clients))


# All of them.


@pytest.mark.parametrize("faults", ["", "prefix_search=1"], ids=["anywhere", "beginning"])
def test_2600_clients_behind_a_cut_at_1000_arrive_once_each(faults: str) -> None:
    with sandboxed(2600, faults) as (sandbox, source):
        pages = read(source)
        assert sorted(origins(pages)) == ids(sandbox)
        assert max(len(page.rows) for page in pages) <= 300


@pytest.mark.parametrize("faults", ["client_cap=70", "client_cap=70,prefix_search=1"], ids=["anywhere", "beginning"])
def test_from_every_kind_of_token_exactly_the_rest_is_read(faults: str) -> None:
    with sandboxed(120, faults, page_size=10) as (_, source):
        pages = read(source)
        whole = origins(pages)
        kinds: dict[tuple[bool, bool, bool], int] = {}
        for number, page in enumerate(pages):
            kind, question, last, _ = msgspec.json.decode(page.after)
            kinds.setdefault((kind > 0, bool(question), last is not None), number)
        assert kinds.keys() >= {(False, False, False), (True, True, False), (True, True, True)}
        for number in (*kinds.values(), *range(0, len(pages), len(pages) // 6)):
            assert origins(read(source, pages[number].after)) == whole[len(origins(pages[: number + 1])) :]


def test_a_list_below_the_cut_is_read_in_pages_by_id() -> None:
    with sandboxed(70, page_size=20) as (sandbox, source):
        pages = read(source)
        assert [len(page.rows) for page in pages] == [20, 20, 20, 10, 0]
        assert origins(pages) == ids(sandbox)
        for number, page in enumerate(pages):
            assert origins(read(source, page.after)) == ids(sandbox)[20 * (number + 1) :]
        assert sandbox.milvus.stats()["requests"] == {"GET /api/cliente/busca": 1 + 4}


def test_between_two_questions_an_empty_page_lets_the_reader_stop() -> None:
    with sandboxed(200, "client_cap=90,prefix_search=1") as (sandbox, source):
        pages = read(source)
        asked = sandbox.milvus.stats()["requests"]["GET /api/cliente/busca"]
        assert len([page for page in pages if not page.rows]) == asked
        tokens = [page.after for page in pages]
        assert all(tokens)
        assert len(set(tokens)) == len(tokens)


def test_with_faults_of_every_kind_the_list_arrives_whole() -> None:
    faults = "client_cap=90,prefix_search=1,429=5%,503=5%,500=5%,drop_before=5%,not_json=3%,no_value=3%"
    with sandboxed(200, faults) as (sandbox, source):
        after, given = "", set()
        for _ in range(1000):
            try:
                for page in source.pages(WINDOW, after):
                    given.update(row.origin for row in page.rows)
                    after = page.after
                break
            except (TransientError, ProtocolError):
                continue
        assert sorted(given) == ids(sandbox)


# The guard.


def test_a_search_that_ignores_the_name_stops_the_reading() -> None:
    faults = "client_cap=90,no_name_search=1"
    with (
        sandboxed(200, faults) as (_, source),
        pytest.raises(GuardTripped, match="whose name it does not mean") as trip,
    ):
        read(source)
    assert "nome_fantasia" in trip.value.cure


def test_a_client_without_a_name_stops_a_list_that_is_cut_and_no_other() -> None:
    with sandboxed(200, "client_cap=90,prefix_search=1") as (sandbox, source):
        nameless = next(number for number, row in sandbox.milvus.clients.items() if row["is_ativo"])
        sandbox.milvus.parts["clients"].change([nameless], {"nome_fantasia": ""})
        with pytest.raises(GuardTripped, match=f"client {nameless} has no name"):
            read(source)
    with sandboxed(60, "client_cap=90") as (sandbox, source):
        sandbox.milvus.parts["clients"].change([nameless], {"nome_fantasia": ""})
        assert origins(read(source)) == ids(sandbox)


@pytest.mark.parametrize("faults", ["client_cap=90", "client_cap=90,prefix_search=1"], ids=["anywhere", "beginning"])
def test_a_name_that_is_a_question_which_is_cut_stops_the_reading(faults: str) -> None:
    with sandboxed(200, faults) as (sandbox, source):
        first, *others = sandbox.milvus.clients
        for number in others[:150]:
            sandbox.milvus.parts["clients"].change([number], {"nome_fantasia": f"Quixote {number}"})
        sandbox.milvus.parts["clients"].change([first], {"nome_fantasia": "QUIXO"})
        with pytest.raises(GuardTripped, match=f"client {first} has a name that is the beginning") as trip:
            read(source)
    assert "uixo" not in str(trip.value).lower()


def test_a_list_of_exactly_the_cap_is_not_taken_for_complete() -> None:
    with sandboxed(90, "client_cap=90,prefix_search=1") as (sandbox, source):
        assert sorted(origins(read(source))) == ids(sandbox)
        assert sandbox.milvus.stats()["requests"]["GET /api/cliente/busca"] > 2


@pytest.mark.parametrize("after", ["7", "x", "[1]]", '[4,"a",null,0]'])
def test_a_token_that_is_none_stops_the_reading_before_anybody_is_asked(after: str) -> None:
    with served(found()) as (server, source):
        with pytest.raises(GuardTripped):
            read(source, after)
        assert server.requests == []


# Rows and answers.


def test_a_client_is_a_row_of_the_windows_end() -> None:
    with served(found(ROW)) as (server, source):
        page, empty = read(source)
    assert page.rows == [Row("5", version_at(WINDOW.until, "5"), "cliente(5)", ROW)]
    assert page.total is None
    assert empty.rows == []
    (request,) = server.requests
    assert parse_qs(urlsplit(request.target).query) == {"status": ["3"]}
    assert request.headers["authorization"] == TOKEN


def test_rows_without_an_id_have_a_problem_and_a_place_of_their_own() -> None:
    odd: list[Any] = ["text", {"nome_fantasia": "Beta"}, ROW | {"id": "7"}, ROW | {"id": True}]
    with served(found(*odd, ROW)) as (_, source):
        rows = rows_of(read(source))
    assert [row.origin for row in rows] == ["", "", "", "", "5"]
    assert len({row.position for row in rows}) == 5
    assert [row.problem and row.problem[0] for row in rows] == [NO_SOURCE_ID] * 4 + [None]
    assert rows[0].data == {"row": "text"}


@pytest.mark.parametrize("odd", [reply(200, b"[]"), reply(200, b'{"lista": {}}'), reply(200, b"<p>"), reply(404)])
def test_an_answer_that_is_no_list_stops_the_reading_after_some_tries(odd: Reply) -> None:
    with served(odd) as (server, source):
        with pytest.raises(ProtocolError):
            read(source)
        assert len(server.requests) == 3


def test_a_document_is_asked_for_without_its_mask() -> None:
    with served(found(ROW)) as (server, source):
        assert source.by_document("16.727.230/0001-97") == [ROW]
    query = parse_qs(urlsplit(server.requests[0].target).query)
    assert query == {"documento": ["16727230000197"], "status": ["3"]}


def test_a_web_page_in_between_is_passed_over() -> None:
    answers = [reply(200, b"<p>"), found(ROW)]
    with served(lambda _: answers.pop(0)) as (_, source):
        assert origins(read(source)) == ["5"]


def test_refused_credentials_and_outages_are_told_apart() -> None:
    with served(reply(401)) as (_, source), pytest.raises(AuthError):
        read(source)
    with served(reply(503)) as (server, source):
        with pytest.raises(TransientError):
            read(source)
        assert len(server.requests) == 3


def test_the_clock_is_the_one_of_the_last_answer() -> None:
    with served(found()) as (server, source):
        assert source.now() == datetime(2026, 5, 2, 10, tzinfo=UTC)
        assert source.now() == datetime(2026, 5, 2, 10, tzinfo=UTC)
        assert len(server.requests) == 1
        assert "documento" in server.requests[0].target
        assert source.total(WINDOW) is None


def test_what_cannot_be_opened_is_a_mistake_of_the_configuration() -> None:
    wrong = [
        (connection_to("http://localhost"), "tickets"),
        (connection_to("http://localhost", token=""), "clients"),
        (connection_to("http://localhost", page_size=0), "clients"),
        (connection_to("http://localhost", result_cap=0), "clients"),
    ]
    for connection, read_what in wrong:
        with pytest.raises(ConfigError):
            open_source(connection, read_what)


def test_the_place_for_people_holds_no_token() -> None:
    with source_at(f"http://localhost/{TOKEN}/api") as source:
        assert source.location == "http://localhost/***/api/cliente/busca"
        assert source.system == "milvus"
