"""A simulated network in virtual time, under one seed's faults.

a and b are members of two processes each, h is a hub; a database, keys and guard outlive the processes of their node.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from adapters.directory.publisher import new_network
from gateway.services.submit import Draft
from protocols.directory import Admitted, Directory, Record, build_directory
from protocols.ledger.entry import DirRef
from protocols.ledger.merkle import EMPTY_ROOT
from protocols.ports.crypto import GuardMark
from tests.federation import HANDLING, trace_request
from tests.simulation.process import LOOK_S, TIMEOUT_S, Process, Serve
from tests.simulation.store import Tables
from tests.simulation.suite import LightKeys, LightVault, MemoryGuard

BEGAN = datetime(2026, 11, 2, 9, tzinfo=UTC)
_NETWORK = "sim"
_QUIET_WITHIN_S = 7_200.0  # from the last fault; retries are at most 15 minutes apart
_DOOMED_CALLS = 40


@dataclass(slots=True, kw_only=True)
class Faults:
    """What one seed does until the world is healed: chances of each call, and what happens once."""

    lost: float
    unanswered: float
    twice: float
    cut: float
    slow_s: float
    statement: float
    commit: float
    crashes: int
    freezes: int
    partitions: int
    skews: int
    during_s: float

    @classmethod
    def of(cls, random: Random) -> "Faults":
        """Most seeds have some of them, and some none."""

        def chance(most: float) -> float:
            return random.choice((0.0, 0.0, most / 10, most))

        return cls(
            lost=chance(0.3), unanswered=chance(0.3), twice=chance(0.5), cut=chance(0.2), slow_s=random.choice((0.05, 1.0, 30.0)),
            statement=chance(0.1), commit=chance(0.2), crashes=random.randrange(7), freezes=random.choice((0, 0, 1, 2)),
            partitions=random.choice((0, 0, 1, 2)), skews=random.choice((0, 0, 1)), during_s=random.uniform(20, 120),
        )  # fmt: skip


class Skewed:
    """A machine's clock: the world's, and how far it is off."""

    def __init__(self, world: "World") -> None:
        self._world, self.ahead = world, timedelta()

    def now(self) -> datetime:
        """As this machine has it."""
        return self._world.now() + self.ahead


class Node:
    """What a member keeps whatever becomes of its processes."""

    def __init__(self, world: "World", short: str, count: int) -> None:
        self.world, self.name, self.count = world, f"{_NETWORK}/{short}", count
        self.origin = f"{self.name}/2026.1"
        self.keys, self.vault = LightKeys(self.name, world.random), LightVault(world.random)
        self.clock, self.guard, self.tables = Skewed(world), MemoryGuard(), world.make_tables(self.name)
        self.tables.heads[self.origin] = 0, EMPTY_ROOT
        self.guard.raise_to(
            GuardMark(origin=self.origin, size=0, root=EMPTY_ROOT, system_identifier=self.name, timeline=1)
        )
        self.processes: list[Process] = []
        self.answers: dict[str, bytes] = {}  # what clients were told, by key
        self.effects: list[UUID] = []

    def record(self, modes: list[str], hubs: list[str]) -> Record:
        """The member's record."""
        began = "2026-01-01T00:00:00.000Z"
        publics = {use: self.keys.current_signer(use).public for use in ("message", "request")} | {
            "seal": self.keys.seal
        }
        return Record.model_validate({
            "v": 1, "member": self.name, "name": "Agency", "suite": "tw1", "modes": modes, "hubs": hubs,
            "endpoint": {"url": "http://127.0.0.1:1"} if modes != ["pull"] else None,
            "keys": {use: [{"jwk": public.jwk, "not_before": began}] for use, public in publics.items()},
            "ledgers": [{"origin": self.origin, "vkeys": list(self.keys.note_signer(self.origin).vkeys), "state": "open"}],
        })  # fmt: skip

    def alive(self) -> set[str]:
        """The processes whose sessions the database has."""
        return {each.name for each in self.processes if each.alive}

    def any(self) -> Process | None:
        """One of the processes that are there."""
        living = [each for each in self.processes if each.alive]
        return self.world.random.choice(living) if living else None

    def start(self) -> None:
        """As many processes as it is to have."""
        self.processes = [each for each in self.processes if each.alive]
        while len(self.processes) < self.count:
            process = Process(self.world, self)
            self.processes.append(process)
            process.spawn(process.live())

    def tell_others(self, process: Process) -> None:
        """NOTIFY: another process of this node committed."""
        for other in self.processes:
            if other is not process and other.alive:
                other.committer.wake()

    def idle(self) -> bool:
        """Whether nothing is left to do."""
        tables = self.tables
        return (
            all(process.ready for process in self.processes)
            and all(out.state != "queued" for out in tables.outbox.values())
            and all(row.dispatched for row in tables.inbox.values())
            and all(row.answer is not None for row in tables.relays.values())
        )


