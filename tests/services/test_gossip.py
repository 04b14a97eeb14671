"""Gossip: a member that shows two others two histories is found although neither ever sees both."""

from pathlib import Path
from typing import Any

from protocols.ledger.entry import Entry
from protocols.ledger.merkle import consistency_path
from protocols.ledger.proof import Place
from tests.federation import Federation, Node, Stranger, refused
from tests.services.test_receive import proven_fork


async def newest(node: Node, m: Stranger) -> int:
    return int((await node.sql("SELECT max(size) FROM peer_checkpoint WHERE origin = $1 AND linked", m.origin))[0])


async def test_two_histories_that_no_one_saw_both_of_are_found_by_asking_others(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    (m,) = await fed.strangers("m")
    fork = m.fork()
    for node, side in ((a, m), (b, fork)):
        for _ in range(2):
            await side.give(node, side.parcel(node))
    while len(fork.log) < len(m.log):
        fork.add(Entry(kind="admin", at=fed.clock.now(), n=bytes(16), code="x"))
    await fork.give(b, fork.parcel(b))
    await m.give(a, m.parcel(a))
    assert not a.parts.linking.alarms
    assert await a.parts.gossip.ask() == 0
    assert a.parts.linking.alarms[m.origin] == "ledger.split_view"
    (row,) = await a.rows("SELECT * FROM split_view")
    assert row["origin"] == m.origin
    assert row["first"] != row["second"], "both signed notes: whoever has the directory can verify that"


async def test_what_another_holds_and_our_tree_does_not_go_on_from_is_a_second_history(
    fed: Federation, tmp_path: Path
) -> None:
    (b,) = await fed.nodes("b")
    (m,) = await fed.strangers("m")
    for _ in range(5):
        m.parcel(b)
    fork = m.fork()
    fork.parcel(b)
    m.parcel(b)
    assert isinstance(await m.give(b, m.parcel(b)), Place)
    assert await newest(b, m) == 8
    linking, path = b.parts.linking, consistency_path(6, 8, m.node)
    await linking.precedes(linking.heard(m.origin, m.note(6), fed.directory), 8, path)
    heard = linking.heard(m.origin, fork.note(6), fed.directory)
    await refused("checkpoint.links", linking.precedes(heard, 8, path[1:]))
    await refused("ledger.split_view", linking.precedes(heard, 8, path))
    assert proven_fork(await b.sql("SELECT first, second FROM split_view"), m, tmp_path) == ("size", 6)


async def test_what_others_hold_more_of_is_linked_and_less_is_led_from(fed: Federation) -> None:
    a, b, c = await fed.nodes("a", "b", "c")
    for to in (b, c):
        sent = await a.trace(to)
        await a.becomes(sent, "delivered")
    for _ in range(3):
        await a.becomes(await a.trace(c), "delivered")
    first = (await b.sql("SELECT max(size) FROM peer_checkpoint WHERE origin = $1", a.origin))[0]
    more = (await c.sql("SELECT max(size) FROM peer_checkpoint WHERE origin = $1", a.origin))[0]
    assert first < more
    assert await c.parts.gossip.ask() >= 1, "what is older leads to what is held here"
    assert not c.parts.linking.alarms
    assert await b.parts.gossip.ask() >= 1
    held = await b.parts.linking._store.held(a.origin)
    assert (held.linked, b.parts.linking.alarms) == (more, {})


async def test_tiles_that_lead_nowhere_are_an_alarm_and_a_peer_that_lies_proves_nothing(fed: Federation) -> None:
    a, b, c = await fed.nodes("a", "b", "c")
    for to in (b, c, c, c):
        await a.becomes(await a.trace(to), "delivered")

    class Lying:
        """The way out of a node, on which one answer is another."""

        def __init__(self, real: Any, **instead: Any) -> None:
            self._real, self._instead = real, instead

        def __getattr__(self, name: str) -> Any:
            return self._instead.get(name) or getattr(self._real, name)

    async def junk(*_: Any) -> bytes:
        return b"no note"

    async def zeros(owner: Any, origin: str, path: str) -> bytes:
        return bytes(len(await c.wire.tile(owner, origin, path) or b""))

    gossip = c.parts.gossip
    gossip._transport = Lying(c.wire, checkpoint=junk)
    assert await gossip.ask() == 0
    assert c.parts.linking.alarms == {}
    gossip._transport = Lying(c.wire, tile=zeros)
    assert await gossip.ask() == 0
    assert c.parts.linking.alarms[a.origin] == "checkpoint.links"
