"""`tracewire keys`: what this node signs and opens with; rotate a key with an overlap, revoke one, open the next ledger."""

import asyncio
from base64 import b64encode
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

import cyclopts
from cyclopts import Parameter

from adapters.directory.request import parse_request
from gateway.runtime.cli.client import node_pool
from gateway.runtime.cli.member import Changes, request_of_node
from gateway.runtime.cli.say import SecretFrom, clock, problems, say
from keys.guard import FileGuard
from keys.keystore import KeyInfo, KeyStore, Use
from protocols.ledger.merkle import EMPTY_ROOT
from protocols.ports.crypto import GuardMark
from protocols.problems import Fault, ProblemError
from protocols.strict import b64u, format_time

app = cyclopts.App(name="keys", help="Keys of this node: list them, rotate or revoke one, open the next ledger.")
AsJson = Annotated[bool, Parameter(name="--json", negative="")]
_NO_SECRET = SecretFrom()
_Use = Literal["message", "seal", "request", "token", "webhook", "witness", "record", "ledger"]
_ROTATED = {  # keys that no directory lists: they change at once, and nobody else is asked
    "token": "The node signs tokens with the new key within a minute.",
    "webhook": "Within a minute your system is told under this key, and under the former ones until you revoke them:\n{public}",
}
_INSTEAD = {  # what no position in our ledger can end
    "witness": "tracewire keys rotate NODE witness: once the directory lists the next one, the former counts no more.",
    "record": "tracewire keys rotate NODE record --lost: the authority asks you on another channel, and admits it.",
    "ledger": "tracewire keys rotate NODE ledger, and telephone the authority: tracewire directory abandon.",
}
_REVOKED = {
    "token": "Tokens under it are refused within a minute.",
    "webhook": "Take it out of your system now. Within a minute that is told under this key, and under none that you revoked:\n{public}",
}


@app.command(name="list")
def show(node: Path, *, secret: SecretFrom = _NO_SECRET, json: AsJson = False) -> None:
    """List every key: use, name (kid), state; a `next` key takes over when the directory says so.

    Parameters
    ----------
    node
        The node's folder.
    json
        Print one JSON object.
    """
    with problems(as_json=json):
        found = KeyStore.open(node / "keys", secret.secret()).inventory()
        say("\n".join(map(_line, found)), {"keys": [_json(each) for each in found]}, as_json=json)


def _json(key: KeyInfo) -> dict[str, str]:
    shown = {"use": key.use, "alg": key.public.alg, "kid": key.public.kid, "state": key.state}
    shown |= {"origin": key.origin} if key.origin else {}
    shown |= {"public": f"whpk_{b64encode(key.public.public).decode()}"} if key.use == "webhook" else {}
    return shown | ({"retired": format_time(key.retired)} if key.retired else {})


def _line(key: KeyInfo) -> str:
    since = f" since {format_time(key.retired)}" if key.retired else ""
    what = key.origin or _json(key).get("public", "")
    return f"{key.use:<10} {key.state:<8} {key.public.alg:<10} {key.public.kid}  {what}{since}".rstrip()


@app.command
def rotate(
    node: Path,
    use: _Use,
    *,
    overlap_hours: Annotated[int, Parameter()] = 1,
    lost: bool = False,
    secret: SecretFrom = _NO_SECRET,
    json: AsJson = False,
) -> None:
    """Make the next key of a use, or the next ledger, and NODE/member-request.json that lists it. The node goes on running.

    Send the file to the authority, as with `tracewire member request`. A message, seal or request key is used from the
    overlap after now on, and its predecessor is good for as long again: so every member has the new directory in time. The
    running node changes over by itself; a witness key when it is listed. A token key changes at once, and nobody is asked: tokens of the former
    stay good for their five minutes. So does a webhook key, which is made when it is first rotated: tell your own system what is printed. Everything is
    signed with the former one too, until that is revoked. A new record key is listed once the authority has admitted the request, which the former one signs too; without it
    the authority lets three days of notice pass. The next ledger is opened when the node is started again after it was listed: the
    former one is closed, and another `member request` says so. Needs the record key.

    Parameters
    ----------
    node
        The node's folder.
    use
        message, seal, request, token, webhook, witness, record, or ledger.
    overlap_hours
        How long both are good; the directory's members refresh it within minutes where they run.
    lost
        With record: the former key is lost, so that it signs nothing.
    json
        Print one JSON object.
    """
    with problems(as_json=json):
        store = KeyStore.open(node / "keys", secret.secret())
        overlap = timedelta(hours=max(overlap_hours, 0))
        if use in _ROTATED:
            shown = _json(_change(store, use))
            say(_ROTATED[use].format_map(shown), shown, as_json=json)
            return
        if use == "ledger":
            _next_ledger(node, store)
        elif use == "record":
            if not lost:
                store.record_private()  # says so where it is not here
            store.renew_record(clock())
        else:
            store.add(use)
        _say_request(node, store, Changes(overlap=overlap), as_json=json)


