"""The embedded PostgreSQL keeps what it committed, comes back when killed, and is stopped only by its owner."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from adapters.postgres.databases import prepare_database
from adapters.postgres.embedded import SOCKET_PATH_BYTES_MAX, EmbeddedServer
from protocols.problems import ProblemError

BACK_S = 20.0
STARTER = """
import asyncio, pathlib, sys
from adapters.postgres.embedded import EmbeddedServer
async def serve():
    await EmbeddedServer(pathlib.Path(sys.argv[1])).start()
    print("serving", flush=True)
    await asyncio.Event().wait()
asyncio.run(serve())
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """One cluster for this module; every test starts it, and finds it stopped."""
    path = Path(tempfile.mkdtemp(prefix="tw-"))
    yield path
    shutil.rmtree(path)


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[EmbeddedServer]:
    server = EmbeddedServer(folder)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def query(dsn: str, sql: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def postmaster(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().split()[0])


async def until_alive(server: EmbeddedServer) -> None:
    async with asyncio.timeout(BACK_S):
        while not await server.alive():
            await asyncio.sleep(0.02)


async def test_a_cluster_keeps_its_rows_over_stop_and_start(folder: Path) -> None:
    async with serving(folder) as server:
        owner, _ = await server.create_database("kept")
        await query(owner, "CREATE TABLE t AS SELECT 7 AS n")
    assert not await server.alive()
    await server.start()
    try:
        assert await query(owner, "SELECT n FROM t") == 7
    finally:
        await server.stop()


async def test_a_cluster_has_checksums_durable_commits_utf8_and_no_tcp(folder: Path) -> None:
    async with serving(folder) as server:
        dsn = server.dsn("postgres")
        names = ("data_checksums", "fsync", "synchronous_commit", "server_encoding", "listen_addresses", "jit")
        shown = [await query(dsn, f"SHOW {name}") for name in names]
        assert shown == ["on", "on", "on", "UTF8", "", "off"]
        assert await query(dsn, "SELECT datlocale FROM pg_database WHERE datname = 'postgres'") == "C.UTF-8"
        assert os.getsid(postmaster(folder)) != os.getsid(0)
        assert folder.stat().st_mode & 0o777 == 0o700


async def test_supervise_brings_back_a_killed_postmaster_with_every_committed_row(folder: Path) -> None:
    async with serving(folder) as server:
        owner, _ = await server.create_database("killed")
        await query(owner, "CREATE TABLE t (n int)")
        supervisor = asyncio.create_task(server.supervise())
        try:
            for n in (1, 2):
                await query(owner, f"INSERT INTO t VALUES ({n})")
                killed = postmaster(folder)
                os.kill(killed, signal.SIGKILL)
                await until_alive(server)
                assert postmaster(folder) != killed
                assert await query(owner, "SELECT count(*) FROM t") == n
        finally:
            supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await supervisor


async def test_a_second_server_on_the_folder_shares_and_does_not_stop_it(folder: Path) -> None:
    async with serving(folder) as first:
        pid = postmaster(folder)
        async with serving(folder) as second:
            assert await second.alive()
            assert postmaster(folder) == pid
        assert await first.alive()
    assert not await first.alive()


async def test_a_command_leaves_a_server_as_it_found_it(folder: Path) -> None:
    async with EmbeddedServer(folder).running():
        assert await EmbeddedServer(folder).alive()
    assert not await EmbeddedServer(folder).alive()
    orphaned(folder)
    async with EmbeddedServer(folder).running():
        pid = postmaster(folder)
    assert await EmbeddedServer(folder).alive()
    assert postmaster(folder) == pid
    async with serving(folder):
        pass


async def test_what_a_killed_owner_left_running_is_adopted_and_stopped(folder: Path) -> None:
    orphaned(folder)
    pid = postmaster(folder)
    async with serving(folder) as server:
        assert postmaster(folder) == pid
    assert not await server.alive()
    assert not (folder / "data" / "postmaster.pid").exists()


def orphaned(folder: Path) -> None:
    """A postmaster whose starter was killed."""
    starter = subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", STARTER, folder], stdout=subprocess.PIPE, cwd=Path.cwd()
    )
    with starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"serving\n"
        starter.kill()


