"""The log: JSON lines of past events; nothing that is not on the allow-list, no library's text, no error's message."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.runtime.log import ALLOWED

CANARY = "CANARY77"
PROGRAM = f"""
import asyncio, logging, structlog
from gateway.runtime.log import configure_logging
from protocols.problems import ProblemError

configure_logging()
log = structlog.get_logger()
log.info("parcel_received", peer="net/a", serial="{CANARY}", body="{CANARY}", messages=2)
log.debug("too_fine", peer="{CANARY}")
try:
    raise ValueError("{CANARY}")
except ValueError as error:
    log.exception("request_failed", route="/v1/traces", token="{CANARY}")
    logging.getLogger("aiohttp.server").exception("failed: %s", error)
logging.getLogger("asyncio").error("{CANARY}", extra=dict(serial="{CANARY}"))
logging.getLogger("asyncpg").warning("duplicate key %s", "{CANARY}")
logging.getLogger("tuf").info("{CANARY}")

async def forgotten():
    raise KeyError("{CANARY}")

async def main():
    task = asyncio.ensure_future(forgotten())
    await asyncio.wait([task])
    del task
asyncio.run(main())
import gc; gc.collect()
"""


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert run.stdout == "", "the log is stderr; stdout belongs to the command"
    return [json.loads(line) for line in run.stderr.splitlines()]


def test_a_line_keeps_what_is_allowed_and_counts_what_is_not(lines: list[dict[str, Any]]) -> None:
    first = lines[0]
    assert {name: first[name] for name in ("event", "level", "peer", "messages", "dropped_keys")} == {
        "event": "parcel_received", "level": "info", "peer": "net/a", "messages": 2, "dropped_keys": 2,
    }  # fmt: skip
    assert first["timestamp"].endswith("Z")


def test_an_error_is_told_by_type_and_place(lines: list[dict[str, Any]]) -> None:
    (failed,) = [line for line in lines if line["event"] == "request_failed"]
    assert failed["error"] == "ValueError"
    assert failed["where"] == ["<string>:11"]


def test_libraries_are_told_by_name_and_kind_only(lines: list[dict[str, Any]]) -> None:
    told = [(line["where"], line["error"]) for line in lines if line["event"] == "library_logged"]
    assert told == [
        ("aiohttp.server", "ValueError"), ("asyncio", "ERROR"), ("asyncpg", "WARNING"), ("asyncio", "KeyError"),
    ]  # fmt: skip


def test_no_value_of_anybody_gets_through(lines: list[dict[str, Any]]) -> None:
    assert len(lines) == 6
    assert CANARY not in json.dumps(lines)


def test_every_line_that_we_write_keeps_all_its_keys() -> None:
    """Else a line would lose what it was written for, and nobody would notice."""
    root, written = Path(__file__).parents[2], set()
    for path in (each for room in ("gateway", "adapters") for each in (root / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(("_log.", "structlog.get_logger().")):
                written |= {keyword.arg for keyword in node.keywords}
    assert written - ALLOWED == set()
    assert ALLOWED - written <= {"event", "level", "timestamp", "dropped_keys", "left_out"}, (
        "an allowance that nobody needs"
    )
