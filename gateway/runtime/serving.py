"""One ledger that lies elsewhere: `tracewire audit serve` shows it on the auditor's machine, `audit fetch` takes it there."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from gateway.console.explorer import Beside, Compared, Explorer
from gateway.console.session import loopback
from gateway.http.serve import Site, application
from gateway.runtime.client import AgencyClient
from gateway.runtime.exported import ExportFolder
from gateway.runtime.settings import LOOPBACK
from gateway.services.explore import Explore
from keys.files import read_private
from keys.suite import Tw1Verifier
from protocols.ledger.checkpoint import LedgerKeys, parse_checkpoint, verify_checkpoint
from protocols.ledger.entry import Entry
from protocols.ledger.merkle import leaf_hash
from protocols.ledger.note import VerifierKey
from protocols.ledger.reconcile import Difference, Direction
from protocols.ledger.tiles import ENTRIES, WIDTH, parse_bundle, tile_path, tile_width
from protocols.ledger.witness import Policy
from protocols.problems import Fault, ProblemError

_FILE_BYTES_MAX = 1024 * 1024
_WAIT = aiohttp.ClientTimeout(total=30)
Read = Callable[[str], Awaitable[bytes]]
"""A file of an exported ledger by its path; `tile.missing` for none."""


Compare = Callable[[Sequence[LedgerKeys], Callable[[int, int], None]], tuple[list[Direction], list[Difference]]]
"""Both directions and every difference of two ledgers by their keys; it tells how many entries of how many it has read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a ledger lies (folder or URL), by which keys it is judged, and as whom a node is asked for it."""

    url: str
    vkeys: Callable[[str], Sequence[str]] | None
    node: Path | None
    client: str
    actor: str
    key: Path | None = None  # of the client, where there is no node's folder


class OneLedger:
    """LedgerSource of files, by the keys that the auditor trusts."""

    def __init__(self, read: Read, keys: LedgerKeys, policy: Policy | None) -> None:
        self._read, self._keys, self._policy = read, keys, policy

    async def ledgers(self) -> Mapping[str, LedgerKeys]:
        """One."""
        return {self._keys.origin: self._keys}

    async def witnesses(self) -> Mapping[str, Sequence[VerifierKey]]:
        """Those of the auditor's policy."""
        keys = list(self._policy.witnesses.values()) if self._policy else []
        return {name: [key for key in keys if key.name == name] for name in dict.fromkeys(key.name for key in keys)}

    async def enough(self, origin: str, note: bytes, names: Sequence[str]) -> bool:
        """By the quorum of the policy."""
        del origin, names
        return self._policy is not None and self._policy.satisfied(note, Tw1Verifier())

    async def note(self, origin: str) -> bytes:
        """The file `checkpoint`."""
        del origin
        return await self._read("checkpoint")

    async def witnessed(self, origin: str) -> bytes | None:
        """The file `checkpoint.witnessed`."""
        del origin
        try:
            return await self._read("checkpoint.witnessed")
        except ProblemError:
            return None

    async def tile(self, origin: str, path: str) -> bytes:
        """A file below `tile/`."""
        del origin
        return await self._read(path)


