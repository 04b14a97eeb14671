"""The tables (SQLModel): alembic's metadata and the audit reads' models. `table=True` models never validate input."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    Date,
    DateTime,
    Index,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from adapters.postgres import people
from adapters.postgres.columns import (
    big_column,
    bytes_column,
    flag_column,
    text_column,
    texts_column,
    time_column,
)
from adapters.postgres.ledger import ENTRY_MESSAGE

metadata = people.metadata  # its tables too


class LedgerHead(SQLModel, table=True):
    """One row a ledger of ours: the lock that every batch takes. A cache of the newest checkpoint."""

    __tablename__ = "ledger_head"
    origin: str = text_column(key=True)
    size: int = big_column()
    root: bytes = bytes_column()


class Epoch(SQLModel, table=True):
    """The open epoch generation of content at rest; one row."""

    __tablename__ = "epoch"
    generation: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    opened: datetime = Field(sa_type=DateTime(timezone=True), sa_column_kwargs={"server_default": text("now()")})


class LedgerEntry(SQLModel, table=True):
    """Entries; insert-only for the application."""

    __tablename__ = "entry"
    __table_args__ = (Index("ix_entry_message", "origin", text(f"({ENTRY_MESSAGE})")),)
    origin: str = text_column(key=True)
    index: int = big_column(key=True)
    data: bytes = bytes_column()


class LedgerCheckpoint(SQLModel, table=True):
    """Our checkpoints with the batch that made them; insert-only for the application."""

    __tablename__ = "checkpoint"
    origin: str = text_column(key=True)
    size: int = big_column(key=True)
    root: bytes = bytes_column()
    note: bytes = bytes_column()
    batch: UUID = Field(unique=True)
    at: datetime = time_column()


class Cosignature(SQLModel, table=True):
    """Cosignatures of our checkpoints by other members, as signature lines."""

    __tablename__ = "cosignature"
    origin: str = text_column(key=True)
    size: int = big_column(key=True)
    witness: str = text_column(key=True)
    lines: bytes = bytes_column()
    at: datetime = time_column()


class Tile(SQLModel, table=True):
    """Hash tiles, one growing row each; a cache that can be rebuilt from the entries."""

    __tablename__ = "tile"
    origin: str = text_column(key=True)
    level: int = Field(primary_key=True, sa_type=SmallInteger, sa_column_kwargs={"autoincrement": False})
    index: int = big_column(key=True)
    data: bytes = bytes_column()


class Pair(SQLModel, table=True):
    """The next pair_seq of the ordered pair us -> recipient within one ledger."""

    __tablename__ = "pair"
    origin: str = text_column(key=True)
    recipient: str = text_column(key=True)
    next: int = big_column()


class Outbox(SQLModel, table=True):
    """Messages of ours on their way; the envelope goes when a receipt or `undelivered` is committed."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index("ix_outbox_routine", "recipient", "due", "id", postgresql_where=text("state = 'queued' AND NOT urgent")),
        Index("ix_outbox_urgent", "recipient", "due", "id", postgresql_where=text("state = 'queued' AND urgent")),
        Index("ix_outbox_hastened", "recipient", postgresql_where=text("state = 'queued' AND hastened")),
        Index("ix_outbox_leased", "leased", postgresql_where=text("state = 'queued' AND leased IS NOT NULL")),
        Index("ix_outbox_thread", "thread"),
    )
    id: UUID = Field(primary_key=True)
    thread: UUID
    recipient: str = text_column()
    type: str = text_column()
    created: datetime = time_column()
    expires: datetime = time_column()
    urgent: bool
    pair_seq: int = big_column()
    origin: str = text_column()
    index: int = big_column()
    digest: bytes = bytes_column()
    content_c: bytes = bytes_column()
    kid: str = text_column()
    seal_kid: str = text_column()
    actor: str = text_column()
    envelope: bytes | None = bytes_column(nullable=True)
    due: datetime = time_column()
    state: str = text_column()
    attempts: int = Field(sa_column_kwargs={"server_default": text("0")})
    leased: datetime | None = time_column(nullable=True)
    lessee: str | None = Field(sa_type=Text, nullable=True)
    hastened: bool = flag_column()
    problem: str | None = Field(sa_type=Text, nullable=True)


