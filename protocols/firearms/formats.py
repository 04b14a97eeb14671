"""Serial formats of makers as linear-time patterns: classes and literals with bounded counts, no alternatives, no nesting.

Matching moves one bit set over the text, as `serials.matches` does: at most 64 places x 32 characters.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from protocols.problems import ProblemError

FORMAT_LENGTH_MAX = 64
PLACES_MAX = 64
_ATOM = re.compile(r"(?:\[([A-Z0-9-]{1,40})\]|([A-Z0-9 ./-]))(?:\{(\d{1,2})(?:,(\d{1,2}))?\})?", re.ASCII)


def _characters(text: str) -> frozenset[str]:
    """The characters of a class: single ones and ranges as A-Z."""
    found: set[str] = set()
    at = 0
    while at < len(text):
        if text[at + 1 : at + 2] == "-" and at + 2 < len(text):
            first, last = text[at], text[at + 2]
            if first > last or first.isdigit() != last.isdigit():
                raise ProblemError("schema.invalid", "a range of a class does not run forward")
            found |= {chr(c) for c in range(ord(first), ord(last) + 1)}
            at += 3
        else:
            if text[at] == "-":
                raise ProblemError("schema.invalid", "a hyphen in a class that is no range")
            found.add(text[at])
            at += 1
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Format:
    """A parsed format: for each character the places that take it, as bits; runs of optional places; how many places."""

    takes: Mapping[str, int]
    optional: tuple[tuple[int, int], ...]
    places: int


@lru_cache(maxsize=256)
def parse_format(text: str) -> Format:
    """Classes and literals in order; `schema.invalid` for anything else."""
    if not 0 < len(text) <= FORMAT_LENGTH_MAX:
        raise ProblemError("schema.invalid", f"a format has 1 to {FORMAT_LENGTH_MAX} characters")
    takes: dict[str, int] = {}
    optional: list[tuple[int, int]] = []
    at = places = 0
    while at < len(text):
        found = _ATOM.match(text, at)
        if found is None:
            raise ProblemError("schema.invalid", f"not a format at character {at + 1}")
        chosen, literal, least, most = found.groups()
        low = int(least) if least else 1
        high = int(most) if most else low
        if not low <= high or places + high > PLACES_MAX or not high:
            raise ProblemError("schema.invalid", f"counts run forward and give 1 to {PLACES_MAX} characters in all")
        run = ((1 << high) - 1) << places
        for character in _characters(chosen) if chosen else literal:
            takes[character] = takes.get(character, 0) | run
        if high > low:
            optional.append((places + low, places + high))
        places += high
        at = found.end()
    return Format(takes, tuple(optional), places)


def matches_format(text: str, serial: str) -> bool:
    """Whether the whole serial, as it is written on the weapon, has the format."""
    parsed = parse_format(text)

    def skip(reached: int) -> int:
        """Bit i: the format so far can end before place i; an optional run may be left at any of its places."""
        for first, last in parsed.optional:
            inside = reached & ((1 << last) - (1 << first))
            if inside:
                reached |= (1 << last + 1) - (inside & -inside)
        return reached

    reached = skip(1)
    for character in serial:
        reached = skip((reached & parsed.takes.get(character, 0)) << 1)
    return bool(reached >> parsed.places & 1)
