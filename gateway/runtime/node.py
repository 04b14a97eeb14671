"""A node's life: open the store, wait for the directory, open the ledger, serve, drain on SIGTERM."""

import asyncio
import signal
from asyncio import Task
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from aiohttp import web
from prometheus_client import Histogram

from adapters.postgres.connect import Pool
from gateway.http.operations import ACCESS_LOG, counted
from gateway.http.serve import Site
from gateway.runtime.compose import Parts, assemble, recall_time, tls_context, waiting
from gateway.runtime.database import app_dsn, server_of
from gateway.runtime.ports import Ports, connect_ports
from gateway.runtime.settings import Settings, load_settings
from gateway.services.changes import Noted
from gateway.services.commit import Committer
from gateway.services.submit import current
from gateway.services.wake import woken
from keys.keystore import KeyStore, Use
from keys.secret import Secret
from protocols.directory import Directory, Key, witness_keys, year_and_number
from protocols.ledger.entry import NONCE_BYTES, DirRef, Entry, PeerRef, parse_entry
from protocols.limits import BLOB_UNNAMED_S, DIRECTORY_GRACE_S
from protocols.ports.store import (
    Unavailable,
)
from protocols.problems import ProblemError
from protocols.strict import unb64u

_log = structlog.get_logger()
_WAIT_S = 1.0
_KEPT = timedelta(days=7)  # how long an Idempotency-Key answers the same (docs/design.md section 7); what a hub carried
_REFRESH_S = 60.0
_TIDY_S = 3600.0
_DRAIN_S = 20.0
_NOTHING: Mapping[str, str] = {}
_KEEPALIVE_S = 75.0


