"""A node as a process whose ports a test has wrapped: the k-th call of a port method is killed or fails.

    python tests/fault/process.py NODE --key-file FILE [--wrap JSON]

`--wrap` is a JSON object; product code knows nothing of it:
  call    "port.method" (`batch.standing`, `batch.write`, `batch.commit` are the steps of the open batch)
  k       which matching call, from 1;  times: how many from there on (errors only; default 1)
  when    "before" or "after" it took effect
  what    "kill" (SIGKILL of itself), "torn", "half", or a key of ERRORS below
  only    the batch asks for or writes something of this kind (a field of Wanted or Writes, or the name of a row's class)
  under   the call is made within a function of this name
  mark    a file that is made when it happens
  bug     the name of a seeded bug (BUGS below), active in every call
"""

import argparse
import asyncio
import ctypes
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop

from adapters.postgres.connect import Pool
from gateway.runtime.log import configure_logging
from gateway.runtime.node import serve
from gateway.runtime.ports import Ports, connect_ports
from gateway.runtime.settings import load_settings
from gateway.runtime.world import SystemClock, SystemIds
from keys.guard import _dump
from keys.keystore import KeyStore
from keys.secret import Secret
from protocols.exchange.lines import MEDIA_TYPE
from protocols.ports.crypto import GuardMark
from protocols.ports.rows import IdempotencyRow, InboxRow
from protocols.ports.store import OutcomeUnknown, Unavailable
from protocols.problems import ProblemError

ERRORS: dict[str, Callable[[], Exception]] = {
    "unavailable": lambda: Unavailable("made by the test"),
    "unknown": lambda: OutcomeUnknown("made by the test"),
    "unreachable": lambda: ProblemError("peer.unreachable", "made by the test"),
    "disk": lambda: OSError(28, "No space left on device"),
}
SQLSTATES = ("40001", "40P01")  # serialization failure, deadlock: raised by PostgreSQL itself
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class WrongClock(SystemClock):
    """This machine's clock, as many seconds off as NODE/clock says while that is there."""

    def __init__(self, node: Path) -> None:
        self._off = node / "clock"

    def now(self) -> datetime:
        try:
            return super().now() + timedelta(seconds=int(self._off.read_text()))
        except FileNotFoundError:
            return super().now()


class _Dropped(Exception):
    """Ends a batch without COMMIT and without anyone noticing."""


class Fault:
    """What goes wrong, and how often it has been near."""

    def __init__(self, wrap: dict[str, Any], node: Path) -> None:
        self.call, self.when, self.what = wrap.get("call", ""), wrap.get("when", ""), wrap.get("what", "")
        self.k, self.times = wrap.get("k", 1), wrap.get("times", 1)
        self.only, self.under, self.bug = wrap.get("only"), wrap.get("under"), wrap.get("bug", "")
        self._mark, self._node = wrap.get("mark"), node
        self._near = 0

    def at(self, call: str, when: str, *, holds: Any = None) -> str:
        """What happens here and now: '' mostly; a kill does not come back."""
        if (call, when) != (self.call, self.when) or not self._matches(holds):
            return ""
        self._near += 1
        if not self.k <= self._near < self.k + self.times:
            return ""
        self.happened()
        if self.what == "kill":
            die()
        return str(self.what)

    def _matches(self, holds: Any) -> bool:
        if self.under and not _under(self.under):
            return False
        if self.only is None:
            return True
        rows = {type(row).__name__ for row in getattr(holds, "rows", ())}
        return self.only in rows or bool(getattr(holds, self.only, None))

    def happened(self) -> None:
        """Tells the test."""
        if self._mark:
            Path(self._mark).touch()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def _under(name: str) -> bool:
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == name:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


