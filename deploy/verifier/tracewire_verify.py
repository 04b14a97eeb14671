"""Verifies Tracewire ledgers offline. Apart on purpose: imports nothing of Tracewire, only the standard library and `cryptography`.

    python tracewire_verify.py log DIR [--vkey KEY --vkey KEY]     one ledger: everything recomputed from its entries
    python tracewire_verify.py match DIR_A DIR_B [--live]          two ledgers: every message, both ways
    python tracewire_verify.py proof FILE --vkey KEY --vkey KEY    one entry's C2SP tlog-proof

DIR is a C2SP tlog-tiles folder: `checkpoint`, `vkeys`, `tile/`, older checkpoints in `checkpoints/<size>` or
`checkpoint.*`. Keys should come from a directory that you trust; the file `vkeys` is only what the folder says of itself.
Exit code 0: all holds; 1: one line `FAIL code: detail`; 2: wrong usage.
"""

import base64
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

CODES = "key note signature root tile bundle missing entry order consistency receipt mismatch".split()
WIDTH, ENTRY_MAX, FILE_MAX = 256, 2048, 256 * 65_537
ED25519, MLDSA44 = 1, 6
ORDER = (
    "v kind at id from to via pair_seq kid seal_kid suite envelope content_c thread_c code read actor_c dir peer first n"
).split()
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
    "admin": ("code", "from actor_c"),
    "ledger-opened": ("from dir", "peer"),
    "ledger-closed": ("from", ""),
}
ARRIVALS = frozenset(("received", "refused", "id_conflict"))
OURS = frozenset(("sent", "receipt", "undelivered", "ledger-opened", "ledger-closed"))  # `from` is the ledger's member
PUBLIC_CODES = {
    "refused": "env.invalid schema.invalid type.unknown msg.expired msg.not_permitted msg.thread".split(),
    "undelivered": "expired key.revoked content.erased".split(),
}
Entry = dict[str, Any]


