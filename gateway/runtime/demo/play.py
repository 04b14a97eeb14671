"""The demo's people and systems at work: the police ask, the registry's person and the manufacturer's decide."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import Any, TypeVar

from gateway.runtime.cli.trace import DEFAULT_HANDLING, AgencyClient
from gateway.runtime.demo.cases import Case
from gateway.runtime.demo.federation import Federation
from gateway.services.answer import response_of
from gateway.services.read import PAGE_MAX
from protocols.ports.registry import Record
from protocols.problems import ProblemError

IN_FLIGHT = 64
BY_PERSON = 10
SETTLE_S = 120.0
_POLL_S = 0.25
_UNSETTLED = ("SENT", "DELIVERED")
REGISTER_COUNTRY = "US"
REFUSAL = {
    "kind": "REFUSAL",
    "ground": {"code": "ITI22_ONGOING_INVESTIGATION", "raw": ""},
    "statement": "A court has sealed the sales records while an investigation is under way.",
}
AUTOMATIC, PERSON, REFUSED, FLYING, FAILED = (
    "answered automatically",
    "answered by a person",
    "refused: ongoing investigation (ITI 22)",
    "in flight",
    "failed",
)
WAITING = {
    "SERIAL_MISSING": "no serial can be read",
    "SERIAL_PARTIAL": "the serial is incomplete",
    "MAKE_MISSING": "no make is stated",
    "NO_RECORD": "no record has the serial",
    "OTHER_MAKE_ONLY": "only other makes have the serial",
    "SEVERAL_OF_MAKE": "several records share serial and make",
    "SERIAL_SHORT": "the serial has under five characters",
    "TYPE_CONTRADICTS": "the weapon type contradicts the record",
    "CALIBRE_CONTRADICTS": "the calibre contradicts the record",
}
Progress = Callable[[str], None]
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What became of every request, in the words of the table; `wrong` says which were not as expected."""

    outcomes: Counter[str]
    expected: Counter[str]
    wrong: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agencies:
    """The three members' own systems."""

    police: AgencyClient
    registry: AgencyClient
    maker: AgencyClient


@asynccontextmanager
async def agencies(federation: Federation) -> AsyncIterator[Agencies]:
    """Their clients, each with a token already."""
    nodes = {short: AgencyClient(federation.node(short)) for short in federation.members}
    async with nodes["police"], nodes["registry"], nodes["maker"]:
        for agency in nodes.values():
            await agency.token()
        yield Agencies(**nodes)


async def ask(here: Agencies, cases: Sequence[Case], refused: Case, progress: Progress) -> tuple[list[str], str]:
    """Submits all to the registry, many at once, and one to the manufacturer; the threads."""

    async def submit(case: Case, to: str) -> str:
        draft = {"to": to, "body": case.body, "handling": DEFAULT_HANDLING}
        answer = await here.police.post("/v1/traces", draft)
        return str(answer["thread"])

    threads = await _each(cases, lambda case: submit(case, "demo/registry"), progress, "accepted")
    return threads, await submit(refused, "demo/maker")


async def settle(here: Agencies, progress: Progress) -> None:
    """Waits until every request has its acknowledgement or answer; but for the manufacturer's person."""
    until = asyncio.get_running_loop().time() + SETTLE_S
    while asyncio.get_running_loop().time() < until:
        states = Counter([leg["state"] for leg in await _legs(here.police) if leg["counterpart"] != "demo/maker"])
        progress(", ".join(f"{count} {state.lower()}" for state, count in sorted(states.items())))
        if not any(states[state] for state in _UNSETTLED):
            return
        await asyncio.sleep(_POLL_S)


async def refuse(here: Agencies) -> None:
    """The manufacturer's person finds the request and refuses it on a ground of ITI 22."""
    (leg,) = await _legs(here.maker)
    await here.maker.post(
        _path(leg, "refusals"), {"body": REFUSAL, "handling": DEFAULT_HANDLING}, version=leg["version"]
    )


async def decide_ten(here: Agencies, register: Mapping[str, Record]) -> set[str]:
    """The registry's person answers ten of those that wait, of every reason some; their threads."""
    by_reason: dict[str, list[dict[str, Any]]] = {}
    for review in (await here.registry.get("/v1/reviews", limit=str(PAGE_MAX)))["reviews"]:
        by_reason.setdefault(review["reason"], []).append(review)
    turns = chain.from_iterable(zip_longest(*by_reason.values()))
    chosen = list(islice((review for review in turns if review), BY_PERSON))
    for review in chosen:
        leg = await here.registry.get(f"/v1/traces/{review['thread']}")
        draft = {"body": persons_answer(review, register), "handling": DEFAULT_HANDLING}
        await here.registry.post(_path(leg, "answers"), draft, version=leg["version"])
    return {review["thread"] for review in chosen}


