"""Signs the checkpoints of one ledger with its Ed25519 (0x01) and ML-DSA-44 (0x06) keys (C2SP signed-note)."""

from datetime import datetime

from keys.suite import Ed25519Signer, MlDsaSigner
from protocols.ledger.checkpoint import checkpoint_text
from protocols.ledger.note import ED25519, MLDSA44, VerifierKey, format_note, subtree_message

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
