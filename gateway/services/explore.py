"""Reads a ledger for an auditor: what is shown is proven under the signed checkpoint first, wherever it came from."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from protocols.ledger.checkpoint import Checkpoint, LedgerKeys, read_checkpoint, signature_by, verify_checkpoint
from protocols.ledger.entry import Entry, parse_entry
from protocols.ledger.merkle import inclusion_path, leaf_hash, verify_inclusion
from protocols.ledger.note import VerifierKey
from protocols.ledger.tiles import ENTRIES, WIDTH, TileReader, TilesWanted, parse_bundle, tile_path, tile_width
from protocols.ports.crypto import Verifier
from protocols.ports.ledgers import LedgerSource
from protocols.problems import ProblemError

SCANNED_MAX = 20_000
"""Entries that one page looks at; then it says where to go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """An entry with its place, proven."""

    index: int
    data: bytes
    entry: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which entries are looked for; empty: any. `ids` are those of a thread's messages."""

    kind: str = ""
    member: str = ""
    code: str = ""
    since: datetime | None = None
    until: datetime | None = None
    ids: frozenset[UUID] = frozenset()

    def fits(self, entry: Entry) -> bool:
        """Whether this is one."""
        return (
            self.kind in ("", entry.kind)
            and (not self.member or self.member in (entry.sender, entry.recipient, entry.via))
            and (not self.code or (entry.code or "").startswith(self.code))
            and (self.since is None or entry.at >= self.since)
            and (self.until is None or entry.at < self.until)
            and (not self.ids or entry.id in self.ids)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Entries, the newest first; `before` is where to go on, None at the beginning of the ledger."""

    checkpoint: Checkpoint
    found: Sequence[Logged]
    looked_at: int
    before: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """An entry with what proves it: its path, leaf to root, under the checkpoint."""

    logged: Logged
    checkpoint: Checkpoint
    path: Sequence[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Counts over the newest entries: kinds, members, days."""

    entries: int
    kinds: Counter[str]
    members: Counter[str]
    days: Counter[str]


class Explore:
    """A ledger is read backwards, bundle by bundle; every bundle is hashed and proven before anything of it is shown."""

    def __init__(self, source: LedgerSource, verifier: Verifier) -> None:
        self._source, self._verifier = source, verifier

    async def ledgers(self) -> Mapping[str, LedgerKeys]:
        """Which ledgers there are, with the keys that they must be signed with."""
        return await self._source.ledgers()

    async def keys(self, origin: str) -> LedgerKeys:
        """Those of one ledger; `http.not_found`."""
        found = (await self.ledgers()).get(origin)
        if found is None:
            raise ProblemError("http.not_found", "no such ledger here")
        return found

    async def witnesses(self) -> Mapping[str, VerifierKey]:
        """Whose cosignatures count."""
        return await self._source.witnesses()

    async def checkpoint(self, origin: str) -> Checkpoint:
        """The newest one, both signatures verified; `proof.policy` else."""
        return verify_checkpoint(await self._source.note(origin), await self.keys(origin), self._verifier)

    async def witnessed(self, origin: str) -> tuple[int, list[str]]:
        """How far other members have cosigned, and who."""
        note = await self._source.witnessed(origin)
        if note is None:
            return 0, []
        checkpoint = verify_checkpoint(note, await self.keys(origin), self._verifier)
        keys = await self.witnesses()
        _, parsed = read_checkpoint(note)
        names = [name for name, key in keys.items() if signature_by(key, checkpoint, parsed, self._verifier)]
        return (checkpoint.size, names) if names else (0, [])

    async def note(self, origin: str, *, witnessed: bool = False) -> bytes:
        """The bytes of it, for the browser to verify; `http.not_found` where nobody witnessed."""
        note = await self._source.witnessed(origin) if witnessed else await self._source.note(origin)
        if note is None:
            raise ProblemError("http.not_found", "nobody has cosigned this ledger yet")
        return note

    async def tile(self, origin: str, path: str) -> bytes:
        """Likewise of a tile or bundle."""
        await self.keys(origin)
        return await self._source.tile(origin, path)

    async def page(self, origin: str, wanted: Wanted, *, before: int | None, count: int) -> Page:
        """Up to `count` entries below index `before` that fit, of at most 20,000 looked at."""
        checkpoint = await self.checkpoint(origin)
        end = checkpoint.size if before is None else min(before, checkpoint.size)
        found: list[Logged] = []
        at = end
        async for logged in self._backwards(checkpoint, end):
            if len(found) == count or end - at == SCANNED_MAX:
                break
            at = logged.index
            if wanted.fits(logged.entry):
                found.append(logged)
        return Page(checkpoint=checkpoint, found=found, looked_at=end - at, before=at or None)

    async def entry(self, origin: str, index: int) -> Proven:
        """One entry with its inclusion path; `tile.missing` past the end."""
        checkpoint = await self.checkpoint(origin)
        if not 0 <= index < checkpoint.size:
            raise ProblemError("tile.missing", f"the ledger has the entries 0 to {checkpoint.size - 1}")
        entries, path_of = await self._bundle(checkpoint, index // WIDTH)
        data = entries[index % WIDTH]
        logged = Logged(index=index, data=data, entry=parse_entry(data))
        return Proven(logged=logged, checkpoint=checkpoint, path=path_of(index))

    async def figures(self, origin: str) -> Figures:
        """What the newest 20,000 entries are."""
        checkpoint = await self.checkpoint(origin)
        kinds, members, days = Counter[str](), Counter[str](), Counter[str]()
        owner, entries = origin.rpartition("/")[0], 0
        async for logged in self._backwards(checkpoint, checkpoint.size):
            if entries == SCANNED_MAX:
                break
            entry, entries = logged.entry, entries + 1
            kinds[entry.kind] += 1
            days[str(entry.at.date())] += 1
            members.update(name for name in {entry.sender, entry.recipient} if name not in (owner, None))
        return Figures(entries=entries, kinds=kinds, members=members, days=days)

    async def _backwards(self, checkpoint: Checkpoint, end: int) -> AsyncIterator[Logged]:
        for bundle in range((end - 1) // WIDTH, -1, -1):
            entries, _ = await self._bundle(checkpoint, bundle)
            for index in range(min(end, bundle * WIDTH + len(entries)) - 1, bundle * WIDTH - 1, -1):
                data = entries[index % WIDTH]
                yield Logged(index=index, data=data, entry=parse_entry(data))

    async def _bundle(
        self, checkpoint: Checkpoint, bundle: int
    ) -> tuple[Sequence[bytes], Callable[[int], Sequence[bytes]]]:
        """A bundle's entries, proven, and the path of each.

        The lowest tile is made of the entries and never fetched: the path of its first leaf then binds all the others.
        """
        origin, size, first = checkpoint.origin, checkpoint.size, bundle * WIDTH
        tile = ENTRIES, bundle
        data = await self._source.tile(origin, tile_path(tile, tile_width(tile, size)))
        entries = list(parse_bundle(data))
        if len(entries) != tile_width(tile, size):
            raise ProblemError("tile.missing", f"the bundle of entry {first} has not the entries that it should have")
        wanted = TilesWanted()
        inclusion_path(first, size, wanted.node)
        tiles = {(0, bundle): b"".join(leaf_hash(entry) for entry in entries)}
        for each in wanted.tiles - tiles.keys():
            tiles[each] = await self._source.tile(origin, tile_path(each, tile_width(each, size)))
        node = TileReader(tiles).node

        def path_of(index: int) -> Sequence[bytes]:
            return inclusion_path(index, size, node)

        try:
            path = path_of(first)
        except (KeyError, IndexError):
            raise ProblemError("tile.missing", "a tile is cut short") from None
        if not verify_inclusion(leaf=leaf_hash(entries[0]), index=first, size=size, path=path, root=checkpoint.root):
            raise ProblemError(
                "proof.path", f"the entries {first} to {first + len(entries) - 1} do not give the root that was signed"
            )
        return entries, path_of
