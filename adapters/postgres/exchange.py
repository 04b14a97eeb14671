"""Outbox, inbox and what we hold of peers, in PostgreSQL: short statements of their own, no ledger entry."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any
from uuid import UUID

from adapters.postgres.connect import Pool
from adapters.postgres.ledger import read_arrivals
from protocols.ledger.checkpoint import Checkpoint
from protocols.ledger.merkle import EMPTY_ROOT
from protocols.limits import UNLINKED_MAX
from protocols.ports.rows import (
    Arrived,
    AsideRow,
    Claimed,
    Contradiction,
    Gap,
    Held,
    IdempotencyRow,
    InboxRow,
    Pile,
    ProofRow,
    RefusalRow,
    ReviewRow,
    SealedRow,
    Waiting,
)

_SECONDS_MAX = 4
_PROOF = ", ".join(f'"{field.name}"' for field in fields(ProofRow))
_CLAIMED = [field.name for field in fields(Claimed)]
_WAITING = ", ".join(field.name for field in fields(Waiting))
OPEN_REVIEW = (
    "NOT closed AND NOT EXISTS (SELECT FROM leg l WHERE (l.thread, l.counterpart) = (r.thread, r.sender) "
    "AND l.state IN ('WITHDRAWN', 'CLOSED'))"
)
"""What of `review r` still waits for a person: nothing of a request that its sender took back or closed."""
_FREE = "state = 'queued' AND (leased IS NULL OR leased < $1)"
_NONE: Mapping[UUID, str] = {}
_CLAIM = """
WITH urgent AS (
    SELECT id, 0 AS lane, due, envelope FROM outbox
    WHERE state = 'queued' AND urgent AND recipient = $1 AND due <= $2 AND (leased IS NULL OR leased < $2)
    ORDER BY due, id LIMIT $4 FOR UPDATE SKIP LOCKED
), routine AS (
    SELECT id, 1 AS lane, due, envelope FROM outbox
    WHERE state = 'queued' AND NOT urgent AND recipient = $1 AND due <= $2 AND (leased IS NULL OR leased < $2)
    ORDER BY due, id LIMIT $4 FOR UPDATE SKIP LOCKED
), due AS (
    SELECT id, sum(length(envelope)) OVER (ORDER BY lane, due, id) AS total
    FROM (SELECT * FROM urgent UNION ALL SELECT * FROM routine ORDER BY lane, due, id LIMIT $4) AS locked
), claimed AS (
    UPDATE outbox o SET leased = $3, lessee = current_setting('application_name') FROM due WHERE o.id = due.id AND due.total <= $5 RETURNING o.*
)
SELECT c.*, e.data AS entry FROM claimed c JOIN entry e ON e.origin = c.origin AND e.index = c.index
ORDER BY c.urgent DESC, c.due, c.id
"""
_GAPS = """
WITH came AS (
    SELECT origin, index, split_part(convert_from(substring(
        entry FROM position('"pair_seq":'::bytea IN entry) + 11 FOR 20), 'SQL_ASCII'), ',', 1)::bigint AS seq
    FROM peer_proof WHERE substring(entry FROM 1 FOR 20) = '{"v":1,"kind":"sent"'::bytea AND starts_with(origin, peer || '/')
), steps AS (
    SELECT origin, index, seq, lag(seq, 1, 0::bigint) OVER (PARTITION BY origin ORDER BY seq, index) AS before FROM came
)
SELECT origin, before + 1 AS first, seq - 1 AS last,
    substring(convert_from(entry, 'UTF8') from '"at":"([^"]+)"')::timestamptz AS since
FROM steps JOIN peer_proof USING (origin, index) WHERE seq > before + 1 ORDER BY since LIMIT $1
"""
_KEEP_SECOND = f"""
INSERT INTO peer_proof ({_PROOF}) SELECT $1, $2, $3, $4, $5, $6, $7, $8
WHERE EXISTS (SELECT FROM outbox WHERE id = $2 AND recipient = $1)
    AND (SELECT count(*) FROM peer_proof WHERE peer = $1 AND id = $2) < {_SECONDS_MAX}
