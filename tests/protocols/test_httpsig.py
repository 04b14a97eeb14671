"""Request signatures (RFC 9421): one closed form, judged on headers alone."""

import base64
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.suite import Ed25519Signer, Tw1Verifier
from protocols.exchange.httpsig import (
    Request,
    content_digest,
    digest_of,
    parse_signature,
    signature_header,
    signature_input,
)
from tests.protocols.forms import code_of, hostile, total

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
SIGNER = Ed25519Signer(bytes(range(32)))
POST = Request(
    method="POST",
    uri="https://b.example/exchange/v1/messages",
    content_type="application/x-ndjson",
    digest=content_digest(sha256(b"body").digest()),
)
GET = Request(method="GET", uri="https://b.example/exchange/v1/checkpoints/00")
INPUT, BASE = signature_input(POST, kid=SIGNER.kid, created=NOW)
HEADER = signature_header(SIGNER.sign(BASE))


@pytest.mark.parametrize("request_", [POST, GET], ids=["with a body", "without"])
def test_a_signed_request_is_read_back_and_its_signature_holds(request_: Request) -> None:
    header_input, base = signature_input(request_, kid=SIGNER.kid, created=NOW)
    signed = parse_signature(request_, header_input, signature_header(SIGNER.sign(base)), NOW)
    assert (signed.kid, signed.base) == (SIGNER.kid, base)
    assert Tw1Verifier().verify("Ed25519", SIGNER.public.public, signed.base, signed.signature)


def test_the_signature_base_is_that_of_rfc_9421() -> None:
    created = int(NOW.timestamp())
    parameters = (
        '("@method" "@target-uri" "content-type" "content-digest")'
        f';created={created};keyid="{SIGNER.kid}";alg="ed25519";tag="tracewire-exchange-1"'
    )
    assert f"tw={parameters}" == INPUT
    assert BASE.decode() == (
        '"@method": POST\n"@target-uri": https://b.example/exchange/v1/messages\n'
        f'"content-type": application/x-ndjson\n"content-digest": {POST.digest}\n"@signature-params": {parameters}'
    )


def test_parameters_in_another_order_are_signed_as_they_came() -> None:
    kid, rest = f';keyid="{SIGNER.kid}"', INPUT.replace(f';keyid="{SIGNER.kid}"', "")
    signed = parse_signature(POST, rest + kid, HEADER, NOW)
    assert signed.base.endswith(kid.encode())


AT = int(NOW.timestamp())
BAD: list[tuple[str, str, str, str]] = [
    ("no Signature-Input", "", HEADER, "httpsig.missing"),
    ("no Signature", INPUT, "", "httpsig.missing"),
    ("another label", INPUT.replace("tw=", "sig1="), HEADER, "httpsig.invalid"),
    ("another label of the signature", INPUT, HEADER.replace("tw=", "sig1="), "httpsig.invalid"),
    ("two signatures", INPUT + ", " + INPUT, HEADER, "httpsig.invalid"),
    ("a component less", INPUT.replace(' "content-digest"', ""), HEADER, "httpsig.components"),
    ("a component more", INPUT.replace(' "content-digest"', ' "content-digest" "date"'), HEADER, "httpsig.components"),
    ("components in another order", INPUT.replace('"@method" "@target-uri"', '"@target-uri" "@method"'), HEADER, "httpsig.components"),
    ("no components", INPUT.replace(INPUT[INPUT.index("("): INPUT.index(")") + 1], "()"), HEADER, "httpsig.components"),
    ("a component parameter", INPUT.replace('"@method"', '"@method";req'), HEADER, "httpsig.invalid"),
    ("no created", INPUT.replace(f";created={AT}", ""), HEADER, "httpsig.invalid"),
    ("no keyid", INPUT.replace(f';keyid="{SIGNER.kid}"', ""), HEADER, "httpsig.invalid"),
    ("no alg", INPUT.replace(';alg="ed25519"', ""), HEADER, "httpsig.invalid"),
    ("no tag", INPUT.replace(';tag="tracewire-exchange-1"', ""), HEADER, "httpsig.invalid"),
    ("expires", INPUT + f";expires={AT + 9}", HEADER, "httpsig.invalid"),
    ("nonce", INPUT + ';nonce="n"', HEADER, "httpsig.invalid"),
    ("a parameter twice", INPUT + f";created={AT}", HEADER, "httpsig.invalid"),
    ("another alg", INPUT.replace("ed25519", "hmac-sha256"), HEADER, "httpsig.invalid"),
    ("another tag", INPUT.replace("exchange-1", "exchange-2"), HEADER, "httpsig.tag"),
    ("created as text", INPUT.replace(f"={AT}", f'="{AT}"'), HEADER, "httpsig.invalid"),
    ("created as a long text", INPUT.replace(f"={AT}", f'="{"9" * 400}"'), HEADER, "httpsig.invalid"),
    ("created as a very long text", INPUT.replace(f"={AT}", f'="{"9" * 5000}"'), HEADER, "httpsig.invalid"),
    ("created of 16 digits", INPUT.replace(f"={AT}", f"={'9' * 16}"), HEADER, "httpsig.invalid"),
    ("created below zero", INPUT.replace(f"={AT}", "=-1"), HEADER, "httpsig.invalid"),
    ("created in other digits", INPUT.replace(f"={AT}", "=\u0661"), HEADER, "httpsig.invalid"),
    ("keyid as a number", INPUT.replace(f'keyid="{SIGNER.kid}"', "keyid=5"), HEADER, "httpsig.invalid"),
    ("a quote in a text", INPUT.replace("exchange-1", 'exchange\\"'), HEADER, "httpsig.invalid"),
    ("301 s old", INPUT.replace(f"={AT}", f"={AT - 301}"), HEADER, "httpsig.time"),
    ("61 s ahead", INPUT.replace(f"={AT}", f"={AT + 61}"), HEADER, "httpsig.time"),
    ("year 30,000,000", INPUT.replace(f"={AT}", f"={'9' * 15}"), HEADER, "httpsig.time"),
    ("a newline", INPUT + "\n", HEADER, "httpsig.invalid"),
    ("a signature of 63 bytes", INPUT, f"tw=:{base64.b64encode(bytes(63)).decode()}:", "httpsig.invalid"),
    ("a signature with spare bits", INPUT, f"tw=:{'A' * 85}B==:", "httpsig.invalid"),
    ("a signature in base64url", INPUT, f"tw=:{'_' * 86}==:", "httpsig.invalid"),
    ("a signature as text", INPUT, HEADER.replace(":", '"'), "httpsig.invalid"),
]  # fmt: skip


