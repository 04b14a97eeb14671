"""Keys in motion: with an overlap from the directory every key changes under load, and no message notices."""

import asyncio
from datetime import timedelta

from gateway.runtime.cli.member import Changes
from gateway.runtime.node import follow_keys
from tests.federation import Federation, Json, Node, match_ledgers

OVERLAP = timedelta(seconds=0.6)


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
    for _ in range(20):  # what a running node does every minute
        for node in (a, b):
            promoted += follow_keys(node.keys, fed.directory, fed.clock.now())
        await asyncio.sleep(0.1)
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


async def test_a_next_key_is_used_by_nobody_before_its_day(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    (m,) = await fed.strangers("m")
    a.keys.add("seal")
    following = a.keys.next("seal")
    assert following is not None
    assert follow_keys(a.keys, fed.directory, fed.clock.now()) == [], "not listed yet"
    await fed.publish(a.ask(Changes(overlap=timedelta(hours=1))))
    assert follow_keys(a.keys, fed.directory, fed.clock.now()) == [], "not valid yet"
    assert fed.directory.seal_key(a.name, fed.clock.now()).key.kid != following.kid
    fed.clock.ahead += timedelta(hours=1, seconds=1)
    assert follow_keys(a.keys, fed.directory, fed.clock.now()) == [following.kid]
    assert fed.directory.seal_key(a.name, fed.clock.now()).key.kid == following.kid
    assert m
