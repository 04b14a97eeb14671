"""`tracewire audit`: what an auditor does: with ledgers that were taken out as files, or at the console."""

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from gateway.console.words import DIFFERENCES
from gateway.runtime.cli.folder import covered, demanded, keys_of, proof_of, verified
from gateway.runtime.cli.ledger import AsJson, vkeys_of, write_new
from gateway.runtime.cli.say import clock, problems, progress, read_file, say
from gateway.runtime.settings import load_settings
from protocols.directory import witness_keys
from protocols.ledger.checkpoint import LedgerKeys, parse_checkpoint
from protocols.ledger.note import VerifierKey
from protocols.ledger.reconcile import Difference, Direction, Side, reconcile
from protocols.ledger.witness import Policy, format_policy, parse_policy
from protocols.problems import Fault, ProblemError

app = cyclopts.App(name="audit", help="For auditors: ledgers beside each other, and as pages.")
_DIFFER = 3
_LOOKS = ("audit:read", "ledger:read")
_SHOWN = 20
_AT_ONCE = 100_000  # entries that are compared at once: some 100 MiB
_TOLD = 1_000


@app.command(name="reconcile")
def reconcile_ledgers(
    a: str,
    b: str,
    *,
    vkey: Annotated[list[str] | None, Parameter(negative="")] = None,
    policy: Annotated[list[Path] | None, Parameter(negative="")] = None,
    proofs: Path | None = None,
    live: bool = False,
    node: Annotated[list[Path] | None, Parameter(negative="")] = None,
    client: str = "local",
    actor: str = "local",
    json: AsJson = False,
) -> int:
    """Compare two ledgers, taken out or live: sent, received, receipts, numbers, outcomes and clocks of the messages between them.

    Each ledger is first recomputed from its entries, as `ledger verify` does; the order of its entries is `ledger verify`'s alone. What is still on its way is counted and no
    difference. Exit code 3: they differ, or one of them does not hold.

    Parameters
    ----------
    a
        What `ledger export` wrote of one member, or the URL of such files, or of a node's /v1/ledger/LOG.
    b
        The same of the other. A live ledger is taken into a temporary folder first, as `audit fetch` does.
    vkey
        The verifier keys of both ledgers (four), from a directory that you trust; without: those of the policies, else the files `vkeys`.
    policy
        A C2SP tlog-policy file of a ledger (`audit policy` writes it): whose cosignatures you demand. Once for each ledger.
    proofs
        A folder to write a tlog-proof file of every entry that a difference names to.
    live
        Count what names an entry past the end of the other's files, since busy ledgers have no common instant; without, it is a difference: those files
        are older, or their end was cut. Of two live ledgers the first is taken once more after the second, and holds whatever that one names.
    node
        A node's folder: live ledgers are judged by the keys that its directory lists, and its own is read at /v1. Twice for the live
        ledgers of two nodes, in their order.
    client
        With `node`: the client, with the scope ledger:read.
    actor
        With `node`: its actor.
    json
        Print one JSON object.
    """
    with problems(as_json=json), tempfile.TemporaryDirectory(prefix="tracewire-audit-") as place:
        if len(node or ()) > 2:
            raise ProblemError("config.invalid", "--node is given once for both ledgers, or once for each")
        nodes = [*(node or ()), *(node or ()), None, None][:2]
        folders = _here((a, b), Path(place), vkey, nodes, client, actor)
        policies = [parse_policy(read_file(each)) for each in policy or ()]
        judged = [_keys(folder, vkey or (), [key for each in policies for key in each.logs]) for folder in folders]
        keys = [each for each, _ in judged]
        if keys[0].origin == keys[1].origin:
            raise ProblemError("config.invalid", "these are two folders of one ledger")
        try:
            with progress(" and ".join(each.origin for each in keys)) as bar:
                task = bar.add_task("", total=None)
                directions, found = reconcile(
                    _parts(
                        folders,
                        keys,
                        _whole((a, b), live),
                        lambda done, total: bar.update(task, completed=done, total=total),
                    )
                )
            witnessed = [_witnessed(folder, each, policies) for folder, each in zip(folders, keys, strict=True)]
        except ProblemError as problem:
            text = f"WRONG {problem.code}: {problem.detail}"
            say(text, {"ok": False, "code": problem.code, "detail": problem.detail}, as_json=json)
            return _DIFFER
        if proofs is not None:
            members = (each.origin.rpartition("/")[0] for each in keys)
            _write_proofs(proofs, found, dict(zip(members, folders, strict=True)))
        shown = {
            "ok": not found, "witnessed": {each.origin: size for each, size in zip(keys, witnessed, strict=True)}, "directions": [asdict(each) for each in directions],
            "differences": [asdict(each) | {"id": str(each.id) if each.id else None, "says": DIFFERENCES[each.kind]} for each in found],
        }  # fmt: skip
        grades = [
            f"WITNESSED {each.origin} up to entry {size - 1}, as the policy demands" if size
            else f"SIGNED {each.origin} by {_whose(given, bool(node) and name.startswith('http'))}"
            for (each, given), size, name in zip(judged, witnessed, (a, b), strict=True)
        ]  # fmt: skip
        say("\n".join([*grades, *_lines(directions, found)]), shown, as_json=json)
    return _DIFFER if found else 0


