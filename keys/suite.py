"""Suite tw1 on pyca/cryptography: verify, sign, seal (HPKE-9-KE) and open (docs/protocol.md section 2)."""

import secrets
from collections.abc import Mapping
from functools import lru_cache
from hashlib import shake_256
from typing import Literal

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA44PrivateKey,
    MLDSA44PublicKey,
    MLDSA65PrivateKey,
    MLDSA65PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocols.jwk import PublicKey
from protocols.ports.crypto import Algorithm, Cipher, Wrapped

SEED_BYTES = 32
CEK_BYTES = 32
IV_BYTES = 12
TAG_BYTES = 16
_MLKEM_BYTES = 1184
_SEAL_BYTES = _MLKEM_BYTES + 32
_EK_BYTES = 1088 + 32
_ATTACHMENT = b"tracewire attachment 1"  # the context of the stream: what is sealed for one use opens for no other
_LOADED_KEYS_MAX = 1024  # public key objects kept; an ML-DSA-65 key is some kilobytes

SealPrivate = hpke.MLKEM768X25519PrivateKey
_HPKE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.SHAKE256, hpke.AEAD.AES_256_GCM)

# Ed25519 points of order 1, 2, 4 and 8 (y without the sign bit). OpenSSL takes them, and under such a key one signature
# holds over many messages: its owner could later deny or swap what was signed.
_P = 2**255 - 19
_SMALL_ORDER_Y = frozenset({
    0, 1, _P - 1,
    int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"),
    int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
})  # fmt: skip


@lru_cache(_LOADED_KEYS_MAX)
def _load_public(alg: Algorithm, public: bytes) -> Ed25519PublicKey | MLDSA44PublicKey | MLDSA65PublicKey:
    if alg == "ML-DSA-44":
        return MLDSA44PublicKey.from_public_bytes(public)
    if alg == "ML-DSA-65":
        return MLDSA65PublicKey.from_public_bytes(public)
    if alg != "Ed25519":
        raise ValueError("not an algorithm of the suite")
    y = int.from_bytes(public, "little") & (2**255 - 1)
    if y >= _P or y in _SMALL_ORDER_Y:
        raise ValueError("not a canonical point of the large group")
    return Ed25519PublicKey.from_public_bytes(public)


@lru_cache(_LOADED_KEYS_MAX)
def _load_seal_public(public: bytes) -> hpke.MLKEM768X25519PublicKey:
    if len(public) != _SEAL_BYTES:
        raise ValueError(f"a seal key has {_SEAL_BYTES} bytes")
    return hpke.MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_BYTES]),
        X25519PublicKey.from_public_bytes(public[_MLKEM_BYTES:]),
    )


