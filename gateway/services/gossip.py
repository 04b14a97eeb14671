"""Gossip: what other members hold of a third one's ledger, held against what we hold, so that nobody is shown a history of his own."""

import asyncio
from collections.abc import Iterable

import structlog

from gateway.services.link import Linking
from gateway.services.submit import current
from protocols.directory import Directory, Record
from protocols.ledger.merkle import HASH_BYTES, Node, consistency_path
from protocols.ledger.tiles import TileReader, TilesWanted, tile_path, tile_width
from protocols.ports.crypto import Sealer
from protocols.ports.directory import DirectorySource
from protocols.ports.store import ExchangeStore
from protocols.ports.transport import Transport
from protocols.problems import ProblemError

_log = structlog.get_logger()
_EVERY_S = 3_600.0
_ASKED_S = 30  # one member, about one ledger


class Gossip:
    """Each hour one member, by chance, is asked about each ledger that we hold something of."""

    def __init__(
        self,
        *,
        member: str,
        directory: DirectorySource,
        store: ExchangeStore,
        linking: Linking,
        transport: Transport,
        sealer: Sealer,
    ) -> None:
        self._member, self._directory, self._store = member, directory, store
        self._linking, self._transport, self._sealer = linking, transport, sealer

    async def run(self) -> None:
        """Asks until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_S)
            try:
                await self.ask()
            except Exception:  # the store may be away for a while; the next round tries again
                _log.exception("gossip_failed")

    async def ask(self) -> int:
        """How many ledgers somebody else's word was held against."""
        directory, count = current(self._directory), 0
        for origin, ledger in directory.ledgers.items():
            if ledger.member == self._member or ledger.state != "open" or not (await self._store.held(origin)).linked:
                continue
            others = [name for name in directory.listening() if name not in (self._member, ledger.member)]
            if not others:
                continue
            peer = others[int.from_bytes(self._sealer.random(4), "big") % len(others)]
            try:
                async with asyncio.timeout(_ASKED_S):
                    count += await self._about(origin, directory.records[peer], directory)
            except (ProblemError, TimeoutError) as error:
                _log.warning("gossip", peer=peer, origin=origin, code=getattr(error, "code", "peer.answer"))
        return count

    async def _about(self, origin: str, peer: Record, directory: Directory) -> bool:
        """Whether the peer holds anything; `ledger.split_view` and `checkpoint.links` are alarms about the ledger's owner."""
        note = await self._transport.checkpoint(peer, origin)
        if note is None:
            return False
        heard = self._linking.heard(origin, note, directory)
        held = await self._linking.one_root(heard)
        if heard.size in (held.linked, 0):
            return True
        old, new = sorted((held.linked, heard.size))
        owner = directory.records[directory.ledgers[origin].member]
        node = await foreign_node(self._transport, owner, origin, [(old, new)])
        path = tuple(consistency_path(old, new, node))
        if heard.size == new:
            await self._linking.advance(heard, old, path, directory)
        else:
            await self._linking.precedes(heard, new, path)
        return True


async def foreign_node(transport: Transport, owner: Record, origin: str, steps: Iterable[tuple[int, int]]) -> Node:
    """Hashes of a foreign tree for consistency paths along these (old, new) sizes, out of its owner's tiles: nobody has verified them."""
    wanted, size = TilesWanted(), 0
    for old, new in steps:
        consistency_path(old, new, wanted.node)
        size = max(size, new)
    tiles = {}
    for tile in wanted.tiles:
        width = tile_width(tile, size)
        data = await transport.tile(owner, origin, tile_path(tile, width))
        if data is None or len(data) != width * HASH_BYTES:
            raise ProblemError("peer.answer", "the peer does not have a tile of its own ledger")
        tiles[tile] = data
    return TileReader(tiles).node
