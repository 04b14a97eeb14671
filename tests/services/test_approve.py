"""Two people: what one asks for waits until another person of another client has approved exactly that."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest

from gateway.services.submit import Draft, Request
from protocols.ledger.entry import actor_commitment, content_commitment
from protocols.limits import APPROVAL_DAYS, APPROVALS_OPEN_MAX
from protocols.ports.access import Caller
from protocols.problems import ProblemError
from protocols.strict import dump_json, parse_object, unb64u
from tests.federation import HANDLING, Federation, Json, Member, Node, refused
from tests.protocols.bodies import VALID

ANNA = Caller(client="desk", actor="anna", scopes=frozenset())
BELA = Caller(client="other desk", actor="bela", scopes=frozenset())


def search(to: Member, serial: str = "AB1") -> Draft:
    body = VALID["registry.search"] | {"weapon": {"serial": serial, "make": {"code": "GLOCK", "raw": "Glock"}}}
    return Draft(type="registry.search", recipient=to.name, thread=None, body=body, handling=HANDLING)


def asks(draft: Draft, caller: Caller = ANNA, key: str = "search 1") -> Request:
    return Request(caller=caller, key=key, digest=sha256(dump_json(draft.body)).digest())


async def opened(node: Node, draft: Draft, request: Request) -> Json:
    return parse_object(await node.parts.converse.open(draft, request), bytes_max=9_999)


async def needed(node: Node, draft: Draft, request: Request) -> UUID:
    """The approval that the request waits for."""
    with pytest.raises(ProblemError) as problem:
        await opened(node, draft, request)
    assert problem.value.code == "approval.needed"
    [row] = [row for row in await node.parts.approve.waiting(None, 50) if str(row.id) in problem.value.detail]
    return row.id


async def test_a_search_by_so_little_that_it_is_fishing_goes_out_once_another_person_approved(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    draft = search(b)
    approval = await needed(a, draft, asks(draft))
    assert await needed(a, draft, asks(draft)) == approval  # asked once
    assert (await a.count("outbox"), await a.count("leg")) == (0, 0)
    await a.parts.approve.rule(approval, BELA, "APPROVED")
    sent = await opened(a, draft, asks(draft))
    assert await opened(a, draft, asks(draft)) == sent  # a repetition needs no second approval
    await a.becomes(sent, "delivered")

    again = await needed(a, draft, asks(draft, key="search 2"))  # an approval is used up
    assert again != approval
    known = search(b, "ABC1")
    assert "id" in await opened(a, known, asks(known, key="search 3"))  # four characters are enough


async def test_each_step_is_an_entry_that_commits_to_what_was_asked_and_to_who_did_it(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    draft = search(b)
    approval = await needed(a, draft, asks(draft))
    ruled = await a.parts.approve.rule(approval, BELA, "APPROVED")
    steps = [entry for entry in await a.entries() if entry.id == approval]
    assert [(entry.kind, entry.code) for entry in steps] == [
        ("admin", "approval.asked"),
        ("admin", "approval.approved"),
    ]
    content = await a.parts.approve._content(ruled)
    salt = unb64u(content["salt"])
    assert [entry.actor_c for entry in steps] == [actor_commitment(salt, who) for who in ("anna", "bela")]
    about = dump_json({"to": b.name, "type": draft.type, "body": draft.body, "handling": draft.handling})
    assert {entry.content_c for entry in steps} == {content_commitment(salt, about)}
    for table in ("approval", "content"):
        rows = repr([dict(row) for row in await a.rows(f"SELECT * FROM {table}")])  # noqa: S608
        assert "AB1" not in rows
        assert repr(salt) not in rows, "who reads the database cannot guess what was asked"

    sent = await opened(a, draft, asks(draft))
    used, entry = [each for each in await a.entries() if each.code == "approval.used" or each.kind == "sent"]
    assert (used.id, used.content_c, str(entry.id)) == (approval, entry.content_c, sent["id"])


async def test_z05_nobody_approves_what_he_asked_under_no_client_and_no_name(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    draft = search(b)
    approval = await needed(a, draft, asks(draft))
    for client, actor in (("desk", "anna"), ("desk", "bela"), ("other desk", "anna")):
        caller = Caller(client=client, actor=actor, scopes=frozenset())
        await refused("approval.self", a.parts.approve.rule(approval, caller, "APPROVED"))
    assert await a.count("approval", "ruling = ''") == 1


async def test_what_was_refused_or_is_another_request_does_not_go_out(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    draft, other = search(b), search(b, "AB2")
    approval = await needed(a, draft, asks(draft))
    await a.parts.approve.rule(approval, BELA, "APPROVED")
    await needed(a, other, asks(other))  # other bytes
    await needed(a, draft, asks(draft, Caller(client="third", actor="anna", scopes=frozenset())))  # another client
    refusal = await needed(a, other, asks(other))
    await a.parts.approve.rule(refusal, BELA, "REFUSED")
    await refused("approval.refused", opened(a, other, asks(other)))
    await refused("approval.ruled", a.parts.approve.rule(refusal, BELA, "APPROVED"))
    await a.parts.approve.rule(refusal, BELA, "REFUSED")  # the same again


async def test_an_approval_is_used_once_and_ends_after_a_week(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    draft = search(b)
    approval = await needed(a, draft, asks(draft))
    await a.parts.approve.rule(approval, BELA, "APPROVED")
    both = await asyncio.gather(
        *(opened(a, draft, asks(draft, key=f"both {n}")) for n in (1, 2)), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in both) == ["ProblemError", "dict"]
    assert await a.count("outbox") == 1

    late = await needed(a, draft, asks(draft, key="late"))
    fed.clock.ahead += timedelta(days=APPROVAL_DAYS, seconds=1)
    await refused("approval.not_found", a.parts.approve.rule(late, BELA, "APPROVED"))
    assert await needed(a, draft, asks(draft, key="late")) != late


async def test_two_who_rule_at_once_leave_one_ruling(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    draft = search(b)
    approval = await needed(a, draft, asks(draft))
    cleo: Any = Caller(client="third desk", actor="cleo", scopes=frozenset())
    both = await asyncio.gather(
        a.parts.approve.rule(approval, BELA, "APPROVED"),
        a.parts.approve.rule(approval, cleo, "REFUSED"),
        return_exceptions=True,
    )
    assert sum(isinstance(each, ProblemError) and each.code == "approval.ruled" for each in both) == 1
    assert sum(entry.id == approval for entry in await a.entries()) == 2


async def test_nobody_is_asked_about_what_could_not_be_sent_nor_without_end(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    draft = search(b)
    for wrong, code in (
        ({"recipient": "testnet/nobody"}, "member.unknown"),
        ({"handling": {"codes": 3}}, "schema.invalid"),
    ):
        await refused(code, opened(a, replace(draft, **wrong), asks(draft)))  # type: ignore[arg-type]
    assert await a.count("approval") == 0
    both = await asyncio.gather(*(opened(a, draft, asks(draft)) for _ in range(2)), return_exceptions=True)
    assert all(isinstance(each, ProblemError) and each.code == "approval.needed" for each in both)
    assert await a.count("approval") == 1, "two equal requests ask once"
    for n in range(1, APPROVALS_OPEN_MAX):
        await needed(a, search(b, f"{n:02}A"), asks(draft))
    await refused("approval.many", opened(a, search(b, "ZZ9"), asks(draft)))


async def test_a_ruling_that_stands_in_the_database_alone_lets_nothing_out(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    draft = search(b)
    approval = await needed(a, draft, asks(draft))
    by_hand = "UPDATE approval SET ruling = 'APPROVED', ruled_actor = 'bela', ruled_client = 'other desk', used = false WHERE id = $1 RETURNING id"
    await a.sql(by_hand, approval)
    await refused("approval.unproven", opened(a, draft, asks(draft)))
    await a.sql("UPDATE approval SET ruling = '' WHERE id = $1 RETURNING id", approval)
    await a.parts.approve.rule(approval, BELA, "APPROVED")
    sent = await opened(a, draft, asks(draft))
    await a.becomes(sent, "delivered")


async def test_what_one_refused_counts_as_refused_though_the_row_forgets_it(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    draft = search(b)
    approval = await needed(a, draft, asks(draft))
    await a.parts.approve.rule(approval, BELA, "REFUSED")
    await a.sql("UPDATE approval SET ruling = '', ruled = NULL WHERE id = $1 RETURNING id", approval)
    third = Caller(client="third desk", actor="cora", scopes=frozenset())
    await a.parts.approve.rule(approval, third, "APPROVED")
    await refused("approval.unproven", opened(a, draft, asks(draft)))


async def test_an_approval_of_which_nothing_is_left_is_in_nobodys_way(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    draft, other = search(b), search(b, "CD2")
    gone = await needed(a, draft, asks(draft))
    await a.sql("DELETE FROM content WHERE id = $1 RETURNING id", gone)
    waits = await needed(a, other, asks(other, key="search 2"))
    reader = replace(BELA, purpose="TRACING")
    listed = await a.parts.approve.read(await a.parts.approve.waiting(None, 9), reader)
    assert [each["id"] for each in listed] == [str(waits)]
