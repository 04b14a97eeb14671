"""Evidence: one thread as one zip that an outsider verifies offline, from the network's pinned root alone (section 11).

Bytes in, verified values or ProblemError out: reading parses everything, writes it again and compares; then every
signature, path, link and commitment is checked. A problem's detail begins with the name of the file that is broken.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from itertools import pairwise
from typing import Any, Literal
from uuid import UUID

from protocols.archive import pack, unpack
from protocols.directory import Directory, Ledger
from protocols.exchange.message import MEMBER_NAME, Message, SignedMessage, parse_jws, parse_message
from protocols.ledger.checkpoint import Checkpoint, parse_checkpoint, verify_checkpoint
from protocols.ledger.entry import (
    RECEIPT_KINDS,
    DirRef,
    Entry,
    PeerRef,
    content_commitment,
    count,
    digest,
    parse_entry,
    thread_commitment,
    uuid7,
)
from protocols.ledger.linking import Link
from protocols.ledger.merkle import leaf_hash, verify_consistency
from protocols.ledger.proof import Place, format_proof, read_proof
from protocols.limits import EVIDENCE_BYTES_MAX
from protocols.ports.crypto import Verifier
from protocols.problems import ProblemError
from protocols.strict import b64u, dump_json, format_time, parse_json, parse_object, parse_time

FORMAT = "tracewire evidence 1"
MANIFEST, SUMMARY = "manifest.json", "summary.txt"
Content = Literal["here", "erased", "left out"]
DirectoryFrom = Callable[[Callable[[str], bytes | None], DirRef], Directory]
"""Verifies a directory version out of TUF files by name, from a root that is pinned; ProblemError `dir.*` else."""
_SENDERS = frozenset(("sent", "receipt", "undelivered"))
_RECIPIENTS = RECEIPT_KINDS | {"dispatched"}
_PART_KEY_BYTES = 32
_ROOT = re.compile(r"[1-9][0-9]{0,8}\.root\.json", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanged:
    """A message of the thread with all proofs held about it; `parts` hold each part's key, then the sealed part."""

    id: UUID
    sender: str
    recipient: str
    content: Content
    jws: bytes | None
    parts: Mapping[str, bytes]
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the file holds. `notes` are checkpoints by (origin, size), `links` join all sizes of a ledger or are empty."""

    thread: UUID
    by: str
    at: datetime
    messages: tuple[Exchanged, ...]
    notes: Mapping[tuple[str, int], bytes]
    links: Mapping[str, tuple[Link, ...]]
    directories: tuple[DirRef, ...]
    tuf: Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One proven entry: what `member` logged about message number `message`; graded witnessed where others hold it."""

    message: int
    kind: str
    member: str
    at: datetime
    origin: str
    index: int
    code: str
    witnesses: tuple[str, ...]

    @property
    def grade(self) -> str:
        """`witnessed` where another member's proven entry holds this one, else `signed`."""
        return "witnessed" if self.witnesses else "signed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What holds. `chains`: ledger -> whether all its checkpoints are proven to be one history.

    `judged`: the oldest and the newest directory version; `older`: members whose record here is older than listed.
    """

    evidence: Evidence
    facts: tuple[Fact, ...]
    chains: Mapping[str, bool]
    judged: tuple[int, int]
    older: tuple[str, ...]


# ---- writing


def write_evidence(evidence: Evidence) -> bytes:
    """The file's bytes; the same evidence gives the same bytes. `http.too_large` above the bound."""
    return pack(_files(evidence))


def _files(evidence: Evidence) -> dict[str, bytes]:
    files = {f"directory/{name}": data for name, data in evidence.tuf.items()}
    files |= {f"checkpoints/{origin}/{size}": note for (origin, size), note in evidence.notes.items()}
    for origin, links in evidence.links.items():
        shown = [{"old": each.old, "new": each.new, "path": [b64u(value) for value in each.path]} for each in links]
        files[f"links/{origin}.json"] = dump_json(shown)
    for n, each in enumerate(evidence.messages, 1):
        if each.jws is not None:
            files[f"messages/{n:04}.jws"] = each.jws
        files |= {f"messages/{n:04}.{name}.part": data for name, data in each.parts.items()}
        for place in each.places:
            note = evidence.notes[place.origin, place.size]
            files[_name(n, place, parse_entry(place.entry))] = format_proof(place, note)
    files = {SUMMARY: _summary(evidence).encode()} | dict(sorted(files.items()))
    return {MANIFEST: _manifest(evidence, files)} | files


