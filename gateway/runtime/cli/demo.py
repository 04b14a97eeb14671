"""`tracewire demo`: a whole federation on this machine, 635 real guns traced, and every claim checked from its bytes."""

import asyncio
import contextlib
import fcntl
import json as jsonlib
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from gateway.runtime.cli.say import problems
from gateway.runtime.demo import cases as questions
from gateway.runtime.demo import play, proofs
from gateway.runtime.demo.federation import Federation, state_folder
from protocols.problems import ProblemError
from protocols.strict import dump_json

_WRONG = 3
_INTERRUPTED = 130
_FOUND = "demo.json"


def demo(
    *,
    keep: Annotated[bool, Parameter(negative="")] = False,
    fresh: Annotated[bool, Parameter(negative="")] = False,
    stop: Annotated[bool, Parameter(negative="")] = False,
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
        if stop:
            federation.close()
            show.step("Stopped and removed.")
            return 0
        if not fresh and (federation.folder / _FOUND).exists() and federation.alive():
            found = jsonlib.loads((federation.folder / _FOUND).read_text(encoding="utf-8"))
            show.kept(found)
            _end(found | {"already_running": True}, as_json=json)
            return 0
        federation.close()
        kept = False
        try:
            found = _run(federation, show)
            kept = keep and found["ok"]
            if kept:
                found |= _addresses(federation)
                (federation.folder / _FOUND).write_text(jsonlib.dumps(found), encoding="utf-8")
        except KeyboardInterrupt:
            show.step("Interrupted: stopping and removing everything.")
            return _INTERRUPTED
        finally:
            if not kept:
                _uninterrupted(federation.close)
        show.end(found)
        _end(found, as_json=json)
        return 0 if found["ok"] else _WRONG


def _run(federation: Federation, show: "_Show") -> dict[str, Any]:
    """The demo itself: the object that --json prints."""
    rows = questions.guns()
    cases, register = questions.make_cases(rows)
    stands = questions.as_they_stand(register)
    federation.open()
    show.step("PostgreSQL runs (embedded, one server, a database for each node)")
    federation.found_directory()
    show.step(f"The authority has made the directory and serves it at {federation.directory_url}")
    for short, member in federation.members.items():
        federation.make_node(short)
        show.step(f"{member.name} ({member.full}) has keys, a database and its place in the directory")
    federation.publish()
    held = federation.fill_register(questions.register_csv(rows))
    show.step(f"The directory is published; the registry holds {held} real guns (credit: NOTICE)")
    federation.run_nodes()
    show.step("Three nodes are ready")
    played = asyncio.run(_play(federation, show, cases, register))
    show.table(played, stands)
    exported = proofs.export(federation)
    sizes = ", ".join(f"{short} {size}" for short, size in exported.sizes.items())
    show.step(f"Ledgers taken out as C2SP tiles: {sizes} entries")
    ledgers = show.checks(proofs.check_ledgers(exported))
    lies = show.checks(proofs.check_lies(federation, exported))
    example = federation.folder / "request.json"
    example.write_bytes(dump_json(cases[1].body))
    wrong = played.wrong + [f"{check.what}: {check.said}" for check in (*ledgers, *lies) if not check.right]
    return {
        "ok": not wrong,
        "requests": sum(played.outcomes.values()),
        "register": held,
        "automatic_as_they_stand": stands,
        "outcomes": dict(played.outcomes),
        "expected": dict(played.expected),
        "entries": exported.sizes,
        "ledgers": [{"what": each.what, "said": each.said, "holds": each.right} for each in ledgers],
        "lies": [{"what": each.what, "said": each.said, "caught": each.right} for each in lies],
        "foreign_verifier": proofs.VERIFIER.exists(),
        "wrong": wrong,
        "seconds": round(show.seconds(), 1),
    }


async def _play(
    federation: Federation, show: "_Show", cases: list[questions.Case], register: dict[str, Any]
) -> play.Played:
    async with play.agencies(federation) as here:
        began = show.seconds()
        with show.live("The police ask") as progress:
            threads, refused = await play.ask(here, cases, cases[1], progress)
        took = show.seconds() - began
        show.step(f"{len(cases) + 1} requests submitted, each signed, sealed and in the ledger ({took:.1f} s)")
        with show.live("The registry answers") as progress:
            await play.settle(here, progress)
        show.step("The registry has answered what the rule lets it answer, and acknowledged the rest")
        await play.refuse(here)
        decided = await play.decide_ten(here, register)
        show.step(f"The manufacturer's person has refused one, the registry's person has answered {len(decided)}")
        with show.live("Reading every thread on both sides"):
            return await play.look_back(here, dict(zip(threads, cases, strict=True)), refused, decided, register)


def _addresses(federation: Federation) -> dict[str, Any]:
    names = ("agency", "exchange", "operations")
    members = {
        each.full: {
            "node": str(federation.node(short)),
            "log": str(federation.log(short)),
            **{name: f"http://127.0.0.1:{port}" for name, port in zip(names, each.ports, strict=True)},
        }
        for short, each in federation.members.items()
    }
    request = federation.folder / "request.json"
    commands = [
        f"tracewire show {federation.node('police')}",
        f"tracewire submit {federation.node('police')} {request} --to demo/registry",
        f"tracewire ledger export {federation.node('registry')} /tmp/registry-ledger",
    ]
    return {"directory": federation.directory_url, "members": members, "try": commands, "stop": "tracewire demo --stop"}


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One demo of an account at a time; SIGTERM ends it as Ctrl-C does."""
    path = state_folder().with_suffix(".lock")
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ProblemError("config.invalid", "another demo of this account is under way") from None
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


def _uninterrupted(close: Any) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN), signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        close()
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])


def _end(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(jsonlib.dumps(found), flush=True)


@dataclass(slots=True)
class _Show:
    """What a person sees: one line a step, a live count where there is a terminal, tables."""

    console: Console
    began: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        return time.monotonic() - self.began

    def step(self, text: str) -> None:
        self.console.print(f"[dim]{self.seconds():5.1f} s[/dim]  {text}")

    @contextlib.contextmanager
    def live(self, text: str) -> Iterator[play.Progress]:
        with self.console.status(text) as status:
            yield lambda progress: status.update(f"{text}: {progress}")

    def table(self, played: play.Played, stands: int) -> None:
        table = Table(title=f"What became of {sum(played.outcomes.values())} requests", title_justify="left")
        table.add_column("outcome")
        table.add_column("requests", justify="right")
        table.add_column("by the rule", justify="right")
        for name, count, should in play.table_rows(played):
            table.add_row(name, str(count), str(should), style="" if count == should else "bold red")
        self.console.print(table)
        self.console.print(
            f"Asked exactly as the register writes them, {stands} of the 635 have an automatic answer.\n"
        )

    def checks(self, found: list[proofs.Check]) -> list[proofs.Check]:
        for check in found:
            mark = "[green]right[/green]" if check.right else "[bold red]WRONG[/bold red]"
            self.step(f"{mark}  {check.what}")
            self.console.print(f"                  the verifier: {check.said}", markup=False)
        return found

    def kept(self, found: dict[str, Any]) -> None:
        self.console.print(f"The federation runs. Directory: {found['directory']}", markup=False)
        for name, member in found["members"].items():
            self.console.print(f"  {name}", markup=False)
            for what, where in member.items():
                self.console.print(f"    {what:<11}{where}", markup=False)
        self.console.print("Try next:", *(f"  {each}" for each in found["try"]), sep="\n", markup=False)
        self.console.print(f"Stop it: {found['stop']}", markup=False)

    def end(self, found: dict[str, Any]) -> None:
        for each in found["wrong"][:20]:
            self.console.print(f"  not as expected: {each}", style="red", markup=False)
        if "members" in found:
            self.kept(found)
        caught = sum(each["caught"] for each in found["lies"])
        outcomes, entries = found["outcomes"], sum(found["entries"].values())
        self.step(
            f"{'All as expected' if found['ok'] else 'NOT as expected'}: {found['requests']} requests, "
            f"{outcomes.get(play.AUTOMATIC, 0)} answered automatically, "
            f"{sum(n for name, n in outcomes.items() if name.startswith('waiting'))} waiting for a person, "
            f"{entries} ledger entries verified, {caught} of {len(found['lies'])} lies caught, {self.seconds():.0f} s"
        )


__all__ = ["demo"]
