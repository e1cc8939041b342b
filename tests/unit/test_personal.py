"""Personal fields: what Google documents of each, with its own examples, and nothing of a person in an error."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import personal
from shared.errors import MALFORMED_PERSONAL, RecordError
from shared.personal import (
    cm360_identifier,
    data_manager_identifier,
    ga4_user_data,
    google_ads_identifier,
    hashed_email,
    hashed_name,
    hashed_phone,
    in_base64,
    is_hash,
    sha256,
)

Normal = Callable[..., str]
HASH = hashlib.sha256(b"x").hexdigest()
ANY_TEXT = st.text(max_size=40)
USER = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=10)


@pytest.mark.parametrize(
    ("given_", "normal"),
    [
        ("  Ana.Maria@Example.COM ", "ana.maria@example.com"),
        ("cloudy.sanfrancisco+shopping@gmail.com", "cloudysanfrancisco@gmail.com"),
        ("Jane.Doe+shopping@Gmail.com", "janedoe@gmail.com"),
        ("j.d@googlemail.com", "jd@googlemail.com"),
        ("user.name+NYC@Example.com", "user.name+nyc@example.com"),
        ("a b@x.com", "ab@x.com"),
        ("a.b@mail.gmail.com", "a.b@mail.gmail.com"),
    ],
)
def test_an_address_is_normalised_by_the_rule_of_its_domain(given_: str, normal: str) -> None:
    assert personal.email(given_, "email") == normal
    assert hashed_email(given_, "email") == hashlib.sha256(normal.encode()).hexdigest()


@pytest.mark.parametrize(
    ("given_", "region", "normal"),
    [
        ("(800)555-0100", "US", "+18005550100"),
        ("+55 11 98765-4321", "", "+5511987654321"),
        ("(11) 98765-4321", "br", "+5511987654321"),
        ("+44 20 7031 3000", "BR", "+442070313000"),
        (11987654321, "BR", "+5511987654321"),
    ],
)
def test_a_phone_number_is_in_e164(given_: Any, region: str, normal: str) -> None:
    assert personal.phone(given_, "phone", region) == normal
    assert hashed_phone(given_, "phone", region) == sha256(normal)


@pytest.mark.parametrize(
    ("make", "given_", "normal"),
    [
        (personal.name, "  Ana  MARIA ", "ana maria"),
        (personal.name, "O'Connor-Smith", "o'connor-smith"),
        (personal.given_name, "Mrs. Ana", "ana"),
        (personal.given_name, "D'Arc", "darc"),
        (personal.family_name, "Silva, Jr.", "silva"),
        (personal.family_name, "Davis III", "davis"),
        (personal.letters, "João 2!", "joão"),
        (personal.letters, "San Francisco 94", "san francisco"),
        (personal.words, "Av. Paulista, 1.578", "av paulista 1578"),
        (personal.country, " br ", "BR"),
        (personal.plain, " São  Paulo ", "São Paulo"),
        (personal.postal_code, " 01310-100 ", "01310-100"),
        (personal.postal_code, 94043, "94043"),
    ],
)
def test_names_and_places_are_normalised_as_each_product_says(make: Normal, given_: Any, normal: str) -> None:
    assert make(given_, "field") == normal


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        *((personal.email, each) for each in ("ana", "a@b", "@x.com", "a@x..com", "a@@x.com", "+a@gmail.com")),
        *((personal.email, each) for each in ("", " ", 7, None, "a\x00@x.com", "\ud800@x.com", "a" * 320 + "@x.com")),
        *((personal.phone, each) for each in ("123", "11 98765-4321", "ana", None, "+999 1234567", True, 1.5)),
        *((personal.name, each) for each in ("", None, 7, [])),
        (personal.given_name, "'"),
        (personal.family_name, "-"),
        (personal.letters, "123"),
        (personal.words, "!?"),
        (personal.plain, "ana@x.com"),
        *((personal.country, each) for each in ("BRA", "B", "55", "Brasil", "")),
        *((personal.postal_code, each) for each in ("", "-", "x" * 17, "01310;100", None)),
    ],
)  # fmt: skip
def test_malformed_input_is_refused_by_its_field_and_never_quoted(make: Normal, wrong: Any) -> None:
    with pytest.raises(RecordError) as caught:
        make(wrong, "some.field")
    assert (caught.value.field, caught.value.number) == ("some.field", MALFORMED_PERSONAL)
    assert not str(wrong).strip() or len(str(wrong)) < 4 or str(wrong) not in str(caught.value)


@pytest.mark.parametrize("code", ["94043", "94043-1351", "940431351"])
def test_a_postal_code_of_the_united_states_has_five_digits_or_nine(code: str) -> None:
    assert personal.postal_code(code, "zip", "us") == code
    for wrong in (code[:-1], code + "1", "A" + code[1:]):
        with pytest.raises(RecordError):
            personal.postal_code(wrong, "zip", "US")


@pytest.mark.parametrize("make", [hashed_email, hashed_phone, hashed_name])
def test_what_is_hashed_already_is_kept_in_lower_case(make: Normal) -> None:
    assert make(HASH.upper(), "f") == make(f" {HASH} ", "f") == HASH
    assert is_hash(HASH) and not is_hash(HASH[:-1]) and not is_hash(HASH + "0") and not is_hash("g" + HASH[1:])


def test_a_hash_goes_into_base64_by_its_bytes() -> None:
    assert in_base64(sha256("")) == "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="


@given(ANY_TEXT)
def test_whatever_comes_is_either_refused_or_normal_and_stays_so(text: str) -> None:
    for make in (
        personal.email,
        personal.phone,
        personal.name,
        personal.given_name,
        personal.family_name,
        personal.letters,
        personal.words,
        personal.plain,
        personal.country,
        personal.postal_code,
    ):
        try:
            normal = make(text, "field", "BR")
        except RecordError as error:
            assert (error.field, error.number) == ("field", MALFORMED_PERSONAL)
            continue
        assert normal == normal.strip()
        if make not in (personal.given_name, personal.family_name):
            assert make(normal, "field", "BR") == normal


@given(USER, USER, st.sampled_from(["gmail.com", "googlemail.com"]), st.integers(0, 9))
def test_dots_case_blanks_and_tags_make_no_other_hash_of_a_gmail_address(
    user: str, tag: str, domain: str, place: int
) -> None:
    dotted = f"{user[:place]}.{user[place:]}"
    written = (f"{dotted}@{domain}", f" {user.upper()}@{domain.upper()}\n", f"{user}+{tag}.x@{domain}")
    assert {hashed_email(each, "f") for each in written} == {sha256(f"{user}@{domain}")}


@given(USER, USER)
def test_other_domains_keep_their_tags(user: str, tag: str) -> None:
    assert hashed_email(f"{user}+{tag}@x.com", "f") != hashed_email(f"{user}@x.com", "f")


@given(st.one_of(USER.map(lambda user: f"{user}@x.com"), st.binary(max_size=8).map(lambda b: sha256(b.hex()))))
def test_a_hash_is_64_lower_case_digits_and_hashing_it_again_changes_nothing(text: str) -> None:
    once = hashed_email(text, "f")
    assert len(once) == 64 and once == once.lower() and hashed_email(once, "f") == once


def test_an_identifier_of_data_manager() -> None:
    assert data_manager_identifier({"email_address": "A@x.com"}) == {"email_address": sha256("a@x.com")}
    assert data_manager_identifier({"phone_number": "(11) 98765-4321"}, "BR") == {
        "phone_number": sha256("+5511987654321")
    }
    address = {"given_name": "Ms Ana", "family_name": "O'Hara Jr.", "region_code": "br", "postal_code": "01310-100"}
    assert data_manager_identifier({"address": address | {"address_line": "R. X, 1", "city": "São Paulo"}}) == {
        "address": {
            "given_name": sha256("ana"),
            "family_name": sha256("ohara"),
            "region_code": "BR",
            "postal_code": "01310-100",
            "address_line": sha256("r x 1"),
            "city": "são paulo",
        }
    }


def test_an_identifier_of_google_ads_and_of_cm360() -> None:
    address = {
        "hashed_first_name": "Ana",
        "hashed_last_name": "O'Hara",
        "hashed_street_address": "R. X, 1",
        "city": "Recife",
        "country_code": "br",
        "postal_code": 50000,
    }
    made = {
        "hashed_first_name": sha256("ana"),
        "hashed_last_name": sha256("o'hara"),
        "hashed_street_address": sha256("r. x, 1"),
        "city": "Recife",
        "country_code": "BR",
        "postal_code": "50000",
    }
    for identifier in (google_ads_identifier, cm360_identifier):
        assert identifier({"hashed_email": "A@x.com"}) == {"hashed_email": sha256("a@x.com")}
        assert identifier({"address_info": address}) == {"address_info": made}
    assert google_ads_identifier({"third_party_user_id": "u1"}) == {"third_party_user_id": "u1"}
    with pytest.raises(RecordError):
        cm360_identifier({"third_party_user_id": "u1"})


def test_user_data_of_ga4_takes_one_or_several() -> None:
    mails = ["A.b@gmail.com", HASH.upper()]
    address = {"sha256_first_name": "Ana 2", "sha256_street": "R. X, 1", "city": "Recife", "country": "br"}
    assert ga4_user_data({"sha256_email_address": mails, "address": address}) == {
        "sha256_email_address": [sha256("ab@gmail.com"), HASH],
        "address": {
            "sha256_first_name": sha256("ana"),
            "sha256_street": sha256("r x 1"),
            "city": "recife",
            "country": "BR",
        },
    }


@pytest.mark.parametrize(
    ("make", "wrong", "field"),
    [
        (data_manager_identifier, {"email": "a@x.com"}, "user_data.email"),
        (data_manager_identifier, {"address": "here"}, "user_data.address"),
        (data_manager_identifier, {"address": {"given_name": "Ana"}}, "user_data.address"),
        (google_ads_identifier, {"address_info": {"name": "Ana"}}, "user_identifiers.address_info"),
        (cm360_identifier, {"address_info": {"name": "Ana"}}, "user_identifiers.address_info.name"),
        (ga4_user_data, {"sha256_email_address": ["a@x.com", "ana"]}, "user_data.sha256_email_address"),
        (ga4_user_data, {"address": [{"first_name": "Ana"}]}, "user_data.address.first_name"),
        (google_ads_identifier, {"third_party_user_id": "ana@x.com"}, "user_identifiers.third_party_user_id"),
    ],
)
def test_what_an_api_does_not_take_is_refused_by_its_place(make: Callable[..., Any], wrong: Any, field: str) -> None:
    with pytest.raises(RecordError) as caught:
        make(wrong)
    assert (caught.value.field, caught.value.number) == (field, MALFORMED_PERSONAL)
    assert "ana" not in str(caught.value).lower()
