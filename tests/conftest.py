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

configure_logging()  # structlog's own traceback renderer takes seconds for a deep one
_numbers = itertools.count(1)


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
