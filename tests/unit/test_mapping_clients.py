"""A Milvus client as a Ploomes contact."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.milvus_to_ploomes.mapping import OPTIONS, STREAMS, contact, document_of
from shared.errors import BAD_IDENTITY, NO_IDENTITY, UNMAPPABLE, RecordError

CPF = "52998224725"
CNPJ = "16727230000197"
COMPANY: dict[str, Any] = {
    "id": 200001,
    "token": "ABCDEF",
    "cnpj_cpf": CNPJ,
    "nome_fantasia": " Alfa \n Comércio ",
    "razao_social": "Alfa Comércio Ltda",
    "site": "https://alfa.example",
    "observacao": "Cliente antigo\nligar antes",
    "is_fisica": False,
    "is_ativo": True,
    "data_nascimento": None,
    "equipes": [],
}
PERSON: dict[str, Any] = {
    "cnpj_cpf": CPF,
    "nome_fantasia": "Maria Souza",
    "razao_social": None,
    "data_nascimento": "1990-02-28",
    "is_ativo": True,
}
ADDRESS: dict[str, Any] = {
    "endereco_padrao": True,
    "endereco_descricao": "Principal",
    "endereco_cep": "01310-100",
    "endereco_logradouro": "Avenida Paulista",
    "endereco_numero": "1000",
    "endereco_complemento": "cj. 12",
    "endereco_bairro": "Bela Vista",
    "endereco_cidade": "São Paulo",
    "endereco_estado": "sp",
}


def refusal_of(client: dict[str, Any]) -> tuple[int, str]:
    with pytest.raises(RecordError) as caught:
        contact(client)
    return caught.value.number, caught.value.field


def test_a_company() -> None:
    assert contact(COMPANY) == {
        "Name": "Alfa Comércio",
        "LegalName": "Alfa Comércio Ltda",
        "Register": CNPJ,
        "TypeId": 1,
        "Website": "https://alfa.example",
        "Note": "Cliente antigo\nligar antes",
    }


def test_a_person_with_nothing_but_a_name_overwrites_nothing() -> None:
    assert contact(PERSON) == {"Name": "Maria Souza", "Register": CPF, "TypeId": 2, "Birthday": "1990-02-28"}


@pytest.mark.parametrize("name", [None, "", "  "])
def test_a_name_may_read_back_in_either_field(name: Any) -> None:
    assert contact(PERSON | {"nome_fantasia": name, "razao_social": "Maria"})["Name"] == "Maria"
    assert "LegalName" not in contact(PERSON | {"razao_social": "Maria"})
    assert contact(COMPANY | {"nome_fantasia": name})["Name"] == "Alfa Comércio Ltda"
    assert "LegalName" not in contact(COMPANY | {"razao_social": name})


def test_the_length_of_the_document_says_what_the_contact_is() -> None:
    assert contact(COMPANY | {"is_fisica": True})["TypeId"] == 1
    assert contact(PERSON | {"is_fisica": False})["TypeId"] == 2
    assert contact(COMPANY | {"cnpj_cpf": "12.abc.345/01de-35"})["Register"] == "12ABC34501DE35"


@pytest.mark.parametrize("day", ["1990-02-28 00:00:00", " 1990-02-28 ", "1990-02-28T00:00:00-03:00"])
def test_a_birthday_is_a_day(day: str) -> None:
    assert contact(PERSON | {"data_nascimento": day})["Birthday"] == "1990-02-28"


def test_an_address_is_taken_where_there_is_one() -> None:
    other = ADDRESS | {"endereco_padrao": False, "endereco_bairro": "Centro"}
    found = contact(COMPANY | {"cliente_enderecos": [other, ADDRESS]})
    assert found == contact(COMPANY) | {
        "StreetAddress": "Avenida Paulista",
        "StreetAddressNumber": "1000",
        "StreetAddressLine2": "cj. 12",
        "Neighborhood": "Bela Vista",
        "ZipCode": "01310100",
        "City": {"Name": "São Paulo", "State": "SP"},
    }
    assert contact(COMPANY | {"cliente_enderecos": [other, other]})["Neighborhood"] == "Centro"


@pytest.mark.parametrize("addresses", [None, [], [{}], [dict.fromkeys(ADDRESS)], [{"endereco_estado": "SP"}]])
def test_an_address_with_nothing_in_it_is_none(addresses: Any) -> None:
    assert contact(COMPANY | {"cliente_enderecos": addresses}) == contact(COMPANY)


@pytest.mark.parametrize("state", [None, "", "NSW", "S1", "çã"])
def test_a_state_without_its_two_letters_is_left_out(state: Any) -> None:
    found = contact(COMPANY | {"cliente_enderecos": [ADDRESS | {"endereco_estado": state}]})
    assert found["City"] == {"Name": "São Paulo"}


@pytest.mark.parametrize(
    ("document", "number"),
    [
        (None, NO_IDENTITY),
        ("", NO_IDENTITY),
        (" - ", NO_IDENTITY),
        ("52998224724", BAD_IDENTITY),
        ("111.111.111-11", BAD_IDENTITY),
        ("00000000000000", BAD_IDENTITY),
        ("12ABC34501DEA5", BAD_IDENTITY),
        ("52998224725\n", BAD_IDENTITY),
        ("1" * 100, BAD_IDENTITY),
        (52998224725, BAD_IDENTITY),
        ([CPF], BAD_IDENTITY),
    ],
)
def test_a_client_without_a_valid_document_is_refused_and_not_quoted(document: Any, number: int) -> None:
    with pytest.raises(RecordError) as caught:
        document_of(PERSON | {"cnpj_cpf": document})
    assert (caught.value.number, caught.value.field) == (number, "cnpj_cpf")
    assert not document or str(document) not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"nome_fantasia": None, "razao_social": " "}, "nome_fantasia"),
        ({"nome_fantasia": 5}, "nome_fantasia"),
        ({"razao_social": ["x"]}, "razao_social"),
        ({"site": {}}, "site"),
        ({"observacao": True}, "observacao"),
        ({"data_nascimento": "soon"}, "data_nascimento"),
        ({"data_nascimento": "1990-02-30"}, "data_nascimento"),
        ({"cliente_enderecos": "x"}, "cliente_enderecos"),
        ({"cliente_enderecos": ["x"]}, "cliente_enderecos"),
        ({"cliente_enderecos": [ADDRESS | {"endereco_cep": "1310100"}]}, "endereco_cep"),
        ({"cliente_enderecos": [ADDRESS | {"endereco_cep": "SW1A 1AA"}]}, "endereco_cep"),
        ({"cliente_enderecos": [ADDRESS | {"endereco_cep": "0131010X"}]}, "endereco_cep"),
        ({"cliente_enderecos": [ADDRESS | {"endereco_cep": 1310100}]}, "endereco_cep"),
        ({"cliente_enderecos": [ADDRESS | {"endereco_cidade": 5}]}, "endereco_cidade"),
    ],
)
def test_what_cannot_be_mapped_names_its_field(fields: dict[str, Any], place: str) -> None:
    assert refusal_of(COMPANY | fields) == (UNMAPPABLE, place)


def names_of_filters(options: dict[str, Any], client: dict[str, Any]) -> list[str]:
    return [name for name, holds in STREAMS["customers"](options).filters if holds(client)]


def test_inactive_clients_stay_home_unless_they_are_wanted() -> None:
    blocked = COMPANY | {"is_ativo": False}
    assert names_of_filters({}, blocked) == ["inactive"]
    assert names_of_filters({"inactive": False}, blocked) == ["inactive"]
    assert names_of_filters({"inactive": True}, blocked) == []
    assert names_of_filters({}, COMPANY) == []
    assert names_of_filters({}, {}) == []


def test_the_stream_knows_its_two_ends() -> None:
    rules = STREAMS["customers"]({})
    assert (rules.read, rules.write) == ("clients", "contacts")
    assert rules.polled
    assert rules.two_way
    assert rules.identify(COMPANY) == CNPJ
    assert rules.to_target(COMPANY) == contact(COMPANY)
    assert set(OPTIONS) == {"customers"}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from([*COMPANY, "cliente_enderecos"])
ODD_ADDRESSES = st.lists(st.dictionaries(st.sampled_from(list(ADDRESS)), ANYTHING, max_size=9), max_size=3)


@settings(deadline=None)
@given(st.dictionaries(FIELDS, ANYTHING, max_size=12), ODD_ADDRESSES)
def test_nothing_but_a_content_or_a_record_error_ever_comes_out(
    odd: dict[str, Any], addresses: list[dict[str, Any]]
) -> None:
    for client in (odd, COMPANY | odd, odd | PERSON, COMPANY | {"cliente_enderecos": addresses}):
        for _, holds in STREAMS["customers"]({}).filters:
            assert holds(client) in (True, False)
        try:
            content = contact(client)
        except RecordError as error:
            assert error.field
            assert error.number
            continue
        assert content["Name"]
        assert content["Register"] == document_of(client)
        city = content.get("City", {})
        assert set(city) <= {"Name", "State"}
        assert all(isinstance(value, str | int) for name, value in content.items() if name != "City")
        assert "ZipCode" not in content or len(content["ZipCode"]) == 8


@settings(deadline=None)
@given(st.dictionaries(FIELDS, st.none() | st.just("") | st.just("  "), max_size=12))
def test_what_is_empty_is_never_sent(empty: dict[str, Any]) -> None:
    client = {**COMPANY, **empty, "nome_fantasia": "A", "cnpj_cpf": CNPJ, "cliente_enderecos": []}
    for field, value in contact(client).items():
        assert value not in ("", None, [], {}), field


def test_a_content_travels_as_json() -> None:
    content = contact(COMPANY | {"cliente_enderecos": [ADDRESS]})
    assert msgspec.json.decode(msgspec.json.encode(content)) == content
