"""The schema: the same on every PostgreSQL that we run on; the application may add to the ledger, never change it."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from alembic import command
from alembic.script import ScriptDirectory

from adapters.postgres.connect import Pool, connect
from adapters.postgres.embedded import EmbeddedServer
from adapters.postgres.ledger import PostgresLedger
from adapters.postgres.migrate import _config, _connected, drift, migrate, newest
from protocols.ledger.merkle import EMPTY_ROOT
from protocols.ports.rows import EventRow
from protocols.ports.store import DataError, OutcomeUnknown, Unavailable, Writes
from protocols.problems import ProblemError

ORIGIN = "testnet/a/2026.1"


async def test_a_dsn_that_can_never_be_used_is_said_so() -> None:
    for connecting in (connect, Pool.open):
        with pytest.raises(ProblemError, match=r"config\.invalid"):
            await connecting("postgresql://x@127.0.0.1/x?sslmode=nonsense")


async def test_a_server_that_falls_silent_is_unavailable_and_holds_up_no_end(postgres: EmbeddedServer) -> None:
    pool = await Pool.open(postgres.dsn("postgres"), 2)
    row = await pool.row("SELECT pg_backend_pid()")
    assert row is not None
    os.kill(row[0], signal.SIGSTOP)
    try:
        with pytest.raises(Unavailable):
            await pool.fetch("SELECT 1")
        assert await pool.fetch("SELECT 1"), "over another connection"
        held = pool._pool.acquire()
        await held
        async with asyncio.timeout(5):
            await pool.close(0.3)
    finally:
        os.kill(row[0], signal.SIGCONT)


class Debian(EmbeddedServer):
    """The same supervision over Debian's binaries, whose initdb of 15 has no builtin locale."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        super().__init__(folder, major=16)
        self._bin = binaries


def made(folder: Path, major: int) -> EmbeddedServer:
    """A server of this major version: the wheel's, or Debian's where it is there."""
    if major in (16, 18):
        return EmbeddedServer(folder, major=major)
    binaries = Path(f"/usr/lib/postgresql/{major}/bin")
    if not (binaries / "initdb").exists():
        pytest.skip(f"Debian's PostgreSQL {major} is not here")
    return Debian(folder, binaries)


@pytest.fixture(params=[18, 16, 15])
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    folder = Path(tempfile.mkdtemp(prefix="tw-"))
    try:
        if request.param == 18:
            yield request.getfixturevalue("postgres")
            return
        found = made(folder, request.param)
        asyncio.run(found.start())
        try:
            yield found
        finally:
            asyncio.run(found.stop())
    finally:
        shutil.rmtree(folder)


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def test_the_migrations_make_exactly_the_tables_and_a_second_run_changes_nothing(
    server: EmbeddedServer, database_name: str
) -> None:
    owner, app = await server.create_database(database_name)
    for _ in range(2):
        await migrate(owner)
        assert await drift(owner) == []
    async with connected(app) as connection:
        assert await connection.fetchval("SELECT version_num FROM alembic_version") == newest()
    pool = await Pool.open(app)
    ledger = PostgresLedger(app, pool)
    await ledger.make_head(ORIGIN, EMPTY_ROOT)
    async with ledger.batch(ORIGIN) as batch:
        assert (batch.head.size, batch.head.generation) == (0, 1)
        assert len(batch.head.system_identifier) > 10
    await ledger.close()
    await pool.close()


async def test_k23_a_migration_that_is_killed_leaves_nothing_and_is_done_again(
    postgres: EmbeddedServer, database_name: str
) -> None:
    owner, _ = await postgres.create_database(database_name)
    program = f"import asyncio; from adapters.postgres.migrate import migrate; asyncio.run(migrate({owner!r}))"
    async with connected(owner) as connection, connected(owner) as other:
        tables = await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        await other.execute("BEGIN")
        await other.execute("CREATE TABLE aside ()")  # what a late step wants to make: it waits in its midst
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
        async with asyncio.timeout(30):
            while not await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            ):
                assert process.returncode is None
                await asyncio.sleep(0.05)
        process.kill()
        await process.wait()
        await other.execute("ROLLBACK")
        async with asyncio.timeout(30):
            while (
                await connection.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
                )
                > 2
            ):
                await asyncio.sleep(0.05)
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == tables
    await migrate(owner)
    assert await drift(owner) == []


