"""Threads, messages, content and the event feed in PostgreSQL, for the agency interface; clients too."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any
from uuid import UUID

from asyncpg import UniqueViolationError

from adapters.postgres.connect import Pool
from adapters.postgres.exchange import OPEN_REVIEW
from protocols.limits import MESSAGES_A_LEG_MAX
from protocols.messages.trace import HOPS_MAX
from protocols.ports.rows import (
    Arrived,
    ContentRow,
    Event,
    EventRow,
    Overdue,
    ProofRow,
    ReviewRow,
    StoredMessage,
)
from protocols.ports.store import (
    DataError,
)
from protocols.thread import Leg

_LEG, _CONTENT, _PROOF, _REVIEW, _EVENT = (
    ", ".join(f'"{field.name}"' for field in fields(row)) for row in (Leg, ContentRow, ProofRow, ReviewRow, EventRow)
)
_EVENT_NAMES = [field.name for field in fields(EventRow)]
_MESSAGES = f"""
SELECT id, $2::text AS sender, recipient, thread, type, created AS at, state AS delivery, origin, index, problem
FROM outbox WHERE thread = $1
UNION ALL
SELECT id, sender, $2, thread, type, received, CASE WHEN dispatched THEN 'dispatched' ELSE 'received' END, origin, index, NULL
FROM inbox WHERE thread = $1
ORDER BY at, id LIMIT {MESSAGES_A_LEG_MAX * (HOPS_MAX + 1)}
"""
_PASSED = """
WITH last AS (
    SELECT i.origin, i.index FROM event e JOIN inbox i ON i.sender = e.counterpart AND i.id = e.message
    WHERE e.kind = 'received' AND e.seq <= $1 ORDER BY e.seq DESC LIMIT 1
)
SELECT i.sender, i.id, i.thread, i.type, i.content_c FROM last, ledger_head h, inbox i
WHERE NOT i.dispatched AND i.origin = h.origin
AND i.index <= CASE WHEN h.origin = last.origin THEN last.index ELSE 9223372036854775807 END
AND (h.origin = last.origin OR (
    SELECT e.seq FROM event e WHERE e.message = i.id AND e.counterpart = i.sender AND e.kind = 'received') <= $1)
