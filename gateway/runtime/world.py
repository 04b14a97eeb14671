"""The world outside: the one home of the clock and of fresh ids."""

import os
import random
import time
from datetime import UTC, datetime
from uuid import UUID


class SystemClock:
    """The Clock port over this machine's clock."""

    def now(self) -> datetime:
        """The present in UTC."""
        return datetime.now(UTC)


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
