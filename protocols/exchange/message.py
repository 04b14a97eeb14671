"""The message: payload of a JWS compact, padded, with restricted parts named by digest (docs/protocol.md section 2)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from protocols.ledger.entry import count, digest, uuid7
from protocols.limits import (
    ATTACHMENTS_MAX,
    EXPIRES_MAX_S,
    MESSAGE_BYTES_MAX,
    MESSAGE_BYTES_MIN,
    PART_BYTES_MAX,
    PART_BYTES_MIN,
    PARTS_MAX,
)
from protocols.ports.crypto import Sealer, Signer
from protocols.problems import Fault, ProblemError
from protocols.strict import b64u, dump_json, format_time, parse_object, parse_time, unb64u

MEMBER_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}/[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
KID = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]", re.ASCII)  # an RFC 7638 thumbprint: 32 bytes, no spare bits
PART_AAD = b"tracewire part 1"
SALT_BYTES = 32
JWS_TYP = "tracewire-message+jws"
_JWS_BYTES_MAX = MESSAGE_BYTES_MAX * 4 // 3 + 4_096
_NAME = re.compile(r"[a-z][a-z_]{0,31}", re.ASCII)
_TYPE = re.compile(r"[a-z][a-z.-]{0,63}", re.ASCII)
_REQUIRED = ("v", "id", "type", "from", "to", "thread", "created", "expires", "handling", "salt", "body", "pad")
_ORDER = [
    "v",
    "id",
    "type",
    "from",
    "to",
    "thread",
    "in_reply_to",
    "created",
    "expires",
    "due",
    "handling",
    "salt",
    "parts",
    "attachments",
    "body",
    "pad",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRef:
    """How the signed message names a restricted part: digests of its ciphertext and of its key, never the key."""

    name: str
    sha256: bytes
    key_sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachmentRef:
    """How the signed message names an attachment that travels as a blob."""

    name: str
    sha256: bytes
    key_sha256: bytes
    size: int
    media_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A sealed restricted part: its reference, its key, IV || ciphertext || tag."""

    ref: PartRef
    key: bytes
    sealed: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message; `sender` and `recipient` are the members `from` and `to` (`<network>/<member>`)."""

    id: UUID
    type: str
    sender: str
    recipient: str
    thread: UUID
    created: datetime
    expires: datetime
    handling: dict[str, Any]
    salt: bytes
    body: dict[str, Any]
    in_reply_to: UUID | None = None
    due: datetime | None = None
    parts: tuple[PartRef, ...] = ()
    attachments: tuple[AttachmentRef, ...] = ()

    def encode(self) -> bytes:
        """The payload's bytes, padded with spaces to a power of two; `schema.invalid` above 256 KiB."""
        found: dict[str, Any] = {
            "v": 1,
            "id": str(self.id),
            "type": self.type,
            "from": self.sender,
            "to": self.recipient,
            "thread": str(self.thread),
        }
        if self.in_reply_to:
            found["in_reply_to"] = str(self.in_reply_to)
        found |= {"created": format_time(self.created), "expires": format_time(self.expires)}
        if self.due:
            found["due"] = format_time(self.due)
        found |= {"handling": self.handling, "salt": b64u(self.salt)}
        if self.parts:
            found["parts"] = [
                {"name": p.name, "sha256": b64u(p.sha256), "key_sha256": b64u(p.key_sha256)} for p in self.parts
            ]
        if self.attachments:
            found["attachments"] = [
                {
                    "name": a.name,
                    "sha256": b64u(a.sha256),
                    "key_sha256": b64u(a.key_sha256),
                    "size": a.size,
                    "media_type": a.media_type,
                }
                for a in self.attachments
            ]
        found |= {"body": self.body, "pad": ""}
        return pad(dump_json(found), MESSAGE_BYTES_MIN, MESSAGE_BYTES_MAX)


def pad(data: bytes, bytes_min: int, bytes_max: int) -> bytes:
    """`data`, a JSON object that ends in `"pad":""}`, with spaces in that pad up to the next power of two."""
    size = max(bytes_min, 1 << (len(data) - 1).bit_length())
    if size > bytes_max:
        raise ProblemError("schema.invalid", f"longer than {bytes_max} bytes")
    return data[:-2] + b" " * (size - len(data)) + b'"}'


def _check_pad(data: bytes, found: dict[str, Any], bytes_min: int) -> None:
    blanks = found.get("pad")
    if not isinstance(blanks, str) or blanks.strip(" ") or len(data) < bytes_min or len(data) & (len(data) - 1):
        raise _fault("/pad", "not spaces up to a power of two")


def _fault(pointer: str, message: str) -> ProblemError:
    fault = Fault(pointer, "schema.invalid", message, "Write the member as docs/protocol.md section 2 says.")
    return ProblemError("schema.invalid", f"{pointer}: {message}", errors=[fault])


def _member(value: Any, pointer: str) -> str:
    if not isinstance(value, str) or not MEMBER_NAME.fullmatch(value):
        raise _fault(pointer, "not a member name <network>/<member>")
    return value


