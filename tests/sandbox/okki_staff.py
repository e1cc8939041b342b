"""Chinese users and their departments in the form OKKI answers them, drawn from seeded pools.

Names come from Faker's zh_CN pools, made once per population, and only when somebody is made; everything else is
arithmetic, so five thousand users take about a second. Field names and types are the vendor's examples: ids are digits
as text, but the first department of a user is a number, and the root is the number 0 wherever a user names it.
"""

import random
from collections.abc import Sequence
from functools import cached_property
from itertools import islice

from faker import Faker

from tests.sandbox.system import Part, Row

ROOT = "0"
DEEPEST = 5
FIRST_USER = 11_858_711
FIRST_DEPARTMENT = 144
FROZEN, NORMAL, DELETED = "0", "1", "2"
MAILBOXES = ("example.com", "example.net", "example.org")
REGIONS = ("华东", "华南", "华北", "西南", "东北", "海外")
KINDS = ("销售部", "跟单组", "研发部", "财务部", "市场部", "客服中心", "采购部", "物流部")
POSITIONS = ("主管", "销售经理", "外贸业务员", "跟单员", "研发总监", "财务专员", "客服代表", "")
BLANK: Row = {
    "external_email": "",
    "external_mobile": "",
    "external_fax": "",
    "external_address": "",
    "external_other": "",
}
SETTABLE = frozenset(
    ("email", "nickname", "family_name", "second_name", "full_name", "gender", "position", "enable_flag", "user_mobile",
     "employee_no", "department_ids", *BLANK)
)  # fmt: skip


class Departments(Part):
    """The departments by id, the root among them. `change` sets `name` and `parent_id`."""

    def __init__(self, seed: int, count: int) -> None:
        self._random = random.Random(f"{seed} okki departments")
        self._by_id: dict[str, Row] = {ROOT: {"id": ROOT, "name": "我的企业", "parent_id": ""}}
        self._next_id = FIRST_DEPARTMENT
        self.add(count)

    def rows(self) -> list[Row]:
        return [
            {
                "id": each["id"],
                "layer": self.layer(each["id"]),
                "name": each["name"],
                "parent_id": each["parent_id"],
                "parent_name": self.name(each["parent_id"]),
            }
            for each in self._by_id.values()
        ]

    def ids(self) -> list[str]:
        return list(self._by_id)

    def name(self, department: str) -> str:
        """Empty for one that is not there."""
        return self._by_id[department]["name"] if department in self._by_id else ""

    def layer(self, department: str) -> int:
        """How far it is below the root."""
        layer = 0
        while parent := self._by_id[department]["parent_id"]:
            department, layer = parent, layer + 1
        return layer

    def identity(self, row: Row) -> tuple[int, str | None]:
        return int(row["id"]), None

    def edit(self, count: int, seed: int) -> list[Row]:
        """Another name for so many departments."""
        chosen = random.Random(seed).sample(sorted(self._by_id), count)
        for each in chosen:
            self._by_id[each]["name"] += "（新）"
        return self._shown(chosen)

    def change(self, ids: Sequence[int], fields: Row) -> list[Row]:
        chosen = self._known(ids)
        if unknown := fields.keys() - {"name", "parent_id"}:
            raise ValueError(f"a department has no {', '.join(sorted(unknown))} to set")
        parent = str(fields.get("parent_id", ROOT))
        if parent not in self._by_id or ("parent_id" in fields and self._above(parent) & {ROOT, *chosen} != {ROOT}):
            raise ValueError(f"{parent} cannot be above these departments")
        for each in chosen:
            self._by_id[each] |= {name: str(value) for name, value in fields.items()}
        return self._shown(chosen)

    def delete(self, count: int, seed: int) -> list[Row]:
        leaves = self._by_id.keys() - {each["parent_id"] for each in self._by_id.values()} - {ROOT}
        return self.remove([int(each) for each in random.Random(seed).sample(sorted(leaves), count)])

    def remove(self, ids: Sequence[int]) -> list[Row]:
        """Users that were in them go on naming them, as a reader has to expect it."""
        chosen = self._known(ids)
        if any(each["parent_id"] in chosen for each in self._by_id.values()) or ROOT in chosen:
            raise ValueError("only departments with nothing below them can be deleted")
        gone = self._shown(chosen)
        for each in chosen:
            del self._by_id[each]
        return gone

    def add(self, count: int) -> list[Row]:
        """The first ones stand one below the other, so that the deepest layer is there; no layer is deeper."""
        made = []
        for _ in range(count):
            if len(self._by_id) <= DEEPEST:
                parent = list(self._by_id)[-1]
            else:
                parent = self._random.choice([each for each in self._by_id if self.layer(each) < DEEPEST])
            department = str(self._next_id)
            self._next_id += 1
            name = f"{self._random.choice(REGIONS)}{self._random.choice(KINDS)}"
            self._by_id[department] = {"id": department, "name": name, "parent_id": parent}
            made.append(department)
        return self._shown(made)

    def _above(self, department: str) -> set[str]:
        """The department with all that it is below."""
        found = {department}
        while department := self._by_id[department]["parent_id"]:
            found.add(department)
        return found

    def _known(self, ids: Sequence[int]) -> list[str]:
        chosen = [str(each) for each in ids]
        if missing := set(chosen) - self._by_id.keys():
            raise KeyError(f"no department {', '.join(sorted(missing))}")
        return chosen

    def _shown(self, ids: Sequence[str]) -> list[Row]:
        by_id = {row["id"]: row for row in self.rows()}
        return [by_id[each] for each in ids]


