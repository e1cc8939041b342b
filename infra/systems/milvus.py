"""Milvus, the Brazilian help desk: clients, written one by one.

Milvus takes no idempotency key, and a client created twice is two clients, so a create asks for the document first and
is never repeated after a lost answer; an update by id may be. What `alterar` cannot change (addresses and contacts) is
sent with a create only, and is not read back by `busca` either.

Not known of the vendor and decided here: of several clients with one document the active one with the lowest id is
meant; a search that gives as many rows as Milvus ever gives, or no list at all, has not said that a client is absent,
so nothing is written on its word (Passing); a natural person's name may read back as `nome_fantasia` or `razao_social`.

Facts: paths, fields, the bare id as the answer to a create and the raw `Authorization` header are vendor documentation;
the cut at 1000 rows is from the integration's own document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from infra.http import Answer as HttpAnswer
from infra.http import Http, InDoubtError
from infra.pace import Pace
from infra.systems import Connection, one_of
from shared.errors import (
    CREDENTIALS,
    GENERAL,
    NOT_ASKED,
    REFUSED,
    UNDOCUMENTED_ANSWER,
    UNREACHABLE,
    AuthError,
    ProtocolError,
    TransientError,
)
from shared.outcome import Absent, Answer, Found, InDoubt, Passing, Probe, Verdict, delivered, rejected, unknown
from shared.ports import Change

MOST_FOUND: Final = 1000
"""`busca` never gives more rows than this, and no sign that there were more."""
ON_CREATE_ONLY: Final = ("cliente_enderecos", "cliente_contatos")
REASON_LENGTH: Final = 200

_SEPARATORS: Final = str.maketrans("", "", "./- ")
_PRIVATE: Final = re.compile(r"\d(?:[./-]?\d){5,}|\S+@\S+")


def open_sink(connection: Connection, write: str) -> Clients:
    """Raises ConfigError for anything but clients, or for a missing token."""
    return one_of({"clients": Clients}, write, "Milvus")(connection)


class Clients:
    """The sink of clients. A change's key, or its `cliente_documento`, is the document that the client is found by."""

    system = "milvus"
    bulk = 8
    """Small, so that little is in doubt when the process dies: the target is slow and progress is recorded between."""

    def __init__(self, connection: Connection) -> None:
        token = connection.secret("MILVUS_TOKEN")
        self._pace = Pace(connection.rate, connection.clock, connection.pace_file, connection.stopping)
        # Whoever delivers tries again, a whole portion at a time; trying here as well would multiply the tries.
        once = msgspec.structs.replace(connection.retry, attempts=1)
        self._http = Http(
            connection.url, {"Authorization": token}, self._pace, once, connection.clock, secrets=(token,)
        )

    def repeatable(self, change: Change) -> bool:
        return bool(change.target_id)

    def find(self, changes: Sequence[Change]) -> Sequence[Probe]:
        return _one_by_one(changes, self._find)

    def write(self, changes: Sequence[Change]) -> Sequence[Answer | None]:
        return _one_by_one(changes, self._write)

    def close(self) -> None:
        self._http.close()
        self._pace.close()

    def _find(self, change: Change) -> Found | Absent:
        """Raises ProtocolError for an answer that says nothing of this client."""
        document = _document_of(change)
        answer = self._http.request(
            "GET", "/cliente/busca", params={"documento": document, "status": 3}, repeatable=True
        )
        rows = answer.json() if answer.status == 200 else None
        rows = rows.get("lista") if isinstance(rows, dict) else None
        if not isinstance(rows, list):
            raise ProtocolError(f"a search answered {answer.status} without a list")
        clients = [row for row in rows if isinstance(row, dict) and _bare(row.get("cnpj_cpf")) == document]
        if not clients and len(rows) >= MOST_FOUND:
            raise ProtocolError(f"a search by document gave {len(rows)} others: it was cut or not understood")
        if not all(type(row.get("id")) is int for row in clients):
            raise ProtocolError("a search gave a client without an id")
        if not clients:
            return Absent()
        client = min(clients, key=lambda row: (row.get("is_ativo") is False, row["id"]))
        same = None if change.operation == "delete" else _same(change.content, client)
        return Found(str(client["id"]), same, client)

    def _write(self, change: Change) -> Answer:
        if change.operation == "delete":
            return self._delete(change)
        target = change.target_id
        for _ in range(2):
            if not target:
                found = Absent() if change.absent else self._find(change)
                if isinstance(found, Absent):
                    return self._create(change)
                if found.same:
                    return delivered(found.target_id)
                target = found.target_id
            content = {name: value for name, value in change.content.items() if name not in ON_CREATE_ONLY}
            answer = self._http.request("PUT", f"/cliente/alterar/{target}", json=content, repeatable=True)
            if answer.status != 404:
                return _verdict(answer, target)
            target = ""
        return Passing("the client went away while it was being written", GENERAL)

    def _create(self, change: Change) -> Answer:
        try:
            answer = self._http.request("POST", "/cliente/criar", json=change.content, repeatable=False)
        except InDoubtError as error:
            return InDoubt(str(error))
        target = _id_in(answer) if answer.status in (200, 201) else ""
        if not target and answer.status < 400:
            return unknown(UNDOCUMENTED_ANSWER, "a create was answered without an id", answer.status)
        return _verdict(answer, target)

    def _delete(self, change: Change) -> Answer:
        target = change.target_id
        if not target:
            found = Absent() if change.absent else self._find(change)
            if isinstance(found, Absent):
                return delivered()
            target = found.target_id
        answer = self._http.request("DELETE", f"/cliente/excluir/{target}", repeatable=True)
        return delivered(target) if answer.status == 404 else _verdict(answer, target)


