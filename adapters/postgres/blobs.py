"""Attachments' ciphertext in PostgreSQL: rows of 1 MiB, so that one store, one backup and one replication hold everything."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from adapters.postgres.connect import Connection, Pool
from protocols.limits import BLOB_PIECE_BYTES
from protocols.ports.rows import Blob

_BLOB = "id, held, size, whole"
_NAMED = "EXISTS (SELECT FROM content c WHERE c.part = '@' || encode(b.digest, 'hex'))"


class PostgresBlobs:
    """BlobStore over the pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def whole(self, digests: Sequence[bytes]) -> dict[bytes, int]:
        """Digest -> size of those that are here whole."""
        rows = await self._pool.fetch("SELECT digest, size FROM blob WHERE whole AND digest = ANY($1)", list(digests))
        return {row["digest"]: row["size"] for row in rows}

    async def begin(self, owner: str, digest: bytes | None, size: int | None, at: datetime) -> Blob:
        """The blob of this owner and digest, made where there is none."""
        rows = await self._pool.fetch(
            "INSERT INTO blob (id, owner, digest, size, held, whole, at) VALUES (gen_random_uuid(), $1, $2, $3, 0, false, $4) "
            f"ON CONFLICT (owner, digest) DO UPDATE SET at = excluded.at RETURNING {_BLOB}",  # its size stays the first one
            *(owner, digest, size, at),
        )
        return Blob(**rows[0])

    async def find(self, owner: str, digest: bytes) -> Blob | None:
        """The blob of this owner and digest, or None."""
        row = await self._pool.row(f"SELECT {_BLOB} FROM blob WHERE owner = $1 AND digest = $2", owner, digest)
        return Blob(**row) if row else None

    async def unnamed(self, owner: str) -> int:
        """Bytes of this owner's blobs that no message names."""
        row = await self._pool.row(
            f"SELECT sum(coalesce(size, held))::bigint AS n FROM blob b WHERE owner = $1 AND NOT {_NAMED}", owner
        )
        return int(row["n"] or 0) if row else 0

    async def append(self, blob: UUID, offset: int, data: bytes, *, whole: bool = False) -> int:
        """Writes where `offset` is what is held; the bytes held then."""
        async with self._pool.connection() as connection, connection.transaction():
            held: int | None = await connection.fetchval("SELECT held FROM blob WHERE id = $1 FOR UPDATE", blob)
            if held is None or held != offset:
                return held or 0
            pieces = [
                (blob, (offset + at) // BLOB_PIECE_BYTES, data[at : at + BLOB_PIECE_BYTES])
                for at in range(0, len(data), BLOB_PIECE_BYTES)
            ]
            await connection.copy_records_to_table("piece", records=pieces, columns=["blob", "n", "data"])
            await connection.execute(
                "UPDATE blob SET held = $2, whole = $3 WHERE id = $1", blob, held + len(data), whole
            )
            return held + len(data)

    async def finish(self, blob: UUID, digest: bytes, size: int) -> None:
        """It is whole."""
        await self._pool.execute(
            "UPDATE blob SET whole = true, digest = $2, size = $3 WHERE id = $1", blob, digest, size
        )

    async def discard(self, blob: UUID) -> None:
        """Nothing of it stays."""
        async with self._pool.connection() as connection, connection.transaction():
            await _drop(connection, [blob])

    async def read(self, digest: bytes, offset: int, length: int) -> bytes:
        """A range of a whole blob."""
        row = await self._pool.row("SELECT id FROM blob WHERE whole AND digest = $1 LIMIT 1", digest)
        return await self.held(row["id"], offset, length) if row else b""

    async def held(self, blob: UUID, offset: int, length: int) -> bytes:
        """A range from a multiple of a piece."""
        first = offset // BLOB_PIECE_BYTES
        rows = await self._pool.fetch(
            "SELECT data FROM piece WHERE blob = $1 AND n >= $2 AND n < $3 ORDER BY n",
            *(blob, first, first + -(-length // BLOB_PIECE_BYTES)),
        )
        return b"".join(row["data"] for row in rows)[:length]

    async def sweep(self, before: datetime) -> int:
        """Drops what was begun before a time and no message names."""
        async with self._pool.connection() as connection, connection.transaction():
            rows = await connection.fetch(
                f"SELECT id FROM blob b WHERE at < $1 AND (digest IS NULL OR NOT {_NAMED}) LIMIT 1 FOR UPDATE SKIP LOCKED",
                before,
            )
            await _drop(connection, [row["id"] for row in rows])
            return len(rows)


async def _drop(connection: Connection, blobs: list[UUID]) -> None:
    await connection.execute("DELETE FROM piece WHERE blob = ANY($1)", blobs)
    await connection.execute("DELETE FROM blob WHERE id = ANY($1)", blobs)
