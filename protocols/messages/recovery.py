"""The recovery report: INTERPOL's nine steps after a weapon was found, and the trace request that follows from it."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from protocols.messages.shared import (
    Body,
    Broken,
    Coded,
    Country,
    Day,
    Listed,
    LongText,
    Many,
    Maybe,
    Model,
    Office,
    PartialDate,
    Text,
    Weapon,
)
from protocols.messages.trace import LegalBasis

STEPS = (
    "REGISTRY_LOST_STOLEN_SEARCH", "IARMS_SEARCH_AND_TRACE", "EVIDENCE_AND_INTERVIEW", "FINGERPRINTS", "DNA",
    "BALLISTIC_COMPARISON", "GATHER", "BRIEF", "ANALYSE",
)  # fmt: skip
_RESTORED = ("RESTORED", "RESTORED_PARTIAL")


class RecoveryStep(Model):
    """One step of the protocol: done on a day, not done, or not applicable."""

    step: Annotated[str, Listed("recovery_step", pair=False)]
    outcome: Annotated[str, Listed("step_outcome", pair=False)]
    on: Maybe[PartialDate] = None
    reference: Maybe[Text] = None

    @model_validator(mode="after")
    def _done_on_a_day(self) -> Self:
        if (self.outcome == "DONE") != (self.on is not None):
            raise Broken(
                "required", "what is done has its day, and nothing else has one", "Give the day of DONE.", "on"
            )
        return self


class RecoveryReport(Body):
    """`recovery.report`: a weapon was seized, found or surrendered (SDG 16.4.2 counts it); what was done with it."""

    report_ref: Text
    agency: Office
    recovered_on: PartialDate
    country: Country
    context: Annotated[Coded, Listed("recovery_context")]
    weapon: Weapon
    steps: Annotated[Many[RecoveryStep], Field(min_length=9, max_length=9)]
    disposal: Annotated[Coded, Listed("disposal")]
    priority: Annotated[str, Listed("priority", pair=False)] = "ROUTINE"
    justification: Maybe[LongText] = None
    legal_basis: Maybe[LegalBasis] = None
    intended_use: Maybe[Annotated[Coded, Listed("intended_use")]] = None
    deadline_wanted: Maybe[Day] = None

    @model_validator(mode="after")
    def _nine_steps_in_order(self) -> Self:
        for at, (given, step) in enumerate(zip(self.steps, STEPS, strict=True)):
            if given.step != step:
                raise Broken("order", f"step {at + 1} is {step}", "Give all nine steps in order.", "steps", at, "step")
        return self

    @model_validator(mode="after")
    def _urgent_after_the_first_two(self) -> Self:
        if self.priority != "URGENT":
            return self
        for at in (0, 1):
            if self.steps[at].outcome != "DONE":
                fix = "Search the registers first, or report it as ROUTINE."
                raise Broken("required", "URGENT before steps 1 and 2 are done", fix, "steps", at, "outcome")
        if self.justification is None:
            raise Broken("required", "URGENT needs a justification", "Say why.", "justification")
        return self

    @model_validator(mode="after")
    def _restored_from_something(self) -> Self:
        for c, component in enumerate(self.weapon.components):
            for m, mark in enumerate(component.marks):
                if mark.status.code not in _RESTORED:
                    continue
                place = ("weapon", "components", c, "marks", m)
                if not mark.restoration_techniques:
                    fix = "Name the technique."
                    raise Broken("required", "no technique is named", fix, *place, "restoration_techniques")
                before = (each for each in component.marks if each.location.code == mark.location.code)
                if all(each.status.code in _RESTORED for each in before):
                    fix = "Add the reading before restoration, at the same location."
                    raise Broken("required", "there is no reading before restoration", fix, *place)
        return self


def recovery_completeness(report: RecoveryReport) -> int:
    """How many of the nine steps are done or not applicable, in percent."""
    return round(100 * sum(each.outcome != "NOT_DONE" for each in report.steps) / len(STEPS))


def draft_request(report: RecoveryReport) -> dict[str, Any]:
    """The body of a trace request as far as the report knows it; a person adds what is missing and sends it."""
    shown = report.model_dump(mode="json", by_alias=True, exclude_unset=True)
    checks = [
        {
            "name": step.reference or step.step,
            "checked_on": step.on,
            "outcome": {"code": "UNKNOWN", "raw": ""},
        }
        for step in report.steps[:2]
        if step.outcome == "DONE"
    ]
    body = {
        "request_ref": report.report_ref,
        "requester": shown["agency"],
        "circumstances": {name: shown[name] for name in ("recovered_on", "country", "context")},
        "weapon": shown["weapon"],
        "priority": report.priority,
        "asks": ["last_legal_holder", "supply_chain"],
        "domestic_checks": checks,
    }
    optional = ("legal_basis", "intended_use", "justification", "deadline_wanted")
    return body | {name: shown[name] for name in optional if name in shown}
