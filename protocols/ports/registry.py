"""Port of a firearms register: the member's own guns, from which its node answers, and records that members share."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Protocol
from uuid import UUID

from protocols.firearms.scoring import Gun

_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One gun; `gun.ref` is its reference with its owner, `others` the K1 of further components.

    `owner` "" is the member's own register, whose `details` an answer may state. Else it is a shared record of that member:
    `details` is the body of its `registry.record`, `until` the last day on which it may be kept, `batch` its import, `said` when
    its owner said it (a later word stands), `audience` the members who may be told of it (None: all).
    """

    gun: Gun
    serial: str
    make: str
    details: dict[str, Any]
    owner: str = ""
    status: str = ""
    until: date | None = None
    others: tuple[str, ...] = ()
    batch: UUID | None = field(default=None, compare=False)
    said: datetime = _ALWAYS
    audience: tuple[str, ...] | None = None


class Registry(Protocol):
    """Search by serial keys (docs/domain.md section 3); what is past its retention is never found."""

    async def search(
        self, question: Gun, count: int, *, shared: bool = False, asker: str | None = None
    ) -> list[Record]:
        """Every record with the question's K1 serial, then up to `count` in all that its other keys find.

        What may not be told to `asker` (None: ourselves) is not among them, and takes no place of theirs.
        """
        ...

    async def store(self, records: Sequence[Record]) -> set[str]:
        """Adds records or replaces those of the same owner and reference; the references that changed. Each call is one transaction.

        What its owner said earlier than what stands changes nothing; so does a record that its owner took back since.
        """
        ...

    async def record(self, owner: str, ref: str) -> Record | None:
        """One that is live, or None."""
        ...

    async def remove(self, owner: str, batch: UUID) -> int:
        """Takes an import of an owner out; how many records it still had."""
        ...

    async def take_back(self, owner: str, ref: str, said: datetime) -> None:
        """The owner took a record back: no earlier word of it is kept any more."""
        ...

    async def purge(self, today: date) -> int:
        """Deletes what may not be kept any longer, and what was taken back so long ago that no earlier word can come."""
        ...

    def live(self, owner: str) -> AsyncIterator[Record]:
        """Every live record of an owner, by reference."""
        ...

    async def size(self) -> int:
        """How many guns the member's own register has."""
        ...
