"""Only the service accounts of Cloud Scheduler and of the subscriptions may call a function."""

import base64
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.acceptance.google.cloud import OPERATIONS, Deployed, GoogleHub
from tests.acceptance.google.tokens import AUDIENCE, CALLER, Signer, certificates
from tests.loopback import Loopback

OTHER = "scheduler@waybill.iam.gserviceaccount.com"
PUSH = b'{"message": {"data": "bm9uc2Vuc2U="}}'


@pytest.fixture
def google_key() -> Signer:
    return Signer("known")


@pytest.fixture
def server(google_key: Signer) -> Iterator[Loopback]:
    with certificates(google_key) as server:
        yield server


@pytest.fixture
def functions(google: GoogleHub, server: Loopback) -> Iterator[dict[str, Deployed]]:
    """Source, sink and sweeper, which two accounts may call."""
    with ExitStack() as stack:
        google.environment |= {
            "WAYBILL_CALLERS": f"{OTHER}, {CALLER}",
            "WAYBILL_AUDIENCE": AUDIENCE,
            "WAYBILL_CALLER_CERTIFICATES": server.url,
        }
        started = {target: Deployed(google, target) for target in ("source", "sink")}
        started["sweep"] = Deployed(google, "sweep", OPERATIONS)
        yield {target: stack.enter_context(function) for target, function in started.items()}


def refused_tokens(google_key: Signer) -> dict[str, str]:
    now = int(time.time())
    good = google_key.token()
    head, claims, signature = good.split(".")
    richer = json.loads(base64.urlsafe_b64decode(claims + "==")) | {"exp": now + 9000}
    unsigned = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "JWT"}).encode()).decode().rstrip("=")
    odd_key = base64.urlsafe_b64encode(json.dumps({"alg": "RS256", "kid": ["known"]}).encode()).decode().rstrip("=")
    no_object = base64.urlsafe_b64encode(b"[]").decode().rstrip("=")
    tampered = base64.urlsafe_b64encode(json.dumps(richer).encode()).decode().rstrip("=")
    return {
        "missing": "",
        "no bearer": f"Basic {good}",
        "empty": "Bearer ",
        "nonsense": "Bearer nonsense",
        "of a foreign key under a known name": f"Bearer {Signer('known').token()}",
        "of an unknown key": f"Bearer {Signer('unknown').token()}",
        "without a signature": f"Bearer {unsigned}.{claims}.",
        "with a changed claim": f"Bearer {head}.{tampered}.{signature}",
        "with an odd key id": f"Bearer {odd_key}.{claims}.{signature}",
        "with a head that is no object": f"Bearer {no_object}.{claims}.{signature}",
        "expired": f"Bearer {google_key.token(iat=now - 7200, exp=now - 3600)}",
        "not valid yet": f"Bearer {google_key.token(iat=now + 3600, exp=now + 7200)}",
        "for another audience": f"Bearer {google_key.token(aud='https://other.example.run.app')}",
        "of another issuer": f"Bearer {google_key.token(iss='https://issuer.example')}",
        "of a stranger": f"Bearer {google_key.token(email='stranger@other.iam.gserviceaccount.com')}",
        "without an e-mail": f"Bearer {google_key.token(email=None)}",
        "whose e-mail nobody verified": f"Bearer {google_key.token(email_verified=False)}",
    }


def test_callers_are_let_in_by_their_token_and_by_nothing_else(
    google: GoogleHub, functions: dict[str, Deployed], google_key: Signer, server: Loopback
) -> None:
    for function in functions.values():
        for email in (CALLER, OTHER):
            answer = function.post(body=PUSH, Authorization=f"Bearer {google_key.token(email=email)}")
            assert answer.status_code == 400, answer.text

    refused = refused_tokens(google_key)
    statuses = {
        (target, name): function.post(body=PUSH, Authorization=authorization).status_code
        for target, function in functions.items()
        for name, authorization in refused.items()
        if target == "sink" or name in ("missing", "expired")
    }
    assert {key: status for key, status in statuses.items() if status != 403} == {}

    for function in functions.values():
        assert "caller_refused" in function.said
        for authorization in refused.values():
            token = authorization.partition(" ")[2]
            assert not token or token not in function.said
            assert "Bearer" not in function.said
    assert google.asked("ploomes") == google.asked("milvus") == 0
    assert len(server.requests) == len(functions), "each asks once for the certificates"
