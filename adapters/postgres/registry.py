"""The member's firearms register in PostgreSQL: search keys as columns, trigrams of K1 as a GIN-indexed array."""

from collections.abc import Sequence
from typing import Any

from adapters.postgres.connect import Pool
from protocols.firearms.scoring import Gun
from protocols.firearms.serials import search_keys, trigrams
from protocols.ports.registry import Record
from protocols.strict import dump_json, parse_object

_DETAILS_BYTES_MAX = 65_536
_COLUMNS = ["ref", "serial", "k1", "k2", "trigrams", "make", "make_key", "calibre", "weapon_type", "model", "details"]
_SELECT = "SELECT ref, serial, k1, make, make_key, calibre, weapon_type, model, details FROM registry_record"
_NEAR = (
    f"{_SELECT} WHERE NOT ref = ANY($2) AND (k2 = $3 OR trigrams && $1) ORDER BY "
    "cardinality(ARRAY(SELECT unnest(trigrams) INTERSECT SELECT unnest($1))) DESC, ref LIMIT $4"
)


class PostgresRegistry:
    """The Registry port over the pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def search(self, question: Gun, count: int) -> list[Record]:
        """Records of the same K1 serial, then the nearest by K2 and trigrams of every known stretch."""
        exact = []
        if question.serial_k1:
            exact = await self._pool.fetch(f"{_SELECT} WHERE k1 = $1 ORDER BY ref", question.serial_k1)
        texts = [text for text in (question.serial_k1, question.pattern, *question.alternatives) if text]
        grams = {gram for text in texts for stretch in _stretches(text) for gram in trigrams(stretch)}
        near: Sequence[Any] = []
        if grams and len(exact) < count:
            k2 = search_keys(question.serial_k1).k2 if question.serial_k1 else ""
            known = [row["ref"] for row in exact]
            near = await self._pool.fetch(_NEAR, sorted(grams), known, k2, count - len(exact))
        return [_record(row) for row in (*exact, *near)]

    async def store(self, records: Sequence[Record]) -> int:
        """Adds or replaces by reference, in one transaction."""
        updates = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])
        places = ", ".join(f"${i}" for i in range(1, len(_COLUMNS) + 1))
        sql = (
            f"INSERT INTO registry_record ({', '.join(_COLUMNS)}) VALUES ({places}) "
            f"ON CONFLICT (ref) DO UPDATE SET {updates}"
        )
        async with self._pool.connection() as connection, connection.transaction():
            await connection.executemany(sql, [_row(record) for record in records])
        return len(records)

    async def size(self) -> int:
        """How many records there are."""
        row = await self._pool.row("SELECT count(*) AS n FROM registry_record")
        return int(row["n"]) if row else 0


def _stretches(text: str) -> list[str]:
    """The literal stretches of a serial or pattern."""
    return [stretch for stretch in "".join(c if c.isalnum() else " " for c in text).split() if len(stretch) >= 2]


def _row(record: Record) -> tuple[Any, ...]:
    gun = record.gun
    keys = search_keys(record.serial)
    return (
        *(gun.ref, record.serial, keys.k1, keys.k2, list(keys.trigrams), record.make, gun.make),
        *(gun.calibre, gun.weapon_type, gun.model, dump_json(record.details).decode()),
    )


def _record(row: Any) -> Record:
    gun = Gun(
        ref=row["ref"],
        serial_k1=row["k1"],
        make=row["make_key"],
        model=row["model"],
        calibre=row["calibre"],
        weapon_type=row["weapon_type"],
    )
    details = parse_object(row["details"].encode(), bytes_max=_DETAILS_BYTES_MAX)
    return Record(gun=gun, serial=row["serial"], make=row["make"], details=details)
