"""The ledgers in PostgreSQL: the batch under the head lock, and reading (docs/protocol.md section 6)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import fields
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import asyncpg

from adapters.postgres.connect import CLOSE_S, GONE, SETTINGS, Connection, Pool, connect
from protocols.ledger.checkpoint import Checkpoint
from protocols.ledger.tiles import WIDTH, TileId
from protocols.ports.rows import (
    ApprovalRow,
    ContentRow,
    EventRow,
    IdempotencyRow,
    InboxRow,
    OutboxRow,
    ProofRow,
    RefusalRow,
    RelayRow,
    ReviewRow,
    Row,
    SealedRow,
)
from protocols.ports.store import (
    DataError,
    Head,
    OutcomeUnknown,
    Standing,
    Unavailable,
    Wanted,
    Writes,
)
from protocols.problems import ProblemError
from protocols.thread import Leg

_T = TypeVar("_T", IdempotencyRow, InboxRow, RefusalRow)
_TABLES: dict[type[Any], str] = {
    OutboxRow: "outbox",
    SealedRow: "sealed",
    InboxRow: "inbox",
    RefusalRow: "refusal",
    ContentRow: "content",
    ProofRow: "peer_proof",
    EventRow: "event",
    IdempotencyRow: "idempotency",
    ReviewRow: "review",
    RelayRow: "relay",
}
_COLUMNS = {row: [field.name for field in fields(row)] for row in (*_TABLES, Leg, ApprovalRow)}
_COLUMN_LIST = {row: ", ".join(f'"{name}"' for name in names) for row, names in _COLUMNS.items()}
IDENTITY = """
SELECT system_identifier::text, ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
FROM pg_control_system()
"""  # the timeline that is written now: pg_control_checkpoint() tells that of the last checkpoint, minutes after a promotion too
ENTRY_MESSAGE = """substring(encode(data, 'escape'), '"id":"([^"]*)"')"""
"""The id of the message that an entry is about: an expression of SQL, and of an index."""
_OPENED = '{"v":1,"kind":"opened",'
_TILES = (
    "SELECT level, index, data FROM tile JOIN unnest($2::smallint[], $3::bigint[]) AS w(l, i) "
    "ON level = l AND index = i WHERE origin = $1"
)
_LEG_TYPES = {
    name: type_
    for type_, names in {
        "uuid": "thread request question", "int": "version messages hop rounds", "bigint": "late_ms stood_ms", "bool": "unanswered",
        "timestamptz": "opened updated due delayed paused expected acknowledge_by lapses",
    }.items()
    for name in names.split()
}  # fmt: skip
_LEG_FIXED = {"thread", "counterpart", "role", "kind", "request", "opened", "hop"}
_LEG_UPSERT = (
    f"INSERT INTO leg ({_COLUMN_LIST[Leg]}) SELECT * FROM unnest("
    + ", ".join(f"${n}::{_LEG_TYPES.get(name, 'text')}[]" for n, name in enumerate(_COLUMNS[Leg], 1))
    + ") ON CONFLICT (thread, counterpart) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[Leg] if name not in _LEG_FIXED)
)
_KEEP_PROOF = (
    f"INSERT INTO peer_proof ({_COLUMN_LIST[ProofRow]}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING"
)
_APPROVAL_UPSERT = (
    f"INSERT INTO approval ({_COLUMN_LIST[ApprovalRow]}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) "
    "ON CONFLICT (id) DO UPDATE SET ruling = excluded.ruling, ruled_client = excluded.ruled_client, "
    "ruled_actor = excluded.ruled_actor, ruled = excluded.ruled, used = excluded.used"
)
_CHANNEL = "tracewire"
_TELL = f"NOTIFY {_CHANNEL}, '{SETTINGS['application_name']}'"
_LISTEN_AGAIN_S = 1.0
_FAILED = (*GONE, asyncpg.PostgresError)  # whatever PostgreSQL says besides refused rows may heal
_DATA = (
    *(asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError),
    *(ValueError, OverflowError, TypeError),  # what COPY raises for a value that it cannot encode
)


async def read_tiles(connection: Connection, origin: str, wanted: Sequence[TileId]) -> dict[TileId, bytes]:
    """Tiles as they stand."""
    levels, indexes = [level for level, _ in wanted], [index for _, index in wanted]
    rows = await connection.fetch(_TILES, origin, levels, indexes)
    return {(level, index): data for level, index, data in rows}


class PostgresBatch:
    """One transaction that holds the head lock; made by `PostgresLedger.batch`."""

    def __init__(self, connection: Connection, head: Head) -> None:
        self._db = connection
        self.head = head

    async def note(self) -> bytes | None:
        """The signed checkpoint of the head."""
        sql = "SELECT note FROM checkpoint WHERE origin = $1 AND size = $2"
        found: bytes | None = await self._db.fetchval(sql, self.head.origin, self.head.size)
        return found

    async def last(self) -> bytes | None:
        """The newest entry."""
        sql = "SELECT data FROM entry WHERE origin = $1 AND index = $2"
        found: bytes | None = await self._db.fetchval(sql, self.head.origin, self.head.size - 1)
        return found

    async def tiles(self, wanted: Sequence[TileId]) -> dict[TileId, bytes]:
        """Tiles as they stand."""
        return await read_tiles(self._db, self.head.origin, wanted)

    async def standing(self, wanted: Wanted) -> Standing:
        """Rows under these keys; a query only for the kinds of key that are asked for."""
        found = Standing()
        if wanted.idempotency:
            found.idempotency = {
                (row.client, row.key): row
                for row in await select_keys(
                    self._db, IdempotencyRow, "client, key", "text[], text[]", wanted.idempotency
                )
            }
        if wanted.outbox:
            sql = "SELECT id, state FROM outbox WHERE id = ANY($1)"
            found.outbox = {row["id"]: row["state"] for row in await self._db.fetch(sql, list(wanted.outbox))}
        if wanted.arrivals:
            found.inbox, found.refusals = await read_arrivals(self._db, list(wanted.arrivals))
        if wanted.legs:
            legs = await self._legs({thread for thread, _ in wanted.legs})
            found.legs = {(leg.thread, leg.counterpart): leg for leg in legs}
        if wanted.pairs:
            sql = "SELECT recipient, next FROM pair WHERE origin = $1 AND recipient = ANY($2)"
            rows = await self._db.fetch(sql, self.head.origin, list(wanted.pairs))
            found.pairs = {row["recipient"]: row["next"] for row in rows}
        if wanted.relays:
            sql = f"SELECT {_COLUMN_LIST[RelayRow]} FROM relay WHERE digest = ANY($1)"
            rows = await self._db.fetch(sql, list(wanted.relays))
            found.relays = {row["digest"]: RelayRow(**row) for row in rows}
        if wanted.approvals:
            sql = f"SELECT {_COLUMN_LIST[ApprovalRow]} FROM approval WHERE id = ANY($1)"
            rows = await self._db.fetch(sql, list(wanted.approvals))
            found.approvals = {row["id"]: ApprovalRow(**row) for row in rows}
        return found

    async def _legs(self, threads: set[UUID]) -> list[Leg]:
        sql = f"SELECT {_COLUMN_LIST[Leg]} FROM leg WHERE thread = ANY($1)"
        return [Leg(**row) for row in await self._db.fetch(sql, list(threads))]

    async def write(self, writes: Writes) -> None:
        """Everything of the batch; DataError where the database refuses a row."""
        try:
            await self._write_ledger(writes)
            await self._write_rows(writes)
            await self._db.execute(_TELL)
        except _DATA as error:
            raise DataError(type(error).__name__) from error

    async def _write_ledger(self, writes: Writes) -> None:
        origin = self.head.origin
        if writes.entries:
            assert writes.checkpoint is not None  # entries always end in a checkpoint
            entries = [(origin, writes.old_size + i, data) for i, data in enumerate(writes.entries)]
            await self._db.copy_records_to_table("entry", records=entries, columns=["origin", "index", "data"])
            await self._db.execute(
                "INSERT INTO tile (origin, level, index, data) "
                "SELECT $1, * FROM unnest($2::smallint[], $3::bigint[], $4::bytea[]) "
                "ON CONFLICT (origin, level, index) DO UPDATE SET data = excluded.data",
                origin,
                [level for level, _ in writes.tiles],
                [index for _, index in writes.tiles],
                list(writes.tiles.values()),
            )
            new = writes.checkpoint
            await self._db.execute(
                "INSERT INTO checkpoint (origin, size, root, note, batch, at) VALUES ($1, $2, $3, $4, $5, $6)",
                *(origin, new.size, new.root, new.note, writes.batch, writes.at),
            )
            await self._db.execute(
                "UPDATE ledger_head SET size = $2, root = $3 WHERE origin = $1", origin, new.size, new.root
            )
        if writes.pairs:
            await self._db.execute(
                "INSERT INTO pair (origin, recipient, next) SELECT $1, * FROM unnest($2::text[], $3::bigint[]) "
                "ON CONFLICT (origin, recipient) DO UPDATE SET next = excluded.next",
                *(origin, list(writes.pairs), list(writes.pairs.values())),
            )

    async def _write_rows(self, writes: Writes) -> None:
        by_type: dict[type[Row], list[Row]] = {}
        for row in writes.rows:
            by_type.setdefault(type(row), []).append(row)
        for kind, rows in by_type.items():
            records = [tuple(getattr(row, name) for name in _COLUMNS[kind]) for row in rows]
            if kind is ProofRow:  # the same proof may come twice: as a parcel's and in another's answer
                await self._db.executemany(_KEEP_PROOF, records)
                continue
            await self._db.copy_records_to_table(_TABLES[kind], records=records, columns=_COLUMNS[kind])
        if writes.settled:
            last = {each[0]: each for each in writes.settled}  # an UPDATE that meets a row twice takes either
            await self._db.execute(
                "UPDATE outbox SET state = s, envelope = NULL, leased = NULL, problem = p "
                "FROM unnest($1::uuid[], $2::text[], $3::text[]) AS w(i, s, p) WHERE id = i",
                *map(list, zip(*last.values(), strict=True)),
            )
        if writes.resealed:
            await self._db.executemany(
                'UPDATE outbox SET origin = $2, "index" = $3, pair_seq = $4, digest = $5, seal_kid = $6, envelope = $7 WHERE id = $1',
                [
                    (each.id, each.origin, each.index, each.pair_seq, each.digest, each.seal_kid, each.envelope)
                    for each in writes.resealed
                ],
            )
        if writes.dispatched:
            keys = [sender for sender, _ in writes.dispatched], [id_ for _, id_ in writes.dispatched]
            for change in ("inbox SET dispatched", "review SET closed"):
                await self._db.execute(
                    f"UPDATE {change} = true FROM unnest($1::text[], $2::uuid[]) AS w(s, i) WHERE sender = s AND id = i",
                    *keys,
                )
        if writes.forgotten:
            sql = "DELETE FROM content WHERE sender = $2 AND id = ANY($1) AND part = 'about'"
            await self._db.execute(sql, writes.forgotten, self.head.origin.rpartition("/")[0])
        if writes.legs:
            await self._db.execute(
                _LEG_UPSERT, *([getattr(leg, name) for leg in writes.legs.values()] for name in _COLUMNS[Leg])
            )
        if writes.approvals:
            values = [[getattr(row, name) for name in _COLUMNS[ApprovalRow]] for row in writes.approvals.values()]
            await self._db.executemany(_APPROVAL_UPSERT, values)


async def _listen(connection: Connection, heard: Callable[..., None]) -> None:
    """Until the connection is lost."""
    lost = asyncio.Event()
    connection.add_termination_listener(lambda _: lost.set())
    try:
        await connection.add_listener(_CHANNEL, heard)
        await lost.wait()
    finally:
        connection.terminate()


async def _roll_back(connection: Connection) -> None:
    try:
        await connection.execute("ROLLBACK")
    except _FAILED:
        connection.terminate()


async def select_keys(
    connection: Connection, row: type[_T], key: str, types: str, keys: Collection[tuple[Any, Any]]
) -> list[_T]:
    """Rows of a table by their two-column keys, as their dataclass."""
    first, second = types.split(", ")
    sql = f"SELECT {_COLUMN_LIST[row]} FROM {_TABLES[row]} WHERE ({key}) IN (SELECT * FROM unnest($1::{first}, $2::{second}))"
    found = await connection.fetch(sql, [a for a, _ in keys], [b for _, b in keys])
    return [row(**record) for record in found]


async def read_arrivals(
    connection: Connection, keys: Sequence[tuple[str, UUID]]
) -> tuple[dict[tuple[str, UUID], InboxRow], dict[tuple[str, UUID], list[RefusalRow]]]:
    """What arrived before under (sender, id)."""
    inbox = await select_keys(connection, InboxRow, "sender, id", "text[], uuid[]", keys)
    refusals: dict[tuple[str, UUID], list[RefusalRow]] = {}
    for row in await select_keys(connection, RefusalRow, "sender, id", "text[], uuid[]", keys):
        refusals.setdefault((row.sender, row.id), []).append(row)
    return {(row.sender, row.id): row for row in inbox}, refusals


class PostgresLedger:
    """LedgerStore on a connection of its own for batches and a pool for reading."""

    def __init__(self, dsn: str, pool: Pool) -> None:
        self._dsn = dsn
        self._pool = pool
        self._connection: Connection | None = None
        self._identity = ("", 0)

    async def close(self) -> None:
        """Closes the committer's connection."""
        if self._connection is not None and not self._connection.is_closed():
            with suppress(TimeoutError):  # then asyncpg cuts it
                await self._connection.close(timeout=CLOSE_S)

    async def _own(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            connection = await connect(self._dsn)
            try:
                row = await connection.fetchrow(IDENTITY)
            except _FAILED as error:
                connection.terminate()
                raise Unavailable(type(error).__name__) from error
            assert row is not None  # two functions of one row each
            self._connection, self._identity = connection, (row[0], row[1])
        return self._connection

    @asynccontextmanager
    async def batch(self, origin: str) -> AsyncIterator[PostgresBatch]:
        """A transaction under the head lock; committed when the block ends without error.

        Unavailable (or ProblemError `store.full`) before COMMIT, OutcomeUnknown where COMMIT gave no answer, DataError
        for refused rows.
        """
        connection = await self._own()
        try:
            await connection.execute("BEGIN")
            yield PostgresBatch(connection, await self._lock(connection, origin))
        except asyncpg.DiskFullError as error:
            connection.terminate()
            raise ProblemError("store.full", "the database's disk is full") from error
        except _FAILED as error:
            connection.terminate()
            raise Unavailable(type(error).__name__) from error
        except BaseException:
            await _roll_back(connection)
            raise
        try:
            await connection.execute("COMMIT")
        except _FAILED as error:
            connection.terminate()
            raise OutcomeUnknown(type(error).__name__) from error

    async def _lock(self, connection: Connection, origin: str) -> Head:
        row = await connection.fetchrow(
            "SELECT size, root, generation FROM ledger_head, epoch WHERE origin = $1 "
            "FOR UPDATE OF ledger_head FOR SHARE OF epoch",  # so that whoever waited sees the newest of both
            origin,
        )
        if row is None:
            raise ProblemError("ledger.not_ready", "this ledger has no head in the database")
        identifier, timeline = self._identity
        return Head(
            origin=origin,
            size=row["size"],
            root=row["root"],
            generation=row["generation"],
            system_identifier=identifier,
            timeline=timeline,
        )

    async def find_batch(self, origin: str, batch: UUID) -> bool:
        """Under the head lock: whether that batch was committed."""
        connection = await self._own()
        try:
            async with connection.transaction():
                await self._lock(connection, origin)
                sql = "SELECT true FROM checkpoint WHERE batch = $1"
                return bool(await connection.fetchval(sql, batch))
        except _FAILED as error:
            connection.terminate()
            raise Unavailable(type(error).__name__) from error

    async def make_head(self, origin: str, root: bytes) -> None:
        """A head of size 0; ProblemError `config.invalid` where there is one."""
        sql = "INSERT INTO ledger_head (origin, size, root) VALUES ($1, 0, $2) ON CONFLICT DO NOTHING"
        if await self._pool.execute(sql, origin, root) != "INSERT 0 1":
            raise ProblemError("config.invalid", "the database has a head of this ledger already")

    async def heads(self) -> dict[str, tuple[int, bytes]]:
        """Origin -> (size, root)."""
        rows = await self._pool.fetch("SELECT origin, size, root FROM ledger_head ORDER BY origin")
        return {row["origin"]: (row["size"], row["root"]) for row in rows}

    async def entries(self, origin: str, start: int, end: int) -> list[bytes]:
        """Entries [start, end) as far as they exist."""
        sql = "SELECT data FROM entry WHERE origin = $1 AND index >= $2 AND index < $3 ORDER BY index"
        return [row["data"] for row in await self._pool.fetch(sql, origin, start, end)]

    async def entries_about(
        self, origin: str, ids: Sequence[UUID], *, kind: str = "", opened: int | None = None
    ) -> dict[int, bytes]:
        """Our entries whose message has one of these ids; without who read them, or the newest of that alone; all, or of a kind."""
        rows = await self._pool.fetch(
            f"SELECT index, data FROM entry WHERE origin = $1 AND {ENTRY_MESSAGE} = ANY($2) "
            "AND starts_with(encode(data, 'escape'), $3) = ($4::bigint IS NOT NULL) "
            "AND ($5 = '' OR starts_with(encode(data, 'escape'), '{\"v\":1,\"kind\":\"' || $5 || '\",')) ORDER BY index DESC LIMIT $4",
            *(origin, [str(id_) for id_ in ids], _OPENED, opened, kind),
        )
        return {row["index"]: row["data"] for row in reversed(rows)}

    async def tiles(self, origin: str, wanted: Sequence[TileId]) -> dict[TileId, bytes]:
        """Tiles as they stand."""
        async with self._pool.connection() as connection:
            return await read_tiles(connection, origin, wanted)

    async def mend_tile(self, origin: str, tile: TileId, wrong: bytes | None, right: bytes) -> bool:
        """Puts a tile right, if it still is what was found wrong, or still missing."""
        sql = (
            "INSERT INTO tile AS t (origin, level, index, data) VALUES ($1, $2, $3, $5) "
            "ON CONFLICT (origin, level, index) DO UPDATE SET data = $5 WHERE t.data = $4"
        )
        return await self._pool.execute(sql, origin, *tile, wrong, right) == "INSERT 0 1"

    async def checkpoint(self, origin: str, size: int | None = None) -> Checkpoint | None:
        """The newest checkpoint, or that of a size."""
        sql = (
            "SELECT size, root, note FROM checkpoint WHERE origin = $1 AND ($2::bigint IS NULL OR size = $2) "
            "ORDER BY size DESC LIMIT 1"
        )
        row = await self._pool.row(sql, origin, size)
        return Checkpoint(origin=origin, size=row["size"], root=row["root"], note=row["note"]) if row else None

    async def checkpoints(self, origin: str, after: int, size: int) -> list[Checkpoint]:
        """Checkpoints of sizes after one and up to another, the newest of each bundle of entries, smallest first."""
        rows = await self._pool.fetch(
            f"SELECT DISTINCT ON ((size - 1) / {WIDTH}) size, root, note FROM checkpoint "
            f"WHERE origin = $1 AND size > $2 AND size <= $3 ORDER BY (size - 1) / {WIDTH}, size DESC",
            *(origin, after, size),
        )
        return [Checkpoint(origin=origin, size=row["size"], root=row["root"], note=row["note"]) for row in rows]

    async def keep_cosignature(self, origin: str, size: int, witness: str, lines: bytes, at: datetime) -> None:
        """Keeps a witness's signature lines; newer ones are under its present keys."""
        await self._pool.execute(
            "INSERT INTO cosignature (origin, size, witness, lines, at) VALUES ($1, $2, $3, $4, $5) "
            "ON CONFLICT (origin, size, witness) DO UPDATE SET lines = $4, at = $5",
            *(origin, size, witness, lines, at),
        )

    async def cosignatures(self, origin: str, size: int) -> dict[str, bytes]:
        """Witness -> its signature lines."""
        sql = "SELECT witness, lines FROM cosignature WHERE origin = $1 AND size = $2 ORDER BY witness"
        return {row["witness"]: row["lines"] for row in await self._pool.fetch(sql, origin, size)}

    async def cosigned_since(self, origin: str, since: datetime) -> list[str]:
        """Witnesses of whom a cosignature came after a time."""
        sql = "SELECT DISTINCT witness FROM cosignature WHERE origin = $1 AND at > $2"
        return [row["witness"] for row in await self._pool.fetch(sql, origin, since)]

    async def witnessed(self, origin: str, most: int, quorum: int) -> int:
        """The newest size up to one that a quorum cosigned, else that of the most cosignatures."""
        sql = (
            "SELECT size FROM cosignature WHERE origin = $1 AND size <= $2 GROUP BY size "
            "ORDER BY least(count(*), $3) DESC, size DESC LIMIT 1"
        )
        row = await self._pool.row(sql, origin, most, max(quorum, 1))
        return int(row["size"]) if row else 0

    async def follow(self, wake: Callable[[], None]) -> None:
        """Calls `wake` whenever another process of this node committed; over a connection of its own, opened again when lost."""

        def heard(*told: object) -> None:
            if told[3] != SETTINGS["application_name"]:
                wake()

        while True:
            with suppress(Unavailable, *_FAILED):
                await _listen(await connect(self._dsn), heard)
            await asyncio.sleep(_LISTEN_AGAIN_S)

    async def identity(self) -> tuple[str, int]:
        """PostgreSQL system identifier and timeline."""
        row = await self._pool.row(IDENTITY)
        assert row is not None
        return row[0], row[1]
