"""Kinds of columns, and the naming of keys and indexes, for `tables.py`."""

from typing import Any

from sqlalchemy import ARRAY, BigInteger, Column, DateTime, LargeBinary, Text, text
from sqlmodel import Field, SQLModel

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


def text_column(*, key: bool = False, default: str | None = None) -> Any:
    """Text."""
    given = {"server_default": text(f"'{default}'")} if default is not None else {}
    return Field(primary_key=key, sa_type=Text, sa_column_kwargs=given)


def big_column(*, key: bool = False) -> Any:
    """A number of 64 bits; a key that counts nothing by itself."""
    return Field(primary_key=key, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False} if key else {})


def bytes_column(*, nullable: bool = False, key: bool = False) -> Any:
    """Bytes."""
    return Field(primary_key=key, sa_type=LargeBinary, nullable=nullable)


def time_column(*, nullable: bool = False) -> Any:
    """A time with its zone."""
    return Field(sa_type=DateTime(timezone=True), nullable=nullable)


def flag_column() -> Any:
    """False at first."""
    return Field(sa_column_kwargs={"server_default": text("false")})


def texts_column() -> Any:
    """A list of texts."""
    return Field(sa_column=Column(ARRAY(Text), nullable=False))
