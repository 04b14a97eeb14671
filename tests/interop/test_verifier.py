"""The independent verifier finds nothing wrong with our ledgers, and every kind of tampering by its own code."""

import json
import os
import pty
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from keys.notes import LedgerNoteSigner
from protocols.ledger.checkpoint import parse_checkpoint
from protocols.ledger.entry import REFUSED_CODES, UNDELIVERED_CODES, PeerRef, erases, parse_entry
from protocols.ledger.witness import format_request
from protocols.problems import ProblemError
from tests.fault.invariants import EVIDENCE, MATCH
from tests.fault.invariants import VERIFIER as verify
from tests.interop.conftest import DIR, Exchange, Ledger, digest

FILE = Path(__file__).parents[2] / "deploy" / "verifier" / "tracewire_verify.py"
PROGRAM = FILE.with_name("tracewire_match.py")
FOREIGN = Path(__file__).parents[2].parent / "shared" / "vectors" / "transparency-dev-tessera" / "testdata" / "log"
FOREIGN_VKEY = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"


def fails(code, call, *arguments, **options):
    with pytest.raises(verify.Failure) as caught:
        call(*arguments, **options)
    assert caught.value.code == code, caught.value
    return caught.value.detail


@pytest.fixture
def folder(busy, tmp_path):
    return busy.a.write(tmp_path / "a")


def _flip(path, at=-1):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def _write_both(exchange, tmp_path):
    shutil.rmtree(tmp_path, ignore_errors=True)
    return exchange.a.write(tmp_path / "a"), exchange.b.write(tmp_path / "b")


# --- one ledger


def test_a_ledger_of_ours_holds(folder, busy):
    log = verify.verify_log(folder, busy.a.signer.vkeys)
    assert (log.origin, log.size, log.signatures, log.own_keys) == (busy.a.origin, len(busy.a.entries), 2, False)
    assert log.kinds == {"admin": 42, "ledger-opened": 1, "receipt": 3, "sent": 300}
    assert log.older_checkpoints == len(busy.a.checkpoints)
    assert verify.verify_log(folder).own_keys


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 513])
def test_ledgers_of_every_shape_hold(new_ledger, tmp_path, size):
    ledger = new_ledger("test/br-pf")
    ledger.open()
    if size > 1:
        ledger.add(*(ledger.entry("admin", code=f"c{i}") for i in range(size - 1)))
    assert verify.verify_log(ledger.write(tmp_path)).size == size


def test_tiles_published_while_the_tree_was_smaller_are_compared_too(folder):
    whole = (folder / "tile/0/000").read_bytes()
    old = folder / "tile/0/000.p/7"
    old.parent.mkdir()
    old.write_bytes(whole[: 7 * 32])
    verify.verify_log(folder)
    _flip(old)
    assert "000.p/7" in fails("tile", verify.verify_log, folder)


def test_a_changed_byte_in_an_entry_is_another_root(folder):
    bundle = folder / "tile/entries/000"
    bundle.write_bytes(bundle.read_bytes().replace(b'"suite":"tw1"', b'"suite":"tw2"', 1))
    fails("root", verify.verify_log, folder)


def test_a_dropped_entry_is_a_short_bundle(folder, busy):
    bundle = folder / "tile/entries/000"
    data = bundle.read_bytes()
    cut = 2 + len(busy.a.entries[0])
    bundle.write_bytes(data[cut:])
    assert "255 entries" in fails("bundle", verify.verify_log, folder)
    bundle.write_bytes(data[:-1])
    fails("bundle", verify.verify_log, folder)


@pytest.mark.parametrize("name", ["tile/0/000", "tile/0/001.p/90", "tile/1/000.p/1"])
def test_a_changed_tile_is_found(folder, name):
    _flip(folder / name)
    assert name in fails("tile", verify.verify_log, folder)


def test_a_missing_tile_or_bundle_is_found(folder):
    (folder / "tile/0/000").unlink()
    fails("missing", verify.verify_log, folder)
    (folder / "tile/entries/000").unlink()
    fails("missing", verify.verify_log, folder)


