"""The light suite: every port of cryptography as keyed hashes, for simulations alone.

A public key is the whole secret, so that nothing here protects anything; it is what tw1 does in every length and in what it
refuses, some hundred times cheaper, and repeatable from a seed. It stands among the tests: no wheel has it, no node can be
told to use it, and tw1 refuses what it makes (test_simulation.py).
"""

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256, shake_256
from random import Random

from protocols.jwk import PublicKey
from protocols.ledger.checkpoint import checkpoint_text
from protocols.ledger.note import ED25519, MLDSA44, VerifierKey, format_note, subtree_message
from protocols.ports.crypto import Algorithm, Cipher, ContentKey, GuardMark, Wrapped
from protocols.problems import ProblemError

_PUBLIC_BYTES = {"Ed25519": 32, "ML-DSA-44": 1_312}
_SIGNATURE_BYTES = {"Ed25519": 64, "ML-DSA-44": 2_420}
_EK_BYTES, _KEY_BYTES, _IV_BYTES, _TAG_BYTES = 1_120, 32, 12, 16


def _hash(length: int, *pieces: bytes) -> bytes:
    return shake_256(b"".join(len(piece).to_bytes(4, "big") + piece for piece in pieces)).digest(length)


def _mask(data: bytes, *key: bytes) -> bytes:
    stream = int.from_bytes(_hash(len(data), *key), "big")
    return (int.from_bytes(data, "big") ^ stream).to_bytes(len(data), "big")


def _sign(alg: Algorithm, public: bytes, message: bytes) -> bytes:
    return _hash(_SIGNATURE_BYTES[alg], alg.encode(), public, message)


def _close(key: bytes, iv: bytes, plaintext: bytes, aad: bytes) -> bytes:
    hidden = _mask(plaintext, key, iv)
    return iv + hidden + _hash(_TAG_BYTES, key, iv, aad, hidden)


def _open(key: bytes, sealed: bytes, aad: bytes) -> bytes | None:
    iv, hidden, tag = sealed[:_IV_BYTES], sealed[_IV_BYTES:-_TAG_BYTES], sealed[-_TAG_BYTES:]
    return _mask(hidden, key, iv) if tag == _hash(_TAG_BYTES, key, iv, aad, hidden) else None


class LightVerifier:
    """The port Verifier."""

    def verify(self, alg: Algorithm, public: bytes, message: bytes, signature: bytes) -> bool:
        """Whether the keyed hash is this one."""
        return alg in _SIGNATURE_BYTES and signature == _sign(alg, public, message)


class LightSigner:
    """The port Signer."""

    def __init__(self, seed: bytes) -> None:
        self.public = PublicKey("Ed25519", _hash(_PUBLIC_BYTES["Ed25519"], seed))

    @property
    def kid(self) -> str:
        """RFC 7638 thumbprint."""
        return self.public.kid

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return _sign("Ed25519", self.public.public, message)


class LightNoteSigner:
    """The port NoteSigner."""

    def __init__(self, origin: str, seed: bytes) -> None:
        self._origin = origin
        self._keys = (
            VerifierKey(name=origin, type=ED25519, public=_hash(_PUBLIC_BYTES["Ed25519"], seed)),
            VerifierKey(name=origin, type=MLDSA44, public=_hash(_PUBLIC_BYTES["ML-DSA-44"], seed)),
        )

    @property
    def vkeys(self) -> tuple[str, str]:
        """Verifier keys, Ed25519 first."""
        return str(self._keys[0]), str(self._keys[1])

    def sign(self, size: int, root: bytes, at: datetime) -> bytes:
        """The signed note."""
        text, time_s = checkpoint_text(self._origin, size, root), int(at.timestamp())
        subtree = subtree_message(name=self._origin, origin=self._origin, time_s=time_s, size=size, root=root)
        first = _sign("Ed25519", self._keys[0].public, text.encode())
        second = time_s.to_bytes(8, "big") + _sign("ML-DSA-44", self._keys[1].public, subtree)
        return format_note(text, [(self._keys[0], first), (self._keys[1], second)])


