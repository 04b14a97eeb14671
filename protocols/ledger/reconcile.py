"""Reconciling two members' ledgers: what each says of the messages between them, beside what the other says.

Both ledgers have been verified from their bytes before; here only what they say is compared. A ledger may have been taken out
earlier than the other: what names a place past its end is counted as `later`, and is no difference.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from uuid import UUID

from protocols.ledger.entry import RECEIPT_KINDS, Entry, PeerRef, parse_entry
from protocols.ledger.merkle import leaf_hash

_SKEW_MAX_S = 120.0  # of docs/protocol.md: what a doctor calls a wrong clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What does not fit: `member` says in its entry `index` what the other's entry `other` (where there is one) does not bear out."""

    kind: str
    member: str
    index: int | None
    other: int | None
    id: UUID | None


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
    pair_seq: int | None
    code: str | None
    peer: PeerRef | None

    @classmethod
    def of(cls, index: int, data: bytes, entry: Entry, id_: UUID) -> "_Said":
        return cls(
            index=index, kind=sys.intern(entry.kind), leaf=leaf_hash(data), at=entry.at.timestamp(), id=id_, envelope=entry.envelope,
            content_c=entry.content_c, pair_seq=entry.pair_seq, code=entry.code, peer=entry.peer,
        )  # fmt: skip

    def same_message(self, other: "_Said") -> bool:
        """Whether two entries are about the same bytes under the same number."""
        return (self.id, self.envelope, self.pair_seq) == (other.id, other.envelope, other.pair_seq)


