"""Reconciling two members' ledgers: what each says of the messages between them, beside what the other says.

Both ledgers have been verified from their bytes before; here only what they say is compared. A ledger may have been taken out
earlier than the other: what names a place past its end is counted as `later`, and a difference only where it is said to be `whole`.

Long ledgers are compared in parts, each with the messages of some ids: both are read once for each part, and memory holds one part,
32 bytes of every entry and 40 of every message. Of what does not fit the first 100,000 of a direction are named, and the rest is counted.
"""

import sys
from array import array
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, starmap
from uuid import UUID

from protocols.ledger.entry import RECEIPT_KINDS, Entry, PeerRef, closes, parse_entry
from protocols.ledger.merkle import HASH_BYTES, leaf_hash
from protocols.ledger.tiles import Edge
from protocols.limits import EXPIRES_MAX_S

_SKEW_MAX_S = 120.0  # of docs/protocol.md: what a doctor calls a wrong clock
_NAMED_MAX = 100_000
_ID, _ID_CHARS = b',"id":"', 36


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What does not fit: `member` says in its entry `index` what the other's entry `other` (where there is one) does not bear out.

    Or what its own `first` contradicts, an earlier one of the same ledger.
    """

    kind: str
    member: str
    index: int | None
    other: int | None
    id: UUID | None
    first: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """What is compared of an entry about a message between the two; a ledger has many, so nothing else is kept."""

    index: int
    kind: str
    leaf: bytes
    at: float
    id: UUID
    envelope: bytes | None
    content_c: bytes | None
    terms: tuple[object, ...]
    pair_seq: int | None
    code: str | None
    peer: PeerRef | None

    @classmethod
    def of(cls, index: int, leaf: bytes, entry: Entry, id_: UUID) -> "_Said":
        return cls(
            index=index, kind=sys.intern(entry.kind), leaf=leaf, at=entry.at.timestamp(), id=id_, envelope=entry.envelope,
            content_c=entry.content_c, terms=_terms(entry), pair_seq=entry.pair_seq,
            code=entry.code, peer=entry.peer,
        )  # fmt: skip

    def same_message(self, other: "_Said") -> bool:
        """Whether two entries are about the same bytes under the same number."""
        return (self.id, self.envelope, self.pair_seq) == (other.id, other.envelope, other.pair_seq)


def _terms(entry: Entry) -> tuple[object, ...]:
    names = [sys.intern(each) for each in (entry.kid, entry.seal_kid, entry.suite) if each]
    return (entry.thread_c, *names) if entry.kind in ("sent", "received") else ()


@dataclass(slots=True)
class Side:
    """One ledger's entries about messages with one other member, by index and by message; and every leaf hash of it.

    Of `parts` it keeps the messages of one `part`, counted from 0. `whole`: the other names nothing past its end, else that end was cut.
    """

    origin: str
    other: str
    part: int = 0
    parts: int = 1
    whole: bool = False
    last: bytes = b""
    size: int = 0
    leaves: bytearray = field(default_factory=bytearray)
    said: dict[int, _Said] = field(default_factory=dict)
    sent: dict[UUID, list[_Said]] = field(default_factory=dict)
    ends: dict[UUID, list[_Said]] = field(default_factory=dict)
    arrived: dict[UUID, list[_Said]] = field(default_factory=dict)

    @property
    def member(self) -> str:
        """Whose ledger it is."""
        return self.origin.rpartition("/")[0]

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return closes(self.last)

    def read(self, entries: Iterable[bytes]) -> "Side":
        """Takes a whole ledger in, from its first entry."""
        for data in entries:
            self._take(data)
        return self

    def _take(self, data: bytes) -> None:
        index, self.size, leaf = self.size, self.size + 1, leaf_hash(data)
        self.leaves += leaf
        self.last = data
        start = data.find(_ID) + len(_ID)
        if hash(data[start : start + _ID_CHARS]) % self.parts != self.part:  # keyed: nobody fills one part alone
            return
        entry = parse_entry(data)
        if entry.id is None or {entry.sender, entry.recipient} != {self.member, self.other}:
            return
        ours = entry.sender == self.member
        mine = {"sent": self.sent, "receipt": self.ends, "undelivered": self.ends}
        place = (mine if ours else dict.fromkeys(RECEIPT_KINDS, self.arrived)).get(entry.kind)
        if place is not None:
            said = self.said[index] = _Said.of(index, leaf, entry, entry.id)
            place.setdefault(entry.id, []).append(said)

    def roots(self, sizes: Iterable[int]) -> dict[int, bytes]:
        """The tree's root at each of these sizes that it has."""
        edge, found = Edge(0, {}), dict[int, bytes]()
        for size in sorted(sizes):
            if 0 < size <= self.size:
                edge.append(bytes(self.leaves[n * HASH_BYTES : (n + 1) * HASH_BYTES]) for n in range(edge.size, size))
                found[size] = edge.root()
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """One member's messages to the other: how many, how they ended, and how long they took by both clocks (seconds)."""

    sender: str
    recipient: str
    sent: int
    receipted: int
    refused: int
    undelivered: int
    pending: int  # arrived, and its sender has no receipt yet
    unanswered: int  # neither
    later: int  # names what is past the end of the other's ledger, as it was taken out
    elsewhere: int  # names another ledger of the other, or ends what was sent in another of ours
    took_s: tuple[float, float, float] | None  # least, median, most
    unnamed: int = 0  # differences past the bound of those that are named


