"""Two Tracewire ledgers against each other, offline: each has to say what the other says.

    python tracewire_match.py DIR_A DIR_B [--live | --after] [--vkey KEY ...] [--json]

With `--after` both are one member's: A has to go on where B ended. Of all that does not fit the first hundred are named. Both ledgers are verified whole first (tracewire_verify.py, which lies beside this file). Exit codes and output are as there.
Long ones are verified and compared several times, each time for the messages of some ids: memory holds these, and 32 bytes an entry.
"""

import argparse
import base64
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from tracewire_verify import ARRIVALS, OURS, Entry, Failure, Log, _read, _Tree, shown, told, verify_log

_AT_ONCE, _NAMED_MAX = 100_000, 100  # entries in memory, some 250 MB; contradictions that are named
_SKEW_MAX, _LIFE_MAX = timedelta(minutes=2), timedelta(days=90)


@dataclass(frozen=True, kw_only=True)
class Direction:
    """What became of one member's messages to the other; the five states add up to `sent`."""

    sent: int
    matched: int = 0  # receipt <-> received, refused or id_conflict <-> sent
    unanswered: int = 0  # in flight: neither ledger has more than `sent`
    receipt_pending: int = 0  # in flight: the receiver's entry stands, the sender has no receipt yet
    undelivered: int = 0
    elsewhere: int = 0  # the receipt names another ledger of the receiver, or (live) an entry past the folder's end
    outside: int  # the receiver's entries that so name another ledger of the sender, or (live) past its end


@dataclass(frozen=True, kw_only=True)
class Match:
    """Two ledgers that agree: messages of a to b and back; `other_peers`: entries about members outside the two."""

    a: Log
    b: Log
    there: Direction
    back: Direction
    other_peers: int


@dataclass(frozen=True, kw_only=True)
class Following:
    """A ledger whose first entry names the end of its member's ledger before it; `end`: the size of that one there."""

    log: Log
    former: Log
    end: int


class _Faults:
    """Goes on after what does not fit, and keeps the first of it."""

    def __init__(self) -> None:
        self.found, self.count = list[Failure](), 0

    def __enter__(self) -> None:
        """Within it a Failure is kept."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if isinstance(error, Failure):
            self.count += 1
            self.found += [error][: _NAMED_MAX - len(self.found)]
        return isinstance(error, Failure)

    def end(self) -> None:
        """Failure, the lowest entry's, where anything does not fit."""
        if self.found:
            first, *rest = sorted(self.found, key=lambda each: each.index or 0)
            first.also = [*map(str, rest), *[f"and {self.count - _NAMED_MAX} more"][: self.count > _NAMED_MAX]]
            raise first


class _Side:
    """A verified ledger: what it says about the exchange with one other member, of one part of `parts`; and all its leaf hashes."""

    def __init__(self, folder: Path, vkeys: Sequence[str] | None, other: Path, part: int, parts: int) -> None:
        self._part, self._parts = part, parts
        self._other = _read(other / "checkpoint").partition(b"\n")[0].decode(errors="replace").rpartition("/")[0]
        self.leaves, self.facts, self.others, self.last = bytearray(), dict[int, Entry](), 0, ""
        try:
            self.log = verify_log(folder, vkeys, seen=self._see)
        except Failure as failure:
            raise Failure(failure.code, f"{folder.name}: {failure.detail}", failure.index) from None

    def _see(self, index: int, leaf: bytes, entry: Entry) -> None:
        self.leaves += leaf
        self.last = entry["at"]
        if entry["kind"] in ARRIVALS + OURS[:3] and hash(entry["id"]) % self._parts == self._part:
            ours = entry["from" if entry["kind"] in ARRIVALS else "to"] == self._other
            self.facts |= {index: entry} if ours else {}
            self.others += not ours

    def leaf(self, index: int) -> bytes:
        """The leaf hash of an entry."""
        return bytes(self.leaves[32 * index : 32 * index + 32])

    def named(self, index: int, other: "_Side", kinds: Sequence[str], *, live: bool) -> Entry | None:
        """The other's entry that ours names and agrees with; None where it stands in another of its ledgers."""
        entry, origin = self.facts[index], other.log.origin
        peer = entry["peer"]
        both = f"{self.log.origin} entry {index} and {peer['origin']} entry {peer['index']}"
        past = peer["origin"] == origin and peer["index"] >= other.log.size
        if past and not live:
            raise self.wrong(index, f"{both}: the other folder ends at {other.log.size}, old or cut", "missing")
        if past or (peer["origin"] != origin and peer["origin"].rpartition("/")[0] == self._other):
            return None
        found = other.facts.get(peer["index"], {"kind": ""})
        leaf = base64.urlsafe_b64decode(peer["leaf"] + "=")
        if peer["origin"] != origin or found["kind"] not in kinds or leaf != other.leaf(peer["index"]):
            raise self.wrong(index, f"{both}: what is named is no such entry")
        same = {"id", "from", "to", "pair_seq", "kid", "seal_kid", "suite", "envelope", "content_c", "thread_c"}
        differ = [name for name in sorted(same & entry.keys() & found.keys()) if entry[name] != found[name]]
        if entry["kind"] == "receipt" and entry.get("code") != found.get("code"):
            differ.append("code")
        if differ:
            raise self.wrong(index, f"{both}: {' '.join(differ)} differ")
        return found

    def wrong(self, index: int, detail: str, code: str = "mismatch") -> Failure:
        """What does not fit of an entry of ours."""
        return Failure(code, detail, index, self.log.origin)

    def check_roots(self, other: "_Side", faults: _Faults) -> None:
        """Every root of the other's ledger that we were shown is its root at that size: no split view."""
        tree, named = _Tree(), ((index, entry.get("peer", {})) for index, entry in self.facts.items())
        shown = [(peer["size"], index, peer) for index, peer in named if peer.get("origin") == other.log.origin]
        for size, index, peer in sorted(shown, key=lambda each: each[:2]):
            while tree.size < min(size, other.log.size):
                tree.append(other.leaf(tree.size))
            root = base64.urlsafe_b64decode(peer["root"] + "=")
            with faults:
                if peer["index"] >= size or (tree.size == size and root != tree.root()):
                    both = f"{self.log.origin} entry {index} and {other.log.origin} entry {peer['index']}"
                    raise self.wrong(index, f"{both}: proven under another tree of size {size}, a split view")


