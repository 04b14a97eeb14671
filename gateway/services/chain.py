"""The chain of a thread: what every member that was asked has told, as one (docs/domain.md section 2)."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from gateway.services.read import Read, thread_json
from gateway.services.terms import withheld
from protocols.exchange.message import Message
from protocols.messages.chain import Told, chain_of
from protocols.ports.access import Caller
from protocols.ports.world import Clock
from protocols.thread import Leg


class Chains:
    """Makes one chain of the answers that this node holds; nothing is asked of anybody."""

    def __init__(self, *, member: str, read: Read, clock: Clock) -> None:
        self._member, self._read, self._clock = member, read, clock

    async def chain(self, thread: UUID, caller: Caller) -> dict[str, Any]:
        """The hops with their outcomes, and the chain; that it is read is noted. `thread.not_found`, `auth.purpose`."""
        legs, contents = await self._read.legs(thread), await self._read.contents(thread)
        drawn = [each for each in contents if each.message.type in ("trace.request", "trace.response")]
        await self._read.look(drawn, caller, "chain")
        return self.made(thread, legs, [each.message for each in contents], caller.purpose)

    def answers(self, said: Sequence[Message], purpose: str = "") -> dict[str, dict[str, Any]]:
        """Member -> its newest final answer, else its newest interim one; what is not to be read, or not for this, is left out."""
        answers: dict[str, dict[str, Any]] = {}
        for each in said:
            if each.type == "trace.response" and not self._withheld(said, each, purpose):
                before = answers.get(each.sender)
                if before is None or each.body["final"] or not before["final"]:
                    answers[each.sender] = each.body
        return answers

    def made(self, thread: UUID, legs: Sequence[Leg], said: Sequence[Message], purpose: str = "") -> dict[str, Any]:
        """The chain of a thread that was read."""
        answers = self.answers(said, purpose)
        asked = (each for each in said if each.type == "trace.request" and "circumstances" in each.body)
        shown = (each.body for each in asked if not self._withheld(said, each, purpose))
        request = next(shown, {})
        hops = [
            thread_json(leg)
            | {"hop": leg.hop, **_result(answers.get(leg.counterpart if leg.role == "asker" else self._member))}
            for leg in sorted(legs, key=lambda leg: (leg.hop, leg.opened))
        ]
        told = [
            Told(member=member, events=body.get("events", []), indicators=body.get("diversion_indicators", []))
            for member, body in answers.items()
        ]
        return {"thread": str(thread), "hops": hops} | chain_of(told, request.get("circumstances"))

    def _withheld(self, said: Sequence[Message], message: Message, purpose: str) -> str:
        return withheld(said, message, member=self._member, today=self._clock.now().date(), purpose=purpose)


def _result(body: dict[str, Any] | None) -> dict[str, str]:
    return {"result": body["result"]["code"]} if body else {}
