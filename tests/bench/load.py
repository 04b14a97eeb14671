"""`make load`: messages from node to node and through a hub, at fixed rates and as many as it takes; then a queue that drains.

Path 1 is what `make bench` measures: submit over HTTP with a token, one message a request, exchange, receipt committed. Path 2
goes on until the recipient's own system has the message and has said so. Every node, PostgreSQL and the driver are processes of
their own; the driver has a bound of what it has in flight, and is not counted. Latency is from the POST to the `delivered` line
of the sender's feed (path 1), to the `received` line of the recipient's (path 2). The last line printed is one JSON object.
"""

import argparse
import asyncio
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg

from gateway.runtime.client import AgencyClient
from tests.bench.attachment import rss_mib
from tests.bench.bench import BODY, cpu_seconds, descendants, floor_ms, postmaster, ready, set_up, start
from tests.bench.drain import database, drain

_WARM, _RATES, _RATED_S, _IN_FLIGHT = 300, (50, 200), 15, 64
_LISTENING_S = 60
_SYNCS = "SELECT sum(fsyncs)::bigint FROM pg_stat_io WHERE object = 'wal'"  # 0 before PostgreSQL 18 tells them


async def value(node: Path, sql: str) -> int:
    """A number out of a node's database."""
    connection = await asyncpg.connect(database(node))
    try:
        return int(await connection.fetchval(sql) or 0)
    finally:
        await connection.close()


def pss_mib(pid: int) -> float:
    """A process's memory with its share of what others hold too: PostgreSQL's buffers count once."""
    with contextlib.suppress(OSError):  # it ended
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))
    return 0.0


class Watch:
    """A member's feed, read as its own system would: when each message's line of a kind was seen."""

    def __init__(self, kind: str) -> None:
        self.kind, self.seen, self.listening = kind, dict[str, float](), asyncio.Event()

    async def run(self, node: Path) -> None:
        async with AgencyClient.of_node(node) as agency:
            after = await value(node, "SELECT coalesce(max(seq), 0) FROM event")
            self.listening.set()
            async for event in agency.follow(after):
                if event.kind == self.kind and event.message:
                    self.seen[event.message] = time.perf_counter()


