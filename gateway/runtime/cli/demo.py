"""`tracewire demo`: a whole federation on this machine, 635 real guns traced, and every claim checked from its bytes."""

import asyncio
import contextlib
import fcntl
import json as jsonlib
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from gateway.http.picture import chain_page
from gateway.runtime.cli.say import problems, say
from gateway.runtime.client import AgencyClient
from gateway.runtime.demo import cases as questions
from gateway.runtime.demo import hops, marks, play, proofs, stick
from gateway.runtime.demo.federation import MEMBERS, Federation, state_folder
from gateway.runtime.settings import load_settings
from protocols.problems import ProblemError
from protocols.strict import dump_json

Flag = Annotated[bool, Parameter(negative="")]
_WRONG, _INTERRUPTED = 3, 130


def demo(
    *,
    keep: Flag = False,
    fresh: Flag = False,
    stop: Flag = False,
    json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Trace 635 real guns between an authority, a focal point, a registry and a manufacturer on this machine.

    Everything is real but the organisations: processes of their own, a database each, signed, sealed and receipted
    messages. At the end the ledgers are verified from their bytes, and three lies are told and caught. Exit code 3:
    something was not as it should be.

    Parameters
    ----------
    keep
        Leave it running and print where; a later `tracewire demo` prints that again.
    fresh
        Stop one that was kept, and start anew.
    stop
        Stop one that was kept and remove it; nothing else.
    json
        Print one JSON object; the steps go to stderr.
    """
    show = _Show(Console(stderr=json, highlight=False, soft_wrap=True))
    with problems(as_json=json), _alone():
        federation = Federation(state_folder())
        kept = federation.folder / "demo.json"
        if not (fresh or stop) and kept.exists() and federation.alive():
            found = jsonlib.loads(kept.read_text(encoding="utf-8")) | {"already_running": True}
            say(_where_text(found), found, as_json=json)
            return 0
        federation.close()
        if stop:
            say("The demo is stopped and removed.", {"stopped": True}, as_json=json)
            return 0
        try:
            found = _run(federation, show)
            if keep and found["ok"]:
                found |= _where(federation)
                kept.write_text(jsonlib.dumps(found), encoding="utf-8")
        except KeyboardInterrupt:
            show.step("Interrupted: everything is stopped and removed.")
            return _INTERRUPTED
        finally:
            if not kept.exists():
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, signal.SIG_IGN)
                federation.close()
        found["seconds"] = round(show.seconds(), 1)
        say(_end_text(found), found, as_json=json)
        return 0 if found["ok"] else _WRONG


def _run(federation: Federation, show: "_Show") -> dict[str, Any]:
    """The demo itself: the object that --json prints."""
    guns = questions.read_register()
    cases, stands = questions.make_cases(guns), questions.as_they_stand(guns)
    url = federation.open()
    show.step(f"PostgreSQL runs, one server for all; the authority serves its new directory at {url}")
    for short, (name, _, role, _) in MEMBERS.items():
        federation.make_node(short, url)
        show.step(f"{name} (demo/{short}, {role}) has keys and a database, and is admitted")
    held = federation.publish()
    show.step(f"The directory is published; the registry holds {held} real guns")
    federation.run_nodes()
    show.step("Five nodes are ready")
    played, chains, guns_found = asyncio.run(
        _play(federation, show, cases, {record.gun.ref: record for record in guns})
    )
    show.table(played, f"Asked for exactly as the register writes them, {stands} have an automatic answer.")
    for told, right in guns_found:
        show.step(told)
        if not right:
            played.wrong.append(f"another gun was found: {told}")
    for chain_, end in zip(chains, hops.ENDS, strict=True):
        show.step(_chain_line(chain_))
        if (found := chain_["hops"][-1]["state"]) != end:
            played.wrong.append(f"the last hop of a chain is {found}, not {end}")
    (federation.folder / "chain.html").write_text(chain_page(chains[0]), encoding="utf-8")
    exported = proofs.export(federation)
    show.step(f"Ledgers taken out: {', '.join(f'{short} {size} entries' for short, size in exported.sizes.items())}")
    made = chain(proofs.check_ledgers(exported), proofs.check_lies(federation, exported))
    checks = [show.check(check) for check in made]
    wrong = played.wrong + [f"{check.what}: {check.said}" for check in checks if not check.right]
    return {
        "ok": not wrong,
        "requests": played.outcomes.total(),
        "outcomes": dict(played.outcomes),
        "expected": dict(played.expected),
        "automatic_as_they_stand": stands,
        "chains": [[hop["state"] for hop in each["hops"]] for each in chains],
        "entries": exported.sizes,
        "checks": [asdict(check) for check in checks],
        "wrong": wrong,
    }


async def _play(
    federation: Federation, show: "_Show", cases: list[questions.Case], register: dict[str, Any]
) -> tuple[play.Played, list[dict[str, Any]], list[tuple[str, bool]]]:
    async with contextlib.AsyncExitStack() as stack:
        nodes = {
            short: await stack.enter_async_context(AgencyClient.of_node(federation.node(short))) for short in MEMBERS
        }
        for agency in nodes.values():
            await agency.token()  # once, not by every one of the first calls
        with show.live("The police ask") as progress:
            threads, refused = await play.ask(nodes["police"], cases, progress)
        show.step(f"{len(threads) + 1} trace requests submitted: signed, sealed, and in the police's ledger")
        with show.live("The registry answers") as progress:
            await play.settle(nodes["police"], progress)
        show.step("The registry has answered where exactly one record fits, and acknowledged the rest")
        await play.refuse(nodes["maker"])
        decided = await play.decide_ten(nodes["registry"], register)
        show.step(f"The manufacturer's person has refused one; the registry's person has answered {len(decided)}")
        with show.live("Reading every thread on both sides"):
            played = await play.look_back(nodes, dict(zip(threads, cases, strict=True)), refused, decided, register)
        with show.live("Three guns are followed from the maker to the importer to the registry"):
            guns = [
                case for case in cases if case.expected.kind == "auto" and "GLOCK" in case.body["weapon"]["make"]["raw"]
            ]
            gun = guns[0]
            ways = (await nodes["police"].post("/v1/trace-checks", {"body": gun.body}))["routes"]
            show.step(
                "Whom to ask for it: " + ("; ".join(f"{way['member']}, since {way['why']}" for way in ways) or "nobody")
            )
            chains = await hops.play_chains(nodes, gun.body)
        with show.live("Two guns with hard marks"):
            whole = [case for case in guns[1:] if len(register[case.expected.record or ""].serial) >= 7]
            found = await marks.play_marks(nodes, whole[:2], register)
        with show.live("A stick goes to the field and back"):
            found.append(await stick.play_stick(federation, nodes, gun.body))
        return played, chains, found


def _chain_line(chain: dict[str, Any]) -> str:
    way = ", ".join(f"{hop['counterpart']} {hop['state']}" for hop in chain["hops"])
    kinds = [event["kind"]["code"] for event in chain["events"]]
    return f"A chain, hop by hop: {way}; {len(kinds) - kinds.count('GAP')} events, {kinds.count('GAP')} gaps"


def _where(federation: Federation) -> dict[str, Any]:
    request = federation.folder / "request.json"
    request.write_bytes(dump_json(questions.make_cases(questions.read_register())[1].body))
    police, tracewire = federation.node("police"), shutil.which("tracewire") or "tracewire"
    urls = {short: f"http://{load_settings(federation.node(short)).agency_bind}" for short in MEMBERS}
    names = {"DEMO": federation.folder, **{short.upper(): url for short, url in urls.items()}}
    env = federation.folder / "env"
    env.write_text("".join(f"export {name}={value}\n" for name, value in names.items()), encoding="utf-8")
    return {
        "running": {
            f"demo/{short}": f"{urls[short]}, node {federation.node(short)}, log {federation.log(short)}"
            for short in MEMBERS
        },
        "try": [
            f". {env}    # sets DEMO, POLICE, REGISTRY, MAKER, IMPORTER for the README's examples",
            f"{tracewire} show {police}",
            f"{tracewire} submit {police} {request} --to demo/registry",
            f"open {federation.folder}/chain.html    # the chain of one gun, as the police see it",
            f"{tracewire} ledger export {police} {federation.folder}/my-export",
        ],
        "stop": f"{tracewire} demo --stop",
    }


def _where_text(found: dict[str, Any]) -> str:
    running = [f"  {name:<14}{where}" for name, where in found["running"].items()]
    tries = [f"  {each}" for each in found["try"]]
    return "\n".join(["The federation runs:", *running, "Try next:", *tries, f"Stop it: {found['stop']}"])


def _end_text(found: dict[str, Any]) -> str:
    outcomes, lies = found["outcomes"], [check["right"] for check in found["checks"] if check["lie"]]
    waiting = sum(count for name, count in outcomes.items() if name.startswith("waiting"))
    lines = [f"not as expected: {each}" for each in found["wrong"][:20]]
    lines += [_where_text(found)] if "running" in found else []
    summary = (
        f"{'All as expected' if found['ok'] else 'NOT as expected'}: {found['requests']} requests, "
        f"{outcomes.get(play.AUTOMATIC, 0)} answered automatically, {waiting} waiting for a person, "
        f"{sum(found['entries'].values())} ledger entries verified, {sum(lies)} of {len(lies)} lies caught, "
        f"in {found['seconds']:.0f} s."
    )
    return "\n".join([*lines, summary])


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One demo of an account at a time; SIGTERM ends it as Ctrl-C does."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with state_folder().with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ProblemError("config.invalid", "another demo of this account is under way") from None
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Show:
    """What a person sees: one line a step, a live count where there is a terminal, a table."""

    def __init__(self, console: Console) -> None:
        self._console, self._began = console, time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self._began

    def step(self, text: str) -> None:
        self._console.print(f"{self.seconds():5.1f} s  {text}", markup=False)

    @contextlib.contextmanager
    def live(self, text: str) -> Iterator[play.Progress]:
        with self._console.status(text) as status:
            yield lambda progress: status.update(f"{text}: {progress}")

    def table(self, played: play.Played, caption: str) -> None:
        table = Table(title=f"What became of {played.outcomes.total()} requests", caption=caption)
        table.add_column("outcome", no_wrap=True)
        table.add_column("count", justify="right", no_wrap=True)
        table.add_column("rule", justify="right", no_wrap=True)
        for name, count, should in played.rows():
            table.add_row(name, str(count), str(should), style="" if count == should else "red")
        self._console.print(table)

    def check(self, check: proofs.Check) -> proofs.Check:
        self.step(f"{'ok   ' if check.right else 'WRONG'}  {check.what}")
        self._console.print(f"                the verifier: {check.said}", markup=False)
        return check
