"""Reading what is committed: checkpoints, tiles and entry bundles of our ledgers, notes of foreign ones."""

from hashlib import sha256

from gateway.services.prove import Release, witnessed
from protocols.directory import Directory
from protocols.ledger.merkle import HASH_BYTES
from protocols.ledger.tiles import ENTRIES, WIDTH, encode_bundle, parse_tile_path, tile_width
from protocols.ports.store import (
    ExchangeStore,
    LedgerStore,
)
from protocols.problems import ProblemError


def log_name(origin: str) -> str:
    """How an origin is named in URLs: hex SHA-256."""
    return sha256(origin.encode()).hexdigest()


class LedgerView:
    """Serves C2SP tlog-tiles from the store."""

    def __init__(self, ledger: LedgerStore, exchange: ExchangeStore, release: Release) -> None:
        self._ledger, self._exchange, self._release = ledger, exchange, release

    async def _origin(self, log: str) -> str:
        for origin in await self._ledger.heads():
            if log_name(origin) == log:
                return origin
        raise ProblemError("http.not_found", "no ledger of ours has this name")

    async def own_note(self, log: str) -> bytes:
        """Our newest signed checkpoint; `ledger.not_ready` before the first."""
        checkpoint = await self._release.checkpoint(await self._origin(log))
        if checkpoint is None:
            raise ProblemError("ledger.not_ready", "the ledger has no entry yet")
        return checkpoint.note

    async def note_of(self, log: str, directory: Directory) -> bytes | None:
        """The newest note we hold of any ledger of the directory, ours too."""
        for origin in directory.ledgers:
            if log_name(origin) == log:
                own = await self._release.checkpoint(origin)
                return own.note if own else await self._exchange.foreign_note(origin)
        return None

    async def witnessed_note(self, log: str, directory: Directory) -> bytes:
        """Our newest checkpoint with a quorum of cosignatures, else with the most; `http.not_found` where nobody cosigned one."""
        origin = await self._origin(log)
        newest = await self._release.checkpoint(origin)
        quorum = directory.quorum_of(origin.rpartition("/")[0])
        found = await witnessed(self._ledger, origin, newest.size, quorum) if newest else None
        if found is None:
            raise ProblemError("http.not_found", "nobody has cosigned this ledger yet")
        return found.note

    async def tile(self, log: str, path: str) -> bytes:
        """A tile or entry bundle by its C2SP path; `tile.missing` above the newest checkpoint or for width 0."""
        origin = await self._origin(log)
        tile, width = parse_tile_path(path)
        checkpoint = await self._release.checkpoint(origin)
        if checkpoint is None or width > tile_width(tile, checkpoint.size):
            raise ProblemError("tile.missing", "the ledger has not grown that far")
        if tile[0] == ENTRIES:
            start = tile[1] * WIDTH
            return encode_bundle(await self._ledger.entries(origin, start, start + width))
        data = (await self._ledger.tiles(origin, [tile]))[tile]
        return data[: width * HASH_BYTES]  # a partial tile is a prefix of the full one
