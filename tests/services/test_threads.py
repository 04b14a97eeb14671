"""Threads: answers move both legs; one that does not fit is refused; a request under the same key is one message."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from protocols.directory import Agreement
from protocols.ledger.entry import parse_entry
from protocols.limits import MESSAGES_A_LEG_MAX
from protocols.problems import ProblemError
from tests.federation import (
    ACKNOWLEDGEMENT,
    DELAY,
    LEASE,
    REFUSAL,
    RESPONSE,
    Federation,
    Json,
    Node,
    Stranger,
    match_ledgers,
    nobodys_directory,
    refused,
    unreachable,
)  # fmt: skip
from tests.protocols.bodies import VALID

INTERIM = RESPONSE | {"final": False}


async def opened(fed: Federation) -> tuple[Node, Node, Json]:
    """Two nodes and a request that has arrived."""
    a, b = await fed.nodes("a", "b")
    sent = await a.trace(b)
    await a.becomes(sent, "delivered")
    return a, b, sent


@pytest.mark.parametrize(
    "steps",
    [
        [("trace.acknowledgement", ACKNOWLEDGEMENT, "ACKNOWLEDGED"), ("trace.response", RESPONSE, "ANSWERED")],
        [("trace.response", INTERIM, "IN_PROGRESS"), ("trace.response", RESPONSE, "ANSWERED"), ("trace.response", RESPONSE, "ANSWERED")],
        [("trace.refusal", DELAY, "IN_PROGRESS"), ("trace.refusal", REFUSAL, "REFUSED")],
    ],
)  # fmt: skip
async def test_answers_move_both_legs_alike(fed: Federation, steps: list[tuple[str, Json, str]]) -> None:
    a, b, sent = await opened(fed)
    for type_, body, state in steps:
        reply = await b.send(b.reply(a, sent, type_, body))
        await b.becomes(reply, "delivered")
        assert (await a.leg(sent), await b.leg(sent)) == (state, state)
    await match_ledgers(a, b)


async def test_an_answer_the_thread_does_not_allow_is_refused_before_it_is_sent(fed: Federation) -> None:
    a, b, sent = await opened(fed)
    await refused("precondition.failed", b.send(b.reply(a, sent, "trace.response", RESPONSE, if_match=99)))
    leg = await b.read.leg(UUID(sent["thread"]))
    reply = await b.send(b.reply(a, sent, "trace.refusal", REFUSAL, if_match=leg.version))
    await b.becomes(reply, "delivered")
    await refused("thread.state", b.send(b.reply(a, sent, "trace.clarification", VALID["trace.clarification"])))
    await refused("precondition.failed", b.send(b.reply(a, sent, "trace.response", RESPONSE, if_match=leg.version)))
    await refused("thread.not_found", b.send(b.reply(a, sent, "trace.response", RESPONSE, thread=UUID(sent["id"]))))
    assert await b.kinds() == ["ledger-opened", "received", "sent", "receipt"]
    await match_ledgers(a, b)


async def test_who_asked_cannot_answer_its_own_request(fed: Federation) -> None:
    a, b, sent = await opened(fed)
    await refused("thread.state", a.send(a.reply(b, sent, "trace.response", RESPONSE)))
    (m,) = await fed.strangers("m")
    request = m.message(b)
    await m.give(b, m.parcel(b, message=request))
    own = {"type": "trace.response", "body": RESPONSE, "thread": request.thread, "in_reply_to": request.id}
    place = await m.give(b, m.parcel(b, message=own))
    assert parse_entry(place.entry).code == "msg.correlation"
    assert (await b.read.leg(request.thread)).state == "DELIVERED"


async def test_an_incoming_answer_that_does_not_fit_its_thread_is_refused_as_msg_correlation(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    m, other = await fed.strangers("m", "n")
    a.wire.hook = m.answering(m.receipt)
    sent = await a.trace(m)
    await a.becomes(sent, "delivered")
    fits = {"type": "trace.refusal", "body": REFUSAL, "thread": UUID(sent["thread"])}

    async def code(stranger: Stranger, **changes: object) -> str | None:
        return parse_entry((await stranger.give(a, stranger.parcel(a, message=fits | changes))).entry).code

    assert await code(other) == "msg.correlation", "another member's answer"
    assert await code(m, thread=UUID(sent["id"])) == "msg.correlation", "no such thread"
    assert await code(m, type="trace.request", body=m.message(a).body) == "msg.correlation", "the thread exists"
    assert await code(m) is None
    withdrawal = VALID["trace.withdrawal"]
    assert await code(m, type="trace.withdrawal", body=withdrawal) == "msg.correlation", "the asker's word"
    assert await a.leg(sent) == "REFUSED"
    assert await code(m, type="trace.response", body=RESPONSE) is None, "whoever refused may answer after all"
    assert await a.leg(sent) == "ANSWERED"
    causes = [row["cause"] for row in await a.rows("SELECT cause FROM refusal ORDER BY index")]
    assert causes == ["thread.not_found", "thread.not_found", "msg.correlation", "msg.correlation"]


async def test_a_leg_has_so_many_messages_and_no_more(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    sent = await a.trace(b)
    await a.becomes(sent, "delivered")
    await a.sql("UPDATE leg SET messages = $1", MESSAGES_A_LEG_MAX)
    refused_there = await b.send(b.reply(a, sent, "trace.acknowledgement", ACKNOWLEDGEMENT))
    await b.becomes(refused_there, "refused")
    await b.sql("UPDATE leg SET messages = $1", MESSAGES_A_LEG_MAX)
    await refused("thread.full", b.send(b.reply(a, sent, "trace.response", RESPONSE)))
    await a.becomes(await a.send(a.reply(b, sent, "trace.withdrawal", VALID["trace.withdrawal"])), "delivered")
    assert (await a.leg(sent), await b.leg(sent)) == ("WITHDRAWN", "WITHDRAWN"), "nobody is held in a full thread"


async def test_an_acknowledgement_that_its_answer_overtook_is_received(fed: Federation) -> None:
    """Retries are spread, so messages of one thread may arrive in another order."""
    a, b, sent = await opened(fed)
    b.wire.hook = unreachable
    first = await b.send(b.reply(a, sent, "trace.acknowledgement", ACKNOWLEDGEMENT))
    await b.sql("UPDATE outbox SET due = due + interval '1 hour' WHERE id = $1", UUID(first["id"]))
    b.wire.hook = None
    await b.becomes(await b.send(b.reply(a, sent, "trace.response", RESPONSE)), "delivered")
    await b.sql("UPDATE outbox SET due = due - interval '1 hour', leased = NULL WHERE id = $1", UUID(first["id"]))
    await b.becomes(first, "delivered")
    assert await a.leg(sent) == "ANSWERED"
    await match_ledgers(a, b)


async def test_an_answer_to_a_request_that_we_gave_up_is_received(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")

    async def answers_lost(peer: str, body: bytes, send: Callable[[], Awaitable[bytes]]) -> bytes:
        await send()
        raise ProblemError("peer.unreachable", "the answer was lost")

    a.wire.hook = answers_lost
    sent = await a.trace(b)
    await b.leg_becomes(sent, "DELIVERED")
    fed.clock.ahead += timedelta(days=31)
    await fed.refresh()
    await a.becomes(sent, "undelivered")
    await b.becomes(await b.send(b.reply(a, sent, "trace.response", RESPONSE)), "delivered")
    assert await a.leg(sent) == "ANSWERED"
    await match_ledgers(a, b)


async def test_a_withdrawal_that_overtook_its_request_comes_again_after_it(fed: Federation) -> None:
    (b,) = await fed.nodes("b")
    (m,) = await fed.strangers("m")
    asked = m.message(b)
    first = m.parcel(b, message=asked)
    said = {"type": "trace.withdrawal", "body": VALID["trace.withdrawal"], "thread": asked.thread}
    withdrawal = m.parcel(b, message=said)
    assert await m.give(b, withdrawal) == "msg.overtook"
    await m.give(b, first)
    assert parse_entry((await m.give(b, withdrawal)).entry).kind == "received"
    assert (await b.read.leg(asked.thread)).state == "WITHDRAWN"


async def test_a_withdrawal_of_a_request_that_was_refused_is_refused_for_good(fed: Federation) -> None:
    (b,) = await fed.nodes("b")
    (m,) = await fed.strangers("m")
    asked = m.message(b, body={})
    assert parse_entry((await m.give(b, m.parcel(b, message=asked))).entry).kind == "refused"
    said = {
        "type": "trace.withdrawal",
        "body": VALID["trace.withdrawal"],
        "thread": asked.thread,
        "in_reply_to": asked.id,
    }
    entry = parse_entry((await m.give(b, m.parcel(b, message=said))).entry)
    assert (entry.kind, entry.code) == ("refused", "msg.correlation")


async def test_a_withdrawn_request_waits_for_nobody(fed: Federation) -> None:
    a, b, sent = await opened(fed)
    waits = (
        "INSERT INTO review (sender, id, thread, reason, candidates, at) VALUES ($1, $2, $3, 'NO_RECORD', '[]', now())"
    )
    await b.sql(waits, a.name, UUID(sent["id"]), UUID(sent["thread"]))
    assert [str(row.id) for row in await b.read.reviews(None, 10)] == [sent["id"]]
    withdrawal = a.reply(b, sent, "trace.withdrawal", VALID["trace.withdrawal"])
    await a.becomes(await a.send(withdrawal), "delivered")
    assert await b.read.reviews(None, 10) == []


async def test_silence_is_an_event_and_an_entry_at_both_ends_and_an_answer_ends_it(fed: Federation) -> None:
    a, b, sent = await opened(fed)
    fed.clock.ahead += timedelta(days=30, minutes=1)
    await fed.refresh()
    for node in (a, b):
        while await node.parts.lapse.lapse():
            continue
        assert await node.leg(sent) == "SILENT"
        (entry,) = [each for each in await node.entries() if each.code == "thread.silent"]
        assert (entry.kind, str(entry.id), entry.sender, entry.recipient) == ("admin", sent["id"], a.name, b.name)
        assert await node.count("event", "kind = 'silent'") == 1
        await node.parts.lapse.lapse()
    await b.becomes(await b.send(b.reply(a, sent, "trace.response", RESPONSE)), "delivered")
    assert (await a.leg(sent), await b.leg(sent)) == ("ANSWERED", "ANSWERED")
    assert [entry.code for entry in await a.entries() if entry.kind == "admin"] == [
        "thread.unacknowledged",
        "thread.silent",
    ]
    await match_ledgers(a, b)


async def test_a_late_acknowledgement_is_an_event_and_an_entry_at_both_ends_and_changes_nothing_else(
    fed: Federation,
) -> None:
    a, b, sent = await opened(fed)
    due = fed.directory.acknowledge_due(fed.clock.now())
    leg = await a.read.leg(UUID(sent["thread"]))
    assert leg.acknowledge_by is not None
    assert abs(leg.acknowledge_by - due) < timedelta(minutes=1)
    fed.clock.ahead += timedelta(days=4, minutes=1)
    await fed.refresh()
    for node in (a, b):
        version = (await node.read.leg(UUID(sent["thread"]))).version
        assert await node.parts.lapse.lapse()
        assert not await node.parts.lapse.lapse(), "once"
        found = await node.read.leg(UUID(sent["thread"]))
        assert (found.state, found.version, found.acknowledge_by) == ("DELIVERED", version, None)
        assert await node.count("event", "kind = 'unacknowledged'") == 1
        (entry,) = [each for each in await node.entries() if each.code == "thread.unacknowledged"]
        assert (str(entry.id), entry.sender, entry.recipient) == (sent["id"], a.name, b.name)
    await b.becomes(await b.send(b.reply(a, sent, "trace.acknowledgement", ACKNOWLEDGEMENT)), "delivered")
    assert await a.leg(sent) == "ACKNOWLEDGED"
    await match_ledgers(a, b)


async def test_a_request_that_comes_days_late_makes_nobody_silent(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    a.wire.hook = unreachable
    sent = await a.send(a.draft(b, due=fed.clock.now() + timedelta(days=3)))
    fed.clock.ahead += timedelta(days=6)
    await fed.refresh()
    a.wire.hook = None
    await a.sql("UPDATE outbox SET due = now(), leased = NULL")
    await a.becomes(sent, "delivered")
    for node in (a, b):
        assert not await node.parts.lapse.lapse()
        assert await node.leg(sent) == "DELIVERED"
    fed.clock.ahead += timedelta(days=5)
    await fed.refresh()
    for node in (a, b):
        while await node.parts.lapse.lapse():
            continue
        assert await node.leg(sent) == "SILENT"


async def test_both_ends_count_from_the_day_on_which_a_late_request_came_whenever_its_receipt_does(
    fed: Federation,
) -> None:
    async def lost(peer: str, body: bytes, send: Callable[[], Awaitable[bytes]]) -> bytes:
        await send()
        return await unreachable(peer, body, send)

    a, b = await fed.nodes("a", "b")
    a.wire.hook = unreachable
    sent = await a.send(a.draft(b, due=fed.clock.now() + timedelta(days=3)))
    for days, hook in ((6, lost), (2, None)):
        fed.clock.ahead += timedelta(days=days)
        await fed.refresh()
        a.wire.hook = hook
        await a.sql("UPDATE outbox SET due = now(), leased = NULL")
        if hook:
            await b.leg_becomes(sent, "DELIVERED")
            await b.becomes(await b.send(b.reply(a, sent, "trace.acknowledgement", ACKNOWLEDGEMENT)), "delivered")
            assert not await a.parts.lapse.lapse(), "it had come by then"
    await a.becomes(sent, "delivered")
    asker, answerer = [await node.read.leg(UUID(sent["thread"])) for node in (a, b)]
    assert asker.ends is not None and answerer.ends is not None
    assert (asker.state, abs(asker.ends - answerer.ends) < timedelta(seconds=1)) == (answerer.state, True)


async def test_who_acknowledged_is_not_late(fed: Federation) -> None:
    a, b, sent = await opened(fed)
    await b.becomes(await b.send(b.reply(a, sent, "trace.acknowledgement", ACKNOWLEDGEMENT)), "delivered")
    fed.clock.ahead += timedelta(days=30, minutes=1)
    await fed.refresh()
    for node in (a, b):
        while await node.parts.lapse.lapse():
            continue
        assert await node.leg(sent) == "SILENT"
        assert await node.count("event", "kind = 'unacknowledged'") == 0


def test_working_days_pass_over_the_weekend() -> None:
    directory = nobodys_directory()

    def due(day: int) -> tuple[int, int]:
        found = directory.acknowledge_due(datetime(2026, 11, day, 10, tzinfo=UTC))
        return found.day, found.hour

    assert [due(day) for day in (23, 25, 26, 27, 28, 29)] == [(25, 10), (27, 10), (30, 10), (1, 10), (1, 10), (1, 10)]


async def test_deadlines_are_the_networks_or_what_both_members_agreed_on(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    directory, now = fed.directory, fed.clock.now()
    assert directory.answer_due(a.name, b.name, now, urgent=False) == now + timedelta(days=30)
    assert directory.answer_due(a.name, b.name, now, urgent=True) == now + timedelta(hours=24)
    ours, theirs = directory.records[a.name], directory.records[b.name]
    terms = {"urgent_hours": 6, "routine_days": 10}

    def agreed(**records: object) -> timedelta:
        found = replace(
            directory, records={a.name: ours, b.name: theirs} | {f"testnet/{k}": v for k, v in records.items()}
        )
        return found.answer_due(a.name, b.name, now, urgent=False) - now

    first = ours.model_copy(update={"agreements": [Agreement(member=b.name, **terms)]})
    second = theirs.model_copy(update={"agreements": [Agreement(member=a.name, **terms)]})
    assert agreed(a=first) == timedelta(days=30), "one side alone agrees on nothing"
    assert agreed(a=first, b=second) == timedelta(days=10)


# ---- idempotency


async def test_the_same_key_is_one_message_also_when_both_come_at_once_and_another_body_is_refused(
    fed: Federation,
) -> None:
    a, b = await fed.nodes("a", "b")
    drafts = [a.draft(b) for _ in range(4)]
    same = await asyncio.gather(*(a.send(draft, key="k", digest=b"1") for draft in drafts))
    assert all(each == same[0] for each in same)
    assert await a.send(a.draft(b), key="k", digest=b"1") == same[0]
    await refused("idempotency.reused", a.send(a.draft(b), key="k", digest=b"2"))
    await a.restart()
    assert await a.send(a.draft(b), key="k", digest=b"1") == same[0]
    both = await asyncio.gather(
        a.send(a.draft(b), key="l", digest=b"1"), a.send(a.draft(b), key="l", digest=b"2"), return_exceptions=True
    )
    assert sum(isinstance(each, dict) for each in both) == 1
    fed.clock.ahead += LEASE
    await a.becomes(same[0], "delivered")
    assert (await a.count("outbox"), (await a.kinds()).count("sent")) == (2, 2)


async def test_a_draft_that_nobody_may_send_makes_no_entry(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    (auditor, gone) = await fed.strangers("auditor", "gone", roles=("auditor",))
    fed.set_status(gone, "suspended")
    await fed.publish()
    draft = a.draft(auditor)
    for code, wrong in {
        "msg.not_permitted": draft,
        "peer.suspended": a.draft(gone),
        "member.unknown": replace(draft, recipient="testnet/nobody"),
        "type.unknown": replace(draft, type="trace.gossip"),
        "schema.invalid": replace(draft, body={}),
    }.items():
        await refused(code, a.send(wrong))
    assert await a.kinds() == ["ledger-opened"]
