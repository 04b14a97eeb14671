"""Group directory: whoever holds the publisher, its online keys or one offline key changes nothing that is in force."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Metadata, Root, Targets

from adapters.directory.fetch import fetch_from
from adapters.directory.publisher import Authority, Online, init_directory, new_network
from adapters.directory.repository import Repository, file_info, signed_bytes, target_info, target_name, write
from adapters.directory.request import parse_request
from gateway.runtime.compose import wrong
from keys.secret import Secret
from keys.suite import Tw1Sealer, Tw1Verifier, seal_private
from keys.tufsign import tuf_signer
from protocols.directory import parse_network, parse_record
from protocols.exchange.lines import encode_post
from protocols.jwk import PublicKey
from protocols.limits import DIRECTORY_FILE_BYTES_MAX
from protocols.problems import ProblemError
from protocols.strict import b64u, dump_json, unb64u
from tests.adapters.test_directory import DAY, NOW, Member, Network, code_of, refused
from tests.federation import Federation, match_ledgers, wait_until
from tests.federation import refused as node_refused

Json = dict[str, Any]


class Signed(Network):
    """An authority that publishes what it should not."""

    def retarget(self, change: Callable[[Targets], None], signers: list[CryptoSigner] | None = None) -> None:
        """A new targets version under a fresh snapshot: what who holds offline and online keys can publish."""
        repository = Repository(folder=self.repository)
        version, data = repository.newest("targets")
        targets: Targets = Metadata[Targets].from_bytes(data).signed
        targets.version = version + 1
        change(targets)
        made = signed_bytes(targets, self.targets if signers is None else signers)
        repository.keep(f"{version + 1}.targets.json", made)
        self.resign(lambda snapshot: snapshot.meta.update({"targets.json": file_info(version + 1, made)}))

    def renetwork(self, **changes: Any) -> None:
        """Another directory.json, signed by the targets threshold."""
        repository = Repository(folder=self.repository)
        targets: Targets = Metadata[Targets].from_bytes(repository.newest("targets")[1]).signed
        found = json.loads(repository.read(target_name("directory.json", targets.targets["directory.json"])) or b"")
        data = dump_json(found | changes)
        info = target_info("directory.json", data)
        write(self.repository / target_name("directory.json", info), data)
        self.retarget(lambda each: each.targets.update({"directory.json": info}))

    def reroot(self, change: Callable[[Root], None], signers: list[CryptoSigner], name: str = "2.root.json") -> None:
        root: Root = Metadata[Root].from_bytes(self.root).signed
        root.version = 2
        change(root)
        write(self.repository / name, signed_bytes(root, signers))

    def swap(self, member: Member, change: Callable[[Json], None], signer: Any = None) -> None:
        """Another record of a member; signed by its own record key, or by somebody else's."""
        request = parse_request(member.request)
        record = json.loads(request.record_bytes)
        change(record)
        data = dump_json(record)
        role: Targets = Metadata[Targets].from_bytes(request.metadata).signed
        path = next(iter(role.targets))
        role.version, role.targets[path] = role.version + 1, target_info(path, data)
        signer = signer or tuf_signer(member.store.record_private())
        self.swap_role(member.name.partition("/")[2], signed_bytes(role, [signer]), data, member.name)


@pytest.fixture
def network(tmp_path: Path) -> Signed:
    Secret.make_key_file(tmp_path / "secret")
    roots, targets = ([CryptoSigner.generate_mldsa() for _ in range(3)] for _ in range(2))
    online = Online(snapshot=CryptoSigner.generate_ed25519(), timestamp=CryptoSigner.generate_ed25519())
    folder = tmp_path / "authority"
    root = init_directory(
        folder, new_network("testnet", live=False), root_signers=roots, targets_signers=targets, threshold=2,
        online=online, now=NOW,
    )  # fmt: skip
    return Signed(tmp_path, root, roots, targets, online, Authority(folder, sealer=Tw1Sealer(), verifier=Tw1Verifier()))


# ---- D06: endless data


@pytest.fixture
def drip() -> Iterator[tuple[str, Json]]:
    """A server that never ends its answer: `piece` again and again, after `pause_s` each."""
    how: Json = {"piece": bytes(1 << 20), "pause_s": 0.0, "sent": 0, "stop": False}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            try:
                while not how["stop"]:
                    self.wfile.write(how["piece"])
                    how["sent"] += len(how["piece"])
                    time.sleep(how["pause_s"])
            except OSError:
                how["cut"] = True

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", how
    how["stop"] = True
    server.shutdown()
    thread.join()
    server.server_close()


