"""Where the CPU of path 1 goes: the pure stages of one message, each timed alone in this process (median, microseconds).

`make bench` measures the whole path over all processes; what the stages here do not explain is HTTP, the event loop, rows
and round trips to PostgreSQL.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from bench import BODY, floor_ms

from gateway.runtime.cli.trace import DEFAULT_HANDLING
from gateway.runtime.world import SystemClock, SystemIds
from gateway.services.content import at_rest
from keys.secret import Secret
from keys.suite import Ed25519Signer, Tw1Opener, Tw1Sealer, Tw1Verifier, seal_private
from keys.vault import EpochVault
from protocols.exchange.envelope import open_envelope, parse_envelope, seal
from protocols.exchange.lines import Hello, Parcel, Post, encode_post, parse_post
from protocols.exchange.message import Message, parse_jws, parse_message, sign_message
from protocols.ledger.entry import DirRef, Entry, parse_entry
from protocols.ledger.merkle import leaf_hash, verify_inclusion
from protocols.ledger.proof import Place
from protocols.messages import validate_body
from protocols.strict import b64u, dump_json, parse_object

ROUNDS = 300
PARCELS = 64


def median_us(stage: Callable[[], object]) -> float:
    samples = []
    for _ in range(ROUNDS):
        begun = time.process_time_ns()
        stage()
        samples.append(time.process_time_ns() - begun)
    return statistics.median(samples) / 1000


def stages(vault: EpochVault) -> list[tuple[str, str, float]]:
    """(side, stage, microseconds a message)."""
    signer, sealer, verifier, ids = Ed25519Signer(os.urandom(32)), Tw1Sealer(), Tw1Verifier(), SystemIds(SystemClock())
    private, public = seal_private(os.urandom(32))
    kid = b64u(os.urandom(32))
    opener, now = Tw1Opener({kid: private}), SystemClock().now()
    message = Message(
        id=ids.uuid7(), type="trace.request", sender="bench/a", recipient="bench/b", thread=ids.uuid7(), created=now,
        expires=now + timedelta(days=30), handling=DEFAULT_HANDLING, salt=os.urandom(32), body=BODY,
    )  # fmt: skip
    payload = message.encode()
    jws = sign_message(payload, signer)
    envelope = seal(jws=jws, message=message, parts=(), kid=kid, public=public, sealer=sealer)
    digests = {name: os.urandom(32) for name in ("envelope", "content_c", "thread_c", "actor_c")}
    entry = Entry(
        kind="sent", at=now, n=os.urandom(16), id=message.id, sender="bench/a", recipient="bench/b", pair_seq=1,
        kid=signer.kid, seal_kid=kid, suite="tw1", dir=DirRef(version=2, sha256=os.urandom(32)), **digests,
    )  # fmt: skip
    data = entry.encode()
    path = tuple(os.urandom(32) for _ in range(17))
    place = Place(origin="bench/a/2026.1", size=70_000, index=5, path=path, entry=data)
    post = Post(hello=Hello(dir_version=2), checkpoints={}, items=(Parcel(place=place, envelope=envelope),) * PARCELS)
    lines = encode_post(post)
    request = dump_json({"to": "bench/b", "body": BODY, "handling": DEFAULT_HANDLING})
    parsed, opened = parse_envelope(envelope), open_envelope(parse_envelope(envelope), opener)
    signed = parse_jws(opened.jws)
    root = leaf_hash(data)
    return [
        ("sender", "parse the request", median_us(lambda: parse_object(request, bytes_max=1 << 19))),
        ("sender", "validate the body", median_us(lambda: validate_body("trace.request", BODY))),
        ("sender", "encode the message", median_us(message.encode)),
        ("sender", "sign (crypto floor)", median_us(lambda: sign_message(payload, signer))),
        ("sender", "seal (crypto floor)", median_us(
            lambda: seal(jws=jws, message=message, parts=(), kid=kid, public=public, sealer=sealer))),
        ("both", "encrypt at rest", 2 * median_us(lambda: at_rest(vault, message, jws, (), {}))),
        ("both", "write entries (3)", 3 * median_us(entry.encode)),
        ("sender", "write the POST's line", median_us(lambda: encode_post(post)) / PARCELS),
        ("receiver", "read the POST's line", median_us(lambda: parse_post(lines, answer=False)) / PARCELS),
        ("both", "read entries (2)", 2 * median_us(lambda: parse_entry(data))),
        ("both", "verify inclusion (2)", 2 * median_us(
            lambda: verify_inclusion(leaf=root, index=5, size=70_000, path=path, root=root))),
        ("receiver", "read the envelope", median_us(lambda: parse_envelope(envelope))),
        ("receiver", "open (crypto floor)", median_us(lambda: open_envelope(parsed, opener))),
        ("receiver", "read JWS and message", median_us(lambda: (parse_jws(opened.jws), parse_message(payload)))),
        ("receiver", "verify (crypto floor)", median_us(
            lambda: verifier.verify("Ed25519", signer.public.public, signed.signed, signed.signature))),
        ("receiver", "validate the body", median_us(lambda: validate_body("trace.request", BODY))),
    ]  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "vault").mkdir(mode=0o700)
        Secret.make_key_file(work / "key")
        found = stages(EpochVault.create(work / "vault", Secret.key_file(work / "key")))
    for side, stage, spent in found:
        sys.stdout.write(f"{spent:8.0f} us  {side:<9} {stage}\n")
    total = sum(spent for _, _, spent in found) / 1000
    sys.stdout.write(f"{total:8.2f} ms  in all, beside a crypto floor of {floor_ms():.2f} ms in the same process\n")


if __name__ == "__main__":
    main()
