"""A network in a temporary folder: an authority, real keys, nodes in this process over real PostgreSQL and real HTTP.

`Federation.nodes` makes members with a node, `Federation.strangers` members without one: what a stranger signs and sends
is the test's choice. Every port of a node may be wrapped before it starts; its way to peers is always a `Wire`.
"""

import asyncio
import contextlib
import copy
import itertools
import os
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import asyncpg
from aiohttp import web
from securesystemslib.signer import CryptoSigner

from adapters.directory.client import DirectoryClient
from adapters.directory.publisher import Authority, Online, init_directory, new_network, sign_timestamp
from adapters.directory.request import answer_request, parse_request
from adapters.peers.http import PeerClient
from adapters.postgres.connect import Pool
from adapters.postgres.embedded import EmbeddedServer
from adapters.postgres.ledger import IDENTITY
from adapters.postgres.migrate import migrate
from gateway.runtime.cli.member import Changes, member_request
from gateway.runtime.compose import Parts, assemble, recall_time
from gateway.runtime.node import follow_keys
from gateway.runtime.ports import Ports, connect_ports
from gateway.runtime.settings import FILE, Settings, dump_settings
from gateway.runtime.world import SteadyClock, SystemClock, SystemIds
from gateway.services.changes import Noted
from gateway.services.submit import Draft, Request
from keys.guard import FileGuard
from keys.keystore import KeyStore
from keys.secret import Secret
from keys.suite import Tw1Sealer, Tw1Verifier
from keys.tls import spki_sha256
from keys.vault import EpochVault
from protocols.directory import Directory, Network, Record, Role
from protocols.exchange.envelope import seal
from protocols.exchange.lines import Hello, Parcel, Post, Receipt, encode_post, parse_post
from protocols.exchange.message import Message, sign_message
from protocols.ledger.checkpoint import LedgerKeys, verify_checkpoint
from protocols.ledger.entry import DirRef, Entry, PeerRef, content_commitment, parse_entry, thread_commitment
from protocols.ledger.linking import Link, chain
from protocols.ledger.merkle import EMPTY_ROOT, consistency_path, inclusion_path, leaf_hash, node_hash
from protocols.ledger.merkle import root as tree_root
from protocols.ledger.proof import Place
from protocols.ledger.tiles import HEIGHT, WIDTH
from protocols.ports.access import Caller
from protocols.ports.crypto import GuardMark
from protocols.ports.rows import (
    Arrived,
)
from protocols.problems import ProblemError
from protocols.strict import parse_object

Json = dict[str, Any]
Hook = Callable[[str, bytes, Callable[[], Awaitable[bytes]]], Awaitable[bytes]]
Ranges = Callable[[bytes, Callable[[bytes], Awaitable[None]]], Awaitable[None]]
NETWORK = "testnet"
WAIT_S = 10.0
LEASE = timedelta(seconds=121)  # a claim that nobody finished is over
HANDLING = {"codes": ["PURPOSE_TRACING_ONLY"], "purpose": "TRACING", "evidence_use": "yes"}
EVERY_ROLE: tuple[Role, ...] = ("focal-point", "registry")
_numbers = itertools.count(1)
_templates: dict[str, str] = {}
_free: dict[str, list[tuple[str, str]]] = {}  # databases that a test is done with: emptying one is cheaper than a copy


async def wait_until(condition: Callable[[], Awaitable[Any]], wait_s: float = WAIT_S) -> Any:
    """The first true value of the condition; fails after `wait_s`."""
    end = asyncio.get_running_loop().time() + wait_s
    while not (found := await condition()):
        assert asyncio.get_running_loop().time() < end, "what was waited for did not happen"
        await asyncio.sleep(0.01)
    return found


def trace_request(serial: str = "ABC1234", **changes: Any) -> Json:
    """The body of a valid trace.request for a pistol."""
    mark = {"mark_type": pair("SERIAL"), "text_raw": serial, "location": pair("FRAME_LEFT"), "status": pair("LEGIBLE")}
    return {
        "request_ref": "case 1",
        "requester": {"name": "Office", "country": pair("DE")},
        "legal_basis": {"ground": pair("LAW_OF_RECOVERING_STATE"), "national_provision": "WaffG section 52"},
        "circumstances": {"recovered_on": "2026-04", "country": pair("DE"), "context": pair("SEARCH")},
        "weapon": {
            "type": pair("PISTOL"), "make": pair("GLOCK", "Glock"), "model": "17", "calibre": pair("9X19", "9 mm"),
            "country_of_manufacture": pair("AT"), "origin_class": pair("FACTORY"),
            "components": [{"kind": pair("FRAME"), "marks": [mark | {"pattern": f"^{serial}$"}]}],
        },
        "intended_use": pair("CRIMINAL_INVESTIGATION"), "priority": "ROUTINE", "asks": ["supply_chain"],
        "confidentiality_guarantee": True,
    } | changes  # fmt: skip


