"""A whole node over HTTP as `tracewire run` serves it, in this process: its three listeners, and a client of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from gateway.runtime.node import serve
from tests.federation import Node, wait_until
from tests.http.office import ALL, Office, Reply


@asynccontextmanager
async def served(node: Node) -> AsyncIterator[Office]:
    """Serves a stopped node until the end of the block; its operations listener answers when the block begins."""
    ports = node._ports = await node.ports()
    stop = asyncio.Event()
    running = asyncio.ensure_future(serve(node.folder, node.settings, node.keys, node.fed.secret, ports, stop))
    try:
        async with aiohttp.ClientSession() as session:
            office = Office(node, session, f"http://{node.settings.agency_bind}")

            async def answers() -> bool:
                try:
                    return (await operations(office, "/livez")).status == 200
                except aiohttp.ClientError:
                    return False

            await wait_until(answers)
            await office.register("all", ("A", "B"), ALL)
            yield office
    finally:
        stop.set()
        await running
        await node._close()


async def operations(office: Office, path: str, **arguments: Any) -> Reply:
    """A GET of the operations listener."""
    inner = Office(office.node, office.session, f"http://{office.node.settings.operations_bind}")
    return await inner.call("GET", path, **arguments)
