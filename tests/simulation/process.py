"""One process of a simulated node: the real services over gated ports, from its start until it dies."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import UUID

from gateway.runtime.compose import Ways, receiving, ways_of
from gateway.runtime.ports import Ports
from gateway.runtime.settings import Settings
from gateway.runtime.world import SteadyClock
from gateway.services.changes import Noted
from gateway.services.commit import Committer
from gateway.services.link import Linking
from gateway.services.prove import Prove, Release
from gateway.services.receive import Receive
from gateway.services.submit import Draft, Request, Submit
from protocols.directory import Record
from protocols.exchange.lines import encode_post, parse_post
from protocols.ledger.entry import Entry
from protocols.ports.access import Caller
from protocols.ports.crypto import GuardMark
from protocols.ports.rows import Arrived
from protocols.ports.store import OutcomeUnknown, Unavailable
from protocols.problems import ProblemError
from tests.federation import HANDLING, RESPONSE
from tests.simulation.store import MemoryBatch, MemoryExchange, MemoryLedger, MemoryRelays, MemoryThreads
from tests.simulation.suite import LightVerifier, MemoryGuard

if TYPE_CHECKING:
    from tests.simulation.world import Node, World

TIMEOUT_S, LOOK_S = 20.0, 20.0
_STATEMENT_S, _RETRY_FIRST_S = 0.01, 5.0
_CALLER = Caller(client="agency", actor="officer", scopes=frozenset())
Serve = Callable[["Process"], Coroutine[Any, Any, bytes]]


class Ids:
    """The Ids port from the seed."""

    def __init__(self, world: "World") -> None:
        self._world = world

    def uuid7(self) -> UUID:
        """Of the world's time."""
        milliseconds, noise = int(self._world.now().timestamp() * 1_000), self._world.random.getrandbits(74)
        high, low = noise >> 62, noise & (1 << 62) - 1
        return UUID(int=milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low)

    def jitter(self) -> float:
        """The seed's next."""
        return self._world.random.random()


class Gate:
    """A port of a process: every call takes time, and may be the last."""

    def __init__(self, process: "Process", port: object) -> None:
        self._process, self._port = process, port

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        method = getattr(self._port, name)

        async def call(*args: Any, **named: Any) -> Any:
            await self._process.step()
            self._process.may_fail()
            result = await method(*args, **named)
            self._process.count()
            self._process.may_fail()
            return result

        return call


class LedgerGate(Gate):
    """As `Gate`; around COMMIT the outcome may stay unknown."""

    def __init__(self, process: "Process", ledger: MemoryLedger) -> None:
        super().__init__(process, ledger)
        self._ledger = ledger

    @asynccontextmanager
    async def batch(self, origin: str) -> AsyncIterator[MemoryBatch]:
        """The head lock, the block, COMMIT."""
        process, chance = self._process, self._process.world.faults.commit
        await process.step()
        process.may_fail()
        async with self._ledger.batch(origin) as batch:
            await process.step()
            yield batch
            await process.step()
            if process.world.rolls(chance / 2):
                raise OutcomeUnknown("lost before COMMIT")
        process.count()
        if process.world.rolls(chance / 2):
            raise OutcomeUnknown("lost after COMMIT")
        process.node.tell_others(process)


class GuardGate:
    """The guard's file, as a process that may die at it."""

    def __init__(self, process: "Process", guard: MemoryGuard) -> None:
        self._process, self._guard = process, guard

    def read(self, origin: str) -> GuardMark | None:
        """As the guard."""
        return self._guard.read(origin)

    def raise_to(self, mark: GuardMark) -> None:
        """As the guard; a process may die before it, or after."""
        self._process.count()
        self._guard.raise_to(mark)
        self._process.count()


