"""Marking notices as they stand: of each sender's notice the newest version (UN ITI 7, 8, 31)."""

from typing import Any

from gateway.services.read import Read
from gateway.services.terms import handling_of
from protocols.messages.terms import unreadable
from protocols.ports.world import Clock
from protocols.strict import format_time

NOTICES_MAX = 1_000


class Notices:
    """Reads them out of the threads that they opened."""

    def __init__(self, *, member: str, read: Read, clock: Clock) -> None:
        self._member, self._read, self._clock = member, read, clock

    async def standing(self) -> list[dict[str, Any]]:
        """The newest version of each, by country and reference; of the last 1,000 that came or went."""
        newest: dict[tuple[str, str], dict[str, Any]] = {}
        async for leg in self._read.every("marking.notice", NOTICES_MAX):
            for each in await self._one(leg.thread):
                key = each["from"], each["notice"]["notice_ref"]
                before = newest.get(key)
                if before is None or before["notice"]["version"] < each["notice"]["version"]:
                    newest[key] = each
        return sorted(
            newest.values(),
            key=lambda each: (each["notice"]["country"]["code"], each["from"], each["notice"]["notice_ref"]),
        )

    async def _one(self, thread: Any) -> list[dict[str, Any]]:
        said, today = await self._read.opened(thread), self._clock.now().date()
        return [
            {"from": each.sender, "thread": str(thread), "since": format_time(each.created), "notice": each.body}
            for each in said
            if each.type == "marking.notice"
            and (each.sender == self._member or not unreadable(handling_of(said, each), today))
        ]
