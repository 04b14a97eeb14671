"""The directory document: what a record and the network may say, and that one member's fault stays its own."""

import copy
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.notes import LedgerNoteSigner
from keys.suite import Ed25519Signer
from protocols.directory import (
    Directory,
    build_directory,
    check_update,
    parse_network,
    parse_record,
    public_keys,
)
from protocols.jwk import PublicKey
from protocols.ledger.entry import DirRef
from protocols.limits import RECORD_BYTES_MAX
from protocols.strict import b64u, dump_json
from tests.protocols.forms import code_of, hostile, json_values, total

Json = dict[str, Any]
START = "2026-01-01T00:00:00.000Z"
NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)


def seed(number: int) -> bytes:
    return number.to_bytes(32, "big")


def ed25519(number: int) -> Json:
    return Ed25519Signer(seed(number)).public.jwk


def seal_jwk(number: int) -> Json:
    return PublicKey("HPKE-9-KE", number.to_bytes(1152, "big") + bytes([number]) * 64).jwk


def ledger(origin: str, number: int, **more: Any) -> Json:
    vkeys = LedgerNoteSigner(origin, seed(number), seed(number + 1)).vkeys
    return {"origin": origin, "vkeys": list(vkeys), "state": "open", **more}


def key(jwk: Json, **more: Any) -> Json:
    return {"jwk": jwk, "not_before": START, **more}


def record(name: str = "a", first: int = 1, **changes: Any) -> Json:
    member = f"net/{name}"
    found: Json = {
        "v": 1,
        "member": member,
        "name": "An agency",
        "suite": "tw1",
        "endpoint": {"url": "https://a.example:8443", "spki": [b64u(bytes(32))]},
        "keys": {
            "message": [key(ed25519(first))],
            "seal": [key(seal_jwk(first))],
            "request": [key(ed25519(first + 1))],
        },
        "ledgers": [ledger(f"{member}/2026.1", first + 2)],
        "modes": ["push"],
        "hubs": ["net/hub"],
        "competences": [{"country": "AT", "makes": ["A make"]}],
        "agreements": [{"member": "n/x", "urgent_hours": 6, "routine_days": 10}],
    }
    return found | changes


def network(**changes: Any) -> Json:
    found: Json = {
        "v": 1,
        "network": "net",
        "live": False,
        "members": [
            {"member": "net/a", "roles": ["registry"], "status": "active"},
            {"member": "net/b", "roles": ["focal-point"], "status": "suspended"},
        ],
        "matrix": {"trace.request": {"from": ["focal-point"], "to": ["registry"]}},
        "deadlines": {"acknowledgement_days": 2, "urgent_hours": 24, "routine_days": 30},
        "witnesses": [],
        "quorum": 0,
        "abandoned": [],
    }
    return found | changes


def built(*records: Json, net: Json | None = None, failing: dict[str, str] | None = None) -> Directory:
    parsed = [parse_record(dump_json(each)) for each in records]
    return build_directory(
        ref=DirRef(version=1, sha256=bytes(32)),
        expires=NOW + timedelta(days=1),
        network=parse_network(dump_json(net or network())),
        records={each.member: each for each in parsed},
        failing=failing,
    )


RECORD, NETWORK = record(), network()


def edited(document: Json, path: str, value: Any) -> Json:
    """A copy with the member at a path set, or (Ellipsis) taken away."""
    found = copy.deepcopy(document)
    *way, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    at: Any = found
    for step in way:
        at = at[step]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return found


def test_a_record_and_a_network_are_read() -> None:
    found = parse_record(dump_json(RECORD))
    assert json.loads(found.model_dump_json(exclude_none=True)) == RECORD
    read = parse_network(dump_json(NETWORK))
    assert json.loads(read.model_dump_json(by_alias=True, exclude_none=True)) == NETWORK
    assert len(public_keys(found)) == 5