@pytest.mark.parametrize(("given_", "header", "code"), [bad[1:] for bad in BAD], ids=[name for name, *_ in BAD])
def test_a_signature_with_one_fault_is_refused(given_: str, header: str, code: str) -> None:
    assert code_of(parse_signature, POST, given_, header, NOW) == code


def test_the_window_is_300_s_back_and_60_s_ahead() -> None:
    for shift in (-300, 60):
        created = NOW + timedelta(seconds=shift)
        parse_signature(POST, signature_input(POST, kid=SIGNER.kid, created=created)[0], HEADER, NOW)


def test_a_signature_for_a_request_without_body_does_not_cover_one_with_a_body() -> None:
    assert (
        code_of(parse_signature, POST, signature_input(GET, kid="k", created=NOW)[0], HEADER, NOW)
        == "httpsig.components"
    )
    assert code_of(parse_signature, GET, INPUT, HEADER, NOW) == "httpsig.components"


@given(hostile(INPUT.encode()), hostile(HEADER.encode()), st.booleans())
def test_any_headers_are_a_signature_or_a_problem(first: bytes, second: bytes, both: bool) -> None:
    total(parse_signature, POST, first.decode("latin-1"), HEADER, NOW)
    total(parse_signature, POST, INPUT, second.decode("utf-8", "surrogateescape"), NOW)


@given(st.binary(min_size=32, max_size=32))
def test_a_content_digest_is_read_back(digest: bytes) -> None:
    assert digest_of(content_digest(digest)) == digest


@pytest.mark.parametrize(
    ("header", "code"),
    [("", "httpsig.digest"), ("sha-256", "httpsig.digest"), ("md5=:AAAA:", "httpsig.digest_alg"),
     ("sha-512=:" + "A" * 86 + "==:", "httpsig.digest_alg"), ("sha-256=:" + "A" * 42 + "B=:", "httpsig.digest"),
     ("sha-256=:AAAA:", "httpsig.digest"), ("sha-256=:A:", "httpsig.digest"), ("sha-256=:" + "A" * 44 + ":", "httpsig.digest"),
     (content_digest(bytes(32)) + ", md5=:AAAA:", "httpsig.digest"), ("SHA-256=:" + "A" * 43 + "=:", "httpsig.digest"),
     (content_digest(bytes(32)) + "\n", "httpsig.digest"), ("sha-256=:" + "_" * 43 + "=:", "httpsig.digest")],
)  # fmt: skip
def test_a_content_digest_with_one_fault_is_refused(header: str, code: str) -> None:
    assert code_of(digest_of, header) == code


@given(hostile(content_digest(bytes(32)).encode()))
def test_any_text_is_a_content_digest_or_a_problem(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    found = total(digest_of, text)
    assert found is None or content_digest(found) == text
