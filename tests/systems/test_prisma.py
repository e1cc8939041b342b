"""Files for a data sync of Prisma: each answer means what the vendor says, and a launch is ours or nobody's."""

from __future__ import annotations

import csv
import io
from base64 import b64encode
from typing import Any

import pytest

from infra.systems.prisma import open_sink, open_source
from infra.systems.prisma.status import CANCELLED, ROWS_REFUSED
from shared.confirm import Confirmation
from shared.ends import Change
from shared.errors import (
    GENERAL,
    RATE_LIMITED,
    REFUSED,
    UNAVAILABLE,
    UNMAPPABLE,
    UNREACHABLE,
    AuthError,
    ConfigError,
    ProtocolError,
    TransientError,
)
from shared.outcome import CannotAsk, InDoubt, Outcome, Verdict, delivered
from tests.loopback import LOST, Loopback, Reply, reply
from tests.systems.prisma_script import (
    FIRST,
    SYNC,
    TOKEN,
    Prisma,
    Row,
    change,
    changes,
    connection_to,
    listed,
    sink_of,
    written,
)

AWKWARD = {"id": "1", "name": 'Ana "A", e filhos', "note": "a\r\nb", "city": "São Paulo; SP", "quote": '"'}


def rows_in(file: bytes) -> list[Row]:
    return list(csv.DictReader(io.StringIO(file.decode(), newline=""), strict=True))


def test_a_batch_is_one_file_and_its_launch_is_the_one_that_came() -> None:
    prisma = Prisma()
    prisma.launch()
    with sink_of(prisma) as (server, sink):
        assert list(sink.write([change(1), change(2)])) == [delivered(str(FIRST + 1000))] * 2
    assert [(each.method, each.target) for each in server.requests] == [
        ("GET", f"/api/data-sync/{SYNC}/latest-launches"),
        ("POST", f"/api/data-sync/import/{SYNC}"),
        ("GET", f"/api/data-sync/{SYNC}/latest-launches"),
    ]
    basic = b64encode(f"api:{TOKEN}".encode()).decode()
    assert {each.headers["authorization"] for each in server.requests} == {f"Basic {basic}"}
    assert prisma.uploads == [("rows.csv", b"id,name\r\n1,name 1\r\n2,name 2\r\n")]


def test_quotes_breaks_and_commas_are_written_as_they_are_read() -> None:
    prisma = Prisma()
    written(prisma, [Change("1", "upsert", AWKWARD)])
    ((_, file),) = prisma.uploads
    assert rows_in(file) == [AWKWARD]
    assert b'"Ana ""A"", e filhos","a\r\nb",S\xc3\xa3o Paulo; SP,""""\r\n' in file


def test_a_file_has_a_column_for_each_name_of_its_batch_and_for_those_that_always_stand_there() -> None:
    prisma = Prisma()
    given = [Change("1", "upsert", {"b": 1.5, "a": None}), Change("2", "upsert", {"c": True, "a": 7, "b": False})]
    written(prisma, given)
    written(prisma, given, columns=["z", "c"])
    assert [file for _, file in prisma.uploads] == [
        b"b,a,c\r\n1.5,,\r\nfalse,7,true\r\n",
        b"z,c,b,a\r\n,,1.5,\r\n,true,false,7\r\n",
    ]


def test_what_is_no_row_of_this_data_sync_is_said_and_its_neighbours_go() -> None:
    prisma = Prisma()
    given = [
        change(1, tags=["a"]),
        change(2),
        Change("3", "delete", {"id": "3"}),
        Change("4", "upsert", {}),
        change(5, inner={"a": 1}),
    ]
    answers = written(prisma, given)
    assert [answer.outcome for answer in answers if isinstance(answer, Verdict)] == [
        Outcome.INVALID, Outcome.DELIVERED, Outcome.REJECTED, Outcome.INVALID, Outcome.INVALID,
    ]  # fmt: skip
    assert [answer.number for answer in answers if isinstance(answer, Verdict)] == [
        UNMAPPABLE, 0, REFUSED, UNMAPPABLE, UNMAPPABLE,
    ]  # fmt: skip
    assert [rows_in(file) for _, file in prisma.uploads] == [[{"id": "2", "name": "name 2"}]]
    assert written(Prisma(), [change(1)], "delete")[0] != delivered(str(FIRST))


