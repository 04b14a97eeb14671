"""Identification: what people write about a weapon becomes a Weapon of a message, with findings in words; `raw` is kept as it was."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from protocols.codes import LISTS, UNKNOWN
from protocols.firearms.calibres import calibre_code, read_calibre, weapon_type_code
from protocols.firearms.makes import is_known, make_key
from protocols.firearms.readings import SerialReading, read_serial
from protocols.firearms.references import Kind, alike, candidates, doubts, formats
from protocols.firearms.serials import PATTERN_LENGTH_MAX, damage, repaired
from protocols.messages.shared import Maybe, Model
from protocols.problems import Fault

Words = Annotated[str, StringConstraints(max_length=200)]
_LONG_GUNS = frozenset(("RIFLE", "CARBINE", "SHOTGUN", "COMBINATION_GUN", "MACHINE_GUN", "SUBMACHINE_GUN"))
_NO_SERIAL_EVER = frozenset(("PRINTED", "PRIVATELY_MADE", "CONVERTED", "ASSEMBLED_FROM_PARTS"))
_REPAIRS = {
    "date": "a spreadsheet made a day of it",
    "number": "a spreadsheet made a number of it",
    "exponent": "a spreadsheet made an exponent of it",
    "cut_at_hyphen": "it ends where this maker's serials have a hyphen: the rest may be lost",
    "zeros_lost": "this maker's serials are longer: leading zeros may be lost",
}


class Texts(Model):
    """A weapon as an examiner wrote it down: words, in whatever language; what is not known is left out."""

    serial: Words = ""
    make: Words = ""
    model: Words = ""
    calibre: Words = ""
    type: Words = ""
    importer: Words = ""
    country: Annotated[Maybe[str], Field(pattern="^[A-Z]{2}$", description="Country of manufacture, ISO 3166-1.")] = (
        None
    )
    origin_class: Annotated[Maybe[str], Field(description="PRINTED, PRIVATELY_MADE, CONVERTED ...")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identified:
    """The weapon as a message states it; what to look at, with pointers into it; the kinds that fit, with their scores."""

    weapon: dict[str, Any]
    findings: tuple[Fault, ...]
    kinds: tuple[tuple[Kind, int], ...]


def identify(texts: Texts) -> Identified:
    """Reads the words, says what to look at, and looks the kind up; nothing is guessed that the words do not say."""
    weapon = weapon_of(texts)
    codes = {name: "" if weapon[name]["code"] == UNKNOWN else weapon[name]["code"] for name in ("make", "calibre")}
    fitting = candidates(**codes, model=weapon.get("model", ""), weapon_type=weapon["type"]["code"])
    return Identified(weapon=weapon, findings=tuple(_findings(texts, weapon)), kinds=tuple(fitting))


def weapon_of(texts: Texts) -> dict[str, Any]:
    """The words as the Weapon of a message."""
    type_ = weapon_type_code(texts.type)
    calibre = read_calibre(texts.calibre, type_)
    make = make_key(texts.make)
    weapon: dict[str, Any] = {
        "type": {"code": type_, "raw": texts.type},
        "make": {"code": make if is_known(make) else UNKNOWN, "raw": texts.make},
        "calibre": {
            "code": calibre.code,
            "raw": "" if calibre.damage else texts.calibre,
        },  # a guess is a finding, not a word
        "origin_class": {"code": _origin(texts.origin_class), "raw": texts.origin_class or ""},
        "components": _components(read_serial(texts.serial), type_, texts.serial),
    }
    if weapon["origin_class"]["code"] in _NO_SERIAL_EVER:
        weapon["components"] = _without_past(weapon["components"], type_)
    if texts.model and not damage(texts.model):
        weapon["model"] = texts.model
    if texts.importer:
        weapon["importer"] = texts.importer
    if texts.country:
        weapon["country_of_manufacture"] = {"code": texts.country, "raw": texts.country}
    return weapon


def _origin(text: str | None) -> str:
    code = (text or "").strip().upper().replace(" ", "_").replace("-", "_")
    return code if code in LISTS["origin_class"] else UNKNOWN


def _without_past(components: list[dict[str, Any]], type_: str) -> list[dict[str, Any]]:
    """A weapon that no factory finished: its frame never had a serial, its factory parts have their own and do not match it."""
    frames = [part for part in components if part["kind"]["code"] in ("FRAME", "RECEIVER")]
    others = [part | {"matches_frame": False} for part in components if part not in frames]
    frame = "RECEIVER" if type_ in _LONG_GUNS else "FRAME"
    never = {"kind": {"code": frame, "raw": ""}, "marks": [_mark("", "NEVER_MARKED", pattern="")]}
    return [*(frames or [never]), *others]


def _components(read: SerialReading, type_: str, raw: str) -> list[dict[str, Any]]:
    """A component for each place that the words name; else the one that carries the unique mark (UN ITI 10)."""
    main = "RECEIVER" if type_ in _LONG_GUNS else "FRAME"
    if read.components and len({value for _, value in read.components}) > 1:
        return [
            {
                "kind": {"code": code, "raw": ""},
                "marks": [_mark(raw, "LEGIBLE" if value.isalnum() else "PARTIAL", pattern=value)],
            }
            for code, value in read.components
        ]
    kind = read.components[0][0] if read.components else main
    pattern = f"^{read.k1}$" if read.k1 else read.pattern
    if len(pattern) > PATTERN_LENGTH_MAX:  # no serial is that long
        mark = _mark(raw, "UNREAD", pattern="")
    else:
        mark = _mark(raw, read.status, pattern=pattern, alternatives=read.alternatives)
    lost = [
        {"kind": {"code": code, "raw": ""}, "marks": [_mark(raw, status, pattern="")]} for code, status in read.lost
    ]
    return [*lost, {"kind": {"code": kind, "raw": ""}, "marks": [mark]}]


def _mark(raw: str, status: str, *, pattern: str, alternatives: tuple[str, ...] = ()) -> dict[str, Any]:
    mark: dict[str, Any] = {
        "mark_type": {"code": "SERIAL", "raw": ""},
        "text_raw": "" if damage(raw) else raw,  # no message carries what a spreadsheet made of it; the finding does
        "location": {"code": UNKNOWN, "raw": ""},
        "status": {"code": status, "raw": ""},
    }
    if pattern:
        mark["pattern"] = pattern
    if alternatives:
        share = 100 // len(alternatives)
        mark["alternatives"] = [{"text": text, "weight": share} for text in alternatives]
    return mark


def _findings(texts: Texts, weapon: Mapping[str, Any]) -> Iterator[Fault]:
    for name in ("serial", "model", "calibre"):
        text = getattr(texts, name)
        harm = read_calibre(text).damage if name == "calibre" else damage(text)
        if harm:
            mended = read_calibre(text).repair if name == "calibre" else repaired(text)
            yield _finding(
                name,
                "damaged",
                _REPAIRS[harm],
                f"It may have been {mended}: look at the paper." if mended else "Look at the paper.",
            )
    yield from look_at(weapon, serial=texts.serial)


def look_at(weapon: Mapping[str, Any], *, serial: str = "") -> Iterator[Fault]:
    """What a person should look at in a Weapon that is valid: codes that its own words contradict, marks that may be cut."""
    make, calibre, type_ = weapon["make"], weapon["calibre"], weapon["type"]["code"]
    key = make_key(make["raw"])
    if make["code"] == UNKNOWN and key:
        if is_known(key):
            yield _finding("make", "code", "the words name a make that has a code", f"Give the code {key}.")
        else:
            yield _finding(
                "make", "unknown", "no make of our table", "Check the spelling; read maker's name and logo again."
            )
    elif is_known(key) and is_known(make["code"]) and key != make["code"]:
        yield _finding("make", "contradiction", f"the words say {key}, the code {make['code']}", "Correct one of them.")
    found = read_calibre(calibre["raw"], type_)
    if calibre["code"] == UNKNOWN and found.possible:
        yield _finding(
            "calibre", "open", f"may be {' or '.join(found.possible[:4])}", "Measure it, or state the weapon's type."
        )
    elif calibre["code"] == UNKNOWN and calibre["raw"].strip():
        yield _finding("calibre", "unknown", "no calibre of our table", "Write it as 9x19, .38 Special or 12/70.")
    elif found.possible and calibre["code"] not in found.possible and calibre_code(calibre["code"]) != UNKNOWN:
        yield _finding("calibre", "contradiction", f"the words say {found.possible[0]}", "Correct one of them.")
    for doubt in doubts(serial, make["code"]):
        fix = f"Look at the mark again: {doubt.repair}" + ("... ?" if doubt.code == "cut_at_hyphen" else " ?")
        yield _finding("serial", doubt.code, _REPAIRS[doubt.code], fix)
    yield from _marks(weapon, make["code"])


def _marks(weapon: Mapping[str, Any], make: str) -> Iterator[Fault]:
    marks = [
        mark for part in weapon["components"] for mark in part.get("marks", ()) if mark["mark_type"]["code"] == "SERIAL"
    ]
    if any("pattern" in mark or mark.get("alternatives") for mark in marks):
        return
    where = sorted({place for each in formats(make) for place in each.locations})
    hidden = next((each.hidden for each in formats(make) if each.hidden), "")
    if weapon["origin_class"]["code"] in _NO_SERIAL_EVER:
        yield _finding(
            "components", "no_serial", "a weapon without a past may never have had a serial",
            "Trace it by its components: slide, barrel, bolt and magazine of a factory have marks of their own.",
        )  # fmt: skip
    elif where or hidden:
        told = "; ".join(each for each in (", ".join(where).replace("_", " ").lower(), hidden) if each)
        yield _finding("components", "no_serial", "no serial can be read", f"This maker marks also here: {told}.")


def _finding(name: str, code: str, message: str, fix: str) -> Fault:
    return Fault(f"/weapon/{name}", code, message, fix)


def kind_json(kind: Kind, score: int) -> dict[str, Any]:
    """A kind as the interface shows it: an own reference number, formats, places of marks, what is easily mistaken for it."""
    known = formats(kind.make)
    return {
        "reference": {"scheme": "local", "number": kind.number}, "make": kind.make, "model": kind.model, "type": kind.type,
        "action": kind.action, "calibres": list(kind.calibres), "country": kind.country, "score": score,
        "serial_formats": [each.format for each in known],
        "mark_locations": sorted({place for each in known for place in each.locations}),
        "hidden_marks": next((each.hidden for each in known if each.hidden), ""),
        "look_alikes": [f"{each.make} {each.model}" for each in alike(kind)],
        "years": {name: int(year) for name, year in (("first", kind.first), ("last", kind.last)) if year},
    }  # fmt: skip
