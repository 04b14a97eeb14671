"""The directory from end to end: authority, members and nodes; every fault leaves the old version in force."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from adapters.directory.client import DirectoryClient
from adapters.directory.fetch import fetch_from
from adapters.directory.publisher import Authority, Online, Published, init_directory, new_network, sign_timestamp
from adapters.directory.repository import Repository, file_info, signed_bytes, write
from adapters.directory.request import answer_request, build_request, parse_request, possession_message, tuf_key
from adapters.directory.server import serve
from gateway.runtime.cli import directory as directory_cli
from gateway.runtime.cli import member as member_cli
from gateway.runtime.cli.member import member_request
from keys.keystore import KeyStore
from keys.secret import Secret
from keys.suite import Tw1Sealer, Tw1Verifier
from keys.tufsign import tuf_signer
from protocols.directory import Role
from protocols.ledger.entry import DirRef
from protocols.messages import TYPES
from protocols.problems import ProblemError
from protocols.strict import b64u, dump_json, unb64u

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
DAY = timedelta(days=1)


@dataclass
class Member:
    """A member's node: its keys and the requests it wrote."""

    name: str
    store: KeyStore
    version: int = 0
    request: bytes = b""

    def ask(self, now: datetime = NOW, **other: Any) -> bytes:
        self.version += 1
        previous = parse_request(self.request).record if self.request else None
        self.request = member_request(
            self.store, member=self.name, name="An agency", url="https://node.example:8443", spki=[],
            origin=f"{self.name}/2026.1", version=self.version, now=now, previous=previous, **other,
        )  # fmt: skip
        return self.request

    def altered(self, **changes: Any) -> bytes:
        """A request over a record with other members, signed by all that this member holds."""
        record = json.loads(parse_request(self.request).record_bytes) | changes
        data = dump_json(record)
        self.version += 1
        return build_request(
            record=data,
            version=self.version,
            record_key=self.store.public("record")[0],
            record_signer=tuf_signer(self.store.record_private()),
            possession=self.store.possession(possession_message(data)),
            now=NOW,
        )


@dataclass
class Network:
    """An authority with its offline signers, and what its repository served at some time."""

    folder: Path
    root: bytes
    roots: list[CryptoSigner]
    targets: list[CryptoSigner]
    online: Online
    authority: Authority
    members: dict[str, Member] = field(default_factory=dict)

    @property
    def repository(self) -> Path:
        return self.folder / "authority" / "repository"

    def new_member(self, short: str, network: str = "testnet") -> Member:
        store = KeyStore.create(self.folder / f"{network}-{short}", Secret.key_file(self.folder / "secret"))
        for use in ("record", "message", "seal", "request"):
            store.add(use)
        store.add("ledger", origin=f"{network}/{short}/2026.1")
        self.members[short] = Member(f"{network}/{short}", store)
        return self.members[short]

    def admit(self, data: bytes, roles: tuple[Role, ...] = ("registry",), now: datetime = NOW) -> bytes | None:
        return self.authority.admit(data, roles=roles, status="active", signers=self.targets, now=now)

    def publish(self, *requests: bytes, now: datetime = NOW) -> Published:
        return self.authority.publish(requests, online=self.online, now=now)

    def join(self, short: str, now: datetime = NOW) -> Member:
        member = self.new_member(short)
        challenge = self.admit(member.ask(now), now=now)
        assert challenge is not None
        member.request = answer_request(member.request, challenge, member.store.opener())
        assert self.admit(member.request, now=now) is None
        self.publish(now=now)
        return member

    def client(self, name: str = "node", source: Any = None) -> DirectoryClient:
        return DirectoryClient(self.folder / name, self.root, source or str(self.repository))

    def resign(self, change: Callable[[Snapshot], None]) -> None:
        """What whoever stole the publisher's online keys can do."""
        repository = Repository(folder=self.repository)
        version, data = repository.newest("snapshot")
        snapshot: Snapshot = Metadata[Snapshot].from_bytes(data).signed
        change(snapshot)
        snapshot.version = version + 1
        repository.keep(f"{version + 1}.snapshot.json", signed_bytes(snapshot, [self.online.snapshot]))
        timestamp: Timestamp = Metadata[Timestamp].from_bytes(repository.read("timestamp.json") or b"").signed
        timestamp.version += 1
        timestamp.snapshot_meta = file_info(version + 1, repository.read(f"{version + 1}.snapshot.json") or b"")
        repository.keep("timestamp.json", signed_bytes(timestamp, [self.online.timestamp]))

    def swap_role(self, short: str, data: bytes, record: bytes, member: str) -> None:
        """Serves another role file and record of a member under a fresh snapshot."""
        role: Targets = Metadata[Targets].from_bytes(data).signed
        info = next(iter(role.targets.values()))
        path = f"targets/members/{member}/{info.hashes['sha256']}.record.json"
        write(self.repository / path, record)
        write(self.repository / f"{role.version}.{short}.json", data)
        self.resign(lambda snapshot: snapshot.meta.update({f"{short}.json": file_info(role.version, data)}))


