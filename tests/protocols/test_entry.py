"""The ledger entry: one text for one entry, closed members per kind, commitments that name what they bind."""

import hmac
import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.ledger.entry import (
    KINDS,
    DirRef,
    Entry,
    PeerRef,
    actor_commitment,
    content_commitment,
    parse_entry,
    thread_commitment,
    uuid7,
)
from protocols.limits import ENTRY_BYTES_MAX
from protocols.strict import dump_json
from tests.protocols.forms import code_of, entries, hostile, total

AT = datetime(2026, 11, 22, 10, 0, 0, 123_000, UTC)
ID = UUID("019aab00-0000-7000-8000-000000000001")
PEER = PeerRef(origin="net/b/2026.1", index=4, leaf=bytes(32), size=9, root=bytes(range(32)))
SENT = Entry(
    kind="sent", at=AT, n=bytes(16), id=ID, sender="net/a", recipient="net/b", pair_seq=1, kid="k", seal_kid="s",
    suite="tw1", envelope=bytes(32), content_c=bytes(32), thread_c=bytes(32), actor_c=bytes(32),
    dir=DirRef(version=7, sha256=bytes(32)), peer=PEER,
)  # fmt: skip
ORDER = [
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
]


def with_members(**changes: Any) -> bytes:
    """SENT with members changed (None: left out), in the right order."""
    found = json.loads(SENT.encode()) | changes
    return dump_json({name: found[name] for name in ORDER if found.get(name) is not None})


@given(entries())
def test_an_entry_is_read_back_and_has_one_text(entry: Entry) -> None:
    data = entry.encode()
    assert parse_entry(data) == entry
    assert list(json.loads(data)) == [name for name in ORDER if name in json.loads(data)]
    assert code_of(parse_entry, data + b" ") == code_of(parse_entry, data.replace(b":", b": ", 1)) == "entry.invalid"


@given(entries().flatmap(lambda entry: hostile(entry.encode())))
def test_any_bytes_are_an_entry_of_one_text_or_a_problem(data: bytes) -> None:
    found = total(parse_entry, data)
    assert found is None or found.encode() == data


@given(entries(), st.data())
def test_a_member_that_the_kind_requires_must_stand_and_no_other_may(entry: Entry, data: st.DataObject) -> None:
    required, allowed = KINDS[entry.kind]
    found = json.loads(entry.encode())
    gone = data.draw(st.sampled_from(sorted(required)))
    assert code_of(parse_entry, dump_json({k: v for k, v in found.items() if k != gone})) == "entry.invalid"
    if foreign := sorted(set(ORDER) - allowed):
        more = found | {data.draw(st.sampled_from(foreign)): "x"}
        assert code_of(parse_entry, dump_json({name: more[name] for name in ORDER if name in more})) == "entry.invalid"


B32 = "A" * 43
BAD: list[tuple[str, bytes, str]] = [
    ("two members swapped", dump_json(dict(reversed(json.loads(SENT.encode()).items()))), "entry.invalid"),
    ("an unknown member", SENT.encode()[:-1] + b',"x":1}', "entry.invalid"),
    ("null", SENT.encode().replace(b'"pair_seq":1', b'"pair_seq":null'), "entry.invalid"),
    ("a member twice", SENT.encode()[:-1] + b',"v":1}', "json.duplicate"),
    ("version 2", with_members(v=2), "entry.invalid"),
    ("version true", with_members(v=True), "entry.invalid"),
    ("version text", with_members(v="1"), "entry.invalid"),
    ("an unknown kind", with_members(kind="Sent"), "entry.invalid"),
    ("a kind that is a list", with_members(kind=["sent"]), "entry.invalid"),
    ("a time without milliseconds", with_members(at="2026-11-22T10:00:00Z"), "schema.invalid"),
    ("a time with an offset", with_members(at="2026-11-22T10:00:00.123+00:00"), "schema.invalid"),
    ("the day after the last", with_members(at="2026-02-30T10:00:00.123Z"), "schema.invalid"),
    ("a UUIDv4", with_members(id="019aab00-0000-4000-8000-000000000001"), "entry.invalid"),
    ("a UUID of another variant", with_members(id="019aab00-0000-7000-c000-000000000001"), "entry.invalid"),
    ("an upper-case UUID", with_members(id="019AAB00-0000-7000-8000-000000000001"), "entry.invalid"),
    ("a UUID in braces", with_members(id="{019aab00-0000-7000-8000-000000000001}"), "entry.invalid"),
    ("a UUID without hyphens", with_members(id="019aab00000070008000000000000001"), "entry.invalid"),
    ("a UUID as URN", with_members(id="urn:uuid:019aab00-0000-7000-8000-000000000001"), "entry.invalid"),
    ("an id that is a number", with_members(id=5), "entry.invalid"),
    ("a digest with spare bits", with_members(envelope="A" * 42 + "B"), "b64.invalid"),
    ("a digest with padding", with_members(envelope=B32 + "="), "b64.invalid"),
    ("a digest of 31 bytes", with_members(envelope="A" * 42), "b64.invalid"),
    ("a digest in hex", with_members(envelope="00" * 32), "b64.invalid"),
    ("a nonce of 15 bytes", with_members(n="A" * 20), "b64.invalid"),
    ("a nonce of 17 bytes", with_members(n="A" * 22 + "A"), "b64.invalid"),
    ("a negative count", with_members(pair_seq=-1), "entry.invalid"),
    ("a count that is text", with_members(pair_seq="1"), "entry.invalid"),
    ("a count that is true", with_members(pair_seq=True), "entry.invalid"),
    ("a fraction", SENT.encode().replace(b'"pair_seq":1', b'"pair_seq":1.0'), "json.number"),
    ("minus zero", SENT.encode().replace(b'"pair_seq":1', b'"pair_seq":-0'), "json.number"),
    ("an empty name", SENT.encode().replace(b'"from":"net/a"', b'"from":""'), "entry.invalid"),
    ("a name of 257", with_members(**{"from": "n" * 257}), "entry.invalid"),
    ("a name escaped", SENT.encode().replace(b'"from":"net/a"', b'"from":"net\\/a"'), "entry.invalid"),
    ("dir swapped", with_members(dir={"sha256": B32, "version": 7}), "entry.invalid"),
    ("dir with more", with_members(dir={"version": 7, "sha256": B32, "x": 1}), "entry.invalid"),
    ("peer swapped", with_members(peer={"index": 4, "origin": "o"}), "entry.invalid"),
    ("peer without origin", with_members(peer={"index": 4}), "entry.invalid"),
    ("peer with null", with_members(peer={"origin": "o", "index": None}), "entry.invalid"),
    ("peer that is text", with_members(peer="o"), "entry.invalid"),
    ("white space", SENT.encode().replace(b",", b", ", 1), "entry.invalid"),
    ("a newline at the end", SENT.encode() + b"\n", "entry.invalid"),
    ("a list", b"[" + SENT.encode() + b"]", "json.invalid"),
    ("too long", with_members(kid="k" * 256) + b" " * ENTRY_BYTES_MAX, "json.too_large"),
]


