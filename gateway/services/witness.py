"""Witnessing: what others' ledgers show us is cosigned where it goes on from all that we saw; and others do so for ours.

C2SP tlog-witness. A witness keeps no state of its own for this: the newest linked checkpoint of a ledger (gateway/services/link.py)
is what it goes on from, and PostgreSQL has it before a cosignature is made. So no two histories of a ledger are ever cosigned,
also not by two processes, nor by one that was killed in between: whoever repeats a request is told the size that stands.
"""

import asyncio

import structlog

from gateway.services.link import Linking
from gateway.services.prove import Prove
from gateway.services.submit import current
from protocols.directory import Directory, witness_keys
from protocols.ledger.checkpoint import Checkpoint
from protocols.ledger.witness import format_request, parse_request
from protocols.ports.crypto import Cosigner, Verifier
from protocols.ports.directory import DirectorySource
from protocols.ports.store import ExchangeStore, LedgerStore
from protocols.ports.transport import Transport
from protocols.ports.world import Clock
from protocols.problems import ProblemError

_log = structlog.get_logger()
_FIRST_S, _EVERY_S = 30.0, 1_800.0  # at least hourly, with one round to spare
_TRIES = 3


class Witness:
    """Both sides of `add-checkpoint`; `origin` is our own ledger, `cosigner` None where this node has no witness key."""

    def __init__(
        self,
        *,
        member: str,
        origin: str,
        directory: DirectorySource,
        ledger: LedgerStore,
        store: ExchangeStore,
        linking: Linking,
        prove: Prove,
        transport: Transport,
        cosigner: Cosigner | None,
        verifier: Verifier,
        clock: Clock,
    ) -> None:
        self._member, self._origin, self._directory, self._ledger, self._store = (
            member,
            origin,
            directory,
            ledger,
            store,
        )
        self._linking, self._prove, self._transport = linking, prove, transport
        self._cosigner, self._verifier, self._clock = cosigner, verifier, clock

    async def add(self, body: bytes) -> bytes | int:
        """Our signature lines for a checkpoint that goes on from the one we hold; the size we hold where it goes on from another.

        `witness.origin`, `witness.signature`, `witness.old`, `witness.proof`, `note.invalid`, `ledger.split_view`.
        """
        old, path, claimed = parse_request(body)
        directory = current(self._directory)
        ledger = directory.ledgers.get(claimed.origin)
        if self._cosigner is None or ledger is None or ledger.state == "abandoned" or ledger.member == self._member:
            raise ProblemError("witness.origin", "we do not witness this ledger")
        await self._linking.check_member(ledger.member, directory)
        try:
            checkpoint = self._linking.verify(claimed.origin, claimed.size, claimed.note, directory)
        except ProblemError as problem:
            if problem.code != "proof.policy":
                raise
            raise ProblemError("witness.signature", "the ledger's two signatures do not hold") from None
        if old > checkpoint.size:
            raise ProblemError("witness.old", "the old size is above the checkpoint's")
        linked = await self._linking.advance(checkpoint, old, path, directory)
        if linked is not None:
            return linked
        return self._cosigner.cosign(checkpoint.origin, checkpoint.size, checkpoint.root, self._clock.now())

    async def run(self) -> None:
        """Has our newest checkpoint cosigned again and again, until cancelled."""
        await asyncio.sleep(_FIRST_S)
        while True:
            try:
                await self.collect()
            except Exception:  # the store may be away for a while; the next round tries again
                _log.exception("witnesses_failed")
            await asyncio.sleep(_EVERY_S)

    async def collect(self) -> int:
        """How many witnesses have cosigned one checkpoint of ours in this round; too few for the network is an alarm."""
        directory = current(self._directory)
        checkpoint = await self._prove.newest(self._origin)
        asked = directory.witnesses_of(self._member)
        found = await asyncio.gather(*(self._ask(each, checkpoint, directory) for each in asked))
        if sum(found) >= directory.network.quorum:
            if self._linking.alarms.get(self._origin) == "checkpoint.unwitnessed":
                del self._linking.alarms[self._origin]
        else:
            self._linking.alarms.setdefault(self._origin, "checkpoint.unwitnessed")
        return sum(found)

    async def _ask(self, witness: str, checkpoint: Checkpoint, directory: Directory) -> bool:
        if witness in await self._ledger.cosignatures(self._origin, checkpoint.size):
            return True
        try:
            lines = await self._cosignature(witness, checkpoint, directory)
        except ProblemError as problem:
            _log.warning("witness_refused", peer=witness, code=problem.code)
            return False
        await self._ledger.keep_cosignature(self._origin, checkpoint.size, witness, lines, self._clock.now())
        return True

    async def _cosignature(self, witness: str, checkpoint: Checkpoint, directory: Directory) -> bytes:
        record = directory.records[witness]
        old = next(iter(await self._store.named(witness, self._origin)), 0)
        for _ in range(_TRIES):
            if old > checkpoint.size:
                raise ProblemError("peer.answer", "the witness holds a larger tree: the next round asks for that")
            path = await self._prove.consistency(checkpoint, old)
            answer = await self._transport.add_checkpoint(record, format_request(old, path, checkpoint.note))
            if isinstance(answer, bytes):
                keys = witness_keys(record)
                if keys is None or not keys.cosigned(checkpoint.note + answer, self._verifier):
                    raise ProblemError("peer.answer", "these are not the witness's two signatures")
                return answer
            old = answer
        raise ProblemError("peer.answer", "the witness names another size each time")
