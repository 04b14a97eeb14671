"""C2SP signed notes, verifier keys and checkpoints: exact bytes, both signatures, nothing covered by one only."""

import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.notes import LedgerNoteSigner
from keys.suite import Tw1Verifier
from protocols.ledger.checkpoint import LedgerKeys, checkpoint_text, parse_checkpoint, verify_checkpoint
from protocols.ledger.note import ED25519, MLDSA44, VerifierKey, format_note, parse_note, subtree_message
from protocols.limits import NOTE_SIGNATURES_MAX
from tests.protocols.forms import Gullible, code_of, digests, hostile, outside, total

ORIGIN = "test/registry/2026.1"
AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
SIGNER = LedgerNoteSigner(ORIGIN, bytes(range(32)), bytes(range(1, 33)))
KEYS = LedgerKeys.parse(ORIGIN, SIGNER.vkeys)
ROOT = bytes(range(32))
NOTE = SIGNER.sign(7, ROOT, AT)
TEXT, ED, ML = NOTE.partition(b"\n\n")[0] + b"\n", *(NOTE.partition(b"\n\n")[2].splitlines(keepends=True))


def note(*lines: bytes, text: bytes = TEXT) -> bytes:
    return text + b"\n" + b"".join(lines)


def verified(data: bytes) -> object:
    return verify_checkpoint(data, KEYS, Tw1Verifier())


def line(name: str, blob: bytes) -> bytes:
    return f"— {name} {base64.b64encode(blob).decode()}\n".encode()


def resized(source: bytes, delta: int) -> bytes:
    """A signature line with bytes added to or taken from its end."""
    name, blob = source.decode().split(" ")[1:]
    data = base64.b64decode(blob)
    return line(name, data + bytes(delta) if delta > 0 else data[:delta])


def flipped(source: bytes) -> bytes:
    name, blob = source.decode().split(" ")[1:]
    data = bytearray(base64.b64decode(blob))
    data[-1] ^= 1
    return line(name, bytes(data))


def test_the_example_of_the_specification_holds() -> None:
    case = json.loads(outside("c2sp-examples.json").read_text())["note"]
    key = VerifierKey.parse(case["vkey"])
    parsed = parse_note(case["text"].encode())
    ((name, key_id, signature),) = parsed.signatures
    assert (name, key_id, str(key)) == (key.name, key.key_id, case["vkey"])
    assert parsed.text == "This is an example message.\n"
    assert key.verify(parsed.text, signature, 0, bytes(32), Tw1Verifier(), origin="")


def test_a_checkpoint_with_both_signatures_holds_whatever_else_is_signed() -> None:
    other = line("witness.example/w", b"abcd" + bytes(72))
    for data in (NOTE, note(ML, ED), note(other, ED, ML), note(ED, ML, line(ORIGIN, b"abcd" + bytes(3)))):
        found = verify_checkpoint(data, KEYS, Tw1Verifier())
        assert (found.origin, found.size, found.root, found.note) == (ORIGIN, 7, ROOT, data)


BAD: list[tuple[str, bytes, str]] = [
    ("no Ed25519 line", note(ML), "proof.policy"),
    ("no ML-DSA line", note(ED), "proof.policy"),
    ("a broken Ed25519 signature", note(flipped(ED), ML), "proof.policy"),
    ("a broken ML-DSA signature", note(ED, flipped(ML)), "proof.policy"),
    ("an ML-DSA line one byte longer", note(ED, resized(ML, 1)), "note.invalid"),
    ("an ML-DSA line one byte shorter", note(ED, resized(ML, -1)), "note.invalid"),
    ("an Ed25519 line one byte longer", note(resized(ED, 1), ML), "note.invalid"),
    ("another size", NOTE.replace(b"\n7\n", b"\n8\n"), "proof.policy"),
    ("the ledger's name in another", NOTE.replace(ORIGIN.encode() + b"\n", b"test/other/2026.1\n"), "proof.origin"),
    ("CRLF", NOTE.replace(b"\n", b"\r\n"), "note.invalid"),
    ("no newline at the end", NOTE[:-1], "note.invalid"),
    ("a newline more", NOTE + b"\n", "note.invalid"),
    ("one key twice", note(ED, ML, ED), "note.invalid"),
    ("one key twice with another signature", note(ED, ML, flipped(ML)), "note.invalid"),
    ("an extension line", note(ED, ML, text=TEXT + b"extension\n"), "note.invalid"),
    ("no root", note(ED, ML, text=ORIGIN.encode() + b"\n7\n"), "note.invalid"),
    ("an empty origin", note(ED, ML, text=TEXT[len(ORIGIN) :]), "note.invalid"),
    ("a size with a zero before it", NOTE.replace(b"\n7\n", b"\n07\n"), "note.invalid"),
    ("a size with a sign", NOTE.replace(b"\n7\n", b"\n+7\n"), "note.invalid"),
    ("a size of 2^63", NOTE.replace(b"\n7\n", b"\n9223372036854775808\n"), "note.invalid"),
    ("a size in other digits", NOTE.replace(b"\n7\n", "\n٧\n".encode()), "note.invalid"),
    ("a root of 31 bytes", note(ED, ML, text=f"{ORIGIN}\n7\n{base64.b64encode(bytes(31)).decode()}\n".encode()), "note.invalid"),
    ("a root in base64url", note(ED, ML, text=f"{ORIGIN}\n7\n{'_' * 43}=\n".encode()), "note.invalid"),
    ("a root with spare bits", note(ED, ML, text=f"{ORIGIN}\n7\n{'A' * 42}B=\n".encode()), "note.invalid"),
    ("a hyphen for the dash", NOTE.replace("—".encode(), b"-"), "note.invalid"),
    ("two spaces", NOTE.replace("— ".encode(), "—  ".encode()), "note.invalid"),
    ("a signature of four bytes", note(ED, ML, line("w", b"abcd")), "note.invalid"),
    ("a signature that is not base64", note(ED, ML, b"\xe2\x80\x94 w a\n"), "note.invalid"),
    ("a signature with spare bits", note(ED, ML, b"\xe2\x80\x94 w AAAAAAB=\n"), "note.invalid"),
    ("a name with a plus", note(ED, ML, line("w+x", b"abcd" + bytes(64))), "note.invalid"),
    ("a name with a wide space", note(ED, ML, line("w\u2003x", b"abcd" + bytes(64))), "note.invalid"),
    ("a control character", note(ED, ML, text=b"a\x01" + TEXT), "note.invalid"),
    ("a tab", note(ED, ML, text=b"a\t" + TEXT), "note.invalid"),
    ("NUL", note(ED, ML, text=b"\0" + TEXT), "note.invalid"),
    ("bytes that are not UTF-8", note(ED, ML, text=b"\xff" + TEXT), "note.invalid"),
    ("no signatures", TEXT, "note.invalid"),
    ("an empty list of signatures", TEXT + b"\n", "note.invalid"),
    ("nothing", b"", "note.invalid"),
    ("too many signatures", note(ED, ML, *(line(f"w{i}", b"abcd1") for i in range(NOTE_SIGNATURES_MAX - 1))), "note.invalid"),
    ("too long", note(ED, ML, line("w", bytes(60_000))), "note.invalid"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "code"), [(data, code) for _, data, code in BAD], ids=[name for name, *_ in BAD])
