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
    LargeBinary,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from adapters.postgres.ledger import ENTRY_MESSAGE

metadata = SQLModel.metadata
metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


def _text(*, key: bool = False, default: str | None = None) -> Any:
    given = {"server_default": text(f"'{default}'")} if default is not None else {}
    return Field(primary_key=key, sa_type=Text, sa_column_kwargs=given)


def _big(*, key: bool = False) -> Any:
    return Field(primary_key=key, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False} if key else {})


def _bytes(*, nullable: bool = False, key: bool = False) -> Any:
    return Field(primary_key=key, sa_type=LargeBinary, nullable=nullable)


def _at(*, nullable: bool = False) -> Any:
    return Field(sa_type=DateTime(timezone=True), nullable=nullable)


def _flag() -> Any:
    return Field(sa_column_kwargs={"server_default": text("false")})


def _texts() -> Any:
    return Field(sa_column=Column(ARRAY(Text), nullable=False))


class LedgerHead(SQLModel, table=True):
    """One row a ledger of ours: the lock that every batch takes. A cache of the newest checkpoint."""

    __tablename__ = "ledger_head"
    origin: str = _text(key=True)
    size: int = _big()
    root: bytes = _bytes()


class Epoch(SQLModel, table=True):
    """The open epoch generation of content at rest; one row."""

    __tablename__ = "epoch"
    generation: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})


class LedgerEntry(SQLModel, table=True):
    """Entries; insert-only for the application."""

    __tablename__ = "entry"
    __table_args__ = (Index("ix_entry_message", "origin", text(f"({ENTRY_MESSAGE})")),)
    origin: str = _text(key=True)
    index: int = _big(key=True)
    data: bytes = _bytes()


class LedgerCheckpoint(SQLModel, table=True):
    """Our checkpoints with the batch that made them; insert-only for the application."""

    __tablename__ = "checkpoint"
    origin: str = _text(key=True)
    size: int = _big(key=True)
    root: bytes = _bytes()
    note: bytes = _bytes()
    batch: UUID = Field(unique=True)
    at: datetime = _at()


class Cosignature(SQLModel, table=True):
    """Cosignatures of our checkpoints by other members, as signature lines."""

    __tablename__ = "cosignature"
    origin: str = _text(key=True)
    size: int = _big(key=True)
    witness: str = _text(key=True)
    lines: bytes = _bytes()
    at: datetime = _at()


class Tile(SQLModel, table=True):
    """Hash tiles, one growing row each; a cache that can be rebuilt from the entries."""

    __tablename__ = "tile"
    origin: str = _text(key=True)
    level: int = Field(primary_key=True, sa_type=SmallInteger, sa_column_kwargs={"autoincrement": False})
    index: int = _big(key=True)
    data: bytes = _bytes()


class Pair(SQLModel, table=True):
    """The next pair_seq of the ordered pair us -> recipient within one ledger."""

    __tablename__ = "pair"
    origin: str = _text(key=True)
    recipient: str = _text(key=True)
    next: int = _big()


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
    recipient: str = _text()
    type: str = _text()
    created: datetime = _at()
    expires: datetime = _at()
    urgent: bool
    pair_seq: int = _big()
    origin: str = _text()
    index: int = _big()
    digest: bytes = _bytes()
    content_c: bytes = _bytes()
    kid: str = _text()
    seal_kid: str = _text()
    actor: str = _text()
    envelope: bytes | None = _bytes(nullable=True)
    due: datetime = _at()
    state: str = _text()
    attempts: int = Field(sa_column_kwargs={"server_default": text("0")})
    leased: datetime | None = _at(nullable=True)
    lessee: str | None = Field(sa_type=Text, nullable=True)
    hastened: bool = _flag()
    problem: str | None = Field(sa_type=Text, nullable=True)


class Sealed(SQLModel, table=True):
    """What a message of ours was sealed as before: a receipt for these bytes is good too."""

    __tablename__ = "sealed"
    id: UUID = Field(primary_key=True)
    digest: bytes = _bytes(key=True)
    origin: str = _text()
    index: int = _big()


class Blob(SQLModel, table=True):
    """An attachment's ciphertext, as far as it is here; named by its digest, brought by `owner`."""

    __tablename__ = "blob"
    __table_args__ = (
        UniqueConstraint("owner", "digest"),
        Index("ix_blob_digest", "digest", postgresql_where=text("whole")),
        Index("ix_blob_at", "at"),
    )
    id: UUID = Field(primary_key=True)
    owner: str = _text()
    digest: bytes | None = _bytes(nullable=True)
    size: int | None = Field(sa_type=BigInteger, nullable=True)
    held: int = _big()
    whole: bool
    at: datetime = _at()


