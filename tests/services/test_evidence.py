"""Evidence: what two nodes export convinces a machine that knows the network's root and nothing else."""

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from adapters.directory.evidence import directory_from_files
from adapters.postgres.threads import PostgresClients
from gateway.http.picture import evidence_page
from gateway.runtime.cli.client import make_client
from gateway.runtime.cli.main import app
from gateway.runtime.cli.member import Changes
from keys.suite import Tw1Verifier
from protocols.archive import pack, unpack
from protocols.evidence import MANIFEST, Report, write_evidence
from protocols.exchange.message import parse_jws, parse_message
from protocols.ledger.entry import DirRef, parse_entry
from protocols.ports.access import SCOPES, Caller
from protocols.problems import ProblemError
from protocols.strict import b64u, dump_json, parse_object
from protocols.verify import verify_evidence
from tests.federation import (
    ACKNOWLEDGEMENT,
    RESPONSE,
    Federation,
    Json,
    Node,
    admin,
    new_database,
    refused,
    unreachable,
)
from tests.http.wire import listening
from tests.services.erasing import erase, order

ROOT = Path(__file__).parents[2]
AUDITOR = Caller(client="test", actor="auditor", scopes=frozenset(("evidence:read",)), purpose="TRACING")
READER = Caller(client="test", actor="reader", scopes=frozenset(("evidence:read", "parts:read")), purpose="TRACING")
PARTS = {"persons": {"persons": [{"role": {"code": "POSSESSOR", "raw": ""}, "name": "Jane Canary"}]}}


async def evidence(node: Node, thread: Json, caller: Caller = AUDITOR, **asked: Any) -> bytes:
    return await node.parts.export.export(UUID(thread["thread"]), caller, **asked)


def check(data: bytes, root: bytes) -> Report:
    return verify_evidence(data, verifier=Tw1Verifier(), directory=partial(directory_from_files, root))


def wrong(data: bytes, root: bytes) -> ProblemError:
    with pytest.raises(ProblemError) as found:
        check(data, root)
    return found.value


def proven(report: Report, message: int) -> set[tuple[str, str, str]]:
    return {(f.kind, f.member.partition("/")[2], f.grade) for f in report.facts if f.message == message}


async def answered(fed: Federation, **request: Any) -> tuple[Node, Node, Json]:
    """Two nodes and a thread: request, acknowledgement, answer, all receipted."""
    a, b = await fed.nodes("a", "b")
    sent = await a.send(a.draft(b, **request))
    await a.becomes(sent, "delivered")
    for type_, body in (("trace.acknowledgement", ACKNOWLEDGEMENT), ("trace.response", RESPONSE)):
        await b.becomes(await b.send(b.reply(a, sent, type_, body)), "delivered")
    return a, b, sent


