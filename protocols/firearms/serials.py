"""Serial numbers: search keys, the Pattern language, and text that is silently damaged (docs/domain.md section 3).

No pattern ever becomes a regular expression: matching moves one bit set over the text, bounded by 32 x 32 shifts.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import lru_cache

from protocols.problems import ProblemError

PATTERN_LENGTH_MAX = 32
SERIAL_LENGTH_MAX = 200  # of a text as written; what stands on weapons is under 30
_RUN_MAX = 32

# Homoglyphs fold in keys only, never in what is kept (docs/domain.md section 3).
_HOMOGLYPHS = str.maketrans(
    "АВЕЅІЈКМНОРСТУХ" + "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",  # noqa: RUF001  Cyrillic, then Greek
    "ABESIJKMHOPCTYX" + "ABEZHIKMNOPTYX",
)
_CONFUSABLES = str.maketrans("OQILZSBG", "00112586")
_ALNUM_RUN = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class SerialKeys:
    """The search keys of one serial text; `k2` folds confusables (0.5 % collisions), `no_zeros` lacks leading zeros."""

    k1: str
    k2: str
    k3: tuple[str, ...]
    no_zeros: str
    trigrams: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed pattern; a step is (characters or None for any, least, most)."""

    steps: tuple[tuple[str | None, int, int], ...]
    start: bool
    end: bool


def _decomposed(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def fold(text: str) -> str:
    """Upper case, without marks on letters, homoglyphs as Latin letters; the same when folded again."""
    return _decomposed(_decomposed(text).upper()).translate(_HOMOGLYPHS)


def k1(text: str) -> str:
    """Upper-case alphanumerics of a serial: the key that "the same serial" means."""
    return "".join(c for c in fold(text) if c.isalnum())


def k2(text: str) -> str:
    """K1 with confusable characters folded."""
    return k1(text).translate(_CONFUSABLES)


def trigrams(key: str) -> tuple[str, ...]:
    """Sorted distinct trigrams of a K1; a shorter key is its own only one."""
    return tuple(sorted({key[i : i + 3] for i in range(max(1, len(key) - 2))} - {""}))


def grams(key: str) -> frozenset[str]:
    """What a K1 is indexed by: every run of two and of three characters, and the key itself where it is shorter."""
    return frozenset(key[i : i + n] for n in (2, 3) for i in range(len(key) - n + 1)) or frozenset((key,)) - {""}


def wanted_grams(text: str) -> list[frozenset[str]]:
    """Sets of grams of which a key holds one whole, if it may be what a K1 or a pattern means; none: nothing to look up by.

    Of a pattern, those of all its stretches. Of a whole serial, those of its front or of its back half: one wrong character
    spoils only one of them.
    """
    if text.isalnum():
        half = len(text) // 2
        halves = (text[:half], text[half:]) if half >= _HALF_MIN else (text,)
        return [_longest(part) for part in halves]
    stretches = "".join(c if c.isalnum() else " " for c in _SET_OR_RUN.sub(" ", text)).split()
    found = frozenset().union(*(_longest(each) for each in stretches if len(each) > 1))
    return [found] if found else []


def _longest(stretch: str) -> frozenset[str]:
    size = min(len(stretch), 3)
    return frozenset(stretch[i : i + size] for i in range(len(stretch) - size + 1))


def like(pattern: str) -> str:
    """A pattern as SQL's LIKE, which finds no less than it: `_` one character, `%` any number; `matches` decides."""
    parsed = parse_pattern(pattern)
    parts = [
        "_"
        if chars is None and (least, most) == (1, 1)
        else "%"
        if chars is None
        else chars
        if len(chars) == 1
        else "_"
        for chars, least, most in parsed.steps
    ]
    return ("" if parsed.start else "%") + "".join(parts) + ("" if parsed.end else "%")


def search_keys(text: str) -> SerialKeys:
    """Every key under which a serial is stored and looked for; `text` has at most SERIAL_LENGTH_MAX characters."""
    if len(text) > SERIAL_LENGTH_MAX:
        raise ProblemError("schema.invalid", f"a serial text has more than {SERIAL_LENGTH_MAX} characters")
    key = k1(text)
    return SerialKeys(
        k1=key,
        k2=key.translate(_CONFUSABLES),
        k3=tuple(_ALNUM_RUN.findall(fold(text))),
        no_zeros=key.lstrip("0") or key,
        trigrams=trigrams(key),
    )


_HALF_MIN = 3  # characters of half a serial that are looked up alone
_SET_OR_RUN = re.compile(r"\[[^]]*\]|\{[^}]*\}")
_STEP = re.compile(r"\?|\[([^\W_]{2,16})\]|\{(\d{1,2}),(\d{1,2})\}|([^\W_])")


def _steps(text: str) -> Iterator[tuple[str | None, int, int]]:
    at = 0
    while at < len(text):
        found = _STEP.match(text, at)
        if found is None:
            raise ProblemError("schema.invalid", f"not a pattern at character {at + 1}")
        chosen, least, most, literal = found.groups()
        if least is not None and not int(least) <= int(most) <= _RUN_MAX:
            raise ProblemError("schema.invalid", f"a run must be {{m,n}} with m <= n <= {_RUN_MAX}")
        if chosen and len(set(chosen)) < len(chosen):
            raise ProblemError(
                "schema.invalid", "a character stands twice in a set: it would be a known one in disguise"
            )
        if any(k1(c) != c for c in (chosen or literal or "")):
            raise ProblemError("schema.invalid", "a pattern is written in the characters of K1: upper case, folded")
        yield (None, int(least), int(most)) if least else (chosen or literal, 1, 1)
        at = found.end()


@lru_cache(maxsize=256)
def parse_pattern(text: str) -> Pattern:
    """`?`, `[38B]`, `{2,4}`, `^`, `$` and at least one literal, in 32 characters; else `schema.invalid`."""
    if not 0 < len(text) <= PATTERN_LENGTH_MAX:
        raise ProblemError("schema.invalid", f"a pattern has 1 to {PATTERN_LENGTH_MAX} characters")
    steps = tuple(_steps(text.removeprefix("^").removesuffix("$")))
    if not any(chars is not None and len(chars) == 1 for chars, _, _ in steps):
        raise ProblemError("schema.invalid", "a pattern needs at least one literal")
    return Pattern(steps, text.startswith("^"), text.endswith("$"))


def known_characters(pattern: str) -> int:
    """How many characters a pattern states for certain; fewer than four must not bring candidates."""
    return sum(chars is not None and len(chars) == 1 for chars, _, _ in parse_pattern(pattern).steps)


def matches(pattern: str, key: str) -> bool:
    """Whether the K1 `key` holds the pattern: anywhere in it, unless anchored."""
    parsed = parse_pattern(pattern)
    full = (1 << len(key) + 1) - 1
    places = 1 if parsed.start else full  # bit i: the pattern so far can end before character i
    for chars, least, most in parsed.steps:
        if chars is None:
            shifted = places << least
            places = 0
            for _ in range(most - least + 1):
                places |= shifted
                shifted <<= 1
            places &= full
        else:
            places = (places & sum(1 << i for i, c in enumerate(key) if c in chars)) << 1
    return bool(places >> len(key) if parsed.end else places)


_EXPONENT = re.compile(r"\d+(?:[.,]\d+)?E\+\d+", re.ASCII | re.IGNORECASE)
_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:[T ][\d:.]{5,12})?", re.ASCII)
_MONTH = "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC"
_DAY = re.compile(rf"(?:\d{{1,2}}-)?(?:{_MONTH})(?:-\d{{1,4}})?", re.ASCII | re.IGNORECASE)


