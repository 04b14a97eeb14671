"""Arms embargoes by destination and date: an indicator for a person to look at, with its instrument and how sure the table is."""

import csv
import io
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Embargo:
    """One embargo; `scope` in words, `end` empty while it is in force, days as ISO 8601."""

    authority: str
    target: str
    scope: str
    start: str
    instrument: str
    end: str
    confidence: str


@cache
def embargoes() -> tuple[Embargo, ...]:
    """The table, as it is shipped."""
    text = resources.files(__package__).joinpath("embargoes.csv").read_text(encoding="utf-8")
    return tuple(Embargo(**row) for row in csv.DictReader(io.StringIO(text)))


def embargoed(country: str, first: str, last: str) -> list[Embargo]:
    """Those of a destination in force on some day from `first` to `last` (texts to compare by, as shared.earliest gives)."""
    return [
        each
        for each in embargoes()
        if each.target == country and each.start <= last and (not each.end or first <= each.end)
    ]
