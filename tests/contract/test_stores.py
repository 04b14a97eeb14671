"""What PostgreSQL and the memory store of the simulation both do: one suite for the port that has two implementations."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from adapters.postgres.connect import Pool
from adapters.postgres.embedded import EmbeddedServer
from adapters.postgres.exchange import PostgresExchange
from adapters.postgres.ledger import PostgresLedger
from adapters.postgres.relays import PostgresRelays
from adapters.postgres.threads import PostgresThreads
from protocols.ledger.checkpoint import Checkpoint
from protocols.ledger.merkle import EMPTY_ROOT
from protocols.limits import UNLINKED_MAX
from protocols.ports.rows import (
    ContentRow,
    EventRow,
    IdempotencyRow,
    InboxRow,
    OutboxRow,
    ProofRow,
    RefusalRow,
    RelayRow,
    Resealing,
    SealedRow,
)
from protocols.ports.store import DataError, Wanted, Writes
from protocols.thread import Leg
from tests.federation import give_back, new_database
from tests.simulation.store import MemoryExchange, MemoryLedger, MemoryRelays, MemoryThreads, Tables

NOW, US, PEER, OTHER = datetime(2026, 11, 2, 9, tzinfo=UTC), "net/us", "net/peer", "net/other"
ORIGIN, THEIRS = f"{US}/2026.1", f"{PEER}/2026.1"
MINUTE = timedelta(minutes=1)


@dataclass
class Store:
    """One implementation, by its ports."""

    ledger: Any
    exchange: Any
    relays: Any
    threads: Any
    give_all: Callable[[str], Awaitable[Any]]  # makes another process hold what is held

    async def write(self, *rows: Any, entries: int = 0, **more: Any) -> UUID:
        """One batch with as many entries as it names; its id."""
        async with self.ledger.batch(ORIGIN) as batch:
            size = batch.head.size + entries
            data = [b'{"n":%d}' % n for n in range(batch.head.size, size)]
            checkpoint = Checkpoint(origin=ORIGIN, size=size, root=bytes([size] * 32), note=b"note %d" % size)
            given = {"entries": data, "tiles": {(0, 0): b"tile" * size}, "checkpoint": checkpoint} if entries else {}
            writes = Writes(batch=id_(900 + size), at=NOW, old_size=batch.head.size, rows=list(rows), **given, **more)
            await batch.write(writes)
        return writes.batch


@pytest.fixture(params=["postgres", "memory"])
async def store(request: pytest.FixtureRequest, postgres: EmbeddedServer) -> AsyncIterator[Store]:
    if request.param == "memory":
        tables = Tables("1")
        ledger = MemoryLedger(tables)
        await ledger.make_head(ORIGIN, EMPTY_ROOT)
        exchange = MemoryExchange(tables, "process", lambda: {"process"})

        async def give_all(process: str) -> None:
            for each in tables.outbox.values():
                each.lessee = process

        yield Store(ledger, exchange, MemoryRelays(tables), MemoryThreads(tables), give_all)
        return
    name, dsn = await new_database(postgres)
    pool = await Pool.open(dsn)
    ledger = PostgresLedger(dsn, pool)
    await ledger.make_head(ORIGIN, EMPTY_ROOT)
    give_all = partial(pool.execute, "UPDATE outbox SET lessee = $1")
    yield Store(ledger, PostgresExchange(pool), PostgresRelays(pool), PostgresThreads(pool, US), give_all)
    await ledger.close()
    await pool.close()
    give_back(postgres, name, dsn)


def id_(n: int) -> UUID:
    return UUID(int=n)


def out(n: int, **changes: Any) -> OutboxRow:
    """A message that is due at once; `index` is its entry."""
    given: dict[str, Any] = {
        "id": id_(n), "thread": id_(n), "recipient": PEER, "type": "trace.request", "created": NOW, "expires": NOW + MINUTE,
        "urgent": False, "pair_seq": 1, "origin": ORIGIN, "index": 0, "digest": b"d%d" % n, "content_c": b"c", "kid": "k",
        "seal_kid": "s", "actor": "a", "envelope": b"0123456789", "due": NOW,
    }  # fmt: skip
    return OutboxRow(**given | changes)


def inbox(n: int, **changes: Any) -> InboxRow:
    given: dict[str, Any] = {
        "sender": PEER, "id": id_(n), "thread": id_(n), "type": "trace.request", "received": NOW, "origin": ORIGIN,
        "index": n, "digest": b"d", "content_c": b"c",
    }  # fmt: skip
    return InboxRow(**given | changes)


def relay(n: int, **changes: Any) -> RelayRow:
    given: dict[str, Any] = {
        "digest": b"r%d" % n, "sender": PEER, "id": id_(n), "recipient": OTHER, "at": NOW, "expires": NOW + MINUTE,
        "origin": ORIGIN, "index": 0, "post": b"0123456789", "due": NOW,
    }  # fmt: skip
    return RelayRow(**given | changes)


def leg(thread: int, counterpart: str, state: str = "SENT") -> Leg:
    return Leg(
        thread=id_(thread), counterpart=counterpart, role="asker", kind="trace.request", state=state, version=1,
        request=id_(thread), opened=NOW, updated=NOW, messages=1, hop=0,
    )  # fmt: skip


def numbers(rows: Any) -> list[int]:
    return [row.id.int for row in rows]


# ---- the batch


async def test_a_batch_is_there_whole_and_what_failed_in_it_is_not(store: Store) -> None:
    batch = await store.write(out(1), entries=2)
    assert await store.ledger.find_batch(ORIGIN, batch)
    assert not await store.ledger.find_batch(ORIGIN, id_(5))
    assert await store.ledger.entries(ORIGIN, 0, 9) == [b'{"n":0}', b'{"n":1}']
    assert (await store.ledger.checkpoint(ORIGIN)).size == (await store.ledger.checkpoint(ORIGIN, 2)).size == 2
    assert await store.ledger.checkpoint(ORIGIN, 1) is None
    assert await store.ledger.tiles(ORIGIN, [(0, 0), (0, 1)]) == {(0, 0): b"tiletile"}
    with suppress(ZeroDivisionError):
        async with store.ledger.batch(ORIGIN) as open_:
            assert (open_.head.size, open_.head.root, open_.head.generation) == (2, bytes([2] * 32), 1)
            assert await open_.note() == b"note 2"
            await open_.write(Writes(batch=id_(7), at=NOW, old_size=2, rows=[out(2)]))
            raise ZeroDivisionError
    async with store.ledger.batch(ORIGIN) as open_:
        assert (await open_.standing(Wanted(outbox={id_(1), id_(2)}))).outbox == {id_(1): "queued"}


@pytest.mark.parametrize(
    "row",
    [
        out(1), inbox(1), relay(1),
        RefusalRow(sender=PEER, id=id_(1), digest=b"d", kind="refused", code="c", cause="c", at=NOW, origin=ORIGIN, index=0),
        ContentRow(sender=US, id=id_(1), part="", thread=id_(1), generation=1, wrapped=b"w", sealed=b"s"),
        IdempotencyRow(client="c", key="k", digest=b"d", answer=b"a", at=NOW),
    ],
    ids=lambda row: type(row).__name__,
)  # fmt: skip
async def test_a_key_is_taken_once(store: Store, row: Any) -> None:
    with pytest.raises(DataError):
        await store.write(row, row)
    await store.write(row)
    with pytest.raises(DataError):
        await store.write(out(8), row)
    assert await store.exchange.take(id_(8), NOW, NOW) is None


async def test_a_proof_may_come_twice_and_events_have_no_key(store: Store) -> None:
    proof = ProofRow(peer=PEER, id=id_(1), digest=b"d", origin=THEIRS, index=4, size=9, path=b"", entry=b"e")
    event = EventRow(at=NOW, kind="sent", thread=id_(1), counterpart=PEER, message=id_(1))
    await store.write(proof, event, event)
    await store.write(proof)
    assert await store.exchange.proven([(THEIRS, 4), (THEIRS, 5)]) == [proof]


async def test_what_stands_is_told_by_key_and_of_a_thread_every_leg(store: Store) -> None:
    answered = IdempotencyRow(client="c", key="k", digest=b"d", answer=b"a", at=NOW)
    legs = {(each.thread, each.counterpart): each for each in (leg(1, PEER), leg(1, OTHER), leg(2, PEER))}
    await store.write(answered, inbox(3), relay(4), legs=legs, pairs={PEER: 7})
    wanted = Wanted(
        idempotency={("c", "k"), ("c", "l")}, arrivals={(PEER, id_(3)), (OTHER, id_(3))}, legs={(id_(1), PEER)},
        pairs={PEER, OTHER}, relays={b"r4", b"r5"},
    )  # fmt: skip
    async with store.ledger.batch(ORIGIN) as batch:
        found = await batch.standing(wanted)
    assert found.idempotency == {("c", "k"): answered}
    assert (found.inbox, found.refusals) == ({(PEER, id_(3)): inbox(3)}, {})
    assert set(found.legs) == {(id_(1), PEER), (id_(1), OTHER)}
    assert (found.pairs, found.relays) == ({PEER: 7}, {b"r4": relay(4)})
    await store.write(legs={(id_(1), PEER): leg(1, PEER, "ANSWERED")}, pairs={PEER: 8}, dispatched=[(PEER, id_(3))])
    async with store.ledger.batch(ORIGIN) as batch:
        found = await batch.standing(wanted)
    assert found.legs[id_(1), PEER].state == "ANSWERED"
    assert (found.pairs, found.inbox[PEER, id_(3)].dispatched) == ({PEER: 8}, True)
    assert await store.exchange.answered("c", "k") == answered
    assert await store.exchange.answered("c", "l") is None


# ---- the outbox


async def test_urgent_and_oldest_are_claimed_first_within_bounds_and_by_nobody_twice(store: Store) -> None:
    rows = [out(1, due=NOW + MINUTE), out(2), out(3, due=NOW - MINUTE), out(4, urgent=True), out(5, recipient=OTHER)]
    await store.write(*rows, entries=1)
    exchange = store.exchange
    assert await exchange.due_peers(NOW) == {PEER: True, OTHER: False}
    first = await exchange.claim(PEER, NOW, NOW + MINUTE, 9, 25)
    assert numbers(first) == [4, 3]
    assert (first[0].entry, first[0].envelope, first[0].attempts) == (b'{"n":0}', b"0123456789", 0)
    assert numbers(await exchange.claim(PEER, NOW, NOW + MINUTE, 1, 99)) == [2]
    assert await exchange.claim(PEER, NOW, NOW + MINUTE, 9, 99) == []
    assert await exchange.due_peers(NOW) == {OTHER: False}
    assert numbers(await exchange.claim(PEER, NOW + 2 * MINUTE, NOW + 3 * MINUTE, 9, 99)) == [4, 3, 2, 1], "leases end"


async def test_what_is_given_back_waits_its_time_unless_it_is_hastened(store: Store) -> None:
    await store.write(out(1), out(2), out(3, urgent=True), entries=1)
    exchange = store.exchange
    await exchange.claim(PEER, NOW, NOW + MINUTE, 9, 99)
    await exchange.postpone({id_(1): NOW + MINUTE, id_(2): NOW + MINUTE}, {id_(1): "peer.fetches"})
    assert await exchange.hasten(NOW, id_=id_(3)) == 0, "it is held"
    await exchange.postpone({id_(3): None})  # where it stood
    assert await exchange.due_peers(NOW) == {PEER: False}, "urgent, but tried"
    assert await exchange.hasten(NOW, id_=id_(1)) == 1
    assert await exchange.hasten(NOW, recipient=OTHER) == 0
    assert await exchange.due_peers(NOW) == {PEER: True}
    claimed = await exchange.claim(PEER, NOW, NOW + MINUTE, 9, 99)
    assert [(each.id.int, each.attempts) for each in claimed] == [(3, 1), (1, 0)], "one that fetches was not tried"
    await exchange.release(own=True)
    taken = await exchange.take(id_(2), NOW, NOW + MINUTE)
    assert (taken.id, taken.attempts) == (id_(2), 1)
    assert await exchange.take(id_(2), NOW, NOW + MINUTE) is None
    await exchange.release(own=False)
    assert await exchange.take(id_(2), NOW, NOW + MINUTE) is None, "we are alive"
    assert numbers(await exchange.claim(PEER, NOW, NOW + MINUTE, 9, 99)) == [3, 1]


async def test_what_another_process_holds_by_now_is_given_back_by_nobody_else(store: Store) -> None:
    await store.write(out(1), entries=1)
    exchange = store.exchange
    await exchange.claim(PEER, NOW, NOW, 9, 99)
    await store.give_all("another")  # it claimed after our lease had ended
    await exchange.postpone({id_(1): NOW + MINUTE}, {id_(1): "peer.unreachable"})
    await exchange.release(own=False)  # whose session is nowhere
    (claimed,) = await exchange.claim(PEER, NOW, NOW + MINUTE, 9, 99)
    assert claimed.attempts == 0


async def test_what_is_offered_is_not_claimed_and_the_least_offered_comes_first(store: Store) -> None:
    await store.write(out(1), out(2), out(3, urgent=True), entries=1)
    exchange = store.exchange
    await exchange.claim(PEER, NOW, NOW + MINUTE, 1, 99)
    assert numbers(await exchange.offer(PEER, 2, 99)) == [3, 1]
    again = await exchange.offer(PEER, 9, 25)
    assert [(each.id.int, each.attempts) for each in again] == [(3, 2), (2, 1)]


async def test_what_is_settled_is_over_and_what_was_given_up_can_still_be(store: Store) -> None:
    await store.write(out(1), out(2), out(3), entries=2)
    new = Resealing(
        id=id_(3), origin=ORIGIN, index=1, pair_seq=7, digest=b"new", seal_kid="t", envelope=b"sealed again"
    )
    before = SealedRow(id=id_(3), digest=b"d3", origin=ORIGIN, index=0)
    states = [(id_(1), "delivered", None), (id_(2), "undelivered", "expired")]
    await store.write(before, settled=states, resealed=[new])
    exchange = store.exchange
    ids = [id_(n) for n in (1, 2, 3, 4)]
    left = await exchange.unsettled(PEER, ids)
    assert sorted(numbers(left)) == [2, 3]
    assert {each.id.int: each.envelope for each in left} == {2: b"", 3: b"sealed again"}
    assert await exchange.unsettled(OTHER, ids) == []
    assert await exchange.sealed(ids) == [before]
    (claimed,) = await exchange.claim(PEER, NOW, NOW + MINUTE, 9, 99)
    assert (claimed.id, claimed.digest, claimed.seal_kid, claimed.entry) == (id_(3), b"new", "t", b'{"n":1}')
    assert claimed.pair_seq == 7, "in another ledger it has another number"
    await exchange.postpone({id_(1): NOW})
    assert await exchange.due_peers(NOW) == {}


# ---- what came, and what we hold of others


async def test_arrivals_are_counted_and_handed_out_oldest_first(store: Store) -> None:
    gone = RefusalRow(
        sender=PEER, id=id_(9), digest=b"x", kind="refused", code="c", cause="c", at=NOW, origin=ORIGIN, index=0
    )
    await store.write(inbox(2), inbox(1), inbox(3, type="trace.response"), inbox(4, sender=OTHER), gone)
    exchange = store.exchange
    found, refusals = await exchange.arrivals([(PEER, id_(1)), (PEER, id_(9))])
    assert (found, refusals) == ({(PEER, id_(1)): inbox(1)}, {(PEER, id_(9)): [gone]})
    assert numbers(await exchange.undispatched(9, ["trace.request"], [id_(4)])) == [1, 2]
    assert numbers(await exchange.undispatched(1, ["trace.request", "trace.response"], [])) == [1]
    assert await exchange.backlog(PEER, 9) == 3
    assert await exchange.refusals_since(PEER, NOW) == 1
    assert await exchange.refusals_since(PEER, NOW + MINUTE) == 0
    await store.write(dispatched=[(PEER, id_(1))])
    assert numbers(await exchange.undispatched(9, ["trace.request"], [])) == [2, 4]


async def test_checkpoints_of_others_are_linked_onwards_alone(store: Store) -> None:
    exchange = store.exchange
    assert (await exchange.held(THEIRS)).roots == {0: EMPTY_ROOT}
    for size in (3, 5, 9):
        seen = Checkpoint(origin=THEIRS, size=size, root=bytes([size] * 32), note=b"%d" % size)
        await exchange.keep(seen, at=NOW)
        await exchange.keep(replace(seen, note=b"another"), at=NOW + MINUTE)
    assert [await exchange.foreign_note(THEIRS, size) for size in (None, 3, 4)] == [b"9", b"3", None]
    assert await exchange.link(THEIRS, [3, 5], newest=0)
    assert not await exchange.link(THEIRS, [9], newest=3)
    held = await exchange.held(THEIRS)
    assert (held.linked, held.unlinked, held.roots[5], sorted(held.roots)) == (5, (9,), bytes([5] * 32), [0, 5, 9])
    assert await exchange.unlinked_since(NOW + MINUTE) == [THEIRS]
    assert await exchange.unlinked_since(NOW) == []
    await exchange.link(THEIRS, [9], newest=5)
    assert await exchange.unlinked_since(NOW + MINUTE) == []
    for size in range(20, 24 + UNLINKED_MAX):
        await exchange.keep(Checkpoint(origin=THEIRS, size=size, root=bytes(32), note=b""), at=NOW)
    assert len((await exchange.held(THEIRS)).unlinked) == UNLINKED_MAX + 1


async def test_of_two_that_go_on_from_one_size_one_is_linked(store: Store) -> None:
    exchange = store.exchange
    for turn in range(20):
        newest, sizes = (await exchange.held(THEIRS)).linked, (10 * turn + 5, 10 * turn + 7)
        for size in sizes:
            await exchange.keep(Checkpoint(origin=THEIRS, size=size, root=bytes([size] * 32), note=b""), at=NOW)
        done = await asyncio.gather(*(exchange.link(THEIRS, [size], newest=newest) for size in sizes))
        assert sorted(done) == [False, True], "two processes of a node must not follow two histories"


async def test_what_members_said_of_our_ledger_and_contradictions_of_theirs_are_remembered(store: Store) -> None:
    exchange = store.exchange
    assert await exchange.named(PEER, ORIGIN) == ()
    await exchange.name(PEER, ORIGIN, (0,))
    assert await exchange.unlinked_members(ORIGIN) == []
    await exchange.name(PEER, ORIGIN, (4, 9))
    assert (await exchange.named(PEER, ORIGIN), await exchange.unlinked_members(ORIGIN)) == ((4, 9), [PEER])
    assert await exchange.split() == set()
    for _ in range(2):
        await exchange.keep_conflict(b"1", b"2", origin=THEIRS, at=NOW)
    assert await exchange.split() == {THEIRS}


async def test_content_is_found_by_message(store: Store) -> None:
    row = ContentRow(sender=US, id=id_(1), part="", thread=id_(1), generation=1, wrapped=b"w", sealed=b"s")
    await store.write(row, replace(row, id=id_(2)))
    assert await store.threads.content(US, id_(1)) == [row]


# ---- what a hub carries


async def test_a_hub_claims_parcels_of_one_sender_at_a_time(store: Store) -> None:
    rows = [
        relay(1),
        relay(2, due=NOW - MINUTE),
        relay(3, sender=US),
        relay(4),
        relay(5, recipient=US, due=NOW + MINUTE),
    ]
    await store.write(*rows)
    relays = store.relays
    assert await relays.due_relays(NOW) == [OTHER]
    assert await relays.claim_relays("net/nobody", None, NOW, 9, 99) == []
    first = await relays.claim_relays(OTHER, NOW, NOW + 2 * MINUTE, 9, 15)
    assert [(each.id.int, each.due) for each in first] == [(2, NOW + 2 * MINUTE), (1, NOW + 2 * MINUTE)]
    (second,) = await relays.claim_relays(OTHER, NOW, NOW + MINUTE, 1, 99)
    third = await relays.claim_relays(OTHER, NOW, NOW + MINUTE, 9, 99)
    assert sorted([second.id.int, *numbers(third)]) == [3, 4]
    assert await relays.due_relays(NOW) == []
    assert numbers(await relays.claim_relays(US, None, NOW + MINUTE, 9, 99)) == [5]


async def test_what_a_hub_was_told_of_its_parcels_stays(store: Store) -> None:
    await store.write(relay(1), relay(2), relay(3, recipient=US))
    relays = store.relays

    async def one(n: int) -> RelayRow:
        (row,) = await relays.relays(PEER, [b"r%d" % n])
        return row

    await relays.refresh_relays({b"r1": b"newer"})
    await relays.blame_relays({b"r1": "msg.overtook"})
    await relays.answer_relays({b"r2": b"receipt"})
    await relays.refresh_relays({b"r2": b"newer"})
    assert ((await one(1)).post, (await one(1)).problem) == (None, "msg.overtook"), "here without the parcels"
    assert [each.post for each in await relays.claim_relays(OTHER, None, NOW, 9, 99)] == [b"newer"]
    assert ((await one(2)).post, (await one(2)).answer) == (None, b"receipt")
    assert numbers(await relays.unanswered(PEER, [id_(1), id_(2)])) == [1]
    assert await relays.unanswered(OTHER, [id_(1)]) == []
    await relays.blame_recipient(OTHER, "msg.blob_missing")
    assert [(await one(n)).problem for n in (1, 2, 3)] == ["msg.blob_missing", None, None]
    await relays.clear_relays(PEER, "msg.blob_missing", NOW + MINUTE)
    assert ((await one(1)).problem, (await one(1)).due) == (None, NOW + MINUTE)
    assert await store.exchange.backlog(PEER, 9) == 2
