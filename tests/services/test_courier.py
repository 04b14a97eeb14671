"""Courier: a bag carries what a POST would; on any file system, twice, spoiled, or for somebody else."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from adapters.courier.bag import BagReader, BagWriter
from gateway.services.courier import Carried
from gateway.services.register import import_register
from protocols.ledger.checkpoint import Checkpoint, parse_checkpoint
from protocols.problems import ProblemError
from tests.federation import Federation, Json, Node, Stranger, match_ledgers, refused, verify_ledger, wait_until
from tests.services.test_ways import HUB, PULL, behind

ON_FOOT = {"modes": ["courier"]}
REGISTER = (
    b"ref,serial,make,model,type,calibre,sold_on,dealer,country\ng1,KLM4471X9,Glock,17,pistol,9mm,2019-04-01,D,AT\n"
)


async def export(node: Node, to: Node, medium: Path) -> Path:
    """A bag on a medium."""
    bag = BagWriter(medium, sender=node.name, recipient=to.name, now=node.fed.clock.now())
    await node.parts.ways.courier.export(to.name, bag)
    return bag.close()


async def take(node: Node, bag: Path) -> tuple[Carried, dict[str, str]]:
    """What a bag brought, and what was set aside."""
    reader = BagReader(bag, node.folder / "aside")
    return await node.parts.ways.courier.take(reader.sender, reader), reader.wrong


def checkpoint_of(m: Stranger) -> Checkpoint:
    """What its ledger comes to."""
    return parse_checkpoint(m.note())


async def on_foot(fed: Federation, **settings: bool) -> tuple[Node, Node]:
    a, b = await fed.nodes("a", "b", facts=ON_FOOT, **settings)
    return a, b


async def test_a_trace_is_asked_and_answered_by_courier_alone(fed: Federation, tmp_path: Path) -> None:
    a, b = await on_foot(fed, registry=True)
    await import_register(REGISTER, b._ports.registry)
    asked = await a.trace(b, "KLM4471X9")
    there, wrong = await take(b, await export(a, b, tmp_path))
    assert (there.parcels, wrong) == ({"received": 1}, {})

    async def answered() -> bool:
        return await b.count("outbox") == 2

    await wait_until(answered)
    back, wrong = await take(a, await export(b, a, tmp_path))
    assert (back.parcels, back.receipts, back.settled, wrong) == ({"received": 2}, 1, 1, {})
    assert (await a.delivery(asked), await a.leg(asked)) == ("delivered", "ANSWERED")
    last, _ = await take(b, await export(a, b, tmp_path))
    assert (last.parcels, last.receipts, last.settled) == ({}, 2, 2)
    assert a.wire.posts == b.wire.posts == []
    await match_ledgers(a, b)


async def test_a_bag_may_come_twice_late_and_beside_the_network(fed: Federation, tmp_path: Path) -> None:
    a, b = await fed.nodes("a", "b")

    async def cut(*_: object) -> bytes:
        raise ProblemError("peer.unreachable", "no network yet")

    a.wire.hook = cut
    sent = [await a.trace(b) for _ in range(3)]
    bag = await export(a, b, tmp_path)
    first, _ = await take(b, bag)
    a.wire.hook = None
    for each in sent:
        await a.becomes(each, "delivered")
    size = len(await b.entries())
    again, wrong = await take(b, bag)
    assert (first.parcels, again.parcels, wrong) == ({"received": 3}, {"received": 3}, {})
    assert len(await b.entries()) == size, "nothing was written"
    late, _ = await take(a, await export(b, a, tmp_path))
    assert (late.receipts, late.settled) == (3, 0)
    await match_ledgers(a, b)


@pytest.mark.parametrize(
    "facts", [PULL, behind("h"), behind("h", modes=("hub", "push"))], ids=["pull", "pull from a hub", "hub"]
)
async def test_a_parcel_and_its_receipt_by_courier_and_another_way_take_effect_once(
    fed: Federation, tmp_path: Path, facts: Json
) -> None:
    (a,) = await fed.nodes("a")
    await fed.nodes("h", roles=HUB)
    (b,) = await fed.nodes("b", facts=facts)
    for first in ("network", "courier"):
        await b.stop()
        sent = await a.trace(b)
        bag = await export(a, b, tmp_path)
        await b.start()
        if first == "network":
            await a.becomes(sent, "delivered")
        found, wrong = await take(b, bag)
        assert (found.parcels, wrong) == ({"received": 1}, {})
        late, _ = await take(a, await export(b, a, tmp_path))
        assert late.receipts >= 1
        await a.becomes(sent, "delivered")
    assert (await b.kinds()).count("received") == await b.count("inbox") == 2
    assert (await a.kinds()).count("receipt") == 2
    await match_ledgers(a, b)


async def test_checkpoints_are_linked_by_courier(fed: Federation, tmp_path: Path) -> None:
    a, b = await on_foot(fed)
    for _ in range(3):
        await a.trace(b)
        await take(b, await export(a, b, tmp_path))
        await take(a, await export(b, a, tmp_path))
    for node, origin in ((a, b.origin), (b, a.origin)):
        assert await node.count("peer_checkpoint", f"origin = '{origin}' AND linked") > 1
        assert await node.count("peer_checkpoint", f"origin = '{origin}' AND NOT linked") == 0


async def test_the_directory_travels_in_the_bag(fed: Federation, tmp_path: Path) -> None:
    a, b = await on_foot(fed)
    running, b._task = b._task, None  # what is published does not reach b
    fed.clock.ahead += timedelta(minutes=1)
    await fed.publish()
    b._task = running
    assert a._ports.directory.current is not None
    assert b._ports.directory.current is not None
    assert b._ports.directory.current.ref.version < a._ports.directory.current.ref.version
    found, _ = await take(b, await export(a, b, tmp_path))
    assert found.directory == a._ports.directory.current.ref.version
    assert b._ports.directory.current.ref == a._ports.directory.current.ref


def change(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def forge(path: Path) -> None:
    """As `change`, and the manifest agrees."""
    change(path)
    relist(path)


def relist(path: Path) -> None:
    """The manifest agrees with what a file says now."""
    bag = path.parents[2]
    manifest, name = bag / "manifest-sha256.txt", path.relative_to(bag).as_posix()
    lines = [line for line in manifest.read_text().splitlines(keepends=True) if not line.endswith(f"  {name}\n")]
    manifest.write_text("".join(lines) + f"{sha256(path.read_bytes()).hexdigest()}  {name}\n")


@pytest.mark.parametrize(
    ("spoil", "file", "why"),
    [
        (change, "*.jwe", "changed"),
        (change, "*.tlog-proof", "changed"),
        (Path.unlink, "*.jwe", "missing"),
        (forge, "*.jwe", "proof.entry"),
        (forge, "*.tlog-proof", "."),
    ],
    ids=["envelope changed", "proof changed", "envelope gone", "envelope forged", "proof forged"],
)
async def test_a_spoiled_file_is_named_and_set_aside_and_the_others_are_taken(
    fed: Federation, tmp_path: Path, spoil: Callable[[Path], None], file: str, why: str
) -> None:
    a, b = await on_foot(fed)
    for _ in range(3):
        await a.trace(b)
    bag = await export(a, b, tmp_path)
    target = sorted((bag / "data" / "parcels").glob(file))[1]
    spoil(target)
    found, wrong = await take(b, bag)
    assert await b.count("inbox") == 2, "the others"
    assert found.parcels["received"] == 2
    stem = target.name.rpartition(".")[0]
    assert any(stem in name and why in said for name, said in wrong.items()), wrong
    assert why == "missing" or any(stem in each.name for each in (b.folder / "aside").rglob("*"))
    await verify_ledger(b)


async def test_foreign_files_and_links_are_named_and_never_read(fed: Federation, tmp_path: Path) -> None:
    a, b = await on_foot(fed)
    await a.trace(b)
    bag = await export(a, b, tmp_path)
    (bag / "data" / "parcels" / "holiday.jpg").write_bytes(b"foreign")
    (bag / "data" / "secret").symlink_to(b.folder / "tracewire.toml")
    manifest = bag / "manifest-sha256.txt"
    manifest.write_text(manifest.read_text() + f"{'0' * 64}  data/../../a/tracewire.toml\n")
    found, wrong = await take(b, bag)
    assert found.parcels == {"received": 1}
    assert wrong["data/parcels/holiday.jpg"].startswith("foreign")
    assert wrong["data/secret"] == "a link: not read"
    assert any(name.startswith("manifest-sha256.txt line") for name in wrong)


async def test_a_bag_of_others_changes_nothing(fed: Federation, tmp_path: Path) -> None:
    a, b = await on_foot(fed)
    (c,) = await fed.nodes("c", facts=ON_FOOT)
    await a.trace(b)
    bag = await export(a, b, tmp_path)
    info = bag / "bag-info.txt"
    info.write_text(info.read_text().replace(b.name, c.name))
    found, wrong = await take(c, bag)
    assert found.parcels == {}
    assert [said for said in wrong.values() if said.startswith("foreign")]
    assert await c.kinds() == ["ledger-opened"]


async def test_a_crash_leaves_no_bag_and_a_folder_that_is_none_is_said(fed: Federation, tmp_path: Path) -> None:
    a, b = await on_foot(fed)
    bag = BagWriter(tmp_path, sender=a.name, recipient=b.name, now=fed.clock.now())
    await a.parts.ways.courier.export(b.name, bag)
    assert not list(tmp_path.glob("tracewire-*z")), "not before it is whole"
    bag.discard()
    assert not list(tmp_path.glob("tracewire-*"))

    async def read() -> None:
        BagReader(tmp_path, tmp_path)

    await refused("courier.bag", read())


async def killed(when: Callable[[], Awaitable[bool]], *command: object) -> bool:
    """Starts the command and kills it once something is so; whether it lived until then."""
    program = [str(Path(sys.executable).with_name("tracewire")), "courier", *map(str, command), "--json"]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and not await when():
            await asyncio.sleep(0.005)
        lived = process.poll() is None
    finally:
        process.kill()
        process.wait()
    return lived


async def test_k24_export_and_import_that_are_killed_leave_nothing_half_and_are_done_again(
    fed: Federation, tmp_path: Path
) -> None:
    a, b = await on_foot(fed)
    sent = [await a.trace(b) for _ in range(80)]
    key = ("--key-file", fed.folder / "secret")

    async def parts() -> bool:
        return len(list(tmp_path.glob("tracewire-*.part/data/*/*"))) > 0

    assert await killed(parts, "export", a.folder, b.name, tmp_path, *key)
    assert not list(tmp_path.glob("tracewire-*z")), "what is not whole is no bag"
    (torn,) = tmp_path.glob("tracewire-*.part")
    shutil.rmtree(torn)
    bag = await export(a, b, tmp_path)
    taken = 0

    async def some() -> bool:
        return await b.count("inbox") > taken

    kills = 0
    while kills < 3 and await killed(some, "import", b.folder, bag, *key):
        kills, taken = kills + 1, await b.count("inbox")
    assert kills, "it was killed in the midst"
    again, wrong = await take(b, bag)
    assert (again.parcels, wrong) == ({"received": 80}, {})
    assert (await b.kinds()).count("received") == await b.count("inbox") == 80
    back, _ = await take(a, await export(b, a, tmp_path))
    assert back.settled == 80
    for each in sent:
        assert await a.delivery(each) == "delivered"
    await match_ledgers(a, b)


async def test_a_bag_stands_on_a_file_system_that_knows_no_cases_and_no_links(fed: Federation, tmp_path: Path) -> None:
    a, b = await on_foot(fed)
    await a.trace(b)
    names = [path.relative_to(tmp_path).as_posix() for path in (await export(a, b, tmp_path)).rglob("*")]
    tags = ("bagit.txt", "bag-info.txt", "manifest-sha256.txt", "tagmanifest-sha256.txt")
    for name in names:
        assert name == name.lower()
        assert not set(name) & set('\\:*?"<>|')
        assert len(name) < 200
    assert {name.rpartition("/")[2] for name in names} >= set(tags)
    copy = Path(shutil.copytree(next(tmp_path.glob("tracewire-*")), tmp_path / "stick"))
    assert (await take(b, copy))[0].parcels == {"received": 1}


# ---- what was seen of ledgers


async def test_a_ledger_is_witnessed_by_courier_and_its_cosignatures_count_for_a_week(
    fed: Federation, tmp_path: Path
) -> None:
    a, b = await on_foot(fed)
    fed.authority.set_witnesses([a.name, b.name], 1, signers=fed._targets, now=fed.clock.now())
    await fed.publish()
    assert (fed.directory.witnesses_of(a.name), fed.directory.on_foot(a.name)) == ([b.name], True)
    assert await a.parts.witness.collect() == 0
    assert a.parts.linking.alarms[a.origin] == "checkpoint.unwitnessed"
    await a.trace(b)
    await take(b, await export(a, b, tmp_path))
    found, wrong = await take(a, await export(b, a, tmp_path))
    assert (found.cosigned, wrong) == (1, {})
    assert await a.parts.witness.collect() == 1
    assert a.origin not in a.parts.linking.alarms
    witnessed = await a._ports.ledger.witnessed(a.origin, 99, 1)
    assert witnessed == (await b._ports.exchange.held(a.origin)).linked
    noted = [entry for entry in await b.entries() if entry.kind == "peer-checkpoint" and entry.peer]
    assert [each.peer.size for each in noted if each.peer] == [witnessed], "it stands in the witness's ledger first"
    fed.clock.ahead += timedelta(days=8)
    assert await a.parts.witness.collect() == 0
    assert a.parts.linking.alarms[a.origin] == "checkpoint.unwitnessed"


async def answered_on_foot(fed: Federation, medium: Path) -> tuple[Node, Node, Path, Path]:
    """Two nodes, the bag that brings the receipt back to the first, and what it says there of the first one's ledger."""
    a, b = await on_foot(fed)
    await a.trace(b)
    await take(b, await export(a, b, medium))
    bag = await export(b, a, medium)
    (seen,) = (bag / "data" / "checkpoints").iterdir()
    return a, b, bag, seen


