"""A ledger as files that any web server can serve: gone on with, whole or not at all, and never a checkpoint without its tiles."""

import asyncio
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.services.changes import Noted
from keys.suite import Tw1Verifier
from protocols.directory import witness_keys
from protocols.ledger.checkpoint import parse_checkpoint
from protocols.ledger.entry import Entry
from protocols.ledger.tiles import parse_bundle
from protocols.ledger.witness import parse_policy
from tests.federation import Federation, Node

ROOT = Path(__file__).parents[2]
SMALL_BYTES = 10_000  # less than a bundle of 256 entries takes


async def tracewire(*args: object, fsize: int | None = None) -> dict[str, Any]:
    """The command's JSON; with `fsize` no file may become longer, as on a full disk."""

    def limit() -> None:
        if fsize is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (fsize, fsize))

    command = [str(Path(sys.executable).with_name("tracewire")), *map(str, args), "--json"]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, preexec_fn=limit, check=False
    )
    found: dict[str, Any] = json.loads(done.stdout or done.stderr)
    return found


async def grow(node: Node, count: int) -> None:
    clock = node.fed.clock
    entries = (Entry(kind="admin", at=clock.now(), n=os.urandom(16), code="test") for _ in range(count))
    await asyncio.gather(*(node.parts.committer.commit(Noted(entry=entry)) for entry in entries))


