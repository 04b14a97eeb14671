"""What tests of every folder share: one embedded PostgreSQL for the session, and fresh database names on it."""

import asyncio
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.postgres.embedded import EmbeddedServer
from gateway.runtime.log import configure_logging

_LONG = (
    "e2e",
    "simulation",
    "browser",
    "runtime",
    "http",
    "services",
    "attacks",
)  # folders; workers take a file at a time

configure_logging()  # structlog's own traceback renderer takes seconds for a deep one
_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that no worker is left with it alone at the end."""
    place = {folder: number for number, folder in enumerate(_LONG)}
    items.sort(key=lambda item: place.get(item.path.relative_to(Path(__file__).parent).parts[0], len(place)))


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedServer]:
    """A running server. Not in tmp_path, whose parent is closed to the account the server runs as under root."""
    folder = Path(tempfile.mkdtemp(prefix="tw-"))
    server = EmbeddedServer(folder)
    try:
        asyncio.run(server.start())
        yield server
    finally:
        asyncio.run(server.stop())
        shutil.rmtree(folder)


@pytest.fixture
def database_name() -> str:
    """A name no other test of this session has."""
    return f"test_{os.getpid()}_{next(_numbers)}"
