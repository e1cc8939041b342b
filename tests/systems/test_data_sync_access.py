"""Who may call a data sync, and that nobody learns from the answer, or from the work for it, what was wrong."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shared.tokens
from infra.data_sync.access import credentials
from infra.tokens import listing, revoke
from tests.systems.data_sync_desk import NAME, Desk, header, make_hub


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    hub = make_hub(tmp_path)
    yield Desk(hub)
    hub.close()


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def test_a_sync_without_any_token_is_open_and_one_with_a_token_is_not(desk: Desk) -> None:
    assert desk.get("customers").status_code == 200
    token = desk.token("customers")
    assert desk.get("customers").status_code == 403
    assert desk.get("customers", **header("api", token)).status_code == 200
    assert desk.get("open_import").status_code == 200


def test_several_tokens_are_valid_at_once_and_one_is_revoked_without_the_others(desk: Desk) -> None:
    first, second = desk.token("customers"), desk.token("customers")
    assert [desk.get("customers", **header("api", each)).status_code for each in (first, second)] == [200, 200]
    revoke(desk.hub, "customers", listing(desk.hub, "customers")["tokens"][0]["id"])
    assert [desk.get("customers", **header("api", each)).status_code for each in (first, second)] == [403, 200]
    revoke(desk.hub, "customers", listing(desk.hub, "customers")["tokens"][1]["id"])
    assert desk.get("customers", **header("api", second)).status_code == 403
    assert desk.get("customers").status_code == 403, "a sync whose tokens were all revoked is not open"


CALLS = (
    ("GET", "customers"), ("GET", "customers/latest-launches"), ("GET", "customers/17/download"),
    ("GET", "customers/17/result"), ("GET", "customers/17"), ("DELETE", "customers/17"), ("POST", "import/customers"),
    ("HEAD", "customers"),
)  # fmt: skip


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_every_call_asks_for_the_token(desk: Desk, method: str, path: str) -> None:
    token = desk.token("customers")
    assert desk.call(method, path).status_code == 403
    assert desk.call(method, path, **header("api", token)).status_code != 403


def test_a_sync_that_asks_for_no_token_lets_everybody_in(desk: Desk) -> None:
    desk.token("open_import")
    for headers in ({}, header("api", "wrong"), {"Authorization": "nonsense"}):
        assert desk.get("open_import", **headers).status_code == 200


def test_whatever_is_wrong_the_answer_and_the_work_are_the_same(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    revoked, valid, _ = (desk.token("customers") for _ in range(3))
    revoke(desk.hub, "customers", listing(desk.hub, "customers")["tokens"][0]["id"])
    other = desk.token("leavers")
    work: list[str] = []
    digest_of, tokens_of = shared.tokens.digest_of, desk.home.tokens.of

    def counted_digest(text: str, salt: bytes) -> bytes:
        work.append("digest")
        return digest_of(text, salt)

    def counted_tokens(integration: str, stream: str) -> object:
        work.append(f"{integration}.{stream}")
        return tokens_of(integration, stream)

    monkeypatch.setattr(shared.tokens, "digest_of", counted_digest)
    monkeypatch.setattr(desk.home.tokens, "of", counted_tokens)
    wrong = {
        "missing": None,
        "empty": "",
        "no scheme": "nonsense",
        "another scheme": f"Bearer {valid}",
        "no base64": "Basic !!!",
        "no colon": basic(valid),
        "not UTF-8": "Basic " + base64.b64encode(b"api:\xff\xfe").decode(),
        "no user": basic(f":{valid}"),
        "another user": basic(f"API:{valid}"),
        "no password": basic("api:"),
        "wrong": basic(f"api:{valid[:-1]}{'A' if valid[-1] != 'A' else 'B'}"),
        "longer": basic(f"api:{valid}x"),
        "of nobody": basic(f"api:{desk.foreign_token()}"),
        "of another sync": basic(f"api:{other}"),
        "revoked": basic(f"api:{revoked}"),
    }
    seen = {}
    for name, value in wrong.items():
        work.clear()
        answer = desk.get("customers", **({} if value is None else {"Authorization": value}))
        seen[name] = (answer.status_code, answer.data, sorted(answer.headers), tuple(work))
        assert "WWW-Authenticate" not in answer.headers
    expected = seen["wrong"]
    assert (expected[0], expected[3]) == (403, (f"{NAME}.customers", "digest", "digest", "digest"))
    assert {name for name, each in seen.items() if each != expected} == set()
    work.clear()
    assert desk.get("customers", **header("api", valid)).status_code == 200
    assert tuple(work) == expected[3], "who may call is no sooner answered either"


def test_an_unknown_sync_is_unknown_before_anybody_is_asked_for_a_token(desk: Desk) -> None:
    token = desk.token("customers")
    for path in ("nobody", "nobody/latest-launches", "nobody/17/result"):
        assert desk.get(path).status_code == desk.get(path, **header("api", token)).status_code == 404
    assert desk.send("delete/customers").status_code == 404


def test_no_token_stands_in_a_notice(desk: Desk) -> None:
    token = desk.token("customers")
    assert desk.send("import/customers", **header("api", token)).status_code == 200
    assert desk.send("import/customers", **header("api", token + "x")).status_code == 403
    assert token not in str(desk.notices)


@given(st.text())
def test_no_header_is_more_than_a_user_and_a_password(text: str) -> None:
    assert credentials(text) == ("", "")


@given(st.text(st.characters(codec="utf-8", exclude_characters=":")), st.text(st.characters(codec="utf-8")))
def test_user_and_password_are_read_as_they_were_written(user: str, password: str) -> None:
    assert credentials(basic(f"{user}:{password}")) == (user, password)
    assert credentials(basic(f"{user}:{password}").replace("Basic ", "bAsIc   ")) == (user, password)