def _whose(given: bool, listed: bool) -> str:
    if given:
        return "keys that you trust"
    return (
        "keys that the directory lists, by the root in the node's folder"
        if listed
        else "keys that lay beside it, for which nobody vouches"
    )


def _here(
    ledgers: Sequence[str],
    place: Path,
    vkey: list[str] | None,
    nodes: Sequence[Path | None],
    client: str,
    actor: str,
    key: Path | None = None,
) -> list[Path]:
    """The folder of each ledger; a live one is taken into one of its own."""
    folders = [place / str(n) if _on_web(each) else Path(each) for n, each in enumerate(ledgers)]
    live = [n for n, each in enumerate(ledgers) if _on_web(each)]
    for n in live + live[:-1]:  # the first of two once more: what the second names by then is there by then
        own, by = (nodes[n], key) if "/v1/ledger/" in ledgers[n] else (None, None)
        _fetched(ledgers[n], folders[n], _vkeys(vkey, nodes[n]), own, client, actor, by)
    return folders


def _on_web(ledger: str) -> bool:
    return ledger.startswith(("http://", "https://"))


def _whole(ledgers: Sequence[str], live: bool) -> tuple[bool, bool]:
    """Whether past the end of each there can be nothing that the other names."""
    return not live, not (live or all(map(_on_web, ledgers)))


def _keys(folder: Path, vkeys: Sequence[str], named: Sequence[VerifierKey]) -> tuple[LedgerKeys, bool]:
    """The keys of the ledger in a folder, and whether anybody vouches: those given, else those named for it, else the file `vkeys`."""
    origin = parse_checkpoint(read_file(folder / "checkpoint")).origin
    given = list(vkeys) or [str(key) for key in named if key.name == origin]
    return (LedgerKeys.among(origin, given), True) if given else (keys_of(folder, None), False)


def _witnessed(folder: Path, keys: LedgerKeys, policies: Sequence[Policy]) -> int | None:
    """Up to which size the quorum of the ledger's policy has cosigned; None where it has none. `checkpoint.unwitnessed`."""
    wanted = next((each for each in policies if any(key.name == keys.origin for key in each.logs)), None)
    return covered(folder, keys, wanted) if wanted and wanted.quorum else None


def _parts(
    folders: Sequence[Path], keys: Sequence[LedgerKeys], whole: Sequence[bool], told: Callable[[int, int], None]
) -> Iterator[tuple[Side, ...]]:
    """Both ledgers, verified each time, as often as it takes so that little of them is in memory at once.

    `told` hears how many entries of how many were read.
    """
    notes = [read_file(folder / "checkpoint") for folder in folders]
    size = sum(parse_checkpoint(note).size for note in notes)
    parts, done = size // _AT_ONCE + 1, 0

    def counted(entries: Iterator[bytes]) -> Iterator[bytes]:
        nonlocal done
        for data in entries:
            done += 1
            if done % _TOLD == 0:
                told(done, size * parts)
            yield data

    origins = [each.origin for each in keys]
    for part in range(parts):
        yield tuple(
            Side(origin, other.rpartition("/")[0], part, parts, end).read(counted(verified(folder, each)))
            for origin, other, folder, each, end in zip(origins, origins[::-1], folders, keys, whole, strict=True)
        )
        if [read_file(folder / "checkpoint") for folder in folders] != notes:
            raise ProblemError("config.invalid", "a ledger's files changed while they were read: compare a copy")


