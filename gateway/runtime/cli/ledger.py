"""`tracewire ledger` and `tracewire verify`: take a ledger out as C2SP tiles, and check ledgers and proofs offline."""

import asyncio
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from gateway.runtime.cli.client import node_pool
from gateway.runtime.cli.say import SecretFrom, problems, read_file, say
from gateway.runtime.settings import load_settings
from gateway.services.prove import Prove, Release
from gateway.services.recover import Recover, Recovered
from keys.guard import FileGuard
from keys.keystore import KeyStore
from keys.suite import Tw1Verifier
from protocols.directory import year_and_number
from protocols.ledger.checkpoint import LedgerKeys, verify_checkpoint
from protocols.ledger.entry import parse_entry
from protocols.ledger.merkle import leaf_hash
from protocols.ledger.note import VerifierKey
from protocols.ledger.proof import format_proof, parse_proof
from protocols.ledger.tiles import ENTRIES, WIDTH, Edge, TileId, encode_bundle, parse_bundle, tile_path, tile_width
from protocols.ports.store import (
    LedgerStore,
)
from protocols.problems import ProblemError

app = cyclopts.App(name="ledger", help="This node's ledger: take it out as files, check it from its bytes.")
AsJson = Annotated[bool, Parameter(name="--json", negative="")]
_FAILED = 3
_NO_SECRET = SecretFrom()


@app.command
def export(node: Path, folder: Path, *, json: AsJson = False) -> None:
    """Write the ledger as C2SP tlog-tiles: `checkpoint`, `vkeys`, `checkpoints/`, `tile/`; for any verifier.

    Parameters
    ----------
    node
        The node's folder.
    folder
        A new or empty folder.
    json
        Print one JSON object.
    """

    async def write() -> tuple[str, int]:
        from adapters.postgres.ledger import PostgresLedger

        async with node_pool(node) as pool:
            return await _export(PostgresLedger("", pool), node, folder)

    with problems(as_json=json):
        if folder.exists() and any(folder.iterdir()):
            raise ProblemError("config.invalid", f"{folder} is not empty; nothing was written")
        origin, size = asyncio.run(write())
        say(f"{origin}: {size} entries in {folder}.", {"origin": origin, "size": size}, as_json=json)


async def _export(ledger: LedgerStore, node: Path, folder: Path) -> tuple[str, int]:
    heads = await ledger.heads()
    origin = max(heads, key=year_and_number)
    checkpoint = await ledger.checkpoint(origin)
    if checkpoint is None:
        raise ProblemError("ledger.not_ready", "the ledger has no entry yet")
    _write(folder / "checkpoint", checkpoint.note)
    _write(folder / "vkeys", "".join(f"{key}\n" for key in vkeys_of(node, origin)).encode())
    for note in await ledger.checkpoints(origin, checkpoint.size):
        _write(folder / "checkpoints" / str(note.size), note.note)
    size = checkpoint.size
    edge = Edge(0, {})
    for start in range(0, size, WIDTH):
        entries = await ledger.entries(origin, start, min(start + WIDTH, size))
        tile = ENTRIES, start // WIDTH
        _write(folder / tile_path(tile, tile_width(tile, size)), encode_bundle(entries))
        for tile, data in edge.append(leaf_hash(entry) for entry in entries).items():
            if tile_width(tile, edge.size) == WIDTH:
                _write(folder / tile_path(tile), data)
    for tile, data in edge.tiles().items():
        _write(folder / tile_path(tile, tile_width(tile, size)), data)
    return origin, size


def vkeys_of(node: Path, origin: str) -> tuple[str, str]:
    """The ledger's verifier keys as our last accepted directory lists them."""
    from adapters.directory.client import DirectoryClient

    settings = load_settings(node)
    client = DirectoryClient(node / "directory", read_file(node / "root.json"), settings.directory)
    directory = client.current
    if directory is None or origin not in directory.ledgers:
        raise ProblemError("ledger.not_ready", "no accepted directory lists this ledger")
    keys = directory.ledgers[origin].keys
    return str(keys.ed25519), str(keys.mldsa44)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@app.command
