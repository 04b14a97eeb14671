"""Links checkpoints of foreign ledgers: one rule for every way they come (docs/protocol.md section 4)."""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from protocols.directory import Directory
from protocols.ledger.checkpoint import Checkpoint, parse_checkpoint, verify_checkpoint
from protocols.ledger.linking import Link, follow
from protocols.ledger.merkle import older_root, verify_consistency
from protocols.ledger.proof import Place, format_proof
from protocols.ledger.witness import format_request
from protocols.limits import EXPIRES_MAX_S, REQUEST_AHEAD_MAX_S, UNLINKED_MAX
from protocols.ports.crypto import Verifier
from protocols.ports.rows import Held
from protocols.ports.store import (
    ExchangeStore,
)
from protocols.ports.world import Clock
from protocols.problems import ProblemError
from protocols.strict import b64u

Key = tuple[str, int]
_VERIFIED_MAX = 1_024
_LONGEST, _GAPS_MAX = timedelta(seconds=EXPIRES_MAX_S), 1_000
_WATCHED = ("ledger.gap", "ledger.contradiction", "ledger.skew", "ledger.split_view")


class Linking:
    """Verifies, keeps and links what members sign about their ledgers."""

    def __init__(self, store: ExchangeStore, verifier: Verifier, clock: Clock) -> None:
        self._store, self._verifier, self._clock = store, verifier, clock
        self._verified: OrderedDict[Key, Checkpoint] = OrderedDict()
        self._locks: dict[str, asyncio.Lock] = {}
        self.alarms: dict[str, str] = {}

    async def take(
        self,
        notes: Mapping[Key, bytes],
        links: Mapping[str, Sequence[Link]],
        directory: Directory,
        *,
        about: Collection[str],
    ) -> tuple[dict[Key, Checkpoint], set[Key]]:
        """Verifies and keeps the checkpoints of a POST or answer, follows its links.

        Returns the checkpoints by (origin, size), and those for which there was no room (`checkpoint.unlinked`): the
        answer still says what is held, else the sender could never link them.

        `about` names the members whose ledgers the caller speaks for; lines about others are gossip, and links about
        others nobody's. A checkpoint that contradicts one held raises `ledger.split_view` after both notes were kept;
        of a ledger that the directory does not list, `proof.origin`; without both signatures, `proof.policy`.
        """
        for member in about if notes else ():
            await self.check_member(member, directory)
        found: dict[Key, Checkpoint] = {}
        full: set[Key] = set()
        for (origin, size), note in notes.items():
            ledger = directory.ledgers.get(origin)
            if ledger is None:
                raise ProblemError("proof.origin", "the directory does not list this ledger")
            if ledger.member not in about:
                continue
            async with self._lock(origin):
                try:
                    found[origin, size] = await self._keep(origin, size, note, directory, links.get(origin, ()))
                except ProblemError as problem:
                    if problem.code != "checkpoint.unlinked":
                        raise
                    full.add((origin, size))
        for origin in links:
            ledger = directory.ledgers.get(origin)
            if ledger is not None and ledger.member in about and ledger.state != "abandoned":
                async with self._lock(origin):
                    await self._follow(origin, links[origin])
        return found, full

    def verify(self, origin: str, size: int, note: bytes, directory: Directory) -> Checkpoint:
        """A checkpoint of two others that pass by here: its signatures hold, nothing of it is kept.

        `proof.origin` for a ledger that the directory does not list, `proof.policy` or `note.invalid` else.
        """
        before = self._verified.get((origin, size))
        if before is not None and before.note == note:
            return before
        if origin not in directory.ledgers:
            raise ProblemError("proof.origin", "the directory does not list this ledger")
        checkpoint = verify_checkpoint(note, directory.ledgers[origin].keys, self._verifier)
        if checkpoint.size != size:
            raise ProblemError("note.invalid", "the checkpoint is of another size than its line")
        if size == 0:
            raise ProblemError("note.invalid", "an empty tree is never signed")
        return checkpoint

    def _lock(self, origin: str) -> asyncio.Lock:
        """One at a time per ledger: two POSTs must not link two futures of the same size."""
        return self._locks.setdefault(origin, asyncio.Lock())

    async def check_member(self, member: str, directory: Directory) -> None:
        """`ledger.split_view` while two histories of a ledger of this member are held that nobody has abandoned."""
        for origin in await self.split(directory):
            if origin.rpartition("/")[0] == member:
                self.alarms[origin] = "ledger.split_view"
                raise ProblemError("ledger.split_view", "two histories of a ledger of this member are held")

    async def split(self, directory: Directory) -> list[str]:
        """Ledgers of which two histories are held, and that nobody has abandoned."""
        given_up = {origin for origin, ledger in directory.ledgers.items() if ledger.state == "abandoned"}
        return [each for each in await self._store.split() if each not in given_up]

    async def _keep(
        self, origin: str, size: int, note: bytes, directory: Directory, links: Sequence[Link]
    ) -> Checkpoint:
        before = self._verified.get((origin, size))
        if before is not None and before.note == note:
            await self._within(before, directory)
            return before
        checkpoint = self.verify(origin, size, note, directory)
        await self._within(checkpoint, directory)
        await self._check(checkpoint, links)
        self._verified[origin, size] = checkpoint
        if len(self._verified) > _VERIFIED_MAX:
            self._verified.popitem(last=False)
        return checkpoint

    async def _within(self, checkpoint: Checkpoint, directory: Directory) -> None:
        """`proof.origin` for what lies beyond the end of a closed or abandoned ledger, or was never seen before it."""
        ledger = directory.ledgers[checkpoint.origin]
        if ledger.last is not None and (
            checkpoint.size > ledger.last.size
            or (checkpoint.size == ledger.last.size and ledger.last.root not in (None, b64u(checkpoint.root)))
        ):
            raise ProblemError("proof.origin", "the directory lists another end of this ledger")
        if ledger.state == "abandoned" and await self._store.foreign_note(checkpoint.origin, checkpoint.size) is None:
            raise ProblemError("proof.origin", "the ledger was abandoned, and this checkpoint is new")

    async def one_history(self, places: Sequence[Place], checkpoints: Mapping[Key, Checkpoint]) -> None:
        """`ledger.split_view`, both proofs kept, where two entries are proven at one place, now or before."""
        if not places:
            return
        known = {(p.origin, p.index): p for p in places}
        for row in await self._store.proven(list(known)):
            known[row.origin, row.index] = row.place
        for place in places:
            before = known[place.origin, place.index]
            if before.entry != place.entry:
                first, second = [
                    format_proof(each, await self._note(each.origin, each.size, checkpoints))
                    for each in (before, place)
                ]
                await self._store.keep_conflict(first, second, origin=place.origin, at=self._clock.now())
                self.alarms[place.origin] = "ledger.split_view"
                raise ProblemError("ledger.split_view", "two entries are proven at one index")

    async def _note(self, origin: str, size: int, checkpoints: Mapping[Key, Checkpoint]) -> bytes:
        found = checkpoints.get((origin, size))
        return found.note if found else await self._store.foreign_note(origin, size) or b""

    def clock(self, origin: str, at: datetime, *, since: datetime | None = None) -> None:
        """Alarm `ledger.skew` where an entry that we were just shown is from our future, or of a time before it can have been made."""
        apart = max(at - self._clock.now(), since - at if since else timedelta(0))
        if apart > timedelta(seconds=REQUEST_AHEAD_MAX_S):
            self.alarms.setdefault(origin, "ledger.skew")

    async def watch(self, directory: Directory) -> None:
        """Alarms of what ledgers leave out, or say against each other, our own too: another process may have found it.

        One of a clock is given again by what comes next.
        """
        now = self._clock.now()
        gaps = [gap.origin for gap in await self._store.gaps(_GAPS_MAX) if now - gap.since > _LONGEST]
        found = dict.fromkeys(gaps, "ledger.gap")
        twice = [each.origin for each in await self._store.contradictions(_GAPS_MAX)]
        found |= dict.fromkeys(twice, "ledger.contradiction")
        split = dict.fromkeys(await self.split(directory), "ledger.split_view")
        self.alarms |= split
        found |= split
        for origin in [each for each, code in self.alarms.items() if code in _WATCHED and code != found.get(each)]:
            del self.alarms[origin]
        for origin, code in found.items():
            self.alarms.setdefault(origin, code)

    async def _check(self, checkpoint: Checkpoint, links: Sequence[Link]) -> None:
        """Keeps it, or proves that it contradicts the one that stands."""
        origin, at = checkpoint.origin, self._clock.now()
        if await self._store.foreign_note(origin, checkpoint.size) is None:
            held = await self._store.held(origin)
            if len(held.unlinked) >= UNLINKED_MAX:  # the links that come with it may make room, else nothing ever would
                await self._follow(origin, links)
                held = await self._store.held(origin)
            if len(held.unlinked) >= UNLINKED_MAX:
                raise ProblemError("checkpoint.unlinked", f"{UNLINKED_MAX} checkpoints of this ledger wait for links")
            await self._store.keep(checkpoint, at=at)
        await self._one_root(checkpoint)

    async def _follow(self, origin: str, links: Sequence[Link]) -> None:
        if not links:
            return
        held = await self._store.held(origin)
        linked, failing = follow(held.linked, held.roots, links)
        if linked:
            await self._store.link(origin, linked, newest=held.linked)
        if self.alarms.get(origin) == "ledger.split_view":
            return
        if linked:
            self.alarms.pop(origin, None)
        for link in failing:
            self.alarms[origin] = "checkpoint.links"
            await self._one_past(await self._stands(origin, link.old), await self._stands(origin, link.new), link.path)

    async def advance(
        self, checkpoint: Checkpoint, old: int, path: tuple[bytes, ...], directory: Directory
    ) -> int | None:
        """Links a verified checkpoint that goes on from the newest linked size; None where that is the newest one now.

        Else the size that is, since `old` was another, or somebody was faster. `witness.proof` for a path that does not hold,
        `ledger.split_view` for a second root of one size, or a path that proves one.
        """
        async with self._lock(checkpoint.origin):
            await self._within(checkpoint, directory)
            await self._one_root(checkpoint)
            held = await self._store.held(checkpoint.origin)
            if old != held.linked:
                return held.linked
            root = held.roots[old]
            if not verify_consistency(old=old, new=checkpoint.size, old_root=root, new_root=checkpoint.root, path=path):
                await self._one_past(await self._stands(checkpoint.origin, old), checkpoint, path)
                raise ProblemError(
                    "witness.proof", "the path does not lead from the checkpoint that we hold to this one"
                )
            if checkpoint.size == old:
                return None
            await self._store.keep(checkpoint, at=self._clock.now())  # nothing of a path that fails is kept
            await self._one_root(checkpoint)
            if await self._store.link(checkpoint.origin, [checkpoint.size], newest=old):
                return None
            return (await self._store.held(checkpoint.origin)).linked

    def heard(self, origin: str, note: bytes, directory: Directory) -> Checkpoint:
        """A checkpoint that a third member holds, verified; the problems of `verify`."""
        return self.verify(origin, parse_checkpoint(note).size, note, directory)

    async def one_root(self, checkpoint: Checkpoint) -> Held:
        """What is held of its ledger; `ledger.split_view`, both notes kept, where another root of its size is."""
        async with self._lock(checkpoint.origin):
            await self._one_root(checkpoint)
        return await self._store.held(checkpoint.origin)

    async def _one_root(self, checkpoint: Checkpoint) -> None:
        """`ledger.split_view`, both notes kept, where another root of this size is held."""
        origin = checkpoint.origin
        stands = await self._store.foreign_note(origin, checkpoint.size)
        if stands is not None and parse_checkpoint(stands).root != checkpoint.root:
            await self._store.keep_conflict(stands, checkpoint.note, origin=origin, at=self._clock.now())
            self.alarms[origin] = "ledger.split_view"
            raise ProblemError("ledger.split_view", "another root was signed for this size before")

    async def precedes(self, heard: Checkpoint, newest: int, path: Sequence[bytes]) -> None:
        """`checkpoint.links`, an alarm too, where a path does not lead from what a third member holds to our newest linked size."""
        newer = await self._stands(heard.origin, newest)
        if newer is None or not verify_consistency(
            old=heard.size, new=newest, old_root=heard.root, new_root=newer.root, path=path
        ):
            self.alarms[heard.origin] = "checkpoint.links"
            await self._one_past(heard, newer, path)
            raise ProblemError(
                "checkpoint.links", "a path does not lead from what a third member holds to what we hold"
            )

    async def _stands(self, origin: str, size: int) -> Checkpoint | None:
        note = await self._store.foreign_note(origin, size)
        return parse_checkpoint(note) if note else None

    async def _one_past(self, older: Checkpoint | None, newer: Checkpoint | None, path: Sequence[bytes]) -> None:
        """`ledger.split_view`, both kept, where a path that does not hold leads to the newer root all the same.

        Then it proves another older root than was signed. The second is kept as a witness is asked for it (C2SP tlog-witness):
        size, path, checkpoint.
        """
        if older is None or newer is None:
            return
        proven = older_root(old=older.size, new=newer.size, new_root=newer.root, path=path)
        if proven not in (None, older.root):
            request = format_request(older.size, path, newer.note)
            await self._store.keep_conflict(older.note, request, origin=older.origin, at=self._clock.now())
            self.alarms[older.origin] = "ledger.split_view"
            raise ProblemError("ledger.split_view", "this tree does not go on from one that was signed before")

    async def held(self, origins: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """For `hello.held`: per origin the newest linked size (at first 0), then the unlinked."""
        found = {}
        for origin in origins:
            held = await self._store.held(origin)
            found[origin] = (held.linked, *held.unlinked[:UNLINKED_MAX])
        return found
