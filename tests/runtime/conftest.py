"""Makes the helpers beside the tests importable however pytest is started; an empty network for tests of commands."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.postgres.embedded import EmbeddedServer

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from tests.federation import Federation  # noqa: E402


@pytest.fixture
async def fed(postgres: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Federation]:
    """An empty network; its nodes are stopped at the end."""
    async with Federation(postgres, tmp_path) as made:
        yield made
