"""Signed requests to peers over HTTP: TLS 1.3 with the peer's key pinned by the directory; every read bounded."""

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import sha256
from io import BytesIO
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp

from protocols.directory import Record
from protocols.exchange.blobs import BLOB_TYPE, COMPLETE, OFFSET
from protocols.exchange.httpsig import Request, content_digest, signature_header, signature_input
from protocols.exchange.lines import MEDIA_TYPE
from protocols.exchange.probe import PROBE_BYTES_MAX
from protocols.ledger.witness import REQUEST_TYPE, SIZE_TYPE
from protocols.limits import DIRECTORY_BYTES_MAX, NOTE_BYTES_MAX, POST_BYTES_MAX, REQUEST_BYTES_MAX
from protocols.ports.crypto import Signer
from protocols.ports.transport import Layer
from protocols.ports.world import Clock
from protocols.problems import CODES, ProblemError
from protocols.strict import b64u, parse_object

_TIMEOUT = aiohttp.ClientTimeout(total=300, connect=10, sock_read=60)
_CONNECTIONS_A_PEER = 4
_NONE: Mapping[str, str] = {}
_LOOPBACK = re.compile(r"http://(127\.\d+\.\d+\.\d+|localhost|\[::1\])[:/]")


class PinnedConnector(aiohttp.TCPConnector):
    """Compares the key that a peer shows after the handshake with the directory's pins, before a byte is sent."""

    def __init__(self, pins: frozenset[str], spki_sha256: Callable[[bytes], bytes], context: ssl.SSLContext) -> None:
        super().__init__(limit=_CONNECTIONS_A_PEER, ssl=context)
        self._pins, self._spki_sha256 = pins, spki_sha256

    async def _wrap_create_connection(self, *args: Any, **kwargs: Any) -> Any:
        transport, protocol = await super()._wrap_create_connection(*args, **kwargs)
        check_pin(transport, self._pins, self._spki_sha256)
        return transport, protocol


def check_pin(transport: Any, pins: frozenset[str], spki_sha256: Callable[[bytes], bytes]) -> None:
    """Aborts a connection over TLS whose other end shows a key that is not among the pins: `peer.identity`."""
    tls = transport.get_extra_info("ssl_object")
    certificate = tls.getpeercert(binary_form=True) if tls is not None else None
    if tls is not None and (not certificate or b64u(spki_sha256(certificate)) not in pins):
        transport.abort()
        raise ProblemError("peer.identity", "the TLS key is not one that the directory lists")


