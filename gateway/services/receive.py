"""Receive: verify parcels, open and judge them, commit their arrival, answer with proofs (docs/protocol.md section 4)."""

import asyncio
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from uuid import UUID

import structlog

from gateway.services.blobs import Blobs
from gateway.services.changes import Refused, arrived_before
from gateway.services.commit import Committer, Done
from gateway.services.judge import Judge, Proven
from gateway.services.link import Key, Linking
from gateway.services.pace import Pace
from gateway.services.prove import Prove
from gateway.services.stage import Lost
from gateway.services.submit import current
from protocols.directory import Directory
from protocols.exchange.lines import Answer, Hello, Parcel, Post, ProblemLine, Receipt, encode_post
from protocols.ledger.checkpoint import Checkpoint
from protocols.ledger.entry import RECEIPT_KINDS, Entry, parse_entry
from protocols.limits import DIRECTORY_GRACE_S, PARCELS_MAX, REFUSALS_A_DAY_MAX
from protocols.ports.directory import DirectorySource
from protocols.ports.rows import (
    AsideRow,
    InboxRow,
    RefusalRow,
)
from protocols.ports.store import (
    ExchangeStore,
    Standing,
    Unavailable,
)
from protocols.ports.world import Clock
from protocols.problems import ProblemError

_log = structlog.get_logger()
_SEEK_S = 30.0
_OPENED_IN_VAIN = ("msg.overtook", "msg.blob_missing")  # they heal, and cost an opening each time
_NEWEST = 1_024  # entries that may stand behind the last receipts that were given
_TRIES, _TRIED_MAX, _ASIDE_MAX = 3, 4_096, 100
_YIELD_EVERY = 16  # parcels opened before other work of the node gets its turn


@dataclass(frozen=True, slots=True, kw_only=True)
class _Repeat:
    """A receipt that was given before: its entry stands at (origin, index)."""

    origin: str
    index: int


_Result = Done | _Repeat | ProblemError