class Piece(SQLModel, table=True):
    """1 MiB of a blob, the last one less."""

    __tablename__ = "piece"
    blob: UUID = Field(primary_key=True)
    n: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    data: bytes = _bytes()


class Relay(SQLModel, table=True):
    """Parcels between others that we carry as a hub, as lines; `post` goes when the recipient's receipt came."""

    __tablename__ = "relay"
    __table_args__ = (
        Index("ix_relay_due", "recipient", "due", postgresql_where=text("answer IS NULL")),
        Index("ix_relay_sender_id", "sender", "id"),
        Index("ix_relay_backlog", "sender", postgresql_where=text("answer IS NULL")),
        Index("ix_relay_expires", "expires"),
    )
    digest: bytes = _bytes(key=True)
    sender: str = _text()
    id: UUID
    recipient: str = _text()
    at: datetime = _at()
    expires: datetime = _at()
    origin: str = _text()
    index: int = _big()
    post: bytes | None = _bytes(nullable=True)
    due: datetime = _at()
    answer: bytes | None = _bytes(nullable=True)
    problem: str | None = Field(sa_type=Text, nullable=True)


class Owed(SQLModel, table=True):
    """Receipts of ours that go to a member by courier, since their parcels came so."""

    __tablename__ = "owed"
    __table_args__ = (Index("ix_owed_at", "at"),)
    peer: str = _text(key=True)
    origin: str = _text(key=True)
    index: int = _big(key=True)
    at: datetime = _at()


class Aside(SQLModel, table=True):
    """Parcels that broke something in us, as lines; a person replays them."""

    __tablename__ = "aside"
    __table_args__ = (Index("ix_aside_sender", "sender"),)
    digest: bytes = _bytes(key=True)
    source: str = _text()
    sender: str = _text()
    id: UUID
    at: datetime = _at()
    cause: str = _text()
    post: bytes = _bytes()


class Inbox(SQLModel, table=True):
    """Messages that arrived whole."""

    __tablename__ = "inbox"
    __table_args__ = (
        Index("ix_inbox_undispatched", "origin", "index", postgresql_where=text("not dispatched")),
        Index("ix_inbox_backlog", "sender", postgresql_where=text("not dispatched")),
        Index("ix_inbox_thread", "thread"),
    )
    sender: str = _text(key=True)
    id: UUID = Field(primary_key=True)
    thread: UUID
    type: str = _text()
    received: datetime = _at()
    origin: str = _text()
    index: int = _big()
    digest: bytes = _bytes()
    content_c: bytes = _bytes()
    dispatched: bool = _flag()


class Refusal(SQLModel, table=True):
    """Bytes answered with a `refused` or `id_conflict` entry; `cause` never leaves this table."""

    __tablename__ = "refusal"
    __table_args__ = (Index("ix_refusal_sender_at", "sender", "at"),)
    sender: str = _text(key=True)
    id: UUID = Field(primary_key=True)
    digest: bytes = _bytes(key=True)
    kind: str = _text()
    code: str = _text()
    cause: str = _text()
    at: datetime = _at()
    origin: str = _text()
    index: int = _big()
    content_c: bytes | None = _bytes(nullable=True)


class Content(SQLModel, table=True):
    """Content at rest: the JWS (part '') and restricted parts, each under its own key wrapped by an epoch."""

    __tablename__ = "content"
    __table_args__ = (
        Index("ix_content_generation", "generation"),
        Index("ix_content_attachment", "part", postgresql_where=text("part ^@ '@'")),
    )
    sender: str = _text(key=True)
    id: UUID = Field(primary_key=True)
    part: str = _text(key=True)
    thread: UUID
    generation: int
    wrapped: bytes = _bytes()
    sealed: bytes = _bytes()


class PeerProof(SQLModel, table=True):
    """Peers' proofs that we verified, of parcels and of receipts; path hashes are concatenated."""

    __tablename__ = "peer_proof"
    __table_args__ = (
        Index("ix_peer_proof_peer_id", "peer", "id"),
        Index("ix_peer_proof_origin_index", "origin", "index"),
    )
    peer: str = _text()
    id: UUID
    digest: bytes = _bytes(key=True)
    origin: str = _text(key=True)
    index: int = _big(key=True)
    size: int = _big()
    path: bytes = _bytes()
    entry: bytes = _bytes()


