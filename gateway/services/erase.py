"""Erasure that keeps proof: content goes with its keys, entries and proofs stay (docs/protocol.md section 7)."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from itertools import groupby
from typing import Any
from uuid import UUID

import structlog

from gateway.services.approve import Approve
from gateway.services.changes import Erased
from gateway.services.commit import Committer
from gateway.services.content import scope_of
from gateway.services.read import Read
from gateway.services.records import Records
from gateway.services.settle import Settle
from gateway.services.submit import current
from gateway.services.terms import handling_of
from protocols.ledger.entry import NONCE_BYTES, Entry, actor_commitment
from protocols.messages import validate_model
from protocols.messages.registry import RegistryRecord
from protocols.ports.access import Caller
from protocols.ports.crypto import ContentKey, EpochKeys, Sealer
from protocols.ports.directory import DirectorySource
from protocols.ports.rows import ErasureRow, WrappedRow
from protocols.ports.store import ErasureStore, ExchangeStore
from protocols.ports.world import Clock
from protocols.problems import Fault, ProblemError

_log = structlog.get_logger()
_LOOK_S = 3_600.0
_AT_ONCE = 1_000
GROUND_KEPT = "DELETE_AFTER"
"""The ground of what nobody asked for: the day after which its sender lets nobody keep it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be erased, why, and on whose authority. No `messages`: all of the thread; a `part`: that part of them alone."""

    thread: UUID
    messages: Sequence[UUID]
    part: str
    ground: str
    authority: str


class Erase:
    """Takes orders, which need two people, and carries them out; whatever a crash leaves undone is taken up again."""

    def __init__(
        self,
        *,
        member: str,
        store: ErasureStore,
        exchange: ExchangeStore,
        read: Read,
        records: Records,
        approve: Approve,
        settle: Settle,
        committer: Committer,
        directory: DirectorySource,
        vault: EpochKeys,
        sealer: Sealer,
        clock: Clock,
        backup_days: int,
    ) -> None:
        """`backup_days`: how long backups of the key store are kept; with one of them, erased content still opens."""
        self._member, self._store, self._exchange, self._read = member, store, exchange, read
        self._records, self._approve, self._settle, self._committer = records, approve, settle, committer
        self._directory, self._vault, self._sealer, self._clock = directory, vault, sealer, clock
        self._backup, self._wake = timedelta(days=backup_days), asyncio.Event()

    async def order(self, order: Order, caller: Caller) -> dict[str, Any]:
        """Erases once two people want it (`approval.*`): what will be, and until when backups hold it. The same again changes nothing.

        `thread.not_found`; `content.erased` where nothing of it is left.
        """
        rows = await self._rows(order)
        about = {
            "thread": str(order.thread), "messages": [str(row.id) for row in rows], "part": order.part, "ground": order.ground,
            "authority": order.authority,
        }  # fmt: skip
        approval = await self._approve.require("content.erase", caller, about)
        authority_c = actor_commitment(await self._approve.salt(approval), order.authority)
        await self._store.pend([row.on(authority_c) for row in rows])
        await self._approve.spend(approval)
        self._wake.set()
        return {"erasing": about["messages"], "backups_until": rows[0].until.isoformat()}

    async def run(self) -> None:
        """Carries out until cancelled; at start what was begun, each hour what has come to its day."""
        while True:
            self._wake.clear()
            try:
                await self.erase()
            except Exception:  # the store may be away for a while; the loop outlives it
                _log.exception("not_erased")
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def erase(self) -> int:
        """Carries out what is pending and what has come to its day; how much that was. One process of a node at a time."""
        async with self._store.alone() as mine:
            if not mine:
                return 0
            await self._agree()
            await self._store.pend(await self._due())
            pending = await self._store.pending()
            if pending:
                await self._withdraw_records(pending)
                await self._destroy(pending)
                await self._finish(pending)
            return len(pending)

    async def _agree(self) -> None:
        """Key store and database are in one generation, a new one each month; what opens backups past their day is dropped."""
        number, opened = await self._store.generation()
        while self._vault.generation < number:  # an older key store came back: what it does not hold is lost
            await asyncio.to_thread(self._vault.rotate)
        await self._store.raise_generation(self._vault.generation)  # a crash may have left the files ahead
        now = self._clock.now()
        if opened.strftime("%Y-%m") != now.strftime("%Y-%m"):
            await self._rotate()
        await asyncio.to_thread(self._vault.forget, now - self._backup)

    async def _rotate(self) -> None:
        await self._store.raise_generation(await asyncio.to_thread(self._vault.rotate), self._clock.now())

    async def _rows(self, order: Order) -> list[ErasureRow]:
        contents = [
            each
            for each in await self._read.contents(order.thread)
            if (not order.messages or each.message.id in order.messages)
            and (not order.part or order.part in [part.ref.name for part in each.parts])
        ]
        if missing := set(order.messages) - {each.message.id for each in contents}:
            faults = [
                Fault(f"/messages/{n}", "content.erased", "nothing of it is here", "Leave it out.")
                for n, id_ in enumerate(order.messages)
                if id_ in missing
            ]
            raise ProblemError("content.erased", "some of it is gone, or never was", errors=faults)
        if not contents:
            await self._read.legs(order.thread)
            raise ProblemError("content.erased", "nothing of it is left")
        return [self._row(each.message, each.commitment, order.part, order.ground) for each in contents]

    def _row(self, message: Any, commitment: bytes, part: str, ground: str) -> ErasureRow:
        return ErasureRow(
            sender=message.sender, id=message.id, part=part, thread=message.thread, recipient=message.recipient, ground=ground,
            content_c=commitment, until=(self._clock.now() + self._backup).date(),
        )  # fmt: skip

    async def _due(self) -> list[ErasureRow]:
        """What its sender lets nobody keep any longer: as it said with the message, and what it has tightened since."""
        today = self._clock.now().date()
        found = []
        for sender, id_ in await self._store.due(today, _AT_ONCE):
            content = await self._read.content(sender, id_)
            found.append(self._row(content.message, content.commitment, "", GROUND_KEPT))
        for thread in await self._store.tightened():
            contents = await self._read.contents(thread)
            said = [each.message for each in contents]
            for each in contents:
                ends = handling_of(said, each.message).delete_after
                if each.message.sender != self._member and ends and date.fromisoformat(ends) < today:
                    found.append(self._row(each.message, each.commitment, "", GROUND_KEPT))
        return found

    async def _withdraw_records(self, pending: Sequence[ErasureRow]) -> None:
        """A shared record goes with the message that brought it."""
        for row in pending:
            if row.part or row.sender == self._member:
                continue
            try:
                message = (await self._read.content(row.sender, row.id)).message
            except ProblemError:  # a crash came after its key was destroyed: then this was done before
                continue
            if message.type == "registry.record":
                record = validate_model(RegistryRecord, message.body, message.type)
                await self._records.withdrawn(message, record.record_ref)

    async def _destroy(self, pending: Sequence[ErasureRow]) -> None:
        """Wraps all other keys of these epochs anew, durable in the key store first, and destroys the epochs' own."""
        erased = await self._store.wrapped_of(pending)
        generations = {row.generation for row in erased}
        if not generations:
            return
        await self._rotate()
        gone = {(row.sender, row.id, row.part) for row in erased}
        for generation in sorted(generations):
            moved: list[tuple[WrappedRow, ContentKey]] = []
            async for rows in self._store.wrapped(generation, _AT_ONCE):
                stay = [row for row in rows if (row.sender, row.id, row.part) not in gone]
                moved += await asyncio.to_thread(self._rewrapped, stay)
            kept = [(row.key, new) for row, new in moved]
            keys = [row.key for row in erased if row.generation == generation]
            await asyncio.to_thread(partial(self._vault.destroy, generation, kept=kept, erased=keys))
            for start in range(0, len(moved), _AT_ONCE):
                await self._store.rewrap(moved[start : start + _AT_ONCE])

    def _rewrapped(self, rows: Sequence[WrappedRow]) -> list[tuple[WrappedRow, ContentKey]]:
        found = []
        for row in rows:
            try:
                found.append((row, self._vault.rewrap(row.key, scope_of(row.sender, row.id, row.part))))
            except ProblemError as problem:  # it is lost already
                _log.error("content_unreadable", id=str(row.id), code=problem.code)
        return found

    async def _finish(self, pending: Sequence[ErasureRow]) -> None:
        """The entries; what was on its way, or waited for our systems, ends with them."""
        directory = current(self._directory)
        queued = {}
        for recipient, rows in groupby(sorted(pending, key=lambda row: row.recipient), key=lambda row: row.recipient):
            ids = [row.id for row in rows if row.sender == self._member and not row.part]
            for claimed in await self._exchange.unsettled(recipient, ids):
                queued[claimed.id] = self._settle.given_up(claimed, "content.erased", directory)
        changes = [
            Erased(entry=self._entry(row), row=row, settled=None if row.part else queued.get(row.id)) for row in pending
        ]
        outcomes = await asyncio.gather(*map(self._committer.enqueue, changes), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    def _entry(self, row: ErasureRow) -> Entry:
        return Entry(
            kind="erased", at=self._clock.now(), n=self._sealer.random(NONCE_BYTES), id=row.id, sender=row.sender,
            recipient=row.recipient, content_c=row.content_c, actor_c=row.authority_c,
            code=f"{row.part or 'content'}/{row.ground}/{row.until.isoformat()}",
        )  # fmt: skip
