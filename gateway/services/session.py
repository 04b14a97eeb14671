"""Sessions of people at the console, by one-time links that an operator makes."""

from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256

from protocols.ports.access import Caller
from protocols.ports.crypto import Sealer
from protocols.ports.people import SessionStore
from protocols.ports.rows import SessionRow
from protocols.ports.world import Clock
from protocols.strict import b64u

LINK_MINUTES, SESSION_HOURS = 10, 8


class Sessions:
    """Only digests of links and session ids are kept."""

    def __init__(self, store: SessionStore, sealer: Sealer, clock: Clock) -> None:
        self._store, self._sealer, self._clock = store, sealer, clock

    async def link(self, client: str, actor: str, scopes: Sequence[str]) -> str:
        """A secret that opens one session within ten minutes."""
        return await self._make(Caller(client=client, actor=actor, scopes=frozenset(scopes)), link=True)

    async def enter(self, link: str) -> str | None:
        """A fresh session for a link that was not used before; None for every other."""
        row = await self._store.take_link(_digest(link), self._clock.now())
        return await self._make(_caller(row), link=False) if row else None

    async def caller(self, session: str) -> Caller | None:
        """Whose session it is."""
        row = await self._store.session(_digest(session), self._clock.now()) if session else None
        return _caller(row) if row else None

    async def leave(self, session: str) -> None:
        """Ends it."""
        await self._store.end_session(_digest(session))

    async def _make(self, caller: Caller, *, link: bool) -> str:
        secret = b64u(self._sealer.random(32))
        life = timedelta(minutes=LINK_MINUTES) if link else timedelta(hours=SESSION_HOURS)
        row = SessionRow(
            id=_digest(secret), client=caller.client, actor=caller.actor, scopes=sorted(caller.scopes),
            link=link, expires=self._clock.now() + life,
        )  # fmt: skip
        await self._store.add_session(row, self._clock.now())
        return secret


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "replace")).digest()


def _caller(row: SessionRow) -> Caller:
    return Caller(client=row.client, actor=row.actor, scopes=frozenset(row.scopes))
