"""Reads a serial as people write it ("132#830, where # may be 3, 8 or 9") into key, pattern, alternatives, components.

A reading says less than the text where in doubt, never more, and the text is kept unchanged beside it. Words are known
in English, Portuguese, Spanish and French (docs/domain.md section 3). NOT_EXAMINED is also what a blank says: nobody wrote a reading down.
"""

import difflib
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
    lost: tuple[tuple[str, str], ...] = ()  # (component code, status) of those that are named and have none
    damage: str | None = None
    suspicious: bool = False


# Stems, since the words come in every gender and with typing errors: English, Portuguese, Spanish, French, folded.
# The first status that is found wins.
_STATUS = (
    ("NOT_VISIBLE_WEAR", r"ACAO DO TEMPO|ACCION DEL TIEMPO|ACTION DU TEMPS|PASO DEL TIEMPO"),
    (
        "OBLITERATED",
        (
            r"ELIMIN|SUPRIM|SUPPRIM|REMOV|RASPA|RASURA|OBLITER|GROUND|FILED|DEFACE|ERASED|ABRAS|LIXAD|LIJAD|PINAD[OA]|PUNCION|LIMAD|"
            r"\bLIMEE?\b|BORRAD|ESMERIL|DESBAST|EFFAC|MEULE|GRATTE|RETIRAD|EXTRAID|EXTRAIT|DANIFIC|DRILLED|SCRATCHED|GOUGED|PEENED|"
            r"DESTRUI|POR ACAO MECANICA|MARCACAO SOBREPOSTA|ENLEVE"
        ),
    ),
    (
        "ALTERED_RESTAMPED",
        (
            r"ADULTER|REMARC|RESTAMP|SOBRESC|SOBREESC|SUPERPOSI|ALTERED|ALTERAD|ALTERE\b|REGRABAD|REGRAVAD|REFRAPP|SURFRAPP|FALSIFI|"
            r"REMARQU|OVERSTAMP|RENUMBER"
        ),
    ),
    (
        "NEVER_MARKED",
        (
            r"INEXIST|N(?:AO|O) EXIST|NAO POSSUI|AUSENTE|AUSENCIA|SEM N|DESPROV|DESTITUI|NAO CONSTA\b|NAO HA\b|NO SERIAL|\bNONE\b|UNMARKED|"
            r"NEVER MARKED|NAO (?:OSTENT|APRESENT|CONTEM)|SIN N[UO]|SIN SERIE|CARECE|NO (?:POSEE|TIENE|PRESENTA|OSTENTA)|SANS N|SANS MARQU|"
            r"AUCUN N|ABSENCE|DEPOURVU|ARTESANAL|HOME ?MADE|NON MARQUE|SIN MARCA|SEM MARCA"
        ),
    ),
    (
        "NOT_VISIBLE_WEAR",
        (
            r"DESGAST|OXID|OXYD|CORRO|FERRUG|HERRUMB|ROUILL|GASTAD|\bWORN\b|\bWEAR\b|RUST|USURE|\bUSEE?\b|ILEGIV|ILEGIB|ILLEGIB|ILLISIB|"
            r"UNREADABLE|INDETERM|INDEFIN|(?:\bNAO|\bNON?|\bNOT|\bN) (?:\w+ )?(?:SE )?(?:ENCONTR|LOCALI|LOCATED|IDENTIF|APAREN|APREC|VISUAL|VISIV|"
            r"VISIB|LEGI|LISIB|READAB|FOUND|TROUV|DETERMIN|CONSTAT|OBSERV|MOSTRAV|OBTID)|INVISIV|INVISIB|SEM (?:VESTIG|INDICA)|RECOBRIMENT"
        ),
    ),
    (
        "NOT_EXAMINED",
        r"NOT EXAMINED|NAO EXAMIN|NO EXAMIN|NON EXAMIN|NAO INFORM|NO INFORM|NOT RECORDED|N[AO]*O? (?:SE )?APLICA",
    ),
)
_STEMS = tuple((code, re.compile(stems)) for code, stems in _STATUS)
_SHORT = {
    **dict.fromkeys(("NI", "NL", "NV", "IND", "INDET"), "NOT_VISIBLE_WEAR"),  # nao identificado, localizado, visivel
    **dict.fromkeys(("SN", "SNS", "SNO"), "NEVER_MARKED"),  # sem, sin, sans numero
    **dict.fromkeys(("", "NA", "NR", "NT"), "NOT_EXAMINED"),
}
_WORDS = {  # whole words, for typing errors in them
    "OBLITERATED": "ELIMINADO ELIMINADA SUPRIMIDO SUPRIMIDA SUPPRIME REMOVIDO REMOVIDA REMOCAO RASPADO RASPADA OBLITERADO OBLITERATED EXTRAIDO BORRADO EFFACE",
    "ALTERED_RESTAMPED": "ADULTERADO ADULTERADA REMARCADO SOBREPOSTA RESTAMPED",
    "NEVER_MARKED": "INEXISTENTE DESPROVIDO DESTITUIDO ARTESANAL",
    "NOT_VISIBLE_WEAR": "INDETERMINADO INDETERMINADA IDENTIFICADO VISUALIZADO ENCONTRADO LOCALIZADO ILEGIVEL DESGASTADO OXIDADO ILLEGIBLE",
}
_TYPED = {word: code for code, words in _WORDS.items() for word in words.split()}
_LIKE = 0.8
_LONG_WORD = re.compile("[A-Z]{6,}")
_RESTORED = re.compile(r"REVELAD|REVELE|RESTOR|RESTAUR|METALOGRAF|METALLOGR|ETCH")
_DOUBT = re.compile(
    r"PARCIA|PARTIAL|PARTIEL|ILEG|ILLEG|ILLIS|INDETERM|NAO IDENTIF|UNKNOWN|UNREADABLE|VISIVE|VISIBL|LEGIV|LEGIB|LISIB|DIGIT|CHIFFRE|"
    r"APARENT|APARENTA|PARECE|SEEMS|LOOKS LIKE|CHARACT|CARACT|POSSIB|POSSIV|POSIB|TALVEZ|TAL VEZ|QUIZA|PROVAV|PROBAB|PEUT.?ETRE|MAYBE|"
    r"PERHAPS|UNSURE|UNCERTAIN|INCERT|INCIERT|DUVID|DOUBT|APPROX|APROX|\bNOT\b|\bNAO\b|\bNON\b|\bNO E\b|\bNO ES\b"
)
_LAST = re.compile(r"LAST|ULTIM|FINA(?:L|IS)|DERNIER|\bTERMINA")
_FIRST = re.compile(r"FIRST|PRIMEIR|PRIMER|PREMIER|INICIA|BEGIN|COMIENZA|COMMENCE")
_SEGMENT = re.compile(r"(?i)[;,]|\s(?:e|and|y|et)\s(?![^()]{0,99}\))|(?<=\))\s")
_COMPONENTS = (
    ("FRAME", r"FRAME|ARMACAO|CORPO|ARMAZON|CARCASA|CARCASSE|BASTIDOR"),
    ("RECEIVER", r"RECEIVER|CAIXA|CAJON|CAJA|BOITIER|BOITE DE CULASSE"),
    ("SLIDE", r"SLIDE|FERROLHO|CORREDERA|GLISSIERE"),
    ("BARREL", r"BARREL|CANO|CANON"),
    ("CYLINDER", r"CYLINDER|TAMBOR|CILINDRO|BARILLET"),
    ("GRIP", r"GRIP|EMPUNHADURA|CABO|EMPUNADURA|POIGNEE|CACHA"),
    ("BOLT", r"BOLT|CERROJO|CULASSE"),
)
_PLACES = tuple((code, re.compile(rf"\b(?:{words})\b")) for code, words in _COMPONENTS)
_LEGEND = re.compile(  # "where # may be 3, 8 or 9", "onde x é", "X representa", "sendo #"
    r"\b(?:WHERE|ONDE|SENDO|DONDE|OU)\s(?:O\s|LE\s|EL\s)?([#*X])"
    r"(?:\s(?:MAY BE|CAN BE|IS|PODE SER|PUEDE SER|PEUT ETRE|EST)\s((?:[A-Z0-9](?:,\s|\s(?:OR|OU|O)\s|\b)){2,9}))?"
    r"|\b(X)\s(?:REPRESENT|ALGARISMO|DIGIT|STANDS|=)"
)
_LABEL = re.compile(  # "Nº 12345", "serie: 12345", "S/N 12345"
    r"^\s*(?:N\s?[º°o]\.?|N[º°]|NO\.|NR\.|NUM(?:ERO|BER)?\b\.?|S/?N\s?[:.#]|S/N\b|SERIAL(?:\s(?:NO\.?|NUMBER|N[º°]))?\b|S[EÉ]RIE\b|SER\.)\s*[:.#-]?\s*(?=\S*\d)",
    re.IGNORECASE,
)
_APART = re.compile(r"(?<=[\w?*#])\s?[,/+&|\n]\s?(?=[\w?*#])")
_WORD = re.compile(r"[^\W_]*[?*#_][^\s;,()]*|[^\W_][^\s;,()]*")
_X_RUN = re.compile(r"(?<=[0-9])X{2,}$|^X{2,}(?=[A-Z]*[0-9])")
_UNKNOWN_WORD = re.compile(r"[?*#_]+|[Xx]{2,}")
_NO_PREFIX = frozenset((
    "NI", "NL", "SN", "NA", "NO", "NR", "NAO", "SEM", "NONE", "VIDE", "VER", "NON", "NOT", "SIN", "SANS", "NIL", "NULL", "VOIR", "SEE", "THE",
))  # fmt: skip
_NOT_SERIALS = _NO_PREFIX | _SHORT.keys()
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
    told = len(words) == 1 or any(_is_serial(word, only=False) for word in taken)  # "ground off" is no serial
    return "".join(taken) if told else ""


