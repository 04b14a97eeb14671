"""`tracewire approve`: the second person's part."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from gateway.runtime.cli.say import SPEAKER, Speaker, problems, say


def approve(
    node: Path,
    approval: str | None = None,
    *,
    refuse: Annotated[bool, Parameter(negative="")] = False,
    speaker: Speaker = SPEAKER,
    json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Show what waits for a second person, or approve one of it; the ledger says who did.

    Parameters
    ----------
    node
        The node's folder; the node must be running.
    approval
        Its id; without one, all that waits is shown.
    refuse
        Refuse it.
    json
        Print one JSON object.
    """

    async def call() -> dict[str, Any]:
        async with speaker.agency(node) as agency:
            if approval is None:
                return {"approvals": [each async for each in agency.pages("/v1/approvals", "approvals")]}
            return await agency.post(f"/v1/approvals/{approval}", {"ruling": "REFUSED" if refuse else "APPROVED"})

    with problems(as_json=json):
        found = asyncio.run(call())
        if approval is None:
            text = "\n\n".join(_text(each) for each in found["approvals"]) or "Nothing waits for a second person."
        else:
            text = (
                f"{found['ruling'].lower()}: {found['actor']} of {found['client']} may now send the same request again."
            )
            text = text if found["ruling"] == "APPROVED" else "refused."
        say(text, found, as_json=json)


def _text(each: dict[str, Any]) -> str:
    from json import dumps

    return (
        f"{each['id']}  {each['act']}, asked by {each['actor']} of {each['client']} at {each['asked']}\n"
        f"{dumps(each['about'], ensure_ascii=False, indent=2)}"
    )
