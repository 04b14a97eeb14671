"""Port of the way to peers: the client side of the exchange."""

from datetime import datetime
from typing import Literal, Protocol

from protocols.directory import Record

Layer = Literal["dns", "tcp", "tls"]


class Transport(Protocol):
    """Signed requests to a peer's exchange listener, its TLS key pinned by the directory.

    Every failure (no connection, time-out, wrong identity, too large an answer) is a ProblemError
    `peer.unreachable`, `peer.identity` or `peer.answer`, or the peer's own problem code; nothing is known then about
    what the peer did.
    """

    async def post(self, peer: Record, body: bytes) -> bytes:
        """The answer's body to POST /messages."""
        ...

    async def fetch(self, peer: Record, wait_s: int) -> bytes:
        """The answer's body to GET /outbox, after at most `wait_s` without anything."""
        ...

    async def receipts(self, peer: Record, body: bytes) -> None:
        """POST /outbox/receipts."""
        ...

    async def blob_held(self, peer: Record, digest: bytes) -> int:
        """How many bytes of a blob of ours the peer holds, counted from its beginning; -1 where it is whole there."""
        ...

    async def put_blob(self, peer: Record, digest: bytes, *, offset: int, size: int, data: bytes) -> None:
        """A range of a blob of `size` bytes, from where the peer's copy ends."""
        ...

    async def get_blob(self, peer: Record, digest: bytes, *, offset: int, length: int) -> bytes:
        """A range of a blob that the peer holds whole; empty where it does not."""
        ...

    async def add_checkpoint(self, peer: Record, body: bytes) -> bytes | int:
        """A witness's signature lines for a checkpoint of ours; or the size that it holds, where that is another than the body's."""
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

    async def reach(self, peer: Record, layer: Layer) -> None:
        """Tries one layer of the way alone, over a connection of its own; the caller bounds the time."""
        ...

    async def time(self, peer: Record) -> datetime:
        """What the peer's HTTP server says the time is, in whole seconds; nobody has signed it."""
        ...

    async def probe(self, peer: Record) -> bytes:
        """The peer's answer to a signed GET /probe; nobody has verified it."""
        ...
