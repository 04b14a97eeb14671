"""What the foreign verifiers verify: ledgers of our own code, built in memory and written as `ledger export` writes them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from keys.notes import LedgerNoteSigner
from protocols.ledger.entry import DirRef, Entry, PeerRef
from protocols.ledger.merkle import inclusion_path, leaf_hash
from protocols.ledger.proof import Place, format_proof
from protocols.ledger.tiles import ENTRIES, WIDTH, Edge, TileId, TileReader, encode_bundle, tile_path, tile_width

START = datetime(2026, 11, 22, 10, tzinfo=UTC)
DIR = DirRef(version=3, sha256=sha256(b"snapshot").digest())


def digest(*parts: object) -> bytes:
    return sha256(repr(parts).encode()).digest()


class Ledger:
    """A ledger in memory with its real tree and signer."""

    def __init__(self, member: str, seed: int = 1) -> None:
        self.member, self.origin = member, f"{member}/2026.1"
        seeds = digest("ed25519", member, seed), digest("mldsa44", member, seed)
        self.signer = LedgerNoteSigner(self.origin, *seeds)
        self.edge = Edge(0, {})
        self.entries: list[bytes] = []
        self.checkpoints: dict[int, bytes] = {}
        self.tiles: dict[TileId, bytes] = {}

    def entry(self, kind: str, **members: Any) -> Entry:
        """An entry of this ledger's next index: time and nonce are its own."""
        index = len(self.entries)
        given = {"at": START + timedelta(seconds=index), "n": digest(self.origin, index)[:16]}
        return Entry(kind=kind, **given | members)

    def add(self, *entries: Entry | bytes) -> int:
        """Appends a batch and signs its checkpoint; the index of its last entry."""
        encoded = [each if isinstance(each, bytes) else each.encode() for each in entries]
        self.entries += encoded
        self.tiles |= self.edge.append(leaf_hash(each) for each in encoded)
        self.checkpoints[self.edge.size] = self.signer.sign(self.edge.size, self.edge.root(), START)
        return self.edge.size - 1

    def open(self) -> int:
        return self.add(self.entry("ledger-opened", sender=self.member, dir=DIR))

    def ref(self, index: int) -> PeerRef:
        """How another ledger names an entry of this one, proven under the newest checkpoint."""
        leaf, size, root = leaf_hash(self.entries[index]), self.edge.size, self.edge.root()
        return PeerRef(origin=self.origin, index=index, leaf=leaf, size=size, root=root)

    def place(self, index: int) -> Place:
        path = tuple(inclusion_path(index, self.edge.size, TileReader(self.tiles).node))
        return Place(origin=self.origin, size=self.edge.size, index=index, path=path, entry=self.entries[index])

    def proof(self, index: int) -> bytes:
        return format_proof(self.place(index), self.checkpoints[self.edge.size])

    def write(self, folder: Path) -> Path:
        size = len(self.entries)
        for start in range(0, size, WIDTH):
            bundle = ENTRIES, start // WIDTH
            put(
                folder / tile_path(bundle, tile_width(bundle, size)), encode_bundle(self.entries[start : start + WIDTH])
            )
        for tile, data in self.tiles.items():
            put(folder / tile_path(tile, tile_width(tile, size)), data)
        for old, note in self.checkpoints.items():
            put(folder / "checkpoints" / str(old), note)
        put(folder / "checkpoint", self.checkpoints[size])
        put(folder / "vkeys", "".join(f"{key}\n" for key in self.signer.vkeys).encode())
        return folder


class Exchange:
    """Two members' ledgers and the entries that messages between them leave in both."""

    def __init__(self) -> None:
        self.a, self.b = Ledger("test/br-pf"), Ledger("test/us-atf")
        self.a.open()
        self.b.open()

    def message(self, number: int, sender: Ledger, recipient: str) -> dict[str, Any]:
        """The members that every entry about one message repeats."""
        id_ = UUID(f"01934c8a-0000-7000-8000-{number:012x}")
        return {
            "id": id_, "sender": sender.member, "recipient": recipient, "dir": DIR,
            "envelope": digest("envelope", number), "content_c": digest("content", number),
        }  # fmt: skip

    def keys(self, number: int) -> dict[str, Any]:
        return {"kid": "kid-1", "seal_kid": "seal-1", "suite": "tw1", "thread_c": digest("thread", number)}

    def sent(self, number: int, seq: int, sender: Ledger, recipient: str, **changes: Any) -> int:
        members = self.message(number, sender, recipient) | self.keys(number) | {"actor_c": digest("actor", number)}
        return sender.add(sender.entry("sent", **members | {"pair_seq": seq} | changes))

    def arrived(self, number: int, seq: int, sent: int, sender: Ledger, receiver: Ledger, **changes: Any) -> int:
        kind = changes.pop("kind", "received")
        members = self.message(number, sender, receiver.member) | {"pair_seq": seq, "peer": sender.ref(sent)}
        if kind == "received":
            members |= self.keys(number)
        return receiver.add(receiver.entry(kind, **members | changes))

    def receipt(self, number: int, seq: int, arrived: int, sender: Ledger, receiver: Ledger, **changes: Any) -> int:
        members = self.message(number, sender, receiver.member) | {"pair_seq": seq, "peer": receiver.ref(arrived)}
        return sender.add(sender.entry("receipt", **members | changes))

    def whole(self, number: int, seq: int, sender: Ledger, receiver: Ledger) -> tuple[int, int, int]:
        """A message that was sent, received and receipted; the three indexes."""
        sent = self.sent(number, seq, sender, receiver.member)
        arrived = self.arrived(number, seq, sent, sender, receiver)
        return sent, arrived, self.receipt(number, seq, arrived, sender, receiver)


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture
def exchange() -> Exchange:
    """Two opened ledgers."""
    return Exchange()


@pytest.fixture(scope="session")
def busy() -> Exchange:
    """More than one bundle in A (300 messages, 42 other entries), three of them received and receipted. Not to be changed."""
    found = Exchange()
    a, b = found.a, found.b
    sent = [found.sent(number, number, a, b.member) for number in range(1, 301)]
    a.add(*(a.entry("admin", code="test") for _ in range(42)))
    for number in range(1, 4):
        found.receipt(number, number, found.arrived(number, number, sent[number - 1], a, b), a, b)
    return found


@pytest.fixture
def new_ledger() -> Callable[..., Ledger]:
    """Makes an empty ledger of a member; another `seed` gives it other keys."""
    return Ledger