async def drive(nodes: list[Path], count: int, rate: int, path: int) -> dict[str, float]:
    """Submits `count` messages, `rate` a second or (0) as fast as answers come."""
    began, watches = dict[str, float](), [Watch("delivered"), Watch("received")][:path]
    watching = [asyncio.ensure_future(watch.run(node)) for watch, node in zip(watches, nodes, strict=False)]
    async with AgencyClient.of_node(nodes[0]) as agency, asyncio.timeout(_LISTENING_S + 20 * (count / (rate or 100))):
        for watch in watches:
            await watch.listening.wait()
        numbers, first = iter(range(count)), time.perf_counter()

        async def submit() -> None:
            for n in numbers:
                if rate and (early := first + n / rate - time.perf_counter()) > 0:
                    await asyncio.sleep(early)
                at = time.perf_counter()
                began[(await agency.submit("bench/b", BODY)).id] = at

        await asyncio.gather(*(submit() for _ in range(_IN_FLIGHT)))
        accepted = time.perf_counter()
        while not all(began.keys() <= watch.seen.keys() for watch in watches):
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)  # asking on, which the feed's reader does at once, says that the last ones are handled
    for task in watching:
        task.cancel()
    last = watches[-1].seen
    took = sorted((last[id_] - at) * 1000 for id_, at in began.items())
    ended = max(max(watch.seen[id_] for id_ in began) for watch in watches)
    shown = {f"p{p}_ms": round(took[min(count - 1, count * p // 100)], 1) for p in (50, 95, 99)}
    return {"per_s": round(count / (ended - first), 1), "accepted_per_s": round(count / (accepted - first), 1), **shown}


class Site:
    """Nodes that run, and what they cost."""

    def __init__(self, work: Path, nodes: list[Path], fill: Callable[[list[Path]], object]) -> None:
        """`fill` has the databases before a node runs."""
        self.work, self.nodes = work, nodes
        command = [sys.executable, str(Path(__file__).with_name("bench.py")), "--postgres", str(work / "postgres")]
        self._holder = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        self._holder.stdout.readline()
        fill(nodes)
        self._processes = start(nodes, work / "key")
        for node in nodes:
            asyncio.run(ready(node))

    def stop(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            process.wait(60)
        self._holder.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._holder.wait(60)

    def _pids(self) -> dict[str, list[int]]:
        found = {node.name: [process.pid] for node, process in zip(self.nodes, self._processes, strict=True)}
        return found | {"postgres": descendants([postmaster(self.work)])}

    def cpu(self) -> dict[str, float]:
        """Seconds so far, of each node and of PostgreSQL."""
        return {name: cpu_seconds(pids) for name, pids in self._pids().items()}

    def measure(self, count: int, rate: int, path: int) -> dict[str, Any]:
        """One run: what the driver saw, and what each process spent on a message."""
        command = [sys.executable, __file__, "--drive", *map(str, self.nodes[:2])]
        given = ["--count", str(count), "--rate", str(rate), "--path", str(path)]
        before, synced, floor = self.cpu(), asyncio.run(value(self.nodes[0], _SYNCS)), floor_ms()
        out = subprocess.run([*command, *given], check=True, capture_output=True, text=True).stdout
        spent = {name: (after - before[name]) * 1000 / count for name, after in self.cpu().items()}
        floor = (floor + floor_ms()) / 2
        found = json.loads(out.splitlines()[-1]) | {
            "cpu_ms": {name: round(ms, 3) for name, ms in spent.items()},
            "ratio": round(sum(spent.values()) / floor, 2),
            "floor_ms": round(floor, 3),
            "rss_mib": {
                name: round(sum(map(pss_mib if name == "postgres" else rss_mib, pids)))
                for name, pids in self._pids().items()
            },
            "wal_fsyncs_a_message": round((asyncio.run(value(self.nodes[0], _SYNCS)) - synced) / count, 3),
        }
        sys.stderr.write(f"{self.work.suffix[1:]} path {path}, {f'{rate}/s' if rate else 'saturated'}: {found}\n")
        return found


@contextlib.contextmanager
def site(name: str, *, hub: bool = False, fill: Callable[[list[Path]], object] = len) -> Iterator[Site]:
    work = Path(tempfile.mkdtemp(prefix="tracewire-load-", suffix=f".{name}"))
    work.chmod(0o755)
    running = Site(work, set_up(work, hub=hub), fill)
    try:
        yield running
    finally:
        running.stop()
        shutil.rmtree(work, ignore_errors=True)


def load(count: int, queued: int) -> dict[str, Any]:
    """Everything: directly and through a hub, on both paths, at fixed rates and saturated; and a queue of so many."""
    found: dict[str, Any] = {}
    with site("direct") as direct:
        direct.measure(_WARM, 0, 2)
        for path in (1, 2):
            for rate in _RATES:
                found[f"path{path}_at_{rate}"] = direct.measure(rate * _RATED_S, rate, path)
            found[f"path{path}"] = direct.measure(count, 0, path)
    with site("hub", hub=True) as through:
        through.measure(_WARM, 0, 2)
        for path in (1, 2):
            found[f"hub{path}_at_{_RATES[0]}"] = through.measure(_RATES[0] * _RATED_S, _RATES[0], path)
            found[f"hub{path}"] = through.measure(count, 0, path)
    ratios = {f"{name}_ratio": found[name]["ratio"] for name in ("path1", "path2", "hub1", "hub2")}
    return ratios | {"floor_ms": found["path1"]["floor_ms"]} | found | {"drain": drain(queued)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drive", type=Path, nargs=2)
    parser.add_argument("--count", type=int, default=3_000)
    parser.add_argument("--queued", type=int, default=10_000)
    parser.add_argument("--rate", type=int, default=0)
    parser.add_argument("--path", type=int, default=1)
    given = parser.parse_args()
    if given.drive:
        print(json.dumps(asyncio.run(drive(given.drive, given.count, given.rate, given.path))))
    else:
        print(json.dumps(load(given.count, given.queued)))


if __name__ == "__main__":
    main()
