"""`tracewire report`: the figures of a year, for the national ITI report and SDG indicator 16.4.2."""

import asyncio
import csv
import io
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from gateway.runtime.cli.say import problems, say
from gateway.runtime.client import AgencyClient
from protocols.problems import Fault, ProblemError

_COLUMNS = ("member", "requests", "answered", "refused", "silent", "withdrawn", "open", "late", "median_days")


def report(
    node: Path,
    file: Path | None = None,
    *,
    year: int,
    seized: int | None = None,
    client: str = "local",
    actor: str = "local",
    json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Show what became of the year's requests, or write it as a page (.html) or for a spreadsheet (.csv).

    Parameters
    ----------
    node
        The node's folder; the node must be running.
    file
        A new .html or .csv file.
    year
        The year in which the threads were opened.
    seized
        All arms seized, found or surrendered in the year; without it, those of our recovery reports.
    client
        The client to call as.
    actor
        The actor to speak for.
    json
        Print one JSON object.
    """

    async def read() -> dict[str, Any]:
        async with AgencyClient.of_node(node, client=client, actor=actor) as agency:
            return await agency.get(f"/v1/reports/{year}", **({} if seized is None else {"seized": str(seized)}))

    with problems(as_json=json):
        if file is not None and file.suffix not in (".html", ".csv"):
            fault = Fault("", "config.invalid", "", "Name a file that ends with .html or .csv.")
            raise ProblemError("config.invalid", f"{file.name} is neither a page nor a table", errors=[fault])
        found = asyncio.run(read())
        if file is not None:
            file.write_text(_csv(found) if file.suffix == ".csv" else _page(found), encoding="utf-8")
        say(_text(found), found, as_json=json)


def _page(found: dict[str, Any]) -> str:
    from gateway.http.picture import report_page

    return report_page(found)


def _csv(found: dict[str, Any]) -> str:
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(("side", *_COLUMNS))
    for side in ("asked", "answered"):
        rows.writerows((side, *(row.get(name, "") for name in _COLUMNS)) for row in found[side])
    return out.getvalue()


def _text(found: dict[str, Any]) -> str:
    sdg = found["sdg_16_4_2"]
    share = (
        "not known: nothing was reported as recovered; give --seized N"
        if "permille" not in sdg
        else f"{sdg['permille'] / 10:.1f} %"
    )
    lines = [f"SDG 16.4.2: {share} ({sdg['traced']} traced of {sdg['seized']}, {sdg['seized_from']})"]
    for side, title in (("asked", "We asked"), ("answered", "We were asked by")):
        for row in found[side]:
            told = ", ".join(f"{row[name]} {name}" for name in _COLUMNS[2:7] if row[name])
            lines.append(
                f"{title} {row['member']}: {row['requests']} ({told}); median {row.get('median_days', '-')} days"
            )
    return "\n".join(lines)
