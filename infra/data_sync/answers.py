"""The answers that are no 200, as problem+json (RFC 9457) whatever format was asked for."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

PROBLEM: Final = "application/problem+json"


class Refused(Exception):
    """An answer other than 200. `detail` is for the caller: nothing in it tells of this machine."""

    def __init__(self, status: int, detail: str, *, allow: str = "") -> None:
        super().__init__(detail)
        self.status, self.detail, self.allow = status, detail, allow

    def answer(self) -> Response:
        document = {"type": "about:blank", "title": HTTPStatus(self.status).phrase, "status": self.status}
        answer = whole(msgspec.json.encode({**document, "detail": self.detail}), PROBLEM, self.status)
        if self.allow:
            answer.headers["Allow"] = self.allow
        return answer


def whole(body: bytes, content_type: str, status: int = 200) -> Response:
    """An answer whose length is said."""
    from werkzeug.wrappers import Response

    return Response([body], status=status, content_type=content_type, headers={"Content-Length": str(len(body))})
