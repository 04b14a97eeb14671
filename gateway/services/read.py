"""Reading threads and the event feed for the member's own systems."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from sys import maxsize
from typing import Any
from uuid import UUID

from gateway.services.changes import Noted
from gateway.services.commit import Committer
from gateway.services.content import Content, attachment_part, open_content
from gateway.services.policy import permit_reading
from gateway.services.submit import Submit
from gateway.services.terms import withheld
from gateway.services.wake import woken
from protocols.exchange.blobs import plain_bytes
from protocols.exchange.message import AttachmentRef, Message
from protocols.ledger.entry import NONCE_BYTES, Entry, actor_commitment
from protocols.ports.access import Caller
from protocols.ports.crypto import Opener, Sealer, Vault
from protocols.ports.rows import (
    Event,
    ReviewRow,
    StoredMessage,
)
from protocols.ports.store import (
    ErasureStore,
    ThreadStore,
)
from protocols.ports.world import Clock
from protocols.problems import ProblemError
from protocols.strict import b64u, format_time, parse_json
from protocols.thread import Leg

PAGE_MAX = 200
_SHARED = "a shared record; POST /v1/registry/confirmations shows it once two people confirm the hit"
_PURPOSELESS = "content is shown to whoever says what for: get a token whose assertion names a purpose_of_use"
_UNGRANTED = "an auditor sees what another person has granted: ask with ?grant=yes"


class Read:
    """Threads with their messages; the feed, whose passing dispatches what arrived (docs/protocol.md section 3)."""

    def __init__(
        self,
        *,
        member: str,
        store: ThreadStore,
        vault: Vault,
        opener: Opener,
        sealer: Sealer,
        committer: Committer,
        submit: Submit,
        clock: Clock,
        answered: Sequence[str],
        erasures: ErasureStore,
        dispatches: bool,
    ) -> None:
        """`answered` names the message types that the built-in registry dispatches, so that the feed does not.

        Whether the feed `dispatches` anything at all: not where the node tells a system that confirms by itself.
        """
        self._member = member
        self._store, self._vault, self._committer, self._submit = store, vault, committer, submit
        self._opener, self._sealer, self._clock, self._answered = opener, sealer, clock, answered
        self._erasures, self._dispatches = erasures, dispatches
        self._changed, self._ending = asyncio.Event(), False
        self._ledger_read = dict[tuple[str, str], str]()

    def wake(self) -> None:
        """The feed has grown."""
        self._changed.set()
        self._changed = asyncio.Event()

    def end(self) -> None:
        """Nobody waits for the feed to grow any more."""
        self._ending = True
        self.wake()

    async def threads(
        self, after: tuple[datetime, UUID] | None, count: int, state: str | None, kind: str | None = None
    ) -> list[Leg]:
        """Legs, newest first; all, or those in a state, or those that a message type opened."""
        return await self._store.legs(after=after, count=min(count, PAGE_MAX), state=state, kind=kind)

    async def every(self, kind: str | None = None, count: int = maxsize) -> AsyncIterator[Leg]:
        """The newest `count` legs, page by page; all, or those that a message type opened."""
        cursor = None
        while count and (page := await self.threads(cursor, min(count, PAGE_MAX), None, kind)):
            for leg in page:
                yield leg
            cursor, count = (page[-1].opened, page[-1].thread), count - len(page)

    async def legs(self, thread: UUID) -> list[Leg]:
        """The legs of a thread, the first one first; `thread.not_found` else."""
        legs = await self._store.thread(thread)
        if not legs:
            raise ProblemError("thread.not_found", "no such thread on this node")
        return legs

    async def leg(self, thread: UUID) -> Leg:
        """The leg that opened the thread here."""
        return (await self.legs(thread))[0]

    async def contents(self, thread: UUID) -> list[Content]:
        """What is not erased of a thread, in the order in which it was said."""
        found = []
        for each in await self._store.messages(thread):
            try:
                found.append(await self.content(each.sender, each.id))
            except ProblemError as problem:
                if problem.code != "content.erased":
                    raise
        return sorted(found, key=lambda each: (each.message.created, each.message.id))  # however they came

    async def opened(self, thread: UUID) -> list[Message]:
        """The messages of these."""
        return [each.message for each in await self.contents(thread)]

    async def messages(self, thread: UUID) -> list[StoredMessage]:
        """The messages of a thread, oldest first."""
        return await self._store.messages(thread)

    async def thread(self, thread: UUID, caller: Caller, *, granted: bool = True) -> tuple[dict[str, Any], list[Entry]]:
        """The thread with its messages, and the `opened` entries to `note` before anybody is shown it.

        Content only where it is `granted` and the caller says what for; restricted parts with the scope `parts:read`.
        """
        legs, looks = await self.legs(thread), list[Entry]()
        hidden = "" if granted else _UNGRANTED
        shown: dict[str, Any] = thread_json(legs[0])
        if len(legs) > 1:
            shown["legs"] = [thread_json(leg) for leg in legs]
        hidden = hidden or ("" if caller.purpose else _PURPOSELESS)
        said = await self.opened(thread)
        shown["messages"] = [
            await self._message(each, caller, said, hidden, looks) for each in await self._store.messages(thread)
        ]
        reviews = await self._store.reviews(thread, after=None, count=1)
        if reviews and not hidden:
            shown["review"] = review_json(reviews[0])
        return shown, looks

    async def _message(
        self, stored: StoredMessage, caller: Caller, said: Sequence[Message], hidden: str, looks: list[Entry]
    ) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "id": str(stored.id),
            "type": stored.type,
            "from": stored.sender,
            "to": stored.recipient,
            "at": format_time(stored.at),
            "state": stored.delivery,
            "ledger": {"origin": stored.origin, "index": stored.index},
        }
        if stored.problem:
            shown["problem"] = stored.problem
        try:
            content = await self.content(stored.sender, stored.id)
        except ProblemError as problem:
            if problem.code != "content.erased":
                raise
            return shown | ({"erased": True} if await self.erased(stored) else {"missing": True})
        if hidden:
            return shown | {"withheld": hidden}
        if why := self.withheld(stored, content, said, caller):
            return shown | {"withheld": why}
        shown |= {"handling": content.message.handling, "body": content.message.body}
        if missing := await self.missing(content):
            shown["missing_parts"] = missing
        looks.append(self._look(content, caller, "body"))
        if content.keys:
            shown["attachments"] = [
                attachment_json(ref) for ref in content.message.attachments if ref.sha256 in content.keys
            ]
        if content.parts and "parts:read" in caller.scopes:
            looks += [self._look(content, caller, part.ref.name) for part in content.parts]
            shown["parts"] = dict(content.read_parts(self._opener))
        elif content.parts:
            shown["parts"] = [part.ref.name for part in content.parts]
        return shown

    def withheld(self, stored: StoredMessage, content: Content, said: Sequence[Message], caller: Caller) -> str:
        """Why a message is not to be read here; empty where it is."""
        if stored.type == "registry.record" and stored.recipient == self._member and stored.type in self._answered:
            return _SHARED
        today = self._clock.now().date()
        return withheld(said, content.message, member=self._member, today=today, purpose=caller.purpose)

    async def attachment(
        self, thread: UUID, message: UUID, digest: bytes, caller: Caller
    ) -> tuple[AttachmentRef, bytes]:
        """An attachment of a message and its key; that it is opened is an entry. `attachment.not_found`, `handling.forbidden`, `auth.purpose`."""
        said = await self.opened(thread)
        for stored in await self._store.messages(thread):
            if stored.id != message:
                continue
            content = await self.content(stored.sender, stored.id)
            if why := self.withheld(stored, content, said, caller):
                raise ProblemError("handling.forbidden", why)
            for ref in content.message.attachments:
                if ref.sha256 == digest and digest in content.keys:
                    await self.look([content], caller, "attachment")
                    return ref, content.keys[digest]
        raise ProblemError("attachment.not_found", "no message of this thread has it")

    async def look(self, contents: Sequence[Content], caller: Caller, what: str) -> None:
        """Notes that somebody reads `what` of these messages: before it is shown. `auth.purpose` where nobody says what for."""
        await self.note([self._look(each, caller, what) for each in contents])

    async def note(self, looks: Sequence[Entry]) -> None:
        """Commits what `thread` gave: all that somebody is about to see."""
        await asyncio.gather(*[self._committer.enqueue(Noted(entry=entry)) for entry in looks])

    async def ledger(self, caller: Caller) -> None:
        """Notes that somebody reads entries of our ledger: an entry an hour for each actor, without its name, which all others would read."""
        hour, who = f"{self._clock.now():%Y%m%d%H}", (caller.client, caller.actor)
        if self._ledger_read.get(who) == hour:
            return
        self._ledger_read = {each: at for each, at in self._ledger_read.items() if at == hour} | {who: hour}
        nonce = self._sealer.random(NONCE_BYTES)
        try:
            await self.note([Entry(kind="admin", at=self._clock.now(), n=nonce, code="ledger.read")])
        except ProblemError as problem:  # the next one notes it
            self._ledger_read.pop(who, None)
            if (
                problem.code != "ledger.rollback"
            ):  # a ledger that is signed no further says nothing, and is looked at all the more
                raise

    def _look(self, content: Content, caller: Caller, what: str) -> Entry:
        """Reading is an entry of its own: of which message what, what for, and by whom."""
        permit_reading(caller)
        message = content.message
        return Entry(
            kind="opened", at=self._clock.now(), n=self._sealer.random(NONCE_BYTES), id=message.id, sender=message.sender,
            recipient=message.recipient, content_c=content.commitment, actor_c=actor_commitment(message.salt, caller.actor),
            code=f"{what}/{caller.purpose}",
        )  # fmt: skip

    async def content(self, sender: str, id_: UUID) -> Content:
        """The opened content of one message."""
        return open_content(self._vault, await self._store.content(sender, id_))

    async def erased(self, stored: StoredMessage) -> bool:
        """Whether an entry says that its content was erased."""
        return (stored.sender, stored.id, "") in await self._erasures.erased(stored.thread)

    async def missing(self, content: Content) -> list[str]:
        """Restricted parts and attachments of a message that are gone although no entry says that they were erased."""
        message = content.message
        erased = await self._erasures.erased(message.thread) if content.absent else set()
        names = {attachment_part(ref.sha256): ref.name for ref in message.attachments}
        return [names.get(part, part) for part in content.absent if (message.sender, message.id, part) not in erased]

    async def erased_of(self, thread: UUID) -> set[UUID]:
        """The messages of a thread of which an entry says that they were erased."""
        return {id_ for _, id_, part in await self._erasures.erased(thread) if not part}

    async def reviews(self, after: tuple[datetime, UUID] | None, count: int) -> list[ReviewRow]:
        """Requests that wait for a person, oldest first."""
        return await self._store.reviews(None, after=after, count=min(count, PAGE_MAX))

    async def events(self, after: int, count: int, wait_s: float) -> list[Event]:
        """The feed after `after`, waiting for the first line up to `wait_s`. What it has passed is dispatched, where no webhook is told.

        `feed.beyond` where there is no such line yet: nobody has handled what nobody was shown.
        """
        if after and after > (last := await self._store.last_event()):
            raise ProblemError("feed.beyond", f"the newest line is {last}")
        passed = await self._store.passed(after, PAGE_MAX, self._answered) if self._dispatches else []
        changes = [self._committer.enqueue(self._submit.dispatched(arrived)) for arrived in passed]
        await asyncio.gather(*changes, return_exceptions=True)  # what fails is passed again by the next request
        changed = self._changed
        found = await self._store.events(after, min(count, PAGE_MAX))
        if not found and wait_s and not self._ending and await woken(changed, wait_s):
            found = await self._store.events(after, min(count, PAGE_MAX))
        return found


def attachment_json(ref: AttachmentRef) -> dict[str, Any]:
    """An attachment as the interface shows it; `size` is that of the file."""
    return {
        "name": ref.name, "media_type": ref.media_type, "sha256": b64u(ref.sha256), "size": plain_bytes(ref.size),
    }  # fmt: skip


def thread_json(leg: Leg) -> dict[str, Any]:
    """A leg as the interface shows it."""
    return {
        "thread": str(leg.thread),
        "counterpart": leg.counterpart,
        "role": leg.role,
        "state": leg.state,
        "version": leg.version,
        **({"due": format_time(leg.ends)} if leg.ends else {}),
        **({"acknowledge_by": format_time(leg.acknowledge_by)} if leg.acknowledge_by and leg.lapses else {}),
        "opened": format_time(leg.opened),
        "updated": format_time(leg.updated),
    }


def review_json(row: ReviewRow) -> dict[str, Any]:
    """A request that waits for a person, with its candidates."""
    return {
        "thread": str(row.thread),
        "id": str(row.id),
        "from": row.sender,
        "reason": row.reason,
        "candidates": parse_json(row.candidates.encode(), bytes_max=65_536),
        "since": format_time(row.at),
    }


def events_json(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Feed lines as the interface shows them."""
    return [
        {
            "seq": event.seq,
            "at": format_time(event.row.at),
            "kind": event.row.kind,
            "thread": str(event.row.thread),
            "counterpart": event.row.counterpart,
            "message": str(event.row.message),
        }
        for event in events
    ]
