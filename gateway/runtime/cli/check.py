"""`tracewire check`: a file of guns as examiners wrote them down, looked at before anything is asked of anybody."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress
from rich.table import Table

from gateway.runtime.cli.say import SPEAKER, Speaker, problems, read_file, say
from gateway.runtime.client import AgencyClient
from gateway.services.sheet import read_sheet
from protocols.messages import validate_model
from protocols.messages.identify import Texts
from protocols.problems import ProblemError

_AT_ONCE = 16
_SHOWN = 20
_ROWS_MAX = 100_000
_FAILED = 3


def check(
    node: Path,
    file: Path,
    page: Path | None = None,
    *,
    to: str | None = None,
    speaker: Speaker = SPEAKER,
    json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Look at every gun of a CSV before it is asked about: codes, damage, to whom, what is likely to come of it.

    Columns: serial, make, model, calibre, type, importer, country, origin_class; others are passed over, a column may be
    missing. Nothing is sent or stored. Exit code 3 where something should be looked at.

    Parameters
    ----------
    node
        The node's folder; the node must be running.
    file
        UTF-8 CSV with a header.
    page
        A new .html file for the report.
    to
        The member that would be asked.
    json
        Print one JSON object.
    """
    with problems(as_json=json):
        rows = list(_rows(file))
        found = asyncio.run(_all(node, rows, to, speaker))
        if page is not None:
            from gateway.http.picture import check_page

            page.write_text(check_page(found), encoding="utf-8")
        text = f"{found['rows']} guns: " + ", ".join(
            f"{count} {what.lower()}" for what, count in found["likely"].items()
        )
        say(f"{text}. {found['flagged']} should be looked at.", found, as_json=json)
        if found["lines"] and not json:
            _show(found["lines"])
    return _FAILED if found["flagged"] else 0


def _rows(file: Path) -> Iterator[tuple[int, Texts]]:
    """Line and texts; `registry.csv` names what cannot be read."""
    for count, (line, row) in enumerate(read_sheet(read_file(file), known=Texts.model_fields, others=True)):
        if isinstance(row, ProblemError):
            raise row
        if count == _ROWS_MAX:
            raise ProblemError("registry.csv", f"more than {_ROWS_MAX} rows; split the file")
        yield (
            line,
            validate_model(Texts, {name: text for name, text in row.items() if text}, f"line {line}", f"/{line}"),
        )


async def _all(node: Path, rows: list[tuple[int, Texts]], to: str | None, speaker: Speaker) -> dict[str, Any]:
    likely: Counter[str] = Counter()
    lines, kinds = [], Counter[str]()
    console = Console(stderr=True)
    with Progress("Looked at", BarColumn(), MofNCompleteColumn(), console=console, transient=True) as progress:
        task = progress.add_task("", total=len(rows))
        async with speaker.agency(node) as agency, aclosing(_looked_at(agency, rows, to)) as results:
            async for line, found in results:
                progress.advance(task)
                likely[found.get("likely", "NOTHING")] += 1
                if found["findings"]:
                    kinds.update(
                        f"{each['pointer'].removeprefix('/weapon/')}: {each['code']}" for each in found["findings"]
                    )
                    lines.append({"line": line, "findings": found["findings"], "advice": found["advice"]})
    return {
        "rows": len(rows), "flagged": len(lines), "likely": dict(likely.most_common()), "kinds": dict(kinds.most_common()), "lines": lines,
    }  # fmt: skip


async def _looked_at(
    agency: AgencyClient, rows: list[tuple[int, Texts]], to: str | None
) -> AsyncGenerator[tuple[int, dict[str, Any]], None]:
    async def one(texts: Texts) -> dict[str, Any]:
        identified = await agency.post(
            "/v1/firearms/identify", texts.model_dump(exclude_none=True, exclude_defaults=True)
        )
        tried = {"body": {"weapon": identified["weapon"]}, **({"to": to} if to else {})}
        checked = await agency.post("/v1/trace-checks", tried)
        return {
            "findings": identified["findings"], "likely": checked.get("likely", "NOTHING"),
            "advice": "" if checked["advice"].startswith("Correct /body/") else checked["advice"],
        }  # fmt: skip

    for start in range(0, len(rows), _AT_ONCE):
        window = rows[start : start + _AT_ONCE]
        for (line, _), found in zip(window, await asyncio.gather(*(one(texts) for _, texts in window)), strict=True):
            yield line, found


def _show(lines: list[dict[str, Any]]) -> None:
    table = Table("line", "where", "what", "fix")
    for line in lines[:_SHOWN]:
        for each in line["findings"]:
            table.add_row(str(line["line"]), each["pointer"].removeprefix("/weapon/"), each["message"], each["fix"])
    Console().print(table)
    if len(lines) > _SHOWN:
        say(f"... and {len(lines) - _SHOWN} more lines: name a page.html to see them all.", {}, as_json=False)
