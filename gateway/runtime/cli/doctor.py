"""`tracewire doctor`: what is wrong, why it matters, and the exact fix."""

import asyncio
import contextlib
import os
import pwd
import shutil
import ssl
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import urllib3
from cyclopts import Parameter

from adapters.directory.client import DirectoryClient
from adapters.directory.fetch import ask_time
from adapters.postgres.connect import Pool
from gateway.http.causes import CAUSES
from gateway.runtime.cli.client import node_pool
from gateway.runtime.cli.say import SecretFrom, problems, read_file, show_steps
from gateway.runtime.compose import (
    assemble,
    free_bytes,
    overdue,
    recall_time,
    tls_context,
    warnings,
)
from gateway.runtime.database import app_dsn, server_of
from gateway.runtime.ports import Ports, connect_ports, open_directory
from gateway.runtime.settings import FILE, Settings, load_settings
from gateway.runtime.world import SystemClock
from gateway.services.doctor import (
    State,
    Step,
    broken,
    clock,
    contents,
    disk,
    ledger_fix,
    listing,
    numbers,
    schema,
    wrong,
)
from gateway.services.probe import PROBES_MAX, Probe
from keys.files import check_folder, check_private
from keys.guard import FileGuard
from keys.keystore import KeyStore
from keys.secret import Secret
from keys.tls import pin_of_pem
from protocols.directory import Directory
from protocols.ports.store import Unavailable
from protocols.problems import CODES, Fault, ProblemError
from protocols.strict import b64u

AsJson = Annotated[bool, Parameter(name="--json", negative="")]
_NO_SECRET = SecretFrom()
_FOUND = 3
_GAPS_MAX = 20
_ANSWER_S = 3.0
_PACKAGES = ("gateway", "protocols", "adapters", "keys")


