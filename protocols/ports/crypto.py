"""Ports of cryptography and custody: what `keys/` guarantees to the rest. Keys never leave their implementations."""

from collections.abc import Container, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

Algorithm = Literal["Ed25519", "ML-DSA-44", "ML-DSA-65"]


class Verifier(Protocol):
    """Verifies signatures; total: malformed keys and signatures are False, never an error."""

    def verify(self, alg: Algorithm, public: bytes, message: bytes, signature: bytes) -> bool:
        """Whether `signature` by the raw public key holds over exactly `message` (ML-DSA context empty)."""
        ...


class Signer(Protocol):
    """Signs with one Ed25519 key of one use; `kid` is its RFC 7638 thumbprint."""

    @property
    def kid(self) -> str:
        """RFC 7638 thumbprint."""
        ...

    def sign(self, message: bytes) -> bytes:
        """64 bytes over exactly `message`."""
        ...


class NoteSigner(Protocol):
    """Signs checkpoints of one ledger with both its keys."""

    @property
    def vkeys(self) -> tuple[str, str]:
        """Verifier keys, Ed25519 first."""
        ...

    def sign(self, size: int, root: bytes, at: datetime) -> bytes:
        """The signed note's bytes with a 0x01 and a 0x06 line."""
        ...


class Cosigner(Protocol):
    """Signs others' checkpoints as a witness."""

    @property
    def vkeys(self) -> tuple[str, str]:
        """Verifier keys, Ed25519 first."""
        ...

    def cosign(self, origin: str, size: int, root: bytes, at: datetime) -> bytes:
        """The two signature lines (0x04, 0x06); the caller has found the checkpoint consistent with all it signed before."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapped:
    """A fresh content key and how it travels: `ek` in the header, `encrypted_key` beside it."""

    cek: bytes
    ek: bytes
    encrypted_key: bytes


class Cipher(Protocol):
    """Seals or opens a stream piece by piece (C2SP chunked-encryption, Cobblestone-256); memory stays small."""

    def update(self, data: bytes) -> bytes:
        """What is finished of the output; ValueError where what came is not of this key and place."""
        ...

    def finalize(self) -> bytes:
        """The rest; ValueError where the stream was cut."""
        ...


class Sealer(Protocol):
    """Seals to a public seal key (HPKE-9-KE) and encrypts content; every key and IV is fresh."""

    def wrap(self, public: bytes, info: bytes) -> Wrapped:
        """A fresh 32-byte key wrapped to the raw 1,216-byte public key; ValueError for a malformed one."""
        ...

    def random(self, length: int) -> bytes:
        """Fresh random bytes (salts, part keys, entry nonces)."""
        ...

    def stream(self, key: bytes) -> Cipher:
        """Seals an attachment under a fresh 32-byte key."""
        ...

    def encrypt(self, key: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """IV (12) || ciphertext || tag (16) of AES-256-GCM under a fresh IV."""
        ...


class Opener(Protocol):
    """Opens what was sealed to our own seal keys. Decryption and key failures are indistinguishable: None."""

    def unwrap(self, kid: str, ek: bytes, encrypted_key: bytes, info: bytes) -> bytes | None:
        """The 32-byte content key, or None; an unknown kid costs the same calls as a known one."""
        ...

    def stream(self, key: bytes) -> Cipher:
        """Opens an attachment."""
        ...

    def decrypt(self, key: bytes, sealed: bytes, aad: bytes) -> bytes | None:
        """The plaintext of IV (12) || ciphertext || tag (16), or None."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentKey:
    """A key for content at rest as it is stored: wrapped under an epoch generation."""

    generation: int
    wrapped: bytes


class Vault(Protocol):
    """Keys for content at rest: one a thread (and a part), wrapped by the open epoch generation (section 7)."""

    @property
    def generation(self) -> int:
        """The open epoch generation; a transaction that stores a ContentKey of another fails and is sealed again."""
        ...

    def new_key(self, scope: str) -> ContentKey:
        """A fresh key, bound to `scope` (thread or part id); ciphertexts of other scopes do not open."""
        ...

    def seal(self, key: ContentKey, scope: str, name: str, plaintext: bytes) -> bytes:
        """Ciphertext at rest, bound to scope and name."""
        ...

    def open(self, key: ContentKey, scope: str, name: str, sealed: bytes) -> bytes:
        """The plaintext; `content.erased` where the epoch key is destroyed or nothing opens it."""
        ...


class EpochKeys(Vault, Protocol):
    """The vault with what erasure needs; these calls read and write files, and may take seconds."""

    def rotate(self) -> int:
        """Opens the next generation; its number."""
        ...

    def rewrap(self, key: ContentKey, scope: str) -> ContentKey:
        """The same key under the open generation; `content.erased` where it no longer opens."""
        ...

    def keep(self, generation: int, kept: Iterable[tuple[ContentKey, ContentKey]]) -> None:
        """Notes where keys of a generation went, (former, rewrapped), so that older backups of the database open; durable."""
        ...

    def destroy(self, generation: int, *, erased: Iterable[ContentKey]) -> None:
        """Destroys an epoch key, and what was kept of `erased`; again after a crash, it finishes."""
        ...

    def holds(self, generation: int) -> bool:
        """Whether the key of a generation is there."""
        ...

    def forget(self, before: datetime, *, but: Container[int]) -> None:
        """Drops what opens backups from before a time, but of these generations."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardMark:
    """What the fork guard remembers of one ledger (docs/protocol.md section 6)."""

    origin: str
    size: int
    root: bytes
    system_identifier: str
    timeline: int


class Guard(Protocol):
    """The fork guard beside the keys: fsynced, atomically replaced, under flock, never lowered."""

    def read(self, origin: str) -> GuardMark | None:
        """The newest durable mark, or None where there never was one."""
        ...

    def raise_to(self, mark: GuardMark) -> None:
        """Durable when it returns. A smaller size than the mark on disk is left as it stands; OSError ends the process.

        `ledger.rollback`: the same size with another root, a larger one under another system identifier or timeline, a
        damaged or removed file. The same size and root under another identity is written (`ledger recover`).
        """
        ...
