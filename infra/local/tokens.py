"""Tokens on SQLite."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from infra.local.database import Database
from infra.local.schema import instant, micros
from shared.tokens import Token


class LocalTokens:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, token: Token) -> None:
        self._database.write(
            lambda connection: connection.execute(
                "INSERT INTO tokens (integration, stream, id, salt, digest, made_at) VALUES (?, ?, ?, ?, ?, ?)",
                (token.integration, token.stream, token.id, token.salt, token.digest, micros(token.made_at)),
            )
        )

    def of(self, integration: str, stream: str) -> list[Token]:
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT id, salt, digest, made_at, revoked_at FROM tokens WHERE integration = ? AND stream = ? "
                "ORDER BY made_at, seq",
                (integration, stream),
            ).fetchall()
        return [_token(integration, stream, *row) for row in rows]

    def revoke(self, integration: str, stream: str, id: str, at: datetime) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            done = connection.execute(
                "UPDATE tokens SET salt = x'', digest = x'', revoked_at = ? "
                "WHERE integration = ? AND stream = ? AND id = ? AND revoked_at IS NULL",
                (micros(at), integration, stream, id),
            )
            return done.rowcount > 0

        return self._database.write(work)


def _token(
    integration: str, stream: str, id: str, salt: bytes, digest: bytes, made_at: int, revoked_at: int | None
) -> Token:
    made = instant(made_at)
    assert made is not None
    return Token(integration, stream, id, salt, digest, made, instant(revoked_at))
