"""Makes: free text -> one key.

A make scores, it never filters: 13 % of repeats carry another make text (docs/domain.md section 3).
"""

import hashlib
import json
import re
from importlib import resources

from protocols.firearms.serials import fold

MAKE_LENGTH_MAX = 40  # of a key

_DATA = resources.files(__package__).joinpath("makes.json").read_bytes()
_TABLE = json.loads(_DATA)
VERSION: str = _TABLE["version"]
SHA256 = hashlib.sha256(_DATA).hexdigest()

_LEGAL_FORM = re.compile(r"\b(?:INC|LLC|LTD|CORP|CORPORATION|CO|COMPANY|GMBH|SPA|SA|AG|AB)\b\.?")


def _compact(text: str) -> str:
    return "".join(c for c in fold(text).replace("&", " AND ") if c.isalnum())


_ALIASES: dict[str, str] = {_compact(alias): code for code, aliases in _TABLE["makes"].items() for alias in aliases}
_ALIASES |= {_compact(alias): "" for alias in _TABLE["unknown"]} | {_compact(code): code for code in _TABLE["makes"]}


def make_key(text: str) -> str:
    """The table's code of a make, else the text's own letters and digits; "" where the text names no make."""
    compact = _compact(text)
    if compact not in _ALIASES:
        compact = _compact(_LEGAL_FORM.sub(" ", fold(text).replace("/", " "))) or compact
    return _ALIASES.get(compact, compact[:MAKE_LENGTH_MAX])
