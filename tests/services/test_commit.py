"""The committer over real PostgreSQL: a batch is all or nothing, every change is answered once, whatever breaks."""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from adapters.postgres.connect import Pool
from adapters.postgres.embedded import EmbeddedServer
from adapters.postgres.ledger import PostgresLedger
from gateway.runtime.world import SystemClock, SystemIds
from gateway.services.changes import Dispatched, Noted, Received, Refused, Settled, Submitted
from gateway.services.commit import Committer, Done, LedgerClosed
from gateway.services.stage import Lost
from keys.guard import FileGuard
from keys.notes import LedgerNoteSigner
from keys.suite import Tw1Verifier
from protocols.ledger.checkpoint import LedgerKeys
from protocols.ledger.entry import DirRef, Entry, PeerRef
from protocols.ledger.merkle import EMPTY_ROOT
from protocols.limits import QUEUE_CHANGES_MAX
from protocols.ports.crypto import GuardMark
from protocols.ports.rows import IdempotencyRow, InboxRow, OutboxRow, ProofRow, RefusalRow
from protocols.ports.store import Unavailable
from protocols.problems import ProblemError
from protocols.thread import Said
from tests.federation import code_of, give_back, new_database, refused, verify_ledger

ORIGIN, US, THEM = "testnet/a/2026.1", "testnet/a", "testnet/b"
AT = datetime(2026, 11, 22, tzinfo=UTC)
IDS = SystemIds(SystemClock())
DIGEST = bytes(32)


