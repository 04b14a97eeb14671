"""Dispatch: the member's own system is told over a webhook of what arrived, at least once, and costs nobody else anything."""

import asyncio
from base64 import b64decode
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.runtime.compose import assemble
from gateway.runtime.node import serve
from gateway.runtime.settings import make_settings
from protocols.ledger.proof import Place
from protocols.problems import ProblemError
from protocols.strict import parse_json
from tests.federation import Federation, Node, match_ledgers, verify_ledger, wait_until


class Desk:
    """The member's own system: what it was told, and its effect, once a name."""

    def __init__(self) -> None:
        self.told: list[tuple[dict[str, str], bytes]] = []
        self.effects = Counter[str]()
        self.open = asyncio.Event()  # nothing is answered before
        self.open.set()
        self.at_once = self.most = 0
        self.hanging = set[str]()  # what is never answered
        self.status: Callable[[str], int] = lambda _: 204

    @property
    def names(self) -> Counter[str]:
        return Counter(headers["webhook-id"] for headers, _ in self.told)

    async def hook(self, request: web.Request) -> web.Response:
        self.told.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await self.open.wait()
            if request.headers["webhook-id"] in self.hanging:
                await asyncio.Event().wait()
        finally:
            self.at_once -= 1
        name = request.headers["webhook-id"]
        status = self.status(name)
        self.effects[name] += status < 300 and not self.effects[name]
        return web.Response(status=status, headers={"Location": "/hook"} if status == 307 else {})


@pytest.fixture
async def desk() -> AsyncIterator[tuple[Desk, str]]:
    made, app = Desk(), web.Application()
    app.router.add_post("/hook", made.hook)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield made, f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    made.open.set()
    await runner.cleanup()


async def told(fed: Federation, url: str, retry_first_s: float = 0.25) -> tuple[Node, Node]:
    """A sender, and a member whose own system is told."""
    (a,) = await fed.nodes("a")
    b = Node(fed, "b", webhook=url, retry_first_s=retry_first_s)
    b.keys.add("webhook")
    fed._admit(b, ("focal-point", "registry"))
    await b.make()
    await fed.publish()
    await b.start()
    return a, b


async def dispatched(b: Node, count: int) -> None:
    async def there() -> bool:
        return (await b.kinds()).count("dispatched") == count

    await wait_until(there, 30)


