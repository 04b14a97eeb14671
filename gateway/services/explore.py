"""Reads a ledger for an auditor: what is shown is proven under the signed checkpoint first, wherever it came from."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from protocols.ledger.checkpoint import Checkpoint, LedgerKeys, read_checkpoint, signature_by, verify_checkpoint
from protocols.ledger.entry import Entry, parse_entry
from protocols.ledger.merkle import consistency_path, inclusion_path, leaf_hash, verify_consistency, verify_inclusion
from protocols.ledger.note import VerifierKey, cosigned_at
from protocols.ledger.tiles import (
    ENTRIES,
    WIDTH,
    TileId,
    TileReader,
    TilesWanted,
    parse_bundle,
    parse_tile_path,
    tile_path,
    tile_width,
)
from protocols.ports.crypto import Verifier
from protocols.ports.ledgers import LedgerSource
from protocols.problems import ProblemError

SCANNED_MAX = 20_000
"""Entries that one page looks at; then it says where to go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """An entry with its place, proven; `entry` is None where its bytes are no entry that this version reads."""

    index: int
    data: bytes
    entry: Entry | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which entries are looked for; empty: any. `ids` are those of a thread's messages; `until` is the last day."""

    kind: str = ""
    member: str = ""
    code: str = ""
    since: date | None = None
    until: date | None = None
    ids: frozenset[UUID] | None = None

    def fits(self, entry: Entry | None) -> bool:
        """Whether this is one."""
        if entry is None:
            return self == Wanted()
        return (
            self.kind in ("", entry.kind)
            and (not self.member or self.member in (entry.sender, entry.recipient, entry.via))
            and (not self.code or (entry.code or "").startswith(self.code))
            and (self.since is None or entry.at.date() >= self.since)
            and (self.until is None or entry.at.date() <= self.until)
            and (self.ids is None or entry.id in self.ids)
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
class Cosigned:
    """The newest checkpoint that others have cosigned: how far, who, and when last; `wrong` says why it does not fit what is shown.

    `enough`: they are as many as are demanded.
    """

    note: bytes
    size: int
    names: Sequence[str]
    wrong: str
    enough: bool
    at: datetime | None = None

    def grade(self, index: int) -> str:
        """Of an entry: `witnessed` where others have cosigned a tree that holds it, else `signed`."""
        return "witnessed" if self.names and not self.wrong and index < self.size else "signed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Counts over the entries [first, end): kinds, members, days."""

    first: int
    end: int
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

    async def witnesses(self) -> Mapping[str, Sequence[VerifierKey]]:
        """Whose cosignatures count."""
        return await self._source.witnesses()

    async def checkpoint(self, origin: str) -> Checkpoint:
        """The newest one, both signatures verified; `proof.policy` else."""
        return verify_checkpoint(await self._source.note(origin), await self.keys(origin), self._verifier)

    async def witnessed(self, origin: str) -> Cosigned:
        """What other members have cosigned, beside the tree that is shown."""
        keys = await self.keys(origin)
        note = await self._source.witnessed(origin)
        checkpoint = await self.checkpoint(origin)
        if note is None:
            return Cosigned(note=b"", size=0, names=(), wrong="", enough=False)
        cosigned, parsed = read_checkpoint(note)
        lines = {
            name: [signature_by(key, cosigned, parsed, self._verifier) for key in keys_]
            for name, keys_ in (await self.witnesses()).items()
        }
        names = tuple(name for name, found in lines.items() if all(found))
        times = [cosigned_at(line) for name in names for line in lines[name] if line]
        wrong = ""
        try:
            verify_checkpoint(note, keys, self._verifier)
            wrong = (
                "" if await self._leads(cosigned, checkpoint) else "it is of another history than the one that is shown"
            )
        except ProblemError as problem:
            wrong = problem.detail
        if cosigned.size > checkpoint.size:
            wrong = "it is of more entries than are shown: some were taken away"
        return Cosigned(
            note=note, size=cosigned.size, names=names, wrong=wrong if names else "", at=max(times, default=None),
            enough=await self._source.enough(origin, note, names),
        )  # fmt: skip

    async def _leads(self, old: Checkpoint, new: Checkpoint) -> bool:
        """Whether the tree of one goes on to that of the other."""
        if not 0 < old.size < new.size:
            return (old.size, old.root) == (new.size, new.root)
        wanted = TilesWanted()
        consistency_path(old.size, new.size, wanted.node)
        reader = TileReader(await self._tiles(new, wanted.tiles))
        try:
            path = consistency_path(old.size, new.size, reader.node)
        except (KeyError, IndexError):
            raise ProblemError("tile.missing", "a tile is cut short") from None
        return verify_consistency(old=old.size, new=new.size, old_root=old.root, new_root=new.root, path=path)

    async def _tiles(self, checkpoint: Checkpoint, wanted: Iterable[TileId]) -> dict[TileId, bytes]:
        origin, size = checkpoint.origin, checkpoint.size
        return {each: await self._source.tile(origin, tile_path(each, tile_width(each, size))) for each in wanted}

    async def tile(self, origin: str, path: str) -> bytes:
        """The bytes of a tile or bundle, for the browser to verify; `tile.missing` for what is no C2SP path."""
        await self.keys(origin)
        parse_tile_path(path)
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
        return Proven(logged=_logged(index, data), checkpoint=checkpoint, path=path_of(index))

    async def figures(self, origin: str, before: int | None) -> Figures:
        """What the newest 20,000 entries below index `before` are."""
        checkpoint = await self.checkpoint(origin)
        kinds, members, days = Counter[str](), Counter[str](), Counter[str]()
        owner = origin.rpartition("/")[0]
        first = end = checkpoint.size if before is None else min(before, checkpoint.size)
        async for logged in self._backwards(checkpoint, end):
            if end - first == SCANNED_MAX:
                break
            first, entry = logged.index, logged.entry
            if entry is None:
                continue
            kinds[entry.kind] += 1
            days[str(entry.at.date())] += 1
            members.update(name for name in {entry.sender, entry.recipient} if name not in (owner, None))
        return Figures(first=first, end=end, kinds=kinds, members=members, days=days)

    async def _backwards(self, checkpoint: Checkpoint, end: int) -> AsyncIterator[Logged]:
        for bundle in range((end - 1) // WIDTH, -1, -1):
            entries, _ = await self._bundle(checkpoint, bundle)
            for index in range(min(end, bundle * WIDTH + len(entries)) - 1, bundle * WIDTH - 1, -1):
                data = entries[index % WIDTH]
                yield _logged(index, data)

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
        tiles |= await self._tiles(checkpoint, wanted.tiles - tiles.keys())
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


def _logged(index: int, data: bytes) -> Logged:
    try:
        return Logged(index=index, data=data, entry=parse_entry(data))
    except ProblemError:
        return Logged(index=index, data=data, entry=None)
