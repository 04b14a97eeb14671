"""The demo's federation: an authority and five members as processes of their own, one embedded PostgreSQL.

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
from importlib import resources
from pathlib import Path
from typing import Any

from adapters.postgres.embedded import EmbeddedServer
from gateway.runtime.cli import directory, member, node, registry
from gateway.runtime.cli.say import SecretFrom
from gateway.runtime.settings import load_settings
from protocols.directory import Role
from protocols.problems import ProblemError

TRACEWIRE = [sys.executable, "-c", "from gateway.runtime.cli.main import main; main()"]
# name, country, role, makes that it answers for (none: all of its country)
MEMBERS: dict[str, tuple[str, str, Role, list[str]]] = {
    "police": ("Focal Point of Freedonia", "CA", "focal-point", []),
    "registry": ("Firearms Registry", "US", "registry", []),
    "maker": ("Arms Works Ltd", "AT", "manufacturer", ["Glock"]),
    "importer": ("Imports Incorporated", "US", "manufacturer", ["Glock"]),
    "field": ("Conflict Arms Field Team", "ML", "investigator", []),
}
ON_FOOT = "field"  # it has no network: the directory lists no address of it
_READY_S, _STOP_S, _POLL_S = 60.0, 30.0, 0.05
_PORTS = range(26_000, 32_000)  # below those that outgoing connections take, above those that our tests do


def state_folder() -> Path:
    """Where the demo of this account lives."""
    return Path(tempfile.gettempdir()).resolve() / f"tracewire-demo-{os.geteuid()}"


def quietly(command: Callable[..., Any], *args: Any, **options: Any) -> dict[str, Any]:
    """What a command of `tracewire` prints with --json; its problem ends the demo with exit code 1."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        command(*args, json=True, **options)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


class Federation:
    """Processes and folders of one demo under `folder`; `close` ends and removes all of it, whoever opened it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._authority = folder / "authority"
        self._server = EmbeddedServer(folder / "postgres")
        self._ports = _free_ports()
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def open(self) -> str:
        """A fresh folder, PostgreSQL, the authority's first version; the address where a process serves it."""
        self.folder.mkdir()
        self.folder.chmod(0o755)  # when we are root, PostgreSQL runs as another account
        asyncio.run(self._server.start())
        quietly(directory.init, self._authority, network="demo", secret=self.secret("authority"))
        port = next(self._ports)
        self._launch("authority", "directory", "serve", str(self._authority), "--port", str(port))
        return f"http://127.0.0.1:{port}"

    def make_node(self, short: str, directory_url: str) -> None:
        """Keys, settings, database and admission of one member; in force once published."""
        name, country, role, makes = MEMBERS[short]
        settings = [f"{each}_bind=127.0.0.1:{next(self._ports)}" for each in ("agency", "exchange", "operations")]
        settings += [f"postgres_folder={self.folder / 'postgres'}", f"postgres_database=node_{short}"]
        quietly(
            node.init, self.node(short), member=f"demo/{short}", name=name, country=country, directory=directory_url,
            root=self._authority / "repository" / "1.root.json", secret=self.secret(short),
            exchange_url=f"http://{settings[1].partition('=')[2]}",
            settings=[*settings, f"registry={str(role == 'registry').lower()}"],
        )  # fmt: skip
        facts = (
            f'competences = [{{country = "{country}", makes = {json.dumps(makes)}}}]\n[contact]\noffice = "{name}"\n'
        )
        if short == ON_FOOT:
            facts = f'modes = ["courier"]\n[contact]\noffice = "{name}"\n'
        (self.node(short) / "record.toml").write_text(facts, encoding="utf-8")
        request = quietly(member.request, self.node(short), secret=self.secret(short))["request"]
        admit = {"role": [role], "secret": self.secret("authority")}
        challenge = quietly(directory.admit, self._authority, request, **admit)["challenge"]
        quietly(member.request, self.node(short), answer=Path(challenge), secret=self.secret(short))
        quietly(directory.admit, self._authority, request, **admit)

    def publish(self) -> int:
        """Brings all that were admitted into force, and fills the registry's register; how many guns it holds."""
        quietly(directory.publish, self._authority, secret=self.secret("authority"))
        with resources.as_file(resources.files(__package__).joinpath("guns.csv")) as path:
            return int(quietly(registry.import_, self.node("registry"), path)["size"])

    def run_nodes(self) -> None:
        """Starts every node and waits until all are ready."""
        started = {short: self._launch(short, "run", str(self.node(short))) for short in MEMBERS}
        until = time.monotonic() + _READY_S
        for short, pid in started.items():
            found = load_settings(self.node(short))
            while not (_answers(found.operations_bind, "/readyz") and _answers(found.agency_bind, "/v1")):
                if time.monotonic() > until or not self._runs(pid):
                    said = self.log(short).read_text(encoding="utf-8").splitlines()[-3:]
                    raise ProblemError("config.invalid", f"demo/{short} does not start; it said: {' '.join(said)}")
                time.sleep(_POLL_S)

    def node(self, short: str) -> Path:
        """A member's node folder."""
        return self.folder / short

    def log(self, short: str) -> Path:
        """Where a process logs."""
        return self.folder / f"{short}.log"

    def secret(self, short: str) -> SecretFrom:
        """What opens the keys of one organisation."""
        return SecretFrom(key_file=self.folder / f"{short}.key")

    def alive(self) -> bool:
        """Whether authority and members run."""
        return sum(map(self._runs, self._pids())) == len(MEMBERS) + 1

    def close(self) -> None:
        """Ends the nodes, then PostgreSQL, and removes the folder; one of another user is refused."""
        if not self.folder.exists():
            return
        if self.folder.is_symlink() or self.folder.stat().st_uid != os.geteuid():
            raise ProblemError("config.invalid", f"{self.folder} is another user's: remove it, or set TMPDIR")
        for number in (signal.SIGTERM, signal.SIGKILL):
            until = time.monotonic() + _STOP_S
            living = [pid for pid in self._pids() if self._runs(pid)]
            for pid in living:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            while any(map(self._runs, living)) and time.monotonic() < until:
                time.sleep(_POLL_S)
        if (self.folder / "postgres" / "data").exists():
            asyncio.run(self._stop_server())
        shutil.rmtree(self.folder)

    async def _stop_server(self) -> None:
        await self._server.start()  # takes over what an ended demo left running
        await self._server.stop()

    def _launch(self, short: str, *words: str) -> int:
        command = [*TRACEWIRE, *words, "--key-file", str(self.folder / f"{short}.key")]
        with self.log(short).open("ab") as log, (self.folder / "pids").open("a", encoding="ascii") as pids:
            child = subprocess.Popen(  # noqa: S603 - ourselves, no shell; a session of its own: Ctrl-C is for us to handle
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
            pids.write(f"{child.pid}\n")
        self._children[child.pid] = child
        return child.pid

    def _pids(self) -> list[int]:
        path = self.folder / "pids"
        return [int(line) for line in path.read_text(encoding="ascii").split()] if path.exists() else []

    def _runs(self, pid: int) -> bool:
        """Whether it runs and has our folder among its arguments: a pid may be another process's by now."""
        if pid in self._children:
            return self._children[pid].poll() is None
        try:
            return f"{self.folder}/".encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False


def _free_ports() -> Iterator[int]:
    for port in _PORTS[os.getpid() * 16 % (len(_PORTS) // 2) :]:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            probe.close()
            yield port


def _answers(address: str, path: str) -> bool:
    with contextlib.closing(http.client.HTTPConnection(address, timeout=5)) as connection:
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except OSError:
            return False
