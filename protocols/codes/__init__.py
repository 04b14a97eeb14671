"""The closed code lists of the messages: package data with version and hash, loaded once as frozen sets."""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType

UNKNOWN = "UNKNOWN"

_DATA = resources.files(__name__).joinpath("codelists.json").read_bytes()
_DOCUMENT = json.loads(_DATA)

VERSION: str = _DOCUMENT["version"]
SHA256 = hashlib.sha256(_DATA).hexdigest()
LISTS: Mapping[str, frozenset[str]] = MappingProxyType({k: frozenset(v) for k, v in _DOCUMENT["lists"].items()})
SOURCES: Mapping[str, str] = MappingProxyType(_DOCUMENT["sources"])


@cache
def _labels() -> tuple[Mapping[str, Mapping[str, tuple[str, ...]]], tuple[str, ...]]:
    document = json.loads(resources.files(__name__).joinpath("labels.json").read_bytes())
    return document["labels"], tuple(document["languages"])


def languages() -> tuple[str, ...]:
    """The languages that codes have labels in, as ISO 639-1."""
    return _labels()[1]


def label(listed: str, code: str, language: str = "en") -> str:
    """What a code of a list is called in a language; the code itself where there is no label."""
    labels, known = _labels()
    found = labels.get(listed, {}).get(code)
    return found[known.index(language)] if found and language in known else code
