"""Export: collects what a thread's evidence needs from our store, our ledger, the directory and the peer's tiles."""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any
from uuid import UUID

import structlog

from gateway.services.content import Content as Opened
from gateway.services.gossip import foreign_node
from gateway.services.policy import permit_client
from gateway.services.prove import Prove, witnessed
from gateway.services.read import Read
from gateway.services.submit import current
from gateway.services.terms import no_evidence, origin_of
from protocols.directory import Directory, witness_keys
from protocols.evidence import Content, Evidence, Exchanged, write_evidence
from protocols.exchange.message import Message
from protocols.ledger.checkpoint import parse_checkpoint
from protocols.ledger.entry import DirRef, Entry, parse_entry
from protocols.ledger.linking import Link
from protocols.ledger.merkle import HASH_BYTES, consistency_path, verify_consistency
from protocols.ledger.note import bare, others
from protocols.ledger.proof import Place
from protocols.ports.access import Caller
from protocols.ports.crypto import Verifier
from protocols.ports.directory import DirectorySource
from protocols.ports.rows import ProofRow, StoredMessage
from protocols.ports.store import ExchangeStore, LedgerStore, ThreadStore
from protocols.ports.transport import Transport
from protocols.ports.world import Clock
from protocols.problems import Fault, ProblemError

_log = structlog.get_logger()
_PEER_S = 20  # for all tiles of a peer's ledger: without them its checkpoints stand alone
_Key = tuple[str, int]


