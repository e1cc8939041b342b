"""Contacts and clients against the fake systems, there and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.milvus_to_ploomes.mapping import contact
from functions.milvus_to_ploomes.mapping import document_of as document_of_client
from functions.ploomes_to_milvus.mapping import client
from functions.ploomes_to_milvus.mapping import document_of as document_of_contact
from infra.systems import Connection
from infra.systems.milvus import open_sink as open_milvus
from infra.systems.ploomes import open_sink as open_ploomes
from infra.systems.ploomes import open_source as open_ploomes_source
from shared.books import Window
from shared.documents import masked
from shared.ends import Change, Sink
from shared.errors import AuthError
from shared.outcome import Absent, Found, InDoubt, Outcome, Passing, Verdict, delivered
from shared.retry import RetryPolicy
from tests.loopback import FakeClock
from tests.sandbox import Sandbox
from tests.sandbox.faults import parse


@contextmanager
def sinks(sandbox: Sandbox, existing: str = "update", key: str = "") -> Iterator[tuple[Sink, Sink]]:
    """Ploomes and Milvus."""
    secrets = {name: sandbox.environment[name] for name in ("PLOOMES_USER_KEY", "MILVUS_TOKEN")}
    if key:
        secrets["PLOOMES_USER_KEY"] = key
    opened: list[Sink] = []
    for name, opening, write in (("PLOOMES_URL", open_ploomes, "contacts"), ("MILVUS_URL", open_milvus, "clients")):
        connection = Connection(
            sandbox.environment[name],
            secrets,
            None,
            100,
            RetryPolicy(3, 0.01),
            FakeClock(),
            None,
            lambda: False,
            {"existing": existing},
        )
        opened.append(opening(connection, write))
    try:
        yield opened[0], opened[1]
    finally:
        for sink in opened:
            sink.close()


def as_client(row: dict[str, Any]) -> Change:
    return Change(document_of_contact(row), "upsert", client(row))


def as_contact(row: dict[str, Any]) -> Change:
    return Change(document_of_client(row), "upsert", contact(row))


def test_every_contact_is_recognised_when_it_comes_back_as_a_client() -> None:
    with Sandbox(customers=80, ploomes_per_minute=None) as sandbox, sinks(sandbox) as (ploomes, milvus):
        there = [as_client(row) for row in sandbox.ploomes.contacts.values()]
        for change in there:
            (answer,) = milvus.write([change])
            assert isinstance(answer, Verdict)
            assert answer.outcome is Outcome.DELIVERED
        back = [as_contact(probe.current) for probe in milvus.find(there) if isinstance(probe, Found)]
        probes = ploomes.find(back)
        assert len(probes) == 80
        assert all(isinstance(probe, Found) and probe.same for probe in probes)
        before = dict(sandbox.ploomes.contacts)
        assert {int(answer.target_id) for answer in ploomes.write(back) if isinstance(answer, Verdict)} == set(before)
        assert sandbox.ploomes.contacts == before


def test_every_client_is_recognised_when_it_comes_back_as_a_contact() -> None:
    with Sandbox(customers=5, ploomes_per_minute=None) as sandbox, sinks(sandbox) as (ploomes, milvus):
        changes = [as_contact(row) for row in sandbox.milvus.add(60)]
        for change in changes:
            (answer,) = ploomes.write([change])
            assert isinstance(answer, Verdict)
            row = sandbox.ploomes.contacts[int(answer.target_id)]
            assert row["Register"] == change.key
        probes = list(ploomes.find(changes))
        assert len(sandbox.ploomes.contacts) == 65
        assert all(isinstance(probe, Found) and probe.same for probe in probes)
        back = milvus.find([as_client(probe.current) for probe in probes if isinstance(probe, Found)])
        assert len(back) == 60
        assert all(isinstance(probe, Found) and probe.same for probe in back)


@pytest.mark.parametrize("read", ["Tasks", "InteractionRecords"])
@pytest.mark.parametrize("page_size", [300, 17])
def test_every_task_and_interaction_is_read_with_its_contact_and_tags(read: str, page_size: int) -> None:
    with Sandbox(customers=40, tasks=120, interactions=120, ploomes_per_minute=None) as sandbox:
        secrets = {"PLOOMES_USER_KEY": sandbox.environment["PLOOMES_USER_KEY"]}
        url = sandbox.environment["PLOOMES_URL"]
        retry = RetryPolicy(3, 0.01)
        connection = Connection(url, secrets, None, page_size, retry, FakeClock(), None, lambda: False)
        source = open_ploomes_source(connection, read)
        try:
            window = Window(datetime(2020, 1, 1, tzinfo=UTC), source.now())
            rows = [row for page in source.pages(window, "") for row in page.rows]
        finally:
            source.close()
        contacts = sandbox.ploomes.contacts
        documents = {number: document_of_contact(row) for number, row in contacts.items()}
    assert len(rows) == len({row.origin for row in rows}) == 120
    assert all(row.problem is None and isinstance(row.data["Tags"], list) for row in rows)
    of_clients = [row.data for row in rows if row.data["ContactId"] in contacts]
    assert len(of_clients) > 60
    for row in of_clients:
        assert document_of_contact(row["Contact"]) == documents[row["ContactId"]]
        assert isinstance(row["Contact"]["Phones"], list)
    assert any(row.data["Tags"] for row in rows)


LINES = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs"), include_characters="\n\t'"), max_size=30)
NAMES = LINES.filter(lambda text: bool(text.strip()))
WRITABLE = st.fixed_dictionaries(
    {"Name": NAMES, "TypeId": st.sampled_from([1, 2])},
    optional={
        "LegalName": st.none() | LINES,
        "Website": st.none() | LINES,
        "Note": st.none() | LINES,
        "Birthday": st.none()
        | st.dates(min_value=date(1900, 1, 1)).map(lambda day: f"{day.isoformat()}T00:00:00-03:00"),
        "ZipCode": st.none() | st.integers(1, 99_999_999),
        "CityId": st.none() | st.integers(1, 32),
    },
)


def test_whatever_a_contact_holds_it_is_recognised_when_it_comes_back() -> None:
    documents = ["52998224725", "16727230000197", "12ABC34501DE35"]
    with Sandbox(customers=1, ploomes_per_minute=None) as sandbox, sinks(sandbox) as (ploomes, milvus):

        @settings(max_examples=150, deadline=None)
        @given(WRITABLE, st.sampled_from(documents))
        def comes_back(body: dict[str, Any], document: str) -> None:
            body = body | {"Register": document}
            (written,) = ploomes.write([Change(document, "upsert", body, absent=True)])
            assert isinstance(written, Verdict)
            there = as_client(sandbox.ploomes.contacts[int(written.target_id)])
            milvus.write([msgspec.structs.replace(there, absent=True)])
            (known,) = milvus.find([there])
            assert isinstance(known, Found)
            (probe,) = ploomes.find([as_contact(known.current)])
            assert isinstance(probe, Found)
            assert probe.same
            ploomes.write([Change(document, "delete", {}, written.target_id)])
            milvus.write([Change(document, "delete", {}, known.target_id)])

        comes_back()


@pytest.mark.parametrize("field", ["Register", "CNPJ", "CPF", "masked"])
def test_a_contact_is_found_by_each_field_that_may_hold_its_document(field: str) -> None:
    with Sandbox(customers=10, ploomes_per_minute=None) as sandbox, sinks(sandbox, "keep") as (ploomes, _):
        for row in list(sandbox.ploomes.contacts.values()):
            document = row["Register"]
            held = {"Register": masked(document)} if field == "masked" else {field: document}
            there = row | {"Register": None, "CNPJ": None, "CPF": None} | held
            sandbox.ploomes.contacts[row["Id"]] = there
            change = Change(document, "upsert", {"Name": "Outra", "Register": document, "TypeId": 1})
            (probe,) = ploomes.find([change])
            assert isinstance(probe, Found)
            assert (probe.target_id, probe.current["LastUpdateDate"]) == (str(row["Id"]), row["LastUpdateDate"])
            assert probe.current["City"]["State"] == row["City"]["State"]
            assert list(ploomes.write([change])) == [delivered(str(row["Id"]))]
            assert sandbox.ploomes.contacts[row["Id"]] == there
        assert len(sandbox.ploomes.contacts) == 10


def test_a_contact_is_created_updated_and_deleted() -> None:
    with Sandbox(customers=3, ploomes_per_minute=None) as sandbox, sinks(sandbox, "keep") as (ploomes, _):
        content = {
            "Name": "Sant'Ana",
            "LegalName": "Sant'Ana Ltda",
            "Register": "16727230000197",
            "TypeId": 1,
            "Birthday": "1990-02-28",
            "ZipCode": "01310100",
            "City": {"Name": "SAO PAULO", "State": "SP"},
        }
        change = Change("16727230000197", "upsert", content)
        assert list(ploomes.find([change])) == [Absent()]
        (answer,) = ploomes.write([change])
        assert isinstance(answer, Verdict)
        row = sandbox.ploomes.contacts[int(answer.target_id)]
        assert (row["Name"], row["CNPJ"], row["ZipCode"], row["CityId"]) == ("Sant'Ana", "16727230000197", 1310100, 1)
        update = Change(change.key, "upsert", content | {"Name": "Nova"}, answer.target_id)
        assert list(ploomes.write([update])) == [delivered(answer.target_id)]
        assert sandbox.ploomes.contacts[int(answer.target_id)]["Name"] == "Nova"
        delete = Change(change.key, "delete", {}, answer.target_id)
        assert list(ploomes.write([delete])) == [delivered(answer.target_id)]
        assert list(ploomes.write([delete])) == [delivered(answer.target_id)]
        assert len(sandbox.ploomes.contacts) == 3


def test_a_wrong_key_is_told() -> None:
    with Sandbox(customers=1) as sandbox, sinks(sandbox, key="F00D") as (ploomes, _), pytest.raises(AuthError):
        ploomes.find([Change("52998224725", "upsert", {})])


@pytest.mark.parametrize("faults", ["429=100%", "429=100%,retry_after=7"])
def test_an_account_that_was_asked_too_often_is_left_alone(faults: str) -> None:
    with Sandbox(customers=1, ploomes_per_minute=None) as sandbox, sinks(sandbox) as (ploomes, _):
        sandbox.ploomes.set_faults(parse(faults, ["ploomes"])["ploomes"])
        answers = list(ploomes.write([as_contact(row) for row in sandbox.milvus.add(8)]))
        assert sandbox.ploomes.statuses["429"] == 2
    assert len(answers) == 8
    assert all(isinstance(each, Passing) and each.http_status == 429 for each in answers)
    assert {each.after for each in answers if isinstance(each, Passing)} == {7.0 if "after" in faults else None}


def test_with_lost_answers_a_probe_tells_the_truth() -> None:
    with Sandbox(customers=5, ploomes_per_minute=None) as sandbox, sinks(sandbox, "keep") as (ploomes, _):
        clients = sandbox.milvus.add(60)
        sandbox.ploomes.set_faults(
            parse("drop=30%,drop_before=20%,429=10%,503=10%,500=10%,short_pages=50%", ["ploomes"])["ploomes"]
        )
        for row in clients:
            deliver_one(ploomes, as_contact(row))
        held = [row["Register"] for row in sandbox.ploomes.contacts.values()]
    assert len(held) == len(set(held)) == 65


def deliver_one(sink: Sink, change: Change) -> None:
    """As the hub does: what is in doubt is asked for before it is sent again."""
    for _ in range(100):
        (answer,) = sink.write([change])
        if isinstance(answer, Verdict):
            assert answer.outcome is Outcome.DELIVERED
            return
        if isinstance(answer, InDoubt):
            (probe,) = sink.find([change])
            while isinstance(probe, Passing):
                (probe,) = sink.find([change])
            if isinstance(probe, Found):
                return
    raise AssertionError("it never passed")
