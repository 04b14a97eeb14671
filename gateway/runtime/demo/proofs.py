"""The demo's last part: ledgers as an outsider sees them, and three lies, each told well and each caught.

The liars hold real keys: whoever runs a node can sign any tree. What they cannot change is the other side's ledger.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from gateway.runtime.cli import ledger
from gateway.runtime.cli.say import clock
from gateway.runtime.demo.federation import MEMBERS, TRACEWIRE, Federation, quietly
from keys.guard import FileGuard
from keys.keystore import KeyStore
from keys.notes import LedgerNoteSigner
from protocols.ledger.checkpoint import parse_checkpoint
from protocols.ledger.entry import parse_entry
from protocols.ledger.merkle import leaf_hash
from protocols.ledger.tiles import ENTRIES, WIDTH, Edge, encode_bundle, parse_bundle, tile_path, tile_width

VERIFIER = Path(__file__).parents[3] / "deploy" / "verifier"
"""In a checkout. An installed package has none: each ledger is then checked by `tracewire ledger verify`, none matched."""
_VERIFY_S = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was done, what the verifier said of it, and whether that was right; a lie must be caught."""

    what: str
    said: str
    lie: bool
    right: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """Every member's ledger as C2SP tiles below `folder`, and their keys as the police's directory lists them."""

    folder: Path
    sizes: dict[str, int]
    keys: tuple[str, ...]


def export(federation: Federation) -> Exported:
    """Takes the ledgers out, as each member would for an auditor."""
    folder, sizes, keys = federation.folder / "ledgers", {}, list[str]()
    for short in MEMBERS:
        found = quietly(ledger.export, federation.node(short), folder / short)
        sizes[short] = int(found["size"])
        keys += ledger.vkeys_of(federation.node("police"), found["origin"])
    return Exported(folder=folder, sizes=sizes, keys=tuple(keys))


def check_ledgers(exported: Exported) -> Iterator[Check]:
    """Every ledger from its bytes alone, then those of whoever asked against those of whoever answered."""
    for short in MEMBERS:
        yield from _check(f"the ledger of demo/{short}, from its bytes", "", exported.keys, exported.folder / short)
    for asker, short in (("police", "registry"), ("police", "maker"), ("police", "importer"), ("field", "registry")):
        both = exported.folder / asker, exported.folder / short
        yield from _check(f"demo/{asker} and demo/{short}, entry by entry", "", exported.keys, *both)


def check_lies(federation: Federation, exported: Exported) -> Iterator[Check]:
    """Tells each lie in a copy: the first is caught alone, the others by the other side's ledger."""
    police, registry, lies = exported.folder / "police", exported.folder / "registry", federation.folder / "lies"
    keys, entries = exported.keys, read_entries(registry)
    parsed = list(map(parse_entry, entries))
    at = max(i for i, entry in enumerate(parsed) if (entry.kind, entry.sender) == ("received", "demo/police"))
    shutil.copytree(registry, lies / "byte")
    _change_byte(lies / "byte", at)
    yield from _check(f"a changed byte, in entry {at} of demo/registry", "root tile", keys, lies / "byte")

    rewrite(registry, lies / "dropped", [*entries[:at], *entries[at + 1 :]], _signer(federation, "registry"))
    what = f"a dropped entry: demo/registry leaves out {at}, a request it received, and signs its tree anew"
    yield from _check(f"{what}; alone, that holds", "", keys, lies / "dropped")
    yield from _check("... but not beside the police's ledger", "mismatch missing", keys, police, lies / "dropped")

    rewrite(police, lies / "forged", _with_forged_receipt(read_entries(police)), _signer(federation, "police"))
    what = "a forged receipt: demo/police write one for an entry that never was, and sign their tree anew"
    yield from _check(f"{what}; alone, that holds", "", keys, lies / "forged")
    yield from _check("... but not beside the registry's ledger", "mismatch missing", keys, lies / "forged", registry)


def read_entries(folder: Path) -> list[bytes]:
    """The entries of an exported ledger."""
    return [entry for path in _bundles(folder) for entry in parse_bundle(path.read_bytes())]