@pytest.fixture
def network(tmp_path: Path) -> Network:
    Secret.make_key_file(tmp_path / "secret")
    roots, targets = ([CryptoSigner.generate_mldsa() for _ in range(2)] for _ in range(2))
    online = Online(snapshot=CryptoSigner.generate_ed25519(), timestamp=CryptoSigner.generate_ed25519())
    folder = tmp_path / "authority"
    root = init_directory(
        folder, new_network("testnet", live=False),
        root_signers=roots, targets_signers=targets, threshold=2, online=online, now=NOW,
    )  # fmt: skip
    authority = Authority(folder, sealer=Tw1Sealer(), verifier=Tw1Verifier())
    return Network(tmp_path, root, roots, targets, online, authority)


async def refused(client: DirectoryClient, code: str, now: datetime = NOW) -> None:
    """A refresh fails with the code, and what was in force stays."""
    before = client.current
    with pytest.raises(ProblemError) as caught:
        await client.refresh(now)
    assert caught.value.code == code
    assert client.current is before


def code_of(call: Callable[[], Any]) -> str:
    with pytest.raises(ProblemError) as caught:
        call()
    return caught.value.code


# ---- joining


async def test_a_member_stands_in_the_directory_after_request_challenge_answer_and_publish(network: Network) -> None:
    member = network.new_member("reg")
    client = network.client()
    assert (await client.refresh(NOW)).records == {}
    challenge = network.admit(member.ask())
    assert challenge is not None
    network.publish()
    assert (await client.refresh(NOW)).records == {}, "an unanswered challenge admits nobody"
    assert network.admit(answer_request(member.request, challenge, member.store.opener())) is None
    assert network.publish().members == ("testnet/reg",)
    found = await client.refresh(NOW)
    assert found.active("testnet/reg")
    assert found.seal_key("testnet/reg", NOW).key == member.store.public("seal")[0]
    assert found.open_ledger("testnet/reg") == "testnet/reg/2026.1"
    assert found.network.matrix["trace.request"].senders == ["focal-point", "investigator", "manufacturer"]
    assert found.network.matrix.keys() == TYPES.keys(), "every type has its rule"
    assert not found.failing


async def test_a_second_admit_repeats_a_challenge_that_still_counts(network: Network) -> None:
    member = network.new_member("reg")
    first, again = network.admit(member.ask()), network.admit(member.request)
    assert first != again
    assert first is not None
    assert network.admit(answer_request(member.request, first, member.store.opener())) is None


async def test_a_new_message_key_needs_no_offline_key_and_the_old_one_ends(network: Network) -> None:
    member, client = network.join("reg"), network.client()
    old = (await client.refresh(NOW)).message_keys
    member.store.add("message")
    member.store.promote("message", NOW)
    assert network.publish(member.ask(NOW + DAY), now=NOW + DAY).members == ("testnet/reg",)
    keys = (await client.refresh(NOW + DAY)).message_keys
    assert len(old) == 1
    assert len(keys) == 2
    assert not keys[next(iter(old))].valid(NOW + DAY)
    assert keys[member.store.signer("message").kid].valid(NOW + DAY)


