"""The operations listener: `/livez`, `/readyz`, `/metrics`; loopback unless somebody binds it elsewhere."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import choose_encoder

from gateway.http.causes import CAUSES
from gateway.http.serve import application
from protocols.problems import CODES

ACCESS_LOG = logging.getLogger(__name__)  # aiohttp counts requests only where it is given one; nothing is written to it


class Operations:
    """Liveness, readiness by named checks, metrics without case data."""

    def __init__(
        self,
        *,
        wrong: Callable[[], Awaitable[Mapping[str, str]]],
        warnings: Callable[[], Mapping[str, str]],
        registry: CollectorRegistry,
    ) -> None:
        """Checks are given as check -> problem code, empty when all is well; `wrong` also readies the registry."""
        self._wrong, self._warnings, self._registry = wrong, warnings, registry

    def app(self) -> web.Application:
        """The listener's application."""
        return application([
            web.get("/livez", self.get_livez),
            web.get("/readyz", self.get_readyz),
            web.get("/metrics", self.get_metrics),
        ])  # fmt: skip

    async def get_livez(self, request: web.Request) -> web.Response:
        """200 while the event loop turns."""
        del request
        return web.json_response({"live": True})

    async def get_readyz(self, request: web.Request) -> web.Response:
        """200 when nothing keeps this node from its work, else 503; each check that fails with its cause and its fix.

        Warnings beside it are about others and need a person here.
        """
        del request
        wrong = _told(await self._wrong())
        shown = {"ready": not wrong, "wrong": wrong, "warnings": _told(self._warnings())}
        return web.json_response(shown, status=503 if wrong else 200)

    async def get_metrics(self, request: web.Request) -> web.Response:
        """Prometheus or OpenMetrics text, as the Accept header asks."""
        await self._wrong()
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})


def _told(codes: Mapping[str, str]) -> dict[str, dict[str, str]]:
    return {
        check: {"code": code, "what": CODES[code].title, "why": CAUSES[code], "fix": CODES[code].fix}
        for check, code in codes.items()
    }


def counted(listener: str, requests: Histogram) -> type[AbstractAccessLogger]:
    """An access log that counts, in place of one that writes: labels listener, method, route (its template), status."""

    class Counted(AbstractAccessLogger):
        def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
            route = ""
            with suppress(AssertionError, AttributeError):  # never routed, as what the parser refuses; or no such route
                route = request.match_info.route.resource.canonical  # type: ignore[attr-defined]
            requests.labels(listener, request.method if route else "", route, str(response.status)).observe(time)

    return Counted
