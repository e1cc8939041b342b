"""Who may call a data sync: HTTP Basic, user `api`, password one of the sync's own tokens.

A sync that asks for none, or for which no token was ever made, is open. Whatever else is wrong, the answer and the work
for it are the same: each token of the sync is compared, whether the header is missing, malformed or of another sync.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from typing import Final

from shared.tokens import Token, is_one_of

USER: Final = "api"


def may_call(authorization: str, tokens: Sequence[Token]) -> bool:
    """Whether the header carries a valid token. `tokens` are all that were ever made for the sync, at least one."""
    user, password = credentials(authorization)
    is_user = hmac.compare_digest(user.encode("utf8", "surrogatepass"), USER.encode())
    # Not `and`: the tokens are looked at for a wrong name as well.
    return is_one_of(password, tokens) & is_user


def credentials(authorization: str) -> tuple[str, str]:
    """User and password of the header, both empty where it is no Basic one."""
    scheme, _, encoded = authorization.strip().partition(" ")
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return "", ""
    user, colon, password = decoded.partition(":")
    return (user, password) if colon and scheme.lower() == "basic" else ("", "")
