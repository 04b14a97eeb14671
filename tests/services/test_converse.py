"""What is said in a thread: every message type end to end, referrals that lead on, and handling that binds whoever received it."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from gateway.services.chain import Chains
from gateway.services.converse import Saying
from gateway.services.submit import Request
from gateway.services.terms import consented
from protocols.archive import unpack
from protocols.exchange.message import Message
from protocols.ledger.entry import parse_entry
from protocols.messages import TYPES
from protocols.messages.shared import Handling
from protocols.messages.terms import onward_forbidden, tightens
from protocols.ports.access import Caller
from protocols.problems import ProblemError
from protocols.strict import parse_object
from protocols.thread import TABLE
from tests.federation import HANDLING, Federation, Json, Member, Node, match_ledgers, refused, trace_request, wait_until
from tests.protocols.bodies import VALID, event, pair
from tests.services.erasing import erase, order

CALLER = Caller(client="test", actor="tester", scopes=frozenset(("parts:read",)), purpose="TRACING")
COUNT = iter(range(1, 10_000))
ASK = HANDLING | {"onward": "ask"}


def request() -> Request:
    return Request(caller=CALLER, key=f"converse {next(COUNT)}", digest=b"")


async def say(node: Node, thread: str, type_: str, body: Json, **more: Any) -> Json:
    given: Json = {"handling": HANDLING, "parts": {}} | more
    said = Saying(type=type_, body=body, **given)
    return parse_object(await node.parts.converse.say(UUID(thread), said, request(), None), bytes_max=9_999)


async def tell(node: Node, thread: str, type_: str, body: Json, **more: Any) -> Json:
    """Says it, and waits until the other side has it."""
    sent = await say(node, thread, type_, body, **more)
    await node.becomes(sent, "delivered")
    return sent


async def asked(a: Node, b: Member, **changes: Any) -> Json:
    sent = await a.send(a.draft(b, **changes))
    await a.becomes(sent, "delivered")
    return sent


async def arrives(node: Node, thread: str) -> None:
    async def there() -> bool:
        return await node.count("leg", f"thread = '{thread}'") > 0

    await wait_until(there)


def referral(to: Member, mode: str = "ANSWERER_FORWARDS", **changes: Any) -> Json:
    hop = VALID["trace.referral"]["next_hop"] | {"member": to.name}
    return {"next_hop": hop, "why": {"code": "SOLD_TO_IMPORTER", "raw": ""}, "mode": mode} | changes


async def test_every_message_type_goes_end_to_end_through_two_nodes(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    sent = await asked(a, b)
    thread, other = sent["thread"], await asked(a, b)
    by_b = ["trace.acknowledgement", "trace.status", "trace.clarification"]
    for type_ in by_b:
        await tell(b, thread, type_, VALID[type_])
    await tell(a, thread, "trace.clarification-answer", VALID["trace.clarification-answer"])
    question = await tell(b, thread, "consent.request", VALID["consent.request"] | {"target": sent["id"]})
    await tell(a, thread, "consent.answer", VALID["consent.answer"], in_reply_to=UUID(question["id"]))
    await tell(a, thread, "handling.change", {"target": sent["id"], "handling": HANDLING | {"evidence_use": "no"}})
    ground = {"code": "COURT_ORDER", "raw": ""}
    report = {name: VALID["disclosure.report"][name] for name in ("to", "on")} | {
        "target": sent["id"],
        "ground": ground,
    }
    await tell(b, thread, "disclosure.report", report)
    hop = VALID["trace.referral"]["next_hop"] | {"member": "testnet/x"}
    referred = {"next_hop": hop, "why": {"code": "EXPORTED", "raw": ""}, "mode": "REQUESTER_ASKS_AGAIN"}
    await tell(b, thread, "trace.referral", referred)
    await tell(b, thread, "trace.response", VALID["trace.response"])
    await tell(a, thread, "erasure.request", VALID["erasure.request"] | {"messages": [sent["id"]]})
    await erase(b, order(sent, sent))
    await tell(b, thread, "erasure.confirmation", VALID["erasure.confirmation"] | {"messages": [sent["id"]]})
    await tell(a, thread, "trace.status", {"state": "CLOSED"})
    await b.sql("UPDATE leg SET expected = now() - interval '9 days' WHERE thread = $1", UUID(other["thread"]))
    await a.sql("UPDATE leg SET expected = now() - interval '9 days' WHERE thread = $1", UUID(other["thread"]))
    await tell(a, other["thread"], "trace.reminder", {})
    await tell(b, other["thread"], "trace.refusal", VALID["trace.refusal"])
    third = await asked(a, b)
    await tell(a, third["thread"], "trace.withdrawal", VALID["trace.withdrawal"])
    answers = {
        "reference.query": (b, "reference.answer"),
        "registry.search": (b, "registry.hit"),
        "registry.record": (a, "registry.withdrawal"),
    }
    for type_ in TABLE.keys() - {"trace.request"}:
        opened = await asked(a, b, type=type_, body=VALID[type_])
        if type_ in answers:
            speaker, answer = answers[type_]
            await tell(speaker, opened["thread"], answer, VALID[answer])
    for node in (a, b):
        there = {row["type"] for row in await node.rows("SELECT type FROM inbox UNION SELECT type FROM outbox")}
        assert there == TYPES.keys()
        assert await node.count("refusal") == 0
    legs = [
        {row["thread"]: row["state"] for row in await node.rows("SELECT thread, state FROM leg")} for node in (a, b)
    ]
    assert legs[0] == legs[1]
    assert legs[0][UUID(thread)] == "CLOSED"
    await match_ledgers(a, b)


async def test_what_is_said_is_held_to_what_was_said_before(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    sent = await asked(a, b)
    thread = sent["thread"]
    lost = {"questions": [{"pointer": "/weapon/colour", "reason": {"code": "OTHER", "raw": ""}}], "clock": "RUNNING"}
    await refused("schema.invalid", say(b, thread, "trace.clarification", lost))
    await refused("thread.state", say(a, thread, "trace.reminder", {}))
    incompetent = VALID["trace.refusal"] | {"ground": {"code": "NOT_COMPETENT", "raw": ""}}
    incompetent.pop("review_on", None)
    await refused("schema.invalid", say(b, thread, "trace.refusal", incompetent | {"kind": "REFUSAL"}))
    await refused("thread.state", say(a, thread, "trace.response", VALID["trace.response"]))
    await refused("schema.invalid", say(b, thread, "consent.request", VALID["consent.request"]))
    await refused(
        "schema.invalid", say(b, thread, "consent.answer", VALID["consent.answer"], in_reply_to=UUID(sent["id"]))
    )
    await refused("thread.not_found", say(a, sent["id"], "trace.withdrawal", VALID["trace.withdrawal"]))
    wider = {"target": sent["id"], "handling": HANDLING | {"onward": "ask"}}
    await refused("handling.forbidden", say(a, thread, "handling.change", wider))


async def test_a_forwarded_request_holds_what_its_originator_lets_go_and_nothing_more(fed: Federation) -> None:
    a, b, c = await fed.nodes("a", "b", "c")
    sent = await asked(a, b, handling=ASK)
    thread = sent["thread"]
    await refused("handling.forbidden", say(b, thread, "trace.referral", referral(c)))
    wanted = {"target": sent["id"], "to": "ONWARD_DISCLOSURE", "recipients": [c.name], "why": "It sold it on."}
    question = await tell(b, thread, "consent.request", wanted)
    await tell(a, thread, "consent.answer", {"decision": "GRANTED"}, in_reply_to=UUID(question["id"]))
    await refused("schema.invalid", say(b, thread, "trace.referral", referral(c, released_fields=["evidence"])))
    await tell(b, thread, "trace.referral", referral(c, released_fields=["circumstances"]))
    await arrives(c, thread)
    (arrived,) = await c.rows("SELECT id, sender FROM inbox")
    content = await c.read.content(arrived["sender"], arrived["id"])
    body, first = content.message.body, trace_request("ABC1234")
    assert (body["weapon"], body["circumstances"]) == (first["weapon"], first["circumstances"])
    assert not {"legal_basis", "intended_use", "persons", "evidence"} & body.keys()
    assert first["request_ref"] not in str(body)
    assert body["referred"] == {
        "by": b.name,
        "mode": "ANSWERER_FORWARDS",
        "hop": 2,
        "released_fields": ["circumstances"],
    }
    assert content.message.handling == ASK
    assert [leg.role for leg in await b.read.legs(UUID(thread))] == ["answerer", "asker"]
    answer = VALID["trace.response"]
    await tell(c, thread, "trace.response", answer)
    with pytest.raises(ProblemError, match=r"handling\.forbidden"):
        await say(b, thread, "trace.response", answer, to=a.name)
    await tell(b, thread, "trace.response", answer | {"events": []}, to=a.name)
    assert await a.leg(sent) == "ANSWERED"
    assert await a.count("inbox", f"sender = '{c.name}'") == 0
    await match_ledgers(a, b, c)


async def test_a_chain_that_comes_back_is_a_loop_and_a_ninth_hop_is_none(fed: Federation) -> None:
    a, b, c = await fed.nodes("a", "b", "c")
    open_to_all = HANDLING | {"onward": "named", "named_recipients": [a.name, b.name, c.name]}
    sent = await asked(a, b, handling=open_to_all)
    await tell(b, sent["thread"], "trace.referral", referral(c))
    await arrives(c, sent["thread"])
    back = await say(c, sent["thread"], "trace.referral", referral(a))
    await c.becomes(back, "delivered")

    async def ended() -> bool:
        return (
            await c.count("outbox", f"recipient = '{a.name}' AND state = 'refused' AND problem = 'msg.correlation'")
            == 1
        )

    await wait_until(ended)
    await refused("thread.state", say(b, sent["thread"], "trace.referral", referral(c)))
    other = await asked(a, b, handling=open_to_all)
    await b.sql("UPDATE leg SET hop = 8 WHERE thread = $1", UUID(other["thread"]))
    await refused("thread.state", say(b, other["thread"], "trace.referral", referral(c)))


async def test_what_is_forwarded_when_its_time_is_over_has_the_time_of_a_new_request(fed: Federation) -> None:
    a, b, c = await fed.nodes("a", "b", "c")
    sent = await asked(a, b, handling=HANDLING | {"onward": "named", "named_recipients": [c.name]})
    fed.clock.ahead += timedelta(days=31)
    await fed.refresh()
    await tell(b, sent["thread"], "trace.referral", referral(c))
    await arrives(c, sent["thread"])
    (leg,) = await c.read.legs(UUID(sent["thread"]))
    assert leg.ends is not None
    assert leg.ends > fed.clock.now()


async def test_the_requester_asks_again_as_the_referral_says(fed: Federation) -> None:
    a, b, c = await fed.nodes("a", "b", "c")
    sent = await asked(a, b)
    told = await tell(b, sent["thread"], "trace.referral", referral(c, "REQUESTER_ASKS_AGAIN"))
    thread, where = UUID(sent["thread"]), UUID(told["id"])
    await refused("schema.invalid", a.parts.converse.ask_again(where, thread, a.draft(b)))
    await refused("schema.invalid", a.parts.converse.ask_again(UUID(sent["id"]), thread, a.draft(c)))
    again = await a.send(await a.parts.converse.ask_again(where, thread, a.draft(c)))
    await a.becomes(again, "delivered")
    assert again["thread"] == sent["thread"]
    assert {leg.counterpart: leg.hop for leg in await a.read.legs(thread)} == {b.name: 1, c.name: 2}
    await tell(c, sent["thread"], "trace.response", VALID["trace.response"])
    states = {leg.counterpart: leg.state for leg in await a.read.legs(thread)}
    assert states == {b.name: "REFERRED", c.name: "ANSWERED"}
    assert len((await a.read.thread(thread, CALLER))[0]["legs"]) == 2
    await refused("schema.invalid", say(a, sent["thread"], "trace.withdrawal", VALID["trace.withdrawal"]))
    await match_ledgers(a, b, c)


async def test_what_its_handling_ends_is_neither_shown_nor_exported(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    first, second = await asked(a, b), await asked(a, b, handling=HANDLING | {"codes": ["REGISTRY_MATCH_ONLY"]})
    thread = UUID(first["thread"])
    assert "body" in (await b.read.thread(thread, CALLER))[0]["messages"][0]
    yesterday = str(fed.clock.now().date() - timedelta(days=1))
    tighter = HANDLING | {"codes": ["PURPOSE_TRACING_ONLY", "DELETE_AFTER"], "delete_after": yesterday}
    await tell(a, first["thread"], "handling.change", {"target": first["id"], "handling": tighter})
    for sent in (first, second):
        shown = (await b.read.thread(UUID(sent["thread"]), CALLER))[0]["messages"][0]
        assert ("body" in shown, "withheld" in shown) == (False, True)
        file = unpack(await b.parts.export.export(UUID(sent["thread"]), CALLER))
        assert "messages/0001.jws" not in file
        assert b"ABC1234" not in b"".join(file.values())
        assert "body" in (await a.read.thread(UUID(sent["thread"]), CALLER))[0]["messages"][0], (
            "one's own words are one's own"
        )


async def test_evidence_holds_another_members_words_only_as_it_allows(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    asks = HANDLING | {"evidence_use": "ask"}
    sent = await asked(a, b, handling=asks)

    async def held() -> bool:
        return "messages/0001.jws" in unpack(await b.parts.export.export(UUID(sent["thread"]), CALLER))

    assert not await held()
    wanted = {"target": sent["id"], "to": "EVIDENCE_USE", "why": "For the court."}
    for decision, allowed in (("GRANTED", True), ("REFUSED", False)):
        question = await tell(b, sent["thread"], "consent.request", wanted)
        await tell(a, sent["thread"], "consent.answer", {"decision": decision}, in_reply_to=UUID(question["id"]))
        assert await held() is allowed, "the last word counts"
    await tell(
        a, sent["thread"], "handling.change", {"target": sent["id"], "handling": HANDLING | {"evidence_use": "no"}}
    )
    question = await tell(b, sent["thread"], "consent.request", wanted)
    await tell(a, sent["thread"], "consent.answer", {"decision": "GRANTED"}, in_reply_to=UUID(question["id"]))
    assert not await held(), "no is no"


async def test_the_requester_sees_one_chain_of_what_each_hop_told_and_no_other_node_ever_held_it(
    fed: Federation,
) -> None:
    a, b, c, d = await fed.nodes("a", "b", "c", "d")
    sent = await asked(a, b)
    thread = UUID(sent["thread"])
    made = event("1998-02-01", "MANUFACTURED", **{"from": pair("MANUFACTURER"), "to": pair("MANUFACTURER")})
    sold = event("1999-02-01", "EXPORTED", **{"from": pair("MANUFACTURER"), "to": pair("IMPORTER")})
    last = event("2001-02-01", "RETAIL_SALE", **{"from": pair("DEALER"), "to": pair("PRIVATE_PERSON")})
    hops = ((b, c, [made, sold]), (c, d, []), (d, None, [last]))
    for node, following, events in hops:
        if events:
            body = VALID["trace.response"] | {"final": following is None, "events": events}
            await tell(node, sent["thread"], "trace.response", body)
        if following is not None:
            told = await tell(node, sent["thread"], "trace.referral", referral(following, "REQUESTER_ASKS_AGAIN"))
            again = await a.send(await a.parts.converse.ask_again(UUID(told["id"]), thread, a.draft(following)))
            await a.becomes(again, "delivered")
    chain = await Chains(member=a.name, read=a.read, clock=fed.clock).chain(thread, CALLER)
    assert [each["kind"]["code"] for each in chain["events"]] == [
        "MANUFACTURED",
        "EXPORTED",
        "GAP",
        "RETAIL_SALE",
        "GAP",
        "RECOVERED",
    ]
    assert [(hop["counterpart"], hop["hop"], hop["state"]) for hop in chain["hops"]] == [
        (b.name, 1, "REFERRED"), (c.name, 2, "REFERRED"), (d.name, 3, "ANSWERED")
    ]  # fmt: skip
    for node in (b, c, d):
        parties = {(row["sender"], node.name) for row in await node.rows("SELECT DISTINCT sender FROM content")}
        assert {sender for sender, _ in parties} <= {a.name, node.name}, "each leg is sealed to its two parties"
    await match_ledgers(a, b, c, d)


async def test_a_referral_that_only_the_request_tells_of_is_refused(fed: Federation) -> None:
    (b,) = await fed.nodes("b")
    (m,) = await fed.strangers("m")
    body = {
        name: value for name, value in trace_request("ABC1234").items() if name not in ("legal_basis", "intended_use")
    }
    for by, reply in (("testnet/nobody", uuid7_of(m, b)), (m.name, None)):
        referred = {"by": by, "mode": "ANSWERER_FORWARDS", "hop": 2, "released_fields": ["circumstances"]}
        said = {"body": body | {"referred": referred}, "in_reply_to": reply}
        place = await m.give(b, m.parcel(b, message=said))
        assert parse_entry(place.entry).code == "schema.invalid", by


def uuid7_of(m: Any, to: Member) -> UUID:
    found: UUID = m.message(to).id
    return found


def test_the_last_word_is_the_one_that_was_said_last_however_it_came() -> None:
    at = datetime(2026, 11, 2, tzinfo=UTC)
    target, ask = uuid7_at(at), uuid7_at(at + timedelta(seconds=1))

    def message(
        type_: str, sender: str, body: Json, after: int, reply: UUID | None = None, id_: UUID | None = None
    ) -> Message:
        return Message(
            id=id_ or uuid7_at(at + timedelta(seconds=after)), type=type_, sender=sender, recipient="n/b" if sender == "n/a" else "n/a",
            thread=target, in_reply_to=reply, created=at + timedelta(seconds=after), expires=at + timedelta(days=9), due=None,
            handling=BASE, salt=bytes(32), parts=(), body=body,
        )  # fmt: skip

    first = message("trace.request", "n/a", trace_request("ABC1234"), 0, id_=target)
    asks = message("consent.request", "n/b", {"target": str(target), "to": "EVIDENCE_USE", "why": "x"}, 1, id_=ask)
    yes = message("consent.answer", "n/a", {"decision": "GRANTED"}, 2, ask)
    no = message("consent.answer", "n/a", {"decision": "REFUSED"}, 3, ask)
    said = sorted([first, asks, no, yes], key=lambda each: (each.created, each.id))
    assert not consented(said, first, "EVIDENCE_USE")
    assert consented(said[:3], first, "EVIDENCE_USE")


def uuid7_at(at: datetime) -> UUID:
    return UUID(int=(int(at.timestamp() * 1000) << 80) | (7 << 76) | (2 << 62) | next(COUNT))


BASE: Json = {"codes": [], "purpose": "TRACING", "onward": "ask"}


@pytest.mark.parametrize(
    ("handling", "roles", "released", "consent", "allowed"),
    [
        ({}, ("registry",), (), False, False),
        ({}, ("registry",), (), True, True),
        ({"onward": "none"}, ("registry",), (), True, False),
        ({"onward": "named", "named_recipients": ["n/c"]}, ("registry",), (), False, True),
        ({"onward": "named", "named_recipients": ["n/d"]}, ("registry",), (), True, False),
        ({"codes": ["NAMED_RECIPIENTS_ONLY"], "named_recipients": ["n/d"]}, ("registry",), (), True, False),
        (
            {"codes": ["NO_ONWARD_WITHOUT_CONSENT"], "onward": "named", "named_recipients": ["n/c"]},
            ("registry",),
            (),
            False,
            True,
        ),
        ({"codes": ["NCB_EYES_ONLY"]}, ("registry",), (), True, False),
        ({"codes": ["NCB_EYES_ONLY"]}, ("focal-point",), (), True, True),
        ({"codes": ["REGISTRY_MATCH_ONLY"]}, ("registry",), (), True, False),
        ({"codes": ["MANUFACTURER_MAY_SEE_WEAPON_ONLY"]}, ("manufacturer",), ("circumstances",), True, False),
        ({"codes": ["MANUFACTURER_MAY_SEE_WEAPON_ONLY"]}, ("manufacturer",), (), True, True),
        ({"codes": ["DELETE_AFTER"], "delete_after": "2026-11-01"}, ("registry",), (), True, False),
    ],
)
def test_what_a_handling_lets_go_onward(
    handling: Json, roles: tuple[str, ...], released: tuple[str, ...], consent: bool, allowed: bool
) -> None:
    found = Handling.model_validate(BASE | handling)
    why = onward_forbidden(
        found, recipient="n/c", roles=roles, released=released, today=date(2026, 11, 2), consent=consent
    )
    assert (why == "") is allowed, why


@pytest.mark.parametrize(
    ("change", "tighter"),
    [
        ({"codes": ["PURPOSE_TRACING_ONLY"]}, True), ({"onward": "none"}, True), ({"evidence_use": "no"}, True),
        ({"codes": ["DELETE_AFTER"], "delete_after": "2027-01-01"}, True), ({"evidence_use": "yes"}, False),
        ({"onward": "named", "named_recipients": ["n/c"]}, False), ({"purpose": "STATISTICS"}, False),
    ],
)  # fmt: skip
def test_only_what_was_allowed_before_is_tighter(change: Json, tighter: bool) -> None:
    old = Handling.model_validate(BASE)
    assert tightens(old, Handling.model_validate(BASE | change)) is tighter