async def test_cosignatures_in_a_bag_that_are_not_the_members_are_set_aside(fed: Federation, tmp_path: Path) -> None:
    a, b, bag, seen = await answered_on_foot(fed, tmp_path)
    note = seen.read_bytes()
    lines = note.splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if line.startswith(f"— {b.name} ".encode()))
    seen.write_bytes(b"".join(lines[:at] + lines[at + 1 :]))
    relist(seen)
    found, wrong = await take(a, bag)
    assert found.cosigned == 0
    assert {name: why.partition(":")[0] for name, why in wrong.items()} == {
        f"data/checkpoints/{seen.name}": "peer.answer"
    }
    assert await a._ports.ledger.cosigned_since(a.origin, fed.clock.now() - timedelta(days=1)) == []


async def test_a_courier_shows_that_somebody_was_shown_another_history(fed: Federation, tmp_path: Path) -> None:
    a, b = await fed.nodes("a", "b", facts=ON_FOOT)
    (m,) = await fed.strangers("m")
    for _ in range(2):
        m.parcel(b)
    fork = m.fork()
    fork.parcel(b)
    await a._ports.exchange.keep(checkpoint_of(m), at=fed.clock.now())
    await b._ports.exchange.keep(checkpoint_of(fork), at=fed.clock.now())
    _, wrong = await take(b, await export(a, b, tmp_path))
    assert [why.partition(":")[0] for why in wrong.values()] == ["ledger.split_view"]
    assert b.parts.linking.alarms[m.origin] == "ledger.split_view"
    kept = await b.sql("SELECT first, second FROM split_view")
    assert {kept["first"][:60], kept["second"][:60]} == {m.note()[:60], fork.note()[:60]}


