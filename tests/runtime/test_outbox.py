"""`tracewire outbox`: what waits says why, is sent again at once, or is given up with an entry that says so."""

import asyncio
import json
from typing import Any
from uuid import UUID

import pytest

from gateway.runtime.cli.main import app
from tests.federation import Federation, Node, match_ledgers, unreachable, wait_until

Capture = pytest.CaptureFixture[str]
MEMBERS = {"id", "to", "type", "urgent", "state", "attempts", "since", "next", "expires", "problem", "fix"}


def _run(tokens: list[str]) -> int:
    try:
        return int(app(tokens) or 0)
    except SystemExit as end:
        return int(end.code or 0)


async def outbox(capsys: Capture, *tokens: object) -> tuple[int, Any]:
    """Exit code and the one JSON document of `tracewire outbox`, run beside the node."""
    code = await asyncio.to_thread(_run, ["outbox", *(str(token) for token in tokens), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out or err)


async def attempted(node: Node, messages: int = 1) -> None:
    """Waits until so many messages have been tried in vain."""

    async def there() -> bool:
        return await node.count("outbox", "state = 'queued' AND attempts > 0 AND leased IS NULL") == messages

    await wait_until(there)


async def cut(fed: Federation) -> tuple[Node, Node, dict[str, Any]]:
    """A message that does not get through, whose next attempt is a minute away."""
    a, b = await fed.nodes("a", "b", retry_first_s=60)
    a.wire.hook = unreachable
    sent = await a.trace(b)
    await attempted(a)
    return a, b, sent


async def test_what_waits_is_listed_with_the_problem_of_its_last_attempt_and_the_fix(
    fed: Federation, capsys: Capture
) -> None:
    a, b, sent = await cut(fed)
    code, found = await outbox(capsys, "list", a.folder)
    (waiting,) = found["waiting"]
    assert (code, set(waiting)) == (0, MEMBERS)
    assert (waiting["id"], waiting["to"], waiting["type"]) == (sent["id"], b.name, "trace.request")
    assert (waiting["state"], waiting["attempts"]) == ("waiting", 1)
    assert (waiting["problem"], waiting["fix"]) == ("peer.unreachable", "Run `tracewire probe NODE PEER`.")
    assert await asyncio.to_thread(_run, ["outbox", "list", str(a.folder)]) == 0
    text = capsys.readouterr().out
    assert "last problem: peer.unreachable" in text
    assert "ABC1234" not in text, "no case data"
    assert await outbox(capsys, "list", b.folder) == (0, {"waiting": []})


async def test_a_problem_that_the_peer_names_is_the_last_problem(fed: Federation, capsys: Capture) -> None:
    a, b = await fed.nodes("a", "b", retry_first_s=60)
    await b.sql("ALTER TABLE inbox ADD CONSTRAINT never CHECK (false)")
    try:
        await a.trace(b)
        await attempted(a)
        (waiting,) = (await outbox(capsys, "list", a.folder))[1]["waiting"]
        assert waiting["problem"] == "store.data"
    finally:
        await b.sql("ALTER TABLE inbox DROP CONSTRAINT never")


async def test_a_retry_makes_a_running_node_deliver_within_seconds(fed: Federation, capsys: Capture) -> None:
    a, b, sent = await cut(fed)
    assert (await outbox(capsys, "retry", a.folder, "--peer", "testnet/x"))[1] == {"due": 0}
    assert (await outbox(capsys, "retry", a.folder, "--message", "019aab2f-3c7b-7d10-8f6a-2b1c3d4e5f60"))[1] == {
        "due": 0
    }
    a.wire.hook = None
    assert await outbox(capsys, "retry", a.folder, "--peer", b.name) == (0, {"due": 1})
    await a.becomes(sent, "delivered")
    assert (await outbox(capsys, "retry", a.folder))[1] == {"due": 0}


async def test_a_message_that_is_being_sent_is_neither_hastened_nor_dropped(fed: Federation, capsys: Capture) -> None:
    a, b = await fed.nodes("a", "b")
    going, go = asyncio.Event(), asyncio.Event()

    async def hold(peer: str, body: bytes, send: Any) -> bytes:
        going.set()
        await go.wait()
        return bytes(await send())

    a.wire.hook = hold
    sent = await a.trace(b)
    await going.wait()
    assert (await outbox(capsys, "list", a.folder))[1]["waiting"][0]["state"] == "sending"
    assert (await outbox(capsys, "retry", a.folder))[1] == {"due": 0}
    code, found = await outbox(capsys, "drop", a.folder, sent["id"], "--yes", "--key-file", fed.folder / "secret")
    assert (code, found["code"]) == (1, "thread.state")
    go.set()
    await a.becomes(sent, "delivered")


async def test_nothing_is_dropped_without_yes(fed: Federation, capsys: Capture) -> None:
    a, _, sent = await cut(fed)
    code, found = await outbox(capsys, "drop", a.folder, sent["id"], "--key-file", fed.folder / "secret")
    assert (code, found["code"]) == (1, "config.invalid")
    assert "--yes" in found["errors"][0]["fix"]
    assert await a.delivery(sent) == "queued"


@pytest.mark.parametrize("running", [True, False], ids=["beside a running node", "of a stopped node"])
async def test_a_drop_is_an_entry_and_the_ledger_goes_on(fed: Federation, capsys: Capture, running: bool) -> None:
    a, b, sent = await cut(fed)
    if not running:
        await a.stop()
    drop = ("drop", a.folder, sent["id"], "--yes", "--key-file", fed.folder / "secret")
    assert await outbox(capsys, *drop) == (0, {"id": sent["id"], "dropped": True})
    assert await a.delivery(sent) == "undelivered"
    (entry,) = [entry for entry in await a.entries() if entry.kind == "undelivered"]
    assert (entry.id, entry.code) == (UUID(sent["id"]), "dropped")
    assert (await outbox(capsys, "list", a.folder))[1] == {"waiting": []}
    assert (await outbox(capsys, *drop))[1]["code"] == "thread.state"
    if not running:
        await a.start()
    assert await a.leg(sent) == "FAILED"
    a.wire.hook = None
    later = await a.trace(b)
    await outbox(capsys, "retry", a.folder)  # where the node ran, the peer is paused for a minute
    await a.becomes(later, "delivered")
    assert (await a.kinds()).count("undelivered") == 1
    await match_ledgers(a, b)


async def test_drops_and_submissions_at_the_same_time_keep_one_history(fed: Federation, capsys: Capture) -> None:
    a, b, first = await cut(fed)
    sent = [first, *[await a.trace(b) for _ in range(3)]]
    drops = [
        asyncio.to_thread(
            _run, ["outbox", "drop", str(a.folder), each["id"], "--yes", "--key-file", str(fed.folder / "secret")]
        )
        for each in sent[:2]
    ]
    found = await asyncio.gather(*drops, *[a.trace(b) for _ in range(20)])
    assert found[:2] == [0, 0]
    capsys.readouterr()
    a.wire.hook = None
    assert (await outbox(capsys, "retry", a.folder))[1]["due"] == 22
    for each in [*sent[2:], *found[2:]]:
        await a.becomes(each, "delivered")
    await match_ledgers(a, b)
