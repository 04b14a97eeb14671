"""Offer: what waits for a member that fetches, and what it answers (docs/protocol.md section 4, GET /outbox)."""

import asyncio
from collections import defaultdict

from gateway.services.pack import Pack
from gateway.services.relay import Relay
from gateway.services.settle import Settle
from gateway.services.submit import current
from gateway.services.wake import woken
from protocols.directory import Directory
from protocols.exchange.lines import Post, Receipt
from protocols.ledger.entry import parse_entry
from protocols.limits import PARCELS_MAX, POST_BYTES_MAX
from protocols.ports.directory import DirectorySource
from protocols.ports.store import ExchangeStore
from protocols.ports.world import Clock
from protocols.problems import ProblemError

_LOOK_S = 5.0  # the store is looked at this often: another process of ours may have written
_BYTES = POST_BYTES_MAX // 2


class Offer:
    """Offering does not claim: a parcel is offered until a receipt came, the least offered first."""

    def __init__(
        self,
        *,
        member: str,
        directory: DirectorySource,
        store: ExchangeStore,
        pack: Pack,
        settle: Settle,
        relay: Relay,
        clock: Clock,
    ) -> None:
        self._member, self._directory, self._store, self._pack = member, directory, store, pack
        self._settle, self._relay, self._clock = settle, relay, clock
        self._woken: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._asking: set[str] = set()
        self._ending = False
        self._owned: set[str] = set()  # who was offered of our own last: then it is the turn of what we carry

    def wake(self, peer: str) -> None:
        """Something waits for this member: it is told at once if it listens."""
        if peer in self._asking:
            self._woken[peer].set()

    def end(self) -> None:
        """Nobody waits for parcels any more."""
        self._ending = True
        for peer in self._asking:
            self._woken[peer].set()

    async def offer(self, peer: str, wait_s: float) -> Post:
        """Parcels for a member, ours or one sender's that we carry as a hub; none after `wait_s` without any.

        `store.busy` while the same member asks already.
        """
        if peer in self._asking:
            raise ProblemError("store.busy", "the same member asks already")
        self._asking.add(peer)
        try:
            end = asyncio.get_running_loop().time() + wait_s
            while True:
                self._woken[peer].clear()
                directory = current(self._directory)
                turns = (self._carried, self._own) if peer in self._owned else (self._own, self._carried)
                for turn in turns:
                    if (found := await turn(peer, directory)) is not None:
                        return found
                left = end - asyncio.get_running_loop().time()
                if left <= 0 or self._ending:
                    return await self._pack.post(peer, (), directory)
                await woken(self._woken[peer], min(left, _LOOK_S))
        finally:
            self._asking.discard(peer)
            self._woken.pop(peer, None)

    async def _own(self, peer: str, directory: Directory) -> Post | None:
        found = await self._store.offer(peer, PARCELS_MAX, _BYTES)
        ready, _, _ = await self._pack.ready(found, directory, self._clock.now())
        if not ready:
            return None
        self._owned.add(peer)
        return await self._pack.post(peer, ready, directory)

    async def _carried(self, peer: str, directory: Directory) -> Post | None:
        del directory
        self._owned.discard(peer)
        return await self._relay.offer(peer)

    async def take(self, caller: str, post: Post) -> None:
        """Receipts of what was offered, ours or carried."""
        directory = current(self._directory)
        entries = [parse_entry(item.place.entry) for item in post.items if isinstance(item, Receipt)]
        senders = {entry.sender for entry in entries}
        if senders <= {self._member}:
            await self._settle.take(post, caller, directory)
        elif len(senders) == 1:
            await self._relay.take_receipts(caller, post, directory)
        else:
            raise ProblemError("peer.identity_mismatch", "the receipts are of several senders' messages")
