"""The demo's chains: from the State of recovery by the maker and the importer to the registry, one hop at a time."""

import asyncio
from datetime import timedelta
from typing import Any

from gateway.runtime.client import DEFAULT_HANDLING, AgencyClient
from gateway.runtime.world import SystemClock
from protocols.strict import format_time

Json = dict[str, Any]
_PATIENCE_S, _POLL_S = 30.0, 0.2
_SILENT_AFTER = timedelta(seconds=2)
_SOURCES = [{"name": "own records", "period": {}, "coverage": {"code": "WHOLE", "raw": ""}}]
_REFUSAL = {
    "kind": "REFUSAL",
    "ground": {"code": "ITI22_CONFIDENTIALITY_LAW", "raw": ""},
    "statement": "Commercial secrecy binds us in this case; a court order would lift it.",
}
ENDS = ("ANSWERED", "REFUSED", "SILENT")
"""How the last hop of each of the three chains ends; the hops before it refer."""


async def play_chains(nodes: dict[str, AgencyClient], body: Json) -> list[Json]:
    """Three guns asked for hop by hop; each thread's chain as the police see it."""
    whole = await _follow(nodes, body, ["maker", "importer", "registry"])
    refused = await _follow(nodes, body, ["maker", "importer"])
    await _say(nodes["importer"], refused, "refusals", _REFUSAL)
    silent = await _follow(nodes, body, ["maker", "importer"], _SILENT_AFTER)
    threads = dict(zip((whole, refused, silent), ENDS, strict=True))
    return [await _ended(nodes["police"], thread, end) for thread, end in threads.items()]


async def _follow(nodes: dict[str, AgencyClient], body: Json, hops: list[str], due: timedelta | None = None) -> str:
    """Asks the first hop, then each next one as the one before refers to it; the thread. `due` is that of the last hop."""
    police, thread = nodes["police"], ""
    following: Json = {}
    for hop, after in zip(hops, [*hops[1:], None], strict=True):
        last = {"due": format_time(SystemClock().now() + due)} if due and after is None else {}
        said = {"to": f"demo/{hop}", "body": body, "handling": DEFAULT_HANDLING} | following | last
        thread = str((await police.post("/v1/traces", said))["thread"])
        if after is None:
            return thread
        await _say(nodes[hop], thread, "answers", _TOLD[hop])
        told = await _say(nodes[hop], thread, "referrals", _REFERS[hop])
        await _leg(police, thread, f"demo/{hop}", "REFERRED")
        following = {"thread": thread, "referral": told["id"]}
    return thread


async def _say(agency: AgencyClient, thread: str, path: str, body: Json) -> Json:
    leg = await _leg(agency, thread, "demo/police")
    said = {"body": body, "handling": DEFAULT_HANDLING | {"evidence_use": "yes"}}
    return await agency.post(f"/v1/traces/{thread}/{path}", said, version=leg["version"])


async def _leg(agency: AgencyClient, thread: str, counterpart: str, state: str = "") -> Json:
    """The leg once it is there, and in a state."""
    until = asyncio.get_running_loop().time() + _PATIENCE_S
    while True:
        pages = (await agency.get("/v1/traces", limit="50"))["traces"]
        for leg in pages:
            if (leg["thread"], leg["counterpart"]) == (thread, counterpart) and state in ("", leg["state"]):
                return dict(leg)
        if asyncio.get_running_loop().time() > until:
            raise TimeoutError(f"the thread {thread} is not {state or 'there'}")
        await asyncio.sleep(_POLL_S)


async def _ended(police: AgencyClient, thread: str, end: str) -> Json:
    until = asyncio.get_running_loop().time() + _PATIENCE_S
    while True:
        chain = await police.get(f"/v1/traces/{thread}/chain")
        if chain["hops"][-1]["state"] == end or asyncio.get_running_loop().time() > until:
            return chain
        await asyncio.sleep(_POLL_S)


def _event(date: str, kind: str, from_: str, to: str, country: str) -> Json:
    pairs = {
        "kind": kind,
        "from": from_,
        "to": to,
        "country": country,
        "evidence_grade": "RECORD_SYSTEM",
        "certainty": "CONFIRMED",
    }
    return {"date": date} | {name: {"code": code, "raw": ""} for name, code in pairs.items()}


def _answer(result: str, *events: Json) -> Json:
    said = {name: {"code": code, "raw": ""} for name, code in (("result", result), ("certainty", "CONFIRMED"))}
    return said | {"final": False, "checked_sources": _SOURCES, "events": list(events)}


def _refers(name: str, member: str, why: str) -> Json:
    party = {
        "name": name,
        "country": {"code": "US", "raw": ""},
        "party": {"code": "IMPORTER", "raw": ""},
        "member": member,
    }
    return {"next_hop": party, "why": {"code": why, "raw": ""}, "mode": "REQUESTER_ASKS_AGAIN"}


_TOLD = {
    "maker": _answer(
        "TRACED_TO_EXPORT",
        _event("2006-02-14", "MANUFACTURED", "MANUFACTURER", "MANUFACTURER", "AT"),
        _event("2006-04-03", "EXPORTED", "MANUFACTURER", "IMPORTER", "US"),
    ),
    "importer": _answer("TRACED_TO_DEALER", _event("2006-06-20", "SOLD", "IMPORTER", "DEALER", "US")),
}
_REFERS = {
    "maker": _refers("Imports Incorporated", "demo/importer", "SOLD_TO_IMPORTER"),
    "importer": _refers("Firearms Registry", "demo/registry", "RECORDS_ELSEWHERE"),
}