def _change(store: KeyStore, use: Use) -> KeyInfo:
    """Makes the first key of a use that nobody lists, or the next one, current at once."""
    if store.next(use) is None:
        store.add(use)
    if store.next(use) is not None:  # the first one is current by itself
        store.promote(use, clock())
    return _current(store, use)


def _current(store: KeyStore, use: Use) -> KeyInfo:
    return next(key for key in store.inventory() if (key.use, key.state) == (use, "current"))


def following(origin: str, now: int) -> str:
    """The ledger after one, in a year: `now`'s first, or the next of its own."""
    member, _, name = origin.rpartition("/")
    year, number = (int(part) for part in name.split("."))
    return f"{member}/{now}.1" if now > year else f"{member}/{year}.{number + 1}"


def _next_ledger(node: Path, store: KeyStore) -> None:
    """Keys, head (size 0) and guard of the ledger after the one in use: of this year, or the year's next."""
    guard = FileGuard(node / "keys")
    used = store.origin_in_use(guard)
    origin = following(used, clock().year)
    if any(key.origin == origin for key in store.inventory()):
        fault = Fault(
            "", "key.store", "", f"Send {node}/member-request.json to the authority, then start the node again."
        )
        raise ProblemError("key.store", f"the ledger {origin} is made already", errors=[fault])

    async def make() -> None:
        from adapters.postgres.ledger import PostgresLedger

        async with node_pool(node) as pool:
            ledger = PostgresLedger("", pool)
            identifier, timeline = await ledger.identity()
            mark = GuardMark(origin=origin, size=0, root=EMPTY_ROOT, system_identifier=identifier, timeline=timeline)
            if origin not in await ledger.heads():  # a crash may have come after it
                await ledger.make_head(origin, EMPTY_ROOT)
            guard.raise_to(mark)

    asyncio.run(make())
    store.add("ledger", origin=origin)


@app.command
def revoke(
    node: Path,
    kid: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    from_size: int | None = None,
    secret: SecretFrom = _NO_SECRET,
    json: AsJson = False,
) -> None:
    """Revoke a stolen message, seal or request key at a ledger position, and replace it at once; writes the request. Or a token or webhook key.

    What stands in our ledger before the position stays good, later entries under the key count no more: without
    `--from-size` that is all from now on. Telephone the authority; every node obeys within a minute of its publishing. What
    still waits under the key ends as `undelivered` (`key.revoked`): submit it again. Tokens under a revoked token key end within a minute, a webhook key
    signs nothing more from then on, and nobody else is told.

    Parameters
    ----------
    node
        The node's folder.
    kid
        The key's name, from `tracewire keys list`.
    from_size
        The ledger's size when the key was last surely ours.
    json
        Print one JSON object.
    """
    with problems(as_json=json):
        store, guard = KeyStore.open(node / "keys", secret.secret()), FileGuard(node / "keys")
        uses = ("message", "seal", "request", *_REVOKED)
        named = [key for key in store.inventory() if key.public.kid == kid]
        found = [key for key in named if key.use in uses]
        if not found:
            fix = _INSTEAD[named[0].use] if named else f"Take one from: tracewire keys list {node}"
            fault = Fault("/kid", "key.store", "", fix)
            raise ProblemError(
                "key.store", f"no {', '.join(uses[:-1])} or {uses[-1]} key has this name", errors=[fault]
            )
        if found[0].use in _REVOKED:
            use = found[0].use
            if found[0].state == "current":
                _change(store, use)
            store.drop(kid)
            shown = _json(_current(store, use))
            say(_REVOKED[use].format_map(shown), shown, as_json=json)
            return
        origin = store.origin_in_use(guard)
        mark = guard.read(origin)
        size = from_size if from_size is not None else (mark.size if mark else 0)
        position = {"origin": origin, "size": size} | (
            {"root": b64u(mark.root)} if mark is not None and mark.size == size else {}
        )
        use = found[0].use
        if found[0].state == "current":
            if store.next(use) is None:
                store.add(use)
            store.promote(use, clock())
        elif found[0].state == "next":
            store.drop(kid)
        _say_request(node, store, Changes(revoked={kid: position}), as_json=json)


def _say_request(node: Path, store: KeyStore, changes: Changes, *, as_json: bool) -> None:
    found = parse_request(request_of_node(node, store, clock(), changes))
    path = node / "member-request.json"
    from_then = format_time(clock() + changes.overlap)
    text = (
        f"{path} (version {found.version}) is ready: send it to the directory's authority.\n"
        f"The new key is used once it is listed, from {from_then} on; the node may run."
    )
    shown = {"request": str(path), "version": found.version, "from": from_then}
    say(text, shown, as_json=as_json)
