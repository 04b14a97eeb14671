"""Pull and hub: one parcel whichever way it comes; a member without an inbound port; a hub that can only delay."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from gateway.services.register import import_register
from protocols.exchange.lines import Hello, Post, ProblemLine, Receipt, encode_post, merge, parse_post
from protocols.ledger.entry import PeerRef
from protocols.ledger.merkle import leaf_hash
from protocols.limits import BACKLOG_A_MEMBER_MAX, PARCELS_MAX
from protocols.problems import ProblemError
from tests.federation import (
    EVERY_ROLE,
    Federation,
    Json,
    Node,
    Stranger,
    match_ledgers,
    refused,
    unreachable,
    verify_ledger,
    wait_until,
)  # fmt: skip

Send = Callable[[], Awaitable[bytes]]
PULL = {"modes": ["pull"]}
HUB = (*EVERY_ROLE, "hub")
REGISTER = (
    b"ref,serial,make,model,type,calibre,sold_on,dealer,country\ng1,KLM4471X9,Glock,17,pistol,9mm,2019-04-01,D,AT\n"
)


def behind(*hubs: str, modes: tuple[str, ...] = ("hub",)) -> Json:
    """The facts of a member that is reached through hubs."""
    return {"modes": list(modes), "hubs": [f"testnet/{hub}" for hub in hubs]}


# ---- pull


async def test_a_member_without_an_inbound_port_gets_and_answers_everything(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    (b,) = await fed.nodes("b", facts=PULL, registry=True)
    await import_register(REGISTER, b._ports.registry)
    assert fed.directory.records[b.name].endpoint is None
    asked = await a.trace(b, "KLM4471X9")
    await a.becomes(asked, "delivered")
    await a.leg_becomes(asked, "ANSWERED")

    async def settled() -> bool:  # the acknowledgement may come after the answer
        return await b.count("outbox", "state <> 'delivered'") == 0

    await wait_until(settled)
    assert not [post for post in a.wire.posts if post[0] == b.name], "nothing was sent to it"
    found = await match_ledgers(a, b)
    assert [entry.kind for entry in found[b.origin]][:2] == ["ledger-opened", "received"]
    assert await a.sql("SELECT problem FROM outbox LIMIT 1") is not None


async def test_two_members_without_inbound_ports_reach_each_other_by_no_way_but_a_hub(fed: Federation) -> None:
    await fed.nodes("h", roles=HUB)
    a, b = await fed.nodes("a", "b", facts=behind("h"))
    sent, back = await a.trace(b), await b.trace(a)
    await a.becomes(sent, "delivered")
    await b.becomes(back, "delivered")
    await match_ledgers(a, b)


async def fetching(fed: Federation) -> Stranger:
    """A member without a node that fetches what waits for it."""
    (b,) = await fed.strangers("b")
    b.facts = PULL
    b.ask()
    await fed.publish(b.request)
    return b


async def test_what_is_offered_is_offered_until_a_receipt_came(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    b = await fetching(fed)
    sent = [await a.trace(b) for _ in range(3)]
    client, record = b.client(), fed.directory.records[a.name]
    try:
        first, second = [parse_post(await client.fetch(record, 0), answer=False) for _ in range(2)]
        assert [parcel.place.entry for parcel in first.items] == [parcel.place.entry for parcel in second.items]

        async def nobody_holds_them() -> bool:  # whoever looked for a way to push them lets go of them at once
            return await a.count("outbox", "state = 'queued' AND leased IS NULL") == 3

        await wait_until(nobody_holds_them)
        receipts = tuple(b.receipt(parcel) for parcel in first.items[:2])
        receipts = tuple(replace(each, place=b.place(each.place.index)) for each in receipts)
        await client.receipts(record, encode_post(b.post_of(*receipts)))
        assert [await a.delivery(each) for each in sent] == ["delivered", "delivered", "queued"]
        await client.receipts(record, encode_post(b.post_of(*receipts)))
        (left,) = parse_post(await client.fetch(record, 0), answer=False).items
        assert left.place.entry == first.items[2].place.entry
    finally:
        await client.close()
    assert (await a.kinds()).count("receipt") == 2, "the same receipts again change nothing"
    await verify_ledger(a)


async def test_whoever_asks_is_told_as_soon_as_something_waits(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    b = await fetching(fed)
    client, record = b.client(), fed.directory.records[a.name]
    try:
        asking = asyncio.ensure_future(client.fetch(record, 30))
        await asyncio.sleep(0.1)
        await refused("store.busy", client.fetch(record, 0))
        await a.trace(b)
        assert len(parse_post(await asyncio.wait_for(asking, 4), answer=False).items) == 1
    finally:
        await client.close()


async def test_whoever_waits_is_answered_at_once_when_the_node_ends(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    (b,) = await fed.strangers("b")
    client = b.client()
    try:
        asking = asyncio.ensure_future(client.fetch(fed.directory.records[a.name], 30))
        reading = asyncio.ensure_future(a.read.events(0, 10, 30))
        await asyncio.sleep(0.1)
        assert not asking.done()
        assert not reading.done()
        a.parts.ways.offer.end()
        a.read.end()
        for answer in (asking, reading, a.read.events(0, 10, 30)):
            await asyncio.wait_for(answer, 4)
    finally:
        await client.close()


async def test_nobody_fetches_or_settles_what_is_anothers(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    (m,) = await fed.strangers("m")
    a.wire.hook = unreachable
    sent = await a.trace(b)
    client, record = m.client(), fed.directory.records[a.name]
    try:
        assert parse_post(await client.fetch(record, 0), answer=False).items == ()
        parcel = m.parcel(a)  # any place and entry will do
        receipt = replace(m.receipt(parcel, sender=a.name, recipient=b.name))
        await refused("peer.identity_mismatch", client.receipts(record, encode_post(m.post_of(receipt))))
    finally:
        await client.close()
    assert await a.delivery(sent) == "queued"


async def test_a_late_receipt_that_comes_by_itself_supersedes_undelivered(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    b = await fetching(fed)
    sent = await a.trace(b)
    client, record = b.client(), fed.directory.records[a.name]
    try:
        (parcel,) = parse_post(await client.fetch(record, 0), answer=False).items

        async def free() -> bool:
            return await a.count("outbox", "leased IS NULL AND problem = 'peer.fetches'") == 1

        await wait_until(free)
        await a.parts.deliver.drop(UUID(sent["id"]))
        assert await a.delivery(sent) == "undelivered"
        await client.receipts(record, encode_post(b.post_of(b.receipt(parcel))))
    finally:
        await client.close()
    assert await a.delivery(sent) == "delivered"
    assert (await a.kinds())[-2:] == ["undelivered", "receipt"]


REFUSED = {
    "kind": "refused", "code": "schema.invalid", "read": True, "kid": None, "seal_kid": None, "suite": None,
    "thread_c": None,
}  # fmt: skip


@pytest.mark.parametrize("changes", [{}, REFUSED], ids=["received", "refused"])
async def test_a_second_receipt_changes_nothing_and_is_kept_as_evidence_with_an_alarm(
    fed: Federation, changes: Json
) -> None:
    (a,) = await fed.nodes("a")
    b = await fetching(fed)
    sent = [await a.trace(b) for _ in range(2)]
    client, record = b.client(), fed.directory.records[a.name]
    try:
        offered = parse_post(await client.fetch(record, 0), answer=False).items
        for parcel in offered:
            await client.receipts(record, encode_post(b.post_of(b.receipt(parcel))))
        await a.parts.linking.watch(fed.directory)
        assert a.parts.linking.alarms == {}
        for _ in range(6):
            other = b.receipt(offered[0], **changes)
            await client.receipts(record, encode_post(b.post_of(other)))
    finally:
        await client.close()
    assert [await a.delivery(each) for each in sent] == ["delivered", "delivered"]
    assert (await a.kinds()).count("receipt") == 2
    await a.parts.linking.watch(fed.directory)
    assert a.parts.linking.alarms == {b.origin: "ledger.contradiction"}
    assert await a.count("peer_proof") == 5, "of each message a few are kept"
    await a.restart()
    await a.parts.linking.watch(fed.directory)
    assert a.parts.linking.alarms == {b.origin: "ledger.contradiction"}, "also after a restart"


# ---- hub


async def hubbed(fed: Federation, *, modes: tuple[str, ...] = ("hub",)) -> tuple[Node, Node, Node]:
    """A sender that can be reached, a hub, and a recipient behind it."""
    (a,) = await fed.nodes("a")
    (h,) = await fed.nodes("h", roles=HUB)
    (b,) = await fed.nodes("b", facts=behind("h", modes=modes))
    return a, h, b


async def test_a_hub_forwards_what_it_cannot_read_and_the_receipt_travels_back(fed: Federation) -> None:
    a, h, b = await hubbed(fed)
    sent = await a.trace(b)
    await a.becomes(sent, "delivered")
    found = await match_ledgers(a, b)
    received = next(entry for entry in found[b.origin] if entry.kind == "received")
    assert received.via == h.name
    (relayed,) = [entry for entry in await verify_ledger(h) if entry.kind == "relayed"]
    assert (relayed.via, relayed.sender, relayed.recipient, relayed.id) == (h.name, a.name, b.name, received.id)
    assert await h.count("content") == 0, "it never opens anything"
    assert await h.count("relay", "post IS NOT NULL") == 0, "what was received is not kept"
    assert {post[0] for post in a.wire.posts} == {h.name}
    for node, origin in ((a, b.origin), (b, a.origin)):
        assert await node.count("peer_checkpoint", f"origin = '{origin}'") > 0, "each end holds the other's checkpoints"


async def test_checkpoints_are_linked_through_a_hub_too(fed: Federation) -> None:
    a, _, b = await hubbed(fed)
    for _ in range(4):
        sent = await a.trace(b)
        await a.becomes(sent, "delivered")

    for node, origin in ((a, b.origin), (b, a.origin)):

        async def linked(node: Node = node, origin: str = origin) -> bool:
            return await node.count("peer_checkpoint", f"origin = '{origin}' AND linked") > 1

        await wait_until(linked)


async def test_the_same_parcel_by_two_ways_takes_effect_once(fed: Federation) -> None:
    a, h, b = await hubbed(fed, modes=("hub", "push"))
    answers: list[bytes] = []

    async def twice(peer: str, body: bytes, send: Send) -> bytes:
        if peer == h.name:
            answers.append(await send())
            raise ProblemError("peer.unreachable", "the hub's answer was lost")
        return await send()

    a.wire.hook = twice
    sent = await a.trace(b)
    await a.becomes(sent, "delivered")

    async def carried() -> bool:
        return await h.count("relay", "answer IS NOT NULL") == 1

    await wait_until(carried)
    assert answers
    assert (await b.kinds()).count("received") == 1
    assert (await a.kinds()).count("receipt") == 1
    await match_ledgers(a, b)


async def test_a_hub_that_is_away_or_keeps_quiet_is_gone_around(fed: Federation) -> None:
    a, h, b = await hubbed(fed, modes=("hub", "push"))
    await h.stop()
    sent = await a.trace(b)
    await a.becomes(sent, "delivered")
    assert await b.count("inbox") == 1
    await match_ledgers(a, b)


async def test_a_hub_alone_ends_nothing(fed: Federation) -> None:
    a, h, b = await hubbed(fed)
    await b.stop()
    sent = await a.trace(b)

    async def told() -> bool:
        return bool(await a.count("outbox", "problem = 'hub.relayed'"))

    await wait_until(told)
    assert await a.delivery(sent) == "queued"
    assert await a.leg(sent) == "SENT"
    assert (await h.kinds()).count("relayed") == 1, "the same parcel again is no second one"
    await b.start()
    await a.becomes(sent, "delivered")
    await match_ledgers(a, b)


async def test_with_a_member_of_two_histories_nothing_is_exchanged_by_any_way(fed: Federation) -> None:
    (h,) = await fed.nodes("h", roles=HUB)
    (b,) = await fed.nodes("b", facts=behind("h"))
    m, n = await fed.strangers("m", "n")
    waits, carried = await h.trace(m), n.parcel(b)
    await b.stop()
    await n.give(h, carried)
    client, record, digest, now = m.client(), fed.directory.records[h.name], bytes(32), fed.clock.now()
    post = encode_post(m.post_of(m.receipt(n.parcel(m))))
    for member in (m, b):
        note = member.keys.note_signer(member.origin).sign(1, bytes(32), now)
        await h._ports.exchange.keep_conflict(note, note, origin=member.origin, at=now)
    try:
        for asking in (
            client.fetch(record, 0),
            client.receipts(record, post),
            client.put_blob(record, digest, offset=0, size=4, data=b"data"),
            client.get_blob(record, digest, offset=0, length=4),
            m.post(h, m.parcel(b)),
            h.parts.ways.relay._forward(b.name),
        ):
            await refused("ledger.split_view", asking)
        assert await client.checkpoint(record, h.origin), "what proves it is shown to it too"
    finally:
        await client.close()
    assert await h.delivery(waits) == "queued"
    assert await h.count("relay", "answer IS NULL") == 1


async def test_who_waits_to_fetch_when_its_second_history_is_found_gets_nothing(fed: Federation) -> None:
    (b,) = await fed.nodes("b")
    (m,) = await fed.strangers("m")
    client, now = m.client(), fed.clock.now()
    note = m.keys.note_signer(m.origin).sign(1, bytes(32), now)
    try:
        waiting = asyncio.ensure_future(client.fetch(fed.directory.records[b.name], 20))

        async def asks() -> bool:
            return m.name in b.parts.ways.offer._asking

        await wait_until(asks)
        await b._ports.exchange.keep_conflict(note, note, origin=m.origin, at=now)
        await b.trace(m)
        await refused("ledger.split_view", waiting)
    finally:
        await client.close()


async def test_a_hub_that_forges_a_receipt_settles_nothing(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    (h,) = await fed.strangers("h", roles=HUB)
    (b,) = await fed.nodes("b", facts=behind("h"))
    a.wire.hook = h.answering(lambda parcel: h.receipt(parcel, recipient=b.name))
    sent = await a.trace(b)

    async def tried() -> bool:
        return await a.count("outbox", "attempts > 1") == 1

    await wait_until(tried)
    assert await a.delivery(sent) == "queued"
    assert (await a.kinds()).count("receipt") == 0


async def test_one_parcel_in_several_posts_at_once_is_relayed_once_and_each_is_answered(fed: Federation) -> None:
    _, h, b = await hubbed(fed)
    await b.stop()
    (m,) = await fed.strangers("m")
    parcel = m.parcel(b)
    answers = await asyncio.gather(*(m.give(h, parcel) for _ in range(3)))
    assert {answer.index for answer in answers} == {1}
    assert (await h.kinds()).count("relayed") == await h.count("relay") == 1


async def test_a_hub_alters_forges_and_redirects_nothing(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    (h,) = await fed.strangers("h", roles=HUB)
    b, c = await fed.nodes("b", "c", facts=behind("h", modes=("hub", "push")))
    given: list[Post] = []

    async def kept(peer: str, body: bytes, send: Send) -> bytes:
        given.append(parse_post(body, answer=False))
        raise ProblemError("peer.unreachable", "the hub says nothing")

    a.wire.hook = kept
    sent = await a.trace(b)

    async def there() -> list[Post]:
        return given

    post = (await wait_until(there))[0]
    (parcel,) = post.items
    middle = len(parcel.envelope) // 2
    other = b"B" if parcel.envelope[middle : middle + 1] == b"A" else b"A"
    altered = replace(parcel, envelope=parcel.envelope[:middle] + other + parcel.envelope[middle + 1 :])
    entry = parcel.place.entry.replace(b'"pair_seq":1,', b'"pair_seq":2,')
    assert entry != parcel.place.entry

    async def handed(to: Node, item: Any) -> Any:
        client = h.client()
        try:
            body = encode_post(replace(post, items=(item,)))
            (answer,) = parse_post(await client.post(fed.directory.records[to.name], body), answer=True).items
        finally:
            await client.close()
        return answer.code if isinstance(answer, ProblemLine) else answer

    assert await handed(b, altered) == "proof.entry"
    assert await handed(b, replace(parcel, place=replace(parcel.place, entry=entry))) == "proof.path"
    assert await handed(c, parcel) == "env.invalid"
    assert await h.give(b, h.parcel(b, entry={"sender": a.name})) == "proof.missing"
    assert [await each.count("inbox") + await each.count("refusal") for each in (b, c)] == [0, 0]
    assert isinstance(await handed(b, parcel), Receipt), "as it is it is taken"
    assert await a.delivery(sent) == "queued", "and the receipt is what the hub may withhold"


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda m, a, b: m.parcel(b, entry={"sender": a.name}), "peer.identity_mismatch"),
        (lambda m, a, b: m.parcel(a), "hub.unlisted"),
        (lambda m, a, b: m.parcel(b, entry={"envelope": bytes(32)}), "proof.entry"),
        (lambda m, a, b: m.parcel(b, header={"id": m.message(b).id}), "proof.entry"),
    ],
    ids=["another's parcel", "for a member that does not list it", "another envelope", "another message's envelope"],
)
async def test_a_hub_takes_only_what_is_the_callers_and_for_its_own(
    fed: Federation, spoil: Callable[[Any, Node, Node], Any], code: str
) -> None:
    a, h, b = await hubbed(fed)
    (m,) = await fed.strangers("m")
    assert await m.give(h, spoil(m, a, b)) == code
    assert await h.count("relay") == 0
    assert "relayed" not in await h.kinds()


@pytest.mark.parametrize(
    "facts", [PULL, behind("h"), behind("h", modes=("hub", "push"))], ids=["pull", "pull from a hub", "hub"]
)
async def test_what_waits_to_be_fetched_is_bounded_by_every_way(fed: Federation, facts: Json) -> None:
    a, c = await fed.nodes("a", "c")
    await fed.nodes("h", roles=HUB)
    (b,) = await fed.nodes("b", facts=facts)
    await a.becomes(await a.trace(b), "delivered")
    await b.sql(
        "INSERT INTO inbox SELECT sender, gen_random_uuid(), thread, type, received, origin, index, digest, content_c, dispatched "
        "FROM inbox, generate_series(1, $1)",
        BACKLOG_A_MEMBER_MAX,
    )
    await asyncio.sleep(1.1)  # it counts once a second
    more = await a.trace(b)
    await asyncio.sleep(1)
    assert (await a.delivery(more), await b.count("inbox")) == ("queued", BACKLOG_A_MEMBER_MAX + 1)
    await c.becomes(await c.trace(b), "delivered", 20)
    await b.sql("UPDATE inbox SET dispatched = true")
    await a.becomes(more, "delivered", 20)


async def test_a_parcel_that_no_hub_may_carry_is_refused_by_its_recipient(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    m, h = await fed.strangers("m", "h", roles=HUB)
    parcel = m.parcel(b)
    client = h.client()
    try:
        body = encode_post(m.post_of(parcel))
        await refused("peer.identity_mismatch", client.post(fed.directory.records[b.name], body))
    finally:
        await client.close()
    assert await b.count("inbox") == 0


async def test_an_answer_of_the_hub_repeats_the_receipt_when_the_parcel_comes_again(fed: Federation) -> None:
    a, h, b = await hubbed(fed)
    sent = await a.trace(b)
    await a.becomes(sent, "delivered")
    client = a.client()
    try:
        again = parse_post(await client.post(fed.directory.records[h.name], a.wire.posts[0][1]), answer=True)
    finally:
        await client.close()
    (item,) = again.items
    assert isinstance(item, Receipt)
    assert item.place.origin == b.origin
    assert isinstance(again, Post)
    assert (await h.kinds()).count("relayed") == 1


async def test_a_way_that_is_down_takes_nothing_from_one_that_is_not(fed: Federation) -> None:
    a, h, b = await hubbed(fed, modes=("hub", "push"))

    async def no_push(peer: str, body: bytes, send: Send) -> bytes:
        if peer == b.name:
            raise ProblemError("peer.unreachable", "cut by the test")
        return await send()

    a.wire.hook = no_push
    sent = [await a.trace(b) for _ in range(10)]

    async def relayed() -> bool:
        return await h.count("relay") == 10

    await wait_until(relayed, 5)
    for each in sent:
        await a.becomes(each, "delivered")


async def test_a_recipient_that_was_away_for_long_gets_everything_through_its_hub(fed: Federation) -> None:
    a, h, b = await hubbed(fed)
    await b.stop()
    sent = []
    for _ in range(24):  # each under a checkpoint of its own: more than may wait unlinked
        sent.append(await a.trace(b))

        async def taken(number: int = len(sent)) -> bool:
            return await h.count("relay") == number

        await wait_until(taken)
    await b.start()
    for each in sent:
        await a.becomes(each, "delivered", 30)
    await match_ledgers(a, b)


async def test_what_the_ends_say_of_their_ledgers_goes_on_with_each_parcel_that_does(fed: Federation) -> None:
    a, h, b = await hubbed(fed)
    await a.becomes(await a.trace(b), "delivered")
    await b.stop()
    posts = [parse_post(a.wire.posts[0][1], answer=False)]

    async def kept_back(_: str, body: bytes, __: Send) -> bytes:
        posts.append(parse_post(body, answer=False))
        busy = ProblemLine(code="store.busy", detail="kept back by the test")
        return encode_post(Post(hello=Hello(dir_version=1), checkpoints={}, items=(busy,) * len(posts[-1].items)))

    a.wire.hook = kept_back
    for _ in range(2):
        await a.trace(b)

    async def both() -> bool:
        return await a.count("outbox", "problem = 'store.busy'") == 2

    await wait_until(both)
    client = a.client()
    try:
        await client.post(fed.directory.records[h.name], encode_post(merge(posts)))
    finally:
        await client.close()
    kept = await h.rows("SELECT post FROM relay WHERE answer IS NULL ORDER BY index")
    hellos = [parse_post(row["post"], answer=False).hello for row in kept]
    assert [(set(hello.held), set(hello.links)) for hello in hellos] == [({b.origin}, {a.origin}), ({b.origin}, set())]


async def test_a_hub_keeps_of_what_a_recipient_says_with_its_receipts_only_what_is_of_the_two(fed: Federation) -> None:
    a, h, b = await hubbed(fed)
    h.wire.hook, b.wire.cut = unreachable, "peer.unreachable"
    for _ in range(2):
        await a.trace(b)

    async def taken() -> bool:
        return await h.count("relay") == 2

    await wait_until(taken)
    relay, strange = h.parts.ways.relay, "testnet/x/2026.1"

    async def both() -> Any:  # it asks for itself meanwhile, and may have been offered one
        found = await relay.offer(b.name)
        return found if found and len(found.items) == 2 else None

    answer = await b.parts.receive.receive(h.name, await wait_until(both), fetched=True)
    link = answer.hello.links[b.origin]
    hello = Hello(dir_version=1, held={strange: (0,), a.origin: (0,)}, links={strange: link, b.origin: link})
    await relay.take_receipts(b.name, replace(answer, hello=hello), fed.directory)
    kept = [
        parse_post(row["answer"], answer=True).hello for row in await h.rows("SELECT answer FROM relay ORDER BY index")
    ]
    assert [set(each.held) for each in kept] == [{a.origin}] * 2
    assert sorted(tuple(each.links) for each in kept) == [(), (b.origin,)]


async def test_what_the_hub_itself_cannot_deliver_stands_in_nobodys_way(fed: Federation) -> None:
    a, h, b = await hubbed(fed)
    await b.sql("ALTER TABLE inbox ADD CONSTRAINT never CHECK (sender <> 'testnet/h')")
    try:
        own = await h.trace(b)
        sent = await a.trace(b)
        await a.becomes(sent, "delivered")
        assert await h.delivery(own) == "queued"
    finally:
        await b.sql("ALTER TABLE inbox DROP CONSTRAINT never")


async def test_a_source_that_offers_nothing_at_once_or_the_same_for_ever_is_asked_at_leisure(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    (b,) = await fed.nodes("b", facts=PULL, retry_first_s=0.3)
    b.wire.hasty, b.wire.fetches = True, 0
    await asyncio.sleep(1.5)
    assert b.wire.fetches <= 8
    assert a


# ---- who asks for the last time


async def test_a_hub_gives_the_receipt_that_came_to_whoever_asks_for_the_last_time(fed: Federation) -> None:
    (h,) = await fed.nodes("h", roles=HUB)
    a, b = await fed.nodes("a", "b", facts=behind("h"))
    await b.stop()
    sent = await a.trace(b)

    async def taken() -> bool:
        return await h.count("relay") == 1

    async def answered() -> bool:
        await h.sql("UPDATE relay SET due = at WHERE answer IS NULL")  # however long it waits for who was away
        h.parts.ways.relay.wake()
        return await h.count("relay", "answer IS NOT NULL") == 1

    await wait_until(taken)

    async def away(peer: str, body: bytes, send: Send) -> bytes:
        if not fed.clock.ahead:  # the sender is away when the receipt comes, and until its message has expired
            return await unreachable(peer, body, send)
        return await send()

    a.wire.hook = away
    await b.start()
    await wait_until(answered)
    fed.clock.ahead += timedelta(days=31)
    await fed.refresh()
    await a.becomes(sent, "delivered")
    assert not [entry for entry in await a.entries() if entry.kind == "undelivered"]
    await match_ledgers(a, b)


async def test_what_has_expired_is_asked_for_by_each_way_before_it_is_given_up(fed: Federation) -> None:
    (h,) = await fed.nodes("h", roles=HUB)
    (a,) = await fed.nodes("a")
    (b,) = await fed.nodes("b", facts=behind("h", modes=("hub", "push")))
    late = False

    async def cut(peer: str, body: bytes, send: Send) -> bytes:
        nonlocal late
        del body
        if peer == h.name:
            raise ProblemError("peer.unreachable", "the hub is down")
        answer = await send()
        if not late:  # its first answer is lost; before the hub's turn comes again, the message expires
            late = True
            fed.clock.ahead += timedelta(days=31)
            await fed.refresh()
            raise ProblemError("peer.unreachable", "cut")
        return answer

    a.wire.hook = cut
    sent = await a.trace(b)
    await a.becomes(sent, "delivered")
    assert [peer for peer, _, _ in a.wire.posts][-3:] == [b.name, h.name, b.name]
    assert not [entry for entry in await a.entries() if entry.kind == "undelivered"]


async def test_a_parcel_whose_proof_fails_whatever_else_is_sent_holds_up_no_other(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    a.wire.hook = unreachable
    first = await a.trace(b)

    async def refusing(peer: str, body: bytes, send: Send) -> bytes:
        del peer
        if first["id"].encode() in body:
            raise ProblemError("proof.origin", "a ledger that the recipient does not take")
        return await send()

    others = [await a.trace(b) for _ in range(5)]
    a.wire.hook = refusing
    for sent in others:
        await a.becomes(sent, "delivered")
    assert await a.delivery(first) == "queued"


async def test_a_message_that_is_sealed_again_in_the_next_ledger_is_receipted_under_its_number_there(
    fed: Federation,
) -> None:
    a, b = await fed.nodes("a", "b")
    a.wire.hook = unreachable
    await a.trace(b)
    sent = await a.trace(b)
    (claimed,) = await a._ports.exchange.unsettled(b.name, [UUID(sent["id"])])
    content = await a.parts.deliver._pack.content(claimed)
    first = PeerRef(origin=claimed.origin, index=claimed.index, leaf=leaf_hash(claimed.entry))
    again = a.parts.submit.reseal(claimed, content, first)
    await a.parts.committer.commit(replace(again, before=replace(again.before, origin=f"{a.name}/2025.1")))

    async def but_the_former(peer: str, body: bytes, send: Callable[[], Awaitable[bytes]]) -> bytes:
        """A POST may be under way whose bytes were claimed before."""
        if any(b'"pair_seq":2,' in item.place.entry for item in parse_post(body, answer=False).items):
            return await unreachable(peer, body, send)
        return await send()

    a.wire.hook = but_the_former
    await a.becomes(sent, "delivered")
    numbers = [(entry.kind, entry.pair_seq) for entry in await a.entries() if str(entry.id) == sent["id"]]
    assert numbers == [("sent", 2), ("sent", 3), ("receipt", 3)]


@pytest.mark.parametrize("cut_off", [False, True], ids=["goes on", "starts again"])
async def test_receipts_of_what_was_fetched_are_given_although_the_message_has_expired_since(
    fed: Federation, *, cut_off: bool
) -> None:
    (a,) = await fed.nodes("a")
    (b,) = await fed.nodes("b", facts=PULL)
    b.wire.cut = "peer.unreachable"
    sent = await a.trace(b)

    async def arrived() -> bool:
        return await b.count("inbox") == 1

    await wait_until(arrived)
    fed.clock.ahead += timedelta(days=31)
    await fed.refresh()
    await a.sql("UPDATE outbox SET due = expires")
    a.parts.deliver.wake()
    await a.becomes(sent, "undelivered")
    if cut_off:
        await b.stop()
        await b.start()
    b.wire.cut = ""
    await a.becomes(sent, "delivered")
    await match_ledgers(a, b)


async def test_what_waited_for_a_peer_goes_in_its_order_whatever_was_claimed_when_it_failed(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    failing = 3

    async def cut(peer: str, body: bytes, send: Send) -> bytes:
        nonlocal failing
        del peer, body
        if failing:
            failing -= 1
            raise ProblemError("peer.unreachable", "cut")
        return await send()

    a.wire.hook = unreachable
    sent = [await a.trace(b) for _ in range(PARCELS_MAX + 50)]  # more than are claimed at once
    a.wire.hook = cut
    for each in sent:
        await a.becomes(each, "delivered")
    numbers = {row["id"]: row["pair_seq"] for row in await a.rows("SELECT id, pair_seq FROM outbox")}
    came = [numbers[row["id"]] for row in await b.rows("SELECT id FROM inbox ORDER BY index")]
    assert came == sorted(came)


@pytest.mark.parametrize("starts_again", [False, True])
async def test_receipts_that_a_source_refuses_hold_up_nothing_that_it_offers(
    fed: Federation, *, starts_again: bool
) -> None:
    (a,) = await fed.nodes("a")
    (b,) = await fed.nodes("b", facts=PULL)
    b.wire.cut = "proof.origin"
    b.wraps.append(lambda ports: setattr(ports.transport, "cut", "proof.origin"))
    for count in (1, 2):
        if starts_again:
            await b.stop()
            await b.start()
        await a.trace(b)

        async def arrived(count: int = count) -> bool:
            return await b.count("inbox") == count

        await wait_until(arrived)
