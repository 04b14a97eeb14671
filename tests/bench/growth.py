"""`make growth`: what a message costs when a million stand in both databases, beside ten thousand.

Two networks of two nodes each, one small, one large; every node's ledger, messages, threads, proofs and feed are loaded by COPY
(entries, tiles and the newest checkpoint are a true ledger, contents are random bytes). Then path 1 of `make load`, saturated, five
times, the two in turn. The last line printed is one JSON object with the medians of CPU a message and their ratio.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import asyncpg

from adapters.postgres.ledger import IDENTITY
from gateway.runtime.cli.say import SecretFrom
from gateway.runtime.settings import load_settings
from keys.guard import FileGuard
from keys.keystore import KeyStore
from protocols.ledger.entry import DirRef, Entry, PeerRef
from protocols.ledger.merkle import leaf_hash
from protocols.ledger.tiles import Edge
from protocols.ports.crypto import GuardMark
from tests.bench.drain import database
from tests.bench.load import Site, site

_RUNS, _MESSAGES, _CHUNK, _BATCH = 5, 1_500, 20_000, 256
_LOOK_S, _QUIET = 12.0, 1.0  # longer than until the first look through the ledger; CPU seconds of all in that time
_BEGAN = datetime(2026, 1, 5, tzinfo=UTC)
_RANDOM = Random(7)


class Message:
    """One that was sent from a to b, received and settled; every field is as long as a real one's."""

    def __init__(self, n: int) -> None:
        self.n, self.at = n, _BEGAN + timedelta(seconds=10 * n)
        milliseconds = int(self.at.timestamp() * 1_000)
        noise = _RANDOM.getrandbits(148)
        self.id, self.thread = (
            UUID(int=milliseconds << 80 | 0x7 << 76 | (half >> 62) << 64 | 0b10 << 62 | half & (1 << 62) - 1)
            for half in (noise >> 74, noise & (1 << 74) - 1)
        )
        self.digest, self.content_c = sha256(self.id.bytes).digest(), sha256(self.thread.bytes).digest()