async def test_endless_data_is_cut_off_and_refused_by_its_size(network: Signed, drip: tuple[str, Json]) -> None:
    network.join("reg")
    client = network.client()
    before = await client.refresh(NOW)
    url, how = drip
    endless, good = fetch_from(url), fetch_from(str(network.repository))
    network.join("maker")
    for slow in ("timestamp.json", "snapshot.json", "targets.json", "maker.json", "record.json", "directory.json"):
        hostile = network.client(
            slow, source=lambda name, slow=slow: endless(name) if name.endswith(slow) else good(name)
        )
        sent = how["sent"]
        if slow in ("maker.json", "record.json"):  # a member's fault is its own, and named
            faulty = ("testnet/maker",) if slow == "maker.json" else ("testnet/maker", "testnet/reg")
            assert dict((await hostile.refresh(NOW)).failing) == dict.fromkeys(faulty, "dir.size")
        else:
            await refused(hostile, "dir.size")
        assert how["sent"] - sent < 8 * DIRECTORY_FILE_BYTES_MAX, "a gigabyte is not read"
    assert client.current is before


def test_a_drip_of_bytes_ends_at_the_deadline_of_a_whole_file(
    drip: tuple[str, Json],
) -> None:
    url, how = drip
    how |= {"piece": b" ", "pause_s": 0.02}
    start = time.monotonic()
    with pytest.raises(OSError, match="too slowly"):
        fetch_from(url, file_s=0.3)("timestamp.json")
    assert time.monotonic() - start < 5


# ---- D07, D08: signers and roots


async def test_one_signer_counts_once(network: Signed) -> None:
    network.join("reg")
    client = network.client()
    before = await client.refresh(NOW)
    one = network.targets[0]
    network.retarget(lambda targets: None, [one])
    await refused(client, "dir.signature")
    repository = Repository(folder=network.repository)
    version, data = repository.newest("targets")
    found = json.loads(data)
    for many in (
        found["signatures"] * 2,  # twice under its own name
        found["signatures"] + [{**found["signatures"][0], "keyid": network.targets[1].public_key.keyid}],
        found["signatures"] + [{**found["signatures"][0], "keyid": "0" * 64}],
    ):
        forged = dump_json(found | {"signatures": many})
        write(network.repository / f"{version}.targets.json", forged)
        network.resign(
            lambda snapshot, forged=forged: snapshot.meta.update({"targets.json": file_info(version, forged)})
        )
        with pytest.raises(ProblemError) as caught:
            await network.client().refresh(NOW)
        assert caught.value.code in {"dir.signature", "dir.invalid"}
    assert client.current is before


async def test_a_root_that_counts_one_key_under_two_names_is_refused(network: Signed) -> None:
    network.join("reg")
    client = network.client()
    await client.refresh(NOW)
    key = network.targets[0].public_key
    public = dict(key.keyval)
    alias = SSlibKey("a" * 64, key.keytype, key.scheme, public | {"public": public["public"].replace("\n", "\n\n", 1)})

    def two_names(root: Root) -> None:
        root.keys[alias.keyid] = alias
        root.roles["targets"].keyids = [key.keyid, alias.keyid]

    network.reroot(two_names, network.roots[:2])
    await refused(client, "dir.signature")


async def test_a_root_that_skips_a_version_or_that_the_old_one_did_not_sign_is_not_followed(network: Signed) -> None:
    network.join("reg")
    client = network.client()
    before = await client.refresh(NOW)
    others = [CryptoSigner.generate_mldsa() for _ in range(2)]

    def taken_over(root: Root) -> None:
        root.keys |= {each.public_key.keyid: each.public_key for each in others}
        root.roles["root"].keyids = [each.public_key.keyid for each in others]

    for change, signers in (
        (lambda root: setattr(root, "version", 3), network.roots),  # signed by all, one version too far
        (lambda root: setattr(root, "version", 1), network.roots),
        (lambda root: None, network.roots[:1]),  # one of a threshold of two
        (lambda root: None, others),
        (taken_over, others),  # the new keys alone
        (taken_over, network.roots),  # the old keys alone: nobody shows that the new ones exist
        (taken_over, [network.roots[0], others[0]]),
        (lambda root: None, network.targets),
    ):
        network.reroot(change, signers)
        await refused(client, "dir.root_chain")
    (network.repository / "2.root.json").unlink()
    network.reroot(lambda root: setattr(root, "version", 3), network.roots, "3.root.json")
    assert (await client.refresh(NOW)).ref == before.ref, "a version that leaves a gap is never asked for"
    network.reroot(taken_over, [*network.roots, *others])
    (network.repository / "3.root.json").unlink()
    assert (await client.refresh(NOW)).ref == before.ref, "both thresholds together lead on"