async def test_a_new_seal_key_waits_for_its_challenge_while_others_are_published(network: Network) -> None:
    reg, maker, client = network.join("reg"), network.join("maker"), network.client()
    reg.store.add("seal")
    done = network.publish(reg.ask(NOW + DAY), maker.ask(NOW + DAY), now=NOW + DAY)
    assert done.members == ("testnet/maker",)
    assert len((await client.refresh(NOW + DAY)).seal_keys) == 2
    answered = answer_request(reg.request, done.challenges["testnet/reg"], reg.store.opener())
    assert network.publish(answered, now=NOW + DAY).members == ("testnet/reg",)
    assert len((await client.refresh(NOW + DAY)).seal_keys) == 3


async def test_a_suspended_member_stays_listed_and_is_not_active(network: Network) -> None:
    network.join("reg")
    network.authority.set_member("testnet/reg", roles=(), status="suspended", signers=network.targets, now=NOW)
    network.publish()
    found = await network.client().refresh(NOW)
    assert not found.active("testnet/reg")
    assert found.admitted["testnet/reg"].roles == ["registry"]


# ---- what the authority refuses


def test_a_signature_of_another_key_proves_no_possession(network: Network) -> None:
    member = network.new_member("reg")
    request = json.loads(member.ask())
    kids = list(request["possession"])
    for kid in kids:
        if kid == member.store.public("record")[0].kid:
            continue
        other = next(each for each in kids if each != kid)
        swapped = request | {"possession": request["possession"] | {kid: request["possession"][other]}}
        assert code_of(partial(network.admit, dump_json(swapped))) == "dir.key_pop"
        missing = request | {"possession": {k: v for k, v in request["possession"].items() if k != kid}}
        assert code_of(partial(network.admit, dump_json(missing))) == "dir.key_pop"


def test_another_members_public_keys_cannot_be_claimed(network: Network) -> None:
    owner, thief = network.join("reg"), network.new_member("thief")
    keys = json.loads(parse_request(owner.request).record_bytes)["keys"]
    thief.ask()
    own = json.loads(parse_request(thief.request).record_bytes)["keys"]
    assert code_of(lambda: network.admit(thief.altered(keys=own | {"message": keys["message"]}))) == "dir.key_pop"
    assert code_of(lambda: network.admit(thief.altered(keys=own | {"seal": keys["seal"]}))) == "dir.key_use"


def test_a_wrong_or_foreign_answer_proves_no_seal_key(network: Network) -> None:
    member = network.new_member("reg")
    challenge = network.admit(member.ask()) or b""
    answered = json.loads(answer_request(member.request, challenge, member.store.opener()))
    kid = next(iter(answered["answer"]))
    assert code_of(lambda: network.admit(dump_json(answered | {"answer": {kid: b64u(bytes(32))}}))) == "dir.key_pop"
    assert code_of(lambda: network.admit(dump_json(answered | {"answer": {"other": b64u(bytes(32))}}))) == "dir.key_pop"
    stranger = network.new_member("other")
    stranger.ask()
    assert code_of(lambda: answer_request(member.request, challenge, stranger.store.opener())) == "dir.key_pop"
    member.ask(NOW + DAY)
    changed = member.altered(name="Another name")
    assert code_of(lambda: answer_request(changed, challenge, member.store.opener())) == "dir.key_pop"


def test_one_key_for_two_uses_is_refused(network: Network) -> None:
    member = network.new_member("reg")
    keys = json.loads(parse_request(member.ask()).record_bytes)["keys"]
    assert code_of(lambda: member.altered(keys=keys | {"request": keys["message"]})) == "dir.key_use"
    assert code_of(lambda: member.altered(keys=keys | {"seal": keys["message"]})) == "dir.key_use"


def test_a_request_changed_on_its_way_is_refused(network: Network) -> None:
    member = network.new_member("reg")
    request = json.loads(member.ask())
    record = unb64u(request["record"]).replace(b"An agency", b"A0 agency")
    assert code_of(lambda: network.admit(dump_json(request | {"record": b64u(record)}))) == "dir.hash"
    stranger = network.new_member("other").store.public("record")[0].jwk
    assert code_of(lambda: network.admit(dump_json(request | {"record_key": stranger}))) == "dir.signature"


