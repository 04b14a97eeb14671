"""Public keys as JWK (RFC 8037, RFC 9964, JOSE HPKE) and their RFC 7638 thumbprints."""

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

from protocols.problems import ProblemError
from protocols.strict import b64u, dump_json, unb64u

_MLKEM_Q, _MLKEM_COEFFICIENTS = 3_329, 768
_P = 2**255 - 19
# the X25519 points of small order (RFC 7748 section 6.1): a shared secret with one of them is known to everybody
_SMALL_ORDER_U = frozenset({
    0, 1, _P - 1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
})  # fmt: skip
PUBLIC_BYTES = {"Ed25519": 32, "HPKE-9-KE": 1184 + 32, "ML-DSA-65": 1952}


@dataclass(frozen=True)
class PublicKey:
    """A raw public key of one algorithm: Ed25519 (OKP), HPKE-9-KE or ML-DSA-65 (AKP)."""

    alg: str
    public: bytes

    @cached_property
    def jwk(self) -> dict[str, str]:
        """The required members in lexicographic order, as the thumbprint hashes them."""
        if self.alg == "Ed25519":
            return {"crv": "Ed25519", "kty": "OKP", "x": b64u(self.public)}
        return {"alg": self.alg, "kty": "AKP", "pub": b64u(self.public)}

    @cached_property
    def kid(self) -> str:
        """RFC 7638 thumbprint, base64url."""
        return b64u(sha256(dump_json(self.jwk)).digest())

    @classmethod
    def parse(cls, jwk: Any) -> "PublicKey":
        """The key of a JWK with exactly the required members; `dir.key_invalid` else."""
        if isinstance(jwk, dict):
            alg = jwk.get("crv") if jwk.get("kty") == "OKP" else jwk.get("alg")
            if isinstance(alg, str) and alg in PUBLIC_BYTES:
                try:
                    key = cls(alg, unb64u(jwk.get("x" if alg == "Ed25519" else "pub"), length=PUBLIC_BYTES[alg]))
                except ProblemError:
                    raise ProblemError("dir.key_invalid", f"not the bytes of an {alg} key") from None
                if key.jwk == jwk:
                    return key
        raise ProblemError("dir.key_invalid", "not a public key of a suite in use")


def check_seal_key(public: bytes) -> None:
    """`dir.key_invalid` for an ML-KEM coefficient that is not reduced (FIPS 203 section 7.2) or a small X25519 point."""
    packed = int.from_bytes(public[:1152], "little")  # 12 bits a coefficient
    reduced = all(packed >> 12 * i & 0xFFF < _MLKEM_Q for i in range(_MLKEM_COEFFICIENTS))
    point = int.from_bytes(public[1184:], "little") & (2**255 - 1)
    if not reduced or point % _P in _SMALL_ORDER_U:
        raise ProblemError("dir.key_invalid", "nothing may be sealed to this key")