# ---- D10, D15: the floor is ours


def classical(record: Json) -> None:
    record["keys"]["seal"] = record["keys"]["message"]


BELOW: dict[str, tuple[str, Callable[[Json], Any]]] = {
    "an Ed25519 key to seal to": ("dir.key_use", classical),
    "an X25519 key to seal to": ("dir.key_invalid", lambda r: r["keys"]["seal"][0].update(jwk={"kty": "OKP", "crv": "X25519", "x": b64u(bytes([9]) + bytes(31))})),
    "a P-256 key to seal to": ("dir.key_invalid", lambda r: r["keys"]["seal"][0].update(jwk={"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"})),
    "ML-KEM alone": ("dir.key_invalid", lambda r: r["keys"]["seal"][0].update(jwk={"kty": "AKP", "alg": "ML-KEM-768", "pub": b64u(bytes(1184))})),
    "a classical HPKE suite": ("dir.key_invalid", lambda r: r["keys"]["seal"][0].update(jwk={"kty": "AKP", "alg": "HPKE-0-KE", "pub": b64u(bytes(32))})),
    "no seal key": ("dir.invalid", lambda r: r["keys"].update(seal=[])),
    "another suite": ("dir.invalid", lambda r: r.update(suite="tw0")),
    "no suite": ("dir.invalid", lambda r: r.pop("suite")),
    "a list of suites": ("dir.invalid", lambda r: r.update(suite=["tw1", "tw0"])),
    "a policy of its own": ("dir.invalid", lambda r: r.update(policy={"seal": ["X25519"]})),
    "a ledger without its ML-DSA key": ("dir.invalid", lambda r: r["ledgers"][0]["vkeys"].pop()),
    "a ledger with two Ed25519 keys": ("dir.key_invalid", lambda r: r["ledgers"][0]["vkeys"].__setitem__(1, r["ledgers"][0]["vkeys"][0])),
    "a message key of ML-DSA-65": ("dir.key_use", lambda r: r["keys"]["message"][0].update(jwk=PublicKey("ML-DSA-65", bytes(1952)).jwk)),
}  # fmt: skip


@pytest.mark.parametrize("name", BELOW)
async def test_a_record_below_the_policy_floor_never_comes_into_force(network: Signed, name: str) -> None:
    code, change = BELOW[name]
    member, client = network.join("reg"), network.client()
    before = await client.refresh(NOW)
    network.swap(member, change)  # signed by the member itself: its word does not lower our floor
    found = await client.refresh(NOW)
    assert dict(found.failing) == {"testnet/reg": code}
    assert (found.records, found.seal_keys) == (before.records, before.seal_keys), "its last good key is sealed to"
    late = await client.refresh(NOW + timedelta(hours=73))
    assert code_of(lambda: late.seal_key("testnet/reg", NOW)) == "dir.stale", "then nothing is sent"
    fresh = await network.client("fresh").refresh(NOW)
    assert code_of(lambda: fresh.seal_key("testnet/reg", NOW)) == "member.unknown"


@pytest.mark.parametrize("more", ["suites", "policy", "seal", "min_suite", "algorithms", "__proto__"])
async def test_a_directory_cannot_lower_the_policy_of_a_node(network: Signed, more: str) -> None:
    network.join("reg")
    client = network.client()
    await client.refresh(NOW)
    network.renetwork(**{more: ["tw0", "X25519", "Ed25519"]})
    await refused(client, "dir.invalid")


# ---- D12, D14: names and records


