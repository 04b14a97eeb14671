"""What the commands share: output for people or as JSON, problems on stderr (exit code 1), the key store's secret."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gateway.runtime.world import SystemClock
from keys.secret import Secret
from protocols.ports.store import Unavailable
from protocols.problems import Fault, ProblemError

if TYPE_CHECKING:
    from rich.progress import Progress

    from gateway.runtime.client import AgencyClient
    from gateway.services.doctor import Step


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class SecretFrom:
    """Where the secret that opens a key store comes from; neither option: it is asked for.

    Parameters
    ----------
    key_file
        A file of 32 random bytes that only this account can read, in place of a passphrase.
    passphrase_file
        A file whose first line is the passphrase.
    """

    key_file: Annotated[Path | None, Parameter(env_var="TRACEWIRE_KEY_FILE")] = None
    passphrase_file: Annotated[Path | None, Parameter(env_var="TRACEWIRE_PASSPHRASE_FILE")] = None

    def secret(self, *, make: bool = False) -> Secret:
        """The secret; `make` writes a key file that is not there yet."""
        if self.key_file is not None:
            if make and not self.key_file.exists():
                Secret.make_key_file(self.key_file)
            return Secret.key_file(self.key_file)
        if self.passphrase_file is not None:
            return Secret.passphrase(read_file(self.passphrase_file).decode().partition("\n")[0])
        if not sys.stdin.isatty():
            raise ProblemError("key.store", "no passphrase: give --key-file or --passphrase-file")
        return Secret.passphrase(getpass("Passphrase of the key store: "))


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """As whom a command calls the node.

    Parameters
    ----------
    client
        The client to call as.
    actor
        The actor to speak for.
    purpose
        What content is read for, as its entry in the ledger names it: a code of the list `purpose`.
    """

    client: str = "local"
    actor: str = "local"
    purpose: str = "TRACING"

    def agency(self, node: Path) -> "AgencyClient":
        """The running node's `/v1`."""
        from gateway.runtime.client import AgencyClient  # aiohttp loads late

        return AgencyClient.of_node(node, client=self.client, actor=self.actor, purpose=self.purpose)


SPEAKER = Speaker()
_STYLES = {"ok": "green", "warning": "yellow", "wrong": "bold red", "not tried": "dim"}

clock: Callable[[], datetime] = SystemClock().now
"""This machine's time."""


def read_file(path: Path) -> bytes:
    """A file that the user named; `config.invalid` where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        detail = f"{path} cannot be read: {error.strerror}"
        fault = Fault("", "config.invalid", detail, "Name a file that is there and readable.")
        raise ProblemError("config.invalid", detail, errors=[fault]) from None


def say(text: str, found: Mapping[str, Any], *, as_json: bool) -> None:
    """One text for a person, or one JSON line for a program, at once (also into a pipe)."""
    sys.stdout.write((json.dumps(found) if as_json else text) + "\n")
    sys.stdout.flush()


def progress(what: str) -> "Progress":
    """A bar with counts on stderr, gone at its end."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress

    return Progress(what, BarColumn(), MofNCompleteColumn(), console=Console(stderr=True), transient=True)


def show_steps(steps: "Sequence[Step]", found: dict[str, Any], *, as_json: bool) -> None:
    """A line a step, what is wrong with its why and fix below it; or one JSON line."""
    if as_json:
        say("", found, as_json=True)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    width = max(len(step.step) for step in steps)
    for step in steps:
        state = "WRONG" if step.state == "wrong" else step.state
        console.print(
            Text(f"{state:<9} ", _STYLES[step.state]), Text(f"{step.step:<{width}}  {step.what}".rstrip()), sep=""
        )
        for name in ("why", "fix"):
            if said := getattr(step, name):
                console.print(Text(f"{'':<10}{name}: {said}"))


@contextmanager
def problems(*, as_json: bool) -> Iterator[None]:
    """Ends the process with exit code 1 and the problem on stderr: code, what is wrong, the way out."""
    try:
        try:
            yield
        except Unavailable:
            fault = Fault("", "store.busy", "", "Start the server, or correct `database` in tracewire.toml.")
            raise ProblemError("store.busy", "the database does not answer", errors=[fault]) from None
    except ProblemError as error:
        document = error.document()
        named = [f"{each.pointer}: {each.message}" for each in error.errors if each.pointer and each.message]
        fixes = [f"fix: {fix}" for fix in dict.fromkeys(each.fix for each in error.errors)] or [
            f"fix: {error.kind.fix}"
        ]
        text = "\n  ".join([f"{error.code}: {document['detail']}", *named, *fixes]) + "\n"
        sys.stderr.write(json.dumps(document) + "\n" if as_json else text)
        raise SystemExit(1) from None
