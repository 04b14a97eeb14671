"""What changes do under the head lock: the stage of one change, and the plan of a batch that it is merged into."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from protocols.ledger.entry import Entry
from protocols.limits import MESSAGES_A_LEG_MAX
from protocols.ports.rows import (
    ApprovalRow,
    EventRow,
    IdempotencyRow,
    InboxRow,
    OutboxRow,
    RefusalRow,
    RelayRow,
    Resealing,
    Row,
)
from protocols.ports.store import Standing
from protocols.problems import ProblemError
from protocols.thread import ENDS, Delivery, Leg, Role, Said, open_leg


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The change was made before: what stands in its place."""

    row: IdempotencyRow | InboxRow | RefusalRow | RelayRow | None


@dataclass(slots=True)
class Stage:
    """What one change wants to write; merged into the plan only when the whole change succeeded."""

    plan: "Plan"
    entries: list[bytes] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    settled: list[tuple[UUID, Delivery, str | None]] = field(default_factory=list)
    resealed: list[Resealing] = field(default_factory=list)
    dispatched: list[tuple[str, UUID]] = field(default_factory=list)
    legs: dict[tuple[UUID, str], Leg] = field(default_factory=dict)
    pairs: dict[str, int] = field(default_factory=dict)
    approvals: dict[UUID, ApprovalRow] = field(default_factory=dict)
    forgotten: list[UUID] = field(default_factory=list)

    def log(self, entry: Entry) -> int:
        """Appends an entry; its index."""
        self.entries.append(entry.encode())
        return self.plan.size + len(self.entries) - 1

    def next_seq(self, recipient: str) -> int:
        """The next pair_seq of us -> recipient in this ledger, from 1."""
        given = self.pairs.get(recipient) or self.plan.standing.pairs.get(recipient, 1)
        self.pairs[recipient] = given + 1
        return given

    def leg(self, key: tuple[UUID, str]) -> Leg | None:
        """The leg as it stands after what came before in the batch."""
        return self.legs.get(key) or self.plan.standing.legs.get(key)

    def use(self, entry: Entry) -> None:
        """Uses the approval up that an entry names; `approval.needed` where it is not there to be used, or was used before."""
        row = self.plan.standing.approvals.get(entry.id) if entry.id else None
        if row is None or row.ruling != "APPROVED" or row.used:
            raise ProblemError("approval.needed", "its approval was used before")
        self.log(entry)
        self.approvals[row.id] = replace(row, used=True)
        if row.act in ("registry.search", "registry.lookup"):  # what was searched for stands in the message, if at all
            self.forgotten.append(row.id)

    def event(self, kind: str, at: datetime, thread: UUID, counterpart: str, message: UUID) -> None:
        """A line for the event feed."""
        self.rows.append(EventRow(at=at, kind=kind, thread=thread, counterpart=counterpart, message=message))

    def open(self, key: tuple[UUID, str], role: Role, said: Said, at: datetime) -> None:
        """A new leg, of the message that opens it."""
        self.legs[key] = open_leg(said, thread=key[0], counterpart=key[1], role=role, at=at)

    def tell(
        self, key: tuple[UUID, str], said: Said, at: datetime, *, tell: Callable[[Leg, Said, datetime], Leg]
    ) -> None:
        """Moves a leg by a message; `thread.not_found` without one, `thread.full`, or what `tell` finds wrong."""
        leg = self.leg(key)
        if leg is None:
            raise ProblemError("thread.not_found", "no such leg")
        if leg.messages >= MESSAGES_A_LEG_MAX and said.event not in ENDS:
            raise ProblemError("thread.full", f"more than {MESSAGES_A_LEG_MAX} messages")
        self.legs[key] = replace(tell(leg, said, at), messages=leg.messages + 1)


class Plan:
    """A batch in the making: what stands, overlaid by what the changes so far wrote."""

    def __init__(self, *, origin: str, size: int, generation: int, standing: Standing) -> None:
        self.origin = origin
        self.size = size
        self.generation = generation
        self.standing = standing
        self.threads = {thread for thread, _ in standing.legs}
        self.entries: list[bytes] = []
        self.rows: list[Row] = []
        self.settled: list[tuple[UUID, Delivery, str | None]] = []
        self.resealed: list[Resealing] = []
        self.dispatched: list[tuple[str, UUID]] = []
        self.legs: dict[tuple[UUID, str], Leg] = {}
        self.pairs: dict[str, int] = {}
        self.approvals: dict[UUID, ApprovalRow] = {}
        self.forgotten: list[UUID] = []

    def merge(self, stage: Stage) -> None:
        """Takes over a change that succeeded, so that the next one in the batch sees it."""
        self.entries += stage.entries
        self.size += len(stage.entries)
        self.rows += stage.rows
        self.settled += stage.settled
        self.resealed += stage.resealed
        self.dispatched += stage.dispatched
        self.legs |= stage.legs
        self.pairs |= stage.pairs
        self.approvals |= stage.approvals
        self.forgotten += stage.forgotten
        standing = self.standing
        standing.legs |= stage.legs
        self.threads |= {thread for thread, _ in stage.legs}
        standing.pairs |= stage.pairs
        standing.approvals |= stage.approvals
        standing.outbox |= {id_: state for id_, state, _ in stage.settled}
        for key in stage.dispatched:
            standing.inbox[key] = replace(standing.inbox[key], dispatched=True)
        for row in stage.rows:
            match row:
                case IdempotencyRow():
                    standing.idempotency[row.client, row.key] = row
                case InboxRow():
                    standing.inbox[row.sender, row.id] = row
                case RefusalRow():
                    standing.refusals.setdefault((row.sender, row.id), []).append(row)
                case RelayRow():
                    standing.relays[row.digest] = row
                case OutboxRow():
                    standing.outbox[row.id] = row.state