BAD_RECORDS: list[tuple[str, Any, str]] = [
    ("v", 2, "dir.invalid"),
    ("v", True, "dir.invalid"),
    ("v", ..., "dir.invalid"),
    ("x", 1, "dir.invalid"),
    ("member", "net/A", "dir.invalid"),
    ("member", "a", "dir.invalid"),
    ("member", "net/a\n", "dir.invalid"),
    ("member", "net/b", "dir.invalid"),
    ("name", "", "dir.invalid"),
    ("suite", "tw2", "dir.invalid"),
    ("endpoint/url", "https://a.example/path", "dir.invalid"),
    ("endpoint/url", "https://u:p@a.example", "dir.invalid"),
    ("endpoint/url", "ftp://a.example", "dir.invalid"),
    ("endpoint/spki", [b64u(bytes(31))], "dir.invalid"),
    ("keys/seal", [], "dir.invalid"),
    ("keys/message/0/not_before", "2026-01-01T00:00:00Z", "dir.invalid"),
    ("keys/message/0/not_before", "2026-13-45T99:99:99.999Z", "dir.invalid"),
    ("keys/message/0/not_before", "202\u0666-01-01T00:00:00.000Z", "dir.invalid"),
    ("keys/message/0/not_after", "2026-02-30T00:00:00.000Z", "dir.invalid"),
    ("keys/message/0/revoked", {"origin": "net/a/2026.1", "size": -1}, "dir.invalid"),
    ("keys/message/0/revoked", {"origin": "net/a", "size": 1}, "dir.invalid"),
    ("keys/message/0/jwk", ed25519(1) | {"kid": "k"}, "dir.key_invalid"),
    ("keys/message/0/jwk", {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}, "dir.key_invalid"),
    ("keys/message/0/jwk", seal_jwk(9), "dir.key_use"),
    ("keys/seal/0/jwk", ed25519(9), "dir.key_use"),
    ("keys/request/0/jwk", ed25519(1), "dir.key_use"),
    ("keys/tls", [], "dir.invalid"),
    ("ledgers", [], "dir.invalid"),
    ("ledgers/0/origin", "net/a/2026.1/x", "dir.invalid"),
    ("ledgers/0/origin", "net/a/202\u0666.1", "dir.invalid"),
    ("ledgers/0/origin", "net/a/2026.01", "dir.invalid"),
    ("ledgers/0/origin", "net/a/2026.2", "dir.key_invalid"),
    ("ledgers/0", ledger("net/b/2026.1", 7), "dir.invalid"),
    ("ledgers/0/vkeys", [], "dir.invalid"),
    ("ledgers/0/vkeys/0", "x", "dir.key_invalid"),
    ("ledgers/0/vkeys/0", RECORD["ledgers"][0]["vkeys"][1], "dir.key_invalid"),
    ("ledgers/0/state", "abandoned", "dir.invalid"),
    ("ledgers", [ledger("net/a/2026.1", 3), ledger("net/a/2026.1", 5)], "dir.invalid"),
    ("ledgers", [ledger("net/a/2026.1", 3), ledger("net/a/2026.2", 3)], "dir.key_use"),
    ("keys/message/0/jwk", ed25519(3), "dir.key_use"),
    ("modes", ["fax"], "dir.invalid"),
    ("competences/0/country", "at", "dir.invalid"),
]


@pytest.mark.parametrize(
    ("path", "value", "code"), BAD_RECORDS, ids=[f"{path} {value!r:.24}" for path, value, _ in BAD_RECORDS]
)
def test_a_record_with_one_fault_is_refused(path: str, value: Any, code: str) -> None:
    assert code_of(parse_record, dump_json(edited(RECORD, path, value))) == code


BAD_NETWORKS: list[tuple[str, Any]] = [
    ("v", 2),
    ("network", "Net"),
    ("live", 1),
    ("x", 1),
    ("members/0/roles", []),
    ("members/0/roles", ["king"]),
    ("members/0/status", "gone"),
    ("members/1", NETWORK["members"][0] | {"status": "revoked"}),
    ("members/0/member", "other/a"),
    ("matrix/trace.request/from", ["king"]),
    ("matrix/trace.request", {"senders": [], "recipients": []}),
    ("deadlines/routine_days", 0),
    ("deadlines/x", 1),
    ("quorum", -1),
    ("abandoned", [{"origin": "net/a/2026.1"}]),
]


@pytest.mark.parametrize(("path", "value"), BAD_NETWORKS, ids=[f"{path} {value!r:.24}" for path, value in BAD_NETWORKS])
def test_a_network_with_one_fault_is_refused(path: str, value: Any) -> None:
    assert code_of(parse_network, dump_json(edited(NETWORK, path, value))) == "dir.invalid"


def test_a_document_above_its_limit_is_refused_unread() -> None:
    assert code_of(parse_record, b" " * (RECORD_BYTES_MAX + 1)) == "json.too_large"


@given(hostile(dump_json(RECORD)))
def test_any_bytes_are_a_record_that_a_directory_can_hold_or_a_problem(data: bytes) -> None:
    found = total(parse_record, data)
    if found is not None:
        built(json.loads(data))


