"""Deliver: claim what is due per peer, POST it with proofs, verify each receipt, commit what became of it."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from gateway.services.blobs import Blobs
from gateway.services.commit import Committer
from gateway.services.link import Linking
from gateway.services.offer import Offer
from gateway.services.pack import Pack
from gateway.services.settle import Settle, proven_places
from gateway.services.stage import Lost
from gateway.services.submit import current
from gateway.services.wake import woken
from protocols.directory import Directory, Record
from protocols.exchange.lines import Answer, ProblemLine, encode_post, parse_post
from protocols.ledger.entry import parse_entry
from protocols.ledger.proof import Place
from protocols.limits import (
    DIRECTORY_GRACE_S,
    PARCELS_MAX,
    POST_BYTES_MAX,
    UNLINKED_ALARM_S,
    UNLINKED_ON_FOOT_ALARM_S,
)
from protocols.ports.directory import DirectorySource
from protocols.ports.rows import Claimed
from protocols.ports.store import ExchangeStore
from protocols.ports.transport import Transport
from protocols.ports.world import Clock, Ids
from protocols.problems import Fault, ProblemError

_log = structlog.get_logger()
_LEASE = timedelta(seconds=120)
_POST_BYTES = POST_BYTES_MAX // 2  # envelopes; proofs, checkpoints and JSON escapes take the rest
_RETRY_MAX_S, _RETRY_URGENT_MAX_S = 900.0, 60.0
_GREET_S = 60.0  # a member that named unlinked sizes hears from us this often (ten minutes are allowed)
_PAUSE_MAX_S = 60.0  # a peer that is down is tried so often, with one parcel
_BROUGHT_MAX = 4_096
_BEHIND = timedelta(seconds=1)
_LOOK_S = 5.0  # the store is looked at this often even when nothing woke us


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
        pack: Pack,
        settle: Settle,
        transport: Transport,
        offer: Offer,
        blobs: Blobs,
        clock: Clock,
        ids: Ids,
        retry_first_s: float,
    ) -> None:
        self._member, self._directory, self._committer, self._store = member, directory, committer, store
        self._linking, self._pack, self._settle, self._transport = linking, pack, settle, transport
        self._blobs = blobs
        self._offer, self._clock, self._ids, self._retry_first_s = offer, clock, ids, retry_first_s
        self._ways = Counter[str]()  # POSTs to a peer that brought nothing on: each tries the peer's next way
        self._vain = Counter[str]()  # ways to a peer that failed since one of them did not
        self._failures = Counter[str]()  # pauses of a peer, one after the other
        self._paused: dict[str, datetime] = {}
        self._brought = OrderedDict[tuple[UUID, str], None]()  # attachments of which message were put where
        self._wake = asyncio.Event()
        self._busy: set[str] = set()
        self._release_at = 0.0
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
                    now = self._clock.now()
                    for peer, again in (await self._store.due_peers(now)).items():
                        # in a pause what is new waits, but for what is urgent or was hastened by a person
                        if peer not in self._busy and (again or now >= self._paused.get(peer, now)):
                            self._busy.add(peer)
                            group.create_task(self._drain(peer))
                except Exception:  # the store may be away for a while; the loop outlives it
                    _log.exception("outbox_unreadable")
                await woken(self._wake, min(_LOOK_S, self._retry_first_s))

    async def _give_back(self) -> None:
        """Ends claims that nobody works on any more, rather than wait for their leases.

        Several processes of a node share its outbox. Were one thought to be gone that is not, a message would be sent twice
        and settled once.
        """
        failed = dict(self._failed)
        if failed:
            await self._store.postpone(failed)
            self._failed = {id_: due for id_, due in self._failed.items() if id_ not in failed}
        now = asyncio.get_running_loop().time()
        if self._stray or now >= self._release_at:
            own, self._stray, self._release_at = self._stray, False, now + _LOOK_S
            try:
                await self._store.release(own=own)
            except Exception:
                self._stray |= own
                raise

    async def _greet_often(self) -> None:
        while True:
            await asyncio.sleep(_GREET_S)
            await self.greet()

    async def greet(self) -> None:
        """Links for members that named unlinked sizes of our ledger: a POST without parcels. Alarms of what stays so."""
        try:
            directory = current(self._directory)
            for on_foot, wait_s in ((False, UNLINKED_ALARM_S), (True, UNLINKED_ON_FOOT_ALARM_S)):
                for origin in await self._store.unlinked_since(self._clock.now() - timedelta(seconds=wait_s)):
                    if directory.on_foot(self._member, origin.rpartition("/")[0]) is on_foot:
                        self._linking.alarms.setdefault(origin, "checkpoint.unlinked")
            peers = [
                each
                for each in await self._store.unlinked_members(self._committer.origin)
                if each not in self._busy and directory.reachable(each, self._member)
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
        sending, again, failed = await self._pack.ready(claimed, directory, now)
        if again or failed:
            await self._store.postpone({e.id: now for e in again} | {e.id: self._retry_at(e, now) for e in failed})
        if not sending:
            return True
        self._offer.wake(peer)
        posted = sending[:1] if self._failures[peer] else sending  # a peer that failed is tried with one
        due: datetime | None = None
        try:
            settled, codes = await self._exchange(peer, posted, directory)
            self._failures[peer] = self._vain[peer] = 0
            if waiting := sending[len(posted) :]:
                await self._store.postpone(dict.fromkeys(each.id for each in waiting))
                sending = posted
        except ProblemError as problem:
            settled, codes = set(), dict.fromkeys((each.id for each in sending), problem.code)
            due = self._pause(peer, problem, directory)
            if problem.code != "peer.fetches":
                _log.warning("post_failed", peer=peer, code=problem.code, messages=len(sending))
        except asyncio.CancelledError:  # the node stops: the next one sends at once what this one had claimed
            await self._store.postpone(dict.fromkeys(each.id for each in sending))
            raise
        rest = [each for each in sending if each.id not in settled]
        # a hub that has just taken something gets its time: it is gone around when it is asked again in vain
        taken = any(codes[each.id] == "hub.relayed" and not each.attempts for each in rest)
        self._ways[peer] += not settled and not taken
        self._settle.outcomes.update(codes[each.id] for each in rest)
        await self._rest(rest, codes, directory, asked=now, due=due, last=posted)
        if due is not None:
            return due <= self._clock.now()  # by the next way
        return bool(settled) or len(posted) < len(claimed)

    def _pause(self, peer: str, problem: ProblemError, directory: Directory) -> datetime:
        """When a peer that failed as a whole is tried again: at once by its next way, after its last with full jitter.

        Its messages wait together and keep their order; one parcel a pause is all that retries may cost.
        """
        now = self._clock.now()
        if problem.code == "peer.fetches":  # nothing is tried; the directory may name a way one day
            return now + timedelta(seconds=_RETRY_MAX_S)
        self._vain[peer] += 1
        if self._vain[peer] < len(self._carriers(peer, directory)):
            return now
        self._vain[peer] = 0
        self._failures[peer] += 1
        ceiling = min(_PAUSE_MAX_S, self._retry_first_s * 2 ** min(self._failures[peer], 10))
        wait = max(self._retry_first_s, ceiling * self._ids.jitter(), min(problem.retry_after_s, _RETRY_MAX_S))
        self._paused[peer] = now + timedelta(seconds=wait)
        return self._paused[peer]

    async def _exchange(
        self, peer: str, claimed: Sequence[Claimed], directory: Directory
    ) -> tuple[set[UUID], dict[UUID, str]]:
        """POST and answer; the ids that a good receipt settled, and the codes of why others were not."""
        ways = self._carriers(peer, directory)
        if not ways:
            raise ProblemError("peer.fetches", "the directory lists no way to send to this member")
        carrier = ways[self._ways[peer] % len(ways)]
        await self._linking.check_member(peer, directory)
        origin, about = self._committer.origin, [peer, carrier.member]
        post = await self._pack.post(peer, claimed, directory, speakers=about)
        answer = parse_post(await self._transport.post(carrier, encode_post(post)), answer=True)
        checkpoints, _ = await self._linking.take(answer.checkpoints, answer.hello.links, directory, about=about)
        if (
            carrier.member == peer or origin in answer.hello.held
        ):  # a hub says nothing where it has not heard of its own
            await self._store.name(peer, origin, answer.hello.held.get(origin, (0,)))
        if len(answer.items) != len(claimed):
            raise ProblemError("peer.answer", "not one answer a parcel")
        proven = proven_places(answer.items, checkpoints)
        await self._linking.one_history(list(proven.values()), checkpoints)
        pairs, codes = [], {}
        for at, (each, item) in enumerate(zip(claimed, answer.items, strict=True)):
            if at not in proven:
                codes[each.id] = _why(item, peer, directory)
                _log.info("parcel_unanswered", id=str(each.id), code=codes[each.id])
                if codes[each.id] == "msg.blob_missing":
                    await self._bring(each, carrier)
            elif carrier.member != peer and _relayed(proven[at], carrier.member, each):
                codes[each.id] = "hub.relayed"
            else:
                pairs.append((each, proven[at]))
        codes |= await self._settle.settle(pairs, checkpoints, directory)
        return {id_ for id_, code in codes.items() if not code}, codes

    async def _bring(self, claimed: Claimed, carrier: Record) -> None:
        """Puts the message's attachments where it is to go; then it is due at once."""
        content = await self._pack.content(claimed)

        async def then() -> None:
            if (
                key := (claimed.id, carrier.member)
            ) in self._brought:  # a peer may lose what it gets: it waits its time
                return
            while len(self._brought) >= _BROUGHT_MAX:
                self._brought.popitem(last=False)
            self._brought[key] = None
            await self._store.hasten(self._clock.now(), id_=claimed.id)
            self.wake()

        self._blobs.bring(carrier.member, content.message.attachments, then)

    def _carriers(self, peer: str, directory: Directory) -> list[Record]:
        """To whom a POST for a member may go, in the order that its record prefers; `peer.unreachable` for one unlisted."""
        if not directory.active(peer):
            raise ProblemError("peer.unreachable", "the directory has no active member of this name")
        return [record for record in directory.carriers(peer, self._member) if record.member != self._member]

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
        if isinstance(await self._settle.give_up(claimed, "dropped", current(self._directory)), Lost):
            raise ProblemError("thread.state", "it was settled at this moment")

    async def _rest(
        self,
        claimed: Sequence[Claimed],
        codes: Mapping[UUID, str],
        directory: Directory,
        *,
        asked: datetime,
        due: datetime | None,
        last: Sequence[Claimed],
    ) -> None:
        """Postpones what was not settled: each by itself, or where it stood where all wait until `due`, as `_paused` says.

        What had expired when it was `asked` for was asked for the last time. Of what was `last` in a POST whose proofs fail
        whatever the others are, another is tried next.
        """
        now = self._clock.now()
        times = dict[UUID, datetime | None]()
        for each in claimed:
            if each.expires <= asked and not (due and due <= now):  # by its next way it is asked for the last time too
                await self._settle.give_up(each, "expired", directory)
            else:
                times[each.id] = None if due else self._retry_at(each, now)
                if due and codes[each.id] == "peer.fetches":  # nobody tries: no pause of ours holds it back
                    times[each.id] = min(due, each.expires)
                elif due and codes[each.id].startswith("proof.") and each in last:
                    times[each.id] = due + _BEHIND
        if times:
            await self._store.postpone(times, codes)

    def _retry_at(self, claimed: Claimed, now: datetime) -> datetime:
        """Full jitter between 5 s and 15 min (60 s where urgent), and once more right at the expiry."""
        longest = _RETRY_URGENT_MAX_S if claimed.urgent else _RETRY_MAX_S
        ceiling = min(longest, self._retry_first_s * 2 ** min(claimed.attempts, 10))
        wait = max(self._retry_first_s, ceiling * self._ids.jitter())
        return min(now + timedelta(seconds=wait), claimed.expires)


def _why(item: Answer, peer: str, directory: Directory) -> str:
    """Why a line settles nothing: what it says, or else what is wrong with its proof."""
    if isinstance(item, ProblemLine):
        return item.code
    ledger = directory.ledgers.get(item.place.origin)
    return "proof.path" if ledger is not None and ledger.member == peer else "proof.origin"


def _relayed(place: Place, hub: str, claimed: Claimed) -> bool:
    """Whether a hub proves in its ledger that it took exactly this parcel."""
    entry = parse_entry(place.entry)
    return place.origin.rpartition("/")[0] == hub and (entry.kind, entry.id, entry.envelope) == (
        "relayed",
        claimed.id,
        claimed.digest,
    )
