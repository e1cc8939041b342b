"""A fake of the open API of Qeasy (轻易云): tokens, and the rows of integration schemes, stored and queried.

The vendor's pages contradict each other. Chosen here: a refused token is HTTP 401 with code 40102, refused credentials
40101, too many calls HTTP 429 with Retry-After; every other refusal is HTTP 200 with `success` false. A row is
appended, unless it carries an id that is stored already: then that row is overwritten, and both times counts as
inserted. A text in a `CONTENT_` filter has to be equal (one page says so, another one "contains"); dates of a query are
seconds and mean when a row was first stored.
"""

import operator
import random
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar
from uuid import UUID
from zlib import crc32

import msgspec

from tests.sandbox.system import Answer, Request, Row, Setup, System, answer

PER_MINUTE = 60
LIFE = 7_200
LARGEST_PAGE = 100
BUSINESS = "/v2/open-api/business/"
FILTER = "CONTENT_"
OWN = ("_id", "created_at", "updated_at")
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": operator.eq,
    "$ne": operator.ne,
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
    "$in": lambda value, among: value in among,
    "$nin": lambda value, among: value not in among,
}


class Refused(ValueError):
    """The call is refused; the arguments are code and message."""


class Qeasy(System):
    """An integration platform. `schemes` holds the rows of each scheme, `stored` how often each id was stored.

    Tests may set `required`, the fields without which a call is refused, and `id_field`.
    """

    name: ClassVar[str] = "qeasy"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        chance = random.Random(f"{setup.seed} qeasy")
        self.app_key = "".join(chance.choices(string.digits, k=12))
        self.app_secret = "".join(chance.choices(string.digits, k=20))
        self.scheme = str(UUID(int=chance.getrandbits(128), version=4))
        self.schemes: dict[str, list[Row]] = {self.scheme: []}
        self.stored: dict[str, Counter[str]] = {self.scheme: Counter()}
        self.id_field = "id"
        self.required: tuple[str, ...] = ()
        self.counts: Counter[str] = Counter(stores=0, queries=0, inserted=0, overwritten=0, failed=0)
        self._tokens: dict[str, float] = {}
        self._used: Counter[str] = Counter()
        self._chance = chance
        self._places: dict[str, dict[str, int]] = {}

    def environment(self, url: str) -> dict[str, str]:
        return {
            "QEASY_URL": url,
            "QEASY_APP_KEY": self.app_key,
            "QEASY_APP_SECRET": self.app_secret,
            "QEASY_SCHEME": self.scheme,
        }

    def authorised(self, request: Request) -> bool:
        if request.path == "/v2/oauth":
            return True
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        token = request.query.get("access_token") or (text if scheme == "Bearer" else "")
        self._used[token] += 1
        most = self.faults["token_uses"]
        return self._tokens.get(token, 0.0) > self.clock() and (not most or self._used[token] <= most)

    def error(self, status: int, message: str) -> Answer:
        if status == 401:
            return _answer(200 if self.faults["denied_body"] else 401, 40102, "access_token 无效或已过期")
        return _answer(status, {429: 42901, 503: 50002}.get(status, status * 100 + 1), message)

    def reads(self, request: Request) -> bool:
        return request.path.endswith("/query")

    def stats(self) -> dict[str, Any]:
        """As for every system, with the operations, the rows of each scheme, and the ids that were stored more than
        once: how often each of them, whether that overwrote the row or not."""
        with self.lock:
            return super().stats() | self.counts | {
                "rows": {scheme: len(rows) for scheme, rows in self.schemes.items()},
                "repeated_ids": {
                    scheme: {each: times for each, times in stored.items() if times > 1}
                    for scheme, stored in self.stored.items()
                },
            }  # fmt: skip

    def respond(self, request: Request) -> Answer:
        try:
            body = msgspec.json.decode(request.body, type=Row)
            if (request.method, request.path) == ("POST", "/v2/oauth"):
                return _answer(200, 0, "success", self._token(body))
            scheme, _, action = request.path.removeprefix(BUSINESS).partition("/")
            if request.method != "POST" or action not in ("store", "query"):
                raise Refused(40402, "请求的接口不存在")
            if scheme not in self.schemes:
                raise Refused(40401, "方案 ID 不存在")
            if action == "query":
                return _answer(200, 0, "success", self._found(self.schemes[scheme], body))
            return _answer(200, 0, "数据写入成功", self._store(scheme, body))
        except msgspec.DecodeError:
            return _answer(200, 40001, "参数错误")
        except Refused as refusal:
            return _answer(200, *refusal.args)

    def rows(self) -> list[Row]:
        return [row | {"scheme": scheme} for scheme, rows in self.schemes.items() for row in rows]

    def identity(self, row: Row) -> tuple[int, str | None]:
        """The row's own id if it is a number, and as text."""
        text = str(row.get(self.id_field, ""))
        return int(text) if text.isdecimal() else 0, text

    def edit(self, count: int, seed: int) -> list[Row]:
        """Somebody leaves a remark on so many rows of the first scheme."""
        chosen = random.Random(seed).sample(self.schemes[self.scheme], count)
        for row in chosen:
            row |= {"remark": "已人工核对", "updated_at": int(self.clock())}
        return chosen

    def change(self, ids: Sequence[int], fields: Row) -> list[Row]:
        chosen = self._by_ids(ids)
        for row in chosen:
            row |= fields | {"updated_at": int(self.clock())}
        return chosen

    def delete(self, count: int, seed: int) -> list[Row]:
        return self._without(random.Random(seed).sample(self.schemes[self.scheme], count))

    def remove(self, ids: Sequence[int]) -> list[Row]:
        return self._without(self._by_ids(ids))

    def add(self, count: int) -> list[Row]:
        rows = [{self.id_field: str(90_000_000 + self._chance.randrange(10_000_000))} for _ in range(count)]
        return [self._put(self.scheme, row) for row in rows]

    def _token(self, body: Row) -> Row:
        if (body.get("app_key"), body.get("app_secret")) != (self.app_key, self.app_secret):
            raise Refused(40101, "app_key 或 app_secret 错误")
        token = "".join(self._chance.choices(string.ascii_letters + string.digits, k=42))
        self._tokens[token] = self.clock() + (self.faults["token_life"] or LIFE)
        return {"access_token": token, "expires_in": LIFE}

    def _store(self, scheme: str, body: Row) -> Row:
        rows = body.get("content")
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            raise Refused(40001, "参数错误: content")
        for row in rows:
            if missing := next((name for name in self.required if row.get(name) in (None, "")), None):
                raise Refused(40001, f"必填字段缺失: {missing}")
            if self._hit("bad_batch", row):
                raise Refused(40001, f"参数错误: {row.get(self.id_field)}")
        self.counts["stores"] += 1
        refused = [self._hit("bad_store", row) for row in rows]
        for row, bad in zip(rows, refused, strict=True):
            if not bad:
                self._put(scheme, row)
        failed = sum(refused)
        self.counts["failed"] += failed
        counts = {"inserted": len(rows) - failed, "failed": failed}
        if self.strikes("wrong_counts"):
            counts["inserted" if counts["inserted"] else "failed"] -= 1
        return counts

    def _hit(self, switch: str, row: Row) -> bool:
        every = int(self.faults[switch])
        hit = bool(every) and crc32(str(row.get(self.id_field)).encode()) % every == 0
        self.struck[switch] += hit
        return hit

    def _put(self, scheme: str, row: Row) -> Row:
        rows, places = self.schemes[scheme], self._places.setdefault(scheme, {})
        now, key = int(self.clock()), str(row.get(self.id_field) or "")
        self.counts["inserted"] += 1
        if key:
            self.stored[scheme][key] += 1
        if key in places:
            self.counts["overwritten"] += 1
            before = rows[places[key]]
            rows[places[key]] = row | {name: before[name] for name in OWN} | {"updated_at": now}
            return rows[places[key]]
        own = {"_id": f"{self._chance.getrandbits(96):024x}", "created_at": now, "updated_at": now}
        if key:
            places[key] = len(rows)
        rows.append(row | own)
        return rows[-1]

    def _found(self, rows: list[Row], body: Row) -> Row:
        self.counts["queries"] += 1
        page, size, begin, end = (_number(body.get(name)) for name in ("page", "pageSize", "begin_at", "end_at"))
        if page < 1 or not 1 <= size <= LARGEST_PAGE:
            raise Refused(40005, "查询参数错误: pageSize")
        wanted = [(name.removeprefix(FILTER), each) for name, each in body.items() if name.startswith(FILTER)]
        found = [
            row
            for row in rows
            if begin <= row["created_at"] <= end and all(_matches(row.get(name), each) for name, each in wanted)
        ]
        part = found[(page - 1) * size : page * size]
        return {"list": part, "total": len(found), "page": page, "pageSize": size}

    def _by_ids(self, ids: Sequence[int]) -> list[Row]:
        places = self._places.get(self.scheme, {})
        if missing := [str(each) for each in ids if str(each) not in places]:
            raise KeyError(f"no row {', '.join(missing)}")
        return [self.schemes[self.scheme][places[str(each)]] for each in ids]

    def _without(self, gone: list[Row]) -> list[Row]:
        own = {row["_id"] for row in gone}
        left = [row for row in self.schemes[self.scheme] if row["_id"] not in own]
        self.schemes[self.scheme] = left
        self._places[self.scheme] = {
            str(row[self.id_field]): place for place, row in enumerate(left) if row.get(self.id_field)
        }
        return gone

    def _too_many(self, now: float) -> Answer:
        """With Retry-After in any case: a minute where the limit was met."""
        given = super()._too_many(now)
        if given.headers:
            return given
        full = self.per_minute is not None and self.windows["accepted"].count(now) >= self.per_minute
        return Answer(429, given.body, given.kind, (("Retry-After", "60" if full else "1"),))


def _number(value: Any) -> int:
    if type(value) is not int:
        raise Refused(40005, "查询参数错误")
    return value


def _matches(value: Any, wanted: Any) -> bool:
    if not isinstance(wanted, dict):
        return bool(value == wanted)
    try:
        return all(OPERATORS[name](value, each) for name, each in wanted.items())
    except (KeyError, TypeError):
        raise Refused(40005, "查询参数错误") from None


def _answer(status: int, code: int, message: str, content: Any = None) -> Answer:
    return answer(status, {"success": code == 0, "code": code, "message": message, "content": content})
