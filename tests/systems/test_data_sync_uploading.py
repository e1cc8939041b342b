"""Files that are sent: however the bytes arrive, the file is stored as it was, or nothing is."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from werkzeug.wrappers import Request

from infra.clock import SystemClock
from infra.data_sync.answers import Refused
from infra.data_sync.body import Body, Patience
from infra.data_sync.uploading import BESIDES, PARTS, receive
from infra.local.blobs import LocalBlobs
from shared.errors import StoreUnavailable
from tests.systems.data_sync_desk import ROOT, Desk, make_hub
from tests.unit.fakes import IN_MEMORY

B = b"----boundary7MA4"
HEAD = b'Content-Disposition: form-data; name="file"; filename="c.csv"\r\nContent-Type: text/csv\r\n\r\n'
OTHER = b'Content-Disposition: form-data; name="other"\r\n\r\n'
END = b"\r\n--" + B + b"--\r\n"
Sent = tuple[int, bytes]


class Arriving(io.RawIOBase):
    """Gives what comes as it comes; no two pieces at once."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces
        self.asked = 0

    def read(self, size: int = -1) -> bytes:
        self.asked += 1
        return next(self.pieces, b"")


def cut(body: bytes, cuts: list[int]) -> Iterator[bytes]:
    """The body in pieces that end at these places."""
    places = sorted({place % (len(body) + 1) for place in cuts} - {0})
    for start, end in zip([0, *places], [*places, len(body)], strict=True):
        if start < end:
            yield body[start:end]


def bring(body: bytes, cuts: list[int] | None = None, most: int = 10_000_000, **environ: Any) -> Sent:
    """What is stored of a body that arrives in pieces. Raises Refused, having made sure that nothing is stored."""
    form = f"multipart/form-data; boundary={B.decode()}"
    stream = Arriving(cut(body, cuts or []))
    given = {"REQUEST_METHOD": "POST", "CONTENT_TYPE": form, "wsgi.input": stream, "wsgi.input_terminated": True}
    request = Request(given | environ)
    with TemporaryDirectory(dir=IN_MEMORY) as folder:
        blobs = LocalBlobs(Path(folder))
        try:
            size = receive(request, Body(request.environ, SystemClock(), Patience()), blobs, "uploads/one", most)
        except BaseException:
            assert list(Path(folder).rglob("*.*")) + list(blobs.names("")) == []
            raise
        return size, blobs.read("uploads/one")


def refusal(*arguments: Any, **more: Any) -> tuple[int, str]:
    with pytest.raises(Refused) as refused:
        bring(*arguments, **more)
    return refused.value.status, refused.value.detail


def part(content: bytes, head: bytes = HEAD) -> bytes:
    return b"\r\n--" + B + b"\r\n" + head + content


def form(*parts: bytes) -> bytes:
    return b"".join(parts)[2:] + END


# Line breaks and beginnings of the boundary are what a decoder stumbles over.
CONTENTS = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"--", b"-", B, b"--" + B[:5], b'"', b";", b"id,name", b"\x00", b"\xff"])
    | st.binary(max_size=30),
    min_size=1,
    max_size=30,
).map(b"".join)
MARKS = (b"\x1f\x8b", b"PK", b"\x28\xb5", b"\xfd7", b"BZh")
FILES = CONTENTS.filter(
    lambda content: content and b"\r\n--" + B not in b"\r\n" + content and not content.startswith(MARKS)
)
CUTS = st.lists(st.integers(min_value=0, max_value=100_000), max_size=20)


@given(FILES, CUTS, st.lists(st.binary(max_size=20).filter(lambda data: b"-" not in data), max_size=3))
@example(b"\r\n", [], [])
@example(b"B", [], [])
@example(b"id\r\n1\r", [1, 2, 3], [b""])
def test_a_file_is_stored_as_it_was_however_its_bytes_arrive(
    content: bytes, cuts: list[int], others: list[bytes]
) -> None:
    besides = [part(other, OTHER) for other in others]
    body = form(*besides, part(content), *besides)
    assert bring(body, cuts) == (len(content), content)


@given(st.integers(min_value=0, max_value=400))
def test_a_body_that_breaks_off_anywhere_is_no_file(length: int) -> None:
    body = form(part(b"x", OTHER), part(b"id,name\r\n" * 20), part(b"y", OTHER))
    body = body[: min(length, len(body) - 4)]
    assert refusal(body)[0] == 400


@given(st.binary(max_size=300) | CONTENTS, CUTS)
def test_no_bytes_end_in_anything_but_a_file_or_a_refusal(body: bytes, cuts: list[int]) -> None:
    for each in (body, part(body)[2:], form(part(b"x", body)), form(part(b"x") + body)):
        try:
            size, stored = bring(each, cuts)
        except Refused as refused:
            assert refused.status in (400, 413, 415)
        else:
            assert size == len(stored) > 0


