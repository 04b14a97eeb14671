"""Message types and validation: a body, handling or restricted part in, a frozen model or a problem out."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from protocols.messages.dialogue import (
    TraceClarification,
    TraceClarificationAnswer,
    TraceReferral,
    TraceReminder,
    TraceStatus,
    TraceWithdrawal,
)
from protocols.messages.fields import described
from protocols.messages.parts import PARTS
from protocols.messages.recovery import RecoveryReport
from protocols.messages.reference import MarkingNotice, ReferenceAnswer, ReferenceQuery
from protocols.messages.registry import RegistryHit, RegistryRecord, RegistrySearch, RegistryWithdrawal
from protocols.messages.shared import Body, Broken, Handling, Model
from protocols.messages.terms import (
    ConsentAnswer,
    ConsentRequest,
    DisclosureReport,
    ErasureConfirmation,
    ErasureRequest,
    HandlingChange,
)
from protocols.messages.trace import (
    TraceAcknowledgement,
    TraceRefusal,
    TraceRequest,
    TraceResponse,
    asked_gun,
    completeness,
)
from protocols.problems import Fault, ProblemError

__all__ = [
    "PARTS",
    "TYPES",
    "Body",
    "Handling",
    "asked_gun",
    "check_parts",
    "completeness",
    "json_schema",
    "validate_body",
    "validate_handling",
    "validate_model",
    "validate_part",
    "without_null",
]

FAULTS_MAX = 20  # in one problem; the sender corrects these and asks again

TYPES: Mapping[str, type[Body]] = MappingProxyType(
    {
        "trace.request": TraceRequest,
        "trace.acknowledgement": TraceAcknowledgement,
        "trace.response": TraceResponse,
        "trace.refusal": TraceRefusal,
        "trace.clarification": TraceClarification,
        "trace.clarification-answer": TraceClarificationAnswer,
        "trace.referral": TraceReferral,
        "trace.withdrawal": TraceWithdrawal,
        "trace.reminder": TraceReminder,
        "trace.status": TraceStatus,
        "reference.query": ReferenceQuery,
        "reference.answer": ReferenceAnswer,
        "recovery.report": RecoveryReport,
        "registry.record": RegistryRecord,
        "registry.search": RegistrySearch,
        "registry.hit": RegistryHit,
        "registry.withdrawal": RegistryWithdrawal,
        "marking.notice": MarkingNotice,
        "handling.change": HandlingChange,
        "consent.request": ConsentRequest,
        "consent.answer": ConsentAnswer,
        "disclosure.report": DisclosureReport,
        "erasure.request": ErasureRequest,
        "erasure.confirmation": ErasureConfirmation,
    }
)
"""Every message type of docs/domain.md section 2."""

_M = TypeVar("_M", bound=Model)

_FIXES = {  # pydantic's error type -> (our code, message, fix)
    "missing": ("required", "a member is missing", "Add the member."),
    "extra_forbidden": ("unknown_member", "a member that the schema does not name", "Remove it, or correct its name."),
    "string_too_long": ("too_long", "the text is too long", "Shorten the text."),
    "string_too_short": ("too_short", "the text is empty or too short", "Give a text, or leave the member out."),
    "string_pattern_mismatch": ("format", "not in the format of the schema", "Write it in the format of the schema."),
    "too_long": ("too_many", "too many items", "Give fewer items."),
    "too_short": ("too_few", "too few items", "Give more items."),
    "less_than_equal": ("range", "the number is too large", "Give a smaller number."),
    "greater_than_equal": ("range", "the number is too small", "Give a larger number."),
}
_PARTS_OF = {"trace.request": frozenset(("persons",)), "trace.response": frozenset(("last_legal_holder",))}
_TYPE = ("type", "not of the type that the schema states", "Give a text, number, list or object as the schema states.")
_NAME = re.compile(r"[a-z_]{1,40}", re.ASCII)


def _pointer(place: tuple[str | int, ...]) -> str:
    """RFC 6901; nothing to escape, since only members that our models name and indices stand here."""
    return "".join(f"/{step}" for step in place)


def _fault(error: Mapping[str, Any]) -> Fault:
    place: tuple[str | int, ...] = error["loc"]
    broken = error.get("ctx", {}).get("error")
    if isinstance(broken, Broken):
        return Fault(_pointer((*place, *broken.at)), broken.code, broken.message, broken.fix)
    code, message, fix = _FIXES.get(error["type"], _TYPE)
    if code == "unknown_member" and not _NAME.fullmatch(str(place[-1])):  # it may be a value in the wrong place
        place = place[:-1]
    return Fault(_pointer(place), code, message, fix)


def _without_echoes(errors: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Drops "too short" of a list whose only items are faulty: pydantic counts the valid ones."""
    inside = {error["loc"][:length] for error in errors for length in range(len(error["loc"]))}
    return [error for error in errors if error["type"] != "too_short" or error["loc"] not in inside]


