"""Firearms registers in PostgreSQL: search keys as columns; runs of two and three characters of K1 as a GIN-indexed array."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from adapters.postgres.connect import Pool
from protocols.firearms.scoring import Gun
from protocols.firearms.serials import grams, like, matches, search_keys, wanted_grams
from protocols.limits import EXPIRES_MAX_S
from protocols.ports.registry import Record
from protocols.strict import dump_json, parse_object

_DETAILS_BYTES_MAX = 4 * 1024 * 1024  # our own column: as text longer than the message was
_COLUMNS = [
    "owner", "ref", "serial", "k1", "k2", "no_zeros", "others", "grams", "make", "make_key", "calibre", "weapon_type", "model",
    "status", "until", "batch", "said", "audience", "details",
]  # fmt: skip
_READ = "owner, ref, serial, k1, others, make, make_key, calibre, weapon_type, model, status, until, batch, said, audience, details"
_TAKEN_BACK = "TAKEN_BACK"
_SELECT = (
    f"SELECT {_READ} FROM registry_record WHERE (owner <> '') = $1 AND (until IS NULL OR until >= CURRENT_DATE) "
    f"AND status <> '{_TAKEN_BACK}'"
)
_TOLD = f"{_SELECT} AND ($2::text IS NULL OR owner = $2 OR audience IS NULL OR $2 = ANY(audience))"
_KEYS = {"owner", "ref"}
_CHANGES = [name for name in _COLUMNS if name not in (*_KEYS, "batch", "said")]
_PAGE = 5_000


class PostgresRegistry:
    """The Registry port over the pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def search(
        self, question: Gun, count: int, *, shared: bool = False, asker: str | None = None
    ) -> list[Record]:
        """Records of the same K1 serial, then those that K2, leading zeros, half a serial or a pattern's stretches find."""
        found: dict[tuple[str, str], Record] = {}
        if question.serial_k1:
            sql = f"{_TOLD} AND (k1 = $3 OR others @> ARRAY[$3]) ORDER BY owner, ref"
            self._take(found, await self._pool.fetch(sql, shared, asker, question.serial_k1))
        for text in (question.serial_k1, question.pattern, *question.alternatives):
            if text and len(found) < count:
                near = text != question.pattern and text.isalnum()
                rows = await (self._near if near else self._fitting)(text, question.make, count, shared, asker)
                self._take(found, rows, "" if near else text)
        return list(found.values())[: max(count, sum(r.gun.serial_k1 == question.serial_k1 for r in found.values()))]

    async def _near(self, serial: str, make: str, count: int, *whom: Any) -> Sequence[Any]:
        keys = search_keys(serial)
        wanted = [sorted(each) for each in wanted_grams(serial)]
        either = " OR ".join(f"grams @> ${n}::text[]" for n in range(7, 7 + len(wanted)))
        order = "(k2 = $3) DESC, (no_zeros = $4) DESC, (make_key = $6) DESC, ref"
        sql = f"{_TOLD} AND (k2 = $3 OR no_zeros = $4 OR {either}) ORDER BY {order} LIMIT $5"
        return await self._pool.fetch(sql, *whom, keys.k2, keys.no_zeros, count, make, *wanted)

    async def _fitting(self, pattern: str, make: str, count: int, *whom: Any) -> Sequence[Any]:
        held = sorted(frozenset[str]().union(*wanted_grams(pattern)))
        fits = "(k1 LIKE $3 OR EXISTS (SELECT FROM unnest(others) o WHERE o LIKE $3)) AND grams @> $6::text[]"
        sql = f"{_TOLD} AND {fits} ORDER BY (make_key = $5) DESC, ref LIMIT $4"
        return await self._pool.fetch(sql, *whom, like(pattern), count, make, held)

    def _take(self, found: dict[tuple[str, str], Record], rows: Sequence[Any], pattern: str = "") -> None:
        for row in rows:
            record = _record(row)
            keys = (record.gun.serial_k1, *record.others)
            if not pattern or any(matches(pattern, key) for key in keys):  # LIKE finds more
                found.setdefault((record.owner, record.gun.ref), record)

    async def store(self, records: Sequence[Record]) -> set[str]:
        """Adds or replaces by owner and reference, in one transaction; the references that changed."""
        updates = ", ".join(f"{name} = excluded.{name}" for name in (*_CHANGES, "batch", "said"))
        places = ", ".join(f"${i}" for i in range(1, len(_COLUMNS) + 1))
        differs = ", ".join(f"r.{name}" for name in _CHANGES), ", ".join(f"excluded.{name}" for name in _CHANGES)
        sql = (
            f"INSERT INTO registry_record AS r ({', '.join(_COLUMNS)}) VALUES ({places}) "
            f"ON CONFLICT (owner, ref) DO UPDATE SET {updates} "
            f"WHERE (r.said < excluded.said OR (r.said = excluded.said AND r.status <> '{_TAKEN_BACK}')) AND ({differs[0]}) IS DISTINCT FROM ({differs[1]}) RETURNING ref"
        )
        async with self._pool.connection() as connection, connection.transaction():
            return {row["ref"] for row in await connection.fetchmany(sql, [_row(record) for record in records])}

    async def record(self, owner: str, ref: str) -> Record | None:
        """One that is live, or None."""
        row = await self._pool.row(f"{_SELECT} AND owner = $2 AND ref = $3", bool(owner), owner, ref)
        return _record(row) if row else None

    async def remove(self, owner: str, batch: UUID) -> int:
        """Takes an import of an owner out."""
        done = await self._pool.execute("DELETE FROM registry_record WHERE owner = $1 AND batch = $2", owner, batch)
        return int(done.rpartition(" ")[2])

    async def take_back(self, owner: str, ref: str, said: datetime) -> None:
        """Leaves a mark in the record's place, so that no earlier word of it comes to stand."""
        gone = Record(gun=Gun(ref=ref), serial="", make="", details={}, owner=owner, status=_TAKEN_BACK, said=said)
        await self.store([gone])

    async def purge(self, today: date) -> int:
        """Deletes what is past its day, and marks that are older than any message can be."""
        old = today - timedelta(seconds=EXPIRES_MAX_S)
        sql = f"DELETE FROM registry_record WHERE until < $1 OR (status = '{_TAKEN_BACK}' AND said < $2)"
        done = await self._pool.execute(sql, today, datetime.combine(old, time.min, UTC))
        return int(done.rpartition(" ")[2])

    async def live(self, owner: str) -> AsyncIterator[Record]:
        """Every live record of an owner, by reference; a page at a time."""
        after = ""
        while rows := await self._pool.fetch(
            f'{_SELECT} AND owner = $2 AND ref COLLATE "C" > $3 ORDER BY ref COLLATE "C" LIMIT {_PAGE}',
            bool(owner),
            owner,
            after,
        ):
            for row in rows:
                yield _record(row)
            after = rows[-1]["ref"]

    async def size(self) -> int:
        """How many guns the own register has."""
        row = await self._pool.row("SELECT count(*) AS n FROM registry_record WHERE owner = ''")
        return int(row["n"]) if row else 0


def _row(record: Record) -> tuple[Any, ...]:
    gun = record.gun
    keys = search_keys(record.serial)
    k1 = gun.serial_k1 if record.owner else keys.k1
    runs = frozenset().union(grams(k1), *(grams(each) for each in record.others))
    return (
        *(
            record.owner,
            gun.ref,
            record.serial,
            k1,
            search_keys(k1).k2,
            search_keys(k1).no_zeros,
            list(record.others),
            sorted(runs),
        ),
        *(record.make, gun.make, gun.calibre, gun.weapon_type, gun.model, record.status, record.until, record.batch),
        *(record.said, None if record.audience is None else list(record.audience), dump_json(record.details).decode()),
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
    return Record(
        gun=gun, serial=row["serial"], make=row["make"], details=details, owner=row["owner"], status=row["status"],
        until=row["until"], others=tuple(row["others"]), batch=row["batch"], said=row["said"],
        audience=None if row["audience"] is None else tuple(row["audience"]),
    )  # fmt: skip
