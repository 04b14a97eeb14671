"""Port of the member's own firearms register, as the built-in registry searches it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from protocols.firearms.scoring import Gun


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One gun of the register; `gun.ref` is its reference, `details` what an answer may say about it."""

    gun: Gun
    serial: str
    make: str
    details: dict[str, Any]


class Registry(Protocol):
    """Search by serial keys (docs/domain.md section 3)."""

    async def search(self, question: Gun, count: int) -> list[Record]:
        """Every record with the question's K1 serial, then up to `count` in all that its other keys find."""
        ...

    async def store(self, records: Sequence[Record]) -> int:
        """Adds records or replaces those of the same reference; how many. Each call is one transaction."""
        ...

    async def size(self) -> int:
        """How many records there are."""
        ...