def validate_model(model: type[_M], value: object, what: str, at: str = "") -> _M:
    """The model of a value from strict JSON; else `schema.invalid` with at most 20 pointers, that begin with `at`."""
    try:
        return model.model_validate(value)
    except ValidationError as invalid:
        errors = _without_echoes(invalid.errors(include_url=False, include_input=False))
        detail = f"{what}: {len(errors)} finding(s)"
        faults = [replace(fault, pointer=at + fault.pointer) for fault in map(_fault, errors[:FAULTS_MAX])]
    raise ProblemError("schema.invalid", detail, errors=faults)


def validate_body(type_: str, body: object, at: str = "") -> Body:
    """The model of a body from strict JSON; `type.unknown`, or `schema.invalid` with at most 20 pointers into it."""
    if type_ not in TYPES:
        raise ProblemError("type.unknown")
    return validate_model(TYPES[type_], body, type_, at)


def check_parts(type_: str, body: Mapping[str, Any], names: Collection[str]) -> None:
    """`schema.invalid` where a valid body names a part that is not there, or a type carries one that is not its own."""
    own = _PARTS_OF.get(type_, frozenset())
    if not set(names) <= own:
        raise ProblemError("schema.invalid", f"{type_} does not carry this restricted part")
    for name in own - set(names):
        if "part" in body.get(name, ()):
            fault = Fault(f"/body/{name}/part", "required", "the part that it names is not there", "Add the part.")
            raise ProblemError("schema.invalid", "a restricted part is missing", errors=[fault])


def check_attachments(body: Mapping[str, Any], digests: Collection[str], at: str) -> None:
    """`schema.invalid` where a valid body points to a picture or document that does not travel with the message."""
    for pointer, digest in pointed(body, at) if _points(body) else ():
        if digest not in digests:
            fix = "Attach it to this message, or leave it out."
            fault = Fault(pointer, "missing", "no attachment of this message has this digest", fix)
            raise ProblemError("schema.invalid", "an attachment is missing", errors=[fault])


def _points(body: Mapping[str, Any]) -> bool:
    """Whether a body points to anything: few do, and this is all that the others cost."""
    values: list[Any] = [body]
    while values:
        value = values.pop()
        if isinstance(value, dict):
            if "images" in value or "attachment" in value:
                return True
            values.extend(value.values())
        elif isinstance(value, list):
            values.extend(value)
    return False


def pointed(value: object, at: str) -> Iterator[tuple[str, str]]:
    """Pointer and digest of every `images` and `attachment` in a body."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            if name == "attachment" and isinstance(each, str):
                yield f"{at}/{name}", each
            elif name == "images" and isinstance(each, list):
                yield from ((f"{at}/{name}/{n}", str(digest)) for n, digest in enumerate(each))
            else:
                yield from pointed(each, f"{at}/{name}")
    elif isinstance(value, list):
        for n, each in enumerate(value):
            yield from pointed(each, f"{at}/{n}")


def validate_handling(value: object, at: str = "") -> Handling:
    """The model of a message header's `handling`; else `schema.invalid` with pointers into it."""
    return validate_model(Handling, value, "handling", at)


def validate_part(name: str, value: object, at: str = "") -> Model:
    """The model of a restricted part's content; else `schema.invalid` with pointers into it."""
    if name not in PARTS:
        raise ProblemError("schema.invalid", "no restricted part has this name")
    return validate_model(PARTS[name], value, name, at)


def without_null(schema: Any) -> Any:
    """A schema of pydantic with null taken out: an absent member is left out, and pydantic writes Optional for it."""
    if isinstance(schema, list):
        return [without_null(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {k: without_null(v) for k, v in schema.items() if not (k == "default" and v is None)}
    if isinstance(choices := kept.get("anyOf"), list) and {"type": "null"} in choices:
        left = [choice for choice in choices if choice != {"type": "null"}]
        kept = {k: v for k, v in kept.items() if k != "anyOf"} | (left[0] if len(left) == 1 else {"anyOf": left})
    return kept


def json_schema(type_: str) -> dict[str, Any]:
    """JSON Schema 2020-12 of a body, without the rules across members; else `type.unknown`."""
    if type_ not in TYPES:
        raise ProblemError("type.unknown")
    schema = described(TYPES[type_].__name__, without_null(TypeAdapter(TYPES[type_]).json_schema()))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:tracewire:{type_}", **schema}
