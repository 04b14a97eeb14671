"""The demo's field team: it has no network, so its request travels on a stick, with a photograph, and the answer comes back so."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.runtime.cli import courier
from gateway.runtime.client import DEFAULT_HANDLING, AgencyClient
from gateway.runtime.demo.federation import Federation, quietly
from gateway.runtime.demo.marks import until

Json = dict[str, Any]
PICTURE = bytes.fromhex("ffd8ffe0") + bytes(range(256)) * 2_048  # half a MiB that no page shows


async def play_stick(federation: Federation, nodes: Mapping[str, AgencyClient], body: Json) -> tuple[str, bool]:
    """What is told of it, and whether the answer is there, the bag that came twice changed nothing, and the picture is whole."""
    field, registry = nodes["field"], nodes["registry"]
    picture, stick = federation.folder / "slide.jpg", federation.folder / "stick"
    picture.write_bytes(PICTURE)
    stick.mkdir()
    attached = await field.attach(picture)
    pictured = body | {"weapon": body["weapon"] | {"images": [attached["sha256"]]}}
    said = {"to": "demo/registry", "body": pictured, "handling": DEFAULT_HANDLING, "attachments": [attached]}
    thread = str((await field.post("/v1/traces", said))["thread"])
    there = await _carry(federation, "field", "registry", stick)
    again = await asyncio.to_thread(_import, federation, "registry", Path(there["bag"]))
    shown = await until(registry, thread, "ANSWERED")
    message = shown["messages"][0]
    saved = federation.folder / "slide-at-the-registry.jpg"
    await registry.save(thread, message["id"], message["attachments"][0], saved)
    back = await _carry(federation, "registry", "field", stick)
    mine = await until(field, thread, "ANSWERED")
    await _carry(federation, "field", "registry", stick)  # the receipts of the answer
    right = again["parcels"] == {"received": 1} and saved.read_bytes() == PICTURE and mine["state"] == "ANSWERED"
    told = (
        f"A field team without a network: its request and photograph went by stick ({there['messages']} message), "
        f"the registry's answer came back so ({back['messages']} messages, {back['receipts']} receipt)"
    )
    return told, right


async def _carry(federation: Federation, sender: str, recipient: str, stick: Path) -> Json:
    """A bag from one node to another."""
    secret = federation.secret(sender)
    made = await asyncio.to_thread(
        quietly, courier.pack, federation.node(sender), f"demo/{recipient}", stick, secret=secret
    )
    await asyncio.to_thread(_import, federation, recipient, Path(made["bag"]))
    return made


def _import(federation: Federation, short: str, bag: Path) -> Json:
    return quietly(courier.unpack, federation.node(short), bag, secret=federation.secret(short))
