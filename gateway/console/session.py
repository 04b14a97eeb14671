"""Who looks at the console: a one-time link of the node's operator makes a session of some hours."""

from collections import deque
from collections.abc import Awaitable, Callable
from datetime import timedelta
from urllib.parse import parse_qs

from aiohttp import web

from gateway.console.explorer import Endpoint, page
from gateway.services.policy import permit_client
from gateway.services.session import SESSION_HOURS, Sessions
from protocols.ports.access import Caller
from protocols.problems import ProblemError

COOKIE = "__Host-tracewire"
_FORM_BYTES_MAX = 4_096
_FAILURES_MAX, _FAILURES_S = 20, 300.0


class Door:
    """Login, logout, and the guard of every page. Nothing is told of why a link does not open."""

    def __init__(
        self, sessions: Sessions, now_s: Callable[[], float], looks: Callable[[Caller], Awaitable[None]]
    ) -> None:
        """`looks` is told who is about to see a page."""
        self._sessions, self._now_s, self._looks = sessions, now_s, looks
        self._failures = deque[float](maxlen=_FAILURES_MAX)

    def routes(self) -> list[web.RouteDef]:
        """A link shows a button, since programs that look at links must not use it up."""
        return [
            web.get("/audit/login", self.get_login),
            web.post("/audit/login", self.post_login),
            web.post("/audit/logout", self.post_logout),
        ]

    def guard(self, endpoint: Endpoint) -> Endpoint:
        """Only with a session; else the page that says how to get one."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            caller = await self._caller(request)
            if caller is None:
                return page("login.html", status=401, link="", wrong="")
            permit_client(caller, "ledger:read")
            permit_client(caller, "audit:read")
            await self._looks(caller)
            return await endpoint(request)

        return guarded

    async def get_login(self, request: web.Request) -> web.Response:
        """The button of a link; nothing is used up by looking."""
        return page("login.html", link=request.query.get("link", "")[:128], wrong="")

    async def post_login(self, request: web.Request) -> web.StreamResponse:
        """Opens a session under a fresh id; the same answer for every link that does not open."""
        _same_origin(request)
        now = self._now_s()
        session = await self._sessions.enter(await _link(request))
        if session is None:
            if len(self._failures) == _FAILURES_MAX and now - self._failures[0] < _FAILURES_S:
                raise ProblemError("ui.rate", "too many links that did not open in five minutes")
            self._failures.append(now)
            wrong = "This link does not open: it was used, it is older than ten minutes, or it never was one."
            return page("login.html", status=403, link="", wrong=wrong)
        response = web.Response(status=303, headers={"Location": "/audit", "Cache-Control": "no-store"})
        longest = int(timedelta(hours=SESSION_HOURS).total_seconds())
        response.set_cookie(COOKIE, session, max_age=longest, path="/", secure=True, httponly=True, samesite="Strict")
        return response

    async def post_logout(self, request: web.Request) -> web.Response:
        """Ends the session, here and in the browser."""
        _same_origin(request)
        await self._sessions.leave(request.cookies.get(COOKIE, ""))
        response = web.Response(
            status=303, headers={"Location": "/audit/login", "Cache-Control": "no-store", "Clear-Site-Data": '"cache"'}
        )
        response.del_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="Strict")
        return response

    async def _caller(self, request: web.Request) -> Caller | None:
        return await self._sessions.caller(request.cookies.get(COOKIE, ""))


def loopback(port: int) -> Callable[[Endpoint], Endpoint]:
    """The guard of pages on the auditor's own machine: for no name that another site could make point there."""

    def guard(endpoint: Endpoint) -> Endpoint:
        async def guarded(request: web.Request) -> web.StreamResponse:
            if request.host not in (f"127.0.0.1:{port}", f"localhost:{port}"):
                raise ProblemError("http.misdirected", "these pages are for this machine alone")
            if request.headers.get("Sec-Fetch-Site") not in (None, "none", "same-origin"):
                raise ProblemError("ui.csrf", "another site asked")
            return await endpoint(request)

        return guarded

    return guard


async def _link(request: web.Request) -> str:
    """The secret of the form; empty where there is none."""
    data = await request.content.read(_FORM_BYTES_MAX)
    found = parse_qs(data.decode("ascii", "replace"), max_num_fields=16) if data.count(b"&") < 16 else {}
    return found.get("link", [""])[0][:128]


def _same_origin(request: web.Request) -> None:
    """`ui.csrf` for a form of another site (Fetch Metadata; the origin where a browser does not send it)."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin", "")
    host = origin.partition("://")[2]
    if site not in (None, "same-origin") or (site is None and host != request.host):
        raise ProblemError("ui.csrf", "the form was not sent by this page")
