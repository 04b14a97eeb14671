"""Submit: validate, permit, sign, seal and commit a message of ours (`sent`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from gateway.services.changes import Answered, Dispatched, Resealed, Submitted
from gateway.services.commit import Committer
from gateway.services.content import Content, at_rest, last_day
from gateway.services.policy import permit
from gateway.services.stage import Lost
from protocols.directory import SUITE, Directory
from protocols.exchange.envelope import seal
from protocols.exchange.message import SALT_BYTES, AttachmentRef, Message, Part, seal_part, sign_message
from protocols.ledger.entry import NONCE_BYTES, Entry, PeerRef, actor_commitment, content_commitment, thread_commitment
from protocols.limits import EXPIRES_MAX_S
from protocols.messages import check_attachments, check_parts, validate_body, validate_handling, validate_part
from protocols.ports.access import Caller
from protocols.ports.carried import BlobStore
from protocols.ports.crypto import Sealer, Signer, Vault
from protocols.ports.directory import DirectorySource
from protocols.ports.rows import (
    Arrived,
    Claimed,
    IdempotencyRow,
    OutboxRow,
    Resealing,
    SealedRow,
)
from protocols.ports.store import ExchangeStore
from protocols.ports.world import Clock, Ids
from protocols.problems import Fault, ProblemError
from protocols.strict import b64u, dump_json
from protocols.thread import said_of

EXPIRES_DEFAULT = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """An attachment that was uploaded before: what it is called, and the key that the upload gave."""

    name: str
    media_type: str
    sha256: bytes
    key: bytes
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A message before it has an id: what a client or the built-in registry wants to say."""

    type: str
    recipient: str
    thread: UUID | None
    body: dict[str, Any]
    handling: dict[str, Any]
    parts: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    in_reply_to: UUID | None = None
    due: datetime | None = None
    expires: datetime | None = None
    if_match: int | None = None
    approval: UUID | None = None
    attachments: Sequence[Attached] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Who asks, under which Idempotency-Key, and the digest of the exact request."""

    caller: Caller
    key: str
    digest: bytes


def current(directory: DirectorySource) -> Directory:
    """The version in force; `dir.stale` before the first."""
    found = directory.current
    if found is None:
        raise ProblemError("dir.stale", "no directory was accepted yet")
    return found


def check_expiry(expires: datetime, now: datetime) -> None:
    """`schema.invalid` for a time that is not within the next 90 days."""
    if not 0 < (expires - now).total_seconds() <= EXPIRES_MAX_S:
        fault = Fault("/expires", "range", "not within the next 90 days", "Give a time within 90 days from now.")
        raise ProblemError("schema.invalid", "expires is not within the next 90 days", errors=[fault])


def check_other(recipient: str, member: str) -> None:
    """`schema.invalid` where the recipient is the sender."""
    if recipient == member:
        fault = Fault("/to", "self", "the member is your own", "Name another member: see GET /v1/peers.")
        raise ProblemError("schema.invalid", "a member does not write to itself", errors=[fault])


class Submit:
    """Makes sealed messages of drafts and commits them."""

    def __init__(
        self,
        *,
        member: str,
        directory: DirectorySource,
        committer: Committer,
        signer: Signer,
        sealer: Sealer,
        vault: Vault,
        clock: Clock,
        ids: Ids,
        store: ExchangeStore,
        blobs: BlobStore,
    ) -> None:
        self._member, self._directory, self._committer, self._store = member, directory, committer, store
        self._blobs = blobs
        self._signer, self._sealer, self._vault, self._clock, self._ids = signer, sealer, vault, clock, ids

    async def repeated(self, request: Request) -> bytes | None:
        """What the same request was answered before; None for a new one, or another under its key."""
        before = await self._store.answered(request.caller.client, request.key)
        return before.answer if before is not None and before.digest == request.digest else None

    async def submit(
        self, draft: Draft, request: Request, answers: Arrived | None = None, also: Sequence[Draft] = ()
    ) -> bytes:
        """Commits the message, `also` others with it, and the `dispatched` entry of what it answers, all or none.

        The JSON answer is the same on repetition.

        ProblemError `schema.invalid`, `type.unknown`, `msg.not_permitted`, `member.unknown`, `thread.*`,
        `precondition.failed`, `idempotency.reused`, `dir.*`, `store.*`.
        """
        try:
            message, change = self.prepare(draft, actor=request.caller.actor, request=request)
            others = [self.prepare(each, actor=request.caller.actor)[1] for each in also]
            await self._uploaded([each for one in (draft, *also) for each in one.attachments])
        except ProblemError:
            before = await self.repeated(request)
            if before is None:
                raise
            return before  # it was accepted when it could be; a repetition gets the same answer
        dispatched = self.dispatched(answers) if answers else None
        messages = (change, *others)
        whole = Answered(dispatched=dispatched, messages=messages) if dispatched else change
        outcome = await self._committer.commit(whole, sum(len(each.outbox.envelope) for each in messages))
        if isinstance(outcome, Lost) and isinstance(outcome.row, IdempotencyRow):
            return outcome.row.answer
        return answer_of(message)

    async def _uploaded(self, attachments: Sequence[Attached]) -> None:
        """`schema.invalid` for an attachment that is not here as it is said to be."""
        held = await self._blobs.whole([each.sha256 for each in attachments]) if attachments else {}
        for n, each in enumerate(attachments):
            if held.get(each.sha256) != each.size:
                fix = "Upload it at POST /v1/attachments, and repeat what that answered."
                fault = Fault(f"/attachments/{n}", "missing", "no such attachment was uploaded here", fix)
                raise ProblemError("schema.invalid", "an attachment is not here", errors=[fault])

    def prepare(self, draft: Draft, *, actor: str, request: Request | None = None) -> tuple[Message, Submitted]:
        """The message of a draft and the change that commits it."""
        now = self._clock.now()
        directory = current(self._directory)
        validate_body(draft.type, draft.body, "/body")
        validate_handling(draft.handling, "/handling")
        check_parts(draft.type, draft.body, draft.parts)
        check_attachments(draft.body, {b64u(each.sha256) for each in draft.attachments}, "/body")
        for name, value in draft.parts.items():
            validate_part(name, value, f"/parts/{name}")
        check_other(draft.recipient, self._member)
        permit(directory, type_=draft.type, sender=self._member, recipient=draft.recipient)
        parts = tuple(seal_part(name, value, self._sealer) for name, value in draft.parts.items())
        message = self._message(draft, parts, now)
        payload = message.encode()
        jws = sign_message(payload, self._signer)
        content_c = content_commitment(message.salt, payload)
        keys = {each.sha256: each.key for each in draft.attachments}
        sealed = self._seal(message, jws, parts, keys, content_c, actor, self._signer.kid)
        outbox = OutboxRow(
            id=message.id,
            thread=message.thread,
            recipient=draft.recipient,
            type=draft.type,
            created=now,
            expires=message.expires,
            urgent=draft.body.get("priority") == "URGENT",
            pair_seq=0,
            origin="",
            index=0,
            digest=sealed.digest,
            content_c=content_c,
            kid=self._signer.kid,
            seal_kid=sealed.kid,
            actor=actor,
            envelope=sealed.envelope,
            due=now,
        )
        forwards = message.body.get("referred", {}).get("mode") == "ANSWERER_FORWARDS"  # the words of another
        content = at_rest(self._vault, message, jws, parts, keys, last_day(message) if forwards else None)
        return message, Submitted(
            entry=sealed.entry,
            outbox=outbox,
            content=content,
            said=said_of(message),
            if_match=draft.if_match,
            used=self._used(draft.approval, content_c) if draft.approval else None,
            idempotency=_idempotency(request, message) if request else None,
        )

    def _seal(
        self,
        message: Message,
        jws: bytes,
        parts: tuple[Part, ...],
        keys: Mapping[bytes, bytes],
        content_c: bytes,
        actor: str,
        kid: str,
    ) -> "_Sealed":
        """The envelope to the recipient's current seal key and its `sent` entry."""
        now, directory = self._clock.now(), current(self._directory)
        key = directory.seal_key(message.recipient, now)
        envelope = seal(
            jws=jws, message=message, parts=parts, keys=keys, kid=key.key.kid, public=key.key.public, sealer=self._sealer,
        )  # fmt: skip
        digest = sha256(envelope).digest()
        entry = Entry(
            kind="sent",
            at=now,
            n=self._sealer.random(NONCE_BYTES),
            id=message.id,
            sender=self._member,
            recipient=message.recipient,
            kid=kid,
            seal_kid=key.key.kid,
            suite=SUITE,
            envelope=digest,
            content_c=content_c,
            thread_c=thread_commitment(message.salt, message.thread),
            actor_c=actor_commitment(message.salt, actor),
            dir=directory.ref,
        )
        return _Sealed(envelope=envelope, digest=digest, kid=key.key.kid, entry=entry)

    def reseal(self, claimed: Claimed, content: Content, first: PeerRef) -> Resealed:
        """The same JWS to the recipient's newer seal key; `sent` once more, naming our `first` entry."""
        sealed = self._seal(
            content.message, content.jws, content.parts, content.keys, claimed.content_c, claimed.actor, claimed.kid
        )
        return Resealed(
            entry=replace(sealed.entry, peer=first, pair_seq=claimed.pair_seq),
            outbox=Resealing(
                id=claimed.id,
                origin="",
                index=0,
                pair_seq=claimed.pair_seq,
                digest=sealed.digest,
                seal_kid=sealed.kid,
                envelope=sealed.envelope,
            ),
            before=SealedRow(id=claimed.id, digest=claimed.digest, origin=claimed.origin, index=claimed.index),
        )

    def _message(self, draft: Draft, parts: tuple[Part, ...], now: datetime) -> Message:
        expires = draft.expires or now + EXPIRES_DEFAULT
        check_expiry(expires, now)
        return Message(
            id=self._ids.uuid7(),
            type=draft.type,
            sender=self._member,
            recipient=draft.recipient,
            thread=draft.thread or self._ids.uuid7(),
            in_reply_to=draft.in_reply_to,
            created=now,
            expires=expires,
            due=draft.due or self._due(draft, now),
            handling=draft.handling,
            salt=self._sealer.random(SALT_BYTES),
            parts=tuple(part.ref for part in parts),
            attachments=tuple(map(_ref, draft.attachments)),
            body=draft.body,
        )

    def _used(self, approval: UUID, content_c: bytes) -> Entry:
        nonce = self._sealer.random(NONCE_BYTES)
        return Entry(
            kind="admin", at=self._clock.now(), n=nonce, id=approval, content_c=content_c, code="approval.used"
        )

    def _due(self, draft: Draft, now: datetime) -> datetime | None:
        if draft.type != "trace.request":
            return None
        urgent = draft.body.get("priority") == "URGENT"
        found = current(self._directory).answer_due(self._member, draft.recipient, now, urgent=urgent)
        return found.replace(microsecond=found.microsecond // 1000 * 1000)

    def dispatched(self, arrived: Arrived) -> Dispatched:
        """The change that says the member's own system has an arrived message."""
        entry = Entry(
            kind="dispatched",
            at=self._clock.now(),
            n=self._sealer.random(NONCE_BYTES),
            id=arrived.id,
            sender=arrived.sender,
            recipient=self._member,
            content_c=arrived.content_c,
        )
        return Dispatched(entry=entry, sender=arrived.sender, id=arrived.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sealed:
    envelope: bytes
    digest: bytes
    kid: str
    entry: Entry


def _ref(attached: Attached) -> AttachmentRef:
    return AttachmentRef(
        name=attached.name, sha256=attached.sha256, key_sha256=sha256(attached.key).digest(), size=attached.size,
        media_type=attached.media_type,
    )  # fmt: skip


def answer_of(message: Message) -> bytes:
    """What a client is told about an accepted message."""
    return dump_json({"id": str(message.id), "thread": str(message.thread), "type": message.type, "state": "accepted"})


def _idempotency(request: Request, message: Message) -> IdempotencyRow:
    return IdempotencyRow(
        client=request.caller.client,
        key=request.key,
        digest=request.digest,
        answer=answer_of(message),
        at=message.created,
    )