class Sealed(SQLModel, table=True):
    """What a message of ours was sealed as before: a receipt for these bytes is good too."""

    __tablename__ = "sealed"
    id: UUID = Field(primary_key=True)
    digest: bytes = bytes_column(key=True)
    origin: str = text_column()
    index: int = big_column()


class Blob(SQLModel, table=True):
    """An attachment's ciphertext, as far as it is here; named by its digest, brought by `owner`."""

    __tablename__ = "blob"
    __table_args__ = (
        UniqueConstraint("owner", "digest"),
        Index("ix_blob_digest", "digest", postgresql_where=text("whole")),
        Index("ix_blob_at", "at"),
    )
    id: UUID = Field(primary_key=True)
    owner: str = text_column()
    digest: bytes | None = bytes_column(nullable=True)
    size: int | None = Field(sa_type=BigInteger, nullable=True)
    held: int = big_column()
    whole: bool
    at: datetime = time_column()


class Piece(SQLModel, table=True):
    """1 MiB of a blob, the last one less."""

    __tablename__ = "piece"
    blob: UUID = Field(primary_key=True)
    n: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    data: bytes = bytes_column()


class Relay(SQLModel, table=True):
    """Parcels between others that we carry as a hub, as lines; `post` goes when the recipient's receipt came."""

    __tablename__ = "relay"
    __table_args__ = (
        Index("ix_relay_due", "recipient", "due", postgresql_where=text("answer IS NULL")),
        Index("ix_relay_sender_id", "sender", "id"),
        Index("ix_relay_backlog", "sender", postgresql_where=text("answer IS NULL")),
        Index("ix_relay_expires", "expires"),
    )
    digest: bytes = bytes_column(key=True)
    sender: str = text_column()
    id: UUID
    recipient: str = text_column()
    at: datetime = time_column()
    expires: datetime = time_column()
    origin: str = text_column()
    index: int = big_column()
    post: bytes | None = bytes_column(nullable=True)
    due: datetime = time_column()
    answer: bytes | None = bytes_column(nullable=True)
    problem: str | None = Field(sa_type=Text, nullable=True)


class Owed(SQLModel, table=True):
    """Receipts of ours that go to a member by courier, since their parcels came so."""

    __tablename__ = "owed"
    __table_args__ = (Index("ix_owed_at", "at"),)
    peer: str = text_column(key=True)
    origin: str = text_column(key=True)
    index: int = big_column(key=True)
    at: datetime = time_column()


class Aside(SQLModel, table=True):
    """Parcels that broke something in us, as lines; a person replays them."""

    __tablename__ = "aside"
    __table_args__ = (Index("ix_aside_sender", "sender"),)
    digest: bytes = bytes_column(key=True)
    source: str = text_column()
    sender: str = text_column()
    id: UUID
    at: datetime = time_column()
    cause: str = text_column()
    post: bytes = bytes_column()


class Inbox(SQLModel, table=True):
    """Messages that arrived whole."""

    __tablename__ = "inbox"
    __table_args__ = (
        Index("ix_inbox_undispatched", "origin", "index", postgresql_where=text("not dispatched")),
        Index(
            "ix_inbox_untold", text("leased NULLS FIRST"), "origin", "index", postgresql_where=text("not dispatched")
        ),
        Index("ix_inbox_backlog", "sender", postgresql_where=text("not dispatched")),
        Index("ix_inbox_thread", "thread"),
        Index("ix_inbox_tightened", "thread", postgresql_where=text("type = 'handling.change'")),
    )
    sender: str = text_column(key=True)
    id: UUID = Field(primary_key=True)
    thread: UUID
    type: str = text_column()
    received: datetime = time_column()
    origin: str = text_column()
    index: int = big_column()
    digest: bytes = bytes_column()
    content_c: bytes = bytes_column()
    dispatched: bool = flag_column()
    leased: datetime | None = time_column(nullable=True)


