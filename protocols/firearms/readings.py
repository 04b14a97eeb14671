"""Reads a serial as people write it ("132#830, where # may be 3, 8 or 9") into key, pattern, alternatives, components.

A reading says less than the text where in doubt, never more, and the text is kept unchanged beside it. Words are known
in English and Portuguese (docs/domain.md section 3).
"""

import re
from dataclasses import dataclass

from protocols.firearms.serials import (
    PATTERN_LENGTH_MAX,
    SERIAL_LENGTH_MAX,
    damage,
    fold,
    k1,
    parse_pattern,
    suspicious,
)
from protocols.problems import ProblemError

_ALTERNATIVES_MAX = 10
_TOLD_MIN = 4  # fewer characters inside a sentence are not taken for a whole serial
_RUN_SHOWN = 4  # a longer run of unknowns is written {n,n}


@dataclass(frozen=True, slots=True, kw_only=True)
class SerialReading:
    """What a serial text says: `k1` where it is a whole serial, else `pattern`, else neither and `status` is why."""

    raw: str
    status: str  # code of serial_status
    k1: str = ""
    pattern: str = ""
    alternatives: tuple[str, ...] = ()  # K1 or pattern each
    components: tuple[tuple[str, str], ...] = ()  # (component code, K1 or pattern)
    damage: str | None = None
    suspicious: bool = False


_STATUS = (  # the first that is found wins; stems, since the words come in every gender and with typing errors
    ("OBLITERATED", r"ELIMIN|SUPRIM|REMOV|RASPA|RASURA|OBLITER|GROUND|FILED|DEFACED|ERASED|ABRAS"),
    ("ALTERED_RESTAMPED", r"ADULTER|REMARC|RESTAMP|SOBRESC|SOBREESC|SUPERPOSI|ALTERED"),
    (
        "NEVER_MARKED",
        r"INEXIST|NAO POSSUI|AUSENTE|SEM NUM|DESPROV|NAO CONSTA|NAO HA\b|NO SERIAL|\bNONE\b|UNMARKED|NEVER MARKED",
    ),
    ("NOT_VISIBLE_WEAR", r"DESGAST|OXIDA|CORROS|FERRUG|\bWORN\b|\bWEAR\b|RUST"),
)
_STEMS = tuple((code, re.compile(stems)) for code, stems in _STATUS)
_RESTORED = re.compile(r"REVELAD|RESTORED|METALOGRAF|ETCH")
_DOUBT = re.compile(
    r"PARCIA|PARTIAL|ILEG|ILLEG|INDETERM|NAO IDENTIF|UNKNOWN|UNREADABLE|VISIVE|LEGIV|DIGIT|APARENT|CHARACT|CARACT"
)
_LAST = re.compile(r"LAST|ULTIM|FINA(?:L|IS)")
_FIRST = re.compile(r"FIRST|PRIMEIR|INICIA")
_OR = re.compile(r"\s(?:OU|OR)\s|\s/\s")
_SEGMENT = re.compile(r"(?i)[;,]|\s(?:e|and)\s(?![^()]{0,99}\))|(?<=\))\s")
_COMPONENTS = (
    ("FRAME", r"FRAME|ARMACAO|CORPO"),
    ("RECEIVER", r"RECEIVER|CAIXA"),
    ("SLIDE", r"SLIDE|FERROLHO"),
    ("BARREL", r"BARREL|CANO"),
    ("CYLINDER", r"CYLINDER|TAMBOR"),
    ("GRIP", r"GRIP|EMPUNHADURA|CABO"),
    ("BOLT", r"BOLT"),
)
_PLACES = tuple((code, re.compile(rf"\b(?:{words})\b")) for code, words in _COMPONENTS)
_LEGEND = re.compile(  # "where # may be 3, 8 or 9", "onde x é", "X representa", "sendo #"
    r"\b(?:WHERE|ONDE|SENDO)\s(?:O\s)?([#*X])"
    r"(?:\s(?:MAY BE|CAN BE|IS|PODE SER)\s((?:[A-Z0-9](?:,\s|\s(?:OR|OU)\s|\b)){2,9}))?"
    r"|\b(X)\s(?:REPRESENT|ALGARISMO|DIGIT|STANDS|=)"
)
_WORD = re.compile(r"[^\W_]*[?*#_][^\s;,()]*|[^\W_][^\s;,()]*")
_X_RUN = re.compile(r"(?<=[0-9])X{2,}$|^X{2,}(?=[A-Z]*[0-9])")
_UNKNOWN_WORD = re.compile(r"[?*#_]+|[Xx]{2,}")
_NOT_SERIALS = frozenset(("NI", "NL", "SN", "NA", "NO", "NR", "NAO", "SEM", "NONE", "VIDE", "VER"))
_TAIL = re.compile(r"[./:;]+$")


