"""The harness is tested itself: nodes with one bug each (process.py), and the invariants must name each of them."""

import asyncio
import shutil
from dataclasses import dataclass
from typing import Any

import pytest

from adapters.postgres.embedded import EmbeddedServer
from tests.fault.conftest import COUNTED
from tests.fault.invariants import violations
from tests.fault.pair import Load, Pair, Violation

QUIET_S = 8.0  # a queue that can never become empty need not be waited for longer
pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeded:
    """A bug of one node, the fault under which it shows, and what must be said of it."""

    bug: str
    node: str
    said: str
    fault: dict[str, Any] | None = None
    stays: bool = True  # the restarted node has it too


_DYING = {"call": "bug", "when": "", "what": "die", "only": "OutboxRow"}
BUGS = [
    Seeded(bug="answer first", node="a", fault=_DYING | {"k": 3}, said="I6: ", stays=False),
    Seeded(bug="guard first", node="a", fault=_DYING | {"k": 3}, said="I4: a is halted", stays=False),
    Seeded(bug="lost dedupe", node="a", said="I1: ",
           fault={"call": "batch.commit", "when": "after", "what": "kill", "only": "OutboxRow", "k": 3}),
    Seeded(bug="wrong receipt", node="b", said="I2: a message is queued and has not arrived"),
    Seeded(bug="settles another", node="a", said="I7: "),
]  # fmt: skip


async def _violations(pair: Pair, seeded: Seeded) -> str:
    """All that the harness says of a node with this bug."""
    node, load = pair[seeded.node], Load(pair)
    await node.stop()
    node.bug = seeded.bug
    await node.start(seeded.fault)
    loading = asyncio.ensure_future(load.run(lambda: True))
    said = []
    try:
        while not loading.done() and node.code is None:
            await asyncio.sleep(0.02)
        if seeded.fault:
            await node.died()
            node.bug = seeded.bug if seeded.stays else ""
            await node.start(wait=False)
        await loading
        await pair.settle(QUIET_S)
    except Violation as violation:
        said.append(str(violation))
    finally:
        loading.cancel()
        await asyncio.wait([loading])
    return "; ".join([*said, *await violations(pair)])


@pytest.mark.parametrize("seeded", BUGS, ids=lambda seeded: seeded.bug.replace(" ", "-"))
async def test_the_invariants_catch_a_seeded_bug(seeded: Seeded, postgres: EmbeddedServer) -> None:
    COUNTED["seeded_bugs"] += 1
    pair = await Pair.make(postgres)
    try:
        found = await _violations(pair, seeded)
        assert seeded.said in found, found or "nothing was noticed"
    finally:
        pair.kill()
        shutil.rmtree(pair.fed.folder)
    COUNTED["seeded_bugs_caught"] += 1