class Failure(Exception):
    """Why something does not hold: `code` is one of CODES."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code, self.detail = code, detail


@dataclass(frozen=True, kw_only=True)
class Log:
    """A ledger that holds; `own_keys`: the keys came from the folder itself."""

    origin: str
    size: int
    root: str
    signatures: int  # on every checkpoint
    older_checkpoints: int
    own_keys: bool
    kinds: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Direction:
    """What became of the messages that one ledger's member sent to the other's; the five states add up to `sent`."""

    sender: str
    receiver: str
    sent: int
    matched: int  # receipt <-> received, refused or id_conflict <-> sent
    unanswered: int  # in flight: neither ledger has more than `sent`
    receipt_pending: int  # in flight: the receiver's entry stands, the sender has no receipt yet
    undelivered: int
    elsewhere: int  # the receipt names another ledger of the receiver, or (--live) an entry past the folder's end
    other_ledgers: int  # the receiver's entries that so name another ledger of the sender, or (--live) past its end


@dataclass(frozen=True, kw_only=True)
class Match:
    """Two ledgers that agree; `other_peers`: exchange entries of both about members outside the two."""

    a: Log
    b: Log
    there: Direction
    back: Direction
    other_peers: int


@dataclass(frozen=True, kw_only=True)
class Proof:
    """An entry proven under a signed checkpoint."""

    origin: str
    size: int
    index: int
    entry: str


class _Key(NamedTuple):
    name: str
    type: int
    public: bytes
    id: bytes


class _Point(NamedTuple):
    origin: str
    size: int
    root: bytes


def _unb64(text: str, code: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise Failure(code, "not base64") from None
    if base64.b64encode(data).decode() != text:
        raise Failure(code, "base64 is not canonical")
    return data


def _b64u(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _member(origin: str) -> str:
    return origin.rpartition("/")[0]


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(FILE_MAX)  # no file of a ledger is longer
    except OSError as error:
        raise Failure("missing", f"{path}: {error.strerror}") from error


# --- keys and checkpoints: C2SP signed-note, tlog-checkpoint, tlog-cosignature


def _key(vkey: str) -> _Key:
    name, _, rest = vkey.partition("+")
    key_id, _, encoded = rest.partition("+")
    data = _unb64(encoded, "key")
    expected = sha256(name.encode() + b"\n" + data).digest()[:4]
    if not name or {ED25519: 33, MLDSA44: 1313}.get(data[0] if data else 0) != len(data) or key_id != expected.hex():
        raise Failure("key", f"not an Ed25519 or ML-DSA-44 verifier key: {vkey[:60]}")
    return _Key(name, data[0], data[1:], expected)


def _holds(key: _Key, text: str, point: _Point, signature: bytes) -> bool:
    try:
        if key.type == ED25519:
            Ed25519PublicKey.from_public_bytes(key.public).verify(signature, text.encode())
        else:
            name = bytes([len(key.name.encode())]) + key.name.encode()  # cosigner and log are one
            signed = (
                b"subtree/v1\n\0" + name + signature[:8] + name + bytes(8) + point.size.to_bytes(8, "big") + point.root
            )
            MLDSA44PublicKey.from_public_bytes(key.public).verify(signature[8:], signed)
    except (InvalidSignature, ValueError):
        return False
    return True


def _open(note: bytes, keys: Sequence[_Key], where: str) -> _Point:
    """The checkpoint of a note that every one of `keys` signed."""
    whole = note.decode(errors="replace")
    text, blank, signed = whole.rpartition("\n\n")
    lines = text.split("\n")
    if not blank or not signed.endswith("\n") or re.search("[\x00-\x09\x0b-\x1f\x7f\ufffd]", whole):
        raise Failure("note", f"{where} is not a signed note")
    if len(lines) != 3 or not re.fullmatch(r"0|[1-9]\d{0,17}", lines[1], re.ASCII):
        raise Failure("note", f"{where} is not a checkpoint without extension lines")
    point = _Point(lines[0], int(lines[1]), _unb64(lines[2], "note"))
    found: dict[tuple[str, bytes], bytes] = {}
    for line in signed[:-1].split("\n"):
        parts = re.fullmatch(r"— ([^\s+]+) (\S+)", line)
        blob = _unb64(parts[2], "note") if parts else b""
        if parts is None or len(blob) < 5 or (parts[1], blob[:4]) in found:
            raise Failure("note", f"{where}: malformed or repeated signature line")
        found[parts[1], blob[:4]] = blob[4:]
    for key in keys:
        signature, kind = found.get((key.name, key.id)), "Ed25519" if key.type == ED25519 else "ML-DSA-44"
        if signature is None:
            raise Failure("signature", f"{where}: no {kind} signature of {key.name}")
        if key.name != point.origin or len(point.root) != 32 or not _holds(key, text + "\n", point, signature):
            raise Failure("signature", f"{where}: the {kind} signature does not hold")
    return point


def _keys(vkeys: Sequence[str], note: bytes, signatures: int) -> list[_Key]:
    """Those of `vkeys` that carry the note's origin: one Ed25519 and one ML-DSA-44, or the one that was asked for."""
    origin = note.partition(b"\n")[0].decode(errors="replace")
    keys = [key for key in map(_key, vkeys) if key.name == origin]
    if sorted(key.type for key in keys) != [ED25519, MLDSA44] and not signatures == len(keys) == 1:
        raise Failure("key", f"{len(keys)} keys of {origin}: one Ed25519 and one ML-DSA-44 key are needed")
    return keys


# --- the tree: RFC 6962, C2SP tlog-tiles


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


