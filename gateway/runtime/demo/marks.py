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
    thread = await _ask(nodes["police"], cases[0].body, {"serial": partial, "make": ground.make})
    shown = await _until(nodes["registry"], thread, "review")
    answer = persons_answer(shown["review"], register)
    said = {"body": answer, "handling": DEFAULT_HANDLING}
    await nodes["registry"].post(f"/v1/traces/{thread}/answers", said, version=shown["version"])
    best = shown["review"]["candidates"][0]["record_ref"]
    found = [
        (
            f"A serial ground off and restored in part: {len(shown['review']['candidates'])} candidates, the person answers from the best",
            best == ground.gun.ref and answer["result"]["code"] == "TRACED_TO_DEALER",
        )
    ]
    words = {"serial": f"none (frame); {printed.serial} (slide)", "make": printed.make, "origin_class": "PRINTED"}
    thread = await _ask(nodes["police"], cases[1].body, words)
    mine = await _until(nodes["police"], thread, "ANSWERED")
    events = [each["body"]["events"] for each in mine["messages"] if each["type"] == "trace.response"]
    sold = printed.details["sold_on"]
    found.append(
        (
            "A printed frame without a past, traced by its factory slide: "
            + ", ".join(e["kind"]["code"] for e in events[0]),
            events[0][0]["date"] == sold,
        )
    )
    return found


async def _ask(police: AgencyClient, body: Json, words: Json) -> str:
    """Reads the words as an examiner wrote them, and asks the registry; the thread."""
    weapon = (await police.post("/v1/firearms/identify", {**words, "type": "pistol"}))["weapon"]
    said = {"to": "demo/registry", "body": body | {"weapon": weapon}, "handling": DEFAULT_HANDLING}
    return str((await police.post("/v1/traces", said))["thread"])


async def _until(agency: AgencyClient, thread: str, what: str) -> Json:
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