class Receive:
    """Answers a POST of parcels."""

    def __init__(
        self,
        *,
        member: str,
        directory: DirectorySource,
        committer: Committer,
        store: ExchangeStore,
        linking: Linking,
        prove: Prove,
        judge: Judge,
        pace: Pace,
        blobs: Blobs,
        clock: Clock,
    ) -> None:
        self._member, self._directory, self._committer, self._store = member, directory, committer, store
        self._linking, self._prove, self._judge, self._pace, self._clock = linking, prove, judge, pace, clock
        self._blobs = blobs
        self._sought, self._seek_after = 0, 0.0
        self._tried = OrderedDict[bytes, int]()  # parcels that broke something
        self.outcomes = Counter[str]()  # of every parcel: `received`, `repeated`, or the code of why not

    async def receive(self, caller: str, post: Post, *, fetched: bool = False) -> Post:
        """The answer to a verified member's POST, or to what we `fetched`: receipts and problems in the parcels' order.

        Raises for the POST as a whole: `peer.identity_mismatch`, `peer.suspended`, `proof.*`, `note.invalid`,
        `ledger.split_view`, `dir.stale`, `ledger.rollback`, `peer.rate`, `peer.backlog`.
        """
        directory = await self._fresh(post.hello.dir_version)
        if not directory.active(caller):
            raise ProblemError("peer.suspended", "the member is not active in the directory")
        if self._committer.halted:
            raise self._committer.halted
        entries = [_entry_of(parcel, directory) for parcel in post.items]
        senders = {entry.sender or "" for entry in entries if isinstance(entry, Entry)}
        speaker = directory.speaker(caller, senders, self._member)
        if speaker != caller or (fetched and post.items):
            await self._pace.admit(speaker)
        checkpoints, full = await self._linking.take(post.checkpoints, post.hello.links, directory, about=[speaker])
        origin = self._committer.origin
        if speaker == caller or origin in post.hello.held:  # a hub says nothing where its sender said nothing
            await self._store.name(speaker, origin, post.hello.held.get(origin, (0,)))
        via = caller if caller != speaker else None
        source = caller if fetched or via else None
        results = await self._judge_all(post.items, entries, checkpoints, full, directory, via, source)
        # what overtook its request is rare; for threads that never were it would cost us an opening each, for nothing
        hopeless = [
            each
            for each in results
            if isinstance(each, ProblemError) and (each.kind.retry == "never" or each.code in _OPENED_IN_VAIN)
        ]
        # a hub can see to what is found before opening, and repeats at its own pace; the rest is the sender's
        carried = sum(
            each.code.startswith("proof.") or each.code == "env.recipient_mismatch" or each.code in _OPENED_IN_VAIN
            for each in hopeless
        )
        self._pace.spend(caller, failures=carried)
        self._pace.spend(speaker, failures=len(hopeless) - carried)
        return await self._answer(speaker, results, directory, post)

    async def newest(self, source: str) -> list[Post]:
        """Receipts for a source among our newest entries, a POST for each sender whose messages it had."""
        if self._committer.halted:
            raise self._committer.halted
        checkpoint, entries = await self._prove.last(self._committer.origin, _NEWEST)
        indexes = defaultdict[str, list[int]](list)
        for index, data in entries.items():
            if source.encode() not in data:  # of a thousand few are of one source: the others are not parsed
                continue
            entry = parse_entry(data)
            if entry.kind in RECEIPT_KINDS and (entry.via or entry.sender) == source:
                indexes[entry.sender or ""].append(index)
        note = {(checkpoint.origin, checkpoint.size): checkpoint.note}
        posts = []
        for sender, found in indexes.items():
            named = {checkpoint.origin: await self._store.named(sender, checkpoint.origin)}
            hello = Hello(dir_version=0, links=await self._prove.links_of(note, named))
            places = await self._prove.places(checkpoint, {index: entries[index] for index in found[-PARCELS_MAX:]})
            posts.append(
                Post(hello=hello, checkpoints=note, items=tuple(Receipt(place=place) for place in places.values()))
            )
        return posts

    async def _fresh(self, their_version: int) -> Directory:
        directory, now = current(self._directory), self._clock.now()
        if self._may_seek(their_version if their_version > directory.ref.version else 0, now > directory.expires):
            try:
                directory = await self._directory.refresh(now)
            except ProblemError as problem:
                _log.warning("directory_refresh_failed", code=problem.code)
        if now > directory.expires + timedelta(seconds=DIRECTORY_GRACE_S):
            raise ProblemError("dir.stale", "our directory has expired")
        return directory

    def _may_seek(self, version: int, expired: bool) -> bool:
        """A peer's word makes us look for a version once, and for an expired directory twice a minute, not more."""
        now = asyncio.get_running_loop().time()
        if not (expired or version > self._sought) or now < self._seek_after:
            return False
        self._seek_after, self._sought = now + _SEEK_S, max(version, self._sought)
        return True

    async def _judge_all(
        self,
        parcels: Sequence[Parcel],
        entries: Sequence[Entry | ProblemError],
        checkpoints: Mapping[Key, Checkpoint],
        full: set[Key],
        directory: Directory,
        via: str | None,
        source: str | None,
    ) -> list[_Result]:
        """`source` is where we get attachments that are missing; None where their sender brings them."""
        results: list[_Result | None] = [None] * len(parcels)
        proven: dict[int, Proven] = {}
        for i, (parcel, entry) in enumerate(zip(parcels, entries, strict=True)):
            try:
                if (parcel.place.origin, parcel.place.size) in full:
                    raise ProblemError("checkpoint.unlinked", "this checkpoint waits for links")
                proven[i] = prove_parcel(parcel, entry, checkpoints, self._member, via)
                self._linking.clock(parcel.place.origin, proven[i].entry.at)
            except ProblemError as problem:
                results[i] = problem
        await self._linking.one_history([each.place for each in proven.values()], checkpoints)
        keys = [(each.entry.sender or "", _id(each.entry)) for each in proven.values()]
        inbox, refusals = await self._store.arrivals(keys) if keys else ({}, {})
        standing = Standing(inbox=inbox, refusals=refusals)
        tasks: dict[int, asyncio.Task[_Result]] = {}
        async with asyncio.TaskGroup() as group:
            for n, (i, each) in enumerate(proven.items()):
                before = arrived_before(standing, each.entry.sender or "", _id(each.entry), each.digest, None)
                if before is not None and before.digest == each.digest:
                    results[i] = _Repeat(origin=before.origin, index=before.index)
                    continue
                if n % _YIELD_EVERY == _YIELD_EVERY - 1:
                    await asyncio.sleep(0)
                tasks[i] = group.create_task(
                    self._take(each, directory, inbox.get((each.entry.sender or "", _id(each.entry))), source)
                )
        for i, task in tasks.items():
            results[i] = task.result()
        return [result for result in results if result is not None]

    async def _take(
        self, proven: Proven, directory: Directory, arrived: InboxRow | None, source: str | None
    ) -> _Result:
        """Opens, judges and commits one parcel; never raises, so that one parcel never costs another its answer."""
        try:
            return await self._take_new(proven, directory, arrived, source)
        except ProblemError as problem:
            return problem
        except Unavailable:  # our database's fault, and no parcel's
            return ProblemError("store.busy", "the database cannot be reached")
        except Exception as error:  # P02: whatever one parcel raises is that parcel's problem line, and ours to look at
            _log.exception("parcel_failed", id=str(proven.entry.id))
            await self._poisoned(proven, type(error).__name__)
            return ProblemError("internal", "the parcel could not be judged")

    async def _poisoned(self, proven: Proven, cause: str) -> None:
        """Sets aside what broke us a third time; from then on it is not opened again, until a person replays it."""
        tried = self._tried[proven.digest] = self._tried.pop(proven.digest, 0) + 1
        if len(self._tried) > _TRIED_MAX:
            self._tried.popitem(last=False)
        if tried != _TRIES:
            return
        note = {(proven.place.origin, proven.place.size): proven.note}
        parcel = Parcel(place=proven.place, envelope=proven.envelope)
        post = encode_post(Post(hello=Hello(dir_version=0), checkpoints=note, items=(parcel,)))
        row = AsideRow(
            digest=proven.digest, source=proven.via or proven.entry.sender or "", sender=proven.entry.sender or "",
            id=_id(proven.entry), at=self._clock.now(), cause=cause, post=post,
        )  # fmt: skip
        try:
            await self._store.set_aside(row, _ASIDE_MAX)
        except Exception:  # it comes again, and is tried again
            self._tried[proven.digest] = 0
            _log.exception("parcel_not_set_aside", id=str(proven.entry.id))
        else:
            _log.error("parcel_set_aside", id=str(proven.entry.id))

    async def _take_new(
        self, proven: Proven, directory: Directory, arrived: InboxRow | None, source: str | None
    ) -> _Result:
        if self._tried.get(proven.digest, 0) >= _TRIES:
            raise ProblemError("internal", "it was set aside")
        change = self._judge.judge(proven, directory, arrived)
        if isinstance(change, InboxRow):
            return _Repeat(origin=change.origin, index=change.index)
        if isinstance(change, Refused):
            return await self._refuse(change)
        if change.attachments and (missing := await self._blobs.missing(change.attachments)):
            if source is not None:
                self._blobs.fetch(source, missing)
            raise ProblemError("msg.blob_missing", "an attachment is not here yet")
        try:
            outcome = await self._committer.commit(change, len(proven.envelope))
        except ProblemError as problem:
            if problem.code not in ("thread.not_found", "thread.full", "msg.correlation"):
                raise
            content_c = proven.entry.content_c
            refused = self._judge.refused(
                proven, directory, "msg.correlation", problem.code, read=True, content_c=content_c
            )
            return await self._refuse(refused)
        if isinstance(outcome, Lost) and isinstance(outcome.row, InboxRow | RefusalRow):
            if outcome.row.content_c == proven.entry.content_c or isinstance(outcome.row, RefusalRow):
                return _Repeat(origin=outcome.row.origin, index=outcome.row.index)
            return await self._refuse(self._judge.conflict(proven, directory, outcome.row))
        self.outcomes["received"] += isinstance(outcome, Done)
        return _result(outcome)

    async def _refuse(self, change: Refused) -> _Result:
        self._pace.spend(change.refusal.sender, failures=1)
        now = self._clock.now()
        count = await self._store.refusals_since(change.refusal.sender, now - timedelta(days=1))
        if count >= REFUSALS_A_DAY_MAX:
            raise ProblemError("quota.refusals", f"more than {REFUSALS_A_DAY_MAX} refusals in a day")
        _log.info("parcel_refused", id=str(change.refusal.id), code=change.refusal.code, cause=change.refusal.cause)
        self.outcomes[change.refusal.cause] += 1
        return _result(await self._committer.commit(change))

    async def _answer(self, speaker: str, results: Sequence[_Result], directory: Directory, post: Post) -> Post:
        standing = [result for result in results if not isinstance(result, ProblemError)]
        places, notes = await self._prove.under_one(standing)
        items: list[Answer] = []
        for result in results:
            if isinstance(result, ProblemError):
                self.outcomes[result.code] += 1
                items.append(ProblemLine(code=outside(result.code), detail=result.kind.title))
            else:
                self.outcomes["repeated"] += isinstance(result, _Repeat)
                items.append(Receipt(place=places[result.origin, result.index]))
        hello = Hello(
            dir_version=directory.ref.version,
            held=await self._linking.held(directory.ledgers_of(speaker)),
            links=await self._prove.links_of(notes, post.hello.held),
        )
        return Post(hello=hello, checkpoints=notes, items=tuple(items))


