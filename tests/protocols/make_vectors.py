"""Writes protocols/vectors/: `python tests/protocols/make_vectors.py [folder]`, the same bytes every time.

Expected values are stated here or computed with hashlib and hmac alone; tests/protocols/test_vectors.py holds the parsers to
them.
"""

import base64
import json
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from protocols.exchange.httpsig import Request, content_digest, signature_header, signature_input  # noqa: E402
from protocols.exchange.lines import Hello, Parcel, Post, ProblemLine, Receipt, encode_post  # noqa: E402
from protocols.exchange.message import PartRef, pad, sign_message  # noqa: E402
from protocols.jwk import PublicKey  # noqa: E402
from protocols.ledger.checkpoint import checkpoint_text  # noqa: E402
from protocols.ledger.linking import Link  # noqa: E402
from protocols.ledger.merkle import consistency_path  # noqa: E402
from protocols.ledger.note import format_note  # noqa: E402
from protocols.ledger.proof import format_proof  # noqa: E402
from protocols.problems import CODES  # noqa: E402
from protocols.strict import b64u, dump_json, unb64u  # noqa: E402
from tests.protocols.bodies import BROKEN, VALID  # noqa: E402
from tests.protocols.forms import Tree  # noqa: E402
from tests.protocols.vector_world import (  # noqa: E402
    ABSENT,
    ASKER,
    AT,
    CONTENT_C,
    DIGEST,
    ENTRIES,
    ENVELOPE,
    FOLDER,
    ID,
    JWS,
    MESSAGE,
    MESSAGE_KEY,
    OUR_LOG,
    OURS,
    PART,
    PAYLOAD,
    PERSONS,
    RECEIVED,
    REGISTRY,
    REQUEST_KEY,
    SEAL_KID,
    SEAL_SEED,
    SEALING,
    SENT,
    THEIR_LOG,
    THEIRS,
    THREAD_C,
    Json,
    data,
    members,
    sealed,
    vector,
)


def strict_vectors() -> list[Json]:
    """Strict JSON."""
    good = [
        ("escapes", b'{"a":"\\u0061\\ud83d\\ude00\\n"}', {"a": "a\U0001f600\n"}),
        ("white space", b" [ 1 ,\t-2\r\n] ", [1, -2]),
        ("the largest integers", b"[9007199254740991,-9007199254740991]", [2**53 - 1, 1 - 2**53]),
        ("depth 32", b"[" * 32 + b"]" * 32, json.loads("[" * 32 + "]" * 32)),
        ("brackets in a text", b'"[[{{\\"[["', '[[{{"[['),
    ]
    bad = [
        ("a member twice", b'{"a":1,"a":1}', "json.duplicate"),
        ("a member twice, once escaped", b'{"a":1,"\\u0061":2}', "json.duplicate"),
        ("a fraction", b"1.0", "json.number"),
        ("an exponent", b"1e2", "json.number"),
        ("minus zero", b"-0", "json.number"),
        ("2^53", b"9007199254740992", "json.number"),
        ("1e400", b"1e400", "json.number"),
        ("NaN", b"NaN", "json.number"),
        ("Infinity", b"[-Infinity]", "json.number"),
        ("a lone surrogate", b'"\\ud800"', "json.encoding"),
        ("U+0000 escaped", b'"\\u0000"', "json.encoding"),
        ("a byte order mark", b"\xef\xbb\xbf{}", "json.encoding"),
        ("UTF-16 without mark", "{}".encode("utf-16-le"), "json.encoding"),
        ("overlong UTF-8", b'"\xc0\xaf"', "json.encoding"),
        ("a surrogate in UTF-8", b'"\xed\xa0\x80"', "json.encoding"),
        ("depth 33", b"[" * 33 + b"]" * 33, "json.depth"),
        ("bytes after the value", b"{}x", "json.invalid"),
        ("a comma too many", b"[1,]", "json.invalid"),
        ("a comment", b"[1]//", "json.invalid"),
        ("a control character", b'"\n"', "json.invalid"),
        ("a leading zero", b"01", "json.invalid"),
        ("nothing", b"", "json.invalid"),
    ]
    return [
        *(vector(name, "good", data(value), {"value": expect}) for name, value, expect in good),
        *(vector(name, "one fault", data(value), code) for name, value, code in bad),
    ]


