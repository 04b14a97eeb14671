"""Group envelope: whatever a peer seals, signs or names wrongly is one `refused` entry, its cause kept to ourselves.

A real node gets each attack over HTTP with a valid proof of the sender's ledger: the cheap defences are passed, the one
that is named must hold. Each id holds the neighbours of its attack too.
"""

import asyncio
import base64
import hmac
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest

from adapters.directory.request import build_request, parse_request, possession_message
from keys.suite import Ed25519Signer
from keys.tufsign import tuf_signer
from protocols.exchange.envelope import EK_BYTES
from protocols.exchange.lines import Parcel, Receipt
from protocols.exchange.message import Message, parse_message, sign_message
from protocols.ledger.entry import Entry, parse_entry
from protocols.ledger.proof import Place
from protocols.problems import ProblemError
from protocols.strict import b64u, dump_json, format_time, unb64u
from tests.federation import Federation, Json, Node, Stranger, refused, trace_request, verify_ledger

STORED = ("inbox", "content", "event", "leg")  # what only a message that was taken leaves behind
Make = Callable[["World"], Parcel]
Edit = Callable[[bytes], bytes]
ABSENT = object()


class Counting:
    """An opener that counts its calls."""

    def __init__(self, real: Any) -> None:
        self.real, self.calls = real, []

    def unwrap(self, *args: Any) -> bytes | None:
        self.calls.append("unwrap")
        return self.real.unwrap(*args)

    def decrypt(self, *args: Any) -> bytes | None:
        self.calls.append("decrypt")
        return self.real.decrypt(*args)


class Keys:
    """A node's key store whose opener counts."""

    def __init__(self, real: Any) -> None:
        self._real, self.counting = real, Counting(real.opener())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def opener(self) -> Counting:
        return self.counting


@dataclass
class World:
    """A node b, the hostile member m, another member c, and an address that nobody may ever ask."""

    fed: Federation
    b: Node
    m: Stranger
    c: Stranger
    url: str
    asked: list[Any]

    @property
    def calls(self) -> list[str]:
        return self.b.keys.counting.calls  # type: ignore[attr-defined]

    def parcel(self, **layers: Any) -> Parcel:
        return self.m.parcel(self.b, **layers)


@pytest.fixture
async def world(fed: Federation) -> Any:
    asked: list[Any] = []
    server = await asyncio.start_server(lambda reader, writer: asked.append(writer), "127.0.0.1", 0)
    (b,) = await fed.nodes("b")
    m, c = await fed.strangers("m", "c")
    await b.stop()
    b.keys = Keys(b.keys)  # type: ignore[assignment]
    await b.start()
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
    yield World(fed, b, m, c, url, asked)
    server.close()
    await server.wait_closed()


async def nothing_taken(b: Node) -> None:
    assert {table: await b.count(table) for table in STORED} == dict.fromkeys(STORED, 0)


# ---- ways to change a layer; what is signed and committed to is changed with it, so that one fault is left


def resigned(world: World, header: Any = None, sign: Any = None, **changes: Any) -> Edit:
    """The JWS under another protected header, signed again by the sender's own key or as said."""

    def edit(jws: bytes) -> bytes:
        old, payload, _ = jws.split(b".")
        members = {
            name: value for name, value in (json.loads(unb64u(old.decode())) | changes).items() if value is not ABSENT
        }
        signed = b64u(header if header is not None else dump_json(members)).encode() + b"." + payload
        signature = (sign or world.m.keys.signer("message").sign)(signed)
        return signed + b"." + (signature if sign is raw else b64u(signature).encode())

    return edit


def raw(signed: bytes) -> bytes:
    return b""


def jws(**changes: Any) -> Make:
    return lambda w: w.parcel(jws=resigned(w, **changes))


def unsigned(**changes: Any) -> Make:
    return lambda w: w.parcel(jws=resigned(w, sign=raw, **changes))


def protected(header: Any = None, **changes: Any) -> Make:
    """The envelope under another protected header."""

    def edit(data: bytes) -> bytes:
        found = json.loads(data)
        members = {
            name: value
            for name, value in (json.loads(unb64u(found["protected"])) | changes).items()
            if value is not ABSENT
        }
        return dump_json(found | {"protected": b64u(header if header is not None else dump_json(members))})

    return lambda w: w.parcel(envelope=edit)


