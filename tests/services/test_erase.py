"""Erasure: keys go, proofs stay, what was pending ends; and nothing is gone that nobody ordered."""

import asyncio
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from adapters.postgres.erasures import PostgresErasures
from gateway.services.content import open_row
from gateway.services.converse import Saying
from gateway.services.submit import Request
from keys.vault import EpochVault
from protocols.evidence import write_evidence
from protocols.ledger.entry import actor_commitment
from protocols.ports.crypto import ContentKey
from protocols.ports.rows import ContentRow
from protocols.problems import ProblemError
from tests.federation import HANDLING, Federation, Json, Node, match_ledgers, refused, wait_until
from tests.protocols.bodies import VALID
from tests.services.erasing import ANNA, BELA, COURT, carried_out, erase, grant, order
from tests.services.test_approve import asks, needed, opened, search
from tests.services.test_evidence import answered, check, evidence, wrong

PARTS = {"persons": {"persons": [{"role": {"code": "POSSESSOR", "raw": ""}, "name": "Jane Canary"}]}}
_COLUMNS = ", ".join(field.name for field in fields(ContentRow))


async def shown(node: Node, sent: Json) -> list[Json]:
    whole, _ = await node.read.thread(UUID(sent["thread"]), ANNA)
    found: list[Json] = whole["messages"]
    return found


async def rows(node: Node) -> list[ContentRow]:
    """Content at rest, as a backup of the database has it."""
    return [ContentRow(**row) for row in await node.rows(f"SELECT {_COLUMNS} FROM content")]


def opens(node: Node, found: list[ContentRow]) -> set[str]:
    """Which messages of these rows the key store opens, freshly read."""
    vault, readable = EpochVault(node.folder / "keys", node.fed.secret), set()
    for row in found:
        try:
            open_row(vault, row)
            readable.add(str(row.id))
        except ProblemError as problem:
            assert problem.code == "content.erased"
    return readable


async def test_content_goes_with_its_keys_and_every_proof_stays(fed: Federation) -> None:
    a, b, sent = await answered(fed, parts=PARTS)
    other = await a.trace(b, "KEPT1234")
    await a.becomes(other, "delivered")
    backup = await rows(b)
    done = await erase(b, order(sent, sent))
    assert done["erasing"] == [sent["id"]]
    first, *rest = await shown(b, sent)
    assert (first.get("erased"), "body" in first, "missing" in first) == (True, False, False)
    assert all("body" in each for each in (*rest, *await shown(b, other), *await shown(a, sent)))
    [entry] = [entry for entry in await b.entries() if entry.kind == "erased"]
    assert entry.code == f"content/COURT_ORDER/{done['backups_until']}"
    assert (str(entry.id), entry.sender) == (sent["id"], a.name)
    assert await b.count("event", "kind = 'erased'") == 1
    report = check(await evidence(b, sent), fed.root)
    first_, *others = report.evidence.messages
    assert [each.content for each in (first_, *others)] == ["erased", "here", "here"]
    lie = replace(report.evidence, messages=(replace(first_, content="missing"), *others))
    assert wrong(write_evidence(lie), fed.root).detail.startswith("manifest.json: message 1 is said to be missing")
    assert await b.parts.erase.erase() == 0
    await match_ledgers(a, b)
    assert opens(b, backup) == {str(row.id) for row in backup} - {sent["id"]}, (
        "an older backup stays readable but for it"
    )
    assert opens(b, await rows(b)) >= opens(b, backup)
    assert not list((b.folder / "keys" / "epochs").glob("1.key")), "the epoch key itself is gone"
    assert await PostgresErasures(b.pool).missing(9) == []


async def test_the_authority_that_ordered_it_stands_committed_beside_its_approval(fed: Federation) -> None:
    a, b, sent = await answered(fed)
    approval = await grant(b, order(sent))
    _, salt = await b.parts.approve.agreed(approval)
    await b.parts.erase.order(order(sent), ANNA)
    await carried_out(b)
    erased = [entry for entry in await b.entries() if entry.kind == "erased"]
    assert len(erased) == 3
    assert {entry.actor_c for entry in erased} == {actor_commitment(salt, COURT)}
    used = [entry for entry in await b.entries() if entry.code == "approval.used"]
    assert [entry.id for entry in used] == [approval]
    with pytest.raises(ProblemError) as problem:
        await b.parts.erase.order(order(sent), ANNA)
    assert problem.value.code == "content.erased"
    assert COURT.encode() not in b"".join(entry.encode() for entry in await b.entries())
    await match_ledgers(a, b)


