"""Whether others have cosigned a ledger as you demand: C2SP tlog-policy over C2SP cosignatures, offline.

    python tracewire_witnesses.py DIR --policy FILE [--vkey KEY --vkey KEY] [--json]

The whole ledger is verified first (tracewire_verify.py, which lies beside this file); then the cosignatures under
`checkpoint.witnessed`, which is of that same tree. Exit codes and output are as there.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey
from tracewire_verify import Failure, Key, _keys, _open, _read, _unb64, sha256, told, verify_log

_PUBLIC_BYTES = {4: 32, 6: 1312}  # Ed25519 cosignature, ML-DSA-44


def _witness(vkey: str) -> Key:
    name, key_id, encoded = [*vkey.split("+", 2), "", ""][:3]
    data = _unb64(encoded, "policy")
    expected = sha256(name.encode() + b"\n" + data).digest()[:4]
    if _PUBLIC_BYTES.get(data[0]) != len(data) - 1 or key_id != expected.hex():
        raise Failure("policy", f"not a cosignature key: {vkey[:60]}")
    return name, data[0], data[1:], expected


class Policy:
    """A tlog-policy file; Failure `policy` for anything else."""

    def __init__(self, text: str) -> None:
        self.logs: list[str] = []
        self.members: dict[str, Key | tuple[int, list[str]]] = {}  # witnesses, and groups of (least, names)
        self.quorum = ""
        for number, line in enumerate(text.split("\n"), 1):
            words = line.partition("#")[0].split()
            if words and not self._line(words):
                raise Failure(
                    "policy", f"line {number} is none of log, witness, group, quorum, or names what is not there"
                )
        if not self.quorum:
            raise Failure("policy", "there is no quorum line")

    def _line(self, words: list[str]) -> bool:
        what, *rest = words
        new = bool(rest) and rest[0] not in self.members and rest[0] != "none"
        if what == "log" and len(rest) in (1, 2):
            self.logs.append(rest[0])
        elif what == "witness" and len(rest) in (2, 3) and new:
            self.members[rest[0]] = _witness(rest[1])
        elif what == "group" and len(rest) > 2 and new and len(set(rest[2:])) == len(rest[2:]):
            least = {"any": 1, "all": len(rest) - 2}.get(rest[1]) or (int(rest[1]) if rest[1].isdecimal() else 0)
            if not 0 < least <= len(rest) - 2 or not set(rest[2:]) <= self.members.keys():
                return False
            self.members[rest[0]] = least, rest[2:]
        elif what == "quorum" and len(rest) == 1 and not self.quorum and rest[0] in (*self.members, "none"):
            self.quorum = rest[0]
        else:
            return False
        return True

    def satisfied(self, signed: set[str]) -> bool:
        """Whether these witnesses make the quorum."""
        holds = {"none": True}
        for name, found in self.members.items():  # a group names only what stands above it
            holds[name] = name in signed if len(found) == 4 else sum(holds[each] for each in found[1]) >= found[0]
        return holds[self.quorum]


_TIME_MAX = 253_402_300_800  # the year 10000


def _cosigned(note: bytes, key: Key) -> int | None:
    """When a witness cosigned this checkpoint, in seconds since 1970 (C2SP tlog-cosignature); None where it did not."""
    name, type_, public, key_id = key
    text, _, lines = note.decode().rpartition("\n\n")
    origin, size, root = text.split("\n")
    for line in lines.split("\n"):
        blob = _unb64(line.rpartition(" ")[2], "note") if line.startswith(f"— {name} ") else b""
        stamp, signature = blob[4:12], blob[12:]
        if blob[:4] != key_id:
            continue
        try:
            if type_ == 4:
                said = f"cosignature/v1\ntime {int.from_bytes(stamp, 'big')}\n{text}\n".encode()
                Ed25519PublicKey.from_public_bytes(public).verify(signature, said)
            else:
                tree = b"".join((
                    b"subtree/v1\n\0", bytes([len(name.encode())]), name.encode(), stamp, bytes([len(origin.encode())]), origin.encode(),
                    bytes(8), int(size).to_bytes(8, "big"), _unb64(root, "note"),
                ))  # fmt: skip
                MLDSA44PublicKey.from_public_bytes(public).verify(signature, tree)
        except (InvalidSignature, ValueError):
            raise Failure("signature", f"the cosignature 0x{type_:02x} of {name} is wrong") from None
        return int.from_bytes(stamp, "big")
    return None


def verify_witnessed(folder: Path, policy: Policy, vkeys: Sequence[str] | None = None) -> dict[str, Any]:
    """The ledger, and up to which size the policy's quorum has cosigned it; Failure `witness` where it has not.

    Without `vkeys`: the two that the policy names, else those of the folder.
    """
    vkeys = vkeys or (policy.logs if len(policy.logs) > 1 else None)
    log = verify_log(folder, vkeys)
    path = folder / "checkpoint.witnessed"
    note = _read(path if path.exists() else folder / "checkpoint")
    keys = _keys(vkeys or _read(folder / "vkeys").decode(errors="replace").split(), note, 2)
    if policy.logs and not any(
        data in _unb64([*each.split("+", 2), "", ""][2], "policy") for each in policy.logs for _, _, data, _ in keys
    ):
        raise Failure("policy", f"it does not name {log.origin}")
    _, size, _ = _open(note, keys, path.name)
    times = {name: _cosigned(note, key) for name, key in policy.members.items() if len(key) == 4}
    signed = {name: at for name, at in times.items() if at is not None}
    if not policy.satisfied({*signed}):
        raise Failure(
            "witness", f"only {', '.join(sorted(signed)) or 'nobody'} of those that the policy demands cosigned"
        )
    return {
        "origin": log.origin,
        "size": log.size,
        "witnessed": size,
        "witnesses": sorted(signed),
        "at": _since(policy, signed),
    }


def _since(policy: Policy, signed: dict[str, int]) -> int | None:
    """From when on as many had signed as the policy demands: one that lies about its time moves nothing that others outweigh."""
    times = sorted({0, *signed.values()})
    at = next(at for at in times if policy.satisfied({name for name, then in signed.items() if then <= at}))
    return at or None


def shown(found: dict[str, Any]) -> Iterator[str]:
    """A line for each claim."""
    yield f"OK {found['origin']}: {found['size']} entries hold, as the program log says in full"
    at = (
        f" by {datetime.fromtimestamp(found['at'], UTC):%Y-%m-%d at %H:%M} UTC"
        if found["at"] and found["at"] < _TIME_MAX
        else ""
    )
    yield f"OK {', '.join(found['witnesses']) or 'nobody'} cosigned it up to size {found['witnessed']}{at}, as the policy demands"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; its exit code."""
    parser = argparse.ArgumentParser(description="Verify a Tracewire ledger and who has witnessed it, offline.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--policy", type=Path, required=True, help="a C2SP tlog-policy file")
    parser.add_argument(
        "--vkey", action="append", help="a key of the ledger that you trust, else the policy's; repeat it"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(arguments)

    def check() -> dict[str, Any]:
        return verify_witnessed(args.folder, Policy(_read(args.policy).decode(errors="replace")), args.vkey)

    return told(check, shown, as_json=args.json)


if __name__ == "__main__":
    sys.exit(main())