class Tw1Verifier:
    """The port Verifier."""

    def verify(self, alg: Algorithm, public: bytes, message: bytes, signature: bytes) -> bool:
        """Whether the signature holds; malformed keys and signatures are False."""
        try:
            _load_public(alg, public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


class Ed25519Signer:
    """The port Signer over one 32-byte seed."""

    def __init__(self, seed: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = PublicKey("Ed25519", self._private.public_key().public_bytes_raw())

    @property
    def kid(self) -> str:
        """RFC 7638 thumbprint."""
        return self.public.kid

    def sign(self, message: bytes) -> bytes:
        """64 bytes over exactly `message`."""
        return self._private.sign(message)


class MlDsaSigner:
    """Signs with one ML-DSA key of a 32-byte seed, context empty (RFC 9964)."""

    def __init__(self, alg: Literal["ML-DSA-44", "ML-DSA-65"], seed: bytes) -> None:
        kind = MLDSA44PrivateKey if alg == "ML-DSA-44" else MLDSA65PrivateKey
        self._private = kind.from_seed_bytes(seed)
        self.public = PublicKey(alg, self._private.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """2,420 (ML-DSA-44) or 3,309 bytes over exactly `message`."""
        return self._private.sign(message)


def seal_private(seed: bytes) -> tuple[SealPrivate, bytes]:
    """The private key of a 32-byte JWK "priv" (X-Wing: SHAKE256 to 96 bytes) and its raw public key."""
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a seed has {SEED_BYTES} bytes")
    expanded = shake_256(seed).digest(96)
    mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
    x25519 = X25519PrivateKey.from_private_bytes(expanded[64:])
    public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
    return SealPrivate(mlkem, x25519), public


def encrypt(key: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """IV || ciphertext || tag of AES-256-GCM under a fresh random IV."""
    if len(key) != CEK_BYTES:
        raise ValueError(f"a key has {CEK_BYTES} bytes")
    iv = secrets.token_bytes(IV_BYTES)
    return iv + AESGCM(key).encrypt(iv, plaintext, aad)


def decrypt(key: bytes, sealed: bytes, aad: bytes) -> bytes | None:
    """The plaintext of IV || ciphertext || tag, or None."""
    if len(key) != CEK_BYTES or len(sealed) < IV_BYTES + TAG_BYTES:
        return None
    try:
        return AESGCM(key).decrypt(sealed[:IV_BYTES], sealed[IV_BYTES:], aad)
    except InvalidTag:
        return None


class Tw1Sealer:
    """The port Sealer."""

    def wrap(self, public: bytes, info: bytes) -> Wrapped:
        """A fresh content key sealed to a raw public key; ValueError for a malformed one (small X25519 points too)."""
        cek = secrets.token_bytes(CEK_BYTES)
        blob = _HPKE.encrypt(cek, _load_seal_public(public), info=info)
        return Wrapped(cek=cek, ek=blob[:_EK_BYTES], encrypted_key=blob[_EK_BYTES:])

    def stream(self, key: bytes) -> Cipher:
        """Seals an attachment."""
        return Cobblestone256Encryptor(key, _ATTACHMENT)

    def random(self, length: int) -> bytes:
        """Fresh random bytes."""
        return secrets.token_bytes(length)

    def encrypt(self, key: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """IV || ciphertext || tag under a fresh IV."""
        return encrypt(key, plaintext, aad)


class Tw1Opener:
    """The port Opener over our own seal keys by kid."""

    def __init__(self, seal_keys: Mapping[str, SealPrivate]) -> None:
        self._keys = dict(seal_keys)
        self._seeds: dict[str, bytes] = {}
        # An unknown kid is opened with a key that nobody can seal to: same calls, same failure, same time.
        self._nobody, _ = seal_private(secrets.token_bytes(SEED_BYTES))

    def hold(self, seeds: Mapping[str, bytes]) -> None:
        """Opens with exactly these keys from now on."""
        if seeds != self._seeds:
            self._seeds = dict(seeds)
            self._keys = {kid: seal_private(seed)[0] for kid, seed in seeds.items()}

    def unwrap(self, kid: str, ek: bytes, encrypted_key: bytes, info: bytes) -> bytes | None:
        """The content key, or None. Wrong lengths are told apart early: their sender knows them anyway."""
        if len(ek) != _EK_BYTES or len(encrypted_key) != CEK_BYTES + TAG_BYTES:
            return None
        try:
            return _HPKE.decrypt(ek + encrypted_key, self._keys.get(kid, self._nobody), info=info)
        except (InvalidTag, ValueError):
            return None

    def stream(self, key: bytes) -> Cipher:
        """Opens an attachment; the library's errors as ValueError."""
        return _Opening(Cobblestone256Decryptor(key, _ATTACHMENT))

    def decrypt(self, key: bytes, sealed: bytes, aad: bytes) -> bytes | None:
        """The plaintext, or None."""
        return decrypt(key, sealed, aad)


class _Opening:
    """A decryptor whose failures are ValueError."""

    def __init__(self, decryptor: Cobblestone256Decryptor) -> None:
        self._decryptor = decryptor

    def update(self, data: bytes) -> bytes:
        try:
            return self._decryptor.update(data)
        except InvalidTag:
            raise ValueError("not sealed under this key, or changed") from None

    def finalize(self) -> bytes:
        try:
            return self._decryptor.finalize()
        except InvalidTag:
            raise ValueError("cut") from None
