"""A database that went back or was rewritten is recognised: the node answers 503 and signs nothing more."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from gateway.runtime.cli.member import Changes
from gateway.runtime.node import serve
from keys.guard import FileGuard
from protocols.ledger.checkpoint import parse_checkpoint
from protocols.ledger.merkle import leaf_hash
from protocols.problems import ProblemError
from protocols.strict import dump_json, parse_object
from tests.federation import (
    Federation,
    Node,
    match_ledgers,
    refused,
    trace_request,
    unreachable,
    verify_ledger,
    wait_until,
)

Damage = Callable[[Node], Awaitable[None]]


async def grown(fed: Federation) -> Node:
    """A stopped node whose ledger has five entries."""
    a, b = await fed.nodes("a", "b")
    for _ in range(2):
        await a.becomes(await a.trace(b), "delivered")
    await a.stop()
    return a


async def is_halted(node: Node, fed: Federation, size: int) -> None:
    """Starts the node: 503 to all but GET /checkpoints, and nothing of the database changes by it."""
    tables = ("entry", "checkpoint", "outbox", "inbox", "refusal", "tile")
    before = {table: await node.count(table) for table in tables}
    await node.start()
    assert node.parts.committer.halted is not None
    (m,) = await fed.strangers("m")
    await refused("ledger.rollback", node.trace(m))
    await refused("ledger.rollback", m.post(node, m.parcel(node)))
    client = m.client()
    try:
        peer = fed.directory.records[node.name]
        log = sha256(node.origin.encode()).hexdigest()
        for path in (
            f"/ledger/{log}/checkpoint",
            f"/ledger/{log}/tile/0/000.p/1",
            "/exchange/v1/directory/1.root.json",
        ):
            await refused("ledger.rollback", client._send(peer, "GET", path, None, 1 << 20))
        note = await client.checkpoint(peer, node.origin)
    finally:
        await client.close()
    assert parse_checkpoint(note or b"").size == size
    assert await node.parts.deliver.deliver("testnet/b") is False, "nothing of ours leaves"
    assert {table: await node.count(table) for table in tables} == before
    await node.stop()


async def test_an_older_copy_of_the_database_is_recognised(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    await a.becomes(await a.trace(b), "delivered")
    await a.stop()
    older, size = await a.copy_database(), len(await a.entries())
    await a.start()
    await a.becomes(await a.trace(b), "delivered")
    await a.stop()
    newest = a.database
    a.use_database(older)
    await is_halted(a, fed, size)
    a.use_database(newest)
    await a.start()
    await a.becomes(await a.trace(b), "delivered")
    await match_ledgers(a, b)


@pytest.mark.parametrize("goes_on", [False, True], ids=["at once", "after it has gone on in another way"])
async def test_a_machine_that_was_set_back_whole_is_told_by_its_witnesses(fed: Federation, *, goes_on: bool) -> None:
    a, b = await fed.nodes("a", "b")
    await a.becomes(await a.trace(b), "delivered")
    await a.stop()
    older, guard = await a.copy_database(), (a.folder / "keys/guard.json").read_bytes()
    await a.start()
    for _ in range(2):
        await a.becomes(await a.trace(b), "delivered")
    await a.stop()
    newest = a.database
    a.use_database(older)
    (a.folder / "keys/guard.json").write_bytes(guard)  # no backup of ours holds it; an image of the machine does
    await a.start()
    assert a.parts.committer.halted is None, "it knows nothing of it"
    if goes_on:
        a.wire.hook = unreachable
        for _ in range(3):
            await a.trace(b)
        a.wire.hook = None
    assert await a.parts.witness.collect() == 0
    await refused("ledger.rollback", a.trace(b))
    await a.stop()
    if goes_on:
        return
    await is_halted(a, fed, await a.count("entry"))  # the guard remembers what it was told
    await a.stop()
    a.use_database(newest)
    await a.start()
    await a.becomes(await a.trace(b), "delivered")
    await match_ledgers(a, b)


async def test_a_witness_that_refuses_halts_nobody_by_its_word(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    await a.becomes(await a.trace(b), "delivered")
    assert await a.parts.witness.collect() == 1
    await a.becomes(await a.trace(b), "delivered")

    async def refuses(*_: object) -> bytes:
        raise ProblemError("ledger.split_view", "made by the test")

    a.wire.add_checkpoint = refuses  # type: ignore[method-assign]
    assert await a.parts.witness.collect() == 0
    assert a.parts.committer.halted is None, "what it holds is ours, whatever it says"


async def test_p05_a_backup_from_before_a_rotation_is_refused_and_what_it_holds_stays_readable(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    part = {"persons": [{"role": {"code": "SUSPECT", "raw": ""}, "name": "Somebody"}]}
    body = trace_request() | {"persons": {"part": "persons"}}
    sent = await a.send(a.draft(b, body=body, parts={"persons": part}))
    await a.becomes(sent, "delivered")
    await b.stop()
    older, size = await b.copy_database(), len(await b.entries())
    await b.start()
    b.keys.add("seal")
    await fed.publish(b.ask(Changes(overlap=timedelta(0))))
    assert await b.follow_keys()
    await a.becomes(await a.trace(b), "delivered")
    await b.stop()
    newest = b.database
    b.use_database(older)
    await is_halted(b, fed, size)
    b.use_database(newest)
    await b.start()
    content = await b.read.content(a.name, UUID(sent["id"]))
    assert content.read_parts(b.keys.opener()) == {"persons": part}
    await a.becomes(await a.trace(b), "delivered")
    await match_ledgers(a, b)


async def no_guard(node: Node) -> None:
    (node.folder / "keys" / "guard.json").unlink()


async def damaged_guard(node: Node) -> None:
    (node.folder / "keys" / "guard.json").write_bytes(b'{"v":1')


def guard_with(at: int, value: Any) -> Damage:
    async def change(node: Node) -> None:
        path = node.folder / "keys" / "guard.json"
        found = parse_object(path.read_bytes(), bytes_max=65_536)
        found["marks"][node.origin][at] = value
        path.write_bytes(dump_json(found))

    return change


def sql(statement: str) -> Damage:
    async def change(node: Node) -> None:
        await node.sql(statement.format(origin=node.origin))

    return change


async def forged_root(node: Node) -> None:
    """An entry rewritten with everything the administrator can recompute; only our signatures are missing."""
    data = (await node.sql('SELECT data FROM entry WHERE "index" = 1'))["data"].replace(b"sent", b"tnes")
    await node.sql('UPDATE entry SET data = $1 WHERE "index" = 1', data)
    leaves = [leaf_hash(row["data"]) for row in await node.rows("SELECT data FROM entry ORDER BY index")]
    from protocols.ledger.tiles import Edge

    edge = Edge(0, {})
    for (_, index), tile in edge.append(leaves).items():
        await node.sql("UPDATE tile SET data = $1 WHERE level = 0 AND index = $2", tile, index)
    await node.sql("UPDATE ledger_head SET root = $1", edge.root())
    await node.sql("UPDATE checkpoint SET root = $1 WHERE size = $2", edge.root(), len(leaves))


DAMAGES: dict[str, Damage] = {
    "the guard was removed": no_guard,
    "the guard is damaged": damaged_guard,
    "the guard remembers more": guard_with(0, 6),
    "the guard remembers another root": guard_with(1, "A" * 43),
    "another database cluster": guard_with(2, "7000000000000000000"),
    "another timeline": guard_with(3, 2),
    "the head's size was lowered": sql("UPDATE ledger_head SET size = 3"),
    "the head's size was raised": sql("UPDATE ledger_head SET size = 6"),
    "the head's root was changed": sql("UPDATE ledger_head SET root = sha256('x')"),
    "a tile was changed": sql("UPDATE tile SET data = overlay(data PLACING sha256('x') FROM 33)"),
    "a tile was cut": sql("UPDATE tile SET data = substr(data, 1, 64)"),
    "a tile is gone": sql("DELETE FROM tile"),
    "the checkpoint's signature is garbage": sql("UPDATE checkpoint SET note = overlay(note PLACING '\\x41414141' FROM length(note) - 2000) WHERE size = 5"),
    "the checkpoint is gone": sql("DELETE FROM checkpoint WHERE size = 5"),
    "the tree was recomputed": forged_root,
}  # fmt: skip
READABLE = {"the checkpoint's signature is garbage", "the checkpoint is gone"}


async def test_a_ledger_that_is_not_what_we_signed_is_signed_no_further(fed: Federation) -> None:
    node = await grown(fed)
    whole, guard = node.database, node.folder / "keys" / "guard.json"
    remembered, size = guard.read_bytes(), len(await verify_ledger(node))
    assert size == 5
    for name, damage in DAMAGES.items():
        node.use_database(whole)
        guard.write_bytes(remembered)
        guard.chmod(0o600)
        if "guard" not in name and "another" not in name:
            node.use_database(await node.copy_database())
        await damage(node)
        await node.start()
        halted = node.parts.committer.halted
        assert halted is not None, name
        assert halted.code == "ledger.rollback", name
        await refused("ledger.rollback", node.trace(fed.members[1]))
        assert await node.count("entry") == size, name
        await node.stop()
    node.use_database(whole)
    guard.write_bytes(remembered)
    await node.start()
    assert node.parts.committer.halted is None
    assert len(await verify_ledger(node)) == size


async def test_a_rollback_answers_503_to_all_but_the_checkpoints(fed: Federation) -> None:
    node = await grown(fed)
    await no_guard(node)
    await is_halted(node, fed, 5)


async def test_a_guard_that_vanishes_while_the_node_runs_halts_it(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    await a.becomes(await a.trace(b), "delivered")

    async def raised() -> (
        bool
    ):  # after COMMIT, which is what we have seen: a guard that went before would be made again
        mark = FileGuard(a.folder / "keys").read(a.origin)
        return mark is not None and mark.size == await a.count("entry")

    await wait_until(raised)
    await no_guard(a)
    await refused("ledger.rollback", a.trace(b))
    assert a.parts.committer.halted is not None
    assert len(await verify_ledger(a)) == 3


async def test_the_whole_node_serves_its_checkpoint_and_says_what_is_wrong(fed: Federation) -> None:
    """`serve` itself, as `tracewire run` calls it."""
    node = await grown(fed)
    await no_guard(node)
    ports, stop = await node.ports(), asyncio.Event()
    running = asyncio.ensure_future(serve(node.folder, node.settings, node.keys, fed.secret, ports, stop))
    async with aiohttp.ClientSession() as session:

        async def ready() -> dict[str, Any] | None:
            try:
                async with session.get(f"http://{node.settings.agency_bind}/v1/traces") as response:
                    assert (response.status, (await response.json())["code"]) == (503, "ledger.rollback")
                async with session.get(f"http://{node.settings.operations_bind}/readyz") as response:
                    assert response.status == 503
                    return dict(await response.json())
            except aiohttp.ClientError:
                return None

        found = await wait_until(ready)
    assert found["wrong"]["ledger"]["code"] == "ledger.rollback"
    stop.set()
    await running
    await node.wire.close()
    await ports.ledger.close()  # type: ignore[attr-defined]
    node.pool._pool.terminate()


async def test_nothing_of_a_size_is_released_before_the_guard_remembers_it(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    await a.stop()
    committed, go = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    class Slow:
        """A guard whose disk takes its time."""

        def __init__(self, real: Any) -> None:
            self._real = real

        def read(self, origin: str) -> Any:
            return self._real.read(origin)

        def raise_to(self, mark: Any) -> None:
            if mark.size > 1 and not go.is_set():
                loop.call_soon_threadsafe(committed.set)
                asyncio.run_coroutine_threadsafe(go.wait(), loop).result(10)
            self._real.raise_to(mark)

    a.wraps.append(lambda ports: setattr(ports, "guard", Slow(ports.guard)))
    await a.start()
    sending = asyncio.ensure_future(a.trace(b))
    await committed.wait()
    (m,) = await fed.strangers("m")
    client = m.client()
    peer = fed.directory.records[a.name]
    asking = asyncio.ensure_future(client.checkpoint(peer, a.origin))
    for _ in range(3):
        assert await client.directory_file(peer, "1.root.json")
    assert not asking.done(), "the database is ahead of the guard"
    go.set()
    await a.becomes(await sending, "delivered")
    assert parse_checkpoint(await asking or b"").size == 2
    await client.close()
