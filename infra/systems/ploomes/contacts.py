"""Writing Ploomes: contacts, one by one.

Ploomes takes no idempotency key, and a contact created twice is two contacts, so a create asks for the document first
and is never repeated after a lost answer; an update by id may be. Person or company, the document and the telephones
are sent with a create only.

Content is a contact's fields as Ploomes takes them, but for `City`, `{"Name": ..., "State": "SP"}`: its number is
looked up, and a city that Ploomes does not have, or has twice, is left out.

A contact whose document is there already stays as it is, unless the stream says `existing: update`. A change that names
its contact by the id is one of what is known, and is always written.

Not known of the vendor and decided here: of several contacts with one document the one that was changed last is meant;
only an empty page says that there is none, and nothing is written on the word of anything else (Passing).

Facts: 200 with the record as `value[0]` for a create or an update, 200 without a body for a delete, `Register` as the
field to write, CNPJ and CPF as those to read, ZipCode written as eight digits and read as a number: vendor
documentation, the vendor's own clients and captured answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from infra.http import Answer as HttpAnswer
from infra.http import Http, InDoubtError
from infra.one_by_one import one_by_one, without_persons
from infra.pace import Pace
from infra.systems import Connection
from infra.systems.ploomes.cities import Cities, folded, is_city, number_in, quoted
from infra.systems.ploomes.source import EXPANDED, LARGEST_PAGE, version_of
from shared.documents import document_in, is_document, masked
from shared.ends import Change
from shared.errors import GENERAL, REFUSED, UNDOCUMENTED_ANSWER, ProtocolError, RecordError
from shared.outcome import Absent, Answer, Found, InDoubt, Passing, Probe, Verdict, delivered, rejected, unknown

DOCUMENTS: Final = ("Register", "CNPJ", "CPF")
"""Where a contact has its document: the first of them that holds anything."""
ON_CREATE_ONLY: Final = frozenset({*DOCUMENTS, "TypeId", "Phones"})

_DAY: Final = len("2024-02-24")


class Contacts:
    """The sink of contacts. A change's key is the document, without its mask, that the contact is found by."""

    system = "ploomes"
    bulk = 8
    """Small, so that little is in doubt when the process dies: the target is slow and progress is recorded between."""

    def __init__(self, connection: Connection) -> None:
        key = connection.secret("PLOOMES_USER_KEY")
        self._keeps = connection.options.get("existing", "keep") == "keep"
        self._pace = Pace(connection.rate, connection.clock, connection.pace_file, connection.stopping)
        # Whoever delivers tries again, a whole portion at a time; trying here as well would multiply the tries.
        once = msgspec.structs.replace(connection.retry, attempts=1)
        self._http = Http(connection.url, {"User-Key": key}, self._pace, once, connection.clock, secrets=(key,))
        self._cities = Cities(self._ask)

    def repeatable(self, change: Change) -> bool:
        return bool(change.target_id)

    def find(self, changes: Sequence[Change]) -> Sequence[Probe]:
        return one_by_one(changes, self._find)

    def write(self, changes: Sequence[Change]) -> Sequence[Answer | None]:
        return one_by_one(changes, self._write)

    def close(self) -> None:
        self._http.close()
        self._pace.close()

    def _find(self, change: Change) -> Found | Absent:
        """Raises ProtocolError for an answer that says nothing of this contact."""
        row = self._by_id(change.target_id) if change.target_id else None
        if row is None:
            row = self._by_document(change.key)
        if row is None:
            return Absent()
        same = None if change.operation == "delete" else self._same(change.content, row)
        return Found(str(row["Id"]), same, row, stays=self._keeps and not change.target_id, version=version_of(row))

    def _by_id(self, target: str) -> dict[str, Any] | None:
        number = _number(target)
        for row in self._ask("Contacts", _asking(f"Id eq {number}")):
            if number_in(row) == number:
                return dict(row)
        return None

    def _by_document(self, document: str) -> dict[str, Any] | None:
        if not is_document(document):
            raise ProtocolError("there is no CPF or CNPJ to ask for")
        named = " or ".join(f"{field} eq {quoted(document)}" for field in DOCUMENTS)
        named = f"({named} or Register eq {quoted(masked(document))})"
        last = seen = 0
        while rows := self._ask("Contacts", _asking(f"{named} and Id gt {last}")):
            contacts: list[dict[str, Any]] = [row for row in rows if _document_of(row) == document]
            if not all(number_in(row) for row in contacts):
                raise ProtocolError("a search gave a contact without an Id")
            if contacts:
                return max(contacts, key=lambda row: (_changed_at(row), number_in(row)))
            seen += len(rows)
            first, last = last, max(number_in(row) for row in rows)
            if last <= first or seen >= LARGEST_PAGE:
                raise ProtocolError(f"a search by document gave {seen} others: it was cut or not understood")
        return None

    def _ask(self, entity: str, params: dict[str, str | int]) -> list[Any]:
        answer = self._http.request("GET", f"/{entity}", params=params, repeatable=True)
        body = answer.json() if answer.status == 200 else None
        rows = body.get("value") if isinstance(body, dict) else None
        if not isinstance(rows, list):
            raise ProtocolError(f"a search in {entity} answered {answer.status} without a list")
        return rows

    def _write(self, change: Change) -> Answer:
        if change.operation == "delete":
            return self._delete(change)
        target = change.target_id
        for _ in range(2):
            if not target:
                row = None if change.absent else self._by_document(change.key)
                if row is None:
                    return self._create(change.content)
                target = str(row["Id"])
                if (self._keeps and not change.target_id) or self._same(change.content, row):
                    return delivered(target)
            body = {name: value for name, value in self._body(change.content).items() if name not in ON_CREATE_ONLY}
            answer = self._http.request("PATCH", f"/Contacts({_number(target)})", json=body, repeatable=True)
            if answer.status != 404:
                return _verdict(answer, target, body)
            target = ""
        return Passing("the contact went away while it was being written", GENERAL)

    def _create(self, content: dict[str, Any]) -> Answer:
        body = self._body(content)
        try:
            answer = self._http.request("POST", "/Contacts", json=body, repeatable=False)
        except InDoubtError as error:
            return InDoubt(str(error))
        target = _id_in(answer)
        if not target and answer.status < 400:
            return unknown(UNDOCUMENTED_ANSWER, "a create was answered without the contact", answer.status)
        return _verdict(answer, target, body)

    def _delete(self, change: Change) -> Answer:
        target = change.target_id
        if not target:
            row = None if change.absent else self._by_document(change.key)
            if row is None:
                return delivered()
            target = str(row["Id"])
        answer = self._http.request("DELETE", f"/Contacts({_number(target)})", repeatable=True)
        return delivered(target) if answer.status == 404 else _verdict(answer, target, {})

    def _body(self, content: dict[str, Any]) -> dict[str, Any]:
        """The fields as they are sent: the city by its number, if it has one."""
        body = {name: value for name, value in content.items() if name != "City"}
        number = self._city(content)
        return body if number is None else body | {"CityId": number}

    def _city(self, content: dict[str, Any]) -> int | None:
        city = content.get("City")
        return self._cities.number_of(city["Name"], city.get("State", "")) if city else None

    def _same(self, content: dict[str, Any], row: dict[str, Any]) -> bool:
        """Whether a contact holds what is to be written, as far as it reads back in another form. What is left out is
        not written either, and neither is a city that Ploomes does not have."""
        if not all(
            _comparable(name, value) == _comparable(name, _read(name, row))
            for name, value in content.items()
            if name not in ON_CREATE_ONLY and name != "City"
        ):
            return False
        city = content.get("City")
        if not city or is_city(row.get("City"), folded(city["Name"]), folded(city.get("State"))):
            return True
        number = self._city(content)
        return number is None or number == row.get("CityId")


