"""Serves the authority's repository over HTTP and signs its timestamp every hour. TUF protects it: no TLS, no login."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from aiohttp import web

from adapters.directory.publisher import Online, sign_timestamp
from adapters.directory.repository import Repository

TIMESTAMP_EVERY_S = 3_600  # of a life of 24 h


async def serve(
    folder: Path,
    *,
    host: str,
    port: int,
    online: Online,
    clock: Callable[[], datetime],
    stop: asyncio.Event,
    ready: Callable[[int], None],
) -> None:
    """Serves until `stop` is set; `ready` gets the port once it listens. An error of signing ends it, loudly."""
    repository = Repository(folder=folder / "repository")
    await asyncio.to_thread(sign_timestamp, folder, online=online, now=clock())

    async def file(request: web.Request) -> web.Response:
        data = await asyncio.to_thread(repository.read, request.match_info["name"])
        if data is None:
            raise web.HTTPNotFound
        return web.Response(body=data, content_type="application/json")

    app = web.Application()
    app.router.add_get("/{name:.+}", file)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        ready(runner.addresses[0][1])
        while not stop.is_set():
            try:
                async with asyncio.timeout(TIMESTAMP_EVERY_S):
                    await stop.wait()
            except TimeoutError:
                await asyncio.to_thread(sign_timestamp, folder, online=online, now=clock())
    finally:
        await runner.cleanup()
