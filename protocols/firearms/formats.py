"""Serial formats of makers as linear-time patterns: classes and literals with bounded counts, no alternatives, no nesting.

Matching moves one bit set over the text, as `serials.matches` does: at most 64 places x 32 characters.
"""

import re
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


@lru_cache(maxsize=256)
def parse_format(text: str) -> tuple[tuple[frozenset[str], bool], ...]:
    """Places in order as (characters, whether it must be there); `schema.invalid` for anything else."""
    if not 0 < len(text) <= FORMAT_LENGTH_MAX:
        raise ProblemError("schema.invalid", f"a format has 1 to {FORMAT_LENGTH_MAX} characters")
    places: list[tuple[frozenset[str], bool]] = []
    at = 0
    while at < len(text):
        found = _ATOM.match(text, at)
        if found is None:
            raise ProblemError("schema.invalid", f"not a format at character {at + 1}")
        chosen, literal, least, most = found.groups()
        characters = _characters(chosen) if chosen else frozenset(literal)
        low = int(least) if least else 1
        high = int(most) if most else low
        if not low <= high or len(places) + high > PLACES_MAX or not high:
            raise ProblemError("schema.invalid", f"counts run forward and give 1 to {PLACES_MAX} characters in all")
        places += [(characters, True)] * low + [(characters, False)] * (high - low)
        at = found.end()
    return tuple(places)


def matches_format(text: str, serial: str) -> bool:
    """Whether the whole serial, as it is written on the weapon, has the format."""
    places = parse_format(text)
    reached = {0}

    def skip(at: int) -> set[int]:
        found = {at}
        while at < len(places) and not places[at][1]:
            at += 1
            found.add(at)
        return found

    reached = skip(0)
    for character in serial:
        reached = {each for at in reached if at < len(places) and character in places[at][0] for each in skip(at + 1)}
    return len(places) in reached
