"""What an outsider can do with the files of a ledger: believe no forged tile, and find nothing of what messages said."""

import base64
import hashlib
import hmac
import importlib.util
import itertools
import re
import sys
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from gateway.runtime.cli.folder import keys_of, verified
from gateway.runtime.serving import OneLedger, _folder
from gateway.services.explore import Explore
from keys.suite import Tw1Verifier
from protocols.ledger.merkle import HASH_BYTES, leaf_hash
from protocols.ledger.tiles import ENTRIES, WIDTH, encode_bundle, parse_bundle, tile_path, tile_width
from protocols.problems import ProblemError
from tests.fault.invariants import View
from tests.federation import Federation
from tests.interop.conftest import Ledger
from tests.services.erasing import ANNA, erase, order
from tests.services.test_evidence import answered

ROOT = Path(__file__).parents[2]
SERIAL = "PLANT4417"
_spec = importlib.util.spec_from_file_location("tracewire_verify_audit", ROOT / "deploy/verifier/tracewire_verify.py")
assert _spec is not None
assert _spec.loader is not None
sys.path.insert(0, str(ROOT / "deploy/verifier"))
VERIFIER = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(VERIFIER)


def ledger(size: int) -> Ledger:
    found = Ledger("test/br-pf")
    found.open()
    entry = found.entry("admin", code="test").encode()
    found.add(*(entry.replace(b'"code":"test"', b'"code":"t%d"' % i) for i in range(1, size)))
    return found


def forge(folder: Path, index: int, size: int) -> None:
    """An entry and its hash in the lowest tile, changed together: what golang.org/x/mod took before v0.40 (CVE-2026-56865)."""
    bundle, tile = (ENTRIES, index // WIDTH), (0, index // WIDTH)
    path = folder / tile_path(bundle, tile_width(bundle, size))
    entries = list(parse_bundle(path.read_bytes()))
    lie = entries[index % WIDTH].replace(b'"code":"t', b'"code":"T')
    assert lie != entries[index % WIDTH]
    entries[index % WIDTH] = lie
    path.write_bytes(encode_bundle(entries))
    hashes = folder / tile_path(tile, tile_width(tile, size))
    data, at = bytearray(hashes.read_bytes()), index % WIDTH * HASH_BYTES
    data[at : at + HASH_BYTES] = leaf_hash(lie)
    hashes.write_bytes(bytes(data))


@pytest.mark.parametrize("size", [768, 1_000, 70_000])
async def test_a_forged_tile_is_refused_by_our_reader_the_pages_and_the_independent_verifier(
    tmp_path: Path, size: int
) -> None:
    found = ledger(size)
    folder = found.write(tmp_path / "ledger")
    keys = keys_of(folder, None)
    assert sum(1 for _ in verified(folder, keys)) == size
    assert VERIFIER.verify_log(folder, list(found.signer.vkeys)).size == size
    explore = Explore(OneLedger(_folder(folder), keys, None), Tw1Verifier())
    for index in (5, size - 1):
        assert (await explore.entry(found.origin, index)).logged.index == index
        forge(folder, index, size)
        with pytest.raises(ProblemError, match=r"do not give the root that was signed"):
            await explore.entry(found.origin, index)
    with pytest.raises(ProblemError, match=r"proof.path|tile.missing"):
        list(verified(folder, keys))
    with pytest.raises(VERIFIER.Failure):
        VERIFIER.verify_log(folder, list(found.signer.vkeys))


def texts(serial: str) -> set[bytes]:
    """How somebody might have written it."""
    words = {serial, serial.lower(), f'"{serial}"', f"^{serial}$", f'{{"serial":"{serial}"}}', f'"serial":"{serial}"'}
    return {word.encode(code) for word in words for code in ("utf-8", "utf-16-le", "utf-16-be")}


def _decoded(text: bytes, altchars: bytes = b"+/") -> bytes:
    """Base64 of either kind; what is none is itself."""
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), altchars)
    except ValueError:
        return text


def found_in(files: bytes, serial: str) -> bool:
    """Whether any byte of the files gives the serial away: itself, or a digest of it under anything that stands there."""
    fields = {_decoded(each, b"-_") for each in re.findall(rb'"([A-Za-z0-9_-]{22,86})"', files)}
    keys = {*fields, b"", *re.findall(rb'"([a-z0-9./:-]{3,64})"', files)}
    haystack = b"\n".join((files, *fields, *(_decoded(each) for each in re.findall(rb"[A-Za-z0-9+/]{40,}", files))))
    for text in texts(serial):
        if text in haystack or base64.urlsafe_b64encode(text).rstrip(b"=") in haystack:
            return True
        plain = {
            hashlib.new(name, text).digest() for name in ("sha256", "sha512", "sha1", "md5", "sha3_256", "blake2b")
        }
        salted = {
            hashlib.sha256(each).digest() for key in keys for each in (key + text, text + key, key + b"\0" + text)
        }
        keyed = {
            hmac.digest(key or b"\0", said, "sha256")
            for key in keys
            for said in (text, b"tracewire content 1\0" + text)
        }
        if any(each[:16] in haystack for each in itertools.chain(plain, salted, keyed)):
            return True
    return False


async def test_brute_force_of_a_planted_serial_against_every_byte_of_an_exported_ledger_finds_nothing(
    fed: Federation, tmp_path: Path
) -> None:
    a, b, sent = await answered(fed)
    planted = await a.trace(b, SERIAL)
    await a.becomes(planted, "delivered")
    _, looks = await b.read.thread(UUID(planted["thread"]), ANNA)
    await b.read.note(looks)
    wanted = replace(order(sent), authority=f"court about {SERIAL}")
    await erase(b, wanted)
    said = {entry.kind for entry in await b.entries()} | {entry.code for entry in await b.entries()}
    assert said >= {"received", "opened", "erased", "approval.asked", "approval.approved", "approval.used"}
    for node in (a, b):
        folder = tmp_path / node.short
        (await View(node).read()).export(folder, set())
        files = b"\n".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
        assert not found_in(files, SERIAL)
        assert planted["id"].encode() in files, "it is the right ledger"
        [entry] = [
            each for each in await node.entries() if each.kind in ("sent", "received") and str(each.id) == planted["id"]
        ]
        assert entry.n is not None
        for leak in (
            entry.encode().replace(b'"n":"', b'"code":"' + SERIAL.encode() + b'","n":"'),
            base64.urlsafe_b64encode(hashlib.sha256(SERIAL.encode()).digest()),
            base64.urlsafe_b64encode(hmac.digest(entry.n, SERIAL.encode(), "sha256")),
        ):
            assert found_in(files + b'\n"' + leak.rstrip(b"=") + b'"', SERIAL), "the search finds what is there"
    assert sent["id"] != planted["id"]