def files(folder: Path) -> dict[str, int]:
    """Name -> inode: a file that was written again is another."""
    return {path.relative_to(folder).as_posix(): path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


async def test_d08_an_export_that_a_full_disk_cuts_leaves_nothing_half_and_is_gone_on_with(
    fed: Federation, tmp_path: Path
) -> None:
    a, b = await fed.nodes("a", "b")
    await grow(a, 299)
    out = tmp_path / "out"
    cut = await tracewire("ledger", "export", a.folder, out, fsize=SMALL_BYTES)
    assert (cut["code"], "again" in cut["errors"][0]["fix"]) == ("store.full", True)
    assert set(files(out)) == {"vkeys"}, "neither half a tile nor a checkpoint"
    assert (await tracewire("ledger", "export", a.folder, out))["size"] == 300
    first = files(out)
    assert {"tile/entries/000", "tile/entries/001.p/44", "tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1"} < set(first)
    await grow(a, 250)
    await a.becomes(await a.trace(b), "delivered")
    assert await a.parts.witness.collect() == 1
    assert (await tracewire("ledger", "export", a.folder, out))["size"] == 552
    second = files(out)
    for immutable in ("tile/entries/000", "tile/0/000"):
        assert second[immutable] == first[immutable], "what is full is never touched again"
    assert not [name for name in second if name.startswith(("tile/entries/001.p", "tile/0/001.p"))], (
        "its whole is there"
    )
    assert parse_checkpoint((out / "checkpoint").read_bytes()).size == 552
    assert (
        sum(len(list(parse_bundle(path.read_bytes()))) for path in (out / "tile/entries").rglob("*") if path.is_file())
        == 552
    )
    assert (await tracewire("ledger", "verify", out))["ok"]
    keys = witness_keys(fed.directory.records[b.name])
    assert keys is not None
    assert keys.cosignature((out / "checkpoint.witnessed").read_bytes(), Tw1Verifier())
    policy = tmp_path / "policy"
    (classic, quantum), log = b.keys.cosigner(b.name).vkeys, a.keys.note_signer(a.origin).vkeys[0]
    demands = f"witness peer {classic}\nwitness pq {quantum}\ngroup both all peer pq\nquorum both\n"
    policy.write_text(f"log {log}\n{demands}")
    assert (await tracewire("ledger", "verify", out, "--policy", policy))["witnessed"] == 552
    policy.write_text(f"log {b.keys.note_signer(b.origin).vkeys[0]}\n{demands}")
    assert (await tracewire("ledger", "verify", out, "--policy", policy))["code"] == "proof.origin"
    policy.write_text(f"witness other {a.keys.cosigner(a.name).vkeys[0]}\nquorum other\n")
    assert (await tracewire("ledger", "verify", out, "--policy", policy))["code"] == "checkpoint.unwitnessed"
    policy.write_text("quorum of many\n")
    assert (await tracewire("ledger", "verify", out, "--policy", policy))["code"] == "config.invalid"
    vkeys = [f"--vkey={key}" for key in a.keys.note_signer(a.origin).vkeys]
    command = [sys.executable, str(ROOT / "deploy/verifier/tracewire_verify.py"), "log", str(out), *vkeys]
    alone = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert alone.returncode == 0, alone.stdout
    assert files(out).keys() == second.keys()
    (out / "checkpoints" / ".9.tmp").write_bytes(b"torn by a kill")
    again = await tracewire("ledger", "export", a.folder, out)
    assert files(out).keys() == second.keys()
    fork = a.keys.note_signer(a.origin).sign(552, bytes(32), fed.clock.now())
    (out / "checkpoints" / "552").write_bytes(fork)
    (out / "checkpoint.witnessed").write_bytes(
        fork + b.keys.cosigner(b.name).cosign(a.origin, 552, bytes(32), fed.clock.now())
    )
    assert (await tracewire("ledger", "verify", out))["code"] == "ledger.split_view"
    (out / "checkpoints" / "552").write_bytes((out / "checkpoint").read_bytes())
    assert (await tracewire("ledger", "verify", out))["code"] == "ledger.split_view", "what was witnessed alone"
    (out / "checkpoints" / "552").write_bytes(fork)
    policy.write_text(demands)
    forked = await tracewire("ledger", "verify", out, "--policy", policy)
    assert forked["code"] == "ledger.split_view", "witnesses were shown another history than auditors"
    assert (again["size"], files(out)["tile/0/000"]) == (552, first["tile/0/000"])


async def test_two_ledgers_are_compared_by_what_an_auditor_trusts_of_each(fed: Federation, tmp_path: Path) -> None:
    a, b = await fed.nodes("a", "b")
    fed.authority.set_witnesses([a.name, b.name], 1, signers=fed._targets, now=fed.clock.now())
    await fed.publish()
    await a.becomes(await a.trace(b), "delivered")
    assert await a.parts.witness.collect() == 1
    folders, policies = [tmp_path / "files of a", tmp_path / "files of b"], [tmp_path / "of a", tmp_path / "of b"]
    (tmp_path / "root.json").write_bytes(fed.root)
    for node, folder, policy in zip((a, b), folders, policies, strict=True):
        await tracewire("ledger", "export", node.folder, folder)
        await tracewire(
            "audit", "policy", node.origin, policy, "--directory", fed.repository, "--root", tmp_path / "root.json"
        )
    compare = ["audit", "reconcile", *folders]
    size = len(await a.entries())
    assert (await tracewire(*compare))["witnessed"] == {a.origin: None, b.origin: None}
    found = await tracewire(*compare, "--policy", policies[0])
    assert (found["ok"], found["witnessed"]) == (True, {a.origin: size, b.origin: None})
    both = ["--policy", policies[0], "--policy", policies[1]]
    assert (await tracewire(*compare, *both))["code"] == "checkpoint.unwitnessed", "nobody has cosigned b's"
    assert await b.parts.witness.collect() == 1
    await tracewire("ledger", "export", b.folder, folders[1])
    assert set((await tracewire(*compare, *both))["witnessed"].values()) == {size, len(await b.entries())}


async def test_a_proof_says_whether_others_hold_what_it_proves(fed: Federation, tmp_path: Path) -> None:
    a, b = await fed.nodes("a", "b")
    await a.becomes(await a.trace(b), "delivered")
    policy, root = tmp_path / "policy", tmp_path / "root.json"
    root.write_bytes(fed.root)
    where = ["--directory", fed.repository, "--root", root]
    vkeys = [f"--vkey={key}" for key in a.keys.note_signer(a.origin).vkeys]
    unknown = await tracewire("audit", "policy", "testnet/a/2031.1", policy, *where)
    assert (unknown["code"], policy.exists()) == ("http.not_found", False)
    named = await tracewire("audit", "policy", a.origin, policy, *where)
    assert (named["witnesses"], named["quorum"], parse_policy(policy.read_bytes()).quorum) == ([b.name], 0, None)
    fed.authority.set_witnesses([a.name, b.name], 1, signers=fed._targets, now=fed.clock.now())
    await fed.publish()
    assert (await tracewire("audit", "policy", a.origin, policy, *where))["code"] == "config.invalid", "it stands there"
    other = tmp_path / "of another"
    await tracewire("audit", "policy", b.origin, other, *where)
    policy.unlink()
    assert (await tracewire("audit", "policy", a.origin, policy, *where))["quorum"] == 1
    early = await tracewire("ledger", "proof", a.folder, "1", tmp_path / "early")
    assert (early["grade"], early["witnesses"]) == ("signed", [])
    assert (await tracewire("verify", tmp_path / "early", *vkeys))["grade"] == "signed"
    assert (await tracewire("verify", tmp_path / "early", "--policy", policy))["code"] == "checkpoint.unwitnessed"
    assert await a.parts.witness.collect() == 1
    await grow(a, 1)
    late = await tracewire("ledger", "proof", a.folder, "1", tmp_path / "late")
    assert (late["grade"], late["witnesses"]) == ("witnessed", [b.name])
    assert (await tracewire("verify", tmp_path / "late", "--policy", policy))["grade"] == "witnessed"
    newest = len(await a.entries()) - 1
    assert (await tracewire("ledger", "proof", a.folder, newest, tmp_path / "newest"))["grade"] == "signed"
    out = tmp_path / "out"
    await tracewire("ledger", "export", a.folder, out)
    assert (await tracewire("ledger", "verify", out))["witnessed"] is None
    other.write_text(other.read_text().replace("quorum witnesses", "quorum none"))
    for command in (("ledger", "verify", out), ("verify", tmp_path / "late")):
        wrong = await tracewire(*command, "--policy", other, *vkeys)
        assert wrong["code"] == "proof.origin", "also one that demands no witness"
    assert (await tracewire("ledger", "verify", out, "--policy", policy))["witnessed"] == newest
    (out / "vkeys").write_text("what the folder says of itself\n")
    program = [sys.executable, str(ROOT / "deploy/verifier/tracewire_witnesses.py"), str(out), "--policy", str(policy)]
    alone = await asyncio.to_thread(subprocess.run, program, capture_output=True, text=True, check=False)
    assert alone.returncode == 0, alone.stdout
    newest_of_b = await b._ports.ledger.checkpoint(b.origin)
    assert newest_of_b is not None
    fed.authority.abandon(newest_of_b.note, signers=fed._targets, now=fed.clock.now())
    await fed.publish()
    given_up = await tracewire("audit", "policy", b.origin, tmp_path / "given up", *where)
    assert "abandoned at size" in given_up["detail"]


@pytest.mark.parametrize("what", ["another ledger", "another history", "strange files"])
async def test_a_folder_of_something_else_is_left_as_it_is(fed: Federation, tmp_path: Path, what: str) -> None:
    a, b = await fed.nodes("a", "b")
    out = tmp_path / "out"
    if what == "strange files":
        out.mkdir()
        (out / "letter").write_text("mine")
    else:
        await tracewire("ledger", "export", (b if what == "another ledger" else a).folder, out)
    if what == "another history":
        (out / "checkpoint").write_bytes(a.keys.note_signer(a.origin).sign(1, bytes(32), fed.clock.now()))
    before = files(out)
    refused = await tracewire("ledger", "export", a.folder, out)
    assert refused["code"] == ("ledger.split_view" if what == "another history" else "config.invalid")
    assert files(out) == before
    unknown = await tracewire("ledger", "export", a.folder, tmp_path / "new", "--origin", "testnet/a/2031.1")
    assert (unknown["code"], a.origin in unknown["detail"]) == ("config.invalid", True)
