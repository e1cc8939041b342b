"""A fake of the Ploomes API: contacts and look-ups, as vendor documentation and public clients show them.

Not known of the real one and chosen here: an unknown property or option is refused with 400, a missing id
with 404, text comparisons mind case, and a write needs Name and TypeId (what the vendor's examples send).
"""

import heapq
import random
import re
from collections.abc import Callable
from typing import Any
from zlib import crc32

import msgspec

from tests.sandbox.faults import Faults
from tests.sandbox.odata import Query, QueryError, View, milliseconds
from tests.sandbox.people import BLANK, People, Row, phone, stamp
from tests.sandbox.ploomes_contact import CONTACT, LOOKUPS, linked, writable
from tests.sandbox.system import Answer, Request, Setup, System, answer

PAGE = 300
PER_MINUTE = 120
UNREADABLE_DATE = "0000-00-00T00:00:00-03:00"


class Ploomes(System):
    """An account of contacts. `contacts` maps Id to the newest version of each; a write replaces the row."""

    name = "ploomes"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.key = f"{random.Random(f'{setup.seed} ploomes key').getrandbits(512):0128X}"
        self.people = People(setup.seed, setup.now)
        rows = self.people.take(
            setup.customers,
            undocumented=setup.undocumented,
            invalid=setup.invalid,
            duplicates=setup.duplicates,
        )
        self.contacts: dict[int, Row] = {row["Id"]: linked(row) for row in rows}
        self.churned: dict[str, list[int]] = {"touched": [], "vanished": []}
        self._earlier: dict[int, list[Row]] = {}
        self._last_id = 501_000_000

    def environment(self, url: str) -> dict[str, str]:
        return {"PLOOMES_URL": url, "PLOOMES_USER_KEY": self.key}

    def authorised(self, request: Request) -> bool:
        return request.headers.get("user-key") == self.key

    def error(self, status: int, message: str) -> Answer:
        return answer(status, {"error": {"code": "", "message": message}})

    def rows(self) -> list[Row]:
        return list(self.contacts.values())

    def identity(self, row: Row) -> tuple[int, str | None]:
        return row["Id"], row["Register"]

    def stats(self) -> dict[str, Any]:
        with self.lock:
            return super().stats() | {"contacts": len(self.contacts), "churned": self.churned}

    def set_faults(self, faults: Faults) -> None:
        """As for every system; `ties` changes the dates for good, and only of what is there now."""
        with self.lock:
            super().set_faults(faults)
            block = int(faults["ties"])
            ids = sorted(self.contacts)
            for start in range(0, len(ids), block) if block else ():
                group = [self.contacts[contact_id] for contact_id in ids[start : start + block]]
                newest = max((row["LastUpdateDate"] for row in group), key=milliseconds)
                for row in group:
                    self.contacts[row["Id"]] = row | {"LastUpdateDate": newest}

    def respond(self, request: Request) -> Answer:
        name, bracket, key = request.path[1:].partition("(")
        if name != "Contacts" and (name not in LOOKUPS or bracket):
            return self.error(404, f"Resource not found for the segment '{request.path[1:]}'.")
        contact_id = int(key[:-1]) if re.fullmatch(r"\d+\)", key) else None
        if bracket and contact_id not in self.contacts:
            return self.error(404, f"No contact was found for the key '{key[:-1]}'.")
        try:
            match request.method, name, contact_id:
                case "GET", "Contacts", None:
                    return self._contacts(request)
                case "GET", "Contacts", int():
                    query = Query.parse(request.query, CONTACT)
                    return self._envelope(request, name, self._shown([self.contacts[contact_id]], query.view))
                case "GET", _, _:
                    rows, schema = LOOKUPS[name]
                    query = Query.parse(request.query, schema)
                    found = query.rows(rows)
                    shown = [query.view.show(row, schema) for row in _page(found, query)]
                    return self._envelope(request, name, shown, len(found) if query.count else None)
                case "POST", "Contacts", None:
                    return self._written(request, self.create)
                case "PATCH", "Contacts", int():
                    return self._written(request, lambda body: self.update(contact_id, body))
                case "DELETE", "Contacts", int():
                    del self.contacts[contact_id]
                    return Answer(200)
            return self.error(405, f"The requested resource does not support http method '{request.method}'.")
        except (QueryError, msgspec.DecodeError) as error:
            return self.error(400, str(error))

    def create(self, body: Row) -> Row:
        """A new contact, dated now."""
        if not {"Name", "TypeId"} <= body.keys():
            raise QueryError("The fields Name and TypeId are required.")
        self._last_id += 1
        fields = writable(self._last_id, body)
        moment = stamp(self._now())
        row = BLANK | {"Phones": [], "Tags": [], "OtherProperties": [], "OwnerId": 10001, "CreatorId": 10001}
        row |= {"UpdaterId": 10001, "HasScheduledTasks": False, "Editable": True, "Deletable": True}
        row |= fields | {"Id": self._last_id, "CreateDate": moment, "LastUpdateDate": moment}
        self.contacts[row["Id"]] = linked(row)
        return self.contacts[row["Id"]]

    def update(self, contact_id: int, body: Row) -> Row:
        """The contact with these fields replaced, dated now."""
        return self._replace(contact_id, writable(contact_id, body))

    def edit(self, count: int, seed: int) -> list[Row]:
        """Other name, e-mail and telephone for so many contacts; the document stays."""
        chance = random.Random(seed)
        edited = []
        for contact_id in chance.sample(sorted(self.contacts), count):
            row = self.contacts[contact_id]
            name, legal_name = self.people.names(chance, row["TypeId"] == 1)
            number = f"(11) 9{chance.randrange(1000, 9999)}-{chance.randrange(1000, 9999)}"
            changes = {
                "Name": name if name != row["Name"] else f"{name} Filho",
                "LegalName": legal_name,
                "Email": self.people.email(name, chance.randrange(100_000)),
                "Phones": [phone(contact_id, contact_id * 2, number, 2)],
            }
            edited.append(self._replace(contact_id, changes))
        return edited

    def delete(self, count: int, seed: int) -> list[Row]:
        return [self.contacts.pop(each) for each in random.Random(seed).sample(sorted(self.contacts), count)]

    def add(self, count: int) -> list[Row]:
        moment = stamp(self._now())
        dates = {"CreateDate": moment, "LastUpdateDate": moment}
        rows = [linked(row | dates) for row in self.people.take(count)]
        self.contacts |= {row["Id"]: row for row in rows}
        return rows

    def _now(self) -> int:
        return int(self.clock() * 1000)

    def _replace(self, contact_id: int, changes: Row) -> Row:
        row = self.contacts[contact_id]
        if self.faults["late"]:
            self._earlier.setdefault(contact_id, []).append(row)
        self.contacts[contact_id] = linked(row | changes | {"LastUpdateDate": stamp(self._now())})
        return self.contacts[contact_id]

    def _visible(self) -> list[Row]:
        """The contacts as a reader may see them now: with `late`, older versions or nothing of fresh ones."""
        if not self.faults["late"]:
            return list(self.contacts.values())
        limit = self._now() - self.faults["late"] * 1000
        visible = []
        for contact_id, row in self.contacts.items():
            versions = [row, *reversed(self._earlier.get(contact_id, ()))]
            seen = next((each for each in versions if milliseconds(each["LastUpdateDate"]) <= limit), None)
            if seen:
                visible.append(seen)
        return visible

    def _contacts(self, request: Request) -> Answer:
        query = Query.parse(request.query, CONTACT)
        found = query.rows(self._visible())
        if self.faults["cap"]:
            found = found[: int(self.faults["cap"])]
        page = _page(found, query)
        if len(page) > 1 and self.strikes("short_pages"):
            page = page[: self.random.randrange(1, len(page))]
        total = len(found) + int(self.faults["wrong_total"]) if query.count else None
        given = self._envelope(request, "Contacts", self._shown(page, query.view), total)
        if found and self.strikes("churn"):
            self._churn(self.random.choice(found)["Id"])
        return given

    def _churn(self, contact_id: int) -> None:
        if contact_id not in self.contacts:
            return
        if self.random.random() < 0.5:
            self._replace(contact_id, {})
            self.churned["touched"].append(contact_id)
        else:
            del self.contacts[contact_id]
            self.churned["vanished"].append(contact_id)

    def _shown(self, rows: list[Row], view: View) -> list[Row]:
        if "Company" in view.expand:
            rows = [row | {"Company": self.contacts.get(row["CompanyId"])} for row in rows]
        if "Contacts" in view.expand:
            people: dict[int, list[Row]] = {}
            for contact in self.contacts.values():
                people.setdefault(contact["CompanyId"], []).append(contact)
            rows = [row | {"Contacts": people.get(row["Id"], [])} for row in rows]
        shown = [view.show(row, CONTACT) for row in rows]
        if self.faults["bad_rows"]:
            self._spoil(rows, shown)
        return shown

    def _spoil(self, rows: list[Row], shown: list[Row]) -> None:
        """Shows the contacts chosen by `bad_rows`, always the same, without Id or with a useless date."""
        count = int(self.faults["bad_rows"])
        bad = heapq.nsmallest(count, self.contacts, key=lambda contact_id: crc32(str(contact_id).encode()))
        order = {contact_id: place for place, contact_id in enumerate(bad)}
        for row, view in zip(rows, shown, strict=True):
            place = order.get(row["Id"])
            if place is None:
                continue
            if place % 2 == 0:
                view.pop("Id", None)
            elif "LastUpdateDate" in view:
                view["LastUpdateDate"] = UNREADABLE_DATE

    def _written(self, request: Request, write: Callable[[Row], Row]) -> Answer:
        """200 and the record as `value[0]`, with what was expanded (seen in the vendor's own tests)."""
        query = Query.parse(request.query, CONTACT)
        row = write(msgspec.json.decode(request.body, type=Row))
        return self._envelope(request, "Contacts", self._shown([row], query.view))

    def _envelope(self, request: Request, name: str, rows: list[Row], total: int | None = None) -> Answer:
        context = f"http://{request.headers.get('host', 'ploomes')}/$metadata#{name}"
        count = {} if total is None else {"@odata.count": total}
        return answer(200, {"@odata.context": context} | count | {"value": rows})


def _page(found: list[Row], query: Query) -> list[Row]:
    size = PAGE if query.top is None else min(query.top, PAGE)
    return found[query.skip : query.skip + size]