def _parts(value: Any) -> tuple[PartRef, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= PARTS_MAX:
        raise _fault("/parts", f"not a list of 1..{PARTS_MAX}")
    found = []
    for item in value:
        if not isinstance(item, dict) or list(item) != ["name", "sha256", "key_sha256"]:
            raise _fault("/parts", "a part has name, sha256, key_sha256")
        if not isinstance(item["name"], str) or not _NAME.fullmatch(item["name"]):
            raise _fault("/parts", "malformed part name")
        found.append(PartRef(name=item["name"], sha256=digest(item["sha256"]), key_sha256=digest(item["key_sha256"])))
    if len({part.name for part in found}) != len(found) or len({part.sha256 for part in found}) != len(found):
        raise _fault("/parts", "a part is named twice")
    return tuple(found)


def _attachments(value: Any) -> tuple[AttachmentRef, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= ATTACHMENTS_MAX:
        raise _fault("/attachments", f"not a list of 1..{ATTACHMENTS_MAX}")
    found = []
    for item in value:
        if not isinstance(item, dict) or list(item) != ["name", "sha256", "key_sha256", "size", "media_type"]:
            raise _fault("/attachments", "an attachment has name, sha256, key_sha256, size, media_type")
        if not all(isinstance(item[name], str) and 0 < len(item[name]) <= 128 for name in ("name", "media_type")):
            raise _fault("/attachments", "malformed name or media_type")
        found.append(
            AttachmentRef(
                name=item["name"],
                sha256=digest(item["sha256"]),
                key_sha256=digest(item["key_sha256"]),
                size=count(item["size"]),
                media_type=item["media_type"],
            )
        )
    return tuple(found)


def parse_message(payload: bytes) -> Message:
    """The message of a payload; ProblemError `json.*`, `b64.invalid`, `entry.invalid` or `schema.invalid` else.

    Body and handling are checked by `protocols.messages`; that they are objects is checked here.
    """
    found = parse_object(payload, bytes_max=MESSAGE_BYTES_MAX)
    if not set(_REQUIRED) <= found.keys() <= set(_ORDER) or type(found["v"]) is not int or found["v"] != 1:
        raise _fault("", "unknown version, a member is missing or not known")
    _check_pad(payload, found, MESSAGE_BYTES_MIN)
    if not isinstance(found["type"], str) or not _TYPE.fullmatch(found["type"]):
        raise _fault("/type", "not a message type")
    for name in ("handling", "body"):
        if not isinstance(found[name], dict):
            raise _fault(f"/{name}", "not an object")
    message = Message(
        id=uuid7(found["id"]),
        type=found["type"],
        sender=_member(found["from"], "/from"),
        recipient=_member(found["to"], "/to"),
        thread=uuid7(found["thread"]),
        in_reply_to=uuid7(found["in_reply_to"]) if "in_reply_to" in found else None,
        created=parse_time(found["created"]),
        expires=parse_time(found["expires"]),
        due=parse_time(found["due"]) if "due" in found else None,
        handling=found["handling"],
        salt=unb64u(found["salt"], length=SALT_BYTES),
        parts=_parts(found["parts"]) if "parts" in found else (),
        attachments=_attachments(found["attachments"]) if "attachments" in found else (),
        body=found["body"],
    )
    if not 0 < (message.expires - message.created).total_seconds() <= EXPIRES_MAX_S:
        raise _fault("/expires", "not after created, or more than 90 days")
    return message


def seal_part(name: str, value: Mapping[str, Any], sealer: Sealer) -> Part:
    """A restricted part padded to >= 512 B and encrypted under a fresh key of its own."""
    plain = pad(dump_json({**value, "pad": ""}), PART_BYTES_MIN, PART_BYTES_MAX)
    key = sealer.random(32)
    sealed = sealer.encrypt(key, plain, PART_AAD)
    ref = PartRef(name=name, sha256=sha256(sealed).digest(), key_sha256=sha256(key).digest())
    return Part(ref=ref, key=key, sealed=sealed)


def parse_part(plain: bytes) -> dict[str, Any]:
    """The value of an opened part without its pad; `schema.invalid` or `json.*` else."""
    found = parse_object(plain, bytes_max=PART_BYTES_MAX)
    _check_pad(plain, found, PART_BYTES_MIN)
    del found["pad"]
    return found


def sign_message(payload: bytes, signer: Signer, typ: str = JWS_TYP) -> bytes:
    """JWS compact (RFC 7515) under the protected header {alg Ed25519, typ, kid}."""
    header = dump_json({"alg": "Ed25519", "typ": typ, "kid": signer.kid})
    signed = f"{b64u(header)}.{b64u(payload)}".encode()
    return signed + b"." + b64u(signer.sign(signed)).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedMessage:
    """A parsed JWS whose signature nobody has verified yet."""

    kid: str
    payload: bytes
    signed: bytes
    signature: bytes


def parse_jws(data: bytes, typ: str = JWS_TYP) -> SignedMessage:
    """The pieces of a JWS compact with our closed header; ProblemError `env.*`, `json.*`, `b64.invalid` else."""
    try:
        pieces = data[: _JWS_BYTES_MAX + 1].decode("ascii").split(".")
    except UnicodeDecodeError:
        raise ProblemError("env.format", "JWS is not ASCII") from None
    if len(pieces) != 3 or len(data) > _JWS_BYTES_MAX:
        raise ProblemError("env.format", "not a JWS compact")
    header = parse_object(unb64u(pieces[0]), bytes_max=4_096)
    if header.keys() - {"alg", "typ", "kid"} == {"crit"}:
        raise ProblemError("env.crit", "crit is not allowed")
    if header.keys() != {"alg", "typ", "kid"} or not all(isinstance(value, str) for value in header.values()):
        raise ProblemError("env.header", "the JWS header is alg, typ, kid")
    if header["alg"] != "Ed25519":
        raise ProblemError("env.alg", "the JWS algorithm is Ed25519")
    if header["typ"] != typ:
        raise ProblemError("env.typ", f"not a {typ}")
    if not KID.fullmatch(header["kid"]):
        raise ProblemError("env.kid", "kid is not a thumbprint")
    signed = data[: data.rindex(b".")]
    return SignedMessage(
        kid=header["kid"], payload=unb64u(pieces[1]), signed=signed, signature=unb64u(pieces[2], length=64)
    )
