"""Attachments: sealed while they stream, brought by whatever way the message goes, cut and resumed, never twice."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from gateway.services.submit import Attached, Draft
from protocols.exchange.blobs import plain_bytes, sealed_bytes
from protocols.limits import BLOB_PIECE_BYTES, BLOB_RANGE_BYTES_MAX
from protocols.ports.access import Caller
from protocols.problems import ProblemError
from protocols.strict import b64u
from tests.federation import (
    EVERY_ROLE,
    WAIT_S,
    Federation,
    Json,
    Member,
    Node,
    match_ledgers,
    refused,
    trace_request,
    wait_until,
)
from tests.services.test_courier import export, take

MIB = 1024 * 1024
Put = Callable[[bytes], Awaitable[None]]
READER = Caller(client="test", actor="tester", scopes=frozenset(("parts:read", "trace:read")), purpose="TRACING")


async def pieces(data: bytes, length: int = 65_536) -> AsyncIterator[bytes]:
    for at in range(0, len(data), length):
        yield data[at : at + length]


async def attach(node: Node, data: bytes, name: str = "slide.jpg") -> Attached:
    """Uploads; what a message repeats of it."""
    sealed = await node.parts.ways.blobs.seal(pieces(data))
    return Attached(name=name, media_type="image/jpeg", sha256=sealed.digest, key=sealed.key, size=sealed.size)


def draft(node: Node, to: Member, *attached: Attached) -> Draft:
    """A request whose weapon is pictured."""
    body = trace_request()
    body["weapon"]["images"] = [b64u(each.sha256) for each in attached]
    return node.draft(to, body=body, attachments=attached)


async def read(node: Node, sent: Json, attached: Attached) -> bytes:
    """The attachment as a person reads it."""
    ref, key = await node.read.attachment(UUID(sent["thread"]), UUID(sent["id"]), attached.sha256, READER)
    return b"".join([piece async for piece in node.parts.ways.blobs.open(ref.sha256, key, ref.size)])


class Cuts:
    """A node's way to peers that breaks off: the k-th ranges never get there; counts what does."""

    def __init__(self, node: Node, *at: int) -> None:
        self.sent, self._at, self._tried = 0, set(at), 0
        node.wire.ranges = self._range

    async def _range(self, data: bytes, put: Put) -> None:
        self._tried += 1
        if self._tried in self._at:
            raise ProblemError("peer.unreachable", "cut by the test")
        await put(data)
        self.sent += len(data)


@pytest.mark.parametrize("size", [1, 16_383, 16_384, MIB, 5 * MIB + 7])
def test_the_length_of_a_ciphertext_tells_that_of_the_file(size: int) -> None:
    assert plain_bytes(sealed_bytes(size)) == size


