"""The exchange listener over the wire: who signed a request is settled on its headers, before a byte of its body."""

import base64
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import md5, sha1, sha256
from typing import Any

import pytest
import pytest_asyncio

from gateway.http.exchange import Exchange
from gateway.services.pace import Pace
from keys.suite import Ed25519Signer, Tw1Verifier
from protocols.directory import Admitted, Directory, Key, Record
from protocols.exchange.lines import Hello, Post, encode_post
from protocols.ledger.entry import DirRef
from tests.http.wire import Answer, ask, connected, free_socket, listening

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
DAY = timedelta(days=1)
PEER, SUSPENDED, FOREIGN, RETIRED = (Ed25519Signer(bytes([n]) * 32) for n in range(4))
MESSAGES, TAG = "/exchange/v1/messages", "tracewire-exchange-1"


def _directory() -> Directory:
    def key(signer: Ed25519Signer, member: str, not_after: datetime | None = None) -> Key:
        return Key(member=member, key=signer.public, not_before=NOW - DAY, not_after=not_after, revoked=None)

    members = {"net/peer": "active", "net/bad": "suspended"}
    return Directory(
        ref=DirRef(version=1, sha256=bytes(32)), expires=NOW + DAY, network=None,  # type: ignore[arg-type]
        records={name: Record.model_construct(member=name) for name in members},
        message_keys={}, seal_keys={}, ledgers={},
        request_keys={
            PEER.kid: key(PEER, "net/peer"), SUSPENDED.kid: key(SUSPENDED, "net/bad"),
            RETIRED.kid: key(RETIRED, "net/peer", NOW),
        },
        admitted={name: Admitted(member=name, roles=["registry"], status=status) for name, status in members.items()},
    )  # fmt: skip


class Fixed:
    """A clock that stands, and a directory of one version."""

    current = _directory()

    def now(self) -> datetime:
        return NOW

    def file(self, name: str) -> bytes | None:
        return b"{}" if name == "timestamp.json" else None


@dataclass
class Receives:
    """Remembers who called."""

    callers: list[str] = field(default_factory=list)

    async def receive(self, caller: str, post: Post) -> Post:
        self.callers.append(caller)
        return Post(hello=post.hello, checkpoints={}, items=())

    def concerns(self, post: Post) -> bool:
        """Nothing is for others."""
        return False


async def nothing_waits(member: str, most: int) -> int:
    return 0


@dataclass
class Listener:
    port: int
    receives: Receives
    pace: Pace

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def listener() -> AsyncIterator[Listener]:
    at, fixed, receives = free_socket(), Fixed(), Receives()
    pace = Pace(time.monotonic, nothing_waits)
    url = f"http://127.0.0.1:{at.getsockname()[1]}"
    exchange = Exchange(
        url=url, receive=receives, relay=receives, offer=None, blobs=None, pace=pace, directory=fixed, ledger=None, probe=None, witness=None, linking=None, verifier=Tw1Verifier(), clock=fixed,  # type: ignore[arg-type]
    )  # fmt: skip
    async with listening(exchange.app(), at=at) as port:
        yield Listener(port, receives, pace)


BODY = encode_post(Post(hello=Hello(dir_version=1, held={}, links={}), checkpoints={}, items=()))


