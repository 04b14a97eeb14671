"""The closed set of typed changes that make ledger entries, and what each does under the head lock."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from gateway.services.stage import Lost, Stage
from protocols.exchange.message import AttachmentRef
from protocols.ledger.entry import Entry
from protocols.ports.rows import (
    ApprovalRow,
    ContentRow,
    ErasureRow,
    IdempotencyRow,
    InboxRow,
    OutboxRow,
    ProofRow,
    RefusalRow,
    RelayRow,
    Resealing,
    SealedRow,
)
from protocols.ports.store import Standing, Wanted
from protocols.problems import ProblemError
from protocols.thread import (
    OVERTAKES,
    TABLE,
    Delivery,
    Said,
    delivered,
    elapsed,
    happened,
    heard,
    spoken,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """An entry that states something about this node; `uses`: that what it names as its approval is used up."""

    entry: Entry
    uses: bool = False

    def wants(self, wanted: Wanted) -> None:
        """An approval."""
        if self.uses and self.entry.id:
            wanted.approvals.add(self.entry.id)

    def apply(self, stage: Stage) -> Lost | None:
        """Logs it."""
        (stage.use if self.uses else stage.log)(self.entry)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A message of ours, sealed: `sent`. `said` opens the leg or moves it from version `if_match`; `used` is the entry of its approval."""

    entry: Entry
    outbox: OutboxRow
    content: tuple[ContentRow, ...]
    said: Said
    if_match: int | None = None
    idempotency: IdempotencyRow | None = None
    used: Entry | None = None

    def wants(self, wanted: Wanted) -> None:
        """Key, leg, pair, approval."""
        if self.used and self.used.id:
            wanted.approvals.add(self.used.id)
        if self.idempotency:
            wanted.idempotency.add((self.idempotency.client, self.idempotency.key))
        wanted.legs.add((self.outbox.thread, self.outbox.recipient))
        wanted.pairs.add(self.outbox.recipient)

    def apply(self, stage: Stage) -> Lost | None:
        """Rows and entry, unless the same request was answered before."""
        if self.idempotency:
            before = stage.plan.standing.idempotency.get((self.idempotency.client, self.idempotency.key))
            if before is not None:
                return standing_answer(before, self.idempotency.digest)
            stage.rows.append(self.idempotency)
        if self.used:
            stage.use(self.used)
        _check_generation(self.content, stage)
        out = self.outbox
        key = out.thread, out.recipient
        leg = stage.leg(key)
        if self.said.event in TABLE:
            if leg is not None:
                raise ProblemError("thread.state", "the thread exists")
            stage.open(key, "asker", self.said, out.created)
        else:
            if leg is not None and self.if_match not in (None, leg.version):
                raise ProblemError("precondition.failed", "the thread has another version now")
            stage.tell(key, self.said, out.created, tell=spoken)
        seq = stage.next_seq(out.recipient)
        index = stage.log(self.entry.with_seq(seq))
        stage.rows.append(replace(out, pair_seq=seq, index=index, origin=stage.plan.origin))
        stage.rows += self.content
        stage.event("sent", out.created, out.thread, out.recipient, out.id)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resealed:
    """The same JWS sealed to the recipient's newer key: one more `sent`, same id, content and number."""

    entry: Entry
    outbox: Resealing
    before: SealedRow

    def wants(self, wanted: Wanted) -> None:
        """The message."""
        wanted.outbox.add(self.outbox.id)
        wanted.pairs.add(self.entry.recipient or "")

    def apply(self, stage: Stage) -> Lost | None:
        """Only while the message is queued."""
        if stage.plan.standing.outbox.get(self.outbox.id) != "queued":
            return Lost(row=None)
        entry, recipient = self.entry, self.entry.recipient
        if self.before.origin != stage.plan.origin and recipient:  # numbers count within one ledger
            entry = entry.with_seq(stage.next_seq(recipient))
        index = stage.log(entry)
        pair_seq = entry.pair_seq or self.outbox.pair_seq
        stage.resealed.append(replace(self.outbox, origin=stage.plan.origin, index=index, pair_seq=pair_seq))
        stage.rows.append(self.before)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A parcel that was opened, verified and permitted: `received`. Its attachments have to be here before it is committed."""

    entry: Entry
    inbox: InboxRow
    proof: ProofRow
    content: tuple[ContentRow, ...]
    said: Said
    attachments: tuple[AttachmentRef, ...] = ()

    def wants(self, wanted: Wanted) -> None:
        """Arrival and leg; and what became of the request that it speaks of."""
        wanted.arrivals.add((self.inbox.sender, self.inbox.id))
        if self.said.in_reply_to:
            wanted.arrivals.add((self.inbox.sender, self.said.in_reply_to))
        wanted.legs.add((self.inbox.thread, self.inbox.sender))

    def apply(self, stage: Stage) -> Lost | None:
        """Rows and entry, unless something arrived under this id before."""
        row = self.inbox
        before = arrived_before(stage.plan.standing, row.sender, row.id, row.digest, row.content_c)
        if before is not None:
            return Lost(row=before)
        _check_generation(self.content, stage)
        key = row.thread, row.sender
        if self.said.event in TABLE:
            if (
                row.thread in stage.plan.threads
            ):  # a loop of referrals, or somebody who knows the id of another's thread
                raise ProblemError("msg.correlation", "the thread exists")
            stage.open(key, "answerer", self.said, row.received)
        elif stage.leg(key) is None and self.said.event in OVERTAKES and not self._was_refused(stage):
            raise ProblemError("msg.overtook", "the request of this thread is not here yet")
        else:
            stage.tell(key, self.said, row.received, tell=heard)
        index = stage.log(self.entry)
        stage.rows += [replace(row, index=index, origin=stage.plan.origin), self.proof, *self.content]
        stage.event("received", row.received, row.thread, row.sender, row.id)
        return None

    def _was_refused(self, stage: Stage) -> bool:
        """Whether the request that it speaks of was read and refused: sealed again it would be no other."""
        if self.said.in_reply_to is None:
            return False
        refusals = stage.plan.standing.refusals.get((self.inbox.sender, self.said.in_reply_to), [])
        return any(row.content_c is not None for row in refusals)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Bytes that can never succeed (`refused`), or second content under one id (`id_conflict`)."""

    entry: Entry
    refusal: RefusalRow
    proof: ProofRow

    def wants(self, wanted: Wanted) -> None:
        """The arrival."""
        wanted.arrivals.add((self.refusal.sender, self.refusal.id))

    def apply(self, stage: Stage) -> Lost | None:
        """Row and entry, unless these bytes were answered before."""
        row, standing = self.refusal, stage.plan.standing
        for before in standing.refusals.get((row.sender, row.id), []):
            same_content = row.kind == "id_conflict" and before.kind == row.kind and before.content_c == row.content_c
            if before.digest == row.digest or (same_content and row.content_c is not None):
                return Lost(row=before)
        arrived = standing.inbox.get((row.sender, row.id))
        if arrived is not None and arrived.digest == row.digest:
            return Lost(row=arrived)
        index = stage.log(self.entry)
        stage.rows += [replace(row, index=index, origin=stage.plan.origin), self.proof]
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Relayed:
    """A parcel between two others that we took to carry, as a hub: `relayed`."""

    entry: Entry
    row: RelayRow

    def wants(self, wanted: Wanted) -> None:
        """The same bytes."""
        wanted.relays.add(self.row.digest)

    def apply(self, stage: Stage) -> Lost | None:
        """Once."""
        before = stage.plan.standing.relays.get(self.row.digest)
        if before is not None:
            return Lost(row=before)
        index = stage.log(self.entry)
        stage.rows.append(replace(self.row, origin=stage.plan.origin, index=index))
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of a message of ours: a good receipt came (`receipt`), or we stopped (`undelivered`)."""

    entry: Entry
    id: UUID
    thread: UUID
    recipient: str
    state: Delivery
    at: datetime
    proof: ProofRow | None
    arrived: datetime | None = None
    acknowledge_by: datetime | None = None

    def wants(self, wanted: Wanted) -> None:
        """Message and leg."""
        wanted.outbox.add(self.id)
        wanted.legs.add((self.thread, self.recipient))

    def apply(self, stage: Stage) -> Lost | None:
        """A receipt supersedes `undelivered`; nothing supersedes a receipt."""
        before = stage.plan.standing.outbox.get(self.id)
        if before != "queued" and not (before == "undelivered" and self.proof):
            return Lost(row=None)
        stage.log(self.entry)
        stage.settled.append((self.id, self.state, self.entry.code))
        if self.proof:
            stage.rows.append(self.proof)
        key = self.thread, self.recipient
        leg = stage.leg(key)
        if leg is not None and leg.request == self.id:
            if self.state == "delivered":
                stage.legs[key] = delivered(leg, self.arrived or self.at, self.acknowledge_by)
            else:
                stage.legs[key] = happened(leg, "undelivered" if self.state == "undelivered" else "refused", self.at)
        stage.event(self.state, self.at, self.thread, self.recipient, self.id)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatched:
    """The member's own system has the message: `dispatched`."""

    entry: Entry
    sender: str
    id: UUID

    def wants(self, wanted: Wanted) -> None:
        """The arrival."""
        wanted.arrivals.add((self.sender, self.id))

    def apply(self, stage: Stage) -> Lost | None:
        """Once."""
        row = stage.plan.standing.inbox.get((self.sender, self.id))
        if row is None or row.dispatched:
            return Lost(row=row)
        stage.log(self.entry)
        stage.dispatched.append((self.sender, self.id))
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """Answers to one arrived message and its `dispatched` entry: one change, one transaction."""

    dispatched: Dispatched
    messages: tuple[Submitted, ...]

    def wants(self, wanted: Wanted) -> None:
        """What its pieces want."""
        self.dispatched.wants(wanted)
        for message in self.messages:
            message.wants(wanted)

    def apply(self, stage: Stage) -> Lost | None:
        """All or nothing. A message answered by a person may be dispatched already; the built-in registry goes first."""
        for message in self.messages:
            lost = message.apply(stage)
            if lost is not None:
                return lost
        lost = self.dispatched.apply(stage)
        by_person = any(message.idempotency for message in self.messages)
        return None if by_person else lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Lapsed:
    """Nothing came by the day on which an acknowledgement or an answer was due: an `admin` entry, and an event."""

    entry: Entry
    thread: UUID
    counterpart: str

    def wants(self, wanted: Wanted) -> None:
        """The leg."""
        wanted.legs.add((self.thread, self.counterpart))

    def apply(self, stage: Stage) -> Lost | None:
        """Unless something came at the last moment."""
        key = self.thread, self.counterpart
        leg = stage.leg(key)
        if leg is None:
            return Lost(row=None)
        after, what = elapsed(leg, self.entry.at)
        if self.entry.code != f"thread.{what}" or after is leg:
            return Lost(row=None)
        stage.log(self.entry)
        stage.legs[key] = after
        stage.event(what, self.entry.at, self.thread, self.counterpart, leg.request)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """The keys of a message's content, or of a part, are to be destroyed, whatever comes between: `erased`. `settled` ends what was on its way."""

    entry: Entry
    row: ErasureRow
    settled: Settled | None = None

    def wants(self, wanted: Wanted) -> None:
        """The arrival, or what is on its way."""
        wanted.arrivals.add((self.row.sender, self.row.id))
        if self.settled:
            self.settled.wants(wanted)

    def apply(self, stage: Stage) -> Lost | None:
        """What waited for our systems does so no more: nobody says that they had it."""
        row = self.row
        stage.log(self.entry)
        arrived = stage.plan.standing.inbox.get((row.sender, row.id))
        if arrived is not None and not arrived.dispatched and not row.part:
            stage.dispatched.append((row.sender, row.id))
        if self.settled:
            self.settled.apply(stage)
        stage.event("erased", self.entry.at, row.thread, row.sender if arrived else row.recipient, row.id)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A second person is asked for (`content` says what), or has ruled: an `admin` entry."""

    entry: Entry
    row: ApprovalRow
    content: tuple[ContentRow, ...] = ()

    def wants(self, wanted: Wanted) -> None:
        """The approval."""
        wanted.approvals.add(self.row.id)

    def apply(self, stage: Stage) -> Lost | None:
        """The first ruling counts."""
        before = stage.plan.standing.approvals.get(self.row.id)
        if before is not None and before.ruling:
            return Lost(row=None)
        _check_generation(self.content, stage)
        stage.log(self.entry)
        stage.rows += self.content
        stage.approvals[self.row.id] = self.row
        return None


Change = (
    Approval
    | Erased
    | Lapsed
    | Noted
    | Submitted
    | Resealed
    | Received
    | Refused
    | Relayed
    | Settled
    | Dispatched
    | Answered
)


def standing_answer(before: IdempotencyRow, digest: bytes) -> Lost:
    """The answer given before under this key; `idempotency.reused` where the request was another."""
    if before.digest != digest:
        raise ProblemError("idempotency.reused", "this key was used for another request")
    return Lost(row=before)


def arrived_before(
    standing: Standing, sender: str, id_: UUID, digest: bytes, content_c: bytes | None
) -> InboxRow | RefusalRow | None:
    """What stands for these bytes, or else for this id with this content or another."""
    refusals = standing.refusals.get((sender, id_), [])
    same = [row for row in refusals if row.digest == digest]
    if same:
        return same[0]
    arrived = standing.inbox.get((sender, id_))
    if arrived is not None:
        conflicts = [row for row in refusals if row.kind == "id_conflict" and row.content_c == content_c]
        return conflicts[0] if conflicts and content_c is not None else arrived
    return None


def _check_generation(content: Sequence[ContentRow], stage: Stage) -> None:
    if any(row.generation != stage.plan.generation for row in content):
        raise ProblemError("store.busy", "the epoch key was changed meanwhile")
