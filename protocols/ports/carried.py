"""Port of the store for what travels besides our own messages: attachments, what a hub carries, what a courier has to bring."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from protocols.ports.rows import Blob, OwedRow, RelayRow


class BlobStore(Protocol):
    """Attachments' ciphertext in pieces of `BLOB_PIECE_BYTES`; a blob is named by its digest, `owner` is who brings it."""

    async def whole(self, digests: Sequence[bytes]) -> dict[bytes, int]:
        """Digest -> size of those that are here whole."""
        ...

    async def begin(self, owner: str, digest: bytes | None, size: int | None, at: datetime) -> Blob:
        """The blob of this owner and digest, made where there is none; without a digest always a new one."""
        ...

    async def find(self, owner: str, digest: bytes) -> Blob | None:
        """The blob of this owner and digest, or None."""
        ...

    async def unnamed(self, owner: str) -> int:
        """Bytes of this owner's blobs that no message names, as they were announced."""
        ...

    async def append(self, blob: UUID, offset: int, data: bytes, *, whole: bool = False) -> int:
        """Durable, and `whole` with it; the bytes now held. Where `offset` is not what was held, nothing is written."""
        ...

    async def finish(self, blob: UUID, digest: bytes, size: int) -> None:
        """It is whole, as whoever hashed it says."""
        ...

    async def discard(self, blob: UUID) -> None:
        """Nothing of it stays."""
        ...

    async def read(self, digest: bytes, offset: int, length: int) -> bytes:
        """A range of a whole blob, from a multiple of a piece; empty past its end, or where there is none."""
        ...

    async def held(self, blob: UUID, offset: int, length: int) -> bytes:
        """As `read`, of one that may not be whole."""
        ...

    async def sweep(self, before: datetime) -> int:
        """Drops one that was begun before a time and no message names; how many that were."""
        ...


class CourierStore(Protocol):
    """Receipts that go back by courier, since their parcels came so."""

    async def owe(self, peer: str, places: Sequence[tuple[str, int]], at: datetime) -> None:
        """Remembers entries of ours, by (origin, index), for a member; the same again changes nothing."""
        ...

    async def owed(self, peer: str, after: tuple[str, int], count: int) -> list[OwedRow]:
        """What is owed to a member, in order, after a place."""
        ...

    async def forget_owed(self, before: datetime) -> None:
        """Drops what was remembered before a time."""
        ...


class RelayStore(Protocol):
    """What a hub carries; parcels come in through the batch."""

    async def due_relays(self, now: datetime) -> list[str]:
        """Recipients of parcels that are due."""
        ...

    async def claim_relays(
        self, recipient: str, now: datetime | None, again: datetime, count: int, bytes_max: int
    ) -> list[RelayRow]:
        """Parcels of one sender for a recipient, the oldest due first, due or (`now` None) not; due again at `again`."""
        ...

    async def relays(self, sender: str, digests: Sequence[bytes]) -> list[RelayRow]:
        """What we carry, or carried, of a sender, by digest; without the parcels."""
        ...

    async def unanswered(self, sender: str, ids: Sequence[UUID]) -> list[RelayRow]:
        """What we carry of a sender under these ids and have no receipt of; without the parcels."""
        ...

    async def refresh_relays(self, posts: Mapping[bytes, bytes]) -> None:
        """The same parcels with newer proofs and links, by digest, while no receipt is here."""
        ...

    async def blame_relays(self, problems: Mapping[bytes, str]) -> None:
        """Keeps what the recipient said instead of a receipt, by digest."""
        ...

    async def blame_recipient(self, recipient: str, problem: str) -> None:
        """As `blame_relays`, all that waits for a recipient."""
        ...

    async def clear_relays(self, sender: str, problem: str, now: datetime) -> None:
        """A problem of a sender's parcels is over; they are due."""
        ...

    async def answer_relays(self, answers: Mapping[bytes, bytes]) -> None:
        """Keeps the recipient's receipts, by digest; the parcels go."""
        ...

    async def forget_relays(self, before: datetime) -> None:
        """Drops what expired before a time."""
        ...
