"""Probes: the first step that fails on the way to a peer is named, with its fix; nothing is stored on either side."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gateway.runtime.world import SteadyClock, SystemClock
from gateway.services.probe import PROBES_MAX, Probed
from keys.tls import pin_of_pem, self_signed
from protocols.exchange.message import sign_message
from protocols.exchange.probe import PROBE_TYP
from protocols.ports.store import Unavailable
from protocols.strict import b64u, dump_json, format_time
from tests.federation import Federation, Node, Stranger, code_of, refused
from tests.http.office import office_of
from tests.http.wire import listening

NAMES = ["dns", "tcp", "tls", "http", "clock", "trust", "rights", "schema", "backend"]


def failed_at(probed: Probed, step: str) -> str:
    """Exactly this step is wrong, those before it are ok, those after it were not tried; what was found."""
    at = NAMES.index(step)
    expected = ["ok"] * at + ["wrong"] + ["not tried"] * (len(NAMES) - at - 1)
    assert [each.state for each in probed.steps] == expected, probed
    assert [each.step for each in probed.steps] == NAMES
    found = probed.failed
    assert found is not None
    assert found.what
    assert found.why
    assert found.fix
    return found.what


async def stranger_at(fed: Federation, url: str) -> Stranger:
    """A member whose endpoint is the test's choice."""
    made = Stranger(fed, "m")
    made.url = url
    fed._admit(made, ("focal-point",))
    await fed.publish()
    return made


class Shifted(SystemClock):
    """The network's clock, and a node that differs."""

    def __init__(self, fed: Federation, by: timedelta) -> None:
        self._fed, self._by = fed, by

    def now(self) -> datetime:
        return self._fed.clock.now() + self._by