def entry_vectors() -> list[Json]:
    """One good entry of each kind, and faults."""
    good = [
        vector(each.kind, "good", data(text), {
            "kind": each.kind, "leaf": b64u(sha256(b"\0" + text).digest()), "members": list(json.loads(text))})
        for each in ENTRIES if (text := each.encode())
    ]  # fmt: skip
    raw = SENT.encode()
    sent: Json = json.loads(raw)
    bad = [
        ("two members swapped", members({"kind": "sent", "v": 1} | sent), "entry.invalid"),
        ("white space", raw.replace(b",", b", ", 1), "entry.invalid"),
        ("a newline at the end", raw + b"\n", "entry.invalid"),
        ("a member missing", members(sent, suite=ABSENT), "entry.invalid"),
        ("a member of another kind", members(json.loads(OUR_LOG.tree.entries[0]), n=ABSENT)[:-1] + b',"first":{"origin":"o"},"n":"AAAAAAAAAAAAAAAAAAAAAA"}', "entry.invalid"),
        ("an unknown member", raw[:-1] + b',"x":1}', "entry.invalid"),
        ("null", members(sent, pair_seq=None), "entry.invalid"),
        ("a member twice", raw[:-1] + b',"v":1}', "json.duplicate"),
        ("version 2", members(sent, v=2), "entry.invalid"),
        ("an unknown kind", members(sent, kind="send"), "entry.invalid"),
        ("seconds only", members(sent, at="2026-11-22T10:00:00Z"), "schema.invalid"),
        ("an offset", members(sent, at="2026-11-22T11:00:00.123+01:00"), "schema.invalid"),
        ("no such day", members(sent, at="2026-02-30T10:00:00.123Z"), "schema.invalid"),
        ("a UUIDv4", members(sent, id=str(ID).replace("-7d10-", "-4d10-")), "entry.invalid"),
        ("an upper-case UUID", members(sent, id=str(ID).upper()), "entry.invalid"),
        ("spare bits in a digest", members(sent, envelope="A" * 42 + "B"), "b64.invalid"),
        ("padding in a digest", members(sent, envelope="A" * 43 + "="), "b64.invalid"),
        ("a digest of 31 bytes", members(sent, envelope="A" * 42), "b64.invalid"),
        ("a nonce of 15 bytes", members(sent, n="A" * 20), "b64.invalid"),
        ("a negative number", members(sent, pair_seq=-1), "entry.invalid"),
        ("a fraction", raw.replace(b'"pair_seq":41', b'"pair_seq":41.0'), "json.number"),
        ("a number as text", members(sent, pair_seq="41"), "entry.invalid"),
        ("members of dir swapped", members(sent, dir={"sha256": sent["dir"]["sha256"], "version": 12}), "entry.invalid"),
        ("a slash escaped", raw.replace(b"test/asker", b"test\\/asker", 1), "entry.invalid"),
    ]  # fmt: skip
    return [*good, *(vector(name, "one fault", data(text), code) for name, text, code in bad)]


def note_vectors() -> list[Json]:
    """Checkpoints as signed notes."""
    log, root = OUR_LOG, OUR_LOG.tree.root(5)
    note, text = log.note(5), checkpoint_text(OURS, 5, root)
    first, second = log.signatures(text, 5, root)
    line_1, line_2 = note.partition(b"\n\n")[2].splitlines(keepends=True)

    def lines(*signatures: bytes, text: str = text) -> bytes:
        return text.encode() + b"\n" + b"".join(signatures)

    def resized(signature: bytes) -> bytes:
        return format_note("", [(log.second, signature)])[1:]

    extended = text + "an extension\n"
    signed = log.signatures(extended, 5, root)
    expect = {"origin": OURS, "size": 5, "root": b64u(root)}
    stranger = "— witness.example/w d2l0bmVzcyBsaW5l\n".encode()
    cases: list[tuple[str, bytes, Any]] = [
        ("both signatures", note, expect),
        ("lines swapped and one of an unknown key", lines(line_2, stranger, line_1), expect),
        ("CRLF", note.replace(b"\n", b"\r\n"), "note.invalid"),
        ("no final newline", note[:-1], "note.invalid"),
        ("one key twice", lines(line_1, line_2, line_1), "note.invalid"),
        ("the ML-DSA line one byte longer", lines(line_1, resized(second + b"\0")), "note.invalid"),
        ("the ML-DSA line one byte shorter", lines(line_1, resized(second[:-1])), "note.invalid"),
        ("no ML-DSA line", lines(line_1), "proof.policy"),
        ("no Ed25519 line", lines(line_2), "proof.policy"),
        ("an ML-DSA signature that does not hold", lines(line_1, resized(second[:-1] + bytes([second[-1] ^ 1]))), "proof.policy"),
        ("another root", lines(line_1, line_2, text=checkpoint_text(OURS, 5, bytes(32))), "proof.policy"),
        ("an extension line, signed", format_note(extended, [(log.first, signed[0]), (log.second, signed[1])]), "note.invalid"),
        ("the checkpoint of another ledger", THEIR_LOG.note(3), "proof.origin"),
        ("a size with a leading zero", lines(line_1, line_2, text=text.replace("\n5\n", "\n05\n")), "note.invalid"),
    ]  # fmt: skip
    assert len(first) == 64
    return [vector(name, "good" if value is expect else "one fault", data(raw), value) for name, raw, value in cases]


