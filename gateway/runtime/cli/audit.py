"""`tracewire audit`: what an auditor does with ledgers that were taken out as files, offline and with nobody's help."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from gateway.runtime.cli.ledger import AsJson, keys_of, verified
from gateway.runtime.cli.say import problems, progress, read_file, say
from protocols.ledger.checkpoint import LedgerKeys, parse_checkpoint
from protocols.ledger.merkle import inclusion_path
from protocols.ledger.proof import Place, format_proof
from protocols.ledger.reconcile import Difference, Direction, Side, reconcile
from protocols.ledger.tiles import ENTRIES, WIDTH, TileReader, TilesWanted, parse_bundle, tile_path, tile_width
from protocols.problems import ProblemError

app = cyclopts.App(name="audit", help="Ledgers beside each other: what two members say of the same messages.")
_DIFFER = 3
_SHOWN = 20
_MEANING = {
    "arrival.unsent": "says that it got what the other never logged as sent",
    "arrival.content": "got another content than the other logged as sent",
    "receipt.unfounded": "holds a receipt that does not stand in the other's ledger",
    "receipt.code": "was told another outcome than the other logged",
    "receipt.twice": "logged two receipts for one message",
    "received.twice": "logged one message as received twice",
    "sent.content": "logged two contents or numbers under one id",
    "tree.other": "was shown another tree of the other's ledger than the one that lies here: a second history",
    "undelivered.arrived": "gave up a message that the other has as received",
    "sequence.gap": "left a number out, or gave one twice: a message of this pair is missing or too many",
    "clock.skew": "sent this after the other had it, by more than two minutes: one of the clocks is wrong",
}


@app.command(name="reconcile")
def reconcile_ledgers(
    a: Path,
    b: Path,
    *,
    vkey: Annotated[list[str] | None, Parameter(negative="")] = None,
    proofs: Path | None = None,
    json: AsJson = False,
) -> int:
    """Compare two exported ledgers: sent, received, receipts, numbers, outcomes and clocks of the messages between them.

    Each ledger is first recomputed from its entries, as `ledger verify` does. What is still on its way is counted and no
    difference. Exit code 3: they differ, or one of them does not hold.

    Parameters
    ----------
    a
        What `ledger export` wrote of one member.
    b
        The same of the other.
    vkey
        The verifier keys of both ledgers (four), from a directory that you trust; without: the files `vkeys`.
    proofs
        A folder to write a tlog-proof file of every entry that a difference names to.
    json
        Print one JSON object.
    """
    with problems(as_json=json):
        keys = [keys_of(folder, vkey) for folder in (a, b)]
        if keys[0].origin == keys[1].origin:
            raise ProblemError("config.invalid", "these are two folders of one ledger")
        try:
            sides = [_side(folder, each, other) for folder, each, other in zip((a, b), keys, keys[::-1], strict=True)]
        except ProblemError as problem:
            text = f"WRONG {problem.code}: {problem.detail}"
            say(text, {"ok": False, "code": problem.code, "detail": problem.detail}, as_json=json)
            return _DIFFER
        directions, found = reconcile(*sides)
        if proofs is not None:
            _write_proofs(proofs, found, {side.member: folder for side, folder in zip(sides, (a, b), strict=True)})
        shown = {
            "ok": not found, "directions": [asdict(each) for each in directions],
            "differences": [asdict(each) | {"id": str(each.id) if each.id else None, "says": _MEANING[each.kind]} for each in found],
        }  # fmt: skip
        say("\n".join(_lines(directions, found)), shown, as_json=json)
    return _DIFFER if found else 0


def _side(folder: Path, keys: LedgerKeys, other: LedgerKeys) -> Side:
    size = parse_checkpoint(read_file(folder / "checkpoint")).size
    with progress(keys.origin) as bar:
        read = bar.track(verified(folder, keys), total=size, description=keys.origin)
        return Side(keys.origin, other.origin.rpartition("/")[0]).read(read)


def _lines(directions: Sequence[Direction], found: Sequence[Difference]) -> Iterator[str]:
    for each in directions:
        yield (
            f"{each.sender} to {each.recipient}: {each.sent} sent, {each.receipted} receipted, {each.undelivered} undelivered, "
            f"{each.pending} arrived without a receipt yet, {each.unanswered} unanswered"
            + (f", {each.later} past the end of the other's files" if each.later else "")
            + (f", {each.elsewhere} by other ledgers of the two" if each.elsewhere else "")
        )
        if each.took_s:
            yield "  from sent to received, by both clocks: {:.1f} s at least, {:.1f} s mostly, {:.1f} s at most".format(
                *each.took_s
            )
    for difference in found[:_SHOWN]:
        other = f", the other's entry {difference.other}" if difference.other is not None else ""
        yield f"DIFFERS {difference.kind}: {difference.member} entry {difference.index}{other}: it {_MEANING[difference.kind]}"
    if len(found) > _SHOWN:
        yield f"... and {len(found) - _SHOWN} more: --json lists all"
    yield "The two ledgers agree." if not found else f"{len(found)} differences."


def _write_proofs(folder: Path, found: Sequence[Difference], ledgers: dict[str, Path]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    members = list(ledgers)
    for number, each in enumerate(found, 1):
        other = members[1 - members.index(each.member)]
        for member, index in ((each.member, each.index), (other, each.other)):
            proof = _proof(ledgers[member], index) if index is not None else None
            if proof is not None:
                name = f"{number:04}-{each.kind}-{member.replace('/', '.')}-{index}.tlog-proof"
                (folder / name).write_bytes(proof)


def _proof(folder: Path, index: int) -> bytes | None:
    """The tlog-proof of an entry of an exported ledger; None past its end."""
    note = read_file(folder / "checkpoint")
    checkpoint = parse_checkpoint(note)
    if index >= checkpoint.size:
        return None
    wanted = TilesWanted()
    inclusion_path(index, checkpoint.size, wanted.node)
    tiles = {tile: read_file(folder / tile_path(tile, tile_width(tile, checkpoint.size))) for tile in wanted.tiles}
    path = tuple(inclusion_path(index, checkpoint.size, TileReader(tiles).node))
    bundle = ENTRIES, index // WIDTH
    entries = list(parse_bundle(read_file(folder / tile_path(bundle, tile_width(bundle, checkpoint.size)))))
    place = Place(origin=checkpoint.origin, size=checkpoint.size, index=index, path=path, entry=entries[index % WIDTH])
    return format_proof(place, note)