T = TypeVar("T")


def _one_by_one(changes: Sequence[Change], act: Callable[[Change], T]) -> list[T | Passing]:
    """One answer each. When the target answers nobody, the rest is not tried.

    Raises AuthError if nothing took effect before; otherwise the rest is left to the next call, which will raise it.
    """
    answers: list[T | Passing] = []
    failing = 0
    for change in changes:
        try:
            answers.append(act(change))
            failing = 0
            continue
        except ProtocolError as error:
            answers.append(Passing(str(error), NOT_ASKED))
            continue
        except AuthError as error:
            if all(isinstance(answer, Passing) for answer in answers):
                raise
            passing = Passing(str(error), CREDENTIALS)
        except TransientError as error:
            passing = Passing(str(error), error.number, error.after, error.http_status)
            failing += 1
            # One record may be what a target stumbles over; a second one right after it is an outage.
            if failing < 2 and error.number not in (UNREACHABLE, GENERAL):
                answers.append(passing)
                continue
        return answers + [passing] * (len(changes) - len(answers))
    return answers


def _document_of(change: Change) -> str:
    return str(change.content.get("cliente_documento") or change.key)


def _bare(document: object) -> str:
    """A document as `busca` gives it, without a mask."""
    return document.translate(_SEPARATORS).upper() if isinstance(document, str) else ""


def _same(content: dict[str, Any], client: dict[str, Any]) -> bool:
    """Whether a client holds what is to be written, as far as it reads back. What is left out is not written either."""
    person = content.get("cliente_pessoa_fisica") or {}
    company = content.get("cliente_pessoa_juridica") or {}
    fields = {
        "site": content.get("cliente_site"),
        "observacao": content.get("cliente_observacao"),
        "data_nascimento": person.get("data_nascimento"),
        "sexo": person.get("sexo"),
        "nome_fantasia": company.get("nome_fantasia"),
        "razao_social": company.get("razao_social"),
        "inscricao_estadual": company.get("inscricao_estadual"),
    }
    return (
        all(client.get(name) == value for name, value in fields.items() if value is not None)
        and content.get("cliente_ativo", True) == client.get("is_ativo")
        and bool(person) == client.get("is_fisica")
        and (not person or person.get("nome") in (client.get("nome_fantasia"), client.get("razao_social")))
    )


def _verdict(answer: HttpAnswer, target: str) -> Verdict:
    """What an answer to a write says of the record: failures of the call itself never come here."""
    if 200 <= answer.status < 300:
        return delivered(target)
    if 400 <= answer.status < 500:
        return rejected(REFUSED, _reason(answer), answer.status)
    return unknown(UNDOCUMENTED_ANSWER, f"a write was answered {answer.status}", answer.status)


def _id_in(answer: HttpAnswer) -> str:
    """The bare id that answers a create, empty if it is anything else."""
    text = answer.body.strip().strip(b'"')
    return text.decode() if text.isdigit() and len(text) < 19 and int(text) > 0 else ""


def _reason(answer: HttpAnswer) -> str:
    """The target's own words, without numbers and addresses that may be somebody's."""
    try:
        body = answer.json()
    except ProtocolError:
        body = None
    message = body.get("message") if isinstance(body, dict) else None
    if not isinstance(message, str) or not message.strip():
        return f"Milvus answered {answer.status}"
    return _PRIVATE.sub("***", " ".join(message.split()))[:REASON_LENGTH]
