"""Ports of the world outside the program: clock and fresh ids."""

from datetime import datetime
from typing import Protocol
from uuid import UUID


class Clock(Protocol):
    """Wall time in UTC; may jump. Waiting and timeouts use the event loop's monotonic time instead."""

    def now(self) -> datetime:
        """The present, timezone-aware UTC."""
        ...


class Ids(Protocol):
    """Fresh identifiers."""

    def uuid7(self) -> UUID:
        """A UUIDv7 (RFC 9562) never given before by any node."""
        ...

    def jitter(self) -> float:
        """A fresh number in [0, 1) for spreading retries."""
        ...