class Refusal(SQLModel, table=True):
    """Bytes answered with a `refused` or `id_conflict` entry; `cause` never leaves this table."""

    __tablename__ = "refusal"
    __table_args__ = (Index("ix_refusal_sender_at", "sender", "at"),)
    sender: str = text_column(key=True)
    id: UUID = Field(primary_key=True)
    digest: bytes = bytes_column(key=True)
    kind: str = text_column()
    code: str = text_column()
    cause: str = text_column()
    at: datetime = time_column()
    origin: str = text_column()
    index: int = big_column()
    content_c: bytes | None = bytes_column(nullable=True)


class Content(SQLModel, table=True):
    """Content at rest: the JWS (part '') and restricted parts, each under its own key wrapped by an epoch."""

    __tablename__ = "content"
    __table_args__ = (
        Index("ix_content_generation", "generation"),
        Index("ix_content_attachment", "part", postgresql_where=text("part ^@ '@'")),
        Index("ix_content_until", "until", postgresql_where=text("part = '' AND until IS NOT NULL")),
    )
    sender: str = text_column(key=True)
    id: UUID = Field(primary_key=True)
    part: str = text_column(key=True)
    thread: UUID
    generation: int
    wrapped: bytes = bytes_column()
    sealed: bytes = bytes_column()
    until: date | None = Field(sa_type=Date, nullable=True)


class Erasure(SQLModel, table=True):
    """Content that is to be erased, and that was: of a message, or a part of it."""

    __tablename__ = "erasure"
    __table_args__ = (
        Index("ix_erasure_pending", "id", postgresql_where=text("NOT done")),
        Index("ix_erasure_thread", "thread"),
    )
    sender: str = text_column(key=True)
    id: UUID = Field(primary_key=True)
    part: str = text_column(key=True)
    thread: UUID
    recipient: str = text_column()
    ground: str = text_column()
    content_c: bytes = bytes_column()
    until: date = Field(sa_type=Date)
    authority_c: bytes | None = bytes_column(nullable=True)
    done: bool
    approval: UUID | None


class PeerProof(SQLModel, table=True):
    """Peers' proofs that we verified, of parcels and of receipts; path hashes are concatenated."""

    __tablename__ = "peer_proof"
    __table_args__ = (
        Index("ix_peer_proof_peer_id", "peer", "id"),
        Index("ix_peer_proof_origin_index", "origin", "index"),
    )
    peer: str = text_column()
    id: UUID
    digest: bytes = bytes_column(key=True)
    origin: str = text_column(key=True)
    index: int = big_column(key=True)
    size: int = big_column()
    path: bytes = bytes_column()
    entry: bytes = bytes_column()


class PeerCheckpoint(SQLModel, table=True):
    """Signed checkpoints of foreign ledgers, linked or not yet."""

    __tablename__ = "peer_checkpoint"
    __table_args__ = (
        Index("ix_peer_checkpoint_linked", "origin", "size", postgresql_where=text("linked")),
        Index("ix_peer_checkpoint_unlinked", "origin", "size", postgresql_where=text("not linked")),
    )
    origin: str = text_column(key=True)
    size: int = big_column(key=True)
    root: bytes = bytes_column()
    note: bytes = bytes_column()
    linked: bool = flag_column()
    seen: datetime = time_column()


class SplitView(SQLModel, table=True):
    """Two notes of one ledger that contradict each other; exchange with it has stopped."""

    __tablename__ = "split_view"
    origin: str = text_column(key=True)
    first: bytes = bytes_column()
    second: bytes = bytes_column()
    seen: datetime = time_column()


class PeerNamed(SQLModel, table=True):
    """The sizes of our ledgers that a member named last."""

    __tablename__ = "peer_named"
    member: str = text_column(key=True)
    origin: str = text_column(key=True)
    sizes: list[int] = Field(sa_column=Column(ARRAY(BigInteger), nullable=False))