async def run_node(node: Path, secret: Secret, given: Mapping[str, str] = _NOTHING) -> None:
    """Runs until SIGTERM or SIGINT, with `given` over the settings of the folder; returns when everything queued is committed and every connection closed."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    settings = load_settings(node, given)
    keys = KeyStore.open(node / "keys", secret)
    async with AsyncExitStack() as stack:
        server = server_of(node, settings)
        if server is not None:
            await server.start()
            stack.push_async_callback(server.stop)
            supervising = asyncio.ensure_future(server.supervise())
            stack.callback(supervising.cancel)
        dsn = app_dsn(settings, server)
        pool = await _open_pool(dsn, settings, node, stop)
        if pool is None:
            return
        stack.push_async_callback(pool.close)
        ports = connect_ports(node, settings, keys, pool, dsn)
        stack.push_async_callback(ports.ledger.close)  # type: ignore[attr-defined]
        stack.push_async_callback(ports.transport.close)  # type: ignore[attr-defined]
        await serve(node, settings, keys, secret, ports, stop)


async def serve(
    node: Path, settings: Settings, keys: KeyStore, secret: Secret, ports: Ports, stop: asyncio.Event
) -> None:
    """Serves over given ports until `stop`; a test hands in wrapped ones."""
    origin = keys.origin_in_use(ports.guard)
    if ports.backend is not None:
        keys.webhook_signers()  # `key.store` where nothing could sign what it is told
    parts = assemble(node, settings, keys, secret, origin, ports)
    parts.health["node"] = "ledger.not_ready"
    runners = [await _listen("operations", parts.listeners["operations"], settings, node, parts.requests)]
    try:
        await recall_time(ports, origin)
        directory = await _listed(settings, keys, origin, ports, parts, stop)
        if directory is None:
            return
        former = None
        keys.reload()
        if (following := _following(keys, directory, origin)) is not None:
            last = directory.ledgers[origin].last
            if directory.ledgers[origin].state == "open":
                former = await _close(parts, ports, keys, settings)
            elif last and last.root:
                former = PeerRef(origin=origin, size=last.size, root=unb64u(last.root))
            await runners.pop().cleanup()
            origin = following
            parts = assemble(node, settings, keys, secret, origin, ports)
            parts.health["node"] = "ledger.not_ready"
            runners = [await _listen("operations", parts.listeners["operations"], settings, node, parts.requests)]
        async with asyncio.TaskGroup() as group:
            committing = group.create_task(parts.committer.run())
            await _open_ledger(settings, parts, directory, keys, ports, former)
            await follow_keys(parts.committer, keys, directory, ports.clock.now())
            runners += [
                await _listen(name, parts.listeners[name], settings, node, parts.requests)
                for name in ("exchange", "agency")
            ]
            del parts.health["node"]
            _log.info("node_started", origin=origin, version=directory.ref.version)
            working = [group.create_task(loop) for loop in _loops(parts, ports, keys)]
            await stop.wait()
            _log.info("node_stopping")
            await _drain(parts, runners, working, committing)
    finally:
        for runner in runners:
            await runner.cleanup()


def _loops(parts: Parts, ports: Ports, keys: KeyStore) -> list[Coroutine[None, None, None]]:
    follow = ports.ledger.follow(parts.committer.wake)
    return [*parts.loops(), *parts.rounds(), _follow(parts, ports, keys), _tidy(parts, ports), follow]


async def _drain(
    parts: Parts, runners: Sequence[web.AppRunner], working: Sequence[Task[None]], committing: Task[None]
) -> None:
    """On the way down requests end first, those that wait for something at once; then the loops, then the committer."""
    parts.read.end()
    parts.ways.offer.end()
    for runner in runners:
        await runner.cleanup()
    for task in working:
        task.cancel()
    await asyncio.wait(working, timeout=_DRAIN_S)
    committing.cancel()
    await asyncio.wait([committing])
    await parts.committer.drain()


async def _open_pool(dsn: str, settings: Settings, node: Path, stop: asyncio.Event) -> Pool | None:
    """Waits, loudly, for the database; `/readyz` says so meanwhile."""
    async with AsyncExitStack() as stack:
        listening = False
        while not stop.is_set():
            try:
                return await Pool.open(dsn)
            except Unavailable as error:
                _log.warning("database_unavailable", error=str(error))
            if not listening:
                runner = await _listen("operations", waiting().app(), settings, node)
                stack.push_async_callback(runner.cleanup)
                listening = True
            await woken(stop, _WAIT_S)
    return None


async def _listed(
    settings: Settings, keys: KeyStore, origin: str, ports: Ports, parts: Parts, stop: asyncio.Event
) -> Directory | None:
    """Waits, loudly, until our record and our ledger stand in the directory (docs/protocol.md section 5, Bootstrap)."""
    while not stop.is_set():
        why = "the directory cannot be reached"
        try:
            directory = await ports.directory.refresh(ports.clock.now())
        except ProblemError as problem:
            found = ports.directory.current
            if found is None:
                why = problem.code
                directory = None
            else:
                directory = found  # an accepted version serves while the source is away
        if directory is not None:
            ledger = directory.ledgers.get(origin)
            gone = (
                ledger is not None and ledger.state == "abandoned" and _following(keys, directory, origin) is not None
            )
            if ledger is not None and (ledger.state == "open" or gone) and directory.active(settings.member):
                if (str(ledger.keys.ed25519), str(ledger.keys.mldsa44)) != keys.note_signer(origin).vkeys:
                    raise ProblemError("config.invalid", "the directory lists other keys for our ledger than we hold")
                parts.health.pop("directory", None)
                return directory
            why = (
                "our record or our ledger is not in the directory yet: send the authority a `tracewire member request`"
            )
        parts.health["directory"] = "ledger.not_ready"
        _log.warning("waiting_for_directory", why=why)
        await woken(stop, _WAIT_S)
    return None


def _following(keys: KeyStore, directory: Directory, origin: str) -> str | None:
    """The ledger that is to follow the one in use: made, and listed as open."""
    newer = {
        key.origin for key in keys.inventory() if key.origin and year_and_number(key.origin) > year_and_number(origin)
    }
    listed = [each for each in newer if each in directory.ledgers and directory.ledgers[each].state == "open"]
    return max(listed, key=year_and_number, default=None)


async def _close(parts: Parts, ports: Ports, keys: KeyStore, settings: Settings) -> PeerRef | None:
    """Writes `ledger-closed`, once; where the ledger ended. Nothing of ours writes to it after that.

    None, and nothing is written, for a ledger that must not be signed: the next one then says nothing of it.
    """
    try:
        head = await parts.committer.check()
    except ProblemError as problem:
        _log.error("ledger_halted", code=problem.code, why=problem.detail)
        return None
    last = await ports.ledger.entries(head.origin, head.size - 1, head.size)
    if parse_entry(last[0]).kind != "ledger-closed":
        entry = Entry(
            kind="ledger-closed", at=ports.clock.now(), n=keys.sealer().random(NONCE_BYTES), sender=settings.member
        )
        committing = asyncio.ensure_future(parts.committer.run())
        await parts.committer.commit(Noted(entry=entry))
        committing.cancel()
        await asyncio.wait([committing])
        head = await parts.committer.check()
    return PeerRef(origin=head.origin, size=head.size, root=head.root)


async def _open_ledger(
    settings: Settings, parts: Parts, directory: Directory, keys: KeyStore, ports: Ports, former: PeerRef | None
) -> None:
    """Checks guard and signatures; writes `ledger-opened` into an empty ledger, else the directory if it is a newer one.

    A rollback leaves the node read-only.
    """
    try:
        head = await parts.committer.check()
    except ProblemError as problem:
        if problem.code != "ledger.rollback":
            raise
        _log.error("ledger_halted", code=problem.code, why=problem.detail)
        return
    kind, sender = ("ledger-opened", settings.member) if head.size == 0 else ("directory", None)
    if head.size:
        last = await ports.ledger.entries(head.origin, head.size - 1, head.size)
        if parse_entry(last[0]).dir == directory.ref:
            return
    random = keys.sealer().random(NONCE_BYTES)
    peer = former if kind == "ledger-opened" else None
    entry = Entry(kind=kind, at=ports.clock.now(), n=random, sender=sender, dir=directory.ref, peer=peer)
    await parts.committer.commit(Noted(entry=entry))


async def _follow(parts: Parts, ports: Ports, keys: KeyStore) -> None:
    """Follows the directory; every version that is accepted stands in the ledger."""
    noted = current(ports.directory).ref
    while True:
        await asyncio.sleep(_REFRESH_S)
        try:
            keys.reload()  # keys that no directory lists wait for none
            noted = await follow_directory(parts.committer, keys, ports, noted)
        except Exception:  # a full disk or a database that is away: the next round tries again
            _log.exception("directory_not_followed")


async def follow_directory(committer: Committer, keys: KeyStore, ports: Ports, noted: DirRef) -> DirRef:
    """One look at the directory's source; keys come to their hour also while that is away. The version that stands in the ledger then."""
    try:
        await ports.directory.refresh(ports.clock.now())
    except ProblemError as problem:
        _log.warning("directory_refresh_failed", code=problem.code)
    directory = current(ports.directory)
    await follow_keys(committer, keys, directory, ports.clock.now())
    if directory.ref != noted:
        random = keys.sealer().random(NONCE_BYTES)
        entry = Entry(kind="directory", at=ports.clock.now(), n=random, dir=directory.ref)
        await committer.commit(Noted(entry=entry))
    return directory.ref


