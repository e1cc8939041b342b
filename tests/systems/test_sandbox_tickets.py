"""Tickets, contacts of clients and the clients of old in the fake Milvus, over real HTTP."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import requests

from tests.systems.sandboxed import NOW, Row, Start, World, worlds


@pytest.fixture
def start() -> Iterator[Start]:
    with worlds() as started:
        yield started


@pytest.fixture
def world(start: Start) -> World:
    return start(customers=0, clients=3)


def token(world: World, place: int = 0) -> str:
    clients: list[Row] = list(world.sandbox.milvus.clients.values())
    return str(clients[place]["token"])


def opened(world: World, **changes: object) -> int:
    body = {"cliente_id": token(world), "chamado_assunto": "Instalar", "chamado_descricao": "Roteador novo"}
    answer = world.milvus("/chamado/criar", "POST", body | changes)
    assert answer.status_code == 200, answer.text
    number = answer.json()
    assert type(number) is int
    return number


def listing(world: World, filters: Row | None = None, /, **query: str) -> requests.Response:
    return world.milvus("/chamado/listagem", "POST", {"filtro_body": filters or {}}, **query)


def numbers(world: World, filters: Row | None = None, /, **query: str) -> list[int]:
    return [row["codigo"] for row in listing(world, filters, **query).json()["lista"]]


# Creating


def test_a_ticket_is_created_and_read(world: World) -> None:
    number = opened(world, chamado_categoria_primaria="Instalação", chamado_mesa="", chamado_email="ana@example.com")
    (row,) = listing(world).json()["lista"]
    client = world.sandbox.milvus.clients[200_001]
    assert (row["codigo"], row["cliente"], row["cliente_token"]) == (number, client["nome_fantasia"], client["token"])
    assert (row["assunto"], row["status"], row["categoria_primaria"]) == ("Instalar", "AgAtendimento", "Instalação")
    assert row["data_criacao"] == row["data_modificacao"] == "2026-06-01 09:00:00"
    assert row["id"] != number


def test_a_ticket_sent_twice_is_there_twice(world: World) -> None:
    assert len({opened(world), opened(world), opened(world, chamado_assunto="Entregar")}) == 3
    stats = world.control("stats", "milvus")
    assert (stats["tickets"], stats["repeated_subjects"]) == (3, {"Instalar": 2})


@pytest.mark.parametrize(
    "change",
    [
        {"cliente_id": "AAAAAAA"},
        {"cliente_id": 200_001},
        {"cliente_id": "200001"},
        {"cliente_id": ["ABCDEF"]},
        {"cliente_id": None},
        {"chamado_assunto": " "},
        {"chamado_descricao": ""},
        {"chamado_descricao": None},
        {"chamado_categoria_primaria": 7},
        {"chamado_mesa": "Nenhuma"},
        {"chamado_tecnico": "Zé"},
        {"chamado_descricao_html": "<p></p>"},
    ],
)
def test_a_wrong_ticket_is_refused(world: World, change: Row) -> None:
    body = {"cliente_id": token(world), "chamado_assunto": "Instalar", "chamado_descricao": "Roteador"} | change
    refusal = world.milvus("/chamado/criar", "POST", body)
    assert refusal.status_code == 400 and refusal.json()["message"]
    assert not world.sandbox.milvus.tickets


def test_a_dropped_ticket_was_created_and_a_dropped_list_does_not_exist(world: World) -> None:
    world.control("faults", "milvus", faults="drop=1")
    body = {"cliente_id": token(world), "chamado_assunto": "Instalar", "chamado_descricao": "Roteador"}
    with pytest.raises(requests.ConnectionError):
        world.milvus("/chamado/criar", "POST", body)
    assert len(numbers(world)) == 1
    world.control("faults", "milvus", faults="no_value=1")
    assert listing(world).json() == {}


# Listing


def test_pages_are_asked_for_in_the_query_string_only(world: World) -> None:
    world.control("add", "milvus", kind="tickets", count=120)
    every = sorted(world.sandbox.milvus.tickets)
    page = listing(world).json()
    assert [row["codigo"] for row in page["lista"]] == every[:-51:-1]
    assert page["meta"]["paginate"] == {
        "current_page": "1", "total": "120", "to": "50", "from": "1", "last_page": "3", "per_page": "50",
    }  # fmt: skip
    rising = {"order_by": "codigo", "is_descending": "false"}
    pages = [numbers(world, total_registros="50", pagina=str(number), **rising) for number in (1, 2, 3, 4)]
    assert [len(each) for each in pages] == [50, 50, 20, 0]
    assert [number for each in pages for number in each] == every
    assert len(numbers(world, total_registros="1000")) == 120
    in_body = {"filtro_body": {}, "total_registros": 120, "pagina": 2}
    assert len(world.milvus("/chamado/listagem", "POST", in_body).json()["lista"]) == 50


@pytest.mark.parametrize(
    "query",
    [
        {"total_registros": "1001"},
        {"total_registros": "0"},
        {"pagina": "0"},
        {"pagina": "two"},
        {"order_by": "nothing"},
        {"is_descending": "1"},
        {"page": "2"},
    ],
)
def test_a_wrong_page_is_refused(world: World, query: dict[str, str]) -> None:
    assert listing(world, **query).status_code == 400


def test_only_open_tickets_are_listed_unless_the_status_says_otherwise(world: World) -> None:
    by_status = {}
    for status in (1, 2, 3, 4, 5, 6):
        by_status[status] = opened(world)
        world.control("edit", "milvus", kind="tickets", ids=[by_status[status]], fields={"status": status})
    shown = {label: set(numbers(world, {"status": label} if label else {})) for label in ("", 9, 10, "Todos", 4, "2")}
    open_ones, every = {by_status[each] for each in (1, 2, 3)}, set(by_status.values())
    assert (shown[""], shown[9], shown[10], shown["Todos"]) == (open_ones, open_ones, every, every)
    assert (shown[4], shown["2"]) == ({by_status[4]}, {by_status[2]})
    assert numbers(world, {"status": "Pausado"}) == [by_status[3]]
    assert numbers(world, {"status": 14, "codigo": by_status[1]}) == [by_status[1]]


def test_filters_are_kept_together(world: World) -> None:
    first = opened(world, chamado_assunto="Instalação [T-601]", chamado_categoria_primaria="Instalação")
    world.clock.now += 60
    second = opened(world, chamado_assunto="Entrega [T-602]", cliente_id=token(world, 1))
    client = next(row for row in world.sandbox.milvus.clients.values() if row["token"] == token(world, 1))
    cases: list[tuple[Row, list[int]]] = [
        ({"assunto": "[t-60"}, [second, first]),
        ({"assunto": "[T-601]"}, [first]),
        ({"codigo": str(first)}, [first]),
        ({"codigo": second}, [second]),
        ({"cliente_token": token(world, 1)}, [second]),
        ({"cliente_id": client["id"]}, [second]),
        ({"cliente_token": token(world, 1), "assunto": "T-601"}, []),
        ({"categoria_primaria": "Instalação"}, [first]),
        ({"categoria_primaria": "Instala"}, []),
        ({"data_hora_criacao_inicial": "2026-06-01 09:00:01"}, [second]),
        ({"data_hora_criacao_final": "2026-06-01 09:00:00"}, [first]),
        ({"data_hora_criacao_inicial": "2026-06-01 09:00:00"}, [second, first]),
        (
            {"data_hora_criacao_inicial": "2026-06-01 09:00:30", "data_hora_criacao_final": "2026-06-01 09:01:00"},
            [second],
        ),
        ({"data_hora_solucao_inicial": "2026-01-01 00:00:00"}, []),
    ]
    for filters, expected in cases:
        assert numbers(world, filters) == expected, filters


@pytest.mark.parametrize(
    "filters",
    [
        {"nothing": "1"},
        {"tipo_ticket": "1"},
        {"status": 8},
        {"status": 22},
        {"status": "Aberto"},
        {"status": None},
        {"assunto": ""},
        {"codigo": "ten"},
        {"data_hora_criacao": "2026-06-01 09:00:00"},
        {"data_hora_criacao_inicial": "2026-06-01T09:00:00"},
        {"data_hora_criacao_inicial": "2026-6-1 9:00:00"},
        {"data_hora_criacao_inicial": "2026-06-01"},
    ],
)
def test_a_filter_that_is_not_documented_is_refused(world: World, filters: Row) -> None:
    assert listing(world, filters).status_code == 400


# The life of a ticket


def test_a_ticket_is_finished_after_it_was_begun_and_twice_is_harmless(world: World) -> None:
    number = opened(world)
    body = {"chamado_codigo": str(number), "chamado_servico_realizado": "Instalado"}
    assert world.milvus("/chamado/finalizar", "PUT", body).status_code == 400
    world.control("edit", "milvus", kind="tickets", ids=[number], fields={"status": "Atendendo"})
    world.clock.now += 60
    finished = world.milvus("/chamado/finalizar", "PUT", body)
    assert (finished.status_code, finished.json()) == (200, number)
    world.clock.now += 60
    assert world.milvus("/chamado/finalizar", "PUT", body | {"chamado_servico_realizado": "Outro"}).status_code == 200
    (row,) = listing(world, {"status": 4}).json()["lista"]
    assert (row["data_solucao"], row["servico_realizado"]) == ("2026-06-01 09:01:00", "Instalado")
    assert numbers(world) == []
    wrong: list[Any] = [{"chamado_codigo": number}, {"chamado_codigo": "9"}, {}, body | {"nothing": "1"}]
    statuses = [world.milvus("/chamado/finalizar", "PUT", each).status_code for each in wrong]
    assert statuses == [400, 404, 400, 400]


def test_follow_ups_are_kept_with_their_ticket(world: World) -> None:
    number, other = opened(world), opened(world, chamado_assunto="Outro")
    body = {"acompanhamento_ticket": number, "acompanhamento_descricao": "Cliente remarcou"}
    for note in (body, body | {"acompanhamento_privado": True, "atendimento_total_horas": "01:30"}):
        noted = world.milvus("/chamado/acompanhamento/criar", "POST", note)
        assert (noted.status_code, noted.content) == (204, b"")
    read = world.milvus(f"/chamado/acompanhamento/{number}").json()
    assert read["status_code"] == 200
    assert [(note["descricao"], note["privado"], note["total_horas"]) for note in read["retorno"]] == [
        ("Cliente remarcou", False, "00:00"), ("Cliente remarcou", True, "01:30"),
    ]  # fmt: skip
    assert len(world.milvus(f"/chamado/acompanhamento/{number}", privado="true").json()["retorno"]) == 1
    assert world.milvus(f"/chamado/acompanhamento/{other}").json()["retorno"] == []
    assert world.milvus("/chamado/acompanhamento/9").status_code == 404
    (row,) = listing(world, {"codigo": number}).json()["lista"]
    assert row["ultima_log"]["texto"] == "Cliente remarcou" and len(row["ultimas_cinco_logs"]) == 2
    for change, status in (
        ({"acompanhamento_ticket": 9}, 404),
        ({"acompanhamento_descricao": ""}, 400),
        ({"atendimento_total_horas": "1h"}, 400),
        ({"acompanhamento_privado": "no"}, 400),
        ({"nothing": 1}, 400),
    ):
        assert world.milvus("/chamado/acompanhamento/criar", "POST", body | change).status_code == status
    assert world.control("stats", "milvus")["follow_ups"] == 2


def test_hands_from_outside_reach_tickets(world: World) -> None:
    fields = {"assunto": "Antigo", "data_criacao": "2024-01-01 00:00:00"}
    ids = world.control("add", "milvus", kind="tickets", count=3, fields=fields)["ids"]
    assert numbers(world, {"assunto": "antigo", "data_hora_criacao_final": "2024-01-01 00:00:00"}) == ids[::-1]
    assert world.control("stats", "milvus")["repeated_subjects"] == {"Antigo": 3}
    (begun,) = world.control("edit", "milvus", kind="tickets", count=1, seed=4)["ids"]
    assert numbers(world, {"status": "Atendendo"}) == [begun]
    world.control("delete", "milvus", kind="tickets", ids=ids[:2])
    (row,) = world.control("state", "milvus", kind="tickets")["rows"]
    assert (row["codigo"], row["follow_ups"], row["written"]["cliente_id"]) == (ids[2], [], row["cliente_token"])
    assert world.control("stats", "milvus")["repeated_subjects"] == {}
    assert world.control("edit", "milvus", kind="tickets", ids=ids[2:], fields={"codigo": 1})["error"]
    assert world.control("edit", "milvus", kind="tickets", ids=ids[2:], fields={"status": 9})["error"]


def test_a_ticket_needs_a_client_even_from_outside(start: Start) -> None:
    assert start(customers=0).control("add", "milvus", kind="tickets", count=1)["error"]


# Contacts of clients


def test_contacts_are_created_for_a_client_and_found(world: World) -> None:
    body = {"cliente_id": token(world), "contato_descricao": "Bia", "contato_email": "Bia@example.com"}
    body |= {"contato_celular": "(11) 98888-7777", "is_padrao": "true"}
    created = world.milvus("/cliente/contato/criar", "POST", body)
    assert created.status_code == 200 and type(created.json()) is int
    for query in ({"email": "bia@example.com"}, {"telefone": "11988887777"}):
        (row,) = world.milvus("/cliente/contato/pesquisar", **query).json()
        assert (row["id"], row["cliente_id"], row["contato_descricao"]) == (created.json(), token(world), "Bia")
    assert world.milvus("/cliente/contato/pesquisar", email="nobody@example.com").json() == []
    assert world.milvus("/cliente/contato/pesquisar").status_code == 400
    assert world.milvus("/cliente/contato/pesquisar", telefone="none").status_code == 400
    for change in ({"cliente_id": 200_001}, {"cliente_id": "AAAAAAA"}, {"is_padrao": True}, {"nome": "Bia"}):
        assert world.milvus("/cliente/contato/criar", "POST", body | change).status_code == 400
    assert world.control("stats", "milvus")["contacts"] == 4


def test_a_contact_goes_with_its_client(world: World) -> None:
    (_, row, _) = world.control("state", "milvus")["rows"]
    (contact,) = row["written"]["cliente_contatos"]
    found = world.milvus("/cliente/contato/pesquisar", email=contact["contato_email"])
    assert [each["cliente_id"] for each in found.json()] == [row["token"]]
    world.milvus(f"/cliente/excluir/{row['id']}", "DELETE")
    assert world.milvus("/cliente/contato/pesquisar", email=contact["contato_email"]).json() == []


# Clients that are there from the beginning


def test_clients_of_old_are_other_people_and_some_are_blocked(start: Start) -> None:
    world = start(customers=300, clients=2600)
    rows = list(world.sandbox.milvus.clients.values())
    documents = {row["cnpj_cpf"] for row in rows}
    assert len(documents) == len(rows) == 2600
    assert not documents & {row["Register"] for row in world.sandbox.ploomes.contacts.values()}
    blocked = sum(not row["is_ativo"] for row in rows)
    assert 180 < blocked < 340
    stats = world.control("stats", "milvus")
    assert (stats["clients"], stats["creates"], stats["repeated_documents"]) == (2600, 0, {})
    again = start(customers=300, clients=2600).sandbox
    assert list(again.milvus.clients.values()) == rows
    plain = start(customers=300).sandbox
    assert (plain.ploomes.contacts, plain.milvus.token) == (again.ploomes.contacts, again.milvus.token)


def found(world: World, **query: str) -> list[Row]:
    rows: list[Row] = world.milvus("/cliente/busca", **query).json()["lista"]
    return rows


def test_a_search_is_cut_and_a_part_of_the_name_splits_it(start: Start) -> None:
    world = start(customers=0, clients=1500)
    rows = list(world.sandbox.milvus.clients.values())
    assert len(found(world, status="3")) == 1000
    part = sorted(rows[0]["nome_fantasia"].lower().split(), key=len)[-1]
    assert {row["id"] for row in found(world, status="3", nome_fantasia=part.upper())} == {
        row["id"] for row in rows if part in row["nome_fantasia"].lower()
    }
    world.control("faults", "milvus", faults="client_cap=70")
    assert len(found(world, status="3")) == 70
    world.control("faults", "milvus", faults="")
    assert len(found(world, status="3")) == 1000


def test_a_name_can_be_searched_from_its_beginning_or_not_at_all(start: Start) -> None:
    world = start(customers=0, clients=200, faults="milvus.prefix_search")
    first = found(world, status="3")[0]["nome_fantasia"]
    assert all(row["nome_fantasia"].startswith(first[:3]) for row in found(world, status="3", nome_fantasia=first[:3]))
    assert found(world, status="3", nome_fantasia=first[:3].upper())
    assert not found(world, status="3", nome_fantasia=first[1:])
    world.control("faults", "milvus", faults="no_name_search")
    assert len(found(world, status="3", nome_fantasia="no such name")) == 200
    assert len(found(world, status="3", documento=found(world)[0]["cnpj_cpf"])) == 1


def test_explicit_changes_reach_explicit_clients(world: World) -> None:
    first, second, third = world.sandbox.milvus.clients
    changed = world.control("edit", "milvus", ids=[second], fields={"nome_fantasia": "Outra", "is_ativo": False})
    assert changed["ids"] == [second]
    assert [row["id"] for row in found(world, nome_fantasia="outra", status="2")] == [second]
    document = world.sandbox.milvus.clients[first]["cnpj_cpf"]
    world.control("edit", "milvus", ids=[third], fields={"cnpj_cpf": document})
    assert world.control("stats", "milvus")["repeated_documents"] == {document: 2}
    assert {row["id"] for row in found(world, documento=document, status="3")} == {first, third}
    for fields in ({"id": 1}, {"token": "ABCDEF"}, {"nothing": 1}):
        assert world.control("edit", "milvus", ids=[first], fields=fields)["error"]
    assert world.control("delete", "milvus", ids=[third])["ids"] == [third]
    assert world.control("edit", "milvus", ids=[third], fields={"nome_fantasia": "X"})["error"]


def test_dates_are_those_of_sao_paulo(world: World) -> None:
    world.clock.now = (NOW + timedelta(hours=14)).timestamp()
    opened(world)
    (row,) = listing(world).json()["lista"]
    assert row["data_criacao"] == "2026-06-01 23:00:00"


def test_requests_on_tickets_are_counted_by_what_they_ask(world: World) -> None:
    number = opened(world)
    world.milvus(f"/chamado/acompanhamento/{number}")
    listing(world)
    assert Counter(world.control("stats", "milvus")["requests"]) == {
        "POST /api/chamado/criar": 1, "GET /api/chamado/acompanhamento/:id": 1, "POST /api/chamado/listagem": 1,
    }  # fmt: skip
    for method, path in (("GET", "/chamado/listagem"), ("POST", "/chamado/finalizar"), ("POST", "/chamado/atualizar")):
        assert world.milvus(path, method, {}).status_code == 404
