"""Every node is a witness (C2SP tlog-witness): it cosigns what goes on from all that it saw of a ledger, and has its own cosigned."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from gateway.runtime.cli.member import Changes
from gateway.runtime.world import SystemClock
from gateway.services.link import Linking
from gateway.services.witness import Witness
from keys.suite import Tw1Verifier
from protocols.directory import witness_keys
from protocols.ledger.checkpoint import checkpoint_text
from protocols.ledger.linking import Link
from protocols.ledger.merkle import consistency_path
from protocols.ledger.note import format_note
from protocols.ledger.proof import Place
from protocols.ledger.witness import format_request
from protocols.ports.store import Unavailable
from protocols.problems import ProblemError
from protocols.strict import b64u
from tests.fault.invariants import VERIFIER
from tests.federation import Federation, Node, Stranger, nobodys_directory, refused, verify_ledger
from tests.services.test_receive import proven_fork
from tests.simulation.loop import VirtualLoop


def request(m: Stranger, old: int, size: int | None = None, **changes: Any) -> bytes:
    """What a ledger asks a witness."""
    size = len(m.log) if size is None else size
    path = tuple(consistency_path(old, size, m.node)) if 0 < old < size else ()
    return format_request(**{"old": old, "path": path, "note": m.note(size)} | changes)


async def ask(m: Stranger, to: Node, body: bytes) -> Any:
    """The witness's answer over HTTP: lines, a size, or the code of its problem."""
    client = m.client()
    try:
        return await client.add_checkpoint(m.fed.directory.records[to.name], body)
    except ProblemError as problem:
        return problem.code
    finally:
        await client.close()


def cosigned(b: Node, note: bytes, lines: bytes) -> bool:
    keys = witness_keys(b.fed.directory.records[b.name])
    return keys is not None and keys.cosignature(note + lines, Tw1Verifier()) is not None


@pytest.fixture
async def pair(fed: Federation) -> tuple[Node, Stranger]:
    (b,) = await fed.nodes("b")
    (m,) = await fed.strangers("m")
    return b, m


async def test_a_witness_cosigns_what_goes_on_from_what_it_holds_and_names_that_otherwise(
    pair: tuple[Node, Stranger],
) -> None:
    b, m = pair
    lines = await ask(m, b, request(m, 0))
    assert cosigned(b, m.note(1), lines)
    assert not cosigned(b, m.note(1), lines[: lines.index(b"\n") + 1]), "both or none"
    for _ in range(5):
        m.parcel(b)
    assert await ask(m, b, request(m, 0)) == 1, "409 with the size that it holds"
    assert cosigned(b, m.note(6), await ask(m, b, request(m, 1)))
    assert cosigned(b, m.note(6), await ask(m, b, request(m, 6, 6))), "the same again"
    assert await ask(m, b, request(m, 1)) == 6
    assert await ask(m, b, request(m, 1, 3)) == 6, "never back"


async def test_a_witness_goes_on_from_what_the_exchange_has_linked(pair: tuple[Node, Stranger]) -> None:
    b, m = pair
    await m.give(b, m.parcel(b))
    assert await ask(m, b, request(m, 0)) == 2
    assert cosigned(b, m.note(2), await ask(m, b, request(m, 2, 2)))


async def test_what_a_witness_does_not_cosign_it_says_with_the_status_of_the_standard(
    fed: Federation, pair: tuple[Node, Stranger]
) -> None:
    b, m = pair
    m.parcel(b)
    text = checkpoint_text(m.origin, 2, bytes(32))
    forged = format_note(text, [(m.ledger_keys.ed25519, bytes(64)), (m.ledger_keys.mldsa44, bytes(2_428))])
    path = (bytes(32),)
    for code, body in {
        "note.invalid": b"old 1\n\nnonsense",
        "witness.signature": request(m, 0, note=forged),
        "witness.origin": request(m, 0, note=b.keys.note_signer(b.origin).sign(2, bytes(32), fed.clock.now())),
        "witness.old": request(m, 3, 2),
        "witness.proof": request(m, 0, path=path),
    }.items():
        assert await ask(m, b, body) == code
    assert await b.count("peer_checkpoint") == 0, "nothing of it is kept, so that it takes nobody's place"


