"""Writing tickets to Milvus: one ticket per marker, and a follow-up for what changes afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from infra.systems import Connection
from infra.systems.milvus import Tickets, open_sink
from infra.systems.milvus.tickets import MOST_PAGES, MOST_TOKENS
from shared.ends import Change
from shared.errors import (
    CREDENTIALS,
    CUSTOMER_MISSING,
    NOT_ASKED,
    RATE_LIMITED,
    REFUSED,
    UNAVAILABLE,
    UNDOCUMENTED_ANSWER,
    AuthError,
    ConfigError,
)
from shared.outcome import Absent, Answer, CannotAsk, Found, InDoubt, Outcome, Passing, Probe, Verdict, delivered
from shared.retry import RetryPolicy
from tests.loopback import LOST, FakeClock, Loopback, Reply, Request, reply
from tests.sandbox import Sandbox
from tests.sandbox.faults import parse

TOKEN = "t0k3n"
CNPJ = "16727230000197"
MARKER = "[Ploomes T12]"
NOTED = "[Ploomes T12 2024-03-01T10:00:00.123Z]"
TICKET = {
    "chamado_assunto": f"{MARKER} Instalar",
    "chamado_descricao": "No balcão",
    "chamado_email": "maria@example.com",
    "chamado_telefone": "11988887777",
    "chamado_contato": "Maria Souza",
    "chamado_categoria_primaria": "Instalação",
}
CONTENT: dict[str, Any] = {"marker": MARKER, "customer": CNPJ, "contact": 40012345, "ticket": TICKET}
WITH_FOLLOW_UP = CONTENT | {"follow_up": {"marker": NOTED, "text": "Agora às 15h"}}
CREATE = Change("12", "upsert", CONTENT)
FOLLOW_UP = Change("12", "upsert", WITH_FOLLOW_UP, target_id="857")
CLIENT = {"id": 5, "cnpj_cpf": CNPJ, "is_ativo": True, "token": "ABCDEF"}

SEARCH, CREATING, LISTING = "/cliente/busca", "/chamado/criar", "/chamado/listagem"
FOLLOWING, FOLLOWED = "/chamado/acompanhamento/criar", "/chamado/acompanhamento/857"


def connection_to(url: str, token: str = TOKEN, **options: Any) -> Connection:
    once = RetryPolicy(3, 0.01)
    return Connection(url, {"MILVUS_TOKEN": token}, None, 100, once, FakeClock(), None, lambda: False, options)


@contextmanager
def sink_at(url: str, token: str = TOKEN) -> Iterator[Tickets]:
    sink = open_sink(connection_to(url, token), "tickets")
    assert isinstance(sink, Tickets)
    try:
        yield sink
    finally:
        sink.close()


def as_json(value: Any) -> Reply:
    return reply(200, msgspec.json.encode(value))


def found(*rows: Any) -> Reply:
    return as_json({"lista": rows})


def listed(*rows: Any, page: Any = 1, last: Any = 1, total: Any = None) -> Reply:
    paginate = {"current_page": page, "last_page": last, "total": len(rows) if total is None else total}
    return as_json({"meta": {"paginate": paginate}, "lista": rows})


def ticket(number: Any, subject: Any = TICKET["chamado_assunto"], **fields: Any) -> dict[str, Any]:
    return {"codigo": number, "assunto": subject, "descricao": TICKET["chamado_descricao"], **fields}


def noted(*texts: str) -> Reply:
    return as_json({"status_code": 200, "retorno": [{"texto": "outro"}, *({"texto": text} for text in texts)]})


Given = Reply | Callable[[Request], Reply]


class Desk:
    """A Milvus that answers by path; what was asked is in `server.requests`."""

    def __init__(self, replies: dict[str, Given]) -> None:
        self.replies: dict[str, Given] = {
            SEARCH: found(CLIENT),
            CREATING: reply(200, b"857"),
            LISTING: listed(),
            FOLLOWING: reply(204),
            FOLLOWED: noted(),
            **replies,
        }

    def __call__(self, request: Request) -> Reply:
        given = self.replies[path_of(request)]
        return given if isinstance(given, Reply) else given(request)


def path_of(request: Request) -> str:
    return urlsplit(request.target).path.removeprefix("/api")


@contextmanager
def desk(replies: dict[str, Given] | None = None) -> Iterator[tuple[Loopback, Tickets]]:
    with Loopback(Desk(replies or {})) as server, sink_at(server.url + "/api") as sink:
        yield server, sink


def paths(server: Loopback) -> list[str]:
    return [path_of(request) for request in server.requests]


def answer_of(change: Change, replies: dict[str, Given] | None = None) -> Answer | None:
    with desk(replies) as (_, sink):
        (answer,) = sink.write([change])
    return answer


def probe_of(change: Change, replies: dict[str, Given] | None = None) -> Probe:
    with desk(replies) as (_, sink):
        (probe,) = sink.find([change])
    return probe


# Creating.


def test_a_ticket_is_created_for_the_token_of_its_customer() -> None:
    with desk() as (server, sink):
        assert list(sink.write([CREATE])) == [delivered("857")]
    asked, created = server.requests
    assert parse_qs(urlsplit(asked.target).query) == {"documento": [CNPJ], "status": ["3"]}
    assert asked.headers["authorization"] == TOKEN
    assert msgspec.json.decode(created.body) == {"cliente_id": "ABCDEF", **TICKET}


def test_of_several_clients_the_active_one_with_the_lowest_id_is_meant() -> None:
    rows = [
        CLIENT | {"id": 3, "is_ativo": False, "token": "OLD"},
        CLIENT | {"id": 9, "token": "LATE"},
        CLIENT | {"id": 7, "token": "MEANT"},
        CLIENT | {"id": 1, "cnpj_cpf": CNPJ + "0", "token": "OTHER"},
    ]
    with desk({SEARCH: found(*rows)}) as (server, sink):
        sink.write([CREATE])
    assert msgspec.json.decode(server.requests[1].body)["cliente_id"] == "MEANT"


def test_a_customer_that_is_not_there_yet_is_waited_for_by_its_document() -> None:
    with desk({SEARCH: found()}) as (server, sink):
        answers = list(sink.write([CREATE, CREATE]))
    reason = f"the customer {CNPJ} (Ploomes contact 40012345) is not in Milvus yet"
    assert answers == [Passing(reason, CUSTOMER_MISSING, awaits=CNPJ)] * 2
    assert paths(server) == [SEARCH, SEARCH], "absence is not remembered"


@pytest.mark.parametrize(
    "odd",
    [
        found(*({"id": each, "cnpj_cpf": "1"} for each in range(1000))),
        reply(200, b"[]"),
        reply(200, b"<html>"),
        reply(404),
        found(CLIENT | {"token": None}),
        found(CLIENT | {"token": ""}),
        found(CLIENT | {"id": "5"}),
    ],
)
def test_nothing_is_created_on_the_word_of_a_search_that_says_nothing(odd: Reply) -> None:
    with desk({SEARCH: odd}) as (server, sink):
        (answer,) = sink.write([CREATE])
    assert isinstance(answer, Passing)
    assert (answer.number, answer.awaits) == (NOT_ASKED, "")
    assert paths(server) == [SEARCH]


def test_a_token_that_was_found_is_remembered() -> None:
    with desk() as (server, sink):
        assert list(sink.write([CREATE] * 3)) == [delivered("857")] * 3
    assert paths(server) == [SEARCH, *[CREATING] * 3]


def test_not_more_tokens_are_remembered_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_TOKENS >= 1000
    monkeypatch.setattr("infra.systems.milvus.tickets.MOST_TOKENS", 2)
    documents = ["11111111111", "22222222222", "33333333333"]

    def search(request: Request) -> Reply:
        (document,) = parse_qs(urlsplit(request.target).query)["documento"]
        return found(CLIENT | {"cnpj_cpf": document, "token": document[:6]})

    changes = [Change(each, "upsert", CONTENT | {"customer": each}) for each in documents]
    with desk({SEARCH: search}) as (server, sink):
        for change in (*changes, changes[2], changes[1], changes[0]):
            sink.write([change])
    assert paths(server).count(SEARCH) == 4


def knows_only(token: str) -> Callable[[Request], Reply]:
    def create(request: Request) -> Reply:
        known = msgspec.json.decode(request.body)["cliente_id"] == token
        return reply(200, b"858") if known else reply(400, b'{"message": "cliente_id ABCDEF desconhecido"}')

    return create


def test_a_remembered_token_that_is_refused_is_looked_up_anew_once() -> None:
    server_knows: dict[str, Given] = {}
    with Loopback(Desk({})) as server, sink_at(server.url + "/api") as sink:
        sink.write([CREATE])
        server.handler = Desk(server_knows | {SEARCH: found(CLIENT | {"token": "NEW"}), CREATING: knows_only("NEW")})
        assert list(sink.write([CREATE, CREATE])) == [delivered("858")] * 2
    assert paths(server) == [SEARCH, CREATING, CREATING, SEARCH, CREATING, CREATING]


def test_a_ticket_refused_under_the_token_of_today_is_not_tried_twice() -> None:
    with Loopback(Desk({})) as server, sink_at(server.url + "/api") as sink:
        sink.write([CREATE])
        server.handler = Desk({CREATING: knows_only("NEW")})
        (answer,) = sink.write([CREATE])
        assert isinstance(answer, Verdict)
        assert answer.outcome == Outcome.REJECTED
        assert paths(server) == [SEARCH, CREATING, CREATING, SEARCH]
        server.handler = Desk({SEARCH: found(), CREATING: knows_only("NEW")})
        (answer,) = sink.write([CREATE])
        assert isinstance(answer, Passing)
        assert answer.number == CUSTOMER_MISSING
        sink.write([CREATE])
        assert paths(server)[4:] == [CREATING, SEARCH, SEARCH], "a token that is known to be wrong is not used again"


@pytest.mark.parametrize("status", [400, 404, 409, 422])
def test_a_refusal_keeps_the_targets_words_and_nobody_in_them(status: int) -> None:
    message = "Instalação: ABCDEF, Maria Souza, maria@example.com, 11988887777, CNPJ 16.727.230/0001-97, No balcão"
    answer = answer_of(CREATE, {CREATING: reply(status, msgspec.json.encode({"message": message}))})
    assert isinstance(answer, Verdict)
    assert (answer.outcome, answer.number, answer.http_status) == (Outcome.REJECTED, REFUSED, status)
    assert answer.reason == "Instalação: ***, ***, ***, ***, CNPJ ***, ***"


@pytest.mark.parametrize("body", [b"", b"null", b'{"codigo":7}', b"[7]", b"ok", b"0", b"-1", b"1.5"])
def test_a_create_answered_without_a_bare_number_is_unknown(body: bytes) -> None:
    answer = answer_of(CREATE, {CREATING: reply(200, body)})
    assert isinstance(answer, Verdict)
    assert (answer.outcome, answer.number) == (Outcome.UNKNOWN, UNDOCUMENTED_ANSWER)


@pytest.mark.parametrize("failure", [LOST, reply(500), reply(502), reply(504)])
@pytest.mark.parametrize(("change", "path"), [(CREATE, CREATING), (FOLLOW_UP, FOLLOWING)])
def test_what_was_not_answered_is_in_doubt_and_sent_once(change: Change, path: str, failure: Reply) -> None:
    with desk({path: failure}) as (server, sink):
        (answer,) = sink.write([change])
    assert isinstance(answer, InDoubt)
    assert paths(server).count(path) == 1


@pytest.mark.parametrize(("status", "number"), [(429, RATE_LIMITED), (503, UNAVAILABLE)])
@pytest.mark.parametrize(("change", "path"), [(CREATE, CREATING), (FOLLOW_UP, FOLLOWING), (CREATE, SEARCH)])
def test_what_was_certainly_not_taken_passes(change: Change, path: str, status: int, number: int) -> None:
    answer = answer_of(change, {path: reply(status, headers={"Retry-After": "9"})})
    assert isinstance(answer, Passing)
    assert (answer.number, answer.after, answer.http_status) == (number, 9.0, status)


def test_refused_credentials_are_raised_if_nothing_took_effect_and_kept_apart_otherwise() -> None:
    with desk({SEARCH: reply(401)}) as (_, sink), pytest.raises(AuthError):
        sink.write([CREATE])
    with desk({FOLLOWED: reply(403)}) as (_, sink), pytest.raises(AuthError):
        sink.find([FOLLOW_UP])
    with desk({FOLLOWING: reply(401)}) as (_, sink):
        done, left = sink.write([CREATE, FOLLOW_UP])
        assert done == delivered("857")
        assert isinstance(left, Passing)
        assert left.number == CREDENTIALS


def test_an_outage_is_not_tried_with_every_record() -> None:
    with desk({SEARCH: reply(503)}) as (server, sink):
        answers = sink.write([CREATE] * 8)
    assert all(isinstance(each, Passing) and each.number == UNAVAILABLE for each in answers)
    assert (len(answers), len(server.requests)) == (8, 2)


def test_no_ticket_may_be_written_twice_and_none_can_be_deleted() -> None:
    with desk() as (server, sink):
        assert not any(sink.repeatable(each) for each in (CREATE, FOLLOW_UP, Change("12", "delete", {}, "857")))
        (answer,) = sink.write([Change("12", "delete", {}, "857")])
        assert isinstance(answer, Verdict)
        assert answer.outcome == Outcome.REJECTED
        assert server.requests == []


# Following up.


@pytest.mark.parametrize(("text", "sent"), [("Agora", f"{NOTED} Agora"), (f"Agora {NOTED}", f"Agora {NOTED}")])
def test_what_changes_of_a_ticket_is_a_follow_up_that_carries_its_marker(text: str, sent: str) -> None:
    change = msgspec.structs.replace(FOLLOW_UP, content=CONTENT | {"follow_up": {"marker": NOTED, "text": text}})
    with desk() as (server, sink):
        assert list(sink.write([change])) == [delivered("857")]
    (request,) = server.requests
    assert (path_of(request), msgspec.json.decode(request.body)) == (
        FOLLOWING,
        {"acompanhamento_ticket": "857", "acompanhamento_descricao": sent, "acompanhamento_privado": False},
    )


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_follow_up_that_is_refused_makes_no_second_ticket(status: int) -> None:
    with desk({FOLLOWING: reply(status)}) as (server, sink):
        (answer,) = sink.write([FOLLOW_UP])
    assert isinstance(answer, Verdict)
    assert (answer.outcome, answer.http_status) == (Outcome.REJECTED, status)
    assert paths(server) == [FOLLOWING]


def test_a_ticket_that_is_there_is_not_written_without_a_follow_up() -> None:
    with desk() as (server, sink):
        (answer,) = sink.write([msgspec.structs.replace(CREATE, target_id="857")])
    assert isinstance(answer, Verdict)
    assert answer.outcome == Outcome.REJECTED
    assert server.requests == []


def test_a_follow_up_is_found_by_its_marker() -> None:
    for texts, same in ([], False), (["Nada"], False), ([f"{NOTED} Agora"], True), ([MARKER], False):
        assert probe_of(FOLLOW_UP, {FOLLOWED: noted(*texts)}) == Found("857", same)
    deep = as_json({"retorno": [{"log": {"html": [f"<p>{NOTED}</p>"]}}]})
    assert probe_of(FOLLOW_UP, {FOLLOWED: deep}) == Found("857", True)
    assert probe_of(FOLLOW_UP, {FOLLOWED: reply(404)}) == Found("857", False)


@pytest.mark.parametrize("odd", [reply(200, b"{}"), reply(200, b'{"retorno": null}'), reply(302), reply(200, b"<p>")])
def test_follow_ups_that_are_no_list_say_nothing(odd: Reply) -> None:
    probe = probe_of(FOLLOW_UP, {FOLLOWED: odd})
    assert isinstance(probe, Passing)
    assert probe.number == NOT_ASKED


# Finding.


def test_a_ticket_is_looked_for_by_its_marker_in_every_status() -> None:
    with desk() as (server, sink):
        assert list(sink.find([CREATE])) == [Absent()]
    (request,) = server.requests
    query = parse_qs(urlsplit(request.target).query)
    assert (query["total_registros"], query["pagina"]) == (["1000"], ["1"])
    assert msgspec.json.decode(request.body) == {"filtro_body": {"assunto": MARKER, "status": 10}}


def test_of_several_tickets_with_the_marker_the_lowest_number_is_meant() -> None:
    rows = [ticket(999), ticket("860"), ticket(850, "[Ploomes T123] Outro"), ticket(849, None)]
    probe = probe_of(CREATE, {LISTING: listed(*rows)})
    assert isinstance(probe, Found)
    assert (probe.target_id, probe.same) == ("860", True)
    assert probe_of(CREATE, {LISTING: listed(*rows[2:])}) == Absent()
    assert probe_of(CREATE, {LISTING: listed(ticket(1, "[ploomes t12]"))}) == Absent()


def paged(pages: list[list[dict[str, Any]]], as_text: bool = True) -> Callable[[Request], Reply]:
    total = sum(len(page) for page in pages)

    def give(request: Request) -> Reply:
        page = int(parse_qs(urlsplit(request.target).query)["pagina"][0])
        kind: Callable[[int], Any] = str if as_text else int
        return listed(*pages[page - 1], page=kind(page), last=kind(len(pages)), total=kind(total))

    return give


@pytest.mark.parametrize("as_text", [True, False])
def test_all_pages_are_read_whatever_kind_their_numbers_are(as_text: bool) -> None:
    others = [[ticket(10 * page + each, f"[Ploomes T12{each}]") for each in range(3)] for page in range(3)]
    assert probe_of(CREATE, {LISTING: paged(others, as_text)}) == Absent()
    probe = probe_of(CREATE, {LISTING: paged([*others, [ticket(99)]], as_text)})
    assert isinstance(probe, Found)
    assert probe.target_id == "99"


OTHERS = [ticket(number, "[Ploomes T123]") for number in range(3)]


@pytest.mark.parametrize(
    "odd",
    [
        reply(404),
        reply(200, b"[]"),
        reply(200, b"<html>"),
        as_json({"lista": []}),
        as_json({"meta": {"paginate": {"current_page": 1, "last_page": 1, "total": 0}}}),
        as_json({"meta": {"paginate": {"current_page": 1, "last_page": 1}}, "lista": []}),
        listed(total="?"),
        listed(total=-1),
        listed(last=None),
        listed("text"),
        listed({"codigo": 5}),
        listed({"assunto": "outro"}),
        listed(ticket("x", "outro")),
        listed(*OTHERS, total=4),
        listed(*OTHERS, page=2),
        listed(*OTHERS, last=2, total=6),
        listed(total=7),
    ],
)
def test_a_list_that_may_not_be_whole_never_says_that_a_ticket_is_absent(odd: Reply) -> None:
    probe = probe_of(CREATE, {LISTING: odd})
    assert isinstance(probe, Passing)
    assert probe.number == NOT_ASKED


def test_pages_that_repeat_themselves_are_not_read_to_their_end() -> None:
    def same_again(request: Request) -> Reply:
        page = int(parse_qs(urlsplit(request.target).query)["pagina"][0])
        return listed(*OTHERS, page=page, last=50, total=150)

    with desk({LISTING: same_again}) as (server, sink):
        (probe,) = sink.find([CREATE])
    assert isinstance(probe, Passing)
    assert len(server.requests) == 2


def test_a_list_without_end_is_not_read() -> None:
    def more(request: Request) -> Reply:
        page = int(parse_qs(urlsplit(request.target).query)["pagina"][0])
        return listed(ticket(page, "Outro"), page=page, last=MOST_PAGES + 1, total=MOST_PAGES + 1)

    with desk({LISTING: more}) as (server, sink):
        (probe,) = sink.find([CREATE])
    assert isinstance(probe, Passing)
    assert len(server.requests) == 1


def test_a_known_ticket_is_looked_for_by_its_number() -> None:
    known, audited = msgspec.structs.replace(CREATE, target_id="857"), Change("12", "upsert", {}, "857")
    with desk({LISTING: listed(ticket(8570), ticket(857))}) as (server, sink):
        one, other = sink.find([known, audited])
    assert msgspec.json.decode(server.requests[0].body)["filtro_body"] == {"codigo": "857", "status": 10}
    assert isinstance(one, Found)
    assert isinstance(other, Found)
    assert (one.target_id, one.same, other.target_id, other.same) == ("857", True, "857", None)
    assert probe_of(known, {LISTING: listed(ticket(8570))}) == Absent()
    assert probe_of(known, {LISTING: listed(ticket(857, "Renomeado"))}) == Found("857", None, ticket(857, "Renomeado"))


def test_without_number_and_marker_nobody_can_be_asked() -> None:
    assert probe_of(Change("12", "upsert", {})) == CannotAsk()


@pytest.mark.parametrize(
    ("row", "notes", "same"),
    [
        (ticket(857), [], True),
        (ticket(857, f"{MARKER}  Instalar "), [], True),
        (ticket(857, f"{MARKER} Entregar"), [], False),
        (ticket(857, descricao="Antes"), [], False),
        (ticket(857, descricao="Antes"), [f"{NOTED} Agora"], True),
    ],
)
def test_a_ticket_that_an_older_version_made_has_yet_to_be_told(
    row: dict[str, Any], notes: list[str], same: bool
) -> None:
    change = Change("12", "upsert", WITH_FOLLOW_UP)
    assert probe_of(change, {LISTING: listed(row), FOLLOWED: noted(*notes)}) == Found("857", same, row)
    assert probe_of(CREATE, {LISTING: listed(row)}) == Found("857", True, row)


@pytest.mark.parametrize("cap", [0, -1, "1000", True])
def test_a_cap_that_is_no_number_of_rows_is_a_mistake_of_the_configuration(cap: Any) -> None:
    with pytest.raises(ConfigError, match="result_cap"):
        open_sink(connection_to("http://localhost", result_cap=cap), "tickets")


# Against the sandbox.


def change_for(number: int, document: str, **more: Any) -> Change:
    marker = f"[Ploomes T{number}]"
    ticket_body = {"chamado_assunto": f"{marker} Instalar", "chamado_descricao": "No balcão"}
    return Change(
        str(number),
        "upsert",
        {"marker": marker, "customer": document, "contact": number, "ticket": ticket_body, **more},
    )


@contextmanager
def sandboxed(faults: str = "", clients: int = 40) -> Iterator[tuple[Sandbox, Tickets, list[str]]]:
    with Sandbox(customers=0, clients=clients) as sandbox:
        sandbox.milvus.set_faults(parse(faults, ["milvus"]).get("milvus") or sandbox.milvus.faults)
        documents = [row["cnpj_cpf"] for row in sandbox.milvus.clients.values()]
        with sink_at(sandbox.environment["MILVUS_URL"], sandbox.environment["MILVUS_TOKEN"]) as sink:
            yield sandbox, sink, documents


def deliver_one(sink: Tickets, change: Change) -> str:
    """As the hub does: what is in doubt is asked for before it is sent again. Gives the ticket's number."""
    for _ in range(100):
        (answer,) = sink.write([change])
        if isinstance(answer, Verdict):
            assert answer.outcome == Outcome.DELIVERED, answer
            return answer.target_id
        if isinstance(answer, InDoubt):
            (probe,) = sink.find([change])
            while isinstance(probe, Passing):
                (probe,) = sink.find([change])
            if isinstance(probe, Found) and probe.same:
                return probe.target_id
    raise AssertionError("it never passed")


