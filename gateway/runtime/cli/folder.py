"""A ledger that lies in a folder, as `ledger export` wrote it: its keys, its entries and its witnesses, judged offline."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from gateway.runtime.cli.say import read_file
from keys.suite import Tw1Verifier
from protocols.ledger.checkpoint import LedgerKeys, parse_checkpoint, verify_checkpoint
from protocols.ledger.entry import Entry, parse_entry
from protocols.ledger.merkle import HASH_BYTES, inclusion_path, leaf_hash
from protocols.ledger.note import VerifierKey
from protocols.ledger.order import Order
from protocols.ledger.proof import Place, format_proof
from protocols.ledger.tiles import (
    ENTRIES,
    WIDTH,
    Edge,
    TileId,
    TileReader,
    TilesWanted,
    encode_bundle,
    parse_bundle,
    parse_tile_path,
    tile_path,
    tile_width,
)
from protocols.ledger.witness import Policy, parse_policy
from protocols.problems import ProblemError


def demanded(policy: Path | None, vkeys: list[str] | None) -> tuple[Policy | None, list[str] | None]:
    """The policy of a file, and the keys of the ledger that are given, else those that the policy names as a pair."""
    wanted = parse_policy(read_file(policy)) if policy else None
    named = [str(key) for key in wanted.logs] if wanted else []
    return wanted, vkeys or (named if len(named) > 1 else None)


def covered(folder: Path, keys: LedgerKeys, policy: Policy) -> int:
    """The size up to which the policy's quorum has cosigned; `verified` has found that checkpoint to be of this very tree."""
    path = folder / "checkpoint.witnessed"
    note = verify_checkpoint(read_file(path if path.exists() else folder / "checkpoint"), keys, Tw1Verifier())
    satisfied(policy, keys, note.note)
    return note.size


def satisfied(policy: Policy, keys: LedgerKeys, note: bytes) -> None:
    """`checkpoint.unwitnessed` unless the checkpoint carries what the policy demands; `proof.origin` where it names another ledger."""
    policy.check_log(keys)
    if not policy.satisfied(note, Tw1Verifier()):
        raise ProblemError(
            "checkpoint.unwitnessed", "no checkpoint here carries the cosignatures that the policy demands"
        )


def keys_of(folder: Path, vkeys: Sequence[str] | None) -> LedgerKeys:
    """The keys of an exported ledger: two of those given, by its origin; none given: the file `vkeys`."""
    given = vkeys or read_file(folder / "vkeys").decode().split()
    names = {VerifierKey.parse(key).name for key in given}
    origin = names.pop() if len(names) == 1 else parse_checkpoint(read_file(folder / "checkpoint")).origin
    return LedgerKeys.among(origin, given)


def sound(folder: Path, keys: LedgerKeys) -> Iterator[Entry]:
    """As `verified`; and every entry is one, and may stand where it does, and no file is there that the tree does not have."""
    size = parse_checkpoint(read_file(folder / "checkpoint")).size
    order = Order(keys.origin, size)
    for index, data in enumerate(verified(folder, keys)):
        try:
            entry = parse_entry(data)
        except ProblemError as problem:
            raise ProblemError(problem.code, f"entry {index}: {problem.detail}") from None
        order.check(index, entry)
        yield entry
    for path in folder.glob("tile/**/*"):
        if path.is_file():
            _belongs(folder, path.relative_to(folder).as_posix(), size)


def _belongs(folder: Path, name: str, size: int) -> None:
    """A file is a tile or bundle of the tree, or the beginning of one as it was when the tree was smaller."""
    tile, width = parse_tile_path(name)
    if width > (whole := tile_width(tile, size)):
        raise ProblemError("tile.missing", f"{name} is no tile of a tree of size {size}")
    if width < whole:
        data = read_file(folder / tile_path(tile, whole))
        begins = encode_bundle(list(parse_bundle(data))[:width]) if tile[0] == ENTRIES else data[: width * HASH_BYTES]
        if read_file(folder / name) != begins:
            raise ProblemError("tile.missing", f"{name} differs from the entries")


def verified(folder: Path, keys: LedgerKeys) -> Iterator[bytes]:
    """Every entry of an exported ledger; at its end, and at every checkpoint, ProblemError where the files do not hold."""
    verifier = Tw1Verifier()
    checkpoint = verify_checkpoint(read_file(folder / "checkpoint"), keys, verifier)
    older = {checkpoint.size: checkpoint.root}
    for path in (*(folder / "checkpoints").glob("*"), *folder.glob("checkpoint.*")):
        note = verify_checkpoint(read_file(path), keys, verifier)
        if older.setdefault(note.size, note.root) != note.root or path.name not in (
            str(note.size),
            f"checkpoint{path.suffix}",
        ):
            raise ProblemError(
                "ledger.split_view",
                f"{path.name} is of size {note.size}: misnamed, or a second root of that size",
            )
    edge, signed = Edge(0, {}), sorted(older, reverse=True)
    for start in range(0, checkpoint.size, WIDTH):
        tile = ENTRIES, start // WIDTH
        entries = list(parse_bundle(read_file(folder / tile_path(tile, tile_width(tile, checkpoint.size)))))
        leaves = [leaf_hash(data) for data in entries]
        while leaves:  # up to the next checkpoint, or the bundle's end
            count = max(1, signed[-1] - edge.size) if signed else len(leaves)
            for tile, data in edge.append(leaves[:count]).items():
                if tile_width(tile, edge.size) == WIDTH:
                    _same_tile(folder, tile, tile_width(tile, checkpoint.size), data)
            leaves = leaves[count:]
            if signed and signed[-1] == edge.size and older[signed.pop()] != edge.root():
                raise ProblemError("proof.path", f"the entries do not give the root signed at size {edge.size}")
        yield from entries
    if edge.size != checkpoint.size or signed:
        raise ProblemError("proof.path", f"{edge.size} entries do not fit the checkpoints")
    for tile, found in edge.tiles().items():
        _same_tile(folder, tile, tile_width(tile, edge.size), found)


def _same_tile(folder: Path, tile: TileId, width: int, data: bytes) -> None:
    path = tile_path(tile, width)
    if read_file(folder / path) != data:
        raise ProblemError("tile.missing", f"{path} differs from the entries")


def proof_of(folder: Path, index: int) -> bytes | None:
    """The tlog-proof of an entry of an exported ledger, under its witnessed checkpoint where that covers it; None past its end."""
    newest = checkpoint = parse_checkpoint(read_file(folder / "checkpoint"))
    if index >= newest.size:
        return None
    if (path := folder / "checkpoint.witnessed").exists():
        cosigned = parse_checkpoint(read_file(path))
        checkpoint = cosigned if index < cosigned.size <= newest.size else newest
    wanted = TilesWanted()
    inclusion_path(index, checkpoint.size, wanted.node)
    tiles = {tile: read_file(folder / tile_path(tile, tile_width(tile, newest.size))) for tile in wanted.tiles}
    hashes = tuple(inclusion_path(index, checkpoint.size, TileReader(tiles).node))
    bundle = ENTRIES, index // WIDTH
    entries = list(parse_bundle(read_file(folder / tile_path(bundle, tile_width(bundle, newest.size)))))
    place = Place(
        origin=checkpoint.origin, size=checkpoint.size, index=index, path=hashes, entry=entries[index % WIDTH]
    )
    return format_proof(place, checkpoint.note)