async def test_two_histories_are_never_cosigned_and_both_are_kept(pair: tuple[Node, Stranger]) -> None:
    b, m = pair
    for _ in range(3):
        m.parcel(b)
    fork = m.fork()
    fork.parcel(b)
    assert cosigned(b, m.note(4), await ask(m, b, request(m, 0)))
    assert await ask(m, b, request(fork, 0)) == "ledger.split_view", "also where it does not go on from what is held"
    assert await ask(m, b, request(fork, 4, 4)) == "ledger.split_view"
    assert await ask(m, b, request(fork, 0)) == "ledger.split_view"
    assert b.parts.linking.alarms[m.origin] == "ledger.split_view"
    kept = await b.sql("SELECT first, second FROM split_view")
    assert {kept["first"][:60], kept["second"][:60]} == {m.note(4)[:60], fork.note(4)[:60]}


async def test_a_second_history_of_another_size_is_proven_by_the_path_that_was_to_lead_there(
    pair: tuple[Node, Stranger], tmp_path: Path
) -> None:
    b, m = pair
    for _ in range(5):
        m.parcel(b)
    fork = m.fork()
    for _ in range(3):
        fork.parcel(b)
    assert cosigned(b, m.note(6), await ask(m, b, request(m, 0)))
    path = consistency_path(6, 8, fork.node)
    assert await ask(m, b, request(fork, 6, path=(*path[:-1], bytes(32)))) == "witness.proof", "it leads nowhere"
    assert b.parts.linking.alarms == {}
    assert await ask(m, b, request(fork, 6)) == "ledger.split_view"
    assert b.parts.linking.alarms == {m.origin: "ledger.split_view"}
    kept = await b.sql("SELECT first, second FROM split_view")
    assert proven_fork(kept, m, tmp_path) == ("size", 6)
    await refused("ledger.split_view", b.parts.linking.check_member(m.name, b.fed.directory))
    keys = m.keys.note_signer(m.origin).vkeys
    for spoilt in (request(m, 6), request(m, 6, path=()), request(fork, 5), request(fork, 6, path=(*path, bytes(32)))):
        (tmp_path / "second").write_bytes(spoilt)
        with pytest.raises(VERIFIER.Failure, match="fork"):
            VERIFIER.verify_fork(tmp_path / "first", tmp_path / "second", keys)


async def test_a_link_of_a_second_history_proves_it_too(pair: tuple[Node, Stranger], tmp_path: Path) -> None:
    b, m = pair
    for _ in range(5):
        parcel = m.parcel(b)
    assert isinstance(await m.give(b, parcel), Place)
    fork = m.fork()
    for _ in range(3):
        parcel = fork.parcel(b)
    links = {m.origin: (Link(old=6, new=8, path=tuple(consistency_path(6, 8, fork.node))),)}
    await refused("ledger.split_view", fork.post(b, parcel, links=links))
    assert proven_fork(await b.sql("SELECT first, second FROM split_view"), m, tmp_path) == ("size", 6)
    assert not [each for each in await b.entries() if each.kind == "peer-checkpoint"]


async def test_of_two_requests_from_one_size_one_goes_on_and_the_other_is_told_where(
    pair: tuple[Node, Stranger],
) -> None:
    b, m = pair
    for _ in range(6):
        m.parcel(b)
    answers = await asyncio.gather(*(ask(m, b, request(m, 0, size)) for size in (3, 5, 7)))
    (won,) = [size for size, answer in zip((3, 5, 7), answers, strict=True) if isinstance(answer, bytes)]
    assert [each for each in answers if isinstance(each, int)] == [won, won]


# ---- having ours cosigned


async def test_a_node_has_its_newest_checkpoint_cosigned_by_all_that_can(fed: Federation) -> None:
    a, b, c = await fed.nodes("a", "b", "c")
    await a.becomes(await a.trace(b), "delivered")
    assert await a.parts.witness.collect() == 2
    checkpoint = await a._ports.ledger.checkpoint(a.origin)
    assert checkpoint is not None
    lines = await a._ports.ledger.cosignatures(a.origin, checkpoint.size)
    assert all(cosigned(each, checkpoint.note, lines[each.name]) for each in (b, c))
    assert set(lines) == {b.name, c.name}
    assert await a._ports.ledger.witnessed(a.origin, 99, 2) == checkpoint.size
    before = len(await b.rows("SELECT FROM peer_checkpoint"))
    assert await a.parts.witness.collect() == 2, "what is there is not asked for again"
    assert len(await b.rows("SELECT FROM peer_checkpoint")) == before


