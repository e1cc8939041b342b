"""A fake of the Ploomes API: contacts, tasks, interaction records and look-ups, as vendor documentation and public
clients show them.

Not known of the real one and chosen here: an unknown property or option is refused with 400, a missing id with
404, text comparisons mind case, a contact needs Name and TypeId (what the vendor's examples send), a tag can be
given only to the kind of entity it belongs to, and rows of another set (Company, Contacts, Contact) can be
expanded but not filtered by. What concerns tasks and interaction records alone is said in their file.
"""

import random
import re
from typing import Any

import msgspec

from tests.sandbox.faults import Faults
from tests.sandbox.odata import Query, QueryError
from tests.sandbox.people import Row
from tests.sandbox.ploomes_activity import TASK_TYPES, Interactions, Tasks
from tests.sandbox.ploomes_contact import LOOKUPS, OPTION, Contacts
from tests.sandbox.ploomes_set import EntitySet, envelope, page
from tests.sandbox.system import Answer, Divided, Request, Setup, answer

PER_MINUTE = 120
ALL_LOOKUPS = LOOKUPS | {"Tasks@Types": (list(TASK_TYPES.values()), OPTION)}


class Ploomes(Divided):
    """An account. `contacts`, `tasks` and `interactions` map Id to the newest version of each row."""

    name = "ploomes"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.key = f"{random.Random(f'{setup.seed} ploomes key').getrandbits(512):0128X}"
        contacts = Contacts(self, setup)
        self.parts: dict[str, EntitySet] = {
            "contacts": contacts,
            "tasks": Tasks(self, setup, contacts),
            "interactions": Interactions(self, setup, contacts),
        }
        self._sets = {each.name: each for each in self.parts.values()}

    @property
    def contacts(self) -> dict[int, Row]:
        return self.parts["contacts"].items

    @property
    def tasks(self) -> dict[int, Row]:
        return self.parts["tasks"].items

    @property
    def interactions(self) -> dict[int, Row]:
        return self.parts["interactions"].items

    @property
    def churned(self) -> dict[str, list[int]]:
        """The ids, of all sets, of rows that `churn` touched and of those it removed."""
        return {
            what: [row_id for each in self.parts.values() for row_id in each.churned[what]]
            for what in ("touched", "vanished")
        }

    def environment(self, url: str) -> dict[str, str]:
        return {"PLOOMES_URL": url, "PLOOMES_USER_KEY": self.key}

    def authorised(self, request: Request) -> bool:
        return request.headers.get("user-key") == self.key

    def error(self, status: int, message: str) -> Answer:
        return answer(status, {"error": {"code": "", "message": message}})

    def stats(self) -> dict[str, Any]:
        """As for every system, with the rows of each kind and what `churn` did."""
        with self.lock:
            held = {kind: len(each.items) for kind, each in self.parts.items()}
            return super().stats() | held | {"churned": self.churned}

    def set_faults(self, faults: Faults) -> None:
        """As for every system; `ties` changes the dates for good, and only of what is there now."""
        with self.lock:
            super().set_faults(faults)
            if faults["ties"]:
                for each in self.parts.values():
                    each.share_dates(int(faults["ties"]))

    def respond(self, request: Request) -> Answer:
        name, bracket, key = request.path[1:].partition("(")
        row_id = int(key[:-1]) if re.fullmatch(r"\d+\)", key, re.ASCII) else None
        try:
            if (chosen := self._sets.get(name)) is not None:
                if bracket and row_id not in chosen.items:
                    return self.error(404, f"No {chosen.schema.name} was found for the key '{key[:-1]}'.")
                return chosen.respond(request, row_id)
            if name in ALL_LOOKUPS and not bracket:
                return self._looked_up(request, name)
            return self.error(404, f"Resource not found for the segment '{request.path[1:]}'.")
        except (QueryError, msgspec.DecodeError) as error:
            return self.error(400, str(error))

    def _looked_up(self, request: Request, name: str) -> Answer:
        if request.method != "GET":
            return self.error(405, f"The requested resource does not support http method '{request.method}'.")
        rows, schema = ALL_LOOKUPS[name]
        query = Query.parse(request.query, schema)
        found = query.rows(rows)
        shown = [query.view.show(row, schema) for row in page(found, query)]
        return envelope(request, name, shown, len(found) if query.count else None)
