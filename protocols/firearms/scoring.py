"""How close a record is to a question, and when a node may answer without a person (docs/domain.md section 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from protocols.codes import UNKNOWN
from protocols.firearms.calibres import Comparison, contradicts, contradicts_type
from protocols.firearms.makes import make_key
from protocols.firearms.readings import read_serial
from protocols.firearms.serials import k1, known_characters, matches, search_keys

CANDIDATES_MAX = 25
KNOWN_MIN = 4  # fewer known characters: 85 of 60,000 records and more fit, and that would be fishing
AUTOMATIC_MIN = 5  # K1 characters for an answer without a person

Reason = Literal[
    "ONLY_ONE",
    "SERIAL_MISSING",
    "SERIAL_PARTIAL",
    "MAKE_MISSING",
    "NO_RECORD",
    "OTHER_MAKE_ONLY",
    "SEVERAL_OF_MAKE",
    "COMPONENT_ONLY",
    "SERIAL_SHORT",
    "TYPE_CONTRADICTS",
    "CALIBRE_CONTRADICTS",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gun:
    """One side of a comparison: `serial_k1` for a whole serial, else `pattern` and `alternatives` (K1 or patterns).

    `make` is a make key, `weapon_type` a code; calibre and model are texts; "" is "not stated". `ref` names a record.
    """

    ref: str = ""
    serial_k1: str = ""
    pattern: str = ""
    alternatives: tuple[str, ...] = ()
    make: str = ""
    model: str = ""
    calibre: str = ""
    weapon_type: str = UNKNOWN
    loose: bool = False  # the serial stands on a part that can be changed: slide, barrel, bolt


class Candidate(NamedTuple):
    """A record that may be the gun: its reference, its score 0..100, and why, in words that name no serial."""

    ref: str
    score: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do with a question: answer with `record`, or lay `candidates` before a person."""

    kind: Literal["auto", "person"]
    reason: Reason
    record: str | None = None
    candidates: tuple[Candidate, ...] = ()


def gun(
    serial: str, *, ref: str = "", make: str = "", model: str = "", calibre: str = "", weapon_type: str = UNKNOWN
) -> Gun:
    """A Gun from texts as people write them; damaged texts count as not stated."""
    read = read_serial(serial)
    others = dict.fromkeys((*read.alternatives, *(value for _, value in read.components)))
    return Gun(
        ref=ref,
        serial_k1=read.k1,
        pattern=read.pattern,
        alternatives=() if read.k1 else tuple(others),
        make=make_key(make),
        model=model,
        calibre=calibre,
        weapon_type=weapon_type,
    )


def known(question: Gun) -> int:
    """How many characters of its serial a question states for certain (of the least certain alternative)."""
    texts = [text for text in (question.serial_k1, question.pattern) if text] or question.alternatives
    return min((known_characters(t) if not t.isalnum() else len(t) for t in texts), default=0)


def _closeness(asked: str, key: str) -> float:
    if not asked or not key:
        return 0.0
    if not asked.isalnum():
        return 0.9 if matches(asked, key) else 0.0
    if asked == key:
        return 1.0
    a, b = search_keys(asked), search_keys(key)
    steps = (
        (a.k2 == b.k2, 0.9),
        (a.no_zeros == b.no_zeros, 0.85),
        (min(len(asked), len(key)) >= AUTOMATIC_MIN and (asked in key or key in asked), 0.7),  # cut at a hyphen
    )
    mine, theirs = set(a.trigrams), set(b.trigrams)
    return next((worth for holds, worth in steps if holds), 0.6 * len(mine & theirs) / len(mine | theirs))


_WORTH: dict[Comparison, float] = {"same": 1.0, "unknown": 0.5, "different": 0.0}


def _texts(a: str, b: str) -> Comparison:
    if not (a := k1(a)) or not (b := k1(b)):
        return "unknown"
    return "same" if a == b else "unknown" if a in b or b in a else "different"


def _makes(a: str, b: str) -> Comparison:
    return "unknown" if not a or not b else "same" if a == b else "different"