def message_vectors() -> list[Json]:
    """Payloads of a JWS."""
    found: Json = json.loads(PAYLOAD)
    expect = {"id": str(ID), "type": MESSAGE.type, "from": ASKER, "to": REGISTRY, "content_c": b64u(CONTENT_C), "thread_c": b64u(THREAD_C)}  # fmt: skip

    def padded(**changes: Any) -> bytes:
        return pad(members({k: v for k, v in found.items() if k != "pad"} | changes | {"pad": ""}), 2048, 1 << 20)

    part = found["parts"][0]
    cases: list[tuple[str, bytes, Any]] = [
        ("with a part", PAYLOAD, expect),
        ("a pad that is no power of two", PAYLOAD.replace(b'"pad":"', b'"pad":" '), "schema.invalid"),
        ("a pad of letters", PAYLOAD.replace(b'"pad":" ', b'"pad":"x'), "schema.invalid"),
        ("1 KiB", pad(members({**found, "pad": ""}), 1024, 1024), "schema.invalid"),
        ("an unknown member", padded(x=1), "schema.invalid"),
        ("no handling", padded(handling=ABSENT), "schema.invalid"),
        ("version 2", padded(v=2), "schema.invalid"),
        ("a salt of 31 bytes", padded(salt=b64u(bytes(31))), "b64.invalid"),
        ("a UUIDv4", padded(id=str(ID).replace("-7d10-", "-4d10-")), "entry.invalid"),
        ("a homoglyph in a member name", padded(to="test/r\u0435gistry"), "schema.invalid"),
        ("91 days", padded(expires="2027-02-21T10:00:00.123Z"), "schema.invalid"),
        ("due null", padded(due=None), "schema.invalid"),
        ("parts empty", padded(parts=[]), "schema.invalid"),
        ("a part that gives its key", padded(parts=[part | {"key": b64u(PART.key)}]), "schema.invalid"),
        ("a part twice", padded(parts=[part, part]), "schema.invalid"),
        ("a member twice", PAYLOAD.replace(b'{"v":1', b'{"v":1,"v":1'), "json.duplicate"),
    ]
    return [vector(name, "good" if value is expect else "one fault", data(raw), value) for name, raw, value in cases]


def jws_vectors() -> list[Json]:
    """The JWS around a message: a closed header."""
    header = {"alg": "Ed25519", "typ": "tracewire-message+jws", "kid": MESSAGE_KEY.kid}

    def jws(text: bytes | None = None, **changes: Any) -> bytes:
        signed = f"{b64u(text or members(header, **changes))}.{b64u(b'payload')}".encode()
        return signed + b"." + b64u(MESSAGE_KEY.sign(signed)).encode()

    broken = JWS[:-4] + (b"AAAA" if JWS[-4:] != b"AAAA" else b"BBBA")
    cases: list[tuple[str, bytes, Any]] = [
        ("a signed message", JWS, {"kid": MESSAGE_KEY.kid, "payload_sha256": b64u(sha256(PAYLOAD).digest())}),
        ("a signature that does not hold", broken, "env.signature"),
        *((f"alg {alg}", jws(alg=alg), "env.alg") for alg in ("none", "HS256", "ES256", "EdDSA")),
        ("crit", jws(crit=["exp"]), "env.crit"),
        ("b64 false", jws(b64=False), "env.header"),
        ("jku", jws(jku="https://example.com/keys"), "env.header"),
        ("jwk", jws(jwk={}), "env.header"),
        ("alg twice", jws(members(header)[:-1] + b',"alg":"Ed25519"}'), "json.duplicate"),
        ("kid a number", jws(kid=5), "env.header"),
        ("kid a path", jws(kid="../../etc/passwd"), "env.kid"),
        ("kid with spare bits", jws(kid="A" * 42 + "B"), "env.kid"),
        ("the typ of an envelope", jws(typ="tracewire-envelope+jwe"), "env.typ"),
        ("a header padded", jws().replace(b".", b"=.", 1), "b64.invalid"),
        ("two pieces", jws().rpartition(b".")[0], "env.format"),
        ("a signature of 63 bytes", jws().rpartition(b".")[0] + b"." + b64u(bytes(63)).encode(), "b64.invalid"),
    ]  # fmt: skip
    return [
        vector(name, "one fault" if isinstance(value, str) else "good", data(raw), value) for name, raw, value in cases
    ]


