"""The one composition root: explicit constructor calls, plain values and ports."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge

from adapters.directory.client import DirectoryClient
from adapters.peers.http import PeerClient
from adapters.postgres.connect import Pool
from adapters.postgres.exchange import PostgresExchange
from adapters.postgres.ledger import PostgresLedger
from adapters.postgres.registry import PostgresRegistry
from adapters.postgres.threads import PostgresClients, PostgresThreads
from gateway.http.agency import Agency
from gateway.http.exchange import Exchange
from gateway.http.operations import Operations
from gateway.http.serve import unless_halted
from gateway.runtime.settings import Settings
from gateway.runtime.world import SystemClock, SystemIds
from gateway.services.answer import Answer
from gateway.services.commit import Committer
from gateway.services.committed import LedgerView
from gateway.services.deliver import Deliver
from gateway.services.evidence import Export
from gateway.services.judge import Judge
from gateway.services.link import Linking
from gateway.services.prove import Prove, Release
from gateway.services.read import Read
from gateway.services.receive import Receive
from gateway.services.submit import Submit
from keys.guard import FileGuard
from keys.keystore import KeyStore
from keys.secret import Secret
from keys.suite import Tw1Verifier
from keys.tls import spki_sha256
from keys.tokens import TokenAccess
from keys.vault import EpochVault
from protocols.limits import DIRECTORY_GRACE_S
from protocols.ports.directory import DirectorySource
from protocols.ports.store import (
    ExchangeStore,
    LedgerStore,
    ThreadStore,
)
from protocols.ports.transport import Transport


@dataclass(slots=True, kw_only=True)
class Ports:
    """What a node plugs into; a test may wrap any of them before `assemble`."""

    ledger: LedgerStore
    exchange: ExchangeStore
    threads: ThreadStore
    directory: DirectorySource
    transport: Transport
    clients: PostgresClients
    registry: PostgresRegistry
    clock: SystemClock
    ids: SystemIds
    guard: FileGuard


@dataclass(slots=True, kw_only=True)
class Parts:
    """A node, assembled: its loops, its listeners and what they stand on."""

    committer: Committer
    deliver: Deliver
    answer: Answer | None
    directory: DirectorySource
    listeners: Mapping[str, web.Application]
    linking: Linking
    health: dict[str, str]


def connect_ports(node: Path, settings: Settings, keys: KeyStore, pool: Pool, dsn: str) -> Ports:
    """The concrete adapters of a node."""
    clock = SystemClock()
    root = (node / "root.json").read_bytes()
    return Ports(
        ledger=PostgresLedger(dsn, pool),
        exchange=PostgresExchange(pool),
        threads=PostgresThreads(pool, settings.member),
        directory=DirectoryClient(node / "directory", root, settings.directory),
        transport=PeerClient(
            signer=keys.signer("request"),
            clock=clock,
            spki_sha256=spki_sha256,
            plain_allowed=not settings.exchange_tls,
        ),
        clients=PostgresClients(pool),
        registry=PostgresRegistry(pool),
        clock=clock,
        ids=SystemIds(),
        guard=FileGuard(node / "keys"),
    )


def assemble(node: Path, settings: Settings, keys: KeyStore, secret: Secret, origin: str, ports: Ports) -> Parts:
    """A node over its ports; nothing runs yet."""
    member, clock, ids = settings.member, ports.clock, ports.ids
    verifier, sealer = Tw1Verifier(), keys.sealer()
    vault = EpochVault(node / "keys", secret)
    committer = Committer(
        origin=origin, store=ports.ledger, signer=keys.note_signer(origin), verifier=verifier, guard=ports.guard,
        clock=clock, ids=ids,
    )  # fmt: skip
    release = Release(ports.ledger, ports.guard, lambda: committer.halted is not None)
    prove, linking = Prove(ports.ledger, release), Linking(ports.exchange, verifier, clock)
    submit = Submit(
        member=member, directory=ports.directory, committer=committer, signer=keys.signer("message"), sealer=sealer,
        vault=vault, clock=clock, ids=ids, store=ports.exchange,
    )  # fmt: skip
    judge = Judge(member=member, opener=keys.opener(), sealer=sealer, vault=vault, verifier=verifier, clock=clock)
    receive = Receive(
        member=member, directory=ports.directory, committer=committer, store=ports.exchange, linking=linking,
        prove=prove, judge=judge, clock=clock,
    )  # fmt: skip
    deliver = Deliver(
        member=member, directory=ports.directory, committer=committer, store=ports.exchange, linking=linking,
        prove=prove, transport=ports.transport, threads=ports.threads, vault=vault, submit=submit, sealer=sealer, clock=clock, ids=ids,
        retry_first_s=settings.retry_first_s,
    )  # fmt: skip
    read = Read(
        store=ports.threads, vault=vault, opener=keys.opener(), sealer=sealer, committer=committer, submit=submit,
        clock=clock, answered=["trace.request"] if settings.registry else [],
    )  # fmt: skip
    answer = None
    if settings.registry:
        office = {"name": settings.name, "country": {"code": settings.country, "raw": settings.country}}
        answer = Answer(
            office=office, store=ports.exchange, registry=ports.registry, read=read, submit=submit,
            committer=committer, clock=clock,
        )  # fmt: skip
        committer.on_commit(answer.wake)
    committer.on_commit(deliver.wake)
    committer.on_commit(read.wake)
    health: dict[str, str] = {}
    view = LedgerView(ports.ledger, ports.exchange, release)
    agency = Agency(
        member=member, access=TokenAccess(keys.signer("token"), issuer=member, audience=settings.audience),
        clients=ports.clients, submit=submit, read=read, ledger=view, directory=ports.directory, clock=clock,
        export=exporter(member, ports, read, prove),
    )  # fmt: skip
    exchange = Exchange(
        url=settings.exchange_url, receive=receive, directory=ports.directory, ledger=view, verifier=verifier,
        clock=clock,
    )  # fmt: skip
    operations = Operations(
        wrong=lambda: health | wrong(ports, committer), warnings=lambda: warnings(ports, linking),
        registry=metrics(committer),
    )  # fmt: skip
    halted = unless_halted(lambda: committer.halted, but="/exchange/v1/checkpoints/")
    listeners = {"agency": agency.app(halted), "exchange": exchange.app(halted), "operations": operations.app()}
    return Parts(
        committer=committer, deliver=deliver, answer=answer, directory=ports.directory, listeners=listeners,
        linking=linking, health=health,
    )  # fmt: skip


def exporter(member: str, ports: Ports, read: Read, prove: Prove) -> Export:
    """The export of evidence over a node's ports."""
    return Export(
        member=member, read=read, threads=ports.threads, ledger=ports.ledger, exchange=ports.exchange, prove=prove,
        transport=ports.transport, directory=ports.directory, clock=ports.clock,
    )  # fmt: skip