def _shortened(found: re.Match[str]) -> str:
    length = min(len(found.group()), PATTERN_LENGTH_MAX)
    return "?" * length if length <= _RUN_SHOWN else f"{{{length},{length}}}"


def _pattern(token: str, sets: dict[str, str]) -> str:
    """The pattern of one written token, or "" where it states nothing or is too long for a pattern."""
    text = re.sub(r"[-.]{3,}", lambda run: "?" * len(run.group()), token)
    text = "".join(sets.get(c, "?") if c in sets or c in "?*#_" else k1(c) for c in text)
    text = re.sub(r"\?{5,}", _shortened, text)
    try:
        parse_pattern(text)
    except ProblemError:
        return ""
    return text


def _is_serial(word: str, *, only: bool) -> bool:
    """Whether a word is (part of) a serial; `only`: it stands alone, so a few capitals will do."""
    known = k1(word)
    if any(c.isdecimal() for c in known):
        return True
    if any(c in "?*#_" for c in word) or "---" in word:
        return 0 < len(known) <= 6  # letters and wildcards: ACW????
    return only and 1 < len(known) <= 5 and word.isupper() and known not in _NOT_SERIALS


def _joined(words: list[str]) -> str:
    """The serial in a row of words: those with digits or wildcards, and short capitals that stand before one."""
    taken: list[str] = []
    for word in words:
        if _UNKNOWN_WORD.fullmatch(word):
            taken.append("?" * len(word))
        elif _is_serial(word, only=len(words) == 1) or _is_prefix(word, of_two=len(words) == 2):
            taken.append(word)
        elif any(_is_serial(t, only=False) for t in taken):
            break
        else:
            taken.clear()
    while taken and len(words) > 1 and _is_prefix(taken[-1], of_two=False):
        taken.pop()
    return "".join(taken)


def _is_prefix(word: str, *, of_two: bool) -> bool:
    short = len(word) <= 4 and (of_two or word.isupper())  # a letter lost would make a whole serial of a part
    return short and word.isascii() and word.isalpha() and word.upper() not in _NOT_SERIALS


def _wildcards(text: str) -> tuple[dict[str, str], str]:
    """What each wildcard of the legend stands for, and the text before the legend."""
    found = _LEGEND.search(fold(text))
    if found is None or len(fold(text)) != len(text):
        return {}, text
    sign = found[1] or found[3]
    choices = "".join(
        dict.fromkeys(re.findall(r"\b[A-Z0-9]\b", (found[2] or "").replace("OU", ",").replace("OR", ",")))
    )
    meaning = f"[{choices}]" if len(choices) > 1 else "?"
    return dict.fromkeys((sign, sign.lower()), meaning), text[: found.start()].rstrip(" ,(")