def envelope_vectors() -> list[Json]:
    """Envelopes: whole ones are opened, those with a faulty header hold a short ciphertext."""
    short: Json = json.loads(sealed(jws=b"a.b.c", parts=()))
    header: Json = json.loads(unb64u(short["protected"]))

    def outer(**changes: Any) -> bytes:
        return members(short, **changes)

    def inner(text: bytes | None = None, **changes: Any) -> bytes:
        return outer(protected=b64u(text or members(header, **changes)))

    other = MESSAGE.__class__(**{f: getattr(MESSAGE, f) for f in MESSAGE.__slots__} | {
        "parts": (PartRef(name="persons", sha256=bytes(32), key_sha256=PART.ref.key_sha256),)})  # fmt: skip
    wrong_key = MESSAGE.__class__(**{f: getattr(MESSAGE, f) for f in MESSAGE.__slots__} | {
        "parts": (PartRef(name="persons", sha256=PART.ref.sha256, key_sha256=bytes(32)),)})  # fmt: skip
    expect = {"sha256": b64u(DIGEST), "jws_sha256": b64u(sha256(JWS).digest()), "parts": {"persons": PERSONS}}
    cases: list[tuple[str, bytes, Any]] = [
        ("a message with a part", ENVELOPE, expect),
        ("a part's digest is wrong", sealed(jws=sign_message(other.encode(), MESSAGE_KEY)), "env.parts"),
        ("a part's key is wrong", sealed(jws=sign_message(wrong_key.encode(), MESSAGE_KEY)), "env.parts"),
        ("a part is missing", sealed(parts=()), "env.parts"),
        ("alg ECDH-ES", inner(alg="ECDH-ES"), "env.alg"),
        ("alg dir", inner(alg="dir"), "env.alg"),
        ("enc A128GCM", inner(enc="A128GCM"), "env.decrypt"),
        ("crit", inner(crit=["exp"]), "env.crit"),
        ("zip", inner(zip="DEF"), "env.header"),
        ("kid a number", inner(kid=5), "env.header"),
        ("kid no thumbprint", inner(kid="key-1"), "env.kid"),
        ("the typ of a message", inner(typ="tracewire-message+jws"), "env.typ"),
        ("ek one byte short", inner(ek=b64u(unb64u(header["ek"])[:-1])), "env.decrypt"),
        ("another recipient", inner(to="test/other"), "env.decrypt"),
        ("another expiry", inner(expires="2026-12-23T10:00:00.123Z"), "env.decrypt"),
        ("alg twice", inner(members(header)[:-1] + b',"alg":"none"}'), "json.duplicate"),
        ("an unprotected header", outer(unprotected={"alg": "HPKE-9-KE"}), "env.header"),
        ("a recipient's header", outer(header={"kid": header["kid"]}), "env.header"),
        ("a second recipient", outer(recipients=[{"encrypted_key": short["encrypted_key"]}]), "env.format"),
        ("tag of 12 bytes", outer(tag=b64u(unb64u(short["tag"])[:12])), "env.decrypt"),
        ("iv of 16 bytes", outer(iv=b64u(bytes(16))), "env.decrypt"),
        ("ciphertext padded", outer(ciphertext=short["ciphertext"] + "="), "b64.invalid"),
        ("no tag", outer(tag=ABSENT), "env.format"),
    ]
    return [vector(n, "one fault" if isinstance(v, str) else "good", data(raw), v) for n, raw, v in cases]