def test_with_lost_answers_every_task_has_exactly_one_ticket_and_one_follow_up() -> None:
    faults = "drop=30%,drop_before=20%,429=10%,503=10%,500=10%"
    with sandboxed(faults) as (sandbox, sink, documents):
        for number, document in enumerate(documents, start=1):
            target = deliver_one(sink, change_for(number, document))
            follow_up = {"marker": f"[Ploomes T{number} 2024]", "text": "Mudou"}
            changed = msgspec.structs.replace(change_for(number, document, follow_up=follow_up), target_id=target)
            assert deliver_one(sink, changed) == target
        stats = sandbox.milvus.stats()
        assert stats["struck"]["drop"] > 0
        assert (stats["tickets"], stats["follow_ups"], stats["repeated_subjects"]) == (40, 40, {})
        assert {row["cliente_token"] for row in sandbox.milvus.tickets.values()} == {
            row["token"] for row in sandbox.milvus.clients.values()
        }


def test_a_ticket_whose_answer_was_lost_is_found_when_it_is_finished_already() -> None:
    with sandboxed("drop=100%") as (sandbox, sink, documents):
        change = change_for(12, documents[0])
        (answer,) = sink.write([change])
        assert isinstance(answer, InDoubt)
        ((number, _),) = sandbox.milvus.tickets.items()
        sandbox.milvus.set_faults(parse("milvus.drop=0", ["milvus"])["milvus"])
        sandbox.milvus.parts["tickets"].change([number], {"status": 4})
        (probe,) = sink.find([change])
    assert isinstance(probe, Found)
    assert (probe.target_id, probe.same) == (str(number), True)


