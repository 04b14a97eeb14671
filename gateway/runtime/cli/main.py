"""`tracewire`: the command's entry point; commands are registered by string, so that `--help` starts fast."""

import ctypes
import resource
import sys

import cyclopts

_HELP = """Trace illicit firearms together: signed, sealed and provable messages between agencies.

A new node: `tracewire init`, `tracewire member request` (send the file to the directory's authority), `tracewire run`.
A first look without any of that: `tracewire demo`.

Exit codes: 0 done; 1 a problem, named on stderr with its fix; 2 wrong usage; 3 a check found something wrong;
70 the node died of an error of its own.
"""

app = cyclopts.App(name="tracewire", help=_HELP, version="0.1.0", result_action="return_value")
_PR_SET_DUMPABLE = 4  # prctl(2)
_CLI = "gateway.runtime.cli"
for _name, _target in {
    "init": "node:init",
    "migrate": "node:migrate",
    "run": "node:run",
    "doctor": "doctor:doctor",
    "probe": "trace:probe",
    "outbox": "outbox:app",
    "aside": "aside:app",
    "courier": "courier:app",
    "submit": "trace:submit",
    "batch": "batch:batch",
    "show": "trace:show",
    "attachments": "trace:attachments",
    "chain": "trace:chain",
    "report": "report:app",
    "check": "check:check",
    "approve": "approve:approve",
    "erase": "erase:erase",
    "token": "trace:token",
    "evidence": "evidence:app",
    "audit": "audit:app",
    "ledger": "ledger:app",
    "verify": "ledger:verify_proof",
    "directory": "directory:app",
    "member": "member:app",
    "keys": "keys:app",
    "registry": "registry:app",
    "client": "client:app",
    "demo": "demo:demo",
}.items():
    app.command(f"{_CLI}.{_target}", name=_name)


def main() -> None:
    """Runs one command; its return value is the exit code. Keys in its memory reach no core file and no debugger."""
    if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0):  # a unit that forbids the call has set it
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    sys.exit(app())
