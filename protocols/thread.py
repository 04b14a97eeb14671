"""The life of a thread: one table of events x states for each leg, both roles; and of a message on its way (a smaller table).

Two ends that have seen the same messages are in the same state, in whatever order each saw them: retries are spread and both
sides write at once. So states that end a trace stand in an order (an answer over a refusal over a withdrawal), what comes
too late for its state is kept and changes nothing, and times are those that the messages state.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from protocols.exchange.message import Message
from protocols.problems import ProblemError

Role = Literal["asker", "answerer"]
ThreadState = Literal[
    "SENT", "DELIVERED", "ACKNOWLEDGED", "CLARIFYING", "IN_PROGRESS", "REFERRED", "SILENT", "WITHDRAWN", "REFUSED",
    "PARTIAL", "ANSWERED", "CLOSED", "FAILED",
]  # fmt: skip
Delivery = Literal["queued", "delivered", "refused", "conflict", "undelivered"]

_DUE_MAX = timedelta(days=5 * 366)
_LATE = timedelta(seconds=300)
ROUNDS_MAX = 3
"""Clarifications of one leg; then a person telephones (docs/domain.md section 2)."""

# FAILED too: `undelivered` says nothing about the receiver, who may have the request and answer it
_FRESH: tuple[ThreadState, ...] = ("SENT", "DELIVERED", "FAILED")
_WAITING: tuple[ThreadState, ...] = (*_FRESH, "ACKNOWLEDGED", "IN_PROGRESS", "CLARIFYING", "SILENT", "REFERRED")
_LAPSING: tuple[ThreadState, ...] = ("DELIVERED", "ACKNOWLEDGED", "IN_PROGRESS", "CLARIFYING")
ENDED: tuple[ThreadState, ...] = ("WITHDRAWN", "REFUSED", "PARTIAL", "ANSWERED", "CLOSED")
_Moves = Mapping[ThreadState, ThreadState]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Event:
    """Who may say it; the states in which its speaker may, with what follows; what else it moves where it arrives."""

    by: Role | Literal["both", "none"]
    moves: _Moves
    arrives: _Moves = field(default_factory=dict)


def _to(state: ThreadState, *states: ThreadState) -> dict[ThreadState, ThreadState]:
    return dict.fromkeys(states, state)


def _stay(*states: ThreadState) -> dict[ThreadState, ThreadState]:
    return {state: state for state in states}


_PROGRESS = _to("IN_PROGRESS", *_FRESH, "ACKNOWLEDGED", "IN_PROGRESS") | _stay("CLARIFYING", "REFERRED")
_TRACE: dict[str, _Event] = {
    # what became of the request's delivery, and the clock: no message, known to one end before the other
    "delivered": _Event(by="none", moves=_to("DELIVERED", "SENT", "FAILED")),  # a receipt supersedes `undelivered`
    "undelivered": _Event(by="none", moves=_to("FAILED", "SENT")),
    "refused": _Event(by="none", moves=_to("FAILED", "SENT")),
    "lapsed": _Event(by="none", moves=_to("SILENT", *_LAPSING)),
    "trace.acknowledgement": _Event(by="answerer", moves=_to("ACKNOWLEDGED", *_FRESH) | _stay("SILENT")),
    "trace.status": _Event(by="answerer", moves=_PROGRESS | _stay("SILENT")),
    "trace.status/closed": _Event(
        by="asker", moves=_to("CLOSED", "SILENT", "REFERRED", *ENDED[:-1]), arrives=_to("CLOSED", *_WAITING)
    ),
    "trace.response/interim": _Event(by="answerer", moves=_PROGRESS | _stay("SILENT")),
    "trace.refusal/delay": _Event(by="answerer", moves=_PROGRESS | _to("IN_PROGRESS", "SILENT")),
    "trace.clarification": _Event(
        by="answerer", moves=_to("CLARIFYING", *_FRESH, "ACKNOWLEDGED", "IN_PROGRESS", "SILENT")
    ),
    "trace.clarification-answer": _Event(by="asker", moves=_to("IN_PROGRESS", "CLARIFYING") | _stay("SILENT")),
    "trace.referral": _Event(by="answerer", moves=_to("REFERRED", *_WAITING)),
    "trace.reminder": _Event(by="asker", moves=_stay(*_FRESH, "ACKNOWLEDGED", "IN_PROGRESS", "SILENT")),
    "trace.withdrawal": _Event(by="asker", moves=_to("WITHDRAWN", *_WAITING)),
    "trace.refusal": _Event(by="answerer", moves=_to("REFUSED", *_WAITING), arrives=_to("REFUSED", "WITHDRAWN")),
    "trace.response/partial": _Event(
        by="answerer", moves=_to("PARTIAL", *_WAITING, "REFUSED", "PARTIAL"), arrives=_to("PARTIAL", "WITHDRAWN")
    ),
    "trace.response": _Event(
        by="answerer",
        moves=_to("ANSWERED", *_WAITING, "REFUSED", "PARTIAL", "ANSWERED"),
        arrives=_to("ANSWERED", "WITHDRAWN"),
    ),
}
_DELIVERY = {name: _TRACE[name] for name in ("delivered", "undelivered", "refused")}
_ANSWER = _Event(by="answerer", moves=_to("ANSWERED", *_FRESH, "ANSWERED"))
_ANYTIME = _Event(by="both", moves=_stay(*_WAITING, *ENDED))
_TERMS = dict.fromkeys(
    ("handling.change", "consent.request", "consent.answer", "disclosure.report", "erasure.request", "erasure.confirmation"),
    _ANYTIME,
)  # fmt: skip
TABLE: Mapping[str, Mapping[str, _Event]] = {
    "trace.request": _TRACE | _TERMS,
    "reference.query": _DELIVERY | _TERMS | {"reference.answer": _ANSWER},
    "registry.search": _DELIVERY | _TERMS | {"registry.hit": _ANSWER},
    "registry.record": _DELIVERY
    | _TERMS
    | {"registry.withdrawal": _Event(by="asker", moves=_to("WITHDRAWN", *_FRESH))},
    "recovery.report": _DELIVERY | _TERMS,
    "marking.notice": _DELIVERY | _TERMS,
}
"""The type that opens a leg -> event -> what it does; an event is a message, the request's delivery or the clock."""
ENDS = frozenset(("trace.withdrawal", "trace.status/closed"))
"""What whoever asked may say in a full thread too, so that nobody fills it to hold it open; each can be said once."""
OVERTAKES = frozenset(
    name for table in TABLE.values() for name, event in table.items() if event.by in ("asker", "both")
)
"""What may come before the request of its thread, and then has to come again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One leg of a thread: (thread, counterpart), our role in it, its state and clock; `version` counts what changed it.

    `acknowledge_by` is when an acknowledgement was to come, None once it is late; `due` is when an answer was asked for, `delayed` the last review that was named; the request came `late_ms`
    after it was made (0 where that is next to nothing, None where the asker does not know yet); the clock `stood_ms` while questions were open, and stands since `paused`;
    `question` is the clarification asked last (the greatest id), `unanswered` until its answer; `expected` the first day that the answerer named, `hop` 1 for a first request.
    """

    thread: UUID
    counterpart: str
    role: Role
    kind: str
    state: ThreadState
    version: int
    request: UUID
    opened: datetime
    updated: datetime
    messages: int = 1
    hop: int = 1
    due: datetime | None = None
    late_ms: int | None = None
    delayed: datetime | None = None
    stood_ms: int = 0
    paused: datetime | None = None
    rounds: int = 0
    question: UUID | None = None
    unanswered: bool = False
    expected: datetime | None = None
    acknowledge_by: datetime | None = None
    lapses: datetime | None = None

    def wound(self) -> "Leg":
        """With `lapses` as its clock says: when nothing having come is an event, None where nothing is waited for."""
        runs = self.due is not None and self.state in _LAPSING and self.paused is None
        times = (self.ends if runs else None, self.acknowledge_by if self.state == "DELIVERED" else None)
        waits = self.acknowledge_by if self.state in _FRESH else None
        return replace(self, acknowledge_by=waits, lapses=min((each for each in times if each), default=None))

    @property
    def owed(self) -> datetime | None:
        """When an answer was asked for; where the request came late, the time that it gives runs from there."""
        return self.due and self.due + timedelta(milliseconds=self.late_ms or 0)

    @property
    def ends(self) -> datetime | None:
        """When an answer is due, delays and the time that the clock stood added."""
        return self.owed and max(self.owed, self.delayed or self.owed) + timedelta(milliseconds=self.stood_ms)

    @property
    def asks(self) -> bool:
        """Whether the question asked last is open."""
        return self.state == "CLARIFYING" or (self.unanswered and self.state in ("SILENT", "REFERRED", *ENDED))


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What of a message moves its leg."""

    event: str
    id: UUID
    created: datetime
    in_reply_to: UUID | None = None
    due: datetime | None = None
    hop: int = 1
    pauses: bool = False
    review: datetime | None = None
    expected: datetime | None = None
    acknowledge_by: datetime | None = None


def said_of(message: Message, *, acknowledge_by: datetime | None = None) -> Said:
    """What a valid message says to its leg; `acknowledge_by` is the network's for a request made then."""
    body = message.body
    return Said(
        event=event_of(message.type, body), id=message.id, created=message.created, in_reply_to=message.in_reply_to,
        due=message.due, hop=(body.get("referred") or {}).get("hop", 1), pauses=body.get("clock") == "PAUSED",
        review=_end_of(body.get("review_on")), expected=_end_of(body.get("expected_by")),
        acknowledge_by=acknowledge_by if message.type == "trace.request" else None,
    )  # fmt: skip


