"""The one composition root: explicit constructor calls, plain values and ports."""

import ssl
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from shutil import disk_usage
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge, Histogram

from gateway.http.agency import Agency
from gateway.http.exchange import Exchange
from gateway.http.operations import Operations
from gateway.http.serve import unless_halted
from gateway.runtime.console import node_console
from gateway.runtime.metrics import Metrics
from gateway.runtime.ports import Ports
from gateway.runtime.settings import Settings
from gateway.services.answer import ACTOR, Answer
from gateway.services.approve import Approve
from gateway.services.blobs import Blobs
from gateway.services.chain import Chains
from gateway.services.check import Check
from gateway.services.collect import Collect
from gateway.services.commit import Committer
from gateway.services.committed import LedgerView
from gateway.services.converse import Converse
from gateway.services.courier import Courier
from gateway.services.deliver import Deliver
from gateway.services.dispatch import Dispatch
from gateway.services.diversion import Diversions
from gateway.services.erase import Erase
from gateway.services.evidence import Export
from gateway.services.gossip import Gossip
from gateway.services.judge import Judge
from gateway.services.lapse import Lapse
from gateway.services.link import Linking
from gateway.services.notices import Notices
from gateway.services.offer import Offer
from gateway.services.pace import Pace
from gateway.services.pack import Pack
from gateway.services.probe import Probe
from gateway.services.prove import Prove, Release
from gateway.services.read import Read
from gateway.services.receive import Receive
from gateway.services.recompute import Recomputing
from gateway.services.records import Records
from gateway.services.relay import Relay
from gateway.services.report import Reports
from gateway.services.settle import Settle
from gateway.services.submit import Submit
from gateway.services.trail import Trail
from gateway.services.witness import Witness
from keys.keystore import KeyStore
from keys.secret import Secret
from keys.tls import end_of_pem
from keys.tokens import TokenAccess
from keys.vault import EpochVault
from protocols.directory import Directory
from protocols.exchange.blobs import sealed_bytes
from protocols.ledger.entry import parse_entry
from protocols.limits import DIRECTORY_GRACE_S, REQUEST_AHEAD_MAX_S
from protocols.ports.crypto import Sealer
from protocols.ports.directory import DirectorySource
from protocols.problems import ProblemError

_WHILE_HALTED = ("/audit", "/exchange/v1/checkpoints/", "/exchange/v1/probe", "/problems", "/style.css")


@dataclass(slots=True, kw_only=True)
class Ways:
    """How parcels and receipts travel: pushed, fetched, carried for others."""

    settle: Settle
    relay: Relay
    offer: Offer
    deliver: Deliver
    collect: Collect
    courier: Courier
    blobs: Blobs


@dataclass(slots=True, kw_only=True)
class Parts:
    """A node, assembled: its loops, its listeners and what they stand on."""

    committer: Committer
    submit: Submit
    read: Read
    converse: Converse
    approve: Approve
    records: Records
    export: Export
    receive: Receive
    deliver: Deliver
    ways: Ways
    answer: Answer | None
    dispatch: Dispatch | None
    lapse: Lapse
    erase: Erase
    gossip: Gossip
    recomputing: Recomputing
    directory: DirectorySource
    listeners: Mapping[str, web.Application]
    linking: Linking
    witness: Witness
    probe: Probe
    health: dict[str, str]
    requests: Histogram

    def loops(self) -> list[Coroutine[None, None, None]]:
        """Everything that works on what comes, but for the committer."""
        ways, own = self.ways, [each.run() for each in (self.answer, self.dispatch) if each]
        sending = [ways.deliver.run(), ways.collect.run(), ways.relay.run(ways.offer.wake), ways.blobs.run()]
        return [*sending, self.lapse.run(), self.erase.run(), *own]

    def rounds(self) -> list[Coroutine[None, None, None]]:
        """Everything that goes by the hour, whatever comes."""
        return [self.gossip.run(), self.witness.run(), self.recomputing.run()]


