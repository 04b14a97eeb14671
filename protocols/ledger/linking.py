"""Linking checkpoints of one foreign ledger: one rule for every way they come (docs/protocol.md section 4)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from protocols.ledger.merkle import verify_consistency

Roots = Mapping[int, bytes]
"""size -> root"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A consistency path from a smaller tree of a ledger to a larger one, unsigned."""

    old: int
    new: int
    path: tuple[bytes, ...]


def chain(named: Iterable[int], size: int) -> list[tuple[int, int]]:
    """(old, new) steps along the ascending sizes that a peer named, up to our checkpoint; sizes above it are left out."""
    sizes = sorted({at for at in named if 0 <= at < size} | {size})
    return list(pairwise(sizes))


def follow(linked: int, held: Roots, links: Sequence[Link]) -> tuple[list[int], list[Link]]:
    """Sizes newly linked, and the links that could be checked and do not hold.

    `linked` is the newest linked size (at first 0), `held` the root of it and of every unlinked size. Forward only the
    newest linked one leads on, else a fork behind it would pass; a smaller size is linked by a path to a linked one.
    """
    known, failing = {linked}, list[Link]()

    def holds(link: Link) -> bool:
        good = verify_consistency(
            old=link.old, new=link.new, old_root=held[link.old], new_root=held[link.new], path=link.path
        )
        failing.extend([] if good else [link])
        return good

    ascending = sorted(  # by all of a link: what is linked must not hang on the order in which links came
        (link for link in links if link.old in held and link.new in held),
        key=lambda each: (each.old, each.new, each.path),
    )
    for link in ascending:
        if link.old == max(known) < link.new and holds(link):
            known.add(link.new)
    for link in reversed(ascending):
        if 0 < link.old < link.new and link.new in known and link.old not in known and holds(link):
            known.add(link.old)
    return sorted(known - {linked}), failing
