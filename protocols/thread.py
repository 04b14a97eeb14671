"""The life of a thread (one table of states x events per leg) and of a message on its way (a smaller table)."""

from typing import Literal

from protocols.problems import ProblemError

ThreadState = Literal["SENT", "DELIVERED", "ACKNOWLEDGED", "IN_PROGRESS", "ANSWERED", "REFUSED", "FAILED"]
Delivery = Literal["queued", "delivered", "refused", "conflict", "undelivered"]

_OPEN = ("SENT", "DELIVERED", "ACKNOWLEDGED", "IN_PROGRESS")
_TABLE: dict[str, dict[str, ThreadState]] = {
    "delivered": {"SENT": "DELIVERED"},
    "undelivered": {"SENT": "FAILED"},
    "refused": {"SENT": "FAILED"},
    "trace.acknowledgement": dict.fromkeys(_OPEN, "ACKNOWLEDGED"),
    "trace.response": dict.fromkeys((*_OPEN, "ANSWERED"), "ANSWERED"),
    "trace.response/interim": dict.fromkeys(_OPEN, "IN_PROGRESS"),
    "trace.refusal": dict.fromkeys(_OPEN, "REFUSED"),
    "trace.refusal/delay": dict.fromkeys(_OPEN, "IN_PROGRESS"),
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
