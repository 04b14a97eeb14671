"""Wrong clocks of real processes: C01 and C02 of faults.yaml; nobody restarts anything, and afterwards all invariants hold."""

import asyncio
import shutil

import pytest

from adapters.postgres.embedded import EmbeddedServer
from tests.fault.conftest import COUNTED, ROUNDS
from tests.fault.pair import Load, Pair, Violation, until
from tests.fault.rounds import faulty, judge

LASTS_S = 8.0
TEN_MINUTES, A_DAY = 600, 86_400


@pytest.mark.slow
async def test_c01_what_a_member_with_a_wrong_clock_refuses_waits_until_it_is_right(postgres: EmbeddedServer) -> None:
    COUNTED["points"] += 1
    pair = await Pair.make(postgres, b_off_s=-TEN_MINUTES)
    try:
        load, (a, b) = Load(pair), pair.nodes
        await load.run(lambda: True)
        count = len(load.answers)

        async def refused() -> bool:
            rows = await a.node.rows("SELECT problem FROM outbox WHERE state = 'queued'")
            return [row["problem"] for row in rows] == ["httpsig.time"] * count

        await until(refused, LASTS_S, lambda: "I2: a member whose clock is ten minutes behind took something")
        (b.node.folder / "clock").unlink()
        await judge(pair, load, after="C01: ")
    finally:
        pair.kill()
        shutil.rmtree(pair.fed.folder)


async def jumps(server: EmbeddedServer, pair: Pair, load: Load) -> None:
    """Both clocks go back a day; a node says so, stands still, and goes on working."""
    clocks = [each.node.folder / "clock" for each in pair.nodes]
    for clock in clocks:
        clock.write_text(str(-A_DAY))
    await asyncio.sleep(LASTS_S)
    for each in pair.nodes:
        if (await each.wrong()).get("clock") != "time.rollback":
            raise Violation("I9: a clock that went back is not said")
    for clock in clocks:
        clock.unlink()


@pytest.mark.slow
async def test_c02_clocks_that_jump_back_a_day_and_forth_again_cost_nothing(postgres: EmbeddedServer) -> None:
    await faulty(postgres, jumps, ROUNDS)