def _calibres(a: Gun, b: Gun) -> Comparison:
    return contradicts(a.calibre, b.calibre, type_a=a.weapon_type, type_b=b.weapon_type)


def score(question: Gun, record: Gun) -> int:
    """0..100: serial 50, make 20, calibre 12, type 10, model 8; what a side does not state counts half."""
    texts = (question.serial_k1, question.pattern, *question.alternatives)
    return round(
        50 * max(_closeness(text, record.serial_k1) for text in texts)
        + 20 * _WORTH[_makes(question.make, record.make)]
        + 12 * _WORTH[_calibres(question, record)]
        + 10 * _WORTH[contradicts_type(question.weapon_type, record.weapon_type)]
        + 8 * _WORTH[_texts(question.model, record.model)]
    )


_SERIAL_WORDS = (
    (1.0, "the same serial"),
    (0.9, "serial fits"),
    (0.85, "serial without its leading zeros"),
    (0.7, "part of the serial"),
)
_WORDS: dict[Comparison, str] = {"same": "same", "unknown": "not told", "different": "other"}


def why(question: Gun, record: Gun) -> str:
    """The score in words: how the serial fits, and make, calibre, type and model beside it; no serial stands in it."""
    texts = (question.serial_k1, question.pattern, *question.alternatives)
    closest = max(_closeness(text, record.serial_k1) for text in texts)
    serial = next((words for worth, words in _SERIAL_WORDS if closest >= worth), "serial near")
    rest = {
        "make": _makes(question.make, record.make), "calibre": _calibres(question, record),
        "type": contradicts_type(question.weapon_type, record.weapon_type), "model": _texts(question.model, record.model),
    }  # fmt: skip
    return "; ".join((serial, *(f"{name} {_WORDS[found]}" for name, found in rest.items())))


def _reason(question: Gun, same_make: Sequence[Gun], same_serial: Sequence[Gun]) -> Reason:
    """The first thing that forbids an automatic answer, or ONLY_ONE."""
    found = same_make[0] if same_make else Gun()
    steps: tuple[tuple[bool, Reason], ...] = (
        (not (question.serial_k1 or question.pattern or question.alternatives), "SERIAL_MISSING"),
        (not question.serial_k1, "SERIAL_PARTIAL"),
        (not question.make, "MAKE_MISSING"),
        (not same_serial, "NO_RECORD"),
        (not same_make, "OTHER_MAKE_ONLY"),
        (len(same_make) > 1, "SEVERAL_OF_MAKE"),
        (question.loose, "COMPONENT_ONLY"),
        (len(question.serial_k1) < AUTOMATIC_MIN, "SERIAL_SHORT"),
        (contradicts_type(question.weapon_type, found.weapon_type) == "different", "TYPE_CONTRADICTS"),
        (_calibres(question, found) == "different", "CALIBRE_CONTRADICTS"),
    )
    return next((reason for holds, reason in steps if holds), "ONLY_ONE")


def decide(question: Gun, candidates: Sequence[Gun]) -> Decision:
    """Answers automatically only when exactly one record fits; else a scored list for a person (docs/domain.md section 3).

    One fits when it alone of this K1 serial (>= 5 characters) has the same make, and type and calibre do not contradict; and the
    serial stands on frame or receiver, the part that is the weapon (UN ITI 10): slides and barrels change hands.

    `candidates` must hold every record of that K1 serial, or uniqueness is not shown. Fewer than four known characters bring none.
    """
    same_serial = [r for r in candidates if question.serial_k1 and r.serial_k1 == question.serial_k1]
    same_make = [r for r in same_serial if question.make and r.make == question.make]
    reason = _reason(question, same_make, same_serial)
    if known(question) < KNOWN_MIN:
        return Decision(kind="person", reason=reason)
    scored = sorted(((score(question, r), r) for r in candidates), key=lambda each: (-each[0], each[1].ref))
    ranked = tuple(Candidate(r.ref, points, why(question, r)) for points, r in scored[:CANDIDATES_MAX])
    if reason == "ONLY_ONE":
        return Decision(kind="auto", reason=reason, record=same_make[0].ref, candidates=ranked)
    return Decision(kind="person", reason=reason, candidates=ranked)
