"""The independent verifier judges cosignatures as our own code does, alone and as a zipapp."""

import json
import subprocess
import sys
import zipapp
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from keys.notes import LedgerCosigner
from keys.suite import Tw1Verifier
from protocols.ledger.checkpoint import parse_checkpoint
from protocols.ledger.witness import parse_policy
from protocols.problems import ProblemError
from tests.interop.conftest import START, Exchange

VERIFIER = Path(__file__).parents[2] / "deploy" / "verifier"
WITNESSES = {
    name: LedgerCosigner(f"net/{name}", bytes([n]) * 32, bytes([n + 1]) * 32) for n, name in enumerate("bcd", 10)
}
KEYS = "".join(f"witness {name} {each.vkeys[name == 'd']}\n" for name, each in WITNESSES.items())


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("zipapp") / "tracewire-verify.pyz"
    zipapp.create_archive(VERIFIER, made)
    return made


def ledger(exchange: Exchange, folder: Path, who: str) -> Path:
    """An exported ledger whose checkpoint these witnesses cosigned before it went on."""
    a = exchange.a
    exchange.whole(1, 1, a, exchange.b)
    checkpoint = parse_checkpoint(a.checkpoints[len(a.entries)])
    lines = [WITNESSES[name].cosign(a.origin, checkpoint.size, checkpoint.root, START) for name in who]
    exchange.whole(2, 2, a, exchange.b)
    a.write(folder)
    (folder / "checkpoint.witnessed").write_bytes(checkpoint.note + b"".join(lines))
    return folder


def judged(program: Path, folder: Path, policy: str, *more: str) -> tuple[int, Any]:
    (folder.parent / "policy").write_text(policy)
    command = [sys.executable, "-I", program, "policy", folder, "--policy", folder.parent / "policy", "--json", *more]
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


@pytest.mark.parametrize(
    ("who", "rest", "enough"),
    [
        ("bc", "quorum none", True), ("b", "quorum b", True), ("c", "quorum b", False), ("d", "quorum d", True),
        ("bd", "group g 2 b c d\nquorum g", True), ("b", "group g 2 b c d\nquorum g", False),
        ("cd", "group g any b c\ngroup h all g d\nquorum h", True), ("bc", "group g any b c\ngroup h all g d\nquorum h", False),
    ],
)  # fmt: skip
def test_both_judge_a_policy_alike(
    exchange: Exchange, tmp_path: Path, program: Path, who: str, rest: str, enough: bool
) -> None:
    folder = ledger(exchange, tmp_path / "a", who)
    code, found = judged(program, folder, KEYS + rest, *(f"--vkey={key}" for key in exchange.a.signer.vkeys))
    note = (folder / "checkpoint.witnessed").read_bytes()
    assert parse_policy((KEYS + rest).encode()).satisfied(note, Tw1Verifier()) is enough
    assert (code, found["ok"]) == (int(not enough), enough), found
    if enough:
        assert (found["size"], found["witnessed"], found["witnesses"]) == (5, 3, sorted(who))
        since = None if rest == "quorum none" else START.timestamp()
        assert found["at"] == since, "a witness that has been away for long is seen by this"
    else:
        assert found["code"] == "witness"


@pytest.mark.parametrize(
    "rest",
    ["", "nonsense", "quorum x", "group g 3 b c\nquorum g", "group g any b b\nquorum g", "group b any c\nquorum b", "witness b x\nquorum b",
     "quorum b\nquorum c", "log\nquorum b"],
)  # fmt: skip
def test_both_refuse_a_policy_alike(exchange: Exchange, tmp_path: Path, program: Path, rest: str) -> None:
    with pytest.raises(ProblemError, match=r"config\.invalid"):
        parse_policy((KEYS + rest).encode())
    code, found = judged(program, ledger(exchange, tmp_path / "a", "b"), KEYS + rest)
    assert (code, found["code"]) == (1, "policy")