class Ledger:
    """A committer over a database of its own; looks like a node to `verify_ledger`."""

    def __init__(self, server: EmbeddedServer, folder: Path) -> None:
        self.server, self.folder, self.origin = server, folder, ORIGIN
        self.signer = LedgerNoteSigner(ORIGIN, b"1" * 32, b"2" * 32)
        self.ledger_keys = LedgerKeys.parse(ORIGIN, self.signer.vkeys)
        self.store: Any = None
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self.database, self.dsn = await new_database(self.server)
        self.pool = await Pool.open(self.dsn)
        self.store = self.real = PostgresLedger(self.dsn, self.pool)
        identifier, timeline = await self.real.identity()
        await self.real.make_head(ORIGIN, EMPTY_ROOT)
        self.guard = FileGuard(self.folder)
        self.guard.raise_to(
            GuardMark(origin=ORIGIN, size=0, root=EMPTY_ROOT, system_identifier=identifier, timeline=timeline)
        )
        self.make()

    def make(self, **ports: Any) -> Committer:
        given: dict[str, Any] = {
            "store": self.store,
            "guard": self.guard,
            "clock": SystemClock(),
            "ids": SystemIds(SystemClock()),
        }
        self.committer = Committer(origin=ORIGIN, signer=self.signer, verifier=Tw1Verifier(), **given | ports)
        return self.committer

    def run(self) -> None:
        self._task = asyncio.ensure_future(self.committer.run())

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self.real.close()
        self.pool._pool.terminate()
        give_back(self.server, self.database, self.dsn)

    async def all(self, changes: list[Any]) -> list[Any]:
        """Queues every change before the committer sees one, so that they are one batch; what became of each."""
        waiting = [asyncio.ensure_future(self.committer.commit(change)) for change in changes]
        await asyncio.sleep(0)
        if self._task is None:
            self.run()
        assert self._task is not None
        answers = asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.wait([self._task, answers], return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            answers.cancel()
            await self._task
        return await answers

    async def rows(self, sql: str, *args: Any) -> list[Any]:
        connection = await asyncpg.connect(self.server.dsn(self.database))
        try:
            return await connection.fetch(sql, *args)
        finally:
            await connection.close()

    async def sql(self, sql: str, *args: Any) -> Any:
        return (await self.rows(sql, *args) or [None])[0]

    async def count(self, table: str) -> int:
        return int((await self.sql(f"SELECT count(*) FROM {table}"))[0])


@pytest.fixture
async def ledger(postgres: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Ledger]:
    tmp_path.chmod(0o700)
    made = Ledger(postgres, tmp_path)
    await made.open()
    yield made
    await made.close()


def entry(kind: str, **members: Any) -> Entry:
    return Entry(kind=kind, at=AT, n=bytes(16), **members)


def noted(code: str = "test") -> Noted:
    return Noted(entry=entry("admin", code=code))


def said(id_: UUID) -> Said:
    return Said(event="trace.request", id=id_, created=AT)


def submitted(*, key: str | None = None, **row: Any) -> Submitted:
    id_ = IDS.uuid7()
    given: dict[str, Any] = {
        "id": id_, "thread": IDS.uuid7(), "recipient": THEM, "type": "trace.request", "created": AT, "expires": AT,
        "urgent": False, "pair_seq": 0, "origin": "", "index": 0, "digest": DIGEST, "content_c": DIGEST, "kid": "k",
        "seal_kid": "s", "actor": "me", "envelope": b"sealed", "due": AT,
    }  # fmt: skip
    sent = entry(
        "sent", id=id_, sender=US, recipient=THEM, kid="k", seal_kid="s", suite="tw1", envelope=DIGEST,
        content_c=DIGEST, thread_c=DIGEST, actor_c=DIGEST, dir=DirRef(version=1, sha256=DIGEST),
    )  # fmt: skip
    once = IdempotencyRow(client="c", key=key, digest=DIGEST, answer=str(id_).encode(), at=AT) if key else None
    return Submitted(entry=sent, outbox=OutboxRow(**given | row), content=(), said=said(id_), idempotency=once)


def _arrival(kind: str, id_: UUID, digest: bytes, **members: Any) -> tuple[Entry, ProofRow]:
    peer = PeerRef(origin=f"{THEM}/2026.1", index=1, leaf=DIGEST, size=2, root=DIGEST)
    made = entry(
        kind, id=id_, sender=THEM, recipient=US, pair_seq=1, envelope=digest, dir=DirRef(version=1, sha256=DIGEST),
        peer=peer, **members,
    )  # fmt: skip
    return made, ProofRow(
        peer=THEM, id=id_, digest=digest, origin=peer.origin, index=1, size=2, path=b"", entry=b"theirs"
    )


def received(id_: UUID | None = None, digest: bytes = DIGEST, content_c: bytes = DIGEST) -> Received:
    id_ = id_ or IDS.uuid7()
    made, proof = _arrival(
        "received", id_, digest, kid="k", seal_kid="s", suite="tw1", content_c=content_c, thread_c=DIGEST
    )
    row = InboxRow(
        sender=THEM, id=id_, thread=IDS.uuid7(), type="trace.request", received=AT, origin="", index=0, digest=digest,
        content_c=content_c,
    )  # fmt: skip
    return Received(entry=made, inbox=row, proof=proof, content=(), said=said(id_))


def refusal(id_: UUID, digest: bytes = DIGEST) -> Refused:
    made, proof = _arrival("refused", id_, digest, code="schema.invalid", read=True)
    row = RefusalRow(
        sender=THEM, id=id_, digest=digest, kind="refused", code="schema.invalid", cause="schema.invalid", at=AT,
        origin="", index=0,
    )  # fmt: skip
    return Refused(entry=made, refusal=row, proof=proof)


def settled(change: Submitted, state: Any = "delivered", proven: bool = True) -> Settled:
    row = change.outbox
    peer = PeerRef(origin=f"{THEM}/2026.1", index=1, leaf=DIGEST, size=2, root=DIGEST)
    kind = {"kind": "receipt", "peer": peer} if proven else {"kind": "undelivered", "code": "expired"}
    made = entry(
        kind.pop("kind"), id=row.id, sender=US, recipient=THEM, pair_seq=1, envelope=DIGEST, content_c=DIGEST,
        dir=DirRef(version=1, sha256=DIGEST), **kind,
    )  # fmt: skip
    proof = ProofRow(
        peer=THEM, id=row.id, digest=DIGEST, origin=peer.origin, index=1, size=2, path=b"", entry=b"theirs"
    )
    return Settled(
        entry=made, id=row.id, thread=row.thread, recipient=THEM, state=state, at=AT, proof=proof if proven else None
    )


def dispatched(change: Received) -> Dispatched:
    row = change.inbox
    made = entry("dispatched", id=row.id, sender=THEM, recipient=US, content_c=DIGEST)
    return Dispatched(entry=made, sender=THEM, id=row.id)


# ---- one batch


@pytest.mark.parametrize(
    "bad",
    [{"actor": "nul \0"}, {"kid": "lone \ud800"}, {"digest": None}, {"created": "no time"}, {"type": 7}],
    ids=["U+0000", "surrogate", "null", "time", "text"],
)  # fmt: skip
async def test_one_bad_row_in_a_batch_of_256_fails_alone(ledger: Ledger, bad: dict[str, Any]) -> None:
    changes = [submitted() for _ in range(255)]
    changes.insert(100, submitted(**bad))
    outcomes = await ledger.all(changes)
    (failed,) = [each for each in outcomes if not isinstance(each, Done)]
    assert (outcomes.index(failed), isinstance(failed, ProblemError) and failed.code) == (100, "store.data")
    assert isinstance(*await ledger.all([noted()]), Done), "the committer goes on"
    entries = await verify_ledger(ledger)
    assert (len(entries), await ledger.count("outbox")) == (256, 255)
    for change, outcome in zip(changes, outcomes, strict=True):
        if isinstance(outcome, Done):
            assert entries[outcome.index].id == change.outbox.id, "everyone is answered with the own entry"


async def test_a_mixed_batch_is_one_checkpoint_and_what_stands_in_it_twice_is_answered_from_the_first(
    ledger: Ledger,
) -> None:
    first, second, arrived, bad = submitted(key="k"), submitted(), received(), IDS.uuid7()
    again = received(arrived.inbox.id)
    other = received(arrived.inbox.id, digest=b"2" * 32, content_c=b"3" * 32)
    changes = [
        first, submitted(key="k"), second, settled(second), settled(second), settled(second, "undelivered", False),
        arrived, again, other, dispatched(arrived), dispatched(arrived), refusal(bad), refusal(bad), noted(),
        settled(first, "undelivered", False), settled(first),
    ]  # fmt: skip
    outcomes = await ledger.all(changes)
    lost = [at for at, each in enumerate(outcomes) if isinstance(each, Lost)]
    assert lost == [1, 4, 5, 7, 8, 10, 12], outcomes
    assert outcomes[1].row.answer == str(first.outbox.id).encode()
    assert {outcomes[at].row.index for at in (7, 8)} == {outcomes[6].index}
    entries = await verify_ledger(ledger)
    assert [each.kind for each in entries] == [
        "sent", "sent", "receipt", "received", "dispatched", "refused", "admin", "undelivered", "receipt",
    ]  # fmt: skip
    assert await ledger.count("checkpoint") == 1
    states = {row["id"]: row["state"] for row in await ledger.rows("SELECT id, state FROM outbox")}
    assert states == {first.outbox.id: "delivered", second.outbox.id: "delivered"}
    assert outcomes[6].proofs.place(outcomes[6].index).entry == entries[outcomes[6].index].encode()
    (reused,) = await ledger.all([submitted(key="k", actor="x")])
    assert isinstance(reused, Lost)
    again_later = await ledger.all([received(arrived.inbox.id), refusal(bad), dispatched(arrived)])
    assert all(isinstance(each, Lost) for each in again_later)


async def test_a_cancelled_waiter_is_skipped_and_a_full_queue_is_busy(ledger: Ledger) -> None:
    cancelled = asyncio.ensure_future(ledger.committer.commit(submitted()))
    waiting = [asyncio.ensure_future(ledger.committer.commit(noted())) for _ in range(QUEUE_CHANGES_MAX - 1)]
    await asyncio.sleep(0)
    cancelled.cancel()
    await refused("store.busy", ledger.committer.commit(noted()))
    ledger.run()
    outcomes = await asyncio.gather(*waiting)
    assert [outcome.index for outcome in outcomes] == list(range(QUEUE_CHANGES_MAX - 1))
    assert await ledger.count("outbox") == 0
    await verify_ledger(ledger)


# ---- what breaks around it


class Waiting:
    """The store with a wait inside its first batch."""

    def __init__(self, real: PostgresLedger) -> None:
        self._real = real
        self.entered, self.go = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    @contextlib.asynccontextmanager
    async def batch(self, origin: str) -> AsyncIterator[Any]:
        async with self._real.batch(origin) as batch:
            yield batch
            self.entered.set()
            await self.go.wait()


async def cut_commit(ledger: Ledger, when: str) -> None:
    """Makes the next COMMIT of the committer's connection lose its connection before or after it took effect."""
    connection: Any = await ledger.real._own()

    class Losing:
        """The connection, lost once around COMMIT."""

        def __getattr__(self, name: str) -> Any:
            return getattr(connection, name)

        async def execute(self, sql: str, *args: Any) -> Any:
            if sql == "COMMIT":
                if when == "after":
                    await connection.execute(sql)
                connection.terminate()
                raise ConnectionResetError("cut by the test")
            return await connection.execute(sql, *args)

    ledger.real._connection = Losing()  # type: ignore[assignment]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_commit_whose_outcome_is_unknown_makes_exactly_one_entry(ledger: Ledger, when: str) -> None:
    await cut_commit(ledger, when)
    changes = [submitted(), received(), noted()]
    outcomes = await ledger.all(changes)
    assert [outcome.index for outcome in outcomes] == [0, 1, 2]
    entries = await verify_ledger(ledger)
    assert [each.kind for each in entries] == ["sent", "received", "admin"]
    mark = ledger.guard.read(ORIGIN)
    assert mark is not None
    assert mark.size == 3
    assert isinstance(*await ledger.all([noted()]), Done)


class Gone:
    """The store of a database that nobody reaches any more."""

    def __init__(self, real: PostgresLedger) -> None:
        self._real = real
        self.asked = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def find_batch(self, origin: str, batch: UUID) -> bool:
        self.asked.set()
        raise Unavailable("made by the test")


async def test_a_committer_that_is_stopped_does_not_wait_for_a_database_that_is_gone(ledger: Ledger) -> None:
    store = Gone(ledger.real)
    ledger.make(store=store)
    await cut_commit(ledger, "after")
    ledger.run()
    asked = asyncio.ensure_future(ledger.committer.commit(noted()))
    async with asyncio.timeout(10):
        await store.asked.wait()
        ledger._task.cancel()
        await asyncio.wait([ledger._task])
        await refused("store.busy", asked)  # whoever asks again under its key is answered from what stands


async def test_a_connection_lost_before_the_commit_is_tried_again(ledger: Ledger) -> None:
    assert isinstance((await ledger.all([noted()]))[0], Done)
    await ledger.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()",
        ledger.database,
    )
    assert isinstance(*await ledger.all([noted()]), Done)
    assert len(await verify_ledger(ledger)) == 2


