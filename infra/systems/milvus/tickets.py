"""Milvus tickets, written one by one: one ticket per marker, and follow-ups on it.

A change's content is

    {"marker": "[Ploomes T123]",              begins the subject, and tells this ticket from every other
     "customer": "16727230000197",            the document of the client
     "contact": 40012345,                     the id of that client at the source, for people
     "ticket": {"chamado_assunto": ...},      what is created; the client's token is added here
     "follow_up": {"marker": ..., "text": ...}}   or none

Milvus takes no idempotency key, so a create that was not answered is in doubt until the list of tickets was asked for
its marker. The ticket is there if one row's subject holds exactly the marker, in whatever status. It is absent only if
every page was read, each was well-formed, and together they hold as many tickets as the list says. What is written of a
ticket that is there already is a follow-up, never a second ticket; it carries a marker of its own. Where follow-ups are
wanted, a ticket that reads otherwise and has none of this marker was made by an older version.

A ticket wants its client's token, which a search by document tells. Tokens that were found are remembered, absence is
not: the client may be on its way. A refusal under a remembered token may be about the token, so it is looked up anew.

Facts: paths, fields, the paging in the query and the bare number as the answer to a create are vendor documentation;
numbers of `meta.paginate` that come as text are captured answers. Not known: whether `assunto` finds subjects that
contain it or equal it, and upper case; so nothing rests on the rows that it leaves out being all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from infra.http import InDoubtError
from infra.one_by_one import one_by_one
from infra.systems import Connection
from infra.systems.milvus.desk import BULK, Desk, bare, verdict, verdict_of_create
from shared.ends import Change
from shared.errors import CUSTOMER_MISSING, REFUSED, ProtocolError
from shared.outcome import Absent, Answer, CannotAsk, Found, InDoubt, Outcome, Passing, Probe, Verdict, rejected

PAGE: Final = 1000
"""Tickets on a page of the list, the most that Milvus gives."""
MOST_PAGES: Final = 100
"""A list that is longer was not filtered."""
ANY_STATUS: Final = 10
MOST_TOKENS: Final = 10_000
MARK: Final = "[Ploomes "
"""How every marker begins."""
PERSONAL: Final = ("chamado_contato", "chamado_email", "chamado_telefone", "chamado_assunto", "chamado_descricao")
"""What of a ticket may be about a person, and is kept out of messages."""

Ticket = dict[str, Any]


class Tickets:
    """The sink of tickets. The id at the target is the ticket's `codigo`, the number that people see."""

    system = "milvus"
    bulk = BULK

    def __init__(self, connection: Connection) -> None:
        # Whoever delivers tries again, a whole portion at a time; trying here as well would multiply the tries.
        self._desk = Desk(connection, tries=1)
        self._http = self._desk.http
        self._tokens: dict[str, str] = {}
        """By document; what was found first is forgotten first."""

    def repeatable(self, change: Change) -> bool:
        return False

    def find(self, changes: Sequence[Change]) -> Sequence[Probe]:
        return one_by_one(changes, self._find)

    def write(self, changes: Sequence[Change]) -> Sequence[Answer | None]:
        return one_by_one(changes, self._write)

    def close(self) -> None:
        self._desk.close()

    def _find(self, change: Change) -> Found | Absent | CannotAsk:
        """Raises ProtocolError for answers that say nothing of this ticket."""
        marker, target = str(change.content.get("marker") or ""), change.target_id
        follow_up = change.content.get("follow_up")
        if target and follow_up:
            return Found(target, self._holds(target, follow_up["marker"]))
        if target:
            rows = [row for row in self._listed({"codigo": target}) if str(row["codigo"]) == target]
            same = True if rows and marker and _carries(rows[0], marker) else None
            return Found(target, same, rows[0]) if rows else Absent()
        if not marker:
            return CannotAsk()
        rows = [row for row in self._listed({"assunto": marker}) if _carries(row, marker)]
        if not rows:
            return Absent()
        ticket = min(rows, key=lambda row: int(row["codigo"]))
        target = str(ticket["codigo"])
        # An older version may have made it, and then this one is still to be told.
        same = not follow_up or _tells(ticket, change.content["ticket"]) or self._holds(target, follow_up["marker"])
        return Found(target, same, ticket)

    def _holds(self, target: str, marker: str) -> bool:
        """Whether a follow-up of the ticket carries the marker. A ticket that is gone holds none."""
        answer = self._http.request("GET", f"/chamado/acompanhamento/{target}", repeatable=True)
        if answer.status == 404:
            return False
        given = answer.json() if answer.status == 200 else None
        rows = given.get("retorno") if isinstance(given, dict) else None
        if not isinstance(rows, list):
            raise ProtocolError(f"the follow-ups of a ticket were answered {answer.status} without a list")
        return any(marker in text for text in _texts(rows))

    def _listed(self, wanted: dict[str, str]) -> list[Ticket]:
        """All tickets that the list gives for a filter. Raises ProtocolError if they may not be all."""
        tickets: dict[int, Ticket] = {}
        page, pages, total = 0, 1, 0
        while page < pages:
            page += 1
            rows, pages, total = self._page(wanted, page)
            fresh = {_number(row.get("codigo")): row for row in rows}
            if pages > MOST_PAGES or (page < pages and not fresh.keys() - tickets.keys()):
                raise ProtocolError(
                    f"the list of tickets has {pages} pages or repeats them: the filter was not understood"
                )
            tickets |= fresh
        if len(tickets) < total:
            raise ProtocolError(f"the list of tickets says that there are {total} and gave {len(tickets)}")
        return list(tickets.values())

    def _page(self, wanted: dict[str, str], page: int) -> tuple[list[Ticket], int, int]:
        """The rows of a page, how many pages there are, and how many tickets on all of them."""
        answer = self._http.request(
            "POST",
            "/chamado/listagem",
            params={"total_registros": PAGE, "pagina": page, "order_by": "codigo", "is_descending": "false"},
            json={"filtro_body": {**wanted, "status": ANY_STATUS}},
            repeatable=True,
        )
        given: Any = answer.json() if answer.status == 200 else None
        try:
            counted, rows = given["meta"]["paginate"], given["lista"]
            current, last, total = (_number(counted[name]) for name in ("current_page", "last_page", "total"))
        except (TypeError, KeyError):
            raise ProtocolError(f"the list of tickets was answered {answer.status} without rows and pages") from None
        if not isinstance(rows, list) or not all(isinstance(row, dict) and "assunto" in row for row in rows):
            raise ProtocolError("the list of tickets holds rows without a subject")
        if current != page:
            raise ProtocolError(f"the list of tickets gave page {current} for page {page}")
        return rows, last, total

    def _write(self, change: Change) -> Answer:
        if change.operation == "delete":
            return rejected(REFUSED, "Milvus has no way to delete a ticket")
        if change.target_id:
            return self._follow_up(change)
        document = bare(change.content["customer"])
        remembered = self._tokens.get(document, "")
        token = remembered or self._token_of(document)
        answer = self._create(token, change.content) if token else None
        if remembered and isinstance(answer, Verdict) and answer.outcome is Outcome.REJECTED:
            del self._tokens[document]
            token = self._token_of(document)
            if token != remembered:
                answer = self._create(token, change.content) if token else None
        if answer is None:
            who = f"the customer {document} (Ploomes contact {change.content['contact']})"
            return Passing(f"{who} is not in Milvus yet", CUSTOMER_MISSING, awaits=document)
        self._remember(document, token)
        return answer

    def _token_of(self, document: str) -> str:
        """What Milvus knows the client of a document by, empty if it has no such client."""
        client = self._desk.client_of(document)
        if client is None:
            return ""
        token = client.get("token")
        if not isinstance(token, str) or not token:
            raise ProtocolError("a search gave a client without a token")
        return token

    def _remember(self, document: str, token: str) -> None:
        self._tokens[document] = token
        if len(self._tokens) > MOST_TOKENS:
            del self._tokens[next(iter(self._tokens))]

    def _create(self, token: str, content: dict[str, Any]) -> Answer:
        ticket = content["ticket"]
        try:
            answer = self._http.request(
                "POST", "/chamado/criar", json={"cliente_id": token, **ticket}, repeatable=False
            )
        except InDoubtError as error:
            return InDoubt(str(error))
        return verdict_of_create(answer, [token, *(ticket.get(name) for name in PERSONAL)])

    def _follow_up(self, change: Change) -> Answer:
        follow_up = change.content.get("follow_up")
        if not follow_up:
            return rejected(REFUSED, "its ticket is there already, and no follow-up is wanted")
        marker, text = follow_up["marker"], follow_up["text"]
        body = {
            "acompanhamento_ticket": change.target_id,
            "acompanhamento_descricao": text if marker in text else f"{marker} {text}",
            "acompanhamento_privado": False,
        }
        try:
            answer = self._http.request("POST", "/chamado/acompanhamento/criar", json=body, repeatable=False)
        except InDoubtError as error:
            return InDoubt(str(error))
        return verdict(answer, change.target_id, [text])


def _carries(row: Ticket, marker: str) -> bool:
    """Whether a subject begins with the marker, or has none before it: another ticket may quote this one's."""
    subject = row["assunto"]
    return isinstance(subject, str) and marker in subject and subject.find(MARK) == subject.find(marker)


def _tells(row: Ticket, ticket: dict[str, Any]) -> bool:
    """Whether a ticket reads as this one was written, but for white space."""
    written = [(row.get(name), ticket.get(f"chamado_{name}")) for name in ("assunto", "descricao")]
    return all(str(one or "").split() == str(other or "").split() for one, other in written)


def _number(value: Any) -> int:
    """A count or a ticket's number, which may come as text. Raises ProtocolError for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    if type(value) is not int or value < 0:
        raise ProtocolError("the list of tickets holds a number that is none")
    return value


def _texts(value: Any) -> Iterator[str]:
    """Every text in an answer."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)
