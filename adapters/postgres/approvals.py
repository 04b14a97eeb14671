"""What waits for a second person, in PostgreSQL; rulings are written by the committer alone."""

from dataclasses import fields
from datetime import datetime
from uuid import UUID

from adapters.postgres.connect import Pool
from protocols.ports.rows import ApprovalRow

_SELECT = f"SELECT {', '.join(field.name for field in fields(ApprovalRow))} FROM approval"


class PostgresApprovals:
    """ApprovalStore over the pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def approval(self, id_: UUID) -> ApprovalRow | None:
        """One, or None."""
        row = await self._pool.row(f"{_SELECT} WHERE id = $1", id_)
        return ApprovalRow(**row) if row else None

    async def asked(self, client: str, actor: str, *, since: datetime, count: int) -> list[ApprovalRow]:
        """What this client and actor asked and has not used up, newest first."""
        sql = f"{_SELECT} WHERE (client, actor) = ($1, $2) AND asked >= $3 AND NOT used ORDER BY asked DESC LIMIT $4"
        return [ApprovalRow(**row) for row in await self._pool.fetch(sql, client, actor, since, count)]

    async def waiting(self, since: datetime, *, after: tuple[datetime, UUID] | None, count: int) -> list[ApprovalRow]:
        """Those that nobody has ruled on, oldest first, after a cursor."""
        rows = await self._pool.fetch(
            f"{_SELECT} WHERE ruling = '' AND asked >= $1 AND ($2::timestamptz IS NULL OR (asked, id) > ($2, $3::uuid)) "
            "ORDER BY asked, id LIMIT $4",
            *(since, *(after or (None, None)), count),
        )
        return [ApprovalRow(**row) for row in rows]
