"""`tracewire audit reconcile`: every way in which two ledgers can contradict each other is named, and what is on its way is not."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from gateway.runtime.cli.main import app
from keys.suite import Tw1Verifier
from protocols.ledger.checkpoint import LedgerKeys
from protocols.ledger.proof import parse_proof
from protocols.ledger.reconcile import Difference, Direction, Side, reconcile
from tests.fault.invariants import MATCH
from tests.interop.conftest import START, Exchange, Ledger, digest
from tests.runtime.test_serving import web_server


def compared(exchange: Exchange) -> tuple[list[Direction], list[Difference]]:
    a, b = exchange.a, exchange.b

    def part(n: int, of: int) -> tuple[Side, Side]:
        return Side(a.origin, b.member, n, of).read(a.entries), Side(b.origin, a.member, n, of).read(b.entries)

    whole = reconcile([part(0, 1)])
    assert reconcile(part(n, 3) for n in range(3)) == whole, "in parts as at once"
    return whole


def end(exchange: Exchange, number: int, seq: int, sender: Ledger, receiver: Ledger) -> int:
    """`undelivered`."""
    members = exchange.message(number, sender, receiver.member) | {"pair_seq": seq, "code": "expired"}
    return sender.add(sender.entry("undelivered", **members))


def test_ledgers_that_agree_are_counted_and_what_is_on_its_way_is_no_difference(exchange: Exchange) -> None:
    a, b = exchange.a, exchange.b
    for n in range(1, 4):
        exchange.whole(n, n, a, b)
    exchange.whole(11, 1, b, a)
    sent = exchange.sent(4, 4, a, b.member)
    exchange.arrived(4, 4, sent, a, b)
    exchange.sent(5, 5, a, b.member)
    exchange.sent(6, 6, a, b.member)
    end(exchange, 6, 6, a, b)
    exchange.sent(7, 1, a, "test/other")
    (there, back), found = compared(exchange)
    assert found == []
    assert (there.sent, there.receipted, there.pending, there.unanswered, there.undelivered) == (6, 3, 1, 1, 1)
    assert (back.sent, back.receipted, back.sender) == (1, 1, b.member)
    assert there.took_s is not None
    assert there.took_s[0] <= there.took_s[1] <= there.took_s[2]


def test_a_refusal_is_a_receipt_of_its_code(exchange: Exchange) -> None:
    a, b = exchange.a, exchange.b
    sent = exchange.sent(1, 1, a, b.member)
    arrived = exchange.arrived(1, 1, sent, a, b, kind="refused", code="msg.expired", read=True)
    exchange.receipt(1, 1, arrived, a, b, code="msg.expired")
    (there, _), found = compared(exchange)
    assert (found, there.refused, there.receipted) == ([], 1, 0)


def test_each_number_that_is_missing_is_named(exchange: Exchange) -> None:
    for number in (2, 5, 6, 8):
        exchange.whole(number, number, exchange.a, exchange.b)
    _, found = compared(exchange)
    assert [each.kind for each in found] == ["sequence.gap"] * 3
    assert [exchange.a.entries[each.index or 0].split(b'"pair_seq":')[1][:1] for each in found] == [b"2", b"5", b"8"]


def test_more_than_can_be_named_is_counted(exchange: Exchange) -> None:
    a, b = exchange.a, exchange.b
    for n in range(1, 6):
        exchange.sent(n, 2 * n, a, b.member)
    sides = Side(a.origin, b.member).read(a.entries), Side(b.origin, a.member).read(b.entries)
    (there, back), found = reconcile([sides], most=2)
    assert (len(found), there.unnamed, back.unnamed) == (2, 3, 0)


def test_files_that_were_taken_out_earlier_are_not_held_against_anybody(exchange: Exchange) -> None:
    a, b = exchange.a, exchange.b
    exchange.whole(1, 1, a, b)
    short = list(b.entries)
    exchange.whole(2, 2, a, b)
    exchange.whole(3, 1, b, a)
    b.entries = short
    (there, back), found = compared(exchange)
    assert found == []
    assert (there.sent, there.later, back.later) == (2, 1, 1)


def test_an_end_that_was_cut_is_a_difference_where_nothing_may_be_past_it(
    exchange: Exchange, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = exchange.a, exchange.b
    exchange.whole(1, 1, a, b)
    backup = a.write(tmp_path / "backup")
    exchange.whole(2, 2, a, b)
    now = b.write(tmp_path / "now")
    assert run("audit", "reconcile", backup, now) == 3
    said = capsys.readouterr().out
    assert "DIFFERS entry.past: test/us-atf entry" in said
    assert run("audit", "reconcile", now, backup) == 3
    assert run("audit", "reconcile", backup, now, "--live") == 0
    assert "The two ledgers agree as far as they go." in capsys.readouterr().out


def test_what_another_year_has_is_counted_and_no_difference(exchange: Exchange) -> None:
    a, b = exchange.a, exchange.b
    former = Ledger("test/br-pf", seed=9)
    former.origin = "test/br-pf/2025.1"
    former.open()
    sent = exchange.sent(1, 1, former, b.member)
    arrived = exchange.arrived(1, 1, sent, former, b)
    exchange.receipt(1, 1, arrived, a, b)
    end(exchange, 9, 9, a, b)
    exchange.whole(2, 1, a, b)
    (there, _), found = compared(exchange)
    assert found == []
    assert (there.sent, there.receipted, there.elsewhere) == (1, 1, 3)


@dataclass(frozen=True)
class Lie:
    """Something that one of the two says and the other does not bear out."""

    kind: str
    tell: Callable[[Exchange], Any]
    liar: str = "a"


def _phantom(x: Exchange) -> None:
    sent = x.sent(1, 1, x.a, "test/other")
    x.arrived(1, 1, sent, x.a, x.b)


def _other_bytes(x: Exchange) -> None:
    sent = x.sent(1, 1, x.a, x.b.member)
    x.arrived(1, 1, sent, x.a, x.b, envelope=digest("another"))


def _other_content(x: Exchange) -> None:
    sent = x.sent(1, 1, x.a, x.b.member)
    x.arrived(1, 1, sent, x.a, x.b, content_c=digest("another"))


def _other_thread(x: Exchange) -> None:
    sent = x.sent(1, 1, x.a, x.b.member)
    x.arrived(1, 1, sent, x.a, x.b, thread_c=digest("another"))


def _other_key(x: Exchange) -> None:
    sent = x.sent(1, 1, x.a, x.b.member)
    x.arrived(1, 1, sent, x.a, x.b, kid="another")


def _invented_receipt(x: Exchange) -> None:
    x.sent(1, 1, x.a, x.b.member)
    x.receipt(1, 1, 0, x.a, x.b)


def _receipt_of_another(x: Exchange) -> None:
    first, second = (x.sent(n, n, x.a, x.b.member) for n in (1, 2))
    arrived = x.arrived(1, 1, first, x.a, x.b)
    x.arrived(2, 2, second, x.a, x.b)
    x.receipt(2, 2, arrived, x.a, x.b)


def _milder_code(x: Exchange) -> None:
    sent = x.sent(1, 1, x.a, x.b.member)
    arrived = x.arrived(1, 1, sent, x.a, x.b, kind="refused", code="msg.expired", read=True)
    x.receipt(1, 1, arrived, x.a, x.b, code="env.invalid")


def _twice(x: Exchange) -> None:
    _, arrived, _ = x.whole(1, 1, x.a, x.b)
    x.receipt(1, 1, arrived, x.a, x.b)


def _received_twice(x: Exchange) -> None:
    sent = x.sent(1, 1, x.a, x.b.member)
    x.arrived(1, 1, sent, x.a, x.b)
    x.arrived(1, 1, sent, x.a, x.b)


def _one_id_two_contents(x: Exchange) -> None:
    x.sent(1, 1, x.a, x.b.member)
    x.sent(1, 1, x.a, x.b.member, content_c=digest("another"))


def _one_number_twice(x: Exchange) -> None:
    x.sent(1, 1, x.a, x.b.member)
    x.sent(2, 1, x.a, x.b.member)


def _receipt_of_other_bytes(x: Exchange) -> None:
    sent = x.sent(1, 1, x.a, x.b.member)
    arrived = x.arrived(1, 1, sent, x.a, x.b)
    x.receipt(1, 1, arrived, x.a, x.b, envelope=digest("another"))


def _another_tree(x: Exchange) -> None:
    sent = x.sent(1, 1, x.a, x.b.member)
    x.arrived(1, 1, sent, x.a, x.b, peer=replace(x.a.ref(sent), root=digest("fork")))


def _given_up(x: Exchange) -> None:
    sent = x.sent(1, 1, x.a, x.b.member)
    x.arrived(1, 1, sent, x.a, x.b)
    end(x, 1, 1, x.a, x.b)


def _kept_silent(x: Exchange) -> None:
    x.sent(1, 1, x.a, x.b.member)
    arrived = x.arrived(2, 2, x.sent(2, 2, x.a, x.b.member), x.a, x.b)
    x.receipt(2, 2, arrived, x.a, x.b, at=START + timedelta(days=91))


def _left_out(x: Exchange) -> None:
    x.whole(1, 1, x.a, x.b)
    x.whole(3, 3, x.a, x.b)


def _clock(x: Exchange) -> None:
    sent = x.sent(1, 1, x.a, x.b.member)
    x.arrived(1, 1, sent, x.a, x.b, at=START - timedelta(minutes=3))


LIES = [
    Lie("arrival.unsent", _phantom, "b"), Lie("arrival.unsent", _other_bytes, "b"), Lie("arrival.content", _other_content, "b"),
    Lie("arrival.content", _other_thread, "b"), Lie("arrival.content", _other_key, "b"),
    Lie("receipt.unfounded", _invented_receipt), Lie("receipt.unfounded", _receipt_of_another), Lie("receipt.code", _milder_code),
    Lie("receipt.twice", _twice), Lie("received.twice", _received_twice, "b"), Lie("sent.content", _one_id_two_contents), Lie("sequence.gap", _one_number_twice),
    Lie("receipt.unfounded", _receipt_of_other_bytes), Lie("tree.other", _another_tree, "b"), Lie("undelivered.arrived", _given_up),
    Lie("sequence.gap", _left_out), Lie("clock.skew", _clock), Lie("sent.unended", _kept_silent),
]  # fmt: skip


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: f"{lie.kind}-{lie.tell.__name__.strip('_')}")
def test_every_contradiction_is_named_with_its_entry(exchange: Exchange, lie: Lie) -> None:
    lie.tell(exchange)
    _, found = compared(exchange)
    assert [each.kind for each in found] == [lie.kind]
    liar = exchange.a if lie.liar == "a" else exchange.b
    assert found[0].member == liar.member
    assert found[0].index is not None
    assert found[0].index < len(liar.entries)
    if lie.kind in ("receipt.twice", "received.twice", "sent.content") or lie.tell is _one_number_twice:
        assert found[0].first is not None, "the entry that it contradicts is proven too"
        assert found[0].first < found[0].index


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: f"{lie.kind}-{lie.tell.__name__.strip('_')}")
def test_the_independent_verifier_finds_every_contradiction_too(exchange: Exchange, tmp_path: Path, lie: Lie) -> None:
    lie.tell(exchange)
    with pytest.raises(MATCH.Failure) as found:
        MATCH.match(exchange.a.write(tmp_path / "a"), exchange.b.write(tmp_path / "b"))
    assert found.value.code in ("mismatch", "order")


def run(*tokens: object) -> int:
    try:
        return int(app([str(token) for token in tokens]) or 0)
    except SystemExit as ended:
        return int(ended.code or 0)


def test_the_command_says_it_in_words_and_hands_out_proofs(
    exchange: Exchange, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = exchange.a, exchange.b
    exchange.whole(1, 1, a, b)
    folders = [ledger.write(tmp_path / name) for name, ledger in (("a", a), ("b", b))]
    assert run("audit", "reconcile", *folders) == 0
    assert "The two ledgers agree." in capsys.readouterr().out
    exchange.sent(2, 2, a, b.member)
    exchange.receipt(2, 2, 0, a, b)
    a.write(folders[0])
    assert run("audit", "reconcile", *folders) == 3
    out = capsys.readouterr().out
    assert (
        "DIFFERS receipt.unfounded: test/br-pf entry 4, the other's entry 0: it holds a receipt that does not stand"
        in out
    )
    vkeys = [f"--vkey={key}" for ledger in (a, b) for key in ledger.signer.vkeys]
    (folders[1] / "checkpoint.witnessed").write_bytes(b.checkpoints[1])
    assert run("audit", "reconcile", *folders, "--json", "--proofs", tmp_path / "proofs", *vkeys) == 3
    shown = json.loads(capsys.readouterr().out)
    (difference,) = shown["differences"]
    assert (difference["kind"], UUID(difference["id"]).int & 0xFF, shown["ok"]) == ("receipt.unfounded", 2, False)
    proofs = sorted((tmp_path / "proofs").iterdir())
    assert [path.name for path in proofs] == [
        "0001-receipt.unfounded-test.br-pf-4.tlog-proof", "0001-receipt.unfounded-test.us-atf-0.tlog-proof",
    ]  # fmt: skip
    for path, ledger in zip(proofs, (a, b), strict=True):
        place = parse_proof(path.read_bytes(), LedgerKeys.parse(ledger.origin, ledger.signer.vkeys), Tw1Verifier())
        assert place.entry in ledger.entries
        assert place.size == (len(a.entries) if ledger is a else 1), "under what was witnessed, where that covers it"
    with web_server(folders[1]) as url:
        assert run("audit", "reconcile", folders[0], url, "--json", *vkeys) == 3
        assert json.loads(capsys.readouterr().out) == shown
        assert run("audit", "reconcile", folders[0], f"{url}/none", "--json") == 1


def test_a_ledger_that_does_not_hold_is_not_compared(
    exchange: Exchange, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exchange.whole(1, 1, exchange.a, exchange.b)
    folders = [ledger.write(tmp_path / name) for name, ledger in (("a", exchange.a), ("b", exchange.b))]
    bundle = next((folders[1] / "tile/entries").rglob("*.p/*"))
    bundle.write_bytes(bundle.read_bytes().replace(b"kid-1", b"kid-2"))
    assert run("audit", "reconcile", *folders, "--json") == 3
    assert json.loads(capsys.readouterr().out)["code"] == "proof.path"
    assert run("audit", "reconcile", folders[0], folders[0], "--json") == 1
    assert json.loads(capsys.readouterr().err)["code"] == "config.invalid"
