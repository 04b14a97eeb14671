"""A member's request to the directory: its record, signed by its record key, with proof that it holds every key."""

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from hmac import compare_digest
from textwrap import wrap
from typing import Any

from securesystemslib.formats import encode_canonical
from securesystemslib.signer import Key, Signer, SSlibKey
from tuf.api.metadata import DelegatedRole, Delegations, Targets

from adapters.directory.repository import (
    RECORD_KEY_SCHEME,
    check_file,
    expiry,
    parse_role,
    record_path,
    signed_bytes,
    target_info,
)
from protocols.directory import Record, parse_record
from protocols.jwk import PublicKey
from protocols.ledger.note import VerifierKey
from protocols.limits import MEMBER_REQUEST_BYTES_MAX
from protocols.ports.crypto import Algorithm, Opener, Sealer, Verifier
from protocols.problems import ProblemError
from protocols.strict import b64u, dump_json, parse_object, unb64u

NONCE_BYTES = 32
_POSSESSION = b"tracewire member request 1\0"
_SUCCESSION = b"tracewire record key succession 1\0"
_SEAL = b"tracewire seal possession 1"
# RFC 9881: SEQUENCE { SEQUENCE { OID id-ml-dsa-65 } BIT STRING }, before the 1,952 bytes of the key
_SPKI_MLDSA65 = bytes.fromhex("308207b2300b0609608648016503040312038207a100")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRequest:
    """A parsed request whose record key's signature holds; `data` are its exact bytes, `metadata` the TUF role's."""

    data: bytes
    record: Record
    record_bytes: bytes
    metadata: bytes
    version: int
    record_key: PublicKey
    key: Key
    possession: Mapping[str, bytes]
    succession: bytes
    answer: Mapping[str, bytes]

    @property
    def role(self) -> str:
        """The TUF role: the member's name without its network."""
        return self.record.member.partition("/")[2]

    @property
    def digest(self) -> bytes:
        """SHA-256 of the record: what a challenge is bound to."""
        return sha256(self.record_bytes).digest()


def possession_message(record: bytes) -> bytes:
    """What every signing key of the record signs."""
    return _POSSESSION + record


def succession_message(record: bytes, key: PublicKey) -> bytes:
    """What a record key signs for the one that follows it: which key that is, and with which record."""
    return _SUCCESSION + sha256(record).digest() + key.public


def build_request(
    *,
    record: bytes,
    version: int,
    record_key: PublicKey,
    record_signer: Signer,
    possession: Iterable[tuple[PublicKey, bytes]],
    now: datetime,
    succession: bytes | None = None,
) -> bytes:
    """The request for exact record bytes; `version` is one more than that of the member's last request."""
    path = record_path(parse_record(record).member)
    role = Targets(version=version, expires=expiry(Targets, now), targets={path: target_info(path, record)})
    return dump_json({
        "v": 1,
        "record_key": record_key.jwk,
        "record": b64u(record),
        "metadata": b64u(signed_bytes(role, [record_signer])),
        "possession": {key.kid: b64u(signature) for key, signature in possession},
        **({"succession": b64u(succession)} if succession else {}),
    })  # fmt: skip


def parse_request(data: bytes) -> MemberRequest:
    """The request; `dir.signature` where the record key did not sign it, `dir.*`, `json.*` or `b64.*` else."""
    found = parse_object(data, bytes_max=MEMBER_REQUEST_BYTES_MAX)
    if (
        found.keys() - {"answer", "succession"} != {"v", "record_key", "record", "metadata", "possession"}
        or found["v"] != 1
    ):
        raise ProblemError("dir.invalid", "not a member request of version 1")
    record_bytes, metadata = unb64u(found["record"]), unb64u(found["metadata"])
    record, record_key = parse_record(record_bytes), PublicKey.parse(found["record_key"])
    key = tuf_key(record_key)
    role = record.member.partition("/")[2]
    delegator = Targets(delegations=Delegations({key.keyid: key}, {role: delegated_role(record.member, key)}))
    signed = parse_role(metadata, delegator=delegator, role=role)
    if signed.targets.keys() != {record_path(record.member)} or signed.delegations is not None:
        raise ProblemError("dir.invalid", "the role lists more than the member's record")
    check_file(signed.targets[record_path(record.member)], record_bytes)
    return MemberRequest(
        data=data,
        record=record,
        record_bytes=record_bytes,
        metadata=metadata,
        version=signed.version,
        record_key=record_key,
        key=key,
        possession=_texts(found["possession"]),
        succession=unb64u(found["succession"]) if "succession" in found else b"",
        answer=_texts(found.get("answer", {})),
    )


def check_possession(request: MemberRequest, *, known: Record | None, verifier: Verifier) -> None:
    """`dir.key_pop` unless every signing key signed; not those that ended and were proven in `known`."""
    proven = {key for key, _ in _signing_keys(known)} if known else set()
    message = possession_message(request.record_bytes)
    for key, ended in _signing_keys(request.record):
        signature = request.possession.get(key.kid)
        if signature is None and ended and key in proven:
            continue
        alg: Algorithm = "Ed25519" if key.alg == "Ed25519" else "ML-DSA-44"
        if signature is None or not verifier.verify(alg, key.public, message, signature):
            raise ProblemError("dir.key_pop", "a key of the record did not sign the request")


