"""Port of what a courier carries: a bag of files that is written once and read by whoever gets it."""

from collections.abc import AsyncIterator, Iterator
from typing import Protocol


class Outgoing(Protocol):
    """A bag in the making; nobody sees it before it is whole."""

    def add(self, name: str, data: bytes) -> None:
        """A file."""
        ...

    async def stream(self, name: str, pieces: AsyncIterator[bytes]) -> None:
        """A long file, as it comes."""
        ...


class Incoming(Protocol):
    """A bag as it came; nothing in it is to be trusted."""

    def names(self) -> Iterator[str]:
        """The files that its manifest lists and that are there, in the manifest's order."""
        ...

    def read(self, name: str) -> bytes | None:
        """A listed file, None where it is not there or differs from the manifest: then it was set aside."""
        ...

    def size(self, name: str) -> int:
        """Bytes of a file."""
        ...

    def ranges(self, name: str, length: int) -> Iterator[bytes]:
        """A long file in pieces, which nobody has compared with the manifest."""
        ...

    def set_aside(self, name: str, why: str) -> None:
        """Copies a file to where a person looks at it."""
        ...
