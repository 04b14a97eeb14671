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
from protocols.ledger.proof import Place

ORIGIN_BYTES_MAX = 255  # C2SP: names in a 0x06 message carry a length of one byte


class _Pair:
    """An Ed25519 key of a C2SP type and an ML-DSA-44 key, under one name."""

    def __init__(self, name: str, type_: int, ed25519_seed: bytes, mldsa44_seed: bytes) -> None:
        self._name, self._ed25519 = name, Ed25519Signer(ed25519_seed)
        self._mldsa44 = MlDsaSigner("ML-DSA-44", mldsa44_seed)
        self._first = VerifierKey(name=name, type=type_, public=self._ed25519.public.public)
        self._second = VerifierKey(name=name, type=MLDSA44, public=self._mldsa44.public.public)

    @property
    def vkeys(self) -> tuple[str, str]:
        """Verifier keys, Ed25519 first."""
        return str(self._first), str(self._second)

    def _subtree(self, origin: str, size: int, root: bytes, time_s: int) -> bytes:
        """The bytes of the 0x06 line: the time in whole seconds, and the signature."""
        subtree = subtree_message(name=self._name, origin=origin, time_s=time_s, size=size, root=root)
        return time_s.to_bytes(8, "big") + self._mldsa44.sign(subtree)


class LedgerNoteSigner(_Pair):
    """The port NoteSigner: both keys carry the origin as their name."""

    def __init__(self, origin: str, ed25519_seed: bytes, mldsa44_seed: bytes) -> None:
        if not 0 < len(origin.encode()) <= ORIGIN_BYTES_MAX:
            raise ValueError(f"an origin has 1 to {ORIGIN_BYTES_MAX} bytes")
        super().__init__(origin, ED25519, ed25519_seed, mldsa44_seed)

    def sign(self, size: int, root: bytes, at: datetime) -> bytes:
        """The signed note of this size and root; the 0x06 line states `at` in whole seconds."""
        text = checkpoint_text(self._name, size, root)
        second = self._subtree(self._name, size, root, int(at.timestamp()))
        return format_note(text, [(self._first, self._ed25519.sign(text.encode())), (self._second, second)])

    def receipt(self, place: Place, root: bytes) -> bytes:
        """A COSE receipt (RFC 9942) of an entry whose path leads to this root, which a checkpoint of ours has signed before."""
        from keys.cose import inclusion_receipt  # its library is loaded late

        return inclusion_receipt(
            self._ed25519, kid=self._first.key_id, origin=place.origin, size=place.size, index=place.index,
            path=place.path, root=root,
        )  # fmt: skip


class LedgerCosigner(_Pair):
    """The port Cosigner: both keys carry the member's name, and sign nothing but cosignatures (C2SP tlog-cosignature)."""

    def __init__(self, name: str, ed25519_seed: bytes, mldsa44_seed: bytes) -> None:
        super().__init__(name, COSIGNATURE, ed25519_seed, mldsa44_seed)

    def cosign(self, origin: str, size: int, root: bytes, at: datetime) -> bytes:
        """The two signature lines for a checkpoint that was found consistent with all before it."""
        time_s = int(at.timestamp())
        signed = cosignature_message(time_s, checkpoint_text(origin, size, root))
        first = time_s.to_bytes(8, "big") + self._ed25519.sign(signed)
        second = self._subtree(origin, size, root, time_s)
        return (format_signature(self._first, first) + format_signature(self._second, second)).encode()
