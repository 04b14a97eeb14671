"""A node's database and its two roles, on any PostgreSQL >= 15 (docs/design.md section 5)."""

import hmac
import re
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

import asyncpg

from protocols.problems import ProblemError

CONNECT_S = 10.0
STATEMENT_S = 60.0  # CREATE DATABASE copies a template; others may be preparing theirs
_NAME = re.compile(r"[a-z][a-z0-9_]{0,55}")  # `<name>_owner` stays within PostgreSQL's 63 bytes
_ONE_AT_A_TIME = 0x74726163  # advisory lock: CREATE DATABASE has no IF NOT EXISTS


async def prepare_database(admin_dsn: str, name: str, *, password: str | None = None) -> tuple[str, str]:
    """Make what is missing of database `name` and its roles; returns the DSNs of `<name>_owner` and `<name>_app`.

    The owner migrates; the app may connect and is granted tables by the migrations. Over a network `password` is
    required: each role gets its own, derived from it, so that the app's DSN does not open the owner's role.
    The administrator needs CREATEDB and CREATEROLE. Raises ProblemError config.invalid.
    """
    if not _NAME.fullmatch(name):
        raise ProblemError("config.invalid", "A database name is a lower-case letter, then up to 55 of a-z, 0-9 and _")
    admin = urlsplit(admin_dsn)
    if password is None and not _is_socket(admin):
        raise ProblemError("config.invalid", "A PostgreSQL over the network needs a password for the node's roles")
    secrets = {role: password and _derived(password, role) for role in (f"{name}_owner", f"{name}_app")}
    try:
        connection = await asyncpg.connect(admin_dsn, timeout=CONNECT_S, command_timeout=STATEMENT_S)
        try:
            await connection.execute("SELECT pg_advisory_lock($1)", _ONE_AT_A_TIME)
            await _prepare(connection, name, secrets)
        finally:
            await connection.close()
    except asyncpg.InsufficientPrivilegeError as error:
        raise ProblemError("config.invalid", "The administrator's role lacks CREATEDB or CREATEROLE") from error
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise ProblemError("config.invalid", f"The database was not prepared: {type(error).__name__}") from error
    owner, app = (_dsn(admin, name, role, secret) for role, secret in secrets.items())
    return owner, app


async def _prepare(connection: "asyncpg.Connection[asyncpg.Record]", name: str, secrets: dict[str, str | None]) -> None:
    owner, app = secrets
    for role, secret in secrets.items():
        known = await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", role)
        # A verb and two safe words; the secret is hexadecimal.
        await connection.execute(
            f'{"ALTER" if known else "CREATE"} ROLE "{role}" LOGIN' + (f" PASSWORD '{secret}'" if secret else "")
        )
    if not await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        await connection.execute(f'GRANT "{owner}" TO CURRENT_USER')  # else it may not give a database to that role
    if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", name):
        await connection.execute(f'CREATE DATABASE "{name}" OWNER "{owner}" ENCODING \'UTF8\' TEMPLATE template0')
    await connection.execute(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')
    await connection.execute(f'GRANT CONNECT ON DATABASE "{name}" TO "{app}"')


def _is_socket(dsn: SplitResult) -> bool:
    host = dict(parse_qsl(dsn.query)).get("host", "") or dsn.netloc.rpartition("@")[2]
    return host.startswith(("/", "%2F", "%2f"))


def _derived(password: str, role: str) -> str:
    return hmac.digest(password.encode(), role.encode(), "sha256").hex()


def _dsn(admin: SplitResult, name: str, role: str, secret: str | None) -> str:
    """The administrator's DSN with another user, password and database; what it says of host and TLS stays."""
    kept = {k: v for k, v in parse_qsl(admin.query) if k not in {"user", "password", "dbname", "database"}}
    user = f"{role}:{secret}" if secret else role
    netloc = f"{user}@{admin.netloc.rpartition('@')[2]}"
    return admin._replace(netloc=netloc, path=f"/{name}", query=urlencode(kept, safe="/", quote_via=quote)).geturl()