def httpsig_vectors() -> list[Json]:
    """Request signatures."""
    body = Request(
        method="POST", uri="https://node.example:8443/exchange/v1/messages", content_type="application/x-ndjson",
        digest=content_digest(sha256(b"a body\n").digest()),
    )  # fmt: skip
    bare = Request(
        method="GET", uri=f"https://node.example:8443/exchange/v1/checkpoints/{sha256(OURS.encode()).hexdigest()}"
    )
    created = int(AT.timestamp())

    def one(request: Request, edit: tuple[str, str] = ("", ""), **more: str) -> Json:
        given, base = signature_input(request, kid=REQUEST_KEY.kid, created=AT)
        given = {"method": request.method, "uri": request.uri, "signature_input": given.replace(*edit, 1),
                 "signature": signature_header(REQUEST_KEY.sign(base)), "now": "2026-11-22T10:00:00.123Z",
                 "public": b64u(REQUEST_KEY.public.public)}  # fmt: skip
        if request.content_type and request.digest:
            given |= {"content_type": request.content_type, "content_digest": request.digest}
        return given | more

    def good(request: Request) -> Json:
        return {"kid": REQUEST_KEY.kid, "base": signature_input(request, kid=REQUEST_KEY.kid, created=AT)[1].decode()}

    cases: list[tuple[str, Json, Any]] = [
        ("with a body", one(body), good(body)),
        ("without a body", one(bare), good(bare)),
        ("no signature", one(body, signature=""), "httpsig.missing"),
        ("a component less", one(body, (' "content-digest"', "")), "httpsig.components"),
        ("components in another order", one(body, ('"@method" "@target-uri"', '"@target-uri" "@method"')), "httpsig.components"),
        ("another label", one(body, ("tw=", "sig1=")), "httpsig.invalid"),
        ("a nonce", one(body, (";tag", ';nonce="n";tag')), "httpsig.invalid"),
        ("created as text", one(body, (f"={created}", f'="{created}"')), "httpsig.invalid"),
        ("alg hmac-sha256", one(body, ("ed25519", "hmac-sha256")), "httpsig.invalid"),
        ("the tag of another use", one(body, ("tracewire-exchange-1", "other")), "httpsig.tag"),
        ("301 s old", one(body, now="2026-11-22T10:05:01.123Z"), "httpsig.time"),
        ("61 s ahead", one(body, now="2026-11-22T09:58:59.000Z"), "httpsig.time"),
        ("another method", one(body, method="PUT"), "httpsig.signature"),
        ("another address", one(body, uri="https://other.example/exchange/v1/messages"), "httpsig.signature"),
        ("another digest", one(body, content_digest=content_digest(bytes(32))), "httpsig.signature"),
        ("digest sha-512", one(body, content_digest="sha-512=:" + "A" * 86 + "==:"), "httpsig.digest_alg"),
        ("two digests", one(body, content_digest=f"{body.digest}, {body.digest}"), "httpsig.digest"),
        ("spare bits in the signature", one(body, signature=f"tw=:{'A' * 85}B==:"), "httpsig.invalid"),
    ]  # fmt: skip
    return [vector(name, "one fault" if isinstance(v, str) else "good", given, v) for name, given, v in cases]


def tile_vectors() -> list[Json]:
    """Tile paths and entry bundles (C2SP tlog-tiles)."""
    good = [
        ("tile/0/000", 0, 0, 256), ("tile/0/x001/x234/067", 0, 1234067, 256), ("tile/1/001.p/17", 1, 1, 17),
        ("tile/entries/273.p/112", "entries", 273, 112), ("tile/63/999.p/255", 63, 999, 255),
    ]  # fmt: skip
    bad = ["tile/0/0", "tile/00/000", "tile/64/000", "tile/0/x000/001", "tile/0/001/067", "tile/0/000.p/0", "tile/0/000.p/256",
           "tile/0/000.p/01", "tile/0/000/", "tile/0/../000"]  # fmt: skip
    return [
        *(vector(path, "good", {"path": path}, {"level": lv, "index": at, "width": w}) for path, lv, at, w in good),
        *(vector(path, "one fault", {"path": path}, "tile.missing") for path in bad),
        vector("a bundle", "good", {"bundle": b64u(b"\0\3one\0\0\0\3two")}, {"entries": ["one", "", "two"]}),
        vector("a bundle cut short", "one fault", {"bundle": b64u(b"\0\3on")}, "tile.missing"),
        vector("a bundle cut in a length", "one fault", {"bundle": b64u(b"\0\1a\0")}, "tile.missing"),
    ]


def proof_vectors() -> list[Json]:
    """C2SP tlog-proof files that carry their entry."""
    file = format_proof(THEIR_LOG.place(2, 3), THEIR_LOG.note(3))
    text = base64.b64encode(RECEIVED.encode())
    path = base64.b64encode(THEIR_LOG.place(2, 3).path[0])

    def expect(index: int) -> Json:
        leaf = sha256(b"\0" + THEIR_LOG.tree.entries[index]).digest()
        return {"origin": THEIRS, "size": 3, "index": index, "leaf": b64u(leaf)}

    cases: list[tuple[str, bytes, Any]] = [
        ("a receipt", file, expect(2)),
        ("no extra line", file.replace(b"extra " + text + b"\n", b""), "proof.path"),
        ("another entry", file.replace(text, base64.b64encode(SENT.encode())), "proof.path"),
        ("another index", file.replace(b"index 2", b"index 1"), "proof.path"),
        ("an index with a leading zero", file.replace(b"index 2", b"index 02"), "proof.path"),
        ("a hash twice", file.replace(path, path + b"\n" + path), "proof.path"),
        ("no path", file.replace(path + b"\n", b""), "proof.path"),
        ("a checkpoint without ML-DSA", file[: file.rindex("—".encode())], "proof.policy"),
        ("the checkpoint of another size", format_proof(THEIR_LOG.place(2, 3), THEIR_LOG.note(2)), "proof.path"),
        ("CRLF", file.replace(b"\n", b"\r\n"), "proof.path"),
    ]
    return [vector(n, "one fault" if isinstance(v, str) else "good", data(raw), v) for n, raw, v in cases]


