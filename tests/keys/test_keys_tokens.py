"""Client assertions and access tokens: what is accepted, and each way to be refused."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from keys.keystore import KeyStore
from keys.secret import Secret
from keys.tokens import TokenAccess, client_assertion, new_client_key
from protocols.ports.access import Access, Caller, Client
from protocols.problems import ProblemError
from protocols.strict import b64u, dump_json

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
NOW_S = int(NOW.timestamp())
AUDIENCE = "https://node.example/v1/token"
PEM, JWK = new_client_key()
CLIENT = Client(id="local", jwk=JWK, actors=frozenset({"A"}), scopes=frozenset({"trace", "read"}))
CLAIMS = {"iss": "local", "sub": "local", "aud": AUDIENCE, "actor": "A", "jti": "1", "iat": NOW_S, "exp": NOW_S + 60}


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return store_in(tmp_path / "keys")


def store_in(folder: Path) -> KeyStore:
    secret = folder.with_name(f"{folder.name}.secret")
    Secret.make_key_file(secret)
    store = KeyStore.create(folder, Secret.key_file(secret))
    store.add("token")
    return store


@pytest.fixture
def access(store: KeyStore) -> Access:
    return TokenAccess(store, issuer="test/registry", audience=AUDIENCE)


def assertion(pem: bytes = PEM, headers: dict[str, Any] | None = None, **claims: Any) -> str:
    whole = {name: value for name, value in (CLAIMS | claims).items() if value is not None}
    return jwt.encode(whole, load_pem_private_key(pem, None), algorithm="EdDSA", headers=headers)  # type: ignore[arg-type]


def refused(access: Access, text: str, client: Client | None = CLIENT, now: datetime = NOW) -> None:
    with pytest.raises(ProblemError) as caught:
        access.issue(text, client, now)
    assert caught.value.code == "auth.invalid"


def test_a_client_gets_a_token_that_names_its_actor_and_scopes(access: Access) -> None:
    text = client_assertion(PEM, "local", "A", AUDIENCE, NOW)
    assert access.claimed_client(text) == "local"
    token = access.issue(text, CLIENT, NOW)
    assert access.authenticate(token, NOW) == Caller(client="local", actor="A", scopes=CLIENT.scopes)
    assert jwt.get_unverified_header(token)["typ"] == "at+jwt"


def test_a_token_may_have_fewer_scopes_but_never_more(access: Access) -> None:
    token = access.issue(assertion(jti="a"), CLIENT, NOW, frozenset({"read"}))
    assert access.authenticate(token, NOW).scopes == {"read"}
    with pytest.raises(ProblemError, match=r"auth.scope"):
        access.issue(assertion(jti="b"), CLIENT, NOW, frozenset({"read", "approve"}))


def test_a_token_ends_after_five_minutes(access: Access) -> None:
    token = access.issue(assertion(), CLIENT, NOW)
    assert access.authenticate(token, NOW + timedelta(seconds=299)).client == "local"
    with pytest.raises(ProblemError, match=r"auth.invalid"):
        access.authenticate(token, NOW + timedelta(seconds=300))
    with pytest.raises(ProblemError, match=r"auth.invalid"):
        access.authenticate(token, NOW - timedelta(seconds=61))


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW_S},
        {"exp": NOW_S + 301},
        {"exp": None},
        {"exp": str(NOW_S + 60)},
        {"exp": True},
        {"iat": None},
        {"iat": NOW_S + 61, "exp": NOW_S + 100},
        {"nbf": NOW_S + 61},
        {"aud": "https://other.example/v1/token"},
        {"aud": [AUDIENCE, "https://other.example/v1/token"]},
        {"aud": None},
        {"iss": "other"},
        {"sub": "other"},
        {"actor": "B"},
        {"actor": None},
        {"actor": ["A"]},
        {"jti": None},
        {"jti": ""},
    ],
    ids=str,
)
def test_an_assertion_with_one_wrong_claim_is_refused(access: Access, claims: dict[str, Any]) -> None:
    refused(access, assertion(**claims))
    assert access.issue(assertion(), CLIENT, NOW)  # without that fault it is good


def test_an_assertion_counts_once(access: Access) -> None:
    text = assertion()
    access.issue(text, CLIENT, NOW)
    refused(access, text)
    refused(access, assertion(exp=NOW_S + 50))


def test_an_unknown_client_or_another_key_is_refused(access: Access) -> None:
    refused(access, assertion(), None)
    refused(access, assertion(new_client_key()[0]))
    refused(access, assertion(), Client(id="local", jwk={"kty": "RSA"}, actors=CLIENT.actors, scopes=CLIENT.scopes))


def test_another_algorithm_is_refused(access: Access) -> None:
    claims = b64u(dump_json(CLAIMS))
    refused(access, f"{b64u(dump_json({'alg': 'none', 'typ': 'JWT'}))}.{claims}.")
    secret = JWK["x"].encode()
    refused(access, jwt.encode(CLAIMS, secret, algorithm="HS256"))


@pytest.mark.parametrize(
    "headers",
    [{"crit": ["b64"], "b64": True}, {"jwk": JWK}, {"typ": "at+jwt"}, {"typ": None}, {"jku": "https://x"}],
    ids=["crit", "jwk", "another typ", "no typ", "jku"],
)
def test_a_header_beyond_the_closed_set_is_refused(access: Access, headers: dict[str, Any]) -> None:
    refused(access, assertion(headers=headers))


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "a.b.c", "é.é.é", "\ud800", "a" * 100_000, "e30.e30.AA", "W10.W10." + "A" * 86],
    ids=range(9),
)
def test_what_is_no_jwt_is_refused_everywhere(access: Access, text: str) -> None:
    refused(access, text)
    for call in (access.claimed_client, lambda each: access.authenticate(each, NOW)):
        with pytest.raises(ProblemError, match=r"auth.invalid"):
            call(text)


def test_a_duplicate_claim_is_refused(access: Access) -> None:
    head, _, _ = assertion().split(".")
    doubled = b64u(dump_json(CLAIMS)[:-1] + b',"actor":"A"}')
    key = load_pem_private_key(PEM, None)
    refused(access, f"{head}.{doubled}.{b64u(key.sign(f'{head}.{doubled}'.encode()))}")  # type: ignore[union-attr,call-arg]


def test_an_assertion_is_no_token_and_a_foreign_or_changed_token_is_refused(
    access: Access, store: KeyStore, tmp_path: Path
) -> None:
    token = access.issue(assertion(), CLIENT, NOW)
    foreign = TokenAccess(store_in(tmp_path / "foreign"), issuer="test/registry", audience=AUDIENCE)
    other_node = TokenAccess(store, issuer="test/other", audience=AUDIENCE)
    head, claims, signature = token.split(".")
    for wrong in (
        assertion(jti="2"),
        foreign.issue(assertion(jti="3"), CLIENT, NOW),
        other_node.issue(assertion(jti="4"), CLIENT, NOW),
        f"{head}.{claims}.{signature[::-1]}",
        f"{head}.{claims}",
        f"{token}=",
    ):
        with pytest.raises(ProblemError, match=r"auth.invalid"):
            access.authenticate(wrong, NOW)


def test_a_file_that_is_no_client_key_is_told_apart() -> None:
    with pytest.raises(ProblemError, match=r"key.store"):
        client_assertion(b"no key", "local", "A", AUDIENCE, NOW)


def test_a_token_says_what_content_is_read_for_if_its_client_does(access: Access) -> None:
    text = client_assertion(PEM, "local", "A", AUDIENCE, NOW, purpose="TRACING")
    assert access.authenticate(access.issue(text, CLIENT, NOW), NOW).purpose == "TRACING"
    assert access.authenticate(access.issue(assertion(jti="none"), CLIENT, NOW), NOW).purpose == ""
    refused(access, client_assertion(PEM, "local", "A", AUDIENCE, NOW, purpose="CURIOSITY"), CLIENT)


def test_a_changed_token_key_vouches_for_what_it_signed_and_for_nothing_later(
    access: Access, store: KeyStore, tmp_path: Path
) -> None:
    before = access.issue(assertion(jti="1"), CLIENT, NOW)
    other = TokenAccess(
        KeyStore.open(tmp_path / "keys", Secret.key_file(tmp_path / "keys.secret")),
        issuer="test/registry",
        audience=AUDIENCE,
    )
    store.add("token")
    store.promote("token", NOW)
    after = access.issue(assertion(jti="2"), CLIENT, NOW)
    kids = {jwt.get_unverified_header(token)["kid"] for token in (before, after)}
    assert len(kids) == 2
    late = other.issue(assertion(jti="3", iat=NOW_S + 300, exp=NOW_S + 360), CLIENT, NOW + timedelta(minutes=5))
    for token in (before, after):
        assert access.authenticate(token, NOW + timedelta(minutes=1)).client == "local"
        assert other.authenticate(token, NOW).client == "local", "another process of the node learns of it"
    with pytest.raises(ProblemError, match=r"signed after its key was changed"):
        access.authenticate(late, NOW + timedelta(minutes=5))


def test_a_revoked_token_key_vouches_for_nothing(access: Access, store: KeyStore) -> None:
    token = access.issue(assertion(), CLIENT, NOW)
    assert access.authenticate(token, NOW).client == "local"
    kid = store.public("token")[0].kid
    store.add("token")
    store.promote("token", NOW)
    store.drop(kid)
    with pytest.raises(ProblemError, match=r"auth.invalid"):
        access.authenticate(token, NOW)
