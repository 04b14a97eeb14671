"""Two nodes as processes, a client that never gives up, and the wait until nothing is on its way any more."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from adapters.postgres.connect import Pool
from adapters.postgres.embedded import EmbeddedServer
from adapters.postgres.registry import PostgresRegistry
from adapters.postgres.threads import PostgresClients
from gateway.runtime.cli.client import make_client
from gateway.runtime.client import AgencyClient
from gateway.services.register import parse_register
from protocols.ports.access import SCOPES
from protocols.strict import dump_json
from tests.fault.wire import Wire
from tests.federation import EVERY_ROLE, HANDLING, Federation, Node, _free_port, trace_request

ROOT = Path(__file__).parents[2]
MESSAGES = 30
MESSAGES_MAX = 400  # more are sent only while the fault has not come
AT_ONCE = 6
START_S, ANSWER_S, SETTLE_S, DIE_S = 30.0, 60.0, 60.0, 5.0
KNOWN = ("KLM4471X9", "BQZ8032Y1")  # serials in b's register
REGISTER = "ref,serial,make,model,type,calibre,sold_on,dealer,country\n" + "".join(
    f"g{n},{serial},Glock,17,pistol,9mm,2019-04-01,Dealer,AT\n" for n, serial in enumerate(KNOWN)
)
Wrap = dict[str, Any]


class Violation(Exception):
    """An invariant of faults.yaml that does not hold: 'I1: ...'."""


class NodeProcess:
    """One member's node; `bug` is a seeded one that every start of it has."""

    def __init__(self, node: Node) -> None:
        self.node, self.bug = node, ""
        self.process: subprocess.Popen[bytes] | None = None
        self.mark = node.folder / "fired"
        self.log = node.folder / "log"

    async def start(self, wrap: Wrap | None = None, *, wait: bool = True, env: Mapping[str, str] | None = None) -> None:
        """Returns when it serves, or is dead already where a fault was ordered."""
        self.mark.unlink(missing_ok=True)
        given = (wrap or {}) | {"mark": str(self.mark)} | ({"bug": self.bug} if self.bug else {})
        program = [sys.executable, str(Path(__file__).with_name("process.py")), str(self.node.folder)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*program, "--key-file", str(self.node.fed.folder / "secret"), "--wrap", json.dumps(given)],
                cwd=ROOT, stdout=log, stderr=log, env=os.environ | (env or {}),
            )  # fmt: skip
        if wait:
            await until(self.ready_or_dead, START_S, lambda: f"I9: {self.node.short} does not start: {self.tail()}")

    async def ready_or_dead(self) -> bool:
        if self.code is not None:
            if self.mark.exists() or self.bug:
                return True
            raise Violation(f"I9: {self.node.short} ended with {self.code}: {self.tail()}")
        return not await self.wrong()

    async def wrong(self) -> dict[str, str]:
        """What its health says; {'node': ...} where nobody listens."""
        url = f"http://{self.node.settings.operations_bind}/readyz"
        try:
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                return {check: each["code"] for check, each in (await response.json())["wrong"].items()}
        except (aiohttp.ClientError, OSError):
            return {"node": "down"}

    @property
    def code(self) -> int | None:
        assert self.process is not None
        return self.process.poll()

    def tail(self) -> str:
        return self.log.read_text()[-600:]

    async def died(self) -> None:
        """Waits until it is dead."""

        async def dead() -> bool:
            return self.code is not None

        await until(dead, DIE_S, lambda: f"{self.node.short} should have died")

    async def stop(self) -> None:
        """As SIGTERM does; kills it where it does not end by itself."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(Violation):
            await self.died()
        self.kill()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class Load:
    """Requests of a's client: each is repeated under its key until it is answered, and asked once more at the end."""

    def __init__(self, pair: "Pair") -> None:
        self._pair, self._agency = pair, AgencyClient.of_node(pair.a.node.folder)
        self.answers: dict[str, bytes] = {}
        self.problems: Counter[str] = Counter()

    async def run(self, enough: Callable[[], bool]) -> None:
        """At least MESSAGES, and on until `enough`."""
        numbers = itertools.count()

        async def work() -> None:
            for n in numbers:
                if n >= MESSAGES_MAX or (n >= MESSAGES and enough()):
                    return
                await self._ask(session, next(self._pair.keys))
                if n >= MESSAGES:
                    await asyncio.sleep(0.02)

        async with self._agency, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
            workers = [asyncio.ensure_future(work()) for _ in range(AT_ONCE)]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.wait(workers)

    async def repeat(self) -> None:
        """The same requests again: the same answers."""
        async with self._agency, aiohttp.ClientSession() as session:
            for key, answer in list(self.answers.items()):
                if await self._answer(session, key) != answer:
                    raise Violation("I6: a request that was answered is answered otherwise when it is repeated")

    async def _ask(self, session: aiohttp.ClientSession, key: str) -> None:
        self.answers[key] = self._pair.answers[key] = await self._answer(session, key)

    async def _answer(self, session: aiohttp.ClientSession, key: str) -> bytes:
        end = time.monotonic() + ANSWER_S
        while time.monotonic() < end:
            try:
                token = await self._agency.token()
                headers = {
                    "Authorization": f"Bearer {token}",
                    "Idempotency-Key": key,
                    "Content-Type": "application/json",
                }
                url = self._agency.url + "/v1/traces"
                async with session.post(url, data=self._body(key), headers=headers) as response:
                    data = await response.read()
            except (aiohttp.ClientError, OSError, TimeoutError):
                self.problems["no answer"] += 1
            except Exception as error:  # of the token; it says a code
                self.problems[getattr(error, "code", "token")] += 1
            else:
                if response.status == 202:
                    return data
                code = str(json.loads(data)["code"])
                self.problems[code] += 1
                if response.status != 503 or "Retry-After" not in response.headers:
                    raise Violation(f"I2: {response.status} {code} is no answer that a client could wait out")
                await self._pair.a_halted()
            await asyncio.sleep(0.05)
        raise Violation(f"I9: a client was not answered within {ANSWER_S} s: {dict(self.problems)}")

    def _body(self, key: str) -> bytes:
        n = int(key.rpartition(" ")[2])
        serial = KNOWN[n // 3 % 2] if n % 3 else f"U{n:06}"
        return dump_json({"to": self._pair.b.node.name, "body": trace_request(serial), "handling": HANDLING})


class Pair:
    """A asks, b has a register and answers; all that clients were told since they were made."""

    def __init__(self, fed: Federation, a: Node, b: Node, *wires: Wire) -> None:
        self.fed, self.a, self.b, self.wires = fed, NodeProcess(a), NodeProcess(b), wires
        self.keys = (f"message {n:06}" for n in itertools.count())
        self.answers: dict[str, bytes] = {}
        self.notes: dict[str, set[bytes]] = {}
        self.rounds = 0
        self._passed, self._left = 0, dict[str, int]()

    @classmethod
    async def make(cls, server: EmbeddedServer, *, wired: bool = False, b_off_s: int = 0) -> "Pair":
        """`wired`: both listen elsewhere than they say; the wires before their addresses are to be opened.

        `b_off_s`: so wrong is b's clock from the beginning on.
        """
        folder = Path(tempfile.mkdtemp(prefix="tw-fault-"))
        fed = Federation(server, folder)
        await fed.__aenter__()
        behind = [{"exchange_bind": f"127.0.0.1:{_free_port()}"} if wired else {} for _ in "ab"]
        a, b = Node(fed, "a", **behind[0]), Node(fed, "b", registry=True, **behind[1])
        for node in (a, b):
            await set_up(node)
        await fed.publish()
        wires = [Wire(node.port, int(node.settings.exchange_bind.rpartition(":")[2])) for node in (a, b) if wired]
        if b_off_s:
            (b.folder / "clock").write_text(str(b_off_s))
        pair = cls(fed, a, b, *wires)
        await asyncio.gather(pair.a.start(), pair.b.start())
        return pair

    @property
    def nodes(self) -> tuple[NodeProcess, NodeProcess]:
        return self.a, self.b

    def __getitem__(self, short: str) -> NodeProcess:
        return {"a": self.a, "b": self.b}[short]

    def kill(self) -> None:
        for each in self.nodes:
            each.kill()

    async def a_halted(self) -> None:
        """Violation where a node signs no more."""
        for each in self.nodes:
            if (await each.wrong()).get("ledger") == "ledger.rollback":
                raise Violation(f"I4: {each.node.short} is halted: its ledger was rolled back")

    async def settle(self, wait_s: float = SETTLE_S) -> None:
        """Until nothing is on its way; the case system of a has then taken everything from the feed."""
        for each in self.nodes:
            if each.code is not None:
                raise Violation(f"I9: {each.node.short} ended with {each.code}: {each.tail()}")
        await until(self._quiet, wait_s, lambda: f"I9: the queues do not become empty: {self._left}")

    async def _quiet(self) -> bool:
        await self.a_halted()
        queued = "state = 'queued'"
        waiting = (
            "NOT dispatched AND NOT EXISTS (SELECT FROM review r WHERE r.sender = inbox.sender AND r.id = inbox.id)"
        )
        self._left = {
            "a sends": await self.a.node.count("outbox", queued), "b sends": await self.b.node.count("outbox", queued),
            "b answers": await self.b.node.count("inbox", waiting),
        }  # fmt: skip
        if any(self._left.values()):
            return False
        await self._take_feed()
        self._left = {"a takes": await self.a.node.count("inbox", "NOT dispatched")}
        return not any(self._left.values())

    async def _take_feed(self) -> None:
        async with AgencyClient.of_node(self.a.node.folder) as agency:
            while True:
                events = (await agency.get("/v1/events", after=str(self._passed), limit="200"))["events"]
                if not events:
                    return
                self._passed = events[-1]["seq"]


async def set_up(node: Node) -> None:
    """Admits a member and makes its node, with a client and a register; the directory is still to be published."""
    node.fed._admit(node, EVERY_ROLE)
    await node.make()
    pool = await Pool.open(node.dsn)
    await make_client(node.folder, PostgresClients(pool), "local", ["local"], list(SCOPES))
    await PostgresRegistry(pool).store(parse_register(REGISTER.encode()))
    await pool.close()


async def until(condition: Callable[[], Awaitable[bool]], wait_s: float, why: Callable[[], str]) -> None:
    """Waits for the condition; Violation after `wait_s`."""
    end = time.monotonic() + wait_s
    while not await condition():
        if time.monotonic() > end:
            raise Violation(why())
        await asyncio.sleep(0.05)
