"""Checkpoints are kept unlinked first and linked by whatever comes next; a failing link proves nothing."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from protocols.exchange.lines import Post, encode_post, parse_post
from protocols.ledger.linking import Link
from protocols.ledger.proof import Place
from protocols.limits import UNLINKED_MAX
from tests.federation import Federation, Node, Stranger, match_ledgers, unreachable, wait_until

NO_LINKS: Mapping[str, tuple[Link, ...]] = {}


@pytest.fixture
async def pair(fed: Federation) -> tuple[Node, Stranger]:
    (node,) = await fed.nodes("b")
    (stranger,) = await fed.strangers("m")
    return node, stranger


async def held(node: Node) -> tuple[list[int], list[int]]:
    """Linked and unlinked sizes that a node holds."""
    rows = await node.rows("SELECT size, linked FROM peer_checkpoint ORDER BY size")
    return [row["size"] for row in rows if row["linked"]], [row["size"] for row in rows if not row["linked"]]


async def test_a_checkpoint_that_cannot_be_linked_yet_takes_effect_and_is_linked_by_the_next_post(
    pair: tuple[Node, Stranger],
) -> None:
    b, m = pair
    assert isinstance(await m.give(b, m.parcel(b)), Place)
    assert await held(b) == ([2], [])
    assert isinstance(await m.give(b, m.parcel(b), links=NO_LINKS), Place), "its parcel counts at once"
    assert (await held(b), m.held) == (([2], [3]), (2, 3)), "the newest linked first, then the unlinked"
    assert isinstance(await m.give(b, m.parcel(b)), Place)
    assert (await held(b), m.held) == (([2, 3, 4], []), (4,))


async def test_a_parcel_under_an_older_checkpoint_is_taken_and_that_checkpoint_is_linked(
    pair: tuple[Node, Stranger],
) -> None:
    b, m = pair
    old = m.parcel(b)
    for _ in range(3):
        assert isinstance(await m.give(b, m.parcel(b)), Place)
    assert isinstance(await m.give(b, old), Place)
    assert (await held(b), m.held) == (([3, 4, 5], [2]), (5, 2)), "the linked row never goes back"
    assert isinstance(await m.give(b, m.parcel(b)), Place)
    assert (await held(b), m.held) == (([2, 3, 4, 5, 6], []), (6,))


async def test_above_sixteen_unlinked_a_post_waits_and_links_alone_open_the_way_again(
    pair: tuple[Node, Stranger],
) -> None:
    b, m = pair
    for _ in range(UNLINKED_MAX):
        m.parcel(b)
        assert isinstance(await m.give(b, m.parcel(b), links=NO_LINKS), Place)
    waiting = m.parcel(b)
    assert await m.give(b, waiting, links=NO_LINKS) == "checkpoint.unlinked"
    assert await b.count("inbox") == UNLINKED_MAX
    assert len(m.held) == 1 + UNLINKED_MAX
    assert isinstance(await m.give(b, m.fresh(waiting)), Place), "links along what was named bring all in"
    assert (await held(b))[1] == []


async def test_a_link_that_fails_is_dropped_and_its_checkpoint_stays_unlinked(pair: tuple[Node, Stranger]) -> None:
    b, m = pair
    assert isinstance(await m.give(b, m.parcel(b)), Place)
    parcel = m.parcel(b)
    (good,) = m.links(3, (2,))
    wrong = {m.origin: (replace(good, path=(bytes(32), *good.path[1:])),)}
    assert isinstance(await m.give(b, parcel, links=wrong), Place)
    assert await held(b) == ([2], [3])
    assert b.parts.linking.alarms == {m.origin: "checkpoint.links"}
    assert isinstance(await m.give(b, m.fresh(parcel)), Place)
    assert (await held(b), b.parts.linking.alarms) == (([2, 3], []), {})


async def test_who_was_named_an_unlinked_size_greets_with_links_and_no_parcel(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")

    async def without_links(peer: str, body: bytes, send: Any) -> bytes:
        post = parse_post(body, answer=False)
        bare = Post(hello=replace(post.hello, links={}), checkpoints=post.checkpoints, items=post.items)
        return await a.wire.client.post(fed.directory.records[peer], encode_post(bare))

    a.wire.hook = without_links
    await a.becomes(await a.trace(b), "delivered")
    assert (await held(b))[1], "a size of ours that they could not link"
    a.wire.hook = None
    before = len(a.wire.posts)

    async def greeted() -> int:  # not while the delivery of the message has not ended
        await a.parts.deliver.greet()
        return len(a.wire.posts) - before

    assert await wait_until(greeted) == 1
    post = a.wire.posts[before]
    assert parse_post(post[1], answer=False).items == ()
    assert (await held(b))[1] == []
    await a.parts.deliver.greet()
    assert len(a.wire.posts) == before + 1, "nothing is unlinked any more"


async def test_an_unreachable_peer_or_a_store_that_is_away_ends_no_greeting_loop(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    await a.sql("INSERT INTO peer_named VALUES ($1, $2, '{0,1}')", b.name, a.origin)
    a.wire.hook = unreachable
    await a.parts.deliver.greet()
    await a.sql("ALTER TABLE peer_named RENAME TO gone")
    await a.parts.deliver.greet()
    await a.sql("ALTER TABLE gone RENAME TO peer_named")
    a.wire.hook = None
    await a.becomes(await a.trace(b), "delivered")
    await match_ledgers(a, b)


@pytest.mark.parametrize("minutes", [-5, -1, 1, 5])
async def test_a_members_clock_that_is_wrong_is_an_alarm_while_messages_say_so(fed: Federation, minutes: int) -> None:
    (a,) = await fed.nodes("a")
    (m,) = await fed.strangers("m")
    a.wire.hook = m.answering(lambda parcel: m.receipt(parcel, at=fed.clock.now() + timedelta(minutes=minutes)))
    await a.becomes(await a.trace(m), "delivered")
    wrong = {m.origin: "ledger.skew"} if abs(minutes) > 2 else {}
    assert a.parts.linking.alarms == wrong
    await a.parts.linking.watch(fed.directory)
    assert a.parts.linking.alarms == {}
    await m.give(a, m.parcel(a, entry={"at": fed.clock.now() + timedelta(minutes=minutes)}))
    assert a.parts.linking.alarms == (wrong if minutes > 0 else {}), "what is sent may wait for long"
