"""The closed code lists of the messages: package data with version and hash, loaded once as frozen sets."""

import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType

UNKNOWN = "UNKNOWN"

_DATA = resources.files(__name__).joinpath("codelists.json").read_bytes()
_DOCUMENT = json.loads(_DATA)

VERSION: str = _DOCUMENT["version"]
SHA256 = hashlib.sha256(_DATA).hexdigest()
LISTS: Mapping[str, frozenset[str]] = MappingProxyType({k: frozenset(v) for k, v in _DOCUMENT["lists"].items()})
SOURCES: Mapping[str, str] = MappingProxyType(_DOCUMENT["sources"])
