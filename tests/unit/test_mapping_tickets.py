"""What a task or an interaction is as a ticket: who travels, under which marker, and at which local time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.ploomes_to_milvus.mapping import (
    INTERACTION,
    STREAMS,
    SUBJECT_LENGTH,
    TASK,
    Kind,
    ticket,
    tickets,
)
from shared.errors import BAD_IDENTITY, NO_IDENTITY, ConfigError, RecordError
from shared.outcome import Outcome
from shared.rules import Rules

INSTALL, DELIVER = 40012345, 40012346
TAGS = {INSTALL: "INSTALAÇÃO", DELIVER: "ENTREGA"}
CNPJ = "11222333000181"
CONTACT = {
    "Id": 7,
    "Name": "Padaria  Sol",
    "Register": "11.222.333/0001-81",
    "Email": "sol@example.com",
    "Phones": [{"PhoneNumber": "(11) 3322-1100"}, {"PhoneNumber": "+55 11 98765-4321"}],
}
DATA = {
    "Id": 123,
    "Title": "Instalar o relógio",
    "Description": "Na entrada.\nLevar escada.",
    "DateTime": "2024-03-01T10:00:00.5-03:00",
    "ContactId": 7,
    "Contact": CONTACT,
    "Tags": [{"Id": 1, "TagId": 5}, {"Id": 2, "TagId": INSTALL}],
    "CreateDate": "2024-02-29T23:59:00-03:00",
    "LastUpdateDate": "2024-02-29T23:59:30.12-03:00",
}
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)


def rules(kind: Kind = TASK, **options: Any) -> Rules:
    return tickets(kind, {"tags": TAGS} | options)


def ruled_out(made: Rules, data: dict[str, Any], come_to: datetime = NOON) -> str | None:
    assert made.dated_filters is not None
    every = [*made.filters, *made.dated_filters(come_to)]
    return next((name for name, holds in every if holds(data)), None)


def described(data: dict[str, Any], kind: Kind = TASK, **options: Any) -> list[str]:
    text: str = rules(kind, **options).to_target(data)["ticket"]["chamado_descricao"]
    return text.split("\n")


def test_a_task_as_a_ticket() -> None:
    assert rules().to_target(DATA) == {
        "marker": "[Ploomes T123]",
        "customer": CNPJ,
        "contact": 7,
        "ticket": {
            "chamado_assunto": "[Ploomes T123] Instalar o relógio",
            "chamado_descricao": "Na entrada.\nLevar escada.\nTarefa 123 do Ploomes\nData: 2024-03-01 10:00:00",
            "chamado_email": "sol@example.com",
            "chamado_telefone": "11987654321",
            "chamado_contato": "Padaria Sol",
            "chamado_categoria_primaria": "INSTALAÇÃO",
            "chamado_tecnico": "",
            "chamado_mesa": "",
            "chamado_setor": "",
            "chamado_categoria_secundaria": "",
        },
    }


def test_an_interaction_has_no_title_and_another_marker() -> None:
    data = DATA | {"Content": "Ligou   hoje.\nQuer a entrega.", "Date": "2024-03-02", "Title": "unread"}
    content = rules(INTERACTION).to_target(data)
    assert content["marker"] == "[Ploomes I123]"
    assert content["ticket"]["chamado_assunto"] == "[Ploomes I123] Ligou hoje. Quer a entrega."
    assert content["ticket"]["chamado_descricao"].endswith("Interação 123 do Ploomes\nData: 2024-03-02")


def test_a_subject_of_any_length_begins_with_its_marker_and_none_is_part_of_another() -> None:
    subject = rules().to_target(DATA | {"Title": "x" * 999})["ticket"]["chamado_assunto"]
    assert (len(subject), subject[:15]) == (SUBJECT_LENGTH, "[Ploomes T123] ")
    assert rules().to_target(DATA | {"Id": 12})["marker"] not in subject
    assert (
        rules().to_target(DATA | {"Title": None, "Description": None})["ticket"]["chamado_assunto"].endswith("Tarefa")
    )


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({}, None),
        ({"Tags": []}, "untagged"),
        ({"Tags": None}, "untagged"),
        ({"Tags": [{"TagId": 5}]}, "untagged"),
        ({"Tags": [{"TagId": str(INSTALL)}]}, "untagged"),
        ({"ContactId": None}, "without_client"),
        ({"Contact": None}, "without_client"),
        ({"CreateDate": "2024-03-01T08:50:00-03:00"}, None),
        ({"CreateDate": "2024-03-01T08:49:59.9-03:00"}, "max_age"),
    ],
)
def test_who_does_not_travel(changes: dict[str, Any], rule: str | None) -> None:
    fresh = DATA | {"CreateDate": "2024-03-01T09:00:00-03:00"}
    assert ruled_out(rules(), fresh | changes) == rule
    assert ruled_out(rules(max_age=None), fresh | changes) == (rule if rule != "max_age" else None)


def test_the_age_counts_from_where_the_stream_had_come_to_and_not_from_now() -> None:
    created = datetime.fromisoformat(DATA["CreateDate"])  # type: ignore[arg-type]
    made = rules(max_age=timedelta(hours=1))
    assert ruled_out(made, DATA, created + timedelta(hours=1)) is None
    assert ruled_out(made, DATA, created + timedelta(hours=1, seconds=1)) == "max_age"
    assert ruled_out(made, DATA, created - timedelta(days=9)) is None


@pytest.mark.parametrize(("order", "category"), [((INSTALL, DELIVER), "INSTALAÇÃO"), ((DELIVER, INSTALL), "ENTREGA")])
def test_of_two_tags_the_first_in_the_map_decides(order: tuple[int, int], category: str) -> None:
    data = DATA | {"Tags": [{"TagId": DELIVER}, {"TagId": INSTALL}]}
    content = rules(tags={each: TAGS[each] for each in order}).to_target(data)
    assert content["ticket"]["chamado_categoria_primaria"] == category


@pytest.mark.parametrize(
    ("instant", "zone", "local"),
    [
        ("2024-03-01T00:00:00-03:00", "America/Sao_Paulo", "2024-03-01 00:00:00"),
        ("2024-02-29T23:59:59.999-03:00", "America/Sao_Paulo", "2024-02-29 23:59:59"),
        ("2024-03-01T00:30:00-03:00", "America/Manaus", "2024-02-29 23:30:00"),
        ("2024-02-29T23:30:00-03:00", "America/Noronha", "2024-03-01 00:30:00"),
        ("2024-03-01T02:59:59Z", "America/Sao_Paulo", "2024-02-29 23:59:59"),
        ("2024-03-10T01:59:59-05:00", "America/New_York", "2024-03-10 01:59:59"),
        ("2024-03-10T02:00:00-05:00", "America/New_York", "2024-03-10 03:00:00"),
        ("2024-11-03T01:30:00-04:00", "America/New_York", "2024-11-03 01:30:00"),
        ("2024-11-03T01:30:00-05:00", "America/New_York", "2024-11-03 01:30:00"),
        ("2024-11-03T02:00:00-04:00", "America/New_York", "2024-11-03 01:00:00"),
        # Brazil's own daylight time ended in February 2019.
        ("2019-02-16T23:30:00-02:00", "America/Sao_Paulo", "2019-02-16 23:30:00"),
        ("2019-02-17T00:30:00-02:00", "America/Sao_Paulo", "2019-02-16 23:30:00"),
    ],
)
def test_an_instant_is_given_in_the_help_desks_own_time(instant: str, zone: str, local: str) -> None:
    assert described(DATA | {"DateTime": instant}, target_zone=ZoneInfo(zone))[-1] == f"Data: {local}"


def test_a_time_without_an_offset_is_of_the_source_zone() -> None:
    zones = {"source_zone": ZoneInfo("America/New_York"), "target_zone": ZoneInfo("America/Sao_Paulo")}
    assert described(DATA | {"DateTime": "2024-03-09T12:00:00"}, **zones)[-1] == "Data: 2024-03-09 14:00:00"
    assert described(DATA | {"DateTime": "2024-03-10T12:00:00"}, **zones)[-1] == "Data: 2024-03-10 13:00:00"


def test_a_day_without_a_time_stays_that_day_in_every_zone() -> None:
    zones = {"source_zone": ZoneInfo("Asia/Tokyo"), "target_zone": ZoneInfo("America/Manaus")}
    interaction = DATA | {"Content": "x", "Date": "2024-03-01"}
    assert described(interaction, INTERACTION, **zones)[-1] == "Data: 2024-03-01"
    assert described(DATA | {"NoTime": True})[-1] == "Data: 2024-03-01"
    assert described(DATA | {"DateTime": None})[-1] == "Tarefa 123 do Ploomes"


def test_an_edited_task_stays_by_default_and_is_followed_up_by_configuration() -> None:
    assert (rules().once, "follow_up" in rules().to_target(DATA)) == (Outcome.FILTERED, False)
    made = rules(on_edit="follow_up")
    first, second = made.to_target(DATA), made.to_target(DATA | {"LastUpdateDate": "2024-03-01T00:00:00.1-03:00"})
    assert made.once is None
    assert first["follow_up"]["marker"] == "[Ploomes T123 2024-02-29T23:59:30.12-03:00]"
    assert second["follow_up"]["text"].startswith("Alterado no Ploomes em 2024-03-01 00:00:00\nInstalar o relógio\n")
    assert first["follow_up"]["marker"] != second["follow_up"]["marker"]


def test_a_client_without_a_document_makes_the_record_invalid() -> None:
    for contact, number in (({"Id": 7, "Name": "x"}, NO_IDENTITY), (CONTACT | {"Register": "123"}, BAD_IDENTITY)):
        with pytest.raises(RecordError) as refused:
            rules().to_target(DATA | {"Contact": contact})
        assert refused.value.number == number


@pytest.mark.parametrize(("stream", "entity"), [("tasks", "12"), ("interactions", "36")])
def test_without_tags_the_error_says_how_to_list_them(stream: str, entity: str) -> None:
    make = STREAMS[stream]
    assert not isinstance(make, Rules)
    for options in ({}, {"tags": {}}):
        with pytest.raises(ConfigError, match="tags") as refused:
            make(options)
        assert f"EntityId%20eq%20{entity}" in refused.value.cure


ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.just("0001-01-01"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from([*DATA, "NoTime"]), ANYTHING)
def test_any_value_in_any_field_is_mapped_or_refused_with_a_reason(field: str, value: Any) -> None:
    made = rules(on_edit="follow_up", target_zone=ZoneInfo("Pacific/Kiritimati"))
    try:
        assert ruled_out(made, DATA | {field: value}) in (None, "untagged", "without_client", "max_age")
        key = made.identify(DATA | {field: value})
        content = made.to_target(DATA | {field: value})
    except RecordError as refused:
        assert refused.reason
    else:
        assert content["ticket"]["chamado_assunto"].startswith(f"[Ploomes T{key}]")


def test_the_ticket_never_holds_more_of_the_contact_than_it_shows() -> None:
    noted = DATA | {"Contact": CONTACT | {"Note": "private", "Birthday": "1990-01-01"}}
    zones = (ZoneInfo("UTC"), ZoneInfo("UTC"))
    assert ticket(TASK, noted, TAGS, zones, follow_up=False) == ticket(TASK, DATA, TAGS, zones, follow_up=False)
