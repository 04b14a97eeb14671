"""The memory store: what a simulated node keeps, with the guarantees of protocols/ports/store.py.

Its tables outlive every process of the node; a `Memory*` object is one process's way to them. That it does what PostgreSQL
does is what tests/contract/test_stores.py asks of both.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from protocols.ledger.checkpoint import Checkpoint
from protocols.ledger.merkle import EMPTY_ROOT
from protocols.ledger.tiles import TileId
from protocols.limits import UNLINKED_MAX
from protocols.ports.rows import (
    Arrived,
    Claimed,
    ContentRow,
    EventRow,
    Held,
    IdempotencyRow,
    InboxRow,
    OutboxRow,
    ProofRow,
    RefusalRow,
    RelayRow,
    SealedRow,
)
from protocols.ports.store import DataError, Head, Standing, Unavailable, Wanted, Writes
from protocols.thread import Delivery, Leg

_LOCK_S = 5.0
_CLAIMED = [each.name for each in fields(Claimed) if each.name not in ("entry", "envelope", "attempts")]


@dataclass(slots=True)
class Out:
    """A row of the outbox: the message, and what changes of it."""

    row: OutboxRow
    state: Delivery
    due: datetime
    attempts: int = 0
    leased: datetime | None = None
    lessee: str = ""
    hastened: bool = False
    problem: str | None = None

    def waits(self, now: datetime) -> bool:
        """Whether it is due and nobody holds it."""
        return self.due <= now and self.free(now)

    def free(self, now: datetime) -> bool:
        """Whether it is queued and nobody holds it."""
        return self.state == "queued" and (self.leased is None or self.leased < now)


@dataclass(slots=True)
class Seen:
    """A checkpoint of a foreign ledger."""

    checkpoint: Checkpoint
    at: datetime
    linked: bool = False


@dataclass(slots=True)
class Tables:
    """Everything durable of one node."""

    identifier: str
    heads: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    entries: defaultdict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    tiles: dict[tuple[str, TileId], bytes] = field(default_factory=dict)
    checkpoints: defaultdict[str, dict[int, Checkpoint]] = field(default_factory=lambda: defaultdict(dict))
    batches: set[UUID] = field(default_factory=set)
    pairs: dict[tuple[str, str], int] = field(default_factory=dict)
    outbox: dict[UUID, Out] = field(default_factory=dict)
    sealed: list[SealedRow] = field(default_factory=list)
    inbox: dict[tuple[str, UUID], InboxRow] = field(default_factory=dict)
    refusals: dict[tuple[str, UUID, bytes], RefusalRow] = field(default_factory=dict)
    content: dict[tuple[str, UUID, str], ContentRow] = field(default_factory=dict)
    proofs: dict[tuple[bytes, str, int], ProofRow] = field(default_factory=dict)
    events: list[EventRow] = field(default_factory=list)
    answers: dict[tuple[str, str], IdempotencyRow] = field(default_factory=dict)
    relays: dict[bytes, RelayRow] = field(default_factory=dict)
    legs: dict[tuple[UUID, str], Leg] = field(default_factory=dict)
    seen: defaultdict[str, dict[int, Seen]] = field(default_factory=lambda: defaultdict(dict))
    split: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    named: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)
    locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    def arrivals(
        self, keys: Collection[tuple[str, UUID]]
    ) -> tuple[dict[tuple[str, UUID], InboxRow], dict[tuple[str, UUID], list[RefusalRow]]]:
        """What arrived before under (sender, id)."""
        refusals: dict[tuple[str, UUID], list[RefusalRow]] = {}
        for (sender, id_, _), row in self.refusals.items():
            if (sender, id_) in keys:
                refusals.setdefault((sender, id_), []).append(row)
        return {key: self.inbox[key] for key in keys if key in self.inbox}, refusals

    def claimed(self, out: Out) -> Claimed:
        """A message as whoever delivers it gets it."""
        row = {name: getattr(out.row, name) for name in _CLAIMED}
        entry = self.entries[out.row.origin][out.row.index]
        return Claimed(**row, entry=entry, attempts=out.attempts, envelope=out.row.envelope)


def _within(found: Sequence[Out], bytes_max: int) -> list[Out]:
    """As many from the first as have no more bytes together."""
    taken, total = [], 0
    for out in found:
        total += len(out.row.envelope)
        if total > bytes_max:
            break
        taken.append(out)
    return taken


class MemoryBatch:
    """A batch that holds the head lock."""

    def __init__(self, tables: Tables, origin: str) -> None:
        size, root = tables.heads[origin]
        self._tables, self._writes = tables, list[Writes]()
        self.head = Head(
            origin=origin, size=size, root=root, generation=1, system_identifier=tables.identifier, timeline=1
        )

    async def note(self) -> bytes | None:
        """The signed checkpoint of the head."""
        found = self._tables.checkpoints[self.head.origin].get(self.head.size)
        return found.note if found else None

    async def last(self) -> bytes | None:
        """The newest entry."""
        return self._tables.entries[self.head.origin][-1] if self.head.size else None

    async def tiles(self, wanted: Sequence[TileId]) -> dict[TileId, bytes]:
        """Tiles as they stand."""
        tiles = self._tables.tiles
        return {tile: tiles[self.head.origin, tile] for tile in wanted if (self.head.origin, tile) in tiles}

    async def standing(self, wanted: Wanted) -> Standing:
        """Rows under these keys; of a thread every leg."""
        tables, threads = self._tables, {thread for thread, _ in wanted.legs}
        inbox, refusals = tables.arrivals(wanted.arrivals)
        return Standing(
            idempotency={key: tables.answers[key] for key in wanted.idempotency if key in tables.answers},
            outbox={id_: tables.outbox[id_].state for id_ in wanted.outbox if id_ in tables.outbox},
            inbox=inbox,
            refusals=refusals,
            legs={key: leg for key, leg in tables.legs.items() if key[0] in threads},
            pairs={
                each: tables.pairs[self.head.origin, each]
                for each in wanted.pairs
                if (self.head.origin, each) in tables.pairs
            },
            relays={digest: tables.relays[digest] for digest in wanted.relays if digest in tables.relays},
        )

    async def write(self, writes: Writes) -> None:
        """Kept until the batch ends; DataError where a key is taken."""
        tables, taken = self._tables, set[Any]()
        for row in writes.rows:
            table, key = _place(tables, row)
            if (key in table or (id(table), key) in taken) and not isinstance(row, ProofRow):
                raise DataError(type(row).__name__)
            taken.add((id(table), key))
        self._writes.append(writes)

    def apply(self) -> None:
        """COMMIT."""
        for writes in self._writes:
            self._apply(writes)

    def _apply(self, writes: Writes) -> None:
        tables, origin = self._tables, self.head.origin
        tables.batches.add(writes.batch)
        tables.entries[origin] += writes.entries
        tables.tiles |= {(origin, tile): data for tile, data in writes.tiles.items()}
        if new := writes.checkpoint:
            tables.checkpoints[origin][new.size] = new
            tables.heads[origin] = new.size, new.root
        tables.pairs |= {(origin, each): next_ for each, next_ in writes.pairs.items()}
        for row in writes.rows:
            if isinstance(row, EventRow):
                tables.events.append(row)
            elif isinstance(row, SealedRow):
                tables.sealed.append(row)
            else:
                table, key = _place(tables, row)
                table.setdefault(key, Out(row, row.state, row.due) if isinstance(row, OutboxRow) else row)
        for id_, state, problem in writes.settled:
            out = tables.outbox[id_]
            out.state, out.problem, out.leased, out.row = state, problem, None, replace(out.row, envelope=b"")
        for each in writes.resealed:
            names = ("origin", "index", "pair_seq", "digest", "seal_kid", "envelope")
            changed = {name: getattr(each, name) for name in names}
            tables.outbox[each.id].row = replace(tables.outbox[each.id].row, **changed)
        for key in writes.dispatched:
            tables.inbox[key] = replace(tables.inbox[key], dispatched=True)
        tables.legs |= writes.legs


def _place(tables: Tables, row: Any) -> tuple[Any, Any]:
    """Table and key of a row; of one without a key itself."""
    match row:
        case OutboxRow():
            return tables.outbox, row.id
        case InboxRow():
            return tables.inbox, (row.sender, row.id)
        case RefusalRow():
            return tables.refusals, (row.sender, row.id, row.digest)
        case ContentRow():
            return tables.content, (row.sender, row.id, row.part)
        case ProofRow():
            return tables.proofs, (row.digest, row.origin, row.index)
        case IdempotencyRow():
            return tables.answers, (row.client, row.key)
        case RelayRow():
            return tables.relays, row.digest
        case EventRow() | SealedRow():
            return (), object()
    raise NotImplementedError(type(row).__name__)


class MemoryLedger:
    """LedgerStore: the batch, and what proofs are made of."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    @asynccontextmanager
    async def batch(self, origin: str) -> AsyncIterator[MemoryBatch]:
        """Under the head lock; written when the block ends without error."""
        lock = self._tables.locks[origin]
        try:
            async with asyncio.timeout(_LOCK_S):
                await lock.acquire()
        except TimeoutError:
            raise Unavailable("the head is locked") from None
        try:
            batch = MemoryBatch(self._tables, origin)
            yield batch
            batch.apply()
        finally:
            lock.release()

    async def find_batch(self, origin: str, batch: UUID) -> bool:
        """Under the head lock: whether that batch was committed."""
        async with self.batch(origin):
            return batch in self._tables.batches

    async def make_head(self, origin: str, root: bytes) -> None:
        """A head of size 0."""
        self._tables.heads[origin] = 0, root

    async def entries(self, origin: str, start: int, end: int) -> list[bytes]:
        """Entries [start, end) as far as they exist."""
        return self._tables.entries[origin][start:end]

    async def tiles(self, origin: str, wanted: Sequence[TileId]) -> dict[TileId, bytes]:
        """Tiles as they stand."""
        tiles = self._tables.tiles
        return {tile: tiles[origin, tile] for tile in wanted if (origin, tile) in tiles}

    async def checkpoint(self, origin: str, size: int | None = None) -> Checkpoint | None:
        """The newest checkpoint, or that of a size."""
        found = self._tables.checkpoints[origin]
        return found.get(size if size is not None else max(found, default=0))


