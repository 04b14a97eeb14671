"""The authority's side: makes the TUF repository, admits members, publishes versions, signs the timestamp.

    FOLDER/repository/   what is served; every version stays
    FOLDER/pending/      nonces sealed to seal keys of which possession is not yet proven (0600)
    FOLDER/admitted/     checked requests that `publish` will put into the next version

Timestamp.json is written last: until then nobody sees a part of a new version, and a crash leaves the old one whole.
"""

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from securesystemslib.signer import Key, Signer
from tuf.api.metadata import DelegatedRole, Delegations, MetaFile, Role, Root, Snapshot, Targets, Timestamp

from adapters.directory.repository import (
    LIFE,
    Repository,
    expiry,
    file_info,
    parse,
    parse_role,
    record_path,
    signed_bytes,
    target_info,
    target_name,
    write,
)
from adapters.directory.request import (
    NONCE_BYTES,
    MemberRequest,
    challenge,
    check_answer,
    check_possession,
    delegated_role,
    endorsed,
    new_seal_keys,
    parse_request,
)
from protocols.directory import (
    NETWORK_PATH,
    Admitted,
    Network,
    Position,
    Record,
    Rule,
    check_update,
    parse_network,
    parse_record,
    public_keys,
)
from protocols.directory import Role as MemberRole
from protocols.ledger.checkpoint import LedgerKeys, parse_checkpoint, verify_checkpoint
from protocols.limits import MEMBER_REQUEST_BYTES_MAX
from protocols.ports.crypto import Sealer, Verifier
from protocols.problems import ProblemError
from protocols.strict import b64u, dump_json, format_time, parse_object, parse_time, unb64u

Status = Literal["active", "suspended", "revoked"]
# docs/domain.md section 1: an investigator may ask, may be told "restricted", and may not search registries
_ASKERS: list[MemberRole] = ["focal-point", "investigator", "manufacturer"]  # a manufacturer forwards
_ANSWERERS: list[MemberRole] = ["focal-point", "registry", "manufacturer"]
_PARTIES: list[MemberRole] = ["focal-point", "investigator", "manufacturer", "registry"]
_ASKS, _ANSWERS, _BOTH = (
    Rule(senders=_ASKERS, recipients=_ANSWERERS),
    Rule(senders=_ANSWERERS, recipients=_ASKERS),
    Rule(senders=_PARTIES, recipients=_PARTIES),
)
MATRIX = {
    **dict.fromkeys(["trace.request", "trace.clarification-answer", "trace.withdrawal", "trace.reminder"], _ASKS),
    **dict.fromkeys(
        ["trace.acknowledgement", "trace.response", "trace.refusal", "trace.clarification", "trace.referral"], _ANSWERS
    ),
    **dict.fromkeys(["trace.status", "handling.change", "consent.request", "consent.answer"], _BOTH),
    **dict.fromkeys(["disclosure.report", "erasure.request", "erasure.confirmation"], _BOTH),
    "reference.query": Rule(senders=_PARTIES, recipients=_ANSWERERS),
    "reference.answer": Rule(senders=_ANSWERERS, recipients=_PARTIES),
    "recovery.report": Rule(senders=["focal-point", "investigator"], recipients=["focal-point", "registry"]),
    **dict.fromkeys(["registry.record", "registry.withdrawal"], Rule(senders=["focal-point"], recipients=["registry"])),
    "registry.search": Rule(senders=["focal-point", "registry"], recipients=["registry"]),
    "registry.hit": Rule(senders=["registry"], recipients=["focal-point", "registry"]),
    "marking.notice": Rule(senders=["focal-point", "manufacturer"], recipients=_PARTIES),
}
DEADLINES = {"acknowledgement_days": 2, "urgent_hours": 24, "routine_days": 30}

_NOTICE = timedelta(hours=72)


