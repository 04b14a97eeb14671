"""An evidence file of one thread, verified offline from the network's root.json alone (docs/protocol.md section 11).

    python tracewire_evidence.py FILE.zip --root root.json [--json]

One line for each claim. `summary.txt` is for people and is not read. Exit codes as in tracewire_verify.py, which lies beside this file.
"""

import argparse
import base64
import hmac
import json
import re
import sys
import zipfile
from collections.abc import Iterator, Sequence
from hashlib import sha256, sha512
from itertools import pairwise
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from tracewire_verify import Failure, _keys, _led, _node, _open, _read, _unb64, parse_entry, told
from tracewire_witnesses import _cosigned, _witness

BYTES_MAX, ROOTS_MAX = 64 * 1024 * 1024, 1_000
SENDERS, RECIPIENTS = ("sent", "receipt", "undelivered"), ("received", "refused", "id_conflict", "dispatched")
CONTENTS = ("here", "erased", "left out", "missing")
Json = dict[str, Any]


def _b64u(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64u(text: object) -> bytes:
    data = base64.urlsafe_b64decode(str(text) + "=" * (-len(str(text)) % 4))
    if _b64u(data) != text:
        raise Failure("evidence", "not canonical base64url")
    return data


def _canonical(value: object) -> str:
    """OLPC canonical JSON, in which TUF signs."""
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, dict):
        return "{" + ",".join(f"{_canonical(name)}:{_canonical(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_canonical, value)) + "]"
    return json.dumps(value)


def _signed_by(metadata: Json, keys: Json, role: Json) -> bool:
    """Whether the threshold of a role's keys signed TUF metadata; ML-DSA keys sign TAP 21's payload."""
    data, good = _canonical(metadata["signed"]).encode(), set[str]()
    for each in metadata["signatures"]:
        key = keys.get(each["keyid"]) if each["keyid"] in role["keyids"] else None
        if key is None:
            continue
        signature, public = bytes.fromhex(each["sig"]), key["keyval"]["public"]
        try:
            if key["scheme"] == "ed25519":
                Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(signature, data)
            elif key["scheme"].startswith("ml-dsa-"):
                load_pem_public_key(public.encode()).verify(signature, b"tuf\1" + sha512(data).digest())  # type: ignore[union-attr,call-arg,arg-type]
            else:
                continue
        except (InvalidSignature, ValueError, TypeError):
            continue
        good.add(each["keyid"])
    return len(good) >= role["threshold"] > 0


class Directory:
    """One version of the directory: the records of those members whose files are here."""

    def __init__(self, files: dict[str, bytes], roots: list[Json], version: int, digest: str) -> None:
        data = self._file(files, f"{version}.snapshot.json")
        if _b64u(sha256(data).digest()) != digest:
            raise Failure("directory", f"snapshot {version} is not the one that the entries name")
        snapshot = json.loads(data)
        if snapshot["signed"]["version"] != version:
            raise Failure("directory", f"snapshot {version} is of another version")
        if not any(self._under(root, "snapshot", snapshot) for root in roots):
            raise Failure("directory", f"snapshot {version} is not signed by the root's keys")
        meta = snapshot["signed"]["meta"]
        targets = json.loads(
            self._named(files, f"{meta['targets.json']['version']}.targets.json", meta["targets.json"])
        )
        if not any(self._under(root, "snapshot", snapshot) and self._under(root, "targets", targets) for root in roots):
            raise Failure("directory", f"the targets of snapshot {version} are not signed by the same root's keys")
        listed = targets["signed"]["targets"]["directory.json"]
        self.network = json.loads(self._named(files, f"targets/{listed['hashes']['sha256']}.directory.json", listed))
        self.version, self.digest, self.records = version, digest, dict[str, Json]()
        delegations = targets["signed"]["delegations"]
        roles = {role["name"]: role for role in delegations["roles"]}
        for admitted in self.network["members"]:
            member, short = admitted["member"], admitted["member"].partition("/")[2]
            newest = meta.get(f"{short}.json", {"version": 0})
            names = (f"{version}.{short}.json" for version in range(newest["version"], 0, -1))
            name = next((each for each in names if f"directory/{each}" in files), None)
            if name is None:
                continue
            if name == f"{newest['version']}.{short}.json":
                self._named(files, name, newest)
            role = json.loads(files[f"directory/{name}"])
            if not _signed_by(role, delegations["keys"], roles[short]):
                raise Failure("directory", f"{name} is not signed by the member's record key")
            path = f"members/{member}/record.json"
            info, (folder, _, last) = role["signed"]["targets"][path], path.rpartition("/")
            record = json.loads(self._named(files, f"targets/{folder}/{info['hashes']['sha256']}.{last}", info))
            if record["member"] != member:
                raise Failure("directory", f"{name} lists the record of another member")
            self.records[member] = record

    @staticmethod
    def _under(root: Json, role: str, metadata: Json) -> bool:
        return _signed_by(metadata, root["signed"]["keys"], root["signed"]["roles"][role])

    @staticmethod
    def _file(files: dict[str, bytes], name: str) -> bytes:
        if f"directory/{name}" not in files:
            raise Failure("missing", f"directory/{name}")
        return files[f"directory/{name}"]

    def _named(self, files: dict[str, bytes], name: str, info: Json) -> bytes:
        data = self._file(files, name)
        if sha256(data).hexdigest() != info["hashes"]["sha256"]:
            raise Failure("directory", f"{name} has another digest than is signed")
        return data


