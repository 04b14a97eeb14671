"""What one member may cost this node: token buckets of parcels and of failures, and a bound of what waits (section 4)."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from protocols.limits import (
    BACKLOG_A_MEMBER_MAX,
    FAILURES_A_SECOND_MAX,
    FAILURES_BURST_MAX,
    PARCELS_A_SECOND_MAX,
    PARCELS_BURST_MAX,
)
from protocols.problems import ProblemError

_RECOUNT_S = 1.0


@dataclass(slots=True)
class _Member:
    at: float
    parcels: float = PARCELS_BURST_MAX
    failures: float = FAILURES_BURST_MAX
    counted: float = float("-inf")
    full: bool = False


class Pace:
    """Keeps one member from what belongs to all; members of the directory alone have a place here.

    `clock` gives seconds that only grow, `waiting` counts a member's messages that nobody fetched, up to a bound.
    """

    def __init__(self, clock: Callable[[], float], waiting: Callable[[str, int], Awaitable[int]]) -> None:
        self._clock, self._waiting = clock, waiting
        self._members: dict[str, _Member] = {}

    async def admit(self, name: str) -> None:
        """Before a byte of a POST is read: `peer.rate` where a bucket is empty, `peer.backlog` where too much waits."""
        self.afford(name)
        member = self._now(name)
        if self._clock() - member.counted >= _RECOUNT_S:
            member.counted = self._clock()
            member.full = await self._waiting(name, BACKLOG_A_MEMBER_MAX) >= BACKLOG_A_MEMBER_MAX
        if member.full:
            raise ProblemError("peer.backlog", f"{BACKLOG_A_MEMBER_MAX} messages wait to be fetched")

    def afford(self, name: str) -> None:
        """`peer.rate` where a bucket is empty."""
        member = self._now(name)
        if member.parcels < 1 or member.failures < 1:
            raise ProblemError("peer.rate", "too many parcels, or too many that fail")

    def spend(self, name: str, *, parcels: int = 0, failures: int = 0) -> None:
        """What a POST cost; a bucket may go below zero, and is then refilled for longer."""
        member = self._now(name)
        member.parcels -= parcels
        member.failures -= failures

    def _now(self, name: str) -> _Member:
        now = self._clock()
        member = self._members.setdefault(name, _Member(now))
        passed, member.at = now - member.at, now
        member.parcels = min(member.parcels + passed * PARCELS_A_SECOND_MAX, PARCELS_BURST_MAX)
        member.failures = min(member.failures + passed * FAILURES_A_SECOND_MAX, FAILURES_BURST_MAX)
        return member
