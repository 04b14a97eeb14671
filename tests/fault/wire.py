"""A network of our own between two nodes: a TCP proxy before the address of one of them, which can be made to fail in every way of N01 to N10."""

import asyncio
import contextlib
import random
import re
from collections.abc import Awaitable, Callable
from typing import Self

_CHUNK = 1 << 14
_LENGTH = re.compile(rb"(?i)content-length: (\d+)")

Pass = Callable[[bytes], Awaitable[bytes | None]]


async def _whole(data: bytes) -> bytes:
    return data


async def nothing(data: bytes) -> None:
    """A black hole: what comes is taken and never heard of again."""


async def reset(data: bytes) -> bytes:
    """Three of ten pieces end the connection in their midst."""
    if random.random() < 0.3:
        raise ConnectionResetError
    return data


def late(least_s: float, most_s: float) -> Pass:
    """Every piece comes later, as far away as that."""

    async def wait(data: bytes) -> bytes:
        await asyncio.sleep(random.uniform(least_s, most_s))
        return data

    return wait


def thin(bytes_a_s: int) -> Pass:
    """No more than so many bytes a second."""

    async def wait(data: bytes) -> bytes:
        await asyncio.sleep(len(data) / bytes_a_s)
        return data

    return wait


async def half(data: bytes) -> bytes:
    """Half of an answer's body under a Content-Length that fits it, as a broken proxy makes it."""
    head, sep, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        return data
    kept = body[: len(body) // 2]
    return _LENGTH.sub(b"Content-Length: %d" % len(kept), head) + sep + kept


class Wire:
    """What goes `there` (requests) and comes `back` (answers) passes these functions, a piece of 16 KiB at most at a time; None is lost."""

    def __init__(self, port: int, to: int) -> None:
        self._port, self._to = port, to
        self.there: Pass = _whole
        self.back: Pass = _whole
        self.posts = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._dead: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Ends every connection at once."""
        for writer in self._open:
            writer.transport.abort()

    def vanish(self) -> None:
        """What is open now stays open, and nothing comes through any more: the other end is gone."""
        self._dead |= self._open

    def mend(self) -> None:
        """What is sent from now on arrives."""
        self.there = self.back = _whole

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        mine = {writer, far}
        self._open |= mine
        there = asyncio.ensure_future(self._pump(reader, far, lambda data: self.there(data)))
        back = asyncio.ensure_future(self._pump(far_reader, writer, lambda data: self.back(data)))
        await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
        if writer in self._dead:
            await asyncio.wait((there,))  # until its near end has given it up
        for each in mine:
            each.transport.abort()
        there.cancel()
        back.cancel()
        self._open -= mine

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, through: Pass) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                self.posts += data.count(b"POST /exchange/v1/messages ")
                passed = await through(data)
                if passed and writer not in self._dead:
                    writer.write(passed)
                    await writer.drain()