def _roots(pinned: bytes, files: dict[str, bytes]) -> list[Json]:
    """From the pinned root on, each signed by the one before and by itself."""
    roots = [json.loads(pinned)]
    for _ in range(ROOTS_MAX):
        version = roots[-1]["signed"]["version"]
        if len(roots) == 1 and files.get(f"directory/{version}.root.json", pinned) != pinned:
            raise Failure("directory", f"{version}.root.json is not the pinned root")
        data = files.get(f"directory/{version + 1}.root.json")
        if data is None:
            break
        following = json.loads(data)
        good = all(
            _signed_by(following, by["signed"]["keys"], by["signed"]["roles"]["root"]) for by in (roots[-1], following)
        )
        if not good or following["signed"]["version"] != version + 1:
            raise Failure("directory", f"{version + 1}.root.json is not signed by the root before")
        roots.append(following)
    return roots


def _climb(entry: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that an inclusion path gives (RFC 9162 section 2.1.3.2); empty for a path of another length."""
    inner, value = (index ^ (size - 1)).bit_length(), sha256(b"\0" + entry).digest()
    for level, sibling in enumerate(path):
        value = _node(sibling, value) if level >= inner or index >> level & 1 else _node(value, sibling)
    return value if index < size and len(path) == inner + (index >> inner).bit_count() else b""


def _consistent(old: int, new: int, old_root: bytes, new_root: bytes, path: list[bytes]) -> bool:
    return _led(old, new, [old_root, *path] if old & (old - 1) == 0 else path) == (old_root, new_root)


class Evidence:
    """What a file proves; Failure names what does not hold."""

    def __init__(self, path: Path, root: bytes) -> None:
        self.files = _files(path)
        self.manifest: Json = json.loads(self.files["manifest.json"])
        if self.manifest["format"] != "tracewire evidence 1":
            raise Failure("evidence", "another format or version")
        listed = self.manifest["files"]
        for name in {*listed, *self.files} - {"manifest.json"}:
            if name not in self.files or listed.get(name) != _b64u(sha256(self.files[name]).digest()):
                raise Failure("evidence", f"{name} is not the file that the manifest lists")
        roots = _roots(root, self.files)
        self.versions = sorted(
            (Directory(self.files, roots, each["version"], each["sha256"]) for each in self.manifest["directories"]),
            key=lambda each: -each.version,
        )  # the newest first: it knows of revocations and ends
        if not self.versions:
            raise Failure("directory", "there is no directory version")
        self.cosigners: dict[str, dict[int, list[str]]] = {}
        self.points = {point[:2]: point[2] for point in self._checkpoints()}
        self.linked = {origin for origin, _ in self.points if self._linked(origin)}

    def _record(self, member: str) -> Json:
        found = next((each.records[member] for each in self.versions if member in each.records), None)
        if found is None:
            raise Failure("directory", f"no version here has the record of {member}")
        return found

    def _ledger(self, origin: str) -> Json:
        ledgers = (
            each for version in self.versions for record in version.records.values() for each in record["ledgers"]
        )
        found = next((each for each in ledgers if each["origin"] == origin), None)
        if found is None:
            raise Failure("directory", f"no version here lists the ledger {origin}")
        return found

    def _checkpoints(self) -> Iterator[tuple[str, int, bytes]]:
        for name in self.files:
            if not name.startswith("checkpoints/"):
                continue
            note, origin = self.files[name], name.split("/", 1)[1].rpartition("/")[0]
            point = _open(note, _keys(self._ledger(origin)["vkeys"], note, 2), name)
            if name != f"checkpoints/{point[0]}/{point[1]}":
                raise Failure("evidence", f"{name} is of another ledger or size than its name")
            lines = [line.split(" ")[1] for line in note.decode().rpartition("\n\n")[2].splitlines()]
            for member in {each for each in lines if each != origin}:
                keys = [_witness(each) for each in self._record(member).get("witness") or ()]
                if lines.count(member) != 2 or len(keys) != 2 or any(_cosigned(note, key) is None for key in keys):
                    raise Failure("signature", f"{name}: the cosignatures of {member} are missing or wrong")
                self.cosigners.setdefault(origin, {}).setdefault(point[1], []).append(member)
            yield point

    def _linked(self, origin: str) -> bool:
        """Whether all checkpoints of a ledger are proven to be one history."""
        sizes, name = sorted(size for each, size in self.points if each == origin), f"links/{origin}.json"
        links = json.loads(self.files[name]) if name in self.files else []
        if links and [(each["old"], each["new"]) for each in links] != list(pairwise(sizes)):
            raise Failure("consistency", f"{name} does not lead along all checkpoints")
        for each in links:
            old, new = each["old"], each["new"]
            if not _consistent(
                old, new, self.points[origin, old], self.points[origin, new], list(map(_unb64u, each["path"]))
            ):
                raise Failure("consistency", f"{name}: from {old} to {new} does not hold")
        return len(sizes) == 1 or bool(links)

    def claims(self) -> Iterator[Json]:
        """Each message with what is proven of it."""
        for n, each in enumerate(self.manifest["messages"], 1):
            entries = [self._proven(n, each, name) for name in self.files if name.startswith(f"proofs/{n:04}/")]
            self._answered(n, entries)
            erased = any(_erases(e) and o.rpartition("/")[0] == self.manifest["by"] for o, _, _, e in entries)
            if each["content"] == "erased" and not erased:
                raise Failure("evidence", f"message {n} is said to be erased, and no entry says so")
            if each["content"] == "missing" and erased:
                raise Failure("evidence", f"message {n} is said to be missing, and an entry says that it was erased")
            jws = self.files.get(f"messages/{n:04}.jws")
            if (each["content"] == "here") != (jws is not None) or each["content"] not in CONTENTS:
                raise Failure("evidence", f"message {n}: the manifest says otherwise about its content")
            said = self._content(n, each, jws, entries) if jws is not None else {}
            facts = [
                {
                    "kind": e["kind"],
                    "at": e["at"],
                    "origin": o,
                    "index": i,
                    **({"code": e["code"]} if "code" in e else {}),
                    "witnesses": self._held(o, i, d),
                }
                for o, i, d, e in sorted(entries, key=lambda x: (x[3]["at"], x[0], x[1]))
            ]
            yield {
                "message": n,
                "id": each["id"],
                "from": each["from"],
                "to": each["to"],
                "content": each["content"],
                "type": said.get("type"),
                "body": said.get("body"),
                "proven": facts,
            }

    def _proven(self, n: int, said: Json, name: str) -> tuple[str, int, bytes, Json]:
        head, _, note = self.files[name].partition(b"\n\n")
        lines = head.decode().split("\n")
        origin, size = note.decode().split("\n")[:2]
        index, data = int(lines[2].removeprefix("index ")), _unb64(lines[1].removeprefix("extra "), "proof")
        entry = parse_entry(data)
        if name != f"proofs/{n:04}/{origin}/{index}.{entry['kind']}.tlog-proof" or lines[0] != "c2sp.org/tlog-proof@v1":
            raise Failure("evidence", f"{name} is of another entry than its name")
        if self.files.get(f"checkpoints/{origin}/{size}") != note:
            raise Failure("evidence", f"{name}: its checkpoint is not among the checkpoints")
        path = [_unb64(line, "proof") for line in lines[3:]]
        if _climb(data, index, int(size), path) != self.points[origin, int(size)]:
            raise Failure("proof", f"{name}: the path does not lead to the signed root", index, origin)
        owner, final = origin.rpartition("/")[0], self._ledger(origin).get("final")
        speaker = said["from"] if entry["kind"] in SENDERS else said["to"] if entry["kind"] in RECIPIENTS else owner
        if [entry.get(each) for each in ("id", "from", "to")] != [
            said["id"],
            said["from"],
            said["to"],
        ] or owner != speaker:
            wrong = f"{name}: of another message, or in another member's ledger than such an entry"
            raise Failure("entry", wrong, index, origin)
        dirs = [(each.version, each.digest) for each in self.versions]
        if (
            owner == self.manifest["by"]
            and "dir" in entry
            and (entry["dir"]["version"], entry["dir"]["sha256"]) not in dirs
        ):
            raise Failure("directory", f"{name}: the version that the entry names is not here", index, origin)
        if final and index >= final["size"]:
            raise Failure("entry", f"{name}: past the ledger's end as the directory lists it", index, origin)
        return origin, index, data, entry

    def _answered(self, n: int, entries: list[tuple[str, int, bytes, Json]]) -> None:
        leaves = {(o, i, _b64u(sha256(b"\0" + d).digest())): e for o, i, d, e in entries}
        if not any(e["kind"] == "sent" for *_, e in entries):
            raise Failure("missing", f"the proof that message {n} was sent")
        for o, i, _, e in entries:
            if "peer" in e and e["kind"] != "sent":
                found = leaves.get((e["peer"]["origin"], e["peer"].get("index"), e["peer"].get("leaf")))
                if (
                    found is None
                    or found.get("pair_seq") != e.get("pair_seq")
                    or (e["kind"] != "receipt" and found["envelope"] != e["envelope"])
                ):
                    raise Failure("mismatch", f"{o} entry {i}: the entry that it answers is missing, or another", i, o)

    def _content(self, n: int, said: Json, jws: bytes, entries: list[tuple[str, int, bytes, Json]]) -> Json:
        head, body, signature = jws.decode().split(".")
        header, payload = json.loads(_unb64u(head)), _unb64u(body)
        message, salt = json.loads(payload), _unb64u(json.loads(payload)["salt"])
        if [message["id"], message["from"], message["to"], message["thread"]] != [
            said["id"],
            said["from"],
            said["to"],
            self.manifest["thread"],
        ]:
            raise Failure("content", f"message {n} is another than the manifest names, or of another thread")
        bound = _b64u(hmac.digest(salt, b"tracewire content 1\0" + payload, "sha256"))
        thread = _b64u(hmac.digest(salt, b"tracewire thread 1\0" + message["thread"].encode(), "sha256"))
        for o, i, _, e in entries:
            if (
                e["kind"] in ("sent", "received", "receipt", "dispatched", "undelivered")
                and e["content_c"] != bound
                and not (e["kind"] == "receipt" and "code" in e)
            ):
                raise Failure("content", f"{o} entry {i} commits to another content", i, o)
            if e.get("thread_c", thread) != thread:
                raise Failure("content", f"{o} entry {i} commits to another thread", i, o)
        self._key(
            n,
            said["from"],
            header,
            message,
            [(o, i, e) for o, i, _, e in entries if e["kind"] == "sent"],
            f"{head}.{body}".encode(),
            _unb64u(signature),
        )
        parts = {each["name"]: each for each in message.get("parts", ())}
        for name in [each for each in self.files if re.fullmatch(rf"messages/{n:04}\.[a-z_]+\.part", each)]:
            data, part = self.files[name], parts.get(name.split(".")[1], {})
            if (_b64u(sha256(data[32:]).digest()), _b64u(sha256(data[:32]).digest())) != (
                part.get("sha256"),
                part.get("key_sha256"),
            ):
                raise Failure("content", f"{name} is not the part, or not the key, that the message names")
        return dict(message)

    def _key(
        self,
        n: int,
        member: str,
        header: Json,
        message: Json,
        sent: list[tuple[str, int, Json]],
        signed: bytes,
        signature: bytes,
    ) -> None:
        """The sender's signature, by a key that its record lists and that was valid where the message was logged."""
        for version in self.versions:
            for key in version.records.get(member, {"keys": {"message": []}})["keys"]["message"]:
                jwk = json.dumps(
                    {name: key["jwk"][name] for name in ("crv", "kty", "x")}, separators=(",", ":"), sort_keys=True
                )
                if _b64u(sha256(jwk.encode()).digest()) != header["kid"]:
                    continue
                gone, made = key.get("revoked"), message["created"]
                valid = key["not_before"] <= made and not (key.get("not_after") and made >= key["not_after"])
                revoked = gone and any(o != gone["origin"] or i >= gone["size"] for o, i, _ in sent)
                if not valid or revoked or any(e["kid"] != header["kid"] for *_, e in sent):
                    raise Failure("content", f"message {n}: its key was not valid where it was logged", *sent[0][1::-1])
                try:
                    Ed25519PublicKey.from_public_bytes(_unb64u(key["jwk"]["x"])).verify(signature, signed)
                except InvalidSignature:
                    raise Failure("signature", f"message {n}: the sender's signature does not hold") from None
                return
        raise Failure("content", f"message {n}: its key is none that the directory lists for {member}")

    def _held(self, origin: str, index: int, data: bytes) -> list[str]:
        """Members that hold an entry: they cosigned a checkpoint over it, or their own proven entries name it or a later tree."""
        found, leaf = set[str](), _b64u(sha256(b"\0" + data).digest())
        for size, members in self.cosigners.get(origin, {}).items():
            found |= set(members) if size > index and origin in self.linked else set()
        for name in self.files:
            if name.startswith("proofs/"):
                entry = json.loads(_unb64(self.files[name].split(b"\n", 2)[1].decode().removeprefix("extra "), "proof"))
                peer, owner = entry.get("peer", {}), name.split("/", 2)[2].rsplit("/", 2)[0]
                same = peer.get("origin") == origin and peer.get("index") == index and peer.get("leaf") == leaf
                root = self.points.get((origin, peer.get("size", 0)))
                later = (
                    peer.get("origin") == origin
                    and peer.get("size", 0) > index
                    and origin in self.linked
                    and root is not None
                    and _b64u(root) == peer.get("root")
                )
                found |= {owner} if same or (later and peer.get("index") != index) else set()
        return sorted(found - {origin.rpartition("/")[0]})


def _erases(entry: Json) -> bool:
    """Content is gone if an entry gives the ground and the day, and an authority where neither sender nor owner let it go by itself."""
    code = re.fullmatch(r"content/([A-Z0-9_]+)/\d{4}-\d\d-\d\d", entry.get("code", ""), re.ASCII)
    unordered = ("DELETE_AFTER", "RETENTION_ENDED")
    return entry["kind"] == "erased" and code is not None and ("actor_c" in entry or code[1] in unordered)


def _files(path: Path) -> dict[str, bytes]:
    """The files of the zip, each once and stored, within the bound."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = archive.infolist()
            if sum(each.file_size for each in found) > BYTES_MAX or any(each.compress_type for each in found):
                raise Failure("evidence", "too large, or compressed")
            files = {each.filename: archive.read(each) for each in found}
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile) as error:  # encrypted, of another version
        raise Failure("evidence", f"not a whole zip: {error}") from None
    if len(files) != len(found) or "manifest.json" not in files:
        raise Failure("evidence", "a file twice, or no manifest")
    return files


def verify_evidence(path: Path, root: bytes) -> Json:
    """Thread, exporter and what is proven of each message; Failure where anything does not hold."""
    try:
        evidence = Evidence(path, root)
        claims = list(evidence.claims())
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise Failure("evidence", f"malformed: {type(error).__name__}") from None
    manifest = evidence.manifest
    return {
        "thread": manifest["thread"], "by": manifest["by"], "at": manifest["at"], "messages": claims,
        "one_history": {origin: origin in evidence.linked for origin, _ in sorted(evidence.points)},
        "directory_versions": [evidence.versions[-1].version, evidence.versions[0].version],
    }  # fmt: skip


def _lines(found: Json) -> Iterator[str]:
    yield f"OK thread {found['thread']}, as {found['by']} says to have exported it at {found['at']}"
    for each in found["messages"]:
        what = (
            f"{each['type']}, the signature of {each['from']} holds" if each["type"] else f"content {each['content']}"
        )
        yield f"OK {each['message']}. {each['from']} -> {each['to']}: {what}"
        if each["body"] is not None:
            yield f"OK    it says {json.dumps(each['body'], ensure_ascii=False)}"
        for fact in each["proven"]:
            held = f"witnessed by {', '.join(fact['witnesses'])}" if fact["witnesses"] else "signed"
            yield f"OK    {fact['at']} {fact['kind']}: entry {fact['index']} of {fact['origin']}, {held}"
    for origin, whole in found["one_history"].items():
        yield f"OK {origin}: {'one history' if whole else 'its checkpoints are not shown to be one history'}"
    yield "   summary.txt was not read: these lines are proven, and it is not"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; its exit code."""
    parser = argparse.ArgumentParser(description="Verify a Tracewire evidence file offline.")
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--root", type=Path, required=True, help="the network's root.json, from a source that you trust"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(arguments)
    return told(lambda: verify_evidence(args.file, _read(args.root)), _lines, as_json=args.json)


if __name__ == "__main__":
    sys.exit(main())