def assemble(node: Path, settings: Settings, keys: KeyStore, secret: Secret, origin: str, ports: Ports) -> Parts:
    """A node over its ports; nothing runs yet."""
    member, clock, ids, verifier, sealer = settings.member, ports.clock, ports.ids, ports.verifier, keys.sealer()
    vault = EpochVault(node / "keys", secret)
    committer = Committer(
        origin=origin, store=ports.ledger, signer=keys.note_signer(origin), verifier=verifier, guard=ports.guard,
        clock=clock, ids=ids,
    )  # fmt: skip
    release = Release(ports.ledger, ports.guard, lambda: committer.halted is not None)
    prove, linking = Prove(ports.ledger, release), Linking(ports.exchange, verifier, clock)
    submit = Submit(
        member=member, directory=ports.directory, committer=committer, signer=keys.current_signer("message"), sealer=sealer,
        vault=vault, clock=clock, ids=ids, store=ports.exchange, blobs=ports.blobs,
    )  # fmt: skip
    receive, blobs, pace = receiving(settings, ports, keys, committer, linking, prove, vault)
    witness = Witness(
        member=member, committer=committer, directory=ports.directory, ledger=ports.ledger, store=ports.exchange, linking=linking, prove=prove,
        transport=ports.transport, cosigner=lambda: keys.cosigner(member), sealer=sealer, verifier=verifier, clock=clock,
    )  # fmt: skip
    ways = ways_of(settings, ports, keys, committer, linking, prove, submit, receive, blobs, vault, witness)
    read = Read(
        member=member, store=ports.threads, vault=vault, opener=keys.opener(), sealer=sealer, committer=committer, submit=submit,
        clock=clock, answered=settings.answers, erasures=ports.erasures, dispatches=ports.backend is None,
    )  # fmt: skip
    office = {"name": settings.name, "country": {"code": settings.country, "raw": settings.country}}
    committer.on_commit(read.wake)
    health: dict[str, str] = {}
    view, export = LedgerView(ports.ledger, ports.exchange, release), exporter(member, ports, read, prove)
    probe = prober(member, ports, keys, lambda: health | wrong(ports, committer))
    approve = Approve(
        member=member, store=ports.approvals, threads=ports.threads, committer=committer, prove=prove, vault=vault, sealer=sealer,
        clock=clock, ids=ids,
    )  # fmt: skip
    records = Records(member=member, office=office, registry=ports.registry, approve=approve, clock=clock, ids=ids)
    notices = Notices(member=member, read=read, clock=clock)
    answer = answering(office, settings, ports, records, notices, read, submit, committer) if settings.answers else None
    converse = Converse(
        member=member, office=office, read=read, submit=submit, directory=ports.directory, clock=clock, approve=approve,
    )  # fmt: skip
    erase = eraser(settings, ports, read, records, approve, ways.settle, committer, prove, linking, vault, sealer)
    access = TokenAccess(keys, issuer=member, audience=settings.audience)
    trail = Trail(read=read, ledger=ports.ledger, clients=ports.clients, directory=ports.directory, actors=(ACTOR,))  # fmt: skip
    agency = agency_of(
        member, ports, access, submit, read, view, probe, export, converse, approve, records, notices, blobs, erase, trail
    )  # fmt: skip
    exchange = Exchange(
        url=settings.exchange_url, witness=witness, linking=linking, receive=receive, relay=ways.relay, offer=ways.offer, blobs=blobs, pace=pace, directory=ports.directory, ledger=view, probe=probe, verifier=verifier, clock=clock,
    )  # fmt: skip
    measured = measure(node, settings, ports, committer, ways.settle, receive, linking, health)
    operations = Operations(wrong=measured.look, warnings=lambda: warnings(ports, linking), registry=measured.registry)
    halted = unless_halted(lambda: committer.halted, but=_WHILE_HALTED)
    pages = node_console(view, ports, trail, sealer, linking, read)
    listeners = {"agency": agency.app(halted, more=pages), "exchange": exchange.app(halted), "operations": operations.app()}  # fmt: skip
    return Parts(
        committer=committer, submit=submit, read=read, converse=converse, approve=approve, records=records, export=export, answer=answer,
        dispatch=dispatching(settings, ports, submit, committer),
        receive=receive, deliver=ways.deliver, ways=ways,
        lapse=Lapse(member=member, store=ports.threads, committer=committer, sealer=sealer, clock=clock), directory=ports.directory, listeners=listeners,
        gossip=Gossip(member=member, directory=ports.directory, store=ports.exchange, linking=linking, transport=ports.transport, sealer=sealer),
        recomputing=Recomputing(ports.ledger, linking), erase=erase, linking=linking, witness=witness, probe=probe, health=health, requests=measured.requests,
    )  # fmt: skip


def eraser(
    settings: Settings,
    ports: Ports,
    read: Read,
    records: Records,
    approve: Approve,
    settle: Settle,
    committer: Committer,
    prove: Prove,
    linking: Linking,
    vault: EpochVault,
    sealer: Sealer,
) -> Erase:
    """What erases."""
    return Erase(
        member=settings.member, store=ports.erasures, exchange=ports.exchange, read=read, records=records, approve=approve,
        settle=settle, committer=committer, prove=prove, linking=linking, directory=ports.directory, vault=vault, sealer=sealer, clock=ports.clock,
        backup_days=settings.backup_days, retention_days=settings.retention_days,
    )  # fmt: skip


