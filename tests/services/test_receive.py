"""Receive: nothing without the sender's proof; one entry for bytes that can never succeed; the same receipt for ever."""

import asyncio
import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from protocols.exchange.lines import Parcel, Receipt, encode_post
from protocols.exchange.message import AttachmentRef
from protocols.ledger.entry import Entry, PeerRef, content_commitment, parse_entry
from protocols.ledger.merkle import leaf_hash
from protocols.ledger.merkle import root as tree_root
from protocols.ledger.proof import Place, read_proof
from protocols.limits import REFUSALS_A_DAY_MAX
from protocols.strict import dump_json
from tests.fault.invariants import VERIFIER
from tests.federation import (
    Federation,
    Node,
    Stranger,
    match_ledgers,
    refused,
    trace_request,
    unreachable,
    verify_ledger,
)  # fmt: skip
from tests.runtime.test_ledger_files import tracewire

STORED = ("inbox", "refusal", "content", "peer_proof", "event", "leg")


async def nothing_stored(node: Node, entries: int = 1) -> None:
    assert {table: await node.count(table) for table in STORED} == dict.fromkeys(STORED, 0)
    assert len(await verify_ledger(node)) == entries


@pytest.fixture
async def pair(fed: Federation) -> tuple[Node, Stranger]:
    """A node, and a member that the test plays."""
    (node,) = await fed.nodes("b")
    (stranger,) = await fed.strangers("m")
    return node, stranger


# ---- the sender's proof


async def test_a_parcel_without_a_proof_or_under_a_broken_one_is_refused_and_nothing_is_stored(
    pair: tuple[Node, Stranger], fed: Federation
) -> None:
    b, m = pair
    (other,) = await fed.strangers("n")
    good, second = m.parcel(b), m.parcel(b)
    good = m.fresh(good)
    bare = encode_post(m.post_of(good)).splitlines()
    bare[-1] = dump_json({"t": "parcel", "envelope": good.envelope.decode()})
    await refused("proof.missing", m.post(b, body=b"\n".join(bare) + b"\n"))
    notes = {(m.origin, len(m.log)): m.note()}
    for code, parcel in {
        "proof.entry": Parcel(place=second.place, envelope=good.envelope),
        "proof.path": replace(good, place=replace(good.place, path=good.place.path[::-1])),
        "proof.missing": m.fresh(good, 2),
        "env.invalid": replace(good, place=replace(good.place, entry=b"{}")),
    }.items():
        assert await m.give(b, parcel, notes=notes) == code, code
    foreign = replace(good, place=replace(good.place, origin=other.origin))
    foreign_note = other.keys.note_signer(other.origin).sign(
        len(m.log), parse_root(m.note()), fed.clock.now()
    )  # the other member signs a tree that holds our entry
    assert await m.give(b, foreign, notes={(other.origin, len(m.log)): foreign_note}, links={}) == "proof.missing", (
        "gossip proves nothing"
    )
    kinds = m.parcel(
        b,
        entry={
            "kind": "undelivered",
            "code": "expired",
            **dict.fromkeys(("kid", "seal_kid", "suite", "thread_c", "actor_c")),
        },
    )
    assert await m.give(b, kinds) == "proof.entry", "an entry of another kind is no proof of sending"
    astray = m.parcel(b, entry={"recipient": "testnet/elsewhere"})
    assert await m.give(b, astray) == "env.invalid", "a parcel for another member"
    await nothing_stored(b)
    assert isinstance(await m.give(b, m.fresh(good)), Place)


def parse_root(note: bytes) -> bytes:
    from protocols.ledger.checkpoint import parse_checkpoint

    return parse_checkpoint(note).root


async def test_a_checkpoint_without_both_good_signatures_refuses_the_post(pair: tuple[Node, Stranger]) -> None:
    b, m = pair
    parcel = m.parcel(b)
    note = m.note().decode()
    lines = note.splitlines(keepends=True)
    ed25519, mldsa = lines[-2], lines[-1]
    flipped = mldsa[:-20] + ("A" if mldsa[-20] != "A" else "B") + mldsa[-19:]
    head = "".join(lines[:-2])
    size = len(m.log)
    for code, broken in (
        ("proof.policy", head + ed25519), ("proof.policy", head + mldsa), ("proof.policy", head + ed25519 + flipped),
        ("note.invalid", head), ("proof.policy", head.replace(f"\n{size}\n", f"\n{size + 1}\n") + ed25519 + mldsa),
    ):  # fmt: skip
        await refused(code, m.post(b, parcel, notes={(m.origin, size): broken.encode()}))
    await refused("note.invalid", m.post(b, parcel, notes={(m.origin, size): m.note(1)}))
    assert await b.count("peer_checkpoint") == 0
    await nothing_stored(b)


