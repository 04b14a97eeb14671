"""Message content at rest: a key per message and per restricted part, wrapped by the open epoch (PROTOCOL.md section 7)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from protocols.exchange.message import Message, parse_jws, parse_message
from protocols.ledger.entry import content_commitment
from protocols.limits import PART_BYTES_MAX
from protocols.ports.crypto import ContentKey, Vault
from protocols.ports.store import ContentRow
from protocols.problems import ProblemError
from protocols.strict import parse_object


def _scope(sender: str, id_: UUID, part: str) -> str:
    return f"{sender}/{id_}/{part}"


def at_rest(vault: Vault, message: Message, jws: bytes, parts: Mapping[str, bytes]) -> tuple[ContentRow, ...]:
    """Rows for the JWS (part '') and each part's JSON, so that a part can be erased alone."""
    rows = []
    for part, plain in {"": jws, **parts}.items():
        scope = _scope(message.sender, message.id, part)
        key = vault.new_key(scope)
        sealed = vault.seal(key, scope, part, plain)
        rows.append(
            ContentRow(
                sender=message.sender,
                id=message.id,
                part=part,
                thread=message.thread,
                generation=key.generation,
                wrapped=key.wrapped,
                sealed=sealed,
            )
        )
    return tuple(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """An opened message with its restricted parts."""

    message: Message
    jws: bytes
    parts: Mapping[str, dict[str, Any]]
    commitment: bytes


def open_content(vault: Vault, rows: Sequence[ContentRow]) -> Content:
    """The content of one message; `content.erased` where its key is gone."""
    plain = {}
    for row in rows:
        key = ContentKey(generation=row.generation, wrapped=row.wrapped)
        plain[row.part] = vault.open(key, _scope(row.sender, row.id, row.part), row.part, row.sealed)
    if "" not in plain:
        raise ProblemError("content.erased", "the content of this message is gone")
    jws = plain.pop("")
    payload = parse_jws(jws).payload
    message = parse_message(payload)
    parts = {name: parse_object(data, bytes_max=PART_BYTES_MAX) for name, data in plain.items()}
    return Content(message=message, jws=jws, parts=parts, commitment=content_commitment(message.salt, payload))
