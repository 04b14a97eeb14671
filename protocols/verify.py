"""Verifies evidence offline, from the network's pinned root alone (docs/protocol.md section 11); each problem names a file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise

from protocols.archive import unpack
from protocols.directory import Directory, Ledger, witness_keys
from protocols.evidence import (
    MANIFEST,
    DirectoryFrom,
    Evidence,
    Exchanged,
    Report,
    bad,
    compare,
    facts,
    files_of,
    proof_name,
    read_files,
    within,
)
from protocols.exchange.message import Message, SignedMessage, parse_jws, parse_message
from protocols.ledger.checkpoint import Checkpoint, verify_checkpoint
from protocols.ledger.entry import (
    RECEIPT_KINDS,
    DirRef,
    Entry,
    content_commitment,
    erases,
    parse_entry,
    thread_commitment,
)
from protocols.ledger.linking import Link
from protocols.ledger.merkle import leaf_hash, verify_consistency
from protocols.ledger.note import others
from protocols.ledger.proof import Place
from protocols.ports.crypto import Verifier
from protocols.problems import ProblemError

_ROOT = re.compile(r"[1-9][0-9]{0,8}\.root\.json", re.ASCII)
_PART_KEY_BYTES = 32
_RECIPIENTS = RECEIPT_KINDS | {"dispatched"}

_SENDERS = frozenset(("sent", "receipt", "undelivered"))


def verify_evidence(data: bytes, *, verifier: Verifier, directory: DirectoryFrom) -> Report:
    """What a file proves; ProblemError names the file that is broken and why."""
    files = unpack(data)
    report = _Check(read_files(files), verifier, directory).report()
    compare(files, files_of(report.evidence))
    return report


@dataclass(slots=True)
class _Check:
    """Everything of one evidence file that needs a signature, a path or a commitment."""

    evidence: Evidence
    verifier: Verifier
    directory: DirectoryFrom
    versions: dict[DirRef, Directory] = field(default_factory=dict)
    checkpoints: dict[tuple[str, int], Checkpoint] = field(default_factory=dict)

    def report(self) -> Report:
        """What holds."""
        self._directories()
        for (origin, size), note in self.evidence.notes.items():
            with within(f"checkpoints/{origin}/{size}"):
                self.checkpoints[origin, size] = self._checkpoint(origin, note)
        chains = self._chains()
        for n, each in enumerate(self.evidence.messages, 1):
            entries = [self._proven(n, each, place) for place in each.places]
            self._answered(n, entries)
            erased = any(self._erases(place, entry) for place, entry in entries)
            if each.content == "erased" and not erased:
                raise bad(MANIFEST, f"message {n} is said to be erased, and no entry of who exported this says so")
            if each.content == "missing" and erased:
                raise bad(MANIFEST, f"message {n} is said to be missing, and an entry says that it was erased")
            if each.jws is not None:
                self._content(n, each, entries, each.jws)
        versions = [ref.version for ref in self.versions]
        older = {member for version in self.versions.values() for member in version.failing}
        return Report(
            evidence=self.evidence, facts=facts(self.evidence), chains=chains,
            judged=(min(versions), max(versions)), older=tuple(sorted(older)),
        )  # fmt: skip

    def _directories(self) -> None:
        used: set[str] = set()

        def read(name: str) -> bytes | None:
            used.add(name)
            return self.evidence.tuf.get(name)

        for ref in self.evidence.directories:
            self.versions[ref] = self.directory(read, ref)
        pinned = min((int(name.partition(".")[0]) for name in used if _ROOT.fullmatch(name)), default=0)
        for name in self.evidence.tuf.keys() - used:
            # a root older than the pinned one proves nothing and is not needed
            if not _ROOT.fullmatch(name) or int(name.partition(".")[0]) > pinned:
                raise bad(f"directory/{name}", "no version needs this file")
        if not self.versions:
            raise bad(MANIFEST, "there is no directory version")

    def _newest_first(self) -> list[Directory]:
        """A key or ledger counts as the newest version here that lists it says: it knows of revocations and ends."""
        return [self.versions[ref] for ref in sorted(self.versions, key=lambda ref: ref.version, reverse=True)]

    def _checkpoint(self, origin: str, note: bytes) -> Checkpoint:
        names = others(note, origin)
        for name in names:
            records = (each.records[name] for each in self._newest_first() if name in each.records)
            keys = next(filter(None, map(witness_keys, records)), None)
            if names.count(name) != 2 or keys is None or keys.cosignature(note, self.verifier) is None:
                raise ProblemError(
                    "proof.policy", "a cosignature does not hold, or is of nobody that is listed as a witness"
                )
        return verify_checkpoint(note, self._ledger(origin).keys, self.verifier)

    def _ledger(self, origin: str) -> Ledger:
        for each in self._newest_first():
            if origin in each.ledgers:
                return each.ledgers[origin]
        raise ProblemError("proof.origin", "no directory version here lists this ledger")

    def _chains(self) -> dict[str, bool]:
        chains = {}
        for origin in {origin for origin, _ in self.evidence.notes}:
            sizes = sorted(size for each, size in self.evidence.notes if each == origin)
            links = self.evidence.links.get(origin, ())
            with within(f"links/{origin}.json"):
                self._linked(origin, sizes, links)
            chains[origin] = len(sizes) == 1 or bool(links)
        for origin in self.evidence.links.keys() - chains.keys():
            raise bad(f"links/{origin}.json", "there is no checkpoint of this ledger")
        return dict(sorted(chains.items()))

    def _linked(self, origin: str, sizes: Sequence[int], links: Sequence[Link]) -> None:
        if links and [(each.old, each.new) for each in links] != list(pairwise(sizes)):
            raise ProblemError("checkpoint.links", "the links do not lead along all checkpoints")
        for each in links:
            old, new = self.checkpoints[origin, each.old], self.checkpoints[origin, each.new]
            if not verify_consistency(old=each.old, new=each.new, old_root=old.root, new_root=new.root, path=each.path):
                raise ProblemError("checkpoint.links", f"the link from {each.old} to {each.new} does not hold")

    def _proven(self, n: int, said: Exchanged, place: Place) -> tuple[Place, Entry]:
        entry = parse_entry(place.entry)
        with within(proof_name(n, place, entry)):
            ledger = self._ledger(place.origin)
            if ledger.last is not None and place.index >= ledger.last.size:
                raise ProblemError("proof.origin", "the directory lists the ledger's end before this entry")
            if ledger.member == self.evidence.by and entry.dir is not None and entry.dir not in self.versions:
                raise ProblemError("evidence.invalid", "the directory version that the entry names is not here")
            place.check(self.checkpoints[place.origin, place.size])
            if (entry.id, entry.sender, entry.recipient) != (said.id, said.sender, said.recipient):
                raise ProblemError("proof.entry", "the entry is of another message")
            speakers = (_SENDERS, said.sender), (_RECIPIENTS, said.recipient)
            if ledger.member not in (said.sender, said.recipient) or any(
                entry.kind in kinds and ledger.member != member for kinds, member in speakers
            ):
                raise ProblemError("proof.entry", "such an entry stands in the other member's ledger")
        return place, entry

    def _erases(self, place: Place, entry: Entry) -> bool:
        return erases(entry) and self._ledger(place.origin).member == self.evidence.by

    def _answered(self, n: int, entries: Sequence[tuple[Place, Entry]]) -> None:
        """Every answer comes with the entry that it answers."""
        leaves = {(place.origin, place.index, leaf_hash(place.entry)): entry for place, entry in entries}
        if not any(entry.kind == "sent" for _, entry in entries):
            raise bad(f"proofs/{n:04}", "the proof that the message was sent is missing")
        for place, entry in entries:
            if entry.peer is None or entry.kind == "sent":
                continue
            peer = entry.peer
            answered = leaves.get((peer.origin, peer.index or 0, peer.leaf or b""))
            if answered is None or answered.pair_seq != entry.pair_seq:
                raise bad(proof_name(n, place, entry), "the proof of the entry that it answers is missing")
            if entry.kind != "receipt" and answered.envelope != entry.envelope:
                raise bad(proof_name(n, place, entry), "it answers other bytes than those that were sent")

    def _content(self, n: int, said: Exchanged, entries: Sequence[tuple[Place, Entry]], jws: bytes) -> None:
        with within(f"messages/{n:04}.jws"):
            signed = parse_jws(jws)
            message = parse_message(signed.payload)
            if (message.id, message.sender, message.recipient) != (said.id, said.sender, said.recipient):
                raise ProblemError("env.content", "the manifest names another message")
            if message.thread != self.evidence.thread:
                raise ProblemError("msg.correlation", "the message is of another thread")
            commitment = content_commitment(message.salt, signed.payload)
            sent = [
                (place, entry) for place, entry in entries if entry.kind == "sent" and entry.content_c == commitment
            ]
            if not sent:
                raise ProblemError("env.content", "no entry commits to this content")
            for place, entry in sent:
                self._signed(signed, message, place, entry)
        for place, entry in entries:
            with within(proof_name(n, place, entry)):
                if entry.kind in ("received", "receipt", "dispatched", "undelivered") and entry.content_c != commitment:
                    raise ProblemError("env.content", "the entry commits to another content")
                if entry.kind == "received" and entry.thread_c != thread_commitment(message.salt, message.thread):
                    raise ProblemError("env.content", "the entry commits to another thread")
        for name, data in said.parts.items():
            with within(f"messages/{n:04}.{name}.part"):
                key, sealed = data[:_PART_KEY_BYTES], data[_PART_KEY_BYTES:]
                found = sha256(sealed).digest(), sha256(key).digest()
                if not any((part.name, part.sha256, part.key_sha256) == (name, *found) for part in message.parts):
                    raise ProblemError("env.parts", "not the part, or not the key, that the message names")

    def _signed(self, signed: SignedMessage, message: Message, place: Place, entry: Entry) -> None:
        listed = (each.message_keys[signed.kid] for each in self._newest_first() if signed.kid in each.message_keys)
        key = next(listed, None)
        if key is None or key.member != message.sender or entry.kid != signed.kid:
            raise ProblemError(
                "env.kid", "the key is not one that the directory lists for the sender and the entry names"
            )
        late = key.not_after is not None and message.created >= key.not_after
        revoked = key.revoked is not None and not (
            key.revoked.origin == place.origin and place.index < key.revoked.size
        )
        if message.created < key.not_before or late or revoked:
            raise ProblemError("env.kid", "the key was not valid when the message was logged")
        if not self.verifier.verify("Ed25519", key.key.public, signed.signed, signed.signature):
            raise ProblemError("env.signature", "the sender's signature does not hold")
        if entry.thread_c != thread_commitment(message.salt, message.thread):
            raise ProblemError("env.content", "the entry commits to another thread")
