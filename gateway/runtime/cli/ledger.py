"""`tracewire ledger` and `tracewire verify`: take a ledger out as C2SP tiles, and check ledgers and proofs offline."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from gateway.runtime.cli.client import node_pool
from gateway.runtime.cli.folder import covered, demanded, keys_of, satisfied, sound
from gateway.runtime.cli.say import SecretFrom, problems, read_file, say
from gateway.runtime.exported import ExportFolder
from gateway.runtime.settings import load_settings
from gateway.services.prove import Prove, Release, witnessed
from gateway.services.recompute import recompute
from gateway.services.recover import Recover, Recovered
from keys.guard import FileGuard
from keys.keystore import KeyStore
from keys.suite import Tw1Verifier
from protocols.directory import Directory, year_and_number
from protocols.ledger.checkpoint import Checkpoint, LedgerKeys
from protocols.ledger.merkle import HASH_BYTES
from protocols.ledger.note import others
from protocols.ledger.proof import Place, format_proof, parse_proof, read_proof
from protocols.ledger.tiles import WIDTH, tile_path
from protocols.ports.store import (
    LedgerStore,
)
from protocols.problems import ProblemError

app = cyclopts.App(name="ledger", help="This node's ledger: take it out as files, check it from its bytes.")
AsJson = Annotated[bool, Parameter(name="--json", negative="")]
_FAILED = 3
_NOTES = 1_000  # checkpoints read at once
_NO_SECRET = SecretFrom()


@app.command
def export(node: Path, folder: Path, *, origin: str | None = None, json: AsJson = False) -> None:
    """Write the ledger as C2SP tlog-tiles: `checkpoint`, `vkeys`, `checkpoints/`, `tile/`; for any verifier and any web server.

    `checkpoint.witnessed` is the newest one that other members have cosigned, with their signatures.

    Again into the same folder: what is new is added, an export that was cut is gone on with. A full tile never changes, and
    the checkpoint comes last, so that whoever is served from the folder never sees one without its tiles.

    Parameters
    ----------
    node
        The node's folder.
    folder
        A new or empty folder, or one that this ledger was exported to.
    origin
        Which ledger; without: the newest.
    json
        Print one JSON object.
    """

    async def write() -> tuple[str, int]:
        from adapters.postgres.ledger import PostgresLedger

        async with node_pool(node) as pool:
            ledger = PostgresLedger("", pool)
            return await _export(ledger, node, folder, await _origin(ledger, origin))

    with problems(as_json=json):
        exported, size = asyncio.run(write())
        say(f"{exported}: {size} entries in {folder}.", {"origin": exported, "size": size}, as_json=json)


async def _export(ledger: LedgerStore, node: Path, folder: Path, origin: str) -> tuple[str, int]:
    newest = await ledger.checkpoint(origin)
    if newest is None:
        raise ProblemError("ledger.not_ready", "the ledger has no entry yet")
    directory = _directory(node, origin)
    files = ExportFolder(folder, directory.ledgers[origin].keys)
    if files.standing and files.standing.size > newest.size:
        raise ProblemError("config.invalid", f"{folder} holds another history of {origin}; nothing was written")
    edge, size, before = files.begin(), newest.size, files.standing.size if files.standing else 0
    for begin in range(edge.size, size, WIDTH):
        files.add(edge, await ledger.entries(origin, begin, min(begin + WIDTH, size)), size)
    quorum = directory.quorum_of(directory.ledgers[origin].member)
    cosigned = await witnessed(ledger, origin, size, quorum)
    for after in range(before, size, _NOTES * WIDTH):  # one a bundle is enough to tell where a damage begins
        for note in await ledger.checkpoints(origin, after, min(after + _NOTES * WIDTH, size)):
            files.note(note)
    files.finish(edge, newest, cosigned.note if cosigned else None)
    return origin, size


def vkeys_of(node: Path, origin: str) -> tuple[str, str]:
    """The ledger's verifier keys as our last accepted directory lists them."""
    keys = _directory(node, origin).ledgers[origin].keys
    return str(keys.ed25519), str(keys.mldsa44)


def _directory(node: Path, origin: str) -> Directory:
    from adapters.directory.client import DirectoryClient

    settings = load_settings(node)
    client = DirectoryClient(node / "directory", read_file(node / "root.json"), settings.directory)
    if client.current is None or origin not in client.current.ledgers:
        raise ProblemError("ledger.not_ready", "no accepted directory lists this ledger")
    return client.current


