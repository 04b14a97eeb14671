"""Marking notices as they stand: of each sender's notice the newest version (UN ITI 7, 8, 31)."""

from typing import Any
from uuid import UUID

from gateway.services.content import Content
from gateway.services.read import Read
from gateway.services.terms import withheld
from protocols.ports.access import Caller
from protocols.ports.world import Clock
from protocols.strict import format_time

NOTICES_MAX = 1_000


class Notices:
    """Reads them out of the threads that they opened."""

    def __init__(self, *, member: str, read: Read, clock: Clock) -> None:
        self._member, self._read, self._clock = member, read, clock

    async def shown(self, caller: Caller) -> list[dict[str, Any]]:
        """The notices as the interface shows them; each is noted as read (`auth.purpose`)."""
        found = await self.standing(caller.purpose)
        await self._read.look(found, caller, "notice")
        return [
            {"from": each.sender, "thread": str(each.thread), "since": format_time(each.created), "notice": each.body}
            for each in (content.message for content in found)
        ]

    async def standing(self, purpose: str = "") -> list[Content]:
        """The newest version of each, by country and reference; of the last 1,000 that came or went."""
        newest: dict[tuple[str, str], Content] = {}
        async for leg in self._read.every("marking.notice", NOTICES_MAX):
            for each in await self._one(leg.thread, purpose):
                key = each.message.sender, each.message.body["notice_ref"]
                before = newest.get(key)
                if before is None or before.message.body["version"] < each.message.body["version"]:
                    newest[key] = each
        return sorted(
            newest.values(),
            key=lambda each: (
                each.message.body["country"]["code"], each.message.sender, each.message.body["notice_ref"],
            ),
        )  # fmt: skip

    async def _one(self, thread: UUID, purpose: str) -> list[Content]:
        contents, today = await self._read.contents(thread), self._clock.now().date()
        said = [each.message for each in contents]
        return [
            each
            for each in contents
            if each.message.type == "marking.notice"
            and not withheld(said, each.message, member=self._member, today=today, purpose=purpose)
        ]
