"""`tracewire registry`: the member's own firearms register."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter

from gateway.runtime.cli.client import node_pool
from gateway.runtime.cli.say import SPEAKER, Speaker, problems, progress, read_file, say
from gateway.services.records import COLUMNS, REQUIRED
from gateway.services.register import import_register
from gateway.services.sheet import read_sheet
from protocols.problems import ProblemError

app = cyclopts.App(name="registry", help="The member's own firearms register, and the records that it shares.")
AsJson = Annotated[bool, Parameter(name="--json", negative="")]
_SHOWN, _LINES = 20, 9_000  # lines of an upload


@app.command(name="import")
def import_(node: Path, file: Path, *, json: AsJson = False) -> None:
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

    async def load(data: bytes) -> tuple[int, int]:
        from adapters.postgres.registry import PostgresRegistry

        async with node_pool(node) as pool:
            registry = PostgresRegistry(pool)
            return await import_register(data, registry), await registry.size()

    with problems(as_json=json):
        count, size = asyncio.run(load(read_file(file)))
        say(f"{count} guns imported; the register holds {size}.", {"imported": count, "size": size}, as_json=json)


@app.command
def share(node: Path, file: Path, *, speaker: Speaker = SPEAKER, json: AsJson = False) -> None:
    """Import records of lost, stolen, trafficked, smuggled or seized weapons, 10,000 lines at a time.

    CSV with record_ref, status, event_date, retention_until, serial, make, and model, type, calibre, country, importer or
    origin_class. A line that is wrong is named with its repair; the others are imported. Send the file again as you like.

    Parameters
    ----------
    node
        The node's folder; the node must be running.
    file
        UTF-8 CSV with a header.
    json
        Print one JSON object.
    """

    async def send(parts: list[bytes]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        with progress("Imported") as bar:
            async with speaker.agency(node) as agency:
                try:
                    for part in bar.track(parts):
                        found += [await agency.upload("/v1/registry/imports", part, "text/csv")]
                except ProblemError as problem:
                    done = "".join(f"; imported before: {each['import']}" for each in found)
                    raise ProblemError(problem.code, f"{problem.detail}{done}", errors=problem.errors) from None
        return found

    with problems(as_json=json):
        data = read_file(file)
        for _ in read_sheet(data, known=COLUMNS, required=REQUIRED):
            pass  # a file that cannot be read as a whole is refused before its first part is imported
        parts = list(_parts(data))
        found = asyncio.run(send([part for _, part in parts]))
        wrong = [
            {**line, "line": line["line"] + before}
            for (before, _), part in zip(parts, found, strict=True) for line in part["lines"] if "problem" in line
        ]  # fmt: skip
        noted = sum("note" in line for part in found for line in part["lines"])
        counts = {name: sum(part[name] for part in found) for name in ("stored", "unchanged", "refused")}
        text = [f"{counts['stored']} stored, {counts['unchanged']} unchanged, {counts['refused']} refused."]
        text += [
            f"Withdraw it: tracewire registry withdraw {node} {part['import']}" for part in found if part["stored"]
        ]
        text += [f"{noted} of them have no whole serial: no search by serial finds them."] if noted else []
        for line in wrong[:_SHOWN]:
            errors = line["problem"].get("errors") or [
                {"pointer": "", "message": line["problem"]["detail"], "fix": line["problem"]["fix"]}
            ]
            text += [
                f"  line {line['line']}: {each['pointer'].rpartition('/')[2]} {each['message']}. {each['fix']}"
                for each in errors
            ]
        if len(wrong) > _SHOWN:
            text.append(f"  and {len(wrong) - _SHOWN} more: --json shows all")
        say("\n".join(text), {**counts, "imports": [part["import"] for part in found], "lines": wrong}, as_json=json)


def _parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Uploads of a file, each under its header, with the number of lines before it; never cut inside a quoted cell."""
    header, *lines = data.splitlines(keepends=True) or [b""]
    part, before, inside = [header], 0, False
    for number, line in enumerate(lines, 1):
        part.append(line)
        inside ^= line.count(b'"') % 2 == 1
        if len(part) > _LINES and not inside:
            yield before, b"".join(part)
            part, before = [header], number
    if len(part) > 1 or not before:
        yield before, b"".join(part)


@app.command
def withdraw(node: Path, batch: str, *, speaker: Speaker = SPEAKER, json: AsJson = False) -> None:
    """Take a whole import of shared records out again.

    Parameters
    ----------
    node
        The node's folder; the node must be running.
    batch
        The id that `tracewire registry share` printed.
    json
        Print one JSON object.
    """

    async def send() -> dict[str, Any]:
        async with speaker.agency(node) as agency:
            return await agency.post(f"/v1/registry/imports/{batch}/withdrawal", {})

    with problems(as_json=json):
        found = asyncio.run(send())
        say(f"{found['withdrawn']} records withdrawn.", found, as_json=json)
