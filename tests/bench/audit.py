"""`make audit`: how long an auditor takes. Ledgers are built in memory and written as `ledger export` writes them.

Timed as processes of their own, with the most memory that each took: `tracewire audit reconcile` of two ledgers that agree, and
the independent verifier (`deploy/verifier/tracewire_verify.py log`) of a long one. The last line printed is one JSON object.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from protocols.ledger.entry import PeerRef
from protocols.ledger.merkle import leaf_hash
from tests.interop.conftest import Exchange, Ledger, digest

ROOT = Path(__file__).parents[2]
_BATCH = 256  # entries under one checkpoint: `ledger export` writes one a bundle


def refs(ledger: Ledger, first: int) -> list[PeerRef]:
    """How another ledger names every entry from `first` on."""
    one = ledger.ref(first)
    return [replace(one, index=first + n, leaf=leaf_hash(data)) for n, data in enumerate(ledger.entries[first:])]


def agreeing(folder: Path, entries: int) -> None:
    """Two ledgers of so many entries each: as many messages there as back, each sent, received and receipted."""
    x, count = Exchange(), entries // 3
    for turn, (sender, receiver) in enumerate(((x.a, x.b), (x.b, x.a))):
        said: list[dict[str, Any]] = [
            x.message(turn * count + n, sender, receiver.member) | {"pair_seq": n + 1} for n in range(count)
        ]
        keys = [x.keys(n) for n in range(count)]
        sent, arrived = len(sender.entries), len(receiver.entries)
        actor = {"actor_c": digest("actor")}
        sender.add(*(sender.entry("sent", **one | more | actor) for one, more in zip(said, keys, strict=True)))
        peers = refs(sender, sent)
        receiver.add(*(
            receiver.entry("received", **one | more | {"peer": peer})
            for one, more, peer in zip(said, keys, peers, strict=True)
        ))  # fmt: skip
        receipts = zip(said, refs(receiver, arrived), strict=True)
        sender.add(*(sender.entry("receipt", **one | {"peer": peer}) for one, peer in receipts))
    for name, ledger in (("a", x.a), ("b", x.b)):
        ledger.write(folder / name)


def long(folder: Path, entries: int) -> None:
    """One ledger, a checkpoint a batch."""
    ledger = Ledger("test/br-pf")
    ledger.open()
    members = Exchange().message(1, ledger, "test/us-atf") | {"pair_seq": 1}
    template = ledger.entry(
        "sent",
        **members
        | {"kid": "k" * 43, "seal_kid": "s" * 43, "suite": "tw1", "thread_c": bytes(32), "actor_c": bytes(32)},
    ).encode()
    id_, seq = str(members["id"]).encode(), b'"pair_seq":1,'
    for first in range(1, entries, _BATCH):
        numbers = range(first, min(first + _BATCH, entries))
        ledger.add(
            *(
                template.replace(id_, id_[:-12] + b"%012x" % n, 1).replace(seq, seq[:-2] + b"%d," % n, 1)
                for n in numbers
            )
        )
    ledger.write(folder / "long")


def timed(*command: object) -> tuple[float, int]:
    """Seconds and MiB of a process that has to succeed."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([str(token) for token in command], stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        if status:
            said.seek(0)
            raise SystemExit(said.read().decode())
    return round(time.monotonic() - began, 1), used.ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reconcile", type=int, default=100_000)
    parser.add_argument("--verify", type=int, default=1_000_000)
    parser.add_argument("--make", type=Path)
    given = parser.parse_args()
    if given.make:
        agreeing(given.make, given.reconcile)
        long(given.make, given.verify)
        return
    folder = Path(tempfile.mkdtemp(prefix="tracewire-audit-"))
    try:  # made by another process: a child's peak begins with its parent's size
        counts = ["--reconcile", str(given.reconcile), "--verify", str(given.verify)]
        subprocess.run([sys.executable, __file__, "--make", str(folder), *counts], check=True)
        command = Path(sys.executable).with_name("tracewire"), "audit", "reconcile", folder / "a", folder / "b"
        reconciled, reconcile_mib = timed(*command)
        verifier = ROOT / "deploy/verifier/tracewire_verify.py"
        verified, verify_mib = timed(sys.executable, "-I", verifier, "log", folder / "long")
    finally:
        shutil.rmtree(folder)
    print(json.dumps({
        "reconcile_entries_each": given.reconcile, "reconcile_s": reconciled, "reconcile_mib": reconcile_mib,
        "verify_entries": given.verify, "verify_s": verified, "verify_mib": verify_mib,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