def _lines(directions: Sequence[Direction], found: Sequence[Difference]) -> Iterator[str]:
    unnamed = sum(each.unnamed for each in directions)
    for each in directions:
        yield (
            f"{each.sender} to {each.recipient}: {each.sent} sent, {each.receipted} receipted, {each.refused} refused, {each.undelivered} undelivered, "
            f"{each.pending} arrived without a receipt yet, {each.unanswered} unanswered"
            + (f", {each.later} past the end of the other's files" if each.later else "")
            + (f", {each.elsewhere} by other ledgers of the two" if each.elsewhere else "")
        )
        if each.took_s:
            yield "  from sent to received, by both clocks: {:.1f} s at least, {:.1f} s mostly, {:.1f} s at most".format(
                *each.took_s
            )
    for difference in found[:_SHOWN]:
        other = f", the other's entry {difference.other}" if difference.other is not None else ""
        yield f"DIFFERS {difference.kind}: {difference.member} entry {difference.index}{other}: it {DIFFERENCES[difference.kind]}"
    if len(found) > _SHOWN:
        yield f"... and {len(found) - _SHOWN} more: --json lists all" + f" but {unnamed}" * bool(unnamed)
    agree = "agree as far as they go" if any(each.later for each in directions) else "agree"
    yield f"The two ledgers {agree}." if not found else f"{len(found) + unnamed} differences."


