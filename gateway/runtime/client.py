"""A typed client of the agency interface `/v1`: gets its own tokens, repeats nothing twice, gives models, raises problems.

The models are those from which the interface's own description is made (`gateway.http.documents`).
"""

import mimetypes
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, Self

import aiohttp
from pydantic import ValidationError

from gateway.http.batch import NDJSON
from gateway.http.documents import Accepted, BatchLine, Event, Events, Problem, Thread, Threads, ThreadWhole
from gateway.http.openapi import OCTETS
from gateway.runtime.settings import key_path, load_settings
from gateway.runtime.world import SystemClock, SystemIds
from keys.files import read_private
from keys.tokens import client_assertion
from protocols.limits import CONNECTIONS_AN_ADDRESS_MAX
from protocols.problems import CODES, Fault, ProblemError
from protocols.strict import parse_object

_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ANSWER_BYTES_MAX = 512 * 1024 * 1024
_WAIT_S = 30
DEFAULT_HANDLING = {"codes": ["PURPOSE_TRACING_ONLY", "NO_ONWARD_WITHOUT_CONSENT"], "purpose": "TRACING"}
Json = dict[str, Any]


class AgencyClient:
    """A client of one node; use it in `async with`. Every method raises ProblemError, `store.busy` where none answers.

    `key` is the client's private key as PEM, `actor` one of the client's actors, `audience` NETWORK/MEMBER/v1/token,
    `purpose` what content is read for (a code of that list), `tls` what the node's certificate is checked with (None: the machine's authorities).
    """

    def __init__(
        self,
        url: str,
        *,
        audience: str,
        client: str,
        actor: str,
        key: bytes,
        purpose: str = "TRACING",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.url, self._audience, self._client, self._actor, self._key = url, audience, client, actor, key
        self._purpose = purpose
        self._tls, self._clock = tls, SystemClock()
        self._session: aiohttp.ClientSession | None = None
        self._token, self._until = "", 0.0

    @classmethod
    def of_node(cls, node: Path, *, client: str = "local", actor: str = "local", purpose: str = "TRACING") -> Self:
        """For a node's folder on this machine: its address, its certificate, and the client's key in it."""
        settings = load_settings(node)
        tls = None
        if settings.tls_key and settings.tls_certificate:  # this very certificate, whatever name it is for
            tls = ssl.create_default_context(cafile=node / settings.tls_certificate)
            tls.check_hostname = False
            tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        url = f"{'https' if tls else 'http'}://{settings.agency_bind}"
        key = read_private(key_path(node, client))
        return cls(url, audience=settings.audience, client=client, actor=actor, key=key, purpose=purpose, tls=tls)

    async def __aenter__(self) -> Self:
        """Opens the connections."""
        patience = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=2 * _WAIT_S)
        connector = aiohttp.TCPConnector(limit=CONNECTIONS_AN_ADDRESS_MAX // 2, ssl=self._tls or True)
        self._session = aiohttp.ClientSession(connector=connector, timeout=patience)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes them."""
        if self._session is not None:
            await self._session.close()

    async def submit(
        self,
        to: str,
        body: Json,
        *,
        handling: Mapping[str, Any] = DEFAULT_HANDLING,
        parts: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> Accepted:
        """Submits a trace request; give a `key` of your own to repeat it after a broken line without doing it twice."""
        said = {"to": to, "body": body, "handling": handling, **({"parts": parts} if parts else {})}
        return Accepted.model_validate(await self.post("/v1/traces", said, key=key))

    async def batch(self, data: bytes, media: str, *, key: str) -> AsyncIterator[BatchLine]:
        """Submits many; what became of each line, as the node says it, then the counts.

        Again with the same key: lines that were accepted get the same answer. `store.busy` where the answer is cut.
        """
        headers = {"Content-Type": media, "Accept": NDJSON, "Idempotency-Key": key}
        counted = False
        async with self._asked("POST", "/v1/batches", headers=headers, data=BytesIO(data)) as response:
            async for line in response.content:
                found = BatchLine.model_validate(parse_object(line, bytes_max=_ANSWER_BYTES_MAX))
                counted = found.accepted is not None
                yield found
        if not counted:
            raise ProblemError("store.busy", "the answer was cut: send the file again under the same key")

    async def threads(self, **query: str) -> AsyncIterator[Thread]:
        """All threads, newest first; `state` and `limit` as in the interface."""
        while True:
            page = Threads.model_validate(await self.get("/v1/traces", **query))
            for thread in page.traces:
                yield thread
            if page.next is None:
                return
            query["after"] = page.next

    async def thread(self, thread: str) -> ThreadWhole:
        """A thread with its messages."""
        return ThreadWhole.model_validate(await self.get(f"/v1/traces/{thread}"))

    async def reply(
        self,
        thread: Thread,
        how: Literal["acknowledgements", "answers", "refusals"],
        body: Json,
        *,
        handling: Mapping[str, Any] = DEFAULT_HANDLING,
        key: str | None = None,
    ) -> Accepted:
        """Acknowledges, answers or refuses a thread as it was read; `precondition.failed` where it has moved on."""
        said = {"body": body, "handling": handling}
        return Accepted.model_validate(
            await self.post(f"/v1/traces/{thread.thread}/{how}", said, version=thread.version, key=key)
        )

    async def follow(self, after: int = 0) -> AsyncIterator[Event]:
        """The feed from here on, without end. Asking on says that your system has handled the lines before."""
        while True:
            wait = {"Prefer": f"wait={_WAIT_S}"}
            page = Events.model_validate(await self._json("GET", f"/v1/events?after={after}", headers=wait))
            for event in page.events:
                yield event
                after = event.seq

    async def evidence(self, thread: str, **query: str) -> bytes:
        """The evidence file of a thread."""
        return await self.data(f"/v1/traces/{thread}/evidence", **query)

    async def data(self, path: str, **params: str) -> bytes:
        """The bytes of a GET."""
        async with self._asked("GET", path, params=params) as response:
            return await response.read()

    async def attach(self, file: Path) -> Json:
        """Uploads a file; what a message repeats under `attachments`, the digest for its body included."""
        media = mimetypes.guess_type(file.name)[0] or OCTETS
        with file.open("rb") as data:
            sealed = await self._json("POST", "/v1/attachments", headers={"Content-Type": OCTETS}, data=data)
        return {"name": file.name[-128:], "media_type": media, **sealed}

    async def save(self, thread: str, message: str, attachment: Mapping[str, Any], file: Path) -> None:
        """Writes an attachment, as the thread lists it, to a file; where a part of it is there already, the rest."""
        path = f"/v1/traces/{thread}/messages/{message}/attachments/{attachment['sha256']}"
        part = file.with_name(f"{file.name}.part")
        held = part.stat().st_size if part.exists() else 0
        if held < attachment["size"]:
            headers = {"Range": f"bytes={held}-"} if held else {}
            async with self._asked("GET", path, headers=headers) as response:
                with part.open("ab") as data:
                    async for chunk in response.content.iter_chunked(1024 * 1024):
                        data.write(chunk)
        part.rename(file)

    async def get(self, path: str, **params: str) -> Json:
        """The JSON of a GET of whatever else there is."""
        return await self._json("GET", path, params=params)

    async def upload(self, path: str, data: bytes, media: str) -> Json:
        """The JSON of a POST of a file."""
        return await self._json("POST", path, headers={"Content-Type": media}, data=BytesIO(data))

    async def pages(self, path: str, name: str) -> AsyncIterator[Json]:
        """Every item of a list, page by page."""
        query: dict[str, str] = {}
        while True:
            page = await self.get(path, **query)
            for each in page[name]:
                yield each
            if "next" not in page:
                return
            query = {"after": page["next"]}

    async def post(self, path: str, body: Json, *, version: int | None = None, key: str | None = None) -> Json:
        """The JSON of a POST, under a fresh Idempotency-Key if none is given; `version` is the thread's, for If-Match."""
        headers = {"Idempotency-Key": key or str(SystemIds(SystemClock()).uuid7())}
        if version is not None:
            headers["If-Match"] = f'"{version}"'
        return await self._json("POST", path, headers=headers, json=body)

    async def token(self) -> str:
        """An access token with at least a minute of life."""
        now = self._clock.now()
        if now.timestamp() > self._until - 60:
            assertion = client_assertion(
                self._key, self._client, self._actor, self._audience, now, purpose=self._purpose
            )
            form = {
                "grant_type": "client_credentials",
                "client_assertion_type": _ASSERTION,
                "client_assertion": assertion,
            }
            async with self._call("POST", "/v1/token", data=form) as response:
                answer = await response.json()
            self._token, self._until = answer["access_token"], now.timestamp() + answer["expires_in"]
        return self._token

    async def _json(self, method: str, path: str, **arguments: Any) -> Json:
        async with self._asked(method, path, **arguments) as response:
            return parse_object(await response.read(), bytes_max=_ANSWER_BYTES_MAX)

    @asynccontextmanager
    async def _asked(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, **arguments: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        given = {"Authorization": f"Bearer {await self.token()}", **(headers or {})}
        async with self._call(method, path, headers=given, **arguments) as response:
            yield response

    @asynccontextmanager
    async def _call(self, method: str, path: str, **arguments: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, with its body to be read; a problem document as the ProblemError it came from."""
        assert self._session is not None  # used inside `async with`
        try:
            async with self._session.request(method, self.url + path, **arguments) as response:
                if response.status >= 400:
                    raise _problem(await response.read())
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError):
            raise ProblemError("store.busy", f"no node answers at {self.url}: is `tracewire run` running?") from None


def _problem(data: bytes) -> ProblemError:
    try:
        found = Problem.model_validate(parse_object(data, bytes_max=_ANSWER_BYTES_MAX))
    except (ProblemError, ValidationError):
        return ProblemError("internal", "what answers is no node")
    faults = [Fault(each.pointer, each.code, each.message, each.fix) for each in found.errors or ()]
    detail = "; ".join([found.detail, *(f"{fault.pointer} {fault.message}" for fault in faults)])
    return ProblemError(found.code if found.code in CODES else "internal", detail, errors=faults)