def _manifest(evidence: Evidence, files: Mapping[str, bytes]) -> bytes:
    return dump_json({
        "format": FORMAT,
        "thread": str(evidence.thread),
        "by": evidence.by,
        "at": format_time(evidence.at),
        "messages": [
            {"id": str(each.id), "from": each.sender, "to": each.recipient, "content": each.content}
            for each in evidence.messages
        ],
        "directories": [{"version": ref.version, "sha256": b64u(ref.sha256)} for ref in evidence.directories],
        "files": {name: b64u(sha256(data).digest()) for name, data in files.items()},
    })  # fmt: skip


def _summary(evidence: Evidence) -> str:
    lines = [FORMAT, f"Thread {evidence.thread}, as {evidence.by} says at {format_time(evidence.at)}"]
    found = facts(evidence)
    for n, each in enumerate(evidence.messages, 1):
        said = parse_message(parse_jws(each.jws).payload) if each.jws is not None else None
        lines += ["", f"{n}. {said.type if said else 'message'} {each.sender} -> {each.recipient}, {each.id}"]
        lines += [f"   {told(fact)}" for fact in found if fact.message == n]
        if said is None:
            lines.append(f"   Content {each.content}: the entries commit to it and nobody can read it from them.")
            continue
        lines.append(f"   Made {format_time(said.created)}, expires {format_time(said.expires)}. Body and handling:")
        shown = json.dumps({"body": said.body, "handling": said.handling}, indent=2, ensure_ascii=False)
        lines += [f"   {plain(line)}" for line in shown.split("\n")]
        for part in said.parts:
            lines.append(f"   Restricted part {part.name}: {'in this file' if part.name in each.parts else 'left out'}")
    return "\n".join(lines) + "\n"


def told(fact: Fact) -> str:
    """A fact as one line."""
    code = f" ({plain(fact.code)})" if fact.code else ""
    held = f"witnessed by {', '.join(fact.witnesses)}" if fact.witnesses else "signed"
    return f"{format_time(fact.at)} {fact.member} {fact.kind}{code}: entry {fact.index} of {fact.origin}, {held}"