def test_nothing_is_sent_where_there_is_no_row() -> None:
    prisma = Prisma()
    written(prisma, [Change("1", "upsert", {})])
    assert prisma.asked == []


@pytest.mark.parametrize(("options", "path"), [({}, "import"), ({"endpoint": "delete"}, "delete")])
def test_a_deletion_is_a_file_too(options: Row, path: str) -> None:
    prisma = Prisma()
    deletion = Change("1", "delete", {"id": "1"})
    assert written(prisma, [deletion], "delete", **options) == [delivered(str(FIRST))]
    assert prisma.asked[1] == path
    assert prisma.uploads[0][1] == b"id\r\n1\r\n"


def test_a_file_may_be_sent_again_and_nobody_can_be_asked_for_a_row() -> None:
    sink = open_sink(connection_to("http://localhost:1", page_size=500), "import")
    assert (sink.bulk, sink.repeatable(change(1)), sink.find([change(1)])) == (500, True, [CannotAsk()])
    sink.close()


# Tokens and options.


@pytest.mark.parametrize(
    ("secrets", "token", "sent"),
    [
        ({}, None, None),
        ({"PRISMA_TOKEN": "a", "PRISMA_TOKEN_B": "b"}, None, "a"),
        ({"PRISMA_TOKEN": "a", "PRISMA_TOKEN_B": "b"}, "PRISMA_TOKEN_B", "b"),
        ({"PRISMA_TOKEN_B": "b"}, None, None),
    ],
)
def test_a_data_sync_has_a_token_of_its_own_or_none(secrets: Row, token: str | None, sent: str | None) -> None:
    with sink_of(Prisma(), secrets=secrets, token=token) as (server, sink):
        sink.write(changes(1))
    basic = {each.headers.get("authorization") for each in server.requests}
    assert basic == {None if sent is None else f"Basic {b64encode(f'api:{sent}'.encode()).decode()}"}


