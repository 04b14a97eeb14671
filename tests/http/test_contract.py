"""The agency interface keeps what its own description says: Schemathesis asks a real node, authenticated, with one worker."""

import asyncio
import os
import re
import sys
from hashlib import sha256
from pathlib import Path

import aiohttp

from adapters.postgres.embedded import EmbeddedServer
from gateway.http.dialogue import _OPENED, _SAID
from tests.federation import Federation
from tests.http.office import World, office_of
from tests.http.wire import PATIENCE_S

EXCEPTIONS = Path(__file__).with_name("schemathesis.toml")
WHOLE = "TRACEWIRE_CONTRACT" in os.environ  # `make contract`: minutes instead of seconds


def alike(*stand: str) -> list[str]:
    """Operations that are made of one table with these, which stand for all."""
    return ["post_" + re.sub("[.-]", "_", type_) for _, type_, _ in (*_SAID, *_OPENED) if type_ not in stand]


def but(*operations: str) -> list[str]:
    return [] if WHOLE else ["--exclude-operation-id-regex", f"^({'|'.join(operations)})$"]


SLOW = "post_trace", "get_evidence"  # thousands of cases; a list of UUIDs that takes half a minute to make up
COVERAGE = ["--phases", "coverage", *but(*SLOW, *alike("trace.clarification"))]
SOME = alike("trace.response", "trace.clarification", "marking.notice")
FUZZING = ["--phases", "fuzzing", "--max-examples", "150" if WHOLE else "8", *but(*SOME)]


async def test_every_operation_answers_as_it_is_described(postgres: EmbeddedServer, tmp_path: Path) -> None:
    async with Federation(postgres, tmp_path) as fed:
        asker, holder = await fed.nodes("asker", "holder")
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_S)) as session,
            office_of(asker, session) as ours,
            office_of(holder, session) as theirs,
        ):
            world = World(ours, theirs)
            there = {
                "THREAD": (await world.arrived())["thread"],
                "LOG": sha256(holder.origin.encode()).hexdigest(),
            }
            for phase in (COVERAGE, FUZZING):
                theirs.tokens.clear()  # one lives five minutes: each phase has its own
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", str(EXCEPTIONS),
                    "run", f"{theirs.url}/v1/openapi.json", "--workers", "1", "--checks", "all", "--seed", "1", *phase,
                    "--header", f"Authorization: Bearer {await theirs.token()}", cwd=tmp_path,
                    env=os.environ | there, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
                )  # fmt: skip
                said, _ = await process.communicate()
                print(said.decode())
                assert process.returncode == 0