class Wire:
    """Transport: a seed's network between processes."""

    def __init__(self, process: "Process") -> None:
        self._process, self._world = process, process.world

    async def post(self, peer: Record, body: bytes) -> bytes:
        """Parcels, or a hub's."""
        caller = self._process.node.name
        return await self._ask(peer, lambda process: process.take(caller, body), TIMEOUT_S)

    async def fetch(self, peer: Record, wait_s: int) -> bytes:
        """GET /outbox."""
        caller = self._process.node.name
        return await self._ask(peer, lambda process: process.give(caller, wait_s), wait_s + TIMEOUT_S)

    async def receipts(self, peer: Record, body: bytes) -> None:
        """POST /outbox/receipts."""
        caller = self._process.node.name
        await self._ask(peer, lambda process: process.take_receipts(caller, body), TIMEOUT_S)

    async def _ask(self, peer: Record, serve: Serve, timeout_s: float) -> bytes:
        world, faults = self._world, self._world.faults
        await self._process.step()
        target = world.nodes[peer.member]
        if world.parted == {self._process.node.name, peer.member} or world.rolls(faults.lost):
            await asyncio.sleep(timeout_s)
            raise ProblemError("peer.unreachable", "nothing came back")
        await world.travel()
        if (there := target.any()) is None:
            raise ProblemError("peer.unreachable", "connection refused")
        if world.rolls(faults.twice):
            world.later(target, serve)
        answering = there.spawn(there.served(serve))
        await asyncio.wait([answering], timeout=timeout_s)
        if not answering.done() or answering.cancelled() or world.rolls(faults.unanswered):
            raise ProblemError("peer.unreachable", "no answer")
        answer = answering.result()
        if isinstance(answer, ProblemError):
            raise ProblemError(answer.code, answer.detail)
        await world.travel()
        return answer[: world.random.randrange(len(answer) + 1)] if world.rolls(faults.cut) else answer