async def test_d13_a_bit_that_flips_on_the_disk_is_a_store_that_is_away_and_never_a_wrong_answer() -> None:
    folder = Path(tempfile.mkdtemp(prefix="tw-"))
    server = EmbeddedServer(folder)
    await server.start()
    try:
        owner, app = await server.create_database("flipped")
        await migrate(owner)
        async with connected(owner) as connection:
            sql = "INSERT INTO ledger_head (origin, size, root) VALUES ($1, 0, $2)"
            await connection.execute(sql, ORIGIN, EMPTY_ROOT)
            path = await connection.fetchval("SELECT pg_relation_filepath('ledger_head')")
        await server.stop()
        (data,) = folder.rglob(path)
        page = bytearray(data.read_bytes())
        page[8000] ^= 1  # within the row, at the end of the first page
        data.write_bytes(page)
        await server.start()
        pool = await Pool.open(app)
        ledger = PostgresLedger(app, pool)
        with pytest.raises(Unavailable, match="DataCorrupted"):
            await ledger.heads()
        with pytest.raises(Unavailable, match="DataCorrupted"):
            async with ledger.batch(ORIGIN):
                pass
        await ledger.close()
        await pool.close()
    finally:
        await server.stop()
        shutil.rmtree(folder)


@pytest.fixture
async def dsns(postgres: EmbeddedServer, database_name: str) -> tuple[str, str]:
    owner, app = await postgres.create_database(database_name)
    await migrate(owner)
    return owner, app


async def test_the_application_may_add_to_the_ledger_but_not_change_it_nor_the_schema(dsns: tuple[str, str]) -> None:
    owner, app = dsns
    async with connected(owner) as connection:
        await connection.execute("INSERT INTO entry VALUES ('o', 0, 'x')")
    async with connected(app) as connection:
        await connection.execute("INSERT INTO entry VALUES ('o', 1, 'y')")
        for statement in (
            "UPDATE entry SET data = 'z'",
            "DELETE FROM entry",
            "TRUNCATE entry",
            "INSERT INTO entry VALUES ('o', 0, 'z') ON CONFLICT (origin, index) DO UPDATE SET data = 'z'",
            "UPDATE checkpoint SET note = 'z'",
            "DELETE FROM checkpoint",
            "UPDATE alembic_version SET version_num = 'z'",
            "DROP TABLE entry",
            "ALTER TABLE entry ADD COLUMN x int",
            "ALTER TABLE entry DISABLE TRIGGER ALL",
            "CREATE TABLE mine (x int)",
            "CREATE SCHEMA mine",
            "CREATE ROLE other",
            "SELECT pg_read_file('/etc/passwd')",
            "COPY entry TO PROGRAM 'cat'",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        assert (
            await connection.fetchval("SELECT string_agg(data::text, ',' ORDER BY index) FROM entry") == "\\x78,\\x79"
        )


async def test_another_nodes_role_may_not_even_connect(dsns: tuple[str, str], postgres: EmbeddedServer) -> None:
    await postgres.create_database("neighbour")
    database = dsns[1].partition("@/")[2].partition("?")[0]
    with pytest.raises(Unavailable):
        await connect(postgres.dsn(database, user="neighbour_app"))


async def test_a_batch_is_all_or_nothing_and_only_one_runs_at_a_time(dsns: tuple[str, str]) -> None:
    pool = await Pool.open(dsns[1])
    first, second = PostgresLedger(dsns[1], pool), PostgresLedger(dsns[1], pool)
    await first.make_head(ORIGIN, EMPTY_ROOT)
    with pytest.raises(ProblemError):
        await first.make_head(ORIGIN, EMPTY_ROOT)
    with pytest.raises(KeyError):
        async with first.batch(ORIGIN) as batch:
            await batch.tiles([(0, 0)])
            raise KeyError("anything")
    holding, go = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with first.batch(ORIGIN):
            holding.set()
            await go.wait()

    holder = asyncio.ensure_future(hold())
    await holding.wait()
    waiter = asyncio.ensure_future(second._own())
    await waiter
    await waiter.result().execute("SET lock_timeout = '50ms'")
    with pytest.raises(Unavailable):
        async with second.batch(ORIGIN):
            raise AssertionError("two batches at once")
    go.set()
    await holder
    async with second.batch(ORIGIN) as batch:
        assert batch.head.size == 0
    with pytest.raises(ProblemError):
        async with second.batch("testnet/a/2027.1"):
            raise AssertionError("a ledger without a head")
    await first.close()
    await second.close()
    await pool.close()


@pytest.mark.parametrize(("where", "error"), [("inside", Unavailable), ("commit", OutcomeUnknown)])
async def test_a_lost_connection_says_whether_the_outcome_is_known(
    dsns: tuple[str, str], where: str, error: type[Exception]
) -> None:
    pool = await Pool.open(dsns[1])
    ledger = PostgresLedger(dsns[1], pool)
    await ledger.make_head(ORIGIN, EMPTY_ROOT)
    async with connected(dsns[1]) as owner:
        with pytest.raises(error):
            async with ledger.batch(ORIGIN) as batch:
                await owner.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE state = 'idle in transaction' AND datname = current_database()"
                )
                if where == "inside":
                    await batch.tiles([(0, 0)])
    async with ledger.batch(ORIGIN) as batch:
        assert batch.head.size == 0
    await ledger.close()
    await pool.close()