@pytest.mark.parametrize(
    ("write", "options", "said"),
    [
        ("import", {"data_sync": " "}, "no data sync is named"),
        ("import", {"token": "PRISMA_TOKEN_B"}, "PRISMA_TOKEN_B is not set"),
        ("import", {"token": "QEASY_APP_KEY"}, "`token` names QEASY_APP_KEY"),
        ("import", {"endpoint": "delete"}, "`endpoint` is delete"),
        ("delete", {"endpoint": "remove"}, "`endpoint` is remove"),
        ("export", {}, "Prisma has no 'export'"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_sent(write: str, options: Row, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        open_sink(connection_to("http://localhost:1", **options), write)


@pytest.mark.parametrize("options", [{"launch": "last"}, {"page_size": 0}, {"delimiter": ";;"}, {"key": ["a", "a"]}])
def test_so_are_those_of_a_source(options: Row) -> None:
    with pytest.raises(ConfigError):
        open_source(connection_to("http://localhost:1", **options), "export")


# Faults.


@pytest.mark.parametrize("call", ["import", "latest-launches"])
@pytest.mark.parametrize(
    ("given", "number", "status", "after"),
    [
        (reply(500, b"No se pudo importar el archivo"), UNAVAILABLE, 500, None),
        (reply(502), UNAVAILABLE, 502, None),
        (reply(503, headers={"Retry-After": "30"}), UNAVAILABLE, 503, 30.0),
        (reply(429, headers={"Retry-After": "7"}), RATE_LIMITED, 429, 7.0),
        (LOST, UNREACHABLE, None, None),
    ],
)
def test_what_may_pass_is_left_to_whoever_delivers(
    call: str, given: Reply, number: int, status: int | None, after: float | None
) -> None:
    prisma = Prisma()
    prisma.instead[call] = [given]
    with pytest.raises(TransientError) as caught:
        written(prisma, changes(3))
    assert (caught.value.number, caught.value.http_status, caught.value.after) == (number, status, after)
    assert prisma.asked.count(call) == 1 and prisma.launches == []
    assert len(written(prisma, changes(3))) == 3
    assert len(prisma.launches) == 1


def test_a_disabled_data_sync_may_be_enabled_again() -> None:
    prisma = Prisma()
    prisma.instead["import"] = [reply(409)]
    with pytest.raises(TransientError) as caught:
        written(prisma, changes(1))
    assert (caught.value.number, caught.value.http_status) == (GENERAL, 409)


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 405, 415])
def test_a_wrong_address_token_or_kind_stops_the_stream_and_blames_no_row(status: int) -> None:
    prisma = Prisma()
    prisma.instead["import"] = [reply(status, b"ana@shop.example")]
    with pytest.raises(AuthError) as caught:
        written(prisma, changes(2))
    said = str(caught.value) + caught.value.cure
    assert TOKEN not in said and "ana@" not in said
    assert prisma.asked.count("import") == 1


@pytest.mark.parametrize("status", [403, 404])
def test_so_does_one_that_says_so_before_the_file_is_sent(status: int) -> None:
    prisma = Prisma()
    prisma.instead["latest-launches"] = [reply(status)]
    with pytest.raises(AuthError):
        written(prisma, changes(2))
    assert prisma.uploads == []


@pytest.mark.parametrize("given", [reply(200, b"<html>sign in</html>"), reply(200), reply(204)])
def test_an_answer_that_does_not_say_that_the_file_is_queued_leaves_it_in_doubt(given: Reply) -> None:
    prisma = Prisma()
    prisma.instead["import"] = [given]
    answers = written(prisma, changes(2))
    assert len(answers) == 2 and all(isinstance(answer, InDoubt) for answer in answers)


@pytest.mark.parametrize("body", [b"File queued", b'"File queued"\n', b"file queued."])
def test_the_words_are_known_however_they_are_written(body: bytes) -> None:
    prisma = Prisma()
    prisma.instead["import"] = [reply(200, body)]
    assert written(prisma, changes(1)) == [delivered("")]


def largest(prisma: Prisma, rows: int) -> Any:
    """Takes files of at most so many rows."""

    def taken(request: Any) -> Reply:
        answer = prisma(request) if "import" not in request.target else None
        if answer is None:
            size = len(rows_in(prisma._file(request)[1]))
            answer = prisma(request) if size <= rows else reply(413)
        return answer

    return taken


def test_a_file_that_is_too_large_goes_in_halves() -> None:
    prisma = Prisma()
    with Loopback(largest(prisma, 2)) as server:
        sink = open_sink(connection_to(server.url), "import")
        answers = list(sink.write(changes(7)))
        sink.close()
    assert [len(rows_in(file)) for _, file in prisma.uploads] == [2, 2, 2, 1]
    assert [row["id"] for _, file in prisma.uploads for row in rows_in(file)] == [str(each) for each in range(1, 8)]
    launches = [str(FIRST + 1000 * place) for place in (0, 0, 1, 1, 2, 2, 3)]
    assert answers == [delivered(launch) for launch in launches]


def test_a_row_that_is_too_large_alone_is_refused_and_the_others_arrive() -> None:
    prisma = Prisma()

    def taken(request: Any) -> Reply:
        return reply(413) if b"x" * 100 in request.body else prisma(request)

    with Loopback(taken) as server:
        sink = open_sink(connection_to(server.url), "import")
        answers = list(sink.write([change(1), change(2, note="x" * 100), change(3)]))
        sink.close()
    found = [answer for answer in answers if isinstance(answer, Verdict)]
    assert [answer.outcome for answer in found] == [Outcome.DELIVERED, Outcome.REJECTED, Outcome.DELIVERED]
    assert (found[1].number, found[1].http_status) == (REFUSED, 413)


# Whose launch it is.


@pytest.mark.parametrize("first", [FIRST, 17592213056255])
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("number", [int, str])
def test_a_launch_is_ours_if_it_alone_came_since_in_whatever_order_and_form(
    first: int, order: int, number: Any
) -> None:
    """Keys in any order, numbers as texts, and everything left out that may be."""
    prisma = Prisma(first)
    prisma.launch()

    def told(*more: int) -> Reply:
        known = [{"id": number(first), "status": "finished", "status-message": None, "next-launch": None}]
        launches = [{"status": "scheduled", "id": number(first + each)} for each in more]
        return listed([*known, *launches][::order])

    prisma.instead["latest-launches"] = [told(), told(1)]
    assert written(prisma, changes(2)) == [delivered(str(first + 1))] * 2


@pytest.mark.parametrize(
    "after",
    [
        listed([]),
        listed([{"id": FIRST, "status": "finished"}]),
        listed([{"id": FIRST + each, "status": "scheduled"} for each in (3, 2, 0)]),
        reply(200, b'[{:id 1642190400001 :status "scheduled"}]'),
        reply(200, b'[{"status": "scheduled"}]'),
        reply(200, b'{"id": 1, "status": "scheduled"}'),
        reply(403),
        reply(404),
        reply(500),
        LOST,
    ],
)
def test_where_that_cannot_be_told_the_rows_are_delivered_and_nobody_is_asked_later(after: Reply) -> None:
    prisma = Prisma()
    prisma.launch()
    prisma.instead["latest-launches"] = [listed(prisma.launches), after]
    assert written(prisma, changes(2)) == [delivered("")] * 2
    assert len(prisma.uploads) == 1


def test_so_it_is_where_prisma_does_not_tell_its_launches_at_all() -> None:
    prisma = Prisma()
    prisma.instead["latest-launches"] = [reply(200, b"[{:id 1}]")] * 2
    assert written(prisma, changes(2)) == [delivered("")] * 2
    assert prisma.asked == ["latest-launches", "import"]


# What became of it.

NUMBER = str(FIRST)
WORDS = "the file: its header has no column id"


@pytest.mark.parametrize(
    ("launch", "found"),
    [
        ({"status": "scheduled"}, Confirmation(NUMBER, "pending")),
        ({"status": "running", "started-at": "2022-01-14T20:00:01"}, Confirmation(NUMBER, "pending")),
        ({"status": "running", "status-message": "3 of 200 rows were refused"}, Confirmation(NUMBER, "pending")),
        ({"status": "paused"}, Confirmation(NUMBER, "pending")),
        ({"status": "finished"}, Confirmation(NUMBER, "confirmed")),
        ({"status": "finished", "status-message": ""}, Confirmation(NUMBER, "confirmed")),
        ({"status": "finished", "status-message": WORDS}, Confirmation(NUMBER, "failed", refused={WORDS: 0})),
        (
            {"status": "finished", "status-message": "3 of 200 rows were refused"},
            Confirmation(NUMBER, "partial", 200, {ROWS_REFUSED: 3}),
        ),
        (
            {"status": "finished", "status-message": "3 de 200 filas rechazadas"},
            Confirmation(NUMBER, "partial", 200, {ROWS_REFUSED: 3}),
        ),
        (
            {"status": "finished", "status-message": "200 of 200 rows were refused"},
            Confirmation(NUMBER, "failed", refused={"200 of 200 rows were refused": 0}),
        ),
        (
            {"status": "finished", "status-message": "3 of 9 rows were refused; of 6 rows nothing is known"},
            Confirmation(NUMBER, "failed", refused={"3 of 9 rows were refused; of 6 rows nothing is known": 0}),
        ),
        (
            {"status": "finished", "status-message": "gave up after 3 of 5 tries"},
            Confirmation(NUMBER, "failed", refused={"gave up after 3 of 5 tries": 0}),
        ),
        (
            {"status": "finished", "status-message": "ana@shop.example, 529.982.247-25:\n no such customer"},
            Confirmation(NUMBER, "failed", refused={"*** ***: no such customer": 0}),
        ),
        (
            {"status": "cancelled", "status-message": "Cancelled by user: admin@prismacampaigns.com"},
            Confirmation(
                NUMBER,
                "failed",
                refused={"Cancelled by user: ***": 0},
                passing=frozenset(("Cancelled by user: ***",)),
            ),
        ),
        (
            {"status": "cancelled"},
            Confirmation(NUMBER, "failed", refused={CANCELLED: 0}, passing=frozenset((CANCELLED,))),
        ),
    ],
)
def test_a_launch_tells_what_became_of_its_file(launch: Row, found: Confirmation) -> None:
    prisma = Prisma()
    prisma.launches = [{"id": FIRST + 1, "status": "finished"}, {"id": FIRST, **launch}]
    with sink_of(prisma) as (_, sink):
        assert sink.confirm(NUMBER) == found


def test_a_launch_that_is_not_listed_any_more_is_asked_for_by_its_number() -> None:
    prisma = Prisma()
    prisma.most = 2
    numbers = [str(prisma.launch(message=message)) for message in ("", WORDS, "", "")]
    with sink_of(prisma) as (_, sink):
        assert [sink.confirm(each).state for each in numbers] == ["confirmed", "failed", "confirmed", "confirmed"]
    assert prisma.asked == ["latest-launches", "launch", "launch"]


@pytest.mark.parametrize(
    "given",
    [
        reply(404),
        reply(405),
        reply(200, b"<html>"),
        reply(200, b'{"name": "Members", "status": "enabled"}'),
        reply(200, b'{"id": 7, "status": "finished"}'),
    ],
)
def test_one_of_which_prisma_tells_nothing_more_is_gone(given: Reply) -> None:
    prisma = Prisma()
    prisma.launches = [{"id": FIRST + 1, "status": "finished"}]
    prisma.instead["launch"] = [given]
    with sink_of(prisma) as (_, sink):
        assert sink.confirm(NUMBER) == Confirmation(NUMBER, "gone")


def test_so_is_the_request_of_another_target_that_the_stream_had_before() -> None:
    prisma = Prisma()
    with sink_of(prisma) as (_, sink):
        assert sink.confirm("jobs/7") == Confirmation("jobs/7", "gone")
    assert prisma.asked == []


def test_many_launches_that_have_ended_are_asked_for_by_one_call_and_others_each_time() -> None:
    prisma = Prisma()
    ended = [str(prisma.launch()) for _ in range(20)]
    running = str(prisma.launch("running"))
    with sink_of(prisma) as (_, sink):
        assert {sink.confirm(each).state for each in ended} == {"confirmed"}
        assert prisma.asked == ["latest-launches"]
        assert sink.confirm(running).state == "pending"
        prisma.launches[0]["status"] = "finished"
        assert sink.confirm(running).state == "confirmed"
    assert prisma.asked == ["latest-launches"] * 3


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (reply(200, b"[{:id 1}]"), ProtocolError),
        (reply(200, b"<html>"), ProtocolError),
        (reply(302), ProtocolError),
        (reply(403), AuthError),
        (reply(404), AuthError),
        (reply(500), TransientError),
        (LOST, TransientError),
    ],
)
def test_a_prisma_that_cannot_be_asked_says_nothing_of_a_launch(given: Reply, error: type[Exception]) -> None:
    prisma = Prisma()
    prisma.instead["latest-launches"] = [given]
    with sink_of(prisma) as (_, sink), pytest.raises(error):
        sink.confirm(NUMBER)
