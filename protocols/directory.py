"""The directory document: the network, every member's record, and a frozen snapshot of both (docs/protocol.md section 5)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from protocols.jwk import PublicKey, check_seal_key
from protocols.ledger.checkpoint import LedgerKeys
from protocols.ledger.entry import DirRef
from protocols.ledger.witness import WitnessKeys
from protocols.limits import DIRECTORY_BYTES_MAX, RECORD_BYTES_MAX
from protocols.problems import Fault, ProblemError
from protocols.strict import b64u, parse_object, parse_time

MemberName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}/[a-z0-9][a-z0-9-]{0,31}$")]
Origin = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}/[a-z0-9-]{1,32}/20[0-9]{2}\.[1-9][0-9]{0,3}$")]


def _is_time(text: str) -> str:
    try:
        parse_time(text)
    except ProblemError as problem:
        raise ValueError(problem.detail) from None
    return text


Time = Annotated[str, AfterValidator(_is_time)]  # checked here, so that no record breaks the whole directory later
B64 = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")]
Role = Literal["focal-point", "registry", "manufacturer", "investigator", "hub", "witness", "auditor"]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Vkey = Annotated[str, StringConstraints(max_length=2_500)]
Version = Annotated[int, Field(ge=1, le=1)]
SUITE = "tw1"
_SPKI_ED25519 = bytes.fromhex("302a300506032b6570032100")  # RFC 8410: what TLS puts before the 32 bytes of the key
RECORD_PATH = "members/{member}/record.json"
_SATURDAY = 5
NETWORK_PATH = "directory.json"


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


_T = TypeVar("_T", bound=_Document)


class Position(_Document):
    """A ledger position; a revocation names one, never a time."""

    origin: Origin
    size: Annotated[int, Field(ge=0)]
    root: B64 | None = None


class KeyRecord(_Document):
    """One public key of one use, valid from `not_before` until `not_after` or, where revoked, up to a ledger position."""

    jwk: dict[str, str]
    not_before: Time
    not_after: Time | None = None
    revoked: Position | None = None


class KeyRecords(_Document):
    """A member's public keys by use; the newest valid seal key is the one to seal to."""

    message: Annotated[list[KeyRecord], Field(min_length=1, max_length=16)]
    seal: Annotated[list[KeyRecord], Field(min_length=1, max_length=16)]
    request: Annotated[list[KeyRecord], Field(min_length=1, max_length=16)]


class LedgerRecord(_Document):
    """One ledger of a member; `vkeys` are Ed25519 then ML-DSA-44."""

    origin: Origin
    vkeys: Annotated[list[Vkey], Field(min_length=2, max_length=2)]
    state: Literal["open", "closed"]
    final: Position | None = None


class Endpoint(_Document):
    """Where a member's exchange listener is; SHA-256 of the SubjectPublicKeyInfo of every TLS key it may show."""

    url: Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9.\[\]:-]{1,255}$")]
    spki: Annotated[list[B64], Field(max_length=4)] = []


class Competence(_Document):
    """What a member answers for: a country, makes, or both."""

    country: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")] | None = None
    makes: Annotated[list[Text], Field(max_length=200)] = []


class Agreement(_Document):
    """What two members agreed on between them; it counts where the records of both say the same."""

    member: MemberName
    urgent_hours: Annotated[int, Field(ge=1, le=8_760)]
    routine_days: Annotated[int, Field(ge=1, le=365)]


