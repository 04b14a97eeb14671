"""Between nodes: TLS 1.3 only, the peer's key pinned by the directory, answers bounded, redirects not followed."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from adapters.peers.http import PeerClient
from gateway.http.serve import Site, application
from gateway.runtime.compose import tls_context
from gateway.runtime.settings import Settings
from gateway.runtime.world import SystemClock
from keys.suite import Ed25519Signer
from keys.tls import pin_of_pem, self_signed, spki_sha256
from protocols.directory import Endpoint, Record
from protocols.limits import HANDSHAKE_DEADLINE_S, NOTE_BYTES_MAX
from protocols.problems import ProblemError
from protocols.strict import b64u
from tests.http.wire import PATIENCE_S, connected, free_socket, listening

ORIGIN = "net/peer/2026.1"


class Certificate:
    """A TLS key of a member in a folder, as its settings name it."""

    def __init__(self, folder: Path, name: str) -> None:
        key, certificate = self_signed("127.0.0.1", datetime.now(UTC))
        (folder / f"{name}.key").write_bytes(key)
        (folder / f"{name}.pem").write_bytes(certificate)
        self.pin = b64u(pin_of_pem(certificate))
        settings = Settings.model_validate({
            "member": "net/peer", "name": "Peer", "country": "AT", "directory": "x",
            "exchange_url": "https://127.0.0.1:1", "tls_certificate": f"{name}.pem", "tls_key": f"{name}.key",
        })  # fmt: skip
        context = tls_context(folder, settings)
        assert context is not None
        self.context = context


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return Certificate(tmp_path, "peer")


def peer(url: str, *pins: str) -> Record:
    return Record.model_construct(member="net/peer", endpoint=Endpoint(url=url, spki=list(pins)))


@asynccontextmanager
async def client(*, plain: bool = False) -> AsyncIterator[PeerClient]:
    made = PeerClient(
        signer=Ed25519Signer(bytes(32)), clock=SystemClock(), spki_sha256=spki_sha256, plain_allowed=plain
    )
    try:
        yield made
    finally:
        await made.close()


async def refusal(calling: Awaitable[Any]) -> str:
    with pytest.raises(ProblemError) as caught:
        await calling
    return caught.value.code


Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answering(handler: Answering) -> web.Application:
    """A peer that answers everything with one handler."""
    return application([
        web.get("/{path:.*}", handler), web.post("/{path:.*}", handler),
    ])  # fmt: skip


class Heard:
    """Remembers what reached a server."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.paths.append(request.path)
        return web.Response(body=b"note")


