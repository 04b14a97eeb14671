"""What our ledgers say of one thread: who sent, took, answered and read its messages; and whether others hold that too."""

from typing import Any
from uuid import UUID

from gateway.services.read import Read
from gateway.services.submit import current
from protocols.ledger.entry import actor_commitment, parse_entry
from protocols.ports.directory import DirectorySource
from protocols.ports.people import ClientStore
from protocols.ports.store import LedgerStore
from protocols.strict import format_time

READINGS_MAX = 1_000
"""Of a ledger, the newest: a thread can be read without end."""
Json = dict[str, Any]


class Trail:
    """Reads entries, and opens the commitments to actors of this node: `actors` are those that no client is registered for."""

    def __init__(
        self,
        *,
        read: Read,
        ledger: LedgerStore,
        clients: ClientStore,
        directory: DirectorySource,
        actors: tuple[str, ...],
    ) -> None:
        self._directory = directory
        self._read, self._ledger, self._clients, self._actors = read, ledger, clients, actors

    async def entries(self, thread: UUID) -> list[Json]:
        """The entries about a thread by ledger and index; `actor` where it is one that this node knows. `thread.not_found`.

        `grade`: `witnessed` where others have cosigned the checkpoint that covers the entry, the network's quorum where that many did, else `signed`.
        """
        await self._read.legs(thread)
        ids = [each.id for each in await self._read.messages(thread)]
        names = await self._names(thread)
        found: list[Json] = []
        for origin, (size, _) in (await self._ledger.heads()).items():
            quorum = current(self._directory).quorum_of(origin.rpartition("/")[0])
            witnessed = await self._ledger.witnessed(origin, size, quorum)
            entries = await self._ledger.entries_about(origin, ids)
            entries |= await self._ledger.entries_about(origin, ids, opened=READINGS_MAX)
            found += [_shown(origin, index, data, names, witnessed) for index, data in sorted(entries.items())]
        return found

    async def _names(self, thread: UUID) -> dict[bytes, str]:
        """The actors behind commitments under the salts of this thread; none where a message is erased."""
        clients = await self._clients.clients()
        actors = {actor for client in clients for actor in client["actors"]} | set(self._actors)
        salts = [message.salt for message in await self._read.opened(thread)]
        return {actor_commitment(salt, actor): actor for salt in salts for actor in actors}


def _shown(origin: str, index: int, data: bytes, names: dict[bytes, str], witnessed: int) -> Json:
    entry = parse_entry(data)
    shown: Json = {"origin": origin, "index": index, "at": format_time(entry.at), "kind": entry.kind}
    if entry.code:
        shown["code"] = entry.code
    if entry.actor_c and (actor := names.get(entry.actor_c)):
        shown["actor"] = actor
    return shown | {"grade": "witnessed" if index < witnessed else "signed", "message": str(entry.id)}
