"""A Ploomes contact as a Milvus client."""

from __future__ import annotations

from typing import Any

import pytest
from faker import Faker
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.ploomes_to_milvus.mapping import STREAMS, client, document_of
from shared.errors import BAD_IDENTITY, NO_IDENTITY, UNMAPPABLE, RecordError

CPF = "52998224725"
CNPJ = "16727230000197"
COMPANY: dict[str, Any] = {
    "Id": 401000003,
    "TypeId": 1,
    "Name": " Alfa \n Comércio ",
    "LegalName": "Alfa Comércio Ltda",
    "Register": "16.727.230/0001-97",
    "Email": "alfa@example.com",
    "Website": "https://alfa.example",
    "Note": "Cliente antigo\nligar antes",
    "ZipCode": 1310100,
    "StreetAddress": "Avenida Paulista",
    "StreetAddressNumber": "1000",
    "StreetAddressLine2": "cj. 12",
    "Neighborhood": "Bela Vista",
    "City": {"Id": 1, "Name": "São Paulo", "State": {"Id": 35, "Name": "São Paulo", "Short": "SP"}},
    "Phones": [
        {"PhoneNumber": "+55 (11) 3333-4444"},
        {"PhoneNumber": "(11) 98888-7777"},
        {"PhoneNumber": "0800 123 4567"},
        {"PhoneNumber": "11 3333 4444"},
    ],
}
PERSON = {"Id": 7, "Name": "Maria Souza", "CPF": CPF, "Birthday": "1990-02-28T00:00:00-03:00"}


def refusal_of(contact: dict[str, Any]) -> tuple[int, str]:
    with pytest.raises(RecordError) as caught:
        client(contact)
    return caught.value.number, caught.value.field


def test_a_company() -> None:
    assert client(COMPANY) == {
        "cliente_documento": CNPJ,
        "cliente_ativo": True,
        "cliente_id_integracao": 401000003,
        "cliente_pessoa_juridica": {"nome_fantasia": "Alfa Comércio", "razao_social": "Alfa Comércio Ltda"},
        "cliente_site": "https://alfa.example",
        "cliente_observacao": "Cliente antigo\nligar antes",
        "cliente_enderecos": [
            {
                "endereco_padrao": True,
                "endereco_descricao": "Principal",
                "endereco_cep": "01310100",
                "endereco_logradouro": "Avenida Paulista",
                "endereco_numero": "1000",
                "endereco_complemento": "cj. 12",
                "endereco_bairro": "Bela Vista",
                "endereco_cidade": "São Paulo",
                "endereco_estado": "SP",
            }
        ],
        "cliente_contatos": [
            {
                "contato_padrao": True,
                "contato_descricao": "Alfa Comércio",
                "contato_email": "alfa@example.com",
                "contato_telefone": "1133334444",
                "contato_celular": "11988887777",
            },
            {"contato_padrao": False, "contato_descricao": "Alfa Comércio", "contato_telefone": "08001234567"},
        ],
    }


def test_a_person_with_nothing_but_a_name_overwrites_nothing() -> None:
    assert client(PERSON) == {
        "cliente_documento": CPF,
        "cliente_ativo": True,
        "cliente_id_integracao": 7,
        "cliente_pessoa_fisica": {"nome": "Maria Souza", "data_nascimento": "1990-02-28"},
    }


@pytest.mark.parametrize(
    ("fields", "document"),
    [
        ({"Register": "529.982.247-25"}, CPF),
        ({"Register": " 529 982 247 25 "}, CPF),
        ({"Register": "", "CNPJ": CNPJ, "CPF": CPF}, CNPJ),
        ({"Register": " - ", "CNPJ": None, "CPF": CPF}, CPF),
        ({"Register": CPF, "CNPJ": CNPJ}, CPF),
        ({"CNPJ": "12.abc.345/01de-35"}, "12ABC34501DE35"),
        ({"CNPJ": "00000000000191"}, "00000000000191"),
    ],
)
def test_the_document_is_the_first_that_is_filled_in(fields: dict[str, Any], document: str) -> None:
    assert document_of(fields) == document


@pytest.mark.parametrize("fields", [{}, {"Register": None}, {"Register": "", "CNPJ": " ", "CPF": "--"}])
def test_without_a_document_there_is_no_identity(fields: dict[str, Any]) -> None:
    assert refusal_of(fields) == (NO_IDENTITY, "Register")


@pytest.mark.parametrize(
    "register",
    [
        "52998224724",
        "16727230000198",
        "123",
        "111.111.111-11",
        "00000000000",
        "00000000000000",
        "5299822472A",
        "12ABC34501DEA5",
        "52998224725\n",
        "52998224725x",
        "\u0665\u0662\u0669\u0669\u0668\u0662\u0662\u0664\u0667\u0662\u0665",
        "529–982–247–25",
        "1" * 100,
        52998224725,
        True,
        ["52998224725"],
    ],
)
def test_a_malformed_document_is_refused_and_not_quoted(register: Any) -> None:
    contact = {**COMPANY, "Register": register, "CNPJ": CNPJ}
    with pytest.raises(RecordError) as caught:
        document_of(contact)
    assert (caught.value.number, caught.value.field) == (BAD_IDENTITY, "Register")
    assert str(register) not in str(caught.value)


