"""Port of the way to peers: the client side of the exchange."""

from typing import Protocol

from protocols.directory import Record


class Transport(Protocol):
    """Signed requests to a peer's exchange listener, its TLS key pinned by the directory.

    Every failure (no connection, time-out, wrong identity, too large an answer) is a ProblemError
    `peer.unreachable`, `peer.identity` or `peer.answer`, or the peer's own problem code; nothing is known then about
    what the peer did.
    """

    async def post(self, peer: Record, body: bytes) -> bytes:
        """The answer's body to POST /messages."""
        ...

    async def checkpoint(self, peer: Record, origin: str) -> bytes | None:
        """The newest note of `origin` that the peer holds, or None."""
        ...

    async def directory_file(self, peer: Record, name: str) -> bytes | None:
        """A TUF file that the peer holds, or None."""
        ...

    async def tile(self, peer: Record, origin: str, path: str) -> bytes | None:
        """A hash tile of the peer's ledger by its C2SP path, or None; nobody has verified it."""
        ...
