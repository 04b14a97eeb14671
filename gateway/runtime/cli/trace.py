"""`tracewire submit`, `show`, `token` and `probe`: HTTP clients of the node's own `/v1`."""

import asyncio
import json as jsonlib
import re
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from gateway.runtime.cli.say import SPEAKER, Speaker, problems, read_file, say, show_steps
from gateway.runtime.client import DEFAULT_HANDLING
from gateway.services.doctor import Step
from protocols.problems import CODES, Fault, ProblemError
from protocols.strict import parse_object
from protocols.thread import ThreadState

AsJson = Annotated[bool, Parameter(name="--json", negative="")]
_FAILED = 3
_FILE_BYTES_MAX = 512 * 1024
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")  # of a name that another member gave


def submit(
    node: Path,
    file: Path,
    *,
    to: str,
    attach: list[Path] | None = None,
    speaker: Speaker = SPEAKER,
    json: AsJson = False,
) -> None:
    """Submit a trace request: the JSON body in FILE, to the member TO. Prints the thread to follow.

    The request is accepted when this returns: it is durable and in the ledger. `tracewire show` tells whether it
    arrived.

    Parameters
    ----------
    node
        The node's folder.
    file
        The body of `trace.request`, or {"body": ..., "handling": ..., "parts": ...}; a `to` in it does not count.
    to
        The recipient NETWORK/MEMBER.
    attach
        A file that travels with the request; a picture is listed as one of the weapon. As often as there are files.
    json
        Print one JSON object.
    """

    async def send(found: dict[str, Any]) -> dict[str, Any]:
        whole = found if "body" in found else {"body": found}
        async with speaker.agency(node) as agency:
            attached = [await agency.attach(each) for each in attach or ()]
            pictures = [each["sha256"] for each in attached if each["media_type"].startswith("image/")]
            if pictures and isinstance(weapon := whole["body"].get("weapon"), dict):
                weapon["images"] = [*weapon.get("images", []), *pictures]
            if attached:
                whole = {**whole, "attachments": [*whole.get("attachments", []), *attached]}
            return await agency.post("/v1/traces", {"handling": DEFAULT_HANDLING, **whole, "to": to})

    with problems(as_json=json):
        for each in attach or ():
            if not each.is_file():
                fault = Fault("", "config.invalid", "", "Name a file that is there and readable.")
                raise ProblemError("config.invalid", f"{each} is no file", errors=[fault])
        answer = asyncio.run(send(parse_object(read_file(file), bytes_max=_FILE_BYTES_MAX)))
        say(
            f"Accepted. Thread {answer['thread']}\nFollow it: tracewire show {node} {answer['thread']}",
            answer,
            as_json=json,
        )


def show(
    node: Path,
    thread: str | None = None,
    *,
    state: ThreadState | None = None,
    ledger: Annotated[bool, Parameter(negative="")] = False,
    grant: Annotated[bool, Parameter(negative="")] = False,
    speaker: Speaker = SPEAKER,
    json: AsJson = False,
) -> None:
    """Show the newest threads, or one thread with its messages: each that is read is an entry in the ledger.

    Parameters
    ----------
    node
        The node's folder.
    thread
        A thread's id; without it the newest 50 are listed.
    state
        List only threads in this state.
    ledger
        What the ledger says of the thread: who sent, took and answered its messages, and who read them what for.
    grant
        As an auditor: ask another person for what the messages say, or read it once that is granted.
    json
        Print one JSON object.
    """

    async def read() -> dict[str, Any]:
        async with speaker.agency(node) as agency:
            if thread and ledger:
                return await agency.get(f"/v1/traces/{thread}/entries")
            if thread:
                return await agency.get(f"/v1/traces/{thread}", **({"grant": "yes"} if grant else {}))
            return await agency.get("/v1/traces", **({"state": state} if state else {}))

    with problems(as_json=json):
        found = asyncio.run(read())
        text = _threads_text if not thread else _entries_text if ledger else _thread_text
        say(text(found), found, as_json=json)


def _threads_text(found: dict[str, Any]) -> str:
    rows = [f"{leg['thread']}  {leg['state']:<12} {leg['role']:<9} {leg['counterpart']}" for leg in found["traces"]]
    return "\n".join(rows) or "No thread yet: tracewire submit"


def _entries_text(found: dict[str, Any]) -> str:
    return "\n".join(
        f"{each['at']}  {each['kind']:<11} {each['grade']:<9} {each.get('code', ''):<24} {each.get('actor', ''):<12} "
        f"{each['message']}  {each['origin']} entry {each['index']}"
        for each in found["entries"]
    )


