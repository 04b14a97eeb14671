"""What may be done with what was said: handling, consent, disclosure, erasure (UN ITI paragraph 15)."""

from collections.abc import Collection
from datetime import date
from typing import Annotated, Self

from pydantic import Field, model_validator

from protocols.messages.shared import (
    Body,
    Broken,
    Coded,
    Country,
    Day,
    Handling,
    Listed,
    LongText,
    Many,
    Maybe,
    MemberName,
    MessageId,
    Model,
    PartialDate,
    Text,
    Unique,
)

_EVIDENCE = ("no", "ask", "yes")  # from narrow to wide


def tightens(old: Handling, new: Handling) -> bool:
    """Whether everything that `new` allows was allowed by `old`: only such a change needs nobody's consent."""
    return (
        set(old.codes) <= set(new.codes)
        and new.purpose == old.purpose
        and _EVIDENCE.index(new.evidence_use) <= _EVIDENCE.index(old.evidence_use)
        and new.onward in ("none", old.onward)
        and (not old.named_recipients or set(new.named_recipients) <= set(old.named_recipients))
        and (old.delete_after is None or (new.delete_after is not None and new.delete_after <= old.delete_after))
    )


def unreadable(handling: Handling, today: date) -> str:
    """Why a received message is shown to nobody, or not any more; empty where it is."""
    if handling.delete_after and today > date.fromisoformat(handling.delete_after):
        return "the day after which it is deleted has passed"
    return "it may be matched against a register and nothing else" if "REGISTRY_MATCH_ONLY" in handling.codes else ""


def onward_forbidden(
    handling: Handling, *, recipient: str, roles: Collection[str], released: Collection[str], today: date, consent: bool
) -> str:
    """Why a message may not go on to a member, in words; empty where it may (ITI 15). `consent` is the originator's."""
    named, codes = recipient in handling.named_recipients, handling.codes
    asks = handling.onward == "ask" or ("NO_ONWARD_WITHOUT_CONSENT" in codes and not named)
    maker = "MANUFACTURER_MAY_SEE_WEAPON_ONLY" in codes and "manufacturer" in roles
    reasons = (
        ("NAMED_RECIPIENTS_ONLY" in codes and not named, "the member is not among the named recipients"),
        ("NCB_EYES_ONLY" in codes and "focal-point" not in roles, "it is for national focal points alone"),
        (maker and bool(released), "a manufacturer may see the weapon and nothing else"),
        (handling.onward == "none", "its originator allows no onward disclosure"),
        (handling.onward == "named" and not named, "the member is not among those that it may go on to"),
        (asks and not consent, "its originator has not consented"),
    )
    return unreadable(handling, today) or next((why for forbidden, why in reasons if forbidden), "")


class HandlingChange(Body):
    """`handling.change`: another handling of a message that one sent oneself. Only tightening is unilateral."""

    target: MessageId
    handling: Handling
    statement: Maybe[LongText] = None


class ConsentRequest(Body):
    """`consent.request`: asks whether something may be done with a message that was received."""

    target: MessageId
    to: Annotated[str, Listed("consent_to", pair=False)]
    recipients: Annotated[Many[MemberName], Unique] = ()
    purpose: Maybe[Annotated[str, Listed("purpose", pair=False)]] = None
    until: Maybe[Day] = None
    why: LongText

    @model_validator(mode="after")
    def _says_what(self) -> Self:
        if self.to == "ONWARD_DISCLOSURE" and not self.recipients:
            raise Broken("required", "nobody is named to whom it would go", "Name the recipients.", "recipients")
        if self.to == "OTHER_PURPOSE" and self.purpose is None:
            raise Broken("required", "the other purpose is not named", "Name it.", "purpose")
        if self.to == "LONGER_RETENTION" and self.until is None:
            raise Broken("required", "the day is not named", "Say until when.", "until")
        return self


class ConsentAnswer(Body):
    """`consent.answer`: yes or no to a consent.request, which it replies to; conditions in words bind people."""

    decision: Annotated[str, Listed("consent_decision", pair=False)]
    conditions: Maybe[LongText] = None


class Disclosed(Model):
    """To whom something was disclosed; never a person."""

    name: Text
    country: Country
    member: Maybe[MemberName] = None


class DisclosureReport(Body):
    """`disclosure.report`: what was received has been disclosed; to whom, when, on which ground."""

    target: MessageId
    to: Disclosed
    on: PartialDate
    ground: Annotated[Coded, Listed("disclosure_ground")]
    consent_ref: Maybe[MessageId] = None

    @model_validator(mode="after")
    def _consent_is_named(self) -> Self:
        if (self.ground.code == "CONSENT") != (self.consent_ref is not None):
            raise Broken("required", "a consent and its message go together", "Give both or neither.", "consent_ref")
        return self


class ErasureRequest(Body):
    """`erasure.request`: the content of messages, or of the whole thread, is to be erased; proofs stay."""

    messages: Annotated[Many[MessageId], Field(max_length=512), Unique] = ()
    ground: Annotated[Coded, Listed("erasure_ground")]
    authority: Text


class ErasureConfirmation(Body):
    """`erasure.confirmation`: done, and when the last backup with it ends."""

    messages: Annotated[Many[MessageId], Field(min_length=1, max_length=512), Unique]
    erased_on: Day
    backups_until: Maybe[Day] = None
