"""Tokens in Firestore."""

from __future__ import annotations

from datetime import datetime

from infra.gcp.errors import Conflict
from infra.gcp.fence import new_mark
from infra.gcp.names import both, document_id
from infra.gcp.store import Document, Path, Query, Store, Write, instant
from shared.errors import StoreUnavailable
from shared.tokens import Token


class GoogleTokens:
    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, token: Token) -> None:
        path = _path(token.integration, token.stream, token.id)
        fields = {
            "of": both(token.integration, token.stream),
            "id": token.id,
            "salt": token.salt,
            "digest": token.digest,
            "made_at": token.made_at,
            "revoked_at": token.revoked_at,
            "mark": "",
        }
        try:
            self._store.commit([Write(path, fields, "create")])
        except Conflict:
            found = self._store.get(path)
            if found is None or found.fields["digest"] != token.digest:
                raise
            # Only the answer was lost: nobody else's token has this digest.

    def of(self, integration: str, stream: str) -> list[Token]:
        query = Query(("tokens",), (("of", "==", both(integration, stream)),))
        found = [_token(integration, stream, document) for document in self._store.each(query)]
        return sorted(found, key=lambda token: (token.made_at, token.id))

    def revoke(self, integration: str, stream: str, id: str, at: datetime) -> bool:
        path, mark = _path(integration, stream, id), new_mark()
        wiped = {"salt": b"", "digest": b"", "revoked_at": at, "mark": mark}
        for _ in self._store.patience.tries():
            found = self._store.get(path)
            if found is None or found.fields["revoked_at"] is not None:
                return found is not None and found.fields["mark"] == mark
            try:
                self._store.commit([Write(path, wiped, "update", found.version)])
            except Conflict:
                continue
            return True
        raise StoreUnavailable("revoking a token: others kept getting in between")


def _path(integration: str, stream: str, id: str) -> Path:
    return "tokens", document_id(integration, stream, id)


def _token(integration: str, stream: str, document: Document) -> Token:
    fields = document.fields
    made_at = instant(fields["made_at"])
    assert made_at is not None
    return Token(
        integration, stream, fields["id"], fields["salt"], fields["digest"], made_at, instant(fields["revoked_at"])
    )