class PeerCheckpoint(SQLModel, table=True):
    """Signed checkpoints of foreign ledgers, linked or not yet."""

    __tablename__ = "peer_checkpoint"
    __table_args__ = (
        Index("ix_peer_checkpoint_linked", "origin", "size", postgresql_where=text("linked")),
        Index("ix_peer_checkpoint_unlinked", "origin", "size", postgresql_where=text("not linked")),
    )
    origin: str = _text(key=True)
    size: int = _big(key=True)
    root: bytes = _bytes()
    note: bytes = _bytes()
    linked: bool = _flag()
    seen: datetime = _at()


class SplitView(SQLModel, table=True):
    """Two notes of one ledger that contradict each other; exchange with it has stopped."""

    __tablename__ = "split_view"
    origin: str = _text(key=True)
    first: bytes = _bytes()
    second: bytes = _bytes()
    seen: datetime = _at()


class PeerNamed(SQLModel, table=True):
    """The sizes of our ledgers that a member named last."""

    __tablename__ = "peer_named"
    member: str = _text(key=True)
    origin: str = _text(key=True)
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
    counterpart: str = _text(key=True)
    role: str = _text()
    kind: str = _text()
    state: str = _text()
    version: int
    request: UUID
    opened: datetime = _at()
    updated: datetime = _at()
    messages: int
    hop: int
    due: datetime | None = _at(nullable=True)
    delayed: datetime | None = _at(nullable=True)
    stood_ms: int = _big()
    paused: datetime | None = _at(nullable=True)
    rounds: int
    question: UUID | None
    expected: datetime | None = _at(nullable=True)
    acknowledge_by: datetime | None = _at(nullable=True)
    lapses: datetime | None = _at(nullable=True)


class Event(SQLModel, table=True):
    """The event feed; `seq` is given under the head lock, so it grows in commit order."""

    __tablename__ = "event"
    __table_args__ = (
        Index("ix_event_message", "message"),
        Index("ix_event_received", "seq", postgresql_where=text("kind = 'received'")),
    )
    seq: int = Field(sa_type=BigInteger, primary_key=True)
    at: datetime = _at()
    kind: str = _text()
    thread: UUID
    counterpart: str = _text()
    message: UUID


class Idempotency(SQLModel, table=True):
    """What a client was answered under an Idempotency-Key."""

    __tablename__ = "idempotency"
    __table_args__ = (Index("ix_idempotency_at", "at"),)
    client: str = _text(key=True)
    key: str = _text(key=True)
    digest: bytes = _bytes()
    answer: bytes = _bytes()
    at: datetime = _at()


class Review(SQLModel, table=True):
    """Requests that wait for a person; candidates are refs of own records with scores."""

    __tablename__ = "review"
    __table_args__ = (Index("ix_review_thread", "thread"),)
    sender: str = _text(key=True)
    id: UUID = Field(primary_key=True)
    thread: UUID
    reason: str = _text()
    candidates: str = _text()
    at: datetime = _at()
    closed: bool = _flag()


class Approval(SQLModel, table=True):
    """What one person asked and another has to rule on; what it is stands sealed in `content`."""

    __tablename__ = "approval"
    __table_args__ = (
        Index("ix_approval_asked", "client", "actor", "asked"),
        Index("ix_approval_waiting", "asked", "id", postgresql_where=text("ruling = ''")),
    )
    id: UUID = Field(primary_key=True)
    act: str = _text()
    client: str = _text()
    actor: str = _text()
    asked: datetime = _at()
    ruling: str = _text()
    ruled_client: str = _text()
    ruled_actor: str = _text()
    ruled: datetime | None = _at(nullable=True)
    used: bool


class Client(SQLModel, table=True):
    """The member's own systems that may call this node."""

    __tablename__ = "client"
    id: str = _text(key=True)
    jwk: dict[str, str] = Field(sa_column=Column(JSONB, nullable=False))
    actors: list[str] = _texts()
    scopes: list[str] = _texts()
    created: datetime = _at()
    revoked: datetime | None = _at(nullable=True)


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
    owner: str = _text(key=True)
    ref: str = _text(key=True)
    serial: str = _text()
    k1: str = _text()
    k2: str = _text()
    no_zeros: str = _text()
    others: list[str] = _texts()
    grams: list[str] = _texts()
    make: str = _text()
    make_key: str = _text()
    calibre: str = _text()
    weapon_type: str = _text()
    model: str = _text()
    status: str = _text()
    until: date | None = Field(sa_type=Date, nullable=True)
    batch: UUID | None
    said: datetime = _at()
    audience: list[str] | None = Field(sa_column=Column(ARRAY(Text), nullable=True))
    details: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