def test_an_update_under_another_record_key_or_of_an_old_version_is_refused(network: Network) -> None:
    member = network.join("reg")
    assert code_of(lambda: network.publish(member.request)) == "dir.rollback"
    thief = network.new_member("thief")
    request = parse_request(member.ask(NOW + DAY))
    forged = build_request(
        record=request.record_bytes,
        version=9,
        record_key=thief.store.public("record")[0],
        record_signer=tuf_signer(thief.store.record_private()),
        possession=member.store.possession(possession_message(request.record_bytes)),
        now=NOW,
    )
    assert code_of(lambda: network.publish(forged)) == "dir.signature"
    assert code_of(lambda: network.admit(forged)) == "dir.invalid"


def test_the_next_record_key_comes_in_by_the_word_of_the_former(network: Network) -> None:
    member = network.join("reg")
    before = member.store.public("record")
    member.store.renew_record(NOW)
    assert member.store.public("record") != before
    network.admit(member.ask(NOW))
    network.publish()
    found = network.client().refresh
    assert member.name in asyncio.run(found(NOW)).records
    network.publish(member.ask(NOW))  # an update needs no offline key of the authority
    member.store.renew_record(NOW)
    assert len([key for key in member.store.inventory() if key.use == "record"]) == 2, "what is two changes old is gone"
    network.admit(member.ask(NOW))
    network.publish()
    assert member.name in asyncio.run(network.client("late").refresh(NOW)).records


def test_a_record_key_that_the_former_did_not_sign_for_has_to_stand_in_a_notice(network: Network) -> None:
    member = network.join("reg")
    (former,) = (network.folder / "testnet-reg").glob("record*.key")
    former.unlink()
    member.store.renew_record(NOW)
    request = member.ask(NOW)

    def admit(data: bytes, at: datetime, *, lost: bool = True) -> str:
        try:
            network.authority.admit(
                data, roles=["registry"], status="active", signers=network.targets, now=at, lost=lost
            )
        except ProblemError as problem:
            return problem.code
        return ""

    assert admit(request, NOW, lost=False) == "dir.invalid"
    assert admit(request, NOW) == "dir.notice"
    assert admit(request, NOW + 3 * DAY - timedelta(seconds=1)) == "dir.notice"
    member.store.renew_record(NOW)
    other = member.ask(NOW)
    assert admit(other, NOW + 3 * DAY) == "dir.notice", "another key begins anew"
    assert admit(request, NOW + 3 * DAY) == "dir.notice"
    assert admit(request, NOW + 6 * DAY) == ""
    network.publish(now=NOW + 6 * DAY)
    assert member.name in asyncio.run(network.client().refresh(NOW + 6 * DAY)).records


def test_a_record_that_drops_its_ledger_and_a_member_of_another_network_are_refused(network: Network) -> None:
    member = network.join("reg")
    member.store.add("ledger", origin="testnet/reg/2027.1")
    vkeys = list(member.store.note_signer("testnet/reg/2027.1").vkeys)
    other = [{"origin": "testnet/reg/2027.1", "vkeys": vkeys, "state": "open"}]
    assert code_of(lambda: network.publish(member.altered(ledgers=other))) == "dir.invalid"
    assert code_of(lambda: network.admit(network.new_member("reg", "othernet").ask())) == "dir.invalid"
    assert code_of(lambda: network.admit(network.new_member("snapshot").ask())) == "dir.invalid"


def test_fewer_targets_signers_than_the_threshold_admit_nobody(network: Network) -> None:
    member = network.join("reg")
    before = Repository(folder=network.repository).newest("targets")

    def revoke(signers: list[CryptoSigner]) -> None:
        network.authority.set_member(member.name, roles=(), status="revoked", signers=signers, now=NOW)

    assert code_of(lambda: revoke(network.targets[:1])) == "dir.signature"
    assert code_of(lambda: revoke([network.targets[0]] * 2)) == "dir.signature"
    newcomer = network.new_member("maker")
    answered = answer_request(newcomer.ask(), network.admit(newcomer.request) or b"", newcomer.store.opener())
    with pytest.raises(ProblemError):
        network.authority.admit(
            answered, roles=("manufacturer",), status="active", signers=network.targets[:1], now=NOW
        )
    assert network.publish().members == ()
    assert Repository(folder=network.repository).newest("targets") == before
    assert network.admit(answered) is None
    assert network.publish().members == ("testnet/maker",)


