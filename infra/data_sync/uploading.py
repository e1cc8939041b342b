"""A file that is sent as multipart/form-data, streamed into a blob: neither memory nor disk ever holds it besides.

There is exactly one part called `file`. Others are passed over, within a bound. The form is read to its end before the
blob is there, so that a file is stored only if all of it came and nothing was wrong with any part.

The form is cut by the library `multipart`: werkzeug's own decoder adds a byte to a file where the network happens to
cut the body in a certain place (its issue 3285, seen with versions 3.1.6, 3.1.8 and 3.1.9).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from infra.data_sync.answers import Refused
from infra.data_sync.body import Body
from shared.ports import Blobs

if TYPE_CHECKING:
    from multipart import MultipartSegment
    from werkzeug.wrappers import Request

FILE: Final = "file"
BESIDES: Final = 1_000_000
"""Bytes that a form may have besides the file."""
PARTS: Final = 100
_BOUNDARY: Final = re.compile(r"[ -~]{1,200}")
_PACKED: Final = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip, or a spreadsheet",
    b"PK\x05\x06": "zip",
    b"PK\x07\x08": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\x00": "xz",
}
_BZIP2: Final = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")
"""Three letters alone may begin a header: behind them is a block, or the end of an empty file."""
_LONGEST_MARK: Final = 10


def receive(request: Request, body: Body, blobs: Blobs, name: str, most: int) -> int:
    """Stores the file of at most so many bytes that a request carries, and gives its size. Raises Refused, and stores
    nothing, unless it is one."""
    form = Form(body, check_head(request, body, most), most)
    with body.watched():
        form.find_file()
        return blobs.write_pieces(name, form.file())


def check_head(request: Request, body: Body, most: int) -> str:
    """What stands between the parts. Raises Refused for what can be told before anything is read."""
    if request.mimetype != "multipart/form-data":
        raise Refused(415, "the file is sent as multipart/form-data, in a part called file")
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise Refused(415, "what is sent is not to be compressed")
    boundary = request.mimetype_params.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise Refused(400, "the content type has no boundary")
    if body.length is not None and body.length > most + BESIDES:
        raise Refused(413, f"a file has at most {most} bytes")
    return boundary


class Form:
    """A multipart body that is read once, from its beginning to its end."""

    def __init__(self, body: Body, boundary: str, most: int) -> None:
        self._body = body
        self._most = most
        self._size = 0
        self._events = self._read(boundary)

    def find_file(self) -> None:
        """Reads up to where the file begins."""
        if not self._find():
            raise Refused(400, f"the form has no part called {FILE}")

    def file(self) -> Iterator[bytes]:
        """The pieces of the file; behind the last one, everything that follows is read and looked at."""
        start: bytes | None = b""
        for piece in self._data():
            if start is not None:
                start += piece
                if len(start) < _LONGEST_MARK:
                    continue
                piece, start = _unpacked(start), None
            yield piece
        if start:
            yield _unpacked(start)
        if not self._size:
            raise Refused(400, "the file is empty")
        if self._find():
            raise Refused(400, f"the form has more than one part called {FILE}")

    def _find(self) -> bool:
        """Whether there is another part called `file`, at the beginning of which it stops."""
        return any(getattr(event, "name", "") == FILE for event in self._events)

    def _data(self) -> Iterator[bytes]:
        """The data of the part that has just begun."""
        for event in self._events:
            if not isinstance(event, bytes):
                return
            self._size += len(event)
            if self._size > self._most:
                raise Refused(413, f"a file has at most {self._most} bytes")
            yield event

    def _read(self, boundary: str) -> Iterator[MultipartSegment | bytes | None]:
        """What the form consists of: the head of each part, its data, and None at its end."""
        from multipart import MultipartError, ParserLimitReached, PushMultipartParser

        # The one name that is looked for has no letter that charsets differ in.
        parser = PushMultipartParser(boundary, max_segment_count=PARTS, header_charset="latin1")
        try:
            while piece := self._body.read():
                yield from parser.parse(piece)
                if self._body.taken - self._size > BESIDES:
                    raise Refused(413, f"a form has at most {BESIDES} bytes besides the file")
            parser.close()
        except ParserLimitReached:
            raise Refused(413, f"a form has at most {PARTS} parts, and short heads") from None
        except MultipartError as error:
            raise Refused(400, "the form is malformed, or breaks off") from error


def _unpacked(start: bytes) -> bytes:
    """The beginning of a file. Raises Refused if it is packed."""
    kind = next((kind for mark, kind in _PACKED.items() if start.startswith(mark)), "")
    kind = kind or ("bzip2" if _BZIP2.match(start) else "")
    if kind:
        raise Refused(415, f"the file is compressed ({kind}): send it as it is")
    return start
