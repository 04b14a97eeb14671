"""Ports of the store about people and systems of the member itself: clients, approvals by two, sessions at the console."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from protocols.ports.rows import ApprovalRow, SessionRow


class ClientStore(Protocol):
    """The member's own systems that may call its node."""

    async def client(self, id_: str) -> dict[str, Any] | None:
        """{id, jwk (JSON text), actors, scopes, revoked} or None."""
        ...

    async def add_client(self, id_: str, jwk: str, actors: Sequence[str], scopes: Sequence[str], at: datetime) -> None:
        """Adds one; DataError where the id is taken. `jwk` is JSON text."""
        ...

    async def clients(self) -> list[dict[str, Any]]:
        """All of them."""
        ...

    async def revoke_client(self, id_: str, at: datetime) -> bool:
        """Whether there was one to revoke."""
        ...


class ApprovalStore(Protocol):
    """What waits for a second person; written by the committer alone."""

    async def approval(self, id_: UUID) -> ApprovalRow | None:
        """One, or None."""
        ...

    async def asked(self, client: str, actor: str, *, since: datetime, count: int) -> list[ApprovalRow]:
        """What this client and actor asked and has not used up, newest first."""
        ...

    async def waiting(self, since: datetime, *, after: tuple[datetime, UUID] | None, count: int) -> list[ApprovalRow]:
        """Those that nobody has ruled on, oldest first, after a cursor."""
        ...


class SessionStore(Protocol):
    """Sessions at the console and one-time links."""

    async def add_session(self, row: SessionRow, now: datetime) -> None:
        """Keeps one; what has expired goes."""
        ...

    async def take_link(self, digest: bytes, now: datetime) -> SessionRow | None:
        """A link that has not expired; nobody gets it again."""
        ...

    async def session(self, digest: bytes, now: datetime) -> SessionRow | None:
        """A session that has not expired, of a client that is not revoked."""
        ...

    async def end_session(self, digest: bytes) -> None:
        """It is over."""
        ...
