"""The demo's federation: an authority and three members as processes of their own, one embedded PostgreSQL.

It is set up through the commands that a user would call; they run in this process, since processes start slowly.
"""

import asyncio
import contextlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.runtime.cli import directory, member, node, registry
from gateway.runtime.cli.say import SecretFrom
from protocols.directory import Role
from protocols.problems import ProblemError

READY_S = 60.0
STOP_S = 30.0
NETWORK = "demo"
_PORTS_FROM, _PORTS_TO = 20_000, 32_000  # below the range that outgoing connections take
TRACEWIRE = [sys.executable, "-c", "from gateway.runtime.cli.main import main; main()"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member of the demo; `ports` are agency, exchange and operations."""

    short: str
    name: str
    country: str
    role: Role
    ports: tuple[int, int, int]

    @property
    def full(self) -> str:
        """As the directory lists it."""
        return f"{NETWORK}/{self.short}"


_MEMBERS: tuple[tuple[str, str, str, Role], ...] = (
    ("police", "Focal Point of Freedonia", "CA", "focal-point"),
    ("registry", "Firearms Registry", "US", "registry"),
    ("maker", "Arms Works Ltd", "AT", "manufacturer"),
)


def state_folder() -> Path:
    """Where the demo of this account lives: open to the account that PostgreSQL runs as when we are root."""
    return Path(tempfile.gettempdir()).resolve() / f"tracewire-demo-{os.geteuid()}"


def quietly(command: Callable[..., Any], *args: Any, **options: Any) -> dict[str, Any]:
    """What a command of `tracewire` prints with --json; its problem ends the demo with exit code 1."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        command(*args, json=True, **options)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


class Federation:
    """Processes and folders of one demo under `folder`; `close` ends and removes all of it."""

    def __init__(self, folder: Path) -> None:
        from adapters.postgres.embedded import EmbeddedServer

        self.folder = folder
        self.members: dict[str, Member] = {}
        self.directory_url = ""
        self._server = EmbeddedServer(folder / "postgres")
        self._pids = folder / "pids"
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def open(self) -> None:
        """A fresh folder with a running PostgreSQL."""
        self.folder.mkdir(mode=0o755)
        self.folder.chmod(0o755)
        asyncio.run(self._server.start())
        ports = _free_ports()
        for short, name, country, role in _MEMBERS:
            three = next(ports), next(ports), next(ports)
            self.members[short] = Member(short=short, name=name, country=country, role=role, ports=three)
        self.directory_url = f"http://127.0.0.1:{next(ports)}"

    def node(self, short: str) -> Path:
        """A member's node folder."""
        return self.folder / short

    def found_directory(self) -> None:
        """The authority's keys and first version, and the process that serves it."""
        authority = self.folder / "authority"
        quietly(directory.init, authority, network=NETWORK, secret=self.secret("authority"))
        port = self.directory_url.rpartition(":")[2]
        self._launch("authority", "directory", "serve", str(authority), "--port", port)

    def make_node(self, short: str) -> None:
        """Keys, settings, database and admission of one member; in force once published."""
        found, secret = self.members[short], self.secret(short)
        agency, exchange, operations = (f"127.0.0.1:{port}" for port in found.ports)
        settings = [
            f"agency_bind={agency}",
            f"exchange_bind={exchange}",
            f"operations_bind={operations}",
            f"postgres_folder={self.folder / 'postgres'}",
            f"postgres_database=node_{short}",
            f"registry={str(found.role == 'registry').lower()}",
        ]
        quietly(
            node.init, self.node(short), member=found.full, name=found.name, country=found.country,
            root=self.folder / "authority" / "repository" / "1.root.json", directory=self.directory_url,
            exchange_url=f"http://{exchange}", settings=settings, secret=secret,
        )  # fmt: skip
        request = quietly(member.request, self.node(short), secret=secret)["request"]
        asked = self._admit(request, found.role)
        quietly(member.request, self.node(short), answer=Path(asked["challenge"]), secret=secret)
        self._admit(request, found.role)

    def publish(self) -> None:
        """All that were admitted, in force."""
        quietly(directory.publish, self.folder / "authority", secret=self.secret("authority"))

    def fill_register(self, text: str) -> int:
        """Imports guns into the registry's register; how many it holds."""
        path = self.folder / "register.csv"
        path.write_text(text, encoding="utf-8")
        return int(quietly(registry.import_, self.node("registry"), path)["size"])

    def run_nodes(self) -> None:
        """Starts every node and waits until all are ready."""
        for short in self.members:
            self._launch(short, "run", str(self.node(short)))
        until = time.monotonic() + READY_S
        for short, found in self.members.items():
            while not (_answers(found.ports[2], "/readyz") and _answers(found.ports[0], "/")):
                if time.monotonic() > until or self._ended(short):
                    raise ProblemError("config.invalid", f"{found.full} does not start, see {self.log(short)}")
                time.sleep(0.05)

    def log(self, short: str) -> Path:
        """Where a process logs."""
        return self.folder / f"{short}.log"

    def stop(self) -> None:
        """Ends the processes, nodes first, then PostgreSQL, whoever started them."""
        living = [pid for pid in self._written_pids() if self._is_ours(pid)]
        for pid in living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + STOP_S
        while living := [pid for pid in living if self._is_ours(pid)]:
            if time.monotonic() > until:
                for pid in living:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        if (self.folder / "postgres" / "data").exists():
            asyncio.run(self._stop_server())

    def close(self) -> None:
        """Ends everything and removes the folder; a folder that is not ours is refused."""
        if not self.folder.exists():
            return
        if self.folder.is_symlink() or self.folder.stat().st_uid != os.geteuid():
            raise ProblemError("config.invalid", f"{self.folder} is another user's; remove it first")
        self.stop()
        shutil.rmtree(self.folder)

    def alive(self) -> bool:
        """Whether all processes of a demo run."""
        pids = self._written_pids()
        return len(pids) == len(_MEMBERS) + 1 and all(self._is_ours(pid) for pid in pids)

    async def _stop_server(self) -> None:
        await self._server.start()  # takes over what an ended demo left running
        await self._server.stop()

    def _admit(self, request: str, role: Role) -> dict[str, Any]:
        secret = self.secret("authority")
        return quietly(directory.admit, self.folder / "authority", request, role=[role], secret=secret)

    def secret(self, short: str) -> SecretFrom:
        """What opens the keys of one organisation."""
        return SecretFrom(key_file=self.folder / f"{short}.key")

    def _launch(self, short: str, *words: str) -> None:
        command = [*TRACEWIRE, *words, "--key-file", str(self.folder / f"{short}.key")]
        with self.log(short).open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - ourselves, no shell; its own session, so that Ctrl-C ends us first
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._children[process.pid] = process
        with self._pids.open("a", encoding="ascii") as pids:
            pids.write(f"{short} {process.pid}\n")

    def _written_pids(self) -> list[int]:
        if not self._pids.exists():
            return []
        return [int(line.split()[1]) for line in self._pids.read_text(encoding="ascii").splitlines()]

    def _ended(self, short: str) -> bool:
        pids = dict(line.split() for line in self._pids.read_text(encoding="ascii").splitlines())
        return not self._is_ours(int(pids[short]))

    def _is_ours(self, pid: int) -> bool:
        """Whether it runs and has our folder among its arguments: a pid may be another process's by now."""
        if pid in self._children:
            return self._children[pid].poll() is None
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False
        return f"{self.folder}/".encode() in arguments


def _free_ports() -> Iterator[int]:
    for port in range(_PORTS_FROM + os.getpid() * 16 % (_PORTS_TO - _PORTS_FROM), _PORTS_TO + 8_000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            yield port


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status in (200, 404)
    except OSError:
        return False
    finally:
        connection.close()
