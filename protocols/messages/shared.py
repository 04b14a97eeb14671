"""The types that message bodies share: coded pairs, weapon, marks, supply events, handling (docs/domain.md section 2).

A fact or judgement is a pair {code, raw}, and UNKNOWN is always allowed there; a token that steers a machine is bare.
"""

import re
from collections.abc import Callable, Hashable, Iterable
from datetime import date
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
    model_validator,
)

from protocols.codes import LISTS, UNKNOWN
from protocols.firearms.serials import damage, parse_pattern
from protocols.problems import ProblemError

T = TypeVar("T")


class Broken(ValueError):
    """A rule of a model that does not hold; `at` is the place below the model, as a tuple of names and indices."""

    def __init__(self, code: str, message: str, fix: str, *at: str | int) -> None:
        super().__init__(message)
        self.code, self.message, self.fix, self.at = code, message, fix, at


class Model(BaseModel):
    """Immutable, strict, no unknown members."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class Body(Model):
    """What every message body is."""


class Coded(Model):
    """A code and the words it was read from; `raw` is kept even when it is empty."""

    code: Annotated[str, StringConstraints(pattern=r"^[A-Z0-9_]{1,40}$")]
    raw: Annotated[str, StringConstraints(max_length=500)]


_SHOWN_MAX = 30  # codes that a problem lists


class Listed:
    """Holds a code to a list of protocols.codes: the code of a pair, or a bare token.

    UNKNOWN is always allowed in a pair, except (`unknown=False`) in what the sender itself decides.
    """

    def __init__(self, name: str, *, pair: bool = True, unknown: bool = True) -> None:
        self._name, self._pair = name, pair
        self._codes = LISTS[name] | {UNKNOWN} if pair and unknown else LISTS[name] - {UNKNOWN}

    def _check(self, value: Any) -> Any:
        if (value.code if self._pair else value) not in self._codes:
            shown = ", ".join(sorted(self._codes)) if len(self._codes) <= _SHOWN_MAX else "see the schema"
            fix = f"Take a code of the list {self._name}: {shown}."
            raise Broken("code", "not a code of its list", fix, *(("code",) if self._pair else ()))
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        """The inner schema, then the check."""
        return handler.generate_schema(Annotated[source, AfterValidator(self._check)])

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The inner schema with the codes as an enumeration."""
        inner, codes = handler(schema), {"enum": sorted(self._codes)}
        return {"allOf": [inner], "properties": {"code": codes}} if self._pair else inner | codes


def _not_null(value: object) -> object:
    if value is None:
        raise Broken("null", "null is not a value here", "Leave the member out.")
    return value


Maybe = Annotated[T | None, BeforeValidator(_not_null)]  # absent members are left out, never null
Many = Annotated[tuple[T, ...], Field(strict=False, max_length=64)]  # lax only so that a JSON array is a tuple
Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]
LongText = Annotated[str, StringConstraints(min_length=1, max_length=4_000)]
Percent = Annotated[int, Field(ge=0, le=100)]
MemberName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}/[a-z0-9][a-z0-9-]{0,31}$")]
MessageId = Annotated[
    str, StringConstraints(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
]  # UUIDv7
BlobRef = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$")
]  # SHA-256 of an attachment


def _unique(values: tuple[Hashable, ...]) -> tuple[Hashable, ...]:
    if len(set(values)) != len(values):
        raise Broken("repeated", "a value stands twice", "Give every value once.")
    return values


Unique = AfterValidator(_unique)


def _is_date(text: str) -> str:
    try:
        if not _DATE.fullmatch(text):
            raise ValueError
        year, month, day = f"{text}-1-1".split("-")[:3]
        date(int(year), int(month), int(day))
    except ValueError:
        raise Broken("date", "not a day of the calendar", "Give a date as 2019, 2019-04 or 2019-04-01.") from None
    return text


_YEAR, _TWO = "(1[5-9]|2[01])[0-9]{2}", "[0-9]{2}"
_DATE = re.compile(f"{_YEAR}(-{_TWO}(-{_TWO})?)?", re.ASCII)
PartialDate = Annotated[str, AfterValidator(_is_date), Field(json_schema_extra={"pattern": f"^{_DATE.pattern}$"})]
Day = Annotated[str, StringConstraints(pattern=f"^{_YEAR}-{_TWO}-{_TWO}$"), AfterValidator(_is_date)]


