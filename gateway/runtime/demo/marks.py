"""The demo's hard marks: a serial that was ground off and restored in part, and a printed frame under a factory slide."""

import asyncio
from collections.abc import Mapping
from typing import Any

from gateway.runtime.client import DEFAULT_HANDLING, AgencyClient
from gateway.runtime.demo.cases import Case
from gateway.runtime.demo.play import persons_answer
from protocols.ports.registry import Record

Json = dict[str, Any]
_PATIENCE_S, _POLL_S = 30.0, 0.1


async def play_marks(
    nodes: Mapping[str, AgencyClient], cases: list[Case], register: Mapping[str, Record]
) -> list[tuple[str, bool]]:
    """What is told of each gun, and whether the right one was found."""
    ground, printed = (register[case.expected.record or ""] for case in cases)
    serial = ground.serial
    partial = f"{serial[:2]}?{serial[3:]} (ground off, restored by etching)"
    events, review = await _answered(nodes, cases[0].body, {"serial": partial, "make": ground.make}, register)
    best = review["candidates"][0]["record_ref"]
    etched = f"A serial ground off and restored in part: {len(review['candidates'])} candidates, the person answers from the best"
    found = [(etched, best == ground.gun.ref and bool(events))]
    words = {"serial": f"none (frame); {printed.serial} (slide)", "make": printed.make, "origin_class": "PRINTED"}
    events, review = await _answered(nodes, cases[1].body, words, register)
    slide = (
        "A printed frame without a past: its factory slide names a record, a person judges whether it is the weapon's"
    )
    sold = [event["date"] for event in events]
    found.append((slide, review["reason"] == "COMPONENT_ONLY" and sold == [printed.details["sold_on"]]))
    return found


async def _answered(
    nodes: Mapping[str, AgencyClient], body: Json, words: Json, register: Mapping[str, Record]
) -> tuple[list[Json], Json]:
    """The events that a person at the registry answered with, and the review from which."""
    thread = await _ask(nodes["police"], body, words)
    shown = await until(nodes["registry"], thread, "review")
    said = {"body": persons_answer(shown["review"], register), "handling": DEFAULT_HANDLING}
    await nodes["registry"].post(f"/v1/traces/{thread}/answers", said, version=shown["version"])
    mine = await until(nodes["police"], thread, "ANSWERED")
    answers = [each["body"] for each in mine["messages"] if each["type"] == "trace.response"]
    return answers[0].get("events", []), shown["review"]


async def _ask(police: AgencyClient, body: Json, words: Json) -> str:
    """Reads the words as an examiner wrote them, and asks the registry; the thread."""
    weapon = (await police.post("/v1/firearms/identify", {**words, "type": "pistol"}))["weapon"]
    said = {"to": "demo/registry", "body": body | {"weapon": weapon}, "handling": DEFAULT_HANDLING}
    return str((await police.post("/v1/traces", said))["thread"])


async def until(agency: AgencyClient, thread: str, what: str) -> Json:
    """The thread once it waits for a person (`review`), or is in a state."""
    until = asyncio.get_running_loop().time() + _PATIENCE_S
    while True:
        for leg in (await agency.get("/v1/traces", limit="10"))["traces"]:
            if leg["thread"] == thread:
                shown = await agency.get(f"/v1/traces/{thread}")
                if what in shown or shown["state"] == what:
                    return shown
        if asyncio.get_running_loop().time() > until:
            raise TimeoutError(f"the thread {thread} is not {what}")
        await asyncio.sleep(_POLL_S)