AND NOT i.type = ANY($3) AND NOT EXISTS (SELECT FROM review r WHERE r.sender = i.sender AND r.id = i.id) LIMIT $2
"""
"""A ledger is in the order of the feed: what is passed is found by its place, and of other ledgers of ours one by one."""


class PostgresThreads:
    """ThreadStore over the pool; `member` is our own full name."""

    def __init__(self, pool: Pool, member: str) -> None:
        self._pool = pool
        self._member = member

    async def legs(
        self, *, after: tuple[datetime, UUID] | None, count: int, state: str | None, kind: str | None = None
    ) -> list[Leg]:
        """Legs, newest first, after a cursor."""
        rows = await self._pool.fetch(
            f"SELECT {_LEG} FROM leg WHERE ($1::timestamptz IS NULL OR (opened, thread) < ($1, $2::uuid)) "
            "AND ($3::text IS NULL OR state = $3) AND ($5::text IS NULL OR kind = $5) "
            "ORDER BY opened DESC, thread DESC LIMIT $4",
            *(after or (None, None)),
            *(state, count, kind),
        )
        return [Leg(**row) for row in rows]

    async def thread(self, thread: UUID) -> list[Leg]:
        """The legs of one thread."""
        return [
            Leg(**row)
            for row in await self._pool.fetch(
                f"SELECT {_LEG} FROM leg WHERE thread = $1 ORDER BY opened, counterpart", thread
            )
        ]

    async def messages(self, thread: UUID) -> list[StoredMessage]:
        """The messages of a thread, oldest first."""
        return [StoredMessage(**row) for row in await self._pool.fetch(_MESSAGES, thread, self._member)]

    async def content(self, sender: str, id_: UUID) -> list[ContentRow]:
        """Content at rest of one message."""
        rows = await self._pool.fetch(f"SELECT {_CONTENT} FROM content WHERE sender = $1 AND id = $2", sender, id_)
        return [ContentRow(**row) for row in rows]

    async def proofs(self, peer: str, id_: UUID) -> list[ProofRow]:
        """Peers' proofs about one message."""
        rows = await self._pool.fetch(f"SELECT {_PROOF} FROM peer_proof WHERE peer = $1 AND id = $2", peer, id_)
        return [ProofRow(**row) for row in rows]

    async def overdue(self, now: datetime, count: int) -> list[Overdue]:
        """Legs whose clock has run out."""
        rows = await self._pool.fetch(
            "SELECT l.thread, l.counterpart, l.role, l.request, l.acknowledge_by, coalesce(o.content_c, i.content_c) AS content_c "
            "FROM leg l LEFT JOIN outbox o ON o.id = l.request AND l.role = 'asker' "
            "LEFT JOIN inbox i ON i.id = l.request AND i.sender = l.counterpart WHERE l.lapses <= $1 ORDER BY l.lapses LIMIT $2",
            *(now, count),
        )
        return [Overdue(**row) for row in rows]

    async def last_event(self) -> int:
        """The sequence number of the newest line."""
        row = await self._pool.row("SELECT coalesce(max(seq), 0) AS seq FROM event")
        return int(row["seq"]) if row else 0

    async def events(self, after: int, count: int) -> list[Event]:
        """The feed after a sequence number."""
        rows = await self._pool.fetch(
            f"SELECT seq, {_EVENT} FROM event WHERE seq > $1 ORDER BY seq LIMIT $2", after, count
        )
        return [Event(seq=row["seq"], row=EventRow(**{name: row[name] for name in _EVENT_NAMES})) for row in rows]

    async def passed(self, seq: int, count: int, but: Sequence[str]) -> list[Arrived]:
        """Undispatched arrivals whose event the feed has passed, but for some types and what waits for a person."""
        rows = await self._pool.fetch(
            _PASSED,
            *(seq, count, list(but)),
        )
        return [Arrived(**row) for row in rows]

    async def reviews(self, thread: UUID | None, *, after: tuple[datetime, UUID] | None, count: int) -> list[ReviewRow]:
        """Requests that wait for a person, oldest first, after a cursor."""
        rows = await self._pool.fetch(
            f"SELECT {_REVIEW} FROM review r WHERE {OPEN_REVIEW} AND ($1::uuid IS NULL OR thread = $1) "
            "AND ($2::timestamptz IS NULL OR (at, id) > ($2, $3::uuid)) ORDER BY at, id LIMIT $4",
            *(thread, *(after or (None, None)), count),
        )
        return [ReviewRow(**row) for row in rows]


class PostgresClients:
    """ClientStore over the pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def client(self, id_: str) -> dict[str, Any] | None:
        """{id, jwk, actors, scopes, revoked} or None."""
        row = await self._pool.row("SELECT id, jwk, actors, scopes, revoked FROM client WHERE id = $1", id_)
        return dict(row) if row else None

    async def add_client(self, id_: str, jwk: str, actors: Sequence[str], scopes: Sequence[str], at: datetime) -> None:
        """Adds one; DataError where the id is taken. `jwk` is JSON text."""
        sql = "INSERT INTO client (id, jwk, actors, scopes, created) VALUES ($1, $2, $3, $4, $5)"
        try:
            await self._pool.execute(sql, id_, jwk, list(actors), list(scopes), at)
        except UniqueViolationError as error:
            raise DataError("a client of this id exists") from error

    async def clients(self) -> list[dict[str, Any]]:
        """All of them."""
        rows = await self._pool.fetch("SELECT id, jwk, actors, scopes, revoked FROM client ORDER BY id")
        return [dict(row) for row in rows]

    async def revoke_client(self, id_: str, at: datetime) -> bool:
        """Whether there was one to revoke."""
        sql = "UPDATE client SET revoked = $2 WHERE id = $1 AND revoked IS NULL"
        return await self._pool.execute(sql, id_, at) == "UPDATE 1"