class Port:
    """A port with one method watched."""

    def __init__(self, name: str, real: Any, fault: Fault) -> None:
        self._name, self._real, self._fault = name, real, fault

    def __getattr__(self, method: str) -> Any:
        real, call, fault = getattr(self._real, method), f"{self._name}.{method}", self._fault
        if call != fault.call:
            return real

        async def watched(*args: Any, **kwargs: Any) -> Any:
            await self._act(fault.at(call, "before"), args)
            result = await real(*args, **kwargs)
            await self._act(fault.at(call, "after"), args)
            return result

        def watched_now(*args: Any, **kwargs: Any) -> Any:
            _raise(fault.at(call, "before"), args, self._real)
            result = real(*args, **kwargs)
            _raise(fault.at(call, "after"), args, self._real)
            return result

        return watched if asyncio.iscoroutinefunction(real) else watched_now

    async def _act(self, what: str, args: tuple[Any, ...]) -> None:
        if what == "half":
            _send_half(self._real, *args)
        _raise(what, args, self._real)


def _raise(what: str, args: tuple[Any, ...], real: Any) -> None:
    if what == "torn":
        _tear(real, *args)
    if what in ERRORS:
        error = ERRORS[what]()
        raise error


def _tear(guard: Any, mark: GuardMark) -> None:
    """What is left of the guard when its writer dies in the midst: half a temporary file (keys/files.py `replace`)."""
    data = _dump(guard._marks | {mark.origin: mark})
    guard._path.with_name(f".{guard._path.name}.tmp").write_bytes(data[: len(data) // 2])
    die()


def _send_half(client: Any, peer: Any, body: bytes) -> None:
    """A whole header and half of the body on the wire, then death."""
    url = urlsplit(peer.endpoint.url)
    headers = client._headers("POST", f"{peer.endpoint.url}/exchange/v1/messages", body, MEDIA_TYPE)
    lines = [f"Host: {url.netloc}", f"Content-Length: {len(body)}", *(f"{k}: {v}" for k, v in headers.items())]
    wire = socket.create_connection((url.hostname, url.port or 80))
    wire.sendall(("POST /exchange/v1/messages HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode())
    wire.sendall(body[: len(body) // 2])
    die()


class Batch:
    """An open batch, its steps watched."""

    def __init__(self, real: Any, fault: Fault, guard: Any) -> None:
        self._real, self._fault, self._guard = real, fault, guard
        self.written: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def _act(self, what: str) -> None:
        if what in SQLSTATES:
            sql = f"DO $$ BEGIN RAISE EXCEPTION 'made by the test' USING ERRCODE = '{what}'; END $$"
            await self._real._db.execute(sql)
        _raise(what, (), None)

    async def standing(self, wanted: Any) -> Any:
        await self._act(self._fault.at("batch.standing", "before", holds=wanted))
        found = await self._real.standing(wanted)
        if self._fault.bug == "lost dedupe":
            found.idempotency.clear()
        await self._act(self._fault.at("batch.standing", "after", holds=wanted))
        return found

    async def write(self, writes: Any) -> None:
        await self._act(self._fault.at("batch.write", "before", holds=writes))
        if self._fault.bug == "lost dedupe":
            writes.rows = [row for row in writes.rows if not isinstance(row, IdempotencyRow)]
        if self._fault.bug == "settles another":
            await self._swap(writes)
        await self._real.write(writes)
        self.written = writes
        await self._act(self._fault.at("batch.write", "after", holds=writes))

    async def _swap(self, writes: Any) -> None:
        """A receipt's state goes to another message than the one it is for."""
        ids = [id_ for id_, _ in writes.settled]
        sql = "SELECT id FROM outbox WHERE state = 'queued' AND NOT id = ANY($1) LIMIT $2"
        others = [row["id"] for row in await self._real._db.fetch(sql, ids, len(ids))]
        if others:
            self._fault.happened()
        states = [state for _, state in writes.settled]
        writes.settled = list(zip([*others, *ids[len(others) :]], states, strict=True))

    async def end(self) -> None:
        """Before COMMIT."""
        if self.written is None:
            return
        await self._act(self._fault.at("batch.commit", "before", holds=self.written))
        if self._fault.bug == "guard first" and self.written.checkpoint:
            new, head = self.written.checkpoint, self._real.head
            self._guard.raise_to(GuardMark(
                origin=new.origin, size=new.size, root=new.root, system_identifier=head.system_identifier,
                timeline=head.timeline,
            ))  # fmt: skip
            if self._fault.at("bug", "", holds=self.written) == "die":
                die()
        if self._fault.bug == "answer first" and self._fault.at("bug", "", holds=self.written) == "die":
            self._guard.asleep = True
            asyncio.get_running_loop().call_later(0.3, die)  # everyone has been answered by then
            raise _Dropped

    def ended(self) -> None:
        """After COMMIT."""
        if self.written is not None:
            _raise(self._fault.at("batch.commit", "after", holds=self.written), (), None)


class Ledger:
    """LedgerStore with its batch watched."""

    def __init__(self, real: Any, fault: Fault, guard: Any) -> None:
        self._real, self._fault, self._guard = real, fault, guard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    @asynccontextmanager
    async def batch(self, origin: str) -> Any:
        watched = None
        try:
            async with self._real.batch(origin) as real:
                watched = Batch(real, self._fault, self._guard)
                yield watched
                await watched.end()
        except _Dropped:
            return
        watched.ended()


class HastyIds(SystemIds):
    """Retries come in a fifth of their time."""

    def jitter(self) -> float:
        return super().jitter() / 5


class SleepyGuard:
    """A guard that one bug keeps from noticing."""

    asleep = False

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def raise_to(self, mark: GuardMark) -> None:
        if not self.asleep:
            self._real.raise_to(mark)


class Forgetful(Port):
    """An ExchangeStore that takes one message for another that arrived before: its receipt is for the wrong message."""

    async def arrivals(self, keys: Any) -> Any:
        inbox, refusals = await self._real.arrivals(keys)
        rows = await self._real._pool.fetch("SELECT * FROM inbox ORDER BY received LIMIT 1")
        for sender, id_ in [key for key in keys if key not in inbox] if rows else []:
            digest = await self._digest_of(sender, id_)
            row = {name: rows[0][name] for name in InboxRow.__dataclass_fields__}
            inbox[sender, id_] = replace(InboxRow(**row), id=id_, digest=digest)
            self._fault.happened()
        return inbox, refusals

    @staticmethod
    async def _digest_of(sender: str, id_: Any) -> bytes:
        """The digest of the parcel in hand: from the frame that asks, as a bug there would have it."""
        frame = sys._getframe()
        while frame.f_code.co_name != "_judge_all":
            frame = frame.f_back  # type: ignore[assignment]
        proven = frame.f_locals["proven"].values()
        return next(each.digest for each in proven if (each.entry.sender, each.entry.id) == (sender, id_))


def wrap_ports(ports: Ports, fault: Fault) -> None:
    """The ports that the fault is about, watched; the others as they are."""
    if fault.bug:
        ports.guard = SleepyGuard(ports.guard)  # type: ignore[assignment]
    name = fault.call.partition(".")[0]
    if name == "batch" or fault.bug:
        ports.ledger = Ledger(ports.ledger, fault, ports.guard)  # type: ignore[assignment]
    elif name:
        setattr(ports, name, Port(name, getattr(ports, name), fault))
    if fault.bug == "wrong receipt":
        ports.exchange = Forgetful("exchange", ports.exchange, fault)  # type: ignore[assignment]


async def run(node: Path, secret: Secret, wrap: dict[str, Any]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings, keys = load_settings(node), KeyStore.open(node / "keys", secret)
    pool = await Pool.open(settings.database)
    ports = connect_ports(node, settings, keys, pool, settings.database, system=WrongClock(node))
    real = ports.ledger, ports.transport
    ports.ids = HastyIds(ports.clock)
    wrap_ports(ports, Fault(wrap, node))
    assert keys.origin_in_use(ports.guard)
    try:
        await serve(node, settings, keys, secret, ports, stop)
    finally:
        for each in real:
            await each.close()  # type: ignore[attr-defined]
        await pool.close()


def main() -> None:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    parser = argparse.ArgumentParser()
    parser.add_argument("node", type=Path)
    parser.add_argument("--key-file", type=Path, required=True)
    parser.add_argument("--wrap", type=json.loads, default={})
    args = parser.parse_args()
    configure_logging()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(args.node, Secret.key_file(args.key_file), args.wrap))


if __name__ == "__main__":
    main()
