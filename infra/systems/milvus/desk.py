"""What reading and writing Milvus have in common: the connection, the search for clients, and what answers mean.

Not known of the vendor and decided here: of several clients with one document the active one with the lowest id is
meant; a search that gives as many rows as Milvus ever gives, or no list at all, has not said that a client is absent.

Facts: paths, fields, the bare id as the answer to a create and the raw `Authorization` header are vendor documentation;
the cut at 1000 rows is from the integration's own document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from infra.http import Answer as HttpAnswer
from infra.http import Http
from infra.one_by_one import without_persons
from infra.pace import Pace
from infra.systems import Connection
from shared.documents import unmasked
from shared.errors import REFUSED, UNDOCUMENTED_ANSWER, ConfigError, ProtocolError
from shared.outcome import Verdict, delivered, rejected, unknown

MOST_FOUND: Final = 1000
"""`busca` never gives more rows than this, and no sign that there were more."""
BOTH: Final = 3
"""The `status` of clients that are active or blocked."""
BULK: Final = 8
"""Small, so that little is in doubt when the process dies: the target is slow and progress is recorded between."""

Client = dict[str, Any]


class Desk:
    """The connection to one account. `tries` is how often a call is tried here, None for as the connection says."""

    def __init__(self, connection: Connection, tries: int | None = None) -> None:
        """Raises ConfigError for a missing token, or for a cap that is no number of rows."""
        token = connection.secret("MILVUS_TOKEN")
        cap = connection.options.get("result_cap", MOST_FOUND)
        if type(cap) is not int or cap < 1:
            raise ConfigError("result_cap is not a number of rows", cure=f"set it to {MOST_FOUND}, or leave it out")
        self.cap: int = cap
        self._pace = Pace(connection.rate, connection.clock, connection.pace_file, connection.stopping)
        retry = connection.retry if tries is None else msgspec.structs.replace(connection.retry, attempts=tries)
        self.http = Http(
            connection.url, {"Authorization": token}, self._pace, retry, connection.clock, secrets=(token,)
        )

    def search(self, params: Mapping[str, str | int]) -> list[Any]:
        """The rows that `busca` gives, in its order. Raises ProtocolError for an answer without a list."""
        answer = self.http.request("GET", "/cliente/busca", params=params, repeatable=True)
        rows = answer.json() if answer.status == 200 else None
        rows = rows.get("lista") if isinstance(rows, dict) else None
        if not isinstance(rows, list):
            raise ProtocolError(f"a search answered {answer.status} without a list")
        return rows

    def client_of(self, document: str) -> Client | None:
        """The client of a document, None if there is none. Raises ProtocolError for an answer that does not say."""
        rows = self.search({"documento": document, "status": BOTH})
        clients = [row for row in rows if isinstance(row, dict) and bare(row.get("cnpj_cpf")) == document]
        if not clients and len(rows) >= self.cap:
            raise ProtocolError(f"a search by document gave {len(rows)} others: it was cut or not understood")
        if not all(type(row.get("id")) is int for row in clients):
            raise ProtocolError("a search gave a client without an id")
        return min(clients, key=lambda row: (row.get("is_ativo") is False, row["id"]), default=None)

    def close(self) -> None:
        self.http.close()
        self._pace.close()


def bare(document: object) -> str:
    """A document without a mask, empty for what is no text."""
    return unmasked(document).upper() if isinstance(document, str) else ""


def verdict(answer: HttpAnswer, target: str, private: Sequence[object] = ()) -> Verdict:
    """What an answer to a write says of the record: failures of the call itself never come here."""
    if 200 <= answer.status < 300:
        return delivered(target)
    if 400 <= answer.status < 500:
        return rejected(REFUSED, reason_of(answer, private), answer.status)
    return unknown(UNDOCUMENTED_ANSWER, f"a write was answered {answer.status}", answer.status)


def verdict_of_create(answer: HttpAnswer, private: Sequence[object] = ()) -> Verdict:
    """As `verdict`, of what is answered with the bare id of the new object."""
    target = _id_in(answer) if answer.status in (200, 201) else ""
    if not target and answer.status < 400:
        return unknown(UNDOCUMENTED_ANSWER, "a create was answered without an id", answer.status)
    return verdict(answer, target, private)


def _id_in(answer: HttpAnswer) -> str:
    """The bare id that answers a create, empty if it is anything else."""
    text = answer.body.strip().strip(b'"')
    return text.decode() if text.isdigit() and len(text) < 19 and int(text) > 0 else ""


def reason_of(answer: HttpAnswer, private: Sequence[object] = ()) -> str:
    """The target's own words, without numbers and addresses that may be somebody's, and without these texts."""
    try:
        body = answer.json()
    except ProtocolError:
        body = None
    message = body.get("message") if isinstance(body, dict) else None
    return without_persons(message, private) or f"Milvus answered {answer.status}"
