"""The auditor's pages of a node, over its own ledgers."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial

from aiohttp import web

from gateway.console.explorer import Beside, Explorer, Inside
from gateway.console.session import Door
from gateway.runtime.ports import Ports
from gateway.services.committed import LedgerView, log_name
from gateway.services.explore import Explore
from gateway.services.link import Linking
from gateway.services.read import Read
from gateway.services.session import Sessions
from gateway.services.submit import current
from gateway.services.trail import Trail
from protocols.directory import witness_keys, year_and_number
from protocols.ledger.checkpoint import LedgerKeys, verify_checkpoint
from protocols.ledger.entry import Entry
from protocols.ledger.note import VerifierKey
from protocols.limits import EXPIRES_MAX_S
from protocols.ports.crypto import Sealer
from protocols.ports.directory import DirectorySource
from protocols.ports.rows import Gap, ProofRow
from protocols.ports.store import LedgerStore
from protocols.problems import ProblemError

_GAPS_MAX = 1_000


class OwnLedgers:
    """LedgerSource of a node itself."""

    def __init__(self, view: LedgerView, ledger: LedgerStore, directory: DirectorySource) -> None:
        self._view, self._ledger, self._directory = view, ledger, directory

    async def ledgers(self) -> Mapping[str, LedgerKeys]:
        """Those that the directory lists."""
        listed = current(self._directory).ledgers
        heads = await self._ledger.heads()
        return {origin: listed[origin].keys for origin in sorted(heads, key=year_and_number) if origin in listed}

    async def witnesses(self) -> Mapping[str, Sequence[VerifierKey]]:
        """The members' that witness."""
        keys = {name: witness_keys(record) for name, record in current(self._directory).records.items()}
        return {name: (each.ed25519, each.mldsa44) for name, each in keys.items() if each}

    async def enough(self, origin: str, note: bytes, names: Sequence[str]) -> bool:
        """As the network demands."""
        del note
        return len(names) >= current(self._directory).quorum_of(origin.rpartition("/")[0])

    async def note(self, origin: str) -> bytes:
        """The newest checkpoint."""
        return await self._view.own_note(log_name(origin))

    async def witnessed(self, origin: str) -> bytes | None:
        """As it is served to auditors; None where nobody cosigned one."""
        try:
            return await self._view.witnessed_note(log_name(origin), current(self._directory))
        except ProblemError as problem:
            if problem.code != "http.not_found":
                raise
            return None

    async def tile(self, origin: str, path: str) -> bytes:
        """As it is served to members."""
        return await self._view.tile(log_name(origin), path)


def proven_to_us(ports: Ports) -> Callable[[Entry], Awaitable[list[Beside]]]:
    """What other members' ledgers say of the message of an entry, as it was proven to this node."""

    async def beside(entry: Entry) -> list[Beside]:
        found = []
        for member in {entry.sender, entry.recipient} if entry.id else ():
            rows = await ports.threads.proofs(member or "", entry.id) if entry.id else []
            found += [
                Beside(origin=each.origin, index=each.index, data=each.entry, holds=await holds(each)) for each in rows
            ]
        return sorted(found, key=lambda each: (each.origin, each.index))

    async def holds(row: ProofRow) -> bool:
        """Its path leads to a checkpoint that its ledger's keys signed."""
        ledger = current(ports.directory).ledgers.get(row.origin)
        note = await ports.exchange.foreign_note(row.origin, row.size)
        try:
            if ledger is None or note is None:
                return False
            row.place.check(verify_checkpoint(note, ledger.keys, ports.verifier))
        except ProblemError:
            return False
        return True

    return beside


def inside(trail: Trail, ports: Ports, linking: Linking) -> Inside:
    """What a node knows besides its ledger."""

    async def gaps() -> list[tuple[Gap, bool]]:
        old = ports.clock.now() - timedelta(seconds=EXPIRES_MAX_S)
        return [(each, each.since < old) for each in await ports.exchange.gaps(_GAPS_MAX)]

    return Inside(
        trail=trail.entries, gaps=gaps, twice=partial(ports.exchange.contradictions, _GAPS_MAX),
        alarms=lambda: linking.alarms,
    )  # fmt: skip


def node_console(
    view: LedgerView, ports: Ports, trail: Trail, sealer: Sealer, linking: Linking, read: Read
) -> list[web.RouteDef]:
    """The console of a node, behind its sessions."""
    door = Door(Sessions(ports.sessions, sealer, ports.clock), time.monotonic, read.ledger)
    explore = Explore(OwnLedgers(view, ports.ledger, ports.directory), ports.verifier)
    within = inside(trail, ports, linking)
    return [*door.routes(), *Explorer(explore, inside=within, beside=proven_to_us(ports)).routes(door.guard)]
