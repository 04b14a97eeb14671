"""`tracewire registry`: the member's own firearms register."""

import asyncio
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from gateway.runtime.cli.client import node_pool
from gateway.runtime.cli.say import problems, read_file, say
from gateway.services.register import import_register
from protocols.problems import ProblemError

app = cyclopts.App(name="registry", help="The member's own firearms register, from which the node may answer.")


@app.command(name="import")
def import_(node: Path, file: Path, *, json: Annotated[bool, Parameter(name="--json", negative="")] = False) -> None:
    """Import guns from a CSV file: every row or none.

    Columns: ref, serial, make (required), model, type, calibre, sold_on, dealer, country. A row with the ref of an
    earlier import replaces it. Set `registry = true` in tracewire.toml to answer from the register.

    Parameters
    ----------
    node
        The node's folder.
    file
        UTF-8 CSV with a header.
    json
        Print one JSON object.
    """

    async def load(text: str) -> tuple[int, int]:
        from adapters.postgres.registry import PostgresRegistry

        async with node_pool(node) as pool:
            registry = PostgresRegistry(pool)
            return await import_register(text, registry), await registry.size()

    with problems(as_json=json):
        try:
            text = read_file(file).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise ProblemError("registry.csv", "the file is not UTF-8") from None
        count, size = asyncio.run(load(text))
        say(f"{count} guns imported; the register holds {size}.", {"imported": count, "size": size}, as_json=json)
