"""What may be done with the messages of a thread, as their senders said and have said since (UN ITI paragraph 15)."""

from collections.abc import Sequence
from datetime import date
from uuid import UUID

from protocols.exchange.message import Message
from protocols.messages import validate_handling
from protocols.messages.shared import Handling
from protocols.messages.terms import tightens, unreadable


def handling_of(said: Sequence[Message], message: Message) -> Handling:
    """A message's handling, tightened by what its sender said later, kept longer where it consented; looser words count for nothing."""
    found = validate_handling(message.handling)
    for each in said:
        if each.sender != message.sender:
            continue
        if each.type == "handling.change" and each.body["target"] == str(message.id):
            changed = validate_handling(each.body["handling"])
            found = changed if tightens(found, changed) else found
        elif each.type == "consent.answer" and each.body["decision"] == "GRANTED" and found.delete_after:
            asked = find(said, each.recipient, each.in_reply_to)
            about = asked.body if asked and asked.type == "consent.request" else {}
            if (about.get("target"), about.get("to")) == (str(message.id), "LONGER_RETENTION"):
                found = found.model_copy(update={"delete_after": max(found.delete_after, about["until"])})
    return found


def consented(
    said: Sequence[Message], target: Message, to: str, *, recipient: str | None = None, purpose: str | None = None
) -> bool:
    """Whether a message's sender has granted what it was asked about it; its last word counts."""
    granted = False
    for each in said:
        if each.type != "consent.answer" or each.sender != target.sender:
            continue
        for asked in said:
            about = asked.type == "consent.request" and asked.id == each.in_reply_to and asked.recipient == each.sender
            meant = recipient is None or recipient in asked.body.get("recipients", ())
            meant = meant and purpose in (None, asked.body.get("purpose"))
            if about and meant and (asked.body["target"], asked.body["to"]) == (str(target.id), to):
                granted = each.body["decision"] == "GRANTED"
    return granted


def withheld(said: Sequence[Message], message: Message, *, member: str, today: date, purpose: str = "") -> str:
    """Why what another than `member` said is not to be read here, or not for this purpose; empty where it is."""
    source = origin_of(said, message)
    if source.sender == member:
        return ""
    handling = handling_of(said, source)
    if purpose in ("", handling.purpose) or consented(said, source, "OTHER_PURPOSE", purpose=purpose):
        return unreadable(handling, today)
    return unreadable(handling, today) or f"its originator allows it for {handling.purpose} alone"


def no_evidence(said: Sequence[Message], message: Message, today: date) -> str:
    """Why a received message's content does not go into an evidence file; empty where it may."""
    handling = handling_of(said, message)
    if handling.evidence_use == "no":
        return "its originator allows no use as evidence"
    if handling.evidence_use == "ask" and not consented(said, message, "EVIDENCE_USE"):
        return "its originator has not consented to its use as evidence"
    return unreadable(handling, today)


def find(said: Sequence[Message], sender: str, id_: UUID | None) -> Message | None:
    """A message of a thread."""
    return next((each for each in said if (each.sender, each.id) == (sender, id_)), None)


def origin_of(said: Sequence[Message], message: Message) -> Message:
    """The message whose words these are: of a request that was forwarded, the one that it forwards."""
    referred = message.body.get("referred") if message.type == "trace.request" else None
    if not referred or referred["mode"] != "ANSWERER_FORWARDS" or referred["by"] != message.sender:
        return message
    first = (each for each in said if each.id == message.in_reply_to and each.sender != message.sender)
    return next(first, message)
