"""Deliver: claim what is due per peer, POST it with proofs, verify each receipt, commit what became of it."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from gateway.services.changes import Lost, Settled
from gateway.services.commit import Committer, Outcome
from gateway.services.content import open_content
from gateway.services.judge import proof_row
from gateway.services.link import Key, Linking
from gateway.services.prove import Prove
from gateway.services.submit import Submit, current
from protocols.directory import Directory
from protocols.exchange.lines import Answer, Hello, Parcel, Post, ProblemLine, Receipt, encode_post, parse_post
from protocols.ledger.checkpoint import Checkpoint
from protocols.ledger.entry import NONCE_BYTES, RECEIPT_KINDS, Entry, PeerRef, parse_entry
from protocols.ledger.merkle import leaf_hash
from protocols.ledger.proof import Place
from protocols.limits import DIRECTORY_GRACE_S, PARCELS_MAX, POST_BYTES_MAX, UNLINKED_ALARM_S
from protocols.ports.crypto import Sealer, Vault
from protocols.ports.directory import DirectorySource
from protocols.ports.rows import (
    Claimed,
)
from protocols.ports.store import (
    ExchangeStore,
    ThreadStore,
)
from protocols.ports.transport import Transport
from protocols.ports.world import Clock, Ids
from protocols.problems import Fault, ProblemError
from protocols.thread import Delivery

_log = structlog.get_logger()
_LEASE = timedelta(seconds=120)
_POST_BYTES = POST_BYTES_MAX // 2  # envelopes; proofs, checkpoints and JSON escapes take the rest
_RETRY_MAX_S, _RETRY_URGENT_MAX_S = 900.0, 60.0
_GREET_S = 60.0  # a member that named unlinked sizes hears from us this often (ten minutes are allowed)
_UNLINKED_ALARM = timedelta(seconds=UNLINKED_ALARM_S)
_LOOK_S = 5.0  # the store is looked at this often even when nothing woke us
_STATES: dict[str, Delivery] = {"received": "delivered", "refused": "refused", "id_conflict": "conflict"}


class Deliver:
    """The delivery loop; one task per peer with due messages, so that one bad peer never delays another."""

    def __init__(
        self,
        *,
        member: str,
        directory: DirectorySource,
        committer: Committer,
        store: ExchangeStore,
        linking: Linking,
        prove: Prove,
        transport: Transport,
        threads: ThreadStore,
        vault: Vault,
        submit: Submit,
        sealer: Sealer,
        clock: Clock,
        ids: Ids,
        retry_first_s: float,
    ) -> None:
        self._member, self._directory, self._committer, self._store = member, directory, committer, store
        self._linking, self._prove, self._transport, self._sealer = linking, prove, transport, sealer
        self._threads, self._vault, self._submit = threads, vault, submit
        self._clock, self._ids, self._retry_first_s = clock, ids, retry_first_s
        # of every message tried: its new state, or the code of why it waits on
        self.outcomes = Counter[str](dict.fromkeys(_STATES.values(), 0))
        self._wake = asyncio.Event()
        self._busy: set[str] = set()
        self._stray = (
            True  # there may be claims that nobody works on: of a killed node, or lost with the store's answer
        )
        self._failed: dict[
            UUID, datetime
        ] = {}  # claimed messages that an error of ours left behind, and when they are due

    def wake(self) -> None:
        """Looks at the outbox now."""
        self._wake.set()

    async def run(self) -> None:
        """Delivers until cancelled; what is claimed then is given back."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._greet_often())
            while True:
                self._wake.clear()
                try:
                    await self._give_back()
                    for peer in await self._store.due_peers(self._clock.now()):
                        if peer not in self._busy:
                            self._busy.add(peer)
                            group.create_task(self._drain(peer))
                except Exception:  # the store may be away for a while; the loop outlives it
                    _log.exception("outbox_unreadable")
                try:
                    async with asyncio.timeout(min(_LOOK_S, self._retry_first_s)):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def _give_back(self) -> None:
        """Ends claims that nobody works on any more, rather than wait for their leases.

        A node is the only one that delivers its outbox, with one task a peer. Were there another, a message would be sent twice
        and settled once.
        """
        failed = dict(self._failed)
        if failed:
            await self._store.postpone(failed)
            self._failed = {id_: due for id_, due in self._failed.items() if id_ not in failed}
        if self._stray:
            self._stray = False
            try:
                await self._store.release()
            except Exception:
                self._stray = True
                raise

    async def _greet_often(self) -> None:
        while True:
            await asyncio.sleep(_GREET_S)
            await self.greet()

    async def greet(self) -> None:
        """Links for members that named unlinked sizes of our ledger: a POST without parcels. Alarms of what stays so."""
        try:
            for origin in await self._store.unlinked_since(self._clock.now() - _UNLINKED_ALARM):
                self._linking.alarms.setdefault(origin, "checkpoint.unlinked")
            peers = [
                each for each in await self._store.unlinked_members(self._committer.origin) if each not in self._busy
            ]
            async with asyncio.TaskGroup() as group:
                for peer in peers:
                    group.create_task(self._greet_one(peer))
        except Exception:  # the store may be away for a while; the next round tries again
            _log.exception("greeting_failed")

    async def _greet_one(self, peer: str) -> None:
        try:
            async with asyncio.timeout(_GREET_S):
                await self._exchange(peer, (), current(self._directory))
        except (ProblemError, TimeoutError) as error:
            _log.warning("post_failed", peer=peer, code=getattr(error, "code", "peer.unreachable"), messages=0)

    async def _drain(self, peer: str) -> None:
        """POSTs to one peer until nothing is due for it."""
        posted = False
        try:
            while await self.deliver(peer):
                posted = True
        except Exception:  # one peer's failure is its own; its messages are given back
            _log.exception("delivery_failed", peer=peer)
        finally:
            self._busy.discard(peer)
            if posted:  # what came after the last look was not started, since this peer was busy
                self._wake.set()

    async def deliver(self, peer: str) -> bool:
        """One POST to a peer; whether there may be more. Claimed messages are settled or postponed when it returns."""
        now = self._clock.now()
        directory = current(self._directory)
        if now > directory.expires + timedelta(seconds=DIRECTORY_GRACE_S) or self._committer.halted:
            return False  # submissions are held (docs/protocol.md section 5)
        try:
            claimed = await self._store.claim(peer, now, now + _LEASE, PARCELS_MAX, _POST_BYTES)
        except Exception:
            self._stray = True
            raise
        try:
            return bool(claimed) and await self._send(peer, claimed, directory, now)
        except Exception:
            self._failed |= {each.id: self._retry_at(each, now) for each in claimed}
            raise

    async def _send(self, peer: str, claimed: Sequence[Claimed], directory: Directory, now: datetime) -> bool:
        revoked = [each for each in claimed if _revoked(each, directory)]
        for each in revoked:
            await self._give_up(each, "key.revoked", directory)
        sending = [each for each in claimed if not _revoked(each, directory)]
        stale = [each for each in sending if each.expires > now and _seal_retired(each, directory, now)]
        for each in stale:
            await self._reseal(each)
        sending = [each for each in sending if each not in stale]
        if not sending:
            return True
        try:
            settled, codes = await self._exchange(peer, sending, directory)
        except ProblemError as problem:
            settled, codes = set(), dict.fromkeys((each.id for each in sending), problem.code)
            _log.warning("post_failed", peer=peer, code=problem.code, messages=len(sending))
        except asyncio.CancelledError:  # the node stops: the next one sends at once what this one had claimed
            await self._store.postpone({each.id: now for each in sending})
            raise
        rest = [each for each in sending if each.id not in settled]
        self.outcomes.update(codes[each.id] for each in rest)
        await self._rest(rest, codes, directory, asked=now)
        return bool(settled)

    async def _reseal(self, claimed: Claimed) -> None:
        """Seals the same JWS to the newer key; the message is due again at once, or later where that cannot be."""
        due = self._clock.now()
        try:
            content = open_content(self._vault, await self._threads.content(self._member, claimed.id))
            before = await self._store.sealed([claimed.id])
            first = min(before, key=lambda row: (row.origin, row.index), default=None)
            leaf = leaf_hash(await self._prove.entry(first.origin, first.index) if first else claimed.entry)
            origin, index = (first.origin, first.index) if first else (claimed.origin, claimed.index)
            await self._committer.commit(
                self._submit.reseal(claimed, content, PeerRef(origin=origin, index=index, leaf=leaf))
            )
        except ProblemError as problem:
            _log.warning("reseal_failed", id=str(claimed.id), code=problem.code)
            due = self._retry_at(claimed, due)
        await self._store.postpone({claimed.id: due})

    async def _exchange(
        self, peer: str, claimed: Sequence[Claimed], directory: Directory
    ) -> tuple[set[UUID], dict[UUID, str]]:
        """POST and answer; the ids that a good receipt settled, and the codes of why others were not."""
        record = directory.records.get(peer)
        if record is None or not directory.active(peer) or record.endpoint is None:
            raise ProblemError("peer.unreachable", "the directory has no active endpoint of this member")
        await self._linking.check_member(peer, directory)
        origin = self._committer.origin
        checkpoint = await self._prove.newest(origin)
        post = await self._post(peer, claimed, checkpoint, directory)
        answer = parse_post(await self._transport.post(record, encode_post(post)), answer=True)
        checkpoints, _ = await self._linking.take(answer.checkpoints, answer.hello.links, directory, about=[peer])
        await self._store.name(peer, origin, answer.hello.held.get(origin, (0,)))
        if len(answer.items) != len(claimed):
            raise ProblemError("peer.answer", "not one answer a parcel")
        proven = _proven(answer.items, checkpoints)
        await self._linking.one_history(list(proven.values()), checkpoints)
        changes: list[Settled] = []
        codes = {}
        for at, (each, item) in enumerate(zip(claimed, answer.items, strict=True)):
            if at in proven:
                change = await self._settle(each, proven[at], checkpoints, directory)
                changes += [change] if change else []
                codes[each.id] = "peer.answer"  # of those that stay: a receipt of something else
            else:
                codes[each.id] = _why(item, peer, directory)
                _log.info("parcel_unanswered", id=str(each.id), code=codes[each.id])
        outcomes = await asyncio.gather(*map(self._committer.enqueue, changes), return_exceptions=True)
        settled = {
            change.id
            for change, outcome in zip(changes, outcomes, strict=True)
            if not isinstance(outcome, BaseException)
        }
        failed = zip(changes, outcomes, strict=True)
        codes |= {change.id: outcome.code for change, outcome in failed if isinstance(outcome, ProblemError)}
        self.outcomes.update(change.state for change in changes if change.id in settled)
        return settled, codes

    async def _post(self, peer: str, claimed: Sequence[Claimed], checkpoint: Checkpoint, directory: Directory) -> Post:
        """The lines for these messages, each proven under our newest checkpoint (of its own ledger)."""
        notes: dict[Key, bytes] = {}
        places: dict[Key, Place] = {}
        for origin in {checkpoint.origin, *(each.origin for each in claimed)}:  # without parcels links alone are sent
            newest = checkpoint if origin == checkpoint.origin else await self._prove.newest(origin)
            notes[origin, newest.size] = newest.note
            entries = {each.index: each.entry for each in claimed if each.origin == origin}
            places |= {(origin, index): place for index, place in (await self._prove.places(newest, entries)).items()}
        theirs = [origin for origin, ledger in directory.ledgers.items() if ledger.member == peer]
        links = {}
        for origin, size in notes:
            newest = await self._prove.at(origin, size)
            links[origin] = await self._prove.links(newest, await self._store.named(peer, origin) or (0,))
        held = await self._linking.held(theirs)
        items = tuple(Parcel(place=places[each.origin, each.index], envelope=each.envelope) for each in claimed)
        hello = Hello(dir_version=directory.ref.version, held=held, links=links)
        return Post(hello=hello, checkpoints=notes, items=items)

    async def _settle(
        self, claimed: Claimed, place: Place, checkpoints: Mapping[Key, Checkpoint], directory: Directory
    ) -> Settled | None:
        """The change of a good receipt; None for one that proves nothing about this message."""
        try:
            entry = await self._good(claimed, place, directory)
        except ProblemError as problem:
            _log.warning("receipt_refused", id=str(claimed.id), code=problem.code, why=problem.detail)
            return None
        root = checkpoints[place.origin, place.size].root
        leaf = leaf_hash(place.entry)
        peer = PeerRef(origin=place.origin, index=place.index, leaf=leaf, size=place.size, root=root)
        ours = self._entry(claimed, "receipt", directory, peer=peer, code=entry.code)
        return Settled(
            entry=ours,
            id=claimed.id,
            thread=claimed.thread,
            recipient=claimed.recipient,
            state=_STATES[entry.kind],
            at=ours.at,
            proof=proof_row(claimed.recipient, place, claimed.id, claimed.digest),
            acknowledge_by=directory.acknowledge_due(ours.at),
        )

    async def _good(self, claimed: Claimed, place: Place, directory: Directory) -> Entry:
        """The entry of a proven receipt when it is good by docs/protocol.md section 4 (Deliver); `proof.*` else."""
        if directory.ledgers[place.origin].member != claimed.recipient:
            raise ProblemError("proof.origin", "not proven in the recipient's ledger")
        entry = parse_entry(place.entry)
        if entry.kind not in RECEIPT_KINDS or (entry.sender, entry.recipient, entry.id) != (
            self._member,
            claimed.recipient,
            claimed.id,
        ):
            raise ProblemError("proof.entry", "not a receipt for this message")
        origin, index, data = claimed.origin, claimed.index, claimed.entry
        if entry.envelope != claimed.digest:
            origin, index, data = await self._sealed_before(claimed, entry.envelope)
        if entry.content_c not in (None, claimed.content_c):
            raise ProblemError("proof.entry", "the receipt names another content")
        if entry.peer is None or (entry.peer.origin, entry.peer.index, entry.peer.leaf) != (
            origin,
            index,
            leaf_hash(data),
        ):
            raise ProblemError("proof.entry", "the receipt names another entry of ours")
        sent = parse_entry(data)
        repeated = ("pair_seq", "kid", "seal_kid", "suite", "thread_c") if entry.kind == "received" else ("pair_seq",)
        if any(getattr(entry, name) != getattr(sent, name) for name in repeated):
            raise ProblemError("proof.entry", "the receipt does not repeat what we logged")
        return entry

    async def _sealed_before(self, claimed: Claimed, digest: bytes | None) -> tuple[str, int, bytes]:
        """Our entry for these bytes of the message before it was sealed again; `proof.entry` where there is none."""
        for row in await self._store.sealed([claimed.id]):
            if row.digest == digest:
                return row.origin, row.index, await self._prove.entry(row.origin, row.index)
        raise ProblemError("proof.entry", "the receipt names bytes that we never logged")

    def _entry(
        self, claimed: Claimed, kind: str, directory: Directory, *, peer: PeerRef | None = None, code: str | None = None
    ) -> Entry:
        return Entry(
            kind=kind, at=self._clock.now(), n=self._sealer.random(NONCE_BYTES), id=claimed.id, sender=self._member,
            recipient=claimed.recipient, pair_seq=claimed.pair_seq, envelope=claimed.digest,
            content_c=claimed.content_c, code=code, dir=directory.ref, peer=peer,
        )  # fmt: skip

    async def drop(self, id_: UUID) -> None:
        """Gives up a message that was never settled, as an operator wants: `undelivered`, `dropped`.

        ProblemError `thread.state` where it does not wait, or is being sent at this moment.
        """
        now = self._clock.now()
        claimed = await self._store.take(id_, now, now + _LEASE)
        if claimed is None:
            fault = Fault("", "thread.state", "", "See what waits: `tracewire outbox list`; try again in a minute.")
            said = "no such message waits, or it is being sent at this moment"
            raise ProblemError("thread.state", said, errors=[fault])
        if isinstance(await self._give_up(claimed, "dropped", current(self._directory)), Lost):
            raise ProblemError("thread.state", "it was settled at this moment")

    async def _give_up(self, claimed: Claimed, code: str, directory: Directory) -> Outcome:
        entry = self._entry(claimed, "undelivered", directory, code=code)
        return await self._committer.commit(
            Settled(
                entry=entry,
                id=claimed.id,
                thread=claimed.thread,
                recipient=claimed.recipient,
                state="undelivered",
                at=entry.at,
                proof=None,
            )
        )

    async def _rest(
        self, claimed: Sequence[Claimed], codes: Mapping[UUID, str], directory: Directory, *, asked: datetime
    ) -> None:
        """Postpones what was not settled; what had expired when it was `asked` for was asked for the last time."""
        now = self._clock.now()
        due = {}
        for each in claimed:
            if each.expires <= asked:
                await self._give_up(each, "expired", directory)
            else:
                due[each.id] = self._retry_at(each, now)
        if due:
            await self._store.postpone(due, codes)

    def _retry_at(self, claimed: Claimed, now: datetime) -> datetime:
        """Full jitter between 5 s and 15 min (60 s where urgent), and once more right at the expiry."""
        longest = _RETRY_URGENT_MAX_S if claimed.urgent else _RETRY_MAX_S
        ceiling = min(longest, self._retry_first_s * 2 ** min(claimed.attempts, 10))
        wait = max(self._retry_first_s, ceiling * self._ids.jitter())
        return min(now + timedelta(seconds=wait), claimed.expires)


