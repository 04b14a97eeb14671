"""Witnessing (C2SP tlog-witness, tlog-cosignature, tlog-policy): what a witness is asked, what it says, and when that is enough."""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from protocols.ledger.checkpoint import Checkpoint, LedgerKeys, parse_checkpoint, read_checkpoint, signature_by
from protocols.ledger.merkle import HASH_BYTES
from protocols.ledger.note import COSIGNATURE, VerifierKey, format_signature, parse_pair, unb64
from protocols.limits import NOTE_BYTES_MAX, PATH_HASHES_MAX
from protocols.ports.crypto import Verifier
from protocols.problems import ProblemError

SIZE_TYPE = "text/x.tlog.size"
REQUEST_TYPE = "text/plain"
_OLD = re.compile(r"old (0|[1-9]\d{0,18})", re.ASCII)
_POLICY_BYTES_MAX, _POLICY_LINES_MAX = 1024 * 1024, 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessKeys:
    """The two verifier keys of a witness, named as the member that it is."""

    ed25519: VerifierKey
    mldsa44: VerifierKey

    @classmethod
    def parse(cls, name: str, vkeys: tuple[str, str]) -> "WitnessKeys":
        """Keys from vkey texts, the Ed25519 cosignature key first; `dir.key_invalid` where they do not fit the name."""
        first, second = parse_pair(name, vkeys, COSIGNATURE)
        return cls(ed25519=first, mldsa44=second)

    def cosignature(self, note: bytes, verifier: Verifier) -> bytes | None:
        """The two signature lines of this witness under a checkpoint, without any other; None unless both are there and hold."""
        checkpoint, parsed = read_checkpoint(note)
        lines = ""
        for key in (self.ed25519, self.mldsa44):
            if (data := signature_by(key, checkpoint, parsed, verifier)) is None:
                return None
            lines += format_signature(key, data)
        return lines.encode()


def format_request(old: int, path: Sequence[bytes], note: bytes) -> bytes:
    """The body of `add-checkpoint`: the size that the witness holds, a consistency path from it, the checkpoint."""
    lines = [f"old {old}", *(b64encode(each).decode() for each in path)]
    return "\n".join(lines).encode() + b"\n\n" + note


def parse_request(data: bytes) -> tuple[int, tuple[bytes, ...], Checkpoint]:
    """Old size, path and checkpoint, nothing of it verified; `note.invalid` else."""
    if len(data) > 2 * NOTE_BYTES_MAX:
        raise ProblemError("note.invalid", f"more than {2 * NOTE_BYTES_MAX} bytes")
    head, _, note = data.partition(b"\n\n")
    try:
        first, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise ProblemError("note.invalid", "not an add-checkpoint request") from None
    found = _OLD.fullmatch(first)
    path = tuple(map(unb64, lines))
    if found is None or len(path) >= PATH_HASHES_MAX or any(len(each) != HASH_BYTES for each in path):
        raise ProblemError("note.invalid", "not an add-checkpoint request")
    return int(found[1]), path, parse_checkpoint(note)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Which witnesses have to have cosigned: `quorum` is the name of a group or witness, None where nobody has to."""

    logs: tuple[VerifierKey, ...]
    witnesses: Mapping[str, VerifierKey]
    groups: Mapping[str, tuple[int, tuple[str, ...]]]
    quorum: str | None

    def check_log(self, ledger: LedgerKeys) -> None:
        """`proof.origin` where the policy names logs, and neither key of this one."""
        if self.logs and {ledger.ed25519, ledger.mldsa44}.isdisjoint(self.logs):
            raise ProblemError("proof.origin", "the policy does not name this ledger")

    def satisfied(self, note: bytes, verifier: Verifier) -> bool:
        """Whether the checkpoint's cosignatures make the quorum."""
        checkpoint, parsed = read_checkpoint(note)
        holds = {
            name: signature_by(key, checkpoint, parsed, verifier) is not None for name, key in self.witnesses.items()
        }
        for name, (least, members) in self.groups.items():  # each names only what stands above it
            holds[name] = sum(holds[member] for member in members) >= least
        return self.quorum is None or holds[self.quorum]


def format_policy(ledger: LedgerKeys, witnesses: Sequence[WitnessKeys], quorum: int) -> str:
    """A tlog-policy file for one ledger: so many of the witnesses have to cosign it, each with both of its keys."""
    lines = [f"log {ledger.ed25519}", f"log {ledger.mldsa44}"]
    names = [keys.ed25519.name for keys in witnesses]
    for name, keys in zip(names, witnesses, strict=True):
        lines += [f"witness {name}/{key.type:#04x} {key}" for key in (keys.ed25519, keys.mldsa44)]
        lines.append(f"group {name} all {name}/{keys.ed25519.type:#04x} {name}/{keys.mldsa44.type:#04x}")
    if quorum:
        lines.append(f"group witnesses {quorum} {' '.join(names)}")
    return "\n".join((*lines, "quorum witnesses" if quorum else "quorum none", ""))


def parse_policy(data: bytes) -> Policy:
    """A tlog-policy file; `config.invalid` with the line that is wrong."""
    logs, witnesses, groups = list[VerifierKey](), dict[str, VerifierKey](), dict[str, tuple[int, tuple[str, ...]]]()
    quorum: list[str] = []
    lines = data[: _POLICY_BYTES_MAX + 1].decode("utf-8", "replace").split("\n")
    if len(data) > _POLICY_BYTES_MAX or len(lines) > _POLICY_LINES_MAX:
        raise ProblemError("config.invalid", "the policy is too long")
    for number, line in enumerate(lines, 1):
        match line.partition("#")[0].split():
            case []:
                continue
            case ["log", vkey] | ["log", vkey, _]:
                logs.append(_key(vkey, number))
            case ["witness", name, vkey] | ["witness", name, vkey, _] if name not in {*witnesses, *groups, "none"}:
                witnesses[name] = _key(vkey, number)
            case ["group", name, least, *members] if name not in {*witnesses, *groups, "none"}:
                groups[name] = _least(least, len(members), number), tuple(members)
                if not members or len(set(members)) != len(members) or not {*members} <= {*witnesses, *groups} - {name}:
                    raise _wrong(number, "a group has different members that are named above it")
            case ["quorum", name] if not quorum and name in {*witnesses, *groups, "none"}:
                quorum.append(name)
            case _:
                raise _wrong(number, "it is none of log, witness, group, quorum, or names what is not there")
    if not quorum:
        raise ProblemError("config.invalid", "the policy has no quorum line")
    named = quorum[0] if quorum[0] != "none" else None
    return Policy(logs=tuple(logs), witnesses=witnesses, groups=groups, quorum=named)


def _key(text: str, number: int) -> VerifierKey:
    try:
        return VerifierKey.parse(text)
    except ProblemError:
        raise _wrong(number, "not a verifier key") from None


def _least(text: str, members: int, number: int) -> int:
    least = {"any": 1, "all": members}.get(
        text, int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0
    )
    if not 0 < least <= members:
        raise _wrong(number, "a group needs any, all, or as many as it has")
    return least


def _wrong(number: int, why: str) -> ProblemError:
    return ProblemError("config.invalid", f"line {number} of the policy: {why}")
