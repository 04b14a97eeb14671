"""What States owe: the figures of the biennial ITI report and of SDG indicator 16.4.2, from this node's own threads."""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from statistics import median
from typing import Any

from gateway.services.read import Read
from protocols.exchange.message import Message
from protocols.ports.rows import StoredMessage
from protocols.problems import ProblemError
from protocols.thread import Leg

TRACED = frozenset(
    (
        "TRACED_LAST_LEGAL_HOLDER", "TRACED_TO_DEALER", "TRACED_TO_EXPORT", "TRACED_TO_STATE_STOCK", "TRACED_TO_MANUFACTURER_ONLY",
        "RECORD_LOST_STOLEN", "RECORD_DESTROYED_OR_DEACTIVATED", "PRIVATELY_MADE",
    )
)  # fmt: skip
"""Results that establish where a weapon came from; SDG 16.4.2 counts these."""
_OUTCOMES = {
    "ANSWERED": "answered",
    "PARTIAL": "answered",
    "REFUSED": "refused",
    "SILENT": "silent",
    "WITHDRAWN": "withdrawn",
}


class Reports:
    """Counts threads by the year in which they were opened; no person and no weapon stands in a figure."""

    def __init__(self, *, member: str, read: Read) -> None:
        self._member, self._read = member, read

    async def year(self, year: int, seized: int | None = None) -> dict[str, Any]:
        """The figures of one year. `seized` is the State's own count of all arms seized, found or surrendered."""
        sides: dict[str, dict[str, _Side]] = {"asker": {}, "answerer": {}}
        recovered, traced = 0, 0
        async for leg in self._legs(year):
            if leg.kind == "recovery.report":
                recovered += 1
            if leg.kind != "trace.request":
                continue
            side = sides[leg.role].setdefault(leg.counterpart, _Side())
            messages, bodies = await self._said(leg)
            traced += side.add(leg, messages, bodies) and leg.role == "asker"
        counted = recovered if seized is None else seized
        return {
            "year": year,
            "member": self._member,
            "asked": [each.shown(name) for name, each in sorted(sides["asker"].items())],
            "answered": [each.shown(name) for name, each in sorted(sides["answerer"].items())],
            "sdg_16_4_2": {
                "traced": traced, "seized": counted, "seized_from": "recovery reports" if seized is None else "given",
                **({"permille": round(1000 * traced / counted)} if counted else {}),
            },
        }  # fmt: skip

    async def _legs(self, year: int) -> AsyncIterator[Leg]:
        """Newest first; those that are younger are passed over."""
        first, after = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
        async for leg in self._read.every():
            if leg.opened < first:
                return
            if leg.opened < after:
                yield leg

    async def _said(self, leg: Leg) -> tuple[list[StoredMessage], dict[Any, Message]]:
        """The counterparty's or our own answers of one leg, with what they say as far as it is not erased."""
        answers = [
            each
            for each in await self._read.messages(leg.thread)
            if each.type in ("trace.response", "trace.refusal") and leg.counterpart in (each.sender, each.recipient)
        ]
        bodies = {}
        for each in answers:
            try:
                bodies[each.id] = (await self._read.content(each.sender, each.id)).message
            except ProblemError as problem:
                if problem.code != "content.erased":
                    raise
        return answers, bodies


class _Side:
    """What one counterpart did, or what we did for it."""

    def __init__(self) -> None:
        self._outcomes, self._results, self._grounds = Counter[str](), Counter[str](), Counter[str]()
        self._days: list[float] = []
        self._late = 0

    def add(self, leg: Leg, answers: list[StoredMessage], bodies: dict[Any, Message]) -> bool:
        """Whether the weapon's origin is established."""
        finals = [each for each in answers if each.id in bodies and bodies[each.id].body.get("final", True)]
        refusals = [each for each in finals if each.type == "trace.refusal" and bodies[each.id].body["kind"] != "DELAY"]
        answered = [each for each in finals if each.type == "trace.response"]
        outcome = _OUTCOMES.get(leg.state, "open")
        if leg.state == "CLOSED":
            outcome = "answered" if answered else "refused" if refusals else "silent"
        self._outcomes[outcome] += 1
        self._grounds.update(bodies[each.id].body["ground"]["code"] for each in refusals)
        if not answered:
            return False
        self._days.append((answered[0].at - leg.opened).total_seconds() / 86_400)
        self._late += bool(leg.owed and answered[0].at > leg.owed)
        result = bodies[answered[-1].id].body["result"]["code"]
        self._results[result] += 1
        return result in TRACED

    def shown(self, member: str) -> dict[str, Any]:
        """The figures with one counterpart; median days to two places as text, since JSON here has no fractions."""
        outcomes = {name: self._outcomes[name] for name in ("answered", "refused", "silent", "withdrawn", "open")}
        return {
            "member": member,
            "requests": self._outcomes.total(),
            **outcomes,
            "late": self._late,
            **({"median_days": f"{median(self._days):.2f}"} if self._days else {}),
            "results": dict(sorted(self._results.items())),
            "grounds": dict(sorted(self._grounds.items())),
        }