def under(key: bytes, headers: dict[str, str], body: bytes) -> bool:
    """Whether one of the signatures is of this key, as Standard Webhooks says."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    for signature in headers["webhook-signature"].split(" "):
        version, _, value = signature.partition(",")
        assert version == "v1a"
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(b64decode(value, validate=True), signed)
        except Exception:  # noqa: S112 - another key's
            continue
        return True
    return False


async def test_each_message_is_told_once_signed_and_then_stands_as_dispatched(
    fed: Federation, desk: tuple[Desk, str]
) -> None:
    system, url = desk
    a, b = await told(fed, url)
    first = b.keys.public("webhook")[0].public
    sent = [await a.trace(b), await a.trace(b)]
    await dispatched(b, 2)
    b.keys.add("webhook")
    b.keys.promote("webhook", fed.clock.now())
    sent.append(await a.trace(b))
    await dispatched(b, 3)
    second = b.keys.public("webhook")[0].public
    for each, (headers, body) in zip(sent, system.told, strict=True):
        assert headers["webhook-id"] == f"{a.name}/{each['id']}"
        about = {"thread": each["thread"], "counterpart": a.name, "message": each["id"]}
        assert parse_json(body, bytes_max=4_096) == {"type": "received", "data": about}
        assert abs(int(headers["webhook-timestamp"]) - fed.clock.now().timestamp()) < 60
        assert under(first, headers, body)
        assert not under(first, headers, body + b" ")
        assert under(second, headers, body) == (each is sent[2])
    assert [entry.id for entry in await b.entries() if entry.kind == "dispatched"] == [
        entry.id for entry in await b.entries() if entry.kind == "received"
    ]
    await verify_ledger(b)


async def test_the_feed_confirms_nothing_where_a_system_is_told(fed: Federation, desk: tuple[Desk, str]) -> None:
    system, url = desk
    system.status = lambda _: 500
    a, b = await told(fed, url)
    await a.trace(b)
    await wait_until(lambda: _true(system.told))
    (event,) = await b.read.events(0, 10, 0)
    await b.read.events(event.seq, 10, 0)
    assert "dispatched" not in await b.kinds()
    system.status = lambda _: 200
    await dispatched(b, 1)


async def test_p01_what_it_cannot_take_is_told_again_by_the_same_name_and_holds_up_no_other(
    fed: Federation, desk: tuple[Desk, str]
) -> None:
    system, url = desk
    a, b = await told(fed, url)
    poison = {500: await a.trace(b), 307: await a.trace(b)}
    refused = {f"{a.name}/{sent['id']}": status for status, sent in poison.items()}
    system.status = lambda name: refused.get(name, 200)
    await wait_until(lambda: _true(refused.keys() <= system.names.keys()))
    for _ in range(3):
        await a.trace(b)
    await dispatched(b, 3)
    await wait_until(lambda: _true(all(system.names[name] > 1 for name in refused)), 30)
    assert not any(system.effects[name] for name in refused)
    refused.clear()
    await dispatched(b, 5)
    assert set(system.effects.values()) == {1}
    assert await b.count("inbox", "NOT dispatched") == 0


@pytest.mark.parametrize("hangs", [False, True])
async def test_p01_the_few_that_break_it_are_not_taken_for_a_system_that_is_away(
    fed: Federation, desk: tuple[Desk, str], hangs: bool
) -> None:
    system, url = desk
    a, b = await told(fed, url, retry_first_s=0.1)
    system.status = lambda _: 500
    if hangs:
        system.open.clear()  # each call ends by its deadline
    poison = {f"{a.name}/{(await a.trace(b))['id']}" for _ in range(3)}
    await wait_until(lambda: _true(b.parts.dispatch and b.parts.dispatch._vain > 5), 30)
    system.status, system.hanging = lambda name: 500 if name in poison else 200, poison if hangs else set()
    system.open.set()
    good = [await a.trace(b) for _ in range(3)]
    await dispatched(b, 3)
    assert {name for name, count in system.effects.items() if count} == {f"{a.name}/{each['id']}" for each in good}
    assert poison <= system.names.keys()


async def test_a_system_that_is_away_is_asked_one_at_a_time_and_then_told_everything(
    fed: Federation, desk: tuple[Desk, str]
) -> None:
    system, url = desk
    system.status = lambda _: 503
    a, b = await told(fed, url)
    sent = [await a.trace(b) for _ in range(40)]
    for each in sent:
        await a.becomes(each, "delivered")
    await wait_until(lambda: _true(b.parts.dispatch and b.parts.dispatch._vain > 5))
    system.open.clear()
    before = len(system.told)
    await wait_until(lambda: _true(system.at_once), 30)
    assert (system.most <= 16, system.at_once) == (True, 1)
    assert before < len(sent), "it was not asked about every one that came meanwhile"
    system.status = lambda _: 200
    system.open.set()
    await dispatched(b, 40)
    assert system.effects == Counter({f"{a.name}/{each['id']}": 1 for each in sent})


async def test_k15_a_crash_after_it_confirmed_tells_it_again_by_the_same_name(
    fed: Federation, desk: tuple[Desk, str]
) -> None:
    system, url = desk
    a, b = await told(fed, url, retry_first_s=0.1)
    system.open.clear()
    sent = await a.trace(b)
    await wait_until(lambda: _true(system.told))
    await b.kill()
    system.open.set()
    await b.start()
    await dispatched(b, 1)
    assert system.names == Counter({f"{a.name}/{sent['id']}": 2})
    assert set(system.effects.values()) == {1}
    await verify_ledger(b)


async def test_s02_a_system_that_takes_its_time_delays_no_message_and_no_receipt(
    fed: Federation, desk: tuple[Desk, str]
) -> None:
    system, url = desk
    a, b = await told(fed, url, retry_first_s=2.0)  # it may take 18 s
    system.open.clear()
    sent = [await a.trace(b) for _ in range(40)]
    back = [await b.trace(a) for _ in range(5)]
    for each in sent:
        await a.becomes(each, "delivered")
    for each in back:
        await b.becomes(each, "delivered")
    await wait_until(lambda: _true(system.at_once == 16))
    assert "dispatched" not in await b.kinds(), "all of these receipts came while it answered nothing"
    assert len(system.told) == 16
    system.open.set()
    await dispatched(b, 40)
    assert system.names == Counter({f"{a.name}/{each['id']}": 1 for each in sent})
    assert system.most == 16
    await match_ledgers(a, b)


async def test_two_senders_who_choose_one_id_are_told_apart(fed: Federation, desk: tuple[Desk, str]) -> None:
    system, url = desk
    a, b = await told(fed, url)
    (m,) = await fed.strangers("m")
    sent = await a.trace(b)
    assert isinstance(await m.give(b, m.parcel(b, message={"id": UUID(sent["id"])})), Place)
    await dispatched(b, 2)
    assert system.effects == Counter({f"{name}/{sent['id']}": 1 for name in (a.name, m.name)})


async def test_two_processes_of_a_node_do_not_tell_the_same_message(fed: Federation, desk: tuple[Desk, str]) -> None:
    system, url = desk
    a, b = await told(fed, url, retry_first_s=2.0)
    pool, wire, ports = b.pool, b.wire, await b.ports()
    asked = [_Counted(b._ports.backend), _Counted(ports.backend)]
    assert b.parts.dispatch
    b.parts.dispatch._backend, ports.backend = asked
    second = assemble(b.folder, b.settings, b.keys, fed.secret, b.origin, ports)
    (others, b.pool), (way, b.wire) = (b.pool, pool), (b.wire, wire)
    assert second.dispatch is not None
    running = [asyncio.ensure_future(each) for each in (second.committer.run(), second.dispatch.run())]
    try:
        for n in range(30):
            await a.trace(b, f"ABC{n:04}")
            second.dispatch.wake()
        await dispatched(b, 30)
    finally:
        for each in running:
            each.cancel()
        await asyncio.wait(running)
        await way.close()
        await ports.ledger.close()  # type: ignore[attr-defined]
        others._pool.terminate()
    assert set(system.names.values()) == {1}
    assert all(each.asked for each in asked), "both had their part"


class _Counted:
    """A backend, and how often it was asked."""

    def __init__(self, real: Any) -> None:
        self._real, self.asked, self.close = real, 0, real.close

    async def take(self, *about: Any) -> None:
        self.asked += 1
        await self._real.take(*about)


async def test_a_message_that_is_erased_while_it_waits_is_told_no_more(fed: Federation, desk: tuple[Desk, str]) -> None:
    system, url = desk
    system.open.clear()
    a, b = await told(fed, url, retry_first_s=0.1)
    system.status = lambda _: 500
    await a.trace(b)
    await wait_until(lambda: _true(system.told))
    await b.sql("UPDATE inbox SET dispatched = true RETURNING true")  # as the change of an erasure does
    system.status = lambda _: 200
    system.open.set()
    await asyncio.sleep(0.3)
    before = len(system.told)
    await asyncio.sleep(2.5)  # two claims
    assert "dispatched" not in await b.kinds(), "nobody says that they had it"
    assert len(system.told) == before


async def test_without_a_key_that_signs_the_node_says_how_to_make_one(fed: Federation) -> None:
    b = Node(fed, "b", webhook="http://127.0.0.1:1/hook")
    fed._admit(b, ("registry",))
    await b.make()
    ports = await b.ports()
    with pytest.raises(ProblemError) as raised:
        await serve(b.folder, b.settings, b.keys, fed.secret, ports, asyncio.Event())
    assert raised.value.code == "key.store"
    assert "tracewire keys rotate NODE webhook" in raised.value.errors[0].fix
    await ports.transport.close()  # type: ignore[attr-defined]
    await b.pool.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://desk.example.org/hook",
        "ftp://desk.example.org",
        "https://",
        "desk",
        "https://me:secret@desk.example.org/",
    ],
)
def test_an_address_that_is_not_safe_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ProblemError) as raised:
        make_settings(_settings(url), "here")
    assert raised.value.code == "config.invalid"
    assert "webhook" in raised.value.detail
    assert url not in raised.value.detail


@pytest.mark.parametrize(
    "url", ["https://desk.example.org:8443/hook?for=b", "http://127.0.0.1:9000/", "http://localhost/"]
)
def test_https_and_loopback_are_taken(url: str) -> None:
    assert make_settings(_settings(url), "here").webhook == url


def _settings(url: str) -> dict[str, Any]:
    return {
        "member": "test/b", "name": "Agency", "country": "DE", "directory": "d", "exchange_url": "http://127.0.0.1:1", "exchange_bind": "127.0.0.1:1",
        "webhook": url,
    }  # fmt: skip


async def _true(value: Any) -> Any:
    return value
