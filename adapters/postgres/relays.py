"""What a hub carries, and what goes back by courier, in PostgreSQL; parcels come in through the committer alone."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from uuid import UUID

from adapters.postgres.connect import Pool
from protocols.ports.rows import OwedRow, RelayRow

_LIST = ", ".join("NULL AS post" if field.name == "post" else f'"{field.name}"' for field in fields(RelayRow))
_CLAIM = """
WITH due AS (
    SELECT digest, sender, sum(length(post)) OVER (ORDER BY due, digest) AS total
    FROM (SELECT digest, sender, due, post FROM relay
          WHERE answer IS NULL AND recipient = $1 AND ($2::timestamptz IS NULL OR due <= $2) AND sender = (
              SELECT sender FROM relay WHERE answer IS NULL AND recipient = $1 AND ($2::timestamptz IS NULL OR due <= $2)
              ORDER BY due LIMIT 1)
          ORDER BY due, digest LIMIT $4 FOR UPDATE SKIP LOCKED) AS locked
), claimed AS (
    UPDATE relay r SET due = $3 FROM due WHERE r.digest = due.digest AND due.total - length(r.post) <= $5
    RETURNING r.*, due.total
)
SELECT * FROM claimed ORDER BY total
"""


class PostgresRelays:
    """RelayStore over the pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def due_relays(self, now: datetime) -> list[str]:
        """Recipients of parcels that are due."""
        sql = "SELECT DISTINCT recipient FROM relay WHERE answer IS NULL AND due <= $1"
        return [row["recipient"] for row in await self._pool.fetch(sql, now)]

    async def claim_relays(
        self, recipient: str, now: datetime | None, again: datetime, count: int, bytes_max: int
    ) -> list[RelayRow]:
        """Parcels of one sender for a recipient, due or (`now` None) not; the one that goes over `bytes_max` is the last."""
        rows = await self._pool.fetch(_CLAIM, recipient, now, again, count, bytes_max)
        return [RelayRow(**{field.name: row[field.name] for field in fields(RelayRow)}) for row in rows]

    async def relays(self, sender: str, digests: Sequence[bytes]) -> list[RelayRow]:
        """What we carry, or carried, of a sender, by digest; without the parcels."""
        sql = f"SELECT {_LIST} FROM relay WHERE sender = $1 AND digest = ANY($2)"
        return [RelayRow(**row) for row in await self._pool.fetch(sql, sender, list(digests))]

    async def unanswered(self, sender: str, ids: Sequence[UUID]) -> list[RelayRow]:
        """What we carry of a sender under these ids and have no receipt of; without the parcels."""
        sql = f"SELECT {_LIST} FROM relay WHERE sender = $1 AND id = ANY($2) AND answer IS NULL"
        return [RelayRow(**row) for row in await self._pool.fetch(sql, sender, list(ids))]

    async def refresh_relays(self, posts: Mapping[bytes, bytes]) -> None:
        """The same parcels with newer proofs and links."""
        await self._pool.execute(
            "UPDATE relay SET post = p FROM unnest($1::bytea[], $2::bytea[]) AS w(d, p) WHERE digest = d AND answer IS NULL",
            *(list(posts), list(posts.values())),
        )

    async def blame_relays(self, problems: Mapping[bytes, str]) -> None:
        """Keeps what the recipient said instead of a receipt."""
        await self._pool.execute(
            "UPDATE relay SET problem = p FROM unnest($1::bytea[], $2::text[]) AS w(d, p) WHERE digest = d",
            *(list(problems), list(problems.values())),
        )

    async def blame_recipient(self, recipient: str, problem: str) -> None:
        """As `blame_relays`, all that waits for a recipient."""
        sql = "UPDATE relay SET problem = $2 WHERE recipient = $1 AND answer IS NULL"
        await self._pool.execute(sql, recipient, problem)

    async def clear_relays(self, sender: str, problem: str, now: datetime) -> None:
        """A problem of a sender's parcels is over."""
        sql = "UPDATE relay SET problem = NULL, due = $3 WHERE sender = $1 AND problem = $2 AND answer IS NULL"
        await self._pool.execute(sql, sender, problem, now)

    async def answer_relays(self, answers: Mapping[bytes, bytes]) -> None:
        """Keeps the recipient's receipts, by digest; the parcels go."""
        await self._pool.execute(
            "UPDATE relay SET answer = a, post = NULL FROM unnest($1::bytea[], $2::bytea[]) AS w(d, a) WHERE digest = d",
            *(list(answers), list(answers.values())),
        )

    async def forget_relays(self, before: datetime) -> None:
        """Drops what expired before a time."""
        await self._pool.execute("DELETE FROM relay WHERE expires < $1", before)


class PostgresCourier:
    """CourierStore over the pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def owe(self, peer: str, places: Sequence[tuple[str, int]], at: datetime) -> None:
        """Remembers entries of ours for a member."""
        await self._pool.execute(
            "INSERT INTO owed (peer, origin, index, at) SELECT $1, o, i, $4 FROM unnest($2::text[], $3::bigint[]) AS w(o, i) "
            "ON CONFLICT (peer, origin, index) DO UPDATE SET at = excluded.at",
            *(peer, [origin for origin, _ in places], [index for _, index in places], at),
        )

    async def owed(self, peer: str, after: tuple[str, int], count: int) -> list[OwedRow]:
        """What is owed to a member, in order, after a place."""
        rows = await self._pool.fetch(
            "SELECT peer, origin, index, at FROM owed WHERE peer = $1 AND (origin, index) > ($2, $3) "
            "ORDER BY origin, index LIMIT $4",
            *(peer, *after, count),
        )
        return [OwedRow(**row) for row in rows]

    async def forget_owed(self, before: datetime) -> None:
        """Drops what was remembered before a time."""
        await self._pool.execute("DELETE FROM owed WHERE at < $1", before)