async def test_the_store_says_data_error_and_nothing_of_the_batch_is_kept(dsns: tuple[str, str]) -> None:
    pool = await Pool.open(dsns[1])
    ledger = PostgresLedger(dsns[1], pool)
    await ledger.make_head(ORIGIN, EMPTY_ROOT)
    at, id_ = datetime(2026, 11, 22, tzinfo=UTC), UUID("01a2058a-4186-7126-8d50-d08ecb4c4b03")

    def event(kind: str) -> EventRow:
        return EventRow(at=at, kind=kind, thread=id_, counterpart="testnet/b", message=id_)

    with pytest.raises(DataError) as caught:
        async with ledger.batch(ORIGIN) as batch:
            await batch.write(Writes(batch=id_, at=at, old_size=0, rows=[event("fine"), event("SECRET\0")]))
    assert "SECRET" not in str(caught.value)
    async with ledger.batch(ORIGIN) as batch:
        await batch.write(Writes(batch=id_, at=at, old_size=0, rows=[event("kept")]))
    assert [row["kind"] for row in await pool.fetch("SELECT kind FROM event")] == ["kept"]
    await ledger.close()
    await pool.close()


COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable = 'NO' AND column_default IS NULL AS must
FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'
"""
BEFORE_ANY_RELEASE = "0008"  # until here columns were still renamed; from here on a release may have run


async def test_u02_whoever_goes_back_to_older_software_finds_everything_that_it_writes_and_reads(
    postgres: EmbeddedServer, database_name: str
) -> None:
    """Migrations expand: no table or column goes or changes its type, and none must be written that older software does not know."""
    owner, _ = await postgres.create_database(database_name)
    steps = [step.revision for step in ScriptDirectory.from_config(_config()).walk_revisions()][::-1]
    known: dict[tuple[str, str], tuple[str, bool]] = {}
    for step in steps[steps.index(BEFORE_ANY_RELEASE) :]:

        def upgrade(connection: Any, step: str = step) -> None:
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, step)

        async with _connected(owner) as connection, connection.begin():
            await connection.run_sync(upgrade)
        async with connected(postgres.dsn(database_name)) as reader:
            rows = await reader.fetch(COLUMNS)
        found = {(table, column): (type_, must) for table, column, type_, must in rows}
        tables = {table for table, _ in known}
        assert {place: kind for place, kind in found.items() if place in known} == known, f"{step} takes something away"
        added = [place for place, (_, must) in found.items() if place[0] in tables and place not in known and must]
        assert not added, f"{step}: older software does not fill {added}"
        known = found
    assert len(known) > 100
