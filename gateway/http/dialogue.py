"""What is said in a thread after its request, and threads of other kinds: a route of `/v1` for each message type."""

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from uuid import UUID

from aiohttp import web
from pydantic import create_model

from gateway.http.documents import Accepted, Described, Object, Opening, Saying
from gateway.http.openapi import JSON, Asked, Operation
from gateway.http.records import APPROVED
from gateway.services.converse import Converse
from gateway.services.converse import Saying as Told
from gateway.services.submit import Draft
from protocols.ledger.entry import uuid7
from protocols.messages import TYPES
from protocols.problems import ProblemError

SUBMITS = ("type.unknown", "msg.not_permitted", "member.unknown", "peer.suspended", "dir.stale", "store.data")
_THREAD = ("thread.not_found", "thread.state", "thread.full", "content.erased", "handling.forbidden")
_THREADS = "/v1/traces/{thread}"

# path below the thread, message type, what it does
_SAID = (
    ("acknowledgements", "trace.acknowledgement", "Acknowledge a request as an agency: accepted, queued, or not ours."),
    ("answers", "trace.response", "Answer a request, for now or finally."),
    ("refusals", "trace.refusal", "Refuse, restrict or delay the answer, with its ground (ITI 22)."),
    ("clarifications", "trace.clarification", "Ask back what the request leaves open (ITI 21); PAUSED stops the deadline."),
    ("clarification-answers", "trace.clarification-answer", "Answer what was asked back."),
    ("referrals", "trace.referral", "Refer to the next hop: forward what its handling lets go, or have the requester ask again."),
    ("statuses", "trace.status", "Say that work goes on, or close a thread that has its outcome."),
    ("reminders", "trace.reminder", "Remind of an answer whose day has passed."),
    ("withdrawal", "trace.withdrawal", "Withdraw a request."),
    ("handling-changes", "handling.change", "Tighten the handling of a message of ours."),
    ("consent-requests", "consent.request", "Ask the originator whether something may be done with its message."),
    ("consent-answers", "consent.answer", "Grant or refuse what was asked."),
    ("disclosure-reports", "disclosure.report", "Report that something received was disclosed."),
    ("erasure-requests", "erasure.request", "Ask that content be erased; proofs stay."),
    ("erasure-confirmations", "erasure.confirmation", "Confirm that content was erased."),
    ("reference-answers", "reference.answer", "Answer a reference query."),
    ("registry-hits", "registry.hit", "Answer a search of the register."),
    ("registry-withdrawals", "registry.withdrawal", "Withdraw a record."),
)  # fmt: skip
_OPENED = (
    ("reference-queries", "reference.query", "Ask what kind of weapon this is; no case, no serial."),
    ("registry-searches", "registry.search", "Search another member's register."),
    ("registry-records", "registry.record", "Give a registry a record of a lost, stolen, trafficked or seized weapon."),
    ("recovery-reports", "recovery.report", "Report a recovered weapon and the nine steps."),
    ("marking-notices", "marking.notice", "Tell another member how weapons are marked."),
)
_APPROVED = {"registry.search": APPROVED}


class Dialogue:
    """The operations, each made of its row; what may be said is for the service to judge."""

    def __init__(self, converse: Converse) -> None:
        self._converse = converse

    def operations(self) -> list[Operation]:
        """A route for every message type but the trace request."""
        posts: dict[str, Any] = {"method": "POST", "scope": "trace:write", "answer": Accepted, "status": 202}
        return [
            Operation(
                path=f"{_THREADS}/{name}", call=self._call(self._say, type_, about), body=_document(type_, Saying),
                headers=("Idempotency-Key", "If-Match"), problems=(*SUBMITS, *_THREAD), **posts,
            )
            for name, type_, about in _SAID
        ] + [
            Operation(
                path=f"/v1/{name}", call=self._call(self._open, type_, about), body=_document(type_, Opening),
                headers=("Idempotency-Key",), problems=(*SUBMITS, *_APPROVED.get(type_, ())), **posts,
            )
            for name, type_, about in _OPENED
        ]  # fmt: skip

    def _call(
        self, do: Callable[[str, web.Request, Asked], Awaitable[web.Response]], type_: str, about: str
    ) -> Callable[[web.Request, Asked], Awaitable[web.Response]]:
        async def call(request: web.Request, asked: Asked) -> web.Response:
            return await do(type_, request, asked)

        call.__name__, call.__doc__ = "post_" + re.sub("[.-]", "_", type_), about
        return call

    async def _say(self, type_: str, request: web.Request, asked: Asked) -> web.Response:
        said: Saying = asked.body
        assert asked.idempotency is not None  # the operation names the header
        told = Told(
            type=type_, body=asked.body.body, handling=said.handling, parts=said.given_parts(), to=said.to,
            attachments=said.given_attachments(), in_reply_to=UUID(said.in_reply_to) if said.in_reply_to else None, expires=said.expires,
        )  # fmt: skip
        answer = await self._converse.say(thread_of(request), told, asked.idempotency, asked.if_match)
        return web.Response(body=answer, status=202, content_type=JSON)

    async def _open(self, type_: str, request: web.Request, asked: Asked) -> web.Response:
        del request
        said: Opening = asked.body
        assert asked.idempotency is not None  # the operation names the header
        draft = Draft(
            type=type_, recipient=said.to, thread=None, body=asked.body.body, handling=said.handling,
            parts=said.given_parts(), attachments=said.given_attachments(), expires=said.expires,
        )  # fmt: skip
        return web.Response(body=await self._converse.open(draft, asked.idempotency), status=202, content_type=JSON)


def _document(type_: str, base: type[Any]) -> type[Any]:
    model = TYPES[type_]
    body: Any = (Annotated[Object, Described(model)], ...)
    return create_model(f"{model.__name__}Submission", __base__=base, __doc__=model.__doc__, body=body)


def thread_of(request: web.Request) -> UUID:
    """The thread that the path names; `thread.not_found` for what is no id."""
    try:
        return uuid7(request.match_info["thread"])
    except ProblemError:
        raise ProblemError("thread.not_found", "not a thread id") from None