@pytest.mark.parametrize(
    "name",
    ["testnet/Reg", "testnet/r\u0435g", "testnet/reg\u200b", "testnet/reg ", "testnet/\uff52eg", "Testnet/reg", "testnet/re\u0301g",
     "testnet/\u202egER", "testnet/reg/x", "testnet/", "reg", "othernet/reg", "testnet/-reg", "testnet/" + "r" * 33, "testnet/reg\n", "testnet/../reg"],
)  # fmt: skip
async def test_a_member_has_one_spelling(network: Signed, name: str) -> None:
    network.join("reg")
    client = network.client()
    await client.refresh(NOW)
    found = json.loads(client.current.network.model_dump_json(by_alias=True)) if client.current else {}
    also = {"member": name, "roles": ["registry"], "status": "active"}
    network.renetwork(members=[*found["members"], also])
    await refused(client, "dir.invalid")
    assert code_of(lambda: parse_network(dump_json(found | {"members": [also]}))) == "dir.invalid"
    member = network.members["reg"]
    record = json.loads(parse_request(member.request).record_bytes)
    assert code_of(lambda: parse_record(dump_json(record | {"member": name}))) == "dir.invalid"


async def test_a_member_listed_twice_is_refused(network: Signed) -> None:
    network.join("reg")
    client = network.client()
    found = json.loads((await client.refresh(NOW)).network.model_dump_json(by_alias=True))
    network.renetwork(members=found["members"] * 2)
    await refused(client, "dir.invalid")


GHOST, GHOST_PUBLIC = seal_private(bytes(range(1, 33)))
SWAPS: dict[str, Callable[[Json], Any]] = {
    "a ghost beside its seal key": lambda r: r["keys"]["seal"].append({"jwk": PublicKey("HPKE-9-KE", GHOST_PUBLIC).jwk, "not_before": "2026-12-01T00:00:00.000Z"}),
    "a ghost instead of its seal key": lambda r: r["keys"]["seal"][0].update(jwk=PublicKey("HPKE-9-KE", GHOST_PUBLIC).jwk),
    "another endpoint": lambda r: r.update(endpoint={"url": "https://elsewhere.example", "spki": []}),
    "another pin": lambda r: r["endpoint"].update(spki=[b64u(bytes(32))]),
    "a hub": lambda r: r.update(hubs=["testnet/hub"]),
    "a key revoked": lambda r: r["keys"]["message"][0].update(revoked={"origin": "testnet/reg/2026.1", "size": 0}),
    "a key that lives longer": lambda r: r["keys"]["message"][0].update(not_after="2099-01-01T00:00:00.000Z"),
    "its ledger closed": lambda r: r["ledgers"][0].update(state="closed"),
    "nothing at all": lambda r: None,
}  # fmt: skip


@pytest.mark.parametrize("name", SWAPS)
async def test_a_publisher_changes_nothing_of_a_member(network: Signed, name: str) -> None:
    member, client = network.join("reg"), network.client()
    before = await client.refresh(NOW)
    network.swap(member, SWAPS[name], signer=CryptoSigner.generate_mldsa())
    found = await client.refresh(NOW)
    assert dict(found.failing) == {"testnet/reg": "dir.signature"}
    assert (found.records, found.seal_keys) == (before.records, before.seal_keys)


# ---- J38, J45: keys


def sealing_to(public: bytes) -> Callable[[Json], Any]:
    return lambda r: r["keys"]["seal"][0].update(jwk=PublicKey("HPKE-9-KE", public).jwk)


def unreduced(at: int, value: int) -> bytes:
    """A good key with one ML-KEM coefficient that is not below q."""
    packed = int.from_bytes(GHOST_PUBLIC[:1152], "little")
    packed = packed & ~(0xFFF << 12 * at) | value << 12 * at
    return packed.to_bytes(1152, "little") + GHOST_PUBLIC[1152:]


P = 2**255 - 19
SMALL = (
    0, 1, P - 1, P, P + 1, 325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)  # fmt: skip
