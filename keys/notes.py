"""Signs checkpoints: of one's own ledger with Ed25519 (0x01) and ML-DSA-44 (0x06), of others' as a witness (0x04, 0x06)."""

from datetime import datetime

from keys.suite import Ed25519Signer, MlDsaSigner
from protocols.ledger.checkpoint import checkpoint_text
from protocols.ledger.note import (
    COSIGNATURE,
    ED25519,
    MLDSA44,
    VerifierKey,
    cosignature_message,
    format_note,
    format_signature,
    subtree_message,
)

ORIGIN_BYTES_MAX = 255  # C2SP: names in a 0x06 message carry a length of one byte


class LedgerNoteSigner:
    """The port NoteSigner: both keys carry the origin as their name."""

    def __init__(self, origin: str, ed25519_seed: bytes, mldsa44_seed: bytes) -> None:
        if not 0 < len(origin.encode()) <= ORIGIN_BYTES_MAX:
            raise ValueError(f"an origin has 1 to {ORIGIN_BYTES_MAX} bytes")
        self._origin = origin
        self._ed25519 = Ed25519Signer(ed25519_seed)
        self._mldsa44 = MlDsaSigner("ML-DSA-44", mldsa44_seed)
        self._first = VerifierKey(name=origin, type=ED25519, public=self._ed25519.public.public)
        self._second = VerifierKey(name=origin, type=MLDSA44, public=self._mldsa44.public.public)

    @property
    def vkeys(self) -> tuple[str, str]:
        """Verifier keys, Ed25519 first."""
        return str(self._first), str(self._second)

    def sign(self, size: int, root: bytes, at: datetime) -> bytes:
        """The signed note of this size and root; the 0x06 line states `at` in whole seconds."""
        text = checkpoint_text(self._origin, size, root)
        time_s = int(at.timestamp())
        subtree = subtree_message(name=self._origin, origin=self._origin, time_s=time_s, size=size, root=root)
        stamped = time_s.to_bytes(8, "big") + self._mldsa44.sign(subtree)
        return format_note(text, [(self._first, self._ed25519.sign(text.encode())), (self._second, stamped)])


class LedgerCosigner:
    """The port Cosigner: both keys carry the member's name, and sign nothing but cosignatures (C2SP tlog-cosignature)."""

    def __init__(self, name: str, ed25519_seed: bytes, mldsa44_seed: bytes) -> None:
        self._ed25519, self._mldsa44 = Ed25519Signer(ed25519_seed), MlDsaSigner("ML-DSA-44", mldsa44_seed)
        self._first = VerifierKey(name=name, type=COSIGNATURE, public=self._ed25519.public.public)
        self._second = VerifierKey(name=name, type=MLDSA44, public=self._mldsa44.public.public)

    @property
    def vkeys(self) -> tuple[str, str]:
        """Verifier keys, Ed25519 first."""
        return str(self._first), str(self._second)

    def cosign(self, origin: str, size: int, root: bytes, at: datetime) -> bytes:
        """The two signature lines for a checkpoint that was found consistent with all before it."""
        time_s = int(at.timestamp())
        stamp, name = time_s.to_bytes(8, "big"), self._second.name
        text = checkpoint_text(origin, size, root)
        subtree = subtree_message(name=name, origin=origin, time_s=time_s, size=size, root=root)
        first = stamp + self._ed25519.sign(cosignature_message(time_s, text))
        return (
            format_signature(self._first, first) + format_signature(self._second, stamp + self._mldsa44.sign(subtree))
        ).encode()