def receiving(
    settings: Settings,
    ports: Ports,
    keys: KeyStore,
    committer: Committer,
    linking: Linking,
    prove: Prove,
    vault: EpochVault,
) -> tuple[Receive, Blobs, Pace]:
    """What takes parcels and attachments in, and what bounds it."""
    member, clock, sealer, verifier = settings.member, ports.clock, keys.sealer(), ports.verifier
    judge = Judge(
        member=member, opener=keys.opener(), sealer=sealer, vault=vault, verifier=verifier, clock=clock,
        attachment_max=sealed_bytes(settings.attachment_bytes),
    )  # fmt: skip
    blobs = Blobs(
        member=member, directory=ports.directory, store=ports.blobs, transport=ports.transport, sealer=sealer,
        opener=keys.opener(), clock=clock, bytes_max=settings.attachment_bytes,
    )  # fmt: skip
    pace = Pace(ports.monotonic, ports.exchange.backlog)
    receive = Receive(
        member=member, directory=ports.directory, committer=committer, store=ports.exchange, linking=linking,
        prove=prove, judge=judge, pace=pace, blobs=blobs, clock=clock,
    )  # fmt: skip
    return receive, blobs, pace


def ways_of(
    settings: Settings,
    ports: Ports,
    keys: KeyStore,
    committer: Committer,
    linking: Linking,
    prove: Prove,
    submit: Submit,
    receive: Receive,
    blobs: Blobs,
    vault: EpochVault,
    witness: Witness,
) -> Ways:
    """How parcels and receipts travel, over the services that make and judge them."""
    member, clock, ids, sealer = settings.member, ports.clock, ports.ids, keys.sealer()
    settle = Settle(
        member=member, committer=committer, store=ports.exchange, linking=linking, prove=prove, sealer=sealer, clock=clock,
    )  # fmt: skip
    pack = Pack(
        member=member, committer=committer, store=ports.exchange, threads=ports.threads, linking=linking, prove=prove,
        settle=settle, submit=submit, vault=vault,
    )  # fmt: skip
    relay = Relay(
        member=member, directory=ports.directory, committer=committer, store=ports.relays, linking=linking, prove=prove,
        transport=ports.transport, sealer=sealer, clock=clock, ids=ids, retry_first_s=settings.retry_first_s,
    )  # fmt: skip
    offer = Offer(
        member=member, directory=ports.directory, store=ports.exchange, pack=pack, settle=settle, relay=relay, clock=clock,
    )  # fmt: skip
    deliver = Deliver(
        member=member, directory=ports.directory, committer=committer, store=ports.exchange, linking=linking, pack=pack,
        settle=settle, transport=ports.transport, offer=offer, blobs=blobs, clock=clock, ids=ids, retry_first_s=settings.retry_first_s,
    )  # fmt: skip
    collect = Collect(
        member=member, directory=ports.directory, receive=receive, transport=ports.transport, ids=ids,
        retry_first_s=settings.retry_first_s,
    )  # fmt: skip
    committer.on_commit(deliver.wake)
    committer.on_commit(relay.wake)
    courier = Courier(
        member=member, directory=ports.directory, store=ports.exchange, owed=ports.owed, pack=pack, prove=prove, linking=linking, blobs=blobs,
        witness=witness, receive=receive, settle=settle, clock=clock,
    )  # fmt: skip
    return Ways(settle=settle, relay=relay, offer=offer, deliver=deliver, collect=collect, courier=courier, blobs=blobs)


def answering(
    office: dict[str, Any],
    settings: Settings,
    ports: Ports,
    records: Records,
    notices: Notices,
    read: Read,
    submit: Submit,
    committer: Committer,
) -> Answer:
    """What of a node answers by itself."""
    answer = Answer(
        office=office, types=settings.answers, store=ports.exchange, registry=ports.registry, records=records, notices=notices,
        read=read, submit=submit, committer=committer, clock=ports.clock, later_s=settings.later_s,
    )  # fmt: skip
    committer.on_commit(answer.wake)
    return answer


def dispatching(settings: Settings, ports: Ports, submit: Submit, committer: Committer) -> Dispatch | None:
    """What tells the member's own system, where the settings name one."""
    if ports.backend is None:
        return None
    dispatch = Dispatch(
        but=settings.answers, store=ports.exchange, backend=ports.backend, submit=submit, committer=committer,
        clock=ports.clock, ids=ports.ids, later_s=settings.later_s,
    )  # fmt: skip
    committer.on_commit(dispatch.wake)
    return dispatch


def agency_of(
    member: str,
    ports: Ports,
    access: TokenAccess,
    submit: Submit,
    read: Read,
    view: LedgerView,
    probe: Probe,
    export: Export,
    converse: Converse,
    approve: Approve,
    records: Records,
    notices: Notices,
    blobs: Blobs,
    erase: Erase,
    trail: Trail,
) -> Agency:
    """The agency interface over the services of a node."""
    chains = Chains(member=member, read=read, clock=ports.clock)
    return Agency(
        member=member, access=access, clients=ports.clients, submit=submit, read=read, ledger=view,
        directory=ports.directory, clock=ports.clock, export=export, probe=probe, converse=converse, approve=approve,
        chains=chains, diversions=Diversions(read=read, chains=chains), reports=Reports(member=member, read=read),
        check=Check(member=member, directory=ports.directory, clock=ports.clock), notices=notices, records=records, blobs=blobs,
        trail=trail, erase=erase,
    )  # fmt: skip


