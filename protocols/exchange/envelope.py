"""The envelope: JWE JSON flattened, HPKE-9-KE around AES-256-GCM (docs/protocol.md section 2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from uuid import UUID

from protocols.exchange.message import KID, MEMBER_NAME, PART_AAD, Message, Part, PartRef
from protocols.ledger.entry import digest, uuid7
from protocols.limits import ENVELOPE_BYTES_MAX, PARTS_MAX
from protocols.ports.crypto import Opener, Sealer
from protocols.problems import ProblemError
from protocols.strict import b64u, dump_json, format_time, parse_object, parse_time, unb64u

ALG = "HPKE-9-KE"
ENC = "A256GCM"
EK_BYTES = 1_120
_WRAPPED_BYTES = 48
_FIXED = {"alg": ALG, "enc": ENC, "typ": "tracewire-envelope+jwe", "cty": "tracewire-message+jws"}
_HEADER = ("alg", "enc", "kid", "ek", "typ", "cty", "from", "to", "id", "expires")
_MEMBERS = ("protected", "encrypted_key", "iv", "ciphertext", "tag")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What everybody on the way sees; `sender` and `recipient` are the members `from` and `to`."""

    kid: str
    sender: str
    recipient: str
    id: UUID
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A parsed envelope that nobody has opened yet; `sha256` is that of its exact bytes."""

    header: Header
    ek: bytes
    encrypted_key: bytes
    sealed: bytes
    aad: bytes
    sha256: bytes


def recipient_structure(extra: bytes) -> bytes:
    """HPKE `info`: the draft's Recipient_structure; `extra` is recipient_extra_info."""
    return b"JOSE-HPKE rcpt\xff" + ENC.encode() + b"\xff" + extra


def _info(sender: str, recipient: str, id_: UUID, kid: str) -> bytes:
    texts = [text.encode() for text in (sender, recipient, str(id_), kid)]
    return recipient_structure(sha256(b"".join(len(text).to_bytes(2, "big") + text for text in texts)).digest())


