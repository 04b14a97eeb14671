"""Brings a database to the newest schema, as its owner; says how far it is (imported late: sqlalchemy is slow)."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import asyncpg
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from adapters.postgres.connect import Pool
from adapters.postgres.tables import metadata
from protocols.ports.store import Unavailable
from protocols.problems import ProblemError


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[AsyncConnection]:
    try:
        engine = create_async_engine("postgresql+asyncpg" + dsn[dsn.index("://") :])
    except (ValueError, ArgumentError):
        raise ProblemError("config.invalid", "the DSN is not one of PostgreSQL: postgresql://USER@HOST/NAME") from None
    try:
        try:
            connection = await engine.connect()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, DBAPIError) as error:
            raise Unavailable(type(error).__name__) from error
        async with aclosing(connection):
            yield connection
    finally:
        await engine.dispose()


async def migrate(dsn: str) -> None:
    """Upgrades to the newest version; each step is transactional, a second run changes nothing.

    `config.invalid` for a text that is no DSN, Unavailable where the database cannot be reached.
    """

    def upgrade(connection: Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    async with _connected(dsn) as connection, connection.begin():
        await connection.run_sync(upgrade)


async def drift(dsn: str) -> list[object]:
    """What differs between the database and the tables; empty when the migrations are whole."""

    def compare(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    async with _connected(dsn) as connection:
        return await connection.run_sync(compare)


async def version(pool: Pool) -> str:
    """The schema version of a database as the application sees it; empty where there is none."""
    try:
        row = await pool.row("SELECT version_num FROM alembic_version")
    except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError):
        return ""
    return str(row["version_num"]) if row else ""


def newest() -> str:
    """The newest schema version."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""