async def recall_time(ports: Ports, origin: str) -> None:
    """Shows the clock the newest entry of our ledger: what had expired before a restart stays so."""
    newest = await ports.ledger.checkpoint(origin)
    size = newest.size if newest else 0
    for entry in await ports.ledger.entries(origin, max(size - 1, 0), size):
        with suppress(ProblemError):  # the committer says what is wrong with the ledger
            ports.clock.seen(parse_entry(entry).at)


def exporter(member: str, ports: Ports, read: Read, prove: Prove) -> Export:
    """The export of evidence over a node's ports."""
    return Export(
        member=member, read=read, threads=ports.threads, ledger=ports.ledger, exchange=ports.exchange, prove=prove,
        transport=ports.transport, directory=ports.directory, verifier=ports.verifier, clock=ports.clock,
    )  # fmt: skip


def prober(member: str, ports: Ports, keys: KeyStore, wrong: Callable[[], Mapping[str, str]]) -> Probe:
    """Both sides of a probe over a node's ports."""
    return Probe(
        member=member, directory=ports.directory, transport=ports.transport, ledger=ports.ledger,
        signer=keys.current_signer("request"), verifier=ports.verifier, wrong=wrong, clock=ports.clock,
    )  # fmt: skip


def wrong(ports: Ports, committer: Committer) -> dict[str, str]:
    """What keeps this node from its work: check -> problem code."""
    found = {"ledger": committer.halted.code} if committer.halted else {}
    if ports.clock.behind.total_seconds() > REQUEST_AHEAD_MAX_S:
        found["clock"] = "time.rollback"
    late = overdue(ports.directory.current, ports.clock.now())
    return found | {"directory": late} if late else found


def overdue(directory: Directory | None, now: datetime) -> str | None:
    """The code of a directory that is not in force any more, or never was."""
    late = now - directory.expires if directory else timedelta.max
    if late <= timedelta(0):
        return None
    return "dir.stale" if late.total_seconds() > DIRECTORY_GRACE_S else "dir.expired"


def warnings(ports: Ports, linking: Linking) -> dict[str, str]:
    """What is wrong with others and needs a person here: it never makes this node unready."""
    directory = ports.directory.current
    found = {f"ledger {origin}": code for origin, code in linking.alarms.items()}
    return found | {f"member {name}": code for name, code in (directory.failing if directory else {}).items()}


def measure(
    node: Path,
    settings: Settings,
    ports: Ports,
    committer: Committer,
    settle: Settle,
    receive: Receive,
    linking: Linking,
    health: Mapping[str, str],
) -> Metrics:
    """The metrics of a node; `health` is read whenever they are."""
    return Metrics(
        committer=committer, settle=settle, receive=receive, store=ports.exchange, ledger=ports.ledger,
        directory=ports.directory, clock=ports.clock, free=lambda: free_bytes(node, settings), certificate_ends=certificate_ends(node, settings),
        wrong=lambda: {**health, **wrong(ports, committer)}, warnings=lambda: warnings(ports, linking),
    )  # fmt: skip


def waiting() -> Operations:
    """The operations listener of a node whose database cannot be reached yet."""
    wrong, registry = {"database": "store.busy"}, CollectorRegistry()
    Gauge("tracewire_ready", "0: the node waits for its database.", registry=registry)
    checks = Gauge("tracewire_wrong_checks", "What keeps it from its work.", ("check", "code"), registry=registry)
    for check, code in wrong.items():
        checks.labels(check, code).set(1)

    async def look() -> dict[str, str]:
        return wrong

    return Operations(wrong=look, warnings=dict, registry=registry)


def free_bytes(node: Path, settings: Settings) -> dict[str, int]:
    """Free space of the node's folder and of its own database's, where it has one."""
    places = {"node": node} if settings.database else {"node": node, "database": node / settings.postgres_folder}
    return {place: disk_usage(path).free for place, path in places.items()}


def certificate_ends(node: Path, settings: Settings) -> datetime | None:
    """When the TLS certificate of the settings ends; None too for a file that the listeners refuse."""
    with suppress(OSError, ValueError):
        return end_of_pem((node / settings.tls_certificate).read_bytes()) if settings.tls_certificate else None
    return None


def tls_context(node: Path, settings: Settings) -> ssl.SSLContext | None:
    """TLS 1.3 with the certificate files of the settings; None where there are none (loopback only)."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(node / settings.tls_certificate, node / settings.tls_key)
    return context