@pytest.mark.parametrize(("data", "code"), [(data, code) for _, data, code in BAD], ids=[name for name, *_ in BAD])
def test_an_entry_with_one_fault_is_refused(data: bytes, code: str) -> None:
    assert code_of(parse_entry, data) == code


def test_the_base_of_the_faults_is_good() -> None:
    assert parse_entry(with_members()) == SENT


def test_read_is_true_or_false() -> None:
    refused = Entry(
        kind="refused", at=AT, n=bytes(16), id=ID, sender="net/a", recipient="net/b", pair_seq=1, envelope=bytes(32),
        code="env.invalid", read=False, dir=DirRef(version=1, sha256=bytes(32)), peer=PEER,
    )  # fmt: skip
    assert parse_entry(refused.encode()) == refused
    assert code_of(parse_entry, refused.encode().replace(b"false", b"0")) == "entry.invalid"


def test_an_entry_that_does_not_fit_its_kind_is_not_written() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Entry(kind="sent", at=AT, n=bytes(16)).encode()
    with pytest.raises(ValueError, match="too long"):
        Entry(kind="admin", at=AT, n=bytes(16), code="c" * ENTRY_BYTES_MAX).encode()


def test_a_sequence_number_is_all_that_with_seq_changes() -> None:
    assert json.loads(SENT.with_seq(9).encode()) == json.loads(SENT.encode()) | {"pair_seq": 9}


def test_every_kind_fits_the_limit_with_the_longest_names() -> None:
    name = "n" * 32 + "/" + "m" * 32
    peer = PeerRef(origin=f"{name}/2026.9999", index=2**53 - 1, leaf=bytes(32), size=2**53 - 1, root=bytes(32))
    whole = Entry(
        kind="sent", at=AT, n=bytes(16), id=ID, sender=name, recipient=name, pair_seq=2**53 - 1, kid="k" * 43,
        seal_kid="k" * 43, suite="tw1", envelope=bytes(32), content_c=bytes(32), thread_c=bytes(32),
        actor_c=bytes(32), dir=DirRef(version=2**53 - 1, sha256=bytes(32)), peer=peer,
    )  # fmt: skip
    assert len(whole.encode()) <= ENTRY_BYTES_MAX


def test_commitments_bind_salt_use_and_value() -> None:
    salt = bytes(range(32))
    assert content_commitment(salt, b"p") == hmac.digest(salt, b"tracewire content 1\0p", sha256)
    assert thread_commitment(salt, ID) == hmac.digest(salt, b"tracewire thread 1\0" + str(ID).encode(), sha256)
    assert actor_commitment(salt, "a") == hmac.digest(salt, b"tracewire actor 1\0a", sha256)
    assert thread_commitment(salt, ID) != thread_commitment(bytes(32), ID)


@pytest.mark.parametrize("value", [None, 5, [], {}, True, "", "x", str(UUID(int=0)), "\u0661" * 32, b"x"])
def test_only_the_canonical_text_of_a_uuid7_is_one(value: object) -> None:
    assert code_of(uuid7, value) == "entry.invalid"