# ---- what the client refuses


async def test_nothing_new_costs_the_timestamp_and_a_question_for_the_next_root(network: Network) -> None:
    network.join("reg")
    asked: list[str] = []

    def fetch(name: str) -> bytes | None:
        asked.append(name)
        return fetch_from(str(network.repository))(name)

    client = network.client(source=fetch)
    await client.refresh(NOW)
    asked.clear()
    sign_timestamp(network.folder / "authority", online=network.online, now=NOW + DAY)
    found = await client.refresh(NOW + DAY)
    assert asked == ["2.root.json", "timestamp.json"]
    assert found.expires == NOW + 2 * DAY


async def test_an_expired_timestamp_is_accepted_within_the_grace_and_refused_after_it(network: Network) -> None:
    network.join("reg")
    found = await network.client().refresh(NOW + timedelta(hours=95))
    assert found.expires == NOW + DAY, "services judge: it is in the past"
    await refused(network.client("late"), "dir.expired", NOW + timedelta(hours=96))
    sign_timestamp(network.folder / "authority", online=network.online, now=NOW + 20 * DAY)
    assert (await network.client("late").refresh(NOW + 20 * DAY)).expires == NOW + 21 * DAY


async def test_the_snapshot_is_signed_anew_before_it_expires(network: Network) -> None:
    network.join("reg")
    client = network.client()
    before = await client.refresh(NOW)
    for day in range(1, 60):
        sign_timestamp(network.folder / "authority", online=network.online, now=NOW + day * DAY)
    found = await client.refresh(NOW + 60 * DAY)
    assert found.expires == NOW + 60 * DAY
    assert found.ref.version > before.ref.version
    assert found.records == before.records


async def test_an_older_version_is_a_rollback(network: Network) -> None:
    network.join("reg")
    old = (network.repository / "timestamp.json").read_bytes()
    network.join("maker")
    client = network.client()
    await client.refresh(NOW)
    write(network.repository / "timestamp.json", old)
    await refused(client, "dir.rollback")
    await refused(network.client(), "dir.rollback")  # also after a restart


async def test_bytes_that_nobody_signed_are_refused_and_the_old_version_stays(network: Network) -> None:
    network.join("reg")
    client = network.client()
    await client.refresh(NOW)
    good = (network.repository / "timestamp.json").read_bytes()
    stranger = Online(snapshot=CryptoSigner.generate_ed25519(), timestamp=CryptoSigner.generate_ed25519())
    sign_timestamp(network.folder / "authority", online=stranger, now=NOW)
    await refused(client, "dir.signature")
    write(network.repository / "timestamp.json", b"{}")
    await refused(client, "dir.invalid")
    write(network.repository / "timestamp.json", b"[" * 10_000)
    await refused(client, "dir.invalid")
    write(network.repository / "timestamp.json", b" " * 100_000)
    await refused(client, "dir.size")
    write(network.repository / "timestamp.json", good)
    network.publish()
    for path in network.repository.glob("*.snapshot.json"):
        write(path, path.read_bytes() + b" ")
    await refused(client, "dir.size")
    (network.repository / "timestamp.json").unlink()
    await refused(client, "dir.unreachable")


async def test_old_targets_under_a_new_snapshot_are_a_mixture(network: Network) -> None:
    network.join("reg")
    client = network.client()
    await client.refresh(NOW)
    network.join("maker")
    version, data = Repository(folder=network.repository).newest("targets")
    changed = data.replace(b"testnet/maker", b"testnet/mAker")
    write(network.repository / f"{version}.targets.json", changed)
    await refused(client, "dir.hash")


