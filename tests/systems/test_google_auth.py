"""Who calls Google's APIs: a token that was handed in, or one of the default credentials, renewed and never shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from infra.google_api import GoogleApi, camel, fault_of, unhashed
from infra.google_auth import TokenRefused
from infra.http import Answer
from shared.errors import UNREACHABLE, AuthError, TransientError
from tests.loopback import Loopback, Reply, Request, refused_port, reply
from tests.systems.google_script import connection_to, failure, hashed

SCOPE = "https://www.googleapis.com/auth/datamanager"


class Google:
    """A token server and an API behind it, which takes the tokens of `good`."""

    def __init__(self) -> None:
        self.given = 0
        self.good: set[str] = set()
        self.life: Any = 3600
        self.token_answer: Reply | None = None
        self.asked: list[str] = []
        self.projects: list[str] = []

    def __call__(self, request: Request) -> Reply:
        if request.target == "/token":
            self.given += 1
            self.good.add(f"Bearer t0k3n-{self.given}")
            body = {"access_token": f"t0k3n-{self.given}", "expires_in": self.life, "token_type": "Bearer"}
            return self.token_answer or reply(200, json.dumps(body).encode(), {"Content-Type": "application/json"})
        self.asked.append(request.headers["authorization"])
        self.projects.append(request.headers.get("x-goog-user-project", ""))
        if request.headers["authorization"] not in self.good:
            return failure(401, kind="UNAUTHENTICATED")
        return reply(200, b"{}")


@pytest.fixture(scope="module")
def key() -> str:
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.private_bytes(*form).decode()


@pytest.fixture
def google() -> Iterator[tuple[Google, str]]:
    world = Google()
    with Loopback(world) as server:
        yield world, server.url


@pytest.fixture
def account(key: str, tmp_path: Path, google: tuple[Google, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Default credentials of a service account whose tokens come from `google`."""
    path = tmp_path / "account.json"
    account = {
        "type": "service_account",
        "project_id": "demo",
        "private_key_id": "1",
        "private_key": key,
        "client_email": "waybill@demo.iam.gserviceaccount.com",
        "token_uri": f"{google[1]}/token",
        "universe_domain": "googleapis.com",
    }
    path.write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    return path


def api_at(url: str, token: str = "") -> GoogleApi:
    return GoogleApi(connection_to(url, {"GOOGLE_OAUTH_ACCESS_TOKEN": token} if token else {}, {}), SCOPE)


def ask(api: GoogleApi) -> int:
    return api.request("POST", "/v1/events:ingest", json={}, repeatable=False).status


def test_the_default_credentials_get_a_token_once(google: tuple[Google, str], account: Path) -> None:
    world, url = google
    api = api_at(url)
    assert [ask(api), ask(api)] == [200, 200]
    assert (world.given, world.asked) == (1, ["Bearer t0k3n-1"] * 2)
    api.close()


