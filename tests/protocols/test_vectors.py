"""The published vectors: our parsers give what each states, and the script gives the committed bytes."""

import json
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from keys.suite import Tw1Opener, Tw1Verifier, seal_private
from protocols.directory import parse_network, parse_record
from protocols.exchange.envelope import open_envelope, open_part, parse_envelope, parts_of, recipient_structure
from protocols.exchange.httpsig import Request, digest_of, parse_signature
from protocols.exchange.lines import Parcel, ProblemLine, parse_post
from protocols.exchange.message import parse_jws, parse_message, parse_part
from protocols.jwk import PublicKey
from protocols.ledger.checkpoint import LedgerKeys, verify_checkpoint
from protocols.ledger.entry import KINDS, content_commitment, parse_entry, thread_commitment
from protocols.ledger.linking import Link, chain, follow
from protocols.ledger.merkle import leaf_hash
from protocols.ledger.proof import parse_proof
from protocols.ledger.tiles import ENTRIES, parse_bundle, parse_tile_path
from protocols.messages import validate_body
from protocols.problems import CODES, ProblemError
from protocols.strict import b64u, parse_json, parse_time, unb64u
from tests.protocols.bodies import changed

FOLDER = Path(__file__).parents[2] / "protocols/vectors"
FILES = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
CASES = [
    pytest.param(name, file["common"] | case["input"], case["expect"], id=f"{name}: {case['name']}")
    for name, file in FILES.items()
    for case in file["vectors"]
]
Json = dict[str, Any]
VERIFIER = Tw1Verifier()


def raw(given: Json) -> bytes:
    return given["data"].encode() if "data" in given else unb64u(given["data_b64u"])


def keys(given: Json) -> LedgerKeys:
    return LedgerKeys.parse(given["origin"], tuple(given["vkeys"]))


def run_strict(given: Json) -> Json:
    return {"value": parse_json(raw(given), bytes_max=1 << 20)}


def run_entry(given: Json) -> Json:
    entry = parse_entry(raw(given))
    return {"kind": entry.kind, "leaf": b64u(leaf_hash(raw(given))), "members": list(json.loads(entry.encode()))}


def run_note(given: Json) -> Json:
    found = verify_checkpoint(raw(given), keys(given), VERIFIER)
    return {"origin": found.origin, "size": found.size, "root": b64u(found.root)}


def run_message(given: Json) -> Json:
    found = parse_message(raw(given))
    return {
        "id": str(found.id), "type": found.type, "from": found.sender, "to": found.recipient,
        "content_c": b64u(content_commitment(found.salt, raw(given))),
        "thread_c": b64u(thread_commitment(found.salt, found.thread)),
    }  # fmt: skip


def run_jws(given: Json) -> Json:
    found = parse_jws(raw(given))
    if not VERIFIER.verify("Ed25519", unb64u(given["public"]), found.signed, found.signature):
        raise ProblemError("env.signature")
    return {"kid": found.kid, "payload_sha256": b64u(sha256(found.payload).digest())}


def run_sealing(given: Json) -> Json:
    private, public = seal_private(unb64u(given["seed"]))
    assert (b64u(public), PublicKey("HPKE-9-KE", public).kid) == (given["public"], given["kid"])
    texts = [given[name].encode() for name in ("from", "to", "id", "kid")]
    extra = sha256(b"".join(len(text).to_bytes(2, "big") + text for text in texts)).digest()
    assert (b64u(extra), b64u(recipient_structure(extra))) == (given["recipient_extra_info"], given["info"])
    opener = Tw1Opener({"k": private})
    cek = opener.unwrap("k", unb64u(given["ek"]), unb64u(given["encrypted_key"]), recipient_structure(extra))
    assert cek is not None
    return {"cek": b64u(cek)}


def run_envelope(given: Json) -> Json:
    envelope = parse_envelope(raw(given))
    opener = Tw1Opener({given["kid"]: seal_private(unb64u(given["seed"]))[0]})
    opened = open_envelope(envelope, opener)
    message = parse_message(parse_jws(opened.jws).payload)
    parts = parts_of(message.parts, opened)
    return {
        "sha256": b64u(envelope.sha256),
        "jws_sha256": b64u(sha256(opened.jws).digest()),
        "parts": {part.ref.name: parse_part(open_part(part, opener)) for part in parts},
    }


