"""Runs seeds: `python -m tests.simulation.run 0:20000` (or one seed), over databases with a bug where one is named; the last line is JSON.

A seed gives one history only where Python hashes alike: PYTHONHASHSEED=0 is set for whoever forgot it.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import structlog

from protocols.ports.store import OutcomeUnknown, Unavailable
from protocols.problems import ProblemError
from tests.simulation.bugs import BUGS
from tests.simulation.invariants import violations
from tests.simulation.loop import VirtualLoop
from tests.simulation.store import Tables
from tests.simulation.world import World

_SHOWN = 10
_EXPECTED = (Unavailable, OutcomeUnknown, ProblemError)  # what the faults raise themselves


def simulate(seed: int, make_tables: Callable[[str], Tables] = Tables) -> tuple[list[str], str]:
    """What does not hold after one seed; and a digest of its history, which is the same every time."""
    world = World(seed, make_tables)

    def heard(_: Any, method: str, event: dict[str, Any]) -> Any:
        error = sys.exc_info()[1]
        if method == "error" and event.get("exc_info") and not _expected(error):
            world.broken.append(f"I9: {event['event']} of {error!r}")
        raise structlog.DropEvent

    structlog.configure(processors=[heard], cache_logger_on_first_use=False)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        try:
            runner.run(world.run())
        except RuntimeError as error:  # of the loop, which sees an end that no virtual time brings
            world.broken.append(f"I9: {error}")
        ended = runner.get_loop().time()
    sizes = [(node.tables.heads[node.origin], len(node.tables.events)) for node in world.nodes.values()]
    return violations(world), repr((ended, sizes))


def _expected(error: BaseException | None) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_expected, error.exceptions))
    return isinstance(error, _EXPECTED)


def _failing(bug: str, seed: int) -> tuple[int, list[str]]:
    try:
        return seed, simulate(seed, BUGS.get(bug, Tables))[0]
    except Exception as error:
        return seed, [f"the simulation itself ended of {error!r}"]


def main(seeds: Iterable[int], bug: str = "") -> int:
    """Every seed on every core; 1 where one fails, each with the command that replays it."""
    began, count, failed = time.monotonic(), 0, 0
    with ProcessPoolExecutor() as pool:
        for seed, found in pool.map(partial(_failing, bug), seeds, chunksize=20):
            count += 1
            if found:
                failed += 1
                if failed <= _SHOWN:
                    print(f"seed {seed}: {'; '.join(found)}")
                    print(f"  replay: .venv/bin/python -m tests.simulation.run {seed} {bug}".rstrip())
    print(json.dumps({"seeds": count, "violations": failed, "seconds": round(time.monotonic() - began, 1)}))
    return int(failed > 0)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation.run", *sys.argv[1:]],
            os.environ | {"PYTHONHASHSEED": "0"},
        )  # noqa: S606
    first, _, end = sys.argv[1].partition(":")
    sys.exit(main(range(int(first), int(end) if end else int(first) + 1), *sys.argv[2:]))