@contextlib.asynccontextmanager
async def another_process(ledger: Ledger) -> AsyncIterator[Committer]:
    """A second committer of the same ledger, over a connection of its own."""
    store = PostgresLedger(ledger.dsn, ledger.pool)
    second = Committer(
        origin=ORIGIN, store=store, signer=ledger.signer, verifier=Tw1Verifier(), guard=FileGuard(ledger.folder),
        clock=SystemClock(), ids=SystemIds(SystemClock()),
    )  # fmt: skip
    running = asyncio.ensure_future(second.run())
    yield second
    running.cancel()
    await asyncio.wait([running])
    await store.close()


async def test_another_process_under_the_head_lock_makes_the_batch_wait_not_fork(ledger: Ledger) -> None:
    """Two committers of one ledger: memory is a cache, never trusted across processes."""
    async with another_process(ledger) as second:
        ledger.run()
        await asyncio.gather(*(each.commit(noted()) for _ in range(30) for each in (ledger.committer, second)))
    assert len(await verify_ledger(ledger)) == 60


async def test_nothing_is_written_to_a_ledger_that_another_process_has_closed(ledger: Ledger) -> None:
    first, member = asyncio.ensure_future(ledger.committer.run()), ORIGIN.rpartition("/")[0]
    await ledger.committer.commit(noted())
    async with another_process(ledger) as second:
        closing = Entry(kind="ledger-closed", at=SystemClock().now(), n=os.urandom(16), sender=member)
        await second.commit(Noted(entry=closing))
        await refused("store.busy", ledger.committer.commit(noted()))
        with pytest.raises(LedgerClosed):  # its process ends, and starts in the next ledger
            await first
    assert [entry.kind for entry in await verify_ledger(ledger)] == ["admin", "ledger-closed"]