MALFORMED: dict[str, bytes] = {
    **{f"coefficient {at} is {value}": unreduced(at, value) for at, value in ((0, 3_329), (1, 3_330), (255, 4_095), (767, 3_329), (400, 0xD01))},
    **{f"a small point {n}": GHOST_PUBLIC[:1184] + value.to_bytes(32, "little") for n, value in enumerate(SMALL)},
    **{f"a small point {n} with the high bit": GHOST_PUBLIC[:1184] + (value | 1 << 255).to_bytes(32, "little") for n, value in enumerate(SMALL)},
    "all ones": b"\xff" * 1216,
    "one byte short": GHOST_PUBLIC[:-1],
    "one byte more": GHOST_PUBLIC + b"\0",
    "no X25519 half": GHOST_PUBLIC[:1184],
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_key_to_which_nothing_may_be_sealed_never_comes_into_force(network: Signed, name: str) -> None:
    member, client = network.join("reg"), network.client()
    before = await client.refresh(NOW)
    network.swap(member, sealing_to(MALFORMED[name]))
    found = await client.refresh(NOW)
    assert dict(found.failing) == {"testnet/reg": "dir.key_invalid"}
    assert found.seal_keys == before.seal_keys


async def test_a_coefficient_of_q_less_one_and_an_honest_point_are_taken(network: Signed) -> None:
    member, client = network.join("reg"), network.client()
    network.swap(member, sealing_to(unreduced(0, 3_328)))
    assert not (await client.refresh(NOW)).failing
    (key,) = (await client.refresh(NOW)).seal_keys.values()
    assert Tw1Sealer().wrap(key.key.public, b"").cek


def one_for_two(name: str, record: Json) -> None:
    keys = record["keys"]
    message = unb64u(keys["message"][0]["jwk"]["x"])
    vkey = record["ledgers"][0]["vkeys"][0]
    match name:
        case "message and request":
            keys["request"] = keys["message"]
        case "message and seal":
            keys["seal"] = keys["message"]
        case "one key listed twice":
            keys["message"] = keys["message"] * 2
        case "ledger and message":
            keys["message"][0]["jwk"] = PublicKey("Ed25519", base64.b64decode(vkey.split("+", 2)[2])[1:]).jwk
        case "TLS and message":
            record["endpoint"]["spki"] = [b64u(pin_of(message))]
        case "TLS and request":
            record["endpoint"]["spki"] = [b64u(bytes(32)), b64u(pin_of(unb64u(keys["request"][0]["jwk"]["x"])))]


def pin_of(public: bytes) -> bytes:
    """The pin of a TLS certificate over an Ed25519 key."""
    key = Ed25519PublicKey.from_public_bytes(public)
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


@pytest.mark.parametrize(
    "name",
    ["message and request", "message and seal", "one key listed twice", "ledger and message", "TLS and message", "TLS and request"],
)  # fmt: skip
async def test_a_key_has_one_use(network: Signed, name: str) -> None:
    member, client = network.join("reg"), network.client()
    before = await client.refresh(NOW)
    network.swap(member, lambda record: one_for_two(name, record))
    found = await client.refresh(NOW)
    assert dict(found.failing) == {"testnet/reg": "dir.key_use"}
    assert found.records == before.records


# ---- D03: freeze


async def test_a_frozen_directory_is_loud_then_holds_what_is_submitted_and_drops_nothing(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    (m,) = await fed.strangers("m")

    async def expired() -> None:
        with pytest.raises(ProblemError) as caught:
            await a._ports.directory.refresh(fed.clock.now())
        assert caught.value.code == "dir.expired"

    def said(node: Any) -> dict[str, str]:
        return wrong(node._ports, node.parts.committer)

    assert said(a) == {}
    fed.clock.ahead += DAY + timedelta(hours=1)
    assert said(a) == said(b) == {"directory": "dir.expired"}, "loud"
    in_grace = await a.trace(b)
    await a.becomes(in_grace, "delivered")
    fed.clock.ahead += 3 * DAY
    await expired()
    assert said(a) == {"directory": "dir.stale"}
    held, posts = await a.trace(b), len(a.wire.posts)
    incoming = m.parcel(b)
    client = m.client()
    await node_refused("dir.stale", client.post(fed.directory.records[b.name], encode_post(m.post_of(incoming))))
    await client.close()
    assert await a.parts.deliver.deliver(b.name) is False
    assert (await a.delivery(held), len(a.wire.posts)) == ("queued", posts)
    await fed.refresh()
    await a.becomes(held, "delivered")
    assert not isinstance(await m.give(b, m.fresh(incoming)), str), "what was turned away comes again and is taken"

    async def well() -> bool:
        return said(a) == said(b) == {}

    await wait_until(well)
    await match_ledgers(a, b)