def _thread_text(found: dict[str, Any]) -> str:
    lines = [f"Thread {found['thread']} with {found['counterpart']}: {found['state']} (version {found['version']})"]
    for message in found["messages"]:
        place = message["ledger"]
        lines.append(f"{message['at']}  {message['type']:<22} {message['from']} -> {message['to']}  {message['state']}")
        lines.append(f"    ledger {place['origin']} entry {place['index']}")
        if code := message.get("problem"):
            lines.append(f"    {code}: {CODES[code].title}. {CODES[code].fix}" if code in CODES else f"    {code}")
        lines += [
            f"    attachment {each['name']}, {each['media_type']}, {each['size']} bytes"
            for each in message.get("attachments", ())
        ]
        if lost := message.get("missing_parts"):
            lines.append(f"    missing although nobody ordered it erased: {', '.join(lost)}")
        if why := message.get("withheld"):
            lines.append(f"    withheld: {why}")
        elif message.get("erased") or message.get("missing"):
            lines.append(
                "    erased, as an entry says"
                if message.get("erased")
                else "    missing although nobody ordered it erased"
            )
        else:
            lines += [f"    {line}" for line in jsonlib.dumps(message.get("body", {}), indent=2).splitlines()]
    if "review" in found:
        lines.append(f"Waits for a person: {found['review']['reason']}")
        lines += [
            f"    candidate {each['record_ref']} ({each['score']}: {each.get('why', '')})"
            for each in found["review"]["candidates"]
        ]
    return "\n".join(lines)


def attachments(
    node: Path,
    thread: str,
    folder: Path,
    *,
    speaker: Speaker = SPEAKER,
    json: AsJson = False,
) -> None:
    """Save the attachments of a thread into FOLDER, as NUMBER-NAME; a broken transfer goes on when it is run again.

    Each one that is read is an entry in the ledger.

    Parameters
    ----------
    node
        The node's folder.
    thread
        The thread's id.
    folder
        Where the files go; nothing that is there is written over.
    json
        Print one JSON object.
    """

    async def save() -> list[str]:
        saved = []
        async with speaker.agency(node) as agency:
            found = await agency.get(f"/v1/traces/{thread}")
            listed = [(message["id"], each) for message in found["messages"] for each in message.get("attachments", ())]
            for number, (message, each) in enumerate(listed, 1):
                file = folder / f"{number}-{_UNSAFE.sub('_', each['name'])}"
                if not file.exists():
                    await agency.save(thread, message, each, file)
                    saved.append(str(file))
        return saved

    with problems(as_json=json):
        folder.mkdir(parents=True, exist_ok=True)
        saved = asyncio.run(save())
        say("\n".join(saved) or "Nothing new.", {"saved": saved}, as_json=json)


def chain(
    node: Path,
    thread: str,
    file: Path | None = None,
    *,
    speaker: Speaker = SPEAKER,
    json: AsJson = False,
) -> None:
    """Show the chain of supply that the answers of a thread make together; with FILE, as a page with a picture.

    Parameters
    ----------
    node
        The node's folder.
    thread
        The thread's id.
    file
        A new .html file for a browser.
    json
        Print one JSON object.
    """

    async def read() -> dict[str, Any]:
        async with speaker.agency(node) as agency:
            return await agency.get(f"/v1/traces/{thread}/chain")

    with problems(as_json=json):
        found = asyncio.run(read())
        if file is not None:
            from gateway.http.picture import chain_page

            file.write_text(chain_page(found), encoding="utf-8")
        say("\n".join(_chain_text(found)), found, as_json=json)


def _chain_text(found: dict[str, Any]) -> list[str]:
    lines = [
        f"{hop['hop']}. {hop['counterpart']}: {hop['state']} {hop.get('result', '')}".rstrip() for hop in found["hops"]
    ]
    for n, event in enumerate(found["events"]):
        here = "  <- the legal way ends here" if found.get("diversion", {}).get("event") == n else ""
        way = f"{event['from']['code']} -> {event['to']['code']}"
        lines.append(f"{event['date']:<10}  {event['kind']['code']:<18} {way}, {event['country']['code']}{here}")
    return lines


def token(node: Path, *, speaker: Speaker = SPEAKER, json: AsJson = False) -> None:
    """Print an access token of five minutes, for trying the interface with another HTTP client.

    Parameters
    ----------
    node
        The node's folder.
    json
        Print one JSON object.
    """

    async def get() -> str:
        async with speaker.agency(node) as agency:
            return await agency.token()

    with problems(as_json=json):
        found = asyncio.run(get())
        say(found, {"access_token": found}, as_json=json)


def probe(node: Path, peer: str, *, speaker: Speaker = SPEAKER, json: AsJson = False) -> int:
    """Walk from the running node to a peer, step by step, and name the first that fails. Exit code 3: one does.

    Parameters
    ----------
    node
        The node's folder.
    peer
        The member NETWORK/MEMBER.
    json
        Print one JSON object.
    """

    async def ask() -> dict[str, Any]:
        async with speaker.agency(node) as agency:
            return await agency.post(f"/v1/peers/{peer}/probes", {})

    with problems(as_json=json):
        found = asyncio.run(ask())
        show_steps([Step(**step) for step in found["steps"]], found, as_json=json)
    return 0 if found["ok"] else _FAILED
