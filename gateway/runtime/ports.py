"""The concrete adapters that a node plugs in."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adapters.backends.webhook import Webhook
from adapters.directory.client import DirectoryClient
from adapters.peers.http import PeerClient
from adapters.postgres.approvals import PostgresApprovals
from adapters.postgres.blobs import PostgresBlobs
from adapters.postgres.connect import Pool
from adapters.postgres.erasures import PostgresErasures
from adapters.postgres.exchange import PostgresExchange
from adapters.postgres.ledger import PostgresLedger
from adapters.postgres.registry import PostgresRegistry
from adapters.postgres.relays import PostgresCourier, PostgresRelays
from adapters.postgres.sessions import PostgresSessions
from adapters.postgres.threads import PostgresClients, PostgresThreads
from gateway.runtime.settings import Settings
from gateway.runtime.world import SteadyClock, SystemClock, SystemIds
from keys.guard import FileGuard
from keys.keystore import KeyStore
from keys.suite import Tw1Verifier
from keys.tls import spki_sha256
from protocols.ports.backend import Backend
from protocols.ports.carried import BlobStore, CourierStore, RelayStore
from protocols.ports.crypto import Verifier
from protocols.ports.directory import DirectorySource
from protocols.ports.people import SessionStore
from protocols.ports.store import ErasureStore, ExchangeStore, LedgerStore, ThreadStore
from protocols.ports.transport import Transport


@dataclass(slots=True, kw_only=True)
class Ports:
    """What a node plugs into; a test may wrap any of them before `assemble`."""

    ledger: LedgerStore
    exchange: ExchangeStore
    relays: RelayStore
    owed: CourierStore
    blobs: BlobStore
    threads: ThreadStore
    directory: DirectorySource
    transport: Transport
    clients: PostgresClients
    approvals: PostgresApprovals
    erasures: ErasureStore
    sessions: SessionStore
    registry: PostgresRegistry
    verifier: Verifier
    clock: SteadyClock
    monotonic: Callable[[], float]
    ids: SystemIds
    guard: FileGuard
    backend: Backend | None


def connect_ports(
    node: Path,
    settings: Settings,
    keys: KeyStore,
    pool: Pool,
    dsn: str,
    *,
    system: SystemClock | None = None,
    directory: DirectorySource | None = None,
) -> Ports:
    """The concrete adapters of a node; the doctor brings its clock, and a directory that it keeps apart."""
    clock = SteadyClock(system or SystemClock())
    return Ports(
        ledger=PostgresLedger(dsn, pool),
        exchange=PostgresExchange(pool),
        relays=PostgresRelays(pool),
        owed=PostgresCourier(pool),
        blobs=PostgresBlobs(pool),
        threads=PostgresThreads(pool, settings.member),
        directory=directory or open_directory(node, node / "directory", settings),
        transport=PeerClient(
            signer=keys.current_signer("request"),
            clock=clock,
            spki_sha256=spki_sha256,
            plain_allowed=not settings.exchange_tls,
        ),
        clients=PostgresClients(pool),
        approvals=PostgresApprovals(pool),
        erasures=PostgresErasures(pool),
        sessions=PostgresSessions(pool),
        registry=PostgresRegistry(pool),
        verifier=Tw1Verifier(),
        clock=clock,
        monotonic=time.monotonic,
        ids=SystemIds(clock),
        guard=FileGuard(node / "keys"),
        backend=_backend(settings, keys),
    )


def _backend(settings: Settings, keys: KeyStore) -> Webhook | None:
    if not settings.webhook:
        return None
    return Webhook(settings.webhook, keys.webhook_signers, timeout_s=settings.later_s * 3 / 4)


def open_directory(node: Path, folder: Path, settings: Settings) -> DirectoryClient:
    """The node's directory as it stands in a folder, from its pinned root."""
    return DirectoryClient(folder, (node / "root.json").read_bytes(), settings.directory)