def run_httpsig(given: Json) -> Json:
    digest = given.get("content_digest")
    if digest is not None:
        digest_of(digest)
    request = Request(method=given["method"], uri=given["uri"], content_type=given.get("content_type"), digest=digest)
    found = parse_signature(request, given["signature_input"], given["signature"], parse_time(given["now"]))
    if not VERIFIER.verify("Ed25519", unb64u(given["public"]), found.base, found.signature):
        raise ProblemError("httpsig.signature")
    return {"kid": found.kid, "base": found.base.decode()}


def run_lines(given: Json) -> Json:
    post = parse_post(raw(given), answer=given["answer"])

    def item(found: Any) -> list[Any]:
        if isinstance(found, ProblemLine):
            return ["problem", found.code]
        kind = "parcel" if isinstance(found, Parcel) else "receipt"
        return [kind, found.place.origin, found.place.size, found.place.index]

    return {
        "dir": post.hello.dir_version,
        "held": {origin: list(sizes) for origin, sizes in post.hello.held.items()},
        "links": {origin: [[link.old, link.new] for link in links] for origin, links in post.hello.links.items()},
        "checkpoints": [list(key) for key in post.checkpoints],
        "items": [item(each) for each in post.items],
    }


def run_tiles(given: Json) -> Json:
    if "bundle" in given:
        return {"entries": [each.decode() for each in parse_bundle(unb64u(given["bundle"]))]}
    (level, index), width = parse_tile_path(given["path"])
    return {"level": "entries" if level == ENTRIES else level, "index": index, "width": width}


def run_proof(given: Json) -> Json:
    found = parse_proof(raw(given), keys(given), VERIFIER)
    return {"origin": found.origin, "size": found.size, "index": found.index, "leaf": b64u(leaf_hash(found.entry))}


def run_linking(given: Json) -> Json:
    if "named" in given:
        return {"steps": [list(step) for step in chain(given["named"], given["size"])]}
    held = {int(size): unb64u(root) for size, root in given["held"].items()}
    links = [Link(old=e["old"], new=e["new"], path=tuple(unb64u(h) for h in e["path"])) for e in given["links"]]
    linked, failing = follow(given["linked"], held, links)
    return {"linked": linked, "whole": not failing}


def run_directory(given: Json) -> Json:
    if given["document"] == "network":
        network = parse_network(raw(given))
        return {"network": network.network, "members": [each.member for each in network.members]}
    record = parse_record(raw(given))
    uses = {use: getattr(record.keys, use) for use in ("message", "seal", "request")}
    kids = {use: [PublicKey.parse(key.jwk).kid for key in found] for use, found in uses.items()}
    return {"member": record.member, "kids": kids, "ledgers": [ledger.origin for ledger in record.ledgers]}


def run_bodies(given: Json) -> Json:
    body = given.get("body")
    if body is None:
        (valid,) = (case["input"]["body"] for case in FILES["bodies"]["vectors"] if case["name"] == given["type"])
        body = changed(valid, given["change"]["at"], given["change"].get("to", ...))
    validate_body(given["type"], body)
    return {"valid": True}


RUN: dict[str, Callable[[Json], Json]] = {
    name.removeprefix("run_"): call for name, call in list(globals().items()) if name.startswith("run_")
}


@pytest.mark.parametrize(("name", "given", "expect"), CASES)
def test_our_parsers_give_what_the_vector_states(name: str, given: Json, expect: Json) -> None:
    try:
        found = RUN[name](given)
    except ProblemError as problem:
        found = {"code": problem.code}
        if "faults" in expect:
            found["faults"] = [{"pointer": each.pointer, "code": each.code} for each in problem.errors]
    assert found == expect


def test_every_file_has_good_vectors_and_each_vector_a_name_of_its_own() -> None:
    assert FILES.keys() == RUN.keys()
    for file in FILES.values():
        names = [case["name"] for case in file["vectors"]]
        assert len(set(names)) == len(names)
        assert any("code" not in case["expect"] for case in file["vectors"])
        assert all(case.keys() == {"name", "about", "input", "expect"} for case in file["vectors"])
        assert {case["expect"]["code"] for case in file["vectors"] if "code" in case["expect"]} <= CODES.keys()


def test_every_kind_of_entry_has_a_vector() -> None:
    good = [case["expect"]["kind"] for case in FILES["entry"]["vectors"] if "kind" in case["expect"]]
    assert sorted(good) == sorted(KINDS)


def test_the_script_gives_the_committed_bytes_again(tmp_path: Path) -> None:
    script = Path(__file__).with_name("make_vectors.py")
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, timeout=60)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in FOLDER.glob("*.json")
    }


def test_the_vectors_are_small_enough_to_read() -> None:
    assert max(path.stat().st_size for path in FOLDER.glob("*.json")) < 100_000
