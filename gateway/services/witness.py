"""Witnessing: what others' ledgers show us is cosigned where it goes on from all that we saw; and others do so for ours.

C2SP tlog-witness. What a witness goes on from is the newest linked checkpoint of a ledger (gateway/services/link.py): it is moved
forward by one process of this node at a time, and durable before a cosignature is made; an entry of our own ledger says so, so that
a database which has forgotten it is behind our own guard and cosigns nothing. Who was killed in between is asked again, and goes on
from the size that stands.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import structlog

from gateway.services.changes import Noted
from gateway.services.commit import Committer
from gateway.services.link import Linking
from gateway.services.prove import Prove
from gateway.services.submit import current
from protocols.directory import Directory, Record, witness_keys
from protocols.ledger.checkpoint import Checkpoint, parse_checkpoint
from protocols.ledger.entry import NONCE_BYTES, Entry, PeerRef
from protocols.ledger.witness import format_request, parse_request
from protocols.limits import UNLINKED_ON_FOOT_ALARM_S
from protocols.ports.crypto import Cosigner, Sealer, Verifier
from protocols.ports.directory import DirectorySource
from protocols.ports.store import ExchangeStore, LedgerStore
from protocols.ports.transport import Transport
from protocols.ports.world import Clock
from protocols.problems import ProblemError

_log = structlog.get_logger()
_FIRST_S, _EVERY_S = 30.0, 1_800.0  # at least hourly, with one round to spare
_TRIES = 3


class Witness:
    """Both sides of `add-checkpoint`; `cosigner` gives None where this node has no witness key."""

    def __init__(
        self,
        *,
        member: str,
        committer: Committer,
        directory: DirectorySource,
        ledger: LedgerStore,
        store: ExchangeStore,
        linking: Linking,
        prove: Prove,
        transport: Transport,
        cosigner: Callable[[], Cosigner | None],
        sealer: Sealer,
        verifier: Verifier,
        clock: Clock,
    ) -> None:
        self._member, self._committer, self._origin, self._sealer = member, committer, committer.origin, sealer
        self._directory, self._ledger, self._store = directory, ledger, store
        self._linking, self._prove, self._transport = linking, prove, transport
        self._cosigner, self._verifier, self._clock = cosigner, verifier, clock
        self._noted: dict[str, int] = {}

    async def add(self, body: bytes) -> bytes | int:
        """Our signature lines for a checkpoint that goes on from the one we hold; the size we hold where it goes on from another.

        `witness.origin`, `witness.signature`, `witness.old`, `witness.proof`, `note.invalid`, `ledger.split_view`.
        """
        old, path, claimed = parse_request(body)
        directory = current(self._directory)
        ledger = directory.ledgers.get(claimed.origin)
        if (
            (cosigner := self._cosigner()) is None
            or ledger is None
            or ledger.state == "abandoned"
            or ledger.member == self._member
        ):
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
        return await self._cosign(checkpoint, cosigner)

    async def carried(self, origin: str, directory: Directory) -> bytes | None:
        """The newest linked checkpoint of a ledger with our signature lines, for a courier; None without one, or without our keys.

        `ledger.split_view` where two histories of a ledger of its member are held.
        """
        await self._linking.check_member(directory.ledgers[origin].member, directory)
        size = (await self._store.held(origin)).linked
        note = await self._store.foreign_note(origin, size) if size else None
        if note is None or (cosigner := self._cosigner()) is None or directory.ledgers[origin].state == "abandoned":
            return None
        checkpoint = self._linking.verify(origin, size, note, directory)
        return checkpoint.note + await self._cosign(checkpoint, cosigner)

    async def brought(self, witness: str, note: bytes, directory: Directory) -> None:
        """Keeps what a member signed under a checkpoint of ours and a courier brought.

        `peer.answer` where these are not its signatures, `ledger.split_view` where we signed the checkpoint and do not hold it: that halts.
        """
        claimed = parse_checkpoint(note)
        ours = await self._ledger.checkpoint(claimed.origin, claimed.size)
        if ours is None or ours.root != claimed.root:
            held = self._linking.verify(claimed.origin, claimed.size, note, directory)
            stands = ours or await self._ledger.checkpoint(claimed.origin)
            if stands is not None:
                await self._store.keep_conflict(stands.note, note, origin=claimed.origin, at=self._clock.now())
            if claimed.origin == self._origin:
                await self._committer.set_back(held)
            raise ProblemError("ledger.split_view", "a checkpoint under our ledger's keys that is not in our ledger")
        keys = witness_keys(directory.records[witness])
        lines = keys.cosignature(note, self._verifier) if keys else None
        if lines is None:
            raise ProblemError("peer.answer", "these are not the witness's two signatures")
        await self._ledger.keep_cosignature(claimed.origin, claimed.size, witness, lines, self._clock.now())

    async def _cosign(self, checkpoint: Checkpoint, cosigner: Cosigner) -> bytes:
        """An entry of ours says so first: a database that is older than that is behind our own guard."""
        if self._noted.get(checkpoint.origin, 0) < checkpoint.size:
            await self._note(checkpoint)
        return cosigner.cosign(checkpoint.origin, checkpoint.size, checkpoint.root, self._clock.now())

    async def _note(self, checkpoint: Checkpoint) -> None:
        peer = PeerRef(origin=checkpoint.origin, size=checkpoint.size, root=checkpoint.root)
        nonce = self._sealer.random(NONCE_BYTES)
        await self._committer.commit(
            Noted(entry=Entry(kind="peer-checkpoint", at=self._clock.now(), n=nonce, peer=peer))
        )
        self._noted[checkpoint.origin] = checkpoint.size

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
        """How many witnesses have cosigned a checkpoint of ours in this round; too few for the network is an alarm."""
        directory, found = current(self._directory), set[str]()
        split = await self._linking.split(directory)
        if self._origin in split:  # another process of ours was shown it, as a courier's import is
            self._committer.distrust()
        liars = {origin.rpartition("/")[0] for origin in split}
        witnesses = [name for name in directory.witnesses_of(self._member) if name not in liars]
        asked = [name for name in witnesses if not directory.on_foot(self._member, name)]
        for origin in await self._ledger.heads():  # the end of a closed one is asked for until it is there
            if origin in directory.ledgers and directory.ledgers[origin].state != "abandoned":
                said = await asyncio.gather(*(self._ask(origin, each, directory) for each in asked))
                if origin == self._origin:
                    found = {name for name, yes in zip(asked, said, strict=True) if yes}
        since = self._clock.now() - timedelta(seconds=UNLINKED_ON_FOOT_ALARM_S)
        found |= {*await self._ledger.cosigned_since(self._origin, since)}.intersection(witnesses).difference(asked)
        if len(found) >= directory.quorum_of(self._member):
            if self._linking.alarms.get(self._origin) == "checkpoint.unwitnessed":
                del self._linking.alarms[self._origin]
        else:
            self._linking.alarms.setdefault(self._origin, "checkpoint.unwitnessed")
        return len(found)

    async def _ask(self, origin: str, witness: str, directory: Directory) -> bool:
        checkpoint = await self._prove.newest(origin)
        keys = witness_keys(directory.records[witness])
        lines = (await self._ledger.cosignatures(origin, checkpoint.size)).get(witness)
        if lines and keys and keys.cosignature(checkpoint.note + lines, self._verifier):  # not under former keys
            return True
        try:
            checkpoint, lines = await self._cosignature(witness, checkpoint, directory)
        except ProblemError as problem:
            _log.warning("witness_refused", peer=witness, code=problem.code)
            if problem.code in ("ledger.split_view", "ledger.rollback") and origin == self._origin:
                await self._set_back(origin, directory.records[witness], directory)
            return False
        await self._ledger.keep_cosignature(origin, checkpoint.size, witness, lines, self._clock.now())
        return True

    async def _cosignature(
        self, witness: str, checkpoint: Checkpoint, directory: Directory
    ) -> tuple[Checkpoint, bytes]:
        """A checkpoint of ours, the given one or a newer, and the witness's two verified lines under it."""
        record = directory.records[witness]
        keys = witness_keys(record)
        origin = checkpoint.origin
        old = next(iter(await self._store.named(witness, origin)), 0)
        for _ in range(_TRIES):
            if old > checkpoint.size:  # the exchange has shown it a newer one meanwhile
                checkpoint = await self._prove.newest(origin)
            if old > checkpoint.size:
                raise ProblemError("ledger.rollback", "the witness holds more than we do")
            path = await self._prove.consistency(checkpoint, old)
            answer = await self._transport.add_checkpoint(record, format_request(old, path, checkpoint.note))
            if isinstance(answer, int):
                old = answer
                continue
            lines = keys.cosignature(checkpoint.note + answer, self._verifier) if keys else None
            if lines is None:
                raise ProblemError("peer.answer", "these are not the witness's two signatures")
            return checkpoint, lines
        raise ProblemError("peer.answer", "the witness names another size each time")

    async def _set_back(self, origin: str, witness: Record, directory: Directory) -> None:
        """Halts where a member shows what we signed and do not hold: database and guard were set back together.

        Our own signatures alone count, and a size that we still do not have after it was shown.
        """
        try:
            note = await self._transport.checkpoint(witness, origin)
            held = self._linking.heard(origin, note, directory) if note else None
        except ProblemError:
            return
        ours = await self._ledger.checkpoint(origin, held.size) if held else None
        if held and (ours is None or ours.root != held.root):
            await self._committer.set_back(held)
            _log.error(
                "ledger_halted", code="ledger.rollback", why=f"{witness.member} holds what we signed and do not have"
            )
