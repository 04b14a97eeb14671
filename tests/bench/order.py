"""What refusing a bad parcel costs us, by the step that finds it, beside what it costs its sender to get that far.

CPU medians of this process in microseconds, for a POST of one parcel (docs/protocol.md section 4, Receive). A step costs us
all steps before it as well. A sender who forges pays only for what must hold before the fault; who repeats the bytes of an
earlier POST pays the request signature alone, and is answered from what stands. The last line printed is one JSON object.
"""

import json
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256

from bench import BODY
from stages import median_us

from gateway.runtime.cli.trace import DEFAULT_HANDLING
from gateway.runtime.world import SystemClock, SystemIds
from keys.notes import LedgerNoteSigner
from keys.suite import Ed25519Signer, Tw1Opener, Tw1Sealer, Tw1Verifier, seal_private
from protocols.exchange.envelope import open_envelope, parse_envelope, seal
from protocols.exchange.httpsig import Request, content_digest, parse_signature, signature_header, signature_input
from protocols.exchange.lines import MEDIA_TYPE, Hello, Parcel, Post, encode_post, parse_post
from protocols.exchange.message import Message, parse_jws, parse_message, sign_message
from protocols.ledger.checkpoint import LedgerKeys, verify_checkpoint
from protocols.ledger.entry import DirRef, Entry, content_commitment, parse_entry
from protocols.ledger.merkle import leaf_hash
from protocols.ledger.note import parse_note
from protocols.ledger.proof import Place
from protocols.messages import validate_body
from protocols.strict import b64u

ORIGIN = "bench/a/2026.1"
Step = tuple[str, Callable[[], object], Callable[[], object] | None]
"""What is checked; our work; the sender's work that makes it hold, where there is any."""


def steps() -> list[Step]:
    """The steps in the order in which a POST of one parcel goes through them."""
    signer, sealer, verifier, ids = Ed25519Signer(os.urandom(32)), Tw1Sealer(), Tw1Verifier(), SystemIds(SystemClock())
    notes, now = LedgerNoteSigner(ORIGIN, os.urandom(32), os.urandom(32)), SystemClock().now()
    keys = LedgerKeys.parse(ORIGIN, notes.vkeys)
    private, public = seal_private(os.urandom(32))
    kid = b64u(os.urandom(32))
    opener = Tw1Opener({kid: private})
    message = Message(
        id=ids.uuid7(), type="trace.request", sender="bench/a", recipient="bench/b", thread=ids.uuid7(), created=now,
        expires=now + timedelta(days=30), handling=DEFAULT_HANDLING, salt=os.urandom(32), body=BODY,
    )  # fmt: skip
    payload = message.encode()
    jws = sign_message(payload, signer)

    def sealed() -> bytes:
        return seal(jws=jws, message=message, parts=(), kid=kid, public=public, sealer=sealer)

    envelope = sealed()
    entry = Entry(
        kind="sent", at=now, n=os.urandom(16), id=message.id, sender="bench/a", recipient="bench/b", pair_seq=1,
        kid=signer.kid, seal_kid=kid, suite="tw1", dir=DirRef(version=2, sha256=os.urandom(32)),
        envelope=sha256(envelope).digest(), thread_c=os.urandom(32), actor_c=os.urandom(32),
        content_c=content_commitment(message.salt, payload),
    )  # fmt: skip
    data = entry.encode()
    root = leaf_hash(data)
    note = notes.sign(1, root, now)
    post = Post(
        hello=Hello(dir_version=2), checkpoints={(ORIGIN, 1): note},
        items=(Parcel(place=Place(origin=ORIGIN, size=1, index=0, path=(), entry=data), envelope=envelope),),
    )  # fmt: skip
    lines = encode_post(post)
    digest = content_digest(sha256(lines).digest())
    request = Request(method="POST", uri="https://b.test/exchange/v1/messages", content_type=MEDIA_TYPE, digest=digest)
    given, base = signature_input(request, kid=signer.kid, created=now)
    header = signature_header(signer.sign(base))

    def request_signature() -> bool:
        signed = parse_signature(request, given, header, now)
        return verifier.verify("Ed25519", signer.public.public, signed.base, signed.signature)

    parsed, mldsa44 = parse_note(note), keys.mldsa44
    first, second = (signature for _, _, signature in parsed.signatures)
    checkpoint = verify_checkpoint(note, keys, verifier)

    def path() -> None:
        parcel = post.items[0]
        assert isinstance(parcel, Parcel)
        parcel.place.check(checkpoint)
        assert sha256(envelope).digest() == parse_entry(data).envelope

    def opened() -> bytes:
        return open_envelope(parse_envelope(envelope), opener).jws

    signed = parse_jws(jws)
    assert request_signature()
    assert opened() == jws
    return [
        ("request signature", request_signature, lambda: signer.sign(base)),
        ("digest of the body", lambda: sha256(lines).digest(), lambda: sha256(lines).digest()),
        ("lines", lambda: parse_post(lines, answer=False), lambda: encode_post(post)),
        ("checkpoint, Ed25519", lambda: (parse_note(note), keys.ed25519.verify(parsed.text, first, 1, root, verifier, origin=ORIGIN)),
         lambda: signer.sign(parsed.text.encode())),
        ("checkpoint, ML-DSA-44", lambda: mldsa44.verify(parsed.text, second, 1, root, verifier, origin=ORIGIN), lambda: notes.sign(1, root, now)),
        ("path and entry", path, entry.encode),
        ("open", opened, sealed),
        ("content commitment", lambda: content_commitment(parse_message(signed.payload).salt, signed.payload),
         lambda: (message.encode(), content_commitment(message.salt, payload))),
        ("message signature", lambda: verifier.verify("Ed25519", signer.public.public, signed.signed, signed.signature),
         lambda: sign_message(payload, signer)),
        ("schema", lambda: validate_body("trace.request", BODY), None),
    ]  # fmt: skip


def main() -> None:
    ours = theirs = 0.0
    found: dict[str, dict[str, float]] = {}
    for name, check, make in steps():
        ours += median_us(check)
        found[name] = {"us": round(ours), "sender_us": round(theirs)}
        sys.stdout.write(f"refused at {name:<22} costs us {ours:6.0f} us, its sender at least {theirs:6.0f} us\n")
        theirs += median_us(make) if make else 0.0
    sys.stdout.write(json.dumps({"refusal_order": found}) + "\n")


if __name__ == "__main__":
    main()