def test_exactly_one_part_is_called_file() -> None:
    assert refusal(form(part(b"x", OTHER))) == (400, "the form has no part called file")
    assert refusal(b"--" + B + b"--\r\n") == (400, "the form has no part called file")
    assert refusal(b"") == (400, "the form is malformed, or breaks off")
    assert refusal(form(part(b"id"), part(b"id"))) == (400, "the form has more than one part called file")
    assert refusal(form(part(b"id"), part(b"x", OTHER), part(b"id")))[0] == 400
    without_a_name = b'Content-Disposition: form-data; name="file"\r\n\r\n'
    assert bring(form(part(b"id\r\n1", without_a_name))) == (5, b"id\r\n1")
    nameless = b"Content-Disposition: form-data\r\n\r\n"
    assert bring(form(part(b"x", nameless), part(b"id"))) == (2, b"id")


@pytest.mark.parametrize("head", [b"\r\n", b"Content-Type: text/csv\r\n\r\n", b"\xff\xfe: \xff\r\n\r\n"])
def test_a_part_without_a_proper_head_is_malformed(head: bytes) -> None:
    assert refusal(form(part(b"id", head)))[0] == 400


def test_an_empty_file_is_none() -> None:
    assert refusal(form(part(b""))) == (400, "the file is empty")
    assert refusal(form(part(b""), part(b"x", OTHER)))[0] == 400


def test_a_file_may_have_so_many_bytes_and_no_more() -> None:
    body = form(part(b"x" * 1000))
    assert bring(body, most=1000)[0] == 1000
    assert refusal(body, most=999) == (413, "a file has at most 999 bytes")
    assert refusal(body, list(range(0, 2000, 7)), most=999)[0] == 413


def test_a_length_that_is_too_large_is_refused_before_anything_is_read() -> None:
    stream = Arriving(iter([form(part(b"id"))]))
    said = {"CONTENT_LENGTH": str(1000 + BESIDES + 1), "wsgi.input": stream}
    assert refusal(b"", most=1000, **said)[0] == 413
    assert stream.asked == 0


def test_what_comes_besides_the_file_is_bounded() -> None:
    much = b"x" * 65_000
    parts = BESIDES // len(much) + 1
    assert refusal(form(*[part(much, OTHER)] * parts, part(b"id")), list(range(0, 2_000_000, 60_000)))[0] == 413
    assert refusal(form(part(b"id"), *[part(much, OTHER)] * parts), list(range(0, 2_000_000, 60_000)))[0] == 413
    assert refusal(form(part(b"id")) + b"x" * (2 * BESIDES), list(range(0, 2_000_000, 60_000)))[0] == 413
    assert refusal(form(*[part(b"x", OTHER)] * PARTS, part(b"id")))[0] == 413
    long = b'Content-Disposition: form-data; name="' + b"n" * 400_000 + b'"\r\n\r\n'
    assert refusal(form(part(b"id", long)), list(range(0, 500_000, 60_000)))[0] == 413
    assert refusal(b"x" * (2 * BESIDES) + form(part(b"id")), list(range(0, 2_000_000, 60_000)))[0] == 413
    assert bring(form(part(b"id")) + b"\r\nepilogue\r\n") == (2, b"id")


@pytest.mark.parametrize(
    "content_type",
    ["", "text/csv", "application/json", "multipart/mixed; boundary=x", "application/x-www-form-urlencoded"],
)
def test_another_content_type_is_refused(content_type: str) -> None:
    assert refusal(form(part(b"id")), CONTENT_TYPE=content_type)[0] == 415


@pytest.mark.parametrize("boundary", ["", "; boundary=", "; boundary=é", "; boundary=" + "x" * 300])
def test_a_form_without_a_usable_boundary_is_malformed(boundary: str) -> None:
    assert refusal(b"", CONTENT_TYPE=f"multipart/form-data{boundary}") == (400, "the content type has no boundary")


def test_a_compressed_body_is_refused() -> None:
    assert refusal(form(part(b"id")), HTTP_CONTENT_ENCODING="gzip")[0] == 415
    assert bring(form(part(b"id")), HTTP_CONTENT_ENCODING="Identity")[0] == 2


def zipped() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("c.csv", "id\r\n1\r\n")
    return packed.getvalue()


def empty_zip() -> bytes:
    packed = io.BytesIO()
    zipfile.ZipFile(packed, "w").close()
    return packed.getvalue()


PACKED: dict[str, Callable[[], bytes]] = {
    "gzip": lambda: gzip.compress(b"id\r\n1\r\n"),
    "zip": zipped,
    "zip, empty": empty_zip,
    "bzip2": lambda: bz2.compress(b"id\r\n1\r\n"),
    "bzip2, empty": lambda: bz2.compress(b""),
    "xz": lambda: lzma.compress(b"id\r\n1\r\n"),
    "zstd": lambda: b"\x28\xb5\x2f\xfd\x20\x03\x19\x00\x00id\n",
}


@pytest.mark.parametrize("kind", PACKED)
def test_a_compressed_file_is_refused_by_how_it_begins(kind: str) -> None:
    body = form(part(PACKED[kind]()))
    start = body.index(HEAD) + len(HEAD)
    for cuts in ([], [start + 1], list(range(start, start + 12))):
        status, detail = refusal(body, cuts)
        assert (status, kind.split(",")[0] in detail) == (415, True)


