"""Converse: what a client says in a thread, held to what was said before and to its originator's handling (UN ITI 15)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from gateway.services.approve import Approve
from gateway.services.read import Read
from gateway.services.submit import Attached, Draft, Request, Submit, current
from gateway.services.terms import consented, find, handling_of
from protocols.exchange.message import Message
from protocols.messages import pointed, validate_body, validate_handling
from protocols.messages.registry import RegistrySearch
from protocols.messages.shared import Handling
from protocols.messages.terms import onward_forbidden, tightens
from protocols.messages.trace import HOPS_MAX
from protocols.ports.directory import DirectorySource
from protocols.ports.rows import Arrived
from protocols.ports.world import Clock
from protocols.problems import Fault, ProblemError
from protocols.strict import b64u, format_time
from protocols.thread import TABLE, Leg

_ANSWERS = ("trace.response", "trace.refusal", "trace.referral", "reference.answer", "registry.hit")
_FORWARDED = ("weapon", "priority", "asks", "confidentiality_guarantee")
_REPEATED = ("events", "documents", "candidates")


@dataclass(frozen=True, slots=True, kw_only=True)
class Saying:
    """What a client says in a thread; `to` and `in_reply_to` where there is more than one leg, or message, to mean."""

    type: str
    body: dict[str, Any]
    handling: dict[str, Any]
    parts: Mapping[str, dict[str, Any]]
    attachments: Sequence[Attached] = ()
    to: str | None = None
    in_reply_to: UUID | None = None
    expires: Any = None


class Converse:
    """Makes drafts of what is said, and refuses what the thread or another member's handling does not allow."""

    def __init__(
        self,
        *,
        member: str,
        office: dict[str, Any],
        read: Read,
        submit: Submit,
        directory: DirectorySource,
        clock: Clock,
        approve: Approve,
    ) -> None:
        self._approve = approve
        self._member, self._office, self._read, self._submit = member, office, read, submit
        self._directory, self._clock = directory, clock

    async def open(self, draft: Draft, request: Request) -> bytes:
        """Commits a message that opens a thread of its own; a search by so little that it is fishing needs two people."""
        if (before := await self._submit.repeated(request)) is not None:
            return before
        body = validate_body(draft.type, draft.body, "/body")
        if isinstance(body, RegistrySearch) and body.is_weak:
            self._submit.prepare(draft, actor=request.caller.actor)  # nobody is asked about what could not be sent
            about = {"to": draft.recipient, "type": draft.type, "body": draft.body, "handling": draft.handling}
            about |= {"expires": format_time(draft.expires)} if draft.expires else {}
            draft = replace(draft, approval=await self._approve.require("registry.search", request.caller, about))
        return await self._submit.submit(draft, request)

    async def say(self, thread: UUID, said: Saying, request: Request, if_match: int | None) -> bytes:
        """Commits the message; its JSON answer, the same on repetition.

        ProblemError `thread.*`, `precondition.failed`, `handling.forbidden`, and what Submit refuses.
        """
        try:
            leg = await self._leg(thread, said)
            validate_body(said.type, said.body, "/body")
            await self._check(leg, said)
            draft = Draft(
                type=said.type, recipient=leg.counterpart, thread=thread, body=said.body, handling=said.handling,
                parts=said.parts, attachments=said.attachments, in_reply_to=self._reply_to(leg, said), expires=said.expires, if_match=if_match,
            )  # fmt: skip
            forwarded = [await self._forwarded(leg, said)] if said.body.get("mode") == "ANSWERER_FORWARDS" else []
            arrived = await self._handled(leg, said)
        except ProblemError:
            before = await self._submit.repeated(request)
            if before is None:
                raise
            return before
        return await self._submit.submit(draft, request, arrived, also=forwarded)

    async def ask_again(self, referral: UUID, thread: UUID, draft: Draft) -> Draft:
        """A request to the next hop under the same thread, as the referral of an asked member says (ITI 15: we ask ourselves)."""
        there = await self._read.opened(thread)
        for leg in await self._read.legs(thread):
            if leg.role != "asker" or leg.kind != "trace.request":
                continue
            told = find(there, leg.counterpart, referral)
            if told is None or told.type != "trace.referral" or told.body["mode"] != "REQUESTER_ASKS_AGAIN":
                continue
            body = told.body
            if body["next_hop"].get("member", draft.recipient) != draft.recipient:
                raise _fault("/to", "the referral names another member", "Ask the member that the referral names.")
            hop = _next_hop(leg)
            referred = {"by": leg.counterpart, "mode": body["mode"], "hop": hop}
            return replace(draft, thread=thread, in_reply_to=referral, body=draft.body | {"referred": referred})
        raise _fault("/referral", "no referral of this thread tells us to ask again", "Give the id of the referral.")

    async def _leg(self, thread: UUID, said: Saying) -> Leg:
        """The leg that is meant: by its counterpart, else the only one in which we may say this at all."""
        legs = await self._read.legs(thread)
        fits = [
            leg
            for leg in legs
            if said.to in (None, leg.counterpart)
            and any(
                name.partition("/")[0] == said.type and event.by in ("both", leg.role)
                for name, event in TABLE[leg.kind].items()
            )
        ]
        if not fits:
            raise ProblemError("thread.state", f"{said.type} is not for this member to say in this thread")
        if len(fits) > 1:
            names = ", ".join(sorted(leg.counterpart for leg in fits))
            raise _fault("/to", "the thread has several legs", f"Say to whom: {names}.")
        return fits[0]

    def _reply_to(self, leg: Leg, said: Saying) -> UUID:
        if said.in_reply_to is not None:
            return said.in_reply_to
        return leg.question or leg.request if said.type == "trace.clarification-answer" else leg.request

    async def _check(self, leg: Leg, said: Saying) -> None:
        match said.type:
            case "erasure.confirmation":
                await self._erased(leg.thread, said)
            case "trace.clarification":
                await self._pointers(leg, said)
            case "trace.response":
                await self._repeats_nothing(leg, said)
            case "trace.refusal" if said.body["ground"]["code"] == "NOT_COMPETENT":
                await self._refers(leg)
            case "handling.change":
                await self._tightens(leg, said)
            case "consent.request" | "disclosure.report":
                await self._target(leg, leg.counterpart, said)
            case "consent.answer":
                asked = find(await self._read.opened(leg.thread), leg.counterpart, said.in_reply_to)
                if asked is None or asked.type != "consent.request":
                    raise _fault(
                        "/in_reply_to", "no consent was asked for in it", "Give the id of the consent.request."
                    )

    async def _handled(self, leg: Leg, said: Saying) -> Arrived | None:
        """The request that this answers: the member's own system has it."""
        if leg.role != "answerer" or said.type not in _ANSWERS:
            return None
        content = await self._read.content(leg.counterpart, leg.request)
        return Arrived(
            sender=leg.counterpart, id=leg.request, thread=leg.thread, type=leg.kind, content_c=content.commitment
        )

    async def _refers(self, leg: Leg) -> None:
        """Who is not the one to ask says who is (docs/domain.md section 2)."""
        said = await self._read.opened(leg.thread)
        if not any((each.type, each.recipient) == ("trace.referral", leg.counterpart) for each in said):
            fix = "Send the referral first: POST /v1/traces/{thread}/referrals."
            raise _fault("/body/ground", "NOT_COMPETENT comes with a referral", fix)

    async def _erased(self, thread: UUID, said: Saying) -> None:
        """Nobody confirms what is still here."""
        gone = await self._read.erased_of(thread)
        for n, id_ in enumerate(said.body["messages"]):
            if UUID(id_) not in gone:
                raise _fault(f"/body/messages/{n}", "it is not erased here", "Erase it first: `tracewire erase`.")

    async def _pointers(self, leg: Leg, said: Saying) -> None:
        body = (await self._read.content(leg.counterpart, leg.request)).message.body
        for at, question in enumerate(said.body["questions"]):
            place: Any = body
            for step in question["pointer"].split("/")[1:]:
                known = isinstance(place, dict) and step in place
                listed = isinstance(place, list) and step.isdigit() and int(step) < len(place)
                if not known and not listed:
                    pointer = f"/body/questions/{at}/pointer"
                    raise _fault(pointer, "the request has no such member", "Point at what the request holds.")
                place = place[step] if known else place[int(step)]

    async def _target(self, leg: Leg, sender: str, said: Saying) -> Handling:
        """The handling of the message that is meant."""
        there = await self._read.opened(leg.thread)
        target = find(there, sender, UUID(said.body["target"]))
        if target is None or leg.counterpart not in (target.sender, target.recipient):
            fix = f"Give the id of a message of {sender}."
            raise _fault("/body/target", "no such message of this thread", fix)
        return handling_of(there, target)

    async def _tightens(self, leg: Leg, said: Saying) -> None:
        handling = await self._target(leg, self._member, said)
        if not tightens(handling, validate_handling(said.body["handling"], "/body/handling")):
            why = "only a tighter handling is set by one side alone"
            raise _fault("/body/handling", why, "Ask for consent (consent.request), or tighten.", "handling.forbidden")

    def _onward(self, said: Sequence[Message], message: Message, recipient: str, released: Sequence[str]) -> Handling:
        """The handling of another member's message that may go on to a member; `handling.forbidden` where it may not."""
        handling = handling_of(said, message)
        admitted = current(self._directory).admitted.get(recipient)
        why = onward_forbidden(
            handling, recipient=recipient, roles=admitted.roles if admitted else (), released=released,
            today=self._clock.now().date(), consent=consented(said, message, "ONWARD_DISCLOSURE", recipient=recipient),
        )  # fmt: skip
        if why:
            raise ProblemError("handling.forbidden", why)
        return handling

    async def _forwarded(self, leg: Leg, said: Saying) -> Draft:
        """The request to the next hop: the weapon and what is released, under the originator's own handling."""
        recipient, released = said.body["next_hop"]["member"], said.body.get("released_fields", [])
        there = await self._read.opened(leg.thread)
        asked = find(there, leg.counterpart, leg.request)
        if asked is None:
            raise ProblemError("content.erased", "the request's content is gone")
        handling = self._onward(there, asked, recipient, released)
        if any(name not in asked.body for name in released):
            raise _fault("/body/released_fields", "the request does not hold it", "Release what the request holds.")
        if "persons" in released:
            raise ProblemError("handling.forbidden", "persons are asked for by whoever needs them, never forwarded")
        body = {name: asked.body[name] for name in (*_FORWARDED, *released) if name in asked.body}
        referred = {"by": self._member, "mode": said.body["mode"], "hop": _next_hop(leg), "released_fields": released}
        if body["priority"] == "URGENT":
            body["justification"] = "The originator gave its reasons; they are not released."
        body |= {"request_ref": str(leg.thread), "requester": self._office, "referred": referred}
        due = leg.ends if leg.ends and leg.ends > self._clock.now() else None  # else as the two members agreed
        return Draft(
            type="trace.request", recipient=recipient, thread=leg.thread, body=body, in_reply_to=leg.request, due=due,
            handling=handling.model_dump(mode="json", exclude_unset=True), attachments=await self._attached(asked, body),
        )  # fmt: skip

    async def _attached(self, asked: Message, body: Mapping[str, Any]) -> list[Attached]:
        """The attachments of a message that a body made of it still points to."""
        digests = {digest for _, digest in pointed(body, "")}
        keys = (await self._read.content(asked.sender, asked.id)).keys if digests else {}
        return [
            Attached(name=ref.name, media_type=ref.media_type, sha256=ref.sha256, key=keys[ref.sha256], size=ref.size)
            for ref in asked.attachments
            if b64u(ref.sha256) in digests and ref.sha256 in keys
        ]

    async def _repeats_nothing(self, leg: Leg, said: Saying) -> None:
        """An answer that repeats what another member told us in this thread discloses it: that member's handling decides."""
        there = await self._read.opened(leg.thread)
        for told in there:
            if told.type != "trace.response" or told.sender in (self._member, leg.counterpart):
                continue
            if any(_items(told.body.get(name)) & _items(said.body.get(name)) for name in _REPEATED):
                self._onward(there, told, leg.counterpart, ())


def _items(value: Any) -> set[str]:
    """What stands in a member, each thing as one text to compare by."""
    listed = value if isinstance(value, list) else [value]
    return {repr(sorted(map(_plain, each.items()))) for each in listed if isinstance(each, dict)}


def _plain(member: tuple[str, Any]) -> tuple[str, str]:
    """A member without the words that a code was read from: another spelling tells the same."""
    name, value = member
    return name, str(value.get("code", value)) if isinstance(value, dict) else str(value)


def _next_hop(leg: Leg) -> int:
    if leg.hop >= HOPS_MAX:
        raise ProblemError("thread.state", f"a chain has at most {HOPS_MAX} hops")
    return leg.hop + 1


def _fault(pointer: str, message: str, fix: str, code: str = "schema.invalid") -> ProblemError:
    return ProblemError(code, message, errors=[Fault(pointer, code, message, fix)])