class Side:
    """One node's half of the exchange, as its tables have it."""

    def __init__(self, node: Path, other: str) -> None:
        self.node, self.member, self.other = node, load_settings(node).member, other
        self.keys = KeyStore.open(node / "keys", SecretFrom(key_file=node.parent / "key").secret())
        (self.origin,) = {key.origin for key in self.keys.inventory() if key.origin}
        self.theirs = f"{other}/{self.origin.rpartition('/')[2]}"
        self._templates: dict[str, bytes] = {}

    def entry(self, kind: str, message: Message) -> bytes:
        """An entry of our ledger, from a template of its kind: everything that differs has a fixed length."""
        if kind not in self._templates:
            dir_, b32 = DirRef(version=1, sha256=bytes(32)), b"\xff" * 32
            peer = PeerRef(origin=self.theirs, index=10**6, leaf=b32, size=10**6, root=b32)
            ends = {"sender": self.member, "recipient": self.other} if kind in ("sent", "receipt") else {
                "sender": self.other, "recipient": self.member}  # fmt: skip
            same: dict[str, Any] = {
                "kind": kind,
                "at": _BEGAN,
                "n": b"\xfe" * 16,
                "id": UUID(int=0x7 << 76 | 2 << 62),
                **ends,
            }
            keys = {
                "kid": "k" * 43,
                "seal_kid": "s" * 43,
                "suite": "tw1",
                "thread_c": b32,
                "envelope": b"\xfd" * 32,
                "pair_seq": 10**6,
            }
            more: dict[str, Any] = {
                "sent": {**keys, "actor_c": b32, "dir": dir_}, "received": {**keys, "dir": dir_, "peer": peer},
                "receipt": {"envelope": b"\xfd" * 32, "pair_seq": 10**6, "dir": dir_, "peer": peer}, "dispatched": {},
            }[kind]  # fmt: skip
            self._templates[kind] = Entry(**same, content_c=b"\xfc" * 32, **more).encode()
        template = self._templates[kind]
        return template.replace(str(UUID(int=0x7 << 76 | 2 << 62)).encode(), str(message.id).encode())

    def tables(self, count: int) -> dict[str, Iterator[tuple[Any, ...]]]:
        """Rows of every table but those of the ledger, by `table column ...`."""
        sends, role = self.node.name == "a", "asker" if self.node.name == "a" else "answerer"
        secret, envelope = _RANDOM.randbytes(1_700), b"\xfd" * 32
        both: dict[str, Any] = {
            "content sender id part thread generation wrapped sealed":
                lambda m: (self.member if sends else self.other, m.id, "", m.thread, 1, secret[:60], secret),
            "leg thread counterpart role kind state version request opened updated messages hop stood_ms rounds":
                lambda m: (m.thread, self.other, role, "trace.request", "DELIVERED", 2, m.id, m.at, m.at, 1, 0, 0, 0),
            "peer_proof peer id digest origin index size path entry":
                lambda m: (self.other, m.id, m.digest, self.theirs, m.n, m.n + 1, secret[:640], secret[:700]),
        }  # fmt: skip
        if sends:
            both |= {
                "outbox id thread recipient type created expires urgent pair_seq origin index digest content_c kid seal_kid actor due state":
                    lambda m: (m.id, m.thread, self.other, "trace.request", m.at, m.at, False, m.n + 1, self.origin, 2 * m.n + 1,
                               m.digest, m.content_c, "k" * 43, "s" * 43, "officer", m.at, "delivered"),
                "idempotency client key digest answer at": lambda m: ("case", str(m.id), envelope, secret[:150], m.at),
                "event seq at kind thread counterpart message": lambda m: (2 * m.n + 1, m.at, "sent", m.thread, self.other, m.id),
                "event  seq at kind thread counterpart message": lambda m: (2 * m.n + 2, m.at, "delivered", m.thread, self.other, m.id),
            }  # fmt: skip
        else:
            both |= {
                "inbox sender id thread type received origin index digest content_c dispatched":
                    lambda m: (self.other, m.id, m.thread, "trace.request", m.at, self.origin, 2 * m.n + 1, m.digest, m.content_c, True),
                "event seq at kind thread counterpart message": lambda m: (m.n + 1, m.at, "received", m.thread, self.other, m.id),
            }  # fmt: skip
        return {columns: map(row, map(Message, range(count))) for columns, row in both.items()}

    def entries(self, count: int) -> Iterator[bytes]:
        """The ledger's."""
        ref = DirRef(version=1, sha256=bytes(32))
        yield Entry(kind="ledger-opened", at=_BEGAN, n=bytes(16), sender=self.member, dir=ref).encode()
        kinds = ("sent", "receipt") if self.node.name == "a" else ("received", "dispatched")
        for message in map(Message, range(count)):
            yield from (self.entry(kind, message) for kind in kinds)

    async def fill(self, count: int) -> None:
        connection = await asyncpg.connect(database(self.node))
        try:
            for table in ("event", "leg", "content", "outbox", "inbox", "peer_proof", "entry"):
                await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
            await self._fill_ledger(connection, count)
            for columns, rows in self.tables(count).items():
                table, *names = columns.split()
                await copy(connection, table, names, rows)
            if self.node.name == "a":
                pair = "INSERT INTO pair (origin, recipient, next) VALUES ($1, $2, $3)"
                await connection.execute(pair, self.origin, self.other, count + 1)
            await connection.execute(
                "SELECT setval(pg_get_serial_sequence('event', 'seq'), (SELECT max(seq) FROM event))"
            )
            for table in ("event", "leg", "content", "outbox", "inbox", "peer_proof", "entry"):
                await connection.execute(f"ALTER TABLE {table} RESET (autovacuum_enabled)")
            await connection.execute("VACUUM ANALYZE")
            await connection.execute("CHECKPOINT")
        finally:
            await connection.close()

    async def _fill_ledger(self, connection: asyncpg.Connection, count: int) -> None:
        edge, signer, at = Edge(0, {}), self.keys.note_signer(self.origin), datetime.now(UTC)
        made = self.entries(count)
        while entries := list(islice(made, _CHUNK)):
            size = edge.size
            rows = ((self.origin, size + i, data) for i, data in enumerate(entries))
            await copy(connection, "entry", ["origin", "index", "data"], rows)
            tiles = edge.append(map(leaf_hash, entries))
            whole = [(self.origin, *tile, data) for tile, data in tiles.items() if len(data) == 8_192]
            await copy(connection, "tile", ["origin", "level", "index", "data"], whole)
        rest = [(self.origin, *tile, data) for tile, data in edge.tiles().items()]
        await copy(connection, "tile", ["origin", "level", "index", "data"], rest)
        root = edge.root()
        note = signer.sign(edge.size, root, at)
        older = ((size, sha256(b"%d" % size).digest()) for size in range(_BATCH, edge.size, _BATCH))
        notes = ((self.origin, size, r, note, UUID(int=size), _BEGAN) for size, r in chain(older, [(edge.size, root)]))
        await copy(connection, "checkpoint", ["origin", "size", "root", "note", "batch", "at"], notes)
        head = "UPDATE ledger_head SET size = $2, root = $3 WHERE origin = $1"
        await connection.execute(head, self.origin, edge.size, root)
        identifier, timeline = await connection.fetchrow(IDENTITY)
        mark = GuardMark(origin=self.origin, size=edge.size, root=root, system_identifier=identifier, timeline=timeline)
        FileGuard(self.node / "keys").raise_to(mark)


async def copy(connection: asyncpg.Connection, table: str, columns: list[str], rows: Iterable[tuple[Any, ...]]) -> None:
    await connection.copy_records_to_table(table, records=rows, columns=columns, timeout=3_600)


def fill(count: int, nodes: list[Path]) -> None:
    for node, other in zip(nodes, ("bench/b", "bench/a"), strict=True):
        asyncio.run(Side(node, other).fill(count))
        sys.stderr.write(f"{node.name}: {count} messages loaded\n")


def quiet(running: Site) -> float:
    """Waits until nothing is done by itself: each hour, and 10 s after its start, a node looks through its own ledger. The CPU (s) that all took till then."""
    began = after = sum(running.cpu().values())
    spent = _QUIET
    while spent >= _QUIET:
        time.sleep(_LOOK_S)
        before, after = after, sum(running.cpu().values())
        spent = after - before
    return round(after - began, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=1_000_000)
    given = parser.parse_args()
    with ExitStack() as stack:
        counts = {"small": given.small, "large": given.large}
        sites = {name: stack.enter_context(site(name, fill=partial(fill, count))) for name, count in counts.items()}
        runs: dict[str, list[float]] = {"small": [], "large": []}
        looked = {}
        for name, running in sites.items():
            running.measure(_MESSAGES, 0, 1)
            looked[name] = quiet(running)
        for _ in range(_RUNS):
            for name, running in sites.items():
                runs[name].append(round(sum(running.measure(_MESSAGES, 0, 1)["cpu_ms"].values()), 3))
    medians = {name: statistics.median(found) for name, found in runs.items()}
    growth = round(medians["large"] / medians["small"], 3)
    print(
        json.dumps(
            {
                "messages": counts,
                "cpu_ms": medians,
                "growth": growth,
                "runs": runs,
                "ledger_looked_through_cpu_s": looked,
            }
        )
    )


if __name__ == "__main__":
    main()