def test_every_document_that_is_issued_is_taken() -> None:
    fake = Faker("pt_BR")
    fake.seed_instance(4)
    for _ in range(300):
        for issued in (fake.cnpj(), fake.cnpj(use_alphanumeric=True), fake.cpf()):
            assert document_of({"Register": issued}) == issued.replace(".", "").replace("/", "").replace("-", "")


def test_the_length_of_the_document_says_what_the_client_is() -> None:
    assert "cliente_pessoa_fisica" in client({**COMPANY, "TypeId": 1, "Register": CPF})
    assert "cliente_pessoa_juridica" in client({**PERSON, "TypeId": 2, "Register": CNPJ})


def test_a_company_without_a_legal_name_has_its_name_twice() -> None:
    names = client({**COMPANY, "LegalName": None})["cliente_pessoa_juridica"]
    assert names == {"nome_fantasia": "Alfa Comércio", "razao_social": "Alfa Comércio"}
    names = client({**COMPANY, "Name": "  "})["cliente_pessoa_juridica"]
    assert names["nome_fantasia"] == "Alfa Comércio Ltda"


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"Id": None}, "Id"),
        ({"Id": "7"}, "Id"),
        ({"Id": True}, "Id"),
        ({"Name": None, "LegalName": ""}, "Name"),
        ({"Name": 5}, "Name"),
        ({"Birthday": "soon", "Register": CPF}, "Birthday"),
        ({"ZipCode": 123456789}, "ZipCode"),
        ({"ZipCode": -1}, "ZipCode"),
        ({"ZipCode": "SW1A 1AA"}, "ZipCode"),
        ({"ZipCode": 1.5}, "ZipCode"),
        ({"Email": "nobody"}, "Email"),
        ({"City": "São Paulo"}, "City"),
        ({"City": {"State": "SP"}}, "State"),
        ({"Phones": "11"}, "Phones"),
        ({"Phones": ["11"]}, "Phones"),
        ({"Phones": [{"PhoneNumber": 11}]}, "PhoneNumber"),
    ],
)
def test_what_cannot_be_mapped_names_its_field(fields: dict[str, Any], place: str) -> None:
    assert refusal_of({**COMPANY, **fields}) == (UNMAPPABLE, place)


@pytest.mark.parametrize(
    ("code", "sent"), [(1310100, "01310100"), (1, "00000001"), ("1310-100", "01310100"), ("01310100", "01310100")]
)
def test_a_postal_code_gets_its_zeros_back(code: Any, sent: str) -> None:
    assert client({**COMPANY, "ZipCode": code})["cliente_enderecos"][0]["endereco_cep"] == sent


@pytest.mark.parametrize("code", [None, 0, ""])
def test_no_postal_code_is_left_out(code: Any) -> None:
    assert "endereco_cep" not in client({**COMPANY, "ZipCode": code})["cliente_enderecos"][0]


@pytest.mark.parametrize("short", [None, "", "NSW", "S1", "çã"])
def test_a_state_without_its_two_letters_is_left_out(short: Any) -> None:
    city = {"Name": "Sydney", "State": {"Short": short}}
    address = client({**COMPANY, "City": city})["cliente_enderecos"][0]
    assert "endereco_estado" not in address
    assert address["endereco_cidade"] == "Sydney"


def test_the_stream_knows_its_two_ends() -> None:
    rules = STREAMS["customers"]
    assert (rules.read, rules.write, list(rules.filters)) == ("Contacts", "clients", [])
    assert rules.identify(COMPANY) == CNPJ
    assert rules.to_target(COMPANY) == client(COMPANY)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from([*COMPANY, "CNPJ", "CPF", "Birthday", "PhoneNumber", "Short", "State"])


@settings(deadline=None)
@given(st.dictionaries(FIELDS, ANYTHING, max_size=12))
def test_nothing_but_a_record_error_ever_comes_out(odd: dict[str, Any]) -> None:
    for contact in (odd, {**COMPANY, **odd}, {**odd, **PERSON}):
        for rule in (document_of, client):
            try:
                rule(contact)
            except RecordError as error:
                assert error.field
                assert error.number


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(list(COMPANY)), st.none() | st.just("") | st.just("  "), max_size=12))
def test_what_is_empty_is_never_sent(empty: dict[str, Any]) -> None:
    contact = {**COMPANY, **empty, "Id": 1, "Name": "A", "Register": CNPJ, "City": None, "Phones": [], "ZipCode": None}
    for field, value in client(contact).items():
        assert value not in ("", None, [], {}), field
