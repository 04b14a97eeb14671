"""The tables of `tables.py` about people and systems of the member itself."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Column, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from adapters.postgres.columns import bytes_column, text_column, texts_column, time_column

metadata = SQLModel.metadata


class Client(SQLModel, table=True):
    """The member's own systems that may call this node."""

    __tablename__ = "client"
    id: str = text_column(key=True)
    jwk: dict[str, str] = Field(sa_column=Column(JSONB, nullable=False))
    actors: list[str] = texts_column()
    scopes: list[str] = texts_column()
    created: datetime = time_column()
    revoked: datetime | None = time_column(nullable=True)


class Approval(SQLModel, table=True):
    """What one person asked and another has to rule on; what it is stands sealed in `content`."""

    __tablename__ = "approval"
    __table_args__ = (
        Index("ix_approval_asked", "client", "actor", "asked"),
        Index("ix_approval_waiting", "asked", "id", postgresql_where=text("ruling = ''")),
    )
    id: UUID = Field(primary_key=True)
    act: str = text_column()
    client: str = text_column()
    actor: str = text_column()
    asked: datetime = time_column()
    ruling: str = text_column()
    ruled_client: str = text_column()
    ruled_actor: str = text_column()
    ruled: datetime | None = time_column(nullable=True)
    used: bool


class Session(SQLModel, table=True):
    """Sessions of people at the console and the one-time links that open them; `id` is a digest."""

    __tablename__ = "session"
    id: bytes = bytes_column(key=True)
    client: str = text_column()
    actor: str = text_column()
    scopes: list[str] = texts_column()
    link: bool
    expires: datetime = time_column()
