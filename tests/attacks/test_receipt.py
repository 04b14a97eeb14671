"""Group receipt: only the recipient's own proof of our own entry settles a message; the cause of no is in our log."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from protocols.exchange.lines import Hello, Parcel, Post, Receipt, encode_post, parse_post
from protocols.ledger.entry import PeerRef, parse_entry
from protocols.ledger.merkle import leaf_hash
from tests.federation import Federation, Node, Stranger, unreachable, verify_ledger, wait_until

Notes = Mapping[tuple[str, int], bytes]
Made = tuple[Receipt, Notes]


def own(by: Stranger, receipt: Receipt) -> Made:
    """A receipt with the newest checkpoint of who made it."""
    return receipt, {(by.origin, receipt.place.size): by.note(receipt.place.size)}


def claimed(m: Stranger, hub: Stranger, parcel: Parcel) -> Made:
    """The hub's ledger under the recipient's name: the checkpoint is signed by keys that the directory does not list."""
    receipt, _ = own(hub, hub.receipt(parcel, recipient=m.name))
    size = receipt.place.size
    note = hub.note(size).replace(hub.origin.encode(), m.origin.encode())
    return replace(receipt, place=replace(receipt.place, origin=m.origin)), {(m.origin, size): note}


def resigned(m: Stranger, hub: Stranger, parcel: Parcel) -> Made:
    """The recipient's note with the hub's signatures."""
    receipt, _ = own(m, m.receipt(parcel))
    head = m.note().rpartition(b"\n\n")[0]
    lines = hub.note().rpartition(b"\n\n")[2].replace(hub.origin.encode(), m.origin.encode())
    return receipt, {(m.origin, receipt.place.size): head + b"\n\n" + lines}


def peer_of(parcel: Parcel, **changes: Any) -> PeerRef:
    place = parcel.place
    found = PeerRef(
        origin=place.origin, index=place.index, leaf=leaf_hash(place.entry), size=place.size, root=bytes(32)
    )
    return replace(found, **changes)


Make = Callable[[Stranger, Stranger, Parcel, list[Parcel]], Made]
HUB_WORD: dict[str, Any] = {"kind": "relayed", **dict.fromkeys(("kid", "seal_kid", "suite", "content_c", "thread_c"))}
FORGED: dict[str, list[tuple[str, Make]]] = {
    "C01": [
        ("proof.origin", lambda m, n, p, old: own(n, n.receipt(p))),
        ("proof.origin", lambda m, n, p, old: own(n, n.receipt(p, recipient=m.name))),
        ("proof.path", lambda m, n, p, old: (m.receipt(p), own(n, n.receipt(p))[1])),
        ("proof.path", lambda m, n, p, old: (m.receipt(p), {})),
    ],
    "C02": [
        ("proof.entry", lambda m, n, p, old: own(m, m.receipt(p, envelope=bytes(32)))),
        ("proof.entry", lambda m, n, p, old: own(m, m.receipt(p, envelope=parse_entry(old[0].place.entry).envelope))),
        ("proof.entry", lambda m, n, p, old: own(m, m.receipt(p, content_c=bytes(32)))),
        ("proof.entry", lambda m, n, p, old: own(m, m.receipt(p, peer=peer_of(p, leaf=bytes(32))))),
        ("proof.entry", lambda m, n, p, old: own(m, m.receipt(p, peer=peer_of(p, index=0)))),
        ("proof.entry", lambda m, n, p, old: own(m, m.receipt(p, peer=peer_of(p, leaf=None, index=None)))),
        ("proof.entry", lambda m, n, p, old: own(m, m.receipt(p, peer=peer_of(p, origin="testnet/a/2027.1")))),
    ],
    "C03": [
        ("proof.entry", lambda m, n, p, old: own(m, m.receipt(old[0]))),
        ("proof.entry", lambda m, n, p, old: own(m, m.receipt(old[0], id=parse_entry(p.place.entry).id))),
        ("proof.entry", lambda m, n, p, old: own(m, m.receipt(p, id=UUID("01a2058a-4186-7126-8d50-d08ecb4c4b03")))),
        ("proof.entry", lambda m, n, p, old: own(m, m.receipt(p, sender=n.name))),
        ("proof.entry", lambda m, n, p, old: own(m, m.receipt(p, recipient=n.name))),
        ("proof.path", lambda m, n, p, old: own(m, replace(m.receipt(p), place=replace(m.receipt(p).place, index=0)))),
    ],
    "C05": [
        ("proof.origin", lambda m, n, p, old: own(n, n.receipt(p, recipient=m.name, via=n.name))),
        ("proof.origin", lambda m, n, p, old: own(n, n.receipt(p, recipient=m.name, via=n.name, **HUB_WORD))),
        ("proof.policy", lambda m, n, p, old: claimed(m, n, p)),
        ("proof.policy", lambda m, n, p, old: resigned(m, n, p)),
        ("proof.entry", lambda m, n, p, old: own(m, m.receipt(p, via=n.name, **HUB_WORD))),
    ],
}  # fmt: skip


@pytest.fixture
async def trio(fed: Federation) -> tuple[Node, Stranger, Stranger]:
    (a,) = await fed.nodes("a")
    m, n = await fed.strangers("m", "n")
    return a, m, n


@pytest.mark.parametrize("attack", FORGED)
async def test_a_receipt_that_proves_something_else_settles_nothing(
    attack: str, trio: tuple[Node, Stranger, Stranger]
) -> None:
    a, m, n = trio
    variants, old, answered = FORGED[attack], [], 0

    async def hook(peer: str, body: bytes, send: Callable[[], Awaitable[bytes]]) -> bytes:
        nonlocal answered
        (parcel,) = parse_post(body, answer=False).items
        if not old:
            old.append(parcel)
            made = own(m, m.receipt(parcel))
        elif answered == len(variants):
            made = own(m, m.receipt(parcel))
        else:
            made = variants[answered][1](m, n, parcel, old)
            answered += 1
        return encode_post(Post(hello=Hello(dir_version=1), checkpoints=dict(made[1]), items=(made[0],)))

    a.wire.hook = hook
    first = await a.trace(m)
    await a.becomes(first, "delivered")
    before = await a.kinds()
    with capture_logs() as logs:
        sent = await a.trace(m)

        async def all_given() -> bool:
            return answered == len(variants)

        await wait_until(all_given)
        await a.becomes(sent, "delivered")
    said = [each["code"] for each in logs if each["event"] in ("receipt_refused", "parcel_unanswered", "post_failed")]
    assert said == [code for code, _ in variants]
    assert await a.kinds() == [*before, "sent", "receipt"], "nothing but the good one left an entry"
    assert await a.count("peer_proof") == 2
    await verify_ledger(a)


async def test_a_receipt_that_never_comes_is_asked_for_until_the_end(trio: tuple[Node, Stranger, Stranger]) -> None:
    a, m, _ = trio
    asked = asyncio.Event()

    async def dropped(peer: str, body: bytes, send: Callable[[], Awaitable[bytes]]) -> bytes:
        if len(a.wire.posts) >= 3:
            asked.set()
        return await unreachable(peer, body, send)

    a.wire.hook = dropped
    sent = await a.trace(m)
    await asyncio.wait_for(asked.wait(), 10)
    assert (await a.delivery(sent), (await a.kinds())[-1]) == ("queued", "sent")
