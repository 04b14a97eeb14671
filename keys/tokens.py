"""OAuth 2 client credentials with private_key_jwt (RFC 7523) and the five-minute access tokens of this node (RFC 9068).

PyJWT is no strict parser and reads the clock itself: it only checks signatures here; form, claims and times are ours.
"""

import secrets
from datetime import datetime
from functools import lru_cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from keys.keystore import KeyStore
from protocols.codes import LISTS
from protocols.jwk import PublicKey
from protocols.ports.access import Caller, Client
from protocols.problems import ProblemError
from protocols.strict import b64u, dump_json, parse_object, unb64u

TOKEN_LIFE_S = 300
_LATE_S = 120  # a process may sign with the former key until it looks again, each minute
_AHEAD_MAX_S = 60  # how far a client's clock may run before ours
_TOKEN_CHARS_MAX = 8 * 1024
_ID_CHARS_MAX = 200
_SEEN_MAX = 65_536  # assertions remembered until they expire
_VERIFIED_MAX = 1_024  # tokens whose signature need not be checked again
_ACCESS_TYP = "at+jwt"
_PURPOSE = "purpose_of_use"  # as IHE IUA calls it
_ASSERTION_TYPS = ("JWT", "client-authentication+jwt")


class TokenAccess:
    """The port Access. `issuer` names the node, `audience` is the URL of its token endpoint.

    A token key that was changed still vouches for the tokens that it signed; one that was revoked is gone.
    """

    def __init__(self, keys: KeyStore, *, issuer: str, audience: str) -> None:
        self._keys, self._signer = keys, keys.current_signer("token")
        self._issuer = issuer
        self._audience = audience
        self._seen: dict[tuple[str, str], int] = {}  # (client, jti) -> exp
        self._verified = lru_cache(_VERIFIED_MAX)(self._own_claims)

    def claimed_client(self, assertion: str) -> str:
        """The client id an assertion claims, unverified."""
        return _text(_split(assertion, _ASSERTION_TYPS)[1], "iss")

    def issue(self, assertion: str, client: Client | None, now: datetime, scopes: frozenset[str] | None = None) -> str:
        """A token for a client that proved its key and speaks for the actor it names."""
        if client is None:
            raise _invalid("no such client at this node: see `tracewire client list`")
        claims = _verified_claims(assertion, _ASSERTION_TYPS, client.jwk)
        now_s = now.timestamp()
        if _text(claims, "iss") != client.id or _text(claims, "sub") != client.id:
            raise _invalid("iss and sub must be the client's id")
        if claims.get("aud") not in (self._audience, [self._audience]):
            raise _invalid(f"aud must be {self._audience}")
        _check_times(claims, now_s)
        actor, jti = _text(claims, "actor"), _text(claims, "jti")
        if actor not in client.actors:
            raise _invalid("the client does not speak for this actor: `tracewire client list` shows for whom it does")
        purpose = _text(claims, _PURPOSE) if _PURPOSE in claims else ""
        if purpose and purpose not in LISTS["purpose"]:
            raise _invalid(f"{_PURPOSE} must be one of {', '.join(sorted(LISTS['purpose']))}")
        granted = client.scopes if scopes is None else scopes
        if not granted <= client.scopes:
            raise ProblemError("auth.scope", "the client was not registered with every scope it asks for")
        self._remember((client.id, jti), _int(claims, "exp"), now_s)
        return self._sign(Caller(client=client.id, actor=actor, scopes=granted, purpose=purpose), int(now_s))

    def authenticate(self, token: str, now: datetime) -> Caller:
        """The caller of one of our tokens; `auth.invalid` for everything else."""
        claims, kid = self._verified(token)
        if self._keys.token_key(kid) is None:
            raise _invalid("its key was revoked")
        _check_times(claims, now.timestamp())
        act = claims.get("act")
        if _text(claims, "iss") != self._issuer or not isinstance(act, dict):
            raise _invalid("not a token of this node")
        scope = claims.get("scope")
        scopes = frozenset(scope.split()) if isinstance(scope, str) else frozenset[str]()
        purpose = _text(claims, _PURPOSE) if _PURPOSE in claims else ""
        return Caller(client=_text(claims, "sub"), actor=_text(act, "sub"), scopes=scopes, purpose=purpose)

    def _own_claims(self, token: str) -> tuple[dict[str, Any], str]:
        header, said = _split(token, (_ACCESS_TYP,))
        kid = str(header.get("kid"))
        key = self._keys.token_key(kid)
        if key is None:
            raise _invalid("not a token of this node")
        if key.retired is not None and _int(said, "iat") > key.retired.timestamp() + _LATE_S:
            raise _invalid("signed after its key was changed")
        return _verified_claims(token, (_ACCESS_TYP,), key.public.jwk), kid

    def _sign(self, caller: Caller, now_s: int) -> str:
        header = {"alg": "EdDSA", "typ": _ACCESS_TYP, "kid": self._signer.kid}
        claims = {
            "iss": self._issuer,
            "sub": caller.client,
            "act": {"sub": caller.actor},
            "scope": " ".join(sorted(caller.scopes)),
            **({_PURPOSE: caller.purpose} if caller.purpose else {}),
            "iat": now_s,
            "exp": now_s + TOKEN_LIFE_S,
            "jti": secrets.token_urlsafe(16),
        }
        signed = f"{b64u(dump_json(header))}.{b64u(dump_json(claims))}"
        return f"{signed}.{b64u(self._signer.sign(signed.encode()))}"

    def _remember(self, place: tuple[str, str], expires_s: int, now_s: float) -> None:
        if self._seen.get(place, 0) > now_s:
            raise _invalid("the assertion was used before")
        if len(self._seen) >= _SEEN_MAX:
            self._seen = {each: until for each, until in self._seen.items() if until > now_s}
            if len(self._seen) >= _SEEN_MAX:
                raise ProblemError("store.busy", "too many tokens were asked for in five minutes")
        self._seen[place] = expires_s


