"""Message content at rest: a key per message and per restricted part, wrapped by the open epoch (docs/protocol.md section 7)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from protocols.exchange.envelope import open_part
from protocols.exchange.message import Message, Part, parse_jws, parse_message, parse_part
from protocols.ledger.entry import content_commitment
from protocols.ports.crypto import ContentKey, Opener, Vault
from protocols.ports.rows import (
    ContentRow,
)
from protocols.problems import ProblemError

_PART_KEY_BYTES = 32


def scope_of(sender: str, id_: UUID, part: str) -> str:
    """What the key of a row is bound to."""
    return f"{sender}/{id_}/{part}"


def last_day(message: Message) -> date | None:
    """The last day on which its sender lets it be kept."""
    day = message.handling.get("delete_after")
    return date.fromisoformat(day) if day else None


def at_rest(
    vault: Vault,
    message: Message,
    jws: bytes,
    parts: Sequence[Part],
    keys: Mapping[bytes, bytes],
    until: date | None = None,
) -> tuple[ContentRow, ...]:
    """Rows for the JWS (part ''), each part (its key, then its ciphertext) and the key of each attachment ('@' and its digest).

    So each can be erased alone; an attachment whose row is there is named by a message, and stays.
    `until`: the last day on which they may be kept. A part stays as it was sealed: the same JWS can be sealed again, and shown to an arbiter with or without it.
    """
    plain = {"": jws, **{part.ref.name: part.key + part.sealed for part in parts}}
    plain |= {attachment_part(digest): key for digest, key in keys.items()}
    return tuple(
        sealed_row(vault, message.sender, message.id, part, data, thread=message.thread, until=until)
        for part, data in plain.items()
    )


def attachment_part(digest: bytes) -> str:
    """How the row of an attachment's key is called."""
    return f"@{digest.hex()}"


def sealed_row(
    vault: Vault, sender: str, id_: UUID, part: str, plain: bytes, *, thread: UUID, until: date | None = None
) -> ContentRow:
    """One row of content at rest under a key of its own."""
    scope = scope_of(sender, id_, part)
    key = vault.new_key(scope)
    sealed = vault.seal(key, scope, part, plain)
    return ContentRow(
        sender=sender,
        id=id_,
        part=part,
        thread=thread,
        generation=key.generation,
        wrapped=key.wrapped,
        sealed=sealed,
        until=until,
    )


def open_row(vault: Vault, row: ContentRow) -> bytes:
    """What a row holds; `content.erased` where its key is gone."""
    key = ContentKey(generation=row.generation, wrapped=row.wrapped)
    return vault.open(key, scope_of(row.sender, row.id, row.part), row.part, row.sealed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A message out of the store with its restricted parts as they were sealed; `commitment` is its content_c.

    `keys` are those of its attachments by digest, without what was erased. `absent`: the rows that it names and that do not open.
    """

    message: Message
    jws: bytes
    parts: tuple[Part, ...]
    keys: Mapping[bytes, bytes]
    absent: tuple[str, ...]
    commitment: bytes

    def read_parts(self, opener: Opener) -> Mapping[str, dict[str, Any]]:
        """The parts' values by name."""
        return {part.ref.name: parse_part(open_part(part, opener)) for part in self.parts}


def _opened(vault: Vault, rows: Sequence[ContentRow]) -> Iterator[tuple[str, bytes]]:
    """What opens; a part that is just being erased takes nothing else with it."""
    for row in rows:
        try:
            yield row.part, open_row(vault, row)
        except ProblemError as problem:
            if problem.code != "content.erased":
                raise


def open_content(vault: Vault, rows: Sequence[ContentRow]) -> Content:
    """The content of one message, without parts that were erased; `content.erased` where its own key is gone."""
    plain = dict(_opened(vault, rows))
    if "" not in plain:
        raise ProblemError("content.erased", "the content of this message is gone")
    payload = parse_jws(plain[""]).payload
    message = parse_message(payload)
    parts = tuple(
        Part(ref=ref, key=plain[ref.name][:_PART_KEY_BYTES], sealed=plain[ref.name][_PART_KEY_BYTES:])
        for ref in message.parts
        if ref.name in plain
    )
    keys = {ref.sha256: plain[part] for ref in message.attachments if (part := attachment_part(ref.sha256)) in plain}
    commitment = content_commitment(message.salt, payload)
    named = [*(ref.name for ref in message.parts), *(attachment_part(ref.sha256) for ref in message.attachments)]
    absent = tuple(part for part in named if part not in plain)
    return Content(message=message, jws=plain[""], parts=parts, keys=keys, absent=absent, commitment=commitment)