def _token(text: str, sets: dict[str, str]) -> tuple[str, bool]:
    """(K1 or pattern of the serial in a text, whether it is a whole serial)."""
    outside = re.sub(r"\([^()]{2,}\)?", " ", text).replace("(", "").replace(")", "")
    token = _TAIL.sub("", _joined(_WORD.findall(outside)))
    if not token:
        return "", False
    if any(c in sets or c in "?*#_" for c in token) or re.search(r"[-.]{3,}", token):
        return _pattern(token, sets), False
    if _X_RUN.search(key := k1(token)):
        return _pattern(_X_RUN.sub(lambda run: "?" * len(run.group()), key), {}), False
    return key, True


def _components(text: str, sets: dict[str, str]) -> tuple[tuple[str, str], ...]:
    found = []
    for segment in _SEGMENT.split(text):
        value = _token(segment, sets)[0]
        words = fold(segment)
        found += [(code, value) for code, place in _PLACES if value and place.search(words)]
    return tuple(found)


def _alternatives(text: str, sets: dict[str, str]) -> tuple[str, ...]:
    spaced = re.sub(r"(?i)\s(?:ou|or|e|and)\s|\s/\s|;\s?", " ; ", text)
    values = dict.fromkeys(_token(part, sets)[0] for part in spaced.split(" ; ")[:_ALTERNATIVES_MAX])
    known = tuple(value for value in values if value)
    return known if len(known) > 1 else ()


def _anchored(value: str, words: str) -> str:
    first, last = bool(_FIRST.search(words)), bool(_LAST.search(words))
    lost = re.search(r"NAO IDENT|ILEG|ILLEG|SUPRIM|REMOV|RASPA|UNKNOWN|INDETERM|MISSING|ELIMIN", words)
    if lost or first == last or not 0 < len(value) < PATTERN_LENGTH_MAX:
        return value  # "last digit unreadable" says nothing of where the known ones stand
    return f"^{value}" if first else f"{value}$"


def read_serial(raw: str) -> SerialReading:
    """The reading of a serial text of at most 200 characters; `schema.invalid` where it is longer."""
    if len(raw) > SERIAL_LENGTH_MAX:
        raise ProblemError("schema.invalid", f"a serial text has more than {SERIAL_LENGTH_MAX} characters")
    odd = suspicious(raw)
    if harm := damage(raw):
        return SerialReading(raw=raw, status="UNREAD", damage=harm, suspicious=odd)
    sets, text = _wildcards(raw.strip())
    words = fold(raw)
    places = _components(text, sets)
    if len({value for _, value in places}) > 1:
        whole = all(value.isalnum() for _, value in places)
        return SerialReading(raw=raw, status=_seen(words, whole=whole), components=places, suspicious=odd)
    if not places and (several := _alternatives(text, sets)):
        return SerialReading(raw=raw, status="PARTIAL", alternatives=several, suspicious=odd)
    value, whole = _token(text, sets)
    reason = next((code for code, stems in _STEMS if stems.search(words)), "UNREAD")
    if whole and _says_whole(value, words, reason):
        return SerialReading(raw=raw, status=_seen(words, whole=True), k1=value, components=places, suspicious=odd)
    if whole:
        value = _anchored(_pattern(value, {}), words)
    if not value:  # nothing legible, or too long for a pattern
        return SerialReading(raw=raw, status=reason, suspicious=odd)
    status = reason if reason == "ALTERED_RESTAMPED" else "PARTIAL"
    return SerialReading(raw=raw, status=status, pattern=value, components=places, suspicious=odd)


def _says_whole(value: str, words: str, reason: str) -> bool:
    if reason not in ("UNREAD", "NOT_VISIBLE_WEAR") or _DOUBT.search(words) or _LAST.search(words):
        return False
    return len(value) >= _TOLD_MIN or words.count(" ") < _TOLD_MIN - 1  # "bears the number 12 below the barrel"


def _seen(words: str, *, whole: bool) -> str:
    if _RESTORED.search(words):
        return "RESTORED" if whole else "RESTORED_PARTIAL"
    return "LEGIBLE" if whole else "PARTIAL"
