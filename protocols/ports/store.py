"""Port of the store: typed rows, the batch under the ledger's head lock, and short statements of their own.

What `batch()` guarantees: nothing of it is visible before COMMIT, all of it is durable when the block is left without an
error, and only one batch of a ledger runs at a time in the world.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Protocol
from uuid import UUID

from protocols.ledger.checkpoint import Checkpoint
from protocols.ledger.tiles import TileId
from protocols.ports.crypto import ContentKey
from protocols.ports.rows import (
    ApprovalRow,
    Arrived,
    AsideRow,
    Claimed,
    ContentRow,
    Contradiction,
    ErasureRow,
    Event,
    Gap,
    Held,
    IdempotencyRow,
    InboxRow,
    Overdue,
    Pile,
    ProofRow,
    RefusalRow,
    RelayRow,
    Resealing,
    ReviewRow,
    Row,
    SealedRow,
    StoredMessage,
    Waiting,
    WrappedRow,
)
from protocols.thread import Delivery, Leg


class DataError(Exception):
    """The database refused some row of a batch; nothing of the batch was kept."""


class Unavailable(Exception):
    """The database could not be asked, or gave up before COMMIT (lock, deadlock, shutdown): nothing was kept, try again."""


class OutcomeUnknown(Exception):
    """The connection was lost around COMMIT: look the batch id up under the head lock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The locked head row and the open epoch generation."""

    origin: str
    size: int
    root: bytes
    generation: int
    system_identifier: str
    timeline: int


@dataclass(slots=True, kw_only=True)
class Wanted:
    """Keys whose standing rows a batch must know before it decides who wins."""

    idempotency: set[tuple[str, str]] = field(default_factory=set)
    outbox: set[UUID] = field(default_factory=set)
    arrivals: set[tuple[str, UUID]] = field(default_factory=set)
    legs: set[tuple[UUID, str]] = field(default_factory=set)
    pairs: set[str] = field(default_factory=set)
    approvals: set[UUID] = field(default_factory=set)
    relays: set[bytes] = field(default_factory=set)


@dataclass(slots=True, kw_only=True)
class Standing:
    """What stands in the store under the head lock, by key: `legs` has every leg of the threads asked for.

    `pairs` is the next pair_seq per recipient.
    """

    idempotency: dict[tuple[str, str], IdempotencyRow] = field(default_factory=dict)
    outbox: dict[UUID, Delivery] = field(default_factory=dict)
    inbox: dict[tuple[str, UUID], InboxRow] = field(default_factory=dict)
    refusals: dict[tuple[str, UUID], list[RefusalRow]] = field(default_factory=dict)
    legs: dict[tuple[UUID, str], Leg] = field(default_factory=dict)
    pairs: dict[str, int] = field(default_factory=dict)
    approvals: dict[UUID, ApprovalRow] = field(default_factory=dict)
    relays: dict[bytes, RelayRow] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Writes:
    """Everything one batch writes."""

    batch: UUID
    at: datetime
    old_size: int
    entries: list[bytes] = field(default_factory=list)
    tiles: dict[TileId, bytes] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None
    rows: list[Row] = field(default_factory=list)
    settled: list[tuple[UUID, Delivery, str | None]] = field(default_factory=list)
    resealed: list[Resealing] = field(default_factory=list)
    dispatched: list[tuple[str, UUID]] = field(default_factory=list)
    legs: dict[tuple[UUID, str], Leg] = field(default_factory=dict)
    pairs: dict[str, int] = field(default_factory=dict)
    approvals: dict[UUID, ApprovalRow] = field(default_factory=dict)
    forgotten: list[UUID] = field(default_factory=list)


class Batch(Protocol):
    """One transaction that holds the head lock of one ledger."""

    @property
    def head(self) -> Head:
        """The head as it was locked."""
        ...

    async def note(self) -> bytes | None:
        """The signed checkpoint of the head; None at size 0."""
        ...

    async def last(self) -> bytes | None:
        """The newest entry; None at size 0."""
        ...

    async def tiles(self, wanted: Sequence[TileId]) -> dict[TileId, bytes]:
        """Tiles as they stand; missing ones are absent."""
        ...

    async def standing(self, wanted: Wanted) -> Standing:
        """Rows that stand under these keys."""
        ...

    async def write(self, writes: Writes) -> None:
        """Writes all of it; DataError where the database refuses a row."""
        ...


class LedgerStore(Protocol):
    """Reading our own ledgers, and the batch that is their one write path."""

    def batch(self, origin: str) -> AbstractAsyncContextManager[Batch]:
        """Opens a transaction and locks the head (5 s). Left without error it is committed."""
        ...

    async def find_batch(self, origin: str, batch: UUID) -> bool:
        """Under the head lock: whether that batch was committed."""
        ...

    async def make_head(self, origin: str, root: bytes) -> None:
        """A head of size 0; only for `init` and the opening of a ledger."""
        ...

    async def heads(self) -> dict[str, tuple[int, bytes]]:
        """Origin -> (size, root)."""
        ...

    async def entries(self, origin: str, start: int, end: int) -> list[bytes]:
        """Entries [start, end) as far as they exist."""
        ...

    async def entries_about(
        self, origin: str, ids: Sequence[UUID], *, kind: str = "", opened: int | None = None
    ) -> dict[int, bytes]:
        """Our entries whose message has one of these ids, by index; all, or of a kind."""
        ...

    async def tiles(self, origin: str, wanted: Sequence[TileId]) -> dict[TileId, bytes]:
        """Tiles as they stand; missing ones are absent."""
        ...

    async def mend_tile(self, origin: str, tile: TileId, wrong: bytes | None, right: bytes) -> bool:
        """Puts a tile right, if it still is what was found wrong (None: missing); whether it was."""
        ...

    async def checkpoint(self, origin: str, size: int | None = None) -> Checkpoint | None:
        """The newest checkpoint, or that of a size."""
        ...

    async def checkpoints(self, origin: str, after: int, size: int) -> list[Checkpoint]:
        """Checkpoints of sizes after one and up to another, the newest of each bundle of entries, smallest first."""
        ...

    async def keep_cosignature(self, origin: str, size: int, witness: str, lines: bytes, at: datetime) -> None:
        """Keeps a witness's verified signature lines under a checkpoint of ours; the first stays."""
        ...

    async def cosignatures(self, origin: str, size: int) -> dict[str, bytes]:
        """Witness -> its signature lines under the checkpoint of a size."""
        ...

    async def cosigned_since(self, origin: str, since: datetime) -> list[str]:
        """Witnesses of whom a cosignature under a checkpoint of ours came after a time."""
        ...

    async def witnessed(self, origin: str, most: int, quorum: int) -> int:
        """The newest size up to `most` that a quorum cosigned, else that of the most cosignatures; 0 without any."""
        ...

    async def follow(self, wake: Callable[[], None]) -> None:
        """Calls `wake` whenever another process of this node committed; until cancelled."""
        ...

    async def identity(self) -> tuple[str, int]:
        """PostgreSQL system identifier and timeline."""
        ...


