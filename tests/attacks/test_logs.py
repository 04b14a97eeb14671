"""Logs and what else is kept of requests: bounded, and without anything of a case (group logs)."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from gateway.http.agency import Agency
from gateway.http.openapi import openapi

FLOOD = 100_000
PROGRAM = f"""
import structlog
from gateway.runtime.log import configure_logging
configure_logging()
log = structlog.get_logger()
log.warning("other_event", code="internal")
for n in range({FLOOD}):
    log.info("parcel_refused", code="env.invalid")
import time; time.sleep(1.1)
log.info("parcel_refused", code="env.invalid")
"""


def test_a_flood_of_rejects_is_a_few_lines_and_their_number() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines[0]["event"] == "other_event"
    told = sum(line.get("left_out", 0) for line in lines)
    assert len(lines) - 1 + told == FLOOD + 1, "none is uncounted"
    assert len(lines) < 1_000


def test_no_address_of_the_interface_has_room_for_anything_of_a_case() -> None:
    nothing: Any = None
    agency = Agency(
        member="net/a", access=nothing, clients=nothing, submit=nothing, read=nothing, ledger=nothing, directory=nothing,
        clock=nothing, export=nothing, probe=nothing, converse=nothing, chains=nothing, reports=nothing,
        approve=nothing, check=nothing, diversions=nothing, records=nothing, notices=nothing, blobs=nothing, trail=nothing, erase=nothing,
    )  # fmt: skip
    document = openapi(agency.operations(), title="t", version="1")
    found = {
        (each["in"], each["name"])
        for methods in document["paths"].values()
        for operation in methods.values()
        for each in operation["parameters"]
        if each["in"] != "header"
    }
    assert found == {
        *(
            ("path", name)
            for name in (
                "thread",
                "log",
                "tile",
                "network",
                "member",
                "year",
                "approval",
                "batch",
                "message",
                "attachment",
            )
        ),
        *(
            ("query", name)
            for name in ("limit", "after", "state", "parts", "messages", "grant", "content", "seized", "owner")
        ),
    }
