"""One entity set of a fake Ploomes account: reading with every query option, writing, and what the fault switches
do to both. The entity types are in the files beside it.
"""

import heapq
import random
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from zlib import crc32

import msgspec

from tests.sandbox.odata import DATE, Query, QueryError, Schema, View, milliseconds
from tests.sandbox.people import BRASILIA, TAGS, Row, stamp
from tests.sandbox.system import Answer, Part, Request, System, answer

PAGE = 300
UNREADABLE_DATE = "0000-00-00T00:00:00-03:00"
DATES = ("CreateDate", "LastUpdateDate")
# So far above the drawn rows are the ids of those written, however many are drawn later.
FIRST_WRITTEN = 100_000_000


class EntitySet(Part):
    """The rows of one type. `items` maps Id to the newest version of each; a write replaces the row.

    `one` and `many` say which children are rows of another set, and by which field: the row's own for a single
    child, the other's for a list.
    """

    def __init__(self, account: System, name: str, schema: Schema, first_id: int) -> None:
        self.name, self.schema = name, schema
        self.items: dict[int, Row] = {}
        self.churned: dict[str, list[int]] = {"touched": [], "vanished": []}
        self.one: Mapping[str, tuple[EntitySet, str]] = {}
        self.many: Mapping[str, tuple[EntitySet, str]] = {}
        self._account = account
        self._earlier: dict[int, list[Row]] = {}
        self._last_written = first_id + FIRST_WRITTEN

    @abstractmethod
    def drawn(self, count: int) -> list[Row]:
        """The next rows of the seeded population."""

    @abstractmethod
    def redrawn(self, row: Row, chance: random.Random) -> Row:
        """What somebody who works in the system might change of a row."""

    @abstractmethod
    def require(self, body: Row) -> None:
        """QueryError if the body of a new row lacks a field that it needs."""

    @abstractmethod
    def blank(self) -> Row:
        """A new row before its fields are set."""

    @abstractmethod
    def writable(self, row_id: int, body: Row) -> Row:
        """The writable fields of a body, checked and in the form they are kept in."""

    @abstractmethod
    def linked(self, row: Row) -> Row:
        """The row with the objects behind its ids, so that they can be expanded and filtered."""

    def identity(self, row: Row) -> tuple[int, str | None]:
        return row["Id"], row.get("Register")

    def rows(self) -> list[Row]:
        return list(self.items.values())

    def fill(self, rows: list[Row]) -> list[Row]:
        """Puts these rows in; returns them as they are kept."""
        kept = [self.linked(row) for row in rows]
        self.items |= {row["Id"]: row for row in kept}
        return kept

    def edit(self, count: int, seed: int) -> list[Row]:
        chance = random.Random(seed)
        ids = chance.sample(sorted(self.items), count)
        return [self._replace(row_id, self.redrawn(self.items[row_id], chance)) for row_id in ids]

    def delete(self, count: int, seed: int) -> list[Row]:
        return self.remove(random.Random(seed).sample(sorted(self.items), count))

    def add(self, count: int) -> list[Row]:
        return self.fill([row | dict.fromkeys(DATES, self._now()) for row in self.drawn(count)])

    def change(self, ids: Sequence[int], fields: Row) -> list[Row]:
        """Takes what a PATCH takes, `TagIds` as short for Tags, and the dates of creation and last update."""
        self._known(ids)
        body = {name: value for name, value in fields.items() if name not in (*DATES, "TagIds")}
        if "TagIds" in fields:
            body["Tags"] = [{"TagId": each} for each in fields["TagIds"]]
        dates = {name: plain(self.schema, name, fields[name]) for name in DATES if name in fields}
        changes = {row_id: self.writable(row_id, body) | dates for row_id in ids}
        return [self._replace(row_id, changes[row_id]) for row_id in ids]

    def remove(self, ids: Sequence[int]) -> list[Row]:
        self._known(ids)
        return [self.items.pop(row_id) for row_id in ids]

    def share_dates(self, block: int) -> None:
        """Gives the rows, ordered by Id, one LastUpdateDate per block of so many."""
        ids = sorted(self.items)
        for start in range(0, len(ids), block):
            group = [self.items[row_id] for row_id in ids[start : start + block]]
            newest = max((row["LastUpdateDate"] for row in group), key=milliseconds)
            for row in group:
                self.items[row["Id"]] = row | {"LastUpdateDate": newest}

    def respond(self, request: Request, row_id: int | None) -> Answer:
        """The answer to a request for the set, or for the row with that id (which is there)."""
        match request.method, row_id:
            case "GET", None:
                return self._listed(request)
            case "GET", int():
                query = Query.parse(request.query, self.schema)
                return envelope(request, self.name, self._shown([self.items[row_id]], query.view))
            case "POST", None:
                return self._written(request, self.create)
            case "PATCH", int():
                return self._written(request, lambda body: self._replace(row_id, self.writable(row_id, body)))
            case "DELETE", int():
                del self.items[row_id]
                return Answer(200)
        return self._account.error(405, f"The requested resource does not support http method '{request.method}'.")

    def create(self, body: Row) -> Row:
        """A new row, dated now."""
        self.require(body)
        self._last_written += 1
        dates = dict.fromkeys(DATES, self._now())
        fields = self.writable(self._last_written, body) | {"Id": self._last_written} | dates
        return self.fill([self.blank() | fields])[0]

    def _known(self, ids: Sequence[int]) -> None:
        if missing := [row_id for row_id in ids if row_id not in self.items]:
            raise KeyError(f"{self.name} has no {missing[0]}")

    def _now(self) -> str:
        return stamp(int(self._account.clock() * 1000))

    def _replace(self, row_id: int, changes: Row) -> Row:
        row = self.items[row_id]
        if self._account.faults["late"]:
            self._earlier.setdefault(row_id, []).append(row)
        self.items[row_id] = self.linked(row | {"LastUpdateDate": self._now()} | changes)
        return self.items[row_id]

    def _visible(self) -> list[Row]:
        """The rows as a reader may see them now: with `late`, older versions or nothing of fresh ones."""
        late = self._account.faults["late"]
        if not late:
            return list(self.items.values())
        limit = int(self._account.clock() * 1000) - late * 1000
        visible = []
        for row_id, row in self.items.items():
            versions = [row, *reversed(self._earlier.get(row_id, ()))]
            seen = next((each for each in versions if milliseconds(each["LastUpdateDate"]) <= limit), None)
            if seen:
                visible.append(seen)
        return visible

    def _listed(self, request: Request) -> Answer:
        faults, strikes, chance = self._account.faults, self._account.strikes, self._account.random
        query = Query.parse(request.query, self.schema)
        found = query.rows(self._visible())
        if faults["cap"]:
            found = found[: int(faults["cap"])]
        rows = page(found, query)
        if len(rows) > 1 and strikes("short_pages"):
            rows = rows[: chance.randrange(1, len(rows))]
        total = len(found) + int(faults["wrong_total"]) if query.count else None
        given = envelope(request, self.name, self._shown(rows, query.view), total)
        if found and strikes("churn"):
            self._churn(chance.choice(found)["Id"])
        return given

    def _churn(self, row_id: int) -> None:
        if row_id not in self.items:
            return
        if self._account.random.random() < 0.5:
            self._replace(row_id, {})
            self.churned["touched"].append(row_id)
        else:
            del self.items[row_id]
            self.churned["vanished"].append(row_id)

    def _shown(self, rows: list[Row], view: View) -> list[Row]:
        shown = [view.show(row, self.schema) for row in self._joined(rows, view)]
        if self._account.faults["bad_rows"]:
            self._spoil(rows, shown)
        return shown

    def _joined(self, rows: list[Row], view: View) -> list[Row]:
        """The rows with those of other sets that are expanded, to any depth."""
        for name, nested in view.expand.items():
            if name in self.one:
                target, link = self.one[name]
                wanted = {row[link] for row in rows} & target.items.keys()
                ends = {row["Id"]: row for row in target._joined([target.items[each] for each in wanted], nested)}
                rows = [row | {name: ends.get(row[link])} for row in rows]
            elif name in self.many:
                target, link = self.many[name]
                groups: dict[int, list[Row]] = {row["Id"]: [] for row in rows}
                for row in target._joined([row for row in target.items.values() if row[link] in groups], nested):
                    groups[row[link]].append(row)
                rows = [row | {name: groups[row["Id"]]} for row in rows]
        return rows

    def _spoil(self, rows: list[Row], shown: list[Row]) -> None:
        """Shows the rows chosen by `bad_rows`, always the same, without Id or with a useless date."""
        count = int(self._account.faults["bad_rows"])
        bad = heapq.nsmallest(count, self.items, key=lambda row_id: crc32(str(row_id).encode()))
        order = {row_id: place for place, row_id in enumerate(bad)}
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
        query = Query.parse(request.query, self.schema)
        row = write(msgspec.json.decode(request.body, type=Row))
        return envelope(request, self.name, self._shown([row], query.view))