def earliest(day: str) -> str:
    """A text not after any day of a partial date, to compare by."""
    return day + "-00-00"[len(day) - 4 :]


def latest(day: str) -> str:
    """A text not before any day of a partial date, to compare by."""
    return day + "-99-99"[len(day) - 4 :]


def checked(rule: Callable[[str], object], code: str, fix: str) -> AfterValidator:
    """A text that a parser of protocols accepts."""

    def check(text: str) -> str:
        try:
            rule(text)
        except ProblemError as problem:
            raise Broken(code, problem.detail, fix) from None
        return text

    return AfterValidator(check)


PatternText = Annotated[
    str, checked(parse_pattern, "pattern", "Write literals in upper case, ? [38B] {2,4} ^ $, in 32 characters.")
]


def undamaged(text: str, *at: str | int) -> None:
    """Refuses text that a spreadsheet has turned into a date or a number (docs/domain.md section 3)."""
    if harm := damage(text):
        fix = "Send the text as it was first written."
        raise Broken("damaged", f"the text looks like a spreadsheet's {harm}", fix, *at)


def _whole(text: str) -> str:
    undamaged(text)
    return text


def _whole_raw(pair: Coded) -> Coded:
    undamaged(pair.raw, "raw")
    return pair


Country = Annotated[Coded, Listed("country")]
Certainty = Annotated[Coded, Listed("certainty")]
EvidenceGrade = Annotated[Coded, Listed("evidence_grade")]
PartyClass = Annotated[Coded, Listed("party_class")]
WeaponType = Annotated[Coded, Listed("weapon_type")]
Make = Coded  # codes of protocols.firearms.makes: an open table, nodes may have different versions
Calibre = Annotated[Coded, AfterValidator(_whole_raw)]  # likewise of protocols.firearms.calibres
Model_ = Annotated[Text, AfterValidator(_whole)]


class Office(Model):
    """An agency and its unit; never a person."""

    name: Text
    country: Country
    unit: Maybe[Text] = None
    reference: Maybe[Text] = None


class Alternative(Model):
    """One possible reading, as a pattern."""

    text: PatternText
    weight: Percent


_NO_PATTERN_NEEDED = frozenset(("OBLITERATED", "NEVER_MARKED", "NOT_VISIBLE_WEAR", "NOT_EXAMINED", "UNREAD"))


class MarkReading(Model):
    """One mark as read. A serial mark has a pattern, alternatives, or the reason why not as its status."""

    mark_type: Annotated[Coded, Listed("mark_type")]
    text_raw: Annotated[str, StringConstraints(max_length=200)]
    location: Annotated[Coded, Listed("mark_location")]
    status: Annotated[Coded, Listed("serial_status")]
    script: Maybe[Annotated[str, StringConstraints(pattern=r"^[A-Z][a-z]{3}$")]] = None  # ISO 15924
    obliteration_methods: Many[Annotated[Coded, Listed("obliteration_method")]] = ()
    restoration_techniques: Many[Annotated[Coded, Listed("restoration_technique")]] = ()
    pattern: Maybe[PatternText] = None
    alternatives: Annotated[Many[Alternative], Field(max_length=10)] = ()
    confidence: Maybe[Percent] = None
    examined_at: Maybe[PartialDate] = None
    images: Annotated[Many[BlobRef], Unique] = ()

    @property
    def has_reason(self) -> bool:
        """Whether the status (or the words for an unknown one) tells why there is no pattern."""
        return self.status.code in _NO_PATTERN_NEEDED or (self.status.code == UNKNOWN and self.status.raw.strip() != "")

    @model_validator(mode="after")
    def _pattern_or_reason(self) -> Self:
        if self.mark_type.code != "SERIAL":
            return self
        undamaged(self.text_raw, "text_raw")
        if self.pattern is None and not self.alternatives and not self.has_reason:
            fix = "Give a pattern or alternatives, or a status such as OBLITERATED or NEVER_MARKED."
            raise Broken("serial.unexplained", "neither a pattern nor a reason for none", fix, "pattern")
        return self


class Component(Model):
    """A part of the weapon with its own marks."""

    kind: Annotated[Coded, Listed("component")]
    material: Maybe[Annotated[Coded, Listed("material")]] = None
    marks: Many[MarkReading] = ()
    matches_frame: Maybe[bool] = None


