"""Port of the member's own system, where the node tells it what arrived instead of being asked."""

from datetime import datetime
from typing import Protocol

from protocols.ports.rows import Arrived


class NotTaken(Exception):
    """The system did not confirm; whether it has the message is not known. The text names no content.

    `away`: nothing speaks for this message alone being the reason.
    """

    def __init__(self, why: str, *, away: bool) -> None:
        super().__init__(why)
        self.away = away


class Backend(Protocol):
    """The system that a member's messages are for.

    It may be told of one message several times, under one name: sender and id together, since an id alone is its
    sender's choice.
    """

    async def take(self, arrived: Arrived, now: datetime) -> None:
        """Returns once the system has confirmed that it has the message; NotTaken else."""
        ...

    async def close(self) -> None:
        """Nothing more is told."""
        ...
