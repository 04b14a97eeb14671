"""Courier: parcels and receipts as files, where there is no network; the same checks as by POST, linked later.

Crash argument. A bag is seen when it is whole. Import changes nothing but through Receive and Settle, which give the same
receipt for the same parcel: done again, or on top of a POST, it changes nothing.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from gateway.services.blobs import Blobs
from gateway.services.committed import log_name
from gateway.services.link import Key, Linking
from gateway.services.pack import Pack
from gateway.services.prove import Prove
from gateway.services.receive import Receive
from gateway.services.settle import Settle
from gateway.services.submit import current
from gateway.services.witness import Witness
from protocols.directory import Directory
from protocols.exchange.blobs import parse_digest
from protocols.exchange.courier import (
    BLOBS,
    CHECKPOINTS,
    DIRECTORY,
    HELLO,
    envelope_name,
    files_of,
    hello_file,
    is_parcel,
    read_hello,
    read_item,
)
from protocols.exchange.lines import Hello, Parcel, Post, ProblemLine, Receipt
from protocols.exchange.message import Message
from protocols.ledger.checkpoint import Checkpoint, parse_checkpoint
from protocols.ledger.entry import parse_entry
from protocols.limits import BLOB_RANGE_BYTES_MAX, EXPIRES_MAX_S, PARCELS_MAX, POST_BYTES_MAX
from protocols.ports.carried import CourierStore
from protocols.ports.courier import Incoming, Outgoing
from protocols.ports.directory import DirectorySource
from protocols.ports.store import ExchangeStore
from protocols.ports.world import Clock
from protocols.problems import CODES, ProblemError

_KEPT = timedelta(seconds=EXPIRES_MAX_S)
_BYTES = POST_BYTES_MAX // 2
Notes = dict[Key, bytes]
Pins = dict[str, Checkpoint]


@dataclass(slots=True, kw_only=True)
class Carried:
    """What a bag brought: parcels and receipts by what became of them, `cosigned` how many of our checkpoints.

    `directory` is the version in force after it.
    """

    parcels: Counter[str] = field(default_factory=Counter)
    receipts: int = 0
    settled: int = 0
    cosigned: int = 0
    directory: int = 0


class Courier:
    """Packs and unpacks bags for one member at a time."""

    def __init__(
        self,
        *,
        member: str,
        directory: DirectorySource,
        store: ExchangeStore,
        owed: CourierStore,
        pack: Pack,
        prove: Prove,
        linking: Linking,
        witness: Witness,
        blobs: Blobs,
        receive: Receive,
        settle: Settle,
        clock: Clock,
    ) -> None:
        self._member, self._directory, self._store, self._owed = member, directory, store, owed
        self._linking, self._pack, self._prove, self._blobs = linking, pack, prove, blobs
        self._witness, self._receive, self._settle, self._clock = witness, receive, settle, clock

    async def export(self, peer: str, bag: Outgoing) -> tuple[int, int]:
        """Everything that waits for a member, the receipts of what came from it by courier, the directory, what we saw of ledgers.

        How many messages and receipts.
        """
        directory = current(self._directory)
        if not directory.active(peer):
            raise ProblemError("member.unknown", "the directory lists no active member of this name")
        for name, data in (await self._directory.files(directory.ref, list(directory.records))).items():
            bag.add(DIRECTORY + name, data)
        if (timestamp := self._directory.file("timestamp.json")) is not None:
            bag.add(f"{DIRECTORY}timestamp.json", timestamp)
        pins: dict[str, Checkpoint] = {}
        notes = dict((await self._pack.post(peer, (), directory, pins=pins)).checkpoints)
        parcels = await self._parcels(peer, bag, directory, notes, pins)
        receipts = await self._receipts(peer, bag, notes, pins)
        bag.add(HELLO, hello_file(await self._pack.hello(peer, notes, directory), notes))
        await self._seen(peer, bag, directory)
        return parcels, receipts

    async def _seen(self, peer: str, bag: Outgoing, directory: Directory) -> None:
        """The member's own checkpoints as we cosign them; those of third ones, so that nobody is shown a history of his own."""
        for origin, ledger in directory.ledgers.items():
            if ledger.member == peer:
                note = await self._witness.carried(origin, directory)
            else:
                note = None if ledger.member == self._member else await self._store.foreign_note(origin)
            if note is not None:
                bag.add(CHECKPOINTS + log_name(origin), note)

    async def _parcels(self, peer: str, bag: Outgoing, directory: Directory, notes: Notes, pins: Pins) -> int:
        count, after, now = 0, UUID(int=0), self._clock.now()
        carried: set[bytes] = set()
        while batch := await self._store.queued(peer, after, PARCELS_MAX, _BYTES):
            after = batch[-1].id
            ready, again, _ = await self._pack.ready(batch, directory, now)
            if again:
                ready += await self._store.unsettled(peer, [each.id for each in again])
            post = await self._pack.post(peer, ready, directory, pins=pins)
            notes |= post.checkpoints
            for name, data in files_of(post):
                bag.add(name, data)
            for each in ready:
                await self._attachments((await self._pack.content(each)).message, bag, carried)
            count += len(ready)
        return count

    async def _attachments(self, message: Message, bag: Outgoing, carried: set[bytes]) -> None:
        for ref in message.attachments:
            if ref.sha256 not in carried:
                carried.add(ref.sha256)
                await bag.stream(BLOBS + ref.sha256.hex(), self._blobs.sealed(ref.sha256, ref.size))

    async def _receipts(self, peer: str, bag: Outgoing, notes: Notes, pins: Pins) -> int:
        await self._owed.forget_owed(self._clock.now() - _KEPT)
        count, after = 0, ("", -1)
        while batch := await self._owed.owed(peer, after, PARCELS_MAX):
            after = batch[-1].origin, batch[-1].index
            for origin in {each.origin for each in batch}:
                indexes = [each.index for each in batch if each.origin == origin]
                pin = pins.get(origin)
                if pin is None or max(indexes) >= pin.size:
                    pin = pins[origin] = await self._prove.newest(origin)
                under = {(origin, pin.size): pin.note}
                notes |= under
                receipts = tuple(Receipt(place=each) for each in (await self._prove.places_at(pin, indexes)).values())
                for name, data in files_of(Post(hello=Hello(dir_version=0), checkpoints=under, items=receipts)):
                    bag.add(name, data)
                count += len(receipts)
        return count

    async def take(self, peer: str, bag: Incoming) -> Carried:
        """Everything in a bag of a member; files that cannot be what they should are set aside by name."""
        found = Carried()
        if not current(self._directory).active(peer):
            raise ProblemError("courier.bag", "no active member sent it, as our directory knows them")
        try:
            directory = await self._directory.refresh(self._clock.now(), fetch=lambda name: bag.read(DIRECTORY + name))
        except ProblemError:  # a bag may be older than what we have; expiry is judged by whoever receives
            directory = current(self._directory)
        found.directory = directory.ref.version
        said = self._hello(bag)
        for name in bag.names():
            if name.startswith(BLOBS):
                await self._blob(peer, bag, name)
            elif name.startswith(CHECKPOINTS):
                found.cosigned += await self._checkpoint(peer, bag, name)
        for parcels in (True, False):
            await self._take_all(peer, bag, said, found, parcels=parcels)
        return found

    def _hello(self, bag: Incoming) -> Post:
        """What the bag says of checkpoints; without it they are linked by the next one."""
        try:
            return read_hello(bag.read(HELLO) or b"")
        except ProblemError as problem:
            bag.set_aside(HELLO, f"{problem.code}: {problem.kind.title}")
            return Post(hello=Hello(dir_version=0), checkpoints={})

    async def _blob(self, peer: str, bag: Incoming, name: str) -> None:
        """An attachment comes before the message that names it; a part of it may be here already."""
        try:
            digest, size, at = parse_digest(name.removeprefix(BLOBS)), bag.size(name), 0
            for piece in bag.ranges(name, BLOB_RANGE_BYTES_MAX):
                await self._blobs.put(peer, digest, at, size, piece)  # what is here already changes nothing
                at += len(piece)
        except ProblemError as problem:
            bag.set_aside(name, f"{problem.code}: {problem.kind.title}")
        except OSError as error:
            bag.set_aside(name, f"cannot be read: {error.strerror}")

    async def _checkpoint(self, peer: str, bag: Incoming, name: str) -> bool:
        """Whether it is one of ours that the member cosigned; one of a third member is held against what we hold."""
        directory, note = current(self._directory), bag.read(name)
        try:
            if note is None:
                return False
            origin = parse_checkpoint(note).origin
            if origin not in directory.ledgers or name != CHECKPOINTS + log_name(origin):
                raise ProblemError("proof.origin", "the directory lists no ledger of this name")
            if directory.ledgers[origin].member == self._member:
                await self._witness.brought(peer, note, directory)
                return True
            await self._linking.one_root(self._linking.heard(origin, note, directory))
        except ProblemError as problem:
            bag.set_aside(name, f"{problem.code}: {problem.kind.title}")
        return False

    async def _take_all(self, peer: str, bag: Incoming, said: Post, found: Carried, *, parcels: bool) -> None:
        names: list[str] = []
        items: list[Parcel | Receipt] = []
        notes, size = dict(said.checkpoints), 0
        for name in bag.names():
            if is_parcel(name) is not parcels or (item := self._item(peer, bag, name)) is None:
                continue
            names.append(name)
            items.append(item[0])
            notes[item[0].place.origin, item[0].place.size] = item[1]
            size += len(item[0].envelope) if isinstance(item[0], Parcel) else 0
            if len(items) == PARCELS_MAX or size > _BYTES:
                await self._give(peer, bag, Post(hello=said.hello, checkpoints=notes, items=tuple(items)), names, found)
                names, items, notes, size = [], [], {}, 0
        if items or parcels:  # a bag without parcels links all the same
            await self._give(peer, bag, Post(hello=said.hello, checkpoints=notes, items=tuple(items)), names, found)

    def _item(self, peer: str, bag: Incoming, name: str) -> tuple[Parcel | Receipt, bytes] | None:
        """The parcel or receipt of a proof's file; what is not this member's, or not for us, is set aside."""
        proof = bag.read(name)
        beside = envelope_name(name) if is_parcel(name) else None
        envelope = bag.read(beside) if beside else None
        if proof is None or (beside and envelope is None):
            return None
        try:
            item, note = read_item(proof, envelope)
            place, entry = item.place, parse_entry(item.place.entry)
            place.check(self._linking.verify(place.origin, place.size, note, current(self._directory)))
        except ProblemError as problem:
            bag.set_aside(name, f"{problem.code}: {problem.kind.title}")
            return None
        ends = (entry.sender, entry.recipient)
        if ends != ((peer, self._member) if beside else (self._member, peer)):
            bag.set_aside(name, "foreign: it is of other members")
            return None
        return item, note

    async def _give(self, peer: str, bag: Incoming, post: Post, names: list[str], found: Carried) -> None:
        if post.items and isinstance(post.items[0], Receipt):
            found.receipts += len(post.items)
            found.settled += await self._settle.take(post, peer, current(self._directory))
            return
        try:
            answer = await self._receive.receive(peer, post)
        except ProblemError as problem:
            if problem.kind.retry == "never":
                for name in names:
                    bag.set_aside(name, f"{problem.code}: {problem.kind.title}")
            raise
        for name, item in zip(names, answer.items, strict=True):
            if isinstance(item, ProblemLine):
                found.parcels[item.code] += 1
                if CODES[item.code].retry == "never":
                    bag.set_aside(name, f"{item.code}: {CODES[item.code].title}")
            elif isinstance(item, Receipt):
                found.parcels[parse_entry(item.place.entry).kind] += 1
        places = [item.place for item in answer.items if isinstance(item, Receipt)]
        await self._owed.owe(peer, [(place.origin, place.index) for place in places], self._clock.now())
