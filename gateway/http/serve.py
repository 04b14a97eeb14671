"""What every listener shares: deadlines, framing checks, bounded reads, and problems as the one form of error."""

import asyncio
import json
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import structlog
from aiohttp import HttpVersion10, HttpVersion11, StreamReader, http_exceptions, web, web_server
from aiohttp.web_protocol import RequestHandler

from gateway.http.pages import problem_routes
from protocols.limits import (
    BODY_DEADLINE_S,
    BODY_GRACE_S,
    BODY_RATE_MIN,
    CONNECTIONS_AN_ADDRESS_MAX,
    HANDSHAKE_DEADLINE_S,
    HEADER_DEADLINE_S,
    HEADERS_MAX,
)
from protocols.ports.store import Unavailable
from protocols.problems import ProblemError
from protocols.strict import dump_json

_log = structlog.get_logger()
Middleware = Callable[[web.Request, Any], Awaitable[web.StreamResponse]]
Endpoint = Callable[[web.Request], Awaitable[web.StreamResponse]]
RETRY_AFTER_S = 5
PRIVATE = {"Cache-Control": "no-store"}
METHODS = ("GET", "POST")
_STATUS = {404: "http.not_found", 405: "http.method", 413: "http.too_large", 415: "http.media_type"}
_CLOSING = frozenset(["http.framing", "http.too_large", "http.body_timeout", "http.version", "peer.suspended"])
_SAID = {  # the parser tells these apart in words only: tests/http guards every one
    "Too many headers": "http.header_count",
    "Pause on PRI": "http.version",
    "header value char": "http.header",
    "after header value": "http.header",
    "header token": "http.header",
    "header field char": "http.header",
    "'Host' header": "http.header",
}


def json_response(value: Any, headers: Mapping[str, str] = PRIVATE, status: int = 200) -> web.Response:
    """A JSON answer, by default one that nobody on the way may keep."""
    return web.Response(body=dump_json(value), status=status, content_type="application/json", headers=headers)