async def test_the_exchange_goes_on_in_the_next_ledger_when_the_one_with_two_histories_is_abandoned(
    pair: tuple[Node, Stranger], fed: Federation
) -> None:
    b, m = pair
    first, fork = m.parcel(b), m.fork()
    assert isinstance(await m.give(b, first), Place)
    await refused("ledger.split_view", fork.post(b, fork.parcel(b)))
    sent = await b.trace(m)
    following = copy.copy(m)
    following.origin, following.log, following._nodes, following.held = f"{m.name}/2026.2", [], {}, (0,)
    end = PeerRef(origin=m.origin, size=1, root=tree_root(1, m.node))
    now = fed.clock.now()
    following.add(Entry(kind="ledger-opened", at=now, n=bytes(16), sender=m.name, dir=fed.directory.ref, peer=end))
    m.keys.add("ledger", origin=following.origin)
    await fed.publish(following.ask())
    await refused("ledger.split_view", following.post(b, following.parcel(b)))
    fed.authority.abandon(m.note(1), signers=fed._targets, now=now)
    await fed.publish()
    b.wire.hook = following.answering(following.receipt)
    assert isinstance(await following.give(b, following.parcel(b)), Place)
    await b.becomes(sent, "delivered")
    await b.parts.linking.watch(fed.directory)
    assert m.origin not in b.parts.linking.alarms
    assert await b.count("split_view") == 1, "the proof stays"
    await refused("proof.origin", m.post(b, m.parcel(b)))


async def test_two_histories_of_a_ledger_keep_both_notes_and_end_the_exchange_with_that_member(
    pair: tuple[Node, Stranger], fed: Federation, tmp_path: Path
) -> None:
    b, m = pair
    first = m.parcel(b)
    assert isinstance(await m.give(b, first), Place)
    fork = m.fork()
    second = fork.parcel(b)
    before = {table: await b.count(table) for table in STORED}
    await refused("ledger.split_view", fork.post(b, second))
    assert {table: await b.count(table) for table in STORED} == before
    (row,) = await b.rows("SELECT * FROM split_view")
    assert row["origin"] == m.origin
    assert row["first"] == await held_note(b, 2)
    assert proven_fork(row, m, tmp_path) == ("size", 2)
    for again in (m, fork):
        await refused("ledger.split_view", again.post(b, again.parcel(b)))
    sent = await b.trace(m)
    posts = asyncio.Event()

    async def noted(peer: str, body: bytes, send: Any) -> bytes:
        posts.set()
        return await unreachable(peer, body, send)

    b.wire.hook = noted
    (other,) = await fed.strangers("n")
    assert await b.parts.deliver.deliver(m.name) is False
    assert not posts.is_set(), "nothing is sent to a member whose ledger has two histories"
    assert await b.delivery(sent) == "queued"
    assert isinstance(await other.give(b, other.parcel(b)), Place), "others are not concerned"
    assert b.parts.linking.alarms[m.origin] == "ledger.split_view"


async def test_another_root_for_one_size_is_a_second_history_though_the_entry_is_the_same(
    pair: tuple[Node, Stranger], tmp_path: Path
) -> None:
    b, m = pair
    first = m.parcel(b)
    assert isinstance(await m.give(b, first), Place)
    assert isinstance(await m.give(b, m.parcel(b)), Place)
    fork = m.fork()
    fork.parcel(b)  # never sent: only the checkpoint tells of it
    await refused("ledger.split_view", fork.post(b, fork.fresh(first)))
    (row,) = await b.rows("SELECT * FROM split_view")
    assert (row["first"], parse_root(row["second"])) == (await held_note(b, 3), parse_root(fork.note()))
    assert proven_fork(row, m, tmp_path) == ("size", 3)
    (tmp_path / "first").write_bytes(m.note())
    (tmp_path / "second").write_bytes(m.note())
    with pytest.raises(VERIFIER.Failure, match="both can be true"):
        VERIFIER.verify_fork(tmp_path / "first", tmp_path / "second", m.keys.note_signer(m.origin).vkeys)
    folder = tmp_path / "taken out"
    found = await tracewire("audit", "fork", b.folder, m.origin, folder)
    assert [Path(each).read_bytes() for each in found["files"]] == [row["first"], row["second"]]
    assert (await tracewire("audit", "fork", b.folder, b.origin, folder))["code"] == "http.not_found"


