"""Group ledger of the attacks: what a database administrator or an operator does to a ledger, and who notices.

The files an auditor gets are taken out of the real database as it lies there, by an exporter that hides nothing and repairs nothing,
and judged by the independent verifier. Witness and guard see the rest.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

import pytest

from gateway.services.changes import Noted
from gateway.services.prove import Prove, Release
from keys.suite import Tw1Verifier
from protocols.directory import witness_keys
from protocols.ledger.entry import Entry
from protocols.ledger.merkle import consistency_path, leaf_hash, node_hash
from protocols.ledger.merkle import root as tree_root
from protocols.ledger.witness import format_request
from protocols.problems import ProblemError
from tests.fault.invariants import VERIFIER, View
from tests.federation import Federation, Node, Stranger, refused, wait_until
from tests.runtime.test_ledger_files import tracewire
from tests.services.test_receive import proven_fork

Damage = Callable[[Node], Awaitable[None]]


async def stopped(fed: Federation) -> Node:
    """A node with a ledger of ten entries, stopped so that nobody but the administrator touches its database."""
    a, b = await fed.nodes("a", "b")
    for _ in range(4):
        await a.becomes(await a.trace(b), "delivered")
    await a.parts.committer.commit(Noted(entry=Entry(kind="admin", at=fed.clock.now(), n=os.urandom(16), code="test")))
    await a.stop()
    assert await a.count("entry") == 10
    return a


async def audit(node: Node, folder: Path) -> str:
    """What the independent verifier says of the files: '' where all holds."""
    (await View(node).read()).export(folder, set())
    try:
        VERIFIER.verify_log(folder, list(node.keys.note_signer(node.origin).vkeys))
    except VERIFIER.Failure as failure:
        return str(failure)
    return ""


async def changed(node: Node) -> None:
    await node.sql(
        "UPDATE entry SET data = replace(convert_from(data, 'UTF8'), '\"kid\":\"', '\"kid\":\"x')::bytea WHERE index = 3"
    )


async def deleted(node: Node) -> None:
    await node.sql("DELETE FROM entry WHERE index = 4")


async def reordered(node: Node) -> None:
    await node.sql("UPDATE entry SET index = CASE index WHEN 5 THEN 1006 ELSE 1005 END WHERE index IN (5, 6)")
    await node.sql("UPDATE entry SET index = index - 1000 WHERE index > 1000")


async def cut(node: Node) -> None:
    await node.sql("DELETE FROM entry WHERE index >= 7")


async def recomputed(node: Node) -> None:
    """An entry changed, and every tile and the head made to fit: only what was signed does not."""
    await changed(node)
    rows = await node.rows("SELECT data FROM entry ORDER BY index")
    hashes = [leaf_hash(row["data"]) for row in rows]

    def hashed(level: int, index: int) -> bytes:
        if level == 0:
            return hashes[index]
        return node_hash(hashed(level - 1, 2 * index), hashed(level - 1, 2 * index + 1))

    await node.sql("UPDATE tile SET data = $1 WHERE level = 0", b"".join(hashes))
    await node.sql("UPDATE ledger_head SET root = $1", tree_root(len(hashes), hashed))


@pytest.mark.parametrize(
    ("attack", "damage", "said"),
    [
        ("L01 an entry changed", changed, "first at entry 3"),
        ("L01 an entry and the tiles changed", recomputed, "root: the entries do not give the signed root of size 10"),
        (
            "L02 an entry deleted",
            deleted,
            "bundle: bundle 0 holds 9 entries, whole or cut, not 10: wrong from entry 4 on",
        ),
        ("L02 two entries in another order", reordered, "first at entry 5"),
        ("L02 the end cut off", cut, "bundle: bundle 0 holds 7 entries, whole or cut, not 10: wrong from entry 7 on"),
    ],
)
async def test_what_an_administrator_does_to_entries_the_auditor_sees(
    fed: Federation, tmp_path: Path, attack: str, damage: Damage, said: str
) -> None:
    node = await stopped(fed)
    assert await audit(node, tmp_path / "whole") == ""
    await damage(node)
    assert said in await audit(node, tmp_path / "damaged"), attack
    await node.start()
    await node.parts.recomputing.look()
    if damage is recomputed:
        assert node.parts.committer.halted, "what is signed no longer fits what stands"
    else:
        assert node.parts.linking.alarms == {node.origin: "ledger.entry_changed"}


async def test_l04_a_history_that_was_rewritten_and_signed_with_the_stolen_key_finds_no_witness_and_proves_itself(
    fed: Federation, tmp_path: Path
) -> None:
    (b,) = await fed.nodes("b")
    (m,) = await fed.strangers("m")
    for _ in range(5):
        m.parcel(b)
    assert isinstance(await _ask(m, b, 0), bytes)
    m.log[2] = m.log[2].replace(b'"kid":"', b'"kid":"x')  # entry 2 never was so; everything is signed anew
    m._nodes.clear()
    m.parcel(b)
    assert await _ask(m, b, 6) == "ledger.split_view"
    assert await _ask(m, b, 0) == "ledger.split_view", "from the beginning neither"
    assert proven_fork(await b.sql("SELECT first, second FROM split_view"), m, tmp_path) == ("size", 6)
    held = await b.sql("SELECT size, note FROM peer_checkpoint WHERE linked ORDER BY size DESC LIMIT 1")
    assert held["size"] == 6
    keys = witness_keys(fed.directory.records[b.name])
    assert keys is not None
    assert keys.cosignature(m.note(), Tw1Verifier()) is None


async def test_l04_a_database_that_was_rewritten_and_signed_with_the_stolen_keys_is_caught_by_witness_and_peer(
    fed: Federation, tmp_path: Path
) -> None:
    a, b = await fed.nodes("a", "b")
    for _ in range(4):
        await a.becomes(await a.trace(b), "delivered")
    assert await a.parts.witness.collect() == 1
    await a.stop()
    await recomputed(a)
    size, root = await a.sql("SELECT size, root FROM ledger_head")
    note = a.keys.note_signer(a.origin).sign(size, root, fed.clock.now())
    await a.sql("DELETE FROM checkpoint WHERE size < $1", size)
    await a.sql("UPDATE checkpoint SET root = $1, note = $2", root, note)
    await a.sql("DELETE FROM cosignature")
    (a.folder / "keys" / "guard.json").unlink()
    await a.found(size, root)
    await a.start()
    await a.parts.recomputing.look()
    assert not a.parts.committer.halted
    assert a.parts.linking.alarms == {}, "the node itself was lied to"
    assert await audit(a, tmp_path / "rewritten") == "", "and so is who sees its files alone"
    await a.becomes(await a.trace(b), "delivered")  # what is not linked yet takes effect, and is named
    sent = await a.trace(b)
    await wait_until(lambda: _refused(a))
    assert await a.delivery(sent) == "queued"
    assert b.parts.linking.alarms == {a.origin: "ledger.split_view"}
    assert proven_fork(await b.sql("SELECT first, second FROM split_view"), a, tmp_path) == ("size", size)
    assert await a.parts.witness.collect() == 0


async def _refused(a: Node) -> bool:
    return await a.count("outbox", "problem = 'ledger.split_view'") == 1


async def _ask(m: Stranger, to: Node, old: int) -> bytes | int | str:
    path = tuple(consistency_path(old, len(m.log), m.node)) if old else ()
    client = m.client()
    try:
        return await client.add_checkpoint(m.fed.directory.records[to.name], format_request(old, path, m.note()))
    except ProblemError as problem:
        return problem.code
    finally:
        await client.close()


async def test_l10_a_message_without_its_entry_is_never_sent(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    sent = await a.trace(b)
    await a.becomes(sent, "delivered")
    posts = len(a.wire.posts)
    columns = (await a.sql("SELECT string_agg(quote_ident(column_name), ', ') FROM information_schema.columns "
                           "WHERE table_name = 'outbox' AND column_name NOT IN ('id', 'index', 'state', 'envelope')"))[0]  # fmt: skip
    forged = UUID("01934c8a-0000-7000-8000-000000000001")
    await a.sql(
        f"INSERT INTO outbox (id, index, state, envelope, {columns}) SELECT $1, 999, 'queued', 'x', {columns} FROM outbox WHERE id = $2",
        *(forged, UUID(sent["id"])),
    )
    a.parts.deliver.wake()
    other = await a.trace(b)
    await a.becomes(other, "delivered")
    assert [body for _, body, _ in a.wire.posts[posts:] if str(forged).encode() in body] == []

    async def looked_at() -> bool:
        return (await a.sql("SELECT leased FROM outbox WHERE id = $1", forged))[0] is not None

    await wait_until(looked_at)
    assert await a.delivery({"id": str(forged)}) == "queued", "it is seen in `outbox list`, and nothing of it left"
    assert await b.count("inbox") == 2


@pytest.mark.parametrize("level", [0, 1])
async def test_l07_a_bit_that_flipped_in_a_tile_is_noticed_before_a_proof_leaves_and_mended_from_the_entries(
    fed: Federation, tmp_path: Path, level: int
) -> None:
    (a,) = await fed.nodes("a")
    entries = (Entry(kind="admin", at=fed.clock.now(), n=os.urandom(16), code="test") for _ in range(599))
    await asyncio.gather(*(a.parts.committer.commit(Noted(entry=entry)) for entry in entries))
    flip = "UPDATE tile SET data = set_byte(data, 5, get_byte(data, 5) # 1) WHERE level = $1 AND index = 0"
    await a.sql(flip, level)
    prove = Prove(a._ports.ledger, Release(a._ports.ledger, a._ports.guard, lambda: False))
    newest = await prove.newest(a.origin)
    away = 300 if level == 1 else 1
    await refused("ledger.tile_corrupt", prove.places_at(newest, [away]))
    await a.parts.recomputing.look()
    assert a.parts.linking.alarms == {a.origin: "ledger.tile_corrupt"}
    wrong = await audit(a, tmp_path / "flipped")
    assert wrong.startswith(f"tile: tile/{level}/000"), "an auditor who gets such files is told which one, and where"
    assert (await tracewire("ledger", "repair", a.folder))["mended"] == [("tile/0/000", "tile/1/000.p/2")[level]]
    assert (await prove.places_at(newest, [away]))[away].index == away
    await a.parts.recomputing.look()
    assert a.parts.linking.alarms == {}
    assert (await tracewire("ledger", "repair", a.folder))["mended"] == []
    await a.sql("DELETE FROM tile WHERE level = $1 AND index = 0", level)
    assert len((await tracewire("ledger", "repair", a.folder))["mended"]) == 1, "a missing one too"
    assert (await prove.places_at(newest, [away]))[away].index == away
    await a.sql("UPDATE entry SET data = set_byte(data, 5, get_byte(data, 5) # 1) WHERE index = 7")
    assert (await tracewire("ledger", "repair", a.folder))["code"] == "ledger.entry_changed"
