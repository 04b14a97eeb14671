"""Go's own sumdb code verifies a ledger of ours of 70,000 entries (as does the independent verifier)."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2].parent / "shared" / "goverify" / "main.go"
GOPATH = Path("/usr/share/gocode")
VERIFIER = Path(__file__).parents[2] / "deploy" / "verifier" / "tracewire_verify.py"
SIZE, OLD_SIZE = 70_000, 41_234


def _missing() -> str:
    if shutil.which("go") is None or not (GOPATH / "src/golang.org/x/mod/sumdb").is_dir():
        return "apt-get install golang-go golang-golang-x-mod-dev"
    return "" if SOURCE.is_file() else f"goverify is not here: {SOURCE}"


pytestmark = pytest.mark.skipif(bool(_missing()), reason=_missing())


@pytest.fixture
def goverify(tmp_path):
    """The program, built with Debian's golang.org/x/mod."""
    target = tmp_path / "goverify"
    env = os.environ | {"GO111MODULE": "off", "GOPATH": str(GOPATH), "GOFLAGS": "", "GOCACHE": str(tmp_path / "cache")}
    subprocess.run(["go", "build", "-o", str(target), str(SOURCE)], check=True, env=env)
    return target


def test_a_large_ledger_of_ours_holds_for_go_and_for_the_independent_verifier(goverify, new_ledger, tmp_path):
    ledger = new_ledger("test/br-pf")
    ledger.open()
    entry = ledger.entry("admin", code="test").encode()
    for start, end in ((1, OLD_SIZE), (OLD_SIZE, SIZE)):
        ledger.add(*(entry.replace(b'"code":"test"', b'"code":"%d"' % i) for i in range(start, end)))
    folder = ledger.write(tmp_path / "ledger")
    (folder / "checkpoint.old").write_bytes(ledger.checkpoints[OLD_SIZE])
    (folder / "receipt.tlog-proof").write_bytes(ledger.proof(69_999))
    vkey = ledger.signer.vkeys[0]

    def run():
        command = [str(goverify), str(folder), vkey]
        return subprocess.run(command, capture_output=True, text=True, env={"TMPDIR": str(tmp_path)}, check=False)

    found = run()
    assert found.returncode == 0, found.stdout + found.stderr
    assert [line.split(",")[0].split(" ")[0] for line in found.stdout.splitlines()] == ["OK", "OK", "OK"]
    assert f"size={SIZE}" in found.stdout
    assert f"earlier checkpoint size={OLD_SIZE}" in found.stdout
    assert "receipt index=69999" in found.stdout
    ours = subprocess.run(
        [sys.executable, "-I", str(VERIFIER), "log", str(folder), "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(ours.stdout)["size"] == SIZE
    tile = folder / "tile/0/x001/000"
    assert not tile.exists()  # 273 full tiles: the paths' second group begins at 1,000
    changed = folder / "tile/0/200"
    changed.write_bytes(bytes(32) + changed.read_bytes()[32:])
    assert run().returncode == 1