@given(hostile(dump_json(NETWORK)))
def test_any_bytes_are_a_network_or_a_problem(data: bytes) -> None:
    total(parse_network, data)


@given(st.sampled_from(sorted({path for path, *_ in BAD_RECORDS if path != "x"})), json_values)
def test_members_of_any_type_are_a_record_that_a_directory_can_hold_or_a_problem(path: str, value: Any) -> None:
    document = edited(RECORD, path, value)
    if total(parse_record, dump_json(document)) is not None:
        built(document)


def test_a_directory_lists_keys_and_ledgers_of_admitted_members() -> None:
    found = built(record("a", 1), record("b", 11), record("c", 21))
    assert set(found.records) == {"net/a", "net/b"}
    assert {each.member for each in found.message_keys.values()} == {"net/a", "net/b"}
    assert found.ledgers["net/b/2026.1"].member == "net/b"
    assert (found.active("net/a"), found.active("net/b"), found.active("net/c")) == (True, False, False)


def test_a_key_stands_once_in_the_directory() -> None:
    thief = edited(record("b", 11), "keys/message/0/jwk", ed25519(1))
    assert code_of(built, record("a", 1), thief) == "dir.key_use"


def test_the_newest_valid_seal_key_is_sealed_to() -> None:
    seals = [
        key(seal_jwk(41), not_before="2026-02-01T00:00:00.000Z"),
        key(seal_jwk(42), not_before="2026-03-01T00:00:00.000Z"),
        key(seal_jwk(43), not_before="2026-12-01T00:00:00.000Z"),
        key(seal_jwk(44), not_before="2026-04-01T00:00:00.000Z", not_after="2026-11-22T10:00:00.000Z"),
        key(seal_jwk(45), not_before="2026-05-01T00:00:00.000Z", revoked={"origin": "net/a/2026.1", "size": 5}),
    ]
    found = built(edited(RECORD, "keys/seal", seals))
    assert found.seal_key("net/a", NOW).key.jwk == seal_jwk(42)
    assert code_of(found.seal_key, "net/a", datetime(2026, 1, 1, tzinfo=UTC)) == "dir.key_unknown"
    assert code_of(found.seal_key, "net/x", NOW) == "member.unknown"
    assert code_of(built(RECORD, failing={"net/a": "dir.stale"}).seal_key, "net/a", NOW) == "dir.stale"


def test_the_newest_open_ledger_is_the_one_with_the_highest_number() -> None:
    ledgers = [ledger(f"net/a/{name}", 50 + 2 * i) for i, name in enumerate(["2026.9", "2026.10", "2025.11"])]
    found = built(edited(RECORD, "ledgers", ledgers))
    assert found.open_ledger("net/a") == "net/a/2026.10"
    assert found.open_ledger("net/b") is None
    assert built(edited(RECORD, "ledgers/0/state", "closed")).open_ledger("net/a") is None


def test_an_abandoned_ledger_is_not_open_whatever_its_record_says() -> None:
    position = {"origin": "net/a/2026.1", "size": 9, "root": b64u(bytes(32))}
    found = built(RECORD, net=network(abandoned=[position]))
    assert found.ledgers["net/a/2026.1"].state == "abandoned"
    assert found.open_ledger("net/a") is None


FINAL = {"origin": "net/a/2026.1", "size": 9, "root": b64u(bytes(32))}
CLOSED = edited(RECORD, "ledgers/0", ledger("net/a/2026.1", 3, state="closed", final=FINAL))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (RECORD, edited(RECORD, "ledgers", [ledger("net/a/2027.1", 7)])),
        (RECORD, edited(RECORD, "ledgers/0", ledger("net/a/2026.1", 7))),
        (CLOSED, edited(CLOSED, "ledgers/0/final/size", 8)),
        (CLOSED, edited(CLOSED, "ledgers/0/final", ...)),
        (CLOSED, edited(CLOSED, "ledgers/0/state", "open")),
        (RECORD, record("b", 1)),
    ],
    ids=["dropped", "other keys", "other final size", "no final size", "opened again", "another member"],
)
def test_a_newer_record_changes_no_ledger_that_it_listed(old: Json, new: Json) -> None:
    assert code_of(check_update, parse_record(dump_json(old)), parse_record(dump_json(new))) == "dir.invalid"


def test_a_newer_record_may_close_a_ledger_and_list_the_next() -> None:
    newer = edited(CLOSED, "ledgers", [*CLOSED["ledgers"], ledger("net/a/2027.1", 7)])
    check_update(parse_record(dump_json(RECORD)), parse_record(dump_json(newer)))