def match(
    folder_a: Path, folder_b: Path, vkeys: Sequence[str] | None = None, *, live: bool = False, at_once: int = _AT_ONCE
) -> Match:
    """Verifies both ledgers, then each message both ways; Failure `mismatch` or `missing` names both indexes, and `also` the others.

    `live` counts what lies past the end of the other folder instead: busy ledgers have no common instant to export.
    `at_once`: so many entries are in memory at a time.
    """
    parts, others, faults = sum(map(_size, (folder_a, folder_b))) // at_once + 1, 0, _Faults()
    logs, ways = list[Log](), (Counter[str](), Counter[str]())
    for part in range(parts):
        a, b = _Side(folder_a, vkeys, folder_b, part, parts), _Side(folder_b, vkeys, folder_a, part, parts)
        if a.log.origin == b.log.origin:
            raise Failure("mismatch", "two folders of one ledger")
        ways[0].update(_direction(a, b, faults, live=live))
        ways[1].update(_direction(b, a, faults, live=live))
        if logs and logs != [a.log, b.log]:
            raise Failure("mismatch", "a ledger's files changed while they were read: compare a copy")
        others, logs = others + a.others + b.others, [a.log, b.log]
        del a, b  # before the next part is read
    faults.end()
    there, back = (Direction(sent=way.pop("sent", 0), outside=way.pop("outside", 0), **way) for way in ways)
    return Match(a=logs[0], b=logs[1], other_peers=others, there=there, back=back)


def follows(folder: Path, former: Path, vkeys: Sequence[str] | None = None) -> Following:
    """Verifies a ledger and the one before it; Failure `order` where its first entry does not name that one's end.

    That is the root of the whole former ledger or, of one that was never closed, of its entries up to the last good one.
    """
    end, roots, tree = Entry(), dict[int, bytes](), _Tree()
    log = verify_log(folder, vkeys, seen=lambda index, _, entry: end.update({} if index else entry.get("peer", {})))

    def see(_: int, leaf: bytes, __: Entry) -> None:
        tree.append(leaf)
        if tree.size == end.get("size"):
            roots[tree.size] = tree.root()

    before = verify_log(former, vkeys, seen=see)
    ends = [before.size] if "ledger-closed" in before.kinds else roots
    named = [base64.urlsafe_b64encode(roots[size]).rstrip(b"=").decode() for size in ends if size in roots]
    same = end.get("origin") == before.origin and log.origin.rpartition("/")[0] == before.origin.rpartition("/")[0]
    if not same or end.get("root") not in named:
        raise Failure("order", f"entry 0 of {log.origin} does not name the end of {before.origin}", 0)
    return Following(log=log, former=before, end=end["size"])


def _size(folder: Path) -> int:
    """What the checkpoint says, which nobody has verified: it only divides the work."""
    line = [*_read(folder / "checkpoint").split(b"\n", 2), b"", b""][1]
    return int(line) if line.isdigit() and len(line) < 10 else 0


