"""What befalls the network between two nodes, and a frozen node: N01 to N10 and S03 of faults.yaml; nobody restarts anything, and afterwards all invariants hold.

Each fault lasts some seconds under load; when it is over, everything must have arrived once, with one receipt.
"""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Callable

import pytest

from adapters.postgres.embedded import EmbeddedServer
from tests.fault.conftest import ROUNDS
from tests.fault.pair import Load, Pair, Violation
from tests.fault.rounds import Break, faulty
from tests.fault.wire import Pass, Wire, half, late, nothing, reset, thin

LASTS_S = 8.0
TABLE = f"tracewire_test_{os.getpid()}"
POSTS_MAX = 150  # of both nodes together while a fault lasts; there are up to 400 messages to send


def failing(
    there: Pass | None, back: Pass | None, *, end: Callable[[Wire], None] = Wire.cut, posts_max: int | None = None
) -> Break:
    """Both ways of both wires fail for LASTS_S; `end` is what becomes of the connections that are open then."""

    async def fail(server: EmbeddedServer, pair: Pair, load: Load) -> None:
        before = sum(wire.posts for wire in pair.wires)
        for wire in pair.wires:
            wire.there, wire.back = there or wire.there, back or wire.back
        await asyncio.sleep(LASTS_S)
        posts = sum(wire.posts for wire in pair.wires) - before
        for wire in pair.wires:
            end(wire)
            wire.mend()
        if posts_max is not None and posts > posts_max:
            raise Violation(f"I9: {posts} POSTs while nothing could get through")

    return fail


async def frozen(server: EmbeddedServer, pair: Pair, load: Load) -> None:
    """The asking node stops in the midst of its work and goes on later, as a frozen machine does; then the answering one."""
    for each in pair.nodes:
        assert each.process is not None
        each.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(LASTS_S / 2)
        each.process.send_signal(signal.SIGCONT)
        await asyncio.sleep(1)


@pytest.mark.slow
async def test_n01_after_a_partition_the_queues_drain_without_a_storm(postgres: EmbeddedServer) -> None:
    await faulty(postgres, failing(nothing, nothing, posts_max=POSTS_MAX), ROUNDS, wired=True)


@pytest.mark.slow
async def test_n02_what_arrived_though_its_answer_was_lost_is_there_once(postgres: EmbeddedServer) -> None:
    await faulty(postgres, failing(None, nothing), ROUNDS, wired=True)


@pytest.mark.slow
async def test_n03_connections_that_are_reset_in_their_midst_cost_nothing(postgres: EmbeddedServer) -> None:
    await faulty(postgres, failing(reset, reset), ROUNDS, wired=True)


@pytest.mark.slow
@pytest.mark.parametrize(("least_s", "most_s"), [(0.15, 0.25), (4.5, 5.5)])
async def test_n04_delay_is_waited_for_without_a_storm(postgres: EmbeddedServer, least_s: float, most_s: float) -> None:
    slow = late(least_s, most_s)
    await faulty(postgres, failing(slow, slow, end=Wire.mend, posts_max=POSTS_MAX), ROUNDS, wired=True)


async def lossy(server: EmbeddedServer, pair: Pair, load: Load) -> None:
    """One of ten packets to the nodes' ports is lost, on the loopback of this machine."""
    ports = ", ".join(str(each.node.port) for each in pair.nodes)
    rules = "\n".join(f"iif lo tcp {side} {{ {ports} }} numgen random mod 10 0 drop" for side in ("dport", "sport"))
    table = f"table inet {TABLE} {{\nchain in {{\ntype filter hook input priority 0\n{rules}\n}}\n}}\n"
    subprocess.run(["nft", "-f", "-"], input=table.encode(), check=True)
    try:
        await asyncio.sleep(LASTS_S)
    finally:
        subprocess.run(["nft", "delete", "table", "inet", TABLE], check=True)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nft"), reason="N05: as root, apt-get install nftables")
async def test_n05_lost_packets_cost_nothing_but_time(postgres: EmbeddedServer) -> None:
    await faulty(postgres, lossy, ROUNDS)


@pytest.mark.slow
async def test_n06_a_line_of_256_kbit_is_enough(postgres: EmbeddedServer) -> None:
    await faulty(postgres, failing(thin(32_000), thin(32_000), end=Wire.mend), ROUNDS, wired=True)


@pytest.mark.slow
async def test_n09_a_connection_whose_other_end_vanished_is_given_up(postgres: EmbeddedServer) -> None:
    await faulty(postgres, failing(nothing, nothing, end=Wire.vanish), 1, wired=True, settle_s=150)


@pytest.mark.slow
async def test_n10_half_an_answer_is_no_receipt(postgres: EmbeddedServer) -> None:
    await faulty(postgres, failing(None, half), ROUNDS, wired=True)


@pytest.mark.slow
async def test_s03_a_node_that_was_frozen_goes_on_and_forks_nothing(postgres: EmbeddedServer) -> None:
    await faulty(postgres, frozen, ROUNDS)