class _Tree:
    """The right edge of a growing tree; `full(level, n, row)` is called for every tile of 256 hashes."""

    def __init__(self, full: Callable[[int, int, bytes], None] = lambda *_: None) -> None:
        self.size, self.rows, self._full = 0, dict[int, bytearray](), full
        self._edge: list[bytes | None] = []  # by height: the perfect subtree that lacks its right sibling

    def append(self, value: bytes) -> None:
        height = 0
        while True:
            if height % 8 == 0:
                row = self.rows.setdefault(height // 8, bytearray())
                row += value
                if len(row) == WIDTH * 32:
                    self._full(height // 8, self.size >> height + 8, bytes(row))
                    row.clear()
            if height == len(self._edge):
                self._edge.append(None)
            left = self._edge[height]
            if left is None:
                break
            self._edge[height], value, height = None, _node(left, value), height + 1
        self._edge[height] = value
        self.size += 1

    def root(self) -> bytes:
        found = [value for value in self._edge if value is not None]
        return reduce(lambda right, left: _node(left, right), found) if found else sha256(b"").digest()


def _tile(level: int | str, n: int, width: int = WIDTH) -> str:
    groups = re.findall(r"\d{3}", f"{n:021d}")
    while len(groups) > 1 and groups[0] == "000":
        del groups[0]
    path = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    return f"tile/{level}/{path}" + (f".p/{width}" if width < WIDTH else "")


def _published(folder: Path, level: int | str, n: int, width: int) -> Iterator[tuple[Path, int]]:
    """The tile that must be there, and every narrower one that is."""
    yield folder / _tile(level, n, width), width
    for path in sorted((folder / (_tile(level, n) + ".p")).glob("*")):
        if int(path.name) < width:
            yield path, int(path.name)


def _check_names(folder: Path, size: int) -> None:
    """No file below `tile/` is anything but a tile or bundle of a tree of this size."""
    for path in (folder / "tile").rglob("*"):
        name = path.relative_to(folder).as_posix()
        found = re.fullmatch(r"tile/(entries|\d)/([x\d/]+)(?:\.p/(\d+))?", name, re.ASCII)
        if found:
            level, n = found[1], int(found[2].replace("x", "").replace("/", ""))
            width = (size >> 8 * int(level.replace("entries", "0"))) - n * WIDTH
            if name == _tile(level, n, int(found[3] or WIDTH)) and 0 < int(found[3] or WIDTH) <= width:
                continue
        if not path.is_dir():
            raise Failure("tile", f"{name} is no tile of a tree of size {size}")


def _bundle(folder: Path, n: int, size: int) -> tuple[bytes, list[bytes]]:
    """Bundle n of a tree of this size, raw and as entries; it must hold exactly those that the size says."""
    width = min(WIDTH, size - n * WIDTH)
    name, at, entries = _tile("entries", n, width), 0, list[bytes]()
    data = _read(folder / name)
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        entries.append(data[at + 2 : end])
        at = end
    if at != len(data) or len(entries) != width:
        raise Failure("bundle", f"{name} holds {len(entries)} entries, whole or cut, not {width}")
    return data, entries


# --- entries

_DIGEST = r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]"  # 32 bytes in canonical base64url
_FORMS = dict.fromkeys("envelope content_c thread_c actor_c sha256 leaf root".split(), _DIGEST) | {
    "at": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z",
    "id": r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
    "n": r"[A-Za-z0-9_-]{21}[AQgw]",
}
_PEER = "origin index leaf size root".split()
_NESTED = {"dir": ("version sha256".split(), 2), "peer": (_PEER, 1), "first": (_PEER, 1)}  # the first so many must be
_LEAST = {"v": 1, "pair_seq": 1, "version": 0, "index": 0, "size": 0}


def _well_formed(name: str, value: Any) -> bool:
    if name in _NESTED:
        order, least = _NESTED[name]
        listed = list(value) if isinstance(value, dict) else []
        return (
            listed == [each for each in order if each in listed]
            and listed[:least] == order[:least]
            and all(_well_formed(each, member) for each, member in value.items())
        )
    if name in _LEAST:
        return type(value) is int and _LEAST[name] <= value < 2**53 and (name != "v" or value == 1)
    if name == "read":
        return isinstance(value, bool)
    if not isinstance(value, str) or re.fullmatch(_FORMS.get(name, r"[^\0]{1,256}"), value, re.ASCII) is None:
        return False
    try:
        return name != "at" or datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def parse_entry(data: bytes) -> Entry:
    """The entry of its exact bytes, strictly; Failure `entry` else."""
    try:
        found = json.loads(data.decode()) if len(data) <= ENTRY_MAX else None
        again = json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        raise Failure("entry", "not JSON in UTF-8") from None
    if not isinstance(found, dict) or again != data:
        raise Failure("entry", "not one JSON object without spaces, doubled members or needless escapes")
    kind = found.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise Failure("entry", "unknown kind")
    must, may = ({"v", "kind", "at", "n", *KINDS[kind][0].split()}, set(KINDS[kind][1].split()))
    if not must <= found.keys() <= must | may:
        raise Failure("entry", f"members do not fit {kind}: {' '.join(sorted(found.keys() ^ must))}")
    if list(found) != [name for name in ORDER if name in found]:
        raise Failure("entry", "members are out of order")
    for name, value in found.items():
        if not _well_formed(name, value):
            raise Failure("entry", f"{name} is malformed")
    if kind in ARRIVALS | {"receipt"} and not {"index", "leaf"} <= found["peer"].keys():
        raise Failure("entry", "peer names no entry")
    if kind in PUBLIC_CODES and found["code"] not in PUBLIC_CODES[kind]:
        raise Failure("entry", f"not a code of {kind}")
    return found


class _Rules:
    """What the entries of one ledger must be in their order; keeps one number per peer."""

    def __init__(self, folder: Path, origin: str, size: int) -> None:
        self._folder, self._origin, self._size, self._next = folder, origin, size, dict[str, int]()

    def check(self, index: int, entry: Entry) -> None:
        kind, ours = entry["kind"], "to" if entry["kind"] in ARRIVALS else "from"
        if (kind == "ledger-opened") != (index == 0) or (kind == "ledger-closed" and index != self._size - 1):
            raise Failure("order", f"{kind} may not stand here")
        if kind in ARRIVALS | OURS and entry[ours] != _member(self._origin):
            raise Failure("entry", f"{ours} is not the ledger's member")
        named, expected = entry.get("first", entry.get("peer", {})), self._next.get(entry.get("to", ""), 1)
        if kind == "id_conflict" and named["origin"] == self._origin:
            self._same(index, entry, named, ARRIVALS, "id from to")
        elif kind == "sent" and named.get("origin") == self._origin:  # sealed again for another key
            self._same(index, entry, named, {"sent"}, "id to pair_seq content_c")
        elif kind == "sent":
            if entry["pair_seq"] != expected:
                raise Failure("order", f"pair_seq {entry['pair_seq']} where {expected} is next")
            self._next[entry["to"]] = expected + 1

    def _same(self, index: int, entry: Entry, named: Entry, kinds: Set[str], members: str) -> None:
        """The earlier entry of this ledger that `entry` names is one of `kinds` and agrees with it."""
        at = named.get("index", index)
        if at >= index:
            raise Failure("order", "names no earlier entry")
        data = _bundle(self._folder, at // WIDTH, self._size)[1][at % WIDTH]
        earlier = parse_entry(data)
        if (
            earlier["kind"] not in kinds
            or any(earlier[name] != entry[name] for name in members.split())
            or named.get("leaf", "") not in ("", _b64u(sha256(b"\0" + data).digest()))
        ):
            raise Failure("order", f"contradicts entry {at}, which it names")


# --- one ledger

Seen = Callable[[int, bytes, Entry], None]


def verify_log(
    folder: Path,
    vkeys: Sequence[str] | None = None,
    *,
    signatures: int = 2,
    entries: str = "strict",
    seen: Seen | None = None,
) -> Log:
    """Recomputes a ledger from its entry bundles; Failure where anything does not hold.

    Without `vkeys` those of the folder. For foreign logs: `signatures=1`, `entries="opaque"`. `seen` is called with
    index, leaf hash and members of each entry. Memory: a tree's right edge, a bundle, one root per older checkpoint.
    """
    note = _read(folder / "checkpoint")
    keys = _keys(vkeys or _read(folder / "vkeys").decode(errors="replace").split(), note, signatures)
    point = _open(note, keys, "checkpoint")
    older, count = _older(folder, keys, point)
    _check_names(folder, point.size)
    kinds, faults, rules = Counter[str](), list[Failure](), _Rules(folder, point.origin, point.size)

    def compare(code: str, level: int | str, n: int, row: bytes, ends: Sequence[int]) -> None:
        for path, width in _published(folder, level, n, len(ends)):
            if _read(path) != row[: ends[width - 1]]:
                faults.append(Failure(code, f"{path.relative_to(folder)} differs from the entries"))

    tree = _Tree(lambda level, n, row: compare("tile", level, n, row, range(32, len(row) + 1, 32)))
    for n in range(-(-point.size // WIDTH)):
        raw, bundle = _bundle(folder, n, point.size)
        compare("bundle", "entries", n, raw, list(accumulate(len(data) + 2 for data in bundle)))
        for data in bundle:
            leaf = sha256(b"\0" + data).digest()
            if entries == "strict":
                try:
                    entry = parse_entry(data)
                    rules.check(tree.size, entry)
                    kinds[entry["kind"]] += 1
                    if seen:
                        seen(tree.size, leaf, entry)
                except Failure as failure:
                    faults.append(Failure(failure.code, f"entry {tree.size}: {failure.detail}"))
            tree.append(leaf)
            if older.get(tree.size, b"") not in (b"", tree.root()):
                faults.append(Failure("consistency", f"the checkpoint of size {tree.size} has another root"))
            del faults[1:]
    for level, row in tree.rows.items():
        if row:
            compare("tile", level, tree.size >> 8 * (level + 1), bytes(row), range(32, len(row) + 1, 32))
    if tree.root() != point.root:  # what lies here is not what was signed, whatever else is wrong with it
        why = f"; first: {faults[0]}" if faults else ""
        raise Failure("root", f"the entries do not give the signed root of size {point.size}{why}")
    if faults:
        raise faults[0]
    return Log(
        origin=point.origin, size=point.size, root=base64.b64encode(point.root).decode(), signatures=len(keys),
        older_checkpoints=count, own_keys=not vkeys, kinds=dict(sorted(kinds.items())),
    )  # fmt: skip


def _older(folder: Path, keys: Sequence[_Key], newest: _Point) -> tuple[dict[int, bytes], int]:
    """Size -> root of every older checkpoint, all well signed, and how many there are."""
    found, count = {0: _Tree().root(), newest.size: newest.root}, 0
    for count, path in enumerate([*folder.glob("checkpoint.*"), *folder.glob("checkpoints/*")], 1):  # noqa: B007
        name = path.relative_to(folder).as_posix()
        point = _open(_read(path), keys, name)
        if path.parent != folder and path.name != str(point.size):
            raise Failure("consistency", f"{name} has size {point.size}")
        if point.size > newest.size or found.setdefault(point.size, point.root) != point.root:
            raise Failure("consistency", f"{name}: larger than the newest, or two roots of size {point.size}")
    return found, count


# --- two ledgers


class _Side:
    """A verified ledger, what it says about the exchange with one other member, and all its leaf hashes."""

    def __init__(self, folder: Path, vkeys: Sequence[str] | None, other: Path) -> None:
        self.member = _member(_read(other / "checkpoint").partition(b"\n")[0].decode(errors="replace"))  # the other's
        self.leaves, self.facts, self.others = bytearray(), dict[int, Entry](), 0
        self.log = verify_log(folder, vkeys, seen=self._see)

    def _see(self, index: int, leaf: bytes, entry: Entry) -> None:
        self.leaves += leaf
        if entry["kind"] in ARRIVALS | {"sent", "receipt", "undelivered"}:
            if entry["from" if entry["kind"] in ARRIVALS else "to"] == self.member:
                self.facts[index] = entry
            else:
                self.others += 1

    def leaf(self, index: int) -> bytes:
        return bytes(self.leaves[index * 32 : index * 32 + 32])

    def named(self, index: int, other: "_Side", kinds: Set[str], *, live: bool) -> Entry | None:
        """The other's entry that ours names and agrees with; None where it stands in another of its ledgers."""
        entry = self.facts[index]
        peer = entry["peer"]
        both = f"{self.log.origin} entry {index} and {peer['origin']} entry {peer['index']}"
        if peer["origin"] != other.log.origin and _member(peer["origin"]) == self.member:
            return None
        if peer["origin"] == other.log.origin and peer["index"] >= other.log.size:
            if live:
                return None
            raise Failure("missing", f"{both}: the other folder ends at {other.log.size}; old export or lost entries")
        found = other.facts.get(peer["index"]) if peer["origin"] == other.log.origin else None
        if found is None or found["kind"] not in kinds or peer["leaf"] != _b64u(other.leaf(peer["index"])):
            raise Failure("mismatch", f"{both}: named is no such entry")
        for name in "id from to pair_seq kid seal_kid suite envelope content_c thread_c".split():
            if name in entry and name in found and entry[name] != found[name]:
                raise Failure("mismatch", f"{both}: {name} differs")
        if entry["kind"] == "receipt" and entry.get("code") != found.get("code"):
            raise Failure("mismatch", f"{both}: code differs")
        return found

    def check_roots(self, other: "_Side") -> None:
        """Every root of the other's ledger that we were shown is its root at that size: no split view."""
        peers = [(entry["peer"], index) for index, entry in self.facts.items() if "root" in entry.get("peer", {})]
        shown = sorted(
            (peer.get("size", 0), index, peer) for peer, index in peers if peer["origin"] == other.log.origin
        )
        tree = _Tree()
        for size, index, peer in shown:
            if size <= other.log.size:
                while tree.size < size:
                    tree.append(other.leaf(tree.size))
                if peer["root"] != _b64u(tree.root()) or peer["index"] >= size:
                    both = f"{self.log.origin} entry {index} and {peer['origin']} entry {peer['index']}"
                    raise Failure("mismatch", f"{both}: proven under another tree of size {size}: two views")


def match(folder_a: Path, folder_b: Path, vkeys: Sequence[str] | None = None, *, live: bool = False) -> Match:
    """Verifies both ledgers, then each message both ways; Failure `mismatch` or `missing` names both indexes.

    `live`: entries past the end of the other folder are counted (`elsewhere`, `other_ledgers`), not failures: two
    busy ledgers cannot be exported at one instant. Memory grows with the messages.
    """
    a, b = _Side(folder_a, vkeys, folder_b), _Side(folder_b, vkeys, folder_a)
    if a.log.origin == b.log.origin:
        raise Failure("mismatch", "two folders of one ledger")
    a.check_roots(b)
    b.check_roots(a)
    there, back = _direction(a, b, live=live), _direction(b, a, live=live)
    return Match(a=a.log, b=b.log, there=there, back=back, other_peers=a.others + b.others)


def _direction(sender: _Side, receiver: _Side, *, live: bool) -> Direction:
    arrived, received, other_ledgers = set[str](), dict[str, int](), 0
    for index, entry in receiver.facts.items():
        if entry["kind"] in ARRIVALS:
            if receiver.named(index, sender, {"sent"}, live=live) is None:
                other_ledgers += 1
            elif entry["kind"] == "received" and received.setdefault(entry["id"], index) != index:
                both = f"{receiver.log.origin} entries {received[entry['id']]} and {index}"
                raise Failure("mismatch", f"{both}: one message received twice")
            else:
                arrived.add(entry["id"])
    state: dict[str, str] = {}
    first: dict[str, int] = {}
    for index, entry in sender.facts.items():
        kind, id_ = entry["kind"], entry["id"]
        if kind == "sent":
            if sender.facts[first.setdefault(id_, index)]["content_c"] != entry["content_c"]:
                raise Failure("mismatch", f"{sender.log.origin} entries {first[id_]} and {index}: two contents, one id")
            state.setdefault(id_, "receipt_pending" if id_ in arrived else "unanswered")
        elif kind == "receipt":
            found = sender.named(index, receiver, ARRIVALS, live=live)
            if state.get(id_) in ("matched", "elsewhere"):
                raise Failure("mismatch", f"{sender.log.origin} entries {first[id_]} and {index}: a second receipt")
            state |= {id_: "elsewhere" if found is None else "matched"} if id_ in state else {}
        elif kind == "undelivered" and id_ in state:
            state[id_] = kind
    count = Counter(state.values())
    states = {name: count[name] for name in "matched unanswered receipt_pending undelivered elsewhere".split()}
    return Direction(
        sender=sender.log.origin, receiver=receiver.log.origin, sent=len(state), other_ledgers=other_ledgers, **states
    )


# --- one proof


def verify_proof(file: Path, vkeys: Sequence[str], *, signatures: int = 2, entries: str = "strict") -> Proof:
    """A C2SP tlog-proof whose `extra` line carries the entry; Failure `receipt` where it proves nothing."""
    head, _, note = _read(file).partition(b"\n\n")
    lines = head.decode(errors="replace").split("\n")
    index = re.fullmatch(r"index (0|[1-9]\d{0,17})", lines[2], re.ASCII) if len(lines) > 2 else None
    if index is None or lines[0] != "c2sp.org/tlog-proof@v1" or not lines[1].startswith("extra ") or len(lines) > 66:
        raise Failure("receipt", f"{file} is not a tlog-proof that carries its entry")
    point = _open(note, _keys(vkeys, note, signatures), "checkpoint")
    entry, path = _unb64(lines[1][6:], "receipt"), [_unb64(line, "receipt") for line in lines[3:]]
    at, last, value = int(index[1]), point.size - 1, sha256(b"\0" + entry).digest()
    whole = at <= last
    for sibling in path:  # RFC 9162 section 2.1.3.2
        whole &= last > 0 and len(sibling) == 32
        if at & 1 or at == last:
            value = _node(sibling, value)
            while whole and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            value = _node(value, sibling)
        at, last = at >> 1, last >> 1
    if not whole or last != 0 or value != point.root:
        raise Failure("receipt", "the path does not lead from the entry to the signed root")
    if entries == "strict":
        parse_entry(entry)
    return Proof(origin=point.origin, size=point.size, index=int(index[1]), entry=entry.decode(errors="replace"))


def _text(found: Log | Match | Proof) -> str:
    match found:
        case Proof():
            return f"OK entry {found.index} of {found.origin} under size {found.size}\n{found.entry}"
        case Log():
            kinds = "".join(f"\n  {kind:<16} {count}" for kind, count in found.kinds.items())
            keys = "of the folder itself" if found.own_keys else "given"
            return (
                f"OK {found.origin}\n  size {found.size}\n  root {found.root}\n  signatures {found.signatures}, keys {keys}"
                f"\n  older checkpoints {found.older_checkpoints}{kinds}"
            )
        case Match():
            lines = [_text(found.a), _text(found.b)]
            for each in (found.there, found.back):
                counts = ", ".join(f"{name} {count}" for name, count in asdict(each).items() if isinstance(count, int))
                lines.append(f"OK {each.sender} -> {each.receiver}\n  {counts}")
            return "\n".join([*lines, f"  about other peers {found.other_peers}"])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; its exit code."""
    parser = argparse.ArgumentParser(description="Verify Tracewire ledgers offline.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, paths in (("log", ["dir"]), ("match", ["dir_a", "dir_b"]), ("proof", ["file"])):
        command = commands.add_parser(name, allow_abbrev=False)
        for path in paths:
            command.add_argument(path, type=Path)
        command.add_argument(
            "--vkey", action="append", required=name == "proof", help="a verifier key you trust; repeat"
        )
        command.add_argument("--json", action="store_true", help="print one JSON object")
        if name == "match":
            command.add_argument("--live", action="store_true", help="count entries past the other folder's end")
        else:
            command.add_argument("--signatures", type=int, choices=(1, 2), default=2)
            command.add_argument("--entries", choices=("strict", "opaque"), default="strict")
    args = parser.parse_args(arguments)
    try:
        if args.command == "match":
            found: Log | Match | Proof = match(args.dir_a, args.dir_b, args.vkey, live=args.live)
        elif args.command == "log":
            found = verify_log(args.dir, args.vkey, signatures=args.signatures, entries=args.entries)
        else:
            found = verify_proof(args.file, args.vkey, signatures=args.signatures, entries=args.entries)
    except Failure as failure:
        told = {"ok": False, "code": failure.code, "detail": failure.detail}
        print(json.dumps(told) if args.json else f"FAIL {failure.code}: {failure.detail}")
        return 1
    print(json.dumps({"ok": True, **asdict(found)}) if args.json else _text(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