async def test_who_signed_two_histories_witnesses_nothing_for_us(fed: Federation) -> None:
    a, b, _ = await fed.nodes("a", "b", "c")
    note, now = b.keys.note_signer(b.origin).sign(1, bytes(32), fed.clock.now()), fed.clock.now()
    await a._ports.exchange.keep_conflict(note, note, origin=b.origin, at=now)
    assert await a.parts.witness.collect() == 1
    newest = await a._ports.ledger.checkpoint(a.origin)
    assert newest is not None
    assert set(await a._ports.ledger.cosignatures(a.origin, newest.size)) == {"testnet/c"}


async def test_k21_a_request_whose_answer_was_lost_is_gone_on_with_from_the_size_that_the_witness_names(
    fed: Federation,
) -> None:
    a, b = await fed.nodes("a", "b")
    real = a.wire.add_checkpoint
    lost = 0

    async def dies(peer: Any, body: bytes) -> Any:
        nonlocal lost
        await real(peer, body)
        lost += 1
        raise ProblemError("peer.unreachable", "the answer was lost")

    a.wire.add_checkpoint = dies  # type: ignore[method-assign]
    assert await a.parts.witness.collect() == 0
    await b.kill()
    await b.start()
    a.wire.add_checkpoint = real  # type: ignore[method-assign]
    await a.becomes(await a.trace(b), "delivered")
    assert (lost, await a.parts.witness.collect()) == (1, 1)
    await a.restart()
    assert await a.parts.witness.collect() == 1, "what was kept is there after a restart"