@app.command
def repair(node: Path, *, origin: str | None = None, json: AsJson = False) -> None:
    """Make the ledger's tiles anew from its entries and put those right that differ. For `ledger.tile_corrupt`.

    Tiles are a cache of the entries. Nothing is changed where the entries do not give the root that was signed: then an
    entry is damaged, and the backup is what helps.

    Parameters
    ----------
    node
        The node's folder; it may run.
    origin
        Which ledger; without: the newest.
    json
        Print one JSON object.
    """

    async def mend() -> tuple[str, list[str]]:
        from adapters.postgres.ledger import PostgresLedger

        async with node_pool(node) as pool:
            ledger = PostgresLedger("", pool)
            return await _repair(ledger, await _origin(ledger, origin))

    with problems(as_json=json):
        of, mended = asyncio.run(mend())
        text = (
            f"{of}: {len(mended)} tiles put right: {', '.join(mended)}."
            if mended
            else f"{of}: every tile is as its entries say."
        )
        say(text, {"origin": of, "mended": mended}, as_json=json)


async def _repair(ledger: LedgerStore, origin: str) -> tuple[str, list[str]]:
    newest = await ledger.checkpoint(origin)
    if newest is None:
        raise ProblemError("ledger.not_ready", "the ledger has no entry yet")
    found = await recompute(ledger, newest)
    if not found.holds:
        raise ProblemError(
            "ledger.entry_changed",
            f"entry {found.first} is not the one that was signed" if found.first is not None else "",
        )
    mended = []
    for tile, (standing, ours) in found.wrong.items():
        if await ledger.mend_tile(origin, tile, standing, ours + (standing or b"")[len(ours) :]):
            mended.append(tile_path(tile, len(ours) // HASH_BYTES))
    return origin, mended


async def _origin(ledger: LedgerStore, origin: str | None) -> str:
    heads = await ledger.heads()
    if origin is not None and origin not in heads:
        raise ProblemError("config.invalid", f"this node has no ledger {origin}: it has {', '.join(heads)}")
    return origin or max(heads, key=year_and_number)


@app.command
def verify(folder: Path, *, vkey: list[str] | None = None, policy: Path | None = None, json: AsJson = False) -> int:
    """Recompute an exported ledger from its entries alone: root, tiles, every old checkpoint, both signatures.

    Whoever trusts none of our code uses `deploy/verifier/tracewire_verify.py` instead. Exit code 3: something is wrong.

    Parameters
    ----------
    folder
        What `ledger export` wrote, or any C2SP tlog-tiles folder of ours.
    vkey
        The ledger's two verifier keys, from a directory that you trust; without: those of the policy, else the file `vkeys`.
    policy
        A C2SP tlog-policy file (`audit policy` writes it): whose cosignatures under `checkpoint.witnessed` you demand.
    json
        Print one JSON object.
    """
    with problems(as_json=json):
        wanted, vkey = demanded(policy, vkey)
        keys, kinds, size = keys_of(folder, vkey), Counter[str](), 0
        try:
            kinds.update(entry.kind for entry in sound(folder, keys))
            if wanted is not None:
                size = covered(folder, keys, wanted)
        except ProblemError as problem:
            text = f"WRONG {problem.code}: {problem.detail}"
            say(text, {"ok": False, "code": problem.code, "detail": problem.detail}, as_json=json)
            return _FAILED
        shown = "\n".join(f"  {kind:<14} {count}" for kind, count in sorted(kinds.items()))
        text = f"OK {keys.origin}: {kinds.total()} entries, root, tiles, checkpoints and signatures hold\n{shown}"
        text += (
            f"\nWITNESSED up to entry {size - 1}, as the policy demands"
            if wanted and wanted.quorum
            else f"\nSIGNED by {'the keys that you gave' if vkey else 'keys that lay beside it, for which nobody vouches'}"
        )
        found = {
            "ok": True, "origin": keys.origin, "size": kinds.total(), "kinds": kinds,
            "witnessed": size if wanted and wanted.quorum else None,
        }  # fmt: skip
        say(text, found, as_json=json)
    return 0


@app.command
def proof(node: Path, index: int, file: Path, *, origin: str | None = None, json: AsJson = False) -> None:
    """Write the proof of one entry as a C2SP tlog-proof file: whoever has the verifier keys can check it offline.

    It stands under the newest checkpoint that enough witnesses have cosigned, with their signatures: *witnessed*. Where that
    does not cover the entry yet, it is under the newest one: *signed*.

    Parameters
    ----------
    node
        The node's folder.
    index
        The entry's index.
    file
        A new file; the usual ending is .tlog-proof.
    origin
        Which ledger; without: the newest.
    json
        Print one JSON object.
    """
    with problems(as_json=json):
        by: list[str] = []

        def make() -> bytes:
            place, under, names = asyncio.run(_proof(node, index, origin))
            by.extend(names)
            return format_proof(place, under.note)

        write_new(file, make)
        text = f"witnessed by {', '.join(by)}" if by else "signed; what the witnesses have cosigned ends before it"
        found = {"file": str(file), "index": index, "grade": "witnessed" if by else "signed", "witnesses": by}
        say(f"{file}: entry {index}, {text}", found, as_json=json)


@app.command
def receipt(
    node: Path,
    index: int,
    file: Path,
    *,
    origin: str | None = None,
    secret: SecretFrom = _NO_SECRET,
    json: AsJson = False,
) -> None:
    """Write a COSE receipt (RFC 9942) that an entry stands in the ledger, for tools that speak SCITT; the entry as FILE.json.

    It is signed by the ledger's Ed25519 key alone: the post-quantum signature is under checkpoints, as `ledger proof` has them.

    Parameters
    ----------
    node
        The node's folder.
    index
        The entry's index.
    file
        A new file; the usual ending is .cose.
    origin
        Which ledger; without: the newest.
    json
        Print one JSON object.
    """

    def make() -> bytes:
        place, under, _ = asyncio.run(_proof(node, index, origin))
        signer = KeyStore.open(node / "keys", secret.secret()).note_signer(place.origin)
        entry.append(place.entry)
        return signer.receipt(place, under.root)

    entry: list[bytes] = []
    with problems(as_json=json):
        write_new(file, make)
        file.with_name(f"{file.name}.json").write_bytes(entry[0])
        say(f"{file}: entry {index}, which is {file}.json", {"file": str(file), "index": index}, as_json=json)


async def _proof(node: Path, index: int, origin: str | None) -> tuple[Place, Checkpoint, list[str]]:
    """The place of an entry, the checkpoint that it is proven under, and who has cosigned that."""
    from adapters.postgres.ledger import PostgresLedger

    async with node_pool(node) as pool:
        ledger = PostgresLedger("", pool)
        prove = Prove(ledger, Release(ledger, FileGuard(node / "keys"), lambda: False))
        newest = await prove.newest(await _origin(ledger, origin))
        if not 0 <= index < newest.size:
            raise ProblemError("tile.missing", f"the ledger has the entries 0..{newest.size - 1}")
        quorum = 1
        with suppress(ProblemError):  # without a directory whatever was cosigned is more than nothing
            quorum = _directory(node, newest.origin).quorum_of(newest.origin.rpartition("/")[0])
        cosigned = await witnessed(ledger, newest.origin, newest.size, quorum)
        under = cosigned if cosigned and index < cosigned.size else newest
        names = dict.fromkeys(others(under.note, under.origin))
        return (await prove.places_at(under, [index]))[index], under, list(names)


def write_new(file: Path, make: Callable[[], bytes]) -> None:
    """Writes what is made to a file that is not there yet; `config.invalid` else."""
    if file.exists():
        raise ProblemError("config.invalid", f"{file} exists; nothing was written")
    file.write_bytes(make())


def verify_proof(
    file: Path,
    *,
    vkey: Annotated[list[str] | None, Parameter(negative="")] = None,
    policy: Path | None = None,
    json: AsJson = False,
) -> int:
    """Check a tlog-proof file offline and print its entry, which is *signed*, or *witnessed* as a policy demands.

    Exit code 3: it does not hold.

    Parameters
    ----------
    file
        A C2SP tlog-proof with the entry in its extra line.
    vkey
        The ledger's two verifier keys, from a directory that you trust; give the option twice. Without: those of the policy.
    policy
        A C2SP tlog-policy file (`audit policy` writes it): whose cosignatures you demand.
    json
        Print one JSON object.
    """
    with problems(as_json=json):
        wanted, vkey = demanded(policy, vkey)
        if not vkey:
            raise ProblemError("config.invalid", "give the ledger's two verifier keys, or a policy that names them")
        data = read_file(file)
        try:
            claimed, note = read_proof(data)
            keys = LedgerKeys.among(claimed.origin, vkey)
            place = parse_proof(data, keys, Tw1Verifier())
            if wanted is not None:
                satisfied(wanted, keys, note)
        except ProblemError as problem:
            text = f"WRONG {problem.code}: {problem.detail}"
            say(text, {"ok": False, "code": problem.code, "detail": problem.detail}, as_json=json)
            return _FAILED
        entry = place.entry.decode()
        grade = "witnessed" if wanted and wanted.quorum else "signed"
        text = f"OK entry {place.index} of {place.origin} under size {place.size}, {grade}\n{entry}"
        found = {
            "ok": True, "origin": place.origin, "index": place.index, "size": place.size, "grade": grade, "entry": entry,
        }  # fmt: skip
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
        from gateway.runtime.ports import connect_ports

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
                origin = keys.origin_in_use(ports.guard)
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
