"""Identification without a case: reference queries as to INTERPOL's Firearms Reference Table, and marking notices (ITI 31)."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from protocols.firearms.formats import matches_format, parse_format
from protocols.firearms.serials import known_characters, parse_pattern
from protocols.messages.shared import (
    Body,
    Broken,
    Calibre,
    Coded,
    Country,
    Day,
    Listed,
    LongText,
    Make,
    Many,
    Maybe,
    Model,
    PatternText,
    Percent,
    Reference,
    Text,
    WeaponType,
    checked,
)

CANDIDATES_MAX = 25
KNOWN_MAX = 4
"""Characters of a serial that a reference query may state: a format shows by them, a weapon does not."""
_DIGITS = re.compile(r"[0-9]{5,}", re.ASCII)


def _no_case(text: str) -> str:
    if _DIGITS.search(text):
        raise Broken("case_data", "a long number stands in a description", "Leave case numbers and serials out.")
    return text


Description = Annotated[str, StringConstraints(min_length=1, max_length=80), AfterValidator(_no_case)]
SerialFormat = Annotated[
    str, checked(parse_format, "format", "Write classes and literals, as [A-Z]{3}[0-9]{4}, of 64 characters at most.")
]


def _raw_no_case(pair: Coded) -> Coded:
    _no_case(pair.raw)
    return pair


class SeenMark(Model):
    """A mark as described; of a serial only a pattern with at most four known characters."""

    mark_type: Annotated[Coded, Listed("mark_type")]
    location: Maybe[Annotated[Coded, Listed("mark_location")]] = None
    text: Maybe[Description] = None
    pattern: Maybe[PatternText] = None

    @model_validator(mode="after")
    def _is_no_serial(self) -> Self:
        if self.mark_type.code == "SERIAL" and self.text is not None:
            raise Broken("case_data", "a serial as text", "Give a pattern with unknown places.", "text")
        if self.pattern is not None:
            unknown = any(chars is None for chars, _, _ in parse_pattern(self.pattern).steps)
            if known_characters(self.pattern) > KNOWN_MAX or not unknown:
                fix = "Replace what identifies the one weapon by ? or {m,n}."
                raise Broken("case_data", "the pattern states more than a format", fix, "pattern")
        return self


class Described(Model):
    """A weapon by what it looks like."""

    type: Maybe[WeaponType] = None
    action: Maybe[Annotated[Coded, Listed("action")]] = None
    make: Maybe[Annotated[Make, AfterValidator(_raw_no_case)]] = None
    model: Maybe[Description] = None
    calibre: Maybe[Annotated[Calibre, AfterValidator(_raw_no_case)]] = None
    country_of_manufacture: Maybe[Country] = None


class ReferenceQuery(Body):
    """`reference.query`: what is this? It carries no case and no serial: its schema has no place for either."""

    weapon: Described
    marks: Annotated[Many[SeenMark], Field(max_length=32)] = ()

    @model_validator(mode="after")
    def _describes_something(self) -> Self:
        if not self.marks and not self.weapon.model_fields_set:
            raise Broken("required", "nothing is described", "Describe the weapon or a mark.", "weapon")
        patterns = [mark.pattern for mark in self.marks if mark.pattern is not None]
        if sum(map(known_characters, patterns)) > KNOWN_MAX:
            fix = f"State {KNOWN_MAX} characters in all; two patterns of one serial would add up to it."
            raise Broken("case_data", "the patterns together state more than a format", fix, "marks")
        return self


class Years(Model):
    """First and last year, as far as known."""

    first: Maybe[Annotated[int, Field(ge=1500, le=2199)]] = None
    last: Maybe[Annotated[int, Field(ge=1500, le=2199)]] = None

    @model_validator(mode="after")
    def _run_forward(self) -> Self:
        if self.first and self.last and self.last < self.first:
            raise Broken("order", "the last year is before the first", "Swap them.", "last")
        return self


class ReferenceCandidate(Model):
    """One kind of weapon that fits the description."""

    reference: Reference
    make: Make
    model: Text
    calibres: Annotated[Many[Calibre], Field(min_length=1, max_length=32)]
    type: WeaponType
    country: Country
    score: Percent
    years: Maybe[Years] = None
    serial_formats: Annotated[Many[SerialFormat], Field(max_length=16)] = ()
    mark_locations: Annotated[Many[Annotated[Coded, Listed("mark_location")]], Field(max_length=16)] = ()


class ReferenceAnswer(Body):
    """`reference.answer`: at most 25 kinds that fit, best first."""

    candidates: Annotated[Many[ReferenceCandidate], Field(max_length=CANDIDATES_MAX)] = ()
    statement: Maybe[LongText] = None


class MakerCode(Model):
    """How a maker is written on its weapons."""

    maker: Make
    code: Text


class FormatOfMaker(Model):
    """A serial format, by maker and years, with examples that match it."""

    format: SerialFormat
    examples: Annotated[
        Many[Annotated[str, StringConstraints(min_length=1, max_length=32)]], Field(min_length=1, max_length=8)
    ]
    maker: Maybe[Make] = None
    years: Maybe[Years] = None

    @model_validator(mode="after")
    def _matches_its_examples(self) -> Self:
        for at, example in enumerate(self.examples):
            if not matches_format(self.format, example):
                fix = "Correct the format or the example."
                raise Broken("format.example", "the example does not match its format", fix, "examples", at)
        return self


class RecordHorizon(Model):
    """Since when there are records, and who holds them."""

    since_year: Annotated[int, Field(ge=1500, le=2199)]
    held_by: Text


class MarkingNotice(Body):
    """`marking.notice`: how a State or maker marks its weapons (ITI 7, 8, 31); a higher `version` replaces a lower one."""

    notice_ref: Text
    version: Annotated[int, Field(ge=1, le=1_000_000)]
    country: Country
    valid_from: Day
    valid_until: Maybe[Day] = None
    maker_codes: Annotated[Many[MakerCode], Field(max_length=64)] = ()
    import_mark: Maybe[Text] = None
    serial_formats: Annotated[Many[FormatOfMaker], Field(max_length=64)] = ()
    record_horizon: Maybe[RecordHorizon] = None
    statement: Maybe[LongText] = None

    @model_validator(mode="after")
    def _is_valid_for_a_time(self) -> Self:
        if self.valid_until is not None and self.valid_until < self.valid_from:
            raise Broken("order", "the notice ends before it begins", "Swap the days.", "valid_until")
        return self
