"""The agency listener `/v1`: the member's own systems submit, read and answer traces (docs/design.md section 7)."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, get_args
from urllib.parse import parse_qsl
from uuid import UUID

from aiohttp import web

from gateway.http.serve import application, read_body, wait_seconds, whole_number
from gateway.services.committed import LedgerView
from gateway.services.evidence import Export
from gateway.services.policy import permit_client
from gateway.services.read import PAGE_MAX, Read, events_json, review_json, thread_json
from gateway.services.submit import Draft, Request, Submit, current
from protocols.ledger.entry import uuid7
from protocols.limits import REQUEST_BYTES_MAX
from protocols.ports.access import Access, Caller, Client
from protocols.ports.directory import DirectorySource
from protocols.ports.rows import (
    Arrived,
)
from protocols.ports.store import (
    ClientStore,
)
from protocols.ports.world import Clock
from protocols.problems import Fault, ProblemError
from protocols.strict import b64u, dump_json, parse_json, parse_object, parse_time, unb64u
from protocols.thread import ThreadState

_JSON = "application/json"
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_KEY_CHARS = range(8, 129)
_ANSWERS = {
    "acknowledgements": "trace.acknowledgement",
    "answers": "trace.response",
    "refusals": "trace.refusal",
}
_TOKENS_MAX = 10_000
Handler = Callable[[web.Request, Caller], Awaitable[web.Response]]


def _json(value: Any, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=dump_json(value), content_type=_JSON, headers=headers)


class Agency:
    """Endpoints for clients; every one but the token endpoint needs an access token with a scope."""

    def __init__(
        self,
        *,
        member: str,
        access: Access,
        clients: ClientStore,
        submit: Submit,
        read: Read,
        ledger: LedgerView,
        directory: DirectorySource,
        clock: Clock,
        export: Export,
    ) -> None:
        self._export = export
        self._member, self._access, self._clients, self._submit = member, access, clients, submit
        self._read, self._ledger, self._directory, self._clock = read, ledger, directory, clock
        self._callers: dict[str, tuple[Caller, float]] = {}

    def app(self, *middlewares: Any) -> web.Application:
        """The listener's application."""
        write, read, audit = "trace:write", "trace:read", "ledger:read"
        routes = [
            web.post("/v1/token", self.post_token),
            web.post("/v1/traces", self._for(write, self.post_trace)),
            web.get("/v1/traces", self._for(read, self.get_traces)),
            web.get("/v1/traces/{thread}", self._for(read, self.get_trace)),
            web.get("/v1/traces/{thread}/evidence", self._for("evidence:read", self.get_evidence)),
            web.get("/v1/events", self._for(read, self.get_events)),
            web.get("/v1/reviews", self._for(read, self.get_reviews)),
            web.get("/v1/peers", self._for(read, self.get_peers)),
            web.get("/v1/ledger/{log}/checkpoint", self._for(audit, self.get_checkpoint)),
            web.get("/v1/ledger/{log}/{tile:tile/.+}", self._for(audit, self.get_tile)),
        ]
        for path, type_ in _ANSWERS.items():
            routes.append(web.post(f"/v1/traces/{{thread}}/{path}", self._for(write, self._answer(type_))))
        return application(routes, *middlewares)

    def _for(self, scope: str, handler: Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def endpoint(request: web.Request) -> web.Response:
            caller = self._caller(request)
            permit_client(caller, scope)
            return await handler(request, caller)

        return endpoint

    def _caller(self, request: web.Request) -> Caller:
        """Who the bearer token speaks for; a token seen before is not verified again while it is in force."""
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token:
            raise ProblemError("auth.missing", "send Authorization: Bearer")
        now = self._clock.now()
        seen = self._callers.get(token)
        if seen is not None and now.timestamp() - seen[1] < 1.0:  # bounds how long an expired token lives
            return seen[0]
        caller = self._access.authenticate(token, now)
        if len(self._callers) >= _TOKENS_MAX:
            self._callers.clear()
        self._callers[token] = caller, now.timestamp()
        return caller

    async def post_token(self, request: web.Request) -> web.Response:
        """OAuth 2 client credentials with private_key_jwt (RFC 7523)."""
        form = await _form(request)
        if form.get("grant_type") != "client_credentials" or form.get("client_assertion_type") != _ASSERTION:
            raise ProblemError(
                "auth.invalid", f"send grant_type=client_credentials, client_assertion_type={_ASSERTION}"
            )
        assertion = form.get("client_assertion", "")
        row = await self._clients.client(self._access.claimed_client(assertion))
        client = None
        if row is not None and row["revoked"] is None:
            jwk = parse_json(row["jwk"].encode(), bytes_max=4_096)
            client = Client(id=row["id"], jwk=jwk, actors=frozenset(row["actors"]), scopes=frozenset(row["scopes"]))
        scopes = frozenset(form["scope"].split(" ")) if form.get("scope") else None
        token = self._access.issue(assertion, client, self._clock.now(), scopes)
        return _json({"access_token": token, "token_type": "Bearer", "expires_in": 300}, {"Cache-Control": "no-store"})

    async def post_trace(self, request: web.Request, caller: Caller) -> web.Response:
        """Submits a trace request: {to, body, handling, parts, due, expires} -> 202 {id, thread}."""
        body, asked = await self._asked(request, caller, ("to", "body", "handling"))
        draft = Draft(
            type="trace.request",
            recipient=_text(body, "to"),
            thread=None,
            body=_object(body, "body"),
            handling=_object(body, "handling"),
            parts=_parts(body),
            due=_time(body, "due"),
            expires=_time(body, "expires"),
        )
        answer = await self._submit.submit(draft, asked)
        thread = parse_json(answer, bytes_max=4_096)["thread"]
        headers = {"Location": f"/v1/traces/{thread}"}
        return web.Response(body=answer, status=202, content_type=_JSON, headers=headers)

    def _answer(self, type_: str) -> Handler:
        async def post_answer(request: web.Request, caller: Caller) -> web.Response:
            """Answers the thread's open request: {body, handling, parts, expires} with If-Match."""
            thread = _thread(request)
            leg = await self._read.leg(thread)
            version = _if_match(request)
            body, asked = await self._asked(request, caller, ("body", "handling"))
            if leg.role != "answerer":
                raise ProblemError("thread.state", "this node asked; the counterpart answers")
            request_content = await self._read.content(leg.counterpart, leg.request)
            draft = Draft(
                type=type_,
                recipient=leg.counterpart,
                thread=thread,
                body=_object(body, "body"),
                handling=_object(body, "handling"),
                parts=_parts(body),
                in_reply_to=leg.request,
                expires=_time(body, "expires"),
                if_match=version,
            )
            arrived = None
            if type_ != "trace.acknowledgement":
                arrived = Arrived(
                    sender=leg.counterpart,
                    id=leg.request,
                    thread=thread,
                    type="trace.request",
                    content_c=request_content.commitment,
                )
            answer = await self._submit.submit(draft, asked, arrived)
            return web.Response(body=answer, status=202, content_type=_JSON)

        return post_answer

    async def _asked(
        self, request: web.Request, caller: Caller, required: tuple[str, ...]
    ) -> tuple[dict[str, Any], Request]:
        """The body of a POST that changes something, and who asks under which key."""
        key = request.headers.get("Idempotency-Key", "")
        if len(key) not in _KEY_CHARS or not key.isascii() or not key.isprintable():
            raise ProblemError("idempotency.missing", "send an Idempotency-Key of 8..128 characters")
        data = await read_body(request, bytes_max=REQUEST_BYTES_MAX, media_type=_JSON)
        body = parse_object(data, bytes_max=REQUEST_BYTES_MAX)
        for name in required:
            if name not in body:
                raise _fault(f"/{name}", "is required")
        if body.keys() - {*required, "parts", "due", "expires"}:
            raise _fault("", f"an unknown member; known are {', '.join(required)}, parts, due, expires")
        digest = sha256(request.path.encode() + b"\0" + data).digest()
        return body, Request(caller=caller, key=key, digest=digest)

    async def get_traces(self, request: web.Request, caller: Caller) -> web.Response:
        """Threads, newest first: ?limit=&after=&state=."""
        del caller
        limit, cursor = _limit(request), request.query.get("after")
        legs = await self._read.threads(_cursor(cursor) if cursor else None, limit, _state(request))
        shown: dict[str, Any] = {"traces": [thread_json(leg) for leg in legs]}
        if len(legs) == limit:
            last = legs[-1]
            shown["next"] = _cursor_of(last.opened, last.thread)
        return _json(shown)

    async def get_trace(self, request: web.Request, caller: Caller) -> web.Response:
        """One thread with its messages, and what waits for a person."""
        shown = await self._read.thread(_thread(request), caller)
        return _json(shown, {"ETag": f'"{shown["version"]}"'})

    async def get_evidence(self, request: web.Request, caller: Caller) -> web.Response:
        """The thread as one file that an outsider verifies: ?parts=yes (scope `parts:read`), ?content=no."""
        asked = {name: request.query.get(name, "") for name in ("parts", "content")}
        if (
            request.query.keys() - asked.keys()
            or asked["parts"] not in ("", "yes")
            or asked["content"] not in ("", "no")
        ):
            raise ProblemError("http.query", "the parameters are parts=yes and content=no")
        thread, content = _thread(request), not asked["content"]
        data = await self._export.export(thread, caller, content=content, parts=bool(asked["parts"]))
        headers = {"Content-Disposition": f'attachment; filename="{thread}.zip"', "Cache-Control": "no-store"}
        return web.Response(body=data, content_type="application/zip", headers=headers)

    async def get_events(self, request: web.Request, caller: Caller) -> web.Response:
        """The feed: ?after=&limit=, `Prefer: wait=30`. Asking after a line says that all up to it were handled."""
        del caller
        after = request.query.get("after", "0")
        seq = whole_number(after)
        if seq is None:
            raise _fault("", "after is a sequence number")
        events = await self._read.events(seq, _limit(request), wait_seconds(request))
        return _json({"events": events_json(events)})

    async def get_reviews(self, request: web.Request, caller: Caller) -> web.Response:
        """Requests that wait for a person, with candidates, oldest first: ?limit=&after=."""
        del caller
        limit, cursor = _limit(request), request.query.get("after")
        rows = await self._read.reviews(_cursor(cursor) if cursor else None, limit)
        shown: dict[str, Any] = {"reviews": [review_json(row) for row in rows]}
        if len(rows) == limit:
            shown["next"] = _cursor_of(rows[-1].at, rows[-1].id)
        return _json(shown)

    async def get_peers(self, request: web.Request, caller: Caller) -> web.Response:
        """The members of the directory in force."""
        del request, caller
        directory = current(self._directory)
        peers = [
            {
                "member": name,
                "name": record.name,
                "roles": list(directory.admitted[name].roles),
                "status": directory.admitted[name].status,
                **({"problem": directory.failing[name]} if name in directory.failing else {}),
            }
            for name, record in directory.records.items()
        ]
        return _json({"directory": directory.ref.version, "peers": peers})

    async def get_checkpoint(self, request: web.Request, caller: Caller) -> web.Response:
        """Our newest checkpoint, for the owner."""
        del caller
        return web.Response(body=await self._ledger.own_note(request.match_info["log"]), content_type="text/plain")

    async def get_tile(self, request: web.Request, caller: Caller) -> web.Response:
        """A tile or entry bundle, for the owner."""
        del caller
        data = await self._ledger.tile(request.match_info["log"], request.match_info["tile"])
        return web.Response(body=data, content_type="application/octet-stream")


async def _form(request: web.Request) -> dict[str, str]:
    data = await read_body(request, bytes_max=16_384, media_type="application/x-www-form-urlencoded")
    try:
        return dict(parse_qsl(data.decode("ascii"), strict_parsing=True, max_num_fields=16))
    except ValueError:
        raise ProblemError("auth.invalid", "not a form") from None


def _fault(pointer: str, message: str) -> ProblemError:
    fault = Fault(pointer, "schema.invalid", message, "Send the members that the interface states.")
    return ProblemError("schema.invalid", f"{pointer} {message}".strip(), errors=[fault])


def _text(body: dict[str, Any], name: str) -> str:
    if not isinstance(body[name], str):
        raise _fault(f"/{name}", "is not a text")
    return str(body[name])


def _object(body: dict[str, Any], name: str) -> dict[str, Any]:
    if not isinstance(body[name], dict):
        raise _fault(f"/{name}", "is not an object")
    return dict(body[name])


def _time(body: dict[str, Any], name: str) -> datetime | None:
    try:
        return parse_time(body[name]) if name in body else None
    except ProblemError:
        raise _fault(f"/{name}", "is not an RFC 3339 time in UTC with milliseconds") from None


def _parts(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    parts = _object(body, "parts") if "parts" in body else {}
    if not all(isinstance(part, dict) for part in parts.values()):
        raise _fault("/parts", "has a part that is not an object")
    return parts


def _thread(request: web.Request) -> UUID:
    try:
        return uuid7(request.match_info["thread"])
    except ProblemError:
        raise ProblemError("thread.not_found", "not a thread id") from None


def _if_match(request: web.Request) -> int:
    version = whole_number(request.headers.get("If-Match", "").strip('"'))
    if version is None:
        raise ProblemError("precondition.required", "send If-Match with the ETag of the thread")
    return version


def _limit(request: web.Request) -> int:
    limit = whole_number(request.query.get("limit", "50"))
    if not limit or limit > PAGE_MAX:
        raise _fault("", f"limit is 1..{PAGE_MAX}")
    return limit


def _state(request: web.Request) -> str | None:
    state = request.query.get("state")
    if state is not None and state not in get_args(ThreadState):
        raise _fault("", f"state is one of {', '.join(get_args(ThreadState))}")
    return state


def _cursor_of(at: datetime, id_: UUID) -> str:
    return b64u(f"{at.isoformat()} {id_}".encode())


def _cursor(text: str) -> tuple[datetime, UUID]:
    try:
        at, _, thread = unb64u(text).decode("ascii").partition(" ")
        return datetime.fromisoformat(at).astimezone(UTC), UUID(thread)
    except (ProblemError, ValueError, OverflowError):
        raise _fault("", "after is not a cursor of this interface") from None
