"""Connections of a node: a pool for short statements and one connection that belongs to the committer."""

import os
import secrets
import socket
from asyncio import timeout
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias

import asyncpg

from protocols.ports.store import Unavailable
from protocols.problems import Fault, ProblemError

CONNECTIONS_MAX = 10
ACQUIRE_S = 5.0
ANSWER_S = 40.0
"""For what gives rows: the server ends a statement after 30 seconds. A write that others rely on gives none and is not cut: it may
wait for a synchronous standby, and PostgreSQL would keep it here alone and say that all is well. Claims are taken again."""
CLOSE_S = 10.0
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
SETTINGS = {
    "lock_timeout": "5s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "60s",
    "jit": "off",
    "enable_seqscan": "off",  # every statement has its index; a plan made while a table was empty would read all of it later
    # whose claim a row is, and whether it lives; containers have one process number and perhaps one name
    "application_name": f"tracewire {socket.gethostname()[:30]} {os.getpid()} {secrets.token_hex(4)}",
}
GONE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a call that met the end of its connection
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
)
_HEALS = (
    *GONE,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InternalServerError,  # XX001: a page that does not hold its checksum; a restored one does
)


async def connect(dsn: str) -> Connection:
    """One connection with our bounds; Unavailable where the database cannot be reached."""
    try:
        return await asyncpg.connect(dsn, server_settings=SETTINGS, timeout=ACQUIRE_S)
    except asyncpg.ClientConfigurationError as error:
        raise _unusable(error) from error
    except (*GONE, asyncpg.PostgresError) as error:
        raise Unavailable(type(error).__name__) from error


def _unusable(error: Exception) -> ProblemError:
    fault = Fault("/database", "config.invalid", str(error)[:200], "Correct `database`: its files, its parameters.")
    return ProblemError("config.invalid", "the DSN cannot be used as it is", errors=[fault])


async def _keep(_: object) -> None:
    """Asyncpg's own reset costs a round trip a release; our statements leave nothing behind on a connection."""


class Pool:
    """A pool opened once; every statement of it is its own transaction unless said otherwise."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", answer_s: float) -> None:
        self._pool, self._answer_s = pool, answer_s

    @classmethod
    async def open(cls, dsn: str, answer_s: float = ANSWER_S) -> "Pool":
        """Unavailable where the database cannot be reached; so is later what is read and has no answer within `answer_s`."""
        try:
            pool = await asyncpg.create_pool(
                dsn, min_size=1, max_size=CONNECTIONS_MAX, server_settings=SETTINGS, timeout=ACQUIRE_S, reset=_keep
            )
        except asyncpg.ClientConfigurationError as error:
            raise _unusable(error) from error
        except (*GONE, asyncpg.PostgresError) as error:
            raise Unavailable(type(error).__name__) from error
        return cls(pool, answer_s)

    async def close(self, wait_s: float = CLOSE_S) -> None:
        """Gives every connection back; what is not free within `wait_s` is cut."""
        with suppress(TimeoutError):  # asyncpg cuts them when it is cancelled
            async with timeout(wait_s):
                await self._pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for a moment; Unavailable where none is free in time or it is lost."""
        try:
            async with self._pool.acquire(timeout=ACQUIRE_S) as found:
                yield found  # type: ignore[misc]
        except asyncpg.DiskFullError as error:
            raise ProblemError("store.full", "the database's disk is full") from error
        except _HEALS as error:
            raise Unavailable(type(error).__name__) from error

    async def fetch(self, sql: str, *args: Any) -> list[asyncpg.Record]:
        """All rows."""
        async with self.connection() as connection:
            return await connection.fetch(sql, *args, timeout=self._answer_s)

    async def row(self, sql: str, *args: Any) -> asyncpg.Record | None:
        """The first row."""
        async with self.connection() as connection:
            return await connection.fetchrow(sql, *args, timeout=self._answer_s)

    async def execute(self, sql: str, *args: Any) -> str:
        """The command tag."""
        async with self.connection() as connection:
            return await connection.execute(sql, *args)