@dataclass(slots=True)
class World:
    """One seed's network; it is the DirectorySource of every node too."""

    seed: int
    make_tables: Callable[[str], Tables] = Tables
    random: Random = field(init=False)
    faults: Faults = field(init=False)
    nodes: dict[str, Node] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    parted: set[str] = field(default_factory=set)
    healed: bool = False
    numbers: Any = field(init=False)
    current: Directory = field(init=False)

    def __post_init__(self) -> None:
        self.random, self.numbers = Random(self.seed), iter(range(1_000_000))
        self.faults = Faults.of(self.random)
        modes = {
            short: self.random.choice((["push"], ["push"], ["push", "hub"], ["hub", "push"], ["pull"], ["hub"]))
            for short in ("a", "b")
        }
        if modes["a"] == modes["b"] == ["pull"]:  # one of two has to have a port
            modes["a"] = ["push"]
        for short, count in (("a", 2), ("b", 2), ("h", 1)):
            self.nodes[f"{_NETWORK}/{short}"] = Node(self, short, count)
        records = {
            name: node.record(modes.get(name[-1], ["push"]), [f"{_NETWORK}/h"] if name[-1] != "h" else [])
            for name, node in self.nodes.items()
        }
        roles = {name: ["hub"] if name[-1] == "h" else ["focal-point", "registry"] for name in self.nodes}
        members = [Admitted(member=name, roles=roles[name], status="active") for name in self.nodes]
        network = new_network(_NETWORK, live=False).model_copy(update={"members": members})
        ref, expires = DirRef(version=1, sha256=bytes(32)), BEGAN + timedelta(days=365)
        self.current = build_directory(ref=ref, expires=expires, network=network, records=records)

    def now(self) -> datetime:
        """The time of everybody whose clock is right."""
        return BEGAN + timedelta(seconds=asyncio.get_running_loop().time())

    def rolls(self, chance: float) -> bool:
        """Whether a fault of this chance happens now."""
        return not self.healed and self.random.random() < chance

    async def travel(self) -> None:
        """One way over the network."""
        await asyncio.sleep(self.random.random() * (0.05 if self.healed else self.faults.slow_s))

    def later(self, target: Node, serve: Serve) -> None:
        """The same request once more, by and by."""

        def again() -> None:
            if (process := target.any()) is not None:
                process.spawn(process.served(serve))

        asyncio.get_running_loop().call_later(self.random.random() * self.random.choice((1, 60, 600)), again)

    async def run(self) -> None:
        """Members ask each other under faults; then all is healed and has to come to rest."""
        for node in self.nodes.values():
            node.start()
        clients = [
            asyncio.ensure_future(self._client(node, to, n, urgent=self.random.random() < 0.2))
            for node, to in (("a", "b"), ("b", "a"))
            for n in range(self.random.randrange(1, 6))
        ]
        await self._disturb()
        self.healed, self.parted = True, set()
        for node in self.nodes.values():
            node.clock.ahead = timedelta()
            for process in node.processes:
                process.doomed, process.frozen_until = None, 0.0
            node.start()
        done, waiting = await asyncio.wait(clients, timeout=_QUIET_WITHIN_S)
        if waiting:
            self.broken.append(f"I9: {len(waiting)} requests are still not accepted")
        for client in done:
            client.result()
        await self._rest()
        for node in self.nodes.values():
            for process in node.processes:
                process.die()
        await asyncio.sleep(1)

    async def _client(self, short: str, to: str, n: int, *, urgent: bool) -> None:
        """An agency's system: asks until it is told, and later once more, since its own answer may be lost."""
        node, key = self.nodes[f"{_NETWORK}/{short}"], f"{short} {n}"
        body = trace_request(f"ABC{n}", **({"priority": "URGENT", "justification": "life at stake"} if urgent else {}))
        draft = Draft(type="trace.request", recipient=f"{_NETWORK}/{to}", thread=None, body=body, handling=HANDLING)
        await asyncio.sleep(self.random.random() * self.faults.during_s)
        for _ in range(2):
            told = await self._ask(node, draft, key)
            if node.answers.setdefault(key, told) != told:
                self.broken.append("I6: one key got two answers")

    async def _ask(self, node: Node, draft: Draft, key: str) -> bytes:
        while True:
            if (process := node.any()) is not None:
                asking = process.spawn(process.served(lambda served: served.accept(draft, key)))
                await asyncio.wait([asking], timeout=TIMEOUT_S)
                told = asking.result() if asking.done() and not asking.cancelled() else None
                if isinstance(told, bytes):
                    return told
                if told and told.kind.retry == "never":
                    self.broken.append(f"I2: a good request was answered {told.code}")
            await asyncio.sleep(2 + self.random.random())

    async def _disturb(self) -> None:
        """What happens once, each at its time."""
        faults, random = self.faults, self.random
        kinds = [self._crash] * faults.crashes + [self._freeze] * faults.freezes
        kinds += [self._part] * faults.partitions + [self._skew] * faults.skews
        times = sorted(random.random() * faults.during_s for _ in kinds)
        random.shuffle(kinds)
        began = asyncio.get_running_loop().time()
        for at, happens in zip([*times, faults.during_s], [*kinds, None], strict=True):
            await asyncio.sleep(max(0.0, began + at - asyncio.get_running_loop().time()))
            if happens:
                happens()

    def _somewhere(self) -> Node:
        return self.random.choice(list(self.nodes.values()))

    def _crash(self) -> None:
        if (process := (node := self._somewhere()).any()) is not None:
            process.doomed = self.random.randrange(_DOOMED_CALLS)
            asyncio.get_running_loop().call_later(self.random.random() * 30, node.start)

    def _freeze(self) -> None:
        if (process := self._somewhere().any()) is not None:
            process.frozen_until = asyncio.get_running_loop().time() + self.random.choice((3, 30, 150))

    def _part(self) -> None:
        self.parted = set(self.random.sample(list(self.nodes), 2))

    def _skew(self) -> None:
        self._somewhere().clock.ahead = timedelta(seconds=self.random.choice((-900, -200, 200, 900)))

    async def _rest(self) -> None:
        """Until nothing is left to do, or for too long."""
        end = asyncio.get_running_loop().time() + _QUIET_WITHIN_S
        while asyncio.get_running_loop().time() < end:
            if all(node.idle() for node in self.nodes.values()):
                return
            await asyncio.sleep(LOOK_S)
        self.broken.append("I9: the network does not come to rest")
