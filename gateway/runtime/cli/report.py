"""`tracewire report`: the figures of a year, and patterns of diversion."""

import asyncio
import csv
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter

from gateway.runtime.cli.say import SPEAKER, Speaker, problems, say
from protocols.problems import Fault, ProblemError

app = cyclopts.App(name="report", help="What States owe: figures of a year; and patterns of diversion.")
AsJson = Annotated[bool, Parameter(name="--json", negative="")]
_COLUMNS = ("member", "requests", "answered", "refused", "silent", "withdrawn", "open", "late", "median_days")


@app.default
def year(
    node: Path,
    file: Path | None = None,
    *,
    year: int,
    seized: int | None = None,
    speaker: Speaker = SPEAKER,
    json: AsJson = False,
) -> None:
    """Show what became of the year's requests, or write it as a page (.html) or for a spreadsheet (.csv).

    For the national ITI report and SDG indicator 16.4.2.

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
    json
        Print one JSON object.
    """

    def page(found: dict[str, Any]) -> str:
        from gateway.http.picture import report_page

        return report_page(found)

    given = {} if seized is None else {"seized": str(seized)}
    _report(node, file, f"/v1/reports/{year}", given, speaker, _year_text, page, _year_rows, as_json=json)


@app.command
def diversion(node: Path, file: Path | None = None, *, speaker: Speaker = SPEAKER, json: AsJson = False) -> None:
    """Show what answered traces have in common, or write it as a page (.html) or for a spreadsheet (.csv).

    Serial runs, last authorised transfers, embargoed destinations, short times to recovery, dealers and stocks, each
    with its threads; no person and no serial.

    Parameters
    ----------
    node
        The node's folder; the node must be running.
    file
        A new .html or .csv file.
    json
        Print one JSON object.
    """

    def page(found: dict[str, Any]) -> str:
        from gateway.http.picture import diversion_page

        return diversion_page(found)

    _report(node, file, "/v1/diversion-patterns", {}, speaker, _patterns_text, page, _pattern_rows, as_json=json)


def _report(
    node: Path,
    file: Path | None,
    path: str,
    query: dict[str, str],
    speaker: Speaker,
    text: Callable[[dict[str, Any]], str],
    page: Callable[[dict[str, Any]], str],
    rows: Callable[[dict[str, Any]], Iterable[Iterable[Any]]],
    *,
    as_json: bool,
) -> None:
    async def read() -> dict[str, Any]:
        async with speaker.agency(node) as agency:
            return await agency.get(path, **query)

    with problems(as_json=as_json):
        if file is not None and file.suffix not in (".html", ".csv"):
            fault = Fault("", "config.invalid", "", "Name a file that ends with .html or .csv.")
            raise ProblemError("config.invalid", f"{file.name} is neither a page nor a table", errors=[fault])
        found = asyncio.run(read())
        if file is not None:
            file.write_text(_csv(rows(found)) if file.suffix == ".csv" else page(found), encoding="utf-8")
        say(text(found), found, as_json=as_json)


def _csv(rows: Iterable[Iterable[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()


def _year_rows(found: dict[str, Any]) -> Iterable[Iterable[Any]]:
    yield ("side", *_COLUMNS)
    for side in ("asked", "answered"):
        yield from ((side, *(row.get(name, "") for name in _COLUMNS)) for row in found[side])


def _year_text(found: dict[str, Any]) -> str:
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


def _pattern_rows(found: dict[str, Any]) -> Iterable[Iterable[Any]]:
    yield "kind", "what", "threads", "which"
    for each in found["patterns"]:
        yield each["kind"], _plain(each["what"]), len(each["threads"]), " ".join(each["threads"])


def _plain(text: str) -> str:
    """A name that another member wrote, so that no spreadsheet takes it for a formula."""
    return f"'{text}" if text[:1] in "=+-@\t\r" else text


def _patterns_text(found: dict[str, Any]) -> str:
    lines = [f"{found['threads']} answered threads, {len(found['patterns'])} patterns"]
    for each in found["patterns"]:
        lines.append(f"{len(each['threads']):>4}  {each['kind']:<22} {each['what']}")
        lines += [f"      {thread}" for thread in each["threads"][:5]]
        if more := len(each["threads"]) - 5:
            lines += [f"      and {more} more"] if more > 0 else []
    return "\n".join(lines)