def line_vectors() -> list[Json]:
    """A POST and its answer."""
    held, link = {THEIRS: (0, 3)}, Link(old=0, new=5, path=())
    hello = Hello(dir_version=12, held=held, links={OURS: (link,)})
    post = encode_post(Post(hello=hello, checkpoints={(OURS, 5): OUR_LOG.note(5)}, items=(Parcel(place=OUR_LOG.place(3, 5), envelope=ENVELOPE),)))  # fmt: skip
    answer = encode_post(Post(
        hello=Hello(dir_version=12, held={OURS: (0, 5)}, links={THEIRS: ()}), checkpoints={(THEIRS, 3): THEIR_LOG.note(3)},
        items=(Receipt(place=THEIR_LOG.place(2, 3)), ProblemLine(code="dir.stale", detail=CODES["dir.stale"].title)),
    ))  # fmt: skip
    small = Post(
        hello=hello, checkpoints={(OURS, 5): b"a note"}, items=(Parcel(place=OUR_LOG.place(3, 5), envelope=b"{}"),)
    )
    h, c, p = (json.loads(line) for line in encode_post(small).splitlines())
    receipt, problem = (json.loads(line) for line in answer.splitlines()[2:])

    def lines(*found: Any) -> bytes:
        return b"".join(dump_json(each) + b"\n" for each in found)

    good = [
        vector("a POST with a parcel", "good", {"answer": False} | data(post), {
            "dir": 12, "held": {THEIRS: [0, 3]}, "links": {OURS: [[0, 5]]}, "checkpoints": [[OURS, 5]],
            "items": [["parcel", OURS, 5, 3]]}),
        vector("an answer with a receipt and a problem", "good", {"answer": True} | data(answer), {
            "dir": 12, "held": {OURS: [0, 5]}, "links": {THEIRS: []}, "checkpoints": [[THEIRS, 3]],
            "items": [["receipt", THEIRS, 3, 2], ["problem", "dir.stale"]]}),
        vector("a POST without parcels", "good", {"answer": False} | data(lines(h)), {
            "dir": 12, "held": {THEIRS: [0, 3]}, "links": {OURS: [[0, 5]]}, "checkpoints": [], "items": []}),
    ]  # fmt: skip
    bad: list[tuple[str, bool, bytes, str]] = [
        ("no hello", False, lines(c, p), "schema.invalid"),
        ("hello twice", False, lines(h, h), "schema.invalid"),
        ("no newline at the end", False, lines(h, c, p)[:-1], "schema.invalid"),
        ("an empty line", False, lines(h, c, p) + b"\n", "json.invalid"),
        ("a checkpoint after a parcel", False, lines(h, p, c), "schema.invalid"),
        ("a checkpoint twice", False, lines(h, c, c, p), "schema.invalid"),
        ("an unknown type", False, lines(h, {"t": "note"}), "schema.invalid"),
        ("a receipt in a POST", False, lines(h, c, receipt), "schema.invalid"),
        ("a parcel in an answer", True, lines(h, c, p), "schema.invalid"),
        ("an unknown member", False, lines(h, c, p | {"x": 1}), "schema.invalid"),
        ("a parcel without proof", False, lines(h, {"t": "parcel", "envelope": "{}"}), "proof.missing"),
        ("18 held sizes", False, lines(h | {"held": {"o": list(range(18))}}), "schema.invalid"),
        ("64 hashes", False, lines(h, c, p | {"path": [b64u(bytes(32))] * 64}), "schema.invalid"),
        ("a hash with spare bits", False, lines(h, c, p | {"path": ["A" * 42 + "B"]}), "b64.invalid"),
        ("a negative index", False, lines(h, c, p | {"index": -1}), "entry.invalid"),
        ("version 2", False, lines(h | {"v": 2}), "schema.invalid"),
    ]
    return [*good, *(vector(n, "one fault", {"answer": a} | data(raw), code) for n, a, raw, code in bad)]