@dataclass(slots=True, kw_only=True)
class _Way:
    """One direction, part by part: what was found, and what has to be known of all parts."""

    sender: str
    recipient: str
    most: int
    found: list[Difference] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    numbers: "array[int]" = field(default_factory=lambda: array("q"))
    places: "array[int]" = field(default_factory=lambda: array("q"))
    ids: bytearray = field(default_factory=bytearray)
    took: "array[float]" = field(default_factory=lambda: array("d"))
    worst: tuple[float, int, int] = (0.0, 0, 0)
    tree: Difference | None = None
    unnamed: int = 0

    def add(self, sender: Side, receiver: Side) -> None:
        self._name(chain(_sent(sender), _arrivals(sender, receiver), _ends(sender, receiver)))
        trees = [each for each in (self.tree, _tree(sender, receiver)) if each]
        self.tree = min(trees, key=lambda each: each.index or 0, default=None)
        for id_, all_ in sender.sent.items():
            self.numbers.append(all_[0].pair_seq or 0)
            self.places.append(all_[0].index)
            self.ids += id_.bytes
        for seconds, arrived, sent in _took(sender, receiver):
            self.took.append(seconds)
            self.worst = min(self.worst, (seconds, arrived, sent))
        self.states += _states(sender, receiver)

    def _name(self, differences: Iterable[Difference]) -> None:
        for each in differences:
            if len(self.found) < self.most:
                self.found.append(each)
            else:
                self.unnamed += 1

    def differences(self) -> list[Difference]:
        self._name(self._gap())
        found = [*self.found, *([self.tree] if self.tree else ())]
        seconds, arrived, sent = self.worst
        if seconds < -_SKEW_MAX_S:
            found.append(Difference(kind="clock.skew", member=self.sender, index=sent, other=arrived, id=None))
        return sorted(found, key=lambda each: (each.index is None, each.index))

    def _gap(self) -> Iterator[Difference]:
        """The numbers of a pair count from 1, each once."""
        order, before = sorted(range(len(self.numbers)), key=lambda n: (self.numbers[n], self.places[n])), 0
        first: int | None = None
        for n in order:
            if self.numbers[n] != before + 1:
                id_ = UUID(bytes=bytes(self.ids[n * 16 : (n + 1) * 16]))
                yield Difference(
                    kind="sequence.gap", member=self.sender, index=self.places[n], other=None, id=id_, first=first
                )
            before, first = self.numbers[n], self.places[n]

    def direction(self) -> Direction:
        took, states = sorted(self.took), self.states
        return Direction(
            sender=self.sender, recipient=self.recipient, sent=len(self.numbers), receipted=states["receipted"], refused=states["refused"],
            undelivered=states["undelivered"], pending=states["pending"], unanswered=states["unanswered"],
            later=states["later"], elsewhere=states["elsewhere"],
            took_s=(took[0], took[len(took) // 2], took[-1]) if took else None, unnamed=self.unnamed,
        )  # fmt: skip


def reconcile(parts: Iterable[tuple[Side, ...]], *, most: int = _NAMED_MAX) -> tuple[list[Direction], list[Difference]]:
    """Both directions, and the differences in the order of the sender's ledger, `most` of each; of all parts of two ledgers, one or more."""
    ways: list[_Way] = []

    def add(a: Side, b: Side) -> None:
        ways.extend(() if ways else [_Way(sender=x.member, recipient=y.member, most=most) for x, y in ((a, b), (b, a))])
        ways[0].add(a, b)
        ways[1].add(b, a)

    deque(starmap(add, parts), maxlen=0)  # no name holds a part while the next one is read
    found = [
        each for way in ways for each in way.differences()
    ]  # the gaps are counted with them: a direction comes after
    return [way.direction() for way in ways], found


def _named(said: _Said, other: Side) -> _Said | str | None:
    """What an entry names in the other ledger: that entry; "later", or "elsewhere" in another of its ledgers; None for nothing."""
    peer = said.peer
    if peer is None or peer.index is None:
        return None
    if peer.origin != other.origin:
        return "elsewhere" if peer.origin.rpartition("/")[0] == other.member else None
    if peer.index >= other.size:
        return "later"
    found = other.said.get(peer.index)
    return found if found is not None and found.leaf == peer.leaf else None


def _past(named: str, side: Side, said: _Said, other: Side) -> Iterator[Difference]:
    if named == "later" and other.whole and said.peer:
        yield Difference(kind="entry.past", member=side.member, index=said.index, other=said.peer.index, id=said.id)


def _twice(kind: str, side: Side, said: Sequence[_Said]) -> Difference:
    return Difference(
        kind=kind, member=side.member, index=said[1].index, other=None, id=said[1].id, first=said[0].index
    )


def _sent(sender: Side) -> Iterator[Difference]:
    """One id is one content under one number, however often it was sealed; and it ends before its ledger is much older."""
    late = parse_entry(sender.last).at.timestamp() - EXPIRES_MAX_S if sender.last else 0.0
    for id_, all_ in sender.sent.items():
        for said in all_[1:]:
            if (said.content_c, said.pair_seq) != (all_[0].content_c, all_[0].pair_seq):
                yield _twice("sent.content", sender, (all_[0], said))
        if all_[-1].at < late and id_ not in sender.ends and not sender.closed:
            yield Difference(kind="sent.unended", member=sender.member, index=all_[-1].index, other=None, id=id_)


def _arrivals(sender: Side, receiver: Side) -> Iterator[Difference]:
    """Whatever the recipient says that it got was logged by its sender before, and came once."""
    for id_, arrivals in receiver.arrived.items():
        for said in arrivals:
            named = _named(said, sender)
            if isinstance(named, str):
                yield from _past(named, receiver, said, sender)
                continue
            if named is None or named.kind != "sent" or not named.same_message(said):
                index = said.peer.index if said.peer else None
                yield Difference(kind="arrival.unsent", member=receiver.member, index=said.index, other=index, id=id_)
            elif said.kind == "received" and (said.content_c, said.terms) != (named.content_c, named.terms):
                yield Difference(
                    kind="arrival.content", member=receiver.member, index=said.index, other=named.index, id=id_
                )
        received = [said for said in arrivals if said.kind == "received"]
        if len(received) > 1:
            yield _twice("received.twice", receiver, received)


def _ends(sender: Side, receiver: Side) -> Iterator[Difference]:
    """Whatever the sender says was receipted stands there; nothing is given up that arrived; a message ends once."""
    for id_, ends in sender.ends.items():
        receipts, sent = [said for said in ends if said.kind == "receipt"], sender.sent.get(id_, ())
        for said in receipts:
            named = _named(said, receiver)
            if isinstance(named, str):
                yield from _past(named, sender, said, receiver)
                continue
            index = said.peer.index if said.peer else None
            founded = (
                named is not None and named.kind in RECEIPT_KINDS and (named.id, named.pair_seq) == (id_, said.pair_seq)
            )
            if sent and said.envelope not in {each.envelope for each in sent}:
                founded = False
            if (
                not founded
                or named is None
                or (None not in (contents := {said.content_c, named.content_c}) and len(contents) > 1)
            ):
                yield Difference(kind="receipt.unfounded", member=sender.member, index=said.index, other=index, id=id_)
            elif said.code != named.code:
                yield Difference(kind="receipt.code", member=sender.member, index=said.index, other=index, id=id_)
        if len(receipts) > 1:
            yield _twice("receipt.twice", sender, receipts)
        arrived = [said for said in receiver.arrived.get(id_, ()) if said.kind == "received"]
        if not receipts and arrived and not sender.closed:  # of a closed one the receipt may stand in the next
            yield Difference(
                kind="undelivered.arrived", member=sender.member, index=ends[0].index, other=arrived[0].index, id=id_
            )


def _tree(sender: Side, receiver: Side) -> Difference | None:
    """Every root of the receiver's ledger that the sender was shown is its root at that size, else there is a second history."""
    shown = [
        (said, peer)
        for said in sender.said.values()
        if (peer := said.peer) and peer.origin == receiver.origin and peer.size
    ]
    roots = receiver.roots({peer.size or 0 for _, peer in shown})
    for said, peer in shown:
        if (root := roots.get(peer.size or 0)) is not None and peer.root not in (None, root):
            return Difference(kind="tree.other", member=sender.member, index=said.index, other=peer.index, id=said.id)
    return None


def _took(sender: Side, receiver: Side) -> Iterator[tuple[float, int, int]]:
    """(seconds by both clocks, arrival, sent) of every message that arrived."""
    for id_, arrivals in receiver.arrived.items():
        for said in arrivals[:1]:
            if (sent := sender.sent.get(id_)) is not None:
                yield said.at - sent[0].at, said.index, sent[0].index


def _states(sender: Side, receiver: Side) -> Counter[str]:
    """How many messages ended how, and how many entries name what is not here."""
    states = Counter[str]()
    for id_ in sender.sent:
        ends = sender.ends.get(id_, ())
        receipts = {said.code for said in ends if said.kind == "receipt"}
        state = "receipted" if None in receipts else "refused" if receipts else "undelivered" if ends else ""
        states[state or ("pending" if id_ in receiver.arrived else "unanswered")] += 1
    ours = [_named(said, receiver) for ends in sender.ends.values() for said in ends]
    theirs = [_named(said, sender) for all_ in receiver.arrived.values() for said in all_]
    states.update(each for each in (*ours, *theirs) if isinstance(each, str))
    states["elsewhere"] += len(sender.ends.keys() - sender.sent.keys())
    return states