def _asking(condition: str) -> dict[str, str | int]:
    expanded = EXPANDED["Contacts"]
    return {"$filter": condition, "$orderby": "Id asc", "$top": LARGEST_PAGE, "$expand": expanded}


def _number(target: str) -> int:
    """The Id that the ledger knows a contact by. Raises ProtocolError for anything that Ploomes never gave."""
    if not (target.isascii() and target.isdigit() and len(target) < 19):
        raise ProtocolError("the id of a contact is a number")
    return int(target)


def _document_of(row: Any) -> str:
    """The document of a contact, empty for one without or with a wrong one, which is nobody's."""
    try:
        return document_in(row, DOCUMENTS) if isinstance(row, dict) else ""
    except RecordError:
        return ""


def _changed_at(row: dict[str, Any]) -> datetime:
    """When a contact was changed last; long ago if nobody can tell."""
    try:
        return datetime.fromisoformat(row["LastUpdateDate"]).astimezone(UTC)
    except (KeyError, TypeError, ValueError, OverflowError):
        return datetime.min.replace(tzinfo=UTC)


def _read(name: str, row: dict[str, Any]) -> Any:
    """A field of a contact. Of Name and LegalName one that is empty stands for the other."""
    stand_in = {"Name": "LegalName", "LegalName": "Name"}.get(name, name)
    value = row.get(name)
    return row.get(stand_in) if value is None or (isinstance(value, str) and not value.strip()) else value


def _comparable(name: str, value: Any) -> Any:
    """A value in the form in which writing and reading agree."""
    if name == "ZipCode":
        text = str(value)
        return int(text) if text.isascii() and text.isdigit() and len(text) < _DAY else value
    if not isinstance(value, str):
        return "" if value is None else value
    if name == "Birthday":
        return value.strip()[:_DAY]
    # A note keeps its lines; whoever reads the other texts takes them for one line.
    return value.strip() if name == "Note" else " ".join(value.split())


def _verdict(answer: HttpAnswer, target: str, body: Mapping[str, Any]) -> Verdict:
    """What an answer to the write of `body` says of the record: failures of the call itself never come here."""
    if 200 <= answer.status < 300:
        return delivered(target)
    if 400 <= answer.status < 500:
        return rejected(REFUSED, _reason(answer, body), answer.status)
    return unknown(UNDOCUMENTED_ANSWER, f"a write was answered {answer.status}", answer.status)


def _id_in(answer: HttpAnswer) -> str:
    """The Id of the record that answers a create, empty if there is none."""
    try:
        body = answer.json()
    except ProtocolError:
        return ""
    rows = body.get("value") if isinstance(body, dict) else None
    number = number_in(rows[0]) if isinstance(rows, list) and rows else 0
    return str(number) if number > 0 else ""


def _reason(answer: HttpAnswer, sent: Mapping[str, Any]) -> str:
    """The target's own words, `error.message` or `Message` (both seen in public clients), without what was sent."""
    try:
        body = answer.json()
    except ProtocolError:
        body = None
    body = body if isinstance(body, dict) else {}
    error = body.get("error")
    message = error.get("message") if isinstance(error, dict) else None
    for words in (message, body.get("Message")):
        if told := without_persons(words, sent.values()):
            return told
    return f"Ploomes answered {answer.status}"
