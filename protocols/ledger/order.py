"""What an entry must be at its place in a ledger (docs/protocol.md section 3): whose it is, and what may follow what."""

from protocols.ledger.entry import RECEIPT_KINDS, Entry
from protocols.problems import ProblemError

_OURS = ("sent", "receipt", "undelivered", "ledger-opened", "ledger-closed")  # `from` is the ledger's member


class Order:
    """Judges the entries of one ledger in their order, from the first on; `size` is how many there are."""

    def __init__(self, origin: str, size: int) -> None:
        self._origin, self._member, self._size = origin, origin.rpartition("/")[0], size
        self._next: dict[str, int] = {}

    def check(self, index: int, entry: Entry) -> None:
        """`entry.order` for an entry that may not stand here, is not this member's, or has not the next number of its pair."""
        kind = entry.kind
        if (kind == "ledger-opened") != (index == 0) or (kind == "ledger-closed" and index != self._size - 1):
            raise _wrong(index, f"{kind} may not stand here")
        if kind in RECEIPT_KINDS and entry.recipient != self._member:
            raise _wrong(index, "to is not the ledger's member")
        if kind in _OURS and entry.sender != self._member:
            raise _wrong(index, "from is not the ledger's member")
        earlier = entry.first or entry.peer
        again = earlier is not None and earlier.origin == self._origin
        if earlier is not None and again and (earlier.index is None or earlier.index >= index):
            raise _wrong(index, "names no earlier entry of this ledger")
        if kind == "sent" and entry.recipient and entry.pair_seq:
            expected = self._next.setdefault(entry.recipient, 1)
            # sealed again for another key, a message keeps its number
            if entry.pair_seq >= expected if again else entry.pair_seq != expected:
                raise _wrong(index, f"pair_seq {entry.pair_seq} where {expected} is next")
            self._next[entry.recipient] += not again


def _wrong(index: int, why: str) -> ProblemError:
    return ProblemError("entry.order", f"entry {index}: {why}")