def pair(code: str, raw: str = "") -> Json:
    """A coded value with its raw text."""
    return {"code": code, "raw": raw}


ACKNOWLEDGEMENT = {
    "state": "ACCEPTED", "handler": {"name": "Office", "country": pair("AT")}, "expected_by": "2027-01-01",
}  # fmt: skip
RESPONSE = {
    "result": pair("NO_RECORD_FOUND"), "certainty": pair("CONFIRMED"), "final": True,
    "checked_sources": [{"name": "register", "period": {}, "coverage": pair("WHOLE")}],
}  # fmt: skip
REFUSAL = {"kind": "REFUSAL", "ground": pair("ITI22_NATIONAL_SECURITY"), "statement": "We may not say."}
DELAY = REFUSAL | {"kind": "DELAY", "review_on": "2027-01-01"}


def nobodys_directory() -> Directory:
    """Of a network without members, whose requests are to be acknowledged within two working days."""
    network = Network(v=1, network="n", live=False, members=[], matrix={}, deadlines={"acknowledgement_days": 2})
    return Directory(
        ref=DirRef(version=1, sha256=bytes(32)), expires=datetime(2027, 1, 1, tzinfo=UTC), network=network, records={},
        message_keys={}, seal_keys={}, request_keys={}, ledgers={},
    )  # fmt: skip


class Clock(SystemClock):
    """This machine's clock, moved ahead by the test."""

    ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead


class SteadyIds(SystemIds):
    """Retries come as early as they may."""

    def jitter(self) -> float:
        return 0.0


class Wire:
    """A node's way to peers, recorded; `hook(peer, body, send)` may lose, hold or forge an answer.

    `ranges(data, put)` likewise a range of an attachment. With `hasty` what is fetched never waits.
    """

    def __init__(self, client: PeerClient) -> None:
        self.client = client
        self.hook: Hook | None = None
        self.cut = ""  # why receipts of what was fetched do not get back
        self.ranges: Ranges | None = None
        self.fetches, self.hasty = 0, False
        self.posts: list[tuple[str, bytes, bytes | str]] = []

    async def post(self, peer: Record, body: bytes) -> bytes:
        async def send() -> bytes:
            return await self.client.post(peer, body)

        try:
            answer = await (self.hook(peer.member, body, send) if self.hook else send())
        except ProblemError as problem:
            self.posts.append((peer.member, body, problem.code))
            raise
        self.posts.append((peer.member, body, answer))
        return answer

    async def fetch(self, peer: Record, wait_s: int) -> bytes:
        self.fetches += 1
        return await self.client.fetch(peer, 0 if self.hasty else wait_s)

    async def receipts(self, peer: Record, body: bytes) -> None:
        if self.cut:
            raise ProblemError(self.cut, "made by the test")
        await self.client.receipts(peer, body)

    async def blob_held(self, peer: Record, digest: bytes) -> int:
        return await self.client.blob_held(peer, digest)

    async def put_blob(self, peer: Record, digest: bytes, *, offset: int, size: int, data: bytes) -> None:
        async def put(changed: bytes) -> None:
            await self.client.put_blob(peer, digest, offset=offset, size=size, data=changed)

        await (self.ranges(data, put) if self.ranges else put(data))

    async def get_blob(self, peer: Record, digest: bytes, *, offset: int, length: int) -> bytes:
        return await self.client.get_blob(peer, digest, offset=offset, length=length)

    async def add_checkpoint(self, peer: Record, body: bytes) -> bytes | int:
        return await self.client.add_checkpoint(peer, body)

    async def checkpoint(self, peer: Record, origin: str) -> bytes | None:
        return await self.client.checkpoint(peer, origin)

    async def tile(self, peer: Record, origin: str, path: str) -> bytes | None:
        return await self.client.tile(peer, origin, path)

    async def directory_file(self, peer: Record, name: str) -> bytes | None:
        return await self.client.directory_file(peer, name)

    async def reach(self, peer: Record, layer: Any) -> None:
        await self.client.reach(peer, layer)

    async def time(self, peer: Record) -> datetime:
        return await self.client.time(peer)

    async def probe(self, peer: Record) -> bytes:
        return await self.client.probe(peer)

    async def close(self) -> None:
        await self.client.close()