def test_a_marker_that_begins_another_is_told_apart_over_many_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox finds a part of the subject, as any text: every ticket holds `[Ploomes T12`."""
    monkeypatch.setattr("infra.systems.milvus.tickets.PAGE", 50)
    with sandboxed() as (sandbox, sink, documents):
        for number in range(1200, 1320):
            deliver_one(sink, change_for(number, documents[0]))
        wanted = change_for(12, documents[0])
        cut = msgspec.structs.replace(wanted, content=wanted.content | {"marker": "[Ploomes T12"})
        (probe,) = sink.find([cut])
        assert isinstance(probe, Found)
        assert sandbox.milvus.stats()["requests"]["POST /api/chamado/listagem"] == 2
        assert list(sink.find([wanted])) == [Absent()]
        number = deliver_one(sink, wanted)
        (probe,) = sink.find([wanted])
    assert isinstance(probe, Found)
    assert probe.target_id == number


def test_a_customer_that_arrives_later_gets_its_ticket() -> None:
    with sandboxed() as (sandbox, sink, documents):
        first, *_ = sandbox.milvus.clients
        sandbox.milvus.parts["clients"].change([first], {"cnpj_cpf": "00000000000"})
        change = change_for(1, documents[0])
        (answer,) = sink.write([change])
        assert isinstance(answer, Passing)
        assert (answer.number, answer.awaits) == (CUSTOMER_MISSING, documents[0])
        sandbox.milvus.parts["clients"].change([first], {"cnpj_cpf": documents[0]})
        number = deliver_one(sink, change)
        assert sandbox.milvus.tickets[int(number)]["cliente_token"] == sandbox.milvus.clients[first]["token"]