def verify(folder: Path, *, vkey: list[str] | None = None, json: AsJson = False) -> int:
    """Recompute an exported ledger from its entries alone: root, tiles, every old checkpoint, both signatures.

    Whoever trusts none of our code uses `deploy/verifier/tracewire_verify.py` instead. Exit code 3: something is wrong.

    Parameters
    ----------
    folder
        What `ledger export` wrote, or any C2SP tlog-tiles folder of ours.
    vkey
        The ledger's two verifier keys, from a directory that you trust; without: the file `vkeys`.
    json
        Print one JSON object.
    """
    with problems(as_json=json):
        texts = vkey or read_file(folder / "vkeys").decode().split()
        if len(texts) != 2:
            raise ProblemError("config.invalid", "a ledger has two verifier keys, Ed25519 and ML-DSA-44")
        origin = VerifierKey.parse(texts[0]).name
        try:
            size, kinds = _verify(folder, LedgerKeys.parse(origin, (texts[0], texts[1])))
        except ProblemError as problem:
            text = f"WRONG {problem.code}: {problem.detail}"
            say(text, {"ok": False, "code": problem.code, "detail": problem.detail}, as_json=json)
            return _FAILED
        shown = "\n".join(f"  {kind:<14} {count}" for kind, count in sorted(kinds.items()))
        text = f"OK {origin}: {size} entries, root, tiles, checkpoints and signatures hold\n{shown}"
        say(text, {"ok": True, "origin": origin, "size": size, "kinds": kinds}, as_json=json)
    return 0


def _verify(folder: Path, keys: LedgerKeys) -> tuple[int, dict[str, int]]:
    verifier = Tw1Verifier()
    checkpoint = verify_checkpoint(read_file(folder / "checkpoint"), keys, verifier)
    older = {}
    for path in (folder / "checkpoints").glob("*"):
        note = verify_checkpoint(read_file(path), keys, verifier)
        older[note.size] = note.root
    edge, kinds = Edge(0, {}), dict[str, int]()
    older[checkpoint.size] = checkpoint.root
    for start in range(0, checkpoint.size, WIDTH):
        tile = ENTRIES, start // WIDTH
        bundle = read_file(folder / tile_path(tile, tile_width(tile, checkpoint.size)))
        for data in parse_bundle(bundle):
            kind = parse_entry(data).kind
            kinds[kind] = kinds.get(kind, 0) + 1
            _grow(edge, data, folder, checkpoint.size)
            if edge.size in older and older.pop(edge.size) != edge.root():
                raise ProblemError("proof.path", f"the entries do not give the root signed at size {edge.size}")
    if edge.size != checkpoint.size or older:
        raise ProblemError("proof.path", f"{edge.size} entries do not fit the checkpoints")
    for tile, found in edge.tiles().items():
        _same_tile(folder, tile, tile_width(tile, edge.size), found)
    return edge.size, kinds


def _grow(edge: Edge, entry: bytes, folder: Path, size: int) -> None:
    for tile, data in edge.append([leaf_hash(entry)]).items():
        if tile_width(tile, edge.size) == WIDTH:
            _same_tile(folder, tile, tile_width(tile, size), data)


def _same_tile(folder: Path, tile: TileId, width: int, data: bytes) -> None:
    path = tile_path(tile, width)
    if read_file(folder / path) != data:
        raise ProblemError("tile.missing", f"{path} differs from the entries")


