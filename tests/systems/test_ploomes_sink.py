"""Writing contacts to Ploomes: one contact per document, and nothing said that is not known."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec
import pytest

from infra.systems import Connection
from infra.systems.ploomes import open_sink
from shared.ends import Change
from shared.errors import (
    CREDENTIALS,
    RATE_LIMITED,
    REFUSED,
    UNAVAILABLE,
    UNDOCUMENTED_ANSWER,
    UNREACHABLE,
    AuthError,
    ConfigError,
)
from shared.outcome import Answer, InDoubt, Outcome, Passing, Verdict, delivered
from shared.retry import RetryPolicy
from tests.loopback import LOST, FakeClock, Reply, refused_port, reply
from tests.systems.ploomes_account import (
    CNPJ,
    CONTENT,
    CREATE,
    DELETE,
    KEY,
    ROW,
    SURELY_NEW,
    UPDATE,
    UPDATED,
    Given,
    account,
    found,
    methods,
    once,
    query_of,
    sink_at,
)


def answer_of(change: Change, existing: str = "keep", **replies: Given) -> Answer | None:
    with account(existing, **replies) as (_, sink):
        (answer,) = sink.write([change])
    return answer


def test_a_new_contact_is_looked_for_and_created() -> None:
    with account() as (server, sink):
        assert list(sink.write([CREATE])) == [delivered("77")]
    asked, created = server.requests
    assert asked.headers["user-key"] == KEY
    assert urlsplit(asked.target).path == "/Contacts"
    assert query_of(asked) == {
        "$filter": f"(Register eq '{CNPJ}' or CNPJ eq '{CNPJ}' or CPF eq '{CNPJ}' "
        "or Register eq '16.727.230/0001-97') and Id gt 0",
        "$orderby": "Id asc",
        "$top": "300",
        "$expand": "Phones,Tags,City($expand=State)",
    }
    assert (created.method, created.target) == ("POST", "/Contacts")
    assert msgspec.json.decode(created.body) == CONTENT


def test_a_contact_that_is_surely_new_is_not_looked_for() -> None:
    with account() as (server, sink):
        assert list(sink.write([SURELY_NEW])) == [delivered("77")]
    assert methods(server) == ["POST"]


def test_a_contact_that_is_there_stays_as_it_is() -> None:
    with account(GET=found(ROW | {"Name": "Beta"})) as (server, sink):
        assert list(sink.write([CREATE])) == [delivered("5")]
    assert methods(server) == ["GET"]


def test_a_contact_that_is_there_is_brought_in_line_if_so_configured() -> None:
    with account("update", GET=found(ROW | {"Name": "Beta"})) as (server, sink):
        assert list(sink.write([CREATE])) == [delivered("5")]
    patch = server.requests[1]
    assert (patch.method, patch.target) == ("PATCH", "/Contacts(5)")
    assert msgspec.json.decode(patch.body) == UPDATED
    with account("update", GET=found(ROW)) as (server, sink):
        assert list(sink.write([CREATE])) == [delivered("5")]
    assert methods(server) == ["GET"]


@pytest.mark.parametrize("existing", ["keep", "update"])
def test_a_known_contact_is_updated_by_its_id(existing: str) -> None:
    with account(existing) as (server, sink):
        assert list(sink.write([UPDATE])) == [delivered("5")]
    assert methods(server) == ["PATCH"]
    assert msgspec.json.decode(server.requests[0].body) == UPDATED


def test_a_known_contact_that_is_gone_is_created_again() -> None:
    with account(PATCH=reply(404)) as (server, sink):
        assert list(sink.write([UPDATE])) == [delivered("77")]
    assert methods(server) == ["PATCH", "GET", "POST"]


def test_a_known_contact_that_is_gone_is_followed_to_where_its_document_is() -> None:
    other = found(ROW | {"Id": 6, "Name": "Beta"})
    with account(GET=other, PATCH=once(reply(404), found())) as (server, sink):
        assert list(sink.write([UPDATE])) == [delivered("6")]
    assert [request.target for request in server.requests if request.method == "PATCH"] == [
        "/Contacts(5)",
        "/Contacts(6)",
    ]


def test_a_contact_that_goes_away_all_the_time_is_left_for_later() -> None:
    with account(PATCH=reply(404), GET=found(ROW | {"Name": "Beta"})) as (server, sink):
        (answer,) = sink.write([UPDATE])
    assert isinstance(answer, Passing)
    assert "POST" not in methods(server)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"77",
        b'{"Id":77}',
        b'{"value":[]}',
        b'{"value":{"Id":77}}',
        b'{"value":[{}]}',
        b'{"value":[77]}',
        b'{"value":[{"Id":"77"}]}',
        b'{"value":[{"Id":true}]}',
        b'{"value":[{"Id":0}]}',
        b'{"value":[{"Id":-4}]}',
        b"<html>",
    ],
)
def test_a_create_answered_without_the_contact_is_unknown(body: bytes) -> None:
    answer = answer_of(SURELY_NEW, POST=reply(200, body))
    assert isinstance(answer, Verdict)
    assert (answer.outcome, answer.number) == (Outcome.UNKNOWN, UNDOCUMENTED_ANSWER)


@pytest.mark.parametrize(("change", "method"), [(SURELY_NEW, "POST"), (UPDATE, "PATCH"), (DELETE, "DELETE")])
def test_an_undocumented_status_of_a_write_is_unknown(change: Change, method: str) -> None:
    answer = answer_of(change, **{method: reply(302)})
    assert isinstance(answer, Verdict)
    assert (answer.outcome, answer.number, answer.http_status) == (Outcome.UNKNOWN, UNDOCUMENTED_ANSWER, 302)


@pytest.mark.parametrize("status", [400, 409, 422])
@pytest.mark.parametrize(("change", "method"), [(SURELY_NEW, "POST"), (UPDATE, "PATCH"), (DELETE, "DELETE")])
@pytest.mark.parametrize("form", ["error", "Message"])
def test_a_refusal_keeps_the_targets_words_and_no_persons(change: Change, method: str, status: int, form: str) -> None:
    message = f"CNPJ 16.727.230/0001-97 de a@example.com, telefone 11988887777, linha 12 {'x' * 300}"
    body = msgspec.json.encode({form: {"code": "", "message": message} if form == "error" else message})
    answer = answer_of(change, **{method: reply(status, body)})
    assert isinstance(answer, Verdict)
    assert (answer.outcome, answer.number, answer.http_status) == (Outcome.REJECTED, REFUSED, status)
    assert answer.reason.startswith("CNPJ *** de *** telefone ***, linha 12 xxx")
    assert len(answer.reason) == 200


@pytest.mark.parametrize(("change", "method"), [(SURELY_NEW, "POST"), (UPDATE, "PATCH")])
def test_a_refusal_does_not_quote_what_was_sent(change: Change, method: str) -> None:
    body = b'{"error": {"message": "O nome Alfa Ltda, ou Alfa, e o site https://alfa.example, com 01310100"}}'
    answer = answer_of(change, **{method: reply(400, body)})
    assert isinstance(answer, Verdict)
    assert answer.reason == "O nome ***, ou ***, e o site ***, com ***"


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"error": 5}', b'{"error": {"message": 5}}', b'{"Message": ""}'])
def test_a_refusal_without_words_gives_its_status(body: bytes) -> None:
    answer = answer_of(UPDATE, PATCH=reply(422, body))
    assert isinstance(answer, Verdict)
    assert answer.reason == "Ploomes answered 422"


@pytest.mark.parametrize("failure", [LOST, reply(500), reply(502), reply(504)])
def test_a_create_without_a_usable_answer_is_in_doubt_and_sent_once(failure: Reply) -> None:
    with account(POST=failure) as (server, sink):
        (answer,) = sink.write([CREATE])
    assert isinstance(answer, InDoubt)
    assert methods(server).count("POST") == 1


@pytest.mark.parametrize("failure", [LOST, reply(500), reply(502), reply(504), reply(503), reply(429)])
@pytest.mark.parametrize(("change", "method"), [(UPDATE, "PATCH"), (DELETE, "DELETE")])
def test_what_may_be_repeated_passes(change: Change, method: str, failure: Reply) -> None:
    assert isinstance(answer_of(change, **{method: failure}), Passing)


@pytest.mark.parametrize(("status", "number"), [(429, RATE_LIMITED), (503, UNAVAILABLE)])
@pytest.mark.parametrize(("headers", "after"), [({"Retry-After": "9"}, 9.0), ({}, None)])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_create_that_was_certainly_not_taken_passes_and_is_tried_once(
    method: str, status: int, number: int, headers: dict[str, str], after: float | None
) -> None:
    with account(**{method: reply(status, headers=headers)}) as (server, sink):
        (answer,) = sink.write([CREATE])
    assert isinstance(answer, Passing)
    assert (answer.number, answer.after, answer.http_status) == (number, after, status)
    assert methods(server).count(method) == 1


def test_a_delete_goes_by_id_else_by_document() -> None:
    with account() as (server, sink):
        assert list(sink.write([DELETE])) == [delivered("5")]
        assert server.requests[0].target == "/Contacts(5)"
        assert list(sink.write([Change(CNPJ, "delete", {})])) == [delivered()]
    with account(GET=found(ROW)) as (server, sink):
        assert list(sink.write([Change(CNPJ, "delete", {})])) == [delivered("5")]
        assert methods(server) == ["GET", "DELETE"]
    assert answer_of(DELETE, DELETE=reply(404)) == delivered("5")


def test_only_what_goes_by_id_may_be_repeated() -> None:
    with account() as (_, sink):
        assert [sink.repeatable(each) for each in (CREATE, SURELY_NEW, UPDATE, DELETE)] == [False, False, True, True]


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_raised_if_nothing_took_effect(status: int) -> None:
    with account(GET=reply(status)) as (_, sink):
        with pytest.raises(AuthError) as caught:
            sink.write([CREATE, UPDATE])
        with pytest.raises(AuthError):
            sink.find([CREATE])
    assert CNPJ not in str(caught.value)
    assert KEY not in str(caught.value)


def test_credentials_refused_in_the_middle_keep_what_was_done() -> None:
    left = [found()] * 2
    with account(PATCH=lambda request: left.pop() if left else reply(401)) as (server, sink):
        answers = list(sink.write([UPDATE] * 5))
        assert answers[:2] == [delivered("5")] * 2
        assert all(isinstance(each, Passing) and each.number == CREDENTIALS for each in answers[2:])
        assert len(server.requests) == 3
        with pytest.raises(AuthError):
            sink.write([UPDATE])


def test_one_record_that_the_target_stumbles_over_does_not_stop_its_neighbours() -> None:
    poison = msgspec.structs.replace(UPDATE, target_id="6")
    with account(PATCH=lambda request: reply(500) if "(6)" in request.target else found()) as (_, sink):
        answers = list(sink.write([UPDATE, poison, UPDATE, poison, UPDATE]))
    assert [isinstance(each, Passing) for each in answers] == [False, True, False, True, False]


def test_an_outage_is_not_tried_with_every_record() -> None:
    with account(PATCH=reply(503)) as (server, sink):
        answers = sink.write([UPDATE] * 8)
    assert all(isinstance(each, Passing) and each.number == UNAVAILABLE for each in answers)
    assert (len(answers), len(server.requests)) == (8, 2)
    with sink_at(f"http://127.0.0.1:{refused_port()}") as sink:
        answers = sink.write([CREATE] * 8)
    assert all(isinstance(each, Passing) and each.number == UNREACHABLE for each in answers)
    assert len(answers) == 8


def test_what_cannot_be_opened_is_a_mistake_of_the_configuration() -> None:
    connection = Connection("http://localhost", {}, None, 100, RetryPolicy(), FakeClock(), None, lambda: False)
    with pytest.raises(ConfigError):
        open_sink(connection, "contacts")
    with pytest.raises(ConfigError):
        open_sink(connection, "Deals")