async def test_two_entries_at_one_index_are_kept_with_their_proofs(pair: tuple[Node, Stranger], tmp_path: Path) -> None:
    b, m = pair
    first = m.parcel(b)
    assert isinstance(await m.give(b, first), Place)
    fork = m.fork()
    second = fork.parcel(b)
    fork.parcel(b)
    await refused("ledger.split_view", fork.post(b, fork.fresh(second)))
    (row,) = await b.rows("SELECT * FROM split_view")
    assert [read_proof(row[name])[0].entry for name in ("first", "second")] == [first.place.entry, second.place.entry]
    assert proven_fork(row, m, tmp_path) == ("index", first.place.index)


def proven_fork(row: Any, m: Stranger | Node, folder: Path) -> tuple[str, int]:
    """What the independent verifier says of the two files, with nothing but the ledger's keys."""
    for name in ("first", "second"):
        (folder / name).write_bytes(row[name])
    fork = VERIFIER.verify_fork(folder / "first", folder / "second", m.keys.note_signer(m.origin).vkeys)
    assert fork.origin == m.origin
    return fork.what, fork.at


async def held_note(node: Node, size: int) -> bytes:
    return (await node.sql("SELECT note FROM peer_checkpoint WHERE size = $1", size))[0]


# ---- refusals: one entry each, the public code outside, the cause only in our table


def other_salt(m: Stranger, b: Node) -> Parcel:
    return m.parcel(b, entry={"content_c": bytes(32)})


def flip(data: bytes) -> bytes:
    at = data.index(b'"ciphertext":"') + 40
    return data[:at] + (b"A" if data[at : at + 1] != b"A" else b"B") + data[at + 1 :]


def without_pad(data: bytes) -> bytes:
    return data.replace(b" " * 64, b"", 1)


def twice(data: bytes) -> bytes:
    return data.replace(b'"v":1,', b'"v":1,"v":1,').replace(b" " * 6, b"", 1)


