"""The README's commands, run as they stand: only the ports and the folder are the test's own."""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Not tmp_path, whose parent is closed to the account that PostgreSQL runs as under root."""
    folder = Path(tempfile.mkdtemp(prefix="tw-readme-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def commands_of(section: str) -> str:
    """The sh blocks of a section, as one script."""
    text = (ROOT / "README.md").read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))


def free_base() -> int:
    """A port with nobody on it, nor on the ones that the README counts from it."""
    for base in range(21_000 + os.getpid() % 50 * 100, 32_000, 100):
        with socket.socket() as a, socket.socket() as b:
            if not any(probe.connect_ex(("127.0.0.1", port)) == 0 for probe, port in ((a, base), (b, base + 10))):
                return base
    raise AssertionError("no free ports")


def test_the_commands_of_the_readme_run_a_network_that_answers_and_proves_it(open_folder: Path):
    script = commands_of("Run a node of your own")
    assert "PORT=8700 TRY=/tmp/tracewire-try" in script
    script = script.replace("PORT=8700 TRY=/tmp/tracewire-try", f"PORT={free_base()} TRY={open_folder / 'try'}")
    script = script.replace("$PWD/.venv/bin", str(ROOT / ".venv/bin") if (ROOT / ".venv").exists() else "$PATH")
    ended = "trap 'kill $(jobs -p) 2> /dev/null || true; wait' EXIT TERM\n"  # also where a command fails
    with subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", ended + script], cwd=ROOT, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        try:
            said, _ = process.communicate(timeout=100)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            said, _ = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert ": ANSWERED" in said
    assert "TRACED_TO_DEALER" in said
    assert "OK example/police/" in said
    assert re.search(r"\"matched\": 1,", said), said
    assert "OK entry 1 of example/police/" in said
    assert "WRONG" not in said
    assert "FAIL" not in said


def test_the_readme_names_only_files_that_are_there():
    text = (ROOT / "README.md").read_text()
    links = [target for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target]
    assert links
    assert [target for target in links if not (ROOT / target).exists()] == []
