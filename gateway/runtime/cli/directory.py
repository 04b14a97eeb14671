"""`tracewire directory`: the commands of the authority that runs a network's directory."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter
from securesystemslib.signer import Signer

from adapters.directory.publisher import Authority, Online, Published, Status, init_directory, new_network
from adapters.directory.repository import write
from adapters.directory.request import parse_request
from adapters.directory.server import serve as serve_directory
from gateway.runtime.cli.say import SecretFrom, clock, problems, read_file, say
from keys.keystore import KeyStore
from keys.suite import Tw1Sealer, Tw1Verifier
from keys.tufsign import tuf_signer
from protocols.directory import Role
from protocols.problems import ProblemError

app = cyclopts.App(
    name="directory",
    help="""Run the directory of a network: the signed list of its members.

    A new network: `init`, then for each member `admit` twice (it prints a challenge, the member answers it) and
    `publish`; `serve` keeps it reachable and fresh. A member's later record needs only `publish`.
    """,
)

AsJson = Annotated[bool, Parameter(name="--json", negative="")]
_NO_SECRET = SecretFrom()


@app.command
def init(
    folder: Path,
    *,
    network: str,
    live: Annotated[bool, Parameter(name="--live", negative="--test")] = False,
    root_keys: int = 2,
    threshold: int = 2,
    secret: SecretFrom = _NO_SECRET,
    json: AsJson = False,
) -> None:
    """Make a new directory and its keys, and print the fingerprint of the root that members pin.

    Move `keys/holder-*/root.key` and `targets.key` off this machine afterwards, each to its own holder; bring them
    back to admit a member. The keys in `keys/publisher` stay.

    Parameters
    ----------
    folder
        A new folder: `repository/` in it is what is served, `keys/` holds the keys.
    network
        The network's short name; members are called NETWORK/MEMBER.
    live
        A live network, or one for tests, where nodes also accept plain HTTP on loopback.
    root_keys
        How many people hold a root and a targets key.
    threshold
        How many of them must sign.
    json
        Print one JSON object.
    """
    with problems(as_json=json):
        if not 1 <= threshold <= root_keys <= 16:
            raise ProblemError("config.invalid", "the threshold is between 1 and the number of root keys (at most 16)")
        document, opened = new_network(network, live=live), secret.secret(make=True)
        publisher = KeyStore.create(folder / "keys" / "publisher", opened)
        publisher.add("snapshot")
        publisher.add("timestamp")
        holders = [KeyStore.create(folder / "keys" / f"holder-{n}", opened) for n in range(1, root_keys + 1)]
        for holder in holders:
            holder.add("root")
            holder.add("targets")
        root = init_directory(
            folder,
            document,
            root_signers=[tuf_signer(holder.publisher_private("root")) for holder in holders],
            targets_signers=[tuf_signer(holder.publisher_private("targets")) for holder in holders],
            threshold=threshold,
            online=_online(publisher),
            now=clock(),
        )
        path, fingerprint = folder / "repository" / "1.root.json", sha256(root).hexdigest()
        text = f"Directory of {network} made. Give every member {path}\nIts SHA-256, to compare: {fingerprint}"
        say(text, {"root": str(path), "fingerprint": fingerprint}, as_json=json)


@app.command
def admit(
    folder: Path,
    request: str,
    *,
    role: Annotated[list[Role] | None, Parameter(negative="")] = None,
    status: Status = "active",
    record_key_lost: bool = False,
    secret: SecretFrom = _NO_SECRET,
    json: AsJson = False,
) -> None:
    """Admit a member, or change the roles or status of one. Needs the targets keys; `publish` brings it into force.

    The first run prints a challenge for the member's seal key and writes it beside the request; the second, with the
    answered request, admits. Check first, by a second channel, that the request is the member's.

    Parameters
    ----------
    folder
        The directory's folder.
    request
        The member's request file, or NETWORK/MEMBER of one admitted before.
    role
        What the member is; give it once for each role.
    status
        `suspended` and `revoked` members stay listed, and nobody exchanges with them.
    record_key_lost
        The member has a new record key that the former one did not sign for: the first run is the notice, the same again
        after 72 hours admits it.
    json
        Print one JSON object.
    """
    with problems(as_json=json):
        signers, path = _targets_signers(folder, secret), Path(request)
        if not path.is_file():
            _authority(folder).set_member(request, roles=role or [], status=status, signers=signers, now=clock())
            say(f"{request} is {status}, once published.", {"state": status, "member": request}, as_json=json)
            return
        if not role:
            raise ProblemError("config.invalid", "a new member needs a role: give --role")
        data = read_file(path)
        asked = _authority(folder).admit(
            data, roles=role, status=status, signers=signers, now=clock(), lost=record_key_lost
        )
        member = parse_request(data).record.member
        if asked is None:
            say(f"{member} is admitted, once published.", {"state": "admitted", "member": member}, as_json=json)
            return
        found = {"state": "challenge", "member": member, "challenge": str(_hand_out(path, asked))}
        say(f"{asked.decode()}\n{_please_answer(member, found['challenge'])}", found, as_json=json)


@app.command
def witnesses(
    folder: Path, *members: str, quorum: int = 0, secret: SecretFrom = _NO_SECRET, json: AsJson = False
) -> None:
    """Name the members whose cosignatures count, and how many a ledger needs. Needs the targets keys; then `publish`.

    Every node asks its witnesses each half hour to cosign its newest checkpoint; fewer than the quorum are an alarm there.
    An inspectorate that does nothing else is a member with the role `witness` and a node like any other.

    Parameters
    ----------
    folder
        The directory's folder.
    members
        NETWORK/MEMBER; none: every active member is one.
    quorum
        How many cosignatures a checkpoint needs.
    json
        Print one JSON object.
    """
    with problems(as_json=json):
        signers = _targets_signers(folder, secret)
        _authority(folder).set_witnesses(members, quorum, signers=signers, now=clock())
        text = f"{', '.join(members) or 'All members'} witness, {quorum} are needed, once published."
        say(text, {"witnesses": list(members), "quorum": quorum}, as_json=json)


@app.command
def abandon(folder: Path, checkpoint: Path, *, secret: SecretFrom = _NO_SECRET, json: AsJson = False) -> None:
    """Give a ledger up at its last good checkpoint, after a rollback or a stolen ledger key. Needs the targets keys; then `publish`.

    What lies under the checkpoint stays valid. Later entries count only where another member held them before. The member opens its next
    ledger: `tracewire keys rotate NODE ledger`.

    Parameters
    ----------
    folder
        The directory's folder.
    checkpoint
        The signed note of the last good checkpoint, as any member or export of the ledger has it.
    json
        Print one JSON object.
    """
    with problems(as_json=json):
        signers = _targets_signers(folder, secret)
        last = _authority(folder).abandon(read_file(checkpoint), signers=signers, now=clock())
        text = f"{last.origin} is abandoned at size {last.size}, once published."
        say(text, {"origin": last.origin, "size": last.size}, as_json=json)


@app.command
def publish(folder: Path, *requests: Path, secret: SecretFrom = _NO_SECRET, json: AsJson = False) -> None:
    """Publish a new version with everything admitted since the last one, and with members' new records.

    A new record must be signed by the same record key. One with a new seal key is not published until the member
    has answered the challenge that is written beside its request.

    Parameters
    ----------
    folder
        The directory's folder.
    requests
        Request files of members admitted before.
    json
        Print one JSON object.
    """
    with problems(as_json=json):
        online = _online(KeyStore.open(folder / "keys" / "publisher", secret.secret()))
        read = {path: read_file(path) for path in requests}
        done = _authority(folder).publish(list(read.values()), online=online, now=clock())
        of = {parse_request(data).record.member: path for path, data in read.items()}
        challenges = {member: str(_hand_out(of[member], asked)) for member, asked in done.challenges.items()}
        found = {"version": done.version, "members": done.members, "challenges": challenges}
        say("\n".join(_published_lines(done, challenges)), found, as_json=json)


@app.command
def serve(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8400,
    secret: SecretFrom = _NO_SECRET,
    json: AsJson = False,
) -> None:
    """Serve the directory over HTTP and sign its timestamp every hour, until SIGTERM.

    Plain HTTP is enough, every file is signed. When this does not run for 24 hours, members warn; after 72 more
    they hold their messages.

    Parameters
    ----------
    folder
        The directory's folder.
    host
        The address to listen on.
    port
        The port to listen on; 0 takes a free one.
    json
        Print one JSON object.
    """

    def ready(bound: int) -> None:
        say(f"Serving http://{host}:{bound}", {"url": f"http://{host}:{bound}"}, as_json=json)

    async def run(online: Online) -> None:
        with _stopping() as stop:
            await serve_directory(folder, host=host, port=port, online=online, clock=clock, stop=stop, ready=ready)

    with problems(as_json=json):
        asyncio.run(run(_online(KeyStore.open(folder / "keys" / "publisher", secret.secret()))))


def _targets_signers(folder: Path, secret: SecretFrom) -> list[Signer]:
    """Of every holder whose targets key is here."""
    opened = secret.secret()
    holders = [each for each in sorted((folder / "keys").glob("holder-*")) if (each / "targets.key").exists()]
    return [tuf_signer(KeyStore.open(each, opened).publisher_private("targets")) for each in holders]


def _online(store: KeyStore) -> Online:
    return Online(
        snapshot=tuf_signer(store.publisher_private("snapshot")),
        timestamp=tuf_signer(store.publisher_private("timestamp")),
    )


def _authority(folder: Path) -> Authority:
    return Authority(folder, sealer=Tw1Sealer(), verifier=Tw1Verifier())


def _hand_out(request: Path, asked: bytes) -> Path:
    path = request.with_name(f"{request.name.removesuffix('.json')}.challenge.json")
    write(path, asked)
    return path


def _please_answer(member: str, path: str) -> str:
    return f"{member} must answer {path} first: `tracewire member request NODE --answer FILE`."


def _published_lines(done: Published, challenges: dict[str, str]) -> Iterator[str]:
    yield f"Version {done.version} is published; new records: {', '.join(done.members) or 'none'}."
    for member, path in challenges.items():
        yield _please_answer(member, path)


@contextmanager
def _stopping() -> Iterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    yield stop
