"""C2SP tlog-proof files that carry their entry: the path authenticates it, the checkpoint the path."""

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.notes import LedgerNoteSigner
from keys.suite import Tw1Verifier
from protocols.ledger.checkpoint import LedgerKeys, checkpoint_text, verify_checkpoint
from protocols.ledger.merkle import inclusion_path
from protocols.ledger.note import format_note
from protocols.ledger.proof import Place, format_proof, parse_proof
from protocols.limits import ENTRY_BYTES_MAX, NOTE_BYTES_MAX
from tests.protocols.forms import Gullible, Tree, code_of, hostile, total

ORIGIN = "test/registry/2026.1"
TREE = Tree([b'{"n":%d}' % i for i in range(20)])
SIGNER = LedgerNoteSigner(ORIGIN, bytes(range(32)), bytes(range(1, 33)))
KEYS = LedgerKeys.parse(ORIGIN, SIGNER.vkeys)
NOTE = SIGNER.sign(20, TREE.root(20), datetime(2026, 11, 22, 10, tzinfo=UTC))


def place(index: int, size: int = 20) -> Place:
    path = tuple(inclusion_path(index, size, TREE.node))
    return Place(origin=ORIGIN, size=size, index=index, path=path, entry=TREE.entries[index])


PLACE = place(5)
FILE = format_proof(PLACE, NOTE)


def verified(data: bytes) -> Place:
    return parse_proof(data, KEYS, Tw1Verifier())


def test_a_proof_is_read_back_and_holds() -> None:
    assert verified(FILE) == PLACE


def test_a_proof_file_has_the_lines_of_the_specification() -> None:
    lines = FILE.split(b"\n")
    assert lines[:3] == [
        b"c2sp.org/tlog-proof@v1",
        b"extra " + base64.b64encode(PLACE.entry),
        b"index 5",
    ]
    assert lines[3:8] == [base64.b64encode(each) for each in PLACE.path]
    assert FILE.partition(b"\n\n")[2] == NOTE


@given(st.data())
def test_every_proof_of_every_tree_is_read_back(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 20))
    found = place(data.draw(st.integers(0, size - 1)), size)
    text = checkpoint_text(ORIGIN, size, TREE.root(size))
    note = format_note(text, [(KEYS.ed25519, bytes(64)), (KEYS.mldsa44, bytes(2428))])
    assert parse_proof(format_proof(found, note), KEYS, Gullible()) == found


@given(hostile(FILE))
def test_any_bytes_are_a_proof_of_a_real_entry_or_a_problem(data: bytes) -> None:
    found = total(verified, data)
    assert found is None or found.entry == TREE.entries[found.index]


def edited(old: bytes, new: bytes) -> bytes:
    assert old in FILE
    return FILE.replace(old, new, 1)


HASH = base64.b64encode(PLACE.path[0])
LONG = b"x" * (ENTRY_BYTES_MAX + 1)
BIG = Tree([LONG])
BIG_NOTE = SIGNER.sign(1, BIG.root(1), datetime(2026, 11, 22, 10, tzinfo=UTC))
BAD: list[tuple[str, bytes, str]] = [
    ("another version", edited(b"@v1", b"@v2"), "proof.path"),
    ("no entry", edited(b"extra " + base64.b64encode(PLACE.entry) + b"\n", b""), "proof.path"),
    ("another entry", edited(base64.b64encode(PLACE.entry), base64.b64encode(b"{}")), "proof.path"),
    ("an entry with spare bits", edited(b"extra eyJuIjo1fQ==", b"extra eyJuIjo1fR=="), "note.invalid"),
    ("no index", edited(b"index 5\n", b""), "proof.path"),
    ("another index", edited(b"index 5", b"index 4"), "proof.path"),
    ("an index beyond the tree", edited(b"index 5", b"index 20"), "proof.path"),
    ("an index with a zero before it", edited(b"index 5", b"index 05"), "proof.path"),
    ("an index of 20 digits", edited(b"index 5", b"index " + b"9" * 20), "proof.path"),
    ("a negative index", edited(b"index 5", b"index -5"), "proof.path"),
    ("a hash less", edited(HASH + b"\n", b""), "proof.path"),
    ("a hash twice", edited(HASH + b"\n", HASH + b"\n" + HASH + b"\n"), "proof.path"),
    ("a hash of 31 bytes", edited(HASH, base64.b64encode(bytes(31))), "proof.path"),
    ("a hash in base64url", edited(HASH, b"_" * 43 + b"="), "note.invalid"),
    ("64 hashes", edited(HASH + b"\n", (HASH + b"\n") * 60), "proof.path"),
    ("CRLF", FILE.replace(b"\n", b"\r\n"), "proof.path"),
    ("not ASCII", edited(b"index 5", "index ٥".encode()), "proof.path"),
    ("a checkpoint of another root", FILE.replace(NOTE, SIGNER.sign(20, bytes(32), datetime(2026, 1, 1, tzinfo=UTC))), "proof.path"),
    ("a checkpoint of another size", FILE.replace(NOTE, SIGNER.sign(19, TREE.root(19), datetime(2026, 1, 1, tzinfo=UTC))), "proof.path"),
    ("a checkpoint without ML-DSA", b"\n".join(FILE.split(b"\n")[:-2]) + b"\n", "proof.policy"),
    ("no checkpoint", FILE.partition(b"\n\n")[0], "note.invalid"),
    ("a byte more", FILE + b"x", "note.invalid"),
    ("an entry above 2 KiB", format_proof(Place(origin=ORIGIN, size=1, index=0, path=(), entry=LONG), BIG_NOTE), "proof.path"),
    ("too long", FILE + b"\n" * NOTE_BYTES_MAX * 2, "proof.path"),
    ("nothing", b"", "proof.path"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "code"), [(data, code) for _, data, code in BAD], ids=[name for name, *_ in BAD])
def test_a_proof_with_one_fault_is_refused(data: bytes, code: str) -> None:
    assert code_of(verified, data) == code


def test_a_place_fits_its_own_checkpoint_only() -> None:
    checkpoint = verify_checkpoint(NOTE, KEYS, Tw1Verifier())
    PLACE.check(checkpoint)
    other = Place(origin="test/other/2026.1", size=20, index=5, path=PLACE.path, entry=PLACE.entry)
    assert code_of(other.check, checkpoint) == "proof.path"