@pytest.mark.parametrize("state", ["zombie", "alive"])
async def test_a_pid_file_naming_a_zombie_or_a_stranger_does_not_hinder_the_start(folder: Path, state: str) -> None:
    async with serving(folder):
        account = (folder / "data").stat().st_uid  # PostgreSQL itself sees through pids of other accounts
    stranger = subprocess.Popen(["/bin/sleep", "600"], user=account)  # noqa: ASYNC220
    try:
        if state == "zombie":
            stranger.kill()
            os.waitid(os.P_PID, stranger.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - it was killed
        lines = (str(stranger.pid), f"{folder}/data", "1", "5432", str(folder), "", "1 1", "ready", "")
        (folder / "data" / "postmaster.pid").write_text("\n".join(lines))
        async with serving(folder):
            assert postmaster(folder) != stranger.pid
    finally:
        stranger.kill()
        stranger.wait()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder the server's account may pass, unlike tmp_path under root."""
    path = Path(tempfile.mkdtemp(prefix="tw-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


async def test_a_path_unfit_for_a_socket_gets_a_private_short_folder_that_goes_with_the_server(
    open_folder: Path,
) -> None:
    long = open_folder / "a, b" / ("x" * SOCKET_PATH_BYTES_MAX)
    server = EmbeddedServer(long, major=16)
    sockets = Path(server.dsn("d").partition("host=")[2].partition("&")[0])
    await server.start()
    try:
        assert sockets.stat().st_mode & 0o777 == 0o700
        assert open_folder not in sockets.parents
        ctype = "SELECT datctype FROM pg_database WHERE datname = 'postgres'"
        assert await query(server.dsn("postgres"), ctype) == "C.UTF-8"
    finally:
        await server.stop()
    assert not sockets.exists()
    assert EmbeddedServer(long.with_name("y" * SOCKET_PATH_BYTES_MAX)).dsn("d") != server.dsn("d")


async def test_a_folder_with_other_files_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(ProblemError, match=r"config\.invalid.*other files"):
        await EmbeddedServer(tmp_path).start()
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another account")
async def test_a_folder_the_servers_account_cannot_reach_is_refused_with_the_fix(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(ProblemError, match=r"config\.invalid.*cannot pass.*chmod o\+x"):
        await EmbeddedServer(tmp_path / "pg").start()


async def test_the_app_role_may_connect_and_nothing_more(postgres: EmbeddedServer, database_name: str) -> None:
    owner, app = await postgres.create_database(database_name)
    await query(owner, "CREATE TABLE secret AS SELECT 1 AS n")
    assert await query(app, "SELECT current_user::text") == f"{database_name}_app"
    for sql in ("CREATE TABLE mine (n int)", "CREATE TEMP TABLE mine (n int)", "CREATE SCHEMA mine", "TABLE secret"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await query(app, sql)


async def test_no_role_of_one_database_may_connect_to_another(postgres: EmbeddedServer, database_name: str) -> None:
    await postgres.create_database(database_name)
    await postgres.create_database(f"{database_name}_b")
    for role in (f"{database_name}_b_app", f"{database_name}_b_owner"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await query(postgres.dsn(database_name, user=role), "SELECT 1")


async def test_create_database_may_be_repeated_and_run_at_once(postgres: EmbeddedServer, database_name: str) -> None:
    made = await asyncio.gather(*(postgres.create_database(database_name) for _ in range(3)))
    await query(made[0][0], "CREATE TABLE t AS SELECT 7 AS n")
    assert {await postgres.create_database(database_name), *made} == {made[0]}
    assert await query(made[0][0], "SELECT n FROM t") == 7


@pytest.mark.parametrize("name", ["", "Upper", "1st", 'a"b', "a-b", "a" * 57, "a\n"])
async def test_a_name_that_would_need_quoting_is_refused(postgres: EmbeddedServer, name: str) -> None:
    with pytest.raises(ProblemError, match=r"config\.invalid"):
        await postgres.create_database(name)


async def test_an_administrator_without_superuser_can_prepare_a_database(
    postgres: EmbeddedServer, database_name: str
) -> None:
    admin = f"{database_name}_admin"
    await query(postgres.dsn("postgres"), f"CREATE ROLE {admin} LOGIN CREATEDB CREATEROLE")
    dsn = postgres.dsn("postgres", user=admin)
    owner, app = await prepare_database(dsn, database_name)
    assert await prepare_database(dsn, database_name) == (owner, app)
    await query(owner, "CREATE TABLE t AS SELECT 7 AS n")
    assert await query(app, "SELECT 7") == 7


async def test_an_administrator_without_the_rights_is_told_so(postgres: EmbeddedServer, database_name: str) -> None:
    _, app = await postgres.create_database(database_name)
    with pytest.raises(ProblemError, match="CREATEROLE"):
        await prepare_database(app, f"{database_name}_b")


async def test_over_a_network_a_password_is_required() -> None:
    with pytest.raises(ProblemError, match="password"):
        await prepare_database("postgresql://admin:x@db.example:5432/postgres?sslmode=verify-full", "node")


async def test_each_role_gets_a_password_of_its_own(postgres: EmbeddedServer, database_name: str) -> None:
    owner, app = await prepare_database(postgres.dsn("postgres"), database_name, password="a secret")
    secrets = [dsn.partition("@")[0].rpartition(":")[2] for dsn in (owner, app)]
    assert secrets[0] != secrets[1]
    assert not any("a secret" in dsn for dsn in (owner, app))
    assert await query(app, "SELECT 7") == 7
    admin = postgres.dsn("postgres")
    kinds = f"SELECT count(*) FROM pg_authid WHERE rolname LIKE '{database_name}%' AND rolpassword LIKE 'SCRAM%'"
    assert await query(admin, kinds) == 2
