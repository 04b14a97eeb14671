"""A ledger as C2SP tlog-tiles files: `checkpoint`, `vkeys`, `checkpoints/`, `tile/`, for any verifier and any web server."""

from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree

from protocols.ledger.checkpoint import Checkpoint, LedgerKeys, parse_checkpoint
from protocols.ledger.merkle import leaf_hash
from protocols.ledger.tiles import ENTRIES, WIDTH, Edge, TileId, edge_tiles, encode_bundle, tile_path, tile_width
from protocols.problems import Fault, ProblemError


class ExportFolder:
    """Grows a folder bundle by bundle; full tiles never change, the checkpoint comes last. What was cut is gone on with."""

    def __init__(self, folder: Path, keys: LedgerKeys) -> None:
        """`config.invalid` for a folder that holds something else; nothing is written then."""
        self._folder, self._origin = folder, keys.origin
        self._vkeys = f"{keys.ed25519}\n{keys.mldsa44}\n".encode()
        self.standing = self._standing()

    def begin(self) -> Edge:
        """The tree as it stands there, up to the last whole bundle: where to go on."""
        if self.standing is None:
            self._write("vkeys", self._vkeys)
        start = self.standing.size // WIDTH * WIDTH if self.standing else 0
        try:
            tiles = {
                tile: (self._folder / tile_path(tile, tile_width(tile, start))).read_bytes()
                for tile in edge_tiles(start)
            }
            return Edge(start, tiles)
        except (OSError, ValueError):
            raise ProblemError(
                "config.invalid", f"{self._folder} is damaged: take the ledger into a new folder"
            ) from None

    def add(self, edge: Edge, entries: Sequence[bytes], size: int) -> None:
        """The next bundle of a tree of `size` entries; `ledger.split_view` where it does not go on from what stands here."""
        stands, leaves = self.standing, [leaf_hash(entry) for entry in entries]
        if stands and edge.size <= stands.size <= edge.size + len(leaves):
            before = edge.copy()
            before.append(leaves[: stands.size - edge.size])
            if before.root() != stands.root:
                raise ProblemError(
                    "ledger.split_view", f"{self._folder} holds another history of {self._origin}; nothing was written"
                )
        tile = ENTRIES, edge.size // WIDTH
        self._write_tile(tile, tile_width(tile, size), encode_bundle(entries))
        for each, data in edge.append(leaves).items():
            if tile_width(each, edge.size) == WIDTH:
                self._write_tile(each, WIDTH, data)

    def finish(self, edge: Edge, newest: Checkpoint, witnessed: bytes | None) -> None:
        """The tiles at the right edge and the checkpoints; `proof.path` where the entries do not give the root that was signed."""
        for tile, data in edge.tiles().items():
            self._write_tile(tile, tile_width(tile, edge.size), data)
        if (edge.size, edge.root()) != (newest.size, newest.root):
            raise ProblemError("proof.path", "the entries do not give the root that was signed: run `tracewire doctor`")
        if witnessed is not None:
            self._write("checkpoint.witnessed", witnessed)
        self._write("checkpoint", newest.note)

    def note(self, checkpoint: Checkpoint) -> None:
        """An older checkpoint, or the newest."""
        self._write(f"checkpoints/{checkpoint.size}", checkpoint.note)

    def _standing(self) -> Checkpoint | None:
        """The checkpoint that stands there; None in a new folder, or where the first export was cut."""
        folder = self._folder
        if not folder.exists() or not any(folder.iterdir()):
            return None
        for torn in folder.rglob(".*.tmp"):  # of an export that was killed
            torn.unlink()
        note, keys = folder / "checkpoint", folder / "vkeys"
        if not keys.exists() or keys.read_bytes() != self._vkeys:
            raise ProblemError(
                "config.invalid", f"{folder} holds something else than {self._origin}; nothing was written"
            )
        return parse_checkpoint(note.read_bytes()) if note.exists() else None

    def _write_tile(self, tile: TileId, width: int, data: bytes) -> None:
        name = tile_path(tile, width)
        self._write(name, data)
        if width == WIDTH:  # whoever asks for a part of it takes the whole (C2SP tlog-tiles)
            rmtree(self._folder / f"{name}.p", ignore_errors=True)

    def _write(self, name: str, data: bytes) -> None:
        """Whole or not at all."""
        path = self._folder / name
        torn = path.with_name(f".{path.name}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torn.write_bytes(data)
            torn.replace(path)
        except OSError as error:
            torn.unlink(missing_ok=True)
            fault = Fault(
                "", "store.full", error.strerror or "", "Make room or choose another folder, and export again."
            )
            raise ProblemError("store.full", f"{path} cannot be written: {error.strerror}", errors=[fault]) from None
