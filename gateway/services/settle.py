"""Settle: what a receipt proves of a message of ours, whichever way it came, and the end of one that never was received."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from uuid import UUID

import structlog

from gateway.services.changes import Settled
from gateway.services.commit import Committer, Outcome
from gateway.services.judge import proof_row
from gateway.services.link import Key, Linking
from gateway.services.prove import Prove
from protocols.directory import Directory
from protocols.exchange.lines import Answer, Post, Receipt
from protocols.ledger.checkpoint import Checkpoint
from protocols.ledger.entry import NONCE_BYTES, RECEIPT_KINDS, Entry, PeerRef, parse_entry
from protocols.ledger.merkle import leaf_hash
from protocols.ledger.proof import Place
from protocols.ports.crypto import Sealer
from protocols.ports.rows import Claimed
from protocols.ports.store import ExchangeStore
from protocols.ports.world import Clock
from protocols.problems import ProblemError
from protocols.thread import Delivery

_log = structlog.get_logger()
_STATES: dict[str, Delivery] = {"received": "delivered", "refused": "refused", "id_conflict": "conflict"}


class Settle:
    """Judges receipts (docs/protocol.md section 4, Deliver) and commits what they prove."""

    def __init__(
        self,
        *,
        member: str,
        committer: Committer,
        store: ExchangeStore,
        linking: Linking,
        prove: Prove,
        sealer: Sealer,
        clock: Clock,
    ) -> None:
        self._member, self._committer, self._store, self._linking = member, committer, store, linking
        self._prove, self._sealer, self._clock = prove, sealer, clock
        # of every message tried: its new state, or the code of why it waits on
        self.outcomes = Counter[str](dict.fromkeys(_STATES.values(), 0))

    async def take(self, post: Post, caller: str, directory: Directory) -> int:
        """Receipts that come by themselves: of a member that fetches, through a hub, by courier.

        Gives how many settled a message; problem lines say nothing here. `peer.identity_mismatch` for receipts of a member for whom the caller does not
        speak; what was settled before stays so.
        """
        places = [item.place for item in post.items if isinstance(item, Receipt)]
        entries = [parse_entry(place.entry) for place in places]
        speaker = directory.speaker(caller, {entry.recipient or "" for entry in entries}, self._member)
        checkpoints, _ = await self._linking.take(post.checkpoints, post.hello.links, directory, about=[speaker])
        if self._committer.origin in post.hello.held:
            await self._store.name(speaker, self._committer.origin, post.hello.held[self._committer.origin])
        proven = list(proven_places(post.items, checkpoints).values())
        await self._linking.one_history(proven, checkpoints)
        about = [(parse_entry(place.entry).id, place) for place in proven]
        waiting = {each.id: each for each in await self._store.unsettled(speaker, [id_ for id_, _ in about if id_])}
        await self._seconds(speaker, [place for id_, place in about if id_ not in waiting])
        pairs = [(waiting[id_], place) for id_, place in about if id_ in waiting]
        codes = await self.settle(pairs, checkpoints, directory)
        return sum(not code for code in codes.values())

    async def _seconds(self, speaker: str, places: Sequence[Place]) -> None:
        """What was settled stays so; another receipt than the one that did it is kept beside that as evidence."""
        if not places:
            return
        held = {
            (row.origin, row.index) for row in await self._store.proven([(each.origin, each.index) for each in places])
        }
        for place in places:
            entry = parse_entry(place.entry)
            ours = entry.kind in RECEIPT_KINDS and (entry.sender, entry.recipient) == (self._member, speaker)
            if (place.origin, place.index) not in held and ours and entry.id and entry.envelope:
                await self._store.keep_second(proof_row(speaker, place, entry.id, entry.envelope))

    async def settle(
        self, pairs: Sequence[tuple[Claimed, Place]], checkpoints: Mapping[Key, Checkpoint], directory: Directory
    ) -> dict[UUID, str]:
        """Commits what proven receipts say; of each message why it stays unsettled, '' where it is settled."""
        codes: dict[UUID, str] = {}
        changes: list[Settled] = []
        for claimed, place in pairs:
            try:
                changes.append(await self._change(claimed, place, checkpoints, directory))
            except ProblemError as problem:
                _log.warning("receipt_refused", id=str(claimed.id), code=problem.code, why=problem.detail)
                codes[claimed.id] = "peer.answer"
        outcomes = await asyncio.gather(*map(self._committer.enqueue, changes), return_exceptions=True)
        for change, outcome in zip(changes, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                codes[change.id] = getattr(outcome, "code", "internal")
            else:
                codes[change.id] = ""
                self.outcomes[change.state] += 1
        return codes

    async def give_up(self, claimed: Claimed, code: str, directory: Directory) -> Outcome:
        """`undelivered`, for this reason."""
        return await self._committer.commit(self.given_up(claimed, code, directory))

    def given_up(self, claimed: Claimed, code: str, directory: Directory) -> Settled:
        """The change that says so."""
        entry = self._entry(claimed, "undelivered", directory, code=code)
        return Settled(
            entry=entry, id=claimed.id, thread=claimed.thread, recipient=claimed.recipient, state="undelivered", at=entry.at,
            proof=None,
        )  # fmt: skip

    async def _change(
        self, claimed: Claimed, place: Place, checkpoints: Mapping[Key, Checkpoint], directory: Directory
    ) -> Settled:
        """The change of a good receipt; ProblemError `proof.*` for one that proves nothing about this message."""
        entry = await self._good(claimed, place, directory)
        root = checkpoints[place.origin, place.size].root
        leaf = leaf_hash(place.entry)
        peer = PeerRef(origin=place.origin, index=place.index, leaf=leaf, size=place.size, root=root)
        ours = self._entry(claimed, "receipt", directory, peer=peer, code=entry.code)
        arrived = min(entry.at, ours.at)  # whoever's clock is ahead has no more time for it
        return Settled(
            entry=ours,
            id=claimed.id,
            thread=claimed.thread,
            recipient=claimed.recipient,
            state=_STATES[entry.kind],
            at=ours.at,
            proof=proof_row(claimed.recipient, place, claimed.id, claimed.digest),
            arrived=arrived,
            acknowledge_by=directory.acknowledge_due(arrived),
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
        self._linking.clock(place.origin, entry.at, since=sent.at)
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


def proven_places(items: Sequence[Answer], checkpoints: Mapping[Key, Checkpoint]) -> dict[int, Place]:
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
