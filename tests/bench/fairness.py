"""`make fairness`: what a member that misbehaves costs the others (I10 of faults.yaml).

One node sends to a good member, 50 requests a second, while another member that it also sends to is away, swallows everything,
drips a byte a second, or answers 500 for ever. All in one run, on the same machine. The last line printed is one JSON object:
milliseconds from submission to the receipt of the good member, beside the same without a bad one. Exit code 1 where a bad one
raises the 99th percentile to more than twice that.
"""

import asyncio
import contextlib
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from adapters.postgres.embedded import EmbeddedServer
from gateway.runtime.client import AgencyClient
from tests.fault.pair import NodeProcess, set_up
from tests.federation import Federation, Node, trace_request

MOST = 2.0
COUNT, EVERY_S, TO_THE_BAD = 750, 0.02, 4  # one of four more goes to the bad member
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(1 << 16):
        pass


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1 << 16)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(1)


async def fail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(1 << 16):
        writer.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


BAD: dict[str, Serve | None] = {"alone": None, "away": None, "swallows": swallow, "drips": drip, "fails": fail}


async def latencies(node: Path, good: str, bad: str | None) -> list[float]:
    """Milliseconds to the receipt of each message to the good member."""
    began, ended = dict[str, float](), dict[str, float]()
    after = 0
    async with AgencyClient.of_node(node) as agency:
        while events := (await agency.get("/v1/events", after=str(after), limit="200"))["events"]:
            after = events[-1]["seq"]

        async def watch() -> None:
            async for event in agency.follow(after):
                if event.kind == "delivered" and event.message:
                    ended[event.message] = time.monotonic()

        async def send(n: int) -> None:
            at = time.monotonic()
            began[(await agency.submit(good, trace_request(f"F{n:06}"))).id] = at
            if bad and n % TO_THE_BAD == 0:
                await agency.submit(bad, trace_request(f"F{n:06}"))

        watching = asyncio.ensure_future(watch())
        sends = []
        for n in range(COUNT):
            sends.append(asyncio.ensure_future(send(n)))
            await asyncio.sleep(EVERY_S)
        await asyncio.gather(*sends)
        async with asyncio.timeout(60):
            while began.keys() - ended.keys():
                await asyncio.sleep(0.05)
        watching.cancel()
    return sorted((ended[id_] - at) * 1000 for id_, at in began.items())


async def measure(work: Path) -> dict[str, object]:
    server = EmbeddedServer(work / "pg")
    await server.start()
    fed = Federation(server, work)
    try:
        async with fed:
            nodes = [Node(fed, short) for short in "ab"]
            for node in nodes:
                await set_up(node)
            (bad,) = await fed.strangers("bad")
            processes = [NodeProcess(node) for node in nodes]
            try:
                await asyncio.gather(*(each.start() for each in processes))
                return await _every_kind(nodes, bad.name, bad.port)
            finally:
                for process in processes:
                    process.kill()
    finally:
        await server.stop()


async def _every_kind(nodes: list[Node], bad: str, port: int) -> dict[str, object]:
    found: dict[str, dict[str, float]] = {}
    a, b = nodes
    await latencies(a.folder, b.name, None)  # the first ones warm everything up
    for kind, serve in BAD.items():
        served = await asyncio.start_server(serve, "127.0.0.1", port) if serve else None
        took = await latencies(a.folder, b.name, None if kind == "alone" else bad)
        if served:
            served.close()
        found[kind] = {
            "p50_ms": round(statistics.median(took), 1), "p99_ms": round(took[int(len(took) * 0.99)], 1),
        }  # fmt: skip
        print(kind, found[kind], flush=True)
    worst = max(each["p99_ms"] for each in found.values())
    return {**found, "worst_p99_ratio": round(worst / found["alone"]["p99_ms"], 2)}


def main() -> None:
    work = Path(tempfile.mkdtemp(prefix="tw-fair-"))
    work.chmod(0o755)
    try:
        found = asyncio.run(measure(work))
        print(json.dumps(found))
        if found["worst_p99_ratio"] > MOST:
            sys.exit(1)
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(work)


if __name__ == "__main__":
    main()