class Contact(_Document):
    """The national point of contact (UN ITI 25, 31): an office and how it is reached, never a person."""

    office: Text
    email: Annotated[str, StringConstraints(pattern=r"^[^@\s]{1,64}@[^@\s]{1,190}$")] | None = None
    telephone: Annotated[str, StringConstraints(pattern=r"^\+[0-9 ]{5,30}$")] | None = None
    languages: Annotated[list[Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")]], Field(max_length=16)] = []
    hours: Text | None = None


class Record(_Document):
    """`members/<member>/record.json`, signed by the member's own offline record key."""

    v: Version
    member: MemberName
    name: Text
    suite: Literal["tw1"]
    endpoint: Endpoint | None = None
    keys: KeyRecords
    witness: Annotated[list[Vkey], Field(min_length=2, max_length=2)] | None = None
    ledgers: Annotated[list[LedgerRecord], Field(min_length=1, max_length=64)]
    modes: Annotated[list[Literal["push", "pull", "hub", "courier"]], Field(min_length=1, max_length=4)] = ["push"]
    hubs: Annotated[list[MemberName], Field(max_length=8)] = []
    competences: Annotated[list[Competence], Field(max_length=64)] = []
    agreements: Annotated[list[Agreement], Field(max_length=200)] = []
    contact: Contact | None = None


class Admitted(_Document):
    """A member as the network sees it."""

    member: MemberName
    roles: Annotated[list[Role], Field(min_length=1, max_length=7)]
    status: Literal["active", "suspended", "revoked"]


class Rule(_Document):
    """Which roles may send a message type, and to which roles. The JSON members are `from` and `to`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True, defer_build=True)
    senders: Annotated[list[Role], Field(alias="from")]
    recipients: Annotated[list[Role], Field(alias="to")]


class Network(_Document):
    """`directory.json`: everything that is the network's, not a member's."""

    v: Version
    network: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
    live: bool
    members: Annotated[list[Admitted], Field(max_length=1_000)]
    matrix: dict[str, Rule]
    deadlines: dict[Literal["acknowledgement_days", "urgent_hours", "routine_days"], Annotated[int, Field(ge=1)]]
    witnesses: Annotated[list[Text], Field(max_length=64)] = []
    quorum: Annotated[int, Field(ge=0)] = 0
    abandoned: Annotated[list[Position], Field(max_length=1_000)] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key of the directory with its owner and validity."""

    member: str
    key: PublicKey
    not_before: datetime
    not_after: datetime | None
    revoked: Position | None

    def valid(self, now: datetime) -> bool:
        """Whether the key may be used at `now`."""
        return self.revoked is None and self.not_before <= now and (self.not_after is None or now < self.not_after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """A ledger of the directory with its owner; `last` is its final (or, where abandoned, last good) checkpoint."""

    member: str
    keys: LedgerKeys
    state: Literal["open", "closed", "abandoned"]
    last: Position | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """One accepted version, whole and cross-checked; immutable.

    `failing` names members whose newest record fails, with its code; `records` keeps their last good one, and after
    72 h the code is `dir.stale`: nothing is sealed to them, their parcels are answered with it.
    """

    ref: DirRef
    expires: datetime
    network: Network
    records: Mapping[str, Record]
    message_keys: Mapping[str, Key]
    seal_keys: Mapping[str, Key]
    request_keys: Mapping[str, Key]
    ledgers: Mapping[str, Ledger]
    failing: Mapping[str, str] = field(default_factory=dict)
    admitted: Mapping[str, Admitted] = field(default_factory=dict)

    def seal_key(self, member: str, now: datetime) -> Key:
        """A member's newest seal key that is valid now; `member.unknown`, `dir.stale` or `dir.key_unknown` else."""
        if member not in self.records:
            raise ProblemError("member.unknown", "no such member in the directory")
        if self.failing.get(member) == "dir.stale":
            raise ProblemError("dir.stale", "the member's newest record has failed for longer than the grace")
        valid = [key for key in self.seal_keys.values() if key.member == member and key.valid(now)]
        if not valid:
            raise ProblemError("dir.key_unknown", "the member has no valid seal key")
        return max(valid, key=lambda key: key.not_before)

    def answer_due(self, asker: str, answerer: str, at: datetime, *, urgent: bool) -> datetime:
        """When an answer is due by the agreement of the two, else by the network's deadlines (ITI sets no days)."""
        hours, days = (self.network.deadlines.get(name, 0) for name in ("urgent_hours", "routine_days"))
        terms = [
            {(each.urgent_hours, each.routine_days) for each in self.records[a].agreements if each.member == b}
            for a, b in ((asker, answerer), (answerer, asker))
        ]
        if agreed := terms[0] & terms[1]:
            hours, days = min(agreed)
        return at + (timedelta(hours=hours or 24) if urgent else timedelta(days=days or 30))

    def acknowledge_due(self, at: datetime) -> datetime:
        """When a request made at a time is to be acknowledged: working days are Monday to Friday, UTC."""
        for _ in range(self.network.deadlines.get("acknowledgement_days", 2)):
            at += timedelta(days=1)
            while at.weekday() >= _SATURDAY:
                at += timedelta(days=1)
        return at

    def open_ledger(self, member: str) -> str | None:
        """The origin of a member's newest open ledger: `<year>.<n>` in order of numbers, 2026.10 after 2026.9."""
        found = [origin for origin, each in self.ledgers.items() if each.member == member and each.state == "open"]
        return max(found, key=year_and_number, default=None)

    def permits(self, type_: str, sender: str, recipient: str) -> bool:
        """Whether both are active and the matrix lets a role of the one send this type to a role of the other."""
        rule = self.network.matrix.get(type_)
        return (
            rule is not None
            and self.active(sender)
            and self.active(recipient)
            and not set(rule.senders).isdisjoint(self.admitted[sender].roles)
            and not set(rule.recipients).isdisjoint(self.admitted[recipient].roles)
        )

    def ledgers_of(self, *members: str) -> list[str]:
        """The origins of these members' ledgers."""
        return [origin for origin, ledger in self.ledgers.items() if ledger.member in members]

    def carriers(self, member: str, sender: str) -> list[Record]:
        """Who takes a POST for a member, in the order of its record's modes: itself (push), its hubs.

        Empty for one that fetches, or to whom couriers go; and where the sender lists courier alone, since it has no network.
        """
        record, found = self.records[member], list[Record]()
        if self.on_foot(sender):
            return found
        for mode in record.modes:
            if mode == "push" and record.endpoint:
                found.append(record)
            elif mode == "hub":
                found += [self.records[hub] for hub in record.hubs if self.hub(hub, member)]
        return found

    def on_foot(self, *members: str) -> bool:
        """Whether one of these lists courier alone: nothing comes from it, or goes to it, but files."""
        return any(name in self.records and self.records[name].modes == ["courier"] for name in members)

    def reachable(self, member: str, sender: str) -> bool:
        """Whether a POST may go to the member itself."""
        return self.active(member) and self.records[member] in self.carriers(member, sender)

    def hub(self, hub: str, *members: str) -> bool:
        """Whether it is an active hub that the record of one of these members lists."""
        listed = any(hub in self.records[member].hubs for member in members if member in self.records)
        return (
            listed and self.active(hub) and "hub" in self.admitted[hub].roles and self.records[hub].endpoint is not None
        )

    def speaker(self, caller: str, about: set[str], us: str) -> str:
        """For which member a POST speaks that is about these: the caller itself, or one whose hub or ours it is.

        `peer.identity_mismatch` for several, and for one for whom the caller does not speak.
        """
        (speaker, *more) = about or {caller}
        if more or (speaker != caller and not self.hub(caller, speaker, us)):
            raise ProblemError("peer.identity_mismatch", "the caller is no hub of the member that this is of")
        return speaker

    def witnesses_of(self, member: str) -> list[str]:
        """Whom a member asks to witness its ledgers: those that the network names, or else every active member that can."""
        named = self.network.witnesses or self.records
        return [
            name
            for name in named
            if name != member
            and self.active(name)
            and self.records[name].witness
            and (self.records[name].endpoint or self.on_foot(name))
        ]

    def listening(self) -> list[str]:
        """Active members with an endpoint."""
        return [name for name, record in self.records.items() if self.active(name) and record.endpoint is not None]

    def quorum_of(self, member: str) -> int:
        """How many have to cosign a member's ledger: the network's quorum, as far as there are others to ask."""
        return min(self.network.quorum, len({*(self.network.witnesses or self.admitted)} - {member}))

    def active(self, member: str) -> bool:
        """Whether a member is admitted and neither suspended nor revoked."""
        return member in self.records and self.admitted[member].status == "active"


def parse_network(data: bytes) -> Network:
    """`directory.json`; `dir.invalid` or `json.*` else."""
    network = _validate(Network, parse_object(data, bytes_max=DIRECTORY_BYTES_MAX))
    names = [each.member for each in network.members]
    if len(set(names)) != len(names) or any(name.partition("/")[0] != network.network for name in names):
        raise ProblemError("dir.invalid", "a member is listed twice, or is of another network")
    return network


def parse_record(data: bytes) -> Record:
    """A member's record; `dir.invalid`, `dir.key_use`, `dir.key_invalid` or `json.*` else."""
    record = _validate(Record, parse_object(data, bytes_max=RECORD_BYTES_MAX))
    public_keys(record)
    for ledger in record.ledgers:
        if ledger.origin.rpartition("/")[0] != record.member:
            raise ProblemError("dir.invalid", "a ledger's origin does not begin with the member's name")
    if len({ledger.origin for ledger in record.ledgers}) != len(record.ledgers):
        raise ProblemError("dir.invalid", "a ledger is listed twice")
    return record


def public_keys(record: Record) -> frozenset[bytes]:
    """Every raw public key of a record; `dir.key_use` where one has two uses, `dir.key_invalid` for a malformed one."""
    publics = []
    for use, alg in _ALG.items():
        for each in getattr(record.keys, use):
            key = PublicKey.parse(each.jwk)
            if key.alg != alg:
                raise ProblemError("dir.key_use", f"a {use} key is {alg}")
            if use == "seal":
                check_seal_key(key.public)
            publics.append(key.public)
    for ledger in record.ledgers:
        pair = LedgerKeys.parse(ledger.origin, (ledger.vkeys[0], ledger.vkeys[1]))
        publics += [pair.ed25519.public, pair.mldsa44.public]
    if (witness := witness_keys(record)) is not None:
        publics += [witness.ed25519.public, witness.mldsa44.public]
    if len(set(publics)) != len(publics):
        raise ProblemError("dir.key_use", "a key appears twice in the record")
    pins = record.endpoint.spki if record.endpoint else []
    if not set(pins).isdisjoint(b64u(sha256(_SPKI_ED25519 + public).digest()) for public in publics):
        raise ProblemError("dir.key_use", "a key of the record is a TLS key too")
    return frozenset(publics)


def witness_keys(record: Record) -> WitnessKeys | None:
    """What the member signs as a witness of others' ledgers, where its record lists it; `dir.key_invalid` for malformed ones."""
    return WitnessKeys.parse(record.member, (record.witness[0], record.witness[1])) if record.witness else None


def check_update(old: Record, new: Record) -> None:
    """`dir.invalid` where a newer record drops or reopens a ledger, or changes a listed origin's keys or final size."""
    newer = {ledger.origin: ledger for ledger in new.ledgers}
    for ledger in old.ledgers:
        found = newer.get(ledger.origin)
        reopened = found is not None and (ledger.state, found.state) == ("closed", "open")
        if found is None or reopened or found.vkeys != ledger.vkeys or (ledger.final and found.final != ledger.final):
            raise ProblemError("dir.invalid", "the record drops or changes a ledger that it listed")
    if old.member != new.member:
        raise ProblemError("dir.invalid", "the record is of another member")


def build_directory(
    *,
    ref: DirRef,
    expires: datetime,
    network: Network,
    records: Mapping[str, Record],
    failing: Mapping[str, str] | None = None,
) -> Directory:
    """The snapshot over verified documents; records of members that are not admitted are left out.

    ProblemError `dir.key_use` where a key appears twice, `dir.key_invalid` for a malformed one.
    """
    admitted = {each.member: each for each in network.members}
    listed = {name: record for name, record in records.items() if name in admitted}
    _keys_once(list(listed.values()))
    keys: dict[str, dict[str, Key]] = {"message": {}, "seal": {}, "request": {}}
    ledgers: dict[str, Ledger] = {}
    given_up = {position.origin: position for position in network.abandoned}
    for name, record in listed.items():
        for use, found in keys.items():
            for each in getattr(record.keys, use):
                key = _key(name, each)
                found[key.key.kid] = key
        for ledger in record.ledgers:
            pair = LedgerKeys.parse(ledger.origin, (ledger.vkeys[0], ledger.vkeys[1]))
            gone = given_up.get(ledger.origin)
            ledgers[ledger.origin] = Ledger(
                member=name, keys=pair, state="abandoned" if gone else ledger.state, last=gone or ledger.final
            )
    return Directory(
        ref=ref,
        expires=expires,
        network=network,
        records=listed,
        message_keys=keys["message"],
        seal_keys=keys["seal"],
        request_keys=keys["request"],
        ledgers=ledgers,
        failing=failing or {},
        admitted=admitted,
    )


def year_and_number(origin: str) -> tuple[int, ...]:
    """Year and number of an origin, to order ledgers: 2026.9 before 2026.10."""
    return tuple(int(part) for part in origin.rpartition("/")[2].split("."))


_ALG = {"message": "Ed25519", "seal": "HPKE-9-KE", "request": "Ed25519"}


def _key(member: str, record: KeyRecord) -> Key:
    return Key(
        member=member,
        key=PublicKey.parse(record.jwk),
        not_before=parse_time(record.not_before),
        not_after=parse_time(record.not_after) if record.not_after else None,
        revoked=record.revoked,
    )


def _keys_once(records: list[Record]) -> None:
    """Every key has one use and appears once in the directory."""
    seen: set[bytes] = set()
    for record in records:
        keys = public_keys(record)
        if not seen.isdisjoint(keys):
            raise ProblemError("dir.key_use", "a key appears twice in the directory")
        seen |= keys


def _validate(model: type[_T], found: dict[str, Any]) -> _T:
    try:
        return model.model_validate(found, by_alias=True, by_name=False)
    except ValidationError as error:
        faults = [
            Fault(
                "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in each["loc"]),
                "dir.invalid",
                each["msg"],
                "Correct the member and sign the document again.",
            )
            for each in error.errors(include_input=False, include_url=False)[:20]
        ]
        raise ProblemError("dir.invalid", f"{len(faults)} faults", errors=faults) from None
