"""The bus on SQLite: at least once, in order per ordering key, redelivered with back-off.

The committed batch is the truth and this only the transport, so it is not synced at each commit: what a loss of power
takes from it is published again from the archive.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence

import msgspec

from infra.local.database import Database
from infra.local.owners import Owners
from shared.errors import StoreUnavailable
from shared.ports import Clock, Message

POLL_SECONDS = 0.2
"""How often a consumer looks for what another process published."""


class Claimed(msgspec.Struct, frozen=True):
    """A message in this consumer's hands. Its lane waits until it is acknowledged or refused."""

    id: int
    topic: str
    attempts: int
    unanswered: int
    """How often in a row whoever had it said nothing: it died."""
    message: Message


class LocalBus:
    def __init__(self, database: Database, owners: Owners, clock: Clock) -> None:
        self._database = database
        self._owners = owners
        self._clock = clock
        self._arrived = threading.Condition()
        self._mine: set[tuple[str, str]] = set()

    def publish(self, topic: str, messages: Sequence[Message]) -> None:
        at = self._clock.now().timestamp()

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT OR IGNORE INTO lanes (topic, lane) VALUES (?, ?)",
                {(topic, message.ordering_key) for message in messages},
            )
            connection.executemany(
                "INSERT INTO messages (topic, lane, batch, published_at, attributes, data) VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (
                        topic,
                        m.ordering_key,
                        m.attributes.get("batch"),
                        at,
                        msgspec.json.encode(m.attributes).decode(),
                        m.data,
                    )
                    for m in messages
                ],
            )

        self._database.write(work)
        with self._arrived:
            self._arrived.notify_all()

    def carries(self, topic: str, batches: Sequence[str]) -> set[str] | None:
        found: set[str] = set()
        with self._database.reading() as connection:
            for batch in batches:
                row = connection.execute(
                    "SELECT 1 FROM messages WHERE batch = ? AND topic = ?", (batch, topic)
                ).fetchone()
                if row is not None:
                    found.add(batch)
        return found

    def claim(self, topics: Sequence[str]) -> Claimed | None:
        """The first message of some lane that nobody has and that is due, or None."""
        now = self._clock.now().timestamp()
        if not self._due(topics, now):
            return None
        owner = self._owners.mine()
        claims: list[tuple[str, str]] = []

        def work(connection: sqlite3.Connection) -> Claimed | None:
            for topic, lane, holder in self._free_lanes(connection, topics, now):
                row = connection.execute(
                    "SELECT id, attempts, unanswered, attributes, data FROM messages "
                    "WHERE topic = ? AND lane = ? ORDER BY id LIMIT 1",
                    (topic, lane),
                ).fetchone()
                if row is None or not self._is_free(topic, lane, holder):
                    continue
                connection.execute(
                    "UPDATE messages SET attempts = attempts + 1, unanswered = unanswered + 1 WHERE id = ?", (row[0],)
                )
                connection.execute("UPDATE lanes SET owner = ? WHERE topic = ? AND lane = ?", (owner, topic, lane))
                with self._arrived:
                    self._mine.add((topic, lane))
                claims.append((topic, lane))
                return Claimed(row[0], topic, row[1] + 1, row[2], Message(row[4], lane, msgspec.json.decode(row[3])))
            return None

        try:
            return self._database.write(work)
        except StoreUnavailable:
            # Whoever did not get the message never gives it back, so its lane must not count as taken.
            with self._arrived:
                self._mine.difference_update(claims)
            raise

    def acknowledge(self, claimed: Claimed) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM messages WHERE id = ?", (claimed.id,))
            self._free(connection, claimed, 0.0, 0.0)

        self._give_back(claimed, work)

    def refuse(self, claimed: Claimed, wait: float) -> None:
        """The message comes again after `wait` seconds, before anything else of its lane."""
        now = self._clock.now().timestamp()

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE messages SET unanswered = 0 WHERE id = ?", (claimed.id,))
            self._free(connection, claimed, now, now + wait)

        self._give_back(claimed, work)

    def hurry(self, topics: Sequence[str]) -> None:
        """Makes every waiting message due: somebody is here who asked for them, and their back-off was for nobody."""
        self._database.write(
            lambda connection: connection.executemany(
                "UPDATE lanes SET deliver_at = 0 WHERE topic = ?", [(topic,) for topic in topics]
            )
        )

    def wait(self, seconds: float) -> None:
        """Returns when something may have arrived, and at the latest after `seconds`."""
        with self._arrived:
            self._arrived.wait(min(seconds, POLL_SECONDS))

    def wake(self) -> None:
        with self._arrived:
            self._arrived.notify_all()

    def depth(self, topics: Sequence[str]) -> int:
        """How many messages wait or are in hand."""
        marks = ",".join("?" * len(topics))
        with self._database.reading() as connection:
            return int(
                connection.execute(f"SELECT count(*) FROM messages WHERE topic IN ({marks})", tuple(topics)).fetchone()[
                    0
                ]
            )

    def next_due(self, topics: Sequence[str]) -> float | None:
        """Seconds until the next waiting message is due, 0 if one is, None if none waits."""
        marks = ",".join("?" * len(topics))
        now = self._clock.now().timestamp()
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT min(CASE WHEN refused_at > ? THEN 0 ELSE deliver_at END) FROM lanes "
                f"WHERE topic IN ({marks}) AND EXISTS (SELECT 1 FROM messages m "
                "WHERE m.topic = lanes.topic AND m.lane = lanes.lane)",
                (now, *topics),
            ).fetchone()
        return None if row[0] is None else max(0.0, row[0] - now)

    def _due(self, topics: Sequence[str], now: float) -> bool:
        with self._database.reading() as connection:
            return any(
                self._is_free(topic, lane, holder) for topic, lane, holder in self._free_lanes(connection, topics, now)
            )

    @staticmethod
    def _free_lanes(connection: sqlite3.Connection, topics: Sequence[str], now: float) -> list[tuple[str, str, str]]:
        """Lanes with a message that is due, the oldest message first.

        One that was refused later than now is due as well: the clock was set back, which must not hide it.
        """
        marks = ",".join("?" * len(topics))
        return connection.execute(
            f"SELECT topic, lane, owner FROM (SELECT topic, lane, owner, (SELECT id FROM messages m WHERE "
            "m.topic = lanes.topic AND m.lane = lanes.lane ORDER BY id LIMIT 1) AS head FROM lanes "
            f"WHERE topic IN ({marks}) AND (deliver_at <= ? OR refused_at > ?)) WHERE head IS NOT NULL ORDER BY head",
            (*topics, now, now),
        ).fetchall()

    def _is_free(self, topic: str, lane: str, holder: str) -> bool:
        if not self._owners.alive(holder):
            return True
        return holder == self._owners.mine() and (topic, lane) not in self._mine

    def _give_back(self, claimed: Claimed, work: Callable[[sqlite3.Connection], None]) -> None:
        try:
            self._database.write(work)
        finally:
            with self._arrived:
                self._mine.discard((claimed.topic, claimed.message.ordering_key))
                self._arrived.notify_all()

    @staticmethod
    def _free(connection: sqlite3.Connection, claimed: Claimed, now: float, due: float) -> None:
        connection.execute(
            "UPDATE lanes SET owner = '', refused_at = ?, deliver_at = ? WHERE topic = ? AND lane = ?",
            (now, due, claimed.topic, claimed.message.ordering_key),
        )
