"""The demo's last part: ledgers as an outsider sees them, and three lies, each told well and each caught.

The liars hold real keys: whoever runs a node can sign any tree. What they cannot change is the other side's ledger.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from gateway.runtime.cli import ledger
from gateway.runtime.cli.say import clock
from gateway.runtime.demo.federation import TRACEWIRE, Federation, quietly
from keys.keystore import KeyStore
from keys.notes import LedgerNoteSigner
from protocols.ledger.checkpoint import parse_checkpoint
from protocols.ledger.entry import parse_entry
from protocols.ledger.merkle import leaf_hash
from protocols.ledger.tiles import ENTRIES, WIDTH, Edge, encode_bundle, parse_bundle, tile_path, tile_width

VERIFIER = Path(__file__).parents[3] / "deploy" / "verifier" / "tracewire_verify.py"
"""In a checkout; an installed package has no second opinion with it, and verifies with `tracewire ledger verify`."""
_VERIFY_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was tried: what was done, what the verifier said, and whether that was right."""

    what: str
    said: str
    right: bool
    found: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """The ledgers as folders, by member."""

    folders: dict[str, Path]
    sizes: dict[str, int]


def export(federation: Federation) -> Exported:
    """Writes every member's ledger as C2SP tiles."""
    folders, sizes = {}, {}
    for short in federation.members:
        folders[short] = federation.folder / "ledgers" / short
        sizes[short] = int(quietly(ledger.export, federation.node(short), folders[short])["size"])
    return Exported(folders=folders, sizes=sizes)


def check_ledgers(exported: Exported) -> list[Check]:
    """Every ledger from its bytes alone, then the police's against the registry's and the manufacturer's."""
    checks = [_holds(f"ledger of {short}", "log", folder) for short, folder in exported.folders.items()]
    if VERIFIER.exists():
        ours = exported.folders["police"]
        for other in ("registry", "maker"):
            checks.append(_holds(f"police and {other}, entry by entry", "match", ours, exported.folders[other]))
    return checks


def check_lies(federation: Federation, exported: Exported) -> list[Check]:
    """Tells each lie in a copy, and sees it caught; the last two need the other side's ledger."""
    lies = federation.folder / "lies"
    police, registry = exported.folders["police"], exported.folders["registry"]
    entries = read_entries(registry)
    at = max(i for i, entry in enumerate(entries) if parse_entry(entry).kind == "received")
    changed = lies / "changed-byte"
    shutil.copytree(registry, changed)
    _change_byte(changed, at)
    checks = [_caught(f"the registry changes one byte of entry {at}", "log", changed)]
    if not VERIFIER.exists():
        return checks
    dropped = lies / "dropped-entry"
    rewrite(registry, dropped, lambda found: found[:at] + found[at + 1 :], _signer(federation, "registry"))
    alone = _holds("", "log", dropped)
    what = f"the registry drops entry {at}, a request it received, and signs the tree anew"
    checks.append(_caught(f"{what} (alone it holds: {'yes' if alone.right else 'no'})", "match", police, dropped))
    forged = lies / "forged-receipt"
    rewrite(police, forged, _forge_receipt, _signer(federation, "police"))
    alone = _holds("", "log", forged)
    what = "the police forge a receipt of the registry and sign the tree anew"
    checks.append(_caught(f"{what} (alone it holds: {'yes' if alone.right else 'no'})", "match", forged, registry))
    return checks


def read_entries(folder: Path) -> list[bytes]:
    """The entries of an exported ledger."""
    size = parse_checkpoint((folder / "checkpoint").read_bytes()).size
    tiles = [(ENTRIES, start // WIDTH) for start in range(0, size, WIDTH)]
    bundles = [(folder / tile_path(tile, tile_width(tile, size))).read_bytes() for tile in tiles]
    return [entry for bundle in bundles for entry in parse_bundle(bundle)]


def rewrite(source: Path, target: Path, change: Callable[[list[bytes]], list[bytes]], signer: LedgerNoteSigner) -> None:
    """Another history under the same keys: what an operator of a node could do. Older checkpoints are left out."""
    entries = change(read_entries(source))
    size, edge = len(entries), Edge(0, {})
    for start in range(0, size, WIDTH):
        some, tile = entries[start : start + WIDTH], (ENTRIES, start // WIDTH)
        _write(target / tile_path(tile, tile_width(tile, size)), encode_bundle(some))
        for each, data in edge.append(leaf_hash(entry) for entry in some).items():
            if tile_width(each, edge.size) == WIDTH:
                _write(target / tile_path(each), data)
    for each, data in edge.tiles().items():
        _write(target / tile_path(each, tile_width(each, size)), data)
    _write(target / "checkpoint", signer.sign(size, edge.root(), clock()))
    _write(target / "vkeys", (source / "vkeys").read_bytes())


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _change_byte(folder: Path, index: int) -> None:
    """Another digest in one entry, still well-formed: one letter of `content_c`."""
    size = parse_checkpoint((folder / "checkpoint").read_bytes()).size
    tile = ENTRIES, index // WIDTH
    path = folder / tile_path(tile, tile_width(tile, size))
    entries = list(parse_bundle(path.read_bytes()))
    entry = bytearray(entries[index % WIDTH])
    at = entry.index(b'"content_c":"') + len(b'"content_c":"')
    entry[at] = ord("A") if entry[at] != ord("A") else ord("B")
    entries[index % WIDTH] = bytes(entry)
    path.write_bytes(encode_bundle(entries))


def _forge_receipt(entries: list[bytes]) -> list[bytes]:
    """The newest receipt of the registry, for an entry that the registry never made."""
    for index in range(len(entries) - 1, -1, -1):
        entry = parse_entry(entries[index])
        if entry.kind == "receipt" and entry.recipient == "demo/registry" and entry.peer is not None:
            forged = replace(entry, peer=replace(entry.peer, leaf=sha256(b"an entry that never was").digest()))
            return [*entries[:index], forged.encode(), *entries[index + 1 :]]
    raise AssertionError("the police hold no receipt")  # the demo has matched both ledgers before


def _signer(federation: Federation, short: str) -> LedgerNoteSigner:
    keys = KeyStore.open(federation.node(short) / "keys", federation.secret(short).secret())
    return keys.note_signer(max(key.origin for key in keys.inventory() if key.origin))


def _holds(what: str, *words: str | Path) -> Check:
    code, found = _verify(*words)
    return Check(what=what, said=_said(found), right=code == 0, found=found)


def _caught(what: str, *words: str | Path) -> Check:
    code, found = _verify(*words)
    return Check(what=what, said=_said(found), right=code not in (0, 2) and bool(found.get("code")), found=found)


def _verify(*words: str | Path) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of the verifier, a process of its own."""
    foreign = [sys.executable, str(VERIFIER), *map(str, words), "--json"]
    own = [*TRACEWIRE, "ledger", "verify", *map(str, words[1:]), "--json"]
    command = foreign if VERIFIER.exists() else own
    done = subprocess.run(command, capture_output=True, text=True, timeout=_VERIFY_S, check=False)  # noqa: S603 - no shell
    try:
        found = json.loads(done.stdout)
    except ValueError:
        found = {"detail": (done.stderr or done.stdout).strip()[-500:]}
    return done.returncode, found


def _said(found: dict[str, Any]) -> str:
    if "code" in found:
        return f"{found['code']}: {found.get('detail', '')}"
    if "size" in found:
        return f"holds, {found['size']} entries"
    return str(found.get("detail", "agrees"))
