"""Verifies Tracewire ledgers offline. Apart on purpose: nothing of Tracewire, only the standard library and `cryptography`.

    python tracewire_verify.py log DIR | proof FILE | fork FILE FILE [--vkey KEY --vkey KEY] [--json]

DIR is a C2SP tlog-tiles folder: `checkpoint`, `vkeys`, `tile/`, older ones in `checkpoints/<size>` or `checkpoint.*`. Keys
should come from a directory that you trust; the file `vkeys` is only what the folder says of itself.
One line is printed for each claim. Exit code 0: all holds; 1: one line `FAIL code: detail`; 2: wrong usage.
"""

import argparse
import base64
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

ED25519, MLDSA44 = 1, 6
WIDTH, ENTRY_MAX, FILE_MAX = 256, 2048, 256 * 65_537  # entries a bundle, bytes an entry, bytes a file
ORDER = """v kind at id from to via pair_seq kid seal_kid suite envelope content_c thread_c code read actor_c dir peer first n"""
_X = "id from to pair_seq envelope dir"
KINDS = {  # kind: members that must stand beside v, kind, at, n; members that may
    "sent": (f"{_X} kid seal_kid suite content_c thread_c actor_c", "peer"),
    "received": (f"{_X} kid seal_kid suite content_c thread_c peer", "via"),
    "refused": (f"{_X} code read peer", "via content_c"),
    "receipt": (f"{_X} content_c peer", "code"),
    "undelivered": (f"{_X} content_c code", ""),
    "id_conflict": (f"{_X} peer first", "via content_c"),
    "relayed": (f"{_X} via peer", ""),
    "dispatched": ("id from to content_c", "actor_c"),
    "opened": ("id from to content_c actor_c code", ""),
    "erased": ("code", "id from to content_c actor_c"),
    "key": ("code kid", ""),
    "directory": ("dir", ""),
    "peer-checkpoint": ("peer", ""),
    "admin": ("code", "id from to content_c actor_c"),
    "ledger-opened": ("from dir", "peer"),
    "ledger-closed": ("from", ""),
}
ARRIVALS = ("received", "refused", "id_conflict")
OURS = ("sent", "receipt", "undelivered", "ledger-opened", "ledger-closed")  # `from` is the ledger's member
Entry = dict[str, Any]
Key = tuple[str, int, bytes, bytes]  # name, type, public key, key id
Point = tuple[str, int, bytes]  # a checkpoint's origin, size, root