async def test_a_root_that_ours_did_not_sign_breaks_the_chain(network: Network) -> None:
    network.join("reg")
    client = network.client()
    await client.refresh(NOW)
    root = Metadata.from_bytes(network.root)
    root.signed.version = 2
    write(network.repository / "2.root.json", signed_bytes(root.signed, [CryptoSigner.generate_mldsa()]))
    await refused(client, "dir.root_chain")


async def test_r05_nodes_that_missed_two_roots_walk_the_chain_to_the_newest(network: Network) -> None:
    network.join("reg")
    away = [network.client(name) for name in ("one", "two", "three")]
    for client in away:
        await client.refresh(NOW)
    signers, root = list(network.roots), Metadata[Root].from_bytes(network.root).signed
    for version in (2, 3):
        leaving, coming = signers.pop(0), CryptoSigner.generate_mldsa()
        root.revoke_key(leaving.public_key.keyid, "root")
        root.add_key(coming.public_key, "root")
        root.version = version
        signers.append(coming)
        write(network.repository / f"{version}.root.json", signed_bytes(root, [leaving, *signers]))
    network.join("maker")
    for client in away:
        assert "testnet/maker" in (await client.refresh(NOW)).records
    fresh = await network.client("fresh").refresh(NOW)
    assert fresh.records.keys() == {"testnet/reg", "testnet/maker"}, "the first root is enough to begin with"


async def test_a_publisher_cannot_swap_a_members_keys(network: Network) -> None:
    member, client = network.join("reg"), network.client()
    before = await client.refresh(NOW)
    ghost = network.new_member("ghost")
    record = parse_request(member.request).record_bytes
    forged = json.loads(record) | {"keys": json.loads(parse_request(ghost.ask()).record_bytes)["keys"]}
    role: Targets = Metadata[Targets].from_bytes(parse_request(member.request).metadata).signed
    path, data = next(iter(role.targets)), dump_json(forged)
    role.version, role.targets[path] = 2, role.targets[path].from_data(path, data, ["sha256"])
    network.swap_role("reg", signed_bytes(role, [tuf_signer(ghost.store.record_private())]), data, member.name)
    found = await client.refresh(NOW)
    assert found.ref.version > before.ref.version
    assert dict(found.failing) == {"testnet/reg": "dir.signature"}
    assert found.records == before.records
    fresh = await network.client("fresh").refresh(NOW)
    assert dict(fresh.failing) == {"testnet/reg": "dir.signature"}
    assert fresh.records == {}


async def test_a_failing_record_keeps_its_last_good_one_for_72_hours_and_heals(network: Network) -> None:
    reg, _, client = network.join("reg"), network.join("maker"), network.client()
    good = await client.refresh(NOW)
    request = parse_request(reg.ask(NOW))
    network.publish(reg.request)
    path = network.repository / "2.reg.json"
    write(path, request.metadata.replace(b'"version":2', b'"version":3'))
    found = await client.refresh(NOW)
    assert dict(found.failing) == {"testnet/reg": "dir.hash"}
    assert found.records == good.records
    assert found.seal_key("testnet/reg", NOW)
    restarted = network.client()
    assert restarted.current is not None
    assert dict(restarted.current.failing) == {"testnet/reg": "dir.hash"}
    assert restarted.current.records == good.records
    later = NOW + timedelta(hours=73)
    stale = await restarted.refresh(later)
    assert dict(stale.failing) == {"testnet/reg": "dir.stale"}
    assert code_of(lambda: stale.seal_key("testnet/reg", later)) == "dir.stale"
    assert stale.seal_key("testnet/maker", later)
    write(path, request.metadata)
    healed = await restarted.refresh(later)
    assert not healed.failing
    assert network.client().current == healed


async def test_a_members_role_that_expired_is_named_while_the_others_load(network: Network) -> None:
    network.join("reg")
    late = NOW + timedelta(days=399)
    network.join("maker", now=late)
    client = network.client()
    assert not (await client.refresh(late)).failing
    at = NOW + timedelta(days=400, hours=1)
    sign_timestamp(network.folder / "authority", online=network.online, now=at)
    found = await client.refresh(at)  # root and targets are 400 days old too, but within their grace
    assert dict(found.failing) == {"testnet/reg": "dir.expired"}
    assert set(found.records) == {"testnet/reg", "testnet/maker"}


