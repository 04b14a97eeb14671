"""`tracewire member`: what a member does to be listed in the directory."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter

from adapters.directory.repository import write
from adapters.directory.request import (
    answer_request,
    build_request,
    parse_request,
    possession_message,
    succession_message,
)
from gateway.runtime.cli.say import SecretFrom, clock, problems, read_file, say
from gateway.runtime.settings import load_settings
from keys.guard import FileGuard
from keys.keystore import KeyStore
from keys.tls import pin_of_pem
from keys.tufsign import tuf_signer
from protocols.directory import KeyRecord, Record, parse_record, year_and_number
from protocols.jwk import PublicKey
from protocols.limits import EXPIRES_MAX_S
from protocols.problems import Fault, ProblemError
from protocols.strict import b64u, dump_json, format_time, parse_time

app = cyclopts.App(name="member", help="Be listed in a network's directory, and keep the record up to date.")

_FILE = "member-request.json"
_FACTS_FILE = "record.toml"
_LISTED = timedelta(seconds=EXPIRES_MAX_S) + timedelta(days=7)
_FACTS = ("contact", "competences", "agreements", "modes", "hubs")
_NO_SECRET = SecretFrom()


@app.command
def request(
    node: Path,
    *,
    answer: Path | None = None,
    next_certificate: Path | None = None,
    secret: SecretFrom = _NO_SECRET,
    json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Write NODE/member-request.json for the directory's authority: this node's record, signed by all its keys.

    Run it after `tracewire init`, and again whenever a key, the address or NODE/record.toml has changed: a file of your
    own that states your point of contact, what you answer for, what you agreed on with other members and how messages
    reach you (see docs/runbooks/install.md). Needs the record key, which is better kept off this machine otherwise.

    Parameters
    ----------
    node
        The node's folder.
    answer
        The challenge that the authority sent back: it proves that the seal key is ours. Nothing else is changed.
    next_certificate
        A TLS certificate that the node will show soon: peers take its key and the present one until a request without it.
    json
        Print one JSON object.
    """
    with problems(as_json=json):
        store, path = KeyStore.open(node / "keys", secret.secret()), node / _FILE
        if answer is not None:
            data = answer_request(read_file(path), read_file(answer), store.opener())
            write(path, data)
        else:
            data = request_of_node(node, store, clock(), Changes(next_certificate=next_certificate))
        found = parse_request(data)
        text = f"{path} (version {found.version}) is ready: send it to the directory's authority."
        say(text, {"request": str(path), "member": found.record.member, "version": found.version}, as_json=json)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a request changes besides what the node's folder says: how long old and new keys are valid side by side.

    `revoked`: kid -> the ledger position from which on it counts no more; `closed`: origin -> its final position.
    """

    overlap: timedelta = timedelta(0)
    revoked: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    closed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    next_certificate: Path | None = None


def member_request(
    keystore: KeyStore,
    *,
    member: str,
    name: str,
    url: str | None,
    spki: Sequence[str],
    origin: str,
    version: int,
    now: datetime,
    previous: Record | None = None,
    facts: Mapping[str, Any] | None = None,
    changes: Changes | None = None,
) -> bytes:
    """The request of a member's node; `url` None for one without an inbound port, `spki` base64url SHA-256.

    `facts` are further members of the record: contact, competences, agreements; `modes` and `hubs`, how messages reach us.

    Keys of the `previous` record keep their validity. A `next` key of the store becomes valid after the overlap of
    `changes`, and the one before it ends as much later; keys that the store no longer uses end now. Ended keys stay listed
    until no message under them can come any more: what they signed is verified by the versions that listed them.
    """
    changes = changes or Changes()
    listed = previous.keys if previous else None
    keys = {
        use: _key_records(keystore.public(use), getattr(listed, use) if listed else [], now, changes)
        for use in ("message", "seal", "request")
    }
    ledgers = [ledger.model_dump(mode="json", exclude_none=True) for ledger in previous.ledgers] if previous else []
    for ledger in ledgers:
        if (final := changes.closed.get(ledger["origin"])) is not None:
            ledger |= {"state": "closed", "final": final}
    if origin not in {ledger["origin"] for ledger in ledgers}:
        ledgers.append({"origin": origin, "vkeys": list(keystore.note_signer(origin).vkeys), "state": "open"})
    shown: dict[str, Any] = {"v": 1, "member": member, "name": name, "suite": "tw1"}
    modes = {"modes": ["push" if url else "pull"]} | dict(facts or {})
    if url is not None and "push" in modes["modes"]:
        shown["endpoint"] = {"url": url, "spki": list(spki)}
    cosigner = keystore.cosigner(member, "next") or keystore.cosigner(member)
    witness = {"witness": list(cosigner.vkeys)} if cosigner else {}
    record = dump_json(shown | {"keys": keys, **witness, "ledgers": ledgers, **modes})
    parse_record(record)
    return build_request(
        record=record,
        version=version,
        record_key=keystore.public("record")[0],
        record_signer=tuf_signer(keystore.record_private()),
        possession=keystore.possession(possession_message(record)),
        succession=keystore.succession(succession_message(record, keystore.public("record")[0])),
        now=now,
    )


def _key_records(
    ours: Sequence[PublicKey], listed: Sequence[KeyRecord], now: datetime, changes: Changes
) -> list[dict[str, Any]]:
    """`ours` is the current key, then the next one."""
    at, old = format_time(now), {PublicKey.parse(each.jwk): each for each in listed}
    found = []
    for n, key in enumerate(ours):
        if (known := old.pop(key, None)) is not None:
            found.append(known.model_dump(mode="json", exclude_none=True))
            continue
        found.append({"jwk": key.jwk, "not_before": format_time(now + changes.overlap) if n else at})
        if n:
            found[0].setdefault("not_after", format_time(now + 2 * changes.overlap))
    ended = (each for each in old.values() if each.not_after is None or now - parse_time(each.not_after) < _LISTED)
    found += [{"not_after": at} | each.model_dump(mode="json", exclude_none=True) for each in ended]
    for record in found:
        if (position := changes.revoked.get(PublicKey.parse(record["jwk"]).kid)) is not None:
            record["revoked"] = position
    return found


def request_of_node(node: Path, store: KeyStore, now: datetime, changes: Changes | None = None) -> bytes:
    """From the settings and keys of a node folder, and the last request written there; written as the next one."""
    settings, path, changes = load_settings(node), node / _FILE, changes or Changes()
    shown = [node / settings.tls_certificate] if settings.tls_certificate else []
    shown += [changes.next_certificate] if changes.next_certificate else []
    origins = sorted({key.origin for key in store.inventory() if key.origin}, key=year_and_number)
    if not origins:
        raise ProblemError("key.store", "the node has no ledger key")
    marks = {origin: mark for origin in origins if (mark := FileGuard(node / "keys").read(origin)) and mark.size}
    used = max(marks, key=year_and_number, default="")
    closed = {
        origin: {"origin": origin, "size": mark.size, "root": b64u(mark.root)}
        for origin, mark in marks.items()
        if origin != used
    }
    changes = replace(changes, closed=closed)
    last = parse_request(read_file(path)) if path.exists() else None
    data = member_request(
        store,
        member=settings.member,
        name=settings.name,
        url=settings.exchange_url,
        spki=list(map(_pin, shown)),
        origin=origins[-1],
        version=last.version + 1 if last else 1,
        now=now,
        previous=last.record if last else None,
        facts=_facts(node / _FACTS_FILE),
        changes=changes,
    )
    write(path, data)
    return data


def _pin(certificate: Path) -> str:
    try:
        return b64u(pin_of_pem(read_file(certificate)))
    except ValueError:
        raise ProblemError("config.invalid", f"{certificate} is no PEM certificate") from None


def _facts(path: Path) -> dict[str, Any]:
    """What the member states of itself in a file of its own; nothing without one."""
    if not path.exists():
        return {}
    try:
        found = tomllib.loads(read_file(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProblemError("config.invalid", f"{path} cannot be read: {error}") from None
    if unknown := [name for name in found if name not in _FACTS]:
        fault = Fault(f"/{unknown[0]}", "config.invalid", "an unknown key", f"Known are {', '.join(_FACTS)}.")
        raise ProblemError("config.invalid", f"{path}: {unknown[0]} is not stated there", errors=[fault])
    return found
