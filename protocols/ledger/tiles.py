"""C2SP tlog-tiles: paths, the growing right edge, reading any perfect subtree from tiles, entry bundles."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from protocols.ledger.merkle import HASH_BYTES, fold, node_hash, subtrees
from protocols.problems import ProblemError

HEIGHT = 8
WIDTH = 1 << HEIGHT
LEVEL_MAX = 7  # 2^64 leaves

TileId = tuple[int, int]
"""(level, index) of a tile; level -1 is an entry bundle."""

ENTRIES = -1
_PATH = re.compile(r"tile/(entries|0|[1-9]\d?)/((?:x\d{3}/){0,6}\d{3})(?:\.p/([1-9]\d{0,2}))?", re.ASCII)


def tile_path(tile: TileId, width: int = WIDTH) -> str:
    """`tile/<L>/<N>[.p/<W>]`, N in groups of three digits."""
    level, index = tile
    digits = f"{index:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    name = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    partial = "" if width == WIDTH else f".p/{width}"
    return f"tile/{'entries' if level == ENTRIES else level}/{name}{partial}"


def parse_tile_path(path: str) -> tuple[TileId, int]:
    """The tile and its width; `tile.missing` for any text that `tile_path` would not write."""
    found = _PATH.fullmatch(path)
    if found:
        level = ENTRIES if found[1] == "entries" else int(found[1])
        tile = level, int(found[2].replace("x", "").replace("/", ""))
        width = int(found[3]) if found[3] else WIDTH
        if level <= 63 and width <= WIDTH and tile_path(tile, width) == path:
            return tile, width
    raise ProblemError("tile.missing", "not a tile path")


def tile_width(tile: TileId, size: int) -> int:
    """How many hashes (or entries) of the tile exist at this tree size: 0..256."""
    level, index = tile
    return max(0, min(WIDTH, (size >> HEIGHT * max(level, 0)) - index * WIDTH))


def edge_tiles(size: int) -> list[TileId]:
    """The partly filled tiles at the right edge of the tree, lowest level first."""
    return [
        (level, size >> HEIGHT * (level + 1)) for level in range(LEVEL_MAX + 1) if size >> HEIGHT * level & (WIDTH - 1)
    ]


def _hashes(data: bytes) -> list[bytes]:
    return [data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)]


def _inner_levels(data: bytes) -> list[list[bytes]]:
    """All perfect subtrees inside one tile: [height][index]."""
    levels = [_hashes(data)]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([node_hash(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)])
    return levels


class TileReader:
    """Perfect subtrees out of a set of tiles; `node` is a merkle.Node. KeyError names a TileId that is missing."""

    def __init__(self, tiles: Mapping[TileId, bytes]) -> None:
        self._tiles = tiles
        self._levels: dict[TileId, list[list[bytes]]] = {}

    def node(self, level: int, index: int) -> bytes:
        """Hash of the perfect subtree at (level, index)."""
        tile, height, inside = place(level, index)
        if tile not in self._levels:
            self._levels[tile] = _inner_levels(self._tiles[tile])
        return self._levels[tile][height][inside]


def place(level: int, index: int) -> tuple[TileId, int, int]:
    """The tile that holds the perfect subtree (level, index), its height inside it and its place at that height."""
    tile_level, height = divmod(level, HEIGHT)
    per_tile = HEIGHT - height
    return (tile_level, index >> per_tile), height, index & ((1 << per_tile) - 1)


class TilesWanted:
    """A merkle.Node that only notes which tiles a computation reads."""

    def __init__(self) -> None:
        self.tiles: set[TileId] = set()

    def node(self, level: int, index: int) -> bytes:
        """Notes the tile; the hash returned is meaningless."""
        self.tiles.add(place(level, index)[0])
        return bytes(HASH_BYTES)


class Edge:
    """The right edge of a tree: enough to append to it and to know its root. `tiles` must be `edge_tiles(size)`."""

    def __init__(self, size: int, tiles: Mapping[TileId, bytes]) -> None:
        self.size = size
        self._rows = {level: bytearray(tiles[level, index]) for level, index in edge_tiles(size)}
        if any(
            len(row) != HASH_BYTES * tile_width((lv, size >> HEIGHT * (lv + 1)), size) for lv, row in self._rows.items()
        ):
            raise ValueError("edge tiles do not fit the size")

    def root(self) -> bytes:
        """The tree's root."""
        levels = {level: _inner_levels(bytes(row)) for level, row in self._rows.items()}
        hashes = []
        for level, index in subtrees(0, self.size):
            (tile_level, _), height, inside = place(level, index)
            hashes.append(levels[tile_level][height][inside])
        return fold(hashes)

    def append(self, leaves: Iterable[bytes]) -> dict[TileId, bytes]:
        """Appends leaf hashes; returns every tile that changed, whole."""
        changed: dict[TileId, bytes] = {}
        touched: set[int] = set()
        for leaf in leaves:
            self._push(0, leaf, changed, touched)
            self.size += 1
        return changed | {tile: data for tile, data in self.tiles().items() if tile[0] in touched}

    def _push(self, level: int, value: bytes, changed: dict[TileId, bytes], touched: set[int]) -> None:
        row = self._rows.setdefault(level, bytearray())
        row += value
        touched.add(level)
        if len(row) == WIDTH * HASH_BYTES:
            changed[level, self.size >> HEIGHT * (level + 1)] = bytes(row)
            top = _inner_levels(bytes(row))[HEIGHT][0]
            row.clear()
            self._push(level + 1, top, changed, touched)

    def tiles(self) -> dict[TileId, bytes]:
        """The partly filled tiles at the right edge."""
        return {(level, self.size >> HEIGHT * (level + 1)): bytes(row) for level, row in self._rows.items() if row}

    def copy(self) -> "Edge":
        """An independent edge of the same tree."""
        other = Edge(0, {})
        other.size, other._rows = self.size, {level: bytearray(row) for level, row in self._rows.items()}
        return other


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """An entry bundle: uint16 BE length before every entry."""
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def parse_bundle(data: bytes) -> Iterator[bytes]:
    """The entries of a bundle; `tile.missing` where its lengths do not add up."""
    at = 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if at + 2 > len(data) or end > len(data):
            raise ProblemError("tile.missing", "bundle is cut short")
        yield data[at + 2 : end]
        at = end