class Export:
    """One thread as evidence; it takes what the store has and asks the peer only for tiles, which prove themselves."""

    def __init__(
        self,
        *,
        member: str,
        read: Read,
        threads: ThreadStore,
        ledger: LedgerStore,
        exchange: ExchangeStore,
        prove: Prove,
        transport: Transport,
        directory: DirectorySource,
        verifier: Verifier,
        clock: Clock,
    ) -> None:
        self._member, self._read, self._threads, self._ledger = member, read, threads, ledger
        self._exchange, self._prove, self._transport = exchange, prove, transport
        self._directory, self._verifier, self._clock = directory, verifier, clock

    async def export(
        self, thread: UUID, caller: Caller, *, messages: Collection[UUID] | None = None, parts: Collection[str] = ()
    ) -> bytes:
        """The evidence file. It opens `messages`, by default all, and of their restricted parts those named, `yes` for all.

        What it opens is noted as `opened` (`auth.purpose`); a part needs the scope `parts:read` (`auth.scope`).
        """
        if any(parts):
            permit_client(caller, "parts:read")
        members = [leg.counterpart for leg in await self._read.legs(thread)]
        stored = await self._threads.messages(thread)
        contents = await self._read.contents(thread)
        await self._whole([each for each in contents if messages is None or each.message.id in messages], parts)
        opened = [each.message for each in contents]
        places, notes = await self._ours(stored)
        for ref in {ref for place in places if (ref := parse_entry(place.entry).dir)}:
            if not await self._directory.files(ref, (self._member,)):
                why = f"version {ref.version} of the directory, which entries name, is not kept here"
                fault = Fault(
                    "/directory", "proof.missing", why, "Put the node's folder `directory` back from a backup."
                )
                raise ProblemError("proof.missing", why, errors=[fault])
        said = [
            await self._said(each, caller, opened, parts)
            if messages is None or each.id in messages
            else ("left out", None, dict[str, bytes]())
            for each in stored
        ]
        directory = current(self._directory)
        notes = {(origin, size): self._cosigned(note, origin, directory) for (origin, size), note in notes.items()}
        await self._theirs(stored, places, notes)
        links = await self._links(places, notes)
        cosigned = {name for (origin, _), note in notes.items() for name in others(note, origin)}
        refs = (
            {directory.ref} if cosigned else set[DirRef]()
        )  # it lists the keys that cosigned, whoever was there before
        directories, tuf = await self._versions({*members, *cosigned}, places, refs)
        about: dict[tuple[Any, ...], list[Place]] = {}
        for place in places:
            entry = parse_entry(place.entry)
            about.setdefault((entry.id, entry.sender, entry.recipient), []).append(place)
        exchanged = tuple(
            Exchanged(
                id=each.id, sender=each.sender, recipient=each.recipient, content=state, jws=jws, parts=sealed,
                places=tuple(about.get((each.id, each.sender, each.recipient), ())),
            )
            for each, (state, jws, sealed) in zip(stored, said, strict=True)
        )  # fmt: skip
        evidence = Evidence(
            thread=thread, by=self._member, at=self._clock.now(), messages=exchanged, notes=notes, links=links,
            directories=directories, tuf=tuf,
        )  # fmt: skip
        return await asyncio.to_thread(write_evidence, evidence)

    async def _whole(self, contents: Sequence[Opened], parts: Collection[str]) -> None:
        """Nothing is said to be left out that is gone although nobody ordered it."""
        for content in contents:
            wanted = [ref.name for ref in content.message.parts if "yes" in parts or ref.name in parts]
            if lost := [part for part in await self._read.missing(content) if part in wanted]:
                why = f"{', '.join(lost)} of message {content.message.id} is gone, and no entry says that it was erased"
                fix = "Bring back the newest copy of the database, or name the parts that are to be in it."
                raise ProblemError("content.erased", why, errors=[Fault("/parts", "content.erased", why, fix)])

    async def _said(
        self, stored: StoredMessage, caller: Caller, opened: Sequence[Message], parts: Collection[str]
    ) -> tuple[Content, bytes | None, dict[str, bytes]]:
        try:
            found = await self._read.content(stored.sender, stored.id)
        except ProblemError as problem:
            if problem.code != "content.erased":
                raise
            return "erased" if await self._read.erased(stored) else "missing", None, {}
        source = origin_of(opened, found.message)
        kept = source.sender != self._member and no_evidence(opened, source, self._clock.now().date())
        if kept or self._read.withheld(stored, found, opened, caller):
            return "left out", None, {}
        shown = [part for part in found.parts if "yes" in parts or part.ref.name in parts]
        for what in ("evidence", *(part.ref.name for part in shown)):
            await self._read.look([found], caller, what)
        return "here", found.jws, {part.ref.name: part.key + part.sealed for part in shown}

    async def _ours(self, stored: Sequence[StoredMessage]) -> tuple[list[Place], dict[_Key, bytes]]:
        """Every entry of ours about these messages: proven under the newest witnessed checkpoint of its ledger, else the newest."""
        places: list[Place] = []
        notes: dict[_Key, bytes] = {}
        quorum = current(self._directory).quorum_of(self._member)
        for origin in await self._ledger.heads():
            entries = await self._ledger.entries_about(origin, [each.id for each in stored])
            if not entries:
                continue
            newest = await self._prove.newest(origin)
            for under in (await witnessed(self._ledger, origin, newest.size, quorum), newest):
                held = {index: entry for index, entry in entries.items() if under and index < under.size}
                if under and held:
                    notes.setdefault((origin, under.size), under.note)
                    places += (await self._prove.places(under, held)).values()
                    entries = {index: entry for index, entry in entries.items() if index not in held}
        return places, notes

    def _cosigned(self, note: bytes, origin: str, directory: Directory) -> bytes:
        """The note with our lines, and those of others that hold under the keys that are listed now."""
        lines = b""
        for name in dict.fromkeys(others(note, origin)):
            listed = name in directory.records and name not in directory.failing
            keys = witness_keys(directory.records[name]) if listed else None
            lines += (keys.cosignature(note, self._verifier) if keys else None) or b""
        return bare(note, origin) + lines

    async def _theirs(self, stored: Sequence[StoredMessage], places: list[Place], notes: dict[_Key, bytes]) -> None:
        """Adds the proofs that the peer gave us, and those checkpoints of ours that its entries name."""
        for each in stored:
            for row in await self._threads.proofs(self._counterpart(each), each.id):
                note = await self._exchange.foreign_note(row.origin, row.size)
                if note is None:
                    raise ProblemError("proof.missing", "the checkpoint of a kept proof is not in the store")
                notes[row.origin, row.size] = bare(note, row.origin)  # nobody else's lines are known to hold
                places.append(_place(row))
                peer = parse_entry(row.entry).peer
                if peer is not None and peer.size and peer.origin.rpartition("/")[0] == self._member:
                    with suppress(ProblemError):  # a peer may name what never was: then it witnesses nothing
                        notes.setdefault((peer.origin, peer.size), (await self._prove.at(peer.origin, peer.size)).note)

    def _counterpart(self, stored: StoredMessage) -> str:
        return stored.recipient if stored.sender == self._member else stored.sender

    async def _links(self, places: Sequence[Place], notes: dict[_Key, bytes]) -> dict[str, tuple[Link, ...]]:
        links: dict[str, tuple[Link, ...]] = {}
        for origin in {place.origin for place in places}:
            sizes = sorted(size for each, size in notes if each == origin)
            if len(sizes) == 1:
                continue
            owner = origin.rpartition("/")[0]
            if owner == self._member:
                links[origin] = await self._prove.links(await self._prove.at(origin, sizes[-1]), sizes)
                continue
            try:
                async with asyncio.timeout(_PEER_S):
                    links[origin] = await self._foreign_links(owner, origin, sizes, notes)
            except (ProblemError, TimeoutError, KeyError, IndexError) as error:
                _log.warning("evidence_unlinked", peer=owner, code=getattr(error, "code", "peer.answer"))
        return links

    async def _foreign_links(
        self, member: str, origin: str, sizes: Sequence[int], notes: dict[_Key, bytes]
    ) -> tuple[Link, ...]:
        """Links made of the peer's hash tiles; what does not hold between its signed checkpoints proves nothing."""
        record = current(self._directory).records.get(member)
        if record is None:
            raise ProblemError("member.unknown", "the directory does not list the peer any more")
        node = await foreign_node(self._transport, record, origin, pairwise(sizes))
        roots = {size: parse_checkpoint(notes[origin, size]).root for size in sizes}
        links = tuple(Link(old=o, new=n, path=tuple(consistency_path(o, n, node))) for o, n in pairwise(sizes))
        for each in links:
            if not verify_consistency(
                old=each.old, new=each.new, old_root=roots[each.old], new_root=roots[each.new], path=each.path
            ):
                raise ProblemError("checkpoint.links", "the peer's tiles do not link its checkpoints")
        return links

    async def _versions(
        self, members: Collection[str], places: Iterable[Place], refs: Collection[DirRef]
    ) -> tuple[tuple[DirRef, ...], dict[str, bytes]]:
        """These directory versions and those that the entries name, as far as we accepted them, with these members' records."""
        refs = {*refs, *(entry.dir for entry in map(_entry, places) if entry.dir is not None)}
        tuf: dict[str, bytes] = {}
        known = []
        for ref in sorted(refs, key=lambda each: (each.version, each.sha256)):
            files = await self._directory.files(ref, (self._member, *members))
            if files:
                known.append(ref)
                tuf |= files
        return tuple(known), tuf


def _entry(place: Place) -> Entry:
    return parse_entry(place.entry)


def _place(row: ProofRow) -> Place:
    path = tuple(row.path[at : at + HASH_BYTES] for at in range(0, len(row.path), HASH_BYTES))
    return Place(origin=row.origin, size=row.size, index=row.index, path=path, entry=row.entry)
