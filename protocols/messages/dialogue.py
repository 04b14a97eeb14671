"""What the two sides of a trace say between request and answer (docs/domain.md section 2; UN ITI paragraphs 19-23)."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from protocols.messages.shared import (
    Body,
    Broken,
    Coded,
    Day,
    Listed,
    LongText,
    Many,
    Maybe,
    MessageId,
    Model,
    Weapon,
)
from protocols.messages.trace import Circumstances, LegalBasis, NextHop, ReleasedFields

QUESTIONS_MAX = 20


def _no_root(pointer: str) -> str:
    if len(pointer.split("/")) > 17:
        raise Broken("range", "the pointer is too deep", "Point at a member of the request.")
    return pointer


Pointer = Annotated[str, StringConstraints(pattern=r"^(/[a-z0-9_]{1,40})+$"), AfterValidator(_no_root)]
"""RFC 6901 into the body of the request; names of members and indices need no escape."""


class Question(Model):
    """What of the request is asked about, and why."""

    pointer: Pointer
    reason: Annotated[Coded, Listed("clarification_reason")]
    text: Maybe[LongText] = None


class TraceClarification(Body):
    """`trace.clarification`: the answerer asks back (ITI 21); `clock` PAUSED stops the deadline until the answer."""

    questions: Annotated[Many[Question], Field(min_length=1, max_length=QUESTIONS_MAX)]
    clock: Annotated[str, Listed("clock", pair=False)]


class ClarifiedPoint(Model):
    """The answer to one question."""

    pointer: Pointer
    text: LongText


class TraceClarificationAnswer(Body):
    """`trace.clarification-answer`: in words, and where needed as a corrected part of the request."""

    answers: Annotated[Many[ClarifiedPoint], Field(max_length=QUESTIONS_MAX)] = ()
    weapon: Maybe[Weapon] = None
    circumstances: Maybe[Circumstances] = None
    legal_basis: Maybe[LegalBasis] = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.answers and not self.model_fields_set - {"answers"}:
            raise Broken("required", "nothing is answered", "Answer in words, or give the corrected part.", "answers")
        return self


class TraceReferral(Body):
    """`trace.referral`: another member may know more. Either the answerer asks it, or the requester does.

    Who forwards discloses, so it names what it releases; who only names the next hop releases nothing (ITI 15).
    """

    next_hop: NextHop
    why: Annotated[Coded, Listed("referral_reason")]
    mode: Annotated[str, Listed("referral_mode", pair=False)]
    released_fields: ReleasedFields = ()
    consent_ref: Maybe[MessageId] = None
    statement: Maybe[LongText] = None

    @model_validator(mode="after")
    def _forwards_to_a_member(self) -> Self:
        if self.mode == "ANSWERER_FORWARDS" and self.next_hop.member is None:
            fix = "Name the member that you ask, or choose REQUESTER_ASKS_AGAIN."
            raise Broken("required", "nobody is named to whom it is forwarded", fix, "next_hop", "member")
        if self.mode == "REQUESTER_ASKS_AGAIN" and self.released_fields:
            fix = "Leave released_fields out: the requester decides what it tells."
            raise Broken("contradiction", "nothing is released where the requester asks", fix, "released_fields")
        return self


class TraceWithdrawal(Body):
    """`trace.withdrawal`: the requester does not need the answer any more."""

    reason: Annotated[Coded, Listed("withdrawal_reason")]
    statement: Maybe[LongText] = None


class TraceReminder(Body):
    """`trace.reminder`: the day on which an answer was expected has passed."""

    statement: Maybe[LongText] = None


class TraceStatus(Body):
    """`trace.status`: IN_PROGRESS, as the answerer says; CLOSED, as the requester says of a thread that has its outcome."""

    state: Annotated[str, Listed("status_state", pair=False)]
    expected_by: Maybe[Day] = None
    statement: Maybe[LongText] = None

    @model_validator(mode="after")
    def _closed_expects_nothing(self) -> Self:
        if self.state == "CLOSED" and self.expected_by is not None:
            raise Broken("contradiction", "nothing is expected of what is closed", "Leave it out.", "expected_by")
        return self