async def test_too_few_witnesses_are_an_alarm_until_there_are_enough(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    a.parts.directory._current = replace(  # type: ignore[attr-defined]
        fed.directory, network=fed.directory.network.model_copy(update={"quorum": 1})
    )
    real = a.wire.add_checkpoint

    async def away(peer: Any, body: bytes) -> Any:
        raise ProblemError("peer.unreachable", "away")

    a.wire.add_checkpoint = away  # type: ignore[method-assign]
    assert await a.parts.witness.collect() == 0
    assert a.parts.linking.alarms == {a.origin: "checkpoint.unwitnessed"}
    assert await unwitnessed(a) == await a.count("entry") > 0
    a.wire.add_checkpoint = real  # type: ignore[method-assign]
    assert await a.parts.witness.collect() == 1
    assert await unwitnessed(a) == 0
    assert a.parts.linking.alarms == {}
    assert b.parts.linking.alarms == {}


async def unwitnessed(node: Node) -> float:
    """The entries that nobody cosigned, as the node's metrics count them."""
    async with TestClient(TestServer(node.parts.listeners["operations"])) as client:
        text = await (await client.get("/metrics")).text()
    [line] = [line for line in text.splitlines() if line.startswith("tracewire_ledger_unwitnessed_entries ")]
    return float(line.split()[1])


async def test_the_network_names_who_counts_and_an_inspectorate_may_do_nothing_else(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    (w,) = await fed.nodes("w", roles=("witness",))
    for wrong, code in (
        ((["testnet/nobody"], 1), "member.unknown"),
        (([w.name, w.name], 2), "dir.invalid"),
        (([], 3), "dir.invalid"),
    ):
        with pytest.raises(ProblemError, match=code.replace(".", r"\.")):
            fed.authority.set_witnesses(*wrong, signers=fed._targets, now=fed.clock.now())
    fed.authority.set_witnesses([w.name], 1, signers=fed._targets, now=fed.clock.now())
    await fed.publish()
    assert fed.directory.witnesses_of(a.name) == [w.name]
    assert fed.directory.witnesses_of(w.name) == []
    assert await w.parts.witness.collect() == 0
    assert w.parts.linking.alarms == {}, "nobody is left who could witness the only witness"
    await a.becomes(await a.trace(b), "delivered")
    assert await a.parts.witness.collect() == 1
    assert set(await a._ports.ledger.cosignatures(a.origin, await a._ports.ledger.witnessed(a.origin, 99, 1))) == {
        w.name
    }
    await refused("msg.not_permitted", w.trace(b))


async def test_what_is_cosigned_stands_in_the_witness_own_ledger_once(pair: tuple[Node, Stranger]) -> None:
    b, m = pair
    for _ in range(2):
        assert isinstance(await ask(m, b, request(m, (await held(b)))), bytes)
    m.parcel(b)
    assert isinstance(await ask(m, b, request(m, 1)), bytes)
    noted = [each for each in await b.entries() if each.kind == "peer-checkpoint"]
    assert [(each.peer.origin, each.peer.size) for each in noted if each.peer] == [(m.origin, 1), (m.origin, 2)]
    await verify_ledger(b)


async def held(b: Node) -> int:
    return int((await b.sql("SELECT coalesce(max(size), 0) FROM peer_checkpoint WHERE linked"))[0])


async def test_a_witness_to_whom_the_exchange_showed_more_meanwhile_cosigns_that(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    real, asked = a.wire.add_checkpoint, list[int]()

    async def meanwhile(peer: Any, body: bytes) -> Any:
        if not asked:
            await a.becomes(await a.trace(b), "delivered")
        asked.append(len(body))
        return await real(peer, body)

    a.wire.add_checkpoint = meanwhile  # type: ignore[method-assign]
    assert await a.parts.witness.collect() == 1
    assert len(asked) == 2
    assert await a._ports.ledger.witnessed(a.origin, 99, 1) >= 2


async def test_of_an_answer_the_witness_own_lines_alone_are_kept(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    real, other = a.wire.add_checkpoint, a.keys.cosigner("testnet/victim")
    assert other is not None

    async def more(peer: Any, body: bytes) -> Any:
        return await real(peer, body) + other.cosign(a.origin, 1, bytes(32), fed.clock.now())

    a.wire.add_checkpoint = more  # type: ignore[method-assign]
    assert await a.parts.witness.collect() == 1
    (lines,) = (await a._ports.ledger.cosignatures(a.origin, 1)).values()
    assert lines.count(b"\n") == 2
    assert b"victim" not in lines


async def test_what_a_witness_answers_is_verified(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")

    async def forged(peer: Any, body: bytes) -> Any:
        return a.keys.cosigner(b.name).cosign(a.origin, 1, bytes(32), fed.clock.now())

    a.wire.add_checkpoint = forged  # type: ignore[method-assign]
    assert await a.parts.witness.collect() == 0
    assert await a._ports.ledger.cosignatures(a.origin, 1) == {}


async def test_a_witness_changes_its_keys_when_the_directory_lists_the_next(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    await a.becomes(await a.trace(b), "delivered")
    assert await a.parts.witness.collect() == 1
    former = b.keys.cosigner(b.name)
    b.keys.add("witness")
    request = b.ask()
    assert await b.follow_keys() == [], "not yet"
    await fed.publish(request)
    (promoted,) = await b.follow_keys()
    now = b.keys.cosigner(b.name)
    assert former is not None
    assert now is not None
    assert former.vkeys != now.vkeys == tuple(fed.directory.records[b.name].witness or ())
    assert promoted == b.keys.public("witness")[0].kid
    await a.becomes(await a.trace(b), "delivered")
    assert await a.parts.witness.collect() == 1, "the node goes on without a restart"


async def test_the_end_of_a_closed_ledger_is_cosigned_too(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    await a.becomes(await a.trace(b), "delivered")
    await a.stop()
    former, end = a.origin, await a.sql("SELECT size, root FROM ledger_head")
    a.origin = f"{a.name}/2026.2"
    a.keys.add("ledger", origin=a.origin)
    await a.found()
    request = a.ask(Changes(closed={former: {"origin": former, "size": end["size"], "root": b64u(end["root"])}}))
    await fed.publish(request)
    await a.start()
    assert await a.parts.witness.collect() == 1
    for origin, size in ((former, end["size"]), (a.origin, 1)):
        assert set(await a._ports.ledger.cosignatures(origin, size)) == {b.name}


def test_witnesses_are_asked_at_least_hourly_also_after_the_store_was_away() -> None:
    directory = nobodys_directory()
    rounds: list[float] = []

    class Ledgers:
        """A store that is away at the second round."""

        async def heads(self) -> list[str]:
            rounds.append(asyncio.get_running_loop().time())
            if len(rounds) == 2:
                raise Unavailable("made by the test")
            return []

        async def split(self) -> list[str]:
            return []

        async def cosigned_since(self, origin: str, since: datetime) -> list[str]:
            return []

    given: dict[str, Any] = dict.fromkeys(("store", "prove", "transport", "sealer", "verifier"))
    clock = SystemClock()
    witness = Witness(
        **given, member="n/a", committer=SimpleNamespace(origin="n/a/2026.1"), directory=SimpleNamespace(current=directory),
        ledger=Ledgers(), linking=Linking(Ledgers(), Tw1Verifier(), clock), cosigner=lambda: None, clock=clock,
    )  # fmt: skip

    async def hours() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(6 * 3_600):
                await witness.run()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(hours())
    assert rounds[0] <= 60
    assert max(later - earlier for earlier, later in pairwise([*rounds, 6 * 3_600])) <= 3_600
