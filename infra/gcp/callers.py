"""Who calls a function: a second line behind Cloud Run's own check, for a service that several kinds of caller reach.

Cloud Scheduler and Pub/Sub send an OIDC token signed by Google for the service account that their job or subscription
names (vendor documentation, "Authenticate push requests"). The certificates are kept for as long as the answer that
brought them says, so that neither the time nor the failure of that request comes with every push.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from google.auth.transport.requests import Request

ISSUERS: Final = ("https://accounts.google.com", "accounts.google.com")
CERTIFICATES: Final = "https://www.googleapis.com/oauth2/v1/certs"


class Callers(msgspec.Struct, frozen=True):
    """The service accounts that may call, and the audience that their tokens must be made for."""

    emails: tuple[str, ...]
    audience: str
    certificates: str = CERTIFICATES

    @classmethod
    def configured(cls, environ: Mapping[str, str]) -> Callers | None:
        """By `WAYBILL_CALLERS` (e-mails, comma-separated) and `WAYBILL_AUDIENCE`; None where neither is set."""
        emails = tuple(each.strip() for each in environ.get("WAYBILL_CALLERS", "").split(",") if each.strip())
        audience = environ.get("WAYBILL_AUDIENCE", "").strip()
        if not emails and not audience:
            return None
        return cls(emails, audience, environ.get("WAYBILL_CALLER_CERTIFICATES", "").strip() or CERTIFICATES)

    def refusal(self, authorization: str) -> str:
        """Why this caller is refused, without repeating the token; empty for one that may call."""
        from google.auth.exceptions import GoogleAuthError
        from google.oauth2 import id_token

        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            return "no bearer token"
        if not self.emails or not self.audience:
            return "callers are configured incompletely"
        try:
            claims: Mapping[str, Any] = id_token.verify_token(
                token, _request(), audience=self.audience, certs_url=self.certificates
            )
        except (ValueError, GoogleAuthError) as error:
            return f"the token is not good: {type(error).__name__}"
        if claims.get("iss") not in ISSUERS:
            return "the token is of another issuer"
        if claims.get("email_verified") is not True:
            return "the token's e-mail is not verified"
        email = str(claims.get("email", ""))
        known = [hmac.compare_digest(email.encode(), each.encode()) for each in self.emails]
        return "" if any(known) else "this account may not call"


@cache
def _request() -> Request:
    """As google-auth wants it where tokens are checked often (`google.oauth2.id_token`)."""
    import requests
    from cachecontrol import CacheControl
    from google.auth.transport.requests import Request

    return Request(session=CacheControl(requests.Session()))


def email_of(authorization: str) -> str:
    """The e-mail in a token that was found to be good."""
    from google.auth import jwt

    claims: Mapping[str, Any] = jwt.decode(authorization.partition(" ")[2], verify=False)  # type: ignore[no-untyped-call]
    return str(claims["email"])
