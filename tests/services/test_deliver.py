"""Deliver: retried until a good receipt or the expiry ends it; nothing but proof does; one bad peer delays no other."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from gateway.services.changes import Settled
from gateway.services.register import import_register
from protocols.directory import Position
from protocols.exchange.lines import Parcel, Post, ProblemLine, Receipt, encode_post, parse_post
from protocols.ledger.entry import Entry, PeerRef, parse_entry
from protocols.ports.store import Unavailable
from protocols.problems import ProblemError
from tests.federation import (
    Federation,
    Json,
    Node,
    Stranger,
    match_ledgers,
    trace_request,
    unreachable,
    verify_ledger,
    wait_until,
)  # fmt: skip

BOTH_POST_S = float(os.environ.get("TRACEWIRE_BOTH_POST_S", "5"))  # 60 for the whole minute
Send = Callable[[], Awaitable[bytes]]


async def posts_of(node: Node, count: int) -> None:
    """Waits until a node has made so many POSTs."""

    async def made() -> bool:
        return len(node.wire.posts) >= count

    await wait_until(made)


# ---- lost answers, both at once


async def test_an_answer_that_was_lost_is_given_again_and_nothing_stands_twice(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    answers: list[bytes] = []

    async def lost_twice(peer: str, body: bytes, send: Send) -> bytes:
        answers.append(await send())
        if len(answers) <= 2:
            raise ProblemError("peer.unreachable", "the answer was lost")
        return answers[-1]

    a.wire.hook = lost_twice
    sent = await a.trace(b)
    await a.becomes(sent, "delivered")
    receipts = {item.place.entry for answer in answers for item in parse_post(answer, answer=True).items}
    assert (len(answers), len(receipts), await b.count("inbox")) == (3, 1, 1)
    await match_ledgers(a, b)
    assert (await a.kinds(), await b.kinds()) == (["ledger-opened", "sent", "receipt"], ["ledger-opened", "received"])
    assert await a.leg(sent) == "DELIVERED"


async def test_both_sides_posting_at_once_waste_no_post(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    end = asyncio.get_running_loop().time() + BOTH_POST_S

    async def submitting(node: Node, to: Node) -> list[Json]:
        sent = []
        while asyncio.get_running_loop().time() < end:
            sent += await asyncio.gather(*(node.trace(to) for _ in range(4)))
        return sent

    sent = await asyncio.gather(*(submitting(x, y) for x in (a, b) for y in (a, b) if x is not y for _ in range(2)))
    for node, mine in ((a, sent[0] + sent[1]), (b, sent[2] + sent[3])):
        await node.becomes(mine[-1], "delivered", 30)
        ids = [UUID(each["id"]) for each in mine]
        query = "SELECT count(*) AS n FROM outbox WHERE id = ANY($1) AND state = 'delivered'"

        async def all_delivered(node: Node = node, ids: list[UUID] = ids, query: str = query) -> bool:
            return (await node.sql(query, ids))["n"] == len(ids)

        await wait_until(all_delivered, 30)
        assert await node.count("outbox", "attempts > 0") == 0, "nobody had to retry"
    parcels = 0
    for node in (a, b):
        for _, body, answer in node.wire.posts:
            assert isinstance(answer, bytes), answer
            items = parse_post(answer, answer=True).items
            assert all(isinstance(item, Receipt) for item in items)
            assert len(items) == len(parse_post(body, answer=False).items)
            parcels += len(items)
    assert parcels == sum(map(len, sent)) > 20
    assert not a.parts.linking.alarms
    assert not b.parts.linking.alarms
    await match_ledgers(a, b)


async def test_what_a_killed_node_had_claimed_is_sent_as_soon_as_it_is_back(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    taken = asyncio.Event()

    async def hang(peer: str, body: bytes, send: Send) -> bytes:
        await send()
        taken.set()
        await asyncio.Event().wait()
        raise AssertionError

    a.wire.hook = hang
    sent = await a.trace(b)
    await taken.wait()
    await a.kill()
    await a.sql("UPDATE outbox SET leased = now() + interval '2 minutes'")  # this kill let it give back its claims
    await a.start()
    await a.becomes(sent, "delivered")
    assert await b.count("inbox") == 1
    await match_ledgers(a, b)


@pytest.mark.parametrize(("call", "when"), [("name", "before"), ("claim", "after"), ("postpone", "before")])
async def test_what_a_failing_store_left_claimed_is_sent_again_long_before_its_lease_ends(
    fed: Federation, call: str, when: str
) -> None:
    class Failing:
        """A store that fails once in one call."""

        def __init__(self, real: Any) -> None:
            self.real, self.failed = real, False

        def __getattr__(self, name: str) -> Any:
            real = getattr(self.real, name)
            if name != call or self.failed:
                return real

            async def fail(*args: Any) -> Any:
                self.failed = True
                if when == "after":
                    await real(*args)
                raise Unavailable("made by the test")

            return fail

    a, b = await fed.nodes("a", "b")
    await a.stop()
    made: list[Failing] = []

    def wrap(ports: Any) -> None:
        made.append(Failing(ports.exchange))
        ports.exchange = made[0]

    a.wraps.append(wrap)
    await a.start()
    a.wire.hook = unreachable if call == "postpone" else None
    sent = await a.trace(b)

    async def failed() -> bool:
        return made[0].failed

    await wait_until(failed)
    a.wire.hook = None
    await a.becomes(sent, "delivered")
    await match_ledgers(a, b)


# ---- receipts


def change_peer(receipt: Stranger, parcel: Parcel, **changes: Any) -> Receipt:
    entry = parse_entry(receipt.receipt(parcel).place.entry)
    assert entry.peer is not None
    return receipt.receipt(parcel, peer=replace(entry.peer, **changes))


FORGED: dict[str, Callable[[Stranger, Parcel], Receipt]] = {
    "another id": lambda m, p: m.receipt(p, id=UUID("01a2058a-4186-7126-8d50-d08ecb4c4b03")),
    "another envelope": lambda m, p: m.receipt(p, envelope=bytes(32)),
    "another content": lambda m, p: m.receipt(p, content_c=bytes(32)),
    "another sender": lambda m, p: m.receipt(p, sender="testnet/x"),
    "another recipient": lambda m, p: m.receipt(p, recipient="testnet/x"),
    "another leaf of ours": lambda m, p: change_peer(m, p, leaf=bytes(32)),
    "another index of ours": lambda m, p: change_peer(m, p, index=0),
    "another ledger of ours": lambda m, p: change_peer(m, p, origin="testnet/a/2025.1"),
    "another number": lambda m, p: m.receipt(p, pair_seq=777),
    "another thread": lambda m, p: m.receipt(p, thread_c=bytes(32)),
    "another key of ours": lambda m, p: m.receipt(p, kid="A" * 43),
    "kind sent": lambda m, p: m.receipt(p, kind="sent", peer=None, actor_c=bytes(32)),
    "a path that does not hold": lambda m, p: Receipt(place=replace(m.receipt(p).place, index=0)),
    "a checkpoint that is not there": lambda m, p: Receipt(place=replace(m.receipt(p).place, size=99)),
}


async def test_a_receipt_that_does_not_prove_exactly_our_entry_in_the_recipients_ledger_leaves_it_queued(
    fed: Federation,
) -> None:
    (a,) = await fed.nodes("a")
    m, other = await fed.strangers("m", "n")
    faults = list(FORGED.items())
    seen: list[str] = []

    def answer(parcel: Parcel) -> Any:
        if len(seen) < len(faults):
            name, make = faults[len(seen)]
            seen.append(name)
            return make(m, parcel)
        if len(seen) == len(faults):
            seen.append("a problem that nothing proves")
            return ProblemLine(code="schema.invalid", detail="never again, it says")
        return m.receipt(parcel)

    async def hook(peer: str, body: bytes, send: Send) -> bytes:
        if seen and seen[-1] == "a problem that nothing proves":
            seen.append("another member's ledger")
            (parcel,) = parse_post(body, answer=False).items
            item = other.receipt(parcel, recipient=m.name)
            notes = {(other.origin, item.place.size): other.note()}
            return encode_post(Post(hello=parse_post(body, answer=False).hello, checkpoints=notes, items=(item,)))
        assert await a.delivery(sent) == "queued", seen[-1:]
        return await m.answering(answer)(peer, body, send)

    a.wire.hook = unreachable
    sent = await a.trace(m)
    a.wire.hook = hook
    await a.becomes(sent, "delivered")
    assert len(seen) == len(FORGED) + 2
    assert await a.kinds() == ["ledger-opened", "sent", "receipt"]
    await verify_ledger(a)


@pytest.mark.parametrize(
    ("kind", "changes", "state", "leg"),
    [
        ("refused", {"code": "schema.invalid", "read": True}, "refused", "FAILED"),
        ("id_conflict", {"first": PeerRef(origin="testnet/m/2026.1", index=1)}, "conflict", "FAILED"),
    ],
)
async def test_a_proven_refusal_or_conflict_ends_the_retries(
    fed: Federation, kind: str, changes: Json, state: str, leg: str
) -> None:
    (a,) = await fed.nodes("a")
    (m,) = await fed.strangers("m")
    absent = dict.fromkeys(("kid", "seal_kid", "suite", "thread_c"))
    a.wire.hook = m.answering(lambda parcel: m.receipt(parcel, kind=kind, **absent, **changes))
    sent = await a.trace(m)
    await a.becomes(sent, state)
    assert (await a.leg(sent), len(a.wire.posts)) == (leg, 1)
    assert await a.count("outbox", "envelope IS NOT NULL") == 0, "the envelope goes with the receipt"
    assert (await a.entries())[-1].code == changes.get("code")
    (shown,) = await a.read._store.messages(UUID(sent["thread"]))
    assert (shown.delivery, shown.problem) == (state, changes.get("code")), "whoever sent it reads why"


async def test_an_answer_that_is_not_one_line_a_parcel_or_not_ours_to_read_settles_nothing(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    faults = [b"", b"<html>", b'{"t":"hello"}\n', b'{"t":"hello","v":1,"dir":1,"held":{},"links":{}}\n']

    async def hook(peer: str, body: bytes, send: Send) -> bytes:
        return faults.pop() if faults else await send()

    a.wire.hook = hook
    sent = await a.trace(b)
    await a.becomes(sent, "delivered")
    assert len(a.wire.posts) == 5
    await match_ledgers(a, b)


# ---- the end of the retries


async def test_after_the_expiry_one_last_post_asks_then_it_is_undelivered(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    a.wire.hook = unreachable
    sent = await a.trace(b)
    await posts_of(a, 2)
    assert await a.delivery(sent) == "queued"
    fed.clock.ahead += timedelta(days=31)
    await fed.refresh()
    await a.becomes(sent, "undelivered")
    entry = (await a.entries())[-1]
    assert (entry.kind, entry.code, entry.peer) == ("undelivered", "expired", None)
    assert (await a.leg(sent), await a.count("outbox", "envelope IS NULL")) == ("FAILED", 1)
    made = len(a.wire.posts)
    assert await a.parts.deliver.deliver(b.name) is False
    assert len(a.wire.posts) == made, "nobody is asked any more"


async def test_a_message_that_expires_while_a_post_hangs_is_asked_for_once_more(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    arrived = asyncio.Event()

    async def lose_the_first(peer: str, body: bytes, send: Send) -> bytes:
        if arrived.is_set():
            return await send()
        await send()
        arrived.set()
        fed.clock.ahead += timedelta(days=31)
        await fed.refresh()
        raise ProblemError("peer.unreachable", "the answer was lost")

    a.wire.hook = lose_the_first
    sent = await a.trace(b)
    await arrived.wait()
    await a.becomes(sent, "delivered")
    assert len(a.wire.posts) == 2
    await match_ledgers(a, b)


async def test_a_receipt_that_comes_after_undelivered_supersedes_it_and_the_thread_goes_on(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    asked, release = asyncio.Event(), asyncio.Event()

    async def late(peer: str, body: bytes, send: Send) -> bytes:
        answer = await send()
        asked.set()
        await release.wait()
        return answer

    a.wire.hook = late
    sent = await a.trace(b)
    await asked.wait()
    (logged,) = [entry for entry in await a.entries() if entry.kind == "sent"]
    row = await a.sql("SELECT * FROM outbox")
    given_up = Entry(
        kind="undelivered", at=fed.clock.now(), n=bytes(16), id=row["id"], sender=a.name, recipient=b.name,
        pair_seq=row["pair_seq"], envelope=row["digest"], content_c=row["content_c"], code="expired", dir=logged.dir,
    )  # fmt: skip
    await a.parts.committer.commit(
        Settled(
            entry=given_up, id=row["id"], thread=row["thread"], recipient=b.name, state="undelivered",
            at=given_up.at, proof=None,
        )
    )  # fmt: skip
    assert (await a.delivery(sent), await a.leg(sent)) == ("undelivered", "FAILED")
    release.set()
    await a.becomes(sent, "delivered")
    assert await a.kinds() == ["ledger-opened", "sent", "undelivered", "receipt"]
    assert await a.leg(sent) == "DELIVERED"
    await match_ledgers(a, b)


async def test_a_message_whose_signing_key_was_revoked_is_never_sent(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    a.wire.hook = unreachable
    sent = await a.trace(b)
    await posts_of(a, 1)
    kid = a.keys.signer("message").kid
    position = Position(origin=a.origin, size=1)
    source = a._ports.directory
    current = source.current
    assert current is not None
    key = replace(current.message_keys[kid], revoked=position)
    source._current = replace(current, message_keys={**current.message_keys, kid: key})  # type: ignore[attr-defined]
    a.wire.hook = None
    await a.becomes(sent, "undelivered")
    assert (await a.entries())[-1].code == "key.revoked"
    assert await b.count("inbox") == 0
    assert {answer for _, _, answer in a.wire.posts} == {"peer.unreachable"}


# ---- a stale directory, a bad peer


async def test_a_directory_beyond_its_grace_holds_submissions_and_parcels_until_it_is_fresh(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    (m,) = await fed.strangers("m")
    fed.clock.ahead += timedelta(days=5)
    before = len(a.wire.posts)
    sent = await a.trace(b)
    assert await a.parts.deliver.deliver(b.name) is False
    assert (await a.delivery(sent), len(a.wire.posts)) == ("queued", before), "accepted and held"
    client = m.client()
    body = encode_post(m.post_of(m.parcel(b)))
    with pytest.raises(ProblemError) as caught:
        await client.post(fed.directory.records[b.name], body)
    assert caught.value.code == "dir.stale"
    await client.close()
    assert await b.kinds() == ["ledger-opened"]
    await fed.refresh()
    await a.becomes(sent, "delivered")
    await match_ledgers(a, b)


async def test_a_peer_that_hangs_delays_no_other(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    (m,) = await fed.strangers("m")
    hanging = asyncio.Event()

    async def hook(peer: str, body: bytes, send: Send) -> bytes:
        if peer == m.name:
            hanging.set()
            await asyncio.Event().wait()
        return await send()

    a.wire.hook = hook
    stuck = [await a.trace(m) for _ in range(3)]
    await hanging.wait()
    for _ in range(5):
        await a.becomes(await a.trace(b), "delivered", 3)
    assert [await a.delivery(each) for each in stuck] == ["queued"] * 3


# ---- content at rest, the built-in registry


async def test_no_plaintext_of_a_message_stands_in_the_database_and_it_opens_again(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b", registry=True)
    canary, person = "CANARY7731", "Canary Person"
    register = f"ref,serial,make\nr1,{canary},Glock\nr2,{canary},Glock\n"
    await import_register(register.encode(), b._ports.registry)
    body = trace_request(canary) | {"persons": {"part": "persons"}}
    part = {"persons": [{"role": {"code": "SUSPECT", "raw": ""}, "name": person}]}
    sent = await a.send(a.draft(b, body=body, parts={"persons": part}))
    await a.leg_becomes(sent, "ACKNOWLEDGED")

    async def reviewed() -> bool:
        return await b.count("review") == 1

    await wait_until(reviewed)
    for node in (a, b):
        tables = await node.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for (table,) in tables:
            found = await node.rows(f'SELECT * FROM "{table}"')
            text = b"".join(
                value if isinstance(value, bytes) else str(value).encode() for row in found for value in row.values()
            )
            for secret in (canary, person, "Person"):
                assert secret.encode() not in text or table == "registry_record", (node.name, table)
        content = await node.read.content(a.name, UUID(sent["id"]))
        assert content.message.body["weapon"]["components"][0]["marks"][0]["text_raw"] == canary
        assert content.read_parts(node.keys.opener()) == {"persons": part}


async def test_the_built_in_registry_answers_what_a_busy_store_kept_it_from(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b", registry=True)
    answer = b.parts.answer
    assert answer is not None
    committer, busy = b.parts.committer, [True]
    real = committer.commit

    class Busy:
        """The committer, busy once."""

        def __getattr__(self, name: str) -> Any:
            return getattr(committer, name)

        async def commit(self, *args: Any) -> Any:
            if busy:
                busy.pop()
                raise ProblemError("store.busy", "once")
            return await real(*args)

    answer._submit._committer = answer._committer = Busy()  # type: ignore[assignment]
    sent = await a.trace(b)

    async def tried() -> bool:
        return not busy

    await wait_until(tried)
    assert await b.count("review") == 0, "a busy store is no case for a person"

    async def acknowledged() -> bool:
        answer._later.clear()  # its half minute is over
        answer.wake()
        return await b.count("review") == 1

    await wait_until(acknowledged)
    await a.leg_becomes(sent, "ACKNOWLEDGED")
    reasons = await b.rows("SELECT reason FROM review")
    assert [row["reason"] for row in reasons] == ["NO_RECORD"]


async def test_a_request_that_the_store_was_away_for_is_answered_when_it_is_back_and_not_a_minute_later(
    fed: Federation,
) -> None:
    class Away:
        """A register whose store is away once."""

        def __init__(self, real: Any) -> None:
            self.real, self.asked = real, 0

        async def search(self, *args: Any) -> Any:
            self.asked += 1
            if self.asked == 1:
                raise Unavailable("made by the test")
            return await self.real.search(*args)

    a, b = await fed.nodes("a", "b", registry=True)
    await b.stop()
    b.wraps.append(lambda ports: setattr(ports, "registry", Away(ports.registry)))
    await b.start()
    sent = await a.trace(b)
    await a.leg_becomes(sent, "ACKNOWLEDGED")


# ---- a peer that is down


async def test_a_peer_that_fails_is_paused_and_then_tried_with_one_parcel(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b", retry_first_s=0.3)
    a.wire.hook = unreachable
    sent = [await a.trace(b) for _ in range(8)]
    await posts_of(a, 3)
    sizes = [len(parse_post(body, answer=False).items) for _, body, _ in a.wire.posts]
    assert sizes[1:3] == [1, 1]
    await asyncio.sleep(0.2)
    assert len(a.wire.posts) <= 5, "new messages do not hasten it"
    a.wire.hook = None
    for each in sent:
        await a.becomes(each, "delivered")
    order = [entry.pair_seq for entry in await b.entries() if entry.kind == "received"]
    assert order == sorted(order), "what waited together keeps its order"
    await match_ledgers(a, b)


async def test_everything_that_expires_while_a_peer_is_down_ends(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b", retry_first_s=0.1)
    a.wire.hook = unreachable
    sent = [await a.trace(b) for _ in range(5)]
    await posts_of(a, 2)
    fed.clock.ahead += timedelta(days=91)
    await fed.refresh()
    for each in sent:
        await a.becomes(each, "undelivered")
    assert (await a.kinds()).count("undelivered") == 5


async def test_a_peer_is_left_alone_for_as_long_as_it_asks(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")

    async def busy(peer: str, body: bytes, send: Send) -> bytes:
        problem = ProblemError("peer.rate")
        problem.retry_after_s = 2.0
        raise problem

    a.wire.hook = busy
    await a.trace(b)
    await posts_of(a, 1)
    await asyncio.sleep(0.5)
    await a.trace(b)
    await asyncio.sleep(0.5)
    assert len(a.wire.posts) == 1
