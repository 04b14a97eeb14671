"""A fresh network for each test of the services; makes `tests.federation` importable however pytest is started."""

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from adapters.postgres.embedded import EmbeddedServer

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from tests.federation import Federation  # noqa: E402


@pytest.fixture(autouse=True)
def plain_log() -> Iterator[None]:
    """Log lines without the locals of every frame, whose rendering takes seconds."""
    processors = structlog.processors
    structlog.configure([processors.add_log_level, processors.format_exc_info, processors.KeyValueRenderer()])
    yield
    structlog.reset_defaults()


@pytest.fixture
async def fed(postgres: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Federation]:
    """An empty network; its nodes are stopped at the end, and what a node's task died of fails the test."""
    async with Federation(postgres, tmp_path) as made:
        yield made
