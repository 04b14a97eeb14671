"""The ledger entry: one JSON object, members in a fixed order, one closed table of kinds (docs/protocol.md section 3)."""

import hmac
import re
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from operator import attrgetter
from typing import Any
from uuid import UUID

from protocols.limits import ENTRY_BYTES_MAX
from protocols.problems import ProblemError
from protocols.strict import b64u, dump_json, format_time, parse_object, parse_time, unb64u

NONCE_BYTES = 16
_ORDER = (
    "v",
    "kind",
    "at",
    "id",
    "from",
    "to",
    "via",
    "pair_seq",
    "kid",
    "seal_kid",
    "suite",
    "envelope",
    "content_c",
    "thread_c",
    "code",
    "read",
    "actor_c",
    "dir",
    "peer",
    "first",
    "n",
)
_ALWAYS = frozenset(("v", "kind", "at", "n"))


def _kind(required: str, optional: str = "") -> tuple[frozenset[str], frozenset[str]]:
    needed = _ALWAYS | set(required.split())
    return needed, needed | set(optional.split())


_EXCHANGE = "id from to pair_seq envelope dir"
KINDS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "sent": _kind(f"{_EXCHANGE} kid seal_kid suite content_c thread_c actor_c", "peer"),
    "received": _kind(f"{_EXCHANGE} kid seal_kid suite content_c thread_c peer", "via"),
    "refused": _kind(f"{_EXCHANGE} code read peer", "via content_c"),
    "receipt": _kind(f"{_EXCHANGE} content_c peer", "code"),
    "undelivered": _kind(f"{_EXCHANGE} content_c code"),
    "id_conflict": _kind(f"{_EXCHANGE} peer first", "via content_c"),
    "relayed": _kind(f"{_EXCHANGE} via peer"),
    "dispatched": _kind("id from to content_c", "actor_c"),
    "opened": _kind("id from to content_c actor_c code"),
    "erased": _kind("code", "id from to content_c actor_c"),
    "key": _kind("code kid"),
    "directory": _kind("dir"),
    "peer-checkpoint": _kind("peer"),
    "admin": _kind("code", "id from to content_c actor_c"),
    "ledger-opened": _kind("from dir", "peer"),
    "ledger-closed": _kind("from"),
}
"""kind -> (members that must stand, members that may)."""

REFUSED_CODES = frozenset(
    ("env.invalid", "schema.invalid", "type.unknown", "msg.expired", "msg.not_permitted", "msg.correlation")
)
UNDELIVERED_CODES = frozenset(("expired", "key.revoked", "content.erased", "dropped"))
RECEIPT_KINDS = frozenset(("received", "refused", "id_conflict"))
_ERASED = re.compile(r"content/([A-Z0-9_]+)/\d{4}-\d\d-\d\d", re.ASCII)
GROUND_KEPT = "DELETE_AFTER"
"""The ground of what nobody asked for: the day after which its sender lets nobody keep it."""
GROUND_RETENTION = "RETENTION_ENDED"
"""The other: the member keeps nothing for longer than it said in its settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirRef:
    """The TUF snapshot in force: version and SHA-256 of snapshot.json."""

    version: int
    sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRef:
    """An entry (or, without index and leaf, a checkpoint) of another ledger, or an earlier one of ours."""

    origin: str
    index: int | None = None
    leaf: bytes | None = None
    size: int | None = None
    root: bytes | None = None

    def members(self) -> dict[str, Any]:
        """As a JSON value, absent members left out."""
        found: dict[str, Any] = {"origin": self.origin}
        for name in ("index", "leaf", "size", "root"):
            value = getattr(self, name)
            if value is not None:
                found[name] = b64u(value) if isinstance(value, bytes) else value
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry; `sender` and `recipient` are the members `from` and `to`; digests and `n` are raw bytes."""

    kind: str
    at: datetime
    n: bytes
    id: UUID | None = None
    sender: str | None = None
    recipient: str | None = None
    via: str | None = None
    pair_seq: int | None = None
    kid: str | None = None
    seal_kid: str | None = None
    suite: str | None = None
    envelope: bytes | None = None
    content_c: bytes | None = None
    thread_c: bytes | None = None
    code: str | None = None
    read: bool | None = None
    actor_c: bytes | None = None
    dir: DirRef | None = None
    peer: PeerRef | None = None
    first: PeerRef | None = None

    def encode(self) -> bytes:
        """The entry's exact bytes; ValueError where the members do not fit the kind (a bug of ours)."""
        found: dict[str, Any] = {"v": 1, "kind": self.kind, "at": format_time(self.at)}
        for name, value in zip(_ORDER[3:], _MEMBERS(self), strict=True):
            if value is not None:
                found[name] = _WRITE[name](value) if name in _WRITE else value
        required, allowed = KINDS[self.kind]
        if not required <= found.keys() <= allowed:
            raise ValueError(f"members do not fit kind {self.kind}: {sorted(found.keys() ^ required)}")
        data = dump_json(found)
        if len(data) > ENTRY_BYTES_MAX:
            raise ValueError("entry is too long")
        return data

    def with_seq(self, pair_seq: int) -> "Entry":
        """The same entry under a sequence number of its ordered pair."""
        return replace(self, pair_seq=pair_seq)


