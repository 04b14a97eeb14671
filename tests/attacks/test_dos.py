"""Denial of service: one member's flood, backlog and rubbish are bounded, and cost the others nothing (group dos, Z10)."""

import sys
from dataclasses import replace
from typing import Any

import pytest

from gateway.services.pace import Pace
from protocols.exchange.lines import Parcel
from protocols.ledger.proof import Place
from protocols.limits import (
    BACKLOG_A_MEMBER_MAX,
    FAILURES_BURST_MAX,
    PARCELS_A_SECOND_MAX,
    PARCELS_BURST_MAX,
    PARCELS_MAX,
)
from protocols.problems import ProblemError
from protocols.strict import parse_object
from tests.federation import Federation, Node, Stranger, verify_ledger, wait_until

Network = tuple[Node, Stranger, Stranger]


@pytest.fixture
async def network(fed: Federation) -> Network:
    (node,) = await fed.nodes("b")
    first, second = await fed.strangers("m", "n")
    return node, first, second


async def stopwatch_stands(node: Node) -> None:
    """No budget refills, so that what we send is a flood on a slow machine too."""
    node.wraps.append(lambda ports: setattr(ports, "monotonic", lambda: 0.0))
    await node.restart()


async def code_of(posting: Any) -> str:
    with pytest.raises(ProblemError) as refused:
        await posting
    return refused.value.code


async def test_a_flood_of_one_member_is_answered_429_and_the_others_are_served(network: Network) -> None:
    b, m, n = network
    await stopwatch_stands(b)
    parcel = m.parcel(b)
    posts = 0
    with pytest.raises(ProblemError) as refused:
        for posts in range(1, 3 * PARCELS_BURST_MAX // PARCELS_MAX):
            await m.post(b, *[parcel] * PARCELS_MAX)
    assert refused.value.code == "peer.rate"
    assert posts >= PARCELS_BURST_MAX // PARCELS_MAX, "what is allowed was taken"
    assert isinstance(await n.give(b, n.parcel(b)), Place)
    assert len(await verify_ledger(b)) == 3, "opened, one message of each, and nothing for the flood"


def test_reading_is_paid_for_as_well() -> None:
    pace = Pace(lambda: 0.0, lambda name, most: None)  # type: ignore[arg-type, return-value]
    pace.afford("net/m")
    pace.spend("net/m", parcels=PARCELS_BURST_MAX)
    with pytest.raises(ProblemError, match=r"peer\.rate"):
        pace.afford("net/m")


async def test_posts_that_are_none_use_up_a_small_budget_too(network: Network) -> None:
    b, m, _ = network
    await stopwatch_stands(b)
    codes = [await code_of(m.post(b, body=b'{"t":"parcel"}\n')) for _ in range(FAILURES_BURST_MAX + 20)]
    assert codes[0] == "schema.invalid"
    assert codes[-1] == "peer.rate"
    assert len(await b.entries()) == 1


async def test_messages_of_threads_that_never_were_use_up_a_small_budget_too(network: Network) -> None:
    b, m, _ = network
    await stopwatch_stands(b)
    said = {"type": "trace.withdrawal", "body": {"reason": {"code": "OTHER", "raw": ""}}}
    stray = m.parcel(b, message=said)
    assert await m.give(b, stray) == "msg.overtook"
    for _ in range(FAILURES_BURST_MAX // PARCELS_MAX):
        await m.post(b, *[stray] * PARCELS_MAX)
    assert await code_of(m.post(b, stray)) == "peer.rate"
    assert len(await b.entries()) == 1


async def test_parcels_that_can_never_succeed_use_up_a_small_budget(network: Network) -> None:
    b, m, n = network
    await stopwatch_stands(b)
    good = m.parcel(b)
    bad = Parcel(place=replace(good.place, index=0), envelope=good.envelope)  # the proof is of another entry
    with pytest.raises(ProblemError) as refused:
        for _ in range(FAILURES_BURST_MAX):
            await m.post(b, *[bad] * PARCELS_MAX)
    assert refused.value.code == "peer.rate"
    assert await code_of(m.post(b, good)) == "peer.rate"
    assert isinstance(await n.give(b, n.parcel(b)), Place)
    assert len(await verify_ledger(b)) == 2, "no entry for a parcel without a proof"


async def test_what_our_systems_do_not_fetch_is_bounded_for_each_member_and_flows_again_when_fetched(
    network: Network,
) -> None:
    b, m, n = network
    assert isinstance(await m.give(b, m.parcel(b)), Place)
    await b.sql(
        "INSERT INTO inbox SELECT sender, gen_random_uuid(), thread, type, received, origin, index, digest, content_c, dispatched "
        "FROM inbox, generate_series(1, $1) WHERE sender = $2",
        *(BACKLOG_A_MEMBER_MAX, m.name),
    )
    parcel = m.parcel(b)

    async def full() -> bool:
        try:
            await m.post(b, m.fresh(parcel))
        except ProblemError as problem:
            return problem.code == "peer.backlog"
        return False

    async def flows() -> bool:
        return not await full()

    await wait_until(full)  # it counts once a second
    assert isinstance(await n.give(b, n.parcel(b)), Place)
    await b.sql("UPDATE inbox SET dispatched = true WHERE sender = $1", m.name)
    await wait_until(flows)


async def test_buckets_refill_and_one_member_never_pays_for_another() -> None:
    now = 1_000.0

    async def none(member: str, most: int) -> int:
        return 0

    pace = Pace(lambda: now, none)
    pace.spend("net/m", parcels=PARCELS_BURST_MAX + PARCELS_A_SECOND_MAX)
    for _ in range(2):
        assert await code_of(pace.admit("net/m")) == "peer.rate"
        await pace.admit("net/n")
        now += 0.5
    now += 0.1
    await pace.admit("net/m")
    now += 1_000_000
    pace.spend("net/m", parcels=PARCELS_BURST_MAX)
    assert await code_of(pace.admit("net/m")) == "peer.rate", "a long silence saves up no more than the burst"


def test_the_work_for_an_object_grows_with_its_members_whatever_they_are_called() -> None:
    """Hashes of texts are keyed anew in each process, and nothing of ours compares each member with each other."""
    assert sys.flags.hash_randomization == 1

    def steps(members: int) -> int:
        document = b"{" + b",".join(b'"%d":{"a":1}' % n for n in range(members)) + b"}"
        count = 0

        def step(*_: Any) -> None:
            nonlocal count
            count += 1

        sys.setprofile(step)
        try:
            parse_object(document, bytes_max=1 << 20)
        finally:
            sys.setprofile(None)
        return count

    base, small, large = steps(1), steps(1_000), steps(2_000)
    assert large - base <= 2.1 * (small - base)