def outer(**changes: Any) -> Make:
    def edit(data: bytes) -> bytes:
        return dump_json({name: value for name, value in (json.loads(data) | changes).items() if value is not ABSENT})

    return lambda w: w.parcel(envelope=edit)


def text(change: Edit) -> Make:
    return lambda w: w.parcel(envelope=change)


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    """A payload with a piece replaced and its pad made to fit again."""
    assert old in data
    found, spaces = data.replace(old, new, 1), len(data) - len(data.rstrip(b' "}')) - 3
    pad = spaces + len(data) - len(found)
    return found[: -spaces - 2] + b" " * max(pad, 0) + found[-2:]


def payload(old: bytes, new: bytes) -> Make:
    return lambda w: w.parcel(payload=lambda data: replaced(data, old, new))


def whole(change: Edit) -> Make:
    return lambda w: w.parcel(payload=change)


def member_of(data: bytes, name: str) -> bytes:
    return unb64u(json.loads(data)[name])


def cut(name: str, length: int) -> Make:
    """A member of the envelope at another length: cut off, or with zeros behind."""

    def edit(data: bytes) -> bytes:
        return dump_json(json.loads(data) | {name: b64u((member_of(data, name) + bytes(99))[:length])})

    return lambda w: w.parcel(envelope=edit)


def ek(change: Edit) -> Make:
    def edit(data: bytes) -> bytes:
        found = json.loads(data)
        header = json.loads(unb64u(found["protected"]))
        header["ek"] = b64u(change(unb64u(header["ek"])))
        return dump_json(found | {"protected": b64u(dump_json(header))})

    return lambda w: w.parcel(envelope=edit)


def segment(number: int, change: Edit) -> Make:
    """One piece of the JWS, as text, changed."""

    def edit(data: bytes) -> bytes:
        pieces = data.split(b".")
        pieces[number] = change(pieces[number])
        return b".".join(pieces)

    return lambda w: w.parcel(jws=edit)


def spare(piece: bytes) -> bytes:
    """Spare bits that decode alike: only a piece whose last character carries some can have them."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert len(piece) % 4
    return piece[:-1] + bytes([alphabet[alphabet.index(piece[-1]) ^ 1]])


def hs256(key: Callable[[World], bytes]) -> Make:
    return lambda w: w.parcel(jws=resigned(w, alg="HS256", sign=lambda data: hmac.new(key(w), data, sha256).digest()))


def public(w: World) -> bytes:
    return w.m.keys.signer("message").public.public


def pem(w: World) -> bytes:
    der = bytes.fromhex("302a300506032b6570032100") + public(w)
    return b"-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(der) + b"\n-----END PUBLIC KEY-----\n"


def named(name: str) -> Make:
    """Another member's name, or what looks like one, in a message under our own proof."""
    return payload(b'"from":"testnet/m"', b'"from":"' + name.encode() + b'"')


def twice(header: bytes) -> Make:
    return lambda w: w.parcel(jws=resigned(w, header=header.replace(b"KID", w.m.keys.signer("message").kid.encode())))


def of_another_message(w: World) -> Parcel:
    other = sign_message(w.m.message(w.b).encode(), w.m.keys.signer("message")).rpartition(b".")[2]
    return w.parcel(jws=lambda data: data.rpartition(b".")[0] + b"." + other)


def by_nobody(w: World) -> Parcel:
    """Who holds every key of b, and none of m: the sender is proven by a signature, never by a shared secret."""
    return w.parcel(jws=resigned(w, sign=Ed25519Signer(w.b.keys.signer("message")._private.private_bytes_raw()).sign))


def a_receipt(data: bytes) -> bytes:
    return dump_json({"v": 1, "kind": "received", "n": b64u(bytes(16))})


