"""COSE receipts of inclusion (RFC 9942), for tools that speak SCITT: signed by a ledger's Ed25519 key."""

from collections.abc import Sequence

import cbor2

from keys.suite import Ed25519Signer
from protocols.problems import ProblemError

_ED25519, _RFC9162_SHA256 = -19, 1
_ALG, _KID, _CLAIMS, _VDS, _VDP = 1, 4, 15, 395, 396
_ISS, _SUB, _INCLUSION = 1, 2, -1
_SIGN1 = 18


def inclusion_receipt(
    signer: Ed25519Signer, *, kid: bytes, origin: str, size: int, index: int, path: Sequence[bytes], root: bytes
) -> bytes:
    """A COSE_Sign1 with the root as detached payload; whoever has the entry hashes it and climbs to the root.

    `kid` is the C2SP key id; the issuer is the member, the subject its ledger. `proof.path` for a tree of one entry: the
    path of a receipt has at least one hash.
    """
    if not path:
        raise ProblemError("proof.path", "a tree of one entry has no receipt: wait for the next entry")
    claims = {_ISS: origin.rpartition("/")[0], _SUB: origin}
    protected = cbor2.dumps({_ALG: _ED25519, _KID: kid, _CLAIMS: claims, _VDS: _RFC9162_SHA256})
    signature = signer.sign(cbor2.dumps(["Signature1", protected, b"", root]))
    proofs = {_INCLUSION: [cbor2.dumps([size, index, list(path)])]}
    return cbor2.dumps(cbor2.CBORTag(_SIGN1, [protected, {_VDP: proofs}, None, signature]))
