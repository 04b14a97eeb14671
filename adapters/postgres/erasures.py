"""What is to be erased, and the wrapped keys of content at rest, in PostgreSQL."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import date, datetime
from uuid import UUID

from adapters.postgres.connect import Pool
from adapters.postgres.ledger import ENTRY_MESSAGE
from protocols.ports.crypto import ContentKey
from protocols.ports.rows import ErasureRow, WrappedRow

_NAMES = [field.name for field in fields(ErasureRow)]
_WRAPPED = ", ".join(field.name for field in fields(WrappedRow))
_SAYS = (
    f"EXISTS (SELECT FROM entry e, ledger_head h WHERE e.origin = h.origin AND e.index < h.size AND {ENTRY_MESSAGE} = m.id::text "
    """AND starts_with(encode(e.data, 'escape'), '{{"v":1,"kind":"erased",') """
    """AND strpos(encode(e.data, 'escape'), '"code":"' || {part} || '/') > 0 """
    """AND strpos(encode(e.data, 'escape'), '"from":"' || m.sender || '"') > 0)"""
)
_MISSING = f"""
SELECT sender, id FROM (SELECT sender, id FROM inbox UNION ALL
    SELECT left(origin, -strpos(reverse(origin), '/')), id FROM outbox) m
WHERE NOT EXISTS (SELECT FROM content c WHERE c.sender = m.sender AND c.id = m.id AND c.part = '') AND NOT {_SAYS.format(part="'content'")}
UNION ALL SELECT sender, id FROM erasure m
WHERE done AND EXISTS (SELECT FROM content c WHERE c.sender = m.sender AND c.id = m.id AND m.part IN ('', c.part)) LIMIT $1
"""
_THESE = "unnest($1::text[], $2::uuid[], $3::text[]) AS w(s, i, p)"
_ALONE = 0x7472_6163_6577_6972
"""The advisory lock of whoever erases, in a node's database."""