class Reference(Model):
    """The weapon's number in a reference table."""

    scheme: Annotated[str, Listed("reference_scheme", pair=False)]
    number: Text


class Weapon(Model):
    """The weapon as identified; at least one serial mark, or one that says why there is none."""

    type: WeaponType
    make: Make
    calibre: Calibre
    origin_class: Annotated[Coded, Listed("origin_class")]
    components: Annotated[Many[Component], Field(min_length=1, max_length=32)]
    action: Maybe[Annotated[Coded, Listed("action")]] = None
    model: Maybe[Model_] = None
    variant: Maybe[Text] = None
    country_of_manufacture: Maybe[Country] = None
    year: Maybe[Annotated[int, Field(ge=1500, le=2199)]] = None
    importer: Maybe[Text] = None
    references: Annotated[Many[Reference], Field(max_length=16)] = ()
    images: Annotated[Many[BlobRef], Unique] = ()

    def serial_marks(self) -> Iterable[MarkReading]:
        """The serial marks of all components, in order."""
        return (mark for _, mark in self.marked())

    def marked(self) -> Iterable[tuple[str, MarkReading]]:
        """(component code, serial mark) of all components, in order."""
        return (
            (part.kind.code, mark) for part in self.components for mark in part.marks if mark.mark_type.code == "SERIAL"
        )

    @model_validator(mode="after")
    def _serial_or_reason(self) -> Self:
        if next(iter(self.serial_marks()), None) is None:
            fix = "Add a SERIAL mark to a component, with its pattern or with the status NEVER_MARKED, UNREAD ..."
            raise Broken("serial.unexplained", "no component has a serial mark or says why", fix, "components")
        return self


class SupplyEvent(Model):
    """One step of the weapon's life. A stretch that nobody can tell is an event of kind GAP."""

    kind: Annotated[Coded, Listed("supply_event")]
    date: PartialDate
    from_: Annotated[PartyClass, Field(alias="from")]
    to: PartyClass
    country: Country
    evidence_grade: EvidenceGrade
    certainty: Certainty
    licence: Maybe[Text] = None
    euc: Maybe[Text] = None  # end-user certificate
    shipment: Maybe[Text] = None
    quantity: Maybe[Annotated[int, Field(ge=1, le=10_000_000)]] = None
    authorised: Maybe[bool] = None
    diversion_here: Maybe[bool] = None

    @model_validator(mode="after")
    def _gap_is_empty(self) -> Self:
        known = (self.licence, self.euc, self.shipment, self.quantity, self.authorised)
        if self.kind.code == "GAP" and any(value is not None for value in known):
            fix = "Name the event, or leave its documents out."
            raise Broken("gap.documented", "a GAP has no documents", fix, "kind")
        return self


class Handling(Model):
    """What the receiver may do with a message, for machines (UN ITI paragraph 15); silence means the narrowest."""

    codes: Annotated[Many[Annotated[str, Listed("handling", pair=False)]], Unique]
    purpose: Annotated[str, Listed("purpose", pair=False)]
    named_recipients: Annotated[Many[MemberName], Unique] = ()
    delete_after: Maybe[Day] = None
    evidence_use: Annotated[str, Listed("evidence_use", pair=False)] = "ask"
    onward: Annotated[str, Listed("onward", pair=False)] = "none"

    @model_validator(mode="after")
    def _agrees_with_its_codes(self) -> Self:
        named = "NAMED_RECIPIENTS_ONLY" in self.codes or self.onward == "named"
        if named and not self.named_recipients:
            raise Broken("required", "nobody is named", "Name the recipients.", "named_recipients")
        if ("DELETE_AFTER" in self.codes) != (self.delete_after is not None):
            raise Broken("required", "DELETE_AFTER and its day go together", "Give both or neither.", "delete_after")
        if "NO_USE_AS_EVIDENCE_WITHOUT_CONSENT" in self.codes and self.evidence_use == "yes":
            raise Broken("contradiction", "evidence use is allowed and forbidden", "Say ask or no.", "evidence_use")
        if "PURPOSE_TRACING_ONLY" in self.codes and self.purpose != "TRACING":
            raise Broken("contradiction", "the purpose is not tracing only", "Say TRACING or drop the code.", "purpose")
        return self
