"""C2SP tlog-tiles: paths and counts of the specification, a foreign log, and an edge that grows like the whole tree."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.suite import Tw1Verifier
from protocols.ledger.merkle import EMPTY_ROOT, inclusion_path, leaf_hash, root
from protocols.ledger.note import VerifierKey, parse_note
from protocols.ledger.tiles import (
    ENTRIES,
    WIDTH,
    Edge,
    TileId,
    TileReader,
    TilesWanted,
    edge_tiles,
    encode_bundle,
    parse_bundle,
    parse_tile_path,
    tile_path,
    tile_width,
)
from protocols.limits import PATH_HASHES_MAX
from tests.protocols.forms import Tree, code_of, hostile, outside, total

TREE = Tree([i.to_bytes(4, "big") for i in range(70_000)])


def bundle(data: bytes) -> list[bytes]:
    return list(parse_bundle(data))


def tiles_of(size: int) -> dict[TileId, bytes]:
    """Every tile of the tree of that size, by the definition in C2SP tlog-tiles."""
    found: dict[TileId, bytes] = {}
    level, above = 0, [leaf_hash(entry) for entry in TREE.entries[:size]]
    while above:
        for index in range(-(-len(above) // WIDTH)):
            found[level, index] = b"".join(above[index * WIDTH : (index + 1) * WIDTH])
        full = [above[i : i + WIDTH] for i in range(0, len(above) - WIDTH + 1, WIDTH)]
        above = [root(WIDTH, Tree.over(hashes).node) for hashes in full]
        level += 1
    return found


def test_paths_are_those_of_the_specification() -> None:
    case = json.loads(outside("c2sp-examples.json").read_text())
    for index, path in case["tile_index_path"].items():
        assert tile_path((0, int(index))) == f"tile/0/{path}"
        assert parse_tile_path(f"tile/0/{path}") == ((0, int(index)), WIDTH)


def test_a_tree_has_the_tiles_that_the_specification_counts() -> None:
    for text, counts in json.loads(outside("c2sp-examples.json").read_text())["tiles_at_size"].items():
        size = int(text)
        partial = {f"L{level}_partial": tile_width((level, index), size) for level, index in edge_tiles(size)}
        full = {f"L{level}_full": found for level in range(7) if (found := (size >> 8 * level) // WIDTH)}
        assert partial | full == counts


@pytest.mark.parametrize(
    "path",
    ["tile/0/000", "tile/0/999", "tile/0/x001/000", "tile/63/000", "tile/entries/x001/x234/067.p/1", "tile/7/001.p/255",
     "tile/entries/000.p/255"],
)  # fmt: skip
def test_a_path_that_we_would_write_is_read(path: str) -> None:
    assert tile_path(*parse_tile_path(path)) == path


@pytest.mark.parametrize(
    "path",
    ["", "tile", "tile/0", "tile/0/", "tile/0/0", "tile/0/00", "tile/0/0000", "tile/00/000", "tile/64/000", "tile/-1/000",
     "tile/0/x000/001", "tile/0/001/067", "tile/0/x001/x067", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01",
     "tile/0/000.p/999", "tile/0/000.p/", "tile/0/000.p", "/tile/0/000", "tile/0/000/", "tile/0/000\n", "tile/0/٠٠٠",
     "tile/entries/../000", "tile/Entries/000", "tile/0/000.P/1", "tile/0/x01/000", "tile/1e1/000"],
)  # fmt: skip
def test_any_other_path_is_no_tile(path: str) -> None:
    assert code_of(parse_tile_path, path) == "tile.missing"


@given(st.integers(ENTRIES, 63), st.integers(0, 10**15), st.integers(1, WIDTH))
def test_paths_are_read_back(level: int, index: int, width: int) -> None:
    assert parse_tile_path(tile_path((level, index), width)) == ((level, index), width)


@given(hostile(b"tile/3/x001/067.p/12"))
def test_any_text_is_a_tile_path_or_a_problem(data: bytes) -> None:
    text = data.decode("latin-1")
    found = total(parse_tile_path, text)
    assert found is None or tile_path(*found) == text


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_bundles_are_read_back(entries: list[bytes]) -> None:
    assert bundle(encode_bundle(entries)) == entries


@given(hostile(encode_bundle([b"one", b"", b"three"])))
def test_any_bytes_are_a_bundle_or_a_problem(data: bytes) -> None:
    found = total(bundle, data)
    assert found is None or encode_bundle(found) == data


@pytest.mark.parametrize("data", [b"\0", b"\0\1", b"\0\3on", b"\0\1a\0", b"\0\1a\xff\xff"])
def test_a_bundle_that_is_cut_short_is_refused(data: bytes) -> None:
    assert code_of(bundle, data) == "tile.missing"


def test_a_foreign_log_is_read_and_its_checkpoints_hold() -> None:
    log = outside("transparency-dev-tessera/testdata/log")
    key = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"
    vkey = VerifierKey.parse(key)
    edge = Edge(0, {})
    for size in range(16):
        note = (log / f"checkpoint.{size}").read_bytes()
        parsed = parse_note(note)
        origin, text_size, text_root = parsed.text.removesuffix("\n").split("\n")
        assert (origin, int(text_size)) == (vkey.name, size)
        ((name, key_id, signature),) = parsed.signatures
        assert (name, key_id) == (vkey.name, vkey.key_id)
        assert vkey.verify(parsed.text, signature, size, bytes(32), Tw1Verifier(), origin=origin)
        assert base64.b64decode(text_root) == edge.root()
        if size < 15:
            entries = bundle((log / tile_path((ENTRIES, 0), size + 1)).read_bytes())
            assert len(entries) == size + 1
            edge.append([leaf_hash(entries[size])])
            assert edge.tiles() == {(0, 0): (log / tile_path((0, 0), size + 1)).read_bytes()}


@pytest.mark.parametrize(
    "sizes", [[1], [255], [256], [257], [511, 512, 513], [100, 300, 70_000], [65_535, 65_536, 65_537]]
)
def test_an_edge_that_grows_by_batches_writes_the_tiles_of_the_whole_tree(sizes: list[int]) -> None:
    edge, stored, at = Edge(0, {}), dict[TileId, bytes](), 0
    for size in sizes:
        changed = edge.append([leaf_hash(entry) for entry in TREE.entries[at:size]])
        stored |= changed
        at = size
        assert edge.size == size
        assert edge.tiles().keys() == set(edge_tiles(size))
        assert edge.root() == root(size, TileReader(stored).node)
    assert stored == tiles_of(at)


@given(st.integers(0, 2_000), st.integers(0, 600))
def test_an_edge_read_back_from_its_tiles_grows_alike(size: int, more: int) -> None:
    tiles = tiles_of(size)
    edge = Edge(size, {tile: tiles[tile] for tile in edge_tiles(size)})
    before = edge.root()
    other = edge.copy()
    other.append(leaf_hash(entry) for entry in TREE.entries[size : size + more])
    assert other.root() == TREE.root(size + more)
    assert edge.root() == before == TREE.root(size)


def test_an_edge_of_tiles_that_do_not_fit_its_size_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Edge(3, {(0, 0): bytes(64)})
    assert Edge(0, {}).root() == EMPTY_ROOT


@given(st.data())
def test_a_proof_from_the_tiles_that_were_wanted_is_that_of_the_whole_tree(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 3_000))
    index = data.draw(st.integers(0, size - 1))
    wanted = TilesWanted()
    length = len(inclusion_path(index, size, wanted.node))
    tiles = tiles_of(size)
    reader = TileReader({tile: tiles[tile] for tile in wanted.tiles})
    assert inclusion_path(index, size, reader.node) == inclusion_path(index, size, TREE.node)
    assert length <= PATH_HASHES_MAX


def test_a_width_is_what_the_tree_has_of_a_tile() -> None:
    assert [tile_width((0, 273), 70_000), tile_width((1, 1), 70_000), tile_width((2, 0), 70_000)] == [112, 17, 1]
    assert [tile_width((0, 272), 70_000), tile_width((0, 274), 70_000), tile_width((63, 0), 2**62)] == [256, 0, 0]
    assert tile_width((ENTRIES, 273), 70_000) == 112
