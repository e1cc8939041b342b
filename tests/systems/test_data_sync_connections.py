"""Clients on real connections: those that send slowly, break off, send too much, or look for no answer."""

from __future__ import annotations

import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest
import requests

from infra.clock import SystemClock
from infra.data_sync.answers import Refused
from infra.data_sync.body import PIECE, Body, Patience
from tests.acceptance.hub import wait_until
from tests.systems.data_sync_desk import ROOT, SYNCS, Desk, listening, make_hub, served

ENDLESS = 3600.0
QUICK = Patience(piece=ENDLESS, whole=ENDLESS, tick=0.02)
HEAD = b'--B\r\nContent-Disposition: form-data; name="file"; filename="c.csv"\r\n\r\n'
BEGUN = HEAD + b"1234567\n" * 20_000
"""So much of a file that its blob is begun."""
FILE = HEAD + b"id,name\r\n1,Ana\r\n" + b"\r\n--B--\r\n"
FORM = {"Content-Type": "multipart/form-data; boundary=B"}
MakeDesk = Callable[..., Desk]


@pytest.fixture
def make_desk(tmp_path: Path) -> Iterator[MakeDesk]:
    made = []

    def make(patience: Patience | None = None) -> Desk:
        made.append(Desk(make_hub(tmp_path), patience))
        return made[-1]

    yield make
    for desk in made:
        desk.hub.close()


def head(*lines: str, path: str = "import/open_import") -> bytes:
    fixed = (f"POST {ROOT}/{path} HTTP/1.1", "Host: x", "Content-Type: multipart/form-data; boundary=B")
    return "\r\n".join([*fixed, *lines, "", ""]).encode()