def _proven(items: Sequence[Answer], checkpoints: Mapping[Key, Checkpoint]) -> dict[int, Place]:
    """The receipts that hold under a verified checkpoint of the answer, by their position."""
    found = {}
    for at, item in enumerate(items):
        if isinstance(item, Receipt) and (item.place.origin, item.place.size) in checkpoints:
            try:
                item.place.check(checkpoints[item.place.origin, item.place.size])
            except ProblemError:
                continue
            found[at] = item.place
    return found


def _why(item: Answer, peer: str, directory: Directory) -> str:
    """Why a line settles nothing: what it says, or else what is wrong with its proof."""
    if isinstance(item, ProblemLine):
        return item.code
    ledger = directory.ledgers.get(item.place.origin)
    return "proof.path" if ledger is not None and ledger.member == peer else "proof.origin"


def _seal_retired(claimed: Claimed, directory: Directory, now: datetime) -> bool:
    """Whether the key it was sealed to is listed as ended and the recipient has a newer one."""
    key = directory.seal_keys.get(claimed.seal_kid)
    retired = key is None or not key.valid(now)
    return retired and any(
        each.member == claimed.recipient and each.valid(now) for each in directory.seal_keys.values()
    )


def _revoked(claimed: Claimed, directory: Directory) -> bool:
    key = directory.message_keys.get(claimed.kid)
    return key is not None and key.revoked is not None