def _copy(folder: Path, copy: Path) -> None:
    if folder.exists():
        shutil.copytree(folder, copy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the doctor asks of this machine; a test may answer in its place."""

    clock: SystemClock = field(default_factory=SystemClock)
    free: Callable[[Path, Settings], Mapping[str, int]] = free_bytes


class Doctor:
    """One examination of a node's folder: every check leaves a line, whatever became of those before it."""

    def __init__(self, node: Path, secret: Callable[[], Secret], machine: Machine) -> None:
        self._node, self._secret_from, self._machine = node, secret, machine
        self._steps: list[Step] = []
        self._others: dict[str, timedelta] = {}  # how far their clocks are ahead of ours
        self._late = timedelta(0)  # how far our clock is behind the newest entry of our ledger

    async def examine(self) -> list[Step]:
        """All that was found. Nothing of the node is changed; its database server is started where it must be."""
        self._packages()
        try:
            settings = load_settings(self._node)
        except ProblemError as problem:
            self._steps.append(broken("settings", problem, "Nothing else can be looked at without the settings."))
            return self._steps
        self._account(settings)
        self._key_files(settings)
        self._disks(settings)
        self._running(settings)
        keys, secret = self._open(settings)
        with tempfile.TemporaryDirectory() as copy:
            source = await self._directory(settings, Path(copy) / "directory")
            if source is not None and source.current is not None:
                self._listed(settings, source.current, keys)
            try:
                self._database_folder(settings)
                async with node_pool(self._node) as pool:
                    self._ok("database", "answers")
                    if await self._schema(pool, settings) and keys and secret and source:
                        await self._living(settings, keys, secret, source, pool)
            except (Unavailable, ProblemError) as error:
                self._no_database(error, settings)
        return [*self._steps, clock(self._late, self._others)]

    def _ok(self, step: str, what: str) -> None:
        self._steps.append(Step(step=step, state="ok", what=what))

    def _packages(self) -> None:
        places = {Path(spec.origin).parents[1] for name in _PACKAGES if (spec := find_spec(name)) and spec.origin}
        if len(places) > 1:
            why = "Another package of the same name is found first: code runs that is not ours."
            fix = "Install tracewire into an environment of its own."
            self._steps.append(wrong("packages", "our packages come from different places", why, fix))

    def _account(self, settings: Settings) -> None:
        owner = self._node.stat().st_uid
        if owner != os.geteuid():
            try:
                name = pwd.getpwuid(owner).pw_name
            except KeyError:
                name = f"#{owner}"
            why = "Keys are refused unless they belong to the account that uses them: what follows may mislead."
            fix = f"sudo -u {name} tracewire doctor {self._node}"
            self._steps.append(wrong("account", "the node belongs to another account than yours", why, fix))
        place = self._node / FILE
        if urlsplit(settings.database).password and place.stat().st_mode & 0o077:
            why = "Whoever can read it can read and change the database."
            what = f"{place} holds a database password and is open to others"
            self._steps.append(wrong("settings", what, why, f"chmod 600 {place}"))

    def _key_files(self, settings: Settings) -> None:
        keys, clients = self._node / "keys", self._node / "clients"
        folders = [path for path in (keys, keys / "epochs", clients) if path.exists()]
        files = [path for folder in folders for path in folder.iterdir() if path.is_file()]
        if settings.tls_key is not None:
            files.append(self._node / settings.tls_key)
        before = len(self._steps)
        why = "Whoever can read or swap these keys can act as this member; keys that are open to others are refused."
        for check, paths in ((check_folder, folders or [keys]), (check_private, sorted(files))):
            for path in paths:
                try:
                    check(path)
                except ProblemError as problem:
                    self._steps.append(broken("key files", problem, why))
        if len(self._steps) == before:
            self._ok("key files", f"{len(files)} that only this account can read")

    def _disks(self, settings: Settings) -> None:
        folders = {"node": self._node, "database": self._node / settings.postgres_folder}
        try:
            found = self._machine.free(self._node, settings)
        except OSError as error:
            why, fix = "The node keeps its keys or its database there.", "Put the folder back from its backup."
            self._steps.append(wrong("disk", f"a folder of the node is not there: {error.strerror}", why, fix))
            return
        self._steps += [disk(place, str(folders[place]), free) for place, free in found.items()]
        if "database" not in found:
            what = "the database's own disk cannot be seen from here: watch it on its server"
            self._steps.append(Step(step="disk", state="not tried", what=what))

    def _running(self, settings: Settings) -> None:
        """What a running node says of itself: some alarms are known to it alone."""
        url = f"http://{settings.operations_bind}/readyz"
        try:
            said = urllib3.request("GET", url, timeout=_ANSWER_S, retries=False).json()
            ready, failing, alarms = said["ready"], ", ".join(said["wrong"]), ", ".join(said["warnings"])
        except (urllib3.exceptions.HTTPError, ValueError, KeyError, TypeError):
            why, fix = "Nothing is received or sent.", f"tracewire run {self._node}"
            self._steps.append(Step(step="node", state="warning", what="the node does not run", why=why, fix=fix))
            return
        if ready:
            self._ok("node", "runs, and is ready")
        else:
            why, fix = "A node that is not ready takes no requests.", f"Mend what is said here and at {url}."
            self._steps.append(wrong("node", f"the node runs and is not ready: {failing}", why, fix))
        if alarms:
            why, fix = "Something is wrong with others that needs a person here.", f"See {url}, and tell that member."
            self._steps.append(Step(step="node", state="warning", what=f"it warns of {alarms}", why=why, fix=fix))

    def _open(self, settings: Settings) -> tuple[KeyStore | None, Secret | None]:
        try:
            secret = self._secret_from()
            keys = KeyStore.open(self._node / "keys", secret)
            keys.origin_in_use(FileGuard(self._node / "keys"))
            if settings.webhook:
                keys.webhook_signers()
        except ProblemError as problem:
            why = "Without its keys a node does not start; ledger and peers were not examined."
            self._steps.append(broken("keys", problem, why))
            return None, None
        self._ok("keys", "the key store opens")
        return keys, secret

    async def _directory(self, settings: Settings, copy: Path) -> DirectoryClient | None:
        """The directory refreshed as the node would, in a copy: a running node alone writes its own."""
        why = "A directory that is not in force stops all exchange: 72 h after its expiry at the latest."
        own = self._node / "directory"
        try:
            read_file(self._node / "root.json")
            await asyncio.to_thread(_copy, own, copy)
            source = open_directory(self._node, copy, settings)
        except (ProblemError, OSError) as error:
            known = error if isinstance(error, ProblemError) else ProblemError("dir.invalid", f"{own} cannot be read")
            fix = "Put the network's root.json back; its SHA-256 must be the authority's."
            self._steps.append(broken("directory", known, why, fix if known is error else ""))
            return None
        now, refused = self._machine.clock.now(), ""
        try:
            await source.refresh(now)
        except ProblemError as problem:
            refused = problem.code
        late = overdue(source.current, now)
        if found := refused or late:
            said = [CODES[code].title for code in dict.fromkeys((late, refused)) if code]
            said[:1] = said[:1] if source.current else ["No directory was accepted yet"]
            fix = f"{CODES[found].fix} The source is {settings.directory}."
            state: State = "wrong" if late else "warning"
            self._steps.append(Step(step="directory", state=state, what="; ".join(said), why=why, fix=fix))
        elif source.current is not None:
            self._ok("directory", f"version {source.current.ref.version}, in force")
        with contextlib.suppress(OSError):  # said above
            at = await asyncio.to_thread(ask_time, settings.directory)
            if at is not None:
                self._others["the directory's source"] = at - self._machine.clock.now().replace(microsecond=0)
        return source

    def _listed(self, settings: Settings, directory: Directory, keys: KeyStore | None) -> None:
        pin = None
        if settings.tls_certificate is not None:
            try:
                pin = b64u(pin_of_pem(read_file(self._node / settings.tls_certificate)))
                tls_context(self._node, settings)
            except (ProblemError, ValueError, ssl.SSLError, OSError):
                why = "The listeners cannot speak TLS: the node does not start."
                fix = f"Put a matching pair of PEM files at {settings.tls_certificate} and {settings.tls_key}."
                self._steps.append(wrong("certificate", "certificate and key do not load, or do not match", why, fix))
        origin = keys.origin_in_use(FileGuard(self._node / "keys")) if keys else None
        self._steps += listing(
            directory, settings.member, url=settings.exchange_url, pin=pin, origin=origin,
            vkeys=keys.note_signer(origin).vkeys if keys and origin else None, node=str(self._node),
        )  # fmt: skip

    def _database_folder(self, settings: Settings) -> None:
        """A missing cluster is not to be made anew by looking at it."""
        folder = self._node / settings.postgres_folder
        if not settings.database and not folder.exists():
            fault = Fault("", "config.invalid", "", f"Put {folder} back from its backup, or correct postgres_folder.")
            raise ProblemError("config.invalid", "the database's folder is not there", errors=[fault])

    def _no_database(self, error: Unavailable | ProblemError, settings: Settings) -> None:
        why = "Nothing is accepted or sent without the database: the node waits for it."
        if isinstance(error, ProblemError):
            self._steps.append(broken("database", error, why))
            return
        fix = f"Start the server, or correct `database` in {self._node / FILE}."
        if not settings.database:
            fix = f"See server.log in {self._node / settings.postgres_folder}."
        self._steps.append(wrong("database", f"the database does not answer: {error}", why, fix))

    async def _schema(self, pool: Pool, settings: Settings) -> bool:
        from adapters.postgres.migrate import newest, version

        fix = f"tracewire migrate {self._node}" + (" --owner-dsn DSN" if settings.database else "")
        step = schema(await version(pool), newest(), fix)
        self._steps.append(step)
        return step.state == "ok"

    async def _living(
        self, settings: Settings, keys: KeyStore, secret: Secret, source: DirectoryClient, pool: Pool
    ) -> None:
        """Ledger and peers, over the parts that the node itself is made of."""
        dsn = app_dsn(settings, server_of(self._node, settings))
        ports = connect_ports(self._node, settings, keys, pool, dsn, system=self._machine.clock, directory=source)
        try:
            origin = keys.origin_in_use(ports.guard)
            parts = assemble(self._node, settings, keys, secret, origin, ports)
            await recall_time(ports, origin)
            self._late = ports.clock.behind
            try:
                head = await parts.committer.verify()
                self._ok("ledger", f"{head.size} entries, as the guard remembers and as we signed them")
            except ProblemError as problem:
                await self._behind(problem, ports, origin)
            for what, code in warnings(ports, parts.linking).items():
                said = f"{what}: {CODES[code].title}"
                step = Step(step="directory", state="warning", what=said, why=CAUSES[code], fix=CODES[code].fix)
                self._steps.append(step)
            self._steps += contents(await ports.erasures.missing(_GAPS_MAX), await parts.erase.lost())
            self._steps += numbers(await ports.exchange.gaps(_GAPS_MAX), self._machine.clock.now())
            if source.current is not None:
                await self._peers(parts.probe, source.current, settings.member)
        finally:
            await ports.ledger.close()  # type: ignore[attr-defined]
            await ports.transport.close()  # type: ignore[attr-defined]

    async def _behind(self, problem: ProblemError, ports: Ports, origin: str) -> None:
        size, _ = (await ports.ledger.heads()).get(origin, (0, b""))
        try:
            mark = ports.guard.read(origin)
        except ProblemError:
            mark = None
        fix = ledger_fix(mark.size if mark else None, size, str(self._node))
        self._steps.append(broken("ledger", problem, CAUSES[problem.code], fix))

    async def _peers(self, probe: Probe, directory: Directory, member: str) -> None:
        peers = [
            name
            for name, record in directory.records.items()
            if name != member and directory.active(name) and record.endpoint is not None
        ]
        for start in range(0, len(peers), PROBES_MAX):
            for probed in await asyncio.gather(*map(probe.ask, peers[start : start + PROBES_MAX])):
                step, failed = f"peer {probed.peer}", probed.failed
                if probed.ahead is not None:
                    self._others[probed.peer] = probed.ahead
                if failed is None:
                    self._ok(step, "reached, and ready")
                else:
                    self._steps.append(wrong(step, f"{failed.step}: {failed.what}", failed.why, failed.fix))


def doctor(node: Path, *, secret: SecretFrom = _NO_SECRET, json: AsJson = False) -> int:
    """Examine a node, running or not: what is wrong, why it matters and the exact fix. Exit code 3: something is.

    Looks at files and their modes, disk, settings, directory, certificate, database, schema, ledger and guard, clock,
    and the way to every peer. Changes nothing.

    Parameters
    ----------
    node
        The node's folder.
    json
        Print one JSON object.
    """
    with problems(as_json=json):
        steps = asyncio.run(Doctor(node, secret.secret, Machine()).examine())
        ok = all(step.state != "wrong" for step in steps)
        show_steps(steps, {"ok": ok, "steps": [step.shown() for step in steps]}, as_json=json)
    return 0 if ok else _FOUND
