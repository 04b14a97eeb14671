"""Sessions and one-time links in PostgreSQL, by their digests."""

from datetime import datetime

from adapters.postgres.connect import Pool
from protocols.ports.rows import SessionRow

_ROW = "id, client, actor, scopes, link, expires"


class PostgresSessions:
    """SessionStore over the pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add_session(self, row: SessionRow, now: datetime) -> None:
        """Keeps one; what has expired goes."""
        await self._pool.execute("DELETE FROM session WHERE expires < $1", now)
        await self._pool.execute(
            f"INSERT INTO session ({_ROW}) VALUES ($1, $2, $3, $4, $5, $6)",
            *(row.id, row.client, row.actor, list(row.scopes), row.link, row.expires),
        )

    async def take_link(self, digest: bytes, now: datetime) -> SessionRow | None:
        """A link, once."""
        row = await self._pool.row(
            f"DELETE FROM session WHERE id = $1 AND link AND expires > $2 RETURNING {_ROW}", digest, now
        )
        return SessionRow(**row) if row else None

    async def session(self, digest: bytes, now: datetime) -> SessionRow | None:
        """A session of a client that is not revoked."""
        row = await self._pool.row(
            f"SELECT {_ROW} FROM session s WHERE id = $1 AND NOT link AND expires > $2 "
            "AND EXISTS (SELECT FROM client c WHERE c.id = s.client AND c.revoked IS NULL)",
            *(digest, now),
        )
        return SessionRow(**row) if row else None

    async def end_session(self, digest: bytes) -> None:
        """It is over."""
        await self._pool.execute("DELETE FROM session WHERE id = $1", digest)
