"""D09, B01 and B02 of faults.yaml: a disk that does not keep what it said, and a queue that grew while its recipient was down."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from uuid import UUID

import pytest

from adapters.postgres.embedded import EmbeddedServer
from gateway.runtime.client import AgencyClient
from tests.bench.attachment import rss_mib
from tests.fault.conftest import COUNTED, Pairs
from tests.fault.pair import KNOWN, Load, Pair, until
from tests.fault.rounds import judge
from tests.federation import HANDLING, trace_request

QUEUED, BATCH, URGENT, RSS_MIB = 1_500, 500, 5, 250
QUEUE_S = 120.0
_ANSWERED = (
    "SELECT first.index < second.index AS in_order FROM inbox first JOIN inbox second ON first.thread = second.thread "
    "AND (first.type, second.type) = ('trace.acknowledgement', 'trace.response')"
)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("cc"), reason="D09: apt-get install gcc")
async def test_d09_a_guard_whose_fsync_fails_ends_the_process_at_once(pairs: Pairs, tmp_path: Path) -> None:
    COUNTED["points"] += 1
    shim, mark, source = tmp_path / "shim.so", tmp_path / "mark", Path(__file__).with_name("fsync_fails.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, source], check=True)
    pair = await pairs.get()
    for victim in pair.nodes:
        load, over = Load(pair), asyncio.Event()
        victim.kill()
        await victim.start(env={"LD_PRELOAD": str(shim), "FAIL_FSYNC": str(mark)})
        loading = asyncio.ensure_future(load.run(over.is_set))
        try:
            while len(load.answers) < 5:
                await asyncio.sleep(0.02)
            mark.touch()
            await victim.died()
            assert victim.code != 0
            assert mark.read_bytes() == b".", "what fsync did not keep is not asked for again"
            mark.unlink()
            await victim.start()
            over.set()
            await loading
        finally:
            loading.cancel()
            await asyncio.wait([loading])
        await judge(pair, load, after="D09: ")


@pytest.mark.slow
async def test_b01_b02_a_queue_drains_in_bounded_memory_and_what_is_urgent_does_not_wait_for_it(
    postgres: EmbeddedServer,
) -> None:
    COUNTED["points"] += 1
    pair = await Pair.make(postgres)
    try:
        a, b = pair.nodes
        b.kill()
        async with AgencyClient.of_node(a.node.folder) as agency:
            for first in range(0, QUEUED, BATCH):
                await _queue(pair, agency, range(first, first + BATCH))
            assert await a.node.count("outbox", "state = 'queued'") == QUEUED
            await b.start()
            await a.node.sql("UPDATE outbox SET due = now(), leased = NULL")
            urgent = await asyncio.gather(*(_urgent(pair, agency, n) for n in range(URGENT)))

        async def small() -> bool:
            assert all(each.process and rss_mib(each.process.pid) < RSS_MIB for each in pair.nodes)
            return await a.node.count("outbox", "state = 'queued'") == 0

        await until(small, QUEUE_S, lambda: "I9: the queue does not drain")
        await judge(pair, after="B01: ")
        last = await b.node.sql("SELECT max(index) FROM inbox")
        places = await b.node.rows("SELECT index FROM inbox WHERE id = ANY($1)", urgent)
        assert len(places) == URGENT
        assert all(row["index"] < last[0] - QUEUED // 4 for row in places), "B02: what is urgent waited for the queue"
        answered = await a.node.rows(_ANSWERED)
        assert len(answered) == QUEUED // 10
        assert all(row["in_order"] for row in answered), "B01: within a thread one overtook another"
    finally:
        pair.kill()
        shutil.rmtree(pair.fed.folder)


async def _queue(pair: Pair, agency: AgencyClient, numbers: range) -> None:
    serials = [f"Q{n:06}" if n % 10 else KNOWN[0] for n in numbers]
    said = [
        {"to": pair.b.node.name, "body": trace_request(serial, request_ref=f"Q-{n}"), "handling": HANDLING}
        for n, serial in zip(numbers, serials, strict=True)
    ]
    lines = "\n".join(map(json.dumps, said)).encode()
    async for line in agency.batch(lines, "application/x-ndjson", key=f"queue {numbers.start:06}"):
        if line.id:
            pair.answers[f"queued {line.id}"] = json.dumps({"id": line.id}).encode()


async def _urgent(pair: Pair, agency: AgencyClient, n: int) -> UUID:
    body = trace_request(f"U{n:06}", priority="URGENT", justification="an officer was shot")
    sent = await agency.submit(pair.b.node.name, body)
    pair.answers[f"urgent {n}"] = json.dumps({"id": sent.id}).encode()
    return UUID(sent.id)