class PeerClient:
    """The Transport port; a session of its own for every peer, so that one never uses up another's connections."""

    def __init__(
        self, *, signer: Signer, clock: Clock, spki_sha256: Callable[[bytes], bytes], plain_allowed: bool
    ) -> None:
        self._signer, self._clock, self._spki_sha256 = signer, clock, spki_sha256
        self._plain_allowed = plain_allowed
        self._sessions: dict[tuple[str, frozenset[str]], aiohttp.ClientSession] = {}

    async def close(self) -> None:
        """Closes every connection."""
        for session in self._sessions.values():
            await session.close()

    async def post(self, peer: Record, body: bytes) -> bytes:
        """The answer's body to POST /messages."""
        answer = await self._send(peer, "POST", "/exchange/v1/messages", body, POST_BYTES_MAX)
        if answer is None:
            raise ProblemError("peer.answer", "the peer has no exchange endpoint there")
        return answer

    async def fetch(self, peer: Record, wait_s: int) -> bytes:
        """The answer's body to GET /outbox."""
        wait = {"Prefer": f"wait={wait_s}"}
        answer = await self._send(peer, "GET", "/exchange/v1/outbox", None, POST_BYTES_MAX, wait)
        if answer is None:
            raise ProblemError("peer.answer", "the peer offers nothing to fetch: an older node")
        return answer

    async def receipts(self, peer: Record, body: bytes) -> None:
        """POST /outbox/receipts."""
        await self._send(peer, "POST", "/exchange/v1/outbox/receipts", body, NOTE_BYTES_MAX)

    async def blob_held(self, peer: Record, digest: bytes) -> int:
        """How many bytes the peer holds; -1 where it is whole there."""
        found = await self._ask(peer, "HEAD", _blob(digest), bytes_max=0)
        if found is None:
            return 0
        return -1 if found.headers.get(COMPLETE) == "?1" else _number(found.headers.get(OFFSET, ""), digits=12)

    async def put_blob(self, peer: Record, digest: bytes, *, offset: int, size: int, data: bytes) -> None:
        """A range of a blob."""
        ranged = {"Content-Range": f"bytes {offset}-{offset + len(data) - 1}/{size}"}
        await self._ask(peer, "PUT", _blob(digest), data, media=BLOB_TYPE, more=ranged, bytes_max=NOTE_BYTES_MAX)

    async def get_blob(self, peer: Record, digest: bytes, *, offset: int, length: int) -> bytes:
        """A range of a blob that the peer holds."""
        ranged = {"Range": f"bytes={offset}-{offset + length - 1}"}
        found = await self._ask(peer, "GET", _blob(digest), more=ranged, bytes_max=length)
        return found.data if found is not None else b""

    async def add_checkpoint(self, peer: Record, body: bytes) -> bytes | int:
        """A witness's signature lines, or the size that it holds."""
        path = "/exchange/v1/add-checkpoint"
        found = await self._ask(peer, "POST", path, body, media=REQUEST_TYPE, bytes_max=NOTE_BYTES_MAX)
        if found is None:
            raise ProblemError("peer.answer", "the peer witnesses nothing: an older node")
        if found.headers.get("Content-Type", "").partition(";")[0] == SIZE_TYPE:
            return _number(found.data.decode("ascii", "replace").removesuffix("\n"), digits=18)
        return found.data

    async def checkpoint(self, peer: Record, origin: str) -> bytes | None:
        """The newest note of `origin` that the peer holds, or None."""
        log = sha256(origin.encode()).hexdigest()
        return await self._send(peer, "GET", f"/exchange/v1/checkpoints/{log}", None, NOTE_BYTES_MAX)

    async def directory_file(self, peer: Record, name: str) -> bytes | None:
        """A TUF file that the peer holds, or None."""
        return await self._send(peer, "GET", f"/exchange/v1/directory/{name}", None, DIRECTORY_BYTES_MAX)

    async def tile(self, peer: Record, origin: str, path: str) -> bytes | None:
        """A hash tile of the peer's ledger by its C2SP path, or None."""
        log = sha256(origin.encode()).hexdigest()
        return await self._send(peer, "GET", f"/ledger/{log}/{path}", None, NOTE_BYTES_MAX)

    async def reach(self, peer: Record, layer: Layer) -> None:
        """Looks the host up, or connects to it with TLS or without; `peer.unreachable` or `peer.identity` else."""
        url = urlsplit(self._endpoint(peer))
        host, secure = url.hostname or "", url.scheme == "https"
        port = url.port or (443 if secure else 80)
        try:
            if layer == "dns":
                await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
                return
            context = _tls() if layer == "tls" and secure else None
            _, writer = await asyncio.open_connection(host, port, ssl=context)
        except ssl.SSLError as error:
            raise ProblemError("peer.identity", f"no TLS 1.3 is spoken there: {error.reason}") from error
        except OSError as error:
            number = error.errno or 0  # below 0: the resolver's own
            said = os.strerror(number) if number > 0 else error.strerror or type(error).__name__
            raise ProblemError("peer.unreachable", said) from error
        try:
            check_pin(writer.transport, _pins(peer), self._spki_sha256)
        finally:
            writer.transport.abort()

    async def time(self, peer: Record) -> datetime:
        """The Date header of an answer to a request that is not signed."""
        try:
            async with self._session(peer).get(self._endpoint(peer), allow_redirects=False) as response:
                return parsedate_to_datetime(response.headers["Date"]).replace(tzinfo=UTC)
        except (aiohttp.ClientError, OSError) as error:
            raise ProblemError("peer.unreachable", type(error).__name__) from error
        except (KeyError, ValueError) as error:
            raise ProblemError("peer.answer", "the answer has no Date") from error

    async def probe(self, peer: Record) -> bytes:
        """The signed answer to GET /probe."""
        answer = await self._send(peer, "GET", "/exchange/v1/probe", None, PROBE_BYTES_MAX)
        if answer is None:
            raise ProblemError("peer.answer", "what listens there knows no probes: no node, or an older one")
        return answer

    def _endpoint(self, peer: Record) -> str:
        """Where the peer is; `peer.unreachable` or `peer.identity` where nothing of ours may go."""
        if peer.endpoint is None:
            raise ProblemError("peer.unreachable", "the directory lists no endpoint of this member")
        url = peer.endpoint.url.rstrip("/")
        if not (url.startswith("https://") or (self._plain_allowed and _LOOPBACK.match(f"{url}/"))):
            raise ProblemError("peer.identity", "plain HTTP is only for loopback in a test network")
        return url

    def _session(self, peer: Record) -> aiohttp.ClientSession:
        pins = _pins(peer)
        key = peer.member, pins
        if key not in self._sessions:
            connector = PinnedConnector(pins, self._spki_sha256, _tls())
            self._sessions[key] = aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT, auto_decompress=False)
        return self._sessions[key]

    def _headers(self, method: str, uri: str, body: bytes | None, media: str) -> dict[str, str]:
        if body is None:
            request, headers = Request(method=method, uri=uri), {}
        else:
            digest = content_digest(sha256(body).digest())
            request = Request(method=method, uri=uri, content_type=media, digest=digest)
            headers = {"Content-Type": media, "Content-Digest": digest}
        given, base = signature_input(request, kid=self._signer.kid, created=self._clock.now())
        return headers | {"Signature-Input": given, "Signature": signature_header(self._signer.sign(base))}

    async def _send(
        self,
        peer: Record,
        method: str,
        path: str,
        body: bytes | None,
        bytes_max: int,
        more: Mapping[str, str] = _NONE,
    ) -> bytes | None:
        found = await self._ask(peer, method, path, body, bytes_max=bytes_max, more=more)
        return found.data if found is not None else None

    async def _ask(
        self,
        peer: Record,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        bytes_max: int,
        media: str = MEDIA_TYPE,
        more: Mapping[str, str] = _NONE,
    ) -> "_Answer | None":
        """The answer; None for a 404 to what was only read."""
        uri = self._endpoint(peer) + path
        headers = self._headers(method, uri, body, media) | dict(more)
        try:
            async with self._session(peer).request(
                method, uri, data=body and BytesIO(body), headers=headers, allow_redirects=False
            ) as response:
                data = await _read(response, bytes_max if response.status < 400 else NOTE_BYTES_MAX)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ProblemError("peer.unreachable", type(error).__name__) from error
        if response.status in (200, 204, 206) or (response.status, response.content_type) == (409, SIZE_TYPE):
            return _Answer(data, response.headers)
        if response.status == 404 and method != "POST":
            return None
        problem = ProblemError(_code_of(data), "the peer answered with a problem")
        problem.retry_after_s = float(_number(response.headers.get("Retry-After", "")))
        raise problem


class _Answer(NamedTuple):
    """What a peer answered with success."""

    data: bytes
    headers: Mapping[str, str]


def _blob(digest: bytes) -> str:
    return f"/exchange/v1/blobs/{digest.hex()}"


def _number(text: str, digits: int = 5) -> int:
    """A whole number of a header, as the seconds of a Retry-After; 0 for anything else, a date too."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= digits else 0


def _pins(peer: Record) -> frozenset[str]:
    return frozenset(peer.endpoint.spki) if peer.endpoint else frozenset()


def _tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the pin is the identity
    return context


async def _read(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    chunks, size = [], 0
    async for chunk in response.content.iter_chunked(65_536):
        size += len(chunk)
        if size > bytes_max:
            raise ProblemError("peer.answer", f"the answer is longer than {bytes_max} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _code_of(data: bytes) -> str:
    """The peer's problem code, if it is one of ours: an unproven problem ends no retry."""
    try:
        code = parse_object(data, bytes_max=REQUEST_BYTES_MAX).get("code")
    except ProblemError:
        code = None
    return code if isinstance(code, str) and code in CODES else "peer.answer"