@pytest.mark.parametrize("size", [99, None, 1], ids=["longer than ours", "of our size", "shorter"])
async def test_a_checkpoint_under_our_keys_that_we_do_not_hold_is_named_and_nothing_more_is_signed(
    fed: Federation, tmp_path: Path, size: int | None
) -> None:
    a, b, bag, seen = await answered_on_foot(fed, tmp_path)
    ours = await a._ports.ledger.checkpoint(a.origin)
    assert ours is not None
    seen.write_bytes(a.keys.note_signer(a.origin).sign(size or ours.size, bytes(32), fed.clock.now()))
    relist(seen)
    reader = BagReader(bag, a.folder / "aside")
    await refused("ledger.rollback", a.parts.ways.courier.take(reader.sender, reader))
    assert reader.wrong == {f"data/checkpoints/{seen.name}": "ledger.split_view: Two histories of one ledger"}
    await refused("ledger.rollback", a.trace(b))
    if size is None:
        assert await a._ports.exchange.conflict(a.origin) == (ours.note, seen.read_bytes()), "the thief's is evidence"
        await a.parts.linking.watch(fed.directory)
        assert a.parts.linking.alarms == {a.origin: "ledger.split_view"}, "whichever process has found it"
    await a.restart()
    if size != 99:  # which the guard remembers
        await a.parts.witness.collect()
    await refused("ledger.rollback", a.trace(b))


@pytest.mark.parametrize(("facts", "hours"), [(ON_FOOT, 7 * 24 - 1), ({}, 0)], ids=["on foot", "network"])
async def test_what_a_courier_could_not_link_is_an_alarm_after_a_week(
    fed: Federation, facts: dict[str, list[str]], hours: int
) -> None:
    a, b = await fed.nodes("a", "b", facts=facts)
    await a._ports.exchange.keep(
        Checkpoint(origin=b.origin, size=5, root=bytes(32), note=b""), at=fed.clock.now() - timedelta(hours=hours)
    )
    await a.parts.deliver.greet()
    assert b.origin not in a.parts.linking.alarms
    fed.clock.ahead += timedelta(hours=2)
    await a.parts.deliver.greet()
    assert a.parts.linking.alarms[b.origin] == "checkpoint.unlinked"