SPELLINGS = (
    "testnet/\u043c", "testnet/m\u200b", "testnet/\u202em", "testnet/M", "Testnet/m", "testnet/e\u0301", "testnet/m ", " testnet/m",
    "testnet//m", "testnet/\uff4d", "testnet/\u0131", "testnet/-m", "testnet/", "/m", "testnet", "testnet/m/n", "testnet/" + "m" * 33, "",
)  # fmt: skip
HEADER = b'{"alg":"Ed25519","typ":"tracewire-message+jws","kid":"KID"}'
Attack = tuple[str, str, bool, list[Make]]  # cause in our table, public code, whether it could be opened, the variants
ATTACKS: dict[str, list[Attack]] = {
    "J01": [("env.alg", "env.invalid", True, [
        *(make(alg=alg) for alg in ("none", "None", "nOnE", "NONE", "", " none", "ed25519") for make in (jws, unsigned)),
    ])],
    "J02": [("env.alg", "env.invalid", True, [
        hs256(public), hs256(pem), hs256(lambda w: pem(w).rstrip()), hs256(lambda w: b64u(public(w)).encode()), hs256(lambda w: b""),
        hs256(lambda w: dump_json(w.m.keys.signer("message").public.jwk)), jws(alg="HS384"), jws(alg="HS512"),
    ])],
    "J03": [("env.alg", "env.invalid", True, [
        *(jws(alg=alg) for alg in ("ES256", "RS256", "PS256", "EdDSA", "Ed448", "ML-DSA-44", "ES256K", "HPKE-9-KE", "dir")),
    ])],
    "J05": [
        ("env.header", "env.invalid", False, [
            outer(header={"alg": "HPKE-9-KE"}), outer(unprotected={"alg": "HPKE-9-KE"}), outer(unprotected={}),
            lambda w: w.parcel(envelope=lambda data: dump_json(json.loads(data) | {
                "protected": b64u(dump_json({n: v for n, v in json.loads(member_of(data, "protected")).items() if n != "alg"})),
                "header": {"alg": "HPKE-9-KE"}})),
            protected(alg=ABSENT), protected(alg=["HPKE-9-KE"]), protected(alg=None),
        ]),
        ("env.header", "env.invalid", True, [jws(alg=ABSENT), jws(alg=None), jws(alg=["Ed25519"])]),
    ],
    "J06": [
        ("env.kid", "env.invalid", True, [
            *(jws(kid=kid) for kid in ("../../etc/passwd", "'; DROP TABLE inbox; --" + "x" * 20, "k" * 3_900, "", "A" * 42, "A" * 44,
                                       "A" * 42 + "=", "A" * 42 + "B", "A" * 42 + "/", "\uff21" * 43, "A" * 43 + "\n")),
        ]),
        ("env.kid", "env.invalid", False, [*(protected(kid=kid) for kid in ("../../etc/passwd", "'" * 43, "A" * 44, ""))]),
        ("json.too_large", "env.invalid", True, [jws(kid="k" * 5_000)]),
        ("env.format", "env.invalid", True, [jws(kid="k" * 300_000)]),  # a megabyte is no envelope at all
    ],
    "J07": [
        ("env.header", "env.invalid", True, [*(jws(kid=kid) for kid in ({}, 5, None, True, ["A" * 43], ABSENT))]),
        ("env.header", "env.invalid", False, [*(protected(kid=kid) for kid in ({}, 5, None, False, ["A" * 43], ABSENT))]),
    ],
    "J08": [("env.sender_mismatch", "env.invalid", True, [
        lambda w: w.parcel(signer=w.c),
        lambda w: w.parcel(signer=w.b),
        lambda w: w.parcel(jws=resigned(w, kid=w.c.keys.signer("message").kid), entry={"kid": w.c.keys.signer("message").kid}),
    ])],
    "J09": [
        ("env.header", "env.invalid", True, [lambda w, n=n: w.parcel(jws=resigned(w, **{n: w.url})) for n in ("jku", "x5u", "JKU", "url")]),
        ("env.header", "env.invalid", False, [lambda w, n=n: protected(**{n: w.url})(w) for n in ("jku", "x5u", "iss")]),
    ],
    "J10": [
        ("env.header", "env.invalid", True, [
            lambda w: w.parcel(jws=resigned(w, jwk=w.m.keys.signer("message").public.jwk)), jws(x5c=["MIIB"]), jws(x5t="AA"), jws(cty="x"),
        ]),
        ("env.header", "env.invalid", False, [protected(jwk={}), protected(x5c=[]), protected(epk={"kty": "OKP"}), protected(apu="AA"), protected(psk_id="AA")]),
    ],
    "J11": [
        ("env.crit", "env.invalid", True, [*(jws(crit=crit) for crit in (["foo"], [], ["alg"], "foo", None, ["b64"], [1]))]),
        ("env.crit", "env.invalid", False, [*(protected(crit=crit) for crit in (["foo"], [], None))]),
    ],
    "J13": [
        ("env.header", "env.invalid", True, [jws(b64=False, crit=["b64"]), jws(b64=True, crit=["b64"]), jws(b64=False), jws(b64=None)]),
        ("env.header", "env.invalid", False, [protected(b64=False, crit=["b64"]), protected(b64=False)]),
    ],
    "J14": [
        ("json.duplicate", "env.invalid", True, [
            twice(HEADER.replace(b"{", b'{"alg":"none",')), twice(HEADER.replace(b"{", b'{"alg":"Ed25519",')),
            twice(HEADER.replace(b"}", b',"kid":"KID"}')), twice(HEADER.replace(b"{", b'{"\\u0061lg":"none",')),
            payload(b'"v":1,', b'"v":1,"v":1,'), payload(b'"body":{', b'"body":{"asks":[],'),
        ]),
        ("json.duplicate", "env.invalid", False, [
            text(lambda data: data[:-1] + b',"tag":"AA"}'), text(lambda data: b'{"iv":"AA",' + data[1:]),
            text(lambda data: dump_json(json.loads(data) | {"protected": b64u(b'{"alg":"HPKE-9-KE",' + member_of(data, "protected")[1:])})),
        ]),
    ],
    "J16": [("json.number", "env.invalid", True, [
        *(payload(b'"v":1', b'"v":' + literal) for literal in (b"NaN", b"Infinity", b"-Infinity")),
    ])],
    "J17": [
        ("json.encoding", "env.invalid", True, [
            whole(lambda data: b"\xef\xbb\xbf" + data), whole(lambda data: data.decode().encode("utf-16")),
            whole(lambda data: data.decode().encode("utf-16-le")), whole(lambda data: data.decode().rstrip().encode("utf-32")[:200_000]),
            *(payload(b"Office", bad) for bad in (b"\xc0\xaf", b"\xe0\x80\xaf", b"\xff", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\\ud800", b"\\u0000", b"\0")),
            twice(b"\xef\xbb\xbf" + HEADER), twice(b"\xff" + HEADER),
        ]),
        ("env.format", "env.invalid", False, [text(lambda data: b"\xef\xbb\xbf" + data), text(lambda data: b" " + data)]),
    ],
    "J19": [("schema.invalid", "schema.invalid", True, [
        *(named(name) for name in SPELLINGS),
        *(payload(b'"to":"testnet/b"', b'"to":"' + name.encode() + b'"') for name in SPELLINGS),
        payload(b'"type":"trace.request"', '"type":"tr\u0430ce.request"'.encode()),
    ])],
    "J20": [
        ("json.depth", "env.invalid", True, [
            *(payload(b'"body":{', b'"body":{"x":' + b"[" * deep + b"]" * deep + b",") for deep in (32, 65, 1_000)),
            whole(lambda data: b"[" * 100_000), whole(lambda data: b'{"a":' * 20_000), whole(lambda data: b"[" * 65 + b"]" * 65),
        ]),
    ],
    "J21": [("json.number", "env.invalid", True, [
        *(payload(b'"v":1', b'"v":' + number) for number in (
            b"1" + b"0" * 5_000, b"9007199254740993", b"9007199254740992", b"-9007199254740992", b"1e400", b"-0", b"1.0", b"1e0", b"-01")),
    ])],
    "J23": [
        ("b64.invalid", "env.invalid", True, [
            *(segment(n, lambda piece: piece + b"=") for n in (0, 1, 2)), segment(2, lambda piece: piece + b"=="),
            *(segment(n, lambda piece, c=c: piece[:8] + c + piece[8:]) for n in (0, 2) for c in (b" ", b"\t", b"\r", b"=")),
            *(segment(2, lambda piece, c=c: c + piece[1:]) for c in (b"+", b"/", b"%", b"!", b"~")),
            segment(2, spare), segment(2, lambda piece: piece[:-1]), segment(2, lambda piece: piece + b"A"), segment(2, lambda piece: b""),
        ]),
        ("b64.invalid", "env.invalid", False, [
            *(outer(**{name: value}) for name in ("iv", "tag", "encrypted_key", "ciphertext") for value in ("AA==", "A\n", "+/+/", "A B ", "AB")),
            text(lambda data: data.replace(b'"protected":"', b'"protected":"\\n', 1)), text(lambda data: data.replace(b'"iv":"', b'"iv":" ', 1)),
        ]),
    ],
    "J27": [("env.signature", "env.invalid", True, [
        of_another_message,
        lambda w: w.parcel(jws=resigned(w, sign=lambda data: bytes(64))),
        lambda w: w.parcel(jws=resigned(w, sign=lambda data: bytes([1]) + bytes(63))),
        lambda w: w.parcel(jws=resigned(w, sign=lambda data: w.m.keys.signer("message").sign(data + b"."))),
        lambda w: w.parcel(jws=resigned(w, sign=lambda data: w.m.keys.signer("request").sign(data))),
        lambda w: w.parcel(jws=resigned(w, sign=lambda data: w.m.keys.signer("message").sign(data)[::-1])),
    ])],
    "J28": [("env.typ", "env.invalid", True, [
        *(jws(typ=typ) for typ in ("tracewire-receipt+jws", "JWT", "at+jwt", "tracewire-envelope+jwe", "", "Tracewire-Message+JWS", "application/tracewire-message+jws")),
        lambda w: w.parcel(payload=a_receipt, jws=resigned(w, typ="tracewire-receipt+jws")),
    ])],
    "J30": [("env.alg", "env.invalid", False, [
        *(protected(alg=alg) for alg in ("dir", "A256KW", "RSA1_5", "RSA-OAEP", "RSA-OAEP-256", "ECDH-ES", "ECDH-ES+A256KW", "PBES2-HS256+A128KW",
                                         "HPKE-9", "HPKE-0-KE", "HPKE-10-KE", "none", "hpke-9-ke", "Ed25519")),
    ])],
    "J32": [
        ("env.header", "env.invalid", False, [*(protected(zip=value) for value in ("DEF", "GZIP", "", None))]),
        ("env.header", "env.invalid", True, [jws(zip="DEF")]),
    ],
    "J34": [("env.decrypt", "env.invalid", False, [*(protected(enc=enc) for enc in ("A128GCM", "A192GCM", "A256CBC-HS512", "A256gcm", "C20P", ""))])],
    "J35": [("env.decrypt", "env.invalid", False, [
        ek(lambda data: data[:-1]), ek(lambda data: data + b"\0"), ek(lambda data: bytes(EK_BYTES)), ek(lambda data: os.urandom(EK_BYTES)),
        ek(lambda data: b""), ek(lambda data: data[:1_088] + bytes(32)), ek(lambda data: data[:1_088] + bytes([1]) + bytes(31)),
        ek(lambda data: data[:1_088] + b"\xff" * 32), ek(lambda data: bytes([data[0] ^ 1]) + data[1:]), ek(lambda data: data[:-1] + bytes([data[-1] ^ 1])),
        ek(lambda data: b"\xff" * 1_088 + data[1_088:]), ek(lambda data: data[1_088:] + data[:1_088]),
    ])],
    "J37": [("env.format", "env.invalid", False, [
        outer(recipients=[]), outer(recipients=[{"encrypted_key": "AA"}, {"encrypted_key": "AA"}]),
        lambda w: w.parcel(envelope=lambda data: dump_json({n: v for n, v in json.loads(data).items() if n != "encrypted_key"} | {
            "recipients": [{"encrypted_key": json.loads(data)["encrypted_key"]}]})),
    ])],
    "J39": [("env.decrypt", "env.invalid", False, [
        *(cut("tag", length) for length in (0, 4, 8, 12, 15, 17, 32)), *(cut("iv", length) for length in (0, 1, 8, 11, 13, 16)),
        *(cut("encrypted_key", length) for length in (0, 32, 47, 49)), cut("ciphertext", 0), cut("ciphertext", 1),
    ])],
    "J42": [("env.sender_mismatch", "env.invalid", True, [  # the hub m took the message of c apart
        lambda w: w.parcel(message={"sender": w.c.name}, header={"sender": w.m.name}),
        lambda w: w.parcel(message={"sender": w.c.name}, header={"sender": w.m.name}, signer=w.c),
        lambda w: w.parcel(message={"sender": w.c.name}),
        lambda w: w.parcel(header={"sender": w.c.name}),
        lambda w: w.parcel(header={"sender": w.c.name}, signer=w.c),
    ])],
    "J43": [("env.signature", "env.invalid", True, [by_nobody])],
    "J49": [
        ("env.format", "env.invalid", True, [
            lambda w: w.parcel(jws=lambda data: dump_json(dict(zip(("protected", "payload", "signature"), data.decode().split("."), strict=True)))),
            lambda w: w.parcel(jws=lambda data: dump_json({"payload": data.split(b".")[1].decode(), "signatures": [
                dict(zip(("protected", "signature"), data.decode().split(".")[::2], strict=True))]})),
            lambda w: w.parcel(jws=lambda data: data + b"."), lambda w: w.parcel(jws=lambda data: b"." + data),
            lambda w: w.parcel(jws=lambda data: data.rpartition(b".")[0]), lambda w: w.parcel(jws=lambda data: b""),
            lambda w: w.parcel(jws=lambda data: data + b".." + data), lambda w: w.parcel(jws=lambda data: "é".encode() + data),
        ]),
        ("env.format", "env.invalid", False, [
            text(lambda data: b".".join(json.loads(data)[n].encode() for n in ("protected", "encrypted_key", "iv", "ciphertext", "tag"))),
            text(lambda data: b"[" + data + b"]"), text(lambda data: b"null"), text(lambda data: b'"' + data[:9] + b'"'),
            *(outer(**{name: ABSENT}) for name in ("iv", "tag", "ciphertext", "protected", "encrypted_key")), outer(iv=None), outer(x="x"), outer(tag=[]),
        ]),
    ],
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
async def test_what_can_never_be_a_message_of_its_sender_is_refused_by_its_cause(attack: str, world: World) -> None:
    b, m = world.b, world.m
    wanted: list[tuple[str, str, bool]] = []
    parcels: list[Parcel] = []
    for cause, code, read, variants in ATTACKS[attack]:
        for make in variants:
            wanted.append((cause, code, read))
            parcels.append(make(world))
    answer = await m.post(b, *(m.fresh(parcel) for parcel in parcels))
    causes = {(row["id"]): row["cause"] for row in await b.rows("SELECT id, cause FROM refusal")}
    for at, (expected, parcel, item) in enumerate(zip(wanted, parcels, answer.items, strict=True)):
        assert isinstance(item, Receipt), (at, item)
        sent, entry = parse_entry(parcel.place.entry), parse_entry(item.place.entry)
        assert (entry.kind, entry.envelope) == ("refused", sent.envelope)
        assert (causes[sent.id], entry.code, entry.read) == expected, at
    await nothing_taken(b)
    assert len(await verify_ledger(b)) == await b.count("refusal") + 1 == len(parcels) + 1
    assert (world.asked, b.wire.posts) == ([], []), "nobody is asked for anything"
    assert isinstance(await m.give(b, m.parcel(b)), Place), "an honest message of the same member is taken"


async def test_no_key_is_derived_and_nothing_opened_for_an_algorithm_that_we_do_not_have(world: World) -> None:
    b, m = world.b, world.m
    algorithms: list[Json] = [
        {"alg": "PBES2-HS512+A256KW", "p2c": 2**31, "p2s": "AAAAAAAA"}, {"alg": "PBES2-HS256+A128KW", "p2c": 2**53 - 1},
        {"alg": "dir"}, {"alg": "RSA1_5"}, {"zip": "DEF"}, {"enc": "A128GCM"}, {"kid": "x"}, {"typ": "JWT"},
    ]  # fmt: skip
    parcels = [protected(**changes)(world) for changes in algorithms]
    await m.post(b, *(m.fresh(parcel) for parcel in parcels))
    causes = [
        (await b.sql("SELECT cause FROM refusal WHERE id = $1", parse_entry(p.place.entry).id))[0] for p in parcels
    ]
    assert causes[:4] == ["env.alg"] * 4
    assert world.calls == [], "the opener was never asked"
    assert isinstance(await m.give(b, m.parcel(b)), Place)
    assert world.calls == ["unwrap", "decrypt"]


async def test_what_fails_inside_an_envelope_cannot_be_told_apart(world: World) -> None:
    b, m = world.b, world.m
    flipped = {name: text(lambda data, name=name: dump_json(json.loads(data) | {name: b64u(flip(member_of(data, name)))}))
               for name in ("tag", "ciphertext", "encrypted_key")}  # fmt: skip
    ways: dict[str, Make] = {
        "an ek that is noise": ek(lambda data: os.urandom(EK_BYTES)), "an ek with a bit changed": ek(flip),
        "a seal key that nobody has": lambda w: w.parcel(kid="A" * 43),
        "another member's seal key": lambda w: m.parcel(w.c, entry={"recipient": b.name}, header={"recipient": b.name}),
        "a signature that does not hold": of_another_message, **flipped,
    }  # fmt: skip
    found: dict[str, tuple[list[str], Entry]] = {}
    for name, make in ways.items():
        world.calls.clear()
        (item,) = (await m.post(b, make(world))).items  # each answered with 200 and one receipt line
        assert isinstance(item, Receipt)
        found[name] = list(world.calls), parse_entry(item.place.entry)
    for name, (calls, entry) in found.items():
        assert calls == ["unwrap", "decrypt"], name
        assert (entry.kind, entry.code) == ("refused", "env.invalid"), name
        inside = name == "a signature that does not hold"
        assert entry.read == inside, "docs/protocol.md section 3: `read` says whether it could be opened, and no more"
        assert (entry.content_c is not None) == inside, name
    await nothing_taken(b)


def flip(data: bytes) -> bytes:
    return data[:5] + bytes([data[5] ^ 1]) + data[6:]


async def test_signature_lines_in_any_order_and_of_strangers_are_taken_and_never_twice(world: World) -> None:
    b, m = world.b, world.m

    def note(*order: int, more: bytes = b"") -> tuple[Parcel, dict[tuple[str, int], bytes]]:
        parcel = m.parcel(b)
        head, _, lines = m.note().rpartition(b"\n\n")
        each = lines.splitlines(keepends=True)
        return parcel, {(m.origin, len(m.log)): head + b"\n\n" + b"".join(each[i] for i in order) + more}

    stranger = f"\u2014 witness.example/w {base64.b64encode(b'abcd' + bytes(72)).decode()}\n".encode()
    for order, more in (((1, 0), b""), ((0, 1), stranger), ((1, 0), stranger)):
        parcel, notes = note(*order, more=more)
        assert isinstance(await m.give(b, parcel, notes=notes), Place)
    entries = len(await verify_ledger(b))
    for order, more in (
        ((0, 1, 0), b""),
        ((0, 0, 1), b""),
        ((0, 1, 1), b""),
        ((0, 1), stranger * 2),
        ((0, 1), stranger[:-1]),
    ):
        parcel, notes = note(*order, more=more)
        await refused("note.invalid", m.post(b, parcel, notes=notes))
    assert len(await verify_ledger(b)) == entries
    assert (await b.count("inbox"), await b.count("refusal")) == (3, 0)


@pytest.mark.parametrize(
    ("member", "name"), [("from", name) for name in SPELLINGS] + [("to", name) for name in SPELLINGS]
)
def test_a_member_has_one_spelling(member: str, name: str) -> None:
    at = datetime(2026, 11, 22, tzinfo=UTC)
    given: Json = {
        "type": "t",
        "created": at,
        "expires": at + timedelta(days=1),
        "handling": {},
        "salt": bytes(32),
        "body": {},
    }
    said = Message(
        id=UUID(int=7 << 76 | 2 << 62), thread=UUID(int=7 << 76 | 2 << 62), sender="net/m", recipient="net/b", **given
    )
    old = {"from": b'"from":"net/m"', "to": b'"to":"net/b"'}[member]
    with pytest.raises(ProblemError) as caught:
        parse_message(replaced(said.encode(), old, f'"{member}":"{name}"'.encode()))
    assert (caught.value.code, caught.value.errors[0].pointer) == ("schema.invalid", f"/{member}")
    assert not name or name not in f"{caught.value} {caught.value.errors}"


async def test_suspicious_signs_in_a_serial_are_kept_as_they_came(world: World) -> None:
    b, m = world.b, world.m
    for serial in ("AB\u202e12", "AB\u200b12", "\u0410B12", "e\u0301 12"):
        body = trace_request("ABC")
        body["weapon"]["components"][0]["marks"][0]["text_raw"] = serial
        message = m.message(b, body=body)
        assert isinstance(await m.give(b, m.parcel(b, message=message)), Place)
        content = await b.read.content(m.name, message.id)
        assert content.message.body["weapon"]["components"][0]["marks"][0]["text_raw"] == serial


# ---- keys by time and by position


async def relist(world: World, **changes: Any) -> None:
    """The newest message key of m, listed with other dates or as revoked."""
    m, fed = world.m, world.fed
    record = json.loads(parse_request(m.request).record_bytes)
    record["keys"]["message"][0] = {
        n: v for n, v in (record["keys"]["message"][0] | changes).items() if v is not ABSENT
    }
    data = dump_json(record)
    m.version += 1
    m.request = build_request(
        record=data, version=m.version, record_key=m.keys.public("record")[0],
        record_signer=tuf_signer(m.keys.record_private()), possession=m.keys.possession(possession_message(data)),
        now=fed.clock.now(),
    )  # fmt: skip
    await fed.publish(m.request)


async def test_a_signing_key_counts_by_its_dates_and_by_the_ledger_position_of_its_revocation(world: World) -> None:
    b, m, fed = world.b, world.m, world.fed
    now = fed.clock.now()

    async def cause(parcel: Parcel) -> str:
        place = await m.give(b, m.fresh(parcel))
        entry = parse_entry(place.entry)
        assert (entry.kind, entry.code) == ("refused", "env.invalid")
        return str((await b.sql("SELECT cause FROM refusal WHERE id = $1", entry.id))[0])

    before = m.parcel(b)  # logged under the key as it was, and sent late
    await relist(world, not_before=format_time(now + timedelta(hours=1)))
    early = m.parcel(b)
    assert await m.give(b, early) == "dir.key_unknown", "it may heal: a problem, no entry"
    assert (await b.count("refusal"), len(await verify_ledger(b))) == (0, 1)
    await relist(
        world, not_before=format_time(now - timedelta(hours=1)), not_after=format_time(now - timedelta(minutes=1))
    )
    assert await cause(m.parcel(b)) == "env.kid"
    assert await cause(early) == "env.kid"
    position: Json = {"origin": m.origin, "size": before.place.index}
    await relist(world, not_after=ABSENT, revoked=position)
    assert await cause(m.parcel(b)) == "env.kid"
    assert await cause(before) == "env.kid", "the position is the first that does not count"
    held = m.parcel(b)
    await relist(world, revoked={"origin": f"{m.name}/2027.1", "size": 99})
    assert await cause(held) == "env.kid", "a position of another ledger saves nothing"
    good = m.parcel(b)
    await relist(world, revoked=position | {"size": good.place.index + 1})
    assert isinstance(await m.give(b, m.fresh(good)), Place), "what was logged before it stays good"
    assert await cause(m.parcel(b)) == "env.kid"
    assert await b.count("inbox") == 1
