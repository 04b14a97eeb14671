"""`tracewire init`, `migrate` and `run`: making and running a node."""

import asyncio
import contextlib
import gc
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import structlog
from cyclopts import Parameter

from gateway.runtime.cli.client import make_client
from gateway.runtime.cli.say import SecretFrom, clock, problems, read_file, say
from gateway.runtime.database import app_dsn, server_of
from gateway.runtime.settings import FILE, Settings, dump_settings, load_settings, make_settings
from keys.guard import FileGuard
from keys.keystore import KeyStore
from keys.vault import EpochVault
from protocols.ledger.merkle import EMPTY_ROOT
from protocols.ports.access import SCOPES
from protocols.ports.crypto import GuardMark
from protocols.problems import ProblemError

AsJson = Annotated[bool, Parameter(name="--json", negative="")]
_NO_SECRET = SecretFrom()
_DIED = 70  # sysexits.h: an internal error


def init(
    node: Path,
    *,
    member: str,
    name: str,
    country: str,
    root: Path,
    directory: str,
    exchange_url: str,
    owner_dsn: Annotated[str, Parameter(env_var="TRACEWIRE_OWNER_DSN")] = "",
    database: str = "",
    settings: Annotated[list[str] | None, Parameter(name="--set")] = None,
    secret: SecretFrom = _NO_SECRET,
    json: AsJson = False,
) -> None:
    """Make a node: settings, keys, database, ledger head and guard, and the client `local` for this command line.

    Nothing is overwritten: a folder that holds a node already is refused.

    Parameters
    ----------
    node
        The node's folder, new or empty.
    member
        The full name NETWORK/MEMBER that the directory will list.
    name
        The organisation's name for people.
    country
        ISO 3166-1 alpha-2 of the organisation.
    root
        The network's root.json; its fingerprint is printed: compare it with the authority's by another way.
    directory
        URL or folder of the network's directory.
    exchange_url
        Where peers reach this node.
    owner_dsn
        A production database: the DSN of its owner role (migrations only; not kept). Without: an embedded server.
    database
        A production database: the DSN of the application's role.
    settings
        Further settings as KEY=VALUE, as they stand in tracewire.toml.
    json
        Print one JSON object.
    """
    with problems(as_json=json):
        if (node / FILE).exists():
            raise ProblemError("config.invalid", f"{node} holds a node already; nothing was changed")
        given = dict(each.partition("=")[::2] for each in settings or [])
        text = dump_settings(make_settings({
            "member": member, "name": name, "country": country, "directory": directory, "exchange_url": exchange_url,
            "database": database, **given,
        }, "the options"))  # fmt: skip
        pinned = read_file(root)
        origin = f"{member}/{clock().year}.1"
        with _all_or_nothing(node):
            (node / "root.json").write_bytes(pinned)
            opened = secret.secret(make=True)
            keys = KeyStore.create(node / "keys", opened)
            for use in ("record", "message", "seal", "request", "token", "witness"):
                keys.add(use)
            keys.add("ledger", origin=origin)
            EpochVault.create(node / "keys", opened)
            (node / FILE).write_text(text, encoding="utf-8")
            asyncio.run(_make_store(node, load_settings(node), owner_dsn, origin))
        fingerprint = sha256(pinned).hexdigest()
        say(
            f"{member} is ready in {node}.\n  root fingerprint (SHA-256): {fingerprint}\n  ledger: {origin}\n"
            f"Next: tracewire member request {node}",
            {"node": str(node), "member": member, "root": fingerprint, "origin": origin},
            as_json=json,
        )


@contextlib.contextmanager
def _all_or_nothing(folder: Path) -> Iterator[None]:
    """A folder to work in; where that fails, what was made in it is removed, so that a second try is a first one."""
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.iterdir())
    try:
        yield
    except BaseException:
        for made in set(folder.iterdir()) - before:
            shutil.rmtree(made) if made.is_dir() else made.unlink()
        raise


async def _make_store(node: Path, settings: Settings, owner_dsn: str, origin: str) -> None:
    """Database, schema, head (size 0) with its guard, and the client `local`."""
    from adapters.postgres.connect import Pool
    from adapters.postgres.ledger import PostgresLedger
    from adapters.postgres.migrate import migrate as upgrade
    from adapters.postgres.threads import PostgresClients

    server = server_of(node, settings)
    async with contextlib.AsyncExitStack() as stack:
        if server is not None:
            await stack.enter_async_context(server.running())
            owner_dsn, _ = await server.create_database(settings.postgres_database)
        elif not owner_dsn:
            raise ProblemError("config.invalid", "a database by DSN needs --owner-dsn for its migrations")
        await upgrade(owner_dsn)
        dsn = app_dsn(settings, server)
        pool = await Pool.open(dsn)
        stack.push_async_callback(pool.close)
        ledger = PostgresLedger(dsn, pool)
        identifier, timeline = await ledger.identity()
        await ledger.make_head(origin, EMPTY_ROOT)
        mark = GuardMark(origin=origin, size=0, root=EMPTY_ROOT, system_identifier=identifier, timeline=timeline)
        FileGuard(node / "keys").raise_to(mark)
        await make_client(
            node, PostgresClients(pool), "local", ["local"], [scope for scope in SCOPES if scope != "approval:rule"]
        )


def migrate(
    node: Path,
    *,
    owner_dsn: Annotated[str, Parameter(env_var="TRACEWIRE_OWNER_DSN")] = "",
    json: AsJson = False,
) -> None:
    """Bring the node's database to this version's schema; a second run changes nothing.

    Parameters
    ----------
    node
        The node's folder.
    owner_dsn
        The DSN of the owner role, where the database is not the embedded one.
    json
        Print one JSON object.
    """

    async def upgrade(settings: Settings) -> str:
        from adapters.postgres.migrate import migrate as up
        from adapters.postgres.migrate import newest

        server = server_of(node, settings)
        async with contextlib.AsyncExitStack() as stack:
            dsn = owner_dsn
            if server is not None:
                await stack.enter_async_context(server.running())
                dsn = server.dsn(settings.postgres_database, user=f"{settings.postgres_database}_owner")
            await up(dsn)
        return newest()

    with problems(as_json=json):
        version = asyncio.run(upgrade(load_settings(node)))
        say(f"The schema is at version {version}.", {"schema": version}, as_json=json)


def run(
    node: Path,
    *,
    settings: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    secret: SecretFrom = _NO_SECRET,
) -> None:
    """Run a node until SIGTERM or Ctrl-C; it then finishes what it was asked and stops.

    It logs JSON lines to stderr, and waits, loudly, until the directory lists it. Several may run over one folder, and
    over one database from several machines, each with addresses of its own: what one is asked all do.

    Parameters
    ----------
    node
        The node's folder.
    settings
        What differs from tracewire.toml for this process, as KEY=VALUE.
    """
    import uvloop

    from gateway.runtime.log import configure_logging
    from gateway.runtime.node import run_node

    with problems(as_json=False):
        configure_logging()
        opened = secret.secret()
        gc.freeze()  # what is loaded by now stays for ever: not to be looked through again and again
        gc.set_threshold(20_000, 20, 50)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(run_node(node, opened, dict(each.partition("=")[::2] for each in settings or [])))
        except Exception as error:  # the node's top: what ended it is said in the log, without values
            found = _alone(error)
            if isinstance(found, ProblemError):
                raise found from None
            structlog.get_logger().exception("node_died", cause=type(found).__name__)
            raise SystemExit(_DIED) from None


def _alone(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