async def unreachable(peer: str, body: bytes, send: Callable[[], Awaitable[bytes]]) -> bytes:
    """A hook: nothing gets through."""
    raise ProblemError("peer.unreachable", "cut by the test")


class Member:
    """A member's keys and name, with or without a node."""

    def __init__(self, fed: "Federation", short: str) -> None:
        self.fed, self.short, self.name = fed, short, f"{NETWORK}/{short}"
        self.folder = fed.folder / short
        self.folder.mkdir()
        self.origin = f"{self.name}/2026.1"
        self.port = _free_port()
        self.url, self.pins = f"http://127.0.0.1:{self.port}", list[str]()
        self.keys = KeyStore.create(self.folder / "keys", fed.secret)
        for use in ("record", "message", "seal", "request", "token", "witness"):
            self.keys.add(use)  # type: ignore[arg-type]
        self.keys.add("ledger", origin=self.origin)
        self.version, self.request = 0, b""
        self.facts: Json = {}

    @property
    def ledger_keys(self) -> LedgerKeys:
        return LedgerKeys.parse(self.origin, self.keys.note_signer(self.origin).vkeys)

    def ask(self, changes: Changes | None = None) -> bytes:
        """The member's next request to the directory."""
        self.version += 1
        previous = parse_request(self.request).record if self.request else None
        self.request = member_request(
            self.keys, member=self.name, name="Agency", url=self.url, spki=self.pins, origin=self.origin,
            version=self.version, now=self.fed.clock.now(), previous=previous, facts=self.facts,
            changes=changes,
        )  # fmt: skip
        return self.request

    def client(self) -> PeerClient:
        return PeerClient(
            signer=self.keys.current_signer("request"),
            clock=self.fed.clock,
            spki_sha256=spki_sha256,
            plain_allowed=True,
        )


