"""The world outside: the one home of the clock and of fresh ids."""

import os
import random
import time
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
    """The Ids port: UUIDv7 (RFC 9562 section 5.7) with 74 random bits."""

    def uuid7(self) -> UUID:
        """48 bits of milliseconds, version, 12 random bits, variant, 62 random bits."""
        milliseconds = time.time_ns() // 1_000_000
        noise = int.from_bytes(os.urandom(10), "big")
        high = noise >> 68 & 0xFFF
        value = milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | noise & (1 << 62) - 1
        return UUID(int=value)

    def jitter(self) -> float:
        """A fresh number in [0, 1)."""
        return random.random()
