"""`tracewire outbox`: what waits to be delivered and why; send it again now, or give it up."""

import asyncio
from pathlib import Path
from typing import Annotated
from uuid import UUID

import cyclopts
from cyclopts import Parameter

from gateway.runtime.cli.client import node_parts, node_pool
from gateway.runtime.cli.say import SecretFrom, clock, problems, say
from protocols.ports.rows import Waiting
from protocols.problems import CODES, Fault, ProblemError
from protocols.strict import format_time

app = cyclopts.App(name="outbox", help="Messages that wait to be delivered: why, again now, or never.")
AsJson = Annotated[bool, Parameter(name="--json", negative="")]
_NO_SECRET = SecretFrom()
_SHOWN_MAX = 1_000


@app.command(name="list")
def show(node: Path, *, json: AsJson = False) -> None:
    """List what waits, by recipient and age, with the problem of the last attempt; 1,000 at most.

    Parameters
    ----------
    node
        The node's folder.
    json
        Print one JSON object.
    """

    async def read() -> list[Waiting]:
        from adapters.postgres.exchange import PostgresExchange

        async with node_pool(node) as pool:
            return await PostgresExchange(pool).waiting(_SHOWN_MAX)

    with problems(as_json=json):
        found = asyncio.run(read())
        text = "\n".join(map(_line, found)) or "Nothing waits."
        say(text, {"waiting": [_json(each) for each in found]}, as_json=json)


def _state(each: Waiting) -> str:
    return "sending" if each.leased is not None and each.leased > clock() else "waiting"


def _json(each: Waiting) -> dict[str, object]:
    shown: dict[str, object] = {
        "id": str(each.id), "to": each.recipient, "type": each.type, "urgent": each.urgent, "state": _state(each),
        "attempts": each.attempts, "since": format_time(each.created), "next": format_time(each.due),
        "expires": format_time(each.expires),
    }  # fmt: skip
    if each.problem:
        shown |= {"problem": each.problem, "fix": CODES[each.problem].fix}
    return shown


def _line(each: Waiting) -> str:
    said = (
        f"{each.id}  {each.recipient}  {each.type}{' URGENT' if each.urgent else ''}  {_state(each)}\n"
        f"    since {format_time(each.created)}, {each.attempts} attempts, next {format_time(each.due)}, "
        f"until {format_time(each.expires)}"
    )
    if not each.problem:
        return said
    return f"{said}\n    last problem: {each.problem}: {CODES[each.problem].title}\n    fix: {CODES[each.problem].fix}"


@app.command
def retry(node: Path, *, peer: str | None = None, message: UUID | None = None, json: AsJson = False) -> None:
    """Make what waits due now: all of it, a peer's, or one message. A running node sends it within seconds.

    Parameters
    ----------
    node
        The node's folder.
    peer
        Only what goes to this NETWORK/MEMBER.
    message
        Only the message of this id.
    json
        Print one JSON object.
    """

    async def hasten() -> int:
        from adapters.postgres.exchange import PostgresExchange

        async with node_pool(node) as pool:
            return await PostgresExchange(pool).hasten(clock(), recipient=peer, id_=message)

    with problems(as_json=json):
        count = asyncio.run(hasten())
        say(f"{count} due now.", {"due": count}, as_json=json)


@app.command
def drop(
    node: Path, message: UUID, *, yes: bool = False, secret: SecretFrom = _NO_SECRET, json: AsJson = False
) -> None:
    """Give up a message that was never settled: the ledger gets an `undelivered` entry, its thread fails.

    The recipient may have it all the same; a receipt that comes later is taken. Nothing brings the message back.

    Parameters
    ----------
    node
        The node's folder; the node may run.
    message
        The message's id, from `tracewire outbox list`.
    yes
        Do it; without, nothing is done.
    json
        Print one JSON object.
    """

    async def give_up() -> None:
        async with node_parts(node, secret.secret()) as parts:
            await parts.deliver.drop(message)

    with problems(as_json=json):
        if not yes:
            fault = Fault(
                "", "config.invalid", "", f"Run it again with --yes: tracewire outbox drop {node} {message} --yes"
            )
            raise ProblemError("config.invalid", "this cannot be undone, and was not done", errors=[fault])
        asyncio.run(give_up())
        say(f"{message} is given up; the ledger says so.", {"id": str(message), "dropped": True}, as_json=json)
