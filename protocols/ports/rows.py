"""Rows of the store as values: what a batch writes and what short statements read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal
from uuid import UUID

from protocols.ledger.merkle import HASH_BYTES
from protocols.ledger.proof import Place
from protocols.ports.crypto import ContentKey
from protocols.thread import Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRow:
    """A message of ours on its way; `index` is its `sent` entry."""

    id: UUID
    thread: UUID
    recipient: str
    type: str
    created: datetime
    expires: datetime
    urgent: bool
    pair_seq: int
    origin: str
    index: int
    digest: bytes
    content_c: bytes
    kid: str
    seal_kid: str
    actor: str
    envelope: bytes
    due: datetime
    state: Delivery = "queued"


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxRow:
    """A message that arrived whole; `index` is its `received` entry."""

    sender: str
    id: UUID
    thread: UUID
    type: str
    received: datetime
    origin: str
    index: int
    digest: bytes
    content_c: bytes
    dispatched: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalRow:
    """Bytes that were answered with a `refused` or `id_conflict` entry; `cause` stays local."""

    sender: str
    id: UUID
    digest: bytes
    kind: str
    code: str
    cause: str
    at: datetime
    origin: str
    index: int
    content_c: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentRow:
    """Content at rest: the JWS (part '') or a restricted part, under its own key wrapped by an epoch generation.

    `until` is the last day on which its sender lets it be kept.
    """

    sender: str
    id: UUID
    part: str
    thread: UUID
    generation: int
    wrapped: bytes
    sealed: bytes
    until: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedRow:
    """The key of content at rest, without the content."""

    sender: str
    id: UUID
    part: str
    generation: int
    wrapped: bytes

    @property
    def key(self) -> ContentKey:
        """As the vault takes it."""
        return ContentKey(generation=self.generation, wrapped=self.wrapped)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureRow:
    """Content that is to be erased, or was: all of a message (part ''), or a part. `approval`: that of the two people who want it.

    What follows `thread` but for it is there for older software, which believed it.
    """

    sender: str
    id: UUID
    part: str
    thread: UUID
    recipient: str
    ground: str
    content_c: bytes
    until: date
    authority_c: bytes | None = None
    approval: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofRow:
    """A peer's proof that we verified: of a parcel (peer is its sender) or of a receipt (peer is the recipient)."""

    peer: str
    id: UUID
    digest: bytes
    origin: str
    index: int
    size: int
    path: bytes
    entry: bytes

    @property
    def place(self) -> Place:
        """Where the entry stands."""
        path = tuple(self.path[at : at + HASH_BYTES] for at in range(0, len(self.path), HASH_BYTES))
        return Place(origin=self.origin, size=self.size, index=self.index, path=path, entry=self.entry)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """A line of the event feed; `seq` is given by the store in commit order."""

    at: datetime
    kind: str
    thread: UUID
    counterpart: str
    message: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyRow:
    """What a client was answered under its Idempotency-Key, with the digest of its request."""

    client: str
    key: str
    digest: bytes
    answer: bytes
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewRow:
    """A request that waits for a person, with candidates as (record ref, score)."""

    sender: str
    id: UUID
    thread: UUID
    reason: str
    candidates: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRow:
    """What a message of ours was sealed as before it was sealed again: which bytes were logged where."""

    id: UUID
    digest: bytes
    origin: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resealing:
    """What changes in the outbox when the same JWS is sealed again."""

    id: UUID
    origin: str
    index: int
    pair_seq: int
    digest: bytes
    seal_kid: str
    envelope: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRow:
    """What one person asked and another has to rule on; `ruling` is empty until there is one.

    What is asked is kept as content under this id, with the salt that opens the commitments of its entries.
    """

    id: UUID
    act: str
    client: str
    actor: str
    asked: datetime
    ruling: str = ""
    ruled_client: str = ""
    ruled_actor: str = ""
    ruled: datetime | None = None
    used: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayRow:
    """A parcel that we carry as a hub; `index` is its `relayed` entry.

    `post` is it as lines, with its sender's `hello` and checkpoint; `answer` likewise the recipient's receipt, `problem`
    the code of what it said last instead.
    """

    digest: bytes
    sender: str
    id: UUID
    recipient: str
    at: datetime
    expires: datetime
    origin: str
    index: int
    post: bytes | None
    due: datetime
    answer: bytes | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """A session at the console, or a link that opens one; `id` is the SHA-256 of what its holder has."""

    id: bytes
    client: str
    actor: str
    scopes: Sequence[str]
    link: bool
    expires: datetime


Row = (
    RelayRow
    | SealedRow
    | OutboxRow
    | InboxRow
    | RefusalRow
    | ContentRow
    | ProofRow
    | EventRow
    | IdempotencyRow
    | ReviewRow
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A message claimed for delivery: what the parcel needs; `last` when it has expired and is asked for once more."""

    id: UUID
    recipient: str
    thread: UUID
    type: str
    origin: str
    index: int
    pair_seq: int
    digest: bytes
    content_c: bytes
    kid: str
    seal_kid: str
    actor: str
    expires: datetime
    urgent: bool
    attempts: int
    envelope: bytes
    entry: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A message in the outbox as an operator sees it; `problem` is the code of its last attempt."""

    id: UUID
    recipient: str
    type: str
    urgent: bool
    created: datetime
    expires: datetime
    due: datetime
    leased: datetime | None
    attempts: int
    problem: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pile:
    """How many of a kind there are and since when the oldest; `outbox` for each peer.

    `checkpoint` is the ledger's newest one: its size and its time.
    """

    kind: Literal["outbox", "inbox", "review", "checkpoint"]
    peer: str
    count: int
    since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """An attachment's ciphertext as far as it is here; `held` bytes of `size`."""

    id: UUID
    held: int
    size: int | None
    whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AsideRow:
    """A parcel that broke something in us: its lines, from whom they came, and the kind of error; a person replays it."""

    digest: bytes
    source: str
    sender: str
    id: UUID
    at: datetime
    cause: str
    post: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """Two proven entries of a member's ledger about one arrival: of the same bytes, or twice of one message."""

    origin: str
    first: int
    second: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Numbers first .. last of a member's messages to us that never came; `since` is when a later one was logged."""

    origin: str
    first: int
    last: int
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OwedRow:
    """An entry of ours that a courier has to bring to a member."""

    peer: str
    origin: str
    index: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """A leg whose clock has run out, and the request that opened it."""

    thread: UUID
    counterpart: str
    role: str
    request: UUID
    acknowledge_by: datetime | None
    content_c: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """An arrived message that nobody dispatched yet."""

    sender: str
    id: UUID
    thread: UUID
    type: str
    content_c: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    """A message of a thread as the store knows it; content is fetched apart."""

    id: UUID
    sender: str
    recipient: str
    thread: UUID
    type: str
    at: datetime
    delivery: str
    origin: str
    index: int
    problem: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What we hold of one foreign ledger: the newest linked size and the root of every size held (0 included)."""

    linked: int
    roots: Mapping[int, bytes]
    unlinked: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A line of the feed with its sequence number."""

    seq: int
    row: EventRow
