"""RFC 6962 Merkle trees: hashes, inclusion and consistency paths, and their verification (RFC 9162 section 2.1)."""

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from hashlib import sha256

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()

Node = Callable[[int, int], bytes]
"""(level, index) -> hash of the perfect subtree over leaves [index << level, (index + 1) << level)."""


def leaf_hash(entry: bytes) -> bytes:
    """RFC 6962 section 2.1: SHA-256(0x00 || entry)."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962 section 2.1: SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


def subtrees(start: int, end: int) -> list[tuple[int, int]]:
    """(level, index) of the fewest perfect subtrees that cover [start, end), left to right."""
    found = []
    while start < end:
        level = min((start & -start).bit_length() - 1 if start else end.bit_length(), (end - start).bit_length() - 1)
        found.append((level, start >> level))
        start += 1 << level
    return found


def fold(hashes: Iterable[bytes]) -> bytes:
    """The root over perfect subtrees given largest first, as `subtrees(0, size)` lists them."""
    ordered = list(hashes)
    return (
        reduce(lambda right, left: node_hash(left, right), reversed(ordered[:-1]), ordered[-1])
        if ordered
        else EMPTY_ROOT
    )


def root(size: int, node: Node) -> bytes:
    """The root of the tree's first `size` leaves."""
    return _range_hash(0, size, node)


def _range_hash(start: int, end: int, node: Node) -> bytes:
    return fold(node(level, index) for level, index in subtrees(start, end))


def _split(size: int) -> int:
    return 1 << (size - 1).bit_length() - 1


def inclusion_path(index: int, size: int, node: Node) -> list[bytes]:
    """Hashes leaf to root for 0 <= index < size (RFC 9162 section 2.1.3.1)."""
    start, end, path = 0, size, []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_range_hash(middle, end, node))
            end = middle
        else:
            path.append(_range_hash(start, middle, node))
            start = middle
    return path[::-1]


def consistency_path(old: int, new: int, node: Node) -> list[bytes]:
    """Hashes that prove the tree of `old` leaves a prefix of that of `new` (RFC 9162 section 2.1.4.1)."""
    if old in (0, new):
        return []
    start, end, whole, path = 0, new, True, []
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(_range_hash(middle, end, node))
            end = middle
        else:
            path.append(_range_hash(start, middle, node))
            start, whole = middle, False
    if not whole:
        path.append(_range_hash(start, end, node))
    return path[::-1]


def _climb(seed: bytes, index: int, path: Sequence[bytes], inner: int) -> bytes:
    for level, sibling in enumerate(path):
        on_right = level >= inner or index >> level & 1
        seed = node_hash(sibling, seed) if on_right else node_hash(seed, sibling)
    return seed


def verify_inclusion(*, leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `path` proves the leaf hash at `index` in the tree of `size` leaves (RFC 9162 section 2.1.3.2)."""
    if not 0 <= index < size or not _are_hashes((leaf, root, *path)):
        return False
    inner = (index ^ (size - 1)).bit_length()
    if len(path) != inner + (index >> inner).bit_count():
        return False
    return _climb(leaf, index, path, inner) == root


def verify_consistency(*, old: int, new: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether `path` proves the tree (old, old_root) a prefix of (new, new_root) (RFC 9162 section 2.1.4.2)."""
    if old == new:
        return not path and old_root == new_root and (old > 0 or old_root == EMPTY_ROOT)
    if not 0 <= old < new or not _are_hashes((old_root, new_root, *path)):
        return False
    if old == 0:
        return not path and old_root == EMPTY_ROOT
    if not old & (old - 1):  # then the older tree is a node of the newer one
        path = (old_root, *path)
    return older_root(old=old, new=new, new_root=new_root, path=path) == old_root


def older_root(*, old: int, new: int, new_root: bytes, path: Sequence[bytes]) -> bytes | None:
    """The root of the first `old` leaves of the tree (new, new_root), as `path` proves it; None where it does not lead to `new_root`.

    Whoever signed another root for `old` has shown two histories, and this is the proof: every hash of the path is bound by
    `new_root`. The path of RFC 9162 leaves the older root out where `old` is a power of two; here it comes first.
    """
    if not 0 < old < new or not path or not _are_hashes((new_root, *path)):
        return None
    older, *rest = path
    shift = (old & -old).bit_length() - 1
    index = (old - 1) >> shift
    inner = (index ^ ((new - 1) >> shift)).bit_length()
    if len(rest) != inner + (index >> inner).bit_count() or _climb(older, index, rest, inner) != new_root:
        return None
    for level, sibling in enumerate(rest):
        if level >= inner or index >> level & 1:
            older = node_hash(sibling, older)
    return older


def _are_hashes(values: Iterable[bytes]) -> bool:
    return all(len(value) == HASH_BYTES for value in values)
