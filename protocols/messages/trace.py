"""The bodies of a trace: request, acknowledgement, response, refusal (docs/domain.md section 2; UN ITI paragraphs 16-23)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from protocols.codes import LISTS, UNKNOWN
from protocols.firearms.calibres import possible
from protocols.firearms.makes import make_key
from protocols.firearms.scoring import Gun
from protocols.firearms.serials import known_characters
from protocols.messages.shared import (
    BlobRef,
    Body,
    Broken,
    Calibre,
    Certainty,
    Coded,
    Country,
    Day,
    EvidenceGrade,
    Listed,
    LongText,
    Make,
    Many,
    Maybe,
    MemberName,
    Model,
    Model_,
    Office,
    PartialDate,
    PartyClass,
    PatternText,
    Percent,
    SupplyEvent,
    Text,
    Unique,
    Weapon,
    WeaponType,
    earliest,
    latest,
)

HOPS_MAX = 8
ReleasedFields = Annotated[Many[Annotated[str, Listed("released_field", pair=False)]], Unique]
"""Members of a trace.request that may be held back when it goes on to another; the weapon always goes."""
_ALWAYS_ASKED = ("legal_basis", "circumstances", "intended_use")
CANDIDATES_MIN, CANDIDATES_MAX = 2, 25


class LegalBasis(Model):
    """Why the weapon is illicit: the ground of ITI paragraph 6 and the national provision."""

    ground: Annotated[Coded, Listed("illicit_basis_ITI6")]
    national_provision: Text


class Circumstances(Model):
    """When, where and how the weapon was found."""

    recovered_on: PartialDate
    country: Country
    context: Annotated[Coded, Listed("recovery_context")]


class DomesticCheck(Model):
    """A national source that the requester has searched before asking."""

    name: Text
    checked_on: PartialDate
    outcome: Annotated[Coded, Listed("check_outcome")]


class Evidence(Model):
    """A pointer to evidence; the picture or document is an attachment."""

    grade: EvidenceGrade
    reference: Text
    attachment: Maybe[BlobRef] = None


_RELEASABLE = LISTS["released_field"]


class PersonsRef(Model):
    """Names the restricted part; persons never stand in a body (docs/protocol.md section 2)."""

    part: Literal["persons"]


class Referred(Model):
    """Where a request comes from that is not the first of its thread: a referral, and what it released (ITI 15)."""

    by: MemberName
    mode: Annotated[str, Listed("referral_mode", pair=False)]
    hop: Annotated[int, Field(ge=2, le=HOPS_MAX)]
    released_fields: ReleasedFields = ()


class TraceRequest(Body):
    """`trace.request`: what ITI paragraph 17 asks a request to hold.

    Legal basis, circumstances and intended use are left out only where a referral forwards it and does not release them.
    """

    request_ref: Text
    requester: Office
    weapon: Weapon
    legal_basis: Maybe[LegalBasis] = None
    circumstances: Maybe[Circumstances] = None
    intended_use: Maybe[Annotated[Coded, Listed("intended_use")]] = None
    priority: Annotated[str, Listed("priority", pair=False)]
    asks: Annotated[Many[Annotated[str, Listed("asks", pair=False)]], Field(min_length=1), Unique]
    confidentiality_guarantee: bool
    justification: Maybe[LongText] = None
    domestic_checks: Many[DomesticCheck] = ()
    deadline_wanted: Maybe[Day] = None
    persons: Maybe[PersonsRef] = None
    evidence: Many[Evidence] = ()
    referred: Maybe[Referred] = None

    @model_validator(mode="after")
    def _holds_what_it_must_and_may(self) -> Self:
        forwarded = self.referred is not None and self.referred.mode == "ANSWERER_FORWARDS"
        released = self.referred.released_fields if self.referred and forwarded else tuple(_RELEASABLE)
        for name in sorted(_RELEASABLE):
            if name not in released and name in self.model_fields_set:
                fix = "Leave out what the referral does not release."
                raise Broken("not_released", "the referral does not release this", fix, name)
        missing = [name for name in _ALWAYS_ASKED if name in released and name not in self.model_fields_set]
        if missing:
            raise Broken("required", "a member is missing", "Add the member.", missing[0])
        return self

    @model_validator(mode="after")
    def _urgent_is_justified(self) -> Self:
        if self.priority == "URGENT" and self.justification is None:
            raise Broken("required", "URGENT needs a justification", "Say why, or send it as ROUTINE.", "justification")
        return self


class TraceAcknowledgement(Body):
    """`trace.acknowledgement`: the agency's own word that it has the request; not the node's receipt."""

    state: Annotated[str, Listed("acknowledgement_state", pair=False)]
    handler: Office
    expected_by: Maybe[Day] = None

    @model_validator(mode="after")
    def _names_its_day(self) -> Self:
        if self.expected_by is None and self.state != "WRONG_COMPETENCE":
            raise Broken("required", "no day is given", "Say by when an answer is expected.", "expected_by")
        return self


class Period(Model):
    """From and to, both included; an open end is left out."""

    from_: Annotated[Maybe[PartialDate], Field(alias="from")] = None
    to: Maybe[PartialDate] = None

    @model_validator(mode="after")
    def _runs_forward(self) -> Self:
        if self.from_ and self.to and latest(self.to) < earliest(self.from_):
            raise Broken("order", "the period ends before it begins", "Swap from and to.", "to")
        return self


class CheckedSource(Model):
    """A source that was searched, what years of it, and how much of them."""

    name: Text
    period: Period
    coverage: Annotated[Coded, Listed("coverage")]


class HolderRef(Model):
    """The last legal holder: the restricted part, or why it is withheld."""

    part: Maybe[Literal["last_legal_holder"]] = None
    withheld_reason: Maybe[Annotated[Coded, Listed("withheld_reason")]] = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.part is None) == (self.withheld_reason is None):
            raise Broken("required", "neither or both of two", "Give the part's name or the reason, not both.")
        return self


class NextHop(Model):
    """Whom to ask next."""

    name: Text
    country: Country
    party: PartyClass
    member: Maybe[MemberName] = None
    why: Maybe[Text] = None


class Identification(Model):
    """What of the weapon the answerer knows better or proposes."""

    type: Maybe[WeaponType] = None
    make: Maybe[Make] = None
    model: Maybe[Model_] = None
    calibre: Maybe[Calibre] = None
    country_of_manufacture: Maybe[Country] = None
    year: Maybe[Annotated[int, Field(ge=1500, le=2199)]] = None
    serial: Maybe[PatternText] = None


class CorrectedIdentification(Identification):
    """A correction, and why."""

    why: LongText

    @model_validator(mode="after")
    def _corrects_something(self) -> Self:
        if not self.model_fields_set - {"why"}:
            raise Broken("required", "nothing is corrected", "Give what differs, or leave the member out.")
        return self


class Candidate(Identification):
    """One record that may be the weapon."""

    record_ref: Text
    score: Percent


class Document(Model):
    """A document behind the answer."""

    kind: Annotated[Coded, Listed("document_kind")]
    reference: Text
    date: Maybe[PartialDate] = None
    attachment: Maybe[BlobRef] = None


class TraceResponse(Body):
    """`trace.response`: what was found, in which sources, and how sure it is."""

    result: Annotated[Coded, Listed("trace_result", unknown=False)]
    certainty: Certainty
    final: bool
    checked_sources: Many[CheckedSource]
    events: Annotated[Many[SupplyEvent], Field(max_length=200)] = ()
    last_legal_holder: Maybe[HolderRef] = None
    next_hops: Annotated[Many[NextHop], Field(max_length=HOPS_MAX)] = ()
    diversion_indicators: Annotated[Many[Annotated[Coded, Listed("diversion_indicator")]], Field(max_length=16)] = ()
    corrected_identification: Maybe[CorrectedIdentification] = None
    candidates: Annotated[Many[Candidate], Field(max_length=CANDIDATES_MAX)] = ()
    documents: Many[Document] = ()
    time_to_diversion_days: Maybe[Annotated[int, Field(ge=0, le=200_000)]] = None

    @model_validator(mode="after")
    def _events_in_order(self) -> Self:
        reached = ""
        for at, event in enumerate(self.events):
            if latest(event.date) < reached:
                fix = "Order events by date."
                raise Broken("order", "the event is before the one above it", fix, "events", at, "date")
            reached = max(reached, earliest(event.date))
        return self

    @model_validator(mode="after")
    def _result_has_its_proof(self) -> Self:
        code = self.result.code
        if code == "MULTIPLE_CANDIDATES" and len(self.candidates) < CANDIDATES_MIN:
            raise Broken("required", "fewer than two candidates", "Give 2 to 25 scored candidates.", "candidates")
        if code == "TRACED_LAST_LEGAL_HOLDER" and self.last_legal_holder is None:
            fix = "Name the restricted part, or give withheld_reason."
            raise Broken("required", "neither a holder nor the reason it is withheld", fix, "last_legal_holder")
        if code == "NO_RECORD_FOUND":
            self._states_coverage()
        return self

    def _states_coverage(self) -> None:
        if not self.checked_sources:
            fix = "Name every source with its period and coverage."
            raise Broken("required", "no source says where nothing was found", fix, "checked_sources")
        for at, source in enumerate(self.checked_sources):
            if source.coverage.code == UNKNOWN and not source.coverage.raw.strip():
                fix = "Give a code, or words in raw."
                raise Broken("required", "coverage is not stated", fix, "checked_sources", at, "coverage")


class TraceRefusal(Body):
    """`trace.refusal`: on a ground of ITI paragraph 22 or outside the purpose, and with reasons (23)."""

    kind: Annotated[str, Listed("refusal_kind", pair=False)]
    ground: Annotated[Coded, Listed("refusal_ground", unknown=False)]
    statement: LongText
    review_on: Maybe[Day] = None

    @model_validator(mode="after")
    def _delay_is_reviewed(self) -> Self:
        if (self.kind == "DELAY") != (self.review_on is not None):
            fix = "Give review_on with DELAY, and only with it."
            raise Broken("required", "a day of review belongs to DELAY alone", fix, "review_on")
        return self


MAIN_PARTS = frozenset(("FRAME", "RECEIVER", "LOWER_RECEIVER", "CHASSIS_FIRE_CONTROL_UNIT"))
"""Components that carry the unique mark (UN ITI 10)."""
TEXTS_MAX = 32  # serials and patterns of one weapon that are looked up
_SERIAL_KNOWN = 4  # characters; below it a serial hardly narrows the search


def completeness(body: TraceRequest) -> int:
    """How much of ITI paragraph 17 a request states, 0..100.

    17(a) ground 10, provision 5, day, country and context of the find 5 each; 17(b) serial 20 (10 for under four known
    characters, 5 for a reason), make 15, type 10, calibre 10, model 5, country of manufacture 5; 17(c) intended use 5.
    """
    basis, found, weapon = body.legal_basis, body.circumstances, body.weapon
    pairs = (
        (basis.ground if basis else None, 10),
        (found.country if found else None, 5),
        (found.context if found else None, 5),
        (weapon.type, 10),
        (weapon.make, 15),
        (weapon.calibre, 10),
        (weapon.country_of_manufacture, 5),
        (body.intended_use, 5),
    )
    stated = sum(weight for pair, weight in pairs if pair is not None and pair.code != UNKNOWN)
    # a legal basis has its provision, circumstances their day
    given = 5 * sum(each is not None for each in (basis, found, weapon.model))
    return given + stated + _serial_points(weapon)


def _serial_points(weapon: Weapon) -> int:
    patterns = [p for m in weapon.serial_marks() for p in (m.pattern, *(a.text for a in m.alternatives)) if p]
    if not patterns:
        return 5
    return 20 if max(map(known_characters, patterns)) >= _SERIAL_KNOWN else 10


def asked_gun(weapon: Weapon) -> Gun:
    """The weapon as a question to a register.

    A mark read whole (LEGIBLE or RESTORED, literals only) is a serial. Several different ones are alternatives:
    such a question is never answered without a person.
    """
    whole: dict[str, bool] = {}  # serial -> whether it stands on the part that is the weapon
    partial: dict[str, bool] = {}
    for part, mark in weapon.marked():
        read = mark.status.code in ("LEGIBLE", "RESTORED") and not mark.alternatives
        for text in (mark.pattern or "", *(each.text for each in mark.alternatives)):
            bare = text.removeprefix("^").removesuffix("$")
            known, key = (whole, bare) if read and bare.isalnum() else (partial, text)
            known[key] = known.get(key, False) or part in MAIN_PARTS
    several = tuple(text for text in (*whole, *partial) if text)[:TEXTS_MAX]
    only = several[0] if len(several) == 1 else ""
    return Gun(
        serial_k1=only if only in whole else "",
        pattern=only if only in partial else "",
        alternatives=() if only else several,
        make=make_key(weapon.make.raw) if weapon.make.code == UNKNOWN else weapon.make.code,
        model=weapon.model or "",
        calibre=weapon.calibre.code if possible(weapon.calibre.code) else weapon.calibre.raw,
        weapon_type=weapon.type.code,
        loose=bool(only) and not whole.get(only, partial.get(only, False)),
    )