@dataclass(frozen=True, slots=True, kw_only=True)
class Online:
    """The keys that lie with the publisher."""

    snapshot: Signer
    timestamp: Signer


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The version now served, members whose records are new in it, and challenges that others must answer first."""

    version: int
    members: tuple[str, ...]
    challenges: Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Desk:
    """What an authority decides on: what is served, the newest targets, and the requests that wait for `publish`."""

    snapshot: Snapshot
    targets: Targets
    targets_info: MetaFile
    network: Network
    records: dict[str, tuple[int, Record]]
    admitted: dict[str, MemberRequest]


def new_network(name: str, *, live: bool) -> Network:
    """A network without members under the default matrix and deadlines."""
    matrix = {kind: rule.model_dump(by_alias=True) for kind, rule in MATRIX.items()}
    shown = {"v": 1, "network": name, "live": live, "members": [], "matrix": matrix, "deadlines": DEADLINES}
    return parse_network(dump_json(shown))


def init_directory(
    folder: Path,
    network: Network,
    *,
    root_signers: Sequence[Signer],
    targets_signers: Sequence[Signer],
    threshold: int,
    online: Online,
    now: datetime,
) -> bytes:
    """Makes version 1 and gives the root that members pin; `dir.invalid` where there is a directory already."""
    repository = Repository(folder=folder / "repository")
    signers = {"root": root_signers, "targets": targets_signers}
    signers |= {"snapshot": [online.snapshot], "timestamp": [online.timestamp]}
    roles = {
        name: Role([each.public_key.keyid for each in keys], threshold if name in {"root", "targets"} else 1)
        for name, keys in signers.items()
    }
    keys = {each.public_key.keyid: each.public_key for group in signers.values() for each in group}
    root = Root(expires=expiry(Root, now), keys=keys, roles=roles, consistent_snapshot=True)
    data = signed_bytes(root, root_signers)
    targets = Targets(expires=expiry(Targets, now), delegations=Delegations({}, roles={}))
    with _locked(folder):
        if repository.read("1.root.json") is not None:
            raise ProblemError("dir.invalid", "the folder holds a directory already")
        repository.keep("1.root.json", data)
        info = _write_targets(repository, targets, network, targets_signers)
        _write_snapshot(repository, 1, {"targets.json": info}, online, now)
    return data


def sign_timestamp(folder: Path, *, online: Online, now: datetime) -> None:
    """What `serve` does every hour; the snapshot is signed anew when half its life is over."""
    repository = Repository(folder=folder / "repository")
    with _locked(folder):
        snapshot = _served(repository)
        if snapshot.expires - now < LIFE[Snapshot] / 2:
            _write_snapshot(repository, snapshot.version + 1, snapshot.meta, online, now)
        else:
            _write_timestamp(repository, f"{snapshot.version}.snapshot.json", online, now)


class Authority:
    """Decides who is listed. Every method holds the folder's lock, so that `serve` may run meanwhile."""

    def __init__(self, folder: Path, *, sealer: Sealer, verifier: Verifier) -> None:
        self._folder = folder
        self._repository = Repository(folder=folder / "repository")
        self._sealer = sealer
        self._verifier = verifier

    def admit(
        self,
        data: bytes,
        *,
        roles: Sequence[MemberRole],
        status: Status,
        signers: Sequence[Signer],
        now: datetime,
        lost: bool = False,
    ) -> bytes | None:
        """Delegates a member's record to the record key of its request; the next `publish` brings it into force.

        A new record key is signed for by the former one, or has stood in a notice for 72 h (`lost`, docs/protocol.md
        section 5): `dir.notice`. `signers` are those of targets. A challenge comes back instead, and nothing is changed, until the request
        answers the one made for its seal keys. ProblemError `dir.*` for a request that must not be admitted.
        """
        request = parse_request(data)
        with _locked(self._folder):
            desk = self._desk()
            delegations = _delegations(desk.targets)
            standing = delegations.get(request.role)
            if standing and standing.keyids != [request.key.keyid]:
                former = _key(desk.targets, standing.keyids[0])
                if not endorsed(request, former, self._verifier):
                    self._noticed(request, now, lost=lost)
            self._check(request, desk)
            if asked := self._ask(request, desk):
                return asked
            delegations[request.role] = delegated_role(request.record.member, request.key)
            assert desk.targets.delegations is not None
            desk.targets.delegations.keys[request.key.keyid] = request.key
            write(self._folder / "admitted" / f"{request.role}.json", data)
            (self._folder / "notices" / f"{request.role}.json").unlink(missing_ok=True)
            self._change_targets(desk, _with_member(desk.network, request.record.member, roles, status), signers, now)
        return None

    def _noticed(self, request: MemberRequest, now: datetime, *, lost: bool) -> None:
        """Returns where the notice of this very key is old enough; the first word of it writes the notice."""
        if not lost:
            raise ProblemError(
                "dir.invalid", "the member is admitted under another record key, which did not sign the request"
            )
        path = self._folder / "notices" / f"{request.role}.json"
        noticed = parse_object(path.read_bytes(), bytes_max=MEMBER_REQUEST_BYTES_MAX) if path.exists() else {}
        if noticed.get("key") != request.key.keyid:
            noticed = {"key": request.key.keyid, "from": format_time(now)}
            write(path, dump_json(noticed))
        until = parse_time(noticed["from"]) + _NOTICE
        if now < until:
            raise ProblemError(
                "dir.notice", f"tell the member by a second channel; from {format_time(until)} on it is admitted"
            )

    def set_member(
        self, member: str, *, roles: Sequence[MemberRole], status: Status, signers: Sequence[Signer], now: datetime
    ) -> None:
        """Changes status and roles (none given: they stay) of an admitted member; `member.unknown` for another."""
        with _locked(self._folder):
            desk = self._desk()
            found = [each for each in desk.network.members if each.member == member]
            if not found:
                raise ProblemError("member.unknown", "no such member is admitted")
            network = _with_member(desk.network, member, roles or found[0].roles, status)
            self._change_targets(desk, network, signers, now)

    def set_witnesses(self, members: Sequence[str], quorum: int, *, signers: Sequence[Signer], now: datetime) -> None:
        """Names the members whose cosignatures count (none: everybody's), and how many a checkpoint needs.

        `member.unknown` for one that is not admitted; `dir.invalid` for a quorum that its members cannot make.
        """
        with _locked(self._folder):
            desk = self._desk()
            admitted, named = {each.member for each in desk.network.members}, sorted(set(members))
            if not admitted.issuperset(named):
                raise ProblemError("member.unknown", "no such member is admitted")
            others = len(named or admitted) - 1
            if not 0 <= quorum <= (others if set(named or admitted) == admitted else others + 1):
                raise ProblemError("dir.invalid", "a ledger has not so many witnesses beside its own member")
            changed = desk.network.model_copy(update={"witnesses": named, "quorum": quorum})
            network = parse_network(dump_json(changed.model_dump(mode="json", by_alias=True)))
            self._change_targets(desk, network, signers, now)

    def abandon(self, note: bytes, *, signers: Sequence[Signer], now: datetime) -> Position:
        """Gives a ledger up at its last good checkpoint, which stays valid; nothing later counts that nobody held before.

        `dir.invalid` for a ledger that no published record lists; `proof.policy` for a checkpoint that it did not sign.
        """
        with _locked(self._folder):
            desk, claimed = self._desk(), parse_checkpoint(note)
            listed = {each.origin: each for _, record in desk.records.values() for each in record.ledgers}
            if claimed.origin not in listed:
                raise ProblemError("dir.invalid", "no member's record lists this ledger")
            vkeys = listed[claimed.origin].vkeys
            verify_checkpoint(note, LedgerKeys.parse(claimed.origin, (vkeys[0], vkeys[1])), self._verifier)
            last = Position(origin=claimed.origin, size=claimed.size, root=b64u(claimed.root))
            others = [each for each in desk.network.abandoned if each.origin != last.origin]
            changed = desk.network.model_copy(update={"abandoned": [*others, last]})
            network = parse_network(dump_json(changed.model_dump(mode="json", by_alias=True)))
            self._change_targets(desk, network, signers, now)
            return last

    def publish(self, requests: Sequence[bytes] = (), *, online: Online, now: datetime) -> Published:
        """A version with the members admitted and records updated since the last one; needs no offline key."""
        taken, challenges = {}, {}
        with _locked(self._folder):
            desk = self._desk()
            for request in desk.admitted.values():
                self._check(request, desk)
                taken[request.record.member] = request
            for request in map(parse_request, requests):
                self._check(request, desk)
                parse_role(request.metadata, delegator=desk.targets, role=request.role)
                if asked := self._ask(request, desk):
                    challenges[request.record.member] = asked
                    continue
                taken[request.record.member] = request
                desk.records[request.record.member] = request.version, request.record
            meta = {f"{each.role}.json": self._write_member(each) for each in taken.values()}
            meta = {**desk.snapshot.meta, "targets.json": desk.targets_info, **meta}
            version = desk.snapshot.version + 1
            _write_snapshot(self._repository, version, meta, online, now)
            for request in taken.values():
                for folder in ("pending", "admitted"):
                    (self._folder / folder / f"{request.role}.json").unlink(missing_ok=True)
        return Published(version=version, members=tuple(sorted(taken)), challenges=challenges)

    def _desk(self) -> _Desk:
        version, data = self._repository.newest("targets")
        targets, snapshot = parse(Targets, data), _served(self._repository)
        network = parse_network(_read(self._repository, target_name(NETWORK_PATH, targets.targets[NETWORK_PATH])))
        records = {}
        for each in network.members:
            short, path = each.member.partition("/")[2], record_path(each.member)
            if info := snapshot.meta.get(f"{short}.json"):
                found = parse(Targets, _read(self._repository, f"{info.version}.{short}.json"))
                record = parse_record(_read(self._repository, target_name(path, found.targets[path])))
                records[each.member] = info.version, record
        delegations = _delegations(targets)
        admitted = {}
        for file in sorted((self._folder / "admitted").glob("*.json")):
            request = parse_request(file.read_bytes())
            role, published = delegations.get(request.role), records.get(request.record.member, (0, None))[0]
            # A crash leaves the file before its delegation is written, or after its publication.
            if role and role.keyids == [request.key.keyid] and request.version > published:
                admitted[request.record.member] = request
        return _Desk(
            snapshot=snapshot,
            targets=targets,
            targets_info=file_info(version, data),
            network=network,
            records=records,
            admitted=admitted,
        )

    def _check(self, request: MemberRequest, desk: _Desk) -> None:
        """ProblemError for a request that must not be published."""
        member = request.record.member
        if member != f"{desk.network.network}/{request.role}":
            raise ProblemError("dir.invalid", "the member's name is of another network")
        version, known = desk.records.get(member, (0, None))
        if request.version <= version:
            raise ProblemError("dir.rollback", "this version of the record, or a newer one, is published already")
        if known:
            check_update(known, request.record)
        check_possession(request, known=known, verifier=self._verifier)
        others = {name: record for name, (_, record) in desk.records.items()}
        others |= {name: each.record for name, each in desk.admitted.items()}
        keys = public_keys(request.record)
        if any(name != member and not keys.isdisjoint(public_keys(each)) for name, each in others.items()):
            raise ProblemError("dir.key_use", "a key of the record is another member's already")

    def _ask(self, request: MemberRequest, desk: _Desk) -> bytes | None:
        """None where every new seal key is proven to be the member's, else the challenge that will prove it."""
        known = desk.records.get(request.record.member)
        keys = new_seal_keys(request.record, known[1] if known else None)
        if not keys:
            return None
        path, digest = self._folder / "pending" / f"{request.role}.json", b64u(request.digest)
        pending = parse_object(path.read_bytes(), bytes_max=MEMBER_REQUEST_BYTES_MAX) if path.exists() else {}
        if pending.get("record") == digest:
            nonces = {kid: unb64u(nonce) for kid, nonce in pending["nonces"].items()}
            if request.answer:
                check_answer(request, nonces)
                return None
        else:
            nonces = {key.kid: self._sealer.random(NONCE_BYTES) for key in keys}
            shown = {"record": digest, "nonces": {kid: b64u(nonce) for kid, nonce in nonces.items()}}
            write(path, dump_json(shown), mode=0o600)
        return challenge(request, nonces, keys, self._sealer)

    def _change_targets(self, desk: _Desk, network: Network, signers: Sequence[Signer], now: datetime) -> None:
        desk.targets.version += 1
        desk.targets.expires = expiry(Targets, now)
        _write_targets(self._repository, desk.targets, network, signers)

    def _write_member(self, request: MemberRequest) -> MetaFile:
        path = record_path(request.record.member)
        self._repository.keep(target_name(path, target_info(path, request.record_bytes)), request.record_bytes)
        self._repository.keep(f"{request.version}.{request.role}.json", request.metadata)
        return file_info(request.version, request.metadata)


