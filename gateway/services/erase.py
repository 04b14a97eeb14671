"""Erasure that keeps proof: content goes with its keys, entries and proofs stay (docs/protocol.md section 7)."""

import asyncio
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import partial
from itertools import groupby
from typing import Any
from uuid import UUID

import structlog

from gateway.services.approve import Approve
from gateway.services.changes import Erased, Noted
from gateway.services.commit import Committer
from gateway.services.content import Content, scope_of
from gateway.services.link import Linking
from gateway.services.prove import Prove
from gateway.services.read import Read
from gateway.services.records import Records
from gateway.services.settle import Settle
from gateway.services.submit import current
from gateway.services.terms import handling_of, origin_of
from gateway.services.wake import woken
from protocols.exchange.message import Message
from protocols.ledger.entry import GROUND_KEPT, GROUND_RETENTION, NONCE_BYTES, Entry, actor_commitment
from protocols.limits import APPROVAL_DAYS
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
_LOOK_S, _AGAIN_S = 3_600.0, 5.0
_AT_ONCE, _CHANGES = 1_000, 256
_KEYS_MAX = 500_000  # of a generation: what one erasure has to wrap anew, and how many where they went may be in memory
_UNPROVEN = ("approval.unproven", "approval.not_found", "content.erased")
_STAY = ("registry.record", "marking.notice")  # one has a last day, the other stands
_WORDS = frozenset(("handling.change", "consent.request", "consent.answer"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be erased, why, and on whose authority. No `messages`: all of the thread; a `part`: that part of them alone."""

    thread: UUID
    messages: Sequence[UUID]
    part: str
    ground: str
    authority: str


class Erase:
    """Takes orders, which need two people, and carries them out; whatever a crash leaves undone is taken up again.

    What is pending in the database is nobody's word: our ledger has to prove who ordered it. Where it does not, that is an alarm about it.
    """

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
        prove: Prove,
        linking: Linking,
        directory: DirectorySource,
        vault: EpochKeys,
        sealer: Sealer,
        clock: Clock,
        backup_days: int,
        retention_days: int,
    ) -> None:
        """`backup_days`: how long backups of the key store are kept; with one of them, erased content still opens.

        `retention_days`: after so many in which nothing happened in a thread its content goes; 0: nothing goes because of its age.
        """
        self._member, self._store, self._exchange, self._read = member, store, exchange, read
        self._records, self._approve, self._settle, self._committer = records, approve, settle, committer
        self._prove, self._linking = prove, linking
        self._directory, self._vault, self._sealer, self._clock = directory, vault, sealer, clock
        self._backup, self._wake = timedelta(days=backup_days), asyncio.Event()
        self._retention = timedelta(days=retention_days)

    async def order(self, order: Order, caller: Caller) -> dict[str, Any]:
        """Erases once two people want it (`approval.*`): what will be, and until when backups hold it. The same again changes nothing.

        `thread.not_found`; `content.erased` where nothing of it is left.
        """
        contents = await self._wanted(order)
        about = {
            "thread": str(order.thread), "messages": [str(each.message.id) for each in contents], "part": order.part, "ground": order.ground,
            "authority": order.authority,
        }  # fmt: skip
        approval = await self._approve.require("content.erase", caller, about)
        _, salt = await self._approve.agreed(approval)
        authority_c = actor_commitment(salt, order.authority)
        changes = [self._erased(each, order.part, order.ground, authority_c) for each in contents]
        await self._store.pend([replace(each.row, approval=approval) for each in changes])
        try:
            await self._approve.spend(approval)
        finally:
            self._wake.set()
        return {"erasing": about["messages"], "backups_until": changes[0].row.until.isoformat()}

    async def run(self) -> None:
        """Carries out until cancelled; at start what was begun, each hour what has come to its day."""
        while True:
            self._wake.clear()
            pause = _AGAIN_S
            try:
                pause = _LOOK_S if await self.erase() is not None else _AGAIN_S
            except Exception:  # the store may be away for a while; the loop outlives it
                _log.exception("not_erased")
            await woken(self._wake, pause)

    async def erase(self) -> int | None:
        """Carries out what is pending and what has come to its day; how much. None where another process of this node does.

        Nothing comes to its day by a clock at which the directory has expired.

        `ledger.rollback`: nothing is destroyed by the word of a database that the guard does not know.
        """
        if self._committer.halted:
            raise self._committer.halted
        async with self._store.alone() as mine:
            if not mine:
                return None
            await self._agree()
            pending = await self._store.pending()
            said = await self._said(pending)
            await self._destroy(said)
            known = set(said)
            rest = [row for row in pending if row not in known]
            ordered = await self._ordered(rest)
            over = list[Erased]()
            if self._clock.now() <= current(self._directory).expires:  # a clock that runs ahead destroys nothing
                over = [*await self._due(), *await self._ended()]
                await self._store.pend([each.row for each in over])
            changes = {_key(each.row): each for each in (*over, *ordered)}  # on whose word it is said first
            self._alarm([row for row in rest if _key(row) not in changes])
            return len(said) + await self._carry_out(list(changes.values()))

    async def lost(self) -> int:
        """Keys of content whose generation is gone and that nothing opens."""
        return sum(
            n for generation, n in (await self._store.generations()).items() if not self._vault.holds(generation)
        )

    async def _said(self, pending: Sequence[ErasureRow]) -> list[ErasureRow]:
        """Those of which an entry says already that they are erased: a crash came before they were."""
        said = set[tuple[str | None, UUID | None, str]]()
        for start in range(0, len(pending), _AT_ONCE):
            for entry in await self._prove.about([row.id for row in pending[start : start + _AT_ONCE]], "erased"):
                said.add((entry.sender, entry.id, (entry.code or "").split("/")[0]))
        return [row for row in pending if said & {(row.sender, row.id, what) for what in ("content", row.part)}]

    async def _ordered(self, pending: Sequence[ErasureRow]) -> list[Erased]:
        """What two people want of this, as our ledger proves."""
        found = list[Erased]()
        for approval, rows in groupby(sorted(pending, key=lambda row: str(row.approval)), key=lambda row: row.approval):
            agreed = await self._agreed(approval) if approval else None
            for row in rows:
                change = await self._order(row, *agreed) if agreed else None
                found += [change] if change else []
        return found

    def _alarm(self, unordered: Sequence[ErasureRow]) -> None:
        """What nobody ordered, or nothing of it is here, stays as it is."""
        for row in unordered:
            _log.error("erasure_unordered", id=str(row.id))
        if unordered:
            self._linking.alarms[f"{self._member}/erasure"] = "approval.unproven"
        else:
            self._linking.alarms.pop(f"{self._member}/erasure", None)

    async def _agreed(self, approval: UUID) -> tuple[dict[str, Any], bytes] | None:
        try:
            return await self._approve.agreed(approval)
        except ProblemError as problem:
            if problem.code not in _UNPROVEN:
                raise
            return None

    async def _order(self, row: ErasureRow, about: Mapping[str, Any], salt: bytes) -> Erased | None:
        """None where they want something else, or nothing of it is here."""
        if "authority" not in about or str(row.id) not in about["messages"] or row.part != about["part"]:
            return None
        try:
            content = await self._read.content(row.sender, row.id)
        except ProblemError as problem:
            if problem.code != "content.erased":
                raise
            return None
        change = self._erased(content, row.part, about["ground"], actor_commitment(salt, about["authority"]))
        return change if str(content.message.thread) == about["thread"] else None

    async def _agree(self) -> None:
        """Key store and database are in one generation, a new one each month; what opens backups past their day is dropped."""
        number, opened = await self._store.generation()
        while self._vault.generation < number:  # an older key store came back: what it does not hold is lost
            await asyncio.to_thread(self._vault.rotate)
        await self._store.raise_generation(self._vault.generation)  # a crash may have left the files ahead
        for generation in await self._store.generations():
            if not self._vault.holds(generation):  # a crash, or an older database: what was kept still opens
                await self._move(generation, frozenset())
        now, held = self._clock.now(), await self._store.generations()
        if opened.strftime("%Y-%m") != now.strftime("%Y-%m") or held.get(self._vault.generation, 0) > _KEYS_MAX:
            await self._rotate()
        await asyncio.to_thread(partial(self._vault.forget, now - self._backup, but=held.keys()))
        await self._store.drop_asked(now - timedelta(days=APPROVAL_DAYS))

    async def _rotate(self) -> None:
        await self._store.raise_generation(await asyncio.to_thread(self._vault.rotate), self._clock.now())

    async def _wanted(self, order: Order) -> list[Content]:
        every = await self._read.contents(order.thread)
        contents = [
            each
            for each in every
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
        self._check_words([each.message for each in every], order)
        return contents

    def _check_words(self, said: Sequence[Message], order: Order) -> None:
        """What tightens, or denies, is not erased before what it is about: that could be read again."""
        stays = [each for each in said if order.messages and each.id not in order.messages and each.type not in _WORDS]
        for n, id_ in enumerate(order.messages):
            if stays and any(each.id == id_ and each.type in _WORDS for each in said):
                fault = Fault(
                    f"/messages/{n}", "needed", "it says what may be done with others", "Erase those with it."
                )
                raise ProblemError("schema.invalid", "a message that others depend on", errors=[fault])

    def _erased(self, content: Content, part: str, ground: str, authority_c: bytes | None = None) -> Erased:
        message, until = content.message, (self._clock.now() + self._backup).date()
        entry = Entry(
            kind="erased", at=self._clock.now(), n=self._sealer.random(NONCE_BYTES), id=message.id, sender=message.sender,
            recipient=message.recipient, content_c=content.commitment, actor_c=authority_c,
            code=f"{part or 'content'}/{ground}/{until.isoformat()}",
        )  # fmt: skip
        row = ErasureRow(
            sender=message.sender, id=message.id, part=part, thread=message.thread, recipient=message.recipient, ground=ground,
            content_c=content.commitment, until=until, authority_c=authority_c,
        )  # fmt: skip
        return Erased(entry=entry, row=row)

    async def _due(self) -> list[Erased]:
        """What its sender lets nobody keep any longer: as it said with the message, has tightened since, or has consented to.

        What says so goes with the last of what it is about, or else that could be read again.
        """
        today, found = self._clock.now().date(), list[Erased]()
        for thread in await self._store.due(today, _AT_ONCE):
            contents = await self._contents(thread)
            said = [each.message for each in contents]
            over = [each for each in contents if self._over(said, each.message, today)]
            words = [each for each in over if each.message.type in _WORDS]
            if len(over) < len(contents) and any(
                each.message.type not in _WORDS for each in contents if each not in over
            ):
                over = [each for each in over if each not in words]
            found += [self._erased(each, "", GROUND_KEPT) for each in over]
        return found

    async def _ended(self) -> list[Erased]:
        """What the member itself keeps no longer, ours and theirs; nothing of a thread in which somebody says, signed, that it is younger."""
        if not self._retention:
            return []
        here = [generation for generation in await self._store.generations() if self._vault.holds(generation)]
        found, before = list[Erased](), self._clock.now() - self._retention
        for thread in await self._store.idle(before, here, _AT_ONCE):
            contents = await self._contents(thread)
            if all(self._ends(each.message, before) for each in contents):
                found += [self._erased(each, "", GROUND_RETENTION) for each in contents]
        return found

    async def _contents(self, thread: UUID) -> list[Content]:
        """Nothing of a thread that cannot be read now: it is in no other one's way."""
        try:
            return await self._read.contents(thread)
        except ProblemError as problem:
            _log.error("thread_unreadable", id=str(thread), code=problem.code)
            return []

    def _ends(self, message: Message, before: datetime) -> bool:
        """Whether its sender says itself that it was over before a time, and it is none of those that stay."""
        return max(message.created, message.due or message.created) < before and message.type not in _STAY

    def _over(self, said: Sequence[Message], message: Message, today: date) -> bool:
        source = origin_of(said, message)
        last = handling_of(said, source).delete_after
        return source.sender != self._member and last is not None and date.fromisoformat(last) < today

    async def _withdraw_record(self, row: ErasureRow) -> None:
        """A shared record goes with the message that brought it."""
        if row.part or row.sender == self._member:
            return
        message = (await self._read.content(row.sender, row.id)).message
        if message.type == "registry.record":
            record = validate_model(RegistryRecord, message.body, message.type)
            await self._records.withdrawn(message, record.record_ref)

    async def _destroy(self, rows: Sequence[ErasureRow]) -> None:
        """What these are of is gone, in the key store first; then nothing is left to be done for them."""
        wrapped = await self._store.wrapped_of(rows)
        theirs = await asyncio.to_thread(self._rewrapped, wrapped)  # one that a row has borrowed opens elsewhere alone
        await self._destroy_keys([row for row, _ in theirs])
        await self._store.finish(rows)

    async def _destroy_keys(self, erased: Sequence[WrappedRow]) -> None:
        """Wraps all other keys of these epochs anew, durable in the key store first, and destroys the epochs' own."""
        generations = {row.generation for row in erased}
        if not generations:
            return
        await self._rotate()
        gone = frozenset(map(_key, erased))
        for generation in sorted(generations):
            while await self._move(generation, gone):  # until a whole look finds nothing that could be moved
                continue
            await self._begin()
            keys = [row.key for row in erased if row.generation == generation]
            await asyncio.to_thread(partial(self._vault.destroy, generation, erased=keys))

    async def _begin(self) -> None:
        """An entry says so first: no key is destroyed by the word of a database that the fork guard does not know."""
        nonce = self._sealer.random(NONCE_BYTES)
        await self._committer.commit(
            Noted(entry=Entry(kind="admin", at=self._clock.now(), n=nonce, code="erasure.begun"))
        )

    async def _move(self, generation: int, gone: Container[tuple[str, UUID, str]]) -> int:
        """Moves all keys but these to the open generation, page by page; how many."""
        count = 0
        async for rows in self._store.wrapped(generation, _AT_ONCE):
            stay = [row for row in rows if _key(row) not in gone]
            if moved := await asyncio.to_thread(self._rewrapped, stay):
                await asyncio.to_thread(self._vault.keep, generation, [(row.key, new) for row, new in moved])
                await self._store.rewrap(moved)
            count += len(moved)
        return count

    def _rewrapped(self, rows: Sequence[WrappedRow]) -> list[tuple[WrappedRow, ContentKey]]:
        found = []
        for row in rows:
            try:
                found.append((row, self._vault.rewrap(row.key, scope_of(row.sender, row.id, row.part))))
            except ProblemError as problem:
                if problem.code != "content.erased":  # a key store that cannot be read now says nothing about the key
                    raise
                _log.error("content_unreadable", id=str(row.id))
        return found

    async def _carry_out(self, changes: Sequence[Erased]) -> int:
        """The entries, before any key goes, then the keys; what fails holds up nothing else, and is raised at the end."""
        said, failed = list[Erased](), list[BaseException]()
        for start in range(0, len(changes), _CHANGES):
            batch = await self._settled(changes[start : start + _CHANGES])
            outcomes = await asyncio.gather(*map(self._say, batch), return_exceptions=True)
            said += [each for each, outcome in zip(batch, outcomes, strict=True) if outcome is None]
            failed += [outcome for outcome in outcomes if outcome is not None]
        await self._destroy([each.row for each in said])
        if failed:
            raise failed[0]
        return len(said)

    async def _say(self, change: Erased) -> None:
        await self._withdraw_record(change.row)
        await self._committer.commit(change)

    async def _settled(self, changes: Sequence[Erased]) -> list[Erased]:
        """What was on its way, or waited for our systems, ends with them."""
        directory, queued = current(self._directory), {}
        whole = [each for each in changes if each.row.sender == self._member and not each.row.part]
        for recipient in {each.entry.recipient or "" for each in whole}:
            ids = [each.row.id for each in whole if each.entry.recipient == recipient]
            for claimed in await self._exchange.unsettled(recipient, ids):
                queued[claimed.id] = self._settle.given_up(claimed, "content.erased", directory)
        return [replace(each, settled=None if each.row.part else queued.get(each.row.id)) for each in changes]


def _key(row: ErasureRow | WrappedRow) -> tuple[str, UUID, str]:
    return row.sender, row.id, row.part