async def test_t01_a_handshake_below_tls_1_3_is_refused(certificate: Certificate) -> None:
    heard = Heard()
    async with listening(answering(heard.answer), tls=certificate.context) as port:
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_2

        def shake() -> str:
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as raw:
                with pytest.raises(ssl.SSLError) as caught:
                    old.wrap_socket(raw)
                return str(caught.value.reason)

        # asyncio may close before its alert is on the wire
        assert await asyncio.to_thread(shake) in ("TLSV1_ALERT_PROTOCOL_VERSION", "UNEXPECTED_EOF_WHILE_READING")
        old.maximum_version = ssl.TLSVersion.TLSv1_3
        async with connected(port, old) as wire:
            await wire.send(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n")
            assert (await wire.answer()).status == 200
    assert heard.paths == ["/"]


async def test_t14_a_handshake_that_never_ends_is_given_up_and_hinders_nobody(certificate: Certificate) -> None:
    heard = Heard()
    runner = web.AppRunner(answering(heard.answer))
    await runner.setup()
    site = Site(runner, "127.0.0.1", 0, ssl_context=certificate.context)
    assert site.handshake_s == HANDSHAKE_DEADLINE_S == 5
    site.handshake_s = 0.2
    try:
        await site.start()
        port = runner.addresses[0][1]
        async with AsyncExitStack() as stack:
            silent = [await stack.enter_async_context(connected(port)) for _ in range(50)]
            trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
            async with connected(port, trusting) as wire:
                await wire.send(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n")
                assert (await wire.answer()).status == 200
            assert all([await each.cut() for each in silent])
    finally:
        await runner.cleanup()


async def test_the_peer_whose_key_the_directory_lists_is_spoken_to(certificate: Certificate) -> None:
    heard = Heard()
    async with listening(answering(heard.answer), tls=certificate.context) as port, client() as peers:
        url = f"https://127.0.0.1:{port}"
        assert await peers.checkpoint(peer(url, "A" * 43, certificate.pin), ORIGIN) == b"note"
        assert await peers.post(peer(url, certificate.pin), b"lines") == b"note"
    assert len(heard.paths) == 2


async def test_t06_another_members_server_is_not_told_a_byte(tmp_path: Path, certificate: Certificate) -> None:
    heard, other = Heard(), Certificate(tmp_path, "other")
    async with listening(answering(heard.answer), tls=other.context) as port, client() as peers:
        url = f"https://127.0.0.1:{port}"
        assert await refusal(peers.post(peer(url, certificate.pin), b"lines")) == "peer.identity"
        assert await refusal(peers.checkpoint(peer(url), ORIGIN)) == "peer.identity"
        assert await peers.checkpoint(peer(url, other.pin), ORIGIN) == b"note", "a former refusal spoils nothing"
    assert len(heard.paths) == 1


async def test_plain_http_is_spoken_only_where_it_is_allowed() -> None:
    heard = Heard()
    async with listening(answering(heard.answer)) as port:
        url = f"http://127.0.0.1:{port}"
        async with client() as peers:
            assert await refusal(peers.post(peer(url), b"lines")) == "peer.identity"
        assert heard.paths == []
        async with client(plain=True) as peers:
            assert await peers.post(peer(url), b"lines") == b"note"


async def test_a_server_without_tls_is_no_peer_of_an_https_endpoint(certificate: Certificate) -> None:
    async with listening(answering(Heard().answer)) as port, client() as peers:
        calling = peers.post(peer(f"https://127.0.0.1:{port}", certificate.pin), b"lines")
        assert await refusal(calling) == "peer.unreachable"


async def test_a_peer_that_is_away_or_has_no_endpoint_is_unreachable() -> None:
    with free_socket() as taken:
        port = taken.getsockname()[1]
    async with client(plain=True) as peers:
        assert await refusal(peers.post(peer(f"http://127.0.0.1:{port}"), b"lines")) == "peer.unreachable"
        nowhere = Record.model_construct(member="net/peer", endpoint=None)
        assert await refusal(peers.post(nowhere, b"lines")) == "peer.unreachable"


async def test_an_answer_over_the_bound_is_not_read_to_its_end() -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while sent < 64 * NOTE_BYTES_MAX:
            await response.write(bytes(65_536))
            sent += 65_536
        return response

    async with listening(answering(endless)) as port, client(plain=True) as peers:
        assert await refusal(peers.checkpoint(peer(f"http://127.0.0.1:{port}"), ORIGIN)) == "peer.answer"
    assert sent < 64 * NOTE_BYTES_MAX


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_no_answer_and_is_not_followed(status: int) -> None:
    target = Heard()

    async def elsewhere(request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": f"http://127.0.0.1:{elsewhere_port}/stolen"})

    async with (
        listening(answering(target.answer)) as elsewhere_port,
        listening(answering(elsewhere)) as port,
        client(plain=True) as peers,
    ):
        assert await refusal(peers.post(peer(f"http://127.0.0.1:{port}"), b"lines")) == "peer.answer"
    assert target.paths == []


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (503, b'{"code":"store.busy"}', "store.busy"),
        (500, b'{"code":"made.up"}', "peer.answer"),
        (500, b"<html>", "peer.answer"),
        (500, b"[" * 1000, "peer.answer"),
        (404, b"", "peer.answer"),
        (202, b"", "peer.answer"),
    ],
)
async def test_what_a_peer_says_goes_wrong_is_one_of_our_codes(status: int, body: bytes, code: str) -> None:
    async def failing(request: web.Request) -> web.Response:
        return web.Response(status=status, body=body)

    async with listening(answering(failing)) as port, client(plain=True) as peers:
        assert await refusal(peers.post(peer(f"http://127.0.0.1:{port}"), b"lines")) == code


async def test_what_a_peer_does_not_hold_is_none() -> None:
    async with listening(application([])) as port, client(plain=True) as peers:
        held = peer(f"http://127.0.0.1:{port}")
        assert await peers.checkpoint(held, ORIGIN) is None
        assert await peers.directory_file(held, "root.json") is None