REFUSALS: dict[str, tuple[str, str, Callable[[Stranger, Node], Parcel]]] = {
    "a body that breaks its schema": ("schema.invalid", "schema.invalid", lambda m, b: m.parcel(b, message={"body": {}})),
    "handling that breaks its schema": ("schema.invalid", "schema.invalid", lambda m, b: m.parcel(b, message={"handling": {}})),
    "a type nobody knows": ("type.unknown", "type.unknown", lambda m, b: m.parcel(b, message={"type": "trace.gossip"})),
    "a part that is named and not there": ("schema.invalid", "schema.invalid", lambda m, b: m.parcel(b, message={"body": trace_request("ABC1234") | {"persons": {"part": "persons"}}})),
    "a pad that is too short": ("schema.invalid", "schema.invalid", lambda m, b: m.parcel(b, payload=without_pad)),
    "a member twice": ("env.invalid", "json.duplicate", lambda m, b: m.parcel(b, payload=twice)),
    "an answer in no thread": ("msg.correlation", "thread.not_found", lambda m, b: m.parcel(b, message={"type": "trace.refusal", "body": {"kind": "REFUSAL", "ground": {"code": "NOT_COMPETENT", "raw": ""}, "statement": "no"}})),
    "an expired message": ("msg.expired", "msg.expired", lambda m, b: m.parcel(b, message={"expires": m.message(b).created + timedelta(milliseconds=2)})),
    "another member's signature": ("env.invalid", "env.sender_mismatch", lambda m, b: m.parcel(b, signer=b)),
    "a signature over other bytes": ("env.invalid", "env.signature", lambda m, b: m.parcel(b, jws=lambda jws: jws[:-8] + (b"A" * 7 + b"A"))),
    "a JWS of another algorithm": ("env.invalid", "env.format", lambda m, b: m.parcel(b, jws=lambda jws: jws.replace(b".", b"")) ),
    "an entry that commits to other content": ("env.invalid", "env.content", other_salt),
    "an entry that commits to another thread": ("env.invalid", "env.content", lambda m, b: m.parcel(b, entry={"thread_c": bytes(32)})),
    "an entry under another signing key": ("env.invalid", "env.kid", lambda m, b: m.parcel(b, entry={"kid": "A" * 43})),
    "a message that is older than its entry": ("env.invalid", "env.header", lambda m, b: m.parcel(b, message={"created": m.message(b).created - timedelta(seconds=301)})),
    "an entry under another seal key": ("env.invalid", "env.kid", lambda m, b: m.parcel(b, entry={"seal_kid": "A" * 43})),
    "a header of another recipient": ("env.invalid", "env.recipient_mismatch", lambda m, b: m.parcel(b, header={"recipient": "testnet/x"})),
    "a header of another sender": ("env.invalid", "env.sender_mismatch", lambda m, b: m.parcel(b, header={"sender": "testnet/x"})),
    "a header of another expiry": ("env.invalid", "env.header", lambda m, b: m.parcel(b, header={"expires": m.message(b).expires + timedelta(hours=1)})),
    "a message of another sender": ("env.invalid", "env.sender_mismatch", lambda m, b: m.parcel(b, message={"sender": b.name}, header={"sender": m.name})),
    "a message of another recipient": ("env.invalid", "env.recipient_mismatch", lambda m, b: m.parcel(b, message={"recipient": m.name}, header={"recipient": b.name}, entry={"recipient": b.name})),
    "a ciphertext with a changed bit": ("env.invalid", "env.decrypt", lambda m, b: m.parcel(b, envelope=flip)),
    "a seal key nobody has": ("env.invalid", "env.decrypt", lambda m, b: m.parcel(b, kid="A" * 43)),
    "bytes that are no envelope": ("env.invalid", "env.format", lambda m, b: m.parcel(b, envelope=lambda _: b"not json")),
}  # fmt: skip
UNREAD = {"a ciphertext with a changed bit", "a seal key nobody has", "bytes that are no envelope"}


async def test_bytes_that_can_never_succeed_make_one_refused_entry_each_with_the_public_code_alone(
    pair: tuple[Node, Stranger],
) -> None:
    b, m = pair
    made = {name: make(m, b) for name, (_, _, make) in REFUSALS.items()}
    parcels = [m.fresh(parcel) for parcel in made.values()]
    answer = await m.post(b, *parcels)
    for (name, (code, cause, _)), parcel, item in zip(REFUSALS.items(), parcels, answer.items, strict=True):
        assert isinstance(item, Receipt), (name, item)
        sent, entry = parse_entry(parcel.place.entry), parse_entry(item.place.entry)
        read = name not in UNREAD
        assert (entry.kind, entry.code, entry.read, entry.envelope) == ("refused", code, read, sent.envelope), name
        assert entry.peer is not None
        assert entry.peer.leaf == leaf_hash(parcel.place.entry), name
        assert (await b.sql("SELECT cause FROM refusal WHERE id = $1", sent.id))["cause"] == cause, name
        assert cause == code or cause.encode() not in item.place.entry, name
    again = await m.post(b, *parcels)
    assert [each.place.entry for each in again.items] == [each.place.entry for each in answer.items]
    assert await b.count("inbox") == 0
    assert len(await verify_ledger(b)) == 1 + len(REFUSALS)


async def test_a_member_without_the_role_is_refused_as_not_permitted(fed: Federation) -> None:
    (b,) = await fed.nodes("b")
    (keeper,) = await fed.strangers("keeper", roles=("registry",))
    place = await keeper.give(b, keeper.parcel(b))
    assert parse_entry(place.entry).code == "msg.not_permitted"