async def test_every_step_to_a_peer_that_works_is_ok_and_nothing_is_stored(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    tables = [row[0] for row in await a.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]

    async def rows() -> list[int]:
        return [await node.count(table) for node in (a, b) for table in tables]

    before = await rows()
    probed = await a.parts.probe.ask(b.name)
    assert [(each.step, each.state) for each in probed.steps] == [(name, "ok") for name in NAMES]
    assert probed.failed is None
    assert probed.ahead is not None
    assert abs(probed.ahead) < timedelta(seconds=30)
    assert await rows() == before


async def test_a_name_without_an_address_is_dns(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    m = await stranger_at(fed, "https://node.invalid:8441")
    failed_at(await a.parts.probe.ask(m.name), "dns")


async def test_a_peer_that_does_not_run_is_tcp(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    await b.stop()
    probed = await a.parts.probe.ask(b.name)
    assert failed_at(probed, "tcp") == "Connection refused"
    assert probed.failed is not None
    assert f"nc -vz 127.0.0.1 {b.port}" in probed.failed.fix


def _context(folder: Path) -> tuple[ssl.SSLContext, str]:
    key, certificate = self_signed("127.0.0.1", SystemClock().now())
    (folder / "tls.key").write_bytes(key)
    (folder / "tls.pem").write_bytes(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.pem", folder / "tls.key")
    return context, b64u(pin_of_pem(certificate))


async def test_another_tls_key_than_the_listed_one_is_tls(fed: Federation, tmp_path: Path) -> None:
    (a,) = await fed.nodes("a")
    context, _ = _context(tmp_path)
    async with listening(web.Application(), tls=context) as port:
        m = await stranger_at(fed, f"https://127.0.0.1:{port}")
        assert "TLS key" in failed_at(await a.parts.probe.ask(m.name), "tls")


async def test_a_port_that_speaks_no_tls_is_tls(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    async with listening(web.Application()) as port:
        m = await stranger_at(fed, f"https://127.0.0.1:{port}")
        assert "no TLS 1.3" in failed_at(await a.parts.probe.ask(m.name), "tls")


async def test_a_web_server_that_is_no_node_is_http(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    async with listening(web.Application()) as port:
        m = await stranger_at(fed, f"http://127.0.0.1:{port}")
        assert "no node" in failed_at(await a.parts.probe.ask(m.name), "http")


async def test_a_peer_that_takes_connections_and_never_answers_ends_the_probe_in_time(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        m = await stranger_at(fed, f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "within 5 s" in failed_at(await a.parts.probe.ask(m.name), "http")


async def test_a_clock_that_differs_by_two_minutes_is_clock(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    await a.stop()
    a.wraps.append(lambda ports: setattr(ports, "clock", SteadyClock(Shifted(fed, timedelta(minutes=2)))))
    await a.start()
    assert "2 min behind ours" in failed_at(await a.parts.probe.ask(b.name), "clock")


async def test_a_signature_that_the_peer_finds_too_old_is_clock(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    await b.stop()
    b.wraps.append(lambda ports: setattr(ports, "clock", SteadyClock(Shifted(fed, timedelta(minutes=10)))))
    await b.start()
    assert "httpsig.time" in failed_at(await a.parts.probe.ask(b.name), "clock")


async def test_a_peer_whose_directory_does_not_list_us_is_trust(fed: Federation) -> None:
    (b,) = await fed.nodes("b")
    newest = b._ports.directory
    old = await newest.refresh(fed.clock.now())

    class Old:
        current = old

        async def refresh(self, now: datetime) -> Any:
            return old

    await b.stop()
    b.wraps.append(lambda ports: setattr(ports, "directory", Old()))
    await b.start()
    (a,) = await fed.nodes("a")
    assert "httpsig.key" in failed_at(await a.parts.probe.ask(b.name), "trust")


async def test_a_suspended_member_is_told_so_as_trust(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    fed.set_status(a, "suspended")
    await fed.publish()
    assert "peer.suspended" in failed_at(await a.parts.probe.ask(b.name), "trust")
    assert "our directory" in failed_at(await b.parts.probe.ask(a.name), "trust")


async def test_members_without_a_role_for_each_other_are_rights(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b", roles=("auditor",))
    failed_at(await a.parts.probe.ask(b.name), "rights")


async def test_a_node_that_must_not_sign_is_backend(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    (b.folder / "keys" / "guard.json").unlink()
    await refused("ledger.rollback", b.trace(a))
    assert "ledger.rollback" in failed_at(await a.parts.probe.ask(b.name), "backend")


async def test_a_node_that_says_it_is_not_ready_is_backend(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    b.parts.health["node"] = "ledger.not_ready"
    assert "ledger.not_ready" in failed_at(await a.parts.probe.ask(b.name), "backend")


async def test_a_node_without_its_database_says_so_as_backend(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")

    class Away:
        """A ledger store that cannot be asked."""

        def __init__(self, real: Any) -> None:
            self._real = real

        async def heads(self) -> Any:
            raise Unavailable("gone")

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

    await b.stop()
    b.wraps.append(lambda ports: setattr(ports, "ledger", Away(ports.ledger)))
    await b.start()
    assert "store.busy" in failed_at(await a.parts.probe.ask(b.name), "backend")


# ---- what a hostile or a different peer may answer


@asynccontextmanager
async def answering(fed: Federation, make: Callable[[Stranger], bytes]) -> AsyncIterator[tuple[Node, Stranger]]:
    """A node, and a member whose probe is answered with these bytes."""
    (a,) = await fed.nodes("a")
    given: list[bytes] = []

    async def probe(request: web.Request) -> web.Response:
        return web.Response(body=given[0])

    app = web.Application()
    app.router.add_get("/exchange/v1/probe", probe)
    async with listening(app) as port:
        m = await stranger_at(fed, f"http://127.0.0.1:{port}")
        given.append(make(m))
        yield a, m


def said(m: Stranger, **changes: Any) -> bytes:
    """An answer of the stranger to node a, signed with its request key unless told otherwise."""
    signer = changes.pop("signer", m.keys.signer("request"))
    typ = changes.pop("typ", PROBE_TYP)
    found = {
        "v": 1, "from": m.name, "to": "testnet/a", "at": format_time(m.fed.clock.now()), "dir": 1, "suite": "tw1",
        "types": ["trace.request"], "wrong": [],
    }  # fmt: skip
    return sign_message(dump_json(found | changes), signer, typ)


async def test_a_good_answer_of_another_implementation_is_taken(fed: Federation) -> None:
    async with answering(fed, said) as (a, m):
        assert (await a.parts.probe.ask(m.name)).failed is None


HOSTILE: dict[str, tuple[str, Callable[[Stranger], bytes]]] = {
    "no JWS": ("trust", lambda m: b"hello"),
    "a JWS of another kind": ("trust", lambda m: said(m, typ="tracewire-message+jws")),
    "another key of the member": ("trust", lambda m: said(m, signer=m.keys.signer("message"))),
    "a signature that does not hold": ("trust", lambda m: said(m)[:-4] + b"AAAA"),
    "an answer for somebody else": ("trust", lambda m: said(m, to="testnet/x")),
    "an answer of somebody else": ("trust", lambda m: said(m, **{"from": "testnet/x"})),
    "an old answer": ("trust", lambda m: said(m, at=format_time(m.fed.clock.now() - timedelta(minutes=6)))),
    "another version": ("schema", lambda m: said(m, v=2)),
    "another suite": ("schema", lambda m: said(m, suite="tw2")),
    "unknown members": ("schema", lambda m: said(m, more=1)),
    "no type in common": ("schema", lambda m: said(m, types=["other"])),
    "too long": ("http", lambda m: said(m, types=["a" * 60] * 500)),
    "not ready": ("backend", lambda m: said(m, wrong=["dir.expired", "words.of.the-peer"])),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_what_a_peer_answers_is_judged_at_its_step_and_its_words_are_not_repeated(
    fed: Federation, name: str
) -> None:
    step, make = HOSTILE[name]
    async with answering(fed, make) as (a, m):
        assert "words" not in failed_at(await a.parts.probe.ask(m.name), step)


# ---- the agency interface


async def test_the_agency_interface_probes_a_peer(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    async with aiohttp.ClientSession() as session, office_of(a, session) as office:
        found = await office.post(f"/v1/peers/{b.name}/probes", {})
        assert (found.status, found.json["ok"], found.json["peer"]) == (200, True, b.name)
        assert [each["step"] for each in found.json["steps"]] == NAMES
        await b.stop()
        found = await office.post(f"/v1/peers/{b.name}/probes", {})
        assert (found.status, found.json["ok"], found.json["steps"][1]["state"]) == (200, False, "wrong")
        assert (await office.post("/v1/peers/testnet/nobody/probes", {})).said == (422, "member.unknown")
        assert (await office.call("POST", f"/v1/peers/{b.name}/probes")).said == (401, "auth.missing")


async def test_a_probe_that_is_not_signed_or_has_a_query_learns_nothing(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    async with aiohttp.ClientSession() as session:
        for query, status in (("", 401), ("?x=1", 400)):
            async with session.get(f"{a.url}/exchange/v1/probe{query}") as answer:
                assert answer.status == status
                assert set(await answer.json()) >= {"code", "fix"}


async def test_only_so_many_probes_run_at_once(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    async with answering_late(fed) as (m, go):
        asking = [asyncio.ensure_future(a.parts.probe.ask(m.name)) for _ in range(PROBES_MAX + 1)]
        done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        assert [code_of(each.exception()) for each in done] == ["store.busy"]
        go.set()
        await asyncio.wait(asking)
        failed_at(await a.parts.probe.ask(m.name), "http")


@asynccontextmanager
async def answering_late(fed: Federation) -> AsyncIterator[tuple[Stranger, asyncio.Event]]:
    """A member whose HTTP server answers when the test wants."""
    go = asyncio.Event()

    async def late(request: web.Request) -> web.Response:
        await go.wait()
        return web.Response(status=404)

    app = web.Application()
    app.router.add_get("/{any:.*}", late)
    async with listening(app) as port:
        yield await stranger_at(fed, f"http://127.0.0.1:{port}"), go