def plain(text: str) -> str:
    """Text of another member with what a terminal or an eye could be misled by escaped."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def facts(evidence: Evidence) -> tuple[Fact, ...]:
    """Every entry with its witnesses: members whose own entries name it, or a later tree of the same history."""
    entries = [(place, parse_entry(place.entry)) for each in evidence.messages for place in each.places]
    named = [(_owner(place.origin), entry.peer) for place, entry in entries if entry.peer is not None]
    roots = {key: parse_checkpoint(note).root for key, note in evidence.notes.items()}
    found = []
    for n, each in enumerate(evidence.messages, 1):
        for place in each.places:
            entry = parse_entry(place.entry)
            holders = {member for member, peer in named if _holds(peer, place, roots, evidence.links)}
            found.append(
                Fact(
                    message=n, kind=entry.kind, member=_owner(place.origin), at=entry.at, origin=place.origin,
                    index=place.index, code=entry.code or "", witnesses=tuple(sorted(holders - {_owner(place.origin)})),
                )
            )  # fmt: skip
    return tuple(sorted(found, key=lambda fact: (fact.message, fact.at, fact.origin, fact.index)))


def _holds(
    peer: PeerRef, place: Place, roots: Mapping[tuple[str, int], bytes], links: Mapping[str, tuple[Link, ...]]
) -> bool:
    if peer.origin != place.origin:
        return False
    if peer.index == place.index:
        return peer.leaf == leaf_hash(place.entry)
    size = peer.size or 0
    one_history = size == place.size or bool(links.get(place.origin))
    return size > place.index and one_history and roots.get((place.origin, size)) == peer.root


def _owner(origin: str) -> str:
    return origin.rpartition("/")[0]


# ---- reading


@contextmanager
def _in(name: str) -> Iterator[None]:
    """Names the file in what goes wrong inside."""
    try:
        yield
    except ProblemError as problem:
        raise ProblemError(problem.code, f"{name}: {problem.detail or problem.kind.title}") from None


def _bad(name: str, detail: str) -> ProblemError:
    return ProblemError("evidence.invalid", f"{name[:200]}: {detail}")


def _read(files: Mapping[str, bytes]) -> Evidence:
    """What the files hold, parsed and as the manifest lists them; nothing is verified yet."""
    if next(iter(files), "") != MANIFEST:
        raise _bad(MANIFEST, "it is not the first file")
    with _in(MANIFEST):
        manifest = parse_object(files[MANIFEST], bytes_max=EVIDENCE_BYTES_MAX)
        if manifest.get("format") != FORMAT:
            raise ProblemError("evidence.invalid", "another format or version")
        try:
            listed = dict(manifest["files"])
            evidence_of = _Reading(manifest, files)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ProblemError("evidence.invalid", "a member is missing or of another type") from None
    for name in [*listed, *files]:
        if name not in files:
            raise _bad(name, "the file is missing")
        if name != MANIFEST and listed.get(name) != b64u(sha256(files[name]).digest()):
            raise _bad(name, "it is not the file that the manifest lists")
    return evidence_of.evidence()


def _compare(files: Mapping[str, bytes], again: Mapping[str, bytes]) -> None:
    """`evidence.invalid` names a file that is not what would be written again; summary and manifest tell of the rest."""
    for name in [*(each for each in (*files, *again) if each not in (MANIFEST, SUMMARY)), SUMMARY, MANIFEST]:
        if files.get(name) != again.get(name):
            raise _bad(name, "it does not say what the other files say")
    if list(files) != list(again):
        raise _bad(MANIFEST, "the files stand in another order")


class _Reading:
    """Parses the files along the manifest."""

    def __init__(self, manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        self._files = files
        self._head = uuid7(manifest["thread"]), _member(manifest["by"]), parse_time(manifest["at"])
        self._messages = [
            (uuid7(each["id"]), _member(each["from"]), _member(each["to"]), each["content"])
            for each in manifest["messages"]
        ]
        if not all(self._head[1] in (sender, recipient) for _, sender, recipient, _ in self._messages):
            raise ProblemError("evidence.invalid", "whoever exported it has no part in a message")
        self._directories = tuple(
            DirRef(version=count(each["version"]), sha256=digest(each["sha256"])) for each in manifest["directories"]
        )

    def evidence(self) -> Evidence:
        """All of it."""
        thread, by, at = self._head
        notes = {}
        for name, data in self._under("checkpoints/"):
            with _in(f"checkpoints/{name}"):
                found = parse_checkpoint(data)
                if name != f"{found.origin}/{found.size}":
                    raise ProblemError("evidence.invalid", "it is of another ledger or size than its name")
            notes[found.origin, found.size] = data
        links = {}
        for name, data in self._under("links/"):
            with _in(f"links/{name}"):
                links[name.removesuffix(".json")] = _links(data)
        messages = tuple(self._message(n, *each) for n, each in enumerate(self._messages, 1))
        return Evidence(
            thread=thread, by=by, at=at, messages=messages, notes=notes, links=links, directories=self._directories,
            tuf=dict(self._under("directory/")),
        )  # fmt: skip

    def _under(self, folder: str) -> list[tuple[str, bytes]]:
        return [(name.removeprefix(folder), data) for name, data in self._files.items() if name.startswith(folder)]

    def _message(self, n: int, id_: UUID, sender: str, recipient: str, content: Content) -> Exchanged:
        places = []
        for name, data in self._under(f"proofs/{n:04}/"):
            with _in(f"proofs/{n:04}/{name}"):
                place, _ = read_proof(data)
                if f"proofs/{n:04}/{name}" != _name(n, place, parse_entry(place.entry)):
                    raise ProblemError("evidence.invalid", "it is of another entry than its name")
                if f"checkpoints/{place.origin}/{place.size}" not in self._files:
                    raise ProblemError("proof.missing", "its checkpoint is not among the checkpoints")
            places.append(place)
        jws = self._files.get(f"messages/{n:04}.jws")
        if jws is not None:
            with _in(f"messages/{n:04}.jws"):
                parse_message(parse_jws(jws).payload)
        if (content == "here") != (jws is not None) or content not in ("here", "erased", "left out"):
            raise _bad(f"messages/{n:04}.jws", "the manifest says otherwise about this content")
        parts = {
            name.removeprefix(f"{n:04}.").removesuffix(".part"): data
            for name, data in self._under("messages/")
            if name.startswith(f"{n:04}.") and name.endswith(".part")
        }
        return Exchanged(
            id=id_, sender=sender, recipient=recipient, content=content, jws=jws, parts=parts, places=tuple(places)
        )


def _member(value: object) -> str:
    """A full member name: it is shown to people, and stands in no signature where it says who exported."""
    if not isinstance(value, str) or not MEMBER_NAME.fullmatch(value):
        raise ProblemError("evidence.invalid", "not a member's full name")
    return value


def _links(data: bytes) -> tuple[Link, ...]:
    try:
        return tuple(
            Link(old=count(each["old"]), new=count(each["new"]), path=tuple(digest(value) for value in each["path"]))
            for each in parse_json(data, bytes_max=EVIDENCE_BYTES_MAX)
        )
    except (KeyError, TypeError):
        raise ProblemError("evidence.invalid", "not a list of links") from None


# ---- verifying


def verify_evidence(data: bytes, *, verifier: Verifier, directory: DirectoryFrom) -> Report:
    """What a file proves; ProblemError names the file that is broken and why."""
    files = unpack(data)
    report = _Check(_read(files), verifier, directory).report()
    _compare(files, _files(report.evidence))
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
            with _in(f"checkpoints/{origin}/{size}"):
                self.checkpoints[origin, size] = self._checkpoint(origin, note)
        chains = self._chains()
        for n, each in enumerate(self.evidence.messages, 1):
            entries = [self._proven(n, each, place) for place in each.places]
            self._answered(n, entries)
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
                raise _bad(f"directory/{name}", "no version needs this file")
        if not self.versions:
            raise _bad(MANIFEST, "there is no directory version")

    def _newest_first(self) -> list[Directory]:
        """A key or ledger counts as the newest version here that lists it says: it knows of revocations and ends."""
        return [self.versions[ref] for ref in sorted(self.versions, key=lambda ref: ref.version, reverse=True)]

    def _checkpoint(self, origin: str, note: bytes) -> Checkpoint:
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
            with _in(f"links/{origin}.json"):
                self._linked(origin, sizes, links)
            chains[origin] = len(sizes) == 1 or bool(links)
        for origin in self.evidence.links.keys() - chains.keys():
            raise _bad(f"links/{origin}.json", "there is no checkpoint of this ledger")
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
        with _in(_name(n, place, entry)):
            ledger = self._ledger(place.origin)
            if ledger.last is not None and place.index >= ledger.last.size:
                raise ProblemError("proof.origin", "the directory lists the ledger's end before this entry")
            place.check(self.checkpoints[place.origin, place.size])
            if (entry.id, entry.sender, entry.recipient) != (said.id, said.sender, said.recipient):
                raise ProblemError("proof.entry", "the entry is of another message")
            speakers = (_SENDERS, said.sender), (_RECIPIENTS, said.recipient)
            if ledger.member not in (said.sender, said.recipient) or any(
                entry.kind in kinds and ledger.member != member for kinds, member in speakers
            ):
                raise ProblemError("proof.entry", "such an entry stands in the other member's ledger")
        return place, entry

    def _answered(self, n: int, entries: Sequence[tuple[Place, Entry]]) -> None:
        """Every answer comes with the entry that it answers."""
        leaves = {(place.origin, place.index, leaf_hash(place.entry)): entry for place, entry in entries}
        if not any(entry.kind == "sent" for _, entry in entries):
            raise _bad(f"proofs/{n:04}", "the proof that the message was sent is missing")
        for place, entry in entries:
            if entry.peer is None or entry.kind == "sent":
                continue
            peer = entry.peer
            answered = leaves.get((peer.origin, peer.index or 0, peer.leaf or b""))
            if answered is None or answered.pair_seq != entry.pair_seq:
                raise _bad(_name(n, place, entry), "the proof of the entry that it answers is missing")
            if entry.kind != "receipt" and answered.envelope != entry.envelope:
                raise _bad(_name(n, place, entry), "it answers other bytes than those that were sent")

    def _content(self, n: int, said: Exchanged, entries: Sequence[tuple[Place, Entry]], jws: bytes) -> None:
        with _in(f"messages/{n:04}.jws"):
            signed = parse_jws(jws)
            message = parse_message(signed.payload)
            if (message.id, message.sender, message.recipient) != (said.id, said.sender, said.recipient):
                raise ProblemError("env.content", "the manifest names another message")
            if message.thread != self.evidence.thread:
                raise ProblemError("msg.thread", "the message is of another thread")
            commitment = content_commitment(message.salt, signed.payload)
            sent = [
                (place, entry) for place, entry in entries if entry.kind == "sent" and entry.content_c == commitment
            ]
            if not sent:
                raise ProblemError("env.content", "no entry commits to this content")
            for place, entry in sent:
                self._signed(signed, message, place, entry)
        for place, entry in entries:
            with _in(_name(n, place, entry)):
                if entry.kind in ("received", "receipt", "dispatched", "undelivered") and entry.content_c != commitment:
                    raise ProblemError("env.content", "the entry commits to another content")
                if entry.kind == "received" and entry.thread_c != thread_commitment(message.salt, message.thread):
                    raise ProblemError("env.content", "the entry commits to another thread")
        for name, data in said.parts.items():
            with _in(f"messages/{n:04}.{name}.part"):
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


def _name(n: int, place: Place, entry: Entry) -> str:
    return f"proofs/{n:04}/{place.origin}/{place.index}.{entry.kind}.tlog-proof"
