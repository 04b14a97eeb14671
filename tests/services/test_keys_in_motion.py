"""Keys in motion: with an overlap from the directory every key changes under load, and no message notices."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import pytest

from gateway.runtime.cli.member import Changes
from gateway.runtime.node import follow_directory
from protocols.directory import Directory
from protocols.exchange.lines import parse_post
from protocols.problems import ProblemError
from tests.federation import Federation, Json, Node, match_ledgers

OVERLAP = timedelta(seconds=60)


async def test_every_key_of_both_ends_changes_while_messages_fly(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    before = {
        node.short: {use: node.keys.public(use)[0].kid for use in ("message", "seal", "request")} for node in (a, b)
    }
    ending, sent = asyncio.Event(), list[tuple[Node, Json]]()

    async def load(node: Node, to: Node) -> None:
        while not ending.is_set():
            sent.append((node, await node.trace(to)))
            await asyncio.sleep(0.01)

    loads = [asyncio.ensure_future(load(a, b)), asyncio.ensure_future(load(b, a))]
    for node in (a, b):
        for use in ("message", "seal", "request"):
            node.keys.add(use)  # type: ignore[arg-type]
    await fed.publish(a.ask(Changes(overlap=OVERLAP)), b.ask(Changes(overlap=OVERLAP)))
    promoted: list[str] = []
    for _ in range(15):  # what a running node does every minute; what waits is delivered between two looks
        fed.clock.ahead += OVERLAP / 6
        for node in (a, b):
            promoted += await node.follow_keys()
        for node, to in ((a, b), (b, a)):
            await node.becomes(await node.trace(to), "delivered", 30)
    ending.set()
    await asyncio.gather(*loads)
    assert len(promoted) == len(set(promoted)) == 6
    for node, each in sent:
        await node.becomes(each, "delivered", 30)
    after = {
        node.short: {use: node.keys.public(use)[0].kid for use in ("message", "seal", "request")} for node in (a, b)
    }
    assert all(before[short][use] != after[short][use] for short in before for use in before[short])
    kinds = await a.kinds()
    assert kinds.count("undelivered") == 0
    kids = {entry.kid for entry in await a.entries() if entry.kind == "sent"}
    assert kids == {before["a"]["message"], after["a"]["message"]}, "both were used"
    assert await a.count("outbox", "attempts > 0") == await b.count("outbox", "attempts > 0") == 0, (
        "nobody had to retry"
    )
    await match_ledgers(a, b)


async def test_r02_a_signing_key_that_changes_between_two_attempts_changes_no_receipt(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    receipts: list[bytes] = []

    async def lost_once(peer: str, body: bytes, send: Callable[[], Awaitable[bytes]]) -> bytes:
        answer = await send()
        receipts.extend(item.place.entry for item in parse_post(answer, answer=True).items)
        if len(receipts) == 1:
            for use in ("message", "request"):
                a.keys.add(use)  # type: ignore[arg-type]
            await fed.publish(a.ask(Changes(overlap=timedelta(0))))
            assert len(await a.follow_keys()) == 2
            raise ProblemError("peer.unreachable", "the answer was lost")
        return answer

    a.wire.hook = lost_once
    await a.becomes(await a.trace(b), "delivered")
    assert len(receipts) == 2
    assert receipts[0] == receipts[1]
    assert await b.count("inbox") == 1
    await match_ledgers(a, b)


async def test_a_key_takes_over_only_when_its_entry_stands(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    a.keys.add("message")
    await fed.publish(a.ask(Changes(overlap=timedelta(0))))
    await a.stop()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):  # the node is cut off while the entry is on its way
            await a.follow_keys()
    following = a.keys.next("message")
    assert following is not None
    await a.start()
    assert await a.follow_keys() == [following.kid]
    assert [entry.kid for entry in await a.entries() if entry.code == "promoted"] == [following.kid]
    await a.becomes(await a.trace(b), "delivered")


async def test_a_key_comes_to_its_hour_while_the_source_of_the_directory_is_away(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    a.keys.add("message")
    following = a.keys.next("message")
    await fed.publish(a.ask(Changes(overlap=timedelta(hours=1))))

    class Away:
        """A source that no refresh reaches."""

        current = fed.directory

        async def refresh(self, now: datetime) -> Directory:
            raise ProblemError("dir.stale", "made by the test")

    a._ports.directory = Away()  # type: ignore[assignment]
    for ahead in (timedelta(0), timedelta(hours=1, seconds=1)):
        fed.clock.ahead += ahead
        assert await follow_directory(a.parts.committer, a.keys, a._ports, fed.directory.ref) == fed.directory.ref
    assert a.keys.public("message")[0] == following
    a.keys.add("message")
    fed.clock.ahead += timedelta(days=400)
    assert await a.follow_keys() == [], "not by a clock that runs years ahead"


async def test_a_next_key_is_used_by_nobody_before_its_day(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    (m,) = await fed.strangers("m")
    a.keys.add("seal")
    following = a.keys.next("seal")
    assert following is not None
    assert await a.follow_keys() == [], "not listed yet"
    await fed.publish(a.ask(Changes(overlap=timedelta(hours=1))))
    assert await a.follow_keys() == [], "not valid yet"
    assert fed.directory.seal_key(a.name, fed.clock.now()).key.kid != following.kid
    fed.clock.ahead += timedelta(hours=1, seconds=1)
    assert await a.follow_keys() == [following.kid]
    assert fed.directory.seal_key(a.name, fed.clock.now()).key.kid == following.kid
    assert m
