"""Records of lost, stolen, trafficked and seized weapons, as INTERPOL's iARMS keeps them, and searches in them."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from protocols.codes import UNKNOWN
from protocols.firearms.scoring import KNOWN_MIN
from protocols.firearms.serials import known_characters
from protocols.messages.shared import (
    Body,
    Broken,
    Calibre,
    Coded,
    Day,
    Listed,
    Make,
    Many,
    Maybe,
    MemberName,
    Model,
    Office,
    PartialDate,
    PatternText,
    Percent,
    Text,
    Weapon,
    WeaponType,
)

HITS_MAX = 25


class RegistryRecord(Body):
    """`registry.record`: a weapon that is lost, stolen, trafficked, smuggled, seized or recovered."""

    owner: Office
    record_ref: Text
    status: Annotated[str, Listed("registry_status", pair=False)]
    event_date: PartialDate
    weapon: Weapon
    retention_until: Day


class SoughtWeapon(Model):
    """What of a weapon is looked for: a serial pattern and what else is known."""

    serial: PatternText
    component: Maybe[Annotated[Coded, Listed("component")]] = None
    type: Maybe[WeaponType] = None
    make: Maybe[Make] = None
    calibre: Maybe[Calibre] = None


class RegistrySearch(Body):
    """`registry.search`: is there a record of this weapon? Fewer than four known characters need a make as well."""

    weapon: SoughtWeapon
    purpose: Annotated[str, Listed("purpose", pair=False)]
    reference: Text

    @property
    def is_weak(self) -> bool:
        """Whether so little is known that a second person has to approve (docs/domain.md section 3)."""
        return known_characters(self.weapon.serial) < KNOWN_MIN

    @model_validator(mode="after")
    def _is_no_fishing(self) -> Self:
        make = self.weapon.make
        named = make is not None and (make.code != UNKNOWN or make.raw.strip() != "")
        if self.is_weak and not named:
            fix = "Give a make, or four characters of the serial."
            raise Broken("required", "too little is known to search by", fix, "weapon", "make")
        return self


class Hit(Model):
    """Whose record it is and how it is called there: nothing else before two people confirm (docs/domain.md section 2)."""

    member: MemberName
    owner: Office
    record_ref: Text
    basis: Annotated[str, Listed("match_basis", pair=False)]
    score: Percent


class RegistryHit(Body):
    """`registry.hit`: the records that fit, best first; an empty list is "none found" in what was searched."""

    hits: Annotated[Many[Hit], Field(max_length=HITS_MAX)] = ()
    searched: Text

    @model_validator(mode="after")
    def _best_first(self) -> Self:
        for at in range(1, len(self.hits)):
            if self.hits[at].score > self.hits[at - 1].score:
                raise Broken("order", "a better hit stands below a worse one", "Order by score.", "hits", at, "score")
        return self


class RegistryWithdrawal(Body):
    """`registry.withdrawal`: a record of ours no longer stands."""

    record_ref: Text
    reason: Annotated[Coded, Listed("record_withdrawal_reason")]