def _end_of(day: object) -> datetime | None:
    return datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(days=1) if isinstance(day, str) else None


def event_of(type_: str, body: Mapping[str, Any]) -> str:
    """The event that a message is for its leg."""
    match type_:
        case "trace.response" if body.get("final") is False:
            return "trace.response/interim"
        case "trace.response" if (body.get("result") or {}).get("code") == "PARTIAL_RESTRICTED":
            return "trace.response/partial"
        case "trace.refusal" if body.get("kind") == "DELAY":
            return "trace.refusal/delay"
        case "trace.refusal" if body.get("kind") == "RESTRICTED_CONTENT":
            return "trace.response/partial"
        case "trace.status" if body.get("state") == "CLOSED":
            return "trace.status/closed"
    return type_


def open_leg(said: Said, *, thread: UUID, counterpart: str, role: Role, at: datetime) -> Leg:
    """The leg that an opening message makes; who is asked has it delivered."""
    state: ThreadState = "SENT" if role == "asker" else "DELIVERED"
    # what waits for nothing has no clock; the bound is the same at both ends
    due = min(said.due, said.created + _DUE_MAX) if said.due and "lapsed" in TABLE[said.event] else None
    leg = Leg(
        thread=thread, counterpart=counterpart, role=role, kind=said.event, state=state, version=1, request=said.id,
        opened=at, updated=at, due=due, hop=said.hop,
    )  # fmt: skip
    return leg if role == "asker" else _arrived(replace(leg, acknowledge_by=said.acknowledge_by), said.created, at)


