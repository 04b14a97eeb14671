"""The operations listener: `/livez`, `/readyz`, `/metrics`; loopback unless somebody binds it elsewhere."""

from collections.abc import Callable, Mapping

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from gateway.http.serve import application

Health = Callable[[], Mapping[str, str]]
"""check -> problem code; empty when all is well."""


class Operations:
    """Liveness, readiness by named checks, metrics without case data."""

    def __init__(self, *, wrong: Health, warnings: Health, registry: CollectorRegistry) -> None:
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
        """200 when nothing keeps this node from its work, else 503 with every check that fails; warnings beside it."""
        del request
        wrong = dict(self._wrong())
        shown = {"ready": not wrong, "wrong": wrong, "warnings": dict(self._warnings())}
        return web.json_response(shown, status=503 if wrong else 200)

    async def get_metrics(self, request: web.Request) -> web.Response:
        """Prometheus or OpenMetrics text, as the Accept header asks."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})
