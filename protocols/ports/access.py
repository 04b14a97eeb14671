"""Port of access: who is calling the agency interface. Every token names an actor (docs/design.md section 7)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Protocol

SCOPES: Mapping[str, str] = MappingProxyType(
    {
        "trace:write": "submit and answer",
        "trace:read": "read threads, the feed, the members; what the feed has passed counts as handed over",
        "parts:read": "read restricted parts too",
        "content:erase": "erase content, together with another person of another client",
        "audit:read": "read which threads and messages there are; what they say, once another person of another client has granted it",
        "ledger:read": "read the ledger",
        "evidence:read": "export evidence",
        "approval:rule": "approve or refuse what another person of another client asks",
    }
)
"""What a client may be given, and what it lets it do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A system that may ask for tokens: its Ed25519 public JWK, the actors it speaks for, the scopes it may have."""

    id: str
    jwk: Mapping[str, str]
    actors: frozenset[str]
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who stands behind a request; `purpose` is a code of that list, or empty: then no content is shown."""

    client: str
    actor: str
    scopes: frozenset[str]
    purpose: str = ""


class Access(Protocol):
    """Issues and checks access tokens. Whatever is wrong with a token or an assertion is `auth.invalid`."""

    def claimed_client(self, assertion: str) -> str:
        """The client id an assertion claims, unverified: only to look the client up before `issue`."""
        ...

    def issue(self, assertion: str, client: Client | None, now: datetime, scopes: frozenset[str] | None = None) -> str:
        """A token of five minutes for a client that proved its key (RFC 7523); None is a client nobody knows.

        `scopes` narrows what the client has (`auth.scope` where it asks for more). An assertion counts once.
        """
        ...

    def authenticate(self, token: str, now: datetime) -> Caller:
        """The caller of a token that this node signed and that is in force at `now`."""
        ...
