"""Collect: fetches what waits elsewhere, for a member without an inbound port (docs/protocol.md section 4, GET /outbox)."""

import asyncio
from collections import Counter

import structlog

from gateway.services.receive import Receive
from gateway.services.submit import current
from protocols.directory import Directory, Record
from protocols.exchange.lines import Post, Receipt, encode_post, parse_post
from protocols.ports.directory import DirectorySource
from protocols.ports.transport import Transport
from protocols.ports.world import Ids
from protocols.problems import ProblemError

_log = structlog.get_logger()
_WAIT_S = 30
_LOOK_S = 5.0  # the directory may name other sources
_PAUSE_MAX_S = 300.0
_UNGIVEN_MAX = 8  # POSTs of receipts
_HASTE_S = 1.0  # an empty answer that comes sooner was not waited for


class Collect:
    """One task a source, so that one that is away never delays another."""

    def __init__(
        self,
        *,
        member: str,
        directory: DirectorySource,
        receive: Receive,
        transport: Transport,
        ids: Ids,
        retry_first_s: float,
    ) -> None:
        self._member, self._directory, self._receive = member, directory, receive
        self._transport, self._ids, self._retry_first_s = transport, ids, retry_first_s
        self._given: dict[str, set[tuple[str, int]]] = {}
        self._ungiven: dict[str, list[bytes]] = {}  # receipts that a source has not taken yet
        self._vain = Counter[str]()  # rounds of a source, one after the other, that brought nothing to an end

    async def run(self) -> None:
        """Follows the directory; ends its tasks with itself."""
        tasks: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                wanted = sources(self._member, current(self._directory))
                for source in tasks.keys() - wanted:
                    tasks.pop(source).cancel()
                for source in wanted - tasks.keys():
                    tasks[source] = group.create_task(self._follow(source))
                await asyncio.sleep(_LOOK_S)

    async def _follow(self, source: str) -> None:
        while True:
            try:
                self._vain[source] = 0 if await self.fetch(source) else self._vain[source] + 1
            except ProblemError as problem:
                self._failed(source)
                _log.warning("fetch_failed", peer=source, code=problem.code)
            except Exception:  # one source's failure is its own
                self._failed(source)
                _log.exception("fetch_failed", peer=source)
            except asyncio.CancelledError:
                self._ungiven.pop(source, None)
                raise
            if vain := self._vain[source]:
                ceiling = min(_PAUSE_MAX_S, self._retry_first_s * 2 ** min(vain, 10))
                await asyncio.sleep(max(self._retry_first_s, ceiling * self._ids.jitter()))

    def _failed(self, source: str) -> None:
        self._vain[source] += 1
        if not self._ungiven.get(source):  # what was committed in this round may not have been given
            self._ungiven.pop(source, None)

    async def fetch(self, source: str) -> bool:
        """One round: what is offered is received, its receipts are given back; whether to ask again at once.

        Not where nothing new came of it: the same receipts again, or an empty answer that did not wait.
        """
        record, began = current(self._directory).records[source], asyncio.get_running_loop().time()
        await self._give_past(source, record)
        wait_s = 0 if self._ungiven.get(source) else _WAIT_S  # what is left is not to wait for what may come
        offered = parse_post(await self._transport.fetch(record, wait_s), answer=False)
        answer = await self._receive.receive(source, offered, fetched=True)
        receipts = tuple(item for item in answer.items if isinstance(item, Receipt))
        if receipts:
            given = Post(hello=answer.hello, checkpoints=answer.checkpoints, items=receipts)
            await self._give(record, encode_post(given))
        given_before, self._given[source] = (
            self._given.get(source),
            {(each.place.origin, each.place.index) for each in receipts},
        )
        if offered.items:
            return bool(receipts) and self._given[source] != given_before
        return asyncio.get_running_loop().time() - began >= _HASTE_S

    async def _give_past(self, source: str, record: Record) -> None:
        """What was not given, since it was cut off or we ended: its messages may have expired, and are offered no more. It holds up nothing."""
        past = self._ungiven.get(source)
        if past is None:
            try:
                past = [encode_post(each) for each in await self._receive.newest(source)]
            except Exception:  # the next round looks again
                _log.exception("receipts_unreadable", peer=source)
                return
        kept = self._ungiven[source] = []
        for n, receipts in enumerate(past):
            try:
                await self._give(record, receipts)
            except ProblemError as problem:
                _log.warning("receipts_not_given", peer=source, code=problem.code)
            if kept:  # it takes none now
                kept += past[n + 1 :]
                break
        del kept[:-_UNGIVEN_MAX]  # the oldest are made anew at the next start

    async def _give(self, record: Record, receipts: bytes) -> None:
        """What a source does not take now is given again first; what it refuses holds up nothing."""
        try:
            await self._transport.receipts(record, receipts)
        except ProblemError as problem:
            if problem.kind.retry == "later":
                self._ungiven.setdefault(record.member, []).append(receipts)
            raise


def sources(member: str, directory: Directory) -> set[str]:
    """Whom to ask: every active member with an endpoint where our record says pull, our hubs where it says hub."""
    record = directory.records.get(member)
    if record is None or not directory.active(member):
        return set()
    asked: set[str] = set()
    if "pull" in record.modes:
        asked |= {name for name, each in directory.records.items() if each.endpoint and directory.active(name)}
    if "hub" in record.modes and "push" not in record.modes:
        asked |= {hub for hub in record.hubs if directory.hub(hub, member)}
    return asked - {member}