def test_the_project_that_pays_is_named_where_the_credentials_know_one(
    google: tuple[Google, str], account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_QUOTA_PROJECT", "payer")
    world, url = google
    api = api_at(url)
    assert ask(api) == 200
    assert world.projects == ["payer"]
    api.close()


def test_a_token_is_fetched_anew_before_its_end(google: tuple[Google, str], account: Path) -> None:
    world, url = google
    world.life = 60
    api = api_at(url)
    assert [ask(api), ask(api)] == [200, 200]
    assert world.asked == ["Bearer t0k3n-1", "Bearer t0k3n-2"]
    api.close()


def test_a_token_that_was_revoked_is_fetched_anew_and_the_call_goes_once_more(
    google: tuple[Google, str], account: Path
) -> None:
    world, url = google
    api = api_at(url)
    ask(api)
    world.good.clear()
    assert ask(api) == 200
    assert world.asked == ["Bearer t0k3n-1", "Bearer t0k3n-1", "Bearer t0k3n-2"]
    api.close()


def test_a_token_that_was_handed_in_is_used_as_it_is_and_asks_nobody(google: tuple[Google, str], account: Path) -> None:
    world, url = google
    world.good = {"Bearer handed-in"}
    api = api_at(url, "handed-in")
    assert ask(api) == 200
    world.good.clear()
    with pytest.raises(TokenRefused) as caught:
        ask(api)
    assert "handed-in" not in str(caught.value) and "GOOGLE_OAUTH_ACCESS_TOKEN" in caught.value.cure
    assert (world.given, world.asked) == (0, ["Bearer handed-in"] * 2)
    api.close()


def test_without_credentials_it_is_said_what_to_do(
    google: tuple[Google, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nothing.json"))
    api = api_at(google[1])
    with pytest.raises(AuthError, match="no default credentials") as caught:
        ask(api)
    assert "GOOGLE_OAUTH_ACCESS_TOKEN" in caught.value.cure and str(tmp_path) not in str(caught.value)
    api.close()


def test_refused_credentials_stop_the_stream_and_a_silent_token_server_does_not(
    google: tuple[Google, str], account: Path
) -> None:
    world, url = google
    world.token_answer = reply(400, b'{"error": "invalid_grant", "error_description": "s3cr3t"}')
    api = api_at(url)
    with pytest.raises(AuthError) as caught:
        ask(api)
    assert "s3cr3t" not in str(caught.value)
    api.close()
    given = json.loads(account.read_text()) | {"token_uri": f"http://localhost:{refused_port()}/token"}
    account.write_text(json.dumps(given))
    api = api_at(url)
    with pytest.raises(TransientError) as lost:
        ask(api)
    assert lost.value.number == UNREACHABLE
    assert world.asked == []
    api.close()


# What errors say


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "HTTP 400"),
        (b"<html>", "HTTP 400"),
        (b"[]", "HTTP 400"),
        (b'{"error": "x"}', "HTTP 400"),
        (b'{"error": {"status": "NOT_FOUND", "message": "a@b.cn"}}', "NOT_FOUND"),
        (b'{"error": {"status": "FAILED", "details": [{"reason": "A_REASON"}, 7]}}', "FAILED, A_REASON"),
        (b'{"error": {"errors": [{"reason": "invalidParameter"}, {"reason": "of a person"}]}}', "invalidParameter"),
        (
            b'{"error": {"details": [{"errors": [{"errorCode": {"quotaError": "RESOURCE_EXHAUSTED"}}]}]}}',
            "RESOURCE_EXHAUSTED",
        ),
    ],
)
def test_an_error_is_named_by_its_codes_and_never_by_its_message(body: bytes, said: str) -> None:
    assert str(fault_of(Answer(400, body))) == said


def test_names_of_fields_are_those_of_json_however_they_were_written() -> None:
    given = {"user_data": [{"email_address": "a_b"}], "alreadyThere": 1, "v1_x": None}
    assert camel(given) == {"userData": [{"emailAddress": "a_b"}], "alreadyThere": 1, "v1X": None}


@pytest.mark.parametrize(
    ("identifier", "path"),
    [
        ({"hashedEmail": hashed("a"), "hashedPhoneNumber": None}, ""),
        ({"hashedEmail": hashed("a").upper()}, ""),
        ({"hashedEmail": "a@b.cn"}, "[1].hashedEmail"),
        ({"emailAddress": 7}, "[1].emailAddress"),
        ({"phoneNumber": ""}, "[1].phoneNumber"),
        ({"addressInfo": {"hashedFirstName": "ana", "countryCode": "BR"}}, "[1].addressInfo.hashedFirstName"),
        ({"address": {"familyName": hashed("b"), "postalCode": "01000"}}, ""),
        ({"anything": {"else": ["x", "a@b.cn"]}}, "[1].anything.else"),
    ],
)
def test_what_should_be_hashed_and_is_not_is_found_wherever_it_stands(identifier: Any, path: str) -> None:
    assert unhashed([{"hashedEmail": hashed("x")}, identifier]) == path
