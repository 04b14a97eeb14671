"""RFC 6962 trees against outside vectors and against a tree computed the plain way."""

import base64
import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.ledger.merkle import (
    EMPTY_ROOT,
    consistency_path,
    fold,
    inclusion_path,
    leaf_hash,
    node_hash,
    older_root,
    root,
    subtrees,
    verify_consistency,
    verify_inclusion,
)
from tests.protocols.forms import Tree, outside

ENTRIES = [f"entry {i}".encode() for i in range(300)]
TREE = Tree(ENTRIES)


def plain_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\0" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\1" + plain_root(leaves[:split]) + plain_root(leaves[split:])).digest()


def b64(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def test_transparency_dev_vectors_of_inclusion_proofs_hold_and_fail_as_they_say() -> None:
    files = sorted(outside("transparency-dev-merkle/testdata/inclusion").rglob("*.json"))
    assert len(files) == 98
    for file in files:
        case = json.loads(file.read_text())
        good = verify_inclusion(
            leaf=b64(case["leafHash"]),
            index=case["leafIdx"],
            size=case["treeSize"],
            path=[b64(each) for each in case["proof"] or []],
            root=b64(case["root"]),
        )
        assert good is not case["wantErr"], file


def test_transparency_dev_vectors_of_consistency_proofs_hold_and_fail_as_they_say() -> None:
    files = sorted(outside("transparency-dev-merkle/testdata/consistency").rglob("*.json"))
    assert len(files) == 98
    for file in files:
        case = json.loads(file.read_text())
        good = verify_consistency(
            old=case["size1"],
            new=case["size2"],
            old_root=b64(case["root1"]),
            new_root=b64(case["root2"]),
            path=[b64(each) for each in case["proof"] or []],
        )
        assert good is not case["wantErr"], file


def test_the_constants_of_rfc_6962_hold() -> None:
    case = json.loads(outside("rfc6962-constants.json").read_text())
    tree = Tree([bytes.fromhex(each) for each in case["leaf_inputs_hex"]])
    assert [tree.root(size).hex() for size in range(9)] == case["roots_by_size_hex"]
    hasher = case["hasher"]
    assert EMPTY_ROOT.hex() == hasher["empty_root"]
    assert leaf_hash(b"").hex() == hasher["leaf_of_empty"]
    assert leaf_hash(b"L123456").hex() == hasher["leaf_of_L123456"]
    assert node_hash(b"N123", b"N456").hex() == hasher["node_of_N123_N456"]


@pytest.mark.parametrize("size", [*range(20), 127, 128, 129, 255, 256, 257, 300])
def test_the_root_is_that_of_the_definition(size: int) -> None:
    assert root(size, TREE.node) == plain_root(ENTRIES[:size])


def test_every_proof_of_every_small_tree_holds_and_is_as_long_as_the_rfc_says() -> None:
    for size in range(1, 34):
        for index in range(size):
            path = inclusion_path(index, size, TREE.node)
            assert verify_inclusion(
                leaf=leaf_hash(ENTRIES[index]), index=index, size=size, path=path, root=TREE.root(size)
            )
        for old in range(size + 1):
            path = consistency_path(old, size, TREE.node)
            assert verify_consistency(old=old, new=size, old_root=TREE.root(old), new_root=TREE.root(size), path=path)


def test_subtrees_cover_a_range_exactly_and_in_order() -> None:
    for start in range(40):
        for end in range(start, 70):
            found = subtrees(start, end)
            covered = [leaf for level, index in found for leaf in range(index << level, (index + 1) << level)]
            assert covered == list(range(start, end))


@given(st.data())
def test_an_inclusion_proof_holds_for_its_leaf_index_size_and_root_only(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 300))
    index = data.draw(st.integers(0, size - 1))
    path = inclusion_path(index, size, TREE.node)
    good = {"leaf": leaf_hash(ENTRIES[index]), "index": index, "size": size, "path": path, "root": TREE.root(size)}
    assert verify_inclusion(**good)
    flipped = bytes([path[0][0] ^ 1]) + path[0][1:] if path else b""
    wrong = data.draw(
        st.sampled_from(
            [
                {"leaf": leaf_hash(b"another")},
                {"index": index + 1},
                {"index": -1},
                {"index": size},
                {"size": 0},
                {"root": bytes(32)},
                {"root": b""},
                {"path": [*path, bytes(32)]},
                {"leaf": b""},
                {"path": [flipped, *path[1:]]} if path else {"path": [b""]},
                {"path": path[1:]} if path else {"path": [bytes(32)]},
                {"path": [path[0][:31], *path[1:]]} if path else {"size": 2},
            ]
        )  # fmt: skip
    )
    assert not verify_inclusion(**good | wrong)