async def test_what_may_heal_is_a_problem_line_without_an_entry_and_heals(
    pair: tuple[Node, Stranger], fed: Federation
) -> None:
    b, m = pair
    key = sha256(bytes(32)).digest()
    attached = AttachmentRef(name="a", sha256=bytes(32), key_sha256=key, size=100, media_type="image/png")
    ahead = m.message(b).created + timedelta(minutes=10)
    early = m.parcel(b, message={"created": ahead, "expires": ahead + timedelta(days=1)})
    assert await m.give(b, early) == "msg.time"
    lacking = m.parcel(b, message={"attachments": (attached,)}, keys={bytes(32): bytes(32)})
    assert await m.give(b, lacking) == "msg.blob_missing"
    m.keys.add("message")
    m.keys.promote("message", fed.clock.now())
    unknown = m.parcel(b)
    assert await m.give(b, unknown) == "dir.key_unknown"
    await nothing_stored(b)
    await fed.publish(m.ask())
    fed.clock.ahead += timedelta(minutes=10)
    listed = m.parcel(b)
    for parcel in (early, listed):
        assert isinstance(await m.give(b, m.fresh(parcel)), Place)


async def test_refusals_above_the_daily_quota_are_problems_without_an_entry(pair: tuple[Node, Stranger]) -> None:
    b, m = pair
    first = m.parcel(b, message={"body": {}})
    place = await m.give(b, first)
    fill = (
        "INSERT INTO refusal SELECT sender, id, sha256(n::text::bytea), kind, code, cause, at, origin, index, content_c "
        "FROM refusal, generate_series(1, $1) n"
    )
    await b.sql(fill, REFUSALS_A_DAY_MAX - 2)
    assert isinstance(await m.give(b, m.parcel(b, message={"body": {}})), Place), "the last of the day"
    assert await m.give(b, m.parcel(b, message={"body": {}})) == "quota.refusals"
    assert (await m.give(b, m.fresh(first))).entry == place.entry, "what was answered before is answered again"
    assert isinstance(await m.give(b, m.parcel(b)), Place), "good parcels are not counted"
    assert len(await verify_ledger(b)) == 4


# ---- who may carry what


async def test_only_a_hub_of_the_sender_may_carry_its_parcel(pair: tuple[Node, Stranger], fed: Federation) -> None:
    b, m = pair
    (carrier,) = await fed.strangers("c")
    parcel = m.parcel(b)
    post = m.post_of(parcel)
    await refused("peer.identity_mismatch", carrier.post(b, body=encode_post(post)))
    await nothing_stored(b)
    fed.set_status(m, "suspended")
    await fed.publish()
    await refused("peer.suspended", m.post(b, parcel))
    await nothing_stored(b)
    fed.set_status(m, "active")
    await fed.publish()
    assert isinstance(await m.give(b, parcel), Place)


async def test_a_request_key_speaks_only_for_its_member(pair: tuple[Node, Stranger], fed: Federation) -> None:
    b, m = pair
    unlisted = Stranger(fed, "unlisted")
    parcel = m.parcel(b)
    await refused("httpsig.key", unlisted.post(b, body=encode_post(m.post_of(parcel))))
    fed.clock.ahead += timedelta(minutes=6)
    stale = m.client()
    fed.clock.ahead -= timedelta(minutes=6)
    await stale.close()
    await nothing_stored(b)


# ---- the same again


async def test_the_same_parcel_gets_the_same_receipt_after_a_restart_and_after_its_expiry(
    pair: tuple[Node, Stranger], fed: Federation
) -> None:
    b, m = pair
    parcel = m.parcel(b)
    first = await m.give(b, parcel)
    assert isinstance(await m.give(b, m.parcel(b)), Place), "the ledger grows meanwhile"

    async def same() -> None:
        again = await m.give(b, m.fresh(parcel))
        assert (again.origin, again.index, again.entry) == (first.origin, first.index, first.entry)
        assert again.size > first.size, "path and checkpoint may be newer"

    await same()
    await b.restart()
    await same()
    fed.clock.ahead += timedelta(days=2)
    await fed.refresh()
    await same()
    assert (await b.count("inbox"), len(await verify_ledger(b))) == (2, 3)