@pytest.mark.parametrize(
    "content", [b"BZh,name\r\n1,2\r\n", b"BZh9", b"PK,name\r\n", b"\xef\xbb\xbfid\r\n", b"P", b"\x1f"]
)
def test_a_file_that_only_resembles_a_compressed_one_is_taken(content: bytes) -> None:
    assert bring(form(part(content)), list(range(200))) == (len(content), content)


def test_memory_does_not_grow_with_the_file() -> None:
    piece, count = b"1234567,abcdefgh,x\r\n" * 3000, 800

    def pieces() -> Iterator[bytes]:
        yield form(part(b""))[: -len(END)]
        for _ in range(count):
            yield piece
        yield END

    class Counting:
        def write_pieces(self, name: str, written: Iterator[bytes]) -> int:
            return sum(map(len, written))

    request = Request(
        {
            "REQUEST_METHOD": "POST",
            "CONTENT_TYPE": f"multipart/form-data; boundary={B.decode()}",
            "wsgi.input": Arriving(pieces()),
            "wsgi.input_terminated": True,
        }
    )
    body = Body(request.environ, SystemClock(), Patience())
    tracemalloc.start()
    try:
        size = receive(request, body, Counting(), "x", 1 << 40)  # type: ignore[arg-type]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == len(piece) * count > 40_000_000
    assert peak < 2_000_000


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    hub = make_hub(tmp_path)
    yield Desk(hub)
    hub.close()


def test_a_file_is_queued_as_a_launch(desk: Desk) -> None:
    answer = desk.send("import/open_import", "id,name\r\n1,Ana\r\n")
    assert (answer.status_code, answer.text) == (200, "File queued")
    (launch,) = desk.launches("open_import")
    assert (launch.state, launch.size, desk.home.blobs.read(launch.file)) == ("waiting", 16, b"id,name\r\n1,Ana\r\n")
    assert [action for action, _ in desk.notices] == ["file_queued"]


def test_a_deletion_takes_files_at_both_addresses_and_an_import_at_one(desk: Desk) -> None:
    assert desk.send("delete/leavers").status_code == desk.send("import/leavers").status_code == 200
    assert len(desk.launches("leavers")) == 2
    assert desk.send("delete/open_import").status_code == 404
    assert desk.send("import/report").status_code == desk.send("delete/report").status_code == 404


def test_files_of_one_moment_get_launches_and_blobs_of_their_own(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    at = desk.home.clock.now()
    monkeypatch.setattr(desk.hub.clock, "now", lambda: at)
    for number in range(5):
        assert desk.send("import/open_import", f"id\r\n{number}\r\n").status_code == 200
    launches = desk.launches("open_import")
    assert len({launch.id for launch in launches}) == 5
    assert {desk.home.blobs.read(launch.file) for launch in launches} == {f"id\r\n{n}\r\n".encode() for n in range(5)}


def test_nothing_is_read_for_a_sync_that_is_disabled_or_paused(desk: Desk) -> None:
    assert desk.send("import/asleep").status_code == 409
    desk.home.schedule.pause("loyalty")
    assert desk.send("import/open_import").status_code == 409
    desk.home.schedule.resume("loyalty")
    assert desk.uploads() == []
    assert desk.send("import/open_import").status_code == 200


def failing(*arguments: Any) -> Any:
    raise StoreUnavailable("/srv/waybill/state.db is locked")


@pytest.mark.parametrize(("port", "method"), [("blobs", "write_pieces"), ("launches", "add")])
def test_what_fails_inside_is_a_500_that_tells_nothing_of_this_machine(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, port: str, method: str
) -> None:
    monkeypatch.setattr(getattr(desk.home, port), method, failing)
    answer = desk.send("import/open_import")
    assert (answer.status_code, answer.json["detail"]) == (500, "the file could not be imported")
    assert "srv" not in answer.text
    assert desk.notices == [("data_sync_failed", {"path": "import", "error": "StoreUnavailable"})]
    assert desk.launches("open_import") == []
    # Nobody knows whether the launch was written: its file stays until clean-up sees that no launch names it.
    assert len(desk.uploads()) == (1 if port == "launches" else 0)


def test_a_file_whose_summons_is_lost_is_queued_all_the_same(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk.home.bus, "publish", failing)
    assert desk.send("import/open_import").status_code == 200
    assert [launch.state for launch in desk.launches("open_import")] == ["waiting"]
    assert [action for action, _ in desk.notices] == ["summons_lost", "file_queued"]


def test_a_refused_file_leaves_neither_launch_nor_blob(desk: Desk) -> None:
    for body in (b"", b"x" * 2001, gzip.compress(b"id")):
        answer = desk.send("import/open_import", body)
        assert answer.status_code in (400, 413, 415)
        assert answer.content_type == "application/problem+json"
        assert answer.json["status"] == answer.status_code
    answer = desk.client.post(f"{ROOT}/import/open_import", data={"other": "x"}, content_type="multipart/form-data")
    assert (answer.status_code, desk.uploads(), desk.launches("open_import")) == (400, [], [])
