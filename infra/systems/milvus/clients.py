"""Milvus clients, written one by one.

Milvus takes no idempotency key, and a client created twice is two clients, so a create asks for the document first and
is never repeated after a lost answer; an update by id may be. What `alterar` cannot change (addresses and contacts) is
sent with a create only, and is not read back by `busca` either. Nothing is written on the word of a search that does
not say whether a client is there (Passing).

Not known of the vendor and decided here: a natural person's name may read back as `nome_fantasia` or `razao_social`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from infra.http import InDoubtError
from infra.one_by_one import one_by_one
from infra.systems import Connection
from infra.systems.milvus.desk import BULK, Desk, verdict, verdict_of_create
from shared.ends import Change
from shared.errors import GENERAL
from shared.outcome import Absent, Answer, Found, InDoubt, Passing, Probe, delivered

ON_CREATE_ONLY: Final = ("cliente_enderecos", "cliente_contatos")


class Clients:
    """The sink of clients. A change's key, or its `cliente_documento`, is the document that the client is found by."""

    system = "milvus"
    bulk = BULK

    def __init__(self, connection: Connection) -> None:
        # Whoever delivers tries again, a whole portion at a time; trying here as well would multiply the tries.
        self._desk = Desk(connection, tries=1)
        self._http = self._desk.http

    def repeatable(self, change: Change) -> bool:
        return bool(change.target_id)

    def find(self, changes: Sequence[Change]) -> Sequence[Probe]:
        return one_by_one(changes, self._find)

    def write(self, changes: Sequence[Change]) -> Sequence[Answer | None]:
        return one_by_one(changes, self._write)

    def close(self) -> None:
        self._desk.close()

    def _find(self, change: Change) -> Found | Absent:
        """Raises ProtocolError for an answer that says nothing of this client."""
        client = self._desk.client_of(str(change.content.get("cliente_documento") or change.key))
        if client is None:
            return Absent()
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
                return verdict(answer, target)
            target = ""
        return Passing("the client went away while it was being written", GENERAL)

    def _create(self, change: Change) -> Answer:
        try:
            answer = self._http.request("POST", "/cliente/criar", json=change.content, repeatable=False)
        except InDoubtError as error:
            return InDoubt(str(error))
        return verdict_of_create(answer)

    def _delete(self, change: Change) -> Answer:
        target = change.target_id
        if not target:
            found = Absent() if change.absent else self._find(change)
            if isinstance(found, Absent):
                return delivered()
            target = found.target_id
        answer = self._http.request("DELETE", f"/cliente/excluir/{target}", repeatable=True)
        return delivered(target) if answer.status == 404 else verdict(answer, target)


def _same(content: dict[str, Any], client: dict[str, Any]) -> bool:
    """Whether a client holds what is to be written, as far as it reads back. What is left out is not written either.

    White space counts no more than for whoever reads the client: people leave blanks at the end of a name, and a date
    may come with a time. A name may stand in one of its two places only.
    """
    person = content.get("cliente_pessoa_fisica") or {}
    company = content.get("cliente_pessoa_juridica") or {}
    names = _plain(client.get("nome_fantasia")), _plain(client.get("razao_social"))
    pairs = (
        (content.get("cliente_site"), client.get("site")),
        (content.get("cliente_observacao"), client.get("observacao")),
        (person.get("data_nascimento"), str(client.get("data_nascimento") or "")[:10]),
        (person.get("sexo"), client.get("sexo")),
        (company.get("nome_fantasia"), names[0] or names[1]),
        (company.get("razao_social"), names[1] or names[0]),
        (company.get("inscricao_estadual"), client.get("inscricao_estadual")),
    )
    return (
        all(_plain(wanted) == _plain(held) for wanted, held in pairs if wanted is not None)
        and content.get("cliente_ativo", True) == client.get("is_ativo")
        and bool(person) == client.get("is_fisica")
        and (not person or _plain(person.get("nome")) in names)
    )


def _plain(value: Any) -> Any:
    """A text with single blanks between its words."""
    return " ".join(value.split()) if isinstance(value, str) else value