def damage(text: str) -> str | None:
    """Why a serial, model or calibre text is a spreadsheet's invention: `exponent` or `date`; None where it is not."""
    text = text.strip()
    if _EXPONENT.fullmatch(text):
        return "exponent"
    if (day := _DAY.fullmatch(text)) and "-" in day.group():
        return "date"
    if found := _DATE.fullmatch(text):
        try:
            date(*map(int, found.groups()))
        except ValueError:
            return None
        return "date"
    return None


def repaired(text: str) -> str:
    """What a damaged text was before, as far as the damage tells: `12/70`, `24/7`, `33E53`; "" where nothing tells."""
    text = text.strip()
    if (found := _DATE.fullmatch(text)) and damage(text):
        year, month, day = map(int, found.groups())
        return f"{month}/{year % 100:02d}" if day == 1 else f"{day}/{month}"
    if damage(text) == "exponent":
        mantissa, _, exponent = text.upper().replace(",", ".").partition("E+")
        whole, _, rest = mantissa.partition(".")
        rest = rest.rstrip("0")
        return f"{whole}{rest}E{int(exponent) - len(rest)}"
    return ""


_SCRIPTS = ("LATIN", "CYRILLIC", "GREEK")


def suspicious(text: str) -> bool:
    """Whether a text may deceive the eye: control or format characters, not NFC, or letters of two scripts."""
    if text.isascii() and text.isprintable():
        return False
    if any(unicodedata.category(c)[0] == "C" for c in text) or not unicodedata.is_normalized("NFC", text):
        return True
    return sum(any(unicodedata.name(c, "").startswith(script) for c in text) for script in _SCRIPTS) > 1
