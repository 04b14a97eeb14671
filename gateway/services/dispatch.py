"""Dispatch: the member's own system is told of each message that arrived, until it confirms (docs/design.md section 6)."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import structlog

from gateway.services.commit import Committer
from gateway.services.submit import Submit
from gateway.services.wake import woken
from protocols.ports.backend import Backend, NotTaken
from protocols.ports.rows import Arrived
from protocols.ports.store import ExchangeStore
from protocols.ports.world import Clock, Ids
from protocols.problems import ProblemError

_log = structlog.get_logger()
_AT_ONCE = 16  # so many slow answers delay no other message
_IN_VAIN_MAX = 5  # failures with nothing taken between: the system is away, and is asked one at a time
_LOOK_S = 5.0


class Dispatch:
    """At least once: a message is claimed, told, and said to be dispatched once the system confirmed.

    A claim is a lease that nobody ends: what was not confirmed, or was cut by a crash, is told again after it. So one
    message that the system cannot take holds up no other, and two processes of a node do not tell the same one.
    """

    def __init__(
        self,
        *,
        but: Sequence[str],
        store: ExchangeStore,
        backend: Backend,
        submit: Submit,
        committer: Committer,
        clock: Clock,
        ids: Ids,
        later_s: float,
    ) -> None:
        """`but`: types that the node answers by itself. `later_s`: how long a claim lasts, longer than the backend may take; a system that is away is asked again after half of it or more."""
        self._but, self._store, self._backend = but, store, backend
        self._submit, self._committer, self._clock, self._ids = submit, committer, clock, ids
        self._later_s = later_s
        self._wake = asyncio.Event()
        self._telling = self._vain = 0
        self._paused = 0.0

    def wake(self) -> None:
        """Looks at the inbox now."""
        self._wake.set()

    async def run(self) -> None:
        """Tells until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._wake.clear()
                    try:
                        for arrived in await self._claim():
                            self._telling += 1
                            group.create_task(self._tell(arrived))
                    except Exception:  # the store may be away for a while; the loop outlives it
                        _log.exception("inbox_unreadable")
                    await woken(self._wake, min(_LOOK_S, self._later_s))
        finally:
            await self._backend.close()

    async def _claim(self) -> list[Arrived]:
        """As many as may be told now; none while the system is away or the ledger could not say that it confirmed."""
        away = self._vain >= _IN_VAIN_MAX
        count = (1 if away else _AT_ONCE) - self._telling
        paused = away and asyncio.get_running_loop().time() < self._paused
        if count <= 0 or paused or self._committer.halted:
            return []
        now = self._clock.now()
        return await self._store.take_up(count, self._but, now, now + timedelta(seconds=self._later_s))

    async def _tell(self, arrived: Arrived) -> None:
        try:
            await self._backend.take(arrived, self._clock.now())
            self._vain = 0
            await asyncio.shield(self._committer.enqueue(self._submit.dispatched(arrived)))  # on the way down too
        except NotTaken as error:
            if error.away:
                self._pause()
            _log.warning("dispatch_failed", id=str(arrived.id), error=str(error))
        except ProblemError as problem:  # it is told again: nobody knows yet that the system has it
            self._pause()
            _log.warning("dispatch_failed", id=str(arrived.id), code=problem.code)
        except Exception:  # one message's failure is its own
            self._pause()
            _log.exception("dispatch_failed", id=str(arrived.id))
        finally:
            self._telling -= 1
            self._wake.set()

    def _pause(self) -> None:
        self._vain += 1
        self._paused = asyncio.get_running_loop().time() + self._later_s * (1 + self._ids.jitter()) / 2
