"""The envelope: a closed header, one way to open it, and one answer to everything that does not open."""

import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.suite import Ed25519Signer, Tw1Opener, Tw1Sealer, seal_private
from protocols.exchange.envelope import Envelope, Opened, open_envelope, open_part, parse_envelope, parts_of, seal
from protocols.exchange.message import Message, Part, parse_part, seal_part, sign_message
from protocols.jwk import PublicKey
from protocols.limits import ENVELOPE_BYTES_MAX
from protocols.strict import b64u, dump_json, unb64u
from tests.protocols.forms import code_of, hostile, total

SEALER = Tw1Sealer()
PRIVATE, PUBLIC = seal_private(bytes(range(32)))
KID = PublicKey("HPKE-9-KE", PUBLIC).kid
OPENER = Tw1Opener({KID: PRIVATE})
CREATED = datetime(2026, 11, 22, 10, tzinfo=UTC)
ID = UUID("019aab00-0000-7000-8000-000000000001")
PARTS = (seal_part("persons", {"a": 1}, SEALER), seal_part("more", {"b": 2}, SEALER))
MESSAGE = Message(
    id=ID, type="trace.request", sender="net/a", recipient="net/b", thread=ID, created=CREATED,
    expires=CREATED + timedelta(days=30), handling={}, salt=bytes(32), body={}, parts=tuple(p.ref for p in PARTS),
)  # fmt: skip
JWS = sign_message(MESSAGE.encode(), Ed25519Signer(bytes(range(32))))


def sealed(jws: bytes = JWS, parts: tuple[Part, ...] = PARTS) -> bytes:
    return seal(jws=jws, message=MESSAGE, parts=parts, kid=KID, public=PUBLIC, sealer=SEALER)


DATA = sealed()
FOUND: dict[str, str] = json.loads(DATA)
HEADER: dict[str, Any] = json.loads(unb64u(FOUND["protected"]))
ABSENT = object()


def outer(**changes: Any) -> bytes:
    return dump_json({name: value for name, value in (FOUND | changes).items() if value is not ABSENT})


def header(data: bytes | None = None, **changes: Any) -> bytes:
    members = {name: value for name, value in (HEADER | changes).items() if value is not ABSENT}
    return outer(protected=b64u(data if data is not None else dump_json(members)))


def opened(data: bytes) -> Opened:
    return open_envelope(parse_envelope(data), OPENER)


def test_what_was_sealed_is_opened_by_its_recipient_with_its_parts() -> None:
    envelope = parse_envelope(DATA)
    assert envelope.sha256 == sha256(DATA).digest()
    assert (envelope.header.sender, envelope.header.recipient, envelope.header.id) == ("net/a", "net/b", ID)
    assert (envelope.header.kid, envelope.header.expires) == (KID, MESSAGE.expires)
    found = open_envelope(envelope, OPENER)
    assert found.jws == JWS
    parts = parts_of(MESSAGE.parts, found)
    assert parts == PARTS
    assert [parse_part(open_part(part, OPENER)) for part in parts] == [{"a": 1}, {"b": 2}]


def test_a_message_without_parts_travels_alike() -> None:
    assert opened(sealed(parts=())) == Opened(jws=JWS, keys={}, sealed_parts=())


def test_no_two_envelopes_of_one_message_are_alike() -> None:
    assert sealed() != sealed()


def test_nobody_else_opens_it() -> None:
    other, _ = seal_private(bytes(32))
    for opener in (Tw1Opener({}), Tw1Opener({KID: other})):
        assert code_of(open_envelope, parse_envelope(DATA), opener) == "env.decrypt"


def test_an_envelope_is_not_sealed_to_a_malformed_key_nor_above_the_limit() -> None:
    good = {"jws": JWS, "message": MESSAGE, "parts": PARTS, "kid": KID, "sealer": SEALER}
    assert code_of(seal, **good, public=PUBLIC[:-1]) == "dir.key_invalid"
    assert code_of(seal, **good | {"jws": bytes(ENVELOPE_BYTES_MAX)}, public=PUBLIC) == "schema.invalid"


def flip(text: str, at: int = 0) -> str:
    data = bytearray(unb64u(text))
    data[at] ^= 1
    return b64u(bytes(data))