def linking_vectors() -> list[Json]:
    """Which sizes links prove, given the newest linked size and the roots held; two histories that part at 4."""
    honest = Tree([b"%d" % i for i in range(12)])
    fork = Tree([b"%d" % i if i < 4 else b"fork %d" % i for i in range(12)])

    def link(tree: Tree, old: int, new: int) -> Json:
        return {"old": old, "new": new, "path": [b64u(each) for each in consistency_path(old, new, tree.node)]}

    def one(
        name: str, linked: int, held: dict[int, Tree], links: list[Json], found: list[int], whole: bool = True
    ) -> Json:
        roots = {str(size): b64u(tree.root(size)) for size, tree in held.items()}
        given = {"linked": linked, "held": roots, "links": links}
        return vector(name, "links", given, {"linked": found, "whole": whole})

    h, f = honest, fork
    bad = {"old": 3, "new": 7, "path": [b64u(bytes(32))]}
    return [
        one("a chain from size 0", 0, {0: h, 3: h, 7: h}, [link(h, 0, 3), link(h, 3, 7)], [3, 7]),
        one("a chain from the newest linked", 3, {3: h, 7: h, 12: h}, [link(h, 3, 7), link(h, 7, 12)], [7, 12]),
        one("in any order", 3, {3: h, 7: h, 12: h}, [link(h, 7, 12), link(h, 3, 7)], [7, 12]),
        one("a chain that starts elsewhere", 3, {3: h, 7: h, 12: h}, [link(h, 7, 12)], []),
        one("an older size, backwards", 7, {3: h, 7: h}, [link(h, 3, 7)], [3]),
        one("size 0 is no shortcut", 7, {0: f, 7: h, 9: f}, [link(f, 0, 9)], []),
        one("an older size is no way around the newest linked", 7, {3: h, 7: h, 9: f}, [link(f, 3, 9)], []),
        one("a fork behind the newest linked", 7, {5: f, 7: h}, [link(f, 5, 7)], [], whole=False),
        one("two futures", 4, {4: h, 6: f, 9: h}, [link(h, 4, 9), link(f, 4, 6)], [6]),
        one("a failing link", 3, {3: h, 7: h, 9: h}, [bad, link(h, 7, 9)], [], whole=False),
        vector("the chain for sizes 9, 0, 4 up to 12", "chain", {"named": [9, 0, 4, 40], "size": 12}, {"steps": [[0, 4], [4, 9], [9, 12]]}),
        vector("no sizes named", "chain", {"named": [], "size": 12}, {"steps": []}),
    ]  # fmt: skip


def body_vectors() -> list[Json]:
    """docs/domain.md section 2, a rule each: what is changed in the valid body of the type, or a body of its own."""
    made = [
        {"name": type_, "about": "valid", "input": {"type": type_, "body": body}, "expect": {"valid": True}}
        for type_, body in VALID.items()
    ]
    for type_, rule, at, value, pointer, code in BROKEN:
        given: Json = {"body": value} if not at else {"change": {"at": at} | ({} if value is ... else {"to": value})}
        expect = {"code": "schema.invalid", "faults": [{"pointer": pointer, "code": code}]}
        name = f"{type_}: {rule}"
        made.append({"name": name, "about": rule, "input": {"type": type_} | given, "expect": expect})
    return made


