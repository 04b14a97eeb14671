"""`tracewire client`: the member's own systems that may call its node."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import cyclopts
from cyclopts import Parameter

from gateway.runtime.cli.say import clock, problems, say
from gateway.runtime.database import app_dsn, server_of
from gateway.runtime.settings import key_path, load_settings
from keys.files import replace
from keys.guard import FileGuard
from keys.keystore import KeyStore
from keys.tokens import new_client_key
from protocols.ports.access import SCOPES
from protocols.ports.store import (
    DataError,
)
from protocols.problems import Fault, ProblemError
from protocols.strict import dump_json

if TYPE_CHECKING:
    from adapters.postgres.connect import Pool
    from adapters.postgres.threads import PostgresClients
    from gateway.runtime.compose import Parts
    from keys.secret import Secret

app = cyclopts.App(name="client", help="Systems that may call this node: each has a key, actors and scopes.")
AsJson = Annotated[bool, Parameter(name="--json", negative="")]


async def make_client(
    node: Path, clients: "PostgresClients", client: str, actors: Sequence[str], scopes: Sequence[str]
) -> Path:
    """Registers a client under a fresh key, whose private half is written once, 0600."""
    if unknown := [scope for scope in scopes if scope not in SCOPES]:
        fault = Fault("/scope", "config.invalid", "no such scope", f"Take some of {', '.join(SCOPES)}.")
        raise ProblemError("config.invalid", f"{', '.join(unknown)} is no scope", errors=[fault])
    private, jwk = new_client_key()
    path = key_path(node, client)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        await clients.add_client(client, dump_json(jwk).decode(), actors, scopes, clock())
    except DataError:
        fault = Fault("/client", "config.invalid", "a client of this id exists", "Choose another id.")
        raise ProblemError("config.invalid", "a client of this id exists", errors=[fault]) from None
    replace(path, private)
    return path


@contextlib.asynccontextmanager
async def node_pool(node: Path) -> "AsyncIterator[Pool]":
    """The node's database for an operator's command, beside a running node or without one."""
    from adapters.postgres.connect import Pool

    settings = load_settings(node)
    server = server_of(node, settings)
    async with contextlib.AsyncExitStack() as stack:
        if server is not None:
            await stack.enter_async_context(server.running())
        pool = await Pool.open(app_dsn(settings, server))
        stack.push_async_callback(pool.close)
        yield pool


@contextlib.asynccontextmanager
async def node_parts(node: Path, secret: "Secret") -> "AsyncIterator[Parts]":
    """The parts of a node with its committer at work, for an operator's command, beside a running node or without one.

    Head lock and guard make one history of two writers.
    """
    from gateway.runtime.compose import assemble, recall_time
    from gateway.runtime.ports import connect_ports

    settings = load_settings(node)
    keys = KeyStore.open(node / "keys", secret)
    origin = keys.origin_in_use(FileGuard(node / "keys"))
    async with node_pool(node) as pool:
        ports = connect_ports(node, settings, keys, pool, app_dsn(settings, server_of(node, settings)))
        try:
            parts = assemble(node, settings, keys, secret, origin, ports)
            await recall_time(ports, origin)
            committing = asyncio.ensure_future(parts.committer.run())
            try:
                yield parts
            finally:
                committing.cancel()
                await asyncio.wait([committing])
        finally:
            await ports.ledger.close()  # type: ignore[attr-defined]
            await ports.transport.close()  # type: ignore[attr-defined]


@app.command
def add(
    node: Path,
    client: str,
    *,
    actor: list[str],
    scope: list[str],
    json: AsJson = False,
) -> None:
    """Register a client and write its private key to NODE/clients/CLIENT.pem: hand that file to the system, once.

    Parameters
    ----------
    node
        The node's folder.
    client
        A new id.
    actor
        A pseudonymous person or system that the client may speak for; repeat for several.
    scope
        trace:write, trace:read, parts:read, content:erase, audit:read, ledger:read, evidence:read or approval:rule; repeat for several.
    json
        Print one JSON object.
    """

    async def make() -> Path:
        from adapters.postgres.threads import PostgresClients

        async with node_pool(node) as pool:
            return await make_client(node, PostgresClients(pool), client, actor, scope)

    with problems(as_json=json):
        path = asyncio.run(make())
        text = f"{client} may call this node. Its key: {path}"
        say(text, {"client": client, "key": str(path), "actors": actor, "scopes": scope}, as_json=json)


@app.command(name="list")
def show(node: Path, *, json: AsJson = False) -> None:
    """List the clients.

    Parameters
    ----------
    node
        The node's folder.
    json
        Print one JSON object.
    """

    async def read() -> list[dict[str, object]]:
        from adapters.postgres.threads import PostgresClients

        async with node_pool(node) as pool:
            return [
                {"client": row["id"], "actors": row["actors"], "scopes": row["scopes"], "revoked": bool(row["revoked"])}
                for row in await PostgresClients(pool).clients()
            ]

    with problems(as_json=json):
        found = asyncio.run(read())
        lines = [
            f"{row['client']:<20} {'revoked' if row['revoked'] else 'active':<8} "
            f"{','.join(row['actors'])}  {' '.join(row['scopes'])}"  # type: ignore[arg-type]
            for row in found
        ]
        say("\n".join(lines) or "No client yet: tracewire client add", {"clients": found}, as_json=json)


@app.command
def revoke(node: Path, client: str, *, json: AsJson = False) -> None:
    """Revoke a client: it gets no new token; the one it has ends within five minutes.

    Parameters
    ----------
    node
        The node's folder.
    client
        Its id.
    json
        Print one JSON object.
    """

    async def end() -> bool:
        from adapters.postgres.threads import PostgresClients

        async with node_pool(node) as pool:
            return await PostgresClients(pool).revoke_client(client, clock())

    with problems(as_json=json):
        if not asyncio.run(end()):
            raise ProblemError("config.invalid", "no such client that is not revoked yet")
        say(f"{client} is revoked.", {"client": client, "revoked": True}, as_json=json)