def delivered(leg: Leg, at: datetime, acknowledge_by: datetime | None) -> Leg:
    """The asker's leg once a receipt came, which says when the request did; `acknowledge_by` is the network's for one that arrives then."""
    known = happened(leg, "delivered", at)
    if leg.kind != "trace.request":
        return known
    after = _arrived(replace(known, acknowledge_by=acknowledge_by), leg.opened, at)
    return after if after.version > leg.version or after == leg else replace(after, version=leg.version + 1)


def _arrived(leg: Leg, created: datetime, at: datetime) -> Leg:
    """With its clock started: the request had come by then."""
    late = (at - created) // timedelta(milliseconds=1) if at - created > _LATE else 0
    return replace(leg, late_ms=late if leg.late_ms is None else min(late, leg.late_ms)).wound()


def happened(leg: Leg, event: str, at: datetime) -> Leg:
    """The leg after something that is no message; as it was where that changes nothing."""
    state = TABLE[leg.kind][event].moves.get(leg.state) if event in TABLE[leg.kind] else None
    return leg if state is None else replace(leg, state=state, version=leg.version + 1, updated=at).wound()


def elapsed(leg: Leg, at: datetime) -> tuple[Leg, str]:
    """The leg after its clock ran out, and what that is: `unacknowledged`, `silent`, or nothing (it has not)."""
    if leg.lapses is None or leg.lapses > at:
        return leg, ""
    if leg.acknowledge_by is not None and leg.acknowledge_by <= at:
        return replace(leg, acknowledge_by=None).wound(), "unacknowledged"
    return happened(leg, "lapsed", at), "silent"