async def serve_ledger(
    place: Place,
    other: Place | None,
    compare: Compare,
    policy: Policy | None,
    port: int,
    ready: Callable[[str], None],
) -> None:
    """Until cancelled; what the `other` ledger says is shown beside each entry that names an entry of it, and what `compare` finds.

    ProblemError where there is no such ledger, or its newest checkpoint does not hold.
    """
    async with AsyncExitStack() as stack:
        origin, explore = await _opened(place, policy, stack)
        second = await _opened(other, None, stack) if other else None
        if second and second[0] == origin:
            raise ProblemError("config.invalid", "these are two of one ledger: name another member's")
        beside = _named(*second) if second else None
        compared = Compared() if second else None
        pages = Explorer(explore, beside=beside, compared=compared, trusted=True, vouched=place.vkeys is not None)
        routes = pages.routes(loopback(port))
        runner = web.AppRunner(application(routes), access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        try:
            await Site(runner, "127.0.0.1", port).start()
        except OSError as error:
            raise ProblemError("config.invalid", f"port {port} cannot be used: {error.strerror}") from None
        if second and compared:
            keys = await explore.keys(origin), await second[1].keys(second[0])
            Thread(target=_compared, args=(compare, keys, compared), daemon=True).start()
        ready(f"http://127.0.0.1:{port}/audit")
        await asyncio.Event().wait()


def _compared(compare: Compare, keys: Sequence[LedgerKeys], into: Compared) -> None:
    def told(done: int, total: int) -> None:
        into.read, into.total = done, total

    try:
        into.directions, into.found = compare(keys, told)
    except ProblemError as problem:
        into.problem = problem.detail
    except Exception as error:  # said on the page, which else would wait for ever
        into.problem = type(error).__name__


async def _opened(place: Place, policy: Policy | None, stack: AsyncExitStack) -> tuple[str, Explore]:
    """A ledger's origin, and the ledger, once its newest checkpoint holds."""
    read = await _reader(place, stack)
    keys = await _keys(place, read)
    if policy:
        policy.check_log(keys)
    explore = Explore(OneLedger(read, keys, policy), Tw1Verifier())
    await explore.checkpoint(keys.origin)
    return keys.origin, explore


def _named(origin: str, other: Explore) -> Callable[[Entry], Awaitable[list[Beside]]]:
    """The entry of the other ledger that an entry names, proven; none past its end."""

    async def beside(entry: Entry) -> list[Beside]:
        peer = entry.peer
        if peer is None or peer.index is None or peer.origin != origin:
            return []
        if peer.index >= (await other.checkpoint(origin)).size:
            return []
        try:
            data = (await other.entry(origin, peer.index)).logged.data
        except ProblemError as problem:
            raise ProblemError(problem.code, f"{origin}: {problem.detail}") from None
        if leaf_hash(data) != peer.leaf:
            raise ProblemError("proof.entry", f"entry {peer.index} of {origin} is not the one that this entry names")
        return [Beside(origin=origin, index=peer.index, data=data, holds=True)]

    return beside


async def fetch_ledger(place: Place, folder: Path, told: Callable[[int, int], None]) -> tuple[str, int]:
    """Origin and size of what is in the folder then; `told` hears how many entries of how many are there."""
    async with AsyncExitStack() as stack:
        read = await _reader(place, stack)
        keys = await _keys(place, read)
        cosigned = await _witnessed(read)  # before the newest one, lest it be of more entries than are taken
        newest = verify_checkpoint(await read("checkpoint"), keys, Tw1Verifier())
        files = ExportFolder(folder, keys)
        if files.standing and files.standing.size > newest.size:
            raise ProblemError(
                "ledger.rollback", f"{folder} holds {files.standing.size} entries, there are {newest.size} now"
            )
        edge = files.begin()
        for first in range(edge.size, newest.size, WIDTH):
            tile = ENTRIES, first // WIDTH
            entries = list(parse_bundle(await read(tile_path(tile, tile_width(tile, newest.size)))))
            files.add(edge, entries, newest.size)
            told(edge.size, newest.size)
        files.finish(edge, newest, cosigned)
        return newest.origin, newest.size


async def _witnessed(read: Read) -> bytes | None:
    try:
        return await read("checkpoint.witnessed")
    except ProblemError:
        return None


async def _keys(place: Place, read: Read) -> LedgerKeys:
    origin = parse_checkpoint(await read("checkpoint")).origin
    vkeys = place.vkeys(origin) if place.vkeys else (await read("vkeys")).decode("ascii", "replace").split()
    return LedgerKeys.among(origin, vkeys)


async def _reader(place: Place, stack: AsyncExitStack) -> Read:
    """Files of a folder, of a web server, or what a node's `/v1` gives with an access token."""
    if not place.url.startswith(("http://", "https://")):
        return _folder(Path(place.url))
    url = place.url.rstrip("/")
    if place.key is not None:
        where = urlsplit(url)
        if where.scheme != "https" and not LOOPBACK.fullmatch(
            where.hostname or ""
        ):  # who answers could use the assertion
            raise ProblemError("config.invalid", "plain HTTP is only for loopback: give an https address with --key")
        base, _, path = url.partition("/v1/")
        member = _origin_of(place).rpartition("/")[0]
        asked = AgencyClient(
            base, audience=f"{member}/v1/token", client=place.client, actor=place.actor, key=read_private(place.key)
        )
        return _of_node(f"/v1/{path}", await stack.enter_async_context(asked))
    if place.node is None:
        return _web(url, await stack.enter_async_context(aiohttp.ClientSession()))
    agency = AgencyClient.of_node(place.node, client=place.client, actor=place.actor)
    if not url.startswith(f"{agency.url}/"):
        raise ProblemError("config.invalid", f"with --node, name a ledger of that node: {agency.url}/v1/ledger/LOG")
    return _of_node(url.removeprefix(agency.url), await stack.enter_async_context(agency))


def _origin_of(place: Place) -> str:
    """The one ledger that the auditor's keys are of."""
    names = {VerifierKey.parse(each).name for each in (place.vkeys("") if place.vkeys else ())}
    if len(names) != 1:
        raise ProblemError("config.invalid", "--key needs whose ledger it is: --policy, or its two keys as --vkey")
    return names.pop()


def _folder(folder: Path) -> Read:
    def whole(name: str) -> bytes:
        path = folder / name
        if not path.is_file() or path.stat().st_size > _FILE_BYTES_MAX:
            raise ProblemError("tile.missing", f"{name} is not there")
        return path.read_bytes()

    async def read(name: str) -> bytes:
        try:
            return await asyncio.to_thread(whole, name)
        except (OSError, ValueError):
            raise ProblemError("tile.missing", f"{name} cannot be read") from None

    return read


def _web(url: str, session: aiohttp.ClientSession) -> Read:
    async def read(name: str) -> bytes:
        data = b""
        try:
            async with session.get(f"{url}/{name}", timeout=_WAIT, allow_redirects=False) as response:
                if response.status in (401, 403):
                    said = f"who reads this has to say who it is: the server answers {response.status}"
                    fix = "Name the client's key (`--key`, or `--node` on the node's own machine), and a client with the scope ledger:read."
                    raise ProblemError("auth.missing", said, errors=[Fault("/ledger", "auth.missing", said, fix)])
                if response.status != 200:
                    raise ProblemError("tile.missing", f"{name}: the server answers {response.status}")
                async for chunk in response.content.iter_any():
                    data += chunk
                    if len(data) > _FILE_BYTES_MAX:
                        raise ProblemError("tile.missing", f"{name} has more than {_FILE_BYTES_MAX} bytes")
        except (aiohttp.ClientError, OSError, TimeoutError):
            said = f"no ledger answers at {urlsplit(url).netloc}"
            fault = Fault("/ledger", "peer.unreachable", said, "Check the address, and that its server runs.")
            raise ProblemError("peer.unreachable", said, errors=[fault]) from None
        return data

    return read


def _of_node(path: str, agency: AgencyClient) -> Read:
    async def read(name: str) -> bytes:
        return await agency.data(f"{path}/{name}")

    return read