def digest(body: bytes, name: str = "sha-256", of: Callable[[bytes], Any] = sha256) -> str:
    return f"{name}=:{base64.b64encode(of(body).digest()).decode()}:"


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A request of a peer, good unless told otherwise; signed by RFC 9421 in a second, plain way."""

    method: str = "POST"
    path: str = MESSAGES
    body: bytes = BODY
    digest: str = field(default=digest(BODY))
    type: str = "application/x-ndjson"
    covered: tuple[str, ...] = ("@method", "@target-uri", "content-type", "content-digest")
    signer: Ed25519Signer = PEER
    kid: str = ""
    created: datetime = NOW
    tag: str = TAG
    alg: str = "ed25519"
    host: str = ""
    more: str = ""
    extra: tuple[str, ...] = ()
    signature: Callable[[bytes], bytes] = bytes
    bare: bool = False

    def bytes_for(self, url: str, *, length: int | None = None) -> bytes:
        """The request as sent; `length` announces another body than comes."""
        values = {
            "@method": self.method, "@target-uri": url + self.path, "content-type": self.type,
            "content-digest": self.digest, "@path": self.path,
        }  # fmt: skip
        names = " ".join(f'"{name}"' for name in self.covered)
        kid = self.kid or self.signer.kid
        given = f'({names});created={int(self.created.timestamp())};keyid="{kid}";alg="{self.alg}";tag="{self.tag}"'
        given += self.more
        lines = [f'"{name}": {values[name]}' for name in self.covered] + [f'"@signature-params": {given}']
        signature = self.signature(self.signer.sign("\n".join(lines).encode()))
        headers = [f"{self.method} {self.path} HTTP/1.1", f"Host: {self.host or url.removeprefix('http://')}"]
        if not self.bare:
            headers += [f"Signature-Input: tw={given}", f"Signature: tw=:{base64.b64encode(signature).decode()}:"]
        if self.method == "POST":
            headers += [f"Content-Type: {self.type}", f"Content-Length: {len(self.body) if length is None else length}"]
            headers += [f"Content-Digest: {self.digest}"]
        headers += self.extra
        body = self.body if self.method == "POST" and length is None else b""
        return "\r\n".join([*headers, "", ""]).encode() + body


def reading(path: str, **other: Any) -> Ask:
    return Ask(method="GET", path=path, covered=("@method", "@target-uri"), **other)


async def sent(listener: Listener, request: Ask, *, length: int | None = None) -> Answer:
    return await ask(listener.port, request.bytes_for(listener.url, length=length))


def flipped(signature: bytes) -> bytes:
    return bytes([signature[0] ^ 1]) + signature[1:]


async def test_a_signed_request_reaches_its_service_as_the_member_of_its_key(listener: Listener) -> None:
    answer = await sent(listener, Ask())
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
    assert listener.receives.callers[-1] == "net/peer"


async def test_s05_a_signature_counts_for_300_s_and_up_to_60_s_ahead(listener: Listener) -> None:
    for created in (NOW - timedelta(seconds=300), NOW + timedelta(seconds=60)):
        assert (await sent(listener, Ask(created=created))).status == 200


FAULTS: dict[str, tuple[Ask, int, str]] = {
    "S01 no signature": (Ask(bare=True), 401, "httpsig.missing"),
    "S02 only @method covered": (Ask(covered=("@method",)), 401, "httpsig.components"),
    "S02 the body not covered": (Ask(covered=("@method", "@target-uri")), 401, "httpsig.components"),
    "S02 another order": (
        Ask(covered=("@target-uri", "@method", "content-type", "content-digest")), 401, "httpsig.components",
    ),
    "S02 nothing covered": (Ask(covered=()), 401, "httpsig.components"),
    "S02 @path in place of @target-uri": (
        Ask(covered=("@method", "@path", "content-type", "content-digest")), 401, "httpsig.components",
    ),
    "S03 the body changed, its digest kept": (Ask(body=BODY + b"\n"), 400, "httpsig.digest"),
    "S03 another digest than was signed": (Ask(signature=flipped), 401, "httpsig.signature"),
    "S04 sha-1": (Ask(digest=digest(BODY, "sha", sha1)), 400, "httpsig.digest_alg"),
    "S04 md5": (Ask(digest=digest(BODY, "md5", md5)), 400, "httpsig.digest_alg"),
    "a digest of the wrong length": (Ask(digest=digest(BODY, of=sha1)), 400, "httpsig.digest"),
    "no digest": (Ask(digest=""), 400, "httpsig.digest"),
    "S05 created 301 s ago": (Ask(created=NOW - timedelta(seconds=301)), 401, "httpsig.time"),
    "S05 created 61 s ahead": (Ask(created=NOW + timedelta(seconds=61)), 401, "httpsig.time"),
    "S08 an unknown key": (Ask(signer=FOREIGN), 401, "httpsig.key"),
    "S08 the keyid of another member": (Ask(signer=FOREIGN, kid=PEER.kid), 401, "httpsig.signature"),
    "S08 a key that has ended": (Ask(signer=RETIRED), 401, "httpsig.key"),
    "S11 the tag of another application": (Ask(tag="web-bot-auth"), 401, "httpsig.tag"),
    "another algorithm": (Ask(alg="hmac-sha256"), 401, "httpsig.invalid"),
    "a parameter twice": (Ask(more=';tag="' + TAG + '"'), 401, "httpsig.invalid"),
    "a parameter of no use here": (Ask(more=';nonce="a"'), 401, "httpsig.invalid"),
    "a short signature": (Ask(signature=lambda signature: signature[1:]), 401, "httpsig.invalid"),
    "S15 a query": (Ask(path=f"{MESSAGES}?a=1"), 400, "http.query"),
    "H09 JSON in place of NDJSON": (Ask(type="application/json"), 415, "http.media_type"),
    "H13 the Host of another": (Ask(host="other.example"), 421, "http.misdirected"),
    "H13 the Host of another, and ours as forwarded": (
        Ask(host="other.example", extra=("X-Forwarded-Host: 127.0.0.1",)), 421, "http.misdirected",
    ),
    "H18 an upgrade": (Ask(extra=("Upgrade: websocket", "Connection: Upgrade")), 400, "http.upgrade"),
    "T08 a suspended member": (Ask(signer=SUSPENDED), 403, "peer.suspended"),
    "a checkpoint without a signature": (reading(f"/exchange/v1/checkpoints/{'0' * 64}", bare=True), 401, "httpsig.missing"),
    "a directory file without a signature": (reading("/exchange/v1/directory/timestamp.json", bare=True), 401, "httpsig.missing"),
    "a ledger without a signature": (reading(f"/ledger/{'0' * 64}/checkpoint", bare=True), 401, "httpsig.missing"),
    "a tile without a signature": (reading(f"/ledger/{'0' * 64}/tile/0/000", bare=True), 401, "httpsig.missing"),
    "a query on a directory file": (reading("/exchange/v1/directory/timestamp.json?x=1"), 400, "http.query"),
    "entry bundles for a peer": (reading(f"/ledger/{'0' * 64}/tile/entries/000"), 403, "auth.scope"),
    "the signature of a GET under another path": (
        reading("/exchange/v1/directory/timestamp.json", signature=flipped), 401, "httpsig.signature",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
async def test_a_request_of_a_peer_is_refused_by_its_code(listener: Listener, name: str) -> None:
    request, status, code = FAULTS[name]
    before = list(listener.receives.callers)
    assert (await sent(listener, request)).said == (status, code)
    assert listener.receives.callers == before


@pytest.mark.parametrize("fault", [Ask(signature=flipped), Ask(signer=FOREIGN), Ask(bare=True)])
async def test_the_signature_is_judged_before_a_byte_of_the_body_comes(listener: Listener, fault: Ask) -> None:
    assert (await sent(listener, fault, length=1_000_000)).status == 401


async def test_h11_a_body_over_the_limit_is_refused_before_it_is_read(listener: Listener) -> None:
    assert (await sent(listener, Ask(), length=8 * 1024 * 1024 + 1)).said == (413, "http.too_large")


async def test_a_member_that_floods_is_told_to_wait_before_a_byte_of_its_body_comes(listener: Listener) -> None:
    listener.pace.spend("net/peer", parcels=10**9)
    try:
        answer = await sent(listener, Ask(), length=1_000_000)
    finally:
        listener.pace.spend("net/peer", parcels=-(10**9))
    assert answer.said == (429, "peer.rate")
    assert int(answer.headers["retry-after"]) > 0


async def test_h16_nobody_unknown_is_asked_for_a_body(listener: Listener) -> None:
    answer = await sent(listener, Ask(signer=FOREIGN, extra=("Expect: 100-continue",)), length=1000)
    assert (*answer.said, answer.interim) == (401, "httpsig.key", [])


async def test_t08_the_connection_of_a_suspended_member_is_closed(listener: Listener) -> None:
    async with connected(listener.port) as wire:
        await wire.send(Ask().bytes_for(listener.url))
        assert (await wire.answer()).status == 200
        await wire.send(Ask(signer=SUSPENDED).bytes_for(listener.url))
        assert (await wire.answer()).said == (403, "peer.suspended")
        assert await wire.closed()


async def test_a_peer_reads_the_directory_files_that_we_hold(listener: Listener) -> None:
    assert (await sent(listener, reading("/exchange/v1/directory/timestamp.json"))).body == b"{}"
    assert (await sent(listener, reading("/exchange/v1/directory/other.json"))).said == (404, "http.not_found")


@pytest.mark.parametrize("lines", [b"", b"{}\n", b"not json\n", b'{"t":"hello"}\n', BODY + BODY])
async def test_a_signed_body_that_is_no_post_is_refused(listener: Listener, lines: bytes) -> None:
    answer = await sent(listener, Ask(body=lines, digest=digest(lines)))
    assert answer.status in (400, 422)
    assert answer.problem["code"] not in ("internal", "httpsig.digest")
