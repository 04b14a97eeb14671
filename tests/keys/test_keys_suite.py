"""Suite tw1 and checkpoint notes against foreign implementations, the draft's vectors, and malformed input."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from dilithium_py.ml_dsa import ML_DSA_44  # type: ignore[import-untyped]
from jwcrypto import jwk, jws  # type: ignore[import-untyped]

from keys.notes import LedgerNoteSigner
from keys.suite import Ed25519Signer, MlDsaSigner, Tw1Opener, Tw1Sealer, Tw1Verifier, seal_private
from keys.tufsign import tuf_signer
from protocols.exchange.envelope import recipient_structure
from protocols.ledger.checkpoint import LedgerKeys, verify_checkpoint
from protocols.ledger.note import VerifierKey, parse_note, subtree_message
from protocols.problems import ProblemError
from protocols.strict import b64u, dump_json, unb64u

SHARED = Path(__file__).parents[2].parent / "shared"
VECTORS = SHARED / "vectors/jose-hpke/draft-ietf-jose-hpke-pq-pqt.json"
ORIGIN = "test/registry/2026.1"
AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
SEED = bytes(range(32))
SIGNERS: list[Any] = [Ed25519Signer(SEED), MlDsaSigner("ML-DSA-44", SEED), MlDsaSigner("ML-DSA-65", SEED)]


@pytest.mark.parametrize("signer", SIGNERS, ids=lambda signer: signer.public.alg)
def test_a_signature_holds_for_its_message_and_key_only(signer: Any) -> None:
    alg, public = signer.public.alg, signer.public.public
    signature = signer.sign(b"message")
    other = type(signer)(*([alg] if alg != "Ed25519" else []), bytes(32)).public.public
    verify = Tw1Verifier().verify
    assert verify(alg, public, b"message", signature)
    assert not verify(alg, public, b"messagf", signature)
    assert not verify(alg, public, b"message", signature[:-1])
    assert not verify(alg, public, b"message", b"")
    assert not verify(alg, public[:-1], b"message", signature)
    assert not verify(alg, other, b"message", signature)


def test_an_unknown_algorithm_does_not_verify() -> None:
    assert not Tw1Verifier().verify("RS256", SIGNERS[0].public.public, b"m", SIGNERS[0].sign(b"m"))  # type: ignore[arg-type]


@pytest.mark.parametrize("sign_bit", [0, 0x80])
def test_an_ed25519_key_under_which_one_signature_fits_every_message_is_refused(sign_bit: int) -> None:
    neutral = bytes([1]) + bytes(30) + bytes([sign_bit])
    signature = bytes([1]) + bytes(31) + bytes(32)  # R neutral, s = 0: holds for any message under the neutral key
    Ed25519PublicKey.from_public_bytes(bytes([1]) + bytes(31)).verify(signature, b"any message")  # OpenSSL takes it
    assert not Tw1Verifier().verify("Ed25519", neutral, b"any message", signature)


def test_jwcrypto_verifies_a_jws_signed_by_us() -> None:
    signer = Ed25519Signer(SEED)
    signed = b64u(dump_json({"alg": "Ed25519", "kid": signer.kid})) + "." + b64u(b"payload")
    token = jws.JWS()
    token.allowed_algs = ["Ed25519"]
    key = jwk.JWK(**signer.public.jwk)
    token.deserialize(f"{signed}.{b64u(signer.sign(signed.encode()))}", key)
    assert token.payload == b"payload"
    assert key.thumbprint() == signer.kid


def test_both_lines_of_our_note_hold_and_dilithium_py_agrees() -> None:
    signer, root = LedgerNoteSigner(ORIGIN, SEED, SEED), bytes(range(32))
    note = signer.sign(7, root, AT)
    keys = LedgerKeys.parse(ORIGIN, signer.vkeys)
    assert verify_checkpoint(note, keys, Tw1Verifier()).root == root
    (_, first_id, first), (_, second_id, second) = parse_note(note).signatures
    assert (first_id, second_id) == tuple(VerifierKey.parse(key).key_id for key in signer.vkeys)
    assert (len(first), len(second)) == (64, 8 + 2420)
    time_s = int.from_bytes(second[:8], "big")
    assert time_s == int(AT.timestamp())
    message = subtree_message(name=ORIGIN, origin=ORIGIN, time_s=time_s, size=7, root=root)
    assert ML_DSA_44.verify(keys.mldsa44.public, message, second[8:], ctx=b"")
    with pytest.raises(ProblemError, match=r"proof.policy"):
        verify_checkpoint(
            note, LedgerKeys.parse(ORIGIN, LedgerNoteSigner(ORIGIN, SEED, bytes(32)).vkeys), Tw1Verifier()
        )


def test_what_is_sealed_to_us_opens_with_the_same_info_only() -> None:
    private, public = seal_private(SEED)
    opener = Tw1Opener({"mine": private})
    wrapped = Tw1Sealer().wrap(public, b"info")
    assert opener.unwrap("mine", wrapped.ek, wrapped.encrypted_key, b"info") == wrapped.cek
    assert opener.unwrap("mine", wrapped.ek, wrapped.encrypted_key, b"other") is None
    assert opener.unwrap("unknown", wrapped.ek, wrapped.encrypted_key, b"info") is None
    assert opener.unwrap("mine", wrapped.ek[:-1], wrapped.ek[-1:] + wrapped.encrypted_key, b"info") is None
    assert opener.unwrap("mine", b"", b"", b"info") is None
    assert opener.unwrap("mine", wrapped.ek[:-32] + bytes(32), wrapped.encrypted_key, b"info") is None
    assert Tw1Sealer().wrap(public, b"info").cek != wrapped.cek


def test_a_malformed_seal_key_is_a_value_error() -> None:
    _, public = seal_private(SEED)
    for malformed in (b"", public[:-1], b"\xff" * 1216, public[:1184] + bytes(32)):
        with pytest.raises(ValueError, match=r"."):
            Tw1Sealer().wrap(malformed, b"")


def test_content_opens_under_its_key_and_aad_only() -> None:
    sealer, opener = Tw1Sealer(), Tw1Opener({})
    key = sealer.random(32)
    sealed = sealer.encrypt(key, b"content", b"aad")
    assert opener.decrypt(key, sealed, b"aad") == b"content"
    assert sealer.encrypt(key, b"content", b"aad")[:12] != sealed[:12]
    for wrong_key, wrong, aad in (
        (bytes(32), sealed, b"aad"),
        (key[:16], sealed, b"aad"),
        (key, sealed, b""),
        (key, sealed[:-1], b"aad"),
        (key, sealed[:27], b"aad"),
        (key, b"", b"aad"),
    ):
        assert opener.decrypt(wrong_key, wrong, aad) is None


@pytest.mark.skipif(not VECTORS.exists(), reason="the shared vectors are not here")
@pytest.mark.parametrize("form", ["flattened", "compact"])
def test_the_drafts_hpke_9_ke_vector_opens(form: str) -> None:
    (vector,) = (each for each in json.loads(VECTORS.read_bytes()) if each["alg"] == "HPKE-9-KE")
    private, public = seal_private(unb64u(vector["jwk"]["priv"]))
    assert b64u(public) == vector["jwk"]["pub"]
    if form == "compact":
        members = ("protected", "encrypted_key", "iv", "ciphertext", "tag")
        jwe = dict(zip(members, vector["compact"].split("."), strict=True))
    else:
        jwe = vector["flattened"]
    header = json.loads(unb64u(jwe["protected"]))
    opener = Tw1Opener({header["kid"]: private})
    ek, encrypted_key = unb64u(header["ek"]), unb64u(jwe["encrypted_key"])
    cek = opener.unwrap(header["kid"], ek, encrypted_key, recipient_structure(b""))
    assert cek is not None
    aad = jwe["protected"] + (f".{jwe['aad']}" if "aad" in jwe else "")
    sealed = b"".join(unb64u(jwe[name]) for name in ("iv", "ciphertext", "tag"))
    plaintext = opener.decrypt(cek, sealed, aad.encode())
    assert plaintext is not None
    assert plaintext.decode("utf-8")


def test_tuf_signers_have_the_schemes_that_python_tuf_takes() -> None:
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

    for private, scheme in (
        (MLDSA65PrivateKey.from_seed_bytes(SEED), "ml-dsa-65/1"),
        (Ed25519PrivateKey.from_private_bytes(SEED), "ed25519"),
    ):
        signer = tuf_signer(private)
        assert signer.public_key.scheme == scheme
        signer.public_key.verify_signature(signer.sign(b"metadata"), b"metadata")


def _opens(key: bytes, sealed: bytes) -> bool:
    cipher = Tw1Opener({}).stream(key)
    try:
        cipher.update(sealed)
        cipher.finalize()
    except ValueError:
        return False
    return True


def test_an_attachment_that_is_cut_changed_or_has_chunks_swapped_or_left_out_does_not_open() -> None:
    key, chunk = os.urandom(32), 16_384 + 16
    cipher = Tw1Sealer().stream(key)
    sealed = cipher.update(os.urandom(4 * 16_384 - 1)) + cipher.finalize()
    start = len(sealed) - (4 * 16_384 - 1) - 4 * 16
    chunks = [sealed[start + n * chunk : start + (n + 1) * chunk] for n in range(4)]
    header = sealed[:start]
    assert header + b"".join(chunks) == sealed
    assert _opens(key, sealed)
    wrong = {
        "cut at a chunk": header + b"".join(chunks[:3]),
        "cut within one": sealed[:-1],
        "swapped": header + chunks[1] + chunks[0] + chunks[2] + chunks[3],
        "left out": header + chunks[0] + chunks[2] + chunks[3],
        "twice": header + chunks[0] + chunks[0] + b"".join(chunks[1:]),
        "longer": sealed + chunks[3],
        "changed": sealed[:-20] + bytes([sealed[-20] ^ 1]) + sealed[-19:],
    }
    assert [what for what, spoiled in wrong.items() if _opens(key, spoiled)] == []
    assert not _opens(os.urandom(32), sealed)
