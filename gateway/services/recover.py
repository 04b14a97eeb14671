"""Recover: write the fork guard anew when nobody holds more of our ledger than the database (docs/protocol.md section 6)."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from protocols.directory import Directory
from protocols.ledger.checkpoint import Checkpoint, verify_checkpoint
from protocols.ledger.merkle import EMPTY_ROOT
from protocols.ledger.merkle import root as tree_root
from protocols.ledger.tiles import TileReader, TilesWanted
from protocols.ports.crypto import Guard, GuardMark, Verifier
from protocols.ports.store import LedgerStore
from protocols.ports.transport import Transport
from protocols.problems import ProblemError


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """The guard's new mark, who answered (member -> size they hold, 0 for nothing), who was waived."""

    mark: GuardMark
    answered: dict[str, int]
    waived: tuple[str, ...]


class Recover:
    """Asks every member what it holds of us; only our own signatures count."""

    def __init__(
        self, *, member: str, ledger: LedgerStore, guard: Guard, transport: Transport, verifier: Verifier
    ) -> None:
        self._member, self._ledger, self._guard = member, ledger, guard
        self._transport, self._verifier = transport, verifier

    async def recover(self, origin: str, directory: Directory, *, waive: Collection[str]) -> Recovered:
        """Writes the guard for the database as it stands.

        ProblemError `ledger.rollback` where the database is behind the guard or a member is ahead, or holds another
        history: then only a new ledger helps. `peer.unreachable` names who has not answered and is not waived.
        """
        head = await self._ledger.checkpoint(origin)
        size, root = (head.size, head.root) if head else (0, EMPTY_ROOT)
        old = self._guard.read(origin)
        if old is not None and (old.size > size or await self._root_at(origin, old.size) != old.root):
            raise ProblemError(
                "ledger.rollback", "the database is behind the guard or another history: open a new ledger"
            )
        answered = await self._ask(origin, directory, size, waive)
        identifier, timeline = await self._ledger.identity()
        mark = GuardMark(origin=origin, size=size, root=root, system_identifier=identifier, timeline=timeline)
        if old is not None:  # the same place under the new identity first: a guard never jumps to another history
            self._guard.raise_to(replace(mark, size=old.size, root=old.root))
        self._guard.raise_to(mark)
        return Recovered(mark=mark, answered=answered, waived=tuple(sorted(waive)))

    async def _ask(self, origin: str, directory: Directory, size: int, waive: Collection[str]) -> dict[str, int]:
        answered: dict[str, int] = {}
        silent = []
        for name, record in directory.records.items():
            if name == self._member or name in waive:
                continue
            try:
                note = await self._transport.checkpoint(record, origin)
            except ProblemError:
                silent.append(name)
                continue
            answered[name] = await self._held(note, origin, directory, size) if note else 0
        if silent:
            raise ProblemError("peer.unreachable", f"no answer from {', '.join(silent)}; ask again, or waive them")
        return answered

    async def _held(self, note: bytes, origin: str, directory: Directory, size: int) -> int:
        try:
            checkpoint: Checkpoint = verify_checkpoint(note, directory.ledgers[origin].keys, self._verifier)
        except ProblemError:
            return 0  # not our signature: it says nothing about us
        if checkpoint.size > size or await self._root_at(origin, checkpoint.size) != checkpoint.root:
            raise ProblemError("ledger.rollback", "a member holds more of this ledger, or another: open a new ledger")
        return checkpoint.size

    async def _root_at(self, origin: str, size: int) -> bytes:
        wanted = TilesWanted()
        tree_root(size, wanted.node)
        reader = TileReader(await self._ledger.tiles(origin, list(wanted.tiles)))
        try:
            return tree_root(size, reader.node)
        except (KeyError, IndexError):
            return b""