class MemoryExchange:
    """ExchangeStore, as far as parcels need it; `alive` tells which processes of the node there are."""

    def __init__(self, tables: Tables, process: str, alive: Callable[[], Collection[str]]) -> None:
        self._tables, self._process, self._alive = tables, process, alive

    async def due_peers(self, now: datetime) -> dict[str, bool]:
        """Recipients with a message that waits; whether one of these is not to wait for others."""
        found: dict[str, bool] = {}
        for out in self._tables.outbox.values():
            if out.waits(now):
                again = out.hastened or (out.row.urgent and out.attempts == 0)
                found[out.row.recipient] = found.get(out.row.recipient, False) or again
        return found

    async def claim(self, recipient: str, now: datetime, lease: datetime, count: int, bytes_max: int) -> list[Claimed]:
        """Claims what is due, urgent and oldest first."""
        due = [out for out in self._tables.outbox.values() if out.row.recipient == recipient and out.waits(now)]
        due.sort(key=lambda out: (not out.row.urgent, out.due, out.row.id))
        taken = _within(due[:count], bytes_max)
        for out in taken:
            out.leased, out.lessee = lease, self._process
        return [self._tables.claimed(out) for out in taken]

    async def offer(self, recipient: str, count: int, bytes_max: int) -> list[Claimed]:
        """Queued messages, claimed or not: urgent first, then the least offered."""
        found = [out for out in self._tables.outbox.values() if (out.row.recipient, out.state) == (recipient, "queued")]
        found.sort(key=lambda out: (not out.row.urgent, out.attempts, out.row.id))
        taken = _within(found[:count], bytes_max)
        for out in taken:
            out.attempts += 1
        return [self._tables.claimed(out) for out in taken]

    async def unsettled(self, recipient: str, ids: Sequence[UUID]) -> list[Claimed]:
        """Messages of these ids that a receipt can still settle."""
        found = [self._tables.outbox[id_] for id_ in dict.fromkeys(ids) if id_ in self._tables.outbox]
        states = ("queued", "undelivered")
        return [self._tables.claimed(out) for out in found if out.row.recipient == recipient and out.state in states]

    async def sealed(self, ids: Sequence[UUID]) -> list[SealedRow]:
        """What these messages were sealed as before."""
        return [row for row in self._tables.sealed if row.id in ids]

    async def postpone(self, due: Mapping[UUID, datetime | None], problems: Mapping[UUID, str] | None = None) -> None:
        """Gives claimed messages back, one attempt more."""
        for id_, at in due.items():
            out, why = self._tables.outbox[id_], (problems or {}).get(id_)
            if (out.state, out.lessee) == ("queued", self._process):
                out.leased, out.hastened, out.due, out.problem = None, False, at or out.due, why or out.problem
                out.attempts += why != "peer.fetches"

    async def hasten(self, now: datetime, *, recipient: str | None = None, id_: UUID | None = None) -> int:
        """Makes queued messages that nobody holds due at `now`; how many."""
        found = [
            out
            for out in self._tables.outbox.values()
            if out.free(now) and recipient in (None, out.row.recipient) and id_ in (None, out.row.id)
        ]
        for out in found:
            out.due, out.hastened = min(out.due, now), True
        return len(found)

    async def take(self, id_: UUID, now: datetime, lease: datetime) -> Claimed | None:
        """Claims one queued message that nobody holds."""
        out = self._tables.outbox.get(id_)
        if out is None or not out.free(now):
            return None
        out.leased, out.lessee = lease, self._process
        return self._tables.claimed(out)

    async def release(self, *, own: bool) -> None:
        """Ends the leases of processes that are gone, and our own."""
        for out in self._tables.outbox.values():
            if out.leased and ((own and out.lessee == self._process) or out.lessee not in self._alive()):
                out.leased = None

    async def arrivals(self, keys: Sequence[tuple[str, UUID]]) -> Any:
        """What arrived before under (sender, id)."""
        return self._tables.arrivals(keys)

    async def backlog(self, sender: str, most: int) -> int:
        """How many of a sender's messages wait here."""
        waiting = sum(row.sender == sender and not row.dispatched for row in self._tables.inbox.values())
        return waiting + sum(row.sender == sender and row.answer is None for row in self._tables.relays.values())

    async def refusals_since(self, sender: str, since: datetime) -> int:
        """How many refusals a sender caused."""
        return sum(row.sender == sender and row.at >= since for row in self._tables.refusals.values())

    async def undispatched(self, count: int, types: Sequence[str], but: Sequence[UUID]) -> list[Arrived]:
        """Arrived messages that nobody dispatched, oldest first."""
        rows = [row for row in self._tables.inbox.values() if not row.dispatched and row.type in types]
        rows = sorted((row for row in rows if row.id not in but), key=lambda row: (row.origin, row.index))[:count]
        names = [each.name for each in fields(Arrived)]
        return [Arrived(**{name: getattr(row, name) for name in names}) for row in rows]

    async def proven(self, places: Sequence[tuple[str, int]]) -> list[ProofRow]:
        """Proofs kept of foreign entries at these places."""
        return [row for row in self._tables.proofs.values() if (row.origin, row.index) in places]

    async def keep_second(self, row: ProofRow) -> None:
        """Keeps another receipt of a message."""
        self._tables.proofs.setdefault((row.digest, row.origin, row.index), row)

    async def held(self, origin: str) -> Held:
        """The newest linked size, the unlinked ones, and the root of each."""
        seen = self._tables.seen[origin]
        linked = max((size for size, each in seen.items() if each.linked), default=0)
        unlinked = sorted(size for size, each in seen.items() if not each.linked)[: UNLINKED_MAX + 1]
        sizes = [*([linked] if linked else []), *unlinked]
        roots = {size: seen[size].checkpoint.root for size in sizes}
        return Held(linked=linked, roots={0: EMPTY_ROOT} | roots, unlinked=tuple(unlinked))

    async def keep(self, checkpoint: Checkpoint, *, at: datetime) -> None:
        """Keeps a checkpoint, unlinked; the same size again changes nothing."""
        self._tables.seen[checkpoint.origin].setdefault(checkpoint.size, Seen(checkpoint, at))

    async def keep_conflict(self, first: bytes, second: bytes, *, origin: str, at: datetime) -> None:
        """Keeps the two notes of a split view."""
        self._tables.split.setdefault(origin, (first, second))

    async def split(self) -> set[str]:
        """Origins whose two histories we hold."""
        return set(self._tables.split)

    async def link(self, origin: str, sizes: Sequence[int], *, newest: int) -> bool:
        """Marks sizes as linked, if `newest` is still the newest linked one; whether it was."""
        seen = self._tables.seen[origin]
        if newest != max((size for size, each in seen.items() if each.linked), default=0):
            return False
        for size in sizes:
            if size in seen:
                seen[size].linked = True
        return True

    async def foreign_note(self, origin: str, size: int | None = None) -> bytes | None:
        """The newest note of a foreign ledger, or that of a size."""
        seen = self._tables.seen[origin]
        found = seen.get(size if size is not None else max(seen, default=0))
        return found.checkpoint.note if found else None

    async def name(self, member: str, origin: str, sizes: Sequence[int]) -> None:
        """Remembers the sizes of our ledger that a member named last."""
        self._tables.named[member, origin] = tuple(sizes)

    async def named(self, member: str, origin: str) -> tuple[int, ...]:
        """The sizes that a member named last."""
        return self._tables.named.get((member, origin), ())

    async def answered(self, client: str, key: str) -> IdempotencyRow | None:
        """What a client was answered under a key."""
        return self._tables.answers.get((client, key))

    async def unlinked_since(self, before: datetime) -> list[str]:
        """Foreign ledgers with a checkpoint seen before a time and still not linked."""
        seen = self._tables.seen
        return [o for o, all_ in seen.items() if any(not each.linked and each.at < before for each in all_.values())]

    async def unlinked_members(self, origin: str) -> list[str]:
        """Members that named sizes of ours which they could not link."""
        return [member for (member, of), sizes in self._tables.named.items() if of == origin and len(sizes) > 1]


