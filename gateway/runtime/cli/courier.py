"""`tracewire courier`: messages and receipts as files, where there is no network."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import cyclopts
from cyclopts import Parameter

from adapters.courier.bag import BagReader, BagWriter
from gateway.runtime.cli.client import node_parts
from gateway.runtime.cli.say import SecretFrom, clock, problems, say
from gateway.runtime.settings import load_settings
from protocols.problems import CODES, Fault, ProblemError

if TYPE_CHECKING:
    from gateway.services.courier import Carried

app = cyclopts.App(name="courier", help="Messages and receipts as files: for a place without a network.")
AsJson = Annotated[bool, Parameter(name="--json", negative="")]
_NO_SECRET = SecretFrom()
_ASIDE = "aside"
_FOUND = 3
_SAID = {
    "received": "taken, or taken before", "refused": "refused for good, with a receipt that says why",
    "id_conflict": "refused: another content came under its id before",
}  # fmt: skip


@app.command(name="export")
def pack(node: Path, to: str, folder: Path, *, secret: SecretFrom = _NO_SECRET, json: AsJson = False) -> None:
    """Write a bag for one member: what waits for it, receipts of what came from it by courier, the directory.

    Nothing is taken out of the outbox: a message is carried again until its receipt has come, by whatever way. The bag is
    a folder by BagIt (RFC 8493), sealed as every message is; any file system will do, exFAT too. The node may run.

    Parameters
    ----------
    node
        The node's folder.
    to
        The NETWORK/MEMBER that it is for.
    folder
        Where the bag is written, say a stick.
    json
        Print one JSON object.
    """

    async def export() -> tuple[Path, int, int]:
        bag = BagWriter(folder, sender=load_settings(node).member, recipient=to, now=clock())
        try:
            async with node_parts(node, secret.secret()) as parts:
                parcels, receipts = await parts.ways.courier.export(to, bag)
            return await asyncio.to_thread(bag.close), parcels, receipts
        except BaseException:
            bag.discard()
            raise

    with problems(as_json=json):
        try:
            path, parcels, receipts = asyncio.run(export())
        except OSError as error:
            raise _medium(folder, error) from None
        text = f"{path}: {parcels} messages and {receipts} receipts for {to}.\nThere: tracewire courier import NODE {path.name}"
        say(text, {"bag": str(path), "messages": parcels, "receipts": receipts}, as_json=json)


@app.command(name="import")
def unpack(node: Path, bag: Path, *, secret: SecretFrom = _NO_SECRET, json: AsJson = False) -> int:
    """Take what a bag holds, as if it had come over the network; again, or after the network, it changes nothing.

    A file that is changed or foreign is named, and copied to NODE/aside; all others are taken. Then carry receipts back
    with `tracewire courier export`. The node may run. Exit code 3: something is wrong with the bag, or has to come again.

    Parameters
    ----------
    node
        The node's folder.
    bag
        The folder that `tracewire courier export` wrote.
    json
        Print one JSON object.
    """

    async def take(reader: BagReader) -> "Carried":
        async with node_parts(node, secret.secret()) as parts:
            return await parts.ways.courier.take(reader.sender, reader)

    with problems(as_json=json):
        try:
            us, reader = load_settings(node).member, BagReader(bag, node / _ASIDE)
            if reader.recipient != us:
                fault = Fault("", "courier.bag", "", "Take the bag to the member that it is for.")
                raise ProblemError("courier.bag", f"{bag} is not for {us}", errors=[fault])
            found = asyncio.run(take(reader))
        except OSError as error:
            raise _medium(bag, error) from None
        later = [code for code in found.parcels if code in CODES and CODES[code].retry != "never"]
        shown = {
            "from": reader.sender, "parcels": dict(found.parcels), "receipts": found.receipts, "settled": found.settled,
            "cosigned": found.cosigned, "directory": found.directory, "aside": reader.wrong,
        }  # fmt: skip
        say(_text(reader, found, node, later), shown, as_json=json)
    return _FOUND if reader.wrong or later else 0


def _text(reader: BagReader, found: "Carried", node: Path, later: list[str]) -> str:
    lines = [f"From {reader.sender}: {found.parcels.total()} messages, {found.receipts} receipts."]
    lines += [f"  {count:6} {_said(kind)}" for kind, count in sorted(Counter(found.parcels).items())]
    lines.append(f"  {found.settled:6} of our messages settled by their receipts")
    lines.append(f"  {found.cosigned:6} checkpoints of our ledger that it cosigned")
    if reader.wrong:
        lines.append(f"Set aside in {node / _ASIDE}, everything else was taken:")
        lines += [f"  {name}: {why}" for name, why in reader.wrong.items()]
    if later:
        lines.append("What could not be taken now is taken when the same bag is imported again.")
    return "\n".join(lines)


def _said(kind: str) -> str:
    return _SAID[kind] if kind in _SAID else f"not taken: {CODES[kind].title}. {CODES[kind].fix} ({kind})"


def _medium(path: Path, error: OSError) -> ProblemError:
    detail = f"{path}: {error.strerror}"
    return ProblemError(
        "courier.bag", detail, errors=[Fault("", "courier.bag", "", "Look at the medium: space, access.")]
    )
