"""add-checkpoint requests, cosignatures and tlog-policy files, as bytes."""

import base64
from datetime import UTC, datetime

import pytest

from keys.notes import LedgerCosigner, LedgerNoteSigner
from keys.suite import Tw1Verifier
from protocols.ledger.checkpoint import LedgerKeys, parse_checkpoint, verify_checkpoint
from protocols.ledger.note import COSIGNATURE, cosignature_message, parse_note
from protocols.ledger.witness import WitnessKeys, format_request, parse_policy, parse_request
from tests.protocols.forms import code_of

AT, ORIGIN, ROOT = datetime(2026, 11, 22, 10, tzinfo=UTC), "net/a/2026.1", bytes(range(32))
SIGNER = LedgerNoteSigner(ORIGIN, b"\1" * 32, b"\2" * 32)
NOTE = SIGNER.sign(9, ROOT, AT)
WITNESSES = {
    name: LedgerCosigner(f"net/{name}", bytes([n]) * 32, bytes([n + 1]) * 32) for n, name in enumerate("bcd", 10)
}
LINES = {name: each.cosign(ORIGIN, 9, ROOT, AT) for name, each in WITNESSES.items()}
VERIFIER = Tw1Verifier()
HASH = base64.b64encode(bytes(32)).decode()


def policy(quorum: str, *groups: str) -> bytes:
    """The three witnesses by their Ed25519 keys, d by its post-quantum one."""
    keys = {name: each.vkeys[name == "d"] for name, each in WITNESSES.items()}
    lines = [f"log {SIGNER.vkeys[0]} https://a.example/", *(f"witness {name} {key}" for name, key in keys.items())]
    return "\n".join(["# ours", *lines, *groups, f"quorum {quorum}", ""]).encode()


def test_a_checkpoint_with_cosignatures_is_still_the_ledgers() -> None:
    note = NOTE + LINES["b"] + LINES["c"]
    assert verify_checkpoint(note, LedgerKeys.parse(ORIGIN, SIGNER.vkeys), VERIFIER).root == ROOT
    assert len(parse_note(note).signatures) == 6


def test_a_cosignature_is_of_one_witness_one_checkpoint_and_both_algorithms() -> None:
    keys = {name: WitnessKeys.parse(f"net/{name}", each.vkeys) for name, each in WITNESSES.items()}
    first, second = LINES["b"].splitlines(keepends=True)
    assert keys["b"].cosignature(NOTE + LINES["b"], VERIFIER)
    assert keys["b"].cosignature(NOTE + second + LINES["c"] + first, VERIFIER), "in any order"
    for other in (NOTE, NOTE + first, NOTE + second, NOTE + LINES["c"], SIGNER.sign(8, ROOT, AT) + LINES["b"],
                  SIGNER.sign(9, bytes(32), AT) + LINES["b"]):  # fmt: skip
        assert not keys["b"].cosignature(other, VERIFIER)
    elsewhere = LedgerNoteSigner("net/x/2026.1", b"\1" * 32, b"\2" * 32).sign(9, ROOT, AT)
    assert not keys["b"].cosignature(elsewhere + LINES["b"], VERIFIER), "the origin is cosigned too"


def test_what_a_0x04_line_signs_is_the_text_of_the_standard() -> None:
    assert cosignature_message(1, "o\n1\nx\n") == b"cosignature/v1\ntime 1\no\n1\nx\n"
    (name, _, data) = next(each for each in parse_note(NOTE + LINES["b"]).signatures if each[0] == "net/b")
    assert (name, int.from_bytes(data[:8], "big"), len(data)) == ("net/b", int(AT.timestamp()), 8 + 64)
    assert COSIGNATURE == 4


@pytest.mark.parametrize("vkeys", [WITNESSES["b"].vkeys[::-1], SIGNER.vkeys, ("x", "y")])
def test_witness_keys_fit_their_member(vkeys: tuple[str, str]) -> None:
    assert code_of(WitnessKeys.parse, "net/b", vkeys) == "dir.key_invalid"


def test_a_request_is_read_as_it_was_written() -> None:
    path = (bytes(32), b"\7" * 32)
    assert parse_request(format_request(4, path, NOTE)) == (4, path, parse_checkpoint(NOTE))
    assert parse_request(format_request(0, (), NOTE)) == (0, (), parse_checkpoint(NOTE))


@pytest.mark.parametrize(
    "head",
    ["", "old", "old -1", "old 01", "old 9999999999999999999999", f"new 1\n{HASH}", f"old 1\n{HASH[:-1]}", f"old 1\n{HASH}\n ",
     "old 1\nAAAA", "old 1\n" + "\n".join([HASH] * 64), "old ٤"],
)  # fmt: skip
def test_a_request_of_another_form_is_refused(head: str) -> None:
    assert code_of(parse_request, head.encode() + b"\n\n" + NOTE) == "note.invalid"


def test_a_request_is_bounded_and_carries_a_checkpoint() -> None:
    assert code_of(parse_request, b"old 1\n\n" + b"x" * 200_000) == "note.invalid"
    assert code_of(parse_request, b"old 1\n\nnothing") == "note.invalid"


@pytest.mark.parametrize(
    ("quorum", "groups", "who", "enough"),
    [
        ("none", [], "", True), ("b", [], "b", True), ("b", [], "c", False), ("d", [], "d", True),
        ("g", ["group g any b c"], "c", True), ("g", ["group g any b c"], "d", False),
        ("g", ["group g all b c d"], "bcd", True), ("g", ["group g all b c d"], "bc", False),
        ("g", ["group g 2 b c d"], "bd", True), ("g", ["group g 2 b c d"], "b", False),
        ("h", ["group g any b c", "group h all g d"], "cd", True), ("h", ["group g any b c", "group h all g d"], "bc", False),
    ],
)  # fmt: skip
def test_a_policy_is_satisfied_by_its_quorum(quorum: str, groups: list[str], who: str, enough: bool) -> None:
    note = NOTE + b"".join(LINES[name] for name in who)
    assert parse_policy(policy(quorum, *groups)).satisfied(note, VERIFIER) is enough


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("nonsense", 1), ("log x", 1), ("witness b x", 1), ("group g any b", 1), ("quorum b", 1), ("log", 1),
        (f"witness none {WITNESSES['b'].vkeys[0]}", 1), (f"witness b {WITNESSES['b'].vkeys[0]}\nwitness b {WITNESSES['c'].vkeys[0]}", 2),
        (f"witness b {WITNESSES['b'].vkeys[0]}\ngroup g 2 b", 2), (f"witness b {WITNESSES['b'].vkeys[0]}\ngroup g 0 b", 2),
        (f"witness b {WITNESSES['b'].vkeys[0]}\ngroup g any b b", 2), (f"witness b {WITNESSES['b'].vkeys[0]}\ngroup g any", 2),
        ("quorum none\nquorum none", 2),
    ],
)  # fmt: skip
def test_a_policy_that_is_wrong_says_the_line(line: str, number: int) -> None:
    with pytest.raises(Exception, match=rf"config\.invalid: line {number} of the policy"):
        parse_policy(line.encode())


def test_a_policy_has_a_quorum_and_a_bound() -> None:
    assert code_of(parse_policy, b"# nothing\n") == "config.invalid"
    assert code_of(parse_policy, b"\n" * 2_000 + b"quorum none") == "config.invalid"
    assert code_of(parse_policy, b"#" * 2_000_000 + b"\nquorum none") == "config.invalid"