def test_a_tile_past_the_signed_size_is_found(folder):
    (folder / "tile/0/002").write_bytes(b"")
    fails("tile", verify.verify_log, folder)


def test_a_checkpoint_of_another_key_is_found(folder, busy, new_ledger):
    other = new_ledger(busy.a.member, seed=2)
    forged = other.signer.sign(busy.a.edge.size, busy.a.edge.root(), busy.a.entry("admin").at)
    (folder / "checkpoint").write_bytes(forged)
    fails("signature", verify.verify_log, folder)
    mixed = forged.split(b"\n")[:5] + busy.a.checkpoints[busy.a.edge.size].split(b"\n")[5:]
    (folder / "checkpoint").write_bytes(b"\n".join(mixed))
    assert "0x01" in fails("signature", verify.verify_log, folder)


@pytest.mark.parametrize(("line", "named"), [(4, "0x01"), (5, "0x06")])
def test_both_signatures_are_needed_and_must_hold(folder, line, named):
    path = folder / "checkpoint"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(lines[:line] + lines[line + 1 :]))
    assert named in fails("signature", verify.verify_log, folder)
    broken = lines[line][:-8] + (b"AAAA" if lines[line][-8:-4] != b"AAAA" else b"BBBB") + lines[line][-4:]
    path.write_bytes(b"\n".join([*lines[:line], broken, *lines[line + 1 :]]))
    assert named in fails("signature", verify.verify_log, folder)


def test_keys_that_are_given_count_more_than_those_in_the_folder(folder, busy, new_ledger):
    other = new_ledger(busy.a.member, seed=2)
    fails("signature", verify.verify_log, folder, other.signer.vkeys)
    fails("key", verify.verify_log, folder, busy.a.signer.vkeys[:1])
    fails("key", verify.verify_log, folder, busy.b.signer.vkeys)
    fails("key", verify.verify_log, folder, ("x", "y"))


def test_an_extension_line_is_refused_since_one_signature_does_not_cover_it(folder):
    path = folder / "checkpoint"
    path.write_bytes(path.read_bytes().replace(b"\n\n", b"\nextension\n\n", 1))
    fails("note", verify.verify_log, folder)


def test_an_old_checkpoint_that_the_entries_do_not_give_is_found(folder, busy):
    forged = busy.a.signer.sign(77, bytes(32), busy.a.entry("admin").at)
    (folder / "checkpoints/77").write_bytes(forged)
    assert "size 77" in fails("consistency", verify.verify_log, folder)
    (folder / "checkpoints/77").write_bytes(busy.a.checkpoints[78])
    fails("consistency", verify.verify_log, folder)
    (folder / "checkpoints/77").unlink()
    (folder / "checkpoint.old").write_bytes(forged)
    fails("consistency", verify.verify_log, folder)
    (folder / "checkpoint.old").write_bytes(forged.replace(b"\n77\n", b"\n78\n"))
    fails("signature", verify.verify_log, folder)


def test_a_gap_in_pair_seq_is_found(exchange, tmp_path):
    exchange.sent(1, 1, exchange.a, exchange.b.member)
    exchange.sent(2, 3, exchange.a, exchange.b.member)
    assert "entry 2: pair_seq 3 where 2" in fails("order", verify.verify_log, exchange.a.write(tmp_path))


def test_a_message_sealed_again_repeats_its_number_and_any_other_repeats_none(exchange, tmp_path):
    a, b = exchange.a, exchange.b
    first = exchange.sent(1, 1, a, b.member)
    exchange.sent(1, 1, a, b.member, envelope=bytes(32), seal_kid="seal-2", peer=a.ref(first))
    exchange.sent(2, 2, a, b.member)
    exchange.sent(3, 1, a, "test/other")
    assert verify.verify_log(a.write(tmp_path / "good")).kinds["sent"] == 4
    exchange.sent(4, 2, a, b.member)
    fails("order", verify.verify_log, a.write(tmp_path / "bad"))


