"""COSE receipts of inclusion (RFC 9942), verified by hand from the standard: other code than ours."""

from hashlib import sha256

import cbor2
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from keys.notes import LedgerNoteSigner
from protocols.ledger.note import VerifierKey
from protocols.problems import ProblemError
from tests.interop.conftest import Ledger


def climbed(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """RFC 9162 section 2.1.3.2."""
    fn, sn, found = index, size - 1, sha256(b"\0" + leaf).digest()
    for each in path:
        assert sn
        if fn & 1 or fn == sn:
            found = sha256(b"\1" + each + found).digest()
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            found = sha256(b"\1" + found + each).digest()
        fn, sn = fn >> 1, sn >> 1
    assert sn == 0
    return found


def verified(receipt: bytes, entry: bytes, public: bytes) -> dict[int, object]:
    tag = cbor2.loads(receipt)
    assert tag.tag == 18
    protected, unprotected, payload, signature = tag.value
    header = cbor2.loads(protected)
    assert (header[1], header[395], payload) == (-19, 1, None)
    [proof] = unprotected[396][-1]
    size, index, path = cbor2.loads(proof)
    signed = cbor2.dumps(["Signature1", protected, b"", climbed(entry, index, size, path)])
    Ed25519PublicKey.from_public_bytes(public).verify(signature, signed)
    claims: dict[int, object] = header[15] | {4: header[4]}
    return claims


def test_a_receipt_holds_for_its_entry_and_for_no_other() -> None:
    ledger = Ledger("test/br-pf")
    ledger.open()
    ledger.add(*(ledger.entry("admin", code=f"n{n}") for n in range(300)))
    signer: LedgerNoteSigner = ledger.signer
    key = VerifierKey.parse(signer.vkeys[0])
    for index in (0, 1, 255, 256, 300):
        receipt = signer.receipt(ledger.place(index), ledger.edge.root())
        assert verified(receipt, ledger.entries[index], key.public) == {
            1: "test/br-pf",
            2: ledger.origin,
            4: key.key_id,
        }
        with pytest.raises(InvalidSignature):
            verified(receipt, ledger.entries[index - 1], key.public)


def test_a_tree_of_one_entry_has_no_receipt() -> None:
    ledger = Ledger("test/br-pf")
    ledger.open()
    with pytest.raises(ProblemError, match=r"wait for the next entry"):
        ledger.signer.receipt(ledger.place(0), ledger.edge.root())
