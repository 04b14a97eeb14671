"""One pair of nodes for many rounds, made anew after a violation; the one JSON line of `make faults`."""

import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from adapters.postgres.embedded import EmbeddedServer
from tests.fault.pair import Pair

ROUNDS = int(os.environ.get("ROUNDS", "1"))
ROUNDS_A_PAIR = 15  # the ledgers are verified from their first entry after every round
COUNTED: Counter[str] = Counter(
    points=0, rounds=0, messages=0, violations=0, seeded_bugs=0, seeded_bugs_caught=0, seeds=0, seed_violations=0
)


class Pairs:
    """Makes pairs; ends them all."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self._pair: Pair | None = None

    async def get(self) -> Pair:
        """The one in use, or a new one."""
        if self._pair is None or self._pair.rounds >= ROUNDS_A_PAIR:
            self.drop()
            self._pair = await Pair.make(self._server)
        return self._pair

    def drop(self) -> None:
        """Ends the pair: something is wrong with it, or it has served long enough."""
        if self._pair is not None:
            self._pair.kill()
            if not os.environ.get("KEEP"):
                shutil.rmtree(self._pair.fed.folder)
            self._pair = None


@pytest.fixture(scope="session")
def pairs(postgres: EmbeddedServer) -> Iterator[Pairs]:
    made = Pairs(postgres)
    yield made
    made.drop()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["counted"] = dict(COUNTED)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    COUNTED.update(node.workeroutput["counted"])  # a worker of pytest-xdist has ended


def pytest_unconfigure(config: pytest.Config) -> None:
    if "ROUNDS" in os.environ and not hasattr(config, "workeroutput"):
        sys.stdout.write(json.dumps(dict(COUNTED)) + "\n")