def wrong(ports: Ports, committer: Committer) -> dict[str, str]:
    """What keeps this node from its work: check -> problem code."""
    found = {"ledger": committer.halted.code} if committer.halted else {}
    directory = ports.directory.current
    if directory is None:
        return found | {"directory": "dir.stale"}
    late = ports.clock.now() - directory.expires
    if late > timedelta(0):
        found["directory"] = "dir.stale" if late.total_seconds() > DIRECTORY_GRACE_S else "dir.expired"
    return found


def warnings(ports: Ports, linking: Linking) -> dict[str, str]:
    """What is wrong with others and needs a person here: it never makes this node unready."""
    directory = ports.directory.current
    found = {f"ledger {origin}": code for origin, code in linking.alarms.items()}
    return found | {f"member {name}": code for name, code in (directory.failing if directory else {}).items()}


def metrics(committer: Committer) -> CollectorRegistry:
    """Metrics without case data; labels never name a thread, a message or a person."""
    registry = CollectorRegistry()
    size = Gauge("tracewire_ledger_size", "Entries in the open ledger", registry=registry)
    size.set_function(lambda: committer.size)
    waiting = Gauge("tracewire_commit_queue", "Changes that wait to be committed", registry=registry)
    waiting.set_function(lambda: committer.waiting)
    return registry


def tls_context(node: Path, settings: Settings) -> ssl.SSLContext | None:
    """TLS 1.3 with the certificate files of the settings; None where there are none (loopback only)."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(node / settings.tls_certificate, node / settings.tls_key)
    return context
