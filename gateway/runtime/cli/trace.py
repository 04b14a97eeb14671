"""`tracewire submit`, `show` and `token`: HTTP clients of the node's own `/v1`."""

import asyncio
import json as jsonlib
from pathlib import Path
from typing import Annotated, Any, Self

import aiohttp
from cyclopts import Parameter

from gateway.runtime.cli.client import key_path
from gateway.runtime.cli.say import clock, problems, read_file, say
from gateway.runtime.settings import Settings, load_settings
from gateway.runtime.world import SystemIds
from keys.files import read_private
from keys.tokens import client_assertion
from protocols.problems import CODES, Fault, ProblemError
from protocols.strict import parse_object

AsJson = Annotated[bool, Parameter(name="--json", negative="")]
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_FILE_BYTES_MAX = 512 * 1024
_ANSWER_BYTES_MAX = 512 * 1024 * 1024
DEFAULT_HANDLING = {"codes": ["PURPOSE_TRACING_ONLY", "NO_ONWARD_WITHOUT_CONSENT"], "purpose": "TRACING"}


class AgencyClient:
    """A client of `/v1` that gets itself a token; `actor` must be one of the client's."""

    def __init__(self, node: Path, *, client: str = "local", actor: str = "local") -> None:
        self._settings: Settings = load_settings(node)
        self._key, self._client, self._actor = read_private(key_path(node, client)), client, actor
        scheme = "https" if self._settings.tls_key else "http"
        self.url = f"{scheme}://{self._settings.agency_bind}"
        self._session: aiohttp.ClientSession | None = None
        self._token, self._until = "", 0.0

    async def __aenter__(self) -> Self:
        """Opens the connections."""
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=False))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes them."""
        if self._session is not None:
            await self._session.close()

    async def token(self) -> str:
        """An access token with at least a minute of life."""
        if clock().timestamp() > self._until - 60:
            now = clock()
            assertion = client_assertion(self._key, self._client, self._actor, self._settings.audience, now)
            form = {
                "grant_type": "client_credentials",
                "client_assertion_type": _ASSERTION,
                "client_assertion": assertion,
            }
            answer = await self._json("POST", "/v1/token", data=form)
            self._token, self._until = answer["access_token"], now.timestamp() + answer["expires_in"]
        return self._token

    async def get(self, path: str, **params: str) -> dict[str, Any]:
        """The JSON of a GET."""
        headers = {"Authorization": f"Bearer {await self.token()}"}
        return await self._json("GET", path, headers=headers, params=params)

    async def download(self, path: str, **params: str) -> bytes:
        """The bytes of a GET."""
        headers = {"Authorization": f"Bearer {await self.token()}"}
        return await self._call("GET", path, headers=headers, params=params)

    async def post(self, path: str, body: dict[str, Any], *, version: int | None = None) -> dict[str, Any]:
        """The JSON of a POST under a fresh Idempotency-Key; `version` is the thread's, for If-Match."""
        headers = {
            "Authorization": f"Bearer {await self.token()}",
            "Idempotency-Key": str(SystemIds().uuid7()),
        }
        if version is not None:
            headers["If-Match"] = f'"{version}"'
        return await self._json("POST", path, headers=headers, json=body)

    async def _json(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        return parse_object(await self._call(method, path, **arguments), bytes_max=_ANSWER_BYTES_MAX)

    async def _call(self, method: str, path: str, **arguments: Any) -> bytes:
        assert self._session is not None  # used inside `async with`
        try:
            async with self._session.request(method, self.url + path, **arguments) as response:
                data = await response.read()
                found: dict[str, Any] = {} if response.status < 400 else jsonlib.loads(data)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            raise ProblemError("store.busy", f"no node answers at {self.url}: is `tracewire run` running?") from None
        if response.status >= 400:
            raise problem_of(found)
        return data


def problem_of(document: dict[str, Any]) -> ProblemError:
    """A problem document as the error it came from."""
    code = document.get("code")
    faults = [Fault(e["pointer"], e["code"], e["message"], e["fix"]) for e in document.get("errors", ())]
    known = code if isinstance(code, str) and code in CODES else "internal"
    detail = "; ".join([str(document.get("detail", "")), *(f"{fault.pointer} {fault.message}" for fault in faults)])
    return ProblemError(known, detail, errors=faults)


def submit(
    node: Path,
    file: Path,
    *,
    to: str,
    client: str = "local",
    actor: str = "local",
    json: AsJson = False,
) -> None:
    """Submit a trace request: the JSON body in FILE, to the member TO. Prints the thread to follow.

    The request is accepted when this returns: it is durable and in the ledger. `tracewire show` tells whether it
    arrived.

    Parameters
    ----------
    node
        The node's folder.
    file
        The body of `trace.request`, or {"body": ..., "handling": ..., "parts": ...}.
    to
        The recipient NETWORK/MEMBER.
    client
        The client to call as.
    actor
        The actor to speak for.
    json
        Print one JSON object.
    """

    async def send(found: dict[str, Any]) -> dict[str, Any]:
        whole = found if "body" in found else {"body": found}
        async with AgencyClient(node, client=client, actor=actor) as agency:
            return await agency.post("/v1/traces", {"to": to, "handling": DEFAULT_HANDLING, **whole})

    with problems(as_json=json):
        answer = asyncio.run(send(parse_object(read_file(file), bytes_max=_FILE_BYTES_MAX)))
        say(
            f"Accepted. Thread {answer['thread']}\nFollow it: tracewire show {node} {answer['thread']}",
            answer,
            as_json=json,
        )


def show(
    node: Path,
    thread: str | None = None,
    *,
    client: str = "local",
    actor: str = "local",
    json: AsJson = False,
) -> None:
    """Show the newest threads, or one thread with its messages.

    Parameters
    ----------
    node
        The node's folder.
    thread
        A thread's id; without it the newest 50 are listed.
    client
        The client to call as.
    actor
        The actor to speak for.
    json
        Print one JSON object.
    """

    async def read() -> dict[str, Any]:
        async with AgencyClient(node, client=client, actor=actor) as agency:
            return await agency.get(f"/v1/traces/{thread}" if thread else "/v1/traces")

    with problems(as_json=json):
        found = asyncio.run(read())
        say(_thread_text(found) if thread else _threads_text(found), found, as_json=json)


def _threads_text(found: dict[str, Any]) -> str:
    rows = [f"{leg['thread']}  {leg['state']:<12} {leg['role']:<9} {leg['counterpart']}" for leg in found["traces"]]
    return "\n".join(rows) or "No thread yet: tracewire submit"


def _thread_text(found: dict[str, Any]) -> str:
    lines = [f"Thread {found['thread']} with {found['counterpart']}: {found['state']} (version {found['version']})"]
    for message in found["messages"]:
        place = message["ledger"]
        lines.append(f"{message['at']}  {message['type']:<22} {message['from']} -> {message['to']}  {message['state']}")
        lines.append(f"    ledger {place['origin']} entry {place['index']}")
        lines += [f"    {line}" for line in jsonlib.dumps(message.get("body", {}), indent=2).splitlines()]
    if "review" in found:
        lines.append(f"Waits for a person: {found['review']['reason']}")
        lines += [f"    candidate {each['record_ref']} ({each['score']})" for each in found["review"]["candidates"]]
    return "\n".join(lines)


def token(node: Path, *, client: str = "local", actor: str = "local", json: AsJson = False) -> None:
    """Print an access token of five minutes, for trying the interface with another HTTP client.

    Parameters
    ----------
    node
        The node's folder.
    client
        The client to call as.
    actor
        The actor to speak for.
    json
        Print one JSON object.
    """

    async def get() -> str:
        async with AgencyClient(node, client=client, actor=actor) as agency:
            return await agency.token()

    with problems(as_json=json):
        found = asyncio.run(get())
        say(found, {"access_token": found}, as_json=json)