B = HEADER
BAD: list[tuple[str, bytes, str]] = [
    *((f"alg {alg}", header(alg=alg), "env.alg") for alg in ("none", "dir", "ECDH-ES", "HPKE-9", "HPKE-0-KE", "RSA-OAEP", "hpke-9-ke")),
    *((f"enc {enc}", header(enc=enc), "env.decrypt") for enc in ("A128GCM", "A256CBC-HS512", "A256gcm", "")),
    ("crit", header(crit=["x"]), "env.crit"),
    ("alg missing", header(alg=ABSENT), "env.header"),
    ("alg a list", header(alg=["HPKE-9-KE"]), "env.header"),
    ("zip", header(zip="DEF"), "env.header"),
    ("apu", header(apu="x"), "env.header"),
    ("psk_id", header(psk_id="x"), "env.header"),
    ("jku", header(jku="https://x"), "env.header"),
    ("epk", header(epk={}), "env.header"),
    *((f"no {name}", header(**{name: ABSENT}), "env.header") for name in HEADER if name != "alg"),
    ("kid a number", header(kid=5), "env.header"),
    ("kid too short", header(kid="k"), "env.kid"),
    ("a kid of 43 that is no thumbprint", header(kid="'" * 43), "env.kid"),
    ("an unknown kid", header(kid="A" * 43), "env.decrypt"),
    ("the typ of a message", header(typ="tracewire-message+jws"), "env.typ"),
    ("another cty", header(cty="JWT"), "env.typ"),
    ("ek one byte short", header(ek=b64u(unb64u(B["ek"])[:-1])), "env.decrypt"),
    ("ek one byte longer", header(ek=b64u(unb64u(B["ek"]) + b"x")), "env.decrypt"),
    ("ek empty", header(ek=""), "env.decrypt"),
    ("ek of X25519 zeros", header(ek=b64u(unb64u(B["ek"])[:1088] + bytes(32))), "env.decrypt"),
    ("ek changed", header(ek=flip(B["ek"])), "env.decrypt"),
    ("ek padded", header(ek=B["ek"] + "="), "b64.invalid"),
    ("from another member", header(**{"from": "net/c"}), "env.decrypt"),
    ("to another member", header(to="net/c"), "env.decrypt"),
    ("another id", header(id="019aab00-0000-7000-8000-000000000002"), "env.decrypt"),
    ("another expiry", header(expires="2026-12-23T10:00:00.000Z"), "env.decrypt"),
    ("from no member name", header(**{"from": "a"}), "env.header"),
    ("to no member name", header(to="NET/B"), "env.header"),
    ("id a UUIDv4", header(id="019aab00-0000-4000-8000-000000000001"), "entry.invalid"),
    ("expires without milliseconds", header(expires="2026-12-22T10:00:00Z"), "schema.invalid"),
    ("a header in another order", header(data=dump_json(dict(reversed(HEADER.items())))), "env.decrypt"),
    ("alg twice", header(data=dump_json(HEADER)[:-1] + b',"alg":"HPKE-9-KE"}'), "json.duplicate"),
    ("a header that is a list", header(data=b"[]"), "json.invalid"),
    ("a header too long", header(x="x" * 9_000), "json.too_large"),
    ("protected padded", outer(protected=FOUND["protected"] + "="), "b64.invalid"),
    ("an unprotected header", outer(unprotected={"alg": "HPKE-9-KE"}), "env.header"),
    ("a recipient's header", outer(header={"alg": "HPKE-9-KE"}), "env.header"),
    ("aad", outer(aad=""), "env.header"),
    ("recipients", outer(recipients=[{"encrypted_key": FOUND["encrypted_key"]}]), "env.format"),
    ("no tag", outer(tag=ABSENT), "env.format"),
    ("no encrypted_key", outer(encrypted_key=ABSENT), "env.format"),
    ("an unknown member", outer(x="x"), "env.format"),
    ("iv a number", outer(iv=5), "env.format"),
    ("iv of 11 bytes", outer(iv=b64u(bytes(11))), "env.decrypt"),
    ("iv of 16 bytes", outer(iv=b64u(bytes(16))), "env.decrypt"),
    ("tag of 12 bytes", outer(tag=b64u(unb64u(FOUND["tag"])[:12])), "env.decrypt"),
    ("tag empty", outer(tag=""), "env.decrypt"),
    ("tag changed", outer(tag=flip(FOUND["tag"])), "env.decrypt"),
    ("ciphertext changed", outer(ciphertext=flip(FOUND["ciphertext"], 99)), "env.decrypt"),
    ("ciphertext empty", outer(ciphertext=""), "env.decrypt"),
    ("ciphertext with spare bits", outer(ciphertext="AB"), "b64.invalid"),
    ("encrypted_key empty", outer(encrypted_key=""), "env.decrypt"),
    ("encrypted_key changed", outer(encrypted_key=flip(FOUND["encrypted_key"])), "env.decrypt"),
    ("compact", b".".join(FOUND[m].encode() for m in ("protected", "encrypted_key", "iv", "ciphertext", "tag")), "env.format"),
    ("a member twice", DATA[:-1] + b',"tag":"AA"}', "json.duplicate"),
    ("a list", b"[" + DATA + b"]", "env.format"),
    ("too long", outer(ciphertext="A" * ENVELOPE_BYTES_MAX), "json.too_large"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "code"), [(data, code) for _, data, code in BAD], ids=[name for name, *_ in BAD])