def _key(targets: Targets, keyid: str) -> Key:
    assert targets.delegations is not None  # there is a role
    return targets.delegations.keys[keyid]


def _delegations(targets: Targets) -> dict[str, DelegatedRole]:
    if targets.delegations is None or targets.delegations.roles is None:
        raise ProblemError("dir.invalid", "the targets role has no delegations")
    return targets.delegations.roles


def _served(repository: Repository) -> Snapshot:
    timestamp = parse(Timestamp, _read(repository, "timestamp.json"))
    return parse(Snapshot, _read(repository, f"{timestamp.snapshot_meta.version}.snapshot.json"))


def _read(repository: Repository, name: str) -> bytes:
    data = repository.read(name)
    if data is None:
        raise ProblemError("dir.invalid", "the folder holds no directory, or a file of it is missing")
    return data


def _with_member(network: Network, member: str, roles: Sequence[MemberRole], status: Status) -> Network:
    others = [each for each in network.members if each.member != member]
    new = Admitted(member=member, roles=list(roles), status=status)
    return network.model_copy(update={"members": sorted([*others, new], key=lambda each: each.member)})


def _write_targets(repository: Repository, targets: Targets, network: Network, signers: Sequence[Signer]) -> MetaFile:
    """Writes directory.json and the targets role; `dir.signature` where fewer than the threshold signed."""
    data = dump_json(network.model_dump(mode="json", by_alias=True))
    targets.targets[NETWORK_PATH] = info = target_info(NETWORK_PATH, data)
    signed = signed_bytes(targets, signers)
    _, root = repository.newest("root")
    parse_role(signed, delegator=parse(Root, root), role=Targets.type)
    repository.keep(target_name(NETWORK_PATH, info), data)
    repository.keep(f"{targets.version}.targets.json", signed)
    return file_info(targets.version, signed)


def _write_snapshot(
    repository: Repository, version: int, meta: Mapping[str, MetaFile], online: Online, now: datetime
) -> None:
    snapshot = Snapshot(version=version, expires=expiry(Snapshot, now), meta=dict(meta))
    name = f"{version}.snapshot.json"
    # Not `keep`: a crash may have left a snapshot of this version that no timestamp ever named.
    write(repository.folder / name, signed_bytes(snapshot, [online.snapshot]))
    _write_timestamp(repository, name, online, now)


def _write_timestamp(repository: Repository, snapshot_name: str, online: Online, now: datetime) -> None:
    snapshot, before = _read(repository, snapshot_name), repository.read("timestamp.json")
    version = parse(Timestamp, before).version + 1 if before else 1
    info = file_info(int(snapshot_name.partition(".")[0]), snapshot)
    timestamp = Timestamp(version=version, expires=expiry(Timestamp, now), snapshot_meta=info)
    repository.keep("timestamp.json", signed_bytes(timestamp, [online.timestamp]))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
