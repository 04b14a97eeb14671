"""Metrics and readiness of a whole node: what an operator is told, in names with units, and what nobody is told."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta

import aiohttp
import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from gateway.runtime.node import _open_pool
from protocols.limits import DIRECTORY_GRACE_S, REQUEST_AHEAD_MAX_S
from protocols.problems import CODES
from tests.federation import HANDLING, Federation, Node, refused, trace_request, wait_until
from tests.http.office import Office
from tests.runtime.serving import operations, served

CANARY = "CANARY77"
UNITS = re.compile(
    r".*_(seconds|bytes|entries|changes|messages|fds)|.*_total|tracewire_build_info"
    r"|tracewire_(ready|directory_version|wrong_checks|alarms)"
)


class Scrape:
    """One scrape: families by name, and the value of a series."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families: dict[str, Metric] = {family.name: family for family in parse(text)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """Sum over the series that have these labels; 0 where there is none."""
        return sum(
            s.value for s in self.samples if s.name == f"tracewire_{name}" and labels.items() <= s.labels.items()
        )


async def scrape(office: Office) -> Scrape:
    reply = await operations(office, "/metrics")
    assert reply.status == 200
    return Scrape(reply.body.decode())


async def readyz(office: Office) -> tuple[int, dict[str, dict[str, dict[str, str]]]]:
    reply = await operations(office, "/readyz")
    return reply.status, reply.json


async def is_ready(office: Office) -> bool:
    return (await readyz(office))[0] == 200


async def raw(address: str, data: bytes) -> bytes:
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    answer = await reader.read()
    writer.close()
    return answer


async def knows(node: Node, member: str) -> bool:
    directory = await node._ports.directory.refresh(node.fed.clock.now())
    return member in directory.records


@pytest.fixture
async def office(fed: Federation) -> AsyncIterator[Office]:
    """A node `a` served whole, ready, beside a node `b` of this process."""
    a, _ = await fed.nodes("a", "b")
    await a.stop()
    async with served(a) as made:
        await wait_until(lambda: is_ready(made))
        yield made


def other(office: Office) -> Node:
    found = office.node.fed.members[1]
    assert isinstance(found, Node)
    return found


async def submit(office: Office, serial: str = f"{CANARY}X1") -> dict[str, str]:
    body = {"to": other(office).name, "body": trace_request(serial), "handling": HANDLING}
    reply = await office.post("/v1/traces", body)
    assert reply.status == 202, reply.body
    return reply.json


async def test_every_metric_has_prefix_unit_and_help_and_no_label_is_open(office: Office) -> None:
    await office.node.becomes(await submit(office), "delivered")
    assert (await office.get(f"/v1/nowhere/{CANARY}")).status == 404
    assert (await office.call("DELETE", f"/v1/traces?{CANARY}")).status == 405
    assert b" 400 " in await raw(
        office.node.settings.exchange_bind, f"GET /{CANARY} HTTP/1.1\r\n{CANARY}\r\n\r\n".encode()
    )
    found = await scrape(office)
    assert len(found.families) > 20
    for name, family in found.families.items():
        assert name.startswith("tracewire_"), name
        assert family.documentation, name
        for sample in family.samples:
            assert UNITS.fullmatch(re.sub("_(bucket|count|sum)$", "", sample.name)), sample.name
    listeners = other(office).parts.listeners.values()
    templates = {"", *(each.canonical for app in listeners for each in app.router.resources())}
    bounded = {
        "le": r"[0-9.+Inf]+", "listener": "agency|exchange|operations", "method": "|GET|POST", "status": r"\d{3}",
        "route": "|".join(map(re.escape, templates)), "peer": "testnet/[ab]",
        "outcome": "|".join(("received", "repeated", "delivered", "refused", "conflict", *CODES)), "code": "|".join(CODES),
        "place": "node", "version": ".*", "python": ".*", "check": "[a-z]+",
    }  # fmt: skip
    for sample in found.samples:
        for name, value in sample.labels.items():
            assert re.fullmatch(bounded[name], value), (sample.name, name, value)
    assert CANARY not in found.text
    assert found.value("request_seconds_count", listener="agency", route="/v1/traces", status="202") == 1
    assert found.value("request_seconds_count", listener="agency", route="", status="404") == 1
    assert found.value("request_seconds_count", listener="agency", route="", status="405") == 1
    assert found.value("request_seconds_count", listener="exchange", route="", status="400") == 1
    reply = await operations(office, "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert {family.name for family in parse_openmetrics(reply.body.decode())} >= {"tracewire_ready", "tracewire_build"}


async def test_what_waits_is_counted_with_its_age_and_why_deliveries_fail(office: Office) -> None:
    await office.node.becomes(await submit(office), "delivered")

    async def counted() -> Scrape | None:  # after COMMIT, which is what we have seen
        found = await scrape(office)
        return found if found.value("delivery_attempts_total", outcome="delivered") else None

    before = await wait_until(counted)
    assert before.value("delivery_attempts_total", outcome="delivered") == 1
    assert before.value("outbox_messages") == 0
    await other(office).stop()
    await submit(office)

    async def tried() -> Scrape | None:
        found = await scrape(office)
        return found if found.value("delivery_attempts_total", outcome="peer.unreachable") else None

    found = await wait_until(tried)
    assert found.value("outbox_messages", peer="testnet/b") == 1
    assert 0 < found.value("outbox_oldest_seconds", peer="testnet/b") < 60
    assert found.value("ledger_entries") == await office.node.count("entry")
    assert found.value("ledger_unwitnessed_entries") == await office.node.count("entry")
    assert 0 < found.value("checkpoint_age_seconds") < 60
    assert found.value("directory_version") == office.node.fed.directory.ref.version
    assert 0 < found.value("directory_expires_seconds") <= 86_400
    assert found.value("disk_free_bytes", place="node") > 0
    assert found.value("ready") == 1


async def test_parcels_are_counted_by_what_became_of_them(office: Office) -> None:
    node = office.node
    (m,) = await node.fed.strangers("m")
    await wait_until(lambda: knows(node, m.name))
    parcel = m.parcel(node)
    await m.give(node, parcel)
    await m.give(node, m.fresh(parcel))
    assert await m.give(node, m.parcel(node, envelope=lambda _: b"{}"))
    found = await scrape(office)
    counted = {s.labels["outcome"]: s.value for s in found.samples if s.name == "tracewire_parcels_total"}
    assert counted == {"received": 1, "repeated": 1, "env.format": 1}
    assert found.value("inbox_messages") == 1
    assert found.value("inbox_oldest_seconds") > 0


async def test_readiness_names_every_cause_with_its_reason_and_its_fix(office: Office) -> None:
    fed = office.node.fed
    fed.clock.ahead += timedelta(seconds=DIRECTORY_GRACE_S, days=2)
    assert (await scrape(office)).value("directory_expires_seconds") < -DIRECTORY_GRACE_S
    fed.clock.ahead -= timedelta(seconds=REQUEST_AHEAD_MAX_S, minutes=5)
    status, said = await readyz(office)
    assert (status, said["ready"]) == (503, False)
    assert {check: told["code"] for check, told in said["wrong"].items()} == {
        "directory": "dir.stale", "clock": "time.rollback",
    }  # fmt: skip
    for told in said["wrong"].values():
        assert all(told[name] for name in ("what", "why", "fix"))
    assert said["wrong"]["clock"]["fix"] == CODES["time.rollback"].fix
    found = await scrape(office)
    assert found.value("ready") == 0
    assert found.value("wrong_checks", check="directory", code="dir.stale") == 1
    assert found.value("clock_behind_seconds") > REQUEST_AHEAD_MAX_S


async def test_a_database_that_is_away_is_said_and_nothing_is_counted_from_memory(office: Office) -> None:
    assert (await scrape(office)).value("checkpoint_age_seconds") > 0
    await office.node.pool.close()
    status, said = await readyz(office)
    assert (status, said["wrong"]["database"]["code"]) == (503, "store.busy")
    found = await scrape(office)
    assert "tracewire_checkpoint_age_seconds" not in found.families
    assert (found.value("ready"), found.value("wrong_checks", check="database")) == (0, 1)
    assert (await operations(office, "/livez")).status == 200


async def test_a_node_that_waits_for_its_database_says_so_from_the_start(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    await a.stop()
    stop, nowhere = asyncio.Event(), f"postgresql://postgres@/none?host={fed.folder}"
    opening = asyncio.ensure_future(_open_pool(nowhere, a.settings, a.folder, stop))
    async with aiohttp.ClientSession() as session:
        office = Office(a, session, "")

        async def said() -> tuple[int, dict[str, dict[str, dict[str, str]]]] | None:
            try:
                return await readyz(office)
            except aiohttp.ClientError:
                return None

        status, found = await wait_until(said)
        assert (status, found["wrong"]["database"]["code"]) == (503, "store.busy")
        measured = await scrape(office)
        assert measured.value("ready") == 0
        assert "tracewire_ready" in measured.families
        assert measured.value("wrong_checks", check="database", code="store.busy") == 1
    stop.set()
    assert await opening is None
    async with served(a) as office:  # its port is free again
        await wait_until(lambda: is_ready(office))


async def test_a_member_that_signed_two_histories_is_an_alarm_and_the_node_stays_ready(office: Office) -> None:
    fed, node = office.node.fed, office.node
    (m,) = await fed.strangers("m")
    await wait_until(lambda: knows(node, m.name))
    twin = m.fork()
    twin.log = [*m.log]
    await m.give(node, m.parcel(node))
    await refused("ledger.split_view", twin.give(node, twin.parcel(node)))
    found = await scrape(office)
    assert found.value("alarms", peer="testnet/m", code="ledger.split_view") == 1
    status, said = await readyz(office)
    assert (status, said["warnings"]["ledger testnet/m/2026.1"]["code"]) == (200, "ledger.split_view")