class Node(Member):
    """A member's node in this process."""

    def __init__(self, fed: "Federation", short: str, **settings: Any) -> None:
        super().__init__(fed, short)
        self.wraps: list[Callable[[Ports], None]] = []
        self._settings = settings
        self._task: asyncio.Task[None] | None = None
        self.database = ""

    async def make(self) -> None:
        """Folder, database, head and guard: what `tracewire init` does."""
        EpochVault.create(self.folder / "keys", self.fed.secret)
        (self.folder / "root.json").write_bytes(self.fed.root)
        self.database, self.dsn = self.own_database = await new_database(self.fed.server)
        self.settings = Settings.model_validate({
            "member": self.name, "name": "Agency", "country": "DE", "directory": str(self.fed.repository),
            "exchange_url": self.url, "exchange_bind": f"127.0.0.1:{self.port}", "database": self.dsn,
            "operations_bind": f"127.0.0.1:{_free_port()}", "agency_bind": f"127.0.0.1:{_free_port()}",
            "retry_first_s": 0.05, **self._settings,
        })  # fmt: skip
        (self.folder / FILE).write_text(dump_settings(self.settings))
        await self.found()

    async def found(self, size: int = 0, root: bytes = EMPTY_ROOT) -> None:
        """The head of its ledger where there is none, and the guard's mark."""
        identifier, timeline = await self.sql(IDENTITY)
        head = "INSERT INTO ledger_head (origin, size, root) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
        await self.sql(head, self.origin, size, root)
        mark = GuardMark(origin=self.origin, size=size, root=root, system_identifier=identifier, timeline=timeline)
        FileGuard(self.folder / "keys").raise_to(mark)

    async def ports(self) -> Ports:
        """The node's real ports, its wire and the test's clock; wrapped as the test wants."""
        self.pool = await Pool.open(self.dsn)
        ports = connect_ports(self.folder, self.settings, self.keys, self.pool, self.dsn)
        self.wire = Wire(self.client())
        ports.clock = SteadyClock(self.fed.clock)
        ports.ids, ports.transport = SteadyIds(ports.clock), self.wire
        for wrap in self.wraps:
            wrap(ports)
        return ports

    async def follow_keys(self) -> list[str]:
        """What a running node does every minute."""
        return await follow_keys(self.parts.committer, self.keys, self.fed.directory, self.fed.clock.now())

    async def start(self) -> None:
        """Runs until `stop`; returns when it listens. A node that must not sign listens too."""
        ports = self._ports = await self.ports()
        self.parts: Parts = assemble(self.folder, self.settings, self.keys, self.fed.secret, self.origin, ports)
        self.submitting, self.read = self.parts.submit, self.parts.read
        self._stop, ready = asyncio.Event(), asyncio.Event()
        self._task = asyncio.ensure_future(self._live(ports, ready))
        waiting = asyncio.ensure_future(ready.wait())
        await asyncio.wait([self._task, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._task.done():
            await self.stop()

    async def _live(self, ports: Ports, ready: asyncio.Event) -> None:
        await recall_time(ports, self.origin)
        directory = await ports.directory.refresh(ports.clock.now())
        committer = self.parts.committer
        size = 0
        try:
            size = (await committer.check()).size
        except ProblemError:
            assert committer.halted, "a ledger that cannot be checked halts the node"
        runner = web.AppRunner(self.parts.listeners["exchange"], access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        try:
            async with asyncio.TaskGroup() as group:
                committing = group.create_task(committer.run())
                if not size and not committer.halted:
                    opened = Entry(
                        kind="ledger-opened",
                        at=ports.clock.now(),
                        n=os.urandom(16),
                        sender=self.name,
                        dir=directory.ref,
                    )
                    await committer.commit(Noted(entry=opened))
                working = [group.create_task(loop) for loop in self.parts.loops()]
                ready.set()
                await self._stop.wait()
                await runner.cleanup()
                for task in working:
                    task.cancel()
                await asyncio.wait(working)
                committing.cancel()
                await asyncio.wait([committing])
                await committer.drain()
        finally:
            await runner.cleanup()

    async def stop(self) -> None:
        """Ends the node as SIGTERM does; raises what it died of."""
        if self._task is None:
            return
        task, self._task = self._task, None
        self._stop.set()
        try:
            await task
        finally:
            await self._close()

    async def kill(self) -> None:
        """Ends the node without any goodbye; gives back what its task raised."""
        task, self._task = self._task, None
        assert task is not None
        task.cancel()
        await asyncio.wait([task])
        await self._close()

    async def died(self) -> BaseException | None:
        """Waits until the node's task ends by itself; what of."""
        task, self._task = self._task, None
        assert task is not None
        await asyncio.wait([task], timeout=WAIT_S)
        await self._close()
        return task.exception()

    async def _close(self) -> None:
        await self.wire.close()
        with contextlib.suppress(AttributeError):  # a wrapped ledger need not close
            await self._ports.ledger.close()  # type: ignore[attr-defined]
        self.pool._pool.terminate()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def sql(self, sql: str, *args: Any) -> Any:
        """The first row of a statement as superuser, over a connection of its own."""
        connection = await asyncpg.connect(self.fed.server.dsn(self.database))
        try:
            return await connection.fetchrow(sql, *args)
        finally:
            await connection.close()

    async def rows(self, sql: str, *args: Any) -> list[Any]:
        """All rows, as superuser."""
        connection = await asyncpg.connect(self.fed.server.dsn(self.database))
        try:
            return await connection.fetch(sql, *args)
        finally:
            await connection.close()

    async def count(self, table: str, where: str = "true") -> int:
        return int((await self.sql(f"SELECT count(*) FROM {table} WHERE {where}"))[0])

    async def copy_database(self) -> str:
        """A copy of the stopped node's database as it is now; its name."""
        name = f"copy_{os.getpid()}_{next(_numbers)}"
        async with admin(self.fed.server) as connection:
            await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{self.database}" STRATEGY FILE_COPY')
        return name

    def use_database(self, name: str) -> None:
        """Points the stopped node at another database of the cluster."""
        user = self.dsn.partition("://")[2].partition("@")[0]
        self.database, self.dsn = name, self.fed.server.dsn(name, user=user)

    # ---- what a client does

    async def send(
        self, draft: Draft, *, key: str | None = None, digest: bytes = b"", answers: Arrived | None = None
    ) -> Json:
        """Commits a message through Submit; its answer."""
        caller = Caller(client="test", actor="tester", scopes=frozenset(("parts:read",)))
        request = Request(caller=caller, key=key or f"key {next(_numbers)}", digest=digest)
        return parse_object(await self.submitting.submit(draft, request, answers), bytes_max=65_536)

    async def trace(self, to: Member, serial: str = "ABC1234", **changes: Any) -> Json:
        """Submits a trace.request."""
        return await self.send(self.draft(to, serial), **changes)

    def draft(self, to: Member, serial: str = "ABC1234", **changes: Any) -> Draft:
        body = trace_request(serial)
        given: Json = {
            "type": "trace.request",
            "recipient": to.name,
            "thread": None,
            "body": body,
            "handling": HANDLING,
        }
        return Draft(**given | changes)

    def reply(self, to: Member, asked: Json, type_: str, body: Json, **changes: Any) -> Draft:
        given: Json = {"thread": UUID(asked["thread"]), "in_reply_to": UUID(asked["id"])}
        return self.draft(to, type=type_, body=body, **given | changes)

    async def delivery(self, sent: Json) -> str:
        return str((await self.sql("SELECT state FROM outbox WHERE id = $1", UUID(sent["id"])))[0])

    async def becomes(self, sent: Json, state: str, wait_s: float = WAIT_S) -> None:
        """Waits until a message's delivery is in a state."""

        async def there() -> bool:
            return await self.delivery(sent) == state

        await wait_until(there, wait_s)

    async def leg(self, sent: Json) -> str:
        return (await self.read.leg(UUID(sent["thread"]))).state

    async def leg_becomes(self, sent: Json, state: str) -> None:
        async def there() -> bool:
            found = await self.rows("SELECT state FROM leg WHERE thread = $1", UUID(sent["thread"]))
            return bool(found) and found[0]["state"] == state

        await wait_until(there)

    async def entries(self) -> list[Entry]:
        return [parse_entry(row["data"]) for row in await self.rows("SELECT data FROM entry ORDER BY index")]

    async def kinds(self) -> list[str]:
        return [entry.kind for entry in await self.entries()]


class Stranger(Member):
    """A member without a node: a ledger in memory, and every line it sends is the test's choice."""

    def __init__(self, fed: "Federation", short: str) -> None:
        super().__init__(fed, short)
        self.log: list[bytes] = []
        self._nodes: dict[tuple[int, int], bytes] = {}
        self.held: tuple[int, ...] = (0,)  # what the other said last that it holds of us
        self.add(
            Entry(
                kind="ledger-opened",
                at=fed.clock.now(),
                n=os.urandom(16),
                sender=self.name,
                dir=DirRef(version=1, sha256=bytes(32)),
            )
        )

    def fork(self) -> "Stranger":
        """The same member with a second history: the last entry gone."""
        other = copy.copy(self)
        other.log, other._nodes = self.log[:-1], {}
        return other

    def add(self, entry: Entry) -> int:
        self.log.append(entry.encode())
        return len(self.log) - 1

    def node(self, level: int, index: int) -> bytes:
        if level == 0:
            return leaf_hash(self.log[index])
        if (level, index) not in self._nodes:
            self._nodes[level, index] = node_hash(self.node(level - 1, 2 * index), self.node(level - 1, 2 * index + 1))
        return self._nodes[level, index]

    def note(self, size: int | None = None) -> bytes:
        size = len(self.log) if size is None else size
        return self.keys.note_signer(self.origin).sign(size, tree_root(size, self.node), self.fed.clock.now())

    def place(self, index: int, size: int | None = None) -> Place:
        size = len(self.log) if size is None else size
        path = tuple(inclusion_path(index, size, self.node))
        return Place(origin=self.origin, size=size, index=index, path=path, entry=self.log[index])

    def links(self, size: int, named: Iterable[int] | None = None) -> tuple[Link, ...]:
        steps = chain(self.held if named is None else named, size)
        return tuple(Link(old=old, new=new, path=tuple(consistency_path(old, new, self.node))) for old, new in steps)

    def message(self, to: Member, **changes: Any) -> Message:
        now = self.fed.clock.now()
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)
        ids = SystemIds(SystemClock())
        given: Json = {
            "id": ids.uuid7(), "type": "trace.request", "sender": self.name, "recipient": to.name,
            "thread": ids.uuid7(), "created": now, "expires": now + timedelta(days=1), "handling": HANDLING,
            "salt": os.urandom(32), "body": trace_request(),
        }  # fmt: skip
        return Message(**given | changes)

    def parcel(
        self,
        to: Member,
        *,
        message: Mapping[str, Any] | Message | None = None,
        header: Mapping[str, Any] | None = None,
        entry: Mapping[str, Any] | None = None,
        payload: Callable[[bytes], bytes] = bytes,
        jws: Callable[[bytes], bytes] = bytes,
        envelope: Callable[[bytes], bytes] = bytes,
        signer: Member | None = None,
        kid: str | None = None,
        keys: Mapping[bytes, bytes] | None = None,
    ) -> Parcel:
        """A sealed message with its `sent` entry logged; each layer may be made to differ."""
        said = message if isinstance(message, Message) else self.message(to, **message or {})
        data, by, sealer = payload(said.encode()), (signer or self).keys.signer("message"), Tw1Sealer()
        public = to.keys.public("seal")[0]
        sealed = envelope(seal(
            jws=jws(sign_message(data, by)), message=replace(said, **header or {}), parts=(), kid=kid or public.kid,
            public=public.public, sealer=sealer, keys=keys,
        ))  # fmt: skip
        given: Json = {
            "kind": "sent", "at": self.fed.clock.now(), "n": os.urandom(16), "id": said.id, "sender": self.name,
            "recipient": to.name, "pair_seq": len(self.log), "kid": by.kid, "seal_kid": public.kid, "suite": "tw1",
            "envelope": sha256(sealed).digest(), "content_c": content_commitment(said.salt, data),
            "thread_c": thread_commitment(said.salt, said.thread), "actor_c": bytes(32),
            "dir": self.fed.directory.ref,
        }  # fmt: skip
        return Parcel(place=self.place(self.add(Entry(**given | dict(entry or {})))), envelope=sealed)

    def fresh(self, parcel: Parcel, size: int | None = None) -> Parcel:
        """The same parcel proven under another size."""
        return replace(parcel, place=self.place(parcel.place.index, size))

    def post_of(self, *items: Any, notes: Mapping[tuple[str, int], bytes] | None = None, links: Any = None) -> Post:
        """A POST with the checkpoints and links that its parcels need, or with given ones."""
        sizes = sorted({item.place.size for item in items if item.place.origin == self.origin})
        if notes is None:
            notes = {(self.origin, size): self.note(size) for size in sizes}
        if links is None:
            newest = sizes[-1] if sizes else len(self.log)
            links = {self.origin: self.links(newest, {*self.held, *sizes})} if sizes else {}
        hello = Hello(dir_version=self.fed.directory.ref.version, held={}, links=links)
        return Post(hello=hello, checkpoints=notes, items=items)

    async def post(self, to: Member, *items: Any, **other: Any) -> Post:
        """POSTs to a node over HTTP, signed with our request key; ProblemError for the POST as a whole."""
        body = encode_post(self.post_of(*items, **other)) if "body" not in other else other["body"]
        client = self.client()
        try:
            answer = parse_post(await client.post(self.fed.directory.records[to.name], body), answer=True)
        finally:
            await client.close()
        self.held = answer.hello.held.get(self.origin, (0,))
        return answer

    async def give(self, to: Member, parcel: Parcel, **other: Any) -> Any:
        """One parcel: the receipt's Place, or the code of its problem line."""
        (item,) = (await self.post(to, parcel, **other)).items
        return item.place if isinstance(item, Receipt) else item.code

    def receipt(self, parcel: Parcel, **changes: Any) -> Receipt:
        """A receipt of ours for a parcel, logged; any member of its entry may be made to differ."""
        sent, place = parse_entry(parcel.place.entry), parcel.place
        peer = PeerRef(
            origin=place.origin, index=place.index, leaf=leaf_hash(place.entry), size=place.size, root=bytes(32)
        )
        given: Json = {
            "kind": "received", "at": self.fed.clock.now(), "n": os.urandom(16), "id": sent.id, "sender": sent.sender,
            "recipient": self.name, "pair_seq": sent.pair_seq, "kid": sent.kid, "seal_kid": sent.seal_kid,
            "suite": "tw1", "envelope": sent.envelope, "content_c": sent.content_c, "thread_c": sent.thread_c,
            "dir": self.fed.directory.ref, "peer": peer,
        }  # fmt: skip
        return Receipt(place=self.place(self.add(Entry(**given | changes))))

    def answering(self, make: Callable[[Parcel], Any]) -> Hook:
        """A hook for a node's wire: its POSTs to us are answered with `make(parcel)` for each parcel."""

        async def hook(peer: str, body: bytes, send: Callable[[], Awaitable[bytes]]) -> bytes:
            if peer != self.name:
                return await send()
            made = [make(parcel) for parcel in parse_post(body, answer=False).items]
            sizes = {item.place.size for item in made if isinstance(item, Receipt)}
            notes = {(self.origin, size): self.note(size) for size in sizes if size <= len(self.log)}
            return encode_post(Post(hello=Hello(dir_version=1), checkpoints=notes, items=tuple(made)))

        return hook


class Federation:
    """The authority and its members."""

    def __init__(self, server: EmbeddedServer, folder: Path) -> None:
        self.server, self.folder, self.clock = server, folder, Clock()
        self.members: list[Member] = []

    async def __aenter__(self) -> Self:
        Secret.make_key_file(self.folder / "secret")
        self.secret = Secret.key_file(self.folder / "secret")
        self._roots, self._targets = [CryptoSigner.generate_mldsa()], [CryptoSigner.generate_mldsa()]
        self.online = Online(snapshot=CryptoSigner.generate_ed25519(), timestamp=CryptoSigner.generate_ed25519())
        self.root = init_directory(
            self.folder / "authority", new_network(NETWORK, live=False), root_signers=self._roots,
            targets_signers=self._targets, threshold=1, online=self.online, now=self.clock.now(),
        )  # fmt: skip
        self.repository = self.folder / "authority" / "repository"
        self.authority = Authority(self.folder / "authority", sealer=Tw1Sealer(), verifier=Tw1Verifier())
        self.source = DirectoryClient(self.folder / "source", self.root, str(self.repository))
        return self

    async def __aexit__(self, *_: object) -> None:
        for member in self.members:
            if isinstance(member, Node):
                await member.stop()
                give_back(self.server, *member.own_database)

    @property
    def directory(self) -> Directory:
        assert self.source.current is not None
        return self.source.current

    def _admit(self, member: Member, roles: Sequence[Role]) -> None:
        now = self.clock.now()
        for _ in range(2):
            asked = self.authority.admit(
                member.request or member.ask(), roles=roles, status="active", signers=self._targets, now=now
            )
            if asked:
                member.request = answer_request(member.request, asked, member.keys.opener())
        self.members.append(member)

    def set_status(self, member: Member, status: Any) -> None:
        self.authority.set_member(member.name, roles=(), status=status, signers=self._targets, now=self.clock.now())

    async def publish(self, *requests: bytes) -> None:
        """A new version, in force at once at every running node; members with a new seal key answer for it."""
        done = self.authority.publish(requests, online=self.online, now=self.clock.now())
        answers = []
        for member in self.members:
            if (challenge := done.challenges.get(member.name)) is not None:
                member.request = answer_request(member.request, challenge, member.keys.opener())
                answers.append(member.request)
        if answers:
            self.authority.publish(answers, online=self.online, now=self.clock.now())
        await self.refresh()

    async def refresh(self) -> None:
        """The newest version in force at every running node, its timestamp signed at the test's time."""
        now = self.clock.now()
        sign_timestamp(self.folder / "authority", online=self.online, now=now)
        await self.source.refresh(now)
        for member in self.members:
            if isinstance(member, Node) and member._task:
                await member._ports.directory.refresh(now)

    async def nodes(
        self, *names: str, roles: Sequence[Role] = EVERY_ROLE, facts: Mapping[str, Any] | None = None, **settings: Any
    ) -> list[Node]:
        """Members with running nodes; `facts` of their records."""
        made = [Node(self, name, **settings) for name in names]
        for node in made:
            node.facts = dict(facts or {})
            self._admit(node, roles)
            await node.make()
        await self.publish()
        for node in made:
            await node.start()
        return made

    async def strangers(self, *names: str, roles: Sequence[Role] = EVERY_ROLE) -> list[Stranger]:
        """Members that the test plays."""
        made = [Stranger(self, name) for name in names]
        for stranger in made:
            self._admit(stranger, roles)
        await self.publish()
        return made


# ---- databases


@contextlib.asynccontextmanager
async def admin(server: EmbeddedServer) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """The superuser's connection."""
    connection = await asyncpg.connect(server.dsn("postgres"))
    try:
        yield connection
    finally:
        await connection.close()


async def new_database(server: EmbeddedServer) -> tuple[str, str]:
    """An empty migrated database with its own two roles, an emptied one or a template's copy; name and the app's DSN."""
    place = server.dsn("postgres")
    if free := _free.get(place):
        name, dsn = free.pop()
        await _empty(server.dsn(name))
        return name, dsn
    if place not in _templates:
        template = f"template_{os.getpid()}_{next(_numbers)}"
        owner, _ = await server.create_database(template)
        await migrate(owner)
        _templates[place] = template
    template, name = _templates[place], f"node_{os.getpid()}_{next(_numbers)}"
    async with admin(server) as connection:
        for role in ("owner", "app"):  # grants inside the copy name the template's roles
            await connection.execute(f'CREATE ROLE "{name}_{role}" LOGIN; GRANT "{template}_{role}" TO "{name}_{role}"')
        await connection.execute(
            f'CREATE DATABASE "{name}" OWNER "{name}_owner" TEMPLATE "{template}" STRATEGY FILE_COPY'
        )
    return name, server.dsn(name, user=f"{name}_app")


def give_back(server: EmbeddedServer, name: str, dsn: str) -> None:
    """A later test may have this database; nobody uses it any more, and its schema is as it was."""
    _free.setdefault(server.dsn("postgres"), []).append((name, dsn))


async def _empty(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        kept = ("alembic_version", "epoch")
        await connection.execute("UPDATE epoch SET generation = 1, opened = now()")
        await connection.execute(";".join(f'DELETE FROM "{table}"' for (table,) in tables if table not in kept))
    finally:
        await connection.close()


_given: set[int] = set()
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])  # workers share the ports out between them


def _free_port() -> int:
    """A port below the range that outgoing connections and the demo take theirs from, given once: its owner may bind it later."""
    while True:
        port = random.randrange(20_000 + _WORKER, 26_000, _WORKERS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port


# ---- what an outsider checks


async def verify_ledger(node: Node) -> list[Entry]:
    """Recomputes a ledger from its entries alone: indexes, head, tiles, every checkpoint, pair_seq; its entries."""
    rows = await node.rows("SELECT index, data FROM entry WHERE origin = $1 ORDER BY index", node.origin)
    assert [row["index"] for row in rows] == list(range(len(rows))), "indexes are dense"
    leaves = [leaf_hash(row["data"]) for row in rows]
    cache: dict[tuple[int, int], bytes] = {}

    def hashed(level: int, index: int) -> bytes:
        if level == 0:
            return leaves[index]
        if (level, index) not in cache:
            cache[level, index] = node_hash(hashed(level - 1, 2 * index), hashed(level - 1, 2 * index + 1))
        return cache[level, index]

    head = await node.sql("SELECT size, root FROM ledger_head WHERE origin = $1", node.origin)
    assert (head["size"], head["root"]) == (len(leaves), tree_root(len(leaves), hashed)), "the head is the entries'"
    for row in await node.rows("SELECT size, root, note FROM checkpoint WHERE origin = $1 ORDER BY size", node.origin):
        found = verify_checkpoint(row["note"], node.ledger_keys, Tw1Verifier())
        assert (found.size, found.root) == (row["size"], tree_root(row["size"], hashed)), "a checkpoint is of this tree"
    for row in await node.rows("SELECT level, index, data FROM tile WHERE origin = $1", node.origin):
        width = min(WIDTH, (len(leaves) >> HEIGHT * row["level"]) - row["index"] * WIDTH)
        hashes = [hashed(HEIGHT * row["level"], row["index"] * WIDTH + i) for i in range(width)]
        assert row["data"] == b"".join(hashes), "a tile is the tree's"
    entries = [parse_entry(row["data"]) for row in rows]
    pairs: dict[str, list[int]] = {}
    for entry in entries:
        if entry.kind == "sent":
            pairs.setdefault(entry.recipient or "", []).append(entry.pair_seq or 0)
    for numbers in pairs.values():
        assert numbers == list(range(1, len(numbers) + 1)), "pair_seq is dense"
    return entries


async def match_ledgers(*nodes: Node) -> dict[str, list[Entry]]:
    """Verifies every ledger, and that what one says about another stands there; whatever was delivered is in both."""
    found = {node.origin: await verify_ledger(node) for node in nodes}
    for origin, entries in found.items():
        for entry in entries:
            if entry.peer is None or entry.peer.index is None or entry.peer.origin not in found:
                continue
            theirs = found[entry.peer.origin][entry.peer.index]
            assert leaf_hash(theirs.encode()) == entry.peer.leaf, "the named entry is the one that stands there"
            same = (entry.id, entry.envelope, entry.pair_seq)
            assert (theirs.id, theirs.envelope, theirs.pair_seq) == same
            if entry.kind == "receipt":
                assert theirs.peer is not None
                assert theirs.peer.origin == origin, "a receipt is of what we sent"
                assert entries[theirs.peer.index or 0].kind == "sent"
    for node in nodes:
        kinds = [entry.kind for entry in found[node.origin]]
        assert len({(e.id, e.kind, e.kind == "admin" and e.code) for e in found[node.origin] if e.id}) == len(
            [e for e in found[node.origin] if e.id]
        )
        assert kinds[0] == "ledger-opened"
    return found


def code_of(error: BaseException | None) -> str:
    assert isinstance(error, ProblemError), error
    return error.code


async def refused(code: str, doing: Awaitable[Any]) -> None:
    """The call ends in this problem."""
    try:
        await doing
    except ProblemError as problem:
        assert problem.code == code, problem
    else:
        raise AssertionError(f"{code} was expected")