async def test_a_newcomer_with_another_members_key_fails_and_not_its_owner(network: Network) -> None:
    owner, client = network.join("reg"), network.client()
    await client.refresh(NOW)
    clone = network.join("aaa")
    await client.refresh(NOW)
    record = json.loads(parse_request(clone.request).record_bytes)
    record["keys"]["seal"] = json.loads(parse_request(owner.request).record_bytes)["keys"]["seal"]
    data = dump_json(record)
    role: Targets = Metadata[Targets].from_bytes(parse_request(clone.request).metadata).signed
    path = next(iter(role.targets))
    role.version, role.targets[path] = 2, role.targets[path].from_data(path, data, ["sha256"])
    network.swap_role("aaa", signed_bytes(role, [tuf_signer(clone.store.record_private())]), data, clone.name)
    found = await client.refresh(NOW)
    assert dict(found.failing) == {"testnet/aaa": "dir.key_use"}
    assert found.seal_key("testnet/reg", NOW).key == owner.store.public("seal")[0]


# ---- keeping and passing on


async def test_every_accepted_version_can_be_had_again_without_the_network(network: Network) -> None:
    client, versions = network.client(), []
    for short in ("reg", "maker", "focal"):
        network.join(short)
        versions.append(await client.refresh(NOW))
    network.repository.rename(network.folder / "gone")
    again = network.client()
    assert again.current == versions[-1]
    for version in versions:
        found = await again.at(version.ref)
        assert found is not None
        assert (found.records, found.network, found.ref) == (version.records, version.network, version.ref)
    assert await again.at(DirRef(version=2, sha256=bytes(32))) is None
    await refused(again, "dir.unreachable")


async def test_a_line_torn_by_a_crash_is_cut_off(network: Network) -> None:
    network.join("reg")
    client = network.client()
    found = await client.refresh(NOW)
    with (network.folder / "node" / "accepted.jsonl").open("ab") as file:
        file.write(b'{"version":9,"sha')
    network.join("maker")
    again = network.client()
    assert again.current == found
    newer = await again.refresh(NOW)
    assert network.client().current == newer


async def test_a_peer_is_as_good_a_source_as_the_authority(network: Network) -> None:
    network.join("reg")
    peer = network.client("peer")
    await peer.refresh(NOW)
    network.join("maker")
    newest = await peer.refresh(NOW)
    behind = network.client("behind", source=lambda _: None)
    await refused(behind, "dir.unreachable")
    assert await behind.refresh(NOW, fetch=peer.file) == newest


def test_no_name_leaves_the_mirror(network: Network) -> None:
    secret = network.folder / "node" / "secret.json"
    client = network.client()
    write(secret, b"{}")
    for name in ("../secret.json", "..", "targets/../../secret.json", "/etc/passwd", "1.root.json\n", "", ".new-x"):
        assert client.file(name) is None


async def test_the_authority_serves_its_repository_until_it_is_stopped(network: Network) -> None:
    network.join("reg")
    stop, bound = asyncio.Event(), asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        group.create_task(
            serve(
                network.folder / "authority", host="127.0.0.1", port=0, online=network.online,
                clock=lambda: NOW + DAY, stop=stop, ready=bound.set_result,
            )
        )  # fmt: skip
        url = f"http://127.0.0.1:{await bound}"
        found = await network.client(source=url).refresh(NOW + DAY)
        assert found.expires == NOW + 2 * DAY
        assert await asyncio.to_thread(fetch_from(url), "../keys/publisher/node.key") is None
        stop.set()
    await refused(network.client("late", source=url), "dir.unreachable")


@pytest.fixture
def hostile() -> Iterator[tuple[str, dict[str, Any]]]:
    """A server that answers every GET with what the test puts into the dict."""
    answer: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answer["status"])
            for name, value in answer["headers"].items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for piece in answer["body"]:
                    self.wfile.write(piece)
            except OSError:
                answer["cut"] = True

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", answer
    server.shutdown()
    thread.join()
    server.server_close()


