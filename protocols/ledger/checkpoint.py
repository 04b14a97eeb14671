"""C2SP tlog-checkpoint, signed by both keys of a ledger: Ed25519 (0x01) and ML-DSA-44 (0x06)."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass

from protocols.ledger.merkle import HASH_BYTES
from protocols.ledger.note import ED25519, Note, VerifierKey, parse_note, parse_pair, unb64
from protocols.ports.crypto import Verifier
from protocols.problems import ProblemError

_SIZE = re.compile(r"0|[1-9]\d{0,18}", re.ASCII)
SIZE_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerKeys:
    """The two verifier keys of one ledger; both names are its origin."""

    origin: str
    ed25519: VerifierKey
    mldsa44: VerifierKey

    @classmethod
    def parse(cls, origin: str, vkeys: tuple[str, str]) -> "LedgerKeys":
        """Keys from vkey texts, Ed25519 first; `dir.key_invalid` where they do not fit the origin."""
        first, second = parse_pair(origin, vkeys, ED25519)
        return cls(origin=origin, ed25519=first, mldsa44=second)

    @classmethod
    def among(cls, origin: str, vkeys: Sequence[str]) -> "LedgerKeys":
        """The two of this ledger, Ed25519 first, among vkey texts; `config.invalid` where there are not two."""
        texts = [key for key in vkeys if VerifierKey.parse(key).name == origin]
        if len(texts) != 2:
            raise ProblemError("config.invalid", f"two verifier keys of {origin} are needed, Ed25519 and ML-DSA-44")
        return cls.parse(origin, (texts[0], texts[1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A tree's size and root under an origin; `note` is the exact signed bytes."""

    origin: str
    size: int
    root: bytes
    note: bytes


def checkpoint_text(origin: str, size: int, root: bytes) -> str:
    """The note text of a checkpoint: no extension lines, since 0x06 does not cover them."""
    return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"


def parse_checkpoint(note: bytes) -> Checkpoint:
    """The checkpoint of a note whose signatures nobody has verified yet; `note.invalid` else."""
    return read_checkpoint(note)[0]


def read_checkpoint(note: bytes) -> tuple[Checkpoint, Note]:
    """As `parse_checkpoint`, with the note's text and signature lines."""
    parsed = parse_note(note)
    return _checkpoint_of(parsed, note), parsed


def signature_by(key: VerifierKey, checkpoint: Checkpoint, parsed: Note, verifier: Verifier) -> bytes | None:
    """The bytes of a key's signature line under a checkpoint; None where there is none, or it does not hold."""
    lines = {(name, key_id): data for name, key_id, data in parsed.signatures}
    data = lines.get((key.name, key.key_id))
    holds = data is not None and key.verify(
        parsed.text, data, checkpoint.size, checkpoint.root, verifier, origin=checkpoint.origin
    )
    return data if holds else None


def _checkpoint_of(parsed: Note, note: bytes) -> Checkpoint:
    lines = parsed.text.split("\n")
    if len(lines) != 4 or not lines[0] or not _SIZE.fullmatch(lines[1]) or int(lines[1]) > SIZE_MAX:
        raise ProblemError("note.invalid", "not a checkpoint without extension lines")
    root = unb64(lines[2])
    if len(root) != HASH_BYTES:
        raise ProblemError("note.invalid", "root is not a hash")
    return Checkpoint(origin=lines[0], size=int(lines[1]), root=root, note=note)


def verify_checkpoint(note: bytes, keys: LedgerKeys, verifier: Verifier) -> Checkpoint:
    """The checkpoint when both signatures hold; `proof.policy`, `proof.origin` or `note.invalid` else.

    Lines of unknown keys are ignored (C2SP).
    """
    checkpoint, parsed = read_checkpoint(note)
    if checkpoint.origin != keys.origin:
        raise ProblemError("proof.origin", "checkpoint of another ledger")
    for key in (keys.ed25519, keys.mldsa44):
        if signature_by(key, checkpoint, parsed, verifier) is None:
            raise ProblemError("proof.policy", "both signatures are required")
    return checkpoint
