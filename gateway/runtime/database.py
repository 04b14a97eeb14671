"""The node's database as its settings name it: by DSN, or a database on an embedded server in a folder."""

from pathlib import Path
from typing import TYPE_CHECKING

from gateway.runtime.settings import Settings

if TYPE_CHECKING:
    from adapters.postgres.embedded import EmbeddedServer


def server_of(node: Path, settings: Settings) -> "EmbeddedServer | None":
    """The embedded server, not started; None where a DSN is set."""
    if settings.database:
        return None
    from adapters.postgres.embedded import EmbeddedServer

    return EmbeddedServer((node / settings.postgres_folder).resolve())


def app_dsn(settings: Settings, server: "EmbeddedServer | None") -> str:
    """The DSN of the application's role."""
    if server is None:
        return settings.database
    return server.dsn(settings.postgres_database, user=f"{settings.postgres_database}_app")
