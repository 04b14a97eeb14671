"""The demo's people and systems at work: the police ask, the registry's person and the manufacturer's decide."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import Any, TypeVar

from gateway.runtime.client import DEFAULT_HANDLING, AgencyClient
from gateway.runtime.demo.cases import Case
from gateway.services.answer import response_of
from gateway.services.read import PAGE_MAX
from protocols.ports.registry import Record
from protocols.problems import ProblemError

IN_FLIGHT, BY_PERSON = 64, 10
_SETTLE_S, _POLL_S = 60.0, 0.25
_COUNTRY = "US"  # of the registry
_REFUSAL = {
    "kind": "REFUSAL",
    "ground": {"code": "ITI22_ONGOING_INVESTIGATION", "raw": ""},
    "statement": "A court has sealed the sales records while an investigation is under way.",
}
AUTOMATIC, PERSON, REFUSED = "answered automatically", "answered by a person", "refused: ongoing investigation (ITI 22)"
FLYING, FAILED = "in flight", "failed"
_WAITING = {
    "SERIAL_MISSING": "no serial can be read",
    "SERIAL_PARTIAL": "the serial is incomplete",
    "MAKE_MISSING": "no make is stated",
    "NO_RECORD": "no record has the serial",
    "OTHER_MAKE_ONLY": "only other makes have the serial",
    "SEVERAL_OF_MAKE": "several records share serial and make",
    "COMPONENT_ONLY": "the serial stands on a part that can be changed",
    "SERIAL_SHORT": "the serial has under five characters",
    "TYPE_CONTRADICTS": "the weapon type contradicts the record",
    "CALIBRE_CONTRADICTS": "the calibre contradicts the record",
}
Json = dict[str, Any]
Progress = Callable[[str], None]
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What became of every request, in the words of the table; `wrong` says which were not as expected."""

    outcomes: Counter[str]
    expected: Counter[str]
    wrong: list[str]

    def rows(self) -> Iterator[tuple[str, int, int]]:
        """(outcome, how many, how many expected), in the order of interest."""
        ends = (AUTOMATIC, PERSON, REFUSED), (FLYING, FAILED)
        between = sorted({*self.outcomes, *self.expected}.difference(*ends))
        for name in (*ends[0], *between, *ends[1]):
            yield name, self.outcomes[name], self.expected[name]


async def ask(police: AgencyClient, cases: Sequence[Case], progress: Progress) -> tuple[list[str], str]:
    """Submits all to the registry, many at once, and one to the manufacturer; the threads."""

    async def submit(case: Case, to: str = "demo/registry") -> str:
        answer = await police.post("/v1/traces", {"to": to, "body": case.body, "handling": DEFAULT_HANDLING})
        return str(answer["thread"])

    return await _each(cases, submit, progress, "submitted"), await submit(cases[1], "demo/maker")


async def settle(police: AgencyClient, progress: Progress) -> None:
    """Waits until every request to the registry has its acknowledgement or answer."""
    until = asyncio.get_running_loop().time() + _SETTLE_S
    while asyncio.get_running_loop().time() < until:
        states = Counter([leg["state"] for leg in await _legs(police) if leg["counterpart"] == "demo/registry"])
        progress(", ".join(f"{count} {state.lower()}" for state, count in sorted(states.items())))
        if not states["SENT"] + states["DELIVERED"]:
            return
        await asyncio.sleep(_POLL_S)


async def refuse(maker: AgencyClient) -> None:
    """The manufacturer's person finds the request and refuses it on a ground of ITI 22."""
    for leg in await _legs(maker):
        draft = {"body": _REFUSAL, "handling": DEFAULT_HANDLING}
        await maker.post(f"/v1/traces/{leg['thread']}/refusals", draft, version=leg["version"])


async def decide_ten(registry: AgencyClient, register: Mapping[str, Record]) -> set[str]:
    """The registry's person answers ten of those that wait, of every reason some; their threads."""
    by_reason: dict[str, list[Json]] = {}
    for review in (await registry.get("/v1/reviews", limit=str(PAGE_MAX)))["reviews"]:
        by_reason.setdefault(review["reason"], []).append(review)
    turns = chain.from_iterable(zip_longest(*by_reason.values()))
    chosen = list(islice(filter(None, turns), BY_PERSON))
    for review in chosen:
        leg = await registry.get(f"/v1/traces/{review['thread']}")
        draft = {"body": persons_answer(review, register), "handling": DEFAULT_HANDLING}
        await registry.post(f"/v1/traces/{review['thread']}/answers", draft, version=leg["version"])
    return {review["thread"] for review in chosen}