def test_the_first_entry_opens_the_ledger_and_the_last_closes_it(new_ledger, tmp_path):
    ledger = new_ledger("test/br-pf")
    ledger.add(ledger.entry("admin", code="test"))
    fails("order", verify.verify_log, ledger.write(tmp_path / "unopened"))
    ledger = new_ledger("test/br-pf")
    ledger.open()
    ledger.add(ledger.entry("ledger-closed", sender=ledger.member))
    verify.verify_log(ledger.write(tmp_path / "closed"))
    ledger.add(ledger.entry("admin", code="test"))
    fails("order", verify.verify_log, ledger.write(tmp_path / "reopened"))


def test_the_lowest_entry_that_is_wrong_is_named_though_more_is_gone(busy, tmp_path):
    folder = busy.a.write(tmp_path / "a")
    bundles = sorted(path for path in (folder / "tile/entries").rglob("*") if path.is_file())
    last = bundles[-1]
    last.unlink()
    with pytest.raises(verify.Failure) as caught:
        verify.verify_log(folder)
    assert (caught.value.code, caught.value.index) == ("missing", 256)
    entry = busy.a.entries[3]
    bundles[0].write_bytes(bundles[0].read_bytes().replace(entry, entry.replace(b'"suite":"tw1"', b'"suite":"tw2"')))
    with pytest.raises(verify.Failure) as caught:
        verify.verify_log(folder)
    assert caught.value.index == 3


