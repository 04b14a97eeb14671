"""Calibres and weapon types: (calibre text, weapon type) -> code, and whether two statements contradict each other.

`.32` or `7.65 mm` alone name several cartridges; the weapon type narrows them.
What stays open is never a contradiction.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Literal

from protocols.codes import UNKNOWN
from protocols.firearms.serials import damage, fold, repaired

Comparison = Literal["same", "different", "unknown"]

_DATA = resources.files(__package__).joinpath("calibres.json").read_bytes()
_TABLE = json.loads(_DATA)
VERSION: str = _TABLE["version"]
SHA256 = hashlib.sha256(_DATA).hexdigest()

_FIREABLE = {code: frozenset(entry["types"]) for code, entry in _TABLE["calibres"].items()}
_INCHES = re.compile(r"^0?\.(?=\d)")
_NUMBER = re.compile(r"0[.,](\d{1,3})", re.ASCII)  # .38 as a spreadsheet's number
_FILLER = re.compile(
    r"P{0,2}|HYPER|[HS]V|HP|FMJ|JHP|CAL|CALIB(?:RE|ER)|EXPO|CTG|CARTRIDGES?|ROUNDS?|AMMO|SUBSONIC|TARGET|M\d{2,4}(?:/\d\d)?"
)
"""Words after a calibre that name no other cartridge."""
_SPACED = re.compile(r"(?<=\d)(?=[A-Z]{2,})|[\s,;+-]+(?=\D)")
_GAUGE_BY_LENGTH = re.compile(r"^(\d\d)\s*[/X]\s*(?:63|65|67|70|76|89)\b")  # 12/70, 28 x 63,5


@lru_cache(maxsize=4096)  # calibre texts repeat; they name no weapon
def _key(text: str) -> str:
    text = re.sub(r"\bCAL(?:IB(?:RE|ER)|IBRE)?\b\.?", "", fold(text.replace("×", "X")).replace(",", ".")).strip()  # noqa: RUF001
    if gauge := _GAUGE_BY_LENGTH.match(text):
        return gauge[1] + "GAUGE"
    key = "".join(c for c in _INCHES.sub("", text) if c.isalnum())
    return key.removesuffix("MM") if "X" in key else key


def _names() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for code, entry in _TABLE["calibres"].items():
        for key in {_key(name) for name in (code.replace("_", " "), *entry["names"])}:
            found[key] = (*found.get(key, ()), code)
    return found


_CODES_BY_KEY = _names()
_TYPES_BY_KEY: dict[str, str] = {_key(name): code for code, names in _TABLE["types"].items() for name in (code, *names)}


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibreReading:
    """What a calibre text says: `code`, or UNKNOWN where several are `possible`; `repair` is the text before its damage."""

    raw: str
    code: str
    possible: tuple[str, ...]
    damage: str | None = None
    repair: str = ""


def read_calibre(raw: str, weapon_type: str = UNKNOWN) -> CalibreReading:
    """The reading of a calibre text; what a spreadsheet made of it is read as what it was, and flagged.

    `12/70` becomes a day, `.38` a number: nobody writes 0.38, and no cartridge is 1970-12-01.
    """
    harm, repair = damage(raw), repaired(raw)
    if harm is None and (number := _NUMBER.fullmatch(raw.strip())):
        harm, repair = "number", f".{number[1]:0<2}"
    codes = _possible(repair or raw, weapon_type)
    if harm == "number" and len(repair) == len(".38"):  # .380 becomes 0.38 as well
        longer = (code for code in _possible(f"{repair}0", weapon_type) if weapon_type in (UNKNOWN, *_FIREABLE[code]))
        codes = tuple(dict.fromkeys((*codes, *longer)))
        if len(codes) > 1 and weapon_type != UNKNOWN and len(_possible(repair, weapon_type)) < len(codes):
            return CalibreReading(raw=raw, code=UNKNOWN, possible=codes, damage=harm, repair=repair)
    return CalibreReading(raw=raw, code=_chosen(codes, weapon_type), possible=codes, damage=harm, repair=repair)


def possible(text: str, weapon_type: str = UNKNOWN) -> tuple[str, ...]:
    """The calibres a text may mean in a weapon of that type, the usual one first; empty where the text is not known."""
    return read_calibre(text, weapon_type).possible


@lru_cache(maxsize=4096)
def _possible(text: str, weapon_type: str, *, shorten: bool = True) -> tuple[str, ...]:
    """By the whole text, by what stands before or in parentheses; and, `shorten`, by ever fewer words, also of what a slash parts."""
    outside, _, inside = text.partition("(")
    tries = [text, outside, inside.rpartition(")")[0] or inside]
    for part in (outside, outside.partition("/")[0]) if shorten else ():
        words = _SPACED.split(part.upper().strip())
        fillers = next(
            (n for n, word in enumerate(reversed(words)) if not _FILLER.fullmatch(word.strip(".+-"))), len(words)
        )
        tries += [" ".join(words[:count]) for count in range(len(words), max(len(words) - fillers, 1) - 1, -1)]
    codes = next((found for each in tries if (found := _CODES_BY_KEY.get(_key(each)))), ())
    return tuple(code for code in codes if weapon_type in _FIREABLE[code]) or codes


def calibre_code(text: str, weapon_type: str = UNKNOWN) -> str:
    """The code of a calibre text; UNKNOWN where it is not in the table, or ambiguous for want of a weapon type."""
    return read_calibre(text, weapon_type).code


def _chosen(codes: tuple[str, ...], weapon_type: str) -> str:
    return codes[0] if len(codes) == 1 or (codes and weapon_type != UNKNOWN) else UNKNOWN


def contradicts(a: str, b: str, *, type_a: str = UNKNOWN, type_b: str = UNKNOWN) -> Comparison:
    """Whether two calibre texts say the same, different things, or leave it open."""
    key_a, key_b = _key(a), _key(b)
    if not key_a or not key_b:
        return "unknown"
    codes_a, codes_b = (set(_possible(text, type_, shorten=False)) for text, type_ in ((a, type_a), (b, type_b)))
    if key_a == key_b or (codes_a == codes_b and len(codes_a) == 1):
        return "same"
    if codes_a and codes_b and not codes_a & codes_b:
        return "different"
    return "unknown"


def weapon_type_code(text: str) -> str:
    """The weapon_type code of a text (English, Portuguese, some others), or UNKNOWN."""
    return _TYPES_BY_KEY.get(_key(text), UNKNOWN)


_SHOULDER = frozenset(("RIFLE", "CARBINE"))  # one line between them is drawn differently in every country


def contradicts_type(a: str, b: str) -> Comparison:
    """Whether two weapon_type codes say the same, different things, or leave it open."""
    if not {a, b}.isdisjoint(("", UNKNOWN, "OTHER")):
        return "unknown"
    return "same" if a == b or {a, b} <= _SHOULDER else "different"
