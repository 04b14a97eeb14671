"""Port of the directory: frozen snapshots of what the authority and the members signed."""

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Protocol

from protocols.directory import Directory
from protocols.ledger.entry import DirRef

Fetch = Callable[[str], bytes | None]
"""The bytes of a file of the repository, None where the source does not have it, OSError where it cannot be asked."""


class DirectorySource(Protocol):
    """The accepted versions; every one is verified by TUF, cross-checked and kept for ever before it is handed out."""

    @property
    def current(self) -> Directory | None:
        """The version in force; None until the first was accepted. Never goes back."""
        ...

    async def refresh(self, now: datetime, *, fetch: Fetch | None = None) -> Directory:
        """Fetches from the source (or by `fetch`) and accepts what is newer; ProblemError `dir.*` leaves the old in force."""
        ...

    async def at(self, ref: DirRef) -> Directory | None:
        """An accepted version again, or None where we never accepted it; expiry is not judged."""
        ...

    async def files(self, ref: DirRef, members: Collection[str]) -> dict[str, bytes]:
        """The TUF files of an accepted version with these members' records, for evidence; empty where we have none."""
        ...

    def file(self, name: str) -> bytes | None:
        """A TUF file that we hold, by its name in the repository (for peers that are behind)."""
        ...
