"""`tracewire demo` that is interrupted; the whole of it is run with the README (test_readme.py)."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.demos import left_behind

COMMAND = [sys.executable, "-c", "from gateway.runtime.cli.main import main; main()", "demo"]


@pytest.fixture
def place() -> Iterator[Path]:
    """A temporary folder of its own, so that a demo which somebody keeps running is left alone."""
    folder = Path(tempfile.mkdtemp(prefix="tw-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


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