class PostgresErasures:
    """ErasureStore over the pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        """Whether nobody else erases meanwhile."""
        async with self._pool.connection() as connection:
            mine = await connection.fetchval("SELECT pg_try_advisory_lock($1)", _ALONE)
            try:
                yield mine
            finally:
                if mine:
                    await connection.execute("SELECT pg_advisory_unlock($1)", _ALONE)

    async def pend(self, rows: Sequence[ErasureRow]) -> None:
        """To be erased, durable; what stands there is so again."""
        async with self._pool.connection() as connection:
            await connection.executemany(
                f"INSERT INTO erasure ({', '.join(_NAMES)}, done) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, false) ON CONFLICT (sender, id, part) "
                "DO UPDATE SET done = false, approval = coalesce(excluded.approval, erasure.approval)",
                [tuple(getattr(row, name) for name in _NAMES) for row in rows],
            )

    async def pending(self) -> list[ErasureRow]:
        """What is not done."""
        rows = await self._pool.fetch(
            f"SELECT {', '.join(_NAMES)} FROM erasure WHERE NOT done ORDER BY sender, id, part"
        )
        return [ErasureRow(**row) for row in rows]

    async def finish(self, rows: Sequence[ErasureRow]) -> None:
        """Done: what their keys opened goes too; of a whole message, that of its parts and attachments."""
        async with self._pool.connection() as connection, connection.transaction():
            for sql in (
                f"DELETE FROM content USING {_THESE} WHERE sender = s AND id = i AND (p = '' OR part = p)",
                f"UPDATE erasure SET done = true FROM {_THESE} WHERE sender = s AND id = i AND part = p",
            ):
                await connection.execute(sql, *_keys(rows))

    async def erased(self, thread: UUID) -> set[tuple[str, UUID, str]]:
        """What was erased of a thread, part '' of a whole message: an entry says so."""
        said = _SAYS.format(part="coalesce(nullif(part, ''), 'content')")
        sql = f"SELECT sender, id, part FROM erasure m WHERE thread = $1 AND done AND {said}"
        rows = await self._pool.fetch(sql, thread)
        return {(row["sender"], row["id"], row["part"]) for row in rows}

    async def missing(self, count: int) -> list[tuple[str, UUID]]:
        """Messages whose content is gone and no entry says so, or is here and one says that it is not."""
        rows = await self._pool.fetch(_MISSING, count)
        return [(row["sender"], row["id"]) for row in rows]

    async def generation(self) -> tuple[int, datetime]:
        """The generation in force, and since when."""
        row = await self._pool.row("SELECT generation, opened FROM epoch")
        assert row is not None  # one row from the first migration on
        return row["generation"], row["opened"]

    async def raise_generation(self, generation: int, at: datetime | None = None) -> None:
        """What is written from here on is under this generation: every batch that began before has ended."""
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute("SELECT 1 FROM ledger_head ORDER BY origin FOR UPDATE")
            await connection.execute(
                "UPDATE epoch SET generation = $1, opened = coalesce($2, opened) WHERE generation < $1", generation, at
            )

    async def generations(self) -> dict[int, int]:
        """Keys under each generation."""
        rows = await self._pool.fetch("SELECT generation, count(*) AS n FROM content GROUP BY generation")
        return {row["generation"]: row["n"] for row in rows}

    async def due(self, today: date, count: int) -> list[UUID]:
        """Threads with something past its day, or whose handling was changed."""
        rows = await self._pool.fetch(
            "(SELECT DISTINCT thread FROM content c WHERE until < $1 AND c.part = '' ORDER BY thread LIMIT $2) "
            "UNION SELECT i.thread FROM inbox i JOIN content c ON c.sender = i.sender AND c.id = i.id AND c.part = '' "
            "WHERE i.type = 'handling.change'",
            *(today, count),
        )
        return [row["thread"] for row in rows]

    async def idle(self, before: datetime, generations: Sequence[int], count: int) -> list[UUID]:
        """Threads with content in which nothing happened since, nor was due."""
        rows = await self._pool.fetch(
            "SELECT thread FROM content c WHERE generation = ANY($2) AND c.part = '' AND "
            "(SELECT bool_and(greatest(updated, due, delayed) < $1 AND kind NOT IN ('registry.record', 'marking.notice')) FROM leg l WHERE l.thread = c.thread) "
            "GROUP BY thread ORDER BY thread LIMIT $3",
            *(before, generations, count),
        )
        return [row["thread"] for row in rows]

    async def drop_asked(self, before: datetime) -> None:
        """What was asked before a time and never used."""
        await self._pool.execute(
            "DELETE FROM content c USING approval a WHERE c.id = a.id AND c.part = 'about' AND a.asked < $1 AND NOT a.used",
            before,
        )

    async def wrapped_of(self, rows: Sequence[ErasureRow]) -> list[WrappedRow]:
        """The keys of what is to be erased: of a whole message, those of its parts and attachments too."""
        found = await self._pool.fetch(
            f"SELECT {_WRAPPED} FROM content c JOIN {_THESE} ON c.sender = s AND c.id = i AND (p = '' OR c.part = p)",
            *_keys(rows),
        )
        return [WrappedRow(**row) for row in found]

    async def wrapped(self, generation: int, count: int) -> AsyncIterator[list[WrappedRow]]:
        """All keys of a generation, in pages."""
        last = WrappedRow(sender="", id=UUID(int=0), part="", generation=0, wrapped=b"")
        while rows := await self._pool.fetch(
            f"SELECT {_WRAPPED} FROM content WHERE generation = $1 AND (sender, id, part) > ($2, $3, $4) "
            "ORDER BY sender, id, part LIMIT $5",
            *(generation, last.sender, last.id, last.part, count),
        ):
            found = [WrappedRow(**row) for row in rows]
            yield found
            last = found[-1]

    async def rewrap(self, moved: Sequence[tuple[WrappedRow, ContentKey]]) -> None:
        """The same keys under another generation; of rows that are still there."""
        await self._pool.execute(
            "UPDATE content c SET generation = g, wrapped = w "
            "FROM unnest($1::text[], $2::uuid[], $3::text[], $4::bytea[], $5::int[], $6::bytea[]) AS m(s, i, p, f, g, w) "
            "WHERE c.sender = s AND c.id = i AND c.part = p AND c.wrapped = f",
            [row.sender for row, _ in moved],
            [row.id for row, _ in moved],
            [row.part for row, _ in moved],
            [row.wrapped for row, _ in moved],
            [key.generation for _, key in moved],
            [key.wrapped for _, key in moved],
        )


def _keys(rows: Sequence[ErasureRow]) -> tuple[list[str], list[UUID], list[str]]:
    return [row.sender for row in rows], [row.id for row in rows], [row.part for row in rows]
