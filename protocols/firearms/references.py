"""Kinds of weapons by make and model, serial formats of makers, where marks stand: an own table, as a reference service answers from.

Every score is a share of what was stated: a kind that was not described by anything is no candidate.
"""

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import NamedTuple

from protocols.codes import UNKNOWN
from protocols.firearms.calibres import contradicts_type
from protocols.firearms.formats import matches_format
from protocols.firearms.serials import k1

KINDS_MAX = 25
_WEIGHTS = {"model": 40, "make": 30, "calibre": 15, "type": 10, "country": 5}
_OUTSIDE_CLASS = re.compile(r"-(?![^\[]*\])")
_ZEROS_MAX = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of weapon; `calibres` are codes, `first` and `last` years or "", `alike` a family that is easily mistaken."""

    number: str
    make: str
    model: str
    type: str
    action: str
    calibres: tuple[str, ...]
    country: str
    first: str
    last: str
    names: tuple[str, ...]
    alike: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SerialFormat:
    """How a maker numbers its weapons, where the number stands, and where else to look."""

    make: str
    format: str
    locations: tuple[str, ...]
    hidden: str


class Doubt(NamedTuple):
    """What a serial text may have lost on its way, and what it may have been."""

    code: str
    repair: str


def _rows(name: str) -> Iterable[dict[str, str]]:
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    return csv.DictReader(io.StringIO(text))


@cache
def kinds() -> tuple[Kind, ...]:
    """The table, as it is shipped."""
    return tuple(
        Kind(**row | {"calibres": tuple(row["calibres"].split(";")), "names": tuple(row["names"].split(";"))})  # type: ignore[arg-type]
        for row in _rows("references.csv")
    )


@cache
def formats(make: str) -> tuple[SerialFormat, ...]:
    """The serial formats that are known of a make code."""
    return tuple(
        SerialFormat(**row | {"locations": tuple(row["locations"].split())})  # type: ignore[arg-type]
        for row in _rows("serial_formats.csv")
        if row["make"] == make
    )


def candidates(
    *, make: str = "", model: str = "", calibre: str = "", weapon_type: str = UNKNOWN, country: str = ""
) -> list[tuple[Kind, int]]:
    """Kinds that fit a description, best first, with the percent of what was stated that fits; at most 25.

    A make or a model must fit, or else type and calibre both. `make` and `calibre` are codes; "" is "not stated".
    """
    stated = {
        name for name, text in (("model", model), ("make", make), ("calibre", calibre), ("country", country)) if text
    }
    stated |= {"type"} if weapon_type != UNKNOWN else set()
    whole = sum(_WEIGHTS[name] for name in stated)
    found, model_key = [], k1(model)
    for kind in kinds():
        fits = {
            "model": model_key in _model_keys(kind), "make": kind.make == make, "calibre": calibre in kind.calibres,
            "type": contradicts_type(kind.type, weapon_type) == "same", "country": kind.country == country,
        }  # fmt: skip
        if (fits["model"] and "model" in stated) or fits["make"] or (fits["type"] and fits["calibre"]):
            found.append((kind, round(100 * sum(_WEIGHTS[name] for name in stated if fits[name]) / whole)))
    return sorted(found, key=lambda each: (-each[1], int(each[0].number)))[:KINDS_MAX]


def alike(kind: Kind) -> tuple[Kind, ...]:
    """Other kinds that are easily mistaken for it."""
    return tuple(each for each in kinds() if kind.alike and each.alike == kind.alike and each != kind)


def doubts(serial: str, make: str) -> tuple[Doubt, ...]:
    """What a serial, as it is written, may have lost: it fits no format of its make, and fits one when mended.

    `cut_at_hyphen`: what stands before a format's hyphen alone. `zeros_lost`: leading zeros, as a spreadsheet strips them.
    """
    written = serial.strip().upper()
    known = formats(make)
    if not written or any(matches_format(each.format, written) for each in known):
        return ()
    if any(
        matches_format(each.format.replace("-", ""), k1(written))
        for each in known
        if _OUTSIDE_CLASS.search(each.format)
    ):
        return ()  # written without its hyphen
    if _is_cut(written, known):
        return (Doubt("cut_at_hyphen", f"{written}-"),)
    for zeros in range(1, _ZEROS_MAX + 1):
        mended = "0" * zeros + written
        if written.isdecimal() and any(matches_format(each.format, mended) for each in known):
            return (Doubt("zeros_lost", mended),)
    return ()


_FACTORY_CODE = "T[0-9]{4}"  # Turkish makers begin with the works' code and a hyphen


def _is_cut(written: str, known: Iterable[SerialFormat]) -> bool:
    heads = (_OUTSIDE_CLASS.split(each.format)[0] for each in known if _OUTSIDE_CLASS.search(each.format))
    return any(matches_format(head, written) for head in (_FACTORY_CODE, *heads))


@lru_cache(maxsize=4096)
def _model_keys(kind: Kind) -> frozenset[str]:
    """How the model may be written, also after its make."""
    names = [k1(name) for name in (kind.model, *kind.names)]
    return frozenset((*names, *(k1(kind.make) + name for name in names)))
