"""What a member could do to a node with words, forks and haste, and what it gets instead."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from gateway.runtime.compose import warnings, wrong
from protocols.exchange.lines import Parcel
from protocols.ledger.checkpoint import parse_checkpoint
from protocols.ledger.entry import parse_entry
from protocols.ledger.proof import Place
from tests.federation import Federation, Node, Stranger, match_ledgers, refused, wait_until


@pytest.fixture
async def pair(fed: Federation) -> tuple[Node, Stranger]:
    (node,) = await fed.nodes("b")
    (stranger,) = await fed.strangers("m")
    return node, stranger


async def test_a_peers_own_words_never_reach_our_ledger_nor_end_the_committer(pair: tuple[Node, Stranger]) -> None:
    b, m = pair

    def spiteful(parcel: Parcel) -> Any:
        sent = parse_entry(parcel.place.entry)
        members = {"kind": "refused", "code": "env.invalid", "read": False, "kid": None, "seal_kid": None}
        receipt = m.receipt(parcel, **members, suite=None, content_c=None, thread_c=None)
        entry = receipt.place.entry.replace(b'"env.invalid"', b'"' + b"x" * 200 + b'"')
        m.log[-1] = entry
        assert sent.id is not None
        return replace(receipt, place=m.place(len(m.log) - 1))

    b.wire.hook = m.answering(spiteful)
    sent = await b.trace(m)

    async def asked() -> bool:
        return len(b.wire.posts) > 0

    await wait_until(asked)
    assert await b.delivery(sent) == "queued"
    b.wire.hook = m.answering(m.receipt)
    await b.becomes(sent, "delivered")
    assert b"xxxx" not in b"".join(entry.encode() for entry in await b.entries())


async def test_two_futures_of_one_size_sent_at_once_are_never_both_linked(pair: tuple[Node, Stranger]) -> None:
    b, m = pair
    assert isinstance(await m.give(b, m.parcel(b)), Place)
    other = m.fork()
    posts = [each.post(b, each.parcel(b), each.parcel(b)) for each in (m, other)]
    for _ in range(2):  # the two trees differ from here on, also in size
        other.parcel(b)
    await asyncio.gather(*posts, return_exceptions=True)
    rows = await b.rows("SELECT size, root FROM peer_checkpoint WHERE linked ORDER BY size")
    trees = [[row["root"] == parse_checkpoint(each.note(row["size"])).root for row in rows] for each in (m, other)]
    assert all(trees[0]) or all(trees[1]), "what is linked is one history"


async def test_a_stranger_cannot_open_a_thread_that_exists_with_another(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    (m,) = await fed.strangers("m")
    sent = await a.trace(b)
    await a.becomes(sent, "delivered")
    place = await m.give(a, m.parcel(a, message={"thread": UUID(sent["thread"])}))
    assert (parse_entry(place.entry).kind, parse_entry(place.entry).code) == ("refused", "msg.correlation")
    assert [row["counterpart"] for row in await a.rows("SELECT counterpart FROM leg")] == [b.name]
    await match_ledgers(a, b)


async def test_an_expiry_that_no_receiver_would_take_is_refused_before_anything_is_logged(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    now = fed.clock.now()
    for expires in (now - timedelta(seconds=1), now + timedelta(days=91)):
        await refused("schema.invalid", a.send(a.draft(b, expires=expires)))
    assert "sent" not in await a.kinds()


async def test_a_repetition_is_answered_as_before_even_when_the_recipient_was_suspended_meanwhile(
    fed: Federation,
) -> None:
    a, b = await fed.nodes("a", "b")
    first = await a.trace(b, key="k", digest=b"1")
    await a.becomes(first, "delivered")
    fed.set_status(b, "suspended")
    await fed.publish()
    await fed.refresh()
    assert await a.trace(b, key="k", digest=b"1") == first
    await refused("peer.suspended", a.trace(b, key="other", digest=b"1"))


async def test_a_foreign_alarm_is_a_warning_and_leaves_us_ready(pair: tuple[Node, Stranger]) -> None:
    b, m = pair
    b.parts.linking.alarms[m.origin] = "checkpoint.links"
    ports: Any = SimpleNamespace(directory=b.parts.directory, clock=b._ports.clock)
    assert wrong(ports, b.parts.committer) == {}
    assert warnings(ports, b.parts.linking) == {f"ledger {m.origin}": "checkpoint.links"}


async def test_a_member_holds_at_most_its_share_of_posts_at_once(pair: tuple[Node, Stranger]) -> None:
    b, m = pair
    parcels = [m.parcel(b) for _ in range(12)]
    found = await asyncio.gather(*(m.give(b, parcel) for parcel in parcels), return_exceptions=True)
    assert all(isinstance(each, Place) or getattr(each, "code", "") == "store.busy" for each in found), found
    assert any(isinstance(each, Place) for each in found)