async def test_a_committer_that_is_stopped_finishes_its_batch_and_drains_the_rest(ledger: Ledger) -> None:
    store = Waiting(ledger.real)
    committer = ledger.make(store=store)
    first = asyncio.ensure_future(committer.commit(noted()))
    running = asyncio.ensure_future(committer.run())
    await store.entered.wait()
    rest = [asyncio.ensure_future(committer.commit(noted(), 3_000_000)) for _ in range(3)]
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.sleep(0)
    assert not running.done(), "a batch that has begun is finished first"
    store.go.set()
    await asyncio.wait([running])
    assert first.done()
    await committer.drain()
    async with asyncio.timeout(5):
        assert [each.index for each in await asyncio.gather(*rest)] == [1, 2, 3]
    await verify_ledger(ledger)


async def test_a_database_restart_under_load_answers_or_is_busy_and_the_ledger_is_whole(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    folder = Path(tempfile.mkdtemp(prefix="tw-"))
    server = EmbeddedServer(folder)
    await server.start()
    try:
        ledger = Ledger(server, tmp_path)
        await ledger.open()
        ledger.run()
        sent: list[Submitted] = []
        outcomes: list[Any] = []
        stop = asyncio.Event()

        async def load() -> None:
            while not stop.is_set():
                change = submitted()
                sent.append(change)
                try:
                    outcomes.append((change, await ledger.committer.commit(change)))
                except ProblemError as problem:
                    outcomes.append((change, problem.code))

        loading = [asyncio.ensure_future(load()) for _ in range(16)]
        while len(outcomes) < 64:
            await asyncio.sleep(0.01)
        await server.stop()
        await server.start()
        done = len(outcomes) + 64
        while len(outcomes) < done:
            await asyncio.sleep(0.01)
        stop.set()
        await asyncio.gather(*loading)
        entries = await verify_ledger(ledger)
        logged = [each.id for each in entries]
        good = [change.outbox.id for change, outcome in outcomes if isinstance(outcome, Done)]
        assert {outcome for _, outcome in outcomes if not isinstance(outcome, Done)} <= {"store.busy"}
        assert len(set(logged)) == len(logged)
        assert set(good) <= set(logged), "nothing that was answered is lost"
        assert len(outcomes) == len(sent)
        await ledger.close()
    finally:
        await server.stop()
        shutil.rmtree(folder)


async def test_a_guard_that_fails_ends_the_committer_and_the_next_start_catches_up(ledger: Ledger) -> None:
    class Failing:
        """The guard on a full disk."""

        def read(self, origin: str) -> Any:
            return ledger.guard.read(origin)

        def raise_to(self, mark: GuardMark) -> None:
            raise OSError("no space left on device")

    assert isinstance((await ledger.all([noted()]))[0], Done)
    committer = ledger.make(guard=Failing())
    waiting = committer.enqueue(noted())
    dying = asyncio.ensure_future(committer.run())
    await asyncio.wait([dying])
    assert isinstance(dying.exception(), OSError)
    assert code_of(waiting.exception()) == "store.busy", "nobody is told more than to ask again"
    with pytest.raises(ProblemError, match="the node is ending"):
        committer.enqueue(noted())
    mark = ledger.guard.read(ORIGIN)
    assert mark is not None
    assert mark.size == 1
    again = ledger.make()
    assert (await again.check()).size == 2
    mark = ledger.guard.read(ORIGIN)
    assert mark is not None
    assert mark.size == 2, "raised before anything of that size is released"
    assert len(await verify_ledger(ledger)) == 2