ON CONFLICT DO NOTHING
"""
_CONTRADICTIONS = """
SELECT a.origin, a.index AS first, b.index AS second FROM (SELECT peer, id FROM peer_proof GROUP BY peer, id HAVING count(*) > 1) AS several
JOIN peer_proof a USING (peer, id) JOIN peer_proof b USING (peer, id)
WHERE (a.origin, a.index) < (b.origin, b.index) AND (a.digest = b.digest OR (
    starts_with(convert_from(a.entry, 'UTF8'), '{"v":1,"kind":"received"')
    AND starts_with(convert_from(b.entry, 'UTF8'), '{"v":1,"kind":"received"'))) ORDER BY 1, 2, 3 LIMIT $1
"""
_OFFER = """
WITH next AS (
    SELECT id, sum(length(envelope)) OVER (ORDER BY urgent DESC, attempts, id) AS total
    FROM (SELECT id, urgent, attempts, envelope FROM outbox WHERE state = 'queued' AND recipient = $1
          ORDER BY urgent DESC, attempts, id LIMIT $2) AS first
), offered AS (
    UPDATE outbox o SET attempts = attempts + 1 FROM next WHERE o.id = next.id AND next.total <= $3 RETURNING o.*
)
SELECT o.*, e.data AS entry FROM offered o JOIN entry e ON e.origin = o.origin AND e.index = o.index
ORDER BY o.urgent DESC, o.attempts, o.id
"""
_TAKE_UP = """
WITH next AS (
    SELECT sender, id FROM inbox i WHERE NOT dispatched AND NOT type = ANY($2) AND (leased IS NULL OR leased < $3)
    AND NOT EXISTS (SELECT FROM review r WHERE r.sender = i.sender AND r.id = i.id)
    ORDER BY leased NULLS FIRST, origin, index LIMIT $1 FOR UPDATE SKIP LOCKED
)
UPDATE inbox i SET leased = $4 FROM next n WHERE i.sender = n.sender AND i.id = n.id
RETURNING i.sender, i.id, i.thread, i.type, i.content_c
"""
_WAITS = "o.recipient = p.recipient AND due <= $1 AND (leased IS NULL OR leased < $1)"
_DUE_PEERS = f"""
WITH RECURSIVE routine AS (
    (SELECT recipient FROM outbox WHERE state = 'queued' AND NOT urgent ORDER BY recipient LIMIT 1)
    UNION ALL
    SELECT (SELECT recipient FROM outbox WHERE state = 'queued' AND NOT urgent AND recipient > r.recipient ORDER BY recipient LIMIT 1)
    FROM routine r WHERE r.recipient IS NOT NULL
), peers AS (
    SELECT recipient FROM routine WHERE recipient IS NOT NULL
    UNION SELECT recipient FROM outbox WHERE state = 'queued' AND urgent
)
SELECT recipient,
    EXISTS (SELECT FROM outbox o WHERE state = 'queued' AND hastened AND {_WAITS})
    OR EXISTS (SELECT FROM outbox o WHERE state = 'queued' AND urgent AND attempts = 0 AND {_WAITS}) AS again
FROM peers p WHERE EXISTS (SELECT FROM outbox o WHERE state = 'queued' AND NOT urgent AND {_WAITS})
    OR EXISTS (SELECT FROM outbox o WHERE state = 'queued' AND urgent AND {_WAITS})
