"""Who may: the directory's matrix of roles x types between members, scopes of clients; deny by default."""

from protocols.directory import Directory
from protocols.ports.access import Caller
from protocols.problems import ProblemError


def permit(directory: Directory, *, type_: str, sender: str, recipient: str) -> None:
    """`member.unknown`, `peer.suspended` or `msg.not_permitted` unless the matrix lets sender send this to recipient."""
    for member in (sender, recipient):
        if member not in directory.records:
            raise ProblemError("member.unknown", "no such member in the directory")
        if not directory.active(member):
            raise ProblemError("peer.suspended", "the member is not active in the directory")
    if not directory.permits(type_, sender, recipient):
        raise ProblemError("msg.not_permitted", "no role of the two members permits this type")


def permit_client(caller: Caller, *scopes: str) -> None:
    """`auth.scope` unless the caller's token has one of the scopes."""
    if caller.scopes.isdisjoint(scopes):
        raise ProblemError("auth.scope", f"the scope {' or '.join(scopes)} is required")


def permit_reading(caller: Caller) -> None:
    """`auth.purpose` unless the caller's token says what content is read for (UN ITI 15)."""
    if not caller.purpose:
        raise ProblemError("auth.purpose", "the token names no purpose")
