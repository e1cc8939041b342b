"""Who calls Google's APIs: google-auth's default credentials, or the token that GOOGLE_OAUTH_ACCESS_TOKEN names.

A token is fetched before the first call, before its end, and once more when it was refused. One that was handed in
cannot be renewed. No token, key or answer of a token server stands in a message.
"""

from __future__ import annotations

from threading import Lock
from typing import Any, Final

from shared.errors import UNREACHABLE, AuthError, TransientError

VARIABLE: Final = "GOOGLE_OAUTH_ACCESS_TOKEN"


class TokenRefused(AuthError):
    """The token was refused; it may only have ended before its time."""

    cure = f"grant the account access, or renew {VARIABLE}, then run again"


class Tokens:
    """The headers that authorise calls with one scope. Threads may share it."""

    def __init__(self, given: str, scope: str) -> None:
        self._given = given
        self._scope = scope
        self._lock = Lock()
        self._credentials: Any = None
        self._fetch: Any = None

    def headers(self) -> dict[str, str]:
        """Raises AuthError where there are no credentials or they are refused, TransientError where nobody answers."""
        if self._given:
            return {"Authorization": f"Bearer {self._given}"}
        from google.auth import exceptions

        with self._lock:
            try:
                credentials = self._ready()
                if not credentials.valid:
                    credentials.refresh(self._fetch)
            except exceptions.DefaultCredentialsError as error:
                raise AuthError(
                    "there are no default credentials of Google",
                    cure=f"run `gcloud auth application-default login`, or export {VARIABLE}",
                ) from error
            except exceptions.TransportError as error:
                raise TransientError("Google's token server does not answer", number=UNREACHABLE) from error
            except exceptions.GoogleAuthError as error:
                if error.retryable:
                    raise TransientError("Google gives no token at the moment") from error
                raise AuthError("Google gives no token for the default credentials") from error
            headers: dict[str, str] = {}
            credentials.apply(headers)
        return headers

    def renew(self) -> bool:
        """Whether the next call carries another token than the last one."""
        if self._given:
            return False
        with self._lock:
            self._credentials = None
        return True

    def _ready(self) -> Any:
        if self._credentials is None:
            import google.auth
            import requests
            from google.auth.transport.requests import Request

            session = requests.Session()
            # As for every other call: no proxy of the environment.
            session.trust_env = False
            self._fetch = Request(session=session)
            self._credentials, _ = google.auth.default(scopes=[self._scope], request=self._fetch)
        return self._credentials
