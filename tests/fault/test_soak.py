"""`make soak` (B04 of faults.yaml): a mesh of nodes over real PostgreSQL and real HTTP, every one writing to every other, under random faults.

`make faults` runs a short one of four nodes; the target runs twenty for five minutes. A failure names the seed of its faults.
"""

import asyncio
import contextlib
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from adapters.postgres.embedded import EmbeddedServer
from protocols.ports.store import Unavailable
from protocols.problems import ProblemError
from tests.fault.conftest import COUNTED
from tests.federation import Federation, Json, Node, match_ledgers, wait_until

SOAK_S, NODES = float(os.environ.get("SOAK_S", "20")), int(os.environ.get("NODES", "4"))
SEED = int(os.environ.get("SEED", random.randrange(1_000_000)))
EVERY_S, SETTLE_S = NODES / 10, 300.0  # ten messages a second in all

Hook = Callable[[str, bytes, Callable[[], Awaitable[bytes]]], Awaitable[bytes]]


def bad_line(chance: random.Random) -> Hook:
    """Some requests never arrive, some answers are lost, some come twice, all come late."""

    async def line(peer: str, body: bytes, send: Callable[[], Awaitable[bytes]]) -> bytes:
        await asyncio.sleep(chance.uniform(0, 0.5))
        fate = chance.random()
        if fate < 0.2:
            raise ProblemError("peer.unreachable", "lost by the test")
        answer = await send()
        if fate < 0.3:
            answer = await send()
        if fate < 0.5:
            raise ProblemError("peer.unreachable", "the answer was lost by the test")
        return answer

    return line


class Mesh:
    """The nodes, who of them is down, and what their clients were told by key."""

    def __init__(self, nodes: list[Node], chance: random.Random) -> None:
        self.nodes, self.chance, self.over = nodes, chance, False
        self.told: dict[str, Json] = {}

    async def write(self, node: Node) -> None:
        """A client of a node: every request is repeated until it is accepted."""
        n = 0
        while not self.over:
            await asyncio.sleep(self.chance.uniform(0, 2 * EVERY_S))
            key, n = f"{node.short} {n:06}", n + 1
            to = self.chance.choice([each for each in self.nodes if each is not node])
            while key not in self.told:
                with contextlib.suppress(ProblemError, Unavailable, asyncio.CancelledError, OSError, RuntimeError):
                    async with asyncio.timeout(10):
                        self.told[key] = await node.trace(to, key=key, digest=key.encode())
                await asyncio.sleep(0.1)

    async def disturb(self) -> None:
        """One thing after the other: a node is killed and comes back, a line is bad for a while."""
        while not self.over:
            await asyncio.sleep(self.chance.uniform(0, 8 / NODES))
            node = self.chance.choice(self.nodes)
            if self.chance.random() < 0.5:
                node.wire.hook = self.chance.choice([None, bad_line(self.chance)])
            elif node._task is not None and not node._task.done():
                await node.kill()
                await asyncio.sleep(self.chance.uniform(0, 1))
                await node.start()

    async def quiet(self) -> bool:
        for node in self.nodes:
            if await node.count("outbox", "state = 'queued'"):
                return False
        return True


@pytest.mark.slow
async def test_b04_a_mesh_under_random_faults_loses_nothing(postgres: EmbeddedServer, tmp_path: Path) -> None:
    COUNTED["points"] += 1
    chance = random.Random(SEED)
    async with Federation(postgres, tmp_path) as fed:
        nodes = await fed.nodes(*(f"n{n}" for n in range(NODES)), registry=True)
        mesh = Mesh(nodes, chance)
        writing = [asyncio.ensure_future(mesh.write(node)) for node in nodes]
        disturbing = asyncio.ensure_future(mesh.disturb())
        await asyncio.sleep(SOAK_S)
        mesh.over = True
        await disturbing
        for node in nodes:
            node.wire.hook = None
        await asyncio.gather(*writing)
        await wait_until(mesh.quiet, SETTLE_S)
        found = await match_ledgers(*nodes)
        kept = {
            str(row["id"])
            for node in nodes
            for row in await node.rows("SELECT id FROM outbox WHERE state = 'delivered'")
        }
        sent = sum(entry.kind == "sent" for entries in found.values() for entry in entries)
        assert {each["id"] for each in mesh.told.values()} <= kept, (
            f"SEED={SEED}: a message that was accepted is not delivered"
        )
        assert len(kept) == sent == sum([await node.count("inbox") for node in nodes]), f"SEED={SEED}: twice, or never"
        assert await _asked(nodes) == len(mesh.told), f"SEED={SEED}: a request that nobody was told of"
    COUNTED["messages"] += len(kept)
    COUNTED["rounds"] += 1


async def _asked(nodes: list[Node]) -> int:
    return sum([await node.count("outbox", "type = 'trace.request'") for node in nodes])
