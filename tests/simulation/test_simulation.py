"""Seeds of the simulation: all of them hold, one seed is one history, and a bug of the database is noticed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from keys.suite import Tw1Opener, Tw1Verifier, seal_private
from tests.fault.conftest import COUNTED
from tests.simulation.suite import LightKeys, LightVerifier

ROOT = Path(__file__).parents[2]
SEEDS = os.environ.get("SEEDS", "0:100")


def run(*args: str) -> tuple[str, dict[str, float]]:
    """What the command prints, and its JSON line."""
    command = [sys.executable, "-m", "tests.simulation.run", *args]
    environment = os.environ | {"PYTHONHASHSEED": "0"}  # else it starts again with that
    said = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, check=False)
    assert said.returncode in (0, 1), said.stderr
    return said.stdout, json.loads(said.stdout.splitlines()[-1])


def test_every_seed_holds() -> None:
    said, counted = run(SEEDS)
    COUNTED["seeds"] += int(counted["seeds"])
    COUNTED["seed_violations"] += int(counted["violations"])
    assert counted["violations"] == 0, said


@pytest.mark.parametrize(
    ("bug", "seeds", "said"),
    [
        ("forgets_answers", "0:1", "I1: a message was made that no client was told of"),
        ("forgets_arrivals", "17:18", "I1: a request was answered 0 times"),
        ("says_committed", "28:29", "I6: a message was accepted and is gone"),
        ("no_locks", "6:7", "ledger.rollback: the database is behind the guard"),
    ],
)
def test_a_bug_of_the_database_is_noticed_and_said_with_the_command_that_replays_it(
    bug: str, seeds: str, said: str
) -> None:
    found, counted = run(seeds, bug)
    assert counted["violations"] > 0
    assert said in found
    assert f".venv/bin/python -m tests.simulation.run {found.partition('seed ')[2].partition(':')[0]} {bug}" in found


def test_one_seed_is_one_history() -> None:
    command = (
        "from tests.simulation.run import simulate; "
        "first, second = [simulate(11)[1] for _ in range(2)]; assert first == second; print(first)"
    )
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    histories = {
        subprocess.run(
            [sys.executable, "-c", command], env=environment, cwd=ROOT, capture_output=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(histories) == 1


def test_tw1_refuses_what_the_light_suite_makes() -> None:
    keys = LightKeys("sim/a", Random(1))
    signer, wrapped = keys.current_signer("message"), keys.sealer().wrap(keys.seal.public, b"info")
    signature = signer.sign(b"text")
    assert LightVerifier().verify("Ed25519", signer.public.public, b"text", signature)
    assert not Tw1Verifier().verify("Ed25519", signer.public.public, b"text", signature)
    assert keys.opener().unwrap(keys.seal.kid, wrapped.ek, wrapped.encrypted_key, b"info") == wrapped.cek
    private, _ = seal_private(bytes(32))
    assert Tw1Opener({keys.seal.kid: private}).unwrap(keys.seal.kid, wrapped.ek, wrapped.encrypted_key, b"info") is None


def test_no_package_of_ours_knows_the_tests() -> None:
    sources = [path for room in ("gateway", "protocols", "adapters", "keys") for path in (ROOT / room).rglob("*.py")]
    assert sources
    assert not [path.name for path in sources if "from tests" in path.read_text() or "import tests" in path.read_text()]
