"""Builds proofs and links of our own ledger from its stored tiles."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol
from uuid import UUID

from gateway.services.commit import Done
from protocols.ledger.checkpoint import Checkpoint
from protocols.ledger.entry import Entry, parse_entry
from protocols.ledger.linking import Link, chain
from protocols.ledger.merkle import Node, consistency_path, inclusion_path
from protocols.ledger.proof import Place
from protocols.ledger.tiles import WIDTH, TileId, TileReader, TilesWanted, place, tile_width
from protocols.limits import NOTE_SIGNATURES_MAX
from protocols.ports.crypto import Guard
from protocols.ports.store import (
    LedgerStore,
)
from protocols.problems import ProblemError


class Standing(Protocol):
    """What names an entry of ours."""

    @property
    def origin(self) -> str:
        """Its ledger."""
        ...

    @property
    def index(self) -> int:
        """Its index there."""
        ...


_TILES_MAX = 1_024  # kept in memory with their inner hashes: at most 45 KiB each
_TRIES_MAX, _WAIT_S = 100, 0.05


class Release:
    """Lets our checkpoints out once the guard remembers them: it is raised after COMMIT (docs/protocol.md section 6).

    A halted node has nothing to protect any more: what its database holds is shown, and nothing new is signed.
    """

    def __init__(self, store: LedgerStore, guard: Guard, halted: Callable[[], bool]) -> None:
        self._store, self._guard, self._halted = store, guard, halted
        self._sizes: dict[str, int] = {}

    async def checkpoint(self, origin: str, size: int | None = None) -> Checkpoint | None:
        """The newest checkpoint, or that of a size; `store.busy` where the guard stays behind it."""
        found = await self._store.checkpoint(origin, size)
        if found is None:
            return None
        for _ in range(_TRIES_MAX):
            if self._halted() or found.size <= self._sizes.get(origin, 0):
                return found
            mark = await asyncio.to_thread(self._guard.read, origin)
            if mark is not None and mark.size >= found.size:
                self._sizes[origin] = mark.size
                return found
            await asyncio.sleep(_WAIT_S)
        raise ProblemError("store.busy", "the guard does not remember this size yet")

    async def remembered(self, origin: str) -> Checkpoint | None:
        """The checkpoint that the guard itself remembers, which nobody makes by writing to the database; None where that does not hold it."""
        if await asyncio.to_thread(self._guard.read, origin) is None:  # `recover` makes that of the ledger in use alone
            return None
        await self.checkpoint(origin)  # it has caught up
        mark = await asyncio.to_thread(self._guard.read, origin)
        found = await self._store.checkpoint(origin, mark.size) if mark else None
        return found if mark and found and found.root == mark.root else None


class Prove:
    """Inclusion and consistency proofs under signed checkpoints; a tile of one width never changes, so it is kept."""

    def __init__(self, store: LedgerStore, release: Release) -> None:
        self._store, self._release = store, release
        self._kept: dict[
            tuple[str, TileId, int], TileReader
        ] = {}  # by ledger, tile and width; what was used last, last

    async def newest(self, origin: str) -> Checkpoint:
        """Our newest signed checkpoint; `ledger.not_ready` where there is none."""
        checkpoint = await self._release.checkpoint(origin)
        if checkpoint is None:
            raise ProblemError("ledger.not_ready", "the ledger has no entry yet")
        return checkpoint

    async def at(self, origin: str, size: int) -> Checkpoint:
        """Our signed checkpoint of exactly this size; `tile.missing` where none was signed."""
        checkpoint = await self._release.checkpoint(origin, size)
        if checkpoint is None:
            raise ProblemError("tile.missing", "no checkpoint of this size")
        return checkpoint

    async def places(self, checkpoint: Checkpoint, entries: Mapping[int, bytes]) -> dict[int, Place]:
        """The places of entries by index under a checkpoint of ours that covers them; `ledger.tile_corrupt` where one does not hold."""
        wanted = TilesWanted()
        for index in {index // WIDTH: index for index in entries}.values():  # those of one tile need the same ones
            inclusion_path(index, checkpoint.size, wanted.node)
        node = await self._node(checkpoint, wanted.tiles)
        places = {
            index: Place(
                origin=checkpoint.origin,
                size=checkpoint.size,
                index=index,
                path=tuple(inclusion_path(index, checkpoint.size, node)),
                entry=entry,
            )
            for index, entry in entries.items()
        }
        try:
            for place in places.values():
                place.check(checkpoint)
        except ProblemError as problem:  # a wrong proof would make us look like a liar to whoever gets it
            self._kept.clear()
            raise ProblemError(
                "ledger.tile_corrupt", "a stored tile or entry does not give the signed root"
            ) from problem
        return places

    async def places_at(self, checkpoint: Checkpoint, indexes: Iterable[int]) -> dict[int, Place]:
        """As `places`, reading the entries too."""
        entries = {index: await self.entry(checkpoint.origin, index) for index in set(indexes)}
        return await self.places(checkpoint, entries)

    async def about(self, ids: Sequence[UUID], kind: str) -> list[Entry]:
        """The entries of a kind in our ledgers about messages or approvals: proven, by what the guard remembers."""
        found: list[Entry] = []
        for origin in await self._store.heads():
            entries = await self._store.entries_about(origin, ids, kind=kind)
            under = await self._release.remembered(origin) if entries else None
            if under is not None:
                held = {index: entry for index, entry in entries.items() if index < under.size}
                found += [parse_entry(place.entry) for place in (await self.places(under, held)).values()]
        return found

    async def under_one(
        self, standing: Sequence[Done | Standing]
    ) -> tuple[dict[tuple[str, int], Place], dict[tuple[str, int], bytes]]:
        """Entries of ours by (origin, index), each ledger's under one checkpoint; and those checkpoints' notes."""
        places: dict[tuple[str, int], Place] = {}
        notes: dict[tuple[str, int], bytes] = {}
        for origin in {each.origin for each in standing}:
            ours = [each for each in standing if each.origin == origin]
            fresh = {each.index: each.proofs for each in ours if isinstance(each, Done)}
            batches = {proofs.checkpoint.size: proofs for proofs in fresh.values()}
            old = {each.index for each in ours} - fresh.keys()
            if len(batches) == 1 and not old:  # one batch took them all
                proofs = next(iter(batches.values()))
                checkpoint, found = proofs.checkpoint, {index: proofs.place(index) for index in fresh}
            else:
                checkpoint = await self.newest(origin)
                entries = {index: proofs.entries[index] for index, proofs in fresh.items()}
                entries |= {index: await self.entry(origin, index) for index in old}
                found = await self.places(checkpoint, entries)
            notes[origin, checkpoint.size] = checkpoint.note
            places |= {(origin, index): place for index, place in found.items()}
        return places, notes

    async def links_of(
        self, notes: Collection[tuple[str, int]], named: Mapping[str, Sequence[int]]
    ) -> dict[str, tuple[Link, ...]]:
        """Links of each of these ledgers up to its newest checkpoint here, along the sizes named of it and those here."""
        newest: dict[str, int] = {}
        for origin, size in notes:
            newest[origin] = max(size, newest.get(origin, 0))
        links = {}
        for origin, size in newest.items():
            sizes = {*(named.get(origin) or (0,)), *(at for held, at in notes if held == origin)}
            links[origin] = await self.links(await self.at(origin, size), sizes)
        return links

    async def last(self, origin: str, count: int) -> tuple[Checkpoint, dict[int, bytes]]:
        """Our newest signed checkpoint, and up to `count` entries before it by index."""
        checkpoint = await self.newest(origin)
        start = max(0, checkpoint.size - count)
        entries = await self._store.entries(origin, start, checkpoint.size)
        return checkpoint, dict(enumerate(entries, start))

    async def entry(self, origin: str, index: int) -> bytes:
        """One entry of ours."""
        return (await self._store.entries(origin, index, index + 1))[0]

    async def links(self, checkpoint: Checkpoint, named: Iterable[int]) -> tuple[Link, ...]:
        """Consistency paths along the sizes that a peer named, up to the checkpoint."""
        steps = chain(named, checkpoint.size)
        wanted = TilesWanted()
        for old, new in steps:
            consistency_path(old, new, wanted.node)
        node = await self._node(checkpoint, wanted.tiles)
        return tuple(Link(old=old, new=new, path=tuple(consistency_path(old, new, node))) for old, new in steps)

    async def consistency(self, checkpoint: Checkpoint, old: int) -> tuple[bytes, ...]:
        """The path from the tree of `old` entries to the checkpoint's."""
        return (
            next((link.path for link in await self.links(checkpoint, [old])), ()) if 0 < old < checkpoint.size else ()
        )

    async def _node(self, checkpoint: Checkpoint, wanted: set[TileId]) -> Node:
        keys = {tile: (checkpoint.origin, tile, tile_width(tile, checkpoint.size)) for tile in wanted}
        found = {tile: self._kept.pop(key) for tile, key in keys.items() if key in self._kept}
        self._kept |= {keys[tile]: reader for tile, reader in found.items()}
        missing = [tile for tile in wanted if tile not in found]
        if missing:
            stored = await self._store.tiles(checkpoint.origin, missing)
            read = {tile: TileReader({tile: data}) for tile, data in stored.items()}
            found |= read
            self._kept |= {keys[tile]: reader for tile, reader in read.items()}
            while len(self._kept) > _TILES_MAX:
                del self._kept[next(iter(self._kept))]
        return lambda level, index: found[place(level, index)[0]].node(level, index)


async def witnessed(store: LedgerStore, origin: str, most: int, quorum: int) -> Checkpoint | None:
    """The newest checkpoint of ours up to size `most` that a quorum cosigned, else that of the most, with their lines; None of none.

    A note has room for seven witnesses.
    """
    size = await store.witnessed(origin, most, quorum)
    found = await store.checkpoint(origin, size) if size else None
    if found is None:
        return None
    lines = list((await store.cosignatures(origin, size)).values())[: (NOTE_SIGNATURES_MAX - 2) // 2]
    return replace(found, note=found.note + b"".join(lines))