class ExchangeStore(Protocol):
    """Outbox, inbox and what we hold of peers: short statements, no ledger entry."""

    async def due_peers(self, now: datetime) -> dict[str, bool]:
        """Recipients with a queued message that is due and not leased; whether one of these was hastened, or is urgent and new."""
        ...

    async def claim(self, recipient: str, now: datetime, lease: datetime, count: int, bytes_max: int) -> list[Claimed]:
        """Claims due messages, urgent and oldest first, until `lease`; no one else gets them meanwhile."""
        ...

    async def offer(self, recipient: str, count: int, bytes_max: int) -> list[Claimed]:
        """Queued messages for a member that fetches, claimed or not: urgent first, then the least offered."""
        ...

    async def queued(self, recipient: str, after: UUID, count: int, bytes_max: int) -> list[Claimed]:
        """Queued messages for a member by id, claimed or not, after an id; at least one where there is any."""
        ...

    async def unsettled(self, recipient: str, ids: Sequence[UUID]) -> list[Claimed]:
        """Messages of these ids to a member that a receipt can still settle; the envelope may be gone."""
        ...

    async def sealed(self, ids: Sequence[UUID]) -> list[SealedRow]:
        """What these messages were sealed as before."""
        ...

    async def postpone(self, due: Mapping[UUID, datetime | None], problems: Mapping[UUID, str] = ...) -> None:
        """Gives claimed messages back, one attempt more, due at the given times, or (None) where they stood in the queue before.

        `problems` says why, where known. What another process claimed since is left alone.
        """
        ...

    async def waiting(self, count: int) -> list[Waiting]:
        """Queued messages, by recipient and age."""
        ...

    async def piles(self, origin: str) -> list[Pile]:
        """What waits: queued for a peer, arrived and not fetched, before a person; and the newest checkpoint."""
        ...

    async def hasten(self, now: datetime, *, recipient: str | None = None, id_: UUID | None = None) -> int:
        """Makes queued messages that nobody holds due at `now`: all, a recipient's, or one; how many there were."""
        ...

    async def take(self, id_: UUID, now: datetime, lease: datetime) -> Claimed | None:
        """Claims one queued message that nobody holds, due or not, until `lease`."""
        ...

    async def release(self, *, own: bool) -> None:
        """Ends the leases of this node's processes that are gone, and `own` ones: what they claimed is due again."""
        ...

    async def arrivals(
        self, keys: Sequence[tuple[str, UUID]]
    ) -> tuple[dict[tuple[str, UUID], InboxRow], dict[tuple[str, UUID], list[RefusalRow]]]:
        """What arrived before under (sender, id)."""
        ...

    async def backlog(self, sender: str, most: int) -> int:
        """How many of a sender's arrived messages are not dispatched, counted up to `most`."""
        ...

    async def refusals_since(self, sender: str, since: datetime) -> int:
        """How many refused and id_conflict entries a sender caused."""
        ...

    async def undispatched(self, count: int, types: Sequence[str], but: Sequence[UUID]) -> list[Arrived]:
        """Arrived messages of these types that were neither dispatched nor put before a person, oldest first."""
        ...

    async def take_up(self, count: int, but: Sequence[str], now: datetime, lease: datetime) -> list[Arrived]:
        """Claims arrived messages, but for some types, that were neither dispatched nor put before a person.

        First what nobody has claimed, the oldest of it; then what was claimed longest ago. A claim lasts until `lease`, and
        nobody ends it sooner.
        """
        ...

    async def set_aside(self, row: AsideRow, most: int) -> None:
        """Keeps a parcel that broke something, `most` of one sender; the same again changes nothing."""
        ...

    async def aside(self) -> list[AsideRow]:
        """What was set aside, oldest first."""
        ...

    async def drop_aside(self, digest: bytes) -> None:
        """It was replayed."""
        ...

    async def contradictions(self, count: int) -> list[Contradiction]:
        """What foreign ledgers say twice, and only once can be."""
        ...

    async def keep_second(self, row: ProofRow) -> None:
        """Keeps the verified proof of another receipt of a message of ours beside what is there, a few of each."""
        ...

    async def gaps(self, count: int) -> list[Gap]:
        """Numbers that are missing between those of the messages to us that came, by ledger."""
        ...

    async def review(self, row: ReviewRow) -> None:
        """Puts a request before a person; the same one again changes nothing."""
        ...

    async def proven(self, places: Sequence[tuple[str, int]]) -> list[ProofRow]:
        """Proofs kept of foreign entries at these (origin, index)."""
        ...

    async def held(self, origin: str) -> Held:
        """What we hold of a foreign ledger."""
        ...

    async def keep(self, checkpoint: Checkpoint, *, at: datetime) -> None:
        """Keeps a verified checkpoint, unlinked; the same one again changes nothing."""
        ...

    async def keep_conflict(self, first: bytes, second: bytes, *, origin: str, at: datetime) -> None:
        """Keeps the two notes of a split view; exchange with that ledger stops."""
        ...

    async def conflict(self, origin: str) -> tuple[bytes, bytes] | None:
        """The two notes, or the two tlog-proofs, of a ledger that contradict each other."""
        ...

    async def split(self) -> set[str]:
        """Origins whose two histories we hold."""
        ...

    async def link(self, origin: str, sizes: Sequence[int], *, newest: int) -> bool:
        """Marks sizes as linked, if `newest` is still the newest linked one; whether it was. Never back, and never two at a time."""
        ...

    async def foreign_note(self, origin: str, size: int | None = None) -> bytes | None:
        """The newest note of a foreign ledger, or that of a size."""
        ...

    async def name(self, member: str, origin: str, sizes: Sequence[int]) -> None:
        """Remembers the sizes of our ledger that a member named last."""
        ...

    async def named(self, member: str, origin: str) -> tuple[int, ...]:
        """The sizes of our ledger that a member named last."""
        ...

    async def answered(self, client: str, key: str) -> IdempotencyRow | None:
        """What a client was answered under a key."""
        ...

    async def forget_answers(self, before: datetime) -> None:
        """Drops what clients were answered under Idempotency-Keys before a time."""
        ...

    async def unlinked_since(self, before: datetime) -> list[str]:
        """Foreign ledgers with a checkpoint seen before a time and still not linked."""
        ...

    async def unlinked_members(self, origin: str) -> list[str]:
        """Members that named sizes of this ledger of ours which they could not link."""
        ...


