"""Recompute: are the entries of our ledgers those that were signed? Whoever may write to the database may change them behind our back."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from gateway.services.link import Linking
from protocols.directory import year_and_number
from protocols.ledger.checkpoint import Checkpoint
from protocols.ledger.merkle import HASH_BYTES, leaf_hash
from protocols.ledger.tiles import WIDTH, Edge, TileId
from protocols.ports.store import LedgerStore

_log = structlog.get_logger()
_FIRST_S, _EVERY_S = 10.0, 3_600.0
_BREATH_S = 0.005  # between two bundles, so that nobody waits for this


@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputed:
    """What a ledger's entries give: whether the signed root, which tiles differ (as they stand, as they should be).

    `first` is the index of the first entry that is not the one of its tile or is missing; None where all agree.
    """

    holds: bool
    wrong: Mapping[TileId, tuple[bytes | None, bytes]]
    first: int | None

    @property
    def code(self) -> str | None:
        """The problem; None where all is as it was signed."""
        if not self.holds:
            return "ledger.entry_changed"
        return "ledger.tile_corrupt" if self.wrong else None


async def recompute(store: LedgerStore, newest: Checkpoint, *, breath_s: float = 0.0) -> Recomputed:
    """A ledger up to a checkpoint of ours, bundle by bundle, in bounded memory."""
    edge, wrong = Edge(0, {}), dict[TileId, tuple[bytes | None, bytes]]()
    first: int | None = None
    for begin in range(0, newest.size, WIDTH):
        entries = await store.entries(newest.origin, begin, min(begin + WIDTH, newest.size))
        leaves = [leaf_hash(entry) for entry in entries]
        right = edge.append(leaves)
        full = {tile: data for tile, data in right.items() if len(data) == WIDTH * HASH_BYTES}
        last = edge.tiles() if edge.size == newest.size else {}
        standing = await store.tiles(newest.origin, [(0, begin // WIDTH), *full, *last])
        if first is None:
            first = _first_other(leaves, standing.get((0, begin // WIDTH), b""), begin)
        for tile, ours in (full | last).items():
            if (found := standing.get(tile)) is None or found[: len(ours)] != ours:
                wrong[tile] = found, ours
        if edge.size < min(begin + WIDTH, newest.size):
            return Recomputed(holds=False, wrong={}, first=edge.size if first is None else first)
        await asyncio.sleep(breath_s)
    return Recomputed(holds=edge.root() == newest.root, wrong=wrong, first=first)


def _first_other(leaves: list[bytes], tile: bytes, begin: int) -> int | None:
    for n, leaf in enumerate(leaves):
        if tile[n * HASH_BYTES : (n + 1) * HASH_BYTES] != leaf:
            return begin + n
    return None


class Recomputing:
    """Looks through every ledger of ours each hour; what differs is an alarm until it is put right."""

    def __init__(self, store: LedgerStore, linking: Linking) -> None:
        self._store, self._linking = store, linking

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.sleep(_FIRST_S)
        while True:
            try:
                await self.look(breath_s=_BREATH_S)
            except Exception:  # the store may be away for a while; the next round tries again
                _log.exception("not_recomputed")
            await asyncio.sleep(_EVERY_S)

    async def look(self, *, breath_s: float = 0.0) -> None:
        """Once, the newest ledger first."""
        for origin in sorted(await self._store.heads(), key=year_and_number, reverse=True):
            newest = await self._store.checkpoint(origin)
            if newest is None:
                continue
            found = await recompute(self._store, newest, breath_s=breath_s)
            if (code := found.code) is not None:
                _log.error("ledger_damaged", origin=origin, code=code, index=found.first)
                self._linking.alarms[origin] = code
            elif self._linking.alarms.get(origin) in ("ledger.tile_corrupt", "ledger.entry_changed"):
                del self._linking.alarms[origin]