class MemoryRelays:
    """RelayStore."""

    def __init__(self, tables: Tables) -> None:
        self._relays = tables.relays

    def _change(self, digests: Collection[bytes], **changes: Any) -> None:
        for digest in digests:
            self._relays[digest] = replace(self._relays[digest], **changes)

    def _open(self, **members: Any) -> list[RelayRow]:
        wanted = members.items()
        rows = [row for row in self._relays.values() if row.answer is None]
        return [row for row in rows if all(getattr(row, name) == value for name, value in wanted)]

    async def due_relays(self, now: datetime) -> list[str]:
        """Recipients of parcels that are due."""
        return list(dict.fromkeys(row.recipient for row in self._open() if row.due <= now))

    async def claim_relays(
        self, recipient: str, now: datetime | None, again: datetime, count: int, bytes_max: int
    ) -> list[RelayRow]:
        """Parcels of one sender for a recipient; the one that goes over `bytes_max` is the last."""
        due = [row for row in self._open(recipient=recipient) if now is None or row.due <= now]
        due.sort(key=lambda row: (row.due, row.digest))
        taken, total = list[RelayRow](), 0
        for row in [row for row in due if row.sender == due[0].sender][:count]:
            if total > bytes_max:
                break
            total += len(row.post or b"")
            taken.append(replace(row, due=again))
        self._change([row.digest for row in taken], due=again)
        return taken

    async def relays(self, sender: str, digests: Sequence[bytes]) -> list[RelayRow]:
        """What we carry, or carried, of a sender, by digest."""
        return [
            replace(row, post=None) for row in self._relays.values() if row.sender == sender and row.digest in digests
        ]

    async def unanswered(self, sender: str, ids: Sequence[UUID]) -> list[RelayRow]:
        """What we carry of a sender under these ids and have no receipt of."""
        found = [row for row in self._relays.values() if (row.sender, row.answer) == (sender, None) and row.id in ids]
        return [replace(row, post=None) for row in found]

    async def refresh_relays(self, posts: Mapping[bytes, bytes]) -> None:
        """The same parcels with newer proofs and links."""
        for digest, post in posts.items():
            if self._relays[digest].answer is None:
                self._change([digest], post=post)

    async def blame_relays(self, problems: Mapping[bytes, str]) -> None:
        """Keeps what the recipient said instead of a receipt."""
        for digest, problem in problems.items():
            self._change([digest], problem=problem)

    async def blame_recipient(self, recipient: str, problem: str) -> None:
        """As `blame_relays`, all that waits for a recipient."""
        self._change([row.digest for row in self._open(recipient=recipient)], problem=problem)

    async def clear_relays(self, sender: str, problem: str, now: datetime) -> None:
        """A problem of a sender's parcels is over."""
        found = self._open(sender=sender, problem=problem)
        self._change([row.digest for row in found], problem=None, due=now)

    async def answer_relays(self, answers: Mapping[bytes, bytes]) -> None:
        """Keeps the recipient's receipts; the parcels go."""
        for digest, answer in answers.items():
            self._change([digest], answer=answer, post=None)


class MemoryThreads:
    """ThreadStore, as far as sealing again needs it."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def content(self, sender: str, id_: UUID) -> list[ContentRow]:
        """Content at rest of one message."""
        return [row for (of, about, _), row in self._tables.content.items() if (of, about) == (sender, id_)]
