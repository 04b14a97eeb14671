"""`make bench`: CPU per message of path 1 (submit -> receipt committed) beside the crypto floor, latency, ledger rate.

Two nodes and PostgreSQL run as processes of their own; the driver is another process and is not counted. The last line
printed is one JSON object.
"""

import argparse
import asyncio
import contextlib
import io
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

from gateway.runtime.cli import directory as directory_cli
from gateway.runtime.cli import member as member_cli
from gateway.runtime.cli import node as node_cli
from gateway.runtime.cli.say import SecretFrom
from gateway.runtime.client import DEFAULT_HANDLING, AgencyClient

BODY = {
    "request_ref": "B-1",
    "requester": {"name": "Bench", "country": {"code": "US", "raw": "US"}},
    "legal_basis": {"ground": {"code": "LAW_OF_RECOVERING_STATE", "raw": ""}, "national_provision": "s. 1"},
    "circumstances": {
        "recovered_on": "2023-11-14",
        "country": {"code": "US", "raw": "US"},
        "context": {"code": "SEARCH", "raw": ""},
    },
    "weapon": {
        "type": {"code": "PISTOL", "raw": "pistol"},
        "make": {"code": "UNKNOWN", "raw": "Taurus"},
        "calibre": {"code": "UNKNOWN", "raw": "9mm"},
        "origin_class": {"code": "FACTORY", "raw": ""},
        "components": [
            {
                "kind": {"code": "FRAME", "raw": ""},
                "marks": [
                    {
                        "mark_type": {"code": "SERIAL", "raw": ""},
                        "text_raw": "ACL477458",
                        "location": {"code": "FRAME_RIGHT", "raw": ""},
                        "status": {"code": "LEGIBLE", "raw": ""},
                        "pattern": "ACL477458",
                    }
                ],
            }
        ],
    },
    "intended_use": {"code": "CRIMINAL_INVESTIGATION", "raw": ""},
    "priority": "ROUTINE",
    "asks": ["supply_chain"],
    "confidentiality_guarantee": True,
}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def quiet(call, *args, **kwargs):
    """Runs a command's function; its one JSON line."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        call(*args, json=True, **kwargs)
    return json.loads(out.getvalue())


def set_up(work: Path, *settings: str, hub: bool = False) -> list[Path]:
    """An authority's folder and two members, set up by the commands' own functions; with `hub`, a third that carries to b."""
    secret = SecretFrom(key_file=work / "key")
    authority = work / "authority"
    quiet(directory_cli.init, authority, network="bench", secret=secret)
    nodes = []
    for name, role in [("a", "focal-point"), ("b", "registry"), *([("h", "hub")] if hub else [])]:
        node, ports = work / name, [free_port() for _ in range(3)]
        binds = [f"{use}_bind=127.0.0.1:{port}" for use, port in zip(("agency", "exchange", "operations"), ports)]
        quiet(
            node_cli.init, node, member=f"bench/{name}", name=name, country="US",
            root=authority / "repository" / "1.root.json", directory=str(authority / "repository"),
            exchange_url=f"http://127.0.0.1:{ports[1]}",
            settings=[*binds, *settings, f"postgres_folder={work / 'postgres'}", f"postgres_database=bench_{name}"], secret=secret,
        )  # fmt: skip
        if hub and name == "b":
            (node / "record.toml").write_text('modes = ["hub", "push"]\nhubs = ["bench/h"]\n')
        request = quiet(member_cli.request, node, secret=secret)["request"]
        challenge = quiet(directory_cli.admit, authority, Path(request), role=[role], secret=secret)["challenge"]
        quiet(member_cli.request, node, answer=Path(challenge), secret=secret)
        quiet(directory_cli.admit, authority, Path(request), role=[role], secret=secret)
        nodes.append(node)
    quiet(directory_cli.publish, authority, secret=secret)
    return nodes


def start(nodes: list[Path], key: Path) -> list[subprocess.Popen[bytes]]:
    processes = []
    for node in nodes:
        log = (node / "log").open("wb")
        command = [str(Path(sys.executable).with_name("tracewire")), "run", str(node), "--key-file", str(key)]
        processes.append(subprocess.Popen(command, stderr=log))
    return processes


async def ready(node: Path) -> None:
    from gateway.runtime.settings import load_settings

    url = f"http://{load_settings(node).operations_bind}/readyz"
    async with aiohttp.ClientSession() as session, asyncio.timeout(60):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(url) as response:
                    if response.status == 200:
                        break
            await asyncio.sleep(0.1)
        async with AgencyClient.of_node(node) as agency:
            while True:
                with contextlib.suppress(Exception):
                    await agency.get("/v1/peers")
                    return
                await asyncio.sleep(0.1)


def descendants(pids: list[int]) -> list[int]:
    """These processes and all below them, and every PostgreSQL process of the bench's cluster."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, queue = [], list(pids)
    while queue:
        found.append(pid := queue.pop())
        queue += children.get(pid, [])
    return found


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of living processes and of their reaped children."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def postmaster(work: Path) -> int:
    return int((work / "postgres" / "data" / "postmaster.pid").read_text().split("\n")[0])


