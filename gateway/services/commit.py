"""The committer: the one write path of everything that makes a ledger entry (docs/protocol.md section 6).

Crash argument. Nothing is answered before COMMIT returned, so a crash before it loses only what nobody was told. COMMIT
writes entries, tiles, checkpoint and rows together, so a crash after it leaves all of the batch, and every request is
idempotent: its repetition is answered from what stands. The guard is raised after COMMIT and before any answer, so
whatever left this machine is at or below the guard; a database that is behind the guard, or whose tree has another root
at the guard's size, has lost or rewritten something that may be known outside: nothing is signed any more. A crash
between COMMIT and guard leaves the database ahead, which the next batch proves consistent and raises the guard.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn, TypeVar
from uuid import UUID

from gateway.services.changes import Change
from gateway.services.stage import Lost, Plan, Stage
from protocols.ledger.checkpoint import Checkpoint, LedgerKeys, verify_checkpoint
from protocols.ledger.entry import closes
from protocols.ledger.merkle import EMPTY_ROOT, inclusion_path, leaf_hash
from protocols.ledger.merkle import root as tree_root
from protocols.ledger.proof import Place
from protocols.ledger.tiles import Edge, TileId, TileReader, TilesWanted, edge_tiles
from protocols.limits import BATCH_BYTES_MAX, BATCH_CHANGES_MAX, QUEUE_CHANGES_MAX
from protocols.ports.crypto import Guard, GuardMark, NoteSigner, Verifier
from protocols.ports.store import (
    Batch,
    DataError,
    Head,
    LedgerStore,
    OutcomeUnknown,
    Unavailable,
    Wanted,
    Writes,
)
from protocols.ports.world import Clock, Ids
from protocols.problems import ProblemError

_T = TypeVar("_T")
_TRIES_MAX = 5
_BACKOFF_S = 0.2
_ENDING = ProblemError("store.busy", "the node is ending")


class LedgerClosed(Exception):
    """Another process of this node has closed the ledger: this one ends, and goes on in the next when it starts again."""


class Proofs:
    """Proofs of one batch's entries under its checkpoint, built from the tiles that the batch has in memory."""

    def __init__(self, checkpoint: Checkpoint, tiles: dict[TileId, bytes], entries: dict[int, bytes]) -> None:
        self.checkpoint = checkpoint
        self.entries = entries
        self._reader = TileReader(tiles)

    def place(self, index: int) -> Place:
        """The place of an entry of this batch."""
        size = self.checkpoint.size
        path = tuple(inclusion_path(index, size, self._reader.node))
        return Place(origin=self.checkpoint.origin, size=size, index=index, path=path, entry=self.entries[index])


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A change that is durable; `index` is that of its last entry."""

    index: int
    proofs: Proofs

    @property
    def origin(self) -> str:
        """The ledger."""
        return self.proofs.checkpoint.origin


Outcome = Done | Lost


@dataclass(slots=True)
class _Waiting:
    change: Change
    bytes_: int
    answer: "asyncio.Future[Outcome]"


class Committer:
    """Serialises changes of one ledger into batches. `run` is its only task; when it dies the process must end."""

    def __init__(
        self,
        *,
        origin: str,
        store: LedgerStore,
        signer: NoteSigner,
        verifier: Verifier,
        guard: Guard,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self.origin = origin
        self.halted: ProblemError | None = None
        self._store, self._signer, self._verifier, self._guard = store, signer, verifier, guard
        self._clock, self._ids = clock, ids
        self._keys = LedgerKeys.parse(origin, signer.vkeys)
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(QUEUE_CHANGES_MAX)
        self._held_back: _Waiting | None = None
        self._died = self._ending = False
        self._edge: Edge | None = None
        self._root = b""
        self._committed: list[Callable[[], None]] = []

    @property
    def size(self) -> int:
        """Entries in the ledger as this process knows it."""
        return self._edge.size if self._edge else 0

    @property
    def waiting(self) -> int:
        """Changes in the queue."""
        return self._queue.qsize()

    def on_commit(self, wake: Callable[[], None]) -> None:
        """Calls `wake` after every batch that wrote something."""
        self._committed.append(wake)

    def wake(self) -> None:
        """Another process of this node committed: what it wrote is looked at here too."""
        for wake in self._committed:
            wake()

    async def commit(self, change: Change, bytes_: int = 0) -> Outcome:
        """As `enqueue`, and waits."""
        return await self.enqueue(change, bytes_)

    def enqueue(self, change: Change, bytes_: int = 0) -> "asyncio.Future[Outcome]":
        """Done when the change is durable, or lost to an earlier one. `bytes_` counts against the batch's bound.

        ProblemError `store.busy` (queue full, database away), `store.data`, `ledger.rollback`, or what the change raises.
        """
        if self.halted is not None:
            raise ProblemError(self.halted.code, self.halted.detail)
        if self._died:
            raise ProblemError(_ENDING.code, _ENDING.detail)
        waiting = _Waiting(change, bytes_, asyncio.get_running_loop().create_future())
        try:
            self._queue.put_nowait(waiting)
        except asyncio.QueueFull:
            raise ProblemError("store.busy", "too many changes wait to be committed") from None
        return waiting.answer

    async def run(self) -> None:
        """Commits until cancelled; a batch that has begun is finished first, but for one whose database is gone.

        When it dies, whoever waits may ask again.
        """
        try:
            while True:
                batch = asyncio.ensure_future(self._commit(await self._take()))
                try:
                    await asyncio.shield(batch)
                except asyncio.CancelledError:
                    self._ending = True
                    await batch
                    raise
        except Exception:  # the process ends, and is not to wait for requests that nobody answers
            self._died = True
            _fail([] if self._held_back is None else [self._held_back], _ENDING)
            while not self._queue.empty():
                _fail([self._queue.get_nowait()], _ENDING)
            raise

    async def drain(self) -> None:
        """Commits what is queued now; for the way down, after `run` was cancelled."""
        self._ending = True
        while self._held_back or not self._queue.empty():
            await self._commit(await self._take())

    async def check(self) -> Head:
        """As `verify`, and raises the guard to the head."""
        head = await self.verify()
        mark = self._mark(head.size, head.root, head)  # a crash may have come between COMMIT and guard
        await asyncio.to_thread(self._guard.raise_to, mark)
        return head

    def distrust(self) -> None:
        """Halts: what somebody else signed under our ledger's keys is kept."""
        self.halted = self.halted or ProblemError("ledger.rollback", "another history under our ledger's keys is kept")

    async def set_back(self, held: Checkpoint) -> None:
        """Halts: somebody holds a checkpoint that we signed and that is not of this tree. The guard remembers it where it is larger."""
        self.halted = ProblemError(
            "ledger.rollback", f"another holds {held.size} entries that we signed, and they are not here"
        )
        identifier, timeline = await self._store.identity()
        mark = GuardMark(
            origin=self.origin, size=held.size, root=held.root, system_identifier=identifier, timeline=timeline
        )
        with suppress(ProblemError):  # it remembers another of this size already
            await asyncio.to_thread(self._guard.raise_to, mark)

    async def verify(self) -> Head:
        """The head, after the guard's and the signatures' checks; ProblemError `ledger.rollback` halts, `store.busy`. Writes nothing."""
        return await self._attempt(self._verify)

    async def _verify(self) -> Head:
        try:
            async with self._store.batch(self.origin) as batch:
                await self._verified_edge(batch)
                return batch.head
        except OutcomeUnknown as error:
            raise Unavailable("nothing was written") from error

    async def _take(self) -> list[_Waiting]:
        first = self._held_back or await self._queue.get()
        self._held_back = None
        taken, size = [first], first.bytes_
        while len(taken) < BATCH_CHANGES_MAX and not self._queue.empty():
            following = self._queue.get_nowait()
            size += following.bytes_
            if size > BATCH_BYTES_MAX:
                self._held_back = following
                break
            taken.append(following)
        return [each for each in taken if not each.answer.cancelled()]

    async def _commit(self, waiting: Sequence[_Waiting]) -> None:
        try:
            await self._attempt(lambda: self._transact(waiting))
        except DataError:
            if len(waiting) > 1:
                await self._commit(waiting[: len(waiting) // 2])
                await self._commit(waiting[len(waiting) // 2 :])
                return
            try:  # a unique key taken by another process's ledger shows now as standing
                await self._attempt(lambda: self._transact(waiting))
            except DataError:
                _fail(waiting, ProblemError("store.data", "the database refused a row of this change"))
        except ProblemError as problem:
            _fail(waiting, problem)
        except Exception:
            _fail(waiting, _ENDING)
            raise

    async def _attempt(self, doing: Callable[[], Awaitable[_T]]) -> _T:
        for tried in range(_TRIES_MAX):
            try:
                return await doing()
            except Unavailable:
                await asyncio.sleep(_BACKOFF_S * 2**tried * self._ids.jitter())
        raise ProblemError("store.busy", "the database cannot be reached")

    async def _transact(self, waiting: Sequence[_Waiting]) -> None:
        """One batch: lock, check, decide, write, COMMIT, raise the guard, answer."""
        if not waiting:
            return
        if self.halted is not None:
            raise self.halted
        at, batch_id = self._clock.now(), self._ids.uuid7()
        results: list[tuple[_Waiting, int | Lost | ProblemError]] = []
        edge, proofs, head = None, None, None
        try:
            async with self._store.batch(self.origin) as batch:
                head = batch.head
                if self._edge is None or self._edge.size != head.size:  # not ours alone
                    await _still_open(batch)
                old_edge = await self._verified_edge(batch)
                plan = await self._plan(batch, [each.change for each in waiting])
                results = _decide(waiting, plan)
                if plan.entries:
                    edge, proofs = self._extend(old_edge, plan, head, at)
                    await batch.write(self._writes(plan, batch_id, head, edge[1], proofs.checkpoint, at))
        except OutcomeUnknown as error:
            if not await self._was_committed(batch_id):
                raise Unavailable("the batch was not committed") from error
        if edge is not None and proofs is not None and head is not None:
            await asyncio.to_thread(
                self._guard.raise_to, self._mark(proofs.checkpoint.size, proofs.checkpoint.root, head)
            )
            self._edge, self._root = edge[0], proofs.checkpoint.root
        _answer(results, proofs)
        if edge is not None:
            self.wake()

    async def _plan(self, batch: Batch, changes: Sequence[Change]) -> Plan:
        wanted = Wanted()
        for change in changes:
            change.wants(wanted)
        standing = await batch.standing(wanted)
        return Plan(origin=self.origin, size=batch.head.size, generation=batch.head.generation, standing=standing)

    def _extend(
        self, edge: Edge, plan: Plan, head: Head, at: datetime
    ) -> tuple[tuple[Edge, dict[TileId, bytes]], Proofs]:
        """The new edge with its changed tiles, and the proofs under the new signed checkpoint."""
        grown = edge.copy()
        before = edge.tiles()
        changed = grown.append(leaf_hash(entry) for entry in plan.entries)
        root = grown.root()
        note = self._signer.sign(grown.size, root, at)
        checkpoint = Checkpoint(origin=self.origin, size=grown.size, root=root, note=note)
        entries = dict(enumerate(plan.entries, head.size))
        return (grown, changed), Proofs(checkpoint, before | grown.tiles() | changed, entries)

    def _writes(
        self, plan: Plan, batch_id: UUID, head: Head, tiles: dict[TileId, bytes], checkpoint: Checkpoint, at: datetime
    ) -> Writes:
        return Writes(
            batch=batch_id,
            at=at,
            old_size=head.size,
            entries=plan.entries,
            tiles=tiles,
            checkpoint=checkpoint,
            rows=plan.rows,
            settled=plan.settled,
            resealed=plan.resealed,
            dispatched=plan.dispatched,
            legs=plan.legs,
            pairs=plan.pairs,
            approvals=plan.approvals,
            forgotten=plan.forgotten,
        )

    async def _was_committed(self, batch_id: UUID) -> bool:
        while True:
            try:
                return await self._store.find_batch(self.origin, batch_id)
            except Unavailable:
                if self._ending:  # whoever asks again under its key is answered from what stands by then
                    raise ProblemError(_ENDING.code, _ENDING.detail) from None
                await asyncio.sleep(_BACKOFF_S)

    async def _verified_edge(self, batch: Batch) -> Edge:
        """The tree's right edge, proven to be the tree that we signed and that the guard remembers."""
        head = batch.head
        edge = self._edge
        if edge is None or (edge.size, self._root) != (head.size, head.root):
            edge = await self._load_edge(batch)
        try:
            mark = await asyncio.to_thread(self._guard.read, self.origin)
        except ProblemError as problem:
            self._halt(problem.detail)
        if mark is None:
            self._halt("there is no fork guard beside the keys")
        if (mark.system_identifier, mark.timeline) != (head.system_identifier, head.timeline):
            self._halt("this is another database cluster or timeline than the guard remembers")
        if mark.size > head.size:
            self._halt("the database is behind the guard")
        if mark.size != head.size:
            wanted = TilesWanted()
            tree_root(mark.size, wanted.node)
            reader = TileReader(await batch.tiles(list(wanted.tiles)))
            try:
                root = tree_root(mark.size, reader.node)
            except (KeyError, IndexError):
                self._halt("tiles are missing below the guard")
        else:
            root = head.root
        if root != mark.root:
            self._halt("the tree has another root at the guard's size")
        return edge

    async def _load_edge(self, batch: Batch) -> Edge:
        """The edge from the database, only if its root is the head's and both our signatures stand under it."""
        head = batch.head
        try:
            edge = Edge(head.size, await batch.tiles(edge_tiles(head.size)))
        except (KeyError, ValueError):
            self._halt("the tiles at the tree's right edge are missing or cut")
        if edge.root() != head.root or (head.size == 0 and head.root != EMPTY_ROOT):
            self._halt("the tree's right edge does not give the head's root")
        if head.size:
            try:
                checkpoint = verify_checkpoint(await batch.note() or b"", self._keys, self._verifier)
            except ProblemError:
                self._halt("the head's checkpoint does not carry our two signatures")
            if (checkpoint.size, checkpoint.root) != (head.size, head.root):
                self._halt("the head differs from its checkpoint")
        self._edge, self._root = edge, head.root
        return edge

    def _halt(self, why: str) -> NoReturn:
        self.halted = ProblemError("ledger.rollback", why)
        raise self.halted

    def _mark(self, size: int, root: bytes, head: Head) -> GuardMark:
        return GuardMark(
            origin=self.origin,
            size=size,
            root=root,
            system_identifier=head.system_identifier,
            timeline=head.timeline,
        )


async def _still_open(batch: Batch) -> None:
    if closes(await batch.last() or b""):
        raise LedgerClosed(batch.head.origin)


def _decide(waiting: Sequence[_Waiting], plan: Plan) -> list[tuple[_Waiting, int | Lost | ProblemError]]:
    results: list[tuple[_Waiting, int | Lost | ProblemError]] = []
    for each in waiting:
        stage = Stage(plan)
        try:
            lost = each.change.apply(stage)
        except ProblemError as problem:
            results.append((each, problem))
            continue
        except (ValueError, OverflowError):  # an entry that cannot be written: this change's own fault, not the batch's
            results.append((each, ProblemError("store.data", "the entry of this change cannot be written")))
            continue
        if lost is None:
            plan.merge(stage)
        results.append((each, plan.size - 1 if lost is None else lost))
    return results


def _answer(results: Sequence[tuple[_Waiting, int | Lost | ProblemError]], proofs: Proofs | None) -> None:
    for each, result in results:
        if each.answer.done():
            continue
        match result:
            case ProblemError():
                each.answer.set_exception(result)
            case Lost():
                each.answer.set_result(result)
            case _:
                assert proofs is not None  # a change that was not lost made an entry
                each.answer.set_result(Done(index=result, proofs=proofs))


def _fail(waiting: Sequence[_Waiting], problem: ProblemError) -> None:
    for each in waiting:
        if not each.answer.done():
            each.answer.set_exception(ProblemError(problem.code, problem.detail))