async def _forget(parts: Parts, ports: Ports) -> None:
    await ports.exchange.forget_answers(ports.clock.now() - _KEPT)
    await ports.relays.forget_relays(ports.clock.now() - _KEPT)
    await parts.records.purge()


async def _sweep(parts: Parts, ports: Ports) -> None:
    del parts
    while await ports.blobs.sweep(ports.clock.now() - timedelta(seconds=BLOB_UNNAMED_S)):
        pass


async def _watch(parts: Parts, ports: Ports) -> None:
    if ports.directory.current is not None:
        await parts.linking.watch(ports.directory.current)


async def _tidy(parts: Parts, ports: Ports) -> None:
    """Drops what is kept for a time: answers to keys, parcels of others, shared records past their day; looks for what is missing."""
    while True:
        for tidy in (_forget, _sweep, _watch):
            try:
                await tidy(parts, ports)
            except Exception:  # a full disk or a database that is away: the next round tries again
                _log.exception("not_tidied")
        await asyncio.sleep(_TIDY_S)


async def _listen(
    name: str, app: web.Application, settings: Settings, node: Path, requests: Histogram | None = None
) -> web.AppRunner:
    bind = getattr(settings, f"{name}_bind")
    host, _, port = bind.rpartition(":")
    context = tls_context(node, settings) if name != "operations" else None
    counting = (
        {"access_log": ACCESS_LOG, "access_log_class": counted(name, requests)} if requests else {"access_log": None}
    )
    runner = web.AppRunner(app, keepalive_timeout=_KEEPALIVE_S, shutdown_timeout=_DRAIN_S, **counting)
    await runner.setup()
    try:
        await Site(runner, host.strip("[]"), int(port), ssl_context=context).start()
    except OSError as error:
        await runner.cleanup()
        raise ProblemError("config.invalid", f"{name}_bind {bind} cannot be used: {error.strerror}") from error
    _log.info("listening", listener=name, address=bind)
    return runner


async def follow_keys(committer: Committer, keys: KeyStore, directory: Directory, now: datetime) -> list[str]:
    """Changes over to every next key that the directory lists as valid now; their names.

    The entry is first: what is cut in between is done, and said, once more. A halted ledger says nothing. By a clock at which the
    directory has expired beyond its grace nothing changes: it may run ahead, and nothing is sent then.
    """
    if now > directory.expires + timedelta(seconds=DIRECTORY_GRACE_S):
        return []
    keys.reload()
    following = _due(keys, directory, now)
    for use, kid in following:
        if not committer.halted:
            nonce = keys.sealer().random(NONCE_BYTES)
            await committer.commit(Noted(entry=Entry(kind="key", at=now, n=nonce, kid=kid, code="promoted")))
        keys.promote(use, now, kid)
    keys.opener()  # it learns what is new
    return [kid for _, kid in following]


def _due(keys: KeyStore, directory: Directory, now: datetime) -> list[tuple[Use, str]]:
    listed: dict[Use, Mapping[str, Key]] = {
        "message": directory.message_keys, "seal": directory.seal_keys, "request": directory.request_keys,
    }  # fmt: skip
    found = [
        (use, key.kid)
        for use in listed
        if (key := keys.next(use)) and key.kid in listed[use] and listed[use][key.kid].valid(now)
    ]
    witnesses = {each.ed25519.public for record in directory.records.values() if (each := witness_keys(record))}
    if (key := keys.next("witness")) and key.public in witnesses:
        found.append(("witness", key.kid))
    return found
