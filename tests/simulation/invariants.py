"""I1 to I7, I9 and I12 of faults.yaml over what simulated members kept.

The tree is recomputed from the entries here, by RFC 6962 alone and not by the product's code.
"""

from collections import Counter
from dataclasses import fields
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

from protocols.ledger.checkpoint import parse_checkpoint
from protocols.ledger.entry import parse_entry
from protocols.strict import parse_object
from tests.fault.invariants import exchange
from tests.simulation.world import Node, World


def violations(world: World) -> list[str]:
    """Everything that does not hold, each beginning with its invariant's id."""
    a, b, _ = nodes = list(world.nodes.values())
    found = [*world.broken]
    views = {node.name: _view(node) for node in nodes}
    for node in nodes:
        found += _ledger(node, world)
    for sender, receiver in ((a, b), (b, a)):
        found += exchange(views[sender.name], views[receiver.name])
        found += _accepted(sender) + _effects(sender, receiver)
    for node in nodes:
        found += _receipts(views[node.name], views)
    return found


def _view(node: Node) -> Any:
    """A node's tables as tests/fault/invariants.py reads them from a database."""
    tables = node.tables
    parsed = [parse_entry(data) for data in tables.entries[node.origin]]
    return SimpleNamespace(
        outbox=[_row(out.row) | {"state": out.state} for out in tables.outbox.values()],
        inbox=[_row(row) for row in tables.inbox.values()],
        events=[_row(row) for row in tables.events],
        split=tables.split,
        parsed=parsed,
        leaves=_leaves(node),
        kinds=Counter((entry.kind, entry.id) for entry in parsed if entry.id),
        origin=node.origin,
    )


def _row(row: Any) -> dict[str, Any]:
    return {each.name: getattr(row, each.name) for each in fields(row)}


def _leaves(node: Node) -> list[bytes]:
    return [sha256(b"\0" + data).digest() for data in node.tables.entries[node.origin]]


def _roots(leaves: list[bytes]) -> list[bytes]:
    """The root of every size from 1 (RFC 6962 section 2.1): whole subtrees of a power of two, joined from the right."""
    roots, whole = [], list[tuple[int, bytes]]()
    for leaf in leaves:
        whole.append((1, leaf))
        while len(whole) > 1 and whole[-1][0] == whole[-2][0]:
            (width, left), (_, right) = whole[-2:]
            whole[-2:] = [(2 * width, sha256(b"\1" + left + right).digest())]
        root = whole[-1][1]
        for _, left in reversed(whole[:-1]):
            root = sha256(b"\1" + left + root).digest()
        roots.append(root)
    return roots


def _ledger(node: Node, world: World) -> list[str]:
    """I4: one history, to whoever has seen any of it."""
    tables, leaves = node.tables, _leaves(node)
    roots, found = _roots(leaves), list[str]()
    seen = [each.checkpoint for other in world.nodes.values() for each in other.tables.seen[node.origin].values()]
    for checkpoint in [*tables.checkpoints[node.origin].values(), *seen]:
        signed = parse_checkpoint(checkpoint.note)
        if not 0 < signed.size <= len(roots) or signed.root != roots[signed.size - 1]:
            found.append("I4: a checkpoint was signed that is not of this tree")
    mark = node.guard.read(node.origin)
    head = tables.heads[node.origin]
    if leaves and not head == (len(leaves), roots[-1]) == (mark.size if mark else 0, mark.root if mark else b""):
        found.append("I4: entries, head and guard differ")
    if tables.tiles.get((node.origin, (0, 0)), b"") != b"".join(leaves[:256])[: len(leaves) * 32]:
        found.append("I4: a tile differs from its entries")
    return found


def _accepted(node: Node) -> list[str]:
    """I6, I1: what a client was told is there, and once."""
    told = [parse_object(answer, bytes_max=65_536)["id"] for answer in node.answers.values()]
    stored = {str(id_) for id_, out in node.tables.outbox.items() if out.row.type == "trace.request"}
    found = ["I6: a message was accepted and is gone"] if set(told) - stored else []
    return found + (["I1: a message was made that no client was told of"] if stored - set(told) else [])


def _effects(asker: Node, answerer: Node) -> list[str]:
    """I1, I12: every request was worked on, is answered once, and both ends know it."""
    answers = Counter(row.thread for row in asker.tables.inbox.values() if row.type == "trace.response")
    found = []
    for id_, out in asker.tables.outbox.items():
        if out.row.type != "trace.request":
            continue
        if id_ not in answerer.effects or answers[out.row.thread] != 1:
            found.append(f"I1: a request was answered {answers[out.row.thread]} times")
        legs = (
            asker.tables.legs.get((out.row.thread, answerer.name)),
            answerer.tables.legs.get((out.row.thread, asker.name)),
        )
        states = [leg and (leg.state, leg.messages) for leg in legs]
        if states != [("ANSWERED", 2)] * 2:
            found.append(f"I12: the two ends of a thread are {states}")
    return found


def _receipts(view: Any, views: dict[str, Any]) -> list[str]:
    """I5: whatever an entry says of another ledger stands there."""
    ledgers = {each.origin: each for each in views.values()}
    found = []
    for entry in view.parsed:
        if entry.peer is None:
            continue
        theirs = ledgers[entry.peer.origin]
        if entry.peer.index >= len(theirs.leaves) or theirs.leaves[entry.peer.index] != entry.peer.leaf:
            found.append(f"I5: a {entry.kind} names an entry that does not stand there")
            continue
        named = theirs.parsed[entry.peer.index]
        if (named.id, named.envelope) != (entry.id, entry.envelope):
            found.append(f"I5: a {entry.kind} is of another message")
        if entry.kind == "receipt" and (named.kind, named.peer and named.peer.origin) != ("received", view.origin):
            found.append(f"I7: a receipt names {named.kind}")
    return found