@pytest.mark.parametrize("lines", [60, 900])
def test_groups_of_groups_cost_no_more_than_their_lines(
    exchange: Exchange, tmp_path: Path, program: Path, lines: int
) -> None:
    chained = ["group g0 all b c", "group g1 all c d", *(f"group g{n} any g{n - 1} g{n - 2}" for n in range(2, lines))]
    rest = "\n".join([*chained, f"quorum g{lines - 1}"])
    folder = ledger(exchange, tmp_path / "a", "b")
    assert not parse_policy((KEYS + rest).encode()).satisfied(
        (folder / "checkpoint.witnessed").read_bytes(), Tw1Verifier()
    )
    assert judged(program, folder, KEYS + rest)[1]["code"] == "witness"


def test_forged_cosignatures_and_other_trees_are_named(exchange: Exchange, tmp_path: Path, program: Path) -> None:
    folder = ledger(exchange, tmp_path / "a", "b")
    path, policy = folder / "checkpoint.witnessed", f"log {exchange.a.signer.vkeys[1]}\n{KEYS}quorum b\n"
    good = path.read_bytes()
    assert judged(program, folder, policy)[0] == 0
    assert (
        judged(program, folder, policy.replace(exchange.a.signer.vkeys[1], exchange.b.signer.vkeys[1]))[1]["code"]
        == "policy"
    )
    older = exchange.a.checkpoints[2]
    path.write_bytes(older + good[good.index(b"\xe2\x80\x94 net/b") :])
    assert judged(program, folder, policy)[1]["code"] == "signature", "of another tree"
    fork = exchange.a.signer.sign(3, bytes(32), START)
    path.write_bytes(fork + WITNESSES["b"].cosign(exchange.a.origin, 3, bytes(32), START))
    assert judged(program, folder, policy)[1]["code"] == "consistency", "what was witnessed is another history"


def test_the_zipapp_is_the_verifier_too(exchange: Exchange, tmp_path: Path, program: Path) -> None:
    a, b = exchange.a, exchange.b
    exchange.whole(1, 1, a, b)
    folders = a.write(tmp_path / "a"), b.write(tmp_path / "b")
    (tmp_path / "1.tlog-proof").write_bytes(a.proof(1))
    for name, root in (("first", a.edge.root()), ("second", bytes(32))):
        (tmp_path / name).write_bytes(a.signer.sign(3, root, START))
    vkeys = [f"--vkey={key}" for key in a.signer.vkeys]

    def said(*arguments: object) -> tuple[int, str]:
        command = [sys.executable, "-I", program, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    code, text = said("log", folders[0], "--json")
    assert (code, json.loads(text)["size"]) == (0, 3)
    for arguments, line in (
        (("match", *folders), "OK test/br-pf/2026.1 -> test/us-atf/2026.1"),
        (("proof", tmp_path / "1.tlog-proof", *vkeys), "OK entry 1 of test/br-pf/2026.1"),
        (("fork", tmp_path / "first", tmp_path / "second", *vkeys), "two histories are proven"),
    ):
        code, text = said(*arguments)
        assert (code, line in text) == (0, True), text
    for arguments in (("log", tmp_path), ("evidence", tmp_path / "none.zip", "--root", tmp_path / "first")):
        code, text = said(*arguments)
        assert (code, text.startswith("FAIL ")) == (1, True), text
    assert said()[0] == 2
    (tmp_path / "cryptography").mkdir()
    (tmp_path / "cryptography" / "__init__.py").touch()  # one that knows no ML-DSA
    command = [sys.executable, "-P", program, "log", str(folders[0])]
    old = subprocess.run(command, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert (old.returncode, old.stdout, "install cryptography 50" in old.stderr) == (2, "", True), old.stderr


def test_one_witness_that_lies_about_its_time_does_not_move_what_the_others_said(
    exchange: Exchange, tmp_path: Path, program: Path
) -> None:
    folder = ledger(exchange, tmp_path / "a", "bc")
    checkpoint = parse_checkpoint((folder / "checkpoint.witnessed").read_bytes())
    with (folder / "checkpoint.witnessed").open("ab") as file:
        file.write(
            WITNESSES["d"].cosign(exchange.a.origin, checkpoint.size, checkpoint.root, START - timedelta(days=400))
        )
    _, found = judged(program, folder, KEYS + "group g 2 b c d\nquorum g")
    assert (found["witnesses"], found["at"]) == (["b", "c", "d"], START.timestamp())