def answer_of(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    connection.settimeout(60)
    found = b""
    while piece := connection.recv(65_536):
        found += piece
    return found


def dripping(connection: socket.socket, drops: Iterator[bytes]) -> None:
    """Sends little by little until the other side has something to say."""
    for drop in drops:
        if select.select([connection], [], [], 0.01)[0]:
            return
        connection.sendall(drop)
    raise AssertionError("nobody minded")


def files_in(desk_or_hub: Any) -> list[Path]:
    """All that is kept of uploads, half ones included."""
    hub = getattr(desk_or_hub, "hub", desk_or_hub)
    return [path for path in (hub.state_folder / "blobs").rglob("*") if path.is_file()]


def assert_nothing_is_kept(desk: Desk) -> None:
    assert (desk.launches("open_import"), desk.launches("customers"), files_in(desk)) == ([], [], [])


SLOW = {
    "a length, and then nothing": (("Content-Length: 500",), HEAD, None),
    "a length, drop by drop": (("Content-Length: 500000",), HEAD, b"x"),
    "chunks, and then nothing": (("Transfer-Encoding: chunked",), b"5\r\nabc", None),
    "one chunk, drop by drop": (("Transfer-Encoding: chunked",), b"7fffffff\r\n" + HEAD, b"x"),
    "chunks of a byte": (("Transfer-Encoding: chunked",), b"%x\r\n%s\r\n" % (len(HEAD), HEAD), b"1\r\nx\r\n"),
    "the length of a chunk that never ends": (("Transfer-Encoding: chunked",), b"", b"0"),
}


@pytest.mark.parametrize("way", SLOW)
@pytest.mark.parametrize(
    "patience",
    [Patience(piece=0.3, whole=ENDLESS, tick=0.02), Patience(piece=ENDLESS, whole=0.3, tick=0.02)],
    ids=["a piece", "the whole"],
)
def test_a_client_that_sends_too_slowly_is_told_so(make_desk: MakeDesk, patience: Patience, way: str) -> None:
    desk = make_desk(patience)
    lines, start, drop = SLOW[way]
    with listening(desk) as address, socket.create_connection(address) as connection:
        connection.sendall(head(*lines) + start)
        if drop is not None:
            dripping(connection, (drop for _ in range(5000)))
        answer = answer_of(connection)
    # Digits without an end are no chunk, however slowly they come.
    status = b" 400 " if way.startswith("the length") and b" 400 " in answer[:20] else b" 408 "
    assert status in answer[:20], answer
    assert b"application/problem+json" in answer
    assert_nothing_is_kept(desk)


@pytest.mark.parametrize("start", [b"", b"7fffffff\r\n"], ids=["a length", "a chunk"])
def test_a_process_that_stops_refuses_what_has_not_come_yet(make_desk: MakeDesk, start: bytes) -> None:
    desk = make_desk(QUICK)
    line = "Transfer-Encoding: chunked" if start else "Content-Length: 500000"
    with listening(desk) as address, socket.create_connection(address) as connection:
        connection.sendall(head(line, path="import/customers") + start + BEGUN)
        wait_until(lambda: files_in(desk), "the blob is begun")
        desk.hub.clock.stop()
        answer = answer_of(connection)
    assert b" 503 " in answer[:20], answer
    assert_nothing_is_kept(desk)


BROKEN = {
    "a length": (("Content-Length: 500",), HEAD + b"id\r\n1"),
    "a chunk": (("Transfer-Encoding: chunked",), b"40000000\r\n" + HEAD + b"id\r\n1"),
    "between chunks": (("Transfer-Encoding: chunked",), b"%x\r\n%s\r\n" % (len(HEAD), HEAD)),
    "no chunk": (("Transfer-Encoding: chunked",), b"nonsense\r\n"),
    "a chunk of less than nothing": (("Transfer-Encoding: chunked",), b"-5\r\n"),
    "a chunk without its end": (("Transfer-Encoding: chunked",), b"3\r\nabcdef"),
    "a whole form in a chunk that breaks off": (("Transfer-Encoding: chunked",), b"40000000\r\n" + FILE),
    "no length": ((), FILE),
    "a length that is none": (("Content-Length: many",), FILE),
}


@pytest.mark.parametrize("way", BROKEN)
def test_a_body_that_breaks_off_is_no_file(make_desk: MakeDesk, way: str) -> None:
    desk = make_desk(QUICK)
    lines, body = BROKEN[way]
    with listening(desk) as address, socket.create_connection(address) as connection:
        connection.sendall(head(*lines) + body)
        connection.shutdown(socket.SHUT_WR)
        answer = answer_of(connection)
    assert b" 400 " in answer[:20], answer
    assert_nothing_is_kept(desk)


def test_a_client_that_goes_away_leaves_nothing(make_desk: MakeDesk) -> None:
    desk = make_desk(QUICK)
    with listening(desk) as address:
        with socket.create_connection(address) as connection:
            connection.sendall(head("Content-Length: 500000", path="import/customers") + BEGUN)
            wait_until(lambda: files_in(desk), "the blob is begun")
        wait_until(lambda: not files_in(desk), "the blob is given up")
        assert requests.get(f"http://{address[0]}:{address[1]}{ROOT}/open_import", timeout=60).status_code == 200
    assert_nothing_is_kept(desk)


def in_pieces(size: int) -> Iterator[bytes]:
    yield HEAD
    for _ in range(size // 65_536):
        yield b"1234567\n" * 8192
    yield b"\r\n--B--\r\n"


def test_whoever_sends_too_much_gets_an_answer_all_the_same(make_desk: MakeDesk) -> None:
    desk = make_desk()
    with listening(desk) as (host, port):
        url = f"http://{host}:{port}{ROOT}"
        body = b"".join(in_pieces(20_000_000))
        for path, form, status in (
            ("import/open_import", FORM, 413),
            ("import/asleep", FORM, 409),
            ("import/nobody", FORM, 404),
            ("open_import", FORM, 405),
            ("import/open_import", {"Content-Type": "text/csv"}, 415),
        ):
            assert requests.post(f"{url}/{path}", data=body, headers=form, timeout=60).status_code == status
        desk.token("customers")
        assert requests.post(f"{url}/import/customers", data=body, headers=FORM, timeout=60).status_code == 403
        chunked = requests.post(f"{url}/import/open_import", data=in_pieces(20_000_000), headers=FORM, timeout=60)
        assert chunked.status_code == 413
        assert chunked.json()["detail"] == "a file has at most 2000 bytes"
    assert_nothing_is_kept(desk)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("options", [(), ("-H", "Transfer-Encoding: chunked"), ("-H", "Expect:")], ids=str)
def test_curl_sees_what_it_is_told(make_desk: MakeDesk, tmp_path: Path, options: tuple[str, ...]) -> None:
    desk = make_desk()
    large, small = tmp_path / "large.csv", tmp_path / "small.csv"
    large.write_bytes(b"1234567\n" * 4_000_000)
    small.write_bytes(b"id,name\r\n1,Ana\r\n")
    with listening(desk) as (host, port):
        for file, expected in ((large, "413"), (small, "200")):
            command = ["curl", "-s", "-o", tmp_path / "answer", "-w", "%{http_code}", *options, "-F", f"file=@{file}"]
            url = f"http://{host}:{port}{ROOT}/import/open_import"
            done = subprocess.run([*command, url], capture_output=True, text=True, timeout=120)
            assert (done.returncode, done.stdout) == (0, expected), done
    assert (tmp_path / "answer").read_text() == "File queued"
    (launch,) = desk.launches("open_import")
    assert desk.home.blobs.read(launch.file) == small.read_bytes()


def test_serve_takes_files_of_any_length_and_in_chunks(tmp_path: Path) -> None:
    hub = make_hub(tmp_path, SYNCS.replace("{does: import, title", "{does: import, authentication: false, title"))
    with served(hub) as url:
        api = url + ROOT
        assert f"{ROOT}/customers" in requests.get(url, timeout=60).text
        for number, data in enumerate((b"".join(in_pieces(12_000_000)), in_pieces(12_000_000), FILE), 1):
            answer = requests.post(f"{api}/import/customers", data=data, headers=FORM, timeout=60)
            assert (answer.status_code, answer.text) == (200, "File queued")
            assert len(requests.get(f"{api}/customers/latest-launches", timeout=60).json()) == number
        last = requests.get(f"{api}/customers", timeout=60).json()["latest-launch"]["id"]
        assert requests.get(f"{api}/customers/{last}/download", timeout=60).content == b"id,name\r\n1,Ana\r\n"
        large = requests.get(f"{api}/customers/latest-launches", timeout=60).json()[-1]["id"]
        with requests.get(f"{api}/customers/{large}/download", timeout=60, stream=True) as answer:
            size = sum(len(piece) for piece in answer.iter_content(65_536))
        assert size == int(answer.headers["Content-Length"]) == 12_000_000 // 65_536 * 65_536
        head = requests.head(f"{api}/customers/{large}/download", timeout=60)
        assert (head.status_code, head.headers["Content-Length"]) == (200, str(size))
        # What is no data sync has its own limit.
        refused = requests.post(f"{url}/functions/loyalty/source", data=b"x" * 11_000_000, timeout=60)
        assert refused.status_code == 413
    hub.close()


def test_serve_stops_while_a_file_comes(tmp_path: Path) -> None:
    hub = make_hub(tmp_path)
    with served(hub) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        connection = socket.create_connection((host, int(port)))
        connection.sendall(head("Content-Length: 500000", path="import/customers") + BEGUN)
        wait_until(lambda: files_in(hub), "the blob is begun")
    answer = answer_of(connection)
    connection.close()
    assert b" 503 " in answer[:20], answer
    hub.close()


def test_a_hub_without_data_syncs_serves_none(tmp_path: Path) -> None:
    hub = make_hub(tmp_path)
    path = hub.functions / "loyalty" / "mapping.py"
    never = path.read_text().replace('launched="sent"', 'launched=""').replace('launched="whole"', 'launched=""')
    path.write_text(never)
    with served(hub) as url:
        assert requests.get(f"{url}{ROOT}/openapi.json", timeout=60).status_code == 404
        assert "data-sync" not in requests.get(url, timeout=60).text
    hub.close()


class Hands(SystemClock):
    """Stands still until it is moved."""

    at = 0.0

    def monotonic(self) -> float:
        return self.at


class Coming:
    """A body that brings pieces of any size, or falls over."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.pieces = list(pieces)
        self.asked: list[int] = []
        self.meanwhile: Callable[[], Any] = lambda: None

    def read(self, size: int) -> bytes:
        self.asked.append(size)
        self.meanwhile()
        piece = self.pieces.pop(0) if self.pieces else b""
        if isinstance(piece, Exception):
            raise piece
        return piece


def body_of(stream: Coming, clock: SystemClock, length: int | None = None, **patience: float) -> Body:
    said = {"wsgi.input_terminated": True} if length is None else {"CONTENT_LENGTH": str(length)}
    return Body({"wsgi.input": stream, **said}, clock, Patience(**patience))  # type: ignore[arg-type]


def status_of(body: Body) -> int:
    with pytest.raises(Refused) as refused:
        body.read()
    return refused.value.status


def test_a_body_is_read_to_its_length_and_never_further() -> None:
    stream = Coming(b"x" * PIECE, b"yz")
    body = body_of(stream, Hands(), PIECE + 2)
    assert [body.read(), body.read(), body.read()] == [b"x" * PIECE, b"yz", b""]
    assert stream.asked == [PIECE, 2]


def test_what_a_server_says_of_a_broken_body_is_told_apart_from_being_late() -> None:
    assert status_of(body_of(Coming(OSError("Invalid chunk header")), Hands())) == 400
    assert status_of(body_of(Coming(RuntimeError("of a server of its own")), Hands())) == 400
    assert status_of(body_of(Coming(TimeoutError()), Hands())) == 408
    assert status_of(body_of(Coming(b"short"), Hands(), 10)) == 400


def test_time_is_measured_by_the_clock_of_the_hub() -> None:
    for limits, status in (({"piece": 30.0}, 408), ({"piece": inf, "whole": 30.0}, 408), ({"piece": inf}, 400)):
        clock = Hands()
        stream = Coming(b"short")
        stream.meanwhile = lambda clock=clock: setattr(clock, "at", 30.0)  # type: ignore[misc]
        assert status_of(body_of(stream, clock, 10, **limits)) == status
    clock = Hands()
    body = body_of(Coming(b"x", b"y"), clock, whole=30.0)
    assert body.read() == b"x"
    clock.at = 30.0
    assert status_of(body) == 408


def test_writing_a_piece_may_take_longer_than_receiving_it() -> None:
    clock = Hands()
    body = body_of(Coming(b"x", b"y"), clock, piece=30.0)
    assert body.read() == b"x"
    clock.at = 100.0
    body.check()
    assert body.read() == b"y"


def test_the_rest_is_read_up_to_a_bound() -> None:
    stream = Coming(*[b"x" * 10] * 100)
    body = body_of(stream, Hands(), rest_bytes=55)
    body.read()
    body.read_the_rest()
    assert len(stream.asked) == 1 + 6
    clock = Hands()
    stream = Coming(*[b"x" * 10] * 100)
    stream.meanwhile = lambda: setattr(clock, "at", clock.at + 1)
    body_of(stream, clock, rest=5.0).read_the_rest()
    assert len(stream.asked) == 5
    broken = Coming(OSError())
    body = body_of(broken, Hands())
    assert status_of(body) == 400
    body.read_the_rest()
    assert len(broken.asked) == 1, "nobody knows where a broken body goes on"


def test_a_request_without_a_body_is_not_read_and_not_watched() -> None:
    stream = Coming()
    body = Body({"wsgi.input": stream}, Hands(), Patience())
    body.read_the_rest()
    assert (body.read(), stream.asked) == (b"", [])


def test_a_process_that_stops_does_not_read_on_for_long() -> None:
    clock = Hands()
    stream = Coming(*[b"x"] * 100)
    stream.meanwhile = lambda: setattr(clock, "at", clock.at + 0.4)
    body = body_of(stream, clock, rest=50.0)
    clock.stop()
    assert status_of(body) == 503
    body.read_the_rest()
    assert len(stream.asked) == 3


def test_the_answer_goes_out_before_the_rest_is_read() -> None:
    stream = Coming(b"x")
    pieces = body_of(stream, Hands()).outlasting([b"answer"])
    assert (next(pieces), stream.asked) == (b"answer", [])
    assert list(pieces) == []
    assert len(stream.asked) == 2


def test_no_watch_is_left_behind(make_desk: MakeDesk) -> None:
    desk = make_desk()
    with listening(desk) as (host, port):
        for _ in range(3):
            requests.post(f"http://{host}:{port}{ROOT}/import/open_import", data=FILE, headers=FORM, timeout=60)
        deadline = time.monotonic() + 60
        while any(thread.name == "upload-watch" for thread in threading.enumerate()):
            assert time.monotonic() < deadline
    assert len(desk.launches("open_import")) == 3