def test_an_envelope_with_one_fault_is_refused(data: bytes, code: str) -> None:
    assert code_of(opened, data) == code


@given(hostile(DATA))
def test_any_bytes_are_an_envelope_or_a_problem(data: bytes) -> None:
    found = total(parse_envelope, data)
    if found is not None and data != DATA:
        total(open_envelope, found, OPENER)


@given(st.dictionaries(st.sampled_from(sorted(HEADER)), st.text(max_size=4) | st.integers() | st.none() | st.lists(st.text()), min_size=1))  # fmt: skip
def test_headers_of_any_type_are_an_envelope_or_a_problem(changes: dict[str, Any]) -> None:
    try:
        data = header(**changes)
    except UnicodeEncodeError:
        return
    total(opened, data)


class Plain:
    """An opener whose plaintext is what the test says."""

    def __init__(self, plain: bytes) -> None:
        self.plain = plain

    def unwrap(self, kid: str, ek: bytes, encrypted_key: bytes, info: bytes) -> bytes | None:
        return bytes(32)

    def decrypt(self, key: bytes, sealed: bytes, aad: bytes) -> bytes | None:
        return self.plain


ENVELOPE: Envelope = parse_envelope(DATA)
K = b64u(bytes(32))


@pytest.mark.parametrize(
    ("plain", "code"),
    [(b"", "env.format"), (JWS, "env.format"), (JWS + b"\n", "json.invalid"), (JWS + b"\n[]", "json.invalid"),
     (JWS + b"\n{}" + b"\nAA" * 9, "env.format"), (JWS + b"\n{}\n\xff", "env.format"), (JWS + b"\n{}\nA=", "b64.invalid"),
     (JWS + b'\n{"x":"%b"}' % K.encode(), "b64.invalid"), (JWS + b'\n{"%b":"AA"}' % K.encode(), "b64.invalid"),
     (JWS + b'\n{"%b":5}' % K.encode(), "b64.invalid"), (JWS + b'\n{"a":1,"a":1}', "json.duplicate"),
     (JWS + b"\r\n{}\r\nAA\r", "b64.invalid")],
)  # fmt: skip
def test_a_plaintext_with_one_fault_is_refused(plain: bytes, code: str) -> None:
    assert code_of(open_envelope, ENVELOPE, Plain(plain)) == code


@given(hostile(JWS[:20] + b'\n{"%b":"%b"}\n' % (K.encode(), K.encode()) + b64u(bytes(40)).encode()))
def test_any_plaintext_is_opened_or_a_problem(plain: bytes) -> None:
    found = total(open_envelope, ENVELOPE, Plain(plain))
    if found is not None:
        total(parts_of, MESSAGE.parts, found)


def test_parts_are_exactly_those_that_the_message_names() -> None:
    first, second = PARTS
    keys = {part.ref.sha256: part.key for part in PARTS}

    def refused(keys: dict[bytes, bytes], *parts: bytes) -> bool:
        return code_of(parts_of, MESSAGE.parts, Opened(jws=b"", keys=keys, sealed_parts=parts)) == "env.parts"

    assert refused(keys, first.sealed)
    assert refused(keys, second.sealed, first.sealed)
    assert refused(keys, first.sealed, second.sealed, second.sealed)
    assert refused(keys, first.sealed[:-1] + bytes([first.sealed[-1] ^ 1]), second.sealed)
    assert refused({first.ref.sha256: first.key}, first.sealed, second.sealed)
    assert refused(keys | {first.ref.sha256: second.key}, first.sealed, second.sealed)
    assert refused({}, first.sealed, second.sealed)


def test_a_part_that_fits_its_digest_but_not_its_key_is_refused() -> None:
    part = PARTS[0]
    forged = SEALER.encrypt(part.key, b"x" * 512, b"another use")
    ref = type(part.ref)(name="persons", sha256=sha256(forged).digest(), key_sha256=part.ref.key_sha256)
    found = Opened(jws=b"", keys={ref.sha256: part.key}, sealed_parts=(forged,))
    (made,) = parts_of([ref], found)
    assert code_of(open_part, made, OPENER) == "env.parts"