_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)
_ATTRIBUTE = {"from": "sender", "to": "recipient"}
_MEMBERS = attrgetter(*(_ATTRIBUTE.get(name, name) for name in _ORDER[3:]))
_WRITE: dict[str, Any] = {
    "id": str,
    "envelope": b64u,
    "content_c": b64u,
    "thread_c": b64u,
    "actor_c": b64u,
    "n": b64u,
    "dir": lambda ref: {"version": ref.version, "sha256": b64u(ref.sha256)},
    "peer": PeerRef.members,
    "first": PeerRef.members,
}


def _text(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 256:
        raise ProblemError("entry.invalid", "not a text")
    return value


def count(value: Any) -> int:
    """A natural number of strict JSON."""
    if type(value) is not int or value < 0:
        raise ProblemError("entry.invalid", "not a natural number")
    return value


def digest(value: Any) -> bytes:
    """32 bytes in base64url."""
    return unb64u(value, length=32)


def uuid7(value: Any) -> UUID:
    """A UUIDv7 in its canonical text."""
    if not isinstance(value, str) or not _UUID7.fullmatch(value):
        raise ProblemError("entry.invalid", "not a UUIDv7 in canonical form")
    return UUID(value)


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ProblemError("entry.invalid", "not true or false")
    return value


def _dir(value: Any) -> DirRef:
    if not isinstance(value, dict) or list(value) != ["version", "sha256"]:
        raise ProblemError("entry.invalid", "dir is version and sha256")
    return DirRef(version=count(value["version"]), sha256=digest(value["sha256"]))


_PEER_READ: dict[str, Any] = {"origin": _text, "index": count, "leaf": digest, "size": count, "root": digest}


@lru_cache(maxsize=1_024)
def _in_order(names: tuple[str, ...], order: tuple[str, ...]) -> bool:
    """Whether these are names of that order, each once."""
    return names == tuple(name for name in order if name in names)


def _peer(value: Any) -> PeerRef:
    if not isinstance(value, dict) or "origin" not in value or not _in_order(tuple(value), tuple(_PEER_READ)):
        raise ProblemError("entry.invalid", "peer names origin, index, leaf, size, root")
    return PeerRef(**{name: _PEER_READ[name](member) for name, member in value.items()})


_READ: dict[str, Any] = {
    "id": uuid7, "from": _text, "to": _text, "via": _text, "pair_seq": count, "kid": _text, "seal_kid": _text,
    "suite": _text, "envelope": digest, "content_c": digest, "thread_c": digest, "code": _text, "read": _bool,
    "actor_c": digest, "dir": _dir, "peer": _peer, "first": _peer,
}  # fmt: skip


def _check_code(kind: str, code: Any) -> None:
    """The codes of exchange kinds are public and closed: a peer's own words never get into another ledger."""
    allowed = {"refused": REFUSED_CODES, "undelivered": UNDELIVERED_CODES, "receipt": REFUSED_CODES | {None}}
    if kind in allowed and code not in allowed[kind]:
        raise ProblemError("entry.invalid", "not a public code of this kind")


def parse_entry(data: bytes) -> Entry:
    """The entry of its exact bytes; `entry.invalid`, `json.*` or `b64.invalid` for anything `encode` would not write."""
    found = parse_object(data, bytes_max=ENTRY_BYTES_MAX)
    kind = found.get("kind")
    if not isinstance(kind, str) or kind not in KINDS or type(found.get("v")) is not int or found["v"] != 1:
        raise ProblemError("entry.invalid", "unknown version or kind")
    required, allowed = KINDS[kind]
    if not required <= found.keys() <= allowed:
        raise ProblemError("entry.invalid", "members do not fit the kind")
    if not _in_order(tuple(found), _ORDER) or dump_json(found) != data:  # each member is read from its one text below
        raise ProblemError("entry.invalid", "members are out of order or spaced")
    members = {_ATTRIBUTE.get(name, name): read(found[name]) for name, read in _READ.items() if name in found}
    _check_code(kind, found.get("code"))
    return Entry(kind=kind, at=parse_time(found["at"]), n=unb64u(found["n"], length=NONCE_BYTES), **members)


def content_commitment(salt: bytes, payload: bytes) -> bytes:
    """`content_c` of a JWS payload."""
    return hmac.digest(salt, b"tracewire content 1\0" + payload, sha256)


def thread_commitment(salt: bytes, thread: UUID) -> bytes:
    """`thread_c`: another value per message, so nobody outside links legs."""
    return hmac.digest(salt, b"tracewire thread 1\0" + str(thread).encode(), sha256)


def erases(entry: Entry) -> bool:
    """Whether an entry says that a message's content was erased, on which ground and day, and on whose authority where one is needed."""
    found = _ERASED.fullmatch(entry.code or "") if entry.kind == "erased" else None
    return found is not None and (entry.actor_c is not None or found[1] in (GROUND_KEPT, GROUND_RETENTION))


def closes(data: bytes) -> bool:
    """Whether an entry is `ledger-closed`, by the one text that it can have."""
    return data.startswith(b'{"v":1,"kind":"ledger-closed",')


def actor_commitment(salt: bytes, actor: str) -> bytes:
    """`actor_c` of a pseudonymous actor."""
    return hmac.digest(salt, b"tracewire actor 1\0" + actor.encode(), sha256)
