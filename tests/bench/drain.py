"""`make drain`: messages queued while their recipient is down, and how they drain when it is back.

Two nodes and PostgreSQL run as processes of their own. The last line printed is one JSON object: the rate of each quarter of
the queue, the memory of each node while it drains, what a message takes in each database (a request, its entries, its receipt), and how
many messages arrived before one that was submitted earlier: over all, and within a thread, since the last requests are withdrawn
before the recipient is back. An urgent request a second is submitted meanwhile: how long each
took until it was delivered.
"""

import argparse
import asyncio
import contextlib
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import asyncpg

from gateway.runtime.client import DEFAULT_HANDLING, AgencyClient
from gateway.runtime.database import server_of
from gateway.runtime.settings import load_settings
from protocols.ledger.entry import parse_entry
from tests.bench.attachment import rss_mib
from tests.bench.bench import BODY, ready, set_up, start

_BATCH, _WITHDRAWN = 5_000, 200
_OVERTAKEN = (
    "SELECT count(*) AS threads, count(*) FILTER (WHERE r.index > w.index) AS overtaken FROM inbox r JOIN inbox w "
    "ON w.thread = r.thread AND (r.type, w.type) = ('trace.request', 'trace.withdrawal')"
)
_SIZE = "SELECT pg_database_size(current_database())"


async def submit(node: Path, count: int) -> None:
    """Requests, and a withdrawal in each of the last threads."""
    threads: list[str] = []
    line = json.dumps({"to": "bench/b", "body": BODY, "handling": DEFAULT_HANDLING}) + "\n"
    async with AgencyClient.of_node(node) as agency:
        for number in range(0, count, _BATCH):
            lines = [
                line.replace('"B-1"', f'"B-{n}"') for n in range(number, min(number + _BATCH, count))
            ]  # one that stands twice is submitted once
            async for each in agency.batch("".join(lines).encode(), "application/x-ndjson", key=f"drain-{number:08}"):
                threads += [each.thread] if each.thread else []
            print(f"{min(number + _BATCH, count)} queued", flush=True)
        said = {"body": {"reason": {"code": "ANSWERED_ELSEWHERE", "raw": ""}}, "handling": DEFAULT_HANDLING}
        for thread in threads[-_WITHDRAWN:]:
            await agency.post(f"/v1/traces/{thread}/withdrawal", said, version=(await agency.thread(thread)).version)


async def follow(node: Path) -> None:
    """The recipient's own system: it fetches what arrives."""
    async with AgencyClient.of_node(node) as agency:
        async for _ in agency.follow():
            pass


async def hurry(node: Path, connection: asyncpg.Connection, took: list[float]) -> None:
    """One urgent request after another, until cancelled."""
    body = BODY | {"priority": "URGENT", "justification": "an officer was shot"}
    async with AgencyClient.of_node(node) as agency:
        while True:
            began = time.monotonic()
            sent = await agency.post("/v1/traces", {"to": "bench/b", "body": body, "handling": DEFAULT_HANDLING})
            while await connection.fetchval("SELECT state FROM outbox WHERE id = $1", sent["id"]) != "delivered":
                await asyncio.sleep(0.02)
            took.append(round(time.monotonic() - began, 2))
            await asyncio.sleep(1)


def database(node: Path) -> str:
    settings = load_settings(node)
    return server_of(node, settings).dsn(settings.postgres_database)


async def measure(work: Path, nodes: list[Path], count: int) -> dict[str, object]:
    a = start(nodes[:1], work / "key")[0]
    await ready(nodes[0])
    connection = await asyncpg.connect(database(nodes[0]))
    empty = await connection.fetchval(_SIZE)
    await submit(nodes[0], count)
    queued = await connection.fetchval("SELECT count(*) FROM outbox WHERE state = 'queued'")
    await connection.execute("VACUUM ANALYZE outbox")
    b = start(nodes[1:], work / "key")[0]
    await ready(nodes[1])
    beside, took = await asyncpg.connect(database(nodes[0])), list[float]()
    tasks = [asyncio.ensure_future(each) for each in (follow(nodes[1]), hurry(nodes[0], beside, took))]
    subprocess.run(
        [str(Path(sys.executable).with_name("tracewire")), "outbox", "retry", str(nodes[0])],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    began, peaks, marks = time.monotonic(), [0.0, 0.0], [(0.0, 0)]
    while (left := await connection.fetchval("SELECT count(*) FROM outbox WHERE state = 'queued' AND NOT urgent")) > 0:
        for n, process in enumerate((a, b)):
            peaks[n] = max(peaks[n], rss_mib(process.pid))
        marks.append((time.monotonic() - began, queued - left))
        await asyncio.sleep(0.5)
    spent = time.monotonic() - began
    marks.append((spent, queued))
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    there = await asyncpg.connect(database(nodes[1]))
    overtaking = {row["id"] for row in await connection.fetch("SELECT id FROM outbox WHERE urgent")}
    rows = await there.fetch("SELECT data FROM entry ORDER BY index")
    numbers = [
        entry.pair_seq or 0
        for entry in map(parse_entry, (row["data"] for row in rows))
        if entry.kind == "received" and entry.id not in overtaking
    ]
    threads, overtaken = await there.fetchrow(_OVERTAKEN)
    sizes = [round((await each.fetchval(_SIZE) - empty) / 1024 / queued, 1) for each in (connection, there)]
    for each in (connection, beside, there):
        await each.close()
    for process in (a, b):
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    newest, late = 0, 0
    for number in numbers:
        late += number < newest
        newest = max(newest, number)
    return {
        "queued": queued, "received": len(numbers), "drain_s": round(spent, 1), "per_s": round(queued / spent, 1),
        "per_s_by_quarter": quarters(marks, queued), "peak_rss_mib": [round(each) for each in peaks], "kib_a_message": sizes,
        "out_of_order": late, "threads_of_two": threads, "overtaken_in_thread": overtaken, "urgent_s": {"count": len(took), "median": statistics.median(took), "longest": max(took)},
    }  # fmt: skip


def quarters(marks: list[tuple[float, int]], count: int) -> list[float]:
    """Messages a second in each quarter of the queue."""
    times = [0.0]
    for quarter in (1, 2, 3, 4):
        times.append(next(at for at, done in marks if done >= count * quarter / 4))
    return [round(count / 4 / max(end - begin, 0.01), 1) for begin, end in zip(times, times[1:], strict=False)]


def drain(count: int) -> dict[str, object]:
    """Two nodes of their own, a queue of so many, and how it drains."""
    work = Path(tempfile.mkdtemp(prefix="tracewire-drain-"))
    work.chmod(0o755)
    try:
        nodes = set_up(work)
        holder = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("bench.py")), "--postgres", str(work / "postgres")],
            stdout=subprocess.PIPE,
        )
        assert holder.stdout is not None
        holder.stdout.readline()
        try:
            return asyncio.run(measure(work, nodes, count))
        finally:
            holder.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                holder.wait(60)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    print(json.dumps(drain(parser.parse_args().count)))


if __name__ == "__main__":
    main()
