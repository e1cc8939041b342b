"""Tasks and interaction records of the fake Ploomes: read, written, broken and handled as its contacts are."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import requests

from tests.sandbox import Sandbox
from tests.sandbox.odata import milliseconds
from tests.sandbox.people import TAGS
from tests.systems.sandboxed import NOW, Row, Start, worlds

SETS = {"tasks": "/Tasks", "interactions": "/InteractionRecords"}
INSTALL = {"tasks": 40012345, "interactions": 40036345}
DELIVER = {"tasks": 40012346, "interactions": 40036346}
OTHER = {"tasks": 40036345, "interactions": 40012345}
NEW: dict[str, Row] = {"tasks": {"Title": "Instalar"}, "interactions": {"Content": "Pediu entrega", "DealId": 7}}
NOW_TEXT = "2026-06-01T09:00:00-03:00"

both = pytest.mark.parametrize("kind", SETS)


@pytest.fixture
def start() -> Iterator[Start]:
    with worlds() as started:
        yield started


def held(sandbox: Sandbox, kind: str) -> list[Row]:
    return sandbox.ploomes.part(kind).rows()


def tag_ids(row: Row) -> set[int]:
    return {tag["TagId"] for tag in row["Tags"]}


# Population


def population(now: float, **numbers: Any) -> Sandbox:
    return Sandbox(clock=lambda: now, customers=120, **numbers)


@both
def test_the_same_seed_gives_the_same_rows_and_the_same_contacts_as_without_them(kind: str) -> None:
    first, again = (population(NOW.timestamp(), **{kind: 300}) for _ in range(2))
    assert held(first, kind) == held(again, kind)
    assert held(first, kind)[:100] == held(population(NOW.timestamp(), **{kind: 100}), kind)
    plain = population(NOW.timestamp())
    assert (plain.ploomes.contacts, plain.ploomes.key) == (first.ploomes.contacts, first.ploomes.key)
    assert held(plain, kind) == []


@both
def test_the_day_decides_the_dates_and_not_the_tags(kind: str) -> None:
    today, later = (population((NOW + timedelta(days=days)).timestamp(), **{kind: 200}) for days in (0, 90))
    names = ("Id", "ContactId", "Tags", "TypeId")
    assert [[row[name] for name in names] for row in held(today, kind)] == [
        [row[name] for name in names] for row in held(later, kind)
    ]


@both
def test_tags_contacts_and_dates_are_mixed(kind: str) -> None:
    rows = held(population(NOW.timestamp(), **{kind: 2000}), kind)
    chosen = {INSTALL[kind], DELIVER[kind]}
    carried = Counter(len(tag_ids(row) & chosen) for row in rows)
    assert 900 < carried[1] < 1200 and carried[2] > 100
    assert sum(not row["Tags"] for row in rows) > 200
    assert sum(bool(row["Tags"]) and not tag_ids(row) & chosen for row in rows) > 200
    assert sum(bool(tag_ids(row) & chosen and tag_ids(row) - chosen) for row in rows) > 50
    assert 60 < sum(row["ContactId"] is None for row in rows) < 140
    assert len({row["LastUpdateDate"] for row in rows}) < 1700
    assert {len(row["CreateDate"]) for row in rows} == {25, 27, 28, 29}
    assert all("2024-03-01" <= row["CreateDate"] < "2026-05-30" for row in rows)
    told = [row["Title"] or row["Description"] if kind == "tasks" else row["Content"] for row in rows]
    assert len(set(told)) == 2000


def test_dates_of_an_activity_may_be_missing_or_bare() -> None:
    sandbox = population(NOW.timestamp(), tasks=300, interactions=300)
    assert {row["DateTime"] and len(row["DateTime"]) for row in held(sandbox, "tasks")} == {None, 25}
    assert {None, 10, 25} < {row["Date"] and len(row["Date"]) for row in held(sandbox, "interactions")}


# Reading


@both
def test_pages_hold_300_rows_at_most_and_every_row_once(start: Start, kind: str) -> None:
    world = start(customers=50, **{kind: 650})
    pages = [world.rows(SETS[kind], skip=skip, orderby="LastUpdateDate,Id") for skip in (0, 300, 600, 900)]
    assert [len(page) for page in pages] == [300, 300, 50, 0]
    assert len({row["Id"] for page in pages for row in page}) == 650
    counted = world.ploomes(SETS[kind], top=0, count="true").json()
    assert (counted["@odata.count"], counted["value"]) == (650, [])
    assert counted["@odata.context"].endswith(f"$metadata#{SETS[kind][1:]}")


@both
def test_filters_find_tags_dates_and_contacts(start: Start, kind: str) -> None:
    world = start(customers=40, **{kind: 280})
    rows = held(world.sandbox, kind)
    some = next(row for row in rows if row["ContactId"])
    date = sorted((row["CreateDate"] for row in rows), key=milliseconds)[140]
    tags = (INSTALL[kind], DELIVER[kind])
    either = " or ".join(f"Tags/any(t: t/TagId eq {tag})" for tag in tags)
    expected: dict[str, Callable[[Row], bool]] = {
        f"Tags/any(t: t/TagId eq {tags[0]})": lambda row: tags[0] in tag_ids(row),
        f"({either}) and CreateDate ge {date}": lambda row: (
            bool(tag_ids(row) & set(tags)) and milliseconds(row["CreateDate"]) >= milliseconds(date)
        ),
        f"Tags/any(t: t/TagId eq {tags[0]} or t/TagId eq {tags[1]})": lambda row: bool(tag_ids(row) & set(tags)),
        "not Tags/any(t: t/TagId gt 0)": lambda row: not row["Tags"],
        f"ContactId eq {some['ContactId']}": lambda row: row["ContactId"] == some["ContactId"],
        "ContactId eq null": lambda row: row["ContactId"] is None,
        f"Id eq {some['Id']}": lambda row: row is some,
    }
    for text, holds in expected.items():
        found = {row["Id"] for row in world.rows(SETS[kind], filter=text)}
        assert found == {row["Id"] for row in rows if holds(row)} != set(), text


def test_equal_dates_do_not_hide_rows_from_a_reader_who_keeps_the_id(start: Start) -> None:
    world = start(customers=5, tasks=60, faults="ties=25")
    seen: list[int] = []
    after = ""
    while page := world.rows("/Tasks", top=7, orderby="LastUpdateDate,Id", filter=f"Id gt 0{after}"):
        seen += [row["Id"] for row in page]
        date, last = page[-1]["LastUpdateDate"], page[-1]["Id"]
        after = f" and (LastUpdateDate gt {date} or (LastUpdateDate eq {date} and Id gt {last}))"
    assert len(seen) == 60 and set(seen) == set(world.sandbox.ploomes.tasks)


def test_a_bare_date_is_its_midnight_in_brasilia(start: Start) -> None:
    world = start(customers=1)
    body = {"Content": "Visita", "DealId": 1, "Date": "2026-03-01"}
    world.ploomes("/InteractionRecords", "POST", body)
    found = [
        len(world.rows("/InteractionRecords", filter=f"Date {compare} 2026-03-01T03:00:00Z"))
        for compare in ("lt", "eq", "gt")
    ]
    assert found == [0, 1, 0]


@both
def test_children_are_shown_only_when_expanded(start: Start, kind: str) -> None:
    world = start(customers=30, **{kind: 100})
    assert not {"Tags", "Contact", "Type", "Creator", "Users", "OtherProperties"} & world.rows(SETS[kind])[0].keys()
    expand = "Tags($expand=Tag),Type,Creator,Contact($expand=City($expand=State),Company;$select=Id,Name,CPF,CNPJ)"
    rows = world.rows(SETS[kind], expand=expand, select="Id,ContactId")
    contacts = world.sandbox.ploomes.contacts
    for row in rows:
        assert row.keys() == {"Id", "ContactId", "Tags", "Type", "Creator", "Contact"}
        assert (row["Contact"] and row["Contact"]["Id"]) == row["ContactId"]
        assert all(tag["Tag"]["Id"] == tag["TagId"] for tag in row["Tags"])
        if row["Contact"]:
            contact = contacts[row["ContactId"]]
            assert row["Contact"].keys() == {"Id", "Name", "CPF", "CNPJ", "City", "Company"}
            assert row["Contact"]["City"]["State"] == contact["State"]
            assert (row["Contact"]["Company"] and row["Contact"]["Company"]["Id"]) == contact["CompanyId"]
    assert any(row["Contact"] and row["Contact"]["Company"] for row in rows)
    assert "Tag" not in next(row["Tags"][0] for row in world.rows(SETS[kind], expand="Tags") if row["Tags"])


@both
def test_a_contact_that_is_gone_is_null(start: Start, kind: str) -> None:
    world = start(customers=3, **{kind: 20})
    row = next(row for row in world.rows(SETS[kind]) if row["ContactId"])
    assert world.control("delete", ids=[row["ContactId"]])["ids"] == [row["ContactId"]]
    (seen,) = world.rows(SETS[kind], filter=f"Id eq {row['Id']}", expand="Contact")
    assert (seen["ContactId"], seen["Contact"]) == (row["ContactId"], None)


@both
@pytest.mark.parametrize(
    "options",
    [
        {"filter": "Contact/Register eq '1'"},
        {"filter": "Contact/any(c: c/Id eq 1)"},
        {"filter": "Name eq 'Ana'"},
        {"filter": "Tags/any(t: t/TagId eq 'text')"},
        {"orderby": "Contact/Name"},
        {"expand": "Deal"},
        {"expand": "Contacts"},
        {"select": "Nothing"},
    ],
)
def test_what_is_not_kept_here_is_refused(start: Start, kind: str, options: dict[str, str]) -> None:
    assert start(customers=1).ploomes(SETS[kind], **options).status_code == 400


def test_the_tags_of_an_entity_are_listed(start: Start) -> None:
    world = start(customers=1)
    names = {}
    for entity in (1, 12, 36):
        rows = world.rows("/Tags", filter=f"EntityId eq {entity}")
        assert rows == [tag for tag in TAGS if tag["EntityId"] == entity]
        names[entity] = {row["Name"]: row["Id"] for row in rows}
    assert (names[12]["INSTALAÇÃO"], names[12]["ENTREGA"]) == (INSTALL["tasks"], DELIVER["tasks"])
    assert (names[36]["INSTALAÇÃO"], names[36]["ENTREGA"]) == (INSTALL["interactions"], DELIVER["interactions"])
    assert names[12].keys() == names[36].keys() > {"VISITA", "COBRANÇA"}


# Writing


@both
def test_a_row_lives_through_create_read_update_and_delete(start: Start, kind: str) -> None:
    world = start(customers=1)
    (contact,) = world.contacts()
    body = NEW[kind] | {"ContactId": contact["Id"], "Tags": [{"TagId": INSTALL[kind]}]}
    created = world.ploomes(SETS[kind], "POST", body, expand="Tags,Contact")
    (row,) = created.json()["value"]
    assert created.status_code == 200
    assert (row["Contact"]["Name"], row["CreateDate"], row["LastUpdateDate"]) == (contact["Name"], NOW_TEXT, NOW_TEXT)
    assert tag_ids(row) == {INSTALL[kind]}
    path = f"{SETS[kind]}({row['Id']})"
    world.clock.now += 1.5
    changed = world.ploomes(path, "PATCH", {"ContactId": None, "Tags": []}, expand="Tags,Contact").json()["value"][0]
    assert (changed["ContactId"], changed["Contact"], changed["Tags"]) == (None, None, [])
    assert (changed["CreateDate"], changed["LastUpdateDate"]) == (NOW_TEXT, "2026-06-01T09:00:01.5-03:00")
    assert world.rows(path, expand="Tags,Contact") == [changed]
    deleted = world.ploomes(path, "DELETE")
    assert (deleted.status_code, deleted.content) == (200, b"")
    assert [world.ploomes(path, method).status_code for method in ("GET", "PATCH", "DELETE")] == [404, 404, 404]
    assert world.ploomes(SETS[kind], "DELETE").status_code == 405


def test_the_date_of_a_task_may_come_without_an_offset(start: Start) -> None:
    world = start(customers=1)
    kept = {
        "2026-03-01T10:00:00": "2026-03-01T10:00:00-03:00",
        "2026-03-01T10:00:00Z": "2026-03-01T07:00:00-03:00",
        "2026-03-01T10:00:00.120-03:00": "2026-03-01T10:00:00.12-03:00",
        "2026-03-01": "2026-03-01",
    }
    for sent, expected in kept.items():
        row = world.ploomes("/Tasks", "POST", {"Title": "Ir", "DateTime": sent}).json()["value"][0]
        assert row["DateTime"] == expected


@both
@pytest.mark.parametrize(
    "change",
    [
        {"ContactId": 1},
        {"Tags": [{"TagId": 1}]},
        {"Tags": "INSTALAÇÃO"},
        {"TypeId": 99},
        {"CreateDate": NOW_TEXT},
        {"Nothing": 1},
        {"Length": "long"},
        {"DateTime": "soon", "Date": "soon"},
    ],
)
def test_a_wrong_body_is_refused(start: Start, kind: str, change: Row) -> None:
    world = start(customers=1)
    assert world.ploomes(SETS[kind], "POST", NEW[kind] | change).status_code == 400
    assert held(world.sandbox, kind) == []


@both
def test_what_is_required_and_a_tag_of_its_own_kind(start: Start, kind: str) -> None:
    world = start(customers=1)
    assert world.ploomes(SETS[kind], "POST", {"Length": 5}).status_code == 400
    assert world.ploomes(SETS[kind], "POST", NEW[kind] | {"Tags": [{"TagId": OTHER[kind]}]}).status_code == 400
    contact = {"Name": "Ana", "TypeId": 2, "Tags": [{"TagId": INSTALL[kind]}]}
    assert world.ploomes("/Contacts", "POST", contact).status_code == 400


# Faults


@both
def test_short_pages_and_caps_and_wrong_totals(start: Start, kind: str) -> None:
    world = start(customers=5, **{kind: 400}, faults="short_pages=1,cap=350,wrong_total=3")
    seen: list[int] = []
    while page := world.rows(SETS[kind], orderby="Id", skip=len(seen)):
        assert len(page) < min(300, 350 - len(seen)) or len(page) == 1
        seen += [row["Id"] for row in page]
    assert len(seen) == 350
    assert world.ploomes(SETS[kind], top=0, count="true").json()["@odata.count"] == 353


@both
def test_late_versions_appear_after_a_while(start: Start, kind: str) -> None:
    world = start(customers=3, **{kind: 3}, faults="late=30")
    (edited,) = world.control("edit", kind=kind, count=1, seed=1)["ids"]
    world.control("add", kind=kind, count=1)
    before = world.rows(SETS[kind], orderby="Id")
    assert len(before) == 3
    world.clock.now += 30
    after = world.rows(SETS[kind], orderby="Id")
    assert len(after) == 4
    assert [row["Id"] for row in after[:3] if row not in before] == [edited]


@both
def test_churn_and_bad_rows_strike_each_set_for_itself(start: Start, kind: str) -> None:
    world = start(customers=30, **{kind: 100}, faults="bad_rows=4")
    rows = world.rows(SETS[kind])
    assert sum("Id" not in row for row in rows) == sum(row["LastUpdateDate"].startswith("0000") for row in rows) == 2
    world.control("faults", faults="churn=1")
    for _ in range(30):
        world.rows(SETS[kind], top=5)
    churned = world.control("stats")["churned"]
    assert churned["touched"] and churned["vanished"]
    assert len(held(world.sandbox, kind)) == 100 - len(churned["vanished"])
    assert len(world.sandbox.ploomes.contacts) == 30


def test_a_dropped_write_was_done(start: Start) -> None:
    world = start(customers=1, faults="drop=1")
    with pytest.raises(requests.ConnectionError):
        world.ploomes("/Tasks", "POST", NEW["tasks"])
    assert len(world.sandbox.ploomes.tasks) == 1


# Control


@both
def test_hands_from_outside_reach_each_kind(start: Start, kind: str) -> None:
    world = start(customers=5, **{kind: 20})
    contacts = world.control("state")["rows"]
    before = {row["Id"]: row for row in world.control("state", kind=kind)["rows"]}
    edited = world.control("edit", kind=kind, count=3, seed=5)
    assert edited["documents"] == [None] * 3
    after = {row["Id"]: row for row in world.control("state", kind=kind)["rows"]}
    assert {key for key in before if before[key] != after[key]} == set(edited["ids"])
    deleted = world.control("delete", kind=kind, count=2, seed=5)["ids"]
    fields = {"TagIds": [INSTALL[kind]], "ContactId": contacts[0]["Id"]}
    added = world.control("add", kind=kind, count=4, fields=fields)["ids"]
    state = requests.get(f"{world.sandbox.urls['ploomes']}/_sandbox/state?kind={kind}", timeout=10).json()["rows"]
    rows = {row["Id"]: row for row in state}
    assert rows.keys() == (before.keys() - set(deleted)) | set(added)
    for row in (rows[each] for each in added):
        assert (tag_ids(row), row["ContactId"]) == ({INSTALL[kind]}, contacts[0]["Id"])
        assert (row["CreateDate"], row["LastUpdateDate"]) == (NOW_TEXT, NOW_TEXT)
    assert world.control("state")["rows"] == contacts
    assert world.control("stats")[kind] == 22


def test_explicit_changes_reach_explicit_rows(start: Start) -> None:
    world = start(customers=4, tasks=4)
    first, second = list(world.sandbox.ploomes.contacts)[:2]
    done = world.control("edit", ids=[first], fields={"Name": "Outra Ltda", "Register": "051.847.156-06"})
    assert done == {"ids": [first], "documents": ["05184715606"]}
    row = world.sandbox.ploomes.contacts[first]
    assert (row["Name"], row["CPF"], row["LastUpdateDate"]) == ("Outra Ltda", "05184715606", NOW_TEXT)
    old = {"CreateDate": "2024-02-23T23:59:59-03:00", "LastUpdateDate": "2024-02-23T23:59:59-03:00"}
    task = next(iter(world.sandbox.ploomes.tasks))
    world.control("edit", kind="tasks", ids=[task], fields=old)
    assert world.sandbox.ploomes.tasks[task] == world.sandbox.ploomes.tasks[task] | old
    kept = dict(world.sandbox.ploomes.contacts)
    for nonsense in (
        {"ids": [second, 7], "fields": {"Name": "X"}},
        {"ids": [second], "fields": {"Nothing": 1}},
        {"ids": [second]},
        {"ids": [second], "count": 1, "fields": {"Name": "X"}},
        {"kind": "deals", "count": 1},
        {"cuont": 1},
    ):
        assert world.control("edit", **nonsense)["error"]
    assert world.sandbox.ploomes.contacts == kept