class LightSealer:
    """The port Sealer; what is fresh comes from the seed."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def random(self, length: int) -> bytes:
        """The seed's next bytes."""
        return self._random.randbytes(length)

    def wrap(self, public: bytes, info: bytes) -> Wrapped:
        """A fresh key, masked by the public one."""
        cek, ek = self.random(_KEY_BYTES), self.random(_EK_BYTES)
        return Wrapped(cek=cek, ek=ek, encrypted_key=_close(public, ek[:_IV_BYTES], cek, ek + info)[_IV_BYTES:])

    def encrypt(self, key: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """IV || ciphertext || tag."""
        return _close(key, self.random(_IV_BYTES), plaintext, aad)

    def stream(self, key: bytes) -> Cipher:
        """No simulation has attachments."""
        raise NotImplementedError


class LightOpener:
    """The port Opener over seal keys by kid."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = keys

    def unwrap(self, kid: str, ek: bytes, encrypted_key: bytes, info: bytes) -> bytes | None:
        """The content key, or None."""
        return _open(self._keys.get(kid, b""), ek[:_IV_BYTES] + encrypted_key, ek + info)

    def decrypt(self, key: bytes, sealed: bytes, aad: bytes) -> bytes | None:
        """The plaintext, or None."""
        return _open(key, sealed, aad)

    def stream(self, key: bytes) -> Cipher:
        """No simulation has attachments."""
        raise NotImplementedError


class LightVault:
    """The port Vault with one epoch; its content keys are stored as they are."""

    generation = 1

    def __init__(self, random: Random) -> None:
        self._random = random

    def new_key(self, scope: str) -> ContentKey:
        """A fresh key; it is bound to its scope where it is used."""
        return ContentKey(generation=1, wrapped=self._random.randbytes(_KEY_BYTES))

    def seal(self, key: ContentKey, scope: str, name: str, plaintext: bytes) -> bytes:
        """Ciphertext bound to scope and name."""
        return _close(key.wrapped, self._random.randbytes(_IV_BYTES), plaintext, f"{scope}\n{name}".encode())

    def open(self, key: ContentKey, scope: str, name: str, sealed: bytes) -> bytes:
        """The plaintext; `content.erased` else."""
        plain = _open(key.wrapped, sealed, f"{scope}\n{name}".encode())
        if plain is None:
            raise ProblemError("content.erased", "nothing opens it")
        return plain


class LightKeys:
    """A member's keys, as `keys.keystore.KeyStore` hands them out."""

    def __init__(self, member: str, random: Random) -> None:
        self._seed, self._random = sha256(member.encode()).digest(), random
        secret = _hash(_KEY_BYTES, self._seed, b"seal")
        # coefficients of 0 and a point of no small order: a valid HPKE-9-KE public key to whoever checks its form
        self.seal = PublicKey("HPKE-9-KE", bytes(1_152) + secret + sha256(secret).digest()[:31] + b"\1")

    def current_signer(self, use: str) -> LightSigner:
        """The key of a use."""
        return LightSigner(self._seed + use.encode())

    def note_signer(self, origin: str) -> LightNoteSigner:
        """The keys of a ledger."""
        return LightNoteSigner(origin, self._seed + origin.encode())

    def sealer(self) -> LightSealer:
        """Seals to others."""
        return LightSealer(self._random)

    def opener(self) -> LightOpener:
        """Opens what was sealed to us."""
        return LightOpener({self.seal.kid: self.seal.public})


class MemoryGuard:
    """The port Guard: as durable as what holds it."""

    def __init__(self) -> None:
        self._marks: dict[str, GuardMark] = {}

    def read(self, origin: str) -> GuardMark | None:
        """The mark, or None."""
        return self._marks.get(origin)

    def raise_to(self, mark: GuardMark) -> None:
        """Never lower; `ledger.rollback` for the same size with another root."""
        old = self._marks.get(mark.origin)
        if old is None or mark.size > old.size:
            self._marks[mark.origin] = mark
        elif mark.size == old.size and mark.root != old.root:
            raise ProblemError("ledger.rollback", "the guard remembers another history")