class ThreadStore(Protocol):
    """Threads, messages, content and the event feed, for the agency interface."""

    async def legs(
        self, *, after: tuple[datetime, UUID] | None, count: int, state: str | None, kind: str | None = None
    ) -> list[Leg]:
        """Legs, newest first, after a cursor."""
        ...

    async def thread(self, thread: UUID) -> list[Leg]:
        """The legs of one thread."""
        ...

    async def messages(self, thread: UUID) -> list[StoredMessage]:
        """The messages of a thread, oldest first."""
        ...

    async def content(self, sender: str, id_: UUID) -> list[ContentRow]:
        """Content at rest of one message: JWS and parts."""
        ...

    async def proofs(self, peer: str, id_: UUID) -> list[ProofRow]:
        """Peers' proofs about one message."""
        ...

    async def overdue(self, now: datetime, count: int) -> list[Overdue]:
        """Legs whose clock has run out, the longest first."""
        ...

    async def last_event(self) -> int:
        """The sequence number of the newest line of the feed; 0 before the first."""
        ...

    async def events(self, after: int, count: int) -> list[Event]:
        """The feed after a sequence number."""
        ...

    async def passed(self, seq: int, count: int, but: Sequence[str]) -> list[Arrived]:
        """Undispatched arrivals whose event the feed has passed, but for some types and what waits for a person."""
        ...

    async def reviews(self, thread: UUID | None, *, after: tuple[datetime, UUID] | None, count: int) -> list[ReviewRow]:
        """Requests that wait for a person, oldest first, after a cursor."""
        ...