@dataclass(slots=True)
class Side:
    """One ledger's entries about messages with one other member, by index and by message."""

    origin: str
    other: str
    size: int = 0
    said: dict[int, _Said] = field(default_factory=dict)
    sent: dict[UUID, list[_Said]] = field(default_factory=dict)
    ends: dict[UUID, list[_Said]] = field(default_factory=dict)
    arrived: dict[UUID, list[_Said]] = field(default_factory=dict)

    @property
    def member(self) -> str:
        """Whose ledger it is."""
        return self.origin.rpartition("/")[0]

    def read(self, entries: Iterable[bytes]) -> "Side":
        """Takes a whole ledger in, from its first entry."""
        for data in entries:
            self._take(data)
        return self

    def _take(self, data: bytes) -> None:
        entry, index = parse_entry(data), self.size
        self.size += 1
        if entry.id is None or {entry.sender, entry.recipient} != {self.member, self.other}:
            return
        ours = entry.sender == self.member
        by_kind = (
            {"sent": self.sent, "receipt": self.ends, "undelivered": self.ends}
            if ours
            else dict.fromkeys(RECEIPT_KINDS, self.arrived)
        )
        if (place := by_kind.get(entry.kind)) is not None:
            said = self.said[index] = _Said.of(index, data, entry, entry.id)
            place.setdefault(entry.id, []).append(said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """One member's messages to the other: how many, how they ended, and how long they took by both clocks (seconds)."""

    sender: str
    recipient: str
    sent: int
    receipted: int
    undelivered: int
    pending: int  # arrived, and its sender has no receipt yet
    unanswered: int  # neither
    later: int  # names what is past the end of the other's ledger, as it was taken out
    took_s: tuple[float, float, float] | None  # least, median, most


def reconcile(a: Side, b: Side) -> tuple[list[Direction], list[Difference]]:
    """Both directions, and every difference in the order of the sender's ledger."""
    directions, found = [], list[Difference]()
    for sender, receiver in ((a, b), (b, a)):
        differences = [
            *_arrivals(sender, receiver), *_ends(sender, receiver), *_numbers(sender), *_clocks(sender, receiver),
        ]  # fmt: skip
        directions.append(_direction(sender, receiver))
        found += sorted(differences, key=lambda each: (each.index is None, each.index))
    return directions, found


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


def _arrivals(sender: Side, receiver: Side) -> Iterator[Difference]:
    """Whatever the recipient says that it got was logged by its sender before."""
    for id_, arrivals in receiver.arrived.items():
        for said in arrivals:
            named = _named(said, sender)
            if isinstance(named, str):
                continue
            if named is None or named.kind != "sent" or not named.same_message(said):
                index = said.peer.index if said.peer else None
                yield Difference(kind="arrival.unsent", member=receiver.member, index=said.index, other=index, id=id_)
            elif said.kind == "received" and said.content_c != named.content_c:
                yield Difference(
                    kind="arrival.content", member=receiver.member, index=said.index, other=named.index, id=id_
                )


def _ends(sender: Side, receiver: Side) -> Iterator[Difference]:
    """Whatever the sender says was receipted stands there; nothing is given up that arrived; a message ends once."""
    for id_, ends in sender.ends.items():
        receipts = [said for said in ends if said.kind == "receipt"]
        for said in receipts:
            named = _named(said, receiver)
            if isinstance(named, str):
                continue
            index = said.peer.index if said.peer else None
            if named is None or named.kind not in RECEIPT_KINDS or named.id != id_:
                yield Difference(kind="receipt.unfounded", member=sender.member, index=said.index, other=index, id=id_)
            elif said.code != named.code:
                yield Difference(kind="receipt.code", member=sender.member, index=said.index, other=index, id=id_)
        if len(receipts) > 1:
            yield Difference(kind="receipt.twice", member=sender.member, index=receipts[1].index, other=None, id=id_)
        if id_ not in sender.sent:
            yield Difference(kind="receipt.unsent", member=sender.member, index=ends[0].index, other=None, id=id_)
        arrived = [said for said in receiver.arrived.get(id_, ()) if said.kind == "received"]
        if not receipts and arrived:
            yield Difference(
                kind="undelivered.arrived", member=sender.member, index=ends[0].index, other=arrived[0].index, id=id_
            )


def _numbers(sender: Side) -> Iterator[Difference]:
    """The numbers of a pair count from 1, none left out: who leaves one out has taken a message back."""
    first = {said.pair_seq or 0: said for all_ in sender.sent.values() for said in all_[:1]}
    for number, (seq, said) in enumerate(sorted(first.items()), 1):
        if seq != number:
            yield Difference(kind="sequence.gap", member=sender.member, index=said.index, other=None, id=said.id)
            return


def _clocks(sender: Side, receiver: Side) -> Iterator[Difference]:
    took = list(_took(sender, receiver))
    if took and min(took)[0] < -_SKEW_MAX_S:
        _, arrived, sent = min(took)
        yield Difference(kind="clock.skew", member=sender.member, index=sent, other=arrived, id=None)


def _took(sender: Side, receiver: Side) -> Iterator[tuple[float, int, int]]:
    """(seconds by both clocks, arrival, sent) of every message that arrived."""
    for id_, arrivals in receiver.arrived.items():
        for said in arrivals[:1]:
            if (sent := sender.sent.get(id_)) is not None:
                yield said.at - sent[0].at, said.index, sent[0].index


def _direction(sender: Side, receiver: Side) -> Direction:
    states = Counter[str]()
    for id_ in sender.sent:
        kinds = {said.kind for said in sender.ends.get(id_, ())}
        state = "receipted" if "receipt" in kinds else "undelivered" if kinds else ""
        states[state or ("pending" if id_ in receiver.arrived else "unanswered")] += 1
    ours = [said for ends in sender.ends.values() for said in ends]
    theirs = [said for all_ in receiver.arrived.values() for said in all_]
    later = sum(_named(said, receiver) == "later" for said in ours) + sum(
        _named(said, sender) == "later" for said in theirs
    )
    took = sorted(seconds for seconds, _, _ in _took(sender, receiver))
    return Direction(
        sender=sender.member, recipient=receiver.member, sent=len(sender.sent), receipted=states["receipted"],
        undelivered=states["undelivered"], pending=states["pending"], unanswered=states["unanswered"], later=later,
        took_s=(took[0], took[len(took) // 2], took[-1]) if took else None,
    )  # fmt: skip
