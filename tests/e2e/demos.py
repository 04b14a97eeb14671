"""What a demo must have done, and what it must not leave."""

from pathlib import Path
from typing import Any


def left_behind(place: Path) -> list[str]:
    """Processes that name the folder, and what lies in it but the lock."""
    lines = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(each.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return [line for line in lines if f"{place}/" in line] + [
        path.name for path in place.iterdir() if path.suffix != ".lock"
    ]


def check_the_demo(found: dict[str, Any]) -> None:
    """That it traced the guns, verified the ledgers and caught three lies."""
    outcomes = found["outcomes"]
    assert found["wrong"] == []
    assert found["requests"] == sum(outcomes.values()) == 635 + 20 + 10 + 1
    assert found["automatic_as_they_stand"] == 449
    assert outcomes == found["expected"]
    assert outcomes["answered automatically"] >= 400
    assert outcomes["answered by a person"] == 10
    assert outcomes["refused: ongoing investigation (ITI 22)"] == 1
    assert outcomes["waiting for a person: the serial is incomplete"] >= 15
    assert found["chains"] == [["REFERRED", "REFERRED", "ANSWERED"], ["REFERRED", "REFUSED"], ["REFERRED", "SILENT"]]
    assert "in flight" not in outcomes
    assert "failed" not in outcomes
    assert [check["right"] for check in found["checks"] if check["lie"]] == [True] * 3
    assert sum(found["entries"].values()) > 5_000