_BARE = {  # what an answer has that is for nobody's screen
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def problem_response(problem: ProblemError) -> web.Response:
    """The problem document as a response; Retry-After where a retry helps later."""
    headers = _BARE | ({"Retry-After": str(RETRY_AFTER_S)} if problem.kind.retry == "later" else {})
    response = web.json_response(
        problem.document(),
        status=problem.kind.status,
        headers=headers,
        content_type="application/problem+json",
        dumps=lambda value: json.dumps(value, ensure_ascii=False),
    )
    if problem.code in _CLOSING:
        response.force_close()
    return response


class DeadlineHandler(RequestHandler):
    """aiohttp's connection with a deadline for headers, a bound for each address, and parse errors as problems."""

    refused = 0  # connections of this process over the bound
    _open: ClassVar[WeakKeyDictionary[web_server.Server, Counter[str]]] = WeakKeyDictionary()  # of each listener

    def __init__(
        self, manager: web_server.Server, *, header_deadline_s: float = HEADER_DEADLINE_S, **options: Any
    ) -> None:
        super().__init__(manager, **options)
        self._header_deadline_s = header_deadline_s
        self._deadline: asyncio.TimerHandle | None = None
        self._body: StreamReader | None = None  # of the newest request: only that can still be on its way
        self._address, self._addresses = "", self._open.setdefault(manager, Counter())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Headers of the first request must come within the deadline; a connection over the bound is closed unread."""
        super().connection_made(transport)
        self._address = str((transport.get_extra_info("peername") or ("",))[0])
        self._addresses[self._address] += 1
        if self._addresses[self._address] > CONNECTIONS_AN_ADDRESS_MAX:
            DeadlineHandler.refused += 1
            _log.warning("connection_refused", address=self._address)
            transport.abort()  # type: ignore[attr-defined]  # a transport of a server can
        else:
            self._arm()

    def data_received(self, data: bytes) -> None:
        """Arms the deadline with a request's first bytes, disarms it when its headers are whole."""
        super().data_received(data)
        idle = self._waiter is not None and not self._waiter.done()  # not the rest of a body, nor what lingers of one
        if self._messages:
            self._disarm()
            self._body = self._messages[-1][1]
        elif idle and self._deadline is None:
            self._arm()

    def close(self) -> None:
        """No more is heard from here on: whoever awaits the rest of a body is told so, what nobody reads is not waited for."""
        super().close()
        if self._body is not None and not self._body.is_eof():
            if self._request_in_progress:
                self._body.set_exception(ProblemError("store.busy", "the node is ending"))
            else:
                self._body.feed_eof()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Nothing is waited for any more."""
        self._disarm()
        self._addresses[self._address] -= 1
        if not self._addresses[self._address]:
            del self._addresses[self._address]
        super().connection_lost(exc)

    def _arm(self) -> None:
        self._deadline = self._loop.call_later(self._header_deadline_s, self._late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if self.transport is not None:
            body = json.dumps(ProblemError("http.header_timeout").document()).encode()
            head = "HTTP/1.1 408 Request Timeout\r\nContent-Type: application/problem+json\r\nConnection: close\r\n"
            self.transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            self.transport.close()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What the parser refuses, before any middleware, as a problem; the connection closes."""
        del request, message
        if status != 400:
            _log.error("request_failed", error=type(exc).__name__)
        response = problem_response(ProblemError(_parse_code(exc) if status == 400 else "internal"))
        response.force_close()
        return response


def _parse_code(error: BaseException | None) -> str:
    if isinstance(error, http_exceptions.LineTooLong):
        return "http.header_too_large"
    if isinstance(error, http_exceptions.InvalidHeader):
        return "http.header"
    if isinstance(error, http_exceptions.BadHttpMethod):
        return "http.method"
    if isinstance(error, http_exceptions.BadStatusLine):
        return "http.version"
    said = str(getattr(error, "message", "")).partition("\n")[0]  # below stand the sender's own bytes
    return next((code for words, code in _SAID.items() if words in said), "http.framing")


class Site(web.TCPSite):
    """aiohttp's TCP site with a deadline for the TLS handshake."""

    handshake_s: float = HANDSHAKE_DEADLINE_S

    async def start(self) -> None:
        """As TCPSite's."""
        await web.BaseSite.start(self)
        assert self._runner.server is not None  # it was set up
        self._server = await asyncio.get_running_loop().create_server(
            self._runner.server, self._host, self._port, ssl=self._ssl_context, backlog=self._backlog,
            ssl_handshake_timeout=self.handshake_s if self._ssl_context else None,
        )  # fmt: skip


web_server.RequestHandler = DeadlineHandler  # type: ignore[attr-defined]  # aiohttp offers no other way in


@web.middleware
async def problems(request: web.Request, handler: Endpoint) -> web.StreamResponse:
    """Every error of an endpoint becomes a problem document."""
    try:
        check_framing(request)
        return await handler(request)
    except ProblemError as problem:
        return problem_response(problem)
    except Unavailable:
        return problem_response(ProblemError("store.busy", "the database cannot be reached"))
    except web.HTTPException as error:
        code = _STATUS.get(error.status, "internal") if request.method in METHODS else "http.method"
        response = problem_response(ProblemError(code))
        if code == "http.method":
            response.headers["Allow"] = error.headers.get("Allow", ", ".join(METHODS))
        return response
    except Exception:  # the last line of defence: a problem outside, the trace in our own log
        _log.exception("request_failed", route=str(request.match_info.route.resource))
        return problem_response(ProblemError("internal"))


def unless_halted(halted: Callable[[], ProblemError | None], *, but: tuple[str, ...]) -> Middleware:
    """Answers everything with the problem that halted the ledger, but for paths that begin with `but`."""

    @web.middleware
    async def middleware(request: web.Request, handler: Endpoint) -> web.StreamResponse:
        problem = halted()
        if problem is not None and not request.path.startswith(but):
            raise ProblemError(problem.code, problem.detail)
        return await handler(request)

    return middleware


def check_framing(request: web.Request) -> None:
    """`http.*` for what no client of ours sends: old versions, encodings, upgrades, too many headers."""
    if request.version not in (HttpVersion10, HttpVersion11) or "Host" not in request.headers:
        raise ProblemError("http.version", "send HTTP/1.1 with a Host")
    transfer = [value.lower() for value in request.headers.getall("Transfer-Encoding", [])]
    if transfer and (transfer != ["chunked"] or request.version != HttpVersion11):
        raise ProblemError("http.framing", "the one transfer coding is chunked, in HTTP/1.1")
    if "Content-Encoding" in request.headers:
        raise ProblemError("http.content_encoding", "send the body as it is")
    if "Upgrade" in request.headers:
        raise ProblemError("http.upgrade", "no upgrade is offered")
    if len(request.headers) > HEADERS_MAX:
        raise ProblemError("http.header_count", f"more than {HEADERS_MAX} headers")


async def leave_expect(request: web.Request) -> None:
    """Leaves `Expect: 100-continue` to `read_body`: aiohttp would answer it before any check on the headers."""
    del request


async def read_body(request: web.Request, *, bytes_max: int, media_type: str, grace_s: float = BODY_GRACE_S) -> bytes:
    """The body, bounded in size and time; `http.media_type`, `http.too_large`, `http.body_timeout`, `http.framing` else."""
    streamed = stream_body(
        request, bytes_max=bytes_max, media_type=media_type, grace_s=grace_s, longest_s=BODY_DEADLINE_S
    )
    return b"".join([chunk async for chunk in streamed])


async def stream_body(
    request: web.Request,
    *,
    bytes_max: int,
    media_type: str,
    grace_s: float = BODY_GRACE_S,
    longest_s: float = math.inf,
) -> AsyncIterator[bytes]:
    """The body as it comes, bounded as in `read_body`; without `longest_s` it may take as long as its rate allows."""
    if request.content_type != media_type:
        raise ProblemError("http.media_type", f"send {media_type}")
    if (request.content_length or 0) > bytes_max:
        raise ProblemError("http.too_large", f"more than {bytes_max} bytes")
    if request.headers.get("Expect", "").lower() == "100-continue" and request.version == HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # as aiohttp's own answer does: the response has not begun
    loop = asyncio.get_running_loop()
    started, size = loop.time(), 0
    try:
        while not request.content.at_eof():
            deadline = started + min(longest_s, grace_s + size / BODY_RATE_MIN)
            async with asyncio.timeout_at(deadline):
                chunk = await request.content.readany()
            size += len(chunk)
            if size > bytes_max:
                raise ProblemError("http.too_large", f"more than {bytes_max} bytes")
            yield chunk
    except TimeoutError:
        raise ProblemError("http.body_timeout", "the body came too slowly") from None
    except (ConnectionError, web.RequestPayloadError):
        raise ProblemError("http.framing", "the body does not end as announced") from None


def wait_seconds(request: web.Request, longest: int = 30) -> int:
    """Seconds of `Prefer: wait=` (RFC 7240), at most `longest`; 0 without."""
    for preference in request.headers.get("Prefer", "").split(","):
        name, _, value = preference.strip().partition("=")
        if name == "wait":
            return min(whole_number(value) or 0, longest)
    return 0


def whole_number(text: str) -> int | None:
    """A number of up to 17 digits, so that PostgreSQL takes it as well; None for any other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else None


def application(routes: Sequence[web.RouteDef], *middlewares: Any) -> web.Application:
    """An application over routes and the pages of problems, with `problems` outermost."""
    app = web.Application(middlewares=[problems, *middlewares])
    for route in [*routes, *problem_routes()]:
        app.router.add_route(route.method, route.path, route.handler, expect_handler=leave_expect)
    return app