class Process:
    """One process of a node, from its start until it dies."""

    def __init__(self, world: "World", node: "Node") -> None:
        self.world, self.node, self.alive = world, node, True
        self.name = f"{node.name} {next(world.numbers)}"
        self.doomed: int | None = None  # calls until it dies
        self.frozen_until = 0.0
        self.ready = False
        self._tasks = set[asyncio.Task[Any]]()
        self.committer, self.submit, self.receive, self.ways = self._assemble()

    def _assemble(self) -> tuple[Committer, Submit, Receive, Ways]:
        world, node = self.world, self.node
        tables, keys = node.tables, node.keys
        self.exchange = exchange = Gate(self, MemoryExchange(tables, self.name, node.alive))
        settings = Settings.model_construct(member=node.name, retry_first_s=_RETRY_FIRST_S, attachment_bytes=1_048_576)
        ports = Ports(
            ledger=LedgerGate(self, MemoryLedger(tables)), exchange=exchange, relays=Gate(self, MemoryRelays(tables)),
            threads=Gate(self, MemoryThreads(tables)), owed=None, blobs=None, directory=world, transport=Wire(self),
            clients=None, approvals=None, registry=None, erasures=None, sessions=None, verifier=LightVerifier(), clock=SteadyClock(node.clock),
            monotonic=lambda: asyncio.get_running_loop().time(), ids=Ids(world), guard=GuardGate(self, node.guard), backend=None,
        )  # type: ignore[arg-type]  # fmt: skip
        committer = Committer(
            origin=node.origin, store=ports.ledger, signer=keys.note_signer(node.origin), verifier=ports.verifier,
            guard=ports.guard, clock=ports.clock, ids=ports.ids,
        )  # fmt: skip
        prove = Prove(ports.ledger, Release(ports.ledger, ports.guard, lambda: committer.halted is not None))
        linking = Linking(ports.exchange, ports.verifier, ports.clock)
        submit = Submit(
            member=node.name, directory=world, committer=committer, signer=keys.current_signer("message"),
            sealer=keys.sealer(), vault=node.vault, clock=ports.clock, ids=ports.ids, store=exchange, blobs=ports.blobs,
        )  # type: ignore[arg-type]  # fmt: skip
        shared = committer, linking, prove
        receive, blobs, _ = receiving(settings, ports, keys, *shared, node.vault)  # type: ignore[arg-type]
        ways = ways_of(settings, ports, keys, *shared, submit, receive, blobs, node.vault, None)  # type: ignore[arg-type]
        return committer, submit, receive, ways

    # ---- life and death

    def spawn(self, doing: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Work that ends with the process."""
        task = asyncio.ensure_future(doing)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def live(self) -> None:
        """As `tracewire run`: checks the ledger, then works until it dies."""
        try:
            size = (await self.committer.check()).size
            async with asyncio.TaskGroup() as group:
                group.create_task(self.committer.run())
                if not size:
                    await self.committer.commit(Noted(entry=self._opened()))
                self.ready = True
                for loop in (self.ways.deliver.run(), self.ways.collect.run(), self._work()):
                    group.create_task(loop)
                group.create_task(self.ways.relay.run(self.ways.offer.wake))
        except* ProblemError as group:
            if self.ready or any(each.code != "store.busy" for each in group.exceptions):
                self.world.broken.append(f"I9: a process ended of {group.exceptions!r}")
            self.die()  # who finds no database when it starts ends, and is started again
            asyncio.get_running_loop().call_later(1, self.node.start)
        except* Exception as group:  # nothing else but a crash ends a process
            self.world.broken.append(f"I9: a process ended of {group.exceptions!r}")

    def _opened(self) -> Entry:
        nonce, ref = self.world.random.randbytes(16), self.world.current.ref
        return Entry(kind="ledger-opened", at=self.world.now(), n=nonce, sender=self.node.name, dir=ref)

    async def step(self) -> None:
        """Time passes; who died meanwhile does nothing more."""
        await asyncio.sleep(self.world.random.random() * _STATEMENT_S)
        while (left := self.frozen_until - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(left)
        self.count()

    def count(self) -> None:
        """One call nearer to its end."""
        if self.doomed is not None and self.alive:
            self.doomed -= 1
            if self.doomed < 0:
                self.die()
        if not self.alive:
            raise asyncio.CancelledError

    def may_fail(self) -> None:
        """The database is away for one statement."""
        if self.world.rolls(self.world.faults.statement / 2):
            raise Unavailable("the connection was lost")

    def die(self) -> None:
        """Kill -9."""
        self.alive = False
        asyncio.get_running_loop().call_soon(self._bury)

    def _bury(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()

    # ---- what others ask of it

    async def served(self, serve: Serve) -> bytes | ProblemError:
        """The answer, or the problem that a listener would say."""
        try:
            return await serve(self)
        except ProblemError as problem:
            return problem
        except Unavailable:
            return ProblemError("store.busy", "the database is away")
        except Exception as error:
            self.world.broken.append(f"I9: a request broke of {error!r}")
            return ProblemError("internal", "")

    async def take(self, caller: str, body: bytes) -> bytes:
        """POST /messages."""
        post = parse_post(body, answer=False)
        take = self.ways.relay.take if self.ways.relay.concerns(post) else self.receive.receive
        return encode_post(await take(caller, post))

    async def give(self, caller: str, wait_s: float) -> bytes:
        """GET /outbox."""
        return encode_post(await self.ways.offer.offer(caller, wait_s))

    async def take_receipts(self, caller: str, body: bytes) -> bytes:
        """POST /outbox/receipts."""
        await self.ways.offer.take(caller, parse_post(body, answer=True))
        return b""

    async def accept(self, draft: Draft, key: str) -> bytes:
        """POST /v1/traces."""
        return await self.submit.submit(draft, _asked(key))

    # ---- the member's own system: it answers every request, and takes every answer

    async def _work(self) -> None:
        woken = asyncio.Event()
        self.committer.on_commit(woken.set)
        while True:
            woken.clear()
            try:
                for arrived in await self.exchange.undispatched(16, ["trace.request"], ()):
                    self.node.effects.append(arrived.id)
                    await self.submit.submit(_response(arrived), _asked(f"answer {arrived.id}"), answers=arrived)
                for arrived in await self.exchange.undispatched(16, ["trace.response"], ()):
                    await self.committer.commit(self.submit.dispatched(arrived))
            except (ProblemError, Unavailable):
                pass  # it looks again
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S * (1 + self.world.random.random())):
                    await woken.wait()


def _asked(key: str) -> Request:
    return Request(caller=_CALLER, key=key, digest=sha256(key.encode()).digest())


def _response(arrived: Arrived) -> Draft:
    return Draft(
        type="trace.response", recipient=arrived.sender, thread=arrived.thread, body=RESPONSE, handling=HANDLING,
        in_reply_to=arrived.id,
    )  # fmt: skip
