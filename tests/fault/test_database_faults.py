"""What befalls PostgreSQL, D01-D12 of faults.yaml: no node is restarted by anyone, and afterwards all invariants hold."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from adapters.postgres.connect import CONNECTIONS_MAX
from adapters.postgres.embedded import EmbeddedServer
from gateway.runtime.client import AgencyClient
from tests.fault.conftest import ROUNDS
from tests.fault.pair import Load, Pair, Violation
from tests.fault.rounds import Break, faulty
from tests.federation import admin

HOLD_S = 6.0  # longer than our lock_timeout of 5 s
DISK_MB = 320


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    """A cluster of the test's own, to be broken."""
    folder = Path(tempfile.mkdtemp(prefix="tw-"))
    with _running(folder) as server:
        yield server
    shutil.rmtree(folder)


@contextlib.contextmanager
def _running(folder: Path) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(folder)
    asyncio.run(server.start())
    try:
        yield server
    finally:
        asyncio.run(server.stop())


def _postmaster(server: EmbeddedServer) -> int:
    pid = server._running()
    assert pid is not None
    return pid


async def one_backend(server: EmbeddedServer, pair: Pair, load: Load) -> None:
    """D01: the kernel kills one; PostgreSQL throws all sessions out."""
    row = await pair.a.node.sql(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'tracewire%' LIMIT 1"
    )
    os.kill(row["pid"], signal.SIGKILL)


def _ended_by(*numbers: signal.Signals) -> Break:
    """D02, D03: the postmaster goes and comes back after a while."""
    turns = iter(numbers * 100)

    async def end(server: EmbeddedServer, pair: Pair, load: Load) -> None:
        os.kill(_postmaster(server), next(turns))
        while server._running() is not None:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)  # requests come while nothing is there
        await server.start()

    return end


async def head_lock_holder(server: EmbeddedServer, pair: Pair, load: Load) -> None:
    """D04: ten transactions that hold a head lock are ended by an administrator."""
    sql = (
        "SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation "
        "WHERE c.relname = 'ledger_head' AND l.mode IN ('RowShareLock', 'RowExclusiveLock') AND l.granted LIMIT 1"
    )
    ended = 0
    for node in (pair.a.node, pair.b.node):
        connection = await asyncpg.connect(server.dsn(node.database))
        try:
            async with asyncio.timeout(20):
                while ended < (5 if node is pair.a.node else 7):
                    ended += bool(await connection.fetchval(sql))
        finally:
            await connection.close()


@contextlib.asynccontextmanager
async def _held(server: EmbeddedServer, pair: Pair, *statements: str) -> AsyncIterator[None]:
    """Locks that an administrator holds, idle in a transaction."""
    connection = await asyncpg.connect(server.dsn(pair.a.node.database))
    try:
        await connection.execute("BEGIN")
        for statement in statements:
            await connection.execute(statement)
        yield
        await connection.execute("ROLLBACK")
    finally:
        await connection.close()


async def held_lock(server: EmbeddedServer, pair: Pair, load: Load) -> None:
    """D10: the head row of a is held for longer than our lock_timeout."""
    async with _held(server, pair, "SELECT * FROM ledger_head FOR UPDATE"):
        await asyncio.sleep(HOLD_S)


async def exhausted_pool(server: EmbeddedServer, pair: Pair, load: Load) -> None:
    """D11: every connection of a's pool waits for a lock; whoever comes then is told to come again."""
    async with (
        AgencyClient.of_node(pair.a.node.folder) as agency,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {await agency.token()}"}) as session,
        _held(server, pair, "LOCK TABLE leg IN ACCESS EXCLUSIVE MODE"),
    ):

        async def ask() -> tuple[int, str | None, str]:
            async with session.get(agency.url + "/v1/traces") as response:
                return response.status, response.headers.get("Retry-After"), (await response.json())["code"]

        told = await asyncio.gather(*(ask() for _ in range(2 * CONNECTIONS_MAX)))
    if set(told) != {(503, "5", "store.busy")}:
        raise Violation(f"D11: told {set(told)}")


@pytest.mark.slow
async def test_d01_a_killed_backend_costs_nothing_but_time(server: EmbeddedServer) -> None:
    await faulty(server, one_backend, ROUNDS)


async def test_d02_what_was_answered_survives_a_killed_postmaster(server: EmbeddedServer) -> None:
    await faulty(server, _ended_by(signal.SIGKILL), ROUNDS)


@pytest.mark.slow
async def test_d03_nodes_outlive_restarts_of_the_database(server: EmbeddedServer) -> None:
    await faulty(server, _ended_by(signal.SIGQUIT, signal.SIGINT), max(2, ROUNDS))


@pytest.mark.slow
async def test_d04_a_batch_whose_connection_is_ended_is_answered_or_done_again(server: EmbeddedServer) -> None:
    await faulty(server, head_lock_holder, ROUNDS)


@pytest.mark.slow
async def test_d10_a_lock_that_a_person_holds_delays_and_breaks_nothing(server: EmbeddedServer) -> None:
    await faulty(server, held_lock, ROUNDS)


@pytest.mark.slow
async def test_d11_an_exhausted_pool_is_busy_with_a_time_to_come_again(server: EmbeddedServer) -> None:
    await faulty(server, exhausted_pool, ROUNDS)


@pytest.fixture
def small_disk() -> Iterator[EmbeddedServer]:
    """A cluster on a disk of its own, which can be filled."""
    if os.geteuid() != 0:
        pytest.skip("D07 mounts a tmpfs: run as root")
    folder = Path(tempfile.mkdtemp(prefix="tw-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=711", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip(f"D07 cannot mount a tmpfs here: {mounted.stderr.decode().strip()}")
    try:
        with _running(folder / "pg") as server:
            yield server
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def _ballast(server: EmbeddedServer) -> Path:
    return server._folder.parent / "ballast"


async def full_disk(server: EmbeddedServer, pair: Pair, load: Load) -> None:
    """D07: the disk fills up until PostgreSQL panics for want of a new WAL file; it starts when there is room again."""
    with _ballast(server).open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 20))
            file.flush()
    with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        async with admin(server) as connection, asyncio.timeout(30):
            while True:
                await connection.execute("SELECT pg_switch_wal(), txid_current()")
    await asyncio.sleep(2)  # requests come while nothing can be written
    assert "PANIC" in server._log_file.read_text(), "the write-ahead log could not grow"
    _ballast(server).unlink()
    await server.start()


@pytest.mark.slow
async def test_d07_what_was_answered_survives_a_full_disk(small_disk: EmbeddedServer) -> None:
    await faulty(small_disk, full_disk, min(ROUNDS, 3))
