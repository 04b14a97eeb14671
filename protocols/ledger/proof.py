"""Proof that an entry stands in a ledger: entry bytes, index, inclusion path, signed checkpoint; C2SP tlog-proof files."""

import base64
import re
from dataclasses import dataclass

from protocols.ledger.checkpoint import Checkpoint, LedgerKeys, parse_checkpoint, verify_checkpoint
from protocols.ledger.merkle import HASH_BYTES, leaf_hash, verify_inclusion
from protocols.ledger.note import unb64
from protocols.limits import ENTRY_BYTES_MAX, NOTE_BYTES_MAX, PATH_HASHES_MAX
from protocols.ports.crypto import Verifier
from protocols.problems import ProblemError

_HEADER = "c2sp.org/tlog-proof@v1"
_BYTES_MAX = NOTE_BYTES_MAX + 8 * ENTRY_BYTES_MAX
_INDEX = re.compile(r"index (0|[1-9]\d{0,18})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an entry stands: under which tree size of which ledger, at which index, by which path (leaf to root)."""

    origin: str
    size: int
    index: int
    path: tuple[bytes, ...]
    entry: bytes

    def check(self, checkpoint: Checkpoint) -> None:
        """`proof.path` unless the path leads from the entry to this checkpoint's root."""
        if (self.origin, self.size) != (checkpoint.origin, checkpoint.size) or not verify_inclusion(
            leaf=leaf_hash(self.entry), index=self.index, size=self.size, path=self.path, root=checkpoint.root
        ):
            raise ProblemError("proof.path", "the entry is not proven under its checkpoint")


def format_proof(place: Place, note: bytes) -> bytes:
    """A tlog-proof file; the `extra` line carries the entry, which the path authenticates."""
    lines = [_HEADER, f"extra {base64.b64encode(place.entry).decode()}", f"index {place.index}"]
    lines += [base64.b64encode(value).decode() for value in place.path]
    return "\n".join(lines).encode() + b"\n\n" + note


def parse_proof(data: bytes, keys: LedgerKeys, verifier: Verifier) -> Place:
    """The verified place of a tlog-proof file that carries its entry; ProblemError `proof.*` or `note.invalid` else."""
    place, note = read_proof(data)
    place.check(verify_checkpoint(note, keys, verifier))
    return place


def read_proof(data: bytes) -> tuple[Place, bytes]:
    """The place and the checkpoint note of a tlog-proof file; nobody has verified path or signatures yet."""
    if len(data) > _BYTES_MAX:
        raise ProblemError("proof.path", f"more than {_BYTES_MAX} bytes")
    head, _, note = data.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise ProblemError("proof.path", "not a tlog-proof") from None
    index = _INDEX.fullmatch(lines[2]) if len(lines) >= 3 else None
    if lines[0] != _HEADER or index is None or not lines[1].startswith("extra ") or len(lines) > 3 + PATH_HASHES_MAX:
        raise ProblemError("proof.path", "not a tlog-proof that carries its entry")
    path = tuple(unb64(line) for line in lines[3:])
    if any(len(value) != HASH_BYTES for value in path):
        raise ProblemError("proof.path", "not a hash")
    entry = unb64(lines[1].removeprefix("extra "))
    if len(entry) > ENTRY_BYTES_MAX:
        raise ProblemError("proof.path", "the entry is too long")
    found = parse_checkpoint(note)
    return Place(origin=found.origin, size=found.size, index=int(index[1]), path=path, entry=entry), note