def persons_answer(review: Json, register: Mapping[str, Record]) -> Json:
    """What a careful person says: the record when one stands out, else the candidates, else that none was found."""
    found = [{"record_ref": each["record_ref"], "score": each["score"]} for each in review["candidates"]]
    if found and (len(found) == 1 or found[0]["score"] - found[1]["score"] >= 10):
        return response_of(register[found[0]["record_ref"]], _COUNTRY)
    none = "IDENTIFICATION_INSUFFICIENT" if review["reason"] == "SERIAL_MISSING" else "NO_RECORD_FOUND"
    return {
        "result": {"code": "MULTIPLE_CANDIDATES" if found else none, "raw": ""},
        "certainty": {"code": "PROBABLE", "raw": ""},
        "final": True,
        "checked_sources": [{"name": "own register", "period": {}, "coverage": {"code": "WHOLE", "raw": ""}}],
        "candidates": found,
    }


async def look_back(
    nodes: Mapping[str, AgencyClient],
    cases: Mapping[str, Case],
    refused: str,
    decided: set[str],
    register: Mapping[str, Record],
) -> Played:
    """Reads every thread on both sides until nothing is under way, and compares each with what the rule says."""
    answered = await _each(list(cases), lambda thread: _settled(nodes["registry"], thread))
    answered.append(await _settled(nodes["maker"], refused))
    asked = await _each([*cases, refused], lambda thread: _settled(nodes["police"], thread))  # all answers are there
    outcomes, expected, wrong = Counter[str](), Counter[str](), list[str]()
    for mine, theirs in zip(asked, answered, strict=True):
        thread = mine["thread"]
        outcome = _outcome(mine, theirs, by_person=thread in decided)
        should = REFUSED if thread == refused else PERSON if thread in decided else _expected(cases[thread])
        outcomes[outcome] += 1
        expected[should] += 1
        if outcome != should:
            wrong.append(f"thread {thread}: {outcome}, not {should}")
        elif outcome == AUTOMATIC and not _same_gun(mine, register[cases[thread].expected.record or ""]):
            wrong.append(f"thread {thread}: the answer is about another gun")
    return Played(outcomes=outcomes, expected=expected, wrong=wrong)


def _expected(case: Case) -> str:
    return AUTOMATIC if case.expected.kind == "auto" else f"waiting for a person: {_WAITING[case.expected.reason]}"


def _outcome(mine: Json, theirs: Json, *, by_person: bool) -> str:
    ends = {"ANSWERED": PERSON if by_person else AUTOMATIC, "REFUSED": REFUSED, "FAILED": FAILED}
    if _under_way(mine) or _under_way(theirs):
        return FLYING
    if "review" not in theirs:
        return ends.get(mine["state"], FLYING)
    return f"waiting for a person: {_WAITING.get(theirs['review']['reason'], theirs['review']['reason'])}"


def _same_gun(shown: Json, record: Record) -> bool:
    bodies = [each["body"] for each in shown["messages"] if each["type"] == "trace.response"]
    return bodies == [response_of(record, _COUNTRY)]


async def _settled(agency: AgencyClient, thread: str) -> Json:
    """A thread when all that this side sent in it has a receipt, or the time is up."""
    until = asyncio.get_running_loop().time() + _SETTLE_S
    while _under_way(shown := await agency.get(f"/v1/traces/{thread}")):
        if asyncio.get_running_loop().time() > until:
            break
        await asyncio.sleep(_POLL_S)
    return shown


def _under_way(shown: Json) -> bool:
    return any(each["state"] == "queued" for each in shown["messages"])


async def _legs(agency: AgencyClient) -> list[Json]:
    found: list[Json] = []
    after: dict[str, str] = {}
    while True:
        page = await agency.get("/v1/traces", limit=str(PAGE_MAX), **after)
        found += page["traces"]
        if "next" not in page:
            return found
        after = {"after": page["next"]}


async def _each(
    items: Sequence[_T], act: Callable[[_T], Awaitable[_R]], progress: Progress = lambda _: None, word: str = ""
) -> list[_R]:
    """The results in order, IN_FLIGHT at once."""
    gate, done = asyncio.Semaphore(IN_FLIGHT), 0

    async def one(item: _T) -> _R:
        nonlocal done
        async with gate:
            result = await act(item)
        done += 1
        progress(f"{done} of {len(items)} {word}")
        return result

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
    except* ProblemError as problems:
        raise problems.exceptions[0] from None
    return [task.result() for task in tasks]