def new_client_key() -> tuple[bytes, dict[str, str]]:
    """A client's fresh key: the private half as PEM (PKCS #8) for its file, the public half as JWK for `client add`."""
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem, dict(PublicKey("Ed25519", private.public_key().public_bytes_raw()).jwk)


def client_assertion(
    private: bytes, client_id: str, actor: str, audience: str, now: datetime, *, purpose: str = ""
) -> str:
    """The assertion a client sends to the token endpoint at `audience`; `private` is its PEM."""
    try:
        key = load_pem_private_key(private, None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ProblemError("key.store", "the client's key file is not an Ed25519 key in PEM without passphrase")
    now_s = int(now.timestamp())
    claims = {"iss": client_id, "sub": client_id, "aud": audience, "actor": actor, "jti": secrets.token_urlsafe(16)}
    claims |= {_PURPOSE: purpose} if purpose else {}
    return jwt.encode(claims | {"iat": now_s, "exp": now_s + 60}, key, algorithm="EdDSA")


def _invalid(detail: str) -> ProblemError:
    return ProblemError("auth.invalid", detail)


def _split(token: str, typs: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims in strict form, unverified."""
    pieces = token.split(".") if len(token) <= _TOKEN_CHARS_MAX and token.isascii() else []
    if len(pieces) != 3:
        raise _invalid("not a JWT")
    try:
        header, claims = (parse_object(unb64u(piece), bytes_max=_TOKEN_CHARS_MAX) for piece in pieces[:2])
        unb64u(pieces[2], length=64)
    except ProblemError:
        raise _invalid("not a JWT in strict form") from None
    if header.get("alg") != "EdDSA" or header.get("typ") not in typs or not header.keys() <= {"alg", "typ", "kid"}:
        raise _invalid("the header must be alg EdDSA, the typ of this use, and at most a kid")
    return header, claims


def _verified_claims(token: str, typs: tuple[str, ...], jwk: Any) -> dict[str, Any]:
    _, claims = _split(token, typs)
    try:
        public = PublicKey.parse(dict(jwk))
        key = Ed25519PublicKey.from_public_bytes(public.public)
        jwt.PyJWS().decode(token, key, algorithms=["EdDSA"])
    except (ProblemError, ValueError, TypeError, jwt.PyJWTError):
        raise _invalid("the signature does not hold") from None
    return claims


def _check_times(claims: dict[str, Any], now_s: float) -> None:
    issued, expires = _int(claims, "iat"), _int(claims, "exp")
    start = _int(claims, "nbf") if "nbf" in claims else issued
    if expires <= now_s or expires > issued + TOKEN_LIFE_S:
        raise _invalid("expired, or made for more than five minutes")
    if max(issued, start) > now_s + _AHEAD_MAX_S:
        raise _invalid("not yet valid: check the clocks")


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _ID_CHARS_MAX:
        raise _invalid(f"{name} is missing")
    return value


def _int(claims: dict[str, Any], name: str) -> int:
    value = claims.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _invalid(f"{name} must be whole seconds")
    return value