async def test_a_picture_arrives_with_its_message_and_is_read_as_it_was(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    data = os.urandom(3 * MIB + 5)
    attached = await attach(a, data)
    assert attached.size == sealed_bytes(len(data))
    sent = await a.send(draft(a, b, attached))
    await a.becomes(sent, "delivered")
    assert await read(b, sent, attached) == await read(a, sent, attached) == data
    shown = (await b.read.thread(UUID(sent["thread"]), READER))[0]["messages"][0]["attachments"]
    assert shown == [
        {"name": "slide.jpg", "media_type": "image/jpeg", "sha256": b64u(attached.sha256), "size": len(data)}
    ]
    opened = [entry for entry in await b.entries() if entry.kind == "opened"]
    assert [entry.code for entry in opened] == ["attachment/TRACING"], "who looked is in the ledger"
    stored = b"".join([row["data"] for row in await b.rows("SELECT data FROM piece ORDER BY n")])
    assert sha256(stored).digest() == attached.sha256, "what is stored is the ciphertext"
    assert max(len(row["data"]) for row in await b.rows("SELECT data FROM piece")) == BLOB_PIECE_BYTES
    await match_ledgers(a, b)


async def test_a_message_waits_for_its_attachment_and_others_do_not_wait_for_it(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b", retry_first_s=0.1)
    held = asyncio.Event()

    async def wait(data: bytes, put: Put) -> None:
        await held.wait()
        await put(data)

    a.wire.ranges = wait
    big = await a.send(draft(a, b, await attach(a, os.urandom(MIB))))
    small = await a.trace(b)
    await a.becomes(small, "delivered")

    async def told() -> bool:
        return await a.count("outbox", "problem = 'msg.blob_missing' AND state = 'queued'") == 1

    await wait_until(told)
    held.set()
    await a.becomes(big, "delivered")


async def test_a_transfer_that_is_cut_goes_on_where_it_was_after_a_restart_too(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b", retry_first_s=0.1)
    data = os.urandom(14 * MIB)
    cuts = Cuts(a, 2, 3, 5)
    attached = await attach(a, data)
    sent = await a.send(draft(a, b, attached))

    async def begun() -> bool:
        return await b.count("piece") >= 4

    await wait_until(begun)
    await b.restart()
    await a.becomes(sent, "delivered", 30)
    assert cuts.sent == attached.size, "no byte was sent twice"
    assert await read(b, sent, attached) == data


async def test_what_was_spoiled_on_its_way_is_dropped_and_sent_again(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b", retry_first_s=0.1)
    spoiled: list[int] = []

    async def spoil(data: bytes, put: Put) -> None:
        spoiled.append(len(data))
        await put(bytes(len(data)) if len(spoiled) == 1 else data)

    a.wire.ranges = spoil
    data = os.urandom(MIB)
    attached = await attach(a, data)
    sent = await a.send(draft(a, b, attached))
    await a.becomes(sent, "delivered")
    assert len(spoiled) == 2
    assert await read(b, sent, attached) == data


# ---- other ways


async def test_a_member_that_fetches_gets_attachments_too(fed: Federation) -> None:
    (a,) = await fed.nodes("a", retry_first_s=0.1)
    (b,) = await fed.nodes("b", facts={"modes": ["pull"]}, retry_first_s=0.1)
    data = os.urandom(5 * MIB)
    attached = await attach(a, data)
    sent = await a.send(draft(a, b, attached))
    await a.becomes(sent, "delivered")
    assert await read(b, sent, attached) == data
    back = await attach(b, data[:MIB])
    reply = await b.send(draft(b, a, back))
    await b.becomes(reply, "delivered")
    assert await read(a, reply, back) == data[:MIB]


@pytest.mark.parametrize("modes", [("hub",), ("push",)], ids=["the recipient fetches", "the hub can reach it"])
async def test_an_attachment_goes_through_a_hub(fed: Federation, modes: tuple[str, ...]) -> None:
    (a,) = await fed.nodes("a", retry_first_s=0.1)
    (h,) = await fed.nodes("h", roles=(*EVERY_ROLE, "hub"), retry_first_s=0.1)
    (b,) = await fed.nodes("b", facts={"modes": ["hub", *modes], "hubs": [h.name]}, retry_first_s=0.1)

    async def only_the_hub(peer: str, body: bytes, send: Callable[[], Any]) -> bytes:
        if peer == b.name:
            raise ProblemError("peer.unreachable", "cut by the test")
        return bytes(await send())

    a.wire.hook = only_the_hub
    data = os.urandom(5 * MIB)
    attached = await attach(a, data)
    sent = await a.send(draft(a, b, attached))
    await a.becomes(sent, "delivered", 30)
    assert await read(b, sent, attached) == data
    assert await h.count("content") == 0
    await match_ledgers(a, b)


async def test_an_attachment_goes_by_courier(fed: Federation, tmp_path: Path) -> None:
    a, b = await fed.nodes("a", "b", facts={"modes": ["courier"]})
    data = os.urandom(5 * MIB)
    attached = await attach(a, data)
    sent = await a.send(draft(a, b, attached))
    bag = await export(a, b, tmp_path)
    (blob,) = (bag / "data" / "blobs").iterdir()
    good = blob.read_bytes()
    blob.write_bytes(bytes(len(good)))
    found, wrong = await take(b, bag)
    assert found.parcels == {"msg.blob_missing": 1}
    assert list(wrong) == [f"data/blobs/{attached.sha256.hex()}"]
    blob.write_bytes(good)
    assert (await take(b, bag))[0].parcels == {"received": 1}
    assert await read(b, sent, attached) == data


async def test_a_request_that_is_sealed_again_keeps_its_attachments(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    await b.stop()
    data = os.urandom(MIB)
    attached = await attach(a, data)
    sent = await a.send(draft(a, b, attached))
    b.keys.add("seal")
    fed.clock.ahead += timedelta(seconds=1)
    b.keys.promote("seal", fed.clock.now())
    await fed.publish(b.ask())
    await b.start()
    await a.becomes(sent, "delivered")
    assert await read(b, sent, attached) == data


# ---- what is refused


async def test_an_attachment_is_held_to_what_was_uploaded_and_to_what_the_body_says(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    attached = await attach(a, b"picture")
    never = Attached(name="x", media_type="image/png", sha256=bytes(32), key=bytes(32), size=80)
    await refused("schema.invalid", a.send(draft(a, b, never)))
    body = draft(a, b, attached).body
    await refused("schema.invalid", a.send(a.draft(b, body=body)))
    assert await a.count("outbox") == 0


async def test_an_attachment_over_the_limit_is_refused_at_both_ends(fed: Federation) -> None:
    (a,) = await fed.nodes("a", attachment_mib=2)
    (b,) = await fed.nodes("b", attachment_mib=1)
    await refused("http.too_large", attach(a, bytes(2 * MIB + 1)))
    assert await a.count("piece") == 0, "nothing of it stays"
    sent = await a.send(draft(a, b, await attach(a, bytes(MIB + 1))))
    await a.becomes(sent, "refused")
    assert (await b.sql("SELECT code FROM refusal"))["code"] == "schema.invalid"
    await refused("schema.invalid", attach(a, b""))


async def test_what_no_message_names_is_swept_after_a_week_and_nothing_else(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    named = await attach(a, b"named")
    await a.becomes(await a.send(draft(a, b, named)), "delivered")
    await attach(a, b"never named")
    stores = a._ports.blobs, b._ports.blobs
    assert [await store.sweep(fed.clock.now()) for store in stores] == [1, 0]
    assert (await a.count("blob"), await a.count("piece"), await b.count("blob")) == (1, 1, 1)


@pytest.mark.parametrize(
    ("offset", "size", "length", "code"),
    [
        (1, MIB, 10, "blob.range"),
        (0, 2 * MIB, MIB - 1, "blob.range"),
        (0, 8 * MIB, BLOB_RANGE_BYTES_MAX + MIB, "blob.range"),
        (0, 2**40, MIB, "blob.range"),
        (0, 512 * MIB, MIB, "http.too_large"),
    ],
    ids=["in the midst of a piece", "no whole piece", "too long a range", "too long at all", "over our limit"],
)
async def test_a_range_that_may_not_be_is_refused(
    fed: Federation, offset: int, size: int, length: int, code: str
) -> None:
    (a,) = await fed.nodes("a")
    (m,) = await fed.strangers("m")
    client, record = m.client(), fed.directory.records[a.name]
    try:
        await refused(code, client.put_blob(record, bytes(32), offset=offset, size=size, data=bytes(length)))
    finally:
        await client.close()
    assert await a.count("piece") == 0


async def test_a_member_sends_no_more_ahead_than_it_may(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    (m,) = await fed.strangers("m")
    await a.sql(
        "INSERT INTO blob (id, owner, digest, size, held, whole, at) VALUES (gen_random_uuid(), $1, $2, $3, 0, false, now())",
        *(m.name, os.urandom(32), 8 * 1024 * MIB),
    )
    client, record = m.client(), fed.directory.records[a.name]
    try:
        await refused("quota.blobs", client.put_blob(record, bytes(32), offset=0, size=10, data=bytes(10)))
        assert await client.get_blob(record, bytes(32), offset=0, length=10) == b""
    finally:
        await client.close()


async def test_a_node_that_dies_between_the_last_range_and_its_word_has_it_whole(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b", retry_first_s=0.1)
    data, dead = os.urandom(MIB), asyncio.Event()
    attached = await attach(a, data)

    async def lost(data: bytes, put: Put) -> None:
        await put(data)
        await b.kill()
        dead.set()
        raise ProblemError("peer.unreachable", "it died before it answered")

    a.wire.ranges = lost
    sent = await a.send(draft(a, b, attached))
    await asyncio.wait_for(dead.wait(), WAIT_S)
    a.wire.ranges = None
    await b.start()
    await a.becomes(sent, "delivered")
    assert await read(b, sent, attached) == data


async def test_a_peer_that_loses_what_it_gets_is_not_sent_it_without_end(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b", retry_first_s=0.3)
    ranges: list[int] = []

    async def swallowed(data: bytes, put: Put) -> None:
        ranges.append(len(data))

    a.wire.ranges = swallowed
    await a.send(draft(a, b, await attach(a, os.urandom(MIB))))
    await asyncio.sleep(1.5)
    assert 1 <= len(ranges) <= 7
    assert await b.count("blob") == 0, "asking how much is here keeps nothing"


async def test_the_size_of_an_attachment_is_what_was_said_first(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    (m,) = await fed.strangers("m")
    client, record = m.client(), fed.directory.records[a.name]
    try:
        await client.put_blob(record, bytes(32), offset=0, size=3 * MIB, data=bytes(MIB))
        await refused("blob.range", client.put_blob(record, bytes(32), offset=MIB, size=2 * MIB, data=bytes(MIB)))
        await client.put_blob(record, bytes([1]) * 32, offset=MIB, size=3 * MIB, data=bytes(MIB))
    finally:
        await client.close()
    assert (await a.count("blob"), await a.count("piece")) == (1, 1), (
        "what does not begin at its beginning keeps nothing"
    )
