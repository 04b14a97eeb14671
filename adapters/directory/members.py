"""Members' records under verified top-level metadata: each by its own delegation, one failure stops no other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from securesystemslib.signer import Key
from tuf.api.metadata import MetaFile, Snapshot, TargetFile, Targets

from adapters.directory.repository import (
    RECORD_KEY_SCHEME,
    check_file,
    parse,
    parse_role,
    record_path,
    target_name,
)
from protocols.directory import NETWORK_PATH, Network, Record, check_update, parse_network, parse_record, public_keys
from protocols.ledger.entry import DirRef
from protocols.limits import (
    DIRECTORY_BYTES_MAX,
    DIRECTORY_FILE_BYTES_MAX,
    DIRECTORY_GRACE_S,
    DIRECTORY_ROLE_BYTES_MAX,
    RECORD_BYTES_MAX,
)
from protocols.problems import ProblemError

Check = Callable[[bytes], None]
Load = Callable[[str, int, Check], bytes]
"""The file of a name, of at most so many bytes, once the check passed; ProblemError `dir.*` or OSError else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Top:
    """One version of the top-level metadata with `directory.json`."""

    ref: DirRef
    snapshot: Snapshot
    targets: Targets
    network: Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A record that held, under which role file (version, SHA-256) and key; `keys` are all public keys in it."""

    version: int
    sha256: str
    key: Key
    expires: datetime
    record: Record
    keys: frozenset[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a member's newest record is not in force, and since when."""

    code: str
    since: datetime


def read_top(snapshot_bytes: bytes, load: Load) -> Top:
    """The version of a snapshot that TUF verified, or that we accepted before; hashes lead from it to all the rest."""
    snapshot = parse(Snapshot, snapshot_bytes)
    info = snapshot.meta["targets.json"]
    name = f"{info.version}.targets.json"
    targets = parse(Targets, load(name, DIRECTORY_FILE_BYTES_MAX, lambda data: check_file(info, data)))
    listed = _target(targets, NETWORK_PATH)
    name = target_name(NETWORK_PATH, listed)
    network = parse_network(load(name, DIRECTORY_BYTES_MAX, lambda data: check_file(listed, data)))
    ref = DirRef(version=snapshot.version, sha256=sha256(snapshot_bytes).digest())
    return Top(ref=ref, snapshot=snapshot, targets=targets, network=network)


def load_members(
    top: Top, held: Mapping[str, Member], failures: Mapping[str, Failure], *, now: datetime, load: Load
) -> tuple[dict[str, Member], dict[str, Failure]]:
    """Every admitted member's newest record that holds, and who fails: `held` stays in force for those.

    A key belongs to who held it before: a newcomer that lists it fails, not its owner. A failure becomes `dir.stale`
    after the grace. OSError where the source cannot be reached at all.
    """
    names = [each.member for each in top.network.members]
    owners = {key: name for name in names if name in held for key in held[name].keys}
    members, failing = {}, {}
    for name in names:
        before = held.get(name)
        try:
            found = _load_member(top, name, before, load)
            if any(owners.get(key, name) != name for key in found.keys):
                raise ProblemError("dir.key_use", "a key of the record is another member's already")
            if found.expires <= now:
                raise ProblemError("dir.expired", "the member's role has expired")
        except ProblemError as error:
            since = failures[name].since if name in failures else now
            if error.code == "dir.expired":
                since = min(since, found.expires)
            stale = now - since > timedelta(seconds=DIRECTORY_GRACE_S)
            failing[name] = Failure(code="dir.stale" if stale else error.code, since=since)
            if before is not None:
                members[name] = before
            continue
        members[name] = found
        owners |= dict.fromkeys(found.keys, name)
    return members, failing


def reload_member(top: Top, name: str, role: tuple[int, str] | None, load: Load) -> Member:
    """A member's record as it was accepted: under the role file that we noted, or else under the snapshot's."""
    short, info, key = _delegation(top, name)
    if role is not None:
        info = MetaFile(role[0], hashes={"sha256": role[1]})
    file = f"{info.version}.{short}.json"
    data = load(file, DIRECTORY_ROLE_BYTES_MAX, lambda data: check_file(info, data))
    return _read_member(name, info, key, parse(Targets, data), load)


def _load_member(top: Top, name: str, before: Member | None, load: Load) -> Member:
    short, info, key = _delegation(top, name)
    digest = (info.hashes or {}).get("sha256")
    if before and (before.version, before.sha256, before.key) == (info.version, digest, key):
        return before
    if before and before.key == key and info.version < before.version:
        raise ProblemError("dir.rollback", "the member's role went back")

    def check(data: bytes) -> None:
        check_file(info, data)
        if parse_role(data, delegator=top.targets, role=short).version != info.version:
            raise ProblemError("dir.hash", "the member's role is of another version")

    file = f"{info.version}.{short}.json"
    role = parse(Targets, load(file, DIRECTORY_ROLE_BYTES_MAX, check))
    found = _read_member(name, info, key, role, load)
    if before:
        check_update(before.record, found.record)
    return found


def _read_member(name: str, info: MetaFile, key: Key, role: Targets, load: Load) -> Member:
    path = record_path(name)
    listed = _target(role, path)
    file = target_name(path, listed)
    record = parse_record(load(file, RECORD_BYTES_MAX, lambda data: check_file(listed, data)))
    if record.member != name:
        raise ProblemError("dir.invalid", "the record is of another member")
    return Member(
        version=role.version,
        sha256=(info.hashes or {})["sha256"],
        key=key,
        expires=role.expires,
        record=record,
        keys=public_keys(record) | {str(key.keyval["public"]).encode()},
    )


def _delegation(top: Top, name: str) -> tuple[str, MetaFile, Key]:
    """Role, file and record key of a member; `dir.invalid` unless it is delegated to exactly one ML-DSA-65 key."""
    network, _, short = name.partition("/")
    info, delegations = top.snapshot.meta.get(f"{short}.json"), top.targets.delegations
    role = (delegations.roles or {}).get(short) if delegations else None
    if network != top.network.network or info is None or role is None or delegations is None:
        raise ProblemError("dir.invalid", "the member has no record in this version")
    key = delegations.keys.get(role.keyids[0]) if len(role.keyids) == 1 else None
    if key is None or key.scheme != RECORD_KEY_SCHEME:
        raise ProblemError("dir.invalid", "the member's record is not under one ML-DSA-65 key")
    return short, info, key


def _target(role: Targets, path: str) -> TargetFile:
    if path not in role.targets:
        raise ProblemError("dir.invalid", "a target is not listed")
    return role.targets[path]