def seal(
    *,
    jws: bytes,
    message: Message,
    parts: Sequence[Part],
    kid: str,
    public: bytes,
    sealer: Sealer,
    keys: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """The envelope's bytes, sealed to the recipient's seal key; `dir.key_invalid` for a malformed key.

    `keys` are those of the attachments, by digest.
    """
    every = {part.ref.sha256: part.key for part in parts} | dict(keys or {})
    lines = [jws, dump_json({b64u(digest_): b64u(key) for digest_, key in every.items()})]
    lines += [b64u(part.sealed).encode() for part in parts]
    try:
        wrapped = sealer.wrap(public, _info(message.sender, message.recipient, message.id, kid))
    except ValueError:
        raise ProblemError("dir.key_invalid", "the recipient's seal key is malformed") from None
    header = {
        "alg": ALG,
        "enc": ENC,
        "kid": kid,
        "ek": b64u(wrapped.ek),
        "typ": _FIXED["typ"],
        "cty": _FIXED["cty"],
        "from": message.sender,
        "to": message.recipient,
        "id": str(message.id),
        "expires": format_time(message.expires),
    }
    protected = b64u(dump_json(header))
    sealed = sealer.encrypt(wrapped.cek, b"\n".join(lines), protected.encode())
    envelope = {
        "protected": protected,
        "encrypted_key": b64u(wrapped.encrypted_key),
        "iv": b64u(sealed[:12]),
        "ciphertext": b64u(sealed[12:-16]),
        "tag": b64u(sealed[-16:]),
    }
    data = dump_json(envelope)
    if len(data) > ENVELOPE_BYTES_MAX:
        raise ProblemError("schema.invalid", f"the envelope is longer than {ENVELOPE_BYTES_MAX} bytes")
    return data


def parse_envelope(data: bytes) -> Envelope:
    """The envelope of its exact bytes; ProblemError `env.*`, `json.*`, `b64.invalid` or `schema.invalid` else."""
    if data[:1] != b"{":
        raise ProblemError("env.format", "not a JWE in JSON")
    found = parse_object(data, bytes_max=ENVELOPE_BYTES_MAX)
    if found.keys() != set(_MEMBERS) or not all(isinstance(value, str) for value in found.values()):
        extra = found.keys() & {"header", "unprotected", "aad"}
        raise ProblemError("env.header" if extra else "env.format", "not a JWE JSON flattened with our members")
    header = parse_object(unb64u(found["protected"]), bytes_max=8_192)
    if header.keys() - set(_HEADER) == {"crit"}:
        raise ProblemError("env.crit", "crit is not allowed")
    if header.get("alg") != ALG:
        raise ProblemError("env.alg" if isinstance(header.get("alg"), str) else "env.header", "alg is HPKE-9-KE")
    if header.keys() != set(_HEADER) or not all(isinstance(value, str) for value in header.values()):
        raise ProblemError("env.header", "the header set is closed")
    if header["enc"] != ENC:
        raise ProblemError("env.decrypt", "cannot be opened")
    if any(header[name] != value for name, value in _FIXED.items()):
        raise ProblemError("env.typ", "not an envelope of ours")
    if not KID.fullmatch(header["kid"]):
        raise ProblemError("env.kid", "kid is not a thumbprint")
    if not all(MEMBER_NAME.fullmatch(header[name]) for name in ("from", "to")):
        raise ProblemError("env.header", "from and to are member names")
    iv, tag = unb64u(found["iv"]), unb64u(found["tag"])
    ek, encrypted_key = unb64u(header["ek"]), unb64u(found["encrypted_key"])
    if (len(iv), len(tag), len(ek), len(encrypted_key)) != (12, 16, EK_BYTES, _WRAPPED_BYTES):
        raise ProblemError("env.decrypt", "cannot be opened")
    return Envelope(
        header=Header(
            kid=header["kid"],
            sender=header["from"],
            recipient=header["to"],
            id=uuid7(header["id"]),
            expires=parse_time(header["expires"]),
        ),
        ek=ek,
        encrypted_key=encrypted_key,
        sealed=iv + unb64u(found["ciphertext"]) + tag,
        aad=found["protected"].encode(),
        sha256=sha256(data).digest(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An opened envelope: the JWS, part keys by ciphertext digest, the parts' sealed bytes in order."""

    jws: bytes
    keys: dict[bytes, bytes]
    sealed_parts: tuple[bytes, ...]


def open_envelope(envelope: Envelope, opener: Opener) -> Opened:
    """What was sealed to us; `env.decrypt` for every failure of key or ciphertext, `env.format` for a bad inside."""
    header = envelope.header
    info = _info(header.sender, header.recipient, header.id, header.kid)
    cek = opener.unwrap(header.kid, envelope.ek, envelope.encrypted_key, info)
    # the same calls whether or not the key opened: no oracle
    plain = opener.decrypt(cek or bytes(32), envelope.sealed, envelope.aad)
    if cek is None or plain is None:
        raise ProblemError("env.decrypt", "cannot be opened")
    lines = plain.split(b"\n")
    if not 2 <= len(lines) <= 2 + PARTS_MAX:
        raise ProblemError("env.format", "not JWS, keys and parts")
    keys = parse_object(lines[1], bytes_max=16_384)
    parts = []
    for line in lines[2:]:
        try:
            parts.append(unb64u(line.decode("ascii")))
        except UnicodeDecodeError:
            raise ProblemError("env.format", "a part is not base64url") from None
    return Opened(
        jws=lines[0],
        keys={digest(name): unb64u(key, length=32) for name, key in keys.items()},
        sealed_parts=tuple(parts),
    )


def parts_of(refs: Sequence[PartRef], opened: Opened) -> tuple[Part, ...]:
    """The restricted parts of an opened envelope; `env.parts` unless parts and keys are exactly those named."""
    digests = [sha256(sealed).digest() for sealed in opened.sealed_parts]
    if digests != [ref.sha256 for ref in refs] or not set(digests) <= opened.keys.keys():
        raise ProblemError("env.parts", "the parts are not those that the message names")
    keys = [opened.keys[ref.sha256] for ref in refs]
    if any(sha256(key).digest() != ref.key_sha256 for key, ref in zip(keys, refs, strict=True)):
        raise ProblemError("env.parts", "a part's key is not the one that the message names")
    return tuple(
        Part(ref=ref, key=key, sealed=sealed) for ref, key, sealed in zip(refs, keys, opened.sealed_parts, strict=True)
    )


def attachment_keys(message: Message, opened: Opened) -> dict[bytes, bytes]:
    """The attachments' keys by digest; `env.parts` unless all keys are exactly those of parts and attachments."""
    named = {ref.sha256: ref.key_sha256 for ref in message.attachments}
    if opened.keys.keys() != named.keys() | {ref.sha256 for ref in message.parts}:
        raise ProblemError("env.parts", "the keys are not those of what the message names")
    if any(sha256(opened.keys[digest_]).digest() != key for digest_, key in named.items()):
        raise ProblemError("env.parts", "an attachment's key is not the one that the message names")
    return {digest_: opened.keys[digest_] for digest_ in named}


def open_part(part: Part, opener: Opener) -> bytes:
    """The padded plaintext of a restricted part; `env.parts` where it does not open under its key."""
    plain = opener.decrypt(part.key, part.sealed, PART_AAD)
    if plain is None:
        raise ProblemError("env.parts", "a part does not open under the key that the message names")
    return plain
