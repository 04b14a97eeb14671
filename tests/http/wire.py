"""Raw sockets against real listeners: bytes in, one parsed answer out."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import web

PATIENCE_S = 8.0  # every wait of a test ends; shorter than the deadlines of the product (10 s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One HTTP response; `interim` holds what came before it (100 Continue)."""

    status: int
    headers: dict[str, str]
    body: bytes
    interim: list[int]

    @property
    def problem(self) -> dict[str, Any]:
        """The problem document, checked to be one."""
        assert self.headers["content-type"].startswith("application/problem+json"), self.headers
        found: dict[str, Any] = json.loads(self.body)
        assert found["status"] == self.status
        for name in ("type", "title", "detail", "code", "fix", "retry", "origin"):
            assert isinstance(found[name], str), name
            assert found[name], name
        return found

    @property
    def said(self) -> tuple[int, str]:
        """Status and problem code."""
        return self.status, self.problem["code"]


def free_socket() -> socket.socket:
    """A listening socket on a free port of loopback."""
    return socket.create_server(("127.0.0.1", 0))


@asynccontextmanager
async def listening(
    app: web.Application, *, at: socket.socket | None = None, tls: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[int]:
    """Serves an application as a node does; gives the port. `options` go to the connection."""
    bound = at or free_socket()
    runner = web.AppRunner(app, access_log=None, **{"shutdown_timeout": 0.1} | options)
    await runner.setup()
    try:
        await web.SockSite(runner, bound, ssl_context=tls).start()
        yield bound.getsockname()[1]
    finally:
        await runner.cleanup()


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        """Bytes as they are; a peer that closed is no error: its answer is still to be read."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError:
            pass

    async def answer(self, *, head: bool = False) -> Answer:
        """The next response."""
        async with asyncio.timeout(PATIENCE_S):
            interim: list[int] = []
            while True:
                status, headers = await self._head()
                if status >= 200:
                    break
                interim.append(status)
            length = 0 if head else int(headers.get("content-length", "0"))
            return Answer(status=status, headers=headers, body=await self._reader.readexactly(length), interim=interim)

    async def _head(self) -> tuple[int, dict[str, str]]:
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = [line.partition(":") for line in lines[1:] if line]
        return int(lines[0].split(" ")[1]), {name.lower(): value.strip() for name, _, value in pairs}

    async def closed(self) -> bool:
        """Whether the listener ends the connection, with not a byte more."""
        self._writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            return await self._reader.read() == b""

    async def cut(self, bytes_max: int = 0) -> bool:
        """Whether the listener ends the connection by itself; False once more than `bytes_max` bytes came."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return len(await self._reader.read(bytes_max + 1)) <= bytes_max
            except ConnectionError:
                return True

    async def close(self) -> None:
        """Ends the connection."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


@asynccontextmanager
async def connected(port: int, tls: ssl.SSLContext | None = None, local: str = "127.0.0.1") -> AsyncIterator[Wire]:
    """A connection to a listener, from an address of loopback."""
    wire = Wire(*await asyncio.open_connection("127.0.0.1", port, ssl=tls, local_addr=(local, 0)))
    try:
        yield wire
    finally:
        await wire.close()


async def ask(port: int, data: bytes) -> Answer:
    """The answer to one request on a connection of its own."""
    async with connected(port) as wire:
        await wire.send(data)
        return await wire.answer(head=data.startswith(b"HEAD"))