async def test_the_same_content_sealed_again_gets_the_same_receipt_even_after_its_expiry(
    pair: tuple[Node, Stranger], fed: Federation
) -> None:
    b, m = pair
    message = m.message(b)
    first = await m.give(b, m.parcel(b, message=message))
    assert (await m.give(b, m.parcel(b, message=message))).entry == first.entry
    fed.clock.ahead += timedelta(days=2)
    await fed.refresh()
    assert (await m.give(b, m.parcel(b, message=message))).entry == first.entry
    assert await b.kinds() == ["ledger-opened", "received"]


async def test_another_content_under_the_same_id_is_a_conflict_with_proof_once_per_content(
    pair: tuple[Node, Stranger], fed: Federation
) -> None:
    b, m = pair
    message = m.message(b)
    first = await m.give(b, m.parcel(b, message=message))
    other = replace(message, body=trace_request("OTHER9"))
    parcel = m.parcel(b, message=other)
    conflict = await m.give(b, parcel)
    entry = parse_entry(conflict.entry)
    assert (entry.kind, entry.first and entry.first.index) == ("id_conflict", first.index)
    assert entry.content_c == content_commitment(other.salt, other.encode())
    assert (await m.give(b, m.fresh(parcel))).entry == conflict.entry
    assert (await m.give(b, m.parcel(b, message=other))).entry == conflict.entry, "sealed again: the same content"
    third = await m.give(b, m.parcel(b, message=replace(message, body=trace_request("THIRD8"))))
    assert third.index > conflict.index
    fed.clock.ahead += timedelta(days=2)
    await fed.refresh()
    late = await m.give(b, m.parcel(b, message=replace(message, body=trace_request("LATE77"))))
    assert parse_entry(late.entry).kind == "id_conflict", "before any expiry check"
    assert await b.count("inbox") == 1
    await verify_ledger(b)


async def test_one_parcel_many_times_in_one_post_and_in_many_posts_is_one_row(pair: tuple[Node, Stranger]) -> None:
    b, m = pair
    message = m.message(b)
    parcels = [m.parcel(b, message=message) for _ in range(3)]
    parcels = [m.fresh(parcel) for parcel in parcels] * 2
    posts = await asyncio.gather(*(m.post(b, *parcels) for _ in range(4)))
    entries = {item.place.entry for post in posts for item in post.items}
    assert len(entries) == 1
    assert (await b.count("inbox"), await b.kinds()) == (1, ["ledger-opened", "received"])


async def test_two_senders_racing_to_one_receiver_are_both_answered(fed: Federation) -> None:
    a, b, c = await fed.nodes("a", "b", "c")
    sent = [(node, await node.trace(b)) for _ in range(10) for node in (a, c)]
    for node, each in sent:
        await node.becomes(each, "delivered")
    found = await match_ledgers(a, b, c)
    assert sorted(entry.sender or "" for entry in found[b.origin][1:]) == [a.name] * 10 + [c.name] * 10


async def test_a_parcel_whose_sender_has_failed_in_the_directory_too_long_is_answered_dir_stale(
    pair: tuple[Node, Stranger],
) -> None:
    b, m = pair
    await b.stop()

    class Failing:
        """The directory with a member whose newest record has failed for more than the grace."""

        def __init__(self, source: Any) -> None:
            self._source = source

        @property
        def current(self) -> Any:
            return replace(self._source.current, failing={m.name: "dir.stale"})

        async def refresh(self, now: Any) -> Any:
            await self._source.refresh(now)
            return self.current

        def file(self, name: str) -> Any:
            return self._source.file(name)

    b.wraps.append(lambda ports: setattr(ports, "directory", Failing(ports.directory)))
    await b.start()
    assert await m.give(b, m.parcel(b)) == "dir.stale"
    await nothing_stored(b)


async def test_a_message_is_not_dated_back_by_saying_that_it_was_sealed_again(
    pair: tuple[Node, Stranger], fed: Federation
) -> None:
    b, m = pair
    fed.clock.ahead += timedelta(hours=1)  # no key is younger than the message any more
    await fed.refresh()
    old = {"created": m.message(b).created - timedelta(minutes=10)}
    again = m.parcel(b, message=old, entry={"peer": PeerRef(origin=m.origin, index=0)})
    entry = parse_entry((await m.give(b, again)).entry)
    assert (entry.kind, entry.code) == ("refused", "env.invalid")