def spoken(leg: Leg, said: Said, at: datetime) -> Leg:
    """The leg after a message of ours; `thread.state` where we may not say it now."""
    event = TABLE[leg.kind].get(said.event)
    if event is None or event.by not in ("both", leg.role):
        raise ProblemError("thread.state", f"{said.event} is not for the {leg.role} of a leg that {leg.kind} opened")
    state = event.moves.get(leg.state)
    if state is None:
        raise ProblemError("thread.state", f"{said.event} is not possible in state {leg.state}")
    if why := _uncorrelated(leg, said, at, leg.ends, crossed=False):
        raise ProblemError("thread.state", why)
    return _moved(leg, said, state, at)


def heard(leg: Leg, said: Said, at: datetime) -> Leg:
    """The leg after a message of the counterpart; `msg.correlation` where no order of what was said explains it."""
    event = TABLE[leg.kind].get(said.event)
    if event is None or event.by not in ("both", "answerer" if leg.role == "asker" else "asker"):
        raise ProblemError("msg.correlation", f"{said.event} is not for the counterpart to say")
    if why := _uncorrelated(leg, said, said.created, leg.due, crossed=True):  # by a delay, a question or a receipt
        raise ProblemError("msg.correlation", why)
    state = event.moves.get(leg.state) or event.arrives.get(leg.state) or leg.state
    if leg.role == "asker":  # its receipt may still be on the way
        leg = _arrived(leg, leg.opened, said.created)
    return _moved(leg, said, state, at)


def _uncorrelated(leg: Leg, said: Said, at: datetime, due: datetime | None, *, crossed: bool) -> str:
    """Why a message fits nothing that was said before; empty where it fits."""
    if said.event == "trace.clarification" and leg.rounds >= ROUNDS_MAX:
        return f"{ROUNDS_MAX} rounds of questions are over: telephone"
    if said.event == "trace.clarification-answer" and not (_answers(leg, said) or (crossed and leg.rounds > 1)):
        return "it does not reply to the question that is open"
    if said.event == "trace.reminder" and at < min((each for each in (leg.expected, due) if each), default=at):
        return "the day on which an answer is expected has not passed"
    return ""


def _answers(leg: Leg, said: Said) -> bool:
    return leg.asks and said.in_reply_to == leg.question


def _moved(leg: Leg, said: Said, state: ThreadState, at: datetime) -> Leg:
    changes: dict[str, Any] = {"version": leg.version + 1, "updated": at}
    if said.event == "trace.clarification" and leg.question and said.id < leg.question:  # it came after a later one
        changes["rounds"] = leg.rounds + 1
        state = leg.state
    elif said.event == "trace.clarification" and state == "CLARIFYING":
        changes |= {"rounds": leg.rounds + 1, "question": said.id, "unanswered": True}
        changes["paused"] = said.created if said.pauses else None
    elif said.event == "trace.clarification-answer" and not _answers(leg, said):  # a later question crossed it
        state = leg.state
    elif said.event == "trace.clarification-answer":
        stood = max(said.created - (leg.paused or said.created), timedelta()) // timedelta(milliseconds=1)
        changes |= {"unanswered": False, "paused": None, "stood_ms": leg.stood_ms + stood}
    elif state == "IN_PROGRESS" and leg.state == "SILENT" and leg.asks:  # what ends a silence finds the question open
        state = "CLARIFYING"
    elif state != "CLARIFYING":
        changes["paused"] = None
    if said.event == "trace.refusal/delay" and said.review and leg.due:
        changes["delayed"] = max(leg.delayed or leg.due, said.review)
    if said.expected and said.event in ("trace.acknowledgement", "trace.status"):
        changes["expected"] = min(said.expected, leg.expected or said.expected)
    return replace(leg, state=state, **changes).wound()
