"""Lapse: where nothing came by the day that an acknowledgement or an answer was due, that is an event and an entry."""

import asyncio

import structlog

from gateway.services.changes import Lapsed
from gateway.services.commit import Committer, Done
from protocols.ledger.entry import NONCE_BYTES, Entry
from protocols.ports.crypto import Sealer
from protocols.ports.rows import Overdue
from protocols.ports.store import ThreadStore
from protocols.ports.world import Clock

_log = structlog.get_logger()
_LOOK_S = 5.0
_AT_ONCE = 256


class Lapse:
    """Takes the legs whose clock has run out."""

    def __init__(self, *, member: str, store: ThreadStore, committer: Committer, sealer: Sealer, clock: Clock) -> None:
        self._member, self._store, self._committer = member, store, committer
        self._sealer, self._clock = sealer, clock

    async def run(self) -> None:
        """Looks until cancelled; whatever a crash leaves undone is taken up again."""
        while True:
            try:
                while await self.lapse():
                    continue
            except Exception:  # the store may be away for a while; the loop outlives it
                _log.exception("threads_unreadable")
            await asyncio.sleep(_LOOK_S)

    async def lapse(self) -> bool:
        """Whether there may be more."""
        found = await self._store.overdue(self._clock.now(), _AT_ONCE)
        waiting = [self._committer.enqueue(self._change(each)) for each in found]
        results = await asyncio.gather(*waiting, return_exceptions=True)  # what fails is found again, at the next look
        return any(isinstance(each, Done) for each in results)

    def _change(self, each: Overdue) -> Lapsed:
        now, asked = self._clock.now(), each.role == "asker"
        code = "unacknowledged" if each.acknowledge_by is not None and each.acknowledge_by <= now else "silent"
        entry = Entry(
            kind="admin", at=now, n=self._sealer.random(NONCE_BYTES), id=each.request,
            sender=self._member if asked else each.counterpart, recipient=each.counterpart if asked else self._member,
            content_c=each.content_c, code=f"thread.{code}",
        )  # fmt: skip
        return Lapsed(entry=entry, thread=each.thread, counterpart=each.counterpart)
