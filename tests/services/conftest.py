"""A fresh network for each test of the services; makes `tests.federation` importable however pytest is started."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from adapters.postgres.embedded import EmbeddedServer

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from tests.federation import Federation  # noqa: E402

TEST_S = 60 + int(os.environ.get("TRACEWIRE_BOTH_POST_S", "5")) * 2


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Ends a test that waits for ever; the slowest takes a tenth of this on an idle machine."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"the test takes longer than {TEST_S} s")

    former = signal.signal(signal.SIGALRM, late)
    signal.alarm(TEST_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, former)


@pytest.fixture
async def fed(postgres: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Federation]:
    """An empty network; its nodes are stopped at the end, and what a node's task died of fails the test."""
    async with Federation(postgres, tmp_path) as made:
        yield made
