"""The chain of a thread: what every member that was asked has told, as one (docs/domain.md section 2)."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from gateway.services.read import Read, thread_json
from gateway.services.terms import handling_of
from protocols.exchange.message import Message
from protocols.messages.chain import Told, chain_of
from protocols.messages.terms import unreadable
from protocols.ports.world import Clock
from protocols.thread import Leg


class Chains:
    """Makes one chain of the answers that this node holds; nothing is asked of anybody."""

    def __init__(self, *, member: str, read: Read, clock: Clock) -> None:
        self._member, self._read, self._clock = member, read, clock

    async def chain(self, thread: UUID) -> dict[str, Any]:
        """The hops with their outcomes, and the chain; `thread.not_found` for none."""
        return self.made(thread, await self._read.legs(thread), await self._read.opened(thread))

    def answers(self, said: Sequence[Message]) -> dict[str, dict[str, Any]]:
        """Member -> its newest final answer, else its newest interim one; what its handling ended is left out."""
        today = self._clock.now().date()
        answers: dict[str, dict[str, Any]] = {}
        for each in said:
            ended = each.sender != self._member and unreadable(handling_of(said, each), today)
            if each.type == "trace.response" and not ended:
                before = answers.get(each.sender)
                if before is None or each.body["final"] or not before["final"]:
                    answers[each.sender] = each.body
        return answers

    def made(self, thread: UUID, legs: Sequence[Leg], said: Sequence[Message]) -> dict[str, Any]:
        """The chain of a thread that was read."""
        today, answers = self._clock.now().date(), self.answers(said)
        asked = (each for each in said if each.type == "trace.request" and "circumstances" in each.body)
        shown = (
            each.body for each in asked if each.sender == self._member or not unreadable(handling_of(said, each), today)
        )
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


def _result(body: dict[str, Any] | None) -> dict[str, str]:
    return {"result": body["result"]["code"]} if body else {}