class ErasureStore(Protocol):
    """What is to be erased, and the wrapped keys of content at rest. That anything is erased, and why, an entry alone says."""

    def alone(self) -> AbstractAsyncContextManager[bool]:
        """Whether nobody else of this node erases while the block lasts."""
        ...

    async def pend(self, rows: Sequence[ErasureRow]) -> None:
        """To be erased, durable; what stands there is so again."""
        ...

    async def pending(self) -> list[ErasureRow]:
        """What is not done."""
        ...

    async def finish(self, rows: Sequence[ErasureRow]) -> None:
        """Done: what their keys opened goes too; of a whole message, that of its parts and attachments."""
        ...

    async def erased(self, thread: UUID) -> set[tuple[str, UUID, str]]:
        """(sender, id, part) of what was erased of a thread, part '' of a whole message: an entry says so."""
        ...

    async def missing(self, count: int) -> list[tuple[str, UUID]]:
        """(sender, id) of messages whose content is gone although no `erased` entry says so, or is here although one does."""
        ...

    async def generation(self) -> tuple[int, datetime]:
        """The generation that batches are under, and since when."""
        ...

    async def raise_generation(self, generation: int, at: datetime | None = None) -> None:
        """Every batch that commits after this is under this generation or a later one; `at`: when it was opened. Never lowered."""
        ...

    async def generations(self) -> dict[int, int]:
        """How many keys of content there are under each generation."""
        ...

    async def due(self, today: date, count: int) -> list[UUID]:
        """Threads with content whose last day is before today, or whose handling was changed since."""
        ...

    async def idle(self, before: datetime, generations: Sequence[int], count: int) -> list[UUID]:
        """Threads with content under these generations in which nothing happened since a time, nor was due; without shared records, which have a last day, and marking notices, which stand."""
        ...

    async def drop_asked(self, before: datetime) -> None:
        """Drops what people asked before a time and nobody used; what was used shows for ever on whose word something was done."""
        ...

    async def wrapped_of(self, rows: Sequence[ErasureRow]) -> list[WrappedRow]:
        """The keys of these; of a whole message, those of its parts and attachments too."""
        ...

    def wrapped(self, generation: int, count: int) -> AsyncIterator[list[WrappedRow]]:
        """All keys of a generation, in pages."""
        ...

    async def rewrap(self, moved: Sequence[tuple[WrappedRow, ContentKey]]) -> None:
        """The same keys under another generation; of rows that are still as they were."""
        ...
