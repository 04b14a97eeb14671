"""Poison: what breaks something in us costs nobody else anything, is set aside the third time, and is replayed by hand."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from gateway.services.doctor import numbers
from gateway.services.register import import_register
from protocols.exchange.lines import parse_post
from protocols.ledger.proof import Place
from protocols.limits import EXPIRES_MAX_S
from protocols.ports.crypto import Algorithm
from protocols.ports.store import Unavailable
from tests.federation import Federation, Node, trace_request, verify_ledger, wait_until
from tests.runtime.test_ledger_files import tracewire
from tests.services.test_attachments import attach, draft

REGISTER = (
    b"ref,serial,make,model,type,calibre,sold_on,dealer,country\ng1,KLM4471X9,Glock,17,pistol,9mm,2019-04-01,D,AT\n"
)


class Breaking:
    """A verifier that fails in a way that nobody foresaw, while it is armed."""

    def __init__(self, real: Any) -> None:
        self._real, self.armed, self.calls = real, True, 0

    def verify(self, alg: Algorithm, public: bytes, message: bytes, signature: bytes) -> bool:
        if self.armed and alg == "Ed25519" and b"." in message and message.startswith(b"ey"):  # a JWS
            self.calls += 1
            raise RuntimeError("made by the test")
        return bool(self._real.verify(alg, public, message, signature))


async def test_p02_what_breaks_us_is_set_aside_after_three_tries_and_replayed_by_hand(fed: Federation) -> None:
    breaking: list[Breaking] = []

    def wrap(ports: Any) -> None:
        breaking.append(Breaking(ports.verifier))
        ports.verifier = breaking[-1]

    (a,) = await fed.nodes("a")
    b = Node(fed, "b")
    b.wraps.append(wrap)
    fed._admit(b, ("focal-point", "registry"))
    await b.make()
    await fed.publish()
    await b.start()
    sent = await a.trace(b)

    async def aside() -> Any:
        return await b._ports.exchange.aside()

    (row,) = await wait_until(aside)
    assert (row.source, row.sender, str(row.id), row.cause) == (a.name, a.name, sent["id"], "RuntimeError")
    calls = breaking[-1].calls
    assert calls == 3
    answer = await b.parts.receive.receive(a.name, parse_post(row.post, answer=False))
    assert answer.items[0].code == "internal"
    assert breaking[-1].calls == calls, "it is not opened again"
    assert await b.kinds() == ["ledger-opened"], "no entry says anything of it"
    breaking[-1].armed = False
    await b.restart()  # with a version that mends it
    breaking[-1].armed = False
    (shown,) = (await tracewire("aside", "list", b.folder))["aside"]
    assert (shown["id"], shown["from"], shown["cause"]) == (sent["id"], a.name, "RuntimeError")
    key = ("--key-file", fed.folder / "secret")
    assert (await tracewire("aside", "replay", b.folder, sent["id"], *key))["taken"]
    assert (await tracewire("aside", "list", b.folder))["aside"] == []
    await a.becomes(sent, "delivered")
    await verify_ledger(b)


class Poisoned:
    """A register that one question breaks."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def search(self, question: Any, most: int) -> Any:
        if "KLM7777X7" in repr(question):
            raise RuntimeError("made by the test")
        return await self._real.search(question, most)


async def test_p01_a_request_that_breaks_the_register_waits_for_a_person_and_others_are_answered(
    fed: Federation,
) -> None:
    (a,) = await fed.nodes("a")
    b = Node(fed, "b", registry=True)
    b.wraps.append(lambda ports: setattr(ports, "registry", Poisoned(ports.registry)))
    fed._admit(b, ("focal-point", "registry"))
    await b.make()
    await fed.publish()
    await b.start()
    await import_register(REGISTER, b._ports.registry)
    poison = await a.send(a.draft(b, body=trace_request("KLM7777X7")))
    good = await a.send(a.draft(b, body=trace_request("KLM4471X9")))
    await a.leg_becomes(good, "ANSWERED")

    async def reviewed() -> Any:
        return await b.rows("SELECT reason FROM review WHERE id = $1", UUID(poison["id"]))

    (row,) = await wait_until(reviewed, 30)  # the register looks at what failed every five seconds
    assert row["reason"] == "internal"


# ---- numbers


async def test_a_number_that_never_came_is_reported_and_counts_when_it_must_have_expired(fed: Federation) -> None:
    (b,) = await fed.nodes("b")
    (m,) = await fed.strangers("m")
    for number in (1, 2, 5, 6):
        assert isinstance(await m.give(b, m.parcel(b, entry={"pair_seq": number})), Place)
    (gap,) = await b._ports.exchange.gaps(10)
    assert (gap.origin, gap.first, gap.last) == (m.origin, 3, 4)
    (late,) = numbers([gap], fed.clock.now())
    assert "3..4" in late.what
    assert "on its way still" in late.fix
    (missing,) = numbers([gap], fed.clock.now() + timedelta(seconds=EXPIRES_MAX_S + 60))
    assert "undelivered" in missing.fix
    assert isinstance(await m.give(b, m.parcel(b, entry={"pair_seq": 3})), Place)
    assert isinstance(await m.give(b, m.parcel(b, entry={"pair_seq": 4})), Place)
    assert await b._ports.exchange.gaps(10) == []
    assert [step.state for step in numbers([], fed.clock.now())] == ["ok"]


async def test_a_number_that_must_have_come_is_an_alarm(fed: Federation) -> None:
    (b,) = await fed.nodes("b")
    (m,) = await fed.strangers("m")
    for number in (1, 3):
        assert isinstance(await m.give(b, m.parcel(b, entry={"pair_seq": number})), Place)
    await b.parts.linking.watch(fed.directory)
    assert b.parts.linking.alarms == {}, "it may be on its way still"
    fed.clock.ahead += timedelta(seconds=EXPIRES_MAX_S + 60)
    await b.parts.linking.watch(fed.directory)
    assert b.parts.linking.alarms == {m.origin: "ledger.gap"}


class Flickering:
    """A store of attachments whose database is away for the first calls that look for them."""

    def __init__(self, real: Any) -> None:
        self._real, self.away = real, 3

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def whole(self, digests: Sequence[bytes]) -> Any:
        if self.away:
            self.away -= 1
            raise Unavailable("made by the test")
        return await self._real.whole(digests)


async def test_a_database_that_is_away_is_no_parcels_fault(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    (b,) = await fed.nodes("b")
    await b.stop()

    def wrap(ports: Any) -> None:
        ports.blobs = Flickering(ports.blobs)

    b.wraps.append(wrap)
    await b.start()
    sent = await a.send(draft(a, b, await attach(a, b"a photograph")))
    await a.becomes(sent, "delivered")
    assert (b._ports.blobs.away, await b.count("aside")) == (0, 0)
