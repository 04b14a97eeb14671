"""Brings a database to the newest schema, as its owner; says how far it is (imported late: sqlalchemy is slow)."""

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from adapters.postgres.tables import metadata


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _url(dsn: str) -> str:
    return "postgresql+asyncpg" + dsn[dsn.index("://") :]


async def migrate(dsn: str) -> None:
    """Upgrades to the newest version; each step is transactional, a second run changes nothing."""

    def upgrade(connection: Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    engine = create_async_engine(_url(dsn))
    try:
        async with engine.begin() as connection:
            await connection.run_sync(upgrade)
    finally:
        await engine.dispose()


async def drift(dsn: str) -> list[object]:
    """What differs between the database and the tables; empty when the migrations are whole."""

    def compare(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    engine = create_async_engine(_url(dsn))
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(compare)
    finally:
        await engine.dispose()


def newest() -> str:
    """The newest schema version."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""
