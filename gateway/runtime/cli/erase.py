"""`tracewire erase`: content goes with its keys, proofs stay."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from gateway.runtime.cli.say import SPEAKER, Speaker, problems, say


def erase(
    node: Path,
    thread: str,
    *,
    ground: str,
    authority: str,
    message: list[str] | None = None,
    part: str | None = None,
    speaker: Speaker = SPEAKER,
    json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Erase content of a thread from this node for good, once a second person has approved exactly that.

    Its keys are destroyed; entries and proofs stay, and say that it was erased and why. The other member keeps its own:
    send it an erasure.request. The first call asks for the second person, the same again carries it out.

    Parameters
    ----------
    node
        The node's folder; the node must be running.
    thread
        The thread's id.
    ground
        Why: a code of the list `erasure_ground`, as COURT_ORDER or DATA_PROTECTION.
    authority
        Who ordered it, as your files say; never a person's name.
    message
        Only this message; repeat for several. Without it: all of the thread.
    part
        Only this restricted part of them: persons or last_legal_holder.
    json
        Print one JSON object.
    """

    async def call() -> dict[str, Any]:
        body = {"ground": ground, "authority": authority, "messages": message or [], **({"part": part} if part else {})}
        async with speaker.agency(node) as agency:
            return await agency.post(f"/v1/traces/{thread}/erasures", body)

    with problems(as_json=json):
        found = asyncio.run(call())
        text = (
            f"{len(found['erasing'])} messages are being erased; see: tracewire show {node} {thread} --ledger\n"
            f"Backups of the key store still open them: destroy those made before today by {found['backups_until']}."
        )
        say(text, found, as_json=json)