def test_a_checkpoint_with_one_fault_is_refused(data: bytes, code: str) -> None:
    assert code_of(verified, data) == code


def test_the_last_empty_line_parts_text_from_signatures() -> None:
    assert parse_note(note(ED, text=b"a\n\nb\n")).text == "a\n\nb\n"


def test_as_many_signatures_as_the_specification_asks_for_are_taken() -> None:
    assert len(parse_note(note(*(line(f"w{i}", b"abcd1") for i in range(16)))).signatures) == 16


def test_the_subtree_message_has_the_layout_of_the_specification() -> None:
    found = subtree_message(name="n", origin="log", time_s=5, size=7, root=ROOT)
    assert found == b"subtree/v1\n\0\x01n" + b"\0" * 7 + b"\5\x03log" + bytes(8) + bytes(7) + b"\7" + ROOT


@given(st.integers(0, 2**63 - 1), digests)
def test_a_checkpoint_is_read_back(size: int, root: bytes) -> None:
    data = format_note(checkpoint_text(ORIGIN, size, root), [(KEYS.ed25519, bytes(64)), (KEYS.mldsa44, bytes(2428))])
    found = verify_checkpoint(data, KEYS, Gullible())
    assert (found.size, found.root) == (size, root)


@given(st.one_of(hostile(NOTE), hostile(note(resized(ED, -50)))))
def test_any_bytes_are_a_checkpoint_or_a_problem(data: bytes) -> None:
    total(verified, data)
    total(parse_note, data)
    found = total(parse_checkpoint, data)
    assert found is None or data.startswith(checkpoint_text(found.origin, found.size, found.root).encode())


@given(st.sampled_from([ED25519, MLDSA44]), st.binary(min_size=1312, max_size=1312))
def test_a_verifier_key_is_read_back(kind: int, public: bytes) -> None:
    key = VerifierKey(name=ORIGIN, type=kind, public=public[: 32 if kind == ED25519 else None])
    assert VerifierKey.parse(str(key)) == key


def made(name: str, data: bytes) -> str:
    """A vkey text whose key id fits."""
    return str(VerifierKey(name=name, type=data[0], public=data[1:]))


GOOD_VKEY = SIGNER.vkeys[0]


@pytest.mark.parametrize(
    "text",
    ["", "+", "++", "a+b", GOOD_VKEY[:-1], GOOD_VKEY + "A", GOOD_VKEY + "\n", GOOD_VKEY.replace("+", "+0", 1),
     ORIGIN + "+00000000+" + GOOD_VKEY.split("+", 2)[2], made("", b"\1" + bytes(32)), made("a b", b"\1" + bytes(32)),
     made("a\u2003b", b"\1" + bytes(32)), made("a\nb", b"\1" + bytes(32)), made("n" * 256, b"\1" + bytes(32)),
     made("é" * 128, b"\1" + bytes(32)), made("n", b"\4" + bytes(31)), made("n", b"\5" + bytes(32)), made("n", b"\1" + bytes(31)),
     made("n", b"\6" + bytes(32)), "\ud800+00000000+AQ==", "é+00000000+é"],
)  # fmt: skip
def test_a_text_that_is_no_verifier_key_of_ours_is_refused(text: str) -> None:
    assert code_of(VerifierKey.parse, text) == "note.invalid"


@given(hostile(GOOD_VKEY.encode()))
def test_any_text_is_a_verifier_key_or_a_problem(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    found = total(VerifierKey.parse, text)
    assert found is None or str(found) == text


def test_ledger_keys_are_an_ed25519_and_an_ml_dsa_key_of_the_origin() -> None:
    first, second = SIGNER.vkeys
    assert LedgerKeys.parse(ORIGIN, (first, second)) == KEYS
    for pair in ((second, first), (first, first), (second, second)):
        assert code_of(LedgerKeys.parse, ORIGIN, pair) == "dir.key_invalid"
    assert code_of(LedgerKeys.parse, "test/other/2026.1", (first, second)) == "dir.key_invalid"
    assert code_of(LedgerKeys.parse, ORIGIN, (first, "x")) == "dir.key_invalid"