class Failure(Exception):
    """What does not hold, the first entry that is wrong and its ledger, where that can be told; and what does not hold `also`.

    Codes: key note signature root tile bundle missing entry order consistency receipt fork mismatch.
    """

    def __init__(self, code: str, detail: str, index: int | None = None, origin: str | None = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.code, self.detail, self.index, self.origin, self.also = code, detail, index, origin, list[str]()


@dataclass(frozen=True, kw_only=True)
class Log:
    """A ledger that holds; `own_keys`: nobody gave keys, they came from the folder itself."""

    origin: str
    size: int
    root: str
    older_checkpoints: int
    signatures: int  # on every checkpoint
    own_keys: bool
    kinds: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Proof:
    """An entry proven under a signed checkpoint."""

    origin: str
    size: int
    index: int
    entry: str


@dataclass(frozen=True, kw_only=True)
class Fork:
    """A ledger that was signed in two histories, which differ at a size or index."""

    origin: str
    what: str
    at: int


def _unb64(text: str, code: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = b""
    if not data or base64.b64encode(data).decode() != text:
        raise Failure(code, "not canonical base64")
    return data


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(FILE_MAX)
    except OSError as error:
        raise Failure("missing", f"{path}: {error.strerror}") from error


def _keys(vkeys: Sequence[str], note: bytes, signatures: int) -> list[Key]:
    """Those of `vkeys` (C2SP signed-note) that carry the note's origin: Ed25519 and ML-DSA-44, or the one asked for."""
    origin, keys = note.partition(b"\n")[0].decode(errors="replace"), []
    for vkey in vkeys:
        name, key_id, encoded = [*vkey.split("+", 2), "", ""][:3]
        data = _unb64(encoded, "key")
        expected = sha256(name.encode() + b"\n" + data).digest()[:4]
        if {ED25519: 33, MLDSA44: 1313}.get(data[0]) != len(data) or key_id != expected.hex():
            raise Failure("key", f"not an Ed25519 or ML-DSA-44 verifier key: {vkey[:60]}")
        if name == origin:
            keys.append((name, data[0], data[1:], expected))
    if sorted(key[1] for key in keys) != [ED25519, MLDSA44] and not signatures == len(keys) == 1:
        raise Failure("key", f"{len(keys)} keys of {origin!r}: one Ed25519 and one ML-DSA-44 key are needed")
    return keys


def _open(note: bytes, keys: Sequence[Key], where: str) -> Point:
    """The checkpoint of a note that every one of `keys` signed."""
    whole = note.decode(errors="replace")
    text, _, signed = whole.rpartition("\n\n")
    lines = text.split("\n")
    form = len(lines) == 3 and re.fullmatch(r"0|[1-9]\d{0,17}", lines[1], re.ASCII)  # no extension lines
    if not form or not signed.endswith("\n") or re.search("[\x00-\x09\x0b-\x1f\x7f\ufffd]", whole):
        raise Failure("note", f"{where} is not a checkpoint in a signed note")
    point = lines[0], int(lines[1]), _unb64(lines[2], "note")
    found: dict[tuple[str, bytes], bytes] = {}
    for line in signed[:-1].split("\n"):
        parts = re.fullmatch(r"— ([^\s+]+) (\S+)", line)
        blob = _unb64(parts[2], "note") if parts else b""
        if parts is None or len(blob) < 5 or (parts[1], blob[:4]) in found:
            raise Failure("note", f"{where}: malformed or repeated signature line")
        found[parts[1], blob[:4]] = blob[4:]
    for _, type_, public, key_id in keys:  # all carry the origin as name; lines of other keys are ignored, as C2SP says
        signature = found.get((lines[0], key_id), b"")
        try:
            if type_ == ED25519:
                Ed25519PublicKey.from_public_bytes(public).verify(signature, f"{text}\n".encode())
            else:  # C2SP tlog-cosignature: cosigner, time, log, the tree [0, size), its root
                log = bytes([len(name := lines[0].encode()[:255])]) + name
                tree = b"subtree/v1\n\0" + log + signature[:8] + log + bytes(8) + point[1].to_bytes(8, "big") + point[2]
                MLDSA44PublicKey.from_public_bytes(public).verify(signature[8:], tree)
        except (InvalidSignature, ValueError):
            raise Failure("signature", f"{where}: the ledger's signature 0x{type_:02x} is missing or wrong") from None
    return point


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


class _Tree:
    """The right edge of a growing RFC 6962 tree; `full(level, n, row)` is called for every tile of 256 hashes."""

    def __init__(self, full: Callable[[int, int, bytes], None] = lambda *_: None) -> None:
        self.size, self.rows, self._full = 0, dict[int, bytearray](), full
        self._edge: list[bytes] = []  # the perfect subtrees that still lack their right siblings, largest first

    def append(self, value: bytes) -> None:
        height = 0
        while True:
            if height % 8 == 0:
                row = self.rows.setdefault(height // 8, bytearray())
                row += value
                if len(row) == WIDTH * 32:
                    self._full(height // 8, self.size >> height + 8, bytes(row))
                    row.clear()
            if not self.size >> height & 1:
                break
            value, height = _node(self._edge.pop(), value), height + 1
        self._edge.append(value)
        self.size += 1

    def root(self) -> bytes:
        *rest, value = self._edge or [sha256(b"").digest()]
        for left in reversed(rest):
            value = _node(left, value)
        return value


def _tile(level: int | str, n: int, width: int = WIDTH) -> str:
    """`tile/<L>/<N>[.p/<W>]`, as C2SP tlog-tiles writes it."""
    *above, last = (group.zfill(3) for group in f"{n:,}".split(","))
    return f"tile/{level}/{''.join(f'x{group}/' for group in above)}{last}" + (f".p/{width}" if width < WIDTH else "")


_NUMBER = r"(?:0|[1-9]\d{0,14})"
_TEXT = r'"(?:[^"\\\0-\x1f]|\\["\\bfnrt]|\\u00(?:0[1-7bef]|1[\da-f])){1,256}"'
_DIGEST = '"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]"'  # 32 bytes in canonical base64url


@cache
def _grammar(kind: str) -> re.Pattern[str]:
    """What the entries of a kind are, to the byte: canonical JSON."""
    reference = {"index": _NUMBER, "leaf": _DIGEST, "size": _NUMBER, "root": _DIGEST}.items()
    members = [f'(?:,"{name}":{form})' + "?" * (kind not in (*ARRIVALS, "receipt")) for name, form in reference]
    forms = dict.fromkeys(("envelope", "content_c", "thread_c", "actor_c"), _DIGEST) | {
        "at": r'"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"',
        "id": '"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"',
        "pair_seq": "(?!0)" + _NUMBER,
        "read": "(?:true|false)",
        "dir": rf'\{{"version":{_NUMBER},"sha256":{_DIGEST}\}}',
        "peer": rf'\{{"origin":{_TEXT}{"".join(members)}\}}',
        "first": rf'\{{"origin":{_TEXT},"index":{_NUMBER}(?:,"leaf":{_DIGEST})?\}}',
        "n": '"[A-Za-z0-9_-]{21}[AQgw]"',
    }
    if kind in ("refused", "receipt"):  # public codes only: the precise cause would be an oracle
        forms["code"] = r'"(?:env\.invalid|schema\.invalid|type\.unknown|msg\.(?:expired|not_permitted|correlation))"'
    if kind == "undelivered":
        forms["code"] = r'"(?:expired|key\.revoked|content\.erased|dropped)"'
    must, may = (members.split() for members in KINDS[kind])
    named = [name for name in ORDER.split() if name in ("kind", "at", "n", *must, *may)]
    members = [f'(?:,"{name}":{forms.get(name, _TEXT)})' + ("?" if name in may else "") for name in named]
    return re.compile(rf'\{{"v":1{"".join(members)}\}}', re.ASCII)


def parse_entry(data: bytes) -> Entry:
    """The entry of its exact bytes; Failure `entry` for any other bytes."""
    try:
        text = data.decode()
        entry = json.loads(text)
        if len(data) > ENTRY_MAX or not _grammar(entry["kind"]).fullmatch(text):
            raise Failure("entry", f"not the members of {entry['kind']} in their order and forms")
        datetime.fromisoformat(entry["at"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Failure("entry", "not an entry of a known kind") from None
    return dict(entry)


def _older(folder: Path, keys: Sequence[Key], newest: Point) -> tuple[dict[int, bytes], int]:
    """Size -> root of every older checkpoint, all well signed, and how many files they are."""
    found = {0: _Tree().root(), newest[1]: newest[2]}
    for path in (paths := [*folder.glob("checkpoint.*"), *folder.glob("checkpoints/*")]):
        _, size, root = _open(_read(path), keys, name := path.relative_to(folder).as_posix())
        if size > newest[1] or found.setdefault(size, root) != root or path.name not in (str(size), name):
            raise Failure("consistency", f"{name} has size {size}: too large, misnamed, or a second root of that size")
    return found, len(paths)


class _Checks:
    """Compares published files and the order of entries with what the bundles give; keeps of each code the fault of the lowest entry."""

    def __init__(self, folder: Path, origin: str, size: int) -> None:
        self._folder, self._origin, self._size = folder, origin, size
        self._next, self.kinds, self.faults = dict[str, int](), Counter[str](), dict[str, Failure]()
        self.good = 0  # the newest size at which an older checkpoint's root was found
        self.files = {path.relative_to(folder).as_posix() for path in folder.glob("tile/**/*") if path.is_file()}

    def published(self, level: int | str, n: int, row: bytes, ends: Sequence[int] = ()) -> None:
        """The tile or bundle that must be there, and every narrower one that is; `ends`: where its items end."""
        whole, code, ends = _tile(level, n), "bundle" if ends else "tile", ends or range(32, len(row) + 1, 32)
        for width, end in enumerate(ends, 1):
            name = whole if width == WIDTH else f"{whole}.p/{width}"
            if name in self.files or width == len(ends):
                there = name in self.files
                self.files.discard(name)
                if (found := _read(self._folder / name) if there else b"") != row[:end]:
                    at = next((i for i in range(0, end, 32) if found[i : i + 32] != row[i : i + 32]), 0) // 32
                    index = n * WIDTH + at if level == 0 else None
                    first = f", first at entry {index}" if level == 0 else ""
                    said = f"{name} {'differs from the entries' if there else 'is not there'}{first}"
                    self.fault(Failure(code if there else "missing", said, index))

    def fault(self, failure: Failure) -> None:
        """One that names an entry goes before one that names none, and the lower before the higher."""
        self.faults[failure.code] = min(self.faults.get(failure.code, failure), failure, key=_place)

    def bundle(self, n: int) -> list[bytes]:
        """The entries of bundle n, exactly as many as the tree's size says."""
        width, entries, ends = min(WIDTH, self._size - n * WIDTH), list[bytes](), [0]
        data = _read(path) if (path := self._folder / _tile("entries", n, width)).is_file() else b""
        while ends[-1] < len(data):
            start = ends[-1] + 2
            ends.append(start + int.from_bytes(data[start - 2 : start], "big"))
            entries.append(data[start : ends[-1]])
        if ends[-1] != len(data) or len(entries) != width:
            tile = self._folder / _tile(0, n, width)
            hashes = tile.read_bytes() if tile.is_file() else b""
            leaves = [sha256(b"\0" + entry).digest() for entry in entries]
            same = next((i for i, leaf in enumerate(leaves) if hashes[32 * i : 32 * i + 32] != leaf), len(leaves))
            said = f"bundle {n} holds {len(entries)} entries, whole or cut, not {width}: wrong from entry {n * WIDTH + same} on"
            self.fault(Failure("bundle" if data else "missing", said, n * WIDTH + same))
            raise min(self.faults.values(), key=_place)  # nothing after it can be told apart
        self.published("entries", n, data, ends[1:])
        done, up = (n * WIDTH + width) / self._size, "\x1b[A" if n else ""
        if sys.stderr.isatty() and (n % 64 == 0 or done == 1):  # a bar; the cursor stays on the line below it
            print(f"{up}[{'#' * int(40 * done):40}] {done:4.0%} of {self._size:,} entries", file=sys.stderr)
        return entries

    def entry(self, index: int, entry: Entry) -> None:
        """What an entry must be at its place."""
        kind, ours = entry["kind"], "to" if entry["kind"] in ARRIVALS else "from"
        self.kinds[kind] += 1
        if (kind == "ledger-opened") != (index == 0) or (kind == "ledger-closed" and index != self._size - 1):
            raise Failure("order", f"{kind} may not stand here")
        if kind in ARRIVALS + OURS and entry[ours] != self._origin.rpartition("/")[0]:
            raise Failure("entry", f"{ours} is not the ledger's member")
        earlier: Entry = entry.get("first") or entry.get("peer") or {}
        again = earlier.get("origin") == self._origin
        if again and earlier.get("index", index) >= index:
            raise Failure("order", "names no earlier entry of this ledger")
        if kind == "sent":  # `again`: sealed again for another key, under its old number
            expected = self._next.setdefault(entry["to"], 1)
            if entry["pair_seq"] >= expected if again else entry["pair_seq"] != expected:
                raise Failure("order", f"pair_seq {entry['pair_seq']} where {expected} is next")
            self._next[entry["to"]] += not again


def verify_log(
    folder: Path, vkeys: Sequence[str] | None = None, *, signatures: int = 2, entries: str = "strict",
    seen: Callable[[int, bytes, Entry], None] = lambda *_: None,
) -> Log:  # fmt: skip
    """Recomputes a ledger from its entry bundles; Failure where anything does not hold.

    Without `vkeys`: those of the folder. For foreign logs: `signatures=1`, `entries="opaque"`. `seen` is called with
    index, leaf hash and members of each entry. Memory: the tree's right edge, a bundle, names of tiles, old roots.
    """
    note = _read(folder / "checkpoint")
    keys = _keys(vkeys or _read(folder / "vkeys").decode(errors="replace").split(), note, signatures)
    origin, size, root = point = _open(note, keys, "checkpoint")
    older, count = _older(folder, keys, point)
    checks = _Checks(folder, origin, size)
    tree = _Tree(checks.published)
    for n in range(-(-size // WIDTH)):
        for data in checks.bundle(n):
            leaf = sha256(b"\0" + data).digest()
            try:
                if entries == "strict":
                    entry = parse_entry(data)
                    checks.entry(tree.size, entry)
                    seen(tree.size, leaf, entry)
            except Failure as failure:
                checks.fault(Failure(failure.code, f"entry {tree.size}: {failure.detail}", tree.size))
            tree.append(leaf)
            if tree.size in older and older[tree.size] == tree.root():
                checks.good = tree.size
            elif tree.size in older:
                said = f"the checkpoint of size {tree.size} has another root: an entry from {checks.good} on is wrong"
                checks.fault(Failure("consistency", said))
    for level, row in tree.rows.items():
        if row:
            checks.published(level, size >> 8 * (level + 1), bytes(row))
    if checks.files:
        checks.fault(Failure("tile", f"{min(checks.files)} is no tile of a tree of size {size}"))
    faults = sorted(checks.faults.values(), key=_place)
    if tree.root() != root:  # what lies here is not what was signed, whatever else is wrong with it
        said = f"the entries do not give the signed root of size {size}; faults: {[*map(str, faults)]}"
        raise Failure("root", said, faults[0].index if faults else None)
    if faults:
        raise faults[0]
    return Log(
        origin=origin, size=size, root=base64.b64encode(root).decode(), older_checkpoints=count, signatures=len(keys),
        own_keys=not vkeys, kinds=dict(sorted(checks.kinds.items())),
    )  # fmt: skip


def _place(failure: Failure) -> tuple[bool, int]:
    return failure.index is None, failure.index or 0


def verify_fork(first: Path, second: Path, vkeys: Sequence[str]) -> Fork:
    """Two statements that one ledger signed and that cannot both be true; else Failure `fork`.

    Two checkpoints of one size, two tlog-proofs of one index, or a checkpoint and a request to go on from its size
    (C2SP tlog-witness: `old`, path, checkpoint) whose path proves that the newer tree began in another way.
    """
    if _read(first).startswith(b"c2sp.org/tlog-proof@v1\n"):
        one, other = verify_proof(first, vkeys), verify_proof(second, vkeys)
        at, differ = ("index", one.index, other.index), one.entry != other.entry
        origins = one.origin, other.origin
    else:
        notes = [_state(file, vkeys) for file in (first, second)]
        (origin, size, root), (origin_2, size_2, root_2) = notes
        at, differ, origins = ("size", size, size_2), root != root_2, (origin, origin_2)
    if origins[0] != origins[1] or at[1] != at[2] or not differ:
        raise Failure("fork", "both can be true: they are of different ledgers or places, or say the same")
    return Fork(origin=origins[0], what=at[0], at=at[1])


def _state(file: Path, vkeys: Sequence[str]) -> tuple[str, int, bytes]:
    """Origin, size and root that a file proves its ledger to have signed: of its checkpoint, or of an older size that its path leads from."""
    head, _, note = _read(file).partition(b"\n\n")
    number = re.match(rb"old ([1-9]\d{0,17})(?:\n|$)", head)
    if number is None:
        return _open(note := _read(file), _keys(vkeys, note, 2), file.name)
    origin, size, root = _open(note, _keys(vkeys, note, 2), file.name)
    path = [_unb64(line, "fork") for line in head.decode(errors="replace").split("\n")[1:]]
    older, newer = _led(old := int(number[1]), size, path)
    if newer != root:
        raise Failure("fork", f"the path of {file.name} does not lead to its checkpoint")
    return origin, old, older


def _led(old: int, new: int, path: Sequence[bytes]) -> tuple[bytes, bytes]:
    """The roots of a tree's first `old` entries and of all `new` that a path gives (RFC 9162 section 2.1.4.2); none where its hashes do not fit.

    Its first hash is the older root itself where `old` is a power of two.
    """
    if not 0 < old < new or not path or any(len(each) != 32 for each in path):
        return b"", b""
    left, right = old - 1, new - 1
    while left & 1:
        left, right = left >> 1, right >> 1
    older = newer = path[0]
    for sibling in path[1:]:
        if not right:
            return b"", b""
        if left & 1 or left == right:
            older, newer = _node(sibling, older), _node(sibling, newer)
            while left and not left & 1:
                left, right = left >> 1, right >> 1
        else:
            newer = _node(newer, sibling)
        left, right = left >> 1, right >> 1
    return (b"", b"") if right else (older, newer)


def verify_proof(file: Path, vkeys: Sequence[str]) -> Proof:
    """A C2SP tlog-proof whose `extra` line carries the entry; Failure `receipt` where it proves nothing."""
    head, _, note = _read(file).partition(b"\n\n")
    lines = head.decode(errors="replace").split("\n")
    number = re.fullmatch(r"index (0|[1-9]\d{0,17})", lines[2], re.ASCII) if len(lines) > 2 else None
    if number is None or lines[0] != "c2sp.org/tlog-proof@v1" or not lines[1].startswith("extra "):
        raise Failure("receipt", f"{file} is not a tlog-proof that carries its entry")
    origin, size, root = _open(note, _keys(vkeys, note, 2), "checkpoint")
    entry, index = _unb64(lines[1][6:], "receipt"), int(number[1])
    path = [_unb64(line, "receipt") for line in lines[3:]]
    inner, value = (index ^ (size - 1)).bit_length(), sha256(b"\0" + entry).digest()
    for level, sibling in enumerate(path):  # RFC 9162 section 2.1.3.2 in closed form
        value = _node(sibling, value) if level >= inner or index >> level & 1 else _node(value, sibling)
    if index >= size or len(path) != inner + (index >> inner).bit_count() or value != root:
        raise Failure("receipt", "the path does not lead from the entry to the signed root")
    parse_entry(entry)
    return Proof(origin=origin, size=size, index=index, entry=entry.decode())


def shown(found: Log | Proof | Fork) -> Iterator[str]:
    """A line for each claim."""
    if isinstance(found, Fork):
        yield f"OK {found.origin}: two histories are proven; its keys signed both, and they differ at {found.what} {found.at}"
        return
    if isinstance(found, Proof):
        yield f"OK entry {found.index} of {found.origin} lies under its checkpoint of size {found.size}, signed: {found.entry}"
        return
    keys = "keys of its own folder, for which nobody vouches" if found.own_keys else "the keys that you gave"
    yield f"OK {found.origin} is signed: every signature of the checkpoint of size {found.size} holds, by {keys}"
    kinds = ", ".join(f"{count} {kind}" for kind, count in found.kinds.items())
    yield (
        f"OK {found.size} entries, each in its form and place, give the signed root {found.root}"
        + f": {kinds}" * bool(kinds)
    )
    yield f"OK {found.older_checkpoints} older checkpoints and every tile are of this tree"


def told(call: Callable[[], Any], lines: Callable[[Any], Iterable[str]], *, as_json: bool) -> int:
    """Prints what a check found or what does not hold, escaped: names in a ledger are not ours to trust; the exit code."""
    try:
        found = call()
    except Failure as failure:
        wrong = [f"FAIL {each}".encode("unicode_escape").decode() for each in (failure, *failure.also)]
        print(json.dumps({"ok": False, **vars(failure)}) if as_json else "\n".join(wrong))
        return 1
    members = found if isinstance(found, dict) else asdict(found)
    said = (line.encode("unicode_escape").decode() for line in lines(found))
    print(json.dumps({"ok": True, **members}) if as_json else "\n".join(said))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; its exit code."""
    parser = argparse.ArgumentParser(description="Verify Tracewire ledgers offline.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, call, count in (("log", verify_log, 1), ("proof", verify_proof, 1), ("fork", verify_fork, 2)):
        command = commands.add_parser(name)
        command.set_defaults(call=call)
        command.add_argument("path", type=Path, nargs=count)
        command.add_argument("--vkey", action="append", required=name != "log", help="a key you trust; repeat it")
        command.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(arguments)
    return told(lambda: args.call(*args.path, args.vkey), shown, as_json=args.json)


if __name__ == "__main__":
    sys.exit(main())
