"""Pages for people: the reference of the interface, and a page for every problem code. No script, nothing from elsewhere."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import cache, partial
from typing import Any

from aiohttp import web
from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from gateway.http.causes import CAUSES
from protocols.problems import CODES, ProblemError
from protocols.strict import dump_json

_templates = Environment(
    loader=PackageLoader("gateway.http", "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
_templates.filters["marked"] = lambda text: Markup(  # noqa: S704  # what is not ours is escaped first
    re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text or "")))
)
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "public, max-age=3600",
}
RETRY = {
    "never": "No: the same request will fail again.",
    "later": "Yes, later: send the same request again after the Retry-After seconds.",
    "after-fix": "Yes, when what is wrong has been put right.",
}
Endpoint = Callable[[web.Request], Awaitable[web.Response]]


def _page(make: Callable[[], str | bytes], media: str = "text/html") -> Endpoint:
    """Serves what is made when it is first asked for: a node that starts does not wait for pages that nobody reads."""
    made = cache(make)

    async def endpoint(request: web.Request) -> web.Response:
        del request
        body = await asyncio.to_thread(made)
        data = body.encode() if isinstance(body, str) else body
        charset = None if media == "application/json" else "utf-8"
        return web.Response(body=data, content_type=media, charset=charset, headers=_HEADERS)

    return endpoint


async def _to_the_reference(request: web.Request) -> web.Response:
    del request
    return web.Response(status=302, headers={"Location": "/v1"})


async def _problem(request: web.Request) -> web.Response:
    code = request.match_info["code"]
    if code not in CODES:
        raise ProblemError("http.not_found")
    kind = CODES[code]
    page = _page(partial(_rendered, "problem.html", code=code, kind=kind, cause=CAUSES[code], retry=RETRY[kind.retry]))
    return await page(request)


def problem_routes() -> list[web.RouteDef]:
    """What every listener serves: the `type` of a problem document is the page that explains it."""
    return [
        web.get("/problems", _page(partial(_rendered, "problems.html", codes=CODES))),
        web.get("/problems/{code}", _problem),
        web.get("/style.css", _page(partial(_rendered, "style.css"), "text/css")),
    ]


def reference_routes(make: Callable[[], dict[str, Any]]) -> list[web.RouteDef]:
    """The OpenAPI document and its page: no token is needed to read how to get one."""
    document = cache(make)
    return [
        web.get("/", _to_the_reference),
        web.get("/v1/openapi.json", _page(lambda: dump_json(document()), "application/json")),
        web.get("/v1", _page(lambda: _rendered("reference.html", document=document()))),
    ]


def _rendered(template: str, **given: object) -> str:
    return _templates.get_template(template).render(**given)
