"""The world outside: the one home of the clock and of fresh ids."""

import os
import random
from datetime import UTC, datetime, timedelta
from uuid import UUID


class SystemClock:
    """The Clock port over this machine's clock."""

    def now(self) -> datetime:
        """The present in UTC."""
        return datetime.now(UTC)


class SteadyClock:
    """The Clock port that never goes back, so that nothing expired becomes valid again.

    It stands still while this machine's clock is behind what it said before, or behind the newest entry of our own
    ledger (`seen`), which outlives a restart.
    """

    def __init__(self, clock: SystemClock) -> None:
        self._clock, self._mark = clock, clock.now()

    def now(self) -> datetime:
        """The newest time that there ever was."""
        self.seen(self._clock.now())
        return self._mark

    def seen(self, at: datetime) -> None:
        """That this time had come already."""
        self._mark = max(self._mark, at)

    @property
    def behind(self) -> timedelta:
        """How far this machine's clock is behind a time that had come already."""
        return self.now() - self._clock.now()


class SystemIds:
    """The Ids port: UUIDv7 (RFC 9562 section 5.7), each greater than the one before (section 6.2, method 2)."""

    def __init__(self, clock: SystemClock | SteadyClock) -> None:
        self._clock, self._last = clock, 0

    def uuid7(self) -> UUID:
        """48 bits of milliseconds, version, 12 random bits, variant, a bit of 0, 61 random bits; within a millisecond 32 random bits more than the last."""
        milliseconds = int(self._clock.now().timestamp() * 1_000)
        noise = int.from_bytes(os.urandom(10), "big")
        value = milliseconds << 80 | 0x7 << 76 | (noise >> 68) << 64 | 0b10 << 62 | noise & (1 << 61) - 1
        self._last = value if value > self._last else self._last + 1 + (noise & 0xFFFF_FFFF)
        return UUID(int=self._last)

    def jitter(self) -> float:
        """A fresh number in [0, 1)."""
        return random.random()
