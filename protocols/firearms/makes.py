"""Makes: free text -> one key; who makes where. A make scores, it never filters (docs/domain.md section 3).

What is read away: legal forms, words that every second maker has in its name, an importer or owner behind a slash or in
parentheses, and a typing error in a long name. What is not in the table keeps its own letters as its key.
"""

import difflib
import hashlib
import json
import re
from functools import lru_cache
from importlib import resources

from protocols.firearms.serials import fold

MAKE_LENGTH_MAX = 40  # of a key
_TEXT_MAX = 200  # what is longer is no name
_TYPED_MIN = 7  # letters from which one of ten may be wrong
_LIKE = 0.87

_DATA = resources.files(__package__).joinpath("makes.json").read_bytes()
_TABLE = json.loads(_DATA)
VERSION: str = _TABLE["version"]
SHA256 = hashlib.sha256(_DATA).hexdigest()
COUNTRIES: dict[str, str] = {code: country for code, (country, *_) in _TABLE["makes"].items()}
"""The make code -> ISO 3166-1 alpha-2 of where its weapons are made, in the main."""

_LEGAL_FORM = re.compile(
    r"\b(?:INC|LLC|L L C|LTD|LTDA|CORP|CORPORATION|CO|COMPANY|CIA|COMPANHIA|GMBH|SPA|S P A|SRL|SA|S A|AG|KG|AB|AS|BV|PLC)\b\.?"
)
_COMMON = re.compile(
    r"\b(?:ARMS|ARMAS|ARMES|ARMI|FIREARMS|ARMORY|ARMOURY|WEAPONS|MFG|MANUFACTURING|MAN|INDUSTRIES|INDUSTRIE|INDUSTRIA|IND|"
    r"INTERNATIONAL|INTL|USA|US|AND|SILAH|SANAYI|TICARET|PRODUCTS)\b\.?"
)
_IMITATED = re.compile(r"\b(?:IMITA|COP(?:Y|IA|IE)|REPLIC|CLON|FAKE|FALS|COUNTERFEIT|STYLE|TIPO|TYPE)")
_BESIDE = re.compile(r"\(|\)|/|\bOR\b|\bOU\b|\bAKA\b")


def _compact(text: str) -> str:
    return "".join(c for c in fold(text).replace("&", " AND ") if c.isalnum())


def _bare(text: str) -> str:
    """What is left of a name without its legal form and the words that many have."""
    words = re.sub(r"[^\w&']+", " ", fold(text).replace("&", " AND "))
    return "".join(c for c in _COMMON.sub(" ", _LEGAL_FORM.sub(" ", words)) if c.isalnum())


def _names() -> tuple[dict[str, str], dict[str, str]]:
    """Names of the table to codes: whole, and bare where only one make has the bare name."""
    whole = {_compact(name): code for code, (_, *names) in _TABLE["makes"].items() for name in (code, *names)}
    bare: dict[str, str | None] = {}
    for code, (_, *names) in _TABLE["makes"].items():
        for name in names:
            key = _bare(name)
            bare[key] = code if bare.get(key, code) == code else None
    return whole, {key: code for key, code in bare.items() if code and len(key) > 2}


_WHOLE, _BARE = _names()
_NO_MAKE = frozenset(map(_compact, _TABLE["unknown"])) | {""}
_TYPED = {name: code for name, code in _BARE.items() if len(name) >= _TYPED_MIN}
_TYPED |= {name: code for name, code in _WHOLE.items() if len(name) >= 2 * _TYPED_MIN}


@lru_cache(maxsize=4096)  # makes repeat; they name no weapon
def make_key(text: str) -> str:
    """The table's code of a make, else the text's own letters and digits; "" where the text names no make."""
    text = text[:_TEXT_MAX]
    if (compact := _compact(text)) in _NO_MAKE:
        return ""
    beside = () if _IMITATED.search(fold(text)) else _BESIDE.split(text.upper())  # "copy (Glock)" is no Glock
    for name in (text, *beside):
        if found := _WHOLE.get(_compact(name)) or _BARE.get(_bare(name)):
            return found
    for name in (_bare(text), compact):
        near = [each for each in _TYPED if each[0] == name[:1]]
        if like := difflib.get_close_matches(name, near, 1, _LIKE):
            return _TYPED[like[0]]
    own = _compact(_LEGAL_FORM.sub(" ", fold(text).replace("/", " "))) or compact
    return own[:MAKE_LENGTH_MAX]


def is_known(key: str) -> bool:
    """Whether a key is a code of the table."""
    return key in COUNTRIES
