"""One fault after another under load, then quiet, then the invariants: for faults that befall what the nodes stand on."""

import asyncio
import contextlib
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from adapters.postgres.connect import CONNECTIONS_MAX
from adapters.postgres.embedded import EmbeddedServer
from tests.fault.conftest import COUNTED
from tests.fault.invariants import violations
from tests.fault.pair import SETTLE_S, Load, NodeProcess, Pair, Violation
from tests.federation import Node

MEMORY_MIB, FILES = 250, 256
CONNECTIONS = CONNECTIONS_MAX + 3  # beside the pool: committer, listener, one that is opened
Break = Callable[[EmbeddedServer, Pair, Load], Awaitable[None]]


async def faulty(
    server: EmbeddedServer, break_: Break, rounds: int, *, wired: bool = False, settle_s: float = SETTLE_S
) -> None:
    """Load, fault, quiet, invariants; the nodes are the same processes from first to last. `wired`: over wires that can fail."""
    COUNTED["points"] += 1
    pair = await Pair.make(server, wired=wired)
    lives = [each.process for each in pair.nodes]
    try:
        async with contextlib.AsyncExitStack() as wires:
            for wire in pair.wires:
                await wires.enter_async_context(wire)
            for _ in range(rounds):
                await _round(server, break_, pair, settle_s)
        assert [each.process for each in pair.nodes] == lives, "nobody restarted a node"
    except BaseException:
        COUNTED["violations"] += 1
        raise
    finally:
        pair.kill()
        shutil.rmtree(pair.fed.folder)


async def _round(server: EmbeddedServer, break_: Break, pair: Pair, settle_s: float) -> None:
    load, over = Load(pair), asyncio.Event()
    loading = asyncio.ensure_future(load.run(over.is_set))
    await _some_answers(load, loading)
    await break_(server, pair, load)
    over.set()
    await loading
    await judge(pair, load, settle_s=settle_s)


async def judge(pair: Pair, *loads: Load, after: str = "", settle_s: float = SETTLE_S) -> None:
    """Quiet, then the same answers to the same requests, then every invariant; Violation where one does not hold."""
    await pair.settle(settle_s)
    for load in loads:
        await load.repeat()
    found = await violations(pair) + [each for node in pair.nodes for each in await exceeded(node)]
    if found:
        raise Violation(after + "; ".join(found))
    COUNTED["rounds"] += 1
    COUNTED["messages"] += sum(len(load.answers) for load in loads)


async def exceeded(node: NodeProcess) -> list[str]:
    """I11: what a node's process took at most of memory, and holds of files and connections, above its cap."""
    assert node.process is not None
    proc = Path(f"/proc/{node.process.pid}")
    peak = next(line for line in (proc / "status").read_text().splitlines() if line.startswith("VmHWM"))
    took = {
        "MiB of memory": (int(peak.split()[1]) // 1024, MEMORY_MIB),
        "open files": (len(list((proc / "fd").iterdir())), FILES),
        "connections": (await _connections(node.node), CONNECTIONS),
    }
    return [f"I11: {node.node.short} has {many} {what}" for what, (many, most) in took.items() if many > most]


async def _connections(node: Node) -> int:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND starts_with(application_name, 'tracewire ')"
    return int((await node.sql(sql, node.database))[0])


async def _some_answers(load: Load, loading: "asyncio.Future[None]") -> None:
    while len(load.answers) < 5 and not loading.done():
        await asyncio.sleep(0.01)
