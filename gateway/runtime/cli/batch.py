"""`tracewire batch`: a file of trace requests, submitted with progress, resumed by running it again."""

import asyncio
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from gateway.http.batch import CSV, NDJSON
from gateway.http.documents import BatchLine, Problem
from gateway.runtime.cli.say import SPEAKER, Speaker, problems, progress, read_file, say
from protocols.problems import ProblemError
from protocols.strict import dump_json

_FAILED = 3
_SHOWN = 20
_MEDIA = {".csv": CSV, ".ndjson": NDJSON, ".jsonl": NDJSON}


def batch(
    node: Path,
    file: Path,
    *,
    key: str | None = None,
    results: Path | None = None,
    speaker: Speaker = SPEAKER,
    json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Submit many trace requests: a submission on each line of FILE. Exit code 3: some lines were refused.

    Run it again after a broken line, or when you have corrected the lines that were refused: under one key, what was
    accepted before is not submitted twice.

    Parameters
    ----------
    node
        The node's folder.
    file
        NDJSON (.ndjson, .jsonl) as {"to": ..., "handling": ..., "body": ...}, or CSV (.csv) whose columns are JSON
        pointers, as /to and /body/weapon/model.
    key
        The batch's key, 8 to 128 characters. Without it, one made of the file's name.
    results
        A file for the node's answers, one JSON line each.
    json
        Print one JSON object.
    """
    with problems(as_json=json):
        media = _MEDIA.get(file.suffix)
        if media is None:
            raise ProblemError("config.invalid", f"{file.name} does not end with {', '.join(_MEDIA)}")
        data = read_file(file)
        key = key or f"batch {sha256(file.name.encode()).hexdigest()}"
        lines = asyncio.run(_send(node, data, media, key, speaker))
        if results is not None:
            results.write_bytes(b"".join(dump_json(_shown(line)) + b"\n" for line in lines))
        refused = [(line.line, line.problem) for line in lines[:-1] if line.problem]
        found = _shown(lines[-1]) | {"lines": [_shown(line) for line in lines[:-1] if line.problem]}
        say(f"{lines[-1].accepted} accepted, {lines[-1].refused} refused.", found, as_json=json)
        if refused and not json:
            _show(refused)
    return _FAILED if refused else 0


async def _send(node: Path, data: bytes, media: str, key: str, speaker: Speaker) -> list[BatchLine]:
    with progress("Submitted") as bar:
        task = bar.add_task("", total=data.count(b"\n"))
        async with speaker.agency(node) as agency:
            found = []
            async for line in agency.batch(data, media, key=key):
                found.append(line)
                bar.advance(task)
            return found


def _shown(line: BatchLine) -> dict[str, Any]:
    return line.model_dump(mode="json", exclude_none=True)


def _show(refused: list[tuple[int | None, Problem]]) -> None:
    table = Table("line", "problem", "where", "what is wrong", "fix")
    for line, problem in refused[:_SHOWN]:
        table.add_row(str(line), problem.code, "", problem.detail, problem.fix if not problem.errors else "")
        for fault in problem.errors or ():
            table.add_row("", "", fault.pointer, fault.message, fault.fix)
    Console().print(table)
    if len(refused) > _SHOWN:
        say(f"... and {len(refused) - _SHOWN} more: --results FILE writes them all.", {}, as_json=False)
