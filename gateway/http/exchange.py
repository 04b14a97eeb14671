"""The exchange listener: signed requests of peers, and the ledger for whoever may read it (docs/protocol.md section 4)."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

from aiohttp import web

from gateway.http.serve import application, read_body, wait_seconds
from gateway.services.blobs import Blobs
from gateway.services.committed import LedgerView
from gateway.services.link import Linking
from gateway.services.offer import Offer
from gateway.services.pace import Pace
from gateway.services.probe import Probe
from gateway.services.receive import Receive
from gateway.services.relay import Relay
from gateway.services.submit import current
from gateway.services.witness import Witness
from protocols.exchange.blobs import BLOB_TYPE, COMPLETE, OFFSET, parse_digest, parse_get, parse_put
from protocols.exchange.httpsig import Request, digest_of, parse_signature
from protocols.exchange.lines import MEDIA_TYPE, Post, encode_post, parse_post
from protocols.ledger.witness import REQUEST_TYPE, SIZE_TYPE
from protocols.limits import (
    BLOB_RANGE_BYTES_MAX,
    BODY_GRACE_S,
    BODY_RATE_MIN,
    NOTE_BYTES_MAX,
    PARCEL_BYTES,
    POST_BYTES_MAX,
    POSTS_A_MEMBER_MAX,
    POSTS_MAX,
)
from protocols.ports.crypto import Verifier
from protocols.ports.directory import DirectorySource
from protocols.ports.world import Clock
from protocols.problems import ProblemError

_PREFIX = "/exchange/v1"
_IMMUTABLE = {"Cache-Control": "public, max-age=31536000, immutable"}
_FRESH = {"Cache-Control": "no-cache"}


class Exchange:
    """Endpoints for peers. `url` is our endpoint as the directory lists it: what @target-uri must begin with."""

    def __init__(
        self,
        *,
        url: str,
        receive: Receive,
        relay: Relay,
        offer: Offer,
        blobs: Blobs,
        pace: Pace,
        directory: DirectorySource,
        ledger: LedgerView,
        probe: Probe,
        witness: Witness,
        linking: Linking,
        verifier: Verifier,
        clock: Clock,
    ) -> None:
        self._witness, self._linking = witness, linking
        self._url, self._receive, self._pace, self._directory = url.rstrip("/"), receive, pace, directory
        self._relay, self._offer, self._blobs = relay, offer, blobs
        self._ledger, self._probe, self._verifier, self._clock = ledger, probe, verifier, clock
        self._posts, self._ranges = Counter[str](), Counter[str]()  # held in memory at once, of each member

    def app(self, *middlewares: Any) -> web.Application:
        """The listener's application."""
        routes = [
            web.post(f"{_PREFIX}/messages", self.post_messages),
            web.get(f"{_PREFIX}/outbox", self.get_outbox),
            web.post(f"{_PREFIX}/outbox/receipts", self.post_receipts),
            web.put(f"{_PREFIX}/blobs/{{digest}}", self.put_blob),
            web.head(f"{_PREFIX}/blobs/{{digest}}", self.head_blob),
            web.get(f"{_PREFIX}/blobs/{{digest}}", self.get_blob, allow_head=False),
            web.get(f"{_PREFIX}/checkpoints/{{log}}", self.get_checkpoint),
            web.post(f"{_PREFIX}/add-checkpoint", self.add_checkpoint),
            web.get(f"{_PREFIX}/directory/{{name:.+}}", self.get_directory),
            web.get(f"{_PREFIX}/probe", self.get_probe),
            web.get("/ledger/{log}/checkpoint", self.get_own_checkpoint),
            web.get("/ledger/{log}/{tile:tile/.+}", self.get_tile),
        ]
        return application(routes, *middlewares)

    def _caller(self, request: web.Request, *, body: bool) -> tuple[str, bytes]:
        """The member whose request key signed this request, and the body's digest; verified on headers alone."""
        host = self._url.partition("://")[2]
        if request.host != host:
            raise ProblemError("http.misdirected", "the Host is not our endpoint")
        if request.query_string:
            raise ProblemError("http.query", "no query is accepted here")
        if "Signature" not in request.headers or "Signature-Input" not in request.headers:
            raise ProblemError("httpsig.missing", "Signature-Input and Signature are required")
        header = request.headers.get("Content-Digest", "")
        digest = digest_of(header) if body else b""
        signed = parse_signature(
            Request(
                method=request.method,
                uri=self._url + request.raw_path,
                content_type=request.headers.get("Content-Type", "") if body else None,
                digest=header if body else None,
            ),
            request.headers["Signature-Input"],
            request.headers["Signature"],
            self._clock.now(),
        )
        directory = current(self._directory)
        key = directory.request_keys.get(signed.kid)
        if key is None or not key.valid(self._clock.now()):
            raise ProblemError("httpsig.key", "no such request key in our directory")
        if not self._verifier.verify("Ed25519", key.key.public, signed.base, signed.signature):
            raise ProblemError("httpsig.signature", "the request signature does not hold")
        if not directory.active(key.member):
            raise ProblemError("peer.suspended", "the member is not active in the directory")
        return key.member, digest

    def _reader(self, request: web.Request) -> str:
        """Who asks for something to read; it costs a member of its parcels."""
        caller, _ = self._caller(request, body=False)
        self._pace.afford(caller)
        self._pace.spend(caller, parcels=1)
        return caller

    async def _in_exchange(self, caller: str) -> None:
        """`ledger.split_view`: with a member of whom two histories are held nothing is exchanged, either way."""
        await self._linking.check_member(caller, current(self._directory))

    async def post_messages(self, request: web.Request) -> web.Response:
        """Parcels in, receipts out."""

        async def answer(caller: str, post: Post) -> web.Response:
            if not self._relay.concerns(post):
                return _lines(await self._receive.receive(caller, post))
            await self._in_exchange(caller)
            return _lines(await self._relay.take(caller, post))

        return await self._posted(request, answer, parcels=True)

    async def post_receipts(self, request: web.Request) -> web.Response:
        """Receipts of what a member fetched here, or of what a hub carried for us."""

        async def take(caller: str, post: Post) -> web.Response:
            await self._in_exchange(caller)
            await self._offer.take(caller, post)
            return web.Response(status=204)

        return await self._posted(request, take, parcels=False)

    async def get_outbox(self, request: web.Request) -> web.StreamResponse:
        """What waits for whoever asks; `Prefer: wait=30` until there is something."""
        caller = self._reader(request)
        offered = encode_post(await self._offer.offer(caller, wait_seconds(request)))
        await self._in_exchange(caller)  # after the wait: its second history may have been found meanwhile
        with self._slot(caller, self._posts):
            return await _written(request, 200, offered, MEDIA_TYPE)

    async def put_blob(self, request: web.Request) -> web.Response:
        """The next range of an attachment; answered with how much is here."""
        if request.content_type != BLOB_TYPE:
            raise ProblemError("http.media_type", f"send {BLOB_TYPE}")
        caller, digest = self._caller(request, body=True)
        blob = parse_digest(request.match_info["digest"])
        offset, length, size = parse_put(request.headers.get("Content-Range", ""))
        self._pace.afford(caller)
        await self._in_exchange(caller)
        with self._slot(caller, self._ranges):
            data = await read_body(request, bytes_max=BLOB_RANGE_BYTES_MAX, media_type=BLOB_TYPE)
            self._pace.spend(caller, parcels=1)
            if len(data) != length or sha256(data).digest() != digest:
                raise ProblemError("httpsig.digest", "the body differs from its digest or range")
            held, came = await self._blobs.put(caller, blob, offset, size, data)
        if came:
            await self._relay.came(caller)
        return web.Response(status=204, headers=_held(held, whole=held >= size))

    async def head_blob(self, request: web.Request) -> web.Response:
        """How much of the caller's attachment is here."""
        caller = self._reader(request)
        blob = await self._blobs.held(caller, parse_digest(request.match_info["digest"]))
        return web.Response(status=204, headers=_held(blob.held, whole=blob.whole))

    async def get_blob(self, request: web.Request) -> web.StreamResponse:
        """A range of an attachment, for whoever knows its digest: that stands inside sealed messages alone."""
        caller = self._reader(request)
        await self._in_exchange(caller)
        offset, length = parse_get(request.headers.get("Range", ""))
        with self._slot(caller, self._ranges):
            data = await self._blobs.range(parse_digest(request.match_info["digest"]), offset, length)
            if not data:
                await self._relay.missed(caller)
                raise ProblemError("http.not_found", "no such attachment is held")
            return await _written(request, 206, data, BLOB_TYPE)

    async def _posted(
        self, request: web.Request, take: Callable[[str, Post], Awaitable[web.Response]], *, parcels: bool
    ) -> web.Response:
        if request.content_type != MEDIA_TYPE:
            raise ProblemError("http.media_type", f"send {MEDIA_TYPE}")
        caller, digest = self._caller(request, body=True)
        await self._pace.admit(caller)
        with self._slot(caller, self._posts):
            body = await read_body(request, bytes_max=POST_BYTES_MAX, media_type=MEDIA_TYPE)
            cost = 1 + len(body) // PARCEL_BYTES
            self._pace.spend(caller, parcels=cost)
            try:
                if sha256(body).digest() != digest:
                    raise ProblemError("httpsig.digest", "the body differs from its digest")
                post = await asyncio.to_thread(parse_post, body, answer=not parcels)
                self._pace.spend(caller, parcels=max(0, len(post.items) - cost))
                return await take(caller, post)
            except ProblemError as problem:
                self._pace.spend(caller, failures=problem.kind.retry != "later")
                raise

    @contextmanager
    def _slot(self, caller: str, held: Counter[str]) -> Iterator[None]:
        """A place for one more body of this member; `store.busy` where it, or all, hold as many as memory is meant for."""
        if held[caller] >= POSTS_A_MEMBER_MAX or held.total() >= POSTS_MAX:
            raise ProblemError("store.busy", "too many requests at once")
        held[caller] += 1
        try:
            yield
        finally:
            held[caller] -= 1

    async def get_checkpoint(self, request: web.Request) -> web.Response:
        """The newest signed bytes we hold of an origin, named by hex SHA-256."""
        self._reader(request)
        note = await self._ledger.note_of(request.match_info["log"], current(self._directory))
        if note is None:
            raise ProblemError("http.not_found", "no checkpoint of that origin is held")
        return web.Response(body=note, content_type="text/plain", charset="utf-8", headers=_FRESH)

    async def add_checkpoint(self, request: web.Request) -> web.Response:
        """A member asks us as a witness (C2SP tlog-witness): our cosignature, or 409 with the size that we hold."""
        caller, digest = self._caller(request, body=True)
        self._pace.afford(caller)
        self._pace.spend(caller, parcels=1)
        with self._slot(caller, self._posts):
            body = await read_body(request, bytes_max=2 * NOTE_BYTES_MAX, media_type=REQUEST_TYPE)
            if sha256(body).digest() != digest:
                raise ProblemError("httpsig.digest", "the body differs from its digest")
            answer = await self._witness.add(body)
        if isinstance(answer, int):
            return web.Response(status=409, body=f"{answer}\n".encode(), content_type=SIZE_TYPE)
        return web.Response(body=answer, content_type=REQUEST_TYPE, charset="utf-8")

    async def get_directory(self, request: web.Request) -> web.Response:
        """A TUF file that we hold."""
        self._reader(request)
        data = self._directory.file(request.match_info["name"])
        if data is None:
            raise ProblemError("http.not_found", "no such directory file is held")
        return web.Response(body=data, content_type="application/json", headers=_FRESH)

    async def get_probe(self, request: web.Request) -> web.Response:
        """What we say of ourselves to a member that wonders why nothing arrives; signed, nothing is stored."""
        caller = self._reader(request)
        return web.Response(body=await self._probe.answer(caller), content_type="application/jose", headers=_FRESH)

    async def get_own_checkpoint(self, request: web.Request) -> web.Response:
        """Our newest checkpoint: for members and witnesses."""
        self._reader(request)
        note = await self._ledger.own_note(request.match_info["log"])
        return web.Response(body=note, content_type="text/plain", charset="utf-8", headers=_FRESH)

    async def get_tile(self, request: web.Request) -> web.Response:
        """A hash tile, for members. Entry bundles are the owner's and granted auditors' (by token, agency listener)."""
        self._reader(request)
        path = request.match_info["tile"]
        if path.startswith("tile/entries"):
            raise ProblemError("auth.scope", "entry bundles need an auditor's token")
        data = await self._ledger.tile(request.match_info["log"], path)
        return web.Response(body=data, content_type="application/octet-stream", headers=_IMMUTABLE)


async def _written(request: web.Request, status: int, body: bytes, media: str) -> web.StreamResponse:
    """A long answer, written before its place is given back; who does not read it is cut off."""
    headers = {"Content-Type": media, "Content-Length": str(len(body))}
    response = web.StreamResponse(status=status, headers=headers)
    try:
        async with asyncio.timeout(BODY_GRACE_S + len(body) / BODY_RATE_MIN):
            await response.prepare(request)
            await response.write(body)
            await response.write_eof()
    except (ConnectionError, TimeoutError):
        if request.transport is not None:
            request.transport.abort()
    return response


def _held(held: int, *, whole: bool) -> dict[str, str]:
    return {OFFSET: str(held), COMPLETE: f"?{int(whole)}"}


def _lines(post: Post) -> web.Response:
    return web.Response(body=encode_post(post), content_type=MEDIA_TYPE)