@app.command
def proof(node: Path, index: int, file: Path, *, json: AsJson = False) -> None:
    """Write the proof of one entry as a C2SP tlog-proof file: whoever has the verifier keys can check it offline.

    Parameters
    ----------
    node
        The node's folder.
    index
        The entry's index.
    file
        A new file; the usual ending is .tlog-proof.
    json
        Print one JSON object.
    """

    async def build() -> bytes:
        from adapters.postgres.ledger import PostgresLedger

        async with node_pool(node) as pool:
            ledger = PostgresLedger("", pool)
            prove = Prove(ledger, Release(ledger, FileGuard(node / "keys"), lambda: False))
            newest = await prove.newest(max(await ledger.heads(), key=year_and_number))
            if not 0 <= index < newest.size:
                raise ProblemError("tile.missing", f"the ledger has the entries 0..{newest.size - 1}")
            return format_proof((await prove.places_at(newest, [index]))[index], newest.note)

    with problems(as_json=json):
        if file.exists():
            raise ProblemError("config.invalid", f"{file} exists; nothing was written")
        file.write_bytes(asyncio.run(build()))
        say(f"{file}: entry {index}", {"file": str(file), "index": index}, as_json=json)


def verify_proof(file: Path, *, vkey: list[str], json: AsJson = False) -> int:
    """Check a tlog-proof file offline and print its entry. Exit code 3: it does not hold.

    Parameters
    ----------
    file
        A C2SP tlog-proof with the entry in its extra line.
    vkey
        The ledger's two verifier keys, from a directory that you trust; give the option twice.
    json
        Print one JSON object.
    """
    with problems(as_json=json):
        if len(vkey) != 2:
            raise ProblemError("config.invalid", "a ledger has two verifier keys, Ed25519 and ML-DSA-44")
        keys = LedgerKeys.parse(VerifierKey.parse(vkey[0]).name, (vkey[0], vkey[1]))
        try:
            place = parse_proof(read_file(file), keys, Tw1Verifier())
        except ProblemError as problem:
            text = f"WRONG {problem.code}: {problem.detail}"
            say(text, {"ok": False, "code": problem.code, "detail": problem.detail}, as_json=json)
            return _FAILED
        entry = place.entry.decode()
        text = f"OK entry {place.index} of {place.origin} under size {place.size}\n{entry}"
        found = {"ok": True, "origin": place.origin, "index": place.index, "size": place.size, "entry": entry}
        say(text, found, as_json=json)
    return 0


@app.command
def recover(
    node: Path, *, waive: list[str] | None = None, secret: SecretFrom = _NO_SECRET, json: AsJson = False
) -> None:
    """Write the fork guard anew after a database promotion, a moved cluster or a lost guard file.

    Stop the node first. Every member of the directory is asked what it holds of this ledger; if anybody holds more
    than the database, entries were lost and only a new ledger helps. Start the node again afterwards.

    Parameters
    ----------
    node
        The node's folder.
    waive
        A member that cannot be asked; repeat for several. Say in your own records why.
    json
        Print one JSON object.
    """

    async def run() -> Recovered:
        from adapters.postgres.ledger import PostgresLedger
        from gateway.runtime.compose import connect_ports
        from gateway.runtime.node import origin_in_use

        settings, keys = load_settings(node), KeyStore.open(node / "keys", secret.secret())
        async with node_pool(node) as pool:
            ports = connect_ports(node, settings, keys, pool, "")
            try:
                directory = ports.directory.current
                if directory is None:
                    raise ProblemError("dir.stale", "no directory was accepted yet")
                use = Recover(
                    member=settings.member,
                    ledger=PostgresLedger("", pool),
                    guard=ports.guard,
                    transport=ports.transport,
                    verifier=Tw1Verifier(),
                )
                origin = origin_in_use(keys, ports.guard)
                return await use.recover(origin, directory, waive=waive or ())
            finally:
                await ports.transport.close()  # type: ignore[attr-defined]

    with problems(as_json=json):
        found = asyncio.run(run())
        held = "\n".join(f"  {name} holds size {size}" for name, size in sorted(found.answered.items()))
        text = f"The guard is at size {found.mark.size} of {found.mark.origin}.\n{held}"
        shown = {
            "origin": found.mark.origin,
            "size": found.mark.size,
            "answered": found.answered,
            "waived": found.waived,
        }
        say(text, shown, as_json=json)
