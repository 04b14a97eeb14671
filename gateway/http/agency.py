"""The agency listener `/v1`: the member's own systems submit, read and answer traces (docs/design.md section 7)."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

import structlog
from aiohttp import web

from gateway.http.approvals import Rulings
from gateway.http.attachments import Attachments
from gateway.http.batch import CSV, NDJSON, Line, lines_of
from gateway.http.derived import Chain, Erasing, ErasureOrdered, Report, RequestDraft, TrailShown
from gateway.http.dialogue import SUBMITS, Dialogue, thread_of
from gateway.http.documents import (
    Accepted,
    BatchLine,
    Cursor,
    Events,
    EventsQuery,
    EvidenceQuery,
    PageQuery,
    Query,
    ReportQuery,
    Reviews,
    Threads,
    ThreadWhole,
    Token,
    TokenForm,
    TraceQuery,
    TracesQuery,
    TraceSubmission,
)
from gateway.http.knowledge import Knowledge
from gateway.http.openapi import FORM, JSON, Asked, Operation, openapi
from gateway.http.outside import Outside
from gateway.http.pages import reference_routes
from gateway.http.records import APPROVED, SharedRecords
from gateway.http.serve import PRIVATE, application, json_response, read_body, wait_seconds, whole_number
from gateway.services.approve import Approve
from gateway.services.blobs import Blobs
from gateway.services.chain import Chains
from gateway.services.check import Check
from gateway.services.committed import LedgerView
from gateway.services.converse import Converse
from gateway.services.diversion import Diversions
from gateway.services.draft import drafted
from gateway.services.erase import Erase, Order
from gateway.services.evidence import Export
from gateway.services.notices import Notices
from gateway.services.policy import permit_client, permit_reading
from gateway.services.probe import Probe
from gateway.services.read import Read, events_json, review_json, thread_json
from gateway.services.records import Records
from gateway.services.report import Reports
from gateway.services.submit import Draft, Request, Submit
from gateway.services.trail import Trail
from protocols.limits import BATCHES_MAX, REQUEST_BYTES_MAX, SUBMISSIONS_BYTES_MAX
from protocols.messages import validate_model
from protocols.ports.access import Access, Caller, Client
from protocols.ports.directory import DirectorySource
from protocols.ports.people import ClientStore
from protocols.ports.store import Unavailable
from protocols.ports.world import Clock
from protocols.problems import Fault, ProblemError
from protocols.strict import b64u, dump_json, parse_json, parse_object

_log = structlog.get_logger()
_NOBODY = Caller(client="", actor="", scopes=frozenset())
_KEY_CHARS = range(8, 129)
_TOKENS_MAX = 10_000
_WINDOW = 64  # submissions of a batch at once: as many as a busy client
_READER_S = 30  # for which a batch waits for its client to read
_THREAD = ("thread.not_found",)


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
        probe: Probe,
        converse: Converse,
        chains: Chains,
        reports: Reports,
        approve: Approve,
        check: Check,
        notices: Notices,
        diversions: Diversions,
        records: Records,
        blobs: Blobs,
        trail: Trail,
        erase: Erase,
    ) -> None:
        self._approve, self._rulings = approve, Rulings(approve)
        self._knowledge = Knowledge(check, notices, diversions)
        self._shared, self._attachments = SharedRecords(records), Attachments(blobs, read)
        self._chains, self._reports, self._trail, self._erase = chains, reports, trail, erase
        self._converse, self._dialogue = converse, Dialogue(converse)
        self._export, self._outside = export, Outside(directory, probe, ledger, read)
        self._member, self._access, self._clients, self._submit = member, access, clients, submit
        self._read, self._clock = read, clock
        self._callers: dict[str, tuple[Caller, float]] = {}
        self._batches = Counter[str]()  # being worked on, of each client

    def operations(self) -> tuple[Operation, ...]:
        """Every route of `/v1`, once: what it needs, takes and answers."""
        write = "trace:write"
        posts: dict[str, Any] = {"method": "POST", "scope": write, "answer": Accepted, "status": 202}
        return (
            Operation(
                method="POST", path="/v1/token", scope=None, call=self.post_token, body=TokenForm, media=(FORM,),
                reads=False, answer=Token, problems=("auth.invalid", "auth.scope"),
            ),
            Operation(
                path="/v1/traces", call=self.post_trace, body=TraceSubmission, headers=("Idempotency-Key",),
                problems=(*SUBMITS, "thread.not_found", "thread.state"), **posts,
            ),
            Operation(
                method="POST", path="/v1/batches", scope=write, call=self.post_batch, headers=("Idempotency-Key",),
                body=TraceSubmission, media=(NDJSON, CSV), reads=False, answer=BatchLine, answers=NDJSON,
                problems=("batch.invalid",),
            ),
            *self._dialogue.operations(),
            *self._rulings.operations(),
            *self._knowledge.operations(),
            *self._shared.operations(),
            *self._attachments.operations(),
            *self._reading(),
            *self._outside.operations(),
        )  # fmt: skip

    def _reading(self) -> tuple[Operation, ...]:
        """What is read of threads and of all of them together."""
        read, thread = "trace:read", "/v1/traces/{thread}"
        return (
            Operation(
                method="GET", path="/v1/traces", scope=read, call=self.get_traces, query=TracesQuery, answer=Threads, audited=True,
            ),
            Operation(
                method="GET", path=thread, scope=read, call=self.get_trace, query=TraceQuery, answer=ThreadWhole,
                headers=("If-None-Match",), problems=(*_THREAD, "auth.purpose", *APPROVED), audited=True,
            ),
            Operation(
                method="POST", path=f"{thread}/erasures", scope="content:erase", call=self.post_erasure, body=ErasureOrdered,
                answer=Erasing, status=202, problems=(*_THREAD, "content.erased", *APPROVED),
            ),
            Operation(
                method="GET", path=f"{thread}/entries", scope=read, call=self.get_entries, answer=TrailShown, problems=_THREAD,
                audited=True,
            ),
            Operation(
                method="GET", path=f"{thread}/chain", scope=read, call=self.get_chain, answer=Chain,
                problems=(*_THREAD, "auth.purpose"),
            ),
            Operation(
                method="GET", path=f"{thread}/evidence", scope="evidence:read", call=self.get_evidence,
                query=EvidenceQuery, answers="application/zip", problems=(*_THREAD, "auth.purpose", "content.erased", "store.data"),
            ),
            Operation(
                method="GET", path="/v1/events", scope=read, call=self.get_events, query=EventsQuery, answer=Events,
                headers=("Prefer",), problems=("feed.beyond",),
            ),
            Operation(
                method="GET", path="/v1/reviews", scope=read, call=self.get_reviews, query=PageQuery, answer=Reviews,
                problems=("auth.purpose",),
            ),
            Operation(
                method="GET", path="/v1/recovery-reports/{thread}/request", scope=read, call=self.get_draft,
                answer=RequestDraft, problems=(*_THREAD, "handling.forbidden", "auth.purpose"),
            ),
            Operation(
                method="GET", path="/v1/reports/{year}", scope=read, call=self.get_report, query=ReportQuery, answer=Report,
                problems=("http.not_found",),
            ),
        )  # fmt: skip

    def app(self, *middlewares: Any, more: Sequence[web.RouteDef] = ()) -> web.Application:
        """The listener's application: the operations, their description, the pages that explain both, and `more`."""
        operations = self.operations()
        described = partial(openapi, operations, title=f"Tracewire agency interface of {self._member}", version="1")
        routes = [web.route(each.method, each.path, self._endpoint(each)) for each in operations]
        return application([*routes, *reference_routes(described), *more], *middlewares)

    def _endpoint(self, operation: Operation) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def endpoint(request: web.Request) -> web.StreamResponse:
            return await operation.call(request, await self._asked(operation, request))

        return endpoint

    async def _asked(self, operation: Operation, request: web.Request) -> Asked:
        """What the operation's models, scope and headers ask for; the cheap checks first."""
        caller = _NOBODY
        if operation.scope:
            caller = self._caller(request)
            permit_client(caller, *operation.scopes)
        query = _query(operation.query, request)
        key = _idempotency_key(request) if "Idempotency-Key" in operation.headers else None
        if_match = _if_match(request) if "If-Match" in operation.headers else None
        data, body = b"", None
        if operation.body and operation.reads:
            data = await read_body(request, bytes_max=REQUEST_BYTES_MAX, media_type=operation.media[0])
            body = validate_model(operation.body, parse_object(data, bytes_max=REQUEST_BYTES_MAX), "the request")
        digest = sha256(request.path.encode() + b"\0" + data).digest()
        idempotency = Request(caller=caller, key=key, digest=digest) if key else None
        return Asked(caller=caller, query=query, body=body, idempotency=idempotency, if_match=if_match)

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

    async def post_token(self, request: web.Request, asked: Asked) -> web.Response:
        """Get an access token.

        OAuth 2 client credentials with private_key_jwt (RFC 7523): iss and sub name the client, `actor` the person it speaks for.
        """
        del asked
        data = await read_body(request, bytes_max=16_384, media_type=FORM)
        try:
            form = validate_model(TokenForm, dict(_form(data)), "the form")
        except ProblemError as problem:
            raise ProblemError("auth.invalid", problem.detail, errors=problem.errors) from None
        row = await self._clients.client(self._access.claimed_client(form.client_assertion))
        client = None
        if row is not None and row["revoked"] is None:
            jwk = parse_json(row["jwk"].encode(), bytes_max=4_096)
            client = Client(id=row["id"], jwk=jwk, actors=frozenset(row["actors"]), scopes=frozenset(row["scopes"]))
        scopes = frozenset(form.scope.split(" ")) if form.scope else None
        token = self._access.issue(form.client_assertion, client, self._clock.now(), scopes)
        return json_response({"access_token": token, "token_type": "Bearer", "expires_in": 300})

    async def post_trace(self, request: web.Request, asked: Asked) -> web.Response:
        """Submit a trace request.

        Answered when it is durable, signed, sealed and in the ledger; its way is then told by the feed.
        """
        del request
        answer = await self._submit_trace(asked.body, _of(asked))
        thread = parse_json(answer, bytes_max=4_096)["thread"]
        headers = {"Location": f"/v1/traces/{thread}"}
        return web.Response(body=answer, status=202, content_type=JSON, headers=headers)

    async def _submit_trace(self, said: TraceSubmission, request: Request) -> bytes:
        draft = _draft(said)
        if "referred" in said.body:
            fault = Fault("/body/referred", "unknown_member", "the node writes it", "Give thread and referral instead.")
            raise ProblemError("schema.invalid", "a client does not state a referral", errors=[fault])
        if (said.referral is None) != (said.thread is None):
            fault = Fault("/referral", "required", "thread and referral go together", "Give both, or neither.")
            raise ProblemError("schema.invalid", "one of two is missing", errors=[fault])
        if said.referral is not None and said.thread is not None:
            draft = await self._converse.ask_again(UUID(said.referral), UUID(said.thread), draft)
        return await self._submit.submit(draft, request)

    async def post_batch(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        """Submit many trace requests: a line of result for each, in order, as they are accepted.

        NDJSON has a submission on each line; a CSV's columns are JSON pointers, as `/to` and `/body/weapon/model`. Send
        the whole file again under the same key after a broken line or a correction: a line that was accepted gets the
        same answer, and one that stands twice is submitted once. The last line counts.
        """
        client = asked.caller.client
        if self._batches[client] >= BATCHES_MAX - 1 or self._batches.total() >= BATCHES_MAX:
            raise ProblemError("store.busy", "other batches are being worked on")
        self._batches[client] += 1
        try:
            media = request.content_type if request.content_type == CSV else NDJSON
            data = await read_body(request, bytes_max=SUBMISSIONS_BYTES_MAX, media_type=media)
            lines = await asyncio.to_thread(lines_of, data, media)
            return await self._stream(request, lines, _of(asked))
        finally:
            self._batches[client] -= 1

    async def _stream(self, request: web.Request, lines: Sequence[Line], batch: Request) -> web.StreamResponse:
        """The results as they come; who does not read them is cut off, and sends the file again."""
        response = web.StreamResponse(headers={"Content-Type": NDJSON, **PRIVATE})
        accepted = 0
        try:
            await response.prepare(request)
            for start in range(0, len(lines), _WINDOW):
                window = lines[start : start + _WINDOW]
                found = await asyncio.gather(*(self._line(number, line, batch) for number, line in window))
                accepted += sum("problem" not in each for each in found)
                async with asyncio.timeout(_READER_S):
                    await response.write(b"".join(dump_json(each) + b"\n" for each in found))
            await response.write(dump_json({"accepted": accepted, "refused": len(lines) - accepted}) + b"\n")
        except (ConnectionError, TimeoutError):
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _line(self, number: int, line: bytes | ProblemError, batch: Request) -> dict[str, Any]:
        """What became of one submission; its key is made of the batch's and of what it says."""
        try:
            if isinstance(line, ProblemError):
                raise line
            found = parse_object(line, bytes_max=REQUEST_BYTES_MAX)
            said = validate_model(TraceSubmission, found, "the line")
            digest = sha256(json.dumps(found, sort_keys=True).encode()).digest()  # however the line is written
            key = f"batch:{b64u(sha256(batch.key.encode() + digest).digest())}"
            answer = await self._submit_trace(said, replace(batch, key=key, digest=digest))
        except ProblemError as problem:
            return {"line": number, "problem": problem.document()}
        except Unavailable:
            return {"line": number, "problem": ProblemError("store.busy", "the database cannot be reached").document()}
        except Exception:  # one line's failure is its own
            _log.exception("batch_line_failed")
            return {"line": number, "problem": ProblemError("internal", "the line could not be submitted").document()}
        told = parse_json(answer, bytes_max=4_096)
        return {"line": number, "id": told["id"], "thread": told["thread"]}

    async def get_traces(self, request: web.Request, asked: Asked) -> web.Response:
        """List threads, newest first."""
        del request
        query: TracesQuery = asked.query
        legs = await self._read.threads(query.after, query.limit, query.state)
        last = Cursor(legs[-1].opened, legs[-1].thread) if len(legs) == query.limit else None
        return json_response({"traces": [thread_json(leg) for leg in legs], **_next(last)})

    async def get_trace(self, request: web.Request, asked: Asked) -> web.Response:
        """Read a thread with its messages, and what waits for a person.

        What a message says is shown to whoever's token names a purpose, restricted parts with the scope `parts:read` too; each
        message and part that is read is an entry in the ledger. The scope `audit:read` shows which messages there are, and
        with `grant=yes`, once another person of another client has approved it, what they say.
        """
        thread, caller, query = thread_of(request), asked.caller, asked.query
        granted, grant = "trace:read" in caller.scopes, None
        if not granted and query.grant:
            permit_reading(caller)
            await self._read.legs(thread)
            about = {"thread": str(thread), "purpose": caller.purpose}
            granted, grant = True, await self._approve.require("thread.read", caller, about)
        shown, looks = await self._read.thread(thread, caller, granted=granted)
        tag = (
            f"{shown['version']}-{b64u(sha256(dump_json(shown)).digest()[:8])}"  # delivery and reviews make no version
        )
        headers = {"ETag": f'"{tag}"', **PRIVATE}
        if any(each.value == tag for each in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        if grant:
            await self._approve.spend(grant)
        await self._read.note(looks)
        return json_response(shown, headers)

    async def post_erasure(self, request: web.Request, asked: Asked) -> web.Response:
        """Erase content of a thread on this node, once a second person has approved exactly that.

        Its keys are destroyed, entries and proofs stay; what was on its way becomes `undelivered`. `erased` in the feed says that it
        is done. The other member is asked by an `erasure.request`.
        """
        said: ErasureOrdered = asked.body
        order = Order(
            thread=thread_of(request), messages=[UUID(each) for each in said.messages], part=said.part or "",
            ground=said.ground, authority=said.authority,
        )  # fmt: skip
        return json_response(await self._erase.order(order, asked.caller), status=202)

    async def get_entries(self, request: web.Request, asked: Asked) -> web.Response:
        """Read what our ledger says of a thread: who sent, took and answered its messages, and who read them, when and what for."""
        del asked
        return json_response({"entries": await self._trail.entries(thread_of(request))})

    async def get_chain(self, request: web.Request, asked: Asked) -> web.Response:
        """Read the chain of supply that the answers of a thread make together.

        Ordered events with explicit gaps, where the legal way ends, indicators, embargoes. `tracewire chain` makes a page of it.
        """
        return json_response(await self._chains.chain(thread_of(request), asked.caller))

    async def get_evidence(self, request: web.Request, asked: Asked) -> web.Response:
        """Export the thread as one file that an outsider verifies offline.

        It opens every message, or `messages=ID,ID` alone, and of restricted parts those that `parts` names (scope `parts:read`);
        `content=no` opens nothing. What is not opened stands in it as its digest, with every proof.
        """
        query: EvidenceQuery = asked.query
        thread = thread_of(request)
        named = None if query.messages is None else frozenset(map(UUID, query.messages.split(",")))
        data = await self._export.export(
            thread, asked.caller, messages=frozenset() if query.content else named, parts=(query.parts or "").split(",")
        )
        headers = {"Content-Disposition": f'attachment; filename="{thread}.zip"', **PRIVATE}
        return web.Response(body=data, content_type="application/zip", headers=headers)

    async def get_events(self, request: web.Request, asked: Asked) -> web.Response:
        """Follow what happens: lines after a sequence number.

        Asking after a line says that your system has handled all up to it: what arrived is then `dispatched`, where no webhook is told of it.
        """
        query: EventsQuery = asked.query
        events = await self._read.events(query.after, query.limit, wait_seconds(request))
        return json_response({"events": events_json(events)})

    async def get_reviews(self, request: web.Request, asked: Asked) -> web.Response:
        """List the requests that wait for a person, with candidates, oldest first."""
        del request
        permit_reading(asked.caller)
        query: PageQuery = asked.query
        rows = await self._read.reviews(query.after, query.limit)
        last = Cursor(rows[-1].at, rows[-1].id) if len(rows) == query.limit else None
        return json_response({"reviews": [review_json(row) for row in rows], **_next(last)})

    async def get_draft(self, request: web.Request, asked: Asked) -> web.Response:
        """Read the trace request that follows from a recovery report, and what it still misses."""
        thread, today = thread_of(request), self._clock.now().date()
        return json_response(await drafted(self._read, thread, asked.caller, member=self._member, today=today))

    async def get_report(self, request: web.Request, asked: Asked) -> web.Response:
        """Read the figures of a year: for the national ITI report and SDG indicator 16.4.2.

        Outcomes and answer times by member, grounds of refusal, silence. `tracewire report` makes a page or a CSV of it.
        """
        query: ReportQuery = asked.query
        year = whole_number(request.match_info["year"])
        if year is None or not 2000 <= year <= 2199:
            raise ProblemError("http.not_found", "no such year")
        return json_response(await self._reports.year(year, query.seized))


def _form(data: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(data.decode("ascii"), strict_parsing=True, max_num_fields=16)
    except ValueError:
        raise ProblemError("auth.invalid", "not a form") from None


def _query(model: type[Query], request: web.Request) -> Query:
    given = dict(request.query)
    if len(given) != len(request.query):
        raise ProblemError("http.query", "a parameter stands twice")
    try:
        return validate_model(model, given, "the query")
    except ProblemError as problem:
        raise ProblemError("http.query", problem.detail, errors=problem.errors) from None


def _idempotency_key(request: web.Request) -> str:
    key = request.headers.get("Idempotency-Key", "")
    if len(key) not in _KEY_CHARS or not key.isascii() or not key.isprintable():
        raise ProblemError("idempotency.missing", "send an Idempotency-Key of 8..128 characters")
    return key


def _draft(said: TraceSubmission) -> Draft:
    return Draft(
        type="trace.request",
        recipient=said.to,
        thread=None,
        body=said.body,
        handling=said.handling,
        parts=said.given_parts(),
        attachments=said.given_attachments(),
        due=said.due,
        expires=said.expires,
    )


def _of(asked: Asked) -> Request:
    assert asked.idempotency is not None  # the operation names the header
    return asked.idempotency


def _if_match(request: web.Request) -> int:
    version = whole_number(request.headers.get("If-Match", "").strip('"').partition("-")[0])
    if version is None:
        raise ProblemError("precondition.required", "send If-Match with the ETag of the thread")
    return version


def _next(last: Cursor | None) -> dict[str, str]:
    return {"next": str(last)} if last else {}
