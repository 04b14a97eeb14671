"""What a listener answers to malformed, slow, oversized and foreign HTTP: a problem document, never more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from aiohttp import web, web_server

from gateway.http.serve import DeadlineHandler, application, read_body
from protocols.limits import CONNECTIONS_AN_ADDRESS_MAX, HEADER_DEADLINE_S, HEADERS_MAX
from protocols.problems import ProblemError
from tests.http.wire import PATIENCE_S, ask, connected, listening

pytestmark = pytest.mark.asyncio(loop_scope="module")

BYTES_MAX = 1000
HEAD = b"Host: node\r\nContent-Type: application/json\r\n"


async def _echo(request: web.Request) -> web.Response:
    body = await read_body(request, bytes_max=BYTES_MAX, media_type="application/json")
    return web.json_response({"bytes": len(body), "remote": request.remote})


async def _late(request: web.Request) -> web.Response:
    body = await read_body(request, bytes_max=BYTES_MAX, media_type="application/json", grace_s=0.05)
    return web.json_response({"bytes": len(body)})


async def _seen(request: web.Request) -> web.Response:
    return web.json_response({"remote": request.remote, "scheme": request.scheme})


async def _broken(request: web.Request) -> web.Response:
    raise RuntimeError("SELECT secret FROM /etc/passwd")


def _app() -> web.Application:
    return application([
        web.post("/echo", _echo), web.post("/late", _late), web.get("/seen", _seen), web.get("/broken", _broken),
    ])  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def port() -> AsyncIterator[int]:
    async with listening(_app()) as found:
        yield found


def post(headers: bytes, body: bytes = b"") -> bytes:
    return b"POST /echo HTTP/1.1\r\n" + HEAD + headers + b"\r\n" + body


def get(headers: bytes = b"", line: bytes = b"GET /seen HTTP/1.1") -> bytes:
    return line + b"\r\nHost: node\r\n" + headers + b"\r\n"


def many(count: int) -> bytes:
    return b"".join(b"X-%d: a\r\n" % i for i in range(count))


async def test_a_well_formed_request_is_answered(port: int) -> None:
    answer = await ask(port, post(b"Content-Length: 2\r\n", b"{}"))
    assert (answer.status, answer.interim) == (200, [])
    assert b'"bytes": 2' in answer.body
    assert (await ask(port, post(b"Transfer-Encoding: chunked\r\n", b"2\r\n{}\r\n0\r\n\r\n"))).status == 200


FRAMING = {
    "H01 Content-Length then Transfer-Encoding": post(b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "H01 Transfer-Encoding then Content-Length": post(b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", b"0\r\n\r\n"),
    "H02 two lengths that differ": post(b"Content-Length: 2\r\nContent-Length: 3\r\n", b"{}"),
    "H02 two lengths that agree": post(b"Content-Length: 2\r\nContent-Length: 2\r\n", b"{}"),
    "H02 a list of lengths": post(b"Content-Length: 2, 2\r\n", b"{}"),
    "a negative length": post(b"Content-Length: -2\r\n", b"{}"),
    "a length with a sign": post(b"Content-Length: +2\r\n", b"{}"),
    "a length beyond 64 bits": post(b"Content-Length: 99999999999999999999999\r\n"),
    "H03 xchunked": post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
    "H03 chunked, identity": post(b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"),
    "H03 gzip, chunked": post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
    "H03 chunked twice": post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "chunked in HTTP/1.0": b"POST /echo HTTP/1.0\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk size that is no number": post(b"Transfer-Encoding: chunked\r\n", b"zz\r\n{}\r\n0\r\n\r\n"),
    "a negative chunk size": post(b"Transfer-Encoding: chunked\r\n", b"2\r\n{}\r\n-3\r\n\r\n"),
    "a chunk without its line end": post(b"Transfer-Encoding: chunked\r\n", b"2\r\n{}0\r\n\r\n"),
    "a control character in the target": get(line=b"GET /\x01 HTTP/1.1"),
}  # fmt: skip


@pytest.mark.parametrize("name", FRAMING)
async def test_ambiguous_framing_is_refused_and_the_connection_closed(port: int, name: str) -> None:
    async with connected(port) as wire:
        await wire.send(FRAMING[name])
        assert (await wire.answer()).said == (400, "http.framing")
        assert await wire.closed()


HEADERS = {
    "H05 obs-fold": b"X-A: b\r\n c\r\n",
    "H05 NUL in a value": b"X-A: b\0c\r\n",
    "H05 CR in a value": b"X-A: b\rc\r\n",
    "H05 vertical tab before a value": b"Transfer-Encoding:\x0bchunked\r\n",
    "a space before the colon": b"Transfer-Encoding : chunked\r\n",
    "a space in a name": b"X A: b\r\n",
    "no colon": b"XA\r\n",
    "two Hosts": b"Host: other\r\n",
}


@pytest.mark.parametrize("name", HEADERS)
async def test_a_malformed_header_is_refused(port: int, name: str) -> None:
    assert (await ask(port, get(HEADERS[name]))).said == (400, "http.header")


OTHERS: dict[str, tuple[bytes, int, str]] = {
    "H06 a header of 8191 bytes": (get(b"X: " + b"a" * 8191 + b"\r\n"), 431, "http.header_too_large"),
    "H06 a header of 20,000 bytes": (get(b"X: " + b"a" * 20_000 + b"\r\n"), 431, "http.header_too_large"),
    "H06 a target of 9,000 bytes": (get(line=b"GET /" + b"a" * 9000 + b" HTTP/1.1"), 431, "http.header_too_large"),
    "H07 101 headers": (get(many(HEADERS_MAX)), 431, "http.header_count"),
    "H07 1000 headers": (get(many(999)), 431, "http.header_count"),
    "H08 TRACE": (get(line=b"TRACE /seen HTTP/1.1"), 405, "http.method"),
    "H08 CONNECT": (get(line=b"CONNECT node:443 HTTP/1.1"), 405, "http.method"),
    "H08 PUT": (get(line=b"PUT /seen HTTP/1.1"), 405, "http.method"),
    "H08 PUT where nothing is": (get(line=b"PUT /nowhere HTTP/1.1"), 405, "http.method"),
    "H08 OPTIONS *": (get(line=b"OPTIONS * HTTP/1.1"), 405, "http.method"),
    "H08 GET where only POST is": (get(line=b"GET /echo HTTP/1.1"), 405, "http.method"),
    "an unknown method": (get(line=b"FOO /seen HTTP/1.1"), 405, "http.method"),
    "H09 another type": (
        b"POST /echo HTTP/1.1\r\nHost: node\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
        415, "http.media_type",
    ),
    "H09 no type": (b"POST /echo HTTP/1.1\r\nHost: node\r\nContent-Length: 2\r\n\r\n{}", 415, "http.media_type"),
    "H10 gzip, before a body byte": (
        post(b"Content-Encoding: gzip\r\nContent-Length: 200\r\n"), 415, "http.content_encoding",
    ),
    "H10 identity": (post(b"Content-Encoding: identity\r\nContent-Length: 2\r\n", b"{}"), 415, "http.content_encoding"),
    "H10 gzip with Expect": (
        post(b"Content-Encoding: gzip\r\nExpect: 100-continue\r\nContent-Length: 2\r\n"), 415, "http.content_encoding",
    ),
    "H11 too long, before a body byte": (post(b"Content-Length: 1001\r\n"), 413, "http.too_large"),
    "H12 chunks that grow": (
        post(b"Transfer-Encoding: chunked\r\n", 2 * (b"200\r\n" + b"a" * 512 + b"\r\n")), 413, "http.too_large",
    ),
    "H16 too long with Expect": (
        post(b"Expect: 100-continue\r\nContent-Length: 1001\r\n"), 413, "http.too_large",
    ),
    "H17 HTTP/0.9": (b"GET /seen\r\n\r\n", 505, "http.version"),
    "H17 HTTP/1.0 without Host": (b"GET /seen HTTP/1.0\r\n\r\n", 505, "http.version"),
    "H17 HTTP/1.1 without Host": (b"GET /seen HTTP/1.1\r\n\r\n", 400, "http.header"),
    "H17 the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http.version"),
    "H17 HTTP/2.0 in the line": (get(line=b"GET /seen HTTP/2.0"), 505, "http.version"),
    "H17 HTTP/1.2": (get(line=b"GET /seen HTTP/1.2"), 505, "http.version"),
    "H18 a web socket": (
        get(b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), 400, "http.upgrade",
    ),
    "H18 h2c": (post(b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n", b"{}"), 400, "http.upgrade"),
    "nothing there": (get(line=b"GET /nowhere HTTP/1.1"), 404, "http.not_found"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
async def test_what_no_client_of_ours_sends_is_refused_by_its_code(port: int, name: str) -> None:
    data, status, code = OTHERS[name]
    answer = await ask(port, data)
    assert (*answer.said, answer.interim) == (status, code, [])


async def test_a_hundred_headers_and_one_of_8000_bytes_pass(port: int) -> None:
    assert (await ask(port, get(many(HEADERS_MAX - 1)))).status == 200
    assert (await ask(port, get(b"X: " + b"a" * 8000 + b"\r\n"))).status == 200


async def test_http_1_0_with_a_host_is_answered(port: int) -> None:
    assert (await ask(port, get(line=b"GET /seen HTTP/1.0"))).status == 200


async def test_405_says_what_is_allowed_and_head_has_no_body(port: int) -> None:
    assert (await ask(port, get(line=b"PUT /seen HTTP/1.1"))).headers["allow"] == "GET"
    assert (await ask(port, get(line=b"PUT /nowhere HTTP/1.1"))).headers["allow"] == "GET, POST"
    assert (await ask(port, get(line=b"HEAD /seen HTTP/1.1"))).status == 405


async def test_h16_a_body_is_asked_for_only_after_the_checks_on_its_headers(port: int) -> None:
    async with connected(port) as wire:
        await wire.send(post(b"Expect: 100-continue\r\nContent-Length: 2\r\n"))
        answering = asyncio.ensure_future(wire.answer())
        await wire.send(b"{}")
        answer = await answering
        assert (answer.status, answer.interim) == (200, [100])


async def test_h20_forwarding_headers_change_nothing(port: int) -> None:
    spoof = b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nForwarded: for=6.6.6.6\r\nX-User-ID: root\r\n"
    assert (await ask(port, get(spoof))).body == (await ask(port, get())).body
    assert b'"127.0.0.1"' in (await ask(port, get(spoof))).body


async def test_g03_our_own_error_shows_nothing_of_itself(port: int) -> None:
    answer = await ask(port, get(line=b"GET /broken HTTP/1.1"))
    assert answer.said == (500, "internal")
    assert b"SELECT" not in answer.body
    assert b"Error" not in answer.body.replace(b"Our own error", b"")


async def test_t10_a_body_that_comes_too_slowly_is_given_up(port: int) -> None:
    async with connected(port) as wire:
        await wire.send(b"POST /late HTTP/1.1\r\n" + HEAD + b"Content-Length: 100\r\n\r\n{")
        assert (await wire.answer()).said == (408, "http.body_timeout")
        assert await wire.closed()


async def test_a_body_on_its_way_when_the_listener_ends_is_told_to_come_again() -> None:
    begun = asyncio.Event()

    async def reading(request: web.Request) -> web.Response:
        begun.set()
        return await _echo(request)

    async with AsyncExitStack() as stack:
        async with listening(application([web.post("/echo", reading)])) as port:
            wire = await stack.enter_async_context(connected(port))
            await wire.send(post(b"Content-Length: 100\r\n", b"{"))
            await begun.wait()
        assert (await wire.answer()).said == (503, "store.busy")


async def _refusing(request: web.Request) -> web.Response:
    raise ProblemError("http.not_found")


async def test_what_lingers_of_a_refused_body_does_not_hold_up_the_end() -> None:
    app = application([web.post("/echo", _refusing)])
    async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE_S), listening(app, shutdown_timeout=20) as port:
        wire = await stack.enter_async_context(connected(port))
        await wire.send(post(b"Content-Length: 100\r\n", b"{"))
        assert (await wire.answer()).said == (404, "http.not_found")  # aiohttp would read on for 10 s


async def test_a_body_that_ends_early_is_no_error_of_ours(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    async with connected(port) as wire:
        await wire.send(post(b"Content-Length: 100\r\n", b"{"))
        await wire.close()
    async with connected(port) as wire:
        await wire.send(post(b"Transfer-Encoding: chunked\r\n"))
        await wire.send(b"2\r\n{}\r\n")
        await wire.send(b"zz\r\n")
        assert (await wire.answer()).said == (400, "http.framing")
    assert (await ask(port, get())).status == 200
    assert "request_failed" not in "".join(capsys.readouterr())


async def test_t09_headers_that_come_too_slowly_are_given_up() -> None:
    async with listening(_app(), header_deadline_s=0.1) as port, connected(port) as wire:
        for byte in b"GET /se":
            await wire.send(bytes([byte]))
        assert (await wire.answer()).said == (408, "http.header_timeout")
        assert await wire.closed()


async def test_t09_a_connection_that_says_nothing_is_given_up() -> None:
    async with listening(_app(), header_deadline_s=0.1) as port, connected(port) as wire:
        assert (await wire.answer()).said == (408, "http.header_timeout")


async def test_t09_the_deadline_holds_for_a_later_request_of_a_connection_too() -> None:
    async with listening(_app(), header_deadline_s=0.2) as port, connected(port) as wire:
        await wire.send(get())
        assert (await wire.answer()).status == 200
        await wire.send(b"GET /seen HTTP/1.1\r\n")
        assert (await wire.answer()).said == (408, "http.header_timeout")


async def test_t12_an_address_has_so_many_connections_and_no_more_and_another_is_served() -> None:
    async with listening(_app()) as port, AsyncExitStack() as stack:
        before = DeadlineHandler.refused
        wires = [await stack.enter_async_context(connected(port)) for _ in range(CONNECTIONS_AN_ADDRESS_MAX)]
        async with connected(port) as over:
            assert await over.cut()
        assert DeadlineHandler.refused == before + 1
        async with connected(port, local="127.0.0.2") as other:
            await other.send(get())
            assert (await other.answer()).status == 200
        await wires[0].send(get())
        assert (await wires[0].answer()).status == 200, "those that were there stay"
        await wires[1].close()

        async def room() -> bool:
            async with connected(port) as next_:
                await next_.send(get())
                return not await next_.cut()

        while not await room():
            pass


async def test_the_header_deadline_is_off_while_a_body_or_the_next_request_is_awaited() -> None:
    deadline_s = 0.1
    async with listening(_app(), header_deadline_s=deadline_s) as port, connected(port) as wire:
        await wire.send(post(b"Content-Length: 2\r\n"))
        await wire.send(b"{")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wire._reader.read(1), 3 * deadline_s)
        await wire.send(b"}")
        assert (await wire.answer()).status == 200
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wire._reader.read(1), 3 * deadline_s)
        await wire.send(get())
        assert (await wire.answer()).status == 200


async def test_the_place_where_aiohttp_takes_our_connection_from_is_still_there(port: int) -> None:
    assert web_server.RequestHandler is DeadlineHandler
    assert isinstance(web_server.Server(_seen, loop=asyncio.get_running_loop())(), DeadlineHandler)  # type: ignore[arg-type]
    assert (
        DeadlineHandler(web_server.Server(_seen), loop=asyncio.get_running_loop())._header_deadline_s
        == HEADER_DEADLINE_S
    )  # type: ignore[arg-type]
    assert (await ask(port, b"\0\0\0\0 not http\r\n\r\n")).said[0] in (400, 405)
