"""Group replay: old bytes, foreign bytes and a clock that lies; the same again is in tests/services/test_receive.py."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from gateway.services.judge import Judge, Proven
from gateway.services.receive import Receive, prove_parcel
from protocols.exchange.lines import Parcel, Receipt, encode_post, parse_post
from protocols.ledger.checkpoint import parse_checkpoint
from protocols.ledger.entry import parse_entry
from protocols.ledger.proof import Place
from protocols.problems import ProblemError
from tests.federation import Clock, Federation, Node, Stranger, refused, verify_ledger

STORED = ("inbox", "refusal", "content", "peer_proof", "event", "leg")
DAY = timedelta(days=1)


@pytest.fixture
async def pair(fed: Federation) -> tuple[Node, Stranger]:
    (node,) = await fed.nodes("b")
    (stranger,) = await fed.strangers("m")
    return node, stranger


async def nothing_stored(node: Node) -> None:
    assert {table: await node.count(table) for table in STORED} == dict.fromkeys(STORED, 0)
    assert len(await verify_ledger(node)) == 1


def receive_of(node: Node) -> Receive:
    routes = node.parts.listeners["exchange"].router.routes()
    return next(iter(routes)).handler.__self__._receive  # type: ignore[attr-defined]


def proven(parcel: Parcel) -> Proven:
    """A parcel as if its proof had held."""
    entry = parse_entry(parcel.place.entry)
    assert entry.envelope is not None
    return Proven(
        entry=entry, place=parcel.place, root=bytes(32), envelope=parcel.envelope, digest=entry.envelope, note=b""
    )


async def test_an_expired_message_is_refused_unless_it_was_receipted_in_time(
    pair: tuple[Node, Stranger], fed: Federation
) -> None:
    b, m = pair
    now = m.message(b).created
    in_time, late, barely = (m.parcel(b, message={"created": now, "expires": now + DAY}) for _ in range(3))
    first = await m.give(b, m.fresh(in_time))
    assert parse_entry(first.entry).kind == "received"
    fed.clock.ahead += DAY
    await fed.refresh()
    for parcel in (late, barely):
        place = await m.give(b, m.fresh(parcel))
        entry = parse_entry(place.entry)
        assert (entry.kind, entry.code, entry.read) == ("refused", "msg.expired", True)
        assert (await m.give(b, m.fresh(parcel))).entry == place.entry, "and again the same"
    assert (await m.give(b, m.fresh(in_time))).entry == first.entry, "what was receipted stays so"
    assert (await b.count("inbox"), await b.count("refusal")) == (1, 2)


async def test_an_envelope_for_another_member_is_no_message_for_us(
    pair: tuple[Node, Stranger], fed: Federation
) -> None:
    b, m = pair
    (c,) = await fed.strangers("c")
    for_c = m.parcel(c)
    assert await m.give(b, m.fresh(for_c)) == "env.invalid"
    with pytest.raises(ProblemError) as caught:
        checkpoint = parse_checkpoint(m.note())
        prove_parcel(
            m.fresh(for_c), parse_entry(for_c.place.entry), {(m.origin, checkpoint.size): checkpoint}, b.name, None
        )
    assert caught.value.code == "env.recipient_mismatch"
    await nothing_stored(b)
    causes = {
        "env.decrypt": m.parcel(c, entry={"recipient": b.name}),  # proven as ours, sealed to another
        "env.recipient_mismatch": m.parcel(b, header={"recipient": c.name}),
    }
    readdressed = m.parcel(b, message={"recipient": c.name}, header={"recipient": b.name})
    for cause, parcel in [*causes.items(), ("env.recipient_mismatch", readdressed)]:
        entry = parse_entry((await m.give(b, m.fresh(parcel))).entry)
        assert (entry.kind, entry.code) == ("refused", "env.invalid")
        assert (await b.sql("SELECT cause FROM refusal WHERE id = $1", entry.id))["cause"] == cause
    assert await b.count("inbox") == 0


@pytest.mark.parametrize("network", ["livenet", "testnet-2", "testne", "xestnet"])
async def test_a_message_of_another_network_is_none_of_ours(pair: tuple[Node, Stranger], network: str) -> None:
    b, m = pair
    name = f"{network}/m"
    abroad = m.parcel(b, message={"sender": name}, header={"sender": name}, entry={"sender": name})
    await refused("peer.identity_mismatch", m.post(b, m.fresh(abroad)))
    place = replace(m.fresh(abroad).place, origin=f"{name}/2026.1")
    elsewhere = replace(abroad, place=place)
    await refused("peer.identity_mismatch", m.post(b, elsewhere, notes={}, links={}))
    for_them = m.parcel(
        b,
        message={"recipient": f"{network}/b"},
        header={"recipient": f"{network}/b"},
        entry={"recipient": f"{network}/b"},
    )
    assert await m.give(b, m.fresh(for_them)) == "env.invalid"
    await nothing_stored(b)
    judge: Judge = receive_of(b)._judge
    assert b.fed.source.current is not None
    for parcel, cause in ((abroad, "env.network"), (for_them, "env.recipient_mismatch")):
        found: Any = judge.judge(proven(parcel), b.fed.source.current, None)
        assert (found.refusal.cause, found.refusal.code) == (cause, "env.invalid")


# ---- a clock set back


@pytest.fixture
async def ready(pair: tuple[Node, Stranger]) -> AsyncIterator[Any]:
    """What the node says of itself."""
    b, _ = pair

    async def ask() -> tuple[int, dict[str, str]]:
        async with TestClient(TestServer(b.parts.listeners["operations"])) as client:
            answer = await client.get("/readyz")
            return answer.status, {check: each["code"] for check, each in (await answer.json())["wrong"].items()}

    yield ask


@pytest.mark.parametrize("restarted", [False, True], ids=["while it runs", "while it was stopped"])
async def test_a_clock_set_back_makes_nothing_valid_again_and_is_said_by_readyz(
    pair: tuple[Node, Stranger], fed: Federation, ready: Any, restarted: bool
) -> None:
    b, m = pair
    now = m.message(b).created
    expired = m.parcel(b, message={"created": now, "expires": now + timedelta(hours=1)})
    kept = encode_post(m.post_of(m.fresh(expired)))
    stale = m.client()  # its clock stays where everybody's was
    stale._clock = fixed = Clock()  # type: ignore[assignment]
    fed.clock.ahead += timedelta(hours=2)
    await fed.refresh()
    assert isinstance(await m.give(b, m.parcel(b)), Place), "an entry of the present stands in our ledger"
    assert await ready() == (200, {})
    if restarted:
        await b.stop()
    fed.clock.ahead -= timedelta(hours=2) + DAY
    if restarted:
        await b.start()
    status, wrong = await ready()
    assert (status, wrong) == (503, {"clock": "time.rollback"})
    fixed.ahead = timedelta()
    with pytest.raises(ProblemError) as caught:  # a request of two hours ago, which a day ago is not yet made
        await stale.post(fed.directory.records[b.name], kept)
    assert caught.value.code == "httpsig.time"
    await stale.close()
    fed.clock.ahead += DAY + timedelta(hours=2)  # the peer's clock is right
    present = m.client()
    present._clock = Clock()  # type: ignore[assignment]
    present._clock.ahead = fed.clock.ahead  # type: ignore[attr-defined]
    fed.clock.ahead -= DAY + timedelta(hours=2)
    answer = await ask(present, fed, b, kept)
    await present.close()
    assert (answer.kind, answer.code) == ("refused", "msg.expired"), "by our own clock it had a day left"
    assert answer.at >= (await b.entries())[-2].at, "entries never go back in time"
    fed.clock.ahead += DAY + timedelta(hours=2)
    assert await ready() == (200, {})
    assert isinstance(await m.give(b, m.parcel(b)), Place)
    await verify_ledger(b)


async def ask(client: Any, fed: Federation, b: Node, body: bytes) -> Any:
    (item,) = parse_post(await client.post(fed.directory.records[b.name], body), answer=True).items
    assert isinstance(item, Receipt)
    return parse_entry(item.place.entry)


async def test_an_expired_directory_stays_expired_when_the_clock_goes_back(
    pair: tuple[Node, Stranger], fed: Federation, ready: Any
) -> None:
    b, m = pair
    fed.clock.ahead += 5 * DAY
    await refused("dir.stale", m.post(b, m.parcel(b)))
    assert (await ready())[1] == {"directory": "dir.stale"}
    fed.clock.ahead -= 5 * DAY
    assert (await ready())[1] == {"clock": "time.rollback", "directory": "dir.stale"}
    body, client = encode_post(m.post_of(m.fresh(m.parcel(b)))), m.client()
    client._clock = Clock()  # type: ignore[assignment]
    client._clock.ahead = 5 * DAY  # type: ignore[attr-defined]
    await refused("dir.stale", client.post(fed.directory.records[b.name], body))
    await client.close()
    await nothing_stored(b)


async def test_a_clock_corrected_by_less_than_a_minute_is_no_alarm_and_entries_keep_their_order(
    pair: tuple[Node, Stranger], fed: Federation, ready: Any
) -> None:
    b, m = pair
    fed.clock.ahead += timedelta(seconds=30)
    first = parse_entry((await m.give(b, m.parcel(b))).entry)
    fed.clock.ahead -= timedelta(seconds=30)
    assert await ready() == (200, {})
    second = parse_entry((await m.give(b, m.parcel(b))).entry)
    assert second.at >= first.at