def endorsed(request: MemberRequest, former: Key, verifier: Verifier) -> bool:
    """Whether the record key that the request's is to follow signed for it."""
    pem = "".join(str(former.keyval["public"]).split("\n")[1:-2])
    public = PublicKey("ML-DSA-65", b64decode(pem)[len(_SPKI_MLDSA65) :])
    message = succession_message(request.record_bytes, request.record_key)
    return verifier.verify("ML-DSA-65", public.public, message, request.succession)


def new_seal_keys(record: Record, known: Record | None) -> list[PublicKey]:
    """The seal keys of a record that its published version does not list."""
    old = {PublicKey.parse(each.jwk) for each in known.keys.seal} if known else set()
    return [key for each in record.keys.seal if (key := PublicKey.parse(each.jwk)) not in old]


def challenge(request: MemberRequest, nonces: Mapping[str, bytes], keys: Iterable[PublicKey], sealer: Sealer) -> bytes:
    """A nonce sealed to each key, bound to this very record; `dir.key_invalid` for a key nobody can seal to."""
    items = []
    for key in keys:
        try:
            wrapped = sealer.wrap(key.public, _SEAL + request.digest)
        except ValueError:
            raise ProblemError("dir.key_invalid", "a seal key is malformed") from None
        sealed = sealer.encrypt(wrapped.cek, nonces[key.kid], _SEAL)
        items.append({
            "kid": key.kid,
            "ek": b64u(wrapped.ek),
            "encrypted_key": b64u(wrapped.encrypted_key),
            "sealed": b64u(sealed),
        })  # fmt: skip
    return dump_json({"v": 1, "member": request.record.member, "keys": items})


def answer_request(data: bytes, challenge: bytes, opener: Opener) -> bytes:
    """The same request with the opened nonces in it; `dir.key_pop` where the challenge is not for its keys."""
    request, answer = parse_request(data), {}
    asked = parse_object(challenge, bytes_max=MEMBER_REQUEST_BYTES_MAX)
    if asked.get("member") != request.record.member or not isinstance(asked.get("keys"), list):
        raise ProblemError("dir.key_pop", "the challenge is for another member's request")
    for item in asked["keys"]:
        fields = item if isinstance(item, dict) else {}
        kid, (ek, key, sealed) = fields.get("kid"), (unb64u(fields.get(n)) for n in ("ek", "encrypted_key", "sealed"))
        cek = opener.unwrap(str(kid), ek, key, _SEAL + request.digest)
        nonce = opener.decrypt(cek, sealed, _SEAL) if cek else None
        if nonce is None:
            raise ProblemError("dir.key_pop", "our seal keys do not open the challenge: is it for this very request?")
        answer[str(kid)] = b64u(nonce)
    return dump_json(parse_object(data, bytes_max=MEMBER_REQUEST_BYTES_MAX) | {"answer": answer})


def check_answer(request: MemberRequest, nonces: Mapping[str, bytes]) -> None:
    """`dir.key_pop` unless the request gives back every nonce."""
    if not all(compare_digest(request.answer.get(kid, b""), nonce) for kid, nonce in nonces.items()):
        raise ProblemError("dir.key_pop", "the answer is not what was sealed")


def tuf_key(key: PublicKey) -> Key:
    """A record key as python-tuf holds it: in one encoding only, under the key id that the TUF specification gives."""
    if key.alg != "ML-DSA-65":
        raise ProblemError("dir.key_use", f"a record key is {key.alg}")
    lines = "\n".join(wrap(b64encode(_SPKI_MLDSA65 + key.public).decode(), 64))
    pem = f"-----BEGIN PUBLIC KEY-----\n{lines}\n-----END PUBLIC KEY-----\n"
    fields: dict[str, Any] = {"keytype": "ml-dsa", "scheme": RECORD_KEY_SCHEME, "keyval": {"public": pem}}
    return SSlibKey(sha256(str(encode_canonical(fields)).encode()).hexdigest(), **fields)


def delegated_role(member: str, key: Key) -> DelegatedRole:
    """The delegation of a member's record to its record key; `dir.invalid` for a name that TUF reserves."""
    role = member.partition("/")[2]
    if role in {"root", "targets", "snapshot", "timestamp"}:
        raise ProblemError("dir.invalid", "TUF reserves this member name")
    return DelegatedRole(role, [key.keyid], threshold=1, terminating=True, paths=[record_path(member)])


def _signing_keys(record: Record) -> list[tuple[PublicKey, bool]]:
    """Every signing key of a record, and whether its use has ended or an end is set."""
    found = [
        (PublicKey.parse(each.jwk), each.revoked is not None or each.not_after is not None)
        for each in (*record.keys.message, *record.keys.request)
    ]
    for ledger in record.ledgers:
        for alg, vkey in zip(("Ed25519", "ML-DSA-44"), ledger.vkeys, strict=True):
            found.append((PublicKey(alg, VerifierKey.parse(vkey).public), ledger.state == "closed"))
    for alg, vkey in zip(("Ed25519", "ML-DSA-44"), record.witness or (), strict=False):
        found.append((PublicKey(alg, VerifierKey.parse(vkey).public), False))
    return found


def _texts(found: Any) -> dict[str, bytes]:
    if not isinstance(found, dict):
        raise ProblemError("dir.invalid", "not an object of base64url texts")
    return {name: unb64u(text) for name, text in found.items()}
