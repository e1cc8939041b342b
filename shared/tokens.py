"""Tokens by which callers of one stream's API are known. Whoever reads the store cannot make one from it.

A token is 32 random bytes, so that nobody can try them all; one salted hash of it is enough, and fast. It begins with
its own id, which is no secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol

import msgspec

ID_BYTES: Final = 4
SECRET_BYTES: Final = 32
SALT_BYTES: Final = 16


class Token(msgspec.Struct, frozen=True):
    """What is stored of a token. Of a revoked one salt and digest are empty."""

    integration: str
    stream: str
    id: str
    salt: bytes
    digest: bytes
    made_at: datetime
    revoked_at: datetime | None = None


class Tokens(Protocol):
    """The tokens of all streams."""

    def add(self, token: Token) -> None: ...

    def of(self, integration: str, stream: str) -> list[Token]:
        """Oldest first, revoked ones included."""

    def revoke(self, integration: str, stream: str, id: str, at: datetime) -> bool:
        """Wipes its salt and digest, so that nothing can match it. False where no such token is valid."""


def made_of(random: bytes, integration: str, stream: str, at: datetime) -> tuple[str, Token]:
    """The text of a token, which is shown once, and what is stored of it. `random` is as many bytes as id, secret and
    salt have together."""
    id = random[:ID_BYTES].hex()
    secret, salt = random[ID_BYTES : ID_BYTES + SECRET_BYTES], random[ID_BYTES + SECRET_BYTES :]
    text = f"{id}.{base64.urlsafe_b64encode(secret).decode().rstrip('=')}"
    return text, Token(integration, stream, id, salt, digest_of(text, salt), at)


def digest_of(text: str, salt: bytes) -> bytes:
    return hashlib.sha256(salt + text.encode("utf8", "surrogatepass")).digest()


def is_one_of(text: str, tokens: Sequence[Token]) -> bool:
    """Whether a text is one of the tokens that are valid. It takes as long for any text, right or wrong."""
    found = False
    for token in tokens:
        # Every one is looked at, and one that was revoked as well: no answer is the sooner for what it is.
        found |= hmac.compare_digest(digest_of(text, token.salt), token.digest) and token.revoked_at is None
    return found
