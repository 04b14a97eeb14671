"""A node dies, or a call of it fails, at every point of faults.yaml K01-K20: afterwards all invariants hold."""

import asyncio
import random
import time
from pathlib import Path

import pytest

from tests.fault.conftest import COUNTED, ROUNDS, Pairs
from tests.fault.pair import START_S, Load, Pair, Violation, until
from tests.fault.points import KILLS, POINTS, QUICK, Point
from tests.fault.rounds import judge

FAULTS = Path(__file__).parents[2].parent / "shared" / "faults.yaml"
KILLED_S = 60.0
DEADLY = ("kill", "torn", "half", "disk")  # disk: a guard that cannot be written ends the process


async def one_round(pair: Pair, point: Point, turn: int) -> None:
    """Load, fault, restart, quiet; Violation where an invariant does not hold."""
    victim, load = pair[point.victim(turn)], Load(pair)
    pair.rounds += 1
    victim.kill()
    await victim.start(point.wrap(turn))
    fired = asyncio.Event()
    loading = asyncio.ensure_future(load.run(fired.is_set))
    try:
        while not victim.mark.exists() and not loading.done():
            await asyncio.sleep(0.01)
        if victim.mark.exists():
            fired.set()
        else:
            await loading
            raise Violation(f"the fault {point.name} did not come: {load.problems}")
        if point.what in DEADLY:
            await victim.died()
            await victim.start()
        await loading
    finally:
        loading.cancel()
        await asyncio.wait([loading])
    await judge(pair, load, after=f"{point.name}, turn {turn}: ")


def _points() -> list[object]:
    return [
        pytest.param(point, id=point.name.replace(" ", "-"), marks=() if _quick(point) else pytest.mark.slow)
        for point in POINTS
    ]


def _quick(point: Point) -> bool:
    return point in KILLS and point.id in QUICK


@pytest.mark.parametrize("point", _points())
async def test_after_a_crash_everything_is_there_once_and_proven(point: Point, pairs: Pairs) -> None:
    COUNTED["points"] += 1
    for turn in range(ROUNDS):
        pair = await pairs.get()
        try:
            await one_round(pair, point, turn)
        except BaseException:
            COUNTED["violations"] += 1
            pairs.drop()
            raise


@pytest.mark.slow
async def test_k25_nodes_that_are_killed_at_random_for_a_minute_converge(pairs: Pairs) -> None:
    COUNTED["points"] += 1
    for seed in range(ROUNDS):
        pair, chance, loads = await pairs.get(), random.Random(seed), list[Load]()
        end = time.monotonic() + KILLED_S
        killing = asyncio.ensure_future(_kill(pair, chance, end))
        try:
            while not killing.done():
                loads.append(Load(pair))
                await loads[-1].run(lambda: True)
                await asyncio.sleep(chance.uniform(0, 1))
            for each in pair.nodes:
                await until(each.ready_or_dead, START_S, lambda: "I9: a node does not start again")
            await judge(pair, *loads, after=f"seed {seed}: ")
        except BaseException:
            COUNTED["violations"] += 1
            pairs.drop()
            raise
        finally:
            killing.cancel()


async def _kill(pair: Pair, chance: random.Random, end: float) -> None:
    while time.monotonic() < end:
        await asyncio.sleep(chance.uniform(0.5, 2))
        victim = chance.choice(pair.nodes)
        victim.kill()
        await victim.start(wait=False)


def test_every_crash_point_of_the_list_has_a_call_of_a_port() -> None:
    assert {point.id for point in KILLS} == {f"K{n:02}" for n in range(1, 21)}
    assert len({point.name for point in POINTS}) == len(POINTS)
    if not FAULTS.exists():
        pytest.skip("no shared/faults.yaml here: its list of ids is not compared")
    listed = {line.split()[-1] for line in FAULTS.read_text().splitlines() if line.startswith("- id: K")}
    later = {f"K{n}" for n in range(21, 26)}  # witness, rotation, migration, courier, long run: tests of their own
    assert listed - later == {point.id for point in KILLS}