@given(st.data())
def test_a_consistency_proof_holds_for_its_two_trees_only(data: st.DataObject) -> None:
    new = data.draw(st.integers(2, 300))
    old = data.draw(st.integers(1, new - 1))
    path = consistency_path(old, new, TREE.node)
    good = {"old": old, "new": new, "old_root": TREE.root(old), "new_root": TREE.root(new), "path": path}
    assert verify_consistency(**good)
    flip = data.draw(st.integers(0, len(path) - 1))
    flipped = [*path[:flip], bytes([path[flip][0] ^ 1]) + path[flip][1:], *path[flip + 1 :]]
    wrong = data.draw(
        st.sampled_from(
            [
                {"old_root": bytes(32)},
                {"new_root": bytes(32)},
                {"old": new, "new": old},
                {"old": 0},
                {"old": -1},
                {"path": []},
                {"path": [*path, bytes(32)]},
                {"path": path[:-1]},
                {"path": flipped},
                {"old_root": b""},
                {"old_root": good["new_root"], "new_root": good["old_root"]},
                {"path": [b"", *path[1:]]},
            ]
        )  # fmt: skip
    )
    assert not verify_consistency(**good | wrong)


@given(st.data())
def test_a_path_that_leads_to_a_root_proves_the_one_older_root_that_there_is(data: st.DataObject) -> None:
    new = data.draw(st.integers(2, 300))
    old = data.draw(st.integers(1, new - 1))
    seed = [TREE.root(old)] if not old & (old - 1) else []
    path = seed + consistency_path(old, new, TREE.node)
    given_ = {"old": old, "new": new, "new_root": TREE.root(new)}
    assert older_root(**given_, path=path) == TREE.root(old)
    hashes = st.one_of(st.sampled_from([*path, TREE.root(new), bytes(32)]), st.binary(max_size=33))
    other = data.draw(st.lists(hashes, max_size=len(path) + 2))
    assert older_root(**given_, path=other) in (None, TREE.root(old)), "nobody can be accused with a path of one's own"
    assert older_root(**given_ | {"old": data.draw(st.integers(-2, 302))}, path=path) in (None, TREE.root(old))


@given(st.integers(-2, 5), st.integers(-2, 5), st.lists(st.binary(max_size=33), max_size=4), st.binary(max_size=33))
def test_nonsense_is_never_proven(a: int, b: int, path: list[bytes], hash_: bytes) -> None:
    assert not verify_inclusion(leaf=hash_, index=a, size=b, path=path, root=bytes(32))
    if a > 0:
        assert not verify_consistency(old=a, new=b, old_root=hash_, new_root=bytes(32) + b"x", path=path)


def test_nothing_but_the_empty_root_precedes_a_tree_at_size_0() -> None:
    good = {"old": 0, "new": 3, "old_root": EMPTY_ROOT, "new_root": TREE.root(3), "path": []}
    assert verify_consistency(**good)
    assert not verify_consistency(**good | {"old_root": bytes(32)})
    assert not verify_consistency(**good | {"path": [bytes(32)]})
    assert verify_consistency(old=0, new=0, old_root=EMPTY_ROOT, new_root=EMPTY_ROOT, path=[])
    assert not verify_consistency(old=0, new=0, old_root=bytes(32), new_root=bytes(32), path=[])


def test_the_root_over_nothing_is_the_empty_root() -> None:
    assert fold([]) == root(0, TREE.node) == EMPTY_ROOT
