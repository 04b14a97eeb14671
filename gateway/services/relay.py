"""Relay: what a hub does. It stores and forwards parcels that it cannot read, and carries the receipts back.

A hub can delay; it cannot read, alter, forge or redirect: parcel and receipt prove themselves to both ends, and `relayed`
is the hub's word alone. What the ends say to each other about checkpoints (`hello`) goes through unchanged.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from gateway.services.changes import Relayed
from gateway.services.commit import Committer, Done
from gateway.services.judge import Proven
from gateway.services.link import Key, Linking
from gateway.services.prove import Prove
from gateway.services.receive import prove_parcel
from gateway.services.settle import proven_places
from gateway.services.submit import current
from gateway.services.wake import woken
from protocols.directory import Directory
from protocols.exchange.envelope import parse_envelope
from protocols.exchange.lines import Answer, Hello, Parcel, Post, ProblemLine, Receipt, encode_post, merge, parse_post
from protocols.ledger.checkpoint import Checkpoint
from protocols.ledger.entry import NONCE_BYTES, RECEIPT_KINDS, Entry, parse_entry
from protocols.limits import PARCELS_MAX, POST_BYTES_MAX
from protocols.ports.carried import RelayStore
from protocols.ports.crypto import Sealer
from protocols.ports.directory import DirectorySource
from protocols.ports.rows import RelayRow
from protocols.ports.transport import Transport
from protocols.ports.world import Clock, Ids
from protocols.problems import CODES, ProblemError

_log = structlog.get_logger()
_BYTES = POST_BYTES_MAX // 2
_RETRY_MAX_S = 900.0
_LOOK_S = 5.0
_BLOBS = "msg.blob_missing"


class Relay:
    """Carries between two others. Every node has one; only a hub of the directory has anything to do."""

    def __init__(
        self,
        *,
        member: str,
        directory: DirectorySource,
        committer: Committer,
        store: RelayStore,
        linking: Linking,
        prove: Prove,
        transport: Transport,
        sealer: Sealer,
        clock: Clock,
        ids: Ids,
        retry_first_s: float,
    ) -> None:
        self._member, self._directory, self._committer, self._store = member, directory, committer, store
        self._linking, self._prove, self._transport = linking, prove, transport
        self._sealer, self._clock, self._ids, self._retry_first_s = sealer, clock, ids, retry_first_s
        self._wake = asyncio.Event()
        self._busy: set[str] = set()
        self._failures: dict[str, int] = {}

    def wake(self) -> None:
        """Looks at what is carried now."""
        self._wake.set()

    def concerns(self, post: Post) -> bool:
        """Whether a POST is for somebody else, and we are a hub."""
        if not post.items or not self._is_hub(current(self._directory)):
            return False
        try:
            return parse_entry(post.items[0].place.entry).recipient != self._member
        except ProblemError:
            return False

    async def take(self, caller: str, post: Post) -> Post:
        """The answer to a POST of one member's parcels for another: `relayed`, or the receipt where it came already."""
        directory = current(self._directory)
        if self._committer.halted:
            raise self._committer.halted
        checkpoints = {key: self._linking.verify(*key, note, directory) for key, note in post.checkpoints.items()}
        judged = [self._judged(caller, parcel, checkpoints, directory) for parcel in post.items]
        digests = [each.digest for each in judged if isinstance(each, Proven)]
        known = {row.digest: row for row in await self._store.relays(caller, digests)} if digests else {}
        hello, fresh = post.hello, dict[bytes, bytes]()  # links once a POST, with the first parcel that goes on
        changes: list[Relayed | RelayRow | ProblemError] = []
        for parcel, proven in zip(post.items, judged, strict=True):
            if isinstance(proven, ProblemError):
                changes.append(proven)
                continue
            before = known.get(proven.digest)
            if before is not None and before.answer:  # who asks for the last time gets the receipt that came meanwhile
                changes.append(before)
                continue
            try:
                carried = self._change(proven, parcel, post, hello, directory)
                if before is None and carried.row.expires <= self._clock.now():
                    raise ProblemError("msg.expired", "the message has expired")
            except ProblemError as problem:
                changes.append(problem)
                continue
            changes.append(before or carried)
            hello = replace(hello, links={})
            if before is not None and carried.row.post:  # newer links and proof: the older may lead nowhere by now
                fresh[before.digest] = carried.row.post
        answers = await asyncio.gather(*(self._commit(each) for each in changes))
        pairs = list(zip(changes, answers, strict=True))
        ours = {each.row.digest for each, answer in pairs if isinstance(each, Relayed) and isinstance(answer, Done)}
        fresh |= {  # who lost to another POST's had the newer links
            each.row.digest: each.row.post
            for each, answer in pairs
            if isinstance(each, Relayed) and isinstance(answer, RelayRow) and not answer.answer and each.row.post
            and each.row.digest not in ours
        }  # fmt: skip
        if fresh:
            await self._store.refresh_relays(fresh)
        return await self._answer(answers, post, directory)

    async def _commit(self, change: Relayed | RelayRow | ProblemError) -> Done | RelayRow | ProblemError:
        if not isinstance(change, Relayed):
            return change
        try:
            outcome = await self._committer.commit(change, len(change.row.post or b""))
        except ProblemError as problem:
            return problem
        if isinstance(outcome, Done):
            return outcome
        assert isinstance(outcome.row, RelayRow)  # a relay loses to a relay alone
        return outcome.row

    def _judged(
        self, caller: str, parcel: Parcel, checkpoints: Mapping[Key, Checkpoint], directory: Directory
    ) -> Proven | ProblemError:
        try:
            return self._proven(caller, parcel, checkpoints, directory)
        except ProblemError as problem:
            return problem

    def _proven(
        self, caller: str, parcel: Parcel, checkpoints: Mapping[Key, Checkpoint], directory: Directory
    ) -> Proven:
        entry = parse_entry(parcel.place.entry)
        recipient = entry.recipient or ""
        if entry.kind != "sent" or entry.sender != caller:
            raise ProblemError("peer.identity_mismatch", "a hub takes from a member its own parcels")
        if not directory.active(recipient) or not directory.hub(self._member, recipient):
            raise ProblemError("hub.unlisted", "the recipient's record does not list this hub")
        return prove_parcel(parcel, entry, checkpoints, recipient, None)

    def _change(self, proven: Proven, parcel: Parcel, post: Post, hello: Hello, directory: Directory) -> Relayed:
        header, sent, now = parse_envelope(proven.envelope).header, proven.entry, self._clock.now()
        if (header.sender, header.recipient, header.id) != (sent.sender, sent.recipient, sent.id):
            raise ProblemError("proof.entry", "the proof is of another message")
        note = {(parcel.place.origin, parcel.place.size): post.checkpoints[parcel.place.origin, parcel.place.size]}
        entry = Entry(
            kind="relayed", at=now, n=self._sealer.random(NONCE_BYTES), id=header.id, sender=header.sender,
            recipient=header.recipient, via=self._member, pair_seq=sent.pair_seq, envelope=proven.digest,
            dir=directory.ref, peer=proven.peer,
        )  # fmt: skip
        row = RelayRow(
            digest=proven.digest, sender=header.sender, id=header.id, recipient=header.recipient, at=now,
            expires=header.expires, origin="", index=0, due=now,
            post=encode_post(
                Post(hello=_between(hello, header.sender, header.recipient, directory), checkpoints=note, items=(parcel,))
            ),
        )  # fmt: skip
        return Relayed(entry=entry, row=row)

    async def _answer(
        self, answers: Sequence[Done | RelayRow | ProblemError], post: Post, directory: Directory
    ) -> Post:
        received = {
            row.digest: parse_post(row.answer, answer=True)
            for row in answers
            if isinstance(row, RelayRow) and row.answer
        }
        taken = [
            each
            for each in answers
            if isinstance(each, Done)
            or (isinstance(each, RelayRow) and each.digest not in received and each.problem != _BLOBS)
        ]
        places, notes = await self._prove.under_one(taken)
        back = merge(list(received.values())) if received else Post(hello=Hello(dir_version=0), checkpoints={})
        items: list[Answer] = []
        for each in answers:
            if isinstance(each, ProblemError):
                items.append(ProblemLine(code=each.code, detail=each.kind.title))
            elif isinstance(each, RelayRow) and each.digest in received:
                items += received[each.digest].items
            elif isinstance(each, RelayRow) and each.problem == _BLOBS:  # the sender alone can see to that
                items.append(ProblemLine(code=_BLOBS, detail=CODES[_BLOBS].title))
            else:
                items.append(Receipt(place=places[each.origin, each.index]))
        links = await self._prove.links_of(notes, post.hello.held)
        hello = Hello(dir_version=directory.ref.version, held=back.hello.held, links={**back.hello.links, **links})
        return Post(hello=hello, checkpoints={**back.checkpoints, **notes}, items=tuple(items))

    async def offer(self, recipient: str) -> Post | None:
        """Parcels of one sender for a recipient that fetches, the longest waiting first; None without any."""
        if not self._is_hub(current(self._directory)):
            return None
        rows = await self._claim(recipient, None)
        return merge([parse_post(row.post, answer=False) for row in rows if row.post]) if rows else None

    async def missed(self, recipient: str) -> None:
        """A recipient that fetches asked for an attachment that is not here: its senders are told when they ask again."""
        if self._is_hub(current(self._directory)):
            await self._store.blame_recipient(recipient, _BLOBS)

    async def came(self, sender: str) -> None:
        """An attachment of a sender is here whole: what waited for it goes on."""
        if self._is_hub(current(self._directory)):
            await self._store.clear_relays(sender, _BLOBS, self._clock.now())
            self.wake()

    async def take_receipts(self, caller: str, post: Post, directory: Directory) -> None:
        """Receipts of a recipient that fetched from us."""
        sender = ""
        by_id = defaultdict[UUID, dict[bytes | None, Receipt]](dict)
        for item in post.items:
            if isinstance(item, Receipt):
                entry = parse_entry(item.place.entry)
                if entry.recipient != caller or not entry.id:
                    raise ProblemError("peer.identity_mismatch", "a hub takes from a member its own receipts")
                sender = entry.sender or ""
                by_id[entry.id][entry.envelope] = item
        rows = await self._store.unanswered(sender, list(by_id))
        found = [(row, by_id[row.id]) for row in rows]  # a receipt may name the bytes that came before, by another seal
        receipts = [(row, each.get(row.digest) or next(iter(each.values()))) for row, each in found]
        await self._keep(receipts, post, directory)

    async def run(self, waits: Callable[[str], None]) -> None:
        """Forwards until cancelled; `waits` is told of recipients that fetch."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                try:
                    directory = current(self._directory)
                    due = await self._store.due_relays(self._clock.now()) if self._is_hub(directory) else []
                    for recipient in due:
                        if not directory.reachable(recipient, self._member):
                            waits(recipient)
                        elif recipient not in self._busy:
                            self._busy.add(recipient)
                            group.create_task(self._drain(recipient))
                except Exception:  # the store may be away for a while; the loop outlives it
                    _log.exception("relays_unreadable")
                await woken(self._wake, min(_LOOK_S, self._retry_first_s))

    async def _drain(self, recipient: str) -> None:
        try:
            while await self._forward(recipient):
                self._failures.pop(recipient, None)
        except ProblemError as problem:
            self._failures[recipient] = self._failures.get(recipient, 0) + 1
            _log.warning("forward_failed", peer=recipient, code=problem.code)
        except Exception:  # one recipient's failure is its own
            _log.exception("forward_failed", peer=recipient)
        finally:
            self._busy.discard(recipient)

    async def _forward(self, recipient: str) -> bool:
        """One POST of one sender's parcels; whether it brought a receipt."""
        directory = current(self._directory)
        await self._linking.check_member(recipient, directory)
        rows = await self._claim(recipient, self._clock.now())
        if not rows:
            return False
        posts = [parse_post(row.post, answer=False) for row in rows if row.post]
        answer = parse_post(
            await self._transport.post(directory.records[recipient], encode_post(merge(posts))), answer=True
        )
        if len(answer.items) != len(rows):
            raise ProblemError("peer.answer", "not one answer a parcel")
        answered = list(zip(rows, answer.items, strict=True))
        problems = {row.digest: item.code for row, item in answered if isinstance(item, ProblemLine)}
        if problems:
            await self._store.blame_relays(problems)
        receipts = [(row, item) for row, item in answered if isinstance(item, Receipt)]
        return await self._keep(receipts, answer, directory)

    async def _claim(self, recipient: str, now: datetime | None) -> list[RelayRow]:
        wait = min(_RETRY_MAX_S, self._retry_first_s * 2 ** min(self._failures.get(recipient, 0), 8))
        again = self._clock.now() + timedelta(seconds=max(self._retry_first_s, wait * self._ids.jitter()))
        return await self._store.claim_relays(recipient, now, again, PARCELS_MAX, _BYTES)

    async def _keep(self, receipts: Sequence[tuple[RelayRow, Receipt]], answer: Post, directory: Directory) -> bool:
        """Keeps the receipts that hold and sends them on to their sender, who else gets them when it asks again; whether any."""
        checkpoints = {key: self._linking.verify(*key, note, directory) for key, note in answer.checkpoints.items()}
        proven = proven_places([item for _, item in receipts], checkpoints)
        kept, hello = dict[bytes, Post](), answer.hello  # links once, with the first receipt, and of these two alone
        for at, place in proven.items():
            row, receipt = receipts[at]
            entry = parse_entry(place.entry)
            said = (entry.sender, entry.recipient, entry.id, place.origin.rpartition("/")[0])
            if entry.kind not in RECEIPT_KINDS or said != (row.sender, row.recipient, row.id, row.recipient):
                _log.warning("receipt_refused", id=str(row.id), code="proof.entry")
                continue
            note = {(place.origin, place.size): answer.checkpoints[place.origin, place.size]}
            about = _between(hello, row.recipient, row.sender, directory)
            kept[row.digest] = Post(hello=about, checkpoints=note, items=(receipt,))
            hello = replace(hello, links={})
        if not kept:
            return False
        await self._store.answer_relays({digest: encode_post(back) for digest, back in kept.items()})
        if directory.reachable(sender := receipts[0][0].sender, self._member):
            try:
                await self._transport.receipts(directory.records[sender], encode_post(merge(list(kept.values()))))
            except ProblemError as problem:
                _log.info("receipts_wait", peer=sender, code=problem.code)
        return True

    def _is_hub(self, directory: Directory) -> bool:
        return directory.active(self._member) and "hub" in directory.admitted[self._member].roles


def _between(hello: Hello, speaker: str, hearer: str, directory: Directory) -> Hello:
    """What a hello says of one to one other: what the speaker holds of the hearer's ledgers, and links of its own."""
    theirs, ours = directory.ledgers_of(hearer), directory.ledgers_of(speaker)
    return Hello(
        dir_version=hello.dir_version,
        held={origin: sizes for origin, sizes in hello.held.items() if origin in theirs},
        links={origin: links for origin, links in hello.links.items() if origin in ours},
    )
