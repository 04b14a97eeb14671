"""Public keys as JWK: exactly the required members, so that one key has one thumbprint."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.jwk import PUBLIC_BYTES, PublicKey
from protocols.strict import b64u, unb64u
from tests.protocols.forms import code_of, json_values, total

OKP = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}


def test_the_thumbprint_is_that_of_rfc_8037() -> None:
    assert PublicKey.parse(OKP).kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@given(st.sampled_from(sorted(PUBLIC_BYTES)), st.binary(min_size=1952, max_size=1952))
def test_a_key_is_read_back(alg: str, public: bytes) -> None:
    key = PublicKey(alg, public[: PUBLIC_BYTES[alg]])
    assert PublicKey.parse(key.jwk) == key
    assert PublicKey.parse(dict(reversed(key.jwk.items()))).kid == key.kid
    assert len(unb64u(key.kid)) == 32


@pytest.mark.parametrize(
    "jwk",
    [None, [], "x", {}, OKP | {"kid": "k"}, OKP | {"alg": "Ed25519"}, OKP | {"d": OKP["x"]}, OKP | {"crv": "X25519"},
     OKP | {"crv": "HPKE-9-KE"}, OKP | {"crv": ["Ed25519"]}, OKP | {"kty": "EC"}, OKP | {"kty": "AKP", "alg": "Ed25519"},
     OKP | {"x": OKP["x"] + "="}, OKP | {"x": OKP["x"][:-1]}, OKP | {"x": "A" * 42 + "B"}, OKP | {"x": 5},
     {"kty": "OKP", "crv": "Ed25519"}, {"kty": "AKP", "alg": "ML-DSA-65", "pub": b64u(bytes(1951))},
     {"kty": "AKP", "alg": "ML-DSA-44", "pub": b64u(bytes(1312))}, {"kty": "oct", "k": "AA"},
     {"kty": "AKP", "alg": "HPKE-9", "pub": b64u(bytes(1216))}, {"kty": "OKP", "alg": "HPKE-9-KE", "pub": b64u(bytes(1216))},
     {"kty": "RSA", "n": "AA", "e": "AQAB"}],
)  # fmt: skip
def test_a_jwk_with_one_fault_is_refused(jwk: Any) -> None:
    assert code_of(PublicKey.parse, jwk) == "dir.key_invalid"


@given(json_values | st.dictionaries(st.sampled_from(["kty", "crv", "alg", "x", "pub"]), json_values | st.sampled_from(["OKP", "AKP", "Ed25519", "ML-DSA-65", OKP["x"]])))  # fmt: skip
def test_any_json_value_is_a_key_or_a_problem(value: Any) -> None:
    found = total(PublicKey.parse, value)
    assert found is None or found.jwk == value
