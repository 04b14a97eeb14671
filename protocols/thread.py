"""The life of a thread (one table of states x events per leg) and of a message on its way (a smaller table)."""

from typing import Literal

from protocols.problems import ProblemError

ThreadState = Literal["SENT", "DELIVERED", "ACKNOWLEDGED", "IN_PROGRESS", "ANSWERED", "REFUSED", "FAILED"]
Delivery = Literal["queued", "delivered", "refused", "conflict", "undelivered"]

# FAILED too: `undelivered` says nothing about the receiver, who may have the request and answer it
_OPEN = ("SENT", "DELIVERED", "ACKNOWLEDGED", "IN_PROGRESS", "FAILED")
# retries are spread, so what was said before the last word may come after it: kept, and the state stays
_LATE: dict[str, ThreadState] = {"ANSWERED": "ANSWERED", "REFUSED": "REFUSED"}


def _to(state: ThreadState, *states: str) -> dict[str, ThreadState]:
    return dict.fromkeys(states, state)


_TABLE: dict[str, dict[str, ThreadState]] = {
    "delivered": _to("DELIVERED", "SENT", "FAILED"),  # a receipt supersedes `undelivered`
    "undelivered": _to("FAILED", "SENT"),
    "refused": _to("FAILED", "SENT"),
    "trace.acknowledgement": _to("ACKNOWLEDGED", *_OPEN) | _LATE,
    "trace.response": _to("ANSWERED", *_OPEN, "ANSWERED"),
    "trace.response/interim": _to("IN_PROGRESS", *_OPEN) | _LATE,
    "trace.refusal": _to("REFUSED", *_OPEN),
    "trace.refusal/delay": _to("IN_PROGRESS", *_OPEN) | _LATE,
}
"""event -> {state: next state}; an event is a message type (both sides) or what became of the request's delivery."""


def event_of(type_: str, body: dict[str, object]) -> str:
    """The event that a message is for its thread."""
    if type_ == "trace.response" and body.get("final") is False:
        return "trace.response/interim"
    if type_ == "trace.refusal" and body.get("kind") == "DELAY":
        return "trace.refusal/delay"
    return type_


def advance(state: ThreadState, event: str) -> ThreadState:
    """The next state; `thread.state` where the event is not possible."""
    following = _TABLE.get(event, {}).get(state)
    if following is None:
        raise ProblemError("thread.state", f"{event} is not possible in state {state}")
    return following
