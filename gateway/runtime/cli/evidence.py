"""`tracewire evidence`: take a thread out as one file, and check such a file anywhere with the network's root alone."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter

from gateway.runtime.cli.say import SPEAKER, Speaker, clock, problems, read_file, say
from keys.files import replace
from keys.suite import Tw1Verifier
from protocols.evidence import Report, told
from protocols.exchange.message import parse_jws, parse_message
from protocols.problems import ProblemError
from protocols.strict import format_time
from protocols.verify import verify_evidence

app = cyclopts.App(name="evidence", help="A thread as one file of proof: export it, verify it offline.")
AsJson = Annotated[bool, Parameter(name="--json", negative="")]
_FAILED = 3
"""The exit code of a check that found something wrong."""


@app.command
def export(
    node: Path,
    thread: str,
    file: Path,
    *,
    parts: Annotated[bool, Parameter(negative="")] = False,
    part: list[str] | None = None,
    message: list[str] | None = None,
    no_content: Annotated[bool, Parameter(negative="")] = False,
    speaker: Speaker = SPEAKER,
    json: AsJson = False,
) -> None:
    """Write the evidence of a thread: messages, proofs of both sides, checkpoints, directory versions, a summary.

    Parameters
    ----------
    node
        The node's folder; the node must be running.
    thread
        The thread's id.
    file
        A new file.
    parts
        With all restricted parts and their keys: needs parts:read, and each is noted in the ledger.
    part
        Only with this restricted part, as persons; repeat for several.
    message
        Open only this message; repeat for several. The others stand in it as their digests, with every proof.
    no_content
        Proofs only: who sent what to whom and when, and nothing of what it said.
    json
        Print one JSON object.
    """

    async def fetch() -> bytes:
        opened = {"parts": "yes" if parts else ",".join(part or ()), "messages": ",".join(message or ())}
        asked = {name: value for name, value in opened.items() if value} | ({"content": "no"} if no_content else {})
        async with speaker.agency(node) as agency:
            return await agency.evidence(thread, **asked)

    with problems(as_json=json):
        if file.exists():
            raise ProblemError("config.invalid", f"{file} exists; nothing was written")
        data = asyncio.run(fetch())
        replace(file, data)
        text = f"{len(data)} bytes in {file}.\nCheck it anywhere: tracewire evidence verify {file} --root root.json"
        say(text, {"thread": thread, "file": str(file), "bytes": len(data)}, as_json=json)


@app.command
def verify(file: Path, *, root: Path, page: Path | None = None, json: AsJson = False) -> int:
    """Check an evidence file offline, trusting nothing but the network's pinned root. Exit code 3: something is wrong.

    *signed*: the signatures of the ledger's owner hold. *witnessed*: another member's own ledger holds it too.

    Parameters
    ----------
    file
        What `evidence export` wrote.
    root
        The network's root.json, from a source that you trust.
    page
        A new .html file for print: what holds, message by message, and what they say.
    json
        Print one JSON object.
    """
    from adapters.directory.evidence import directory_from_files

    with problems(as_json=json):
        data, pinned = read_file(file), read_file(root)
        try:
            report = verify_evidence(data, verifier=Tw1Verifier(), directory=partial(directory_from_files, pinned))
        except ProblemError as problem:
            text = f"WRONG {problem.code}: {problem.detail}"
            say(text, {"ok": False, "code": problem.code, "detail": problem.detail}, as_json=json)
            return _FAILED
        if page is not None:
            from gateway.http.picture import evidence_page

            page.write_text(evidence_page(report, data, pinned, clock()), encoding="utf-8")
        say(_text(report), _found(report), as_json=json)
    return 0


def _text(report: Report) -> str:
    evidence = report.evidence
    first, last = report.judged
    lines = [f"OK thread {evidence.thread}; {evidence.by} says to have exported it at {format_time(evidence.at)}"]
    for n, each in enumerate(evidence.messages, 1):
        said = parse_message(parse_jws(each.jws).payload) if each.jws is not None else None
        what = f"{said.type}, signature of {each.sender} holds" if said else f"content {each.content}"
        lines.append(f"{n}. {each.sender} -> {each.recipient}: {what}")
        lines += [f"   {told(fact)}" for fact in report.facts if fact.message == n]
    for origin, whole in report.chains.items():
        lines.append(f"{origin}: {'one history' if whole else 'its checkpoints are not shown to be one history'}")
    lines += [f"The record of {member} here is older than the directory lists." for member in report.older]
    lines.append(f"Judged by the directory's versions {first} to {last}: what was revoked later is not known here.")
    if any(each.jws is None for each in evidence.messages):
        lines.append("Without content the thread of a message is what the exporter says.")
    return "\n".join(lines)


def _found(report: Report) -> dict[str, Any]:
    facts = [
        {
            "message": str(report.evidence.messages[fact.message - 1].id), "proven": fact.kind, "code": fact.code,
            "by": fact.member, "at": format_time(fact.at), "ledger": fact.origin, "index": fact.index,
            "grade": fact.grade, "witnesses": list(fact.witnesses),
        }
        for fact in report.facts
    ]  # fmt: skip
    return {
        "ok": True, "thread": str(report.evidence.thread), "facts": facts, "chains": dict(report.chains),
        "directory_versions": list(report.judged), "older_records": list(report.older),
    }  # fmt: skip
