"""`tracewire check`: a file of guns as examiners wrote them down, looked at before anything is asked of anybody."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from gateway.runtime.cli.say import SPEAKER, Speaker, problems, progress, read_file, say
from gateway.runtime.client import AgencyClient
from gateway.services.sheet import read_sheet
from protocols.messages import validate_model
from protocols.messages.identify import Texts
from protocols.problems import ProblemError

_AT_ONCE = 16
_SHOWN = 20
_ROWS_MAX = 100_000
_FAILED = 3
_NOBODY = "To ask: nobody; no member's record names these weapons."


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
        found = asyncio.run(_all(node, list(_rows(file)), to, speaker))
        if page is not None:
            from gateway.http.picture import check_page

            page.write_text(check_page(found), encoding="utf-8")
        text = f"{found['rows']} guns: " + ", ".join(
            f"{count} {what.lower()}" for what, count in found["likely"].items()
        )
        asked = ", ".join(f"{member} ({count})" for member, count in found["ask"].items())
        lines = [f"{text}. {found['flagged']} should be looked at.", f"To ask: {asked}." if asked else _NOBODY]
        lines += [f"{to} may not be asked: {found['not_permitted']}"] if "not_permitted" in found else []
        say("\n".join(lines), found, as_json=json)
        if found["lines"] and not json:
            _show(found["lines"])
    return _FAILED if found["flagged"] else 0


def _rows(file: Path) -> Iterator[tuple[int, Texts | ProblemError]]:
    """Line and texts, or what is wrong with the row; `registry.csv` where the file cannot be read as a whole."""
    for count, (line, row) in enumerate(read_sheet(read_file(file), known=Texts.model_fields, others=True)):
        if count == _ROWS_MAX:
            raise ProblemError("registry.csv", f"more than {_ROWS_MAX} rows; split the file")
        try:
            if isinstance(row, ProblemError):
                raise row
            texts = {name: text for name, text in row.items() if text}
            yield line, validate_model(Texts, texts, f"line {line}", f"/{line}")
        except ProblemError as problem:
            yield line, problem


async def _all(
    node: Path, rows: list[tuple[int, Texts | ProblemError]], to: str | None, speaker: Speaker
) -> dict[str, Any]:
    likely, ask, kinds = Counter[str](), Counter[str](), Counter[str]()
    lines, refused = list[dict[str, Any]](), dict[str, str]()
    with progress("Looked at") as bar:
        task = bar.add_task("", total=len(rows))
        async with speaker.agency(node) as agency, aclosing(_looked_at(agency, rows, to)) as results:
            async for line, found in results:
                bar.advance(task)
                likely[found["likely"]] += 1
                ask.update(found["ask"][:1])
                refused |= {name: found[name] for name in ("not_permitted",) if name in found}
                if found["findings"]:
                    kinds.update(
                        f"{each['pointer'].removeprefix('/weapon/')}: {each['code']}" for each in found["findings"]
                    )
                    lines.append({"line": line, **{name: found[name] for name in ("findings", "ask", "advice")}})
    counts = {"likely": dict(likely.most_common()), "ask": dict(ask.most_common()), "kinds": dict(kinds.most_common())}
    return {"rows": len(rows), "flagged": len(lines), **counts, **refused, "lines": lines}


async def _looked_at(
    agency: AgencyClient, rows: list[tuple[int, Texts | ProblemError]], to: str | None
) -> AsyncGenerator[tuple[int, dict[str, Any]], None]:
    async def one(texts: Texts | ProblemError) -> dict[str, Any]:
        if isinstance(texts, ProblemError):
            return {"findings": texts.document()["errors"], "likely": "UNREAD", "ask": [], "advice": texts.kind.fix}
        identified = await agency.post(
            "/v1/firearms/identify", texts.model_dump(exclude_none=True, exclude_defaults=True)
        )
        tried = {"body": {"weapon": identified["weapon"]}, **({"to": to} if to else {})}
        checked = await agency.post("/v1/trace-checks", tried)
        return {
            "findings": identified["findings"], "ask": [way["member"] for way in checked["routes"]],
            **{name: checked[name] for name in ("likely", "advice", "not_permitted") if name in checked},
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
        table.add_row("", "", "what helps most", line["advice"], end_section=True)
    Console().print(table)
    if len(lines) > _SHOWN:
        say(f"... and {len(lines) - _SHOWN} more lines: name a page.html to see them all.", {}, as_json=False)
