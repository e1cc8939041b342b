"""The sandbox keeps what the vendors document, and every fault switch does what it says, over real HTTP."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import requests
from stdnum.br import cnpj, cpf

from tests.sandbox.faults import SWITCHES, Faults, parse
from tests.sandbox.odata import milliseconds
from tests.sandbox.people import People, stamp
from tests.systems.sandboxed import NOW, Row, Start, worlds

VALID_CPF = "05184715606"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def start() -> Iterator[Start]:
    with worlds() as started:
        yield started


def client(document: str = VALID_CPF, **changes: object) -> Row:
    return {
        "cliente_documento": document,
        "cliente_ativo": True,
        "cliente_pessoa_fisica": {"nome": "Ana Souza"},
        "cliente_enderecos": [{"endereco_cep": "01310100", "endereco_estado": "SP"}],
        "cliente_contatos": [{"contato_email": "ana@example.com"}],
    } | changes


def documents(count: int, seed: int = 9) -> list[str]:
    people = People(seed, NOW)
    return [row["CPF"] for row in people.take(count * 4) if row["CPF"]][:count]


# People


def test_the_same_seed_gives_the_same_people_whatever_their_number() -> None:
    assert People(3, NOW).take(40) == People(3, NOW).take(200)[:40]
    assert People(3, NOW).take(40) != People(4, NOW).take(40)


def test_the_day_decides_the_dates_of_people_and_nothing_else() -> None:
    rows = People(3, NOW).take(50)
    assert People(3, NOW + timedelta(hours=5)).take(50) == rows
    dates = {"CreateDate": None, "LastUpdateDate": None}
    later = People(3, NOW + timedelta(days=90)).take(50)
    assert later != rows
    assert [row | dates for row in later] == [row | dates for row in rows]


def test_people_are_valid_and_distinct_unless_asked_otherwise() -> None:
    rows = People(1, NOW).take(2000)
    assert all((cpf if row["CPF"] else cnpj).is_valid(row["Register"]) for row in rows)
    assert len({row["Register"] for row in rows}) == 2000
    assert any(row["CNPJ"] and not row["CNPJ"].isdigit() for row in rows)
    assert any(row["ZipCode"] < 10_000_000 for row in rows)
    dates = [row["LastUpdateDate"] for row in rows]
    assert len(set(dates)) < len(dates)
    assert all(date.endswith("-03:00") and "2024-03-01" <= date < "2026-05-30" for date in dates)
    assert {len(date) for date in dates} == {25, 27, 28, 29}


def test_flawed_people_come_in_the_numbers_asked_for() -> None:
    rows = People(1, NOW).take(300, undocumented=4, invalid=6, duplicates=5)
    given = [row["Register"] for row in rows if row["Register"]]
    wrong = [each for each in given if not ((cpf.is_valid(each) and len(set(each)) > 1) or cnpj.is_valid(each))]
    assert (300 - len(given), len(wrong)) == (4, 6)
    repeats = Counter(given)
    assert sum(count - 1 for document, count in repeats.items() if document not in wrong) == 5


# Ploomes


def test_ploomes_refuses_a_wrong_key_and_an_unknown_set(start: Start) -> None:
    world = start(customers=1)
    assert world.ploomes("/Nothing").status_code == 404
    world.session.headers["User-Key"] = "wrong"
    assert world.ploomes("/Contacts").status_code == 401


def test_ploomes_never_gives_more_than_300_rows(start: Start) -> None:
    world = start(customers=650)
    assert [len(world.contacts(top=top)) for top in (10, 300, 5000)] == [10, 300, 300]
    assert len(world.contacts()) == 300
    pages = [world.contacts(skip=skip, orderby="Id") for skip in (0, 300, 600, 900)]
    assert [len(page) for page in pages] == [300, 300, 50, 0]
    assert len({row["Id"] for page in pages for row in page}) == 650
    counted = world.ploomes("/Contacts", top=0, count="true").json()
    assert (counted["@odata.count"], counted["value"]) == (650, [])


def test_ploomes_filters_as_documented(start: Start) -> None:
    world = start(customers=200)
    rows = world.sandbox.ploomes.rows()
    date = sorted(rows, key=lambda row: milliseconds(row["LastUpdateDate"]))[100]["LastUpdateDate"]
    some = rows[7]
    name = some["Name"].replace("'", "''")
    tag = next(row["Tags"][0]["TagId"] for row in rows if row["Tags"])
    expected: dict[str, Callable[[Row], bool]] = {
        f"Id eq {some['Id']}": lambda row: row is some,
        f"Register eq '{some['Register']}'": lambda row: row is some,
        f"Name eq '{name}'": lambda row: row["Name"] == some["Name"],
        f"LastUpdateDate ge {date}": lambda row: milliseconds(row["LastUpdateDate"]) >= milliseconds(date),
        "LastUpdateDate lt 2025-01-01T03:00:00Z and TypeId eq 2": lambda row: (
            row["LastUpdateDate"] < "2025-01-01" and row["TypeId"] == 2
        ),
        "(TypeId eq 1 or CPF ne null) and not contains(Name,'a')": lambda row: "a" not in row["Name"],
        "startswith(Email,'a') and Editable eq true": lambda row: row["Email"].startswith("a"),
        "CompanyId gt 0": lambda row: bool(row["CompanyId"]),
        f"Tags/any(t: t/TagId eq {tag})": lambda row: any(each["TagId"] == tag for each in row["Tags"]),
        "City/Id eq 1 or State/Short eq 'RJ'": lambda row: row["CityId"] == 1 or row["StateId"] == 33,
    }
    for text, holds in expected.items():
        found = {row["Id"] for row in world.contacts(filter=text)}
        assert found == {row["Id"] for row in rows if holds(row)}, text
        assert found, text


@pytest.mark.parametrize(
    "options",
    [
        {"filter": "Nothing eq 1"},
        {"filter": "Id eq 'text'"},
        {"filter": "Id eq 1 and"},
        {"filter": "(Id eq 1"},
        {"filter": "LastUpdateDate ge 2024-01-01"},
        {"filter": "LastUpdateDate ge '2024-01-01T00:00:00Z'"},
        {"filter": "Id eq 1; drop"},
        {"orderby": "Id sideways"},
        {"top": "-1"},
        {"expand": "Nothing"},
        {"select": "Nothing"},
        {"search": "Ana"},
    ],
)
def test_ploomes_refuses_what_it_cannot_parse(start: Start, options: dict[str, str]) -> None:
    refusal = start(customers=3).ploomes("/Contacts", **options)
    assert refusal.status_code == 400
    assert refusal.json()["error"]["message"]


def test_ploomes_orders_by_several_fields(start: Start) -> None:
    rows = start(customers=250).contacts(orderby="LastUpdateDate desc,Id asc")
    assert rows == sorted(rows, key=lambda row: (-milliseconds(row["LastUpdateDate"]), row["Id"]))


def test_ploomes_shows_children_only_when_expanded(start: Start) -> None:
    world = start(customers=60)
    children = {"City", "State", "Phones", "Tags", "Type", "OtherProperties", "Company", "Contacts"}
    assert not children & world.contacts(top=1)[0].keys()
    row = world.contacts(filter="CompanyId gt 0", expand="City($expand=State),Phones,Tags($expand=Tag),Company")[0]
    assert row["City"]["State"]["Short"] and row["Company"]["Id"] == row["CompanyId"]
    assert "State" not in world.contacts(top=1, expand="City")[0]["City"]
    company = world.contacts(filter=f"Id eq {row['CompanyId']}", expand="Contacts($select=Id,Name)", select="Id")[0]
    assert set(company) == {"Id", "Contacts"}
    assert {"Id": row["Id"], "Name": row["Name"]} in company["Contacts"]


def test_ploomes_writes_answer_200_with_the_record_in_value(start: Start) -> None:
    world = start(customers=1)
    phones = [{"PhoneNumber": "(11) 98888-7777", "TypeId": 2}]
    body = {"Name": "Ana", "TypeId": 2, "Register": "051.847.156-06", "ZipCode": "01310100", "CityId": 1}
    body |= {"Phones": phones}
    created = world.ploomes("/Contacts", "POST", body, expand="Phones,City")
    row = created.json()["value"][0]
    assert (created.status_code, row["CPF"], row["ZipCode"], row["CNPJ"]) == (200, VALID_CPF, 1310100, None)
    assert row["Phones"][0]["SearchPhoneNumber"] == 11988887777
    assert row["CreateDate"] == row["LastUpdateDate"] == "2026-06-01T09:00:00-03:00"
    world.clock.now += 1.25
    changed = world.ploomes(f"/Contacts({row['Id']})", "PATCH", {"Name": "Bia"}).json()["value"][0]
    assert (changed["Name"], changed["LastUpdateDate"]) == ("Bia", "2026-06-01T09:00:01.25-03:00")
    assert changed["CreateDate"] == row["CreateDate"]
    deleted = world.ploomes(f"/Contacts({row['Id']})", "DELETE")
    assert (deleted.status_code, deleted.content) == (200, b"")
    assert world.contacts(filter=f"Id eq {row['Id']}") == []
    assert world.ploomes(f"/Contacts({row['Id']})", "PATCH", {"Name": "Bia"}).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"Name": "Ana"},
        {"Name": "Ana", "TypeId": 0},
        {"Name": 7, "TypeId": 2},
        {"Name": "Ana", "TypeId": 2, "Gender": "F"},
        {"Name": "Ana", "TypeId": 2, "LastUpdateDate": "2024-01-01T00:00:00-03:00"},
        {"Name": "Ana", "TypeId": 2, "Phones": "11 98888-7777"},
        {"Name": "Ana", "TypeId": 2, "Tags": [{"TagId": 1}]},
        ["not an object"],
    ],
)
def test_ploomes_refuses_a_body_it_does_not_know(start: Start, body: object) -> None:
    assert start(customers=1).ploomes("/Contacts", "POST", body).status_code == 400


def test_ploomes_has_look_ups(start: Start) -> None:
    world = start(customers=1)
    assert [row["Id"] for row in world.ploomes("/Contacts@Types").json()["value"]] == [1, 2]
    city = world.ploomes("/Cities", filter="Name eq 'Campinas'", expand="State").json()["value"][0]
    assert city["State"]["Short"] == "SP"
    assert {row["EntityId"] for row in world.ploomes("/Tags", filter="EntityId eq 12").json()["value"]} == {12}


def test_ploomes_allows_120_requests_in_any_sliding_minute(start: Start) -> None:
    world = start(customers=1, ploomes_per_minute=120)
    statuses = []
    for _ in range(130):
        statuses.append(world.ploomes("/Contacts@Types").status_code)
        world.clock.now += 0.25
    assert statuses == [200] * 120 + [429] * 10
    world.clock.now = NOW.timestamp() + 59.875
    assert world.ploomes("/Contacts@Types").status_code == 429
    world.clock.now = NOW.timestamp() + 60
    assert [world.ploomes("/Contacts@Types").status_code for _ in range(2)] == [200, 429]
    assert world.control("stats")["largest_minute"] == {"all": 132, "accepted": 120, "refused": 12}
    assert world.control("limit", per_minute=None) == {"per_minute": None}
    assert world.ploomes("/Contacts@Types").status_code == 200


def test_every_answer_is_dated_by_the_clock_of_the_sandbox(start: Start) -> None:
    world = start(customers=1)
    for answer in (world.ploomes("/Contacts"), world.ploomes("/Nothing"), world.milvus("/cliente/busca")):
        assert parsedate_to_datetime(answer.headers["Date"]) == NOW


# Milvus


def test_milvus_wants_the_raw_token(start: Start) -> None:
    world = start()
    token = world.session.headers["Authorization"]
    assert world.milvus("/cliente/busca").status_code == 200
    for wrong in (f"Bearer {token!s}", "wrong"):
        world.session.headers["Authorization"] = wrong
        assert world.milvus("/cliente/busca").status_code == 401


def test_milvus_keeps_a_client_through_its_life(start: Start) -> None:
    world = start()
    created = world.milvus("/cliente/criar", "POST", client())
    assert (created.status_code, type(created.json())) == (200, int)
    (row,) = world.milvus("/cliente/busca", documento=VALID_CPF).json()["lista"]
    assert row["id"] == created.json() and len(row["token"]) == 6 and row["token"].isupper()
    assert (row["nome_fantasia"], row["cnpj_cpf"], row["is_fisica"]) == ("Ana Souza", VALID_CPF, True)
    assert not {"cliente_enderecos", "enderecos", "contatos"} & row.keys()
    change = client(cliente_ativo=False)
    path = f"/cliente/alterar/{row['id']}"
    assert world.milvus(path, "PUT", change).status_code == 400
    del change["cliente_enderecos"], change["cliente_contatos"]
    changed = world.milvus(path, "PUT", change)
    assert (changed.status_code, changed.content) == (204, b"")
    found = [len(world.milvus("/cliente/busca", status=status).json()["lista"]) for status in "123"]
    assert found == [0, 1, 1]
    assert world.milvus("/cliente/alterar/1", "PUT", change).status_code == 404
    assert "não encontrado" in world.milvus("/cliente/alterar/1", "PUT", change).json()["message"]
    assert world.milvus(f"/cliente/excluir/{row['id']}", "DELETE").status_code == 204
    assert world.milvus("/cliente/busca", status="3").json() == {"lista": []}


@pytest.mark.parametrize(
    "body",
    [
        client(cliente_documento=5184715606),
        client("051.847.156-06"),
        client("05184715607"),
        client("11111111111"),
        client(cliente_pessoa_fisica=None),
        client(cliente_pessoa_juridica={"nome_fantasia": "Ana ME"}),
        client(cliente_pessoa_fisica={"nome": " "}),
        client(cliente_enderecos=[{"endereco_cep": "1310100"}]),
        client(cliente_enderecos=[{"endereco_cep": 1310100}]),
        client(cliente_enderecos=[{"endereco_estado": "São Paulo"}]),
        client(cliente_ativo="true"),
        ["not an object"],
    ],
)
def test_milvus_refuses_a_wrong_client_with_a_message(start: Start, body: object) -> None:
    world = start()
    refusal = world.milvus("/cliente/criar", "POST", body)
    assert refusal.status_code == 400 and refusal.json()["message"]
    assert not world.sandbox.milvus.clients


def test_milvus_takes_a_cnpj_with_letters(start: Start) -> None:
    company = client("12ABC34501DE35", cliente_pessoa_juridica={"nome_fantasia": "Souza Ltda"})
    del company["cliente_pessoa_fisica"]
    assert start().milvus("/cliente/criar", "POST", company).status_code == 200


def test_milvus_makes_doubles_and_the_books_show_them(start: Start) -> None:
    world = start()
    ids = {world.milvus("/cliente/criar", "POST", client()).json() for _ in range(2)}
    assert len(ids) == 2
    stats = world.control("stats", "milvus")
    assert (stats["creates"], stats["repeated_documents"]) == (2, {VALID_CPF: 2})
    assert stats["requests"] == {"POST /api/cliente/criar": 2}


def test_milvus_cuts_a_list_at_1000_without_a_sign(start: Start) -> None:
    world = start()
    world.control("add", "milvus", count=1003)
    found = world.milvus("/cliente/busca").json()
    assert (found.keys(), len(found["lista"])) == ({"lista"}, 1000)
    assert len(world.milvus("/cliente/busca", pagina="2").json()["lista"]) == 1000


# Faults


@pytest.mark.parametrize("status", ["429", "503", "502", "500"])
def test_a_share_of_requests_is_refused(start: Start, status: str) -> None:
    world = start(customers=1, faults=f"{status}=50%")
    seen = Counter(world.ploomes("/Contacts@Types").status_code for _ in range(60))
    assert set(seen) == {200, int(status)}
    assert world.control("stats")["struck"] == {status: seen[int(status)]}
    again = start(customers=1, faults=f"{status}=50%")
    assert Counter(again.ploomes("/Contacts@Types").status_code for _ in range(60)) == seen


def test_a_429_says_when_to_come_again_if_told_to(start: Start) -> None:
    world = start(customers=1, faults="429=1")
    assert "Retry-After" not in world.ploomes("/Contacts").headers
    world.control("faults", faults="429=1,retry_after=7")
    assert world.ploomes("/Contacts").headers["Retry-After"] == "7"
    world.control("faults", faults="429=1,retry_after_date=7")
    until = parsedate_to_datetime(world.ploomes("/Contacts").headers["Retry-After"])
    assert (until - NOW).total_seconds() == 7


def test_a_share_of_requests_is_slow(start: Start) -> None:
    world = start(customers=1, faults="slow=2.5,milvus.slow_share=50%")
    world.ploomes("/Contacts")
    assert world.slept == [2.5]
    for _ in range(40):
        world.milvus("/cliente/busca")
    assert 1 < len(world.slept) < 41


def test_a_dropped_write_was_done_and_has_no_answer(start: Start) -> None:
    world = start(customers=1, faults="drop=100%")
    assert world.milvus("/cliente/busca").status_code == 200
    with pytest.raises(requests.ConnectionError):
        world.milvus("/cliente/criar", "POST", client())
    assert world.milvus("/cliente/criar", "POST", client("1")).status_code == 400
    stats = world.control("stats", "milvus")
    assert (stats["clients_per_document"], stats["statuses"]["dropped"]) == ({VALID_CPF: 1}, 1)
    with pytest.raises(requests.ConnectionError):
        world.ploomes("/Contacts", "POST", {"Name": "Ana", "TypeId": 2})
    assert len(world.sandbox.ploomes.contacts) == 2


def test_a_request_dropped_before_was_not_done(start: Start) -> None:
    world = start(faults="milvus.drop_before=1")
    with pytest.raises(requests.ConnectionError):
        world.milvus("/cliente/criar", "POST", client())
    assert not world.sandbox.milvus.clients
    assert world.contacts(top=1)


def test_short_pages_lose_nothing_for_a_reader_who_goes_on(start: Start) -> None:
    world = start(customers=500, faults="short_pages=1")
    seen: list[int] = []
    while page := world.contacts(orderby="Id", skip=len(seen)):
        assert len(page) < min(300, 500 - len(seen)) or len(page) == 1
        seen += [row["Id"] for row in page]
    assert seen == sorted(world.sandbox.ploomes.contacts)


def test_a_cap_hides_the_rest_of_a_filter(start: Start) -> None:
    world = start(customers=500, faults="cap=350")
    assert [len(world.contacts(orderby="Id", skip=skip)) for skip in (0, 300, 350)] == [300, 50, 0]
    assert world.ploomes("/Contacts", top=0, count="true").json()["@odata.count"] == 350
    last = world.contacts(orderby="Id", skip=349)[0]["Id"]
    assert len(world.contacts(orderby="Id", filter=f"Id gt {last}")) == 150


def test_a_wrong_total_is_too_high(start: Start) -> None:
    world = start(customers=10, faults="wrong_total=3")
    assert world.ploomes("/Contacts", count="true").json()["@odata.count"] == 13


def test_churn_touches_and_removes_rows_of_the_window(start: Start) -> None:
    world = start(customers=200, faults="churn=1")
    for _ in range(40):
        world.contacts(filter="TypeId eq 2", top=5)
    churned = world.control("stats")["churned"]
    assert churned["touched"] and churned["vanished"]
    contacts = world.sandbox.ploomes.contacts
    assert len(contacts) == 200 - len(churned["vanished"])
    left = [contacts[each] for each in churned["touched"] if each in contacts]
    assert {(row["LastUpdateDate"], row["TypeId"]) for row in left} == {("2026-06-01T09:00:00-03:00", 2)}


def test_late_versions_appear_after_a_while(start: Start) -> None:
    world = start(customers=3, faults="late=30")
    (edited,) = world.control("edit", count=1, seed=1)["ids"]
    before = world.contacts(orderby="Id")
    assert len(before) == 3
    world.control("add", count=1)
    assert world.contacts(orderby="Id") == before
    world.clock.now += 30
    after = world.contacts(orderby="Id")
    assert len(after) == 4
    changed = [row["Id"] for row in after[:3] if row not in before]
    assert changed == [edited]


def test_ties_give_a_block_one_date(start: Start) -> None:
    rows = start(customers=100, faults="ties=40").contacts(orderby="Id")
    blocks = [rows[:40], rows[40:80], rows[80:]]
    assert [len({row["LastUpdateDate"] for row in block}) for block in blocks] == [1, 1, 1]
    assert len({row["LastUpdateDate"] for row in rows}) == 3


def test_answers_can_be_no_json_or_lack_their_list(start: Start) -> None:
    world = start(customers=1, faults="not_json=1,milvus.not_json=0,milvus.no_value=1")
    page = world.ploomes("/Contacts")
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html")
    with pytest.raises(requests.JSONDecodeError):
        page.json()
    assert world.milvus("/cliente/busca").json() == {}


def test_bad_rows_lack_their_id_or_have_a_useless_date(start: Start) -> None:
    rows = start(customers=50, faults="bad_rows=4").contacts()
    assert len(rows) == 50
    assert sum("Id" not in row for row in rows) == 2
    assert sum(row["LastUpdateDate"].startswith("0000") for row in rows) == 2


def test_milvus_refuses_some_documents_until_mended(start: Start) -> None:
    world = start(faults="milvus.reject=3")
    chosen = documents(30)
    answers = {each: world.milvus("/cliente/criar", "POST", client(each)) for each in chosen}
    refused = {document for document, answer in answers.items() if answer.status_code == 400}
    assert refused == {each for each in chosen if crc32(each.encode()) % 3 == 0} != set()
    assert all("recusado" in answers[each].json()["message"] for each in refused)
    world.control("faults", "milvus", faults="")
    assert all(world.milvus("/cliente/criar", "POST", client(each)).status_code == 200 for each in refused)


def test_a_key_can_be_revoked_after_some_requests(start: Start) -> None:
    world = start(customers=1, faults="ploomes.unauthorized=2")
    assert [world.ploomes("/Contacts").status_code for _ in range(4)] == [200, 200, 401, 401]
    world.control("faults", faults="")
    assert world.ploomes("/Contacts").status_code == 200


def test_a_system_can_be_down(start: Start) -> None:
    world = start(customers=1, faults="milvus.down")
    assert world.milvus("/cliente/busca").status_code == 503
    assert world.ploomes("/Contacts").status_code == 200


def test_faults_are_read_from_a_text() -> None:
    read = parse("429=2%, drop:0.05,milvus.drop=10%,retry_after=1s", ["ploomes", "milvus"])
    assert read["ploomes"] == {"429": 0.02, "drop": 0.05, "retry_after": 1}
    assert read["milvus"] == {"429": 0.02, "drop": 0.1, "retry_after": 1}
    assert parse("down", ["milvus"])["milvus"]["down"] == 1
    assert Faults()["cap"] == 0
    with pytest.raises(KeyError):
        Faults()["capp"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shortpages=1", "known are short_pages,"),
        ("okki.429=1", "no system is called 'okki'"),
        ("429=5", "needs a share"),
        ("cap=1.5", "needs a count"),
        ("slow=soon", "needs a seconds"),
    ],
)
def test_a_wrong_fault_text_is_explained(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse(text, ["ploomes", "milvus"])
    assert "known are" not in message or all(name in str(caught.value) for name in SWITCHES)


# Control


def test_hands_from_outside_edit_delete_and_add(start: Start) -> None:
    world = start(customers=20)
    before = {row["Id"]: row for row in world.control("state")["rows"]}
    edited = world.control("edit", count=3, seed=5)
    after = {row["Id"]: row for row in world.control("state")["rows"]}
    changed = [key for key in before if before[key] != after[key]]
    assert sorted(edited["ids"]) == sorted(changed)
    for key, document in zip(edited["ids"], edited["documents"], strict=True):
        assert after[key]["Register"] == before[key]["Register"] == document
        assert after[key]["LastUpdateDate"] == stamp(int(world.clock.now * 1000))
        assert all(after[key][name] != before[key][name] for name in ("Name", "Email", "Phones"))
    deleted = world.control("delete", count=2, seed=5)["ids"]
    added = world.control("add", count=4)["ids"]
    assert {row["Id"] for row in world.contacts()} == (before.keys() - set(deleted)) | set(added)


def test_milvus_takes_the_same_hands(start: Start) -> None:
    world = start()
    ids = world.control("add", "milvus", count=5)["ids"]
    before = {row["id"]: row["nome_fantasia"] for row in world.control("state", "milvus")["rows"]}
    (edited,) = world.control("edit", "milvus", count=1, seed=2)["ids"]
    (deleted,) = world.control("delete", "milvus", count=1, seed=3)["ids"]
    after = {row["id"]: row["nome_fantasia"] for row in world.control("state", "milvus")["rows"]}
    assert after.keys() == set(ids) - {deleted}
    assert {key for key in after if after[key] != before[key]} == {edited} - {deleted}


def test_control_needs_no_key_counts_nowhere_and_refuses_nonsense(start: Start) -> None:
    world = start(customers=1, faults="down")
    assert world.control("stats")["requests"] == {}
    assert "known are" in world.control("faults", faults="tise=3")["error"]
    assert world.control("edit")["error"]
    assert world.control("edit", count=99)["error"]
    assert world.control("nothing")["error"]


# Transport


def test_a_connection_is_kept_alive(start: Start) -> None:
    world = start(customers=5)
    sockets = set()
    for _ in range(5):
        with world.session.get(world.sandbox.urls["ploomes"] + "/Contacts", stream=True, timeout=10) as answer:
            connection: Any = answer.raw.connection
            sockets.add(connection.sock.getsockname())
            assert answer.json()["value"]
    assert len(sockets) == 1


def test_a_body_without_a_length_is_refused(start: Start) -> None:
    url = start().sandbox.urls["ploomes"] + "/Contacts"
    assert requests.post(url, data=iter([b"{}"]), timeout=10).status_code == 501


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_the_environment_and_ends_with_0(number: signal.Signals) -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.sandbox", "--customers", "7", "--seed", "2"]
    command += ["--tasks", "5", "--interactions", "6", "--clients", "4", "--conversions", "3"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout
        environment: dict[str, str] = {}
        while "BIGQUERY_URL" not in environment:
            name, value = process.stdout.readline().removeprefix("export ").strip().split("=", 1)
            environment[name] = value
        assert list(environment) == [
            "PLOOMES_URL", "PLOOMES_USER_KEY", "MILVUS_URL", "MILVUS_TOKEN", "OKKI_URL", "OKKI_CLIENT_ID",
            "OKKI_CLIENT_SECRET", "QEASY_URL", "QEASY_APP_KEY", "QEASY_APP_SECRET", "QEASY_SCHEME", "GA4_URL",
            "GA4_MEASUREMENT_ID", "GA4_API_SECRET", "DATA_MANAGER_URL", "GOOGLE_OAUTH_ACCESS_TOKEN", "GOOGLE_ADS_URL",
            "GOOGLE_ADS_DEVELOPER_TOKEN", "GOOGLE_ADS_CUSTOMER_ID", "CM360_URL", "CM360_PROFILE_ID", "BIGQUERY_URL",
        ]  # fmt: skip
        assert environment["MILVUS_URL"].endswith("/api")
        key = {"User-Key": environment["PLOOMES_USER_KEY"]}
        held = [
            len(requests.get(environment["PLOOMES_URL"] + path, headers=key, timeout=10).json()["value"])
            for path in ("/Contacts", "/Tasks", "/InteractionRecords")
        ]
        stats = requests.get(f"{environment['BIGQUERY_URL']}/_sandbox/stats", timeout=10).json()
        process.send_signal(number)
        assert process.wait(timeout=10) == 0
    assert (held, stats["rows"]) == ([7, 5, 6], {"sandbox.crm.conversions": 3})
