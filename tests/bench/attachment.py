"""`make attachment`: one long attachment from node to node, beside a plain HTTP copy of the same bytes into the same store.

Two nodes and PostgreSQL run as processes of their own. First the clean transfer, with the memory that each node adds;
then one with three kills and a restart. The last line printed is one JSON object.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import asyncpg
from aiohttp import web

from gateway.runtime.cli.say import SecretFrom
from gateway.runtime.client import DEFAULT_HANDLING, AgencyClient
from gateway.runtime.database import server_of
from gateway.runtime.settings import load_settings
from tests.bench.bench import BODY, free_port, ready, set_up, start

MIB = 1024 * 1024
COPY = """
import asyncio, sys
sys.path.insert(0, ".")
from tests.bench.attachment import serve_copy
asyncio.run(serve_copy(int(sys.argv[1]), sys.argv[2]))
"""


async def serve_copy(port: int, dsn: str) -> None:
    """The plainest server that does the same: a body into rows of 1 MiB."""
    pool = await asyncpg.create_pool(dsn, min_size=1, max_size=4)

    async def put(request: web.Request) -> web.Response:
        n, waiting = 0, bytearray()

        async def store() -> None:
            nonlocal n
            rows = [(bytes(waiting[at : at + MIB]), n + i) for i, at in enumerate(range(0, len(waiting), MIB))]
            n += len(rows)
            async with pool.acquire() as connection, connection.transaction():
                await connection.copy_records_to_table("plain_copy", records=rows, columns=["data", "n"])
            waiting.clear()

        async for chunk in request.content.iter_chunked(256 * 1024):
            waiting.extend(chunk)
            if len(waiting) >= 4 * MIB:
                await store()
        if waiting:
            await store()
        return web.Response()

    app = web.Application(client_max_size=1 << 40)
    app.router.add_put("/", put)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


async def plain_copy(file: Path, node: Path) -> float:
    """Seconds to copy the file by HTTP into rows of the node's cluster."""
    settings = load_settings(node)
    dsn = server_of(node, settings).dsn(settings.postgres_database)
    connection = await asyncpg.connect(dsn)
    await connection.execute("DROP TABLE IF EXISTS plain_copy")
    await connection.execute(
        "CREATE TABLE plain_copy (n int, data bytea); ALTER TABLE plain_copy ALTER data SET STORAGE EXTERNAL"
    )
    port = free_port()
    server = subprocess.Popen([sys.executable, "-c", COPY, str(port), dsn])
    try:
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                try:
                    async with session.get(f"http://127.0.0.1:{port}/"):
                        break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.1)
            began = time.monotonic()
            with file.open("rb") as data:
                async with session.put(f"http://127.0.0.1:{port}/", data=data) as response:
                    assert response.status == 200
            took = time.monotonic() - began
        assert await connection.fetchval("SELECT sum(length(data)) FROM plain_copy") == file.stat().st_size
        await connection.execute("DROP TABLE plain_copy")
        return took
    finally:
        server.terminate()
        server.wait()
        await connection.close()


def rss_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


async def delivered(agency: AgencyClient, asked: dict[str, str], watch=None) -> None:
    while True:
        try:
            found = await agency.get(f"/v1/traces/{asked['thread']}")
            if found["messages"][0]["state"] == "delivered":
                return
        except Exception:  # the node may be down: the run kills it
            pass
        if watch is not None:
            watch()
        await asyncio.sleep(0.1)


async def submit(agency: AgencyClient, attached: dict) -> dict[str, str]:
    said = {"to": "bench/b", "body": BODY, "handling": DEFAULT_HANDLING, "attachments": [attached]}
    return await agency.post("/v1/traces", said)


async def measure(work: Path, nodes: list[Path], mib: int) -> dict[str, object]:
    processes = start(nodes, work / "key")
    for node in nodes:
        await ready(node)
    file = work / "long.bin"
    with file.open("wb") as data:
        for _ in range(mib):
            data.write(os.urandom(MIB))
    found: dict[str, object] = {"mib": mib}
    async with AgencyClient.of_node(nodes[0]) as agency:
        began = time.monotonic()
        attached = await agency.attach(file)
        found["upload_s"] = round(time.monotonic() - began, 2)
        print(f"uploaded and sealed in {found['upload_s']} s", flush=True)
        copies = [await plain_copy(file, nodes[1])]
        before = [rss_mib(each.pid) for each in processes]
        peak = list(before)

        def watch() -> None:
            for n, each in enumerate(processes):
                peak[n] = max(peak[n], rss_mib(each.pid))

        began = time.monotonic()
        asked = await submit(agency, attached)
        await delivered(agency, asked, watch)
        found["transfer_s"] = round(time.monotonic() - began, 2)
        copies.append(await plain_copy(file, nodes[1]))
        found["plain_copy_s"] = round(statistics.median(copies), 2)
        found["ratio"] = round(found["transfer_s"] / found["plain_copy_s"], 2)
        found["added_mib"] = [round(high - low, 1) for high, low in zip(peak, before, strict=True)]
        print(json.dumps(found), flush=True)
        attached = await agency.attach(file)
        asked = await submit(agency, attached)
        for n, number in ((1, signal.SIGKILL), (0, signal.SIGKILL), (1, signal.SIGKILL), (0, signal.SIGTERM)):
            await asyncio.sleep(1.0)
            processes[n].send_signal(number)
            processes[n].wait()
            processes[n] = start([nodes[n]], work / "key")[0]
            await ready(nodes[n])
        await asyncio.wait_for(delivered(agency, asked), 600)
    async with AgencyClient.of_node(nodes[1]) as agency:
        message = (await agency.get(f"/v1/traces/{asked['thread']}"))["messages"][0]
        await agency.save(asked["thread"], message["id"], message["attachments"][0], work / "saved.bin")
    same = subprocess.run(["cmp", file, work / "saved.bin"], check=False).returncode == 0
    found["after_three_kills_and_a_restart"] = "the same bytes" if same else "OTHER BYTES"
    for each in processes:
        each.terminate()
        each.wait()
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=1024)
    work = Path(tempfile.mkdtemp(prefix="tw-attachment-"))
    work.chmod(0o711)
    SecretFrom(key_file=work / "key").secret(make=True)
    try:
        mib = parser.parse_args().mib
        nodes = set_up(work, f"attachment_mib={mib}")
        print(json.dumps(asyncio.run(measure(work, nodes, mib))))
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
