"""Writing clients to Milvus: one client per document, and nothing said that is not known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from functions.ploomes_to_milvus.mapping import client, document_of
from infra.systems import Connection
from infra.systems.milvus import Clients, open_sink
from shared.ends import Change
from shared.errors import (
    CREDENTIALS,
    NOT_ASKED,
    RATE_LIMITED,
    REFUSED,
    UNAVAILABLE,
    UNDOCUMENTED_ANSWER,
    UNREACHABLE,
    AuthError,
    ConfigError,
)
from shared.outcome import Absent, Answer, Found, InDoubt, Outcome, Passing, Verdict, delivered
from shared.retry import RetryPolicy
from tests.loopback import LOST, FakeClock, Loopback, Reply, Request, refused_port, reply
from tests.sandbox import Sandbox
from tests.sandbox.faults import parse

TOKEN = "t0k3n"
CNPJ = "16727230000197"
CONTENT: dict[str, Any] = {
    "cliente_documento": CNPJ,
    "cliente_ativo": True,
    "cliente_pessoa_juridica": {"nome_fantasia": "Alfa", "razao_social": "Alfa Ltda"},
    "cliente_site": "https://alfa.example",
    "cliente_enderecos": [{"endereco_cidade": "Santos"}],
    "cliente_contatos": [{"contato_email": "a@example.com"}],
}
ROW: dict[str, Any] = {
    "id": 5,
    "cnpj_cpf": CNPJ,
    "is_ativo": True,
    "is_fisica": False,
    "nome_fantasia": "Alfa",
    "razao_social": "Alfa Ltda",
    "site": "https://alfa.example",
}
CREATE = Change(CNPJ, "upsert", CONTENT)
SURELY_NEW = Change(CNPJ, "upsert", CONTENT, absent=True)
UPDATE = Change(CNPJ, "upsert", CONTENT, target_id="5")
DELETE = Change(CNPJ, "delete", {}, target_id="5")


@contextmanager
def sink_at(url: str, token: str = TOKEN) -> Iterator[Clients]:
    connection = Connection(
        url, {"MILVUS_TOKEN": token}, None, 100, RetryPolicy(3, 0.01), FakeClock(), None, lambda: False
    )
    sink = Clients(connection)
    try:
        yield sink
    finally:
        sink.close()


class Desk:
    """A Milvus that answers by method; what was asked is in `server.requests`."""

    def __init__(self, **replies: Reply | Callable[[Request], Reply]) -> None:
        self.replies = {"GET": found(), "POST": reply(200, b"77"), "PUT": reply(204), "DELETE": reply(204), **replies}

    def __call__(self, request: Request) -> Reply:
        given = self.replies[request.method]
        return given if isinstance(given, Reply) else given(request)


def found(*rows: Any) -> Reply:
    return reply(200, msgspec.json.encode({"lista": rows}))


@contextmanager
def desk(**replies: Reply | Callable[[Request], Reply]) -> Iterator[tuple[Loopback, Clients]]:
    with Loopback(Desk(**replies)) as server, sink_at(server.url + "/api") as sink:
        yield server, sink


def methods(server: Loopback) -> list[str]:
    return [request.method for request in server.requests]


def answer_of(change: Change, **replies: Reply) -> Answer | None:
    with desk(**replies) as (_, sink):
        (answer,) = sink.write([change])
    return answer


def test_a_new_client_is_looked_for_and_created() -> None:
    with desk() as (server, sink):
        assert list(sink.write([CREATE])) == [delivered("77")]
    asked, created = server.requests
    assert asked.headers["authorization"] == TOKEN
    assert urlsplit(asked.target).path == "/api/cliente/busca"
    assert parse_qs(urlsplit(asked.target).query) == {"documento": [CNPJ], "status": ["3"]}
    assert (created.method, created.target) == ("POST", "/api/cliente/criar")
    assert msgspec.json.decode(created.body) == CONTENT


def test_a_client_that_is_surely_new_is_not_looked_for() -> None:
    with desk() as (server, sink):
        assert list(sink.write([SURELY_NEW])) == [delivered("77")]
    assert methods(server) == ["POST"]


def test_a_client_that_is_there_with_this_content_is_delivered() -> None:
    with desk(GET=found(ROW)) as (server, sink):
        assert list(sink.write([CREATE])) == [delivered("5")]
    assert methods(server) == ["GET"]


def test_a_client_that_is_there_with_other_content_is_altered_without_addresses_and_contacts() -> None:
    with desk(GET=found(ROW | {"site": "old"})) as (server, sink):
        assert list(sink.write([CREATE])) == [delivered("5")]
    put = server.requests[1]
    assert (put.method, put.target) == ("PUT", "/api/cliente/alterar/5")
    body = msgspec.json.decode(put.body)
    assert body == {name: CONTENT[name] for name in CONTENT if name not in ("cliente_enderecos", "cliente_contatos")}


def test_a_known_client_is_altered_by_its_id() -> None:
    with desk() as (server, sink):
        assert list(sink.write([UPDATE])) == [delivered("5")]
    assert methods(server) == ["PUT"]


def test_a_known_client_that_is_gone_is_created_again() -> None:
    with desk(PUT=reply(404)) as (server, sink):
        assert list(sink.write([UPDATE])) == [delivered("77")]
    assert methods(server) == ["PUT", "GET", "POST"]


def test_a_client_that_goes_away_all_the_time_is_left_for_later() -> None:
    with desk(PUT=reply(404), GET=found(ROW | {"site": "old"})) as (server, sink):
        (answer,) = sink.write([UPDATE])
    assert isinstance(answer, Passing)
    assert "POST" not in methods(server)


@pytest.mark.parametrize("body", [b"", b"null", b"true", b"0", b"-4", b'{"id":7}', b"[7]", b"ok", b"1.5", b"9" * 5000])
def test_a_create_answered_without_a_bare_id_is_unknown(body: bytes) -> None:
    answer = answer_of(SURELY_NEW, POST=reply(200, body))
    assert isinstance(answer, Verdict)
    assert (answer.outcome, answer.number) == (Outcome.UNKNOWN, UNDOCUMENTED_ANSWER)


@pytest.mark.parametrize("body", [b"77", b'"77"', b" 77\n"])
def test_the_bare_id_may_be_a_text(body: bytes) -> None:
    assert answer_of(SURELY_NEW, POST=reply(200, body)) == delivered("77")


@pytest.mark.parametrize(("change", "method"), [(SURELY_NEW, "POST"), (UPDATE, "PUT"), (DELETE, "DELETE")])
def test_an_undocumented_status_of_a_write_is_unknown(change: Change, method: str) -> None:
    answer = answer_of(change, **{method: reply(302)})
    assert isinstance(answer, Verdict)
    assert (answer.outcome, answer.number, answer.http_status) == (Outcome.UNKNOWN, UNDOCUMENTED_ANSWER, 302)


@pytest.mark.parametrize("status", [400, 409, 422])
@pytest.mark.parametrize(("change", "method"), [(SURELY_NEW, "POST"), (UPDATE, "PUT"), (DELETE, "DELETE")])
def test_a_refusal_keeps_the_targets_words_and_no_numbers(change: Change, method: str, status: int) -> None:
    message = f"CNPJ 16.727.230/0001-97 de a@example.com, telefone 11988887777, linha 12 {'x' * 300}"
    body = msgspec.json.encode({"message": message})
    answer = answer_of(change, **{method: reply(status, body)})
    assert isinstance(answer, Verdict)
    assert (answer.outcome, answer.number, answer.http_status) == (Outcome.REJECTED, REFUSED, status)
    assert answer.reason.startswith("CNPJ *** de *** telefone ***, linha 12 xxx")
    assert len(answer.reason) == 200


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"message": 5}', b""])
def test_a_refusal_without_words_gives_its_status(body: bytes) -> None:
    answer = answer_of(UPDATE, PUT=reply(422, body))
    assert isinstance(answer, Verdict)
    assert answer.reason == "Milvus answered 422"


@pytest.mark.parametrize("failure", [LOST, reply(500), reply(502), reply(504)])
def test_a_create_without_a_usable_answer_is_in_doubt_and_sent_once(failure: Reply) -> None:
    with desk(POST=failure) as (server, sink):
        (answer,) = sink.write([CREATE])
    assert isinstance(answer, InDoubt)
    assert methods(server).count("POST") == 1


@pytest.mark.parametrize("failure", [LOST, reply(500), reply(502), reply(504), reply(503), reply(429)])
@pytest.mark.parametrize(("change", "method"), [(UPDATE, "PUT"), (DELETE, "DELETE")])
def test_what_may_be_repeated_passes(change: Change, method: str, failure: Reply) -> None:
    assert isinstance(answer_of(change, **{method: failure}), Passing)


@pytest.mark.parametrize(("status", "number"), [(429, RATE_LIMITED), (503, UNAVAILABLE)])
def test_a_create_that_was_certainly_not_taken_passes(status: int, number: int) -> None:
    answer = answer_of(SURELY_NEW, POST=reply(status, headers={"Retry-After": "9"}))
    assert isinstance(answer, Passing)
    assert (answer.number, answer.after, answer.http_status) == (number, 9.0, status)


@pytest.mark.parametrize(
    "odd",
    [
        reply(200, b"[]"),
        reply(200, b"{}"),
        reply(200, b"<html>"),
        reply(404),
        reply(200, b'{"lista": null}'),
        found({"cnpj_cpf": CNPJ, "id": "5"}),
        found(*({"id": each, "cnpj_cpf": "1"} for each in range(1000))),
    ],
)
def test_nothing_is_written_on_the_word_of_a_search_that_says_nothing(odd: Reply) -> None:
    with desk(GET=odd) as (server, sink):
        (answer,) = sink.write([CREATE])
        (probe,) = sink.find([CREATE])
    assert isinstance(answer, Passing)
    assert isinstance(probe, Passing)
    assert (answer.number, probe.number) == (NOT_ASKED, NOT_ASKED)
    assert set(methods(server)) == {"GET"}


def test_only_the_very_document_counts() -> None:
    near = [ROW | {"id": 1, "cnpj_cpf": CNPJ + "0"}, ROW | {"id": 2, "cnpj_cpf": None}, "odd", {"id": 3}]
    with desk(GET=found(*near)) as (_, sink):
        assert list(sink.find([CREATE])) == [Absent()]
    with desk(GET=found(*near, ROW | {"cnpj_cpf": "16.727.230/0001-97"})) as (_, sink):
        (probe,) = sink.find([CREATE])
    assert isinstance(probe, Found)
    assert (probe.target_id, probe.same) == ("5", True)


def test_of_several_clients_the_active_one_with_the_lowest_id_is_meant() -> None:
    rows = [ROW | {"id": 9}, ROW | {"id": 3, "is_ativo": False}, ROW | {"id": 7}]
    with desk(GET=found(*rows)) as (_, sink):
        (probe,) = sink.find([CREATE])
    assert isinstance(probe, Found)
    assert probe.target_id == "7"


PERSON = {"cliente_documento": CNPJ, "cliente_pessoa_fisica": {"nome": "Maria", "data_nascimento": "1990-02-28"}}
PERSON_ROW = {"id": 5, "cnpj_cpf": CNPJ, "is_ativo": True, "is_fisica": True, "data_nascimento": "1990-02-28"}


@pytest.mark.parametrize(
    ("content", "row", "same"),
    [
        (CONTENT, ROW, True),
        (CONTENT, ROW | {"observacao": "somebody's own note"}, True),
        (CONTENT, ROW | {"site": None}, False),
        (CONTENT, ROW | {"nome_fantasia": "Beta"}, False),
        (CONTENT, ROW | {"razao_social": "Beta"}, False),
        (CONTENT, ROW | {"is_ativo": False}, False),
        (CONTENT, ROW | {"is_fisica": True}, False),
        (CONTENT | {"cliente_observacao": "x"}, ROW, False),
        (PERSON, PERSON_ROW | {"nome_fantasia": "Maria"}, True),
        (PERSON, PERSON_ROW | {"razao_social": "Maria"}, True),
        (PERSON, PERSON_ROW | {"nome_fantasia": "Mário"}, False),
        (PERSON, PERSON_ROW | {"nome_fantasia": "Maria", "data_nascimento": None}, False),
    ],
)
def test_content_is_compared_as_far_as_it_reads_back(content: dict[str, Any], row: dict[str, Any], same: bool) -> None:
    with desk(GET=found(row)) as (_, sink):
        (probe,) = sink.find([Change(CNPJ, "upsert", content)])
    assert isinstance(probe, Found)
    assert probe.same is same


def test_a_delete_goes_by_id_else_by_document() -> None:
    with desk() as (server, sink):
        assert list(sink.write([DELETE])) == [delivered("5")]
        assert server.requests[0].target == "/api/cliente/excluir/5"
        assert list(sink.write([Change(CNPJ, "delete", {})])) == [delivered()]
    with desk(GET=found(ROW)) as (server, sink):
        assert list(sink.write([Change(CNPJ, "delete", {})])) == [delivered("5")]
        assert methods(server) == ["GET", "DELETE"]
    assert answer_of(DELETE, DELETE=reply(404)) == delivered("5")


def test_only_what_goes_by_id_may_be_repeated() -> None:
    with desk() as (_, sink):
        assert [sink.repeatable(each) for each in (CREATE, SURELY_NEW, UPDATE, DELETE)] == [False, False, True, True]


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_raised_if_nothing_took_effect(status: int) -> None:
    with desk(GET=reply(status)) as (_, sink):
        with pytest.raises(AuthError):
            sink.write([CREATE, UPDATE])
        with pytest.raises(AuthError):
            sink.find([CREATE])


def test_credentials_refused_in_the_middle_keep_what_was_done() -> None:
    left = [2]

    def revoked(request: Request) -> Reply:
        left[0] -= 1
        return reply(204) if left[0] >= 0 else reply(401)

    with desk(PUT=revoked) as (server, sink):
        answers = list(sink.write([UPDATE] * 5))
        assert answers[:2] == [delivered("5")] * 2
        assert all(isinstance(each, Passing) and each.number == CREDENTIALS for each in answers[2:])
        assert len(server.requests) == 3
        with pytest.raises(AuthError):
            sink.write([UPDATE])


def test_one_record_that_the_target_stumbles_over_does_not_stop_its_neighbours() -> None:
    def stumbles(request: Request) -> Reply:
        return reply(500) if request.target.endswith("/6") else reply(204)

    poison = msgspec.structs.replace(UPDATE, target_id="6")
    with desk(PUT=stumbles) as (_, sink):
        answers = list(sink.write([UPDATE, poison, UPDATE, poison, UPDATE]))
    assert [isinstance(each, Passing) for each in answers] == [False, True, False, True, False]


def test_an_outage_is_not_tried_with_every_record() -> None:
    with desk(PUT=reply(503)) as (server, sink):
        answers = sink.write([UPDATE] * 8)
    assert all(isinstance(each, Passing) and each.number == UNAVAILABLE for each in answers)
    assert (len(answers), len(server.requests)) == (8, 2)
    with sink_at(f"http://127.0.0.1:{refused_port()}/api") as sink:
        answers = sink.write([CREATE] * 8)
    assert all(isinstance(each, Passing) and each.number == UNREACHABLE for each in answers)
    assert len(answers) == 8


def test_what_cannot_be_opened_is_a_mistake_of_the_configuration() -> None:
    connection = Connection("http://localhost", {}, None, 100, RetryPolicy(), FakeClock(), None, lambda: False)
    with pytest.raises(ConfigError):
        open_sink(connection, "clients")
    with pytest.raises(ConfigError):
        open_sink(msgspec.structs.replace(connection, secrets={"MILVUS_TOKEN": TOKEN}), "contacts")


def test_every_contact_of_the_sandbox_becomes_one_client() -> None:
    with Sandbox(customers=60) as sandbox:
        contacts = list(sandbox.ploomes.contacts.values())
        changes = [Change(document_of(each), "upsert", client(each)) for each in contacts]
        with sink_at(sandbox.environment["MILVUS_URL"], sandbox.environment["MILVUS_TOKEN"]) as sink:
            for _ in range(2):
                for change in changes:
                    (answer,) = sink.write([change])
                    assert isinstance(answer, Verdict)
                    assert answer.outcome == Outcome.DELIVERED
            probes = sink.find(changes)
        assert all(isinstance(probe, Found) and probe.same for probe in probes)
        assert sandbox.milvus.counts["creates"] == 60
        assert sandbox.milvus.counts["updates"] == 0


def test_with_lost_answers_a_probe_tells_the_truth() -> None:
    with Sandbox(customers=80) as sandbox:
        sandbox.milvus.set_faults(parse("drop=30%,drop_before=20%,429=10%,503=10%,500=10%", ["milvus"])["milvus"])
        with sink_at(sandbox.environment["MILVUS_URL"], sandbox.environment["MILVUS_TOKEN"]) as sink:
            for contact in sandbox.ploomes.contacts.values():
                deliver_one(sink, Change(document_of(contact), "upsert", client(contact)))
        documents = sandbox.milvus.stats()["clients_per_document"]
    assert len(documents) == 80
    assert set(documents.values()) == {1}


def deliver_one(sink: Clients, change: Change) -> None:
    """As the hub does: what is in doubt is asked for before it is sent again."""
    for _ in range(100):
        (answer,) = sink.write([change])
        if isinstance(answer, Verdict):
            assert answer.outcome == Outcome.DELIVERED
            return
        if isinstance(answer, InDoubt):
            (probe,) = sink.find([change])
            while isinstance(probe, Passing):
                (probe,) = sink.find([change])
            if isinstance(probe, Found):
                return
    raise AssertionError("it never passed")