async def drive(node: Path, count: int, concurrent: int) -> dict[str, object]:
    """Submits `count` messages, `concurrent` at once; latency is POST -> `delivered` seen on the event feed."""
    started: dict[str, float] = {}
    seen: dict[str, float] = {}
    async with AgencyClient.of_node(node) as agency:
        after = 0
        while events := (await agency.get("/v1/events", after=str(after), limit="200"))["events"]:
            after = events[-1]["seq"]
        queue = iter(range(count))

        async def submit() -> None:
            for _ in queue:
                begun = time.perf_counter()
                answer = await agency.post("/v1/traces", {"to": "bench/b", "body": BODY, "handling": DEFAULT_HANDLING})
                started[answer["id"]] = begun

        async def watch(after: int) -> None:
            token = await agency.token()
            while len(seen) < count:
                headers = {"Authorization": f"Bearer {token}", "Prefer": "wait=5"}
                found = await agency._json(
                    "GET", "/v1/events", headers=headers, params={"after": str(after), "limit": "200"}
                )
                now = time.perf_counter()
                for event in found["events"]:
                    after = event["seq"]
                    if event["kind"] == "delivered":
                        seen[event["message"]] = now
                if len(found["events"]) < 200:
                    await asyncio.sleep(0.02 if concurrent == 1 else 0.2)  # the feed is read by us: its cost counts

        begun = time.perf_counter()
        watching = asyncio.ensure_future(watch(after))
        await asyncio.gather(*(submit() for _ in range(concurrent)))
        accepted = time.perf_counter()
        await watching
        spent = time.perf_counter() - begun
    latencies = sorted((seen[id_] - at) * 1000 for id_, at in started.items())
    return {
        "messages_per_s": round(count / spent, 1),
        "accepted_per_s": round(count / (accepted - begun), 1),
        "p50_ms": round(latencies[len(latencies) // 2], 1),
        "p99_ms": round(latencies[min(len(latencies) - 1, len(latencies) * 99 // 100)], 1),
    }


def floor_ms(rounds: int = 300) -> float:
    """CPU of one Ed25519 sign + verify of 2 KiB, HPKE-9-KE wrap + unwrap of 32 bytes, AES-256-GCM seal + open of 2 KiB."""
    from keys.suite import Ed25519Signer, Tw1Opener, Tw1Sealer, Tw1Verifier, seal_private

    signer, verifier, sealer = Ed25519Signer(os.urandom(32)), Tw1Verifier(), Tw1Sealer()
    private, public = seal_private(os.urandom(32))
    opener, text = Tw1Opener({"kid": private}), os.urandom(2048)
    samples = []
    for _ in range(rounds):
        begun = time.process_time()
        signature = signer.sign(text)
        assert verifier.verify("Ed25519", signer.public.public, text, signature)
        wrapped = sealer.wrap(public, b"info")
        cek = opener.unwrap("kid", wrapped.ek, wrapped.encrypted_key, b"info")
        assert cek is not None
        sealed = sealer.encrypt(cek, text, b"")
        assert opener.decrypt(cek, sealed, b"") == text
        samples.append(time.process_time() - begun)
    return statistics.median(samples) * 1000


async def ledger_rates(work: Path, entries: int, callers: int = 512) -> dict[str, float]:
    """Ledger-only changes through the committer, both signatures, on a database of its own; then inclusion proofs of the newest fifth.

    `ledger_growth`: what an entry of the last tenth costs beside one of the first, by the clock. Each proof is asked for alone, of an entry anywhere in the ledger, from tiles in memory, and checked before it is given.
    """
    from adapters.postgres.connect import Pool
    from adapters.postgres.embedded import EmbeddedServer
    from adapters.postgres.ledger import PostgresLedger
    from adapters.postgres.migrate import migrate
    from gateway.runtime.world import SystemClock, SystemIds
    from gateway.services.changes import Noted
    from gateway.services.commit import Committer
    from gateway.services.prove import Prove, Release
    from keys.guard import FileGuard
    from keys.notes import LedgerNoteSigner
    from keys.suite import Tw1Verifier
    from protocols.ledger.entry import NONCE_BYTES, Entry
    from protocols.ledger.merkle import EMPTY_ROOT
    from protocols.ports.crypto import GuardMark

    server = EmbeddedServer(work / "postgres")
    await server.start()
    owner, app = await server.create_database("bench_ledger")
    await migrate(owner)
    pool = await Pool.open(app)
    ledger, clock = PostgresLedger(app, pool), SystemClock()
    origin, folder = "bench/ledger/2026.1", work / "ledger-keys"
    folder.mkdir(mode=0o700)
    identifier, timeline = await ledger.identity()
    await ledger.make_head(origin, EMPTY_ROOT)
    guard = FileGuard(folder)
    guard.raise_to(GuardMark(origin=origin, size=0, root=EMPTY_ROOT, system_identifier=identifier, timeline=timeline))
    committer = Committer(
        origin=origin, store=ledger, signer=LedgerNoteSigner(origin, os.urandom(32), os.urandom(32)),
        verifier=Tw1Verifier(), guard=guard, clock=clock, ids=SystemIds(SystemClock()),
    )  # fmt: skip
    committing = asyncio.ensure_future(committer.run())
    done, tenths = 0, [time.perf_counter()]

    async def caller() -> None:
        nonlocal done
        while done < entries:
            entry = Entry(kind="admin", at=clock.now(), n=os.urandom(NONCE_BYTES), code="bench")
            await committer.commit(Noted(entry=entry))
            done += 1
            if done % (entries // 10) == 0:
                tenths.append(time.perf_counter())

    await asyncio.gather(*(caller() for _ in range(callers)))
    rate = entries / (tenths[10] - tenths[0])
    committing.cancel()
    prove = Prove(ledger, Release(ledger, guard, lambda: False))
    checkpoint = await prove.newest(origin)
    indexes = random.Random(7).sample(range(checkpoint.size - entries // 5, checkpoint.size), min(2_000, entries // 5))
    places = await prove.places_at(checkpoint, indexes)
    begun = time.perf_counter()
    for index in indexes:
        await prove.places(checkpoint, {index: places[index].entry})
    proofs = len(indexes) / (time.perf_counter() - begun)
    await ledger.close()
    await pool.close()
    await server.stop()
    growth = (tenths[10] - tenths[9]) / (tenths[1] - tenths[0])
    return {
        "ledger_entries": entries, "ledger_entries_per_s": round(rate, 1), "ledger_growth": round(growth, 3),
        "proofs_per_s": round(proofs, 1),
    }  # fmt: skip


def driven(node: Path, count: int, concurrent: int) -> dict[str, float]:
    """The driver as a process of its own."""
    command = [sys.executable, __file__, "--drive", str(node), "--count", str(count), "--concurrent", str(concurrent)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[-1])


def measure(work: Path, count: int, entries: int) -> dict[str, object]:
    nodes = set_up(work)
    holder = subprocess.Popen([sys.executable, __file__, "--postgres", str(work / "postgres")], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    processes = start(nodes, work / "key")
    try:
        for node in nodes:
            asyncio.run(ready(node))
        driven(nodes[0], 200, 16)  # warm
        result: dict[str, object] = {}
        floor = floor_ms()
        latency: dict[str, dict[str, float]] = {"p50_ms": {}, "p99_ms": {}, "messages_per_s": {}}
        for concurrent, messages in ((1, max(100, count // 20)), (64, count), (512, count)):
            pids = descendants([process.pid for process in processes] + [postmaster(work)])
            before, floor_before = cpu_seconds(pids), floor
            shown = driven(nodes[0], messages, concurrent)
            pids = descendants([process.pid for process in processes] + [postmaster(work)])
            spent = (cpu_seconds(pids) - before) * 1000 / messages
            floor = statistics.median([floor_before, floor_ms()])
            sys.stderr.write(f"{concurrent:>4} at once: {spent:.2f} ms CPU a message, floor {floor:.3f} ms, {shown}\n")
            for name, values in latency.items():
                values[str(concurrent)] = shown[name]
            if concurrent == 64:
                result = {
                    "path1_cpu_ms": round(spent, 3),
                    "floor_ms": round(floor, 3),
                    "ratio": round(spent / floor, 2),
                }
        result |= latency
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(60)
        holder.terminate()
        holder.wait(60)
    return result | asyncio.run(ledger_rates(work, entries))


async def hold_postgres(folder: Path) -> None:
    """Owns the cluster, so that its CPU time is not a node's child and survives neither."""
    from adapters.postgres.embedded import EmbeddedServer

    server = EmbeddedServer(folder)
    await server.start()
    print("up", flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drive", type=Path)
    parser.add_argument("--postgres", type=Path)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--concurrent", type=int, default=64)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    if given.drive:
        print(json.dumps(asyncio.run(drive(given.drive, given.count, given.concurrent))))
        return
    if given.postgres:
        asyncio.run(hold_postgres(given.postgres))
        return
    work = Path(tempfile.mkdtemp(prefix="tracewire-bench-"))
    work.chmod(0o755)
    try:
        print(json.dumps(measure(work, given.count, given.entries)))
    finally:
        if not given.keep:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
