"""The diversion report: patterns over this node's own answered threads, each with its threads (docs/domain.md section 1)."""

import asyncio
from typing import Any
from uuid import UUID

from gateway.services.chain import Chains
from gateway.services.read import Read
from protocols.messages import asked_gun, validate_model
from protocols.messages.diversion import Case, patterns
from protocols.messages.trace import TraceRequest
from protocols.ports.access import Caller

THREADS_MAX = 10_000


class Diversions:
    """Reads threads that we opened; what a member's handling ended is left out, as in the chain."""

    def __init__(self, *, read: Read, chains: Chains) -> None:
        self._read, self._chains, self._one_at_a_time = read, chains, asyncio.Lock()

    async def report(self, caller: Caller) -> dict[str, Any]:
        """The patterns, and of how many threads; the newest 10,000 legs are looked at, by one caller at a time.

        That somebody reads what a pattern shows is noted of each of its threads. `auth.purpose`.
        """
        async with self._one_at_a_time:
            return await self._report(caller)

    async def _report(self, caller: Caller) -> dict[str, Any]:
        threads = {
            leg.thread: None
            async for leg in self._read.every("trace.request", THREADS_MAX)
            if leg.role == "asker" and leg.state in ("ANSWERED", "PARTIAL", "CLOSED")
        }
        cases = [case for thread in threads if (case := await self._case(thread, caller.purpose)) is not None]
        found = [{"kind": each.kind, "what": each.what, "threads": list(each.threads)} for each in patterns(cases)]
        for thread in sorted({thread for each in found for thread in each["threads"]}):
            contents = await self._read.contents(UUID(thread))
            shown = [each for each in contents if each.message.type in ("trace.request", "trace.response")]
            await self._read.look(shown, caller, "report")
        return {"threads": len(cases), "patterns": found}

    async def _case(self, thread: UUID, purpose: str) -> Case | None:
        """None where nobody answered, or what we asked is erased."""
        legs, said = await self._read.legs(thread), await self._read.opened(thread)
        answers = self._chains.answers(said, purpose)
        asked = next((each.body for each in said if each.type == "trace.request"), None)
        if asked is None or not answers:
            return None
        request = validate_model(TraceRequest, asked, "trace.request")
        dealers = [
            (hop["name"], hop["country"]["code"])
            for body in answers.values()
            for hop in body.get("next_hops", ())
            if hop["party"]["code"] == "DEALER"
        ]
        chain = self._chains.made(thread, legs, said, purpose)
        return Case(thread=str(thread), gun=asked_gun(request.weapon), chain=chain, dealers=dealers)