"""
"""One look at an index for each peer, however long its queue is."""
_PILES = f"""
SELECT 'outbox' AS kind, recipient AS peer, count(*) AS count, min(created) AS since
FROM outbox WHERE state = 'queued' GROUP BY recipient
UNION ALL SELECT 'inbox', '', count(*), min(received) FROM inbox i
WHERE NOT dispatched AND NOT EXISTS (SELECT FROM review r WHERE r.sender = i.sender AND r.id = i.id)
UNION ALL SELECT 'review', '', count(*), min(at) FROM review r WHERE {OPEN_REVIEW}
UNION ALL (SELECT 'checkpoint', '', size, at FROM checkpoint WHERE origin = $1 ORDER BY size DESC LIMIT 1)
"""


class PostgresExchange:
    """ExchangeStore over the pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def due_peers(self, now: datetime) -> dict[str, bool]:
        """Recipients with a queued message that is due and not leased; whether one of these is not to wait for others."""
        return {row["recipient"]: row["again"] for row in await self._pool.fetch(_DUE_PEERS, now)}

    async def claim(self, recipient: str, now: datetime, lease: datetime, count: int, bytes_max: int) -> list[Claimed]:
        """Claims due messages, urgent and oldest first, until `lease`."""
        rows = await self._pool.fetch(_CLAIM, recipient, now, lease, count, bytes_max)
        return [_claimed(row) for row in rows]

    async def offer(self, recipient: str, count: int, bytes_max: int) -> list[Claimed]:
        """Queued messages, claimed or not: urgent first, then the least offered."""
        rows = await self._pool.fetch(_OFFER, recipient, count, bytes_max)
        return [_claimed(row) for row in rows]

    async def queued(self, recipient: str, after: UUID, count: int, bytes_max: int) -> list[Claimed]:
        """Queued messages by id, claimed or not, after an id."""
        rows = await self._pool.fetch(
            "SELECT o.*, e.data AS entry FROM (SELECT *, sum(length(envelope)) OVER (ORDER BY id) - length(envelope) AS before "
            "FROM (SELECT * FROM outbox WHERE state = 'queued' AND recipient = $1 AND id > $2 ORDER BY id LIMIT $3) AS first) "
            "AS o JOIN entry e ON e.origin = o.origin AND e.index = o.index WHERE o.before < $4 ORDER BY o.id",
            *(recipient, after, count, bytes_max),
        )
        return [_claimed(row) for row in rows]

    async def unsettled(self, recipient: str, ids: Sequence[UUID]) -> list[Claimed]:
        """Messages of these ids that a receipt can still settle."""
        rows = await self._pool.fetch(
            "SELECT o.*, e.data AS entry FROM outbox o JOIN entry e ON e.origin = o.origin AND e.index = o.index "
            "WHERE o.id = ANY($1) AND o.recipient = $2 AND o.state IN ('queued', 'undelivered')",
            *(list(ids), recipient),
        )
        return [_claimed(row) for row in rows]

    async def sealed(self, ids: Sequence[UUID]) -> list[SealedRow]:
        """What these messages were sealed as before."""
        rows = await self._pool.fetch('SELECT id, digest, origin, "index" FROM sealed WHERE id = ANY($1)', list(ids))
        return [SealedRow(**row) for row in rows]

    async def postpone(self, due: Mapping[UUID, datetime | None], problems: Mapping[UUID, str] = _NONE) -> None:
        """Gives claimed messages back, one attempt more; not what another process claimed since."""
        await self._pool.execute(
            "UPDATE outbox SET leased = NULL, hastened = false, due = coalesce(w.at, due), problem = coalesce(w.why, problem), "
            "attempts = attempts + (w.why IS DISTINCT FROM 'peer.fetches')::int "  # then nothing was tried
            "FROM unnest($1::uuid[], $2::timestamptz[], $3::text[]) AS w(i, at, why) WHERE id = i AND state = 'queued' "
            "AND lessee = current_setting('application_name')",
            *(list(due), list(due.values()), [problems.get(id_) for id_ in due]),
        )

    async def waiting(self, count: int) -> list[Waiting]:
        """Queued messages, by recipient and age."""
        sql = f"SELECT {_WAITING} FROM outbox WHERE state = 'queued' ORDER BY recipient, created, id LIMIT $1"
        return [Waiting(**row) for row in await self._pool.fetch(sql, count)]

    async def piles(self, origin: str) -> list[Pile]:
        """What waits, and the newest checkpoint."""
        return [Pile(**row) for row in await self._pool.fetch(_PILES, origin)]

    async def hasten(self, now: datetime, *, recipient: str | None = None, id_: UUID | None = None) -> int:
        """Makes queued messages that nobody holds due at `now`; how many."""
        rows = await self._pool.fetch(
            f"UPDATE outbox SET due = least(due, $1), hastened = true WHERE {_FREE} AND ($2::text IS NULL OR recipient = $2) "
            "AND ($3::uuid IS NULL OR id = $3) RETURNING id",
            *(now, recipient, id_),
        )
        return len(rows)

    async def take(self, id_: UUID, now: datetime, lease: datetime) -> Claimed | None:
        """Claims one queued message that nobody holds."""
        row = await self._pool.row(
            f"WITH c AS (UPDATE outbox SET leased = $3, lessee = current_setting('application_name') WHERE id = $2 AND {_FREE} RETURNING *) "
            "SELECT c.*, e.data AS entry FROM c JOIN entry e ON e.origin = c.origin AND e.index = c.index",
            *(now, id_, lease),
        )
        return _claimed(row) if row else None

    async def release(self, *, own: bool) -> None:
        """Ends the leases of processes that are gone: none of their sessions is here any more; and our own."""
        await self._pool.execute(
            "UPDATE outbox SET leased = NULL WHERE state = 'queued' AND leased IS NOT NULL AND "
            "(($1 AND lessee = current_setting('application_name')) OR lessee <> ALL "
            "(SELECT application_name FROM pg_stat_activity WHERE datname = current_database()))",
            own,
        )

    async def arrivals(
        self, keys: Sequence[tuple[str, UUID]]
    ) -> tuple[dict[tuple[str, UUID], InboxRow], dict[tuple[str, UUID], list[RefusalRow]]]:
        """What arrived before under (sender, id)."""
        async with self._pool.connection() as connection:
            return await read_arrivals(connection, keys)

    async def backlog(self, sender: str, most: int) -> int:
        """How many of a sender's arrived messages are not dispatched, counted up to `most`."""
        waiting = (
            "(SELECT 1 FROM inbox WHERE sender = $1 AND NOT dispatched LIMIT $2) UNION ALL "
            "(SELECT 1 FROM relay WHERE sender = $1 AND answer IS NULL LIMIT $2)"
        )
        row = await self._pool.row(f"SELECT count(*) AS n FROM ({waiting}) w", sender, most)
        return int(row["n"]) if row else 0

    async def refusals_since(self, sender: str, since: datetime) -> int:
        """How many refused and id_conflict entries a sender caused."""
        row = await self._pool.row("SELECT count(*) AS n FROM refusal WHERE sender = $1 AND at >= $2", sender, since)
        return int(row["n"]) if row else 0

    async def undispatched(self, count: int, types: Sequence[str], but: Sequence[UUID]) -> list[Arrived]:
        """Arrived messages neither dispatched nor put before a person, oldest first."""
        rows = await self._pool.fetch(
            "SELECT sender, id, thread, type, content_c FROM inbox i WHERE NOT dispatched AND type = ANY($2) AND NOT id = ANY($3) "
            "AND NOT EXISTS (SELECT FROM review r WHERE r.sender = i.sender AND r.id = i.id) "
            "ORDER BY origin, index LIMIT $1",
            *(count, list(types), list(but)),
        )
        return [Arrived(**row) for row in rows]

    async def take_up(self, count: int, but: Sequence[str], now: datetime, lease: datetime) -> list[Arrived]:
        """Claims until `lease`."""
        return [Arrived(**row) for row in await self._pool.fetch(_TAKE_UP, count, list(but), now, lease)]

    async def set_aside(self, row: AsideRow, most: int) -> None:
        """Keeps a parcel that broke something, `most` of one sender."""
        await self._pool.execute(
            "INSERT INTO aside (digest, source, sender, id, at, cause, post) SELECT $1, $2, $3, $4, $5, $6, $7 "
            "WHERE (SELECT count(*) FROM aside WHERE sender = $3) < $8 ON CONFLICT DO NOTHING",
            *(row.digest, row.source, row.sender, row.id, row.at, row.cause, row.post, most),
        )

    async def aside(self) -> list[AsideRow]:
        """What was set aside, oldest first."""
        rows = await self._pool.fetch(
            "SELECT digest, source, sender, id, at, cause, post FROM aside ORDER BY at, digest"
        )
        return [AsideRow(**row) for row in rows]

    async def drop_aside(self, digest: bytes) -> None:
        """It was replayed."""
        await self._pool.execute("DELETE FROM aside WHERE digest = $1", digest)

    async def gaps(self, count: int) -> list[Gap]:
        """Numbers that are missing between those that came, by ledger."""
        return [Gap(**row) for row in await self._pool.fetch(_GAPS, count)]

    async def contradictions(self, count: int) -> list[Contradiction]:
        """Pairs of entries about one arrival: of the same bytes, or twice of one message."""
        return [Contradiction(**row) for row in await self._pool.fetch(_CONTRADICTIONS, count)]

    async def keep_second(self, row: ProofRow) -> None:
        """Keeps another receipt of a message of ours beside what is there, a few of each; the same again changes nothing."""
        await self._pool.execute(_KEEP_SECOND, *(getattr(row, field.name) for field in fields(ProofRow)))

    async def review(self, row: ReviewRow) -> None:
        """Puts a request before a person; the same one again changes nothing."""
        await self._pool.execute(
            "INSERT INTO review (sender, id, thread, reason, candidates, at) VALUES ($1, $2, $3, $4, $5, $6) "
            "ON CONFLICT DO NOTHING",
            *(row.sender, row.id, row.thread, row.reason, row.candidates, row.at),
        )

    async def proven(self, places: Sequence[tuple[str, int]]) -> list[ProofRow]:
        """Proofs kept of foreign entries at these (origin, index)."""
        rows = await self._pool.fetch(
            f"SELECT {_PROOF} FROM peer_proof WHERE (origin, index) IN (SELECT * FROM unnest($1::text[], $2::bigint[]))",
            *([origin for origin, _ in places], [index for _, index in places]),
        )
        return [ProofRow(**row) for row in rows]

    async def held(self, origin: str) -> Held:
        """The newest linked size, the unlinked ones, and the root of each (0 included)."""
        rows = await self._pool.fetch(
            "(SELECT size, root, linked FROM peer_checkpoint WHERE origin = $1 AND linked ORDER BY size DESC LIMIT 1) "
            "UNION ALL (SELECT size, root, linked FROM peer_checkpoint WHERE origin = $1 AND NOT linked LIMIT $2)",
            *(origin, UNLINKED_MAX + 1),
        )
        linked = max((row["size"] for row in rows if row["linked"]), default=0)
        return Held(
            linked=linked,
            roots={0: EMPTY_ROOT} | {row["size"]: row["root"] for row in rows},
            unlinked=tuple(sorted(row["size"] for row in rows if not row["linked"])),
        )

    async def keep(self, checkpoint: Checkpoint, *, at: datetime) -> None:
        """Keeps a verified checkpoint, unlinked; the same size again changes nothing."""
        await self._pool.execute(
            "INSERT INTO peer_checkpoint (origin, size, root, note, seen) VALUES ($1, $2, $3, $4, $5) "
            "ON CONFLICT DO NOTHING",
            *(checkpoint.origin, checkpoint.size, checkpoint.root, checkpoint.note, at),
        )

    async def keep_conflict(self, first: bytes, second: bytes, *, origin: str, at: datetime) -> None:
        """Keeps the two notes of a split view."""
        sql = "INSERT INTO split_view (origin, first, second, seen) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING"
        await self._pool.execute(sql, origin, first, second, at)

    async def conflict(self, origin: str) -> tuple[bytes, bytes] | None:
        """What contradicts each other of a ledger."""
        row = await self._pool.row("SELECT first, second FROM split_view WHERE origin = $1", origin)
        return (row["first"], row["second"]) if row else None

    async def split(self) -> set[str]:
        """Origins whose two histories we hold."""
        return {row["origin"] for row in await self._pool.fetch("SELECT origin FROM split_view")}

    async def link(self, origin: str, sizes: Sequence[int], *, newest: int) -> bool:
        """Marks sizes as linked, if `newest` is still the newest linked one; one after the other in the world.

        The lock is a statement of its own: the next one then sees what whoever held it before has written.
        """
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", origin)
            done = await connection.execute(
                "UPDATE peer_checkpoint SET linked = true WHERE origin = $1 AND size = ANY($2) AND $3 = "
                "(SELECT coalesce(max(size), 0) FROM peer_checkpoint WHERE origin = $1 AND linked)",
                *(origin, list(sizes), newest),
            )
        return done != "UPDATE 0"

    async def foreign_note(self, origin: str, size: int | None = None) -> bytes | None:
        """The newest note of a foreign ledger, or that of a size."""
        row = await self._pool.row(
            "SELECT note FROM peer_checkpoint WHERE origin = $1 AND ($2::bigint IS NULL OR size = $2) "
            "ORDER BY size DESC LIMIT 1",
            *(origin, size),
        )
        return row["note"] if row else None

    async def name(self, member: str, origin: str, sizes: Sequence[int]) -> None:
        """Remembers the sizes of our ledger that a member named last."""
        await self._pool.execute(
            "INSERT INTO peer_named (member, origin, sizes) VALUES ($1, $2, $3) "
            "ON CONFLICT (member, origin) DO UPDATE SET sizes = excluded.sizes",
            *(member, origin, list(sizes)),
        )

    async def named(self, member: str, origin: str) -> tuple[int, ...]:
        """The sizes of our ledger that a member named last."""
        row = await self._pool.row("SELECT sizes FROM peer_named WHERE member = $1 AND origin = $2", member, origin)
        return tuple(row["sizes"]) if row else ()

    async def answered(self, client: str, key: str) -> IdempotencyRow | None:
        """What a client was answered under a key."""
        sql = "SELECT client, key, digest, answer, at FROM idempotency WHERE client = $1 AND key = $2"
        row = await self._pool.row(sql, client, key)
        return IdempotencyRow(**row) if row else None

    async def forget_answers(self, before: datetime) -> None:
        """Drops what clients were answered under Idempotency-Keys before a time."""
        await self._pool.execute("DELETE FROM idempotency WHERE at < $1", before)

    async def unlinked_since(self, before: datetime) -> list[str]:
        """Foreign ledgers with a checkpoint seen before a time and still not linked."""
        sql = "SELECT DISTINCT origin FROM peer_checkpoint WHERE NOT linked AND seen < $1"
        return [row["origin"] for row in await self._pool.fetch(sql, before)]

    async def unlinked_members(self, origin: str) -> list[str]:
        """Members that named sizes of this ledger of ours which they could not link."""
        sql = "SELECT member FROM peer_named WHERE origin = $1 AND cardinality(sizes) > 1"
        return [row["member"] for row in await self._pool.fetch(sql, origin)]


def _claimed(row: Any) -> Claimed:
    """The envelope is gone where the message was given up."""
    return Claimed(**{name: row[name] for name in _CLAIMED} | {"envelope": row["envelope"] or b""})