async def test_what_is_pending_ends_with_it_and_a_repeated_parcel_still_gets_its_receipt(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    arrived = await a.trace(b)
    await a.becomes(arrived, "delivered")
    await b.stop()
    waits = await a.trace(b, "LATE1234")
    await erase(a, order(waits))
    await a.becomes(waits, "undelivered")
    [ended] = [entry for entry in await a.entries() if entry.kind == "undelivered"]
    assert (str(ended.id), ended.code) == (waits["id"], "content.erased")
    await b.start()
    assert [row.type for row in await undispatched(b)] == ["trace.request"]
    await erase(b, order(arrived))
    assert await undispatched(b) == []
    assert "dispatched" not in await b.kinds(), "nobody says that our systems had it"
    await a.sql("UPDATE outbox SET state = 'queued' WHERE id = $1 RETURNING id", UUID(arrived["id"]))
    assert await b.count("inbox") == 1
    await match_ledgers(a, b)


async def undispatched(node: Node) -> list[Any]:
    return await node._ports.exchange.undispatched(9, ["trace.request"], [])


async def test_a_restricted_part_is_erased_alone(fed: Federation) -> None:
    a, b, sent = await answered(fed, parts=PARTS)
    await erase(b, order(sent, part="persons"))
    reader = replace(ANNA, scopes=frozenset(("parts:read",)))
    whole, _ = await b.read.thread(UUID(sent["thread"]), reader)
    assert ("body" in whole["messages"][0], "parts" in whole["messages"][0]) == (True, False)
    [entry] = [entry for entry in await b.entries() if entry.kind == "erased"]
    assert entry.code is not None
    assert entry.code.startswith("persons/COURT_ORDER/")
    assert "missing_parts" not in whole["messages"][0]
    await refused("content.erased", b.parts.erase.order(order(sent, part="persons"), ANNA))
    assert await PostgresErasures(b.pool).missing(9) == []


class Cut:
    """The store of a process that dies at a call: before it took effect, or after."""

    def __init__(self, store: PostgresErasures, call: str, *, after: bool) -> None:
        self._store, self._call, self._after, self.hit = store, call, after, asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._store, name)
        if name != self._call:
            return real

        async def dies(*given: Any) -> Any:
            if self._after:
                await real(*given)
            self.hit.set()
            raise RuntimeError("cut by the test")

        return dies


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", ["raise_generation", "wrapped_of", "rewrap", "finish"])
async def test_what_a_crash_leaves_undone_is_finished_and_nothing_else_is_lost(
    fed: Federation, call: str, after: bool
) -> None:
    a, b, sent = await answered(fed)
    wanted = order(sent, sent)
    await grant(b, wanted)
    cut = Cut(PostgresErasures(b.pool), call, after=after)
    b.parts.erase._store = cut  # type: ignore[assignment]
    await b.parts.erase.order(wanted, ANNA)
    await cut.hit.wait()
    await b.kill()
    await b.start()
    await carried_out(b)
    assert [each.get("erased", False) for each in await shown(b, sent)] == [True, False, False]
    assert opens(b, await rows(b)) == {str(row.id) for row in await rows(b)}
    later = await a.trace(b, "AFTER1234")
    await a.becomes(later, "delivered")
    assert "body" in (await shown(b, later))[0]
    assert (await b.kinds()).count("erased") == 1
    await match_ledgers(a, b)