def forged(data: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """The file after a change by somebody who mends the manifest and the zip too."""
    files = unpack(data)
    change(files)
    manifest = parse_object(files[MANIFEST], bytes_max=1 << 24)
    rest = {name: content for name, content in files.items() if name != MANIFEST}
    manifest["files"] = {name: b64u(sha256(content).digest()) for name, content in rest.items()}
    return pack({MANIFEST: dump_json(manifest)} | rest)


async def test_both_sides_evidence_of_an_answered_thread_proves_every_step_with_the_root_alone(fed: Federation) -> None:
    a, b, sent = await answered(fed)
    for node in (a, b):
        report = check(await evidence(node, sent), fed.root)
        assert report.evidence.by == node.name
        assert len(report.evidence.messages) == 3
        assert all(report.chains.values()), "the checkpoints of each ledger are one history"
        assert set(report.chains) == {a.origin, b.origin}
        assert {("sent", "a", "witnessed"), ("received", "b", "witnessed")} <= proven(report, 1)
        grade = "witnessed" if node is b else "signed"  # nothing of b's came after it to a
        assert {("sent", "b", "witnessed"), ("received", "a", grade)} <= proven(report, 3)


async def test_a_refusal_is_proven_by_who_refused(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    (m,) = await fed.strangers("m")
    refusal = {"kind": "refused", "code": "msg.not_permitted", "read": True, "kid": None, "seal_kid": None,
               "suite": None, "thread_c": None}  # fmt: skip
    a.wire.hook = m.answering(lambda parcel: m.receipt(parcel, **refusal))
    sent = await a.trace(m)
    await a.becomes(sent, "refused")
    report = check(await evidence(a, sent), fed.root)
    (fact,) = (fact for fact in report.facts if fact.kind == "refused")
    assert (fact.member, fact.code, fact.grade) == (m.name, "msg.not_permitted", "witnessed")
    assert b"refused (msg.not_permitted)" in unpack(await evidence(a, sent))["summary.txt"]


async def test_a_message_that_nobody_answered_is_proven_as_sent_and_only_signed(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    a.wire.hook = unreachable
    report = check(await evidence(a, await a.trace(b)), fed.root)
    assert proven(report, 1) == {("sent", "a", "signed")}


async def test_it_verifies_in_a_fresh_process_and_folder_and_says_so(fed: Federation, tmp_path: Path) -> None:
    a, _, sent = await answered(fed)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "case.zip").write_bytes(data := await evidence(a, sent))
    (folder / "root.json").write_bytes(fed.root)

    def verify(file: str) -> "subprocess.CompletedProcess[str]":
        program = "from gateway.runtime.cli.main import main; main()"
        return subprocess.run(
            [sys.executable, "-c", program, "evidence", "verify", file, "--root", "root.json"], cwd=folder, text=True,
            capture_output=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    whole = verify("case.zip")
    assert (whole.returncode, whole.stderr) == (0, "")
    assert "received" in whole.stdout
    assert "witnessed by testnet/b" in whole.stdout
    (folder / "bad.zip").write_bytes(data.replace(b'"body"', b'"bodx"', 1))
    broken = verify("bad.zip")
    assert broken.returncode == 3
    assert "WRONG" in broken.stdout
    unzipped = subprocess.run(
        [sys.executable, "-m", "zipfile", "-t", "case.zip"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert "Done" in unzipped.stdout, "it is an ordinary zip"


async def test_any_byte_changed_is_named_with_its_file(fed: Federation) -> None:
    a, _, sent = await answered(fed)
    data = await evidence(a, sent, messages=frozenset())
    files = unpack(data)
    checked, at = 0, 0
    for name, content in files.items():
        at = data.index(content, data.index(name.encode(), at)) if content else at
        for offset in {0, len(content) // 2, len(content) - 1}:
            changed = bytearray(data)
            changed[at + offset] ^= 0x01
            assert wrong(bytes(changed), fed.root).detail.startswith(f"{name}: "), (name, offset)
            checked += 1
    assert checked >= 3 * len(files) - 3
    for at in range(0, len(data), 97):
        for bit in (0x01, 0x80):
            changed = bytearray(data)
            changed[at] ^= bit
            assert ": " in wrong(bytes(changed), fed.root).detail, at
    headers = range(len(data) - 22 - 200, len(data))
    for at in [*range(60), *headers]:
        changed = bytearray(data)
        changed[at] ^= 0x04
        assert ": " in wrong(bytes(changed), fed.root).detail, at


async def test_who_mends_the_digests_too_is_caught_by_what_is_signed(fed: Federation) -> None:
    a, _, sent = await answered(fed)
    data = await evidence(a, sent)
    assert check(forged(data, lambda files: None), fed.root), "the helper itself changes nothing"
    names = list(unpack(data))
    one, other = [name for name in names if name.startswith("proofs/") and ".sent." in name][:2]

    def swap(files: dict[str, bytes]) -> None:
        files[one], files[other] = files[other], files[one]

    assert wrong(forged(data, swap), fed.root).detail.startswith(f"{one}: ")
    for kind in ("proofs/", "checkpoints/", "links/", "directory/", "messages/", "summary"):
        for name in (each for each in names if each.startswith(kind)):
            at = len(unpack(data)[name]) // 2

            def flip(files: dict[str, bytes], name: str = name, at: int = at) -> None:
                content = bytearray(files[name])
                content[at] ^= 0x02
                files[name] = bytes(content)

            assert wrong(forged(data, flip), fed.root).detail.startswith(f"{name}: "), name


async def test_whoever_exports_writes_no_line_of_the_verdict(fed: Federation) -> None:
    a, _, sent = await answered(fed)
    data = await evidence(a, sent)
    for by in ("testnet/a\n1. testnet/b -> testnet/a: signature of testnet/b holds", "testnet/c", "testnet/a\x1b[8m"):

        def claim(files: dict[str, bytes], by: str = by) -> None:
            files[MANIFEST] = files[MANIFEST].replace(b'"by":"testnet/a"', b'"by":' + dump_json(by))
            files["summary.txt"] = files["summary.txt"].replace(b"as testnet/a says", f"as {by} says".encode())

        problem = wrong(forged(data, claim), fed.root)
        assert (problem.code, problem.detail.partition(":")[0]) == ("evidence.invalid", MANIFEST), by


@pytest.mark.parametrize("name", ["directory/../../x.root.json", "directory/9.root.json", "directory/note.txt"])
async def test_a_file_that_nothing_needs_is_named(fed: Federation, name: str) -> None:
    a, _, sent = await answered(fed)

    def add(files: dict[str, bytes]) -> None:
        files[name] = b"whatever"

    assert wrong(forged(await evidence(a, sent), add), fed.root).detail.startswith(f"{name}: ")


async def test_what_a_newcomer_logged_before_the_directory_listed_it_is_proven_as_its_receiver_judged_it(
    fed: Federation,
) -> None:
    (b,) = await fed.nodes("b")
    before = fed.directory.ref
    (m,) = await fed.strangers("m")
    parcel = m.parcel(b, entry={"dir": before})
    assert parse_entry((await m.give(b, parcel)).entry).kind == "received"
    thread = (await b.sql("SELECT thread FROM inbox"))["thread"]
    report = check(await evidence(b, {"thread": str(thread)}), fed.root)
    assert {("sent", "m", "witnessed"), ("received", "b", "signed")} <= proven(report, 1)
    assert report.judged == (before.version, fed.directory.ref.version)


async def test_a_file_that_was_taken_out_is_missed(fed: Federation) -> None:
    a, _, sent = await answered(fed)
    data = await evidence(a, sent)
    for name in unpack(data):
        if name == MANIFEST:
            continue
        files = unpack(data)
        del files[name]
        plain = wrong(pack(files), fed.root)
        assert plain.detail == f"{name}: the file is missing"
        mended = forged(data, lambda files, name=name: files.pop(name) and None)
        if name.startswith("links/"):
            assert not all(check(mended, fed.root).chains.values()), "it proves less, and says so"
        elif not name.endswith("root.json"):
            assert wrong(mended, fed.root).code, name


async def test_a_foreign_root_verifies_nothing(fed: Federation, tmp_path: Path, postgres: Any) -> None:
    a, _, sent = await answered(fed)
    (tmp_path / "other").mkdir()
    async with Federation(postgres, tmp_path / "other") as other:
        problem = wrong(await evidence(a, sent), other.root)
    assert problem.code == "dir.root_chain"
    assert problem.detail.startswith("directory/1.root.json")


async def test_a_message_of_another_thread_does_not_pass_as_one_of_this(fed: Federation) -> None:
    a, b, sent = await answered(fed)
    other = await a.trace(b, "OTHER1234")
    await a.becomes(other, "delivered")
    mine, theirs = [check(await evidence(a, thread), fed.root).evidence for thread in (sent, other)]
    mixed = replace(
        theirs, messages=(*theirs.messages, mine.messages[0]), notes={**mine.notes, **theirs.notes},
        directories=tuple(dict.fromkeys((*mine.directories, *theirs.directories))), tuf={**mine.tuf, **theirs.tuf},
        links={},
    )  # fmt: skip
    problem = wrong(write_evidence(mixed), fed.root)
    assert (problem.code, problem.detail.partition(":")[0]) == ("msg.correlation", "messages/0002.jws")
    exchanged = replace(theirs, messages=(replace(theirs.messages[0], jws=mine.messages[0].jws),))
    assert wrong(write_evidence(exchanged), fed.root).code == "env.content"


async def test_content_that_is_gone_leaves_proofs_that_hold(fed: Federation) -> None:
    a, _, sent = await answered(fed)
    await a.sql("DELETE FROM content WHERE id = $1 RETURNING id", UUID(sent["id"]))
    data = await evidence(a, sent)
    report = check(data, fed.root)
    assert [each.content for each in report.evidence.messages] == ["missing", "here", "here"], "nobody ordered it"
    assert ("received", "b", "witnessed") in proven(report, 1)
    bare = await evidence(a, sent, messages=frozenset())
    assert not [name for name in unpack(bare) if name.startswith("messages/")]
    assert b"ABC1234" not in bare
    assert check(bare, fed.root)


async def test_restricted_parts_are_left_out_unless_asked_for_by_who_may_and_then_noted(fed: Federation) -> None:
    a, _, sent = await answered(fed, parts=PARTS)
    assert not [name for name in unpack(await evidence(a, sent)) if name.endswith(".part")]
    assert [entry.code for entry in await a.entries() if entry.kind == "opened"] == ["evidence/TRACING"] * 3
    await refused("auth.scope", evidence(a, sent, parts=["yes"]))
    data = await evidence(a, sent, READER, parts=["yes"])
    assert "messages/0001.persons.part" in unpack(data)
    assert [entry.code for entry in await a.entries() if entry.kind == "opened"].count("persons/TRACING") == 1
    assert "opened" not in [kind for kind, *_ in proven(check(data, fed.root), 1)], "who looked is no part of the proof"

    def other_key(files: dict[str, bytes]) -> None:
        content = files["messages/0001.persons.part"]
        files["messages/0001.persons.part"] = bytes([content[0] ^ 1]) + content[1:]

    problem = wrong(forged(data, other_key), fed.root)
    assert (problem.code, problem.detail.partition(":")[0]) == ("env.parts", "messages/0001.persons.part")


async def test_a_thread_under_two_directory_versions_carries_both(fed: Federation, tmp_path: Path) -> None:
    a, b = await fed.nodes("a", "b")
    sent = await a.trace(b)
    await a.becomes(sent, "delivered")
    await fed.strangers("m")
    await b.becomes(await b.send(b.reply(a, sent, "trace.response", RESPONSE)), "delivered")
    report = check(await evidence(a, sent), fed.root)
    assert len(report.evidence.directories) == 2
    for kept in report.evidence.directories:
        tuf = await a._ports.directory.files(kept, (a.name, b.name))
        data = write_evidence(replace(report.evidence, directories=(kept,), tuf=tuf))
        assert wrong(data, fed.root).detail.endswith("the directory version that the entry names is not here")
        assert alone(data, fed.root, tmp_path)["code"] == "directory"


async def test_a_version_of_the_directory_that_is_shown_as_another_is_refused(fed: Federation, tmp_path: Path) -> None:
    a, _, sent = await answered(fed)
    report = check(await evidence(a, sent), fed.root)
    (ref,) = report.evidence.directories
    later = DirRef(version=ref.version + 5, sha256=ref.sha256)
    tuf = {**report.evidence.tuf, f"{later.version}.snapshot.json": report.evidence.tuf[f"{ref.version}.snapshot.json"]}
    data = write_evidence(replace(report.evidence, directories=(ref, later), tuf=tuf))
    assert wrong(data, fed.root).code == "dir.invalid"
    assert alone(data, fed.root, tmp_path)["code"] == "directory"


async def test_evidence_is_not_opened_where_it_cannot_be_proven(fed: Federation) -> None:
    a, _, sent = await answered(fed)

    class Forgetful:
        """A directory that kept no former version."""

        current = fed.directory

        async def files(self, ref: DirRef, members: Any) -> dict[str, bytes]:
            return {}

    a.wraps.append(lambda ports: setattr(ports.directory, "files", Forgetful().files))
    await a.restart()
    await refused("proof.missing", evidence(a, sent))
    assert "opened" not in await a.kinds()


async def test_a_peer_out_of_reach_leaves_its_checkpoints_signed_but_not_one_history(fed: Federation) -> None:
    a, b, sent = await answered(fed)
    await b.stop()
    report = check(await evidence(a, sent), fed.root)
    assert report.chains == {a.origin: True, b.origin: False}


async def test_the_command_takes_it_out_over_the_interface_and_overwrites_nothing(
    fed: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, _, sent = await answered(fed)
    await make_client(a.folder, PostgresClients(a.pool), "local", ["local"], list(SCOPES))
    await make_client(a.folder, PostgresClients(a.pool), "reader", ["local"], ["trace:read", "parts:read"])
    host, _, port = a.settings.agency_bind.rpartition(":")
    file, root = tmp_path / "case.zip", a.folder / "root.json"

    async def run(*tokens: object) -> int:
        def call() -> int:
            try:
                return int(app([str(token) for token in ("evidence", *tokens)]) or 0)
            except SystemExit as end:
                return int(end.code or 0)

        return await asyncio.to_thread(call)

    async with listening(a.parts.listeners["agency"], at=socket.create_server((host, int(port)))):
        assert await run("export", a.folder, sent["thread"], file) == 0
        assert await run("export", a.folder, sent["thread"], file) == 1, "it is there"
        assert await run("export", a.folder, sent["thread"], tmp_path / "x.zip", "--client", "reader") == 1
        assert await run("export", a.folder, sent["id"], tmp_path / "x.zip") == 1, "no such thread"
        assert await run("export", a.folder, sent["thread"], tmp_path / "bare.zip", "--no-content", "--json") == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "x.zip").exists()
    for each in (file, tmp_path / "bare.zip"):
        assert await run("verify", each, "--root", root, "--json") == 0
    shown = capsys.readouterr()
    assert '"grade": "witnessed"' in shown.out
    assert "auth.scope" in shown.err
    assert "thread.not_found" in shown.err


def test_a_missing_file_is_named_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        app(["evidence", "verify", str(tmp_path / "no.zip"), "--root", str(tmp_path / "root.json")])
    assert end.value.code == 1
    assert "config.invalid" in capsys.readouterr().err


async def test_who_cosigned_a_checkpoint_witnesses_what_lies_under_it_and_only_who_really_did(fed: Federation) -> None:
    a, b, c = await fed.nodes("a", "b", "c")
    a.wire.hook = unreachable
    sent = await a.trace(b)
    a.wire.hook = None
    assert await a.parts.witness.collect() == 2
    later = await a.trace(c)  # the ledger grew: the next entry of the thread is under a newer checkpoint
    await a.becomes(later, "delivered")
    data = await evidence(a, sent)
    (fact,) = (fact for fact in check(data, fed.root).facts if fact.kind == "sent")
    assert (fact.grade, fact.witnesses) == ("witnessed", (b.name, c.name))
    assert b"witnessed by testnet/b, testnet/c" in unpack(data)["summary.txt"]
    name = next(name for name, note in unpack(data).items() if name.startswith("checkpoints/") and b"testnet/c" in note)
    lines = unpack(data)[name].splitlines(keepends=True)
    mine = [line for line in lines if line.startswith("— testnet/c ".encode())]
    assert len(mine) == 2

    def changed(note: bytes) -> bytes:
        def change(files: dict[str, bytes]) -> None:
            files[name] = note
            for each in [each for each in files if each.startswith("proofs/0001/testnet/a/")]:
                files[each] = files[each].partition(b"\n\n")[0] + b"\n\n" + note

        return forged(data, change)

    whole = b"".join(lines)
    broken = mine[0][:40] + (b"A" if mine[0][40:41] != b"A" else b"B") + mine[0][41:]
    for note in (
        whole.replace(mine[0], b""),
        whole.replace(mine[0], broken),
        whole.replace("— testnet/c ".encode(), "— testnet/d ".encode()),
    ):
        problem = wrong(changed(note), fed.root)
        assert (problem.code, problem.detail.partition(":")[0]) == ("proof.policy", name)


async def test_lines_that_a_peer_adds_to_its_checkpoint_spoil_nothing_and_witness_nothing(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    (m,) = await fed.strangers("m")
    real = m.note

    def more(size: int | None = None) -> bytes:
        return real(size) + "— testnet/a AAAAAAAA\n".encode()

    m.note = more  # type: ignore[method-assign]
    a.wire.hook = m.answering(m.receipt)
    sent = await a.trace(m)
    await a.becomes(sent, "delivered")
    assert any(b"testnet/a AAAA" in row["note"] for row in await a.rows("SELECT note FROM peer_checkpoint"))
    report = check(await evidence(a, sent), fed.root)
    assert {fact.witnesses for fact in report.facts if fact.member == m.name} <= {(a.name,)}


async def test_chosen_openings_leave_the_rest_as_digests_with_every_proof(fed: Federation) -> None:
    a, _, sent = await answered(fed, parts=PARTS)
    first = UUID(sent["id"])
    data = await evidence(a, sent, READER, messages=[first], parts=["persons"])
    report = check(data, fed.root)
    assert [each.content for each in report.evidence.messages] == ["here", "left out", "left out"]
    assert list(report.evidence.messages[0].parts) == ["persons"]
    other = check(await evidence(a, sent, READER, messages=[], parts=["last_legal_holder"]), fed.root).evidence
    assert [(each.content, len(each.parts)) for each in other.messages] == [("left out", 0)] * 3
    assert {kind for kind, *_ in proven(report, 3)} == {"sent", "received"}, "the proofs are all there"
    looks = [(entry.code, entry.id) for entry in await a.entries() if entry.kind == "opened"]
    assert looks == [("evidence/TRACING", first), ("persons/TRACING", first)]


@pytest.mark.parametrize(("at", "value"), [(6, 1), (4, 99)], ids=["encrypted", "of another version"])
async def test_a_zip_that_python_cannot_read_is_a_failure_and_no_traceback(
    fed: Federation, tmp_path: Path, at: int, value: int
) -> None:
    a, _, sent = await answered(fed)
    data = bytearray(await evidence(a, sent))
    for head, field in ((b"PK\3\4", at), (b"PK\1\2", at + 2)):
        data[data.index(head) + field] = value
    assert alone(bytes(data), fed.root, tmp_path)["code"] == "evidence"


async def test_a_verified_file_is_a_page_for_print(fed: Federation) -> None:
    a, _, sent = await answered(fed)
    data = await evidence(a, sent)
    page = evidence_page(check(data, fed.root), data, fed.root, fed.clock.now())
    assert page.count("<section aria-label=") == 3
    for said in ("ABC1234", sha256(data).hexdigest(), "witnessed by testnet/b", "one history", "<style>"):
        assert said in page
    assert "<script" not in page


# ---- the independent verifier says the same


def alone(data: bytes, root: bytes, folder: Path) -> Json:
    """What the program that knows nothing of ours says of a file."""
    (folder / "case.zip").write_bytes(data)
    (folder / "root.json").write_bytes(root)
    command = [sys.executable, "-I", str(ROOT / "deploy/verifier"), "evidence"]  # as the zipapp runs it
    done = subprocess.run(
        [*command, str(folder / "case.zip"), "--root", str(folder / "root.json"), "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    found: Json = json.loads(done.stdout)
    assert found["ok"] == (done.returncode == 0)
    return found


async def test_the_independent_verifier_proves_the_same_of_the_same_files(fed: Federation, tmp_path: Path) -> None:
    a, b, sent = await answered(fed, parts=PARTS)
    await a.parts.witness.collect()
    files = [await evidence(node, sent, READER, parts=["yes"]) for node in (a, b)]
    files.append(await evidence(a, sent, messages=frozenset()))
    await erase(b, order(sent, sent))
    files.append(await evidence(b, sent))
    for data in files:
        ours, theirs = check(data, fed.root), alone(data, fed.root, tmp_path)
        assert theirs["ok"], theirs
        assert [each["content"] for each in theirs["messages"]] == [each.content for each in ours.evidence.messages]
        proven = {
            (f["message"], p["kind"], p["origin"], p["index"], tuple(p["witnesses"]))
            for f in theirs["messages"]
            for p in f["proven"]
        }
        assert proven == {(f.message, f.kind, f.origin, f.index, f.witnesses) for f in ours.facts}
        assert theirs["one_history"] == dict(ours.chains)
        said = [
            parse_message(parse_jws(each.jws).payload).body if each.jws else None for each in ours.evidence.messages
        ]
        assert [each["body"] for each in theirs["messages"]] == said


async def test_the_independent_verifier_refuses_what_ours_refuses(fed: Federation, tmp_path: Path) -> None:
    a, _, sent = await answered(fed, parts=PARTS)
    await a.parts.witness.collect()
    data = await evidence(a, sent, READER, parts=["yes"])
    assert alone(data, fed.root, tmp_path)["ok"]
    (tmp_path / "other").mkdir()
    assert alone(data, a.keys.note_signer(a.origin).vkeys[0].encode(), tmp_path)["code"] == "evidence", "no root"
    kinds = set()
    for name, content in unpack(data).items():
        if name in (MANIFEST, "summary.txt"):
            continue
        kind = re.sub(r"[0-9a-f]{8,}|\d+", "N", name)
        if kind in kinds and not name.startswith("links/"):
            continue
        kinds.add(kind)
        at = content.rindex(b'"sig"') + 12 if b'"sig"' in content else len(content) // 2
        byte = next(bytes([c]) for c in b"07Aa" if c != content[at])
        lie = content[:at] + byte + content[at + 1 :]
        broken = forged(data, lambda files, name=name, lie=lie: files.update({name: lie}))  # type: ignore[misc]
        assert agree(broken, fed.root, tmp_path), name
    for name in [each for each in unpack(data) if each.startswith(("messages/", "directory/", "checkpoints/"))][:12]:
        less = forged(data, lambda files, name=name: files.pop(name))  # type: ignore[misc,arg-type]
        assert agree(less, fed.root, tmp_path), name
    arrived = next(each for each in unpack(data) if each.endswith(".received.tlog-proof"))
    found = alone(forged(data, lambda files: files.pop(arrived) and None), fed.root, tmp_path)
    assert (found["code"], found["origin"], found["index"] > 0) == ("mismatch", a.origin, True), (
        "whose receipt names it"
    )
    assert not alone(data[: len(data) // 2], fed.root, tmp_path)["ok"]


def agree(data: bytes, root: bytes, folder: Path) -> bool:
    """Whether both take the file, or neither does."""
    try:
        check(data, root)
    except ProblemError:
        return not alone(data, root, folder)["ok"]
    return bool(alone(data, root, folder)["ok"])


async def test_an_old_thread_is_witnessed_by_who_came_or_changed_its_keys_since(
    fed: Federation, tmp_path: Path
) -> None:
    a, b, sent = await answered(fed)
    assert await a.parts.witness.collect() == 1
    b.keys.add("witness")
    await fed.publish(b.ask())
    await b.follow_keys()

    async def witnesses() -> set[str]:
        data = await evidence(a, sent)
        said = alone(data, fed.root, tmp_path)
        assert said["ok"], said
        return {name for fact in check(data, fed.root).facts for name in fact.witnesses if fact.member == a.name}

    assert b.name in await witnesses(), "its entries name ours; what it signed under its former keys is left out"
    (c,) = await fed.nodes("c")
    assert await a.parts.witness.collect() == 2, "the former keys are asked to give way too, at the same size"
    assert await witnesses() == {b.name, c.name}


async def test_evidence_outlives_its_keys_its_content_its_ledger_and_its_node(fed: Federation, tmp_path: Path) -> None:
    a, b, sent = await answered(fed, parts=PARTS)
    assert await a.parts.witness.collect() == await b.parts.witness.collect() == 1
    data = await evidence(a, sent, READER, parts=["yes"])

    def holds(data: bytes, contents: set[str]) -> None:
        report, said = check(data, fed.root), alone(data, fed.root, tmp_path)
        assert {each.content for each in report.evidence.messages} == contents
        assert said["ok"], said
        assert {fact.grade for fact in report.facts if fact.witnesses} == {"witnessed"}

    holds(data, {"here"})
    for node in (a, b):
        for use in ("message", "seal", "request"):
            node.keys.add(use)  # type: ignore[arg-type]
    await fed.publish(a.ask(), b.ask())
    for node in (a, b):
        assert len(await node.follow_keys()) == 3
    await erase(a, order(sent))
    await erase(b, order(sent))
    holds(data, {"here"})
    await a.stop()
    former, end = a.origin, await a.sql("SELECT size, root FROM ledger_head")
    a.origin = f"{a.name}/2026.2"
    a.keys.add("ledger", origin=a.origin)
    await a.found()
    closed = {former: {"origin": former, "size": end["size"], "root": b64u(end["root"])}}
    await fed.publish(a.ask(Changes(closed=closed)))
    await a.start()
    await a.becomes(await a.trace(b), "delivered")
    holds(data, {"here"})
    holds(await evidence(a, sent), {"erased"})  # made after all that, it proves what is left
    await a.stop()
    async with admin(fed.server) as connection:
        await connection.execute(f'DROP DATABASE "{a.database}" WITH (FORCE)')
    a.own_database = await new_database(fed.server)  # what a test gives back is used again
    shutil.rmtree(a.folder)
    holds(data, {"here"})