def _direction(sender: _Side, receiver: _Side, faults: _Faults, *, live: bool) -> Counter[str]:
    """The members of Direction, of this part."""
    sender.check_roots(receiver, faults)
    from_, state, sent = sender.log.origin, dict[str, str](), dict[str, list[int]]()
    arrived, received, outside = _arrivals(sender, receiver, faults, live=live)
    for index, entry in sender.facts.items():
        with faults:
            kind, id_ = entry["kind"], entry["id"]
            if kind == "sent":
                sent.setdefault(id_, []).append(index)
                state.setdefault(id_, "receipt_pending" if id_ in arrived else "unanswered")
                earlier = sender.facts[sent[id_][0]]
                if (earlier["content_c"], earlier["pair_seq"]) != (entry["content_c"], entry["pair_seq"]):
                    said = f"{from_} entries {sent[id_][0]} and {index}: one id, two contents or numbers"
                    raise sender.wrong(index, said)
            elif kind == "receipt":
                found = sender.named(index, receiver, ARRIVALS, live=live)
                if state.get(id_) in ("matched", "elsewhere"):
                    raise sender.wrong(index, f"{from_} entries {sent[id_][0]} and {index}: a second receipt")
                state |= {id_: "matched" if found else "elsewhere"} if id_ in state else {}
            elif kind == "undelivered" and id_ in state:
                state[id_] = kind
    if not sender.log.kinds.get("ledger-closed"):  # of a closed one the end may stand in the next
        late = datetime.fromisoformat(sender.last) - _LIFE_MAX
        for id_, ended in state.items():
            first, last = sent[id_][0], sent[id_][-1]
            with faults:
                if ended == "undelivered" and id_ in received:
                    both = f"{from_} entry {first} and {receiver.log.origin} entry {received[id_]}"
                    raise sender.wrong(first, f"{both}: given up by the one, received by the other")
                if (
                    ended in ("unanswered", "receipt_pending")
                    and datetime.fromisoformat(sender.facts[last]["at"]) < late
                ):
                    said = f"{from_} entry {last}: sent longer ago than a message lives, without an end"
                    raise sender.wrong(last, said)
    return Counter(state.values()) + Counter({"sent": len(state), "outside": outside})


def _arrivals(sender: _Side, receiver: _Side, faults: _Faults, *, live: bool) -> tuple[set[str], dict[str, int], int]:
    """Ids that arrived, where those received were, and how many arrivals name what is not in the sender's folder."""
    from_, to, outside = sender.log.origin, receiver.log.origin, 0
    arrived, received = set[str](), dict[str, int]()
    for index, entry in receiver.facts.items():
        with faults:
            if entry["kind"] not in ARRIVALS:
                continue
            found = receiver.named(index, sender, ("sent",), live=live)
            outside += found is None
            arrived |= {entry["id"]} if found else set()
            if entry["kind"] == "received" and received.setdefault(entry["id"], index) != index:
                raise receiver.wrong(index, f"{to} entries {received[entry['id']]} and {index}: received twice")
            if found and datetime.fromisoformat(found["at"]) - datetime.fromisoformat(entry["at"]) > _SKEW_MAX:
                both = f"{to} entry {index} and {from_} entry {entry['peer']['index']}"
                said = f"{both}: taken over two minutes before it was sent, one of the clocks is wrong"
                raise receiver.wrong(index, said)
    return arrived, received, outside


def lines(found: Match | Following) -> Iterator[str]:
    """A line for each claim."""
    if isinstance(found, Following):
        yield from (line for log in (found.former, found.log) for line in shown(log))
        what = f"{found.log.origin} names {found.former.origin} as the ledger before it, ended at {found.end} entries"
        closed = "ledger-closed" in found.former.kinds
        yield f"OK {what}" + (
            ": closed there"
            if closed
            else f" of {found.former.size}: never closed, so the directory says whether it was abandoned there"
        )
        return
    yield from (line for log in (found.a, found.b) for line in shown(log))
    for sender, receiver, way in ((found.a, found.b, found.there), (found.b, found.a, found.back)):
        counts = ", ".join(f"{count} {name}" for name, count in asdict(way).items() if count or name == "sent")
        yield f"OK {sender.origin} -> {receiver.origin}: both say the same of every message: {counts}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; its exit code."""
    parser = argparse.ArgumentParser(description="Verify two Tracewire ledgers against each other offline.")
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--live", action="store_true", help="count what is past an end: busy ledgers have no common instant"
    )
    how.add_argument("--after", action="store_true", help="both are one member's: a goes on where b ended")
    parser.add_argument("--vkey", action="append", help="a key you trust; repeat it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(arguments)
    call = follows if args.after else partial(match, live=args.live)
    return told(lambda: call(args.a, args.b, args.vkey), lines, as_json=args.json)


if __name__ == "__main__":
    sys.exit(main())
