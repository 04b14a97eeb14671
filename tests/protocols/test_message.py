"""The message: padded payload, restricted parts, and the JWS around it with its closed header."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.suite import Ed25519Signer, Tw1Sealer, Tw1Verifier, decrypt
from protocols.exchange.message import (
    PART_AAD,
    AttachmentRef,
    Message,
    PartRef,
    pad,
    parse_jws,
    parse_message,
    parse_part,
    seal_part,
    sign_message,
)
from protocols.limits import MESSAGE_BYTES_MAX, PART_BYTES_MAX
from protocols.strict import b64u, dump_json
from tests.protocols.forms import code_of, hostile, json_objects, messages, total

SIGNER = Ed25519Signer(bytes(range(32)))
CREATED = datetime(2026, 11, 22, 10, tzinfo=UTC)
ID = UUID("019aab00-0000-7000-8000-000000000001")
MESSAGE = Message(
    id=ID, type="trace.request", sender="net/a", recipient="net/b", thread=ID, created=CREATED,
    expires=CREATED + timedelta(days=30), handling={"codes": []}, salt=bytes(range(32)), body={"text": "é"},
    in_reply_to=ID, due=CREATED, parts=(PartRef(name="persons", sha256=bytes(32), key_sha256=bytes(32)),),
    attachments=(AttachmentRef(name="a.png", sha256=bytes(32), key_sha256=bytes(32), size=9, media_type="image/png"),),
)  # fmt: skip
PAYLOAD = MESSAGE.encode()
FOUND: dict[str, Any] = json.loads(PAYLOAD)
ABSENT = object()


def payload(found: dict[str, Any] | None = None, **changes: Any) -> bytes:
    """The payload with members changed or (ABSENT) left out, padded again."""
    members = {k: v for k, v in ((found or FOUND) | changes).items() if v is not ABSENT and k != "pad"}
    return pad(dump_json({**members, "pad": ""}), 2048, 1 << 30)


@given(messages())
def test_a_message_is_read_back(message: Message) -> None:
    data = message.encode()
    assert parse_message(data) == message
    assert len(data) >= 2048
    assert len(data).bit_count() == 1


@given(hostile(PAYLOAD))
def test_any_bytes_are_a_message_or_a_problem(data: bytes) -> None:
    total(parse_message, data)


@given(st.dictionaries(st.sampled_from(sorted(FOUND)), json_objects | st.integers() | st.text(max_size=5) | st.none()))
def test_members_of_any_type_are_a_message_or_a_problem(changes: dict[str, Any]) -> None:
    try:
        data = payload(**{k: v for k, v in changes.items() if k != "pad"})
    except UnicodeEncodeError:
        return
    total(parse_message, data)


PART = FOUND["parts"][0]
ATTACHMENT = FOUND["attachments"][0]
BAD: list[tuple[str, bytes, str]] = [
    *((f"no {name}", payload(**{name: ABSENT}), "schema.invalid") for name in FOUND if name not in (
        "pad", "in_reply_to", "due", "parts", "attachments")),
    ("no pad", dump_json({k: v for k, v in FOUND.items() if k != "pad"}), "schema.invalid"),
    ("an unknown member", payload(x=1), "schema.invalid"),
    ("version 2", payload(v=2), "schema.invalid"),
    ("version true", payload(v=True), "schema.invalid"),
    ("a pad of letters", PAYLOAD.replace(b'"pad":"  ', b'"pad":" x'), "schema.invalid"),
    ("a pad that is a number", b" " * 2000 + dump_json(FOUND | {"pad": 1}), "schema.invalid"),
    ("a pad one byte longer", PAYLOAD.replace(b'"pad":"', b'"pad":" '), "schema.invalid"),
    ("a pad one byte shorter", PAYLOAD.replace(b'"pad":" ', b'"pad":"'), "schema.invalid"),
    ("1 KiB", pad(dump_json(FOUND | {"pad": "", "parts": FOUND["parts"], "body": {}}), 1024, 9999), "schema.invalid"),
    ("512 KiB", payload(body={"t": "x" * MESSAGE_BYTES_MAX}), "json.too_large"),
    ("an upper-case type", payload(type="Trace.request"), "schema.invalid"),
    ("a type that is a list", payload(type=["trace.request"]), "schema.invalid"),
    ("a type of 65", payload(type="t" * 65), "schema.invalid"),
    ("a member name without network", payload(**{"from": "a"}), "schema.invalid"),
    ("a member name in capitals", payload(**{"from": "net/A"}), "schema.invalid"),
    ("a homoglyph", payload(to="net/\u0430"), "schema.invalid"),
    ("a zero-width space", payload(to="net/b\u200b"), "schema.invalid"),
    ("a newline after a name", payload(to="net/b\n"), "schema.invalid"),
    ("a name of 33", payload(to="net/" + "b" * 33), "schema.invalid"),
    ("a UUIDv4", payload(id="019aab00-0000-4000-8000-000000000001"), "entry.invalid"),
    ("in_reply_to null", payload(in_reply_to=None), "entry.invalid"),
    ("due null", payload(due=None), "schema.invalid"),
    ("a time without milliseconds", payload(created="2026-11-22T10:00:00Z"), "schema.invalid"),
    ("expired when it was made", payload(expires=FOUND["created"]), "schema.invalid"),
    ("91 days", payload(expires="2027-02-21T10:00:00.000Z"), "schema.invalid"),
    ("handling that is a list", payload(handling=[]), "schema.invalid"),
    ("body null", payload(body=None), "schema.invalid"),
    ("a salt of 31 bytes", payload(salt=b64u(bytes(31))), "b64.invalid"),
    ("a salt of 33 bytes", payload(salt=b64u(bytes(33))), "b64.invalid"),
    ("a salt padded", payload(salt=FOUND["salt"] + "="), "b64.invalid"),
    ("parts empty", payload(parts=[]), "schema.invalid"),
    ("parts null", payload(parts=None), "schema.invalid"),
    ("nine parts", payload(parts=[PART | {"name": f"p{'x' * i}"} for i in range(9)]), "schema.invalid"),
    ("a part twice", payload(parts=[PART, PART | {"sha256": b64u(bytes(31) + b"1")}]), "schema.invalid"),
    ("one ciphertext for two parts", payload(parts=[PART, PART | {"name": "other"}]), "schema.invalid"),
    ("a part with its key", payload(parts=[PART | {"key": b64u(bytes(32))}]), "schema.invalid"),
    ("a part with members swapped", payload(parts=[dict(reversed(PART.items()))]), "schema.invalid"),
    ("a part that is text", payload(parts=["persons"]), "schema.invalid"),
    ("a part's name in capitals", payload(parts=[PART | {"name": "Persons"}]), "schema.invalid"),
    ("a part's digest of 31 bytes", payload(parts=[PART | {"sha256": b64u(bytes(31))}]), "b64.invalid"),
    ("65 attachments", payload(attachments=[ATTACHMENT] * 65), "schema.invalid"),
    ("attachments empty", payload(attachments=[]), "schema.invalid"),
    ("an attachment without name", payload(attachments=[ATTACHMENT | {"name": ""}]), "schema.invalid"),
    ("an attachment of size -1", payload(attachments=[ATTACHMENT | {"size": -1}]), "entry.invalid"),
    ("an attachment with more", payload(attachments=[ATTACHMENT | {"x": 1}]), "schema.invalid"),
    ("a member twice", PAYLOAD.replace(b'{"v":1', b'{"v":1,"v":1'), "json.duplicate"),
    ("a list", b"[]", "json.invalid"),
    ("not UTF-8", PAYLOAD.replace("é".encode(), b"\xe9 "), "json.encoding"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "code"), [(data, code) for _, data, code in BAD], ids=[name for name, *_ in BAD])
def test_a_message_with_one_fault_is_refused(data: bytes, code: str) -> None:
    assert code_of(parse_message, data) == code


def test_the_longest_life_is_90_days_exactly() -> None:
    assert parse_message(payload(expires="2027-02-20T10:00:00.000Z")).expires == CREATED + timedelta(days=90)


def test_a_message_that_would_be_longer_than_the_limit_is_not_written() -> None:
    assert code_of(pad, b'{"pad":""}' + bytes(MESSAGE_BYTES_MAX), 2048, MESSAGE_BYTES_MAX) == "schema.invalid"


@given(st.integers(0, 5000), st.sampled_from([512, 2048]))
def test_padding_ends_at_the_next_power_of_two(length: int, bytes_min: int) -> None:
    data = dump_json({"x": "y" * length, "pad": ""})
    padded = pad(data, bytes_min, 1 << 20)
    assert len(padded).bit_count() == 1
    assert max(bytes_min, len(data)) <= len(padded) < max(bytes_min + 1, 2 * len(data))
    assert json.loads(padded) | {"pad": ""} == json.loads(data)


@given(json_objects.filter(lambda found: "pad" not in found))
def test_a_part_is_read_back_by_who_has_its_key(value: dict[str, Any]) -> None:
    part = seal_part("persons", value, Tw1Sealer())
    plain = decrypt(part.key, part.sealed, PART_AAD)
    assert plain is not None
    assert len(plain) >= 512
    assert parse_part(plain) == value
    assert seal_part("persons", value, Tw1Sealer()).key != part.key


@given(hostile(pad(b'{"a":1,"pad":""}', 512, PART_BYTES_MAX)))
def test_any_bytes_are_a_part_or_a_problem(data: bytes) -> None:
    total(parse_part, data)


@pytest.mark.parametrize(
    ("data", "code"),
    [(pad(b'{"a":1,"pad":""}', 256, 999), "schema.invalid"), (b'{"a":1}', "schema.invalid"), (b"[]", "json.invalid"),
     (pad(b'{"a":1,"pad":""}', 512, 999) + b" ", "schema.invalid"), (b'{"pad":5}' + b" " * 503, "schema.invalid"),
     (pad(b'{"a":1,"pad":""}', 2 * PART_BYTES_MAX, 1 << 20), "json.too_large")],
)  # fmt: skip
def test_a_part_with_one_fault_is_refused(data: bytes, code: str) -> None:
    assert code_of(parse_part, data) == code


JWS = sign_message(PAYLOAD, SIGNER)
HEADER = {"alg": "Ed25519", "typ": "tracewire-message+jws", "kid": SIGNER.kid}


def jws(header: Any = HEADER, **changes: Any) -> bytes:
    """A compact JWS over a small payload with members of its header changed."""
    text = header if isinstance(header, bytes) else dump_json({**header, **changes})
    return f"{b64u(text)}.{b64u(b'payload')}.{b64u(bytes(64))}".encode()


def test_a_signed_message_is_read_back_and_its_signature_holds() -> None:
    parsed = parse_jws(JWS)
    assert (parsed.kid, parsed.payload) == (SIGNER.kid, PAYLOAD)
    assert Tw1Verifier().verify("Ed25519", SIGNER.public.public, parsed.signed, parsed.signature)
    assert not Tw1Verifier().verify("Ed25519", SIGNER.public.public, parsed.signed + b"x", parsed.signature)


@given(hostile(jws()))
def test_any_bytes_are_a_jws_or_a_problem(data: bytes) -> None:
    found = total(parse_jws, data)
    if found is not None:
        assert data == found.signed + b"." + b64u(found.signature).encode()


BAD_JWS: list[tuple[str, bytes, str]] = [
    *((f"alg {alg}", jws(alg=alg), "env.alg") for alg in ("none", "None", "nOnE", "HS256", "ES256", "RS256", "PS256", "EdDSA", "Ed448", "ed25519", "")),
    ("crit", jws(crit=["foo"]), "env.crit"),
    ("b64 false with crit", jws(b64=False, crit=["b64"]), "env.header"),
    ("b64 false", jws(b64=False), "env.header"),
    ("jku", jws(jku="https://x"), "env.header"),
    ("x5u", jws(x5u="https://x"), "env.header"),
    ("jwk", jws(jwk={}), "env.header"),
    ("x5c", jws(x5c=[]), "env.header"),
    ("cty", jws(cty="x"), "env.header"),
    ("no typ", jws({"alg": "Ed25519", "kid": SIGNER.kid}), "env.header"),
    ("no alg", jws({"typ": HEADER["typ"], "kid": SIGNER.kid}), "env.header"),
    ("kid a number", jws(kid=5), "env.header"),
    ("kid an object", jws(kid={}), "env.header"),
    ("kid null", jws(kid=None), "env.header"),
    ("alg a list", jws(alg=["Ed25519"]), "env.header"),
    ("a path for kid", jws(kid="../../etc/passwd"), "env.kid"),
    ("a kid of 43 that is no thumbprint", jws(kid="'; drop table keys; --" + "x" * 21), "env.kid"),
    ("a kid with spare bits", jws(kid="A" * 42 + "B"), "env.kid"),
    ("a kid of 4,000", jws(kid="k" * 4_000), "env.kid"),
    ("the typ of an envelope", jws(typ="tracewire-envelope+jwe"), "env.typ"),
    ("typ JWT", jws(typ="JWT"), "env.typ"),
    ("alg twice", jws(b'{"alg":"none","alg":"Ed25519","typ":"tracewire-message+jws","kid":"' + SIGNER.kid.encode() + b'"}'), "json.duplicate"),
    ("a header that is a list", jws(b"[]"), "json.invalid"),
    ("a header in UTF-16", jws(dump_json(HEADER).decode().encode("utf-16")), "json.encoding"),
    ("two pieces", b"e30.e30", "env.format"),
    ("four pieces", JWS + b".", "env.format"),
    ("nothing", b"", "env.format"),
    ("a payload padded", JWS.replace(b".", b"=.", 1), "b64.invalid"),
    ("a newline at the end", JWS + b"\n", "b64.invalid"),
    ("not ASCII", "é.é.é".encode(), "env.format"),
    ("a signature of 63 bytes", JWS.rpartition(b".")[0] + b"." + b64u(bytes(63)).encode(), "b64.invalid"),
    ("JSON serialisation", b'{"payload":"","protected":"","signature":""}', "env.format"),
    ("too long", jws() + b"A" * 400_000, "env.format"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "code"), [(data, code) for _, data, code in BAD_JWS], ids=[name for name, *_ in BAD_JWS]
)
def test_a_jws_with_one_fault_is_refused(data: bytes, code: str) -> None:
    assert code_of(parse_jws, data) == code