def envelope(request: Request, name: str, rows: list[Row], total: int | None = None) -> Answer:
    """The answer to every read and write but a DELETE."""
    context = f"http://{request.headers.get('host', 'ploomes')}/$metadata#{name}"
    count = {} if total is None else {"@odata.count": total}
    return answer(200, {"@odata.context": context} | count | {"value": rows})


def page(found: list[Row], query: Query) -> list[Row]:
    """The rows of one answer: 300 at most, whatever $top says."""
    size = PAGE if query.top is None else min(query.top, PAGE)
    return found[query.skip : query.skip + size]


def typed(name: str, numbers: str, texts: str, **children: Schema) -> Schema:
    """A schema from the names of its fields."""
    return Schema(name, dict.fromkeys(numbers.split(), "number") | dict.fromkeys(texts.split(), "text"), children)


def objects(name: str, value: object) -> list[Row]:
    """The value of a collection."""
    if isinstance(value, list) and all(isinstance(each, dict) for each in value):
        return value
    raise QueryError(f"The property '{name}' must be a list of objects.")


def plain(schema: Schema, name: str, value: Any) -> Any:
    """The value of a field, if it is of its kind. An instant is kept as Ploomes shows it: what has no offset is
    meant in Brasília, a bare date stays one."""
    kind = schema.fields[name]
    if value is None:
        return None
    if kind == "number" and isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if kind == "instant" and isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise QueryError(f"Cannot convert the value of '{name}' to an instant.") from None
        at = moment if moment.tzinfo else moment.replace(tzinfo=BRASILIA)
        return value if len(value) == DATE else stamp(round(at.timestamp() * 1000))
    if kind in ("text", "flag") and isinstance(value, bool if kind == "flag" else str):
        return value
    raise QueryError(f"Cannot convert the value of '{name}' to a {kind}.")


def tagged(owner: str, row_id: int, tags: list[Row]) -> list[Row]:
    """The Tags of a row whose type is called `owner`."""
    return [
        {"Id": row_id + place, "TagId": tag["Id"], f"{owner}Id": row_id, "Tag": tag} for place, tag in enumerate(tags)
    ]


def chosen_tags(entity_id: int, values: list[Row]) -> list[Row]:
    """The tags named by a body; a tag belongs to one kind of entity."""
    known = {tag["Id"]: tag for tag in TAGS if tag["EntityId"] == entity_id}
    if not all(value.get("TagId") in known for value in values):
        raise QueryError(f"Each of Tags needs the TagId of an existing tag of entity {entity_id}.")
    return [known[value["TagId"]] for value in values]