class Leg(SQLModel, table=True):
    """One leg of a thread: (thread, counterpart), our role and its state."""

    __tablename__ = "leg"
    __table_args__ = (
        Index("ix_leg_opened_thread", "opened", "thread"),
        Index("ix_leg_kind_opened", "kind", "opened", "thread"),
        Index("ix_leg_lapses", "lapses", postgresql_where=text("lapses IS NOT NULL")),
    )
    thread: UUID = Field(primary_key=True)
    counterpart: str = text_column(key=True)
    role: str = text_column()
    kind: str = text_column()
    state: str = text_column()
    version: int
    request: UUID
    opened: datetime = time_column()
    updated: datetime = time_column()
    messages: int
    hop: int
    due: datetime | None = time_column(nullable=True)
    late_ms: int | None = Field(sa_type=BigInteger)
    delayed: datetime | None = time_column(nullable=True)
    stood_ms: int = big_column()
    paused: datetime | None = time_column(nullable=True)
    rounds: int
    question: UUID | None
    unanswered: bool = flag_column()
    expected: datetime | None = time_column(nullable=True)
    acknowledge_by: datetime | None = time_column(nullable=True)
    lapses: datetime | None = time_column(nullable=True)


class Event(SQLModel, table=True):
    """The event feed; `seq` is given under the head lock, so it grows in commit order."""

    __tablename__ = "event"
    __table_args__ = (
        Index("ix_event_message", "message"),
        Index("ix_event_received", "seq", postgresql_where=text("kind = 'received'")),
    )
    seq: int = Field(sa_type=BigInteger, primary_key=True)
    at: datetime = time_column()
    kind: str = text_column()
    thread: UUID
    counterpart: str = text_column()
    message: UUID


class Idempotency(SQLModel, table=True):
    """What a client was answered under an Idempotency-Key."""

    __tablename__ = "idempotency"
    __table_args__ = (Index("ix_idempotency_at", "at"),)
    client: str = text_column(key=True)
    key: str = text_column(key=True)
    digest: bytes = bytes_column()
    answer: bytes = bytes_column()
    at: datetime = time_column()


class Review(SQLModel, table=True):
    """Requests that wait for a person; candidates are refs of own records with scores."""

    __tablename__ = "review"
    __table_args__ = (Index("ix_review_thread", "thread"),)
    sender: str = text_column(key=True)
    id: UUID = Field(primary_key=True)
    thread: UUID
    reason: str = text_column()
    candidates: str = text_column()
    at: datetime = time_column()
    closed: bool = flag_column()


class RegistryRecord(SQLModel, table=True):
    """Firearms registers: the member's own ('' as owner) and records that members share, with their search keys, plain."""

    __tablename__ = "registry_record"
    __table_args__ = (
        Index("ix_registry_record_k1", "k1"),
        Index("ix_registry_record_k2", "k2"),
        Index("ix_registry_record_no_zeros", "no_zeros"),
        Index("ix_registry_record_grams", "grams", postgresql_using="gin"),
        Index("ix_registry_record_others", "others", postgresql_using="gin"),
        Index("ix_registry_record_batch", "batch", postgresql_where=text("batch IS NOT NULL")),
    )
    owner: str = text_column(key=True)
    ref: str = text_column(key=True)
    serial: str = text_column()
    k1: str = text_column()
    k2: str = text_column()
    no_zeros: str = text_column()
    others: list[str] = texts_column()
    grams: list[str] = texts_column()
    make: str = text_column()
    make_key: str = text_column()
    calibre: str = text_column()
    weapon_type: str = text_column()
    model: str = text_column()
    status: str = text_column()
    until: date | None = Field(sa_type=Date, nullable=True)
    batch: UUID | None
    said: datetime = time_column()
    audience: list[str] | None = Field(sa_column=Column(ARRAY(Text), nullable=True))
    details: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