def directory_vectors() -> list[Json]:
    """A member's record, and directory.json."""
    start = {"not_before": "2026-01-01T00:00:00.000Z"}
    keys = {"message": MESSAGE_KEY.public, "seal": PublicKey("HPKE-9-KE", unb64u(SEALING["input"]["public"])), "request": REQUEST_KEY.public}  # fmt: skip
    record: Json = {
        "v": 1, "member": ASKER, "name": "An agency", "suite": "tw1",
        "endpoint": {"url": "https://node.example:8443", "spki": [b64u(sha256(b"spki").digest())]},
        "keys": {use: [{"jwk": key.jwk, **start}] for use, key in keys.items()},
        "ledgers": [{"origin": OURS, "vkeys": OUR_LOG.vkeys, "state": "open"}],
        "modes": ["push"], "competences": [{"country": "AT"}],
    }  # fmt: skip
    network: Json = {
        "v": 1, "network": "test", "live": False,
        "members": [{"member": ASKER, "roles": ["focal-point"], "status": "active"}, {"member": REGISTRY, "roles": ["registry"], "status": "active"}],
        "matrix": {"trace.request": {"from": ["focal-point"], "to": ["registry"]}},
        "deadlines": {"acknowledgement_days": 2, "urgent_hours": 24, "routine_days": 30},
    }  # fmt: skip

    def key(use: str, **changes: Any) -> Json:
        return {**record["keys"], use: [{**record["keys"][use][0], **changes}]}

    message = record["keys"]["message"][0]["jwk"]
    ledger = record["ledgers"][0]
    records: list[tuple[str, bytes, Any]] = [
        ("a record", dump_json(record), {"member": ASKER, "kids": {use: [k.kid] for use, k in keys.items()}, "ledgers": [OURS]}),
        ("an unknown member", members(record, x=1), "dir.invalid"),
        ("another suite", members(record, suite="tw2"), "dir.invalid"),
        ("no seal key", members(record, keys={**record["keys"], "seal": []}), "dir.invalid"),
        ("no such day", members(record, keys=key("message", not_before="2026-02-30T00:00:00.000Z")), "dir.invalid"),
        ("a JWK with kid", members(record, keys=key("message", jwk={**message, "kid": "k"})), "dir.key_invalid"),
        ("one key for two uses", members(record, keys=key("request", jwk=message)), "dir.key_use"),
        ("an Ed25519 key to seal to", members(record, keys=key("seal", jwk=message)), "dir.key_use"),
        ("a ledger of another member", members(record, ledgers=[{"origin": THEIRS, "vkeys": THEIR_LOG.vkeys, "state": "open"}]), "dir.invalid"),
        ("ledger keys of another origin", members(record, ledgers=[{**ledger, "origin": f"{ASKER}/2027.1"}]), "dir.key_invalid"),
        ("ledger keys swapped", members(record, ledgers=[{**ledger, "vkeys": OUR_LOG.vkeys[::-1]}]), "dir.key_invalid"),
        ("abandoned by itself", members(record, ledgers=[{**ledger, "state": "abandoned"}]), "dir.invalid"),
        ("a member twice", dump_json(record)[:-1] + b',"v":1}', "json.duplicate"),
    ]  # fmt: skip
    admitted = network["members"]
    networks: list[tuple[str, bytes, Any]] = [
        ("directory.json", dump_json(network), {"network": "test", "members": [ASKER, REGISTRY]}),
        ("a member listed twice", members(network, members=[*admitted, admitted[0]]), "dir.invalid"),
        ("a member of another network", members(network, members=[{**admitted[0], "member": "live/asker"}]), "dir.invalid"),
        ("an unknown role", members(network, members=[{**admitted[0], "roles": ["king"]}]), "dir.invalid"),
        ("live as text", members(network, live="false"), "dir.invalid"),
        ("a rule by other names", members(network, matrix={"t": {"senders": [], "recipients": []}}), "dir.invalid"),
    ]  # fmt: skip
    return [
        vector(name, "one fault" if isinstance(value, str) else "good", {"document": which} | data(raw), value)
        for which, cases in (("record", records), ("network", networks))
        for name, raw, value in cases
    ]


COMMON: dict[str, Json] = {
    "note": {"origin": OURS, "vkeys": OUR_LOG.vkeys},
    "proof": {"origin": THEIRS, "vkeys": THEIR_LOG.vkeys},
    "jws": {"public": b64u(MESSAGE_KEY.public.public)},
    "envelope": {"seed": b64u(SEAL_SEED), "kid": SEAL_KID},
}
"""Input members that all vectors of a file share."""

FILES: dict[str, tuple[str, Callable[[], list[Json]]]] = {
    "strict": ("Strict JSON: `data` (or `data_b64u`) to a value.", strict_vectors),
    "entry": ("Ledger entries: exact bytes to kind, members and leaf hash.", entry_vectors),
    "note": ("Checkpoints as signed notes, under the two vkeys of an origin.", note_vectors),
    "message": ("Payloads of a JWS, with their commitments.", message_vectors),
    "jws": ("JWS compact, under the Ed25519 key `public`.", jws_vectors),
    "sealing": ("HPKE-9-KE: a content key unwrapped with the recipient's seed.", lambda: [SEALING]),
    "envelope": (
        "Envelopes, opened with the seal key of `seed` to the JWS and the restricted parts.",
        envelope_vectors,
    ),
    "httpsig": ("Request signatures at the time `now`, under the Ed25519 key `public`.", httpsig_vectors),
    "lines": ("The lines of a POST, or (`answer`) of its answer.", line_vectors),
    "tiles": ("Tile paths and entry bundles (C2SP tlog-tiles).", tile_vectors),
    "proof": ("C2SP tlog-proof files, under the two vkeys of an origin.", proof_vectors),
    "linking": ("Which held sizes links prove; and the chain of links to send.", linking_vectors),
    "directory": ("A member's record, or directory.json (`document`).", directory_vectors),
    "bodies": (
        "Bodies of every type: one valid; for each rule one `body`, or a `change` of the valid one (no `to`: taken out).",
        body_vectors,
    ),
}


def main(folder: Path) -> None:
    """Writes every file."""
    for name, (about, make) in FILES.items():
        found = {"about": about, "common": COMMON.get(name, {}), "vectors": make()}
        (folder / f"{name}.json").write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