def _write_proofs(folder: Path, found: Sequence[Difference], ledgers: dict[str, Path]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    members = list(ledgers)
    for number, each in enumerate(found, 1):
        other = members[1 - members.index(each.member)]
        for member, index in ((each.member, each.first), (each.member, each.index), (other, each.other)):
            proof = proof_of(ledgers[member], index) if index is not None else None
            if proof is not None:
                name = f"{number:04}-{each.kind}-{member.replace('/', '.')}-{index}.tlog-proof"
                (folder / name).write_bytes(proof)


@app.command
def fetch(
    ledger: str,
    folder: Path,
    *,
    vkey: Annotated[list[str] | None, Parameter(negative="")] = None,
    node: Path | None = None,
    key: Path | None = None,
    client: str = "local",
    actor: str = "local",
    json: AsJson = False,
) -> None:
    """Take a live ledger into a folder, as `ledger export` writes it; again into the same folder, what is new is added.

    Every entry is hashed on its way: nothing is written that the signed checkpoint does not cover, and a folder that holds
    another history is left as it is. Then `ledger verify`, `audit reconcile` and `audit serve` work on the folder.

    Parameters
    ----------
    ledger
        The URL of exported files, or of a node's /v1/ledger/LOG.
    folder
        A new or empty folder, or one that this ledger was taken into.
    vkey
        The ledger's two verifier keys, from a directory that you trust; without: those that the directory of `node` lists, else
        the file `vkeys` beside the ledger, for which nobody vouches.
    node
        For a node's /v1: the folder with the client's key (NODE/clients/CLIENT.pem) and the node's settings.
    key
        For a node's /v1 from another machine: the client's private key (PEM, readable by you alone), beside `vkey` (or `serve --policy`), which says whose ledger it is.
    client
        With `node` or `key`: the client, with the scope ledger:read.
    actor
        With `node`: its actor.
    json
        Print one JSON object.
    """
    with problems(as_json=json):
        origin, size = _fetched(ledger, folder, _vkeys(vkey, node), node, client, actor, key)
        say(f"{origin}: {size} entries in {folder}.", {"origin": origin, "size": size}, as_json=json)


def _fetched(
    ledger: str,
    folder: Path,
    vkeys: Callable[[str], Sequence[str]] | None,
    node: Path | None,
    client: str,
    actor: str,
    key: Path | None,
) -> tuple[str, int]:
    from gateway.runtime.serving import Place, fetch_ledger

    place = Place(url=ledger, vkeys=vkeys, node=node, client=client, actor=actor, key=key)
    with progress(ledger) as bar:
        task = bar.add_task(ledger, total=None)
        return asyncio.run(
            fetch_ledger(place, folder, lambda done, total: bar.update(task, completed=done, total=total))
        )


def _vkeys(vkey: list[str] | None, node: Path | None) -> Callable[[str], Sequence[str]] | None:
    return (lambda _: vkey) if vkey else partial(vkeys_of, node) if node else None


@app.command
def policy(origin: str, file: Path, *, directory: str, root: Path, json: AsJson = False) -> None:
    """Write a C2SP tlog-policy file for a ledger from the network's directory: its keys, and who has to witness it.

    `ledger verify`, `verify`, `audit serve` and `tracewire_witnesses.py` take it as `--policy`: it says in one file what an
    auditor trusts. Nothing is believed but what the pinned root leads to; no node is needed.

    Parameters
    ----------
    origin
        The ledger, NETWORK/MEMBER/YEAR.N.
    file
        A new file.
    directory
        URL or folder of the network's directory.
    root
        The network's root.json, as its members pin it.
    json
        Print one JSON object.
    """
    from adapters.directory.client import DirectoryClient

    with problems(as_json=json), tempfile.TemporaryDirectory(prefix="tracewire-audit-") as place:
        client = DirectoryClient(Path(place), read_file(root), directory)
        found = asyncio.run(client.refresh(clock()))
        if origin not in found.ledgers:
            raise ProblemError(
                "http.not_found", f"version {found.ref.version} of the directory lists no ledger {origin}"
            )
        ledger = found.ledgers[origin]
        if ledger.state == "abandoned" and ledger.last:
            detail = (
                f"{origin} was abandoned at size {ledger.last.size}: no policy vouches for what it says from there on"
            )
            raise ProblemError("config.invalid", detail)
        member = ledger.member
        names, quorum = found.witnesses_of(member), found.quorum_of(member)
        if quorum > len(names):
            detail = f"the network demands {quorum} witnesses, and only {len(names)} members can witness this ledger"
            raise ProblemError("dir.invalid", detail)
        keys = [keys for name in names if (keys := witness_keys(found.records[name]))]
        head = f"# {origin}, as version {found.ref.version} of the directory says\n"
        write_new(file, (head + format_policy(ledger.keys, keys, quorum)).encode)
        text = f"{file}: two keys of {origin}, {len(names)} witnesses, of whom {quorum} have to cosign."
        shown = {
            "file": str(file),
            "origin": origin,
            "version": found.ref.version,
            "witnesses": names,
            "quorum": quorum,
        }
        say(text, shown, as_json=json)


@app.command
def fork(node: Path, origin: str, folder: Path, *, json: AsJson = False) -> None:
    """Take out the proof that a member signed two histories of a ledger (`ledger.split_view`): anybody can check it, with its keys alone.

    Two files: the two checkpoints of one size, two entries proven at one index, or a checkpoint and the path from another beginning
    to a later one. `tracewire_verify.py fork` says what they prove.

    Parameters
    ----------
    node
        The node's folder; it may run.
    origin
        The ledger, as the alarm names it.
    folder
        A new folder.
    json
        Print one JSON object.
    """

    async def kept() -> tuple[bytes, bytes] | None:
        from adapters.postgres.exchange import PostgresExchange
        from gateway.runtime.cli.client import node_pool

        async with node_pool(node) as pool:
            return await PostgresExchange(pool).conflict(origin)

    with problems(as_json=json):
        found = asyncio.run(kept())
        if found is None:
            raise ProblemError("http.not_found", f"this node holds no two histories of {origin}")
        keys = " ".join(f"--vkey={key}" for key in vkeys_of(node, origin))
        try:
            folder.mkdir(parents=True)
            files = [folder / name for name in ("first", "second")]
            for path, data in zip(files, found, strict=True):
                path.write_bytes(data)
        except OSError as error:
            raise ProblemError("config.invalid", f"{folder} cannot be written: {error.strerror}") from None
        text = f"{files[0]}\n{files[1]}\nCheck them: python tracewire_verify.py fork {files[0]} {files[1]} {keys}"
        say(text, {"origin": origin, "files": [str(path) for path in files]}, as_json=json)


@app.command
def link(node: Path, *, client: str, actor: str, json: AsJson = False) -> None:
    """Make a link that opens the auditor's console of a running node, once, within ten minutes.

    Parameters
    ----------
    node
        The node's folder.
    client
        A registered client with the scopes ledger:read and audit:read.
    actor
        One of its actors: who looks.
    json
        Print one JSON object.
    """

    async def make() -> str:
        from adapters.postgres.sessions import PostgresSessions
        from adapters.postgres.threads import PostgresClients
        from gateway.runtime.cli.client import node_pool
        from gateway.runtime.world import SteadyClock, SystemClock
        from gateway.services.session import Sessions
        from keys.suite import Tw1Sealer

        async with node_pool(node) as pool:
            row = await PostgresClients(pool).client(client)
            if row is None or row["revoked"] or actor not in row["actors"] or not set(_LOOKS) <= set(row["scopes"]):
                fix = f"tracewire client add NODE {client} --actor {actor} --scope {' --scope '.join(_LOOKS)}"
                fault = Fault("/client", "config.invalid", "not a client that may look", f"Register one: {fix}")
                raise ProblemError("config.invalid", "no such client, actor or scope", errors=[fault])
            sessions = Sessions(PostgresSessions(pool), Tw1Sealer(), SteadyClock(SystemClock()))
            return await sessions.link(client, actor, _LOOKS)

    with problems(as_json=json):
        settings = load_settings(node)
        secret = asyncio.run(make())
        url = f"{'https' if settings.tls_key else 'http'}://{settings.agency_bind}/audit/login?link={secret}"
        say(f"Open this once, within ten minutes:\n{url}", {"url": url}, as_json=json)


@app.command
def serve(
    ledger: str,
    *,
    other: str | None = None,
    vkey: Annotated[list[str] | None, Parameter(negative="")] = None,
    policy: Path | None = None,
    node: Path | None = None,
    key: Path | None = None,
    client: str = "local",
    actor: str = "local",
    port: int = 8450,
) -> None:
    """Show the auditor's pages on this machine, over a ledger that lies elsewhere: nothing that its server says is believed.

    Every entry that is shown was proven here under the signed checkpoint, and is hashed once more in the browser.

    Parameters
    ----------
    ledger
        A folder that `ledger export` wrote, or the URL of such files, or of a node's /v1/ledger/LOG.
    other
        Another member's ledger, a folder or the URL of files: what it says is shown beside each entry that names it. The two
        are reconciled too, as `audit reconcile` does it.
    vkey
        The verifier keys of each ledger, from a directory that you trust; without: those of the policy, or that the directory
        of `node` lists, else the file `vkeys` beside the ledger, for which nobody vouches.
    policy
        A C2SP tlog-policy file (`audit policy` writes it): whose cosignatures count.
    node
        For a node's /v1: the folder with the client's key (NODE/clients/CLIENT.pem) and the node's settings.
    key
        For a node's /v1 from another machine: the client's private key (PEM, readable by you alone), beside `vkey` (or `serve --policy`), which says whose ledger it is.
    client
        With `node` or `key`: the client, with the scope ledger:read.
    actor
        With `node`: its actor.
    port
        Of this machine.
    """
    from gateway.runtime.serving import Place, serve_ledger

    with problems(as_json=False):
        wanted, vkey = demanded(policy, vkey)
        place = Place(url=ledger, vkeys=_vkeys(vkey, node), node=node, client=client, actor=actor, key=key)
        second = replace(place, url=other, node=None, key=None) if other else None

        def compare(
            keys: Sequence[LedgerKeys], told: Callable[[int, int], None]
        ) -> tuple[list[Direction], list[Difference]]:
            with tempfile.TemporaryDirectory(prefix="tracewire-audit-") as temporary:
                named = ledger, other or ""
                both = _here(named, Path(temporary), vkey, (node, None), client, actor, key)
                return reconcile(_parts(both, keys, _whole(named, not all(map(_on_web, named))), told))

        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(
                serve_ledger(
                    place,
                    second,
                    compare,
                    wanted,
                    port,
                    lambda url: say(f"{url}\nEnd with Ctrl-C.", {}, as_json=False),
                )
            )