def _is_prefix(word: str, *, of_two: bool) -> bool:
    short = len(word) <= 4 and (of_two or word.isupper())  # a letter lost would make a whole serial of a part
    return short and word.isascii() and word.isalpha() and word.upper() not in _NO_PREFIX


def _wildcards(text: str) -> tuple[dict[str, str], str]:
    """What each wildcard of the legend stands for, and the text before the legend."""
    found = _LEGEND.search(fold(text))
    if found is None or len(fold(text)) != len(text):
        return {}, text
    sign = found[1] or found[3]
    choices = "".join(dict.fromkeys(re.findall(r"\b[A-Z0-9]\b", re.sub(r"\b(?:OU|OR|O)\b", ",", found[2] or ""))))
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
        words = fold(segment)
        value = "" if _among_words(segment) else _token(segment, sets)[0]
        found += [(code, value) for code, place in _PLACES if value and place.search(words)]
    return tuple(found)


def _only_component(text: str, sets: dict[str, str]) -> tuple[str, str] | None:
    """(component, K1) where of several that are named one alone has a serial, and whole: "none (frame); YWL058 (slide)"."""
    told: list[tuple[str, str]] = []
    named = 0
    for segment in _SEGMENT.split(text):
        words = fold(segment)
        places = [code for code, place in _PLACES if place.search(words)]
        value, whole = _token(segment, sets)
        named += bool(places)
        if value:
            if not whole or len(places) != 1 or not _says_whole(value, words, _reason(words)):
                return None
            told.append((places[0], value))
    return told[0] if len(told) == 1 and named > 1 else None