class Users(Part):
    """The users by id. `change` sets any documented field, and the departments by `department_ids`."""

    def __init__(self, seed: int, departments: Departments, count: int, same_nicknames: int) -> None:
        self._seed = seed
        self._departments = departments
        self._random = random.Random(f"{seed} okki users")
        self._by_id: dict[str, Row] = {}
        self._nicknames: set[str] = set()
        self._last_id = FIRST_USER - 1
        self.add(count)
        self._repeat_nicknames(same_nicknames)

    @cached_property
    def names(self) -> list[tuple[str, str, str]]:
        """Family name, given name, and both as they go into an address."""
        faker = Faker("zh_CN")
        faker.seed_instance(self._seed)
        return [
            (
                faker.last_name(),
                faker.first_name(),
                f"{faker.first_romanized_name()}.{faker.last_romanized_name()}".lower(),
            )
            for _ in range(400)
        ]

    def rows(self) -> list[Row]:
        return [self._shown(user) for user in self._by_id.values()]

    def of_state(self, flag: str) -> list[Row]:
        return [self._shown(user) for user in self._by_id.values() if user["enable_flag"] == flag]

    def identity(self, row: Row) -> tuple[int, str | None]:
        return int(row["user_id"]), row["nickname"]

    def edit(self, count: int, seed: int) -> list[Row]:
        """Another position and mobile number for so many users that are not deleted."""
        chance = random.Random(seed)
        chosen = chance.sample([each for each in self._by_id if self._by_id[each]["enable_flag"] != DELETED], count)
        for each in chosen:
            user = self._by_id[each]
            user["position"] = f"{user['position']}（代理）"
            user["user_mobile"] = f"139{chance.randrange(10**8):08d}"
        return [self._shown(self._by_id[each]) for each in chosen]

    def change(self, ids: Sequence[int], fields: Row) -> list[Row]:
        chosen = self._known(ids)
        if unknown := fields.keys() - SETTABLE:
            raise ValueError(f"a user has no {', '.join(sorted(unknown))} to set")
        values = {name: value if name == "department_ids" else str(value) for name, value in fields.items()}
        if "department_ids" in values:
            values["department_ids"] = [str(each) for each in values["department_ids"]] or [ROOT]
        for each in chosen:
            self._by_id[each] |= values
        return [self._shown(self._by_id[each]) for each in chosen]

    def delete(self, count: int, seed: int) -> list[Row]:
        there = [int(each) for each, user in self._by_id.items() if user["enable_flag"] != DELETED]
        return self.remove(random.Random(seed).sample(there, count))

    def remove(self, ids: Sequence[int]) -> list[Row]:
        """They stay, with the mark of a deleted one."""
        return self.change(ids, {"enable_flag": DELETED})

    def add(self, count: int) -> list[Row]:
        return [self._shown(user) for user in islice(iter(self._made, None), count)]

    def _made(self) -> Row:
        """Of twenty users about one is frozen and, of fifty, one deleted; never the first."""
        draw = self._random
        self._last_id += 1
        family, given, mailbox = draw.choice(self.names)
        given = draw.choice(self.names)[1] if draw.random() < 0.8 else given
        chance = draw.random() if self._by_id else 1.0
        nameless = draw.random() < 0.05
        places = self._departments.ids()
        user = {
            "user_id": str(self._last_id),
            "email": f"{mailbox}.{self._last_id % 100_000}@{MAILBOXES[self._last_id % len(MAILBOXES)]}",
            "nickname": self._nickname(family + given),
            "family_name": "" if nameless else family,
            "second_name": "" if nameless else given,
            "gender": draw.choice("0112"),
            "position": draw.choice(POSITIONS),
            "enable_flag": FROZEN if chance < 0.05 else DELETED if chance < 0.07 else NORMAL,
            "user_mobile": f"1{draw.choice('3578')}{draw.randrange(10**9):09d}" if draw.random() < 0.8 else "",
            "ames_email": "",
            "employee_no": f"E{self._last_id % 1_000_000:06d}" if draw.random() < 0.5 else "",
            "full_name": "" if nameless else family + given,
            "department_ids": draw.sample(places, min(len(places), 1 if draw.random() < 0.8 else 2)),
            **BLANK,
        }
        self._by_id[user["user_id"]] = user
        return user

    def _repeat_nicknames(self, count: int) -> None:
        """Gives so many users, never the first, the nickname of another; all of them are neither frozen nor deleted."""
        normal = [each for each, user in self._by_id.items() if user["enable_flag"] == NORMAL]
        if count and count >= len(normal):
            raise ValueError(f"{count} repeated nicknames need more users than {len(self._by_id)}")
        chosen = self._random.sample(normal[1:], count)
        others = sorted(set(normal) - set(chosen))
        for each in chosen:
            self._by_id[each]["nickname"] = self._by_id[self._random.choice(others)]["nickname"]

    def _nickname(self, name: str) -> str:
        """One that nobody has yet: OKKI itself sees to nothing of the kind."""
        number = 1
        while (nickname := name if number == 1 else f"{name}{number}") in self._nicknames:
            number += 1
        self._nicknames.add(nickname)
        return nickname

    def _known(self, ids: Sequence[int]) -> list[str]:
        chosen = [str(each) for each in ids]
        if missing := set(chosen) - self._by_id.keys():
            raise KeyError(f"no user {', '.join(sorted(missing))}")
        return chosen

    def _shown(self, user: Row) -> Row:
        ids = user["department_ids"]
        name = self._departments.name
        shown = {field: value for field, value in user.items() if field != "department_ids"}
        shown["departments"] = [
            {"department_id": 0 if each == ROOT else each, "department_name": name(each)} for each in ids
        ]
        return shown | {"department_id": int(ids[0]), "department_name": name(ids[0])}
