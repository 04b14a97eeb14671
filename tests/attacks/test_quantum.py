"""Group quantum: each half of the hybrid stands alone; who breaks every Ed25519 key still proves nothing."""

import os
from hashlib import shake_256

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from keys.suite import SealPrivate, Tw1Opener, Tw1Sealer, Tw1Verifier, seal_private
from protocols.exchange.lines import Parcel
from protocols.limits import MESSAGE_BYTES_MAX, MESSAGE_BYTES_MIN
from protocols.ports.crypto import Algorithm
from protocols.problems import ProblemError
from tests.federation import Federation, Node, Stranger, trace_request, verify_ledger

INFO = b"info"


def halves(seed: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    expanded = shake_256(seed).digest(96)
    return MLKEM768PrivateKey.from_seed_bytes(expanded[:64]), X25519PrivateKey.from_private_bytes(expanded[64:])


def test_half_of_the_recipients_key_opens_nothing() -> None:
    seed = os.urandom(32)
    key, public = seal_private(seed)
    (mlkem, x25519), (other_mlkem, other_x25519) = halves(seed), halves(os.urandom(32))
    wrapped, other = Tw1Sealer().wrap(public, INFO), Tw1Sealer().wrap(public, INFO)

    def opens(private: SealPrivate, ek: bytes) -> bool:
        return Tw1Opener({"kid": private}).unwrap("kid", ek, wrapped.encrypted_key, INFO) == wrapped.cek

    assert opens(key, wrapped.ek)
    assert opens(SealPrivate(mlkem, x25519), wrapped.ek)
    assert not opens(SealPrivate(other_mlkem, x25519), wrapped.ek), "X25519 alone"
    assert not opens(SealPrivate(mlkem, other_x25519), wrapped.ek), "ML-KEM alone"
    assert not opens(key, other.ek[:1088] + wrapped.ek[1088:]), "another ML-KEM share"
    assert not opens(key, wrapped.ek[:1088] + other.ek[1088:]), "another X25519 share"


class Believing(Tw1Verifier):
    """A world in which anybody makes any Ed25519 signature."""

    def verify(self, alg: Algorithm, public: bytes, message: bytes, signature: bytes) -> bool:
        return alg == "Ed25519" or super().verify(alg, public, message, signature)


async def test_who_forges_every_ed25519_signature_is_still_refused(fed: Federation) -> None:
    b, m, forger = await everybody(fed)
    note = forger.note().replace(forger.origin.encode(), m.origin.encode())
    parcel = m.parcel(b, signer=forger)  # the forger's message in the other's name, as is its checkpoint
    forged = Parcel(place=parcel.place, envelope=parcel.envelope)
    with pytest.raises(ProblemError) as refused:
        await m.post(b, forged, notes={(m.origin, parcel.place.size): note})
    assert refused.value.code == "proof.policy"
    head, _, lines = m.note().partition(b"\n\n")
    ed25519, mldsa = lines.splitlines(keepends=True)
    for signatures in (
        ed25519,
        ed25519 + mldsa[:-9] + (b"AAAAAAAA" if mldsa[-9:-1] != b"AAAAAAAA" else b"BBBBBBBB") + b"\n",
    ):
        with pytest.raises(ProblemError) as refused:
            await m.post(b, forged, notes={(m.origin, parcel.place.size): head + b"\n\n" + signatures})
        assert refused.value.code in ("proof.policy", "note.invalid")
    assert len(await verify_ledger(b)) == 1, "nothing is stored"


async def everybody(fed: Federation) -> tuple[Node, Stranger, Stranger]:
    m, forger = await fed.strangers("m", "forger")
    (b,) = await fed.nodes("b")
    await b.stop()
    b.wraps.append(lambda ports: setattr(ports, "verifier", Believing()))
    await b.start()
    return b, m, forger


async def test_what_is_sent_has_the_length_of_its_class(fed: Federation) -> None:
    (b,) = await fed.nodes("b")
    (m,) = await fed.strangers("m")

    def length(reference: int, serial: str = "A") -> int:
        body = trace_request(serial, request_ref="r" * 10, justification="j" * reference)
        return len(m.parcel(b, message={"body": body}).envelope)

    assert length(1) == length(40, "ABC123456789")
    lengths = {length(size) for size in range(1, 4_000, 97)}
    assert len(lengths) <= (MESSAGE_BYTES_MAX // MESSAGE_BYTES_MIN).bit_length()
    assert max(lengths) > 1.5 * min(lengths)
