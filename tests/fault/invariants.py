"""I1 to I7 of faults.yaml, in full, over both databases and both ledgers as an outsider gets them.

The ledgers are judged by `deploy/verifier/tracewire_verify.py`, which shares no code with the product: dense indexes, the
recomputed root, every checkpoint that was ever signed or seen (I4), and the match of both (I5, I7).
"""

import base64
import importlib.util
import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

from protocols.ledger.entry import Entry, parse_entry
from protocols.ledger.tiles import ENTRIES, WIDTH, encode_bundle, tile_path, tile_width
from tests.fault.pair import ROOT, Pair
from tests.federation import Node

_ACK, _ANSWER = "trace.acknowledgement", "trace.response"


def _program(name: str) -> ModuleType:
    import sys

    spec = importlib.util.spec_from_file_location(name, ROOT / "deploy/verifier" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_NAMES = ("verify", "match", "witnesses", "evidence")  # each may import those before it
VERIFIER, MATCH, _, EVIDENCE = [_program(f"tracewire_{name}") for name in _NAMES]


class View:
    """One node's database and guard, read at one moment: a witness may ask for an entry at any time."""

    def __init__(self, node: Node) -> None:
        self.node = node

    async def read(self) -> "View":
        self.mark: list[Any] = []
        while self.mark != (mark := self._mark()):
            self.mark = mark
            await self._read()
        return self

    def _mark(self) -> list[Any]:
        marks = json.loads((self.node.folder / "keys" / "guard.json").read_text())["marks"]
        return list(marks[self.node.origin][:2])

    async def _read(self) -> None:
        node = self.node
        self.entries = await node.rows("SELECT index, data FROM entry WHERE origin = $1 ORDER BY index", node.origin)
        self.tiles = await node.rows("SELECT level, index, data FROM tile WHERE origin = $1", node.origin)
        self.notes = await node.rows("SELECT size, note FROM checkpoint WHERE origin = $1 ORDER BY size", node.origin)
        self.outbox = await node.rows('SELECT id, thread, type, state, digest, content_c, "index" FROM outbox')
        self.inbox = await node.rows(
            'SELECT id, thread, type, sender, digest, content_c, dispatched, "index" FROM inbox'
        )
        self.events = await node.rows("SELECT seq, kind, message FROM event ORDER BY seq")
        self.reviews = await node.rows("SELECT id FROM review")
        self.held = await node.rows("SELECT origin, size, note FROM peer_checkpoint")
        self.split = await node.rows("SELECT origin FROM split_view")
        self.parsed: list[Entry] = [parse_entry(row["data"]) for row in self.entries]
        self.kinds = Counter((entry.kind, entry.id) for entry in self.parsed if entry.id)

    def export(self, folder: Path, older: set[bytes]) -> Path:
        """The ledger as C2SP tiles, with `older` checkpoints that were seen elsewhere or before."""
        size = self.notes[-1]["size"]
        for start in range(0, len(self.entries), WIDTH):
            tile = ENTRIES, start // WIDTH
            data = [row["data"] for row in self.entries[start : start + WIDTH]]
            _write(folder / tile_path(tile, tile_width(tile, max(size, len(self.entries)))), encode_bundle(data))
        for row in self.tiles:
            _write(folder / tile_path((row["level"], row["index"]), len(row["data"]) // 32), row["data"])
        _write(folder / "checkpoint", self.notes[-1]["note"])
        for row in self.notes:
            _write(folder / "checkpoints" / str(row["size"]), row["note"])
        for n, note in enumerate(sorted(older)):
            _write(folder / f"checkpoint.{n}", note)
        return folder


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


async def violations(pair: Pair) -> list[str]:
    """Everything that does not hold, each beginning with its invariant's id; when nothing is on its way any more."""
    a, b = await View(pair.a.node).read(), await View(pair.b.node).read()
    found = [*_accepted(pair, a), *_effects(a, b), *_ledgers(pair, a, b), *_guards(a, b)]
    for sender, receiver in ((a, b), (b, a)):
        found += exchange(sender, receiver)
    return found


def _accepted(pair: Pair, a: View) -> list[str]:
    """I2, I6: what a client was told is there; I1, I3: and nothing else is."""
    told = [json.loads(answer)["id"] for answer in pair.answers.values()]
    stored = [str(row["id"]) for row in a.outbox]
    found = [f"I1: {n} keys were answered with one message" for n in [len(told) - len(set(told))] if n]
    lost = set(told) - set(stored)
    if lost:
        found.append(f"I6: {len(lost)} messages were accepted before the crash and are gone")
    more = set(stored) - set(told)
    if more:
        found.append(f"I1: {len(more)} messages were made that no client was told of")
    return found


def exchange(sender: View, receiver: View) -> list[str]:
    """I1, I2, I3, I7 of one direction."""
    out = {row["id"]: row for row in sender.outbox}
    arrived = {row["id"]: row for row in receiver.inbox}
    found = []
    for id_, row in arrived.items():
        sent = out.get(id_)
        if sent is None or (sent["digest"], sent["content_c"]) != (row["digest"], row["content_c"]):
            found.append("I3: something arrived that was never submitted")
        if receiver.kinds["received", id_] != 1 or receiver.kinds["dispatched", id_] != int(row["dispatched"]):
            found.append("I1: an arrival does not have exactly one entry of each kind")
        if receiver.parsed[row["index"]].id != id_:
            found.append("I4: an arrival names another entry than its own")
    for id_, row in out.items():
        if sender.kinds["sent", id_] != 1 or sender.parsed[row["index"]].id != id_:
            found.append("I1: a message does not have exactly one sent entry")
        if row["state"] != "delivered" or id_ not in arrived:
            found.append(f"I2: a message is {row['state']} and has {'' if id_ in arrived else 'not '}arrived")
        if sender.kinds["receipt", id_] != 1:
            found.append(f"I7: a message has {sender.kinds['receipt', id_]} receipts")
    for view, kind, ids in ((sender, "sent", out), (sender, "delivered", out), (receiver, "received", arrived)):
        counted = Counter(row["message"] for row in view.events if row["kind"] == kind)
        if counted != Counter(dict.fromkeys(ids, 1)):
            found.append(f"I1: the feed does not tell every message {kind} once")
    if sender.split or receiver.split:
        found.append("I4: a split view is held")
    return _few(found)


def _effects(a: View, b: View) -> list[str]:
    """I1: every request has one effect at its recipient: a review with one acknowledgement, or one answer with one."""
    reviewed, found = {row["id"] for row in b.reviews}, []
    answers: dict[Any, list[str]] = {}
    for row in b.outbox:
        answers.setdefault(row["thread"], []).append(row["type"])
    seen: dict[Any, list[str]] = {}
    for row in a.inbox:
        seen.setdefault(row["thread"], []).append(row["type"])
    for row in b.inbox:
        expected = [_ACK] if row["id"] in reviewed else [_ACK, _ANSWER]
        if row["dispatched"] == (row["id"] in reviewed):
            found.append("I1: a request is both dispatched and under review, or neither")
        if not sorted(answers.get(row["thread"], [])) == sorted(seen.get(row["thread"], [])) == expected:
            found.append(f"I1: a request was answered by {answers.get(row['thread'])}")
    if not all(row["dispatched"] for row in a.inbox):
        found.append("I1: an answer that the case system took is not dispatched")
    return _few(found)


def _ledgers(pair: Pair, a: View, b: View) -> list[str]:
    """I4, I5, I7 by the independent verifier, under every checkpoint that anyone has seen since the pair was made."""
    folder, found = Path(tempfile.mkdtemp(prefix="tw-ledgers-")), []
    try:
        for view, other in ((a, b), (b, a)):
            seen = pair.notes.setdefault(view.node.origin, set())
            own = {row["note"] for row in view.notes}
            held = {row["note"] for row in other.held if row["origin"] == view.node.origin}
            view.export(folder / view.node.short, (seen | held) - own)
            seen |= own
        vkeys = [key for view in (a, b) for key in view.node.keys.note_signer(view.node.origin).vkeys]
        matched = MATCH.match(folder / "a", folder / "b", vkeys)
        for way, view in ((matched.there, a), (matched.back, b)):
            if not way.sent == way.matched == len(view.outbox):
                found.append(f"I5: of {len(view.outbox)} messages {way.sent} are sent and {way.matched} matched")
    except VERIFIER.Failure as failure:
        found.append(f"{'I5' if failure.code in ('mismatch', 'missing') else 'I4'}: {failure}")
    finally:
        shutil.rmtree(folder)
    return found


def _guards(*views: View) -> list[str]:
    """I4: the guard remembers the head, which is the newest checkpoint; its file is whole."""
    found = []
    for view in views:
        size, root = view.mark
        newest = view.notes[-1]["note"].split(b"\n")
        root_of_note = base64.b64decode(newest[2])
        if (size, root) != (int(newest[1]), base64.urlsafe_b64encode(root_of_note).decode().rstrip("=")):
            found.append(f"I4: {view.node.short}'s guard remembers size {size}, the newest checkpoint is {newest[1]!r}")
        if int(newest[1]) != len(view.entries):
            found.append("I4: the newest checkpoint is not of all entries")
    return found


def _few(found: list[str]) -> list[str]:
    """Each kind once, with its number."""
    return [f"{text} ({n} times)" for text, n in Counter(found).items()]
