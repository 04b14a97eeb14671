"""`tracewire demo` as a user runs it: the whole of it, and one that is interrupted."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-c", "from gateway.runtime.cli.main import main; main()", "demo"]


@pytest.fixture
def place() -> Iterator[Path]:
    """A temporary folder of its own, so that a demo which somebody keeps running is left alone."""
    folder = Path(tempfile.mkdtemp(prefix="tw-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


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


def test_the_demo_traces_the_guns_verifies_the_ledgers_and_catches_three_lies(place: Path):
    environment = os.environ | {"TMPDIR": str(place)}
    done = subprocess.run(
        [*COMMAND, "--json"], env=environment, capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    found = json.loads(done.stdout)
    outcomes = found["outcomes"]
    assert found["wrong"] == []
    assert found["requests"] == sum(outcomes.values()) == 635 + 20 + 10 + 1
    assert found["automatic_as_they_stand"] == 449
    assert outcomes == found["expected"]
    assert outcomes["answered automatically"] >= 400
    assert outcomes["answered by a person"] == 10
    assert outcomes["refused: ongoing investigation (ITI 22)"] == 1
    assert outcomes["waiting for a person: the serial is incomplete"] >= 15
    assert "in flight" not in outcomes
    assert "failed" not in outcomes
    assert [check["right"] for check in found["checks"] if check["lie"]] == [True] * 3
    assert sum(found["entries"].values()) > 5_000
    assert left_behind(place) == []


def test_an_interrupted_demo_leaves_nothing_behind(place: Path):
    environment = os.environ | {"TMPDIR": str(place)}
    with subprocess.Popen(COMMAND, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        assert "PostgreSQL runs" in demo.stdout.readline()
        assert left_behind(place) != []
        demo.send_signal(signal.SIGTERM)
        said, complained = demo.communicate(timeout=60)
    assert demo.returncode == 130, complained
    assert "stopped and removed" in said
    assert left_behind(place) == []
