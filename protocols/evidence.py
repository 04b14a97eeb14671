"""Evidence: one thread as one zip that an outsider verifies offline, from the network's pinned root alone (section 11).

Bytes in, values or ProblemError out: reading parses everything, writes it again and compares. What needs a signature, a
path or a commitment is checked in protocols/verify.py. A problem's detail begins with the name of the file that is broken.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal, get_args
from uuid import UUID

from protocols.archive import pack
from protocols.directory import Directory
from protocols.exchange.message import MEMBER_NAME, parse_jws, parse_message
from protocols.ledger.checkpoint import parse_checkpoint
from protocols.ledger.entry import (
    DirRef,
    Entry,
    PeerRef,
    count,
    digest,
    parse_entry,
    uuid7,
)
from protocols.ledger.linking import Link
from protocols.ledger.merkle import leaf_hash
from protocols.ledger.note import others
from protocols.ledger.proof import Place, format_proof, read_proof
from protocols.limits import EVIDENCE_BYTES_MAX
from protocols.problems import ProblemError
from protocols.strict import b64u, dump_json, format_time, parse_json, parse_object, parse_time

FORMAT = "tracewire evidence 1"
MANIFEST, SUMMARY = "manifest.json", "summary.txt"
Content = Literal["here", "erased", "left out", "missing"]
DirectoryFrom = Callable[[Callable[[str], bytes | None], DirRef], Directory]
"""Verifies a directory version out of TUF files by name, from a root that is pinned; ProblemError `dir.*` else."""


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
    return pack(files_of(evidence))


def files_of(evidence: Evidence) -> dict[str, bytes]:
    """Every file by its name, in the one order: the manifest, the summary, then all others by name."""
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
            files[proof_name(n, place, parse_entry(place.entry))] = format_proof(place, note)
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
    """Every entry with its witnesses: members whose own entries name it, or a later tree of the same history, or who cosigned one."""
    entries = [(place, parse_entry(place.entry)) for each in evidence.messages for place in each.places]
    named = [(_owner(place.origin), entry.peer) for place, entry in entries if entry.peer is not None]
    roots = {key: parse_checkpoint(note).root for key, note in evidence.notes.items()}
    cosigned = {key: set(others(note, key[0])) for key, note in evidence.notes.items()}
    found = []
    for n, each in enumerate(evidence.messages, 1):
        for place in each.places:
            entry = parse_entry(place.entry)
            holders = {member for member, peer in named if _holds(peer, place, roots, evidence.links)}
            for (origin, size), names in cosigned.items():
                tree = PeerRef(origin=origin, size=size, root=roots[origin, size])
                holders |= names if _holds(tree, place, roots, evidence.links) else set()
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
def within(name: str) -> Iterator[None]:
    """Names the file in what goes wrong inside."""
    try:
        yield
    except ProblemError as problem:
        raise ProblemError(problem.code, f"{name}: {problem.detail or problem.kind.title}") from None


def bad(name: str, detail: str) -> ProblemError:
    """What is wrong with a file."""
    return ProblemError("evidence.invalid", f"{name[:200]}: {detail}")


def read_files(files: Mapping[str, bytes]) -> Evidence:
    """What the files hold, parsed and as the manifest lists them; nothing is verified yet."""
    if next(iter(files), "") != MANIFEST:
        raise bad(MANIFEST, "it is not the first file")
    with within(MANIFEST):
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
            raise bad(name, "the file is missing")
        if name != MANIFEST and listed.get(name) != b64u(sha256(files[name]).digest()):
            raise bad(name, "it is not the file that the manifest lists")
    return evidence_of.evidence()


def compare(files: Mapping[str, bytes], again: Mapping[str, bytes]) -> None:
    """`evidence.invalid` names a file that is not what would be written again; summary and manifest tell of the rest."""
    for name in [*(each for each in (*files, *again) if each not in (MANIFEST, SUMMARY)), SUMMARY, MANIFEST]:
        if files.get(name) != again.get(name):
            raise bad(name, "it does not say what the other files say")
    if list(files) != list(again):
        raise bad(MANIFEST, "the files stand in another order")


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
            with within(f"checkpoints/{name}"):
                found = parse_checkpoint(data)
                if name != f"{found.origin}/{found.size}":
                    raise ProblemError("evidence.invalid", "it is of another ledger or size than its name")
            notes[found.origin, found.size] = data
        links = {}
        for name, data in self._under("links/"):
            with within(f"links/{name}"):
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
            with within(f"proofs/{n:04}/{name}"):
                place, _ = read_proof(data)
                if f"proofs/{n:04}/{name}" != proof_name(n, place, parse_entry(place.entry)):
                    raise ProblemError("evidence.invalid", "it is of another entry than its name")
                if f"checkpoints/{place.origin}/{place.size}" not in self._files:
                    raise ProblemError("proof.missing", "its checkpoint is not among the checkpoints")
            places.append(place)
        jws = self._files.get(f"messages/{n:04}.jws")
        if jws is not None:
            with within(f"messages/{n:04}.jws"):
                parse_message(parse_jws(jws).payload)
        if (content == "here") != (jws is not None) or content not in get_args(Content):
            raise bad(f"messages/{n:04}.jws", "the manifest says otherwise about this content")
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


def proof_name(n: int, place: Place, entry: Entry) -> str:
    """The file of an entry's proof about message `n`."""
    return f"proofs/{n:04}/{place.origin}/{place.index}.{entry.kind}.tlog-proof"