def test_a_new_ledger_names_the_end_of_the_one_before_it_or_the_last_good_entry_of_an_abandoned_one(
    new_ledger, tmp_path
):
    former, others = new_ledger("test/br-pf"), new_ledger("test/us-atf")
    former.open()
    former.add(former.entry("admin", code="test"))
    others.open()
    good = PeerRef(origin=former.origin, size=2, root=former.edge.root())
    folders = {"abandoned": former.write(tmp_path / "abandoned"), "other": others.write(tmp_path / "other")}
    former.add(former.entry("ledger-closed", sender=former.member))
    end = PeerRef(origin=former.origin, size=3, root=former.edge.root())
    folders["closed"] = former.write(tmp_path / "closed")

    def following(peer: PeerRef | None, name: str) -> Path:
        ledger = Ledger("test/br-pf", seed=2)
        ledger.origin = "test/br-pf/2027.1"
        ledger.signer = LedgerNoteSigner(ledger.origin, digest("classic"), digest("quantum"))
        ledger.add(ledger.entry("ledger-opened", sender=ledger.member, dir=DIR, peer=peer))
        return ledger.write(tmp_path / name)

    after = following(end, "after")
    assert MATCH.follows(after, folders["closed"]).end == 3
    assert MATCH.follows(following(good, "rescued"), folders["abandoned"]).end == 2
    said = subprocess.run(
        [sys.executable, PROGRAM, after, folders["closed"], "--after"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, said.stdout.splitlines()[-1].endswith("ended at 3 entries: closed there")) == (0, True)
    lost = following(None, "lost")
    following(PeerRef(origin=former.origin, size=3, root=bytes(32)), "forged")
    for folder, before in (
        (tmp_path / "rescued", "closed"),
        (tmp_path / "forged", "closed"),
        (lost, "closed"),
        (after, "other"),
        (after, "abandoned"),
    ):
        fails("order", MATCH.follows, folder, folders[before])
    assert (
        json.loads(
            subprocess.run(
                [sys.executable, PROGRAM, lost, folders["closed"], "--after", "--json"],
                capture_output=True,
                check=False,
            ).stdout
        )["index"]
        == 0
    )


def _with(old, new):
    return lambda data: data.replace(old, new, 1)


@pytest.mark.parametrize(
    "change",
    [
        _with(b'"v":1,"kind":"sent"', b'"kind":"sent","v":1'),
        _with(b'"v":1', b'"v":1.0'),
        _with(b'"v":1', b'"v":2'),
        _with(b'"v":1,', b'"v": 1,'),
        _with(b'"v":1,', b'"v":1,"v":1,'),
        _with(b'"kind":"sent"', b'"kind":"sold"'),
        _with(b'"kind":"sent"', b'"kind":["sent"]'),
        _with(b'"suite":"tw1",', b""),
        _with(b'"suite":"tw1"', b'"suite":null'),
        _with(b'"suite":"tw1"', b'"suite":""'),
        _with(b'"suite":"tw1"', b'"suite":"tw\\u0031"'),
        _with(b'"suite":"tw1"', b'"suite":"\\u0000"'),
        _with(b'"suite":"tw1"', b'"suite":"\\ud800"'),
        _with(b'"suite":"tw1"', b'"suite":"' + b"x" * 257 + b'"'),
        _with(b'"suite":"tw1"', b'"suite":"\xff"'),
        _with(b'"suite":"tw1"', b'"suite":"tw1","extra":"x"'),
        _with(b'"pair_seq":1', b'"pair_seq":"1"'),
        _with(b'"pair_seq":1', b'"pair_seq":0'),
        _with(b'"pair_seq":1', b'"pair_seq":true'),
        _with(b'"at":"2026-11-22T', b'"at":"2026-13-22T'),
        _with(b'.000Z"', b'Z"'),
        _with(b"-7000-8000-", b"-4000-8000-"),
        _with(b'"version":3', b'"version":-3'),
        lambda data: data[:-3] + b'"}',  # 21 characters of 22
        lambda data: data[:-3] + b'B"}',  # 16 bytes and stray bits
        lambda data: data + b"\n",
        lambda data: b"[" * 2000,
    ],
)
def test_an_entry_that_is_not_to_the_byte_what_the_grammar_says_is_found(exchange, tmp_path, change):
    good = exchange.sent(1, 1, exchange.a, exchange.b.member)
    data = exchange.a.entries[good]
    assert verify.parse_entry(data)["kind"] == "sent"
    bad = change(data)
    assert bad != data
    exchange.a.add(bad)
    assert "entry 2" in fails("entry", verify.verify_log, exchange.a.write(tmp_path))


def test_texts_with_escapes_and_every_kind_of_entry_are_read(exchange, tmp_path):
    a = exchange.a
    a.add(a.entry("admin", code='"\\\n\x01é\u2028🔫'))
    a.add(a.entry("key", code="added", kid="kid-1"), a.entry("directory", dir=exchange.message(1, a, "x")["dir"]))
    assert sum(verify.verify_log(a.write(tmp_path)).kinds.values()) == 4


@pytest.mark.parametrize("kind", ["refused", "undelivered", "receipt"])
def test_both_readers_take_the_same_codes_and_no_other(exchange, kind):
    a, b = exchange.a, exchange.b
    members = exchange.message(1, a, b.member) | {"pair_seq": 1, "code": "expired"}
    if kind == "refused":
        refused = exchange.arrived(
            1, 1, exchange.sent(1, 1, a, b.member), a, b, kind="refused", code="msg.expired", read=True
        )
        data, first = b.entries[refused], b"msg.expired"
    elif kind == "undelivered":
        data, first = a.entry(kind, **members).encode(), b"expired"
    else:
        data, first = a.entries[exchange.receipt(1, 1, 0, a, b, code="msg.expired")], b"msg.expired"
    for code in sorted({*REFUSED_CODES, *UNDELIVERED_CODES, "msg.thread", "env.alg", "x"}):
        entry = data.replace(b'"code":"%s"' % first, b'"code":"%s"' % code.encode())
        allowed = code in (UNDELIVERED_CODES if kind == "undelivered" else REFUSED_CODES)
        for reader, refusal in ((verify.parse_entry, verify.Failure), (parse_entry, ProblemError)):
            with nullcontext() if allowed else pytest.raises(refusal):
                reader(entry)


def test_an_entry_of_another_member_has_no_place_here(exchange, tmp_path):
    sent = exchange.sent(1, 1, exchange.b, exchange.a.member)
    exchange.a.add(exchange.b.entries[sent])
    assert "from is not" in fails("entry", verify.verify_log, exchange.a.write(tmp_path))


def test_the_precise_cause_of_a_refusal_may_not_stand_in_a_ledger(exchange, tmp_path):
    sent = exchange.sent(1, 1, exchange.a, exchange.b.member)
    exchange.arrived(1, 1, sent, exchange.a, exchange.b, kind="refused", code="env.signature", read=True)
    fails("entry", verify.verify_log, exchange.b.write(tmp_path))


# --- two ledgers


def test_two_ledgers_match_and_every_message_is_counted_once(exchange, tmp_path):
    a, b = exchange.a, exchange.b
    exchange.whole(1, 1, a, b)
    exchange.whole(2, 1, b, a)
    refused = exchange.arrived(
        3, 2, exchange.sent(3, 2, a, b.member), a, b, kind="refused", code="env.invalid", read=True
    )
    exchange.receipt(3, 2, refused, a, b, code="env.invalid")
    exchange.sent(4, 3, a, b.member)
    exchange.arrived(5, 4, exchange.sent(5, 4, a, b.member), a, b)
    exchange.sent(6, 5, a, b.member)
    lost = exchange.message(6, a, b.member)
    a.add(a.entry("undelivered", **lost, pair_seq=5, code="expired"))
    exchange.sent(7, 1, a, "test/other")
    found = MATCH.match(*_write_both(exchange, tmp_path), (*a.signer.vkeys, *b.signer.vkeys))
    assert found.there == MATCH.Direction(
        sent=5, matched=2, unanswered=1, receipt_pending=1, undelivered=1, elsewhere=0, outside=0
    )
    assert found.back == MATCH.Direction(sent=1, matched=1, outside=0)
    assert found.other_peers == 1
    assert not found.a.own_keys
    again = MATCH.match(tmp_path / "a", tmp_path / "b", (*a.signer.vkeys, *b.signer.vkeys), at_once=5)
    assert again == found, "in parts as at once"


def test_a_receipt_after_undelivered_supersedes_it(exchange, tmp_path):
    a, b = exchange.a, exchange.b
    sent = exchange.sent(1, 1, a, b.member)
    arrived = exchange.arrived(1, 1, sent, a, b)
    a.add(a.entry("undelivered", **exchange.message(1, a, b.member), pair_seq=1, code="expired"))
    assert "given up by the one" in fails("mismatch", MATCH.match, *_write_both(exchange, tmp_path))
    exchange.receipt(1, 1, arrived, a, b)
    assert MATCH.match(*_write_both(exchange, tmp_path)).there.matched == 1


def test_swapped_receipts_are_found_and_both_indexes_named(exchange, tmp_path):
    a, b = exchange.a, exchange.b
    arrived = [exchange.arrived(n, n, exchange.sent(n, n, a, b.member), a, b) for n in (1, 2)]
    swapped = exchange.receipt(1, 1, arrived[1], a, b)
    detail = fails("mismatch", MATCH.match, *_write_both(exchange, tmp_path))
    assert f"{a.origin} entry {swapped} and {b.origin} entry {arrived[1]}" in detail


@pytest.mark.parametrize(
    "changes",
    [
        {"envelope": bytes(32)},
        {"content_c": bytes(32)},
        {"pair_seq": 7},
        {"code": "env.invalid"},
    ],
)
def test_a_receipt_that_says_other_than_the_entry_it_names_is_found(exchange, tmp_path, changes):
    a, b = exchange.a, exchange.b
    arrived = exchange.arrived(1, 1, exchange.sent(1, 1, a, b.member), a, b)
    exchange.receipt(1, 1, arrived, a, b, **changes)
    fails("mismatch", MATCH.match, *_write_both(exchange, tmp_path))


@pytest.mark.parametrize(
    "changes", [{"leaf": bytes(32)}, {"index": 0}, {"root": bytes(32)}, {"size": 2}, {"origin": "test/x/1"}]
)
@pytest.mark.parametrize("side", ["receipt", "received"])
def test_a_forged_reference_is_found(exchange, tmp_path, changes, side):
    a, b = exchange.a, exchange.b
    sent = exchange.sent(1, 1, a, b.member)
    sent = exchange.sent(2, 2, a, b.member)
    forged = {"peer": replace(a.ref(sent), **changes)} if side == "received" else {}
    arrived = exchange.arrived(2, 2, sent, a, b, **forged)
    b.add(b.entry("admin", code="test"))
    forged = {"peer": replace(b.ref(arrived), **changes)} if side == "receipt" else {}
    exchange.receipt(2, 2, arrived, a, b, **forged)
    fails("mismatch", MATCH.match, *_write_both(exchange, tmp_path))


def test_an_arrival_of_other_bytes_than_were_sent_is_found(exchange, tmp_path):
    a, b = exchange.a, exchange.b
    exchange.arrived(1, 1, exchange.sent(1, 1, a, b.member), a, b, content_c=bytes(32))
    assert "content_c" in fails("mismatch", MATCH.match, *_write_both(exchange, tmp_path))


def test_a_message_received_twice_or_receipted_twice_is_found(exchange, tmp_path):
    a, b = exchange.a, exchange.b
    sent, arrived, _ = exchange.whole(1, 1, a, b)
    exchange.receipt(1, 1, arrived, a, b)
    assert "second receipt" in fails("mismatch", MATCH.match, *_write_both(exchange, tmp_path / "1"))
    exchange.arrived(1, 1, sent, a, b)
    assert "twice" in fails("mismatch", MATCH.match, *_write_both(exchange, tmp_path / "2"))


def test_one_id_with_two_contents_is_found(exchange, tmp_path):
    a, b = exchange.a, exchange.b
    exchange.sent(1, 1, a, b.member)
    exchange.sent(1, 2, a, b.member, content_c=bytes(32))
    assert "two contents" in fails("mismatch", MATCH.match, *_write_both(exchange, tmp_path))


def test_a_ledger_that_lost_its_end_is_found_unless_it_is_only_the_older_export(exchange, tmp_path):
    a, b = exchange.a, exchange.b
    older = b.write(tmp_path / "older")
    exchange.whole(1, 1, a, b)
    newer = a.write(tmp_path / "newer")
    assert "entry 1" in fails("missing", MATCH.match, newer, older)
    assert MATCH.match(newer, older, live=True).there.elsewhere == 1
    other = MATCH.match(older, newer, live=True)
    assert (other.there.sent, other.back.elsewhere) == (0, 1)


def test_another_ledger_of_the_same_member_is_counted_and_not_judged(exchange, tmp_path):
    a, b = exchange.a, exchange.b
    last_year = replace(a.ref(0), origin=f"{a.member}/2025.1")
    exchange.arrived(1, 9, 0, a, b, peer=last_year)
    next_year = replace(b.ref(0), origin=f"{b.member}/2027.1")
    exchange.sent(2, 1, a, b.member)
    exchange.receipt(2, 1, 0, a, b, peer=next_year)
    found = MATCH.match(*_write_both(exchange, tmp_path)).there
    assert (found.outside, found.elsewhere, found.sent) == (1, 1, 1)


def test_all_that_does_not_fit_is_named_the_lowest_entry_first(exchange, tmp_path):
    a, b = exchange.a, exchange.b
    for n in range(1, 121):
        sent = exchange.sent(n, n, a, b.member)
        if n in (7, 3):
            exchange.arrived(n, n, sent, a, b, content_c=bytes(32))
    folders = _write_both(exchange, tmp_path)
    for at_once in (9, 999):
        with pytest.raises(verify.Failure) as caught:
            MATCH.match(*folders, at_once=at_once)
        found = caught.value
        assert (found.code, found.origin, found.index, len(found.also)) == ("mismatch", b.origin, 1, 1)
        assert "content_c differ" in found.detail
        assert f"{b.origin} entry 2 and {a.origin} entry 7" in found.also[0]
    said = _run(PROGRAM, *folders)
    assert [line[:13] for line in said.stdout.splitlines()] == ["FAIL mismatch"] * 2
    for n in range(121, 300):
        exchange.arrived(n, n, exchange.sent(n, n, a, b.member), a, b, content_c=bytes(32))
    assert _run(PROGRAM, *_write_both(exchange, tmp_path / "more")).stdout.splitlines()[-1] == "FAIL and 81 more"


def test_a_ledger_that_is_wrong_itself_is_named(exchange, tmp_path):
    one, other = _write_both(exchange, tmp_path)
    _flip(other / "tile/entries/000.p/1")
    assert fails("root", MATCH.match, one, other).startswith(f"{other.name}: ")


def test_a_ledger_does_not_match_itself(folder):
    fails("mismatch", MATCH.match, folder, folder)


# --- proofs


def test_every_proof_of_ours_holds_and_no_other_does(busy, tmp_path):
    file = tmp_path / "x.tlog-proof"
    for index in (0, 1, 255, 256, busy.a.edge.size - 1):
        file.write_bytes(busy.a.proof(index))
        proof = verify.verify_proof(file, busy.a.signer.vkeys)
        assert (proof.origin, proof.size, proof.index) == (busy.a.origin, busy.a.edge.size, index)
        assert proof.entry.encode() == busy.a.entries[index]
    lines = file.read_bytes().split(b"\n")
    for changed in (
        [*lines[:2], b"index 3", *lines[3:]],
        [*lines[:1], busy.b.proof(0).split(b"\n")[1], *lines[2:]],
        [*lines[:3], *lines[4:]],
        [*lines[:3], lines[3], *lines[3:]],
        [b"c2sp.org/tlog-proof@v2", *lines[1:]],
        [*lines[:1], *lines[2:]],
    ):
        file.write_bytes(b"\n".join(changed))
        fails("receipt", verify.verify_proof, file, busy.a.signer.vkeys)
    file.write_bytes(busy.a.proof(1))
    fails("key", verify.verify_proof, file, busy.b.signer.vkeys)
    file.write_bytes(busy.a.proof(1).replace(b"\n\n", b"\n\nx", 1))
    fails("key", verify.verify_proof, file, busy.a.signer.vkeys)


# --- the program and foreign logs


def _run(*arguments):
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_bar_is_shown_on_a_terminal_and_nowhere_else(folder):
    ours, theirs = pty.openpty()
    found = subprocess.run([sys.executable, FILE, "log", folder], stdout=subprocess.PIPE, stderr=theirs, check=True)
    size = verify.verify_log(folder).size
    first, last = os.read(ours, 4096).decode().split("\r\n")[:2]
    assert first.startswith("[####") and first.endswith(f"% of {size:,} entries") and "100%" in last
    assert (
        found.stdout.startswith(b"OK test/br-pf/2026.1 is signed: every signature")
        and not _run(FILE, "log", folder).stderr
    )


def test_the_program_works_alone_and_its_exit_codes_tell(busy, tmp_path):
    program = tmp_path / "elsewhere" / "verify.py"
    program.parent.mkdir()
    shutil.copy(FILE, program)
    shutil.copy(FILE, program.with_name(FILE.name))
    shutil.copy(PROGRAM, both := program.with_name("match.py"))
    a, b = busy.a.write(tmp_path / "a"), busy.b.write(tmp_path / "b")
    vkeys = [f"--vkey={key}" for key in busy.a.signer.vkeys]
    good = _run(program, "log", a, *vkeys, "--json")
    assert (good.returncode, json.loads(good.stdout)["kinds"]["sent"]) == (0, 300)
    matched = _run(both, a, b)
    assert matched.returncode == 0
    assert (
        "test/br-pf/2026.1 -> test/us-atf/2026.1: both say the same of every message: 300 sent, 3 matched"
        in matched.stdout
    )
    assert all(line.startswith("OK ") for line in matched.stdout.splitlines())
    file = tmp_path / "x.tlog-proof"
    file.write_bytes(busy.a.proof(5))
    proven = _run(program, "proof", file, *vkeys)
    assert (proven.returncode, proven.stdout.startswith("OK entry 5 of test/br-pf/2026.1 lies under")) == (0, True)
    _flip(a / "tile/0/000")
    bad = _run(program, "log", a)
    assert (bad.returncode, bad.stdout) == (1, "FAIL tile: tile/0/000 differs from the entries, first at entry 255\n")
    told = _run(program, "log", a, "--json")
    assert (told.returncode, json.loads(told.stdout)["code"], json.loads(told.stdout)["index"]) == (1, "tile", 255)
    assert [_run(program, *wrong).returncode for wrong in ([], ["log"], ["proof", file])] == [2, 2, 2]
    assert _run(both, a).returncode == 2


def test_a_ledger_cannot_write_lines_of_its_own_into_the_verdict(exchange, tmp_path):
    a, b = exchange.a, exchange.b
    forged = replace(a.ref(0), origin="test/x/1\nOK \x1b[2J")
    exchange.arrived(1, 1, 0, a, b, peer=forged)
    printed = _run(PROGRAM, *_write_both(exchange, tmp_path)).stdout
    assert (len(printed.splitlines()), "\x1b" in printed, printed[:13]) == (1, False, "FAIL mismatch")


def test_the_program_imports_nothing_of_ours_and_starts_at_once():
    listing = "import sys, runpy; runpy.run_path(sys.argv[1]); print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(_run("-c", listing, FILE).stdout.split())
    assert loaded.isdisjoint({"protocols", "keys", "adapters", "gateway", "pydantic", "aiohttp"})
    assert "cryptography" in loaded
    took = []
    for _ in range(5):
        start = time.perf_counter()
        assert _run(FILE, "--help").returncode == 0
        took.append(time.perf_counter() - start)
    assert min(took) < 0.5  # 0.15 s on an idle machine


@pytest.mark.skipif(not FOREIGN.is_dir(), reason=f"the foreign log is not here: {FOREIGN}")
def test_a_log_of_another_implementation_is_verified(tmp_path):
    log = verify.verify_log(FOREIGN, [FOREIGN_VKEY], signatures=1, entries="opaque")
    assert (log.size, log.signatures, log.older_checkpoints) == (15, 1, 16)
    fails("key", verify.verify_log, FOREIGN, [FOREIGN_VKEY], entries="opaque")
    copy = shutil.copytree(FOREIGN, tmp_path / "log")
    _flip(copy / "tile/entries/000.p/3")
    fails("bundle", verify.verify_log, copy, [FOREIGN_VKEY], signatures=1, entries="opaque")


@pytest.mark.parametrize(
    ("code", "authority", "erases_"),
    [
        ("content/COURT_ORDER/2027-01-15", True, True), ("content/COURT_ORDER/2027-01-15", False, False),
        ("content/DELETE_AFTER/2027-01-15", False, True), ("content/RETENTION_ENDED/2027-01-15", False, True),
        ("content/COURT_ORDER", True, False), ("content/", True, False), ("content//2027-01-15", True, False),
        ("persons/COURT_ORDER/2027-01-15", True, False), ("content/COURT_ORDER/soon", True, False),
    ],
)  # fmt: skip
def test_content_is_gone_by_an_entry_with_ground_day_and_authority_alone(exchange, code, authority, erases_):
    actor = {"actor_c": digest("actor")} if authority else {}
    entry = exchange.a.entry("erased", code=code, **actor)
    assert erases(entry) is EVIDENCE._erases(json.loads(entry.encode())) is erases_
    assert not erases(exchange.a.entry("admin", code=code))


def test_of_several_faults_the_lowest_entry_is_named(busy, tmp_path):
    busy.a.write(tmp_path)
    for name, at in (("tile/0/000", 32 * 200), ("tile/0/001.p", 0), ("tile/0/000", 32 * 5)):
        path = next(tmp_path.glob(f"{name}*")) if name.endswith("0") else next((tmp_path / name).iterdir())
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)
    with pytest.raises(verify.Failure) as caught:
        verify.verify_log(tmp_path, busy.a.signer.vkeys)
    assert caught.value.index == 5


def test_nobody_is_accused_by_hashes_of_another_length(tmp_path):
    a = Exchange().a
    for n in range(3):
        a.add(a.entry("admin", code=f"test {n}"))
    first, second, third, fourth = (sha256(b"\0" + each).digest() for each in a.entries)
    path = [third + fourth[:1], fourth[1:], sha256(b"\1" + first + second).digest()]  # the same bytes, cut elsewhere
    (tmp_path / "first").write_bytes(a.checkpoints[3])
    (tmp_path / "second").write_bytes(format_request(3, path, a.checkpoints[4]))
    fails("fork", verify.verify_fork, tmp_path / "first", tmp_path / "second", a.signer.vkeys)
    assert not EVIDENCE._consistent(3, 4, a_root(a, 3), a_root(a, 4), path)


def a_root(ledger, size):
    return parse_checkpoint(ledger.checkpoints[size]).root