def test_short_redirected_and_broken_answers_are_an_unreachable_source(
    hostile: tuple[str, dict[str, Any]],
) -> None:
    url, answer = hostile
    fetch = fetch_from(url)
    faults: list[dict[str, Any]] = [
        {"status": 200, "headers": {"Content-Length": "10"}, "body": [b"short"]},
        {"status": 302, "headers": {"Location": f"{url}/2.root.json", "Content-Length": "0"}, "body": []},
        {"status": 500, "headers": {"Content-Length": "0"}, "body": []},
    ]
    for fault in faults:
        answer |= fault
        with pytest.raises(OSError, match="source"):
            fetch("timestamp.json")
    answer |= {"status": 404, "headers": {"Content-Length": "0"}, "body": []}
    assert fetch("timestamp.json") is None


# ---- what python-tuf must go on doing


def test_a_record_key_has_the_key_id_that_securesystemslib_gives_it(network: Network) -> None:
    store = network.new_member("reg").store
    assert tuf_key(store.public("record")[0]) == tuf_signer(store.record_private()).public_key


def test_the_private_clock_of_python_tuf_is_where_we_set_it(network: Network) -> None:
    from tuf.ngclient import Updater  # noqa: PLC0415

    (network.folder / "t").mkdir()
    updater = Updater(str(network.folder / "t"), "tuf:/", bootstrap=network.root)
    assert isinstance(updater._trusted_set.reference_time, datetime)


# ---- command line


def run(app: Any, *words: object) -> None:
    app([str(word) for word in words], result_action="return_value", exit_on_error=False)


def test_the_commands_take_a_member_from_init_to_a_published_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, node, key = tmp_path / "authority", tmp_path / "node", tmp_path / "secret"
    secret = ("--key-file", key, "--json")

    def out() -> Any:
        return json.loads(capsys.readouterr().out)

    run(directory_cli.app, "init", folder, "--network", "testnet", *secret)
    root = Path(out()["root"]).read_bytes()
    store = KeyStore.create(node / "keys", Secret.key_file(key))
    for use in ("record", "message", "seal", "request"):
        store.add(use)
    store.add("ledger", origin="testnet/reg/2026.1")
    write(
        node / "tracewire.toml",
        b'member = "testnet/reg"\nname = "R"\ncountry = "US"\ndirectory = "d"\nexchange_url = "http://127.0.0.1:9"\n',
    )
    run(member_cli.app, "request", node, *secret)
    request = out()["request"]
    run(directory_cli.app, "admit", folder, request, "--role", "registry", "--role", "focal-point", *secret)
    challenge = out()["challenge"]
    run(member_cli.app, "request", node, "--answer", challenge, *secret)
    run(directory_cli.app, "admit", folder, request, "--role", "registry", *secret)
    capsys.readouterr()
    run(directory_cli.app, "publish", folder, *secret)
    assert out() == {"version": 2, "members": ["testnet/reg"], "challenges": {}}
    client = DirectoryClient(tmp_path / "client", root, str(folder / "repository"))
    found = asyncio.run(client.refresh(datetime.now(UTC)))
    assert found.active("testnet/reg")
    with pytest.raises(SystemExit) as caught:
        run(directory_cli.app, "publish", folder, request, *secret)
    assert caught.value.code == 1
    assert json.loads(capsys.readouterr().err)["code"] == "dir.rollback"
    run(directory_cli.app, "admit", folder, "testnet/reg", "--status", "revoked", *secret)
    assert out() == {"state": "revoked", "member": "testnet/reg"}


def test_offline_keys_that_were_taken_away_stop_admission_and_not_publication(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, secret = tmp_path / "authority", ("--key-file", tmp_path / "secret", "--json")
    run(directory_cli.app, "init", folder, "--network", "testnet", *secret)
    (folder / "keys" / "holder-2" / "targets.key").rename(tmp_path / "safe")
    run(directory_cli.app, "publish", folder, *secret)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run(directory_cli.app, "admit", folder, "testnet/nobody", "--status", "revoked", *secret)
    assert json.loads(capsys.readouterr().err)["code"] == "member.unknown"