def rewrite(source: Path, target: Path, entries: Sequence[bytes], signer: LedgerNoteSigner) -> None:
    """Another history under the same keys: what the operator of a node could do. Older checkpoints are left out."""
    size, edge, files = len(entries), Edge(0, {}), {"vkeys": (source / "vkeys").read_bytes()}
    for start in range(0, size, WIDTH):
        some, tile = entries[start : start + WIDTH], (ENTRIES, start // WIDTH)
        files[tile_path(tile, tile_width(tile, size))] = encode_bundle(some)
        grown = edge.append(leaf_hash(entry) for entry in some)
        for each, data in (*grown.items(), *edge.tiles().items()):
            files[tile_path(each, tile_width(each, edge.size))] = data
    files["checkpoint"] = signer.sign(size, edge.root(), clock())
    for name, data in files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(data)


def _bundles(folder: Path) -> list[Path]:
    size = parse_checkpoint((folder / "checkpoint").read_bytes()).size
    tiles = [(ENTRIES, start // WIDTH) for start in range(0, size, WIDTH)]
    return [folder / tile_path(tile, tile_width(tile, size)) for tile in tiles]


def _change_byte(folder: Path, index: int) -> None:
    """Another digest in one entry, still well-formed: the first letter of `content_c`."""
    path = _bundles(folder)[index // WIDTH]
    before, name, after = list(parse_bundle(path.read_bytes()))[index % WIDTH].partition(b'"content_c":"')
    entry = before + name + after
    changed = before + name + (b"B" if after[:1] == b"A" else b"A") + after[1:]
    path.write_bytes(path.read_bytes().replace(entry, changed))


def _with_forged_receipt(entries: list[bytes]) -> list[bytes]:
    """The newest receipt of the registry names another entry of its."""
    parsed = [parse_entry(entry) for entry in entries]
    at = max(i for i, entry in enumerate(parsed) if entry.kind == "receipt" and entry.recipient == "demo/registry")
    peer = parsed[at].peer
    assert peer is not None  # a receipt always names one
    forged = replace(parsed[at], peer=replace(peer, leaf=sha256(b"an entry that never was").digest()))
    return [*entries[:at], forged.encode(), *entries[at + 1 :]]


def _signer(federation: Federation, short: str) -> LedgerNoteSigner:
    keys = KeyStore.open(federation.node(short) / "keys", federation.secret(short).secret())
    return keys.note_signer(keys.origin_in_use(FileGuard(federation.node(short) / "keys")))


def _check(what: str, codes: str, keys: Sequence[str], *folders: Path) -> Iterator[Check]:
    """What the verifier, a process of its own, says of one ledger or two: that all holds, or one of `codes`."""
    foreign = VERIFIER.exists()
    if not foreign and len(folders) > 1:
        return
    program = ["tracewire_verify.py", "log"] if len(folders) == 1 else ["tracewire_match.py"]
    words = [sys.executable, str(VERIFIER / program[0]), *program[1:]]
    words += [f"--vkey={key}" for key in keys]
    command = [*(words if foreign else [*TRACEWIRE, "ledger", "verify"]), *map(str, folders), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_VERIFY_S, check=False)  # noqa: S603 - no shell
    try:
        found = json.loads(done.stdout)
    except ValueError:
        found = {"ok": False, "code": "no answer", "detail": done.stderr.strip()[-500:]}
    ways = [found[name] for name in ("there", "back") if name in found]
    said = f"{found.get('code')}: {found.get('detail')}" if not found["ok"] else f"{found.get('size')} entries hold"
    if ways:
        said = " and ".join(f"{way['matched']} of {way['sent']}" for way in ways) + " messages matched, there and back"
    holds = found["ok"] and all(way["sent"] == way["matched"] for way in ways)
    caught = found.get("code") in codes.split() or (not foreign and not found["ok"])
    yield Check(what=what, said=said, lie=bool(codes), right=caught if codes else holds)