def _lost(text: str, sets: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Components that are named without a serial, each with the reason."""
    found = []
    for segment in _SEGMENT.split(text):
        words = fold(segment)
        if not _token(segment, sets)[0]:
            found += [(code, _reason(words)) for code, place in _PLACES if place.search(words)]
    return tuple(found)


def _alternatives(text: str, sets: dict[str, str]) -> tuple[str, ...]:
    spaced = re.sub(r"(?i)\s(?:ou|or|o|e|and|y|et)\s|\s/\s|;\s?", " ; ", _APART.sub(" ; ", text))
    values = dict.fromkeys(_token(part, sets)[0] for part in spaced.split(" ; ")[:_ALTERNATIVES_MAX])
    known = tuple(value for value in values if value and any(c.isdecimal() for c in value))
    return known if len(known) > 1 else _among_words(text)


def _among_words(text: str) -> tuple[str, ...]:
    """Several tokens with digits among ordinary words ("model 1911 serial 123456"): which is the serial is not told."""
    words = _WORD.findall(re.sub(r"\([^()]{2,}\)?", " ", text))
    tokens = dict.fromkeys(k1(word) for word in words if any(c.isdecimal() for c in word))
    ordinary = any(word.isalpha() and not _is_prefix(word, of_two=False) and len(word) > 1 for word in words)
    return tuple(token for token in tokens if token)[:_ALTERNATIVES_MAX] if ordinary and len(tokens) > 1 else ()


def _anchored(value: str, words: str) -> str:
    first, last = bool(_FIRST.search(words)), bool(_LAST.search(words))
    lost = re.search(
        r"N(?:AO|O|ON|OT) IDENT|ILEG|ILLEG|ILLIS|SUPP?RIM|REMOV|RASPA|UNKNOWN|INDETERM|MISSING|ELIMIN|BORRAD|EFFAC",
        words,
    )
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
    sets, text = _wildcards(_LABEL.sub("", raw.strip()))
    words = fold(raw)
    places = _components(text, sets)
    if len({value for _, value in places}) > 1:
        whole = all(value.isalnum() for _, value in places)
        return SerialReading(raw=raw, status=_seen(words, whole=whole), components=places, suspicious=odd)
    if (only := _only_component(text, sets)) is not None:
        return SerialReading(
            raw=raw, status="LEGIBLE", k1=only[1], components=(only,), lost=_lost(text, sets), suspicious=odd
        )
    if not places and (several := _alternatives(text, sets)):
        return SerialReading(raw=raw, status="PARTIAL", alternatives=several, suspicious=odd)
    value, whole = _token(text, sets)
    reason = _reason(words)
    if whole and _says_whole(value, words, reason):
        return SerialReading(raw=raw, status=_seen(words, whole=True), k1=value, components=places, suspicious=odd)
    if whole:
        value = _anchored(_pattern(value, {}), words)
    # without a value nothing is legible, or it is too long for a pattern
    status = reason if not value or reason == "ALTERED_RESTAMPED" else "PARTIAL"
    return SerialReading(raw=raw, status=status, pattern=value, components=places, suspicious=odd)


def _reason(words: str) -> str:
    """Why there is no serial, as the words say, also with a typing error; UNREAD where they say nothing."""
    short = k1(words)
    if short in _SHORT:
        return _SHORT[short] if short or not re.search(r"[?*#_]", words) else "UNREAD"
    if found := next((code for code, stems in _STEMS if stems.search(words)), None):
        return found
    for word in _LONG_WORD.findall(words):
        if like := difflib.get_close_matches(word, _TYPED, 1, _LIKE):
            return _TYPED[like[0]]
    return "UNREAD"


def _says_whole(value: str, words: str, reason: str) -> bool:
    if reason not in ("UNREAD", "NOT_VISIBLE_WEAR") or _DOUBT.search(words) or _LAST.search(words):
        return False
    return len(value) >= _TOLD_MIN or words.count(" ") < _TOLD_MIN - 1  # "bears the number 12 below the barrel"


def _seen(words: str, *, whole: bool) -> str:
    if _RESTORED.search(words):
        return "RESTORED" if whole else "RESTORED_PARTIAL"
    return "LEGIBLE" if whole else "PARTIAL"