async def test_nothing_written_while_an_epoch_is_destroyed_is_lost(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    threads = [await a.trace(b, f"GONE{n}234") for n in range(4)]
    for sent in threads:
        await a.becomes(sent, "delivered")
    sending = asyncio.create_task(flood(a, b))
    for sent in threads:
        await erase(b, order(sent))
    for sent in await sending:
        await a.becomes(sent, "delivered")
    assert await b.count("epoch", "generation >= 5") == 1
    readable = opens(b, await rows(b))
    assert len(readable) == len({row.id for row in await rows(b)}) >= 60
    assert await PostgresErasures(b.pool).missing(9) == []
    await match_ledgers(a, b)


async def flood(a: Node, b: Node) -> list[Json]:
    return [await a.trace(b, f"KEEP{n}23") for n in range(60)]


async def test_what_its_sender_lets_nobody_keep_goes_on_its_day(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    day = (fed.clock.now() + timedelta(days=3)).date().isoformat()
    limited = HANDLING | {"codes": ["PURPOSE_TRACING_ONLY", "DELETE_AFTER"], "delete_after": day}
    first, second, third = await a.trace(b), await a.send(replace(a.draft(b), handling=limited)), await a.trace(b)
    for sent in (first, second, third):
        await a.becomes(sent, "delivered")
    told = await a.send(a.reply(b, third, "handling.change", {"target": third["id"], "handling": limited}))
    await a.becomes(told, "delivered")
    assert await b.parts.erase.erase() == 0
    fed.clock.ahead += timedelta(days=4)
    assert await b.parts.erase.erase() == 0, "a clock alone destroys nothing"
    await fed.publish()
    await carried_out(b)
    gone = [each[0].get("erased", False) for each in [await shown(b, sent) for sent in (first, second, third)]]
    assert gone == [False, True, True]
    own = [(await shown(a, sent))[0] for sent in (first, second, third)]
    assert all("body" in each for each in own), "one's own words are one's own"
    codes = {(entry.code or "").rpartition("/")[0] for entry in await b.entries() if entry.kind == "erased"}
    assert codes == {"content/DELETE_AFTER"}


async def test_a_member_keeps_nothing_for_longer_than_its_own_rule_says(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b", retention_days=90)
    record = VALID["registry.record"] | {"retention_until": (fed.clock.now() + timedelta(days=900)).date().isoformat()}
    shared = await a.send(replace(a.draft(b), type="registry.record", body=record))
    old, lively, court = await a.trace(b), await a.trace(b), await a.trace(b)
    wanted = await a.send(replace(a.draft(b), due=fed.clock.now() + timedelta(days=200)))
    for sent in (shared, old, lively, court, wanted):
        await a.becomes(sent, "delivered")
    await grant(b, order(court, court))
    fed.clock.ahead += timedelta(days=50)
    await fed.publish()
    await a.becomes(await a.send(a.reply(b, lively, "trace.reminder", {})), "delivered")
    fed.clock.ahead += timedelta(days=80)
    for node in (a, b):
        await carried_out(node)
        assert not [entry for entry in await node.entries() if entry.kind == "erased"], "a clock alone destroys nothing"
    await fed.publish()
    for node in (a, b):
        await carried_out(node)
        kept = ["body" in (await shown(node, sent))[0] for sent in (shared, old, lively, court, wanted)]
        assert kept == [True, False, True, False, True], (
            "one's own words too; not shared records, nor what is not due yet"
        )
        erased = [entry for entry in await node.entries() if entry.kind == "erased"]
        assert {(entry.code or "").rpartition("/")[0] for entry in erased} == {"content/RETENTION_ENDED"}
        assert not any(entry.actor_c for entry in erased), "nobody ordered it"
        assert await node.count("content", "part = 'about'") == 0, "what people asked and never did goes after a week"
        assert await node.parts.erase.erase() == 0, "once"


async def test_a_generation_is_opened_each_month_and_old_ways_to_destroyed_ones_are_dropped(fed: Federation) -> None:
    a, b, sent = await answered(fed)
    backup = await rows(b)
    await erase(b, order(sent, sent))
    assert opens(b, backup)
    fed.clock.ahead += timedelta(days=40)

    async def dropped() -> bool:  # the node's own round may be at work just now
        await b.parts.erase.erase()
        return not opens(b, backup)

    await wait_until(dropped)  # no backup of that time opens any more
    assert len(opens(b, await rows(b))) == 3, "two messages, and what was approved"
    assert await b.count("epoch", "generation = 3") == 1
    await match_ledgers(a, b)


async def test_one_process_of_a_node_erases_at_a_time(fed: Federation) -> None:
    _, b, sent = await answered(fed)
    await grant(b, order(sent))
    async with PostgresErasures(b.pool).alone() as mine:
        assert mine
        await b.parts.erase.order(order(sent), ANNA)
        assert await b.parts.erase.erase() is None
    await carried_out(b)


async def test_a_shared_record_goes_with_the_message_that_brought_it(fed: Federation) -> None:
    (a,), (b,) = await fed.nodes("a"), await fed.nodes("b", registry=True)
    said = HANDLING | {"codes": ["PURPOSE_TRACING_ONLY", "REGISTRY_MATCH_ONLY"]}
    sent = await a.send(replace(a.draft(b), type="registry.record", body=VALID["registry.record"], handling=said))

    async def kept() -> bool:
        return await b.count("registry_record", "details <> '{}'") == 1

    await wait_until(kept)
    await erase(b, order(sent))
    assert not await kept()


async def test_a_key_store_that_cannot_be_read_now_loses_nothing(fed: Federation) -> None:
    _, b, sent = await answered(fed)
    await erase(b, order(sent, sent))
    key = b.folder / "keys/epochs/2.key"
    second = next(each for each in await b.read.contents(UUID(sent["thread"])) if str(each.message.id) != sent["id"])
    again = order(sent, {"id": str(second.message.id)})
    await grant(b, again)
    async with PostgresErasures(b.pool).alone():
        await b.parts.erase.order(again, ANNA)
        before = opens(b, await rows(b))
        key.chmod(0o644)
        vault = b.parts.erase._vault
        for cache in (vault._epoch, vault._unwrap):  # type: ignore[attr-defined]
            cache.cache_clear()
    with pytest.raises(ProblemError, match=r"key.store"):
        await b.parts.erase.erase()
    key.chmod(0o600)
    assert opens(b, await rows(b)) == before
    await carried_out(b)
    assert before - opens(b, await rows(b)) == {str(second.message.id)}


async def test_an_older_database_destroys_nothing(fed: Federation) -> None:
    a, b, sent = await answered(fed)
    await b.stop()
    older, real = await b.copy_database(), b.database
    await b.start()
    later = await a.trace(b, "LATER1234")
    await a.becomes(later, "delivered")
    await b.stop()
    b.use_database(older)
    await b.start()
    await wait_until(lambda: _halted(b))
    with pytest.raises(ProblemError, match=r"ledger.rollback"):
        await b.parts.erase.erase()
    await b.stop()
    b.use_database(real)
    await b.start()
    assert "body" in (await shown(b, later))[0]
    assert "body" in (await shown(b, sent))[0]


async def _halted(node: Node) -> bool:
    return node.parts.committer.halted is not None


async def test_rows_of_an_older_dump_are_moved_before_what_opens_them_is_forgotten(fed: Federation) -> None:
    _, b, sent = await answered(fed)
    dump = await b.rows("SELECT sender, id, part, generation, wrapped FROM content")
    await erase(b, order(sent, sent))
    for row in dump:  # what a restored dump brings back, under the present keys
        await b.sql(
            "UPDATE content SET generation = $4, wrapped = $5 WHERE (sender, id, part) = ($1, $2, $3) RETURNING 1",
            *(row["sender"], row["id"], row["part"], row["generation"], row["wrapped"]),
        )
    assert await b.count("content", "generation = 1") == 2
    assert await b.parts.erase.lost() == 2
    fed.clock.ahead += timedelta(days=40)
    await b.parts.erase.erase()
    assert (await b.count("content", "generation = 1"), await b.parts.erase.lost()) == (0, 0)
    assert [each.get("erased", False) for each in await shown(b, sent)] == [True, False, False]


async def test_what_cannot_be_opened_any_more_blocks_no_other_erasure(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    day = (fed.clock.now() + timedelta(days=1)).date().isoformat()
    limited = HANDLING | {"codes": ["PURPOSE_TRACING_ONLY", "DELETE_AFTER"], "delete_after": day}
    poison, other = await a.send(replace(a.draft(b), handling=limited)), await a.trace(b)
    for sent in (poison, other):
        await a.becomes(sent, "delivered")
    await b.sql("UPDATE content SET wrapped = $2 WHERE id = $1 RETURNING 1", UUID(poison["id"]), bytes(60))
    fed.clock.ahead += timedelta(days=3)
    assert await b.parts.erase.erase() == 0
    await erase(b, order(other))
    assert (await shown(b, other))[0]["erased"]
    assert (await shown(b, poison))[0]["missing"]


async def test_a_late_word_of_a_process_that_lost_its_lock_changes_nothing(fed: Federation) -> None:
    _, b, sent = await answered(fed)
    store = PostgresErasures(b.pool)
    stale = [row async for page in store.wrapped(1, 9) for row in page]
    await erase(b, order(sent, sent))
    await store.rewrap([(row, ContentKey(generation=1, wrapped=bytes(60))) for row in stale])
    assert await b.count("content", "generation = 1") == 0
    assert await b.parts.erase.lost() == 0


async def test_a_sender_may_let_something_be_kept_longer(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    day = (fed.clock.now() + timedelta(days=2)).date().isoformat()
    longer = (fed.clock.now() + timedelta(days=20)).date().isoformat()
    limited = HANDLING | {"codes": ["PURPOSE_TRACING_ONLY", "DELETE_AFTER"], "delete_after": day}
    sent = await a.send(replace(a.draft(b), handling=limited))
    await a.becomes(sent, "delivered")
    body = {"target": sent["id"], "to": "LONGER_RETENTION", "until": longer, "why": "The trial."}
    asked = await b.send(b.reply(a, sent, "consent.request", body))
    await b.becomes(asked, "delivered")
    granted = await a.send(a.reply(b, asked, "consent.answer", {"decision": "GRANTED"}, thread=UUID(sent["thread"])))
    await a.becomes(granted, "delivered")
    fed.clock.ahead += timedelta(days=5)
    await fed.publish()
    assert await b.parts.erase.erase() == 0
    assert "body" in (await shown(b, sent))[0]
    fed.clock.ahead += timedelta(days=20)
    await fed.publish()
    await carried_out(b)
    assert (await shown(b, sent))[0]["erased"]


async def test_what_tightens_does_not_go_before_what_it_is_about(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    sent = await a.trace(b)
    await a.becomes(sent, "delivered")
    day = (fed.clock.now() + timedelta(days=2)).date().isoformat()
    limited = HANDLING | {"codes": ["PURPOSE_TRACING_ONLY", "DELETE_AFTER"], "delete_after": day}
    narrow = HANDLING | {"evidence_use": "no"}
    told = await a.send(
        a.reply(b, sent, "handling.change", {"target": sent["id"], "handling": narrow}, handling=limited)
    )
    await a.becomes(told, "delivered")
    await refused("schema.invalid", b.parts.erase.order(order(sent, told), ANNA))
    fed.clock.ahead += timedelta(days=4)
    await fed.publish()
    await b.parts.erase.erase()
    first, second = await shown(b, sent)
    assert ("body" in first, second.get("erased", False)) == (True, False)
    await erase(b, order(sent))
    assert all(each["erased"] for each in await shown(b, sent))


async def test_what_was_searched_for_is_kept_in_no_second_place(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    draft = search(b)
    approval = await needed(a, draft, asks(draft))
    await a.parts.approve.rule(approval, BELA, "APPROVED")
    sent = await opened(a, draft, asks(draft))
    await a.becomes(sent, "delivered")
    assert await a.count("content", "part = 'about'") == 0
    await erase(a, order(sent))
    assert await a.count("content", "part = 'about'") == 1, "why it was erased, and no more"
    never = await needed(a, draft, asks(draft, key="search 2"))
    assert await a.count("content", f"id = '{never}'") == 1
    fed.clock.ahead += timedelta(days=8)
    await a.parts.erase.erase()
    assert await a.count("content", f"id = '{never}'") == 0


async def test_nobody_confirms_what_is_still_here(fed: Federation) -> None:
    a, b, sent = await answered(fed)
    asked = {"messages": [sent["id"]], "ground": {"code": "DATA_PROTECTION", "raw": ""}, "authority": "our office"}
    request = await a.send(a.reply(b, sent, "erasure.request", asked))
    await a.becomes(request, "delivered")
    body = {"messages": [sent["id"]], "erased_on": "2026-11-22"}
    saying = Saying(
        type="erasure.confirmation", body=body, handling=HANDLING, parts={}, attachments=(), in_reply_to=UUID(request["id"]),
        to=None, expires=None,
    )  # fmt: skip

    def confirm(key: str) -> Any:
        return b.parts.converse.say(UUID(sent["thread"]), saying, Request(caller=ANNA, key=key, digest=b""), None)

    await refused("schema.invalid", confirm("confirm 1"))
    await erase(b, order(sent, sent))
    assert await confirm("confirm 2")


async def test_what_is_gone_although_nobody_ordered_it_is_called_missing_and_never_erased(fed: Federation) -> None:
    _, b, sent = await answered(fed)
    await b.sql("DELETE FROM content WHERE id = $1 RETURNING id", UUID(sent["id"]))
    first = (await shown(b, sent))[0]
    assert (first.get("missing"), "erased" in first) == (True, False)
    assert [str(id_) for _, id_ in await PostgresErasures(b.pool).missing(9)] == [sent["id"]]
    data = await evidence(b, sent)
    found = check(data, fed.root).evidence
    assert [each.content for each in found.messages] == ["missing", "here", "here"]
    lie = replace(found, messages=(replace(found.messages[0], content="erased"), *found.messages[1:]))
    assert wrong(write_evidence(lie), fed.root).detail.startswith("manifest.json: message 1 is said to be erased")


async def by_hand(node: Node, sent: Json, approval: UUID | None) -> None:
    """An administrator of the database orders an erasure by a row."""
    await node.sql(
        "INSERT INTO erasure SELECT sender, id, '', thread, 'testnet/x', 'COURT_ORDER', $3, current_date, $3, false, $2 FROM content "
        "WHERE id = $1 AND part = '' RETURNING id",
        *(UUID(sent["id"]), approval, bytes(32)),
    )


async def test_a_row_that_no_approval_of_our_ledger_wants_destroys_nothing_and_is_an_alarm(fed: Federation) -> None:
    a, b, sent = await answered(fed)
    other = await a.trace(b, "KEPT1234")
    await a.becomes(other, "delivered")
    approval = await grant(b, order(other))
    await b.parts.erase.order(order(other), ANNA)
    await carried_out(b)
    for borrowed in (None, approval, UUID(int=7)):
        await by_hand(b, sent, borrowed)
        assert await b.parts.erase.erase() == 0
        assert b.parts.linking.alarms == {f"{b.name}/erasure": "approval.unproven"}
        assert "body" in (await shown(b, sent))[0]
        await b.sql("DELETE FROM erasure WHERE NOT done RETURNING id")
    await b.parts.erase.erase()
    assert b.parts.linking.alarms == {}
    await by_hand(b, sent, None)
    await erase(b, order(sent, sent))
    assert (await shown(b, sent))[0]["erased"], "what two people want then is done"
    [entry] = [entry for entry in await b.entries() if entry.kind == "erased" and str(entry.id) == sent["id"]]
    assert entry.actor_c is not None
    await match_ledgers(a, b)


async def test_what_is_deleted_and_called_erased_by_rows_alone_is_missing(fed: Federation) -> None:
    _, b, sent = await answered(fed)
    await by_hand(b, sent, None)
    await b.sql("UPDATE erasure SET done = true RETURNING id")
    await b.sql("DELETE FROM content WHERE id = $1 RETURNING id", UUID(sent["id"]))
    assert (await shown(b, sent))[0]["missing"]
    assert [str(id_) for _, id_ in await PostgresErasures(b.pool).missing(9)] == [sent["id"]]
    await b.sql("UPDATE erasure SET done = false RETURNING id")
    assert await b.parts.erase.erase() == 0
    assert "erased" not in await b.kinds()


async def test_a_part_that_is_deleted_is_missing_and_neither_erased_nor_left_out(fed: Federation) -> None:
    _, b, sent = await answered(fed, parts=PARTS)
    assert "missing_parts" not in (await shown(b, sent))[0]
    await b.sql("DELETE FROM content WHERE id = $1 AND part = 'persons' RETURNING id", UUID(sent["id"]))
    assert (await shown(b, sent))[0]["missing_parts"] == ["persons"]
    reader, before = replace(ANNA, scopes=frozenset(("parts:read",))), await b.kinds()
    await refused("content.erased", b.parts.export.export(UUID(sent["thread"]), reader, parts=("yes",)))
    assert await b.kinds() == before, "nothing was opened"
    assert check(await b.parts.export.export(UUID(sent["thread"]), reader), b.fed.root)


async def test_threads_that_a_database_makes_old_are_kept(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b", retention_days=30)
    sent = await a.trace(b)
    await a.becomes(sent, "delivered")
    await b.sql("UPDATE leg SET updated = updated - interval '99 days', due = NULL, delayed = NULL RETURNING thread")
    assert await b.parts.erase.erase() == 0
    assert "body" in (await shown(b, sent))[0]


async def test_a_row_that_was_set_back_is_not_used_twice(fed: Federation) -> None:
    _, b, sent = await answered(fed)
    approval = await grant(b, order(sent))
    await b.parts.approve.spend(approval)
    await b.sql("UPDATE approval SET used = false WHERE id = $1 RETURNING id", approval)
    await refused("approval.unproven", b.parts.erase.order(order(sent), ANNA))


async def test_rows_that_borrow_a_key_or_name_what_they_are_not_hold_up_no_erasure_and_cost_no_other_its_key(
    fed: Federation,
) -> None:
    a, b, sent = await answered(fed)
    other, third = await a.trace(b, "KEPT1234"), await a.trace(b, "GONE1234")
    for each in (other, third):
        await a.becomes(each, "delivered")
    await erase(b, order(sent, sent))
    backup = await rows(b)
    await b.sql("UPDATE erasure SET done = false WHERE done RETURNING id")
    await b.sql(
        "INSERT INTO content SELECT sender, $1, 'zz', thread, generation, wrapped, sealed, until FROM content "
        "WHERE id = $2 AND part = '' RETURNING id",
        *(UUID(sent["id"]), UUID(other["id"])),
    )
    answer = next(row for row in backup if row.sender == b.name and row.part == "")  # a message of our own: it opens
    await b.sql(
        "INSERT INTO approval (id, act, client, actor, asked, ruling, ruled_client, ruled_actor, used) "
        "VALUES ($1, 'content.erase', 'x', 'x', now(), 'APPROVED', 'y', 'y', true) RETURNING id",
        answer.id,
    )
    await by_hand(b, other, answer.id)
    await b.sql("INSERT INTO ledger_head SELECT 'testnet/b/2020.1', size, root FROM ledger_head RETURNING origin")
    await b.sql(
        "INSERT INTO entry SELECT 'testnet/b/2020.1', index, data FROM entry WHERE data::text LIKE $1 RETURNING index",
        "%" + sent["id"].encode().hex() + "%",
    )
    await grant(b, order(third))
    await b.parts.erase.order(order(third), ANNA)
    await wait_until(lambda: gone(b, third))
    assert (await shown(b, third))[0]["erased"]
    assert "body" in (await shown(b, other))[0]
    assert opens(b, backup) == {str(row.id) for row in backup if row.id != UUID(third["id"])}
    assert b.parts.linking.alarms == {f"{b.name}/erasure": "approval.unproven"}


async def gone(node: Node, sent: Json) -> bool:
    await node.parts.erase.erase()
    return "erased" in (await shown(node, sent))[0]


async def test_an_entry_past_the_end_of_the_ledger_says_nothing(fed: Federation) -> None:
    _, b, sent = await answered(fed)
    await erase(b, order(sent, {"id": sent["id"]}))
    second = next(each for each in await b.read.contents(UUID(sent["thread"])))
    id_ = str(second.message.id)
    await by_hand(b, {"id": id_}, None)
    await b.sql("UPDATE erasure SET done = true WHERE NOT done RETURNING id")
    await b.sql("DELETE FROM content WHERE id = $1 RETURNING id", second.message.id)
    forged = "replace(replace(convert_from(data, 'UTF8'), $1, $2), $3, $4)::bytea"
    await b.sql(
        f"INSERT INTO entry SELECT origin, 1000000, {forged} FROM entry WHERE data::text LIKE $5 RETURNING index",
        *(
            sent["id"],
            id_,
            '"from":"testnet/a"',
            f'"from":"{second.message.sender}"',
            "%" + b'"kind":"erased"'.hex() + "%",
        ),
    )
    assert [each.get("missing", False) for each in await shown(b, sent)][1]
    assert [str(each) for _, each in await PostgresErasures(b.pool).missing(9)] == [id_]
