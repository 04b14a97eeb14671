"""Judges one proven parcel: opens it and decides what its ledger entry says (docs/protocol.md section 4, Receive)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from gateway.services.changes import Received, Refused
from gateway.services.content import at_rest, last_day
from gateway.services.policy import permit
from protocols.directory import SUITE, Directory, Key
from protocols.exchange.blobs import sealed_bytes
from protocols.exchange.envelope import (
    Envelope,
    Opened,
    attachment_keys,
    open_envelope,
    open_part,
    parse_envelope,
    parts_of,
)
from protocols.exchange.message import Message, Part, SignedMessage, parse_jws, parse_message, parse_part
from protocols.ledger.entry import NONCE_BYTES, Entry, PeerRef, content_commitment, thread_commitment
from protocols.ledger.merkle import leaf_hash
from protocols.ledger.proof import Place
from protocols.limits import CLOCK_AHEAD_MAX_S
from protocols.messages import check_attachments, check_parts, validate_body, validate_handling, validate_part
from protocols.ports.crypto import Opener, Sealer, Vault, Verifier
from protocols.ports.rows import (
    InboxRow,
    ProofRow,
    RefusalRow,
)
from protocols.ports.world import Clock
from protocols.problems import ProblemError
from protocols.strict import b64u
from protocols.thread import said_of

_HEALS = frozenset(
    ("dir.key_unknown", "msg.time", "msg.blob_missing", "store.busy", "member.unknown", "peer.suspended")
)
_PUBLIC = frozenset(("schema.invalid", "type.unknown", "msg.expired", "msg.not_permitted"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """A parcel whose sender's proof holds: the `sent` entry, its place, the root it was proven under, exact bytes.

    `via` is the hub that handed it over.
    """

    entry: Entry
    place: Place
    root: bytes
    envelope: bytes
    digest: bytes
    note: bytes
    via: str | None = None

    @property
    def peer(self) -> PeerRef:
        """How our entry names theirs."""
        place = self.place
        leaf = leaf_hash(place.entry)
        return PeerRef(origin=place.origin, index=place.index, leaf=leaf, size=place.size, root=self.root)


class Judge:
    """Opens parcels with our seal keys; nothing here waits or writes."""

    def __init__(
        self,
        *,
        member: str,
        opener: Opener,
        sealer: Sealer,
        vault: Vault,
        verifier: Verifier,
        clock: Clock,
        attachment_max: int,
    ) -> None:
        """`attachment_max` is in bytes of the ciphertext."""
        self._member, self._opener, self._sealer = member, opener, sealer
        self._vault, self._verifier, self._clock = vault, verifier, clock
        self._attachment_max = attachment_max

    def judge(self, proven: Proven, directory: Directory, arrived: InboxRow | None) -> Received | Refused | InboxRow:
        """The change that answers the parcel for good; ProblemError where it may heal.

        `arrived` is what came under this id before. The same content, sealed again, gives it back: its receipt is
        repeated, and a conflict is one, before signature and expiry are looked at (docs/protocol.md section 4).
        """
        try:
            envelope = parse_envelope(proven.envelope)
            opened = open_envelope(envelope, self._opener)
        except ProblemError as problem:
            return self.refused(proven, directory, "env.invalid", problem.code)
        content_c = None  # stated by us only once we have recomputed it
        try:
            jws = parse_jws(opened.jws)
            message = parse_message(jws.payload)
            content_c = self._committed(proven, message, jws)
            self._equal(proven, envelope, jws, message)
            if arrived is not None:
                same = arrived.content_c == proven.entry.content_c
                return arrived if same else self.conflict(proven, directory, arrived)
            self._authentic(proven, jws, message, directory)
            parts, keys = self._parts(message, opened), attachment_keys(message, opened)
            self._acceptable(message, directory)
        except ProblemError as problem:
            if problem.code in _HEALS:
                raise
            code = problem.code if problem.code in _PUBLIC else "env.invalid"
            return self.refused(proven, directory, code, problem.code, read=True, content_c=content_c)
        return self._received(proven, opened.jws, message, parts, keys, directory)

    def _committed(self, proven: Proven, message: Message, jws: SignedMessage) -> bytes:
        content_c = content_commitment(message.salt, jws.payload)
        if content_c != proven.entry.content_c:
            raise ProblemError("env.content", "the entry commits to another content")
        return content_c

    def _equal(self, proven: Proven, envelope: Envelope, jws: SignedMessage, message: Message) -> None:
        """Equal must be what entry, header and message say (docs/protocol.md section 4)."""
        entry, header = proven.entry, envelope.header
        if not message.sender == header.sender == entry.sender:
            raise ProblemError("env.sender_mismatch", "the sender differs between layers")
        if not message.recipient == header.recipient == entry.recipient == self._member:
            raise ProblemError("env.recipient_mismatch", "the recipient differs between layers")
        if message.sender.partition("/")[0] != self._member.partition("/")[0]:
            raise ProblemError("env.network", "the message is of another network")
        if not message.id == header.id == entry.id or message.expires != header.expires:
            raise ProblemError("env.header", "id or expiry differ between layers")
        if (jws.kid, header.kid, SUITE) != (entry.kid, entry.seal_kid, entry.suite):
            raise ProblemError("env.kid", "the entry names other keys")
        if thread_commitment(message.salt, message.thread) != entry.thread_c:
            raise ProblemError("env.content", "the entry commits to another thread")

    def _authentic(self, proven: Proven, jws: SignedMessage, message: Message, directory: Directory) -> None:
        entry = proven.entry
        seal_key = directory.seal_keys.get(entry.seal_kid or "")
        again = entry.peer is not None and seal_key is not None and seal_key.not_before > message.created
        if not again and entry.at - message.created > timedelta(seconds=CLOCK_AHEAD_MAX_S):
            raise ProblemError("env.header", "the message is older than its entry")
        key = directory.message_keys.get(jws.kid)
        if key is None or message.created < key.not_before:
            raise ProblemError("dir.key_unknown", "the signing key is not in our directory, or not valid yet")
        if key.member != message.sender:
            raise ProblemError("env.sender_mismatch", "the signing key is another member's")
        if not _usable(key, proven.place, message.created):
            raise ProblemError("env.kid", "the signing key was expired or revoked when the message was logged")
        if not self._verifier.verify("Ed25519", key.key.public, jws.signed, jws.signature):
            raise ProblemError("env.signature", "the signature does not hold")

    def _parts(self, message: Message, opened: Opened) -> tuple[Part, ...]:
        parts = parts_of(message.parts, opened)
        for part in parts:
            validate_part(part.ref.name, parse_part(open_part(part, self._opener)))
        return parts

    def _acceptable(self, message: Message, directory: Directory) -> None:
        now = self._clock.now()
        if message.expires <= now:
            raise ProblemError("msg.expired", "the message has expired")
        if message.created > now + timedelta(seconds=CLOCK_AHEAD_MAX_S):
            raise ProblemError("msg.time", "the message was made in our future")
        validate_body(message.type, message.body)
        check_parts(message.type, message.body, [part.name for part in message.parts])
        referred = message.body.get("referred")
        if referred and (
            message.in_reply_to is None
            or (referred["mode"] == "ANSWERER_FORWARDS" and referred["by"] != message.sender)
        ):
            raise ProblemError("schema.invalid", "the request does not say which referral led to it")
        validate_handling(message.handling)
        permit(directory, type_=message.type, sender=message.sender, recipient=message.recipient)
        check_attachments(message.body, {b64u(each.sha256) for each in message.attachments}, "")
        if any(not sealed_bytes(1) <= each.size <= self._attachment_max for each in message.attachments):
            raise ProblemError("schema.invalid", "an attachment is longer than this node takes, or too short to be one")

    def _received(
        self,
        proven: Proven,
        jws: bytes,
        message: Message,
        parts: tuple[Part, ...],
        keys: Mapping[bytes, bytes],
        directory: Directory,
    ) -> Received:
        now, sent = self._clock.now(), proven.entry
        entry = Entry(
            kind="received", at=now, n=self._sealer.random(NONCE_BYTES), id=sent.id, sender=sent.sender,
            recipient=sent.recipient, pair_seq=sent.pair_seq, kid=sent.kid, seal_kid=sent.seal_kid, suite=sent.suite,
            envelope=proven.digest, content_c=sent.content_c, thread_c=sent.thread_c, dir=directory.ref,
            peer=proven.peer, via=proven.via,
        )  # fmt: skip
        row = InboxRow(
            sender=message.sender, id=message.id, thread=message.thread, type=message.type, received=now, origin="",
            index=0, digest=proven.digest, content_c=sent.content_c or b"",
        )  # fmt: skip
        return Received(
            entry=entry,
            inbox=row,
            proof=proof_row(message.sender, proven.place, message.id, proven.digest),
            content=at_rest(self._vault, message, jws, parts, keys, last_day(message)),
            attachments=message.attachments,
            said=said_of(message, acknowledge_by=directory.acknowledge_due(now)),
        )

    def refused(
        self,
        proven: Proven,
        directory: Directory,
        code: str,
        cause: str,
        *,
        read: bool = False,
        content_c: bytes | None = None,
    ) -> Refused:
        """A `refused` entry for exactly these bytes; `code` is public, `cause` stays local."""
        return self._refusal(proven, directory, "refused", code, cause, read=read, content_c=content_c)

    def conflict(self, proven: Proven, directory: Directory, first: InboxRow) -> Refused:
        """An `id_conflict` entry: evidence against the sender."""
        peer = PeerRef(origin=first.origin, index=first.index)
        return self._refusal(
            proven,
            directory,
            "id_conflict",
            "id.conflict",
            "id.conflict",
            read=True,
            content_c=proven.entry.content_c,
            first=peer,
        )

    def _refusal(
        self,
        proven: Proven,
        directory: Directory,
        kind: str,
        code: str,
        cause: str,
        *,
        read: bool,
        content_c: bytes | None,
        first: PeerRef | None = None,
    ) -> Refused:
        now, sent = self._clock.now(), proven.entry
        assert sent.id is not None  # `sent` has both
        assert sent.sender is not None
        entry = Entry(
            kind=kind, at=now, n=self._sealer.random(NONCE_BYTES), id=sent.id, sender=sent.sender,
            recipient=sent.recipient, pair_seq=sent.pair_seq, envelope=proven.digest, dir=directory.ref,
            peer=proven.peer, via=proven.via, content_c=content_c, first=first,
            code=None if first else code, read=None if first else read,
        )  # fmt: skip
        row = RefusalRow(
            sender=sent.sender, id=sent.id, digest=proven.digest, kind=kind, code=code, cause=cause, at=now, origin="",
            index=0, content_c=content_c,
        )  # fmt: skip
        return Refused(entry=entry, refusal=row, proof=proof_row(sent.sender, proven.place, sent.id, proven.digest))


def proof_row(peer: str, place: Place, id_: UUID, digest: bytes) -> ProofRow:
    """A verified place of a peer's ledger as it is kept."""
    return ProofRow(
        peer=peer, id=id_, digest=digest, origin=place.origin, index=place.index, size=place.size,
        path=b"".join(place.path), entry=place.entry,
    )  # fmt: skip


def _usable(key: Key, place: Place, created: datetime) -> bool:
    """A revocation names a ledger position: what was logged before it stays good."""
    if key.not_after is not None and created >= key.not_after:
        return False
    return key.revoked is None or (key.revoked.origin == place.origin and place.index < key.revoked.size)