def persons_answer(review: Mapping[str, Any], register: Mapping[str, Record]) -> dict[str, Any]:
    """What a careful person says: the record when one stands out, else the candidates, else that none was found."""
    found, reason = review["candidates"], review["reason"]
    source = {"name": "own register", "period": {}, "coverage": {"code": "WHOLE", "raw": ""}}
    body = {"certainty": {"code": "PROBABLE", "raw": ""}, "final": True, "checked_sources": [source]}
    if reason == "NO_RECORD" or (reason == "SERIAL_PARTIAL" and not found):
        return {"result": {"code": "NO_RECORD_FOUND", "raw": ""}, **body}
    if not found:
        return {"result": {"code": "IDENTIFICATION_INSUFFICIENT", "raw": ""}, **body}
    if len(found) > 1 and found[0]["score"] - found[1]["score"] < 10:
        listed = [{"record_ref": each["record_ref"], "score": each["score"]} for each in found]
        return {"result": {"code": "MULTIPLE_CANDIDATES", "raw": ""}, **body, "candidates": listed}
    return response_of(register[found[0]["record_ref"]], REGISTER_COUNTRY)


async def look_back(
    here: Agencies, cases: Mapping[str, Case], refused: str, decided: set[str], register: Mapping[str, Record]
) -> Played:
    """Reads every thread on both sides until nothing is under way, and compares each with what the rule says."""
    asked = await _each([*cases, refused], lambda thread: _settled(here.police, thread))
    answered = await _each(list(cases), lambda thread: _settled(here.registry, thread))
    reviews = {each["thread"]: each["review"]["reason"] for each in answered if "review" in each}
    queued = {each["thread"] for each in answered if _under_way(each)}
    outcomes, expected, wrong = Counter[str](), Counter[str](), list[str]()
    for each in asked:
        thread = each["thread"]
        outcome = _outcome(each, thread in queued, thread in decided, reviews.get(thread, ""))
        should = REFUSED if thread == refused else PERSON if thread in decided else _expected(cases[thread])
        outcomes[outcome] += 1
        expected[should] += 1
        if outcome != should:
            wrong.append(f"thread {thread}: {outcome}, not {should}")
        elif outcome == AUTOMATIC and not _same_gun(each, cases[thread], register):
            wrong.append(f"thread {thread}: the answer is about another gun")
    return Played(outcomes=outcomes, expected=expected, wrong=wrong)


def _expected(case: Case) -> str:
    decision = case.expected
    return AUTOMATIC if decision.kind == "auto" else f"waiting for a person: {WAITING[decision.reason]}"


def _outcome(shown: Mapping[str, Any], queued: bool, decided: bool, reason: str) -> str:
    state = shown["state"]
    if state == "FAILED":
        return FAILED
    if queued or _under_way(shown) or state in _UNSETTLED:
        return FLYING
    if state == "ANSWERED":
        return PERSON if decided else AUTOMATIC
    if state == "REFUSED":
        return REFUSED
    return f"waiting for a person: {WAITING.get(reason, reason)}"


def _same_gun(shown: Mapping[str, Any], case: Case, register: Mapping[str, Record]) -> bool:
    bodies = [each["body"] for each in shown["messages"] if each["type"] == "trace.response"]
    return bodies == [response_of(register[case.expected.record or ""], REGISTER_COUNTRY)]


async def _settled(agency: AgencyClient, thread: str) -> dict[str, Any]:
    """A thread when all that this side sent in it has a receipt, or the time is up."""
    until = asyncio.get_running_loop().time() + SETTLE_S
    while True:
        shown = await agency.get(f"/v1/traces/{thread}")
        if not _under_way(shown) or asyncio.get_running_loop().time() > until:
            return shown
        await asyncio.sleep(_POLL_S)


def _under_way(shown: Mapping[str, Any]) -> bool:
    return any(each["state"] == "queued" for each in shown["messages"])


async def _legs(agency: AgencyClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    page = {"next": ""}
    while "next" in page:
        after = {"after": page["next"]} if page["next"] else {}
        page = await agency.get("/v1/traces", limit=str(PAGE_MAX), **after)
        found += page["traces"]
    return found


def _path(leg: Mapping[str, Any], what: str) -> str:
    return f"/v1/traces/{leg['thread']}/{what}"


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


def table_rows(played: Played) -> Iterable[tuple[str, int, int]]:
    """(outcome, how many, how many expected), in the order of interest."""
    first = [AUTOMATIC, PERSON, REFUSED]
    waiting = sorted({*played.outcomes, *played.expected} - {*first, FLYING, FAILED})
    for name in (*first, *waiting, FLYING, FAILED):
        yield name, played.outcomes[name], played.expected[name]
