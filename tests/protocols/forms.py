"""What the tests of the formats share: outside vectors, hostile mutations, valid values of every format."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import strategies as st

from protocols.exchange.message import AttachmentRef, Message, PartRef
from protocols.ledger.entry import KINDS, DirRef, Entry, PeerRef
from protocols.ledger.merkle import fold, leaf_hash, node_hash, subtrees
from protocols.problems import ProblemError
from protocols.strict import b64u

SHARED = Path(__file__).parents[2].parent / "shared"
VECTORS = SHARED / "vectors"


def outside(path: str) -> Path:
    """A file or folder of outside vectors, read in place; the test is skipped where it is absent."""
    found = VECTORS / path
    if not found.exists():
        pytest.skip(f"outside vectors {path} are not here")
    return found


def code_of(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """The problem code that a call ends in."""
    with pytest.raises(ProblemError) as caught:
        call(*args, **kwargs)
    return caught.value.code


def total(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The value of a parser, None for a ProblemError; any other exception is a bug and fails the test."""
    try:
        return call(*args, **kwargs)
    except ProblemError:
        return None


class Tree:
    """A whole Merkle tree in memory: the slow and plain thing that the code under test is compared with."""

    def __init__(self, entries: list[bytes]) -> None:
        self.entries = entries
        self._leaves = [leaf_hash(entry) for entry in entries]

        self._nodes: dict[tuple[int, int], bytes] = {}

    @classmethod
    def over(cls, leaves: list[bytes]) -> "Tree":
        tree = cls([])
        tree._leaves = leaves
        return tree

    def node(self, level: int, index: int) -> bytes:
        if level == 0:
            return self._leaves[index]
        if (level, index) not in self._nodes:
            left, right = self.node(level - 1, 2 * index), self.node(level - 1, 2 * index + 1)
            self._nodes[level, index] = node_hash(left, right)
        return self._nodes[level, index]

    def root(self, size: int) -> bytes:
        return fold([self.node(level, index) for level, index in subtrees(0, size)])


class Gullible:
    """A verifier that believes everything: what is left to check is the format."""

    def verify(self, alg: str, public: bytes, message: bytes, signature: bytes) -> bool:
        return True


TOKENS = [
    b"\x00", b"\n", b"\n\n", b"\r\n", b'"', b"\\", b"\\u0000", b"\\ud800", b"{", b"}", b"[", b"]", b",", b":", b"null",
    b"true", b"-0", b"1.0", b"1e9", b"NaN", b"9" * 400, b"9007199254740993", b"=", b"+", b"/", b".", b" ", b"\xff",
    b"\xed\xa0\x80", "—".encode(), "é".encode(), b"{}", b"[]", b'""', b"0", b"-1",
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, valid: bytes) -> bytes:
    """Valid bytes after one to three hostile edits."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.sampled_from([0, 0, 1, 1, 2, 8, 64])))
        data[at:end] = draw(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=3), st.just(bytes(data[at:end]) * 2)))
    return bytes(data)


def hostile(valid: bytes) -> st.SearchStrategy[bytes]:
    """Any bytes, and valid bytes with edits."""
    return st.one_of(st.binary(max_size=200), mutated(valid), mutated(valid))


digests = st.binary(min_size=32, max_size=32)
counts = st.integers(0, 2**53 - 1)
uuids = st.integers(0, 2**128 - 1).map(lambda n: UUID(int=n & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62))
times = st.integers(0, 253_402_300_799_999).map(
    lambda ms: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
)
words = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=12)
members = st.builds("{}/{}".format, words, words)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
kids = digests.map(b64u)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
json_objects = st.dictionaries(texts, json_values, max_size=5)

_PEERS = st.builds(
    PeerRef,
    origin=words,
    index=st.none() | counts,
    leaf=st.none() | digests,
    size=st.none() | counts,
    root=st.none() | digests,
)
_MEMBERS: dict[str, st.SearchStrategy[Any]] = {
    "id": uuids, "from": members, "to": members, "via": members, "pair_seq": counts, "kid": kids, "seal_kid": kids,
    "suite": st.just("tw1"), "envelope": digests, "content_c": digests, "thread_c": digests,
    "code": st.just("env.invalid"), "read": st.booleans(), "actor_c": digests,
    "dir": st.builds(DirRef, version=counts, sha256=digests), "peer": _PEERS, "first": _PEERS,
}  # fmt: skip


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """A valid entry of any kind, with any of its optional members."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    required, allowed = KINDS[kind]
    optional = sorted(allowed - required)
    chosen = set(draw(st.lists(st.sampled_from(optional), unique=True))) if optional else set()
    names = [name for name in _MEMBERS if name in required | chosen]
    values = {{"from": "sender", "to": "recipient"}.get(name, name): draw(_MEMBERS[name]) for name in names}
    if kind == "undelivered":
        values["code"] = "expired"
    return Entry(kind=kind, at=draw(times), n=draw(st.binary(min_size=16, max_size=16)), **values)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """A valid message with any optional members."""
    created = draw(st.datetimes(datetime(2026, 1, 1), datetime(2036, 1, 1)))  # noqa: DTZ001
    created = created.replace(tzinfo=UTC, microsecond=created.microsecond // 1000 * 1000)
    names = draw(st.lists(st.from_regex(r"[a-z][a-z_]{0,31}", fullmatch=True), unique=True, max_size=8))
    ciphertexts = draw(st.lists(digests, unique=True, min_size=len(names), max_size=len(names)))
    return Message(
        id=draw(uuids),
        type=draw(st.from_regex(r"[a-z][a-z.-]{0,63}", fullmatch=True)),
        sender=draw(members),
        recipient=draw(members),
        thread=draw(uuids),
        created=created,
        expires=created + timedelta(milliseconds=draw(st.integers(1, 90 * 86_400_000))),
        handling=draw(json_objects),
        salt=draw(digests),
        body=draw(json_objects),
        in_reply_to=draw(st.none() | uuids),
        due=draw(st.none() | st.just(created)),
        parts=tuple(
            PartRef(name=name, sha256=digest, key_sha256=draw(digests))
            for name, digest in zip(names, ciphertexts, strict=True)
        ),
        attachments=tuple(
            draw(
                st.lists(
                    st.builds(
                        AttachmentRef,
                        name=st.text("abc.é", min_size=1, max_size=20),
                        sha256=digests,
                        key_sha256=digests,
                        size=counts,
                        media_type=st.just("image/png"),
                    ),
                    max_size=3,
                )
            )
        ),
    )
