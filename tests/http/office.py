"""A node with its agency listener over HTTP, and clients of it with their tokens."""

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import aiohttp

from adapters.postgres.threads import PostgresClients
from gateway.runtime.cli.client import make_client
from gateway.runtime.settings import key_path
from keys.tokens import client_assertion
from tests.federation import HANDLING, Node, trace_request
from tests.http.wire import listening

Json = dict[str, Any]
ALL = (
    "trace:write",
    "trace:read",
    "parts:read",
    "content:erase",
    "audit:read",
    "ledger:read",
    "evidence:read",
    "approval:rule",
)
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_keys = itertools.count(1)


@dataclass
class Reply:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Json:
        found: Json = json.loads(self.body)
        return found

    @property
    def said(self) -> tuple[int, str]:
        assert self.headers["Content-Type"].startswith("application/problem+json")
        return self.status, self.json["code"]


@dataclass
class Office:
    """A node with its agency listener, and clients of it."""

    node: Node
    session: aiohttp.ClientSession
    url: str
    tokens: dict[tuple[str, str], str] = field(default_factory=dict)

    async def register(self, client: str, actors: tuple[str, ...], scopes: tuple[str, ...]) -> None:
        await make_client(self.node.folder, PostgresClients(self.node.pool), client, actors, scopes)

    def assertion(
        self, client: str, actor: str, *, aud: str = "", ago: timedelta = timedelta(), purpose: str = "TRACING"
    ) -> str:
        key, now = key_path(self.node.folder, client).read_bytes(), self.node.fed.clock.now() - ago
        return client_assertion(key, client, actor, aud or self.node.settings.audience, now, purpose=purpose)

    async def grant(self, assertion: str, **form: str) -> Reply:
        given = {"grant_type": "client_credentials", "client_assertion_type": ASSERTION, "client_assertion": assertion}
        return await self.call("POST", "/v1/token", data=given | form)

    async def token(self, client: str = "all", actor: str = "A") -> str:
        if (client, actor) not in self.tokens:
            self.tokens[client, actor] = (await self.grant(self.assertion(client, actor))).json["access_token"]
        return self.tokens[client, actor]

    async def call(self, method: str, path: str, **arguments: Any) -> Reply:
        async with self.session.request(method, self.url + path, **arguments) as response:
            return Reply(response.status, response.headers, await response.read())

    async def get(self, path: str, *, client: str = "all", headers: Json | None = None, **params: str) -> Reply:
        given = {"Authorization": f"Bearer {await self.token(client)}", **(headers or {})}
        return await self.call("GET", path, headers=given, params=params)

    async def post(self, path: str, body: Any, *, client: str = "all", **headers: str) -> Reply:
        """A POST under a fresh Idempotency-Key; headers as Idempotency_Key="..."."""
        given = {"Authorization": f"Bearer {await self.token(client)}", "Idempotency-Key": f"fresh key {next(_keys)}"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        given = {name: value for name, value in given.items() if value}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.call("POST", path, data=data, headers={"Content-Type": "application/json", **given})


@dataclass
class World:
    asker: Office
    holder: Office

    def request(self, serial: str = "ABC1234", **more: Any) -> Json:
        return {"to": self.holder.node.name, "body": trace_request(serial), "handling": HANDLING, **more}

    async def arrived(self, serial: str = "ABC1234", **more: Any) -> Json:
        """A request that has come to the holder; what the asker was told."""
        asked = (await self.asker.post("/v1/traces", self.request(serial, **more))).json
        await self.asker.node.becomes(asked, "delivered")
        return asked


@asynccontextmanager
async def office_of(node: Node, session: aiohttp.ClientSession) -> AsyncIterator[Office]:
    async with listening(node.parts.listeners["agency"]) as port:
        office = Office(node, session, f"http://127.0.0.1:{port}")
        await office.register("all", ("A", "B"), ALL)
        for scope in ALL:
            await office.register(scope.replace(":", "-"), ("A",), (scope,))
        yield office
