"""The README's commands, run as they stand: only the ports and the folder are the test's own."""

import json
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

from tests.e2e.demos import check_the_demo, left_behind

ROOT = Path(__file__).parents[2]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Not tmp_path, whose parent is closed to the account that PostgreSQL runs as under root."""
    folder = Path(tempfile.mkdtemp(prefix="tw-readme-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def commands_of(first: str, last: str) -> str:
    """The sh blocks from one heading to another, as one script."""
    text = (ROOT / "README.md").read_text()
    return "\n".join(re.findall(r"```sh\n(.*?)```", text[text.index(first) : text.index(last)], re.DOTALL))


def run(script: str, environment: dict[str, str], seconds: int) -> tuple[int, str]:
    """What bash says of a script that ends at the first command that fails, and leaves nothing running."""
    ended = "trap 'kill $(jobs -p) 2> /dev/null || true; wait' EXIT TERM\n"
    with subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", ended + script], cwd=ROOT, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | environment,
    ) as process:  # fmt: skip
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            said, _ = process.communicate(timeout=30)
    return process.returncode, said


def free_base() -> int:
    """A port with nobody on it, nor on the ones that the README counts from it."""
    for base in range(21_000 + os.getpid() % 50 * 100, 32_000, 100):
        with socket.socket() as a, socket.socket() as b:
            if not any(probe.connect_ex(("127.0.0.1", port)) == 0 for probe, port in ((a, base), (b, base + 10))):
                return base
    raise AssertionError("no free ports")


def test_the_commands_of_the_readme_run_a_network_that_answers_and_proves_it(open_folder: Path):
    script = commands_of("### Administrator", "## The house")
    assert "PORT=8700 TRY=/tmp/tracewire-try" in script
    script = script.replace("PORT=8700 TRY=/tmp/tracewire-try", f"PORT={free_base()} TRY={open_folder / 'try'}")
    code, said = run(script, {}, 100)
    assert code == 0, said
    assert ": ANSWERED" in said
    assert "TRACED_TO_DEALER" in said
    assert "OK example/police/" in said
    assert "1 matched" in said, said
    assert "OK entry 1 of example/police/" in said
    assert "WRONG" not in said
    assert "FAIL" not in said


def test_the_first_ten_minutes_of_the_readme_on_the_demo(open_folder: Path):
    script = commands_of("## The first ten minutes", "### Administrator")
    kept = "make demo ARGS=--keep\n"
    assert script.startswith(kept)
    found_json = open_folder / "found.json"
    script = script.replace(kept, f'make --silent demo ARGS="--keep --json" > {found_json}\n')
    code, said = run(script, {"TMPDIR": str(open_folder)}, 170)
    assert code == 0, said
    check_the_demo(json.loads(found_json.read_text()))
    assert '"state": "ANSWERED"' in said
    assert "TRACED_TO_DEALER" in said
    assert '{"accepted":3,"refused":0}' in said
    assert "3 accepted, 0 refused." in said
    assert "trace.response from demo/registry" in said
    assert said.count('"state":"accepted"') == 2, "the integrator's request and the operator's answer"
    assert "signature of demo/registry holds" in said
    assert re.search(r"6\d\d matched", said)
    assert left_behind(open_folder) == ["found.json"]


def test_the_readme_names_only_files_and_headings_that_are_there():
    text = (ROOT / "README.md").read_text()
    there = {
        "#" + re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in re.findall(r"(?m)^#+ (.*)$", text)
    }
    links = [target for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target]
    assert links
    assert [target for target in links if target not in there and not (ROOT / target).exists()] == []