def outside(code: str) -> str:
    """What a peer is told: one `env.invalid` for everything about envelope, content and parsing."""
    return "env.invalid" if code.startswith(("env.", "json.", "b64.", "entry.")) else code


def _id(entry: Entry) -> UUID:
    assert entry.id is not None  # `sent` always has one
    return entry.id


def _entry_of(parcel: Parcel, directory: Directory) -> Entry | ProblemError:
    """The `sent` entry of a parcel, which nobody has proven yet."""
    try:
        entry = parse_entry(parcel.place.entry)
        if entry.kind != "sent":
            raise ProblemError("proof.entry", "the proof is not of a sent entry")
    except ProblemError as problem:
        return problem
    if directory.failing.get(entry.sender or "") == "dir.stale":
        return ProblemError("dir.stale", "the sender's newest record has failed for longer than the grace")
    return entry


def prove_parcel(
    parcel: Parcel, entry: Entry | ProblemError, checkpoints: Mapping[Key, Checkpoint], member: str, via: str | None
) -> Proven:
    """The parcel with its verified proof; ProblemError `proof.*`, and nothing of it is stored."""
    if isinstance(entry, ProblemError):
        raise entry
    place = parcel.place
    checkpoint = checkpoints.get((place.origin, place.size))
    if checkpoint is None:
        raise ProblemError("proof.missing", "no checkpoint line for this proof")
    place.check(checkpoint)
    if place.origin.rpartition("/")[0] != entry.sender:
        raise ProblemError("proof.entry", "the ledger is not the sender's")
    digest = sha256(parcel.envelope).digest()
    if entry.envelope != digest:
        raise ProblemError("proof.entry", "the proof is of another envelope")
    if entry.recipient != member:
        raise ProblemError("env.recipient_mismatch", "the parcel is for another member")
    return Proven(
        entry=entry,
        place=place,
        root=checkpoint.root,
        envelope=parcel.envelope,
        digest=digest,
        note=checkpoint.note,
        via=via,
    )


def _result(outcome: Done | Lost) -> _Result:
    if isinstance(outcome, Done):
        return outcome
    assert isinstance(outcome.row, InboxRow | RefusalRow)
    return _Repeat(origin=outcome.row.origin, index=outcome.row.index)
