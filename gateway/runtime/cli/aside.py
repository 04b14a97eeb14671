"""`tracewire aside`: parcels that broke something in this node; look at them, and replay one when that is mended."""

import asyncio
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import cyclopts
from cyclopts import Parameter

from gateway.runtime.cli.client import node_parts, node_pool
from gateway.runtime.cli.say import SecretFrom, problems, say
from protocols.exchange.lines import ProblemLine, parse_post
from protocols.ports.rows import AsideRow
from protocols.problems import CODES, Fault, ProblemError
from protocols.strict import format_time

app = cyclopts.App(name="aside", help="Parcels that broke something in this node, set aside after the third time.")
AsJson = Annotated[bool, Parameter(name="--json", negative="")]
_NO_SECRET = SecretFrom()
_FOUND = 3


@app.command(name="list")
def show(node: Path, *, json: AsJson = False) -> None:
    """List what was set aside: from whom it came, and the kind of error; the node's log has its place.

    Parameters
    ----------
    node
        The node's folder.
    json
        Print one JSON object.
    """
    with problems(as_json=json):
        found = asyncio.run(_read(node))
        text = "\n".join(f"{each.id}  {each.sender}  {each.cause}  since {format_time(each.at)}" for each in found)
        say(text or "Nothing was set aside.", {"aside": list(map(_json, found))}, as_json=json)


async def _read(node: Path) -> list[AsideRow]:
    from adapters.postgres.exchange import PostgresExchange

    async with node_pool(node) as pool:
        return await PostgresExchange(pool).aside()


def _json(row: AsideRow) -> dict[str, Any]:
    return {"id": str(row.id), "from": row.sender, "cause": row.cause, "since": format_time(row.at)}


@app.command
def replay(node: Path, message: UUID, *, secret: SecretFrom = _NO_SECRET, json: AsJson = False) -> int:
    """Take a parcel that was set aside, after this program was mended. Its sender gets the receipt when it asks again.

    Parameters
    ----------
    node
        The node's folder; the node may run.
    message
        The message's id, from `tracewire aside list`.
    json
        Print one JSON object.
    """

    async def take(rows: list[AsideRow]) -> list[str]:
        from adapters.postgres.exchange import PostgresExchange

        said = []
        async with node_parts(node, secret.secret()) as parts, node_pool(node) as pool:
            for row in rows:
                answer = await parts.receive.receive(row.source, parse_post(row.post, answer=False), fetched=True)
                problem = answer.items[0].code if isinstance(answer.items[0], ProblemLine) else ""
                if not problem:
                    await PostgresExchange(pool).drop_aside(row.digest)
                said.append(problem)
        return said

    with problems(as_json=json):
        rows = [each for each in asyncio.run(_read(node)) if each.id == message]
        if not rows:
            fault = Fault("", "thread.not_found", "", f"Take an id from: tracewire aside list {node}")
            raise ProblemError("thread.not_found", "no such parcel was set aside", errors=[fault])
        wrong = [code for code in asyncio.run(take(rows)) if code]
        text = f"{message}: " + (f"not taken: {CODES[wrong[0]].title} ({wrong[0]})" if wrong else "taken")
        say(text, {"id": str(message), "taken": not wrong, **({"code": wrong[0]} if wrong else {})}, as_json=json)
    return _FOUND if wrong else 0
